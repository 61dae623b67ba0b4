"""Exports with `write="append"` that are killed when their rows are there already."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import types
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from contextlib import asynccontextmanager, chdir, closing
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Literal

import duckdb
import psycopg
import pyarrow.parquet
import pytest

from altaprofiles import Session
from altaprofiles.emulator import Emulator
from altaprofiles.emulator.bindings import Bindings
from altaprofiles.export.report import Progress

from ..support.disks import filled, mounted
from ..support.exporting import BEGUN, Exporter, Job, Outcome, exporter
from ..support.forks import start
from ..support.outputs import rows_in_folder
from ..support.postgres import Server
from ..support.tasks import PATIENCE, end_midway, ends_midway
from ..support.terminals import Done, run
from ..support.thorough import pairwise

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform == "win32", reason="forks, and kills with signals"),
]

JANUARY: dict[str, Any] = {
    "events": "Charged",
    "start": 20260101,
    "end": 20260131,
    "write": "append",
    "batch_size": 46,
}
ADDED = "an earlier run had added these rows to "


async def ran(*arguments: str) -> Done:
    """Run a command, and return its outcome."""
    return await asyncio.to_thread(run, {**os.environ, "LC_ALL": "C.UTF-8"}, *arguments)


class Append:
    """An append into one output, and its number of rows.

    Attributes:
        once: the rows that it adds.
    """

    def __init__(self, processes: Exporter, job: Job, rows: Callable[[], int]) -> None:
        self.processes = processes
        self.job = job
        self.rows = rows
        self.once = 0
        self._steps: list[str] = []
        self._before = 0

    async def begin(self) -> None:
        """Run it twice, so that the steps of the next runs are known."""
        await self.again()
        self.once = self.rows()
        assert self.once > 0
        outcome = await self.processes.run(self.job.but(listed=True))
        assert outcome.error is None, outcome
        self._steps, self._before = outcome.steps, self.rows()
        assert self._before == 2 * self.once

    @property
    def times(self) -> float:
        """The number of times that its rows were added since `begin`."""
        return (self.rows() - self._before) / self.once

    @property
    def noted(self) -> int:
        """The step at which it is noted that it is over."""
        return max(n for n, step in enumerate(self._steps) if step == "os.replace")

    async def die(self, job: Job, *, removed: int = 0, when: str = "after") -> None:
        """Run a job until it is known that it is over, and some of its files are removed."""
        noted = self.noted
        step = "os.unlink" if removed else "os.replace"
        number = self._steps[:noted].count(step) + max(removed - 1, 0)
        dying = job.but(die=(number, when), die_in=step)
        assert (await self.processes.run(dying)).signal == signal.SIGKILL

    async def die_last(self) -> None:
        """Run it until nothing of it is left but its output."""
        number = self._steps.count("os.unlink") - 1
        dying = self.job.but(die=(number, "after"), die_in="os.unlink")
        assert (await self.processes.run(dying)).signal == signal.SIGKILL
        assert not [*Path.cwd().rglob("ended-*.json"), *Path.cwd().rglob("journal.sqlite")]

    async def again(self, **changes: Any) -> Outcome:
        """Run it with some arguments changed, without an error."""
        job = self.job.but(arguments={**self.job.arguments, **changes})
        outcome = await self.processes.run(job)
        assert outcome.error is None, outcome
        return outcome


def rows_in_duckdb(path: Path) -> int:
    if not path.exists():
        return 0
    with duckdb.connect(str(path), read_only=True) as connection:
        [(tables,)] = connection.execute(
            "SELECT count(*) FROM information_schema.tables WHERE table_name = 'people'"
        ).fetchall()
        if not tables:
            return 0
        [(rows,)] = connection.execute("SELECT count(*) FROM people").fetchall()
    return int(rows)


def in_postgres(url: str, statement: str) -> list[tuple[Any, ...]]:
    with closing(psycopg.connect(url, autocommit=True)) as connection:
        cursor = connection.execute(statement)
        return [] if cursor.description is None else cursor.fetchall()


def target_of(kind: str, postgres: Server) -> str:
    return {"folder": "people", "duckdb": "people.duckdb", "postgres": postgres.url()}[kind]


@asynccontextmanager
async def appending(tmp_path: Path, to: str, **arguments: Any) -> AsyncIterator[Append]:
    """Yield an append into a folder, a DuckDB file, or a table of a server."""
    # The manifest of a table is written to the current folder.
    with chdir(tmp_path):
        async with (
            Emulator(people=60, seed=3) as emulator,
            exporter(tmp_path / "processes") as processes,
        ):
            place = tmp_path / "place"
            place.mkdir()
            if to.startswith("postgresql:"):
                target = to
                others = {"table": "people", "spool": str(place)}

                def rows() -> int:
                    [(found,)] = in_postgres(to, "SELECT to_regclass('people') IS NOT NULL")
                    counted = in_postgres(to, "SELECT count(*) FROM people") if found else [(0,)]
                    return int(counted[0][0])
            elif to.endswith(".duckdb"):
                target, others = str(place / to), {"table": "people"}

                def rows() -> int:
                    return rows_in_duckdb(place / to)
            else:
                target, others = f"{place / to}/", {}

                def rows() -> int:
                    return rows_in_folder(place / to)

            job = Job(
                arguments={**JANUARY, **others, "to": target, **arguments},
                environment=emulator.environment,
            )
            append = Append(processes, job, rows)
            await append.begin()
            yield append


@asynccontextmanager
async def of_two(tmp_path: Path, people: int = 40) -> AsyncIterator[Append]:
    """Yield an append of two accounts into a folder; `people` are those of the second."""
    async with (
        Emulator(people=people, seed=4) as other,
        appending(tmp_path, "people") as append,
    ):
        accounts = {"shop": append.job.environment, "outlet": other.environment}
        folder = tmp_path / "place" / "both"
        append.job = append.job.but(accounts=accounts)
        append.job.arguments["to"] = f"{folder}/"
        append.rows = lambda: rows_in_folder(folder)
        await append.begin()
        yield append


def told(outcome: Outcome) -> bool:
    assert outcome.report is not None, outcome
    assert outcome.report["complete"] is True
    return any(ADDED in text for text in outcome.report["warnings"])


@pytest.mark.parametrize(
    ("change", "removed"), [("path", 0), ("on_shortfall", 1), ("flatten", 0), ("none", 1)]
)
async def test_however_the_same_export_is_called_again_its_rows_are_there_once(
    tmp_path: Path, change: str, removed: int
) -> None:
    async with appending(tmp_path, "people") as append:
        to = Path(append.job.arguments["to"])
        changes: dict[str, dict[str, Any]] = {
            "path": {"to": f"{to.parent}/./{to.name}/"},
            "on_shortfall": {"on_shortfall": "warn"},
            "flatten": {"flatten": ["City"]},
            "none": {},
        }
        await append.die(append.job.but(arguments={**append.job.arguments}), removed=removed)
        assert append.times == 1
        assert told(await append.again(**changes[change]))
        assert append.times == 1
        # That was the end of it.
        assert not told(await append.again())
        assert append.times == 2


async def test_the_address_of_a_server_can_be_written_otherwise(
    tmp_path: Path, postgres: Server
) -> None:
    url = postgres.url()
    async with appending(tmp_path, url) as append:
        await append.die(append.job)
        other = "&" if "?" in url else "?"
        assert told(await append.again(to=f"{url}{other}connect_timeout=9"))
        assert append.times == 1


@pytest.mark.parametrize(
    ("kind", "how", "removed"),
    [
        ("folder", "", 0),
        ("folder", "", 1),
        ("duckdb", "DROP TABLE people", 0),
        ("duckdb", "TRUNCATE people", 1),
        ("postgres", "TRUNCATE people", 0),
        ("postgres", "DROP TABLE people", 1),
    ],
)
async def test_rows_that_somebody_has_deleted_are_written_again(
    tmp_path: Path, postgres: Server, kind: str, how: str, removed: int
) -> None:
    to = target_of(kind, postgres)
    async with appending(tmp_path, to) as append:
        await append.die(append.job, removed=removed)
        if kind == "folder":
            for path in Path(append.job.arguments["to"]).glob("*.parquet"):
                path.unlink()
        elif kind == "duckdb":
            with duckdb.connect(append.job.arguments["to"]) as connection:
                connection.execute(how)
        else:
            in_postgres(to, how)
        assert append.rows() == 0
        outcome = await append.again()
        assert outcome.report is not None
        assert not told(outcome)
        assert append.rows() == append.once == outcome.report["people"]


@pytest.mark.parametrize("removed", [0, 1])
@pytest.mark.parametrize("kind", ["folder", "duckdb", "postgres"])
async def test_rows_of_another_export_do_not_stand_for_those_that_somebody_has_deleted(
    tmp_path: Path, postgres: Server, kind: str, removed: int
) -> None:
    to = target_of(kind, postgres)
    async with appending(tmp_path, to) as append:
        await append.die(append.job, removed=removed)
        if kind == "folder":
            for path in Path(append.job.arguments["to"]).glob("*.parquet"):
                path.unlink()
        elif kind == "duckdb":
            with duckdb.connect(append.job.arguments["to"]) as connection:
                connection.execute("DELETE FROM people")
        else:
            in_postgres(to, "DELETE FROM people")
        # More than those that are missing.
        for number, end in enumerate((20260130, 20260129)):
            arguments = {**append.job.arguments, "end": end}
            later = append.job.but(arguments=arguments, begun=BEGUN + (number + 1) * 10**9)
            assert (await append.processes.run(later)).error is None
        others = append.rows()
        assert others > append.once
        assert not told(await append.again())
        assert append.rows() == others + append.once


@pytest.mark.parametrize("kind", ["duckdb", "postgres"])
async def test_a_row_that_somebody_has_deleted_does_not_add_all_others_twice(
    tmp_path: Path, postgres: Server, kind: str
) -> None:
    to = {"duckdb": "people.duckdb", "postgres": postgres.url()}[kind]
    async with appending(tmp_path, to) as append:
        delete = "DELETE FROM people"
        one = f"{delete} WHERE person = (SELECT min(person) FROM people)"
        for statement in (delete, one):
            if statement == one:
                await append.die(append.job, removed=1)
            if kind == "duckdb":
                with duckdb.connect(append.job.arguments["to"]) as connection:
                    connection.execute(statement)
            else:
                in_postgres(to, statement)
        assert append.rows() == append.once - 1
        assert told(await append.again())
        assert append.rows() == append.once - 1


@pytest.mark.parametrize("removed", [0, 1])
async def test_another_export_in_between_changes_nothing(tmp_path: Path, removed: int) -> None:
    async with appending(tmp_path, "people.duckdb") as append:
        await append.die(append.job, removed=removed)
        before = append.rows()
        await append.again(end=20260115)
        added = append.rows() - before
        assert added > 0
        assert told(await append.again())
        assert append.rows() == before + added


async def test_without_resume_its_rows_are_added_once_more(tmp_path: Path) -> None:
    async with appending(tmp_path, "people.duckdb") as append:
        await append.die(append.job, removed=1)
        for times in (2, 3):
            assert not told(await append.again(resume=times > 2))
            assert append.times == times


@asynccontextmanager
async def within_process(
    tmp_path: Path, kind: str, of: str, postgres: Server
) -> AsyncIterator[tuple[Callable[..., Coroutine[Any, Any, Any]], Callable[[], int]]]:
    """Yield an append of this process, and the function that returns its number of rows."""
    with chdir(tmp_path):
        async with (
            Emulator(people=60, seed=3) as emulator,
            Session(clevertap=emulator.clevertap, alta=emulator.alta) as session,
        ):
            to = target_of(kind, postgres)
            options: dict[str, Any] = {"to": f"{to}/" if kind == "folder" else to}
            if kind != "folder":
                options["table"] = "people"
            options["write"] = "append"
            keys = [name for n in range(30) if (name := emulator.population.identity(n))]

            def append(**changes: Any) -> Coroutine[Any, Any, Any]:
                if of == "people":
                    return session.export(
                        "Charged", start=20260101, end=20260131, **options, **changes
                    )
                by: Literal["identity", "user_id"] = "identity" if of == "keys" else "user_id"
                return session.export_lookups(keys, by=by, **options, **changes)

            def rows() -> int:
                if kind == "folder":
                    return rows_in_folder(tmp_path / to)
                if kind == "duckdb":
                    return rows_in_duckdb(tmp_path / to)
                return int(in_postgres(to, "SELECT count(*) FROM people")[0][0])

            yield append, rows


OF = ("people", "keys", "bindings")
KINDS = ("folder", "duckdb", "postgres")


@pytest.mark.parametrize(("kind", "of"), pairwise(KINDS, OF))
async def test_an_exception_of_the_last_progress_report_adds_no_rows_twice(
    tmp_path: Path, postgres: Server, kind: str, of: str
) -> None:
    def fail(progress: Progress) -> None:
        if progress.complete:
            raise OSError(errno.ENOSPC, "the log is full")

    reports: list[Progress] = []
    async with within_process(tmp_path, kind, of, postgres) as (append, rows):
        for _ in range(2):
            with pytest.raises(OSError, match="the log is full"):
                await append(on_progress=fail)
        once = rows()
        report = await append(on_progress=reports.append)
        assert any(ADDED in text for text in report.warnings)
        assert report.complete
        assert once > 0
        assert reports[-1].complete
        assert rows() == once
        assert not list(tmp_path.rglob("*.export"))
        # That was the end of it.
        assert not any(ADDED in text for text in (await append()).warnings)
        assert rows() == 2 * once


@pytest.mark.parametrize(("kind", "of", "way"), pairwise(KINDS, OF, ("task", "scope", "timeout")))
async def test_a_cancellation_after_the_last_progress_report_adds_no_rows_twice(
    tmp_path: Path, postgres: Server, kind: str, of: str, way: str
) -> None:
    ending: list[Callable[[], object]] = []

    def cancel(progress: Progress) -> None:
        if progress.complete:
            ending[0]()

    async with within_process(tmp_path, kind, of, postgres) as (append, rows):
        await end_midway(way, ending, lambda: append(on_progress=cancel))
        once = rows()
        report = await append()
        assert any(ADDED in text for text in report.warnings)
        assert report.complete
        assert rows() == once > 0
        assert not list(tmp_path.rglob("*.export"))


class _Interruption:
    """Calls a function once, as work waits for the n-th time since it has added rows.

    Args:
        number: n, from 1.
        rows: returns the number of rows.
    """

    def __init__(self, number: int, rows: Callable[[], int]) -> None:
        self.ending: list[Callable[[], object]] = []
        self._number = number
        self._rows = rows
        self._before = rows()
        self._waits = 0

    def _wait(self) -> None:
        if self._waits or self._rows() > self._before:
            self._waits += 1
            if self._waits == self._number:
                self.ending[0]()

    @types.coroutine
    def within(self, work: Coroutine[Any, Any, object]) -> Generator[Any, Any, object]:
        """Return the result of `work`."""
        failure: BaseException | None = None
        while True:
            try:
                future = work.send(None) if failure is None else work.throw(failure)
            except StopIteration as end:
                return end.value
            self._wait()
            failure = None
            try:
                yield future
            except BaseException as error:
                failure = error


@pytest.mark.parametrize(
    ("kind", "way"), [("folder", "task"), ("folder", "scope"), ("postgres", "timeout")]
)
async def test_wherever_it_is_cancelled_the_same_export_adds_its_rows_once(
    tmp_path: Path, postgres: Server, kind: str, way: str
) -> None:
    async with within_process(tmp_path, kind, "keys", postgres) as (append, rows):
        await append()
        once = rows()
        for number in count(1):
            before = rows()
            interruption = _Interruption(number, rows)
            work = partial(interruption.within, append())
            is_cancelled = await ends_midway(way, interruption.ending, work)
            assert rows() == before + once
            if not is_cancelled:
                break
            report = await append()
            assert any(ADDED in text for text in report.warnings)
            assert rows() == before + once
        assert number > 3


_INTERRUPTED = """
import asyncio, signal, sys
from altaprofiles import Session

