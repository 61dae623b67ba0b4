"""The contract of a job, for every kind of it: over real sockets and real files."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import itertools
import json
import logging
import os
import pickle
import re
import shutil
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import pytest

from altaprofiles import (
    ConfigurationError,
    ExportError,
    ExportLocked,
    Incomplete,
    InvalidArgument,
    NotReady,
    PlanMismatch,
    Unauthorized,
)
from altaprofiles.emulator import Emulator
from altaprofiles.export.report import ExportProgress, Progress

from ..support.jobs import (
    KINDS,
    Emulated,
    Halt,
    Kind,
    Scripted,
    at_emulator,
    at_script,
    folder_of,
    in_turn,
    names_in,
    people_in,
    received,
    resumed,
    spools_of,
    workspace_of,
    workspaces_of,
)
from ..support.servers import http
from ..support.sessions import session_for
from ..support.tasks import end_midway, nothing_left_behind
from ..support.thorough import THOROUGH, rotating

pytestmark = [pytest.mark.anyio, pytest.mark.each_value]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    given = [mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")]
    if "kind" in metafunc.fixturenames and not any("kind" in names for names in given):
        metafunc.parametrize("kind", kinds_for(metafunc.function), ids=str)


def kinds_for(test: Callable[..., object]) -> list[Kind]:
    """Return all kinds, or in a usual run one that walks chains and one that asks for keys."""
    if THOROUGH:
        return KINDS
    length = len(test.__name__)
    return [KINDS[0::3][length % 2], KINDS[1:3][length // 2 % 2]]


@pytest.fixture
async def case(kind: Kind) -> AsyncIterator[Scripted]:
    async with at_script(kind) as case:
        yield case


@pytest.fixture
async def emulated(kind: Kind) -> AsyncIterator[Emulated]:
    async with at_emulator(kind) as case:
        yield case


@pytest.fixture
def to(tmp_path: Path) -> Path:
    return tmp_path / "p.ndjson"


each_stage = pytest.mark.parametrize(
    ("kind", "stage"), [(kind, stage) for kind in KINDS for stage in kind.stages], ids=str
)


each_way = pytest.mark.parametrize("way", ["task", "scope", "timeout"])


class Name(str):
    """Text that is not quite a `str`, as NumPy's is."""

    __slots__ = ()

    def __str__(self) -> str:
        return "not its value"


# ----------------------------------------------------------------------------------- what comes out


async def test_days_to_come_are_said_before_anything_is_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with Emulator(people=20) as emulator, session_for(emulator) as session:
        for end in (99991231, 20260131, None):
            caplog.clear()
            meanwhile: list[str] = []

            def watch(progress: ExportProgress, meanwhile: list[str] = meanwhile) -> None:
                if not progress.complete:
                    meanwhile[:] = caplog.messages

            report = await session.export(
                "Charged" if end else None,
                start=20260101 if end else None,
                end=end,
                to=tmp_path / f"{end}.ndjson",
                on_progress=watch,
            )
            for texts in (report.warnings, meanwhile):
                found = [text for text in texts if "the last day, 9999-12-31, is in the" in text]
                assert len(found) == (end == 99991231)


@pytest.mark.parametrize("start", [20990201, 4_073_587_200])
async def test_days_that_are_all_to_come_are_refused(tmp_path: Path, start: int) -> None:
    """An output of another month would be replaced by an empty one."""
    to = tmp_path / "p.ndjson"
    to.write_text("kept")
    async with Emulator(people=20) as emulator, session_for(emulator) as session:
        with pytest.raises(
            InvalidArgument, match=r"start: 2099-02-01 is in the future, as it is .* UTC\+14:00; "
        ):
            await session.export("Charged", start=start, end=start + 10, to=to)
        assert not any(emulator.stats.requests.values())
    assert [path.name for path in tmp_path.iterdir()] == ["p.ndjson"]
    assert to.read_text() == "kept"


