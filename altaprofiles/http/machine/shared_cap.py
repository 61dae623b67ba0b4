"""The cap on requests in flight that all processes of a machine have together."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable

from ...base.wording import duration, processes
from ..limits import Cap, Turn
from ..sizing import Size
from .commons import Commons
from .shared_pace import SharedPace

__all__ = ["SharedCap"]

logger = logging.getLogger("altaprofiles")

_SLOW = 10.0
"""Seconds behind the same requests of other processes that are worth a warning; the next one comes
after three times."""

_LOOK, _LOOK_WHILE_CLOSED = 0.02, 0.1  # seconds between two looks at what others have changed


class SharedCap(Cap):
    """A cap whose slots are those of all processes of a machine.

    The callers of this process stand in its own line, which decides their order. The process asks
    for a slot for the first of them, so that no caller here holds up a later one that goes first.

    Args:
        size: the number of slots, which the record shares.
        pace: the pace, which the record shares.
        refusal: as for `Cap`.
        commons: the files.
        kind: the kind of request.
    """

    def __init__(
        self,
        size: Size,
        pace: SharedPace,
        refusal: Callable[[], Exception],
        commons: Commons,
        kind: str,
    ) -> None:
        super().__init__(size, pace, refusal)
        self._shared_pace = pace
        self._commons = commons
        self._slots = commons.slots[kind]
        self._needs = commons.needs[kind]
        self._calls = 0
        self._number = 0.0
        self._warns_after = _SLOW
        self._seen_at = 0.0
        self._seen: list[int] = []  # the starts of the requests that hold the slots, at that time

    @property
    def is_full(self) -> bool:
        return super().is_full or self._slots.is_full(self._size.allowed)

    def holders(self) -> str:
        some = self._slots.holders()
        if some.own and not some.pids and not some.apart:
            return ""
        # Those of earlier versions are not known.
        return processes(some.pids, some.apart, own=some.own) or "other processes"

    async def acquire(
        self, *, bulk: bool = False, ends: float = math.inf, patience: float = math.inf
    ) -> Turn:
        if not bulk:
            self._begin_call()
        is_first = not self._single and not self._bulk and self.in_flight < self._size.allowed
        if is_first and not (bulk and self._leaves_free()) and not self._admit(bulk=bulk):
            return self._begin(bulk=bulk)
        try:
            return await self._queued(bulk, ends, patience)
        finally:
            self._leave()

    def _left(self, *, bulk: bool) -> None:
        if not bulk:
            self._end_call()

    def release(self, turn: Turn, *, is_answered: bool = False) -> None:
        self._slots.give(time.monotonic())
        if not turn.bulk:
            self._end_call()
        super().release(turn, is_answered=is_answered)

    def refused(self, turn: Turn) -> None:
        self._commons.record.change(lambda: self._size.refused(turn.size))

    def succeeded(self, turn: Turn, seconds: float) -> None:
        size = self._size
        self._needs.took(seconds, bulk=turn.bulk)
        if not size.is_settled and self._commons.record.change(
            lambda: size.succeeded(turn.size, was_full=turn.was_full, seconds=seconds)
        ):
            self._hand_out()

    def _begin_call(self) -> None:
        self._calls += 1
        calls = max(self._calls, self._slots.begin_call())
        now = time.monotonic()
        if self._needs.is_new(calls, now):
            self._commons.record.change(lambda: self._needs.note(calls, now))

    def _end_call(self) -> None:
        self._calls -= 1
        self._slots.end_call(self._calls)

    def _leaves_free(self) -> bool:
        allowed = self._size.allowed
        if not self._needs.matter or allowed == 1:
            return False
        now = time.monotonic()
        self._commons.refresh(now)
        if not self._slots.leaves_free(allowed, self._needs.slots(now)):
            return False
        if self._bulk_in_flight == 0 and now >= self._bulk_due:
            return False
        # Others need not wait behind it.
        self._slots.leave()
        return True

    def _admit(self, *, bulk: bool) -> float:
        pace, slots, size = self._shared_pace, self._slots, self._size
        now = time.monotonic()
        self._commons.refresh(now)
        is_near = pace.is_near(size.most)
        if is_near:
            pace.elsewhere = slots.elsewhere()
        is_free = pace.is_free
        wait = 0.0 if is_free else pace.wait(now)
        delay = slots.take(
            now,
            size.allowed,
            size.reach,
            bulk=bulk,
            starves=not self._bulk_in_flight,
            is_open=wait == 0,
        )
        if delay > 0:
            if wait == 0:
                self._note_wait(now)
            look = _LOOK if pace.closed_since is None else _LOOK_WHILE_CLOSED
            return max(delay, min(wait, look))
        if is_free:
            self._number = pace.begin(now)
            return 0.0
        if is_near:
            # Others may have taken a slot at the same time.
            pace.elsewhere = slots.elsewhere()
        if (wait := pace.start(now)) > 0:
            slots.give(now)
            return min(wait, _LOOK)
        self._number = pace.number
        return 0.0

    def _note_wait(self, now: float) -> None:
        """Report requests of others that keep every slot, after longer and longer pauses.

        A wait alone tells nothing of them: it may be for a limit, or behind many that come and go.
        """
        since = self._slots.queued_at
        if since is None or since > self._seen_at:
            self._see(now)
        waited = now - self._seen_at
        if waited < self._warns_after or self.in_flight or not self.is_full:
            return
        if self._slots.taken_at(self._size.allowed) != self._seen:
            self._see(now)
            return
        self._warns_after = 3 * waited
        logger.warning(
            "%s: calls have waited for a slot for %s, in which the same requests have held every "
            "slot, those of %s; a process that is stopped keeps its slots until it goes on or is "
            "ended",
            self._shared_pace.api,
            duration(waited),
            self.holders() or "this process",
        )

    def _see(self, now: float) -> None:
        self._seen_at, self._warns_after = now, _SLOW
        self._seen = self._slots.taken_at(self._size.allowed)

    def _begin(self, *, bulk: bool) -> Turn:
        size = self._size
        self.in_flight += 1
        self._bulk_in_flight += bulk
        was_full = size.can_grow and self._slots.is_full(size.allowed)
        return Turn(size.changes, self._number, was_full, bulk)

    def _hand_out(self) -> None:
        super()._hand_out()
        self._leave()

    def _leave(self) -> None:
        if not self._single and not self._bulk:
            self._slots.leave()
