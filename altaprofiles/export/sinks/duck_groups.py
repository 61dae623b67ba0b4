"""Rows on their way into a new table of a DuckDB file of their own, group by group.

DuckDB writes a group of rows as a whole. One that grew by several transactions would be written
again by each of them, and leave unused space in the file. So each group has a transaction, and so
that it fits into memory, it has fewer rows than by default. A thread writes it, while more rows are
gathered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...base.sql import quoted
from ...errors import ExportError
from ...tables.layout import Column
from .duck_file import OutOfMemory, attach, explained
from .duck_rows import Incoming, as_cells
from .duck_table import OWN_PREFIX, definitions

if TYPE_CHECKING:
    import pyarrow

__all__ = [
    "DATABASE",
    "STAGED_TABLE",
    "NewRows",
    "NewTable",
    "RowGroups",
    "rows_in_group",
]

DATABASE = f"{OWN_PREFIX}ahead"
"""The file in statements."""

STAGED_TABLE = f"{OWN_PREFIX}staged"
"""The table, until it is that of the output."""

_GROUP = f"{OWN_PREFIX}group"

_GROUP_BYTES = 16 << 20
"""Bytes of a group of rows, by the first ones. It is in memory twice for a moment."""

_MOST_BYTES = 64 << 20
"""Bytes that a group can have if its rows are larger than the first ones, or than most."""

_MOST_COLUMNS = 100
"""Each column takes memory of its own in a commit, whatever is in it."""

_MEMORY = "64MB"
"""DuckDB's memory limit."""

_MEMORY_TO_COMMIT = "500MB"
"""Its limit in a commit. DuckDB 1.3 may crash if it has not enough there."""

_VECTOR = 2048
"""Rows that DuckDB handles at once. The rows of a group are a multiple of it."""

_MOST_IN_GROUP = 60 * _VECTOR
"""DuckDB's default of the rows in a group."""


class RowGroups:
    """The rows of a new table.

    Args:
        connection: without a file. This one becomes its present database.
        path: the file, which is made if it is missing.
        name: the output in messages.
        columns: the columns of the table.
        rows_in_group: the number of rows in a group.

    Attributes:
        connection, path: the arguments.
        rows: number of rows that are in the file, once none is being written.
    """

    def __init__(
        self,
        connection: Any,
        path: Path,
        name: str,
        columns: Sequence[Column],
        rows_in_group: int,
    ) -> None:
        self.connection = connection
        self.path = path
        self.rows = 0
        self._name = name
        self._group = rows_in_group
        self._names = ", ".join(f"c{place}" for place, _ in enumerate(columns))
        self._waiting: list[pyarrow.Table] = []
        self._count = self._bytes = 0
        self._written: pyarrow.Table | None = None
        self._writing: Future[None] | None = None
        self._writer = ThreadPoolExecutor(1, "altaprofiles-duckdb")
        with explained(name):
            attach(connection, path, name, DATABASE, rows_in_group=rows_in_group)
            connection.execute("SET threads = 1")
            connection.execute(f"CREATE TABLE {STAGED_TABLE} ({definitions(columns)})")

    def put(self, rows: pyarrow.Table) -> None:
        """Add rows, and write the groups that are full.

        Args:
            rows: have the columns as `c0`, `c1` and so on, perhaps beside others.

        Raises:
            ExportError: DuckDB has refused these rows, or earlier ones; see `take_back`.
        """
        self._waiting.append(rows)
        self._count += len(rows)
        self._bytes += rows.nbytes
        while self._count >= self._group:
            self._begin(self._group)
        if self._bytes > _MOST_BYTES:
            raise OutOfMemory(f"{self._name}: the rows of a group are too large for memory")

    def finish(self) -> None:
        """Write the rows that are left.

        Raises:
            ExportError: as in `put`.
        """
        if self._count:
            self._begin(self._count)
        self._settle()
        self.close()
        self._check()

    def _check(self) -> None:
        with explained(self._name):
            [found] = self.connection.execute(
                f"SELECT count(*), coalesce(max(rowid) + 1, 0) FROM {STAGED_TABLE}"
            ).fetchall()
        if found != (self.rows, self.rows):
            raise ExportError(f"{self._name}: DuckDB has numbered the rows in another way")

    def close(self) -> None:
        """Wait until nothing uses the connection."""
        self._writer.shutdown()

    def take_back(self) -> list[pyarrow.Table]:
        """Return the rows that are not in the file, after an error. No others can be added.

        Raises:
            ExportError: DuckDB has others than it has said.
        """
        self.close()
        with suppress(Exception):
            if self._writing is not None:
                self._writing.result()
                self._written = None
        self._check()
        left = [*([] if self._written is None else [self._written]), *self._waiting]
        self._written, self._waiting = None, []
        return left

    def _begin(self, count: int) -> None:
        """Write the first rows of those that wait, once those before are in the file."""
        import pyarrow

        self._settle()
        rows = pyarrow.concat_tables(self._waiting)
        self._written = rows.slice(0, count)
        self._count = len(rows) - count
        self._waiting = [rows.slice(count)] if self._count else []
        self._bytes = sum(table.nbytes for table in self._waiting)
        try:
            self._writing = self._writer.submit(self._write, self._written)
        except RuntimeError:
            # The system has no thread left.
            self._write(self._written)
            self._written = None

    def _settle(self) -> None:
        import pyarrow

        if self._writing is not None:
            self._writing.result()
            self._writing = self._written = None
            # Else Arrow's allocator keeps it, beside what DuckDB needs.
            pyarrow.default_memory_pool().release_unused()

    def _write(self, rows: pyarrow.Table) -> None:
        """Write rows in a transaction."""
        with explained(self._name):
            self.connection.execute(f"SET memory_limit = '{_MEMORY}'")
            self.connection.register(_GROUP, rows)
            try:
                self.connection.execute("BEGIN")
                self.connection.execute(
                    f"INSERT INTO {STAGED_TABLE} SELECT {self._names} FROM {_GROUP}"
                )
                self.connection.execute(f"SET memory_limit = '{_MEMORY_TO_COMMIT}'")
                self.connection.execute("COMMIT")
            except BaseException:
                with suppress(Exception):
                    self.connection.execute("ROLLBACK")
                raise
            finally:
                self.connection.unregister(_GROUP)
        self.rows += len(rows)


