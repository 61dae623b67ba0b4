"""The output of `get`, `cdp` and `count`, on terminals and through pipes."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Literal

import pytest
from anyio import to_thread

from altaprofiles import ConnectError, RequestTimeout
from altaprofiles.cli.app import App
from altaprofiles.emulator import Emulator

from ..support.forks import start
from ..support.servers import always, http, in_turn, scripted
from ..support.tasks import PATIENCE
from ..support.terminals import COMMAND, Terminal, emulated, environment, held, longest, run


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with emulated(people=300, seed=3) as running:
        yield running


@pytest.fixture(scope="module")
def failing() -> Iterator[Emulator]:
    with emulated(people=1, faults={"server_error": 1}) as running:
        yield running


@pytest.fixture
def env(emulator: Emulator, tmp_path: Path) -> dict[str, str]:
    return environment(tmp_path, emulator.environment)


@pytest.fixture(scope="module")
def bound(emulator: Emulator) -> str:
    """Return a user ID with anonymous IDs."""
    people = emulator.population
    return next(
        identity
        for index in range(len(people))
        if (identity := people.identity(index)) and emulator.bindings.by_user(identity)
    )


def test_a_record_is_one_line_of_json_in_a_pipe(env: dict[str, str]) -> None:
    done = run(env, "get", "--identity", "5555555555")
    assert (done.code, done.stderr) == (0, "")
    assert done.stdout.count(b"\n") == 1
    assert json.loads(done.stdout)["profileData"] == {"favoriteFood": "pizza"}


@pytest.mark.parametrize("columns", [40, 120])
def test_a_record_is_a_table_on_a_terminal(env: dict[str, str], columns: int) -> None:
    with Terminal(env, "get", "--identity", "5555555555", columns=columns) as terminal:
        assert terminal.ended().code == 0
    assert "favoriteFood" in terminal.text
    assert "2016-03-15" in terminal.text
    assert "profileData" not in terminal.text
    assert max(map(len, terminal.text.splitlines())) <= columns
    # A truncated ID is useless.
    shown = "".join(x for x in terminal.text if x.isalnum() or x == "-")
    assert "-1a063854f83a4c6484285039ecff87cb" in shown or columns == 40
    assert "…" not in terminal.text


def test_a_date_is_a_date_on_a_terminal(env: dict[str, str], tmp_path: Path) -> None:
    record = {"identity": "bo", "profileData": {"Signup Date": "$D_1609903166"}}
    with emulated(records=[record]) as emulator:
        own = environment(tmp_path, emulator.environment)
        with Terminal(own, "get", "--identity", "bo") as terminal:
            assert terminal.ended().code == 0
        assert "2021-01-06 03:19:26 UTC" in terminal.text
        assert b'"Signup Date":"$D_1609903166"' in run(own, "get", "--identity", "bo").stdout


def test_a_terminal_gets_no_colours_with_no_color(env: dict[str, str]) -> None:
    with Terminal(env | {"NO_COLOR": "1"}, "get", "--identity", "5555555555") as terminal:
        assert terminal.ended().code == 0
    assert "\x1b[3" not in terminal.screen


def test_a_terminal_that_cannot_show_boxes_gets_none(env: dict[str, str]) -> None:
    latin = env | {"PYTHONIOENCODING": "latin-1", "LC_ALL": "C"}
    with Terminal(latin, "get", "--identity", "5555555555") as terminal:
        assert terminal.ended().code == 0
    assert "favoriteFood" in terminal.text
    assert "+--" in terminal.text
    assert "\\u25" not in terminal.text


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "cp1252"])
def test_data_is_utf8_whatever_the_locale_says(
    env: dict[str, str], emulator: Emulator, encoding: str
) -> None:
    people = emulator.population
    identity = next(
        identity
        for index in range(len(people))
        if (identity := people.identity(index)) is not None
        and not json.dumps(people.record(index), ensure_ascii=False).isascii()
    )
    foreign = env | {"PYTHONIOENCODING": encoding, "LC_ALL": "C"}
    done = run(foreign, "get", "--identity", identity)
    assert done.code == 0, done.stderr
    assert done == run(env, "get", "--identity", identity)
    assert not done.stdout.isascii()
    done = run(foreign, "get", "--identity", "nobody-Zoë-☃")
    assert (done.code, done.stdout) == (5, b"")
    assert "no such person" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["get", "jack@example.com"], "got 1 unexpected extra argument;"),
        (["get", "jack"], "argument; a key stands behind its option: --identity ID, --email ADD"),
        (["cdp", "jack@example.com", "5"], "got 2 unexpected extra arguments;"),
        (["cdp", "jack"], "argument; an ID stands behind its option: --user-id ID or --anonymous"),
        (["lookup", "jack@example.com", "--by", "email", "-o", "x.csv"], "File does not exist"),
        (["cdp", "--file", "jack@example.com", "--by", "user-id"], "File does not exist"),
        (["get", "--email", "jack@example.com\n"], "--email: holds the control character U+000A"),
        (["get", "--email", "jack@example.com"], "no such person"),
        (["cdp", "--user-id", "jack@example.com"], "no bindings"),
    ],
)
@pytest.mark.parametrize("log_format", ["text", "json"])
def test_no_error_repeats_a_key(
    env: dict[str, str], tmp_path: Path, arguments: list[str], words: str, log_format: str
) -> None:
    done = run(env, *arguments, "--log-format", log_format, cwd=tmp_path)
    assert done.code in (1, 2, 5)
    assert words in done.stderr
    assert "jack" not in done.stderr


def test_nobody_is_an_error_and_no_output(env: dict[str, str]) -> None:
    done = run(env, "get", "--email", "nobody@example.com")
    assert done == (5, b"", "error: no such person: the service has no profile with this email\n")
    done = run(env, "cdp", "--user-id", "nobody")
    assert done == (5, b"", "error: no bindings: nothing is bound to this user_id\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["get"], "pass one of --identity, --email, --object-id; got none"),
        (["get", "--identity", "1", "--email", "a@b"], "got --identity and --email"),
        (["get", "--identity", ""], "--identity: empty"),
        (["get", "--passcode", "x"], "no such option"),
        (["get", "--identity", "1", "-o", "x.json"], "leave out -o, and redirect with > person"),
        (["cdp", "--user-id", "1", "-ox.json"], "leave out -o, and redirect with > users.ndjson"),
        (["cdp", "--file", "-", "--out", "x"], "leave out --out, and redirect with > users"),
        (["count", "Charged", "--output=x"], "leave out --output, and redirect with > count.txt"),
        (["count", "App Launched", "Charged"], "argument; count takes one event; "),
        (["cdp", "--file", "nosuch.dat", "--by", "user-id"], "'nosuch.dat' does not exist"),
        (["cdp"], "pass --user-id, --anonymous-id, both, or --file"),
        (["cdp", "--user-id", "1", "--by", "user-id"], "go with --file"),
        (["cdp", "--file", "/nowhere", "--by", "user-id"], "does not exist"),
        (["cdp", "--file", "-"], "--file needs --by"),
        (["cdp", "--file", "-", "--by", "user-id", "--user-id", "1"], "pass either --file"),
        (["count", "Charged", "--from", "2026-01-01"], "--to"),
        (["count", "Charged", "--from", "2026/1/1", "--to", "2026-01-02"], "write it as 2026"),
        (
            ["count", "Charged", "--from", "2026-02-01", "--to", "2026-01-02"],
            "--to: 2026-01-02 is before --from",
        ),
    ],
)
def test_wrong_usage_says_what_is_right(
    env: dict[str, str], arguments: list[str], words: str
) -> None:
    done = run(env, *arguments)
    assert (done.code, done.stdout) == (2, b"")
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_users_are_json_in_a_pipe_and_a_table_on_a_terminal(
    env: dict[str, str], bound: str, emulator: Emulator
) -> None:
    expected = emulator.bindings.by_user(bound)
    done = run(env, "cdp", "--user-id", bound)
    assert (done.code, done.stderr) == (0, "")
    user = json.loads(done.stdout)
    assert user["user_id"] == bound
    ids = [one["anonymous_id"] for one in user["anonymous_ids"]]
    assert ids == [one["anonymous_id"] for one in expected[bound]["anonymous_ids"]]
    found = run(env, "cdp", "--anonymous-id", ids[0])
    assert bound in [json.loads(line)["user_id"] for line in found.stdout.splitlines()]
    pair = run(env, "cdp", "--anonymous-id", ids[0], "--user-id", bound)
    assert json.loads(pair.stdout)["user_id"] == bound
    with Terminal(env, "cdp", "--user-id", bound, columns=100) as terminal:
        assert terminal.ended().code == 0
    assert ids[0] in terminal.text
    assert "{" not in terminal.text


@pytest.mark.parametrize("from_stdin", [False, True])
def test_many_users_come_in_the_order_of_the_file(
    env: dict[str, str], bound: str, tmp_path: Path, from_stdin: bool
) -> None:
    keys = f"\ufeff{bound}\n\nnobody\nbad\x01key\n{bound}".encode()
    (tmp_path / "ids.txt").write_bytes(keys)
    file = "-" if from_stdin else str(tmp_path / "ids.txt")
    done = run(env, "cdp", "--file", file, "--by", "user-id", stdin=keys)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["key"] for answer in answers] == [bound, "nobody", "bad\x01key", bound]
    assert answers[0]["users"][0]["user_id"] == bound
    assert answers[1] == {"key": "nobody", "users": []}
    assert "control character" in answers[2]["error"]
    # One that can be looked up in an editor.
    place = f"line 4 of {'standard input' if from_stdin else file}"
    assert answers[2]["error"].startswith(f"{place}: ")
    assert (done.code, done.stderr) == (1, "error: 1 of 4 lookups failed; see the output\n")


def test_many_users_on_a_terminal(env: dict[str, str], bound: str, tmp_path: Path) -> None:
    (tmp_path / "ids.csv").write_text(f"name,id\nann,{bound}\nbob,nobody\n")
    arguments = ["cdp", "--file", str(tmp_path / "ids.csv"), "--by", "user-id", "--column", "id"]
    with Terminal(env, *arguments) as terminal:
        assert terminal.ended().code == 0
    assert f"{bound}\n" in terminal.text
    assert "nobody  no bindings" in terminal.text


COMMANDS = "a\x1b]0;owned\x07[red]b\u202e"


@pytest.mark.anyio
@pytest.mark.parametrize(
    "body",
    [
        {"status": "success", "record": {"identity": "1", "name": COMMANDS, "profileData": {}}},
        {"status": "fail", "code": 3, "error": COMMANDS},
    ],
)
async def test_a_service_cannot_command_the_terminal(
    env: dict[str, str], body: dict[str, object]
) -> None:
    def screen() -> str:
        with Terminal(env, "get", "--identity", "1") as terminal:
            terminal.ended()
        return terminal.screen

    async with scripted(always(http(json.dumps(body).encode()))) as server:
        env |= {"CLEVERTAP_BASE_URL": server.url}
        shown = await to_thread.run_sync(screen)
    assert r"a\x1b]0;owned\x07[red]b\u202e" in shown
    assert "\x1b]0" not in shown


@pytest.mark.anyio
async def test_an_odd_part_does_not_hide_the_others_on_a_terminal(env: dict[str, str]) -> None:
    def shown() -> str:
        with Terminal(env, "get", "--identity", "7", columns=100) as terminal:
            assert terminal.ended().code == 0
        return terminal.text

    record = (
        b'{"identity":9.1E3,"phone":1e400,"profileData":{"a":%b},"events":{"Charged":{"count":5}},'
        b'"platformInfo":[{"objectId":"dev1"},7]}' % (b"[" * 20_000 + b"]" * 20_000)
    )
    async with scripted(always(http(b'{"status":"success","record":%b}' % record))) as server:
        env |= {"CLEVERTAP_BASE_URL": server.url}
        text = await to_thread.run_sync(shown)
    for part in ("9100", "1e400", "Charged", "dev1", "$.profileData", "$.platformInfo"):
        assert part in text


def test_count_prints_a_number(env: dict[str, str], emulator: Emulator) -> None:
    done = run(env, "count", "Charged", "--from", "2026-01-01", "--to", "2026-01-31")
    expected = len(emulator.population.active("Charged", 20260101, 20260131))
    assert done == (0, b"%d\n" % expected, "")


@pytest.mark.parametrize(
    "arguments",
    [
        ["count", "Charged", "--from", "2026-01-01", "--to", "2026-01-31"],
        ["get", "--identity", "1"],
        ["cdp", "--user-id", "1"],
    ],
)
def test_a_terminal_is_told_why_it_takes_longer(
    tmp_path: Path, failing: Emulator, arguments: list[str]
) -> None:
    # The second try does not end by itself.
    with held(failing, b"", passing=1) as (variables, _):
        env = environment(tmp_path, variables)
        with Terminal(env, *arguments, columns=40, piped=("stdout",)) as terminal:
            terminal.expect("retrying: ")
            terminal.press_ctrl_c()
            assert terminal.ended()[:2] == (130, b"")
    assert "error: interrupted by SIGINT" in terminal.text
    assert longest(terminal.text) <= 40


def test_an_event_that_the_service_refuses_is_told_in_its_words(env: dict[str, str]) -> None:
    done = run(env, "count", "Charge", "--from", "2026-01-01", "--to", "2026-01-31")
    # A later run will not mend it.
    assert (done.code, done.stdout) == (2, b"")
    assert done.stderr.startswith("error: CleverTap answered HTTP ")
    assert "Invalid event : Charge" in done.stderr
    assert "it expects the name as the dashboard spells it" in done.stderr
    assert done.stderr.count("\n") == 2


def test_whoever_closes_the_pipe_ends_it_quietly(env: dict[str, str]) -> None:
    keys = "".join(f"{number}\n" for number in range(20_000))
    with start(
        [*COMMAND, "cdp", "--file", "-", "--by", "user-id"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=env,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(keys.encode())
        process.stdin.close()
        assert process.stdout.read(1) == b"{"
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=PATIENCE) == 141


def test_a_full_disk_is_an_error(env: dict[str, str]) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with Path("/dev/full").open("wb") as full:
        command = [*COMMAND, "get", "--identity", "5555555555"]
        with start(command, env=env, stdout=full, stderr=subprocess.PIPE) as process:
            _, stderr = process.communicate(timeout=PATIENCE)
    assert (process.returncode, stderr) == (1, b"error: No space left on device\n")


def test_a_closed_stdout_is_none_of_our_business(env: dict[str, str]) -> None:
    command = ["sh", "-c", '"$@" >&-', "sh", *COMMAND, "get", "--identity", "5555555555"]
    done = subprocess.run(command, stderr=subprocess.PIPE, env=env, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


# ------------------------------------------------------------------------------------- rate limits


@pytest.mark.anyio
async def test_lookups_say_that_they_wait_for_a_rate_limit(env: dict[str, str]) -> None:
    none_left = ("X-RateLimit-Limit: 16", "X-RateLimit-Remaining: 0", "X-RateLimit-Reset: 4")
    async with scripted(always(http(b'{"code":0,"data":{}}', "200 OK", *none_left))) as server:
        keys = "".join(f"{number}\n" for number in range(20)).encode()
        command = partial(
            run, env | {"ALTA_BASE_URL": server.url}, "cdp", "--file", "-", stdin=keys
        )
        done = await to_thread.run_sync(command, "--by", "user-id")
    assert (done.code, len(done.stdout.splitlines())) == (0, 20)
    assert re.fullmatch(
        r"(waiting until \d\d:\d\d:\d\d UTC, \d s: Alta takes no request before, by its rate "
        r"limit\n)+",
        done.stderr,
    )


@pytest.mark.parametrize(
    ("arguments", "service"),
    [
        (("count", "Charged", "--from", "2026-01-01", "--to", "2026-01-02"), "CLEVERTAP"),
        (
            ("export", "Charged", "--from", "2026-01-01", "--to", "2026-01-02", "-o", "x.csv"),
            "CLEVERTAP",
        ),
        (("cdp", "--user-id", "5"), "ALTA"),
        (("cdp", "--file", "ids.txt", "--by", "user-id"), "ALTA"),
    ],
)
@pytest.mark.anyio
@pytest.mark.parametrize("status", ["404 Not Found", "405 Method Not Allowed"])
async def test_a_host_without_the_call_comes_with_the_next_step(
    tmp_path: Path, arguments: tuple[str, ...], service: str, status: str
) -> None:
    (tmp_path / "ids.txt").write_text("5\n")
    async with scripted(always(http(b'{"code": 404}', status))) as host:
        env = environment(
            tmp_path,
            CLEVERTAP_ACCOUNT_ID="W9R",
            CLEVERTAP_PASSCODE="secret",
            CLEVERTAP_BASE_URL=host.url,
            ALTA_TOKEN="s3cret",
            ALTA_BASE_URL=host.url,
        )
        done = await to_thread.run_sync(partial(run, env, *arguments, cwd=tmp_path))
    assert done.code == 1
    assert (
        f"The host knows no such call: check region, endpoint and base URL, here "
        f"{service}_BASE_URL (the environment), or run: altaprofiles doctor\n"
    ) in done.stderr


@pytest.mark.parametrize(
    ("service", "variables", "name"),
    [
        ("clevertap", {"CLEVERTAP_BASE_URL": "https://nowhere.invalid"}, "CLEVERTAP_BASE_URL"),
        ("clevertap", {}, "CLEVERTAP_REGION"),
        ("alta", {"ALTA_BASE_URL": "https://nowhere.invalid"}, "ALTA_BASE_URL"),
        ("alta", {"ALTA_ENDPOINT": "sg"}, "ALTA_ENDPOINT"),
    ],
)
def test_a_host_out_of_reach_comes_with_the_variable_that_names_it(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    service: Literal["clevertap", "alta"],
    variables: dict[str, str],
    name: str,
) -> None:
    secrets = {"CLEVERTAP_ACCOUNT_ID": "W9R", "CLEVERTAP_PASSCODE": "s", "ALTA_TOKEN": "s"}
    for variable in ("CLEVERTAP_BASE_URL", "CLEVERTAP_REGION", "ALTA_BASE_URL", "ALTA_ENDPOINT"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in (secrets | variables).items():
        monkeypatch.setenv(variable, value)
    app = App()
    app.session(service=service)
    advice = app.advice(ConnectError("no connection to the host"))
    assert advice == (
        f"Check {name} (the environment), network and proxy, or run: altaprofiles doctor"
    )
    assert app.advice(RequestTimeout("no answer")) is None


def test_a_used_up_plan_is_told_once_after_the_lookups(tmp_path: Path) -> None:
    with emulated(people=5, alta_per_day=20) as agent:
        env = environment(tmp_path, agent.environment)
        keys = "".join(f"{number}\n" for number in range(30)).encode()
        done = run(env, "cdp", "--file", "-", "--by", "user-id", stdin=keys)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    failed = sum("error" in line for line in lines)
    assert (done.code, len(lines), failed >= 10) == (1, 30, True)
    assert re.fullmatch(
        rf"error: {failed} of 30 lookups failed; see the output\n"
        rf"{failed} of them like this: .*\. It accepts requests again at 20[-0-9: ]+ UTC\n"
        r"Try again in 2[45] h, when the plan's limit renews, or enlarge the plan\.\n"
        r"To request only these again, take their IDs from the output: "
        r"jq -r 'select\(\.error\) \| \.key' OUTPUT > rest\.txt\n"
        r"This command keeps what it has found, and requests only the rest when it runs again: "
        r"altaprofiles lookup - --by user-id -o users\.ndjson\n",
        done.stderr,
    )


@pytest.mark.parametrize(
    ("content", "words", "code"),
    [
        (b"", "standard input is empty", 2),
        (b" \n\n", "standard input holds no keys: nothing was looked up", 0),
    ],
)
def test_keys_that_are_missing_are_reported(
    env: dict[str, str], tmp_path: Path, content: bytes, words: str, code: int
) -> None:
    done = run(env, "cdp", "--file", "-", "--by", "user-id", stdin=content)
    assert (done.code, done.stdout) == (code, b"")
    assert words in done.stderr
    path = tmp_path / "ids.txt"
    path.write_bytes(content)
    done = run(env, "cdp", "--file", str(path), "--by", "user-id")
    assert (done.code, done.stdout) == (0, b"")
    assert done.stderr == f"warning: {path} holds no keys: nothing is looked up\n"


@pytest.mark.anyio
async def test_a_long_wait_of_one_question_is_reported(env: dict[str, str]) -> None:
    refusal = http(b"", "429 Too Many Requests", "Retry-After: 6")
    async with scripted(in_turn(refusal, http(b'{"code":0,"data":{}}'))) as server:
        env |= {"ALTA_BASE_URL": server.url}
        done = await to_thread.run_sync(run, env, "cdp", "--user-id", "1")
    assert done.code == 5
    assert re.search(r"^waiting until \d\d:\d\d:\d\d UTC, [67] s: Alta answered", done.stderr)
