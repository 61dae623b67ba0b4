"""Days on the command line: as dates, or relative to the current day of the project."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta, tzinfo

import click

from .app import App

__all__ = ["day", "day_or_seconds", "resolve_days"]

_BEFORE = re.compile(r"-([0-9]{1,5})d")
_WORDS = {"today": 0, "yesterday": 1}
_LARGEST = 13
"""Digits of the longest number that is left to the library, which has advice on milliseconds."""


class _RelativeDay:
    """A day relative to the current one, which depends on the account.

    Attributes:
        before: the number of days before the current one.
    """

    def __init__(self, before: int) -> None:
        self.before = before


def day(text: str) -> date | _RelativeDay:
    """Return the day of an option's value. Given to click as a `type`.

    It is 2026-01-31, 20260131, `today`, `yesterday`, or -7d for seven days ago. A command gets
    every form as a date, because `resolve_days` has replaced relative ones by then.

    Raises:
        click.BadParameter: it is none of these.
    """
    from ..wire.days import day_in

    if (absolute := day_in(text)) is not None:
        return absolute
    before = _WORDS.get(text)
    if match := _BEFORE.fullmatch(text):
        before = int(match[1])
    if before is None:
        raise click.BadParameter(
            f"{text!r} is not a day; write it as 2026-01-31, today, yesterday, or -7d for seven "
            f"days ago"
        )
    return _RelativeDay(before)


def day_or_seconds(text: str) -> date | int | _RelativeDay:
    """Return the value of an option that is a day or a time: as `day`, or as an int."""
    is_number = text.isascii() and text.isdecimal() and len(text) <= _LARGEST
    return int(text) if is_number else day(text)


def resolve_days(context: click.Context) -> None:
    """Replace relative days among the parameters of a command with dates.

    So the command line that resumes it names the same days tomorrow.

    Raises:
        AltaProfilesError: the time zone of the account cannot be found.
    """
    relative = {
        name: value.before
        for name, value in context.params.items()
        if isinstance(value, _RelativeDay)
    }
    if relative:
        # One current day for all options, even around midnight.
        today = datetime.now(_zone(context.ensure_object(App))).date()
        context.params |= {
            name: today - timedelta(days=before) for name, before in relative.items()
        }


def _zone(app: App) -> tzinfo:
    return UTC
