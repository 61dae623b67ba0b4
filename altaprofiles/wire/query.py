"""Arguments of CleverTap's event queries: ranges, batch sizes and cursors. Pure functions.

Sources:
    [profiles] "Get User Profiles", https://developer.clevertap.com/docs/get-user-profiles-api
    [cql] "CleverTap Query Language",
        https://developer.clevertap.com/docs/clevertap-query-language
    [uri] RFC 3986, "Uniform Resource Identifier"
    [seen] public clients, captures and tests
"""

from __future__ import annotations

import re
from datetime import date
from typing import Any

from msgspec import Struct, structs

from ..base.checks import (
    check_flag,
    check_key,
    check_no_database,
    check_whole,
    plain,
    shown,
    shown_setting,
)
from ..base.structs import CalledStruct
from ..errors import ConfigurationError, InvalidArgument
from .days import Day, check_range, last_to_come, split_range, utc_date
from .language import Filters

__all__ = [
    "BATCH_SIZE",
    "CURSOR",
    "EventQuery",
    "check_batch_size",
    "check_cursor",
    "check_event",
    "is_everyone",
]

BATCH_SIZE = 4991
"""People per page by default: the largest multiple of 23 up to 5,000 ([profiles], Batch Size).

The service uses the same size if `batch_size` is left out ([seen]).
"""

_BUCKETS = 23

CURSOR = re.compile(r"[A-Za-z0-9\-._~%!$'()*+,;=:@/?]+")
"""The characters of a query ([uri], 3.4), without the `&` that would end the parameter."""


class EventQuery(Struct, frozen=True, metaclass=CalledStruct):
    """The query of one chain: everyone with `event` in a range of days ([profiles], Get Cursor).

    Make one with `of`, which checks its arguments. `split` gives parts that several processes can
    read, each with `session.profiles.by_query`.

    Without an event it asks for everyone with any event in the last 365 days. This is documented
    for queries with filters of profiles or other events ([cql], Query Language Template), and
    undocumented for queries without any. No public client has been seen to use it.

    It consists of plain values: it can be pickled and encoded as JSON, and holds no secret. Values
    of filters, which may be people's data, are in both, and not in its `repr`.

    Attributes:
        event: the event's name, spelled as in the dashboard; None for everyone.
        start, end: the range as it is sent, both inclusive: YYYYMMDD or epoch seconds; None for
            everyone.
        batch_size: people per page.
        app: whether records hold the app fields of devices.
        summaries: whether records hold event summaries, which is the parameter `events`.
        profile: whether records hold custom profile properties.
        filters: conditions that all of them meet.

    >>> charged = EventQuery.of("Charged", date(2026, 1, 1), "2026-01-31", app=True)
    >>> [query.window for query in charged.split(2)]
    [(20260101, 20260115), (20260116, 20260131)]
    """

    event: str | None
    start: int | None
    end: int | None
    batch_size: int = BATCH_SIZE
    app: bool = False
    summaries: bool = True
    profile: bool = True
    filters: Filters = Filters()

    @classmethod
    def of(
        cls,
        event: str | None,
        start: Day | None,
        end: Day | None,
        batch_size: int = BATCH_SIZE,
        app: bool = False,
        summaries: bool = True,
        profile: bool = True,
        filters: Filters = Filters(),  # noqa: B008
    ) -> EventQuery:
        """Return a query made of arguments as callers pass them.

        With None for event, start and end it asks for everyone.

        Args:
            event, start, end, batch_size, app, profile: as for `by_event`.
            summaries: the argument `events` of `by_event`.
            filters: `Filters.of` the arguments `event_properties`, `profile_fields` and `query` of
                `by_event`.

        Raises:
            ConfigurationError: an argument is invalid.
        """
        if not isinstance(filters, Filters):
            raise InvalidArgument(
                f"filters: expected Filters.of([Filter(…)]), got the {type(filters).__name__}",
                value=filters,
            )
        name = first = last = None
        if is_everyone("event", event, start, end):
            filters.check_for_everyone()
        else:
            name = check_event(event)
            first, last = check_range(start, end)
        return cls(
            name,
            first,
            last,
            check_batch_size(batch_size),
            check_flag("app", app),
            check_flag("summaries", summaries),
            check_flag("profile", profile),
            filters,
        )

    def split(self, windows: int) -> list[EventQuery]:
        """Return this query split into contiguous parts of nearly equal length, in order.

        There are `windows` parts, or fewer if the range has fewer days (or epoch seconds). A query
        for everyone has no range, and is one part.

        Raises:
            ConfigurationError: `windows` is not a whole number of at least 1.
        """
        windows = check_whole("windows", windows, least=1)
        if self.window is None:
            return [self]
        return [
            structs.replace(self, start=start, end=end)
            for start, end in split_range(*self.window, windows)
        ]

    def checked(self) -> EventQuery:
        """Return this query as `of` makes it, for one that was made without it.

        Raises:
            ConfigurationError: a value is invalid.
        """
        return EventQuery.of(*structs.astuple(self))

    def check_begun(self, today: date) -> None:
        """Raise `InvalidArgument` if all days are after `today`, when nobody can be there.

        Args:
            today: the day where days begin first, at UTC+14:00, because a query does not know the
                time zone of its project.
        """
        if self.start is not None and (first := utc_date(self.start)) > today:
            raise InvalidArgument(
                f"start: {first} is in the future, as it is {today} even in the time zone that is "
                f"furthest ahead, UTC+14:00; pass days that have begun"
            )

    def to_come(self, today: date) -> str | None:
        """Return a clause on a last day after `today`, as for `check_begun`, or None."""
        return None if self.end is None else last_to_come(self.end, today)

    @property
    def window(self) -> tuple[int, int] | None:
        """First and last day (or epoch second); None for everyone."""
        return None if self.start is None or self.end is None else (self.start, self.end)

    @property
    def members(self) -> dict[str, Any]:
        """The members of the request's body ([profiles], Get Cursor; [cql])."""
        base: dict[str, Any] = {"event_name": self.event, "from": self.start, "to": self.end}
        return ({} if self.event is None else base) | self.filters.members

    @property
    def subject(self) -> str:
        """The people whom the query asks for, in words, without their days."""
        people = "everyone" if self.event is None else repr(self.event)
        return f"{people} (filtered)" if self.filters else people

    def __str__(self) -> str:
        if self.window is None:
            return self.subject
        start, end = self.window
        return f"{self.subject} {start}" + ("" if start == end else f" to {end}")