async def test_output_report_and_manifest(to: Path, tmp_path: Path, case: Scripted) -> None:
    report = await case.run(to)
    assert people_in(to) == case.people
    assert report.requests == case.requests
    data = to.read_bytes()
    assert report.output == str(to)
    assert report.manifest == str(tmp_path / "p.ndjson.manifest.json")
    assert report.format == "ndjson"
    assert report.complete
    assert report.retries == 0
    assert report.seconds > 0
    assert report.bytes == len(data)
    assert report.sha256 == hashlib.sha256(data).hexdigest()
    assert report.mended == 0
    assert pickle.loads(pickle.dumps(report)) == report  # noqa: S301
    manifest = json.loads(Path(str(report.manifest)).read_bytes())
    assert {name: manifest[name] for name in ("format", "complete", "bytes", "sha256")} == {
        "format": "ndjson",
        "complete": True,
        "bytes": len(data),
        "sha256": report.sha256,
    }
    assert [*manifest][:4] == ["output", "manifest", "format", "complete"]
    assert [*manifest][-4:] == ["plan", "options", "written", "altaprofiles"]
    assert [*manifest].index("requests") > [*manifest].index(case.kind.result)
    assert manifest["plan"]["kind"] == case.kind.tag
    assert names_in(tmp_path) == case.kind.files("p.ndjson")


@in_turn("name", ["people.ndjson", "people.csv.gz", "people.parquet"])
async def test_two_runs_are_the_same_whatever_goes_wrong(
    tmp_path: Path, kind: Kind, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Tables hold the moment at which the export was begun.
    monkeypatch.setattr(time, "time_ns", lambda: 1_767_225_600_123_456_789)
    faults = {"server_error": 0.1, "truncated": 0.1, "disconnect": 0.1, "empty_page": 0.3}
    one, other = tmp_path / f"one-{name}", tmp_path / f"other-{name}"
    async with at_emulator(kind) as calm, at_emulator(kind, faults=faults) as wild:
        assert (await calm.run(one)).retries == 0
        assert (await wild.run(other)).retries > 0
    assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize(("name", "read"), [("a.ndjson", bytes), ("a.ndjson.gz", gzip.decompress)])
async def test_nobody_makes_an_empty_file(
    tmp_path: Path, kind: Kind, name: str, read: Callable[[bytes], bytes]
) -> None:
    to = tmp_path / name
    async with at_emulator(kind, people=0) as case:
        report = await case.run(to)
    assert report.complete
    assert read(to.read_bytes()) == b""


async def test_progress(to: Path, emulated: Emulated) -> None:
    reports: list[Progress] = []
    await emulated.run(to, on_progress=reports.append)
    stages = [stage for stage, _ in itertools.groupby(progress.stage for progress in reports)]
    assert tuple(stages) == emulated.kind.stages
    for name in ("requests", "retries", "seconds", "finished"):
        values = [getattr(progress, name) for progress in reports]
        assert values == sorted(values), name
    assert [*map(received, reports)] == sorted(map(received, reports))
    for stage in stages:
        done = [progress.done for progress in reports if progress.stage == stage]
        assert done == sorted(done)
    assert received(reports[0]) == 0
    assert received(reports[-1]) == emulated.items
    assert reports[-1].done == reports[-1].goal == reports[-1].finished
    slots = emulated.kind.slots
    assert all(progress.resumed == 0 and progress.slots == slots for progress in reports)
    assert all(0 <= progress.in_flight <= slots for progress in reports)


async def test_progress_is_reported_while_nothing_arrives(to: Path, case: Scripted) -> None:
    reports: list[Progress] = []

    def on_progress(progress: Progress) -> None:
        reports.append(progress)
        # The report before the first request has none in flight, and no answer brings another.
        if progress.in_flight:
            raise Halt

    case.released.clear()
    with anyio.fail_after(60), pytest.raises(Halt):
        await case.run(to, on_progress=on_progress)
    assert reports[-1].fetching
    assert reports[-1].requests > 0
    assert received(reports[-1]) == 0
    assert reports[-1].pace == 0


async def test_an_existing_output_is_there_until_the_end(to: Path, emulated: Emulated) -> None:
    old = b"last week's\n"
    to.write_bytes(old)
    seen: list[bytes] = []
    await emulated.run(to, on_progress=lambda _: seen.append(to.read_bytes()))
    assert people_in(to) == emulated.people
    # Some time may pass between the replacement and the end, with a report in it.
    assert [content for content, _ in itertools.groupby(seen)] in ([old], [old, to.read_bytes()])


@pytest.mark.parametrize(
    ("name", "changes", "options"),
    [
        ("p.ndjson", {}, {"table": None, "bom": False, "flatten": [], "write": "replace"}),
        (
            "p.csv",
            {"bom": True, "flatten": ("City", "Plan")},
            {"table": None, "bom": True, "flatten": ["City", "Plan"], "write": "replace"},
        ),
        (
            "p.duckdb",
            {"flatten": [Name("City")], "table": Name("folk")},
            {"table": "folk", "bom": False, "flatten": ["City"], "write": "upsert"},
        ),
    ],
)
async def test_the_manifest_names_the_options(
    tmp_path: Path, case: Scripted, name: str, changes: dict[str, Any], options: dict[str, Any]
) -> None:
    if not case.kind.flattens and "flatten" in changes:
        changes = {**changes, "flatten": []}
        options = {**options, "flatten": []}
    report = await case.run(tmp_path / name, **changes)
    manifest = json.loads(Path(str(report.manifest)).read_bytes())
    assert manifest["options"] == {**case.kind.options, **options}


@in_turn("name", ["p.parquet", "p.duckdb", "p.csv"])
async def test_a_misspelt_property_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: Kind, name: str
) -> None:
    if not kind.flattens:
        pytest.skip("no properties")
    async with at_emulator(kind, people=100) as case:
        key = next(iter(case.emulator.population.record(0)["profileData"]))
        with caplog.at_level(logging.WARNING, "altaprofiles"):
            await case.run(tmp_path / name, flatten=[key, "Cittty"])
    assert len(caplog.messages) == 1
    assert "'Cittty'" in caplog.messages[0]


