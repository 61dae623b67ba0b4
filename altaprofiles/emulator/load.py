"""Counters of the emulator: requests in flight, cursors in use, faults, connections."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from .faults import Fault
from .limits import IN_FLIGHT, LIMITS, RATES, cap_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .limits import Group
    from .settings import Settings

__all__ = ["Load", "Slot", "Stats", "Tally", "let_loop_turn"]

_TURNS = 20
"""Turns of the event loop until a connection closed by the client has been noticed."""

_APIS = {"clevertap": ("chains", "lookups", "counts"), "alta": ("alta",)}


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """Counters of one emulator, from its start."""

    requests: dict[str, int]
    """Requests by operation: open_chain, page, profile, count, cdp, verify."""
    in_flight: dict[str, int]
    """Requests being answered now, by API: clevertap, alta."""
    peak_in_flight: dict[str, int]
    """Most requests at the same time, by API. Above the cap if one was refused for it."""
    too_many: int
    """Requests refused because too many were in flight. Injected faults do not count."""
    rate_limited: int
    """Requests refused because too many came in one window. Injected faults do not count."""
    limited: dict[str, int]
    """Requests that met a limit, by the setting: the refused ones, and for `max_open_chains` empty
    pages."""
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
    """Requests in flight at both services, within their caps."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._in_flight: Counter[Group] = Counter()
        self._cursors: Counter[bytes] = Counter()
        self.peaks = dict.fromkeys(_APIS, 0)
        self.overlapping = 0

    async def enter(self, api: str, group: Group, cursor: bytes | None) -> Slot | str:
        """Return a slot for the request, or the setting that refuses it."""
        if (
            self._refusal(group) is not None
            or self.in_flight(api) >= self.peaks[api]
            or self._cursors[cursor or b""]
        ):
            # A client that drops a request and sends another has one in flight, not two.
            await let_loop_turn()
        refusal = self._refusal(group)
        self.peaks[api] = max(self.peaks[api], self.in_flight(api) + 1)
        if refusal is not None:
            return refusal
        self._in_flight[group] += 1
        if cursor is not None:
            self.overlapping += self._cursors[cursor] > 0
            self._cursors[cursor] += 1
        return Slot(lambda: self._leave(group, cursor))

    def in_flight(self, api: str) -> int:
        """Return the number of requests that one service is answering."""
        return sum(self._in_flight[group] for group in _APIS[api])

    def _refusal(self, group: Group) -> str | None:
        cap = cap_of(self._settings, group)
        in_flight = sum(self._in_flight[one] for one in cap.groups)
        return None if cap.most is None or in_flight < cap.most else cap.setting

    def _leave(self, group: Group, cursor: bytes | None) -> None:
        self._in_flight[group] -= 1
        if cursor is not None:
            self._cursors[cursor] -= 1
            if not self._cursors[cursor]:
                del self._cursors[cursor]


class Tally:
    """The counters as they change.

    Args:
        load: the requests in flight.
        operations: names of the operations that requests are counted by.
    """

    def __init__(self, load: Load, operations: Iterable[str]) -> None:
        self._load = load
        self.requests = dict.fromkeys(operations, 0)
        self.limited = dict.fromkeys(LIMITS, 0)
        self.faults = {fault.value: 0 for fault in Fault}
        self.connections = 0
        self.open_connections = 0
        self._served: set[bytes] = set()
        self._double_served = 0

    def count_connection(self, change: int) -> None:
        """Count a connection that has opened, for 1, or one that has closed, for -1."""
        self.connections += max(change, 0)
        self.open_connections += change

    def count_served(self, page: bytes) -> None:
        """Count a cursor page that was sent completely."""
        self._double_served += page in self._served
        self._served.add(page)

    def count_faults(self, faults: Iterable[str]) -> None:
        """Count faults that were injected."""
        for fault in faults:
            self.faults[fault] += 1

    def snapshot(self) -> Stats:
        """Return the counters as they are now."""
        return Stats(
            requests=dict(self.requests),
            in_flight={api: self._load.in_flight(api) for api in _APIS},
            peak_in_flight=dict(self._load.peaks),
            too_many=sum(self.limited[setting] for setting in IN_FLIGHT),
            rate_limited=sum(self.limited[setting] for setting in RATES),
            limited=dict(self.limited),
            double_served=self._double_served,
            overlapping_cursors=self._load.overlapping,
            faults=dict(self.faults),
            connections=self.connections,
            open_connections=self.open_connections,
        )
