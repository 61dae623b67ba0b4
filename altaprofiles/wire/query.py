"""The arguments of an event query: ranges, batch sizes, cursors. Pure functions.

Facts are cited as in `clevertap.py`.
"""

from __future__ import annotations

import re
from datetime import date, datetime
from itertools import pairwise
from typing import TypeAlias

from msgspec import Struct, structs

from ..base.checks import check_flag, check_key
from ..errors import ConfigurationError

__all__ = [
    "BATCH_SIZE",
    "CURSOR",
    "Day",
    "EventQuery",
    "check_batch_size",
    "check_cursor",
    "check_range",
]

Day: TypeAlias = date | int
"""An end of a date range: a date, an int YYYYMMDD, or an int of epoch seconds."""

BATCH_SIZE = 4991
"""People per page: the largest multiple of 23 up to 5,000, and what the service takes when
`batch_size` is left out [seen]."""

_BUCKETS = 23

# What RFC 3986 lets stand in a query, without the `&` that would end the parameter.
CURSOR = re.compile(r"[A-Za-z0-9\-._~%!$'()*+,;=:@/?]+")


class EventQuery(Struct, frozen=True):
    """One chain: everyone who did `event` from `start` to `end`, both inclusive.

    Plain values, so that it pickles, reads as JSON and holds no secret.

    Attributes:
        event: the name, in the dashboard's spelling.
        start, end: the range as it is sent: YYYYMMDD or epoch seconds.
        batch_size: people per page.
        app, summaries, profile: what the records hold.
    """

    event: str
    start: int
    end: int
    batch_size: int = BATCH_SIZE
    app: bool = False
    summaries: bool = True
    profile: bool = True

    @classmethod
    def of(
        cls,
        event: object,
        start: object,
        end: object,
        batch_size: object = BATCH_SIZE,
        app: object = False,
        summaries: bool = True,
        profile: object = True,
    ) -> EventQuery:
        """Return the query of arguments as callers pass them.

        Raises:
            ConfigurationError: one of them cannot work.
        """
        if not isinstance(event, str):
            raise ConfigurationError(f"event: expected its name as text, got {event!r}")
        first, last = check_range(start, end)
        return cls(
            check_key("event", event),
            first,
            last,
            check_batch_size(batch_size),
            check_flag("app", app),
            summaries,
            check_flag("profile", profile),
        )

    def split(self, windows: int) -> list[EventQuery]:
        """Return this query as contiguous parts of nearly equal length, in order.

        There are `windows` of them, or fewer when there are not that many days (seconds, for epoch
        seconds) to share out.
        """
        return [
            structs.replace(self, start=start, end=end)
            for start, end in _split_range(self.start, self.end, windows)
        ]

    @property
    def window(self) -> tuple[int, int]:
        """First and last day (or second)."""
        return self.start, self.end

    def __str__(self) -> str:
        return f"{self.event!r} {self.start}" + (
            "" if self.start == self.end else f" to {self.end}"
        )


def check_batch_size(batch_size: object) -> int:
    """Return `batch_size`, a multiple of 23 from 23 to 4,991.

    The service keeps people in 23 buckets and rounds down to a multiple; at 22 and below it sends
    everyone in one page ([profiles], Batch Size; [seen]).

    Raises:
        ConfigurationError: any other value; names the nearest valid one.
    """
    if isinstance(batch_size, bool) or not isinstance(batch_size, int):
        raise ConfigurationError(
            f"batch_size: expected an int, got {batch_size!r}; pass a multiple of {_BUCKETS}"
        )
    if not _BUCKETS <= batch_size <= BATCH_SIZE or batch_size % _BUCKETS:
        nearest = min(max(round(batch_size / _BUCKETS) * _BUCKETS, _BUCKETS), BATCH_SIZE)
        raise ConfigurationError(
            f"batch_size: {batch_size} is not a multiple of {_BUCKETS} from {_BUCKETS} to "
            f"{BATCH_SIZE}; the nearest is {nearest}"
        )
    return batch_size


def check_cursor(cursor: object) -> str:
    """Return `cursor`, which arrives percent-encoded and goes back byte for byte.

    Raises:
        ConfigurationError: it is not text, is empty, or holds a character that no cursor has.
    """
    if not isinstance(cursor, str) or not CURSOR.fullmatch(cursor):
        raise ConfigurationError(
            f"cursor: {cursor!r} holds something no cursor has; pass `next_cursor` unchanged"
        )
    return cursor


def check_range(start: object, end: object) -> tuple[int, int]:
    """Return both ends of a range as the service takes them: YYYYMMDD or epoch seconds, inclusive.

    Raises:
        ConfigurationError: a value of the wrong form, two different forms, or `end` before `start`.
    """
    first, last = _check_day("start", start), _check_day("end", end)
    if _is_day(first) != _is_day(last):
        raise ConfigurationError(
            f"end: {end} is not of the same form as `start`, {start}; use dates for both, or "
            f"epoch seconds for both"
        )
    if last < first:
        raise ConfigurationError(f"end: {end} is before `start`, {start}; swap them")
    return first, last


def _check_day(name: str, value: object) -> int:
    fix = "pass a date, or a whole number: YYYYMMDD, or epoch seconds"
    if isinstance(value, datetime):
        raise ConfigurationError(
            f"{name}: got the datetime {value!r}, which could mean its day or its second; "
            f"pass .date(), or int(.timestamp()) of an aware one"
        )
    if isinstance(value, date):
        return value.year * 10_000 + value.month * 100 + value.day
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigurationError(f"{name}: got the {type(value).__name__} {value!r}; {fix}")
    if _is_day(value):
        try:
            _to_date(value)
        except ValueError:
            raise ConfigurationError(f"{name}: {value} is no day of the calendar; {fix}") from None
    elif not 10**9 <= value < 10**10:
        hint = "; these look like milliseconds" if 10**12 <= value < 10**13 else ""
        raise ConfigurationError(f"{name}: {value} has neither 8 digits nor 10{hint}; {fix}")
    return value


def _is_day(value: int) -> bool:
    return 10**7 <= value < 10**8


def _to_date(day: int) -> date:
    return date(day // 10_000, day // 100 % 100, day % 100)


def _split_range(start: int, end: int, windows: int) -> list[tuple[int, int]]:
    days = _is_day(start)
    first = _to_date(start).toordinal() if days else start
    span = (_to_date(end).toordinal() if days else end) - first + 1
    parts = min(windows, span)
    edges = [first + span * part // parts for part in range(parts + 1)]
    bounds = [(low, high - 1) for low, high in pairwise(edges)]
    return [(_from_ordinal(a), _from_ordinal(b)) for a, b in bounds] if days else bounds


def _from_ordinal(ordinal: int) -> int:
    return _check_day("day", date.fromordinal(ordinal))
