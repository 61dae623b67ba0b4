"""A session for code without an event loop: its own loop runs in a thread beside the caller.

Calls are handed to that loop, and results come back in batches, because a change of threads costs
more than a person does. An iterable of the caller is read in the thread of the caller: it may be
bound to it, or call the session itself.
"""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Awaitable,
    Callable,
    Coroutine,
    Generator,
    Iterable,
    Iterator,
)
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial, update_wrapper
from types import TracebackType
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    Never,
    ParamSpec,
    TypeVar,
    cast,
    overload,
)

from .base.calls import CallName, name_of, named, naming
from .base.checks import check_seconds
from .cdp import Cdp
from .errors import ConfigurationError, InvalidArgument, SessionClosed
from .flow.fanout import check_items
from .flow.handover import Ended, Handover
from .flow.lifetime import Work, is_in_trio
from .flow.loop_thread import LoopThread, loop_thread
from .flow.results import PlainResults
from .models import CdpUser, Customer, Key, Lookup, Page, Profile, Stats
from .profiles import EventProfiles, Profiles
from .session import Session
from .sources.chains import PAGES
from .sources.joined import check_people
from .sources.lookups import CDP, PROFILES
from .wire.alta import CdpBy
from .wire.clevertap import By

__all__ = [
    "BlockingCdp",
    "BlockingEventProfiles",
    "BlockingProfiles",
    "BlockingSession",
    "blocking",
]

P = ParamSpec("P")
T = TypeVar("T")
K = TypeVar("K")
R = TypeVar("R")
S = TypeVar("S")

_BATCH = 1000
"""Most results that are handed over together."""

_KEYS = 64
"""Most keys that are read together."""

_READ_FOR = 0.005
"""Seconds after which keys that have been read are passed on, however few they are."""


def blocking(
    make_session: Callable[[], Session], *, drain: float = 0.0
) -> AbstractContextManager[BlockingSession]:
    """Open a session for code without an event loop: scripts, threads, tasks of a scheduler.

    The session runs in a thread of its own until the block ends. Any number of threads may use it,
    save those in which an event loop runs, which a call would block: it raises `ConfigurationError`
    there. An iterator belongs to one thread at a time, as any generator does. Each block, also of
    one `blocking(…)` that is entered again, has a session of its own. A call that is interrupted,
    by Ctrl-C for one, is cancelled as a task would be, and has ended when the exception leaves it,
    so that an export can be resumed. An interruption while the session opens closes it. A session
    whose block has not ended when the process exits is closed then. Let no function of `atexit` use
    one: it may be closed, and new connections and exports fail there.

    Args:
        make_session: returns a new session, such as `Session.from_env`, or
            `lambda: Session(clevertap=CleverTap(…), retry=Retry(deadline=60))`. It is called in
            the thread of the caller.
        drain: seconds that calls and iterations of other threads may take to end after the block,
            as for `Session.aclose`; 0 to cut them off.

    Raises:
        ConfigurationError: an event loop runs in this thread, as in a notebook, where `async with`
            works. Or `make_session` does not return a new session, or `drain` is not a number of
            seconds. All are raised by `with`.

    >>> with altaprofiles.blocking(Session.from_env) as session:
    ...     person = session.profiles.get(identity="5555555555")
    ...     for page in session.profiles.by_event("Charged", start=20260101, end=20260131).pages():
    ...         print(len(page.profiles))
    """
    return _Opening(make_session, drain)


class _NotAsync:
    """Refuses `async with` with the line to write instead, as a `TypeError`."""

    # Type checkers refuse it by themselves.
    if not TYPE_CHECKING:

        def __aenter__(self) -> Never:
            raise TypeError(
                "a blocking session is not opened with `async with`; in an async function, write "
                "`async with Session.from_env() as session:`"
            )

        def __aexit__(self, *_: object) -> None:
            # Without it, `async with` does not call `__aenter__`.
            raise NotImplementedError


