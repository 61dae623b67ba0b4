"""A table in a DuckDB file.

A new file is built in a folder beside its place, `<name>.partial`, and moved there. An existing
file may hold other tables of many gigabytes, so it is not copied but changed in one transaction,
which DuckDB rolls back if it is interrupted, even by a power failure.

Rows for an existing file are gathered in a Parquet file and loaded by a few statements at the end.
Rows appended in small batches would stay in memory until the transaction ends, whatever DuckDB's
memory limit. A new file gets its rows group by group; see `duck_groups`. Those of one event are
loaded while others are still being read; see `duck_stage`.

Exports into one file take turns. A file that is in use when an export begins is not checked then:
the records can be fetched meanwhile, and are kept if the table turns out to be unsuitable.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Self

from msgspec.structs import replace

from ...base.checks import is_unicode, shown
from ...base.sql import literal
from ...base.wording import numbered
from ...errors import ExportError, ExportLocked, InvalidArgument
from ...tables.arrow import schema_of
from ...tables.kinds import Kinds
from ...tables.layout import Column
from ...tables.mended import Mended
from ...tables.rows import Row, Table
from ..formats import Format, Write
from ..output import Output
from ..state import SyncState
from ..store.spool import sync_folder
from ..tables import Origin, answers_in_sql, to_keep_values
from .arrow_blocks import ArrowEncoder, EncodedRows
from .duck_file import (
    OutOfMemory,
    attach,
    check_log,
    connect,
    connect_to_none,
    explained,
    logs_of,
)
from .duck_fit import check_values, fit
from .duck_groups import NewRows, NewTable
from .duck_load import Load
from .duck_rows import Incoming, Numbered, in_sql
from .duck_stage import DuckStage, Staged
from .duck_state import read_states, rows_of
from .duck_table import OWN_PREFIX, TYPES, DuckTable, as_text, folded
from .encoding import Encoded, Encoder
from .files import check_place, check_same_file, open_same_file
from .parquet import ParquetSink, import_parquet
from .target import FileTarget, Layout
from .turns import Turn

__all__ = ["DuckDbTarget"]

logger = logging.getLogger("altaprofiles")

_REFERENCES = "SELECT 1 FROM duckdb_constraints() WHERE constraint_type = 'FOREIGN KEY'"

_ROWS = "rows"

_OUTPUT = f"{OWN_PREFIX}output"
"""The database in statements, if its rows come from another one."""

_COPY = ".copy"
"""The ending of the file for rows that are not left where they were loaded first."""

_AT_ONCE = 256
"""Rows of a result that are in memory at a time, whose records may have 20 KB each."""

_MEMORY = "500MB"
"""DuckDB's memory limit. With less it fails to update tables of a million rows."""

_MEMORY_OF_NEW = "100MB"
"""Its limit for a table that does not exist yet. Records of many kilobytes need more."""


