"""The columns that an export adds to records: where they are from, who they are, and since when."""

from __future__ import annotations

import asyncio
import csv
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from altaprofiles import ConfigurationError, Session
from altaprofiles.emulator import Emulator
from altaprofiles.emulator.people import Population
from altaprofiles.tables.rows import Row

from ..support.jobs import KEYS, at_script, people_of, person
from ..support.marks import told_apart
from ..support.sessions import EVENT, RANGE, session_for
from ..support.sinks import ACCOUNT, opened, put_in_place, rows_of, target_of

pytestmark = [pytest.mark.anyio, pytest.mark.each_value]

EVENTS = ["Charged", "App Launched"]
DAYS = (20260101, 20260131)
NAMES = ["p.csv", "p.parquet", "p.duckdb"]


def rows_in(path: Path, table: str = "profiles") -> list[dict[str, Any]]:
    """Return the rows of a file, with lists and times as such."""
    if path.suffix == ".parquet":
        found: list[dict[str, Any]] = pyarrow.parquet.read_table(path).to_pylist()
        return found
    if path.suffix == ".duckdb":
        with duckdb.connect(str(path), read_only=True) as connection:
            cursor = connection.execute(f"SELECT * FROM {table}")
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    with path.open(newline="") as file:
        rows: list[dict[str, Any]] = [*csv.DictReader(file)]
    for row in rows:
        for name in {"object_ids", "matched"} & row.keys():
            row[name] = json.loads(row[name])
        for name in {"fetched_at", "added_at"} & row.keys():
            row[name] = datetime.fromisoformat(row[name])
    return rows


def matches_of(population: Population) -> dict[str, list[str]]:
    """Return the events of each person, by what identifies the person."""
    return {
        who: sorted(event for event in EVENTS if who in people_of(population, event, *DAYS))
        for event in EVENTS
        for who in people_of(population, event, *DAYS)
    }


@pytest.mark.parametrize("distinct", [True, False])
@pytest.mark.parametrize("name", NAMES)
async def test_a_row_names_every_event_that_brought_the_person(
    tmp_path: Path, name: str, distinct: bool
) -> None:
    write: Any = "replace" if name.endswith("duckdb") and not distinct else None
    async with Emulator(people=100, seed=4) as emulator, session_for(emulator) as session:
        report = await session.export(
            EVENTS, **RANGE, to=tmp_path / name, windows=3, distinct=distinct, write=write
        )
        expected = matches_of(emulator.population)
    rows = rows_in(tmp_path / name)
    assert len(rows) == report.people == (len(expected) if distinct else report.records)
    for row in rows:
        assert row["matched"] == expected[person(row["identity"] or None, row["object_ids"])]
    assert {len(matched) for matched in expected.values()} == {1, 2}


@pytest.mark.parametrize("write", [None, "upsert"])
async def test_an_upsert_writes_each_person_once(tmp_path: Path, write: Any) -> None:
    async with Emulator(people=50) as emulator, session_for(emulator) as session:
        with pytest.raises(ConfigurationError, match=r"^distinct: an upsert writes each person"):
            await session.export(
                EVENT, **RANGE, to=tmp_path / "p.duckdb", distinct=False, write=write
            )
        assert not session.stats.requests
    assert not [*tmp_path.iterdir()]


async def test_everyone_has_matched_no_event(tmp_path: Path) -> None:
    async with (
        Emulator(people=50, base_query="optional") as emulator,
        session_for(emulator) as session,
    ):
        await session.export(to=tmp_path / "p.parquet")
    assert {tuple(row["matched"]) for row in rows_in(tmp_path / "p.parquet")} == {()}


DEVICES = st.lists(st.sampled_from("abcdefg"), max_size=3, unique=True)
RECORDS = st.lists(
    st.tuples(st.sampled_from(["", "1", "2", "3"]), DEVICES, st.sampled_from(EVENTS)), max_size=30
)


def record_of(identity: str, devices: Sequence[str]) -> bytes:
    sent: dict[str, Any] = {"platformInfo": [{"objectId": one} for one in devices]}
    return json.dumps({"identity": identity, **sent} if identity else sent).encode()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(drawn=RECORDS)
def test_people_are_matched_as_they_are_told_apart(
    tmp_path: Path, drawn: list[tuple[str, list[str], str]]
) -> None:
    rows = [
        Row(record_of(identity, devices), matched=(event,)) for identity, devices, event in drawn
    ]
    expected = told_apart(rows, tmp_path / "marks")
    found = told_apart(rows, tmp_path / "marks", matching=True)
    assert [row.record for row in found] == [row.record for row in expected]
    # Each record's event is one of every person it belongs to.
    people = _matched(drawn)
    assert [row.matched for row in found] == [tuple(sorted(events)) for _, events in people]
    # With repeats, each has the events of all these people.
    found = told_apart(rows, tmp_path / "marks", matching=True, distinct=False)
    assert [row.record for row in found] == [row.record for row in rows]
    for row, (identity, devices, _) in zip(found, drawn, strict=True):
        own = _keys_of(identity, devices)
        events = {event for keys, events in people if keys & own for event in events}
        assert row.matched == tuple(sorted(events))