class _Opening(_NotAsync, AbstractContextManager["BlockingSession"]):
    """The result of `blocking`."""

    def __init__(self, make_session: Callable[[], Session], drain: float) -> None:
        self._make_session = make_session
        self._drain = drain
        self._open: AbstractContextManager[BlockingSession] | None = None
        self._ending: weakref.finalize[..., Any] | None = None

    def __enter__(self) -> BlockingSession:
        if self._open is not None:
            raise SessionClosed(
                "this blocking(…) is entered, and its block has not ended; call blocking(…) again "
                "for another session"
            )
        self._open = _open(self._make_session, self._drain)
        try:
            with naming(None):
                session = self._open.__enter__()
        except BaseException:
            self._open = None
            raise
        # Without this, a generator that is still open would be closed once threads stand still at
        # the end of the process, and wait for that of the loop.
        self._ending = weakref.finalize(self, self._open.__exit__, None, None, None)
        return session

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        opened, self._open = self._open, None
        if opened is None:
            return None
        if self._ending is not None:
            self._ending.detach()
        return opened.__exit__(kind, error, traceback)

    # Type checkers refuse it by themselves.
    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Never:
            raise AttributeError(
                f"blocking(…) has no {name!r} before it is opened; write `with blocking(…) as "
                f"session:`"
            )

    def __repr__(self) -> str:
        name = getattr(self._make_session, "__qualname__", type(self._make_session).__name__)
        return f"<blocking({name})>"


@contextmanager
def _open(
    make_session: Callable[[], Session], drain: float
) -> Generator[BlockingSession, None, None]:
    if isinstance(make_session, Session) or not callable(make_session):
        raise _wrong(f"got a {type(make_session).__name__}")
    drain = check_seconds("drain", drain, zero=True)
    _check_no_loop()
    # In this thread, so that Ctrl-C ends it, whatever it waits for.
    session = make_session()
    if not isinstance(session, Session):
        raise _wrong(f"it returned a {type(session).__name__}")
    with loop_thread() as thread:
        loop = _Loop(session, thread)
        try:
            thread.call(session.__aenter__)
            yield BlockingSession(session, loop)
        finally:
            loop.close(drain)


def _check_no_loop(own: asyncio.AbstractEventLoop | None = None) -> None:
    """Raise `ConfigurationError` if an event loop other than `own` runs in this thread."""
    if is_in_trio():
        raise ConfigurationError(
            "trio runs in this thread, and would stand still; call this in a function for "
            "trio.to_thread.run_sync(…)"
        )
    try:
        running = asyncio.get_running_loop()
    except RuntimeError:
        return
    if running is not own:
        raise ConfigurationError(
            "an event loop runs in this thread, as in a notebook; use `async with Session(…) as "
            "session:` and `await`, in a notebook at the top level of a cell"
        )


def _wrong(what: str) -> ConfigurationError:
    return InvalidArgument(
        f"make_session: expected a function that returns a Session, {what}; pass "
        f"Session.from_env, or lambda: Session(…)"
    )


# -------------------------------------------------------------------------------- beside the caller


