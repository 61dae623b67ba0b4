"""People told apart by marks on disk: the same answer as in memory, whatever interrupts it."""

from __future__ import annotations

import json
import logging
import sqlite3
import tracemalloc
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from altaprofiles import ExportError, Incomplete
from altaprofiles.emulator import Emulator
from altaprofiles.export.report import Progress
from altaprofiles.export.store.marks import BUCKETS, Marks, MarksDamaged, PageMarks
from altaprofiles.export.store.people import EachOnce, Origin
from altaprofiles.flow.slices import at_once
from altaprofiles.models.people import Distinct, identity_of, short_digest
from altaprofiles.tables.rows import Row

from ..support.exporting import Job, exporter
from ..support.jobs import EVENTS, Halt, at_script, journal, people_in, received, workspace_of
from ..support.marks import Chains, told_apart
from ..support.thorough import THOROUGH, examples
from ..support.unfinished import Service, serving

pytestmark = pytest.mark.anyio

HELD = "altaprofiles.export.store.marks.HELD"
MOST = "altaprofiles.export.store.people._MOST"
NAMES = ["Charged", "App Launched"]

DEVICES = st.lists(st.sampled_from("abcde"), max_size=2, unique=True)
PEOPLE = st.lists(
    st.tuples(
        st.sampled_from(["", "1", "2", "3"]),
        DEVICES,
        st.sampled_from(NAMES),
        st.sampled_from([date(2026, 1, 1), date(2026, 1, 2)]),
    ),
    max_size=30,
)


def record_of(identity: str, devices: Sequence[str]) -> bytes:
    sent: dict[str, Any] = {"platformInfo": [{"objectId": one} for one in devices]}
    return json.dumps({"identity": identity, **sent} if identity else sent).encode()


def in_memory(rows: Sequence[Row]) -> list[Row]:
    seen = {row.day: Distinct() for row in rows}
    return [row for row in rows if seen[row.day].is_new(identity_of(row.record), row.record)]


@settings(
    max_examples=examples(60, 500),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    deadline=None,
)
@given(
    drawn=PEOPLE,
    pages=st.lists(st.tuples(st.integers(0, 5), st.integers(1, 4), st.booleans()), max_size=12),
    held=st.integers(1, 9),
    most=st.integers(1, 9),
    has_days=st.booleans(),
)
def test_people_are_told_apart_as_in_memory_whatever_interrupts_it(
    tmp_path: Path,
    drawn: list[tuple[str, list[str], str, date]],
    pages: list[tuple[int, int, bool]],
    held: int,
    most: int,
    has_days: bool,
) -> None:
    rows = [
        Row(record_of(identity, devices), matched=(event,), day=day if has_days else None)
        for identity, devices, event, day in drawn
    ]
    matched = told_apart(rows, tmp_path / "marks", matching=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HELD, held)
        patch.setattr(MOST, most)
        for matching in (False, True):
            chains = Chains(rows, tmp_path / "marks")
            for number, count, is_killed in pages:
                if chains.chains:
                    chains.add(number % len(chains.chains), count)
                if is_killed:
                    chains.kill()
            found = chains.written(matching=matching)
            assert [row.record for row in found] == [row.record for row in in_memory(rows)]
            assert found == (matched if matching else in_memory(rows))


def test_people_of_one_bucket_are_not_one_person(tmp_path: Path) -> None:
    names = [f"{n}" for n in range(40 * BUCKETS)]
    together = [name for name in names if short_digest(name.encode())[0] == 7]
    assert len(together) > 20
    rows = [Row(record_of(name, [])) for name in (*together, *reversed(together))]
    assert told_apart(rows, tmp_path / "marks") == rows[: len(together)]


def test_marks_of_which_half_is_the_same_are_two_people(tmp_path: Path) -> None:
    page = PageMarks()
    page.count = 5
    page.marks = [
        bytes(range(16)),
        bytes([*range(8), *bytes(8)]),
        bytes([*bytes(8), *range(8, 16)]),
        bytes(range(16)),
        bytes([*range(15), 99]),
    ]
    page.numbers = array("Q", range(5))
    marks = Marks(tmp_path / "marks")
    marks.add(0, 0, page, 0, 5)
    people = EachOnce(marks, lambda: iter(()), [Origin(0, 0, 5)])
    for _ in people.prepare():
        pass
    rows = [Row(b"%d" % n) for n in range(5)]
    assert people.keep(rows) == [rows[0], rows[1], rows[2], rows[4]]


@pytest.mark.parametrize("events", [7, 8, 9, 70])
def test_a_person_of_many_events_has_them_all(tmp_path: Path, events: int) -> None:
    names = [f"Event {n:03}" for n in range(events)]
    rows = [Row(record_of(who, []), matched=(name,)) for name in names for who in ("1", name)]
    found = told_apart(rows, tmp_path / "marks", matching=True)
    assert [row.matched for row in found if row.record == rows[0].record] == [tuple(names)]
    assert [row.matched for row in found[1:]] == [(name,) for name in names]


