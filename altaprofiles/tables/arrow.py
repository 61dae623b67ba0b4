"""Arrow tables of records. Needs the extra `parquet`, and imports pyarrow on first use."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ..base.extras import require
from ..base.jsontext import check_utf8, excerpt
from ..errors import DecodeError
from .columns import Columns
from .kinds import Kinds
from .layout import Kind, check_flatten, column_names

if TYPE_CHECKING:
    import pyarrow


__all__ = [
    "Tables",
    "records_to_arrow",
]

SLICE = 1 << 17
"""Bytes of records converted at once. Their cells fit into the caches of a processor."""


def records_to_arrow(records: Iterable[bytes], *, flatten: Sequence[str] = ()) -> pyarrow.Table:
    """Return the table of `altaprofiles.to_arrow`, from records as the service sent them."""
    keys = check_flatten(flatten)
    require("parquet", what="to_arrow")
    rows = list(records)
    kinds = Kinds(keys)
    kinds.observe(rows)
    tables = Tables(keys, kinds)
    for record in rows:
        tables.add(record)
    return tables.take()


class Tables:
    """Collects records, and returns them as tables of any size.

    The same records in the same order give the same tables, byte for byte.

    Attributes:
        bytes, rows: size and number of the records added since the last `take`.
        mended: number of values mended so far, as in `Columns.mended`.
    """

    def __init__(self, flatten: Sequence[str], kinds: Kinds) -> None:
        self.bytes = 0
        self.rows = 0
        self.mended = 0
        self._flatten = flatten
        self._kinds: list[Kind] = [kinds[key] for key in flatten]
        self._schema = _schema(flatten, self._kinds)
        self._slice: list[bytes] = []
        self._in_slice = 0
        self._batches: list[pyarrow.RecordBatch] = []

    @property
    def schema(self) -> pyarrow.Schema:
        """The schema of every table."""
        return self._schema

    def add(self, record: bytes) -> None:
        """Add one row.

        Raises:
            DecodeError: a record is not a JSON object in UTF-8. Records are converted in batches,
                so that it can be one that was added before this one.
        """
        self._slice.append(record)
        self._in_slice += len(record)
        self.rows += 1
        self.bytes += len(record)
        if self._in_slice >= SLICE:
            self._convert()

    def take(self) -> pyarrow.Table:
        """Return the rows added since the last call, in one chunk if their size allows.

        Raises:
            DecodeError: as in `add`.
        """
        import pyarrow

        if self._slice:
            self._convert()
        table = pyarrow.Table.from_batches(self._batches, self._schema).combine_chunks()
        self._batches, self.bytes, self.rows = [], 0, 0
        return table

    def _convert(self) -> None:
        import pyarrow

        columns = Columns(self._slice, self._flatten)
        cells: list[list[Any]] = [*columns.texts, columns.object_ids, *columns.json_texts]
        cells += [columns.lifted(number, kind) for number, kind in enumerate(self._kinds)]
        try:
            arrays = [
                pyarrow.array(values, field.type)
                for values, field in zip(cells, self._schema, strict=True)
            ]
        except pyarrow.ArrowInvalid:
            arrays = None
        if arrays is None:
            for record in self._slice:
                check_utf8(record, "$")
            # Outside of the handler, because Arrow's own error quotes values.
            first = excerpt(self._slice[0])
            raise DecodeError("a value that Arrow cannot hold", path="$", excerpt=first)
        self._batches.append(pyarrow.RecordBatch.from_arrays(arrays, schema=self._schema))
        self.mended += columns.mended
        self._slice, self._in_slice = [], 0


def _schema(flatten: Sequence[str], kinds: Sequence[Kind]) -> pyarrow.Schema:
    import pyarrow

    text = pyarrow.string()
    types: dict[Kind, pyarrow.DataType] = {
        "bool": pyarrow.bool_(),
        "int64": pyarrow.int64(),
        "double": pyarrow.float64(),
        "text": text,
    }
    core = [text, text, text, text, pyarrow.list_(text), text, text, text, text]
    names = column_names(flatten)
    return pyarrow.schema([*zip(names, [*core, *(types[kind] for kind in kinds)], strict=True)])
