"""Parquet through pyarrow, a row group at a time."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from ...tables.arrow import Tables
from ...tables.kinds import Kinds
from .files import FileTarget, PartialFile

__all__ = ["GROUP_BYTES", "GROUP_ROWS", "ParquetSink", "ParquetTarget"]

GROUP_BYTES = 32 << 20
GROUP_ROWS = 100_000
"""A row group ends when either is reached: it is held in memory, a few times over."""


class ParquetTarget(FileTarget, frozen=True, kw_only=True):
    """One Parquet file, compressed with zstd."""

    format: ClassVar[str] = "parquet"

    @property
    def typed_flatten(self) -> bool:
        return bool(self.flatten)

    def open(self, kinds: Kinds) -> ParquetSink:
        return ParquetSink(self.path, self.flatten, kinds)


class ParquetSink:
    """Writes a Parquet file under its partial name, and puts it in place in the end.

    Args:
        path: its place.
        flatten, kinds: as a target has them.
        mend: whether JSON is for a reader who refuses broken text, as in `Columns`.
    """

    repeated = 0

    def __init__(
        self, path: Path, flatten: Sequence[str], kinds: Kinds, *, mend: bool = False
    ) -> None:
        from pyarrow import parquet

        self._tables = Tables(flatten, kinds, mend=mend)
        self._partial = PartialFile(path)
        try:
            self._writer = parquet.ParquetWriter(
                self._partial.file, self._tables.schema, compression="zstd"
            )
        except BaseException:
            self._partial.discard()
            raise

    @property
    def mended(self) -> int:
        return self._tables.mended

    def write(self, records: Sequence[bytes]) -> None:
        tables = self._tables
        for record in records:
            tables.add(record)
            if tables.bytes >= GROUP_BYTES or tables.rows >= GROUP_ROWS:
                self._write_group()

    def finish(self) -> Path:
        """Complete the file, and return where it is for now."""
        if self._tables.rows:
            self._write_group()
        self._writer.close()
        self._partial.file.flush()
        return self._partial.path

    def close(self) -> None:
        self.finish()
        self._partial.put_in_place()

    def abort(self) -> None:
        # It writes the footer, to a disk that may be full.
        with suppress(Exception):
            self._writer.close()
        self._partial.discard()

    def _write_group(self) -> None:
        rows = self._tables.rows
        self._writer.write_table(self._tables.take(), row_group_size=rows)
