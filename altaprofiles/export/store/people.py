"""Decides which records of an export are written: each person once. Blocking."""

from __future__ import annotations

import logging
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, compress
from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace

from ...tables.rows import Row
from .marks import BUCKETS, NUMBER_BITS, Marks, MarksDamaged

__all__ = ["EachOnce", "Matching", "Origin", "People"]

logger = logging.getLogger("altaprofiles")

_MOST = 1 << 18
"""Marks of a bucket that are compared at once, which takes some 50 MB."""

_NUMBER = (1 << NUMBER_BITS) - 1


class People(Protocol):
    """Decides which rows of an export are written, and adds what only all rows show."""

    def prepare(self) -> Iterator[None]:
        """Compare all records, before the first one is passed to `keep`. Yields between steps.

        Raises:
            SpoolDamaged: a spool differs from the data written to it.
            ExportError: the disk does not keep what is written to it.
            OSError: the disk refuses.
        """
        ...

    def keep(self, rows: Sequence[Row]) -> list[Row]:
        """Return the rows to write, of all rows in their order."""
        ...


class Origin(Struct, frozen=True):
    """The records of one chain.

    Attributes:
        chain, restarts, records: as in `ChainRow`.
        event: the event that brought them, or None.
        day: where an export tells days apart, their day: people of two days are two people.
    """

    chain: int
    restarts: int
    records: int
    event: str | None = None
    day: object = None


