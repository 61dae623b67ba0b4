"""A disk that stands still while a page arrives: whose time it takes, and who is cancelled then."""

from __future__ import annotations

import asyncio
import io
import json
import tempfile
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from altaprofiles import (
    Attempt,
    CleverTap,
    Incomplete,
    RequestTimeout,
    Retry,
    Session,
    Timeout,
)

from ..support.servers import http, scripted
from ..support.sessions import QUICK
from ..support.tasks import end_midway, nothing_left_behind

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("clock")]

ARGUMENTS: dict[str, Any] = {"events": "Charged", "start": 20260101, "end": 20260101}
SHORT = 0.5
"""A time limit, in seconds. A disk that is held stands still for three times as long."""

RECORD = b'{"identity":"%d","pad":"' + b"x" * (1 << 15) + b'"}'
HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
AGAIN = b'{"status":"success","records":[{"identity":"again"}]}'


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Disk:
    """Replaces the files without a name by such whose first write waits until `free` is set.

    Attributes:
        begun: set once that write has begun.
        seconds: the time by the clock until it goes on.
        on_begun: called when it has begun.
    """

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.free = threading.Event()
        self.seconds = 3 * SHORT
        self.on_begun: list[Callable[[], object]] = []
        self.loop = asyncio.get_running_loop()

    def file(self, *, dir: Path, buffering: int) -> io.FileIO:
        disk = self

        class Held(io.FileIO):
            def write(self, data: Any) -> int:
                if not disk.free.is_set():
                    disk.loop.call_soon_threadsafe(disk.begin)
                    disk.free.wait()
                return super().write(data)

        number, path = tempfile.mkstemp(dir=dir)
        Path(path).unlink()
        assert buffering == 0
        return Held(number, "r+")

    def begin(self) -> None:
        self.begun.set()
        self.loop.call_later(self.seconds, self.free.set)
        for call in self.on_begun:
            call()


@pytest.fixture
async def disk(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Disk]:
    disk = Disk()
    monkeypatch.setattr(tempfile, "TemporaryFile", disk.file)
    yield disk
    disk.free.set()


class Paced:
    """One page, whose last records are sent one by one until the disk is asked to store some.

    Its end is sent at once then, so that nothing is waited for once the disk is free again.

    Attributes:
        asked: number of requests for the page.
        sent: number of records of the first answer.
        falls_silent: whether the end of the first answer never comes.
    """

    def __init__(self, disk: Disk) -> None:
        self.asked = self.sent = 0
        self.falls_silent = False
        self._disk = disk

    async def __call__(self, head: bytes, writer: asyncio.StreamWriter) -> None:
        if head.startswith(b"POST"):
            writer.write(http(b'{"status":"success","cursor":"c0"}'))
            return
        self.asked += 1
        if self.asked > 1:
            writer.write(http(AGAIN))
            return
        writer.write(HEAD + chunk(b'{"status":"success","records":['))
        while not self._disk.begun.is_set():
            comma = b"," if self.sent else b""
            writer.write(chunk(comma + RECORD % self.sent))
            self.sent += 1
            await writer.drain()
            if self.sent > 240:
                await asyncio.sleep(0.001)
        if self.falls_silent:
            await asyncio.Event().wait()
        writer.write(chunk(b"]}") + chunk(b""))

    @property
    def identities(self) -> list[str]:
        return [str(number) for number in range(self.sent)]


@asynccontextmanager
async def exporting(
    paced: Paced, retry: Retry = QUICK, **options: Any
) -> AsyncIterator[tuple[Session, list[Attempt]]]:
    attempts: list[Attempt] = []

    def note(attempt: Attempt) -> None:
        if attempt.operation == "get_page":
            attempts.append(attempt)

    async with scripted(paced) as server:
        account = CleverTap("TEST", "PASS", base_url=server.url)
        options = {"clevertap": account, "retry": retry, "on_event": note, **options}
        async with Session(**options) as session:
            yield session, attempts


def identities_in(to: Path) -> list[str]:
    return [json.loads(line)["identity"] for line in to.read_bytes().splitlines()]


