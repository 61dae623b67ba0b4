"""Results on their way from background tasks to one reader. Bounds nothing by itself."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from anyio.abc import TaskGroup

from ..errors import AltaProfilesError
from .lifetime import INTERRUPTED, is_cancelled_here

__all__ = [
    "Ended",
    "Handover",
]

T = TypeVar("T")


class Ended(Exception):
    """The reader has had everything.

    A type of its own: callers' code can raise `StopAsyncIteration`, which is no end of ours.
    """


class Handover(Generic[T]):
    """An unbounded queue with an end; those who fill it bound themselves by an allowance.

    Putting and closing never wait, so they can be done while a task is being cancelled.
    """

    def __init__(self) -> None:
        self._items: deque[T] = deque()
        self._closed = False
        self._error: BaseException | None = None
        self._changed: asyncio.Future[None] | None = None

    def put(self, item: T) -> None:
        """Hand one item over."""
        self._items.append(item)
        self._wake()

    def close(self, error: BaseException | None) -> None:
        """End it, with what the reader gets after the last item. The first call counts."""
        if not self._closed:
            self._closed = True
            self._error = error
            self._wake()

    @contextmanager
    def ended_by_failure(self, group: TaskGroup) -> Iterator[None]:
        """Let what is raised inside end this and every task of `group`.

        It is not raised on: it would leave the group wrapped in an ExceptionGroup.
        """
        try:
            yield
        except asyncio.CancelledError:
            if not is_cancelled_here():
                # The group would not mind, and others may wait for this task.
                self.close(AltaProfilesError(INTERRUPTED))
                group.cancel_scope.cancel()
            raise
        except BaseException as error:
            self.close(error)
            group.cancel_scope.cancel()

    async def get(self) -> T:
        """Return the next item.

        Raises:
            Ended: it has been closed without an error, and all is read.
            BaseException: the error it was closed with, after the last item.
        """
        await self._filled()
        return self._items.popleft()

    async def get_all(self) -> deque[T]:
        """Return every item there is, at least one. Raises as `get` does."""
        await self._filled()
        items, self._items = self._items, deque()
        return items

    async def _filled(self) -> None:
        while not self._items:
            if self._closed:
                if self._error is None:
                    raise Ended
                raise self._error
            self._changed = asyncio.get_running_loop().create_future()
            await self._changed

    def _wake(self) -> None:
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)
