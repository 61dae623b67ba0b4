"""Spools whose bytes change on the disk, and journals of earlier versions: nothing false comes out.

Damage is done to real files: before a run that resumes them, or while a run is going on.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from altaprofiles import ExportError, Incomplete
from altaprofiles.export.report import Progress
from altaprofiles.export.store.key_table import FOUND, Answer
from altaprofiles.export.store.spool import read_answers

from ..support.jobs import (
    EVENTS,
    KINDS,
    Kind,
    Scripted,
    at_script,
    names_in,
    people_in,
    received,
    spools_of,
    workspace_of,
)
from ..support.joining import USED_UP, both, user
from ..support.postgres import Server
from ..support.thorough import pairwise, rotating
from ..support.unfinished import KEYS, SAMPLES, Service, serving

pytestmark = [pytest.mark.anyio, pytest.mark.each_value]


@pytest.fixture(params=KINDS, ids=str)
def kind(request: pytest.FixtureRequest) -> Kind:
    value: Kind = request.param
    return value


@pytest.fixture
async def case(kind: Kind) -> AsyncIterator[Scripted]:
    async with at_script(kind) as case:
        yield case


@pytest.fixture
def to(tmp_path: Path) -> Path:
    return tmp_path / "p.ndjson"


# ------------------------------------------------------------------------------------------- damage


def changed(path: Path, change: Callable[[bytearray], None]) -> None:
    data = bytearray(path.read_bytes())
    change(data)
    with path.open("r+b") as file:
        file.write(data)
        file.truncate(len(data))


def flip(at: float) -> Callable[[Path], None]:
    """Flip one bit, at that share of the file, whose last byte is a line break."""

    def damage(path: Path) -> None:
        def change(data: bytearray) -> None:
            data[int(at * (len(data) - 2))] ^= 1

        changed(path, change)

    return damage


def zero(path: Path) -> None:
    """Leave a block of zeros, as a power failure does."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size // 3)
        file.write(bytes(min(4096, size // 3)))


def swap(path: Path) -> None:
    """Swap the two halves, as if a disk had mixed up its blocks."""

    def change(data: bytearray) -> None:
        half = len(data) // 2
        data[:half], data[-half:] = data[-half:], data[:half]

    changed(path, change)


def swap_lines(path: Path) -> None:
    """Swap the first line and the last, so that every line is whole."""

    def change(data: bytearray) -> None:
        lines = data.splitlines(keepends=True)
        data[:] = b"".join([lines[-1], *lines[1:-1], lines[0]])

    changed(path, change)


def repeat_a_line(path: Path) -> None:
    """Replace the last line by the first, if they have the same length, or else by blanks."""

    def change(data: bytearray) -> None:
        lines = data.splitlines(keepends=True)
        data[-len(lines[-1]) :] = (
            lines[0][:-1].ljust(len(lines[-1]) - 1)[: len(lines[-1]) - 1] + b"\n"
        )

    changed(path, change)


def other_people(path: Path) -> None:
    """Put other people, whole and valid, in place of those that were there."""
    changed(path, lambda data: data.__setitem__(slice(None), data.replace(b"e", b"i")))


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def cut_and_extended(path: Path) -> None:
    size = path.stat().st_size
    os.truncate(path, size // 2)
    os.truncate(path, size + 100)


def empty(path: Path) -> None:
    path.write_bytes(b"")


DAMAGES = {
    "the first bit": flip(0),
    "a bit in between": flip(0.5),
    "the last bit": flip(1),
    "zeros": zero,
    "swapped blocks": swap,
    "swapped lines": swap_lines,
    "a repeated line": repeat_a_line,
    "other people": other_people,
    "cut": cut,
    "cut and extended": cut_and_extended,
    "empty": empty,
    "missing": Path.unlink,
}

each_damage = pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)


class Damage:
    """An `on_progress` that damages the last spool each time when everything has been received.

    Users are looked up until later; their spool is left alone.

    Args:
        times: how often, at most.
        stage: when: "fetching", with the last item, or "finishing", in the middle of it.
    """

    def __init__(
        self, case: Scripted, to: Path, damage: Callable[[Path], None], *, times: int, stage: str
    ) -> None:
        self.done = 0
        self.rounds = 0
        self._case, self._to, self._damage = case, to, damage
        self._times = times
        self._fetching = stage == "fetching"
        self._is_fresh = False

    def __call__(self, progress: Progress) -> None:
        if received(progress) < self._case.items:
            self.rounds += not self._is_fresh
            self._is_fresh = True
        elif self._is_fresh and progress.fetching == self._fetching:
            self._is_fresh = False
            if self.done < self._times:
                self.done += 1
                spools = [path for path in spools_of(self._to) if not path.name.startswith("joins")]
                self._damage(spools[-1])


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]


# ------------------------------------------------------------------------- found, and fetched again


@pytest.mark.parametrize(("name", "kind"), rotating([(name,) for name in DAMAGES], KINDS), ids=str)
async def test_a_spool_damaged_between_two_runs_is_fetched_again(
    to: Path, case: Scripted, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    uninterrupted = await case.uninterrupted(to)
    await case.interrupt(to)
    spool = max(spools_of(to), key=lambda path: path.stat().st_size)
    DAMAGES[name](spool)
    report = await case.run(to)
    assert to.read_bytes() == uninterrupted
    assert report.complete
    assert people_in(to) == case.people
    assert any(str(spool) in line for line in warnings_of(caplog))
    assert not workspace_of(to).exists()


@pytest.mark.parametrize(
    ("stage", "name", "kind"),
    rotating([*product(["fetching", "finishing"], DAMAGES)], KINDS),
    ids=str,
)
@pytest.mark.usefixtures("small_turns")
async def test_a_spool_damaged_while_the_run_goes_on_is_fetched_again(
    to: Path,
    kind: Kind,
    name: str,
    stage: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    # Long records, so that the output is not written in one batch.
    async with at_script(kind, padding=40_000) as case:
        uninterrupted = await case.uninterrupted(to)
        case.received.clear()
        damaging = Damage(case, to, DAMAGES[name], times=1, stage=stage)
        report = await case.run(to, on_progress=damaging)
        assert damaging.done == 1
        assert hashlib.sha256(to.read_bytes()).digest() == hashlib.sha256(uninterrupted).digest()
        assert report.complete
        if stage == "fetching":
            assert any(spool_name(kind) in line for line in warnings_of(caplog))
            assert damaging.rounds == 2
        assert len(case.repeated) < case.received.total() // 2


def spool_name(kind: Kind) -> str:
    return "chain-0005.spool.ndjson" if kind.tag == "events" else "found.spool.ndjson"


@pytest.mark.parametrize(
    ("kind", "name", "stage"),
    pairwise(KINDS, ["p.csv.gz", "p.parquet", "p.duckdb"], ["fetching", "finishing"]),
    ids=str,
)
@pytest.mark.usefixtures("small_turns")
async def test_every_format_is_written_anew_after_damage(
    tmp_path: Path, kind: Kind, name: str, stage: str
) -> None:
    to = tmp_path / name
    # A part that is typed is read once before the output is opened.
    is_flat = kind.flattens and not name.endswith("gz")
    options: dict[str, Any] = {"flatten": ["city"]} if is_flat else {}
    if name.endswith("duckdb"):
        # Any other table has its name in those of the files beside the output.
        options["table"] = "profiles"
    async with at_script(kind, padding=40_000) as case:
        damaging = Damage(case, to, flip(0.9), times=1, stage=stage)
        report = await case.run(to, on_progress=damaging, **options)
        assert damaging.done == 1
        assert report.complete
        assert report.bytes == to.stat().st_size
        [written] = [report.people if kind.tag == "events" else report.found]
        assert written == len(case.people)
        assert names_in(tmp_path) == case.kind.files(name)


@pytest.mark.usefixtures("small_turns")
async def test_a_table_of_a_server_is_written_anew_after_damage(
    tmp_path: Path, kind: Kind, postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The manifest is written to the current folder.
    monkeypatch.chdir(tmp_path)
    damaged: list[Path] = []

    def on_progress(progress: Progress) -> None:
        if not progress.fetching and progress.finished and not damaged:
            damaged.append(max(tmp_path.rglob("*.spool.ndjson")))
            flip(0.9)(damaged[0])

    async with at_script(kind, padding=40_000) as case, case.session() as session:
        to = postgres.url("people")
        report = await case.start(session, to, spool=tmp_path, on_progress=on_progress)
    assert len(damaged) == 1
    assert report.complete
    column = "identity" if kind.flattens else "key"
    people = [who for (who,) in postgres.rows(f"SELECT {column} FROM people")]
    assert sorted(people) == sorted(case.people)


async def test_only_the_damaged_chain_is_fetched_again(to: Path) -> None:
    async with at_script(EVENTS) as case:
        damage = Damage(case, to, flip(0.3), times=1, stage="fetching")
        report = await case.run(to, on_progress=damage)
        assert people_in(to) == case.people
        assert [chain.restarts for chain in report.chains] == [0, 0, 0, 0, 0, 1]
        again = [times for (line, _), times in case.received.items() if times > 1]
        # Twelve pages, and the opening of the chain.
        assert again == [2] * 13


@pytest.mark.parametrize("keys", [kind for kind in KINDS if kind.tag == "lookups"], ids=str)
async def test_only_damaged_answers_are_asked_for_again(
    to: Path, caplog: pytest.LogCaptureFixture, keys: Kind
) -> None:
    async with at_script(keys) as case:
        damage = Damage(case, to, flip(0.3), times=1, stage="fetching")
        report = await case.run(to, on_progress=damage)
        assert people_in(to) == case.people
        assert report.found == len(case.people)
        assert len(case.repeated) == 1
        assert any("asking for 1 key again" in line for line in warnings_of(caplog))


@each_damage
async def test_damaged_users_are_asked_for_again(to: Path, damage: Callable[[Path], None]) -> None:
    arguments: dict[str, Any] = {"events": "Charged", "start": 20260101, "end": 20260101}
    async with both() as services, services.session() as session:
        names = [f"{n}" for n in range(100, 200)]
        services.pages = [[b'{"identity":"%b"}' % name.encode() for name in names]]
        services.users = {name: [user(name, f"e{name}")] for name in names}
        services.answers = {"150": USED_UP}
        with pytest.raises(Incomplete):
            await session.export(**arguments, to=to, with_cdp=True)
        damage(workspace_of(to) / "joins.spool.ndjson")
        services.answers, services.asked, services.read = {}, [], []
        report = await session.export(**arguments, to=to, with_cdp=True)
        assert report.matched == len(names)
        lines = map(json.loads, to.read_bytes().splitlines())
        assert {line["identity"]: line["cdp"] for line in lines} == services.users
        assert services.read == []
        assert "150" in services.asked
        assert len(services.asked) == len({*services.asked})


async def test_damage_at_several_places_is_repaired_at_once(to: Path, case: Scripted) -> None:
    def everywhere(last: Path) -> None:
        for path in last.parent.glob("*.spool.ndjson"):
            for at in (0.1, 0.5, 0.9) if path.stat().st_size else ():
                flip(at)(path)

    uninterrupted = await case.uninterrupted(to)
    damage = Damage(case, to, everywhere, times=1, stage="fetching")
    await case.run(to, on_progress=damage)
    assert to.read_bytes() == uninterrupted
    assert damage.rounds == 2


async def test_damage_at_the_end_is_found_before_the_first_request(
    to: Path, case: Scripted, caplog: pytest.LogCaptureFixture
) -> None:
    await case.interrupt(to)
    spool = max(spools_of(to), key=lambda path: path.stat().st_size)
    flip(1)(spool)
    warned: list[int] = []

    def on_progress(progress: Progress) -> None:
        if not warned and progress.fetching:
            warned.append(len(warnings_of(caplog)))

    requests = case.requests
    await case.run(to, on_progress=on_progress)
    assert warned == [1]
    assert case.requests > requests


async def test_a_disk_that_always_lies_ends_the_export(to: Path, case: Scripted) -> None:
    uninterrupted = await case.uninterrupted(to)
    to.write_bytes(b"last week's\n")
    damage = Damage(case, to, flip(1), times=1000, stage="fetching")
    with pytest.raises(Incomplete) as caught:
        await case.run(to, on_progress=damage)
    assert 2 <= damage.done <= 5
    [sentence] = caught.value.missing
    assert spool_name(case.kind) in sentence
    assert str(workspace_of(to)) in sentence
    assert "`spool`" in sentence
    assert to.read_bytes() == b"last week's\n"
    # What is not damaged is still there for a later run.
    requests = case.requests
    await case.run(to)
    assert to.read_bytes() == uninterrupted
    assert case.requests - requests < case.items


async def test_nothing_is_fetched_again_without_damage(
    to: Path, case: Scripted, caplog: pytest.LogCaptureFixture
) -> None:
    await case.interrupt(to)
    await case.run(to)
    assert people_in(to) == case.people
    assert len(case.repeated) <= case.kind.ahead
    assert not any("damaged" in text for text in warnings_of(caplog))


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file that cannot be read")
def test_a_record_that_the_disk_cannot_read_is_damaged() -> None:
    path = Path("/proc/self/mem")
    with pytest.raises(OSError, match="Input/output error") as caught, path.open("rb") as file:
        file.read(10)
    assert caught.value.errno == errno.EIO
    answer = Answer("key", FOUND, offset=0, length=10)
    assert list(read_answers(path, [answer])) == [(answer, None)]


# --------------------------------------------------------------------- journals of earlier versions


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with serving() as service:
        yield service


each_sample = pytest.mark.parametrize("kind", ["events", "keys"])
VERSIONS = sorted(path.name for path in SAMPLES.iterdir())
each_version = pytest.mark.parametrize("version", VERSIONS)


def journal_of(folder: Path) -> closing[sqlite3.Connection]:
    return closing(sqlite3.connect(folder / "journal.sqlite"))


@each_version
@each_sample
async def test_an_export_of_an_earlier_version_is_resumed(
    tmp_path: Path, service: Service, kind: str, version: str
) -> None:
    whole, to = tmp_path / "whole.ndjson", tmp_path / "p.ndjson"
    await service.start(kind, whole)
    service.requests.clear()
    folder = service.bring(SAMPLES / version / kind, to)
    with journal_of(folder) as db:
        assert db.execute("pragma user_version").fetchone() == (int(version[8:]),)
    report = await service.start(kind, to)
    assert to.read_bytes() == whole.read_bytes()
    assert report.complete
    if kind == "keys":
        # Those that had an answer are not asked for again.
        assert 0 < len(service.requests) <= len(KEYS) - 100
        beside = to.with_name("p.ndjson.not-found.txt").read_bytes()
        assert beside == whole.with_name("whole.ndjson.not-found.txt").read_bytes()
    else:
        assert 0 < len(service.requests) < 4 * 7
        assert not any(chain.restarts for chain in report.chains)
    assert not folder.exists()


@each_sample
async def test_an_export_of_an_earlier_version_is_resumed_again_and_again(
    tmp_path: Path, service: Service, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Pages fetched from now on have a checksum; the pages before them have none."""
    whole, to = tmp_path / "whole.ndjson", tmp_path / "p.ndjson"
    await service.start(kind, whole)
    folder = service.bring(SAMPLES / "version-1" / kind, to)

    class Halt(Exception):
        pass

    def on_progress(progress: Progress) -> None:
        if received(progress) > progress.resumed:
            raise Halt

    with pytest.raises(Halt):
        await service.start(kind, to, on_progress=on_progress)
    folder = workspace_of(to)
    with journal_of(folder) as db:
        assert db.execute("pragma user_version").fetchone() > (1,)
    service.requests.clear()
    # The first chain is the one that was not finished.
    spool = min(folder.glob("*.spool.ndjson"))
    flip(1)(spool)
    await service.start(kind, to)
    assert any(str(spool) in line for line in warnings_of(caplog))
    assert to.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("damage", [cut, empty, Path.unlink])
@each_sample
async def test_a_spool_of_an_earlier_version_that_is_too_short_is_fetched_again(
    tmp_path: Path, service: Service, kind: str, damage: Callable[[Path], None]
) -> None:
    whole, to = tmp_path / "whole.ndjson", tmp_path / "p.ndjson"
    await service.start(kind, whole)
    folder = service.bring(SAMPLES / "version-1" / kind, to)
    damage(min(folder.glob("*.spool.ndjson")))
    await service.start(kind, to)
    assert to.read_bytes() == whole.read_bytes()


async def test_a_spool_of_an_earlier_version_with_another_number_of_lines_is_fetched_again(
    tmp_path: Path, service: Service
) -> None:
    whole, to = tmp_path / "whole.ndjson", tmp_path / "p.ndjson"
    await service.start("events", whole)
    folder = service.bring(SAMPLES / "version-1" / "events", to)
    changed(
        folder / "chain-0000.spool.ndjson",
        lambda data: data.__setitem__(slice(None), data.replace(b"\n", b" ", 1)),
    )
    await service.start("events", to)
    assert to.read_bytes() == whole.read_bytes()


@each_sample
async def test_an_export_of_a_newer_version_is_refused(
    tmp_path: Path, service: Service, kind: str
) -> None:
    to = tmp_path / "p.ndjson"
    folder = service.bring(SAMPLES / "version-1" / kind, to)
    with journal_of(folder) as db:
        db.execute("pragma user_version = 1000")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for _ in range(2):
        with pytest.raises(ExportError, match=r"newer version of altaprofiles") as caught:
            await service.start(kind, to)
        assert type(caught.value) is ExportError
        assert str(folder) in str(caught.value)
        assert "`resume=False`" in str(caught.value)
    assert service.requests == []
    for name, data in before.items():
        if "sqlite" not in name:
            assert (folder / name).read_bytes() == data
    await service.start(kind, to, resume=False)
    assert not folder.exists()


@each_sample
async def test_a_journal_that_cannot_be_updated_stays_as_it_was(
    tmp_path: Path, service: Service, kind: str
) -> None:
    """An update is whole or not made at all, so that it can be made later."""
    whole, to = tmp_path / "whole.ndjson", tmp_path / "p.ndjson"
    await service.start(kind, whole)
    folder = service.bring(SAMPLES / "version-1" / kind, to)
    with journal_of(folder) as db:
        # Last of all that an update does, so that everything before it has been done by then.
        db.execute("create table parts (x)")
    with pytest.raises(ExportError):
        await service.start(kind, to)
    with journal_of(folder) as db:
        assert db.execute("pragma user_version").fetchone() == (1,)
        db.execute("drop table parts")
    await service.start(kind, to)
    assert to.read_bytes() == whole.read_bytes()
    shutil.rmtree(folder, ignore_errors=True)
