"""The recipes of the guide on several accounts change the rows of the account that they name."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import date
from pathlib import Path
from types import ModuleType
from typing import Any

import anyio
import duckdb
import pandas as pd  # type: ignore[import-untyped]
import pytest

from altaprofiles import InvalidArgument, Retry, Session, SyncReport
from altaprofiles.emulator import Emulator

from ..support.guides import GUIDES, block_of
from ..support.odd_people import NAMELESS, with_odd_people
from ..support.postgres import Server, clients
from ..support.tasks import PATIENCE

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


@pytest.mark.parametrize("nameless", NAMELESS)
async def test_nobody_without_an_identity_is_in_two_accounts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nameless: dict[str, Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    people = [{"identity": "ann"}, {"objectId": "phone"}, {"objectId": "tablet"}]
    async with with_odd_people([nameless | one for one in people]) as session:
        await session.export("Charged", start=20260101, end=20260131, to="crm.duckdb")
        await session.export("Charged", start=20260101, end=20260131, to="shop.parquet")
    with duckdb.connect("crm.duckdb") as connection:
        # Another account has the same people.
        connection.execute("INSERT INTO profiles SELECT * REPLACE ('ZZ' AS account) FROM profiles")
        query = block_of(GUIDE, "HAVING count(DISTINCT account) > 1", "sql")
        assert connection.execute(query).fetchall() == [("ann",)]
    (line,) = re.findall(r"`(shop.*merge\(outlet.*\))`", (GUIDES / GUIDE).read_text("utf-8"))
    for backend in ({}, {"dtype_backend": "numpy_nullable"}):
        shop = pd.read_parquet("shop.parquet", **backend)
        frame = eval(line, {"shop": shop, "outlet": shop})  # noqa: S307
        assert frame.identity.tolist() == ["ann"]


ANN = {"email": "ann@example.com", "all_identities": ["ann", "ann-2"], "identity": "ann"}
BOTH = {"ann": ["a1"], "ann-2": ["a2"]}
WITHIN = 2 * PATIENCE


@pytest.fixture
def recipe() -> ModuleType:
    module = ModuleType("subject_access")
    # A dataclass looks for its module.
    sys.modules[module.__name__] = module
    exec(block_of(GUIDE, "# subject_access.py"), module.__dict__)  # noqa: S102
    return module


class Accounts:
    """Two accounts, of which the first one knows Ann, and a session of each."""

    def __init__(self, emulators: list[Emulator], sessions: list[Session]) -> None:
        self.shop, self.outlet = emulators
        self.sessions = dict(zip(("shop", "outlet"), sessions, strict=True))


@pytest.fixture
async def accounts() -> AsyncIterator[Accounts]:
    async with AsyncExitStack() as stack:
        emulators = [
            Emulator(records=[ANN], bindings=BOTH),
            Emulator(records=[{"identity": "bo"}], seed=2),
        ]
        sessions = []
        for emulator in emulators:
            await stack.enter_async_context(emulator)
            session = Session(
                clevertap=emulator.clevertap, alta=emulator.alta, retry=Retry(attempts=1)
            )
            sessions.append(await stack.enter_async_context(session))
        yield Accounts(emulators, sessions)


async def test_one_person_is_found_under_all_identities(
    recipe: ModuleType, accounts: Accounts
) -> None:
    state, held = await recipe.everything(accounts.sessions, "ann@example.com", WITHIN)
    assert state == "complete"
    assert held["shop"].person.identity == "ann"
    assert held["shop"].users.keys() == {"ann", "ann-2"}
    assert (held["outlet"].person, held["outlet"].users) == (None, {})
    state, held = await recipe.everything(accounts.sessions, "nobody@example.com", WITHIN)
    assert (state, held["shop"].person) == ("complete", None)
    with pytest.raises(InvalidArgument):
        await recipe.everything(accounts.sessions, " ", WITHIN)


async def test_what_a_service_that_is_down_leaves_open_is_named(
    recipe: ModuleType, accounts: Accounts
) -> None:
    async def state_of(email: str) -> tuple[str, Any]:
        found: tuple[str, Any] = await recipe.everything(accounts.sessions, email, WITHIN)
        return found

    # Alta of one account, which leaves the person.
    token, accounts.shop.token = accounts.shop.token, "another"
    state, held = await state_of("ann@example.com")
    assert (state, held["shop"].person.identity) == ("partial", "ann")
    assert held["shop"].missing.keys() == {"Alta"}
    accounts.shop.token = token
    # CleverTap of one account: nobody in the other one is no answer.
    accounts.shop.faults = {"server_error": 1}
    state, held = await state_of("ann@example.com")
    assert (state, held["outlet"].missing) == ("partial", {})
    assert held["shop"].missing.keys() == {"CleverTap", "Alta"}
    accounts.outlet.faults = {"server_error": 1}
    state, held = await state_of("ann@example.com")
    assert (state, held["shop"].person) == ("unknown", None)


async def test_one_deadline_is_for_all_calls(recipe: ModuleType, accounts: Accounts) -> None:
    accounts.shop.think = accounts.outlet.think = WITHIN
    state, held = await recipe.everything(accounts.sessions, "ann@example.com", 0.2)
    assert state == "unknown"
    assert held["shop"].missing["CleverTap"] == "TimeoutError"


async def test_a_job_goes_on_on_another_machine_and_on_another_server(
    postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Emulator(people=30) as emulator, Session(clevertap=emulator.clevertap) as session:
        for machine, until, first in (
            ("old", 20260110, date(2026, 1, 1)),
            ("new", 20260111, date(2026, 1, 9)),
        ):
            folder = tmp_path / machine
            folder.mkdir()
            monkeypatch.chdir(folder)
            night = NIGHT | {"until": until}
            report = await session.sync("Charged", to=postgres.url("buyers"), **night)
            assert report.first == first
        # What other recipes keep in the schema.
        forgotten = [(emulator.clevertap.account_id, "5555555555")]
        postgres.run(
            block_of("every-night.md", "INSERT INTO forgotten", "sql")
            .replace("profiles", "buyers")
            .replace("TEST-123-456-789Z", emulator.clevertap.account_id),
            "DELETE FROM forgotten WHERE id <> '5555555555'",
            "CREATE VIEW people AS SELECT account, person FROM buyers",
        )
        names = re.search("`pg_dump ([^`]*)`", (GUIDES / GUIDE).read_text("utf-8"))
        assert names is not None
        programs = clients()
        dump = [str(programs / "pg_dump"), *shlex.split(names[1]), postgres.url()]
        content = (await anyio.run_process(dump)).stdout
        before = postgres.rows("SELECT * FROM buyers ORDER BY person")
        postgres.run("DROP VIEW people", "DROP TABLE buyers, altaprofiles_sync, forgotten")
        restore = [str(programs / "psql"), "-q", "-v", "ON_ERROR_STOP=1", postgres.url()]
        await anyio.run_process(restore, input=content)
        assert postgres.rows("SELECT * FROM buyers ORDER BY person") == before
        assert postgres.rows("SELECT * FROM forgotten") == forgotten
        assert len(postgres.rows("SELECT * FROM people")) == len(before)
        report = await session.sync(
            "Charged", to=postgres.url("buyers"), **NIGHT | {"until": 20260112}
        )
        assert report.first == date(2026, 1, 10)
