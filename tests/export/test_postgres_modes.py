"""Upsert, replace and append in PostgreSQL, over several exports into one table."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from altaprofiles import ConfigurationError, ExportError, InvalidArgument
from altaprofiles.emulator import Emulator
from altaprofiles.export.sinks import Target
from altaprofiles.export.state import SyncState
from altaprofiles.export.tables import Content
from altaprofiles.tables.rows import Row

from ..support.exporting import Job, exporter
from ..support.postgres import PASSWORD, Server
from ..support.postgres_tables import (
    DAYS,
    days,
    devices,
    export,
    line,
    named,
    nameless,
    origin_of,
    waits,
)
from ..support.sinks import ACCOUNT, PEOPLE, opened, target_of
from ..support.thorough import examples
from ..support.waiting import wait_until

BINDINGS = Content(of="bindings")

BY_KEY = Content(has_key=True)


# ------------------------------------------------------------------------------------------ upsert


def test_accounts_have_their_own_people(postgres: Server) -> None:
    target = target_of(postgres.url("people"))
    for day, account in enumerate(["A", "B", "A"]):
        export(target, [named("1", name=account * (day + 1)), nameless("d")], day, account)
    assert days(postgres, "account, person, name") == [
        ("A", "identity:1", "AAA", 2, 0),
        ("A", "objectId:d", None, 0, 0),
        ("B", "identity:1", "BB", 1, 1),
        ("B", "objectId:d", None, 1, 1),
    ]
    assert postgres.rows(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 'people'::regclass"
    ) == [("PRIMARY KEY (account, person)",)]


def test_a_person_is_new_once_and_an_equal_row_is_not_written(postgres: Server) -> None:
    target = target_of(postgres.url("people"), flatten={"plan": None, "since": "timestamp"})
    data = {"plan": "gold", "since": "2026-01-05", "n": [1, {"a": None}]}
    records = [named("1", "a", name="A", profileData=data), nameless("b", "c"), line(email="x@y")]
    export(target, records)
    rows = "SELECT person, xmin::text, ctid::text FROM people ORDER BY person"
    before = postgres.rows(rows)
    export(target, records, 1)
    assert postgres.rows(rows) == before
    export(target, [named("1", "a", name="A2", profileData=data), *records[1:]], 2)
    assert days(postgres, "name") == [("A2", 2, 0), (None, 0, 0), (None, 0, 0)]
    assert postgres.rows(rows)[1:] == before[1:]


@pytest.mark.parametrize(
    "change",
    [
        {"name": "B"},
        {"events": {"Charged": {"count": 2}}},
        {"profileData": {"plan": "silver"}},
        {"x": 1},
        {"platformInfo": devices("b", "a")},
    ],
    ids=lambda change: ", ".join(change),
)
def test_any_other_column_makes_a_row_new(postgres: Server, change: dict[str, Any]) -> None:
    target = target_of(postgres.url("people"), flatten=["plan"])
    record = {"identity": "1", "name": "A", "platformInfo": devices("a", "b")}
    export(target, [line(**record)])
    export(target, [line(**record | change)], 1)
    assert days(postgres) == [("identity:1", 1, 0)]


def test_the_events_of_the_last_export_replace_those_of_the_row(postgres: Server) -> None:
    target = target_of(postgres.url("people"))
    export(target, [named("1")], 0, matched=["Charged", "Launched"])
    export(target, [named("1")], 1, matched=["Charged"])
    assert days(postgres, "matched") == [(["Charged"], 1, 0)]
    export(target, [named("1")], 2, matched=["Charged"])
    assert days(postgres, "matched") == [(["Charged"], 1, 0)]


def test_a_row_is_not_replaced_by_one_fetched_earlier(postgres: Server) -> None:
    target = target_of(postgres.url("people"))
    export(target, [named("1", name="later"), nameless("a", "b", name="later")], 5)
    late = export(
        target,
        [named("1", name="earlier"), nameless("b", "c", name="earlier"), named("2")],
        2,
    )
    assert days(postgres, "name, object_ids") == [
        ("later", [], 5, 5),
        (None, [], 2, 2),
        ("later", ["a", "b"], 5, 5),
    ]
    [note] = late.notes
    assert note == (
        f"{target_of(postgres.url('people')).name} keeps 2 rows as a later export has fetched "
        f"them, without the events of this one in `matched`"
    )
    # At the same time, as by a run that is resumed.
    export(target, [named("1", name="again")], 5)
    assert days(postgres, "name")[0] == ("again", 5, 5)


def test_a_person_with_an_identity_absorbs_rows_of_earlier_exports(postgres: Server) -> None:
    target = target_of(postgres.url("people"))
    export(target, [nameless("a"), nameless("b", "c"), nameless("d")])
    export(target, [nameless("a")], 1, "another account")
    sink = export(target, [named("1", "b", "a", name="A")], 3)
    assert sink.absorbed == 2
    assert days(postgres, "account, person") == [
        (ACCOUNT, "identity:1", 3, 0),
        (ACCOUNT, "objectId:d", 0, 0),
        ("another account", "objectId:a", 1, 1),
    ]
    # A row that is equal has only become older.
    export(target, [nameless("e")], 4)
    postgres.run("UPDATE people SET added_at = '2026-02-02 03:00Z' WHERE identity = '1'")
    assert export(target, [named("1", "b", "a", name="A")], 5).absorbed == 0
    assert export(target, [named("1", "d", name="B")], 6).absorbed == 1
    assert days(postgres)[0] == ("identity:1", 6, 0)


def test_a_row_that_is_equal_but_absorbs_another_keeps_the_day_it_was_fetched(
    postgres: Server,
) -> None:
    target = target_of(postgres.url("people"))
    # Nobody knew at first that the device is theirs.
    export(target, [named("1", "a")], 3)
    export(target, [nameless("a", name="before")], 1)
    assert export(target, [named("1", "a")], 5).absorbed == 1
    assert days(postgres) == [("identity:1", 3, 1)]


def test_a_nameless_record_of_the_same_run_stays_a_row_of_its_own(postgres: Server) -> None:
    target = target_of(postgres.url("people"))
    both = [named("1", "a", "b"), nameless("b", "c"), nameless("z")]
    export(target, [nameless("c", name="old"), nameless("a", name="mine")])
    sink = export(target, both, 1)
    # The row with c is continued by the nameless record, and the one with a by nobody else.
    assert sink.absorbed == 1
    expected = [("identity:1", 1, 0), ("objectId:b", 1, 0), ("objectId:z", 1, 1)]
    assert days(postgres) == expected
    assert export(target, both, 2).absorbed == 0
    assert days(postgres) == expected
    assert export(target, both[:1], 3).absorbed == 1
    assert days(postgres) == [("identity:1", 1, 0), ("objectId:z", 1, 1)]


def test_rows_of_one_nameless_person_become_one(postgres: Server) -> None:
    target = target_of(postgres.url("people"))
    export(target, [nameless("a")], 1)
    export(target, [nameless("b")], 2)
    assert export(target, [nameless("a", "b")], 3).absorbed == 0
    assert days(postgres, "object_ids") == [(["a", "b"], 3, 1)]
    # And apart again: both go back to that row.
    export(target, [nameless("a"), nameless("b")], 4)
    assert days(postgres, "object_ids") == [(["a"], 4, 1), (["b"], 4, 1)]


def test_exports_that_end_in_another_order_come_to_the_same(postgres: Server) -> None:
    target = target_of(postgres.url("people"))
    runs = [[nameless("a")], [nameless("a", "b")], [nameless("b", "c")]]
    for day, records in enumerate(runs):
        export(target, records, day)
    in_order = days(postgres, "object_ids")
    assert in_order == [(["b", "c"], 2, 0)]
    postgres.run("DROP TABLE people")
    for day in (0, 2, 1):
        export(target, runs[day], day)
    assert days(postgres, "object_ids") == in_order


def test_people_whom_two_keys_have_found_are_one_row_and_reported(postgres: Server) -> None:
    target = target_of(postgres.url("people"), BY_KEY)
    rows = [
        Row(named("1"), ACCOUNT, "a@x"),
        Row(named("1"), ACCOUNT, "b@x"),
        Row(named("2"), ACCOUNT, "c@x"),
    ]
    for day in range(2):
        (note,) = export(target, rows, day).notes
        assert "left out: 1 key of people who stand there under another key" in note
    assert days(postgres, "key, person") == [
        ("a@x", "identity:1", 0, 0),
        ("c@x", "identity:2", 0, 0),
    ]


def test_columns_of_other_kinds_of_exports_are_left_alone(postgres: Server) -> None:
    export(target_of(postgres.url("people")), [named("1"), named("2")], 0)
    export(
        target_of(postgres.url("people"), BY_KEY),
        [Row(named("1"), ACCOUNT, "1")],
        1,
    )
    assert days(postgres, "key, matched")[0] == ("1", ["Charged"], 1, 0)
    joined = Content(has_events=True, has_cdp=True)
    export(
        target_of(postgres.url("people"), joined),
        [Row(named("1"), ACCOUNT, matched=("Charged",), cdp=b"[]")],
        2,
    )
    assert days(postgres, "key, matched, cdp")[0] == ("1", ["Charged"], [], 2, 0)
    export(target_of(postgres.url("people")), [named("1")], 3)
    assert days(postgres, "key, matched, cdp")[0] == ("1", ["Charged"], [], 2, 0)


def test_own_columns_of_any_kind_go_with_the_person(postgres: Server) -> None:
    target = target_of(postgres.url("people"))
    export(target, [nameless("b"), nameless("c")])
    postgres.run(
        "ALTER TABLE people ADD COLUMN value json, ADD COLUMN from_person point,"
        " ADD COLUMN length int GENERATED ALWAYS AS (length(person)) STORED,"
        " ADD COLUMN number bigint GENERATED ALWAYS AS IDENTITY, ADD COLUMN place serial",
        "UPDATE people SET value = '{\"a\":1}', from_person = '(1,2)', place = 70"
        " WHERE person = 'objectId:b'",
    )
    export(target, [nameless("a", "b")], 1)
    export(target, [named("10", "a", "c")], 2)
    rows = "SELECT person, value, from_person::text, length, place FROM people"
    assert postgres.rows(rows) == [("identity:10", {"a": 1}, "(1,2)", 11, 70)]


# ------------------------------------------------------------------------------- against the model


class Model:
    """The rows of a table by account and person, changed one at a time."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], dict[str, Any]] = {}
        self.absorbed = 0

    def upsert(
        self,
        account: str,
        day: int,
        people: Sequence[tuple[str | None, tuple[str, ...], str, tuple[str, ...]]],
        *,
        unites: bool,
    ) -> None:
        before = {key: dict(row) for key, row in self.rows.items() if key[0] == account}
        continued = {
            key
            for key, row in before.items()
            if row["identity"] is None
            and any(not one[0] and {*one[1]} & {*row["ids"]} for one in people)
        }
        new: dict[tuple[str, str], dict[str, Any]] = {}
        gone: set[tuple[str, str]] = set()
        older: dict[tuple[str, str], list[int]] = {}
        absorbed: set[tuple[str, str]] = set()
        grown: dict[tuple[str, str], set[str]] = {}
        for identity, ids, name, events in people:
            key = (account, f"identity:{identity}" if identity else f"objectId:{min(ids)}")
            mine = {key} & before.keys()
            for other, known in before.items():
                if known["identity"] is None and {*ids} & {*known["ids"]}:
                    if identity is None:
                        mine.add(other)
                    elif other not in continued and known["fetched"] <= day:
                        mine.add(other)
                        absorbed.add(other)
            later = {other for other in mine if before[other]["fetched"] > day}
            added = min([before[other]["added"] for other in mine], default=day)
            matched = {*events}
            if unites:
                matched.update(*(before[other]["matched"] for other in mine))
            row = {"identity": identity, "ids": ids, "name": name, "matched": sorted(matched)}
            gone |= mine - later
            if later:
                for other in later:
                    older.setdefault(other, []).append(added)
                    grown.setdefault(other, {*before[other]["matched"]}).update(matched)
                continue
            known_row = before.get(key)
            is_equal = known_row is not None and all(known_row[one] == row[one] for one in row)
            fetched = known_row["fetched"] if known_row is not None and is_equal else day
            new[key] = {**row, "fetched": fetched, "added": added}
        for key in gone:
            self.rows.pop(key, None)
        for key, times in older.items():
            self.rows[key]["added"] = min(times)
            if unites:
                self.rows[key]["matched"] = sorted(grown[key])
        self.rows.update(new)
        self.absorbed = len(absorbed)

    @property
    def table(self) -> list[tuple[Any, ...]]:
        return [
            (*key, [*row["ids"]], row["name"], row["matched"], row["fetched"], row["added"])
            for key, row in sorted(self.rows.items())
        ]