class EachOnce:
    """Keeps the first row of each person, or of each person and day where rows have days.

    Remembers a bit for each row, in memory.

    Args:
        marks: the marks of the records.
        complete: makes those that are missing; yields between steps.
        origins: the chains, in the order of their rows.
    """

    def __init__(
        self, marks: Marks, complete: Callable[[], Iterator[None]], origins: Sequence[Origin]
    ) -> None:
        self._marks = marks
        self._complete = complete
        self._origins = origins
        self._count = sum(origin.records for origin in origins)
        self._repeats = bytearray()
        self._kept = 0

    def prepare(self) -> Iterator[None]:
        yield from self._complete()
        try:
            yield from self._compare()
        except MarksDamaged as damage:
            logger.warning("%s; it is made again from the records", damage)
            self._marks.clear()
            yield from self._complete()
            yield from self._compare()

    def keep(self, rows: Sequence[Row]) -> list[Row]:
        return [*compress(rows, self._are_first(len(rows)))]

    def _are_first(self, count: int) -> bytes:
        """Return a byte for each of the next `count` rows: 1 for the first row of a person."""
        start = self._kept
        self._kept += count
        bits = self._repeats[start >> 3 : (start + count + 7) >> 3]
        flags = b"".join(map(_FLAGS.__getitem__, bits))
        return flags[start & 7 : (start & 7) + count]

    def _compare(self) -> Iterator[None]:
        self._repeats = repeats = bytearray((self._count + 7) // 8)
        for groups in self._all_groups():
            for places, _ in groups:
                for place in places[1:]:
                    repeats[place >> 3] |= 1 << (place & 7)
            yield

    def _all_groups(self) -> Iterator[Iterator[tuple[list[int], int]]]:
        """Yield for each bucket the groups of rows with the same mark; see `_groups`."""
        sources = self._sources()
        for number in range(BUCKETS):
            marks, places = self._marks.bucket(number)
            yield chain.from_iterable(
                _groups(*part, sources) for part in _parts(marks[::2], marks[1::2], places)
            )

    def _sources(self) -> list[_Source | None]:
        """Return, for each stretch of marked records, where its rows are; None if they are gone."""
        sources = {}
        start = 0
        for origin in self._origins:
            bit = self._bit(origin.event)
            sources[origin.chain, origin.restarts] = _Source(start, bit, origin.day)
            start += origin.records
        return [sources.get(stretch) for stretch in self._marks.stretches()]

    def _bit(self, event: str | None) -> int:
        return 0


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
        self._width = (len(events) + 7) // 8
        self._distinct = distinct
        self._masks = bytearray()
        self._before = array("Q")
        self._written = 0
        self._matched: dict[int, tuple[str, ...]] = {}

    def keep(self, rows: Sequence[Row]) -> list[Row]:
        selected = super().keep(rows) if self._distinct else rows
        written: list[Row] = []
        for position, row in enumerate(selected, self._written):
            # Of its own event alone if nobody of the person came with another one.
            mask = self._mask(position)
            written.append(replace(row, matched=self._events(mask)) if mask else row)
        self._written += len(written)
        return written

    def _events(self, mask: int) -> tuple[str, ...]:
        if mask not in self._matched:
            events = tuple(event for event, bit in self._bits.items() if mask & bit)
            self._matched[mask] = events
        return self._matched[mask]

    def _compare(self) -> Iterator[None]:
        yield from super()._compare()
        self._count_before()
        # Without an identity, the first row with a device can be one of a person seen before, by
        # another device of that row.
        linked: dict[int, int] = defaultdict(int)
        for groups in self._all_groups():
            for places, mask in groups:
                if self._is_repeat(places[0]):
                    linked[places[0]] |= mask
                else:
                    self._add(places[0], mask)
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
        self._masks = bytearray(written * self._width)

    def _position(self, place: int) -> int:
        """Return the number of a row among those that are written."""
        if not self._distinct:
            return place
        block, rest = divmod(place, 8 * _BLOCK)
        start = block * _BLOCK
        bits = int.from_bytes(self._repeats[start : start + _BLOCK], "little") & ((1 << rest) - 1)
        return place - self._before[block] - bits.bit_count()

    def _mask(self, position: int) -> int:
        start = position * self._width
        return int.from_bytes(self._masks[start : start + self._width], "little")

    def _add(self, place: int, mask: int) -> None:
        position = self._position(place)
        start = position * self._width
        new = self._mask(position) | mask
        self._masks[start : start + self._width] = new.to_bytes(self._width, "little")


class _Source(Struct, frozen=True):
    """Where the records of a stretch are among all rows.

    Attributes:
        start: the place of the first one.
        bit: of their event.
        day: their day, if days are told apart.
    """

    start: int
    bit: int
    day: object


_BLOCK = 128
"""Bytes of bits whose sum is kept."""

_FLAGS = [bytes(1 - (byte >> bit & 1) for bit in range(8)) for byte in range(256)]


def _parts(
    lows: array[int], highs: array[int], places: array[int]
) -> Iterator[tuple[array[int], array[int], array[int]]]:
    """Yield a bucket, or several parts of a large one. All equal marks are in the same part."""
    count = 1 + len(places) // _MOST
    if count == 1:
        yield lows, highs, places
        return
    for part in range(count):
        chosen = bytes(high % count == part for high in highs)
        yield (
            array("Q", compress(lows, chosen)),
            array("Q", compress(highs, chosen)),
            array("Q", compress(places, chosen)),
        )


def _groups(
    lows: array[int], highs: array[int], places: array[int], sources: Sequence[_Source | None]
) -> Iterator[tuple[list[int], int]]:
    """Yield the places of rows with the same mark, sorted, and the bits of all their events.

    Rows whose mark is of one row alone are left out.
    """
    # So many people at once are rare: half a mark shows it without the other half.
    if len(set(lows)) == len(lows):
        return
    repeated = {low for low, count in Counter(lows).items() if count > 1}
    found: dict[object, list[int]] = defaultdict(list)
    masks: dict[object, int] = defaultdict(int)
    for low, high, place in zip(lows, highs, places, strict=True):
        if low in repeated and (source := sources[place >> NUMBER_BITS]) is not None:
            key: object = (low, high, source.day)
            found[key].append(source.start + (place & _NUMBER))
            masks[key] |= source.bit
    for key, group in found.items():
        if len(group) > 1:
            yield sorted(group), masks[key]
