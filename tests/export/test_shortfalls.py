"""Exports of chains that end without records, or far short of the service's own count."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from altaprofiles import ConfigurationError, Incomplete, Unauthorized
from altaprofiles.emulator import Emulator
from altaprofiles.export.report import ExportProgress, ExportReport

from ..support.jobs import Halt, names_in, people_in
from ..support.servers import http, listening
from ..support.sessions import EVENT, RANGE, session_for
from ..support.shortfalls import WHOLE, Busy, Uncounted, busy_session

pytestmark = pytest.mark.anyio

FIRST = 20260101
DAYS: dict[str, Any] = {"events": "X", "start": FIRST, "end": 20260103, "windows": 3}
DAY: dict[str, Any] = {"events": "X", "start": FIRST, "end": FIRST}


Export = Callable[..., Coroutine[Any, Any, ExportReport]]


@pytest.fixture
async def export() -> AsyncIterator[Export]:
    """Give a function that exports from a service, at the same port each time."""
    ports: dict[Busy, int] = {}
    async with AsyncExitStack() as stack:

        async def export(service: Busy, to: Path, **arguments: Any) -> ExportReport:
            if service not in ports:
                ports[service] = await stack.enter_async_context(listening(service))
            retry = arguments.pop("retry", {})
            async with busy_session(ports[service], **retry) as session:
                return await session.export(**{**DAY, "to": to, **arguments})

        yield export


def asked(service: Busy, kind: str) -> int:
    return sum(number for (name, _), number in service.asked.items() if name == kind)


# --------------------------------------------------------------------------- without any record


@pytest.mark.parametrize("count", [False, True])
@pytest.mark.parametrize("empty", [1, 2])
async def test_an_empty_chain_is_opened_again(
    export: Export, tmp_path: Path, empty: int, count: bool
) -> None:
    to = tmp_path / "p.ndjson"
    service = Busy(*[0] * empty, WHOLE)
    report = await export(service, to, count=count)
    assert people_in(to) == service.people(FIRST)
    assert (report.complete, report.warnings) == (True, [])
    assert report.chains[0].restarts == empty
    assert (asked(service, "open"), asked(service, "count")) == (empty + 1, 1)


@pytest.mark.parametrize("count", [False, True])
@pytest.mark.parametrize("counted", [30, 1, None])
async def test_what_stays_empty_is_incomplete_and_replaces_nothing(
    export: Export, tmp_path: Path, counted: int | None, count: bool
) -> None:
    to = tmp_path / "p.ndjson"
    to.write_text("yesterday")
    service = Busy(0)
    service.counted[FIRST] = counted
    with pytest.raises(Incomplete, match="'X' 20260101: ") as caught:
        await export(service, to, count=count)
    assert to.read_text() == "yesterday"
    assert asked(service, "open") == 3
    assert len(caught.value.missing) == 1
    assert "on_shortfall" in caught.value.missing[0]
    # The next run gets what was missing.
    service.sent[0] = [WHOLE]
    service.counted.clear()
    await export(service, to, count=count)
    assert people_in(to) == service.people(FIRST)
    assert names_in(tmp_path) == ["p.ndjson", "p.ndjson.manifest.json"]


STEP = (
    "; check the name of the event, upper and lower case included, the days, and that the account "
    "is the right one"
)


async def test_nobody_is_believed_once_counted(
    export: Export, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    to = tmp_path / "p.ndjson"
    service = Busy(0)
    service.counted[FIRST] = 0
    with caplog.at_level(logging.WARNING, "altaprofiles"):
        report = await export(service, to)
    assert (report.complete, report.people, report.warnings) == (
        True,
        0,
        [f"0 people in {to}{STEP}"],
    )
    assert caplog.messages == report.warnings
    assert to.read_bytes() == b""
    assert service.asked == {("open", FIRST): 1, ("page", FIRST): 1, ("count", FIRST): 1}


async def test_each_window_by_itself(export: Export, tmp_path: Path) -> None:
    to = tmp_path / "p.ndjson"
    service = Busy(WHOLE)
    service.sent[20260102] = [0, 0, WHOLE]
    service.sent[20260103] = [0]
    service.counted[20260103] = 0
    report = await export(service, to, **DAYS)
    assert people_in(to) == service.people(FIRST, 20260102)
    assert [chain.restarts for chain in report.chains] == [0, 2, 0]
    assert [chain.counted for chain in report.chains] == [None, 30, 0]
    assert report.warnings == []
    assert asked(service, "count") == 2


async def test_one_empty_window_is_missing_and_the_others_are_kept(
    export: Export, tmp_path: Path
) -> None:
    to = tmp_path / "p.ndjson"
    service = Busy(WHOLE)
    service.sent[20260102] = [0]
    with pytest.raises(Incomplete) as caught:
        await export(service, to, **DAYS)
    assert [chain.records for chain in caught.value.report.chains] == [30, 0, 30]
    assert caught.value.missing[0].startswith(
        "'X' 20260102: 0 records, where the service counts 30"
    )
    service.sent[20260102] = [WHOLE]
    service.asked.clear()
    await export(service, to, **DAYS)
    assert people_in(to) == service.people(FIRST, 20260102, 20260103)
    assert service.asked == {("open", 20260102): 1, ("page", 20260102): 3}


async def test_an_empty_chain_that_fails_when_it_is_opened_again(
    export: Export, tmp_path: Path
) -> None:
    to = tmp_path / "p.ndjson"

    class Failing(Busy):
        def answer(self, line: str, body: bytes) -> bytes:
            if line.startswith("POST /1/profiles") and self.asked["open", FIRST]:
                return http(b"", "503 Service Unavailable")
            return super().answer(line, body)

    with pytest.raises(Incomplete, match="HTTP 503"):
        await export(Failing(0), to)


@pytest.mark.parametrize("stage", ["counted", "waiting"])
async def test_cancelled_while_an_empty_chain_is_in_doubt(
    export: Export, tmp_path: Path, stage: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A later run never takes what it finds on the disk for a chain of nobody."""
    to = tmp_path / "p.ndjson"
    reached = asyncio.Event()

    class Held(Busy):
        def answer(self, line: str, body: bytes) -> bytes:
            if "/counts/" in line:
                reached.set()
            return super().answer(line, body)

    service = Held(0)
    with caplog.at_level(logging.WARNING, "altaprofiles"):
        job = asyncio.ensure_future(export(service, to, retry={"base_delay": 600.0}))
        await reached.wait()
        while stage == "waiting" and not caplog.messages:
            await asyncio.sleep(0.001)
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
    assert not to.exists()
    service.sent[0] = [WHOLE]
    await export(service, to)
    assert people_in(to) == service.people(FIRST)


