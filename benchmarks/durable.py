"""Durable exports: how much time and memory do spool, journal and finishing cost?

`session.export` of three chains to a disk, with every page synced before its row of the journal.
For comparison, `pages()` written to the same disk as they arrive, without a sync, and lost if the
process is killed.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from .answers import Shape
from .clients import DAY, run, session
from .export import RECORD_BYTES, RECORDS
from .measure import Contender, Run, Watch, left_out, median, present, rounds, serving
from .report import Cell, Ratio, Report, Table

__all__ = ["CHAINS", "durable", "measure"]

CHAINS = 3

_FORMATS: dict[str, tuple[str, ...]] = {
    "ndjson": (),
    "ndjson.gz": (),
    "csv": (),
    "parquet": ("pyarrow",),
    "duckdb": ("pyarrow", "duckdb"),
}


def durable(url: str, ending: str) -> Run:
    """Export with `session.export`; count records received and people written."""

    async def main(to: Path) -> Run:
        ours = session(url)
        with Watch() as watch:
            async with ours:
                report = await ours.export(
                    "App Launched", start=DAY, end=DAY + CHAINS - 1, windows=CHAINS, to=to
                )
        return watch.run(records=report.records, people=report.people)

    with tempfile.TemporaryDirectory() as folder:
        done = run(main(Path(folder, f"people.{ending}")))
        done.figures["files"] = len(list(Path(folder).iterdir()))
    return done


def by_page(url: str) -> Run:
    """Write the same three chains with `pages()`, without any sync."""

    async def main() -> Run:
        ours = session(url)
        walk = ours.profiles.by_event(
            "App Launched", start=DAY, end=DAY + CHAINS - 1, windows=CHAINS
        )
        people = 0
        with tempfile.TemporaryFile() as file, Watch() as watch:
            async with ours:
                async for page in walk.pages():
                    people += len(page.records)
                    file.write(page.encode())
        return watch.run(records=people)

    return run(main())


def measure(*, small: int = 21, large: int = 201, repeats: int = 1) -> Report:
    """Return time and peak memory of exports of `small` and `large` pages in every format."""
    plain = Contender("pages(), nothing synced", by_page)
    formats = [
        Contender(f"export to .{ending}", durable, {"ending": ending}, needs)
        for ending, needs in _FORMATS.items()
    ]
    rows: list[list[Cell]] = []
    peaks: dict[str, list[float]] = {}
    for pages in (small, large):
        shape = Shape(
            chains=(pages // CHAINS,) * CHAINS,
            records=RECORDS,
            record_bytes=RECORD_BYTES,
            unique=True,
        )
        with serving(shape) as server:
            runs = rounds(server, present([plain, *formats]), repeats)
        for label, of in runs.items():
            peak = median(of, lambda run: run.rss) / 1e6
            peaks.setdefault(label, []).append(peak)
            seconds = median(of, lambda run: run.wall)
            rows.append([label, pages * RECORDS, seconds, peak])
    notes = [
        (
            f"{CHAINS} chains of pages of {RECORDS:,} records of {RECORD_BYTES:,} bytes, everybody "
            f"once; medians of {repeats} rounds."
        ),
        f"Written to {tempfile.gettempdir()}.",
        *left_out(formats),
    ]
    less, more = peaks[formats[0].label]
    name = "a durable export to NDJSON"
    return Report(
        [Table("Durable exports", ["export", "people", "seconds", "peak RSS MB"], rows, notes)],
        [
            Ratio(
                5, f"peak RSS, {name}, a million people against 100,000", more / less, 1.1, False
            ),
            Ratio(5, f"peak RSS of {name} of a million people", more, 150, False, "MB"),
        ],
    )
