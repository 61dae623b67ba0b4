"""Files of an export: at the caller's path, never elsewhere, and found to be writable first."""

from __future__ import annotations

import asyncio
import ctypes
import hashlib
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import pytest

from altaprofiles import AltaProfilesError, ConfigurationError, ExportError, Incomplete
from altaprofiles.base.paths import status_of_new_file
from altaprofiles.export.report import Progress
from altaprofiles.export.sinks import Sink
from altaprofiles.export.sinks.files import partial_of

from ..support.disks import mounted
from ..support.jobs import (
    EVENTS,
    KEYS,
    KINDS,
    Kind,
    Scripted,
    at_script,
    in_turn,
    names_in,
    people_in,
    received,
    spools_of,
    workspace_of,
    workspaces_of,
)
from ..support.postgres import Server
from ..support.servers import http
from ..support.sinks import opened, put_in_place, rows_of, target_of
from ..support.terminals import environment, run
from ..support.thorough import pairwise
from ..support.waiting import until

pytestmark = [pytest.mark.anyio, pytest.mark.each_value]

IS_ROOT = os.name == "posix" and os.geteuid() == 0
only_root = pytest.mark.skipif(not IS_ROOT, reason="only root can set this up")


@pytest.fixture(params=KINDS, ids=str)
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


@pytest.fixture
async def case(kind: Kind) -> AsyncIterator[Scripted]:
    async with at_script(kind) as scripted:
        yield scripted


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """Return the path of a file of somebody's, in a folder of its own."""
    path = tmp_path / "elsewhere" / "mine"
    path.parent.mkdir()
    path.write_bytes(b"mine")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "out"
    path.mkdir()
    return path


# ------------------------------------------------------------------------------ what others planted


def link(path: Path, to: Path) -> None:
    path.symlink_to(to)


def dangling_link(path: Path, to: Path) -> None:
    path.symlink_to(to.with_name("nothing"))


def link_to_itself(path: Path, to: Path) -> None:
    path.symlink_to(path.name)


def link_to_a_pipe(path: Path, to: Path) -> None:
    to.unlink()
    os.mkfifo(to)
    path.symlink_to(to)


def hard_link(path: Path, to: Path) -> None:
    path.hardlink_to(to)


def pipe(path: Path, to: Path) -> None:
    os.mkfifo(path)


def of_another_user(path: Path, to: Path) -> None:
    path.write_bytes(b"theirs")
    os.chown(path, 65534, -1)


PLANTED = [
    link, dangling_link, link_to_a_pipe, hard_link, pipe,
    pytest.param(of_another_user, marks=only_root),
]  # fmt: skip
LINKS = [planted for planted in PLANTED if planted is not hard_link]


@pytest.mark.parametrize("plant", PLANTED)
@pytest.mark.parametrize(
    ("kind", "output", "name"),
    [
        *[
            (kind, "p.ndjson", f"{file}.partial")
            for kind in KINDS
            for file in kind.files("p.ndjson")
        ],
        (EVENTS, "p.csv.gz", "p.csv.gz.partial"),
        (EVENTS, "p.parquet", "p.parquet.partial"),
        (EVENTS, "p.duckdb", "p.duckdb.partial"),
    ],
    ids=str,
)
async def test_a_partial_file_is_never_one_that_was_planted(
    folder: Path,
    elsewhere: Path,
    case: Scripted,
    output: str,
    name: str,
    plant: Callable[[Path, Path], None],
) -> None:
    plant(folder / name, elsewhere)
    before = (folder / name).lstat(), content(elsewhere)
    with pytest.raises(ExportError, match=rf"{name} is .*remove it"):
        await case.run(folder / output)
    assert case.requests == 0
    after = (folder / name).lstat(), content(elsewhere)
    assert same(before) == same(after)
    assert names_in(folder) == [name]
    assert names_in(elsewhere.parent) == ["mine"]


@pytest.mark.parametrize("plant", LINKS)
@pytest.mark.parametrize("kind", [EVENTS], ids=str)
async def test_the_rows_of_a_duckdb_file_are_never_in_a_file_that_was_planted(
    folder: Path, elsewhere: Path, case: Scripted, plant: Callable[[Path, Path], None]
) -> None:
    path = folder / "p.duckdb.partial" / "rows.partial"
    path.parent.mkdir()
    plant(path, elsewhere)
    before = path.lstat(), content(elsewhere)
    with pytest.raises(ExportError, match=r"rows\.partial is .*remove it"):
        await case.run(folder / "p.duckdb")
    assert case.requests == 0
    assert same(before) == same((path.lstat(), content(elsewhere)))


@pytest.mark.parametrize(
    ("name", "plant", "existing"),
    pairwise(
        ["p.duckdb", "p.duckdb.wal", "p.duckdb.wal.checkpoint"],
        [link, dangling_link, hard_link, pipe],
        [False, True],
    ),
)
@pytest.mark.parametrize("kind", [EVENTS], ids=str)
async def test_duckdb_never_writes_to_a_file_that_was_planted_in_its_folder(
    folder: Path,
    elsewhere: Path,
    case: Scripted,
    name: str,
    plant: Callable[[Path, Path], None],
    existing: bool,
) -> None:
    """The leftovers of a killed export are removed, whatever they are."""
    if existing:
        existing_file(folder)
    (folder / "p.duckdb.partial").mkdir()
    plant(folder / "p.duckdb.partial" / name, elsewhere)
    (folder / "p.duckdb.partial" / "temporary").symlink_to(elsewhere.parent)
    await case.run(folder / "p.duckdb")
    assert elsewhere.read_bytes() == b"mine"
    assert names_in(elsewhere.parent) == ["mine"]
    assert names_in(folder) == ["p.duckdb", "p.duckdb.manifest.json"]


