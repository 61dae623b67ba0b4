"""Pages too large for memory: stored while they arrive, and kept only if they are whole."""

from __future__ import annotations

import asyncio
import gzip
import json
import signal
import socket
import struct
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from altaprofiles import Attempt, CleverTap, ExportError, ResponseTooLarge, Session, Timeout

from ..support.exporting import Job, exporter
from ..support.jobs import names_in, workspace_of
from ..support.joining import both, user
from ..support.odd import pretty
from ..support.servers import Scripted, http, scripted
from ..support.sessions import QUICK
from ..support.tasks import PATIENCE
from ..support.thorough import THOROUGH

pytestmark = pytest.mark.anyio

MIB = 1 << 20
PAGES = 3
ARGUMENTS: dict[str, Any] = {"events": "Charged", "start": 20260101, "end": 20260101}


def record(page: int, number: int, *, size: int = MIB // 2) -> bytes:
    return b'{"identity":"%d-%d","events":{"A":{"count":1}},"pad":"%b"}' % (
        page,
        number,
        b"x" * size,
    )


FORMS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "pretty": pretty,
    "surrogates": lambda one: one.replace(b'{"identity', rb'{"mood":"\ud83d","identity'),
}


class Large:
    """Pages of 9 MB in one chain, with faults.

    Attributes:
        faults: what is sent in place of a page, in turn, by the number of the page.
        asked: the numbers of the requested pages.
        half: set once half of page 1 has been sent.
        holds: whether page 1 stops there.
    """

    def __init__(self, form: Callable[[bytes], bytes] = bytes, records: int = 17) -> None:
        self.faults: dict[int, list[Callable[[bytes], bytes]]] = {}
        self.asked: list[int] = []
        self.half = asyncio.Event()
        self.holds = False
        self.records = [
            [form(record(page, number)) for number in range(records)] for page in range(PAGES)
        ]

    def body(self, page: int) -> bytes:
        following = b"" if page + 1 == PAGES else b'"next_cursor":"c%d",' % (page + 1)
        return b'{"status":"success",%b"records":[%b]}' % (following, b",".join(self.records[page]))

    @property
    def identities(self) -> list[str]:
        return [json.loads(one)["identity"] for page in self.records for one in page]

    async def __call__(self, head: bytes, writer: asyncio.StreamWriter) -> None:
        line = head.split(b"\r\n")[0]
        if line.startswith(b"POST"):
            writer.write(http(b'{"status":"success","cursor":"c0"}'))
            return
        page = int(line.split(b"cursor=c")[1].split(b" ")[0])
        self.asked.append(page)
        answer = http(self.body(page))
        if faults := self.faults.get(page):
            answer = faults.pop(0)(self.body(page))
        middle = len(answer) // 2
        writer.write(answer[:middle])
        await writer.drain()
        if page == 1:
            self.half.set()
            if self.holds:
                await asyncio.Event().wait()
        writer.write(answer[middle:])
        await writer.drain()
        if not answer.startswith(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r" % len(self.body(page))):
            return
        if len(answer) < len(self.body(page)):
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()


@asynccontextmanager
async def serving(large: Large) -> AsyncIterator[Scripted]:
    async with scripted(large) as server:
        yield server


def session_at(server: Scripted, **options: Any) -> Session:
    account = CleverTap("TEST", "PASS", base_url=server.url)
    return Session(clevertap=account, retry=QUICK, **options)


def lines_of(large: Large) -> list[bytes]:
    """Return the lines of the output, as the small path of a page makes them."""
    return [one if b"\n" not in one else _plain(one) for page in large.records for one in page]


def _plain(one: bytes) -> bytes:
    return json.dumps(json.loads(one), separators=(",", ":")).encode()


def is_as_expected(to: Path, large: Large) -> bool:
    # Compared outside of the assertion, because a diff of megabytes takes minutes.
    return to.read_bytes().splitlines() == lines_of(large)


@pytest.mark.parametrize("form", FORMS)
async def test_the_output_is_that_of_small_pages(tmp_path: Path, form: str) -> None:
    large, to = Large(FORMS[form]), tmp_path / "p.ndjson"
    attempts: list[Attempt] = []
    async with serving(large) as server, session_at(server, on_event=attempts.append) as session:
        report = await session.export(**ARGUMENTS, to=to)
        pages = [one.bytes for one in attempts if one.operation == "get_page"]
        assert sorted(pages) == sorted(len(large.body(page)) for page in range(PAGES))
        assert session.stats.bytes == sum(one.bytes for one in attempts)
    assert is_as_expected(to, large)
    assert (report.people, report.pages) == (len(large.identities), PAGES)


def cut(body: bytes) -> bytes:
    return http(body)[: -len(body) // 3]


def changed(*pair: bytes) -> Callable[[bytes], bytes]:
    """Return a fault that replaces the last place where the first text stands by the second."""

    def change(body: bytes) -> bytes:
        before, found, behind = body.rpartition(pair[0])
        assert found
        return http(before + pair[1] + behind)

    return change


FAULTS: dict[str, Callable[[bytes], bytes]] = {
    "cut": cut,
    "cut, with the length of the rest": lambda body: http(body[: 2 * len(body) // 3]),
    "a record without an end": changed(b'x"}', b"x"),
    "a record that is no object": changed(b']}', b',"no"]}'),
    "a failure behind the records": changed(b"]}", b'],"status":"fail","code":2}'),
    "a flipped bit in the name of the records": changed(b'"records"', b'"recorcs"'),
    "half a character at the end": changed(b']}', b'],"x":"\xc3"}'),
    "a web page": lambda body: http(b"<html>busy</html>"),
    "packed and cut": lambda body: http(
        gzip.compress(body, 1)[:-20], "200 OK", "Content-Encoding: gzip"
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_broken_page_leaves_nothing_and_is_asked_for_again(
    tmp_path: Path, fault: str
) -> None:
    large, to = Large(), tmp_path / "p.ndjson"
    large.faults = {1: [FAULTS[fault], FAULTS[fault]]}
    async with serving(large) as server, session_at(server) as session:
        report = await session.export(**ARGUMENTS, to=to)
    assert is_as_expected(to, large)
    assert report.records == len(large.identities)
    assert sorted(large.asked) == [0, 1, 1, 1, 2]
    assert names_in(tmp_path) == [to.name, f"{to.name}.manifest.json"]


async def test_a_second_list_of_records_replaces_the_first(tmp_path: Path) -> None:
    large, to = Large(), tmp_path / "p.ndjson"
    large.faults = {1: [changed(b"]}", b'],"records":[{"identity":"last"}]}')]}
    async with serving(large) as server, session_at(server) as session:
        report = await session.export(**ARGUMENTS, to=to)
    people = [json.loads(line)["identity"] for line in to.read_bytes().splitlines()]
    first, last = large.identities[:17], large.identities[34:]
    assert people == [*first, "last", *last]
    assert report.records == 35


async def test_chains_side_by_side_keep_their_pages_apart(tmp_path: Path) -> None:
    large, to = Large(), tmp_path / "p.ndjson"
    large.faults = {0: [cut], 1: [FAULTS["a record without an end"]], 2: [cut]}
    arguments = {**ARGUMENTS, "end": 20260102, "windows": 2}
    async with serving(large) as server, session_at(server) as session:
        report = await session.export(**arguments, to=to)
    assert [chain.records for chain in report.chains] == [len(large.identities)] * 2
    # Both have the same people, each of whom is written once.
    assert is_as_expected(to, large)


async def test_the_users_of_large_pages_are_joined(tmp_path: Path) -> None:
    to = tmp_path / "p.ndjson"
    large = Large(records=20)
    async with both() as services, services.session() as session:
        services.pages = large.records
        services.users = {one: [user(one, "a")] for one in large.identities[::2]}
        report = await session.export(**ARGUMENTS, to=to, with_cdp=True)
        assert sorted(services.asked) == sorted(large.identities)
    assert (report.matched, report.unmatched) == (30, 30)
    assert [json.loads(line)["identity"] for line in to.read_bytes().splitlines()] == (
        large.identities
    )


MEASURED = """if 1:
    import asyncio, sys
    from altaprofiles import CleverTap, Session

    def memory(name):
        lines = open("/proc/self/status").read().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(name)) // 1024

    async def main(url, how, to):
        account = CleverTap("TEST", "PASS", base_url=url)
        async with Session(clevertap=account) as session:
            before = memory("VmRSS:")
            days = {"start": 20260101, "end": 20260101}
            if how == "export":
                await session.export("Charged", **days, to=to)
            else:
                async for person in session.profiles.by_event("Charged", **days):
                    pass
            print(memory("VmHWM:") - before)

    asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("how", "most"), [("export", 100), ("people", 190)])
async def test_the_memory_does_not_grow_with_the_pages(tmp_path: Path, how: str, most: int) -> None:
    """Three pages of 50 MB. Two copies of each would take 300 MB."""
    large = Large(records=96)
    async with serving(large) as server:
        arguments = [server.url, how, str(tmp_path / "p.ndjson")]
        done = await anyio.run_process([sys.executable, "-c", MEASURED, *arguments])
    assert sorted(large.asked) == [0, 1, 2]
    assert int(done.stdout) < most


# ------------------------------------------------------------------------------------ the byte cap


async def test_the_cap_holds_for_one_record_of_an_export(tmp_path: Path) -> None:
    large = Large()
    async with serving(large) as server, session_at(server, max_response_bytes=MIB) as session:
        await session.export(**ARGUMENTS, to=tmp_path / "p.ndjson")
        assert is_as_expected(tmp_path / "p.ndjson", large)
        with pytest.raises(ResponseTooLarge):
            async for _ in session.profiles.by_event("E", start=20260101, end=20260101):
                pass
    large.records[1][7] = record(1, 7, size=2 * MIB)
    async with serving(large) as server, session_at(server, max_response_bytes=MIB) as session:
        with pytest.raises(ExportError, match="1,048,576 bytes"):
            await session.export(**ARGUMENTS, to=tmp_path / "q.ndjson")
    large.records[1][7] = b'{"identity":"1-7"}'
    large.faults = {1: [changed(b"]}", b'],"x":"%b"}' % (b"x" * 2 * MIB))]}
    async with serving(large) as server, session_at(server, max_response_bytes=MIB) as session:
        with pytest.raises(ExportError, match="1,048,576 bytes"):
            await session.export(**ARGUMENTS, to=tmp_path / "r.ndjson")


@pytest.mark.parametrize("form", [bytes, pretty])
@pytest.mark.parametrize("size", [100, 20_000, 90_000])
async def test_the_cap_is_no_cap_on_the_page(
    tmp_path: Path, size: int, form: Callable[[bytes], bytes]
) -> None:
    """Smaller than what is read at once, and than the pieces in which the body arrives."""
    large = Large()
    large.records = [
        [form(record(page, number, size=size)) for number in range(1_500_000 // size)]
        for page in range(PAGES)
    ]
    async with serving(large) as server, session_at(server, max_response_bytes=100_000) as session:
        await session.export(**ARGUMENTS, to=tmp_path / "p.ndjson")
        assert is_as_expected(tmp_path / "p.ndjson", large)
        assert sorted(large.asked) == [*range(PAGES)]
    large.records[1][3] = record(1, 3, size=100_000)
    async with serving(large) as server, session_at(server, max_response_bytes=100_000) as session:
        with pytest.raises(ExportError, match="a record of the response is over 100,000 bytes"):
            await session.export(**ARGUMENTS, to=tmp_path / "q.ndjson")


class SlowDisk:
    """Files without a name, one of whose writes takes until it is let go.

    Args:
        stalled: the number of that write, from 1; 0 for none.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, stalled: int = 0) -> None:
        self.writes = 0
        self.is_stalled = threading.Event()
        self.gate = threading.Event()
        disk, make = self, tempfile.TemporaryFile

        class File:
            def __init__(self, **options: Any) -> None:
                self._file = make(**options)

            def write(self, data: Any) -> Any:
                disk.writes += 1
                if disk.writes == stalled:
                    disk.is_stalled.set()
                    disk.gate.wait()
                return self._file.write(data)

            def __getattr__(self, name: str) -> Any:
                return getattr(self._file, name)

        monkeypatch.setattr(tempfile, "TemporaryFile", File)

    async def stall_for(self, seconds: float) -> None:
        await anyio.to_thread.run_sync(self.is_stalled.wait, abandon_on_cancel=True)
        await asyncio.sleep(seconds)
        self.gate.set()


def zipped(body: bytes) -> bytes:
    return http(gzip.compress(body), "200 OK", "Content-Encoding: gzip")


@pytest.mark.slow
async def test_time_on_the_disk_is_not_the_silence_of_the_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large, disk = Large(), SlowDisk(monkeypatch, stalled=1)
    timeout = Timeout(read=3, total=None)
    async with serving(large) as server, session_at(server, timeout=timeout) as session:
        stalling = asyncio.create_task(disk.stall_for(4))
        await session.export(**ARGUMENTS, to=tmp_path / "p.ndjson")
        await stalling
    assert is_as_expected(tmp_path / "p.ndjson", large)
    assert sorted(large.asked) == [*range(PAGES)]


@pytest.mark.slow
async def test_a_time_limit_that_is_reached_while_the_disk_writes_ends_that_request_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = Large()
    records = [*large.records[0], b'{"identity":"last"}']
    body = b'{"status":"success","records":[%b]}' % b",".join(records)
    # The whole answer arrives at once, so that nothing is left to wait for behind the last write.
    large.faults = {0: [lambda _: zipped(body)] * 9}
    with monkeypatch.context() as context:
        disk = SlowDisk(context)
        async with serving(large) as server, session_at(server) as session:
            await session.export(**ARGUMENTS, to=tmp_path / "p.ndjson")
        writes = disk.writes
    disk = SlowDisk(monkeypatch, stalled=writes)
    timeout = Timeout(read=None, total=3)
    async with serving(large) as server, session_at(server, timeout=timeout) as session:
        stalling = asyncio.create_task(disk.stall_for(4))
        await session.export(**ARGUMENTS, to=tmp_path / "q.ndjson")
        # Nothing of it reaches the caller later.
        for _ in range(3):
            await asyncio.sleep(0)
        await stalling
    assert (tmp_path / "p.ndjson").read_bytes() == b"".join(one + b"\n" for one in records)
    assert (tmp_path / "q.ndjson").read_bytes() == (tmp_path / "p.ndjson").read_bytes()


async def test_a_bomb_of_small_records_is_refused(tmp_path: Path) -> None:
    bomb = b'{"status":"success","records":[' + b"{}," * (8 * MIB)
    large = Large()
    large.faults = {
        0: [lambda body: http(gzip.compress(bomb), "200 OK", "Content-Encoding: gzip")] * 9
    }
    async with serving(large) as server, session_at(server, max_response_bytes=4 * MIB) as session:
        with pytest.raises(ExportError, match="100 times"):
            await session.export(**ARGUMENTS, to=tmp_path / "p.ndjson")
    assert large.asked == [0]


# -------------------------------------------------------------------------- killed, and full disks

posix = pytest.mark.skipif(sys.platform == "win32", reason="forks, and kills with signals")


def job_at(server: Scripted, to: Path, **options: Any) -> Job:
    environment = {
        "CLEVERTAP_ACCOUNT_ID": "TEST",
        "CLEVERTAP_PASSCODE": "PASS",
        "CLEVERTAP_BASE_URL": server.url,
    }
    return Job(arguments={**ARGUMENTS, "to": str(to)}, environment=environment, **options)


@posix
async def test_killed_in_the_middle_of_a_page_it_resumes_at_that_page(tmp_path: Path) -> None:
    large, to = Large(), tmp_path / "out" / "p.ndjson"
    to.parent.mkdir()
    large.holds = True

    async def moment() -> None:
        # Page 0 counts, and part of page 1 has arrived.
        await large.half.wait()
        spool = workspace_of(to) / "chain-0000.spool.ndjson"
        with anyio.fail_after(PATIENCE):
            while not spool.exists() or spool.stat().st_size < 8 * MIB:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)

    async with serving(large) as server, exporter(tmp_path / "processes") as processes:
        job = job_at(server, to)
        outcome = await processes.killed_at(job, moment())
        assert outcome.signal == signal.SIGKILL
        names = {path.name.partition("-")[0] for path in workspace_of(to).iterdir()}
        assert names <= {"journal.sqlite", "chain"}
        large.holds = False
        large.asked.clear()
        outcome = await processes.run(job)
        assert outcome.report is not None, outcome
        assert sorted(large.asked) in ([1, 2], [0, 1, 2])
    assert is_as_expected(to, large)
    assert not workspace_of(to).exists()


@posix
@pytest.mark.parametrize(
    ("when", "step"),
    [
        ("before", "os.fdatasync"),
        ("after", "sqlite3 commit"),
        *([("after", "os.fdatasync"), ("before", "sqlite3 commit")] if THOROUGH else []),
    ],
)
async def test_killed_while_a_page_is_kept(tmp_path: Path, step: str, when: str) -> None:
    large, to = Large(), tmp_path / "out" / "p.ndjson"
    to.parent.mkdir()
    async with serving(large) as server, exporter(tmp_path / "processes") as processes:
        job = job_at(server, to)
        steps = (await processes.run(job.but(listed=True))).steps
        for path in to.parent.iterdir():
            path.unlink()
        synced = [number for number, name in enumerate(steps) if name == "os.fdatasync"]
        assert len(synced) == PAGES
        for number in synced[1:]:
            at = number + steps[number:].index(step)
            outcome = await processes.run(job.but(die=(at, when)))
            assert outcome.signal == signal.SIGKILL
        outcome = await processes.run(job)
        assert outcome.report is not None, outcome
    assert is_as_expected(to, large)


@posix
@pytest.mark.parametrize("limit", [4 * MIB, 12 * MIB, 20 * MIB] if THOROUGH else [12 * MIB])
async def test_a_disk_that_is_full_in_the_middle_of_a_page_costs_that_page(
    tmp_path: Path, limit: int
) -> None:
    large, to = Large(), tmp_path / "out" / "p.ndjson"
    to.parent.mkdir()
    async with serving(large) as server, exporter(tmp_path / "processes") as processes:
        job = job_at(server, to)
        outcome = await processes.run(job.but(file_limit=limit))
        assert outcome.error in ("ExportError", "Incomplete"), outcome
        assert str(to.parent) in outcome.message
        large.asked.clear()
        outcome = await processes.run(job)
        assert outcome.report is not None, outcome
        assert (0 in large.asked) is (limit < 12 * MIB)
    assert is_as_expected(to, large)
