"""Syncs on a machine whose clock was ahead for a night."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest

from altaprofiles import (
    ConfigurationError,
    ExportError,
    ExportProgress,
    Incomplete,
    SyncReport,
    unfinished_in,
)
from altaprofiles.emulator import Emulator
from altaprofiles.export.accounts import AccountsFailed
from altaprofiles.export.sync import Syncs

from ..support.postgres import Server
from ..support.sessions import session_for
from ..support.syncs import sync_part_of

pytestmark = pytest.mark.anyio

SINCE = date(2026, 1, 5)


def charged(identity: str, day: date) -> dict[str, Any]:
    """Return a person who charged at noon of a day."""
    at = int(datetime(day.year, day.month, day.day, 12, tzinfo=UTC).timestamp())
    summary = {"count": 1, "first_seen": at, "last_seen": at}
    return {"identity": identity, "events": {"Charged": summary}}


Clock = Callable[..., None]


@pytest.fixture
def set_clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Return a function that sets the clock of this process to two in the night of a day."""

    def set_to(day: date, hour: int = 2, minute: int = 0) -> None:
        at = datetime(day.year, day.month, day.day, hour, minute, tzinfo=UTC).timestamp()
        monkeypatch.setattr(time, "time", lambda: at)
        monkeypatch.setattr(time, "time_ns", lambda: int(at * 1e9))

    return set_to