IDS = st.lists(st.sampled_from("abcdef"), min_size=1, max_size=3, unique=True).map(tuple)
EVENTS = st.sampled_from([("P",), ("Q",), ("P", "Q"), ("a",)])
PERSON = st.tuples(st.sampled_from([None, None, "1", "2"]), IDS, st.sampled_from("xy"), EVENTS)


def each_once(people: list[tuple[str | None, tuple[str, ...], str, tuple[str, ...]]]) -> list[Any]:
    """Leave out people that came before, as an export does."""
    identities: set[str] = set()
    seen: set[str] = set()
    kept = []
    for one in people:
        identity, ids, *_ = one
        if identity is None:
            is_new = not seen & {*ids}
            seen |= {*ids}
        else:
            is_new = identity not in identities
            identities.add(identity)
        if is_new:
            kept.append(one)
    return kept


VERSIONS = """
SELECT account, person, name, object_ids, matched, fetched_at, added_at, xmin::text FROM people
"""

EXPORTS = st.lists(
    st.tuples(
        st.sampled_from("AB"), st.integers(0, 6), st.lists(PERSON, max_size=5).map(each_once)
    ),
    min_size=1,
    max_size=6,
)


@pytest.mark.slow
@pytest.mark.parametrize("unites", [False, True])
@pytest.mark.parametrize("others", [0, 1000])
@settings(max_examples=examples(3, 8), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(exports=EXPORTS)
@example(
    exports=[
        ("A", 1, [(None, ("a",), "x", ("P",)), (None, ("b",), "x", ("a",))]),
        ("A", 3, [(None, ("b",), "y", ("P",)), ("1", ("c",), "x", ("P",))]),
        ("A", 2, [(None, ("a", "b"), "x", ("Q",)), ("1", ("a", "c"), "y", ("a",))]),
        ("A", 4, [("1", ("b", "c"), "x", ("Q",))]),
    ]
)
def test_upserts_are_as_in_a_model(
    postgres: Server, others: int, unites: bool, exports: list[Any]
) -> None:
    """Small exports into a large table are merged by its index."""
    postgres.run("DROP TABLE IF EXISTS people")
    target = target_of(postgres.url("people"))
    export(target, [], 0)
    postgres.run(
        "INSERT INTO people (account, person, object_ids) SELECT 'Z', 'objectId:' || one, '{a,b}'"
        f" FROM generate_series(1, {others}) AS one",
        "ANALYZE people",
    )
    model = Model()
    for account, day, people in exports:
        model.upsert(account, day, people, unites=unites)
        rows = [
            Row(record, account, matched=matched)
            for identity, ids, name, matched in people
            for record in [
                named(identity, *ids, name=name) if identity else nameless(*ids, name=name)
            ]
        ]
        known = {row[:2]: row[2:] for row in postgres.rows(VERSIONS)}
        state = SyncState(account=account, settings="{}", through=DAYS[0].date(), synced_at=DAYS[0])
        sink = export(target, rows, day, account, sync=state if unites else None)
        assert sink.absorbed == model.absorbed
        found = days(postgres, "account, person, object_ids, name, matched")
        assert found[: len(found) - others] == model.table
        assert {row[:1] + row[5:] for row in found[len(found) - others :]} <= {("Z", None, None)}
        for version in postgres.rows(VERSIONS):
            was = known.get(version[:2])
            if was is not None and was[:-1] == version[2:-1]:
                assert was[-1] == version[-1], "a row was written that has not changed"


# ------------------------------------------------------------------------------- replace and append


def test_replace_leaves_the_rows_of_this_export_only(postgres: Server) -> None:
    target = target_of(postgres.url("people"), write="replace")
    assert target.present() is None
    export(target, [named("1"), nameless("a"), nameless("b")])
    assert target.present() == f"3 rows of {target.name}"
    sink = export(target, [nameless("a", "b", name="A"), named("2", "a"), named("2")], 3)
    # A table that is replaced begins anew, and has nothing to absorb.
    assert sink.absorbed == 0
    assert days(postgres) == [("identity:2", 3, 3), ("objectId:a", 3, 3)]
    # An earlier export that ends later is asked for by name, too.
    export(target, [], 2)
    assert days(postgres) == []


def test_replace_does_not_delete_other_accounts(postgres: Server) -> None:
    upsert = target_of(postgres.url("people"))
    for account in ("A", "B", "C", "D", "E"):
        export(upsert, [named("1")], 0, account)
    replace = target_of(postgres.url("people"), write="replace")
    fix = r"other accounts \(B, C, D, …\); pass write='upsert', name another table, or export those"
    with pytest.raises(ExportError, match=fix):
        export(replace, [named("2")], 1, "A")
    assert len(days(postgres)) == 5
    rows = [Row(named("2"), account) for account in "ABCDE"]
    export(replace, rows, 1, *"ABCDE")
    assert days(postgres, "account, person") == [(one, "identity:2", 1, 1) for one in "ABCDE"]


def test_replace_and_upsert_go_into_the_same_table(postgres: Server) -> None:
    for day, write in enumerate(["upsert", "replace", "upsert"]):
        export(target_of(postgres.url("people"), write=write), [named(str(day))], day)
    assert days(postgres) == [("identity:1", 1, 1), ("identity:2", 2, 2)]


def test_replace_is_refused_before_anything_is_sent(postgres: Server) -> None:
    replace = target_of(postgres.url("people"), write="replace")
    replace.accept(origin_of(0, "A"))
    export(target_of(postgres.url("people")), [named("1")], 0, "B")
    with pytest.raises(ExportError, match=r"other accounts \(B\); pass write='upsert'"):
        replace.accept(origin_of(1, "A"))
    replace.accept(origin_of(1, "A", "B"))
    target_of(postgres.url("people")).accept(origin_of(1, "A"))
    postgres.run("UPDATE people SET account = 'A'")
    replace.accept(origin_of(1, "A"))


REPEATING = Content(has_events=True, repeats=True)


def repeating(postgres: Server) -> Target:
    return target_of(postgres.url("people"), REPEATING, write="replace")


def test_people_are_as_often_in_a_table_as_they_were_asked_for(postgres: Server) -> None:
    twice = [named("1", name="A"), named("1", name="B"), nameless("a"), nameless("a", "b")]
    for day in range(2):
        assert export(repeating(postgres), twice, day).notes == []
        assert days(postgres, "person, name") == [
            ("identity:1", "A", day, day),
            ("identity:1", "B", day, day),
            ("objectId:a", None, day, day),
            ("objectId:a", None, day, day),
        ]
    assert postgres.rows("SELECT table_name, mode FROM altaprofiles_runs") == [
        ("people", "repeating")
    ]
    with pytest.raises(ExportError, match=r"other accounts \(ACCOUNT\)"):
        export(repeating(postgres), twice, 2, "B")
    for write, once in (("upsert", " once"), ("append", "")):
        fix = f"replace' and `distinct=False`, .* export into it{once} with write='replace'"
        with pytest.raises(ExportError, match=fix):
            target_of(postgres.url("people"), write=write).check()
    # And so it gets a key again.
    (note,) = export(target_of(postgres.url("people"), write="replace"), twice[::3], 3).notes
    assert note.endswith("is replaced, and its key is account and person now")
    export(target_of(postgres.url("people")), twice[:1], 4)
    assert days(postgres) == [("identity:1", 3, 3), ("objectId:a", 3, 3)]


@pytest.mark.parametrize("made", ["constraint", "index", "earlier version"])
def test_a_table_with_a_key_is_replaced_by_people_who_repeat(postgres: Server, made: str) -> None:
    if made == "earlier version":
        make_old_table(postgres)
    else:
        export(target_of(postgres.url("people")), [named("1")])
    if made == "index":
        postgres.run(
            "ALTER TABLE people DROP CONSTRAINT people_pkey",
            "CREATE UNIQUE INDEX ON people (account, person)",
        )
    (note,) = export(repeating(postgres), [named("1"), named("1")], 1).notes
    assert "people can be there more than once now, so that it has no unique key" in note
    assert days(postgres) == [("identity:1", 1, 1)] * 2


def test_a_key_that_others_refer_to_is_kept(postgres: Server) -> None:
    export(target_of(postgres.url("people")), [named("1")])
    postgres.run(
        "CREATE TABLE orders (account text, person text, FOREIGN KEY (account, person)"
        " REFERENCES people)"
    )
    with pytest.raises(ExportError, match=r"`distinct=.*orders_account_person_fkey of orders"):
        repeating(postgres).check()


def test_rows_that_were_appended_are_not_replaced(postgres: Server) -> None:
    export(target_of(postgres.url("people"), write="append"), [named("1")])
    with pytest.raises(
        ExportError, match=r"with write='append'.*only an export with write='append'"
    ):
        repeating(postgres).check()
    postgres.run("TRUNCATE people")
    export(repeating(postgres), [named("1"), named("1")])
    assert len(days(postgres)) == 2


def test_append_adds_the_rows_of_each_run_once(postgres: Server) -> None:
    target = target_of(postgres.url("crm.people"), write="append")
    postgres.run("CREATE SCHEMA crm")
    other = target_of(postgres.url("crm.others"), write="append")
    for day, run in [(0, "one"), (1, "two"), (0, "one"), (1, "two"), (2, "three")]:
        export(target, [named("1", name=run), named("1"), nameless("a")], day, run=run)
        export(other, [named("1", name=run)], day, run=run)
    names = postgres.rows("SELECT name FROM crm.people WHERE name IS NOT NULL ORDER BY fetched_at")
    assert names == [("one",), ("two",), ("three",)]
    assert postgres.rows("SELECT count(*) FROM crm.people") == [(9,)]
    assert postgres.rows("SELECT name FROM crm.others ORDER BY 1") == [
        ("one",),
        ("three",),
        ("two",),
    ]
    assert postgres.rows(
        "SELECT table_name, run FROM crm.altaprofiles_runs WHERE written_at <= now() ORDER BY 1, 2"
    ) == [(table, run) for table in ("others", "people") for run in ("one", "three", "two")]
    assert postgres.rows("SELECT count(*) FROM pg_indexes WHERE tablename = 'people'") == [(0,)]


def test_append_takes_what_an_incomplete_run_lacked(postgres: Server) -> None:
    content = Content(has_key=True, has_cdp=True)
    to = postgres.url("100%")
    target = target_of(to, content, write="append")
    export(target, [Row(named("1"), ACCOUNT, "1")], 0, run="before")
    export(target, [Row(named("1"), ACCOUNT, "1"), Row(named("9"), ACCOUNT, "9")], 1, run="one")
    export(target, [Row(named("1"), ACCOUNT, "1")], 1, run="of the same time")
    postgres.run("""UPDATE "100%" SET name = 'mine' WHERE key = '1'""")
    whole = [Row(named("2"), ACCOUNT, "2"), Row(named("1"), ACCOUNT, "1", (), b"[]")]
    flattened = target_of(to, content, write="append", flatten=["plan"])
    export(flattened, whole, 1, run="one")
    assert days(postgres, "key, cdp", '"100%"') == [
        ("1", None, 0, 0),
        ("1", None, 1, 1),
        ("1", [], 1, 1),
        ("2", None, 1, 1),
    ]


def test_a_run_that_was_appended_whole_is_left_alone(
    postgres: Server, guest: Callable[[str], Target]
) -> None:
    """Even where this user may do nothing but append."""
    name = f"modes_guest_of_{postgres.database}"
    export(target_of(postgres.url("people"), write="append"), [], run="zero")
    postgres.run(
        f"GRANT SELECT, INSERT, DELETE ON altaprofiles_runs TO {name}",
        f"GRANT INSERT ON people TO {name}",
    )
    for _ in range(2):
        export(guest("append"), [named("1")], 1, run="one")
    assert days(postgres) == [("identity:1", 1, 1)]
    fix = rf"its rows before it was complete.*run: GRANT SELECT, DELETE ON \"people\" TO {name}"
    with pytest.raises(ExportError, match=fix):
        export(guest("append"), [named("1"), named("2")], 1, run="one")
    postgres.run(f"GRANT SELECT, DELETE ON people TO {name}")
    export(guest("append"), [named("1"), named("2")], 1, run="one")
    assert days(postgres) == [("identity:1", 1, 1), ("identity:2", 1, 1)]


@pytest.mark.parametrize("is_restored", [False, True])
def test_bindings_of_an_incomplete_run_are_taken_back(postgres: Server, is_restored: bool) -> None:
    target = target_of(postgres.url("bound"), BINDINGS, write="append")
    both = [found("1", ("u", ["a"])), found("2", ("v", []))]
    export(target, both, run="before")
    export(target, both[1:], run="one")
    if is_restored:
        postgres.run(
            "BEGIN",
            *(
                f"CREATE TABLE x AS TABLE {table}; TRUNCATE {table}; INSERT INTO {table}"
                " TABLE x; DROP TABLE x"
                for table in ("bound", "altaprofiles_runs")
            ),
            "COMMIT",
        )
        # What two runs have appended looks the same then.
        both = [found("3", ("u", ["a"])), both[1]]
    export(target, both, run="one")
    rows = postgres.rows("SELECT key, user_id, anonymous_id FROM bound ORDER BY 1")
    assert rows == [
        *([("1", "u", "a")] * (1 if is_restored else 2)),
        *([("2", "v", None)] * 2),
        *([("3", "u", "a")] if is_restored else []),
    ]


@pytest.mark.parametrize("content", [PEOPLE, BINDINGS], ids=lambda content: content.of)
def test_rows_of_another_run_do_not_stand_for_those_that_somebody_has_deleted(
    postgres: Server, content: Content
) -> None:
    target = target_of(postgres.url("added"), content, write="append")
    rows: dict[str, bytes | Row] = {"one": named("1"), "two": named("2"), "nobody": named("3")}
    if content is BINDINGS:
        rows = {run: found(run, ("u", ["a"])) for run in rows}
    origins = {run: origin_of(day, run=run) for day, run in enumerate(rows)}
    export(target, [rows["one"]], 0, run="one")
    postgres.run("DELETE FROM added")
    export(target, [rows["two"]], 1, run="two")
    export(target, [], 2, run="nobody")
    assert [run for run in rows if target.holds(origins[run])] == ["two"]
    for run in ("one", "two"):
        export(target, [rows[run]], [*rows].index(run), run=run)
    assert [run for run in rows if target.holds(origins[run])] == ["one", "two"]
    assert postgres.rows("SELECT count(*) FROM added") == [(2,)]


def test_a_run_is_appended_to_a_table_that_was_made_again(postgres: Server) -> None:
    target = target_of(postgres.url("people"), write="append")
    for _ in range(2):
        export(target, [named("1")], run="one")
        postgres.run("DROP TABLE people")
    export(target, [named("1")], run="two")
    export(target, [named("1")], run="one")
    assert postgres.rows("SELECT count(*) FROM people") == [(2,)]


@pytest.mark.parametrize("content", [PEOPLE, BINDINGS], ids=lambda content: content.of)
def test_a_table_is_used_in_the_mode_it_was_made_in(postgres: Server, content: Content) -> None:
    def target(table: str, write: str) -> Target:
        return target_of(postgres.url(table), content, write=write)

    for write in ("upsert", "replace", "append"):
        export(target(write, write), [])
    for table, write, fix in [
        ("upsert", "append", "pass write='upsert' or write='replace', or name another table"),
        ("replace", "append", "pass write='upsert' or write='replace', or name another table"),
        ("append", "upsert", "only an export with write='append' .*; otherwise name another table"),
        (
            "append",
            "replace",
            "only an export with write='append' .*; otherwise name another table",
        ),
    ]:
        with pytest.raises(ExportError, match=fix):
            target(table, write).check()
        sink = opened(target(table, write))
        with pytest.raises(ExportError, match=fix):
            sink.close()
        sink.abort()


FOREIGN = {
    "its own key": "id int PRIMARY KEY, name text",
    "our key": "account text, person text, balance int, PRIMARY KEY (account, person)",
    "our names": "account text, person text, identity text, email text, name text, phone text",
    "bindings": "account text, key text, user_id text, anonymous_id text, source_id text, x int",
}


@pytest.mark.parametrize("write", ["upsert", "replace", "append"])
@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("content", [PEOPLE, BINDINGS], ids=lambda content: content.of)
def test_a_table_of_another_program_is_refused_in_every_mode(
    postgres: Server, content: Content, name: str, write: str
) -> None:
    postgres.run(f"CREATE TABLE people ({FOREIGN[name]})", "INSERT INTO people VALUES (7, 8)")
    target = target_of(postgres.url("people"), content, write=write)
    with pytest.raises(ExportError, match="name another table, or rename this one"):
        target.check()
    sink = opened(target)
    with pytest.raises(ExportError):
        sink.close()
    sink.abort()
    assert postgres.rows("SELECT count(*) FROM people") == [(1,)]


@pytest.mark.parametrize("write", ["upsert", "replace", "append"])
def test_a_table_may_be_made_in_advance(postgres: Server, write: str) -> None:
    key = "" if write == "append" else ", PRIMARY KEY (account, person)"
    postgres.run(
        f"CREATE TABLE people (account text, person text{key}) PARTITION BY HASH (person)",
        "CREATE TABLE people_0 PARTITION OF people FOR VALUES WITH (MODULUS 2, REMAINDER 0)",
        "CREATE TABLE people_1 PARTITION OF people FOR VALUES WITH (MODULUS 2, REMAINDER 1)",
    )
    target = target_of(postgres.url("people"), write=write)
    for day in range(2):
        export(target, [named(str(number)) for number in range(9)], day)
    assert len(days(postgres)) == (18 if write == "append" else 9)


def test_the_table_of_runs_is_no_output() -> None:
    with pytest.raises(ConfigurationError, match=r"^to: 'altaprofiles_runs' is the table in which"):
        target_of("postgresql://h/db/crm.altaprofiles_runs")
    with pytest.raises(ConfigurationError, match=r"^to: 'altaprofiles_sync' is the table in which"):
        target_of("postgresql://h/db/altaprofiles_sync")
    for name in ("stage", "repeated", "links", "known", "merged", "plan", "changed"):
        with pytest.raises(ConfigurationError, match=r"^to: the export has a temporary table"):
            target_of(f"postgresql://h/db/altaprofiles_{name}")
        target_of(f"postgresql://h/db/crm.altaprofiles_{name}")


def test_another_table_in_the_place_of_that_of_runs_is_found_first(postgres: Server) -> None:
    postgres.run("CREATE TABLE altaprofiles_runs (id int)")
    with pytest.raises(ExportError, match="is not the table in which exports record"):
        target_of(postgres.url("people"), write="append").check()
    export(target_of(postgres.url("people")), [named("1")])


# ---------------------------------------------------------------------------------------- bindings


def found(key: str, *users: tuple[str, Sequence[str]], account: str = ACCOUNT) -> Row:
    return Row(
        line(
            key=key,
            users=[
                {
                    "user_id": user,
                    "anonymous_ids": [
                        {"anonymous_id": one, "conversation_type": "WEB", "source_id": None}
                        for one in ids
                    ],
                }
                for user, ids in users
            ],
        ),
        account,
        key,
    )


def test_the_bindings_of_a_key_are_replaced_whole(postgres: Server) -> None:
    target = target_of(postgres.url("bound"), BINDINGS)
    long = "k" * 9000
    first = [
        found("1", ("u1", ["a", "b"]), ("u2", [])),
        found("2", ("u3", ["c", "c"])),
        found(long, ("u4", [])),
    ]
    export(target, first)
    export(target, [found("1", ("other", ["x"]), account="B")], 0, "B")
    query = "SELECT account, key, user_id, anonymous_id, xmin::text FROM bound ORDER BY 1, 2, 3, 4"
    before = postgres.rows(query)
    assert [row[:-1] for row in before] == [
        (ACCOUNT, "1", "u1", "a"),
        (ACCOUNT, "1", "u1", "b"),
        (ACCOUNT, "1", "u2", None),
        (ACCOUNT, "2", "u3", "c"),
        (ACCOUNT, "2", "u3", "c"),
        (ACCOUNT, long, "u4", None),
        ("B", "1", "other", "x"),
    ]
    export(target, first, 1)
    assert postgres.rows(query) == before
    export(target, [found("1", ("u1", ["b"])), *first[1:]], 2)
    after = postgres.rows(query)
    assert [row[:-1] for row in after[:1]] == [(ACCOUNT, "1", "u1", "b")]
    assert after[1:] == before[3:]


def test_a_key_that_has_no_bindings_any_more_has_no_rows(postgres: Server) -> None:
    target = target_of(postgres.url("bound"), BINDINGS)
    query = "SELECT account, key, user_id FROM bound ORDER BY 1, 2, 3"
    export(target, [found("none"), found("1", ("u", []))])
    assert postgres.rows(query) == [(ACCOUNT, "1", "u")]
    odd = r"\t\\ 2"
    first = [found("1", ("u", ["a"]), ("v", [])), found(odd, ("w", [])), found("3", ("x", ["c"]))]
    export(target, first, 1)
    export(target, [found("1", ("y", []), account="B")], 1, "B")
    sink = export(target, [found("1"), found(odd), found("none"), found("2\0")], 2)
    assert sink.mended.total == 0
    assert postgres.rows(query) == [(ACCOUNT, "3", "x"), ("B", "1", "y")]
    for write in ("append", "replace"):
        other = target_of(postgres.url(f"by_{write}"), BINDINGS, write=write)
        export(other, [found("1"), found("2", ("u", []))])
        assert postgres.rows(f"SELECT key FROM by_{write}") == [("2",)]


@pytest.mark.parametrize("write", ["replace", "append"])
def test_bindings_are_replaced_and_appended(postgres: Server, write: str) -> None:
    target = target_of(postgres.url("bound"), BINDINGS, write=write)
    for key in ("1", "2", "2"):
        export(target, [found(key, ("u", ["a"]))], run=key)
    kept = postgres.rows("SELECT key FROM bound ORDER BY 1")
    assert kept == ([("2",)] if write == "replace" else [("1",), ("2",)])


# -------------------------------------------------------------------- tables of an earlier version

OLD_TABLE = (
    'CREATE TABLE people ("person" text PRIMARY KEY, "identity" text, "email" text, "name" text,'
    ' "phone" text, "object_ids" text[], "profile_data" jsonb, "events" jsonb,'
    ' "platform_info" jsonb, "extra" jsonb, "plan" text)'
)


def make_old_table(postgres: Server) -> None:
    postgres.run(
        OLD_TABLE,
        "CREATE INDEX ON people USING gin (object_ids)",
        "INSERT INTO people VALUES"
        " ('identity:1', '1', NULL, 'A', NULL, '{}', NULL, NULL, NULL, NULL, 'gold'),"
        " ('identity:2', '2', NULL, 'B', NULL, '{}', NULL, NULL, NULL, NULL, 'gold'),"
        " ('objectId:a', NULL, NULL, 'C', NULL, '{a,b}', NULL, NULL, NULL, NULL, NULL),"
        " ('objectId:d', NULL, NULL, 'D', NULL, '{d}', NULL, NULL, NULL, NULL, NULL)",
    )


def test_a_table_of_an_earlier_version_is_taken_over(postgres: Server) -> None:
    make_old_table(postgres)
    target = target_of(postgres.url("people"), flatten=["plan"])
    records = [named("1", name="A2"), nameless("b", name="C2"), named("3", "d")]
    sink = export(target, records, 1, "O'Neill \\ 1")
    (note,) = sink.notes
    assert note == (
        f"{target.name} was made by an earlier version, and its key is account and person now; "
        "4 rows of it belong to the account O'Neill \\ 1"
    )
    assert sink.absorbed == 1
    account = "O'Neill \\ 1"
    assert days(postgres, "account, person, name, plan, matched") == [
        # Since when they are there is not known: for longer than any time says.
        (account, "identity:1", "A2", None, ["Charged"], 1, None),
        (account, "identity:2", "B", "gold", None, None, None),
        (account, "identity:3", None, None, ["Charged"], 1, None),
        (account, "objectId:b", "C2", None, ["Charged"], 1, None),
    ]
    assert export(target, [named("1", name="B")], 2, "another").notes == []
    assert len(days(postgres)) == 5
    assert postgres.rows(
        "SELECT count(*) FROM pg_indexes WHERE tablename = 'people' AND indexdef LIKE '%gin%'"
    ) == [(1,)]


def test_a_table_of_an_earlier_version_is_replaced(postgres: Server) -> None:
    make_old_table(postgres)
    target = target_of(postgres.url("people"), write="replace")
    (note,) = export(target, [named("2")], 1, "B").notes
    assert note.endswith("was made by an earlier version, and its key is account and person now")
    assert days(postgres, "account, person") == [("B", "identity:2", 1, 1)]


def test_a_table_of_an_earlier_version_is_not_appended_to(postgres: Server) -> None:
    make_old_table(postgres)
    with pytest.raises(ExportError, match="pass write='upsert' or write='replace'"):
        target_of(postgres.url("people"), write="append").check()


def test_old_rows_belong_to_one_account(postgres: Server) -> None:
    make_old_table(postgres)
    target = target_of(postgres.url("people"))
    with pytest.raises(ExportError, match="export one account first"):
        export(target, [Row(named("1"), "A"), Row(named("1"), "B")], 1, "A", "B")
    assert postgres.rows("SELECT count(*) FROM people") == [(4,)]


def test_a_take_over_that_fails_leaves_the_table_as_it_was(postgres: Server) -> None:
    make_old_table(postgres)
    postgres.run("ALTER TABLE people ADD CHECK (name IS DISTINCT FROM 'no')")
    target = target_of(postgres.url("people"))
    before = postgres.rows("SELECT * FROM people ORDER BY person")
    with pytest.raises(ExportError, match="check constraint"):
        export(target, [named("9", name="no")])
    assert postgres.rows("SELECT * FROM people ORDER BY person") == before


UNFIT = {
    "taken name": ("ALTER TABLE people ADD account text", "taken now (account); rename"),
    "taken name of a time": (
        "ALTER TABLE people ADD fetched_at timestamptz",
        "taken now (fetched_at); rename",
    ),
    "reference": (
        "CREATE TABLE orders (person text REFERENCES people)",
        "refer to the key of now (orders_person_fkey of orders)",
    ),
}


@pytest.mark.parametrize("name", UNFIT)
def test_an_old_table_that_cannot_be_taken_over_is_found_first(postgres: Server, name: str) -> None:
    make_old_table(postgres)
    statement, fault = UNFIT[name]
    postgres.run(statement)
    with pytest.raises(ExportError) as caught:
        target_of(postgres.url("people")).check()
    assert fault in str(caught.value)


def test_an_old_table_in_partitions_is_taken_over(postgres: Server) -> None:
    postgres.run(
        f"{OLD_TABLE} PARTITION BY HASH (person)",
        "CREATE TABLE people_0 PARTITION OF people FOR VALUES WITH (MODULUS 1, REMAINDER 0)",
        "INSERT INTO people (person, identity, object_ids) VALUES ('identity:1', '1', '{}')",
    )
    target = target_of(postgres.url("people"))
    for day, account in enumerate(["A", "A", "B"]):
        export(target, [named("1", name="A")], day, account)
    assert days(postgres, "account") == [("A", 0, None), ("B", 2, 2)]


# ------------------------------------------------------------------------ rows that an upsert reads

MANY = 400
"""People of a table. If each one is looked for in all of it, that is the square of their number."""

OWN_KEY = (
    "ALTER TABLE people DROP CONSTRAINT people_pkey",
    'CREATE UNIQUE INDEX ON people (account COLLATE "C", person COLLATE "C")',
)
UNUSABLE = {
    "collation": OWN_KEY,
    # The server could find the rows of one of several accounts by it, and then read them all.
    "collation of one column": (
        OWN_KEY[0],
        'CREATE UNIQUE INDEX people_key ON people (account, person COLLATE "C")',
        *(
            f'INSERT INTO people SELECT (jsonb_populate_record(p, \'{{"account": "{name}"}}\')).*'
            f" FROM people AS p WHERE account = '{ACCOUNT}'"
            for name in "BCDE"
        ),
        "CLUSTER people USING people_key",
        "ANALYZE people",
    ),
    # It has both columns, and finds nobody in particular.
    "block range": (*OWN_KEY, "CREATE INDEX ON people USING brin (account, person)"),
    "partitions": (
        "ALTER TABLE people RENAME TO single",
        'CREATE TABLE people (LIKE single) PARTITION BY HASH (account COLLATE "C")',
        *OWN_KEY[1:],
        "CREATE TABLE people_0 PARTITION OF people FOR VALUES WITH (MODULUS 1, REMAINDER 0)",
        "INSERT INTO people SELECT * FROM single",
        "DROP TABLE single",
    ),
}


def rows_read(postgres: Server, written: int) -> int:
    """Return the number of rows that were read of a table, once those that are written count."""
    of_table = "FROM pg_stat_user_tables WHERE starts_with(relname, 'people')"
    wait_until(lambda: postgres.rows(f"SELECT sum(n_tup_upd) >= {written} {of_table}") == [(True,)])
    ((count,),) = postgres.rows(f"SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0)) {of_table}")
    return int(count)


@pytest.mark.parametrize("way", UNUSABLE)
def test_a_key_that_the_server_cannot_use_is_no_reason_to_read_the_table_for_each_person(
    postgres: Server, way: str
) -> None:
    target = target_of(postgres.url("people"))
    people = [(str(number), f"d{number}") for number in range(MANY)]
    export(target, [named(*one, name="A") for one in people])
    postgres.run(*UNUSABLE[way])
    export(target, [named(*one, name="B") for one in people], 1)
    assert postgres.rows("SELECT count(*) FROM people WHERE name = 'B'") == [(MANY,)]
    # Those that were read to prepare the table may count, or not yet.
    assert rows_read(postgres, MANY) < 60 * MANY


def test_a_column_that_was_renamed_for_readers_is_named_with_a_view_as_the_way_out(
    postgres: Server,
) -> None:
    target = target_of(postgres.url())
    export(target, [named("1", "d1", name="A")])
    postgres.run("ALTER TABLE profiles RENAME email TO e_mail")
    words = "lacks the column email, .*; rename it back, and give readers a view"
    with pytest.raises(ExportError, match=words):
        target.check()


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE people DROP COLUMN email, DROP COLUMN events",
        "ALTER TABLE people DROP CONSTRAINT people_pkey",
        "ALTER TABLE people ALTER COLUMN email TYPE varchar(90)",
        "ALTER TABLE people ALTER COLUMN events TYPE text",
    ],
)
def test_the_error_of_a_table_that_was_changed_has_the_statement_that_mends_it(
    postgres: Server, change: str
) -> None:
    target = target_of(postgres.url("people"))
    export(target, [named("1", "d1", email="a@b.c")])
    whole = postgres.rows("SELECT person, email, events FROM people")
    postgres.run(change)
    with pytest.raises(ExportError) as caught:
        target.check()
    statement = re.search("run: (.*?); (?:to fill|otherwise)", str(caught.value))
    assert statement is not None, caught.value
    postgres.run(statement[1])
    target.check()
    export(target, [named("1", "d1", email="a@b.c")], 1)
    assert postgres.rows("SELECT person, email, events FROM people") == whole


