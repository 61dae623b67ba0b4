"""Background tasks of one session, from open to close. Sends nothing."""

from __future__ import annotations

import asyncio
import math
import os
import sys
from collections.abc import Awaitable, Callable, Collection, Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from typing import Any, Literal, Protocol, TypeAlias

import anyio
from anyio.abc import TaskGroup

from ..errors import AltaProfilesError, ConfigurationError, SessionClosed

__all__ = [
    "FORKED",
    "INTERRUPTED",
    "Lifetime",
    "Reading",
    "Spawn",
    "State",
    "Work",
    "cancel_again",
    "closed_meanwhile",
    "is_cancelled_here",
    "is_in_trio",
    "wake",
]


Spawn: TypeAlias = Callable[
    [Callable[[], Awaitable[None]], Callable[[BaseException | None], None]],
    Callable[[], Awaitable[None]],
]
"""Runs a job in the background, reports its end, and returns a function that cancels it.

The function waits for the job's end.
"""


State: TypeAlias = Literal["new", "open", "draining", "closed"]
"""The states of a session, in order."""


FORKED = (
    "this Session was opened by the process from which this one was forked; open one in each "
    "process"
)
"""The message in a process that was forked while a session was open."""


INTERRUPTED = (
    "the background tasks of this iteration were cancelled from outside, so its results are "
    "incomplete; cancel the task that reads them instead"
)
"""The message to a reader after something cancelled single background tasks behind it."""


_joined: ContextVar[frozenset[Work]] = ContextVar("joined", default=frozenset())
"""The work that this task or thread does. The tasks that it starts inherit it."""

_behind: ContextVar[Work | None] = ContextVar("behind", default=None)
"""The work of the iteration whose background task this is, or was started by."""


class Work:
    """A piece of work under way: while a session is drained, calls that are part of it begin.

    Attributes:
        is_over: whether none of it is left.
    """

    def __init__(self) -> None:
        self.is_over = False
        self._task: asyncio.Task[Any] | None = None
        self._behind: Work | None = None

    def move(self, task: asyncio.Task[Any] | None) -> None:
        """Record the task without which the work does not end: the one that runs, if any."""
        self._task = task
        self._behind = _behind.get()

    def waits_for(self, tasks: Collection[asyncio.Task[Any] | None]) -> bool:
        """Return whether the work does not end without one of some tasks."""
        if self._task is not None and self._task in tasks:
            return True
        # Behind an iteration, nothing goes on unless somebody reads it.
        return self._behind is not None and self._behind.waits_for(tasks)

    def join(self) -> Token[frozenset[Work]]:
        """Make calls of this task or thread a part of the work, until it is over.

        What a generator joins, the code that reads it joins as well.
        """
        return _joined.set(frozenset(work for work in _joined.get() if not work.is_over) | {self})


def closed_meanwhile() -> SessionClosed:
    """Return the error of a call that has waited, and that the end of the session cut off."""
    return SessionClosed("this Session was closed while the call waited; open a new one")


def is_cancelled_here() -> bool:
    """Return whether a cancel scope around this task, and nothing else, cancelled it."""
    return anyio.current_effective_deadline() == -math.inf


def cancel_again(error: asyncio.CancelledError) -> None:
    """Cancel this task as it was when it got `error`, to be raised at its next `await`."""
    if (task := asyncio.current_task()) is not None:
        # Without adding to the count, which `asyncio.timeout` checks, and with the same message, by
        # which anyio recognises its own cancellations.
        task.uncancel()
        task.cancel(*error.args)


def is_in_trio() -> bool:
    """Return whether a task of trio runs this."""
    # trio imports sniffio, and tells it when a task runs: as a guest of a loop of asyncio, too.
    sniffio: Any = sys.modules.get("sniffio")
    if sniffio is None or "trio" not in sys.modules:
        return False
    try:
        return bool(sniffio.current_async_library() == "trio")
    except RuntimeError:
        return False


