"""Loads rows into a DuckDB file while others are still being read.

The file becomes the output by a new name, so that little is left to do at the end. Until then it is
in the folder of the records, and each run makes its own.

Where anything fails, all rows are loaded at the end.
"""

from __future__ import annotations

import logging
import os
from array import array
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ...base.sql import quoted
from ...errors import ExportError
from ...tables.arrow import schema_of
from ...tables.layout import Column
from ...tables.rows import Table
from ..store.workspace import STAGED
from ..tables import Origin
from .arrow_blocks import all_rows_of
from .duck_file import OutOfMemory, connect, connect_to_none, explained
from .duck_groups import DATABASE, STAGED_TABLE, RowGroups, rows_in_group
from .duck_rows import Incoming, as_cells
from .duck_table import OWN_PREFIX
from .target import Sink
from .turns import Turn

if TYPE_CHECKING:
    import pyarrow

__all__ = ["DuckStage", "Staged"]

logger = logging.getLogger("altaprofiles")

_BLOCKS, _LEFT_OUT = f"{OWN_PREFIX}blocks", f"{OWN_PREFIX}left_out"

_PLACES = (
    f"(SELECT unnest(range(first, first + count)) AS row,"
    f" unnest(range(number, number + count)) AS number FROM {_BLOCKS})"
)

_MOST_LEFT_OUT = 0.1
"""Share of the rows that can be deleted. A DuckDB file never becomes smaller."""


class Staged:
    """The rows that are in a new file, and which of them are written.

    Args:
        groups: the rows, all in the file.
        columns: the columns of their table.

    Attributes:
        connection: has their file as the present database.
        path: the file.
    """

    def __init__(self, groups: RowGroups, columns: Sequence[Column]) -> None:
        self.connection = groups.connection
        self.path = groups.path
        self._columns = columns
        self._kept = bytearray(groups.rows)
        self._written = 0
        self._blocks = [array("q"), array("q"), array("q")]

    @property
    def needs_copy(self) -> bool:
        """True if the file would be much larger than the rows that are written."""
        return self._written < (1 - _MOST_LEFT_OUT) * len(self._kept)

    def keep(self, first: int, flags: bytes, number: int) -> None:
        """Choose rows that are written.

        Args:
            first: the number of the first one in the stage.
            flags: as in `Choice`.
            number: the number that the first one has among those of the export.
        """
        self._kept[first : first + len(flags)] = flags
        self._written += sum(flags)
        for values, value in zip(self._blocks, (first, number, len(flags)), strict=True):
            values.append(value)

    def table_of_output(self, name: str, file: str) -> Incoming:
        """Make their table that of the output; return the rows, with those of a Parquet file.

        Args:
            name: the name of the table.
            file: the Parquet file in SQL.
        """
        self._register()
        self.connection.execute(f"ALTER TABLE {STAGED_TABLE} RENAME TO {quoted(name)}")
        left_out = f"SELECT row FROM {_LEFT_OUT}" if self._written < len(self._kept) else None
        rows = self._selection(quoted(name))
        return Incoming(
            all=f"({rows} UNION ALL BY NAME FROM {file})",
            new=file,
            count=f"({self._written} + (SELECT count(*) FROM {file}))",
            present=_PLACES,
            left_out=left_out,
        )

    def rows_for_output(self, file: str) -> Incoming:
        """Return the rows for a table of another file, with those of a Parquet file."""
        self._register()
        rows = self._selection(f"{DATABASE}.main.{STAGED_TABLE}")
        rows += f" ANTI JOIN {_LEFT_OUT} USING (row)"
        return Incoming.of(f"({rows} UNION ALL BY NAME FROM {file})")

    def _selection(self, table: str) -> str:
        return (
            f"SELECT places.number, {as_cells(self._columns, 'old')} FROM {table} AS old"
            f" JOIN {_PLACES} AS places ON places.row = old.rowid"
        )

    def _register(self) -> None:
        left_out = array("q")
        place = self._kept.find(0)
        while place >= 0:
            left_out.append(place)
            place = self._kept.find(0, place + 1)
        first, number, count = self._blocks
        self.connection.register(_BLOCKS, _table(first=first, number=number, count=count))
        self.connection.register(_LEFT_OUT, _table(row=left_out))


