"""The programs of the guide run under their servers, against the emulator."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import re
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import (
    AsyncExitStack,
    ExitStack,
    asynccontextmanager,
    closing,
    contextmanager,
    suppress,
)
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any
from zoneinfo import ZoneInfo

import aiohttp
import anyio
import duckdb
import fastapi.testclient
import httpx
import psycopg_pool
import pytest
import trustme
import uvicorn
from aiohttp.test_utils import TestClient, TestServer
from fastapi import HTTPException
from sybil import Example

from altaprofiles import (
    Alta,
    AltaProfilesError,
    Attempt,
    CleverTap,
    ConnectError,
    ExportProgress,
    InvalidArgument,
    MissingCredentials,
    Profile,
    RateLimited,
    Retry,
    ServerError,
    Session,
    StatusError,
    Unauthorized,
    errors,
    unfinished_in,
)
from altaprofiles.emulator import Emulator
from altaprofiles.http.machine.commons import common_name, use_of

from ..support.guides import GUIDES, block_of, document_at, write_programs
from ..support.postgres import Server
from ..support.servers import Scripted, always, http, in_turn, listening, scripted, tunnel
from ..support.services import Served, served
from ..support.tasks import PATIENCE
from ..support.terminals import emulated, environment
from ..support.waiting import until, wait_until

GUIDE = "in-a-web-service.md"
UVICORN = ["-m", "uvicorn", "service:app", "--port", "0"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("programs")
    write_programs(GUIDE, folder)
    return folder


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with emulated(people=300) as emulator:
        yield emulator


@pytest.fixture(autouse=True)
def quick(emulator: Emulator) -> Iterator[None]:
    yield
    emulator.think = 0.0
    emulator.faults = {}
    wait_until(lambda: emulator.stats.in_flight["clevertap"] == 0)


@pytest.fixture(scope="module", params=["service", "web"])
def service(
    request: pytest.FixtureRequest,
    folder: Path,
    emulator: Emulator,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Served]:
    env = environment(tmp_path_factory.mktemp("home"), emulator.environment, PORT="0")
    command, starts = (UVICORN, 1) if request.param == "service" else (["-u", "web.py"], 0)
    with served(command, folder, env, starts) as service:
        yield service


# ------------------------------------------------------------------------------------ web services


def test_a_person_and_nobody(service: Served) -> None:
    found = service.ask("/people/5555555555")
    assert found.status == 200
    assert found.body["properties"]["favoriteFood"] == "pizza"
    assert service.ask("/people/nobody").status == 404


def test_an_odd_record_costs_its_properties_alone(service: Served, emulator: Emulator) -> None:
    emulator.faults = {"odd_record": 1}
    found = service.ask("/people/5555555555")
    assert (found.status, found.body["properties"]) == (200, None)
    assert found.body["name"]


def test_an_identity_with_a_slash_meets_the_same_route(service: Served, emulator: Emulator) -> None:
    emulator.add({"identity": "team 386/å", "name": "Ann"})
    assert service.ask("/people/team%20386%2F%C3%A5").body["name"] == "Ann"


def test_a_fault_of_the_request_is_4xx(service: Served) -> None:
    answer = service.ask("/people/%20")
    assert (answer.status, answer.body) == (
        422,
        {"detail": "identity: empty; pass the identifier itself"},
    )


def test_a_refusal_is_503_with_a_time(service: Served, emulator: Emulator) -> None:
    emulator.faults = {"throttled": 1}
    answer = service.ask("/people/1")
    assert answer.status == 503
    assert int(answer.headers["Retry-After"]) >= 1
    emulator.faults = {}
    wait_until(lambda: service.ask("/people/1").status != 503)


def test_a_service_that_does_not_answer_is_504(service: Served, emulator: Emulator) -> None:
    emulator.think = PATIENCE
    assert service.ask("/people/1?within=0.1").status == 504


def test_a_client_that_leaves_ends_its_request(service: Served, emulator: Emulator) -> None:
    emulator.think = 2 * PATIENCE
    with service.asking("/people/1?within=60"):
        wait_until(lambda: emulator.stats.in_flight["clevertap"] == 1)
    wait_until(lambda: emulator.stats.in_flight["clevertap"] == 0)
    emulator.think = 0.0
    assert service.ask("/people/5555555555").status == 200


# ---------------------------------------------------------------------------------------- FastAPI


def module(folder: Path, name: str) -> ModuleType:
    """Return a program of the guide as a module."""
    spec = importlib.util.spec_from_file_location(f"guide_{name}", folder / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def program(folder: Path) -> ModuleType:
    """Return the service of FastAPI as a module."""
    return module(folder, "service")


@pytest.fixture(scope="module")
def web_program(folder: Path) -> ModuleType:
    """Return the service of aiohttp.web as a module."""
    return module(folder, "web")


NEEDED: dict[str, dict[str, Any]] = {
    "ResponseTooLarge": {"limit": 1},
    "DecodeError": {"path": "$", "excerpt": ""},
    "PlanMismatch": {"differences": {}},
    "Incomplete": {"missing": ["a chain"]},
}


def example_of(kind: type[AltaProfilesError]) -> AltaProfilesError:
    """Return an error of a kind."""
    if issubclass(kind, StatusError):
        return kind(api="Alta", status=400)
    return kind("words", **NEEDED.get(kind.__name__, {}))


ERRORS = [getattr(errors, name) for name in errors.__all__ if name != "AltaProfilesError"]
"""The public classes. The base of all is never raised itself."""


def statuses() -> tuple[dict[str, int], set[str]]:
    """Return the statuses of errors in the table, by name, and names of those with a time."""
    text = (GUIDES / "errors.md").read_text("utf-8")
    table = text.partition("| to the client of a web service |")[2].partition("\n\n")[0]
    by_name: dict[str, int] = {}
    timed: set[str] = set()
    for line in table.splitlines()[2:]:
        _, status, kinds, _ = line.split("|")
        names = set(re.findall(r"`(\w+)`", kinds)) & {*errors.__all__}
        if not status.strip().startswith("422"):
            assert by_name.keys().isdisjoint(names)
            by_name |= dict.fromkeys(names, int(status.split(",")[0]))
        if "`Retry-After`" in status:
            timed |= names
    return by_name, timed


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
async def test_every_error_has_the_status_of_the_table(
    kind: type[AltaProfilesError], program: ModuleType, web_program: ModuleType
) -> None:
    error = example_of(kind)
    by_name, timed = statuses()
    [name, *_] = (base.__name__ for base in kind.__mro__ if base.__name__ in by_name)
    answer = await program.failed(None, error)
    raised = web_program.answer(error)
    for status, headers in (
        (answer.status_code, answer.headers),
        (raised.status, raised.headers),
    ):
        assert status == by_name[name]
        assert ("Retry-After" in headers) is (name in timed)


@pytest.mark.anyio
async def test_a_request_that_clevertap_refuses_is_the_fault_of_the_client(
    program: ModuleType, web_program: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusal = http(b'{"status":"fail","error":"Incorrect usage","code":400}', "400 Bad Request")
    async with scripted(always(refusal)) as server:
        set_credentials(monkeypatch, server.url)
        async with TestClient(TestServer(web_program.app)) as client:
            async with client.get("/people/1") as answer:
                assert answer.status == 422
                assert "Incorrect usage" in (await answer.json())["detail"]

        def ask_fastapi() -> Any:
            with fastapi.testclient.TestClient(program.app) as other:
                return other.get("/people/1")

        answered = await asyncio.to_thread(ask_fastapi)
        assert answered.status_code == 422
        assert "Incorrect usage" in answered.json()["detail"]


@pytest.mark.anyio
@pytest.mark.parametrize("seconds", [None, 0.0, 0.2, 1.0, 59.4])
async def test_the_time_of_a_refusal_is_at_least_a_second(
    seconds: float | None, program: ModuleType
) -> None:
    error = RateLimited(api="CleverTap", status=429, retry_after=seconds)
    answer = await program.failed(None, error)
    assert answer.headers["Retry-After"] == ("60" if seconds == 59.4 else "1")


@pytest.mark.anyio
async def test_a_call_in_an_outage_is_told_when_the_session_asks_again(
    program: ModuleType, web_program: ModuleType
) -> None:
    refusal = http(b'{"status":"fail"}', "429 Too Many Requests")
    async with (
        scripted(always(refusal)) as server,
        Session(
            clevertap=CleverTap("A", "P", base_url=server.url),
            retry=Retry(attempts=1, base_delay=90.0, max_delay=90.0),
        ) as session,
    ):
        for _ in range(4):
            with pytest.raises(RateLimited):
                await session.profiles.get(identity="1")
        with pytest.raises(RateLimited) as caught:
            await session.with_options(deadline=0.01).profiles.get(identity="1")
    for headers in (
        (await program.failed(None, caught.value)).headers,
        web_program.answer(caught.value).headers,
    ):
        # With a quarter of jitter, and less what the test has taken.
        assert 1 < int(headers["Retry-After"]) <= 90


@pytest.mark.anyio
async def test_work_in_the_background_that_dies_is_in_the_log(
    folder: Path, program: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    async def die() -> None:
        raise RuntimeError("a fault of the program")

    async def wait() -> None:
        await asyncio.Event().wait()

    tasks: set[asyncio.Task[None]] = set()
    for work in (die(), wait()):
        program.begin(work, tasks)
    ours = [asyncio.create_task(work) for work in (die(), wait())]
    for task in ours:
        task.add_done_callback(module(folder, "nightly").log_death)
    while len(tasks) > 1:
        await asyncio.sleep(0)
    left = [*tasks, *ours]
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    # Those that were cancelled are no news.
    assert caplog.text.count("RuntimeError: a fault of the program") == len(caplog.records) == 2
    assert tasks == set()


@pytest.mark.anyio
async def test_the_error_of_a_function_of_a_secret_is_in_the_log(
    folder: Path,
    program: ModuleType,
    web_program: ModuleType,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    missing = tmp_path / "passcode"
    async with Session(clevertap=CleverTap("A", missing.read_text)) as session:
        with pytest.raises(MissingCredentials) as caught:
            await session.profiles.get(identity="9876543210")

    assert web_program.answer(caught.value).status == 500
    for answer in (
        await program.failed(None, caught.value),
        await module(folder, "health").missing(None, caught.value),
    ):
        assert json.loads(answer.body) == {"detail": "internal error"}
    assert len(caplog.records) == 3
    assert caplog.text.count(f"No such file or directory: '{missing}'") == 3
    assert "9876543210" not in caplog.text


CHARGED = "/charged/2026-01-01/2026-01-31"


@pytest.fixture(scope="module")
def streaming(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Served, Emulator]]:
    """Serve several pages, in the loop of asyncio, which warns of writing to those who left."""
    with emulated(people=6000) as emulator:
        env = environment(tmp_path_factory.mktemp("home"), emulator.environment)
        with served([*UVICORN, "--loop", "asyncio"], folder, env) as service:
            yield service, emulator


def test_people_are_streamed_and_clients_that_leave_are_noticed(
    streaming: tuple[Served, Emulator],
) -> None:
    service, emulator = streaming
    expected = emulator.population.active("Charged", 20260101, 20260131)
    url = f"http://127.0.0.1:{service.port}{CHARGED}"
    with urllib.request.urlopen(url, timeout=PATIENCE) as response:
        assert response.headers["Content-Type"] == "application/x-ndjson"
        assert len([json.loads(line) for line in response]) == len(expected)
    for number in range(1, 11):
        with service.asking(CHARGED) as client:
            for _ in range(20 * number):
                assert client.recv(8192)
    wait_until(lambda: emulator.stats.in_flight["clevertap"] == 0)
    assert service.ask("/people/nobody").status == 404
    warnings = ("raised exception", "WARNING", "Traceback")
    assert [line for line in service.output if any(word in line for word in warnings)] == []


def test_the_first_page_of_a_stream_decides_the_status(
    streaming: tuple[Served, Emulator],
) -> None:
    service, emulator = streaming
    assert service.ask("/charged/2026-01-31/2026-01-01").status == 422
    emulator.think = PATIENCE
    assert service.ask(f"{CHARGED}?within=0.1").status == 504
    emulator.think = 0.0
    passcode = emulator.passcode
    emulator.passcode = "another"
    assert service.ask(CHARGED).status == 500
    emulator.passcode = passcode
    with service.asking(CHARGED):
        emulator.think = PATIENCE
        wait_until(lambda: emulator.stats.in_flight["clevertap"] > 0)
    wait_until(lambda: emulator.stats.in_flight["clevertap"] == 0)
    emulator.think = 0.0


@pytest.mark.anyio
async def test_a_stream_that_fails_later_has_no_end_and_logs_no_traceback(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    refusal = http(b'{"status":"fail","error":"Incorrect usage","code":400}', "400 Bad Request")
    async with scripted(in_turn(*pages_of(b'{"identity":"7"}'), refusal)) as server:
        set_credentials(monkeypatch, server.url)
        app = module(folder, "service").app
        async with answering(app) as url, aiohttp.ClientSession() as client:
            async with client.get(url + CHARGED) as response:
                assert response.status == 200
                assert await response.content.readline() == b'{"identity":"7"}\n'
                with pytest.raises(aiohttp.ClientPayloadError):
                    await response.read()
    assert [line for line in caplog.messages if "Incorrect usage" in line] == [
        "a stream was cut: CleverTap answered HTTP 400 (code 400): Incorrect usage"
    ]
    assert [record for record in caplog.records if record.exc_info] == []


@pytest.mark.anyio
async def test_a_stream_that_takes_too_long_has_no_end_and_logs_no_traceback(
    program: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = b'{"identity":"1"}', b'{"identity":"2"}'
    async with scripted(in_turn(*pages_of(first, second))) as server:
        clevertap = CleverTap("A", "P", base_url=server.url)
        async with Session(clevertap=clevertap) as session:
            people = session.profiles.by_event("Charged", start=20260101, end=20260131)
            pages = people.pages(decode=False)
            stream = program.Stream(program.lines(await anext(pages), pages, 0.0), pages)
            async with answering(stream, lifespan="off") as url, httpx.AsyncClient() as client:
                received = []
                with pytest.raises(httpx.RemoteProtocolError):
                    async with client.stream("GET", url) as response:
                        received = [data async for data in response.aiter_bytes()]
                assert response.status_code == 200
                assert received == []
    assert "a stream was cut: it took too long" in caplog.messages
    assert [record for record in caplog.records if record.exc_info] == []


@pytest.mark.anyio
async def test_lines_of_a_stream_end_at_line_feeds_only(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = example_with("async def people_of")
    example.evaluate()
    record = {"identity": "7", "profileData": {"x": "a\u2028b\u2029c\u0085d"}}
    sent = json.dumps(record, ensure_ascii=False).encode()
    last = http(b'{"status":"success","records":[{"identity":"8"}]}')
    async with scripted(in_turn(*pages_of(sent), last)) as server:
        set_credentials(monkeypatch, server.url)
        async with answering(module(folder, "service").app) as url:
            people = [one async for one in example.namespace["people_of"](url + CHARGED)]
    assert people == [record, {"identity": "8"}]


@pytest.mark.anyio
async def test_a_slow_client_does_not_hold_up_the_end(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = (folder / "service.py").read_text("utf-8")
    drain = "aclose(drain=10.0)"
    assert drain in program
    # What the end would wait for would never come.
    (tmp_path / "service.py").write_text(program.replace(drain, "aclose(drain=1e6)"), "utf-8")
    people = [b'{"identity":"%d","profileData":{"x":"%b"}}' % (n, b"x" * (1 << 20)) for n in (1, 2)]
    async with scripted(in_turn(*pages_of(*people))) as server:
        set_credentials(monkeypatch, server.url)
        app = module(tmp_path, "service").app
        with anyio.fail_after(PATIENCE):
            async with answering(app, timeout_graceful_shutdown=0) as url:
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", int(url.rpartition(":")[2]), limit=1024
                )
                writer.write(f"GET {CHARGED} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
                assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
        assert not (await reader.read(-1)).endswith(b"0\r\n\r\n")
        writer.close()


# ------------------------------------------------------------------------------------ aiohttp.web


@asynccontextmanager
async def streaming_web(folder: Path, **constants: object) -> AsyncIterator[TestClient[Any, Any]]:
    """Serve the program of aiohttp.web, with other constants, as it serves itself."""
    program = module(folder, "web")
    for name, value in constants.items():
        assert hasattr(program, name)
        setattr(program, name, value)
    async with TestClient(TestServer(program.app, handler_cancellation=True)) as client:
        yield client


LATER_FAULTS = {
    "garbled": http(b"<html>"),
    "refused": http(b'{"status":"fail","error":"No","code":400}', "400 Bad Request"),
    "down": http(b"", "503 Service Unavailable"),
}


@pytest.mark.anyio
@pytest.mark.parametrize("fault", LATER_FAULTS)
async def test_a_stream_of_aiohttp_that_fails_later_is_cut(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    pages = pages_of(b'{"identity":"7"}')
    async with scripted(in_turn(*pages, *[LATER_FAULTS[fault]] * 9)) as server:
        set_credentials(monkeypatch, server.url)
        async with (
            streaming_web(folder, Retry=partial(Retry, attempts=1)) as client,
            client.get(CHARGED) as response,
        ):
            assert response.status == 200
            assert response.content_type == "application/x-ndjson"
            assert await response.content.readline() == b'{"identity":"7"}\n'
            with anyio.fail_after(PATIENCE), pytest.raises(aiohttp.ClientPayloadError):
                # Nothing more comes, a second response least of all.
                assert await response.content.readline() == b""
    cut = [line for line in caplog.messages if line.startswith("a stream was cut: ")]
    assert len(cut) == 1
    assert [record for record in caplog.records if record.exc_info] == []


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["service", "web"])
async def test_a_stream_outlasts_more_than_the_calls_of_the_session(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    last = http(b'{"status":"success","records":[{"identity":"8"}]}')
    faults = [LATER_FAULTS["down"]] * 3
    async with scripted(in_turn(*pages_of(b'{"identity":"7"}'), *faults, last)) as server:
        set_credentials(monkeypatch, server.url)
        program = module(folder, name)
        # Those of the session, with its short pauses, fail at once.
        monkeypatch.setattr(
            program,
            "Retry",
            lambda **options: Retry(attempts=1 if options else 8, base_delay=0.0),
        )
        async with AsyncExitStack() as stack:
            if name == "service":
                url = await stack.enter_async_context(answering(program.app))
            else:
                served_here = TestServer(program.app, handler_cancellation=True)
                url = str((await stack.enter_async_context(served_here)).make_url("")).rstrip("/")
            client = await stack.enter_async_context(aiohttp.ClientSession())
            async with client.get(url + CHARGED) as response:
                assert await response.read() == b'{"identity":"7"}\n{"identity":"8"}\n'


@pytest.mark.anyio
async def test_a_stream_of_aiohttp_to_a_client_that_does_not_read_is_cut_in_time(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # More than the buffers of the system hold.
    big = b'{"identity":"1","profileData":{"x":"%b"}}' % (b"x" * (16 << 20))
    last = http(b'{"status":"success","records":[]}')
    async with scripted(in_turn(*pages_of(big, big), last)) as server:
        set_credentials(monkeypatch, server.url)
        async with streaming_web(folder, SECONDS_A_STREAM=2.0) as client:
            assert client.port is not None
            reader, writer = await asyncio.open_connection("127.0.0.1", client.port, limit=1024)
            writer.write(f"GET {CHARGED} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
            with anyio.fail_after(PATIENCE):
                await until(lambda: "a stream was cut: it took too long" in caplog.messages)
                body = await read_all(reader)
            assert not body.endswith(b"0\r\n\r\n")
            writer.close()
    assert [record for record in caplog.records if record.exc_info] == []


async def read_all(reader: asyncio.StreamReader) -> bytes:
    """Return what comes until the end, however the connection ends."""
    received = b""
    with suppress(ConnectionError):
        while data := await reader.read(1 << 16):
            received = received[-64:] + data
    return received


@pytest.mark.anyio
async def test_a_stream_of_aiohttp_brings_everyone_and_its_first_page_decides_the_status(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Emulator(people=3000) as emulator:
        for name, value in emulator.environment.items():
            monkeypatch.setenv(name, value)
        async with streaming_web(folder) as client:
            expected = emulator.population.active("Charged", 20260101, 20260131)
            async with client.get(CHARGED) as response:
                body = await response.read()
            assert len([json.loads(line) for line in body.splitlines()]) == len(expected)
            for path, status in {
                "/charged/2026-01-31/2026-01-01": 422,
                "/charged/9000-01-01/9000-01-02": 422,
                "/charged/soon/2026-01-01": 400,
            }.items():
                async with client.get(path) as response:
                    assert response.status == status
            right, emulator.passcode = emulator.passcode, "another"
            async with client.get(CHARGED) as response:
                assert response.status == 500
            emulator.passcode = right
            # A client that leaves ends its requests.
            emulator.think = PATIENCE
            leaving = asyncio.ensure_future(client.get(CHARGED))
            await until(lambda: emulator.stats.in_flight["clevertap"] > 0)
            leaving.cancel()
            await until(lambda: emulator.stats.in_flight["clevertap"] == 0)
            emulator.think = 0.0
            # HTTP/1.0 has no last chunk.
            assert client.port is not None
            reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
            writer.write(f"GET {CHARGED} HTTP/1.0\r\nHost: h\r\n\r\n".encode())
            assert b" 505 " in await reader.readline()
            writer.close()


def pages_of(*records: bytes) -> list[bytes]:
    """Return the answers to a chain of pages of one record each, which goes on."""
    page = b'{"status":"success","records":[%b],"next_cursor":"c%d"}'
    pages = [http(page % (record, number)) for number, record in enumerate(records)]
    return [http(b'{"status":"success","cursor":"a"}'), *pages]


def set_credentials(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Let `Session.from_env` ask the server at `url`."""
    monkeypatch.setenv("CLEVERTAP_ACCOUNT_ID", "A")
    monkeypatch.setenv("CLEVERTAP_PASSCODE", "P")
    monkeypatch.setenv("CLEVERTAP_BASE_URL", url)


