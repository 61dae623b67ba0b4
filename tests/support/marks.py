"""Rows told apart as an export tells them apart, without an export."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path

from altaprofiles.export.store.marks import Marks, PageMarks
from altaprofiles.export.store.matching import Matching
from altaprofiles.export.store.people import EachOnce, Origin
from altaprofiles.flow.slices import at_once
from altaprofiles.tables.rows import Row

__all__ = ["Chains", "told_apart"]


class Chains:
    """Rows in chains, each of rows that follow each other with the same event and day.

    Args:
        rows: the rows.
        path: the file of marks.
    """

    def __init__(self, rows: Sequence[Row], path: Path) -> None:
        self.rows = [*rows]
        self.chains = [[*group] for _, group in groupby(rows, lambda row: (row.matched, row.day))]
        self.marks = Marks(path)
        self.saved: bytes | None = None

    def add(self, chain: int, count: int) -> None:
        """Add the next `count` rows of a chain, as a page whose commit comes before its marks."""
        self.commit()
        before, offset = self.marks.covered(chain, 0)
        page = PageMarks()
        at_once(page.put([row.record for row in self.chains[chain][before : before + count]]))
        self.marks.add(chain, 0, page, before, offset + page.count)
        self.marks.store()

    def commit(self) -> None:
        """Store in the journal what it is to store."""
        if self.marks.unsaved is not None:
            self.saved, self.marks.unsaved = self.marks.unsaved, None

    def kill(self) -> None:
        """Lose everything but the file and what the journal has of it."""
        self.marks = Marks(self.marks.path, self.saved)

    def complete(self, pages: int = 7) -> Iterator[None]:
        """Add all rows that have no marks yet."""
        for number, rows in enumerate(self.chains):
            while self.marks.covered(number, 0)[0] < len(rows):
                self.add(number, pages)
                yield

    def written(self, *, matching: bool = False, distinct: bool = True) -> list[Row]:
        """Return the rows that an export writes."""
        origins = [
            Origin(number, 0, len(rows), next(iter(rows[0].matched), None), rows[0].day)
            for number, rows in enumerate(self.chains)
        ]
        make = partial(Matching, distinct=distinct) if matching else EachOnce
        people = make(self.marks, self.complete, origins)
        for _ in people.prepare():
            pass
        found: list[Row] = []
        for start in range(0, len(self.rows), 5):
            found += people.keep(self.rows[start : start + 5])
        return found


def told_apart(
    rows: Sequence[Row], path: Path, *, matching: bool = False, distinct: bool = True
) -> list[Row]:
    """Return the rows that an export of `rows` writes, with `path` as its file of marks."""
    return Chains(rows, path).written(matching=matching, distinct=distinct)