# ---------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"resume": None}, "resume"),
        ({"resume": 1}, "resume"),
        ({"bom": True}, "bom"),
        ({"table": "people"}, "table"),
        ({"flatten": ["City"]}, "flatten"),
        ({"format": "xlsx"}, "format"),
        ({"to": "people"}, "to"),
        ({"to": ""}, "to"),
        ({"to": "people.ndjson.bz2"}, "to"),
        ({"to": "missing/people.ndjson"}, "to"),
        ({"to": "."}, "to"),
        ({"to": 3}, "to"),
        ({"to": "s3://bucket/people.ndjson"}, "to"),
        # The name caf\xe9 in Latin-1, as Python sees it; and a name that no file can have.
        ({"to": "caf\udce9.duckdb"}, "to"),
        ({"to": "caf\ud800.ndjson"}, "to"),
        ({"spool": "missing/spool"}, "spool"),
        ({"spool": "a-file"}, "spool"),
        ({"spool": 3}, "spool"),
        ({"spool": ""}, "spool"),
        ({"on_progress": "report"}, "on_progress"),
        ({"on_progress": 3}, "on_progress"),
    ],
)
async def test_bad_input_is_refused_before_anything_is_sent(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    case: Scripted,
    changes: dict[str, Any],
    name: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    tmp_path.joinpath("a-file").touch()
    with pytest.raises(ConfigurationError, match=f"^{name}\\b"):
        await case.run(**{"to": "people.ndjson", **changes})
    assert case.requests == 0
    assert names_in(tmp_path) == ["a-file"]


async def test_an_async_on_progress_is_refused(tmp_path: Path, case: Scripted) -> None:
    async def on_progress(progress: Progress) -> None: ...

    with pytest.raises(ConfigurationError, match="on_progress: expected a plain function"):
        await case.run(tmp_path / "p.ndjson", on_progress=on_progress)
    assert case.requests == 0
    assert names_in(tmp_path) == []


async def test_a_session_that_is_not_open(tmp_path: Path, case: Scripted) -> None:
    with pytest.raises(ConfigurationError, match="not open yet"):
        await case.start(case.session(), tmp_path / "p.ndjson")
    assert names_in(tmp_path) == []


async def test_wrong_credentials(tmp_path: Path, emulated: Emulated) -> None:
    async with emulated.session(**{emulated.kind.secret: "WRONG"}) as session:
        with pytest.raises(Unauthorized) as caught:
            await emulated.start(session, tmp_path / "p.ndjson")
    assert "WRONG" not in repr(caught.value) + str(caught.value)
    assert names_in(tmp_path) == []


@pytest.mark.parametrize(
    ("make", "words"), [(os.mkfifo, "is not a regular file"), (os.mkdir, "is a folder")]
)
async def test_no_regular_file(
    to: Path, tmp_path: Path, case: Scripted, make: Callable[[Path], None], words: str
) -> None:
    make(to)
    mode = to.lstat().st_mode
    with pytest.raises(ConfigurationError, match=f"^to: .* {words}"):
        await case.run(to)
    assert case.requests == 0
    assert names_in(tmp_path) == ["p.ndjson"]
    assert to.lstat().st_mode == mode


@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, name) for kind in KINDS for name in kind.files("p.ndjson") if name != "p.ndjson"],
    ids=str,
)
async def test_a_folder_where_a_file_is_to_be(tmp_path: Path, case: Scripted, name: str) -> None:
    tmp_path.joinpath(name).mkdir()
    with pytest.raises(ExportError, match=f"{name} cannot be written: a folder has that name"):
        await case.run(tmp_path / "p.ndjson")
    assert case.requests == 0
    assert names_in(tmp_path) == [name]


