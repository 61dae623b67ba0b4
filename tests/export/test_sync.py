"""`Session.sync`: nights after nights into one DuckDB table, with whatever happens in between."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import pytest
from anyio import to_thread

from altaprofiles import (
    CleverTap,
    ConfigurationError,
    ExportError,
    ExportLocked,
    Filter,
    Incomplete,
    PlanMismatch,
    Session,
    SyncReport,
    Unauthorized,
)
from altaprofiles.emulator import Emulator
from altaprofiles.export.accounts import AccountsFailed
from altaprofiles.export.outputs import days_of, outputs_at, unfinished_in
from altaprofiles.export.report import ExportProgress
from altaprofiles.export.sync import Syncs

from ..support.exporting import Exporter, Job, exporter
from ..support.jobs import EVENTS, Halt, Scripted, at_script, names_in, person, workspaces_of
from ..support.joining import DOWN, both, user
from ..support.servers import http
from ..support.sessions import QUICK, session_for
from ..support.syncs import sync_part_of
from ..support.terminals import environment, run
from ..support.thorough import THOROUGH, of_each_kind

pytestmark = pytest.mark.anyio

SINCE = date(2026, 1, 1)
BOTH = ("App Launched", "Charged")
# The service sends devices in another order, and other spaces, in each query.
PEOPLE = """
SELECT account, person, list_sort(object_ids), json(profile_data), matched, epoch_us(added_at)
FROM {} ORDER BY account, person
"""


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with Emulator(people=200, seed=2) as emulator:
        yield emulator


@pytest.fixture
async def session(emulator: Emulator) -> AsyncIterator[Session]:
    async with session_for(emulator) as session:
        yield session


@pytest.fixture
def to(tmp_path: Path) -> Path:
    return tmp_path / "crm.duckdb"


async def night(session: Session, to: Path, until: int, **options: Any) -> SyncReport:
    """Sync up to a day of January 2026."""
    arguments = {"events": BOTH, "since": SINCE, "timezone": "UTC", **options}
    return await session.sync(to=to, until=date(2026, 1, until), **arguments)


def rows(to: Path, sql: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(to), read_only=True) as connection:
        return connection.execute(sql).fetchall()


def people(to: Path, table: str = "profiles") -> list[tuple[Any, ...]]:
    return rows(to, PEOPLE.format(table))


def everything(to: Path) -> list[tuple[Any, ...]]:
    """Return the rows with their times, to the microsecond."""
    return rows(to, "SELECT COLUMNS(* EXCLUDE (fetched_at, added_at)), epoch_us(fetched_at),"
                    " epoch_us(added_at) FROM profiles ORDER BY account, person")  # fmt: skip


def state(to: Path) -> list[tuple[Any, ...]]:
    return rows(to, "SELECT table_name, account, through FROM altaprofiles_sync ORDER BY ALL")


def matched(emulator: Emulator, last: int) -> Counter[tuple[str, tuple[str, ...]]]:
    """Return each person with an event from SINCE on, with their events."""
    population = emulator.population
    found: dict[int, list[str]] = {}
    for event in BOTH:
        for number in population.active(event, 20260101, 20260100 + last):
            found.setdefault(number, []).append(event)
    return Counter(
        (person(population.identity(number), population.object_ids(number)), tuple(events))
        for number, events in found.items()
    )


def matched_in(to: Path) -> Counter[tuple[str, tuple[str, ...]]]:
    return Counter(
        (person(identity, devices), tuple(events))
        for identity, devices, events in rows(
            to, "SELECT identity, object_ids, matched FROM profiles"
        )
    )


def sent(emulator: Emulator) -> int:
    return sum(emulator.stats.requests.values())


# --------------------------------------------------------------------------------- which days


async def test_each_night_brings_the_days_since_with_an_overlap(
    session: Session, emulator: Emulator, to: Path
) -> None:
    days = []
    for until in (5, 6, 9):
        report = await night(session, to, until)
        days.append((report.first, report.last))
        assert report.through == report.last == date(2026, 1, until)
        assert report.complete
        assert report.warnings == []
        assert str(to) in str(report)
        assert matched_in(to) == matched(emulator, until)
        assert state(to) == [
            ("profiles", emulator.environment["CLEVERTAP_ACCOUNT_ID"], date(2026, 1, until))
        ]
    assert days == [
        (SINCE, date(2026, 1, 5)),
        (date(2026, 1, 4), date(2026, 1, 6)),
        (date(2026, 1, 5), date(2026, 1, 9)),
    ]
    assert names_in(to.parent) == ["crm.duckdb", "crm.duckdb.manifest.json"]


@pytest.mark.parametrize(
    ("late_days", "first"),
    [(0, None), (1, 6), (2, 5), (5, 2), (6, 1), (7, 1), (10**30, 1)],
)
async def test_late_days_are_brought_again(
    session: Session, emulator: Emulator, to: Path, late_days: int, first: int | None
) -> None:
    await night(session, to, 6, late_days=late_days)
    requests = sent(emulator)
    report = await night(session, to, 6, late_days=late_days)
    if first is None:
        assert (report.first, report.last, report.people, report.requests) == (None, None, 0, 0)
        assert sent(emulator) == requests
        assert "none, as the table has all of them" in str(report)
    else:
        assert (report.first, report.last) == (date(2026, 1, first), date(2026, 1, 6))
    assert report.through == date(2026, 1, 6)
    assert report.bytes == to.stat().st_size


async def test_two_runs_leave_the_table_of_one(
    session: Session, emulator: Emulator, to: Path
) -> None:
    await night(session, to, 4, events="Charged")
    before = people(to)
    for until in (4, 3, 2):
        report = await night(session, to, until, events="Charged")
        assert report.through == date(2026, 1, 4)
        assert people(to) == before


async def test_a_table_that_does_not_begin_yet_gets_nothing(
    session: Session, emulator: Emulator, to: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at(monkeypatch, datetime(2026, 1, 5, 12, tzinfo=UTC))
    report = await session.sync(BOTH, since=20260105, to=to, timezone="UTC")
    assert (report.first, report.through, report.people) == (None, None, 0)
    assert not to.exists()
    assert sent(emulator) == 0
    at(monkeypatch, datetime(2026, 1, 6, 0, tzinfo=UTC))
    report = await session.sync(BOTH, since=20260105, to=to, timezone="UTC")
    assert (report.first, report.last) == (date(2026, 1, 5), date(2026, 1, 5))


def at(monkeypatch: pytest.MonkeyPatch, moment: datetime) -> None:
    monkeypatch.setattr(time, "time", moment.timestamp)
    monkeypatch.setattr(time, "time_ns", lambda: int(moment.timestamp() * 1e9))


@pytest.mark.parametrize(
    ("zone", "last"),
    [
        ("UTC", 9),
        ("Asia/Kolkata", 10),
        ("America/New_York", 9),
        ("Pacific/Kiritimati", 10),
        ("Pacific/Pago_Pago", 9),
    ],
)
@pytest.mark.parametrize("until", [None, date(2026, 1, 31)])
async def test_days_end_in_the_time_zone_of_the_project(
    session: Session,
    to: Path,
    monkeypatch: pytest.MonkeyPatch,
    zone: str,
    last: int,
    until: date | None,
) -> None:
    """Days that are not over are left for later, so that the state is true of whole days."""
    at(monkeypatch, datetime(2026, 1, 10, 20, 30, tzinfo=UTC))
    report = await session.sync("Charged", since=SINCE, until=until, to=to, timezone=zone)
    assert (report.last, report.through) == (date(2026, 1, last), date(2026, 1, last))
    assert report.timezone == zone


async def test_the_time_zone_is_that_of_the_account(
    emulator: Emulator, to: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, value in emulator.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CLEVERTAP_TIMEZONE", "Asia/Kolkata")
    at(monkeypatch, datetime(2026, 1, 10, 20, 30, tzinfo=UTC))
    async with Session.from_env(retry=QUICK) as session:
        report = await session.sync("Charged", since=SINCE, to=to)
        assert (report.timezone, report.last) == ("Asia/Kolkata", date(2026, 1, 10))
        report = await session.sync("Charged", since=SINCE, to=to, timezone="UTC")
        assert (report.timezone, report.last) == ("UTC", date(2026, 1, 9))
        assert report.through == date(2026, 1, 10)
    [warning] = caplog.messages
    assert warning.startswith("`timezone` was 'Asia/Kolkata' when the days through 2026-01-10 of ")


async def test_without_a_time_zone_days_are_those_of_utc_with_one_warning(
    session: Session, to: Path, caplog: pytest.LogCaptureFixture
) -> None:
    report = await night(session, to, 3, timezone=None)
    assert report.timezone == "UTC"
    [warning] = report.warnings
    assert warning.startswith("the time zone of the project is not known")
    assert "CLEVERTAP_TIMEZONE" in warning
    assert caplog.messages == [warning]


@pytest.mark.usefixtures("no_zones")
async def test_missing_zone_data_is_named_with_the_fix(session: Session, to: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"^timezone: .* run: pip install tzdata$"):
        await night(session, to, 3, timezone="Asia/Kolkata")
    assert (await night(session, to, 3, timezone="UTC")).complete


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"since": 1_767_225_600}, "since: 1767225600 is a time, and a sync brings whole days"),
        ({"since": datetime(2026, 1, 1, tzinfo=UTC)}, "since: got the datetime"),
        ({"since": 20260230}, "since: 20260230 is not a day: 2026-02 has 28 days"),
        ({"since": None}, "since: got the NoneType None"),
        ({"until": 20251231}, "until: 2025-12-31 is before `since`, 2026-01-01"),
        ({"until": 1_767_225_600}, "until: 1767225600 is a time"),
        ({"late_days": -1}, "late_days: "),
        ({"late_days": 1.5}, "late_days: "),
        ({"late_days": True}, "late_days: "),
        ({"timezone": "Kolkata"}, "timezone: there is no time zone 'Kolkata' (did you mean"),
        ({"timezone": ""}, "timezone: expected the name of a time zone"),
        ({"timezone": UTC}, "timezone: expected the name of a time zone"),
        ({"events": None}, "events: "),
        ({"events": []}, "events: "),
        ({"events": ["Charged", "Charged"]}, "events: 'Charged' is in it twice"),
        ({"batch_size": 7}, "batch_size: "),
        ({"windows": 0}, "windows: "),
        ({"flatten": "City"}, "flatten: "),
        ({"table": "altaprofiles_sync"}, "table: names that begin with 'altaprofiles_'"),
        ({"spool": "nowhere"}, "spool: "),
        ({"on_progress": 5}, "on_progress: "),
        ({"to": "people.ndjson"}, "to: 'people.ndjson' cannot keep the state of a sync; use a"),
        ({"to": "people.csv.gz"}, "to: 'people.csv.gz' cannot keep the state of a sync; use a"),
        ({"to": "p.parquet"}, "to: 'p.parquet' cannot keep the state of a sync; use a table"),
        ({"cdp_key": "phone"}, "cdp_key: "),
        ({"format": "xml"}, "format: unknown format 'xml'; use one of parquet, duckdb, postgres"),
        (
            {"format": "xml", "to": "crm/"},
            "format: unknown format 'xml'; use one of parquet, duckdb",
        ),
    ],
)
async def test_an_argument_that_cannot_work_is_refused_before_anything_is_sent(
    session: Session,
    emulator: Emulator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, Any],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments: dict[str, Any] = {"events": "Charged", "since": SINCE, "to": "crm.duckdb", **change}
    with pytest.raises(ConfigurationError) as caught:
        await session.sync(**arguments)
    assert str(caught.value).startswith(words)
    assert sent(emulator) == 0
    assert names_in(tmp_path) == []


# ------------------------------------------------------------------------ one table, one sync

GOLD = Filter("Customer Type", "equals", "Gold")


@pytest.mark.parametrize(
    ("change", "name", "words"),
    [
        (
            {"events": "Charged"},
            "events",
            "`events` was ('App Launched', 'Charged') and is now ('Charged',)",
        ),
        ({"since": date(2026, 1, 2)}, "since", "`since` was '2026-01-01' and is now '2026-01-02'"),
        ({"app": True}, "app", "`app` was False and is now True"),
        (
            {"event_summaries": False},
            "event_summaries",
            "`event_summaries` was True and is now False",
        ),
        ({"profile": False}, "profile", "`profile` was True and is now False"),
        ({"with_cdp": True}, "with_cdp", "`with_cdp` was False and is now True"),
        (
            {"profile_fields": [GOLD]},
            "profile_fields",
            "`profile_fields` was left out and is now 'Customer Type' equals …",
        ),
        (
            {"event_properties": [Filter("Amount", "greater_than", 471)]},
            "event_properties",
            "`event_properties` was left out and is now 'Amount' greater_than …",
        ),
    ],
)
async def test_another_sync_is_refused_and_the_error_names_both(
    session: Session, emulator: Emulator, to: Path, change: dict[str, Any], name: str, words: str
) -> None:
    await night(session, to, 3)
    before, requests = everything(to), sent(emulator)
    with pytest.raises(PlanMismatch) as caught:
        await night(session, to, 4, **change)
    assert words in str(caught.value)
    assert f"another sync keeps 'profiles' in {to}" in str(caught.value)
    assert [*caught.value.differences] == [name]
    assert "Gold" not in str(caught.value)
    assert sent(emulator) == requests
    assert everything(to) == before
    assert names_in(to.parent) == ["crm.duckdb", "crm.duckdb.manifest.json"]
    # In another table it can be.
    await night(session, to, 3, table="others", **change)
    assert [table for table, _, _ in state(to)] == ["others", "profiles"]


async def test_the_keys_of_a_join_belong_to_the_sync(session: Session, to: Path) -> None:
    await night(session, to, 2, with_cdp=True)
    for change in ({"cdp_key": "Customer Type"}, {"cdp_by": "anonymous_id"}):
        with pytest.raises(PlanMismatch) as caught:
            await night(session, to, 3, with_cdp=True, **change)
        assert [*caught.value.differences] == [*change]


async def test_values_of_filters_are_bound_and_not_shown(
    session: Session, emulator: Emulator, to: Path
) -> None:
    filters = [Filter("Amount", "greater_than", 98476543471), Filter("Category", "equals", "Bag")]
    await night(session, to, 3, event_properties=filters)
    # Their order makes no difference.
    await night(session, to, 3, event_properties=filters[::-1])
    requests = sent(emulator)
    for value in (98476543472, 47.1):
        others = [Filter("Amount", "greater_than", value), filters[1]]
        with pytest.raises(PlanMismatch, match="the filters have other values") as caught:
            await night(session, to, 4, event_properties=others)
        text = f"{caught.value} {caught.value.differences} {rows(to, 'FROM altaprofiles_sync')}"
        for secret in ("98476543471", "98476543472", "Bag"):
            assert secret not in text
    assert sent(emulator) == requests


async def test_how_people_are_brought_is_free(
    session: Session, emulator: Emulator, to: Path
) -> None:
    await night(session, to, 3)
    report = await night(
        session,
        to,
        5,
        events=BOTH[::-1],
        flatten=["Customer Type"],
        batch_size=23,
        windows=1,
        late_days=3,
    )
    assert report.first == SINCE
    assert matched_in(to) == matched(emulator, 5)


async def test_each_account_has_a_state_of_its_own(session: Session, to: Path) -> None:
    await night(session, to, 6)
    mine = people(to)
    async with Emulator(people=50, seed=9) as other, session_for(other) as session_of_other:
        report = await night(session_of_other, to, 3, events="Charged", since=20260102)
        assert (report.first, report.through) == (date(2026, 1, 2), date(2026, 1, 3))
    assert len(state(to)) == 2
    assert [row for row in people(to) if row[0] == mine[0][0]] == mine


# ---------------------------------------------------------------- other exports, other tables


async def test_a_full_export_updates_the_table_and_leaves_the_state(
    session: Session, to: Path
) -> None:
    await night(session, to, 3)
    await session.export(BOTH[0], start=20260101, end=20260103, to=to)
    report = await night(session, to, 4)
    assert report.first == date(2026, 1, 2)


@pytest.mark.parametrize("how", ["replace", "drop"])
async def test_a_table_that_was_made_again_is_brought_from_its_first_day(
    session: Session, emulator: Emulator, to: Path, how: str
) -> None:
    await night(session, to, 5)
    if how == "replace":
        await session.export("Charged", start=20260102, end=20260102, to=to, write="replace")
        assert state(to) == []
    else:
        with duckdb.connect(str(to)) as connection:
            connection.execute("DROP TABLE profiles")
    report = await night(session, to, 6)
    assert report.first == SINCE
    if how == "drop":
        assert matched_in(to) == matched(emulator, 6)


async def test_a_table_of_an_export_becomes_that_of_a_sync(
    session: Session, emulator: Emulator, to: Path
) -> None:
    await session.export(BOTH, start=20260101, end=20260103, to=to)
    added = rows(to, "SELECT min(added_at)::VARCHAR FROM profiles")
    report = await night(session, to, 5)
    assert report.first == SINCE
    assert matched_in(to) == matched(emulator, 5)
    assert rows(to, "SELECT min(added_at)::VARCHAR FROM profiles") == added


FOREIGN = {
    "a table of others": ("CREATE TABLE profiles (n INTEGER)", "something else"),
    "a view": ("CREATE VIEW profiles AS SELECT 1 AS n", "is a view"),
    "a table of states of others": (
        "CREATE TABLE altaprofiles_sync (n INTEGER)",
        "something else has made the table 'altaprofiles_sync'",
    ),
    "a newer state": ("UPDATE altaprofiles_sync SET settings = '{\"newer\":1}'", "cannot be read"),
}


@pytest.mark.parametrize("name", FOREIGN)
async def test_a_table_that_something_else_has_made_is_refused(
    session: Session, emulator: Emulator, to: Path, name: str
) -> None:
    statements, words = FOREIGN[name]
    if name == "a newer state":
        await night(session, to, 2)
    with duckdb.connect(str(to)) as connection:
        connection.execute(statements)
    requests = sent(emulator)
    with pytest.raises(ExportError, match=words):
        await night(session, to, 3)
    assert sent(emulator) == requests


async def test_a_table_that_is_appended_to_is_refused(
    session: Session, emulator: Emulator, to: Path
) -> None:
    await session.export("Charged", start=20260101, end=20260101, to=to, write="append")
    requests = sent(emulator)
    with pytest.raises(ExportError, match="was made with write='append'"):
        await night(session, to, 3)
    assert sent(emulator) == requests


# -------------------------------------------------------------------------- unfinished nights


@pytest.fixture
async def case() -> AsyncIterator[Scripted]:
    async with at_script(EVENTS) as case:
        yield case


def nightly(case: Scripted, until: int, **options: Any) -> dict[str, Any]:
    return {
        "events": case.arguments["events"],
        "since": SINCE,
        "until": 20260100 + until,
        "timezone": "UTC",
        "windows": 3,
        **options,
    }


async def interrupt(case: Scripted, to: Path, until: int, **options: Any) -> None:
    """Sync until it is midway."""

    def on_progress(progress: ExportProgress) -> None:
        if progress.records:
            case.released.clear()
            raise Halt

    async with case.session() as session:
        with pytest.raises(Halt):
            await session.sync(**nightly(case, until, on_progress=on_progress, to=to, **options))
    case.released.set()


async def sync(case: Scripted, to: Path, until: int, **options: Any) -> SyncReport:
    async with case.session() as session:
        return await session.sync(**nightly(case, until, to=to, **options))


async def test_an_unfinished_night_is_finished_first_and_nothing_is_fetched_again(
    case: Scripted, to: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await interrupt(case, to, 15)
    assert len(workspaces_of(to)) == 1
    begun = {line for line, _ in case.received if line.startswith("POST")}
    report = await sync(case, to, 20)
    # What was in flight at the end of the first run is asked for again.
    assert len(case.repeated) <= EVENTS.ahead
    assert begun & {*case.repeated} == set()
    assert (report.finished, report.first, report.through) == (1, SINCE, date(2026, 1, 20))
    # The overlap as well, which may be late by now.
    assert {chain.start for chain in report.chains} >= {20260101, 20260114}
    assert report.requests == case.requests
    assert caplog.messages == []
    assert names_in(to.parent) == ["crm.duckdb", "crm.duckdb.manifest.json"]


async def test_a_run_that_is_repeated_finishes_and_asks_for_nothing_else(
    case: Scripted, to: Path
) -> None:
    await interrupt(case, to, 30)
    begun = set(case.received)
    report = await sync(case, to, 30)
    assert (report.finished, report.first, report.last) == (1, SINCE, date(2026, 1, 30))
    # What was in flight at the end of the first run is asked for again.
    assert len(case.repeated) <= EVENTS.ahead
    assert {line for line, _ in begun if line.startswith("POST")} & set(case.repeated) == set()
    chains = {chain.start for chain in report.chains}
    assert chains == {20260101, 20260111, 20260121}
    assert len(rows(to, "FROM profiles")) == len(case.people)


async def test_a_night_that_cannot_be_finished_leaves_the_state(case: Scripted, to: Path) -> None:
    await sync(case, to, 10)
    await interrupt(case, to, 15)
    case.refusal = http(b"", "503 Service Unavailable")
    with pytest.raises(Exception, match="503"):
        await sync(case, to, 20)
    assert state(to) == [("profiles", "TEST", date(2026, 1, 10))]
    case.refusal = None
    report = await sync(case, to, 20)
    assert (report.finished, report.through) == (1, date(2026, 1, 20))


async def test_a_damaged_night_is_discarded_by_the_command_that_its_error_names(
    case: Scripted, to: Path, tmp_path: Path
) -> None:
    """A sync has no argument for it, and neither has the call that finishes one."""
    await sync(case, to, 10)
    await interrupt(case, to, 15)
    [left] = unfinished_in(to)
    journal = left.path / "journal.sqlite"
    (left.path / "journal.sqlite-wal").unlink(missing_ok=True)
    journal.write_bytes(bytes(4096))
    with pytest.raises(ExportError, match="journal") as caught:
        await sync(case, to, 15)
    command = f"altaprofiles status {to} --discard-unfinished"
    assert f"discard the unfinished export with `{command}`" in str(caught.value)
    assert "resume=False" not in str(caught.value)
    with pytest.raises(ExportError) as caught:
        async with case.session() as session:
            await session.finish_unfinished(left, to=to)
    assert f"with `{command}`" in str(caught.value)
    [left] = unfinished_in(to)
    assert "`altaprofiles status OUT --discard-unfinished`" in str(left.fault)
    arguments = [*command.split()[1:], "--yes"]
    done = await to_thread.run_sync(lambda: run(environment(tmp_path), *arguments))
    assert done.code == 0, done.stderr
    assert (await sync(case, to, 15)).complete


async def test_the_report_of_a_first_night_that_fails_names_no_manifest(
    case: Scripted, to: Path
) -> None:
    async with case.session() as session:
        for until, is_there in ((10, False), (11, True)):
            with pytest.raises(Incomplete) as caught:
                await session.sync(**nightly(case, until, to=to, deadline=0.0))
            report: Any = caught.value.report
            assert not report.complete
            assert report.manifest == (f"{to}.manifest.json" if is_there else None)
            assert ("days", "none") in report.summary
            await session.sync(**nightly(case, 10, to=to))


async def test_a_night_that_brought_nothing_leaves_nothing(case: Scripted, to: Path) -> None:
    """Such a night's plan is not that of the next one, so that nothing else would remove it."""

    def kill(progress: ExportProgress) -> None:
        folder = workspaces_of(to)[0]
        shutil.copytree(folder, to.with_name("kept") / folder.name)
        raise Halt

    async with case.session() as session:
        with pytest.raises(Halt):
            await session.sync(**nightly(case, 5, on_progress=kill, to=to))
    assert workspaces_of(to) == []
    # As a kill at that moment would have left it.
    shutil.copytree(to.with_name("kept"), to.with_name(f"{to.name}.export"), dirs_exist_ok=True)
    assert len(workspaces_of(to)) == 1
    report = await sync(case, to, 6)
    assert (report.finished, report.warnings) == (0, [])
    assert workspaces_of(to) == []


