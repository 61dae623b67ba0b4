"""A table in a DuckDB file.

A file that is not there yet is built beside its place and moved there. One that is there may hold
other tables, gigabytes of them: it is not copied, but changed in one transaction, which DuckDB
undoes by itself if it does not come to its end, also when the power goes.

Rows are gathered in a Parquet file and loaded with one statement in the end. Appended bit by bit
they stay in memory until the transaction ends, whatever limit DuckDB has been given.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

from ...errors import ExportError
from ...tables.kinds import Kinds
from ...tables.layout import CORE, JSON_TEXTS, Kind, column_names
from ..store.spool import sync_folder
from .files import FileTarget, check_place, partial_of
from .parquet import ParquetSink

__all__ = ["DuckDbTarget"]

_TYPES: dict[Kind, str] = {
    "bool": "BOOLEAN",
    "int64": "BIGINT",
    "double": "DOUBLE",
    "text": "VARCHAR",
}


class DuckDbTarget(FileTarget, frozen=True, kw_only=True):
    """One table of a DuckDB file, which is created or replaced; other tables stay.

    Attributes:
        table: its name.
    """

    format: ClassVar[str] = "duckdb"

    table: str

    @property
    def typed_flatten(self) -> bool:
        return bool(self.flatten)

    def check(self) -> None:
        if not self.path.exists():
            if _wal_of(self.path).exists():
                raise ExportError(
                    f"{self.name} is missing, but {_wal_of(self.path)} is there, which would be "
                    f"taken for its latest changes; move that away"
                )
            # Not the partial file, which DuckDB itself may have open for another export.
            check_place(_rows_of(self.path), self.name)
            return
        connection = _connect(self.path, self.name)
        try:
            kind = connection.execute(
                "SELECT table_type FROM information_schema.tables WHERE lower(table_name) ="
                " lower(?) AND table_schema = current_schema() AND table_catalog ="
                " current_database()",
                [self.table],
            ).fetchone()
        finally:
            connection.close()
        if kind is not None and kind[0] != "BASE TABLE":
            raise ExportError(
                f"{self.name}: {self.table!r} is a {kind[0].lower()} there, and no table; "
                f"pass another name as `table`"
            )

    def open(self, kinds: Kinds) -> DuckDbSink:
        return DuckDbSink(self, kinds)


_MEMORY = "500MB"
"""What DuckDB may take; with less it fails on tables of a million rows."""


class DuckDbSink:
    repeated = 0

    def __init__(self, target: DuckDbTarget, kinds: Kinds) -> None:
        self._target = target
        self._kinds = kinds
        self._in_place = target.path.exists()
        self._file = target.path if self._in_place else partial_of(target.path)
        # First, as it is the lock of what is beside it.
        self._rows = ParquetSink(_rows_of(target.path), target.flatten, kinds, mend=True)
        try:
            if not self._in_place:
                _remove(self._file)
            # From now on, so that no other process has the file when the rows are there.
            self._connection = _connect(self._file, target.name)
        except BaseException:
            self._rows.abort()
            raise

    @property
    def mended(self) -> int:
        return self._rows.mended

    def write(self, records: Sequence[bytes]) -> None:
        self._rows.write(records)

    def close(self) -> None:
        rows = self._rows.finish()
        target = self._target
        names = column_names(target.flatten)
        types = [
            *("JSON" if name in JSON_TEXTS else "VARCHAR" for name in CORE),
            *(_TYPES[self._kinds[key]] for key in target.flatten),
        ]
        types[CORE.index("object_ids")] = "VARCHAR[]"
        columns = [f"{_quoted(name)} {type_}" for name, type_ in zip(names, types, strict=True)]
        table = _quoted(target.table)
        self._execute(f"SET memory_limit = '{_MEMORY}'")
        self._execute("BEGIN")
        self._execute(f"CREATE OR REPLACE TABLE {table} ({', '.join(columns)})")
        self._execute(f"INSERT INTO {table} SELECT * FROM read_parquet(?)", _literally(rows))
        self._execute("COMMIT")
        self._execute("CHECKPOINT")
        self._connection.close()
        if not self._in_place:
            with self._file.open("rb") as file:
                os.fsync(file.fileno())
            self._file.replace(target.path)
        self._rows.abort()
        sync_folder(target.path.parent)

    def abort(self) -> None:
        # Closing undoes what was not committed.
        with suppress(Exception):
            self._connection.close()
        if not self._in_place:
            _remove(self._file)
        self._rows.abort()

    def _execute(self, statement: str, *values: str) -> None:
        import duckdb

        try:
            self._connection.execute(statement, values)
        except duckdb.Error as error:
            raise ExportError(f"{self._target.name}: {error}") from error


def _connect(path: Path, name: str) -> Any:
    import duckdb

    try:
        return duckdb.connect(path)
    except duckdb.Error as error:
        raise ExportError(
            f"{name} cannot be opened as a DuckDB file: it is something else, or another process "
            f"has it open ({error})"
        ) from error


def _literally(path: Path) -> str:
    """Return a pattern that matches `path` only: DuckDB looks for `*`, `?` and `[` in paths."""
    return re.sub(r"([*?\[])", r"[\1]", str(path))


def _rows_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.rows")


def _wal_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.wal")


def _remove(path: Path) -> None:
    for left in (path, _wal_of(path)):
        with suppress(OSError):
            left.unlink(missing_ok=True)


def _quoted(name: str) -> str:
    return '"{}"'.format(name.replace('"', '""'))