class DuckDbTarget(FileTarget, frozen=True, kw_only=True):
    """One table of a DuckDB file. Other tables stay.

    Attributes:
        table: the table's name.
    """

    format: ClassVar[Format] = "duckdb"
    endings: ClassVar[tuple[str, ...]] = (".duckdb",)
    extra: ClassVar[str | None] = "duckdb"
    options: ClassVar[frozenset[str]] = frozenset({"table", "flatten"})
    writes: ClassVar[tuple[Write, ...]] = ("upsert", "replace", "append")
    patience: ClassVar[float] = 600
    has_types: ClassVar[bool] = True
    encodes: ClassVar[bool] = True

    table: str

    @property
    def inner_table(self) -> str:
        return self.table

    @classmethod
    def of(cls, text: str, layout: Layout, output: Output) -> Self:
        path = cls.path_of(text)
        if "?" in str(path):
            # DuckDB puts the suffix of its log before the question mark, as if this were a URL.
            raise InvalidArgument(
                f"to: DuckDB cannot write to a path with a '?', got {shown(text)}"
            )
        if not is_unicode(str(path)):
            raise InvalidArgument(
                f"to: DuckDB cannot write to a path that is not text, got {shown(text)}"
            )
        if any(folded(key) == "rowid" for key in layout["flatten"]):
            raise InvalidArgument(
                "flatten: a column 'rowid' would hide the numbers that DuckDB gives to rows; leave "
                "it out, as the column profile_data holds it as well"
            )
        table = _checked_table(output.table, layout["content"].default_table)
        return cls(name=text, path=path, table=table, **layout)

    def check(self) -> None:
        import_parquet()
        try:
            with self._turn() as turn:
                check_place(turn.folder / _ROWS, self.name)
                self._check_table()
        except ExportLocked as error:
            logger.warning("%s; its table is checked when everything has been fetched", error)

    def _check_table(self) -> None:
        if not self.path.exists():
            for log in filter(os.path.lexists, logs_of(self.path)):
                raise ExportError(
                    f"{self.name} is missing, but {log} exists, which DuckDB would apply to the "
                    f"new file; move it away"
                )
            return
        with self._connected() as connection:
            table = DuckTable.read(connection, self.table, self.name)
            table.check_mode(self.content, self.write)
            if table.exists:
                if self.write == "replace":
                    table = table.replaced()
                check_values(table, self.content, self.flatten, self.write)
                columns = self.content.columns(self.flatten, None)
                found = fit(table, columns, self.content, self.flatten, self.write)
                # A trial, because DuckDB refuses it if another table refers to this one.
                connection.execute("BEGIN")
                if self.write == "replace" and connection.execute(_REFERENCES).fetchone():
                    connection.execute(f"DELETE FROM {table.quoted}")
                for statement in table.additions(found.missing):
                    connection.execute(statement)
                connection.execute("ROLLBACK")

    def accept(self, origin: Origin) -> None:
        if self.write != "replace" or not self.path.exists():
            return
        # A file that is in use is looked at again before it is changed.
        with suppress(ExportLocked), self._turn(), self._connected() as connection:
            table = DuckTable.read(connection, self.table, self.name)
            table.check_accounts(connection, origin)

    def to_keep_values(self, columns: Sequence[str]) -> str:
        # A table that is replaced gets other types by itself.
        if self.write == "replace":
            return super().to_keep_values(columns)
        lifted = self.content.columns(self.flatten, Kinds(self.flatten))
        types = {column.name: TYPES[column.kind] for column in lifted}
        changes = "; ".join(as_text(self.table, name, types[name]) for name in columns)
        return to_keep_values(changes, self.content, self.write)

    def present(self) -> str | None:
        if self.write != "replace" or not self.path.exists():
            return None
        with self._turn(), self._connected() as connection:
            table = DuckTable.read(connection, self.table, self.name)
            if not table.exists:
                return None
            (rows,) = connection.execute(f"SELECT count(*) FROM {table.quoted}").fetchone()
        return (
            f"{numbered(rows, 'row')} of the table {self.table!r} in {self.name}" if rows else None
        )

    def holds(self, origin: Origin) -> bool:
        if not self.path.exists():
            return False
        with self._turn(), self._connected() as connection:
            table = DuckTable.read(connection, self.table, self.name)
            return table.exists and table.holds(connection, origin)

    def has_answers(self, account: str, by: str) -> bool:
        if self.write == "replace" or not self.path.exists():
            return False
        with self._turn(), self._connected(read_only=True) as connection:
            table = DuckTable.read(connection, self.table, self.name)
            (is_there,) = connection.execute(
                f"SELECT EXISTS (FROM {table.quoted} WHERE account = $account"
                f" AND {answers_in_sql(self.content, by)})",
                {"account": account},
            ).fetchone()
            return bool(is_there)

    def synced(self, account: str) -> SyncState | None:
        return next((state for state in self.states() if state.account == account), None)

    def states(self) -> list[SyncState]:
        return self.look()[0]

    def look(self) -> tuple[list[SyncState], bool | None]:
        if not self.path.exists():
            return [], None
        with self._turn(), self._connected(read_only=True) as connection:
            states = read_states(rows_of(connection), self.name, self.table)
            table = DuckTable.read(connection, self.table, self.name)
            # Without its rows, a state says nothing.
            return states if table.exists else [], table.exists

    def turn(self) -> Turn:
        """Return the turn of an export.

        Raises:
            ExportLocked, ExportError: as `Turn` raises.
        """
        made = (self.path, self.path.with_name(self.path.name + _COPY))
        files = [path.name for one in made for path in (one, *logs_of(one))]
        return Turn(self.path, self.name, files)

    @contextmanager
    def _turn(self) -> Iterator[Turn]:
        turn = self.turn()
        try:
            yield turn
        finally:
            turn.end()

    @contextmanager
    def _connected(self, *, read_only: bool = False) -> Iterator[Any]:
        connection = connect(self.path, self.name, read_only=read_only)
        with explained(self.name), closing(connection):
            yield connection

    def encoder(self, table: Table) -> Encoder:
        return ArrowEncoder(table)

    def stage(self, folder: Path, *, changes: bool) -> DuckStage | None:
        content = self.content
        # Rows that are changed or left out would leave unused space in the file.
        if changes or content.of != "people" or content.has_key or content.has_cdp:
            return None
        # DuckDB cannot write there; see `of`.
        if "?" in str(folder) or not is_unicode(str(folder)) or os.path.lexists(self.path):
            return None
        columns = content.columns(self.flatten, Kinds(self.flatten))
        return DuckStage(folder, self.path, self.name, columns, self.turn, self._sink)

    def open(self, table: Table, origin: Origin) -> DuckDbSink:
        return self._sink(table, origin, None)

    def _sink(self, table: Table, origin: Origin, stage: DuckStage | None) -> DuckDbSink:
        return DuckDbSink(self, table, origin, stage)