def rows_in_group(first: pyarrow.Table, columns: int, *, large: bool = False) -> int:
    """Return the number of rows in a group, or 0 if they would not fit into memory.

    Args:
        first: the first rows, at least one.
        columns: the number of columns of the table.
        large: whether rows of many kilobytes have groups as well.
    """
    if columns > _MOST_COLUMNS:
        return 0
    row_bytes = max(int(first.nbytes) // len(first), 1)
    rows = _GROUP_BYTES // row_bytes // _VECTOR * _VECTOR
    if not rows and large and _VECTOR * row_bytes <= _MOST_BYTES:
        rows = _VECTOR
    return min(rows, _MOST_IN_GROUP)


class NewRows:
    """The rows of a new table, whose numbers are those that DuckDB has given them.

    Args:
        groups: the rows, all in the file.
        columns: the columns of their table.
        needs_copy: whether others, for which there was no memory, are to be loaded as well. In a
            file with small groups, that would take as much.

    Attributes:
        connection: has their file as the present database.
        path: the file.
        needs_copy: the argument.
    """

    def __init__(self, groups: RowGroups, columns: Sequence[Column], *, needs_copy: bool) -> None:
        self.connection = groups.connection
        self.path = groups.path
        self.needs_copy = needs_copy
        self._count = groups.rows
        self._values = as_cells(columns, "old")

    def table_of_output(self, name: str, file: str) -> Incoming:
        """Do as `Staged.table_of_output`."""
        table = quoted(name)
        self.connection.execute(f"ALTER TABLE {STAGED_TABLE} RENAME TO {table}")
        return Incoming(
            all=f"({self._rows_of(table)} UNION ALL BY NAME FROM {file})",
            new=file,
            count=f"({self._count} + (SELECT count(*) FROM {file}))",
            present=f"(SELECT rowid AS row, rowid AS number FROM {table})",
        )

    def rows_for_output(self, file: str) -> Incoming:
        """Do as `Staged.rows_for_output`."""
        rows = self._rows_of(f"{DATABASE}.main.{STAGED_TABLE}")
        return Incoming.of(f"({rows} UNION ALL BY NAME FROM {file})")

    def _rows_of(self, table: str) -> str:
        return f"SELECT old.rowid AS number, {self._values} FROM {table} AS old"


class NewTable:
    """The table of an output that is a new file, as long as groups of its rows fit into memory.

    Args:
        connection: without a file.
        path: the file, which does not exist yet.
        name: the output in messages.
        columns: the columns of the table.
        check: raises if the file's folder is not the export's any more.
    """

    def __init__(
        self,
        connection: Any,
        path: Path,
        name: str,
        columns: Sequence[Column],
        check: Callable[[], None],
    ) -> None:
        self._connection = connection
        self._path = path
        self._name = name
        self._columns = columns
        self._check = check
        self._groups: RowGroups | None = None
        self._is_over = False

    def take(self, rows: pyarrow.Table) -> list[pyarrow.Table]:
        """Add rows; return those that it does not take, perhaps earlier ones first.

        Args:
            rows: as in `RowGroups.put`.

        Raises:
            ExportError: DuckDB refuses, and not for want of memory.
        """
        if self._is_over or not len(rows):
            return [rows]
        if self._groups is None:
            count = rows_in_group(rows, len(self._columns), large=True)
            if not count:
                self._is_over = True
                return [rows]
            self._check()
            self._groups = RowGroups(self._connection, self._path, self._name, self._columns, count)
        return self._attempted(self._groups, lambda groups: groups.put(rows))

    def finish(self) -> tuple[NewRows | None, list[pyarrow.Table]]:
        """Make the file if there is none yet; return its rows, and those that it does not take.

        Raises:
            ExportError: as in `take`.
        """
        if self._groups is None:
            self._check()
            with explained(self._name):
                attach(self._connection, self._path, self._name, DATABASE)
            return None, []
        left = [] if self._is_over else self._attempted(self._groups, RowGroups.finish)
        return NewRows(self._groups, self._columns, needs_copy=self._is_over), left

    def _attempted(
        self, groups: RowGroups, step: Callable[[RowGroups], None]
    ) -> list[pyarrow.Table]:
        """Return the rows that are left if there is no memory for them."""
        try:
            step(groups)
        except OutOfMemory:
            self._is_over = True
            return groups.take_back()
        return []

    def close(self) -> None:
        """Wait until nothing uses the connection."""
        if self._groups is not None:
            self._groups.close()
