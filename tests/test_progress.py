"""Lines of progress in a log."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from msgspec.structs import replace

import altaprofiles
from altaprofiles import (
    CleverTap,
    ConfigurationError,
    ConnectError,
    InvalidArgument,
    LookupProgress,
    Session,
    progress,
)
from altaprofiles.emulator import Emulator
from altaprofiles.export.report import Progress

from .support.records import AT, LOOKING_UP
from .support.servers import closed, http, scripted
from .support.sessions import EVENT, QUICK, RANGE, session_at, session_for
from .support.terminals import emulated

pytestmark = pytest.mark.anyio

FIRST = {**RANGE, "end": 20260105}
NOT_READY = b'{"status":"fail","error":"Request still in progress","code":2}'


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with emulated(people=60, seed=3) as emulator:
        yield emulator


class Records(logging.Handler):
    """Keeps the records of lines of progress."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        if hasattr(record, "progress"):
            self.found.append(record)


@pytest.fixture
def records(caplog: pytest.LogCaptureFixture) -> Iterator[list[logging.LogRecord]]:
    """Yield the records of all lines of progress, of which there will be more."""
    caplog.set_level(logging.INFO, "altaprofiles")
    handler = Records()
    logging.getLogger("altaprofiles").addHandler(handler)
    yield handler.found
    logging.getLogger("altaprofiles").removeHandler(handler)


async def test_an_export_logs_its_start_and_its_end(
    emulator: Emulator, tmp_path: Path, records: list[logging.LogRecord]
) -> None:
    to = tmp_path / "people.ndjson"
    async with session_for(emulator) as session:
        report = await session.export(
            EVENT, **FIRST, to=to, batch_size=23, on_progress=progress.log(every=3600)
        )
    first, last = records
    assert first.getMessage().startswith(f"{to}: reading: 0 records, ")
    count = f"{report.records:,} of {report.records:,} records (100 %)"
    assert last.getMessage().startswith(f"{to}: finishing: {count}, 0:")
    assert last.getMessage().endswith(", complete")
    assert {record.levelno for record in records} == {logging.INFO}
    assert {record.name for record in records} == {"altaprofiles"}
    facts = vars(last)["progress"]
    assert facts["output"] == report.output
    assert facts["people"] == report.people
    assert (facts["complete"], facts["done"], facts["goal"]) == (
        True,
        report.records,
        report.records,
    )
    assert "chains" not in facts
    assert msgspec.json.encode(facts)


async def test_lookups_and_syncs(
    emulator: Emulator, tmp_path: Path, records: list[logging.LogRecord]
) -> None:
    # Nobody is found: there is nothing to finish, and still one line that says so.
    async with session_for(emulator) as session:
        log = progress.log(every=3600)
        await session.export_lookups(
            ["nobody-7"], by="identity", to=tmp_path / "found.ndjson", on_progress=log
        )
        assert [vars(record)["progress"]["complete"] for record in records] == [False, True]
        assert ": finishing: 0 of 0 people (100 %), 0:" in records[-1].getMessage()
        sync = partial(
            session.sync, EVENT, since="2026-01-01", to=tmp_path / "crm.duckdb", on_progress=log
        )
        for until, lines in (("2026-01-02", 4), ("2026-01-04", 6), ("2026-01-04", 8)):
            await sync(until=until)
            assert len(records) == lines
            assert vars(records[-1])["progress"]["complete"]
        await sync(until="2026-01-04", late_days=0)
    assert len(records) == 8
    assert "nobody-7" not in "".join(map(str, map(vars, records)))


async def test_several_exports_with_one_callback(
    emulator: Emulator, tmp_path: Path, records: list[logging.LogRecord]
) -> None:
    log = progress.log(every=3600)

    async def one(name: str) -> None:
        async with session_for(emulator) as session:
            await session.export(EVENT, **FIRST, to=tmp_path / name, on_progress=log)

    async with anyio.create_task_group() as group:
        for name in ("india.ndjson", "europe.csv"):
            group.start_soon(one, name)
    await one("europe.csv")
    for name, times in (("india.ndjson", 1), ("europe.csv", 2)):
        own = [record for record in records if vars(record)["progress"]["output"].endswith(name)]
        assert [vars(record)["progress"]["complete"] for record in own] == [False, True] * times
    assert len(records) == 6


