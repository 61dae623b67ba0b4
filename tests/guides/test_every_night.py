"""The questions of the guide, of the last 30 days, count people whom the test knows."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import polars
import pytest

from altaprofiles import Session
from altaprofiles.emulator import Emulator

from ..support.guides import GUIDES, block_of
from ..support.postgres import Server

pytestmark = pytest.mark.anyio

GUIDE = "every-night.md"


NOON = datetime.now(UTC).replace(hour=12)


def days_ago(days: int) -> datetime:
    return NOON - timedelta(days=days)


def did(identity: str, first: int, last: int) -> dict[str, Any]:
    """Return someone who was charged so many days ago for the first and for the last time."""
    seen = {"first_seen": days_ago(first), "last_seen": days_ago(last)}
    times = {name: int(time.timestamp()) for name, time in seen.items()}
    return {"identity": identity, "events": {"Charged": {"count": 2, **times}}}


PEOPLE = [did("ann", 50, 5), did("bob", 8, 5), did("cat", 50, 45)]
LAST = days_ago(5).date()
NIGHT: dict[str, Any] = {
    "since": days_ago(60).date(),
    "until": days_ago(2).date(),
    "timezone": "UTC",
}


async def sync(to: str) -> None:
    async with (
        Emulator(records=PEOPLE) as emulator,
        Session(clevertap=emulator.clevertap) as session,
    ):
        await session.sync("Charged", to=to, **NIGHT)


def in_duckdb(query: str, database: str = ":memory:") -> list[tuple[Any, ...]]:
    with duckdb.connect(database) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        return connection.execute(query).fetchall()


async def test_a_folder_is_read_by_its_days(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    await sync("crm/")
    number, rows = block_of(GUIDE, "QUALIFY", "sql").split(";")[:2]
    assert in_duckdb(number) == [(2,)]
    latest = in_duckdb(f"SELECT identity, day FROM ({re.sub('--.*', '', rows)})")
    assert sorted(latest) == [("ann", LAST), ("bob", LAST)]


async def test_polars_tells_the_days_of_a_folder_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    await sync("crm/")
    (call,) = re.findall(r"`(scan_parquet\(.*?\))`", (GUIDES / GUIDE).read_text())
    days = eval(f"pl.{call}", {"pl": polars}).select("day").unique().collect()  # noqa: S307
    assert LAST in days["day"]


async def test_a_table_is_read_by_the_last_time_of_an_event(
    postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    await sync("crm.duckdb")
    await sync(postgres.url("profiles"))
    query = block_of(GUIDE, "charged in the last 30 days", "sql")
    assert in_duckdb(query, "crm.duckdb") == postgres.rows(query) == [(2,)]
