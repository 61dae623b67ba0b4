"""Lookups in parallel: bounded workers over any iterable, also an endless one.

Knows no API: what to do with one item is passed in.
"""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
)
from typing import Generic, TypeAlias, TypeVar

import anyio

from .checks import check_whole
from .errors import AltaProfilesError, ConfigurationError, Forbidden, Unauthorized
from .handover import Handover, Spawn
from .limits import Cap

__all__ = ["Source", "check_source", "dooms_all", "fan_out", "worker_count"]

K = TypeVar("K")
R = TypeVar("R")

Source: TypeAlias = Iterable[K] | AsyncIterable[K]

_AHEAD = 4
"""Items taken from the source per worker, results not yet read included."""


def worker_count(concurrency: int | None, cap: Cap) -> int:
    """Return `concurrency`, or twice the cap: while one worker waits to try again, another sends.

    Raises:
        ConfigurationError: it is no whole number of at least 1.
    """
    if concurrency is None:
        return 2 * cap.limit
    return check_whole("concurrency", concurrency, least=1)


def check_source(name: str, source: object) -> None:
    """Raise `ConfigurationError` unless `source` is an iterable of whole items."""
    if isinstance(source, str | bytes) or not isinstance(source, Iterable | AsyncIterable):
        raise ConfigurationError(
            f"{name}: expected an iterable or async iterable, got {source!r}; "
            f"put a single item in a list"
        )


def dooms_all(error: AltaProfilesError) -> bool:
    """Whether what failed one item will fail every other: credentials, or a closed session.

    A 403 without a code of the API's own is a firewall that dislikes one key.
    """
    if isinstance(error, Forbidden):
        return error.code is not None
    return isinstance(error, Unauthorized | ConfigurationError)


async def fan_out(
    call: Callable[[K], Awaitable[R]],
    source: Source[K],
    *,
    concurrency: int,
    ordered: bool,
    spawn: Spawn,
) -> AsyncGenerator[R, None]:
    """Yield `call(item)` for each item of `source`, `concurrency` of them at work at once.

    Results come as they complete, or in input order. Items are taken from the source as results are
    read: at most four per worker are under way or unread, so that an endless source is no problem.

    Raises:
        Exception: what `call` or `source` raised. A failing source ends the intake only: what was
            taken before is finished and yielded first.
    """
    handover: Handover[tuple[int, R]] = Handover()
    allowance = asyncio.Semaphore(concurrency * _AHEAD)
    items = _Intake(source)

    async def work(group: anyio.abc.TaskGroup) -> None:
        try:
            while True:
                await allowance.acquire()
                try:
                    number, item = await items.take()
                except StopAsyncIteration:
                    return
                handover.put((number, await call(item)))
        except Exception as error:
            # Not raised: it would leave the group wrapped in an ExceptionGroup.
            handover.close(error)
            group.cancel_scope.cancel()

    async def work_all() -> None:
        try:
            async with anyio.create_task_group() as group:
                for _ in range(concurrency):
                    group.start_soon(work, group)
        finally:
            await items.aclose()
        if items.error is not None:
            raise items.error

    early: dict[int, R] = {}
    due = 0
    cancel = spawn(work_all, handover.close)
    try:
        while True:
            try:
                number, result = await handover.get()
            except StopAsyncIteration:
                return
            if not ordered:
                allowance.release()
                yield result
                continue
            early[number] = result
            while due in early:
                result = early.pop(due)
                due += 1
                allowance.release()
                yield result
    finally:
        cancel()


class _Intake(Generic[K]):
    """Numbers the items of a source and shares them out, one worker at a time."""

    def __init__(self, source: Source[K]) -> None:
        self._source = source
        self._iterator: AsyncIterator[K] = (
            aiter(source) if isinstance(source, AsyncIterable) else _as_async(source)
        )
        self._turn = asyncio.Lock()
        self._taken = 0
        self._over = False
        self.error: Exception | None = None

    async def take(self) -> tuple[int, K]:
        """Return the next item and its number, from 0."""
        async with self._turn:
            if self._over:
                raise StopAsyncIteration
            try:
                item = await anext(self._iterator)
            except StopAsyncIteration:
                self._over = True
                raise
            except Exception as error:
                self._over, self.error = True, error
                raise StopAsyncIteration from None
            number = self._taken
            self._taken += 1
            return number, item

    async def aclose(self) -> None:
        """Close the iterator if it was made here; one that was passed in belongs to the caller."""
        if self._iterator is not self._source and isinstance(self._iterator, AsyncGenerator):
            with anyio.CancelScope(shield=True):
                await self._iterator.aclose()


async def _as_async(source: Iterable[K]) -> AsyncIterator[K]:
    for item in source:
        yield item
