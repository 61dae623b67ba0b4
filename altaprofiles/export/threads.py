"""Blocking calls and tasks that are finished even when the caller is cancelled."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Sequence,
)
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeVar

import anyio
from anyio.lowlevel import checkpoint

from ..base.task_account import in_account_of_task
from ..flow.lifetime import cancel_again

__all__ = ["Threads", "deliver_cancellation", "read_ahead", "run_all", "running_beside"]

T = TypeVar("T")

_TURN = 0.02
"""Most seconds of short steps between two turns of the event loop, each of which takes time too."""


class Threads:
    """Runs blocking calls in a worker thread, one at a time.

    A call that has started is finished even when the caller is cancelled. So a write is complete,
    an opened file has an owner who closes it, and the next call does not overlap it.

    The thread is the object's own, because all of the event loop's threads may be waiting for an
    export to end.
    """

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="altaprofiles")
        self._is_last = False
        self._cancellations = 0

    async def run(self, call: Callable[[], T]) -> T:
        """Return the result of `call`.

        A cancellation that arrives during the call is raised at the caller's next `await`; see
        `deliver_cancellation`.
        """
        if self._is_last:
            return call()
        # anyio's own threads abandon a call when the task itself is cancelled, as
        # `asyncio.timeout` and Ctrl-C do, and the next call would overlap it.
        done = asyncio.wrap_future(self._executor.submit(in_account_of_task(call)))
        await _wait_out(done)
        return done.result()

    def start(self, call: Callable[[], object]) -> None:
        """Begin a call that never raises, without waiting for it."""
        self._executor.submit(in_account_of_task(call))

    async def run_until(self, call: Callable[[Callable[[], bool]], T]) -> T:
        """Return the result of a long call, which a cancellation ends.

        Args:
            call: takes a function that returns whether the caller was cancelled. It raises an
                exception soon after that.
        """
        cancelled = threading.Event()
        running = in_account_of_task(partial(call, cancelled.is_set))
        done = asyncio.wrap_future(self._executor.submit(running))
        try:
            # `wait` leaves the call alone when this task is cancelled.
            await asyncio.wait([done])
        except asyncio.CancelledError:
            cancelled.set()
            await _wait_out(done)
            # Otherwise the loop logs an exception that nobody has asked for.
            done.exception()
            raise
        return done.result()

    async def run_steps(
        self, step: Callable[[], bool], after: Callable[[], object] | None = None
    ) -> None:
        """Call `step` until it returns False.

        The event loop turns, and a cancellation is noticed, between steps that together take an
        eighth of the time so far, and at most some hundredths of a second.

        Args:
            step: a short blocking call.
            after: called after some steps, in the event loop.
        """

        start = time.perf_counter()

        def some() -> bool:
            now = time.perf_counter()
            end = now + min(_TURN, (now - start) / 8)
            while step():
                if time.perf_counter() >= end:
                    return True
            return False

        goes_on = True
        while goes_on:
            goes_on = await self.run(some)
            if after is not None:
                after()
            await checkpoint()

    async def run_behind(self, call: Callable[[], object]) -> None:
        """Make a call that never raises; behind `make_last` only begin it, as it may be long."""
        if self._is_last:
            self.start(call)
        else:
            await self.run(call)

    async def deliver_cancellation(self) -> None:
        """Raise a cancellation that has arrived.

        Behind `make_last` that is one of a signal, which needs no wait to arrive.
        """
        if not self._is_last or _cancellations() > self._cancellations:
            await deliver_cancellation()

    async def make_last(self) -> None:
        """Raise a cancellation that has arrived, and have no later one arrive.

        For short calls after which a cancellation would lose what they have done: `run` makes them
        in the event loop, and nothing waits.
        """
        await deliver_cancellation()
        self._is_last, self._cancellations = True, _cancellations()

    def end(self, call: Callable[[], object]) -> None:
        """Wait for the calls that have begun, make a last one, and let the thread end. Blocking.

        For a thread whose event loop is closed, from another one.
        """
        self._executor.submit(call).result()
        self.close()

    def close(self) -> None:
        """Let the thread end once it is idle."""
        self._executor.shutdown(wait=False)


async def read_ahead(source: Iterable[T]) -> AsyncGenerator[T, None]:
    """Yield each item of a blocking iterable, which a thread of its own reads, two items ahead.

    For pipes: nothing can interrupt a read of one to which nobody writes. When the generator is
    closed, the thread is left to end with its present read, and does not keep the process alive.

    Raises:
        Exception: the error of `source`, after its items.
    """
    loop = asyncio.get_running_loop()
    results: asyncio.Queue[tuple[bool, T | Exception | None]] = asyncio.Queue(maxsize=2)
    closed = False

    def put(is_item: bool, value: T | Exception | None) -> bool:
        putting = results.put((is_item, value))
        try:
            asyncio.run_coroutine_threadsafe(putting, loop).result()
        except (RuntimeError, CancelledError):
            # The loop has ended, and with it the consumer.
            putting.close()
            return False
        return not closed

    def read() -> None:
        try:
            for item in source:
                if not put(True, item):
                    return
        except Exception as error:
            put(False, error)
        else:
            put(False, None)

    threading.Thread(target=read, daemon=True).start()
    try:
        while True:
            is_item, value = await results.get()
            if isinstance(value, Exception):
                raise value
            if not is_item:
                return
            yield value  # type: ignore[misc]
    finally:
        closed = True
        while not results.empty():
            # Makes room for an item that the thread is waiting to put.
            results.get_nowait()


async def run_all(jobs: Sequence[Callable[[], Awaitable[None]]]) -> None:
    """Run all jobs at once. The first failure cancels the others, and is raised without a group."""
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
async def running_beside(job: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Run `job` until the body is finished. The first to fail cancels the other, and is raised.

    A cancellation that arrives after the body has finished is raised after this block; the body's
    work stands.
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


async def deliver_cancellation() -> None:
    """Raise a cancellation that arrived while the task waited for a blocking call.

    To be awaited last in whatever has a time limit of its own, because it would otherwise be raised
    in the code behind it: up to Python 3.12, a limit that takes its cancellation back as
    `asyncio.timeout` does leaves it to the next `await` if its block ends without an exception.
    """
    await asyncio.sleep(0)


def _cancellations() -> int:
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


async def _wait_out(done: asyncio.Future[T]) -> None:
    """Wait for `done` even when cancelled; the cancellation is raised at the next `await`."""
    cancelled: asyncio.CancelledError | None = None
    with anyio.CancelScope(shield=True):
        while not done.done():
            try:
                await asyncio.wait([done])
            except asyncio.CancelledError as error:
                cancelled = error
    if cancelled is not None:
        cancel_again(cancelled)
