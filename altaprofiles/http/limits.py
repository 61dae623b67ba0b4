"""A cap on requests in flight, and a pace for their starts. Never sleeps, never sends."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress

__all__ = ["Cap", "Pace"]


class Cap:
    """A cap on requests in flight; slots are granted in the order of request.

    A slot passes directly from the caller that releases it to the caller that has waited longest,
    so no third caller takes it in between, and the cap holds at every moment. Single calls go
    before bulk work, which has many more callers and takes longer. But bulk work without a slot
    gets the next one after three single calls have gone before it.

    Other programs may use the same account. The cap therefore halves when the service refuses a
    request as one too many, and grows back by one after a run of successes. Each refusal at a size
    that was refused before doubles the run before that size is tried again, so the cap settles
    below it.

    Attributes:
        limit: the maximum of the cap.
        allowed: the cap at present, from 1 to `limit`.
        in_flight: slots in use.
    """

    RUN = 10
    """Successes in a row before the cap grows by one."""

    LONGEST_RUN = 640
    """Most successes in a row before a size that was refused repeatedly is tried again."""

    FAVOURED = 3
    """Slots in a row for single calls while bulk work waits without one."""

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
        """Wait for a slot; return the value that `throttled` takes for this request.

        A caller that is cancelled while waiting holds no slot.
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
                # The slot was handed over before the cancellation arrived.
                self.release(bulk=bulk)
            else:
                turn.cancel()
                with suppress(ValueError):  # `release` may have skipped it already
                    waiting.remove(turn)
            raise
        return self._halvings

    def release(self, *, bulk: bool = False) -> None:
        """Pass the slot to the next caller in line. `bulk` must be as in `acquire`."""
        self.in_flight -= 1
        self._bulk_in_flight -= bulk
        self._hand_out()

    def throttled(self, began: int) -> None:
        """Halve the cap, because the service refused a request as one too many.

        Args:
            began: the value that `acquire` returned for the request. Requests that were in flight
                together are refused together: that is one reason to halve, not several.
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
        """Count one success towards the growth of the cap."""
        if self._refused is None:
            return
        self._successes += 1
        tried = self.allowed + 1 < self._refused
        if self._successes < (self.RUN if tried else self._run):
            return
        self._successes = 0
        if self.allowed >= self._refused:
            # The refused size has succeeded for a whole run: the account has room again.
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

    The rate is even because a burst and the refill after it would reach twice the rate within one
    minute.

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
