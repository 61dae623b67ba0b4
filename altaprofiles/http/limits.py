"""The slots of one service: who may send, and when. Never sends."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from msgspec import Struct

from .needs import Needs
from .pace import Pace
from .sizing import Size

__all__ = ["Cap", "Turn"]


_NEXT_LOOK = 0.02
"""Seconds after which bulk work that leaves slots free looks again."""

_TOLERANCE = 1.0
"""Seconds by which a wait that the service names may exceed the patience of a caller."""


class Turn(Struct, frozen=True, gc=False):
    """One slot in use.

    Attributes:
        size: the value that `Size` takes for this request.
        pace: the value that `Pace` takes for this request.
        was_full: whether no slot was left when it was taken.
        bulk: whether the request belongs to bulk work.
    """

    size: int
    pace: float
    was_full: bool
    bulk: bool


class _Waiter(Struct, gc=False, eq=False):
    turn: asyncio.Future[Turn]
    ends: float
    patience: float
    since: float


class Cap:
    """A cap on requests in flight; slots are granted in the order of request.

    A slot passes directly from the caller that releases it to the caller that has waited longest,
    so no third caller takes it in between, and the cap holds at every moment. Single calls go
    before bulk work, which has many more callers and takes longer. But bulk work without a slot
    gets the next one after three single calls have gone before it. Bulk work with long requests
    leaves slots free for single calls that are to come: see `Needs`.

    Args:
        size: the number of slots. It changes with the answers of the service.
        pace: the times at which a request may start. Several caps of one service can share it.
        refusal: returns the error for callers that wait longer than they can.

    Attributes:
        in_flight: slots in use.
    """

    FAVOURED = 3
    """Slots in a row for single calls while bulk work waits without one."""

    def __init__(self, size: Size, pace: Pace, refusal: Callable[[], Exception]) -> None:
        self.in_flight = 0
        self._size = size
        self._pace = pace
        self._refusal = refusal
        self._single: deque[_Waiter] = deque()
        self._bulk: deque[_Waiter] = deque()
        self._bulk_in_flight = 0
        self._favoured = 0
        self._needs = Needs()
        self._bulk_due = -math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._wakes_at = math.inf

    @property
    def limit(self) -> int:
        """The most that the cap can grow to."""
        return self._size.most

    @property
    def allowed(self) -> int:
        """The cap at present, from 1 to `limit`."""
        return self._size.allowed

    @property
    def is_full(self) -> bool:
        """True while every slot is in use."""
        return self.in_flight >= self._size.allowed

    @property
    def waiting(self) -> int:
        """Callers that wait for a slot, or until the service may be asked."""
        return len(self._single) + len(self._bulk)

    @property
    def slots(self) -> int:
        """The number of slots to report: the configured one, or the one found so far."""
        return self.allowed if self._size.searches else self.limit

    async def acquire(
        self, *, bulk: bool = False, ends: float = math.inf, patience: float = math.inf
    ) -> Turn:
        """Wait for a slot, and until the service may be asked.

        A caller that is cancelled while waiting holds no slot.

        Args:
            bulk: whether the request belongs to bulk work.
            ends: the clock reading at which the caller's deadline ends.
            patience: longest time, in seconds, that the service may refuse every request, or may
                ask to wait.

        Raises:
            Exception: the error that `refusal` returns, because waiting would last longer.
        """
        pace = self._pace
        if not bulk:
            self._note_need()
        if (
            self.in_flight < self._size.allowed
            and (
                pace.is_free or not (self._single or self._bulk or pace.wait(time.monotonic()) > 0)
            )
            and not (bulk and self._leaves_free())
        ):
            return self._begin(bulk=bulk)
        return await self._queued(bulk, ends, patience)

    async def _queued(self, bulk: bool, ends: float, patience: float) -> Turn:
        pace = self._pace
        waiting = self._bulk if bulk else self._single
        now = time.monotonic()
        waiter = _Waiter(asyncio.get_running_loop().create_future(), ends, patience, now)
        if not pace.is_free and self._waits_in_vain(waiter, now):
            self._left(bulk=bulk)
            raise self._refusal()
        waiting.append(waiter)
        self._hand_out()
        self._mind(now, waiter)
        turn = waiter.turn
        try:
            return await turn
        except BaseException:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                # The slot was handed over before the cancellation arrived.
                self.release(turn.result())
            else:
                turn.cancel()
                with suppress(ValueError):  # it may have been skipped already
                    waiting.remove(waiter)
                self._left(bulk=bulk)
            raise

    def holders(self) -> str:
        """Return the processes that hold the slots, in words; empty if they are this one's own."""
        return ""

    def _left(self, *, bulk: bool) -> None:
        """Take note that a caller has ended without a slot."""

    def release(self, turn: Turn, *, is_answered: bool = False) -> None:
        """Pass the slot to the next caller in line. If answered, the outcome is counted next."""
        self.in_flight -= 1
        if turn.bulk:
            self._bulk_in_flight -= 1
            self._bulk_due = time.monotonic() + self._needs.pause(self._size.allowed)
        self._pace.end(turn.pace, is_answered=is_answered)
        if self._single or self._bulk:
            self._hand_out()

    def refused(self, turn: Turn) -> None:
        """Count a refusal as one request too many at once."""
        self._size.refused(turn.size)

    @property
    def has_succeeded(self) -> bool:
        """True once a request has succeeded since the cap last shrank."""
        return self._size.has_succeeded

    def succeeded(self, turn: Turn, seconds: float) -> None:
        """Count a success, `seconds` after the request started."""
        self._needs.took(seconds, bulk=turn.bulk)
        if self._size.succeeded(turn.size, was_full=turn.was_full, seconds=seconds):
            self._hand_out()

    def wake(self) -> None:
        """Hand out slots, because the pace allows more than before."""
        if self._single or self._bulk:
            self._hand_out()
            self._mind(time.monotonic())

    def give_up(self, now: float) -> None:
        """Raise in every caller that waits in vain."""
        if self._pace.closed_since is None and self._pace.named_until is None:
            return
        for waiter in (*self._single, *self._bulk):
            if not waiter.turn.done() and self._waits_in_vain(waiter, now):
                waiter.turn.set_exception(self._refusal())

    def abandon(self, error: Callable[[], Exception]) -> None:
        """Raise in every caller that waits, because nothing is sent any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for waiting in (self._single, self._bulk):
            while waiting:
                waiter = waiting.popleft()
                # The event loop may be closed already.
                with suppress(RuntimeError):
                    if not waiter.turn.done():
                        waiter.turn.set_exception(error())

    def _waits_in_vain(self, waiter: _Waiter, now: float) -> bool:
        """Return whether the service is closed for longer than a caller can wait."""
        since, until = self._pace.closed_since, self._pace.named_until
        if since is not None and self._lasts(waiter, since) <= now:
            return True
        if until is None or until <= now:
            return False
        began = now if since is None else since
        return until - began > waiter.patience + _TOLERANCE or until >= waiter.ends

    def _lasts(self, waiter: _Waiter, closed_since: float) -> float:
        """Return the clock reading at which the patience of a caller is over."""
        over, due = closed_since + waiter.patience, self._pace.answer_due
        if due is None or over > waiter.since:
            return over
        # Who stops at the first refusals cancels the request that asks as well, and so would
        # never see that the service is up again.
        return min(due, waiter.since + min(waiter.patience, Pace.PATIENCE))

    def _mind(self, now: float, *some: _Waiter) -> None:
        """Wake up when the first of all callers gives up, or the first of some."""
        if (since := self._pace.closed_since) is None:
            return
        waiters = some or (*self._single, *self._bulk)
        over = (self._lasts(waiter, since) for waiter in waiters if not waiter.turn.done())
        if (first := min(over, default=math.inf)) < math.inf:
            self._wake_in(max(first - now, 0.001))

    def _admit(self, *, bulk: bool) -> float:
        """Return the seconds until the next request may start, 0 for now."""
        return 0.0 if self._pace.is_free else self._pace.wait(time.monotonic())

    def _note_need(self) -> None:
        """Note the slots that single calls need at once, of which there is one more now."""
        calls = self.in_flight - self._bulk_in_flight + len(self._single) + 1
        now = time.monotonic()
        if self._needs.is_new(calls, now):
            self._needs.note(calls, now)

    def _leaves_free(self) -> bool:
        """Return whether bulk work leaves the free slots to single calls that are to come."""
        if not self._needs.matter or self._size.allowed == 1:
            return False
        now = time.monotonic()
        if self.in_flight + 1 + self._kept(now) <= self._size.allowed:
            return False
        return self._bulk_in_flight > 0 or now < self._bulk_due

    def _kept(self, now: float) -> int:
        return max(0, self._needs.slots(now) - self.in_flight + self._bulk_in_flight)

    def _is_bulk_due(self) -> bool:
        """Return whether bulk work goes before the single calls that wait."""
        return (
            bool(self._bulk)
            and not self._bulk_in_flight
            and self._favoured >= self.FAVOURED
            and not (self._needs.matter and time.monotonic() < self._bulk_due)
        )

    def _begin(self, *, bulk: bool) -> Turn:
        self.in_flight += 1
        self._bulk_in_flight += bulk
        began = self._pace.begin(time.monotonic())
        return Turn(self._size.changes, began, self.in_flight >= self._size.allowed, bulk)

    def _hand_out(self) -> None:
        while self.in_flight < self._size.allowed and (self._single or self._bulk):
            bulk = not self._single or self._is_bulk_due()
            waiting = self._bulk if bulk else self._single
            if waiting[0].turn.done():
                waiting.popleft()
                continue
            if bulk and self._leaves_free():
                self._wake_in(_NEXT_LOOK)
                return
            if (wait := self._admit(bulk=bulk)) > 0:
                self._wake_in(wait)
                return
            turn = waiting.popleft().turn
            self._favoured = self._favoured + 1 if self._bulk and not bulk else 0
            turn.set_result(self._begin(bulk=bulk))

    def _wake_in(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        when = loop.time() + seconds
        if self._timer is not None:
            if self._wakes_at <= when:
                return
            self._timer.cancel()
        # Kept here, because a timer of uvloop that is due at once does not tell its time.
        self._wakes_at = when
        self._timer = loop.call_at(when, self._woken)

    def _woken(self) -> None:
        self._timer = None
        now = time.monotonic()
        self.give_up(now)
        self._hand_out()
        self._mind(now)
