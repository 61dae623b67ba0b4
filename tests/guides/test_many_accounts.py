"""The recipes of the guide on several accounts change the rows of the account that they name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pytest

from altaprofiles import Session, SyncReport
from altaprofiles.emulator import Emulator

from ..support.guides import block_of
from ..support.postgres import Server

pytestmark = pytest.mark.anyio

GUIDE = "many-accounts.md"
NIGHT: dict[str, Any] = {"since": 20260101, "until": 20260105, "timezone": "UTC"}
ACCOUNTS = "SELECT DISTINCT account FROM profiles"


async def sync(emulator: Emulator, to: str) -> SyncReport:
    async with Session(clevertap=emulator.clevertap) as session:
        return await session.sync("Charged", to=to, **NIGHT)


async def test_an_account_that_came_by_mistake_is_removed(
    postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with Emulator(people=30, seed=2) as shop, Emulator(people=30, seed=8) as outlet:
        tables = ["crm.duckdb", postgres.url("profiles")]
        for table in tables:
            for emulator in (shop, outlet):
                await sync(emulator, table)
        removal = block_of(GUIDE, "DELETE", "sql")
        removal = removal.replace("W9R-654-865Z", str(outlet.clevertap.account_id))
        with duckdb.connect("crm.duckdb") as connection:
            connection.execute(removal)
            left = connection.execute(ACCOUNTS).fetchall()
        postgres.run(removal)
        assert left == postgres.rows(ACCOUNTS) == [(shop.clevertap.account_id,)]
        for table in tables:
            # The other account goes on, and the one that was removed may come again.
            assert (await sync(shop, table)).warnings == []
            report = await sync(outlet, table)
            assert (report.warnings, report.people > 0) == ([], True)