async def test_the_session_closes_while_it_waits(tmp_path: Path) -> None:
    to = tmp_path / "p.ndjson"
    service = Busy(0)
    async with listening(service) as port:
        async with busy_session(port, base_delay=600.0) as session:
            job = asyncio.ensure_future(session.export(**DAY, to=to))
            while not service.asked["count", FIRST]:
                await asyncio.sleep(0)
        with pytest.raises(ConfigurationError, match="closed"):
            await job
    assert not to.exists()


# ----------------------------------------------------------------------------- far short of a count


async def test_a_chain_cut_short_is_read_again(export: Export, tmp_path: Path) -> None:
    to = tmp_path / "p.ndjson"
    service = Busy(1, 1, WHOLE)
    report = await export(service, to, count=True)
    assert people_in(to) == service.people(FIRST)
    assert (report.records, report.pages, report.chains[0].restarts) == (30, 3, 2)
    assert report.warnings == []


async def test_what_stays_short_is_incomplete(export: Export, tmp_path: Path) -> None:
    to = tmp_path / "p.ndjson"
    to.write_text("yesterday")
    service = Busy(1)
    with pytest.raises(Incomplete, match="10 records, where the service counts 30"):
        await export(service, to, count=True)
    assert to.read_text() == "yesterday"
    assert asked(service, "open") == 3
    # A later run gets the rest, and nobody twice.
    service.sent[0] = [WHOLE]
    report = await export(service, to, count=True)
    assert people_in(to) == service.people(FIRST)
    assert report.records == 30


async def test_what_is_short_can_be_accepted_by_a_later_run(export: Export, tmp_path: Path) -> None:
    """Which need not read it again; neither is it then taken for complete by a run after that."""
    to = tmp_path / "p.ndjson"
    service = Busy(1)
    with pytest.raises(Incomplete):
        await export(service, to, count=True)
    pages = asked(service, "page")

    def halt(progress: ExportProgress) -> None:
        if progress.stage == "finishing":
            raise Halt

    with pytest.raises(Halt):
        await export(service, to, count=True, on_shortfall="warn", on_progress=halt)
    assert asked(service, "page") == pages
    with pytest.raises(Incomplete):
        await export(service, to, count=True)
    report = await export(service, to, count=True, on_shortfall="warn")
    assert (report.complete, report.people) == (True, 10)


