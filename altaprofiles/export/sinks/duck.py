"""A table in a DuckDB file.

A new file is built in a folder beside its place, `<name>.partial`, and moved there. An existing
file may hold other tables of many gigabytes, so it is not copied but changed in one transaction,
which DuckDB rolls back if it is interrupted, even by a power failure.

Rows are gathered in a Parquet file and loaded by one statement at the end. Rows appended in small
batches would stay in memory until the transaction ends, whatever DuckDB's memory limit.

DuckDB creates its log and its temporary files late, and follows links. So all of them are in that
folder, which no other user can write to. Only the log of an existing file is beside that file. It
is looked at before the file is opened, before the first statement, and before the commit, which
creates it. A user who can write to the file's folder could still plant a link in the microseconds
between that look and the commit. Such a user could also put a folder with links in the place of
the export's own while the statement runs.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Self

from ...base.checks import is_unicode
from ...base.paths import check_own_folder, is_own
from ...base.wording import numbered
from ...errors import ConfigurationError, ExportError
from ...tables.layout import ColumnKind
from ...tables.rows import Row, Table
from ..output import Output
from ..store.spool import sync_folder
from ..tables import Origin
from .files import check_place, check_same_file, open_same_file, partial_of
from .parquet import ParquetSink
from .target import FileTarget, Layout

__all__ = ["DuckDbTarget"]

_TYPES: dict[ColumnKind, str] = {
    "text": "VARCHAR",
    "texts": "VARCHAR[]",
    "json": "JSON",
    "bool": "BOOLEAN",
    "int64": "BIGINT",
    "double": "DOUBLE",
    "timestamp": "TIMESTAMPTZ",
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

    @property
    def inner_table(self) -> str:
        return self.table

    @classmethod
    def of(cls, text: str, layout: Layout, output: Output) -> Self:
        path = cls.path_of(text)
        if "?" in str(path):
            # DuckDB puts the suffix of its log before the question mark, as if this were a URL.
            raise ConfigurationError(f"to: DuckDB cannot write to a path with a '?', got {text!r}")
        if not is_unicode(str(path)):
            raise ConfigurationError(
                f"to: DuckDB cannot write to a path that is not text, got {text!r}"
            )
        table = _checked_table(output.table, layout["content"].default_table)
        return cls(name=text, path=path, table=table, **layout)

    def check(self) -> None:
        folder = _made_folder(self.path, self.name)
        try:
            check_place(folder / _ROWS, self.name)
        finally:
            with suppress(OSError):
                folder.rmdir()
        if not self.path.exists():
            for log in filter(os.path.lexists, _logs_of(self.path)):
                raise ExportError(
                    f"{self.name} is missing, but {log} exists, which DuckDB would apply to the "
                    f"new file; move it away"
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

    def present(self) -> str | None:
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

    def open(self, table: Table, origin: Origin) -> DuckDbSink:
        return DuckDbSink(self, table)


_ROWS = "rows"

_MEMORY = "500MB"
"""DuckDB's memory limit. With less it fails on tables of a million rows."""


