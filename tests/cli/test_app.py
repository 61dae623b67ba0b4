"""Common to all commands: exit codes, signals, streams, the log, help."""

from __future__ import annotations

import json
import os
import re
import resource
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import click
import pytest

from altaprofiles.accounts import Accounts
from altaprofiles.cli import cli
from altaprofiles.emulator import Emulator

from ..support.forks import start
from ..support.tasks import PATIENCE
from ..support.terminals import (
    COMMAND,
    Done,
    Terminal,
    emulated,
    environment,
    held,
    longest,
    run,
)

MAIN = """
import asyncio, sys
import click
from altaprofiles import ConfigurationError, Forbidden, Incomplete, PlanMismatch
from altaprofiles.cli.app import App
from altaprofiles.cli.command import Command
from altaprofiles.cli.exits import Failure
from altaprofiles.cli.streams import settle_streams

def incomplete():
    error = Incomplete("2 chains are missing", missing=[], report=None)
    error.add_note("They have failed for an hour")
    return error

ERRORS = {
    "incomplete": incomplete,
    "forbidden": lambda: Forbidden(api="Alta", status=403, code=None, message="no"),
    "other plan": lambda: PlanMismatch("it is another", differences={}),
    "configuration": lambda: ConfigurationError("start: is wrong"),
    "failure": lambda: Failure("no such thing"),
    "os": lambda: OSError(28, "No space left on device", "people.parquet"),
    "nameless": lambda: OSError("gone"),
    "pipe": lambda: BrokenPipeError(32, "Broken pipe"),
    "interrupt": KeyboardInterrupt,
    "abort": click.Abort,
    "bug": lambda: KeyError("bug"),
}

@click.command(cls=Command)
@click.argument("how")
@click.pass_obj
def command(app: App, how: str) -> None:
    async def main() -> str:
        app.info(f"at 100% of {how}")
        if how in ERRORS:
            raise ERRORS[how]()
        try:
            await asyncio.sleep(0 if how == "well" else 3600)
        finally:
            app.info("cleaning up")
            if how == "stuck":
                await asyncio.sleep(3600)
            if how == "bad":
                raise KeyError("bug")
            if how == "worse":
                raise OSError(28, "No space left on device")
        return "done"

    app.write(app.run(main, resume="altaprofiles export 'App Launched'").encode() + b"\\n")

settle_streams()
command()
"""


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return environment(tmp_path)


def begin(env: dict[str, str], *arguments: str, program: str = MAIN) -> subprocess.Popen[str]:
    streams: dict[str, Any] = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
    command = [sys.executable, "-c", program, *arguments]
    return start(command, env=env, **streams, text=True)


def finished(process: subprocess.Popen[str]) -> Done:
    stdout, stderr = process.communicate(timeout=PATIENCE)
    return Done(process.returncode, stdout.encode(), stderr)


GO_ON = "To resume: altaprofiles export 'App Launched'\n"


@pytest.mark.parametrize(
    ("how", "code", "told"),
    [
        ("well", 0, "cleaning up\n"),
        (
            "incomplete",
            4,
            f"error: 2 chains are missing\nThey have failed for an hour\n{GO_ON}",
        ),
        ("configuration", 2, "error: start: is wrong\n"),
        ("forbidden", 3, "error: Alta answered HTTP 403: no\n"),
        ("other plan", 2, "error: it is another\n"),
        ("failure", 1, "error: no such thing\n"),
        ("os", 1, "error: people.parquet: No space left on device\n"),
        ("nameless", 1, "error: gone\n"),
        ("pipe", 141, ""),
        ("interrupt", 130, f"error: interrupted by SIGINT\n{GO_ON}"),
        ("abort", 130, f"error: interrupted by SIGINT\n{GO_ON}"),
    ],
)
def test_what_comes_out_becomes_an_exit_code(
    env: dict[str, str], how: str, code: int, told: str
) -> None:
    done = finished(begin(env, how))
    assert done == (code, b"done\n" if code == 0 else b"", f"at 100% of {how}\n{told}")


