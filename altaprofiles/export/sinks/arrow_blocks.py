"""Blocks of encoded rows as Arrow batches, for Parquet and DuckDB. Needs pyarrow on first use."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import compress
from typing import TYPE_CHECKING, Self

from msgspec import Struct

from ...tables.arrow import Tables
from ...tables.mended import Mended
from ...tables.rows import Row, Table
from .encoding import MATCHED, Encoded

if TYPE_CHECKING:
    import pyarrow

__all__ = ["ArrowEncoder", "EncodedRows", "all_rows_of"]


class ArrowEncoder:
    """Turns rows into blocks: number of rows, size of each record, and the rows as a batch.

    Args:
        table: the columns, and the cells of the rows.
    """

    def __init__(self, table: Table) -> None:
        self._table = table
        self._tables = Tables(table)
        self._lengths = array("I")

    @property
    def mended(self) -> Mended:
        return self._table.mended

    def add(self, rows: Sequence[Row]) -> None:
        for row in rows:
            self._tables.add(row)
        self._lengths.extend([len(row.record) for row in rows])

    def take(self) -> bytes:
        head = array("I", [len(self._lengths), *self._lengths]).tobytes()
        self._lengths = array("I")
        (batch,) = self._tables.take().combine_chunks().to_batches()
        return b"".join([head, bytes(-len(head) % _ALIGNED), batch.serialize().to_pybytes()])


_ALIGNED = 64
"""Arrow's buffers begin at multiples of this number of bytes."""


class EncodedRows(Struct, frozen=True):
    """The rows of a block that are written.

    Attributes:
        batch: the rows.
        lengths: the size of each record, in bytes.
        mended: the values of them that are not as they were.
    """

    batch: pyarrow.RecordBatch
    lengths: Sequence[int]
    mended: Mended

    @classmethod
    def of(cls, encoded: Encoded, schema: pyarrow.Schema) -> Self:
        """Return the rows of a block that are written.

        Args:
            encoded: the block, made by an `ArrowEncoder`.
            schema: the schema of its rows.
        """
        import pyarrow

        choice = encoded.choice
        lengths, batch = _read(encoded.block, schema)
        if not choice.is_of_all:
            flags = pyarrow.py_buffer(choice.flags)
            mask = pyarrow.Array.from_buffers(pyarrow.uint8(), len(lengths), [None, flags])
            batch = batch.filter(mask.cast(pyarrow.bool_()))
            lengths = array("I", compress(lengths, choice.flags))
        if choice.matched is not None:
            batch = _matched(batch, choice.matched)
        return cls(batch, lengths, encoded.mended)


def all_rows_of(block: memoryview, schema: pyarrow.Schema) -> pyarrow.RecordBatch:
    """Return all rows of a block.

    Args:
        block: made by an `ArrowEncoder`.
        schema: the schema of its rows.
    """
    return _read(block, schema)[1]


def _read(block: memoryview, schema: pyarrow.Schema) -> tuple[array[int], pyarrow.RecordBatch]:
    """Return the size of each record of a block, and its rows."""
    import pyarrow

    lengths = array("I")
    width = lengths.itemsize
    lengths.frombytes(block[:width])
    end = width * (1 + lengths.pop())
    lengths.frombytes(block[width:end])
    start = end + -end % _ALIGNED
    return lengths, pyarrow.ipc.read_record_batch(pyarrow.py_buffer(block[start:]), schema)


def _matched(batch: pyarrow.RecordBatch, matched: Sequence[tuple[str, ...]]) -> pyarrow.RecordBatch:
    import pyarrow

    place = batch.schema.get_field_index(MATCHED)
    columns = [*batch.columns]
    columns[place] = pyarrow.array([[*events] for events in matched], columns[place].type)
    return pyarrow.RecordBatch.from_arrays(columns, schema=batch.schema)
