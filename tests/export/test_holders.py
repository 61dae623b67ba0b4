"""A refused lock whose holder is a task of the same process: the refusal has what ends it."""

from __future__ import annotations

import asyncio
import fcntl
import sqlite3
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

import anyio
import duckdb
import pytest

from altaprofiles import CleverTap, ExportLocked, Session
from altaprofiles.emulator import Emulator
from altaprofiles.export.sinks.files import partial_of

from ..support.servers import always, http, scripted
from ..support.sessions import session_at
from ..support.terminals import environment

pytestmark = pytest.mark.anyio

NOBODY = http(b'{"status":"success","record":null}')


def lock_of(to: Path) -> Path:
    return to.with_name(f"{to.name}.export") / "lock.sqlite"


def refusal_of(to: Path) -> str:
    return (
        f"another export is working on this output: {lock_of(to)} is in use; wait for it, stop it, "
        f"or choose another `to`"
    )


@contextmanager
def locked(to: Path) -> Iterator[None]:
    """Hold the lock of an output."""
    path = lock_of(to)
    path.parent.mkdir(mode=0o700)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("begin immediate")
        yield


@asynccontextmanager
async def standing(to: Path) -> AsyncIterator[tuple[Session, asyncio.Task[Any], asyncio.Event]]:
    """Yield a session, a task in which its export waits for an answer, and what lets it go on."""
    asked, answered = asyncio.Event(), asyncio.Event()

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        if b"identity=7" in head:
            asked.set()
            await answered.wait()
        writer.write(NOBODY)

    async with scripted(answer) as server, session_at(server) as session:
        task = asyncio.create_task(session.export_lookups(["7"], by="identity", to=to))
        with anyio.fail_after(60):
            await asked.wait()
        try:
            yield session, task, answered
        finally:
            answered.set()
            await asyncio.wait([task])


async def test_the_refusal_names_the_task(tmp_path: Path) -> None:
    to = tmp_path / "to.ndjson"
    async with standing(to) as (session, task, answered):
        with pytest.raises(ExportLocked) as caught:
            await session.export_lookups(["7"], by="identity", to=to)
        held = f"It is held by the task {task.get_name()!r} of this process"
        # The task may be the whole program.
        assert str(caught.value) == f"{refusal_of(to)}. {held}"
        answered.set()
        await task
        assert (await session.export_lookups(["7"], by="identity", to=to)).complete


async def test_a_task_is_not_named_for_what_others_hold(tmp_path: Path) -> None:
    to, other = tmp_path / "to.ndjson", tmp_path / "other.ndjson"
    spool = tmp_path / "spool"
    spool.mkdir()
    async with standing(to) as (session, _, _):
        # As another process does.
        with locked(other), pytest.raises(ExportLocked) as caught:
            await session.export_lookups(["8"], by="identity", to=other)
        assert str(caught.value) == refusal_of(other)
        # The same output, but a refusal that the task has no part in.
        with partial_of(to).open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            with pytest.raises(ExportLocked) as caught:
                await session.export_lookups(["8"], by="identity", to=to, spool=spool)
        assert str(caught.value) == (
            f"another export is writing {to}; wait for it, stop it, or choose another `to`"
        )


async def test_one_of_another_loop_is_not_to_be_ended_from_here(tmp_path: Path) -> None:
    to = tmp_path / "to.ndjson"

    async def refused(url: str) -> str:
        clevertap = CleverTap("id", "passcode", base_url=url)
        async with Session(clevertap=clevertap) as session:
            with pytest.raises(ExportLocked) as caught:
                await session.export_lookups(["7"], by="identity", to=to)
            return str(caught.value)

    async with standing(to) as (_, _, _), scripted(always(NOBODY)) as server:
        text = await anyio.to_thread.run_sync(lambda: asyncio.run(refused(server.url)))
    assert text == f"{refusal_of(to)}. It is held in another event loop of this process"


CELL = """
async with Session(clevertap=CleverTap("id", "passcode", base_url=url)) as session:
    report = await session.export_lookups(["7"], by="identity", to="to.ndjson", on_progress=note)
"""

