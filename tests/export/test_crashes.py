"""Exports in processes that are killed, and on full or read-only disks: nothing is lost.

Every process is a real one, which kills itself at a chosen step or is killed by the test, and talks
to an emulator in the test's process over real sockets. ALTAPROFILES_KILLS is the number of kills at
random moments.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from altaprofiles.emulator import Emulator
from altaprofiles.emulator.bindings import Bindings

from ..support.disks import filled, mounted
from ..support.exporting import Exporter, Job, Outcome, exporter
from ..support.jobs import folder_of, journal, workspace_of
from ..support.servers import Scripted, http, scripted
from ..support.thorough import THOROUGH, of_each_kind

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform == "win32", reason="forks, and kills with signals"),
]

KILLS = int(os.environ.get("ALTAPROFILES_KILLS", "60" if THOROUGH else "18"))

TROUBLE = {
    # Rare, because each of these lowers the number of requests in flight for a while.
    "throttled": 0.01,
    "too_many": 0.01,
    "server_error": 0.04,
    "html": 0.03,
    "empty": 0.03,
    "disconnect": 0.04,
    "reset": 0.04,
    "truncated": 0.04,
    "garbled": 0.04,
    "not_ready": 0.04,
    "gzip": 0.3,
    "empty_page": 0.2,
}

FORMATS = ["people.ndjson", "people.csv.gz", "people.parquet"]


class Export:
    """One export to one file, run over and over, and its expected results."""

    def __init__(self, processes: Exporter, job: Job) -> None:
        self.processes = processes
        self.job = job
        self.to = Path(job.arguments["to"])
        self.folder = folder_of(self.to)
        self.uninterrupted = b""
        self.steps: list[str] = []
        self.report: dict[str, Any] = {}

    @property
    def workspace(self) -> Path:
        """The only workspace of the output, or its folder if there is none."""
        return workspace_of(self.to)

    def job_with(self, **changes: Any) -> Job:
        return Job(**{name: getattr(self.job, name) for name in Job.__struct_fields__} | changes)

    async def run_through(self) -> None:
        """Run it without any interruption."""
        outcome = await self.processes.run(self.job_with(listed=True))
        self.uninterrupted = self.check_complete(outcome)
        self.steps = outcome.steps
        self.forget()

    def check_complete(self, outcome: Outcome) -> bytes:
        assert outcome.report is not None, outcome
        self.report = outcome.report
        written = self.to.read_bytes()
        digest = hashlib.sha256(written).hexdigest()
        assert self.report["complete"] is True
        assert self.report["sha256"] == digest
        assert self.report["bytes"] == len(written)
        manifest = json.loads(self.to.with_name(f"{self.to.name}.manifest.json").read_bytes())
        assert manifest["sha256"] == digest
        left = {path.name for path in self.to.parent.iterdir()}
        assert left <= {
            self.to.name,
            f"{self.to.name}.manifest.json",
            f"{self.to.name}.not-found.txt",
            f"{self.to.name}.failed.ndjson",
        }
        return written

    def check_same(self, outcome: Outcome) -> None:
        assert self.check_complete(outcome) == self.uninterrupted
        self.forget()

    def check_whole_or_absent(self) -> None:
        """Check that the output is complete or absent."""
        assert not self.to.exists() or self.to.read_bytes() == self.uninterrupted

    def forget(self) -> None:
        for path in self.to.parent.iterdir():
            path.unlink()

    def moments(
        self, *, each: bool = THOROUGH, half: int | None = None
    ) -> Iterator[tuple[int, str]]:
        numbers = range(len(self.steps))
        for number in numbers if each else of_each_kind(numbers, self.steps, half):
            step = self.steps[number]
            # The moment before any other step equals the moment after the preceding one.
            if "half" in step or "commit" in step:
                yield number, "before"
            if "half" in step:
                yield number, "half"
            yield number, "after"


@asynccontextmanager
async def exporting(
    folder: Path, arguments: dict[str, Any], emulator: Emulator, **options: Any
) -> AsyncIterator[Export]:
    """Yield an export that runs in its own processes, with its output in its own folder."""
    target = folder / "out"
    target.mkdir()
    arguments = {**arguments, "to": str(target / arguments["to"])}
    async with exporter(folder / "processes") as processes:
        job = Job(arguments=arguments, environment=emulator.environment, **options)
        export = Export(processes, job)
        await export.run_through()
        yield export


SMALL: dict[str, Any] = {
    "events": ["App Launched", "Charged"],
    "start": 20260101,
    "end": 20260110,
    "windows": 1,
    "batch_size": 46,
}


# ----------------------------------------------------------------------------- crashes at each step


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
async def test_what_must_survive_a_power_cut_is_synced_before_it_counts(
    tmp_path: Path, name: str
) -> None:
    """No test can cut the power, but the order of syncs can be checked, on which safety depends."""
    async with (
        Emulator(people=80, seed=3) as emulator,
        exporting(tmp_path, {**SMALL, "to": name}, emulator) as export,
    ):
        steps = [step.partition(" (")[0] for step in export.steps]
        for number, step in enumerate(steps):
            if step == "os.write":
                assert steps[number + 1 : number + 3] == ["os.fdatasync", "sqlite3 commit"]
            if step == "file.write" and steps[number + 1] != "file.write":
                assert steps[number + 1 : number + 4] == ["os.fsync", "os.replace", "os.fsync"]
        first_page = steps.index("os.write")
        # At least the folder, and the files in it.
        assert steps[:first_page].count("os.fsync") >= 3
        placed = max(number for number, step in enumerate(steps) if step == "os.replace")
        gone = [number for number, step in enumerate(steps) if step in ("os.unlink", "os.rmdir")]
        # The workspace is deleted last.
        assert not any(first_page < number < placed for number in gone)
        assert len([number for number in gone if number > placed]) >= 4
        assert steps[-1] == "os.fsync"


@pytest.mark.parametrize("arguments", [SMALL, {"keys": ["1", "2"], "by": "identity"}], ids=str)
async def test_the_folder_of_the_journal_is_synced_before_anything_is_requested(
    tmp_path: Path, arguments: dict[str, Any]
) -> None:
    async with (
        Emulator(people=80, seed=3) as emulator,
        exporting(tmp_path, {**arguments, "to": "people.ndjson"}, emulator) as export,
    ):
        begun = export.steps.index("os.fsync (of the workspace)")
        # Three commits make the journal and store the plan. The next one follows an answer.
        # Keys are read into a workspace that has been emptied, which takes two more.
        commits = export.steps[:begun].count("sqlite3 commit")
        assert commits == (4 if "keys" in arguments else 2)
        assert "sqlite3 script" in export.steps[:begun]
        assert not any("lost" in step for step in export.steps)


TRACED = """if 1:
    import asyncio, json, sys
    from altaprofiles import Session
    async def main():
        method, arguments = json.load(sys.stdin)
        async with Session.from_env() as session:
            await getattr(session, method)(**arguments)
    asyncio.run(main())
    """


@pytest.mark.slow
@pytest.mark.parametrize("method", ["export", "export_lookups"])
async def test_the_disk_has_each_thing_before_the_next_depends_on_it(
    tmp_path: Path, method: str
) -> None:
    """By the calls of the operating system, SQLite's own included."""
    calls = await traced(tmp_path, method)
    spool = next(path for _, path in calls if path.endswith(".spool.ndjson"))
    workspace = str(Path(spool).parent)
    wal = f"{workspace}/journal.sqlite-wal"
    first_request = next(n for n, (name, _) in enumerate(calls) if name == "connect")
    begun = [path for name, path in calls[:first_request] if name in ("fsync", "fdatasync")]
    assert begun[-1] == workspace
    assert wal in begun[-3:]
    assert {str(tmp_path), str(Path(workspace).parent)} <= {*begun}
    spools = commits = 0
    unsynced: set[str] = set()
    for name, path in calls:
        if name in ("fsync", "fdatasync"):
            unsynced.discard(path)
        elif path.endswith(".spool.ndjson"):
            assert unsynced <= {path}
            unsynced.add(path)
            spools += 1
        elif path == wal:
            assert unsynced <= {wal}
            commits += not unsynced
            unsynced.add(wal)
    assert spools >= 1
    assert commits > spools