def test_no_statement_brings_back_a_column_by_which_rows_are_found(postgres: Server) -> None:
    target = target_of(postgres.url("people"))
    export(target, [named("1", "d1")])
    postgres.run("ALTER TABLE people DROP COLUMN object_ids")
    with pytest.raises(ExportError, match="lacks the column object_ids") as caught:
        target.check()
    assert "ADD COLUMN" not in str(caught.value)


def test_a_key_that_is_new_in_the_same_transaction_may_be_of_no_use(postgres: Server) -> None:
    postgres.run(
        f"{OLD_TABLE} WITH (fillfactor = 50)",
        "INSERT INTO people (person, identity, object_ids)"
        f" SELECT 'identity:' || i, i::text, ARRAY['d' || i] FROM generate_series(1, {MANY}) AS i",
    )
    with postgres.connect() as other, other.transaction():
        other.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        other.execute("SELECT FROM pg_class LIMIT 1")
        with postgres.connect() as user:
            # Rows that `other` still sees as they were, side by side with the new ones.
            user.execute("UPDATE people SET plan = 'gold'")
        records = [named(str(number), f"d{number}", name="B") for number in range(1, MANY + 1)]
        export(target_of(postgres.url("people")), records, 1)
    in_use = "SELECT indcheckxmin FROM pg_index WHERE indexrelid = 'people_pkey'::regclass"
    assert postgres.rows(in_use) == [(True,)]
    assert postgres.rows("SELECT name, count(*) FROM people GROUP BY 1") == [("B", MANY)]
    assert rows_read(postgres, 2 * MANY) < 20 * MANY


