"""Reads the tables of exports back: Parquet, DuckDB, and PostgreSQL. Blocking."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from ..base.sql import quoted
from ..errors import ConfigurationError, ExportError, InvalidArgument
from .description import COLUMNS, StoredRows, filled
from .key_tables import opened_parquet
from .sinks.duck_file import connect, explained
from .sinks.postgres_server import PostgresServer
from .tables import Content

__all__ = [
    "AT_ONCE",
    "check_columns",
    "duckdb_rows",
    "duckdb_table",
    "no_output",
    "parquet_files",
    "parquet_rows",
    "postgres_rows",
    "rows_of",
]

AT_ONCE = 1000
"""Rows in memory at once."""

_DATA = "profile_data"
_NAMES = 12
"""Most names in a message."""
_BINDINGS = frozenset({"key", "user_id", "anonymous_id"})


def no_output(name: str, why: str) -> ConfigurationError:
    """Return the error for an output that has no properties to describe."""
    return InvalidArgument(f"to: {name} is not an export of people: {why}")


def check_columns(name: str, names: Sequence[str]) -> None:
    """Raise `ConfigurationError` unless an output with these columns is an export of people."""
    if _DATA in names:
        return
    if set(names) >= _BINDINGS:
        raise no_output(name, "it holds users of Alta, who have no properties")
    raise no_output(name, f"it has no column {_DATA}")


def rows_of(names: Sequence[str], columns: Sequence[Sequence[Any]]) -> StoredRows:
    """Return rows.

    Args:
        names: the columns.
        columns: their cells.
    """
    by_name = dict(zip(names, columns, strict=True))
    data = by_name[_DATA]
    return StoredRows(
        filled((name, by_name[name]) for name in COLUMNS if name in by_name),
        [value.strip().encode() if isinstance(value, str) and value else None for value in data],
    )


def _chosen(names: Iterable[str]) -> list[str]:
    return [name for name in names if name in (*COLUMNS, _DATA)]


def parquet_files(folder: Path, name: str) -> list[Path]:
    """Return the Parquet files of a folder, those of its days included.

    Raises:
        ConfigurationError: there are none.
        ExportError: the folder cannot be read.
    """
    try:
        found = [*folder.glob("*.parquet"), *folder.glob("day=*/*.parquet")]
    except OSError as error:
        raise ExportError(f"{name} cannot be read: {error.strerror}") from None
    files = sorted(path for path in found if not path.name.startswith("."))
    if not files:
        raise no_output(name, "the folder holds no Parquet files")
    return files


def parquet_rows(path: Path) -> Iterator[StoredRows]:
    """Yield the rows of a Parquet file. Errors as in `stored_text.text_rows`."""
    import pyarrow

    try:
        with opened_parquet(path) as file:
            check_columns(str(path), file.schema_arrow.names)
            names = _chosen(file.schema_arrow.names)
            for batch in file.iter_batches(AT_ONCE, columns=names):
                yield rows_of(names, [column.to_pylist() for column in batch.columns])
    except (pyarrow.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            reason = os.strerror(error.errno)
            raise ExportError(f"{path} cannot be read: {reason}") from None
        raise ExportError(
            f"{path} cannot be read as Parquet ({type(error).__name__}): it is cut short or "
            f"damaged, or something else has written it"
        ) from None


def duckdb_table(path: Path, name: str, table: str | None) -> str:
    """Return the table of a DuckDB file that is meant.

    Args:
        path: the file.
        name: the file in messages.
        table: its name; None for `profiles`, or for the only one of an export.

    Raises:
        ConfigurationError: there is no such table, or there are several.
        ExportLocked: another program has the file open.
        ExportError: it cannot be read.
    """
    with closing(connect(path.resolve(), name, read_only=True)) as connection, explained(name):
        rows = connection.execute(
            "SELECT table_name, bool_or(column_name = ?) FROM information_schema.columns"
            " WHERE table_schema = current_schema() AND table_catalog = current_database()"
            " GROUP BY ALL ORDER BY 1",
            [_DATA],
        ).fetchall()
    tables = [found for found, is_export in rows if is_export]
    default = Content().default_table
    wanted = table or (default if default in map(str.lower, tables) else None)
    if wanted is None and len(tables) == 1:
        return str(tables[0])
    for found, _ in rows:
        # DuckDB ignores case in names.
        if wanted is not None and found.lower() == wanted.lower():
            return str(found)
    if not tables:
        raise no_output(name, f"no table of it has a column {_DATA}")
    listed = f"{', '.join(map(repr, tables[:_NAMES]))}{', …' if len(tables) > _NAMES else ''}"
    if wanted is None:
        raise InvalidArgument(f"table: {name} has several exports; name one of {listed}")
    raise InvalidArgument(f"table: {name} has no table {wanted!r}; name one of {listed}")


def duckdb_rows(path: Path, name: str, table: str) -> Iterator[StoredRows]:
    """Yield the rows of a table of a DuckDB file. Errors as in `duckdb_table`."""
    with closing(connect(path.resolve(), name, read_only=True)) as connection, explained(name):
        of = quoted(table)
        found = connection.execute(f"SELECT * FROM {of} LIMIT 0").description  # noqa: S608
        columns = [one[0] for one in found]
        check_columns(f"the table {table!r} of {name}", columns)
        names = _chosen(columns)
        connection.execute(f"SELECT {', '.join(map(quoted, names))} FROM {of}")  # noqa: S608
        while rows := connection.fetchmany(AT_ONCE):
            yield rows_of(names, [*zip(*rows, strict=True)])


def postgres_rows(server: PostgresServer, of: str) -> Iterator[StoredRows]:
    """Yield the rows of a table.

    Args:
        server: its database.
        of: the table, quoted.

    Raises:
        ConfigurationError: it is not an export of people.
        ExportError: the server cannot be reached, or refuses.
    """
    with closing(server.connect()) as connection:
        found = server.guard(lambda: connection.execute(f"SELECT * FROM {of} LIMIT 0"))  # noqa: S608
        columns = [one.name for one in found.description or ()]
        check_columns(server.label, columns)
        names = _chosen(columns)
        # Not as objects, which would be made of every value.
        cells = [f"{quoted(name)}::text" for name in names]
        cursor = connection.cursor(name="altaprofiles")
        server.guard(lambda: cursor.execute(f"SELECT {', '.join(cells)} FROM {of}"))  # noqa: S608
        while rows := server.guard(lambda: cursor.fetchmany(AT_ONCE)):
            yield rows_of(names, [*zip(*rows, strict=True)])
