"""Export to NDJSON: how many megabytes per second reach a file if the server is no bottleneck?

From loopback at full speed into a temporary file. The yardstick is aiohttp's `read()`, the records
as `list[Raw]` and one write per page, one page at a time. curl writes bodies without parsing them,
and so shows the limit of the machine.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from msgspec.structs import replace

from .answers import Shape
from .bodies import cursor
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

__all__ = ["RECORDS", "RECORD_BYTES", "by_page", "measure"]

RECORDS = 5000
RECORD_BYTES = 1168

_ROOM = 3 * 10**9

_OURS = "altaprofiles, page.encode(), distinct=False"
_DISTINCT = "altaprofiles, page.encode(), each person once"
_BARE = "aiohttp read() + list[Raw]"
_JSON = "aiohttp + json.loads + json.dumps"


def export_folder() -> str:
    """Return a folder in memory if possible, because the disk is not to be measured."""
    memory = Path("/dev/shm")  # noqa: S108
    usable = memory.is_dir() and os.access(memory, os.W_OK)
    if usable and shutil.disk_usage(memory).free > _ROOM:
        return str(memory)
    return tempfile.gettempdir()


def by_page(url: str, distinct: bool = False) -> Run:
    """Export with `pages()` and one write per page."""

    async def main() -> Run:
        ours = session(url)
        people = ours.profiles.by_event("App Launched", start=DAY, end=DAY, distinct=distinct)
        with tempfile.TemporaryFile(dir=export_folder()) as file:
            with Watch() as watch:
                async with ours:
                    async for page in people.pages(decode=False):
                        file.write(page.encode())
            file.seek(0)
            records = sum(1 for _ in file)
        return watch.run(records=records)

    return run(main())


def by_person(url: str) -> Run:
    """Export by iterating over people, with one write for each."""

    async def main() -> Run:
        ours = session(url)
        people = ours.profiles.by_event("App Launched", start=DAY, end=DAY, distinct=False)
        records = 0
        with tempfile.TemporaryFile(dir=export_folder()) as file, Watch() as watch:
            async with ours:
                async for person in people:
                    records += 1
                    file.write(person.encode() + b"\n")
        return watch.run(records=records)

    return run(main())


def bare(url: str) -> Run:
    """Export with aiohttp, `list[Raw]` and one write per page."""

    async def main() -> Run:
        records = 0
        async with tuned_aiohttp() as client:
            with tempfile.TemporaryFile(dir=export_folder()) as file, Watch() as watch:
                async for page in aiohttp_pages(client, url):
                    records += len(page.records)
                    file.write(b"\n".join(page.records) + b"\n")
        return watch.run(records=records)

    return run(main())


def by_json(url: str, pages: int) -> Run:
    """Export `pages` with aiohttp; decode and encode every record with `json`."""
    from yarl import URL

    async def main() -> Run:
        records = 0
        async with tuned_aiohttp() as client:
            with tempfile.TemporaryFile("w", dir=export_folder()) as file, Watch() as watch:
                async with client.post(opening_url(url), data=OPENING) as response:
                    following = json.loads(await response.read())["cursor"]
                for _ in range(pages):
                    async with client.get(URL(page_url(url, following), encoded=True)) as response:
                        page = json.loads(await response.read())
                    following = page.get("next_cursor")
                    for record in page["records"]:
                        records += 1
                        file.write(json.dumps(record) + "\n")
        return watch.run(records=records)

    return run(main())


def curl(url: str, pages: int) -> Run:
    """Write the bodies of `pages` to files with curl, one after the other."""
    headers = "".join(f'header = "{name}: {value}"\n' for name, value in HEADERS.items())
    with tempfile.TemporaryDirectory(dir=export_folder()) as folder:
        requests = [
            f'url = "{page_url(url, cursor(0, page))}"\noutput = "{folder}/page"\n'
            for page in range(pages)
        ]
        options = Path(folder, "options")
        options.write_text(headers + "".join(requests))
        with Watch() as watch:
            subprocess.run(["curl", "-s", "-f", "-K", options], check=True)
    return watch.run(records=pages * RECORDS)


def measure(*, pages: int = 60, repeats: int = 5) -> Report:
    """Return the throughput of each contender, and the library's ratios."""
    contenders = [
        Contender(_OURS, by_page),
        Contender(_BARE, bare),
        Contender("altaprofiles, person.encode(), distinct=False", by_person),
        Contender(_JSON, by_json, {"pages": max(1, pages // 6)}),
        Contender("curl, bodies unread", curl, {"pages": pages}, ("$curl",)),
    ]
    shape = Shape(chains=(pages,), records=RECORDS, record_bytes=RECORD_BYTES)
    with serving(shape) as server:
        runs = rounds(server, present(contenders), repeats)
    against = {label: paired(runs, label, _BARE, _rate) for label in runs}
    # With `distinct`, everybody must be on one page only.
    distinct = Contender(_DISTINCT, by_page, {"distinct": True})
    with serving(replace(shape, unique=True)) as server:
        once_each = rounds(server, [distinct, Contender(_BARE, bare)], repeats)
    runs[_DISTINCT] = once_each[_DISTINCT]
    against[_DISTINCT] = paired(once_each, _DISTINCT, _BARE, _rate)
    rows: list[list[Cell]] = [
        [
            label,
            median(of, _rate) * (RECORD_BYTES + 1) / 1e6,
            median(of, _rate),
            against[label],
            round(of[0].figures["records"]),
        ]
        for label, of in runs.items()
    ]
    columns = ["export", "MB/s", "records/s", f"x {_BARE}", "records a round"]
    notes = [
        (
            f"Pages of {RECORDS:,} records of {RECORD_BYTES:,} bytes, no thinking, no throttle; "
            f"medians of {repeats} rounds."
        ),
        f"{_DISTINCT!r}: other pages, against a bare loop over the same ones.",
        f"Written to {export_folder()}.",
        *left_out(contenders),
    ]
    return Report(
        [Table("Export to NDJSON", columns, rows, notes)],
        [
            Ratio(3, f"export by page against {name}", paired(runs, _OURS, name, _rate), *to)
            for name, *to in ((_BARE, 0.90, True), (_JSON, 6, True))
        ],
    )


def _rate(run: Run) -> float:
    return run.figures["records"] / run.wall
