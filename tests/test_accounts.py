"""The credentials file: its content, its permissions, and writing it."""

from __future__ import annotations

import asyncio
import os
import re
import stat
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keyring
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keyring.backend import KeyringBackend
from keyring.errors import KeyringLocked

from altaprofiles import (
    Alta,
    CleverTap,
    ConfigurationError,
    InvalidArgument,
    MissingCredentials,
    Retry,
    Session,
)
from altaprofiles.accounts import KEYS, Accounts, accounts_path, find_alta, find_clevertap
from altaprofiles.emulator import Emulator

from .support.terminals import environment, run

SECRET = "s3cr3t-PASS"
SHOP = f"""
default = "shop"

[accounts.shop]
account_id = "W9R-654-865Z"
passcode = "{SECRET}"
region = "in1"
max_in_flight = 2
timezone = "Asia/Kolkata"
alta_token = "app-{SECRET}"
alta_base_url = "https://api.gptbots.ai"
alta_requests_per_minute = 90

[accounts.other]
account_id = "OTHER"
passcode = "other-{SECRET}"
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the path of the file, the only source of credentials."""
    for name in list(os.environ):
        if name.startswith(("CLEVERTAP_", "ALTA_", "ALTAPROFILES_", "XDG_")):
            monkeypatch.delenv(name)
    path = tmp_path / "accounts.toml"
    monkeypatch.setenv("ALTAPROFILES_CONFIG", str(path))
    return path


def write(path: Path, text: str, mode: int = 0o600) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)


def test_an_account_has_all_that_the_credentials_take(place: Path) -> None:
    write(place, SHOP)
    clevertap, alta = find_clevertap(), find_alta()
    assert clevertap is not None
    assert clevertap.credentials.account_id == "W9R-654-865Z"
    assert clevertap.credentials.passcode == SECRET
    assert clevertap.credentials.url == "https://in1.api.clevertap.com"
    assert clevertap.credentials.max_in_flight == 2
    assert clevertap.credentials.timezone == "Asia/Kolkata"
    assert clevertap.source == f"{place}: account 'shop'"
    assert alta is not None
    assert alta.credentials.url == "https://api.gptbots.ai"
    assert alta.credentials.requests_per_minute == 90
    assert alta.credentials.account == "shop"


def test_an_account_can_look_for_the_numbers_at_once(place: Path) -> None:
    text = SHOP.replace("max_in_flight = 2", 'max_in_flight = "auto"\nalta_max_in_flight = "auto"')
    write(place, text)
    clevertap, alta = find_clevertap(), find_alta()
    assert clevertap is not None
    assert alta is not None
    assert clevertap.credentials.max_in_flight == alta.credentials.max_in_flight == "auto"
    assert "max_in_flight='auto'" in repr(clevertap.credentials)


