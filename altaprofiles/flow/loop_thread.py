"""An event loop in a thread beside the caller. Ctrl-C may interrupt the caller anywhere."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Generator
from concurrent.futures import Future
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from ..errors import SessionClosed
from .lifetime import FORKED, closed_meanwhile

__all__ = ["LoopThread", "loop_thread"]

T = TypeVar("T")


class LoopThread:
    """An event loop in a thread of its own, from `start` to `end`.

    `start_blocking_portal` of anyio waits for its thread for ever after a Ctrl-C that comes before
    the loop runs. The caller waits with a `SimpleQueue` here, which is written in C: a `Future`
    stays locked if its own code is interrupted, and the loop would then wait for the caller.

    Attributes:
        loop: the loop, or None before it runs.
        is_ended: whether `end` was called, or the loop has ended by itself.
    """

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self.is_ended = False
        self._process = os.getpid()
        self._calls: set[_Call[Any]] = set()
        self._over = asyncio.Event()
        self._started: SimpleQueue[BaseException | None] = SimpleQueue()
        # A process does not wait for a daemon, such as one that nobody could end.
        self._thread = threading.Thread(target=self._run, name="altaprofiles", daemon=True)

    @property
    def is_inherited(self) -> bool:
        """True in a process that was forked from the one that made it, where no loop runs."""
        return os.getpid() != self._process

    @property
    def is_current(self) -> bool:
        """True in the thread itself."""
        return threading.current_thread() is self._thread

    def start(self) -> None:
        """Return once the loop runs. Raises what prevents it. Call `end` in any case."""
        self._thread.start()
        error = self._started.get()
        if error is not None:
            raise error

    def end(self) -> None:
        """Cancel every call, end the loop, and wait for the thread, unless this is it.

        It may be called more than once. After a fork it does nothing.
        """
        if self.is_inherited:
            return
        # In this order, because the loop sets itself before it reads this.
        self.is_ended = True
        self._soon(self._over.set)
        # A thread whose start was interrupted may not be alive yet, and ends by itself.
        if self._thread.is_alive() and not self.is_current:
            self._thread.join()

    def call(self, function: Callable[[], Awaitable[T]]) -> T:
        """Return the result of `function`, awaited in the loop. It inherits the caller's context.

        An interruption cancels it, and leaves this method when it has ended.

        Raises:
            SessionClosed: the loop has ended, or this is its thread or a forked process.
        """
        if self.is_inherited:
            raise SessionClosed(FORKED)
        call = _Call(function)
        self._calls.add(call)
        try:
            will_run = not self.is_current and self._soon(call.start)
            if will_run:
                call.over.get()
        except BaseException:
            # The caller may open the session's files again at once.
            if not self.is_current and self._soon(call.cancel):
                call.over.get()
            raise
        finally:
            self._calls.discard(call)
        if not will_run:
            raise SessionClosed(
                "this Session cannot be used here: it is closed, or this is a callback of its own "
                "event loop, which the call would stop"
            )
        if not call.outcome.done():
            raise closed_meanwhile()
        return call.outcome.result()

    def _soon(self, function: Callable[[], object]) -> bool:
        """Let the loop call `function`, and return whether it will: not before or after it runs."""
        try:
            if self.loop is not None:
                self.loop.call_soon_threadsafe(function)
        except RuntimeError:
            return False
        return self.loop is not None

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self._started.put(error)
        finally:
            self.is_ended = True
            # The loop may have closed before it began them.
            for call in [*self._calls]:
                call.over.put(None)

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._started.put(None)
        if not self.is_ended:
            await self._over.wait()


class _Call(Generic[T]):
    """One call. Its methods run in the loop.

    Attributes:
        outcome: the result or the error, if it was not cancelled.
        over: gets an item when the call has ended, and another one after a later `cancel`.
    """

    def __init__(self, function: Callable[[], Awaitable[T]]) -> None:
        self.outcome: Future[T] = Future()
        self.over: SimpleQueue[None] = SimpleQueue()
        self._function = function
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())
        # A task that is cancelled before its first step runs nothing of its own.
        self._task.add_done_callback(lambda _: self.over.put(None))

    def cancel(self) -> None:
        if self._task is None or self._task.done():
            self.over.put(None)
        else:
            self._task.cancel()

    async def _run(self) -> None:
        try:
            self.outcome.set_result(await self._function())
        except asyncio.CancelledError:
            pass
        except BaseException as error:
            self.outcome.set_exception(error)


@contextmanager
def loop_thread() -> Generator[LoopThread, None, None]:
    """Run an event loop in a thread of its own until the block ends."""
    thread = LoopThread()
    try:
        thread.start()
        yield thread
    finally:
        thread.end()
