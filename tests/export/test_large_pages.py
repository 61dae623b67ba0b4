"""Pages too large for memory: stored while they arrive, and kept only if they are whole."""

from __future__ import annotations

import asyncio
import errno
import gzip
import json
import os
import random
import signal
import socket
import struct
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from altaprofiles import Attempt, CleverTap, ExportError, ResponseTooLarge, Session

from ..support.exporting import Job, exporter
from ..support.jobs import names_in, workspace_of
from ..support.joining import both, user
from ..support.odd import pretty
from ..support.servers import Scripted, http, scripted
from ..support.sessions import QUICK
from ..support.tasks import PATIENCE
from ..support.thorough import THOROUGH

pytestmark = [pytest.mark.anyio, pytest.mark.each_value]

MIB = 1 << 20
PAGES = 3
ARGUMENTS: dict[str, Any] = {"events": "Charged", "start": 20260101, "end": 20260101}


def record(
    page: int, number: int, *, size: int = MIB // 2, form: Callable[[bytes], bytes] = bytes
) -> bytes:
    text = form(b'{"identity":"%d-%d","events":{"A":{"count":1}},"pad":"@"}' % (page, number))
    # Padded afterwards, because a form takes long for half a megabyte.
    return text.replace(b"@", b"x" * size)


FORMS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "pretty": pretty,
    "surrogates": lambda one: one.replace(b'{"identity', rb'{"mood":"\ud83d","identity'),
}


class Large:
    """Pages of 9 MB in one chain, with faults.

    Args:
        form: of each record.
        records: number of records of a page.
        others: the same for the pages beside page 1, if it is another one.

    Attributes:
        faults: what is sent in place of a page, in turn, by the number of the page.
        asked: the numbers of the requested pages.
        half: set once half of page 1 has been sent.
        holds: whether page 1 stops there.
    """

    def __init__(
        self,
        form: Callable[[bytes], bytes] = bytes,
        records: int = 17,
        others: int | None = None,
    ) -> None:
        self.faults: dict[int, list[Callable[[bytes], bytes]]] = {}
        self.asked: list[int] = []
        self.half = asyncio.Event()
        self.holds = False
        sizes = [records if page == 1 or others is None else others for page in range(PAGES)]
        self.records = [
            [record(page, number, form=form) for number in range(size)]
            for page, size in enumerate(sizes)
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
        body = self.body(page)
        faults = self.faults.get(page)
        answer = faults.pop(0)(body) if faults else http(body)
        middle = len(answer) // 2
        writer.write(answer[:middle])
        await writer.drain()
        if page == 1:
            self.half.set()
            if self.holds:
                await asyncio.Event().wait()
        writer.write(answer[middle:])
        await writer.drain()
        if not answer.startswith(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r" % len(body)):
            return
        if len(answer) < len(body):
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
    others = None if form == "plain" else 2
    large, to = Large(FORMS[form], others=others), tmp_path / "p.ndjson"
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
    large, to = Large(others=2), tmp_path / "p.ndjson"
    large.faults = {1: [FAULTS[fault], FAULTS[fault]]}
    async with serving(large) as server, session_at(server) as session:
        report = await session.export(**ARGUMENTS, to=to)
    assert is_as_expected(to, large)
    assert report.records == len(large.identities)
    assert sorted(large.asked) == [0, 1, 1, 1, 2]
    assert names_in(tmp_path) == [to.name, f"{to.name}.manifest.json"]


@pytest.mark.parametrize("error", [errno.EACCES, errno.ENOMEM, errno.EXDEV])
@pytest.mark.parametrize("copied", [0, MIB])
async def test_a_system_that_does_not_copy_between_files_is_not_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int, copied: int
) -> None:
    copy, refused = os.copy_file_range, 0

    def copy_file_range(source: int, target: int, count: int) -> int:
        nonlocal refused
        if copied and not refused:
            refused = 1
            return copy(source, target, min(count, copied))
        refused += 1
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "copy_file_range", copy_file_range)
    large, to = Large(others=2), tmp_path / "p.ndjson"
    async with serving(large) as server, session_at(server) as session:
        await session.export(**ARGUMENTS, to=to)
    assert refused
    assert is_as_expected(to, large)


