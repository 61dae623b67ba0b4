"""Upserts of people, which are the same in DuckDB and PostgreSQL."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from altaprofiles.export.sinks import Sink
from altaprofiles.export.state import SyncState
from altaprofiles.export.tables import Content, Origin
from altaprofiles.tables.rows import Row

from ..support.postgres import Server
from ..support.sinks import filled, target_of
from ..support.tables import Entry, record, time_of
from ..support.thorough import examples

CDP = Content(has_events=True, has_cdp=True)
EVENTS = Content(has_events=True)
KEYS = Content(has_key=True)
CONTENTS = {"events": EVENTS, "joined": CDP, "keys": KEYS}

USERS = b'[{"user_id": "u"}]'


class Database:
    """The table `profiles` of one database."""

    def __init__(self, to: str, query: Callable[[str], list[tuple[Any, ...]]]) -> None:
        self._to = to
        self._runs = 0
        self.query = query

    def export(
        self, rows: Sequence[Row], hour: int, content: Content = CDP, *, sync: bool = False,
        **options: Any,
    ) -> Sink:  # fmt: skip
        self._runs += 1
        state = SyncState(
            account="A", settings="{}", through=date(2026, 1, 1), synced_at=time_of(0)
        )
        origin = Origin(f"run {self._runs}", ("A",), time_of(hour), state if sync else None)
        target = target_of(self._to, content, **options)
        target.check()
        target.accept(origin)
        return filled(target, rows, origin)

    def rows(self, *columns: str) -> list[tuple[Any, ...]]:
        return self.query(f"SELECT {', '.join(columns)} FROM profiles ORDER BY person")


def duck(folder: Path) -> Database:
    def query(sql: str) -> list[tuple[Any, ...]]:
        with duckdb.connect(str(folder / "crm.duckdb")) as connection:
            return connection.execute(sql).fetchall()

    return Database(str(folder / "crm.duckdb"), query)


def server(postgres: Server) -> Database:
    def query(sql: str) -> list[tuple[Any, ...]]:
        if sql.startswith("SELECT"):
            return postgres.rows(sql)
        postgres.run(sql)
        return []

    return Database(postgres.url(), query)


@pytest.fixture(params=["duckdb", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    if request.param == "postgres":
        return server(request.getfixturevalue("postgres"))
    return duck(tmp_path)


def row(
    identity: str | None,
    *devices: str,
    value: Any = 0,
    key: str | None = None,
    cdp: bytes | None = None,
) -> Row:
    return Row(record(identity, devices, value), "A", key, ("Charged",), cdp)


def parsed(cell: Any) -> Any:
    """Return the value of JSON text, which DuckDB returns, and any other cell as it is."""
    return json.loads(cell) if isinstance(cell, str) and cell[:1] in ("[", "{") else cell


# Values that rows keep


def test_a_lookup_that_failed_keeps_what_is_known(place: Database) -> None:
    place.export([row("a", cdp=USERS), row("b", cdp=USERS)], 1)
    # The second one has changed as well.
    place.export([row("a"), row("b", value=1)], 2)
    rows = place.rows("person", "cdp IS NULL", "extract(hour FROM fetched_at - added_at)")
    assert rows == [("identity:a", False, 0), ("identity:b", False, 1)]
    place.export([row("a", cdp=b"[]")], 3)
    assert [parsed(cdp) for (cdp,) in place.rows("cdp")] == [[], json.loads(USERS)]


@pytest.mark.parametrize(
    ("earlier", "later", "hours"),
    [
        # Services spell JSON in some pages otherwise than in others.
        (rb'{"a": [1, "x \" y"], "b" : {}}', rb'{"a":[1,"x \" y"],"b":{}}', 0),
        (
            rb'{"a":"S\u00e3o","b":1e-07,"c":2.50,"d":"\/"}',
            '{"d":"/","c":2.5,"b":1E-7,"a":"São"}'.encode(),
            0,
        ),
        (rb'{"a":"\ud800"}', rb'{"a": "\uD800"}', 0),
        (rb'{"a":1E400}', rb'{"a":1e+400}', 0),
        (rb'{"a":1e400}', rb'{"a":1e401}', 1),
        (rb'{"a":"x  y"}', rb'{"a":"x y"}', 1),
        (rb'{"a":" "}', rb'{"a":""}', 1),
        (rb'{"a": 18446744073709551617}', rb'{"a":18446744073709551618}', 1),
        (rb'{"a":0.10000000000000000001}', rb'{"a":0.1}', 1),
        (rb'{"a":[1,2]}', rb'{"a":[2,1]}', 1),
        (rb'{"a":1}', rb'{"a":true}', 1),
    ],
)
def test_another_spelling_of_the_same_json_is_no_change(
    place: Database, earlier: bytes, later: bytes, hours: int
) -> None:
    for hour, data in enumerate((earlier, later)):
        sent = b'{"identity":"a","profileData":%b,"events":%b}' % (data, data)
        place.export([Row(sent, "A", matched=("Charged",))], hour)
    assert place.rows("extract(hour FROM fetched_at - added_at)") == [(hours,)]


def test_columns_of_exports_of_another_kind_are_left_alone(place: Database) -> None:
    place.export([row("a", cdp=USERS)], 1)
    place.export([row("a", value=1, key="one")], 2, KEYS)
    place.export([row("a", value=2)], 3, EVENTS)
    assert place.rows("key", "matched", "cdp IS NULL") == [("one", ["Charged"], False)]


def test_the_user_s_own_column_goes_with_the_person(place: Database) -> None:
    place.export([row(None, "5")], 1)
    place.query("ALTER TABLE profiles ADD COLUMN note VARCHAR")
    place.query("ALTER TABLE profiles ADD COLUMN seen BOOLEAN DEFAULT true")
    place.query("UPDATE profiles SET note = 'mine', seen = NULL")
    # Another device comes first.
    place.export([row(None, "3", "5")], 2)
    assert place.rows("person", "note", "seen") == [("objectId:3", "mine", None)]
    # The person logs in, and somebody new comes.
    sink = place.export([row("x", "3"), row("y", "9")], 3)
    assert sink.absorbed == 1
    rows = [("identity:x", "mine", None), ("identity:y", None, True)]
    assert place.rows("person", "note", "seen") == rows
    # A person who is known already takes only what is missing.
    place.export([row(None, "4"), row(None, "5")], 4)
    place.query("UPDATE profiles SET note = 'other', seen = false WHERE identity IS NULL")
    assert place.export([row("x", "3", "4", "5")], 5).absorbed == 2
    assert place.rows("person", "note", "seen") == [("identity:x", "mine", False), rows[1]]


def test_a_row_leaves_its_values_to_one_other(place: Database) -> None:
    place.export([row(None, "1", "2", cdp=USERS)], 1)
    place.query("ALTER TABLE profiles ADD COLUMN note VARCHAR")
    place.query("UPDATE profiles SET note = 'mine'")
    place.query("CREATE UNIQUE INDEX one ON profiles (note)")
    place.export([row(None, "2"), row(None, "1")], 2)
    rows = place.rows("person", "note", "cdp IS NULL")
    assert rows == [("objectId:1", "mine", False), ("objectId:2", None, True)]


def test_rows_become_part_of_one_that_was_fetched_later(place: Database) -> None:
    place.export([row(None, "2", cdp=USERS)], 1)
    place.query("ALTER TABLE profiles ADD COLUMN note VARCHAR DEFAULT 'new'")
    place.export([row(None, "1", value=3)], 3)
    place.query("UPDATE profiles SET note = NULL WHERE person = 'objectId:1'")
    sink = place.export([row(None, "1", "2", value=2)], 2)
    assert "keeps 1 row as a later export has fetched" in sink.notes[0]
    columns = ("person", "note", "cdp IS NULL", "extract(hour FROM fetched_at - added_at)")
    assert place.rows(*columns) == [("objectId:1", "new", False, 2)]


def test_a_flattened_column_that_is_left_out_is_null_in_new_rows(place: Database) -> None:
    for write in ("upsert", "append", "replace"):
        table = f"by_{write}"
        place.export([row("a")], 1, flatten=["value"], table=table, write=write)
        place.query(f"ALTER TABLE {table} ALTER COLUMN value SET DEFAULT '7'")
        [note] = place.export([row("a"), row("b")], 2, table=table, write=write).notes
        _, _, words = note.partition(
            " that `flatten` leaves out, null in the rows just written: 'value'; "
        )
        assert (
            words
            == {
                "upsert": "to fill it, name it there again, and run this export again; "
                "if nobody needs it, drop it",
                "append": "name it there the next time, as these rows stay so",
                "replace": "to fill it, name it there again, and run this export again; "
                "if nobody needs it, drop it",
            }[write]
        )
        [(known,)] = place.query(f"SELECT count(value) FROM {table}")
        assert known == (1 if write == "append" else 0)


def test_a_flattened_column_that_is_new_is_noted_where_other_rows_are(place: Database) -> None:
    def notes(*added: str, **options: Any) -> list[str]:
        return [*place.export([row("b")], 2, flatten=added, **options).notes]

    for content, remedy in (
        (CDP, "export all events and days of the table"),
        (KEYS, "look up all keys of the table"),
        (Content(), "export everyone"),
    ):
        table = f"by {remedy}"
        place.export([row("a")], 1, content, table=table)
        [note] = notes("value", "other", content=content, table=table)
        assert "has new columns, null in the rows, of any account, that" in note
        assert "this run did not bring: 'value', 'other'" in note
        assert f"; to fill them, {remedy} once" in note
        assert note.endswith(", with the same `flatten`")
        assert notes("value", "other", content=content, table=table) == []
        place.query(f'DELETE FROM "{table}"')
        assert not any("new" in one for one in notes("third", content=content, table=table))
    # Nothing of it stays, or nothing is updated.
    for write in ("replace", "append"):
        assert notes("value", write=write, table=write) == []
        assert notes("value", "new", write=write, table=write) == []


def test_a_new_column_is_not_noted_where_every_row_is_brought(place: Database) -> None:
    place.export([row(None, "1"), row("b")], 1)
    # One becomes a person with a name, and one has no value for the second column.
    everyone = [row("x", "1"), row("b")]
    assert place.export(everyone, 2, flatten=["value"]).notes == []
    assert place.export(everyone, 3, flatten=["value", "none"]).notes == []
    # A row that was fetched later is not brought.
    notes = "; ".join(place.export(everyone, 1, flatten=["value", "none", "other"]).notes)
    assert (
        "has a new column, null in the rows, of any account, that this run did not bring: 'other'"
        in notes
    )
    assert "keeps 2 rows as a later export has fetched them" in notes


@pytest.mark.parametrize(("old", "new"), [("value", "worth"), ("matched", "done")])
def test_a_column_that_was_renamed_gets_its_name_back_with_all_values(
    place: Database, old: str, new: str
) -> None:
    people = [row("a", value="x"), row("b", value="y"), row("c", value="z")]
    place.export(people, 1, EVENTS, flatten=["value"])
    before = place.rows("person", old)[:2]
    # Of the same type, one with a default has been made by somebody else.
    place.query("ALTER TABLE profiles ADD COLUMN loaded VARCHAR DEFAULT 'x'")
    place.query(f"ALTER TABLE profiles RENAME COLUMN {old} TO {new}")
    # What the last of them had has been taken away since, and must not come back.
    brought = [row("a", value="x"), row("c", value=None)]
    notes = place.export(brought, 2, EVENTS, flatten=["value"]).notes
    [(taken,)] = place.query(f"SELECT {old} FROM profiles WHERE person = 'identity:c'")
    assert any("a new column, null in the rows, of any account, that this" in one for one in notes)
    advice = (
        f"; if {new!r} was renamed from a name that exports fill, copy its values to the column of "
        f"that name, in the rows that no later run has brought (by fetched_at), drop it, and give "
        f"readers its name in a view"
    )
    assert sum(one.endswith(advice) for one in notes) == 1
    since = "(SELECT max(fetched_at) FROM profiles)"
    place.query(f"UPDATE profiles SET {old} = {new} WHERE fetched_at < {since}")
    place.query(f"ALTER TABLE profiles DROP COLUMN {new}")
    place.query(f"CREATE VIEW readers AS SELECT *, {old} AS {new} FROM profiles")
    assert place.rows("person", old)[:2] == before
    assert place.query(f"SELECT {old} FROM profiles WHERE person = 'identity:c'") == [(taken,)]
    assert place.export(people, 3, EVENTS, flatten=["value"]).notes == []
    assert place.rows("person", old)[:2] == before


def test_a_column_that_was_dropped_is_new_without_advice_on_others(place: Database) -> None:
    place.export([row("a"), row("b")], 1, EVENTS, flatten={"value": "int64"})
    place.query("ALTER TABLE profiles ADD COLUMN note VARCHAR")
    place.query("ALTER TABLE profiles DROP COLUMN value")
    [note] = place.export([row("a")], 2, EVENTS, flatten={"value": "int64"}).notes
    assert note.endswith("with the same `flatten`")
    assert "'note'" not in note


def test_replace_names_the_columns_that_it_empties_as_others_come(place: Database) -> None:
    place.export([row("a"), row("b")], 1, flatten=["value"])
    place.query("ALTER TABLE profiles ADD COLUMN note VARCHAR")
    replaced: dict[str, Any] = {"write": "replace", "flatten": ["value"]}
    # Values of a default are nothing that an export has ever filled.
    place.query("ALTER TABLE profiles ADD COLUMN loaded INTEGER DEFAULT 7")
    # Not each night: whoever adds a column to such a table knows.
    assert place.export([row("a")], 2, **replaced).notes == []
    for old, new in (("value", "worth"), ("matched", "done")):
        place.query(f"ALTER TABLE profiles RENAME COLUMN {old} TO {new}")
        notes = "; ".join(place.export([row("a")], 2, **replaced).notes)
        assert f"has a new column: {old!r}; and" in notes
        assert "that no export fills, null in all rows now: '" in notes
        assert "'note'" in notes
        assert "'loaded'" not in notes
        # PostgreSQL knows a flattened column by its comment, even under another name.
        assert f"{new!r}" in notes
    assert not any("new column" in one for one in place.export([row("a")], 2, **replaced).notes)


def test_replace_keeps_the_table(place: Database) -> None:
    place.export([row("a"), row("b")], 1, flatten={"value": "int64"})
    place.query("ALTER TABLE profiles ADD COLUMN note VARCHAR DEFAULT 'new'")
    place.query("UPDATE profiles SET note = 'mine'")
    place.query("CREATE INDEX ours ON profiles (email)")
    place.query("CREATE VIEW notes AS SELECT person, note FROM profiles")
    for _ in range(2):
        place.export([row("a")], 2, write="replace")
        assert place.query("SELECT * FROM notes") == [("identity:a", "new")]
        assert place.rows("value") == [(None,)]
    place.export([row("a"), row("c", value=3)], 3, flatten={"value": "int64"})
    assert place.rows("note", "value") == [("new", 0), ("new", 3)]


def test_a_person_under_two_keys_is_one_row(place: Database) -> None:
    rows = [row("a", "1", "2", key="1"), row("a", "1", "2", key="2"), row("b", key="3")]
    for write in ("upsert", "replace"):
        for hour in (1, 2):
            [note] = place.export(rows, hour, KEYS, write=write, table=write).notes
            assert "left out: 1 key of people who stand there under another key" in note
            found = place.query(f"SELECT key, person FROM {write} ORDER BY 1")
            assert found == [("1", "identity:a"), ("3", "identity:b")]
    assert place.export(rows, 1, KEYS, write="append", table="all").notes in ([], ())
    assert place.query("SELECT key FROM all_ ORDER BY 1".replace("all_", '"all"')) == [
        ("1",), ("2",), ("3",)
    ]  # fmt: skip


def found(key: str, *users: str) -> Row:
    bound: list[Any] = [{"user_id": one, "anonymous_ids": []} for one in users]
    return Row(json.dumps({"key": key, "users": bound}).encode(), "A", key)


def test_bindings_that_stay_are_left_alone(place: Database) -> None:
    bindings = Content(of="bindings")
    place.export([found("k", "1", "2", "2"), found("l", "3"), found("m", "4")], 1, bindings)
    place.query("ALTER TABLE bindings ADD COLUMN note VARCHAR DEFAULT 'new'")
    place.query("UPDATE bindings SET note = NULL")
    place.export([found("k", "2", "5", "2", "2"), found("l", "3"), found("m")], 2, bindings)
    rows = "SELECT key, user_id, count(*), count(note) FROM bindings GROUP BY 1, 2 ORDER BY 1, 2"
    assert place.query(rows) == [("k", "2", 3, 1), ("k", "5", 1, 1), ("l", "3", 1, 0)]


# Both databases

ENTRIES = st.tuples(
    st.builds(
        Entry,
        st.sampled_from([None, None, "a", "b"]),
        st.lists(st.sampled_from("12345"), min_size=1, max_size=3, unique=True).map(tuple),
        st.integers(0, 1),
    ),
    st.sampled_from([None, b"[]", USERS]),
)
NIGHTS = st.lists(
    st.tuples(
        st.integers(0, 5),
        st.sampled_from(["events", "joined", "joined", "keys"]),
        st.sampled_from(["upsert", "upsert", "upsert", "replace"]),
        st.lists(ENTRIES, max_size=5),
    ),
    min_size=2,
    max_size=5,
)


def all_of(database: Database) -> list[tuple[Any, ...]]:
    hours = (f"extract(epoch FROM {time})" for time in ("fetched_at", "added_at"))
    columns = ("object_ids", "profile_data", "key", "matched", "cdp", "note")
    return [tuple(map(parsed, row)) for row in database.rows("person", *columns, *hours)]


@settings(
    max_examples=examples(3, 8),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@pytest.mark.slow
@pytest.mark.parametrize("sync", [False, True])
@given(nights=NIGHTS)
@example(
    nights=[
        (1, "keys", "upsert", [(Entry(None, ("3",), 0), None)]),
        (
            2,
            "keys",
            "upsert",
            [(Entry(None, ("1",), 1), None), (Entry(None, ("1", "5", "3"), 1), None)],
        ),
    ]
)
def test_both_databases_do_the_same(postgres: Server, sync: bool, nights: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as name:
        postgres.run("DROP TABLE IF EXISTS profiles, altaprofiles_sync")
        both = duck(Path(name)), server(postgres)
        for database in both:
            database.export([], 0, Content(has_key=True, has_events=True, has_cdp=True))
            database.query("ALTER TABLE profiles ADD COLUMN note VARCHAR DEFAULT 'new'")
        for number, (hour, kind, write, people) in enumerate(nights):
            rows = [
                Row(record(one.identity, one.devices, one.value), "A", str(place), (kind,), cdp)
                for place, (one, cdp) in enumerate(people)
            ]
            syncs = sync and write == "upsert"
            first, second = (
                one.export(rows, hour, CONTENTS[kind], write=write, sync=syncs) for one in both
            )
            assert first.absorbed == second.absorbed
            assert [note.partition(" has ")[2] for note in first.notes] == [
                note.partition(" has ")[2] for note in second.notes
            ]
            assert all_of(both[0]) == all_of(both[1])
            for database in both:
                database.query(
                    f"UPDATE profiles SET note = CASE WHEN person LIKE '%{number + 1}'"
                    f" OR person LIKE '%a' THEN NULL ELSE {number} || person END"
                    " WHERE note = 'new'"
                )
