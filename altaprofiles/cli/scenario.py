"""The story of `altaprofiles demo`: an export whose process is killed, and what comes of it."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import NamedTuple

import anyio
import msgspec
from anyio.streams.buffered import BufferedByteReceiveStream
from rich.table import Table

from ..emulator import Emulator
from ..errors import AltaProfilesError
from ..export.report import ExportProgress, ExportReport
from ..models import Attempt, Customer, Profile
from ..models.people import person_key
from ..session import Session
from .app import App
from .consoles import output_console, plain
from .progress import progress_display
from .scenario_export import EVENT, RETRY, export

__all__ = ["Scenario"]

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
    "gzip": 0.2,
    "empty_page": 0.02,
}

_LONGEST_LINE = 1_000_000
"""Of the other process's progress, in bytes."""

_BY_TYPE = """
select json_extract(record, '$.profileData."Customer Type"') as type,
       count(*),
       coalesce(sum(json_extract(record, '$.events.Charged.count')), 0)
from people group by type order by 3 desc
"""

_BEST = """
select record from people
where json_extract(record, '$.identity') is not null
    and json_extract(record, '$.events.Charged.count') is not null
order by json_extract(record, '$.events.Charged.count') desc, record limit 8
"""


class _People(NamedTuple):
    """The exported people, as SQL has them."""

    keys: list[str | None]
    by_type: list[tuple[object, ...]]
    best: list[Profile]


