"""Rows that are in a DuckDB file before all have arrived: the same table, whatever happens."""

from __future__ import annotations

import asyncio
import os
import random
import resource
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import compress
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pytest

from altaprofiles import CleverTap, ExportError, Session
from altaprofiles.export.sinks import (
    BlockSink,
    Encoded,
    Sink,
    Stage,
    Target,
    duck_groups,
)
from altaprofiles.export.store.people import Choice
from altaprofiles.export.tables import Content
from altaprofiles.tables.mended import Mended
from altaprofiles.tables.rows import Row

from ..support.servers import http, scripted
from ..support.sessions import QUICK
from ..support.sinks import ACCOUNT, ORIGIN, completing, target_of
from ..support.waiting import until
from .test_ahead import FLATTEN, MEMORY, ROWS

CONTENT = Content(has_events=True)
SIZE = 90
"""Rows in a block."""

TIMES = "EXCLUDE (fetched_at, added_at)"


class Case:
    """Rows of two chains, which arrive in turn, and a choice of them.

    The last rows of each chain are not encoded when all have arrived.
    """

    def __init__(self, share: float, rows: Sequence[Row] = ROWS) -> None:
        dice = random.Random(2)  # noqa: S311
        half = len(rows) // 2
        self.chains = [rows[:half], rows[half:]]
        self.flags = [bytes(dice.random() < share for _ in rows) for rows in self.chains]

    def blocks(self) -> Iterator[tuple[int, int]]:
        """Yield the chain and the start of each block, in the order in which they arrive."""
        starts = range(0, len(self.chains[0]) - SIZE, SIZE)
        yield from ((chain, start) for start in starts for chain in (0, 1))

    def written(self, chain: int, start: int = 0) -> list[Any]:
        return [*compress(self.chains[chain][start:], self.flags[chain][start:])]


def table_of(target: Target) -> Any:
    return target.content.table(target.flatten, None, ORIGIN)


def encoded(target: Target, rows: Any) -> tuple[bytes, Mended]:
    encoder = target.encoder(table_of(target))
    encoder.add(rows)
    return encoder.take(), encoder.mended


def stage_of(target: Target, folder: Path) -> Stage:
    folder.mkdir(exist_ok=True)
    stage = target.stage(folder, changes=False)
    assert stage is not None
    return stage


def load(
    target: Target,
    case: Case,
    folder: Path,
    *,
    is_held: bool = True,
    before_end: Callable[[], object] = lambda: None,
) -> Sink:
    """Stage the blocks as they arrive, and write all rows."""
    stage = stage_of(target, folder)
    staged: dict[tuple[int, int], int | None] = {}
    try:
        # Of a start of a chain that is followed by another.
        stage.put(encoded(target, ROWS[:20])[0], 0)
        for chain, start in case.blocks():
            data, _ = encoded(target, case.chains[chain][start : start + SIZE])
            staged[chain, start] = stage.put(data, chain)
        sink = stage.open(table_of(target), ORIGIN)
        assert stage.is_held == is_held
        assert isinstance(sink, BlockSink)
        with completing(sink):
            for chain, rows in enumerate(case.chains):
                end = 0
                for start in sorted(start for one, start in staged if one == chain):
                    end = start + SIZE
                    flags = case.flags[chain][start:end]
                    mended = encoded(target, [*compress(rows[start:end], flags)])[1]
                    data = b"" if is_held else encoded(target, rows[start:end])[0]
                    number = staged[chain, start] if is_held else None
                    sink.put(
                        Encoded(memoryview(data), Choice(flags), mended, ("App Launched",), number)
                    )
                sink.write(case.written(chain, end))
            before_end()
    finally:
        stage.close()
    assert [*folder.iterdir()] == []
    return sink


def write(target: Target, case: Case) -> Sink:
    with completing(target.open(table_of(target), ORIGIN)) as sink:
        for chain in range(2):
            sink.write(case.written(chain))
    return sink


def content(path: Path, columns: str = "*") -> list[list[tuple[Any, ...]]]:
    """Return the rows of both tables in any order, and the types of the columns."""
    with duckdb.connect(str(path)) as connection:
        # Python's own values of times need another package, and NaN is not equal to itself.
        rows = connection.execute(
            f"SELECT CAST(COLUMNS(*) AS VARCHAR) FROM (SELECT {columns} FROM profiles) ORDER BY ALL"
        ).fetchall()
        runs = connection.execute(
            "SELECT table_name, mode, columns, rows FROM altaprofiles_runs"
        ).fetchall()
        types = connection.execute("DESCRIBE profiles").fetchall()
    return [rows, runs, types]


