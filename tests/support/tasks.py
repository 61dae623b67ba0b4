"""Starts tasks, cancels them in every way, and waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import anyio

T = TypeVar("T")

PATIENCE = 60.0
"""Time, in seconds, after which a test counts as hung. No test that passes comes near it."""


@asynccontextmanager
async def nothing_left_behind() -> AsyncIterator[None]:
    """Wait until every task that was started inside has ended."""
    before = asyncio.all_tasks()
    yield
    with anyio.fail_after(PATIENCE):
        while any(map(_is_ours, asyncio.all_tasks() - before)):
            await asyncio.sleep(0.001)


async def end_midway(
    way: str, ending: list[Callable[[], object]], work: Callable[[], Coroutine[Any, Any, object]]
) -> None:
    """Run `work`, which calls `ending[0]` to be cancelled in the given `way`.

    Args:
        way: "task", "scope" or "timeout".
    """
    assert await ends_midway(way, ending, work)


async def ends_midway(
    way: str, ending: list[Callable[[], object]], work: Callable[[], Coroutine[Any, Any, object]]
) -> bool:
    """Run `work` as `end_midway` does; return whether it was cancelled before it was over."""
    if way == "task":
        task = asyncio.ensure_future(work())
        ending.append(task.cancel)
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()
        return task.cancelled()
    if way == "scope":
        with anyio.CancelScope() as scope:
            ending.append(scope.cancel)
            await work()
        return scope.cancelled_caught
    try:
        async with asyncio.timeout(None) as timeout:
            ending.append(lambda: timeout.reschedule(0))
            await work()
    except TimeoutError:
        return True
    return False


def _is_ours(task: asyncio.Task[Any]) -> bool:
    # Not the server's task for a kept-alive connection.
    name = getattr(task.get_coro(), "__qualname__", "")
    return name not in ("RequestHandler.start", "Scripted.__call__")


_RUNNING: set[asyncio.Future[None]] = set()


def spawn(
    job: Callable[[], Awaitable[None]], ended: Callable[[BaseException | None], None]
) -> Callable[[], Awaitable[None]]:
    """Run `job` in a task, as a session's engine does for chains and fan-outs."""

    scope = anyio.CancelScope()

    async def run() -> None:
        error: BaseException | None = None
        try:
            with scope:
                await job()
        except BaseException as failure:
            # Raised here, an exit would leave the event loop.
            error = failure
        ended(error)

    # The loop itself holds only weak references to tasks.
    task = asyncio.ensure_future(run())
    _RUNNING.add(task)
    task.add_done_callback(_RUNNING.discard)

    async def end() -> None:
        scope.cancel()
        await asyncio.wait([task])

    return end