async def traced(folder: Path, method: str) -> list[tuple[str, str]]:
    """Export in a process of its own, and return its calls that write, sync or connect."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("needs strace")
    trace = folder / "trace"
    calls = "trace=fsync,fdatasync,write,pwrite64,connect"
    async with Emulator(people=80, seed=3) as emulator:
        keys = {"keys": lookup_keys(emulator, 4), "by": "identity"}
        arguments = keys if method == "export_lookups" else SMALL
        process = await asyncio.create_subprocess_exec(
            *(strace, "-f", "-y", "-s", "0", "-e", calls, "-o", str(trace)),
            *(sys.executable, "-c", TRACED),
            env={**os.environ, **emulator.environment},
            stdin=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        given = json.dumps([method, {**arguments, "to": str(folder / "people.ndjson")}])
        _, errors = await process.communicate(given.encode())
    if b"ptrace" in errors:
        pytest.skip("no process can be traced here")
    assert process.returncode == 0, errors
    call = r"^\d+ +(\w+)\(\d+<(.*?)>(?:[,)]| <unfinished)"
    found = re.findall(call, trace.read_text(), re.MULTILINE)
    return [(name, path) for name, path in found if path.startswith(("/", "socket"))]


def last_commit(steps: list[str]) -> int:
    """Return the step at which all data is in spools and journal, and finishing starts."""
    spooled = max(n for n, step in enumerate(steps) if step == "os.fdatasync")
    return steps.index("sqlite3 commit", spooled)


PARTS = 4 if THOROUGH else 2
"""Number of tests that share all moments of one export: these are the longest tests there are."""

SOME = 4 if THOROUGH else 1
"""Number of tests that share those that are chosen."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "part", "parts"),
    [
        *((FORMATS[0], part, PARTS) for part in range(PARTS)),
        (FORMATS[1], 0, 1),
        (FORMATS[2], 0, 1),
    ],
)
async def test_killed_at_each_step(tmp_path: Path, name: str, part: int, parts: int) -> None:
    async with (
        Emulator(people=80, seed=3) as emulator,
        exporting(tmp_path, {**SMALL, "to": name}, emulator) as export,
    ):
        # There are steps of each kind: folder, spools, journal, output, manifest, cleaning up.
        kinds = Counter(step.partition(" (")[0] for step in export.steps)
        assert kinds["os.write"] >= 3
        assert kinds["os.fdatasync"] >= kinds["os.write"]
        assert kinds["sqlite3 commit"] >= 5
        assert kinds["file.write"] >= 2
        assert kinds["os.replace"] == 2
        assert kinds["os.fsync"] >= 7
        assert kinds["os.unlink"] >= 4
        assert kinds["os.mkdir"] == kinds["os.rmdir"] == 2
        finishing = last_commit(export.steps)
        placed = max(n for n, step in enumerate(export.steps) if step == "os.replace")
        moments = list(export.moments(each=True))
        if name != FORMATS[0]:
            # Up to this step, the format makes no difference.
            moments = [moment for moment in moments if finishing < moment[0] <= placed + 1]
            moments = moments if THOROUGH else moments[::2]
        moments = moments[part::parts]
        died = read_before = 0
        for number, when in moments:
            outcome = await export.processes.run(export.job_with(die=(number, when)))
            died += outcome.signal == signal.SIGKILL
            export.check_whole_or_absent()
            is_read = not export.to.exists() and all_read(export.workspace, chains=2)
            read_before += is_read
            asked = emulator.stats.requests
            outcome = await export.processes.run(export.job)
            try:
                export.check_same(outcome)
                if is_read:
                    assert emulator.stats.requests == asked
            except AssertionError as error:
                error.add_note(f"killed {when} step {number}: {export.steps[number]}")
                raise
        # A chain may or may not end with a page without people each time it is opened, so that
        # the last steps of the first run may be missing.
        assert died >= len(moments) - 12 // parts
        assert died >= (55 // PARTS if name == FORMATS[0] else 6)
        assert read_before >= (1 if name == FORMATS[0] else 3)


@pytest.mark.slow
@pytest.mark.parametrize("resume", [True, False])
async def test_killed_while_a_chain_becomes_the_output(tmp_path: Path, resume: bool) -> None:
    arguments = {**SMALL, "events": "App Launched", "batch_size": 23, "to": "people.ndjson"}
    async with (
        Emulator(people=80, seed=3) as emulator,
        exporting(tmp_path, arguments, emulator) as export,
    ):
        # No byte of the output is written twice.
        linked = export.steps.index("os.link")
        assert "file.write" not in export.steps[:linked]
        again = {**export.job.arguments, "resume": resume}
        for number in range(linked - 3, len(export.steps)):
            await export.processes.run(export.job_with(die=(number, "after")))
            export.check_whole_or_absent()
            outcome = await export.processes.run(export.job_with(arguments=again))
            try:
                export.check_same(outcome)
            except AssertionError as error:
                error.add_note(f"killed after step {number}: {export.steps[number]}")
                raise


@pytest.mark.slow
async def test_an_output_that_was_a_chain_stays_as_it_is_while_the_chain_is_read_anew(
    tmp_path: Path,
) -> None:
    arguments = {**SMALL, "events": "App Launched", "batch_size": 23, "to": "people.ndjson"}
    async with (
        Emulator(people=80, seed=3) as emulator,
        exporting(tmp_path, arguments, emulator) as export,
    ):
        # The first one is that of the output.
        await export.processes.run(export.job_with(die=(0, "after"), die_in="os.replace"))
        assert export.to.read_bytes() == export.uninterrupted
        # The chain and the output are one file now. A journal that knows nothing of its end makes
        # the next run read it anew.
        with closing(sqlite3.connect(export.workspace / "journal.sqlite")) as db, db:
            db.execute("update chains set cursor = null, pages = 0, records = 0, offset = 0")
            db.execute("delete from parts")
        await export.processes.run(export.job_with(die=(0, "after"), die_in="os.write"))
        assert export.to.read_bytes() == export.uninterrupted
        export.check_same(await export.processes.run(export.job))


@pytest.mark.slow
async def test_killed_twice(tmp_path: Path) -> None:
    chance = random.Random(5)  # noqa: S311
    async with (
        Emulator(people=80, seed=3) as emulator,
        exporting(tmp_path, {**SMALL, "to": "people.ndjson"}, emulator) as export,
    ):
        for number in range(0, len(export.steps), 2 if THOROUGH else 8):
            for die in ((number, "half"), (chance.randrange(len(export.steps)), "half")):
                await export.processes.run(export.job_with(die=die))
                export.check_whole_or_absent()
            export.check_same(await export.processes.run(export.job))


@pytest.mark.slow
async def test_what_is_there_stays_until_the_new_output_is_whole(tmp_path: Path) -> None:
    async with (
        Emulator(people=80, seed=3) as emulator,
        exporting(tmp_path, {**SMALL, "to": "people.ndjson"}, emulator) as export,
    ):
        placed = next(n for n, step in enumerate(export.steps) if step == "os.replace")
        for number in of_each_kind(range(placed - 12, placed + 1), export.steps):
            export.to.write_bytes(b"last week's\n")
            await export.processes.run(export.job_with(die=(number, "before")))
            # Some runs have fewer steps than the first, and have it in place by then.
            assert export.to.read_bytes() in (b"last week's\n", export.uninterrupted)
            export.check_same(await export.processes.run(export.job))
        for kind, when in (("file.write", "half"), ("os.replace", "before")):
            export.to.write_bytes(b"last week's\n")
            await export.processes.run(export.job_with(die=(0, when), die_in=kind))
            assert export.to.read_bytes() == b"last week's\n"
            export.check_same(await export.processes.run(export.job))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["events", "keys"])
