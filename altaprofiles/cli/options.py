"""`--from` and `--to`: the days that a question is about."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any, TypeVar

import click

__all__ = ["day_options"]

F = TypeVar("F", bound=Callable[..., Any])


def _day(text: str) -> date | int:
    """Return what the library takes for a day: a date, or YYYYMMDD, or seconds since 1970."""
    try:
        return int(text) if text.isdecimal() else date.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is no day; write it as 2026-01-31") from None


def day_options(command: F) -> F:
    """Give a command `--from` and `--to`, as its parameters `start` and `end`."""
    for option in (
        click.option(
            "--to",
            "end",
            type=_day,
            metavar="DAY",
            required=True,
            help="The last day; it counts, too.",
        ),
        click.option(
            "--from",
            "start",
            type=_day,
            metavar="DAY",
            required=True,
            help="The first day, such as 2026-01-31 or 20260131, in the time zone of the "
            "CleverTap project. Or a time, in seconds since 1970.",
        ),
    ):
        command = option(command)
    return command