class DuckDbSink:
    absorbed = 0
    notes: Sequence[str] = ()

    def __init__(self, target: DuckDbTarget, table: Table) -> None:
        self._target = target
        self._table = table
        self._in_place = target.path.exists()
        self._folder = _made_folder(target.path, target.name)
        self._own = self._folder.lstat()
        self._file = target.path if self._in_place else self._folder / target.path.name
        self._temporary = self._folder / "temporary"
        # First, because its lock also protects everything else in the folder.
        self._rows = ParquetSink(self._folder / _ROWS, table)
        self._is_over = False
        try:
            self._clear()
            # Already here, because DuckDB locks the file: no other process can take it meanwhile.
            self._connection = _connect(self._file, target.name, self._temporary)
            self._status = self._file.lstat()
        except BaseException:
            self._leave()
            raise

    @property
    def mended(self) -> int:
        return self._rows.mended

    def write(self, rows: Sequence[Row]) -> None:
        self._rows.write(rows)

    def close(self) -> BinaryIO:
        rows = self._rows.finish()
        target = self._target
        columns = [f"{_quoted(one.name)} {_TYPES[one.kind]}" for one in self._table.columns]
        table = _quoted(target.table)
        self._execute(f"SET memory_limit = '{_MEMORY}'")
        self._check_files()
        self._execute("BEGIN")
        self._execute(f"CREATE OR REPLACE TABLE {table} ({', '.join(columns)})")
        self._execute(f"INSERT INTO {table} SELECT * FROM read_parquet(?)", _escaped(rows))
        # The statement may have taken minutes, and some versions open the log only now.
        self._check_files()
        self._execute("COMMIT")
        self._execute("CHECKPOINT")
        # While DuckDB has it open, so that no other file can get its number. To close it before
        # DuckDB does would release the locks of DuckDB.
        file = open_same_file(self._file, self._status)
        try:
            with _explained(target.name):
                self._connection.close()
            self._check_files()
            if not self._in_place:
                os.fsync(file.fileno())
                self._file.replace(target.path)
            self._leave()
            sync_folder(target.path.parent)
        except BaseException:
            file.close()
            raise
        return file

    def abort(self) -> None:
        # Closing rolls back an open transaction.
        with suppress(Exception):
            self._connection.close()
        self._leave()

    def _check_files(self) -> None:
        """Raise `ExportError` if DuckDB would read or write files that are not the export's."""
        check_same_file(self._folder, self._own)
        check_same_file(self._file, self._status)
        _check_log(self._file, self._target.name)

    def _clear(self) -> None:
        """Remove from the folder what is not under the lock, also of an export that was killed."""
        file = self._folder / self._target.path.name
        for path in (file, *_logs_of(file)):
            with suppress(OSError):
                path.unlink(missing_ok=True)
        with suppress(OSError):
            self._temporary.unlink()  # a link, which the next call does not remove
        shutil.rmtree(self._temporary, ignore_errors=True)

    def _leave(self) -> None:
        """Remove the folder. Once only, because it may be another export's after that."""
        if self._is_over:
            return
        self._is_over = True
        try:
            check_same_file(self._folder, self._own)
        except (ExportError, OSError):
            # Somebody has put another folder there, in which nothing may be deleted.
            self._rows.abort()
            return
        self._clear()
        self._rows.abort()
        with suppress(OSError):
            self._folder.rmdir()

    def _execute(self, statement: str, *values: str) -> None:
        with _explained(self._target.name):
            self._connection.execute(statement, values)


def _made_folder(path: Path, name: str) -> Path:
    """Return the folder for the work on the DuckDB file `path`, which only this user can enter."""
    folder = partial_of(path)
    try:
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        check_own_folder(folder, "another `to`")
        # The bit by which new files get the group of a shared folder stays.
        folder.chmod(0o700 | folder.stat().st_mode & stat.S_ISGID)
    except OSError as error:
        raise ExportError(
            f"{name} cannot be written: {error}; choose another `to`, or correct the permissions"
        ) from error
    return folder


def _check_log(path: Path, name: str) -> None:
    """Raise `ExportError` if another user may have planted a log of a DuckDB file."""
    for log in _logs_of(path):
        try:
            status = log.lstat()
        except FileNotFoundError:
            continue
        if not stat.S_ISREG(status.st_mode):
            fault = "is not a regular file"
        elif status.st_uid != path.stat().st_uid and not is_own(status, log.parent):
            fault = f"is a file of another user ({status.st_uid})"
        else:
            continue
        raise ExportError(f"{name}: {log} {fault}, but DuckDB would write to it; remove it")


def _connect(path: Path, name: str, temporary: Path | None = None) -> Any:
    """Open a DuckDB file.

    Args:
        path: the file.
        name: the file in messages.
        temporary: a folder for what does not fit into memory; None if nothing may be written.
    """
    import duckdb

    if path.is_symlink():
        raise ExportError(f"{name}: {path} has become a symbolic link; remove it")
    _check_log(path, name)
    try:
        # By default temporary files would be beside the file, where others may plant links.
        return duckdb.connect(path, config={"temp_directory": str(temporary or "")})
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


def _checked_table(name: str | None, default: str) -> str:
    if name is None:
        return default
    if not isinstance(name, str) or not name.strip() or not name.isprintable():
        raise ConfigurationError(f"table: expected a table's name, got {name!r}")
    # Plain text, even if the name is of a subclass such as NumPy's.
    return str.__str__(name)


def _logs_of(path: Path) -> list[Path]:
    """Return the log of a DuckDB file, and those that newer versions have for a while."""
    endings = (".wal", ".wal.checkpoint", ".wal.recovery")
    return [path.with_name(path.name + ending) for ending in endings]


def _quoted(name: str) -> str:
    return '"{}"'.format(name.replace('"', '""'))
