"""Records on their way into a table, and the tables that they become. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Any, Protocol, TypeAlias

import msgspec
from msgspec import Struct

from .columns import Columns
from .kinds import Kinds
from .layout import CORE, CORE_COLUMNS, PERSON, Column, Kind, Lists, column_names
from .mended import Mended

__all__ = ["PersonOf", "RecordTable", "Row", "Table", "lifted_columns"]

PersonOf: TypeAlias = Callable[[str | None, list[str], bytes], str]
"""Returns the key of a person, from the identity, every `objectId`, and the record."""


class Row(Struct, frozen=True, gc=False):
    """A record, and what the export itself knows of it.

    Attributes:
        record: a JSON object, on one line.
        account: the account that it is from.
        key: the key under which it was looked up, or None.
        matched: the events that brought the person, sorted.
        cdp: JSON text of the CDP users of the person; None if there are none to show.
        day: the day on which the person did that, where an export tells days apart.
    """

    record: bytes
    account: str = ""
    key: str | None = None
    matched: tuple[str, ...] = ()
    cdp: bytes | None = None
    day: date | None = None


class Table(Protocol):
    """The columns of an output, and the cells that rows have in them."""

    @property
    def columns(self) -> Sequence[Column]:
        """The columns, in order."""
        ...

    @property
    def mended(self) -> Mended:
        """The values so far that no table can hold as they were."""
        ...

    def cells(self, rows: Sequence[Row]) -> list[list[Any]]:
        """Return the cells of `rows`: a list for each column, all of the same length.

        Cells are text, lists of text, JSON text as bytes, bools, numbers, datetimes, or None.

        Raises:
            DecodeError: a record is not a JSON object.
        """
        ...


def lifted_columns(
    flatten: Mapping[str, Kind | None], kinds: Kinds | None, *, reserved: Sequence[str] = CORE
) -> tuple[Column, ...]:
    """Return the columns of flattened keys. Without `kinds`, they are text unless one is named."""
    names = column_names([*flatten], reserved=reserved)
    return tuple(
        Column(name, (named or "text") if kinds is None else kinds[key])
        for name, (key, named) in zip(names, flatten.items(), strict=True)
    )


class RecordTable:
    """The columns of records themselves: the core, and flattened keys.

    Args:
        flatten: the flattened keys, as `check_flatten` returns them.
        kinds: their types; None where they are text unless `flatten` names a type.
        person: gives the cells of a first column, `person`; None leaves it out.
        lists: whether `object_ids` is a list of texts, or JSON text.

    Attributes:
        columns, mended: as in `Table`.
    """

    def __init__(
        self,
        flatten: Mapping[str, Kind | None],
        kinds: Kinds | None,
        *,
        person: PersonOf | None = None,
        lists: Lists = "list",
    ) -> None:
        self.mended = Mended()
        self._keys = [*flatten]
        self._person = person
        self._in_json = lists == "json"
        reserved = CORE if person is None else (PERSON, *CORE)
        self._lifted = lifted_columns(flatten, kinds, reserved=reserved)
        self.columns = (
            *(() if person is None else [Column(PERSON, "text")]),
            *(
                Column(column.name, "json" if self._in_json else column.kind)
                if column.kind == "texts"
                else column
                for column in CORE_COLUMNS
            ),
            *self._lifted,
        )

    def cells(self, rows: Sequence[Row]) -> list[list[Any]]:
        records = [row.record for row in rows]
        columns = Columns(records, self._keys)
        ids = columns.object_ids
        cells: list[list[Any]] = [
            *columns.texts,
            [*map(msgspec.json.encode, ids)] if self._in_json else ids,
            *columns.json_texts,
            *columns.lift(self._lifted),
        ]
        if self._person is not None:
            cells.insert(0, [*map(self._person, columns.texts[0], ids, records)])
        self.mended += columns.mended
        return cells
