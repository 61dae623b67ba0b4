"""The rows of an export on their way into a DuckDB table. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...tables.layout import Column
from ...tables.rows import Row, Table
from ..tables import unbound_keys

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
    def mended(self) -> int:
        return self._table.mended

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
