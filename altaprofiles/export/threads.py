"""Threads and tasks, so that what they leave behind is whole."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TypeVar

import anyio

__all__ = ["Threads", "alongside", "run_all"]

T = TypeVar("T")


class Threads:
    """Runs blocking calls in a worker thread, one at a time.

    A call that has begun is finished, also when the caller is cancelled: what it writes is whole,
    what it opens is known to somebody who closes it, and nobody gets at either before.

    The thread is its own, as all of the event loop's may be waiting for an export to end.
    """

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="altaprofiles")

    async def run(self, call: Callable[[], T]) -> T:
        """Return what `call` returns; cancelled meanwhile, the caller learns so right after."""
        # anyio's own threads let go of a call when the task itself is cancelled, as
        # `asyncio.timeout` and Ctrl-C do: the next call would run beside it.
        done = asyncio.wrap_future(self._executor.submit(call))
        await _wait_out(done)
        return done.result()

    def close(self) -> None:
        """Let the thread end."""
        self._executor.shutdown(wait=False)


async def run_all(jobs: Sequence[Callable[[], Awaitable[None]]]) -> None:
    """Run all of them at once; the first failure ends the others, and is raised as it is."""
    failures: list[Exception] = []

    async def run(job: Callable[[], Awaitable[None]]) -> None:
        try:
            await job()
        except Exception as error:
            failures.append(error)
            group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        for job in jobs:
            group.start_soon(run, job)
    if failures:
        raise failures[0]


@asynccontextmanager
async def alongside(job: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Run `job` until the body is over; whichever fails ends the other, and is raised as it is.

    A cancellation that comes when the body is over is heard behind it: what it has done is done.
    """
    failures: list[Exception] = []

    async def run() -> None:
        try:
            await job()
        except Exception as error:
            failures.append(error)
            scope.cancel()

    with anyio.CancelScope() as scope:
        running = asyncio.create_task(run())
        try:
            yield
        except Exception as error:
            failures.append(error)
        finally:
            running.cancel()
            await _wait_out(running)
    if failures:
        raise failures[0]


async def _wait_out(done: asyncio.Future[T]) -> None:
    """Wait until it is done, also when cancelled; the caller learns of that right after."""
    cancelled: asyncio.CancelledError | None = None
    with anyio.CancelScope(shield=True):
        while not done.done():
            try:
                await asyncio.wait([done])
            except asyncio.CancelledError as error:
                cancelled = error
    if cancelled is not None and (task := asyncio.current_task()) is not None:
        # Once more, as one and the same: `asyncio.timeout` counts how often, and anyio knows its
        # own by the message.
        task.uncancel()
        task.cancel(*cancelled.args)