@pytest.mark.parametrize("sent", [0, 1])
async def test_a_shortfall_as_a_warning(
    export: Export, tmp_path: Path, sent: int, caplog: pytest.LogCaptureFixture
) -> None:
    to = tmp_path / "p.ndjson"
    service = Busy(sent)
    with caplog.at_level(logging.WARNING, "altaprofiles"):
        report = await export(service, to, count=True, on_shortfall="warn")
    assert (report.complete, report.people) == (True, 10 * sent)
    assert people_in(to) == service.people(FIRST)[: 10 * sent]
    sentence = f"'X' 20260101: {10 * sent} records, where the service counts 30"
    assert report.warnings[0] == sentence
    assert report.chains[0].done
    assert caplog.messages[-len(report.warnings) :] == report.warnings
    manifest = json.loads(to.with_name("p.ndjson.manifest.json").read_bytes())
    assert manifest["warnings"] == report.warnings
    # Records in hand are not given up for another answer.
    assert asked(service, "open") == (1 if sent else 3)


@pytest.mark.parametrize("counted", [30, None])
async def test_nothing_is_accepted_that_was_not_to_be_compared(
    export: Export, tmp_path: Path, counted: int | None
) -> None:
    to = tmp_path / "p.ndjson"
    service = Busy(0)
    service.counted[FIRST] = counted
    with pytest.raises(Incomplete) as caught:
        await export(service, to, on_shortfall="warn")
    assert not caught.value.report.chains[0].done
    assert asked(service, "open") == 3
    # The same shortfall is accepted once the caller asks for the comparison.
    report = await export(service, to, count=True, on_shortfall="warn")
    assert (report.complete, report.people, report.chains[0].done) == (True, 0, True)


@pytest.mark.parametrize("count", [False, True])
async def test_credentials_that_are_refused_for_a_count(
    export: Export, tmp_path: Path, count: bool
) -> None:
    with pytest.raises(Unauthorized):
        await export(Uncounted(0), tmp_path / "p.ndjson", count=count)


@pytest.mark.parametrize(
    ("pages", "counted", "complete"),
    [
        (3, 40, True),
        (3, 41, False),
        (3, 30, True),
        (3, 0, True),
        (200, 2020, True),
        (200, 2021, False),
    ],
)
async def test_how_much_is_far_short(
    export: Export, tmp_path: Path, pages: int, counted: int, complete: bool
) -> None:
    service = Busy(pages=pages)
    service.counted[FIRST] = counted
    to = tmp_path / "p.ndjson"
    if complete:
        assert (await export(service, to, count=True)).complete
    else:
        with pytest.raises(Incomplete, match=f"counts {counted:,}"):
            await export(service, to, count=True)
    assert to.exists() == complete


async def test_a_count_that_fails_costs_no_export_with_records(
    export: Export, tmp_path: Path
) -> None:
    service = Busy()
    service.counted[FIRST] = None
    report = await export(service, tmp_path / "p.ndjson", count=True)
    assert (report.complete, report.people, report.counted) == (True, 30, None)


async def test_a_finished_chain_is_compared_when_a_later_run_counts(
    export: Export, tmp_path: Path
) -> None:
    to = tmp_path / "p.ndjson"
    service = Busy(1, WHOLE)

    def halt(progress: ExportProgress) -> None:
        if progress.stage == "finishing":
            raise Halt

    with pytest.raises(Halt):
        await export(service, to, on_progress=halt)
    report = await export(service, to, count=True)
    assert people_in(to) == service.people(FIRST)
    assert report.chains[0].restarts == 1


@pytest.mark.parametrize("on_shortfall", ["error", "warn"])
async def test_the_total_of_several_chains(
    export: Export, tmp_path: Path, on_shortfall: str
) -> None:
    """Each is no more than ten short, and together they are: the number of windows is no fault."""
    to = tmp_path / "p.ndjson"
    service = Busy(2)
    report = await export(service, to, **DAYS, count=True, on_shortfall=on_shortfall)
    assert (report.complete, report.records) == (True, 60)
    assert report.warnings == [
        "'X' 20260101 to 20260103: 60 records, where the service counts 90",
    ]
    assert asked(service, "open") == 3


@pytest.mark.parametrize("value", ["ignore", None, True, "ERROR", 0, []])
async def test_on_shortfall_is_checked(export: Export, tmp_path: Path, value: Any) -> None:
    service = Busy()
    with pytest.raises(ConfigurationError, match="on_shortfall: expected 'error' or 'warn'"):
        await export(service, tmp_path / "p.ndjson", on_shortfall=value)
    assert not service.asked
    assert names_in(tmp_path) == []