def existing_file(folder: Path) -> None:
    with duckdb.connect(str(folder / "p.duckdb")) as connection:
        connection.execute("CREATE TABLE other AS SELECT 1 AS n")


def log_of_another_user(path: Path, to: Path) -> None:
    """The other user can read what is written to it."""
    path.touch()
    os.chown(path, 65534, -1)


@pytest.mark.parametrize(
    "plant",
    [
        link,
        dangling_link,
        link_to_itself,
        link_to_a_pipe,
        pipe,
        pytest.param(log_of_another_user, marks=only_root),
    ],
)
@pytest.mark.parametrize("kind", [EVENTS], ids=str)
async def test_the_log_of_a_duckdb_file_is_never_one_that_was_planted(
    folder: Path, elsewhere: Path, case: Scripted, plant: Callable[[Path, Path], None]
) -> None:
    existing_file(folder)
    plant(folder / "p.duckdb.wal", elsewhere)
    before = content(elsewhere)
    with pytest.raises(ExportError, match=r"p\.duckdb\.wal is (not a|a file of).*remove it"):
        await case.run(folder / "p.duckdb")
    assert case.requests == 0
    assert content(elsewhere) == before


@only_root
@pytest.mark.parametrize("kind", [EVENTS], ids=str)
async def test_the_log_of_a_file_of_another_user_is_theirs(folder: Path, case: Scripted) -> None:
    existing_file(folder)
    path = folder / "p.duckdb"
    leave_a_log(path)
    for file in (path, path.with_name("p.duckdb.wal")):
        os.chown(file, 65534, -1)
    await case.run(path)
    with duckdb.connect(str(path)) as connection:
        assert connection.execute("SELECT n FROM other").fetchall() == [(1,), (2,)]