def is_everyone(name: str, event: object, start: object, end: object) -> bool:
    """Return whether a query has neither event nor range, and is thus for everyone ([cql]).

    Args:
        name: the argument that holds the event.
        event, start, end: arguments as callers pass them; None is left out.

    Raises:
        ConfigurationError: some of them are left out, and others not.
    """
    values = {name: event, "start": start, "end": end}
    missing = [key for key, value in values.items() if value is None]
    if missing and len(missing) < len(values):
        given = " and ".join(f"`{key}`" for key in values if key not in missing)
        raise InvalidArgument(
            f"{missing[0]}: got None, where {given} {'are' if ' and ' in given else 'is'} given; "
            f"pass `{name}`, `start` and `end`, or none of them for everyone"
        )
    return bool(missing)


def check_event(event: object, argument: str = "event") -> str:
    """Return `event` if it can be the name of one ([profiles], Body Parameters).

    Args:
        event: the name.
        argument: the argument that holds it, with the position in it if it holds several.

    Raises:
        ConfigurationError: it is not text, is empty, holds a control character, or is the URL of a
            database.
    """
    if not isinstance(event, str):
        raise InvalidArgument(f"{argument}: expected the name of an event, got {shown(event)}")
    check_no_database(argument, event)
    try:
        return check_key(argument, event, noun="name")
    except ConfigurationError as error:
        # An event's name is not a person's, and may be shown.
        raise InvalidArgument(f"{error}, got {shown(str.__str__(event))}") from None


def check_batch_size(batch_size: object) -> int:
    """Return `batch_size` if it is a multiple of 23 from 23 to 4,991.

    The service keeps people in 23 buckets ([profiles], Batch Size). It rounds down to a multiple of
    23, and below 23 it sends everyone in one page ([seen]).

    Raises:
        ConfigurationError: any other value. The message names the nearest valid one.
    """
    batch_size = plain(batch_size)
    if isinstance(batch_size, bool) or not isinstance(batch_size, int):
        raise InvalidArgument(
            f"batch_size: expected an int, got {shown_setting(batch_size)}; pass a "
            f"multiple of {_BUCKETS}"
        )
    if not _BUCKETS <= batch_size <= BATCH_SIZE or batch_size % _BUCKETS:
        within = min(max(batch_size, _BUCKETS), BATCH_SIZE)
        nearest = round(within / _BUCKETS) * _BUCKETS
        raise InvalidArgument(
            f"batch_size: {shown_setting(batch_size)} is not a multiple of {_BUCKETS} from "
            f"{_BUCKETS} to {BATCH_SIZE}; the nearest is {nearest}"
        )
    return batch_size


def check_cursor(cursor: object) -> str:
    """Return `cursor` if it can be one.

    Cursors arrive percent-encoded ([profiles], Sample Response).

    Raises:
        ConfigurationError: `cursor` is not text, is empty, or holds a character that is not valid
            in a query ([uri], 3.4).
    """
    if not isinstance(cursor, str) or not CURSOR.fullmatch(cursor):
        raise InvalidArgument(
            f"cursor: {shown(cursor)} is not a cursor; pass `next_cursor` of a page unchanged"
        )
    return cursor
