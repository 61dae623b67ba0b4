"""Keys in the tables of others, and in outputs of exports."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet
import pytest

from altaprofiles import ConfigurationError, ExportLocked
from altaprofiles.emulator import Emulator
from altaprofiles.export.keys import KeyFile

from ..support.sessions import EVENT, RANGE, session_for


def parquet_file(path: Path, **columns: Any) -> Path:
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


def duckdb_file(path: Path, *statements: str) -> Path:
    with duckdb.connect(str(path)) as connection:
        for statement in statements:
            connection.execute(statement)
    return path


def test_a_column_of_a_parquet_file(tmp_path: Path) -> None:
    keys = [f"key {number}" for number in range(5000)]
    one = parquet_file(tmp_path / "k.parquet", id=keys)
    assert list(KeyFile(one, "identity", None)) == keys
    file = KeyFile(
        parquet_file(tmp_path / "p.parquet", id=[7, None, 9], name=["", None, "x"]), "email", "id"
    )
    assert list(file) == ["7", "9"]
    assert file.skipped == 1
    assert list(file) == ["7", "9"]
    assert file.skipped == 1


def test_a_column_of_a_duckdb_table(tmp_path: Path) -> None:
    path = duckdb_file(
        tmp_path / "crm.duckdb",
        "CREATE TABLE \"my people\" AS SELECT 'key ' || i AS id, i % 3 AS n FROM range(5000) r(i)",
        "CREATE VIEW few AS SELECT id FROM \"my people\" WHERE id <= 'key 1'",
        "CREATE TABLE uuids AS SELECT uuid() AS id FROM range(3)",
    )
    file = KeyFile(path, "identity", "id", "My People")
    assert list(file) == [f"key {number}" for number in range(5000)]
    assert list(KeyFile(path, "identity", None, "few")) == ["key 0", "key 1"]
    assert [len(key) for key in KeyFile(path, "identity", "id", "uuids")] == [36] * 3
    only = duckdb_file(tmp_path / "only.duckdb", "CREATE TABLE t AS SELECT 'a' AS id")
    assert list(KeyFile(only, "identity", None)) == ["a"]


@pytest.mark.parametrize(
    ("column", "table", "words"),
    [
        (None, "people", r"column: the table 'people' of c.duckdb has 2 columns .*; name the one"),
        ("idd", "people", "column: .* none of them is 'idd'; did you mean 'id'"),
        ("id", None, r"keys_table: c.duckdb has 2 tables \('other', 'people'\); name the one"),
        ("id", "peopel", "keys_table: .* none of them is 'peopel'; did you mean 'people'"),
        ("plan", "people", "keys: row 1 of .* holds a value of type float, which is not"),
        ("n", "other", "keys: no row of .* has a key in 'n', 1 looked at"),
    ],
)
def test_a_wrong_column_or_table(
    tmp_path: Path, column: str | None, table: str | None, words: str
) -> None:
    path = duckdb_file(
        tmp_path / "c.duckdb",
        "CREATE TABLE people AS SELECT 'a' AS id, 1.5::DOUBLE AS plan",
        "CREATE TABLE other AS SELECT NULL::VARCHAR AS n",
    )
    with pytest.raises(ConfigurationError, match=f"^{words}") as caught:
        list(KeyFile(path, "identity", column, table))
    assert "1.5" not in str(caught.value)


@pytest.mark.parametrize("ending", ["parquet", "duckdb"])
def test_a_file_that_is_none_is_an_error_of_ours(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"k.{ending}"
    path.write_bytes(b"identity\n1\n" * 2000)
    with pytest.raises(ConfigurationError, match=r"^keys: .* cannot be (read|opened) as"):
        list(KeyFile(path, "identity", "id", "t" if ending == "duckdb" else None))


def test_a_duckdb_file_that_another_process_writes_to(tmp_path: Path) -> None:
    path = duckdb_file(tmp_path / "k.duckdb", "CREATE TABLE t AS SELECT 'a' AS id")
    code = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(ExportLocked, match=r"^keys: .* is open in another program; close it"):
            list(KeyFile(path, "identity", "id"))
        process.communicate(b"\n")
    assert list(KeyFile(path, "identity", "id")) == ["a"]


def test_a_duckdb_file_that_this_process_has_open(tmp_path: Path) -> None:
    path = duckdb_file(tmp_path / "k.duckdb", "CREATE TABLE t AS SELECT 'a' AS id")
    with duckdb.connect(str(path)), pytest.raises(ConfigurationError) as caught:
        list(KeyFile(path, "identity", "id"))
    assert "k.duckdb is open in this process already; close that connection" in str(caught.value)
    assert list(KeyFile(path, "identity", "id")) == ["a"]


def test_a_connection_that_only_a_cycle_holds_is_closed(tmp_path: Path) -> None:
    path = duckdb_file(tmp_path / "k.duckdb", "CREATE TABLE t AS SELECT 'a' AS id")
    cycle: list[Any] = [duckdb.connect(str(path))]
    cycle.append(cycle)
    gc.disable()
    try:
        del cycle
        assert list(KeyFile(path, "identity", "id")) == ["a"]
    finally:
        gc.enable()


def test_a_table_of_the_library_s_own_is_not_one_of_several(tmp_path: Path) -> None:
    path = duckdb_file(
        tmp_path / "crm.duckdb",
        "CREATE TABLE people AS SELECT 'a' AS id",
        "CREATE TABLE altaprofiles_runs AS SELECT 'b' AS id",
    )
    assert list(KeyFile(path, "identity", None)) == ["a"]
    assert list(KeyFile(path, "identity", None, "altaprofiles_runs")) == ["b"]


@pytest.mark.anyio
async def test_a_table_of_keys_beside_the_table_that_is_written(tmp_path: Path) -> None:
    path = duckdb_file(tmp_path / "crm.duckdb", "CREATE TABLE ids AS SELECT '5555555555' AS id")
    arguments: Any = {"by": "identity", "keys_table": "ids", "to": path}
    async with Emulator(people=20, seed=2) as emulator, session_for(emulator) as session:
        report = await session.export_lookups(path, **arguments)
        assert report.found == 1
        with pytest.raises(ConfigurationError, match="written by this export itself"):
            await session.export_lookups(path, **arguments, table="ids")
    with duckdb.connect(str(path), read_only=True) as connection:
        assert connection.execute("SELECT key FROM profiles").fetchall() == [("5555555555",)]


def test_half_of_a_surrogate_pair_is_not_somebody_else_s_key(tmp_path: Path) -> None:
    path = tmp_path / "k.ndjson"
    path.write_bytes(b'"\\ud800"\n"\\ufffd"\n')
    assert list(KeyFile(path, "identity", None)) == ["\ud800", "\ufffd"]


def test_people_of_an_export_without_the_key_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "people.ndjson"
    path.write_bytes(b'{"identity":"1","a":1}\n{"a":2}\n{"identity":null}\n{"identity":2}\n')
    file = KeyFile(path, "identity", "identity")
    assert list(file) == ["1", "2"]
    assert file.skipped == 2


@pytest.mark.anyio
async def test_the_report_counts_what_was_skipped(tmp_path: Path) -> None:
    async with Emulator(people=200) as emulator, session_for(emulator) as session:
        exported = await session.export(EVENT, **RANGE, to=tmp_path / "people.ndjson")
        tables = []
        for name, table in (("p.parquet", None), ("p.duckdb", "profiles")):
            await session.export(EVENT, **RANGE, to=tmp_path / name)
            found = await session.export_lookups(
                tmp_path / name,
                by="user_id",
                column="identity",
                keys_table=table,
                to=tmp_path / f"{name}.ndjson",
            )
            tables.append((found.skipped, found.keys))
        report = await session.export_lookups(
            tmp_path / "people.ndjson",
            by="user_id",
            column="identity",
            to=tmp_path / "bindings.parquet",
        )
    assert report.skipped > 0
    assert report.skipped + report.keys + report.repeated == exported.people
    assert tables == [(report.skipped, report.keys)] * 2


async def refused(tmp_path: Path, **changes: Any) -> str:
    async with Emulator(people=5) as emulator, session_for(emulator) as session:
        with pytest.raises(ConfigurationError) as caught:
            await session.export_lookups(
                **{"keys": ["1"], "by": "identity", "to": tmp_path / "p.ndjson", **changes}
            )
        assert not session.stats.requests
    return str(caught.value)


@pytest.mark.anyio
async def test_a_table_of_keys_goes_with_a_duckdb_file(tmp_path: Path) -> None:
    assert "keys_table: got 't', but the keys are not" in await refused(tmp_path, keys_table="t")
    source = tmp_path / "k.csv"
    source.write_text("1\n")
    words = await refused(tmp_path, keys=source, keys_table="t")
    assert "keys_table: got 't', but k.csv is no DuckDB file" in words
    words = await refused(tmp_path, by="username")
    assert "by: unknown 'username'; use one of identity, email, object_id, user_id, " in words
    words = await refused(tmp_path, by="user-id")
    assert "(did you mean 'user_id'?)" in words