@pytest.mark.parametrize(("fault", "rate"), [("empty_chain", 0.9), ("cut_short", 0.5)])
async def test_with_the_emulator(tmp_path: Path, fault: str, rate: float) -> None:
    to = tmp_path / "p.ndjson"
    arguments: dict[str, Any] = {"events": EVENT, **RANGE, "windows": 4, "batch_size": 46}
    async with Emulator(people=600, seed=2) as emulator, session_for(emulator) as session:
        await session.export(**arguments, to=to, count=True)
        whole = to.read_bytes()
        emulator.faults = {fault: rate}
        report = await session.export(**arguments, to=to, count=True)
        assert to.read_bytes() == whole
        assert emulator.stats.faults[fault] > 0
        assert any(chain.restarts for chain in report.chains)
        emulator.faults = {fault: 1}
        with pytest.raises(Incomplete):
            await session.export(**arguments, to=to, count=True)
        assert to.read_bytes() == whole
        emulator.faults = {}
        await session.export(**arguments, to=to, count=True)
        assert to.read_bytes() == whole


# ------------------------------------------------------------------------- cursors that are echoes


@pytest.mark.parametrize("halted_after", [None, 1, 3])
async def test_a_first_cursor_sent_back_in_each_page(
    export: Export, tmp_path: Path, halted_after: int | None
) -> None:
    """Also if an earlier run has asked for it."""
    to = tmp_path / "p.ndjson"
    service = Busy(pages=4)
    service.echo = lambda number: {"cursor": 0}

    def halt(progress: ExportProgress) -> None:
        if progress.chains[0].pages == halted_after:
            raise Halt

    if halted_after is not None:
        with pytest.raises(Halt):
            await export(service, to, on_progress=halt)
    report = await export(service, to)
    assert people_in(to) == service.people(FIRST)
    assert (report.pages, report.chains[0].restarts) == (4, 0)
    assert asked(service, "open") == 1


# ---------------------------------------------------------------- what an output of nobody replaces


@pytest.mark.parametrize("name", ["p.ndjson", "p.csv", "p.parquet", "p.ndjson.gz"])
async def test_what_an_output_of_nobody_replaces(
    export: Export, tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    to = tmp_path / name
    to.write_bytes(b"x" * 1_234_567)
    service = Busy(0)
    service.counted[FIRST] = 0
    with caplog.at_level(logging.WARNING, "altaprofiles"):
        report = await export(service, to)
    [foreign, nobody] = report.warnings
    assert foreign.startswith(f"1,234,567 bytes of {to} are replaced although no export")
    assert nobody == f"0 people; it replaced 1,234,567 bytes of {to}{STEP}"
    assert caplog.messages == report.warnings


async def test_the_rows_that_an_output_of_nobody_replaces(export: Export, tmp_path: Path) -> None:
    pytest.importorskip("duckdb")
    to = tmp_path / "p.duckdb"
    service = Busy()
    await export(service, to, table="t")
    service.sent[0] = [0]
    service.counted[FIRST] = 0
    for table in ["other", "t"]:
        updated = await export(service, to, table=table)
        assert updated.warnings == [f"0 people came, and {to} keeps its rows{STEP}"]
    report = await export(service, to, table="t", write="replace")
    assert report.warnings == [f"0 people; it replaced 30 rows of the table 't' in {to}{STEP}"]


async def test_lookups_that_find_nobody(tmp_path: Path) -> None:
    to = tmp_path / "p.ndjson"
    to.write_bytes(b"x" * 12)
    async with Emulator(people=10) as emulator, session_for(emulator) as session:
        report = await session.export_lookups(["nobody"], by="identity", to=to)
        assert report.warnings[1:] == [f"0 people; it replaced 12 bytes of {to}"]
        report = await session.export_lookups([], by="identity", to=to)
        assert report.warnings == [f"0 people in {to}"]


async def test_lookups_that_find_nobody_for_a_table_with_rows(tmp_path: Path) -> None:
    pytest.importorskip("duckdb")
    to = tmp_path / "p.duckdb"
    async with Emulator(records=[{"identity": "1"}]) as emulator, session_for(emulator) as session:
        await session.export_lookups(["1"], by="identity", to=to)
        report = await session.export_lookups(["a@b.example"], by="identity", to=to)
    # Its rows do not tell whether these keys are of the right kind, or the account is.
    nobody = [text for text in report.warnings if text.startswith("0 people came, ")]
    assert len(nobody) == 1
    assert "--by email" in nobody[0]


async def test_an_output_of_somebody_says_nothing(export: Export, tmp_path: Path) -> None:
    to = tmp_path / "p.ndjson"
    await export(Busy(), to)
    assert (await export(Busy(), to)).warnings == []
