"""Real records: how much memory do pages of 17 KB a record take, and how long is the loop blocked?

A record of a real account has 17 KB, so that a page of 4,991 has 85 MB. Such pages are exported,
walked by person and walked by page, from loopback at full speed. Memory is the peak of the whole
process. A task that only yields measures the longest time between two of its turns.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

from .answers import Form, Shape
from .clients import DAY, aiohttp_pages, run, session, tuned_aiohttp
from .measure import Contender, Run, Watch, median, rounds, serving
from .report import Cell, Ratio, Report, Table

__all__ = ["RECORD_BYTES", "measure", "walk"]

RECORD_BYTES = 17_000
_RECORDS = 4991

How = Literal["export", "people", "pages"]

_LABELS: dict[How, str] = {
    "export": "session.export to NDJSON",
    "people": "each person",
    "pages": "pages()",
}
_BARE = "aiohttp read() + list[Raw]"
_GOALS: dict[How, float] = {"export": 150, "people": 300}


class _Longest:
    """The longest time between two turns of a task, in milliseconds."""

    value = 0.0


@asynccontextmanager
async def _ticking() -> AsyncIterator[_Longest]:
    longest = _Longest()

    clock = time.perf_counter

    async def tick() -> None:
        last = clock()
        while True:
            await asyncio.sleep(0)
            now = clock()
            longest.value = max(longest.value, 1000 * (now - last))
            last = now

    task = asyncio.create_task(tick())
    try:
        yield longest
    finally:
        task.cancel()


def walk(url: str, how: How) -> Run:
    """Read one chain; count records, and measure the longest pause in milliseconds."""

    async def main(folder: Path) -> Run:
        records = 0
        ours = session(url)
        people = ours.profiles.by_event("App Launched", start=DAY, end=DAY)
        async with ours, _ticking() as longest:
            with Watch() as watch:
                if how == "export":
                    to = folder / "people.ndjson"
                    report = await ours.export("App Launched", start=DAY, end=DAY, to=to)
                    records = report.people
                elif how == "people":
                    async for person in people:
                        records += person.identity is not None
                else:
                    async for page in people.pages():
                        records += len(page.profiles)
        return watch.run(records=records, longest=longest.value)

    with tempfile.TemporaryDirectory() as folder:
        return run(main(Path(folder)))


def bare(url: str) -> Run:
    """Read one chain with aiohttp, one whole page at a time."""

    async def main() -> Run:
        records = 0
        async with tuned_aiohttp() as client, _ticking() as longest:
            with Watch() as watch:
                async for page in aiohttp_pages(client, url):
                    records += len(page.records)
        return watch.run(records=records, longest=longest.value)

    return run(main())


def measure(*, pages: int = 4, repeats: int = 3) -> Report:
    """Return peak memory and longest pauses of plain pages and of odd ones."""
    contenders = [
        *(Contender(label, walk, {"how": how}) for how, label in _LABELS.items()),
        Contender(_BARE, bare),
    ]
    rows: list[list[Cell]] = []
    ratios: list[Ratio] = []
    forms: tuple[Form, ...] = ("plain", "pretty", "surrogates")
    for form in forms:
        # Odd pages take long to read, and take the same memory each time.
        few, once = (pages, repeats) if form == "plain" else (min(pages, 3), 1)
        shape = Shape(
            chains=(few,), records=_RECORDS, record_bytes=RECORD_BYTES, unique=True, form=form
        )
        with serving(shape) as server:
            # msgspec alone refuses half a surrogate pair.
            runs = rounds(server, contenders[: 3 if form == "surrogates" else 4], once)
        for label, of in runs.items():
            peak = median(of, lambda run: run.rss) / 1e6
            longest = median(of, lambda run: run.figures["longest"])
            each = median(of, lambda run: 1e6 * run.cpu / run.figures["records"])
            rows.append([f"{label}, {form}", peak, longest, each])
            how = next((how for how, name in _LABELS.items() if name == label), None)
            if how in _GOALS:
                name = f"pages of {_RECORDS * RECORD_BYTES / 1e6:.0f} MB, {form}, {label}"
                ratios += [
                    Ratio(12, f"peak RSS, {name}", peak, _GOALS[how], False, "MB"),
                    Ratio(12, f"longest pause, {name}", longest, 20, False, "ms"),
                ]
    notes = [
        (
            f"{pages} pages of {_RECORDS:,} records of some {RECORD_BYTES / 1000:.0f} KB from "
            f"loopback; medians of {repeats} rounds, and one round of the odd pages, of which the "
            f"pretty-printed ones are larger."
        ),
        f"{_BARE!r} holds one whole page at a time, and requests the next one when it is read.",
    ]
    columns = ["read by", "peak RSS MB", "longest pause ms", "CPU us a record"]
    return Report([Table("Records of real size", columns, rows, notes)], ratios)
