"""Pauses: how long is the event loop blocked while pages of 5,000 records are walked?

A task that only yields measures the longest time between two of its turns. Every other task of the
loop can be delayed by that time. Nothing is subtracted, and garbage collection is on as usual.
"""

from __future__ import annotations

import asyncio
import time
from typing import Literal

from .answers import Shape
from .clients import DAY, run, session
from .export import RECORD_BYTES, RECORDS
from .measure import Contender, Run, Watch, median, rounds, serving
from .report import Cell, Ratio, Report, Table

__all__ = ["measure", "walk"]

How = Literal["people", "profiles", "records"]

_LABELS: dict[How, str] = {
    "people": "each person",
    "profiles": "page.profiles of each page",
    "records": "page.records of each page",
}


def walk(url: str, how: How) -> Run:
    """Walk the chain; count people, and measure the longest pause in milliseconds."""

    async def main() -> Run:
        longest = 0.0

        async def tick() -> None:
            nonlocal longest
            last = time.perf_counter()
            while True:
                await asyncio.sleep(0)
                now = time.perf_counter()
                longest = max(longest, now - last)
                last = now

        ours = session(url)
        chain = ours.profiles.by_event("App Launched", start=DAY, end=DAY)
        people = 0
        async with ours:
            ticking = asyncio.create_task(tick())
            with Watch() as watch:
                if how == "people":
                    async for person in chain:
                        people += person.identity is not None
                else:
                    async for page in chain.pages(decode=how == "profiles"):
                        people += len(page.profiles if how == "profiles" else page.records)
            ticking.cancel()
        return watch.run(people=people, longest=1000 * longest)

    return run(main())


def measure(*, pages: int = 40, repeats: int = 7) -> Report:
    """Return the longest pauses of the three ways to walk a chain."""
    contenders = [Contender(label, walk, {"how": how}) for how, label in _LABELS.items()]
    shape = Shape(chains=(pages,), records=RECORDS, record_bytes=RECORD_BYTES, unique=True)
    with serving(shape) as server:
        runs = rounds(server, contenders, repeats)
    longest = {label: median(of, _longest) for label, of in runs.items()}
    rows: list[list[Cell]] = [
        [label, longest[label], max(map(_longest, of))] for label, of in runs.items()
    ]
    notes = [
        (
            f"{pages} pages of {RECORDS:,} records from loopback, {repeats} rounds: the longest "
            f"pause of each, their median, and the worst of all."
        )
    ]
    columns = ["items read", "longest pause ms", "worst ms"]
    return Report(
        [Table("Pauses of the event loop", columns, rows, notes)],
        [
            Ratio(6, f"longest pause, {_LABELS[how]}", longest[_LABELS[how]], 15, False, "ms")
            for how in ("people", "profiles")
        ],
    )


def _longest(run: Run) -> float:
    return run.figures["longest"]