def test_the_environment_goes_before_the_file_unless_an_account_is_named(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(place, SHOP)
    monkeypatch.setenv("CLEVERTAP_ACCOUNT_ID", "ENV")
    monkeypatch.setenv("CLEVERTAP_PASSCODE", "p")
    found, named = find_clevertap(), find_clevertap("other")
    assert found is not None
    assert named is not None
    assert (found.credentials.account_id, found.source) == ("ENV", "the environment")
    assert named.credentials.account_id == "OTHER"
    monkeypatch.setenv("ALTA_TOKEN", "t")
    alta, named_alta = find_alta(), find_alta("shop")
    assert alta is not None
    assert named_alta is not None
    assert alta.credentials.name is None
    assert named_alta.credentials.name == "shop"


def test_half_of_the_environment_is_not_completed_from_the_file(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(place, SHOP)
    monkeypatch.setenv("CLEVERTAP_ACCOUNT_ID", "ENV")
    with pytest.raises(MissingCredentials, match="CLEVERTAP_PASSCODE is not set"):
        find_clevertap()


def test_without_a_file_there_is_no_account(place: Path) -> None:
    assert find_clevertap() is None
    assert find_alta() is None
    with pytest.raises(MissingCredentials, match=r"no account 'x'.* does not exist"):
        find_clevertap("x")


def test_a_single_account_needs_no_default(place: Path) -> None:
    write(place, '[accounts.shop]\naccount_id = "A"\npasscode = "p"\n')
    found = find_clevertap()
    assert found is not None
    assert found.credentials.account_id == "A"
    assert find_alta() is None


def test_several_accounts_without_default_are_named(place: Path) -> None:
    write(place, SHOP.replace('default = "shop"', ""))
    with pytest.raises(MissingCredentials, match="shop, other; pass --account NAME"):
        find_clevertap()


@pytest.mark.skipif(sys.platform == "win32", reason="no such modes")
@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o602])
def test_a_file_that_others_can_reach_is_refused_with_the_fix(place: Path, mode: int) -> None:
    write(place, SHOP, mode)
    with pytest.raises(ConfigurationError, match=f"chmod 600 {place}") as caught:
        find_clevertap("shop")
    assert f"{mode:04o}" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[accounts.a]\npasscode = "s3cr3t-PASS" "', "is not TOML"),
        ("default = a\n[accounts.a]", 'text stands in quotation marks, as in default = "NAME"'),
        ('secret = "s3cr3t-PASS"', "unknown key 'secret'"),
        ("accounts = 3", "accounts must be tables"),
        ('[accounts]\nshop = "s3cr3t-PASS"', "accounts must be tables"),
        (
            '[accounts.a]\npassword = "s3cr3t-PASS"',
            "account 'a': 'password' is unknown; use account_id",
        ),
        ("[accounts.a]\npasscode = 1979-05-27", "account 'a': passcode is neither text"),
        ("[accounts.a]\npasscode = true", "account 'a': passcode is neither text"),
        ('default = "b"\n[accounts.a]', "default is 'b'"),
        ('default = ["b"]\n[accounts.a]', "default is a value of type list"),
        (f"x = {'9' * 5000}", "a number is too long"),
        (f"x = {'[' * 5000}", "nested too deeply"),
        ('[accounts.a]\npasscode = "s3cr3t-PASS"', "account 'a': account_id is missing"),
        ('[accounts.a]\naccount_id = "A"', "account 'a': passcode is missing"),
        ('[accounts.a]\naccount_id = "A"\npasscode = 7', "account 'a': passcode: expected text"),
        (
            '[accounts.a]\naccount_id = "A"\npasscode = "s3cr3t-PASS "',
            "account 'a': passcode: holds a space",
        ),
        (
            '[accounts.a]\naccount_id = "A"\npasscode = "s3cr3t-PASS\\n"',
            "; store it without those at its start and end",
        ),
        (
            '[accounts.a]\naccount_id = "A"\npasscode = 7',
            "got an int; store it in quotation marks",
        ),
        (
            '[accounts.a]\naccount_id = "A"\npasscode = "s3cr3t-PASS"\nregion = "xx"',
            "account 'a': region: unknown region 'xx'",
        ),
        (
            '[accounts.a]\naccount_id = "A"\npasscode = "s3cr3t-PASS"\nmax_in_flight = 0',
            "account 'a': max_in_flight: expected",
        ),
    ],
)
def test_a_mistake_is_named_by_file_account_and_key(place: Path, text: str, words: str) -> None:
    write(place, text)
    with pytest.raises(ConfigurationError) as caught:
        find_clevertap()
    assert words in str(caught.value)
    assert str(place) in str(caught.value)
    assert SECRET not in str(caught.value)
    assert SECRET not in seen_by_a_reporter(caught.value)


CAP = "expected a whole number of at least 1, or 'auto', got"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("max_in_flight = true", 'expected a whole number or "auto", got true'),
        ("max_in_flight = 1.5", 'expected a whole number or "auto", got 1.5'),
        ('max_in_flight = "5"', f"{CAP} '5'; leave out the quotation marks"),
        ('max_in_flight = "many"', f"{CAP} 'many'"),
        ("max_in_flight = -1", f"{CAP} -1"),
        ("alta_max_in_flight = false", 'expected a whole number or "auto", got false'),
        ('alta_max_in_flight = "7"', f"{CAP} '7'; leave out the quotation marks"),
        ("alta_requests_per_minute = 1.5", "expected a whole number, got 1.5"),
        ('alta_requests_per_minute = "90"', "expected a whole number of at least 1, got '90'"),
        ("alta_requests_per_minute = 0", "expected a whole number of at least 1, got 0"),
        ("region = true", "expected text, got true"),
        ("base_url = 1.5", "expected text, got 1.5"),
        ("region = 1", "unknown region 1"),
        ("timezone = true", "expected text, got true"),
        ('timezone = "IST"', "there is no time zone 'IST'; use a name"),
        ('region = "us"', "(did you mean 'us1'?)"),
        ('alta_endpoint = "gptbots"', "(did you mean 'gptbots.ai'?)"),
    ],
)
def test_a_wrong_setting_is_shown_because_it_is_no_secret(
    place: Path, line: str, words: str
) -> None:
    write(place, f'[accounts.a]\naccount_id = "A"\npasscode = "{SECRET}"\nalta_token = "t"\n{line}')
    with pytest.raises(ConfigurationError) as caught:
        find_clevertap()
        find_alta()
    assert f"{place}: account 'a': {line.partition(' ')[0]}: " in str(caught.value)
    assert words in str(caught.value)
    assert SECRET not in str(caught.value)
    assert SECRET not in seen_by_a_reporter(caught.value)


def test_a_key_that_is_nearly_right_is_suggested(place: Path) -> None:
    write(place, f'[accounts.a]\npassword = "{SECRET}"')
    with pytest.raises(ConfigurationError, match=r"\(did you mean 'passcode'\?\)") as caught:
        find_clevertap()
    assert SECRET not in str(caught.value)


