"""Syncs on a machine whose clock was ahead for a night."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from altaprofiles import ExportError, SyncReport
from altaprofiles.emulator import Emulator

from ..support.postgres import Server
from ..support.sessions import session_for

pytestmark = pytest.mark.anyio

SINCE = date(2026, 1, 5)


def charged(identity: str, day: date) -> dict[str, Any]:
    """Return a person who charged at noon of a day."""
    at = int(datetime(day.year, day.month, day.day, 12, tzinfo=UTC).timestamp())
    summary = {"count": 1, "first_seen": at, "last_seen": at}
    return {"identity": identity, "events": {"Charged": summary}}


@pytest.fixture
def set_clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[date], None]:
    """Return a function that sets the clock of this process to two in the night of a day."""

    def set_to(day: date) -> None:
        at = datetime(day.year, day.month, day.day, 2, tzinfo=UTC).timestamp()
        monkeypatch.setattr(time, "time", lambda: at)
        monkeypatch.setattr(time, "time_ns", lambda: int(at * 1e9))

    return set_to


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


async def night(emulator: Emulator, to: str, **options: Any) -> SyncReport:
    async with session_for(emulator) as session:
        return await session.sync("Charged", since=SINCE, to=to, timezone="UTC", **options)


async def test_days_that_a_clock_has_passed_over_are_no_success(
    to: str,
    set_clock: Callable[[date], None],
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
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
    set_clock: Callable[[date], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
