"""The properties in an output: their names, types, and how many records have them. Does no I/O.

It holds no values, which are customers' data.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Raw, Struct

from ..tables.kinds import Tally, ValueKind
from ..tables.layout import TEXTS, Kind
from ..tables.parts import properties
from .formats import Format

__all__ = ["COLUMNS", "Describer", "Description", "Property", "StoredRows", "filled"]

COLUMNS = (*TEXTS, "object_ids", "events", "platform_info", "matched", "cdp")
"""The columns that are counted, in order, where an output has them."""

_MOST = 1000
"""Most properties that are told apart."""

_LONGEST = 1000
"""Characters in the longest name of a property that is told apart."""


class StoredRows(Struct, frozen=True, gc=False):
    """Some rows of an output.

    Attributes:
        filled: number of rows by the column of `COLUMNS` that has a value in them.
        data: JSON of `profileData` of each row, None where it has none.
    """

    filled: dict[str, int]
    data: Sequence[bytes | None]


class Property(Struct, frozen=True):
    """One key of `profileData`.

    Attributes:
        name: the key.
        filled: records with a value other than null.
        share: these, as a share of all records, from 0 to 1.
        types: number of values by type, the most frequent first.
        kind: the type that a column has if the values decide it.
        flatten: the value of `--flatten` for a column of that type; None if the values have
            several types, or if no column can have this name.
    """

    name: str
    filled: int
    share: float
    types: dict[ValueKind, int]
    kind: Kind
    flatten: str | None


class Description(Struct, frozen=True, kw_only=True):
    """The content of an output, without values.

    Attributes:
        output: the output, without a password.
        format: its format.
        table: the table in it, or None.
        rows: number of records, or of rows.
        columns: the rows with a value other than null and empty text or list, by column.
        properties: the properties, the most frequent first.
        left_out: values of properties beyond the first 1,000, which are not told apart.
    """

    output: str
    format: Format
    table: str | None
    rows: int
    columns: dict[str, int]
    properties: list[Property]
    left_out: int


class Describer:
    """Counts rows, with as much memory as their properties need.

    Attributes:
        rows: rows counted so far.
    """

    def __init__(self) -> None:
        self.rows = 0
        self._left_out = 0
        self._columns: dict[str, int] = {}
        self._tallies: dict[str, Tally] = {}

    def add(self, rows: StoredRows) -> None:
        """Count some rows.

        Raises:
            DecodeError: `profileData` of the row behind the last one counted is not JSON.
        """
        for column, count in rows.filled.items():
            self._columns[column] = self._columns.get(column, 0) + count
        for data in rows.data:
            if data is not None:
                self._add_properties(data)
            self.rows += 1

    def _add_properties(self, data: bytes) -> None:
        for name, part in properties(Raw(data)).items():
            tally = self._tallies.get(name)
            if tally is None:
                if len(self._tallies) == _MOST or len(name) > _LONGEST:
                    self._left_out += bytes(part) != b"null"
                    continue
                tally = self._tallies[name] = Tally()
            tally.add(bytes(part))

    def result(self, *, output: str, format: Format, table: str | None) -> Description:
        """Return the description of all rows counted so far."""
        found = sorted(self._tallies.items(), key=lambda item: (-item[1].values, item[0]))
        return Description(
            output=output,
            format=format,
            table=table,
            rows=self.rows,
            columns={name: self._columns[name] for name in COLUMNS if name in self._columns},
            properties=[self._property(name, tally) for name, tally in found],
            left_out=self._left_out,
        )

    def _property(self, name: str, tally: Tally) -> Property:
        return Property(
            name,
            tally.values,
            tally.values / self.rows,
            tally.types,
            tally.kind,
            _flatten(name, tally),
        )


def _flatten(name: str, tally: Tally) -> str | None:
    is_one = len(tally.types) == 1 or (bool(tally.types) and tally.kind != "text")
    can_be_named = name and "\0" not in name
    return f"{name}:{tally.kind}" if is_one and can_be_named else None


def filled(columns: Iterable[tuple[str, Iterable[object]]]) -> dict[str, int]:
    """Return the number of values that are not empty, for each of some columns."""
    return {name: sum(map(_is_filled, values)) for name, values in columns}


def _is_filled(value: object) -> bool:
    # Lists and objects are JSON text in some formats.
    return bool(value) and value not in (b"[]", b"{}", "[]", "{}")
