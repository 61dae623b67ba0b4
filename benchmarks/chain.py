"""One cursor chain: how close does a walk come to the limits of server and link?

The server thinks before each page and then sends it at a fixed rate, and the consumer spends some
time on each. The floor is computed. A cursor is known when its page begins, so every page costs the
longest of the thinking time, the consumer's time and a slot's share of a whole request. The
transfer of the last page is added:

    pages x max(think, consumer, (think + transfer) / 3 slots) + transfer
"""

from __future__ import annotations

import asyncio
import time
from importlib import import_module
from typing import Any

from msgspec import Struct

from .answers import Shape
from .clients import (
    DAY,
    HEADERS,
    OPENING,
    aiohttp_pages,
    opening_url,
    page_url,
    run,
    session,
    tuned_aiohttp,
)
from .measure import Contender, Run, Watch, left_out, median, paired, present, rounds, serving
from .report import Cell, Ratio, Report, Table

__all__ = [
    "FAST",
    "OURS",
    "SEQUENTIAL_AIOHTTP",
    "SEQUENTIAL_REQUESTS",
    "Link",
    "floor",
    "measure",
    "walks",
    "wall",
]

OURS = "altaprofiles pages(), prefetch=2"
SEQUENTIAL_AIOHTTP = "aiohttp, sequential"
SEQUENTIAL_REQUESTS = "requests, sequential"
_SEQUENTIAL_HTTPX = "httpx, sequential"
_SEQUENTIAL_HTTPX2 = "httpx2, sequential"

_RECORDS = 1000
_RECORD_BYTES = 1170
_SLOTS = 3


class Link(Struct, frozen=True):
    """The speed of server, link and consumer.

    Attributes:
        think: the server's time before each page, in seconds.
        rate: bytes per second on each connection.
        consumer: the consumer's time for each page, in seconds.
    """

    think: float = 0.030
    rate: float = 50e6
    consumer: float = 0.010


FAST = Link()


def floor(link: Link, pages: int) -> float:
    """Return the least time for `pages`, in seconds."""
    transfer = _RECORDS * _RECORD_BYTES / link.rate
    per_page = max(link.think, link.consumer, (link.think + transfer) / _SLOTS)
    return pages * per_page + transfer


def altaprofiles(url: str, consumer: float) -> Run:
    """Walk the chain with `pages()`."""

    async def main() -> Run:
        ours = session(url)
        # All pages hold the same people.
        people = ours.profiles.by_event(
            "App Launched", start=DAY, end=DAY, prefetch=2, distinct=False
        )
        records = 0
        with Watch() as watch:
            async with ours:
                async for page in people.pages():
                    records += len(page.records)
                    await asyncio.sleep(consumer)
        return watch.run(records=records)

    return run(main())


def aiohttp_sequential(url: str, consumer: float) -> Run:
    """Walk the chain with aiohttp and `list[Raw]`, one page at a time."""

    async def main() -> Run:
        records = 0
        async with tuned_aiohttp() as client:
            with Watch() as watch:
                async for page in aiohttp_pages(client, url):
                    records += len(page.records)
                    await asyncio.sleep(consumer)
        return watch.run(records=records)

    return run(main())


def requests_sequential(url: str, consumer: float) -> Run:
    """Walk the chain as public CleverTap scripts do: `requests.get(…).json()` in a loop."""
    import requests

    records = 0
    with Watch() as watch:
        opened = requests.post(opening_url(url), data=OPENING, headers=HEADERS, timeout=60)
        cursor = opened.json()["cursor"]
        while cursor is not None:
            page = requests.get(page_url(url, cursor), headers=HEADERS, timeout=60).json()
            records += len(page["records"])
            cursor = page.get("next_cursor")
            time.sleep(consumer)
    return watch.run(records=records)