class Scenario:
    """An export; the same one, killed and resumed; a question in SQL; a join of both services.

    Attributes:
        complete: whether the resumed output holds each of the services' people exactly once, in
            the same bytes as the output of the uninterrupted export.
    """

    def __init__(self, app: App, people: int, folder: Path) -> None:
        self._app = app
        self._people = people
        self._folder = folder
        self._failures: Counter[str] = Counter()
        self._resumed = 0
        self.out = folder / "people.ndjson"
        self.complete = False

    async def run(self) -> None:
        """Run it; the story goes to stderr, the results to stdout."""
        started = time.monotonic()
        async with (
            Emulator(people=self._people, seed=7, faults=_FAULTS) as emulator,
            self._session(emulator) as session,
        ):
            whole = await self._export_at_once(session)
            await self._pull_the_plug(emulator, whole)
            report, digest = await self._resume(session, _digest(whole))
            people = await anyio.to_thread.run_sync(_ask, self.out)
            self.complete = digest == _digest(whole) and _is_everyone(people.keys, emulator)
            self._tell_export(report, emulator)
            self._app.info("4. A question in SQL, with the sqlite3 that comes with Python:")
            self._print("Who pays?", people.by_type, ("Customer Type", "people", "charges"))
            self._app.info("5. Both services joined: the best customers, and where they chat:")
            joined = session.with_cdp(people.best, ordered=True)
            customers = [customer async for customer in joined]
            columns = ("identity", "charges", "channels at Alta")
            self._print("Who are the best?", map(_row, customers), columns)
        whole.unlink()
        self._app.info(f"That took {time.monotonic() - started:.1f} seconds.")

    async def _export_at_once(self, session: Session) -> Path:
        """Return the output of the export that nothing interrupts."""
        to = self._folder / "uninterrupted.ndjson"
        self._app.info(f'1. Who did "{EVENT}" in January, from a service that fails at times:')
        with progress_display(self._app) as display:
            report = await export(session, to, display)
        self._app.info(f"   {report.people:,} people, SHA-256\n   {_digest(to)}")
        return to

    async def _pull_the_plug(self, emulator: Emulator, whole: Path) -> None:
        """Run the same export in a process of its own, and kill that when it has half of it."""
        self._app.info("2. The same export in another process. Halfway, the plug is pulled:")
        command = [sys.executable, "-P", "-m", f"{__package__}.scenario_export", str(self.out)]
        # What this process can import, the other one can.
        paths = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        variables = {**os.environ, **emulator.environment, **paths}
        process = await anyio.open_process(
            command, stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL, env=variables
        )
        assert process.stdout is not None  # noqa: S101
        try:
            with progress_display(self._app) as display:
                lines = BufferedByteReceiveStream(process.stdout)
                while True:
                    line = await lines.receive_until(b"\n", _LONGEST_LINE)
                    progress = msgspec.json.decode(line, type=ExportProgress)
                    display(progress)
                    if progress.total and progress.records >= progress.total / 2:
                        break
        except anyio.IncompleteRead:
            # It has ended by itself, because there were few people or because it failed. In either
            # case the next export has the rest.
            pass
        finally:
            with anyio.CancelScope(shield=True):
                if process.returncode is None:
                    process.kill()
                await process.wait()
                await process.aclose()
        killed = f"kill -9 {process.pid}" if process.returncode else "It had ended before."
        self._app.info(f"   {killed}")

    async def _resume(self, session: Session, expected: str) -> tuple[ExportReport, str]:
        self._app.info("3. The same export again resumes:")
        with progress_display(self._app) as display:

            def on_progress(progress: ExportProgress) -> None:
                display(progress)
                self._resumed = progress.resumed

            report = await export(session, self.out, on_progress)
        digest = _digest(self.out)
        verdict = "the same" if digest == expected else "another one, which must not be"
        self._app.info(
            f"   {self._resumed:,} of {report.records:,} records were on the disk. SHA-256, "
            f"{verdict}:\n   {digest}"
        )
        return report, digest

    def _tell_export(self, report: ExportReport, emulator: Emulator) -> None:
        verdict = (
            "each once, none missing"
            if self.complete
            else f"but the service holds {len(_everyone(emulator)):,}"
        )
        peaks = emulator.stats.peak_in_flight
        self._print(
            "The killed export, resumed",
            [
                ("people exported", f"{report.people:,}, {verdict}"),
                ("records", f"{report.records:,}, {self._resumed:,} before the kill"),
                (
                    "requests since",
                    f"{report.requests:,}, {report.retries:,} of them retries",
                ),
                ("failures", _listed(self._failures)),
                ("at once", f"never more than {peaks['clevertap']} requests, of 3 allowed"),
            ],
        )

    def _session(self, emulator: Emulator) -> Session:
        return Session(
            clevertap=emulator.clevertap,
            alta=emulator.alta,
            retry=self._app.retry(RETRY),
            timeout=self._app.limits,
            on_event=self._count_failure,
        )

    def _count_failure(self, attempt: Attempt) -> None:
        if attempt.error is not None:
            self._failures[_kind(attempt.error)] += 1

    def _print(
        self, title: str, rows: Iterable[Sequence[object]], columns: Sequence[str] = ()
    ) -> None:
        table = Table(*columns, title=title, title_justify="left", show_header=bool(columns))
        for row in rows:
            table.add_row(*(plain("unknown" if cell is None else str(cell)) for cell in row))
        output_console().print(table)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _ask(path: Path) -> _People:
    with closing(sqlite3.connect(":memory:")) as database, path.open("r", encoding="utf-8") as file:
        database.execute("create table people (record text)")
        database.executemany("insert into people values (?)", ((line,) for line in file))
        profiles = (
            Profile.decode(record.encode())
            for (record,) in database.execute("select record from people")
        )
        return _People(
            [person_key(profile.identity, profile.object_ids) for profile in profiles],
            database.execute(_BY_TYPE).fetchall(),
            [Profile.decode(record.encode()) for (record,) in database.execute(_BEST)],
        )


def _is_everyone(keys: list[str | None], emulator: Emulator) -> bool:
    expected = _everyone(emulator)
    return set(keys) == expected and len(keys) == len(expected)


def _everyone(emulator: Emulator) -> set[str | None]:
    population = emulator.population
    return {
        person_key(population.identity(index), population.object_ids(index))
        for index in population.active(EVENT, 20260101, 20260131)
    }


def _row(customer: Customer) -> tuple[object, ...]:
    assert customer.profile is not None  # noqa: S101
    found = [one for user in customer.cdp.values() for one in user.anonymous_ids]
    channels = ", ".join(one.conversation_type or "unknown" for one in found)
    return customer.profile.identity, customer.profile.events["Charged"].count, channels or "none"


def _kind(error: AltaProfilesError) -> str:
    return {
        "NotReady": "not ready",
        "RateLimited": "throttled",
        "ServerError": "server error",
        "TransportError": "broken off",
        "DecodeError": "garbled",
    }.get(type(error).__name__, type(error).__name__)


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.most_common()) or "none"
