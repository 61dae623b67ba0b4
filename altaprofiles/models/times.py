"""Times in records: epoch seconds and dates. Pure."""

from __future__ import annotations

import re
from datetime import datetime

from msgspec import Raw

from ..base.dates import is_date, moment_in
from ..base.jsontext import plain_text
from ..errors import InvalidArgument

__all__ = ["parse_date", "whole_number"]


_INTEGER = re.compile(r"\s*-?[0-9]{1,100}\s*")


def whole_number(part: Raw) -> int | None:
    """Return a JSON number without a fraction, or text that reads as one, else None."""
    text = plain_text(part, whole=True)
    return int(text) if text is not None and _INTEGER.fullmatch(text) else None


def parse_date(value: str) -> datetime:
    """Return the date in a property such as `"$D_1487576752"`, as an aware datetime in UTC.

    CleverTap writes dates inside `profileData` as `$D_` followed by epoch seconds.

    Raises:
        ConfigurationError: `value` does not have that form, or is beyond the years 1 to 9999.

    >>> parse_date("$D_1487576752")
    datetime.datetime(2017, 2, 20, 7, 45, 52, tzinfo=datetime.timezone.utc)
    """
    if not isinstance(value, str) or not is_date(value):
        raise InvalidArgument(
            "value: not a date property; pass text of '$D_' and epoch seconds", value=value
        )
    found = moment_in(value)
    if found is None:
        raise InvalidArgument(
            "value: a date beyond the years 1 to 9999; read it from the text", value=value
        )
    return found