def _table(**columns: array[int]) -> pyarrow.Table:
    import pyarrow

    type_ = pyarrow.int64()
    return pyarrow.table(
        {
            name: pyarrow.Array.from_buffers(type_, len(values), [None, pyarrow.py_buffer(values)])
            for name, values in columns.items()
        }
    )


class _MakeSink(Protocol):
    def __call__(self, table: Table, origin: Origin, stage: DuckStage | None) -> Sink: ...


class DuckStage:
    """The rows of one export. Implements `Stage`.

    Args:
        folder: a folder for its file.
        path: the output, which does not exist.
        name: the output in messages.
        columns: the columns of the table.
        take_turn: returns the turn of an export at the output.
        make_sink: returns the sink, which takes what `complete` returns.
    """

    takes_text = False
    first_only = False
    needs_blocks = False

    def __init__(
        self,
        folder: Path,
        path: Path,
        name: str,
        columns: Sequence[Column],
        take_turn: Callable[[], Turn],
        make_sink: _MakeSink,
    ) -> None:
        self.is_held = False
        self._path = folder / f"{STAGED}.duckdb"
        self._output = path
        self._name = name
        self._columns = columns
        self._take_turn = take_turn
        self._make_sink = make_sink
        self._connection: Any = None
        self._groups: RowGroups | None = None
        self._is_over = False
        self._count = 0

    def put(self, block: bytes, chain: int) -> int | None:
        first = self._count
        if self._is_over or not self._attempted(lambda: self._insert(block)):
            return None
        return first

    def open(self, table: Table, origin: Origin) -> Sink:
        # A sink that has them may have failed, and this is another one.
        self.is_held = False
        return self._make_sink(table, origin, self)

    def complete(self, columns: Sequence[Column]) -> Staged | None:
        """Return the rows, which are the caller's then; None if there are none for it.

        Args:
            columns: the columns of the rows.
        """
        groups = self._groups
        if groups is None or [*columns] != [*self._columns]:
            return None
        if not self._attempted(groups.finish):
            return None
        self._is_over = self.is_held = True
        self._connection = self._groups = None
        return Staged(groups, self._columns)

    def close(self) -> None:
        self._is_over = True
        self.is_held = False
        connection, self._connection = self._connection, None
        groups, self._groups = self._groups, None
        if groups is not None:
            groups.close()
        with suppress(Exception):
            if connection is not None:
                # The file is removed.
                connection.execute("PRAGMA disable_checkpoint_on_shutdown")
        with suppress(Exception):
            if connection is not None:
                connection.close()
        with suppress(OSError):
            self._remove()

    def _remove(self) -> None:
        for path in self._path.parent.glob(f"{STAGED}*"):
            path.unlink(missing_ok=True)

    def _attempted(self, step: Callable[[], None]) -> bool:
        """Return whether a step has succeeded. If not, all rows are dropped."""
        try:
            with explained(self._name):
                step()
        except ExportError as error:
            logger.debug("no rows are loaded ahead: %s", error)
            self.close()
            return False
        return True

    def _insert(self, block: bytes) -> None:
        import pyarrow

        batch = all_rows_of(memoryview(block), schema_of(self._columns))
        names = [f"c{place}" for place in range(batch.num_columns)]
        rows = pyarrow.Table.from_arrays(batch.columns, names)
        if self._groups is None:
            self._groups = self._created(rows)
        self._groups.put(rows)
        self._count += batch.num_rows

    def _created(self, first: pyarrow.Table) -> RowGroups:
        count = rows_in_group(first, len(self._columns))
        if not count:
            raise OutOfMemory("the records are too large for memory")
        self._connection = connect_to_none()
        self._make_file()
        return RowGroups(self._connection, self._path, self._name, self._columns, count)

    def _make_file(self) -> None:
        # Those of a run that was killed.
        self._remove()
        turn = self._take_turn()
        try:
            if os.path.lexists(self._output):
                raise ExportError("the output has been created meanwhile")
            # Made where it would be made without a stage, it has the same owner and permissions.
            made = turn.folder / self._output.name
            connect(made, self._name).close()
            # Refused where the output is on another disk.
            made.rename(self._path)
        finally:
            turn.end()