class _Loop:
    """The event loop beside the caller."""

    def __init__(self, session: Session, thread: LoopThread) -> None:
        self._session = session
        self._thread = thread
        self._readings: dict[_Reading[Any, Any], int] = {}

    def call(self, function: Callable[[], Awaitable[T]]) -> T:
        """Return the result of `function`, awaited in the loop."""
        if self._thread.is_ended:
            raise SessionClosed("this Session is closed; open a new one")
        # The call would block that loop. Calls of the own one are refused as they start.
        _check_no_loop(self._thread.loop)
        return self._thread.call(function)

    def close(self, drain: float) -> None:
        """Close the session. Calls that are still running then end with the thread.

        Until then the session itself refuses new calls.
        """
        # The loop may be the parent's, or the garbage collector run this in the loop.
        if self._thread.is_inherited or self._thread.is_current:
            return
        here = threading.get_ident()
        for reading, reader in [*self._readings.items()]:
            # Nobody reads on what this thread reads.
            if reader == here:
                self._thread.call(reading.end)
        self._thread.call(partial(self._session.aclose, drain))

    def each(
        self,
        name: CallName,
        results: Callable[[AsyncIterable[K]], AsyncGenerator[T, None]],
        items: Iterable[K] = (),
        *,
        most: int = _BATCH,
    ) -> Generator[T, None, None]:
        """Return an iterator over what `results` yields in the loop.

        Args:
            name: the call, for errors.
            results: takes the items as they are read. What it raises at once is raised here.
            items: read in this thread while results are waited for.
            most: results that may wait to be taken.
        """
        under_way = self._session._engine.under_way  # noqa: SLF001
        reading = self.call(partial(_Reading.of, results, most, under_way))
        return self._each(name, reading, items)

    def _each(
        self, name: CallName, reading: _Reading[K, T], items: Iterable[K]
    ) -> Generator[T, None, None]:
        source = iter(items)
        close = source.close if isinstance(source, Generator) else None
        with naming(name):
            reading.work.join()
            try:
                while True:
                    self._readings[reading] = threading.get_ident()
                    if (batch := self.call(reading.next_batch)) is None:
                        break
                    for result in batch:
                        if result is _MORE:
                            self.call(partial(reading.give, *_read(source)))
                        else:
                            yield cast(T, result)
            finally:
                # Wherever the garbage collector runs: as the process ends, when modules may have
                # no names any more, beside another event loop, or in this one.
                if self._thread.is_ended:
                    pass
                elif self._thread.is_current:
                    reading.cancel()
                else:
                    with suppress(SessionClosed):
                        self._thread.call(reading.end)
                # Not after an interruption, so that the session ends it as it closes.
                self._readings.pop(reading, None)
                # Whoever has it under a name would go on behind what was read ahead. In the loop it
                # may be of another thread.
                if close is not None and not self._thread.is_current:
                    close()


def _read(source: Iterator[K]) -> tuple[list[K], Exception | None]:
    """Return the next items, and the error that ends them: `Ended` after the last one."""
    items: list[K] = []
    until = time.monotonic() + _READ_FOR
    try:
        for item in source:
            items.append(item)
            if len(items) == _KEYS or time.monotonic() > until:
                return items, None
    except Exception as error:
        return items, error
    return items, Ended()


# -------------------------------------------------------------------------------------- in the loop

_MORE = object()
"""Stands among the results where more items are needed."""

_tasks: set[asyncio.Task[None]] = set()
"""The tasks of iterations that run."""


class _Reading(Generic[K, T]):
    """One iteration. It goes on only while the caller waits, so that no result is held for long.

    Attributes:
        work: the iteration as work under way, which its reader joins.
    """

    def __init__(
        self,
        results: Callable[[AsyncIterable[K]], AsyncGenerator[T, None]],
        most: int,
        under_way: Callable[[Work], AbstractContextManager[None]],
    ) -> None:
        self.work = Work()
        self._results = results(self._items())
        self._most = most
        self._under_way = under_way
        self._handover: Handover[T | object] = Handover()
        self._wanted = asyncio.Event()
        self._given: asyncio.Future[tuple[list[K], Exception | None]] | None = None
        self._task: asyncio.Task[None] | None = None

    @classmethod
    async def of(
        cls,
        results: Callable[[AsyncIterable[K]], AsyncGenerator[T, None]],
        most: int,
        under_way: Callable[[Work], AbstractContextManager[None]],
    ) -> _Reading[K, T]:
        """Return a new iteration, which begins with the first batch."""
        return cls(results, most, under_way)

    async def next_batch(self) -> list[T | object] | None:
        """Return the next results, at least one; None after the last one."""
        self._wanted.set()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())
            # Nothing else may hold it: the reader and all of this can be garbage together.
            _tasks.add(self._task)
            self._task.add_done_callback(_tasks.discard)
        try:
            return [*await self._handover.get_all()]
        except Ended:
            return None
        finally:
            self._wanted.clear()

    async def give(self, items: list[K], error: Exception | None) -> None:
        """Pass on items that were read, and the error that ended them."""
        if self._given is not None and not self._given.done():
            self._given.set_result((items, error))

    def cancel(self) -> None:
        """Cancel what is still running, without a wait for its end."""
        if self._task is not None:
            self._task.cancel()

    async def end(self) -> None:
        """Cancel what is still running."""
        self.cancel()
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _items(self) -> AsyncGenerator[K, None]:
        error: Exception | None = None
        while error is None:
            self._given = asyncio.get_running_loop().create_future()
            self._handover.put(_MORE)
            items, error = await self._given
            for item in items:
                yield item
        if not isinstance(error, Ended):
            raise error

    async def _run(self) -> None:
        try:
            with self._under_way(self.work):
                await self._pass_results()
                # Until `end`, because the reader takes the last results out of this loop.
                await asyncio.get_running_loop().create_future()
        except SessionClosed as error:
            self._handover.close(error)

    async def _pass_results(self) -> None:
        ahead = 0
        try:
            try:
                async for result in self._results:
                    self._handover.put(result)
                    ahead += 1
                    if ahead % self._most == 0:
                        self._wanted.clear()
                    await self._wanted.wait()
            finally:
                await self._results.aclose()
        except BaseException as error:
            self._handover.close(error)
            if not isinstance(error, Exception):
                raise
        else:
            self._handover.close(None)


