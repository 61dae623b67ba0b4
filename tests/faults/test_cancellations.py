"""Every call, cancelled after any number of turns of the event loop.

Nothing hangs and nothing is left. The cancellation ends the call that was cancelled, or comes too
late for it; it never comes to what its caller awaits next.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import pytest

from altaprofiles import Session

from .calls import CALLS, Call, Found
from .cells import PATIENCE, check_usable, usable

pytestmark = [pytest.mark.anyio, pytest.mark.each_value]

WAYS = ("task", "timeout", "scope")

AWAITED = {
    # In which turn a call ends depends on its disk and its threads, and not on the loop alone.
    "get-identity": 60,
    "cdp-shared": 60,
    "count-polled": 90,
    "get-many": 150,
    "cdp-many": 150,
    "people": 150,
    "pages": 150,
    "with-cdp": 250,
    "large-people": 250,
    "export": 2500,
    "export-counted": 2500,
    "export-lookups": 2500,
}
"""Calls, and the number of turns within which each is cancelled."""


def after(turns: int, cancel: Callable[[], object]) -> None:
    """Call `cancel` after so many turns of the loop."""
    loop = asyncio.get_running_loop()
    if turns <= 0:
        cancel()
    else:
        loop.call_soon(after, turns - 1, cancel)


async def cancelled(work: Callable[[], Awaitable[Found]], way: str, turns: int) -> Found | None:
    """Return what `work` found although it was cancelled, or None if the cancellation ended it."""
    task = asyncio.current_task()
    assert task is not None
    found: Found | None = None
    if way == "task":
        running = asyncio.ensure_future(work())
        after(turns, running.cancel)
        await asyncio.wait([running])
        if not running.cancelled():
            found = running.result()
    elif way == "timeout":
        over = False

        def expire() -> None:
            if not over:
                limit.reschedule(asyncio.get_running_loop().time())

        try:
            async with asyncio.timeout(None) as limit:
                after(turns, expire)
                found = await work()
        except TimeoutError:
            # It may have come between the end of the call and that of the block.
            pass
        finally:
            over = True
    else:
        with anyio.CancelScope() as scope:
            after(turns, scope.cancel)
            found = await work()
    assert task.cancelling() == 0
    # The next awaits of the caller are disturbed by nothing.
    await asyncio.sleep(0)
    await asyncio.sleep(0.0001)
    await anyio.lowlevel.checkpoint()
    return found


def _steps(name: str, way: str, every: bool) -> list[int]:
    most = AWAITED[name]
    if every:
        return [*range(min(most, 400)), *range(400, most, 7)]
    chance = random.Random(f"{name} {way}")  # noqa: S311
    few = 5 if "export" in name or "large" in name else 12
    return sorted(chance.sample(range(most), few))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", AWAITED)
async def test_a_cancellation_ends_its_call_and_nothing_else(
    name: str, way: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    call = CALLS[name]
    tasks = asyncio.all_tasks()
    async with usable() as (server, session):
        for turns in _steps(name, way, request.config.getoption("--all-faults")):
            with anyio.fail_after(PATIENCE):
                found = await cancelled(_folded(call, session, tmp_path), way, turns)
            assert found is None or call.is_right(found)
            found = await call.run(session, tmp_path)
            assert call.is_right(found)
        await check_usable(session, server, tmp_path)
    with anyio.fail_after(PATIENCE):
        while server.connections or asyncio.all_tasks() - tasks:
            await asyncio.sleep(0.001)


def _folded(call: Call, session: Session, folder: Path) -> Callable[[], Awaitable[Found]]:
    return lambda: call.run(session, folder)
