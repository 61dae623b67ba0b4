"""`altaprofiles demo`: what the library does, against services that misbehave."""

from __future__ import annotations

import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from importlib.util import find_spec
from itertools import islice
from math import inf
from pathlib import Path

import anyio
import click
from rich.table import Table

from ..emulator import Emulator
from ..export.report import ExportProgress, ExportReport, LookupReport
from ..http.retry import Retry
from ..models import Attempt, Profile
from ..session import Session
from .app import App
from .consoles import output_console
from .progress import showing

__all__ = ["run"]

EVENT = "App Launched"
FIRST, LAST = date(2026, 1, 1), date(2026, 1, 31)
WINDOWS = 4
LOOKUPS = 150

# About every seventh answer is none: enough to see each kind, few enough to finish in seconds.
FAULTS = {
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

QUESTION = """
select json ->> '$.profileData."Customer Type"' as type,
       count(*) as people,
       sum((json ->> '$.events.Charged.count')::int)::int as charged
from read_ndjson_objects(?) group by all order by people desc
"""


def run(app: App, *, people: int, out: Path | None) -> None:
    """Run the demo; what happens goes to stderr, what came of it to stdout."""
    if out is None:
        out = Path(tempfile.mkdtemp(prefix="altaprofiles-demo-")) / "people.ndjson"
    demo = _Demo(app, people, out)
    app.run(demo.run)
    if not demo.complete:
        raise click.ClickException("the export is not complete")


class _Demo:
    def __init__(self, app: App, people: int, out: Path) -> None:
        self._app = app
        self._people = people
        self._out = out
        self._troubles: Counter[str] = Counter()
        self._resumed = 0
        self.complete = False

    async def run(self) -> None:
        began = time.monotonic()
        async with Emulator(people=self._people, seed=7, faults=FAULTS, think=0.01) as emulator:
            expected = _everyone(emulator)
            self._app.say(
                f'Everyone who did "{EVENT}" in January, from a service with {self._people:,} '
                f"people that fails at times, into {self._out}:"
            )
            async with self._session(emulator) as session:
                await self._export(session, until=0.5)
            self._app.say("Interrupted, as by Ctrl-C. The same once more goes on:")
            async with self._session(emulator) as session:
                report = await self._export(session)
                assert report is not None  # noqa: S101
                written = [_person_of(one.identity, one.object_ids) for one in _profiles(self._out)]
                self.complete = set(written) == expected and len(written) == len(expected)
                people = (one for one in _profiles(self._out) if one.identity is not None)
                sample = list(islice(people, LOOKUPS))
                self._app.say(f"{len(sample):,} of them, and as many unknown, by identity:")
                found = await self._look_up(session, sample)
                self._app.say(f"{len(sample):,} of them joined with the CDP.")
                bound = [bool(one.cdp) async for one in session.with_cdp(sample)].count(True)
            peaks = emulator.stats.peak_in_flight
        verdict = (
            "each once, and nobody is missing"
            if self.complete
            else f"the service holds {len(expected):,}"
        )
        self._print(
            "What happened",
            [
                ("people exported", f"{report.people:,}, {verdict}"),
                ("chains and pages", f"{len(report.chains)} and {report.pages:,}"),
                ("records", f"{report.records:,}, {self._resumed:,} before the interruption"),
                (
                    "requests of the export",
                    f"{report.requests:,}, {report.retries:,} of them retries",
                ),
                ("failures in all", _listed(self._troubles)),
                ("looked up", f"{found.found:,} found, {found.not_found:,} not found"),
                ("joined", f"{bound:,} of {len(sample):,} have anonymous IDs"),
                (
                    "peak in flight",
                    f"CleverTap {peaks['clevertap']} of 3, Alta {peaks['alta']} of 16",
                ),
                ("seconds", f"{time.monotonic() - began:.1f}"),
            ],
        )
        if find_spec("duckdb") is not None:
            answers = await anyio.to_thread.run_sync(_ask_duckdb, self._out)
            columns = ("Customer Type", "people", "charges ever")
            self._print("What DuckDB says of the file", answers, columns=columns)
        self._app.write(b"The people are in %b\n" % os.fsencode(self._out))

    def _session(self, emulator: Emulator) -> Session:
        return Session(
            clevertap=emulator.clevertap,
            alta=emulator.alta,
            retry=Retry(base_delay=0.02, max_delay=0.5),
            on_event=self._note_trouble,
        )

    def _note_trouble(self, attempt: Attempt) -> None:
        if attempt.error is not None:
            self._troubles[_trouble(attempt)] += 1

    async def _export(self, session: Session, until: float = inf) -> ExportReport | None:
        """Export, and return the report; or cancel it when that share of the records is there."""
        with anyio.CancelScope() as scope, showing(self._app) as show:

            def watch(progress: ExportProgress) -> None:
                show(progress)
                self._resumed = progress.resumed
                if progress.records > until * (progress.total or inf):
                    scope.cancel()

            return await session.export(
                EVENT,
                start=FIRST,
                end=LAST,
                to=self._out,
                format="ndjson",
                windows=WINDOWS,
                batch_size=460,
                count=True,
                # What an earlier demo has left is of another service.
                resume=until == inf,
                on_progress=watch,
            )
        return None

    async def _look_up(self, session: Session, sample: list[Profile]) -> LookupReport:
        known = [profile.identity for profile in sample if profile.identity is not None]
        keys = known + [f"nobody-{number}" for number in range(len(sample))]
        with tempfile.TemporaryDirectory() as folder, showing(self._app) as show:
            return await session.export_lookups(
                keys, by="identity", to=Path(folder) / "found.ndjson", on_progress=show
            )

    def _print(
        self, title: str, rows: Iterable[Sequence[object]], *, columns: Sequence[str] = ()
    ) -> None:
        table = Table(*columns, title=title, title_justify="left", show_header=bool(columns))
        for row in rows:
            table.add_row(*("unknown" if cell is None else str(cell) for cell in row))
        output_console().print(table)


def _person_of(identity: str | None, devices: Iterable[str]) -> frozenset[str]:
    return frozenset(devices if identity is None else [identity])


def _everyone(emulator: Emulator) -> set[frozenset[str]]:
    population = emulator.population
    return {
        _person_of(population.identity(index), population.object_ids(index))
        for index in population.active(EVENT, 20260101, 20260131)
    }


def _profiles(path: Path) -> Iterator[Profile]:
    with path.open("rb") as file:
        for line in file:
            yield Profile.decode(line)


def _trouble(attempt: Attempt) -> str:
    return {
        "NotReady": "not ready",
        "RateLimited": "throttled",
        "ServerError": "server error",
        "TransportError": "broken off",
        "DecodeError": "garbled",
    }.get(type(attempt.error).__name__, type(attempt.error).__name__)


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.most_common())


def _ask_duckdb(path: Path) -> list[tuple[object, ...]]:
    import duckdb

    answers: list[tuple[object, ...]] = duckdb.execute(QUESTION, [str(path)]).fetchall()
    return answers
