"""Rows that are encoded before all have arrived: the same output, byte for byte."""

from __future__ import annotations

import asyncio
import csv
import errno
import hashlib
import json
import os
import random
import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import msgspec
import pyarrow.parquet
import pytest
from msgspec.structs import replace

from altaprofiles import CleverTap, Session
from altaprofiles.emulator import Emulator
from altaprofiles.emulator.people import Population
from altaprofiles.export.sinks import BlockSink, Encoded, Sink, Target, parquet
from altaprofiles.export.store.people import Choice
from altaprofiles.export.tables import Content
from altaprofiles.tables.kinds import Kinds
from altaprofiles.tables.mended import Mended
from altaprofiles.tables.rows import Row

from ..support.postgres import Server
from ..support.records import BROKEN, ODD
from ..support.servers import http, scripted
from ..support.sessions import QUICK, session_for
from ..support.sinks import ACCOUNT, ORIGIN, completing, target_of
from ..support.waiting import until

pytestmark = pytest.mark.each_value

FILES = ["x.csv", "x.csv.gz", "x.csv.zst", "x.parquet", "x.duckdb", "folder/"]
REPEATING = Content(has_events=True, repeats=True)
FLATTEN: dict[str, Any] = {"Cart Value": "double", "note": "text"}
POPULATION = Population(700, 3)
NUL = rb'{"identity":"a\u0000b","profileData":{"note":"\u0000","Cart Value":1.5}}'
ROWS = [
    Row(record, ACCOUNT, matched=("App Launched",))
    for record in [
        *(msgspec.json.encode(POPULATION.record(number, app=True)) for number in range(700)),
        BROKEN,
        *(record for record, _, _ in ODD),
        NUL,
    ]
]
EVENTS = [("App Launched",), ("App Launched", 'Char"ged, \\ twice'), ("Charged", "Léa")]


def chosen(kind: str) -> tuple[Choice, list[Row]]:
    """Return a choice of the rows, and the rows as they are written."""
    dice = random.Random(kind)  # noqa: S311
    flags = bytes(kind in ("all", "matched") or dice.random() < 0.7 for _ in ROWS)
    if kind == "none":
        flags = bytes(len(ROWS))
    rows = [row for row, flag in zip(ROWS, flags, strict=True) if flag]
    if "matched" not in kind:
        return Choice(flags), rows
    matched = [dice.choice(EVENTS) for _ in rows]
    rows = [replace(row, matched=events) for row, events in zip(rows, matched, strict=True)]
    return Choice(flags, matched), rows


def opened(target: Target) -> tuple[Sink, Any]:
    def table() -> Any:
        kinds = Kinds(target.flatten) if target.has_types else None
        return target.content.table(target.flatten, kinds, ORIGIN)

    return target.open(table(), ORIGIN), table


def put(target: Target, kind: str, size: int, count: int = len(ROWS)) -> Sink:
    """Encode the first `count` rows in blocks of `size` rows, and write those that are chosen."""
    sink, table = opened(target)
    assert isinstance(sink, BlockSink)
    assert sink.takes(table().columns)
    choice, written = chosen(kind)
    matched = None if choice.matched is None else iter(choice.matched)
    with completing(sink):
        for start in range(0, count, size):
            encoder = target.encoder(table())
            rows = ROWS[start : min(start + size, count)]
            encoder.add(rows)
            data = encoder.take()
            flags = choice.flags[start : start + len(rows)]
            mended = Mended()
            for row, flag in zip(rows, flags, strict=True):
                alone = target.encoder(table())
                alone.add([row])
                alone.take()
                mended += alone.mended if flag else Mended()
            some = None if matched is None else [next(matched) for flag in flags if flag]
            sink.put(Encoded(memoryview(data), Choice(flags, some), mended))
        sink.write(written[sum(choice.flags[:count]) :])
    return sink


