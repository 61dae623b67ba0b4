"""The questions of the guide, of the last 30 days, count people whom the test knows."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import runpy
from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import duckdb
import polars
import pytest

from altaprofiles import Alta, ExportProgress, Session, SyncReport
from altaprofiles.emulator import Emulator

from ..support.guides import GUIDES, block_of, function_of
from ..support.odd_people import NAMELESS, ODD_PEOPLE, with_odd_people
from ..support.postgres import Server, clients

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
WEEK = timedelta(days=6)
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


class Database(NamedTuple):
    """A table that nights keep, in a file of the current folder or on a server."""

    to: str = "crm.duckdb"
    server: Server | None = None

    def run(self, text: str) -> None:
        if self.server is None:
            in_duckdb(text, self.to)
        else:
            self.server.run(text)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        return in_duckdb(query, self.to) if self.server is None else self.server.rows(query)


IN_FILE = Database()


@pytest.fixture(params=["duckdb", "postgres"])
def crm(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Database:
    monkeypatch.chdir(tmp_path)
    if request.param == "duckdb":
        return IN_FILE
    server: Server = request.getfixturevalue("postgres")
    return Database(server.url("profiles"), server)


def forgetting(name: str, account: str, *, has_feed: bool = False) -> tuple[str, str]:
    """Return the guide's SQL that lists a person to forget, and that deletes who is listed."""
    listing = block_of(GUIDE, "INSERT INTO forgotten", "sql")
    script = block_of(GUIDE, "INTERVAL '90 days'", "sql")
    [line] = [line for line in script.splitlines() if line.startswith("CREATE TEMP")]
    if has_feed:
        of_feed = block_of(GUIDE, "DELETE FROM seen USING gone", "sql")
        script = script.replace("DROP TABLE gone;", f"{of_feed}DROP TABLE gone;")
    return (
        listing.replace("5555555555", name).replace("TEST-123-456-789Z", account),
        script.replace(f"{line}\n", block_of(GUIDE, "&& ARRAY", "sql")),
    )


def look(crm: Database = IN_FILE, *, is_killed: bool = False) -> list[str | None]:
    """Return who is new or changed, and take note of it.

    Args:
        crm: the table.
        is_killed: whether a first look ends before it has taken note.
    """
    script = block_of(GUIDE, "CREATE TABLE IF NOT EXISTS changed", "sql")
    begin, end = script.split("-- once")
    query = "SELECT identity FROM changed ORDER BY 1"
    found: list[tuple[Any, ...]] = []
    for _ in range(1 + is_killed):
        crm.run(begin)
        found = crm.rows(query)
    # The rest of that line is a comment.
    crm.run(end.partition("\n")[2])
    return [name for (name,) in found]


def halt(progress: ExportProgress) -> None:
    if progress.records:
        raise InterruptedError


async def test_what_a_resumed_night_has_brought_is_new(crm: Database) -> None:
    """Its rows are older than those that the last look has seen."""
    export: dict[str, Any] = {"start": days_ago(60).date(), "end": days_ago(2).date(), "to": crm.to}
    async with (
        Emulator(records=PEOPLE) as emulator,
        Session(clevertap=emulator.clevertap) as session,
    ):
        with pytest.raises(InterruptedError):
            await session.export("Charged", **export, on_progress=halt)
        await session.export("Charged", **(export | {"start": days_ago(6).date()}))
        assert look(crm) == ["ann", "bob"]
        assert look(crm) == []
        await session.export("Charged", **export)
        assert look(crm) == ["cat"]
        assert look(crm) == []


