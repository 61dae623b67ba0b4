"""The keys in a column of a Parquet file, or of a table in a DuckDB file. Blocking."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from ..base.checks import LOST_DIGITS, has_lost_digits, is_whole_float
from ..base.extras import require
from ..base.sql import quoted
from ..base.wording import meant, numbered
from ..errors import ExportLocked, InvalidArgument
from .sinks.duck_file import is_locked, obstacle, open_file
from .sinks.duck_table import OWN_PREFIX

__all__ = ["duckdb_keys", "in_brackets", "opened_parquet", "parquet_keys"]

_AT_ONCE = 2000


@contextmanager
def opened_parquet(path: Path) -> Iterator[Any]:
    """Open a Parquet file, as a `pyarrow.parquet.ParquetFile`. Errors are pyarrow's."""
    import pyarrow
    from pyarrow import parquet

    # As an open file, because Arrow takes some paths for addresses. It is one of Arrow's, as
    # threads that hold one of Python's can abort the process while the interpreter ends.
    opened = pyarrow.OSFile(os.fsencode(path))
    with opened, parquet.ParquetFile(opened) as file:
        yield file


def parquet_keys(path: Path, column: str | None) -> Iterator[tuple[int, str | None]]:
    """Yield the number of each row of a Parquet file, from 1, and its key, None without one.

    Raises:
        ConfigurationError: the file cannot be read, `column` is not one of it, a cell is no
            identifier, or pyarrow is not installed.
    """
    pyarrow = require("parquet", what=f"keys: {path.name!r}")
    try:
        with opened_parquet(path) as file:
            name = _column(path.name, file.schema_arrow.names, column)
            cells = (
                cell
                for batch in file.iter_batches(_AT_ONCE, columns=[name])
                for cell in batch.column(0).to_pylist()
            )
            yield from _numbered(path, cells, str(file.schema_arrow.field(name).type))
    except (pyarrow.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            # Arrow's text names the file once more.
            raise OSError(error.errno, os.strerror(error.errno)) from None
        raise InvalidArgument(
            f"keys: {path} cannot be read as Parquet ({type(error).__name__}); write the file anew"
        ) from None


def duckdb_keys(
    path: Path, keys_table: str | None, column: str | None
) -> Iterator[tuple[int, str | None]]:
    """Yield the number of each row of a table or view, from 1, and its key, None without one.

    Args:
        path: the DuckDB file.
        keys_table: the table; None if the file has only one.
        column: the column; None if the table has only one.

    Raises:
        ConfigurationError: the file cannot be read, `keys_table` or `column` is not in it, a cell
            is no identifier, or DuckDB is not installed.
        ExportLocked: another program has it open.
    """
    duckdb = require("duckdb", what=f"keys: {path.name!r}")
    try:
        with closing(open_file(path, read_only=True)) as connection:
            tables = [
                name
                for (name,) in connection.execute(_TABLES).fetchall()
                if not name.lower().startswith(OWN_PREFIX) or name == keys_table
            ]
            named = _table(path.name, tables, keys_table)
            rows = connection.execute(f"SELECT * FROM {quoted(named)} LIMIT 0")  # noqa: S608
            columns = [one[0] for one in rows.description]
            kinds = [str(one[1]) for one in rows.description]
            name = _column(f"the table {named!r} of {path.name}", columns, column)
            query = f"SELECT {quoted(name)} FROM {quoted(named)}"  # noqa: S608
            connection.execute(query)
            cells = (
                cell
                for rows in iter(lambda: connection.fetchmany(_AT_ONCE), [])
                for (cell,) in rows
            )
            yield from _numbered(path, cells, kinds[columns.index(name)])
    except duckdb.Error as error:
        if is_locked(error):
            raise ExportLocked(
                f"keys: {path} is open in another program; close it there, and run the same again"
            ) from None
        raise InvalidArgument(f"keys: {path} {obstacle(error)}") from None


_TABLES = (
    "SELECT table_name FROM information_schema.tables"
    " WHERE table_schema = current_schema() AND table_catalog = current_database() ORDER BY 1"
)


def _table(where: str, tables: Sequence[str], given: str | None) -> str:
    if given is None and len(tables) == 1:
        return tables[0]
    # DuckDB ignores case in names.
    for name in tables:
        if given is not None and name.lower() == given.lower():
            return name
    return _refuse("keys_table", where, "table", tables, given)


def _column(where: str, columns: Sequence[str], column: str | None) -> str:
    if column is None and len(columns) == 1:
        return columns[0]
    if column is not None and columns.count(column) == 1:
        return column
    return _refuse("column", where, "column", columns, column)


def _refuse(argument: str, where: str, noun: str, names: Sequence[str], name: str | None) -> str:
    text = f"{argument}: {where} has {numbered(len(names), noun)}{in_brackets(names)}"
    if name is None:
        raise InvalidArgument(f"{text}; name the one that holds the keys")
    close = meant(name, names)
    guess = "" if close is None else f"; did you mean {close}?"
    raise InvalidArgument(f"{text}, and none of them is {name!r}{guess}")


def in_brackets(names: Sequence[str], *, is_all: bool = True) -> str:
    """Return the first names in brackets, after a blank; nothing if there are none.

    Args:
        names: the names.
        is_all: whether there are no others.
    """
    if not names:
        return ""
    is_cut = not is_all or len(names) > _NAMES
    return f" ({', '.join(map(repr, names[:_NAMES]))}{', …' if is_cut else ''})"


_NAMES = 12
"""Most names in a message."""


def _numbered(path: Path, cells: Iterator[Any], kind: str) -> Iterator[tuple[int, str | None]]:
    for number, cell in enumerate(cells, 1):
        if cell is None or isinstance(cell, str):
            yield number, cell
        elif isinstance(cell, int | UUID) and not isinstance(cell, bool):
            yield number, str(cell)
        else:
            raise InvalidArgument(
                f"keys: row {number:,} of {path} holds {_no_key(cell, kind)}", value=cell
            )


def _no_key(cell: object, kind: str) -> str:
    """Return what a cell is instead of an identifier, with the fix.

    Args:
        cell: the cell, not null.
        kind: the column's type, as Arrow or DuckDB calls it.
    """
    if not is_whole_float(cell):
        return (
            f"a value of type {type(cell).__name__}, which is not an identifier; convert the "
            f"column to text or whole numbers"
        )
    if has_lost_digits(cell, _SIZES.get(kind, 8)):
        return LOST_DIGITS
    return (
        "a whole number as a float, which is not an identifier; convert the column to whole numbers"
    )


_SIZES = {"halffloat": 2, "float16": 2, "float": 4, "FLOAT": 4}
"""Bytes of the floats of a column that are not of 8, by its type."""