def test_a_mistake_of_ours_stays_a_traceback(env: dict[str, str]) -> None:
    done = finished(begin(env, "bug"))
    assert done.code == 1
    assert "Traceback" in done.stderr
    assert "KeyError: 'bug'" in done.stderr


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_cancels_and_says_how_to_go_on(
    env: dict[str, str], number: signal.Signals, code: int
) -> None:
    process = begin(env, "sleep")
    assert process.stderr is not None
    process.stderr.readline()
    process.send_signal(number)
    done = finished(process)
    assert done == (code, b"", f"cleaning up\nerror: interrupted by {number.name}\n{GO_ON}")


def test_what_goes_wrong_while_stopping_is_told_too(env: dict[str, str]) -> None:
    process = begin(env, "worse")
    assert process.stderr is not None
    process.stderr.readline()
    process.send_signal(signal.SIGINT)
    done = finished(process)
    assert done.code == 130
    assert done.stderr == (
        f"cleaning up\nerror: No space left on device\nerror: interrupted by SIGINT\n{GO_ON}"
    )


def test_a_mistake_of_ours_while_stopping_is_not_hidden(env: dict[str, str]) -> None:
    process = begin(env, "bad")
    assert process.stderr is not None
    process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    done = finished(process)
    assert done.code == 1
    assert "KeyError: 'bug'" in done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_second_signal_does_not_wait(
    env: dict[str, str], number: signal.Signals, code: int
) -> None:
    process = begin(env, "stuck")
    assert process.stderr is not None
    process.stderr.readline()
    process.send_signal(signal.SIGINT)
    assert process.stderr.readline() == "cleaning up\n"
    process.send_signal(number)
    told = f"error: interrupted by {number.name}\n{GO_ON}"
    assert finished(process) == (code, b"", told)


def test_the_end_of_a_terminal_comes_once_or_twice(env: dict[str, str]) -> None:
    """The shell and the system may both send SIGHUP."""
    slow = MAIN.replace('app.info("cleaning up")', 'app.info("cleaning up"); await hung_up()')
    slow = slow.replace(
        "@click.command",
        "async def hung_up():\n"
        "    import os, signal\n"
        "    os.kill(os.getpid(), signal.SIGHUP)\n"
        "    await asyncio.sleep(0.5)\n"
        "    click.echo('cleaned', err=True)\n\n"
        "@click.command",
        1,
    )
    process = begin(env, "sleep", program=slow)
    assert process.stderr is not None
    process.stderr.readline()
    process.send_signal(signal.SIGHUP)
    done = finished(process)
    assert done == (129, b"", f"cleaning up\ncleaned\nerror: interrupted by SIGHUP\n{GO_ON}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_that_is_ignored_stays_so(env: dict[str, str], number: signal.Signals) -> None:
    """A shell starts the commands of a script this way if they end in `&`, and `nohup` any."""
    ignoring = f"import signal; signal.signal(signal.{number.name}, signal.SIG_IGN)\n{MAIN}"
    process = begin(env, "sleep", program=ignoring)
    assert process.stderr is not None
    process.stderr.readline()
    process.send_signal(number)
    process.send_signal(signal.SIGTERM)
    done = finished(process)
    assert done.code == 143
    assert "interrupted by SIGTERM" in done.stderr


@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_while_it_starts(
    env: dict[str, str], number: signal.Signals, log_format: str
) -> None:
    """Imports take most of the time of starting."""
    starting = (
        "import os, signal, sys\n"
        "from importlib.abc import MetaPathFinder\n"
        "class Interrupting(MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'altaprofiles.cli':\n"
        f"            os.kill(os.getpid(), {int(number)})\n"
        "sys.meta_path.insert(0, Interrupting())\n"
        "from altaprofiles.__main__ import main\n"
        "main()\n"
    )
    # A fork has done its imports.
    command = [sys.executable, "-c", starting, "count", "--log-format", log_format]
    done = subprocess.run(command, capture_output=True, env=env, check=False)
    line = f"error: interrupted by {number.name}\n" if log_format == "text" else ""
    assert (done.returncode, done.stdout, done.stderr) == (128 + number, b"", line.encode())


def test_ctrl_c_on_a_terminal(env: dict[str, str]) -> None:
    with Terminal(env, "sleep", command=[sys.executable, "-c", MAIN]) as terminal:
        terminal.expect("at 100% of sleep")
        terminal.press_ctrl_c()
        assert terminal.ended().code == 130
        terminal.expect("To resume: altaprofiles export 'App Launched'")


def test_quiet_leaves_what_is_wrong(env: dict[str, str]) -> None:
    assert finished(begin(env, "well", "--quiet")) == (0, b"done\n", "")
    done = finished(begin(env, "-q", "incomplete"))
    assert done.stderr.startswith("error: 2 chains")
    assert done.stderr.endswith(GO_ON)


def test_json_makes_every_line_an_object(env: dict[str, str]) -> None:
    done = finished(begin(env, "incomplete", "--log-format", "json", "-v"))
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["message"].split("\n")[0] for line in lines][-3:] == [
        "at 100% of incomplete",
        "2 chains are missing",
        GO_ON.strip(),
    ]
    assert all({"time", "level", "logger", "message"} <= set(line) for line in lines)
    assert lines[-2]["level"] == "error"
    assert "Incomplete" in lines[-2]["traceback"]
    assert "traceback" not in lines[-1]