def write(target: Target, kind: str) -> Sink:
    """Write the rows that are chosen as they are."""
    sink, _ = opened(target)
    with completing(sink):
        sink.write(chosen(kind)[1])
    return sink


@pytest.mark.parametrize("kind", ["all", "some", "matched", "some matched", "none"])
@pytest.mark.parametrize("name", FILES)
def test_blocks_make_the_file_that_rows_make(tmp_path: Path, name: str, kind: str) -> None:
    contents = []
    for folder in ("rows", "blocks"):
        (tmp_path / folder).mkdir()
        target = target_of(
            f"{tmp_path / folder}/{name}", REPEATING, flatten=FLATTEN, write="replace"
        )
        sink = write(target, kind) if folder == "rows" else put(target, kind, 150)
        contents.append((read(tmp_path / folder, name), sink.mended))
    assert contents[0] == contents[1]
    assert contents[0][1] == Mended() or kind != "none"


@pytest.mark.parametrize("name", ["x.csv", "x.parquet", "x.duckdb"])
def test_it_is_the_same_wherever_blocks_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(parquet, "GROUP_ROWS", 211)
    contents = []
    for number, (size, count) in enumerate([(0, 0), (1, 90), (37, 500), (300, 520), (800, 800)]):
        folder = tmp_path / str(number)
        folder.mkdir()
        target = target_of(folder / name, REPEATING, flatten=FLATTEN, write="replace")
        kind = "some matched"
        sink = put(target, kind, size, min(count, len(ROWS))) if size else write(target, kind)
        contents.append((read(folder, name), sink.mended))
    assert all(content == contents[0] for content in contents)


def read(folder: Path, name: str) -> Any:
    if name.endswith(".duckdb"):
        with duckdb.connect(folder / name) as connection:
            return connection.execute("SELECT * FROM profiles ORDER BY rowid").fetchall()
    path = folder / name
    return (path / "people.parquet" if path.is_dir() else path).read_bytes()


def test_a_file_for_spreadsheets_is_made_alike(tmp_path: Path) -> None:
    targets = [
        target_of(tmp_path / name, REPEATING, flatten=[*FLATTEN], bom=True)
        for name in ("rows.csv", "blocks.csv")
    ]
    assert write(targets[0], "matched").mended == put(targets[1], "matched", 64).mended != Mended()
    assert (tmp_path / "rows.csv").read_bytes() == (tmp_path / "blocks.csv").read_bytes()


@pytest.mark.parametrize("kind", ["some", "some matched"])
def test_blocks_make_the_rows_of_a_server(postgres: Server, kind: str) -> None:
    tables = []
    for table in ("by_rows", "by_blocks"):
        target = target_of(postgres.url(table), REPEATING, flatten=FLATTEN, write="replace")
        sink = write(target, kind) if table == "by_rows" else put(target, kind, 150)
        tables.append((postgres.rows(f"SELECT * FROM {table}"), sink.mended))
    assert tables[0] == tables[1]
    assert tables[0][1] != Mended()


# --------------------------------------------------------------------------------- of whole exports

CHARGED = {"Charged": {"count": 1, "first_seen": 1767600000}}


class Usage(NamedTuple):
    total: int
    used: int
    free: int


async def exported(to: Path, emulator: Emulator, **options: Any) -> tuple[Any, Any]:
    async with session_for(emulator) as session:
        report = await session.export(
            ["App Launched", "Charged"],
            start=20260101,
            end=20260131,
            windows=3,
            batch_size=92,
            to=to,
            **options,
        )
    return rows_in(to), report


def rows_in(path: Path) -> list[dict[str, Any]]:
    """Return the rows without the times of the export."""
    if path.suffix == ".duckdb":
        with duckdb.connect(path) as connection:
            rows = connection.sql("FROM profiles ORDER BY rowid").to_arrow_table().to_pylist()
    elif path.suffix == ".parquet":
        rows = pyarrow.parquet.read_table(path).to_pylist()
    elif path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            rows = [*csv.DictReader(file)]
    else:
        return [json.loads(line) for line in path.read_bytes().splitlines()]
    return [{k: v for k, v in row.items() if k not in ("fetched_at", "added_at")} for row in rows]


