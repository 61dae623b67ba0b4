"""Counters of the emulator: requests in flight, cursors in use, faults, connections."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from .faults import Fault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .settings import Settings

__all__ = ["Slot", "Stats", "Tally", "let_loop_turn"]

_TURNS = 20
"""Turns of the event loop until a connection closed by the client has been noticed."""


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """Counters of one emulator, from its start."""

    requests: dict[str, int]
    """Requests by operation: open_chain, page, profile, count, cdp."""
    in_flight: dict[str, int]
    """Requests being answered now, by API: clevertap, alta."""
    peak_in_flight: dict[str, int]
    """Most requests at the same time, by API. Above the cap if one was refused for it."""
    too_many: int
    """Requests refused with HTTP 429 because the cap was exceeded. Injected faults do not count."""
    double_served: int
    """Cursor pages served completely more than once."""
    overlapping_cursors: int
    """Requests for a cursor while an earlier request for it was being answered."""
    faults: dict[str, int]
    """Faults injected, by name."""
    connections: int
    """Connections accepted."""
    open_connections: int
    """Connections open now."""


async def let_loop_turn() -> None:
    """Wait until connections that are closed have ended their requests."""
    for _ in range(_TURNS):
        await asyncio.sleep(0)


class Slot:
    """One request in flight, until released."""

    def __init__(self, leave: Callable[[], None]) -> None:
        self._leave: Callable[[], None] | None = leave

    def release(self) -> None:
        """Stop counting the request. Later calls do nothing."""
        leave, self._leave = self._leave, None
        if leave is not None:
            leave()


class Load:
    """Requests in flight at one API, at most `limit()`, or any number if it is None."""

    def __init__(self, limit: Callable[[], int | None]) -> None:
        self._limit = limit
        self._cursors: Counter[bytes] = Counter()
        self.in_flight = 0
        self.peak = 0
        self.too_many = 0
        self.overlapping = 0

    async def enter(self, cursor: bytes | None) -> Slot | None:
        """Return a slot for the request, or None if too many are in flight."""
        if self._full() or self.in_flight >= self.peak or self._cursors[cursor or b""]:
            # A client that drops a request and sends another has one in flight, not two.
            await let_loop_turn()
        full = self._full()
        self.peak = max(self.peak, self.in_flight + 1)
        if full:
            self.too_many += 1
            return None
        self.in_flight += 1
        if cursor is None:
            return Slot(self._leave)
        self.overlapping += self._cursors[cursor] > 0
        self._cursors[cursor] += 1
        return Slot(lambda: self._leave(cursor))

    def _full(self) -> bool:
        limit = self._limit()
        return limit is not None and self.in_flight >= limit

    def _leave(self, cursor: bytes | None = None) -> None:
        self.in_flight -= 1
        if cursor is not None:
            self._cursors[cursor] -= 1
            if not self._cursors[cursor]:
                del self._cursors[cursor]


class Tally:
    """The counters as they change.

    Args:
        settings: the limits.
        operations: names of the operations that requests are counted by.
    """

    def __init__(self, settings: Settings, operations: Iterable[str]) -> None:
        self.loads = {
            "clevertap": Load(lambda: settings.max_in_flight),
            "alta": Load(lambda: None),
        }
        self.requests = dict.fromkeys(operations, 0)
        self.faults = {fault.value: 0 for fault in Fault}
        self.connections = 0
        self.open_connections = 0
        self._served: set[bytes] = set()
        self._double_served = 0

    def count_served(self, page: bytes) -> None:
        """Count a cursor page that was sent completely."""
        self._double_served += page in self._served
        self._served.add(page)

    def snapshot(self) -> Stats:
        """Return the counters as they are now."""
        return Stats(
            requests=dict(self.requests),
            in_flight={api: load.in_flight for api, load in self.loads.items()},
            peak_in_flight={api: load.peak for api, load in self.loads.items()},
            too_many=sum(load.too_many for load in self.loads.values()),
            double_served=self._double_served,
            overlapping_cursors=sum(load.overlapping for load in self.loads.values()),
            faults=dict(self.faults),
            connections=self.connections,
            open_connections=self.open_connections,
        )
