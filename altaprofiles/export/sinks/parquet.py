"""Parquet files, written by pyarrow one row group at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, ClassVar

from ...errors import ExportError
from ...tables.arrow import Tables
from ...tables.rows import Row, Table
from ..formats import Format
from ..tables import Origin
from .files import PartialFile
from .target import FileTarget

__all__ = ["GROUP_BYTES", "GROUP_ROWS", "ParquetSink", "ParquetTarget", "explained"]

GROUP_BYTES = 16 << 20
GROUP_ROWS = 100_000
"""A row group ends at either limit. Memory holds a few copies of one row group."""


class ParquetTarget(FileTarget, frozen=True, kw_only=True):
    """One Parquet file, compressed with zstd."""

    format: ClassVar[Format] = "parquet"
    endings: ClassVar[tuple[str, ...]] = (".parquet",)
    extra: ClassVar[str | None] = "parquet"
    uploads: ClassVar[bool] = True
    options: ClassVar[frozenset[str]] = frozenset({"flatten"})
    has_types: ClassVar[bool] = True

    def open(self, table: Table, origin: Origin) -> ParquetSink:
        return ParquetSink(self.path, table)


class ParquetSink:
    """Writes a Parquet file under its partial name, and puts it in place at the end.

    Args:
        path, partial: as for `PartialFile`.
        table: the columns, and the cells of the rows.
    """

    absorbed = 0
    notes: Sequence[str] = ()

    def __init__(self, path: Path, table: Table, partial: Path | None = None) -> None:
        from pyarrow import parquet

        self._name = str(path)
        self._table = table
        self._tables = Tables(table)
        self._partial = PartialFile(path, partial)
        try:
            with explained(self._name):
                self._writer = parquet.ParquetWriter(
                    self._partial.file, self._tables.schema, compression="zstd"
                )
        except BaseException:
            self._partial.discard()
            raise

    @property
    def mended(self) -> int:
        return self._table.mended

    def write(self, rows: Sequence[Row]) -> None:
        tables = self._tables
        for row in rows:
            tables.add(row)
            if tables.bytes >= GROUP_BYTES or tables.rows >= GROUP_ROWS:
                self._write_group()

    def finish(self) -> Path:
        """Complete the file, and return its partial path."""
        import pyarrow

        if self._tables.rows:
            self._write_group()
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

    def _write_group(self) -> None:
        rows = self._tables.rows
        with explained(self._name):
            self._writer.write_table(self._tables.take(), row_group_size=rows)


@contextmanager
def explained(name: str, verb: str = "write") -> Iterator[None]:
    """Turn pyarrow's own errors into an `ExportError`. Those of the disk stay an `OSError`."""
    import pyarrow

    try:
        yield
    except pyarrow.ArrowException as error:
        raise ExportError(f"{name}: pyarrow cannot {verb} it: {error}") from error
