"""Tables in DuckDB files over several exports: updated, replaced, appended to."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256
from itertools import permutations
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, example, given, settings

from altaprofiles import ConfigurationError, ExportError
from altaprofiles.export.sinks import Sink, duck, duck_groups
from altaprofiles.export.tables import Content, Origin
from altaprofiles.tables.rows import Row

from ..support.sinks import PEOPLE, filled, opened, rows_of, target_of
from ..support.tables import RUNS, Entry, Model, Night, record, time_of
from ..support.thorough import examples

TO = "crm.duckdb"


def origin(hour: int = 0, account: str = "A", run: str | None = None) -> Origin:
    return Origin(run or f"run {hour} of {account}", (account,), time_of(hour))


def load(
    folder: Path,
    records: Sequence[bytes | Row],
    at: Origin | None = None,
    content: Content | None = None,
    **options: Any,
) -> Sink:
    """Write rows to the table of the tests as an export does, and return the closed sink."""
    at = at or origin()
    target = target_of(folder / TO, *([content] if content else []), **options)
    target.check()
    target.accept(at)
    [account] = at.accounts
    rows = [row if isinstance(row, Row) else rows_of([row], account)[0] for row in records]
    return filled(target, rows, at)


def query(folder: Path, sql: str = "FROM profiles") -> list[tuple[Any, ...]]:
    with duckdb.connect(str(folder / TO)) as connection:
        return connection.execute(sql).fetchall()


def run(folder: Path, *statements: str) -> None:
    for statement in statements:
        query(folder, statement)


HOURS = f"(epoch_us({{}}) - {int(time_of(0).timestamp()) * 10**6}) // 3600000000"

CONTENT = (
    "SELECT account, person, object_ids, (profile_data ->> 'value')::int, "
    f"{HOURS.format('fetched_at')}, {HOURS.format('added_at')} FROM profiles ORDER BY ALL"
)


def content_of(folder: Path) -> list[tuple[Any, ...]]:
    """Return the rows as `Model.content` does."""
    rows = query(folder, CONTENT)
    return sorted((account, who, tuple(ids), *rest) for account, who, ids, *rest in rows)


def types(folder: Path, table: str = "profiles") -> dict[str, str]:
    rows = query(folder, f"SELECT column_name, column_type FROM (DESCRIBE {table})")
    return dict(rows)


# Upsert


@pytest.mark.slow
@settings(
    max_examples=examples(10, 40),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(nights=RUNS)
@example(
    nights=[
        Night(1, "A", (Entry(None, ("1",), 0), Entry(None, ("2",), 0))),
        Night(2, "A", (Entry("a", ("1", "2"), 0), Entry(None, ("2", "3"), 1))),
        Night(0, "A", (Entry(None, ("3",), 2), Entry("a", ("1",), 2))),
    ]
)
@example(nights=[Night(2, "A", (Entry(None, ("1",), 0),)), Night(1, "A", (Entry("a", ("1",), 0),))])
@example(
    nights=[
        Night(5, "A", (Entry("a", ("1",), 0),)),
        Night(1, "A", (Entry(None, ("1",), 0),)),
        Night(6, "A", (Entry("a", ("1",), 0),)),
    ]
)
def test_upserts_are_those_of_a_model(nights: list[Night]) -> None:
    model = Model()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number, night in enumerate(nights):
            model.upsert(night)
            records = [record(one.identity, one.devices, one.value) for one in night.people]
            at = Origin(f"run {number}", (night.account,), time_of(night.hour))
            sink = load(folder, records, at)
            assert content_of(folder) == model.content()
            assert sink.absorbed == model.absorbed


def test_every_day_updates_one_table(tmp_path: Path) -> None:
    load(tmp_path, [record("a", ["1"]), record(None, ["2"]), record("c", ["3"])], origin(1))
    # One has not changed, one has logged in, and one is new.
    sink = load(tmp_path, [record("a", ["1"]), record("b", ["2"]), record("d", ["4"])], origin(2))
    assert sink.absorbed == 1
    assert content_of(tmp_path) == [
        ("A", "identity:a", ("1",), 0, 1, 1),
        ("A", "identity:b", ("2",), 0, 2, 1),
        ("A", "identity:c", ("3",), 0, 1, 1),
        ("A", "identity:d", ("4",), 0, 2, 2),
    ]


def test_the_same_people_of_two_accounts_are_two_rows(tmp_path: Path) -> None:
    for account in ("A", "B", "A"):
        sink = load(tmp_path, [record("a", ["1"]), record(None, ["2"])], origin(1, account))
        assert sink.absorbed == 0
    assert [row[:2] for row in content_of(tmp_path)] == [
        (account, who) for account in "AB" for who in ("identity:a", "objectId:2")
    ]


def test_a_row_that_was_fetched_later_stays(tmp_path: Path) -> None:
    load(tmp_path, [record("a", ["1"], 1)], origin(2))
    [note] = load(tmp_path, [record("a", ["1"], 2), record("b", ["2"])], origin(1)).notes
    assert "keeps 1 row as a later export has fetched" in note
    assert [row[3:] for row in content_of(tmp_path)] == [(1, 2, 2), (0, 1, 1)]


def test_a_nameless_person_is_found_by_any_device(tmp_path: Path) -> None:
    load(tmp_path, [record(None, ["2", "3"])], origin(1))
    load(tmp_path, [record(None, ["3", "1"], 5)], origin(2))
    assert content_of(tmp_path) == [("A", "objectId:1", ("3", "1"), 5, 2, 1)]


def test_people_with_devices_that_no_text_can_hold_stay_apart(tmp_path: Path) -> None:
    first, second = (
        b'{"platformInfo":[{"objectId":"x\\ud8%02d"}],"profileData":{"value":0}}' % number
        for number in (10, 11)
    )
    load(tmp_path, [first], origin(1))
    load(tmp_path, [second], origin(2))
    load(tmp_path, [b'{"identity":"a","platformInfo":[{"objectId":"x\\ud812"}]}'], origin(3))
    assert query(tmp_path, "SELECT count(*) FROM profiles") == [(3,)]
    load(tmp_path, [first], origin(4))
    assert query(tmp_path, "SELECT count(*) FROM profiles") == [(3,)]


def test_a_person_under_two_keys_is_one_row(tmp_path: Path) -> None:
    rows = [Row(record("a", ["1"], n), "A", f"key {n}") for n in range(2)]
    by_key = Content(has_key=True)
    for hour in (1, 2):
        [note] = load(tmp_path, rows, origin(hour), by_key).notes
        assert "left out: 1 key of people who stand there under another key" in note
        assert query(tmp_path, "SELECT key, person FROM profiles") == [("key 0", "identity:a")]


def test_matched_is_that_of_the_last_export(tmp_path: Path) -> None:
    for hour, events in ((1, ("A", "B")), (2, ("C",))):
        load(tmp_path, [Row(record("a", ["1"]), "A", matched=events)], origin(hour))
        assert query(tmp_path, "SELECT matched FROM profiles") == [([*events],)]
    assert content_of(tmp_path)[0][4:] == (2, 1)


def test_columns_of_other_people_stay(tmp_path: Path) -> None:
    load(tmp_path, [record("a", ["1"]), record("b", ["2"])], origin(1))
    run(
        tmp_path,
        'ALTER TABLE profiles ADD COLUMN "my ""note" VARCHAR',
        'UPDATE profiles SET "my ""note" = \'of \' || identity',
    )
    load(tmp_path, [record("a", ["1"], 7), record("b", ["2"]), record("c", ["3"])], origin(2))
    notes = query(tmp_path, 'SELECT identity, "my ""note" FROM profiles ORDER BY 1')
    assert notes == [("a", "of a"), ("b", "of b"), ("c", None)]
    assert [row[4] for row in content_of(tmp_path)] == [2, 1, 2]


def test_a_table_with_indexes_of_others_is_updated(tmp_path: Path) -> None:
    load(tmp_path, [record("a", ["1"]), record(None, ["2"])], origin(1))
    run(
        tmp_path,
        "CREATE UNIQUE INDEX one ON profiles (account, person)",
        "CREATE INDEX two ON profiles (identity)",
    )
    load(tmp_path, [record("a", ["1"], 1), record("b", ["2"])], origin(2))
    assert [row[1:4] for row in content_of(tmp_path)] == [
        ("identity:a", ("1",), 1),
        ("identity:b", ("2",), 0),
    ]


BINDINGS = Content(of="bindings")


def found(key: str, *users: str) -> Row:
    bound = [{"user_id": one, "anonymous_ids": [{"anonymous_id": f"of {one}"}]} for one in users]
    return Row(json.dumps({"key": key, "users": bound}).encode(), "A")


def test_the_bindings_of_a_key_are_replaced(tmp_path: Path) -> None:
    pairs = "SELECT key, user_id FROM bindings ORDER BY ALL"
    load(tmp_path, [found("k", "1", "2"), found("l", "3")], origin(1), BINDINGS)
    load(tmp_path, [found("k", "2", "4")], origin(2), BINDINGS)
    assert query(tmp_path, pairs) == [("k", "2"), ("k", "4"), ("l", "3")]
    load(tmp_path, [found("k", "9")], origin(3, "A"), BINDINGS, write="replace")
    assert query(tmp_path, pairs) == [("k", "9")]


def test_a_key_that_has_no_bindings_any_more_has_no_rows(tmp_path: Path) -> None:
    pairs = "SELECT account, key, user_id FROM bindings ORDER BY ALL"
    load(tmp_path, [found("none"), found("k", "1")], origin(1), BINDINGS)
    assert query(tmp_path, pairs) == [("A", "k", "1")]
    load(tmp_path, [found("k", "1", "2"), found("l", "3"), found("m", "4")], origin(2), BINDINGS)
    load(tmp_path, [Row(found("k", "5").record, "B")], origin(3, "B"), BINDINGS)
    load(tmp_path, [found("k"), found("l", "6"), found("none")], origin(4), BINDINGS)
    assert query(tmp_path, pairs) == [("A", "l", "6"), ("A", "m", "4"), ("B", "k", "5")]
    for write in ("append", "replace"):
        rows = [found("k"), found("l", "7")]
        load(tmp_path, rows, origin(5), BINDINGS, write=write, table=f"by_{write}")
        assert query(tmp_path, f"SELECT key FROM by_{write}") == [("l",)]


@pytest.mark.parametrize("content", [PEOPLE, BINDINGS], ids=lambda content: content.of)
def test_rows_of_another_run_do_not_stand_for_those_that_somebody_has_deleted(
    tmp_path: Path, content: Content
) -> None:
    runs = [origin(number) for number in range(3)]
    rows: list[bytes | Row] = [record("a", ["1"]), record("b", ["2"]), record("c", ["3"])]
    if content is BINDINGS:
        rows = [found("k", "1"), found("l", "2"), found("m", "3")]

    def held() -> list[bool]:
        target = target_of(tmp_path / TO, content, write="append")
        return [target.holds(one) for one in runs]

    load(tmp_path, rows[:1], runs[0], content, write="append")
    run(tmp_path, f"DELETE FROM {content.default_table}")
    load(tmp_path, rows[1:], runs[1], content, write="append")
    load(tmp_path, [], runs[2], content, write="append")
    assert held() == [False, True, False]
    load(tmp_path, rows[:1], runs[0], content, write="append")
    assert held() == [True, True, False]


# Replace and append


def test_replace_leaves_the_people_of_this_export_alone(tmp_path: Path) -> None:
    load(tmp_path, [record("a", ["1"]), record("b", ["2"])], origin(1))
    load(tmp_path, [record("a", ["1"])], origin(2), write="replace")
    assert content_of(tmp_path) == [("A", "identity:a", ("1",), 0, 2, 2)]
    # And the default again.
    load(tmp_path, [record("c", ["1"])], origin(3))
    assert [row[1] for row in content_of(tmp_path)] == ["identity:a", "identity:c"]


def test_people_are_as_often_in_a_table_as_they_were_asked_for(tmp_path: Path) -> None:
    repeating = Content(has_events=True, repeats=True)
    twice = [record("a", ["1"], n) for n in range(2)]
    load(tmp_path, twice[:1], origin(0))
    for hour in (1, 2):
        load(tmp_path, twice, origin(hour), repeating, write="replace")
        assert [row[3:] for row in content_of(tmp_path)] == [(0, hour, hour), (1, hour, hour)]
    for write, once in (("upsert", " once"), ("append", "")):
        fix = f"`distinct=False`, .* export into it{once} with write='replace' .*, or .*`table`"
        with pytest.raises(ExportError, match=fix):
            load(tmp_path, twice, origin(3), write=write)
    # And so each person is one row again.
    assert load(tmp_path, twice, origin(3), write="replace").notes
    load(tmp_path, twice[:1], origin(4))
    assert [row[3:] for row in content_of(tmp_path)] == [(0, 3, 3)]


def test_rows_that_were_appended_are_not_replaced(tmp_path: Path) -> None:
    load(tmp_path, [record("a", ["1"])], write="append")
    with pytest.raises(ExportError, match="made with write='append'"):
        load(tmp_path, [], content=Content(has_events=True, repeats=True), write="replace")


def test_people_under_two_keys_are_replaced_by_one_row(tmp_path: Path) -> None:
    rows = [Row(record("a", ["1"], n), "A", f"key {n}") for n in range(2)]
    [note] = load(tmp_path, rows, origin(1), Content(has_key=True), write="replace").notes
    assert "left out: 1 key of people who stand there under another key" in note
    assert query(tmp_path, "SELECT key FROM profiles") == [("key 0",)]


def test_replace_spares_other_accounts(tmp_path: Path) -> None:
    load(tmp_path, [record("a", ["1"])], origin(1, "A"))
    load(tmp_path, [record("a", ["1"])], origin(1, "B"))
    before = content_of(tmp_path)
    words = r"'profiles' in .* has 1 row of other accounts \(A\).*write='upsert'"
    with pytest.raises(ExportError, match=words):
        load(tmp_path, [], origin(2, "B"), write="replace")
    # Even if the file could not be looked at before.
    with pytest.raises(ExportError, match=words):
        opened(target_of(tmp_path / TO, write="replace"), [], origin(2, "B"))
    assert content_of(tmp_path) == before


def test_append_adds_each_run_once(tmp_path: Path) -> None:
    people = [record("a", ["1"]), record(None, ["2"]), record("a", ["1"])]
    for hour, expected in ((1, 3), (2, 6), (2, 6), (3, 9), (1, 9)):
        load(tmp_path, people, origin(hour), write="append")
        assert query(tmp_path, "SELECT count(*) FROM profiles") == [(expected,)]
    runs = query(tmp_path, "SELECT run, mode FROM altaprofiles_runs ORDER BY 1")
    assert runs == [(f"run {hour} of A", "append") for hour in (1, 2, 3)]
    # Begun at the same moment, but another one.
    load(tmp_path, people, origin(1, run="other"), write="append")
    load(tmp_path, people, origin(1, run="other"), write="append")
    assert query(tmp_path, "SELECT count(*) FROM profiles") == [(12,)]


def test_append_takes_what_an_incomplete_run_lacked(tmp_path: Path) -> None:
    content = Content(has_key=True, has_cdp=True)
    first = [Row(record("a", ["1"]), "A", "1")]
    whole = [Row(record("b", ["2"]), "A", "2"), Row(record("a", ["1"]), "A", "1", (), b"[]")]
    load(tmp_path, first, origin(1), content, write="append")
    load(tmp_path, whole, origin(1), content, write="append", flatten=["value"])
    rows = query(tmp_path, "SELECT key, cdp, value FROM profiles ORDER BY key")
    assert rows == [("1", "[]", 0), ("2", None, 0)]


@pytest.mark.parametrize(
    ("made", "used"),
    [("append", "upsert"), ("append", "replace"), ("upsert", "append"), ("replace", "append")],
)
def test_a_table_is_used_as_it_was_made(tmp_path: Path, made: str, used: str) -> None:
    load(tmp_path, [record("a", ["1"])], origin(1), write=made)
    before = content_of(tmp_path)
    with pytest.raises(ExportError, match=f"(?s)'profiles'.*was made with.*{made}.*`table`"):
        load(tmp_path, [record("b", ["1"])], origin(2), write=used)
    assert content_of(tmp_path) == before
    load(tmp_path, [record("b", ["1"])], origin(2), write=used, table="other")


# Tables that others have made, and those of before

OF_BEFORE = (
    "CREATE TABLE profiles (identity VARCHAR, email VARCHAR, name VARCHAR, phone VARCHAR,"
    " object_ids VARCHAR[], profile_data JSON, events JSON, platform_info JSON, extra JSON,"
    ' "Cart Value" BIGINT)'
)

FOREIGN = {
    "others": ("CREATE TABLE profiles AS SELECT 7 AS n",),
    "a key": ("CREATE TABLE profiles (account VARCHAR, person VARCHAR PRIMARY KEY)",),
    "bindings": ("CREATE TABLE bindings AS SELECT 1 AS n",),
}


@pytest.mark.parametrize("write", ["upsert", "replace", "append"])
@pytest.mark.parametrize("made", FOREIGN)
def test_a_table_of_others_is_refused(tmp_path: Path, made: str, write: str) -> None:
    run(tmp_path, *FOREIGN[made])
    content = BINDINGS if made == "bindings" else None
    table = content.default_table if content else "profiles"
    target = target_of(tmp_path / TO, *([content] if content else []), write=write)
    with pytest.raises(ExportError, match=f"something else .* made the table '{table}'.*`table`"):
        target.check()
    with pytest.raises(ExportError, match="something else"):
        opened(target, [], origin())
    assert [*tmp_path.iterdir()] == [tmp_path / TO]


def test_a_copy_and_a_table_of_another_kind_are_not_ours(tmp_path: Path) -> None:
    load(tmp_path, [record("a", ["1"])])
    run(tmp_path, "CREATE TABLE copied AS FROM profiles")
    with pytest.raises(ExportError, match="something else"):
        load(tmp_path, [], table="copied")
    with pytest.raises(ExportError, match="an export of bindings"):
        load(tmp_path, [], content=BINDINGS, table="PROFILES")
    # One that was dropped is forgotten.
    run(tmp_path, "DROP TABLE profiles")
    load(tmp_path, [record("a", ["1"])], write="append")
    run(tmp_path, "DROP TABLE profiles", "CREATE TABLE profiles AS SELECT 1 AS n")
    with pytest.raises(ExportError, match="something else"):
        load(tmp_path, [], write="append")


def test_a_table_of_before_is_replaced_once(tmp_path: Path) -> None:
    run(tmp_path, OF_BEFORE, "INSERT INTO profiles (identity) VALUES ('x')")
    with pytest.raises(ExportError, match=r"earlier version.*once with write='replace' \(--write"):
        load(tmp_path, [record("a", ["1"])])
    with pytest.raises(ExportError, match=r"earlier version.*`table`"):
        load(tmp_path, [record("a", ["1"])], write="append")
    assert query(tmp_path, "SELECT identity FROM profiles") == [("x",)]
    load(tmp_path, [record("a", ["1"])], origin(1), write="replace")
    load(tmp_path, [record("b", ["2"])], origin(2))
    assert [row[1] for row in content_of(tmp_path)] == ["identity:a", "identity:b"]


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE profiles ALTER fetched_at TYPE VARCHAR",
        "ALTER TABLE profiles ALTER object_ids TYPE VARCHAR",
        "ALTER TABLE profiles ADD COLUMN rowid BIGINT",
    ],
)
def test_a_table_that_others_have_changed_is_refused(tmp_path: Path, statement: str) -> None:
    load(tmp_path, [record("a", ["1"])])
    run(tmp_path, statement)
    with pytest.raises(ExportError, match=r"change it back|rename it"):
        target_of(tmp_path / TO).check()


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE profiles DROP COLUMN email",
        "ALTER TABLE profiles ALTER fetched_at TYPE VARCHAR",
        "ALTER TABLE profiles ALTER events TYPE VARCHAR",
    ],
)
def test_the_error_of_a_table_that_was_changed_has_the_statement_that_mends_it(
    tmp_path: Path, change: str
) -> None:
    load(tmp_path, [record("a", ["1"])], origin(1))
    run(tmp_path, change)
    with pytest.raises(ExportError) as caught:
        target_of(tmp_path / TO).check()
    statement = re.search(r"ALTER TABLE [^;)]*", str(caught.value))
    assert statement is not None, caught.value
    run(tmp_path, statement[0])
    load(tmp_path, [record("a", ["1"])], origin(2))
    assert [row[1] for row in content_of(tmp_path)] == ["identity:a"]


def test_a_table_named_as_that_of_runs_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="table: names that begin with"):
        target_of(tmp_path / TO, table="Altaprofiles_Runs")
    run(tmp_path, "CREATE TABLE altaprofiles_runs AS SELECT 1 AS n")
    with pytest.raises(ExportError, match="rename it"):
        target_of(tmp_path / TO).check()


# Flattened columns


def values(folder: Path, column: str = "value") -> list[Any]:
    return [value for (value,) in query(folder, f'SELECT "{column}" FROM profiles ORDER BY person')]


def test_columns_come_and_are_left_out(tmp_path: Path) -> None:
    load(tmp_path, [record("a", ["1"], 1), record("b", ["2"], 2)], origin(1))
    load(tmp_path, [record("a", ["1"], 1)], origin(2), flatten=["value"])
    assert values(tmp_path) == [1, None]
    # The row of the one who comes is the same but for the column that is left out.
    load(tmp_path, [record("a", ["1"], 1), record("c", ["3"])], origin(3), flatten=["other"])
    assert values(tmp_path) == values(tmp_path, "other") == [None, None, None]
    assert [row[4] for row in content_of(tmp_path)] == [3, 1, 3]


DATE = 1_767_225_600


@pytest.mark.parametrize(
    ("first", "later", "expected"),
    [
        (3, "many", ["3", "many"]),
        (True, 1, ["true", "1"]),
        (2.5, "x", ["2.5", "x"]),
        (f"$D_{DATE}", "soon", [f"$D_{DATE}", "soon"]),
        (3, {"a": 1}, ["3", '{"a":1}']),
    ],
)
def test_a_value_of_another_type_makes_a_column_text(
    tmp_path: Path, first: Any, later: Any, expected: list[str]
) -> None:
    sink = load(tmp_path, [record("a", ["1"], first)], origin(1), flatten=["value"])
    assert sink.notes == []
    sink = load(tmp_path, [record("b", ["2"], later)], origin(2), flatten=["VALUE", "value"][1:])
    [note] = sink.notes
    assert "'value' of the table 'profiles'" in note
    assert "is text now" in note
    assert types(tmp_path)["value"] == "VARCHAR"
    assert values(tmp_path) == expected
    # And stays text, with values as JSON has them.
    sink = load(tmp_path, [record("b", ["2"], 1e5)], origin(3), flatten=["value"])
    assert sink.notes == []
    assert values(tmp_path) == [expected[0], "100000.0"]


@pytest.mark.parametrize(
    ("sent", "type_", "expected"),
    [
        ([["7", "8"], ["2.5"], ['"gold"']], "VARCHAR", ["7", "8", "2.5", "gold"]),
        ([["7", "-1"], ["2.5", "7.0"], ["null"]], "DOUBLE", [7.0, -1.0, 2.5, 7.0, None]),
        ([[str(2**53 + 1)], ["2.5"], ["7"]], "VARCHAR", [str(2**53 + 1), "2.5", "7"]),
        ([["true"], [f'"$D_{DATE}"'], ["1e5", "7.50"]], "VARCHAR",
         ["true", f"$D_{DATE}", "1e5", "7.50"]),
        ([["1e5"], ['{"b": [1],"a":"x"}'], ["1"]], "VARCHAR", ["1e5", '{"a":"x","b":[1]}', "1"]),
    ],
)  # fmt: skip
def test_values_do_not_depend_on_the_order_of_exports(
    tmp_path: Path, sent: list[list[str]], type_: str, expected: list[Any]
) -> None:
    of_account = dict(zip("ABC", sent, strict=True))
    for number, order in enumerate(permutations("ABC")):
        folder = tmp_path / str(number)
        folder.mkdir()
        for account in order:
            people = [
                b'{"identity":"%d","profileData":{"va/lue":%b}}' % (place, value.encode())
                for place, value in enumerate(of_account[account])
            ]
            load(folder, people, origin(1, account), flatten=["va/lue"])
        assert types(folder)["va/lue"] == type_, order
        found = query(folder, 'SELECT "va/lue" FROM profiles ORDER BY account, person')
        assert [value for (value,) in found] == expected, order


def test_several_columns_are_widened_at_once_and_values_of_other_runs_stay(tmp_path: Path) -> None:
    def people(*data: dict[str, Any]) -> list[bytes]:
        return [
            json.dumps({"identity": str(place), "profileData": one}).encode()
            for place, one in enumerate(data)
        ]

    flatten = ["it's", "email", "level"]
    load(tmp_path, people({"it's": True, "email": 7, "level": 7}), origin(1, "A"), flatten=flatten)
    # As `append` and the user's own statements leave it.
    run(tmp_path, "UPDATE profiles SET profile_data = '{\"email\":7}' WHERE account = 'A'")
    later = people({"it's": "x", "email": "y", "level": 0.5}, {"level": 7})
    sink = load(tmp_path, later, origin(1, "B"), flatten=flatten)
    assert [re.sub(".* was ", "", note).split(" now")[0] for note in sink.notes] == [
        "BOOLEAN and is text",
        "BIGINT and is text",
        "BIGINT and is DOUBLE",
    ]
    found = query(
        tmp_path,
        'SELECT "it\'s", "profile_data.email", level FROM profiles ORDER BY account, person',
    )
    assert found == [("true", "7", 7.0), ("x", "y", 0.5), (None, None, 7.0)]
    # Rows that were written anew are the same for the next run.
    load(tmp_path, later, origin(2, "B"), flatten=flatten)
    [(latest,)] = query(tmp_path, "SELECT max(hour(fetched_at AT TIME ZONE 'UTC')) FROM profiles")
    assert latest == time_of(1).hour


def test_a_widened_column_keeps_the_values_of_another_spelling(tmp_path: Path) -> None:
    def people(**data: Any) -> list[bytes]:
        return [json.dumps({"identity": "a", "profileData": data}).encode()]

    load(tmp_path, people(Plan=1, plan=7), origin(1, "A"), flatten=["Plan"])
    load(tmp_path, people(plan="gold"), origin(1, "B"), flatten=["plan"])
    found = query(tmp_path, 'SELECT "Plan" FROM profiles ORDER BY account')
    assert found == [("1",), ("gold",)]


def test_a_column_without_values_takes_the_type_that_comes_first(tmp_path: Path) -> None:
    named = {"value": "int64"}
    load(tmp_path, [record("a", ["1"], None)], origin(1), flatten=["value"])
    assert types(tmp_path)["value"] == "VARCHAR"
    load(tmp_path, [record("b", ["2"], None)], origin(2), flatten=named)
    assert types(tmp_path)["value"] == "BIGINT"
    load(tmp_path, [record("b", ["2"], None)], origin(3), flatten=["value"])
    assert types(tmp_path)["value"] == "BIGINT"
    sink = load(tmp_path, [record("b", ["2"], 2.5)], origin(4), flatten=["value"])
    assert (types(tmp_path)["value"], sink.notes) == ("DOUBLE", [])
    assert values(tmp_path) == [None, 2.5]
    with pytest.raises(ConfigurationError, match="is DOUBLE; name 'double'"):
        target_of(tmp_path / TO, flatten=named).check()


def test_a_column_of_the_user_s_own_keeps_its_type(tmp_path: Path) -> None:
    load(tmp_path, [record("a", ["1"], 1)], origin(1))
    run(tmp_path, "ALTER TABLE profiles ADD COLUMN value VARCHAR")
    with pytest.raises(ConfigurationError, match="is VARCHAR; name 'text'"):
        target_of(tmp_path / TO, flatten={"value": "int64"}).check()


@pytest.mark.parametrize("later", [None, 4])
def test_values_that_fit_widen_nothing(tmp_path: Path, later: Any) -> None:
    load(tmp_path, [record("a", ["1"], 2.5)], origin(1), flatten=["value"])
    sink = load(tmp_path, [record("b", ["2"], later)], origin(2), flatten=["value"])
    assert (sink.notes, types(tmp_path)["value"]) == ([], "DOUBLE")
    assert values(tmp_path) == [2.5, later]
    load(tmp_path, [record("b", ["2"], later)], origin(3), flatten=["value"])
    assert [row[4] for row in content_of(tmp_path)] == [1, 2]


def test_whole_numbers_that_a_double_cannot_hold_are_text(tmp_path: Path) -> None:
    load(tmp_path, [record("a", ["1"], 2.5)], origin(1), flatten=["value"])
    sink = load(tmp_path, [record("b", ["2"], 2**53 + 1)], origin(2), flatten=["value"])
    assert len(sink.notes) == 1
    assert values(tmp_path) == ["2.5", str(2**53 + 1)]


def test_a_table_of_runs_is_widened_as_well(tmp_path: Path) -> None:
    for hour, value in ((1, 3), (2, "x"), (2, "x")):
        load(tmp_path, [record("a", ["1"], value)], origin(hour), write="append", flatten=["value"])
    assert query(tmp_path, "SELECT value FROM profiles ORDER BY 1") == [("3",), ("x",)]


def test_a_named_type_never_widens(tmp_path: Path) -> None:
    named = {"value": "int64"}
    load(tmp_path, [record("a", ["1"], 3)], origin(1), flatten=named)
    sink = load(tmp_path, [record("b", ["2"], "x")], origin(2), flatten=named)
    assert (sink.mended.mistyped, sink.notes, values(tmp_path)) == ({"value": 1}, [], [3, None])
    target = target_of(tmp_path / TO, flatten={"value": "timestamp"})
    words = "flatten: 'value' .*'timestamp'.*'profiles'.*is BIGINT; name 'int64'.*--write replace"
    with pytest.raises(ConfigurationError, match=words):
        target.check()
    with pytest.raises(ConfigurationError, match=words):
        opened(target, [], origin(3))
    load(tmp_path, [record("b", ["2"], f"$D_{DATE}")], origin(3), write="replace",
         flatten={"value": "timestamp"})  # fmt: skip
    assert query(tmp_path, "SELECT epoch_us(value) FROM profiles") == [(DATE * 10**6,)]


def test_keys_may_have_any_name(tmp_path: Path) -> None:
    names = ["row", "number", "c0", "is_same", "new", "join", "added", "c1", 'a"b', "ünï", "old"]
    data = json.dumps(dict.fromkeys(names, 1)).encode()
    for hour in (1, 2):
        for write in ("upsert", "append"):
            people = [b'{"identity":"%d","profileData":%b}' % (n, data) for n in (hour, 7)]
            load(tmp_path, people, origin(hour), flatten=names, table=f"t {write}", write=write)
    assert query(tmp_path, 'SELECT count(*), sum("a""b") FROM "t upsert"') == [(3, 3)]
    assert query(tmp_path, 'SELECT count(*), sum("join") FROM "t append"') == [(4, 4)]
    with pytest.raises(ConfigurationError, match="flatten: a column 'rowid'"):
        target_of(tmp_path / TO, flatten=["ROWID"])


def test_times_are_utc_whatever_the_zone_of_the_process(tmp_path: Path) -> None:
    load(tmp_path, [record("a", ["1"])], origin(5))
    [(micros,)] = query(tmp_path, "SELECT epoch_us(fetched_at) FROM profiles")
    assert datetime.fromtimestamp(micros / 1e6, UTC) == time_of(5)


# Names, types and constraints as DuckDB sees them


@pytest.mark.slow
def test_names_are_folded_as_duckdb_does(tmp_path: Path) -> None:
    data = json.dumps({"STRASSE": 1, "Straße": 2, "strasse": 3, "Ä": 4, "ä": 5}).encode()
    people = [b'{"identity":"a","profileData":%b}' % data]
    for hour, key in enumerate(["STRASSE", "Straße", "Ä", "ä"]):
        load(tmp_path, people, origin(hour), flatten=[key])
        assert query(tmp_path, f'SELECT "{key}" FROM profiles') == [(hour + 1 + (hour > 1),)]
        # Two tables for DuckDB, and so two for the library.
        load(tmp_path, people, origin(hour), table="Ä", write="append")
        load(tmp_path, people, origin(hour), table="ä")
    load(tmp_path, people, origin(5), flatten=["strasse"])
    assert query(tmp_path, "SELECT strasse, Straße FROM profiles") == [(3, None)]
    assert query(tmp_path, 'SELECT count(*) FROM "Ä"') == [(4,)]


INDEX = "CREATE INDEX ours ON profiles (email)"


@pytest.mark.parametrize(
    ("write", "flatten", "fix"),
    [
        ("upsert", ["value"], "'value': 'int64'"),
        ("replace", ["value"], "'value': 'int64'"),
        ("replace", {"value": "text"}, "'value': 'int64'"),
        ("replace", ["name_"], "'name_': 'text'"),
    ],
)
def test_a_type_that_an_index_keeps_is_found_before_the_export(
    tmp_path: Path, write: str, flatten: Any, fix: str
) -> None:
    known = {"value": "int64", "name_": "text"}
    load(tmp_path, [record("a", ["1"], 1)], origin(1), flatten=known)
    run(tmp_path, INDEX)
    words = rf"index \(ours\); drop the index, or name .*{fix}"
    with pytest.raises(ExportError, match=words):
        target_of(tmp_path / TO, write=write, flatten=flatten).check()
    load(tmp_path, [record("a", ["1"], 2)], origin(2), write=write, flatten=known)
    assert values(tmp_path) == [2]
    # Text stays text.
    load(tmp_path, [record("a", ["1"], 2)], origin(3), flatten=["name_"])
    run(tmp_path, "DROP INDEX ours")
    load(tmp_path, [record("a", ["1"], 2)], origin(3), write=write, flatten=flatten)


@pytest.mark.parametrize("column", ["email", "note"])
def test_a_column_that_must_not_be_null_is_found_before_the_export(
    tmp_path: Path, column: str
) -> None:
    load(tmp_path, [record("a", ["1"])], origin(1))
    run(
        tmp_path,
        "ALTER TABLE profiles ADD COLUMN note VARCHAR",
        "UPDATE profiles SET note = 'x', email = 'x'",
        f"ALTER TABLE profiles ALTER COLUMN {column} SET NOT NULL",
    )
    run(tmp_path, "CREATE INDEX ours ON profiles (name)")
    with pytest.raises(ExportError, match=r"; drop the index \(ours\) first, then run: ALTER"):
        target_of(tmp_path / TO).check()
    run(tmp_path, "DROP INDEX ours")
    with pytest.raises(ExportError, match=f"'{column}' of .* must not be null") as caught:
        target_of(tmp_path / TO).check()
    assert "drop the index" not in str(caught.value)
    assert ("SET DEFAULT" in str(caught.value)) == (column == "note")
    statement = re.search(r"run: (ALTER TABLE [^;,]*)", str(caught.value))
    assert statement is not None, caught.value
    run(tmp_path, statement[1])
    target_of(tmp_path / TO).check()
    if column == "note":
        run(tmp_path, "ALTER TABLE profiles ALTER COLUMN note SET DEFAULT 'new'")
        load(tmp_path, [record("a", ["1"]), record("b", ["2"])], origin(2))
        assert values(tmp_path, "note") == ["x", "new"]


@pytest.mark.parametrize("index", ["email", "lower(email)"])
def test_an_error_of_duckdb_shows_no_values(tmp_path: Path, index: str) -> None:
    load(tmp_path, [b'{"identity":"1","email":"alice@secret.example"}'], origin(1))
    run(tmp_path, f"CREATE UNIQUE INDEX ours ON profiles ({index})")
    people = [b'{"identity":"%d","email":"alice@secret.example"}' % n for n in (1, 2)]
    with pytest.raises(ExportError, match=r"ConstraintException .*unique.*not shown") as caught:
        load(tmp_path, people, origin(2))
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert "secret" not in str(caught.value)
    assert values(tmp_path, "email") == ["alice@secret.example"]


def test_records_that_need_more_memory_are_loaded_with_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = [
        b'{"identity":"%d","profileData":{"a":"%b"}}' % (number, digest.encode() * 300)
        for number in range(1500)
        for digest in [sha256(b"%d" % number).hexdigest()]
    ]
    monkeypatch.setattr(duck, "_MEMORY_OF_NEW", "10MB")
    target = target_of(tmp_path / "people.duckdb")
    filled(target, rows_of(wide))
    with duckdb.connect(tmp_path / "people.duckdb") as connection:
        query = "SELECT count(*), min(length(profile_data)) > 19000 FROM profiles"
        assert connection.execute(query).fetchall() == [(1500, True)]
    monkeypatch.setattr(duck, "_MEMORY", "10MB")
    monkeypatch.setattr(duck_groups, "_MEMORY", "10MB")
    monkeypatch.setattr(duck_groups, "_MEMORY_TO_COMMIT", "10MB")
    with pytest.raises(ExportError, match="Out of Memory"):
        filled(target_of(tmp_path / "other.duckdb"), rows_of(wide))
    assert not (tmp_path / "other.duckdb").exists()
