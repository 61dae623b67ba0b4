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
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.in_flight = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def acquire(self) -> None:
        """Wait for a slot. Cancelled while waiting, the caller holds none."""
        if self.in_flight < self.limit:
            self.in_flight += 1
            return
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

    def release(self) -> None:
        """Give the slot back, to the one who has waited longest."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.in_flight -= 1


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
