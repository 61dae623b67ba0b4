"""DuckDB files in use by others, and exports into them that are killed."""

from __future__ import annotations

import asyncio
import logging
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import duckdb
import pytest

from altaprofiles import (
    ExportError,
    ExportLocked,
    ExportProgress,
    Incomplete,
    InvalidArgument,
)
from altaprofiles.cli.exits import Exit, exit_code
from altaprofiles.emulator import Emulator
from altaprofiles.export.keys import KeyFile
from altaprofiles.export.sinks.duck import DuckDbTarget
from altaprofiles.export.tables import Origin

from ..support.containers import run_apart
from ..support.exporting import Job, exporter
from ..support.jobs import EVENTS, Emulated, at_emulator
from ..support.sinks import opened, put_in_place, rows_of, target_of
from ..support.tables import record, time_of
from ..support.tasks import PATIENCE
from ..support.terminals import environment
from ..support.thorough import of_each_kind
from ..support.waiting import until

pytestmark = pytest.mark.anyio


@pytest.fixture
async def case() -> AsyncIterator[Emulated]:
    async with at_emulator(EVENTS, people=60) as emulated:
        yield emulated


def made(path: Path) -> Path:
    """Make a file with a table that is not ours."""
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE other AS SELECT 1 AS n")
    return path


HOLDER = """
import duckdb, sys
connection = duckdb.connect(sys.argv[1])
print("open", flush=True)
sys.stdin.read()
"""