@pytest.mark.anyio
@pytest.mark.parametrize("options", [{}, {"distinct": False}, {"flatten": FLATTEN}], ids=str)
@pytest.mark.parametrize("ending", ["csv", "parquet", "duckdb"])
async def test_an_export_is_the_same_where_the_disk_has_no_room_for_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, options: dict[str, Any]
) -> None:
    if ending == "csv" and "flatten" in options:
        options = {"flatten": [*FLATTEN]}
    if ending == "duckdb" and "distinct" in options:
        options = {**options, "write": "append"}
    odd = [json.loads(NUL), {"identity": "x\x00y"}]
    async with Emulator(people=400, seed=5) as emulator:
        emulator.add(*[{**one, "events": CHARGED} for one in odd])
        with_blocks = await exported(tmp_path / f"a.{ending}", emulator, **options)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(1, 1, 0))
        without = await exported(tmp_path / f"b.{ending}", emulator, **options)
    assert with_blocks[0] == without[0]
    for name in ("people", "records", "mended", "warnings"):
        assert getattr(with_blocks[1], name) == getattr(without[1], name)
    if ending == "csv":
        assert without[1].mended > 0


PAGES = 4


def page_of(event: str, number: int) -> bytes:
    # Everybody of one event did the other as well, but for one person on each page.
    people = [{"identity": f"{number}-{one}", "name": "x" * 2000} for one in range(30)]
    people.append({"identity": f"{event}-{number}"})
    after = {} if number + 1 == PAGES else {"next_cursor": f"{event}-{number + 1}"}
    return http(msgspec.json.encode({"status": "success", "records": people, **after}))


class Held:
    """A service that holds the last page of the last event back until it is let go."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.asked = asyncio.Event()
        self.requests: list[str] = []
        self.bodies: list[bytes] = []

    async def answer(self, head: bytes, writer: asyncio.StreamWriter) -> None:
        line = head.split(b"\r\n", 1)[0].decode()
        self.requests.append(line)
        if line.startswith("POST"):
            event = "First" if b'"First"' in self.bodies[-1] else "Second"
            writer.write(http(msgspec.json.encode({"status": "success", "cursor": f"{event}-0"})))
            return
        event, _, number = line.split("cursor=")[1].split(" ")[0].partition("-")
        if event == "Second" and int(number) == PAGES - 1:
            self.asked.set()
            await self.gate.wait()
        writer.write(page_of(event, int(number)))


@asynccontextmanager
async def held(to: Path) -> AsyncIterator[tuple[Held, asyncio.Task[Any]]]:
    service = Held()
    async with (
        scripted(service.answer) as server,
        Session(clevertap=CleverTap("A", "P", base_url=server.url), retry=QUICK) as session,
    ):
        service.bodies = server.bodies
        task = asyncio.create_task(
            session.export(
                ["First", "Second"], start=20260101, end=20260101, windows=1, to=to, count=False
            )
        )
        try:
            await until(service.asked.is_set, during=task)
            yield service, task
        finally:
            service.gate.set()
            await asyncio.gather(task, return_exceptions=True)


def files_without_name(folder: Path) -> Sequence[tuple[Path, int]]:
    """Return the open files without a name that were made in a folder, with their sizes."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        try:
            target = str(link.readlink())
            size = link.stat().st_size
        except FileNotFoundError:
            continue
        if target.startswith(str(folder)) and ("(deleted)" in target or "#" in target):
            found.append((link, size))
    return found


