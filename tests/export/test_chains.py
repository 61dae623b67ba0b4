"""Exports of events in this process, with the emulator, real sockets and real files."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import logging
import os
import pickle
import shutil
import sqlite3
import stat
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from altaprofiles import (
    BadRequest,
    CleverTap,
    ConfigurationError,
    ExportError,
    ExportLocked,
    Incomplete,
    NotReady,
    PlanMismatch,
    Profile,
    ServerError,
    Session,
    Unauthorized,
)
from altaprofiles.emulator import Emulator
from altaprofiles.export.report import ExportProgress, ExportReport

from ..support.servers import gated, http, scripted
from ..support.sessions import QUICK
from ..support.tasks import end_midway, nothing_left_behind

pytestmark = pytest.mark.anyio

ARGUMENTS: dict[str, Any] = {
    "events": ["App Launched", "Charged"],
    "start": 20260101,
    "end": 20260131,
    "windows": 3,
    "batch_size": 46,
}


def session_for(emulator: Emulator, **changes: Any) -> Session:
    account = {
        "account_id": emulator.environment["CLEVERTAP_ACCOUNT_ID"],
        "passcode": emulator.environment["CLEVERTAP_PASSCODE"],
        "base_url": emulator.url,
    }
    return Session(clevertap=CleverTap(**{**account, **changes}), retry=QUICK)


async def export(emulator: Emulator, to: Path, **changes: Any) -> ExportReport:
    """Export with a session of its own."""
    async with session_for(emulator) as session:
        return await session.export(**{**ARGUMENTS, "to": to, **changes})


def workspace_of(to: Path) -> Path:
    return to.with_name(f"{to.name}.export")


def spools_of(to: Path) -> list[Path]:
    return sorted(workspace_of(to).glob("chain-*"))


def person(identity: str | None, devices: list[str]) -> str:
    return identity if identity is not None else " ".join(sorted(devices))


def people_in(to: Path) -> list[str]:
    profiles = [Profile.decode(line) for line in to.read_bytes().splitlines()]
    return [person(profile.identity, profile.object_ids) for profile in profiles]


def people_of(emulator: Emulator, event: str, start: int, end: int) -> list[str]:
    population = emulator.population
    return [
        person(population.identity(n), population.object_ids(n))
        for n in population.active(event, start, end)
    ]


THIRDS = [(20260101, 20260110), (20260111, 20260120), (20260121, 20260131)]


def people_in_plan_order(emulator: Emulator) -> list[str]:
    """Return the people that ARGUMENTS select, each where they first occur."""
    chains = [
        people_of(emulator, event, *window) for event in ARGUMENTS["events"] for window in THIRDS
    ]
    return list(dict.fromkeys(who for chain in chains for who in chain))


GREP = shutil.which("grep") or "/bin/grep"


class Halt(Exception):
    """Ends an export from outside."""


async def interrupted(emulator: Emulator, to: Path, pages: int, **changes: Any) -> None:
    """Run an export until `pages` pages are on disk."""

    def on_progress(progress: ExportProgress) -> None:
        if sum(chain.pages for chain in progress.chains) >= pages:
            raise Halt

    with pytest.raises(Halt):
        await export(emulator, to, on_progress=on_progress, **changes)
    assert workspace_of(to).is_dir() or "spool" in changes


def change_journal(to: Path, sql: str, *values: Any) -> None:
    db = sqlite3.connect(workspace_of(to) / "journal.sqlite")
    with db:
        db.execute(sql, values)
    db.close()


# ----------------------------------------------------------------------------------- what comes out


async def test_everyone_once_in_the_order_of_the_plan(tmp_path: Path) -> None:
    to = tmp_path / "people.ndjson"
    async with Emulator(people=400, seed=2) as emulator:
        report = await export(emulator, to)
        expected = people_in_plan_order(emulator)
        population = emulator.population
        assert people_in(to) == expected
        # A person without identity is identified by different devices in different chains.
        assert len(expected) == len(set(expected))
        records = [
            len(population.active(event, *window))
            for event in ARGUMENTS["events"]
            for window in THIRDS
        ]
    assert [chain.records for chain in report.chains] == records
    assert [(chain.event, chain.start, chain.end) for chain in report.chains] == [
        (event, *window) for event in ARGUMENTS["events"] for window in THIRDS
    ]
    assert report.records == sum(records) > report.people == len(expected)


async def test_the_report_and_the_manifest_tell_what_there_is(tmp_path: Path) -> None:
    to = tmp_path / "people.ndjson"
    async with Emulator(people=300, seed=2) as emulator:
        report = await export(emulator, to, count=True)
        counted = {
            event: len(emulator.population.active(event, 20260101, 20260131))
            for event in ARGUMENTS["events"]
        }
        asked = emulator.stats.requests
    data = to.read_bytes()
    assert report.output == str(to)
    assert report.format == "ndjson"
    assert report.complete
    assert report.people == data.count(b"\n")
    assert report.bytes == len(data)
    assert report.sha256 == hashlib.sha256(data).hexdigest()
    assert report.pages == sum(chain.pages for chain in report.chains)
    assert report.requests == sum(asked.values())
    assert report.mended == 0
    assert report.counted == counted
    assert all(chain.done and not chain.restarts for chain in report.chains)
    assert [chain.counted for chain in report.chains] == [chain.records for chain in report.chains]
    manifest = json.loads(tmp_path.joinpath("people.ndjson.manifest.json").read_bytes())
    assert manifest["sha256"] == report.sha256
    assert manifest["bytes"] == report.bytes
    assert manifest["counted"] == counted
    assert manifest["people"] == report.people
    assert manifest["plan"]["events"] == ARGUMENTS["events"]
    assert len(manifest["chains"]) == 6
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "people.ndjson",
        "people.ndjson.manifest.json",
    ]
    assert pickle.loads(pickle.dumps(report)) == report  # noqa: S301


async def test_two_runs_are_the_same_whatever_goes_wrong(tmp_path: Path) -> None:
    faults = {"server_error": 0.1, "truncated": 0.1, "disconnect": 0.1, "empty_page": 0.3}
    async with Emulator(people=300, seed=2) as calm, Emulator(people=300, seed=2) as wild:
        wild.faults = faults
        for name in ("people.ndjson", "people.csv.gz", "people.parquet"):
            one, other = tmp_path / f"one-{name}", tmp_path / f"other-{name}"
            assert (await export(calm, one)).retries == 0
            assert (await export(wild, other)).retries > 0
            assert one.read_bytes() == other.read_bytes()


async def test_not_distinct_is_every_record_of_every_chain(tmp_path: Path) -> None:
    to = tmp_path / "people.ndjson"
    async with Emulator(people=200, seed=2) as emulator:
        report = await export(emulator, to, distinct=False)
        every = [
            who
            for event in ARGUMENTS["events"]
            for window in THIRDS
            for who in people_of(emulator, event, *window)
        ]
    assert report.people == report.records == len(every)
    assert sorted(people_in(to)) != sorted(set(every))
    lines = to.read_bytes().splitlines()
    assert len(lines) == len(every)


async def test_records_pass_through_as_they_came(tmp_path: Path) -> None:
    to = tmp_path / "people.ndjson"
    async with Emulator(people=100, seed=2) as emulator, session_for(emulator) as session:
        await session.export("App Launched", start=20260101, end=20260131, to=to, windows=1)
        pages = session.profiles.by_event("App Launched", start=20260101, end=20260131)
        lines = [page.encode() async for page in pages.pages(decode=False)]
        assert to.read_bytes() == b"".join(lines)
        records = [json.loads(line) for line in to.read_bytes().splitlines()]
        expected = [
            emulator.population.record(n)
            for n in emulator.population.active("App Launched", 20260101, 20260131)
        ]
    # Records without identity list their devices in a different order in each query.
    assert sum(record in expected for record in records) > 80
    # Keys without an attribute in this library are included.
    assert {key for record in records for key in record} > {"identity", "profileData"}


async def test_flags_reach_the_service(tmp_path: Path) -> None:
    to = tmp_path / "people.ndjson"
    async with Emulator(people=60, seed=2) as emulator:
        await export(emulator, to, event_summaries=False, profile=False, app=True)
    records = [json.loads(line) for line in to.read_bytes().splitlines()]
    assert all("events" not in record and "profileData" not in record for record in records)
    assert any(
        "app_version" in json.dumps(record) or "make" in json.dumps(record) for record in records
    )


async def test_nobody_makes_an_empty_file(tmp_path: Path) -> None:
    async with Emulator(people=0) as emulator:
        for name, read in (("a.ndjson", bytes), ("a.ndjson.gz", gzip.decompress)):
            to = tmp_path / name
            report = await export(emulator, to)
            assert report.complete
            assert report.people == 0
            assert read(to.read_bytes()) == b""


@pytest.mark.parametrize(
    ("slots", "events", "chains"), [(3, 1, 3), (3, 2, 4), (1, 2, 2), (5, 1, 5)]
)
async def test_auto_makes_as_many_chains_as_slots(
    tmp_path: Path, slots: int, events: int, chains: int
) -> None:
    to = tmp_path / "people.ndjson"
    names = ARGUMENTS["events"][:events]
    async with Emulator(people=60) as emulator:
        async with session_for(emulator, max_in_flight=slots) as session:
            report = await session.export(
                **{**ARGUMENTS, "events": names, "windows": "auto", "to": to}
            )
            assert len(report.chains) == chains
            # Never more than there are days.
            report = await session.export(
                names, start=date(2026, 1, 1), end=date(2026, 1, 1), to=to
            )
            assert len(report.chains) == events


async def test_auto_goes_on_with_the_windows_that_were_begun(tmp_path: Path) -> None:
    to = tmp_path / "people.ndjson"
    async with Emulator(people=300, seed=2) as emulator:
        await export(emulator, to)
        uninterrupted = to.read_bytes()
        await interrupted(emulator, to, 6)
        report = await export(emulator, to, windows="auto")
        assert len(report.chains) == 6
        assert to.read_bytes() == uninterrupted
        await interrupted(emulator, to, 3)
        with pytest.raises(PlanMismatch) as caught:
            await export(emulator, to, windows=2)
        assert caught.value.differences == {"windows": (3, 2)}


async def test_progress(tmp_path: Path) -> None:
    told: list[ExportProgress] = []
    async with Emulator(people=300, seed=2) as emulator:
        report = await export(emulator, tmp_path / "p.ndjson", count=True, on_progress=told.append)
    stages = [progress.stage for progress in told]
    assert stages == sorted(stages, reverse=True)
    assert stages[0] == "reading"
    assert stages[-1] == "finishing"
    for name in ("records", "finished", "people", "requests", "seconds"):
        values = [getattr(progress, name) for progress in told]
        assert values == sorted(values), name
    # The total is known, and correct, once every chain has been counted.
    totals = [progress.total for progress in told]
    assert set(totals) == {None, report.records}
    assert totals == sorted(totals, key=lambda total: total or 0)
    last = told[-1]
    assert (last.records, last.finished, last.people) == (
        report.records,
        report.records,
        report.people,
    )
    assert all(progress.resumed == 0 and progress.slots == 3 for progress in told)
    assert all(0 <= progress.in_flight <= 3 for progress in told)
    reading = [progress for progress in told if progress.stage == "reading"]
    assert len(reading) > report.pages


async def test_an_existing_output_is_there_until_the_end(tmp_path: Path) -> None:
    to = tmp_path / "people.ndjson"
    to.write_bytes(b"last week's\n")
    seen: set[bytes] = set()
    async with Emulator(people=200, seed=2) as emulator:
        await export(emulator, to, on_progress=lambda _: seen.add(to.read_bytes()))
    assert seen == {b"last week's\n"}
    assert to.read_bytes().startswith(b"{")


# -------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("Notification Sent", "Export not allowed for this event"),
        ("App launched", "Invalid event : App launched"),
    ],
)
async def test_refused_events_are_told_before_any_page(
    tmp_path: Path, wrong: str, words: str
) -> None:
    async with Emulator(people=200, seed=2) as emulator:
        with pytest.raises(BadRequest) as caught:
            await export(emulator, tmp_path / "p.ndjson", events=["App Launched", "Charged", wrong])
        assert caught.value.message == words or words in caught.value.message
        assert any(repr(wrong) in note for note in caught.value.__notes__)
        assert emulator.stats.requests["page"] == 0
    assert list(tmp_path.iterdir()) == []


async def test_wrong_credentials(tmp_path: Path) -> None:
    async with Emulator(people=50) as emulator:
        async with session_for(emulator, passcode="WRONG-PASSCODE") as session:
            with pytest.raises(Unauthorized) as caught:
                await session.export(**ARGUMENTS, to=tmp_path / "p.ndjson")
    assert "WRONG-PASSCODE" not in repr(caught.value) + str(caught.value)
    assert list(tmp_path.iterdir()) == []


async def test_credentials_refused_on_the_way_keep_what_there_is(tmp_path: Path) -> None:
    to = tmp_path / "p.ndjson"
    async with Emulator(people=300, seed=2) as emulator:
        await export(emulator, to)
        uninterrupted = to.read_bytes()
        await interrupted(emulator, to, 8)
        async with session_for(emulator, passcode="WRONG-PASSCODE") as session:
            with pytest.raises(Unauthorized) as caught:
                await session.export(**ARGUMENTS, to=to)
        assert any("run the same export again" in note for note in caught.value.__notes__)
        await export(emulator, to)
        assert to.read_bytes() == uninterrupted


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"events": []}, "events"),
        ({"events": ""}, "event"),
        ({"events": None}, "events"),
        ({"events": b"App Launched"}, "events"),
        ({"events": ["App Launched", 3]}, "events"),
        ({"events": ["Charged", "Charged"]}, "events"),
        ({"start": "2026-01-01"}, "start"),
        ({"start": 20260231}, "start"),
        ({"end": 20251231}, "end"),
        ({"end": 1_800_000_000}, "end"),
        ({"windows": 0}, "windows"),
        ({"windows": "many"}, "windows"),
        ({"windows": None}, "windows"),
        ({"batch_size": 100}, "batch_size"),
        ({"distinct": 1}, "distinct"),
        ({"count": "yes"}, "count"),
        ({"resume": None}, "resume"),
        ({"app": 0}, "app"),
        ({"event_summaries": "false"}, "event_summaries"),
        ({"profile": 1}, "profile"),
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
        # The name caf\xe9 in Latin-1, as Python decodes it, and a name that no file can have.
        ({"to": "caf\udce9.duckdb"}, "to"),
        ({"to": "caf\ud800.ndjson"}, "to"),
        ({"spool": "missing/spool"}, "spool"),
        ({"spool": "a-file"}, "spool"),
        ({"spool": 3}, "spool"),
        ({"spool": ""}, "spool"),
        ({"on_progress": "tell me"}, "on_progress"),
    ],
)
async def test_bad_input_is_refused_before_anything_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    tmp_path.joinpath("a-file").touch()
    async with Emulator(people=20) as emulator:
        with pytest.raises(ConfigurationError, match=f"^{name}\\b"):
            async with session_for(emulator) as session:
                await session.export(**{**ARGUMENTS, "to": "people.ndjson", **changes})
        assert not any(emulator.stats.requests.values())
    assert [path.name for path in tmp_path.iterdir()] == ["a-file"]


async def test_an_async_on_progress_is_refused(tmp_path: Path) -> None:
    async def tell(progress: ExportProgress) -> None: ...

    async with Emulator(people=20) as emulator:
        with pytest.raises(ConfigurationError, match="on_progress: expected a plain function"):
            await export(emulator, tmp_path / "p.ndjson", on_progress=tell)
    assert list(tmp_path.iterdir()) == []


async def test_a_session_that_is_not_open(tmp_path: Path) -> None:
    async with Emulator(people=20) as emulator:
        session = session_for(emulator)
        with pytest.raises(ConfigurationError, match="not open yet"):
            await session.export(**ARGUMENTS, to=tmp_path / "p.ndjson")
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------ interrupted and resumed


async def test_the_same_call_goes_on_and_asks_for_no_page_again(tmp_path: Path) -> None:
    to = tmp_path / "p.ndjson"
    async with Emulator(people=400, seed=2) as emulator:
        whole = await export(emulator, to)
        uninterrupted = to.read_bytes()
        to.unlink()
        before = emulator.stats.requests["page"]
        await interrupted(emulator, to, 12)
        assert not to.exists()
        first = emulator.stats.requests["page"] - before
        told: list[ExportProgress] = []
        report = await export(emulator, to, on_progress=told.append)
        second = emulator.stats.requests["page"] - before - first
        opened = emulator.stats.requests["open_chain"]
        pages_twice = first + second - report.pages
    assert to.read_bytes() == uninterrupted
    assert told[0].resumed == told[0].records > 0
    # Only pages requested ahead are requested again: at most three of each of six chains.
    assert second == report.pages - sum(chain.pages for chain in told[0].chains)
    assert pages_twice <= 18
    assert opened <= 12
    assert report.requests < whole.requests + 18


@pytest.mark.parametrize("way", ["task", "scope", "timeout"])
async def test_cancelled_and_resumed(tmp_path: Path, way: str) -> None:
    to = tmp_path / "p.ndjson"
    ending: list[Callable[[], object]] = []

    def on_progress(progress: ExportProgress) -> None:
        if progress.records:
            ending[0]()

    async with Emulator(people=400, seed=2) as emulator, session_for(emulator) as session:
        await session.export(**ARGUMENTS, to=to)
        uninterrupted = to.read_bytes()
        to.unlink()
        async with nothing_left_behind():
            await end_midway(
                way,
                ending,
                lambda: session.export(**ARGUMENTS, to=to, on_progress=on_progress),
            )
        assert not to.exists()
        told: list[ExportProgress] = []
        # The lock is released, and the progress is still on disk.
        await session.export(**ARGUMENTS, to=to, on_progress=told.append)
        assert told[0].resumed > 0
        assert to.read_bytes() == uninterrupted


@pytest.mark.parametrize("turns", range(0, 120, 5))
async def test_cancelled_at_any_turn_of_the_loop(tmp_path: Path, turns: int) -> None:
    """As by Ctrl-C and `asyncio.timeout`, even while a thread is writing."""
    to = tmp_path / "p.ndjson"
    arguments = {**ARGUMENTS, "to": to, "start": 20260131, "windows": 1}
    async with Emulator(people=100, seed=2) as emulator, session_for(emulator) as session:
        task = asyncio.ensure_future(session.export(**arguments))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        # It can start at once: the thread has finished, and the lock is released.
        report = await session.export(**arguments)
        assert report.sha256 == hashlib.sha256(to.read_bytes()).hexdigest()
        assert people_in(to) == list(
            dict.fromkeys(
                who
                for event in ARGUMENTS["events"]
                for who in people_of(emulator, event, 20260131, 20260131)
            )
        )


async def test_session_closed_on_the_way(tmp_path: Path) -> None:
    to = tmp_path / "p.ndjson"
    async with Emulator(people=400, seed=2) as emulator:
        await export(emulator, to)
        uninterrupted = to.read_bytes()
        to.unlink()
        async with session_for(emulator) as session:
            enough = asyncio.Event()

            def on_progress(progress: ExportProgress) -> None:
                if progress.records:
                    enough.set()

            task = asyncio.ensure_future(
                session.export(**ARGUMENTS, to=to, on_progress=on_progress)
            )
            await enough.wait()
        with pytest.raises(ConfigurationError, match="closed"):
            await task
        assert not to.exists()
        await export(emulator, to)
        assert to.read_bytes() == uninterrupted


async def test_what_on_progress_raises_ends_it_and_loses_nothing(tmp_path: Path) -> None:
    to = tmp_path / "p.ndjson"

    def while_finishing(progress: ExportProgress) -> None:
        if progress.stage == "finishing":
            raise Halt

    async with Emulator(people=200, seed=2) as emulator:
        with pytest.raises(Halt):
            await export(emulator, to, on_progress=while_finishing)
        assert [path.name for path in tmp_path.iterdir()] == ["p.ndjson.export"]
        asked = emulator.stats.requests
        await export(emulator, to)
        assert emulator.stats.requests == asked
        assert people_in(to) == people_in_plan_order(emulator)


async def test_an_outage_leaves_it_incomplete_and_the_same_call_goes_on(tmp_path: Path) -> None:
    to = tmp_path / "p.ndjson"
    async with Emulator(people=400, seed=2) as emulator:
        await export(emulator, to)
        uninterrupted = to.read_bytes()
        to.unlink()

        def on_progress(progress: ExportProgress) -> None:
            # By now one chain is done, and others are not.
            if any(chain.done for chain in progress.chains):
                emulator.faults = {"server_error": 1.0}

        with pytest.raises(Incomplete) as caught:
            await export(emulator, to, on_progress=on_progress)
        error = caught.value
        assert not to.exists()
        report = error.report
        assert isinstance(report, ExportReport)
        assert not report.complete
        assert report.sha256 is None
        missing = [chain for chain in report.chains if not chain.done]
        assert 0 < len(missing) < 6
        assert len(error.missing) == len(missing)
        for chain, sentence in zip(missing, error.missing, strict=True):
            assert f"{chain.event!r} {chain.start} to {chain.end} " in sentence
            assert f"from page {chain.pages + 1} on" in sentence
            assert "CleverTap answered HTTP 50" in sentence
            assert sentence in str(error)
        assert str(workspace_of(to)) in str(error)
        assert "run the same export again" in str(error)
        again = pickle.loads(pickle.dumps(error))  # noqa: S301
        assert (again.args, again.missing, again.report) == (error.args, error.missing, report)
        emulator.faults = {}
        done = await export(emulator, to)
        assert to.read_bytes() == uninterrupted
        assert done.retries >= report.retries > 0
        assert done.requests > report.requests
        assert done.seconds >= report.seconds


async def test_resume_false_begins_anew(tmp_path: Path) -> None:
    to = tmp_path / "p.ndjson"
    async with Emulator(people=300, seed=2) as emulator:
        await interrupted(emulator, to, 6)
        told: list[ExportProgress] = []
        await export(emulator, to, events="Charged", resume=False, on_progress=told.append)
        assert told[0].resumed == told[0].records == 0
        every = (who for window in THIRDS for who in people_of(emulator, "Charged", *window))
        assert people_in(to) == list(dict.fromkeys(every))
    assert not workspace_of(to).exists()


# -------------------------------------------------------------------------------- expired cursors


async def test_a_cursor_refused_begins_its_chain_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    to = tmp_path / "p.ndjson"
    async with Emulator(people=400, seed=2) as emulator:
        await export(emulator, to)
        uninterrupted = to.read_bytes()
        for refused in ("a%2Fmade%2Bup%3D", "expired"):
            await interrupted(emulator, to, 12)
            change_journal(
                to, "update chains set cursor = ? where number = 1 and not done", refused
            )
            change_journal(to, "update chains set cursor = ? where number = 0", refused)
            change_journal(to, "update chains set done = 0 where number = 0")
            with caplog.at_level(logging.WARNING, "altaprofiles"):
                report = await export(emulator, to)
            assert to.read_bytes() == uninterrupted
            assert report.chains[0].restarts == 1
            assert [chain.restarts for chain in report.chains[2:]] == [0, 0, 0, 0]
            warnings = [record.getMessage() for record in caplog.records]
            assert any("'App Launched' 20260101 to 20260110 restarts" in text for text in warnings)
            assert not any("'Charged'" in text for text in warnings)
            caplog.clear()


async def test_a_cursor_that_is_too_old_is_not_even_tried(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    to = tmp_path / "p.ndjson"
    async with Emulator(people=400, seed=2) as emulator:
        await export(emulator, to)
        uninterrupted = to.read_bytes()
        await interrupted(emulator, to, 6)
        change_journal(
            to, "update chains set done = 0, since = ? where number < 2", time.time() - 5 * 86_400
        )
        change_journal(to, "update chains set cursor = 'gone' where number < 2")
        opened = emulator.stats.requests["open_chain"]
        with caplog.at_level(logging.WARNING, "altaprofiles"):
            report = await export(emulator, to)
        assert emulator.stats.requests["open_chain"] >= opened + 2
    assert to.read_bytes() == uninterrupted
    assert [chain.restarts for chain in report.chains] == [1, 1, 0, 0, 0, 0]
    assert len(caplog.records) == 2
    assert all("5.0 days old" in record.getMessage() for record in caplog.records)


async def test_a_chain_that_always_expires_is_missing_in_the_end(tmp_path: Path) -> None:
    to = tmp_path / "p.ndjson"
    async with Emulator(people=300, seed=2, cursor_lifetime=0) as emulator:
        with pytest.raises(Incomplete) as caught:
            await export(emulator, to, events="Charged", windows=1)
        assert "'Charged' 20260101 to 20260131 from page 1 on" in caught.value.missing[0]
        assert caught.value.report.chains[0].restarts == 3
        assert emulator.stats.requests["open_chain"] == 3


# --------------------------------------------------------------------------- left by an earlier run


@pytest.mark.parametrize(
    ("changes", "differences"),
    [
        ({"events": "Charged"}, {"events": (("App Launched", "Charged"), ("Charged",))}),
        (
            {"events": ["Charged", "App Launched"]},
            {"events": (("App Launched", "Charged"), ("Charged", "App Launched"))},
        ),
        ({"start": 20260102}, {"start": (20260101, 20260102)}),
        ({"end": 20260130}, {"end": (20260131, 20260130)}),
        ({"windows": 2}, {"windows": (3, 2)}),
        ({"app": True}, {"app": (False, True)}),
        ({"event_summaries": False}, {"event_summaries": (True, False)}),
        ({"profile": False, "windows": 1}, {"profile": (True, False), "windows": (3, 1)}),
    ],
)
async def test_another_plan(
    tmp_path: Path, changes: dict[str, Any], differences: dict[str, tuple[Any, Any]]
) -> None:
    to = tmp_path / "p.ndjson"
    async with Emulator(people=200, seed=2) as emulator:
        await interrupted(emulator, to, 6)
        before = {path: path.read_bytes() for path in spools_of(to)}
        with pytest.raises(PlanMismatch) as caught:
            await export(emulator, to, **changes)
        error = caught.value
        assert error.differences == differences
        for name, (was, now) in differences.items():
            assert f"`{name}` was {was!r} and is now {now!r}" in str(error)
        assert str(workspace_of(to)) in str(error)
        assert "resume=False" in str(error)
        assert pickle.loads(pickle.dumps(error)).differences == differences  # noqa: S301
        assert {path: path.read_bytes() for path in spools_of(to)} == before
        assert any(before.values())
        await export(emulator, to)
        assert people_in(to) == people_in_plan_order(emulator)


async def test_another_account_and_another_kind(tmp_path: Path) -> None:
    to = tmp_path / "p.ndjson"
    async with Emulator(people=200, seed=2) as emulator:
        await interrupted(emulator, to, 6)
        async with session_for(emulator, account_id="OTHER") as session:
            with pytest.raises(PlanMismatch, match=r"`account` was 'TEST-.*' and is now 'OTHER'"):
                await session.export(**ARGUMENTS, to=to)
        async with session_for(emulator) as session:
            with pytest.raises(PlanMismatch, match="`kind` was 'events' and is now 'lookups'"):
                await session.export_lookups(["1"], by="identity", to=to)
        # Options that affect only the transport or the output may change.
        await export(emulator, to, batch_size=92, distinct=True, count=True)
        assert people_in(to) == people_in_plan_order(emulator)


async def test_locked_within_a_process(tmp_path: Path) -> None:
    to = tmp_path / "p.ndjson"
    async with (
        Emulator(people=300, seed=2) as emulator,
        gated(emulator.url, b"GET", passing=3, holding=3) as (url, opened),
        session_for(emulator, base_url=url) as session,
    ):
        some_read = asyncio.Event()

        def on_progress(progress: ExportProgress) -> None:
            if progress.records:
                some_read.set()

        first = asyncio.ensure_future(session.export(**ARGUMENTS, to=to, on_progress=on_progress))
        await some_read.wait()
        for _ in range(3):
            with pytest.raises(ExportLocked) as caught:
                await session.export(**ARGUMENTS, to=to)
            assert str(workspace_of(to)) in str(caught.value)
        opened.set()
        await first
        assert people_in(to) == people_in_plan_order(emulator)


async def test_a_second_task_does_not_disturb_the_finishing_of_the_first(tmp_path: Path) -> None:
    to = tmp_path / "p.ndjson"
    script = """if 1:
        import asyncio, sys
        from altaprofiles import Session, ExportLocked
        async def main():
            async with Session.from_env() as session:
                try:
                    days = {"start": 20260101, "end": 20260131}
                    await session.export("App Launched", **days, to=sys.argv[1])
                except ExportLocked:
                    print("locked")
        asyncio.run(main())
        """
    told: list[str] = []
    async with Emulator(people=300, seed=2) as emulator:

        def on_progress(progress: ExportProgress) -> None:
            if progress.stage == "finishing" and not told:
                # The event loop is blocked meanwhile, with the first export half done.
                other = subprocess.run(
                    [sys.executable, "-c", script, str(to)],
                    env={**os.environ, **emulator.environment},
                    capture_output=True,
                    check=True,
                    text=True,
                )
                told.append(other.stdout)

        await export(emulator, to, on_progress=on_progress)
        assert people_in(to) == people_in_plan_order(emulator)
    assert told == ["locked\n"]


def cut(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def garble(path: Path) -> None:
    path.write_bytes(os.urandom(path.stat().st_size))


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut, garble, empty, Path.unlink])
async def test_damaged_journal(tmp_path: Path, damage: Any) -> None:
    to = tmp_path / "p.ndjson"
    async with Emulator(people=300, seed=2) as emulator:
        await interrupted(emulator, to, 9)
        journal = workspace_of(to) / "journal.sqlite"
        kept = tmp_path / "kept"
        shutil.copytree(workspace_of(to), kept)
        before = {path.name: path.read_bytes() for path in spools_of(to)}
        damage(journal)
        for _ in range(2):
            with pytest.raises(ExportError, match="journal") as caught:
                await export(emulator, to)
            assert type(caught.value) is ExportError
            assert str(workspace_of(to)) in str(caught.value)
            assert "resume=False" in str(caught.value)
            assert {path.name: path.read_bytes() for path in spools_of(to)} == before
        # As the message says: once restored, the export can be resumed.
        shutil.rmtree(workspace_of(to))
        shutil.copytree(kept, workspace_of(to))
        told: list[ExportProgress] = []
        await export(emulator, to, on_progress=told.append)
        assert told[0].resumed > 0
        assert people_in(to) == people_in_plan_order(emulator)
        # Or discarded.
        shutil.copytree(kept, workspace_of(to))
        damage(journal)
        await export(emulator, to, resume=False)
        assert people_in(to) == people_in_plan_order(emulator)
    assert not workspace_of(to).exists()


@pytest.mark.parametrize("damage", [cut, empty, Path.unlink])
async def test_spool_shorter_than_its_journal(tmp_path: Path, damage: Any) -> None:
    to = tmp_path / "p.ndjson"
    async with Emulator(people=300, seed=2) as emulator:
        await interrupted(emulator, to, 9)
        spool = max(spools_of(to), key=lambda path: path.stat().st_size)
        whole = spool.read_bytes()
        others = {p.name: p.read_bytes() for p in spools_of(to) if p != spool}
        asked = emulator.stats.requests
        damage(spool)
        for _ in range(2):
            with pytest.raises(ExportError, match=r"has [\d,]+ bytes where its journal") as caught:
                await export(emulator, to)
            assert type(caught.value) is ExportError
            assert str(spool) in str(caught.value)
        assert emulator.stats.requests == asked
        assert {p.name: p.read_bytes() for p in spools_of(to) if p != spool} == others
        spool.write_bytes(whole)
        await export(emulator, to)
        assert people_in(to) == people_in_plan_order(emulator)


async def test_a_spool_longer_than_its_journal_is_cut(tmp_path: Path) -> None:
    to = tmp_path / "p.ndjson"
    async with Emulator(people=300, seed=2) as emulator:
        await interrupted(emulator, to, 9)
        for spool in spools_of(to):
            with spool.open("ab") as file:
                file.write(b'{"identity":"half a rec')
        await export(emulator, to)
        assert people_in(to) == people_in_plan_order(emulator)


async def test_spool_elsewhere(tmp_path: Path) -> None:
    out, spool = tmp_path / "out", tmp_path / "spool"
    out.mkdir()
    spool.mkdir()
    to = out / "p.ndjson"
    async with Emulator(people=300, seed=2) as emulator:
        await interrupted(emulator, to, 6, spool=spool)
        assert list(out.iterdir()) == []
        assert (spool / "p.ndjson.export" / "journal.sqlite").exists()
        await export(emulator, to, spool=spool)
        assert people_in(to) == people_in_plan_order(emulator)
    assert list(spool.iterdir()) == []
    assert sorted(path.name for path in out.iterdir()) == ["p.ndjson", "p.ndjson.manifest.json"]


async def test_a_folder_with_other_things_in_it_as_spool(tmp_path: Path) -> None:
    """Files of other origin stay, above all the output itself."""
    to = tmp_path / "p.ndjson"
    for name in ("mine.ndjson", "mine.csv", "found.ndjson"):
        tmp_path.joinpath(name).write_bytes(b"mine")
    async with Emulator(people=200, seed=2) as emulator:
        await export(emulator, to, spool=tmp_path)
        assert people_in(to) == people_in_plan_order(emulator)
        await interrupted(emulator, to, 3, spool=tmp_path)
        await export(emulator, to, spool=tmp_path, resume=False)
        assert people_in(to) == people_in_plan_order(emulator)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "found.ndjson",
        "mine.csv",
        "mine.ndjson",
        "p.ndjson",
        "p.ndjson.manifest.json",
    ]
    assert tmp_path.joinpath("mine.ndjson").read_bytes() == b"mine"


# ----------------------------------------------------------------------------------- credentials


async def test_no_credential_is_written_or_shown(tmp_path: Path) -> None:
    to = tmp_path / "p.ndjson"
    shown: list[str] = []
    seen: Counter[bytes] = Counter()
    async with Emulator(people=200, seed=2, faults={"server_error": 0.1}) as emulator:
        passcode = emulator.environment["CLEVERTAP_PASSCODE"]

        def look(progress: ExportProgress) -> None:
            shown.append(repr(progress))
            # In another process: opening the journal in this one would release its lock.
            found = subprocess.run(
                [GREP, "-rlaF", passcode, str(tmp_path)], capture_output=True, check=False
            )
            seen[found.stdout] += 1

        def look_until_some_is_read(progress: ExportProgress) -> None:
            look(progress)
            if sum(chain.pages for chain in progress.chains) == 6:
                raise Halt

        with pytest.raises(Halt):
            await export(emulator, to, on_progress=look_until_some_is_read)
        assert workspace_of(to).is_dir()
        files = [path for path in workspace_of(to).iterdir() if path.is_file()]
        assert len(files) > 3
        assert not any(passcode.encode() in path.read_bytes() for path in files)
        emulator.faults = {"server_error": 1.0}
        with pytest.raises(Incomplete) as caught:
            await export(emulator, to)
        shown += [repr(caught.value), str(caught.value), repr(caught.value.report)]
        shown.append(str(pickle.dumps(caught.value)))
        emulator.faults = {}
        report = await export(emulator, to, on_progress=look)
        shown += [repr(report), str(pickle.dumps(report))]
        assert set(seen) == {b""}
        assert seen.total() > 12
        assert passcode not in "".join(shown)
        for path in tmp_path.iterdir():
            assert passcode.encode() not in path.read_bytes()


# --------------------------------------------------------------------------------- a faulty service

DAY: dict[str, Any] = {"events": "X", "start": 20260101, "end": 20260101}


class OneChain:
    """Serves pages of two people each, whose next cursors are in `following`."""

    def __init__(self, pages: int) -> None:
        self.following: dict[str, str | None] = {f"c{n}": f"c{n + 1}" for n in range(pages)}
        self.following[f"c{pages - 1}"] = None
        self.people = [f"c{n}-{who}" for n in range(pages) for who in "ab"]
        self.counted = len(self.people)
        self.asked: Counter[str] = Counter()
        self.refusals: list[bytes] = []

    async def answer(self, head: bytes, writer: asyncio.StreamWriter) -> None:
        line = head.split(b"\r\n", 1)[0].decode()
        if "/counts/" in line:
            writer.write(http(b'{"status":"success","count":%d}' % self.counted))
            return
        if line.startswith("POST"):
            self.asked["open"] += 1
            writer.write(http(b'{"status":"success","cursor":"c0"}'))
            return
        cursor = line.split("cursor=")[1].split(" ")[0]
        self.asked[cursor] += 1
        if self.refusals:
            writer.write(self.refusals.pop(0))
            return
        records = [{"identity": f"{cursor}-{who}"} for who in "ab"]
        page: dict[str, Any] = {"status": "success", "records": records}
        if self.following[cursor] is not None:
            page["next_cursor"] = self.following[cursor]
        writer.write(http(json.dumps(page).encode()))

    def mend(self) -> None:
        self.following[max(self.following)] = None


def raw_session(url: str) -> Session:
    return Session(
        clevertap=CleverTap(account_id="TEST", passcode="PASS", base_url=url), retry=QUICK
    )


@pytest.mark.parametrize("ended", [False, True])
async def test_a_repeated_cursor_doubles_nobody_once_it_is_mended(
    tmp_path: Path, ended: bool
) -> None:
    to = tmp_path / "p.ndjson"
    service = OneChain(3)
    service.following["c2"] = "c1"

    def on_progress(progress: ExportProgress) -> None:
        # Right after the page that repeats the cursor, whether it was stored or dropped.
        if ended and (progress.chains[0].pages == 3 or progress.chains[0].restarts):
            raise Halt

    async with scripted(service.answer) as server, raw_session(server.url) as session:
        with pytest.raises(Halt if ended else Incomplete) as caught:
            await session.export(**DAY, to=to, on_progress=on_progress)
        if isinstance(caught.value, Incomplete):
            assert "repeated a cursor after 3 pages" in caught.value.missing[0]
        assert not to.exists()
        service.mend()
        report = await session.export(**DAY, to=to)
    assert people_in(to) == service.people
    assert (report.people, report.records) == (6, 6)


async def test_a_cursor_of_an_earlier_run_that_is_repeated(tmp_path: Path) -> None:
    to = tmp_path / "p.ndjson"
    service = OneChain(3)
    service.following["c2"] = "c0"

    def halt_after(pages: int) -> Callable[[ExportProgress], None]:
        def on_progress(progress: ExportProgress) -> None:
            if progress.chains[0].pages == pages or progress.chains[0].restarts:
                raise Halt

        return on_progress

    async with scripted(service.answer) as server, raw_session(server.url) as session:
        # The second run starts in the middle, and knows earlier cursors only from the journal.
        for pages in (2, 4):
            with pytest.raises(Halt):
                await session.export(**DAY, to=to, on_progress=halt_after(pages))
        service.mend()
        report = await session.export(**DAY, to=to)
    assert people_in(to) == service.people
    assert report.chains[0].restarts == 1


async def test_a_proxy_that_refuses_a_cursor_costs_no_page(tmp_path: Path) -> None:
    to = tmp_path / "p.ndjson"
    service = OneChain(9)

    def on_progress(progress: ExportProgress) -> None:
        if progress.chains[0].pages == 5:
            raise Halt

    async with scripted(service.answer) as server, raw_session(server.url) as session:
        with pytest.raises(Halt):
            await session.export(**DAY, to=to, on_progress=on_progress)
        service.refusals = [http(b"<html>No.</html>", "400 Bad Request", "Content-Type: text/html")]
        with pytest.raises(Incomplete, match="HTTP 400") as caught:
            await session.export(**DAY, to=to)
        report = caught.value.report
        assert isinstance(report, ExportReport)
        assert (report.records, report.chains[0].restarts) == (10, 0)
        assert not service.refusals
        await session.export(**DAY, to=to)
    assert people_in(to) == service.people
    assert service.asked["open"] == 1
    assert all(service.asked[f"c{n}"] == 1 for n in range(5))


@pytest.mark.parametrize("broken", ["Charged", "App Launched"])
async def test_one_event_that_cannot_be_opened(tmp_path: Path, broken: str) -> None:
    to = tmp_path / "p.ndjson"
    down = {broken}

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        if head.startswith(b"GET"):
            writer.write(http(b'{"status":"success","records":[{"identity":"a"}]}'))
        elif json.loads(server.bodies[-1])["event_name"] in down:
            writer.write(http(b"", "503 Service Unavailable"))
        else:
            writer.write(http(b'{"status":"success","cursor":"c0"}'))

    arguments = {**DAY, "events": ["Charged", "App Launched"], "to": to}
    async with scripted(answer) as server, raw_session(server.url) as session:
        with pytest.raises(Incomplete) as caught:
            await session.export(**arguments)
        assert len(caught.value.missing) == 1
        assert caught.value.missing[0].startswith(f"{broken!r} 20260101 from page 1 on: ")
        assert "HTTP 503" in caught.value.missing[0]
        report = caught.value.report
        assert isinstance(report, ExportReport)
        assert {chain.event: chain.records for chain in report.chains} == {
            "Charged": 1,
            "App Launched": 1,
            broken: 0,
        }
        # With no progress to resume, the service's own error is raised.
        down |= {"Charged", "App Launched"}
        with pytest.raises(ServerError, match="HTTP 503"):
            await session.export(**{**arguments, "to": tmp_path / "other.ndjson"})
        assert [path.name for path in tmp_path.iterdir()] == ["p.ndjson.export"]
        down.clear()
        report = await session.export(**arguments)
    assert people_in(to) == ["a"]
    assert report.records == 2


async def test_a_count_that_differs_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    service = OneChain(3)
    async with scripted(service.answer) as server, raw_session(server.url) as session:
        with caplog.at_level(logging.WARNING, "altaprofiles"):
            await session.export(**DAY, to=tmp_path / "p.ndjson", count=True)
            assert caplog.messages == []
            service.counted = 1000
            report = await session.export(**DAY, to=tmp_path / "p.ndjson", count=True)
    assert (report.complete, report.counted, report.people) == (True, {"X": 1000}, 6)
    assert caplog.messages == ["the service counts 1000 people for 'X', and 6 were exported"]


@pytest.mark.parametrize("changes", [{}, {"distinct": False}, {"events": ["Charged", "X Y"]}])
async def test_counts_that_differ_for_a_reason_are_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, changes: dict[str, Any]
) -> None:
    """People may be in several windows, and may have done several events."""
    if "events" in changes:
        changes = {"events": ARGUMENTS["events"]}
    async with Emulator(people=300, seed=2) as emulator:
        with caplog.at_level(logging.WARNING, "altaprofiles"):
            await export(
                emulator, tmp_path / "p.ndjson", **{"events": "Charged", "count": True, **changes}
            )
    assert caplog.messages == []


# ----------------------------------------------------------------------- cancelled while finishing


@pytest.mark.parametrize("way", ["task", "scope", "timeout"])
async def test_cancelled_while_it_finishes(tmp_path: Path, way: str) -> None:
    """Each of these chains is one batch."""
    to = tmp_path / "p.ndjson"
    arguments = {**ARGUMENTS, "windows": 31, "to": to, "batch_size": 4991}
    told: list[ExportProgress] = []
    ending: list[Callable[[], object]] = []

    def on_progress(progress: ExportProgress) -> None:
        if progress.stage == "finishing":
            told.append(progress)
            if len(told) == 3:
                ending[0]()

    async with Emulator(people=100, seed=2) as emulator, session_for(emulator) as session:
        async with nothing_left_behind():
            await end_midway(
                way,
                ending,
                lambda: session.export(**arguments, on_progress=on_progress),
            )
        # Of sixty batches.
        assert len(told) == 3
        assert [path.name for path in tmp_path.iterdir()] == ["p.ndjson.export"]
        current = asyncio.current_task()
        assert current is not None
        assert current.cancelling() == 0
        asked = emulator.stats.requests
        report = await session.export(**arguments)
        assert emulator.stats.requests == asked
    assert report.complete
    assert report.sha256 == hashlib.sha256(to.read_bytes()).hexdigest()


@pytest.mark.parametrize("stage", ["reading", "finishing"])
async def test_an_oserror_of_on_progress_comes_out_as_it_is(tmp_path: Path, stage: str) -> None:
    to = tmp_path / "p.ndjson"
    mine = BrokenPipeError(32, "Broken pipe")

    def on_progress(progress: ExportProgress) -> None:
        if progress.stage == stage and progress.records:
            raise mine

    async with Emulator(people=200, seed=2) as emulator:
        with pytest.raises(BrokenPipeError) as caught:
            await export(emulator, to, on_progress=on_progress)
        assert caught.value is mine
        assert not to.exists()
        await export(emulator, to)
        assert people_in(to) == people_in_plan_order(emulator)


# ---------------------------------------------------------------------------------- names and files


class Name(str):
    """A subclass of `str`, such as NumPy's."""

    __slots__ = ()

    def __str__(self) -> str:
        return "not its value"