def test_an_index_of_devices_that_the_server_cannot_use_is_done_without(postgres: Server) -> None:
    target = target_of(postgres.url("people"))
    export(target, [nameless(f"d{number}", name="A") for number in range(2 * MANY)])
    postgres.run(
        "DROP INDEX people_object_ids_idx",
        'CREATE INDEX ON people USING gin (object_ids COLLATE "C")',
        "ANALYZE people",
    )
    few = MANY // 25
    export(target, [nameless(f"d{number}", name="B") for number in range(few)], 1)
    assert postgres.rows("SELECT count(*) FROM people WHERE name = 'B'") == [(few,)]
    assert rows_read(postgres, few) < 16 * MANY


def test_people_who_are_there_are_looked_up_by_their_key(postgres: Server) -> None:
    target = target_of(postgres.url("people"))
    records = [named(str(number), name="A") for number in range(MANY)]
    for day in range(2):
        export(target, records, day)
    # A join would put the documents of the whole table into temporary files.
    scans = "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'people_pkey'"
    wait_until(lambda: postgres.rows(scans)[0][0] >= MANY)


# --------------------------------------------------------------------------------------- flattened


def test_a_flattened_key_has_the_type_that_is_named(postgres: Server) -> None:
    kinds = {
        "when": "timestamp", "paid": "double", "number": "int64", "vip": "bool", "plan": "text",
        "city": None,
    }  # fmt: skip
    target = target_of(postgres.url("people"), flatten=kinds)
    good = {"when": "$D_1767225600", "paid": 1.5, "number": 7, "vip": True, "plan": 1, "city": 2}
    bad = {"when": "soon", "paid": 2**53 + 1, "number": 1.5, "vip": "yes", "plan": None}
    sink = export(target, [named("1", profileData=good), named("2", profileData=bad)])
    assert sink.mended.total == 4
    columns = ", ".join(f'"{key}"' for key in kinds)
    assert postgres.rows(f"SELECT {columns} FROM people ORDER BY person") == [
        (datetime(2026, 1, 1, tzinfo=UTC), 1.5, 7, True, "1", "2"),
        (None, None, None, None, None, None),
    ]
    types = "SELECT data_type FROM information_schema.columns WHERE column_name = '{}'"
    assert postgres.rows(types.format("when")) == [("timestamp with time zone",)]