async def test_a_resumed_export(
    emulator: Emulator, tmp_path: Path, records: list[logging.LogRecord]
) -> None:
    log = progress.log(every=3600)

    def stop(at: Any) -> None:
        log(at)
        if at.records >= 20:
            raise EOFError

    async with session_for(emulator) as session:
        export = partial(session.export, EVENT, **FIRST, to=tmp_path / "p.ndjson", batch_size=23)
        with pytest.raises(EOFError):
            await export(on_progress=stop)
        assert len(records) == 1
        # The error of the first run has said what became of it, so the same callback starts anew.
        await export(on_progress=log)
    _, resumed, last = (vars(record)["progress"] for record in records)
    assert resumed["resumed"] >= 20
    assert last["complete"]
    assert last["resumed"] == resumed["resumed"]


def test_a_blocking_session(
    emulator: Emulator, tmp_path: Path, records: list[logging.LogRecord]
) -> None:
    with altaprofiles.blocking(partial(session_for, emulator)) as session:
        session.export(EVENT, **FIRST, to=tmp_path / "p.ndjson", on_progress=progress.log())
    assert [vars(record)["progress"]["complete"] for record in records] == [False, True]


async def test_neither_people_nor_credentials_are_logged(
    emulator: Emulator, tmp_path: Path, records: list[logging.LogRecord]
) -> None:
    keys = [emulator.population.identity(index) for index in range(60)]
    names = [key for key in keys if key is not None and len(key) > 4]
    async with session_for(emulator) as session:
        log = progress.log(every=0)
        await session.export_lookups(
            names, by="identity", to=tmp_path / "found.ndjson", with_cdp=True, on_progress=log
        )
    logged = "".join(f"{record.getMessage()}{vars(record)}" for record in records)
    assert len(records) > 2
    for word in (*names, emulator.clevertap.passcode, emulator.alta.token):
        assert word not in logged


def test_own_logger_level_and_interval(caplog: pytest.LogCaptureFixture) -> None:
    own = logging.getLogger("nightly.india")
    caplog.set_level(logging.DEBUG, "nightly.india")
    for log in (
        progress.log(own, 0, logging.DEBUG),
        progress.log(
            logging.LoggerAdapter(own, {"account": "india"}), every=0, level=logging.DEBUG
        ),
    ):
        log(LOOKING_UP)
        log(AT)
    assert caplog.record_tuples == 2 * [
        ("nightly.india", logging.DEBUG, str(LOOKING_UP)),
        ("nightly.india", logging.DEBUG, str(AT)),
    ]
    assert vars(caplog.records[-1])["account"] == "india"


def test_exports_that_fail_leave_nothing_behind() -> None:
    log = progress.log(every=1e-9)
    for number in range(100):
        # The last report of an export that fails is one like any other.
        log(msgspec.structs.replace(LOOKING_UP, output=f"{number}.ndjson"))
    assert len(log._logged_at) <= 1  # noqa: SLF001


def test_a_line_is_one_line_whatever_the_name_of_the_output(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    odd = msgspec.structs.replace(LOOKING_UP, output="a\nb\udcff%s\x1b[2J", complete=True)
    assert isinstance(odd, LookupProgress)
    progress.log()(odd)
    [message] = caplog.messages
    assert message == f"a\\nb\\xff%s\\x1b[2J: {LOOKING_UP}, complete"
    assert message.encode()


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"logger": "altaprofiles"}, "logger"),
        ({"logger": print}, "logger"),
        ({"every": -1}, "every"),
        ({"every": float("nan")}, "every"),
        ({"every": "10"}, "every"),
        ({"level": "INFO"}, "level"),
        ({"level": True}, "level"),
        ({"level": -1}, "level"),
    ],
)
def test_what_cannot_work_is_refused(arguments: dict[str, Any], name: str) -> None:
    with pytest.raises(InvalidArgument, match=f"^{name}: expected ") as caught:
        progress.log(**arguments)
    assert isinstance(caught.value, ConfigurationError)


