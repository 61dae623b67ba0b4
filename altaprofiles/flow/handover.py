"""An unbounded queue from background tasks to one reader; producers limit themselves."""

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
    """The queue is closed, and every item has been read.

    A separate type, because callers' code can raise `StopAsyncIteration`, which must not end a
    queue.
    """


class Handover(Generic[T]):
    """An unbounded queue that can be closed; its producers limit themselves by an allowance.

    `put` and `close` never wait, so they can be called while a task is being cancelled.
    """

    def __init__(self) -> None:
        self._items: deque[T] = deque()
        self._closed = False
        self._error: BaseException | None = None
        self._changed: asyncio.Future[None] | None = None

    def put(self, item: T) -> None:
        """Append one item."""
        self._items.append(item)
        self._wake()

    def close(self, error: BaseException | None) -> None:
        """Close the queue; `error` is raised after the last item. Only the first call counts."""
        if not self._closed:
            self._closed = True
            self._error = error
            self._wake()

    @contextmanager
    def ended_by_failure(self, group: TaskGroup) -> Iterator[None]:
        """On an exception inside, close the queue with it and cancel every task of `group`.

        The exception is not re-raised, because it would leave the group as an ExceptionGroup.
        """
        try:
            yield
        except asyncio.CancelledError:
            if not is_cancelled_here():
                # The group would ignore this cancellation, and other tasks may wait for this one.
                self.close(AltaProfilesError(INTERRUPTED))
                group.cancel_scope.cancel()
            raise
        except BaseException as error:
            self.close(error)
            group.cancel_scope.cancel()

    async def get(self) -> T:
        """Return the next item.

        Raises:
            Ended: the queue was closed without an error, and every item has been read.
            BaseException: the error that the queue was closed with, after the last item.
        """
        await self._filled()
        return self._items.popleft()

    async def get_all(self) -> deque[T]:
        """Return every item in the queue, at least one. Raises like `get`."""
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