def hook(event, args):
    if event == "os.remove" and "ended-" in str(args[0]):
        signal.raise_signal(signal.SIGINT)

async def main():
    async with Session.from_env() as session:
        try:
            await session.export(
                "Charged", start=20260101, end=20260131, to="people/", write="append"
            )
        except asyncio.CancelledError as error:
            print(error.report.complete, error.__notes__)
            raise

sys.addaudithook(hook)
asyncio.run(main())
"""
"""A program that Ctrl-C interrupts as an append forgets that its rows are there."""


async def test_a_signal_in_its_last_step_comes_with_the_report(tmp_path: Path) -> None:
    async with Emulator(people=60, seed=3) as emulator:
        env = {**os.environ, **emulator.environment}
        program = [sys.executable, "-c", _INTERRUPTED]
        with start(
            program, env=env, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            communicate = partial(process.communicate, timeout=PATIENCE)
            stdout, stderr = await asyncio.to_thread(communicate)
    assert stdout == b"True ['people/ is complete, and in place.']\n", stderr
    assert stderr.endswith(b"KeyboardInterrupt\n")


async def test_to_its_state_it_is_complete(tmp_path: Path) -> None:
    async with appending(tmp_path, "people") as append:
        await append.die(append.job)
        to = append.job.arguments["to"]
        for option in ([], ["--discard-unfinished", "--yes"]):
            shown = await ran("status", to, *option)
            assert shown.code == 0
            assert b"done" not in shown.stdout
        assert told(await append.again())
        assert append.times == 1


@pytest.mark.parametrize("kind", ["folder", "duckdb", "postgres"])
async def test_its_state_tells_of_one_that_was_killed_before_its_report(
    tmp_path: Path, postgres: Server, kind: str
) -> None:
    async with appending(tmp_path, target_of(kind, postgres)) as append:
        [manifest] = tmp_path.rglob("*.manifest.json")
        manifest.unlink()
        await append.die_last()
        assert append.times == 1
        arguments = append.job.arguments
        others = ("--table", "people", "--spool", arguments["spool"]) if kind == "postgres" else ()
        shown = await ran("status", arguments["to"], *others)
        assert shown.code == 0
        assert b"written " in shown.stdout
        assert b"unfinished" not in shown.stdout


@pytest.mark.parametrize("kind", ["folder", "duckdb", "postgres"])
@pytest.mark.parametrize("lost", ["nothing", "origin.json", "journal.sqlite"])
async def test_whoever_discards_it_is_told_that_its_rows_are_there(
    tmp_path: Path, postgres: Server, kind: str, lost: str
) -> None:
    to = target_of(kind, postgres)
    async with appending(tmp_path, to) as append:
        await append.die(append.job, when="before")
        [journal] = tmp_path.rglob("journal.sqlite")
        for path in journal.parent.glob(f"{lost}*"):
            path.unlink()
        arguments = append.job.arguments
        others = ("--table", "people", "--spool", arguments["spool"]) if kind == "postgres" else ()

        shown = await ran("status", arguments["to"], *others)
        assert shown.code == 0, shown
        is_readable = lost != "journal.sqlite"
        assert (b"--finish-unfinished" in shown.stdout) is is_readable
        assert (b"the same export says whether" in shown.stdout) is not is_readable
        for option, code in (((), 2), (("--yes",), 0)):
            done = await ran("status", arguments["to"], *others, "--discard-unfinished", *option)
            assert done.code == code, done
            said = " ".join(done.stderr.split())
            verb = "are" if is_readable else "may be"
            assert f"its rows {verb} in " in said
            assert "the same export adds them again" in said
            assert ("--finish-unfinished` has them there once" in said) is is_readable
        assert append.times == 1
        assert not told(await append.again())
        assert append.times == 2


async def test_whoever_discards_what_has_added_no_rows_is_told_nothing(tmp_path: Path) -> None:
    async with appending(tmp_path, "people.duckdb") as append:
        dying = append.job.but(die=(0, "before"), die_in="duckdb COMMIT")
        assert (await append.processes.run(dying)).signal == signal.SIGKILL
        options = ("status", append.job.arguments["to"], "--discard-unfinished", "--yes")
        done = await ran(*options)
        assert done.code == 0
        assert "its rows" not in done.stderr
        assert not list(tmp_path.rglob("*.export"))


async def test_what_it_has_left_is_removed_by_hand_and_its_rows_stay_known(tmp_path: Path) -> None:
    async with appending(tmp_path, "people") as append:
        await append.die(append.job)
        outcome = await append.again(end=20260115)
        assert outcome.report is not None
        [warning] = outcome.report["warnings"]
        assert "its rows had been added by then" in warning
        assert "--finish-unfinished" not in warning
        assert "--discard-unfinished` removes them as well" in warning
        to = append.job.arguments["to"]
        assert (await ran("status", to, "--discard-unfinished", "--yes")).code == 0
        assert not list(tmp_path.rglob("journal.sqlite"))
        outcome = await append.again(end=20260114)
        assert outcome.report is not None
        assert outcome.report["warnings"] == []
        rows = append.rows()
        assert told(await append.again())
        assert append.rows() == rows


async def test_another_export_of_the_same_plan_is_unfinished_all_the_same(tmp_path: Path) -> None:
    async with appending(tmp_path, "people") as append:
        replacing = append.job.but(arguments={**append.job.arguments, "write": "replace"})
        step = "sqlite3 commit"
        outcome = await append.processes.run(replacing.but(listed=True))
        commits = outcome.steps.count(step)
        await append.again()
        await append.die(append.job, removed=1)
        dying = replacing.but(die=(commits - 3, "after"), die_in=step)
        assert (await append.processes.run(dying)).signal == signal.SIGKILL
        to = append.job.arguments["to"]
        shown = await ran("status", to, "--json")
        assert shown.code == 0
        [state] = map(json.loads, shown.stdout.splitlines())
        assert len(state["unfinished"]) == 1
        outcome = await append.again(end=20260115)
        assert outcome.report is not None
        assert "--finish-unfinished" in "".join(outcome.report["warnings"])


async def test_other_flattened_columns_are_in_the_report(tmp_path: Path) -> None:
    async with appending(tmp_path, "people", flatten=["Customer Type"]) as append:
        await append.die(append.job, removed=1)
        outcome = await append.again(flatten=[])
        assert told(outcome)
        assert outcome.report is not None
        assert "with `flatten` ('Customer Type'), and not" in "".join(outcome.report["warnings"])
        await append.die(append.job, removed=1)
        outcome = await append.again()
        assert outcome.report is not None
        assert "`flatten`" not in "".join(outcome.report["warnings"])


async def test_what_other_windows_have_left_and_cannot_be_removed_is_in_the_report(
    tmp_path: Path,
) -> None:
    async with appending(tmp_path, "people", windows=3) as append:
        await append.die(append.job)
        [journal] = tmp_path.rglob("journal.sqlite")
        # As a backup does.
        with closing(sqlite3.connect(journal, isolation_level=None)) as reader:
            reader.execute("BEGIN").execute("SELECT * FROM sqlite_master").fetchall()
            for _ in range(2):
                outcome = await append.again(windows=2)
                assert told(outcome)
                assert outcome.report is not None
                assert "adds nothing" in "".join(outcome.report["warnings"])
                assert append.times == 1
        assert told(await append.again(windows=2))
        assert not told(await append.again(windows=2))
        assert append.times == 2


CHANGES = {
    "changed": ("UPDATE people SET source_id = source_id",),
    "copied": (
        "CREATE TABLE saved AS SELECT * FROM people",
        "TRUNCATE people",
        "INSERT INTO people SELECT * FROM saved",
    ),
}


@pytest.mark.parametrize("removed", [0, 1])
@pytest.mark.parametrize("change", CHANGES)
async def test_bindings_that_somebody_has_changed_are_not_added_twice(
    tmp_path: Path, postgres: Server, change: str, removed: int
) -> None:
    # The manifest is written to the current folder.
    with chdir(tmp_path):
        async with (
            Emulator(people=200, seed=3) as emulator,
            exporter(tmp_path / "processes") as processes,
        ):
            to = postgres.url()
            bound = Bindings(emulator.population)
            people = map(emulator.population.identity, range(len(emulator.population)))
            keys = [key for key in people if key is not None and bound.by_user(key)][:25]
            job = Job(
                arguments={
                    "keys": keys,
                    "by": "user_id",
                    "write": "append",
                    "to": to,
                    "table": "people",
                    "spool": str(tmp_path),
                },
                environment=emulator.environment,
                slots=1,
            )
            append = Append(
                processes, job, lambda: int(in_postgres(to, "SELECT count(*) FROM people")[0][0])
            )
            await append.begin()
            await append.die(job, removed=removed)
            rows = append.rows()
            for statement in CHANGES[change]:
                in_postgres(to, statement)
            assert told(await append.again())
            assert append.rows() == rows


async def test_a_report_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    async with appending(tmp_path, "people") as append:
        await append.die(append.job, removed=1)
        [note] = tmp_path.rglob("ended-*.json")
        note.write_text(note.read_text().replace('\\"requests\\"', '\\"others\\"'))
        for _ in range(2):
            outcome = await append.processes.run(append.job)
            assert outcome.error == "ExportError"
            assert "its report cannot be read; to add them once more" in outcome.message
            assert append.times == 1
        assert not told(await append.again(resume=False))
        assert append.times == 2


def damage(journal: Path, how: str) -> None:
    """Damage a journal that a process has left, as a disk may do."""
    for path in (journal, journal.with_name(f"{journal.name}-wal")):
        content = path.read_bytes() if path.exists() else b""
        if content:
            path.write_bytes(b"x" * len(content) if how == "garbage" else content[:5000])


DAMAGES = ("garbage", "truncated")


@pytest.mark.parametrize("removed", [0, 1])
@pytest.mark.parametrize("how", DAMAGES)
async def test_a_journal_that_was_damaged_after_the_end_does_not_matter(
    tmp_path: Path, how: str, removed: int
) -> None:
    async with appending(tmp_path, "people.duckdb", windows="auto") as append:
        await append.die(append.job, removed=removed)
        [journal] = tmp_path.rglob("journal.sqlite")
        damage(journal, how)
        assert told(await append.again())
        assert append.times == 1
        assert not list(tmp_path.rglob("*.export"))
        assert not told(await append.again())
        assert append.times == 2


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("kind", ["folder", "duckdb", "postgres"])
async def test_rows_that_are_there_are_not_added_by_the_advice_on_a_damaged_journal(
    tmp_path: Path, postgres: Server, kind: str, how: str
) -> None:
    to = target_of(kind, postgres)
    async with appending(tmp_path, to) as append:
        await append.die(append.job, when="before")
        assert append.times == 1
        [journal] = tmp_path.rglob("journal.sqlite")
        damage(journal, how)
        for _ in range(2):
            outcome = await append.processes.run(append.job)
            assert outcome.error == "ExportError", outcome
            assert "all its rows are in" in outcome.message, outcome
            assert "resume=False" not in outcome.message
            assert append.times == 1
        shown = await ran("status", append.job.arguments["to"])
        assert shown.code == 0
        assert b"--discard-unfinished`" not in shown.stdout
        shutil.rmtree(journal.parent)
        assert not told(await append.again())
        assert append.times == 2


async def test_of_several_accounts_one_with_a_damaged_journal_is_to_be_left_out(
    tmp_path: Path,
) -> None:
    async with of_two(tmp_path) as append:
        await append.die(append.job, when="before")
        journal, _ = tmp_path.rglob("journal.sqlite")
        damage(journal, "garbage")
        for _ in range(2):
            outcome = await append.processes.run(append.job)
            assert outcome.error == "AccountsFailed", outcome
            [name] = [
                name for name in append.job.accounts if f"{name} has failed" in outcome.message
            ]
            manifest = (tmp_path / "place" / "both.manifest.json").read_text()
            assert f"delete {journal.parent}, and run the others, not {name}" in manifest
            assert append.times == 1


async def test_the_advice_on_a_damaged_journal_adds_rows_that_are_not_there(
    tmp_path: Path,
) -> None:
    async with appending(tmp_path, "people.duckdb") as append:
        dying = append.job.but(die=(0, "before"), die_in="duckdb COMMIT")
        assert (await append.processes.run(dying)).signal == signal.SIGKILL
        [journal] = tmp_path.rglob("journal.sqlite")
        damage(journal, "garbage")
        outcome = await append.processes.run(append.job)
        assert outcome.error == "ExportError", outcome
        assert outcome.message.endswith("discard the unfinished export with `resume=False`")
        [origin] = tmp_path.rglob("origin.json")
        origin.unlink()
        outcome = await append.processes.run(append.job)
        assert "is not known: if they are, delete" in outcome.message
        assert append.times == 0
        assert not told(await append.again(resume=False))
        assert append.times == 1


async def test_of_several_accounts_all_are_needed_once_something_is_removed(tmp_path: Path) -> None:
    async with (
        Emulator(people=10, seed=5) as third,
        of_two(tmp_path) as append,
    ):
        accounts = append.job.accounts
        for removed in (1, 2):
            await append.die(append.job, removed=removed)
            more = append.job.but(accounts={**accounts, "third": third.environment})
            outcome = await append.processes.run(more)
            assert outcome.error == "ExportError", outcome
            assert "those of shop, outlet are there, and it added none of third" in outcome.message
            swapped = dict(reversed(accounts.items()))
            outcome = await append.processes.run(append.job.but(accounts=swapped))
            assert told(outcome)
            assert append.times == removed
        # One account alone changes nothing for all of them.
        await append.die(append.job, removed=3)
        rows = append.rows()
        for accounts_now in ({"shop": accounts["shop"]}, accounts):
            assert told(await append.processes.run(append.job.but(accounts=accounts_now)))
            assert append.rows() == rows
        # Each account can be resumed alone, and has its own report.
        for number in range(3):
            await append.die(append.job, removed=number)
            rows = append.rows()
            people = 0
            for name in accounts:
                alone = append.job.but(accounts={name: accounts[name]})
                outcome = await append.processes.run(alone)
                assert told(outcome)
                assert outcome.report is not None
                assert not outcome.report.get("accounts")
                people += outcome.report["people"]
            assert people == append.once
            assert append.rows() == rows


async def test_an_account_whose_journal_is_in_use_is_an_error(tmp_path: Path) -> None:
    async with of_two(tmp_path) as append:
        await append.die(append.job, removed=1)
        rows = append.rows()
        # A run whose other journal is in use removes that which is empty.
        for journal in filter(Path.exists, [*tmp_path.rglob("journal.sqlite")]):
            with closing(sqlite3.connect(journal, isolation_level=None)) as reader:
                reader.execute("BEGIN").execute("SELECT * FROM sqlite_master").fetchall()
                outcome = await append.processes.run(append.job)
                assert outcome.error in ("AccountsFailed", "ExportLocked"), outcome
            assert append.rows() == rows
        assert told(await append.again())
        assert append.rows() == rows


async def test_what_one_account_leaves_of_several_is_known_to_be_over(tmp_path: Path) -> None:
    async with of_two(tmp_path) as append:
        accounts = append.job.accounts
        await append.die(append.job)
        outcome = await append.processes.run(append.job.but(accounts={"shop": accounts["shop"]}))
        assert told(outcome)
        to = append.job.arguments["to"]
        discard = ("status", to, "--discard-unfinished", "--yes")
        assert (await ran(*discard)).code == 0
        rows = append.rows()
        alone = append.job.but(accounts={"outlet": accounts["outlet"]})
        assert told(await append.processes.run(alone))
        assert append.rows() == rows


async def test_of_several_accounts_only_those_whose_rows_are_gone_are_written_again(
    tmp_path: Path,
) -> None:
    async with of_two(tmp_path) as append:
        accounts = append.job.accounts
        folder = Path(append.job.arguments["to"])
        for path in folder.glob("*.parquet"):
            path.unlink()
        await append.die(append.job, removed=2)
        files = {
            path: pyarrow.parquet.read_table(path)["account"][0].as_py()
            for path in folder.glob("*.parquet")
        }
        of_shop = accounts["shop"]["CLEVERTAP_ACCOUNT_ID"]
        [lost] = [path for path, account in files.items() if account == of_shop]
        lost.unlink()
        left = append.rows()
        assert left > 0
        # Neither account is added as long as nobody says which.
        outcome = await append.processes.run(append.job)
        assert outcome.error == "ExportError", outcome
        assert "those of outlet are there, and it added none of shop" in outcome.message
        assert append.rows() == left
        alone = append.job.but(accounts={"shop": accounts["shop"]})
        assert not told(await append.processes.run(alone))
        assert append.rows() == append.once
        others = append.job.but(accounts={"outlet": accounts["outlet"]})
        assert told(await append.processes.run(others))
        assert append.rows() == append.once


async def test_an_account_that_found_nobody_does_not_add_the_others_twice(tmp_path: Path) -> None:
    async with of_two(tmp_path, people=0) as append:
        await append.die(append.job, removed=2)
        assert told(await append.again())
        assert append.times == 1


@pytest.mark.parametrize("removed", [0, 1])
@pytest.mark.parametrize(("windows", "other"), [("auto", 2), (2, "auto"), (2, 3)])
async def test_the_same_export_in_other_windows_adds_its_rows_once(
    tmp_path: Path, windows: int | str, other: int | str, removed: int
) -> None:
    async with appending(tmp_path, "people", windows=windows) as append:
        await append.die(append.job, removed=removed)
        assert told(await append.again(windows=other))
        assert append.times == 1
        assert not list(tmp_path.rglob("*.export"))
        assert not told(await append.again())
        assert append.times == 2


@pytest.mark.parametrize(("windows", "other"), [("auto", 2), (2, 3)])
async def test_in_other_windows_rows_are_not_added_before_the_end_is_noted_either(
    tmp_path: Path, windows: int | str, other: int
) -> None:
    async with appending(tmp_path, "people.duckdb", windows=windows) as append:
        await append.die(append.job, when="before")
        arguments = {**append.job.arguments, "windows": other}
        for _ in range(2):
            outcome = await append.processes.run(append.job.but(arguments=arguments))
            assert outcome.error == "ExportError", outcome
            assert "run it with `windows=" in outcome.message
            assert append.times == 1
        assert told(await append.again())
        assert append.times == 1
        assert not list(tmp_path.rglob("*.export"))


@pytest.mark.parametrize("kind", ["folder", "duckdb", "postgres"])
@pytest.mark.parametrize(
    ("lost", "words"),
    [
        ("origin.json", "run it with `windows=1`, which adds none"),
        ("journal.sqlite", "all its rows are in .*: delete .*, and do not run it again"),
        ("both", "whether its rows are in .* is not known: if they are, delete"),
    ],
)
async def test_in_other_windows_rows_are_not_added_whatever_is_lost(
    tmp_path: Path, postgres: Server, kind: str, lost: str, words: str
) -> None:
    """An earlier version has no `origin.json`."""
    to = target_of(kind, postgres)
    async with appending(tmp_path, to, windows=1) as append:
        await append.die(append.job, when="before")
        [journal] = tmp_path.rglob("journal.sqlite")
        if lost != "journal.sqlite":
            journal.with_name("origin.json").unlink()
        if lost != "origin.json":
            damage(journal, "garbage")
        arguments = {**append.job.arguments, "windows": 2}
        for _ in range(2):
            outcome = await append.processes.run(append.job.but(arguments=arguments))
            assert outcome.error == "ExportError", outcome
            assert re.search(words, outcome.message), outcome
            assert append.times == 1
        if lost == "origin.json":
            assert told(await append.again())
            assert append.times == 1


async def test_in_other_windows_rows_that_are_not_there_are_added(tmp_path: Path) -> None:
    async with appending(tmp_path, "people.duckdb", windows=1) as append:
        dying = append.job.but(die=(0, "before"), die_in="duckdb COMMIT")
        assert (await append.processes.run(dying)).signal == signal.SIGKILL
        [origin] = tmp_path.rglob("origin.json")
        origin.unlink()
        assert not told(await append.again(windows=2))
        assert append.times == 1


@pytest.mark.parametrize("removed", [0, 1])
async def test_in_other_windows_without_resume_its_rows_are_added_once_more(
    tmp_path: Path, removed: int
) -> None:
    async with appending(tmp_path, "people") as append:
        await append.die(append.job, removed=removed)
        assert not told(await append.again(windows=2, resume=False))
        assert append.times == 2
        assert not list(tmp_path.rglob("*.export"))


async def test_what_cannot_be_removed_is_in_the_report(tmp_path: Path) -> None:
    """The disk of the records is full at the end, and takes not even the mark that it is over."""
    disk = tmp_path / "disk"
    disk.mkdir()
    with mounted("-t", "tmpfs", "-o", "size=2m", "tmpfs", at=disk):
        async with appending(tmp_path, "people", spool=str(disk)) as append:
            child = await append.processes.start(append.job.but(stop=append.noted - 2))
            await append.processes.stopped()
            with filled(disk):
                os.kill(child, signal.SIGCONT)
                outcome = await append.processes.ended()
            assert outcome.report is not None, outcome
            assert append.times == 1
            [warning] = outcome.report["warnings"]
            assert "cannot be removed, so that the same call once more adds nothing" in warning
            assert told(await append.again())
            assert append.times == 1
            assert not told(await append.again())
            assert append.times == 2
