"""Cursor chains: each walked in sequence, its next pages fetched while earlier ones are read.

Knows no API: the functions that open a chain and fetch a page are passed in.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence
from functools import partial
from hashlib import blake2b
from typing import Generic, Protocol, TypeVar

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup
from msgspec import Struct

from ..base.calls import CallName, naming
from ..errors import AltaProfilesError, CursorError, CursorLoop
from .handover import Ended, Handover
from .lifetime import INTERRUPTED, Spawn

__all__ = ["MEMORY", "Chain", "Linked", "drop_position", "mark", "walk"]

MEMORY = 192 << 20
"""Bytes of pages that exist at once in one walk, at most: two of a real account's largest ones.

With three of them, `async for person` took 320 MB where the reader was slow. To let a part arrive
later, by not reading its connection, would hold a slot of the account for as long as the reader
takes, and end in a time limit.

The first pages of chains count as a quarter of it, because nothing is known of their size and every
slot should be used: three of 85 MB, of three chains, took 330 MB.
"""


class Linked(Protocol):
    """A page of any service, reduced to the property that a walk needs."""

    @property
    def next_cursor(self) -> str | None:
        """The cursor of the next page, or None on the last one."""
        ...


P = TypeVar("P", bound=Linked)


_POSITION = "This was page "


def drop_position(error: Exception) -> None:
    """Remove the note of a walk's error that names the cursor to resume at."""
    notes = vars(error).pop("__notes__", [])
    for note in notes:
        if not note.startswith(_POSITION):
            error.add_note(note)


class Chain(Struct, Generic[P], frozen=True):
    """One cursor walk.

    Attributes:
        open: returns the first cursor.
        fetch: returns the page of a cursor. It passes the next cursor to its second argument as
            soon as it knows it. It may do so more than once, and the cursor may be wrong. Its third
            argument tells whether a cursor is that of this page or of an earlier one.
        reopen: receives each page before it is yielded, in order. It returns None, or in place of
            the last page the first cursor of the chain opened again: that page is then dropped, and
            the walk continues there.
        earlier: the marks of the cursors that were walked before the first one.
        weigh: returns about how many bytes of memory a page takes; None if that is no matter.
        expected: returns the weight that the next page probably has, or None if nothing is known.
        discard: receives each page that is dropped, to free what it holds.
    """

    open: Callable[[], Awaitable[str]]
    fetch: Callable[[str, Callable[[str], None], Callable[[str], bool]], Awaitable[P]]
    reopen: Callable[[P], Awaitable[str | None]] | None = None
    earlier: Collection[bytes] = ()
    weigh: Callable[[P], int] | None = None
    expected: Callable[[], int | None] = lambda: None
    discard: Callable[[P], object] = lambda page: None


async def walk(
    chains: Sequence[Chain[P]], *, prefetch: int, spawn: Spawn, name: CallName | None = None
) -> AsyncGenerator[P, None]:
    """Yield the pages of all `chains`; the pages of one chain in server order.

    The chains are walked concurrently, and their pages are yielded as they arrive. At most
    `prefetch + 1` pages of each chain exist at once, including the one being read and those still
    arriving, however slow the reader is. Where pages are weighed, fewer exist if they would take
    more than `MEMORY`, over all chains. No cursor is requested twice at the same time. Errors that
    name no call get `name`.

    Raises:
        CursorLoop: the service repeated a cursor within a chain.
        AltaProfilesError: a chain could not be opened, or a page could not be fetched. Pages that
            arrived before the error are yielded first.
    """
    handover: Handover[tuple[P, Callable[[], None]]] = Handover()
    room = Room(MEMORY)

    async def walk_all() -> None:
        walks: list[_Walk[P]] = []
        async with anyio.create_task_group() as group:

            async def begin(chain: Chain[P]) -> None:
                with handover.ended_by_failure(group):
                    cursor = await chain.open()
                    walks.append(_Walk(chain, cursor, prefetch, handover, group, room))

            for chain in chains:
                group.start_soon(begin, chain)
        if len(walks) < len(chains) or not all(walk.complete for walk in walks):
            await anyio.lowlevel.checkpoint_if_cancelled()
            # The group treats a child that was cancelled from elsewhere as finished.
            raise AltaProfilesError(INTERRUPTED)

    with naming(name):
        end = spawn(walk_all, handover.close)
        try:
            while True:
                try:
                    page, free = await handover.get()
                except Ended:
                    return
                yield page
                del page
                free()
        finally:
            await end()