# --------------------------------------------------------------------------------- typed as Session


def _checked(name: str, items: Iterable[K]) -> Iterable[K]:
    """Return `items` if they can be read in the thread of the caller."""
    check_items(name, items)
    if not isinstance(items, Iterable):
        raise InvalidArgument(
            f"{name}: expected an iterable, got the async iterable {type(items).__name__}; a "
            f"blocking session reads with `for`",
            value=items,
        )
    return items


class _Call(Generic[P, T]):
    """A method of the session that returns when its result is there."""

    def __init__(self, method: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]) -> None:
        self._method = method
        self.__doc__ = method.__doc__

    @overload
    def __get__(self, instance: None, owner: type) -> _Call[P, T]: ...

    @overload
    def __get__(self, instance: _Face[Any], owner: type) -> Callable[P, T]: ...

    def __get__(self, instance: _Face[Any] | None, owner: type) -> _Call[P, T] | Callable[P, T]:
        if instance is None:
            return self
        method: Callable[P, Coroutine[Any, Any, T]] = self._method.__get__(instance._inner)  # noqa: SLF001

        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            # The loop's own errors come before the method is called.
            with naming(name_of(self._method, instance, *args, **kwargs)):
                return instance._loop.call(partial(method, *args, **kwargs))  # noqa: SLF001

        return update_wrapper(call, method)


class _Faced(Generic[P, S, R]):
    """A method of the session whose result has a synchronous face of its own.

    Args:
        method: the method.
        face: makes the face of a result, which belongs to the loop.
    """

    def __init__(
        self, method: Callable[Concatenate[Any, P], S], face: Callable[[S, _Loop], R]
    ) -> None:
        self._method = method
        self._face = face
        self.__doc__ = method.__doc__

    @overload
    def __get__(self, instance: None, owner: type) -> _Faced[P, S, R]: ...

    @overload
    def __get__(self, instance: _Face[Any], owner: type) -> Callable[P, R]: ...

    def __get__(self, instance: _Face[Any] | None, owner: type) -> _Faced[P, S, R] | Callable[P, R]:
        if instance is None:
            return self
        method = self._method.__get__(instance._inner)  # noqa: SLF001

        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                return self._face(method(*args, **kwargs), instance._loop)  # noqa: SLF001
            finally:
                # A traceback with locals would show the password of a proxy that is refused here.
                kwargs.clear()

        return update_wrapper(call, method)


class _Face(Generic[T]):
    """The synchronous face of an object.

    Args:
        inner: the object, which belongs to the loop.
        loop: the loop.
    """

    def __init__(self, inner: T, loop: _Loop) -> None:
        self._inner = inner
        self._loop = loop

    def __reduce__(self) -> Never:
        raise TypeError(
            "a blocking session is neither pickled nor copied, because it holds credentials and "
            "connections; open one where it is used, with altaprofiles.blocking(Session.from_env)"
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._inner!r})"


