"""Folders with a file for each day: replaced by days, shared by accounts, and read by others."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import duckdb
import polars
import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from pyarrow import dataset, parquet

from altaprofiles import ExportError, ExportLocked
from altaprofiles.export.sinks import Sink, Target
from altaprofiles.export.state import SyncState
from altaprofiles.export.tables import Origin
from altaprofiles.tables.mended import Mended
from altaprofiles.tables.rows import Row

from ..support.sinks import opened, put_in_place, target_of
from ..support.tables import record, time_of

DAY = date(2026, 1, 31)


def day(number: int) -> date:
    """Return a day of the end of January and the beginning of February."""
    return DAY + timedelta(days=number)


def state(account: str = "A", last: int = 0, hour: int = 0) -> SyncState:
    return SyncState(account=account, settings="{}", through=day(last), synced_at=time_of(hour))


def origin(account: str = "A", first: int = 0, last: int = 0, hour: int = 0) -> Origin:
    return Origin(
        f"{account}{hour}",
        (account,),
        time_of(hour),
        state(account, last, hour),
        (day(first), day(last)),
    )


def target_at(folder: Path, **options: Any) -> Target:
    return target_of(f"{folder}/", sync="{}", **options)


def rows(people: Mapping[int, Iterable[str]], account: str, **values: Any) -> list[Row]:
    """Return the rows of people on some days, given by their numbers."""
    return [
        Row(json.dumps(made).encode(), account, matched=("Charged",), day=day(number))
        for number in sorted(people)
        for one in people[number]
        for made in [json.loads(record(one, ["1"]))]
        if made["profileData"].update(values) is None
    ]


def written(folder: Path, at: Origin, given: Sequence[Row], **options: Any) -> Sink:
    target = target_at(folder, **options)
    target.check()
    target.accept(at)
    sink = opened(target, (), at)
    try:
        sink.write(given)
        put_in_place(sink)
    except BaseException:
        sink.abort()
        raise
    return sink


def load(folder: Path, people: Mapping[int, Iterable[str]], at: Origin, **options: Any) -> Sink:
    return written(folder, at, rows(people, at.accounts[0]), **options)


def sql(query: str) -> list[Any]:
    with duckdb.connect() as connection:
        return connection.execute(query).fetchall()


def people(folder: Path) -> list[tuple[str, int, str]]:
    """Return account, number of the day, and name of each row."""
    found = sql(f"""
        SELECT account, day, person
        FROM read_parquet('{folder}/*/*.parquet', hive_partitioning = true, union_by_name = true)
    """)
    return sorted(
        (account, (on - DAY).days, person.removeprefix("identity:"))
        for account, on, person in found
    )


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def of_days(*numbers: int) -> list[str]:
    return ["_altaprofiles.json", *(f"day={day(number)}/people.parquet" for number in numbers)]


def test_each_day_of_the_range_has_a_file(tmp_path: Path) -> None:
    folder = tmp_path / "crm"
    assert target_at(folder).synced("A") is None
    load(folder, {0: "ab", 2: "b"}, origin(last=3))
    assert names(folder) == of_days(0, 1, 2, 3)
    assert people(folder) == [("A", 0, "a"), ("A", 0, "b"), ("A", 2, "b")]
    assert target_at(folder).synced("A") == state(last=3)
    assert target_at(folder).synced("B") is None
    schemas = [parquet.read_schema(path) for path in sorted(folder.glob("*/*.parquet"))]
    assert {tuple(schema.names) for schema in schemas} == {
        ("account", "person", "identity", "email", "name", "phone", "object_ids", "profile_data",
         "events", "platform_info", "extra", "matched", "fetched_at", "added_at")
    }  # fmt: skip
    assert len({str(schema) for schema in schemas}) == 1


def test_days_are_replaced_whole(tmp_path: Path) -> None:
    load(tmp_path, {0: "ab", 1: "c", 2: "d"}, origin(last=2))
    load(tmp_path, {1: "xy", 3: "z"}, origin(first=1, last=3, hour=1))
    assert names(tmp_path) == of_days(0, 1, 2, 3)
    assert [(on, who) for _, on, who in people(tmp_path)] == [
        (0, "a"), (0, "b"), (1, "x"), (1, "y"), (3, "z")
    ]  # fmt: skip
    assert target_at(tmp_path).synced("A") == state(last=3, hour=1)


def test_rows_of_other_accounts_stay(tmp_path: Path) -> None:
    load(tmp_path, {0: "ab", 1: "c"}, origin("A", last=1))
    load(tmp_path, {1: "cd"}, origin("B", first=1, last=2, hour=1))
    load(tmp_path, {0: "a"}, origin("A", last=2, hour=2))
    assert people(tmp_path) == [("A", 0, "a"), ("B", 1, "c"), ("B", 1, "d")]
    for account, expected in (("A", state("A", 2, 2)), ("B", state("B", 2, 1))):
        assert target_at(tmp_path).synced(account) == expected


def test_a_row_says_when_it_came_first(tmp_path: Path) -> None:
    load(tmp_path, {0: "a"}, origin("B"))
    for hour, who in ((0, "ab"), (1, "bc"), (2, "abc")):
        load(tmp_path, {0: who}, origin(hour=hour))
    found = sql(f"""
        SELECT person[-1], epoch(fetched_at - '{time_of(0)}'::TIMESTAMPTZ)::INT // 3600,
               epoch(added_at - '{time_of(0)}'::TIMESTAMPTZ)::INT // 3600
        FROM read_parquet('{tmp_path}/*/*.parquet') WHERE account = 'A' ORDER BY 1
    """)
    # Gone in between, and so new again.
    assert found == [("a", 2, 2), ("b", 2, 0), ("c", 2, 1)]


def test_flattened_columns_may_differ_between_days(tmp_path: Path) -> None:
    for number, flatten in ((0, ["plan"]), (1, []), (2, {"plan": "int64", "city": None})):
        at = origin(first=number, last=number, hour=number)
        written(tmp_path, at, rows({number: "a"}, "A", plan=7, city="Pune"), flatten=flatten)
    found = sql(f"""
        SELECT day, plan, city
        FROM read_parquet('{tmp_path}/*/*.parquet', hive_partitioning = true, union_by_name = true)
        ORDER BY day
    """)
    assert found == [(day(0), "7", None), (day(1), None, None), (day(2), "7", "Pune")]


def test_a_flattened_column_that_is_new_is_noted_with_the_days_that_lack_it(tmp_path: Path) -> None:
    def notes(first: int, last: int, *flatten: str, account: str = "A") -> Sequence[str]:
        given = rows({first: "a", last: "ab"}, account, plan=7, city="Pune")
        at = origin(account, first, last, last)
        return written(tmp_path, at, given, flatten=flatten).notes

    assert notes(0, 4, "plan") == []
    assert notes(4, 5, "plan") == []
    [note] = notes(5, 6, "plan", "city", "Plans")
    lacking = "which the files of 2 other days lack: 'city', 'Plans'"
    remedy = "to fill them, sync once with `late_days=7` or more, and the same `flatten`"
    assert note == f"{tmp_path}/ has new columns, {lacking}; {remedy}"
    # Once, as in a table, and not of another account, nor where every day with people is brought.
    assert notes(6, 7, "PLAN", "city", "plans") == []
    assert notes(6, 7, "city", account="B") == []
    assert notes(0, 8, "plan", "all") == []
    (tmp_path / f"day={day(0)}" / "people.parquet").write_bytes(b"damaged")
    [_, note] = notes(9, 10, "one")
    assert "a new column, which the files of 3 other days lack: 'one'; to fill it, " in note


def test_a_flattened_column_that_is_left_out_is_noted_once(tmp_path: Path) -> None:
    def notes(first: int, last: int, *flatten: str, account: str = "A") -> Sequence[str]:
        given = rows({first: "a", last: "ab"}, account, plan=7, city="Pune")
        at = origin(account, first, last, last)
        return written(tmp_path, at, given, flatten=flatten).notes

    assert notes(0, 4, "plan", "city", "Level") == []
    assert notes(4, 5, "Plan", "city", "Level") == []
    [note] = notes(5, 6, "plan")
    leaves_out = "has columns that `flatten` leaves out, null in the rows just written"
    assert note == (
        f"{tmp_path}/ {leaves_out}: 'city', 'Level'; to fill them, name them there again, and sync "
        f"once with `late_days=2` (later more, back to {day(5)})"
    )
    assert notes(6, 7, "plan") == []
    # No day has it any more.
    assert notes(0, 8) == []
    # Another account has never had it.
    assert notes(7, 8, "City") == [ANY]
    assert notes(8, 8, account="B") == []
    [note] = notes(8, 9)
    assert note.startswith(f"{tmp_path}/ {leaves_out.replace('columns', 'a column')}: 'City'; ")


def test_a_type_that_changes_is_noted_with_the_days_that_have_another(tmp_path: Path) -> None:
    def notes(first: int, last: int, account: str = "A", **flatten: Any) -> Sequence[str]:
        given = rows(dict.fromkeys(range(first, last + 1), "a"), account, plan=7, Age=8)
        return written(tmp_path, origin(account, first, last, last), given, flatten=flatten).notes

    assert notes(0, 4, plan="text", Age="double") == []
    assert notes(4, 5) == [ANY]
    [plan, age] = notes(5, 6, plan="int64", age="int64")
    has = f"{tmp_path}/ has 'plan' as int64 now, and the files of 4 other days have it as text"
    remedy = "or sync once with `late_days=7` or more, and the same `flatten`"
    assert plan.startswith(f"{has}, which not every reader can unite; name that type again in ")
    assert plan.endswith(remedy)
    assert "'age' as int64 now, and the files of 4 other days have it as double" in age
    # Once.
    assert notes(6, 7, plan="int64", age="int64") == []
    [note] = notes(7, 8, plan="double", age="int64")
    assert note.startswith(f"{tmp_path}/ has 'plan' as double now, ")
    assert "of 6 other days have it as int64 or text, which" in note
    # Every day is brought.
    assert notes(0, 9, plan="text", age="text") == []
    # Rows of other accounts decide, with a note of its own.
    for account in ("B", "A", "A"):
        [note] = notes(9, 9, account, plan="bool" if account == "B" else "int64", age="text")
        assert "'plan' is text on 1 of the days, where rows of other accounts" in note


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        ("double", 7.0, "7.0"),
        ("int64", 7.0, "7.0"),
        ("bool", True, "true"),
        ("timestamp", "$D_1767225600", "$D_1767225600"),
    ],
)
def test_a_column_that_becomes_text_has_the_values_of_all_accounts_as_they_were_sent(
    tmp_path: Path, kind: str, value: Any, text: str
) -> None:
    for account, type_ in (("A", kind), ("B", "text")):
        given = rows({0: "a"}, account, email=value)
        written(tmp_path, origin(account), given, flatten={"email": type_})
    [path] = tmp_path.glob("*/*.parquet")
    table = parquet.read_table(path, partitioning=None)
    assert table["profile_data.email"].to_pylist() == [text, text]


def test_a_type_that_changes_for_several_accounts_names_the_days_to_remove(tmp_path: Path) -> None:
    def notes(first: int, last: int, account: str, kind: str) -> Sequence[str]:
        given = rows(dict.fromkeys(range(first, last + 1), "a"), account, plan=7)
        at = origin(account, first, last, last)
        return written(tmp_path, at, given, flatten={"plan": kind}).notes

    assert [notes(0, 4, account, "int64") for account in "AB"] == [[], []]
    is_text = "the column 'plan' is text on 2 of the days, where rows of other accounts have values"
    remedy = (
        f"remove the files of the days from {day(0)} to {day(4)}, and sync every account once with "
        f"`late_days=6` or more, and the same `flatten`"
    )
    for account in "AB":
        [note] = notes(3, 5, account, "double")
        assert note.startswith(is_text), account
        assert "; other days have it as int64 or double, which not every reader can unite" in note
        assert note.endswith(remedy), account
    # Text takes the rows of the others.
    [note] = notes(5, 6, "A", "text")
    assert note.startswith(f"{tmp_path}/ has 'plan' as text now, and the files of 3 other days")
    assert note.endswith("or sync once with `late_days=7` or more, and the same `flatten`")
    assert notes(5, 6, "B", "text") == []
    for number in range(7):
        (tmp_path / f"day={day(number)}" / "people.parquet").unlink()
    assert [notes(0, 7, account, "double") for account in "AB"] == [[], []]
    found = sql(f"""
        SELECT typeof(plan), count(*) FROM read_parquet('{tmp_path}/*/*.parquet') GROUP BY 1
    """)
    assert found == [("DOUBLE", 16)]


def test_text_that_other_accounts_have_left_is_noted_with_its_days_and_what_to_do(
    tmp_path: Path,
) -> None:
    def notes(first: int, last: int, account: str, people: str, **flatten: Any) -> Sequence[str]:
        given = rows({first: people}, account, plan=7)
        return written(tmp_path, origin(account, first, last, last), given, flatten=flatten).notes

    assert [notes(0, 1, account, "a", plan="text") for account in "AB"] == [[], []]
    # The only new day has no people.
    [note] = notes(0, 2, "A", "", plan="int64")
    assert note.startswith("the column 'plan' is text on 1 of the days")
    assert note.endswith(
        f"; for one type, remove the file of the day {day(0)}, and sync every account once with "
        f"`late_days=3` or more, and the same `flatten`"
    )


def test_flattened_columns_may_differ_between_accounts(tmp_path: Path) -> None:
    for account, flatten, plan in (
        ("A", {"plan": "int64", "City": "text"}, 7),
        ("B", {"plan": "double", "city": "text", "only": "bool"}, 1.5),
        ("C", {}, 0),
        ("B", {"plan": "double", "city": "text"}, 2.5),
    ):
        given = rows({0: "a"}, account, plan=plan, City="Pune", city="Goa", only=True)
        sink = written(tmp_path, origin(account), given, flatten=flatten)
        words = "the column 'plan' is text on 1 of the days"
        assert [words in note for note in sink.notes] == [True] * (account == "B")
    table = parquet.read_table(tmp_path / f"day={DAY}" / "people.parquet", partitioning=None)
    table = table.sort_by("account").select(["account", "plan", "city"])
    assert table.to_pydict() == {
        "account": ["A", "B", "C"], "plan": ["7", "2.5", None], "city": ["Pune", "Goa", None]
    }  # fmt: skip


def test_a_value_that_a_named_type_cannot_hold_is_counted(tmp_path: Path) -> None:
    given = [*rows({0: "a"}, "A", plan=7), *rows({1: "a"}, "A", plan="x")]
    sink = written(tmp_path, origin(last=1), given, flatten={"plan": "int64"})
    assert sink.mended == Mended(0, {"plan": 1})


READERS = {
    "duckdb": lambda folder: sql(
        f"SELECT count(*) FROM read_parquet('{folder}/*/*.parquet', hive_partitioning = true)"
    )[0][0],
    "duckdb, any depth": lambda folder: sql(
        f"SELECT count(*) FROM read_parquet('{folder}/**/*.parquet', hive_partitioning = true)"
    )[0][0],
    "pyarrow": lambda folder: dataset.dataset(
        folder, format="parquet", partitioning="hive"
    ).count_rows(),
    "pyarrow.parquet": lambda folder: parquet.read_table(folder).num_rows,
    "polars": lambda folder: len(
        polars.read_parquet(f"{folder}/*/*.parquet", hive_partitioning=True)
    ),
}  # fmt: skip


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_readers_see_whole_days_at_any_moment(tmp_path: Path, reader: Any) -> None:
    folder = tmp_path / "crm"
    load(folder, {0: "ab", 1: "c"}, origin(last=2))
    assert reader(folder) == 3
    at = origin(first=1, last=3, hour=1)
    sink = opened(target_at(folder), (), at)
    sink.write(rows({1: "xyz", 2: "x"}, "A"))
    assert reader(folder) == 3
    put_in_place(sink)
    assert reader(folder) == 6


@pytest.mark.parametrize("reader", ["duckdb", "pyarrow", "polars"])
def test_readers_see_no_file_that_is_being_written_by_an_export(
    tmp_path: Path, reader: str
) -> None:
    readers: dict[str, Callable[[], list[Any]]] = {
        "duckdb": lambda: sql(f"FROM read_parquet('{tmp_path}/*.parquet')"),
        "pyarrow": lambda: dataset.dataset(tmp_path, format="parquet").to_table().to_pylist(),
        "polars": lambda: polars.read_parquet(f"{tmp_path}/*.parquet").to_dicts(),
    }
    reading = readers[reader]
    for write in ("replace", "append"):
        target = target_of(f"{tmp_path}/", write=write)
        sink = opened(target)
        sink.write([Row(record("a", ["1"]), "ACCOUNT")])
        put_in_place(sink)
    assert len(reading()) == 2
    for write in ("replace", "append"):
        sink = opened(target_of(f"{tmp_path}/", write=write), ())
        assert len(reading()) == 2
        sink.abort()


def test_what_is_abandoned_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    load(tmp_path, {0: "a"}, origin())
    before = {name: (tmp_path / name).read_bytes() for name in names(tmp_path)}
    for _ in range(2):
        sink = opened(target_at(tmp_path), (), origin(last=3, hour=1))
        sink.write(rows({0: "b", 2: "b"}, "A"))
        sink.abort()
        sink.abort()
    assert {name: (tmp_path / name).read_bytes() for name in names(tmp_path)} == before


def test_syncs_of_one_folder_take_turns(tmp_path: Path) -> None:
    sink = opened(target_at(tmp_path), (), origin())
    with pytest.raises(ExportLocked, match="another export is writing"):
        opened(target_at(tmp_path), (), origin("B"))
    put_in_place(sink)
    put_in_place(opened(target_at(tmp_path), (), origin("B")))
    assert target_at(tmp_path).synced("A") == state("A")


def test_a_sync_that_is_finished_late_brings_missing_days_only(tmp_path: Path) -> None:
    load(tmp_path, {0: "a", 1: "a"}, origin(last=1, hour=1))
    at = replace(origin(last=2, hour=1), fetched_at=time_of(0))
    sink = load(tmp_path, {0: "b", 1: "b", 2: "b"}, at)
    assert sink.notes == [f"{tmp_path}/ keeps 2 days as a later sync has fetched them"]
    assert people(tmp_path) == [("A", 0, "a"), ("A", 1, "a"), ("A", 2, "b")]
    assert target_at(tmp_path).synced("A") == state(last=2, hour=1)


def test_days_of_a_first_sync_that_was_killed_are_replaced(tmp_path: Path) -> None:
    load(tmp_path, {0: "b"}, origin("B"))
    content = (tmp_path / "_altaprofiles.json").read_bytes()
    load(tmp_path, {0: "a", 1: "a", 2: "a"}, origin("A", last=2, hour=1))
    # Before the state could be written.
    (tmp_path / "_altaprofiles.json").write_bytes(content)
    # With a later `since`.
    load(tmp_path, {2: "x"}, origin("A", first=2, last=3, hour=2))
    assert people(tmp_path) == [("A", 2, "x"), ("B", 0, "b")]


@pytest.mark.parametrize("name", ["people.parquet", "notes.txt", "day=2026-1-1", "day=x", "a/b"])
def test_a_folder_of_others_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"theirs")
    with pytest.raises(ExportError, match="which no export has written there"):
        target_at(tmp_path).check()
    with pytest.raises(ExportError, match="which no export has written there"):
        opened(target_at(tmp_path), (), origin())
    assert names(tmp_path) == [name]


def test_another_file_beside_that_of_a_day_is_refused(tmp_path: Path) -> None:
    load(tmp_path, {0: "a"}, origin())
    (tmp_path / f"day={DAY}" / "more.parquet").write_bytes(b"theirs")
    with pytest.raises(ExportError, match=r"holds 'day=2026-01-31/more\.parquet', which no export"):
        target_at(tmp_path).check()


def test_a_link_in_place_of_a_day_is_refused(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "crm", tmp_path / "elsewhere"
    load(folder, {0: "a"}, origin())
    elsewhere.mkdir()
    (folder / f"day={day(1)}").symlink_to(elsewhere)
    with pytest.raises(ExportError, match=r"holds 'day=2026-02-01'"):
        target_at(folder).check()
    (folder / f"day={day(1)}").unlink()
    sink = opened(target_at(folder), (), origin(last=1))
    (folder / f"day={day(1)}").symlink_to(elsewhere)
    with pytest.raises(ExportError, match="has become a link or a file"):
        sink.close()
    sink.abort()
    assert names(elsewhere) == []


def test_a_folder_is_of_exports_or_of_sync(tmp_path: Path) -> None:
    days, files = tmp_path / "days", tmp_path / "files"
    load(days, {}, origin())
    put_in_place(opened(target_of(f"{files}/")))
    with pytest.raises(ExportError, match="is a folder of `sync`"):
        target_of(f"{days}/").check()
    with pytest.raises(ExportError, match="is a folder of `sync`"):
        opened(target_of(f"{days}/", write="append"))
    with pytest.raises(ExportError, match="holds files of exports"):
        target_at(files).check()
    with pytest.raises(ExportError, match="holds files of exports"):
        target_at(files).synced("A")
    with pytest.raises(ExportError, match="holds files of exports"):
        opened(target_at(files), (), origin())


@pytest.mark.parametrize("content", [b"", b"PAR1 and no more"])
def test_a_file_that_is_not_parquet_is_named(tmp_path: Path, content: bytes) -> None:
    load(tmp_path, {0: "a"}, origin())
    path = tmp_path / f"day={DAY}" / "people.parquet"
    path.write_bytes(content)
    with pytest.raises(ExportError, match=r"day=2026-01-31/people\.parquet: pyarrow cannot read"):
        load(tmp_path, {0: "a"}, origin())
    parquet.write_table(pyarrow.table({"person": ["a"]}), path)
    with pytest.raises(ExportError, match=r"people\.parquet is not of `sync`: it lacks account"):
        load(tmp_path, {0: "a"}, origin())


def test_a_file_keeps_its_permissions(tmp_path: Path) -> None:
    load(tmp_path, {0: "a"}, origin())
    path = tmp_path / f"day={DAY}" / "people.parquet"
    path.chmod(0o640)
    load(tmp_path, {0: "b"}, origin(last=1, hour=1))
    assert path.stat().st_mode & 0o777 == 0o640
    assert (tmp_path / f"day={day(1)}" / "people.parquet").stat().st_mode & 0o444


SYNCS = st.lists(
    st.tuples(
        st.sampled_from("AB"),
        st.integers(0, 3),
        st.integers(0, 2),
        st.dictionaries(st.integers(0, 5), st.text("abc", max_size=3)),
    ),
    max_size=6,
)  # fmt: skip


@settings(max_examples=25)
@given(SYNCS)
def test_syncs_change_the_days_of_their_range_only(
    tmp_path_factory: pytest.TempPathFactory, syncs: list[Any]
) -> None:
    folder = tmp_path_factory.mktemp("crm")
    expected: dict[tuple[str, int], set[str]] = {}
    for hour, (account, first, more, found) in enumerate(syncs):
        span = range(first, first + more + 1)
        who = {number: sorted({*found.get(number, "")}) for number in span}
        load(folder, who, origin(account, first, first + more, hour))
        expected |= {(account, number): {*who[number]} for number in span}
        assert people(folder) == sorted(
            (account, number, one)
            for (account, number), names in expected.items()
            for one in names
        )  # fmt: skip
