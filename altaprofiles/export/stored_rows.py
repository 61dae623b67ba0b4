"""Reads the outputs of exports back: files, folders, and tables of databases. Blocking.

It streams: at most some thousand rows are in memory at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import BinaryIO, get_args

from msgspec import Struct

from ..base.checks import shown
from ..base.extras import require
from ..base.paths import path_text
from ..base.sql import quoted
from ..errors import DecodeError, ExportError, InvalidArgument
from .description import Describer, Description, StoredRows
from .formats import FileFormat, Format, checked_format
from .sinks.compression import COMPRESSIONS
from .sinks.postgres_server import PostgresServer
from .sinks.postgres_url import SCHEMES, check_conninfo, parse, table_of
from .sinks.remote import Remote
from .stored_tables import duckdb_rows, duckdb_table, parquet_files, parquet_rows, postgres_rows
from .stored_text import csv_rows_of, ndjson_rows, text_rows
from .tables import Content

__all__ = ["FORMATS", "Stored", "describe", "stored"]

FORMATS: tuple[FileFormat, ...] = get_args(FileFormat)
"""The formats of files."""

_ENDINGS: Mapping[str, FileFormat] = {
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".csv": "csv",
    ".parquet": "parquet",
    ".duckdb": "duckdb",
}


class Stored(Struct, frozen=True):
    """An output that can be read.

    Attributes:
        name: the output, without a password.
        format: its format.
        table: the table that is read, or None for files.
        rows: reads the rows, each time from the start.
    """

    name: str
    format: Format
    table: str | None
    rows: Callable[[], Iterator[StoredRows]]


def stored(
    to: str,
    *,
    table: str | None = None,
    format: FileFormat | None = None,
    stdin: BinaryIO | None = None,
) -> Stored:
    """Return the output with a name.

    Args:
        to: a file, a folder, the URL of a table in PostgreSQL, or "-" for NDJSON from `stdin`.
        table: the table in a database; by default `profiles`, or the only one of an export.
        format: the format of a file whose ending does not decide it.
        stdin: the stream for "-".

    Raises:
        ConfigurationError: there is no such output, an argument cannot work, or an extra is not
            installed.
        ExportLocked: another program has the DuckDB file open.
        ExportError: it cannot be read.
    """
    checked_format(format, FORMATS)
    scheme, slashes = to.partition("://")[:2]
    if slashes and scheme.lower() in SCHEMES:
        return _postgres(to, table)
    if slashes and (of_bucket := Remote.scheme_of(to)) is not None:
        # Without the address, which may hold credentials.
        raise InvalidArgument(
            f"to: a file in a bucket ({of_bucket}://) is not read; download it first, and name the "
            f"copy"
        )
    if slashes:
        raise InvalidArgument(
            "to: not a PostgreSQL URL, which is the only kind of URL that is read; write "
            "postgresql://user@host/database/table, or a path"
        )
    if to == "-" and stdin is not None:
        _check_no_table(table, "standard input")
        return Stored("-", "ndjson", None, lambda: ndjson_rows(stdin, "standard input"))
    path = Path(path_text("to", to))
    try:
        is_folder = path.is_dir()
        is_there = is_folder or path.exists()
    except (OSError, ValueError) as error:
        raise InvalidArgument(f"to: {shown(to)} cannot be read: {error}") from None
    if not is_there:
        raise InvalidArgument(f"to: there is no file {shown(to)}; check the path")
    if is_folder:
        _check_no_table(table, to)
        files = parquet_files(path, to)
        require("parquet", what=f"to: {shown(to)}")
        return Stored(to, "parquet", None, lambda: chain.from_iterable(map(parquet_rows, files)))
    named = format or _format_of(path)
    if named is None:
        raise InvalidArgument(
            f"to: the ending of {shown(to)} implies no format; pass one of {', '.join(FORMATS)} as "
            f"`format`"
        )
    if named == "duckdb":
        require("duckdb", what=f"to: {shown(to)}")
        found = duckdb_table(path, to, table)
        return Stored(to, named, found, lambda: duckdb_rows(path, to, found))
    _check_no_table(table, to)
    if named == "parquet":
        require("parquet", what=f"to: {shown(to)}")
        return Stored(to, named, None, lambda: parquet_rows(path))
    if path.suffix.lower() == ".zst":
        require("zstd", what=f"to: {shown(to)}")
    read = ndjson_rows if named == "ndjson" else csv_rows_of
    return Stored(to, named, None, lambda: text_rows(path, read))


def describe(source: Stored, on_rows: Callable[[int], object]) -> Description:
    """Return the description of an output, all of which is read.

    Args:
        source: the output.
        on_rows: called with the number of rows read so far, again and again.

    Raises:
        ConfigurationError: it is not an export of people.
        ExportLocked: another program has the DuckDB file open.
        ExportError: it cannot be read to its end.
    """
    describer = Describer()
    for rows in source.rows():
        try:
            describer.add(rows)
        except DecodeError:
            raise ExportError(
                f"{source.name}: row {describer.rows + 1:,} has a profile_data that is not JSON"
            ) from None
        on_rows(describer.rows)
    return describer.result(output=source.name, format=source.format, table=source.table)


def _check_no_table(table: str | None, name: str) -> None:
    if table is not None:
        raise InvalidArgument(
            f"table: got {shown(table)}, but {name} is not a database; leave it out"
        )


def _format_of(path: Path) -> FileFormat | None:
    ending = path.suffix.lower()
    if ending not in COMPRESSIONS:
        return _ENDINGS.get(ending)
    inner = _ENDINGS.get(Path(path.stem).suffix.lower())
    return inner if inner in ("ndjson", "csv") else None


def _postgres(to: str, table: str | None) -> Stored:
    url = parse(to)
    require("postgres", what=f"to: {url.label}")
    check_conninfo(url)
    schema, name = table_of(table, url.table, Content().default_table)
    full = name if schema is None else f"{schema}.{name}"
    label = f"{url.label}/{full}"
    of = quoted(name) if schema is None else f"{quoted(schema)}.{quoted(name)}"
    server = PostgresServer(label, url.conninfo, url.secrets)
    return Stored(label, "postgres", full, lambda: postgres_rows(server, of))
