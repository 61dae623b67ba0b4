"""Unfinished exports beside others: what is left of each, and how it is finished."""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from msgspec.structs import replace

from altaprofiles import (
    CleverTap,
    ConfigurationError,
    ExportError,
    ExportLocked,
    InvalidArgument,
    Session,
    unfinished_in,
)
from altaprofiles.export.outputs import outputs_at, outputs_in
from altaprofiles.export.store.lock import Lock
from altaprofiles.export.store.workspaces import Workspaces
from altaprofiles.export.unfinished import Unfinished, unfinished_at

from ..support.containers import run_apart
from ..support.disks import mounted
from ..support.jobs import (
    BINDINGS,
    EVENTS,
    JOINED,
    KEYS,
    KINDS,
    Kind,
    Scripted,
    at_script,
    folder_of,
    names_in,
    people_in,
    resumed,
    spools_of,
    workspace_of,
    workspaces_of,
)
from ..support.unfinished import SAMPLES, Service, serving

pytestmark = pytest.mark.anyio


@pytest.fixture(params=KINDS, ids=str)
def kind(request: pytest.FixtureRequest) -> Kind:
    kind: Kind = request.param
    return kind


@pytest.fixture
async def case(kind: Kind) -> AsyncIterator[Scripted]:
    async with at_script(kind) as case:
        yield case


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with serving() as service:
        yield service


@pytest.fixture
def to(tmp_path: Path) -> Path:
    return tmp_path / "p.ndjson"


async def finish(case: Scripted, one: Unfinished, to: Path, **changes: Any) -> Any:
    async with case.session() as session:
        return await session.finish_unfinished(one, to=to, **changes)


# ------------------------------------------------------------------------------- beside each other