class BlockingEventProfiles(_Face[EventProfiles]):
    """The people of one query, for `for`: see `EventProfiles`."""

    @named(PAGES)
    def __iter__(self) -> Generator[Profile, None, None]:
        """Yield each person, as `EventProfiles` does with `async for`."""
        people = self._inner
        results = self._loop.each(PAGES, lambda _: people.__aiter__())
        return PlainResults(people._name, results)  # noqa: SLF001

    @named(PAGES)
    def pages(self, *, decode: bool = True) -> Generator[Page, None, None]:
        """Yield each page, as `EventProfiles.pages` does.

        The results can be read once: after their end, call it again.
        """
        pages = self._loop.each(PAGES, lambda _: self._inner.pages(decode=decode), most=1)
        return PlainResults("pages", pages)


class BlockingProfiles(_Face[Profiles]):
    """The `profiles` of a blocking session, with the methods of `Session.profiles`."""

    get = _Call(Profiles.get)
    count = _Call(Profiles.count)
    by_event = _Faced(Profiles.by_event, BlockingEventProfiles)
    everyone = _Faced(Profiles.everyone, BlockingEventProfiles)
    by_query = _Faced(Profiles.by_query, BlockingEventProfiles)

    @named(PROFILES.name)
    def get_many(
        self,
        keys: Iterable[Key],
        *,
        by: By,
        concurrency: int | None = None,
        ordered: bool = False,
    ) -> Generator[Lookup[Profile], None, None]:
        """Yield one `Lookup` for each of `keys`, as `Session.profiles.get_many` does.

        The results can be read once: after their end, call it again.
        """
        look_up = partial(self._inner.get_many, by=by, concurrency=concurrency, ordered=ordered)
        return PlainResults(
            "get_many", self._loop.each(PROFILES.name, look_up, _checked("keys", keys))
        )


class BlockingCdp(_Face[Cdp]):
    """The `cdp` of a blocking session, with the methods of `Session.cdp`."""

    get = _Call(Cdp.get)

    @named(CDP.name)
    def get_many(
        self,
        keys: Iterable[Key],
        *,
        by: CdpBy,
        concurrency: int | None = None,
        ordered: bool = False,
    ) -> Generator[Lookup[dict[str, CdpUser]], None, None]:
        """Yield one `Lookup` for each of `keys`, as `Session.cdp.get_many` does.

        The results can be read once: after their end, call it again.
        """
        look_up = partial(self._inner.get_many, by=by, concurrency=concurrency, ordered=ordered)
        return PlainResults("get_many", self._loop.each(CDP.name, look_up, _checked("keys", keys)))


class BlockingSession(_NotAsync, _Face[Session]):
    """A session that `blocking` has opened, with the methods of `Session`, none of them awaited."""

    export = _Call(Session.export)
    export_lookups = _Call(Session.export_lookups)
    who_is = _Call(Session.who_is)
    finish_unfinished = _Call(Session.finish_unfinished)
    sync = _Call(Session.sync)
    with_options = _Faced(Session.with_options, lambda view, loop: BlockingSession(view, loop))

    @property
    def profiles(self) -> BlockingProfiles:
        """Customer profiles from CleverTap."""
        return BlockingProfiles(self._inner.profiles, self._loop)

    @property
    def cdp(self) -> BlockingCdp:
        """CDP users from Alta."""
        return BlockingCdp(self._inner.cdp, self._loop)

    @named(CDP.name)
    def with_cdp(
        self,
        profiles: Iterable[Profile],
        *,
        concurrency: int | None = None,
        ordered: bool = False,
    ) -> Generator[Customer, None, None]:
        """Yield each of `profiles` with its CDP users, as `Session.with_cdp` does.

        The results can be read once: after their end, call it again.
        """
        check_people(profiles)
        join = partial(self._inner.with_cdp, concurrency=concurrency, ordered=ordered)
        if isinstance(profiles, BlockingEventProfiles):
            # They are in the loop already.
            people = profiles._inner  # noqa: SLF001
            return PlainResults("with_cdp", self._loop.each(CDP.name, lambda _: join(people)))
        return PlainResults(
            "with_cdp", self._loop.each(CDP.name, join, _checked("profiles", profiles))
        )

    @property
    def stats(self) -> Stats:
        """The statistics of the session so far."""
        return self._inner.stats
