"""The guide's table of a customer list tells what was found, in DuckDB and in PostgreSQL."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import sqlite3
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any, Literal

import anyio
import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from altaprofiles import (
    Alta,
    CleverTap,
    Incomplete,
    Retry,
    ServerError,
    Session,
    unfinished_in,
)
from altaprofiles.emulator import Emulator

from ..support.guides import GUIDES, block_of, function_of
from ..support.postgres import Server, clients
from ..support.servers import closed, http, scripted
from ..support.sessions import QUICK
from ..support.terminals import environment

RECORDS = [
    {"identity": "1", "email": "Ann@example.com"},
    {"identity": "2", "email": "bob@example.com"},
    {"identity": "3", "email": "Fay.Lee@example.com"},
    {"identity": "4", "email": "FAY.LEE@example.com"},
    {"email": "Guy@example.com"},
    {"identity": "5", "email": "guy@example.com"},
]
FAY = ("Fay", "fay.lee@example.com ", "fay.lee@example.com", None, "not found")
LIST = [
    # Each line is a row of the list, its address without blanks, and its answer.
    ("Ann", "Ann@example.com", "Ann@example.com", "1", "found"),
    ("Ann again", "Ann@example.com", "Ann@example.com", "1", "found"),
    ("Ann", " Ann@example.com\t", "Ann@example.com", "1", "found without blanks"),
    ("Ann", "Ann@example.com\u00a0", "Ann@example.com", "1", "found without blanks"),
    ("Bob", "BOB@example.com", "BOB@example.com", "2", "found in lower case"),
    ("Bob", "bob@example.com", "bob@example.com", "2", "found"),
    ("Bob", "Bob@example.com ", "Bob@example.com", "2", "found in lower case"),
    ("Cat", "cat@example.com", "cat@example.com", None, "not found"),
    ("Dan", None, None, None, "no address"),
    FAY,
    # A person without an identity does not get that of another spelling.
    ("Guy", "Guy@example.com", "Guy@example.com", None, "found"),
    ("Guy", "GUY@example.com", "GUY@example.com", "5", "found in lower case"),
]


def command_of(text: str) -> str:
    """Return the only command of the guide with a text in it."""
    lines = (GUIDES / "look-ups.md").read_text("utf-8").splitlines()
    (found,) = (line[2:] for line in lines if line.startswith("$ ") and text in line)
    return found


@pytest.mark.anyio
async def test_each_row_of_a_list_has_an_answer(
    postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = "".join(f"{name},{email or ''}\n" for name, email, *_ in LIST)
    Path("customers.csv").write_text(f"name,email\n{rows}", "utf-8")
    people = [one | {"name": f"Mx {one.get('identity')}"} for one in RECORDS]
    async with (
        Emulator(records=people) as emulator,
        Session(clevertap=emulator.clevertap) as session,
    ):

        async def look_up(keys: Any, to: str, **options: Any) -> None:
            await session.export_lookups(keys, by="email", to=to, **options)

        await look_up("customers.csv", "found.parquet", column="email")
        await anyio.run_process(["/bin/sh", "-c", command_of("key.strip()")])
        await look_up("again.txt", "again.parquet")
        found, again = postgres.url("found"), postgres.url("again")
        await look_up("customers.csv", found, column="email", write="append")
        await look_up("again.txt", again, write="append")
        await session.export("App Launched", start=20260101, end=20260131, to="people.parquet")
    names: dict[str, Any] = {}
    code = block_of("look-ups.md", "found in lower case")
    exec(code, names)  # noqa: S102
    answers = [(line, *row) for line, row in enumerate(LIST, 1)]
    assert names["answers"].fetchall() == answers
    assert len(Path("answers.csv").read_text("utf-8").splitlines()) == 1 + len(LIST)
    (query,) = re.findall(r'"""(.*?)"""', code, re.DOTALL)
    postgres.run("CREATE TABLE customers (name text, email text)")
    with postgres.connect() as connection, connection.cursor() as cursor:
        with cursor.copy("COPY customers FROM STDIN (FORMAT csv, HEADER)") as copy:
            copy.write(Path("customers.csv").read_text("utf-8"))
        connection.commit()
    assert postgres.rows(query) == answers
    exec(block_of("look-ups.md", "AS spelled"), names)  # noqa: S102
    found = "found in another spelling"
    spelled: list[tuple[object, ...]] = []
    for line, *row in answers:
        if row != [*FAY]:
            spelled.append((str(line), *row, None))
            continue
        for identity, address in (("4", "FAY.LEE@example.com"), ("3", "Fay.Lee@example.com")):
            spelled.append((str(line), *FAY[:3], identity, found, address))
    assert names["complete"].fetchall() == spelled
    assert len(Path("all-answers.csv").read_text("utf-8").splitlines()) == 1 + len(spelled)
    # The same with the names of those who are found.
    text = (GUIDES / "look-ups.md").read_text("utf-8")
    of_two, of_three = sorted(re.findall(r"`(coalesce\(found.+ AS found_name)`", text), key=len)
    mark = "AS found_identity,"
    exec(code.replace(mark, f"{mark} {of_three},"), names)  # noqa: S102
    code = block_of("look-ups.md", "AS spelled").replace(mark, f"{mark} {of_two},")
    exec(code, names)  # noqa: S102
    known = names["complete"].filter("answer LIKE 'found%'")
    expected = {(one.get("identity"), one["name"]) for one in people}
    assert {*known.project("found_identity, found_name").fetchall()} == expected


@pytest.mark.anyio
async def test_a_list_may_have_columns_of_the_answers_and_late_quotes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    # DuckDB looks at some 20,000 lines to find how a file is written.
    plain = "Plain,,,,,\n" * 30_000
    own = [" 1 Main St", "vip", "their ID", "7"]
    rows = "".join(f'"{name}, Q","{name}@example.com",{",".join(own)}\n' for name in ("Ann", "BOB"))
    header = "name,email,address,result,identity,line\n"
    fay = f"Fay,fay.lee@example.com,{','.join(own)}\n"
    Path("customers.csv").write_text(header + plain + rows + fay, "utf-8")
    async with (
        Emulator(records=[*RECORDS[:3]]) as emulator,
        Session(clevertap=emulator.clevertap) as session,
    ):
        await session.export_lookups(
            "customers.csv", by="email", column="email", to="found.parquet"
        )
        await anyio.run_process(["/bin/sh", "-c", command_of("key.strip()")])
        await session.export_lookups("again.txt", by="email", to="again.parquet")
        await session.export("App Launched", start=20260101, end=20260131, to="people.parquet")
    names: dict[str, Any] = {}
    for text in ("found in lower case", "AS spelled"):
        exec(block_of("look-ups.md", text), names)  # noqa: S102
    rows_found = names["complete"].fetchall()
    assert len(rows_found) == 30_003
    assert [(*row[1:2], *row[3:]) for row in rows_found[-3:]] == [
        ("Ann, Q", *own, "Ann@example.com", "1", "found", None),
        ("BOB, Q", *own, "BOB@example.com", "2", "found in lower case", None),
        (
            *("Fay", *own, "fay.lee@example.com"),
            *("3", "found in another spelling", "Fay.Lee@example.com"),
        ),
    ]


@pytest.mark.anyio
async def test_a_queue_of_keys_keeps_its_results_and_ends_in_an_outage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    work_off = function_of("look-ups.md", "work_off")
    ids = [f"{number}" for number in range(300)]
    async with (
        Emulator(records=[{"identity": one} for one in ids]) as emulator,
        Session(clevertap=emulator.clevertap, retry=Retry(attempts=1)) as session,
    ):
        # Keys that are not valid say nothing of the service.
        await work_off(session, [*ids[:5], *(" " * number for number in range(20))])
        emulator.faults = {"server_error": 1}
        with pytest.raises(ServerError):
            await work_off(session, ids)
        assert emulator.stats.requests["profile"] < 100
        emulator.faults = {}
        await work_off(session, ids)
        assert emulator.stats.requests["profile"] < 400
    assert capsys.readouterr().out == "0 to ask for again\n" * 2
    with sqlite3.connect("jobs.sqlite") as store:
        states = store.execute("SELECT state, count(*) FROM jobs GROUP BY state ORDER BY state")
        assert states.fetchall() == [("found", 300), ("refused", 20)]
    store.close()


@pytest.mark.anyio
async def test_an_anonymous_id_of_several_users_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    bindings = {"user1": ["phone", "tablet"], "user2": ["laptop"], "user3": ["tablet", "laptop"]}
    async with Emulator(bindings=bindings) as emulator, Session(alta=emulator.alta) as session:
        await function_of("look-ups.md", "shared_ids")(session)
    # Nobody has asked for user3.
    shared = [("laptop", ["user2", "user3"]), ("tablet", ["user1", "user3"])]
    assert f"{shared}\n" in capsys.readouterr().out


SHEET = [
    # Each line is a row of the list, its ID without what Excel has added, and its answer.
    ("as it is", "700", None, "found"),
    ("a float", "700.0", "700", "found, repaired"),
    ("blanks", " 700\u00a0", "700", "found, repaired"),
    ("marked as text", "'700", "700", "found, repaired"),
    ("all of them", " ' 700.0 ", "700", "found, repaired"),
    ("somebody's own", "8.0", "8", "found"),
    ("somebody's own mark", "'9", "9", "found"),
    ("text", "user_1967", None, "found"),
    ("zeros", "'0007", "0007", "found, repaired"),
    ("nobody", "1000.0", "1000", "not found"),
    ("quoted", "O'Neil", None, "not found"),
    ("shortened", "1.2E+11", None, "digits are lost"),
    ("shortened of floats", "7.0E+09", None, "digits are lost"),
    ("shortened in German", "5,5E+09", None, "digits are lost"),
    ("too long", "1234567890123456.0", None, "digits are lost"),
    ("an ID like a shortened one", "12E", None, "not found"),
    ("empty", None, None, "no ID"),
    ("blank", " ", None, "no ID"),
]


@pytest.mark.anyio
async def test_ids_that_a_spreadsheet_has_changed_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = "".join(f'{name},"{key or ""}"\n' for name, key, *_ in SHEET)
    Path("sheet.csv").write_text(f"name,id\n{rows}", "utf-8")
    known = ["700", "8.0", "8", "'9", "9", "user_1967", "0007"]
    records = [{"identity": key, "email": f"{key}@example.com"} for key in known]
    async with (
        Emulator(records=records) as emulator,
        Session(clevertap=emulator.clevertap) as session,
    ):
        await session.export_lookups(
            "sheet.csv", by="identity", column="id", to="as-written.parquet"
        )
        exec(block_of("look-ups.md", "AS repaired"), {})  # noqa: S102
        report = await session.export_lookups(
            "repaired.csv", by="identity", column="repaired", to="as-repaired.parquet"
        )
    # The repair leaves nothing to repair.
    assert report.warnings == []
    names: dict[str, Any] = {}
    exec(block_of("look-ups.md", "'found, repaired'"), names)  # noqa: S102
    answers = {row[0]: row for row in names["answers"].fetchall()}
    for name, key, repaired, result in SHEET:
        found = answers[name]
        assert (found[2] or None, found[-1]) == (repaired, result), name
        is_found = result.startswith("found")
        assert found[3] == (
            f"{key if result == 'found' else repaired}@example.com" if is_found else None
        )


# ----------------------------------------------------------------------- lists that Excel has saved


def test_leading_zeros_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    identities = ["04900000000000300", "00000000000000017", "short"]
    people = {"identity": identities, "email": ["a", "b", "c"]}
    pq.write_table(pa.table(people), "people.parquet")
    ids = ["4900000000000300", "17", "", "user_7", "123456789012345678"]
    Path("numbers.csv").write_text("name;id\n" + "".join(f"n;{one}\n" for one in ids))
    lengths = duckdb.execute(block_of("look-ups.md", "AS digits", "sql")).fetchall()
    assert lengths == [(17, 2), (5, 1)]
    duckdb.execute(block_of("look-ups.md", "lpad", "sql"))
    padded = duckdb.read_csv("padded.csv", header=True, all_varchar=True).fetchall()
    assert [row[-1] for row in padded] == [*identities[:2], None, *ids[3:]]
    found = {"key": identities[:2], "email": ["a", None]}
    pq.write_table(pa.table(found), "found.parquet")
    duckdb.execute(block_of("look-ups.md", "padded-answers.csv", "sql"))
    answers = duckdb.read_csv("padded-answers.csv", header=True, all_varchar=True).fetchall()
    assert [row[0] for row in answers] == [str(number + 1) for number in range(len(ids))]
    results = {row[2]: row[4:] for row in answers}
    expected: dict[str | None, tuple[str | None, str]] = {
        ids[0]: ("a", "found"),
        ids[1]: (None, "found"),
        None: (None, "no ID"),
        **dict.fromkeys(ids[3:], (None, "not found")),
    }
    assert results == expected


def test_leading_zeros_come_back_to_ids_that_excel_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = {
        "17": "00000000000000017",
        "17.0": "00000000000000017",
        "'4900000000000300 ": "04900000000000300",
        "04900000000000300": "04900000000000300",
        "user_7.0": "user_7.0",
        "": None,
    }
    Path("sheet.csv").write_text("name,id\n" + "".join(f'n,"{one}"\n' for one in given))
    exec(block_of("look-ups.md", "AS repaired"), {})  # noqa: S102
    query = block_of("look-ups.md", "lpad", "sql").replace("numbers.csv", "repaired.csv")
    [words] = re.findall(
        r"`(coalesce\(repaired, id\))` in place", (GUIDES / "look-ups.md").read_text("utf-8")
    )
    duckdb.execute(re.sub(r"\bid\b", words, query))
    padded = duckdb.read_csv("padded.csv", header=True, all_varchar=True, quotechar='"')
    assert [row[-1] for row in padded.fetchall()] == [*given.values()]


def test_phones_match_however_they_are_spelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    phones = ["+4917155501", "4917155502", "0049 171 55503", "0171/55504", None, "", "+33155505"]
    # Who has only a phone is found as well.
    identities = [*"abc", None, *"efg"]
    people = {
        "person": [*"abcdefg"],
        "identity": identities,
        "name": identities,
        "email": phones,
        "phone": phones,
    }
    pq.write_table(pa.table(people), "people.parquet")
    rows = {
        "Ann": ("0171 555-01", "a"),
        "Bob": ("+49 (0)171 55502", "b"),
        "Cat": ("004917155503", "c"),
        "Dan": ("+49 0171 55504", None),
        "Eve": ("", None),
        "Fay": ("0171 55599", None),
        "Ann 10": ("0033 1 555 05", "g"),
    }
    lines = "".join(f"{name};{phone}\n" for name, (phone, _) in rows.items())
    Path("phones.csv").write_text(f"name;phone\n{lines}")
    duckdb.execute(block_of("look-ups.md", "bare(phone)", "sql"))
    matched = duckdb.read_csv("matched.csv", header=True, all_varchar=True)
    found = [(row[0], row[1], row[3]) for row in matched.fetchall()]
    assert found == [(str(n), name, who) for n, (name, (_, who)) in enumerate(rows.items(), 1)]
    answers = [row[-1] for row in matched.fetchall()]
    assert answers == [*["found"] * 4, "not found", "not found", "found"]


@pytest.mark.anyio
async def test_those_who_have_chatted_are_counted_by_channel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options: dict[str, Any] = {"with_cdp": True, "cdp_key": "identity", "cdp_by": "user_id"}
    days: dict[str, Any] = {"start": 20260101, "end": 20260131}
    async with (
        Emulator(people=200) as emulator,
        Session(clevertap=emulator.clevertap, alta=emulator.alta) as session,
    ):
        for ending in ("parquet", "ndjson"):
            await session.export("App Launched", **days, to=f"joined.{ending}", **options)
        found = duckdb.execute("SELECT identity FROM 'joined.parquet' WHERE identity <> ''")
        keys = [identity for (identity,) in found.fetchall()]
        await session.export_lookups(keys, by="user_id", to="chat.parquet")
    people, payers = Counter[str](), Counter[str]()
    for line in Path("joined.ndjson").read_bytes().splitlines():
        record = json.loads(line)
        channels = {
            one["conversation_type"] for user in record["cdp"] for one in user["anonymous_ids"]
        }
        people.update(channels)
        if "Charged" in record["events"]:
            payers.update(channels)
    assert len(people) > 1
    assert 0 < payers.total() < people.total()
    rows = duckdb.execute(block_of("look-ups.md", "has_paid", "sql")).fetchall()
    assert {row[0]: row[1:] for row in rows} == {
        channel: (number, payers[channel]) for channel, number in people.items()
    }
    numbers = [row[1] for row in rows]
    assert numbers == sorted(numbers, reverse=True)
    of_list = duckdb.execute(block_of("look-ups.md", "conversation_type AS channel", "sql"))
    assert of_list.fetchall() == [row[:2] for row in rows]


@pytest.mark.anyio
async def test_chats_belong_to_customers_to_users_or_to_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    chats = [
        "of-ann",
        "of-both",
        "of-ann",
        "",
        " ",
        "\t\u00a0",
        "of-stranger",
        "'of|nobody'",
        "of-bob",
    ]
    Path("chats.csv").write_text("\n".join(["anonymous_id", *chats]))
    bindings = {
        "ann": ["of-ann", "of-both"],
        "stranger": ["of-both", "of-stranger"],
        "bob": ["of-bob"],
    }
    records = [{"identity": "ann"}, {"identity": "bob"}]
    async with Emulator(records=records, bindings=bindings) as emulator:
        for command in re.findall(
            r"(?m)^\$ (altaprofiles .*(?:owners|customers)\.parquet)$",
            (GUIDES / "look-ups.md").read_text("utf-8"),
        ):
            done = await anyio.run_process(
                [sys.executable, "-m", *shlex.split(command)],
                env=environment(tmp_path, emulator.environment),
            )
            assert done.returncode == 0
    rows = duckdb.execute(block_of("look-ups.md", "AS belongs_to", "sql")).fetchall()
    assert sorted(rows) == [
        ("a customer", 4, 3),
        ("a user without a profile", 1, 1),
        ("no ID", 3, 2),
        ("nobody", 1, 1),
    ]


def test_a_phone_is_found_in_a_table_of_postgresql(
    postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    postgres.run(
        "CREATE TABLE profiles (account text, identity text, name text, email text, phone text)"
    )
    postgres.run(
        "INSERT INTO profiles VALUES ('A', '1', 'Ann', NULL, '+49 171-5550111')",
        "INSERT INTO profiles VALUES ('A', '2', 'Bob', NULL, NULL)",
    )
    index, query = block_of("look-ups.md", "profiles_by_phone", "sql").split(";\n", 1)
    postgres.run(index)
    assert postgres.rows(query) == [("A", "1", "Ann", None)]
    with postgres.connect() as connection:
        connection.execute("SET enable_seqscan = off")
        plan = connection.execute(f"EXPLAIN {query}").fetchall()
    assert "profiles_by_phone" in str(plan)


@pytest.mark.anyio
async def test_only_the_new_ids_of_a_table_are_asked_for(
    postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    look_up_new = function_of("look-ups.md", "look_up_new")
    postgres.run(
        "CREATE TABLE signups (user_id text)",
        "INSERT INTO signups VALUES ('1'), ('2'), ('2'), (''), (E' \\t'), (NULL), ('gone')",
    )
    async with Emulator(records=RECORDS) as emulator:
        account = emulator.clevertap.account_id
        async with Session(clevertap=emulator.clevertap) as session:
            first = await look_up_new(session, postgres.url(), account)
            assert (first.found, first.not_found, first.skipped) == (2, 1, 0)
            postgres.run("INSERT INTO signups VALUES ('3'), ('1')")
            asked = emulator.stats.requests["profile"]
            second = await look_up_new(session, postgres.url(), account)
            assert (second.found, second.not_found) == (1, 1)
            assert emulator.stats.requests["profile"] == asked + 2
            none = await look_up_new(session, postgres.url(), account)
            assert (none.found, none.not_found, none.warnings) == (0, 1, [])
            postgres.run("DELETE FROM signups WHERE user_id = 'gone'")
            assert await look_up_new(session, postgres.url(), account) is None
            # Numbers, and those that the table has of another account only.
            postgres.run(
                "DELETE FROM signups WHERE user_id !~ '[0-9]'",
                "ALTER TABLE signups ALTER user_id TYPE bigint USING user_id::bigint",
                "UPDATE looked_up SET account = 'OTHER' WHERE key = '2'",
            )
            third = await look_up_new(session, postgres.url(), account)
            assert (third.keys, third.found) == (1, 1)
            postgres.run("DELETE FROM looked_up WHERE account = 'OTHER'")
            # Once a month, here on each day of it.
            monkeypatch.setitem(look_up_new.__globals__, "ALL_ON", range(1, 32))
            every = await look_up_new(session, postgres.url(), account)
            assert (every.keys, every.found) == (3, 3)
        # The same from a shell: one ID is new, then none.
        names: dict[str, Any] = {}
        exec(block_of("look-ups.md", "# new_ids.py"), names)  # noqa: S102
        script = block_of("look-ups.md", "$NEW", "sh")
        new = {"URL": postgres.url(), "NEW": names["NEW"].replace("%(account)s", f"'{account}'")}
        path = f"{Path(sys.executable).parent}:{clients()}:/usr/bin:/bin"
        # Somebody's settings of psql, which have it print more than the rows.
        (rc := tmp_path / "psqlrc").write_text("\\timing on\n")
        env = environment(tmp_path, emulator.environment, new, PATH=path, PSQLRC=str(rc))
        postgres.run("INSERT INTO signups VALUES (4)")
        for new_ids in (1, 0):
            asked = emulator.stats.requests["profile"]
            await anyio.run_process(["/bin/sh", "-c", script], env=env)
            assert emulator.stats.requests["profile"] == asked + new_ids
        keys = postgres.rows("SELECT key FROM looked_up ORDER BY 1")
        assert keys == [("1",), ("2",), ("3",), ("4",)]
        # A killed night resumes if the same IDs come in the same order.
        postgres.run("INSERT INTO signups SELECT generate_series(10, 99)")
        assert postgres.rows(new["NEW"]) == [(str(number),) for number in range(10, 100)]
        # A 2 would mean that no retry helps.
        async with closed() as nowhere:
            env["URL"] = f"{nowhere.url.replace('http', 'postgresql')}/crm"
            done = await anyio.run_process(["/bin/sh", "-c", script], env=env, check=False)
        assert done.returncode == 1, done.stderr


@pytest.mark.anyio
async def test_only_the_new_ids_are_asked_for_at_alta(
    postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code = block_of("look-ups.md", "# new_ids.py")
    lines = re.search(r"^BY: .*?(?=^KNOWN)", code, re.MULTILINE | re.DOTALL)
    assert lines
    names: dict[str, Any] = {}
    exec(code.replace(lines[0], block_of("look-ups.md", 'BY: Final = "user_id"')), names)  # noqa: S102
    postgres.run(
        "CREATE SCHEMA crm",
        "CREATE TABLE crm.signups (user_id text, created_at timestamptz)",
        "INSERT INTO crm.signups VALUES ('ann', now()), ('x', now())",
        "INSERT INTO crm.signups VALUES ('old', now() - interval '8 days')",
        "INSERT INTO crm.signups VALUES ('older', now() - interval '9 days')",
    )
    async with Emulator(bindings={"ann": ["a1", "a2"], "bob": ["b1"], "old": ["o1"]}) as emulator:
        for agent in (emulator.alta, Alta(emulator.token, base_url=emulator.url, name="shop")):
            async with Session(alta=agent) as session:
                report = await names["look_up_new"](session, postgres.url(), agent.account)
                # The first night of each account has all.
                assert (report.found, report.not_found) == (2, 2)
                report = await names["look_up_new"](session, postgres.url(), agent.account)
                assert (report.found, report.not_found) == (0, 1)
        accounts = {emulator.alta.account, "shop"}
        # The same from a shell.
        script = block_of("look-ups.md", "$NEW", "sh").replace("--by identity", "--by user-id")
        script = script.replace("looked_up", "crm.looked_up")
        new = {"URL": postgres.url(), "NEW": names["NEW"].replace("%(account)s", "'shop'")}
        path = f"{Path(sys.executable).parent}:{clients()}:/usr/bin:/bin"
        env = environment(tmp_path, emulator.environment, new, ALTA_NAME="shop", PATH=path)
        postgres.run(
            "DELETE FROM crm.signups",
            "INSERT INTO crm.signups VALUES ('ann', now()), ('bob', now())",
        )
        for new_ids in (1, 0):
            asked = emulator.stats.requests["cdp"]
            await anyio.run_process(["/bin/sh", "-c", script], env=env)
            assert emulator.stats.requests["cdp"] == asked + new_ids
    found = {account for (account,) in postgres.rows("SELECT DISTINCT account FROM crm.looked_up")}
    assert found == accounts


class Failing:
    """Both services: they fail for some IDs, know the others but "gone", and note what is asked."""

    def __init__(self, *ids: str) -> None:
        self.failing = {*ids}
        self.asked: list[str] = []

    async def answer(self, head: bytes, writer: asyncio.StreamWriter) -> None:
        key = re.split(rb"[?&](?:identity|user_id)=", head)[1].split(b" ")[0].decode()
        self.asked.append(key)
        if key in self.failing:
            writer.write(http(b"", "503 Service Unavailable"))
        elif head.startswith(b"GET /v1/"):
            one = {"anonymous_id": f"a{key}", "conversation_type": "WEB"}
            users = {} if key == "gone" else {key: {"user_id": key, "anonymous_ids": [one]}}
            writer.write(http(json.dumps({"code": 0, "data": users}).encode()))
        else:
            record = None if key == "gone" else {"identity": key}
            writer.write(http(json.dumps({"status": "success", "record": record}).encode()))


@pytest.mark.anyio
@pytest.mark.parametrize("has_new", [True, False], ids=["new IDs", "no new IDs"])
@pytest.mark.parametrize("by", ["identity", "user_id"])
async def test_an_old_id_without_an_answer_is_asked_for_in_the_next_night(
    postgres: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    by: Literal["identity", "user_id"],
    *,
    has_new: bool,
) -> None:
    monkeypatch.chdir(tmp_path)
    code = block_of("look-ups.md", "# new_ids.py")
    old = re.search(r"^BY: .*?(?=^KNOWN)", code, re.MULTILINE | re.DOTALL)
    assert old
    of_alta = block_of("look-ups.md", 'BY: Final = "user_id"').replace('user_id"', f'{by}"')
    names: dict[str, Any] = {}
    exec(code.replace(old[0], of_alta), names)  # noqa: S102
    look_up_new, table = names["look_up_new"], names["TABLE"]
    month_ago = "now() - interval '30 days'"
    postgres.run(
        "CREATE SCHEMA crm",
        "CREATE TABLE crm.signups (user_id text, created_at timestamptz)",
        f"INSERT INTO crm.signups SELECT unnest(ARRAY['1', '2', '3', '4', 'gone']), {month_ago}",
    )
    failing = Failing("3")

    def keys() -> list[str]:
        return [key for (key,) in postgres.rows(f"SELECT key FROM {table} ORDER BY 1")]

    async with scripted(failing.answer) as server:
        clevertap = CleverTap("ID", "PASSCODE", base_url=server.url)
        alta = Alta("token", base_url=server.url, name="shop")
        other = CleverTap("OTHER", "PASSCODE", base_url=server.url)
        outlet = Alta("other", base_url=server.url, name="outlet")
        account = "ID" if by == "identity" else "shop"
        async with Session(clevertap=clevertap, alta=alta, retry=QUICK) as session:
            night = partial(look_up_new, session, postgres.url(), account)
            with pytest.raises(Incomplete, match="no answer for 1 key"):
                await night()
            assert keys() == ["1", "2", "4"]
            if has_new:
                # An ID that fails once more does not keep the new ones, and is asked for once.
                postgres.run("INSERT INTO crm.signups VALUES ('5', now())")
                with pytest.raises(Incomplete, match="no answer for 1 key"):
                    await night()
                assert keys() == ["1", "2", "4", "5"]
                assert len(unfinished_in(postgres.url(), table=table)) == 1
                postgres.run("INSERT INTO crm.signups VALUES ('6', now())")
            failing.failing, failing.asked = set(), []
            report = await night()
            assert "3" in keys()
            assert failing.asked.count("3") == 1
            if by == "identity":
                assert failing.asked == (["3", "6"] if has_new else ["3"])
            assert (report.found if report else None) == (1 if has_new else None)
            assert unfinished_in(postgres.url(), table=table) == []
            # What another account has left stays for its own nights.
            failing.failing = {"9"}
            async with Session(clevertap=other, alta=outlet, retry=QUICK) as theirs:
                with pytest.raises(Incomplete):
                    await theirs.export_lookups(["8", "9"], by=by, to=postgres.url(), table=table)
            caplog.clear()
            await night()
            # Of an agent it is known only when it is to be finished.
            assert ("another agent" in caplog.text) == (by == "user_id")
            assert len(unfinished_in(postgres.url(), table=table)) == 1


@pytest.mark.anyio
async def test_the_shell_finishes_an_earlier_look_up_before_the_new_ids(
    postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    code = block_of("look-ups.md", "# new_ids.py")
    is_young = "user_id = '4'"
    exec(code.replace('AGAIN = "true"', f'AGAIN = "{is_young}"'), names)  # noqa: S102
    script = block_of("look-ups.md", "$NEW", "sh")
    postgres.run("CREATE TABLE signups (user_id text)", "INSERT INTO signups VALUES ('1'), ('3')")
    failing = Failing("3")
    async with scripted(failing.answer) as server:
        variables = {
            "CLEVERTAP_ACCOUNT_ID": "ID",
            "CLEVERTAP_PASSCODE": "PASSCODE",
            "CLEVERTAP_BASE_URL": server.url,
            "URL": postgres.url(),
            "NEW": names["NEW"].replace("%(account)s", "'ID'"),
        }
        path = f"{Path(sys.executable).parent}:{clients()}:/usr/bin:/bin"
        env = environment(tmp_path, variables, PATH=path)
        run = partial(anyio.run_process, ["/bin/sh", "-c", script], env=env, check=False)
        clevertap = CleverTap("ID", "PASSCODE", base_url=server.url)
        async with Session(clevertap=clevertap, retry=QUICK) as session:
            with pytest.raises(Incomplete):
                await names["look_up_new"](session, postgres.url(), "ID")
        # With other credentials it cannot be finished, and the new ID is looked up all the same.
        postgres.run("INSERT INTO signups VALUES ('4')")
        found = "SELECT account, key FROM looked_up ORDER BY 1, 2"
        env["CLEVERTAP_ACCOUNT_ID"] = "OTHER"
        assert (await run()).returncode == 2
        assert postgres.rows(found) == [("ID", "1"), ("OTHER", "4")]
        env["CLEVERTAP_ACCOUNT_ID"] = "ID"
        failing.failing, failing.asked = set(), []
        for _ in range(2):
            assert (await run()).returncode == 0
            assert failing.asked == ["3", "4"]
    rows = [("ID", "1"), ("ID", "3"), ("ID", "4"), ("OTHER", "4")]
    assert postgres.rows(found) == rows