async def test_rows_are_added_once_although_it_is_killed_at_a_step_of_its_end(
    tmp_path: Path, kind: str
) -> None:
    place = tmp_path / "place"
    to = place / "people"
    async with (
        Emulator(people=60, seed=3) as emulator,
        exporter(tmp_path / "processes") as processes,
    ):
        keys = {"keys": lookup_keys(emulator, 8), "by": "identity"}
        arguments = keys if kind == "keys" else {**SMALL, "events": "Charged"}
        job = Job(
            arguments={**arguments, "to": f"{to}/", "write": "append"},
            environment=emulator.environment,
        )
        place.mkdir()
        outcome = await processes.run(job.but(listed=True))
        expected, steps = outcome.report, outcome.steps
        assert expected is not None, outcome
        noted = max(n for n, step in enumerate(steps) if step == "os.replace")
        # The last files are the note that it is over, and the lock.
        over = [n for n, step in enumerate(steps) if step == "os.unlink"][-2]
        ends = [(step, steps[:n].count(step)) for n, step in enumerate(steps) if noted <= n < over]
        assert {"os.unlink", "os.rmdir", "os.replace"} <= {step for step, _ in ends}
        for die_in, number in ends:
            shutil.rmtree(place)
            place.mkdir()
            dying = job.but(die=(number, "after"), die_in=die_in)
            died = (await processes.run(dying)).signal
            added = {path.name: path.read_bytes() for path in to.glob("*.parquet")}
            is_whole = (place / "people.manifest.json").exists()
            left = sorted(str(path.relative_to(place)) for path in place.rglob("*"))
            asked = emulator.stats.requests
            outcome = await processes.run(job)
            try:
                assert outcome.report is not None, outcome
                if is_whole:
                    again = {path.name: path.read_bytes() for path in to.glob("*.parquet")}
                    assert again == added
                    assert emulator.stats.requests == asked
                    assert outcome.report["complete"] is True
                    figure = "found" if kind == "keys" else "people"
                    assert outcome.report[figure] == expected[figure]
                assert not (place / "people.export").exists()
            except AssertionError as error:
                error.add_note(
                    f"killed {died} after {die_in} {number} of {ends}, which left {left}"
                )
                raise
        # Hours later as well, but then it says so.
        dying = job.but(die=(ends[0][1], "after"), die_in="os.replace")
        shutil.rmtree(place)
        place.mkdir()
        await processes.run(dying)
        asked = emulator.stats.requests
        outcome = await processes.run(job.but(begun=job.begun + 13 * 3600 * 10**9))
        assert outcome.report is not None, outcome
        assert emulator.stats.requests == asked
        assert outcome.report["warnings"][-1].endswith("UTC, and its rows are of then")