@contextmanager
def held(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Hold a file open in another process, until that process reads the end of its input."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"open\n"
        try:
            yield holder
        finally:
            release(holder)


def release(holder: subprocess.Popen[bytes]) -> None:
    assert holder.stdin is not None
    holder.stdin.close()
    holder.wait()


def rows(path: Path, table: str = "profiles") -> list[Any]:
    with duckdb.connect(str(path)) as connection:
        return connection.execute(f'SELECT person FROM "{table}" ORDER BY 1').fetchall()


WAITS = "waiting for it, at most 10 min"


async def test_a_file_that_is_open_elsewhere_is_waited_for(
    tmp_path: Path, case: Emulated, caplog: pytest.LogCaptureFixture
) -> None:
    path = made(tmp_path / "p.duckdb")
    with held(path) as holder, caplog.at_level(logging.WARNING):
        task = asyncio.create_task(case.run(path))
        await until(lambda: WAITS in caplog.text, during=task)
        # Everything has been fetched meanwhile.
        asked = case.requests
        assert asked > 0
        release(holder)
        report = await task
    assert case.requests == asked
    assert report.complete
    assert len(rows(path)) == report.people
    [waiting] = [text for text in caplog.messages if WAITS in text]
    assert "p.duckdb is open in another program (" in waiting
    assert f"process {holder.pid})" in waiting


async def test_a_file_that_stays_open_costs_nothing(
    tmp_path: Path, case: Emulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = made(tmp_path / "p.duckdb")
    with held(path):
        monkeypatch.setattr(DuckDbTarget, "patience", 0.01)
        with pytest.raises(ExportLocked, match="is open in another program") as caught:
            await case.run(path)
        assert exit_code(caught.value) is Exit.INCOMPLETE
        [note] = caught.value.__notes__
        assert note.startswith("Nothing has to be fetched again: ")
        assert f"run the same {case.kind.noun} again" in note
    asked = case.requests
    await case.run(path)
    assert case.requests == asked
    assert len(rows(path)) > 0


def test_a_file_that_is_open_in_another_container_says_so(tmp_path: Path) -> None:
    path = made(tmp_path / "p.duckdb")
    with held(path):
        done = run_apart([sys.executable, "-m", "altaprofiles", "describe", path])
    words = "is open in another program (in another container or on another machine); close it"
    assert words in " ".join(done.stderr.split())


async def test_the_wait_ends_when_the_export_is_cancelled(
    tmp_path: Path, case: Emulated, caplog: pytest.LogCaptureFixture
) -> None:
    path = made(tmp_path / "p.duckdb")
    with held(path):
        task = asyncio.create_task(case.run(path))
        await until(lambda: WAITS in caplog.text, during=task)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert not (tmp_path / "p.duckdb.partial").exists()
    asked = case.requests
    await case.run(path)
    assert case.requests == asked


async def test_a_connection_of_this_process_is_named_before_the_first_request(
    tmp_path: Path, case: Emulated
) -> None:
    path = made(tmp_path / "p.duckdb")
    with duckdb.connect(str(path)), pytest.raises(ExportError, match="close that connection"):
        await case.run(path)
    assert case.requests == 0


@pytest.mark.skipif(
    tuple(map(int, duckdb.__version__.split(".")[:2])) < (1, 5), reason="DuckDB opens it twice"
)
async def test_a_file_that_this_process_has_attached_says_detach(
    tmp_path: Path, case: Emulated
) -> None:
    path = made(tmp_path / "p.duckdb")
    with duckdb.connect() as connection:
        connection.execute(f"ATTACH '{path}' AS t")
        with pytest.raises(ExportError, match=r"is open in this process already; .* `DETACH`"):
            await case.run(path)
        assert case.requests == 0
        connection.execute("DETACH t")
        await case.run(path)


async def test_an_encrypted_file_is_not_called_damaged(tmp_path: Path, case: Emulated) -> None:
    path = tmp_path / "p.duckdb"
    with duckdb.connect() as connection:
        try:
            # Without an extension, newer versions encrypt only when they are told to.
            with suppress(duckdb.CatalogException):
                connection.execute("SET force_mbedtls_unsafe = 'true'")
            connection.execute(f"ATTACH '{path}' AS t (ENCRYPTION_KEY 'k')")
        except duckdb.BinderException:
            pytest.skip("this DuckDB encrypts no files")
        connection.execute("CREATE TABLE t.x AS SELECT 1 AS n; DETACH t")
    with pytest.raises(ExportError, match=r"p\.duckdb is encrypted"):
        await case.run(path)
    assert case.requests == 0


async def test_a_file_of_sqlite_is_named_as_one(tmp_path: Path, case: Emulated) -> None:
    path = tmp_path / "p.duckdb"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE people AS SELECT 1 AS id")
        connection.commit()
    content = path.read_bytes()
    text = r"p\.duckdb is a file of SQLite and not of DuckDB; name another one$"
    with pytest.raises(ExportError, match=text):
        await case.run(path)
    assert (case.requests, path.read_bytes()) == (0, content)
    with pytest.raises(InvalidArgument, match=rf"^keys: .*{text}"):
        list(KeyFile(path, "identity", None))


def test_the_fix_of_a_result_that_a_notebook_has_shown_works(tmp_path: Path) -> None:
    path = made(tmp_path / "p.duckdb")
    done = subprocess.run(
        [sys.executable, "-c", NOTEBOOK, path],
        env=environment(tmp_path, {"IPYTHONDIR": str(tmp_path)}),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    refused, exported = done.stdout.splitlines()[-2:]
    assert "keeps it open: with N of its Out[N], `%xdel _N` ends that" in refused
    assert exported == "True"


NOTEBOOK = """
import asyncio, sys
from IPython.core.interactiveshell import InteractiveShell
from altaprofiles import ExportError, Session
from altaprofiles.emulator import Emulator


async def export():
    async with Emulator(people=5) as emulator, Session(clevertap=emulator.clevertap) as session:
        days = {"start": 20260101, "end": 20260131}
        try:
            report = await session.export("Charged", **days, to=sys.argv[1], table="fresh")
        except ExportError as error:
            return error
        return report.complete


shell = InteractiveShell.instance()
# The connection has no name, and the last three results are others.
shown = f"import duckdb; duckdb.connect({sys.argv[1]!r}).sql('from duckdb_tables()')"
for cell in ("0", shown, "1", "2", "3", "4"):
    shell.run_cell(cell, store_history=True).raise_error()
print(asyncio.run(export()))
shell.run_cell("%xdel _2").raise_error()
print(asyncio.run(export()))
"""


@pytest.mark.parametrize("existing", [False, True])
async def test_exports_into_one_file_take_turns(
    tmp_path: Path, case: Emulated, existing: bool
) -> None:
    path = tmp_path / "p.duckdb"
    if existing:
        made(path)
    spools = [tmp_path / f"spool {number}" for number in range(3)]
    for spool in spools:
        spool.mkdir()
    async with case.session() as session:
        reports = await asyncio.gather(
            *(
                case.start(session, path, table=f"t{number}", spool=spool)
                for number, spool in enumerate(spools)
            )
        )
    for number, report in enumerate(reports):
        assert len(rows(path, f"t{number}")) == report.people
    assert not (tmp_path / "p.duckdb.partial").exists()


async def test_a_file_that_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "p.duckdb"
    sink = opened(target_of(path))
    sink.write(rows_of([record("a", ["1"])]))
    made(path)
    with pytest.raises(ExportError, match="has been created while"):
        put_in_place(sink)
    sink.abort()
    with duckdb.connect(str(path)) as connection:
        assert connection.execute("SHOW TABLES").fetchall() == [("other",)]
    assert [*tmp_path.iterdir()] == [path]


# Kills


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="forks, and kills with signals")
@pytest.mark.parametrize(
    ("existing", "write"),
    [(True, "upsert"), (True, "replace"), (True, "append"), (False, "upsert")],
)
async def test_a_killed_export_leaves_the_old_rows_or_the_new_ones(
    tmp_path: Path, existing: bool, write: str
) -> None:
    place, fetched = tmp_path / "place", tmp_path / "fetched"
    path = place / "p.duckdb"
    place.mkdir()
    async with Emulator(people=60, seed=3) as emulator, exporter(tmp_path / "runs") as processes:
        if existing:
            account = emulator.environment["CLEVERTAP_ACCOUNT_ID"]
            before = Origin("earlier", (account,), time_of(0))
            sink = opened(target_of(path, write=write), [], before)
            sink.write(rows_of([record("of before", ["1"])], account))
            put_in_place(sink)
        old = content(path)
        job = Job(
            arguments={**ONE_CHAIN, "to": str(path), "write": write},
            environment=emulator.environment,
        )
        await processes.fetch(job)
        place.rename(fetched)
        shutil.copytree(fetched, place)
        outcome = await processes.run(job.but(listed=True))
        assert outcome.report is not None, outcome
        new = content(path)
        assert len(new) == outcome.report["people"] + (existing and write != "replace")
        unlinked = [n for n, step in enumerate(outcome.steps) if step == "os.unlink"]
        seen = set()
        # The statements in the file, and the steps that put it in place and end the export.
        begun = outcome.steps.index("duckdb BEGIN")
        numbers = [
            n
            for n, step in enumerate(outcome.steps)
            if n >= begun and (step.startswith("duckdb") or step in ("os.replace", "os.rmdir"))
        ]
        for number in of_each_kind(numbers, outcome.steps, half=write == "append" or not existing):
            shutil.rmtree(place)
            shutil.copytree(fetched, place)
            killed = await processes.run(job.but(die=(number, "after")))
            assert killed.signal == 9
            found = content(path)
            assert found in (old, new), outcome.steps[number]
            seen.add(found == new)
            resumed = await processes.run(job)
            assert resumed.error is None, resumed
            if write == "append" and number >= unlinked[-2]:
                # The killed run had forgotten that it was over, so that this one is another.
                assert {*content(path)} == {*new}
            else:
                assert content(path) == new, outcome.steps[number]
            assert {one.name for one in place.iterdir()} == {"p.duckdb", "p.duckdb.manifest.json"}
        assert seen == {False, True}


ONE_CHAIN = {"events": "Charged", "start": 20260101, "end": 20260110, "windows": 1}


def content(path: Path) -> list[tuple[Any, ...]]:
    if not path.exists():
        return []
    with duckdb.connect(str(path)) as connection:
        return connection.execute(
            "SELECT account, person, profile_data, epoch_us(fetched_at), epoch_us(added_at)"
            " FROM profiles ORDER BY ALL"
        ).fetchall()


async def test_a_folder_that_somebody_removes_is_no_other_export(
    case: Emulated, tmp_path: Path
) -> None:
    folder, spool = tmp_path / "out", tmp_path / "spool"
    folder.mkdir()
    spool.mkdir()

    def remove(progress: ExportProgress) -> None:
        if progress.records:
            shutil.rmtree(folder, ignore_errors=True)

    with pytest.raises(Incomplete, match="somebody has removed its folder; make it again"):
        await case.run(folder / "p.duckdb", spool=spool, on_progress=remove)
    folder.mkdir()
    assert (await case.run(folder / "p.duckdb", spool=spool)).complete