@pytest.mark.anyio
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="no /proc")
@pytest.mark.parametrize("is_damaged", [False, True])
@pytest.mark.parametrize("ending", ["csv", "parquet", "duckdb"])
async def test_what_has_arrived_is_encoded_while_a_page_is_awaited(
    tmp_path: Path, ending: str, is_damaged: bool
) -> None:
    async with held(tmp_path / f"a.{ending}") as (service, task):
        pages = 2 * PAGES - 1
        # All but one page, whose records take 2,000 bytes each, in whatever form.
        await until(
            lambda: sum(size for _, size in files_without_name(tmp_path)) >= pages * 30 * 1000,
            during=task,
        )
        if is_damaged:
            for link, size in files_without_name(tmp_path):
                with link.open("r+b") as file:
                    file.seek(size // 2)
                    byte = file.read(1)
                    file.seek(size // 2)
                    file.write(bytes([byte[0] ^ 0xFF]))
        service.gate.set()
        report = await task
    expected = [f"{number}-{one}" for number in range(PAGES) for one in range(30)]
    rows = rows_in(tmp_path / f"a.{ending}")
    matched = {
        row["identity"]: json.loads(row["matched"]) if ending == "csv" else row["matched"]
        for row in rows
    }
    assert len(rows) == report.people == len(matched) == PAGES * 32
    assert all(matched[who] == ["First", "Second"] for who in expected)
    assert all(
        matched[f"{event}-{number}"] == [event]
        for event in ("First", "Second")
        for number in range(PAGES)
    )
    # Nothing was asked for again.
    assert len(service.requests) == len(set(service.requests)) + 1


# ------------------------------------------------------------------ a chain that becomes the output


MEMORY = next(filter(Path.is_dir, [Path("/dev/shm")]), None)  # noqa: S108


async def one_chain(to: Path, emulator: Emulator, **options: Any) -> tuple[Any, set[int]]:
    """Export one chain; return the report, and the numbers (inodes) of spools while it ran."""
    spools: set[int] = set()

    def on_progress(progress: Any) -> None:
        for folder in (to.parent, options.get("spool", to.parent)):
            spools.update(path.stat().st_ino for path in Path(folder).rglob("*.spool.ndjson"))

    async with session_for(emulator) as session:
        report = await session.export(
            "App Launched",
            start=20260101,
            end=20260131,
            windows=1,
            batch_size=92,
            to=to,
            on_progress=on_progress,
            **options,
        )
    assert report.sha256 == hashlib.sha256(to.read_bytes()).hexdigest()
    assert report.bytes == to.stat().st_size
    assert [path.name for path in to.parent.iterdir() if path.is_dir()] == []
    return report, spools


@pytest.mark.anyio
@pytest.mark.skipif(os.name == "nt", reason="an open file has no second name there")
async def test_one_chain_becomes_the_output_without_a_copy(tmp_path: Path) -> None:
    to = tmp_path / "people.ndjson"
    copied = tmp_path / "other" / "people.ndjson"
    # Often the file system of the memory, and so another one than that of the output.
    elsewhere = Path(tempfile.gettempdir()) if MEMORY is None else MEMORY
    async with Emulator(people=300, seed=5) as emulator:
        report, spools = await one_chain(to, emulator)
        assert {to.stat().st_ino} == spools
        assert to.stat().st_nlink == 1
        assert report.people == report.records > 0
        # The same as a copy, which is made where the chain is written elsewhere.
        copied.parent.mkdir()
        with tempfile.TemporaryDirectory(dir=elsewhere) as spool:
            again, spools = await one_chain(copied, emulator, spool=spool)
        assert copied.read_bytes() == to.read_bytes()
        assert again.people == report.people
        if elsewhere.stat().st_dev != to.stat().st_dev:
            assert copied.stat().st_ino not in spools


@pytest.mark.anyio
@pytest.mark.skipif(os.name == "nt", reason="there are no such permissions")
async def test_a_chain_that_becomes_the_output_has_its_permissions(tmp_path: Path) -> None:
    async with Emulator(people=100, seed=5) as emulator:
        for name, mode in (("new", None), ("private", 0o640)):
            to = tmp_path / name / "people.ndjson"
            to.parent.mkdir()
            ordinary = to.with_name("ordinary")
            ordinary.touch()
            if mode is not None:
                to.touch()
                to.chmod(mode)
            await one_chain(to, emulator)
            expected = ordinary.stat().st_mode & 0o777 if mode is None else mode
            assert to.stat().st_mode & 0o777 == expected


@pytest.mark.anyio
@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="gives files to others")
@pytest.mark.parametrize(("uid", "gid"), [(1234, 0), (0, 1234)])
async def test_a_file_of_records_is_never_given_to_others(
    tmp_path: Path, uid: int, gid: int
) -> None:
    """A killed run is resumed by whoever owns its records."""
    to = tmp_path / "people.ndjson"
    to.touch()
    os.chown(to, uid, gid)
    async with Emulator(people=100, seed=5) as emulator:
        _, spools = await one_chain(to, emulator)
    assert (to.stat().st_uid, to.stat().st_gid) == (uid, gid)
    assert to.stat().st_ino not in spools


@pytest.mark.anyio
@pytest.mark.parametrize("error", [errno.EACCES, errno.ENOSYS, 45])
async def test_where_no_file_has_two_names_rows_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    def link(*_: Any, **__: Any) -> None:
        raise OSError(error, "no")

    monkeypatch.setattr(os, "link", link)
    to = tmp_path / "people.ndjson"
    async with Emulator(people=100, seed=5) as emulator:
        report, spools = await one_chain(to, emulator)
    assert report.people > 0
    assert to.stat().st_ino not in spools


@pytest.mark.anyio
async def test_it_is_as_old_as_its_end_and_comes_after_the_last_word_of_on_progress(
    tmp_path: Path,
) -> None:
    to, marker = tmp_path / "people.ndjson", tmp_path / "marker"
    to.write_bytes(b"last week's\n")
    is_broken = True

    def on_progress(progress: Any) -> None:
        if progress.stage == "finishing" and to.read_bytes() == b"last week's\n":
            marker.touch()
            if is_broken:
                raise ZeroDivisionError

    async with (
        Emulator(people=100, seed=5) as emulator,
        session_for(emulator) as session,
    ):
        arguments: dict[str, Any] = {"start": 20260101, "end": 20260131, "windows": 1, "to": to}
        with pytest.raises(ZeroDivisionError):
            await session.export("App Launched", on_progress=on_progress, **arguments)
        assert to.read_bytes() == b"last week's\n"
        is_broken = False
        marker.unlink()
        await session.export("App Launched", on_progress=on_progress, **arguments)
    assert to.stat().st_mtime_ns >= marker.stat().st_mtime_ns


@pytest.mark.anyio
async def test_a_chain_in_which_somebody_comes_twice_is_written_once(tmp_path: Path) -> None:
    def page(head: bytes, writer: asyncio.StreamWriter) -> None:
        line = head.split(b"\r\n", 1)[0]
        if line.startswith(b"POST"):
            writer.write(http(b'{"status":"success","cursor":"0"}'))
        elif b"cursor=0" in line:
            writer.write(
                http(
                    b'{"status":"success","records":[{"identity":"a"},{"identity":"b"}],'
                    b'"next_cursor":"1"}'
                )
            )
        else:
            writer.write(http(b'{"status":"success","records":[{"identity":"a","name":"x"}]}'))

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        page(head, writer)

    to = tmp_path / "people.ndjson"
    async with (
        scripted(answer) as server,
        Session(clevertap=CleverTap("A", "P", base_url=server.url), retry=QUICK) as session,
    ):
        arguments: dict[str, Any] = {"start": 20260101, "end": 20260101, "count": False, "to": to}
        report = await session.export("E", **arguments)
        assert to.read_bytes() == b'{"identity":"a"}\n{"identity":"b"}\n'
        assert (report.records, report.people) == (3, 2)
        report = await session.export("E", distinct=False, **arguments)
        assert report.people == 3
        assert to.read_bytes().splitlines()[2] == b'{"identity":"a","name":"x"}'