class DuckDbSink:
    def __init__(
        self, target: DuckDbTarget, table: Table, origin: Origin, stage: DuckStage | None
    ) -> None:
        self.absorbed = 0
        self.notes: Sequence[str] = ()
        self.earlier_columns: Sequence[str] = ()
        self._target = target
        self._origin = origin
        self._connection: Any = None
        self._mended = Mended()
        self._turn = target.turn()
        try:
            self._in_place = target.path.exists()
            self._staged: Staged | NewRows | None = None
            if stage is not None and not self._in_place:
                self._staged = stage.complete(table.columns)
            if self._staged is not None:
                self._file, self._connection = self._staged.path, self._staged.connection
                self._execute(f"SET temp_directory = {literal(str(self._turn.temporary))}")
            elif self._in_place:
                # Already here, because DuckDB locks the file: no other process can take it
                # meanwhile.
                self._file = target.path
                self._connection = connect(self._file, target.name, self._turn.temporary)
            else:
                self._file = self._turn.folder / target.path.name
                self._connection = connect_to_none(self._turn.temporary)
            with explained(target.name):
                self._columns = self._fit_to(table)
            self._new = None if self._in_place or self._staged is not None else self._new_table()
            if self._new is None:
                self._status = self._file.lstat()
            self._numbered = Numbered(self._columns, marks_keys=target.replaces_keys)
            # A row that marks a key is none of the table.
            new = None if target.replaces_keys else self._new
            self._rows = ParquetSink(
                self._turn.folder / _ROWS, self._numbered, take=None if new is None else new.take
            )
        except BaseException:
            with suppress(Exception):
                self._connection.close()
            self._turn.end()
            raise

    def _fit_to(self, table: Table) -> Table:
        """Return the table whose cells fit the columns that there are."""
        target = self._target
        self._table = DuckTable.read(self._connection, target.table, target.name)
        self._table.check_mode(target.content, target.write)
        if target.write == "replace":
            self._table.check_accounts(self._connection, self._origin)
            self._table = self._table.replaced()
        self._fit = fit(self._table, table.columns, target.content, target.flatten, target.write)
        if target.write != "replace" and self._table.has_rows(self._connection):
            missing = {column.name for column in self._fit.missing}
            self.earlier_columns = [one.name for one in table.columns if one.name not in missing]
        return target.content.table(self._fit.kinds, None, self._origin)

    def _new_table(self) -> NewTable:
        target = self._target
        return NewTable(
            self._connection, self._file, target.name, self._columns.columns, self._turn.check
        )

    @property
    def mended(self) -> Mended:
        return self._rows.mended + self._mended

    def write(self, rows: Sequence[Row]) -> None:
        self._rows.write(rows)

    def takes(self, columns: Sequence[Column]) -> bool:
        return [*columns] == [*self._columns.columns]

    def put(self, encoded: Encoded) -> None:
        if isinstance(self._staged, Staged) and encoded.staged is not None:
            flags = encoded.choice.flags
            self._staged.keep(encoded.staged, flags, self._numbered.skip(len(flags)))
            self._mended += encoded.mended
            return
        rows = EncodedRows.of(encoded, schema_of(self._columns.columns))
        self._rows.put_rows(replace(rows, batch=self._numbered.batch(rows.batch)))

    def close(self) -> BinaryIO:
        target = self._target
        if self._new is not None:
            self._complete(self._new)
        file_of_rows = in_sql(self._rows.finish())
        self._check_files()
        with explained(target.name):
            rows = self._incoming(file_of_rows)
        load = self._loaded(rows)
        # The statements may have taken minutes, and some versions open the log only now.
        self._check_files()
        self._execute("COMMIT")
        self._execute("CHECKPOINT")
        self.absorbed, self.notes = load.absorbed, load.notes
        # While DuckDB has it open, so that no other file can get its number. To close it before
        # DuckDB does would release the locks of DuckDB.
        file = open_same_file(self._file, self._status)
        try:
            with explained(target.name):
                self._connection.close()
            self._check_files()
            if not self._in_place:
                self._put_in_place(file)
            self._leave()
            sync_folder(target.path.parent)
        except BaseException:
            file.close()
            raise
        return file

    def _complete(self, new: NewTable) -> None:
        """Make the file, with the rows that a new table has taken."""
        self._rows.flush()
        taken, left = new.finish()
        for rows in left:
            self._rows.put_group(rows)
        self._status = self._file.lstat()
        self._staged = taken

    def _incoming(self, file: str) -> Incoming:
        """Return the rows, with those of a Parquet file, in the connection with the output."""
        staged, target = self._staged, self._target
        if staged is None:
            return Incoming.of(file)
        if not staged.needs_copy:
            return staged.table_of_output(target.table, file)
        self._file = self._turn.folder / f"{target.path.name}{_COPY}"
        attach(self._connection, self._file, target.name, _OUTPUT)
        self._status = self._file.lstat()
        return staged.rows_for_output(file)

    def _loaded(self, rows: Incoming) -> Load:
        """Load the rows in a transaction that is still open."""
        if self._table.exists:
            self._execute(f"SET memory_limit = '{_MEMORY}'")
            return self._load(rows)
        self._execute(f"SET memory_limit = '{_MEMORY_OF_NEW}'")
        # Each thread holds rows of its own.
        self._execute("SET threads = 1")
        try:
            load = self._load(rows)
        except OutOfMemory:
            self._execute("ROLLBACK")
            self._execute(f"SET memory_limit = '{_MEMORY}'")
            return self._load(rows)
        # The commit cannot be tried again.
        self._execute(f"SET memory_limit = '{_MEMORY}'")
        return load

    def _load(self, rows: Incoming) -> Load:
        target = self._target
        load = Load(
            self._execute,
            self._stream,
            target.name,
            self._table,
            self._fit,
            self._columns.columns,
            target.content,
            self._origin,
            rows,
        )
        self._execute("BEGIN")
        load.run(target.write)
        return load

    def _put_in_place(self, file: BinaryIO) -> None:
        target = self._target
        if os.path.lexists(target.path):
            raise ExportError(
                f"{target.name} has been created while this export was writing it; run the same "
                f"export again, which then adds the table to it"
            )
        for log in filter(os.path.lexists, logs_of(self._file)):
            raise ExportError(
                f"{target.name} is not complete: DuckDB has left {log.name}; run the same export "
                f"again"
            )
        os.fsync(file.fileno())
        self._file.replace(target.path)

    def abort(self) -> None:
        if self._new is not None:
            self._new.close()
        # Closing rolls back an open transaction.
        with suppress(Exception):
            self._connection.close()
        self._leave()

    def _check_files(self) -> None:
        """Raise `ExportError` if DuckDB would read or write files that are not the export's."""
        self._turn.check()
        check_same_file(self._file, self._status)
        check_log(self._file, self._target.name)

    def _leave(self) -> None:
        self._rows.abort()
        self._turn.end()

    def _execute(self, statement: str, **values: Any) -> list[Any]:
        with explained(self._target.name):
            return rows_of(self._connection)(statement, **values)

    def _stream(self, statement: str) -> Iterator[Any]:
        with explained(self._target.name):
            result = self._connection.execute(statement)
            while rows := result.fetchmany(_AT_ONCE):
                yield from rows


def _checked_table(name: str | None, default: str) -> str:
    if name is None:
        return default
    if not isinstance(name, str) or not name.strip() or not name.isprintable():
        raise InvalidArgument(f"table: expected a table's name, got {shown(name)}")
    if folded(name).startswith(OWN_PREFIX):
        raise InvalidArgument(
            f"table: names that begin with {OWN_PREFIX!r} are for the library's own tables, got "
            f"{shown(name)}; choose another"
        )
    # Plain text, even if the name is of a subclass such as NumPy's.
    return str.__str__(name)