def test_wrong_usage_is_json_too(env: dict[str, str]) -> None:
    done = run(env, "--log-format", "json", "get")
    assert done.code == 2
    assert "pass one of --identity" in json.loads(done.stderr)["message"]
    done = run(env, "--log-format", "json", "count", "Charged", "--from", "2026-W02")
    assert done.code == 2
    assert "'2026-W02' is not a day" in json.loads(done.stderr)["message"]


JSON = ("--log-format", "json")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("sync", "e", "--since", "2026-02-30", "-o", "x.duckdb", *JSON), "--since: '2026-02-30'"),
        (("sync", "e", "--sinse", "2026-02-03", "--log-format=json"), "no such option '--sinse'"),
        (("--log-format", "text", *JSON, "count"), "--log-format is given 2 times"),
        (("syncc", "e", *JSON), "no such command"),
        (("--sinse", "sync", *JSON), "no such option '--sinse'"),
        (("get", "--identity", "1", "--identity", "2", *JSON), "is given 2 times"),
        (("get", "--identity", *JSON, "--timeout"), "--timeout: its value is missing"),
    ],
)
def test_an_error_before_the_log_format_is_json_too(
    env: dict[str, str], arguments: tuple[str, ...], words: str
) -> None:
    done = run(env, *arguments)
    assert done.code == 2
    (line,) = map(json.loads, done.stderr.splitlines())
    assert words in line["message"]
    assert line["level"] == "error"


