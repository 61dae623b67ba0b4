"""The limits of both services: requests in flight, and requests in a window of time.

Sources:
    [limits] limits of CleverTap's APIs, https://developer.clevertap.com/docs/api-request-limit
    [plans] "Overview" of Alta's API reference: plans, and the headers that tell of them
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from .settings import Settings

__all__ = ["IN_FLIGHT", "LIMITS", "RATES", "Group", "Rates", "cap_of"]

Group = str
"""Requests that are counted together: "chains", "lookups", "counts" or "alta"."""

IN_FLIGHT = (
    "max_in_flight",
    "lookups_max_in_flight",
    "counts_max_in_flight",
    "alta_max_in_flight",
)
RATES = ("clevertap_per_minute", "alta_per_minute", "alta_per_day")
LIMITS = (*IN_FLIGHT, *RATES, "max_open_chains")
"""The settings that limit requests."""

_MINUTES_A_DAY = 1440


class _Cap(NamedTuple):
    """The most requests in flight of some groups together, or None for any number."""

    setting: str
    most: int | None
    groups: tuple[Group, ...]


def cap_of(settings: Settings, group: Group) -> _Cap:
    """Return the cap on requests of `group` ([limits]: chains and counts have 3 each)."""
    if group == "alta":
        return _Cap("alta_max_in_flight", settings.alta_max_in_flight, ("alta",))
    if group == "counts":
        most = settings.counts_max_in_flight
        own = settings.max_in_flight if most is None else most
        return _Cap("counts_max_in_flight", own, ("counts",))
    if settings.lookups_max_in_flight is None:
        return _Cap("max_in_flight", settings.max_in_flight, ("chains", "lookups"))
    if group == "lookups":
        return _Cap("lookups_max_in_flight", settings.lookups_max_in_flight, ("lookups",))
    return _Cap("max_in_flight", settings.max_in_flight, ("chains",))


class _Window:
    """A window of time. It begins with the first request that is counted in it."""

    def __init__(self, setting: str, minutes: int) -> None:
        self.setting = setting
        self.minutes = minutes
        self._ends = -math.inf
        self._used = 0

    def remaining(self, most: int, now: float) -> int:
        """Return the number of requests that are left."""
        return most if now >= self._ends else max(0, most - self._used)

    def seconds_left(self, now: float, length: float) -> float:
        """Return the time until the window ends, or its whole length if none has begun."""
        return length if now >= self._ends else self._ends - now

    def count(self, now: float, length: float) -> None:
        """Count one request."""
        if now >= self._ends:
            self._ends = now + length
            self._used = 0
        self._used += 1


class Rates:
    """Requests in windows of time, by service. A request that is refused is not counted."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._windows = {
            "clevertap": (_Window("clevertap_per_minute", 1),),
            "alta": (_Window("alta_per_minute", 1), _Window("alta_per_day", _MINUTES_A_DAY)),
        }

    def admit(self, api: str) -> str | None:
        """Count a request, or return the setting that refuses it."""
        now = time.monotonic()
        limited = self._limited(api)
        for window, most in limited:
            if not window.remaining(most, now):
                return window.setting
        for window, _ in limited:
            window.count(now, self._length(window))
        return None

    def headers(self, api: str) -> dict[str, str]:
        """Return the headers on the window nearest to empty ([plans]), none without a limit.

        `X-RateLimit-Reset` is a whole number of Unix seconds, rounded up, so that a client that
        waits for it never comes too early.
        """
        now = time.monotonic()
        states = [
            (window.remaining(most, now), window.seconds_left(now, self._length(window)), most)
            for window, most in self._limited(api)
        ]
        # No page documents headers of CleverTap's.
        if api != "alta" or not states or not self._settings.rate_limit_headers:
            return {}
        # Of two that are equally empty, the one that stays so for longer.
        remaining, left, most = min(states, key=lambda state: (state[0], -state[1]))
        return {
            "X-RateLimit-Limit": str(most),
            "X-RateLimit-Remaining": str(remaining),
            "X-RateLimit-Reset": str(math.ceil(time.time() + left)),
        }

    def _limited(self, api: str) -> list[tuple[_Window, int]]:
        most = ((window, getattr(self._settings, window.setting)) for window in self._windows[api])
        return [(window, limit) for window, limit in most if limit is not None]

    def _length(self, window: _Window) -> float:
        return window.minutes * self._settings.window_seconds
