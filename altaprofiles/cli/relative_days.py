"""Days on the command line: as dates, or relative to the current day of each project."""

from __future__ import annotations

import re
import time
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from typing import TypeVar

import click
from click.core import ParameterSource

from .app import App

__all__ = [
    "RelativeDay",
    "check_form",
    "day",
    "day_or_seconds",
    "moment",
    "own_day",
    "resolve_days",
]

T = TypeVar("T", date, date | int, date | None, date | int | None)

_BEFORE = re.compile(r"-([0-9]{1,5})d")
_LONG_DASH = re.compile("[\u2010-\u2015\u2212]")
_WORDS = {"today": 0, "yesterday": 1}
_SYNC = "sync"
"""The command that warns of a project without a time zone in any case."""

_LARGEST = 13
"""Digits of the longest number that is left to the library, which has advice on milliseconds."""


class RelativeDay:
    """A day relative to the current one, which depends on the account. As text: as it was given.

    Attributes:
        before: the number of days before the current one.
        days: the day of each account, by its name; empty until `resolve_days`.
    """

    def __init__(self, text: str, before: int) -> None:
        self.before = before
        self.days: dict[str, date] = {}
        self._text = text

    def __str__(self) -> str:
        return self._text


def own_day(value: T | RelativeDay, account: str | None) -> T | date:
    """Return the day of an account, for the value of an option of a command that runs.

    Args:
        value: the value.
        account: the name of the account, of a command with several; else None.
    """
    return value.days[str(account)] if isinstance(value, RelativeDay) else value


def day(text: str) -> date | RelativeDay:
    """Return the day of an option's value. Given to click as a `type`.

    It is 2026-01-31, 20260131, `today`, `yesterday`, or -7d for seven days ago. A command gets
    every form as a date, because `resolve_days` has replaced relative ones by then; except for
    those of several accounts that differ, of which `own_day` returns each.

    Raises:
        click.BadParameter: it is none of these.
    """
    from ..wire.days import day_in

    if (absolute := day_in(text)) is not None:
        return absolute
    if (typed := _LONG_DASH.sub("-", text)) != text:
        raise click.BadParameter(
            f"{text!r} has a long dash, as word processors write; write {typed}"
        )
    before = _WORDS.get(text)
    if match := _BEFORE.fullmatch(text):
        before = int(match[1])
    if before is None:
        check_form(text)
        raise click.BadParameter(
            f"{text!r} is not a day; write it as 2026-01-31, today, yesterday, or -7d for seven "
            f"days ago"
        )
    return RelativeDay(text, before)


def check_form(text: str) -> None:
    """Raise `click.BadParameter` if the value of an option is no day, and say why."""
    from ..wire.days import day_of_excel, day_of_time, length_of_month

    if (of_time := day_of_time(text)) is not None:
        raise click.BadParameter(f"{text!r} is a time, and a day is expected; write {of_time}")
    if (of_excel := day_of_excel(text)) is not None:
        raise click.BadParameter(f"{text!r} is Excel's number of a day; write {of_excel}")
    if (length := length_of_month(text)) is not None:
        raise click.BadParameter(f"{text!r} is not a day: {length}")


def day_or_seconds(text: str) -> date | int | RelativeDay:
    """Return the value of an option that is a day or a time: as `day`, or as an int."""
    is_number = text.isascii() and text.isdecimal() and len(text) <= _LARGEST
    return int(text) if is_number else day(text)


def moment(text: str) -> str:
    """Return the time of an option's value, in UTC and whole seconds. Given to click as a `type`.

    Raises:
        click.BadParameter: it is not a time with its difference from UTC.
    """
    from ..wire.days import length_of_month

    with suppress(ValueError):
        at = datetime.fromisoformat(text)
        # The calendar has the days before and after it as well, whatever the zone.
        if at.tzinfo is not None and 1970 < at.year < 9999:
            return _moment_text(at.timestamp())
    if (length := length_of_month(text)) is not None:
        raise click.BadParameter(f"{text!r} is not a time: {length}")
    raise click.BadParameter(
        f"{text!r} is not a time with a zone; write it as 2026-01-31T02:00:00Z"
    )


def _moment_text(at: float) -> str:
    return f"{datetime.fromtimestamp(int(at), UTC):%Y-%m-%dT%H:%M:%SZ}"


def resolve_days(context: click.Context) -> None:
    """Replace relative days among the parameters of a command with dates.

    So the command line that resumes it names the same days tomorrow. Where they are not the same
    days for all accounts, they stay, with the days of each, and that line has --as-of.
    """
    relative = {
        name: value for name, value in context.params.items() if isinstance(value, RelativeDay)
    }
    as_of: str | None = context.params.get("as_of")
    if not relative:
        if as_of is not None:
            context.fail("--as-of is for relative days, such as yesterday; leave it out")
        return
    app = context.ensure_object(App)
    # One time for all options and accounts, even around midnight.
    at = time.time() if as_of is None else datetime.fromisoformat(as_of).timestamp()
    current: dict[str, date] = {}
    words: list[str] = []
    for account in app.accounts or (None,):
        zone, today = _today_of(context, account, at)
        current[str(account)] = today
        words.append(f"{today} for {account} ({zone})")
    if len(set(current.values())) == 1:
        today = next(iter(current.values()))
        context.params |= {
            name: today - timedelta(days=value.before) for name, value in relative.items()
        }
        _store_as_of(context, None)
        return
    for value in relative.values():
        value.days = {
            account: today - timedelta(days=value.before) for account, today in current.items()
        }
    _store_as_of(context, _moment_text(at))
    app.info(f"Relative days are those of each account: today is {', '.join(words)}")


def _store_as_of(context: click.Context, value: str | None) -> None:
    """Store the value of --as-of of the command line that resumes this one, or leave it out.

    A sync has no such option: its next run finishes what is unfinished, whatever the day.
    """
    if "as_of" in context.params:
        source = ParameterSource.DEFAULT if value is None else ParameterSource.COMMANDLINE
        context.params["as_of"] = value
        context.set_parameter_source("as_of", source)


def _today_of(context: click.Context, account: str | None, at: float) -> tuple[str, date]:
    """Return the time zone of the account's project, or UTC, and the day there."""
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
    name = name or "UTC"
    return name, today(zone_of("timezone", name), at)