# ----------------------------------------------------------------------------- lookups at each step


def lookup_keys(emulator: Emulator, count: int) -> list[str]:
    everyone = range(len(emulator.population))
    known = (emulator.population.identity(index) for index in everyone)
    found = [key for key, _ in zip((k for k in known if k is not None), range(count), strict=False)]
    return [
        key
        for pair in zip(found, (f"nobody {n}" for n in range(count)), strict=True)
        for key in pair
    ][:count]


@pytest.mark.slow
@pytest.mark.parametrize("part", range(SOME))
@pytest.mark.parametrize(("by", "endpoint"), [("identity", "profile"), ("user_id", "cdp")])
async def test_lookups_killed_at_each_step(
    tmp_path: Path, part: int, by: str, endpoint: str
) -> None:
    async with Emulator(people=10_000, seed=3, max_in_flight=8) as emulator:
        keys = lookup_keys(emulator, 40)
        bindings = Bindings(emulator.population)
        arguments = {"keys": keys, "by": by, "to": "people.ndjson"}
        async with exporting(tmp_path, arguments, emulator, slots=8) as export:
            not_found = [
                key
                for key in keys
                if key.startswith("nobody") or (by == "user_id" and not bindings.by_user(key))
            ]
            moments = list(export.moments(half=None if by == "identity" else 1))[part::SOME]
            died = answered_before = 0
            for number, when in moments:
                outcome = await export.processes.run(export.job_with(die=(number, when)))
                died += outcome.signal == signal.SIGKILL
                export.check_whole_or_absent()
                is_answered = journalled(export.workspace) == {*keys} and not export.to.exists()
                answered_before += is_answered
                asked = emulator.stats.requests[endpoint]
                outcome = await export.processes.run(export.job)
                try:
                    beside = export.to.with_name("people.ndjson.not-found.txt")
                    assert beside.read_text().splitlines() == not_found
                    export.check_same(outcome)
                    if is_answered:
                        assert emulator.stats.requests[endpoint] == asked
                except AssertionError as error:
                    error.add_note(f"killed {when} step {number} of {export.steps}")
                    raise
            # A second that is up while the first run asks is one more commit than in the others.
            assert died >= len(moments) - 2
            assert died >= (45 // SOME if THOROUGH else 10)
            assert answered_before >= (by == "identity" or THOROUGH)


@pytest.mark.slow
async def test_lookups_killed_between_answers(tmp_path: Path) -> None:
    """There are more keys than one transaction holds."""
    async with Emulator(people=10_000, seed=3, max_in_flight=8) as emulator:
        keys = lookup_keys(emulator, 450)
        arguments = {"keys": keys, "by": "identity", "to": "people.ndjson"}
        async with exporting(tmp_path, arguments, emulator, slots=8) as export:
            writes = Counter(step.partition(" (")[0] for step in export.steps)["os.write"]
            # Of 200 answers at once, or fewer when a second is up.
            assert writes >= 3
            for write in range(3):
                for when in ("before", "half", "after"):
                    job = export.job_with(die=(write, when), die_in="os.write")
                    outcome = await export.processes.run(job)
                    assert outcome.signal == signal.SIGKILL
                    kept = len(journalled(export.workspace))
                    assert write <= kept <= 200 * write
                    await check_asks_only_for_the_rest(export, emulator, len(keys) - kept)
            first_commit = export.steps.index(
                "sqlite3 commit",
                [step.partition(" ")[0] for step in export.steps].index("os.write"),
            )
            for when in ("before", "after"):
                outcome = await export.processes.run(export.job_with(die=(first_commit, when)))
                assert outcome.signal == signal.SIGKILL
                kept = len(journalled(export.workspace))
                assert 0 < kept <= 200 if when == "after" else kept == 0
                await check_asks_only_for_the_rest(export, emulator, len(keys) - kept)


async def check_asks_only_for_the_rest(export: Export, emulator: Emulator, rest: int) -> None:
    asked = emulator.stats.requests["profile"]
    export.check_same(await export.processes.run(export.job))
    assert emulator.stats.requests["profile"] - asked == rest


def journalled(workspace: Path) -> set[str]:
    """Return the keys whose answers are durable, and not of an export that is complete."""
    query = (
        "select key from keys where outcome in (1, 2)"
        " and not exists (select 1 from state where name = 'over')"
    )
    return {key for (key,) in journal(workspace, query)}


def all_read(workspace: Path, *, chains: int) -> bool:
    """Return whether all pages of an export of so many chains are durable."""
    return journal(workspace, "select count(*) from chains where done") == [(chains,)]


# ------------------------------------------------------------------------------- joins at each step

JOINED: dict[str, Any] = {**SMALL, "with_cdp": True}


def joined(workspace: Path) -> set[str]:
    """Return the keys whose users are durable, and not of an export that is complete."""
    query = (
        "select key from joins where outcome in (1, 2)"
        " and not exists (select 1 from state where name = 'over')"
    )
    return {key for (key,) in journal(workspace, query)}


@pytest.mark.slow
@pytest.mark.parametrize("part", range(SOME))
@pytest.mark.parametrize("kind", ["events", "keys"])
async def test_joins_killed_at_each_step(tmp_path: Path, part: int, kind: str) -> None:
    async with Emulator(people=80 if kind == "events" else 10_000, seed=3) as emulator:
        arguments = {**JOINED, "to": "people.ndjson"}
        if kind == "keys":
            keys = lookup_keys(emulator, 40)
            arguments = {"keys": keys, "by": "identity", "with_cdp": True, "to": "people.ndjson"}
        async with exporting(tmp_path, arguments, emulator) as export:
            needed = emulator.stats.requests["cdp"]
            assert needed >= export.report["matched"] >= 10
            moments = list(export.moments(half=kind == "keys"))[part::SOME]
            died = 0
            for number, when in moments:
                outcome = await export.processes.run(export.job_with(die=(number, when)))
                died += outcome.signal == signal.SIGKILL
                export.check_whole_or_absent()
                is_placed = export.to.exists()
                kept = joined(export.workspace)
                asked = emulator.stats.requests
                outcome = await export.processes.run(export.job)
                try:
                    export.check_same(outcome)
                    now = emulator.stats.requests["cdp"] - asked["cdp"]
                    # Where the output is in place, the second run may be a new one.
                    assert now == needed - len(kept) or (is_placed and now in (0, needed))
                except AssertionError as error:
                    error.add_note(f"killed {when} step {number} of {export.steps}")
                    raise
            # Commits follow the clock, so that the last steps of the first run may be missing.
            assert died >= len(moments) - 12 // SOME - 2
            assert died >= (50 // SOME if THOROUGH else 8)
            # The output is begun when everything has been gathered.
            await export.processes.run(export.job_with(die=(0, "half"), die_in="file.write"))
            assert len(joined(export.workspace)) == needed
            asked = emulator.stats.requests
            export.check_same(await export.processes.run(export.job))
            assert emulator.stats.requests == asked


@pytest.mark.slow
async def test_joins_killed_between_answers(tmp_path: Path) -> None:
    """There are more keys than one transaction holds."""
    async with Emulator(people=10_000, seed=3, max_in_flight=8) as emulator:
        keys = lookup_keys(emulator, 900)
        arguments = {"keys": keys, "by": "identity", "with_cdp": True, "to": "people.ndjson"}
        async with exporting(tmp_path, arguments, emulator, slots=8) as export:
            needed = emulator.stats.requests["cdp"]
            assert needed == 450
            partly = 0
            for write in range(2, 7):
                job = export.job_with(die=(write, "half"), die_in="os.write")
                outcome = await export.processes.run(job)
                assert outcome.signal == signal.SIGKILL
                people = len(journalled(export.workspace))
                kept = len(joined(export.workspace))
                partly += 0 < kept < needed
                asked = emulator.stats.requests
                export.check_same(await export.processes.run(export.job))
                assert emulator.stats.requests["cdp"] - asked["cdp"] == needed - kept
                assert emulator.stats.requests["profile"] - asked["profile"] == 900 - people
            assert partly >= 1


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS if THOROUGH else FORMATS[:1])
async def test_joins_killed_at_random_moments(tmp_path: Path, name: str) -> None:
    seed = random.SystemRandom().randrange(10**6)
    chance = random.Random(seed)  # noqa: S311
    arguments = {**JOINED, "end": 20260131, "windows": 2, "batch_size": 69, "to": name}
    async with (
        Emulator(people=400, seed=7, faults=TROUBLE) as emulator,
        exporting(tmp_path, arguments, emulator) as export,
    ):
        began = time.monotonic()
        await export.processes.run(export.job)
        export.forget()
        longest = time.monotonic() - began
        killed = 0
        kept: set[str] = set()
        while killed < KILLS // len(FORMATS):
            moment = asyncio.sleep(chance.uniform(0, 0.8 * longest))
            outcome = await export.processes.killed_at(export.job, moment)
            if outcome.signal:
                killed += 1
                export.check_whole_or_absent()
                now = joined(export.workspace)
                try:
                    # Users once on the disk stay there until the output is in place.
                    assert kept <= now or export.to.exists()
                except AssertionError as error:
                    error.add_note(f"seed {seed}, {killed} kills into {name}")
                    raise
                kept = now
                continue
            # Later than it takes: the machine had more to do when it was measured.
            longest *= 0.9
            kept = set()
            try:
                export.check_same(outcome)
            except AssertionError as error:
                error.add_note(f"seed {seed}, {killed} kills into {name}")
                raise
        export.check_same(await export.processes.run(export.job))


# ------------------------------------------------------------------------- killed at random moments


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
async def test_killed_at_random_moments(tmp_path: Path, name: str) -> None:
    seed = random.SystemRandom().randrange(10**6)
    chance = random.Random(seed)  # noqa: S311
    arguments = {**SMALL, "end": 20260131, "windows": 2, "batch_size": 69, "to": name}
    async with (
        Emulator(people=400, seed=7, faults=TROUBLE) as emulator,
        exporting(tmp_path, arguments, emulator) as export,
    ):
        began = time.monotonic()
        await export.processes.run(export.job)
        export.forget()
        longest = time.monotonic() - began
        killed = 0
        while killed < KILLS // len(FORMATS):
            moment = asyncio.sleep(chance.uniform(0, 0.8 * longest))
            outcome = await export.processes.killed_at(export.job, moment)
            if outcome.signal:
                killed += 1
                export.check_whole_or_absent()
                continue
            # Later than it takes: the machine had more to do when it was measured.
            longest *= 0.9
            try:
                export.check_same(outcome)
            except AssertionError as error:
                error.add_note(f"seed {seed}, {killed} kills into {name}")
                raise
        export.check_same(await export.processes.run(export.job))
        assert emulator.stats.requests["count"] == 0


class Directory:
    """Answers lookups by identity, sometimes with a failure at first.

    Attributes:
        asked: the keys of all requests.
        left: correct answers still to be given. After them `reached` is set, and requests wait.
    """

    def __init__(self, known: int) -> None:
        self.asked: list[str] = []
        self.left = math.inf
        self.reached = asyncio.Event()
        self._known = known
        self._chance = random.Random(1)  # noqa: S311

    def keys(self) -> list[str]:
        return [f"person {n}" for n in range(self._known)]

    async def answer(self, head: bytes, writer: asyncio.StreamWriter) -> None:
        key = unquote(head.split(b"identity=")[1].split(b" ")[0].decode().replace("+", "%20"))
        self.asked.append(key)
        if not self.left:
            await asyncio.Event().wait()
        trouble = self._chance.random()
        if trouble < 0.002:
            writer.write(http(b'{"status":"fail","code":1,"error":"Request throttled"}'))
        elif trouble < 0.04:
            writer.write(http(b"", "503 Service Unavailable"))
        elif trouble < 0.06:
            writer.write(http(b'{"status":"success","record":{"identity"'))
        elif trouble < 0.07:
            writer.close()
        else:
            self.left -= 1
            if not self.left:
                self.reached.set()
            record = json.dumps({"identity": key, "profileData": {"filler": key * 20}})
            if int(key.rpartition(" ")[2]) % 5 == 0:
                record = "null"
            writer.write(http(b'{"status":"success","record":%b}' % record.encode()))


def environment_of(server: Scripted) -> dict[str, str]:
    return {
        "CLEVERTAP_ACCOUNT_ID": "TEST",
        "CLEVERTAP_PASSCODE": "PASS",
        "CLEVERTAP_BASE_URL": server.url,
    }


SEEDS = 4 if THOROUGH else 2


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(SEEDS))
async def test_lookups_killed_at_random_moments(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311
    directory = Directory(320)
    target = tmp_path / "out"
    target.mkdir()
    async with scripted(directory.answer) as server, exporter(tmp_path / "processes") as processes:
        arguments = {
            "keys": directory.keys(),
            "by": "identity",
            "to": str(target / "people.csv.gz"),
        }
        job = Job(arguments=arguments, environment=environment_of(server), slots=8)
        export = Export(processes, job)
        await export.run_through()

        async def moment(rest: int) -> None:
            if rest:
                await directory.reached.wait()
            # The last answers are being kept then, or the output is made of them.
            await asyncio.sleep(chance.uniform(0, 0.05 if rest else 0.5))

        killed = partly = 0
        answered: set[str] = set()
        while killed < KILLS // 4:
            rest = len(directory.keys()) - len(answered)
            # Often before it has all answers; else it may be through before it is killed. First
            # when it must have kept a batch of 200, as so many are not on their way at once.
            directory.left = chance.randint(1, rest) if rest and chance.random() < 0.7 else rest
            if not killed:
                directory.left = 260
            directory.reached.clear()
            before = len(directory.asked)
            outcome = await processes.killed_at(job, moment(rest))
            again = answered.intersection(directory.asked[before:])
            assert not again, f"kill {killed}: asked again after it was journalled"
            if outcome.signal:
                killed += 1
                export.check_whole_or_absent()
                now = journalled(export.workspace)
                # An answer once journalled stays there until the output is in place.
                assert answered <= now or export.to.exists(), f"kill {killed}: lost"
                answered = now
                partly += 0 < len(now) < len(directory.keys())
                continue
            export.check_same(outcome)
            answered = set()
        directory.left = math.inf
        export.check_same(await processes.run(job))
        assert partly >= 1


# --------------------------------------------------------------------------- full and failing disks


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
async def test_files_may_not_grow(tmp_path: Path, name: str) -> None:
    """Every file of an export reaches RLIMIT_FSIZE in turn, and the same call resumes it."""
    async with (
        Emulator(people=200, seed=3) as emulator,
        exporting(tmp_path, {**SMALL, "to": name}, emulator) as export,
    ):
        refused: list[str] = []
        limit = 1000
        while True:
            outcome = await export.processes.run(export.job_with(file_limit=limit))
            if outcome.error is None:
                break
            refused.append(outcome.error)
            assert outcome.error in ("ExportError", "Incomplete"), outcome
            assert str(export.to.parent) in outcome.message, outcome
            assert not export.to.exists()
            assert not list(export.to.parent.glob("*.partial"))
            if "File too large" in outcome.message or "disk I/O error" in outcome.message:
                assert "raise the limit of a file's size (`ulimit -f`), and run" in outcome.message
            limit = limit * 3 // 2
        assert refused.count("ExportError") >= 1
        assert refused.count("Incomplete") >= 3
        export.check_same(outcome)


@pytest.mark.slow
async def test_each_write_fails_half_way_once(tmp_path: Path) -> None:
    """As on a full disk that has free space again a moment later."""
    async with Emulator(people=600, seed=3, max_in_flight=8) as emulator:
        lookups: dict[str, Any] = {"keys": lookup_keys(emulator, 450), "by": "identity"}
        for number, chosen in enumerate((lookups, SMALL)):
            arguments = dict(chosen)
            folder = tmp_path / str(number)
            folder.mkdir()
            if chosen is SMALL:
                arguments["batch_size"] = 230
            async with exporting(
                folder, {**arguments, "to": "people.ndjson"}, emulator, slots=8
            ) as export:
                writes = [step for step in export.steps if "half" in step]
                assert len(writes) >= 4
                for write, step in enumerate(writes, 1):
                    outcome = await export.processes.run(export.job_with(fail=write))
                    if chosen is lookups and write > 4 and outcome.error is None:
                        # Answers are kept once a second, too: then the first run has more writes.
                        export.check_same(outcome)
                        continue
                    assert outcome.error == "Incomplete", (step, outcome)
                    assert "No space left on device" in outcome.message
                    assert re.search("run the same (export|lookup) again", outcome.message)
                    export.check_same(await export.processes.run(export.job))


# ---------------------------------------------------------------------------------- damaged spools


def flip_the_first_bit(spool: Path) -> None:
    with spool.open("r+b") as file:
        first = file.read(1)[0]
        file.seek(0)
        file.write(bytes([first ^ 1]))


def cut(spool: Path) -> None:
    os.truncate(spool, spool.stat().st_size // 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "damage"),
    [
        ("events", flip_the_first_bit),
        ("keys", cut),
        ("joined", flip_the_first_bit),
        *([("keys", flip_the_first_bit), ("joined", cut)] if THOROUGH else []),
    ],
)
async def test_killed_at_each_step_of_a_repair(
    tmp_path: Path, kind: str, damage: Callable[[Path], None]
) -> None:
    async with Emulator(people=10_000 if kind == "keys" else 80, seed=3) as emulator:
        keys = {"keys": lookup_keys(emulator, 12), "by": "identity"}
        chosen = {"events": SMALL, "keys": keys, "joined": JOINED}[kind]
        arguments = {**chosen, "to": "people.ndjson"}
        async with exporting(tmp_path, arguments, emulator) as export:
            gathered = last_commit(export.steps)
            await export.processes.run(export.job_with(die=(gathered, "after")))
            damage(max(export.workspace.glob("*.spool.ndjson")))
            saved = tmp_path / "saved"
            shutil.copytree(export.folder, saved)
            outcome = await export.processes.run(export.job_with(listed=True))
            export.check_same(outcome)
            export.steps = outcome.steps
            # The damage was repaired, and by a request.
            assert any(step.startswith("os.write") for step in outcome.steps)
            placed = max(n for n, step in enumerate(export.steps) if step == "os.replace")
            moments = [moment for moment in export.moments() if moment[0] <= placed]
            for number, when in moments:
                shutil.copytree(saved, export.folder)
                await export.processes.run(export.job_with(die=(number, when)))
                export.check_whole_or_absent()
                try:
                    export.check_same(await export.processes.run(export.job))
                except AssertionError as error:
                    error.add_note(f"killed {when} step {number}: {export.steps[number]}")
                    raise


@pytest.mark.slow
@pytest.mark.parametrize("earlier", [False, True], ids=["workspace", "earlier-layout"])
@pytest.mark.parametrize("kind", ["events", "keys"])
async def test_killed_at_each_step_of_going_on(tmp_path: Path, kind: str, earlier: bool) -> None:
    """Reading keys again, moving files of an earlier version: what is on disk is not lost."""
    async with Emulator(people=10_000 if kind == "keys" else 80, seed=3) as emulator:
        keys = {"keys": lookup_keys(emulator, 12), "by": "identity"}
        arguments = {**(SMALL if kind == "events" else keys), "to": "people.ndjson"}
        async with exporting(tmp_path, arguments, emulator) as export:
            gathered = last_commit(export.steps)
            await export.processes.run(export.job_with(die=(gathered, "after")))
            if earlier:
                workspace = export.workspace
                for path in workspace.iterdir():
                    path.rename(export.folder / path.name)
                workspace.rmdir()
            saved = tmp_path / "saved"
            shutil.copytree(export.folder, saved)
            outcome = await export.processes.run(export.job_with(listed=True))
            export.check_same(outcome)
            export.steps = outcome.steps
            asked = emulator.stats.requests
            placed = min(n for n, s in enumerate(export.steps) if s.startswith("file.write"))
            for number, when in export.moments():
                if number > placed:
                    break
                shutil.copytree(saved, export.folder)
                await export.processes.run(export.job_with(die=(number, when)))
                try:
                    export.check_same(await export.processes.run(export.job))
                    assert emulator.stats.requests == asked
                except AssertionError as error:
                    error.add_note(f"killed {when} step {number}: {export.steps[number]}")
                    raise


@asynccontextmanager
async def tmpfs(folder: Path, options: str) -> AsyncIterator[Path]:
    """Mount a small file system; skip the test if that is not allowed."""
    folder.mkdir()
    with mounted("-t", "tmpfs", "-o", options, "tmpfs", at=folder):
        yield folder


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)  # noqa: S607


