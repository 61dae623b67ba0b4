"""Ten nights of sync over people who change, with kills, an outage, and an account more.

After each night the output is compared with a model of it, in which each rule is a loop.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from copy import deepcopy
from datetime import UTC, date, datetime, timedelta
from itertools import groupby
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import pytest
from anyio.from_thread import start_blocking_portal
from msgspec import Struct

from altaprofiles.export.unfinished import unfinished_at

from ..support.exporting import Exporter, Job, exporter
from ..support.nights import EVENTS, SINCE, Person, Project
from ..support.outputs import folder_of
from ..support.postgres import Server
from ..support.terminals import Terminal, environment, run, stopping

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="forks, and kills with signals"),
]

SEEDS = [int(seed) for seed in os.environ.get("ALTAPROFILES_NIGHTS", "1").split(",")]
"""More of them try other changes, and kills at other moments."""

NIGHTS = 10
LATE_DAYS = 2
OUTAGE, ABANDONED = 4, 7
"""The nights, from 0, on which the service fails, and on which a killed run is not repeated."""
SECOND = 3
"""The night on which another account comes."""

Cells = tuple[str, str, str, tuple[str, ...], int, tuple[str, ...], int, int]
"""Account, day or nothing, person, devices, value, events, and the nights of both times."""


def began(night: int) -> datetime:
    return datetime(2025, 3, 2, 3, tzinfo=UTC) + timedelta(days=night)


# ---------------------------------------------------------------------------------------- the model


class Row(Struct):
    """A row: the person as it was fetched, the events, and the nights of both times."""

    identity: str | None
    devices: frozenset[str]
    value: int
    matched: frozenset[str]
    fetched: int
    added: int

    def says(self) -> tuple[Any, ...]:
        return (self.identity, self.devices, self.value, self.matched)


def row_of(person: Person, matched: set[str], night: int) -> Row:
    return Row(
        person.identity, frozenset(person.devices), person.value, frozenset(matched), night, night
    )


def found(project: Project, first: date, last: date) -> list[tuple[Person, set[str]]]:
    """Return the people with an event on some days, and their events."""
    pairs = []
    for person in project.people:
        matched = {event for event in EVENTS if person in project.who(event, first, last)}
        if matched:
            pairs.append((person, matched))
    return pairs


class Table:
    """The rows of one account in a database."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}

    def bring(self, project: Project, first: date, last: date, night: int) -> None:
        earlier = dict(self.rows)
        brought = found(project, first, last)
        nameless = {device for person, _ in brought if not person.identity
                    for device in person.devices}  # fmt: skip
        for person, matched in brought:
            new = row_of(person, matched, night)
            became = {}
            for key, row in earlier.items():
                if key == person.key:
                    became[key] = row
                elif row.identity or not row.devices & new.devices:
                    continue
                # Not one that this run itself has brought without a name.
                elif not person.identity or not row.devices & nameless:
                    became[key] = row
            for row in became.values():
                new.matched |= row.matched
                new.added = min(new.added, row.added)
            same = became.get(person.key)
            if same is not None and same.says() == new.says():
                new.fetched = same.fetched
            for key in became:
                self.rows.pop(key, None)
            self.rows[person.key] = new

    def cells(self, account: str) -> Iterator[Cells]:
        for key, row in self.rows.items():
            yield _cells(account, "", key, row)


class Days:
    """The rows of one account in a folder."""

    def __init__(self) -> None:
        self.days: dict[date, dict[str, Row]] = {}

    def bring(self, project: Project, first: date, last: date, night: int) -> None:
        day = first
        while day <= last:
            before = self.days.get(day, {})
            self.days[day] = {}
            for person, matched in found(project, day, day):
                new = row_of(person, matched, night)
                if person.key in before:
                    new.added = before[person.key].added
                self.days[day][person.key] = new
            day += timedelta(days=1)

    def cells(self, account: str) -> Iterator[Cells]:
        for day, rows in self.days.items():
            for key, row in rows.items():
                yield _cells(account, str(day), key, row)


def _cells(account: str, day: str, key: str, row: Row) -> Cells:
    devices, matched = tuple(sorted(row.devices)), tuple(sorted(row.matched))
    return (account, day, key, devices, row.value, matched, row.fetched, row.added)


class Account:
    """One account: its project, the model of its rows, and the last day that they have.

    Attributes:
        left: the days and the night of a run that was not completed, or None.
    """

    def __init__(self, project: Project, rows: Table | Days) -> None:
        self.project = project
        self.rows = rows
        self.through = SINCE - timedelta(days=1)
        self.left: tuple[date, date, int] | None = None

    @property
    def next_days(self) -> tuple[date, date]:
        first = self.through + timedelta(days=1 - LATE_DAYS)
        if self.through < SINCE:
            first = SINCE
        return max(first, SINCE), self.project.day

    def bring(self, first: date, last: date, night: int) -> None:
        self.rows.bring(self.project, first, last, night)
        self.through = max(self.through, last)

    def complete(self, night: int) -> None:
        """Bring what a sync of this night brings that is repeated until it is complete."""
        if self.left is not None:
            self.bring(*self.left)
            self.left = None
        if self.through < self.project.day:
            self.bring(*self.next_days, night)


