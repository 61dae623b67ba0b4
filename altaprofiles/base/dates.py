"""Points in time: epoch seconds, and the dates that CleverTap writes as text. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

__all__ = ["is_date", "moment", "moment_in"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def moment(seconds: int | None) -> datetime | None:
    """Return epoch seconds as an aware datetime in UTC, or None beyond the years 1 to 9999."""
    if seconds is None:
        return None
    try:
        return _EPOCH + timedelta(seconds=seconds)
    except OverflowError:
        return None


_DATE = re.compile(r"\$D_(-?[0-9]{1,11})")


def is_date(text: str) -> bool:
    """Return True for `$D_` and epoch seconds, as CleverTap writes dates in `profileData`."""
    return _DATE.fullmatch(text) is not None


def moment_in(text: str) -> datetime | None:
    """Return the date in a text of that form, or None beyond the years 1 to 9999."""
    match = _DATE.fullmatch(text)
    return None if match is None else moment(int(match[1]))