def wake(waiting: asyncio.Future[None]) -> None:
    """End a wait, unless it has ended."""
    if not waiting.done():
        waiting.set_result(None)


def _running_loop() -> asyncio.AbstractEventLoop:
    """Return the event loop that runs this.

    Raises:
        ConfigurationError: there is none, or it is one of trio.
    """
    if is_in_trio():
        raise ConfigurationError(
            "trio is not supported, because aiohttp needs the event loop of asyncio; run this with "
            "asyncio.run(…), or call altaprofiles.blocking(…) in trio.to_thread.run_sync(…)"
        )
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise ConfigurationError(
            "no event loop of asyncio runs here; run this with asyncio.run(…), or use "
            "altaprofiles.blocking(…), which needs none"
        ) from None


class Pool(Protocol):
    """A resource that is opened first and closed last."""

    async def open(self) -> None: ...

    async def aclose(self) -> None: ...


class Lifetime:
    """The open state of a session: once, from `open` to `aclose`.

    One host task runs the task group of all background tasks. A session can therefore be opened in
    one task and closed in another, as test fixtures and web frameworks do.

    Args:
        pool: opened first and closed last.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._state: State = "new"
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process = os.getpid()
        self._host: asyncio.Task[None] | None = None
        self._tasks: TaskGroup | None = None
        self._stop = asyncio.Event()
        self._pauses: set[asyncio.Future[None]] = set()
        self._works: set[Work] = set()
        self._closers: set[asyncio.Task[Any] | None] = set()
        self._drained = asyncio.Event()

    async def open(self) -> None:
        """Open the pool and start the host task. A failure closes the session.

        Raises:
            SessionClosed: the session was opened before, or is closed meanwhile.
            ConfigurationError: no event loop of asyncio runs here.
        """
        loop = _running_loop()
        if self._state == "new":
            self._process = os.getpid()
        if self._loop is not None or self._state != "new":
            raise SessionClosed(
                "this Session was opened before, or closed; create a new one each time"
            )
        self._loop = loop
        try:
            await self._pool.open()
            if self._state == "new":
                self._state = "open"
            # It may have been closed meanwhile.
            self.check_open()
            ready = loop.create_future()
            self._host = loop.create_task(self._run(ready), name="altaprofiles")
            await ready
        except BaseException:
            await self.aclose()
            raise

    async def aclose(self, drain: float = 0.0) -> None:
        """Cancel every background task and close every connection. Safe to call more than once.

        Args:
            drain: the seconds that work under way may take to end before. Nothing new begins.

        Raises:
            SessionClosed: the session was opened in another event loop that is still running, or
                by the process from which this one was forked.
        """
        self._check_process()
        if self._host is not None and not self._host.done() and not self._is_left_behind:
            self._check_loop(_running_loop())
            try:
                if drain > 0 and self._state != "closed":
                    await self._drain(drain)
            finally:
                # Also after a cancellation, because nobody may be left to close it.
                self._close()
                self._stop.set()
                for over in self._pauses:
                    wake(over)
            if _behind.get() in self._works:
                # The host waits for the iteration that closes it here, as a source's end may do.
                return
            # Waited for, not awaited: a caller that is cancelled here must not leave the session
            # half closed, and a host that was cancelled must not cancel the caller.
            await asyncio.wait([self._host])
        self._state = "closed"
        # The host closes it as well, unless it was cancelled before it started.
        await self._pool.aclose()

    async def _drain(self, seconds: float) -> None:
        self._state = "draining"
        # What a closer itself reads would wait for the closer.
        self._closers.add(asyncio.current_task())
        if self._works:
            # A task that has just been given an iteration, or woken up for it, has yet to read it.
            await asyncio.sleep(0)
        if not self._is_waited_for:
            return
        with anyio.move_on_after(seconds):
            await self._drained.wait()

    @property
    def _is_waited_for(self) -> bool:
        """True while there is work that a closer waits for."""
        return not all(work.waits_for(self._closers) for work in self._works)

    def _close(self) -> None:
        self._state = "closed"
        # Another task may be draining the session.
        self._drained.set()

    async def _run(self, ready: asyncio.Future[None]) -> None:
        try:
            async with anyio.create_task_group() as self._tasks:
                wake(ready)
                await self._stop.wait()
                self._tasks.cancel_scope.cancel()
        finally:
            self._close()
            with anyio.CancelScope(shield=True):
                await self._pool.aclose()

    @property
    def state(self) -> State:
        """The state: "new", "open", "draining" or "closed"."""
        return self._state

    @property
    def is_closed(self) -> bool:
        """True once it has been closed."""
        return self._state == "closed"

    def check_open(self) -> None:
        """Raise `SessionClosed` unless the session is open in this event loop.

        Raises:
            ConfigurationError: no event loop of asyncio runs here.
        """
        self._check_process()
        loop = _running_loop()
        if self._state == "new":
            raise SessionClosed(
                "this Session is not open yet; use it inside `async with Session(...) as "
                "session:`, in a web service in its lifespan (`altaprofiles guide "
                "in-a-web-service`), or for several cells of a notebook with AsyncExitStack "
                "(`altaprofiles guide dataframes`)"
            )
        if self._state == "closed" or self._is_left_behind:
            raise SessionClosed("this Session is closed, or its event loop is; open a new one")
        self._check_loop(loop)
        if self._state == "draining" and self._works.isdisjoint(_joined.get()):
            raise SessionClosed(
                "this Session is being closed, and takes no new calls; open a new one"
            )

    @contextmanager
    def under_way(self, work: Work | None = None) -> Generator[None, None, None]:
        """Count the block as work that `aclose` may wait for. Calls within it are part of it.

        Args:
            work: the work, if code outside of the block joins it as well.

        Raises:
            SessionClosed: the session is not open, or takes nothing new.
        """
        self.check_open()
        if work is None:
            work = Work()
            work.move(asyncio.current_task())
        self._works.add(work)
        token = work.join()
        try:
            yield
        finally:
            self.end(work)
            _joined.reset(token)

    def end(self, work: Work) -> None:
        """Count a work no more."""
        work.is_over = True
        self._works.discard(work)
        if self._state == "draining" and not self._is_waited_for:
            self._drained.set()

    @property
    def is_running(self) -> bool:
        """True while it is open in this process, and its event loop runs and does not end."""
        if self._state not in ("open", "draining") or self.is_inherited or self._loop is None:
            return False
        # An event loop that ends cancels its tasks, and the host then closes all.
        is_ending = self._host is None or self._host.done() or self._host.cancelling() > 0
        return self._loop.is_running() and not is_ending

    @property
    def is_inherited(self) -> bool:
        """True in a process that was forked while the session was open."""
        return self._state in ("open", "draining") and os.getpid() != self._process

    @property
    def _is_left_behind(self) -> bool:
        """True once its event loop is closed, which leaves its tasks where they stand."""
        return self._loop is not None and self._loop.is_closed()

    def _check_process(self) -> None:
        """Raise `SessionClosed` in a process that was forked while the session was open."""
        if self.is_inherited:
            raise SessionClosed(FORKED)

    def _check_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._loop is not loop:
            raise SessionClosed(
                "this Session was opened in another event loop; open one Session per loop"
            )

    def spawn(
        self,
        job: Callable[[], Awaitable[None]],
        ended: Callable[[BaseException | None], None],
    ) -> Callable[[], Awaitable[None]]:
        """Run `job` in the background; return a function that cancels it and waits for its end.

        `ended` is called exactly once, after the job: with None after success, else with the
        exception. If the session closes before, the exception is a `SessionClosed`.
        """
        return self.begin(job, ended, Work())

    def begin(
        self,
        job: Callable[[], Awaitable[None]],
        ended: Callable[[BaseException | None], None],
        work: Work,
        *others: Work,
    ) -> Callable[[], Awaitable[None]]:
        """Do as `spawn` does, for a job that is the first of some works."""
        self.check_open()
        scope = anyio.CancelScope()
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def run() -> None:
            error: BaseException | None = SessionClosed(
                "this Session was closed while its results were still being read"
            )
            try:
                work.join()
                _behind.set(work)
                with scope:
                    await job()
                    error = None
            except asyncio.CancelledError:
                if is_cancelled_here():
                    raise
                # Raised here, it would cancel every other task of the session.
                error = AltaProfilesError(INTERRUPTED)
            except BaseException as failure:
                # Raised here, it would cancel every other task of the session.
                error = failure
            finally:
                ended(error)
                self.end(work)
                wake(over)

        async def end() -> None:
            scope.cancel()
            # The host's end counts as well: a task that was cancelled before it started runs
            # nothing. Another event loop, after the session's own, would wait for ever.
            if not over.done() and asyncio.get_running_loop() is self._loop:
                # A cancelled scope around the caller would end each `await`, and so this one.
                with anyio.CancelScope(shield=True):
                    await asyncio.wait([over, host], return_when=asyncio.FIRST_COMPLETED)

        if self._tasks is None or self._host is None:
            raise RuntimeError("an open session has a task group")
        host = self._host
        self._tasks.start_soon(run)
        # Counted at once, because the session may be drained before the task starts.
        self._works.update((work, *others))
        return end

    def reading(self) -> Reading:
        """Return a new `Reading`, for one iteration."""
        return Reading(self)

    async def pause(self, seconds: float) -> None:
        """Sleep for `seconds`, or until the session closes."""
        # Not a scope with a deadline: where the caller is cancelled in the turn in which it ends,
        # the scope's words would come out. A notebook's kernel often does, because it hears of an
        # interruption only when something wakes the loop.
        loop = asyncio.get_running_loop()
        over = loop.create_future()
        timer = loop.call_later(seconds, wake, over)
        self._pauses.add(over)
        try:
            if not self._stop.is_set():
                await over
        finally:
            timer.cancel()
            self._pauses.discard(over)


class Reading:
    """One iteration over the results of background work, by one task after another.

    The code that reads it is a part of the work until its end: the calls that it makes between two
    items begin while the session is drained, too.

    Attributes:
        failure: the name of the exception that has cut it off, or None.
    """

    def __init__(self, lifetime: Lifetime) -> None:
        self.failure: str | None = None
        self._lifetime = lifetime
        self._task: asyncio.Task[Any] | None = None
        self._behind, self._body = Work(), Work()

    @contextmanager
    def noting_failure(self) -> Iterator[None]:
        """Note the exception that the body raises, unless it is that of `aclose`.

        The name alone: the exception itself would keep the generator and its items in memory.
        """
        try:
            yield
        except GeneratorExit:
            raise
        except BaseException as error:
            self.failure = type(error).__name__
            raise

    def move(self) -> None:
        """Take the present task for the reader. To be called where the next item is asked for.

        A coroutine for the item may run in a task of its own, as in `asyncio.wait_for` on Python
        3.11, and that task is over before the code that reads goes on.
        """
        try:
            task = asyncio.current_task()
        except RuntimeError:
            # Without a loop, the generator raises the error.
            return
        if task is self._task or self._body.is_over:
            return
        self._task = task
        self._behind.move(task)
        self._body.move(task)
        self._body.join()

    def spawn(
        self,
        job: Callable[[], Awaitable[None]],
        ended: Callable[[BaseException | None], None],
    ) -> Callable[[], Awaitable[None]]:
        """Do as `Lifetime.spawn` does, once, for a generator that yields what `job` produces.

        The iteration lasts until the result is called.
        """
        if self._task is None:
            self.move()
        try:
            end_job = self._lifetime.begin(job, ended, self._behind, self._body)
        except BaseException:
            self._body.is_over = True
            raise

        async def end() -> None:
            try:
                await end_job()
            finally:
                self._lifetime.end(self._body)

        return end
