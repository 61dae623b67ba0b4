"""Whole exports into tables of both databases, run after run."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pytest

from altaprofiles import (
    Alta,
    ExportError,
    Filter,
    Incomplete,
    InvalidArgument,
    LookupProgress,
    LookupReport,
    Report,
    unfinished_in,
)
from altaprofiles.emulator import Emulator

from ..support.jobs import Halt
from ..support.joining import DOWN, Both, both, user
from ..support.postgres import Server
from ..support.sessions import session_for

pytestmark = pytest.mark.anyio

Query = Callable[[str], list[tuple[Any, ...]]]


@pytest.fixture(params=["duckdb", "postgres"])
def place(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, Query]:
    """Give the address of an empty database, and a function that queries it."""
    # Manifests of tables are in the current folder.
    monkeypatch.chdir(tmp_path)
    if request.param == "postgres":
        server: Server = request.getfixturevalue("postgres")
        return server.url(), server.rows

    def query(sql: str) -> list[tuple[Any, ...]]:
        with duckdb.connect("crm.duckdb") as connection:
            return connection.execute(sql).fetchall()

    return "crm.duckdb", query


PAIRS = "SELECT key, user_id, anonymous_id FROM bindings ORDER BY 1, 2, 3"


async def look_up(
    services: Both, to: str, *keys: str, agent: str | None = None, **options: Any
) -> LookupReport:
    async with services.session(agent=agent) as session:
        return await session.export_lookups(keys, by="user_id", to=to, **options)


KEYS = [f"{number:03}" for number in range(300)]


async def halt(services: Both, to: str, **options: Any) -> int:
    """End a lookup of `KEYS` midway; return the number of answers that it has kept."""

    def on_progress(progress: LookupProgress) -> None:
        if progress.answered >= 100:
            raise Halt

    with pytest.raises(Halt):
        await look_up(services, to, *KEYS, on_progress=on_progress, **options)
    # The newest one is the last.
    return unfinished_in(to)[-1].items


@pytest.mark.parametrize("finished", ["by the same call", "as unfinished"])
@pytest.mark.parametrize("write", ["upsert", "replace"])
async def test_a_resumed_lookup_brings_no_bindings_of_before_another_one(
    place: tuple[str, Query], caplog: pytest.LogCaptureFixture, finished: str, write: Any
) -> None:
    to, query = place
    async with both() as services:
        services.users = {key: [user(key, "old")] for key in KEYS[1:]}
        kept = await halt(services, to)
        services.users = {key: [user(key, "new")] for key in KEYS[:-1]}
        await look_up(services, to, *KEYS, "other", write=write)
        report: Report
        if finished == "by the same call":
            report = await look_up(services, to, *KEYS)
        else:
            [left] = unfinished_in(to)
            async with services.session() as session:
                report = await session.finish_unfinished(left, to=to)
        assert isinstance(report, LookupReport)
        assert (report.resumed, report.found) == (0, 299)
    assert query(PAIRS) == [(key, key, "new") for key in KEYS[:-1]]
    [line] = [text for text in caplog.messages if "asks again for" in text]
    assert f"asks again for {kept} keys whose rows this one writes" in line


async def test_a_resumed_lookup_keeps_answers_that_no_other_one_has_brought(
    place: tuple[str, Query],
) -> None:
    to, query = place
    async with both() as services:
        services.users = {key: [user(key, "old")] for key in KEYS}
        kept = await halt(services, to)
        services.users = {key: [user(key, "new")] for key in KEYS}
        await look_up(services, to, *KEYS[:50])
        # No more than a description.
        for manifest in Path.cwd().glob("*.manifest.json"):
            manifest.unlink()
        report = await look_up(services, to, *KEYS)
        assert (report.resumed, report.found) == (kept - 50, 300)
    assert {row[2] for row in query(PAIRS)[:50]} == {"new"}
    assert len([row for row in query(PAIRS) if row[2] == "old"]) == kept - 50


async def test_lookups_of_two_accounts_are_told_apart_as_they_are_resumed(
    place: tuple[str, Query],
) -> None:
    to, query = place
    async with both() as services:
        services.users = {key: [user(key, "old")] for key in KEYS}
        kept = [await halt(services, to, agent=agent) for agent in ("shop", "outlet", "third")]
        services.users = {key: [user(key, "new")] for key in KEYS}
        for agent in ("shop", "outlet"):
            await look_up(services, to, *KEYS, "other", agent=agent)
        reports = [await look_up(services, to, *KEYS, agent=agent) for agent in ("shop", "outlet")]
        assert [report.resumed for report in reports] == [0, 0]
        # Of this one, nobody else has brought anything.
        assert (await look_up(services, to, *KEYS, agent="third")).resumed == kept[2]
    rows = "SELECT DISTINCT account, anonymous_id FROM bindings ORDER BY 1, 2"
    new = [("outlet", "new"), ("shop", "new"), ("third", "new"), ("third", "old")]
    assert query(rows) == new


@pytest.mark.parametrize("damage", [None, "UPDATE state SET value = '{}' WHERE name = 'plan'"])
async def test_an_unfinished_lookup_that_is_damaged_is_in_nobodys_way(
    place: tuple[str, Query], damage: str | None
) -> None:
    to, query = place
    async with both() as services:
        services.users = {key: [user(key, "a")] for key in KEYS}
        await halt(services, to)
        [left] = unfinished_in(to)
        if damage is None:
            (left.path / "journal.sqlite").write_bytes(b"damaged" * 1000)
        else:
            with closing(sqlite3.connect(left.path / "journal.sqlite")) as journal, journal:
                journal.execute(damage)
        report = await look_up(services, to, "1", "2")
        assert (report.complete, query(PAIRS)) == (True, [])


async def test_a_lookup_that_has_written_its_own_answers_is_resumed(
    place: tuple[str, Query],
) -> None:
    to, query = place
    async with both() as services:
        services.users = {key: [user(key, "a")] for key in "12345"}
        services.answers["4"] = DOWN
        with pytest.raises(Incomplete):
            await look_up(services, to, *"12345")
        services.answers.clear()
        report = await look_up(services, to, *"12345")
    assert (report.resumed, report.found) == (4, 5)
    assert [key for key, _, _ in query(PAIRS)] == [*"12345"]


async def test_the_rows_of_every_key_that_was_answered_are_replaced(
    place: tuple[str, Query],
) -> None:
    to, query = place
    async with both() as services:
        services.users = {key: [user(key, "a", "b")] for key in "12345"}
        await look_up(services, to, *"12345")
        services.users["1"] = [user("1", "c")]
        del services.users["2"]
        services.users["3"] = []
        services.answers["4"] = DOWN
        with pytest.raises(Incomplete) as caught:
            await look_up(services, to, *"1234")
        assert caught.value.report is not None
        assert caught.value.report.not_found == 2
        kept = [(key, key, one) for key in "45" for one in "ab"]
        assert query(PAIRS) == [("1", "1", "c"), *kept]
        # The key that has failed is asked for again.
        services.answers.clear()
        del services.users["4"]
        await look_up(services, to, *"1234")
        assert query(PAIRS) == [("1", "1", "c"), *kept[2:]]
        # Nothing is bound to any of them.
        services.users.clear()
        report = await look_up(services, to, *"15")
        assert (report.found, report.not_found) == (0, 2)
        assert query(PAIRS) == []


async def test_rows_under_another_name_of_an_agent_come_with_a_warning(
    place: tuple[str, Query], caplog: pytest.LogCaptureFixture
) -> None:
    to, query = place
    async with both() as services:
        services.users = {key: [user(key, "a")] for key in "123"}
        assert (await look_up(services, to, *"12", agent="shop")).warnings == []
        assert (await look_up(services, to, *"13", agent="shop")).warnings == []
        # By the same key, whose digest is the account without a name.
        digest = Alta("TOKEN").account
        [warning] = (await look_up(services, to, *"12")).warnings
        assert "bindings" in warning
        assert f" has 3 rows of other accounts (shop), and gets those of {digest}" in warning
        assert "ALTA_NAME" in warning
        assert warning in caplog.messages
        # From then on the table has both.
        for agent in (None, "shop"):
            assert (await look_up(services, to, *"12", agent=agent)).warnings == []
        rows = query("SELECT account, count(*) FROM bindings GROUP BY 1 ORDER BY 1")
        assert rows == [(digest, 2), ("shop", 3)]
        # Two names are those of two agents.
        for agent in ("shop", "outlet"):
            report = await look_up(services, to, *"12", agent=agent, table="named")
            assert report.warnings == []
        # A run that brings nothing changes nothing.
        report = await look_up(services, to, "nobody", agent="outlet")
        assert not any("outlet" in warning for warning in report.warnings)


async def test_keys_of_the_other_kind_are_said(tmp_path: Path) -> None:
    async with both() as services, services.session() as session:
        services.users = {"1": [user("1", "a")]}
        for by, keys, advice in (
            (
                "user_id",
                "xy",
                "; if the keys are anonymous IDs, pass by='anonymous_id' (--by anonymous-id)",
            ),
            ("anonymous_id", "xy", "; if the keys are user IDs, pass by='user_id' (--by user-id)"),
            ("anonymous_id", "x", "; if the key is a user ID, pass by='user_id' (--by user-id)"),
            ("user_id", "", ""),
        ):
            to = tmp_path / f"{by}.ndjson"
            options: Any = {"by": by, "resume": False}
            [warning] = (await session.export_lookups([*keys], to=to, **options)).warnings
            assert warning.startswith("0 users")
            assert warning.partition(f"{to}")[2] == advice
        report = await session.export_lookups(["1", "x"], by="user_id", to=tmp_path / "1.ndjson")
        assert report.warnings == []


NEW_ALONE = ("0 users came, ", "; if the keys are anonymous IDs")


async def test_a_night_whose_new_users_have_not_chatted_is_no_mistake(
    place: tuple[str, Query],
) -> None:
    to, query = place
    async with both() as services:
        services.users = {"1": [user("1", "a")]}
        # As long as nothing was ever found, the keys may be of the other kind.
        [warning] = (await look_up(services, to, *"23", agent="shop")).warnings
        assert all(words in warning for words in NEW_ALONE)
        assert (await look_up(services, to, *"123", agent="shop")).warnings == []
        for keys in ("23", "45", ""):
            report = await look_up(services, to, *keys, agent="shop")
            assert (report.not_found, report.warnings) == (len(keys), [])
        # Another kind of key, another account, and rows that are replaced.
        [warning] = (await look_up(services, to, *"23", agent="outlet")).warnings
        assert all(words in warning for words in NEW_ALONE)
        async with services.session(agent="shop") as session:
            report = await session.export_lookups(["2"], by="anonymous_id", to=to)
            assert [text.startswith("0 users came, ") for text in report.warnings] == [True]
        assert query(PAIRS) == [("1", "1", "a")]
        # The last row is that of a user whose chats are gone.
        services.users.clear()
        [warning] = (await look_up(services, to, *"12", agent="shop")).warnings
        assert warning.startswith(NEW_ALONE[0])


async def test_a_night_whose_new_people_are_unknown_is_no_mistake(
    place: tuple[str, Query],
) -> None:
    to, _ = place
    async with both() as services, services.session() as session:
        services.people = {"1": b'{"identity":"1"}'}
        for keys, count in (("2", 1), ("12", 0), ("23", 0)):
            report = await session.export_lookups([*keys], by="identity", to=to)
            assert len(report.warnings) == count
        # The @ is a sign that the rows cannot outweigh.
        report = await session.export_lookups(["a@b.example"], by="identity", to=to)
        assert "0 people came, " in report.warnings[-1]
        assert "--by email" in report.warnings[-1]


async def test_a_key_of_nobody_leaves_the_rows_of_people_alone(place: tuple[str, Query]) -> None:
    to, query = place
    async with both() as services, services.session() as session:
        services.people = {key: b'{"identity":"%b"}' % key.encode() for key in "12"}
        await session.export_lookups(["1", "2"], by="identity", to=to)
        services.people.clear()
        await session.export_lookups(["1", "2"], by="identity", to=to)
    assert query("SELECT key FROM profiles ORDER BY 1") == [("1",), ("2",)]


async def test_a_run_that_is_completed_is_appended_once(place: tuple[str, Query]) -> None:
    to, query = place
    async with both() as services:
        services.users = {key: [user(key)] for key in "123"}
        await look_up(services, to, *"123", write="append")
        services.answers["2"] = DOWN
        with pytest.raises(Incomplete):
            await look_up(services, to, *"123", write="append")
        assert [key for key, *_ in query(PAIRS)] == [*"11233"]
        services.answers.clear()
        await look_up(services, to, *"123", write="append")
        assert [key for key, *_ in query(PAIRS)] == [*"112233"]


async def test_a_join_that_is_completed_is_appended_once(place: tuple[str, Query]) -> None:
    to, query = place
    async with both() as services, services.session() as session:
        services.pages = [[b'{"identity":"1"}', b'{"identity":"2"}']]
        services.users = {"1": [user("1")], "2": [user("2")]}

        async def export() -> None:
            await session.export(
                "Charged", start=20260101, end=20260101, to=to, write="append", with_cdp=True
            )

        await export()
        services.answers["2"] = DOWN
        with pytest.raises(Incomplete):
            await export()
        services.answers.clear()
        await export()
    rows = query("SELECT person, cdp IS NULL FROM profiles ORDER BY 1")
    assert rows == [(f"identity:{one}", False) for one in "1122"]


async def test_people_are_as_often_in_a_table_as_they_were_asked_for(
    place: tuple[str, Query],
) -> None:
    to, query = place
    async with both() as services, services.session() as session:
        services.pages = [[b'{"identity":"1"}', b'{"identity":"2"}', b'{"identity":"1"}']]
        days: Any = {"start": 20260101, "end": 20260101}
        for _ in range(2):
            report = await session.export("Charged", **days, to=to, write="replace", distinct=False)
            assert report.people == 3
        rows = query("SELECT person FROM profiles ORDER BY 1")
    assert rows == [("identity:1",), ("identity:1",), ("identity:2",)]


async def test_a_column_that_a_night_adds_is_null_in_other_rows_until_all_is_exported(
    place: tuple[str, Query], caplog: pytest.LogCaptureFixture
) -> None:
    to, query = place
    async with Emulator(people=60, seed=2) as emulator, session_for(emulator) as session:
        options: Any = {"since": "2026-01-01", "timezone": "UTC", "late_days": 0, "to": to}
        flatten = ["Customer Type"]
        report: Any = await session.sync("App Launched", until="2026-01-09", **options)
        options["flatten"] = flatten
        assert report.warnings == []
        report = await session.sync("App Launched", until="2026-01-10", **options)
        [warning] = report.warnings
        assert (
            "null in the rows, of any account, that this run did not bring: 'Customer Type'; "
            in warning
        )
        assert "export all events and days of the table" in warning
        assert warning in caplog.messages
        report = await session.sync("App Launched", until="2026-01-11", **options)
        assert report.warnings == []
        empty = 'SELECT count(*) FROM profiles WHERE "Customer Type" IS NULL'
        [(before,)] = query(empty)

        async def export(events: Any, start: int, end: int, **others: Any) -> list[str]:
            days: Any = {"start": start, "end": end}
            report = await session.export(events, **days, flatten=flatten, to=to, **others)
            return [one for one in report.warnings if "is kept by a sync" in one]

        # It completes the rows, and `matched` is that of the sync.
        assert await export("App Launched", 20260101, 20260111) == []
        assert query(empty) < [(before,)]
        assert await export(["App Launched", "Charged"], 20251231, 20260111) == []
        # These leave something out.
        assert len(await export("Charged", 20260101, 20260111)) == 1
        assert len(await export("App Launched", 20260102, 20260111)) == 1
        assert len(await export("App Launched", 20260101, 20260110)) == 1
        gold: Any = [Filter("Customer Type", "equals", "Gold")]
        assert len(await export("App Launched", 20260101, 20260111, profile_fields=gold)) == 1
        in_seconds = 1_767_225_600, 1_768_176_000
        assert len(await export("App Launched", *in_seconds)) == 1


@pytest.mark.parametrize(
    ("made", "fix"),
    [
        ({"write": "append"}, "an export with write='append' (--write append)"),
        (
            {"write": "replace", "distinct": False},
            "export into it once with write='replace' (--write replace)",
        ),
    ],
    ids=["appended", "repeated"],
)
async def test_a_sync_is_not_told_to_pass_what_it_does_not_take(
    place: tuple[str, Query], made: dict[str, Any], fix: str
) -> None:
    to, _ = place
    async with Emulator(people=5, seed=2) as emulator, session_for(emulator) as session:
        await session.export("Charged", start=20260101, end=20260101, to=to, **made)
        sent = emulator.stats.requests
        with pytest.raises(ExportError, match="name another table") as caught:
            await session.sync("Charged", since="2026-01-01", until="2026-01-02", to=to)
        assert fix in str(caught.value)
        assert emulator.stats.requests == sent


def person(identity: str, day: int, **data: Any) -> dict[str, Any]:
    """Return a record with one event on a day of January 2026."""
    events = {"Charged": {"count": 1, "first_seen": 1_767_225_600 + 86_400 * (day - 1) + 3600}}
    return {"identity": identity, "events": events, "profileData": data}


async def test_a_column_of_a_type_becomes_text_as_the_warning_says(
    place: tuple[str, Query], request: pytest.FixtureRequest
) -> None:
    to, query = place
    run = request.getfixturevalue("postgres").run if "://" in to else query
    dates = "$D_1608322766", "soon"
    records = [
        person("1", 1, score=7, email=dates[0]),
        person("2", 1, score="gold", email=dates[1]),
        person("3", 3, score="silver", email=dates[1]),
        person("4", 1, score=7.0, email=dates[0]),
    ]
    days: Any = {"since": "2026-01-01", "timezone": "UTC", "late_days": 0, "to": to}
    texts: Any = {"score": "text", "email": "text"}
    values = 'SELECT identity, score, "profile_data.email" FROM profiles ORDER BY 1'
    async with Emulator(records=records) as emulator, session_for(emulator) as session:
        typed: Any = {"score": "int64", "email": "timestamp"}
        report = await session.sync("Charged", until="2026-01-02", flatten=typed, **days)
        (warning,) = [one for one in report.warnings if "do not fit their column" in one]
        sent = emulator.stats.requests
        for key, fix in (("score", "int64"), ("email", "timestamp")):
            flatten: Any = typed | {key: "text"}
            with pytest.raises(InvalidArgument) as caught:
                await session.sync("Charged", until="2026-01-03", flatten=flatten, **days)
            assert repr(fix) in str(caught.value)
            (change,) = re.findall("run: (ALTER TABLE .*); then name", str(caught.value))
            assert change.partition("ALTER COLUMN")[2] in warning
            run(change)
            typed = flatten
        assert emulator.stats.requests == sent
        await session.sync("Charged", until="2026-01-03", flatten=texts, **days)
        assert query(values) == [
            ("1", "7", dates[0]),
            ("2", None, None),
            ("3", "silver", "soon"),
            ("4", "7.0", dates[0]),
        ]
        # The rows that no later night brings are filled as the warning says.
        remedy = (
            "export all events and days of the table once, or sync it once with `late_days` of all "
            "its days, with the same `flatten`; where `profile_data` is kept, an UPDATE fills them "
            'as well (`altaprofiles guide every-night`, "Schema evolution")'
        )
        assert warning.endswith(remedy)
        await session.export("Charged", start=20260101, end=20260103, flatten=texts, to=to)
        assert query(values)[1] == ("2", "gold", "soon")
        # The statement of the warning is one that a table of before takes.
        await session.sync(
            "Charged",
            until="2026-01-01",
            flatten={"score": "int64", "email": "timestamp"},
            table="other",
            **days,
        )
        run(re.findall("run: (ALTER TABLE .*); then name", warning)[0].replace("profiles", "other"))
        await session.sync("Charged", until="2026-01-03", flatten=texts, table="other", **days)