@pytest.mark.parametrize(
    ("first", "then", "fault"),
    [
        (
            {"plan": "int64"},
            ["plan"],
            "has the type bigint, and must have text; flatten it as 'int64', name another",
        ),
        (
            ["plan"],
            {"plan": "timestamp"},
            "has the type text, and must have timestamp with time zone; flatten it as 'text', name",
        ),
        (
            {"plan": "bool"},
            {"plan": "double"},
            "has the type boolean, and must have double precision; flatten it as 'bool'",
        ),
    ],
)
@pytest.mark.parametrize("write", ["upsert", "replace", "append"])
def test_a_column_keeps_its_type(
    postgres: Server, first: Any, then: Any, fault: str, write: str
) -> None:
    export(target_of(postgres.url("people"), flatten=first, write=write), [named("1")])
    with pytest.raises(InvalidArgument) as caught:
        target_of(postgres.url("people"), flatten=then, write=write).check()
    assert fault in str(caught.value)
    assert ('ALTER COLUMN "plan" TYPE text' in str(caught.value)) == (then == ["plan"])
    target_of(postgres.url("people"), flatten=first, write=write).check()


def test_a_flattened_key_that_is_left_out_is_null_in_the_rows_that_are_written(
    postgres: Server,
) -> None:
    both = target_of(postgres.url("people"), flatten={"plan": None, 'the "n"': "int64"})
    data = {"plan": "gold", 'the "n"': 7}
    export(both, [named("1", profileData=data), named("2", profileData=data)])
    postgres.run("ALTER TABLE people ADD notes text", "UPDATE people SET notes = 'mine'")
    export(target_of(postgres.url("people"), flatten=["plan"]), [named("1", profileData=data)], 1)
    columns = 'person, plan, "the ""n""", notes'
    assert days(postgres, columns) == [
        ("identity:1", "gold", None, "mine", 1, 0),
        ("identity:2", "gold", 7, "mine", 0, 0),
    ]
    export(target_of(postgres.url("people")), [named("1")], 2)
    assert days(postgres, columns)[0] == ("identity:1", None, None, "mine", 2, 0)


