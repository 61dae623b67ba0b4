"""The benchmark server's counts: requests, requests in flight, busy time, bytes sent."""

from __future__ import annotations

from collections import Counter

from msgspec import Struct

__all__ = ["Ledger", "Seen"]


class Seen(Struct, frozen=True):
    """Counts since the server started.

    Attributes:
        requests: the number of requests by operation: "open_chain", "get_page", "get_profile",
            "get_user_cdp", or "unknown".
        peak: the most requests in flight at once. A request is in flight from its first byte until
            the last byte of its answer is passed to the kernel.
        busy: slot-seconds in flight; two requests of one second each are 2.
        seconds: the time from the first byte of the first request to the last byte of the last
            answer.
        repeated: the number of requests for a cursor that was in flight already.
        sent: the size of all bodies on the wire, in bytes.
        resets: the number of answers that ended in a reset.
    """

    requests: dict[str, int]
    peak: int
    busy: float
    seconds: float
    repeated: int
    sent: int
    resets: int


class Ledger:
    """Counts requests. The time, in seconds, is passed in as `now`."""

    def __init__(self) -> None:
        self._requests: Counter[str] = Counter()
        self._cursors: Counter[str] = Counter()
        self._in_flight = 0
        self._peak = 0
        self._busy = 0.0
        self._first: float | None = None
        self._last = 0.0
        self._repeated = 0
        self._sent = 0
        self._resets = 0

    def began(self, now: float) -> None:
        """Count one more request in flight."""
        self._move_to(now)
        self._in_flight += 1
        self._peak = max(self._peak, self._in_flight)

    def understood(self, operation: str, cursor: str | None) -> None:
        """Count a request's operation and cursor, known once it has been received."""
        self._requests[operation] += 1
        if cursor is not None:
            self._repeated += self._cursors[cursor] > 0
            self._cursors[cursor] += 1

    def ended(self, now: float, cursor: str | None, sent: int) -> None:
        """Count one request less in flight, answered or abandoned."""
        self._move_to(now)
        self._in_flight -= 1
        self._sent += sent
        if cursor is not None:
            self._cursors[cursor] -= 1

    def reset(self) -> None:
        """Count one answer that ends in a reset."""
        self._resets += 1

    def seen(self) -> Seen:
        """Return the counts so far."""
        return Seen(
            requests=dict(self._requests),
            peak=self._peak,
            busy=self._busy,
            seconds=0.0 if self._first is None else self._last - self._first,
            repeated=self._repeated,
            sent=self._sent,
            resets=self._resets,
        )

    def _move_to(self, now: float) -> None:
        if self._first is None:
            self._first = self._last = now
        self._busy += self._in_flight * (now - self._last)
        self._last = now
