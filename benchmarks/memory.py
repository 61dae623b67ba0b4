"""Memory: does an export of a million people need more than one of a hundred thousand?

Measures the peak of the whole process, including Python and all imports, while pages of 5,000
records are walked and written. Also measures the bytes per person that `distinct` remembers, by the
difference between two walks over two windows.
"""

from __future__ import annotations

from .answers import Shape
from .clients import DAY, run, session
from .export import RECORD_BYTES, RECORDS, by_page
from .measure import Contender, Run, Watch, median, note, rounds, serving
from .report import Cell, Ratio, Report, Table

__all__ = ["by_window", "measure"]


def by_window(url: str) -> Run:
    """Iterate over the people of two windows, each person once."""

    async def main() -> Run:
        ours = session(url)
        walk = ours.profiles.by_event("App Launched", start=DAY, end=DAY + 1, windows=2)
        people = 0
        with Watch() as watch:
            async with ours:
                async for _ in walk:
                    people += 1
        return watch.run(people=people)

    return run(main())


def measure(*, small: int = 20, large: int = 200, repeats: int = 3) -> Report:
    """Return the peaks of exports of `small` and `large` pages, and the bytes per person."""
    export = Contender("export", by_page)
    less, more = (_peak(export, (pages,), repeats) for pages in (small, large))
    few, many = 10, 30
    walk = Contender("two windows", by_window)
    forgotten, remembered = (_peak(walk, (pages, pages), repeats) for pages in (few, many))
    per_person = (remembered - forgotten) / (2 * (many - few) * RECORDS)
    rows: list[list[Cell]] = [
        ["export", small * RECORDS, less / 1e6],
        ["export", large * RECORDS, more / 1e6],
        ["two windows, distinct", 2 * few * RECORDS, forgotten / 1e6],
        ["two windows, distinct", 2 * many * RECORDS, remembered / 1e6],
    ]
    notes = [
        f"Pages of {RECORDS:,} records; medians of {repeats} rounds.",
        f"`distinct` remembers {per_person:.0f} bytes per person.",
    ]
    return Report(
        [Table("Memory", ["walk", "people", "peak RSS MB"], rows, notes)],
        [
            Ratio(5, "peak RSS, a million people against 100,000", more / less, 1.10, False),
            Ratio(5, "peak RSS of exporting a million people", more / 1e6, 150, False, "MB"),
        ],
    )


def _peak(contender: Contender, chains: tuple[int, ...], repeats: int) -> float:
    """Return the median peak, in bytes, of walking `chains` of pages."""
    shape = Shape(chains=chains, records=RECORDS, record_bytes=RECORD_BYTES, unique=True)
    note(f"  {contender.label}, {sum(chains) * RECORDS:,} people")
    with serving(shape) as server:
        return median(rounds(server, [contender], repeats)[contender.label], lambda run: run.rss)
