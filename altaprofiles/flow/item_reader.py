"""Reads a caller's items in a task of its own. Knows nothing of what becomes of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Generator, Iterable
from typing import Generic, TypeVar

import anyio

from .lifetime import cancel_again, wake

__all__ = ["ItemReader"]

K = TypeVar("K")


class ItemReader(Generic[K]):
    """One task that reads a source from its first item until it is closed.

    A source may hold a task group or a timeout open across its items, and those belong to the task
    that opened them. The task resumes reading once a quarter of the room is free, so that one turn
    of the loop serves many items.

    No scope of anyio is around that task. A scope cancels each `await` of what is within it, so
    that a source could not close its connection. The task is cancelled once, as a caller's is.

    Args:
        source: the items.
        offer: called with each of them, in that task.
        room: items that are offered before the first is given back.

    Attributes:
        failure: the error with which the source ended, or None.
        is_complete: whether the source has ended without one.
        closing_error: the error of a source that was closed before its end, or None.
    """

    def __init__(
        self, source: Iterable[K] | AsyncIterable[K], offer: Callable[[K], object], room: int
    ) -> None:
        self.failure: BaseException | None = None
        self.is_complete = False
        self.closing_error: BaseException | None = None
        self._source = source
        self._offer = offer
        self._room = room
        self._enough = room // 4
        self._more_room: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_ending = False

    def start(self) -> asyncio.Task[None]:
        """Start reading. The result is over once the source is closed, and raises nothing."""
        self._task = asyncio.create_task(self._read_all())
        return self._task

    def give_back(self, count: int) -> None:
        """Free the room of `count` items."""
        self._room += count
        if self._more_room is not None and self._room >= self._enough:
            wake(self._more_room)

    def cancel(self) -> None:
        """Cancel what the source awaits, even while it is being closed."""
        if self._task is not None:
            self._task.cancel()

    async def aclose(self) -> None:
        """Close the source, unless it has ended, and wait for that.

        A cancellation that arrives meanwhile is passed on to the source: it ends one that hangs.
        """
        self._is_ending = True
        self.cancel()
        cancelled: asyncio.CancelledError | None = None
        with anyio.CancelScope(shield=True):
            while self._task is not None and not self._task.done():
                try:
                    await asyncio.wait([self._task])
                except asyncio.CancelledError as error:
                    cancelled = error
                    self.cancel()
        if cancelled is not None:
            raise cancelled

    async def _read_all(self) -> None:
        try:
            await self._read()
        except asyncio.CancelledError:
            if not self._is_ending:
                raise
        except BaseException as error:
            # Raised here, an exit or Ctrl-C would leave the event loop.
            if self._is_ending:
                self.closing_error = error
            else:
                self.failure = error
        else:
            self.is_complete = True

    async def _read(self) -> None:
        # Held by this call alone, so that what wraps a generator, as `map` does, frees it here.
        source, self._source = self._source, ()
        if not isinstance(source, AsyncIterable):
            plain = iter(source)
            try:
                for item in plain:
                    self._take(item)
                    if self._room == 0:
                        await self._wait_for_room()
            finally:
                # Whoever has it under a name would go on behind what was read ahead.
                if isinstance(plain, Generator):
                    plain.close()
            return
        items = aiter(source)
        try:
            while not self._is_ending:
                self._take(await anext(items))
                while self._room <= 0 and not self._is_ending:
                    try:
                        await self._wait_for_room()
                    except asyncio.CancelledError as error:
                        if self._is_ending or not isinstance(items, AsyncGenerator):
                            raise
                        # A timeout or task group that the source holds open may have cancelled this
                        # task. Only the source can tell what comes of it.
                        self._take(await self._throw(error, items))
        except StopAsyncIteration:
            return
        finally:
            if isinstance(items, AsyncGenerator):
                await items.aclose()

    async def _throw(self, error: asyncio.CancelledError, items: AsyncGenerator[K, None]) -> K:
        """Return the next item of a source that is cancelled."""
        # Raised where the source waits next, which may be in a generator within it. Thrown in at
        # its own `yield`, the error would not get there.
        cancel_again(error)
        item = await anext(items)
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError as still:
            # The source has waited for nothing.
            self._take(item)
            return await items.athrow(still)
        return item

    def _take(self, item: K) -> None:
        self._room -= 1
        self._offer(item)

    async def _wait_for_room(self) -> None:
        self._more_room = asyncio.get_running_loop().create_future()
        try:
            await self._more_room
        finally:
            self._more_room = None