# -------------------------------------------------------------------------------------- the outputs


class Place(Struct):
    """An output: where it is, its options, the folder of unfinished exports, and its rows."""

    to: str
    options: dict[str, Any]
    unfinished: Path
    rows: Callable[[], list[Cells]]
    model: type[Table | Days]


def times(rows: list[Any]) -> list[Cells]:
    start = began(0)
    return sorted(
        (account, str(day), person, tuple(sorted(devices)), int(value), tuple(matched),
         (fetched.astimezone(UTC) - start).days, (added.astimezone(UTC) - start).days)
        for account, day, person, devices, value, matched, fetched, added in rows
    )  # fmt: skip


_COLUMNS = "person, object_ids, {value}, matched, fetched_at, added_at"


def in_duckdb(path: Path) -> Place:
    columns = _COLUMNS.format(value="profile_data->>'value'")

    def rows() -> list[Cells]:
        if not path.exists():
            return []
        with TemporaryDirectory() as folder:
            # A copy, so that the next run finds what a killed one has left.
            for file in path.parent.glob(f"{path.name}*"):
                if file.is_file():
                    shutil.copy(file, folder)
            with duckdb.connect(f"{folder}/{path.name}") as connection:
                query = f"SELECT account, '', {columns} FROM profiles"
                return times(connection.execute(query).fetchall())

    return Place(str(path), {}, path.with_name(f"{path.name}.export"), rows, Table)


def in_folder(path: Path) -> Place:
    columns = _COLUMNS.format(value="profile_data->>'value'")

    def rows() -> list[Cells]:
        if not [*path.glob("*/*.parquet")]:
            return []
        with duckdb.connect() as connection:
            return times(
                connection.execute(
                    f"SELECT account, day, {columns} FROM "
                    f"read_parquet('{path}/*/*.parquet', hive_partitioning = true)"
                ).fetchall()
            )

    return Place(f"{path}/", {}, path.with_name(f"{path.name}.export"), rows, Days)


def in_postgres(server: Server, folder: Path) -> Place:
    columns = _COLUMNS.format(value="profile_data->>'value'")

    def rows() -> list[Cells]:
        [(exists,)] = server.rows("SELECT to_regclass('nights') IS NOT NULL")
        return times(server.rows(f"SELECT account, '', {columns} FROM nights")) if exists else []

    server.run("DROP SCHEMA public CASCADE", "CREATE SCHEMA public")
    to = server.url("nights")
    return Place(to, {"spool": str(folder)}, folder_of(to, folder), rows, Table)


# ------------------------------------------------------------------------------------------- nights


class Nights:
    """The nights of one output."""

    def __init__(self, place: Place, processes: Exporter, seed: int) -> None:
        self.place = place
        self.random = Random(seed)  # noqa: S311
        self._processes = processes
        self.accounts: list[Account] = []
        self.kills = 0

    def _job(self, account: Account, night: int) -> Job:
        return Job(
            arguments={
                "events": EVENTS,
                "since": int(f"{SINCE:%Y%m%d}"),
                "until": int(f"{account.project.day:%Y%m%d}"),
                "late_days": LATE_DAYS,
                "to": self.place.to,
                "batch_size": 23,
                **self.place.options,
            },
            environment=account.project.emulator.environment,
            begun=int(began(night).timestamp()) * 10**9,
        )

    def expected(self) -> list[Cells]:
        return sorted(
            cells
            for account in self.accounts
            for cells in account.rows.cells(account.project.account)
        )

    async def completed(self, account: Account, night: int) -> None:
        """Sync until it is complete, with kills before."""
        rates = dict.fromkeys(["server_error", "reset", "not_ready"], 0.05)
        account.project.emulator.faults = self.random.choice([{}, rates])
        for _ in range(self.random.choice([0, 1, 1, 2])):
            await self._killed(account, night)
        outcome = await self._processes.run(self._job(account, night))
        assert outcome.error is None, outcome
        assert outcome.report is not None
        assert outcome.report["through"] == str(account.project.day)
        account.complete(night)

    async def abandoned(self, account: Account, night: int) -> None:
        """Sync with a kill, and no more."""
        await self._killed(account, night)
        self._leave(account, night)

    async def outage(self, account: Account, night: int) -> None:
        """Sync while the service fails, after some requests."""
        await self._killed(account, night)
        for fault in ("server_error", "reset"):
            account.project.emulator.faults = {fault: 1.0}
            outcome = await self._processes.run(self._job(account, night))
            # A run that had everything already needs no service.
            assert outcome.error is not None or self._is_complete(account, night), outcome
        account.project.emulator.faults = {}
        self._leave(account, night)

    async def _killed(self, account: Account, night: int) -> None:
        """Run a process that dies at some step, unless it ends before."""
        moment = self.random.choice(["before", "half", "after"])
        die = self.random.randrange(60), moment
        outcome = await self._processes.run(self._job(account, night).but(die=die))
        assert outcome.signal == 9 or outcome.error is None, outcome
        self.kills += outcome.signal == 9
        stages = [*self._stages(account, night)]
        rows = self.place.rows()
        if self.place.model is Table:
            assert rows in stages, "\n".join(str(sorted({*rows} ^ {*stage})) for stage in stages)
        else:
            # Each day for itself is as before, or as after.
            of_stages = [_by_day(stage) for stage in stages]
            for key, of_day in _by_day(rows).items():
                assert of_day in [stage.get(key, []) for stage in of_stages], key

    def _stages(self, account: Account, night: int) -> Iterator[list[Cells]]:
        """Yield the rows before this night, and after each of the exports that complete it."""
        before = account.rows, account.through, account.left
        try:
            yield self.expected()
            account.rows = deepcopy(account.rows)
            if account.left is not None:
                account.bring(*account.left)
                yield self.expected()
            account.complete(night)
            yield self.expected()
        finally:
            account.rows, account.through, account.left = before

    def _is_complete(self, account: Account, night: int) -> bool:
        *_, after = self._stages(account, night)
        return self.place.rows() == after

    def _leave(self, account: Account, night: int) -> None:
        assert account.left is None
        if self._is_complete(account, night):
            account.complete(night)
        elif self.is_left(account):
            account.left = (*account.next_days, night)

    def is_left(self, account: Account) -> bool:
        return any(
            one.plan is not None
            and one.plan.account == account.project.account
            and not one.is_empty
            for one in unfinished_at(self.place.unfinished)
        )


