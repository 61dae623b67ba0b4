"""Arrow tables of records. Needs the extra `parquet`, and imports pyarrow on first use."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ..base.jsontext import check_utf8, excerpt
from ..errors import DecodeError
from .layout import Column, ColumnKind
from .rows import Row, Table

if TYPE_CHECKING:
    import pyarrow


__all__ = [
    "Tables",
    "records_to_arrow",
    "schema_of",
]

SLICE = 1 << 17
"""Bytes of records converted at once. Their cells fit into the caches of a processor."""


def records_to_arrow(records: Iterable[bytes], table: Table) -> pyarrow.Table:
    """Return records as the service sent them as one table."""
    tables = Tables(table)
    for record in records:
        tables.add(Row(record))
    return tables.take().combine_chunks()


class Tables:
    """Collects rows, and returns them as Arrow tables of any size.

    The same rows in the same order give the same tables, byte for byte.

    Args:
        table: the columns, and the cells of the rows.

    Attributes:
        bytes: size of the records added since the last `take`.
        rows: number of rows added since then.
    """

    def __init__(self, table: Table) -> None:
        self.bytes = 0
        self.rows = 0
        self._table = table
        self._schema = schema_of(table.columns)
        self._slice: list[Row] = []
        self._in_slice = 0
        self._pieces: list[pyarrow.RecordBatch] = []
        self._batches: list[pyarrow.RecordBatch] = []

    @property
    def schema(self) -> pyarrow.Schema:
        """The schema of every table."""
        return self._schema

    def add(self, row: Row) -> None:
        """Add one row.

        Raises:
            DecodeError: a record is not a JSON object in UTF-8. Records are converted in batches,
                so that it can be one that was added before this one.
        """
        self._slice.append(row)
        self._in_slice += len(row.record)
        self.rows += 1
        self.bytes += len(row.record)
        if self._in_slice >= SLICE:
            self._end_slice()

    def put(self, batch: pyarrow.RecordBatch, lengths: Sequence[int]) -> None:
        """Add rows that have been converted already.

        Args:
            batch: the rows, in the schema of every table.
            lengths: the size of each record, in bytes.

        Raises:
            DecodeError: as in `add`.
        """
        self._convert()
        self.rows += batch.num_rows
        self.bytes += sum(lengths)
        start = 0
        for end, length in enumerate(lengths, 1):
            self._in_slice += length
            if self._in_slice >= SLICE or end == len(lengths):
                self._pieces.append(batch.slice(start, end - start))
                start = end
            if self._in_slice >= SLICE:
                self._end_slice()

    def take(self) -> pyarrow.Table:
        """Return the rows added since the last call, in chunks, as one would be a second copy.

        Raises:
            DecodeError: as in `add`.
        """
        import pyarrow

        self._end_slice()
        table = pyarrow.Table.from_batches(self._batches, self._schema)
        self._batches, self.bytes, self.rows = [], 0, 0
        return table

    def _end_slice(self) -> None:
        import pyarrow

        self._convert()
        if len(self._pieces) > 1:
            whole = pyarrow.Table.from_batches(self._pieces).combine_chunks()
            self._pieces = whole.to_batches()
        self._batches += self._pieces
        self._pieces, self._in_slice = [], 0

    def _convert(self) -> None:
        import pyarrow

        if not self._slice:
            return
        cells = self._table.cells(self._slice)
        try:
            arrays = [
                pyarrow.array(values, field.type)
                for values, field in zip(cells, self._schema, strict=True)
            ]
        except pyarrow.ArrowInvalid:
            arrays = None
        if arrays is None:
            for row in self._slice:
                check_utf8(row.record, "$")
            # Outside of the handler, because Arrow's own error quotes values.
            first = excerpt(self._slice[0].record)
            raise DecodeError("a value that Arrow cannot hold", path="$", excerpt=first)
        self._pieces.append(pyarrow.RecordBatch.from_arrays(arrays, schema=self._schema))
        self._slice = []


def schema_of(columns: Sequence[Column]) -> pyarrow.Schema:
    """Return the schema of a table with these columns."""
    import pyarrow

    text = pyarrow.string()
    types: dict[ColumnKind, pyarrow.DataType] = {
        "text": text,
        "texts": pyarrow.list_(text),
        "json": text,
        "bool": pyarrow.bool_(),
        "int64": pyarrow.int64(),
        "double": pyarrow.float64(),
        "timestamp": pyarrow.timestamp("us", "UTC"),
    }
    return pyarrow.schema([(column.name, types[column.kind]) for column in columns])