class Room:
    """Memory for pages that exist at once. One page alone always has room, however large it is.

    Args:
        size: in bytes.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._held = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def acquire(self, weight: int) -> None:
        """Wait until there is room, first come, first served."""
        if not self._waiting and self._has_room(weight):
            self._held += weight
            return
        turn = weight, asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn[1]
        except BaseException:
            if turn in self._waiting:
                self._waiting.remove(turn)
            else:
                self._held -= weight
            self._admit()
            raise

    def _has_room(self, weight: int) -> bool:
        return not self._held or self._held + weight <= self._size

    def release(self, weight: int) -> None:
        """Give room back, or take more of it if `weight` is negative."""
        self._held -= weight
        self._admit()

    def _admit(self) -> None:
        while self._waiting and self._has_room(self._waiting[0][0]):
            weight, turn = self._waiting.popleft()
            if not turn.done():
                self._held += weight
                turn.set_result(None)


class _Step:
    """One page of a walk, from the moment its cursor is known.

    Attributes:
        number: of the page in its walk, from 0.
        mark: a digest of the cursor, which can be 2.4 KB long.
        weight: the memory that is set apart for the page, in bytes.
        confirmed: set once the previous page has been handed over and names this cursor.
        following: the next step, once started.
        ended: set once nothing of this step is running.
    """

    def __init__(self, cursor: str, number: int, weight: int) -> None:
        self.cursor = cursor
        self.number = number
        self.weight = weight
        self.mark = mark(cursor)
        self.confirmed = asyncio.Event()
        self.following: _Step | None = None
        self.scope = anyio.CancelScope()
        self.ended = asyncio.Event()


class _Walk(Generic[P]):
    """One chain in progress: a task per page, which starts the task of the next page.

    A page is requested as soon as its cursor is known, usually while the previous page is still
    arriving. But a page counts only once all of it has been read: then the cursor that it names is
    confirmed, and a page that was requested with a different cursor is dropped unseen.
    """

    def __init__(
        self,
        chain: Chain[P],
        cursor: str,
        prefetch: int,
        handover: Handover[tuple[P, Callable[[], None]]],
        group: TaskGroup,
        room: Room,
    ) -> None:
        self.complete = False
        self._chain = chain
        self._handover = handover
        self._group = group
        self._allowance = asyncio.Semaphore(prefetch + 1)
        self._room = room
        self._heaviest = 0
        # The number of the step that asked for each cursor.
        self._asked = dict.fromkeys(chain.earlier, -1)
        self._delivered = 0
        self._begin(cursor, 0).confirmed.set()

    def _begin(self, cursor: str, number: int) -> _Step:
        weight = 0
        if self._chain.weigh is not None:
            expected = self._chain.expected()
            if expected is None:
                # Two pages of unknown weight, until one of them is known.
                expected = MEMORY // 4 if number == 0 else MEMORY * 2 // 5
            weight = self._heaviest or expected
        step = _Step(cursor, number, weight)
        self._asked[step.mark] = number
        self._group.start_soon(self._run, step)
        return step

    def _weigh(self, step: _Step, weight: int) -> None:
        """Correct the memory that is set apart for the page of `step`."""
        self._room.release(step.weight - weight)
        step.weight = weight

    def _begin_following(self, step: _Step, cursor: str) -> None:
        expected = self._chain.expected()
        if self._chain.weigh is not None and expected is not None and not self._heaviest:
            # Known by now, as this page is arriving.
            self._weigh(step, max(step.weight, expected))
        # A cursor that was requested before makes the chain a loop: `_deliver` raises for it.
        if step.following is None and mark(cursor) not in self._asked:
            step.following = self._begin(cursor, step.number + 1)

    def _was_asked(self, step: _Step, cursor: str) -> bool:
        """Return whether `cursor` is that of `step`, or of an earlier one of its chain."""
        number = self._asked.get(mark(cursor))
        return number is not None and number <= step.number

    async def _run(self, step: _Step) -> None:
        with self._handover.ended_by_failure(self._group):
            try:
                with step.scope:
                    await anyio.lowlevel.checkpoint_if_cancelled()
                    await self._take(step)
            finally:
                step.ended.set()

    async def _take(self, step: _Step) -> None:
        await self._allowance.acquire()
        try:
            await self._room.acquire(step.weight)
        except BaseException:
            self._allowance.release()
            raise
        page = None
        try:
            page = await self._fetch(step)
            if self._chain.weigh is not None:
                weight = self._chain.weigh(page)
                self._heaviest = max(self._heaviest, weight)
                self._weigh(step, weight)
            if step.following is not None and step.following.cursor != page.next_cursor:
                await self._drop_following(step)
            if page.next_cursor is not None:
                self._begin_following(step, page.next_cursor)
            await step.confirmed.wait()
            reopen = self._chain.reopen
            again = None if reopen is None else await reopen(page)
        except BaseException:
            if page is not None:
                self._chain.discard(page)
            self._free(step)
            raise
        if again is None:
            self._deliver(step, page)
        else:
            self._chain.discard(page)
            self._free(step)
            # A chain opened again may have the same cursors.
            self._asked.clear()
            self._delivered = 0
            self._begin(again, 0).confirmed.set()

    def _free(self, step: _Step) -> None:
        self._allowance.release()
        self._room.release(step.weight)

    async def _fetch(self, step: _Step) -> P:
        try:
            return await self._chain.fetch(
                step.cursor, partial(self._begin_following, step), partial(self._was_asked, step)
            )
        except Exception as error:
            # The error means nothing if the cursor turns out to be wrong.
            await step.confirmed.wait()
            if not isinstance(error, CursorError):
                error.add_note(
                    f"{_POSITION}{self._delivered + 1} of its chain; all earlier pages were "
                    f"delivered. To resume here, pass cursor={step.cursor!r}"
                )
            raise

    def _deliver(self, step: _Step, page: P) -> None:
        self._delivered += 1
        self._handover.put((page, partial(self._free, step)))
        if page.next_cursor is None:
            self.complete = True
        elif step.following is None:
            raise CursorLoop(
                f"the service repeated a cursor after {self._delivered} pages of its chain; "
                f"the chain would never end, so open a new one"
            )
        else:
            step.following.confirmed.set()

    async def _drop_following(self, step: _Step) -> None:
        """Cancel every page requested after `step` and wait for each to stop.

        The chain may still reach the same cursors, and would otherwise request them twice at once.
        """
        dropped = step.following
        while dropped is not None:
            later: _Step | None = dropped
            while later is not None:
                later.scope.cancel()
                later = later.following
            # A step that has its page already may start another before it notices.
            await dropped.ended.wait()
            self._asked.pop(dropped.mark, None)
            dropped = dropped.following
        step.following = None


def mark(cursor: str) -> bytes:
    """Return a digest of a cursor, which can be 2.4 KB long."""
    return blake2b(cursor.encode(), digest_size=16).digest()
