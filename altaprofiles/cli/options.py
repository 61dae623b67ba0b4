"""Options that several commands have: days, and outputs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any, TypedDict, TypeVar

import click

__all__ = ["Output", "day_options", "output_options"]

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


class Output(TypedDict):
    """Where to, and how: the options that both commands have."""

    to: str
    format: str | None
    flatten: tuple[str, ...]
    table: str | None
    bom: bool
    spool: str | None
    resume: bool


def output_options(command: F) -> F:
    for option in reversed(
        [
            click.option(
                "-o",
                "--out",
                "to",
                type=click.Path(),
                required=True,
                metavar="FILE|URL",
                help="The output. Its ending says what it becomes: .ndjson, .jsonl, .csv (each "
                "also with .gz or .zst), .parquet, .duckdb; or a table in PostgreSQL, "
                "postgresql://user@host/database/table.",
            ),
            click.option(
                "--format",
                type=click.Choice(["ndjson", "csv", "parquet", "duckdb", "postgres"]),
                help="What it becomes, whatever its ending.",
            ),
            click.option(
                "--flatten",
                metavar="KEY",
                multiple=True,
                help="A key of the profile that gets a column of its own. Repeatable.",
            ),
            click.option(
                "--table",
                metavar="NAME",
                help='The table, in DuckDB and PostgreSQL; "profiles" by default.',
            ),
            click.option(
                "--bom", is_flag=True, help="Begin a CSV file with a byte-order mark, for Excel."
            ),
            click.option(
                "--spool",
                type=click.Path(file_okay=False),
                metavar="DIR",
                help="Where the folder is made in which it gathers until it is complete, "
                "<out>.export. By default it is beside the output.",
            ),
            click.option(
                "--resume/--fresh",
                default=True,
                help="Go on with what an earlier run has left (as it does by default), or discard "
                "that and begin again.",
            ),
            click.option(
                "--json",
                "as_json",
                is_flag=True,
                help="Print the report as JSON, and not the path of the output; also of an "
                "incomplete one.",
            ),
        ]
    ):
        command = option(command)
    return command