async def test_disk_full(tmp_path: Path) -> None:
    async with (
        Emulator(people=400, seed=3) as emulator,
        tmpfs(tmp_path / "disk", "size=200k") as disk,
        exporter(tmp_path / "processes") as processes,
    ):
        reference = tmp_path / "people.ndjson"
        job = Job(arguments={**SMALL, "to": str(reference)}, environment=emulator.environment)
        assert (await processes.run(job)).error is None
        job.arguments["to"] = str(disk / "people.ndjson")
        messages = []
        size = 4
        remount(disk, f"size={size}k")
        while (outcome := await processes.run(job)).error is not None:
            # At any size, even where not one byte can be written.
            assert outcome.error == "Incomplete", outcome
            messages.append(outcome.message)
            assert not (disk / "people.ndjson").exists()
            size += 100
            remount(disk, f"size={size}k")
        assert any("No space left on device" in message for message in messages)
        assert all("free some space" in message for message in messages)
        assert all(", and run the same " in message for message in messages)
        assert len(messages) >= 5
        assert (disk / "people.ndjson").read_bytes() == reference.read_bytes()
        assert sorted(path.name for path in disk.iterdir()) == [
            "people.ndjson",
            "people.ndjson.manifest.json",
        ]


async def test_killed_while_a_full_disk_is_left_tidy_the_same_call_goes_on(tmp_path: Path) -> None:
    """The disk refuses the end of the log half-way, so that the journal is nothing without it."""
    async with (
        Emulator(people=80, seed=3) as emulator,
        tmpfs(tmp_path / "disk", "size=2m") as disk,
        exporting(tmp_path, {**SMALL, "to": "people.ndjson"}, emulator) as export,
    ):
        spooled = {**export.job.arguments, "spool": str(disk)}
        export.job = export.job_with(arguments=spooled)
        await export.run_through()
        end = "sqlite3 pragma journal_mode = delete"
        spools = export.steps[: export.steps.index(end)].count("os.unlink")
        # Begun anew, it is discarded first, and the journal is open by then.
        gathered = export.job_with(die=(last_commit(export.steps), "after"))
        anew = export.job_with(arguments={**spooled, "resume": False}, stop="sqlite3 commit")
        jobs = [(None, export.job_with(stop=end), spools), (gathered, anew, 1)]
        for first, job, number in jobs:
            is_killed = True
            while is_killed:
                if first is not None:
                    await export.processes.run(first)
                child = await export.processes.start(
                    job.but(die=(number, "after"), die_in="os.unlink")
                )
                await export.processes.stopped()
                with filled(disk):
                    os.kill(child, signal.SIGCONT)
                    is_killed = (await export.processes.ended()).signal == signal.SIGKILL
                export.check_same(await export.processes.run(export.job))
                number += is_killed
        assert list(disk.iterdir()) == []


