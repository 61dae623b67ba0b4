"""Forecasts of large exports and lookups, from the answer to one small request. Pure."""

from __future__ import annotations

import math

from ...base.wording import duration
from ...credentials import CHAIN_SLOTS, Alta, CleverTap
from ...models import RateLimit
from ...wire.query import BATCH_SIZE

__all__ = ["forecast_export", "forecast_lookups"]

_PEOPLE = 1_000_000

_LONGEST_PAGE = 30.0
"""Seconds after which the service's gateway gives up on a page."""


def forecast_export(account: CleverTap, seconds: float | None) -> str:
    """Return how many requests an export of a million people takes, and how long.

    A page takes longer than a small request, by an unknown factor: both bounds are stated.

    Args:
        account: its cap on requests in flight sets the pace.
        seconds: the duration of a small request, or None if none has succeeded.
    """
    slots = CHAIN_SLOTS if account.max_in_flight == "auto" else account.max_in_flight
    # Each slot has a chain of its own, which one more request opens.
    requests = math.ceil(_PEOPLE / BATCH_SIZE) + slots
    rounds = math.ceil(requests / slots)
    longest = f"{duration(rounds * _LONGEST_PAGE)} if each takes {_LONGEST_PAGE:.0f} s"
    least = "" if seconds is None else f"{duration(rounds * seconds)} {_as_measured(seconds)}, "
    return (
        f"an export of {_PEOPLE:,} people takes about {requests:,} requests, {slots} at a time: "
        f"{least}{longest}, the longest before the service gives up"
    )


def forecast_lookups(key: Alta, seconds: float | None, stated: RateLimit) -> str:
    """Return how many requests a lookup of a million users takes, and how long.

    Args:
        key: its cap on requests in flight and its rate set the pace.
        seconds: the duration of a small request, or None if none has succeeded.
        stated: the limit that the service states, whose period is unknown.
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
    if paces:
        slowest, pace = max(paces)
        text = f"{text}: {duration(slowest)} {pace}"
    if stated.limit and stated.limit < _PEOPLE:
        periods = math.ceil(_PEOPLE / stated.limit)
        text = f"{text}; the service's limit allows that in {periods:,} of its periods"
    return text


def _as_measured(seconds: float) -> str:
    return f"if each takes {seconds:.2g} s as this check did"