@pytest.fixture
def set_service(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that sets the clock of the services likewise, or the text they send."""

    def set_to(day: date | str, hour: int = 2, minute: int = 0) -> None:
        text = day
        if isinstance(day, date):
            at = datetime(day.year, day.month, day.day, hour, minute, tzinfo=UTC)
            text = format_datetime(at, usegmt=True)
        # aiohttp dates each answer.
        monkeypatch.setattr("aiohttp.web_response.rfc822_formatted_time", lambda: text)

    return set_to


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What is gathered for a table of PostgreSQL is in the current folder.
    monkeypatch.chdir(tmp_path)


@pytest.fixture(params=["duckdb", "folder", "postgres"])
def to(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        server: Server = request.getfixturevalue("postgres")
        return server.url("people")
    return f"{tmp_path}/crm.duckdb" if request.param == "duckdb" else f"{tmp_path}/crm/"


def people(to: str, request: pytest.FixtureRequest) -> list[str]:
    if "://" in to:
        server: Server = request.getfixturevalue("postgres")
        return [one for (one,) in server.rows("SELECT identity FROM people ORDER BY 1")]
    table = "profiles"
    if to.endswith("/"):
        table = f"read_parquet('{to}*/*.parquet', hive_partitioning = true)"
    with duckdb.connect() if to.endswith("/") else duckdb.connect(to, read_only=True) as database:
        found = database.execute(f"SELECT identity FROM {table} ORDER BY 1").fetchall()
    return [one for (one,) in found]


async def night(emulator: Emulator, to: str, timezone: str = "UTC", **options: Any) -> SyncReport:
    async with session_for(emulator) as session:
        return await session.sync("Charged", since=SINCE, to=to, timezone=timezone, **options)


async def test_days_that_a_clock_has_passed_over_are_no_success(
    to: str,
    set_clock: Clock,
    request: pytest.FixtureRequest,
) -> None:
    async with Emulator(people=0) as emulator:
        emulator.add(charged("1", date(2026, 1, 5)))
        set_clock(date(2026, 1, 8))
        assert (await night(emulator, to)).through == date(2026, 1, 7)
        set_clock(date(2026, 2, 9))
        assert (await night(emulator, to)).through == date(2026, 2, 8)
        # The nights in between would bring nothing.
        set_clock(date(2026, 1, 21))
        emulator.add(charged("2", date(2026, 1, 9)))
        with pytest.raises(ExportError, match=r"days through 2026-02-08 .* not over"):
            await night(emulator, to)
        with pytest.raises(ExportError) as caught:
            await night(emulator, to)
        found = re.search(r"`late_days=(\d+)`", str(caught.value))
        assert found is not None
        report = await night(emulator, to, late_days=int(found[1]))
        assert (report.first, report.last, report.through) == (
            SINCE, date(2026, 1, 20), date(2026, 1, 20)
        )  # fmt: skip
        assert "they are brought again from 2026-01-05 on" in " ".join(report.warnings)
        assert people(to, request) == ["1", "2"]
        set_clock(date(2026, 1, 22))
        report = await night(emulator, to)
        assert report.last == date(2026, 1, 21)
        assert not [text for text in report.warnings if "not over" in text]


async def test_a_clock_that_is_an_hour_behind_brings_a_day_that_is_gone(
    set_clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    to = f"{tmp_path}/crm/"
    async with Emulator(people=0) as emulator:
        emulator.add(charged("1", date(2026, 1, 5)))
        set_clock(date(2026, 1, 8))
        await night(emulator, to)
        shutil.rmtree(f"{to}day=2026-01-05")
        at = time.time() - timedelta(hours=1).total_seconds()
        monkeypatch.setattr(time, "time", lambda: at)
        monkeypatch.setattr(time, "time_ns", lambda: int(at * 1e9))
        report = await night(emulator, to, late_days=9)
        assert not [text for text in report.warnings if "lacks" in text]
        assert Path(f"{to}day=2026-01-05").exists()


async def test_a_clock_ahead_of_the_services_brings_nothing_in_that_night(
    to: str,
    set_clock: Clock,
    set_service: Clock,
    request: pytest.FixtureRequest,
) -> None:
    """A weekly job would later pass over the days that were not over then."""
    async with Emulator(people=0) as emulator:
        emulator.add(charged("1", date(2026, 1, 5)))
        for day in (8, 17):
            # The first night with the wrong clock is that of a new table.
            set_service(date(2026, 1, day - 2))
            set_clock(date(2026, 1, day + 3))
            with pytest.raises(Incomplete) as caught:
                await night(emulator, to)
            text = str(caught.value)
            assert f"it says 2026-01-{day + 3:02} 02:00 UTC" in text
            assert f"that of the service 2026-01-{day - 2:02} 02:00 UTC" in text
            assert "nothing of it has been kept" in text
            set_service(date(2026, 1, day))
            set_clock(date(2026, 1, day))
            report = await night(emulator, to)
            assert (report.through, report.complete) == (date(2026, 1, day - 1), True)
            assert report.warnings == []
            assert report.finished == 0
            # One who was not there yet in the second wrong night.
            emulator.add(charged("2", date(2026, 1, 16)))
        assert people(to, request) == ["1", "2"]


@pytest.mark.parametrize(
    ("service", "machine"),
    [
        pytest.param((date(2026, 1, 9), 23, 40), (date(2026, 1, 10), 0, 10), id="not over"),
        pytest.param((date(2026, 1, 10), 4), (date(2026, 1, 10), 6), id="far"),
    ],
)
async def test_a_clock_that_is_ahead_by_less_than_a_day_is_refused_where_it_matters(
    tmp_path: Path,
    set_clock: Clock,
    set_service: Clock,
    service: tuple[Any, ...],
    machine: tuple[Any, ...],
) -> None:
    to = f"{tmp_path}/crm.duckdb"
    set_service(*service)
    set_clock(*machine)
    async with Emulator(people=0) as emulator:
        emulator.add(charged("1", date(2026, 1, 5)))
        with pytest.raises(Incomplete, match="clock of this machine is ahead"):
            await night(emulator, to)
    assert not Path(to).exists()


@pytest.mark.parametrize(
    "service",
    [
        pytest.param((date(2026, 1, 9), 23, 58), id="usual"),
        pytest.param((date(2026, 1, 12),), id="this clock is behind"),
        pytest.param(("",), id="empty"),
        pytest.param(("yesterday",), id="garbled"),
        pytest.param(("Fri, 31 Feb 2026 02:00:00 GMT",), id="no such day"),
    ],
)
async def test_other_times_of_the_service_decide_nothing(
    tmp_path: Path, set_clock: Clock, set_service: Clock, service: tuple[Any, ...]
) -> None:
    to = f"{tmp_path}/crm.duckdb"
    set_service(*service)
    set_clock(date(2026, 1, 10), 0, 1)
    async with Emulator(people=0) as emulator:
        emulator.add(charged("1", date(2026, 1, 5)))
        report = await night(emulator, to)
    assert (report.through, report.warnings) == (date(2026, 1, 9), [])


async def test_days_end_in_the_time_zone_of_the_project(
    tmp_path: Path, set_clock: Clock, set_service: Clock
) -> None:
    """At two in the night in UTC it is the evening before in Los Angeles."""
    to = f"{tmp_path}/crm.duckdb"
    set_service(date(2026, 1, 10), 7, 40)
    set_clock(date(2026, 1, 10), 8, 10)
    async with Emulator(people=0) as emulator:
        emulator.add(charged("1", date(2026, 1, 5)))
        with pytest.raises(Incomplete, match="clock of this machine is ahead"):
            await night(emulator, to, "America/Los_Angeles")
        report = await night(emulator, to, "UTC")
    assert report.through == date(2026, 1, 9)


@pytest.mark.parametrize("zone", ["UTC", "America/Los_Angeles", "Asia/Kolkata"])
async def test_a_day_that_was_brought_half_over_is_no_success(
    to: str,
    zone: str,
    set_clock: Clock,
    set_service: Clock,
    request: pytest.FixtureRequest,
) -> None:
    """A clock was ahead by a little more than a day, of which the service said nothing."""
    set_service("")
    async with Emulator(people=0) as emulator:
        emulator.add(charged("1", date(2026, 1, 5)))
        set_clock(date(2026, 1, 10), 14)
        assert (await night(emulator, to, zone, late_days=0)).through == date(2026, 1, 9)
        emulator.add(charged("2", date(2026, 1, 9)))
        # The day is over by the second one, and was not when it was brought.
        texts = []
        for day, hour in ((9, 10), (10, 12)):
            set_clock(date(2026, 1, day), hour)
            with pytest.raises(ExportError, match=r"through 2026-01-09 .* one was ahead") as caught:
                await night(emulator, to, zone, late_days=0)
            texts.append(str(caught.value))
        assert "do so before 2026-01-10 13:00 UTC" in texts[0]
        found = re.search(r"`late_days=(\d+)`", texts[1])
        assert found is not None
        report = await night(emulator, to, zone, late_days=int(found[1]))
        assert (report.first, report.through) == (SINCE, date(2026, 1, 9))
        assert people(to, request) == ["1", "2"]
        assert (await night(emulator, to, zone, late_days=0)).warnings == []


def interrupt(progress: ExportProgress) -> None:
    if progress.records:
        raise InterruptedError


async def test_work_that_a_clock_ahead_has_begun_is_begun_anew(
    to: str,
    set_clock: Clock,
    set_service: Clock,
    request: pytest.FixtureRequest,
) -> None:
    """It asked for days that were not over, and has believed that nobody was there."""
    set_service("")
    async with Emulator(people=0) as emulator:
        emulator.add(charged("1", date(2026, 1, 5)))
        set_clock(date(2026, 1, 10), 14)
        with pytest.raises(InterruptedError):
            await night(emulator, to, on_progress=interrupt)
        emulator.add(charged("9", date(2026, 1, 9)))
        set_clock(date(2026, 1, 10), 12)
        [one] = unfinished_in(to)
        async with session_for(emulator) as session:
            with pytest.raises(ConfigurationError, match="begun by a clock that was ahead, or"):
                await session.finish_unfinished(one, to=to)
        report = await night(emulator, to)
        assert (report.finished, report.through) == (0, date(2026, 1, 9))
        [warning] = report.warnings
        assert "was begun at 2026-01-10 14:00 UTC, which is to come" in warning
        assert people(to, request) == ["1", "9"]


async def test_a_clock_that_is_behind_by_minutes_changes_nothing(
    to: str,
    set_clock: Clock,
    set_service: Clock,
    request: pytest.FixtureRequest,
) -> None:
    set_service("")
    async with Emulator(people=0) as emulator:
        emulator.add(charged("1", date(2026, 1, 5)))
        set_clock(date(2026, 1, 10), 14, 50)
        with pytest.raises(InterruptedError):
            await night(emulator, to, on_progress=interrupt)
        set_clock(date(2026, 1, 10), 14)
        report = await night(emulator, to)
        assert report.warnings == []
        assert report.finished == 1
        # Neither does one that was ahead by as much when they were brought.
        set_clock(date(2026, 1, 10), 14, 5)
        report = await night(emulator, to, late_days=0)
        assert (report.complete, report.first, report.warnings) == (True, None, [])
        assert people(to, request) == ["1"]


async def test_each_of_several_accounts_notices_that_the_clock_is_ahead(
    to: str,
    set_clock: Clock,
    set_service: Clock,
    request: pytest.FixtureRequest,
) -> None:
    shop, outlet = Emulator(people=0, seed=1), Emulator(people=0, seed=2)

    async def both() -> SyncReport:
        async with session_for(shop) as first, session_for(outlet) as second:
            parts = [
                sync_part_of(session, "Charged", name, to, since=SINCE, late_days=2)
                for name, session in (("shop", first), ("outlet", second))
            ]
            return await Syncs(parts, lambda _: None).run()

    async with shop, outlet:
        shop.add(charged("1", date(2026, 1, 5)))
        outlet.add(charged("2", date(2026, 1, 5)))
        set_service(date(2026, 1, 7))
        set_clock(date(2026, 1, 12))
        with pytest.raises(AccountsFailed) as caught:
            await both()
        errors = caught.value.errors
        assert {*errors} == {"shop", "outlet"}
        for error in errors.values():
            assert isinstance(error, Incomplete)
            assert "clock of this machine is ahead" in str(error)
        set_service(date(2026, 1, 8))
        set_clock(date(2026, 1, 8))
        assert (await both()).through == date(2026, 1, 7)
        assert people(to, request) == ["1", "2"]


async def begin(emulator: Emulator, to: str, set_clock: Clock, set_service: Clock) -> None:
    """Interrupt a night, by two clocks that are right."""
    emulator.add(charged("1", date(2026, 1, 5)))
    set_service(date(2026, 1, 10))
    set_clock(date(2026, 1, 10))
    with pytest.raises(InterruptedError):
        await night(emulator, to, on_progress=interrupt)


async def test_a_clock_that_is_behind_finishes_what_the_services_clock_has_confirmed(
    to: str,
    set_clock: Clock,
    set_service: Clock,
    request: pytest.FixtureRequest,
) -> None:
    async with Emulator(people=0) as emulator:
        await begin(emulator, to, set_clock, set_service)
        # By this clock the last day is not over.
        set_clock(date(2026, 1, 9), 22)
        report = await night(emulator, to)
        assert (report.complete, report.finished, report.through) == (True, 1, date(2026, 1, 9))
        assert "the clock of this machine is behind; set it" in " ".join(report.warnings)
        assert "discarded" not in " ".join(report.warnings)
        assert people(to, request) == ["1"]
        # Of the table alone it does not know which clock was wrong.
        report = await night(emulator, to)
        assert "this machine is behind, or one was ahead" in " ".join(report.warnings)
        emulator.add(charged("2", date(2026, 1, 10)))
        set_service(date(2026, 1, 11))
        set_clock(date(2026, 1, 11))
        report = await night(emulator, to)
        assert (report.warnings, report.through) == ([], date(2026, 1, 10))
        assert people(to, request) == ["1", "2"]


async def test_status_finishes_what_the_services_clock_has_confirmed(
    tmp_path: Path, set_clock: Clock, set_service: Clock
) -> None:
    to = f"{tmp_path}/crm.duckdb"
    async with Emulator(people=0) as emulator:
        await begin(emulator, to, set_clock, set_service)
        set_clock(date(2026, 1, 9), 22)
        [one] = unfinished_in(to)
        async with session_for(emulator) as session:
            report = await session.finish_unfinished(one, to=to)
        assert report.complete


WEST = "America/Los_Angeles"


async def test_a_day_that_was_over_in_another_time_zone_only_is_brought_again(
    to: str,
    set_clock: Clock,
    request: pytest.FixtureRequest,
) -> None:
    """The project is in the west, of which the first nights did not know."""
    async with Emulator(people=0) as emulator:
        emulator.add(charged("1", date(2026, 1, 5)))
        set_clock(date(2026, 1, 10))
        assert (await night(emulator, to, late_days=0)).through == date(2026, 1, 9)
        # In the last hours of that day there.
        emulator.add(charged("2", date(2026, 1, 9)))
        set_clock(date(2026, 1, 10), 4)
        report = await night(emulator, to, WEST, late_days=0)
        assert (report.first, report.through) == (None, date(2026, 1, 9))
        set_clock(date(2026, 1, 11), 12)
        report = await night(emulator, to, WEST, late_days=0)
        assert (report.first, report.last) == (date(2026, 1, 9), date(2026, 1, 10))
        assert people(to, request) == ["1", "2"]
        set_clock(date(2026, 1, 12), 12)
        report = await night(emulator, to, WEST, late_days=0)
        assert (report.first, report.last) == (date(2026, 1, 11), date(2026, 1, 11))


async def test_work_of_another_time_zone_whose_days_are_not_over_is_no_sound_work(
    to: str,
    set_clock: Clock,
    set_service: Clock,
    request: pytest.FixtureRequest,
) -> None:
    async with Emulator(people=0) as emulator:
        await begin(emulator, to, set_clock, set_service)
        emulator.add(charged("2", date(2026, 1, 9)))
        set_service(date(2026, 1, 10), 4)
        set_clock(date(2026, 1, 10), 4)
        report = await night(emulator, to, WEST)
        assert (report.finished, report.through) == (0, date(2026, 1, 8))
        assert "behind" not in " ".join(report.warnings)
        set_service(date(2026, 1, 10), 12)
        set_clock(date(2026, 1, 10), 12)
        assert (await night(emulator, to, WEST, late_days=0)).through == date(2026, 1, 9)
        assert people(to, request) == ["1", "2"]


async def test_another_time_zone_than_before_is_told_once_with_what_to_do(
    to: str, set_clock: Clock
) -> None:
    async with Emulator(people=0) as emulator:
        emulator.add(charged("1", date(2026, 1, 14)))
        set_clock(date(2026, 1, 15), 12)
        await night(emulator, to)
        set_clock(date(2026, 1, 16), 12)
        report = await night(emulator, to, WEST)
        [warning] = report.warnings
        assert "`timezone` was 'UTC' when the days through 2026-01-14 of " in warning
        assert "is now 'America/Los_Angeles': those from 2026-01-05 on" in warning
        assert ("of the day beside" in warning) is to.endswith("/")
        found = re.search(r"`late_days=(\d+)`", warning)
        assert found is not None
        report = await night(emulator, to, WEST, late_days=int(found[1]))
        assert (report.first, report.last) == (SINCE, date(2026, 1, 15))
        assert report.warnings == []


@pytest.mark.parametrize(
    ("zones", "late_days", "is_told"),
    [
        pytest.param(("UTC", "Etc/UTC"), 2, (False, False), id="the same hours"),
        pytest.param(("Asia/Calcutta", "Asia/Kolkata"), 2, (False, False), id="two names"),
        pytest.param(("UTC", "Europe/London"), 2, (False, False), id="alike in winter"),
        pytest.param(("UTC", WEST), 99, (False, False), id="all days come again"),
        pytest.param(("UTC", "Asia/Kolkata"), 2, (False, True), id="days that end earlier"),
        pytest.param(("Asia/Kolkata", "UTC"), 2, (True, True), id="days that end later"),
    ],
)
async def test_time_zones_are_compared_by_the_hours_of_the_days(
    tmp_path: Path,
    set_clock: Clock,
    zones: tuple[str, str],
    late_days: int,
    is_told: tuple[bool, bool],
) -> None:
    before, now = zones
    async with Emulator(people=0) as emulator:
        emulator.add(charged("1", date(2026, 1, 5)))
        told = []
        for to in (f"{tmp_path}/crm.duckdb", f"{tmp_path}/crm/"):
            set_clock(date(2026, 1, 15), 12)
            await night(emulator, to, before)
            set_clock(date(2026, 1, 16), 12)
            report = await night(emulator, to, now, late_days=late_days)
            told.append("`timezone` was" in " ".join(report.warnings))
    assert tuple(told) == is_told


async def test_a_state_without_a_time_zone_is_of_an_earlier_version(
    tmp_path: Path, set_clock: Clock
) -> None:
    to = f"{tmp_path}/crm.duckdb"
    async with Emulator(people=0) as emulator:
        emulator.add(charged("1", date(2026, 1, 14)))
        set_clock(date(2026, 1, 15), 12)
        await night(emulator, to)
        with duckdb.connect(to) as database:
            database.execute(
                "UPDATE altaprofiles_sync"
                """ SET settings = replace(settings, ',"timezone":"UTC"', '')"""
            )
            [(settings,)] = database.execute("FROM altaprofiles_sync SELECT settings").fetchall()
        assert "timezone" not in settings
        set_clock(date(2026, 1, 16), 12)
        report = await night(emulator, to, WEST)
        assert (report.warnings, report.through) == ([], date(2026, 1, 15))