async def test_a_full_disk_parts_no_journal_from_its_log(tmp_path: Path) -> None:
    """As where the journal of keys that have been read moves to the folder of their plan."""
    keys = [f"key-{number}" for number in range(300)]
    async with (
        Emulator(people=30, seed=3) as emulator,
        tmpfs(tmp_path / "disk", "size=2m") as disk,
        exporting(tmp_path, {"keys": keys, "by": "identity", "to": "p.ndjson"}, emulator) as export,
    ):
        export.job = export.job_with(arguments={**export.job.arguments, "spool": str(disk)})
        child = await export.processes.start(
            export.job.but(stop="sqlite3 pragma journal_mode = delete")
        )
        await export.processes.stopped()
        with filled(disk):
            os.kill(child, signal.SIGCONT)
            outcome = await export.processes.ended()
        assert outcome.error == "Incomplete", outcome
        assert "free some space" in outcome.message
        outcome = await export.processes.run(export.job)
        assert outcome.report is not None, outcome
        assert outcome.report["keys"] == len(keys)
        assert list(disk.iterdir()) == []


async def test_killed_while_an_earlier_version_s_journal_moves_on_a_full_disk(
    tmp_path: Path,
) -> None:
    async with (
        Emulator(people=80, seed=3) as emulator,
        tmpfs(tmp_path / "disk", "size=2m") as disk,
        exporting(tmp_path, {**SMALL, "to": "people.ndjson"}, emulator) as export,
    ):
        export.job = export.job_with(arguments={**export.job.arguments, "spool": str(disk)})
        await export.run_through()
        await export.processes.run(export.job_with(die=(last_commit(export.steps), "after")))
        asked = emulator.stats.requests
        [folder] = disk.iterdir()
        [workspace] = filter(Path.is_dir, folder.iterdir())
        for path in workspace.iterdir():
            path.rename(folder / path.name)
        workspace.rmdir()
        shutil.copytree(folder, saved := tmp_path / "saved")
        number, is_killed = 0, True
        while is_killed:
            shutil.copytree(saved, folder, dirs_exist_ok=True)
            # The journal is open by then: a full disk refuses that, too.
            job = export.job.but(stop="sqlite3 commit", die=(number, "after"), die_in="os.replace")
            child = await export.processes.start(job)
            await export.processes.stopped()
            with filled(disk):
                os.kill(child, signal.SIGCONT)
                is_killed = (await export.processes.ended()).signal == signal.SIGKILL
            export.check_same(await export.processes.run(export.job))
            assert emulator.stats.requests == asked
            number += is_killed
        assert list(disk.iterdir()) == []