# -------------------------------------------------------------------------- interrupted and resumed


async def test_the_same_call_resumes_and_sends_no_answered_request_again(
    to: Path, case: Scripted
) -> None:
    reports: list[Progress] = []
    uninterrupted = await case.uninterrupted(to)
    needed = case.requests
    case.received.clear()
    await case.interrupt(to)
    assert not to.exists()
    report = await case.run(to, on_progress=reports.append)
    assert to.read_bytes() == uninterrupted
    fetching = [progress for progress in reports if progress.fetching]
    assert fetching[0].resumed == received(fetching[0]) >= case.midway
    assert len(case.repeated) <= case.kind.ahead
    assert max(case.received.values()) <= 2
    # Whatever the answers to these start is resumed.
    assert not any(line.startswith("POST") for line in case.repeated)
    assert needed <= report.requests <= needed + case.kind.ahead
    assert needed <= case.requests <= needed + case.kind.ahead


@each_way
async def test_cancelled_and_resumed(to: Path, case: Scripted, way: str) -> None:
    ending: list[Callable[[], object]] = []
    reports: list[Progress] = []

    def on_progress(progress: Progress) -> None:
        if received(progress) >= case.midway and case.released.is_set():
            case.released.clear()
            ending[0]()

    async with case.session() as session:
        uninterrupted = await case.uninterrupted(to)
        case.received.clear()
        async with nothing_left_behind():
            await end_midway(way, ending, lambda: case.start(session, to, on_progress=on_progress))
        assert not to.exists()
        case.released.set()
        # Nothing holds it any more, and it has all that it had received.
        await case.start(session, to, on_progress=reports.append)
        assert resumed(reports) >= case.midway
        assert len(case.repeated) <= case.kind.ahead
        assert to.read_bytes() == uninterrupted


async def test_an_exception_of_the_last_progress_report_loses_nothing(
    to: Path, case: Scripted
) -> None:
    reports: list[Progress] = []

    def on_progress(progress: Progress) -> None:
        reports.append(progress)
        if progress.complete:
            raise Halt

    with pytest.raises(Halt):
        await case.run(to, on_progress=on_progress)
    written, requests = to.read_bytes(), case.requests
    report = await case.run(to, on_progress=reports.append)
    assert [progress.complete for progress in reports].count(True) == 2
    assert report.complete
    assert report.requests == requests == case.requests
    assert to.read_bytes() == written
    assert not to.with_name(f"{to.name}.export").exists()


async def test_a_cancelled_call_says_what_is_kept(to: Path, case: Scripted) -> None:
    reached = asyncio.Event()

    def on_progress(progress: Progress) -> None:
        if received(progress) >= case.midway and case.released.is_set():
            case.released.clear()
            reached.set()

    async with case.session() as session:
        task = asyncio.ensure_future(case.start(session, to, on_progress=on_progress))
        await asyncio.wait_for(reached.wait(), 60)
        task.cancel("interrupted")
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        assert caught.value.args == ("interrupted",)
        assert task.cancelled()
        [note] = caught.value.__notes__
        kept = rf"^Stopped: \d+ {case.kind.unit} are in {re.escape(str(workspace_of(to)))}; "
        assert re.search(rf"{kept}run the same {case.kind.noun} again to resume it\.$", note)
        # Nothing of a call that is cancelled at once is kept.
        other = to.with_name(f"other-{to.name}")
        task = asyncio.ensure_future(case.start(session, other))
        asyncio.get_running_loop().call_soon(task.cancel)
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        assert not hasattr(caught.value, "__notes__")
    case.released.set()