@pytest.mark.parametrize(
    "arguments",
    [
        ("sync", "e", "--since", "2026-01-01", "-o", "postgresql://me@127.0.0.1:1/crm/people"),
        ("status",),
    ],
)
def test_a_current_folder_that_has_been_deleted_is_named(
    env: dict[str, str], emulator: Emulator, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    script = f"cd {shlex.quote(str(folder))} && rmdir {shlex.quote(str(folder))} && exec "
    done = subprocess.run(
        ["/bin/sh", "-c", script + shlex.join([*COMMAND, *arguments])],
        env=env | emulator.environment,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1
    words = f"error: the current folder {folder} has been deleted; change to another folder"
    assert done.stderr.decode().startswith(words)


def test_a_value_behind_two_hyphens_is_no_log_format(env: dict[str, str]) -> None:
    done = run(env, "count", "--sinse", "--", *JSON)
    assert done.stderr.startswith("error: no such option '--sinse'")


def test_streams_that_take_no_more(env: dict[str, str], emulator: Emulator, tmp_path: Path) -> None:
    """A log that cannot be written ends nothing; an output that cannot is an error."""

    def limited(*arguments: str, **streams: Any) -> subprocess.CompletedProcess[bytes]:
        limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (0, 0))
        command = [*COMMAND, *arguments]
        return subprocess.run(command, env=env, preexec_fn=limit, check=False, **streams)

    env |= emulator.environment
    with (tmp_path / "full").open("wb") as full:
        assert limited(*COUNT, "-v", stdout=subprocess.PIPE, stderr=full).returncode == 0
        assert limited("get", "--identity", "nobody", stderr=full).returncode == 5
        done = limited("--version", stdout=full, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (1, b"error: File too large\n")


@contextmanager
def read_by_nobody() -> Iterator[BinaryIO]:
    """Yield a pipe whose reader has gone."""
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb") as pipe:  # noqa: PTH123
        yield pipe


def test_whoever_closes_stderr_ends_it_quietly(env: dict[str, str]) -> None:
    with read_by_nobody() as nobody:
        with start([*COMMAND, *COUNT], env=env, stderr=nobody) as process:
            assert process.wait(timeout=PATIENCE) == 141


@pytest.mark.parametrize(
    "arguments",
    [(), ("--help",), ("export", "--help"), ("--version",), ("guide",)],
    ids=lambda arguments: " ".join(arguments) or "alone",
)
def test_whoever_closes_stdout_ends_the_help_quietly(
    env: dict[str, str], arguments: tuple[str, ...]
) -> None:
    with read_by_nobody() as nobody:
        command = [*COMMAND, *arguments]
        with start(command, env=env, stdout=nobody, stderr=subprocess.PIPE) as process:
            _, stderr = process.communicate(timeout=PATIENCE)
    assert (process.returncode, stderr) == (141, b"")


@pytest.mark.parametrize("arguments", [("export", "--zzz"), ("zzz",), ("cdp",), ("get", *JSON)])
def test_whoever_closes_stderr_ends_wrong_usage_quietly(
    env: dict[str, str], arguments: tuple[str, ...]
) -> None:
    with read_by_nobody() as nobody:
        command = [*COMMAND, *arguments]
        with start(command, env=env, stdout=subprocess.PIPE, stderr=nobody) as process:
            stdout, _ = process.communicate(timeout=PATIENCE)
    assert (process.returncode, stdout) == (141, b"")


def test_verbose_adds_the_traceback_before_the_message(env: dict[str, str]) -> None:
    done = finished(begin(env, "configuration", "-v"))
    assert "Traceback" in done.stderr
    assert done.stderr.endswith("\nerror: start: is wrong\n")


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with emulated(people=50) as running:
        yield running


COUNT = ["count", "Charged", "--from", "2026-01-01", "--to", "2026-01-31"]


def test_prose_is_wrapped_at_words_on_a_terminal_only(
    env: dict[str, str], emulator: Emulator, tmp_path: Path
) -> None:
    env |= emulator.environment
    command = ["status", str(tmp_path / "nothing that has ever been here.ndjson")]
    piped = run(env, *command)
    assert piped.stderr.count("\n") == 1
    with Terminal(env, *command, columns=60) as terminal:
        assert terminal.ended().code == piped.code
    assert terminal.text.split() == piped.stderr.split()
    assert longest(terminal.text) <= max(60, *map(len, piped.stderr.split()))
    # To be copied in one piece, however long it is.
    for name in ("a-name-wider-than-a-terminal", "it's a"):
        command = ["count", "Charged", "--account", name]
        with Terminal(env, *command, *COUNT[2:], columns=30) as terminal:
            assert terminal.ended().code == 3
        assert f"\naltaprofiles login {shlex.quote(name)}\n" in terminal.text


def test_options_for_all_commands_stand_before_or_behind(
    env: dict[str, str], emulator: Emulator
) -> None:
    env |= emulator.environment
    assert run(env, *COUNT).code == 0
    for arguments in (["--account", "x", *COUNT], [*COUNT, "--account", "x"]):
        done = run(env, *arguments)
        assert (done.code, done.stdout) == (3, b"")
        assert "no account 'x'" in done.stderr
        assert "altaprofiles login x" in done.stderr
    # An empty name, as from an unset variable in a script, does not mean the default account.
    assert run(env, *COUNT, "--account", "").code == 3


def test_missing_credentials_say_what_to_do(env: dict[str, str], emulator: Emulator) -> None:
    done = run(env, *COUNT)
    assert (done.code, done.stdout) == (3, b"")
    assert "altaprofiles login" in done.stderr
    assert "CLEVERTAP_ACCOUNT_ID" in done.stderr
    assert "accounts.toml" in done.stderr
    alta = {name: value for name, value in emulator.environment.items() if "ALTA" in name}
    assert "no CleverTap credentials" in run(env | alta, *COUNT).stderr
    assert run(env | alta, "cdp", "--user-id", "nobody").code == 5
    path = Path(env["HOME"]) / ".config" / "altaprofiles" / "accounts.toml"
    first = {"account_id": "A", "passcode": "p"}
    Accounts(path, "shop", {"shop": first, "agent": {"alta_token": "t"}}).write()
    told = run(env, "cdp", "--user-id", "nobody")
    assert (told.code, told.stdout) == (3, b"")
    assert "account 'shop' in " in told.stderr
    assert "has no Alta credentials; pass --account agent, or run:" in told.stderr
    completing = {"COMP_WORDS": "altaprofiles get --account a", "COMP_CWORD": "3"}
    done = run(env | completing | {"_ALTAPROFILES_COMPLETE": "bash_complete"})
    assert done.stdout == b"plain,agent\n"
    assert run(env | {"CLEVERTAP_PASSCODE": "x"}, *COUNT).code == 3


@pytest.mark.parametrize(
    ("variable", "value", "code"),
    [
        ("CLEVERTAP_REGION", "mars", 2),
        ("CLEVERTAP_BASE_URL", "http://example.com", 2),
        ("CLEVERTAP_MAX_IN_FLIGHT", "0", 2),
        ("CLEVERTAP_MAX_IN_FLIGHT", "1.5", 2),
        ("CLEVERTAP_MAX_IN_FLIGHT", "9" * 30, 2),
        ("ALTA_ENDPOINT", "mars", 2),
        ("ALTA_BASE_URL", "example.com", 2),
        ("ALTA_MAX_IN_FLIGHT", "many", 2),
        ("CLEVERTAP_ACCOUNT_ID", "a b", 3),
        ("CLEVERTAP_ACCOUNT_ID", "", 3),
        ("CLEVERTAP_PASSCODE", "eu1", 3),
        ("ALTA_TOKEN", "https://altatech.ai", 3),
        ("ALTA_TOKEN", "", 3),
        ("HTTPS_PROXY", "socks5://127.0.0.1:9", 2),
        ("ALTAPROFILES_CONFIG", "/dev/null", 3),
    ],
)
def test_a_wrong_variable_is_a_usage_error_unless_it_is_a_credential(
    env: dict[str, str], emulator: Emulator, variable: str, value: str, code: int
) -> None:
    env |= emulator.environment
    if variable in ("ALTA_ENDPOINT", "HTTPS_PROXY"):
        del env["ALTA_BASE_URL"], env["CLEVERTAP_BASE_URL"]
    if variable == "ALTAPROFILES_CONFIG":
        env = {name: text for name, text in env.items() if "_" not in name}
    question = ["cdp", "--user-id", "1"] if "ALTA_" in variable else COUNT
    done = run(env | {variable: value}, *question)
    assert (done.code, done.stdout) == (code, b"")
    assert (variable if variable != "ALTAPROFILES_CONFIG" else value) in done.stderr
    if variable.endswith("MAX_IN_FLIGHT"):
        assert f"expected a whole number of at least 1, or 'auto', got {value!r}" in (
            done.stderr.replace("got 0", "got '0'")
        )


@pytest.mark.parametrize(
    ("line", "code"),
    [("max_in_flight = true", 2), ('region = "in"', 2), ("max_in_flight = 0", 2), ("x = 1", 3)],
)
def test_a_wrong_setting_of_the_file_is_a_usage_error(
    env: dict[str, str], line: str, code: int
) -> None:
    path = Path(env["HOME"]) / ".config" / "altaprofiles" / "accounts.toml"
    Accounts(path, None, {"shop": {"account_id": "A", "passcode": "p"}}).write()
    path.write_text(path.read_text() + line)
    done = run(env, *COUNT)
    assert (done.code, done.stdout) == (code, b"")
    named = done.stderr.partition(f"{path}: account 'shop': ")[2]
    # An unknown one stands in quotation marks.
    assert named.removeprefix("'").startswith(line.partition(" ")[0])


def test_variables_without_effect_are_reported(env: dict[str, str], emulator: Emulator) -> None:
    alone = env | {"ALTA_ENDPOINT": "gptbots.ai"}
    warning = "warning: ALTA_ENDPOINT has no effect, because ALTA_TOKEN is not set\n"
    done = run(alone, "cdp", "--user-id", "1")
    assert done.code == 3
    assert done.stderr.startswith(f"{warning}error: no Alta credentials")
    path = Path(env["HOME"]) / ".config" / "altaprofiles" / "accounts.toml"
    account = {"alta_token": emulator.environment["ALTA_TOKEN"], "alta_base_url": emulator.url}
    Accounts(path, None, {"agent": account}).write()
    assert run(alone, "cdp", "--user-id", "nobody").stderr.startswith(f"{warning}error: no bind")
    # Whoever names an account wants nothing of the environment.
    done = run(alone, "cdp", "--user-id", "nobody", "--account", "agent")
    assert done.stderr.startswith("error: no bindings")


@pytest.mark.parametrize("more", [[], ["-v"], ["-v", "--log-format", "json"]])
def test_refused_credentials_are_told_and_not_shown(
    env: dict[str, str], emulator: Emulator, more: list[str]
) -> None:
    env |= emulator.environment | {"CLEVERTAP_PASSCODE": "wr0ng-one", "ALTA_TOKEN": "wr0ng-two"}
    for arguments in (COUNT, ["get", "--identity", "1"], ["cdp", "--user-id", "1"]):
        done = run(env, *arguments, *more)
        assert (done.code, done.stdout) == (3, b"")
        assert "wr0ng" not in done.stderr
        assert "These credentials are from the environment." in done.stderr
        assert "log in again" not in done.stderr
        assert "that accepts them: unset " in done.stderr
        assert "_BASE_URL, then run: altaprofiles doctor --try-regions" in done.stderr
        assert ("Traceback" in done.stderr) == ("-v" in more)


def test_the_file_of_accounts_is_used(env: dict[str, str], emulator: Emulator) -> None:
    path = Path(env["HOME"]) / ".config" / "altaprofiles" / "accounts.toml"
    path.parent.mkdir(parents=True)
    held = emulator.environment
    path.write_text(
        f'[accounts.shop]\naccount_id = "{held["CLEVERTAP_ACCOUNT_ID"]}"\n'
        f'passcode = "{held["CLEVERTAP_PASSCODE"]}"\nbase_url = "{emulator.url}"\n'
    )
    path.chmod(0o644)
    done = run(env, *COUNT)
    assert done.code == 3
    assert f"run: chmod 600 {path}" in done.stderr
    assert held["CLEVERTAP_PASSCODE"] not in done.stderr
    path.chmod(0o600)
    assert run(env, *COUNT).code == 0
    wrong = env | held | {"CLEVERTAP_PASSCODE": "wrong"}
    assert run(wrong, *COUNT).code == 3
    assert run(wrong, *COUNT, "--account", "shop").code == 0
    path.write_text(path.read_text().replace("[accounts.shop]", '[accounts."a b"]\nregion = "IN1"'))
    path.write_text(path.read_text().replace(held["CLEVERTAP_PASSCODE"], "wrong"))
    done = run(env, *COUNT, "--account", "a b")
    assert done.code == 3
    assert "If they have changed, log in again: altaprofiles login 'a b'." in done.stderr
    assert "altaprofiles doctor --account 'a b' --try-regions" in done.stderr


def test_a_request_that_is_tried_again_stops_at_once(env: dict[str, str]) -> None:
    faults = {"server_error": 1}
    # The third try does not end by itself.
    with (
        emulated(people=10, faults=faults) as failing,
        held(failing, b"", passing=2) as (variables, _),
        Terminal(env | variables, *COUNT, "-v") as terminal,
    ):
        terminal.expect("attempt 2")
        terminal.press_ctrl_c()
        assert terminal.ended().code == 130


def commands() -> dict[str, click.Command]:
    return {"": cli, **cli.commands}


@pytest.mark.parametrize("name", commands())
def test_every_command_and_option_has_help(name: str) -> None:
    command = commands()[name]
    told = command.help or ""
    # The list of commands has one line for each.
    assert len(command.get_short_help_str(limit=200)) <= 66 or not name
    assert re.search(r"^ +altaprofiles ", told, re.MULTILINE), "no example"
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name
            # Arguments are visible in every list of processes, and must not hold a passcode.
            assert not {"passcode", "token", "password"} & set((parameter.name or "").split("_"))
        else:
            shown = re.findall("[A-Z]+", parameter.metavar or str(parameter.name).upper())
            assert shown[0] in told, parameter.name


@pytest.mark.parametrize("name", commands())
def test_help_fits_a_narrow_terminal(env: dict[str, str], name: str) -> None:
    done = run(env, *name.split(), "--help")
    assert (done.code, done.stderr) == (0, "")
    assert max(map(len, done.stdout.decode().splitlines())) <= 100
    with Terminal(env, *name.split(), "--help", columns=40) as terminal:
        assert terminal.ended().code == 0
    assert "Usage: altaprofiles" in terminal.text
    if "--verbose" in (told := done.stdout.decode()):
        # The start of an answer stands there.
        assert "may hold people's data" in " ".join(told.split())


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(env: dict[str, str], shell: str) -> None:
    variable = "_ALTAPROFILES_COMPLETE"
    told = run(env, "--help").stdout.decode()
    assert f"{variable}={shell}_source" in told
    done = run(env | {variable: f"{shell}_source"})
    assert done.code == 0
    assert f"{variable}={shell}_complete" in done.stdout.decode()
    words = {"COMP_WORDS": "altaprofiles co", "COMP_CWORD": "co" if shell == "fish" else "1"}
    done = run(env | words | {variable: f"{shell}_complete"})
    assert "count" in done.stdout.decode()
    for line in ("lookup i", "export x -o p"):
        place = line.split()[-1] if shell == "fish" else str(len(line.split()))
        words = {"COMP_WORDS": f"altaprofiles {line}", "COMP_CWORD": place}
        done = run(env | words | {variable: f"{shell}_complete"})
        assert "file" in done.stdout.decode()


# -------------------------------------------------------------------------------- wrong usage


DAYS = ("--from", "2026-01-01", "--to", "2026-01-31")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ("who", "--account", "a", "--account", "b", "--identity", "1"),
            "--account is given 2 times",
        ),
        (("--account", "a", "--account", "b", "who", "--identity", "1"), "who takes one --account"),
        (("get", "--identity", "1", "--identity", "2"), "--identity is given 2 times"),
        (("lookup", "-", "--by", "email", "--by", "identity", "-o", "x.csv"), "--by is given 2"),
        (("cdp", "--user-id", "1", "--user-id=2"), "--user-id is given 2 times"),
        (("export", "e", *DAYS, "-o", "a.csv", "--out", "b.csv"), "--out is given 2 times"),
        (("export", "e", *DAYS, "-oa.csv", "-ob.csv"), "--out is given 2 times"),
        (
            ("export", "e", *DAYS, "-o", "a.csv", "--resume", "--fresh"),
            "--resume or --fresh is given 2 times",
        ),
        (
            ("export", "e", *DAYS, "-o", "a.csv", "--events", "--no-events"),
            "--events or --no-events is given 2 times",
        ),
        (("demo", "--people", "5", "--people", "6"), "--people is given 2 times"),
        (("emulator", "--port", "1", "--port", "2"), "--port is given 2 times"),
        (
            ("emulator", "--fault", "empty=0.1", "--fault", "empty=0.2"),
            "--fault: empty is given twice",
        ),
        (
            ("--account", "a", "count", "e", *DAYS, "--account", "b"),
            "--account is given before the command and behind it, with two values",
        ),
        # the same form for faults that click finds, and for those that the library finds
        (("export", "e", *DAYS), "error: --out: missing; see altaprofiles export --help"),
        (
            ("export", "e", *DAYS, "-o", "x.csv", "--batch-size", "many"),
            "error: --batch-size: 'many' is not a valid integer\n",
        ),
        (
            ("export", "e", *DAYS, "-o", "x.csv", "--windows", "many"),
            "error: --windows: 'many' is neither auto nor a number\n",
        ),
        (
            ("export", "e", *DAYS, "-o", "x.csv", "--windows", "0"),
            "error: --windows: expected a whole number of at least 1, got 0\n",
        ),
        (("export", "", *DAYS, "-o", "x.csv"), "error: EVENT: empty; "),
        (("emulator", "--fault", "no=1"), "error: --fault: 'no' is not a fault; use one of "),
        (("count", "App", "Launched", *DAYS), "a value with blanks stands in quotation marks, "),
        # names of files, which are no keys
        (("cdp", "--file", "no.txt", "--by", "user-id"), "error: --file: File 'no.txt' does not"),
        (("lookup", "in/no", "--by", "email", "-o", "x.csv"), "error: FILE|-: File 'in/no' does"),
        (("lookup", "no.csv", "--by", "email", "-o", "x.csv"), "File 'no.csv' does not exist"),
        (("lookup", "-", "--by", "email", "-o", "x.csv"), "error: FILE: standard input is empty"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_wrong_usage_is_one_line_that_names_the_option(
    env: dict[str, str], tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    variables = {
        "CLEVERTAP_ACCOUNT_ID": "W9R",
        "CLEVERTAP_PASSCODE": "secret",
        "CLEVERTAP_BASE_URL": "http://127.0.0.1:9",
    }
    done = run(env | variables, *arguments, cwd=tmp_path)
    assert (done.code, done.stdout) == (2, b""), done.stderr
    assert words in done.stderr
    assert re.search(r"^error: .+\n\Z", done.stderr, re.MULTILINE)


@pytest.mark.parametrize(
    "arguments",
    [("-q", "-q", "count", "-q"), ("--account", "a", "count", "--account", "a")],
)
def test_an_option_that_says_the_same_again_is_no_fault(
    env: dict[str, str], arguments: tuple[str, ...]
) -> None:
    done = run(env, *arguments)
    assert "error: EVENT: missing; name an event, or pass --everyone" in done.stderr


def test_wrong_usage_as_json(env: dict[str, str]) -> None:
    done = run(env, "count", "e", *DAYS, "--log-format", "json", "--where", "Amount == 1")
    assert done.code == 2
    assert json.loads(done.stderr)["message"].startswith("--where: == is not an operator")


def test_the_help_names_the_defaults_of_switches(env: dict[str, str]) -> None:
    text = " ".join(run(env, "export", "--help").stdout.decode().split())
    for words in (
        "--events / --no-events Include the events of each person, some 75 % of a record (the",
        "--profile / --no-profile Include the properties of each person (the default)",
        "--distinct / --no-distinct Write each person once (the default)",
        "--app Include versions, make and model of devices, which are left out by default",
        "--resume / --fresh Resume what an earlier run of the same export left unfinished (the",
    ):
        assert words in text
