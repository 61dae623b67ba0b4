"""Finishing: how long after the last answer does an export end?

The service is the bottleneck: each of its answers takes a second. The rest is the time from the end
of the last answer to the end of the export, as a share of the whole. PostgreSQL runs on loopback,
as in `sinks`. The export has all cores, as it has elsewhere: some formats use more than one, and
the service needs little of its own.
"""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import ExitStack, chdir
from typing import Any

from altaprofiles import Attempt

from .answers import Shape
from .clients import DAY, run, session
from .export import RECORD_BYTES, RECORDS
from .measure import Contender, Run, Server, Watch, left_out, note, once, present, serving
from .report import Cell, Ratio, Report, Table
from .sinks import server as postgres_server

__all__ = ["exported", "measure"]

THINK = 1.0
PAGES = 30
LIMIT_ONE = 5
LIMIT_SEVERAL = 8

_FORMATS: dict[str, tuple[str, ...]] = {
    "ndjson": (),
    "ndjson.gz": (),
    "csv": (),
    "csv.gz": (),
    "parquet": ("pyarrow",),
    "duckdb": ("pyarrow", "duckdb"),
}

_CASES = {
    "one event, one window": (1, 1),
    "one event, three windows": (1, 3),
    "three events, one window": (3, 1),
}
"""The number of events and of windows, by name."""


def exported(url: str, to: str, events: int, windows: int) -> Run:
    """Export; `rest` is the time in seconds after the last answer."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, range(os.cpu_count() or 1))
    last = 0.0

    def seen(attempt: Attempt) -> None:
        nonlocal last
        last = time.perf_counter()

    async def main(place: str) -> Run:
        names = [f"Event {number}" for number in range(events)]
        async with session(url) as ours:
            with Watch() as watch:
                report = await ours.with_options(on_event=seen).export(
                    names, start=DAY, end=DAY + windows - 1, windows=windows, to=place
                )
                rest = time.perf_counter() - last
        return watch.run(records=report.records, people=report.people, rest=rest)

    # The manifest of a table is written to the current folder.
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        return run(main(to if "://" in to else f"people.{to}"))


def measure(*, pages: int = PAGES, think: float = THINK) -> Report:
    """Return the rest of exports of three kinds, in every format."""
    rows: list[list[Cell]] = []
    shares: dict[str, list[float]] = {name: [] for name in _CASES}
    with ExitStack() as stack:
        database = stack.enter_context(postgres_server())
        for case, (events, windows) in _CASES.items():
            shape = Shape(
                chains=(pages // (events * windows),) * windows,
                records=RECORDS,
                record_bytes=RECORD_BYTES,
                unique=True,
                think=think,
            )
            for contender in _contenders(case, events, windows, database):
                with serving(shape) as server:
                    done = _once(contender, server)
                share = 100 * done.figures["rest"] / done.wall
                shares[case].append(share)
                rows.append(
                    [
                        case,
                        contender.label,
                        int(done.figures["people"]),
                        done.wall,
                        done.figures["rest"],
                        share,
                        done.rss / 1e6,
                    ]
                )
    columns = ["export", "into", "people", "seconds", "rest s", "rest %", "peak RSS MB"]
    notes = [
        (
            f"{pages} pages of {RECORDS:,} records of {RECORD_BYTES:,} bytes, {think:g} s an "
            f"answer; one round."
        ),
        "Rest: from the end of the last answer to the end of the export.",
        *left_out(_contenders("", 1, 1, database)),
        *([] if database else ["Left out: PostgreSQL (no server or driver is installed)."]),
    ]
    one, *several = shares.values()
    return Report(
        [Table("Finishing", columns, rows, notes)],
        [
            Ratio(15, "rest of an export of one window", max(one), LIMIT_ONE, False, "%"),
            Ratio(
                15,
                "rest of an export of several windows or events",
                max(share for some in several for share in some),
                LIMIT_SEVERAL,
                False,
                "%",
            ),
        ],
    )


def _contenders(case: str, events: int, windows: int, database: Any) -> list[Contender]:
    arguments = {"events": events, "windows": windows}
    found = [
        Contender(f".{ending}", exported, {"to": ending, **arguments}, needs)
        for ending, needs in _FORMATS.items()
    ]
    if database is not None:
        table = f"people_{events}_{windows}"
        to = {"to": database.url(table), **arguments}
        found.append(Contender("PostgreSQL", exported, to, ("psycopg",)))
    return present(found) if case else found


def _once(contender: Contender, server: Server) -> Run:
    note(f"  {contender.label}")
    return once(contender, server)
