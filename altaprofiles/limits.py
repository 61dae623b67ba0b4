"""How many requests may be under way, and how fast they may start. Never sleeps, never sends."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress

__all__ = ["Cap", "Pace"]


class Cap:
    """A bound on requests in flight; callers get their turn in the order they asked.

    A slot passes straight from the one who releases it to the one who has waited longest, so that
    nobody can slip in between and the bound holds at every moment.

    Other programs may use the same account. So the bound halves when the service says that there
    are too many, and grows back by one after a run of successes.

    Attributes:
        limit: the most there ever are.
        allowed: the most there are at present, from 1 to `limit`.
        in_flight: how many there are.
    """

    RUN = 10
    """Successes in a row before one more is allowed."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.allowed = limit
        self.in_flight = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._halvings = 0
        self._successes = 0

    async def acquire(self) -> int:
        """Wait for a slot; return what `throttled` wants to know about this request.

        Cancelled while waiting, the caller holds none.
        """
        if self.in_flight < self.allowed:
            self.in_flight += 1
            return self._halvings
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except BaseException:
            if turn.done() and not turn.cancelled():
                # The slot had been handed over before the cancellation arrived.
                self.release()
            else:
                turn.cancel()
                with suppress(ValueError):  # `release` may have passed it over already
                    self._waiting.remove(turn)
            raise
        return self._halvings

    def release(self) -> None:
        """Give the slot back, to the one who has waited longest."""
        self.in_flight -= 1
        self._hand_out()

    def throttled(self, began: int) -> None:
        """Halve the bound, because a request was one too many.

        Args:
            began: what `acquire` returned to it. Several requests that were under way together are
                refused together, and are one reason to halve, not several.
        """
        self._successes = 0
        if began == self._halvings:
            self._halvings += 1
            self.allowed = max(1, self.allowed // 2)

    def succeeded(self) -> None:
        """Count one success towards growing back."""
        if self.allowed == self.limit:
            return
        self._successes += 1
        if self._successes == self.RUN:
            self._successes = 0
            self.allowed += 1
            self._hand_out()

    def _hand_out(self) -> None:
        while self._waiting and self.in_flight < self.allowed:
            turn = self._waiting.popleft()
            if not turn.done():
                self.in_flight += 1
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
