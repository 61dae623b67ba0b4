"""A table in a DuckDB file.

A new file is built beside its place and moved there. An existing file may hold other tables of
many gigabytes, so it is not copied but changed in one transaction, which DuckDB rolls back if it is
interrupted, even by a power failure.

Rows are gathered in a Parquet file and loaded by one statement at the end. Rows appended in small
batches would stay in memory until the transaction ends, whatever DuckDB's memory limit.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar, Self

from ...base.paths import check_own_file
from ...base.wording import numbered
from ...errors import ConfigurationError, ExportError
from ...tables.kinds import Kinds
from ...tables.layout import CORE, JSON_TEXTS, Kind, column_names
from ..output import Output
from ..store.spool import sync_folder
from .files import check_place, partial_of
from .parquet import ParquetSink
from .target import DEFAULT_TABLE, FileTarget

__all__ = ["DuckDbTarget"]

_TYPES: dict[Kind, str] = {
    "bool": "BOOLEAN",
    "int64": "BIGINT",
    "double": "DOUBLE",
    "text": "VARCHAR",
}


class DuckDbTarget(FileTarget, frozen=True, kw_only=True):
    """One table of a DuckDB file. The table is created or replaced; other tables stay.

    Attributes:
        table: the table's name.
    """

    format: ClassVar[str] = "duckdb"
    endings: ClassVar[tuple[str, ...]] = (".duckdb",)
    extra: ClassVar[str | None] = "duckdb"
    options: ClassVar[frozenset[str]] = frozenset({"table", "flatten"})
    has_types: ClassVar[bool] = True

    table: str

    @classmethod
    def of(cls, text: str, keys: tuple[str, ...], output: Output) -> Self:
        path = cls.path_of(text)
        if "?" in str(path):
            # DuckDB puts the suffix of its log before the question mark, as if this were a URL.
            raise ConfigurationError(f"to: DuckDB cannot write to a path with a '?', got {text!r}")
        if not _is_text(str(path)):
            raise ConfigurationError(
                f"to: DuckDB cannot write to a path that is not text, got {text!r}"
            )
        return cls(name=text, path=path, flatten=keys, table=_checked_table(output.table))

    @property
    def files(self) -> list[Path]:
        return [self.path, _rows_of(self.path)]

    def check(self) -> None:
        # Not the partial file, which may be open in DuckDB for another export.
        check_place(_rows_of(self.path), self.name)
        for path in _files_of(partial_of(self.path)):
            check_own_file(path)
        if not self.path.exists():
            if os.path.lexists(_wal_of(self.path)):
                raise ExportError(
                    f"{self.name} is missing, but {_wal_of(self.path)} exists, which DuckDB would "
                    f"apply to the new file; move it away"
                )
            return
        connection = _connect(self.path, self.name)
        with _explained(self.name), closing(connection):
            kind = self._kind(connection)
            if kind is not None and kind != "BASE TABLE":
                raise ExportError(
                    f"{self.name}: {self.table!r} is a {kind.lower()}, not a table; pass another "
                    f"name as `table`"
                )
            # A trial, because DuckDB refuses it if another table refers to this one.
            connection.execute("BEGIN")
            connection.execute(f"CREATE OR REPLACE TABLE {_quoted(self.table)} (n INTEGER)")
            connection.execute("ROLLBACK")

    def _kind(self, connection: Any) -> str | None:
        found = connection.execute(
            "SELECT table_type FROM information_schema.tables WHERE lower(table_name) ="
            " lower(?) AND table_schema = current_schema() AND table_catalog ="
            " current_database()",
            [self.table],
        ).fetchone()
        return None if found is None else str(found[0])

    def content(self) -> str | None:
        if not self.path.exists():
            return None
        connection = _connect(self.path, self.name)
        with _explained(self.name), closing(connection):
            if self._kind(connection) is None:
                return None
            query = f"SELECT count(*) FROM {_quoted(self.table)}"
            (rows,) = connection.execute(query).fetchone()
        return (
            f"{numbered(rows, 'row')} of the table {self.table!r} in {self.name}" if rows else None
        )

    def open(self, kinds: Kinds) -> DuckDbSink:
        return DuckDbSink(self, kinds)


_MEMORY = "500MB"
"""DuckDB's memory limit. With less it fails on tables of a million rows."""


class DuckDbSink:
    repeated = 0

    def __init__(self, target: DuckDbTarget, kinds: Kinds) -> None:
        self._target = target
        self._kinds = kinds
        self._in_place = target.path.exists()
        self._file = target.path if self._in_place else partial_of(target.path)
        # First, because its lock also protects the partial DuckDB file.
        self._rows = ParquetSink(_rows_of(target.path), target.flatten, kinds)
        try:
            if not self._in_place:
                for path in _files_of(self._file):
                    check_own_file(path)
                _remove(self._file)
            # Already here, because DuckDB locks the file: no other process can take it meanwhile.
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
        self._execute(f"INSERT INTO {table} SELECT * FROM read_parquet(?)", _escaped(rows))
        self._execute("COMMIT")
        self._execute("CHECKPOINT")
        with _explained(target.name):
            self._connection.close()
        if not self._in_place:
            with self._file.open("rb") as file:
                os.fsync(file.fileno())
            self._file.replace(target.path)
        self._rows.abort()
        sync_folder(target.path.parent)

    def abort(self) -> None:
        # Closing rolls back an open transaction.
        with suppress(Exception):
            self._connection.close()
        if not self._in_place:
            _remove(self._file)
        self._rows.abort()

    def _execute(self, statement: str, *values: str) -> None:
        with _explained(self._target.name):
            self._connection.execute(statement, values)


def _connect(path: Path, name: str) -> Any:
    import duckdb

    wal = _wal_of(path)
    if wal.is_symlink() or (wal.exists() and not wal.is_file()):
        raise ExportError(
            f"{name}: {wal} is not a regular file, but DuckDB would write to it; remove it"
        )
    try:
        return duckdb.connect(path)
    except Exception as error:
        raise ExportError(
            f"{name} cannot be opened as a DuckDB file: it is not one, a newer DuckDB has written "
            f"it, it is damaged or read-only, or another process has it open ({error})"
        ) from error


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turn DuckDB's errors into an `ExportError`. They are of any class, even a RuntimeError."""
    try:
        yield
    except ExportError:
        raise
    except Exception as error:
        raise ExportError(f"{name}: {error}") from error


def _escaped(path: Path) -> str:
    """Return a pattern that matches only `path`, as DuckDB expands `*`, `?` and `[` in paths."""
    return re.sub(r"([*?\[])", r"[\1]", str(path))


def _is_text(path: str) -> bool:
    """Return whether `path` is Unicode text. Python shows bytes that are not as surrogates."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _checked_table(name: str | None) -> str:
    if name is None:
        return DEFAULT_TABLE
    if not isinstance(name, str) or not name.strip() or not name.isprintable():
        raise ConfigurationError(f"table: expected a table's name, got {name!r}")
    # Plain text, even if the name is of a subclass such as NumPy's.
    return str.__str__(name)


def _rows_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.rows")


def _wal_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.wal")


def _files_of(path: Path) -> tuple[Path, Path]:
    """Return the DuckDB file `path` and its log."""
    return path, _wal_of(path)


def _remove(path: Path) -> None:
    for file in _files_of(path):
        with suppress(OSError):
            file.unlink(missing_ok=True)


def _quoted(name: str) -> str:
    return '"{}"'.format(name.replace('"', '""'))
