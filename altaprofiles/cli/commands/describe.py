"""`altaprofiles describe`: the properties in an output, and their types."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from textwrap import wrap
from typing import TYPE_CHECKING

import click

from ..app import App
from ..command import Command

if TYPE_CHECKING:
    from ...export.description import Description, Property
    from ...export.formats import FileFormat

__all__ = ["describe"]

_EVERY = 5.0
"""Seconds between two reports of progress."""

_NAME = 40
"""Columns of the longest name that is shown in full beside its types."""

_SEVERAL = "several types"
_OF_SEVERAL = "Several types: --flatten KEY is text; KEY:TYPE is one type, and null elsewhere."


@click.command(cls=Command)
@click.argument("to", metavar="FILE|URL", type=click.Path(allow_dash=True))
@click.option(
    "--table",
    metavar="NAME",
    help='The table in DuckDB or PostgreSQL; by default "profiles", or the only one of an export.',
)
@click.option(
    "--format",
    type=click.Choice(["ndjson", "csv", "parquet", "duckdb"]),
    help="Format of a file; by default its ending decides.",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print a JSON object instead of a table; for a failure one with `error`.",
)
@click.pass_obj
def describe(
    app: App, to: str, table: str | None, format: FileFormat | None, as_json: bool
) -> None:
    """Print the properties of people in an output, and their types.

    A property has the number of people with a value, and the types of these values. FILE is any
    output of `export` and `lookup`, a folder of Parquet files included, but for one in a bucket:
    download it first; - is NDJSON from standard input. It is read to its end, and nothing is sent
    to the services. No value is printed.

    The types are those that --flatten has: bool, int64, double, text, timestamp; json is a list, an
    object, or a number that is too large. A property whose values have several types becomes a
    column of text, unless --flatten names one of the types: then the others are null.

    The options at the end are for an export; a property without one has the reason beside its
    types.

    \b
    Examples:
      altaprofiles describe people.parquet
      altaprofiles describe crm.duckdb --table buyers --json
      altaprofiles describe postgresql://me@db.example.com/crm/buyers
    """
    from ...export.sinks.postgres_url import without_password
    from ...export.stored_rows import describe as describe_rows
    from ...export.stored_rows import stored

    if without_password(to) != to:
        app.info(
            "Everyone on this machine can see the password or key in the URL while this runs; "
            "PGPASSWORD, ~/.pgpass or ~/.pg_service.conf hide it."
        )
    reported = time.monotonic()

    def report(rows: int) -> None:
        nonlocal reported
        if time.monotonic() - reported >= _EVERY:
            reported = time.monotonic()
            app.info(f"{rows:,} rows read")

    found = describe_rows(stored(to, table=table, format=format, stdin=sys.stdin.buffer), report)
    if as_json:
        from msgspec import json, to_builtins

        from ...redaction import readable

        values = to_builtins(found) | {"output": readable(found.output)}
        app.write(json.encode(values) + b"\n")
    else:
        text = "".join(f"{line}\n" for line in _lines(found))
        app.write(text.encode(sys.stdout.encoding or "utf-8", errors="backslashreplace"))


def _lines(found: Description) -> Iterator[str]:
    from ...base.wording import numbered
    from ...redaction import harmless
    from ..resumption import quoted_word

    of_table = "" if found.table is None or found.format == "postgres" else f", table {found.table}"
    noun = "record" if found.format == "ndjson" else "row"
    yield harmless(f"{found.output}{of_table}: {numbered(found.rows, noun)}")
    if found.rows:
        columns = [(name, count, "") for name, count in found.columns.items()]
        yield from _table("column", found.rows, columns)
        reasons = _reasons(found.properties)
        rows = [
            (_shown(one.name), one.filled, "; ".join(filter(None, (_types(one), reason))))
            for one, reason in zip(found.properties, reasons, strict=True)
        ]
        if rows:
            yield from _table("property", found.rows, rows)
            if _SEVERAL in reasons:
                yield from ("", _OF_SEVERAL)
        else:
            yield from ("", "No properties: they have been left out, or nobody has any.")
    if found.left_out:
        yield ""
        yield (
            f"More than {len(found.properties):,} properties, or names that are too long: "
            f"{numbered(found.left_out, 'value')} left out."
        )
    options = [*map(quoted_word, _options(found.properties))]
    if options:
        yield from ("", "Columns of their own, for export:")
        for number, option in enumerate(options, 1):
            yield f"  --flatten {option}" + (" \\" if number < len(options) else "")


def _options(properties: Sequence[Property]) -> Iterator[str]:
    """Yield the values of `--flatten` that one export takes together."""
    for one, reason in zip(properties, _reasons(properties), strict=True):
        if one.flatten is not None and not reason:
            yield one.flatten


def _reasons(properties: Sequence[Property]) -> list[str]:
    """Return why each property is not among the options; empty text for those that are."""
    from ...tables.layout import RESERVED, column_names

    taken: dict[str, str] = {}
    reasons = []
    for one in properties:
        # Databases ignore case in names, and the first one is the most frequent.
        column = column_names([one.name], reserved=RESERVED)[0].casefold()
        if not one.types:
            reason = "no value"
        elif one.flatten is None:
            reason = _SEVERAL if len(one.types) > 1 else "no column can have this name"
        elif column in taken:
            reason = f"the same column as {_shown(taken[column])}"
        else:
            taken[column] = one.name
            reason = ""
        reasons.append(reason)
    return reasons


def _table(title: str, total: int, rows: list[tuple[str, int, str]]) -> Iterator[str]:
    """Yield the lines of a table: name, rows with a value, their share, and types."""
    width = max(len(title), *(len(name) for name, _, _ in rows))
    digits = max(len("filled"), len(f"{total:,}"))
    screen = max(shutil.get_terminal_size().columns, 60)
    yield ""
    heading = f"{title:<{width}}  {'filled':>{digits}}"
    yield f"{heading}         types" if any(types for _, _, types in rows) else heading
    for name, count, types in rows:
        share = _percent(count, total)
        line = f"{name:<{width}}  {count:>{digits},}  {share}"
        if types and len(line) + 2 + len(types) > screen:
            yield line
            indent = " " * 4
            yield from wrap(types, screen, initial_indent=indent, subsequent_indent=indent)
        else:
            yield f"{line}  {types}".rstrip()


def _percent(count: int, total: int) -> str:
    """Return a share in percent, rounded, always of the same width."""
    share = str((200 * count + total) // (2 * total))
    # Neither all nor none of them, however close to it.
    if count and share == "0":
        share = "<1"
    elif count < total and share == "100":
        share = ">99"
    return f"{share:>3} %"


def _types(one: Property) -> str:
    if one.types and (one.flatten is not None or len(one.types) == 1):
        return "json" if "json" in one.types else one.kind
    return ", ".join(f"{kind} {count:,}" for kind, count in one.types.items())


def _shown(name: str) -> str:
    from ...redaction import harmless

    text = harmless(name) or "''"
    return text if len(text) <= _NAME else f"{text[: _NAME - 1]}…"