def leave_a_log(path: Path) -> None:
    """Kill a process that has changed a DuckDB file."""
    with subprocess.Popen(
        [sys.executable, "-c", _LEAVES_A_LOG, str(path)], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.kill()


_LEAVES_A_LOG = """
import duckdb, sys, time
connection = duckdb.connect(sys.argv[1])
connection.execute("INSERT INTO other VALUES (2)")
print("written", flush=True)
time.sleep(600)
"""


def sink_of(to: Path) -> Sink:
    """Return a sink that has taken one record."""
    target = target_of(to)
    target.check()
    sink = opened(target)
    sink.write(rows_of([b'{"identity":"1"}']))
    return sink


@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize("plant", [link, dangling_link])
@pytest.mark.parametrize("name", ["p.duckdb.wal", "p.duckdb.partial.wal", "p.duckdb.tmp"])
def test_duckdb_follows_no_link_that_was_planted_while_it_was_open(
    folder: Path, elsewhere: Path, name: str, plant: Callable[[Path, Path], None], existing: bool
) -> None:
    if existing:
        existing_file(folder)
    sink = sink_of(folder / "p.duckdb")
    plant(folder / name, elsewhere)
    if existing and name == "p.duckdb.wal":
        with pytest.raises(ExportError, match=r"p\.duckdb\.wal is not a regular file"):
            put_in_place(sink)
        sink.abort()
    else:
        put_in_place(sink)
    assert elsewhere.read_bytes() == b"mine"
    assert names_in(elsewhere.parent) == ["mine"]
    assert names_in(folder) == sorted(["p.duckdb", name])


@pytest.mark.parametrize("existing", [False, True])
def test_nothing_is_deleted_in_a_folder_that_was_put_in_place_of_the_own(
    folder: Path, tmp_path: Path, existing: bool
) -> None:
    if existing:
        existing_file(folder)
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    for name in ("p.duckdb", "p.duckdb.wal", "rows.partial"):
        (theirs / name).write_bytes(b"theirs")
    (theirs / "temporary").mkdir()
    (theirs / "temporary" / "file").write_bytes(b"theirs")
    names = sorted(path.name for path in theirs.rglob("*"))
    sink = sink_of(folder / "p.duckdb")
    (folder / "p.duckdb.partial").rename(tmp_path / "moved")
    (folder / "p.duckdb.partial").symlink_to(theirs)
    with pytest.raises(ExportError, match="is no longer what this export has written"):
        put_in_place(sink)
    sink.abort()
    assert sorted(path.name for path in theirs.rglob("*")) == names


def test_a_duckdb_file_that_has_become_a_link_is_not_written(folder: Path, elsewhere: Path) -> None:
    existing_file(elsewhere.parent)
    before = (elsewhere.parent / "p.duckdb").read_bytes()
    target = target_of(folder / "p.duckdb")
    target.check()
    (folder / "p.duckdb").symlink_to(elsewhere.parent / "p.duckdb")
    with pytest.raises(ExportError, match="has become a symbolic link"):
        opened(target)
    assert (elsewhere.parent / "p.duckdb").read_bytes() == before


def of_somebody(path: Path, to: Path) -> None:
    path.write_bytes(b"theirs")


def nothing(path: Path, to: Path) -> None:
    pass


@pytest.mark.parametrize("plant", [link, dangling_link, hard_link, pipe, of_somebody, nothing])
@pytest.mark.parametrize("output", ["p.ndjson", "p.csv.gz", "p.parquet", "p.duckdb"])
def test_what_has_replaced_a_file_while_it_was_written_is_not_the_output(
    folder: Path, elsewhere: Path, output: str, plant: Callable[[Path, Path], None]
) -> None:
    (folder / output).write_bytes(b"")
    if output == "p.duckdb":
        (folder / output).unlink()
    sink = sink_of(folder / output)
    partial = folder / f"{output}.partial"
    partial.rename(folder / "stolen")
    plant(partial, elsewhere)
    with pytest.raises(ExportError, match=r"partial is no longer what this export has written"):
        put_in_place(sink)
    sink.abort()
    assert elsewhere.read_bytes() == b"mine"
    if output == "p.duckdb":
        assert not (folder / output).exists()
    else:
        assert (folder / output).read_bytes() == b""


@pytest.mark.parametrize("plant", [link, hard_link, of_somebody, nothing])
def test_a_duckdb_file_that_is_replaced_while_it_is_changed_is_not_the_output(
    folder: Path, elsewhere: Path, plant: Callable[[Path, Path], None]
) -> None:
    existing_file(folder)
    sink = sink_of(folder / "p.duckdb")
    (folder / "p.duckdb").rename(folder / "moved")
    plant(folder / "p.duckdb", elsewhere)
    with pytest.raises(ExportError, match=r"p\.duckdb is no longer what this export has written"):
        put_in_place(sink)
    sink.abort()
    assert elsewhere.read_bytes() == b"mine"


@pytest.mark.parametrize("plant", [link, hard_link, pipe, of_somebody, nothing])
@pytest.mark.parametrize("output", ["p.ndjson", "p.duckdb"])
@pytest.mark.parametrize("kind", [EVENTS], ids=str)
async def test_the_digest_is_that_of_the_file_that_was_written(
    folder: Path,
    elsewhere: Path,
    case: Scripted,
    output: str,
    plant: Callable[[Path, Path], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The output is replaced as soon as it has its name."""
    to = folder / output
    written: list[bytes] = []
    replace = Path.replace

    def replace_and_plant(source: Path, target: Path) -> Path:
        moved = replace(source, target)
        if target == to:
            written.append(to.read_bytes())
            to.unlink()
            plant(to, elsewhere)
        return moved

    monkeypatch.setattr(Path, "replace", replace_and_plant)
    report = await case.run(to)
    assert [report.sha256] == [hashlib.sha256(data).hexdigest() for data in written]
    assert report.bytes == len(written[0])


def content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def same(pair: tuple[os.stat_result, bytes | None]) -> tuple[object, ...]:
    status, data = pair
    return status.st_ino, status.st_mode, status.st_size, status.st_uid, data


def other_folder(path: Path, to: Path) -> None:
    path.symlink_to(to.parent)


def folder_of_another_user(path: Path, to: Path) -> None:
    path.mkdir()
    os.chown(path, 65534, -1)


@pytest.mark.parametrize(
    "plant",
    [
        link,
        dangling_link,
        link_to_itself,
        pipe,
        other_folder,
        pytest.param(folder_of_another_user, marks=only_root),
    ],
)
@pytest.mark.parametrize(("resume", "spool"), [(True, False), (False, True)])
async def test_the_folder_of_an_export_is_never_one_that_was_planted(
    folder: Path,
    elsewhere: Path,
    case: Scripted,
    plant: Callable[[Path, Path], None],
    resume: bool,
    spool: bool,
) -> None:
    to = folder / "p.ndjson"
    parent = folder
    if spool:
        parent = folder / "spool"
        parent.mkdir()
    plant(parent / "p.ndjson.export", elsewhere)
    expected = ConfigurationError if plant is link_to_itself else ExportError
    with pytest.raises(expected, match=r"p\.ndjson\.export"):
        await case.run(to, resume=resume, spool=parent if spool else None)
    assert case.requests == 0
    assert names_in(elsewhere.parent) == ["mine"]
    assert elsewhere.read_bytes() == b"mine"
    assert names_in(parent) == ["p.ndjson.export"]


@pytest.mark.parametrize("plant", LINKS)
@pytest.mark.parametrize("name", ["journal.sqlite", "journal.sqlite-wal", "spool", "people.marks"])
@pytest.mark.parametrize(
    ("kind", "resume"), [(EVENTS, True), (EVENTS, False), (KEYS, True)], ids=str
)
async def test_a_file_of_the_folder_is_never_one_that_was_planted(
    folder: Path,
    elsewhere: Path,
    case: Scripted,
    name: str,
    plant: Callable[[Path, Path], None],
    resume: bool,
) -> None:
    to = folder / "p.ndjson"
    await case.interrupt(to)
    requests = case.requests
    path = spools_of(to)[0] if name == "spool" else workspace_of(to) / name
    path.unlink(missing_ok=True)
    plant(path, elsewhere)
    before = content(elsewhere)
    with pytest.raises(ExportError, match=rf"{path.name} is .*remove it, .* `spool`"):
        await case.run(to, resume=resume)
    assert case.requests == requests
    assert content(elsewhere) == before
    assert names_in(elsewhere.parent) == ["mine"]


@pytest.mark.parametrize("plant", [link, dangling_link, hard_link, pipe])
@pytest.mark.parametrize("output", ["p.ndjson", "p.parquet", "p.duckdb"])
@pytest.mark.parametrize("kind", [EVENTS], ids=str)
async def test_a_partial_file_planted_on_the_way_is_found_at_the_end(
    folder: Path,
    elsewhere: Path,
    case: Scripted,
    output: str,
    plant: Callable[[Path, Path], None],
) -> None:
    to = folder / output
    path = folder / f"{output}.partial"
    reports: list[Progress] = []

    def on_progress(progress: Progress) -> None:
        if not os.path.lexists(path) and received(progress) and progress.fetching:
            plant(path, elsewhere)
        reports.append(progress)

    with pytest.raises(Incomplete, match=rf"{path.name} is .*remove it"):
        await case.run(to, on_progress=on_progress)
    assert elsewhere.read_bytes() == b"mine"
    assert names_in(elsewhere.parent) == ["mine"]
    assert not to.exists()
    path.unlink()
    requests = case.requests
    await case.run(to)
    assert case.requests == requests


@pytest.mark.parametrize("plant", [link, dangling_link, link_to_a_pipe, hard_link])
@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, name) for kind in KINDS for name in kind.files("p.ndjson") if name != "p.ndjson"],
    ids=str,
)
async def test_files_beside_the_output_are_not_written_through_a_link(
    folder: Path,
    elsewhere: Path,
    case: Scripted,
    name: str,
    plant: Callable[[Path, Path], None],
) -> None:
    plant(folder / name, elsewhere)
    before = content(elsewhere)
    await case.run(folder / "p.ndjson")
    assert content(elsewhere) == before
    assert names_in(elsewhere.parent) == ["mine"]
    assert names_in(folder) == case.kind.files("p.ndjson")
    assert stat.S_ISREG((folder / name).lstat().st_mode)


@pytest.mark.parametrize("kind", [KEYS], ids=str)
async def test_an_old_list_that_goes_is_the_link_and_not_its_target(
    folder: Path, elsewhere: Path, case: Scripted
) -> None:
    (folder / "p.ndjson.not-found.txt").symlink_to(elsewhere)
    await case.run(folder / "p.ndjson", keys=["key 1"])
    assert elsewhere.read_bytes() == b"mine"
    assert names_in(folder) == ["p.ndjson", "p.ndjson.manifest.json"]


@pytest.mark.parametrize("name", ["p.ndjson.manifest.json", "p.ndjson.not-found.txt"])
@pytest.mark.parametrize("kind", [KEYS], ids=str)
async def test_a_pipe_beside_the_output_is_refused(folder: Path, case: Scripted, name: str) -> None:
    os.mkfifo(folder / name)
    with pytest.raises(ExportError, match=rf"{name} cannot be replaced: it is not a regular file"):
        await case.run(folder / "p.ndjson")
    assert case.requests == 0
    assert names_in(folder) == [name]


@pytest.mark.parametrize(
    "name", ["p.ndjson.partial", "p.ndjson.manifest.json.partial", "p.ndjson.failed.ndjson.partial"]
)
@pytest.mark.parametrize("kind", [KEYS], ids=str)
async def test_the_keys_are_never_in_a_file_that_the_export_empties(
    folder: Path, case: Scripted, name: str
) -> None:
    path = folder / name
    path.write_bytes(b"1\n2\n")
    with pytest.raises(ConfigurationError, match=rf"keys: .*{name} is written by this export"):
        await case.run(folder / "p.ndjson", keys=path)
    assert path.read_bytes() == b"1\n2\n"


# ------------------------------------------------------------------ replaced, and not of an export


@in_turn("name", ["p.ndjson", "p.csv.gz", "p.parquet"])
async def test_a_file_that_no_export_made_is_replaced_with_a_warning(
    folder: Path, case: Scripted, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    def of_loss(report: Any) -> list[str]:
        return [text for text in report.warnings if "no export seems to have written" in text]

    to, empty = folder / name, folder / f"empty-{name}"
    to.write_bytes(b"mine")
    empty.touch()
    case.released.clear()
    async with case.session() as session:
        job = asyncio.ensure_future(case.start(session, to))
        # Told before anything is lost.
        await until(lambda: "4 bytes of" in caplog.text, during=job)
        assert to.read_bytes() == b"mine"
        case.released.set()
        (warning,) = of_loss(await job)
        assert warning.startswith(f"4 bytes of {to} are replaced although ")
        assert f"move it away before this {case.kind.noun} ends" in warning
        assert to.read_bytes() != b"mine"
        # Its own output is no loss, nor is an empty file.
        assert of_loss(await case.start(session, to)) == []
        assert of_loss(await case.start(session, empty)) == []
        # A manifest of something else is none.
        folder.joinpath(f"{name}.manifest.json").write_bytes(b"{}")
        assert len(of_loss(await case.start(session, to))) == 1


@in_turn("name", ["p.ndjson", "p.csv.gz", "p.parquet"])
async def test_a_file_that_was_changed_is_replaced_with_a_warning(
    folder: Path, case: Scripted, name: str
) -> None:
    def of_change(report: Any) -> list[str]:
        return [text for text in report.warnings if "has changed since" in text]

    to = folder / name
    async with case.session() as session:
        first = await case.start(session, to)
        with to.open("ab") as file:
            file.write(b"mine")
        (warning,) = of_change(await case.start(session, to))
        assert warning.startswith(f"{first.bytes + 4:,} bytes of {to} are replaced although ")
        assert f" wrote it, with {first.bytes:,} bytes; " in warning
        assert f"move it away before this {case.kind.noun} ends" in warning
        assert of_change(await case.start(session, to)) == []
        # What is not there is not lost.
        to.unlink()
        assert of_change(await case.start(session, to)) == []


# -------------------------------------------------------------- writable, and still not replaceable


@contextmanager
def flagged(flag: str, path: Path) -> Iterator[None]:
    try:
        subprocess.run(["chattr", f"+{flag}", str(path)], check=True, capture_output=True)  # noqa: S607
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"this file system has no such flag: {error}")
    try:
        yield
    finally:
        subprocess.run(["chattr", f"-{flag}", str(path)], check=True)  # noqa: S607


BESIDE = ["p.ndjson", "p.ndjson.manifest.json"]


@only_root
@in_turn("name", BESIDE)
async def test_a_mounted_file_is_found_first(
    folder: Path, elsewhere: Path, case: Scripted, name: str
) -> None:
    (folder / name).write_bytes(b"old")
    with (
        mounted("--bind", str(elsewhere), at=folder / name),
        pytest.raises(ExportError, match=rf"{name} cannot be replaced: .*mount its folder instead"),
    ):
        await case.run(folder / "p.ndjson")
    assert case.requests == 0
    assert elsewhere.read_bytes() == b"mine"
    assert names_in(folder) == [name]


@only_root
@pytest.mark.parametrize("flag", ["i", "a"])
@pytest.mark.parametrize("name", BESIDE)
async def test_an_immutable_file_is_found_first(
    folder: Path, case: Scripted, name: str, flag: str
) -> None:
    (folder / name).write_bytes(b"old")
    with (
        flagged(flag, folder / name),
        pytest.raises(ExportError, match=rf"{name} cannot be replaced: .*chattr -i -a"),
    ):
        await case.run(folder / "p.ndjson")
    assert case.requests == 0
    assert (folder / name).read_bytes() == b"old"
    assert names_in(folder) == [name]


@only_root
@pytest.mark.parametrize("flag", ["i", "a"])
async def test_an_immutable_folder_is_found_first(
    folder: Path, tmp_path: Path, case: Scripted, flag: str
) -> None:
    with flagged(flag, folder), pytest.raises(ExportError, match=r"cannot be written.*choose"):
        await case.run(folder / "p.ndjson", spool=tmp_path)
    assert case.requests == 0
    assert not (folder / "p.ndjson").exists()


@only_root
async def test_only_what_helps_is_advised_where_no_folder_can_be_made(
    folder: Path, tmp_path: Path, case: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(folder)
    # (arguments, the folder that takes no files, the advice)
    refused: list[tuple[dict[str, Any], Path, str]] = [
        ({"to": folder / "p.ndjson"}, folder, "another `to`"),
        ({"to": folder / "p.duckdb"}, folder, "another `to`"),
        ({"to": f"{folder}/days/"}, folder, "another `to`"),
        ({"to": folder / "p.ndjson", "spool": folder}, folder, "another `to`"),
        # The manifest is written to the current folder.
        ({"to": "postgresql://127.0.0.1:1/crm"}, folder, "another current folder"),
        (
            {"to": folder / "p.ndjson", "spool": elsewhere},
            elsewhere,
            "another folder with `spool`",
        ),
    ]
    for arguments, closed, advice in refused:
        with flagged("i", closed), pytest.raises(ExportError) as caught:
            await case.run(**arguments)
        fault, _, fix = str(caught.value).partition("; ")
        assert fault.startswith(f"cannot create the folder {closed}/"), arguments
        assert fault.endswith("Operation not permitted"), arguments
        assert fix == f"choose {advice}, or make {closed} writable", arguments
    assert case.requests == 0


@only_root
async def test_the_files_beside_a_table_need_another_current_folder(
    folder: Path,
    tmp_path: Path,
    case: Scripted,
    postgres: Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither another table nor a folder of records elsewhere would help."""
    monkeypatch.chdir(folder)
    to = postgres.url("people")
    words = r"cannot be written: .*; choose another current folder, or correct the permissions$"
    with flagged("i", folder), pytest.raises(ExportError, match=words):
        await case.run(to, spool=tmp_path)
    await case.run(to, spool=tmp_path)
    (manifest,) = folder.glob("*.manifest.json")
    words = r"chattr -i -a on it as root, or choose another current folder$"
    with flagged("i", manifest), pytest.raises(ExportError, match=words):
        await case.run(to, spool=tmp_path)
    partial_of(manifest).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ExportError, match=r"remove it, or choose another current folder$"):
        await case.run(to, spool=tmp_path)


@only_root
async def test_a_file_system_that_is_read_only_is_found_first(
    folder: Path, tmp_path: Path, case: Scripted
) -> None:
    with mounted("-t", "tmpfs", "-o", "ro", "none", at=folder):
        with pytest.raises(ExportError, match=r"Read-only file system.*choose another `to`"):
            await case.run(folder / "p.ndjson")
        with pytest.raises(ExportError, match=r"Read-only file system.*choose another `to`"):
            await case.run(folder / "p.ndjson", spool=tmp_path)
    assert case.requests == 0
    assert names_in(tmp_path) == ["out"]


_AS_NOBODY = """
import os, sys
from tests.support.sinks import opened, rows_of, target_of
target = target_of(sys.argv[1])
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
try:
    target.check()
    sink = opened(target)
    sink.write(rows_of([b'{"identity":"1"}']))
    sink.close()
except Exception as error:
    print(type(error).__name__, error)
"""


def as_nobody(to: Path) -> str:
    """Check an output and write it as a user without rights; return the error."""
    command = [sys.executable, "-c", _AS_NOBODY, str(to)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def public() -> Iterator[Path]:
    """Return a folder that every user can reach."""
    path = Path(tempfile.mkdtemp())
    path.chmod(0o777)
    yield path
    shutil.rmtree(path)


@only_root
def test_a_file_of_another_user_in_a_sticky_folder_is_found_first(public: Path) -> None:
    public.chmod(0o1777)
    to = public / "p.ndjson"
    to.write_bytes(b"old")
    to.chmod(0o666)
    assert "ExportError" in as_nobody(to)
    assert "p.ndjson cannot be replaced: it belongs to another user (0)" in as_nobody(to)
    assert to.read_bytes() == b"old"
    assert names_in(public) == ["p.ndjson"]
    # Their own, and a new one, are no problem there.
    os.chown(to, 65534, 65534)
    assert as_nobody(to) == ""
    assert as_nobody(public / "new.ndjson") == ""


_CAP_FOWNER = 3
_PR_CAPBSET_DROP = 24


def without_rights_of_owners(to: Path) -> str:
    """As `as_nobody`, but as root in a container that may not do what only owners may."""
    drop = partial(ctypes.CDLL(None).prctl, _PR_CAPBSET_DROP, _CAP_FOWNER, 0, 0, 0)
    code = _AS_NOBODY.replace("os.set", "(lambda _: 0)#")
    command = [sys.executable, "-c", code, str(to)]
    return subprocess.run(
        command, check=True, capture_output=True, text=True, preexec_fn=drop
    ).stdout


@pytest.mark.skipif(sys.platform != "linux", reason="uses capabilities")
@only_root
def test_root_without_capabilities_finds_a_sticky_folder_first(public: Path) -> None:
    to = public / "p.ndjson"
    to.write_bytes(b"old")
    os.chown(to, 1234, 1234)
    os.chown(public, 65534, 65534)
    public.chmod(0o1777)
    before = to.stat()
    message = without_rights_of_owners(to)
    assert "p.ndjson cannot be replaced: it belongs to another user (1234)" in message
    assert to.read_bytes() == b"old"
    # Root with its capabilities may replace it.
    target_of(to).check()
    assert (to.stat().st_mtime_ns, to.stat().st_mode) == (before.st_mtime_ns, before.st_mode)


@only_root
def test_a_folder_without_permission_is_found_first(public: Path) -> None:
    public.chmod(0o755)
    message = as_nobody(public / "p.ndjson")
    assert "ExportError" in message
    assert "Permission denied" in message
    assert "choose another `to`, or correct the permissions" in message
    public.chmod(0o700)
    message = as_nobody(public / "p.ndjson")
    assert "Permission denied" in message


# ------------------------------------------------------------------------ owner, group, permissions


@only_root
@in_turn("name", ["p.ndjson", "p.csv.gz", "p.parquet", "p.duckdb"])
async def test_owner_and_group_stay(folder: Path, case: Scripted, name: str) -> None:
    await case.run(folder / name)
    for number, path in enumerate(folder.iterdir()):
        path.chmod(0o640)
        os.chown(path, 1000 if path.name == name else -1, 2000 + number)
    before = {path.name: access(path) for path in folder.iterdir()}
    await case.run(folder / name)
    assert {path.name: access(path) for path in folder.iterdir()} == before
    assert {mode for _, _, mode in before.values()} == {0o640}


def access(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)


@only_root
@pytest.mark.parametrize("kind", [KEYS], ids=str)
async def test_who_plants_a_file_beside_the_output_does_not_get_the_keys(
    folder: Path, case: Scripted
) -> None:
    await case.run(folder / "p.ndjson")
    names = [name for name in names_in(folder) if name != "p.ndjson"]
    for name in names:
        os.chown(folder / name, 65534, 65534)
        (folder / name).chmod(0o666)
    await case.run(folder / "p.ndjson")
    new = folder / "new"
    new.touch()
    assert len(names) == 3
    for name in names:
        assert access(folder / name) == access(new)


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
@pytest.mark.parametrize("replaced", [None, 0o600, 0o664])
@pytest.mark.parametrize("output", ["p.ndjson", "p.csv.gz", "p.parquet", "p.duckdb"])
def test_nobody_reads_an_output_before_it_is_complete(
    folder: Path, output: str, replaced: int | None, umask: int
) -> None:
    to = folder / output
    before = os.umask(umask)
    try:
        if replaced is not None:
            put_in_place(sink_of(to))
            to.chmod(replaced)
        sink = sink_of(to)
        others = [path for path in folder.iterdir() if path != to]
        assert [path.name for path in others] == [f"{output}.partial"]
        assert stat.S_IMODE(others[0].stat().st_mode) & 0o077 == 0
        put_in_place(sink)
    finally:
        os.umask(before)
    mode = 0o666 & ~umask if replaced is None else replaced
    assert stat.S_IMODE(to.stat().st_mode) == mode
    assert names_in(folder) == [output]


def test_a_partial_file_that_everyone_could_read_is_closed(folder: Path) -> None:
    partial = folder / "p.ndjson.partial"
    partial.write_bytes(b"left")
    partial.chmod(0o644)
    sink = sink_of(folder / "p.ndjson")
    assert stat.S_IMODE(partial.stat().st_mode) == 0o600
    put_in_place(sink)


@pytest.mark.skipif(sys.platform != "linux", reason="uses capabilities")
@only_root
def test_an_output_whose_permissions_cannot_be_set_is_complete(public: Path) -> None:
    """The user may give files away, as root may, but not set the permissions of others' files."""
    to = public / "p.ndjson"
    to.write_bytes(b"old")
    to.chmod(0o640)
    os.chown(to, 65534, 65534)
    assert without_rights_of_owners(to) == ""
    assert access(to) == (65534, 65534, 0o640)
    assert to.read_bytes() == b'{"identity":"1"}\n'


@only_root
def test_another_group_gets_no_more_than_everyone(public: Path) -> None:
    """A user who cannot keep the group of a file does not open it to another group."""
    to = public / "p.ndjson"
    to.write_bytes(b"old")
    to.chmod(0o664)
    os.chown(to, 65534, 12345)
    assert as_nobody(to) == ""
    status = to.stat()
    assert (status.st_uid, status.st_gid) == (65534, 65534)
    assert stat.S_IMODE(status.st_mode) == 0o644
    assert to.read_bytes() == b'{"identity":"1"}\n'


# ------------------------------------------------------------------------ paths that cannot be used


def circle(tmp_path: Path) -> Path:
    (tmp_path / "circle").symlink_to("circle")
    return tmp_path / "circle"


def below_a_circle(tmp_path: Path) -> Path:
    return circle(tmp_path) / "p.ndjson"


def below_a_file(tmp_path: Path) -> Path:
    (tmp_path / "file").touch()
    return tmp_path / "file" / "p.ndjson"


def long_name(tmp_path: Path) -> Path:
    return tmp_path / ("x" * 300 + ".ndjson")


def long_path(tmp_path: Path) -> Path:
    return tmp_path.joinpath(*["d" * 200] * 25, "p.ndjson")


UNUSABLE = [circle, below_a_circle, below_a_file, long_name, long_path]


@pytest.mark.parametrize("path", UNUSABLE)
@pytest.mark.parametrize("argument", ["to", "spool", "keys"])
async def test_a_path_that_leads_nowhere_is_named(
    tmp_path: Path, case: Scripted, argument: str, path: Callable[[Path], Path]
) -> None:
    if argument == "keys" and "keys" not in case.arguments:
        pytest.skip("this kind of job has no keys")
    changes: dict[str, Any] = {"to": tmp_path / "p.ndjson", argument: path(tmp_path)}
    before = names_in(tmp_path)
    with pytest.raises(ConfigurationError, match=rf"^{argument}: .* cannot be used: "):
        await case.run(format="ndjson", **changes)
    assert case.requests == 0
    assert names_in(tmp_path) == before


async def test_a_name_that_is_too_long_for_the_files_beside_is_named(
    tmp_path: Path, case: Scripted
) -> None:
    with pytest.raises(ConfigurationError, match=r"^to: .*its name is too long"):
        await case.run(tmp_path / ("x" * 235 + ".ndjson"))
    deep = tmp_path.joinpath(*["d" * 200] * 3)
    deep.mkdir(parents=True)
    with pytest.raises(ConfigurationError, match=r"^to: .* SQLite can open; .*`spool`"):
        await case.run(deep / "p.ndjson")
    assert case.requests == 0
    await case.run(deep / "p.ndjson", spool=tmp_path)
    assert people_in(deep / "p.ndjson") == case.people


async def test_a_current_folder_that_is_gone_is_named(
    tmp_path: Path, case: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(ConfigurationError, match=r"^to: .*the current folder has been deleted"):
        await case.run("p.ndjson")
    with pytest.raises(ConfigurationError, match=r"^to: .*the current folder has been deleted"):
        await case.run("postgresql://127.0.0.1:1/d/t", spool=tmp_path)
    with pytest.raises(ConfigurationError, match=r"^spool: .*the current folder has been deleted"):
        await case.run(tmp_path / "p.ndjson", spool=".")
    assert case.requests == 0
    await case.run(tmp_path / "p.ndjson")


@pytest.mark.parametrize(
    "to",
    [
        "-",
        "/dev/stdout",
        "/dev/stderr",
        "/dev/fd/1",
        "/proc/self/fd/1",
        "/dev/null",
        "link",
        "fd/1",
    ],
)
@pytest.mark.parametrize("format", [None, "ndjson", "duckdb"])
@pytest.mark.parametrize("kind", [EVENTS], ids=str)
async def test_a_stream_is_no_output(
    tmp_path: Path,
    case: Scripted,
    monkeypatch: pytest.MonkeyPatch,
    to: str,
    format: str | None,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("/dev/stdout")
    (tmp_path / "fd").symlink_to("/dev/fd")
    with pytest.raises(ConfigurationError, match=r"^to: .* is a stream or a device, .*pass a file"):
        await case.run(to, format=format)
    assert case.requests == 0
    assert names_in(tmp_path) == ["fd", "link"]


@pytest.mark.parametrize("to", ["-", "/dev/stdout", "/dev/fd/1"])
def test_the_command_line_refuses_a_stream(tmp_path: Path, to: str) -> None:
    env = environment(
        tmp_path,
        CLEVERTAP_ACCOUNT_ID="A",
        CLEVERTAP_PASSCODE="P",
        CLEVERTAP_BASE_URL="http://127.0.0.1:9",
    )
    days = ["--from", "2026-01-01", "--to", "2026-01-02"]
    done = run(env, "export", "Charged", *days, "-o", to, "--format", "ndjson")
    assert (done.code, done.stdout) == (2, b"")
    assert done.stderr.startswith(f"error: --out: '{to}' is a stream")


# ----------------------------------------------------------------------------- a spool that is gone


def remove_spools(to: Path) -> None:
    for path in spools_of(to):
        path.unlink()


def remove_one_spool(to: Path) -> None:
    max(spools_of(to), key=lambda path: path.stat().st_size).unlink()


def empty_spools(to: Path) -> None:
    for path in spools_of(to):
        path.write_bytes(b"")


def remove_folder(to: Path) -> None:
    shutil.rmtree(workspace_of(to))


@in_turn("damage", [remove_spools, remove_one_spool, empty_spools, remove_folder])
async def test_a_spool_that_is_gone_is_not_claimed_to_hold_records(
    tmp_path: Path, case: Scripted, damage: Callable[[Path], None]
) -> None:
    to = tmp_path / "p.ndjson"
    damaged = False
    left = 0

    def on_progress(progress: Progress) -> None:
        nonlocal damaged, left
        if received(progress) == case.items and not damaged:
            damaged = True
            damage(to)
            # Otherwise it would be fetched again.
            case.refusal = http(b"", "503 Service Unavailable")
            if workspaces_of(to) and case.kind.tag == "lookups":
                left = case.items - len(case.people)
            elif workspaces_of(to):
                chains = [path for path in spools_of(to) if path.name.startswith("chain")]
                left = sum(path.read_bytes().count(b"\n") for path in chains)

    with pytest.raises(AltaProfilesError) as caught:
        await case.run(to, on_progress=on_progress)
    assert damaged
    text = "\n".join([str(caught.value), *getattr(caught.value, "__notes__", ())])
    if left:
        assert f"\n{left:,} {case.kind.unit} are in {workspace_of(to)}" in text
    else:
        assert f"are in {workspace_of(to)}" not in text


# ------------------------------------------------------------------------------ DuckDB's own errors


def corrupt(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for start in range(4096, len(data), 4096):
        data[start : start + 2048] = os.urandom(2048)
    path.write_bytes(data)


def newer(path: Path) -> None:
    data = bytearray(path.read_bytes())
    # The storage version behind the checksum and the magic bytes.
    data[12:20] = (9999).to_bytes(8, "little")
    path.write_bytes(data)


def half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def log_of_another_file(path: Path) -> None:
    # It creates a table that exists, so that it cannot be applied.
    other = path.with_name("other.duckdb")
    with duckdb.connect(str(other)) as connection:
        connection.execute("PRAGMA disable_checkpoint_on_shutdown")
        connection.execute("CREATE TABLE profiles AS SELECT 1 AS n")
    other.with_name("other.duckdb.wal").rename(path.with_name(f"{path.name}.wal"))
    other.unlink()


@pytest.mark.parametrize("damage", [corrupt, newer, half, log_of_another_file])
@pytest.mark.parametrize("kind", [EVENTS], ids=str)
async def test_a_duckdb_file_that_duckdb_refuses_is_our_error(
    folder: Path, case: Scripted, damage: Callable[[Path], None]
) -> None:
    path = folder / "p.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE other AS SELECT range AS n FROM range(100000)")
        connection.execute("CREATE TABLE profiles AS SELECT 1 AS n")
    damage(path)
    with pytest.raises(ExportError, match=r"p\.duckdb"):
        await case.run(path)
    assert case.requests == 0


@pytest.mark.parametrize("kind", [EVENTS], ids=str)
async def test_a_duckdb_table_that_cannot_be_replaced_is_found_first(
    folder: Path, case: Scripted
) -> None:
    path = folder / "p.duckdb"
    await case.run(path)
    with duckdb.connect(str(path)) as connection:
        connection.execute("ALTER TABLE profiles ADD PRIMARY KEY (account, person)")
        connection.execute(
            "CREATE TABLE other (account VARCHAR, person VARCHAR,"
            " FOREIGN KEY (account, person) REFERENCES profiles (account, person))"
        )
        connection.execute("INSERT INTO other SELECT account, person FROM profiles LIMIT 1")
    before, requests = path.read_bytes(), case.requests
    with pytest.raises(ExportError, match=r"p\.duckdb: .*foreign key"):
        await case.run(path, write="replace")
    assert case.requests == requests
    assert path.read_bytes() == before
    await case.run(path, table="people")


PROBING = """if 1:
    import os, signal, sys
    from pathlib import Path
    from altaprofiles.export.sinks.files import check_place, write_file
    if sys.argv[2] == "named" and hasattr(os, "O_TMPFILE"):
        del os.O_TMPFILE
    def hook(event, args):
        if event == "os.chmod" or (event == "os.remove" and ".probe" in str(args[0])):
            os.kill(os.getpid(), signal.SIGKILL)
    if sys.argv[3] == "killed":
        sys.addaudithook(hook)
    check_place(Path(sys.argv[1]), "out")
    write_file(Path(sys.argv[1]), [b"x"])
    """


@pytest.mark.skipif(sys.platform == "win32", reason="kills with signals")
@pytest.mark.parametrize("form", ["nameless", "named"])
def test_a_killed_process_leaves_no_file_without_a_meaning(tmp_path: Path, form: str) -> None:
    to = tmp_path / "people.ndjson"

    def write(how: str) -> int:
        command = [sys.executable, "-c", PROBING, str(to), form, how]
        return subprocess.run(command, check=False).returncode

    if form == "nameless" and not hasattr(os, "O_TMPFILE"):
        pytest.skip("no files without a name here")
    assert write("killed") == -9
    left = {path.name for path in tmp_path.iterdir()}
    assert left <= {"people.ndjson.partial", ".altaprofiles.probe"}
    assert (".altaprofiles.probe" in left) == (form == "named")
    # Even if the next one finds the output in place, and needs no permissions of a new file.
    to.touch()
    assert write("whole") == 0
    assert [path.name for path in tmp_path.iterdir()] == ["people.ndjson"]
    assert to.read_bytes() == b"x"


def test_a_probe_has_the_permissions_of_a_new_file_either_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "new").touch()
    mode = (tmp_path / "new").stat().st_mode
    assert status_of_new_file(tmp_path).st_mode == mode
    monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    assert status_of_new_file(tmp_path).st_mode == mode
    (tmp_path / ".altaprofiles.probe").symlink_to(tmp_path / "new")
    assert status_of_new_file(tmp_path).st_mode == mode
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
    with pytest.raises(FileNotFoundError):
        status_of_new_file(tmp_path / "none")
    (tmp_path / ".altaprofiles.probe").mkdir()
    with pytest.raises(FileExistsError):
        status_of_new_file(tmp_path)