async def test_event_names_of_a_subclass(tmp_path: Path) -> None:
    to = tmp_path / "p.ndjson"
    async with Emulator(people=200, seed=2) as emulator:
        report = await export(emulator, to, events=[Name("App Launched"), Name("Charged")])
        assert people_in(to) == people_in_plan_order(emulator)
        assert {type(chain.event) for chain in report.chains} == {str}
        report = await export(emulator, to, events=Name("Charged"))
        assert {chain.event for chain in report.chains} == {"Charged"}


async def test_columns_and_tables_named_by_a_subclass(tmp_path: Path) -> None:
    to = tmp_path / "p.duckdb"
    async with Emulator(people=50, seed=2) as emulator:
        await export(emulator, to, flatten=[Name("City")], table=Name("folk"))
    manifest = json.loads(tmp_path.joinpath("p.duckdb.manifest.json").read_bytes())
    assert manifest["options"]["flatten"] == ["City"]
    assert manifest["options"]["table"] == "folk"


@pytest.mark.parametrize("resume", [True, False])
async def test_databases_of_the_users_own_in_the_spool_folder(tmp_path: Path, resume: bool) -> None:
    to, spool = tmp_path / "p.ndjson", tmp_path / "project"
    spool.mkdir()
    for name in ("people.sqlite", "journal.sqlite"):
        db = sqlite3.connect(spool / name)
        with db:
            db.execute("create table mine (x)")
            db.execute("pragma user_version = 7")
        db.close()
    for name in ("people.sqlite.backup", "chain-0000.spool.ndjson"):
        spool.joinpath(name).write_bytes(b"mine")
    before = {path.name: path.read_bytes() for path in spool.iterdir()}
    async with Emulator(people=200, seed=2) as emulator:
        await interrupted(emulator, to, 3, spool=spool, resume=resume)
        assert [path.name for path in spool.iterdir() if path.is_dir()] == ["p.ndjson.export"]
        await export(emulator, to, spool=spool, resume=resume)
        assert people_in(to) == people_in_plan_order(emulator)
    assert {path.name: path.read_bytes() for path in spool.iterdir()} == before