def httpx_sequential(url: str, consumer: float, module: str = "httpx") -> Run:
    """Walk the chain with one client of httpx, or of its successor, and `.json()`."""
    httpx = import_module(module)
    records = 0
    with httpx.Client(headers=HEADERS, timeout=60) as client, Watch() as watch:
        cursor = client.post(opening_url(url), content=OPENING).json()["cursor"]
        while cursor is not None:
            page = client.get(page_url(url, cursor)).json()
            records += len(page["records"])
            cursor = page.get("next_cursor")
            time.sleep(consumer)
    return watch.run(records=records)


def contenders(link: Link) -> list[Contender]:
    """Return every contender that walks a chain over `link`."""
    arguments: dict[str, Any] = {"consumer": link.consumer}
    return [
        Contender(OURS, altaprofiles, arguments),
        Contender(SEQUENTIAL_AIOHTTP, aiohttp_sequential, arguments),
        Contender(SEQUENTIAL_REQUESTS, requests_sequential, arguments, ("requests",)),
        Contender(_SEQUENTIAL_HTTPX, httpx_sequential, arguments, ("httpx",)),
        Contender(
            _SEQUENTIAL_HTTPX2, httpx_sequential, {**arguments, "module": "httpx2"}, ("httpx2",)
        ),
    ]


def shape(link: Link, pages: int) -> Shape:
    """Return the shape of a server with one chain of `pages` on `link`."""
    return Shape(
        think=link.think,
        rate=link.rate,
        chains=(pages,),
        records=_RECORDS,
        record_bytes=_RECORD_BYTES,
    )


def walks(link: Link, pages: int, repeats: int, walkers: list[Contender]) -> dict[str, list[Run]]:
    """Return the runs of each of `walkers` over a chain of `pages`, by label."""
    with serving(shape(link, pages)) as server:
        runs = rounds(server, present(walkers), repeats)
    for label, of in runs.items():
        if any(run.figures["records"] != pages * _RECORDS for run in of):
            raise RuntimeError(f"{label} lost or repeated records")
    return runs


def wall(run: Run) -> float:
    """Return the wall time of `run`, in seconds."""
    return run.wall


def measure(*, pages: int = 200, slow_pages: int = 60, repeats: int = 3) -> Report:
    """Return the times of each walker at 50 MB/s and at 20 MB/s, and the ratios at 50 MB/s."""
    fast = walks(FAST, pages, repeats, contenders(FAST))
    slow_link = Link(rate=20e6)
    slow = walks(slow_link, slow_pages, repeats, contenders(slow_link))
    against_floor = median(fast[OURS], wall) / floor(FAST, pages)
    against_requests = paired(fast, SEQUENTIAL_REQUESTS, OURS, wall)
    return Report(
        [_table(FAST, pages, repeats, fast), _table(slow_link, slow_pages, repeats, slow)],
        [
            Ratio(2, "one chain, wall against its floor", against_floor, 1.15, False),
            Ratio(2, "one chain, sequential requests against ours", against_requests, 2.7, True),
        ],
    )


def _table(link: Link, pages: int, repeats: int, runs: dict[str, list[Run]]) -> Table:
    least = floor(link, pages)
    rows: list[list[Cell]] = [["floor", least, 1.0]]
    for label, of in runs.items():
        taken = median(of, wall)
        rows.append([label, taken, taken / least])
    megabytes = _RECORDS * _RECORD_BYTES / 1e6
    notes = [
        (
            f"{pages} pages of {megabytes:.2f} MB, the server thinks {link.think * 1000:.0f} ms, "
            f"the consumer takes {link.consumer * 1000:.0f} ms a page; medians of {repeats} rounds."
        ),
        f"Floor: pages x max(think, consumer, (think + transfer) / {_SLOTS}) + transfer.",
        *left_out(contenders(link)),
    ]
    title = f"One chain at {link.rate / 1e6:.0f} MB/s per connection"
    return Table(title, ["walker", "wall s", "x floor"], rows, notes)