async def goes_on() -> None:
    """Check that the current task is not cancelled."""
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0)


# ------------------------------------------------------------------------------- time limits


async def test_a_slow_disk_is_not_the_services_silence(tmp_path: Path, disk: Disk) -> None:
    paced, to = Paced(disk), tmp_path / "p.ndjson"
    async with exporting(paced, timeout=Timeout(read=SHORT, total=None)) as (session, attempts):
        await session.export(**ARGUMENTS, to=to)
    assert [attempt.error for attempt in attempts] == [None]
    assert identities_in(to) == paced.identities


async def test_silence_counts_again_once_the_disk_is_free(tmp_path: Path, disk: Disk) -> None:
    paced, to = Paced(disk), tmp_path / "p.ndjson"
    paced.falls_silent = True
    async with exporting(paced, timeout=Timeout(read=SHORT, total=None)) as (session, attempts):
        await session.export(**ARGUMENTS, to=to)
    assert [type(attempt.error) for attempt in attempts] == [RequestTimeout, type(None)]
    assert "sent nothing for 0.5 s" in str(attempts[0].error)
    assert identities_in(to) == ["again"]


async def test_a_limit_of_the_whole_attempt_that_strikes_then_ends_that_attempt_alone(
    tmp_path: Path, disk: Disk
) -> None:
    paced, to = Paced(disk), tmp_path / "p.ndjson"
    async with exporting(paced, timeout=Timeout(read=None, total=SHORT)) as (session, attempts):
        report = await session.export(**ARGUMENTS, to=to)
        await goes_on()
    assert [type(attempt.error) for attempt in attempts] == [RequestTimeout, type(None)]
    assert "no complete answer" in str(attempts[0].error)
    assert (report.records, identities_in(to)) == (1, ["again"])


@pytest.mark.parametrize("of", ["each request", "the export"])
async def test_a_deadline_that_strikes_then_ends_what_it_is_for(
    tmp_path: Path, disk: Disk, of: str
) -> None:
    paced, to = Paced(disk), tmp_path / "p.ndjson"
    is_of_each = of == "each request"
    retry = Retry(base_delay=0.001, deadline=SHORT) if is_of_each else QUICK
    options: dict[str, Any] = {} if is_of_each else {"deadline": SHORT}
    async with nothing_left_behind(), exporting(paced, retry) as (session, _):
        with pytest.raises(Incomplete, match=r"did not finish within the deadline of 0\.5 s"):
            await session.export(**ARGUMENTS, to=to, **options)
        await goes_on()
        report = await session.export(**ARGUMENTS, to=to)
    # On a busy machine it may strike before the page is asked for.
    assert identities_in(to) == (["again"] if paced.asked == 2 else paced.identities)
    assert report.records == len(identities_in(to))


async def test_its_time_is_not_the_silence_of_the_service(tmp_path: Path, disk: Disk) -> None:
    paced, to = Paced(disk), tmp_path / "p.ndjson"
    async with exporting(paced, timeout=Timeout(read=SHORT, total=None)) as (session, attempts):
        await session.export(**ARGUMENTS, to=to)
    assert [attempt.error for attempt in attempts] == [None]
    assert identities_in(to) == paced.identities


# ----------------------------------------------------------------------------- cancellations


@pytest.mark.parametrize("limits", [Timeout(total=None), Timeout(read=None, total=SHORT)])
@pytest.mark.parametrize("way", ["task", "scope", "timeout"])
async def test_an_owner_who_cancels_then_is_obeyed(
    tmp_path: Path, disk: Disk, way: str, limits: Timeout
) -> None:
    """Even where a time limit of the request strikes before the disk is free."""
    paced, to = Paced(disk), tmp_path / "p.ndjson"
    async with nothing_left_behind(), exporting(paced, timeout=limits) as (session, _):
        await end_midway(way, disk.on_begun, lambda: session.export(**ARGUMENTS, to=to))
        await goes_on()
        assert not to.exists()
        disk.free.set()
        report = await session.export(**ARGUMENTS, to=to)
        await goes_on()
    assert (report.records, identities_in(to)) == (1, ["again"])
