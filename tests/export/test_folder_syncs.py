"""Whole syncs into a folder: from an emulator, killed at every step, and with joins."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from pyarrow import parquet

from altaprofiles import ExportError, Incomplete, PlanMismatch, Session, SyncReport
from altaprofiles.emulator import Emulator
from altaprofiles.emulator.people import Population

from ..support.exporting import Job, exporter
from ..support.sessions import QUICK
from ..support.terminals import Terminal, emulated, environment, run, stopping
from ..support.thorough import THOROUGH, of_each_kind

pytestmark = pytest.mark.anyio

EVENTS = ["App Launched", "Charged"]
SINCE = date(2025, 3, 1)


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with Emulator(people=60, seed=5) as emulator:
        yield emulator


def day(number: int) -> date:
    return SINCE + timedelta(days=number)


async def synced(emulator: Emulator, folder: Path, until: int, **options: Any) -> SyncReport:
    """Sync up to a day, given by its number."""
    arguments: dict[str, Any] = {"events": EVENTS, "since": SINCE, **options}
    async with Session(clevertap=emulator.clevertap, alta=emulator.alta, retry=QUICK) as session:
        return await session.sync(to=f"{folder}/", until=day(until), **arguments)


def rows(folder: Path, columns: str = "day, person, matched") -> list[tuple[Any, ...]]:
    with duckdb.connect() as connection:
        return sorted(
            connection.execute(
                f"SELECT {columns} FROM read_parquet('{folder}/*/*.parquet',"
                f" hive_partitioning = true, union_by_name = true)"
            ).fetchall()
        )


def people(folder: Path) -> dict[date, dict[str, list[str]]]:
    """Return the events of each person, by day."""
    found: dict[date, dict[str, list[str]]] = {}
    for on, person, matched in rows(folder):
        assert person not in found.setdefault(on, {})
        found[on][person] = matched
    return found


def in_emulator(
    population: Population, numbers: Sequence[int], events: Sequence[str] = EVENTS
) -> dict[date, dict[str, list[str]]]:
    """Return the same as `people`, for some days."""
    found: dict[date, dict[str, list[str]]] = {}
    for on in map(day, numbers):
        number = int(f"{on:%Y%m%d}")
        for event in sorted(events):
            for index in population.active(event, number, number):
                identity = population.identity(index)
                name = f"identity:{identity}" if identity else None
                key = name or f"objectId:{min(population.object_ids(index))}"
                found.setdefault(on, {}).setdefault(key, []).append(event)
    return found


def state(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "_altaprofiles.json").read_bytes())
    return found


async def test_a_folder_has_each_person_of_each_day(emulator: Emulator, tmp_path: Path) -> None:
    folder = tmp_path / "crm"
    for until, first in ((2, 0), (2, 1), (4, 1)):
        report = await synced(emulator, folder, until)
        assert people(folder) == in_emulator(emulator.population, range(until + 1))
        assert (report.first, report.last, report.through) == (day(first), day(until), day(until))
        assert report.people == sum(
            map(len, in_emulator(emulator.population, range(first, until + 1)).values())
        )
        assert (report.format, report.output, report.sha256) == ("parquet", f"{folder}/", None)
        [account] = state(folder)["accounts"]
        assert (account["account"], account["through"]) == (
            emulator.clevertap.account_id,
            str(day(until)),
        )
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["crm", "crm.manifest.json"]
    assert sorted(path.name for path in folder.iterdir()) == [
        "_altaprofiles.json", *(f"day={day(number)}" for number in range(5))
    ]  # fmt: skip


async def test_days_that_somebody_has_removed_are_named_until_they_are_back(
    emulator: Emulator, tmp_path: Path
) -> None:
    folder = tmp_path / "crm"

    async def warnings(until: int, **options: Any) -> list[str]:
        report = await synced(emulator, folder, until, timezone="UTC", **options)
        return [*report.warnings]

    assert await warnings(4) == []
    shutil.rmtree(folder / f"day={day(1)}")
    again = "again, sync this account once with"
    # Brought by no night of its own, and even if a night has nothing to bring.
    for until, late in ((5, 2), (5, 0)):
        [note] = await warnings(until, late_days=late)
        assert note.startswith(f"{folder}/ lacks the rows of the day {day(1)}, which a sync ")
        assert note.endswith(f"{again} `late_days=5` or more")
    (folder / f"day={day(3)}" / "people.parquet").unlink()
    [note] = await warnings(6, late_days=1)
    assert f"the rows of 2 days from {day(1)} to {day(3)}, which" in note
    assert note.endswith(f"{again} `late_days=6` or more")
    assert await warnings(6, late_days=6) == []
    assert people(folder) == in_emulator(emulator.population, range(7))


@pytest.mark.parametrize("lost", ["missing", "garbled"])
async def test_a_sync_goes_on_from_an_older_copy_of_its_state(
    emulator: Emulator, tmp_path: Path, lost: str
) -> None:
    folder = tmp_path / "crm"
    await synced(emulator, folder, 1)
    place = folder / "_altaprofiles.json"
    copy = place.read_bytes()
    await synced(emulator, folder, 3)
    expected = people(folder)
    if lost == "missing":
        place.unlink()
    else:
        place.write_bytes(b"{")
    with pytest.raises(ExportError, match="put an older copy of that file back"):
        await synced(emulator, folder, 3)
    place.write_bytes(copy)
    report = await synced(emulator, folder, 3)
    assert report.through == day(3)
    assert people(folder) == expected == in_emulator(emulator.population, range(4))


async def test_the_oldest_days_can_be_removed_on_purpose(
    emulator: Emulator, tmp_path: Path
) -> None:
    folder = tmp_path / "crm"
    await synced(emulator, folder, 4, timezone="UTC")
    for old in (0, 1):
        shutil.rmtree(folder / f"day={day(old)}")
    report = await synced(emulator, folder, 5, timezone="UTC")
    assert not report.warnings
    shutil.rmtree(folder / f"day={day(3)}")
    report = await synced(emulator, folder, 6, timezone="UTC", late_days=1)
    [note] = report.warnings
    assert f"lacks the rows of the day {day(3)}, " in note


async def test_a_day_that_another_account_has_brought_again_is_still_missed(
    emulator: Emulator, tmp_path: Path
) -> None:
    folder = tmp_path / "crm"
    async with Emulator(people=40, seed=6) as other:

        async def warnings(one: Emulator, until: int, **options: Any) -> list[str]:
            report = await synced(one, folder, until, timezone="UTC", **options)
            return [*report.warnings]

        assert [await warnings(one, 4) for one in (emulator, other)] == [[], []]
        whole = rows(folder, "day, account, person")
        shutil.rmtree(folder / f"day={day(0)}")
        shutil.rmtree(folder / f"day={day(2)}")
        # The oldest day may have been removed on purpose.
        for one in (emulator, other):
            [note] = await warnings(one, 4)
            assert note.startswith(f"{folder}/ lacks the rows of the day {day(2)}, ")
        assert await warnings(emulator, 4, late_days=5) == []
        for until in (4, 5):
            [note] = await warnings(other, until)
            assert f"the rows of 2 days from {day(0)} to {day(2)}, " in note
        assert await warnings(other, 5, late_days=6) == []
        assert await warnings(emulator, 5) == []
        last = [row for row in rows(folder, "day, account, person") if row[0] <= day(4)]
        assert last == whole


async def test_days_of_an_earlier_version_are_of_all_their_accounts(
    emulator: Emulator, tmp_path: Path
) -> None:
    folder = tmp_path / "crm"
    async with Emulator(people=40, seed=6) as other:
        for one in (emulator, other):
            await synced(one, folder, 4, timezone="UTC")
        for path in folder.glob("day=*/people.parquet"):
            table = parquet.read_table(path, partitioning=None)
            parquet.write_table(table.replace_schema_metadata(), path)
        for one in (emulator, other, emulator):
            report = await synced(one, folder, 5, timezone="UTC")
            assert not report.warnings


async def test_one_event_is_enough(emulator: Emulator, tmp_path: Path) -> None:
    await synced(emulator, tmp_path / "crm", 2, events="Charged")
    assert people(tmp_path / "crm") == in_emulator(emulator.population, range(3), ["Charged"])


async def test_accounts_share_a_folder(emulator: Emulator, tmp_path: Path) -> None:
    async with Emulator(people=40, seed=6) as other:
        for one, until in ((emulator, 1), (other, 3), (emulator, 3)):
            await synced(one, tmp_path / "crm", until, flatten=["Customer Type"])
        for one in (emulator, other):
            of_one = rows(tmp_path / "crm", "account, day, person, matched")
            assert {
                (on, person): matched
                for account, on, person, matched in of_one
                if account == one.clevertap.account_id
            } == {
                (on, person): matched
                for on, of_day in in_emulator(one.population, range(4)).items()
                for person, matched in of_day.items()
            }


async def test_flattened_columns_are_text_unless_a_type_is_named(
    emulator: Emulator, tmp_path: Path
) -> None:
    flatten = {"Customer Type": None, "score": "double"}
    await synced(emulator, tmp_path / "crm", 0, flatten=flatten)
    columns = 'typeof("Customer Type"), typeof(score)'
    assert {*rows(tmp_path / "crm", columns)} == {("VARCHAR", "DOUBLE")}


async def test_people_of_a_folder_are_joined_with_their_users(
    emulator: Emulator, tmp_path: Path
) -> None:
    report = await synced(emulator, tmp_path / "crm", 2, with_cdp=True)
    assert people(tmp_path / "crm") == in_emulator(emulator.population, range(3))
    found = rows(tmp_path / "crm", "identity IS NOT NULL, cdp = '[]', cdp IS NULL")
    assert {row[2] for row in found} == {False}
    assert (False, False, False) not in found
    assert (True, False, False) in found
    assert report.matched is not None
    assert report.matched > 0


async def test_another_sync_or_an_export_is_refused(emulator: Emulator, tmp_path: Path) -> None:
    folder = tmp_path / "crm"
    await synced(emulator, folder, 1)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    asked = sum(emulator.stats.requests.values())
    with pytest.raises(PlanMismatch, match=r"another sync keeps .*crm/: `events` was"):
        await synced(emulator, folder, 2, events="Charged")
    async with Session(clevertap=emulator.clevertap) as session:
        with pytest.raises(ExportError, match="is a folder of `sync`"):
            await session.export("Charged", start=SINCE, end=SINCE, to=f"{folder}/")
        assert sum(emulator.stats.requests.values()) == asked
        await session.export("Charged", start=SINCE, end=SINCE, to=f"{tmp_path}/files/")
    with pytest.raises(ExportError, match="holds files of exports"):
        await synced(emulator, tmp_path / "files", 2)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


async def test_what_an_outage_interrupts_is_finished_by_the_next_night(
    emulator: Emulator, tmp_path: Path
) -> None:
    folder = tmp_path / "crm"
    await synced(emulator, folder, 1)
    emulator.faults = {"cdn_timeout": 1.0}
    with pytest.raises(Incomplete):
        await synced(emulator, folder, 2)
    assert people(folder) == in_emulator(emulator.population, range(2))
    emulator.faults = {}
    report = await synced(emulator, folder, 3)
    assert report.through == day(3)
    assert people(folder) == in_emulator(emulator.population, range(4))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["crm", "crm.manifest.json"]


@pytest.mark.slow
def test_the_command_line_syncs_a_folder_and_finishes_what_is_left(tmp_path: Path) -> None:
    words = ("sync", *EVENTS, "--since", str(SINCE), "--flatten", "Customer Type:text")
    with emulated(people=60, seed=5) as emulator:
        env = environment(tmp_path, emulator.environment, CLEVERTAP_TIMEZONE="UTC")
        done = run(env, *words, "--until", str(day(1)), "-o", "crm/", cwd=tmp_path)
        assert (done.code, done.stdout) == (0, b"crm/\n"), done
        assert people(tmp_path / "crm") == in_emulator(emulator.population, range(2))
        # Stopped before the first day takes its place.
        last = ("--until", str(day(2)), "-o", f"{tmp_path}/crm/")
        command = stopping("os.rename", "/temporary/")
        with Terminal(env, *words, *last, command=command) as terminal:
            terminal.stopped()
            assert people(tmp_path / "crm") == in_emulator(emulator.population, range(2))
        status = run(env, "status", cwd=tmp_path).stdout.decode()
        assert status.startswith("crm/\n")
        assert str(day(1)) in status
        assert "altaprofiles status crm/ --finish-unfinished" in status
        for out in ("crm", "crm/"):
            done = run(env, "status", out, "--finish-unfinished", cwd=tmp_path)
            assert done.code == 0, done
            assert people(tmp_path / "crm") == in_emulator(emulator.population, range(3))
        status = run(env, "status", "crm/", cwd=tmp_path).stdout.decode()
        assert str(day(2)) in status
        assert "unfinished" not in status


# Kills


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="forks, and kills with signals")
async def test_a_killed_sync_leaves_whole_days_and_an_earlier_state(
    emulator: Emulator, tmp_path: Path
) -> None:
    place, fetched = tmp_path / "place", tmp_path / "fetched"
    folder, days = place / "crm", range(1, 4)
    place.mkdir()
    async with Emulator(people=30, seed=6) as other, exporter(tmp_path / "runs") as processes:
        await synced(other, folder, 2)
        await synced(emulator, folder, 2)
        before = _days(folder)
        old = state(folder)
        job = Job(
            arguments={"events": EVENTS, "since": 20250301, "until": 20250304, "to": f"{folder}/"},
            environment=emulator.environment,
            # Later than the syncs of this process.
            begun=2**31 * 10**9,
        )
        shutil.copytree(place, fetched)
        steps = (await processes.run(job.but(listed=True))).steps
        after = _days(folder)
        shutil.rmtree(place)
        shutil.copytree(fetched, place)
        # The folders of the days are the last that it makes. Before comes the one for their files.
        made = steps.count("os.mkdir") - len(days) - 1
        killed = await processes.run(job.but(die=(made, "before"), die_in="os.mkdir"))
        assert killed.signal == 9
        shutil.rmtree(fetched)
        place.rename(fetched)
        shutil.copytree(fetched, place)
        outcome = await processes.run(job.but(listed=True))
        assert outcome.error is None, outcome
        seen = set()
        numbers = [
            number
            for number, step in enumerate(outcome.steps)
            # Others change the content of files only, which nobody sees before they are whole.
            if step in _RENAMING or "commit" in step
        ]
        for number in of_each_kind(numbers, outcome.steps):
            shutil.rmtree(place)
            shutil.copytree(fetched, place)
            killed = await processes.run(job.but(die=(number, "after")))
            assert killed.signal == 9
            found = _days(folder)
            assert {*found} <= {*after}
            assert all(found[one] in (before.get(one), after[one]) for one in found)
            if state(folder) != old:
                # It comes last.
                assert found == after
            seen.add(sum(found.get(one) == after[one] != before.get(one) for one in after))
            resumed = await processes.run(job)
            assert resumed.error is None, resumed
            assert _days(folder) == after, number
            assert state(folder) != old
            assert not (place / "crm.export").exists(), number
        assert seen == {0, 1, 2, 3} if THOROUGH else seen >= {0, 3}


@pytest.mark.skipif(sys.platform == "win32", reason="modes of files")
async def test_a_folder_that_may_not_be_read_is_named(emulator: Emulator, tmp_path: Path) -> None:
    folder = tmp_path / "crm"
    await synced(emulator, folder, 1)
    days = ("--since", str(SINCE), "--until", str(day(2)))
    powers = "-dac_override,-dac_read_search"
    powerless = ["setpriv", f"--bounding-set={powers}", f"--inh-caps={powers}"]
    if os.geteuid() == 0 and shutil.which(powerless[0]) is None:
        pytest.skip("root reads everything")
    for closed in (folder / f"day={day(0)}", folder / "_altaprofiles.json"):
        mode = closed.stat().st_mode
        closed.chmod(0)
        process = await asyncio.create_subprocess_exec(
            *(powerless if os.geteuid() == 0 else ()),
            *(sys.executable, "-m", "altaprofiles", "sync", *EVENTS, *days, "-o", f"{folder}/"),
            env={**os.environ, **emulator.environment},
            stderr=asyncio.subprocess.PIPE,
        )
        _, errors = await process.communicate()
        closed.chmod(mode)
        assert b"Traceback" not in errors
        assert f"{closed} may not be read by this user".encode() in errors, errors
        assert b"; give it the right to read what is in the folder, or choose another" in errors
    await synced(emulator, folder, 2)


_RENAMING = ("os.mkdir", "os.replace", "os.rmdir", "os.unlink")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="forks")
async def test_a_full_disk_leaves_the_folder_as_it_was(emulator: Emulator, tmp_path: Path) -> None:
    folder = tmp_path / "crm"
    async with exporter(tmp_path / "runs") as processes:
        await synced(emulator, folder, 1)
        before = _days(folder)
        left: list[dict[str, list[Any]]] = []
        job = Job(
            arguments={"events": EVENTS, "since": 20250301, "until": 20250303, "to": f"{folder}/"},
            environment=emulator.environment,
            begun=2**31 * 10**9,
        )
        number = 1
        while (outcome := await processes.run(job.but(fail=number))).error is not None:
            assert outcome.error in ("ExportError", "Incomplete"), outcome
            left.append(_days(folder))
            # What has been written in vain is gone.
            assert {path.name for path in folder.iterdir()} <= {"_altaprofiles.json", *_names(3)}
            number += 1
        after = _days(folder)
        for found in left:
            assert all(found[one] in (before.get(one), after[one]) for one in found)
        assert before in left
        assert people(folder) == in_emulator(emulator.population, range(3))
        assert number > 5


def _names(days: int) -> set[str]:
    return {f"day={day(number)}" for number in range(days)}


def test_syncs_with_other_folders_for_their_records_take_turns(tmp_path: Path) -> None:
    words = ["sync", *EVENTS, "--since", str(SINCE), "--until", str(day(2))]
    words += ["-o", f"{tmp_path}/crm/"]
    (tmp_path / "other").mkdir()
    with emulated(people=60, seed=5) as emulator:
        env = environment(tmp_path, emulator.environment, CLEVERTAP_TIMEZONE="UTC")
        # The first stops before its days take their places.
        with Terminal(env, *words, command=stopping("os.rename", "/temporary/")) as first:
            first.stopped()
            with Terminal(env, *words, "--spool", f"{tmp_path}/other") as second:
                second.expect("another export is writing")
                first.interrupt(signal.SIGCONT)
                assert first.ended().code == 0
                assert second.ended().code == 0
        assert people(tmp_path / "crm") == in_emulator(emulator.population, range(3))


def _days(folder: Path) -> dict[str, list[Any]]:
    """Return the rows of each day, but not when they were fetched."""
    columns = "account, person, matched, profile_data, fetched_at::text"
    found: dict[str, list[Any]] = {}
    for path in sorted(folder.glob("*/*.parquet")):
        with duckdb.connect() as connection:
            query = f"SELECT {columns} FROM read_parquet('{path}') ORDER BY ALL"
            found[path.parent.name] = connection.execute(query).fetchall()
    return found


def spoil(path: Path, how: str) -> None:
    """Damage a Parquet file, at its end or in the midst of it."""
    content = path.read_bytes()
    if how == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif how == "footer":
        path.write_bytes(content[:-200] + b"\xff" * 150 + content[-50:])
    else:
        # The first page of the first column, `account`.
        path.write_bytes(content[:4] + b"\xff" * 20 + content[24:])


@pytest.mark.parametrize("how", ["cut", "footer", "page"])
async def test_the_error_of_a_damaged_day_says_what_brings_it_again(
    emulator: Emulator, tmp_path: Path, how: str
) -> None:
    folder = tmp_path / "crm"
    await synced(emulator, folder, 4, timezone="UTC")
    path = folder / f"day={day(4)}" / "people.parquet"
    spoil(path, how)
    with pytest.raises(ExportError) as caught:
        await synced(emulator, folder, 5, timezone="UTC", late_days=2)
    [line] = [line for line in str(caught.value).splitlines() if "pyarrow" in line]
    assert line.startswith(f"  {path}: pyarrow cannot read it: ")
    assert line.endswith("; remove it; the next run brings the day again")
    path.unlink()
    report = await synced(emulator, folder, 6, timezone="UTC", late_days=0)
    assert report.warnings == []
    assert people(folder) == in_emulator(emulator.population, range(7))


@pytest.mark.parametrize("how", ["cut", "footer"])
async def test_damaged_days_are_named_until_they_are_back(
    emulator: Emulator, tmp_path: Path, how: str
) -> None:
    folder = tmp_path / "crm"
    await synced(emulator, folder, 4, timezone="UTC")
    paths = [folder / f"day={day(number)}" / "people.parquet" for number in (0, 2)]
    again = "and sync this account once with"
    spoil(paths[1], how)
    for until in (4, 5):
        report = await synced(emulator, folder, until, timezone="UTC", late_days=0)
        [warning] = report.warnings
        assert warning == (
            f"{folder}/ has a day that no reader can open: {paths[1]}; remove it, "
            f"{again} `late_days={until - 1}` or more, which brings the day again"
        )
    spoil(paths[0], how)
    report = await synced(emulator, folder, 5, timezone="UTC", late_days=0)
    [warning] = report.warnings
    assert warning == (
        f"{folder}/ has 2 days that no reader can open: {paths[0]}, {paths[1]}; remove them, "
        f"{again} `late_days=6` or more, which brings the days again"
    )
    for path in paths:
        path.unlink()
    # Also that of the oldest day, which nobody has meant to remove.
    report = await synced(emulator, folder, 5, timezone="UTC", late_days=0)
    [warning] = report.warnings
    assert f"lacks the rows of 2 days from {day(0)} to {day(2)}, " in warning
    assert warning.endswith(f"{again.removeprefix('and ')} `late_days=6` or more")
    report = await synced(emulator, folder, 5, timezone="UTC", late_days=6)
    assert report.warnings == []
    assert people(folder) == in_emulator(emulator.population, range(6))


async def test_a_folder_in_the_place_of_a_day_s_file_is_named_until_the_day_is_back(
    emulator: Emulator, tmp_path: Path
) -> None:
    folder = tmp_path / "crm"
    await synced(emulator, folder, 4, timezone="UTC")
    path = folder / f"day={day(4)}" / "people.parquet"
    path.unlink()
    path.mkdir()
    report = await synced(emulator, folder, 4, timezone="UTC", late_days=0)
    [warning] = report.warnings
    assert f"/ has a day that no reader can open: {path}; remove it, and sync" in warning
    assert "file" not in warning.replace(str(path), "")
    with pytest.raises(ExportError, match="is a directory; remove it; the next run brings the day"):
        await synced(emulator, folder, 5, timezone="UTC", late_days=1)
    path.rmdir()
    report = await synced(emulator, folder, 5, timezone="UTC", late_days=1)
    assert report.warnings == []
    assert people(folder) == in_emulator(emulator.population, range(6))


async def test_a_damaged_row_of_another_account_is_an_error_of_its_file(
    emulator: Emulator, tmp_path: Path
) -> None:
    folder = tmp_path / "crm"
    path = folder / f"day={day(4)}" / "people.parquet"
    async with Emulator(people=40, seed=6) as other:
        await synced(other, folder, 4, timezone="UTC")
        metadata = parquet.read_metadata(path)
        column = metadata.row_group(0).column(metadata.schema.names.index("identity"))
        content = path.read_bytes()
        place = column.dictionary_page_offset or column.data_page_offset
        path.write_bytes(content[:place] + b"\xff" * 20 + content[place + 20 :])
        with pytest.raises(ExportError) as caught:
            await synced(emulator, folder, 5, timezone="UTC", late_days=2)
        assert f"\n  {path}: pyarrow cannot read it: " in str(caught.value)
        path.unlink()
        await synced(emulator, folder, 5, timezone="UTC", late_days=2)
        [note] = (await synced(other, folder, 5, timezone="UTC", late_days=0)).warnings
        assert f"lacks the rows of the day {day(4)}, " in note
        assert note.endswith("`late_days=2` or more")
        await synced(other, folder, 5, timezone="UTC", late_days=2)
        assert len({row[0] for row in rows(folder, "account, day") if row[1] == day(4)}) == 2