WITHIN = [
    "id", "number", "first", "nameless", "old", "new", "plan", "merged", "is_new", "is_changed",
    "is_outdated", "known_fetched_at", "known_added_at", "lifted_0", "one", "key", "account",
]  # fmt: skip


@pytest.mark.parametrize("others", [0, 1000])
def test_a_key_may_have_the_name_of_anything_in_a_statement(postgres: Server, others: int) -> None:
    target = target_of(postgres.url("people"), flatten=WITHIN)
    data = dict.fromkeys(WITHIN, "x")
    export(target, [named("1", "a", profileData=data), nameless("b", "c", profileData=data)])
    postgres.run(
        "INSERT INTO people (account, person) SELECT 'Z', one FROM generate_series(1,"
        f" {others}) AS one",
        "ANALYZE people",
        "CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NEW; END$$",
        "CREATE TRIGGER nothings BEFORE INSERT ON people FOR EACH ROW EXECUTE FUNCTION nothing()",
    )
    data["number"] = "y"
    export(target, [named("1", "a", profileData=data), nameless("c", "d", profileData=data)], 1)
    assert export(target, [named("2", "d", profileData=data), nameless("e")], 2).absorbed == 1
    columns = ", ".join(f'"{one}"' for one in ("person", "id", "number", "is_changed"))
    assert days(postgres, columns)[:3] == [
        ("identity:1", "x", "y", "x", 1, 0),
        ("identity:2", "x", "y", "x", 2, 0),
        ("objectId:e", None, None, None, 2, 2),
    ]


