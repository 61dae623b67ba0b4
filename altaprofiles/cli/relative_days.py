"""Days on the command line: as dates, or relative to the current day of the project."""

from __future__ import annotations

import re
from datetime import date, timedelta

import click

from .app import App

__all__ = ["day", "day_or_seconds", "resolve_days"]

_BEFORE = re.compile(r"-([0-9]{1,5})d")
_WORDS = {"today": 0, "yesterday": 1}
_SYNC = "sync"
"""The command that warns of a project without a time zone in any case."""

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
    """
    relative = {
        name: value.before
        for name, value in context.params.items()
        if isinstance(value, _RelativeDay)
    }
    if relative:
        # One current day for all options, even around midnight.
        current = _today(context)
        context.params |= {
            name: current - timedelta(days=before) for name, before in relative.items()
        }


def _today(context: click.Context) -> date:
    """Return the current day in the time zone of the account's project, or in UTC.

    Of several accounts it is that of the one whose day is the earliest, so that `yesterday` is over
    for all.
    """
    accounts = context.ensure_object(App).accounts
    return min(_today_of(context, account) for account in accounts or (None,))


def _today_of(context: click.Context, account: str | None) -> date:
    from ..accounts import find_clevertap
    from ..base.zones import today, zone_of
    from ..errors import ConfigurationError

    app = context.ensure_object(App)
    name = context.params.get("timezone")
    if name is None:
        try:
            found = find_clevertap(account)
        except ConfigurationError:
            # The session raises it again, with advice.
            found = None
        name = None if found is None else found.credentials.timezone
        if found is not None and name is None and context.info_name != _SYNC:
            of = f"{account}: " if len(app.accounts) > 1 else ""
            app.warn(
                f"{of}the time zone of the project is not known, so that relative days are those "
                "of UTC: name it in CLEVERTAP_TIMEZONE, or as timezone of the account in the "
                "credentials file"
            )
    return today(zone_of("timezone", name or "UTC"))
