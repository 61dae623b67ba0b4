"""Text formats: NDJSON, which passes records through, and CSV."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

import msgspec

from ...tables.columns import Columns
from ...tables.kinds import Kinds
from ...tables.layout import column_names
from .files import FileTarget, stream_to

__all__ = ["CsvTarget", "NdjsonTarget"]


class NdjsonTarget(FileTarget, frozen=True, kw_only=True):
    """Each record on a line of its own, byte for byte."""

    format: ClassVar[str] = "ndjson"

    def open(self, kinds: Kinds) -> NdjsonSink:
        return NdjsonSink(self)


class NdjsonSink:
    repeated = 0

    def __init__(self, target: NdjsonTarget) -> None:
        self.mended = 0
        self._stream = stream_to(target.path)
        self.abort = self._stream.abort
        self.close = self._stream.close

    def write(self, records: Sequence[bytes]) -> None:
        if records:
            self._stream.write(b"\n".join([*records, b""]))


class CsvTarget(FileTarget, frozen=True, kw_only=True):
    """RFC 4180 in UTF-8, with a header. Every value is in quotes, and null is an empty cell without
    them: so the two can be told apart by readers who look.

    Attributes:
        bom: whether a byte order mark comes first, by which Excel knows UTF-8.
    """

    format: ClassVar[str] = "csv"

    bom: bool = False

    def open(self, kinds: Kinds) -> CsvSink:
        return CsvSink(self)


_SLICE = 100


class CsvSink:
    repeated = 0

    def __init__(self, target: CsvTarget) -> None:
        self.mended = 0
        self._flatten = target.flatten
        self._stream = stream_to(target.path)
        self.abort = self._stream.abort
        self.close = self._stream.close
        try:
            header = _rows([[name.encode()] for name in column_names(target.flatten)])
            self._stream.write(b"\xef\xbb\xbf" + header if target.bom else header)
        except BaseException:
            self.abort()
            raise

    def write(self, records: Sequence[bytes]) -> None:
        for start in range(0, len(records), _SLICE):
            columns = Columns(records[start : start + _SLICE], self._flatten)
            lifted = [columns.lifted(number, "text") for number in range(len(self._flatten))]
            self._stream.write(
                _rows(
                    [
                        *map(self._encoded, columns.texts),
                        map(msgspec.json.encode, columns.object_ids),
                        *columns.json_texts,
                        *map(self._encoded, lifted),
                    ]
                )
            )
            self.mended += columns.mended

    def _encoded(self, values: Iterable[str | None]) -> list[bytes | None]:
        cells: list[bytes | None] = []
        for value in values:
            if value is None:
                cells.append(None)
                continue
            if "\0" in value:
                # Readers take it for the end of the text, or of the file.
                value = value.replace("\0", "\ufffd")
                self.mended += 1
            cells.append(value.encode())
        return cells


def _rows(columns: Sequence[Iterable[bytes | None]]) -> bytes:
    """Return the rows that `columns` have in common, each ended."""
    quoted = [
        [b"" if value is None else b'"%b"' % value.replace(b'"', b'""') for value in column]
        for column in columns
    ]
    return b"\r\n".join([*map(b",".join, zip(*quoted, strict=True)), b""])