def _by_day(rows: list[Cells]) -> dict[tuple[str, str], list[Cells]]:
    return {key: [*cells] for key, cells in groupby(rows, key=lambda cells: cells[:2])}


EVERYWHERE = ["duckdb", "postgres", "folder"]


@pytest.fixture(params=EVERYWHERE)
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    # Manifests of tables on a server are written into it.
    monkeypatch.chdir(tmp_path)
    if request.param == "postgres":
        return in_postgres(request.getfixturevalue("postgres"), tmp_path)
    return (
        in_duckdb(tmp_path / "p.duckdb") if request.param == "duckdb" else in_folder(tmp_path / "p")
    )


@asynccontextmanager
async def nights_at(place: Place, folder: Path, seed: int) -> AsyncIterator[Nights]:
    async with exporter(folder / "runs") as processes:
        yield Nights(place, processes, seed)


@pytest.mark.parametrize("seed", SEEDS)
async def test_ten_nights(place: Place, seed: int, tmp_path: Path) -> None:
    async with nights_at(place, tmp_path, seed) as nights, AsyncExitStack() as services:
        for night in range(NIGHTS):
            for number in range(2):
                if night == (0, SECOND)[number]:
                    project = Project(2 * seed + number, 40)
                    for _ in range(night):
                        project.pass_day()
                    await services.enter_async_context(project.emulator)
                    nights.accounts.append(Account(project, place.model()))
            for account in nights.accounts:
                # What a run has left is of the people of its own night.
                account.project.pass_day(quiet=account.left is not None)
            for account in nights.random.sample(nights.accounts, len(nights.accounts)):
                if night == OUTAGE:
                    await nights.outage(account, night)
                elif night == ABANDONED:
                    await nights.abandoned(account, night)
                else:
                    await nights.completed(account, night)
            assert place.rows() == nights.expected(), night
        assert not any(map(nights.is_left, nights.accounts))
        assert nights.kills >= NIGHTS // 2


def test_of_two_syncs_at_the_same_time_one_is_told_to_try_again(
    place: Place, tmp_path: Path
) -> None:
    project = Project(1, 40)
    for _ in range(3):
        project.pass_day()
    model = place.model()
    model.bring(project, SINCE, project.day, 0)
    words = ["sync", *EVENTS, "--since", str(SINCE), "--until", str(project.day), "-o", place.to]
    words += [word for name, value in place.options.items() for word in (f"--{name}", value)]
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(project.emulator) as emulator,
    ):
        env = environment(tmp_path, emulator.environment, CLEVERTAP_TIMEZONE="UTC")
        # The first stops where it would write the first page.
        with Terminal(env, *words, command=stopping("open", ".spool.ndjson")) as first:
            first.stopped()
            done = run(env, *words)
            assert done.code == 4, done
            assert "another" in done.stderr
            assert place.rows() == []
            first.interrupt(signal.SIGCONT)
            assert first.ended().code == 0
        expected = _without_times(model.cells(project.account))
        assert _without_times(place.rows()) == expected
        done = run(env, *words)
        assert done.code == 0, done
    assert _without_times(place.rows()) == expected


def _without_times(rows: Iterable[Cells]) -> list[tuple[Any, ...]]:
    return sorted(cells[:-2] for cells in rows)
