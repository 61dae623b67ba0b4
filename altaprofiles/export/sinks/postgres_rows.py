"""Encodes rows for PostgreSQL's `COPY … FROM STDIN`. Pure.

The text format is that of PostgreSQL's manual, "COPY", File Formats.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import compress
from operator import ne, not_
from typing import Any

from ...models.people import exact_ids, indexable
from ...tables.layout import Column
from ...tables.mended import Mended
from ...tables.rows import Row, Table
from ..tables import unbound_keys
from .encoding import Encoded
from .line_blocks import LineBlocks, lines_of
from .postgres_json import fit_json

__all__ = ["SLICE", "BlockEncoder", "RowEncoder", "number_lines"]


class RowEncoder:
    """Turns rows into lines: number, whether nameless, and the columns of the table.

    A nameless person has no identity, but at least one `objectId`.

    Args:
        table: the columns, and the cells of the rows.
        marks_keys: whether a row without cells is a line without a number, of its account and key.

    Attributes:
        columns: the columns of the table.
    """

    def __init__(self, table: Table, *, marks_keys: bool = False) -> None:
        self.columns = table.columns
        self._cells = _Cells(table)
        self._mended = Mended()
        self._marks_keys = marks_keys

    @property
    def mended(self) -> Mended:
        """The values that PostgreSQL cannot hold as they were."""
        return self._cells.mended + self._mended

    def encode(self, rows: Sequence[Row]) -> tuple[list[bytes], bytes]:
        """Return the lines of `rows` without their numbers, and the lines that have none.

        Raises:
            DecodeError: a record is not a JSON object.
        """
        cells, columns = self._cells.of(rows)
        lines = [b"\t".join(row) + b"\n" for row in zip(*columns, strict=True)]
        return lines, b"".join(self._marks(rows, cells) if self._marks_keys else [])

    def lines_of(self, encoded: Encoded) -> Sequence[bytes | memoryview]:
        """Return the lines of rows that a `BlockEncoder` has encoded, without their numbers."""
        return lines_of(encoded, self._cells.of_events)

    def choices(self, encoded: Encoded, first: int) -> bytes:
        """Return lines on the staged rows of a block that are left out, or get other events.

        Each one has the number of a row, and its events unless it is left out.

        Args:
            encoded: the block.
            first: the number of its first row.
        """
        choice, numbers = encoded.choice, range(first, first + len(encoded.choice.flags))
        lines = [b"%d\t\\N\n" % number for number in compress(numbers, map(not_, choice.flags))]
        if choice.matched is not None:
            cells = {events: self._cells.of_events(events) for events in {*choice.matched}}
            lines += [
                b"%d\t%b\n" % (number, cells[events])
                for number, events in zip(
                    compress(numbers, choice.flags), choice.matched, strict=True
                )
                if events != encoded.matched
            ]
        return b"".join(lines)

    def mend(self, values: Mended) -> None:
        """Take note that values of rows that were encoded before have been replaced."""
        self._mended += values

    def _marks(self, rows: Sequence[Row], cells: Sequence[list[Any]]) -> Iterator[bytes]:
        others = [None] * (len(cells) - 2)
        for account, key in unbound_keys(rows, cells):
            mark = (None, b"f", account.encode(), _fitted(key).encode(), *others)
            yield b"\t".join(map(_cell, mark)) + b"\n"


def number_lines(lines: Sequence[bytes | memoryview], first: int) -> bytes:
    """Return lines with their numbers, of which the first one is given."""
    pairs = enumerate(lines, first)
    return b"".join([b"".join((b"%d\t" % number, line)) for number, line in pairs])


class BlockEncoder:
    """Turns rows into blocks of lines without numbers.

    Args:
        table: the columns, and the cells of the rows.
    """

    def __init__(self, table: Table) -> None:
        self._cells = _Cells(table)
        # One before the columns, which says whether a person is nameless.
        self._blocks = LineBlocks([Column("nameless", "bool"), *table.columns], b"\t", b"\n")

    @property
    def mended(self) -> Mended:
        return self._cells.mended

    def add(self, rows: Sequence[Row]) -> None:
        for start in range(0, len(rows), SLICE):
            _, columns = self._cells.of(rows[start : start + SLICE])
            self._blocks.add(columns)

    def take(self) -> bytes:
        return self._blocks.take()


SLICE = 100
"""Rows that are encoded at once."""


class _Cells:
    """The cells of rows as lines have them.

    Args:
        table: the columns, and the cells of the rows.
    """

    def __init__(self, table: Table) -> None:
        self._table = table
        self._replaced = 0
        names = [column.name for column in table.columns]
        self._person = names.index("person") if "person" in names else None

    @property
    def mended(self) -> Mended:
        """The values that are not as they were."""
        return self._table.mended + Mended(self._replaced)

    def of(self, rows: Sequence[Row]) -> tuple[list[list[Any]], list[list[bytes]]]:
        """Return the cells that rows have in their table, and those of lines, by column."""
        cells = self._table.cells(rows)
        if self._person is None:
            nameless = [b"f"] * len(cells[0])
        else:
            nameless = [_nameless(person) for person in cells[self._person]]
        columns = [
            _escaped(self._encoded(column.name, column.kind, values, rows))
            for column, values in zip(self._table.columns, cells, strict=True)
        ]
        return cells, [nameless, *columns]

    def of_events(self, events: tuple[str, ...]) -> bytes:
        """Return the cell with the events of a person."""
        return _cell(_array([*map(self._fit_text, events)]))

    def _encoded(
        self, name: str, kind: str, values: list[Any], rows: Sequence[Row]
    ) -> list[bytes | None]:
        match kind:
            case "text":
                return [None if value is None else self._fit_text(value) for value in values]
            case "json":
                return [None if value is None else self._fit_json(value) for value in values]
            case "texts" if name == "object_ids":
                exact = (exact_ids(ids, row.record) for ids, row in zip(values, rows, strict=True))
                return [_array([*map(str.encode, self._fit_ids(ids))]) for ids in exact]
            case "texts":
                return [_array([*map(self._fit_text, texts)]) for texts in values]
            case "timestamp":
                # Most columns of times have one only.
                times = {id(value): value for value in values if value is not None}
                encoded = {key: _plain(value) for key, value in times.items()}
                return [encoded.get(id(value)) for value in values]
            case _:
                return [None if value is None else _plain(value) for value in values]

    def _fit_text(self, value: str) -> bytes:
        if "\0" in value:
            value = _fitted(value)
            self._replaced += 1
        return value.encode()

    def _fit_ids(self, ids: list[str]) -> list[str]:
        fitted = [*map(indexable, ids)]
        self._replaced += sum(map(ne, fitted, ids))
        return fitted

    def _fit_json(self, data: bytes) -> bytes:
        fitted, is_mended = fit_json(data)
        self._replaced += is_mended
        return fitted


def _fitted(text: str) -> str:
    return text.replace("\0", "\ufffd")


def _nameless(person: str) -> bytes:
    return b"t" if person.startswith("objectId:") else b"f"


def _plain(value: bool | float | datetime) -> bytes:
    text = value.isoformat() if isinstance(value, datetime) else str(value)
    return text.encode()


def _array(texts: list[bytes]) -> bytes:
    escaped = (text.replace(b"\\", b"\\\\").replace(b'"', b'\\"') for text in texts)
    return b"{%b}" % b",".join(b'"%b"' % text for text in escaped)


def _escaped(cells: list[bytes | None]) -> list[bytes]:
    """Return the cells of a column as lines have them. Together, as each call takes time."""
    present = [cell for cell in cells if cell is not None]
    joined = b"\0".join(present)
    escaped = _cell(joined).split(b"\0") if any(one in joined for one in _SPECIAL) else present
    if len(escaped) != len(present):
        # A cell with a NUL, which the server refuses.
        escaped = [*map(_cell, present)]
    if len(present) == len(cells):
        return escaped
    each = iter(escaped)
    return [b"\\N" if cell is None else next(each) for cell in cells]


_SPECIAL = (b"\\", b"\n", b"\t", b"\r")


def _cell(value: bytes | None) -> bytes:
    if value is None:
        return b"\\N"
    escaped = value.replace(b"\\", b"\\\\").replace(b"\n", b"\\n")
    return escaped.replace(b"\t", b"\\t").replace(b"\r", b"\\r")