async def test_a_night_that_adds_to_newer_rows_has_changed_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row does not become newer by what is added to its `matched`."""
    monkeypatch.chdir(tmp_path)
    ann = PEOPLE[0]
    both = ann["events"] | {"Viewed": ann["events"]["Charged"]}
    people = [ann | {"events": both}, *PEOPLE[1:]]
    async with (
        Emulator(records=people) as emulator,
        Session(clevertap=emulator.clevertap) as session,
    ):
        with pytest.raises(InterruptedError):
            await session.sync("Charged", to="crm.duckdb", on_progress=halt, **NIGHT)
        days = {"start": NIGHT["since"], "end": NIGHT["until"]}
        await session.export("Viewed", to="crm.duckdb", write="upsert", **days)
        assert look(is_killed=True) == ["ann"]
        await session.sync("Charged", to="crm.duckdb", **NIGHT)
        assert look(is_killed=True) == ["ann", "bob", "cat"]
        assert look(is_killed=True) == []


async def test_a_folder_is_read_by_its_days(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    await sync("crm/")
    number, rows = block_of(GUIDE, "QUALIFY", "sql").split(";")[:2]
    assert in_duckdb(number) == [(2,)]
    latest = in_duckdb(f"SELECT identity, day FROM ({re.sub('--.*', '', rows)})")
    assert sorted(latest) == [("ann", LAST), ("bob", LAST)]


async def test_days_of_json_lines_become_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("days").mkdir()
    query = block_of(GUIDE, "read_text('days/*.ndjson')", "sql")
    days = [date(2026, 1, day) for day in range(1, 5)]
    lines = {}
    async with Emulator(people=60) as emulator, Session(clevertap=emulator.clevertap) as session:
        for day in days:
            to = Path(f"days/{day}.ndjson")
            await session.export("App Launched", start=day, end=day, to=to)
            lines[day] = to.read_bytes().count(b"\n")
        await session.sync(
            "App Launched", since=days[0], until=days[-1], timezone="UTC", to="lake/"
        )
        assert in_duckdb(query) == []
        # Somebody is missing on one day, and nobody came on another one, as the file has it.
        more = Path(f"days/{days[1]}.ndjson")
        more.write_text(more.read_text("utf-8") + '{"name": "a\u2028b\\ud800"}\n', "utf-8")
        Path(f"days/{days[2]}.ndjson").write_text("")
        Path("days/2026-01-31.ndjson").write_text("{}\n")
    people = lines[days[1]]
    expected = [(days[1], people + 1, people), (date(2026, 1, 31), 1, 0)]
    assert in_duckdb(query) == expected


async def test_polars_tells_the_days_of_a_folder_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    await sync("crm/")
    (call,) = re.findall(r"`(scan_parquet\(.*?\))`", (GUIDES / GUIDE).read_text())
    days = eval(f"pl.{call}", {"pl": polars}).select("day").unique().collect()  # noqa: S307
    assert LAST in days["day"]


async def test_weeks_and_days_of_a_folder_are_those_of_the_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monday, sunday = date(2026, 1, 5), date(2026, 1, 18)
    weeks: list[set[str]] = []
    async with Emulator(people=80) as emulator, Session(clevertap=emulator.clevertap) as session:
        for first in (monday, monday + timedelta(days=7)):
            buyers = session.profiles.by_event("Charged", start=first, end=first + WEEK)
            pages = [page.to_arrow(person=True) async for page in buyers.pages()]
            weeks.append({key for page in pages for key in page["person"].to_pylist()})
        events = ["Charged", "App Launched"]
        await session.sync(events, since=monday, until=sunday, timezone="UTC", to="crm/")
        on_monday = await session.profiles.count("Charged", start=monday, end=monday)
    again = len(weeks[0] & weeks[1])
    assert in_duckdb(block_of(GUIDE, "AS again", "sql")) == [
        (monday, len(weeks[0]), again),
        (monday + timedelta(days=7), len(weeks[1]), 0),
    ]
    days = in_duckdb(block_of(GUIDE, "SELECT account, day, count", "sql"))
    assert {day: people for _, day, people in days}[monday] == on_monday


@pytest.mark.parametrize("faults", [{}, {"odd_record": 0.3}])
async def test_weeks_are_counted_by_property_and_by_platform(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, faults: dict[str, float]
) -> None:
    monkeypatch.chdir(tmp_path)
    monday, sunday = date(2026, 1, 5), date(2026, 1, 18)
    by_property: defaultdict[tuple[Any, ...], set[str]] = defaultdict(set)
    by_platform: defaultdict[tuple[Any, ...], set[str]] = defaultdict(set)
    async with (
        Emulator(people=80, faults=faults) as emulator,
        Session(clevertap=emulator.clevertap) as session,
    ):
        for first in (monday, monday + timedelta(days=7)):
            buyers = session.profiles.by_event("Charged", start=first, end=first + WEEK)
            async for page in buyers.pages():
                rows = page.to_arrow(person=True).select(
                    ["person", "profile_data", "platform_info"]
                )
                for row in rows.to_pylist():
                    properties = json.loads(row["profile_data"] or "null")
                    value = (
                        properties.get("Customer Type") if isinstance(properties, dict) else None
                    )
                    by_property[first, value].add(row["person"])
                    devices = json.loads(row["platform_info"] or "null")
                    for one in devices if isinstance(devices, list) else []:
                        if isinstance(one, dict):
                            by_platform[first, one["platform"]].add(row["person"])
        nights: dict[str, Any] = {"since": monday, "until": sunday, "timezone": "UTC"}
        nights["flatten"] = {"Customer Type": "text"}
        await session.sync(["Charged", "App Launched"], to="crm/", **nights)
    queries = block_of(GUIDE, "people by week and platform", "sql").split(";\n\n")
    for query, expected in zip(queries, (by_property, by_platform), strict=True):
        counts = {(week, value): people for week, value, people in in_duckdb(query)}
        assert counts == {key: len(people) for key, people in expected.items()}
        assert len(counts) > 4


async def test_a_table_is_read_by_the_last_time_of_an_event(
    postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    await sync("crm.duckdb")
    await sync(postgres.url("profiles"))
    query = block_of(GUIDE, "charged in the last 30 days", "sql")
    assert in_duckdb(query, "crm.duckdb") == postgres.rows(query) == [(2,)]


async def test_odd_records_do_not_stop_the_question_of_the_last_days(
    postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with with_odd_people() as session:
        for to in ("crm.duckdb", postgres.url("profiles")):
            await session.export("Charged", start=20260101, end=20260131, to=to)
    query = block_of(GUIDE, "charged in the last 30 days", "sql")
    query = re.sub(r"- 30\b", "- 30000", query)
    with_a_time = [
        one["identity"]
        for one in ODD_PEOPLE
        if re.search(r"'Charged': {.*'last_seen': \d{1,10}\D", str(one.get("events")))
    ]
    assert len(with_a_time) == 2
    assert in_duckdb(query, "crm.duckdb") == postgres.rows(query) == [(len(with_a_time),)]


async def test_an_alarm_names_the_accounts_without_a_success(
    postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    await sync("crm.duckdb")
    await sync(postgres.url("profiles"))
    query = block_of(GUIDE, "INTERVAL '26 hours'", "sql")
    assert in_duckdb(query, "crm.duckdb") == postgres.rows(query) == []
    late = """
        INSERT INTO altaprofiles_sync (table_name, account, settings, through, synced_at)
        SELECT 'profiles', account || ' late', settings, through, synced_at - INTERVAL '27 hours'
        FROM altaprofiles_sync
    """
    in_duckdb(late, "crm.duckdb")
    postgres.run(late)
    for rows in (in_duckdb(query, "crm.duckdb"), postgres.rows(query)):
        [[account, _, through]] = rows
        assert account.endswith(" late")
        assert through == NIGHT["until"]
    # In a schema of its own, with the words of the guide.
    postgres.run("CREATE SCHEMA food")
    try:
        await sync(postgres.url("food.buyers"))
        (words,) = re.findall(
            r"`(FROM \S+ WHERE table_name = '\S+')`", (GUIDES / GUIDE).read_text()
        )
        of_buyers = re.sub(r"FROM \S+\nWHERE table_name = '\S+'", words, query)
        assert postgres.rows(of_buyers) == []
        postgres.run(
            "UPDATE food.altaprofiles_sync SET synced_at = synced_at - INTERVAL '27 hours'"
        )
        assert len(postgres.rows(of_buyers)) == 1
    finally:
        postgres.run("DROP SCHEMA food CASCADE")
    # A success ends it, also one that finds nothing new.
    postgres.run("UPDATE altaprofiles_sync SET synced_at = synced_at - INTERVAL '27 hours'")
    assert len(postgres.rows(query)) == 2
    await sync(postgres.url("profiles"))
    assert len(postgres.rows(query)) == 1


ANN = did("ann", 50, 5) | {"platformInfo": [{"objectId": "phone"}, {"objectId": "tablet"}]}
BOB = did("bob", 8, 5) | {"platformInfo": [{"objectId": "tablet"}]}
NOBODY = did("", 8, 1) | {"platformInfo": [{"objectId": "phone"}]}
del NOBODY["identity"]


@pytest.mark.parametrize("reason", ["age", "person"])
async def test_the_next_night_does_not_warn_of_rows_that_were_deleted_as_in_the_guide(
    crm: Database, reason: str
) -> None:
    run = crm.run

    def people() -> set[str | None]:
        return {name for (name,) in crm.rows("SELECT identity FROM profiles")}

    async def night(records: list[dict[str, Any]], days: int) -> list[str]:
        async with (
            Emulator(records=records) as emulator,
            Session(clevertap=emulator.clevertap) as session,
        ):
            until = days_ago(days).date()
            report = await session.sync("Charged", to=crm.to, **(NIGHT | {"until": until}))
        return [*report.warnings]

    assert await night([ANN, BOB, PEOPLE[2]], 5) == []
    if reason == "age":
        run("UPDATE profiles SET fetched_at = now() - INTERVAL '91 days' WHERE identity = 'cat'")
        run(block_of(GUIDE, "INTERVAL '90 days'", "sql"))
        assert people() == {"ann", "bob"}
        assert await night([ANN, BOB], 4) == []
    else:
        async with Emulator(records=[]) as emulator:
            account = emulator.clevertap.account_id
        listing, script = forgetting("ann", account)
        run(listing)
        run(script)
        assert people() == {"bob", "cat"}
        # The service has not deleted all of it yet.
        assert await night([ANN, BOB, NOBODY], 2) == []
        assert {"ann", "bob"} <= people()
        run(script)
        assert people() == {"bob", "cat"}
        run(f"INSERT INTO forgotten VALUES ('{account}', 'phone')")
        assert await night([BOB, NOBODY], 1) == []
        assert people() == {"bob", "cat", None}
        run(script)
        assert people() == {"bob", "cat"}
    # Of rows that are gone without it, the night still warns.
    run("DELETE FROM profiles WHERE identity = 'bob'")
    [warning] = await night([NOBODY], 1)
    assert "of 2 after the last run: somebody has deleted rows" in warning


async def test_a_person_of_another_account_is_not_forgotten(crm: Database) -> None:
    owners = []
    for seed in (1, 2):
        async with (
            Emulator(records=[ANN, BOB, NOBODY], seed=seed) as emulator,
            Session(clevertap=emulator.clevertap) as session,
        ):
            owners.append(emulator.clevertap.account_id)
            await session.sync("Charged", to=crm.to, **NIGHT)
    for text in forgetting("ann", owners[0]):
        crm.run(text)
    rows = crm.rows("SELECT account, identity FROM profiles")
    left = [(owners[0], "bob"), (owners[1], "ann"), (owners[1], "bob"), (owners[1], None)]
    assert sorted(rows, key=str) == sorted(left, key=str)


async def test_a_person_who_is_forgotten_before_the_feed_is_not_handed_on(crm: Database) -> None:
    device = did("", 5, 5) | {"platformInfo": [{"objectId": "aa"}, {"objectId": "phone"}]}
    del device["identity"]

    async def night(*records: dict[str, Any]) -> str:
        async with (
            Emulator(records=records) as emulator,
            Session(clevertap=emulator.clevertap) as session,
        ):
            await session.sync("Charged", to=crm.to, late_days=20, **NIGHT)
            return str(emulator.clevertap.account_id)

    account = await night(NOBODY, BOB)
    assert look(crm) == ["bob", None]
    # Her row takes in that of her phone, which stays in `seen`.
    await night(ANN, BOB, device)
    assert look(crm) == ["ann", None]
    # A look that was killed has left her in `changed`.
    again = ANN | did("ann", 50, 3)
    await night(again, BOB, device)
    crm.run(block_of(GUIDE, "CREATE TABLE IF NOT EXISTS changed", "sql").partition("-- once")[0])
    assert crm.rows("SELECT identity FROM changed") == [("ann",)]
    listing, script = forgetting("ann", account, has_feed=True)
    crm.run(listing)
    crm.run(script)
    assert crm.rows("SELECT person FROM seen") == [("identity:bob",)]
    assert look(crm) == []
    # The service has not deleted her yet.
    await night(again, BOB, device)
    crm.run(script)
    assert look(crm) == []


async def test_psql_is_silent_about_a_feed_of_a_table_in_a_schema(
    postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    postgres.run("CREATE SCHEMA food")
    async with (
        Emulator(records=[ANN, BOB]) as emulator,
        Session(clevertap=emulator.clevertap) as session,
    ):
        await session.sync("Charged", to=postgres.url("food.buyers"), **NIGHT)
        account = str(emulator.clevertap.account_id)
    listing, forget = forgetting("ann", account, has_feed=True)
    feed, taken = block_of(GUIDE, "CREATE TABLE IF NOT EXISTS changed", "sql").split("-- once")
    [options] = {*re.findall(r"PGOPTIONS=(\S+)`", (GUIDES / GUIDE).read_text("utf-8"))}
    environment = {**os.environ, "PATH": f"{clients()}:/usr/bin:/bin"}

    async def run(text: str, **variables: str) -> str:
        words = ["psql", "-Xq", "-v", "ON_ERROR_STOP=1", "-f", "-", postgres.url()]
        text = f"SET search_path = food;\n{text}".replace("profiles", "buyers")
        text = text.replace("altabuyers_sync", "altaprofiles_sync")
        done = await anyio.run_process(words, input=text.encode(), env=environment | variables)
        assert done.stdout == b""
        return done.stderr.decode()

    try:
        assert await run(feed) == ""
        assert 'relation "seen" already exists' in await run(feed)
        for text in (feed, f"-- once{taken}", feed, listing, forget, forget):
            assert await run(text, PGOPTIONS=options) == ""
        assert postgres.rows("SELECT person FROM food.buyers") == [("identity:bob",)]
        assert postgres.rows("SELECT person FROM food.seen") == [("identity:bob",)]
        tables = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
        assert postgres.rows(tables) == []
    finally:
        postgres.run("DROP SCHEMA food CASCADE")


@pytest.mark.parametrize("nameless", NAMELESS)
async def test_a_person_is_forgotten_with_rows_that_have_no_identity(
    crm: Database, nameless: dict[str, Any]
) -> None:
    other = NOBODY | {"platformInfo": [{"objectId": "tv"}]}
    async with with_odd_people([ANN, BOB, nameless | NOBODY, nameless | other]) as session:
        await session.sync("Charged", to=crm.to, **NIGHT)
    for text in forgetting("ann", "id"):
        crm.run(text)
    left = [("identity:bob",), ("objectId:tv",)]
    assert crm.rows("SELECT person FROM profiles ORDER BY 1") == left


async def test_a_person_is_forgotten_in_a_table_of_bindings(crm: Database) -> None:
    to = crm.to if crm.server is None else crm.server.url()
    bindings = {"ann": ["phone", "tv"], "bob": ["tv"], "phone": ["desk"]}
    async with Emulator(records=[], bindings=bindings) as emulator:
        for agent in ("shop", "outlet"):
            alta = Alta(emulator.token, base_url=emulator.url, name=agent)
            async with Session(alta=alta) as session:
                await session.export_lookups(["ann", "bob"], by="user_id", to=to)
                await session.export_lookups(["tv", "desk"], by="anonymous_id", to=to)
    everyone = crm.rows("SELECT account, key, user_id, anonymous_id FROM bindings")
    crm.run("CREATE TABLE forgotten (account text, id text)")
    crm.run("INSERT INTO forgotten VALUES ('shop', 'ann')")
    crm.run(block_of(GUIDE, "DELETE FROM bindings", "sql"))
    left = crm.rows("SELECT account, key, user_id, anonymous_id FROM bindings")
    assert {*left} == {row for row in everyone if (row[0], row[2]) != ("shop", "ann")}
    assert ("shop", "tv", "bob", "tv") in left


async def test_the_oldest_days_of_a_folder_are_removed_without_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    await sync("crm/")
    before = date.today()  # noqa: DTZ011
    function_of(GUIDE, "keep_days")("crm", 30)
    first = min(date.fromisoformat(path.name[4:]) for path in Path("crm").glob("day=*"))
    # Midnight may pass.
    assert first + timedelta(days=30) in (before, date.today())  # noqa: DTZ011
    async with (
        Emulator(records=PEOPLE) as emulator,
        Session(clevertap=emulator.clevertap) as session,
    ):
        report = await session.sync("Charged", to="crm/", late_days=10, **NIGHT)
    assert report.warnings == []


async def test_a_person_is_forgotten_in_files_and_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    days: dict[str, Any] = {"start": NIGHT["since"], "end": NIGHT["until"]}
    odd = PEOPLE[2] | {"profileData": {"Note": 'two\nlines, "ann"'}}
    forget, ids = function_of(GUIDE, "forget"), ["ann", "phone", "tablet"]
    files = [Path(f"p.{ending}") for ending in ("csv", "ndjson", "parquet")]
    expected = {}
    async with (
        Emulator(records=[BOB, odd]) as emulator,
        Session(clevertap=emulator.clevertap) as session,
    ):
        for file in files:
            await session.export("Charged", **days, to=file)
            expected[file] = file.read_text() if file.suffix != ".parquet" else ""
    async with (
        Emulator(records=[ANN, BOB, odd, NOBODY]) as emulator,
        Session(clevertap=emulator.clevertap) as session,
    ):
        account = emulator.clevertap.account_id
        for file in files:
            await session.export("Charged", **days, to=file)
            whole = file.read_bytes()
            if file.suffix != ".ndjson":
                forget(str(file), "another account", ids)
                assert in_duckdb(f"SELECT count(*) FROM '{file}'") == [(4,)]
            file.write_bytes(whole)
            forget(str(file), account, ids)
            if file.suffix == ".parquet":
                found = in_duckdb(f"SELECT identity FROM '{file}' ORDER BY 1")
                assert found == [("bob",), ("cat",)]
            else:
                # Each export has a time of its own.
                assert re.sub(r"\d{4}-\d\d-\d\dT[^\"]*", "", file.read_text()) == re.sub(
                    r"\d{4}-\d\d-\d\dT[^\"]*", "", expected[file]
                )
        assert not [*tmp_path.glob(".*")]
        await session.sync("Charged", to="crm/", **NIGHT)
        forget("crm/*/*.parquet", account, ids)
        query = "SELECT DISTINCT identity FROM 'crm/*/*.parquet' ORDER BY 1"
        assert in_duckdb(query) == [("bob",), ("cat",)]
        report = await session.sync("Charged", to="crm/", **(NIGHT | {"until": days_ago(1).date()}))
        assert report.warnings == []


async def test_files_for_excel_and_long_cells_are_rewritten_with_their_rights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    days: dict[str, Any] = {"start": NIGHT["since"], "end": NIGHT["until"]}
    forget, file = function_of(GUIDE, "forget"), Path("people.csv")
    long = BOB | {"profileData": {"Note": "x" * 200_000}}
    async with (
        Emulator(records=[ANN, long, did("@eve", 8, 5), did("'@eve", 8, 5)]) as emulator,
        Session(clevertap=emulator.clevertap) as session,
    ):
        await session.export("Charged", **days, to=file, bom=True)
        account = emulator.clevertap.account_id
    file.chmod(0o640)
    # In such a file her identity has an apostrophe before it, so that no cell is a formula.
    forget("*.csv", account, ["ann", "@eve"])
    assert file.stat().st_mode & 0o777 == 0o640
    rows = csv.DictReader(io.StringIO(file.read_text("utf-8-sig"), newline=""))
    assert sorted(row["identity"] for row in rows) == ["''@eve", "bob"]
    assert file.read_bytes().startswith(b"\xef\xbb\xbf")
    # A file that is not one of people stays as it is, and nothing beside it.
    Path("campaign.csv").write_text("E-Mail\nann@example.com\n")
    with pytest.raises(KeyError):
        forget("campaign.csv", account, ["ann"])
    assert Path("campaign.csv").read_text() == "E-Mail\nann@example.com\n"
    assert not [*tmp_path.glob(".*")]


def test_a_person_is_forgotten_however_a_record_has_the_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = [
        '{"identity":9.19876543210E11}\n',
        '{"objectId":"phone"}\n',
        '{"identity":"","objectId":"phone"}\n',
        '{"platformInfo":[7,{"objectId":5}]}\n',
        '{"objectId":6.5E11}\n',
        '{"platformInfo":[7,{"objectId":1.50},null]}\n',
        '{"platformInfo":[{"objectId":true}]}\n',
        '{"objectId":-0}\n',
        f'{{"objectId":{"9" * 5000}}}\n',
        '{"identity":"bob","objectId":"phone"}\n',
        '{"platformInfo":"iOS"}\n',
        '{"platformInfo":[{"objectId":null}]}\n',
    ]
    Path("p.ndjson").write_text("".join(lines))
    # Those of devices are as tables have them.
    ids = ["919876543210", "phone", "5", "6.5E11", "1.50", "true", "0", "9" * 5000, "None"]
    function_of(GUIDE, "forget")("p.ndjson", "any account", ids)
    assert Path("p.ndjson").read_text() == "".join(lines[9:])


async def test_files_of_a_folder_that_are_damaged_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    await sync("crm/")
    namespace: dict[str, Any] = {}
    exec(block_of(GUIDE, "def damaged_files"), namespace)  # noqa: S102
    assert namespace["damaged_files"]("crm") == []
    ended, midst = sorted(Path("crm").glob("day=*/*.parquet"))[:2]
    ended.write_bytes(ended.read_bytes()[:-100])
    content = midst.read_bytes()
    midst.write_bytes(content[:4] + b"\xff" * 20 + content[24:])
    found = namespace["damaged_files"]("crm")
    assert [line.partition(": ")[0] for line in found] == [str(ended), str(midst)]


async def test_values_of_another_type_come_from_the_same_row(crm: Database) -> None:
    weights = {
        "number": 72,
        "text": "72 kg",
        "fraction": 72.5,
        "truth": True,
        "list": ["a", "b"],
        "null": None,
    }
    people = [
        did(name, 50, 5) | {"profileData": {"Weight": value}} for name, value in weights.items()
    ]
    people.append(did("without", 50, 5) | {"profileData": {}})

    async def night(**options: Any) -> SyncReport:
        async with (
            Emulator(records=people) as emulator,
            Session(clevertap=emulator.clevertap) as session,
        ):
            return await session.sync("Charged", to=crm.to, **(NIGHT | options))

    report = await night(flatten={"Weight": "int64"})
    query = 'SELECT identity, "Weight" FROM profiles'
    present = {name for name, value in crm.rows(query) if value is not None}
    assert present == {"number"}
    update = block_of(GUIDE, 'UPDATE profiles SET "Weight"', "sql")
    [warning] = report.warnings
    alter = re.search(r"ALTER TABLE .*? USING .*?(?=; |$)", warning)
    assert alter, warning
    crm.run(alter[0])
    crm.run(update)
    found = dict(crm.rows(query))
    assert json.loads(found.pop("list")) == ["a", "b"]
    assert found == {
        "number": "72",
        "text": "72 kg",
        "fraction": "72.5",
        "truth": "true",
        "null": None,
        "without": None,
    }
    # The next night goes on with it, and changes none of the rows.
    report = await night(flatten={"Weight": "text"}, late_days=60)
    assert report.warnings == []
    assert json.loads(dict(crm.rows(query))["list"]) == ["a", "b"]


async def test_a_property_has_one_column_under_its_old_and_its_new_name(crm: Database) -> None:
    old = "Customer Type"

    def buyer(identity: str, days: int, **properties: str) -> dict[str, Any]:
        return did(identity, days, days) | {"profileData": properties}

    async def night(until: int, *flatten: str, people: list[dict[str, Any]]) -> list[str]:
        async with (
            Emulator(records=people) as emulator,
            Session(clevertap=emulator.clevertap) as session,
        ):
            days: dict[str, Any] = NIGHT | {"until": days_ago(until).date()}
            report = await session.sync("Charged", to=crm.to, flatten=flatten, **days)
        return report.warnings

    def run(script: str) -> None:
        for statement in filter(str.strip, script.split(";")):
            crm.run(statement)

    people = "SELECT identity, membership FROM people ORDER BY 1"
    before = [buyer("ann", 20, **{old: "Gold"}), buyer("bob", 20, **{old: "Silver"})]
    assert await night(15, old, people=before) == []
    after = [
        # The app has left the old value where it was.
        buyer("ann", 10, **{old: "Gold", "Membership": "Platinum"}),
        buyer("cat", 10, Membership="Blue"),
        before[1],
    ]
    (warning,) = await night(9, old, "Membership", people=after)
    assert "a new column, null in the rows, of any account, that this run did not bring" in warning
    view, question = block_of(GUIDE, 'coalesce("Membership"', "sql").split("-- people")
    run(view)
    assert crm.rows(people) == [("ann", "Platinum"), ("bob", "Silver"), ("cat", "Blue")]
    question = question.partition("\n")[2].strip().rstrip(";")
    assert crm.rows(question) == [(1,)]
    after[2] = buyer("bob", 5, Membership="Red")
    assert await night(4, old, "Membership", people=after) == []
    # He has the new name alone, and the old column has nothing that the new one lacks.
    assert crm.rows(question) == [(0,)]
    run(block_of(GUIDE, "DROP COLUMN", "sql"))
    after.append(buyer("dan", 3, Membership="Green"))
    assert await night(2, "Membership", people=after) == []
    assert crm.rows(people) == [
        ("ann", "Platinum"),
        ("bob", "Red"),
        ("cat", "Blue"),
        ("dan", "Green"),
    ]


async def test_a_property_of_a_folder_has_one_column_under_both_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    people = [
        did("ann", 20, 20) | {"profileData": {"Customer Type": "Gold"}},
        did("bob", 10, 10) | {"profileData": {"Membership": "Blue"}},
    ]
    async with (
        Emulator(records=people) as emulator,
        Session(clevertap=emulator.clevertap) as session,
    ):
        for days, flatten in ((15, ["Customer Type"]), (2, ["Membership"])):
            night = NIGHT | {"until": days_ago(days).date()}
            await session.sync("Charged", to="crm/", flatten=flatten, **night)
    query = """
        SELECT identity, coalesce("Membership", "Customer Type")
        FROM read_parquet('crm/*/*.parquet', hive_partitioning = true, union_by_name = true)
        ORDER BY 1
    """
    assert in_duckdb(query) == [("ann", "Gold"), ("bob", "Blue")]


async def test_an_audit_takes_numbers_however_they_are_written(
    crm: Database, tmp_path: Path
) -> None:
    """In jsonb, 1E+16 is 10000000000000000."""
    (tmp_path / "audit.py").write_text(block_of(GUIDE, "# audit.py"))
    names = runpy.run_path(str(tmp_path / "audit.py"))
    properties = {"Phone": 1e16, "Debt": -0.0, "Rate": 1.5e-7, "ID": 2**53 + 1, "Text": "1e+16"}
    people = [one | {"profileData": properties} for one in PEOPLE]
    database = crm.to if crm.server is None else crm.server.url()
    table = 'Big "buyers"'

    async with (
        Emulator(records=people) as emulator,
        Session(clevertap=emulator.clevertap) as session,
    ):
        to = crm.to if crm.server is None else database
        await session.sync("Charged", to=to, table=table, **NIGHT)
        days = {"start": NIGHT["since"], "end": NIGHT["until"]}
        await session.export("Charged", to="people.ndjson", count=True, **days)
    result = names["audit"](database, table, "people.ndjson")
    assert (result["in_table"], result["changed"], result["passed"]) == (len(people), [], True)
    quoted = table.replace('"', '""')
    crm.run(f"""UPDATE "{quoted}" SET profile_data = '{{"ID": 9007199254740992}}'""")
    result = names["audit"](database, table, "people.ndjson")
    assert (len(result["changed"]), result["passed"]) == (len(people), False)


@pytest.mark.parametrize("shared", [False, True])
async def test_a_night_is_tried_again_on_another_worker(
    postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, shared: bool
) -> None:
    (tmp_path / "shared").mkdir()
    options = {"spool": str(tmp_path / "shared")} if shared else {}
    table = postgres.url("profiles")
    async with (
        Emulator(records=PEOPLE) as emulator,
        Session(clevertap=emulator.clevertap) as session,
    ):

        async def attempt(worker: str, **more: Any) -> SyncReport:
            (tmp_path / worker).mkdir(exist_ok=True)
            monkeypatch.chdir(tmp_path / worker)
            return await session.sync("Charged", to=table, **(NIGHT | options | more))

        with pytest.raises(InterruptedError):
            await attempt("first", on_progress=halt)
        left = [*tmp_path.glob("*/*.export")]
        assert [path.parent.name for path in left] == ["shared" if shared else "first"]
        report = await attempt("second")
        # On a volume that both have, the second try goes on with what the first one has.
        assert (report.finished, report.warnings) == (int(shared), [])
        query = "SELECT person, fetched_at, added_at FROM profiles ORDER BY 1"
        rows = postgres.rows(query)
        assert len(rows) == len(PEOPLE)
        # The next night of the first worker finishes its rest, which is older than the rows.
        report = await attempt("first", until=days_ago(1).date())
        assert report.finished == int(not shared)
        later = postgres.rows(query)
        assert [row[:1] for row in later] == [row[:1] for row in rows]
        assert all(new[1] >= old[1] for new, old in zip(later, rows, strict=True))
        assert [*tmp_path.glob("*/*.export")] == []