def test_a_chain_that_was_restarted_counts_once(tmp_path: Path) -> None:
    marks = Marks(tmp_path / "marks")
    rows = [Row(record_of(f"{n % 3}", [])) for n in range(5)]
    for restarts in (0, 1, 2):
        page = PageMarks()
        at_once(page.put([row.record for row in rows]))
        marks.add(4, restarts, page, 0, 5)
    people = EachOnce(marks, lambda: iter(()), [Origin(4, 2, 5)])
    for _ in people.prepare():
        pass
    assert people.keep(rows) == rows[:3]


def test_telling_people_apart_takes_a_bit_of_memory_a_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HELD, 2048)

    def taken(count: int, run: int) -> int:
        tracemalloc.start()
        marks = Marks(tmp_path / f"{count}-{run}")
        for start in range(0, count, 1000):
            page = PageMarks()
            at_once(page.put([b'{"identity":%d}' % n for n in range(start, start + 1000)]))
            marks.add(0, 0, page, start, start + 1000)
            marks.store()
        people = EachOnce(marks, lambda: iter(()), [Origin(0, 0, count)])
        for _ in people.prepare():
            pass
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return peak

    # The set of the keys would take 100 bytes each. What is held at a time is the same in both,
    # and for each chunk of 2,048 marks some 4 KB say where its buckets are.
    # What other threads and first imports take in the meantime only adds to it.
    most, least = (min(taken(count, run) for run in range(3)) for count in (20_000, 5_000))
    assert most - least < 15_000 * 10


# ------------------------------------------------------------------------------ a file that changes


def flip(at: float) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[int(at * (len(data) - 1))] ^= 1
        path.write_bytes(data)

    return damage


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def other(path: Path) -> None:
    """Put a file in its place whose chunks are whole, and of other people."""
    size = path.stat().st_size
    path.unlink()
    marks = Marks(path)
    while not path.exists() or path.stat().st_size < size:
        page = PageMarks()
        at_once(page.put([b'{"identity":"1"}'] * 10))
        marks.add(0, 0, page, marks.covered(0, 0)[0], 0)
        marks.store()


DAMAGES = [flip(0), flip(0.5), flip(1), cut, Path.unlink, other]