def _keys_of(identity: str, devices: list[str]) -> set[object]:
    return {("identity", identity)} if identity else {*devices} or {"nothing"}


def _matched(drawn: list[tuple[str, list[str], str]]) -> list[tuple[set[object], set[str]]]:
    """Return keys and events of each person, by the rule of `Distinct`, in the simplest way."""
    people: list[tuple[set[object], set[str]]] = []
    for identity, devices, event in drawn:
        keys = _keys_of(identity, devices)
        found = [one for one in people if one[0] & keys]
        if not found:
            people.append((keys, {event}))
            continue
        if not identity:
            found[0][0].update(keys - {key for one in people for key in one[0]})
        for _, events in found:
            events.add(event)
    return people


def test_a_record_that_cannot_be_read_is_a_person_of_its_own(tmp_path: Path) -> None:
    rows = [Row(b"7", matched=("Charged",)), Row(b"7", matched=("App Launched",))]
    found = told_apart(rows, tmp_path / "marks", matching=True)
    assert [row.matched for row in found] == [("Charged",), ("App Launched",)]


@pytest.mark.parametrize("name", NAMES)
async def test_a_row_says_who_it_is_and_where_it_is_from(tmp_path: Path, name: str) -> None:
    before = datetime.now(UTC)
    async with Emulator(people=300, seed=4) as emulator, session_for(emulator) as session:
        await session.export(EVENT, **RANGE, to=tmp_path / name)
        account = emulator.clevertap.account_id
    rows = rows_in(tmp_path / name)
    assert {row["account"] for row in rows} == {account}
    assert len({row["person"] for row in rows}) == len(rows)
    for row in rows:
        key = row["identity"] or min(row["object_ids"])
        assert row["person"] == f"{'identity' if row['identity'] else 'objectId'}:{key}"
    [moment] = {row["fetched_at"] for row in rows}
    assert before <= moment <= datetime.now(UTC)
    assert {row["added_at"] for row in rows} == {moment}


@pytest.mark.parametrize("name", ["p.csv", "p.parquet"])
async def test_a_resumed_export_was_fetched_when_it_was_begun(tmp_path: Path, name: str) -> None:
    async with at_script(KEYS) as case:
        await case.interrupt(tmp_path / name)
        between = datetime.now(UTC)
        await asyncio.sleep(0.01)
        await case.run(tmp_path / name)
    assert {row["fetched_at"] < between for row in rows_in(tmp_path / name)} == {True}


@pytest.mark.parametrize("name", NAMES)
async def test_a_table_of_lookups_begins_with_the_key(tmp_path: Path, name: str) -> None:
    async with at_script(KEYS) as case:
        await case.run(tmp_path / name)
    rows = rows_in(tmp_path / name)
    assert [*rows[0]][:3] == ["key", "account", "person"]
    assert "matched" not in rows[0]
    assert [row["key"] for row in rows] == case.people


@pytest.mark.parametrize("name", NAMES)
async def test_a_table_of_bindings_has_a_row_for_each(tmp_path: Path, name: str) -> None:
    async with Emulator(people=200) as emulator, Session(alta=emulator.alta) as session:
        account = emulator.alta.account
        keys = [f"user_{number}" for number in range(200)]
        users = {key: await session.cdp.get(user_id=key) for key in keys}
        report = await session.export_lookups(keys, by="user_id", to=tmp_path / name)
    expected = [
        {
            "account": account,
            "key": key,
            "user_id": user.user_id,
            "anonymous_id": bound.anonymous_id,
            "conversation_type": bound.conversation_type,
            "source_id": bound.source_id,
        }
        for key, found in users.items()
        for user in found.values()
        for bound in user.anonymous_ids
    ]
    rows = rows_in(tmp_path / name, "bindings")
    if name.endswith("csv"):
        rows = [{column: value or None for column, value in row.items()} for row in rows]
    assert rows == expected
    assert report.found == sum(bool(found) for found in users.values())
    assert report.not_found == 200 - report.found


def test_a_user_with_nothing_bound_is_a_row_with_nulls(tmp_path: Path) -> None:
    from altaprofiles.export.tables import Content

    sink = opened(target_of(tmp_path / "b.parquet", Content(of="bindings")))
    sink.write(rows_of([b'{"key":"k","users":[{"user_id":"u","anonymous_ids":[]}]}']))
    put_in_place(sink)
    [row] = rows_in(tmp_path / "b.parquet")
    assert row == {
        "account": ACCOUNT,
        "key": "k",
        "user_id": "u",
        **dict.fromkeys(("anonymous_id", "conversation_type", "source_id")),
    }


async def test_launched_but_not_charged_is_one_query(tmp_path: Path) -> None:
    async with Emulator(people=300, seed=4) as emulator, session_for(emulator) as session:
        await session.export(EVENTS, **RANGE, to=tmp_path / "p.duckdb")
        expected = matches_of(emulator.population)
    with duckdb.connect(str(tmp_path / "p.duckdb"), read_only=True) as connection:
        found = connection.execute(
            "SELECT count(*) FROM profiles WHERE list_contains(matched, 'App Launched')"
            " AND NOT list_contains(matched, 'Charged')"
        ).fetchone()
    assert found == (sum(events == ["App Launched"] for events in expected.values()),)