async def test_a_second_list_of_records_replaces_the_first(tmp_path: Path) -> None:
    large, to = Large(others=2), tmp_path / "p.ndjson"
    large.faults = {1: [changed(b"]}", b'],"records":[{"identity":"last"}]}')]}
    async with serving(large) as server, session_at(server) as session:
        report = await session.export(**ARGUMENTS, to=to)
    people = [json.loads(line)["identity"] for line in to.read_bytes().splitlines()]
    first, last = large.identities[:2], large.identities[-2:]
    assert people == [*first, "last", *last]
    assert report.records == 5


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
    """Three pages of 38 MB. Two copies of each would take 226 MB."""
    large = Large(records=72)
    async with serving(large) as server:
        arguments = [server.url, how, str(tmp_path / "p.ndjson")]
        done = await anyio.run_process([sys.executable, "-c", MEASURED, *arguments])
    assert sorted(large.asked) == [0, 1, 2]
    assert int(done.stdout) < most


# ------------------------------------------------------------------------------------ the byte cap


async def test_the_cap_holds_for_one_record_of_an_export(tmp_path: Path) -> None:
    large = Large(others=2)
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


SMALL = 1 << 16
"""A cap that is smaller than a slice of records."""


def varied(page: int, number: int, size: int) -> bytes:
    """Return a record of `size` bytes that cannot be packed to a hundredth of them."""
    head = b'{"identity":"%d-%d","pad":"' % (page, number)
    pad = random.Random(number).randbytes(size).hex().encode()  # noqa: S311
    return head + pad[: size - len(head) - 2] + b'"}'


def of_small_records(records: int, cap: int) -> Large:
    """Return pages of small records, with one among them that fits into `cap`, even if pretty."""
    large = Large(records=0)
    large.records = [
        [varied(page, number, 300) for number in range(records)] for page in range(PAGES)
    ]
    large.records[1][7] = varied(1, 7, cap - 64)
    return large


SENT: dict[str, Callable[[bytes], bytes]] = {
    "as it is": http,
    "packed": lambda body: http(gzip.compress(body, 1), "200 OK", "Content-Encoding: gzip"),
    "pretty": lambda body: http(pretty(body)),
    "with half a surrogate pair": changed(b'{"identity', rb'{"x":"\ud83d","identity'),
}


@pytest.mark.parametrize("sent", SENT)
@pytest.mark.parametrize(("records", "cap"), [(2500, SMALL), (40, 2000)])
async def test_pages_of_small_records_may_be_larger_than_the_cap(
    tmp_path: Path, sent: str, records: int, cap: int
) -> None:
    large, to = of_small_records(records, cap), tmp_path / "p.ndjson"
    large.faults = {page: [SENT[sent]] for page in range(PAGES)}
    async with serving(large) as server, session_at(server, max_response_bytes=cap) as session:
        report = await session.export(**ARGUMENTS, to=to)
    assert report.records == PAGES * records
    assert sorted(large.asked) == [*range(PAGES)]
    people = [json.loads(line)["identity"] for line in to.read_bytes().splitlines()]
    assert people == large.identities


@pytest.mark.parametrize("sent", ["as it is", "packed"])
@pytest.mark.parametrize("place", [0, 1000, 2499])
async def test_one_record_above_the_cap_is_refused(tmp_path: Path, sent: str, place: int) -> None:
    """Even where one piece of the body holds all of the record."""
    large = of_small_records(2500, SMALL)
    large.records[1][place] = varied(1, place, SMALL + 1)
    large.faults = {1: [SENT[sent]]}
    async with serving(large) as server, session_at(server, max_response_bytes=SMALL) as session:
        with pytest.raises(ExportError, match="such as one record, is over 65,536 bytes"):
            await session.export(**ARGUMENTS, to=tmp_path / "p.ndjson")
    assert large.asked.count(1) == 1


async def test_a_malformed_page_above_the_cap_is_asked_for_again(tmp_path: Path) -> None:
    large, to = of_small_records(2500, SMALL), tmp_path / "p.ndjson"
    for page in range(PAGES):
        large.faults[page] = [changed(b'"identity":"%d-3"' % page, b"identity:")]
    async with serving(large) as server, session_at(server, max_response_bytes=SMALL) as session:
        report = await session.export(**ARGUMENTS, to=to)
    assert report.records == PAGES * 2500
    assert sorted(large.asked) == [0, 0, 1, 1, 2, 2]


async def test_a_bomb_of_small_records_is_refused(tmp_path: Path) -> None:
    bomb = b'{"status":"success","records":[' + b"{}," * MIB
    large = Large()
    large.faults = {
        0: [lambda body: http(gzip.compress(bomb), "200 OK", "Content-Encoding: gzip")] * 9
    }
    async with serving(large) as server, session_at(server, max_response_bytes=SMALL) as session:
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
    large, to = Large(others=2), tmp_path / "out" / "p.ndjson"
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