@each_way
@pytest.mark.usefixtures("small_turns")
async def test_cancelled_while_it_finishes(to: Path, tmp_path: Path, kind: Kind, way: str) -> None:
    ending: list[Callable[[], object]] = []
    reports: list[Progress] = []

    def on_progress(progress: Progress) -> None:
        # One that a second of waiting brings says nothing new.
        is_new = not reports or progress.done != reports[-1].done
        if progress.stage == "finishing" and is_new:
            reports.append(progress)
            if len(reports) == 2:
                ending[0]()

    # Enough for several batches.
    async with at_script(kind, padding=80_000) as case, case.session() as session:
        async with nothing_left_behind():
            await end_midway(way, ending, lambda: case.start(session, to, on_progress=on_progress))
        # A batch that was being written is reported before the cancellation arrives.
        assert len(reports) in (2, 3)
        assert reports[-1].goal is not None
        assert reports[-1].done < reports[-1].goal
        assert names_in(tmp_path) == ["p.ndjson.export"]
        current = asyncio.current_task()
        assert current is not None
        assert current.cancelling() == 0
        requests = case.requests
        report = await case.start(session, to)
        assert case.requests == requests
        assert people_in(to) == case.people
    assert report.complete
    assert report.sha256 == hashlib.sha256(to.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("turns", "kind"),
    rotating([(n,) for n in (*range(0, 120, 5), 250, 500, 1000, 2000, 4000)], KINDS),
    ids=str,
)
async def test_cancelled_at_any_turn_of_the_loop(to: Path, case: Scripted, turns: int) -> None:
    """As Ctrl-C and `asyncio.timeout` do it, even while a thread writes."""
    async with case.session() as session:
        uninterrupted = await case.uninterrupted(to, **case.kind.brief)
        task = asyncio.ensure_future(case.start(session, to, **case.kind.brief))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        # After thousands of turns it may be complete, which the next run replaces.
        with suppress(asyncio.CancelledError):
            await task
        # At once: no thread is at work any more, and nobody else holds it.
        report = await case.start(session, to, **case.kind.brief)
    assert report.sha256 == hashlib.sha256(to.read_bytes()).hexdigest()
    assert to.read_bytes() == uninterrupted


async def test_session_closed_on_the_way(to: Path, case: Scripted) -> None:
    uninterrupted = await case.uninterrupted(to)
    async with case.session() as session:
        job = await case.hold_midway(session, to)
    with pytest.raises(ConfigurationError, match="closed"):
        await job
    assert not to.exists()
    case.released.set()
    await case.run(to)
    assert to.read_bytes() == uninterrupted


@each_stage
@pytest.mark.parametrize("error", [BrokenPipeError, NotReady])
async def test_what_on_progress_raises_comes_out_as_it_is(
    to: Path, emulated: Emulated, stage: str, error: type[Exception]
) -> None:
    """Even if the library raises such errors itself. Nothing is reported after it."""
    mine = error("mine")
    matches: list[bool] = []

    def on_progress(progress: Progress) -> None:
        matches.append(progress.stage == stage and progress.done > 0)
        if matches[-1]:
            raise mine

    with pytest.raises(error) as caught:
        await emulated.run(to, on_progress=on_progress)
    assert caught.value is mine
    assert matches.index(True) == len(matches) - 1
    assert not to.exists()
    await emulated.run(to)
    assert people_in(to) == emulated.people


async def test_what_on_progress_raises_at_the_end_costs_no_request(
    to: Path, tmp_path: Path, emulated: Emulated
) -> None:
    def on_progress(progress: Progress) -> None:
        if progress.stage == "finishing":
            raise Halt

    with pytest.raises(Halt):
        await emulated.run(to, on_progress=on_progress)
    assert names_in(tmp_path) == ["p.ndjson.export"]
    requests = emulated.requests
    await emulated.run(to)
    assert emulated.requests == requests
    assert people_in(to) == emulated.people


async def test_credentials_refused_on_the_way_keep_what_there_is(to: Path, case: Scripted) -> None:
    refusal = http(b'{"status":"fail","error":"no","code":401}', "401 Unauthorized")
    reports: list[Progress] = []

    def on_progress(progress: Progress) -> None:
        if received(progress) >= case.midway:
            case.refusal = refusal

    uninterrupted = await case.uninterrupted(to)
    needed = case.requests
    # Once on the way, and then from the beginning.
    for _ in range(2):
        with pytest.raises(Unauthorized) as caught:
            await case.run(to, on_progress=on_progress)
        [note] = [note for note in caught.value.__notes__ if case.kind.unit in note]
        assert f"are in {workspace_of(to)}; run the same {case.kind.noun} again" in note
        assert not to.exists()
    case.refusal = None
    case.received.clear()
    await case.run(to, on_progress=reports.append)
    assert resumed(reports) >= case.midway
    assert case.requests < needed
    assert to.read_bytes() == uninterrupted