async def test_no_regular_file(tmp_path: Path) -> None:
    to = tmp_path / "p.ndjson"
    os.mkfifo(to)
    async with Emulator(people=20) as emulator:
        with pytest.raises(ConfigurationError, match=r"^to: .* is not a regular file"):
            await export(emulator, to)
        assert not any(emulator.stats.requests.values())
    assert [path.name for path in tmp_path.iterdir()] == ["p.ndjson"]
    assert stat.S_ISFIFO(to.lstat().st_mode)


async def test_a_folder_where_the_manifest_is_to_be(tmp_path: Path) -> None:
    to = tmp_path / "p.ndjson"
    manifest = tmp_path / "p.ndjson.manifest.json"
    manifest.mkdir()
    async with Emulator(people=20) as emulator:
        with pytest.raises(
            ExportError, match=r"manifest\.json cannot be written: a folder has that name"
        ):
            await export(emulator, to)
        assert not any(emulator.stats.requests.values())
    assert list(tmp_path.iterdir()) == [manifest]


@pytest.mark.parametrize("dangling", [False, True])
async def test_a_link_is_followed(tmp_path: Path, dangling: bool) -> None:
    link, disk = tmp_path / "link.ndjson", tmp_path / "disk"
    disk.mkdir()
    to = disk / "p.ndjson"
    if not dangling:
        to.write_bytes(b"last week's\n")
    link.symlink_to(to)
    async with Emulator(people=200, seed=2) as emulator:
        report = await export(emulator, link)
        assert people_in(to) == people_in_plan_order(emulator)
    assert report.output == str(link)
    assert link.is_symlink()
    assert sorted(path.name for path in disk.iterdir()) == ["p.ndjson", "p.ndjson.manifest.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "link.ndjson"]


@pytest.mark.parametrize("name", ["p.ndjson", "p.csv.gz", "p.parquet", "p.duckdb"])
async def test_who_may_read_it_stays(tmp_path: Path, name: str) -> None:
    to, manifest = tmp_path / name, tmp_path / f"{name}.manifest.json"
    async with Emulator(people=50, seed=2) as emulator:
        await export(emulator, to)
        for path, mode in ((to, 0o600), (manifest, 0o604)):
            path.chmod(mode)
        await export(emulator, to)
    assert stat.S_IMODE(to.stat().st_mode) == 0o600
    assert stat.S_IMODE(manifest.stat().st_mode) == 0o604


@pytest.mark.parametrize("spool", [None, "spool"])
async def test_relative_paths_are_those_of_the_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spool: str | None
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    if spool is not None:
        here.joinpath(spool).mkdir()
    async with Emulator(people=200, seed=2) as emulator:
        monkeypatch.chdir(here)
        report = await export(
            emulator, Path("p.ndjson"), spool=spool, on_progress=lambda _: os.chdir(there)
        )
        assert people_in(here / "p.ndjson") == people_in_plan_order(emulator)
    assert report.complete
    assert list(there.iterdir()) == []
    assert sorted(path.name for path in here.iterdir()) == [
        "p.ndjson",
        "p.ndjson.manifest.json",
        *([spool] if spool else []),
    ]


@pytest.mark.parametrize("name", ["p.parquet", "p.duckdb", "p.csv"])
async def test_a_misspelt_property_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    async with Emulator(people=100, seed=2) as emulator:
        key = next(iter(emulator.population.record(0)["profileData"]))
        with caplog.at_level(logging.WARNING, "altaprofiles"):
            await export(emulator, tmp_path / name, flatten=[key, "Cittty"])
    assert len(caplog.messages) == 1
    assert "'Cittty'" in caplog.messages[0]


async def test_the_manifest_tells_the_options(tmp_path: Path) -> None:
    async with Emulator(people=50, seed=2) as emulator:
        await export(emulator, tmp_path / "p.ndjson")
        await export(
            emulator, tmp_path / "p.csv", distinct=False, bom=True, flatten=("City", "Plan")
        )
        await export(emulator, tmp_path / "p.duckdb", table="folk")
    told = {
        name: json.loads(tmp_path.joinpath(f"{name}.manifest.json").read_bytes())["options"]
        for name in ("p.ndjson", "p.csv", "p.duckdb")
    }
    assert told == {
        "p.ndjson": {"distinct": True, "table": None, "bom": False, "flatten": []},
        "p.csv": {"distinct": False, "table": None, "bom": True, "flatten": ["City", "Plan"]},
        "p.duckdb": {"distinct": True, "table": "folk", "bom": False, "flatten": []},
    }


async def test_progress_is_told_while_nothing_arrives(tmp_path: Path) -> None:
    told: list[ExportProgress] = []

    def on_progress(progress: ExportProgress) -> None:
        told.append(progress)
        if len(told) > 1 and progress.in_flight:
            raise Halt

    async with Emulator(people=10, think=3600) as emulator:
        with pytest.raises(Halt):
            await export(emulator, tmp_path / "p.ndjson", on_progress=on_progress)
    # One more if a second was up just before the first request.
    assert len(told) in (2, 3)
    assert told[-1].requests > 0
    assert told[-1].records == 0
    assert told[-1].seconds >= 1


@pytest.mark.parametrize("kind", [BrokenPipeError, NotReady])
async def test_what_the_caller_raises_comes_out_and_nothing_is_told_after_it(
    tmp_path: Path, kind: type[Exception]
) -> None:
    told: list[ExportProgress] = []

    def on_progress(progress: ExportProgress) -> None:
        told.append(progress)
        if progress.records:
            raise kind("mine")

    async with Emulator(people=2000) as emulator:
        with pytest.raises(kind, match="mine"):
            await export(
                emulator, tmp_path / "p.ndjson", batch_size=230, windows=4, on_progress=on_progress
            )
    assert [bool(progress.records) for progress in told].count(True) == 1
