"""`--timeout`: on every command, and in the advice that errors give."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click
import pytest
from anyio import to_thread

from altaprofiles import Timeout
from altaprofiles.cli import cli
from altaprofiles.cli.app import App, _with_option_names
from altaprofiles.cli.resumption import command_line

from ..support.servers import listening
from ..support.terminals import emulated, environment, held, run

pytestmark = pytest.mark.anyio

COMMANDS = cli.commands


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_takes_it(name: str) -> None:
    assert "timeout" in {option.name for option in COMMANDS[name].params}


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "1e9", "soon", "", "5s"])
def test_a_value_that_cannot_work_is_wrong_usage(value: str, tmp_path: Path) -> None:
    done = run(environment(tmp_path), "get", "--identity", "7", "--timeout", value)
    assert done.code == 2
    assert "--timeout" in done.stderr
    assert "number of seconds" in done.stderr


def test_the_limits_keep_their_proportion() -> None:
    app = App()
    assert app.limits == Timeout()
    app.timeout = 60.0
    assert app.limits == Timeout()
    app.timeout = 600.0
    assert app.limits == Timeout(connect=10, read=600, total=3000)
    app.timeout = 2.0
    assert app.limits == Timeout(connect=2, read=2, total=10)


async def test_a_service_that_is_silent_is_not_waited_for_any_longer(tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with listening(serve) as port:
        env = environment(tmp_path) | {
            "ALTA_TOKEN": "token",
            "ALTA_BASE_URL": f"http://127.0.0.1:{port}",
        }
        done = await to_thread.run_sync(run, env, "doctor", "--timeout", "0.25")
    assert done.code == 1
    assert "no answer in 0.25 s" in done.stdout.decode()


def test_advice_names_the_option() -> None:
    advice = "use a smaller `batch_size` or a longer `timeout`"
    assert _with_option_names(advice, COMMANDS["export"]) == (
        "use a smaller --batch-size or a longer --timeout"
    )
    assert _with_option_names("use a longer `timeout`", COMMANDS["get"]) == (
        "use a longer --timeout"
    )


@pytest.mark.parametrize(
    ("command", "text", "shown"),
    [
        ("lookup", "pass by='user_id' (--by user-id)", "pass --by user-id"),
        ("lookup", "pass by='anonymous_id'", "pass --by anonymous-id"),
        (
            "export",
            "made with write='replace' and `distinct=False`",
            "made with --write replace and --no-distinct",
        ),
        ("export", "which format='postgres' needs", "which --format postgres needs"),
        # Other values are anybody's, and the command has no such option.
        ("export", "table='a_b'", "table='a_b'"),
        ("get", "pass by='email' (--by email)", "pass by='email' (--by email)"),
    ],
)
def test_arguments_with_values_are_options(command: str, text: str, shown: str) -> None:
    assert _with_option_names(text, COMMANDS[command]) == shown


@pytest.mark.parametrize("arguments", [["--timeout", "90.5", "count"], ["count"]])
def test_the_command_that_resumes_has_it(arguments: list[str]) -> None:
    app = App()
    outer = cli.make_context("altaprofiles", [*arguments], obj=app)
    with outer:
        inner = COMMANDS["count"].make_context(
            "count", ["Charged", "--from", "2026-01-01", "--to", "2026-01-02"], parent=outer
        )
        with inner:
            line = command_line(click.get_current_context())
    assert ("--timeout 90.5" in line) is (len(arguments) > 1)


@pytest.mark.parametrize("is_silent", [True, False])
def test_a_lookup_that_ends_by_timeouts_advises_a_longer_one(
    tmp_path: Path, is_silent: bool
) -> None:
    faults, passing = ({}, 3) if is_silent else ({"disconnect": 1.0}, 99)
    with (
        emulated(people=20, faults=faults) as emulator,
        held(emulator, b"GET /1/profile.json", passing=passing, holding=99) as (urls, _),
    ):
        env = environment(tmp_path, emulator.environment, urls)
        keys = "".join(f"{number}\n" for number in range(20))
        command = ("lookup", "-", "--by", "identity", "-o", "a.ndjson", "--retries", "0")
        done = run(env, *command, "--timeout", "0.5", cwd=tmp_path, stdin=keys.encode())
    assert done.code == 4, done.stderr
    advice = "--timeout allows a silence of 0.5 s; if it ends so again, pass a longer one."
    assert (advice in done.stderr) == is_silent
