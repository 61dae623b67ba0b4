"""`altaprofiles login`: the dialog on a terminal, and the file it writes."""

from __future__ import annotations

import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from altaprofiles.accounts import Accounts
from altaprofiles.emulator import Emulator

from ..support.disks import filled, mounted
from ..support.hosts import hosted
from ..support.servers import http
from ..support.terminals import Terminal, emulated, environment, run

pytestmark = pytest.mark.slow

COUNT = ["count", "Charged", "--from", "2026-01-01", "--to", "2026-01-31"]


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with emulated(people=50) as running:
        yield running


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return environment(tmp_path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".config" / "altaprofiles" / "accounts.toml"


def answer(terminal: Terminal, emulator: Emulator, *, passcode: str | None = None) -> None:
    """Answer all questions, for both services."""
    held = emulator.environment
    terminal.expect("CleverTap account ID")
    terminal.type(held["CLEVERTAP_ACCOUNT_ID"])
    terminal.expect("Its passcode: ")
    terminal.type(passcode or held["CLEVERTAP_PASSCODE"])
    terminal.expect("region")
    terminal.type(emulator.url)
    terminal.expect("Alta API key (Enter for none): ")
    terminal.type(held["ALTA_TOKEN"])
    terminal.expect("Alta's base URL")
    terminal.type(emulator.url)


def test_the_answers_are_tried_and_kept_for_the_owner(
    env: dict[str, str], emulator: Emulator, path: Path
) -> None:
    with Terminal(env, "login", "shop") as terminal:
        answer(terminal, emulator)
        done = terminal.ended()
    assert done.code == 0, terminal.text
    assert "CleverTap accepts" in terminal.text
    assert "Alta accepts" in terminal.text
    assert str(path) in terminal.text.replace("\n", "")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    accounts = Accounts.read(path)
    assert accounts.default == "shop"
    assert accounts.tables["shop"] == {
        "account_id": emulator.environment["CLEVERTAP_ACCOUNT_ID"],
        "passcode": emulator.environment["CLEVERTAP_PASSCODE"],
        "base_url": emulator.url,
        "alta_token": emulator.environment["ALTA_TOKEN"],
        "alta_base_url": emulator.url,
    }
    for secret in ("CLEVERTAP_PASSCODE", "ALTA_TOKEN"):
        assert emulator.environment[secret] not in terminal.screen
    assert run(env, *COUNT).code == 0
    assert run(env, "cdp", "--user-id", "nobody").code == 5
    assert run(env, "doctor").code == 0


def test_a_time_zone_is_kept_with_the_answers(
    env: dict[str, str], emulator: Emulator, path: Path
) -> None:
    with Terminal(env, "login", "shop", "--timezone", "Asia/Kolkata") as terminal:
        answer(terminal, emulator)
        assert terminal.ended().code == 0, terminal.text
    assert Accounts.read(path).tables["shop"]["timezone"] == "Asia/Kolkata"
    with Terminal(env, "login", "shop", "--timezone", "Asia/Calcuta") as terminal:
        assert terminal.ended().code == 2
    assert "--timezone: there is no time zone 'Asia/Calcuta'" in terminal.text.replace("\n", " ")
    assert Accounts.read(path).tables["shop"]["timezone"] == "Asia/Kolkata"


def test_on_a_full_disk(env: dict[str, str], emulator: Emulator, path: Path) -> None:
    path.parent.mkdir(parents=True)
    with (
        mounted("-t", "tmpfs", "-o", "size=64k", "none", at=path.parent),
        filled(path.parent),
        Terminal(env, "login", "shop", "--no-test") as terminal,
    ):
        answer(terminal, emulator)
        assert terminal.ended().code == 1
    text = " ".join(terminal.text.split())
    assert f"{path} cannot be written: No space left on device; nothing was saved" in text
    assert "; free some space, and run the same command again" in text


def test_a_second_account_leaves_the_first_as_it_was(
    env: dict[str, str], emulator: Emulator, path: Path
) -> None:
    path.parent.mkdir(parents=True)
    first = {"account_id": "A", "passcode": 'qu"ote', "max_in_flight": 2}
    Accounts(path, "main", {"main": first}).write()
    with Terminal(env, "login", "shop") as terminal:
        answer(terminal, emulator)
        assert terminal.ended().code == 0, terminal.text
    accounts = Accounts.read(path)
    assert accounts.default == "main"
    assert accounts.tables["main"] == first
    assert run(env, *COUNT, "--account", "shop").code == 0


def test_logging_in_again_offers_what_there_was(
    env: dict[str, str], emulator: Emulator, path: Path
) -> None:
    with Terminal(env, "login") as terminal:
        answer(terminal, emulator)
        assert terminal.ended().code == 0, terminal.text
    accounts = Accounts.read(path)
    accounts.tables["main"]["max_in_flight"] = 2
    accounts.write()
    with Terminal(env, "login") as terminal:
        for question in ("account ID", "passcode", "region", "API key", "base URL"):
            terminal.expect(question)
            terminal.expect(": ")
            terminal.type("")
        assert terminal.ended().code == 0, terminal.text
    assert Accounts.read(path).tables == accounts.tables
    assert emulator.environment["CLEVERTAP_PASSCODE"] not in terminal.screen


def test_refused_credentials_are_not_kept(
    env: dict[str, str], emulator: Emulator, path: Path
) -> None:
    with Terminal(env, "login") as terminal:
        answer(terminal, emulator, passcode="wr0ng")
        assert terminal.ended().code == 3
    assert "wrong region" in terminal.text
    assert "Nothing was saved" in terminal.text
    # A base URL was given, for which there are no regions to try.
    assert "--try-regions" not in terminal.text
    assert "wr0ng" not in terminal.screen
    assert not path.exists()


def test_credentials_that_no_service_has_seen_are_not_kept(
    env: dict[str, str], tmp_path: Path, path: Path
) -> None:
    with hosted(tmp_path, lambda *_: http(b"404 page not found", "404 Not Found")) as hosts:
        with Terminal(env | hosts.env, "login", columns=200) as terminal:
            for question, words in (
                ("account ID", "A"),
                ("passcode: ", "p"),
                ("base URL", "https://api-jp.gptbots.ai"),
                ("API key", ""),
            ):
                terminal.expect(question)
                terminal.type(words)
            assert terminal.ended().code == 1
    assert "The host knows no such call: check region" in terminal.text
    assert "Nothing was saved" in terminal.text
    assert not path.exists()


def test_answers_in_each_other_s_place_are_not_kept(env: dict[str, str], path: Path) -> None:
    with Terminal(env, "login", "--no-test", columns=200) as terminal:
        terminal.expect("account ID")
        terminal.type("QWE-ASD-ZXCL")
        terminal.expect("Its passcode: ")
        terminal.type("W9R-654-865Z")
        terminal.expect("swap `account_id` and `passcode`")
        terminal.expect("Its passcode: ")
        terminal.press("\x03")
        assert terminal.ended().code == 130
    assert not path.exists()
    with Terminal(env, "login", "pa55 c0de 7") as terminal:
        assert terminal.ended().code == 2
    assert "pa55" not in terminal.text


def test_without_a_test_they_are_kept_as_they_are(
    env: dict[str, str], emulator: Emulator, path: Path
) -> None:
    with Terminal(env, "login", "--no-test") as terminal:
        terminal.expect("account ID")
        terminal.type("W9R-654-865Z")
        terminal.expect("Its passcode: ")
        terminal.type("s3cret")
        terminal.expect("region")
        terminal.type("in1")
        terminal.expect("API key (Enter for none): ")
        terminal.type("")
        assert terminal.ended().code == 0
    assert Accounts.read(path).tables == {
        "main": {"account_id": "W9R-654-865Z", "passcode": "s3cret", "region": "in1"}
    }


def test_an_answer_that_cannot_work_is_asked_for_again(env: dict[str, str], path: Path) -> None:
    with Terminal(env, "login", "--no-test") as terminal:
        terminal.expect("account ID")
        terminal.type("W9R 654")
        terminal.expect("holds a space")
        terminal.expect("account ID")
        terminal.type("W9R-654")
        terminal.expect("Its passcode: ")
        terminal.type("s3 cret")
        terminal.expect("Its passcode: ")
        terminal.type("s3cret")
        terminal.expect("region")
        terminal.type("mars")
        terminal.expect("unknown region 'mars'")
        terminal.expect("region")
        terminal.type("http://example.com")
        terminal.expect("unencrypted")
        terminal.type("sg1")
        terminal.expect("API key (Enter for none): ")
        terminal.type("")
        assert terminal.ended().code == 0
    assert "cret" not in terminal.screen
    assert Accounts.read(path).tables["main"]["region"] == "sg1"


def test_nothing_is_nothing_to_save(env: dict[str, str], path: Path) -> None:
    with Terminal(env, "login") as terminal:
        terminal.expect("account ID")
        terminal.type("")
        terminal.expect("API key (Enter for none): ")
        terminal.type("")
        assert terminal.ended().code == 1
    assert "nothing to save" in terminal.text
    assert not path.exists()


@pytest.mark.parametrize("question", ["account ID", "passcode"])
def test_ctrl_c_ends_the_dialog(env: dict[str, str], path: Path, question: str) -> None:
    with Terminal(env, "login") as terminal:
        terminal.expect("account ID")
        if question == "passcode":
            terminal.type("A")
            terminal.expect("Its passcode: ")
        terminal.press_ctrl_c()
        assert terminal.ended().code == 130
    assert "Traceback" not in terminal.text
    assert not path.exists()


def test_what_hides_an_answer_shows_the_next_ones(env: dict[str, str], path: Path) -> None:
    with Terminal(env, "login") as terminal:
        terminal.expect("account ID")
        terminal.type("A")
        terminal.expect("Its passcode: ")
        terminal.interrupt(signal.SIGTERM)
        assert terminal.ended().code == 143
        assert terminal.echoes
    assert "error: interrupted by SIGTERM" in terminal.text
    assert not path.exists()


def test_ctrl_d_is_the_end_of_the_answers(env: dict[str, str], path: Path) -> None:
    with Terminal(env, "login") as terminal:
        terminal.expect("account ID (Enter for none): ")
        terminal.press("\x04")
        assert terminal.ended().code == 1
    assert "the input has ended; nothing was saved" in terminal.text
    assert "SIGINT" not in terminal.text


def test_answers_that_are_no_text_are_asked_for_again(env: dict[str, str], path: Path) -> None:
    with Terminal(env, "login", "--no-test") as terminal:
        terminal.expect("account ID")
        terminal.type("A")
        terminal.expect("Its passcode: ")
        terminal.type("p\udcff")
        terminal.expect("not UTF-8")
        terminal.expect("Its passcode: ")
        terminal.type("s3cret")
        terminal.expect("region")
        terminal.type("https://h\udcff.example")
        terminal.expect("Error: ")
        terminal.expect("region")
        terminal.type("in1")
        terminal.expect("API key")
        terminal.type("")
        assert terminal.ended().code == 0, terminal.text
    assert Accounts.read(path).tables["main"]["region"] == "in1"


def test_a_service_can_be_taken_out(env: dict[str, str], path: Path) -> None:
    path.parent.mkdir(parents=True)
    held = {"account_id": "A", "passcode": "p", "region": "in1", "max_in_flight": 2}
    Accounts(path, None, {"shop": {**held, "alta_token": "t"}}).write()
    with Terminal(env, "login", "--no-test") as terminal:
        terminal.expect("Account 'shop', as it is")
        terminal.expect("CleverTap account ID (- for none) [A]: ")
        terminal.type("-")
        terminal.expect("API key (Enter to keep the present one, - for none): ")
        terminal.type("")
        terminal.expect("base URL")
        terminal.type("")
        assert terminal.ended().code == 0, terminal.text
    accounts = Accounts.read(path)
    assert accounts.tables == {"shop": {"alta_token": "t", "alta_endpoint": "altatech"}}
    assert accounts.default == "shop"


def test_regions_and_platforms_are_kept_by_their_names(env: dict[str, str], path: Path) -> None:
    with Terminal(env, "login", "--no-test", columns=200) as terminal:
        for question, words in (
            ("account ID", "A"),
            ("Its passcode: ", "p"),
            ("mec1, sk1), or a base URL [eu1]: ", "SK1"),
            ("API key", "t"),
            (
                "platform (altatech, gptbots.ai, sg, jp, th), or Alta's base URL [altatech]: ",
                "mars",
            ),
            ("Error: endpoint: unknown platform 'mars'; use one of altatech, ", None),
            ("[altatech]: ", "api.gptbots.ai"),
            ("pass 'gptbots.ai'", None),
            ("[altatech]: ", "GPTBots.AI"),
        ):
            terminal.expect(question)
            if words is not None:
                terminal.type(words)
        assert terminal.ended().code == 0, terminal.text
    kept = {"account_id": "A", "passcode": "p", "region": "sk1"}
    kept |= {"alta_token": "t", "alta_endpoint": "gptbots.ai"}
    assert Accounts.read(path).tables == {"main": kept}
    # The endpoint is offered again, and makes way for a base URL.
    for place in ("", "https://example.com"):
        with Terminal(env, "login", "--no-test", columns=200) as terminal:
            for question in ("account ID", "passcode", "region", "API key"):
                terminal.expect(question)
                terminal.expect(": ")
                terminal.type("")
            terminal.expect("[gptbots.ai]: ")
            terminal.type(place)
            assert terminal.ended().code == 0, terminal.text
        if place:
            del kept["alta_endpoint"]
            kept["alta_base_url"] = place
        assert Accounts.read(path).tables == {"main": kept}


def test_a_key_of_another_platform_comes_with_the_way_to_find_it(
    env: dict[str, str], tmp_path: Path, path: Path
) -> None:
    def answer(host: str, head: str) -> bytes:
        if host == "api-jp.gptbots.ai":
            return http(b'{"code":0,"message":"OK","data":{}}')
        return http(b'{"code":40127,"message":"Developer authentication failed"}')

    def log_in(*options: str, token: str, place: str) -> tuple[int, str]:
        with Terminal(env, "login", "agent", *options, columns=200) as terminal:
            for question, words in (("account ID", ""), ("API key", token), ("URL", place)):
                terminal.expect(question)
                terminal.type(words)
            return terminal.ended().code, terminal.text

    with hosted(tmp_path, answer) as hosts:
        env |= hosts.env
        code, text = log_in(token="t0k3n", place="sg")
        assert code == 3
        assert "pass that platform as alta_endpoint ('altatech', " in text
        assert not path.exists()
        assert (
            "To find the platform: altaprofiles login agent --no-test, then altaprofiles "
            "doctor --account agent --try-regions" in text
        )
        assert log_in("--no-test", token="t0k3n", place="sg")[0] == 0
        found = run(env, "doctor", "--account", "agent", "--try-regions")
        assert "the API key is accepted on platform jp" in found.stdout.decode()
        assert f'Write alta_endpoint = "jp" in {path}' in found.stdout.decode()
        code, text = log_in(token="", place="JP")
        assert code == 0
        assert "Alta accepts the API key" in text
    assert Accounts.read(path).tables["agent"]["alta_endpoint"] == "jp"


def answer_of(account_id: str, terminal: Terminal) -> None:
    """Answer the questions on an account of CleverTap alone."""
    answers = {"account ID": account_id, "passcode: ": "p", "base URL": "eu1", "API key": ""}
    for question, told in answers.items():
        terminal.expect(question)
        terminal.type(told)


def test_a_third_account_is_saved_where_there_is_no_default(
    env: dict[str, str], path: Path
) -> None:
    path.parent.mkdir(parents=True)
    one = {"account_id": "A", "passcode": "p"}
    Accounts(path, None, {"shop": one, "outlet": one | {"account_id": "B"}}).write()
    with Terminal(env, "login", "x", "--no-test") as terminal:
        answer_of("C", terminal)
        assert terminal.ended().code == 0, terminal.text
    saved = Accounts.read(path)
    assert (saved.default, [*saved.tables]) == (None, ["shop", "outlet", "x"])


def test_a_second_account_does_not_become_the_default(env: dict[str, str], path: Path) -> None:
    path.parent.mkdir(parents=True)
    Accounts(path, None, {"shop": {"account_id": "A", "passcode": "p"}}).write()
    with Terminal(env | {"CLEVERTAP_ACCOUNT_ID": "E"}, "login", "x", "--no-test") as terminal:
        answer_of("B", terminal)
        assert terminal.ended().code == 0, terminal.text
    assert "(the default)" not in terminal.text
    # Until now there was only one account, so that no default was needed.
    assert Accounts.read(path).default == "shop"
    advice = "CLEVERTAP_ACCOUNT_ID takes precedence over it, unless you pass --account x"
    assert advice in " ".join(terminal.text.split())


def test_a_key_that_alta_refuses_is_none_of_clevertap_s_regions(
    env: dict[str, str], emulator: Emulator, path: Path
) -> None:
    with Terminal(env, "login") as terminal:
        terminal.expect("account ID")
        terminal.type("")
        terminal.expect("API key")
        terminal.type("wr0ng")
        terminal.expect("base URL")
        terminal.type(emulator.url)
        assert terminal.ended().code == 3
    assert "Nothing was saved" in terminal.text
    assert "region" not in terminal.text
    assert not path.exists()


def test_it_needs_a_terminal_and_a_private_file(env: dict[str, str], path: Path) -> None:
    done = run(env, "login", stdin=b"A\np\neu1\n\n")
    assert (done.code, done.stdout) == (2, b"")
    assert "not a terminal; run it in a terminal, or set CLEVERTAP_ACCOUNT_ID" in done.stderr
    with Terminal({**env, "JPY_PARENT_PID": "1"}, "login") as terminal:
        assert terminal.ended().code == 2
    with Terminal(env, "login", "no/name") as terminal:
        assert terminal.ended().code == 2
    path.parent.mkdir(parents=True)
    path.write_text('[accounts.main]\naccount_id = "A"\npasscode = "p"\n')
    path.chmod(0o644)
    with Terminal(env, "login") as terminal:
        assert terminal.ended().code == 3
    assert "chmod 600" in terminal.text


def test_questions_go_to_stderr_and_nothing_to_stdout(
    env: dict[str, str], emulator: Emulator, path: Path
) -> None:
    with Terminal(env, "login", piped=("stdout",)) as terminal:
        answer(terminal, emulator)
        assert terminal.ended() == (0, b"", "")
    assert path.exists()


def test_a_folder_that_is_none_is_named(env: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / ".config").write_text("a file, where a folder belongs")
    with Terminal(env, "login") as terminal:
        assert terminal.ended().code == 3
    assert "Not a directory" in terminal.text
    assert "Traceback" not in terminal.text


def test_credentials_in_the_environment_need_no_login(
    env: dict[str, str], emulator: Emulator, path: Path
) -> None:
    variables = emulator.environment
    done = run({**env, **variables}, "login", "eu", stdin=b"")
    assert (done.code, done.stdout) == (2, b"")
    assert "the credentials of CleverTap and Alta are in the environment" in done.stderr
    assert "need no login" in done.stderr
    assert f"for several accounts, write {path} (its format: altaprofiles guide" in done.stderr
    assert "or set" not in done.stderr
    assert all(variables[name] not in done.stderr for name in ("CLEVERTAP_PASSCODE", "ALTA_TOKEN"))
    # An account without its passcode is nobody's credentials.
    names = {"CLEVERTAP_ACCOUNT_ID": "A", "CLEVERTAP_PASSCODE": ""}
    done = run({**env, **names}, "login", stdin=b"")
    assert "or set CLEVERTAP_ACCOUNT_ID and CLEVERTAP_PASSCODE" in done.stderr
    done = run({**env, **names, "ALTA_TOKEN": "t"}, "login", stdin=b"")
    assert "the credentials of Alta are in the environment" in done.stderr
    # The file that the commands would read.
    done = run({**env, "ALTAPROFILES_CONFIG": "/srv/crm.toml"}, "login", stdin=b"")
    assert "write /srv/crm.toml (" in done.stderr
