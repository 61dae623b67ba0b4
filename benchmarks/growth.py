"""Telling people apart: what does a record cost at 100,000, a million and ten million records?

No service and no export: records are made here, and fed to the layer of an export that decides
which of them are written. Time is that of finding the person in each record, of its mark on the
disk, and of comparing all marks at the end. For comparison, one loop appends as many bytes to a
file, syncs them as often, and reads them back.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from altaprofiles.export.store import marks as store
from altaprofiles.export.store.marks import Marks, PageMarks
from altaprofiles.export.store.matching import Matching
from altaprofiles.export.store.people import EachOnce, Origin
from altaprofiles.flow.slices import at_once
from altaprofiles.tables.rows import Row

from .measure import Contender, Run, Watch, median, note, once
from .report import Cell, Ratio, Report, Table

__all__ = ["CHAINS", "appended", "measure", "people_of", "told_apart"]

CHAINS = 3
_PAGE = 5000
_REPEATED = 10
"""One person in so many is in every chain."""

_BYTES = 24
"""Bytes on the disk for a record."""

_LABELS = {"once": "each person once", "matched": "and the events of each person"}
_GOAL = 2.0


def people_of(records: int) -> int:
    """Return the number of people among `records` records."""
    each = records // CHAINS
    repeated = len(range(0, each, _REPEATED))
    return records - (CHAINS - 1) * repeated


def _pages(records: int) -> Iterator[tuple[int, int, list[bytes]]]:
    each = records // CHAINS
    for start in range(0, each, _PAGE):
        for chain in range(CHAINS):
            yield (
                chain,
                start,
                [
                    b'{"identity":"%d"}' % (n if n % _REPEATED == 0 else n + (chain << 32))
                    for n in range(start, min(start + _PAGE, each))
                ],
            )


def told_apart(records: int, kind: str) -> Run:
    """Tell the people of `records` records apart; count those written.

    Figures are the seconds on the way, at the end, and of choosing the rows to write; and the CPU
    seconds of all three.
    """
    arriving, comparing, choosing = _Timer(), _Timer(), _Timer()
    with tempfile.TemporaryDirectory() as folder, Watch() as watch:
        marks = Marks(Path(folder, "people.marks"))
        for chain, start, page in _pages(records):
            with arriving:
                made = PageMarks()
                at_once(made.put(page))
                marks.add(chain, 0, made, start, start + len(page))
                marks.store()
        origins = [Origin(n, 0, records // CHAINS, f"Event {n}") for n in range(CHAINS)]
        people = (
            EachOnce(marks, _nothing, origins)
            if kind == "once"
            else Matching(marks, _nothing, origins, distinct=True)
        )
        with comparing:
            for _ in people.prepare():
                pass
        written = 0
        rows = [Row(b"")] * _PAGE
        with choosing:
            for start in range(0, records, _PAGE):
                written += len(people.keep(rows[: records - start]))
    return watch.run(
        written=written,
        arriving=arriving.wall,
        comparing=comparing.wall,
        choosing=choosing.wall,
        cpu=arriving.cpu + comparing.cpu + choosing.cpu,
    )


class _Timer:
    """Adds up the seconds of all blocks that it is entered for."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0

    def __enter__(self) -> None:
        self.wall -= time.perf_counter()
        self.cpu -= time.process_time()

    def __exit__(self, *_: object) -> None:
        self.wall += time.perf_counter()
        self.cpu += time.process_time()


def _nothing() -> Iterator[None]:
    return iter(())


def appended(records: int) -> Run:
    """Append as many bytes in as many steps, and read them back."""
    size = _BYTES * store.HELD
    data = os.urandom(size)
    left = _BYTES * records
    with tempfile.TemporaryFile() as file, Watch() as watch:
        while left > 0:
            left -= file.write(data[:left])
            file.flush()
            os.fdatasync(file.fileno())
        file.seek(0)
        read = 0
        while block := file.read(size):
            read += len(block)
    return watch.run(read=read)


def measure(*, counts: tuple[int, ...] = (99_999, 999_999, 9_999_999), repeats: int = 3) -> Report:
    """Return the time a record takes, and the memory, at each number of records."""
    rows: list[list[Cell]] = []
    ratios: list[Ratio] = []
    costs: dict[str, list[float]] = {kind: [] for kind in _LABELS}
    cpu: dict[str, list[float]] = {kind: [] for kind in _LABELS}
    for count in counts:
        note(f"  {count:,} records")
        # The largest is measured once: it takes as long as all others together, and varies less.
        times = repeats if count < max(counts) else 1
        limit = [once(Contender("limit", appended, {"records": count})) for _ in range(times)]
        floor = 1e6 * median(limit, lambda run: run.wall) / count
        for kind, label in _LABELS.items():
            how = Contender(label, told_apart, {"records": count, "kind": kind})
            runs = [once(how) for _ in range(times)]
            parts = [
                1e6 * median(runs, lambda run, part=part: run.figures[part]) / count  # type: ignore[misc]
                for part in ("arriving", "comparing", "choosing", "cpu")
            ]
            each = sum(parts[:3])
            costs[kind].append(each)
            cpu[kind].append(parts[3])
            peak = median(runs, lambda run: run.rss) / 1e6
            rows.append([label, count, *parts, each, "#" * round(10 * each), floor, peak])
    for kind, label in _LABELS.items():
        name = f"telling people apart, {label}"
        ratios += [
            Ratio(13, f"{name}, {counts[-1]:,} records", costs[kind][-1], _GOAL, False, "us each"),
            Ratio(
                13,
                f"CPU of {name}, {counts[-1]:,} records against {counts[0]:,}",
                cpu[kind][-1] / cpu[kind][0],
                1.1,
                False,
            ),
        ]
    columns = [
        "told apart",
        "records",
        "us arriving",
        "us comparing",
        "us choosing",
        "us of CPU in all",
        "us in all",
        "drawn",
        "limit us",
        "peak RSS MB",
    ]
    notes = [
        (
            f"{CHAINS} chains, in which one person of {_REPEATED} is in every chain; medians of "
            f"{repeats} rounds, one of the largest number. Each # is a tenth of a microsecond."
        ),
        (
            f"The limit is one loop that appends {_BYTES} bytes a record to a file in "
            f"{tempfile.gettempdir()}, syncs them as often as an export does, and reads them back."
        ),
    ]
    return Report([Table("Telling people apart", columns, rows, notes)], ratios)
