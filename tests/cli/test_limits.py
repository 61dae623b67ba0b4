"""`--max-time` and `--retries` on every command, and failures that are reported while retried."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import pytest
from anyio import to_thread

from altaprofiles import Attempt, Retry
from altaprofiles.cli import cli
from altaprofiles.cli.app import App
from altaprofiles.cli.resumption import command_line
from altaprofiles.cli.waits import Waits
from altaprofiles.emulator import Emulator
from altaprofiles.errors import AltaProfilesError, ConnectError, NotReady, RateLimited, ServerError

from ..support.servers import always, closed, http, in_turn, scripted
from ..support.sessions import EVENT, RANGE, session_for
from ..support.tasks import PATIENCE
from ..support.terminals import COMMAND, Done, Terminal, environment, run

pytestmark = pytest.mark.anyio

COMMANDS = cli.commands
DAYS = ("--from", "2026-01-01", "--to", "2026-01-31")


# ------------------------------------------------------------------------------------- the options


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_takes_them(name: str) -> None:
    assert {"max_time", "retries"} <= {option.name for option in COMMANDS[name].params}


def context(*options: str) -> click.Context:
    outer = cli.make_context("altaprofiles", ["get"], obj=App())
    return COMMANDS["get"].make_context("get", ["--identity", "7", *options], parent=outer)


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("--max-time", ["0", "-1", "nan", "inf", "1e9", "soon", "", "5s", "1_0", " 5"]),
        ("--retries", ["-1", "1.5", "1001", "1_0", "9" * 5000, "many", "", "\N{SUPERSCRIPT TWO}"]),
    ],
)
def test_values_that_cannot_work_are_refused(option: str, values: list[str]) -> None:
    for value in values:
        with pytest.raises(click.BadParameter, match="number of") as raised:
            context(option, value)
        assert raised.value.exit_code == 2


def test_retries_are_tries_after_the_first() -> None:
    for retries, attempts in ((0, 1), (1, 2), (1000, 1001)):
        app = context("--retries", str(retries)).find_object(App)
        assert app is not None
        assert app.retry() == Retry(attempts=attempts)
        assert app.retry(Retry(attempts=3, deadline=30)) == Retry(attempts=attempts, deadline=30)
    assert App().retry() == Retry()


def test_the_command_that_resumes_has_them() -> None:
    with context("--max-time", "90.5", "--retries", "0"):
        line = command_line(click.get_current_context())
    assert line.endswith("--max-time 90.5 --retries 0")


# ------------------------------------------------------------------------------------------ retries


async def test_no_retries(tmp_path: Path) -> None:
    (tmp_path / "keys.txt").write_text("7\n")
    lookup = ("lookup", "keys.txt", "--by", "identity", "-o", "found.ndjson")
    async with scripted(always(http(b"", "503 Service Unavailable"))) as server:
        env = environment(tmp_path, of(server.url))
        done = await ended(env, "get", "--identity", "7", "--retries", "0", cwd=tmp_path)
        assert done.code == 1
        assert "HTTP 503" in done.stderr
        assert "retrying" not in done.stderr
        assert len(server.heads) == 1
        done = await ended(env, "--retries", "0", *lookup, cwd=tmp_path)
        assert done.code == 4
        assert "the service does not answer: CleverTap answered HTTP 503" in done.stderr
        assert len(server.heads) == 2


# --------------------------------------------------------------------------------------- the limit


def of(url: str) -> dict[str, str]:
    return {
        "CLEVERTAP_ACCOUNT_ID": "TEST",
        "CLEVERTAP_PASSCODE": "PASS-OF-A-TEST",
        "CLEVERTAP_BASE_URL": url,
        "ALTA_TOKEN": "TOKEN-OF-A-TEST",
        "ALTA_BASE_URL": url,
    }


async def ended(env: Mapping[str, str], *arguments: str, cwd: Path) -> Done:
    return await to_thread.run_sync(lambda: run(env, *arguments, cwd=cwd))


async def test_a_single_call_ends_with_the_limit(tmp_path: Path) -> None:
    async def silence(head: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    (tmp_path / "ids.txt").write_text("7\n")
    async with scripted(silence) as server:
        env = environment(tmp_path, of(server.url))
        done = await ended(env, "get", "--identity", "7", "--max-time", "3", cwd=tmp_path)
        assert done.code == 1
        assert "CleverTap: get_profile did not finish within the --max-time of 3 s" in done.stderr
        command = ("cdp", "--file", "ids.txt", "--by", "user-id")
        done = await ended(env, "--max-time", "3", *command, cwd=tmp_path)
        assert done.code == 1
        assert f"error: {command[0]} did not finish within the --max-time of 3 s" in done.stderr
        assert "altaprofiles lookup ids.txt --by user-id" in done.stderr


async def test_several_accounts_end_with_the_limit(tmp_path: Path) -> None:
    async def silence(head: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    config = tmp_path / "accounts.toml"
    async with scripted(silence) as server:
        config.write_text(
            "".join(
                f'[accounts.{name}]\naccount_id = "{name}"\npasscode = "PASS-OF-A-TEST"\n'
                f'base_url = "{server.url}"\n'
                for name in ("shop", "outlet")
            )
        )
        config.chmod(0o600)
        env = environment(tmp_path, ALTAPROFILES_CONFIG=str(config))
        both = ("--account", "shop", "--account", "outlet", "--max-time", "3")
        done = await ended(env, "count", "App Launched", *DAYS, *both, cwd=tmp_path)
        late = "did not finish within the --max-time of 3 s"
        assert done.code == 1
        for name in ("shop", "outlet"):
            assert f"{name}: CleverTap: count {late}" in done.stderr
        export = ("export", "App Launched", *DAYS, "-o", "p.csv", *both)
        done = await ended(env, *export, cwd=tmp_path)
        assert done.code == 4
        assert done.stderr.count(late) >= 1
        assert "again, with a longer --max-time" in done.stderr
        assert "To resume: " not in done.stderr


@pytest.mark.parametrize("command", ["status", "sync"])
async def test_what_is_unfinished_stays_so_at_the_limit(tmp_path: Path, command: str) -> None:
    to = tmp_path / "p.duckdb"
    begun = {
        "status": ("export", {"events": EVENT, **RANGE}),
        "sync": ("sync", {"events": EVENT, "since": RANGE["start"], "until": RANGE["end"]}),
    }
    arguments = {
        "status": ("status", str(to), "--finish-unfinished"),
        "sync": (
            *("sync", EVENT, "--since", "2026-01-01", "--until", "2026-01-31", "-o", str(to)),
            *("--timezone", "UTC", "--batch-size", "23"),
        ),
    }[command]
    async with Emulator(people=300, seed=2) as emulator:

        def stop(progress: Any) -> None:
            if progress.records:
                raise KeyError

        async with session_for(emulator) as session:
            method, options = begun[command]
            if command == "sync":
                options["timezone"] = "UTC"
            with pytest.raises(KeyError):
                await getattr(session, method)(
                    **options, to=to, batch_size=23, windows=1, on_progress=stop
                )
        env = environment(tmp_path, emulator.environment)
        before = emulator.stats.requests.copy()
        emulator.faults = {"server_error": 1.0}
        done = await ended(env, *arguments, "--max-time", "3", cwd=tmp_path)
        assert done.code == 4, done.stderr
        assert "it did not finish within the --max-time of 3 s" in done.stderr
        noun = {"status": "export"}.get(command, command)
        assert f"run the same {noun} again to resume it" in done.stderr
        assert "--max-time 3" in done.stderr
        emulator.faults = {}
        done = await ended(env, *arguments, "--max-time", "600", cwd=tmp_path)
        assert done.code == 0, done.stderr
        assert emulator.stats.requests["open_chain"] == before["open_chain"]


async def test_the_line_that_resumes_leaves_the_account_to_each_export(tmp_path: Path) -> None:
    to = tmp_path / "p.ndjson"

    def stop(progress: Any) -> None:
        if progress.records:
            raise KeyError

    async with Emulator(people=300, seed=2) as emulator:
        async with session_for(emulator) as session:
            with pytest.raises(KeyError):
                await session.export(EVENT, **RANGE, to=to, batch_size=23, on_progress=stop)
        account = emulator.clevertap
        config = tmp_path / "accounts.toml"
        config.write_text(
            "".join(
                f'[accounts.{name}]\naccount_id = "{account_id}"\npasscode = "{account.passcode}"\n'
                f'base_url = "{emulator.url}"\n'
                for name, account_id in (("other", "OTHER"), ("shop", account.account_id))
            )
        )
        config.chmod(0o600)
        env = environment(tmp_path, ALTAPROFILES_CONFIG=str(config))
        emulator.faults = {"server_error": 1.0}
        words = ("status", str(to), "--finish-unfinished", "--retries", "0")
        done = await ended(env, *words, cwd=tmp_path)
        assert done.code == 4, done.stderr
        line = done.stderr.partition("To resume: ")[2].strip()
        assert line.endswith(f"altaprofiles {' '.join(words)}")


# ------------------------------------------------------------------------------------ the failures


@pytest.mark.parametrize("options", [(), ("--log-format", "json"), ("--quiet",)])
async def test_a_closed_port_is_reported_while_it_is_tried(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    (tmp_path / "ids.txt").write_text("7\n8\n")
    commands = [
        ("get", "--email", "nobody@example.com"),
        ("export", "App Launched", *DAYS, "-o", "p.ndjson"),
        ("cdp", "--file", "ids.txt", "--by", "user-id"),
    ]
    async with Emulator(people=20) as emulator, closed() as port:
        at = {"CLEVERTAP_BASE_URL": port.url, "ALTA_BASE_URL": port.url}
        env = environment(tmp_path, emulator.environment, at)
        running = [
            await asyncio.create_subprocess_exec(
                *COMMAND,
                *command,
                *options,
                env=env,
                cwd=tmp_path,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            for command in (commands if not options else commands[:1])
        ]
        lines: list[str] = []
        if "--quiet" not in options:
            lines = await asyncio.gather(*map(refusal, running))
        # Only now can any of them succeed.
        await port.open(emulator.url)
        for process, line in zip(running, lines or [""], strict=True):
            _, rest = await asyncio.wait_for(process.communicate(), PATIENCE)
            text = rest.decode()
            if options == ("--log-format", "json"):
                line = json.loads(line)["message"]
            if line:
                host = port.url.removeprefix("http://")
                refused = f"no connection to {host}: Connection refused; retrying for"
                assert line.startswith((f"CleverTap: {refused}", f"Alta: {refused}"))
            assert "no connection" not in text
        codes = [process.returncode for process in running]
        assert codes == [5, 0, 0][: len(codes)]


async def refusal(process: asyncio.subprocess.Process) -> str:
    """Return the line of a running command that reports its first failure."""
    assert process.stderr is not None
    while line := await asyncio.wait_for(process.stderr.readline(), PATIENCE):
        if b"no connection" in line:
            assert process.returncode is None
            return line.decode().strip()
    raise AssertionError("it ended without a word")


async def test_a_terminal_shows_it_too(tmp_path: Path) -> None:
    async with Emulator(people=20) as emulator, closed() as port:
        at = {"CLEVERTAP_BASE_URL": port.url, "ALTA_BASE_URL": port.url}
        env = environment(tmp_path, emulator.environment, at)

        def watch(*command: str) -> None:
            with Terminal(env, *command, columns=200) as terminal:
                terminal.expect("Connection refused")
                terminal.process.terminate()
                terminal.ended()

        await to_thread.run_sync(lambda: watch("get", "--identity", "7"))
        out = str(tmp_path / "p.ndjson")
        await to_thread.run_sync(lambda: watch("export", "App Launched", *DAYS, "-o", out))


def attempt(
    error: AltaProfilesError | None, delay: float | None, api: str = "Alta", call: int = 1
) -> Attempt:
    return Attempt(
        api=api,
        operation="get_user_cdp",
        number=1,
        seconds=0.1,
        status=None,
        bytes=0,
        error=error,
        delay=delay,
        call=call,
        method="GET",
        host="h",
        url="https://h",
        port=443,
        waited=0.0,
        bulk=False,
    )


DOWN = ServerError(api="Alta", status=503)
REFUSED = ConnectError("no connection to h", detail="Connection refused")


def test_each_kind_of_failure_is_reported_once() -> None:
    lines: list[str] = []
    waits = Waits(lines.append, Retry())
    for _ in range(3):
        waits.note(attempt(REFUSED, 0.1))
        waits.note(attempt(REFUSED, 0.1, api="CleverTap"))
        # As if the call had begun to fail five seconds ago.
        waits.note(attempt(DOWN, 5.0, call=2))
        waits.note(attempt(NotReady("the count is not ready"), 5.0, call=3))
    assert lines == [
        "no connection to h: Connection refused; retrying for up to 62 s",
        "no connection to h: Connection refused; retrying for up to 62 s",
        "Alta answered HTTP 503; retrying for up to 62 s",
        "the count is not ready; retrying for up to 10 min",
    ]


def test_what_passes_soon_is_not_reported() -> None:
    lines: list[str] = []
    waits = Waits(lines.append, Retry())
    for call in range(50):
        waits.note(attempt(DOWN, 0.1, call=call))
        waits.note(attempt(NotReady("the count is not ready"), 0.1, call=call))
        waits.note(attempt(None, None, call=call))
        waits.note(attempt(RateLimited(api="Alta", status=429), 0.1, call=call))
        # That is the error of the command itself.
        waits.note(attempt(REFUSED, None, call=call))
    assert lines == []


def test_a_wait_that_the_service_asks_for_is_reported_with_its_end() -> None:
    lines: list[str] = []
    waits = Waits(lines.append, Retry())
    for _ in range(3):
        waits.note(attempt(ServerError(api="Alta", status=503, retry_after=40.0), 40.0))
    assert [line[:14] for line in lines] == ["waiting until "]


def test_the_limit_of_the_command_bounds_the_time_that_is_named() -> None:
    lines: list[str] = []
    Waits(lines.append, Retry(), lambda: 7.0).note(attempt(ConnectError("no connection"), 0.1))
    assert lines == ["no connection; retrying for up to 7 s"]


# --------------------------------------------------------------------------------------- the cause


async def test_the_limit_does_not_hide_a_closed_port(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("7\n")
    # The first delay is at most half a second, so that there is a failure by then.
    limit = ("--quiet", "--max-time", "2")
    async with closed() as port:
        env = environment(tmp_path, of(port.url))
        for command in (
            ("export", "App Launched", *DAYS, "-o", "p.ndjson"),
            ("cdp", "--file", "ids.txt", "--by", "user-id"),
        ):
            done = await ended(env, *command, *limit, cwd=tmp_path)
            assert "did not finish within the --max-time of 2 s" in done.stderr
            assert "Connection refused" in done.stderr


async def test_nothing_kept_asks_for_a_longer_limit(tmp_path: Path) -> None:
    env = environment(tmp_path, of("http://127.0.0.1:9"))
    export = ("export", "App Launched", *DAYS, "-o", "p.ndjson")
    done = await ended(env, *export, "--max-time", "0.001", cwd=tmp_path)
    assert done.code == 4
    assert done.stderr.endswith(
        "nothing of it has been kept; run the same export again, with a longer --max-time\n"
    )


async def test_files_that_are_written_are_not_said_to_be_lost(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("7\n8\n")
    found = http(b'{"status": "success", "record": {"identity": "7"}}')
    async with scripted(in_turn(found, http(b"", "503 Service Unavailable"))) as server:
        env = environment(tmp_path, of(server.url))
        words = ("lookup", "ids.txt", "--by", "identity", "-o", "found.ndjson", "--retries", "0")
        done = await ended(env, *words, cwd=tmp_path)
    assert done.code == 4
    assert (tmp_path / "found.ndjson.failed.ndjson").exists()
    assert "nothing of it has been kept" not in done.stderr
    assert "is written, but is not complete" in done.stderr
    assert "run the same lookup again to ask for what is" in done.stderr
    assert "To resume: " in done.stderr
