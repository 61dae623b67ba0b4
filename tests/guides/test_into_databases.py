"""The recipes of the guide on files and databases are true of people whom the test knows."""

from __future__ import annotations

import asyncio
import csv
import gzip
import json
import re
import runpy
import subprocess
import sys
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pytest

from altaprofiles import ExportError, Profile, Retry, Session
from altaprofiles.accounts import Accounts
from altaprofiles.emulator import Emulator

from ..support.guides import GUIDES, block_of, function_of
from ..support.odd_people import NAMELESS, ODD_PEOPLE, TIME, with_odd_people
from ..support.postgres import PASSWORD, Server
from ..support.servers import http, scripted
from ..support.sessions import session_at
from ..support.tasks import PATIENCE
from ..support.terminals import emulated, environment

GUIDE = "into-databases.md"
CHARGED = {"Charged": {"count": 1, "first_seen": 1767600000, "last_seen": 1767600000}}
PEOPLE: list[dict[str, Any]] = [
    {"identity": "ann", "events": CHARGED, "ls": 1767900000, "new": {"deep": [1]}},
    {"identity": "bob", "events": CHARGED, "new": 1},
    {
        "identity": "cy",
        "name": '=1+"Å"\nx',
        "email": "cy@example.com",
        "phone": "+919876543210",
        "profileData": {"Customer Type": "Gold"},
        "events": CHARGED,
    },
]
SEEN = datetime.fromtimestamp(1767900000, UTC)


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with emulated(records=PEOPLE) as emulator:
        yield emulator


def code_with(text: str, language: str = "python") -> str:
    """Return the only code block of the guide with a text in it."""
    return block_of(GUIDE, text, language)


def export(emulator: Emulator, to: str, **options: Any) -> None:
    async def main() -> None:
        async with Session(clevertap=emulator.clevertap) as session:
            await session.export("Charged", start=20260101, end=20260131, to=to, **options)

    asyncio.run(main())


def sync(emulator: Emulator, to: str, until: int) -> None:
    async def main() -> None:
        async with Session(clevertap=emulator.clevertap) as session:
            await session.sync("Charged", since=20260101, until=until, timezone="UTC", to=to)

    asyncio.run(main())


# --------------------------------------------------------------------------------------- last seen


