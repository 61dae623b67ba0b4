"""The time in which a session is open, and the tasks that live in it. Sends nothing."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeAlias

import anyio
from anyio.abc import TaskGroup

from ..errors import AltaProfilesError, ConfigurationError

__all__ = ["INTERRUPTED", "Lifetime", "Spawn", "is_cancelled_here"]


Spawn: TypeAlias = Callable[
    [Callable[[], Awaitable[None]], Callable[[BaseException | None], None]], Callable[[], None]
]
"""Runs a job in the background, tells when it has ended, returns what cancels it."""


INTERRUPTED = (
    "something cancelled the work behind this iteration from outside, so that its results are not "
    "complete; cancel the task that reads them instead"
)
"""What a reader is told whose background tasks were cancelled one by one."""


def is_cancelled_here() -> bool:
    """Whether a `CancelledError` comes from a scope around this task, and from nobody else."""
    return anyio.current_effective_deadline() == -math.inf


class Pool(Protocol):
    """What is opened at the beginning and closed at the end."""

    async def open(self) -> None: ...

    async def aclose(self) -> None: ...


class Lifetime:
    """Being open: from `open` until `aclose`, once.

    The tasks live in one task group hosted by a task of its own, so that a session can be opened in
    one task and closed in another, as test fixtures and web frameworks do.

    Args:
        pool: opened first and closed last.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._state = "new"
        self._loop: asyncio.AbstractEventLoop | None = None
        self._host: asyncio.Task[None] | None = None
        self._tasks: TaskGroup | None = None
        self._stop = asyncio.Event()

    async def open(self) -> None:
        """Start the host task.

        Raises:
            ConfigurationError: it has been opened before.
        """
        if self._state != "new":
            raise ConfigurationError(
                "this Session has been opened before, or closed; make a new one each time"
            )
        self._state = "open"
        self._loop = asyncio.get_running_loop()
        await self._pool.open()
        ready = self._loop.create_future()
        self._host = self._loop.create_task(self._run(ready), name="altaprofiles")
        try:
            await ready
        except BaseException:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        """End every background task and close every connection. Safe to call more than once.

        Raises:
            ConfigurationError: it was opened in another event loop, which is still running.
        """
        if self._host is not None and not self._host.done():
            self._check_loop()
            self._state = "closed"
            self._stop.set()
            # Not awaited itself: a caller cancelled here must not leave the closing half done, and
            # a host that somebody cancelled must not cancel the caller.
            await asyncio.wait([self._host])
        self._state = "closed"
        # The host does this too, unless it was cancelled before it had begun.
        await self._pool.aclose()

    async def _run(self, ready: asyncio.Future[None]) -> None:
        try:
            async with anyio.create_task_group() as self._tasks:
                if not ready.done():
                    ready.set_result(None)
                await self._stop.wait()
                self._tasks.cancel_scope.cancel()
        finally:
            self._state = "closed"
            with anyio.CancelScope(shield=True):
                await self._pool.aclose()

    def check_open(self) -> None:
        """Raise `ConfigurationError` unless this can be used here and now."""
        if self._state == "new":
            raise ConfigurationError(
                "this Session is not open yet; use it inside `async with Session(...) as session:`"
            )
        if self._state == "closed":
            raise ConfigurationError("this Session is closed, or its event loop is; open a new one")
        self._check_loop()

    def _check_loop(self) -> None:
        if self._loop is not asyncio.get_running_loop():
            raise ConfigurationError(
                "this Session was opened in another event loop; open one Session per loop"
            )

    def spawn(
        self,
        job: Callable[[], Awaitable[None]],
        ended: Callable[[BaseException | None], None],
    ) -> Callable[[], None]:
        """Run `job` in the background and return what cancels it.

        `ended` is called exactly once, when it is over: with None after success, else with the
        exception; closing the session counts as a `ConfigurationError`.
        """
        self.check_open()
        scope = anyio.CancelScope()

        async def run() -> None:
            error: BaseException | None = ConfigurationError(
                "this Session was closed while its results were still being read"
            )
            try:
                with scope:
                    await job()
                    error = None
            except asyncio.CancelledError:
                if is_cancelled_here():
                    raise
                # Raised, it would end every other task of the session, too.
                error = AltaProfilesError(INTERRUPTED)
            except BaseException as failure:
                # Not raised here: in the task group it would end every other task.
                error = failure
            finally:
                ended(error)

        if self._tasks is None:
            raise RuntimeError("an open engine has a task group")
        self._tasks.start_soon(run)
        return scope.cancel

    async def pause(self, seconds: float) -> None:
        """Sleep, or wake up when the session is closed."""
        with anyio.move_on_after(seconds):
            await self._stop.wait()