async def test_an_outage_leaves_it_incomplete_and_the_same_call_resumes(
    to: Path, tmp_path: Path, emulated: Emulated
) -> None:
    def on_progress(progress: Progress) -> None:
        if received(progress) >= emulated.midway:
            emulated.emulator.faults = {"server_error": 1.0}

    uninterrupted = await emulated.uninterrupted(to)
    with pytest.raises(Incomplete) as caught:
        await emulated.run(to, on_progress=on_progress)
    error = caught.value
    report: Any = error.report
    assert names_in(tmp_path) == ["p.ndjson.export", "uninterrupted"]
    assert not report.complete
    assert report.bytes is None
    assert report.sha256 is None
    assert report.manifest is None
    assert error.missing
    assert all(sentence in str(error) for sentence in error.missing)
    kept = f" {emulated.kind.unit} are in {workspace_of(to)}"
    assert f"{kept}; run the same {emulated.kind.noun} again" in str(error)
    again = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (again.args, again.missing, again.report) == (error.args, error.missing, report)
    emulated.emulator.faults = {}
    done = await emulated.run(to)
    assert to.read_bytes() == uninterrupted
    assert done.retries >= report.retries > 0
    assert done.requests > report.requests
    assert done.seconds >= report.seconds


# ------------------------------------------------------------------------- what an earlier run left


async def test_another_plan_runs_beside(to: Path, case: Scripted) -> None:
    uninterrupted = await case.uninterrupted(to)
    await case.interrupt(to)
    before = {path: path.read_bytes() for path in spools_of(to)}
    assert any(before.values())
    for changes, _ in case.kind.other_plans:
        report = await case.run(to, **changes)
        assert report.complete
        [warning] = [sentence for sentence in report.warnings if "unfinished" in sentence]
        assert f"altaprofiles status {to}" in warning
        assert {path: path.read_bytes() for path in spools_of(to)} == before
    reports: list[Progress] = []
    report = await case.run(to, on_progress=reports.append)
    assert resumed(reports) >= case.midway
    assert report.warnings == [text for text in report.warnings if "unfinished" not in text]
    assert to.read_bytes() == uninterrupted
    assert not folder_of(to).exists()


