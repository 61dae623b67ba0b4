"""Bounded workers over any iterable, even an endless one.

Knows no API: the call to make for each item is passed in.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Awaitable,
    Callable,
    Iterable,
    Mapping,
)
from typing import Generic, TypeAlias, TypeVar

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from ..base.calls import CallName, naming
from ..errors import AltaProfilesError, InvalidArgument
from .handover import Ended, Handover
from .item_reader import ItemReader
from .lifetime import INTERRUPTED, Spawn, wake
from .slices import ITEMS
from .window import Window

__all__ = ["Items", "check_items", "fan_out", "is_table"]

K = TypeVar("K")
R = TypeVar("R")

Items: TypeAlias = Iterable[K] | AsyncIterable[K]
"""Anything to be read with `for` or `async for`."""

_AHEAD = 4
"""Items per worker that are in progress, or whose results are unread."""


def check_items(name: str, items: object, *, of_table: str = "") -> None:
    """Raise `ConfigurationError` unless `items` is an iterable of items.

    A single text is not one, nor a table or a mapping, whose iteration yields names at best. A dict
    without values is one: `dict.fromkeys(items)` has each item once, in order.

    Args:
        name: the argument's name.
        items: the argument's value.
        of_table: what to pass in the place of a table; by default one of its columns.
    """
    kind = type(items).__name__
    if is_table(items):
        raise InvalidArgument(
            f"{name}: got a {kind}, which is a table; pass "
            + (of_table or f"one column, such as {name}['ID'], with the column's name"),
            value=items,
        )
    if hasattr(type(items), "to_pylist"):
        raise InvalidArgument(
            f"{name}: got a {kind} of Arrow, whose items are Arrow's; pass its .to_pylist()",
            value=items,
        )
    if isinstance(items, Mapping) and not _has_keys_only(items):
        raise InvalidArgument(
            f"{name}: got a {kind}, whose iteration yields its keys; pass its .keys() or .values()",
            value=items,
        )
    if isinstance(items, str | bytes) or not isinstance(items, Iterable | AsyncIterable):
        raise InvalidArgument(
            f"{name}: expected an iterable or async iterable, got a value of type {kind}; put a "
            f"single item in a list",
            value=items,
        )
    if _refuses_to_be_read(items):
        raise InvalidArgument(
            f"{name}: expected an iterable or async iterable, got a value of type {kind} that "
            f"refuses to be one; pass its values in a list",
            value=items,
        )


def is_table(items: object) -> bool:
    """Return whether `items` is a table, as of pandas, polars, Arrow, DuckDB and Spark."""
    if isinstance(items, tuple | list):
        return False
    kind = type(items)
    # An iterable of another kind may have columns as well, or a method of that name.
    has_types = any(hasattr(kind, name) for name in ("shape", "schema", "dtypes"))
    return has_types and not callable(getattr(kind, "columns", len))


def _refuses_to_be_read(items: object) -> bool:
    """Return whether `items` only looks like an iterable, as arrays of no dimensions do.

    So do expressions of columns, as of DuckDB and Spark. All of them can be indexed. Other
    iterables are not tried: to begin one may have an effect.
    """
    if not isinstance(items, Iterable) or not hasattr(type(items), "__getitem__"):
        return False
    try:
        iter(items)
    except TypeError:
        return True
    return False


def _has_keys_only(items: Mapping[object, object]) -> bool:
    return isinstance(items, dict) and not any(value is not None for value in items.values())


async def fan_out(
    call: Callable[[K], Awaitable[R]],
    source: Items[K],
    *,
    concurrency: int,
    ordered: bool,
    spawn: Spawn,
    pausing: Callable[[], int] = int,
    size: Callable[[R], int] = lambda result: 0,
    name: CallName | None = None,
) -> AsyncGenerator[R, None]:
    """Yield `call(item)` for each item of `source`, with `concurrency` calls in progress.

    Results are yielded as they complete, or in input order if `ordered`. Items are taken from the
    source as results are read: at most four per worker are in progress or unread, so the source may
    be endless. If `ordered`, those that wait in a `Window` for an earlier result do not count until
    it is full, so that one retry does not hold up the others.

    `pausing` returns the number of calls that only wait for a retry. The same number of further
    calls starts beside them, up to `concurrency` more. These workers do not exist from the start,
    because a worker without a slot waits for one before each call, and that costs a tenth of it.
    `size` returns the bytes that a result takes in memory, for the bound of the window. Errors that
    name no call get `name`.

    Raises:
        Exception: the error that `call` or `source` raised. After an error of `source`, the items
            taken before it are finished and yielded first.
    """
    handover: Handover[tuple[int, R]] = Handover()
    work = _Work(call, source, concurrency, pausing, handover)
    window = Window(size) if ordered else None
    with naming(name):
        end = spawn(work.run, handover.close)
        is_left = False
        try:
            while True:
                try:
                    batch = await handover.get_all()
                except Ended:
                    return
                while batch:
                    number, result = batch.popleft()
                    if window is None:
                        work.reader.give_back(1)
                        yield result
                        continue
                    window.put(number, result)
                    work.reader.give_back(window.allowance())
                    yielded = 0
                    while window.is_due:
                        result = window.take()
                        work.reader.give_back(window.allowance())
                        yield result
                        yielded += 1
                        if yielded % ITEMS == 0:
                            # A window holds thousands, and the caller may never await.
                            await asyncio.sleep(0)
        except GeneratorExit:
            is_left = True
            raise
        finally:
            try:
                await end()
            except asyncio.CancelledError:
                # A second cancellation of the task that reads: it ends a source that hangs as it
                # is closed.
                work.reader.cancel()
                raise
            if is_left and work.reader.closing_error is not None:
                raise work.reader.closing_error


class _Work(Generic[K, R]):
    """The background of one fan-out: the task that reads the source, and the workers.

    The workers have not run dry when the reader resumes.
    """

    _group: TaskGroup

    def __init__(
        self,
        call: Callable[[K], Awaitable[R]],
        source: Items[K],
        concurrency: int,
        pausing: Callable[[], int],
        handover: Handover[tuple[int, R]],
    ) -> None:
        self.reader = ItemReader(source, self._offer, concurrency * _AHEAD)
        self._call = call
        self._concurrency = concurrency
        self._pausing = pausing
        self._handover = handover
        self._ready: deque[tuple[int, K]] = deque()
        self._idle: deque[asyncio.Future[None]] = deque()
        self._workers = 0
        self._exhausted = False
        self._taken = 0
        self._done = 0

    async def run(self) -> None:
        """Process every item; return once each has its result."""
        reader = self.reader
        # Here, because without an event loop the error is that of `spawn`.
        async with anyio.create_task_group() as self._group:
            try:
                await asyncio.wait([reader.start()])
            finally:
                await reader.aclose()
            self._exhausted = True
            while self._idle:
                wake(self._idle.popleft())
            # Items that were taken before an error are finished first. But an exit or Ctrl-C waits
            # for no retry.
            if reader.failure is not None and not isinstance(reader.failure, Exception):
                self._group.cancel_scope.cancel()
        if reader.failure is not None:
            raise reader.failure
        if not reader.is_complete or self._done < self._taken:
            # The session may have been closed as the source ended, whose blocking calls defer it.
            await anyio.lowlevel.checkpoint_if_cancelled()
            # The group treats a child that was cancelled from elsewhere as finished.
            raise AltaProfilesError(INTERRUPTED)

    def _offer(self, item: K) -> None:
        self._ready.append((self._taken, item))
        self._taken += 1
        if self._idle:
            wake(self._idle.popleft())
        elif self._workers < self._wanted():
            self._start_worker()

    def _wanted(self) -> int:
        return self._concurrency + min(self._pausing(), self._concurrency)

    def _start_worker(self) -> None:
        self._workers += 1
        self._group.start_soon(self._serve)

    async def _serve(self) -> None:
        with self._handover.ended_by_failure(self._group):
            while True:
                while not self._ready:
                    if self._exhausted:
                        return
                    turn = asyncio.get_running_loop().create_future()
                    self._idle.append(turn)
                    await turn
                number, item = self._ready.popleft()
                self._handover.put((number, await self._call(item)))
                self._done += 1
                wanted = self._wanted()
                if self._workers > wanted:
                    self._workers -= 1
                    return
                if self._workers < wanted and len(self._ready) > 1:
                    self._start_worker()
