"""Parquet files, written by pyarrow one row group at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar

from ...errors import ExportError
from ...tables.arrow import Tables, schema_of
from ...tables.layout import Column
from ...tables.mended import Mended
from ...tables.rows import Row, Table
from ..formats import Format
from ..tables import Origin
from .arrow_blocks import ArrowEncoder, EncodedRows
from .encoding import Encoded, Encoder
from .files import PartialFile
from .target import FileTarget

if TYPE_CHECKING:
    import pyarrow

__all__ = ["GROUP_ROWS", "Groups", "ParquetSink", "ParquetTarget", "explained", "import_parquet"]

GROUP_BYTES = 16 << 20
GROUP_ROWS = 100_000
"""A row group ends at either limit. Memory holds a few copies of one row group."""

_TAKEN_BYTES = 4 << 20
"""Bytes of rows that `take` is given. It has row groups of its own."""


class ParquetTarget(FileTarget, frozen=True, kw_only=True):
    """One Parquet file, compressed with zstd."""

    format: ClassVar[Format] = "parquet"
    endings: ClassVar[tuple[str, ...]] = (".parquet",)
    extra: ClassVar[str | None] = "parquet"
    uploads: ClassVar[bool] = True
    options: ClassVar[frozenset[str]] = frozenset({"flatten"})
    has_types: ClassVar[bool] = True
    encodes: ClassVar[bool] = True

    def check(self) -> None:
        import_parquet()
        super().check()

    def encoder(self, table: Table) -> Encoder:
        return ArrowEncoder(table)

    def open(self, table: Table, origin: Origin) -> ParquetSink:
        return ParquetSink(self.path, table)


def import_parquet() -> Any:
    """Return pyarrow's module for Parquet.

    Its import takes some hundredths of a second. Done before the first request, it does not delay
    the end of an export.
    """
    from pyarrow import parquet

    return parquet


class Groups:
    """Collects rows, and passes them on as the tables of row groups.

    The same rows give the same tables, whether they were encoded before or not.

    Args:
        table: the columns, and the cells of the rows.
        write: called with each table, and the number of its rows.
        group_bytes: the size of the records from which on a table is full; by default 16 MiB.

    Attributes:
        schema: the schema of every table.
    """

    def __init__(
        self,
        table: Table,
        write: Callable[[pyarrow.Table, int], None],
        group_bytes: int | None = None,
    ) -> None:
        self._table = table
        self._tables = Tables(table)
        self._write = write
        self._group_bytes = group_bytes or GROUP_BYTES
        self._mended = Mended()
        self.schema = self._tables.schema

    @property
    def mended(self) -> Mended:
        """The values that are not as they were."""
        return self._table.mended + self._mended

    def add(self, rows: Iterable[Row]) -> None:
        """Add rows."""
        tables = self._tables
        for row in rows:
            tables.add(row)
            if self._is_full():
                self.flush()

    def put(self, rows: EncodedRows) -> None:
        """Add rows that were encoded before."""
        self._mended += rows.mended
        start = size = 0
        for end, length in enumerate(rows.lengths, 1):
            size += length
            if end == len(rows.lengths) or self._is_full(end - start, size):
                self._tables.put(rows.batch.slice(start, end - start), rows.lengths[start:end])
                start, size = end, 0
                if self._is_full():
                    self.flush()

    def flush(self) -> None:
        """Pass on the rows that are left."""
        import pyarrow

        if rows := self._tables.rows:
            self._write(self._tables.take(), rows)
            # Else Arrow's allocator keeps the memory of earlier row groups.
            pyarrow.default_memory_pool().release_unused()

    def _is_full(self, rows: int = 0, size: int = 0) -> bool:
        tables = self._tables
        return tables.bytes + size >= self._group_bytes or tables.rows + rows >= GROUP_ROWS


class ParquetSink:
    """Writes a Parquet file under its partial name, and puts it in place at the end.

    Args:
        path, partial: as for `PartialFile`.
        table: the columns, and the cells of the rows.
        take: is given the rows of each row group before; returns those that are for the file.
    """

    absorbed = 0
    earlier_columns: Sequence[str] = ()
    notes: Sequence[str] = ()

    def __init__(
        self,
        path: Path,
        table: Table,
        partial: Path | None = None,
        *,
        take: Callable[[pyarrow.Table], Sequence[pyarrow.Table]] | None = None,
    ) -> None:
        self._name = str(path)
        self._take = take or (lambda table: [table])
        self._groups = Groups(table, self._write_group, None if take is None else _TAKEN_BYTES)
        self._partial = PartialFile(path, partial)
        try:
            with explained(self._name):
                self._writer = import_parquet().ParquetWriter(
                    self._partial.file, self._groups.schema, compression="zstd"
                )
        except BaseException:
            self._partial.discard()
            raise

    @property
    def mended(self) -> Mended:
        return self._groups.mended

    def takes(self, columns: Sequence[Column]) -> bool:
        return bool(schema_of(columns) == self._groups.schema)

    def write(self, rows: Sequence[Row]) -> None:
        self._groups.add(rows)

    def put(self, encoded: Encoded) -> None:
        self.put_rows(EncodedRows.of(encoded, self._groups.schema))

    def put_rows(self, rows: EncodedRows) -> None:
        """Add rows that were encoded before."""
        self._groups.put(rows)

    def put_group(self, table: pyarrow.Table) -> None:
        """Add the rows of a row group as they are."""
        with explained(self._name):
            self._writer.write_table(table, row_group_size=max(len(table), 1))

    def flush(self) -> None:
        """End the row group, so that no row waits for another."""
        self._groups.flush()

    def finish(self) -> Path:
        """Complete the file, and return its partial path."""
        import pyarrow

        self.flush()
        with explained(self._name):
            self._writer.close()
        # Else Arrow's allocator keeps some 50 MB, beside what DuckDB needs next.
        pyarrow.default_memory_pool().release_unused()
        self._partial.file.flush()
        return self._partial.path

    def close(self, then: Callable[[], None] | None = None) -> BinaryIO:
        """Put the file in place; see `PartialFile.put_in_place`."""
        self.finish()
        return self._partial.put_in_place(then=then)

    def abort(self) -> None:
        # Closing writes the footer, and the disk may be full.
        with suppress(Exception):
            self._writer.close()
        self._partial.discard()

    def _write_group(self, table: pyarrow.Table, rows: int) -> None:
        for group in self._take(table):
            self.put_group(group)


@contextmanager
def explained(name: str, verb: str = "write", remedy: str = "") -> Iterator[None]:
    """Turn pyarrow's own errors into an `ExportError`. Those of the disk stay an `OSError`.

    Args:
        name: the file.
        verb: what is done with it.
        remedy: what to do about it; empty for nothing.
    """
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError) as error:
        # Of many damaged files it says so in an OSError of its own, which has no number.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        # In several lines, some of them.
        reason = " ".join(str(error).split())
        end = f"; {remedy}" if remedy else ""
        raise ExportError(f"{name}: pyarrow cannot {verb} it: {reason}{end}") from error