async def test_a_workspace_under_the_name_of_another_plan(
    to: Path, tmp_path: Path, case: Scripted
) -> None:
    """Somebody has renamed its folder."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    await case.interrupt(to)
    own = workspace = workspace_of(to)
    for number, (changes, differences) in enumerate(case.kind.other_plans):
        other = elsewhere / f"{number}.ndjson"
        await case.interrupt(other, **changes)
        workspace = workspace.rename(folder_of(to) / workspace_of(other).name)
        before = {path: path.read_bytes() for path in spools_of(to)}
        with pytest.raises(PlanMismatch) as caught:
            await case.run(to, **changes)
        error = caught.value
        assert error.differences == differences
        for name, (was, now) in error.differences.items():
            sentence = f"`{name}` was {was!r} and is now {now!r}"
            assert (sentence if name != "digest" else "the keys are different") in str(error)
        assert str(workspace) in str(error)
        assert "resume=False" in str(error)
        assert pickle.loads(pickle.dumps(error)).differences == error.differences  # noqa: S301
        assert {path: path.read_bytes() for path in spools_of(to)} == before
    workspace.rename(own)
    reports: list[Progress] = []
    await case.run(to, on_progress=reports.append)
    assert resumed(reports) >= case.midway
    assert people_in(to) == case.people


async def test_another_account_and_another_kind_run_beside(to: Path, case: Scripted) -> None:
    await case.interrupt(to)
    requests = case.requests
    async with case.session(**{case.kind.account: "OTHER"}) as session:
        report = await case.start(session, to)
    whole = case.requests - requests
    assert any("unfinished" in sentence for sentence in report.warnings)
    assert people_in(to) == case.people
    for other in KINDS:
        if other.tag != case.kind.tag:
            async with at_script(other) as service:
                report = await service.run(to)
            assert any("unfinished" in sentence for sentence in report.warnings)
            assert people_in(to) == service.people
    requests = case.requests
    reports: list[Progress] = []
    await case.run(to, on_progress=reports.append)
    assert resumed(reports) >= case.midway
    assert case.requests - requests < whole
    assert people_in(to) == case.people


async def test_resume_false_discards_what_is_its_own(to: Path, case: Scripted) -> None:
    changes = case.kind.other_plans[0][0]
    uninterrupted = await case.uninterrupted(to)
    await case.interrupt(to, **changes)
    other = workspace_of(to)
    await case.interrupt(to)
    reports: list[Progress] = []
    await case.run(to, resume=False, on_progress=reports.append)
    assert resumed(reports) == received(reports[0]) == 0
    assert to.read_bytes() == uninterrupted
    assert workspaces_of(to) == [other]
    reports.clear()
    await case.run(to, **changes, on_progress=reports.append)
    assert resumed(reports) >= case.midway
    assert not folder_of(to).exists()


async def test_locked_within_a_process(to: Path, case: Scripted) -> None:
    async with case.session() as session:
        job = await case.hold_midway(session, to)
        for _ in range(2):
            with pytest.raises(ExportLocked) as caught:
                await case.start(session, to)
            assert str(folder_of(to)) in str(caught.value)
        case.released.set()
        await job
        assert people_in(to) == case.people


SCRIPT = """if 1:
    import asyncio, json, sys
    from altaprofiles import ExportLocked, Session
    async def main():
        method, arguments = json.load(sys.stdin)
        async with Session.from_env() as session:
            try:
                await getattr(session, method)(**arguments)
            except ExportLocked:
                print("locked")
    asyncio.run(main())
    """


async def test_locked_across_processes(to: Path, emulated: Emulated) -> None:
    outputs: list[str] = []

    def on_progress(progress: Progress) -> None:
        if progress.stage == "finishing" and not outputs:
            # The event loop stands still meanwhile, and the first export in the middle of its end.
            other = subprocess.run(
                [sys.executable, "-c", SCRIPT],
                input=json.dumps([emulated.kind.method, {**emulated.arguments, "to": str(to)}]),
                env={**os.environ, **emulated.environment},
                capture_output=True,
                check=True,
                text=True,
            )
            outputs.append(other.stdout)

    await emulated.run(to, on_progress=on_progress)
    assert people_in(to) == emulated.people
    assert outputs == ["locked\n"]


def cut(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def garble(path: Path) -> None:
    path.write_bytes(os.urandom(path.stat().st_size))


def empty(path: Path) -> None:
    path.write_bytes(b"")


@in_turn("damage", [cut, garble, empty, Path.unlink])
async def test_damaged_journal(
    tmp_path: Path, case: Scripted, damage: Callable[[Path], None]
) -> None:
    to, copy = tmp_path / "p.ndjson", tmp_path / "copy"
    reports: list[Progress] = []
    await case.interrupt(to)
    workspace = workspace_of(to)
    journal = workspace / "journal.sqlite"
    shutil.copytree(workspace, copy)
    before = {path: path.read_bytes() for path in spools_of(to)}
    damage(journal)
    for _ in range(2):
        with pytest.raises(ExportError, match="journal") as caught:
            await case.run(to)
        assert type(caught.value) is ExportError
        assert str(workspace_of(to)) in str(caught.value)
        assert "resume=False" in str(caught.value)
        assert {path: path.read_bytes() for path in spools_of(to)} == before
    # As the message says: once restored, it is resumed.
    shutil.rmtree(workspace)
    shutil.copytree(copy, workspace)
    await case.run(to, on_progress=reports.append)
    assert resumed(reports) >= case.midway
    assert people_in(to) == case.people
    # Or it is discarded.
    shutil.copytree(copy, workspace)
    damage(journal)
    await case.run(to, resume=False)
    assert people_in(to) == case.people
    assert not workspace_of(to).exists()


async def test_a_spool_longer_than_its_journal_is_cut(to: Path, case: Scripted) -> None:
    await case.interrupt(to)
    for spool in spools_of(to):
        with spool.open("ab") as file:
            file.write(b'{"identity":"half a rec')
    await case.run(to)
    assert people_in(to) == case.people


async def test_spool_elsewhere(tmp_path: Path, case: Scripted) -> None:
    out, spool = tmp_path / "out", tmp_path / "spool"
    out.mkdir()
    spool.mkdir()
    to = out / "p.ndjson"
    await case.interrupt(to, spool=spool)
    assert names_in(out) == []
    assert names_in(spool) == ["p.ndjson.export"]
    assert list(spool.glob("p.ndjson.export/*/journal.sqlite"))
    await case.run(to, spool=spool)
    assert people_in(to) == case.people
    assert names_in(spool) == []
    assert names_in(out) == case.kind.files("p.ndjson")


@pytest.mark.parametrize("resume", [True, False])
async def test_files_of_the_users_own_in_the_spool_folder(
    to: Path, tmp_path: Path, case: Scripted, resume: bool
) -> None:
    """Whatever their names, they stay; and so does the output, which is among them."""
    for name in ("people.sqlite", "journal.sqlite"):
        db = sqlite3.connect(tmp_path / name)
        with db:
            db.execute("create table mine (x)")
            db.execute("insert into mine values (42)")
            db.execute("pragma user_version = 7")
        db.close()
    for name in (
        "chain-0000.spool.ndjson",
        "found.ndjson",
        "found.spool.ndjson",
        "mine.csv",
        "mine.ndjson",
        "over",
        "people.marks",
        "people.sqlite.backup",
    ):
        tmp_path.joinpath(name).write_bytes(b"mine")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for _ in range(2):
        await case.interrupt(to, spool=tmp_path, resume=resume)
        assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["p.ndjson.export"]
        await case.run(to, spool=tmp_path, resume=resume)
        assert people_in(to) == case.people
    assert {name: tmp_path.joinpath(name).read_bytes() for name in before} == before
    assert names_in(tmp_path) == sorted([*before, *case.kind.files("p.ndjson")])


# -------------------------------------------------------------------------------------- credentials


GREP = shutil.which("grep") or "/bin/grep"


async def test_no_credential_is_written_or_shown(to: Path, tmp_path: Path, kind: Kind) -> None:
    texts: list[str] = []
    found: list[bytes] = []
    async with at_emulator(kind, faults={"server_error": 0.1}) as case:
        secret = case.environment[kind.secret]

        def on_progress(progress: Progress) -> None:
            texts.append(repr(progress))
            # By another process: opening the journal in this one would give up its lock.
            grep = subprocess.run(
                [GREP, "-rlaF", secret, str(tmp_path)], capture_output=True, check=False
            )
            found.append(grep.stdout)
            if received(progress) >= case.midway:
                case.emulator.faults = {"server_error": 1.0}

        with pytest.raises(Incomplete) as caught:
            await case.run(to, on_progress=on_progress)
        assert set(found) == {b""}
        assert {"journal.sqlite", spools_of(to)[0].name} <= set(names_in(workspace_of(to)))
        assert not any(secret.encode() in p.read_bytes() for p in workspace_of(to).iterdir())
        texts += [repr(caught.value), str(caught.value), repr(caught.value.report)]
        texts.append(str(pickle.dumps(caught.value)))
        case.emulator.faults = {}
        report = await case.run(to)
        texts += [repr(report), str(pickle.dumps(report))]
    assert secret not in "".join(texts)
    assert not any(secret.encode() in path.read_bytes() for path in tmp_path.iterdir())


# -------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("dangling", [False, True])
async def test_a_link_is_followed(tmp_path: Path, case: Scripted, dangling: bool) -> None:
    link, disk = tmp_path / "link.ndjson", tmp_path / "disk"
    disk.mkdir()
    to = disk / "p.ndjson"
    if not dangling:
        to.write_bytes(b"last week's\n")
    link.symlink_to(to)
    report = await case.run(link)
    assert people_in(to) == case.people
    assert report.output == str(link)
    assert link.is_symlink()
    assert names_in(disk) == case.kind.files("p.ndjson")
    assert names_in(tmp_path) == ["disk", "link.ndjson"]


@in_turn("name", ["p.ndjson", "p.csv.gz", "p.parquet", "p.duckdb"])
async def test_permissions_stay(tmp_path: Path, case: Scripted, name: str) -> None:
    await case.run(tmp_path / name)
    modes = dict(zip(names_in(tmp_path), itertools.cycle([0o600, 0o604]), strict=False))
    for file, mode in modes.items():
        tmp_path.joinpath(file).chmod(mode)
    await case.run(tmp_path / name)
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == modes


@pytest.mark.parametrize("spool", [None, "spool"])
async def test_relative_paths_are_those_of_the_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: Scripted, spool: str | None
) -> None:
    here, elsewhere = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    elsewhere.mkdir()
    if spool is not None:
        here.joinpath(spool).mkdir()
    monkeypatch.chdir(here)
    report = await case.run("p.ndjson", spool=spool, on_progress=lambda _: os.chdir(elsewhere))
    assert people_in(here / "p.ndjson") == case.people
    assert report.complete
    assert names_in(elsewhere) == []
    assert names_in(here) == sorted([*case.kind.files("p.ndjson"), *([spool] if spool else [])])
    assert spool is None or names_in(here / spool) == []