CELLS = """
import asyncio as aio, re, signal, sys
from IPython.core.interactiveshell import InteractiveShell
from altaprofiles import CleverTap, Session

asked = 0

def note(progress):
    global asked
    asked += 1
    if asked == 1:
        # Between two steps of the task, as while it waits.
        aio.get_running_loop().call_soon(signal.raise_signal, signal.SIGINT)

names = {"CleverTap": CleverTap, "Session": Session, "note": note, "url": sys.argv[1]}
shell = InteractiveShell.instance(user_ns=names)

def run(cell):
    return shell.run_cell(cell).error_in_exec

cell = sys.argv[2]
errors = [run(cell), run(cell)]
(line,) = re.findall("`(import .*?)`", str(errors[-1]))
errors += [run(line), run(cell)]
print("errors:", *(type(error).__name__ for error in errors))
# What is right for an export that still runs stands before how to end it.
print("advice:", "await one after the other; to end it: " in str(errors[1]))
print("complete:", shell.user_ns["report"].complete)
"""


async def test_a_cell_that_ipython_has_interrupted_is_ended_by_the_line(tmp_path: Path) -> None:
    asked: list[bytes] = []
    ended = asyncio.Event()

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        asked.append(head)
        if len(asked) == 1:
            # Or the cell that was left behind could end while the next one begins.
            await ended.wait()
        writer.write(NOBODY)

    async with scripted(answer) as server:
        done = await anyio.run_process(
            [sys.executable, "-c", CELLS, server.url, CELL],
            cwd=tmp_path,
            env=environment(tmp_path),
            check=False,
        )
        ended.set()
    output = done.stdout.decode() + done.stderr.decode()
    lines = output.splitlines()
    assert "errors: KeyboardInterrupt ExportLocked NoneType NoneType" in lines, output
    assert "advice: True" in lines
    assert "complete: True" in lines


LEFT = """
import asyncio, sys
from altaprofiles import Session

to, whole, stage = sys.argv[1:]
loop = asyncio.new_event_loop()

def note(progress):
    if progress.stage == stage and progress.records:
        # Nothing goes on then, and nobody is cancelled.
        loop.stop()

async def export(to, on_progress=None):
    days = {"start": "2026-01-01", "end": "2026-01-31"}
    session = await Session.from_env().__aenter__()
    report = await session.export(
        "App Launched", **days, batch_size=23, to=to, on_progress=on_progress
    )
    await session.aclose()
    return report

try:
    loop.run_until_complete(export(to, note))
except RuntimeError as error:
    print(error)
loop.close()
try:
    print(asyncio.run(export(to)).people == asyncio.run(export(whole)).people)
except Exception as error:
    print(error)
"""


async def left_behind(to: Path, stage: str) -> str:
    """Return what an export tells after the event loop of another was closed at a stage."""
    async with Emulator(people=3000, seed=3) as emulator:
        done = await anyio.run_process(
            [sys.executable, "-c", LEFT, str(to), str(to.with_name("whole.parquet")), stage],
            env=environment(to.parent, emulator.environment),
            check=False,
        )
    stopped, told = done.stdout.decode().splitlines()
    assert stopped == "Event loop stopped before Future completed."
    return told


# DuckDB and a stage of it, which would outlive the loop, are of the whole process.
@pytest.mark.parametrize("name", ["p.parquet", "p.duckdb"])
async def test_what_a_closed_loop_left_behind_is_resumed(tmp_path: Path, name: str) -> None:
    to = tmp_path / name
    assert await left_behind(to, "reading") == "True"
    with duckdb.connect(to if name.endswith("duckdb") else ":memory:") as db:
        rows = "profiles" if name.endswith("duckdb") else f"'{to}'"
        counts = "count(*), count(distinct person), (select count(*) from '{}')"
        sql = f"select {counts.format(tmp_path / 'whole.parquet')} from {rows}"
        found = db.sql(sql).fetchall()
    assert {*found[0]} == {found[0][0]}
    assert not lock_of(to).parent.exists()


async def test_a_closed_loop_that_left_an_open_output_is_named(tmp_path: Path) -> None:
    to = tmp_path / "p.parquet"
    assert await left_behind(to, "finishing") == (
        f"{refusal_of(to)}. It is held by a task of this process that was writing the output when "
        f"its event loop was closed, and that nothing can end; restart the process"
    )
