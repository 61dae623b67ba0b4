"""Blocks of encoded rows as lines of text, for CSV and PostgreSQL. Pure."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, chain, compress, pairwise, repeat

from ...tables.layout import Column
from .encoding import MATCHED, Encoded

__all__ = ["LineBlocks", "all_lines_of", "count_of", "lines_of"]


class LineBlocks:
    """Turns cells into blocks: the number of lines, where each one and its events end, the lines.

    Args:
        columns: the columns of the table.
        between: stands between two cells.
        end: stands at the end of a line.
    """

    def __init__(self, columns: Sequence[Column], between: bytes, end: bytes) -> None:
        names = [column.name for column in columns]
        self._between = between
        self._end = end
        self._place = names.index(MATCHED) if MATCHED in names else None
        self._lines: list[bytes] = []
        self._starts = array("I")
        self._ends = array("I")

    def add(self, columns: Sequence[Sequence[bytes]]) -> None:
        """Add the cells of some rows, by column."""
        between, end = self._between, self._end
        if self._place is None:
            lines = [between.join(cells) + end for cells in zip(*columns, strict=True)]
            self._starts.extend(repeat(0, len(lines)))
            self._ends.extend(repeat(0, len(lines)))
        else:
            before, behind = columns[: self._place], columns[self._place + 1 :]
            heads = [between.join((*cells, b"")) for cells in zip(*before, strict=True)]
            events = columns[self._place]
            tails = [between.join((b"", *cells)) for cells in zip(*behind, strict=True)]
            lines = [b"".join((*parts, end)) for parts in zip(heads, events, tails, strict=True)]
            starts = [*map(len, heads)]
            self._starts.extend(starts)
            self._ends.extend(map(int.__add__, starts, map(len, events)))
        self._lines += lines

    def take(self) -> bytes:
        """Return the lines added since the last call as a block."""
        lines, self._lines = self._lines, []
        sizes = array("I", map(len, lines))
        numbers = (array("I", [len(lines)]), sizes, self._starts, self._ends)
        head = [one.tobytes() for one in numbers]
        self._starts, self._ends = array("I"), array("I")
        return b"".join([*head, *lines])


def count_of(block: bytes) -> int:
    """Return the number of lines of a block, made by `LineBlocks`."""
    numbers = array("I")
    numbers.frombytes(block[: numbers.itemsize])
    return numbers[0]


def all_lines_of(block: bytes) -> Sequence[memoryview]:
    """Return the lines of a block, made by `LineBlocks`, as they are."""
    return _parsed(memoryview(block))[0]


def lines_of(
    encoded: Encoded, cell_of: Callable[[tuple[str, ...]], bytes]
) -> Sequence[bytes | memoryview]:
    """Return the lines of a block that are written.

    Args:
        encoded: the block, made by `LineBlocks`.
        cell_of: returns the cell with the events of a person.
    """
    choice = encoded.choice
    lines, starts, ends = _parsed(encoded.block)
    written = [*compress(lines, choice.flags)]
    if choice.matched is None:
        return written
    cells = {events: cell_of(events) for events in {*choice.matched}}
    return [
        *_exchanged(
            written,
            compress(starts, choice.flags),
            compress(ends, choice.flags),
            map(cells.__getitem__, choice.matched),
        )
    ]


def _parsed(block: memoryview) -> tuple[Sequence[memoryview], array[int], array[int]]:
    """Return the lines of a block, and where the events of each one start and end."""
    numbers = array("I")
    width = numbers.itemsize
    numbers.frombytes(block[:width])
    count = numbers[0]
    numbers.frombytes(block[width : (1 + 3 * count) * width])
    sizes = numbers[1 : 1 + count]
    start = (1 + 3 * count) * width
    lines = [block[a:b] for a, b in pairwise(accumulate(chain([start], sizes)))]
    return lines, numbers[1 + count : 1 + 2 * count], numbers[1 + 2 * count :]


def _exchanged(
    lines: Sequence[memoryview],
    starts: Iterator[int],
    ends: Iterator[int],
    cells: Iterator[bytes],
) -> Iterator[bytes]:
    for line, start, end, cell in zip(lines, starts, ends, cells, strict=True):
        yield b"".join((line[:start], cell, line[end:]))