async def test_the_last_report_comes_with_the_output(tmp_path: Path) -> None:
    to = tmp_path / "p.ndjson"
    reports: list[tuple[bool, bool]] = []
    async with Emulator(people=0) as emulator:
        async with Session(clevertap=emulator.clevertap, retry=QUICK) as session:
            await session.export(
                EVENT,
                **FIRST,
                to=to,
                on_progress=lambda at: reports.append((at.complete, to.exists())),
            )
    assert reports[-1] == (True, True)
    assert not any(complete for complete, _ in reports[:-1])


async def test_the_reason_of_a_retry_is_reported_until_a_run_of_requests_without_one(
    tmp_path: Path,
) -> None:
    reported = anyio.Event()
    refused = False

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        nonlocal refused
        if not refused:
            refused = True
            writer.write(http(b"", "503 Service Unavailable"))
            return
        # Answered only once the reason has been reported.
        await reported.wait()
        writer.write(http(b'{"status":"success","record":null}'))

    def note(progress: LookupProgress) -> None:
        reports.append(progress)
        if progress.trouble:
            reported.set()

    reports: list[LookupProgress] = []
    async with scripted(answer) as server, session_at(server) as session:
        for keys in (["7"], [str(key) for key in range(100)]):
            with anyio.fail_after(60):
                await session.export_lookups(
                    keys, by="identity", to=tmp_path / f"{len(keys)}.ndjson", on_progress=note
                )
            troubled = [report for report in reports if report.trouble]
            asking = [str(report) for report in troubled if report.stage == "asking"]
            assert asking
            assert all("retried: CleverTap answered HTTP 503" in line for line in asking)
            assert reports[-1].complete
            assert bool(reports[-1].trouble) is (len(keys) == 1)
            assert "503" not in str(reports[-1])
            reports.clear()
            reported, refused = anyio.Event(), False


async def test_what_is_usual_is_no_reason_to_report(tmp_path: Path) -> None:
    """Neither a page that is not ready yet nor a secret that is renewed is a failure."""
    secrets = iter(["old", "new"])
    polls = iter(range(3))

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        if b"old" in head:
            writer.write(http(b'{"status":"fail"}', "401 Unauthorized"))
        elif next(polls, None) is not None:
            writer.write(http(NOT_READY))
        else:
            writer.write(http(b'{"status":"success","record":null}'))

    reports: list[LookupProgress] = []
    async with scripted(answer) as server:
        clevertap = CleverTap("W9R", lambda: next(secrets), base_url=server.url)
        async with Session(clevertap=clevertap, retry=QUICK) as session:
            await session.export_lookups(
                ["7"], by="identity", to=tmp_path / "to.ndjson", on_progress=reports.append
            )
            assert session.stats.not_ready == 3
    assert reports[-1].retries == 4
    assert [report.trouble for report in reports if report.trouble] == []


async def test_a_refused_connection_names_the_next_step_once(tmp_path: Path) -> None:
    async with closed() as place:
        session = Session(
            clevertap=CleverTap("W9R", "passcode", base_url=place.url),
            retry=replace(QUICK, attempts=2),
        )
        async with session:
            calls: list[Callable[[], Awaitable[Any]]] = [
                lambda: session.profiles.get(identity="7"),
                lambda: session.export(EVENT, **FIRST, to=tmp_path / "people.ndjson"),
                lambda: anext(aiter(session.profiles.by_event(EVENT, **FIRST))),
            ]
            for call in calls:
                with pytest.raises(ConnectError, match="no connection to 127") as caught:
                    await call()
                notes = caught.value.__notes__
                assert len([note for note in notes if "`altaprofiles doctor` shows" in note]) == 1


async def test_the_time_in_which_an_event_loop_stands_still_is_none_of_the_work(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, hour = time.monotonic, 0.0
    monkeypatch.setattr(time, "monotonic", lambda: clock() + hour)

    def note(at: Progress) -> None:
        # As between two cells of IPython, in the middle of the work.
        nonlocal hour
        hour = 3600.0
        seen.append(at)

    seen: list[Progress] = []
    async with session_for(emulator, retry=QUICK) as session:
        to = tmp_path / "people.ndjson"
        report = await session.export(EVENT, **FIRST, to=to, on_progress=note)
    assert report.complete
    assert report.seconds < hour
    assert max(at.seconds for at in seen) < hour