def seen_by_a_reporter(error: BaseException) -> str:
    """Return the text that error reporters send: every local of every frame, contexts included."""
    shown: list[str] = []
    behind: BaseException | None = error
    while behind is not None:
        for frame, _ in traceback.walk_tb(behind.__traceback__):
            if (
                "altaprofiles" in frame.f_code.co_filename
                and "tests" not in frame.f_code.co_filename
            ) or "tomllib" in frame.f_code.co_filename:
                shown += map(repr, frame.f_locals.values())
        behind = behind.__context__
    return "".join(shown)


@pytest.mark.parametrize(
    ("line", "endpoint", "url"),
    [
        ('alta_endpoint = "gptbots.ai"', "gptbots.ai", "https://api.gptbots.ai"),
        ('alta_endpoint = " SG "', "sg", "https://api-sg.gptbots.ai"),
        ("", None, "https://altatech.ai"),
    ],
)
def test_an_account_can_name_altas_platform(
    place: Path, line: str, endpoint: str | None, url: str
) -> None:
    write(place, f'[accounts.a]\nalta_token = "t"\n{line}\n')
    found = find_alta()
    assert found is not None
    assert (found.credentials.endpoint, found.credentials.url) == (endpoint, url)


def test_a_region_in_the_file_may_be_in_any_case(place: Path) -> None:
    write(place, '[accounts.a]\naccount_id = "A"\npasscode = "p"\nregion = " In1 "\n')
    found = find_clevertap()
    assert found is not None
    assert found.credentials.region == "in1"


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (
            'alta_endpoint = "sg"\nalta_base_url = "https://example.com"',
            "alta_endpoint: cannot be combined with alta_base_url; pass one of the two",
        ),
        ('alta_endpoint = "https://example.com"', "or pass a URL as alta_base_url"),
        ('alta_endpoint = "mars"', "alta_endpoint: unknown platform 'mars'"),
        ("alta_endpoint = 7", "alta_endpoint: expected the name of a platform, got 7"),
    ],
)
def test_a_wrong_platform_is_named_as_the_file_does(place: Path, lines: str, words: str) -> None:
    write(place, f'[accounts.a]\nalta_token = "{SECRET}"\n{lines}\n')
    with pytest.raises(ConfigurationError) as caught:
        find_alta()
    assert f"{place}: account 'a': " in str(caught.value)
    assert words in str(caught.value)
    assert SECRET not in seen_by_a_reporter(caught.value)


def test_every_key_in_a_message_is_named_as_the_file_does(place: Path) -> None:
    write(place, '[accounts.a]\nalta_token = "https://x.example"\nalta_base_url = "s3cr3t-PASS"\n')
    with pytest.raises(
        ConfigurationError, match=r"alta_token: .* swap alta_token and alta_base_url"
    ):
        find_alta()


def test_a_wrong_alta_key_is_named_as_the_file_does(place: Path) -> None:
    write(place, '[accounts.a]\nalta_token = "s3cr3t-PASS "')
    with pytest.raises(ConfigurationError, match="account 'a': alta_token: holds a space"):
        find_alta()


@pytest.mark.parametrize("name", ["", "x" * 101, "a\\u0007"])
def test_an_account_whose_name_alta_cannot_have_is_known_by_its_token(
    place: Path, name: str
) -> None:
    write(place, f'[accounts."{name}"]\nalta_token = "s3cr3t-PASS"')
    resolved = find_alta()
    assert resolved is not None
    assert resolved.credentials == Alta(token="s3cr3t-PASS")


def test_bytes_that_are_not_text_and_folders_have_their_own_errors(place: Path) -> None:
    place.write_bytes(b"\xff\xfe")
    place.chmod(0o600)
    with pytest.raises(ConfigurationError, match="is not UTF-8"):
        find_clevertap()
    place.unlink()
    place.mkdir()
    with pytest.raises(ConfigurationError, match="cannot be read: Is a directory"):
        find_clevertap()


