"""The scenario of `altaprofiles demo`: every feature once, with services that fail at times."""

from __future__ import annotations

import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from itertools import islice
from math import inf
from pathlib import Path

import anyio
from rich.table import Table

from ..base.extras import is_installed
from ..emulator import Emulator
from ..errors import AltaProfilesError
from ..export.report import ExportProgress, ExportReport, LookupReport
from ..http.retry import Retry
from ..models import Attempt, Profile
from ..models.people import person_key
from ..session import Session
from .app import App
from .consoles import output_console
from .progress import progress_display

__all__ = ["Scenario"]

_EVENT = "App Launched"
_FIRST, _LAST = date(2026, 1, 1), date(2026, 1, 31)
_WINDOWS = 4
_LOOKUPS = 150

# Frequent enough to see each kind, rare enough to finish within seconds.
_FAULTS = {
    "not_ready": 0.15,
    "throttled": 0.02,
    "too_many": 0.02,
    "server_error": 0.02,
    "html": 0.01,
    "empty": 0.01,
    "disconnect": 0.01,
    "reset": 0.02,
    "truncated": 0.02,
    "garbled": 0.01,
    "slow": 0.05,
    "gzip": 0.2,
    "empty_page": 0.02,
}

_QUERY = """
select json ->> '$.profileData."Customer Type"' as type,
       count(*) as people,
       sum((json ->> '$.events.Charged.count')::int)::int as charged
from read_ndjson_objects(?) group by all order by people desc
"""


class Scenario:
    """An export that is interrupted and resumed, lookups, a join, and a query of the file.

    Attributes:
        complete: whether the file holds each of the services' people exactly once.
    """

    def __init__(self, app: App, people: int, out: Path) -> None:
        self._app = app
        self._people = people
        self._out = out
        self._failures: Counter[str] = Counter()
        self._resumed = 0
        self.complete = False

    async def run(self) -> None:
        """Run it; progress goes to stderr, the results to stdout."""
        started = time.monotonic()
        async with Emulator(people=self._people, seed=7, faults=_FAULTS, think=0.01) as emulator:
            expected = _everyone(emulator)
            self._app.info(
                f'Everyone who did "{_EVENT}" in January, from a service with {self._people:,} '
                f"people that fails at times, into {self._out}:"
            )
            async with self._session(emulator) as session:
                await self._export(session, until=0.5)
            self._app.info("Interrupted, as if by Ctrl-C. The same export again resumes:")
            async with self._session(emulator) as session:
                report = await self._export(session)
                assert report is not None  # noqa: S101
                written = [
                    person_key(profile.identity, profile.object_ids)
                    for profile in _profiles(self._out)
                ]
                self.complete = set(written) == expected and len(written) == len(expected)
                named = (profile for profile in _profiles(self._out) if profile.identity)
                sample = list(islice(named, _LOOKUPS))
                self._app.info(f"{len(sample):,} of them, and as many unknown, by identity:")
                found = await self._look_up(session, sample)
                self._app.info(f"{len(sample):,} of them joined with the CDP.")
                bound = [bool(one.cdp) async for one in session.with_cdp(sample)].count(True)
            peaks = emulator.stats.peak_in_flight
        verdict = (
            "each once, none missing"
            if self.complete
            else f"but the service holds {len(expected):,}"
        )
        self._print(
            "Results",
            [
                ("people exported", f"{report.people:,}, {verdict}"),
                ("chains and pages", f"{len(report.chains)} and {report.pages:,}"),
                ("records", f"{report.records:,}, {self._resumed:,} before the interruption"),
                (
                    "requests of the export",
                    f"{report.requests:,}, {report.retries:,} of them retries",
                ),
                ("failures in total", _listed(self._failures)),
                ("looked up", f"{found.found:,} found, {found.not_found:,} not found"),
                ("joined", f"{bound:,} of {len(sample):,} have anonymous IDs"),
                (
                    "peak in flight",
                    f"CleverTap {peaks['clevertap']} of 3, Alta {peaks['alta']} of 16",
                ),
                ("seconds", f"{time.monotonic() - started:.1f}"),
            ],
        )
        if is_installed("duckdb"):
            rows = await anyio.to_thread.run_sync(_query, self._out)
            columns = ("Customer Type", "people", "charges ever")
            self._print("The file, queried with DuckDB", rows, columns=columns)
        self._app.write(b"The people are in %b\n" % os.fsencode(self._out))

    def _session(self, emulator: Emulator) -> Session:
        return Session(
            clevertap=emulator.clevertap,
            alta=emulator.alta,
            retry=self._app.retry(Retry(base_delay=0.02, max_delay=0.5)),
            timeout=self._app.limits,
            on_event=self._count_failure,
        )

    def _count_failure(self, attempt: Attempt) -> None:
        if attempt.error is not None:
            self._failures[_kind(attempt.error)] += 1

    async def _export(self, session: Session, until: float = inf) -> ExportReport | None:
        """Return the report, or None if it was cancelled after that share of the records."""
        with anyio.CancelScope() as scope, progress_display(self._app) as display:

            def on_progress(progress: ExportProgress) -> None:
                display(progress)
                self._resumed = progress.resumed
                if progress.records > until * (progress.total or inf):
                    scope.cancel()

            return await session.export(
                _EVENT,
                start=_FIRST,
                end=_LAST,
                to=self._out,
                format="ndjson",
                windows=_WINDOWS,
                batch_size=460,
                count=True,
                # An earlier demo may have left an unfinished export, from another emulator.
                resume=until == inf,
                on_progress=on_progress,
            )
        return None

    async def _look_up(self, session: Session, sample: list[Profile]) -> LookupReport:
        known = [profile.identity for profile in sample if profile.identity is not None]
        keys = known + [f"nobody-{number}" for number in range(len(sample))]
        with tempfile.TemporaryDirectory() as folder, progress_display(self._app) as display:
            return await session.export_lookups(
                keys, by="identity", to=Path(folder) / "found.ndjson", on_progress=display
            )

    def _print(
        self, title: str, rows: Iterable[Sequence[object]], *, columns: Sequence[str] = ()
    ) -> None:
        table = Table(*columns, title=title, title_justify="left", show_header=bool(columns))
        for row in rows:
            table.add_row(*("unknown" if cell is None else str(cell) for cell in row))
        output_console().print(table)


def _everyone(emulator: Emulator) -> set[str | None]:
    population = emulator.population
    return {
        person_key(population.identity(index), population.object_ids(index))
        for index in population.active(_EVENT, 20260101, 20260131)
    }


def _profiles(path: Path) -> Iterator[Profile]:
    with path.open("rb") as file:
        for line in file:
            yield Profile.decode(line)


def _kind(error: AltaProfilesError) -> str:
    return {
        "NotReady": "not ready",
        "RateLimited": "throttled",
        "ServerError": "server error",
        "TransportError": "broken off",
        "DecodeError": "garbled",
    }.get(type(error).__name__, type(error).__name__)


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.most_common())


def _query(path: Path) -> list[tuple[object, ...]]:
    import duckdb

    rows: list[tuple[object, ...]] = duckdb.execute(_QUERY, [str(path)]).fetchall()
    return rows
