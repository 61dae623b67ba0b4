"""Forecasts of large exports and lookups, from the answer to one small request. No I/O."""

from __future__ import annotations

import math
import time

from ...base.wording import duration
from ...credentials import CHAIN_SLOTS, Alta, CleverTap
from ...models import RateLimit
from ...wire.query import BATCH_SIZE

__all__ = ["forecast_export", "forecast_lookups", "renews_in"]

_PEOPLE = 1_000_000

_LONGEST_PAGE = 30.0
"""Seconds after which the service's gateway gives up on a page."""


_PERIODS = (
    ("a minute", 60),
    ("an hour", 3600),
    ("a day", 86_400),
    ("a month", 31 * 86_400),
)
"""The periods that a limit is likely to have, in seconds."""

_SLACK = 1.02
"""Most by which a reset may be further away than its period, because it is rounded up."""

_LONGEST = 400 * 86_400
"""Seconds until a limit's reset, above which the service's header makes no sense."""


def renews_in(stated: RateLimit) -> float | None:
    """Return the seconds until a limit renews, or None if the service does not say."""
    wait = 0.0 if stated.reset is None else stated.reset - time.time()
    return wait if 0 < wait < _LONGEST else None


def forecast_export(
    account: CleverTap,
    seconds: float | None,
    stated: RateLimit | None = None,
    wait: float | None = None,
) -> str:
    """Return how many requests an export of a million people takes, and how long.

    A page takes longer than a small request, by an unknown factor: both bounds are stated.

    Args:
        account: its cap on requests in flight sets the pace.
        seconds: the duration of a small request, or None if none has succeeded.
        stated: the limit that the service states, or None.
        wait: seconds until that limit renews, or None.
    """
    slots = CHAIN_SLOTS if account.max_in_flight == "auto" else account.max_in_flight
    # Each slot has a chain of its own, which one more request opens.
    requests = math.ceil(_PEOPLE / BATCH_SIZE) + slots
    rounds = math.ceil(requests / slots)
    longest = f"{duration(rounds * _LONGEST_PAGE)} if each takes {_LONGEST_PAGE:.0f} s"
    least = "" if seconds is None else f"{duration(rounds * seconds)} {_as_measured(seconds)}, "
    text = (
        f"an export of {_PEOPLE:,} people takes about {requests:,} requests, {slots} at a time: "
        f"{least}{longest}, the longest before the service gives up"
    )
    limited = _limited(requests, stated, wait)
    return text if limited is None else f"{text}; {duration(limited[0])} {limited[1]}"


def forecast_lookups(
    key: Alta, seconds: float | None, stated: RateLimit, wait: float | None = None
) -> str:
    """Return how many requests a lookup of a million users takes, and how long.

    Args:
        key: its cap on requests in flight and its rate set the pace.
        seconds: the duration of a small request, or None if none has succeeded.
        stated: the limit that the service states.
        wait: seconds until that limit renews, or None.
    """
    slots, rate = key.max_in_flight, key.requests_per_minute
    text = f"a lookup of {_PEOPLE:,} users takes {_PEOPLE:,} requests"
    paces = []
    if slots == "auto":
        text = f"{text}, as many at a time as the service turns out to take"
    else:
        text = f"{text}, {slots} at a time"
    if seconds is not None and slots != "auto":
        paces.append((_PEOPLE * seconds / slots, _as_measured(seconds)))
    if rate is not None:
        paces.append((_PEOPLE * 60 / rate, f"at {rate:,} a minute"))
    if (limited := _limited(_PEOPLE, stated, wait)) is not None:
        paces.append(limited)
    if paces:
        slowest, pace = max(paces)
        text = f"{text}: {duration(slowest)} {pace}"
    if limited is None and stated.limit and stated.limit < _PEOPLE:
        text = (
            f"{text}; the service states a limit of {stated.limit:,} requests, and not for how "
            f"long: at that many a day it takes {duration(_PEOPLE / stated.limit * 86_400)}"
        )
    return text


def _limited(
    requests: int, stated: RateLimit | None, wait: float | None
) -> tuple[float, str] | None:
    """Return how long a limit makes requests take, in seconds, and the limit in words.

    A service states when its limit renews, and not its period: the shortest usual one that is as
    long as the wait is taken.
    """
    if stated is None or not stated.limit or stated.limit >= requests or wait is None:
        return None
    name, length = next(
        (period for period in _PERIODS if wait <= period[1] * _SLACK), ("a year", 366 * 86_400)
    )
    pace = f"at {stated.limit:,} {name}, the service's limit"
    return requests / stated.limit * length, pace


def _as_measured(seconds: float) -> str:
    return f"if each takes {seconds:.2g} s as this check did"
