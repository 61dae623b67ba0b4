"""Text formats: NDJSON, which passes records through, and CSV."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Self

import msgspec

from ...tables.layout import Column, ColumnKind
from ...tables.mended import Mended
from ...tables.rows import Row, Table
from ..formats import Format
from ..output import Output
from ..tables import Origin
from .compression import COMPRESSIONS, is_gzip, writer_of
from .encoding import Encoded, Encoder
from .files import PartialFile
from .gzip_pieces import StoredPieces
from .gzip_stage import GzipStage
from .line_blocks import LineBlocks, all_lines_of, lines_of
from .target import FileTarget, Layout, Stage

__all__ = ["CsvTarget", "NdjsonTarget"]


_SLICE = 100
"""Rows that are written at once, so that memory holds few rows twice."""


class NdjsonTarget(FileTarget, frozen=True, kw_only=True):
    """A file with one record a line, byte for byte as received but for a member `cdp`."""

    format: ClassVar[Format] = "ndjson"
    endings: ClassVar[tuple[str, ...]] = (".ndjson", ".jsonl")
    compresses: ClassVar[bool] = True
    uploads: ClassVar[bool] = True
    has_columns: ClassVar[bool] = False

    def stage(self, folder: Path, *, changes: bool) -> Stage | None:
        return GzipStage(folder, changes, None, self._sink) if is_gzip(self.path) else None

    def open(self, table: Table, origin: Origin) -> NdjsonSink:
        return self._sink(table, origin, None)

    def _sink(self, table: Table, origin: Origin, stored: StoredPieces | None) -> NdjsonSink:
        return NdjsonSink(self, stored)


class NdjsonSink:
    absorbed = 0
    earlier_columns: Sequence[str] = ()
    notes: Sequence[str] = ()

    def __init__(self, target: NdjsonTarget, stored: StoredPieces | None) -> None:
        self.mended = Mended()
        self._stream = _Stream(target.path, stored)
        self.abort = self._stream.abort
        self.adopt = self._stream.adopt
        self.close = self._stream.close

    def write(self, rows: Sequence[Row]) -> None:
        for start in range(0, len(rows), _SLICE):
            some = rows[start : start + _SLICE]
            self._stream.write(b"\n".join([*[row.record for row in some], b""]))


class CsvTarget(FileTarget, frozen=True, kw_only=True):
    """A file as in RFC 4180, in UTF-8 and with a header.

    Every value is in quotes. A null is an empty cell without quotes, so that readers can tell it
    from an empty text.

    Attributes:
        bom: whether the file is for spreadsheets: it begins with a byte order mark, by which Excel
            recognises UTF-8, and cells that could be taken for formulas begin with an apostrophe.
    """

    format: ClassVar[Format] = "csv"
    endings: ClassVar[tuple[str, ...]] = (".csv",)
    compresses: ClassVar[bool] = True
    uploads: ClassVar[bool] = True
    options: ClassVar[frozenset[str]] = frozenset({"bom", "flatten"})
    encodes: ClassVar[bool] = True

    bom: bool = False

    @classmethod
    def of(cls, text: str, layout: Layout, output: Output) -> Self:
        return cls(name=text, path=cls.path_of(text), bom=output.bom, **layout)

    def encoder(self, table: Table) -> Encoder:
        return _CsvEncoder(table, guarded=self.bom)

    def stage(self, folder: Path, *, changes: bool) -> Stage | None:
        if changes or not is_gzip(self.path):
            return None
        return GzipStage(folder, False, _text_of, self._sink)

    def open(self, table: Table, origin: Origin) -> CsvSink:
        return self._sink(table, origin, None)

    def _sink(self, table: Table, origin: Origin, stored: StoredPieces | None) -> CsvSink:
        return CsvSink(self, table, stored)


def _text_of(block: bytes) -> bytes:
    return b"".join(all_lines_of(block))


class CsvSink:
    absorbed = 0
    earlier_columns: Sequence[str] = ()
    notes: Sequence[str] = ()

    def __init__(self, target: CsvTarget, table: Table, stored: StoredPieces | None) -> None:
        self._columns = table.columns
        self._cells = _Cells(table, guarded=target.bom)
        self._mended = Mended()
        self._stream = _Stream(target.path, stored)
        self.abort = self._stream.abort
        self.close = self._stream.close
        try:
            if target.bom:
                self._stream.write(codecs.BOM_UTF8)
            names = [[column.name.encode()] for column in table.columns]
            self._write(self._cells.quoted(names))
        except BaseException:
            self.abort()
            raise

    @property
    def mended(self) -> Mended:
        return self._cells.mended + self._mended

    def takes(self, columns: Sequence[Column]) -> bool:
        return [*columns] == [*self._columns]

    def write(self, rows: Sequence[Row]) -> None:
        for start in range(0, len(rows), _SLICE):
            self._write(self._cells.of(rows[start : start + _SLICE]))

    def put(self, encoded: Encoded) -> None:
        self._mended += encoded.mended
        self._stream.write(b"".join(lines_of(encoded, self._cells.of_events)))

    def _write(self, columns: Sequence[Iterable[bytes]]) -> None:
        self._stream.write(b"\r\n".join([*map(b",".join, zip(*columns, strict=True)), b""]))


class _CsvEncoder:
    """Turns rows into blocks of lines.

    Args:
        table: the columns, and the cells of the rows.
        guarded: whether no cell is taken for a formula by a spreadsheet.
    """

    def __init__(self, table: Table, *, guarded: bool) -> None:
        self._cells = _Cells(table, guarded=guarded)
        self._blocks = LineBlocks(table.columns, b",", b"\r\n")

    @property
    def mended(self) -> Mended:
        return self._cells.mended

    def add(self, rows: Sequence[Row]) -> None:
        for start in range(0, len(rows), _SLICE):
            self._blocks.add(self._cells.of(rows[start : start + _SLICE]))

    def take(self) -> bytes:
        return self._blocks.take()


class _Cells:
    """The cells of rows as they stand in a file.

    Args:
        table: the columns, and the cells of the rows.
        guarded: whether no cell is taken for a formula by a spreadsheet.
    """

    def __init__(self, table: Table, *, guarded: bool) -> None:
        self._table = table
        self._guarded = guarded
        self._without_nul = 0

    @property
    def mended(self) -> Mended:
        """The values that are not as they were."""
        return self._table.mended + Mended(self._without_nul)

    def of(self, rows: Sequence[Row]) -> list[list[bytes]]:
        """Return the cells of each column."""
        columns = zip(self._table.columns, self._table.cells(rows), strict=True)
        return self.quoted([self._encoded(column.kind, values) for column, values in columns])

    def of_events(self, events: tuple[str, ...]) -> bytes:
        """Return the cell with the events of a person."""
        ((cell,),) = self.quoted([self._encoded("texts", [[*events]])])
        return cell

    def quoted(self, columns: Sequence[Sequence[bytes | None]]) -> list[list[bytes]]:
        """Return cells as they stand in a file."""
        if self._guarded:
            columns = [[*map(_as_plain_cell, column)] for column in columns]
        return [
            [b"" if value is None else b'"%b"' % value.replace(b'"', b'""') for value in column]
            for column in columns
        ]

    def _encoded(self, kind: ColumnKind, values: list[Any]) -> list[bytes | None]:
        if kind == "json":
            return values
        if kind == "timestamp":
            # Most rows have the same times.
            encoded = {value: _ENCODE[kind](value) for value in {*values} if value is not None}
            return [*map(encoded.get, values)]
        if kind != "text":
            return [None if value is None else _ENCODE[kind](value) for value in values]
        cells: list[bytes | None] = []
        for value in values:
            if value is None:
                cells.append(None)
                continue
            if "\0" in value:
                # Some readers take a NUL for the end of the text, or of the file.
                value = value.replace("\0", "\ufffd")
                self._without_nul += 1
            cells.append(value.encode())
        return cells


_ENCODE: dict[ColumnKind, Callable[[Any], bytes]] = {
    "texts": msgspec.json.encode,
    "bool": msgspec.json.encode,
    "int64": msgspec.json.encode,
    "double": msgspec.json.encode,
    # In UTC, and so with a Z.
    "timestamp": lambda value: msgspec.json.encode(value)[1:-1],
}


# Phone numbers begin with a plus, and spreadsheets do not evaluate them. Texts that look as if an
# apostrophe had been put before them get one as well, so that `KeyFile` can take it away from all.
_GUARDED = re.compile(rb"[=@\t\r]|[-+](?![0-9 ()\[\].-]*+\Z)|'++[=@\t\r+-]")


def _as_plain_cell(value: bytes | None) -> bytes | None:
    """Return `value` so that no spreadsheet takes it for a formula."""
    return value if value is None or not _GUARDED.match(value) else b"'" + value


class _Stream:
    """Writes a partial file, compressed as its name says.

    Args:
        path: the file.
        stored: pieces that are compressed already, if there are any.
    """

    def __init__(self, path: Path, stored: StoredPieces | None = None) -> None:
        self._partial = PartialFile(path)
        self._is_plain = path.suffix.lower() not in COMPRESSIONS
        self._writer = writer_of(path, self._partial.file.write, stored)
        self.write = self._writer.write

    def adopt(self, path: Path, length: int) -> BinaryIO | None:
        return self._partial.exchange(path, length) if self._is_plain else None

    def close(self) -> BinaryIO:
        self._writer.finish()
        return self._partial.put_in_place()

    def abort(self) -> None:
        self._writer.abort()
        self._partial.discard()