@pytest.mark.parametrize(
    ("damage", "when"),
    [
        *((damage, "before a later run") for damage in DAMAGES),
        # Where buckets are is not read again.
        *((damage, "at the end") for damage in DAMAGES[1:]),
    ],
)
def test_a_file_of_marks_that_changes_is_made_again(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[Path], None],
    when: str,
) -> None:
    monkeypatch.setattr(HELD, 10)
    rows = [Row(record_of(f"{n % 40}", []), matched=(NAMES[n // 50],)) for n in range(100)]
    expected = told_apart(rows, tmp_path / "expected", matching=True)
    chains = Chains(rows, tmp_path / "marks")
    for number in (0, 1, 0, 1, 0, 1):
        chains.add(number, 12)
    chains.commit()
    damage(chains.marks.path)
    if when == "before a later run":
        chains.kill()
    assert chains.written(matching=True) == expected
    warned = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert any("it is made again from the records" in record.getMessage() for record in warned)


def test_a_disk_that_always_lies_ends_the_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HELD, 10)
    rows = [Row(record_of(f"{n}", [])) for n in range(50)]

    class Lying(Chains):
        def complete(self, pages: int = 7) -> Iterator[None]:
            yield from super().complete(pages)
            flip(1)(self.marks.path)

    with pytest.raises(ExportError, match=r"does not keep what is written.*`spool`") as caught:
        Lying(rows, tmp_path / "marks").written()
    assert str(tmp_path / "marks") in str(caught.value)


def test_a_file_made_again_is_not_taken_for_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HELD, 10)
    rows = [Row(record_of(f"{n}", []), matched=(NAMES[n // 20],)) for n in (*range(40), 0, 20)]
    chains = Chains(rows, tmp_path / "marks")
    for number in (0, 1, 0, 1):
        chains.add(number, 10)
    chains.commit()
    # The journal has what was there before the file was made again, in another order.
    saved = chains.saved
    chains.marks.clear(MarksDamaged("it is damaged"))
    for number in (1, 0, 1, 0):
        chains.add(number, 10)
    assert saved not in (None, chains.saved)
    chains.saved = saved
    chains.kill()
    assert chains.written() == rows[:40]


# --------------------------------------------------------------------------------- in real exports


async def interrupted(case: Any, to: Path, pages: int, **changes: Any) -> None:
    def on_progress(progress: Progress) -> None:
        if received(progress) >= pages:
            case.released.clear()
            raise Halt

    with pytest.raises(Halt):
        await case.run(to, on_progress=on_progress, **changes)
    case.released.set()


@pytest.mark.parametrize("damage", [None, *DAMAGES])
async def test_an_export_is_resumed_with_the_marks_of_the_run_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Path], None] | None
) -> None:
    monkeypatch.setattr(HELD, 1)
    to = tmp_path / "p.ndjson"
    async with at_script(EVENTS) as case:
        uninterrupted = await case.uninterrupted(to)
        await interrupted(case, to, case.items // 2)
        marks = workspace_of(to) / "people.marks"
        assert marks.stat().st_mode & 0o077 == 0
        if damage is not None:
            damage(marks)
        await case.run(to)
        assert to.read_bytes() == uninterrupted
        assert people_in(to) == case.people
    assert [*tmp_path.glob("*.export")] == []


async def test_an_export_of_the_version_before_is_resumed(tmp_path: Path) -> None:
    """It has told nobody apart yet, or has begun to, in a file of another form."""
    service: Service
    whole, to = tmp_path / "whole.ndjson", tmp_path / "p.ndjson"

    def on_progress(progress: Progress) -> None:
        if received(progress) > 12:
            raise Halt

    async with serving() as service:
        await service.start("events", whole)
        with pytest.raises(Halt):
            await service.start("events", to, on_progress=on_progress)
        workspace = workspace_of(to)
        workspace.joinpath("people.marks").unlink(missing_ok=True)
        with closing(sqlite3.connect(workspace / "journal.sqlite")) as db, db:
            db.execute("delete from state where name = 'marks'")
        with closing(sqlite3.connect(workspace / "people.sqlite")) as db, db:
            db.execute("create table identities (mark blob primary key) without rowid")
        await service.start("events", to)
    assert to.read_bytes() == whole.read_bytes()
    assert not workspace.parent.exists()


async def test_repeats_are_left_out_also_if_an_earlier_run_kept_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HELD, 1)
    to = tmp_path / "p.ndjson"
    async with at_script(EVENTS) as case:
        uninterrupted = await case.uninterrupted(to)
        for part, distinct in ((4, True), (2, False)):
            await interrupted(case, to, case.items // part, distinct=distinct)
        await case.run(to)
        assert to.read_bytes() == uninterrupted


SMALL: dict[str, Any] = {
    "events": ["App Launched", "Charged"],
    "start": 20260101,
    "end": 20260110,
    "windows": 1,
    "batch_size": 46,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["people.ndjson", "people.parquet"])
async def test_killed_at_each_step_while_marks_are_written(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "out"
    to = folder / name
    async with (
        Emulator(people=80, seed=3) as emulator,
        exporter(tmp_path / "processes") as processes,
    ):
        job = Job(arguments={**SMALL, "to": str(to)}, environment=emulator.environment, marks=20)

        def output() -> bytes:
            data = to.read_bytes()
            for path in folder.iterdir():
                path.unlink()
            return data

        folder.mkdir()
        plain = (await processes.run(job.but(listed=True, marks=None))).steps
        whole = output()
        steps = (await processes.run(job.but(listed=True))).steps
        assert output() == whole
        appended = [number for number, step in enumerate(steps) if step.startswith("os.write")]
        # Those of the marks, beside those of pages.
        assert len(appended) > len([step for step in plain if step.startswith("os.write")])
        numbers = range(appended[0], appended[-1] + 3)
        died = saved = 0
        for number in numbers if THOROUGH or name.endswith("ndjson") else numbers[::4]:
            for when in ("half", "after") if "half" in steps[number] else ("after",):
                outcome = await processes.run(job.but(die=(number, when)))
                died += outcome.signal > 0
                state = "select 1 from state where name = 'marks'"
                saved += not to.exists() and bool(journal(workspace_of(to), state))
                await processes.run(job)
                assert output() == whole, (number, when, steps[number])
        assert died
        assert saved


@pytest.mark.slow
async def test_a_full_disk_while_marks_are_written_loses_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    to = folder / "people.ndjson"
    async with (
        Emulator(people=80, seed=3) as emulator,
        exporter(tmp_path / "processes") as processes,
    ):
        job = Job(arguments={**SMALL, "to": str(to)}, environment=emulator.environment, marks=20)
        folder.mkdir()
        assert (await processes.run(job)).report is not None
        whole = to.read_bytes()
        failed = 0
        for number in range(1, 7):
            to.unlink()
            outcome = await processes.run(job.but(fail=number))
            if "people.marks" in outcome.message:
                failed += 1
                assert outcome.error == Incomplete.__name__
                assert "No space left" in outcome.message
            await processes.run(job)
            assert to.read_bytes() == whole
        assert failed