# ------------------------------------------------------------------------------------ types by name

SIGNED_UP = datetime(2017, 2, 20, 7, 45, 52, tzinfo=UTC)


def written(path: Path, values: Sequence[str], **options: Any) -> tuple[list[Any], int]:
    """Return the cells of the property `x`, whose JSON is each of `values`, and what was mended."""
    records = [
        b'{"identity":"%d","profileData":{"x":%b}}' % (number, value.encode())
        for number, value in enumerate(values)
    ]
    sink = opened(target_of(path, **options), records)
    sink.write(rows_of(records))
    put_in_place(sink)
    return [row["x"] for row in rows_in(path)], sink.mended.total


@pytest.mark.parametrize("name", ["p.parquet", "p.duckdb"])
def test_a_column_of_dates_is_one_of_timestamps(tmp_path: Path, name: str) -> None:
    cells, mended = written(tmp_path / name, ['"$D_1487576752"', "null"], flatten=["x"])
    assert (cells, mended) == ([SIGNED_UP, None], 0)


@pytest.mark.parametrize("other", ['"soon"', "7", '"$D_-99999999999"'])
def test_dates_and_anything_else_are_text(tmp_path: Path, other: str) -> None:
    cells, _ = written(tmp_path / "p.parquet", ['"$D_1487576752"', other], flatten=["x"])
    assert cells == ["$D_1487576752", other.strip('"')]


# Those with a point or an exponent are floats in JSON, which are the nearest doubles.
INTEGERS = [str(2**53), str(2**53 + 1), str(-(2**53) - 1), str(2**53 + 2), str(10**22)]
INTEGERS += [str(10**23), "1" + "0" * 400, "1e23", "9007199254740993.0"]
IN_A_DOUBLE = [2.0**53, None, None, 2.0**53 + 2, 1e22, None, None, 1e23, 2.0**53]


@pytest.mark.parametrize(
    ("kind", "values", "cells"),
    [
        (
            "timestamp",
            ['"$D_1487576752"', '"2017-02-20T08:45:52+01:00"', '"2017-02-20T07:45:52"', "7", '"x"'],
            [SIGNED_UP, SIGNED_UP, SIGNED_UP, None, None],
        ),
        ("int64", ["7", "7.0", "7.5", '"7"', "99999999999999999999", "true"], [7, 7, *[None] * 4]),
        ("double", ["7", "7.5", '"7"', "true", "1e999"], [7.0, 7.5, None, None, None]),
        ("double", INTEGERS, IN_A_DOUBLE),
        ("bool", ["true", "false", "1", '"true"'], [True, False, None, None]),
        ("text", ['"a"', "7", "[1]"], ["a", "7", "[1]"]),
    ],
)
@pytest.mark.parametrize("name", ["p.parquet", "p.duckdb"])
def test_a_value_of_another_type_than_the_named_one_is_null_and_counted(
    tmp_path: Path, name: str, kind: str, values: list[str], cells: list[Any]
) -> None:
    assert written(tmp_path / name, values, flatten={"x": kind}) == (cells, cells.count(None))


def test_a_named_type_decides_the_text_in_csv(tmp_path: Path) -> None:
    cells, mended = written(
        tmp_path / "p.csv", ['"$D_1487576752"', "7"], flatten={"x": "timestamp"}
    )
    assert (cells, mended) == (["2017-02-20T07:45:52Z", ""], 1)
    assert written(tmp_path / "q.csv", ['"$D_1487576752"'], flatten=["x"])[0] == ["$D_1487576752"]
    cells, mended = written(tmp_path / "r.csv", INTEGERS, flatten={"x": "double"})
    numbers = [float(cell) if cell else None for cell in cells]
    assert (numbers, mended) == (IN_A_DOUBLE, IN_A_DOUBLE.count(None))


def test_a_type_that_is_not_named_is_found(tmp_path: Path) -> None:
    assert written(tmp_path / "p.parquet", ["7"], flatten={"x": None})[0] == [7]


@pytest.mark.parametrize("flatten", [{"x": "date"}, {"x": "Timestamp"}, {"x": 7}, {7: "text"}])
def test_an_unknown_type_is_refused(tmp_path: Path, flatten: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^flatten: "):
        target_of(tmp_path / "p.parquet", flatten=flatten)


def test_a_key_named_like_a_column_of_ours_gets_a_prefix(tmp_path: Path) -> None:
    record = b'{"profileData":{"Account":"a","matched":1,"cdp":2}}'
    sink = opened(target_of(tmp_path / "p.parquet", flatten=["Account", "matched", "cdp"]))
    sink.write(rows_of([record]))
    put_in_place(sink)
    [row] = rows_in(tmp_path / "p.parquet")
    names = ["profile_data.Account", "profile_data.matched", "profile_data.cdp"]
    assert [*row][-3:] == names