def test_a_written_file_is_private_and_keeps_the_other_accounts(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "accounts.toml"
    accounts = Accounts(path, "shop", {"shop": {"account_id": "A", "passcode": SECRET}})
    accounts.write()
    accounts = Accounts.read(path)
    accounts.tables["other.name"] = {"alta_token": 'quo"te\\', "alta_max_in_flight": 3}
    accounts.write()
    again = Accounts.read(path)
    assert again.default == "shop"
    assert again.tables == accounts.tables
    assert again.tables["shop"] == {"account_id": "A", "passcode": SECRET}
    if sys.platform != "win32":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [one.name for one in path.parent.iterdir()] == ["accounts.toml"]


def test_secrets_that_a_killed_process_has_left_are_removed(place: Path) -> None:
    killed = """if 1:
        import os, signal, sys
        from pathlib import Path
        from altaprofiles.accounts import Accounts
        def hook(event, args):
            if event == "os.rename":
                os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(hook)
        Accounts(Path(sys.argv[1]), None, {"a": {"passcode": "p"}}).write()
        """
    subprocess.run([sys.executable, "-c", killed, str(place)], check=False)
    [scratch] = place.parent.iterdir()
    assert "passcode" in scratch.read_text()
    accounts = Accounts(place, None, {"a": {"passcode": "q"}})
    accounts.write()
    # It may be another process's, which is still at work.
    assert scratch.exists()
    os.utime(scratch, (0, 0))
    swap = place.with_name(f".{place.name}.swp")
    swap.touch()
    os.utime(swap, (0, 0))
    accounts.write()
    assert {one.name for one in place.parent.iterdir()} == {place.name, swap.name}


def test_a_link_stays_one(tmp_path: Path) -> None:
    kept = tmp_path / "kept.toml"
    write(kept, SHOP)
    link = tmp_path / "link.toml"
    link.symlink_to(kept)
    Accounts(link, None, {"a": {"account_id": "A"}}).write()
    assert link.is_symlink()
    assert Accounts.read(kept).tables == {"a": {"account_id": "A"}}


texts = st.text(st.characters(exclude_categories=["Cs"]))


@given(
    st.dictionaries(
        texts,
        st.dictionaries(st.sampled_from(KEYS), texts | st.integers(-(2**63), 2**63 - 1)),
        max_size=3,
    )
)
def test_any_text_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, tables: dict[str, dict[str, str | int]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    Accounts(path, next(iter(tables), None), tables).write()
    read = Accounts.read(path)
    assert read.tables == tables
    assert read.default == next(iter(tables), None)


@pytest.mark.skipif(sys.platform == "win32", reason="elsewhere")
def test_where_the_file_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert accounts_path() == tmp_path / "accounts.toml"
    monkeypatch.delenv("ALTAPROFILES_CONFIG")
    monkeypatch.setenv("HOME", "/home/ann")
    assert accounts_path() == Path("/home/ann/.config/altaprofiles/accounts.toml")
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    assert accounts_path() == Path("/home/ann/.config/altaprofiles/accounts.toml")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/etc/xdg")
    assert accounts_path() == Path("/etc/xdg/altaprofiles/accounts.toml")


class Ring(KeyringBackend):
    """A keyring in memory. Without one it is locked."""

    priority = 1.0

    def __init__(self, held: dict[tuple[str, str], str] | None) -> None:
        self._held = held

    def get_password(self, service: str, username: str) -> str | None:
        if self._held is None:
            raise KeyringLocked("it is locked")
        return self._held.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        raise NotImplementedError


@pytest.fixture
def ring() -> Iterator[Callable[[dict[tuple[str, str], str] | None], None]]:
    before = keyring.get_keyring()
    yield lambda held: keyring.set_keyring(Ring(held))
    keyring.set_keyring(before)


Rings = Callable[[dict[tuple[str, str], str] | None], None]


def test_secrets_that_are_not_in_the_file_come_from_the_keyring(place: Path, ring: Rings) -> None:
    ring({("altaprofiles", "a.passcode"): SECRET, ("altaprofiles", "a.alta_token"): "app-1"})
    write(place, '[accounts.a]\naccount_id = "A"\n')
    clevertap, alta = find_clevertap(), find_alta()
    assert clevertap is not None
    assert clevertap.credentials.passcode == SECRET
    assert clevertap.source == f"{place}: account 'a', passcode from the keyring"
    assert alta is not None
    assert alta.credentials.token == "app-1"


def test_no_traceback_shows_a_secret_of_the_keyring(place: Path, ring: Rings) -> None:
    ring({("altaprofiles", "a.passcode"): SECRET, ("altaprofiles", "a.alta_token"): SECRET})
    write(place, '[accounts.a]\naccount_id = "A"\nregion = "mars"\nalta_endpoint = "mars"\n')
    for make in (CleverTap.from_account, Alta.from_account, Session.from_account):
        with pytest.raises(ConfigurationError, match="'mars'") as caught:
            make()
        assert SECRET not in seen_by_a_reporter(caught.value)


def test_the_file_goes_before_the_keyring(place: Path, ring: Rings) -> None:
    ring(None)
    write(place, SHOP)
    found = find_clevertap()
    assert found is not None
    assert found.credentials.passcode == SECRET


def test_a_keyring_that_fails_is_named(place: Path, ring: Rings) -> None:
    ring(None)
    write(place, '[accounts.a]\naccount_id = "A"\n')
    with pytest.raises(
        MissingCredentials, match="'a': passcode is missing, and the keyring cannot"
    ):
        find_clevertap()


@pytest.mark.parametrize(
    "backend", ["nope", "keyring.backends.nope.Keyring", "keyring.backends.fail.nope"]
)
def test_a_keyring_that_cannot_start_is_named(place: Path, tmp_path: Path, backend: str) -> None:
    """As without D-Bus: third-party backends raise errors of any class."""
    write(place, '[accounts.a]\naccount_id = "A"\n')
    env = environment(tmp_path, ALTAPROFILES_CONFIG=str(place), PYTHON_KEYRING_BACKEND=backend)
    done = run(env, "get", "--identity", "1")
    assert done.code == 3
    assert "account 'a': passcode is missing, and the keyring cannot be read: " in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root gives files away")
def test_a_file_of_another_user_is_refused(place: Path) -> None:
    write(place, '[accounts.a]\nalta_token = "s3cret"\n')
    os.chown(place, 12345, -1)
    with pytest.raises(ConfigurationError, match=r"belongs to another user \(12345\)"):
        Accounts.read(place)


def test_an_unknown_home_folder_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALTAPROFILES_CONFIG", "~no-such-user-here/accounts.toml")
    with pytest.raises(ConfigurationError, match="Set ALTAPROFILES_CONFIG to a path"):
        find_clevertap()


@pytest.mark.skipif(os.name != "posix", reason="no links, pipes or devices")
@pytest.mark.parametrize("kind", ["circle", "pipe", "link to a pipe", "device", "below a file"])
def test_a_path_that_is_no_file_neither_blocks_nor_is_replaced(place: Path, kind: str) -> None:
    if kind == "circle":
        place.symlink_to(place.name)
    elif kind == "pipe":
        os.mkfifo(place, 0o600)
    elif kind == "link to a pipe":
        os.mkfifo(place.with_name("pipe"), 0o600)
        place.symlink_to("pipe")
    elif kind == "device":
        place.symlink_to(os.devnull)
    else:
        place.touch(0o600)
        place = place / "accounts.toml"
    before = Path(os.devnull).stat()
    with pytest.raises(ConfigurationError, match=r"accounts\.toml"):
        Accounts.read(place)
    with pytest.raises(ConfigurationError, match="ALTAPROFILES_CONFIG"):
        Accounts(place, None, {"a": {"account_id": "A"}}).write()
    assert os.path.samestat(before, Path(os.devnull).stat())
    assert not any(path.name.startswith(".accounts") for path in place.parent.glob(".*"))


@pytest.mark.skipif(os.name != "posix", reason="no pipes")
def test_a_pipe_is_read_as_the_file(place: Path) -> None:
    """As `ALTAPROFILES_CONFIG=<(…)` makes one."""
    reading, writing = os.pipe()
    os.write(writing, SHOP.encode())
    os.close(writing)
    assert Accounts.read(Path(f"/dev/fd/{reading}")).default == "shop"
    with pytest.raises(ConfigurationError, match="is a pipe to which nobody writes"):
        Accounts.read(Path(f"/dev/fd/{reading}"))
    os.close(reading)


# ---------------------------------------------------------------------------------------- in Python


def in_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set other credentials, which nothing may read."""
    monkeypatch.setenv("CLEVERTAP_ACCOUNT_ID", "ENV")
    monkeypatch.setenv("CLEVERTAP_PASSCODE", "env")
    monkeypatch.setenv("CLEVERTAP_REGION", "mars")
    monkeypatch.setenv("ALTA_TOKEN", "env")


@pytest.mark.parametrize("name", [None, "shop"])
def test_an_account_is_there_in_python_as_on_the_command_line(
    place: Path, monkeypatch: pytest.MonkeyPatch, name: str | None
) -> None:
    write(place, SHOP)
    project, agent = find_clevertap("shop"), find_alta("shop")
    in_environment(monkeypatch)
    assert project is not None
    assert agent is not None
    assert CleverTap.from_account(name) == project.credentials
    assert Alta.from_account(name) == agent.credentials
    assert Alta.from_account(name).requests_per_minute == 90
    session = Session.from_account(name, retry=Retry(attempts=2))
    assert repr(session) == (
        f"Session(clevertap={project.credentials!r}, alta={agent.credentials!r}, "
        f"retry={Retry(attempts=2)!r})"
    )
    other = Session.from_account("other")
    assert repr(other) == f"Session(clevertap={CleverTap.from_account('other')!r}, alta=None)"


def test_an_only_account_is_the_default_in_python(place: Path) -> None:
    write(place, '[accounts.agent]\nalta_token = "token"\n')
    assert Alta.from_account().account == "agent"
    assert repr(Session.from_account()).startswith("Session(clevertap=None, alta=Alta(")


WITHOUT_DEFAULT = SHOP.replace('default = "shop"', "")
MAKERS = [CleverTap.from_account, Alta.from_account, Session.from_account]


@pytest.mark.parametrize(
    ("text", "name", "words"),
    [
        (None, None, "no account: {} does not exist; run: altaprofiles login; or set ALTAPROFILES"),
        ("", None, "no account: {} has no accounts; run: altaprofiles login; or set ALTAPROFILES"),
        (None, "x", "no account 'x': {} does not exist; run: altaprofiles login x"),
        (SHOP, "x", "no account 'x': {} has shop, other; run: altaprofiles login x"),
        (SHOP, "", "no account '': {} has shop, other; run: altaprofiles login NAME"),
        (
            SHOP,
            "Shopp",
            "has shop, other; did you mean 'shop'? For a new one, run: altaprofiles login",
        ),
        (
            "[accounts.shop-us]\n[accounts.shop-eu]\n[accounts.shop]\n[accounts.other]",
            "shop-ue",
            "; did you mean 'shop-us' or 'shop-eu'? For a new one, run: altaprofiles login shop-ue",
        ),
        (
            SHOP,
            "shop, other",
            "has shop, other; name each by itself, as in --account shop --account",
        ),
        (WITHOUT_DEFAULT, None, "{} has the accounts shop, other; pass the name of one, or add"),
        ("[accounts.a]", None, "{}: account 'a' has no "),
        ("[accounts.a]\nshared = true", "a", "{}: account 'a' has no "),
    ],
)
@pytest.mark.parametrize("make", MAKERS)
def test_an_account_that_is_not_there_is_named_with_the_next_step(
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[..., object],
    text: str | None,
    name: str | None,
    words: str,
) -> None:
    in_environment(monkeypatch)
    if text is not None:
        write(place, text)
    with pytest.raises(MissingCredentials) as caught:
        make(name)
    assert words.format(place) in str(caught.value)


@pytest.mark.parametrize("make", MAKERS)
def test_a_secret_in_the_place_of_a_name_is_not_shown(
    place: Path, make: Callable[..., object]
) -> None:
    for text in (None, SHOP):
        if text is not None:
            write(place, text)
        for name in ("hunter2-S3CRET-passcode", "QWE-ASD-ZXCL", "app-7Q2rT9xPzL4mK8", SECRET):
            with pytest.raises(MissingCredentials) as caught:
                make(name)
            has = "has shop, other" if text else "does not exist"
            words = f"no account '***': {place} {has}; run: altaprofiles login NAME"
            assert str(caught.value) == words
            assert name not in seen_by_a_reporter(caught.value)
        for name in ("eu-prod-2", "Shop7", "my team"):
            with pytest.raises(
                MissingCredentials, match=f"^no account '{name}': .* login .?{name}"
            ):
                make(name)


def test_a_name_of_any_form_in_the_file_is_used_and_shown(place: Path) -> None:
    write(place, '[accounts.shop-2024-EU]\nalta_token = "token"\n')
    assert Alta.from_account("shop-2024-EU").name == "shop-2024-EU"
    with pytest.raises(MissingCredentials, match="account 'shop-2024-EU' has no CleverTap"):
        CleverTap.from_account("shop-2024-EU")


@pytest.mark.parametrize("make", MAKERS)
def test_without_a_file_the_credentials_of_the_environment_are_pointed_out(
    place: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[..., object]
) -> None:
    monkeypatch.setenv("CLEVERTAP_ACCOUNT_ID", "W9R")
    monkeypatch.setenv("CLEVERTAP_PASSCODE", "passcode")
    words = "; or use from_env(), which reads CLEVERTAP_ACCOUNT_ID and CLEVERTAP_PASSCODE"
    for text in (None, ""):
        if text is not None:
            write(place, text)
        with pytest.raises(MissingCredentials, match=rf"{re.escape(words)}$"):
            make()
    monkeypatch.delenv("CLEVERTAP_ACCOUNT_ID")
    monkeypatch.delenv("CLEVERTAP_PASSCODE")
    with pytest.raises(MissingCredentials, match=r"to the path of another file$"):
        make()


def test_an_account_of_the_other_service_is_named(place: Path) -> None:
    write(place, SHOP)
    with pytest.raises(MissingCredentials, match=r"'other' has no Alta .* login other$"):
        Alta.from_account("other")
    agent = '[accounts.agent]\nalta_token = "token"\n'
    write(place, agent)
    # No other account has any.
    with pytest.raises(MissingCredentials, match=r"'agent' has no CleverTap credentials; run: "):
        CleverTap.from_account("agent")
    write(place, agent + '[accounts.web]\naccount_id = "A"\n')
    words = (
        r"'web' has no Alta credentials; pass the name of one that has: 'agent', or pass `token`"
    )
    with pytest.raises(MissingCredentials, match=words):
        Alta.from_account("web")


@pytest.mark.parametrize("name", [7, True, b"shop", ["shop"], Path("shop")])
@pytest.mark.parametrize("make", MAKERS)
def test_a_name_that_is_not_text_is_refused(
    place: Path, make: Callable[..., object], name: Any
) -> None:
    write(place, SHOP)
    with pytest.raises(InvalidArgument, match=r"^name: expected the name of an account, got"):
        make(name)


def test_a_mistake_in_the_file_is_named_in_python_too(place: Path) -> None:
    write(place, SHOP.replace('region = "in1"', 'region = "mars"'))
    for make in (CleverTap.from_account, Session.from_account):
        with pytest.raises(ConfigurationError, match="account 'shop': region: unknown") as caught:
            make()
        assert SECRET not in seen_by_a_reporter(caught.value)
    write(place, SHOP, 0o644)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        Session.from_account()


def test_secrets_of_the_keyring_are_there_in_python(
    place: Path, ring: Rings, caplog: pytest.LogCaptureFixture
) -> None:
    ring({("altaprofiles", "a.passcode"): SECRET, ("altaprofiles", "a.alta_token"): "app-1"})
    write(place, '[accounts.a]\naccount_id = "A"\n')
    assert CleverTap.from_account().passcode == SECRET
    assert Alta.from_account().token == "app-1"
    assert "alta=Alta(" in repr(Session.from_account())
    ring(None)
    with pytest.raises(MissingCredentials, match="the keyring cannot be read"):
        Session.from_account()
    write(place, f'[accounts.a]\naccount_id = "A"\npasscode = "{SECRET}"\n')
    assert repr(Session.from_account()).endswith("alta=None)")
    assert "without Alta: " in caplog.text
    write(place, place.read_text() + 'alta_endpoint = "sg"\n')
    with pytest.raises(MissingCredentials, match="alta_token is missing, and the keyring"):
        Session.from_account()


@pytest.mark.anyio
async def test_two_names_of_one_account_share_its_cap(place: Path, tmp_path: Path) -> None:
    async with Emulator(people=5, think=0.005) as emulator:
        lines = [
            f'account_id = "{emulator.clevertap.account_id}"',
            f'passcode = "{emulator.clevertap.passcode}"',
            f'base_url = "{emulator.url}"',
            f'alta_token = "{emulator.alta.token}"',
            f'alta_base_url = "{emulator.url}"',
            "alta_max_in_flight = 2",
            f'shared = "{tmp_path / "slots"}"',
        ]
        write(place, "\n".join(["[accounts.a]", *lines, "[accounts.b]", *lines]))
        sessions = [Session.from_account(name) for name in ("a", "b")]
        async with sessions[0], sessions[1]:
            await asyncio.gather(
                *(one.profiles.get(identity="5555555555") for one in sessions for _ in range(20)),
                *(one.cdp.get(user_id="BC123") for one in sessions for _ in range(20)),
            )
        assert emulator.stats.too_many == 0
        assert emulator.stats.peak_in_flight["alta"] <= 2


# ------------------------------------------------------------------------------------ shared limits


def test_one_key_shares_the_limits_of_both_services(place: Path) -> None:
    for value, shared in (("true", True), ("false", False), ('"/srv/slots"', "/srv/slots")):
        write(place, SHOP.replace("max_in_flight = 2", f"max_in_flight = 2\nshared = {value}"))
        clevertap, alta = find_clevertap("shop"), find_alta("shop")
        assert clevertap is not None
        assert alta is not None
        assert clevertap.credentials.shared == alta.credentials.shared == shared
        # Accounts that do not say it keep their limits by themselves.
        other = find_clevertap("other")
        assert other is not None
        assert other.credentials.shared is False


def test_an_agent_alone_can_share_its_limits(place: Path) -> None:
    write(place, '[accounts.agent]\nalta_token = "token"\nshared = true\n')
    assert find_clevertap("agent") is None
    alta = find_alta("agent")
    assert alta is not None
    assert alta.credentials.shared is True


def test_the_environment_is_the_default_of_accounts(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(place, SHOP.replace("max_in_flight = 2", "max_in_flight = 2\nshared = false"))
    monkeypatch.setenv("ALTAPROFILES_SHARED", "1")
    shop, other = find_clevertap("shop"), find_clevertap("other")
    assert shop is not None
    assert other is not None
    assert (shop.credentials.shared, other.credentials.shared) == (False, True)
    monkeypatch.setenv("ALTAPROFILES_SHARED", "yes")
    with pytest.raises(ConfigurationError, match="ALTAPROFILES_SHARED: expected 1, 0 or the"):
        find_clevertap("other")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("1", "shared: expected True, False or the absolute path of a folder, got 1"),
        ('"slots"', "shared: expected True, False or the absolute path of a folder, got 'slots'"),
        ("1.5", "shared: expected true, false or the path of a folder, got 1.5"),
    ],
)
def test_a_wrong_value_of_shared_names_the_account(place: Path, value: str, message: str) -> None:
    write(place, SHOP.replace("max_in_flight = 2", f"shared = {value}"))
    with pytest.raises(ConfigurationError) as raised:
        find_clevertap("shop")
    assert str(raised.value) == f"{place}: account 'shop': {message}"


def test_shared_is_written_as_it_was_read(place: Path) -> None:
    write(place, SHOP.replace("max_in_flight = 2", "max_in_flight = 2\nshared = true"))
    Accounts.read().write()
    assert "shared = true" in place.read_text()
    shop = find_clevertap("shop")
    assert shop is not None
    assert shop.credentials.shared is True


# --------------------------------------------------------------------- a secret from somewhere else


async def vault() -> str:
    return f"vault-{SECRET}"


def test_a_secret_of_the_caller_goes_before_that_of_the_file_and_the_keyring(
    place: Path, ring: Rings, monkeypatch: pytest.MonkeyPatch
) -> None:
    ring(None)  # Locked, so that whoever asks it fails.
    in_environment(monkeypatch)
    for text in (SHOP, re.sub(r'(passcode|alta_token) = ".*"\n', "", SHOP)):
        write(place, text)
        project = CleverTap.from_account("shop", passcode=vault)
        assert project == CleverTap(
            "W9R-654-865Z", vault, "in1", max_in_flight=2, timezone="Asia/Kolkata"
        )
        agent = Alta.from_account(token=vault)
        assert agent == Alta(vault, "https://api.gptbots.ai", requests_per_minute=90, name="shop")
        assert CleverTap.from_account(passcode="constant").passcode == "constant"
        assert Alta.from_account(token="constant").token == "constant"
        session = Session(clevertap=project, alta=agent)
        assert repr(session) == f"Session(clevertap={project!r}, alta={agent!r})"


def test_a_token_of_the_caller_is_all_that_an_agent_needs(place: Path) -> None:
    write(place, SHOP)
    assert Alta.from_account("other", token=vault) == Alta(vault, name="other")
    with pytest.raises(
        MissingCredentials, match=r"'other' has no Alta .*, or pass `token`, or run"
    ):
        Alta.from_account("other")
    write(place, '[accounts.a]\nregion = "in1"\n')
    with pytest.raises(MissingCredentials, match="'a': account_id is missing"):
        CleverTap.from_account(passcode=vault)


def test_a_missing_passcode_names_both_ways(place: Path, ring: Rings) -> None:
    ring({})
    write(place, '[accounts.a]\naccount_id = "A"\n')
    with pytest.raises(MissingCredentials) as caught:
        CleverTap.from_account()
    assert str(caught.value) == (
        f"{place}: account 'a': passcode is missing, and the keyring has none; "
        f"run: altaprofiles login a, or pass `passcode` to CleverTap.from_account"
    )


def test_an_account_whose_name_alta_cannot_have_needs_another_for_a_function(place: Path) -> None:
    write(place, f'[accounts.{"x" * 101}]\nalta_token = "token"\n')
    with pytest.raises(ConfigurationError, match=r"'x+': a token .* rename the account"):
        Alta.from_account(token=vault)
    assert Alta.from_account(token="constant").name is None


@pytest.mark.parametrize(
    ("secret", "words"),
    [
        ("", "expected text that is not empty, got empty text"),
        (7, "expected text that is not empty, got a"),
        ("a b", "holds a space, a line break"),
        (lambda account: account, "expected text, or a function without arguments"),
    ],
)
@pytest.mark.parametrize("way", ["account", "env"])
def test_a_wrong_secret_is_the_callers_and_not_the_files(
    place: Path, monkeypatch: pytest.MonkeyPatch, way: str, secret: Any, words: str
) -> None:
    write(place, SHOP)
    in_environment(monkeypatch)
    for kind, argument in ((CleverTap, "passcode"), (Alta, "token")):
        with pytest.raises(InvalidArgument) as caught:
            getattr(kind, f"from_{way}")(**{argument: secret})
        assert str(caught.value).startswith(f"{argument}: {words}")


def test_an_empty_secret_of_the_file_is_said_to_be_empty(place: Path) -> None:
    for text, kind in (
        ('account_id = "A"\npasscode = ""', CleverTap),
        ('alta_token = ""', Alta),
    ):
        write(place, f"[accounts.shop]\n{text}\n")
        with pytest.raises(ConfigurationError, match="not empty, got empty text; copy it"):
            kind.from_account()


def test_a_swapped_secret_is_named_by_its_argument(place: Path) -> None:
    write(place, SHOP)
    with pytest.raises(InvalidArgument, match=r"^passcode: holds the name of a region"):
        CleverTap.from_account(passcode="in1")
    with pytest.raises(InvalidArgument, match=r"^token: holds the name of a platform"):
        Alta.from_account(token="sg")


def test_no_traceback_shows_a_secret_of_the_caller(place: Path) -> None:
    write(place, SHOP.replace(SECRET, "other"))
    # No local of a test holds the secret either.
    for make in (
        lambda: CleverTap.from_account(passcode=f"{SECRET} "),
        lambda: CleverTap.from_account("x", passcode=SECRET),
        lambda: CleverTap.from_env(passcode=SECRET),
        lambda: Alta.from_account(token=f"{SECRET} "),
        lambda: Alta.from_account("x", token=SECRET),
        lambda: Alta.from_env("-", token=SECRET),
    ):
        with pytest.raises(ConfigurationError) as caught:
            make()
        assert SECRET not in seen_by_a_reporter(caught.value)
