"""The rows of an export on their way into a DuckDB table. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...tables.arrow import schema_of
from ...tables.layout import Column
from ...tables.mended import Mended
from ...tables.rows import Row, Table
from ..tables import unbound_keys

if TYPE_CHECKING:
    import pyarrow

__all__ = ["Numbered"]


class Numbered:
    """The rows of a table with a number before the cells. The columns have names of their own.

    A flattened key may have any name, even one that DuckDB or a query gives to something else.

    Args:
        table: the columns, and the cells of the rows.
        marks_keys: whether a row without cells becomes one without a number, of its account and
            key.
    """

    def __init__(self, table: Table, *, marks_keys: bool = False) -> None:
        self.columns = (
            Column("number", "int64"),
            *(Column(f"c{place}", one.kind) for place, one in enumerate(table.columns)),
        )
        self._table = table
        self._marks_keys = marks_keys
        self._count = 0

    @property
    def mended(self) -> Mended:
        return self._table.mended

    def batch(self, rows: pyarrow.RecordBatch) -> pyarrow.RecordBatch:
        """Return rows that have their cells, with a number before them."""
        import pyarrow

        first = self._count
        self._count += rows.num_rows
        numbers = pyarrow.array(range(first, self._count), pyarrow.int64())
        return pyarrow.RecordBatch.from_arrays(
            [numbers, *rows.columns], schema=schema_of(self.columns)
        )

    def cells(self, rows: Sequence[Row]) -> list[list[Any]]:
        cells = self._table.cells(rows)
        first = self._count
        self._count += len(cells[0])
        numbered: list[list[Any]] = [[*range(first, self._count)], *cells]
        if not (self._marks_keys and (unbound := unbound_keys(rows, cells))):
            return numbered
        accounts, keys = map(list, zip(*unbound, strict=True))
        nothing = [None] * len(unbound)
        marks = [nothing, accounts, keys, *(nothing for _ in cells[2:])]
        return [one + more for one, more in zip(numbered, marks, strict=True)]
