"""Days and ranges of days, as CleverTap's queries have them. Pure functions.

Sources:
    [profiles] "Get User Profiles", https://developer.clevertap.com/docs/get-user-profiles-api
"""

from __future__ import annotations

import re
from calendar import monthrange
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import TypeAlias

from ..base.checks import check_whole, plain, shown
from ..errors import InvalidArgument

__all__ = [
    "Day",
    "check_day",
    "check_range",
    "date_of",
    "day_in",
    "day_of_excel",
    "day_of_time",
    "is_day",
    "last_to_come",
    "length_of_month",
    "split_range",
    "utc_date",
    "windows",
]

Day: TypeAlias = date | int | str
"""The start or end of a range: a date, text such as "2026-01-31" or "20260131", or an int of the
form YYYYMMDD or of epoch seconds.

The service takes both forms of int ([profiles], Body Parameters).
"""


_FIX = "pass a date, '2026-01-31', or a whole number: YYYYMMDD, or epoch seconds"


def check_range(
    start: object,
    end: object,
    names: tuple[str, str] = ("start", "end"),
    fix: str = _FIX,
) -> tuple[int, int]:
    """Return both ends of a range in the form in which they are sent ([profiles], Body Parameters).

    Args:
        start, end: the ends, both inclusive.
        names: the arguments that hold them.
        fix: the advice in an error of an end.

    Raises:
        ConfigurationError: an end is not a day, their forms differ, or `end` is before `start`.
    """
    of_start, of_end = names
    first, last = check_day(of_start, start, fix), check_day(of_end, end, fix)
    if is_day(first) != is_day(last):
        raise InvalidArgument(
            f"{of_end}: {end} does not have the form of `{of_start}`, {start}; use dates for both, "
            f"or epoch seconds for both"
        )
    if last < first:
        raise InvalidArgument(f"{of_end}: {end} is before `{of_start}`, {start}; swap them")
    return first, last


def windows(start: Day, end: Day, n: int) -> list[tuple[int, int]]:
    """Return a range split into `n` contiguous parts of nearly equal length, in order.

    Each is the first and the last day of a part, both included. The parts hold every day once. They
    are those of `by_event(windows=n)`, so that several processes can read one each. Nothing is
    sent, and no time zone is needed: days are those of the CleverTap project wherever this runs.

    Args:
        start, end: as for `by_event`: first and last day, both included, or two ints of epoch
            seconds.
        n: number of parts. There are fewer if the range has fewer days (or seconds).

    Returns:
        Pairs of ints of the form YYYYMMDD, or of epoch seconds if the range is in seconds
        ([profiles], Body Parameters). Each is a `start` and an `end` for `by_event`.

    Raises:
        ConfigurationError: an end is not a day, their forms differ, `end` is before `start`, or
            `n` is not a whole number of at least 1.

    >>> windows(date(2026, 1, 1), "2026-01-31", 3)
    [(20260101, 20260110), (20260111, 20260120), (20260121, 20260131)]
    """
    return split_range(*check_range(start, end), check_whole("n", n, least=1))


def check_day(name: str, value: object, fix: str = _FIX) -> int:
    """Return one end of a range in the form in which it is sent ([profiles], Body Parameters).

    Args:
        name: the argument that holds it.
        value: the end.
        fix: the advice in an error.

    Raises:
        ConfigurationError: it is neither a day nor epoch seconds.
    """
    if _is_missing(value):
        raise InvalidArgument(f"{name}: got {value}, which is no day; {fix}")
    if isinstance(value, datetime):
        raise InvalidArgument(
            f"{name}: got the datetime {shown(value)}, but a range has days of the CleverTap "
            f"project; pass .date()"
        )
    if isinstance(value, str):
        found = day_in(value)
        if found is None:
            text = str.__str__(value)
            if (of_time := day_of_time(text)) is not None:
                raise InvalidArgument(f"{name}: {text!r} is a time; pass its day, {of_time!r}")
            if (of_excel := day_of_excel(text)) is not None:
                raise InvalidArgument(f"{name}: {text!r} is Excel's number of {of_excel}; {fix}")
            if fix == _FIX and re.fullmatch("[1-9][0-9]{9}", text):
                raise InvalidArgument(
                    f"{name}: {text!r} is text, and epoch seconds are an int; pass {text}, or a "
                    "day as '2026-01-31'"
                )
            if (length := length_of_month(text)) is not None:
                raise InvalidArgument(f"{name}: {shown(text)} is not a day: {length}")
            raise InvalidArgument(f"{name}: {shown(text)} is not a day; {fix}")
        value = found
    if isinstance(value, date):
        if value.year < _FIRST_YEAR:
            raise InvalidArgument(f"{name}: {value} is before the year {_FIRST_YEAR}; {fix}")
        value = value.year * 10_000 + value.month * 100 + value.day
    value = plain(value)
    if isinstance(value, bool) or not isinstance(value, int):
        kind = (
            f"the {type(value).__name__} "
            if value is None or isinstance(value, bool | float)
            else ""
        )
        raise InvalidArgument(f"{name}: got {kind}{shown(value)}; {_conversion(value) or fix}")
    if is_day(value):
        try:
            date_of(value)
        except ValueError:
            length = length_of_month(str(value))
            why = f"; {fix}" if length is None else f": {length}"
            raise InvalidArgument(f"{name}: {value} is not a day{why}") from None
    elif 10**4 <= value < 10**5 and (of_excel := day_of_excel(str(value))) is not None:
        raise InvalidArgument(f"{name}: {value} is Excel's number of {of_excel}; {fix}")
    elif not 10**9 <= value < 10**10:
        hint = ", and looks like milliseconds" if 10**12 <= value < 10**13 else ""
        raise InvalidArgument(f"{name}: {shown(value)} has neither 8 nor 10 digits{hint}; {fix}")
    return value