def test_last_seen_is_a_time_in_duckdb_and_in_pandas(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    export(emulator, "people.parquet")
    export(emulator, "crm.duckdb")
    query = code_with("as last_seen", "sql")
    with duckdb.connect("crm.duckdb") as database:
        database.execute("set timezone = 'UTC'")
        rows = database.execute(query).fetchall()
        from_file = database.execute(query.replace("profiles", "'people.parquet'")).fetchall()
    assert sorted(rows) == sorted(from_file) == [("ann", SEEN), ("bob", None), ("cy", None)]
    names: dict[str, Any] = {}
    exec(code_with("import pandas"), names)  # noqa: S102
    frame = names["frame"].dropna(subset="last_seen")
    assert [*zip(frame.identity, frame.last_seen, strict=True)] == [("ann", SEEN)]


def test_last_seen_is_a_time_in_postgresql(
    emulator: Emulator, postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The manifest is there.
    monkeypatch.chdir(tmp_path)
    export(emulator, postgres.url("profiles"))
    rows = postgres.rows(code_with("as last_seen", "sql"))
    assert sorted(rows) == [("ann", SEEN), ("bob", None), ("cy", None)]


async def export_odd(to: str) -> None:
    async with with_odd_people() as session:
        await session.export("Charged", start=20260101, end=20260131, to=to)


def test_odd_records_have_a_row_with_what_is_right_in_them(
    postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for to in ("crm.duckdb", "people.parquet", postgres.url("profiles")):
        asyncio.run(export_odd(to))
    query = code_with("as last_seen", "sql")
    with duckdb.connect("crm.duckdb") as database:
        rows = database.execute(query).fetchall()
    names: dict[str, Any] = {}
    exec(code_with("import pandas"), names)  # noqa: S102
    frame = names["frame"].astype({"last_seen": object})
    frame = frame.where(frame.notna(), None)
    in_pandas = [*zip(frame.identity, frame.last_seen, strict=True)]
    expected = dict.fromkeys((one["identity"] for one in ODD_PEOPLE), None) | {"0": TIME}
    for found in (rows, postgres.rows(query), in_pandas):
        assert len(found) == len(expected)
        assert {one: at and at.timestamp() for one, at in found} == expected
    rows = postgres.rows(code_with("jsonb_object_keys(", "sql"))
    assert rows == [("Charged", 4), ("App Launched", 1)]


def test_members_without_a_column_are_counted(
    emulator: Emulator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    export(emulator, "people.parquet")
    exec(code_with("json_keys(extra)"), {})  # noqa: S102
    printed = capsys.readouterr().out
    assert re.search(r"\bnew\b\D+2\b[^\n]*\n[^\n]*\bls\b\D+1\b", printed)


# ------------------------------------------------------------------------------- versions of DuckDB


def version_of(path: str) -> bytes:
    """Return the version of the format of a database, as its header has it."""
    return Path(path).read_bytes()[12:20]


def test_a_sync_goes_on_in_a_copy_for_older_versions_of_duckdb(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    async def sync(until: int) -> None:
        async with Session(clevertap=emulator.clevertap) as session:
            night: dict[str, Any] = {"since": 20260101, "timezone": "UTC", "to": "crm.duckdb"}
            report = await session.sync("Charged", until=until, **night)
        assert report.warnings == []

    asyncio.run(sync(20260105))
    exec(code_with("STORAGE_VERSION"), {})  # noqa: S102
    version = version_of("older.duckdb")
    # The first versions that kept their format had this one.
    assert int.from_bytes(version, "little") == 64
    Path("older.duckdb").replace("crm.duckdb")
    asyncio.run(sync(20260106))
    assert version_of("crm.duckdb") == version
    with duckdb.connect("crm.duckdb", read_only=True) as database:
        people = database.execute("SELECT identity FROM profiles ORDER BY ALL").fetchall()
        through = database.execute("SELECT through::VARCHAR FROM altaprofiles_sync").fetchall()
    assert (people, through) == ([("ann",), ("bob",), ("cy",)], [("2026-01-06",)])


# -------------------------------------------------------------------------------- names of events


def test_events_that_people_have_done_are_counted(
    emulator: Emulator,
    postgres: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    emulator.add({"identity": "di", "events": CHARGED | {"Refunded": CHARGED["Charged"]}})
    export(emulator, "people.parquet")
    export(emulator, postgres.url("profiles"))
    exec(code_with("json_keys(events)"), {})  # noqa: S102
    printed = capsys.readouterr().out
    assert re.search(r"\bCharged\b\D+4\b[^\n]*\n[^\n]*\bRefunded\b\D+1\b", printed)
    rows = postgres.rows(code_with("jsonb_object_keys(", "sql"))
    assert rows == [("Charged", 4), ("Refunded", 1)]


# ---------------------------------------------------------------------------------------- payments


def heaviest() -> list[tuple[Any, ...]]:
    query = code_with("last_time").split('"""')[1]
    with duckdb.connect() as database:
        database.execute("SET timezone = 'UTC'")
        return database.execute(query).fetchall()


def test_those_who_were_charged_most_often_come_first(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    often = {"Charged": {"count": 40, "first_seen": 1767600000, "last_seen": 1767900000}}
    emulator.add({"identity": "di", "name": "Di", "events": often})
    export(emulator, "people.parquet")
    rows = heaviest()
    assert rows[0] == ("di", "Di", 40, SEEN)
    assert [row[2] for row in rows] == [40, 1, 1, 1]


def test_odd_records_come_last_among_payers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asyncio.run(export_odd("people.parquet"))
    rows = heaviest()
    assert len(rows) == len(ODD_PEOPLE)
    assert [row[2] for row in rows[:3]] == [3, 2, None]


def test_a_pivot_counts_everyone_and_a_chart_has_a_row_a_week(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    weeks = {}
    for name, first, last in (("first", 5, 11), ("both", 11, 12), ("last", 26, 31)):
        seen = [int(datetime(2026, 1, day, 6, tzinfo=UTC).timestamp()) for day in (first, last)]
        weeks[name] = {"Charged": {"count": 2, "first_seen": seen[0], "last_seen": seen[1]}}
    kinds: list[dict[str, Any]] = [
        {"Customer Type": "Gold", "Plan": "pro"},
        {"Customer Type": "Gold", "Plan": None},
        {"Plan": "pro"},
    ]
    people = [
        {"identity": name, "events": events, "profileData": kind}
        for (name, events), kind in zip(weeks.items(), kinds, strict=True)
    ]
    with emulated(records=people) as emulator:
        account = {
            "account_id": str(emulator.clevertap.account_id),
            "passcode": str(emulator.clevertap.passcode),
            "base_url": emulator.url,
        }
        accounts = Accounts(tmp_path / "accounts.toml", "shop", {"shop": account})
        accounts.write()
        monkeypatch.setenv("ALTAPROFILES_CONFIG", str(accounts.path))
        export(emulator, "plans.csv", flatten=["Customer Type", "Plan"], bom=True)
        exec(code_with("pivot = "), {})  # noqa: S102
        exec(code_with("weeks.csv"), {})  # noqa: S102
    assert cells_of("pivot.csv") == [
        ["Plan", "Gold", "none"],
        ["none", "1", "0"],
        ["pro", "1", "1"],
    ]
    header, *rows = cells_of("weeks.csv")
    assert header == ["week", "App Launched", "Charged"]
    assert [(week, charged) for week, _, charged in rows] == [
        ("2026-01-05", "2"),
        ("2026-01-12", "1"),
        ("2026-01-19", "0"),
        ("2026-01-26", "1"),
    ]


@pytest.mark.parametrize(
    ("kind", "plan", "in_excel"),
    [
        (1, 2.5, ("1", "2.5")),
        (True, [1], ("true", "[1]")),
        ("$D_1700000000", "$D_1700000000", ("$D_1700000000", "$D_1700000000")),
        ('=HYPERLINK("x")', "@é", ('\'=HYPERLINK("x")', "'@é")),
    ],
)
def test_a_pivot_has_values_of_all_types_and_no_formula(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Any, plan: Any, in_excel: tuple[str, str]
) -> None:
    monkeypatch.chdir(tmp_path)
    properties = {"Customer Type": kind, "Plan": plan}
    people = [{"identity": str(n), "events": CHARGED, "profileData": properties} for n in (1, 2)]
    with emulated(records=people) as emulator:
        export(emulator, "plans.csv", flatten=["Customer Type", "Plan"], bom=True)
    exec(code_with("pivot = "), {})  # noqa: S102
    assert cells_of("pivot.csv") == [["Plan", in_excel[0]], [in_excel[1], "2"]]


def cells_of(path: str) -> list[list[str]]:
    """Return the cells of a CSV for Excel, which has a byte-order mark."""
    assert Path(path).read_bytes().startswith(b"\xef\xbb\xbf")
    with Path(path).open(encoding="utf-8-sig", newline="") as file:
        return [*csv.reader(file)]


def test_a_device_of_two_records_is_one_row_only_after_a_later_run(
    postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    phone = {"platformInfo": [{"objectId": "phone"}], "events": CHARGED}
    later = {"Charged": {"count": 2, "first_seen": 1767600000, "last_seen": 1767700000}}
    ann = phone | {"identity": "ann", "events": later}
    query = "SELECT identity FROM profiles ORDER BY identity"
    with (
        emulated(records=[phone, phone | {"identity": "ann"}]) as both,
        emulated(records=[ann]) as one,
    ):
        for to in ("crm.duckdb", postgres.url("profiles")):

            def people(to: str = to) -> list[tuple[Any, ...]]:
                if to != "crm.duckdb":
                    return postgres.rows(query)
                with duckdb.connect(to, read_only=True) as database:
                    return database.execute(query).fetchall()

            for _ in range(2):
                export(both, to)
                assert people() == [("ann",), (None,)]
            export(one, to)
            assert people() == [("ann",)]


# ----------------------------------------------------------------------------------------- columns


def test_columns_are_renamed_chosen_and_ordered(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    export(emulator, "people.parquet", flatten=["Customer Type"])
    exec(code_with("from 'people.parquet' order by identity"), {})  # noqa: S102
    with Path("renamed.csv").open(encoding="utf-8", newline="") as file:
        rows = [*csv.reader(file)]
    assert rows == [
        ["First name", "Segment", "Customer ID"],
        ["", "", "ann"],
        ["", "", "bob"],
        ['=1+"Å"\nx', "Gold", "cy"],
    ]


def test_renamed_columns_are_packed_with_gzip(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = re.search(r"`to ('renamed\.csv\.gz' \(.*?\))`", (GUIDES / GUIDE).read_text("utf-8"))
    assert found is not None
    export(emulator, "charged.csv.gz", flatten=["Customer Type"], bom=True)
    code = code_with("excel.csv").replace("charged.csv", "charged.csv.gz")
    exec(code.partition("Path(")[0].replace("'renamed.csv' (header, delimiter ',')", found[1]), {})  # noqa: S102
    with gzip.open("renamed.csv.gz", "rt", encoding="utf-8", newline="") as file:
        rows = [*csv.reader(file)]
    assert (rows[0], len(rows)) == (["First name", "Phone", "Segment"], 4)


def test_a_read_only_role_reads_the_tables_that_it_was_granted(
    postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    reader, loader = f"reader_of_{postgres.database}", f"grantor_of_{postgres.database}"
    of_administrator = code_with("CREATE ROLE reader", "sql").replace("reader", reader)
    of_owner = code_with("GRANT SELECT ON buyers", "sql").replace("reader", reader)
    postgres.run(
        # Of another program, which the owner of the others can grant nobody.
        "CREATE TABLE signups (user_id text)",
        "REVOKE ALL ON SCHEMA public FROM PUBLIC",
        f"CREATE ROLE {loader} LOGIN PASSWORD '{PASSWORD}'",
        f"GRANT USAGE, CREATE ON SCHEMA public TO {loader}",
    )
    try:
        with emulated(records=PEOPLE) as emulator:
            export(emulator, postgres.url("buyers", user=loader))
            postgres.run(*filter(str.strip, of_administrator.split(";")))
            with psycopg.connect(postgres.url(user=loader)) as owner:
                owner.execute(of_owner.encode())
            postgres.run(f"ALTER ROLE {reader} PASSWORD '{PASSWORD}'")
            for write in ("upsert", "replace"):
                export(emulator, postgres.url("buyers", user=loader), write=write)
            for day in (20260130, 20260131):
                sync(emulator, postgres.url("nightly", user=loader), until=day)
                with psycopg.connect(postgres.url(user=loader)) as owner:
                    # What other recipes keep beside it.
                    owner.execute("CREATE TABLE IF NOT EXISTS forgotten (account text, id text)")
                    if day == 20260130:
                        owner.execute(of_owner.replace("buyers", "nightly").encode())
        with psycopg.connect(postgres.url(user=reader), autocommit=True) as connection:
            for table in ("buyers", "nightly"):
                rows = connection.execute(f"SELECT count(*) FROM {table}".encode()).fetchone()
                assert rows == (len(PEOPLE),)
            for statement in (
                "DELETE FROM buyers",
                "SELECT FROM signups",
                "SELECT FROM forgotten",
                "SELECT FROM altaprofiles_sync",
            ):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(statement.encode())
    finally:
        for role in (reader, loader):
            postgres.run(f"DROP OWNED BY {role} CASCADE", f"DROP ROLE {role}")


def test_a_spreadsheet_opens_renamed_columns_in_utf_8_and_runs_no_cell(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    export(emulator, "charged.csv", flatten=["Customer Type"], bom=True)
    exec(code_with("excel.csv"), {})  # noqa: S102
    assert Path("excel.csv").read_bytes().startswith(b"\xef\xbb\xbfFirst name,")
    with Path("excel.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = [*csv.reader(file)]
    assert rows == [
        ["First name", "Phone", "Segment"],
        ["", "", ""],
        ["", "", ""],
        ['\'=1+"Å"\nx', "+919876543210", "Gold"],
    ]


def test_a_double_click_opens_semicolons_and_decimal_commas(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    events = {"Charged": {"count": 3, "first_seen": 1767600000, "last_seen": 1769800000}}
    odd = {"Charged": {"count": 1, "first_seen": 1767600000, "last_seen": 9 * 10**9}}
    people: list[dict[str, Any]] = [
        {
            "identity": "04900000000000300",
            "name": "Ömer; B.",
            "phone": "+4917112345678",
            "profileData": {
                "Contract No": "0004711",
                "Total Spent": 1234.5,
                "Signup Date": "$D_1608322766",
            },
            "events": events,
        },
        {
            "identity": "ann",
            "name": "=1+1",
            "phone": "n/a",
            "profileData": {"Total Spent": "x"},
            "events": odd,
        },
    ]
    with emulated(records=people) as emulator:
        types: dict[str, Any] = {
            "Contract No": "text",
            "Total Spent": "double",
            "Signup Date": "timestamp",
        }
        export(emulator, "buyers.csv", flatten=types, bom=True)
    duckdb.execute(code_with("DELIMITER ';'", "sql"))
    data = Path("excel.csv").read_bytes()
    assert data.startswith(b"\xef\xbb\xbfCustomer ID;Name;")
    with Path("excel.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = [*csv.reader(file, delimiter=";")]
    signed, first = "2020-12-18", "2026-01-05"
    charges = ["Charges", "First charge", "Last charge"]
    numbers = ['="04900000000000300"', '="+4917112345678"', '="0004711"']
    assert rows == [
        [*["Customer ID", "Name", "Phone", "Contract"], *["Signed up", "Total", *charges]],
        [*numbers[:1], "Ömer; B.", *numbers[1:], signed, "1234,50", "3", first, "2026-01-30"],
        ["ann", "'=1+1", "n/a", "", "", "", "1", first, ""],
    ]


# ------------------------------------------------------------------------------------ a second one


def test_a_file_of_each_day_is_not_overwritten(emulator: Emulator, tmp_path: Path) -> None:
    script = code_with("test -e", "sh")
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    env = environment(tmp_path, emulator.environment, PATH=path, CLEVERTAP_TIMEZONE="UTC")

    def run() -> None:
        command = ["/bin/sh", "-ec", script]
        subprocess.run(command, cwd=tmp_path, env=env, timeout=PATIENCE, check=True)

    run()
    [first] = tmp_path.glob("charged-*.csv")
    first.write_text("of that day")
    # At midnight this makes another one.
    run()
    assert first.read_text() == "of that day"


DEVICE = [{"platform": "iOS", "objectId": "d1"}]
EARLIER: list[dict[str, Any]] = [
    {"identity": "same", "profileData": {"owner": "me", "result": 1}},
    {"identity": "changed", "profileData": {"Plan": "pro"}},
    {
        "identity": "in order",
        "profileData": {"Plan": "pro", "Home": {"a.b": 2**53 + 1, "c": [[], 1]}},
    },
    {"identity": "list", "profileData": {"Plan": "pro", "Tags": [{"n": 1}, {"n": 2}]}},
    {"identity": "number", "profileData": {"Home": {"a": 2**53, "b": []}}},
    {"identity": "empty", "profileData": {"Home": {"a": [], "b": 1}}},
    {"identity": "renamed", "name": "Ann"},
    {"identity": "gone"},
    {"platformInfo": DEVICE},
    {"platformInfo": [{"platform": "iOS", "objectId": "d2"}]},
    {"identity": "both"},
    {"platformInfo": [{"platform": "iOS", "objectId": "d3"}]},
    {"platformInfo": [{"platform": "iOS", "objectId": "d4"}]},
]
LATER: list[dict[str, Any]] = [
    {"identity": "same", "profileData": {"owner": "me", "result": 1}, "events": CHARGED},
    {"identity": "changed", "profileData": {"Plan": "free"}},
    {
        "identity": "in order",
        "profileData": {"Home": {"c": [[], 1], "a.b": 2**53 + 1}, "Plan": "pro"},
    },
    {"identity": "list", "profileData": {"Tags": [{"n": 2}, {"n": 1}], "Plan": "pro"}},
    {"identity": "number", "profileData": {"Home": {"b": [], "a": 2**53 + 1}}},
    {"identity": "empty", "profileData": {"Home": {"b": 1, "a": {}}}},
    {"identity": "renamed", "name": "Anne"},
    {"identity": "new"},
    # One row of each of two people before, whose devices are this person's.
    {
        "identity": "named",
        "platformInfo": [*DEVICE, {"platform": "iOS", "objectId": "d2"}],
    },
    {"identity": "both", "platformInfo": [{"platform": "iOS", "objectId": "d3"}]},
    {"platformInfo": [{"platform": "iOS", "objectId": "d4"}]},
]


@pytest.mark.parametrize("nameless", NAMELESS)
def test_two_files_are_compared_person_by_person(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nameless: dict[str, Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, records, separators in (
        ("earlier", EARLIER, (", ", ": ")),
        ("later", LATER, (",", ":")),
    ):
        people = [nameless | one for one in records]
        # Columns with the names that the query has for its own.
        flatten = ["owner", "device", "result"]
        asyncio.run(export_as_sent(people, f"{name}.parquet", separators, flatten))
    names: dict[str, Any] = {}
    exec(code_with("def differences"), names)  # noqa: S102
    with duckdb.connect() as database:
        query = "SELECT person, identity FROM read_parquet(['earlier.parquet', 'later.parquet'])"
        identities: dict[str, str] = dict(database.execute(query).fetchall())
    found = names["differences"]("earlier.parquet", "later.parquet")
    assert {(identities[person], result) for _, person, result in found} == {
        ("changed", "changed"),
        ("list", "changed"),
        ("number", "changed"),
        ("empty", "changed"),
        ("renamed", "changed"),
        ("gone", "gone"),
        ("new", "new"),
        ("named", "identified"),
    }
    assert len(found) == 8
    assert names["differences"]("later.parquet", "later.parquet") == []
    # Equal texts are not read, so that odd ones have to differ.
    others = [one | {"profileData": {"Plan": "free"}} for one in ODD_PEOPLE]
    for name, people in (("odd", ODD_PEOPLE), ("others", others)):
        asyncio.run(export_as_sent(people, f"{name}.parquet", (",", ":"), []))
    found = names["differences"]("odd.parquet", "others.parquet")
    assert [result for *_, result in found] == ["changed"] * len(ODD_PEOPLE)


async def export_as_sent(
    people: list[dict[str, Any]], to: str, separators: tuple[str, str], flatten: list[str]
) -> None:
    """Export people from a service that writes its JSON with these separators."""
    body = json.dumps({"status": "success", "records": people}, separators=separators).encode()

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(http(b'{"status":"success","cursor":"c"}' if head[:4] == b"POST" else body))

    async with scripted(answer) as server, session_at(server) as session:
        days: dict[str, Any] = {"start": 20260101, "end": 20260131}
        await session.export("Charged", **days, to=to, flatten=flatten)


@pytest.mark.parametrize("kind", ["postgresql", "duckdb"])
def test_the_database_writes_a_file_of_the_table(
    emulator: Emulator,
    postgres: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(code_with("# both.py"), names)  # noqa: S102
    if kind == "postgresql":
        export(emulator, postgres.url("profiles"))
        names["file_of_postgresql"](postgres.url(), "people.csv")
        with Path("people.csv").open(newline="", encoding="utf-8") as file:
            people = {row["identity"]: row["name"] for row in csv.DictReader(file)}
    else:
        export(emulator, "crm.duckdb")
        names["file_of_duckdb"]("crm.duckdb", "people.parquet")
        with duckdb.connect() as database:
            query = "SELECT identity, coalesce(name, '') FROM 'people.parquet'"
            people = dict(database.execute(query).fetchall())
    assert people == {"ann": "", "bob": "", "cy": '=1+"Å"\nx'}


# ---------------------------------------------------------------------------------- a batch of keys

# As the service sends them, and as they stand in jsonb.
ESCAPES = [
    (r"a\u0000b", "a\ufffdb"),
    (r"a\\u0000", r"a\u0000"),
    (r"\ud800", "\ufffd"),
    (r"\uDFFF\\", "\ufffd\\"),
    (r"\ud83d\ude00", "😀"),
    (r"\ud800\ud83d\ude00\ude00", "\ufffd😀\ufffd"),
    (r"\"\u00e5\\\\", '"å\\\\'),
]


@pytest.fixture
def batches(postgres: Server) -> dict[str, Any]:
    """The recipe's names, and its table."""
    postgres.run(code_with("CREATE TABLE people", "sql"))
    names: dict[str, Any] = {}
    exec(code_with("# batch_into_postgresql.py"), names)  # noqa: S102
    return names


def test_a_record_that_jsonb_refuses_does_not_cost_its_batch(
    emulator: Emulator, postgres: Server, batches: dict[str, Any]
) -> None:
    emulator.add(*({"identity": f"user {n}", "name": "x\0y" if n == 7 else "x"} for n in range(60)))
    keys = [f"user {n}" for n in range(60)]
    url = postgres.url()

    async def main() -> None:
        async with Session(clevertap=emulator.clevertap, retry=Retry(attempts=1)) as session:
            [found] = [one async for one in session.profiles.get_many(["user 7"], by="identity")]
            assert found.value is not None
            with postgres.connect() as connection, pytest.raises(psycopg.DataError):
                connection.execute("SELECT %s::jsonb", [found.value.encode().decode()])
            emulator.faults = {"server_error": 1}
            before = emulator.stats.requests["profile"]
            assert await batches["store"](session, url, keys) == keys
            assert emulator.stats.requests["profile"] - before < 40
            emulator.faults = {}
            for _ in range(2):
                again = await batches["store"](session, url, [*keys, "nobody", " ", "user 7"])
                assert again == []

    asyncio.run(main())
    rows = dict(postgres.rows("SELECT identity, record ->> 'name' FROM people"))
    assert rows == dict.fromkeys(keys, "x") | {"user 7": "x\ufffdy"}


@pytest.mark.parametrize(("sent", "stored"), ESCAPES)
def test_only_what_jsonb_refuses_is_replaced(
    postgres: Server, batches: dict[str, Any], sent: str, stored: str
) -> None:
    record = Profile.decode(f'{{"identity":"1","name":"{sent}"}}'.encode())
    fitted = batches["for_jsonb"](record.encode())
    with postgres.connect() as connection:
        query = "SELECT %s::jsonb ->> 'name'"
        assert connection.execute(query, [fitted]).fetchall() == [(stored,)]


@pytest.mark.parametrize(
    ("script", "fault"),
    [
        (
            "ALTER TABLE people ADD CONSTRAINT nobody CHECK (record ->> 'email' IS NULL)",
            "23514 nobody",
        ),
        # At the commit.
        (
            """
            CREATE TABLE known (identity text PRIMARY KEY);
            ALTER TABLE people ADD CONSTRAINT named FOREIGN KEY (identity) REFERENCES known
                DEFERRABLE INITIALLY DEFERRED
            """,
            "23503 named",
        ),
    ],
)
def test_an_error_of_a_batch_quotes_nobody(
    emulator: Emulator, postgres: Server, batches: dict[str, Any], script: str, fault: str
) -> None:
    person = {"identity": "somebody", "email": "s@example.com"}
    emulator.add(person)
    postgres.run(script)

    async def main() -> str:
        async with Session(clevertap=emulator.clevertap) as session:
            with pytest.raises(RuntimeError) as refused:
                await batches["store"](session, postgres.url(), [person["identity"]])
        return "".join(traceback.format_exception(refused.value))

    shown = asyncio.run(main())
    assert fault in shown
    assert [text for text in person.values() if text in shown] == []


def test_a_nul_is_replaced_in_a_table_of_postgresql(
    emulator: Emulator, postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    emulator.add({"identity": "nul", "name": "x\0y", "profileData": {"k": "\0"}, "events": CHARGED})
    export(emulator, postgres.url("profiles"))
    query = "SELECT name, profile_data ->> 'k' FROM profiles WHERE identity = 'nul'"
    assert postgres.rows(query) == [("x\ufffdy", "\ufffd")]


# ------------------------------------------------------------------------------------ a second one


def test_what_no_export_made_is_overwritten_or_refused_as_the_guide_says(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("own.csv", "own.ndjson", "own.parquet", "own.duckdb", "own/own.txt"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text("own")
    with duckdb.connect("tables.duckdb") as database:
        database.execute("create table profiles (own int)")
    for name in ("own.csv", "own.ndjson", "own.parquet"):
        export(emulator, name)
        assert Path(name).read_bytes() != b"own"
    for name in ("own.duckdb", "own/", "tables.duckdb"):
        with pytest.raises(ExportError):
            export(emulator, name)
    assert Path("own.duckdb").read_text() == Path("own/own.txt").read_text() == "own"


def test_a_folder_of_days_becomes_a_table_of_people(
    postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder_to_postgresql.py").write_text(code_with("NEWEST = "))
    names = runpy.run_path("folder_to_postgresql.py")

    def did(identity: str | None, *devices: str, **members: Any) -> dict[str, Any]:
        parts = {"identity": identity, "platformInfo": [{"objectId": one} for one in devices]}
        record = parts | {"events": CHARGED} | members
        return {key: value for key, value in record.items() if value is not None}

    async def night(day: int, seed: int, *records: dict[str, Any]) -> str:
        async with (
            Emulator(records=records, seed=seed) as emulator,
            Session(clevertap=emulator.clevertap) as session,
        ):
            await session.sync(
                "Charged", since=20260101, until=day, to="crm/", timezone="UTC", late_days=1
            )
            return emulator.clevertap.account_id

    def people() -> list[tuple[Any, ...]]:
        names["to_postgresql"]("crm", postgres.url())
        query = (
            "SELECT account, identity, object_ids, name, profile_data::text, matched FROM people"
        )
        return sorted(postgres.rows(query), key=str)

    odd = {"Note": 'nul \x00, quote ", back\\slash,\ttab', "\\u0000": [None]}
    ann = did("ann", "phone", name="x\0y", profileData=odd)
    shop = asyncio.run(night(20260105, 1, ann, did(None, "tablet"), did(None, "tv")))
    other = asyncio.run(night(20260105, 2, did("ann", "tablet", name="Ann\nthe other")))
    others = (other, "ann", ["tablet"], "Ann\nthe other", "{}", ["Charged"])
    found = people()
    texts = [row[4] for row in found if row[:2] == (shop, "ann")]
    assert [json.loads(text) for text in texts] == [odd]
    assert [(*row[:4], *row[5:]) for row in found] == sorted(
        [
            (shop, "ann", ["phone"], "x\ufffdy", ["Charged"]),
            (shop, None, ["tablet"], None, ["Charged"]),
            (shop, None, ["tv"], None, ["Charged"]),
            (*others[:4], ["Charged"]),
        ],
        key=str,
    )
    # The person of the tablet has signed in since.
    seven = {"Charged": {"count": 2, "first_seen": 1767600000, "last_seen": 1767700000}}
    bob = did("bob", "tablet", "watch", name="Bob") | {"events": seven}
    asyncio.run(night(20260106, 1, ann, bob, did(None, "tv")))
    postgres.run("ALTER TABLE people ADD loaded_at timestamptz DEFAULT now()")
    assert [row[:4] for row in people()] == sorted(
        [
            (shop, "ann", ["phone"], "x\ufffdy"),
            (shop, "bob", ["tablet", "watch"], "Bob"),
            (shop, None, ["tv"], None),
            others[:4],
        ],
        key=str,
    )
    postgres.run("UPDATE people SET name = 'kept'")
    postgres.run("ALTER TABLE people ADD CONSTRAINT no_bob CHECK (name <> 'Bob')")
    with pytest.raises(RuntimeError) as refused:
        people()
    shown = "".join(traceback.format_exception(refused.value))
    assert "23514 no_bob" in shown
    assert "Bob" not in shown
    assert postgres.rows("SELECT DISTINCT name FROM people") == [("kept",)]


@pytest.mark.parametrize("nameless", NAMELESS)
def test_who_signs_in_later_is_one_row_of_a_folder(
    postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nameless: dict[str, Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    tablet: dict[str, Any] = {"platformInfo": [{"objectId": "tablet"}]}
    tv: dict[str, Any] = {"platformInfo": [{"objectId": "tv"}]}
    nights = {20260105: [tablet, tv], 20260106: [{"identity": "bob"} | tablet, tv]}

    async def main() -> None:
        for day, records in nights.items():
            async with with_odd_people([nameless | one for one in records]) as session:
                days: dict[str, Any] = {"since": 20260105, "until": day, "late_days": 0}
                await session.sync("Charged", to="crm/", timezone="UTC", **days)

    asyncio.run(main())
    to_postgresql("crm", postgres.url())
    rows = postgres.rows("SELECT person, identity FROM people ORDER BY 1")
    assert rows == [("identity:bob", "bob"), ("objectId:tv", None)]


def to_postgresql(folder: str, url: str) -> None:
    """Run the recipe of the guide."""
    names: dict[str, Any] = {}
    exec(code_with("NEWEST = "), names)  # noqa: S102
    names["to_postgresql"](folder, url)


@pytest.mark.parametrize(
    ("script", "fault"),
    [
        (
            """
            CREATE TABLE notes (account text, person text,
                CONSTRAINT noted FOREIGN KEY (account, person) REFERENCES people);
            INSERT INTO notes SELECT account, person FROM people
            """,
            "23503 noted",
        ),
        # At the commit.
        (
            """
            DELETE FROM people WHERE identity = 'bob';
            ALTER TABLE people ADD CONSTRAINT named UNIQUE (name) DEFERRABLE INITIALLY DEFERRED
            """,
            "23505 named",
        ),
    ],
)
def test_an_error_of_the_server_quotes_nobody(
    postgres: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    fault: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    people = [{"identity": one, "name": "Somebody", "events": CHARGED} for one in ("ann", "bob")]
    with emulated(records=people) as emulator:
        sync(emulator, "crm/", until=20260105)
    to_postgresql("crm", postgres.url())
    postgres.run(script)
    before = postgres.rows("SELECT person FROM people ORDER BY 1")
    with pytest.raises(RuntimeError) as refused:
        to_postgresql("crm", postgres.url())
    shown = "".join(traceback.format_exception(refused.value))
    assert fault in shown
    assert "identity:ann" not in shown
    assert "Somebody" not in shown
    assert postgres.rows("SELECT person FROM people ORDER BY 1") == before


def test_any_csv_is_made_into_one_that_a_double_click_opens(tmp_path: Path) -> None:
    cells = {
        "7": "7",
        "0": "0",
        "-7": '="-7"',
        "00123": '="00123"',
        "+49 171": '="+49 171"',
        "12-03": '="12-03"',
        "7E45": '="7E45"',
        "12.5": '="12.5"',
        "123456789012": '="123456789012"',
        '=HYPERLINK("x")': '="=HYPERLINK(""x"")"',
        "\t=1+1": '="\t=1+1"',
        "@a": '="@a"',
        "=" + "a" * 300: "'=" + "a" * 300,
        "Müller; Anna": "Müller; Anna",
        "two\nlines": "two\nlines",
        "": "",
    }
    source, target = tmp_path / "list.csv", tmp_path / "excel.csv"
    with source.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["name", "n"], *([cell, "a"] for cell in cells)])
    function_of("into-databases.md", "for_excel")(str(source), str(target))
    assert target.read_bytes().startswith(b"\xef\xbb\xbfname;n\r\n")
    with target.open(encoding="utf-8-sig", newline="") as file:
        written = [*csv.reader(file, delimiter=";")]
    assert written == [["name", "n"], *([cell, "a"] for cell in cells.values())]


@pytest.mark.parametrize("guide", ["into-databases.md", "dataframes.md"])
def test_a_total_is_a_number_that_can_be_ordered(guide: str) -> None:
    text = (GUIDES / guide).read_text("utf-8")
    [cast] = re.findall(r"TRY_CAST\(profile_data->>'Total Spent' AS .*?\)+(?=`| DESC)", text)
    values = [10, 20.5, "30", "NaN", "nan", "Infinity", "-inf", "1e3", "x", None, True, [1]]
    rows = [json.dumps({"Total Spent": value}) for value in values]
    query = f"SELECT {cast}::DOUBLE FROM (SELECT unnest($1)::JSON AS profile_data)"
    totals = [total for (total,) in duckdb.execute(query, [rows]).fetchall()]
    assert totals == [10, 20.5, 30, None, None, None, None, 1000, None, None, None, None]
