"""Decides which records of an export are written: each person once. Blocking."""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, compress
from typing import Protocol, Self, runtime_checkable

from msgspec import Struct

from ...errors import ExportError
from ...tables.rows import Row
from .marks import BUCKETS, NUMBER_BITS, Marks, MarksDamaged

__all__ = ["Choice", "Chooser", "EachOnce", "Origin", "People"]

_MOST = 1 << 17
"""Marks of a bucket that are compared at once. They take some 25 MB.

The longest step without the interpreter's lock being released takes 10 ms.
"""

_NUMBER = (1 << NUMBER_BITS) - 1

_ATTEMPTS = 3
"""Times that marks are made before their disk counts as broken."""


class Choice(Struct, frozen=True):
    """The rows that are written, of some rows in their order.

    Attributes:
        flags: a byte for each row: 1 if it is written, else 0.
        matched: the events of each row that is written; None where each row keeps its own.
    """

    flags: bytes
    matched: Sequence[tuple[str, ...]] | None = None

    @classmethod
    def of_all(cls, count: int) -> Self:
        """Return the choice of all of `count` rows, each with its own events."""
        return cls(b"\1" * count)

    @property
    def is_of_all(self) -> bool:
        """True if every row is written."""
        return 0 not in self.flags


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


@runtime_checkable
class Chooser(People, Protocol):
    """Decides it for rows that have been encoded as well, without their records."""

    @property
    def keeps_all(self) -> bool:
        """True if every row is written, and as it is. Known when all are compared."""
        ...

    @property
    def keeps_once(self) -> bool:
        """True if each person is written once."""
        ...

    def writes_any(self, count: int, account: str) -> bool:
        """Return whether any of the next rows is to be written. They remain the next ones.

        Args:
            count, account: as for `choose`.
        """
        ...

    def choose(self, count: int, account: str, matched: tuple[str, ...]) -> Choice:
        """Return which of the next rows to write, of all rows in their order.

        Args:
            count: number of rows.
            account: their account.
            matched: the event that brought them, if one did.
        """
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
        for _ in range(_ATTEMPTS):
            yield from self._complete()
            if not self._are_complete():
                # The file has changed meanwhile, so that it was begun anew.
                continue
            try:
                yield from self._compare()
            except MarksDamaged as damage:
                self._marks.clear(damage)
            else:
                return
        raise ExportError(
            f"{self._marks.path} is damaged, although it was made again: the disk does not keep "
            f"what is written to it; check it, or choose another folder with `spool`"
        )

    def _are_complete(self) -> bool:
        return all(
            self._marks.covered(origin.chain, origin.restarts)[0] == origin.records
            for origin in self._origins
        )

    def keep(self, rows: Sequence[Row]) -> list[Row]:
        return [*compress(rows, self._are_first(len(rows)))]

    def writes_any(self, count: int, account: str) -> bool:
        return 1 in self._flags(self._kept, count)

    def choose(self, count: int, account: str, matched: tuple[str, ...]) -> Choice:
        return Choice(self._are_first(count))

    def _are_first(self, count: int) -> bytes:
        """Return a byte for each of the next `count` rows: 1 for the first row of a person."""
        start = self._kept
        self._kept += count
        return self._flags(start, count)

    def _flags(self, start: int, count: int) -> bytes:
        bits = self._repeats[start >> 3 : (start + count + 7) >> 3]
        flags = b"".join(map(_FLAGS.__getitem__, bits))
        return flags[start & 7 : (start & 7) + count]

    @property
    def keeps_all(self) -> bool:
        return not any(self._repeats)

    @property
    def keeps_once(self) -> bool:
        return all(origin.day is None for origin in self._origins)

    def _compare(self) -> Iterator[None]:
        yield from self._find_repeats(None)

    def _find_repeats(self, note: Callable[[int, int], None] | None) -> Iterator[None]:
        """Find the rows to leave out; yield between steps.

        Args:
            note: called for each group of rows with the same mark, with the place of the first one
                and the bits of all their events, or None.
        """
        self._repeats = repeats = bytearray((self._count + 7) // 8)
        for groups in self._all_groups():
            for places, mask in groups:
                for place in places[1:]:
                    repeats[place >> 3] |= 1 << (place & 7)
                if note is not None:
                    note(places[0], mask)
            yield

    def _all_groups(self) -> Iterator[Iterator[tuple[list[int], int]]]:
        """Yield for each bucket with rows the groups of the same mark; see `_groups`."""
        sources = self._sources()
        for number in range(BUCKETS):
            marks, places = self._marks.bucket(number)
            if not places:
                # A small export has few others, and each one yielded is a turn of a thread.
                continue
            yield chain.from_iterable(
                _groups(*part, sources) for part in _parts(marks[::2], marks[1::2], places)
            )

    def _sources(self) -> list[_Source | None]:
        """Return, for each stretch of marked records, where its rows are; None if they are gone."""
        sources: dict[tuple[int, int], _Source] = {}
        start = 0
        for origin in self._origins:
            bit = self._bit(origin.event)
            sources[origin.chain, origin.restarts] = _Source(start, bit, origin.day)
            start += origin.records
        return [sources.get(stretch) for stretch in self._marks.stretches()]

    def _bit(self, event: str | None) -> int:
        return 0


class _Source(Struct, frozen=True):
    """The place of a stretch's records among all rows, and what they have in common.

    Attributes:
        start: the place of the first one.
        bit: of their event.
        day: their day, if days are told apart.
    """

    start: int
    bit: int
    day: object


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
    found: dict[tuple[int, int, object], list[int]] = defaultdict(list)
    masks: dict[tuple[int, int, object], int] = defaultdict(int)
    marks = zip(lows, highs, places, strict=True)
    for low, high, place in compress(marks, map(repeated.__contains__, lows)):
        if (source := sources[place >> NUMBER_BITS]) is not None:
            key = (low, high, source.day)
            found[key].append(source.start + (place & _NUMBER))
            if source.bit:
                masks[key] |= source.bit
    for key, group in found.items():
        if len(group) > 1:
            group.sort()
            yield group, masks.get(key, 0)