def places(path: Path) -> tuple[int, int]:
    """Return the number of rows, and that of the places that they take."""
    with duckdb.connect(str(path)) as connection:
        found = connection.execute("SELECT count(*), max(rowid) + 1 FROM profiles").fetchone()
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("share", "mode"), [(0.98, "upsert"), (0.6, "upsert"), (0.98, "append"), (0.6, "replace")]
)
def test_staged_rows_are_those_of_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float, mode: str
) -> None:
    # Of the rows of one mode, some are in a group that is full.
    monkeypatch.setattr(duck_groups, "_MOST_IN_GROUP", 2048)
    case = Case(share, ROWS * 4 if mode == "append" else ROWS)
    one, other = (
        target_of(tmp_path / name, CONTENT, flatten=FLATTEN, write=mode)
        for name in ("one.duckdb", "other.duckdb")
    )
    sinks = [write(one, case), load(other, case, tmp_path / "folder")]
    assert content(tmp_path / "one.duckdb") == content(tmp_path / "other.duckdb")
    assert sinks[0].mended == sinks[1].mended != Mended()
    rows, taken = places(tmp_path / "other.duckdb")
    # With many rows that go, the file would be larger than it has to be.
    assert rows < taken if share > 0.9 else rows == taken
    assert len(sinks[0].notes) == len(sinks[1].notes) == (mode == "upsert" or mode == "replace")
    # The file that was written to it is as the other for its next user.
    write(other, case)
    assert content(tmp_path / "one.duckdb") == content(tmp_path / "other.duckdb")


def test_a_file_that_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "p.duckdb"
    with pytest.raises(ExportError, match="has been created while"):
        load(target_of(path, CONTENT), Case(1), tmp_path / "folder", before_end=path.touch)
    assert path.stat().st_size == 0
    assert {one.name for one in tmp_path.iterdir()} == {"p.duckdb", "folder"}
    assert [*(tmp_path / "folder").iterdir()] == []


@pytest.mark.parametrize("fault", ["memory", "large", "full", "disk", "there"])
def test_a_stage_that_fails_costs_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    case = Case(1)
    write(target_of(tmp_path / "one.duckdb", CONTENT, flatten=FLATTEN), case)
    folder = tmp_path / "folder"
    target = target_of(tmp_path / "other.duckdb", CONTENT, flatten=FLATTEN)
    if fault == "memory":
        monkeypatch.setattr(duck_groups, "_MEMORY", "1MB")
    elif fault == "large":
        monkeypatch.setattr(duck_groups, "_GROUP_BYTES", 1000)
    elif fault == "disk":
        if MEMORY is None or MEMORY.stat().st_dev == tmp_path.stat().st_dev:
            pytest.skip("no other disk")
        folder = MEMORY / f"altaprofiles-{os.getpid()}"
    elif fault == "there":
        # Of a killed run, and of no use.
        folder.mkdir()
        (folder / "staged.duckdb").write_bytes(b"no database")
        (folder / "staged.duckdb.wal").write_bytes(b"no log")
    try:
        if fault == "full":
            stage = stage_of(target, folder)
            before = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (8192, before[1]))
            try:
                assert stage.put(encoded(target, ROWS)[0], 0) is None
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, before)
            assert [*folder.iterdir()] == []
        else:
            load(target, case, folder, is_held=fault == "there")
    finally:
        if folder.parent == MEMORY:
            folder.rmdir()
    if fault != "full":
        assert content(tmp_path / "one.duckdb") == content(tmp_path / "other.duckdb")


# --------------------------------------------------------------------------------- of whole exports

PAGES, ON_PAGE = 4, 40


class Service:
    """A service that holds the last page of the last window back until it is let go.

    Args:
        shared: the people on each page who are there in every window.
    """

    def __init__(self, shared: int) -> None:
        self.gate = asyncio.Event()
        self.asked = asyncio.Event()
        self.bodies: list[bytes] = []
        self.requests: list[str] = []
        self._shared = shared

    async def answer(self, head: bytes, writer: asyncio.StreamWriter) -> None:
        line = head.split(b"\r\n", 1)[0].decode()
        self.requests.append(line)
        if line.startswith("POST"):
            day = msgspec.json.decode(self.bodies[-1])["from"]
            writer.write(http(msgspec.json.encode({"status": "success", "cursor": f"{day}-0"})))
            return
        day, _, number = line.split("cursor=")[1].split(" ")[0].partition("-")
        if day == "20260103" and int(number) == PAGES - 1:
            self.asked.set()
            await self.gate.wait()
        writer.write(self._page(day, int(number)))

    def _page(self, day: str, number: int) -> bytes:
        records = [
            {
                "identity": f"{day if one >= self._shared else 'all'}-{number}-{one}",
                "name": f"of {day}",
                "profileData": {"Cart Value": one / 2, "note": "x" * 500},
            }
            for one in range(ON_PAGE)
        ]
        after = {} if number + 1 == PAGES else {"next_cursor": f"{day}-{number + 1}"}
        page = msgspec.json.encode({"status": "success", "records": records, **after})
        # Half a character, which no text can hold.
        return http(page.replace(b'"of ', b'"\\ud800 '))


def arguments(to: Path, windows: int) -> dict[str, Any]:
    start = 20260101 if windows == 3 else 20260103
    return {
        "event": "Charged",
        "start": start,
        "end": 20260103,
        "windows": windows,
        "to": str(to),
        "flatten": FLATTEN,
        "count": False,
    }


