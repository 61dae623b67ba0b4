"""Rows of a new DuckDB file, which are written by the group: the same table, whatever happens."""

from __future__ import annotations

import random
import resource
import sys
from collections.abc import Sequence
from pathlib import Path

import duckdb
import pytest

from altaprofiles import ExportError
from altaprofiles.export.sinks import duck_groups
from altaprofiles.export.tables import Content
from altaprofiles.tables.rows import Row

from ..support.sinks import filled, opened, rows_of, target_of

GROUP = 2048


def small(numbers: Sequence[int]) -> list[bytes]:
    return [b'{"identity":"%d","profileData":{"a":%d}}' % (number, number) for number in numbers]


def large(numbers: Sequence[int]) -> list[bytes]:
    """Records of 20 KB that cannot be compressed."""
    dice = random.Random(5)  # noqa: S311
    return [
        b'{"identity":"%d","profileData":{"a":"%b"}}'
        % (number, dice.randbytes(10_000).hex().encode())
        for number in numbers
    ]


def content(path: Path) -> list[tuple[object, ...]]:
    with duckdb.connect(path) as connection:
        return connection.execute(
            "SELECT person, md5(profile_data), CAST(matched AS VARCHAR) FROM profiles ORDER BY ALL"
        ).fetchall()


def groups(path: Path) -> int:
    with duckdb.connect(path) as connection:
        query = "SELECT count(DISTINCT row_group_id) FROM pragma_storage_info('profiles')"
        [(count,)] = connection.execute(query).fetchall()
    return int(count)


def into_an_existing_file(path: Path, rows: Sequence[Row], write: str) -> list[tuple[object, ...]]:
    duckdb.connect(path).close()
    filled(target_of(path, write=write), rows)
    return content(path)


@pytest.fixture(autouse=True)
def many_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duck_groups, "_MOST_IN_GROUP", GROUP)


@pytest.mark.parametrize("write", ["upsert", "append", "replace"])
@pytest.mark.parametrize("count", [0, 1, GROUP, 3 * GROUP + 1])
def test_a_new_file_has_the_rows_that_an_existing_one_gets(
    tmp_path: Path, write: str, count: int
) -> None:
    # A person has two keys, and comes in the first group and in the last one.
    again = b'{"identity":"0","profileData":{"a":-1}}'
    rows = rows_of([*small(range(count)), *([again] if count else [])])
    path = tmp_path / "new.duckdb"
    sink = filled(target_of(path, write=write), rows)
    expected = into_an_existing_file(tmp_path / "other.duckdb", rows, write)
    assert content(path) == expected
    assert len(expected) == count + (write == "append" and count > 0)
    assert len(sink.notes) == (write != "append" and count > 0)
    assert {one.name for one in tmp_path.iterdir()} == {"new.duckdb", "other.duckdb"}


@pytest.mark.parametrize("before", [1, 2 * GROUP, 2 * GROUP + 7])
def test_rows_for_which_there_is_no_memory_are_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: int
) -> None:
    monkeypatch.setattr(duck_groups, "_MEMORY", "12MB")
    people = [*small(range(before)), *large(range(before - 1, before + GROUP + 10))]
    people += small(range(10**6, 10**6 + GROUP))
    path = tmp_path / "new.duckdb"
    sink = filled(target_of(path), rows_of(people))
    expected = into_an_existing_file(tmp_path / "other.duckdb", rows_of(people), "upsert")
    assert len(expected) == len(people) - 1
    assert content(path) == expected
    # Somebody is in both parts.
    assert "left out: 1 key" in sink.notes[0]


def test_rows_that_are_larger_than_the_first_ones_do_not_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A group of the first rows would hold 1.2 GB of the others.
    monkeypatch.setattr(duck_groups, "_MOST_IN_GROUP", 30 * GROUP)
    monkeypatch.setattr(duck_groups, "_MOST_BYTES", 8 << 20)
    people = [*small(range(31 * GROUP)), *large(range(10**6, 10**6 + GROUP))]
    filled(target_of(tmp_path / "new.duckdb"), rows_of(people))
    expected = into_an_existing_file(tmp_path / "other.duckdb", rows_of(people), "upsert")
    assert content(tmp_path / "new.duckdb") == expected
    assert len(expected) == len(people)


@pytest.mark.parametrize("width", [40, 300])
def test_a_table_may_have_many_columns(tmp_path: Path, width: int) -> None:
    flatten = {f"k{number}": "int64" for number in range(width)}
    people = [
        b'{"identity":"%d","profileData":{"k%d":%d}}' % (number, number % width, number)
        for number in range(2 * GROUP)
    ]
    filled(target_of(tmp_path / "new.duckdb", flatten=flatten), rows_of(people))
    duckdb.connect(tmp_path / "other.duckdb").close()
    filled(target_of(tmp_path / "other.duckdb", flatten=flatten), rows_of(people))
    query = "SELECT * EXCLUDE (fetched_at, added_at) FROM profiles ORDER BY person"
    found = []
    for name in ("new", "other"):
        with duckdb.connect(tmp_path / f"{name}.duckdb") as connection:
            found.append(connection.execute(query).fetchall())
    assert found[0] == found[1]
    assert len(found[0]) == len(people)


@pytest.mark.parametrize("write", ["upsert", "append", "replace"])
def test_keys_without_any_row_make_a_table_without_rows(tmp_path: Path, write: str) -> None:
    path = tmp_path / "new.duckdb"
    target = target_of(path, Content(of="bindings"), write=write)
    filled(target, rows_of([b'{"key":"%d","users":[]}' % number for number in range(3)]))
    with duckdb.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM bindings").fetchall() == [(0,)]


def test_rows_of_any_size_have_groups_that_fit_into_memory(tmp_path: Path) -> None:
    people = large(range(2 * GROUP + 1))
    filled(target_of(tmp_path / "new.duckdb"), rows_of(people))
    assert groups(tmp_path / "new.duckdb") == 3


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files")
def test_a_disk_that_is_full_while_a_group_is_written_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "new.duckdb"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    rows = rows_of(large(range(3 * GROUP)))
    sink = opened(target_of(path), [row.record for row in rows[:1]])
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    try:
        with pytest.raises(ExportError, match=r"new\.duckdb: "):
            for start in range(0, len(rows), 100):
                sink.write(rows[start : start + 100])
    finally:
        sink.abort()
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [*tmp_path.iterdir()] == []
    filled(target_of(path), rows[:GROUP])
    assert len(content(path)) == GROUP


def test_rows_that_are_given_up_while_a_group_is_written_leave_nothing(tmp_path: Path) -> None:
    sink = opened(target_of(tmp_path / "new.duckdb"), large([1]))
    sink.write(rows_of(large(range(GROUP))))
    sink.abort()
    assert [*tmp_path.iterdir()] == []