@asynccontextmanager
async def answering(app: Any, **options: Any) -> AsyncIterator[str]:
    """Serve an application in this process, with small buffers, and yield its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, **options))
        task = asyncio.create_task(server.serve([listener]))
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await task


@pytest.mark.anyio
async def test_the_state_of_an_export_is_in_a_file(
    program: ModuleType, emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    day = date(2026, 1, 1)
    with pytest.raises(HTTPException) as missing:
        program.state_of_export(day, day)
    assert missing.value.status_code == 404
    closed = Session(clevertap=emulator.clevertap)
    await program.write_export(closed, day, day)
    assert program.state_of_export(day, day)["state"] == "stopped"
    states = []
    note = program.note

    def noted(*args: object, **details: object) -> None:
        note(*args, **details)
        states.append(program.state_of_export(day, day))

    monkeypatch.setattr(program, "note", noted)
    async with Session(clevertap=emulator.clevertap) as session:
        await program.write_export(session, day, day)
    people = len(emulator.population.active("App Launched", 20260101, 20260101))
    assert states[0]["state"] == "running"
    assert states[-2]["records"] >= people
    assert {**states[-1], "at": 0} == {"state": "done", "people": people, "at": 0}
    assert not [*tmp_path.glob("*.tmp")]


def test_an_export_that_a_kill_has_cut_off_goes_on_at_the_start(
    folder: Path, tmp_path: Path
) -> None:
    write_programs(GUIDE, tmp_path)
    command = ["-m", "uvicorn", "resuming:app", "--port", "0"]
    days = "/exports/2026-01-01/2026-01-31"
    output = tmp_path / "app-launched-2026-01-01-2026-01-31.ndjson"
    with emulated(people=300, think=0.1) as emulator:
        env = environment(tmp_path, emulator.environment)
        with served(command, tmp_path, env) as service:
            assert service.ask(days, "POST").status == 202
            wait_until(lambda: emulator.stats.requests["page"] > 0)
            service.process.kill()
            service.process.wait()
        assert not output.exists()
        emulator.think = 0.0
        with served([*command, "--workers", "2"], tmp_path, env, starts=2) as service:
            wait_until(lambda: service.ask(days).body["state"] == "done")
            assert service.stop() == 0
        opened = emulator.stats.requests["open_chain"]
        with served(command, tmp_path, env) as service:
            assert service.ask(days).body["state"] == "done"
            service.stop()
        # Nothing is left to resume.
        assert emulator.stats.requests["open_chain"] == opened
    people = len(emulator.population.active("App Launched", 20260101, 20260131))
    assert len(output.read_bytes().splitlines()) == people


@pytest.mark.anyio
async def test_an_audience_takes_one_slot(folder: Path) -> None:
    audience = module(folder, "audience")
    async with (
        Emulator(people=300, think=0.01) as emulator,
        Session(clevertap=emulator.clevertap) as session,
    ):
        found = await audience.launched(session, date(2026, 1, 2))
    assert emulator.stats.peak_in_flight["clevertap"] == 1
    assert emulator.stats.requests["page"] > 1
    assert len(found) == len(emulator.population.active("App Launched", 20260102, 20260102))


@pytest.mark.anyio
@pytest.mark.parametrize("shared", ["", "1"])
async def test_an_export_in_a_session_of_its_own_leaves_two_slots(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("ALTAPROFILES_SHARED", shared)
    async with Emulator(people=300, think=0.01) as emulator:
        for name, value in emulator.environment.items():
            monkeypatch.setenv(name, value)
        calls, exports = module(folder, "audience").sessions()
        async with calls, exports:
            to = tmp_path / "people.ndjson"
            await exports.export("App Launched", start=20260101, end=20260131, to=to)
            assert emulator.stats.peak_in_flight["clevertap"] == 1
            lookups = (calls.profiles.get(identity=f"user{number}") for number in range(9))
            await asyncio.gather(*lookups)
            assert emulator.stats.peak_in_flight["clevertap"] == 2


def test_a_worker_without_a_free_place_refuses_at_once(folder: Path, tmp_path: Path) -> None:
    command = ["-m", "uvicorn", "overload:app", "--port", "0"]
    path = "/chats/5555555555"
    with emulated(people=300) as emulator:
        # Their requests have no answer, and are not cancelled before the deadline.
        program = (folder / "overload.py").read_text("utf-8")
        write_programs(GUIDE, tmp_path)
        (tmp_path / "overload.py").write_text(program.replace("within=0.8", "within=60"))
        env = environment(tmp_path, emulator.environment)
        with served(command, tmp_path, env) as service, ExitStack() as clients:
            assert service.ask(path).status == 200
            emulator.think = 10 * PATIENCE
            for _ in range(3):
                clients.enter_context(service.asking(path))
            wait_until(lambda: emulator.stats.in_flight["clevertap"] == 3)
            sent = emulator.stats.requests["profile"]
            refused = service.ask(path)
            assert (refused.status, refused.body) == (503, {"detail": "too many requests"})
            assert refused.headers["Retry-After"] == "1"
            assert emulator.stats.requests["profile"] == sent
            # Whoever leaves, leaves the place to others.
            clients.close()
            emulator.think = 0.0
            wait_until(lambda: service.ask(path).status == 200)


@pytest.mark.anyio
async def test_a_cache_keeps_answers_for_a_while_and_no_failures(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = module(folder, "cache")
    people = cache.People()
    clock = time.monotonic
    async with (
        Emulator(people=5) as emulator,
        Session(clevertap=emulator.clevertap, retry=Retry(attempts=1)) as session,
    ):
        emulator.add({"identity": "ann", "name": "Ann", "profileData": {"Plan": "pro"}})

        async def name_of(identity: str) -> str | None:
            person: Profile | None = await people.get(session, identity)
            return None if person is None else person.name

        emulator.faults = {"server_error": 1}
        with pytest.raises(ServerError):
            await name_of("ann")
        emulator.faults = {}
        for _ in range(2):
            assert await name_of("ann") == "Ann"
            assert await name_of("nobody") is None
        assert emulator.stats.requests["profile"] == 3
        # What one request does with an answer is not seen by another one.
        for _ in range(2):
            assert (await people.get(session, "ann")).profile_data.pop("Plan") == "pro"
        assert emulator.stats.requests["profile"] == 3
        emulator.add({"identity": "ann", "name": "Anna"})
        assert await name_of("ann") == "Ann"
        monkeypatch.setattr(time, "monotonic", lambda: clock() + cache.SECONDS)
        assert await name_of("ann") == "Anna"
        monkeypatch.setattr(time, "monotonic", clock)
        # The oldest answer makes room.
        monkeypatch.setattr(cache, "MOST", 2)
        await name_of("bo")
        before = emulator.stats.requests["profile"]
        assert await name_of("ann") == "Anna"
        assert emulator.stats.requests["profile"] == before
        await name_of("nobody")
        assert emulator.stats.requests["profile"] == before + 1


@pytest.mark.anyio
async def test_a_part_of_an_answer_where_one_service_is_down(emulator: Emulator) -> None:
    example = example_with("def what_there_is")
    example.evaluate()
    alta = Alta("token", base_url="http://127.0.0.1:9")
    async with Session(clevertap=emulator.clevertap, alta=alta, retry=Retry(attempts=1)) as session:
        person, error = await example.namespace["what_there_is"](session, "5555555555")
    assert person.identity == "5555555555"
    assert isinstance(error, ConnectError)


@pytest.mark.anyio
async def test_the_last_night_answers_for_a_service_that_is_down_or_late(
    emulator: Emulator, postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    example = example_with("def last_known")
    example.evaluate()
    known = example.namespace["known"]
    # Enough for a slow machine.
    example.namespace["SECONDS"] = PATIENCE
    account = emulator.clevertap.account_id
    ann = {"identity": "user1", "email": "ann@example.com", "name": "Ann"}
    emulator.add(ann)
    day = date(2026, 1, 1)
    pool = psycopg_pool.AsyncConnectionPool(postgres.url(), open=False)
    async with (
        pool,
        Session(
            clevertap=emulator.clevertap, alta=emulator.alta, retry=Retry(attempts=1)
        ) as session,
    ):
        live = await known(session, pool, account, email="ann@example.com")
        assert live == ann | {"cdp": live["cdp"], "source": "services", "age": None}
        assert await known(session, pool, account, identity="nobody") is None

        # A table without the column.
        await session.export("Charged", start=day, end=day, to=postgres.url())
        emulator.faults = {"server_error": 1}
        stale = await known(session, pool, account, email="ann@example.com")
        assert stale == ann | {"cdp": None, "source": "table", "age": stale["age"]}
        emulator.faults = {}
        await session.export("Charged", start=day, end=day, to=postgres.url(), with_cdp=True)
        emulator.faults = {"server_error": 1}
        for key in ("email", "identity"):
            stale = await known(session, pool, account, **{key: ann[key]})
            assert stale == live | {"source": "table", "age": stale["age"]}
            assert stale["age"] > 0
        # Another account has somebody with the same address.
        postgres.run(
            "INSERT INTO profiles (account, person, identity, email, name, object_ids, fetched_at)"
            " SELECT 'OTHER', person, '77', email, 'Eve', object_ids, fetched_at + interval '1 h'"
            " FROM profiles WHERE identity = 'user1'"
        )
        assert (await known(session, pool, account, email="ann@example.com"))["identity"] == "user1"
        # An early version knew no time of a row.
        postgres.run("UPDATE profiles SET fetched_at = NULL WHERE name = 'Ann'")
        old = await known(session, pool, account, email="ann@example.com")
        assert old == live | {"source": "table", "age": None}
        postgres.run("UPDATE profiles SET fetched_at = now() - interval '1 h'")
        emulator.faults = {}
        place = emulator.clevertap
        refused = CleverTap(place.account_id, "wrong", base_url=place.base_url)
        async with Session(clevertap=refused, alta=emulator.alta) as other:
            with pytest.raises(Unauthorized):
                await known(other, pool, account, identity="user1")

        # Late: it does not answer before the end of its share.
        emulator.faults = {}
        emulator.think = 10 * PATIENCE
        example.namespace["SHARE"] = 0.01
        assert (await known(session, pool, account, identity="user1"))["age"] > 0
        emulator.think = 0.0

        emulator.faults = {"server_error": 1}
        with pytest.raises(ServerError):
            await known(session, pool, account, identity="new since the night")
        with pytest.raises(InvalidArgument):
            await known(session, pool, account)
        postgres.run("DROP TABLE profiles")
        with pytest.raises(ServerError):
            await known(session, pool, account, identity="user1")


@pytest.mark.anyio
async def test_an_address_and_a_user_id_are_asked_for_at_once(emulator: Emulator) -> None:
    example = example_with("def at_once")
    example.evaluate()
    emulator.add({"identity": "user1", "email": "ann@example.com", "name": "Ann"})
    async with Session(clevertap=emulator.clevertap, alta=emulator.alta) as session:
        person, users = await example.namespace["at_once"](session, "ann@example.com", "user1")
    assert person.name == "Ann"
    assert [*users] == ["user1"]


@pytest.mark.anyio
async def test_who_is_behind_an_address_has_the_channels_of_alta(emulator: Emulator) -> None:
    example = example_with("def channels")
    example.evaluate()
    emulator.add({"identity": "user1", "email": "ann@example.com", "name": "Ann"})
    async with Session(clevertap=emulator.clevertap, alta=emulator.alta) as session:
        [customer] = await example.namespace["channels"](session, "ann@example.com")
        bound = (await session.cdp.get(user_id="user1"))["user1"].anonymous_ids
    assert bound
    assert customer == {
        "name": "Ann",
        "channels": [(one.conversation_type, one.anonymous_id) for one in bound],
    }


def example_with(text: str) -> Example:
    """Return the only example of the guide with a text in its code."""
    (example,) = (one for one in document_at(GUIDES / GUIDE).examples() if text in one.parsed)
    return example


@pytest.mark.slow
def test_four_workers_share_three_slots(folder: Path, tmp_path: Path) -> None:
    slots = tmp_path / "slots"
    with emulated(people=300, think=0.005, max_in_flight=3) as emulator:
        env = environment(tmp_path, emulator.environment, ALTAPROFILES_SHARED=str(slots))
        command = [*UVICORN, "--workers", "4"]
        with served(command, folder, env, starts=4) as service:
            statuses = asyncio.run(asked(service.port, 400, callers=12))
            assert statuses == {200: 400}, "".join(service.output)
            account = common_name(emulator.url, emulator.clevertap.account_id)
            assert len(use_of(slots, account).pids) == 4
            days = "/exports/2026-01-01/2026-01-02"
            assert service.ask("/exports/2026-01-02/2026-01-01", "POST").status == 422
            assert service.ask(days).status == 404
            assert service.ask(days, "POST").status == 202
            wait_until(lambda: emulator.stats.requests["page"] > 0)
            # Any worker knows of it.
            wait_until(lambda: service.ask(days).body["state"] in ("running", "done"))
            # An export is under way, and a request is.
            emulator.think = 0.5
            before = emulator.stats.requests["profile"]
            with service.asking("/people/5555555555") as client:
                wait_until(lambda: emulator.stats.requests["profile"] > before)
                assert service.stop() == 0
                assert client.makefile().read().startswith("HTTP/1.1 200 OK")
        assert emulator.stats.too_many == 0
        assert emulator.stats.peak_in_flight["clevertap"] == 3
        assert emulator.stats.in_flight["clevertap"] == 0
    output = folder / "app-launched-2026-01-01-2026-01-02.ndjson"
    people = output.read_bytes().splitlines()
    assert json.loads(Path(f"{output}.state.json").read_bytes())["people"] == len(people)
    assert len(people) == len(emulator.population.active("App Launched", 20260101, 20260102))


async def asked(port: int, requests: int, callers: int) -> Counter[int]:
    """Ask for a person, and return the number of answers of each status."""
    url = f"http://127.0.0.1:{port}/people/5555555555?within=60"
    numbers = iter(range(requests))
    statuses: Counter[int] = Counter()

    async def call(client: aiohttp.ClientSession) -> None:
        for _ in numbers:
            async with client.get(url) as response:
                statuses[response.status] += 1

    async with aiohttp.ClientSession() as client, anyio.create_task_group() as group:
        for _ in range(callers):
            group.start_soon(call, client)
    return statuses


# ----------------------------------------------------------------------------------------- workers


def test_a_worker_does_urgent_jobs_first(folder: Path, emulator: Emulator, tmp_path: Path) -> None:
    emulator.think = 0.02
    jobs = "".join(f"user_{number}\n" for number in range(60)) + "!5555555555\n! \n"
    done = subprocess.run(
        [sys.executable, "worker.py"],
        cwd=folder,
        env=environment(tmp_path, emulator.environment),
        input=jobs,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    names = [line.partition(":")[0] for line in done.stdout.splitlines()]
    assert len(names) == 61
    assert names.index("5555555555") < 20
    assert done.stderr == ": identity: empty; pass the identifier itself\n"


@pytest.mark.parametrize("has_more", [True, False])
def test_a_worker_that_is_stopped_names_what_is_left(
    folder: Path, emulator: Emulator, tmp_path: Path, has_more: bool
) -> None:
    emulator.think = 0.1
    jobs = [f"user_{number}" for number in range(200)]
    with subprocess.Popen(
        [sys.executable, "worker.py"],
        cwd=folder,
        env=environment(tmp_path, emulator.environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write("".join(f"{job}\n" for job in jobs))
        process.stdin.flush()
        if not has_more:
            process.stdin.close()
        wait_until(lambda: emulator.stats.in_flight["clevertap"] == 3)
        process.send_signal(signal.SIGTERM)
        lines = process.stdout.read().splitlines()
        assert process.stderr.read() == ""
        assert process.wait(PATIENCE) == 0
    left = [line.removeprefix("left: ") for line in lines if line.startswith("left: ")]
    done = [line.partition(":")[0] for line in lines if not line.startswith("left: ")]
    assert sorted(done + left) == sorted(jobs)
    # Those that had begun have ended, and no others.
    assert len(done) >= 3
    assert left


def test_a_server_of_aiohttp_ends_its_calls(
    folder: Path, emulator: Emulator, tmp_path: Path
) -> None:
    env = environment(tmp_path, emulator.environment, PORT="0")
    with served(["-u", "web.py"], folder, env, starts=0) as service:
        emulator.think = 0.5
        with service.asking("/people/5555555555?within=60") as client:
            wait_until(lambda: emulator.stats.in_flight["clevertap"] == 1)
            assert service.stop() == 0
            assert client.makefile().read().startswith("HTTP/1.1 200 OK")


@pytest.mark.skipif(sys.platform != "linux", reason="others do not divide connections")
def test_two_servers_of_aiohttp_listen_at_one_port(
    folder: Path, emulator: Emulator, tmp_path: Path
) -> None:
    program = (folder / "web.py").read_text("utf-8")
    assert "        app,\n" in program
    program = program.replace("        app,\n", "        app,\n        reuse_port=True,\n")
    (tmp_path / "web.py").write_text(program, "utf-8")
    env = environment(tmp_path, emulator.environment, ALTAPROFILES_SHARED="1")
    command = ["-u", "web.py"]
    with served(command, tmp_path, {**env, "PORT": "0"}, starts=0) as first:
        with served(command, tmp_path, {**env, "PORT": str(first.port)}, starts=0) as second:
            assert first.stop() == 0
            assert second.ask("/people/nobody").status == 404


KEYS = [f"user_{number}" for number in range(200)]


def queued(folder: Path, keys: list[str]) -> Path:
    """Make the queue of the guide in a folder, with keys, and return it."""
    text = (GUIDES / GUIDE).read_text("utf-8")
    [tables] = re.findall(r"^```sql\n(CREATE TABLE jobs.*?)^```$", text, re.DOTALL | re.MULTILINE)
    path = folder / "queue.sqlite"
    with closing(sqlite3.connect(path)) as store, store:
        store.executescript(tables)
        store.executemany("INSERT INTO jobs VALUES (?)", [(key,) for key in keys])
    return path


def rows_of(path: Path, table: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path, timeout=PATIENCE)) as store:
        return store.execute(f"SELECT * FROM {table} ORDER BY key").fetchall()


@contextmanager
def queue_worker(
    folder: Path, emulator: Emulator, home: Path, **constants: float
) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Run the worker with other constants, which nobody waits for; yield it and its output."""
    program = (folder / "queue_worker.py").read_text("utf-8")
    line = "WORKERS, FAILURES, PAUSE, SECONDS_A_KEY = 3, 5, 10.0, 5.0\n"
    assert line in program
    others = "".join(f"{name} = {value}\n" for name, value in constants.items())
    (home / "queue_worker.py").write_text(program.replace(line, line + others), "utf-8")
    output = home / "output"
    with (
        output.open("w") as file,
        subprocess.Popen(
            [sys.executable, "queue_worker.py"],
            cwd=home,
            env=environment(home, emulator.environment),
            stdout=file,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process,
    ):
        try:
            yield process, output
        finally:
            process.kill()


def test_a_queue_outlives_a_kill_and_a_service_that_fails_and_hangs(
    folder: Path, emulator: Emulator, tmp_path: Path
) -> None:
    emulator.add({"identity": "queue-1", "name": "Ann"})
    keys = [*KEYS, "queue-1", " "]
    queue = queued(tmp_path, keys)
    emulator.think = 0.1
    with queue_worker(folder, emulator, tmp_path, SECONDS_A_KEY=PATIENCE) as (process, _):
        wait_until(lambda: len(rows_of(queue, "people")) > 3)
        process.kill()
        process.wait()
    stored = {key for key, _, _ in rows_of(queue, "people")}
    left = {key for (key,) in rows_of(queue, "jobs")}
    assert stored | left == {*keys}
    assert left
    emulator.think = 0.0
    emulator.faults = {"server_error": 1}
    with queue_worker(folder, emulator, tmp_path, PAUSE=0.01) as (process, output):
        wait_until(lambda: "6 failures in a row: ServerError" in output.read_text())
    # An answer would come later than the test waits.
    emulator.faults = {}
    emulator.think = 10 * PATIENCE
    options = {"PAUSE": 0.01, "SECONDS_A_KEY": 0.5}
    with queue_worker(folder, emulator, tmp_path, **options) as (process, output):
        wait_until(lambda: "6 failures in a row: RequestTimeout" in output.read_text())
        assert {key for (key,) in rows_of(queue, "jobs")} <= left
        emulator.think = 0.0
        # A busy machine may need longer for a key, which then comes again.
        assert process.wait(PATIENCE) == 0
    assert rows_of(queue, "jobs") == []
    rows = rows_of(queue, "people")
    assert [key for key, _, _ in rows] == sorted(keys)
    assert {(name, fault) for key, name, fault in rows if key == "queue-1"} == {("Ann", None)}
    assert [key for key, _, fault in rows if fault] == [" "]


@pytest.mark.anyio
@pytest.mark.parametrize(("failures", "at_once"), [(4, 3), (5, 1)])
async def test_an_open_breaker_makes_one_call_at_a_time(
    folder: Path, monkeypatch: pytest.MonkeyPatch, failures: int, at_once: int
) -> None:
    program = module(folder, "queue_worker")
    monkeypatch.setattr(program, "PAUSE", 0.0)
    under_way: list[int] = [0]
    most: list[int] = []

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        under_way[0] += 1
        most.append(under_way[0])
        # All that are made at once are here before one of them is answered.
        await until(lambda: len(most) >= at_once)
        # Another one that is made meanwhile would be seen.
        await asyncio.sleep(0.05)
        under_way[0] -= 1
        writer.write(http(b'{"status":"fail"}', "500 Internal Server Error"))

    breaker = program.Breaker()
    breaker.failures = failures
    async with (
        scripted(answer) as server,
        Session(
            clevertap=CleverTap("A", "P", base_url=server.url), retry=Retry(attempts=1)
        ) as session,
    ):
        calls = (breaker.get(session, key) for key in "123")
        errors = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(error) for error in errors] == [ServerError] * 3
    assert len(most) == 3
    assert max(most) == at_once
    assert breaker.failures == failures + 3