def _is_missing(value: object) -> bool:
    """Return whether a value of pandas or NumPy stands for a day that is missing."""
    is_of_numpy = type(value).__name__ == "datetime64" and str(value) == "NaT"
    return is_of_numpy or type(value).__name__ in ("NaTType", "NAType")


def _conversion(value: object) -> str | None:
    """Return the advice on a day or a time of another library; None for any other value."""
    kind = type(value)
    if kind.__name__ == "datetime64":
        return "pass .astype('datetime64[D]').item(), a date (in pandas: pd.Timestamp(…).date())"
    if hasattr(kind, "start_time"):
        return "pass .start_time.date(), or .end_time.date() for its last day"
    return "pass .as_py() of a value of Arrow" if hasattr(kind, "as_py") else None


_DAY = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})|([0-9]{4})([0-9]{2})([0-9]{2})")


def day_in(text: str) -> date | None:
    """Return the day that is written as 2026-01-31 or 20260131, or None for any other text.

    The second form is the service's ([profiles], Body Parameters).
    """
    # Not `date.fromisoformat`, which takes weeks as well, such as 2026-W02.
    if (match := _DAY.fullmatch(text)) is None:
        return None
    try:
        return date(*map(int, filter(None, match.groups())))
    except ValueError:
        return None


def day_of_time(text: str) -> str | None:
    """Return the day in a text that is a day with a time, which the service takes for none.

    In the form that `day_in` reads ([profiles], Body Parameters).
    """
    with suppress(ValueError):
        if day_in(text) is None and day_in(text[:10].rstrip("T ")) is not None:
            return str(datetime.fromisoformat(text).date())
    return None


def length_of_month(text: str) -> str | None:
    """Return a clause on the month of a day that is past its end; None for any other text.

    The day has a form that `day_in` reads ([profiles], Body Parameters), with or without a time.
    """
    match = _DAY.fullmatch(re.split("[T ]", text, maxsplit=1)[0])
    year, month, day = map(int, filter(None, match.groups())) if match else (0, 0, 0)
    # Of the year 0, which `date` lacks, the month is not what is wrong.
    if not year or not 1 <= month <= 12 or day <= (length := monthrange(year, month)[1]):
        return None
    # Not `calendar.month_name`, which is in the language of the process's locale.
    return f"{year:04}-{month:02} has {length} days"


# Its day 1 is 1900-01-01, and its 1900 has a 29 February that the calendar lacks.
_BEFORE_EXCEL = date(1899, 12, 30)


def day_of_excel(text: str) -> date | None:
    """Return the day of this century that Excel shows as a text of digits in a cell without format.

    It is never one that the service takes: those have 8 or 10 digits ([profiles], Body Parameters).
    """
    if re.fullmatch(r"[0-9]{5}", text) is None:
        return None
    day = _BEFORE_EXCEL + timedelta(days=int(text))
    return day if 2000 <= day.year < 2100 else None


_FIRST_YEAR = 1000


def is_day(value: int) -> bool:
    """Return whether one end of a range is a day, and not epoch seconds.

    Days are sent as YYYYMMDD ([profiles], Body Parameters).
    """
    return 10**7 <= value < 10**8


def date_of(day: int) -> date:
    """Return the date of a day of the form YYYYMMDD ([profiles], Body Parameters)."""
    return date(day // 10_000, day // 100 % 100, day % 100)


def utc_date(end: int) -> date:
    """Return the day of one end of a range, of which another form than a day is a time in UTC.

    Its forms are those of [profiles], Body Parameters.
    """
    return date_of(end) if is_day(end) else datetime.fromtimestamp(end, UTC).date()


def last_to_come(end: int, today: date) -> str | None:
    """Return a clause on the last day of a range that is after `today`, or None if it is not.

    The forms of an end are those of [profiles], Body Parameters.

    Args:
        end: the end of the range.
        today: as for `EventQuery.check_begun`.
    """
    if (last := utc_date(end)) <= today:
        return None
    return (
        f"the last day, {last}, is in the future, as it is {today} even in the time zone that is "
        f"furthest ahead, UTC+14:00"
    )


def split_range(start: int, end: int, windows: int) -> list[tuple[int, int]]:
    """Return a range in at most `windows` contiguous parts of nearly equal length, in order.

    Its form stays ([profiles], Body Parameters).
    """
    days = is_day(start)
    first = date_of(start).toordinal() if days else start
    span = (date_of(end).toordinal() if days else end) - first + 1
    parts = min(windows, span)
    edges = [first + span * part // parts for part in range(parts + 1)]
    bounds = [(low, high - 1) for low, high in pairwise(edges)]
    return [(_from_ordinal(a), _from_ordinal(b)) for a, b in bounds] if days else bounds


def _from_ordinal(ordinal: int) -> int:
    return check_day("day", date.fromordinal(ordinal))
