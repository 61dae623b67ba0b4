"""Finds the events that brought each person of an export. Blocking."""

from __future__ import annotations

import struct
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from msgspec.structs import replace

from ...tables.rows import Row
from .marks import Marks
from .people import Choice, EachOnce, Origin
from .spool import write_all

__all__ = ["Matching"]


class Matching(EachOnce):
    """Adds to each row all events that brought its person, on its day where rows have days.

    Remembers a bit for each event and person, and one for each row, in memory; without `distinct`
    one for each event and row.

    Args:
        marks, complete, origins: as for `EachOnce`.
        distinct: whether only the first row of each person is kept.
    """

    def __init__(
        self,
        marks: Marks,
        complete: Callable[[], Iterator[None]],
        origins: Sequence[Origin],
        *,
        distinct: bool,
    ) -> None:
        super().__init__(marks, complete, origins)
        events = sorted({origin.event for origin in origins if origin.event is not None})
        self._bits = {event: 1 << number for number, event in enumerate(events)}
        self._distinct = distinct
        self._masks = [bytearray() for _ in range(1 + len(events) // 8)]
        self._before = array("Q")
        self._written = 0
        self._matched: dict[tuple[int, ...], tuple[str, ...]] = {}

    @property
    def keeps_all(self) -> bool:
        return False

    @property
    def keeps_once(self) -> bool:
        return self._distinct and super().keeps_once

    def keep(self, rows: Sequence[Row]) -> list[Row]:
        selected = super().keep(rows) if self._distinct else rows
        # A damaged spool may have more rows, which is found when all are read.
        return [
            replace(row, matched=events) if events else row
            for row, events in zip(selected, self._matches(len(selected)), strict=False)
        ]

    def writes_any(self, count: int, account: str) -> bool:
        return not self._distinct or super().writes_any(count, account)

    def choose(self, count: int, account: str, matched: tuple[str, ...]) -> Choice:
        flags = self._are_first(count) if self._distinct else b"\1" * count
        return Choice(flags, [events or matched for events in self._matches(sum(flags))])

    def _matches(self, count: int) -> Iterator[tuple[str, ...]]:
        """Yield the events of each of the next `count` people; none if it is that of the row."""
        start = self._written
        self._written += count
        found = self._matched
        for mask in zip(*(some[start : self._written] for some in self._masks), strict=True):
            yield found[mask] if mask in found else self._events(mask)

    def _events(self, mask: tuple[int, ...]) -> tuple[str, ...]:
        bits = int.from_bytes(mask, "little")
        self._matched[mask] = tuple(event for event, bit in self._bits.items() if bits & bit)
        return self._matched[mask]

    def _compare(self) -> Iterator[None]:
        with closing(_Notes(self._marks.path.parent, len(self._masks))) as notes:
            yield from self._find_repeats(notes.add)
            yield from self._match(notes)

    def _match(self, notes: _Notes) -> Iterator[None]:
        self._count_before()
        # Without an identity, the first row with a device can be one of a person seen before, by
        # another device of that row.
        linked: dict[int, int] = defaultdict(int)
        for batch in notes.read():
            for first, mask in batch:
                if self._is_repeat(first):
                    linked[first] |= mask
                else:
                    self._add(first, mask)
            yield
        people: dict[int, int] = {}
        if linked:
            links: dict[int, list[int]] = defaultdict(list)
            for groups in self._all_groups():
                for places, _ in groups:
                    for place in places[1:]:
                        if place in linked:
                            links[place].append(places[0])
                yield
            # Each link leads to an earlier row.
            for place in sorted(linked):
                people[place] = min(people.get(first, first) for first in links[place])
                self._add(people[place], linked[place])
        if not self._distinct:
            for groups in self._all_groups():
                for places, _ in groups:
                    mask = self._mask(people.get(places[0], places[0]))
                    for place in places[1:]:
                        self._add(place, mask)
                yield

    def _bit(self, event: str | None) -> int:
        return self._bits.get(event or "", 0)

    # ------------------------------------------------------------------------------- bits and masks

    def _is_repeat(self, place: int) -> bool:
        return bool(self._repeats[place >> 3] >> (place & 7) & 1)

    def _count_before(self) -> None:
        """Count repeats before each block of rows, so that a person's number is found quickly."""
        self._before = array("Q", [0])
        for start in range(0, len(self._repeats), _BLOCK):
            repeats = int.from_bytes(self._repeats[start : start + _BLOCK]).bit_count()
            self._before.append(self._before[-1] + repeats)
        written = self._count - (self._before[-1] if self._distinct else 0)
        self._masks = [bytearray(written) for _ in self._masks]

    def _position(self, place: int) -> int:
        """Return the number of a row among those that are written."""
        if not self._distinct:
            return place
        block, rest = divmod(place, 8 * _BLOCK)
        start = block * _BLOCK
        bits = int.from_bytes(self._repeats[start : start + _BLOCK], "little") & ((1 << rest) - 1)
        return place - self._before[block] - bits.bit_count()

    def _mask(self, position: int) -> int:
        return int.from_bytes([some[position] for some in self._masks], "little")

    def _add(self, place: int, mask: int) -> None:
        position = self._position(place)
        for some in self._masks:
            some[position] |= mask & 0xFF
            mask >>= 8


_BLOCK = 64
"""Bytes of bits whose sum is kept."""


class _Notes:
    """Places of rows, each with the bits of events, in a file without a name.

    Args:
        folder: where the file is.
        width: of the bits, in bytes.
    """

    def __init__(self, folder: Path, width: int) -> None:
        self._folder = folder
        self._width = width
        self._form = struct.Struct(f"<Q{width}s")
        self._held: list[bytes] = []
        self._file: Any = None

    def add(self, place: int, mask: int) -> None:
        """Add the bits of the row at `place`."""
        self._held.append(self._form.pack(place, mask.to_bytes(self._width, "little")))
        if len(self._held) >= _HELD:
            self._store()

    def _store(self) -> None:
        try:
            if self._file is None:
                self._file = TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115
            write_all(self._file.write, b"".join(self._held))
        except OSError as error:
            # Errors of calls on an open file do not name it.
            error.filename = str(self._folder)
            raise
        self._held.clear()

    def read(self) -> Iterator[list[tuple[int, int]]]:
        """Yield all in batches, in the order in which they were added."""
        if self._file is not None:
            self._file.seek(0)
            while data := self._file.read(_HELD * self._form.size):
                yield self._pairs(data)
        yield self._pairs(b"".join(self._held))

    def _pairs(self, data: bytes) -> list[tuple[int, int]]:
        return [
            (place, int.from_bytes(mask, "little")) for place, mask in self._form.iter_unpack(data)
        ]

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


_HELD = 1 << 14
"""Notes in memory, beyond which they go to the file: some 1 MB."""