async def test_a_full_disk_is_that_of_the_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The records are on another disk, which has space. A log has no folder for a relative path."""
    monkeypatch.chdir(tmp_path)
    (spool := tmp_path / "spool").mkdir()
    async with (
        Emulator(people=80, seed=3) as emulator,
        tmpfs(tmp_path / "disk", "size=8k") as disk,
        exporter(tmp_path / "processes") as processes,
    ):
        # DuckDB opens a file before, and the commit is what has no room for its log.
        for name, size in (("people.csv", 8), ("people.parquet", 8), ("crm.duckdb", 128)):
            remount(disk, f"size={size}k")
            arguments = {"to": f"disk/{name}", "spool": str(spool)}
            job = Job(arguments={**SMALL, **arguments}, environment=emulator.environment)
            outcome = await processes.run(job)
            assert outcome.error == "Incomplete", outcome
            full = next(line for line in outcome.message.splitlines() if "No space left" in line)
            assert f"disk/{name}" in full
            remedy = f"; free some space on the disk of {disk}, and run the same export"
            assert remedy in outcome.message
            remount(disk, "size=9m")
            assert (await processes.run(job)).error is None
            for path in disk.iterdir():
                path.unlink()
        assert list(spool.iterdir()) == []


async def test_the_folder_of_a_full_disk_is_there_when_its_files_are_gone(tmp_path: Path) -> None:
    async with (
        Emulator(people=80, seed=3) as emulator,
        tmpfs(tmp_path / "disk", "size=100k") as disk,
        exporter(tmp_path / "processes") as processes,
    ):
        job = Job(
            arguments={**SMALL, "to": str(disk / "people.parquet")},
            environment=emulator.environment,
        )
        outcome = await processes.run(job)
        assert outcome.error == "Incomplete", outcome
        assert (
            f"; free some space on the disk of {disk}, and run the same export" in outcome.message
        )
        assert list(disk.iterdir()) == []


async def test_target_that_cannot_be_written(tmp_path: Path) -> None:
    async with (
        Emulator(people=80, seed=3) as emulator,
        tmpfs(tmp_path / "disk", "size=2m") as disk,
        exporter(tmp_path / "processes") as processes,
    ):
        (tmp_path / "spool").mkdir()
        remount(disk, "ro")
        for more in ({}, {"spool": str(tmp_path / "spool")}):
            arguments = {**SMALL, "to": str(disk / "people.ndjson"), **more}
            outcome = await processes.run(
                Job(arguments=arguments, environment=emulator.environment)
            )
            assert outcome.error == "ExportError", outcome
            assert "Read-only file system" in outcome.message
            assert str(disk / "people.ndjson") in outcome.message
            assert list((tmp_path / "spool").iterdir()) == []
        assert not any(emulator.stats.requests.values())


async def test_target_that_becomes_read_only_loses_nothing(tmp_path: Path) -> None:
    async with (
        Emulator(people=80, seed=3) as emulator,
        tmpfs(tmp_path / "disk", "size=2m") as disk,
        exporting(tmp_path, {**SMALL, "to": "people.ndjson"}, emulator) as export,
    ):
        arguments = {
            **export.job.arguments,
            "to": str(disk / "people.ndjson"),
            "spool": str(tmp_path / "spool"),
        }
        (tmp_path / "spool").mkdir()
        job = export.job_with(arguments=arguments)
        finishing = last_commit(export.steps)
        await export.processes.run(export.job_with(arguments=arguments, die=(finishing, "after")))
        remount(disk, "ro")
        asked = emulator.stats.requests
        outcome = await export.processes.run(job)
        assert outcome.error in ("ExportError", "Incomplete")
        assert "Read-only file system" in outcome.message
        assert list((tmp_path / "spool").iterdir()) != []
        remount(disk, "rw")
        outcome = await export.processes.run(job)
        assert outcome.error is None
        assert emulator.stats.requests == asked
        assert (disk / "people.ndjson").read_bytes() == export.uninterrupted
        assert list((tmp_path / "spool").iterdir()) == []


@pytest.mark.slow
async def test_two_processes_want_the_same_output(tmp_path: Path) -> None:
    """The second one is refused at every step of the first one, and does it no harm."""
    async with (
        Emulator(people=80, seed=3) as emulator,
        exporting(tmp_path, {**SMALL, "to": "people.ndjson"}, emulator) as export,
        exporter(tmp_path / "others") as others,
    ):
        for number in of_each_kind(range(4, len(export.steps) - 6), export.steps)[::2]:
            first = await export.processes.start(export.job_with(stop=number))
            await export.processes.stopped()
            refused = await others.run(export.job)
            assert refused.error == "ExportLocked", (export.steps[number], refused)
            assert str(export.folder) in refused.message
            os.kill(first, signal.SIGCONT)
            try:
                export.check_same(await export.processes.ended())
            except AssertionError as error:
                error.add_note(f"stopped before step {number}: {export.steps[number]}")
                raise
