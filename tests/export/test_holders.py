"""A refused lock whose holder is a task of the same process: the refusal has what ends it."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from altaprofiles import CleverTap, ExportLocked, Session

from ..support.servers import always, http, scripted
from ..support.sessions import session_at
from ..support.terminals import environment

pytestmark = pytest.mark.anyio

NOBODY = http(b'{"status":"success","record":null}')


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


async def test_the_refusal_has_the_line_that_ends_the_task(tmp_path: Path) -> None:
    to = tmp_path / "to.ndjson"
    async with standing(to) as (session, task, answered):
        with pytest.raises(ExportLocked) as caught:
            await session.export_lookups(["7"], by="identity", to=to)
        text = str(caught.value)
        assert f"in the task {task.get_name()!r} of this process; wait for it" in text
        (line,) = re.findall("`await (.*?)`", text)
        await eval(line)  # noqa: S307
        assert task.cancelled()
        answered.set()
        report = await session.export_lookups(["7"], by="identity", to=to)
        assert report.complete


async def test_one_that_has_ended_or_writes_elsewhere_is_not_named(tmp_path: Path) -> None:
    to = tmp_path / "to.ndjson"
    async with standing(to) as (session, task, answered):
        report = await session.export_lookups(["8"], by="identity", to=tmp_path / "other.ndjson")
        assert report.complete
        answered.set()
        await task
        assert (await session.export_lookups(["7"], by="identity", to=to)).complete


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
    assert "in another event loop of this process; wait for it, or stop it there" in text


CELL = """
async with Session(clevertap=CleverTap("id", "passcode", base_url=url)) as session:
    report = await session.export_lookups(["7"], by="identity", to="to.ndjson", on_progress=note)
"""

CELLS = """
import asyncio, re, signal, sys
from IPython.core.interactiveshell import InteractiveShell
from altaprofiles import CleverTap, Session

asked = 0

def note(progress):
    global asked
    asked += 1
    if asked == 1:
        # Between two steps of the task, as while it waits.
        asyncio.get_running_loop().call_soon(signal.raise_signal, signal.SIGINT)

names = {"CleverTap": CleverTap, "Session": Session, "note": note, "url": sys.argv[1]}
shell = InteractiveShell.instance(user_ns=names)

def run(cell):
    return shell.run_cell(cell).error_in_exec

cell = sys.argv[2]
errors = [run(cell), run(cell)]
(line,) = re.findall("`(.*?)`", str(errors[-1]))
errors += [run("import asyncio"), run(line), run(cell)]
print("errors:", *(type(error).__name__ for error in errors))
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
    assert "errors: KeyboardInterrupt ExportLocked NoneType NoneType NoneType" in lines, output
    assert "complete: True" in lines
