"""Compression: how much does inflating a page cost, and how much does it save on a slow link?

Pages of 5,000 records, sent plain, as gzip or as zstd, on loopback and at 20 MB/s per connection.
There is no target; the table shows where compression pays.
"""

from __future__ import annotations

from .answers import ZSTD, Compression, Shape
from .clients import DAY, HEADERS, aiohttp_pages, run, session
from .export import RECORD_BYTES, RECORDS
from .measure import Contender, Run, Watch, left_out, median, present, rounds, serving
from .report import Cell, Report, Table

__all__ = ["altaprofiles", "measure"]

_SLOW = 20e6


def altaprofiles(url: str) -> Run:
    """Walk the chain with `pages()`, and decode no profiles, as with aiohttp."""

    async def main() -> Run:
        ours = session(url)
        people = ours.profiles.by_event("E", start=DAY, end=DAY, distinct=False)
        records = 0
        with Watch() as watch:
            async with ours:
                async for page in people.pages(decode=False):
                    records += len(page.records)
        return watch.run(records=records)

    return run(main())


def aiohttp_default(url: str) -> Run:
    """Walk the chain with aiohttp and its defaults, one page at a time."""
    import aiohttp

    async def main() -> Run:
        records = 0
        async with aiohttp.ClientSession(headers=HEADERS) as client:
            with Watch() as watch:
                async for page in aiohttp_pages(client, url):
                    records += len(page.records)
        return watch.run(records=records)

    return run(main())


def measure(*, pages: int = 20, slow_pages: int = 8, repeats: int = 3) -> Report:
    """Return the cost of a page, by compression and link."""
    kinds: tuple[Compression, ...] = ("identity", "gzip", "zstd")
    rows: list[list[Cell]] = []
    missing: list[str] = []
    for link, rate, count in (("loopback", None, pages), ("20 MB/s", _SLOW, slow_pages)):
        for kind in kinds:
            needs = (ZSTD,) if kind == "zstd" else ()
            name = f"{kind}, {link}"
            contenders = [
                Contender(f"altaprofiles, {name}", altaprofiles, needs=needs),
                Contender(f"aiohttp, {name}", aiohttp_default, needs=needs),
            ]
            missing += left_out(contenders)
            if walkers := present(contenders):
                shape = Shape(
                    chains=(count,),
                    rate=rate,
                    records=RECORDS,
                    record_bytes=RECORD_BYTES,
                    compression=kind,
                )
                rows += _rows(shape, walkers, repeats)
    columns = ["walk", "wall ms a page", "CPU ms a page", "MB a page on the wire"]
    notes = [
        (
            f"Pages of {RECORDS:,} records, {RECORDS * (RECORD_BYTES + 1) / 1e6:.2f} MB plain; "
            f"medians of {repeats} rounds."
        ),
        *missing,
    ]
    return Report([Table("Compression", columns, rows, notes)])


def _rows(shape: Shape, walkers: list[Contender], repeats: int) -> list[list[Cell]]:
    pages = shape.chains[0]
    with serving(shape) as server:
        runs = rounds(server, walkers, repeats)
        seen = server.seen()
    sent = seen.sent / seen.requests["get_page"] / 1e6
    return [
        [
            label,
            median(of, lambda run: 1000 * run.wall / pages),
            median(of, lambda run: 1000 * run.cpu / pages),
            sent,
        ]
        for label, of in runs.items()
    ]