# ------------------------------------------------------------------------------------------ rights


@pytest.fixture
def guest(postgres: Server) -> Iterator[Callable[[str], Target]]:
    """Create a user without rights; yield a function from a mode to their target."""
    name = f"modes_guest_of_{postgres.database}"
    postgres.run(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'")
    yield lambda write: target_of(postgres.url("people", user=name), write=write)
    postgres.run(f"DROP OWNED BY {name}", f"DROP ROLE {name}")


@pytest.mark.parametrize(
    ("write", "rights"),
    [
        ("upsert", ["SELECT", "INSERT", "UPDATE", "DELETE"]),
        ("replace", ["SELECT", "INSERT", "DELETE"]),
        ("append", ["INSERT"]),
    ],
)
def test_each_mode_needs_its_rights_and_no_others(
    postgres: Server, guest: Callable[[str], Target], write: str, rights: list[str]
) -> None:
    name = f"modes_guest_of_{postgres.database}"
    flattened = target_of(postgres.url("people"), write=write, flatten=["plan"])
    export(flattened, [named("1", profileData={"plan": "gold"})], 0)
    if write == "append":
        with pytest.raises(
            ExportError, match="lacks the right to SELECT, INSERT, DELETE in public"
        ):
            guest(write).check()
        postgres.run(f"GRANT SELECT, INSERT, DELETE ON altaprofiles_runs TO {name}")
    listed = ", ".join(rights)
    with pytest.raises(ExportError, match=f"lacks the right to {listed};") as caught:
        guest(write).check()
    statement = str(caught.value).partition(" run: ")[2]
    assert statement == f'GRANT {listed} ON "people" TO {name}'
    # Each of them is needed.
    for right in rights:
        postgres.run(statement, f"REVOKE {right} ON people FROM {name}")
        with pytest.raises(ExportError, match=f"lacks the right to {right};"):
            guest(write).check()
    postgres.run(statement)
    export(guest(write), [named("1", name="guest")], 1)
    assert ("guest", 1) in [row[:2] for row in days(postgres, "name")]


def test_append_with_a_trigger_needs_to_see_what_it_has_written(
    postgres: Server, guest: Callable[[str], Target]
) -> None:
    name = f"modes_guest_of_{postgres.database}"
    export(target_of(postgres.url("people"), write="append"), [named("1")], 0)
    postgres.run(
        "CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS"
        " $$BEGIN NEW.name = lower(NEW.name); RETURN NEW; END$$",
        "CREATE TRIGGER meddles BEFORE INSERT ON people FOR EACH ROW EXECUTE FUNCTION meddle()",
        f"GRANT SELECT, INSERT, DELETE ON altaprofiles_runs TO {name}",
        f"GRANT INSERT ON people TO {name}",
    )
    with pytest.raises(ExportError, match="lacks the right to SELECT"):
        guest("append").check()
    postgres.run(f"GRANT SELECT ON people TO {name}")
    export(guest("append"), [named("1", name="a")], 1)
    with pytest.raises(ExportError, match=r"other values than the export for 1 people.*meddles"):
        export(guest("append"), [named("1", name="A")], 2)
    assert len(days(postgres)) == 2


@pytest.mark.parametrize("write", ["replace", "append"])
@pytest.mark.parametrize(
    ("when", "body", "fault"),
    [
        ("BEFORE DELETE", "RETURN NULL;", "keeps 1 old rows"),
        ("BEFORE INSERT", "RETURN NULL;", "took 0 of 1 people"),
        ("BEFORE INSERT", "NEW.name = 'x'; RETURN NEW;", "other values than the export"),
    ],
)
def test_no_mode_overlooks_what_a_trigger_does(
    postgres: Server, write: str, when: str, body: str, fault: str
) -> None:
    target = target_of(postgres.url("people"), write=write)
    export(target, [named("1", name="a")])
    postgres.run(
        f"CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN {body} END$$",
        f"CREATE TRIGGER meddles {when} ON people FOR EACH ROW EXECUTE FUNCTION meddle()",
    )
    if write == "append" and "DELETE" in when:
        export(target, [named("1", name="b")])
        return
    with pytest.raises(ExportError, match=fault):
        export(target, [named("1", name="b")], 1)
    assert days(postgres, "name") == [("a", 0, 0)]


# ---------------------------------------------------------------------------- at once, and killed


@pytest.mark.parametrize("write", ["upsert", "append"])
def test_exports_into_a_table_that_is_yet_to_be_made_take_turns(
    postgres: Server, write: str
) -> None:
    target = target_of(postgres.url("people"), write=write)
    sinks = [opened(target, origin=origin_of(number)) for number in range(4)]
    for number, sink in enumerate(sinks):
        sink.write([Row(named(str(number)), ACCOUNT), Row(nameless("a"), ACCOUNT)])
    with ThreadPoolExecutor(len(sinks)) as threads:
        for future in [threads.submit(sink.close) for sink in sinks]:
            future.result()
    people = [row[0] for row in postgres.rows("SELECT person FROM people ORDER BY 1")]
    named_ones = [f"identity:{number}" for number in range(4)]
    assert people == [*named_ones, *["objectId:a"] * (1 if write == "upsert" else 4)]


def test_an_export_waits_for_another_one(postgres: Server) -> None:
    target = target_of(postgres.url("people"))
    export(target, [nameless("a", name="old")])
    sink = opened(target, origin=origin_of(2))
    sink.write([Row(nameless("a", "b", name="second"), ACCOUNT)])
    with postgres.connect() as other, ThreadPoolExecutor(1) as threads:
        other.execute("BEGIN")
        other.execute("UPDATE people SET object_ids = '{b}', person = 'objectId:b'")
        closing: Future[Any] = threads.submit(sink.close)
        wait_until(lambda: waits(postgres) or closing.done())
        assert not closing.done()
        other.execute("COMMIT")
        closing.result()
    assert days(postgres, "person, name") == [("objectId:a", "second", 2, 0)]


def test_two_tables_of_one_database_are_written_at_once(postgres: Server) -> None:
    first, second = (target_of(postgres.url(name), write="append") for name in ("one", "two"))
    export(first, [])
    sink = opened(first)
    sink.write([Row(named("1"), ACCOUNT)])
    with postgres.connect() as other, ThreadPoolExecutor(1) as threads:
        other.execute("BEGIN")
        other.execute("LOCK TABLE one IN ACCESS EXCLUSIVE MODE")
        closing = threads.submit(sink.close)
        wait_until(lambda: waits(postgres))
        export(second, [named("2")])
        assert postgres.rows("SELECT person FROM two") == [("identity:2",)]
        other.execute("COMMIT")
        closing.result()
    assert postgres.rows("SELECT person FROM one") == [("identity:1",)]


@pytest.mark.parametrize("write", ["upsert", "replace", "append"])
def test_a_session_that_the_server_ends_leaves_the_table_as_it_was(
    postgres: Server, write: str
) -> None:
    target = target_of(postgres.url("people"), write=write)
    export(target, [named("1", name="old")])
    sink = opened(target, origin=origin_of(1, run="killed"))
    sink.write([Row(named("1", name="new"), ACCOUNT), Row(named("2"), ACCOUNT)])
    with postgres.connect() as other, ThreadPoolExecutor(1) as threads:
        other.execute("BEGIN")
        # A reader keeps it from the commit no longer than from its last lock.
        other.execute("LOCK TABLE people IN ACCESS EXCLUSIVE MODE")
        closing = threads.submit(sink.close)
        wait_until(lambda: waits(postgres))
        postgres.cut_exports()
        with pytest.raises(ExportError):
            closing.result()
        other.execute("COMMIT")
    sink.abort()
    assert days(postgres, "name") == [("old", 0, 0)]
    export(target, [named("1", name="new"), named("2")], 1, run="killed")
    expected = {
        "upsert": [("new", 1, 0), (None, 1, 1)],
        "replace": [("new", 1, 1), (None, 1, 1)],
        "append": [("old", 0, 0), ("new", 1, 1), (None, 1, 1)],
    }
    assert sorted(days(postgres, "name"), key=lambda row: row[1]) == expected[write]


@pytest.mark.anyio
@pytest.mark.skipif(sys.platform == "win32", reason="forks, and kills with signals")
@pytest.mark.parametrize("write", ["upsert", "replace", "append"])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_process_that_is_killed_around_its_commit_is_run_again(
    postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: str, when: str
) -> None:
    # Manifests of tables are in the current folder.
    monkeypatch.chdir(tmp_path)
    arguments = {
        "events": ["App Launched", "Charged"],
        "start": 20260101,
        "end": 20260103,
        "to": postgres.url("people"),
        "write": write,
    }
    rows = "SELECT account, person, matched, fetched_at, added_at FROM people ORDER BY 1, 2"
    async with (
        Emulator(people=200, seed=2) as emulator,
        exporter(tmp_path / "processes") as processes,
    ):
        job = Job(arguments=arguments, environment=emulator.environment)
        dying = msgspec.structs.replace(job, die=(0, when), die_in="postgres commit")
        killed = await processes.run(dying)
        assert killed.signal == signal.SIGKILL
        assert postgres.rows("SELECT to_regclass('people') IS NULL") == [(when == "before",)]
        before = postgres.rows(rows) if when == "after" else []
        outcome = await processes.run(job)
    assert outcome.report is not None, outcome
    assert outcome.report["complete"] is True
    # An append says that its rows were there: somebody may have meant to add them twice.
    is_told = any("had added these rows" in text for text in outcome.report["warnings"])
    assert is_told == (write == "append" and when == "after")
    found = postgres.rows(rows)
    assert len(found) == outcome.report["people"] > 0
    assert found == before or when == "before"
    assert len({row[:2] for row in found}) == len(found)
