"""The rows of an export on their way into a DuckDB table. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from msgspec import Struct

from ...base.sql import literal, quoted
from ...tables.arrow import schema_of
from ...tables.layout import Column
from ...tables.mended import Mended
from ...tables.rows import Row, Table
from ..tables import unbound_keys

if TYPE_CHECKING:
    import pyarrow

__all__ = ["Incoming", "Numbered", "as_cells", "in_sql"]


class Incoming(Struct, frozen=True):
    """The rows of an export in SQL, with the columns of `Numbered`.

    Attributes:
        all: the rows. Before they are inserted, if some are in the table already.
        new: those that are not in the table yet.
        count: their number, at any time.
        present: `row` and `number` of those in the table, in which `row` is DuckDB's number of it;
            None without any.
        left_out: `row` of others in the table, which have to go; None without any.
    """

    all: str
    new: str
    count: str
    present: str | None = None
    left_out: str | None = None

    @classmethod
    def of(cls, rows: str) -> Self:
        """Return rows of which none is in the table."""
        return cls(rows, rows, f"(SELECT count(*) FROM {rows})")


def as_cells(columns: Sequence[Column], table: str) -> str:
    """Return the columns of a table in SQL, under the names that `Numbered` gives them.

    Args:
        columns: the columns.
        table: the name that stands for the table.
    """
    return ", ".join(f"{table}.{quoted(one.name)} AS c{place}" for place, one in enumerate(columns))


def in_sql(path: Path) -> str:
    """Return the rows of a Parquet file in SQL."""
    # DuckDB expands `*`, `?` and `[` in paths.
    pattern = re.sub(r"([*?\[])", r"[\1]", str(path))
    return f"read_parquet({literal(pattern)})"


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

    def skip(self, count: int) -> int:
        """Number rows that are elsewhere; return the number of the first one."""
        first = self._count
        self._count += count
        return first

    @property
    def mended(self) -> Mended:
        return self._table.mended

    def batch(self, rows: pyarrow.RecordBatch) -> pyarrow.RecordBatch:
        """Return rows that have their cells, with a number before them."""
        import pyarrow

        first = self.skip(rows.num_rows)
        numbers = pyarrow.array(range(first, self._count), pyarrow.int64())
        return pyarrow.RecordBatch.from_arrays(
            [numbers, *rows.columns], schema=schema_of(self.columns)
        )

    def cells(self, rows: Sequence[Row]) -> list[list[Any]]:
        cells = self._table.cells(rows)
        first = self.skip(len(cells[0]))
        numbered: list[list[Any]] = [[*range(first, self._count)], *cells]
        if not (self._marks_keys and (unbound := unbound_keys(rows, cells))):
            return numbered
        accounts, keys = map(list, zip(*unbound, strict=True))
        nothing = [None] * len(unbound)
        marks = [nothing, accounts, keys, *(nothing for _ in cells[2:])]
        return [one + more for one, more in zip(numbered, marks, strict=True)]
