"""How many requests may be under way, and how fast they may start. Never sleeps, never sends."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress

__all__ = ["Cap", "Pace"]


class Cap:
    """A bound on requests in flight; callers get their turn in the order they asked.

    A slot passes straight from the one who releases it to the one who has waited longest, so that
    nobody can slip in between and the bound holds at every moment. Single calls go before bulk
    work, which has many more callers and takes longer. But bulk work that has no slot at all gets
    the next one when three single calls have gone before it.

    Other programs may use the same account. So the bound halves when the service says that there
    are too many, and grows back by one after a run of successes. Where the service refused before,
    each refusal doubles the run before that bound is tried again: it settles below it.

    Attributes:
        limit: the most there ever are.
        allowed: the most there are at present, from 1 to `limit`.
        in_flight: how many there are.
    """

    RUN = 10
    """Successes in a row before one more is allowed."""

    LONGEST_RUN = 640
    """Successes in a row before a bound that was refused over and over is tried again."""

    FAVOURED = 3
    """Slots that single calls get in a row while bulk work waits and has none."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.allowed = limit
        self.in_flight = 0
        self._single: deque[asyncio.Future[None]] = deque()
        self._bulk: deque[asyncio.Future[None]] = deque()
        self._bulk_in_flight = 0
        self._favoured = 0
        self._halvings = 0
        self._successes = 0
        self._refused: int | None = None
        self._run = self.RUN

    async def acquire(self, *, bulk: bool = False) -> int:
        """Wait for a slot; return what `throttled` wants to know about this request.

        Cancelled while waiting, the caller holds none.
        """
        if self.in_flight < self.allowed:
            self.in_flight += 1
            self._bulk_in_flight += bulk
            return self._halvings
        waiting = self._bulk if bulk else self._single
        turn = asyncio.get_running_loop().create_future()
        waiting.append(turn)
        try:
            await turn
        except BaseException:
            if turn.done() and not turn.cancelled():
                # The slot had been handed over before the cancellation arrived.
                self.release(bulk=bulk)
            else:
                turn.cancel()
                with suppress(ValueError):  # `release` may have passed it over already
                    waiting.remove(turn)
            raise
        return self._halvings

    def release(self, *, bulk: bool = False) -> None:
        """Give the slot back, to the one whose turn it is. `bulk` as it was acquired."""
        self.in_flight -= 1
        self._bulk_in_flight -= bulk
        self._hand_out()

    def throttled(self, began: int) -> None:
        """Halve the bound, because a request was one too many.

        Args:
            began: what `acquire` returned to it. Several requests that were under way together are
                refused together, and are one reason to halve, not several.
        """
        self._successes = 0
        if began != self._halvings:
            return
        self._halvings += 1
        if self.allowed > 1:
            if self._refused is not None:
                self._run = min(2 * self._run, self.LONGEST_RUN)
            self._refused = self.allowed
            self.allowed //= 2

    def succeeded(self) -> None:
        """Count one success towards growing back."""
        if self._refused is None:
            return
        self._successes += 1
        tried = self.allowed + 1 < self._refused
        if self._successes < (self.RUN if tried else self._run):
            return
        self._successes = 0
        if self.allowed >= self._refused:
            # What was too much has gone well for a whole run: the account has room again.
            self._refused, self._run = None if self.allowed == self.limit else self.limit, self.RUN
        if self.allowed < self.limit:
            self.allowed += 1
            self._hand_out()

    def _hand_out(self) -> None:
        while self.in_flight < self.allowed and (self._single or self._bulk):
            bulk = not self._single or (
                bool(self._bulk) and not self._bulk_in_flight and self._favoured >= self.FAVOURED
            )
            turn = (self._bulk if bulk else self._single).popleft()
            if turn.done():
                continue
            self.in_flight += 1
            self._bulk_in_flight += bulk
            self._favoured = self._favoured + 1 if self._bulk and not bulk else 0
            turn.set_result(None)


class Pace:
    """An even rate: at most one start per interval.

    Evenly, because a burst and the refill behind it would come to twice the rate in one minute.

    Args:
        per_minute: starts per minute.
    """

    def __init__(self, per_minute: int) -> None:
        self._interval = 60 / per_minute
        self._next = 0.0

    def reserve(self, now: float) -> float:
        """Take the next start; return the seconds to wait for it.

        Args:
            now: a monotonic clock reading, in seconds.
        """
        start = max(now, self._next)
        self._next = start + self._interval
        return start - now
