"""Folders of Parquet files: replaced and appended to, in use by others, and killed."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import polars
import pytest

from altaprofiles import ConfigurationError, ExportError, ExportLocked
from altaprofiles.emulator import Emulator
from altaprofiles.export.tables import Content, Origin

from ..support.exporting import Job, exporter
from ..support.jobs import EVENTS, Emulated, at_emulator
from ..support.sinks import opened, put_in_place, rows_of, target_of
from ..support.tables import record, time_of
from ..support.thorough import THOROUGH, of_each_kind

pytestmark = pytest.mark.anyio


@pytest.fixture
async def case() -> AsyncIterator[Emulated]:
    async with at_emulator(EVENTS, people=60) as emulated:
        yield emulated


def origin(run: str, account: str = "A", hour: int = 0) -> Origin:
    return Origin(run, (account,), time_of(hour))


def load(folder: Path, identities: Sequence[str], at: Origin, **options: Any) -> None:
    target = target_of(f"{folder}/", **options)
    target.check()
    target.accept(at)
    records = [record(one, ["1"]) for one in identities]
    sink = opened(target, records, at)
    try:
        sink.write(rows_of(records, at.accounts[0]))
        put_in_place(sink)
    except BaseException:
        sink.abort()
        raise


def people(folder: Path) -> list[str]:
    if not any(folder.glob("*.parquet")):
        return []
    return sorted(
        polars.read_parquet(folder / "*.parquet")["person"].str.strip_prefix("identity:").to_list()
    )


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def test_an_export_replaces_the_files_of_a_folder(tmp_path: Path, case: Emulated) -> None:
    for _ in range(2):
        report = await case.run(f"{tmp_path}/out/")
        frame = polars.read_parquet(tmp_path / "out" / "*.parquet")
        assert len(frame) == report.people > 0
        assert names(tmp_path / "out") == ["_altaprofiles.json", "people.parquet"]
        assert names(tmp_path) == ["out", "out.manifest.json"]
        assert (report.format, report.output) == ("parquet", f"{tmp_path}/out/")


async def test_an_export_appends_a_file_to_a_folder(tmp_path: Path, case: Emulated) -> None:
    for runs in (1, 2):
        report = await case.run(f"{tmp_path}/out/", write="append")
        assert len(polars.read_parquet(tmp_path / "out" / "*.parquet")) == runs * report.people
        assert len(names(tmp_path / "out")) == runs + 1


def test_a_run_is_appended_once(tmp_path: Path) -> None:
    for at, expected in (("r1", "a"), ("r2", "aa"), ("r2", "aa"), ("r1", "aa")):
        load(tmp_path / "out", ["a"], origin(at), write="append")
        assert people(tmp_path / "out") == [*expected]
    assert names(tmp_path / "out") == ["_altaprofiles.json", "r1.parquet", "r2.parquet"]
    # With what was missing before.
    load(tmp_path / "out", ["a", "b"], origin("r2"), write="append")
    assert people(tmp_path / "out") == ["a", "a", "b"]


def test_replace_removes_files_of_append(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    for run in ("r1", "r2"):
        load(folder, [run], origin(run), write="append")
    load(folder, ["new"], origin("r3"))
    assert names(folder) == ["_altaprofiles.json", "people.parquet"]
    assert people(folder) == ["new"]
    load(folder, ["newer"], origin("r4"), write="append")
    assert people(folder) == ["new", "newer"]


def test_replace_spares_other_accounts(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    for account in ("A", "B"):
        load(folder, [account], origin(f"of {account}", account), write="append")
    words = r"rows of other accounts \(A\).*write='append'"
    with pytest.raises(ExportError, match=words):
        load(folder, ["c"], origin("r", "B"))
    with pytest.raises(ExportError, match=words):
        opened(target_of(f"{folder}/"), [], origin("r", "B"))
    assert people(folder) == ["A", "B"]


@pytest.mark.parametrize("write", ["replace", "append"])
@pytest.mark.parametrize("name", ["people.parquet", "notes.txt", "day=2026-01-01"])
def test_a_folder_of_others_is_refused(tmp_path: Path, name: str, write: str) -> None:
    (tmp_path / name).write_bytes(b"theirs")
    is_day = name.startswith("day=")
    words = f"holds '{name}', {'but not' if is_day else 'which no export has written'}"
    with pytest.raises(ExportError, match=words):
        target_of(f"{tmp_path}/", write=write).check()
    with pytest.raises(ExportError, match=words):
        opened(target_of(f"{tmp_path}/", write=write), [], origin("r"))
    assert names(tmp_path) == [name]


def test_hidden_files_are_nobodys(tmp_path: Path) -> None:
    (tmp_path / ".DS_Store").touch()
    load(tmp_path, ["a"], origin("r"))
    assert names(tmp_path) == [".DS_Store", "_altaprofiles.json", "people.parquet"]


@pytest.mark.parametrize("state", ["", "[]", "{", '{"layout":"days"}'])
def test_a_state_of_another_kind_is_refused(tmp_path: Path, state: str) -> None:
    (tmp_path / "_altaprofiles.json").write_text(state)
    words = "is not of an export into a folder, or is of a newer version, or damaged; put an older"
    with pytest.raises(ExportError, match=f"_altaprofiles.json {words} copy .* another folder$"):
        target_of(f"{tmp_path}/").check()


def test_a_folder_holds_one_kind_of_rows(tmp_path: Path) -> None:
    load(tmp_path, ["a"], origin("r"))
    with pytest.raises(ExportError, match="is a folder of people, not of bindings"):
        target_of(f"{tmp_path}/", Content(of="bindings")).check()


def test_a_path_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="names a folder, but a file stands there"):
        target_of(f"{tmp_path}/file/")
    with pytest.raises(ConfigurationError, match="does not exist; create it first"):
        target_of(f"{tmp_path}/a/b/")
    with pytest.raises(ConfigurationError, match=r"is a folder; add a file name"):
        target_of(f"{tmp_path}/x/", format="csv")
    with pytest.raises(ConfigurationError, match="a slash, for a folder"):
        target_of(tmp_path, format="parquet")
    with pytest.raises(ConfigurationError, match=r"write: .*`sync`.*'append'"):
        target_of(f"{tmp_path}/", write="upsert")
    with pytest.raises(ConfigurationError, match=r"write: 'append' applies to .*folders of"):
        target_of(tmp_path / "x.parquet", write="append")


def test_exports_into_one_folder_take_turns(tmp_path: Path) -> None:
    target = target_of(f"{tmp_path}/", write="append")
    first = opened(target, [], origin("r1"))
    target.check()
    with pytest.raises(ExportLocked, match="another export is writing"):
        opened(target, [], origin("r2"))
    put_in_place(first)
    put_in_place(opened(target, [], origin("r2")))
    assert len(names(tmp_path)) == 3


def test_an_abandoned_export_leaves_a_folder_alone(tmp_path: Path) -> None:
    load(tmp_path, ["a"], origin("r1"))
    before = names(tmp_path)
    sink = opened(target_of(f"{tmp_path}/"), [], origin("r2"))
    sink.write(rows_of([record("b", ["1"])]))
    sink.abort()
    sink.abort()
    assert names(tmp_path) == before
    assert people(tmp_path) == ["a"]


# Kills


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="forks, and kills with signals")
@pytest.mark.parametrize(
    ("earlier", "write"),
    [("", "replace"), ("", "append"), ("replace", "replace"), ("append", "append"),
     ("append", "replace")],
)  # fmt: skip
async def test_a_killed_export_leaves_the_old_rows_or_the_new_ones(
    tmp_path: Path, earlier: str, write: str
) -> None:
    place, fetched = tmp_path / "place", tmp_path / "fetched"
    folder = place / "out"
    place.mkdir()
    async with Emulator(people=60, seed=3) as emulator, exporter(tmp_path / "runs") as processes:
        account = emulator.environment["CLEVERTAP_ACCOUNT_ID"]
        for run in ("r1", "r2") if earlier else ():
            load(folder, [run], origin(run, account), write=earlier)
        old = people(folder)
        job = Job(
            arguments={**ONE_CHAIN, "to": f"{folder}/", "write": write},
            environment=emulator.environment,
        )
        await processes.fetch(job)
        place.rename(fetched)
        shutil.copytree(fetched, place)
        outcome = await processes.run(job.but(listed=True))
        assert outcome.report is not None, outcome
        new = people(folder)
        unlinked = [n for n, step in enumerate(outcome.steps) if step == "os.unlink"]
        seen = set()
        beside: list[int] = []
        half = {"": 0, "replace": 1}.get(earlier)
        for number in of_each_kind(range(len(outcome.steps)), outcome.steps, half):
            shutil.rmtree(place)
            shutil.copytree(fetched, place)
            killed = await processes.run(job.but(die=(number, "after")))
            assert killed.signal == 9
            found = people(folder)
            if (earlier, write) == ("append", "replace") and {*found} > {*new}:
                # Until the old files are gone, they stand beside the new one.
                beside.append(number)
            else:
                assert found in (old, new), number
            seen.add(found == new)
            resumed = await processes.run(job)
            assert resumed.error is None, resumed
            if write == "append" and number >= unlinked[-2]:
                # The killed run had forgotten that it was over, so that this one is another.
                assert {*people(folder)} == {*new}
            else:
                assert people(folder) == new, number
            state = json.loads((folder / "_altaprofiles.json").read_bytes())
            assert {*names(folder)} == {"_altaprofiles.json", *(f["name"] for f in state["files"])}
        assert seen == {False, True}
        # One step after the other, none of which waits for the disk.
        steps = [outcome.steps[number] for number in beside]
        expected = ["os.replace", "os.unlink"] if earlier == "append" != write else []
        assert steps == expected if THOROUGH else {*steps} <= {*expected}

        for number in beside:
            # Another export than the killed one.
            shutil.rmtree(place)
            shutil.copytree(fetched, place)
            await processes.run(job.but(die=(number, "after")))
            load(folder, ["r3"], origin("r3", account), write="append")
            assert people(folder) == sorted([*new, "r3"])


# Columns of several files, and a state that anybody may have written


def test_flattened_columns_have_one_type_in_all_files(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    for hour, value in enumerate([5, 1.5, "x", None]):
        put(folder, [record("a", ["1"], value)], f"r{hour}", flatten=["value"])
    frame = polars.read_parquet(folder / "*.parquet")
    assert sorted(frame["value"], key=str) == ["1.5", "5", None, "x"]
    # Another type is found before anything is fetched, and when the rows are there.
    words = r"flatten: 'value' .*of int64, .*is text in r0\.parquet .*'value': 'text'.*replace'"
    whole = target_of(f"{folder}/", write="append", flatten={"value": "int64"})
    with pytest.raises(ConfigurationError, match=words):
        whole.check()
    with pytest.raises(ConfigurationError, match=words):
        opened(whole, [], origin("r9"))
    assert len(names(folder)) == 5
    put(folder, [record("a", ["1"], 7)], "r9", write="replace", flatten={"value": "int64"})
    put(folder, [record("a", ["1"], 8)], "r10", flatten={"value": "int64"})
    assert sorted(polars.read_parquet(folder / "*.parquet")["value"]) == [7, 8]
    # Columns that a file lacks are found by name.
    put(folder, [record("a", ["1"], 9)], "r11", flatten=["other"])
    rows = f"SELECT value FROM read_parquet('{folder}/*.parquet', union_by_name = true) ORDER BY 1"
    with duckdb.connect() as connection:
        assert connection.execute(rows).fetchall() == [(7,), (8,), (None,)]


def put(folder: Path, records: Sequence[bytes], run: str, **options: Any) -> None:
    target = target_of(f"{folder}/", **{"write": "append", **options})
    target.check()
    sink = opened(target, records, origin(run))
    sink.write(rows_of(records, "A"))
    put_in_place(sink)


@pytest.mark.parametrize(
    "state",
    [
        {"files": [{"name": "../victim/precious.parquet", "run": "r", "accounts": ["A"]}]},
        {"files": [{"name": "/precious.parquet", "run": "r", "accounts": ["A"]}]},
        {"files": [{"name": "precious.txt", "run": "r", "accounts": ["A"]}]},
        {"files": [{"name": "..", "run": "r", "accounts": ["A"]}]},
        {"files": [{"name": ".parquet", "run": "r", "accounts": ["A"]}]},
        {"files": [{"name": "a\\b.parquet", "run": "r", "accounts": ["A"]}]},
        {"files": [], "replacing": 5},
        {"files": [{"name": "r.parquet", "run": "r", "accounts": ["A"]}], "replacing": 5},
    ],
    ids=json.dumps,
)
@pytest.mark.parametrize("write", ["replace", "append"])
def test_a_state_that_no_export_has_written_deletes_nothing(
    tmp_path: Path, state: dict[str, Any], write: str
) -> None:
    folder, victim = tmp_path / "out", tmp_path / "victim"
    load(folder, ["a"], origin("r"))
    for name in ("precious.txt", "precious.parquet"):
        victim.mkdir(exist_ok=True)
        (victim / name).write_bytes(b"precious")
    number = (folder / "people.parquet").stat().st_ino
    content = {"layout": "files", "of": "people", "replacing": number, **state}
    (folder / "_altaprofiles.json").write_text(json.dumps(content))
    with pytest.raises(ExportError, match="is not of an export into a folder"):
        target_of(f"{folder}/", write=write).check()
    with pytest.raises(ExportError, match="is not of an export into a folder"):
        opened(target_of(f"{folder}/", write=write), [], origin("r2"))
    assert names(victim) == ["precious.parquet", "precious.txt"]
    assert names(folder) == ["_altaprofiles.json", "people.parquet"]


ONE_CHAIN = {"events": "Charged", "start": 20260101, "end": 20260110, "windows": 1}