@pytest.mark.anyio
@pytest.mark.parametrize("number", [3, 500])
async def test_an_endless_look_up_ends_before_the_drain_does(
    emulator: Emulator, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    example = example_with("async def keys_of")
    # Whoever waited for it would wait too long.
    assert "drain=10.0" in example.parsed
    names: dict[str, Any] = {}
    exec(example.parsed.replace("drain=10.0", "drain=1e6"), names)  # noqa: S102
    emulator.think = 0.05
    keys = [f"user_{one}" for one in range(number)]
    jobs: asyncio.Queue[str | None] = asyncio.Queue()
    for key in keys:
        jobs.put_nowait(key)
    stopping = asyncio.Event()
    async with Session(clevertap=emulator.clevertap) as session:
        reader = asyncio.create_task(names["look_up"](session, jobs, stopping))
        await until(lambda: emulator.stats.in_flight["clevertap"] > 0, during=reader)
        with anyio.fail_after(PATIENCE):
            await names["stop"](session, jobs, stopping)
            await reader
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert {line[-1] for line in lines} == {"None"}
    left = [job for job in (jobs.get_nowait() for _ in range(jobs.qsize())) if job]
    assert sorted([line[0] for line in lines] + left) == sorted(keys)
    assert bool(left) is (number == 500)


# ------------------------------------------------------------------------------------------- batch


@pytest.mark.anyio
async def test_a_batch_has_an_answer_for_each_key_in_the_order_of_the_request(
    folder: Path, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulator.add({"identity": "batch-1", "email": "Ann@example.com", "name": "Ann"})
    emulator.add({"identity": "4242", "name": "Bob"})
    wanted: list[dict[str, Any]] = [
        {"by": "email", "key": "Ann@example.com"},
        {"by": "identity", "key": "nobody"},
        {"by": "identity", "key": "batch-1"},
        {"by": "email", "key": " "},
        {"by": "email", "key": "Ann@example.com"},
        {"by": "identity", "key": "batch\t1"},
        {"by": "identity", "key": 4242},
    ]
    use(emulator, monkeypatch)
    async with posting(folder, monkeypatch) as post:
        status, answers = await post(wanted, PATIENCE)
        assert await post([], 1) == (200, [])
    assert status == 200
    assert [one["state"] for one in answers] == [
        *("found", "not found", "found", "invalid", "found", "invalid", "found")
    ]
    assert [one.get("name") for one in answers] == ["Ann", None, "Ann", None, "Ann", None, "Bob"]
    assert answers[3]["detail"].startswith("[3]: empty")
    assert answers[5]["detail"].startswith("[5]: holds the control character")


@pytest.mark.anyio
async def test_an_odd_record_does_not_cost_its_batch(
    folder: Path, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulator.faults = {"odd_record": 1}
    use(emulator, monkeypatch)
    wanted = [{"by": "identity", "key": key} for key in ("5555555555", "nobody")]
    async with posting(folder, monkeypatch) as post:
        status, answers = await post(wanted, PATIENCE)
    assert (status, [one["state"] for one in answers]) == (200, ["found", "not found"])
    assert answers[0]["name"]
    assert answers[0]["properties"] is None


@pytest.mark.anyio
@pytest.mark.parametrize("by", ["identity", "email"])
async def test_the_deadline_of_a_batch_marks_the_keys_that_were_not_reached(
    folder: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    person = http(b'{"status":"success","record":{"name":"Ann"}}')

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        if f"{by}=stuck".encode() in head:
            await asyncio.sleep(2 * PATIENCE)
        writer.write(person)

    wanted = [{"by": kind, "key": f"{n}"} for n in range(20) for kind in ("identity", "email")]
    wanted.insert(7, {"by": by, "key": "stuck"})
    states: list[str] = []
    async with scripted(answer) as server:
        set_credentials(monkeypatch, server.url)
        async with posting(folder, monkeypatch) as post:
            # A busy machine may need longer for the others.
            for within in (1, 4, 16, PATIENCE):
                status, answers = await post(wanted, within)
                assert status == 200
                states = [one["state"] for one in answers]
                assert {*states} <= {"found", "not reached"}
                if states.count("found") == 40:
                    break
    assert [n for n, state in enumerate(states) if state == "not reached"] == [7]


@pytest.mark.anyio
@pytest.mark.parametrize("fault", ["too_many", "throttled"])
async def test_a_batch_under_an_outage_ends_at_its_deadline(
    folder: Path, emulator: Emulator, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    wanted = [{"by": "identity", "key": f"user_{number}"} for number in range(200)]
    use(emulator, monkeypatch)
    async with posting(folder, monkeypatch) as post:
        emulator.faults = {fault: 1}
        status, answers = await post(wanted, 0.5)
        assert status == 200
        assert [one["state"] for one in answers] == ["not reached"] * 200
        # What was cancelled holds nothing up.
        emulator.faults = {}
        status, answers = await post(wanted[:3], PATIENCE)
        assert {one["state"] for one in answers} <= {"found", "not found"}


@pytest.mark.anyio
async def test_refused_credentials_fail_the_whole_batch(
    folder: Path, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(emulator, monkeypatch)
    monkeypatch.setenv("CLEVERTAP_PASSCODE", "wrong")
    wanted = [{"by": "email", "key": "a@example.com"}, {"by": "identity", "key": "7"}]
    async with posting(folder, monkeypatch) as post:
        assert await post(wanted, PATIENCE) == (500, {"detail": "internal error"})


@pytest.mark.anyio
async def test_credentials_that_are_refused_later_fail_the_batch_too(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    person = http(b'{"status":"success","record":{"name":"Ann"}}')
    found = asyncio.Event()

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        if b"identity=7" in head:
            writer.write(person)
            found.set()
        else:
            await found.wait()
            writer.write(http(b'{"status":"fail"}', "401 Unauthorized"))

    wanted = [{"by": "identity", "key": key} for key in ("7", "8")]
    async with scripted(answer) as server:
        set_credentials(monkeypatch, server.url)
        async with posting(folder, monkeypatch) as post:
            assert await post(wanted, PATIENCE) == (500, {"detail": "internal error"})


@pytest.mark.anyio
async def test_a_batch_that_gives_up_early_in_an_outage_names_it(
    folder: Path, tmp_path: Path, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (GUIDES / GUIDE).read_text("utf-8")
    (view,) = re.findall(r"`(session\.with_options\(bulk=False, retry=[^`]+)`", text)
    write_programs(GUIDE, tmp_path)
    program = (tmp_path / "batch.py").read_text("utf-8")
    usual = "session.with_options(bulk=False)"
    assert usual in program
    program = program.replace(usual, view).replace("import Alta", "import Retry, Alta")
    (tmp_path / "batch.py").write_text(program, "utf-8")
    use(emulator, monkeypatch)
    wanted = [{"by": "identity", "key": f"user_{number}"} for number in range(200)]
    async with posting(tmp_path, monkeypatch) as post:
        emulator.faults = {"throttled": 1}
        status, answers = await post(wanted, PATIENCE)
    assert (status, answers) == (200, [{"state": "failed", "detail": "RateLimited"}] * 200)


@pytest.mark.anyio
async def test_answers_come_as_lines_before_the_last_key_is_answered(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_come = asyncio.Event()

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        if b"identity=late" in head:
            await has_come.wait()
        if b"identity=nobody" in head:
            writer.write(http(b'{"status":"success"}'))
        else:
            writer.write(http(b'{"status":"success","record":{"name":"Ann"}}'))

    keys = ["late", 7, "7", " ", "nobody"]
    async with scripted(answer) as server:
        set_credentials(monkeypatch, server.url)
        async with posting_for_lines(folder, monkeypatch) as post:
            async with post("identity", keys, PATIENCE) as response:
                assert response.status == 200
                lines = [json.loads(await response.content.readline()) for _ in range(3)]
                has_come.set()
                lines += [json.loads(line) async for line in response.content]
    assert [one["key"] for one in lines].count("7") == 1
    assert lines[-1]["key"] == "late"
    assert {one["key"]: one["state"] for one in lines} == {
        "late": "found", "7": "found", " ": "invalid", "nobody": "not found",
    }  # fmt: skip
    [invalid] = [one for one in lines if one["state"] == "invalid"]
    assert invalid["detail"].startswith("[3]: empty")


@pytest.mark.anyio
async def test_lines_end_with_the_keys_that_the_deadline_has_left(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scripted(never) as server:
        set_credentials(monkeypatch, server.url)
        async with posting_for_lines(folder, monkeypatch) as post:
            async with post("email", ["a@b.example", "c@d.example"], 0.2) as response:
                lines = [json.loads(line) async for line in response.content]
    assert lines == [
        {"key": "a@b.example", "state": "not reached"},
        {"key": "c@d.example", "state": "not reached"},
    ]


@pytest.mark.anyio
async def test_lines_are_cut_where_credentials_are_refused_amid_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_come = asyncio.Event()

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        if b"identity=7" in head:
            writer.write(http(b'{"status":"success","record":{"name":"Ann"}}'))
        else:
            await has_come.wait()
            writer.write(http(b'{"status":"fail"}', "401 Unauthorized"))

    async with scripted(answer) as server:
        set_credentials(monkeypatch, server.url)
        async with posting_for_lines(folder, monkeypatch) as post:
            async with post("identity", ["7", "8"], PATIENCE) as response:
                assert json.loads(await response.content.readline())["key"] == "7"
                has_come.set()
                with pytest.raises(aiohttp.ClientPayloadError):
                    await response.content.read()
            # At once, they have a status of their own.
            async with post("identity", ["8"], PATIENCE) as response:
                assert response.status == 500


async def never(head: bytes, writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


@asynccontextmanager
async def posting_for_lines(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Callable[[str, list[Any], float], Any]]:
    """Serve the lines of answers of the guide, and yield what asks for those to a list of keys."""
    for name in ("service", "batch"):
        monkeypatch.setitem(sys.modules, name, module(folder, name))
    app = module(folder, "answers").app
    async with answering(app) as url, aiohttp.ClientSession() as client:
        yield lambda by, keys, within: client.post(f"{url}/people/{by}?within={within}", json=keys)


def use(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `Session.from_env` ask an emulator."""
    for name, value in emulator.environment.items():
        monkeypatch.setenv(name, value)


Post = Callable[[list[dict[str, str]], float], Awaitable[tuple[int, Any]]]


@asynccontextmanager
async def posting(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Post]:
    """Serve the batch of the guide, and yield what sends one."""
    # The programs import each other by name.
    monkeypatch.setitem(sys.modules, "service", module(folder, "service"))
    app = module(folder, "batch").app
    async with answering(app) as url, aiohttp.ClientSession() as client:

        async def post(wanted: list[dict[str, Any]], within: float) -> tuple[int, Any]:
            target = f"{url}/people?within={within}"
            async with client.post(target, json=wanted) as response:
                return response.status, await response.json()

        yield post


# ----------------------------------------------------------------------------------------- nightly


DAYS = [f"2026-01-0{number}" for number in range(1, 8)]


@pytest.mark.anyio
async def test_nights_that_failed_are_caught_up_and_no_day_comes_twice(
    folder: Path,
    emulator: Emulator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    program = module(folder, "nightly")
    program.FOLDER.mkdir()
    before = emulator.stats.requests["open_chain"]
    async with Session(clevertap=emulator.clevertap, retry=Retry(attempts=1)) as session:
        emulator.faults = {"server_error": 1}
        await program.bring(session, date(2026, 1, 8))
        assert files_of_nights(tmp_path) == []
        assert len(caplog.messages) == 7
        caplog.clear()
        emulator.faults = {"garbled": 1}
        await program.bring(session, date(2026, 1, 8))
        # A note of the error.
        assert "a proxy or a gateway on the way may change answers" in caplog.text
        emulator.faults = {}
        await program.bring(session, date(2026, 1, 7))
        await program.bring(session, date(2026, 1, 8))
        assert files_of_nights(tmp_path) == ["2025-12-31", *DAYS]
        opened = emulator.stats.requests["open_chain"]
        await program.bring(session, date(2026, 1, 8))
        assert emulator.stats.requests["open_chain"] == opened > before
    for day in DAYS:
        people = (tmp_path / f"nights/app-launched-{day}.ndjson").read_bytes().splitlines()
        number = int(day.replace("-", ""))
        assert len(people) == len(emulator.population.active("App Launched", number, number))


def test_one_worker_brings_the_nights_and_another_goes_on_if_it_is_killed(
    folder: Path, tmp_path: Path
) -> None:
    program = (folder / "nightly.py").read_text("utf-8")
    pause = "SECONDS_BETWEEN_LOOKS = 600"
    assert pause in program
    # Nobody waits for it here.
    shorter = program.replace(pause, "SECONDS_BETWEEN_LOOKS = 0.01")
    (tmp_path / "nightly.py").write_text(shorter, "utf-8")
    command = ["-m", "uvicorn", "nightly:app", "--port", "0"]
    # An odd zone, whose day is never that of UTC around noon.
    zone = {"CLEVERTAP_TIMEZONE": "Pacific/Kiritimati"}
    with emulated(people=20, think=0.1) as emulator:
        env = environment(tmp_path, emulator.environment, zone)
        with ExitStack() as stack:
            first = stack.enter_context(served(command, tmp_path, env))
            wait_until(lambda: emulator.stats.requests["page"] > 0)
            emulator.think = 2 * PATIENCE
            for _ in range(2):
                stack.enter_context(served(command, tmp_path, env))
            assert len(files_of_nights(tmp_path)) < 7
            first.process.kill()
            emulator.think = 0.0
            wait_until(lambda: len(files_of_nights(tmp_path)) == 7)
            days = files_of_nights(tmp_path)
            manifests = [
                tmp_path / f"nights/app-launched-{day}.ndjson.manifest.json" for day in days
            ]
            wait_until(manifests[-1].exists)
            opened = emulator.stats.requests["open_chain"]
        # The one that was killed may have asked for a chain without noting its cursor.
        assert 7 <= opened <= 8
    for day in days:
        people = (tmp_path / f"nights/app-launched-{day}.ndjson").read_bytes().splitlines()
        number = int(day.replace("-", ""))
        assert len(people) == len(emulator.population.active("App Launched", number, number))
    last = datetime.now(ZoneInfo("Pacific/Kiritimati")) - timedelta(hours=2)
    assert days[-1] in {str(last.date() - timedelta(days=n)) for n in (1, 2)}


def nights_of_a_table(folder: Path, to: Path) -> None:
    """Write the program of the nights of a table into a folder, as the guide says to make it."""
    program = (folder / "nightly.py").read_text("utf-8") + block_of(GUIDE, "def last_day()")
    # Nobody waits for it here.
    shorter = program.replace("SECONDS_BETWEEN_LOOKS = 600", "SECONDS_BETWEEN_LOOKS = 0.01")
    assert shorter != program
    (to / "nightly.py").write_text(shorter, "utf-8")


def days_of_the_table(path: Path) -> tuple[set[str], date]:
    """Return the identities of a table, and its last day."""
    with duckdb.connect(path, read_only=True) as connection:
        people = connection.execute("SELECT identity FROM profiles").fetchall()
        [[last]] = connection.execute("SELECT through FROM altaprofiles_sync").fetchall()
    return {identity for (identity,) in people}, last


@pytest.mark.anyio
async def test_a_table_asks_for_the_late_days_once_a_night(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    nights_of_a_table(folder, tmp_path)
    with duckdb.connect("crm.duckdb") as connection:
        connection.execute("CREATE TABLE others (id INT)")
    records = [
        {"identity": f"{day}", "events": {"App Launched": {"count": 1, **seen_on(day)}}}
        for day in range(1, 9)
    ]
    async with (
        Emulator(records=records) as emulator,
        Session(clevertap=emulator.clevertap, retry=Retry(attempts=1)) as session,
    ):
        emulator.faults = {"server_error": 1}
        await module(tmp_path, "nightly").bring(session, date(2026, 1, 8))
        assert "crm.duckdb: " in caplog.text
        emulator.faults = {}
        for today in (8, 9):
            # Another worker, or another version, each time.
            await module(tmp_path, "nightly").bring(session, date(2026, 1, today))
            opened = emulator.stats.requests["open_chain"]
            await module(tmp_path, "nightly").bring(session, date(2026, 1, today))
            # Between midnight and the time for late events.
            await module(tmp_path, "nightly").bring(session, date(2026, 1, today - 1))
            assert emulator.stats.requests["open_chain"] == opened
            everyone = {str(day) for day in range(1, today)}
            table = await asyncio.to_thread(days_of_the_table, tmp_path / "crm.duckdb")
            assert table == (everyone, date(2026, 1, today - 1))


def seen_on(day: int) -> dict[str, int]:
    """Return the times of an event at noon of a day of January, in UTC."""
    noon = int(datetime(2026, 1, day, 12, tzinfo=UTC).timestamp())
    return {"first_seen": noon, "last_seen": noon}


def test_another_worker_brings_the_table_if_the_first_is_killed(
    folder: Path, tmp_path: Path
) -> None:
    nights_of_a_table(folder, tmp_path)
    command = ["-m", "uvicorn", "nightly:app", "--port", "0"]
    zone = {"CLEVERTAP_TIMEZONE": "Pacific/Kiritimati"}
    with emulated(people=20, think=2 * PATIENCE) as emulator:
        env = environment(tmp_path, emulator.environment, zone)
        with served(command, tmp_path, env) as first, served(command, tmp_path, env) as second:
            wait_until(lambda: emulator.stats.in_flight["clevertap"] > 0)
            first.process.kill()
            emulator.think = 0.0
            wait_until(lambda: any("people, up to" in line for line in second.output))
    _, last = days_of_the_table(tmp_path / "crm.duckdb")
    now = datetime.now(ZoneInfo("Pacific/Kiritimati")) - timedelta(hours=2)
    assert last in {now.date() - timedelta(days=days) for days in (1, 2)}


def files_of_nights(folder: Path) -> list[str]:
    """Return the days that have a file, in order."""
    names = sorted(path.name for path in folder.glob("nights/*.ndjson"))
    return [name.removeprefix("app-launched-").removesuffix(".ndjson") for name in names]


@pytest.mark.anyio
async def test_an_hour_begins_with_what_was_left_before_midnight(
    folder: Path,
    postgres: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """That of another account, which writes into the same table, is the other's alone."""
    monkeypatch.chdir(tmp_path)
    text = (folder / "nightly.py").read_text("utf-8") + block_of(GUIDE, "HOURLY = ")
    (tmp_path / "nightly.py").write_text(text, "utf-8")
    program = module(tmp_path, "nightly")
    records = [
        {"identity": f"{day}", "events": {"App Launched": {"count": 1, **seen_on(day)}}}
        for day in range(1, 9)
    ]
    for output in (program.HOURLY, postgres.url("hourly")):
        monkeypatch.setattr(program, "HOURLY", output)
        async with (
            Emulator(records=records) as emulator,
            Emulator(records=records, seed=2) as other,
            Session(clevertap=emulator.clevertap) as session,
        ):
            await asyncio.to_thread(leave_unfinished, other, output)
            others = unfinished_in(output)
            program.OTHERS.update(one.account for one in others)
            await asyncio.to_thread(leave_unfinished, emulator, output)
            for _ in range(2):
                await program.bring(session, date(2026, 1, 8))
                assert unfinished_in(output) == others
    assert caplog.records == []
    with duckdb.connect("hourly.duckdb", read_only=True) as connection:
        in_duckdb = connection.execute("SELECT identity FROM profiles ORDER BY 1").fetchall()
    in_postgres = postgres.rows("SELECT identity FROM hourly ORDER BY 1")
    assert in_duckdb == in_postgres == [("6",), ("7",), ("8",)]


def leave_unfinished(emulator: Emulator, to: str) -> None:
    """Leave the export of the day before, as a kill does after its records have come."""

    def stop(progress: ExportProgress) -> None:
        if progress.records:
            raise KeyError

    async def main() -> None:
        async with Session(clevertap=emulator.clevertap) as session:
            days: dict[str, Any] = {"start": 20260106, "end": 20260107}
            with pytest.raises(KeyError):
                await session.export(
                    "App Launched", **days, to=to, write="upsert", on_progress=stop
                )

    asyncio.run(main())
    assert emulator.clevertap.account_id in {one.account for one in unfinished_in(to)}


# ------------------------------------------------------------------------------------------ health


@pytest.mark.anyio
async def test_health_is_the_last_outcome_of_each_service(
    folder: Path,
) -> None:
    health = module(folder, "health").Health()
    states = []
    secrets = {"now": "first"}

    def passcode() -> str:
        return secrets["now"]

    def note(attempt: Attempt) -> None:
        health.note(attempt)
        states.append(dict(health.faults))

    async with Emulator(people=5) as emulator:
        emulator.passcode = "first"
        credentials = CleverTap(emulator.clevertap.account_id, passcode, base_url=emulator.url)
        async with Session(clevertap=credentials, on_event=note) as session:
            await session.profiles.get(identity="nobody")
            # A good rotation: one request is refused, and sent again.
            secrets["now"] = emulator.passcode = "second"
            await session.profiles.get(identity="nobody")
            assert states == [{}] * 3
            # One that the function does not have.
            emulator.passcode = "third"
            with pytest.raises(Unauthorized):
                await session.profiles.get(identity="nobody")
            assert health.faults == {"CleverTap": "Unauthorized"}
            emulator.faults = {"server_error": 1}
            quick = session.with_options(retry=Retry(attempts=1))
            with pytest.raises(StatusError):
                await quick.profiles.get(identity="nobody")
            # Which says nothing of the secret.
            assert health.faults == {"CleverTap": "Unauthorized"}
            emulator.faults = {}
            emulator.passcode = "second"
            await session.profiles.get(identity="nobody")
            assert health.faults == {}


@pytest.mark.anyio
async def test_health_sees_a_function_of_a_secret_that_fails(
    folder: Path, emulator: Emulator
) -> None:
    program = module(folder, "health")
    secrets = [emulator.passcode]

    def passcode() -> str:
        return secrets.pop()

    secrets.clear()
    credentials = CleverTap(emulator.clevertap.account_id, passcode, base_url=emulator.url)
    attempts: list[Attempt] = []
    on_event = [program.health.note, attempts.append]
    async with Session(clevertap=credentials, on_event=on_event) as session:
        with pytest.raises(MissingCredentials) as missing:
            await session.profiles.get(identity="nobody")
        assert attempts == []
        answer = await program.missing(None, missing.value)
        assert answer.status_code == 500
        assert program.state().status_code == 503
        assert json.loads(program.state().body) == {"CleverTap": "MissingCredentials"}
        secrets.append(emulator.passcode)
        await session.profiles.get(identity="nobody")
        assert program.state().status_code == 200


def test_health_is_asked_for_over_http(folder: Path, emulator: Emulator, tmp_path: Path) -> None:
    env = environment(tmp_path, emulator.environment)
    command = ["-m", "uvicorn", "health:app", "--port", "0"]
    with served(command, folder, env) as service:
        assert service.ask("/health")[:2] == (200, {})


# ----------------------------------------------------------------------------------------- gateway


@pytest.mark.anyio
async def test_a_gateway_with_certificates_and_a_proxy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "company-ca.pem"))
    ours = authority.issue_cert("service.example.com").private_key_and_cert_chain_pem
    ours.write_to_path(str(tmp_path / "service.pem"))
    monkeypatch.chdir(tmp_path)
    example = example_with("def behind_the_gateway")
    example.evaluate()
    make = example.namespace["behind_the_gateway"]
    person = http(b'{"status":"success","record":{"identity":"7"}}')
    async with listening(Scripted(always(person)), context) as port, tunnel() as (proxy, heads):
        monkeypatch.setenv("CLEVERTAP_ACCOUNT_ID", "ACCOUNT")
        monkeypatch.setenv("CLEVERTAP_PASSCODE", "PASSCODE")
        monkeypatch.setenv("CLEVERTAP_BASE_URL", f"https://127.0.0.1:{port}")
        async with make(f"http://ann:s3cret@{proxy}") as session:
            assert (await session.profiles.get(identity="7")).identity == "7"
    assert len(heads) == 1