async def test_an_export_beside_a_sync_stays_unfinished(
    case: Scripted, to: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await case.interrupt(to)
    report = await sync(case, to, 10)
    assert report.finished == 0
    assert ["unfinished" in text for text in report.warnings] == [True]
    assert len(workspaces_of(to)) == 1


async def test_an_unfinished_night_at_another_address_stays_and_says_so(
    case: Scripted, to: Path
) -> None:
    await sync(case, to, 10)
    await interrupt(case, to, 15)
    async with at_script(EVENTS) as other:
        [warning] = (await sync(other, to, 12)).warnings
    was, now = (one.environment["CLEVERTAP_BASE_URL"] for one in (case, other))
    assert f"differs: `host` was '{was}' and is now '{now}'; `altaprofiles" in warning


async def test_unfinished_work_of_another_sync_stays(case: Scripted, to: Path) -> None:
    """The table has not been begun, so that another sync may begin it."""
    await interrupt(case, to, 15)
    report = await sync(case, to, 10, app=True)
    assert report.finished == 0
    assert ["unfinished" in text for text in report.warnings] == [True]


async def test_status_finishes_an_unfinished_sync_with_its_state(case: Scripted, to: Path) -> None:
    await interrupt(case, to, 15)
    [output] = outputs_at(str(to), table=None, spool=None)
    [left] = output.unfinished
    async with case.session() as session:
        await session.finish_unfinished(left, to=to)
    assert state(to) == [("profiles", "TEST", date(2026, 1, 15))]
    assert (await sync(case, to, 16)).first == date(2026, 1, 14)


async def restore(case: Scripted, to: Path, tmp_path: Path) -> None:
    """Restore a table of five days, after one more sync and an unfinished one."""
    await sync(case, to, 5)
    backup = tmp_path / "backup"
    shutil.copy(to, backup)
    await sync(case, to, 10)
    await interrupt(case, to, 15)
    shutil.copy(backup, to)


async def test_a_restored_table_is_continued_from_its_state(
    case: Scripted, to: Path, tmp_path: Path
) -> None:
    """Work of a later night cannot be used: the days between are missing."""
    await restore(case, to, tmp_path)
    report = await sync(case, to, 16)
    assert (report.finished, report.first) == (0, date(2026, 1, 4))
    assert report.through == date(2026, 1, 16)
    assert state(to) == [("profiles", "TEST", date(2026, 1, 16))]
    assert workspaces_of(to) == []


async def test_finishing_a_later_night_does_not_move_the_state_over_missing_days(
    case: Scripted, to: Path, tmp_path: Path
) -> None:
    await restore(case, to, tmp_path)
    [output] = outputs_at(str(to), table=None, spool=None)
    async with case.session() as session:
        await session.finish_unfinished(output.unfinished[0], to=to)
    assert state(to) == [("profiles", "TEST", date(2026, 1, 5))]


async def test_dead_cursors_are_fetched_from_their_beginning(
    case: Scripted, to: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await interrupt(case, to, 15)
    now = time.time() + 5 * 86_400
    monkeypatch.setattr(time, "time", lambda: now)
    report = await sync(case, to, 15)
    assert report.finished == 1
    assert report.through == date(2026, 1, 15)
    assert "days old" in caplog.text


async def test_a_task_that_is_cancelled_leaves_its_work_to_the_next_night(
    case: Scripted, to: Path
) -> None:
    reached = asyncio.Event()

    def on_progress(progress: ExportProgress) -> None:
        if progress.records:
            case.released.clear()
            reached.set()

    async with case.session() as session:
        task = asyncio.ensure_future(
            session.sync(**nightly(case, 15, on_progress=on_progress, to=to))
        )
        await asyncio.wait_for(reached.wait(), 60)
        # The table is locked meanwhile.
        with pytest.raises(ExportLocked):
            await session.sync(**nightly(case, 15, to=to))
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
    assert "run the same sync again to resume it" in "".join(caught.value.__notes__)
    case.released.set()
    assert not to.exists()
    assert (await sync(case, to, 16)).finished == 1


# ------------------------------------------------------------------------------------- joins


async def test_failed_lookups_are_asked_for_again_and_hold_up_no_later_day(to: Path) -> None:
    def joined() -> list[tuple[Any, ...]]:
        return rows(to, "SELECT identity, cdp->>'$[0].user_id' FROM profiles ORDER BY identity")

    async with both() as services:
        services.pages = [[b'{"identity":"1"}', b'{"identity":"2"}', b'{"identity":"3"}']]
        services.users = {"1": [user("one")], "2": [user("two")]}
        services.answers = {"2": DOWN}
        arguments: dict[str, Any] = {"events": "Charged", "windows": 1, "with_cdp": True}
        async with services.session() as session:
            for until, failed in ((3, 1), (5, 2)):
                with pytest.raises(Incomplete) as caught:
                    await night(session, to, until, **arguments)
                report = caught.value.report
                assert isinstance(report, SyncReport)
                assert report.failed == failed
                assert not report.complete
                assert report.through == date(2026, 1, until)
                assert joined() == [("1", "one"), ("2", None), ("3", None)]
            assert services.asked.count("1") == 2
            services.answers = {}
            services.asked.clear()
            report = await night(session, to, 5, **arguments)
            assert (report.finished, report.failed) == (2, 0)
            assert services.asked == ["2", "2"]
            assert joined() == [("1", "one"), ("2", "two"), ("3", None)]
            assert workspaces_of(to) == []


async def test_the_reports_of_a_join_are_summed(session: Session, to: Path) -> None:
    report = await night(session, to, 3, with_cdp=True)
    assert report.matched
    assert report.failed == 0
    assert report.matched + (report.unmatched or 0) == report.people


# ----------------------------------------------------------------------------- several accounts


class Pair:
    """Two accounts that are synced into one table, whose passcodes can be revoked.

    Args:
        to: the table.
        emulators: the service of each account, by its name.
    """

    def __init__(self, to: Path, **emulators: Emulator) -> None:
        self.to = to
        self.emulators = emulators
        self.accounts = {
            name: one.environment["CLEVERTAP_ACCOUNT_ID"] for name, one in emulators.items()
        }
        self._passcodes = {name: one.passcode for name, one in emulators.items()}

    def revoke(self, name: str) -> None:
        self.emulators[name].passcode = "0" * 24

    async def night(
        self,
        until: int,
        on_progress: Callable[[str, ExportProgress], object],
        revoked: Sequence[str] = (),
    ) -> SyncReport:
        """Sync both accounts up to a day of January, of which some are revoked already."""
        for name, passcode in self._passcodes.items():
            self.emulators[name].passcode = passcode
        for name in revoked:
            self.revoke(name)
        async with AsyncExitStack() as stack:
            parts = [
                sync_part_of(
                    await stack.enter_async_context(self._session(name)),
                    "App Launched",
                    name,
                    self.to,
                    since=20260101,
                    until=20260100 + until,
                    on_progress=partial(on_progress, name),
                    batch_size=23,
                )
                for name in self.emulators
            ]
            return await Syncs(parts, lambda _: None).run()

    def _session(self, name: str) -> Session:
        project = self.emulators[name].clevertap
        return Session(
            clevertap=CleverTap(project.account_id, self._passcodes[name], base_url=project.url),
            retry=QUICK,
        )

    async def leave_unfinished(self, until: int) -> None:
        """Sync until both accounts have records on disk, of which there are more."""

        def revoke(name: str, progress: ExportProgress) -> None:
            if progress.records:
                self.revoke(name)

        with pytest.raises(AccountsFailed) as caught:
            await self.night(until, revoke)
        assert {*caught.value.errors} == {*self.emulators}
        assert not self.to.exists()

    def people(self) -> dict[str, int]:
        return dict(rows(self.to, "SELECT account, count(*) FROM profiles GROUP BY account"))

    def manifest(self) -> dict[str, Any]:
        path = self.to.with_name(f"{self.to.name}.manifest.json")
        content: dict[str, Any] = json.loads(path.read_text())
        return content


@pytest.fixture
async def pair(to: Path) -> AsyncIterator[Pair]:
    async with Emulator(people=300, seed=1) as shop, Emulator(people=300, seed=2) as outlet:
        yield Pair(to, shop=shop, outlet=outlet)


@pytest.mark.parametrize("revoked", [("shop",), ("shop", "outlet")])
async def test_accounts_that_fail_after_their_rows_are_in_the_report(
    pair: Pair, revoked: tuple[str, ...]
) -> None:
    await pair.leave_unfinished(10)

    def revoke(name: str, progress: ExportProgress) -> None:
        if progress.complete and name in revoked:
            pair.revoke(name)

    # What was left is finished, and the days since are refused.
    with pytest.raises(AccountsFailed) as caught:
        await pair.night(12, revoke)
    assert {name: type(error) for name, error in caught.value.errors.items()} == dict.fromkeys(
        revoked, Unauthorized
    )
    report, manifest, people = caught.value.report, pair.manifest(), pair.people()
    assert isinstance(report, SyncReport)
    assert not report.complete
    assert report.accounts is not None
    assert not manifest["complete"]
    for found in (report.accounts, manifest["plans"], manifest["accounts"]):
        assert [*found] == [*pair.accounts]
    for name, account in pair.accounts.items():
        assert people[account] > 0
        own = report.accounts[name]
        assert isinstance(own, SyncReport)
        assert own.complete == (name not in revoked)
        assert own.people >= people[account]
        assert manifest["accounts"][name]["people"] == own.people
        through = "2026-01-10" if name in revoked else "2026-01-12"
        assert manifest["options"]["syncs"][name]["through"] == through


@pytest.mark.parametrize("revoked", [(), ("shop",)])
async def test_a_manifest_that_cannot_be_written_hides_no_other_error(
    pair: Pair, revoked: tuple[str, ...]
) -> None:
    manifest = pair.to.with_name(f"{pair.to.name}.manifest.json")
    done: list[str] = []

    def block(name: str, progress: ExportProgress) -> None:
        if progress.complete:
            done.append(name)
        if progress.complete and len(done) == len(pair.accounts) - len(revoked):
            # After each account has written its own.
            manifest.unlink()
            manifest.mkdir()

    with pytest.raises(AccountsFailed if revoked else ExportError) as caught:
        await pair.night(5, block, revoked)
    words = [str(caught.value), *getattr(caught.value, "__notes__", ())]
    assert any(f"cannot write in {pair.to.parent}: " in text for text in words), words
    if isinstance(caught.value, AccountsFailed):
        assert {*map(type, caught.value.errors.values())} == {Unauthorized}
        assert [*caught.value.errors] == [*revoked]
    manifest.rmdir()
    report = await pair.night(6, lambda *_: None)
    assert report.complete
    assert pair.manifest()["complete"]


# ------------------------------------------------------------------------- status and journal


async def test_status_has_the_last_day_and_never_waits(
    session: Session, emulator: Emulator, to: Path
) -> None:
    account = emulator.environment["CLEVERTAP_ACCOUNT_ID"]
    await night(session, to, 4)
    [output] = outputs_at(str(to), table=None, spool=None)
    assert days_of(output).days == {account: "2026-01-04"}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        f"import duckdb; c = duckdb.connect({str(to)!r}); print('open', flush=True); input()",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    assert await process.stdout.readline() == b"open\n"
    # From the manifest.
    assert days_of(output).days == {account: "2026-01-04"}
    process.stdin.close()
    await process.wait()
    with duckdb.connect(str(to)) as connection:
        connection.execute("UPDATE altaprofiles_sync SET through = '2026-01-02'")
    assert days_of(output).days == {account: "2026-01-02"}


# --------------------------------------------------------------------------- kills, processes

forks = pytest.mark.skipif(sys.platform == "win32", reason="forks, and kills with signals")
BEGUN = 1_767_225_600_000_000_000
NIGHT = 86_400 * 10**9


def job_of(emulator: Emulator, to: Path, until: int, **options: Any) -> Job:
    """Return the job of a sync in a process of its own, on the night after its last day."""
    arguments = {
        "events": ["Charged"],
        "windows": 1,
        "since": 20260101,
        "until": 20260100 + until,
        "timezone": "UTC",
        "to": str(to),
        **options,
    }
    environment = emulator.environment
    return Job(arguments=arguments, environment=environment, begun=BEGUN + until * NIGHT)


@pytest.fixture
async def processes(tmp_path: Path) -> AsyncIterator[Exporter]:
    async with exporter(tmp_path / "processes") as processes:
        yield processes


def content(to: Path) -> Any:
    """Return all rows and states, but not the order of devices, which is another in each query."""
    return (people(to), state(to)) if to.exists() else None


def _matters(step: str) -> bool:
    """Return whether it changes more than one row in a transaction, or one file of many."""
    statements = ("DROP", "CREATE", "UPDATE", "DELETE")
    return step != "os.unlink" and not step.endswith(statements)


PARTS = 5 if THOROUGH else 1
"""Number of tests that share the steps of one sync."""


@pytest.mark.slow
@forks
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("is_first", [True, False])
async def test_a_sync_that_is_killed_at_any_step_is_as_if_it_had_not_begun_or_is_complete(
    tmp_path: Path, processes: Exporter, is_first: bool, part: int
) -> None:
    place = tmp_path / "out"
    place.mkdir()
    to, backup = place / "crm.duckdb", tmp_path / "backup"
    async with Emulator(people=60, seed=3) as emulator:
        if not is_first:
            assert (await processes.run(job_of(emulator, to, 3))).report is not None
        shutil.copytree(place, backup)
        before = content(to)
        job = job_of(emulator, to, 5)
        whole = await processes.run(job.but(listed=True))
        assert whole.report is not None, whole
        after = content(to)
        assert after != before
        numbers = [n for n, name in enumerate(whole.steps) if _matters(name)]
        for number in of_each_kind(numbers, whole.steps, half=is_first)[part::PARTS]:
            shutil.rmtree(place)
            shutil.copytree(backup, place)
            killed = await processes.run(job.but(die=(number, "after")))
            # The number of steps differs by one or two between runs.
            assert killed.signal == signal.SIGKILL or killed.report is not None
            assert content(to) in (before, after), (number, whole.steps[number])
            done = await processes.run(job)
            assert done.report is not None, (number, whole.steps[number], done)
            assert content(to) == after, (number, whole.steps[number])
            assert not (place / "crm.duckdb.export").exists()
            assert not (place / "crm.duckdb.partial").exists()


@pytest.mark.slow
@forks
async def test_a_night_killed_between_finishing_and_its_own_days_is_completed(
    tmp_path: Path, processes: Exporter
) -> None:
    to = tmp_path / "crm.duckdb"
    async with Emulator(people=60, seed=3) as emulator:
        await processes.run(job_of(emulator, to, 3))
        await processes.fetch(job_of(emulator, to, 5))
        requests = sent(emulator)
        job = job_of(emulator, to, 8)
        # Two loads: dies when the first is in the table, and before its workspace is removed.
        killed = await processes.run(job.but(die=(0, "after"), die_in="duckdb COMMIT"))
        assert killed.signal == signal.SIGKILL
        assert [through for _, _, through in state(to)] == [date(2026, 1, 5)]
        assert sent(emulator) == requests
        done = await processes.run(job)
        assert done.report is not None, done
        assert (done.report["finished"], done.report["through"]) == (1, "2026-01-08")
        fresh = tmp_path / "fresh.duckdb"
        await processes.run(job_of(emulator, fresh, 8))
        assert [row[:5] for row in people(to)] == [row[:5] for row in people(fresh)]


@forks
async def test_lost_rows_are_told_by_the_sync_that_was_killed_whoever_wrote_in_between(
    tmp_path: Path, processes: Exporter
) -> None:
    to = tmp_path / "crm.duckdb"
    async with Emulator(people=60, seed=3) as emulator:
        await processes.run(job_of(emulator, to, 3))
        with duckdb.connect(str(to)) as connection:
            connection.execute(
                "DELETE FROM profiles WHERE person = (SELECT min(person) FROM profiles)"
            )
        job = job_of(emulator, to, 5)
        killed = await processes.run(job.but(die=(0, "after"), die_in="duckdb COMMIT"))
        assert killed.signal == signal.SIGKILL
        days = {"start": 20260101, "end": 20260104}
        other = {"events": "App Launched", "to": str(to), "write": "upsert", **days}
        for one, notes in ((job.but(arguments=other), 0), (job, 1), (job_of(emulator, to, 6), 0)):
            outcome = await processes.run(one)
            assert outcome.report is not None, outcome
            texts = [text for text in outcome.report["warnings"] if "after the last run" in text]
            assert len(texts) == notes, outcome


KILLS = int(os.environ.get("ALTAPROFILES_KILLS", "60" if THOROUGH else "36")) // 6


@pytest.mark.slow
@forks
async def test_nights_that_are_killed_at_random_leave_the_table_of_quiet_ones(
    tmp_path: Path, processes: Exporter
) -> None:
    to, fresh = tmp_path / "crm.duckdb", tmp_path / "fresh.duckdb"
    options = {"events": [*BOTH], "windows": 3}
    async with Emulator(people=120, seed=4) as emulator:
        began = time.monotonic()
        await processes.run(job_of(emulator, fresh, 4, **options))
        seconds = time.monotonic() - began
        for number in range(KILLS):
            job = job_of(emulator, to, 4 + number // 3, **options)
            moment = asyncio.sleep(seconds * (number % 5 + 1) / 6)
            await processes.killed_at(job, moment)
        last = 4 + KILLS // 3
        done = await processes.run(job_of(emulator, to, last, **options))
        assert done.report is not None, done
        assert matched_in(to) == matched(emulator, last)
        assert [through for _, _, through in state(to)] == [date(2026, 1, last)]
        assert [*map(str, tmp_path.glob("crm.duckdb.export/**/*"))] == []


async def stopped_while_reading(processes: Exporter, job: Job) -> int:
    """Run a process until it has a page, hold it there, and return its ID."""
    place = Path(job.arguments["to"]).parent
    before = place.with_name(f"{place.name}.before")
    shutil.copytree(place, before)
    steps = (await processes.run(job.but(listed=True))).steps
    shutil.rmtree(place)
    before.rename(place)
    number = await processes.start(job.but(stop=steps.index("file.truncate")))
    await processes.stopped()
    return number


@pytest.mark.slow
@forks
async def test_two_processes_sync_one_table(tmp_path: Path, processes: Exporter) -> None:
    place = tmp_path / "out"
    place.mkdir()
    to = place / "crm.duckdb"
    async with (
        Emulator(people=60, seed=3) as emulator,
        exporter(tmp_path / "others") as others,
    ):
        job = job_of(emulator, to, 4)
        number = await stopped_while_reading(processes, job)
        refused = await others.run(job)
        os.kill(number, signal.SIGCONT)
        first = await processes.ended()
        assert refused.error == "ExportLocked", refused
        assert first.report is not None, first
        before = people(to)
        second = await others.run(job)
        assert second.report is not None, second
        assert people(to) == before


@pytest.mark.slow
@forks
async def test_two_tables_of_one_file_are_synced_at_the_same_time(
    tmp_path: Path, processes: Exporter
) -> None:
    place = tmp_path / "out"
    place.mkdir()
    to = place / "crm.duckdb"
    async with (
        Emulator(people=60, seed=3) as emulator,
        exporter(tmp_path / "others") as others,
    ):
        number = await stopped_while_reading(processes, job_of(emulator, to, 6))
        beside = await others.run(job_of(emulator, to, 5, table="buyers"))
        os.kill(number, signal.SIGCONT)
        first = await processes.ended()
        assert beside.report is not None, beside
        # The file was made meanwhile, so that it cannot be put in its place any more.
        again = await processes.run(job_of(emulator, to, 6))
        assert again.report is not None, (first, again)
        assert [(table, last.day) for table, _, last in state(to)] == [
            ("buyers", 5),
            ("profiles", 6),
        ]


async def test_an_export_into_a_synced_table_says_what_it_replaces(tmp_path: Path) -> None:
    to = tmp_path / "crm.duckdb"
    async with Emulator(people=60, seed=2) as emulator, session_for(emulator) as session:
        days: dict[str, Any] = {"since": "2026-01-01", "until": "2026-01-05", "timezone": "UTC"}
        report: Any = await session.sync("App Launched", to=to, **days)
        assert report.warnings == []
        report = await session.export("Charged", start=20260101, end=20260105, to=to)
        [warning] = report.warnings
        assert "is kept by a sync, through 2026-01-05: in the rows of this export" in warning
        # As many days as it has.
        assert warning.endswith("or sync once with `late_days=5`")
        report = await session.sync("App Launched", to=to, late_days=5, **days)
        with duckdb.connect(to) as connection:
            query = "SELECT count(*) FROM profiles WHERE list_contains(matched, 'App Launched')"
            assert connection.execute(query).fetchall() == [(report.people,)]
        report = await session.export("Charged", start=20260101, end=20260105, to=to, table="other")
        assert report.warnings == []


async def test_a_flattened_column_that_a_night_leaves_out_is_told(tmp_path: Path) -> None:
    to = tmp_path / "crm.duckdb"
    async with Emulator(people=60, seed=2) as emulator, session_for(emulator) as session:
        days: dict[str, Any] = {"since": "2026-01-01", "timezone": "UTC", "to": to}
        flatten = ["Customer Type"]
        await session.sync("App Launched", until="2026-01-05", flatten=flatten, **days)
        await session.sync("App Launched", until="2026-01-06", **days)
        report = await session.sync("App Launched", until="2026-01-07", **days)
        [warning] = report.warnings
        assert "leaves out, null in the rows just written: 'Customer Type'; " in warning
        assert warning.endswith(
            "to fill it, name it there again, and sync once with `late_days=3` (later "
            "more, back to 2026-01-05); if nobody needs it, drop it"
        )
        late: dict[str, Any] = {"late_days": 4, "flatten": flatten}
        report = await session.sync("App Launched", until="2026-01-07", **days, **late)
        assert report.warnings == []
        with duckdb.connect(to, read_only=True) as connection:
            [empty] = connection.execute(
                "SELECT count(*) FROM profiles WHERE profile_data ->> 'Customer Type'"
                ' IS DISTINCT FROM "Customer Type"'
            ).fetchall()
        assert empty == (0,)
        report = await session.sync("App Launched", until="2026-01-07", flatten=flatten, **days)
        assert report.warnings == []


async def test_a_first_day_in_the_future_is_refused(tmp_path: Path) -> None:
    async with Emulator(people=5, seed=2) as emulator, session_for(emulator) as session:
        with pytest.raises(ConfigurationError, match=r"since: 2999-01-01 is in the future"):
            await session.sync(
                "App Launched", since="2999-01-01", timezone="UTC", to=tmp_path / "crm.duckdb"
            )
        assert sum(emulator.stats.requests.values()) == 0


@pytest.mark.parametrize("has_table", [False, True])
async def test_a_foreign_table_of_states_is_nothing_to_an_export(
    tmp_path: Path, has_table: bool
) -> None:
    to = tmp_path / "crm.duckdb"
    async with Emulator(people=60, seed=2) as emulator, session_for(emulator) as session:
        days: dict[str, Any] = {"start": 20260101, "end": 20260105, "to": to}
        if has_table:
            await session.export("Charged", **days)
        with duckdb.connect(str(to)) as connection:
            connection.execute("CREATE TABLE altaprofiles_sync (n INT)")
        report = await session.export("Charged", **days)
        assert (report.complete, report.warnings) == (True, [])
