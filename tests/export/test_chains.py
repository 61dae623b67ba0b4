"""Exports of events, in process: against the emulator, over real sockets and real files."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
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
    Incomplete,
    ServerError,
    Session,
)
from altaprofiles.emulator import Emulator
from altaprofiles.export.report import ExportProgress, ExportReport

from ..support.jobs import (
    ARGUMENTS,
    EVENTS,
    THIRDS,
    Halt,
    chains_of,
    folder_of,
    people_in,
    workspace_of,
)
from ..support.servers import http, scripted
from ..support.sessions import QUICK

pytestmark = pytest.mark.anyio


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


def people_in_plan_order(emulator: Emulator) -> list[str]:
    """Every person that ARGUMENTS ask for, in the place where they come first."""
    return EVENTS.emulated(emulator.population).people


async def interrupted(emulator: Emulator, to: Path, pages: int, **changes: Any) -> None:
    """Run an export until so many pages are on disk."""

    def on_progress(progress: ExportProgress) -> None:
        if sum(chain.pages for chain in progress.chains) >= pages:
            raise Halt

    with pytest.raises(Halt):
        await export(emulator, to, on_progress=on_progress, **changes)
    assert folder_of(to).is_dir()


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
        # What a device alone tells of a person is another thing in each chain.
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


async def test_chains_and_counts_in_the_report_and_the_manifest(tmp_path: Path) -> None:
    to = tmp_path / "people.ndjson"
    async with Emulator(people=300, seed=2) as emulator:
        report = await export(emulator, to, count=True)
        counted = {
            event: len(emulator.population.active(event, 20260101, 20260131))
            for event in ARGUMENTS["events"]
        }
        assert report.requests == sum(emulator.stats.requests.values())
    assert report.people == to.read_bytes().count(b"\n")
    assert report.pages == sum(chain.pages for chain in report.chains)
    assert report.counted == counted
    assert all(chain.done and not chain.restarts for chain in report.chains)
    assert [chain.counted for chain in report.chains] == [chain.records for chain in report.chains]
    manifest = json.loads(tmp_path.joinpath("people.ndjson.manifest.json").read_bytes())
    assert manifest["counted"] == counted
    assert manifest["people"] == report.people
    assert manifest["plan"]["events"] == ARGUMENTS["events"]
    assert len(manifest["chains"]) == 6


async def test_chains_without_people(tmp_path: Path) -> None:
    async with Emulator(people=0) as emulator:
        report = await export(emulator, tmp_path / "people.ndjson", count=True)
    assert (report.complete, report.people, report.records) == (True, 0, 0)
    assert report.counted == dict.fromkeys(ARGUMENTS["events"], 0)


async def test_not_distinct_is_every_record_of_every_chain(tmp_path: Path) -> None:
    to = tmp_path / "people.ndjson"
    async with Emulator(people=200, seed=2) as emulator:
        report = await export(emulator, to, distinct=False)
        every = [who for chain in chains_of(emulator.population) for who in chain]
    assert report.people == report.records == len(every)
    assert sorted(people_in(to)) != sorted(set(every))
    lines = to.read_bytes().splitlines()
    assert len(lines) == len(every)
    manifest = json.loads(tmp_path.joinpath("people.ndjson.manifest.json").read_bytes())
    assert manifest["options"]["distinct"] is False


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
    # Those without identity list their devices in another order with each query.
    assert sum(record in expected for record in records) > 80
    # Keys that this library gives no name to.
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
        # The newest is resumed, and a number is exact.
        await interrupted(emulator, to, 2, windows=4)
        await interrupted(emulator, to, 2)
        report = await export(emulator, to, windows=2)
        assert len(report.chains) == 4
        assert len([text for text in report.warnings if "unfinished" in text]) == 2
        for windows in (3, 4):
            report = await export(emulator, to, windows="auto")
            assert len(report.chains) == 2 * windows
            assert sorted(people_in(to)) == sorted(people_in_plan_order(emulator))
        assert not folder_of(to).exists()


async def test_fresh_with_auto_discards_whatever_the_windows(tmp_path: Path) -> None:
    to = tmp_path / "people.ndjson"
    async with Emulator(people=300, seed=2) as emulator:
        for windows in (4, 3):
            await interrupted(emulator, to, 2, windows=windows)
        report = await export(emulator, to, windows="auto", resume=False)
        assert report.warnings == []
        assert not folder_of(to).exists()


async def test_progress(tmp_path: Path) -> None:
    reports: list[ExportProgress] = []
    async with Emulator(people=300, seed=2) as emulator:
        report = await export(
            emulator, tmp_path / "p.ndjson", count=True, on_progress=reports.append
        )
    people = [progress.people for progress in reports]
    assert people == sorted(people)
    # A total is known as soon as all of it has been counted, and is right.
    totals = [progress.total for progress in reports]
    assert set(totals) == {None, report.records}
    assert totals == sorted(totals, key=lambda total: total or 0)
    last = reports[-1]
    assert (last.records, last.finished, last.people) == (
        report.records,
        report.records,
        report.people,
    )
    assert sum(progress.stage == "reading" for progress in reports) > report.pages


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
    async with Emulator(people=200, seed=2, notification_exports=False) as emulator:
        with pytest.raises(BadRequest) as caught:
            await export(emulator, tmp_path / "p.ndjson", events=["App Launched", "Charged", wrong])
        assert caught.value.message == words or words in caught.value.message
        assert any(repr(wrong) in note for note in caught.value.__notes__)
        assert emulator.stats.requests["page"] == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"events": []}, "events"),
        ({"events": ""}, "events"),
        ({"events": None}, "events"),
        ({"events": b"App Launched"}, "events"),
        ({"events": ["App Launched", 3]}, "events"),
        ({"events": ["Charged", "Charged"]}, "events"),
        ({"start": "2026-W01"}, "start"),
        ({"start": 20260231}, "start"),
        ({"end": 20251231}, "end"),
        ({"end": 1_800_000_000}, "end"),
        ({"windows": 0}, "windows"),
        ({"windows": "many"}, "windows"),
        ({"windows": None}, "windows"),
        ({"batch_size": 100}, "batch_size"),
        ({"distinct": 1}, "distinct"),
        ({"count": "yes"}, "count"),
        ({"app": 0}, "app"),
        ({"event_summaries": "false"}, "event_summaries"),
        ({"profile": 1}, "profile"),
    ],
)
async def test_bad_input_is_refused_before_anything_is_sent(
    tmp_path: Path, changes: dict[str, Any], name: str
) -> None:
    async with Emulator(people=20) as emulator:
        with pytest.raises(ConfigurationError, match=f"^{name}\\b"):
            await export(emulator, tmp_path / "people.ndjson", **changes)
        assert not any(emulator.stats.requests.values())
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------------- interrupted, and on


async def test_an_outage_leaves_out_some_chains(tmp_path: Path) -> None:
    to = tmp_path / "p.ndjson"
    async with Emulator(people=400, seed=2) as emulator:

        def on_progress(progress: ExportProgress) -> None:
            # One chain is complete by then, and others are not.
            if any(chain.done for chain in progress.chains):
                emulator.faults = {"server_error": 1.0}

        with pytest.raises(Incomplete) as caught:
            await export(emulator, to, on_progress=on_progress)
        report = caught.value.report
        assert isinstance(report, ExportReport)
        missing = [chain for chain in report.chains if not chain.done]
        assert 0 < len(missing) < 6
        for chain, sentence in zip(missing, caught.value.missing, strict=True):
            assert f"{chain.event!r} {chain.start} to {chain.end} " in sentence
            assert f"from page {chain.pages + 1} on" in sentence
            assert "CleverTap answered HTTP 50" in sentence
        emulator.faults = {}
        await export(emulator, to)
        assert people_in(to) == people_in_plan_order(emulator)


async def test_what_decides_how_it_is_asked_may_change(tmp_path: Path) -> None:
    to = tmp_path / "p.ndjson"
    async with Emulator(people=200, seed=2) as emulator:
        await interrupted(emulator, to, 6)
        await export(emulator, to, batch_size=92, distinct=True, count=True)
        assert people_in(to) == people_in_plan_order(emulator)


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


@pytest.mark.parametrize(("days", "restarts"), [(3.9, 0), (4.1, 1)])
async def test_a_cursor_lives_four_days(tmp_path: Path, days: float, restarts: int) -> None:
    to = tmp_path / "p.ndjson"
    async with Emulator(people=400, seed=2) as emulator:
        await export(emulator, to)
        uninterrupted = to.read_bytes()
        await interrupted(emulator, to, 3)
        change_journal(
            to,
            "update chains set since = ? where cursor is not null",
            time.time() - days * 86_400,
        )
        report = await export(emulator, to)
    assert to.read_bytes() == uninterrupted
    assert max(chain.restarts for chain in report.chains) == restarts


async def test_a_chain_that_always_expires_is_missing_in_the_end(tmp_path: Path) -> None:
    to = tmp_path / "p.ndjson"
    async with Emulator(people=300, seed=2, cursor_lifetime=0) as emulator:
        with pytest.raises(Incomplete) as caught:
            await export(emulator, to, events="Charged", windows=1)
        assert "'Charged' 20260101 to 20260131 from page 1 on" in caught.value.missing[0]
        assert caught.value.report.chains[0].restarts == 3
        assert emulator.stats.requests["open_chain"] == 3


# ------------------------------------------------------------------- a service that is out of order

DAY: dict[str, Any] = {"events": "X", "start": 20260101, "end": 20260101}


class OneChain:
    """Pages of two people each, whose cursors lead where `following` says."""

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
        # Right after the page that repeats it: whether that has been kept, or dropped.
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
        # The second run has not walked what its first page leads to.
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
        # With nothing to go on with, it is just the service's own error.
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
            # Up to ten may have come in the meantime.
            service.counted = 16
            report = await session.export(**DAY, to=tmp_path / "p.ndjson", count=True)
    assert (report.complete, report.counted, report.people) == (True, {"X": 16}, 6)
    assert caplog.messages == ["the service counts 16 people for 'X', and 6 were exported"]
    assert report.warnings == caplog.messages


@pytest.mark.parametrize("changes", [{}, {"distinct": False}, {"events": ["Charged", "X Y"]}])
async def test_counts_that_differ_for_a_reason_are_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, changes: dict[str, Any]
) -> None:
    """As people are in more than one window, or did more than one thing."""
    if "events" in changes:
        changes = {"events": ARGUMENTS["events"]}
    async with Emulator(people=300, seed=2) as emulator:
        with caplog.at_level(logging.WARNING, "altaprofiles"):
            await export(
                emulator, tmp_path / "p.ndjson", **{"events": "Charged", "count": True, **changes}
            )
    assert caplog.messages == []


class Name(str):
    """As NumPy's, which is text and not quite a `str`."""

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


async def test_progress_tells_of_a_wait_for_a_rate_limit_without_a_time(tmp_path: Path) -> None:
    told: list[ExportProgress] = []
    async with Emulator(people=60, clevertap_per_minute=3, window_seconds=2) as emulator:
        async with Session(clevertap=emulator.clevertap, retry=QUICK) as session:
            report = await session.export(
                "App Launched",
                start=20260101,
                end=20260131,
                to=tmp_path / "p.ndjson",
                batch_size=460,
                windows=3,
                on_progress=told.append,
            )
    assert report.complete
    waits = [at for at in told if at.wait]
    assert waits
    for at in waits:
        assert at.throttled
        assert "waiting for the rate limit" in str(at)
    assert not told[-1].wait