@asynccontextmanager
async def serving(shared: int) -> AsyncIterator[tuple[Service, Session, str]]:
    service = Service(shared)
    async with (
        scripted(service.answer) as server,
        Session(clevertap=CleverTap(ACCOUNT, "P", base_url=server.url), retry=QUICK) as session,
    ):
        service.bodies = server.bodies
        try:
            yield service, session, server.url
        finally:
            service.gate.set()


def export(session: Session, to: Path, windows: int) -> asyncio.Task[Any]:
    options = arguments(to, windows)
    return asyncio.create_task(session.export(options.pop("event"), **options))


def staged_in(folder: Path) -> list[Path]:
    return [*folder.glob("*.export/*/staged.duckdb")]


KILLED = """
import asyncio, json, os, pathlib, signal, sys
import duckdb
from altaprofiles import CleverTap, Session

def reached(step):
    if step == sys.argv[4]:
        os.kill(os.getpid(), signal.SIGKILL)

class Connection:
    is_at_end = False

    def __init__(self, connection):
        self.connection = connection

    def __getattr__(self, name):
        return getattr(self.connection, name)

    def execute(self, sql, *values):
        found = self.connection.execute(sql, *values)
        self.is_at_end |= sql.startswith("ALTER")
        if self.is_at_end:
            reached(sql.split()[0])
        return found

def replace(path, place):
    if path.name == "staged.duckdb":
        reached("before the rename")
    rename(path, place)
    if path.name == "staged.duckdb":
        reached("after the rename")

connect, rename, pathlib.Path.replace = duckdb.connect, pathlib.Path.replace, replace
duckdb.connect = lambda *args, **options: Connection(connect(*args, **options))

async def main(url, account, options):
    async with Session(clevertap=CleverTap(account, "P", base_url=url)) as session:
        await session.export(options.pop("event"), **options)

asyncio.run(main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3])))
"""


async def killed(service: Service, url: str, to: Path, windows: int, step: str) -> None:
    """Run an export in a process that dies while it waits, or after a step of its end."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", KILLED, url, ACCOUNT),
        msgspec.json.encode(arguments(to, windows)).decode(),
        step,
    )
    ending = asyncio.create_task(process.wait())
    await until(lambda: service.asked.is_set() and staged_in(to.parent), during=ending)
    if step:
        service.gate.set()
    else:
        process.send_signal(signal.SIGKILL)
    assert await ending == -signal.SIGKILL


@pytest.mark.anyio
@pytest.mark.skipif(sys.platform == "win32", reason="kills with signals")
async def test_an_export_that_is_killed_leaves_all_or_nothing(
    tmp_path: Path,
) -> None:
    to = tmp_path / "p.duckdb"
    async with serving(0) as (service, session, url):
        for step in ("", "COMMIT", "before the rename", "after the rename"):
            service.gate.clear()
            service.asked.clear()
            await killed(service, url, to, 1, step)
            assert bool(staged_in(tmp_path)) == (step != "after the rename")
            assert to.exists() == (step == "after the rename")
            if to.exists():
                assert len(content(to)[0]) == PAGES * ON_PAGE
            service.gate.set()
            report = await export(session, to, 1)
            assert len(content(to)[0]) == report.people == PAGES * ON_PAGE
            left = sorted(path.name for path in tmp_path.iterdir())
            assert left == ["p.duckdb", "p.duckdb.manifest.json"]
            to.unlink()


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("windows", "shared", "event"),
    [
        (1, 0, "nothing"),
        (3, 15, "nothing"),
        (3, 1, "cancelled"),
        (1, 0, "created"),
    ],
)
async def test_an_export_is_complete_whatever_becomes_of_staged_rows(
    tmp_path: Path, windows: int, shared: int, event: str
) -> None:
    new, other = tmp_path / "new", tmp_path / "other"
    for folder in (new, other):
        folder.mkdir()
    to = new / "p.duckdb"
    async with serving(shared) as (service, session, _):
        task = export(session, to, windows)
        await until(lambda: service.asked.is_set() and staged_in(new), during=task)
        if event == "cancelled":
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert not staged_in(new)
            task = export(session, to, windows)
            await until(lambda: service.asked.is_set() and staged_in(new), during=task)
        elif event == "created":
            with duckdb.connect(str(to)) as connection:
                connection.execute("CREATE TABLE other AS SELECT 1 AS n")
        number = staged_in(new)[0].stat().st_ino
        service.gate.set()
        report = await task
        # Into a file that is there, rows are only loaded at the end.
        duckdb.connect(str(other / "p.duckdb")).close()
        expected = await export(session, other / "p.duckdb", windows)
    assert content(to, f"* {TIMES}") == content(other / "p.duckdb", f"* {TIMES}")
    assert report.people == expected.people == places(to)[0]
    assert (report.mended, report.records) == (expected.mended, expected.records)
    assert report.mended > 0
    assert to.stat().st_mode == (other / "p.duckdb").stat().st_mode
    assert sorted(path.name for path in new.iterdir()) == ["p.duckdb", "p.duckdb.manifest.json"]
    if shared < 5:
        assert (to.stat().st_ino == number) == (event != "created")
    rows, taken = places(to)
    assert rows > 0.85 * taken