async def test_yesterday_s_never_blocks_today_s(to: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The same command every night, with other days each time; one of the nights is killed."""
    async with at_script(EVENTS) as case:
        monday, tuesday, wednesday = (
            {"start": day, "end": day, "windows": "auto"} for day in (20260105, 20260106, 20260107)
        )
        await case.interrupt(to, **monday)
        for night in (tuesday, wednesday):
            caplog.clear()
            report = await case.run(to, **night)
            assert report.complete
            [warning] = report.warnings
            assert "unfinished" in warning
            assert "from 20260105 to 20260105" in warning
            assert f"altaprofiles status {to}" in warning
            assert "ago" in warning
            begun = f"`start` was 20260105 and is now {night['start']}"
            assert f"; this one differs: {begun}; `end` was" in warning
            assert [r.message for r in caplog.records if "unfinished" in r.message] == [warning]
        [one] = unfinished_at(folder_of(to))
        await finish(case, one, to)
        assert not folder_of(to).exists()
        assert (await case.run(to, **tuesday)).warnings == []


async def test_the_same_export_at_another_address_is_told_apart(to: Path, case: Scripted) -> None:
    """As of an emulator that a restarted notebook starts again, on another port."""
    await case.interrupt(to)
    async with at_script(case.kind) as other:
        warning, *_ = (await other.run(to)).warnings
    was, now = (one.environment["CLEVERTAP_BASE_URL"] for one in (case, other))
    assert f"; this one differs: `host` was '{was}' and is now '{now}'" in warning


async def test_dead_cursors_are_told_louder(to: Path) -> None:
    async with at_script(EVENTS) as case:
        await case.interrupt(to)
        db = sqlite3.connect(workspace_of(to) / "journal.sqlite")
        with db:
            db.execute("update chains set since = ?", (time.time() - 5 * 86_400,))
        db.close()
        report = await case.run(to, end=20260129)
        [warning] = report.warnings
        assert "UNFINISHED for more than 4 days" in warning
        assert "cursors are dead" in warning


async def test_what_has_brought_nothing_leaves_nothing(to: Path, case: Scripted) -> None:
    """A run that was killed before its first answer is not worth a warning."""
    await case.interrupt(to)
    workspace = workspace_of(to)
    db = sqlite3.connect(workspace / "journal.sqlite")
    with db:
        db.execute("update chains set pages = 0, records = 0, offset = 0")
        db.execute("update keys set outcome = null")
    db.close()
    other = folder_of(to) / f"{case.kind.tag}-0123456789abcdef-2"
    workspace.rename(other)
    folder_of(to).joinpath("events-fedcba9876543210-1").mkdir()
    assert (await case.run(to)).warnings == [
        text for text in (await case.run(to)).warnings if "unfinished" not in text
    ]
    assert not folder_of(to).exists()


async def test_what_cannot_be_read_is_told_and_left(to: Path, case: Scripted) -> None:
    changes = case.kind.other_plans[0][0]
    await case.interrupt(to)
    workspace = workspace_of(to)
    journal = workspace / "journal.sqlite"
    journal.write_bytes(b"not a journal" * 100)
    spools = {path: path.read_bytes() for path in spools_of(to)}
    report = await case.run(to, **changes)
    assert any("unfinished" in text and str(workspace) in text for text in report.warnings)
    assert {path: path.read_bytes() for path in spools_of(to)} == spools
    assert journal.read_bytes().startswith(b"not a journal")


async def test_a_key_that_is_given_twice_counts_once_in_the_progress(to: Path) -> None:
    """As in the progress of the run itself."""
    kind = next(kind for kind in KINDS if kind.tag == "lookups")
    async with at_script(kind) as case:
        keys = [*case.arguments["keys"]]
        await case.interrupt(to, keys=keys * 2)
    [one] = unfinished_at(folder_of(to))
    assert one.goal == len(keys)
    assert f"of {len(keys):,} different keys answered" in one.progress
    assert f"the lookup of {2 * len(keys):,} keys" in one.subject


async def test_a_one_shot_source_of_keys_is_resumed(to: Path) -> None:
    kinds = [kind for kind in KINDS if kind.tag == "lookups"]
    for kind in kinds:
        async with at_script(kind) as case:
            keys = case.arguments["keys"]
            await case.interrupt(to, keys=iter(keys))
            reports: list[Any] = []
            requests = case.requests
            await case.run(to, keys=iter(keys), on_progress=reports.append)
            assert resumed(reports) >= case.midway
            assert people_in(to) == case.people
            assert case.requests - requests < len(keys)


async def test_keys_that_cannot_be_read_leave_nothing(to: Path, tmp_path: Path) -> None:
    kind = next(kind for kind in KINDS if kind.tag == "lookups")

    def keys() -> Any:
        yield "1"
        raise ZeroDivisionError

    async with at_script(kind) as case:
        with pytest.raises(ZeroDivisionError):
            await case.run(to, keys=keys())
        assert names_in(tmp_path) == []
        # What was there stays there.
        await case.interrupt(to)
        left = workspaces_of(to)
        with pytest.raises(ZeroDivisionError):
            await case.run(to, keys=keys())
        assert workspaces_of(to) == left


# ---------------------------------------------------------------------------------------- the lock


async def test_another_plan_is_locked_out_while_one_runs(to: Path, case: Scripted) -> None:
    changes = case.kind.other_plans[0][0]
    async with case.session() as session:
        job = await case.hold_midway(session, to)
        with pytest.raises(ExportLocked, match="another export is working on this output"):
            await case.start(session, to, **changes)
        # The ones that only look do not get into its way.
        assert any(one.is_running for one in unfinished_at(folder_of(to)))
        assert [state.is_running for state in outputs_at(str(to), table=None, spool=None)] == [True]
        case.released.set()
        await job
    assert people_in(to) == case.people


def test_a_lock_is_one_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock.sqlite"
    assert not Lock.is_held(path)
    assert not path.exists()
    first = Lock.acquire(path)
    assert Lock.is_held(path)
    with pytest.raises(ExportLocked):
        Lock.acquire(path)
    first.remove()
    # Nobody is kept out by the file that is gone.
    second = Lock.acquire(path)
    first.release()
    assert Lock.is_held(path)
    with pytest.raises(ExportLocked):
        Lock.acquire(path)
    second.release()
    assert not Lock.is_held(path)
    assert names_in(tmp_path) == ["lock.sqlite"]


HOLD = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("begin immediate")
print("held", flush=True)
sys.stdin.read()
"""

REFUSED = """
import sys
from pathlib import Path
from altaprofiles import ExportLocked
from altaprofiles.export.store.lock import Lock
try:
    Lock.acquire(Path(sys.argv[1]))
except ExportLocked as error:
    print(error)
"""


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="Linux says who has a lock")
def test_a_lock_of_another_process_names_it_or_says_that_it_is_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "lock.sqlite"
    python = [sys.executable, "-c"]
    held = f"another export is working on this output: {path} is in use by "
    holder = subprocess.Popen(
        [*python, HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(ExportLocked) as caught:
            Lock.acquire(path)
        assert str(caught.value).startswith(f"{held}the process {holder.pid}; wait for it, stop")
        done = run_apart([*python, REFUSED, path])
        holder.communicate("")
    words = "a process that cannot be seen from here, such as one in another container, or on "
    assert done.stdout.startswith(f"{held}{words}"), done
    Lock.acquire(path).release()


WRITTEN_TO_BESIDE = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[2], isolation_level=None)
db.execute("begin immediate")
"""


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="Linux says who has a lock")
def test_a_lock_of_a_file_of_the_same_number_on_another_disk_is_not_meant(tmp_path: Path) -> None:
    disks = [tmp_path / "first", tmp_path / "second"]
    lock, other = (disk / "lock.sqlite" for disk in disks)
    python = [sys.executable, "-c"]
    with ExitStack() as stack:
        for disk in disks:
            disk.mkdir()
            stack.enter_context(mounted("-t", "tmpfs", "tmpfs", at=disk))
        holder, writer = (
            stack.enter_context(
                subprocess.Popen(
                    [*python, HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
                )
            )
            for path in (lock, other)
        )
        for one in (holder, writer):
            assert one.stdout is not None
            assert one.stdout.readline() == "held\n"
        assert lock.stat().st_ino == other.stat().st_ino
        with pytest.raises(ExportLocked, match=f"in use by the process {holder.pid}; "):
            Lock.acquire(lock)
        writer.communicate("")
        # Only the process that asks can be seen there, which has the other file.
        apart = run_apart([*python, f"{WRITTEN_TO_BESIDE}{REFUSED}", lock, other])
        assert "in use by a process that cannot be seen from here" in apart.stdout, apart


def test_what_is_no_lock_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "p.ndjson.export"
    folder.mkdir()
    folder.joinpath("lock.sqlite").write_bytes(b"mine" * 1000)
    with pytest.raises(ExportError, match="not the lock of an export; remove it"):
        Workspaces.open(folder, resume=True)
    assert folder.joinpath("lock.sqlite").read_bytes() == b"mine" * 1000


async def test_two_tables_of_one_file_are_gathered_side_by_side(tmp_path: Path) -> None:
    to = tmp_path / "crm.duckdb"
    tables = [None, "buyers", "Viewers", "a b", "a_b"]
    async with at_script(EVENTS) as case, case.session() as session:
        case.released.clear()
        jobs = [asyncio.ensure_future(case.start(session, to, table=table)) for table in tables]
        while len(list(tmp_path.glob("crm.duckdb*.export/*-*"))) < len(tables):
            await asyncio.sleep(0.01)
        with pytest.raises(ExportLocked):
            await case.start(session, to, table="VIEWERS")
        with pytest.raises(ExportLocked):
            await case.start(session, to, table="profiles")
        case.released.set()
        reports = await asyncio.gather(*jobs)
    assert len({report.manifest for report in reports}) == len(tables)
    states = outputs_at(str(to), table=None, spool=None)
    assert sorted(state.table or "" for state in states) == ["", "Viewers", "a b", "a_b", "buyers"]
    assert [len(outputs_at(str(to), table=name, spool=None)) for name in ("viewers", "x")] == [1, 0]


@pytest.mark.parametrize("way", [str, Path, "in a spool", "a folder of files", "relative"])
async def test_those_of_an_output_by_its_name(
    way: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    to, spool = tmp_path / "p.ndjson", None
    text: Any = way(to) if callable(way) else str(to)
    if way == "in a spool":
        (spool := tmp_path / "spool").mkdir()
    elif way == "a folder of files":
        text = f"{tmp_path}/people/"
    elif way == "relative":
        text = "p.ndjson"
    assert unfinished_in(text) == []
    async with at_script(EVENTS) as case:
        await case.interrupt(text, spool=spool)
        assert len(unfinished_in(text)) == (spool is None)
        [one] = unfinished_in(text, spool=spool)
        async with case.session() as session:
            await session.finish_unfinished(one, to=text, spool=spool)
    assert unfinished_in(text, spool=spool) == []


async def test_those_of_the_tables_of_a_file(tmp_path: Path) -> None:
    to = tmp_path / "crm.duckdb"
    async with at_script(EVENTS) as case:
        for table in (None, "buyers"):
            await case.interrupt(to, table=table)
    assert len(unfinished_in(to)) == 2
    [one] = unfinished_in(to, table="buyers")
    assert one.arguments["table"] == "buyers"


@pytest.mark.parametrize("to", [7, None, b"p.ndjson", "", "a\0b", ["p.ndjson"]], ids=repr)
def test_what_is_no_output_has_none(to: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"^to: "):
        unfinished_in(to)
    if not isinstance(to, str | None):
        with pytest.raises(InvalidArgument, match=r"^table: "):
            unfinished_in("p.ndjson", table=to)
    if to is not None:
        with pytest.raises(InvalidArgument, match=r"^spool: "):
            unfinished_in("p.ndjson", spool=to)


def test_the_folder_of_an_output_is_none(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"pass the output itself, '.*/p.ndjson'$"):
        unfinished_in(folder_of(tmp_path / "p.ndjson"))


# ------------------------------------------------------------------------- of an earlier version


@pytest.mark.parametrize("sample", ["events", "keys"])
async def test_one_of_an_earlier_version_does_not_block_another(
    tmp_path: Path, service: Service, sample: str
) -> None:
    to = tmp_path / "p.ndjson"
    whole = tmp_path / "whole.ndjson"
    await service.start(sample, whole)
    service.bring(SAMPLES / "version-1" / sample, to)
    [earlier] = unfinished_at(folder_of(to))
    assert earlier.path == folder_of(to)
    assert earlier.items
    report = await service.start("keys" if sample == "events" else "events", to)
    assert any("unfinished" in text for text in report.warnings)
    [moved] = unfinished_at(folder_of(to))
    assert moved.path == workspace_of(to)
    assert (moved.items, moved.plan) == (earlier.items, earlier.plan)
    service.requests.clear()
    report = await service.start(sample, to)
    assert to.read_bytes() == whole.read_bytes()
    assert len(service.requests) < 28 if sample == "events" else 140
    assert not folder_of(to).exists()


async def test_one_of_an_earlier_version_is_finished_by_its_own_call_only(
    tmp_path: Path, service: Service
) -> None:
    # Its journal names neither the table nor the flattened keys.
    to = tmp_path / "p.duckdb"
    service.bring(SAMPLES / "version-1" / "events", to)
    await service.start("keys", to)
    [one] = unfinished_at(folder_of(to))
    account = CleverTap(account_id="TEST", passcode="PASS", base_url=service.url)
    async with Session(clevertap=account) as session:
        with pytest.raises(ConfigurationError, match="run the export that began it again"):
            await session.finish_unfinished(one, to=to)
    assert (await service.start("events", to)).complete


async def test_rows_of_an_earlier_version_s_export_are_of_when_it_was_begun(
    tmp_path: Path, service: Service
) -> None:
    to = tmp_path / "p.parquet"
    folder = service.bring(SAMPLES / "version-1" / "events", to)
    begun = time.time() - 7 * 86_400
    for path in folder.iterdir():
        os.utime(path, (begun, begun))
    [one] = unfinished_at(folder)
    assert one.age == "7 days ago"
    report = await service.start("events", to)
    assert any("the export was begun at" in sentence for sentence in report.warnings)
    times = pyarrow.parquet.read_table(to)["fetched_at"].to_pylist()
    assert {abs(at.timestamp() - begun) < 1 for at in times} == {True}


@pytest.mark.parametrize("sample", ["events", "keys"])
async def test_a_half_done_move_is_finished(tmp_path: Path, service: Service, sample: str) -> None:
    whole = tmp_path / "whole.ndjson"
    await service.start(sample, whole)
    source = SAMPLES / "version-1" / sample
    spools = sorted(path.name for path in source.glob("*.spool.ndjson"))
    for moved in range(len(spools) + 1):
        to = tmp_path / f"{moved}.ndjson"
        folder = service.bring(source, to)
        [one] = unfinished_at(folder)
        assert one.plan is not None
        assert one.plan.name is not None
        (folder / one.plan.name).mkdir()
        for name in spools[:moved]:
            (folder / name).rename(folder / one.plan.name / name)
        service.requests.clear()
        await service.start(sample, to)
        assert to.read_bytes() == whole.read_bytes()
        assert len(service.requests) < 28 if sample == "events" else 140
        assert not folder.exists()


async def test_an_earlier_version_in_use_locks_the_output(to: Path, service: Service) -> None:
    folder = service.bring(SAMPLES / "version-1" / "events", to)
    db = sqlite3.connect(folder / "journal.sqlite", isolation_level=None)
    db.execute("pragma locking_mode = exclusive")
    db.execute("begin exclusive")
    try:
        [one] = unfinished_at(folder)
        assert one.is_running
        before = names_in(folder)
        with pytest.raises(ExportLocked):
            await service.start("keys", to)
        assert [name for name in names_in(folder) if name != "lock.sqlite"] == before
    finally:
        db.close()
    assert (await service.start("events", to)).complete


# ------------------------------------------------------------------------------- finished by others


async def test_finished_without_its_arguments(to: Path, tmp_path: Path, case: Scripted) -> None:
    to = tmp_path / "p.csv"
    options: dict[str, Any] = {"bom": True}
    if case.kind.flattens:
        options["flatten"] = {"padding": "text"}
    if case.kind is EVENTS:
        options["distinct"] = False
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    await case.run(elsewhere / "p.csv", **options)
    requests = case.requests
    await case.interrupt(to, **options)
    [one] = unfinished_at(folder_of(to))
    report = await finish(case, one, to)
    assert report.complete
    # One begun at another moment, which both tables hold.
    assert len(to.read_bytes().splitlines()) == len((elsewhere / "p.csv").read_bytes().splitlines())
    assert to.read_bytes()[:200] == (elsewhere / "p.csv").read_bytes()[:200]
    assert case.requests - requests <= requests + case.kind.ahead
    assert not folder_of(to).exists()
    if case.kind.tag == "lookups":
        with pytest.raises(ExportError, match="another run has finished this lookup"):
            await finish(case, one, to)


async def test_it_belongs_to_its_account(to: Path, case: Scripted) -> None:
    await case.interrupt(to)
    [one] = unfinished_at(folder_of(to))
    async with case.session(**{case.kind.account: "OTHER"}) as session:
        with pytest.raises(ConfigurationError, match="is an export of the account"):
            await session.finish_unfinished(one, to=to)
    assert (await finish(case, one, to)).complete


@pytest.mark.parametrize("kind", [JOINED, replace(KEYS, answer=BINDINGS.answer)], ids=str)
async def test_a_joined_one_needs_both_services(to: Path, tmp_path: Path, kind: Kind) -> None:
    async with at_script(kind) as case:
        whole = tmp_path / "whole.ndjson"
        report = await case.run(whole, with_cdp=True)
        assert report.matched > 0
        requests = case.requests
        await case.interrupt(to, with_cdp=True)
        [one] = unfinished_at(folder_of(to))
        assert one.subject.endswith(", joined with CDP users by identity")
        assert one.joins > 0
        assert f"{one.joined:,} of {one.joins:,} CDP lookup" in one.progress
        clevertap = CleverTap("TEST", "PASS", base_url=case.environment["CLEVERTAP_BASE_URL"])
        async with Session(clevertap=clevertap) as session:
            with pytest.raises(ConfigurationError, match=r"joined with CDP users, and .* no Alta"):
                await session.finish_unfinished(one, to=to)
        async with case.session(ALTA_TOKEN="app-OTHER") as session:
            with pytest.raises(ConfigurationError, match="is an export of the account"):
                await session.finish_unfinished(one, to=to)
        finished = await finish(case, one, to)
        assert finished.complete
        assert (finished.matched, finished.unmatched) == (report.matched, report.unmatched)
        assert to.read_bytes() == whole.read_bytes()
        assert case.requests - requests <= requests + kind.ahead + BINDINGS.ahead
        assert not folder_of(to).exists()


def test_outputs_are_those_of_the_library(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    (tmp_path / "web.manifest.json").write_text('{"name":"an app"}')
    (tmp_path / "broken.manifest.json").write_text("{")
    (tmp_path / "data.export").mkdir()
    (tmp_path / "data.export" / "mine.txt").write_text("mine")
    assert outputs_in(tmp_path) == []
    assert names_in(tmp_path / "data.export") == ["mine.txt"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can")
@pytest.mark.parametrize("planted", ["folder", "lock", "journal"])
def test_what_another_user_has_planted_is_not_opened(tmp_path: Path, planted: str) -> None:
    folder = tmp_path / "p.csv.export"
    workspace = folder / "events-0123456789abcdef-1"
    workspace.mkdir(parents=True)
    mine = tmp_path / "mine.sqlite"
    mine.write_bytes(b"mine")
    link = {"lock": folder / "lock.sqlite", "journal": workspace / "journal.sqlite"}.get(planted)
    if link is None:
        os.chown(folder, 65534, -1)
        (workspace / "journal.sqlite").touch()
    else:
        link.symlink_to(mine)
    [state] = outputs_in(tmp_path)
    [one] = state.unfinished
    assert one.fault is not None
    assert "remove it" in one.fault
    assert mine.read_bytes() == b"mine"
    assert sorted(names_in(tmp_path)) == ["mine.sqlite", "p.csv.export"]


async def test_one_of_another_output_is_refused(to: Path) -> None:
    async with at_script(EVENTS) as case:
        await case.interrupt(to)
        [one] = unfinished_in(to)
        (spool := to.parent / "spool").mkdir()
        async with case.session() as session:
            other = to.with_name("q.ndjson")
            with pytest.raises(InvalidArgument, match=r"^to: the unfinished export is in .*p\.ndj"):
                await session.finish_unfinished(one, to=other)
            with pytest.raises(InvalidArgument, match="the `spool` with which it was found"):
                await session.finish_unfinished(one, to=to, spool=spool)
        assert sorted(names_in(to.parent)) == ["p.ndjson.export", "spool"]
        assert unfinished_in(to) == [one]


@pytest.mark.parametrize("wrong", ["x", None, Path("p.csv.export"), []])
async def test_what_is_not_an_unfinished_export_is_refused(wrong: Any) -> None:
    credentials = CleverTap("id", "passcode", base_url="http://127.0.0.1:9")
    async with Session(clevertap=credentials) as session:
        with pytest.raises(InvalidArgument, match=r"^unfinished: .*unfinished_in") as caught:
            await session.finish_unfinished(wrong, to="p.csv")
        assert caught.value.value == wrong
