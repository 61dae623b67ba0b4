"""Bytes that no request asked for: no answer is ever taken for that of another request."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import os
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import anyio
import pytest
import trustme

from altaprofiles import AltaProfilesError, CleverTap, Retry, Session, TransportError

from ..support.servers import http, listening, read_request, scripted, tunnel
from ..support.tasks import PATIENCE, nothing_left_behind

pytestmark = [pytest.mark.anyio, pytest.mark.each_value]

ONCE = Retry(attempts=1)
KEYS = ["good1", "good2", "good3", "good4"]


@pytest.fixture(params=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


def session_for(url: str, retry: Retry = ONCE) -> Session:
    return Session(clevertap=CleverTap("ACCOUNT", "pass-4711", base_url=url), retry=retry)


def record(key: str) -> bytes:
    return b'{"status":"success","record":{"identity":"%b"}}' % key.encode()


def asked(head: bytes) -> str:
    return unquote(head.split(b" ")[1].partition(b"=")[2].decode())


async def flood(writer: asyncio.StreamWriter, data: bytes) -> None:
    with contextlib.suppress(ConnectionError):
        while not writer.is_closing():
            writer.write(data)
            await writer.drain()


def chunked(body: bytes, trailers: bytes = b"") -> bytes:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"%x\r\n%b\r\n0\r\n%b\r\n" % (len(body), body, trailers)


BODIES: dict[str, Callable[[bytes], bytes]] = {
    "length": http,
    "chunked": chunked,
    "trailers": lambda body: chunked(body, b"X-Trailer: 0\r\n"),
    "smuggled": lambda body: chunked(body, b"Date: HTTP/1.1 200 OK\r\nX-Y: Z\r\n"),
    "gzip": lambda body: http(gzip.compress(body), "200 OK", "Content-Encoding: gzip"),
    "megabytes": lambda body: http(body + b" " * 3_000_000),
    "bare LF": lambda body: b"HTTP/1.1 200 OK\nContent-Length: %d\n\n%b" % (len(body), body),
    "CR only in the empty line": lambda body: (
        b"HTTP/1.1 200 OK\nContent-Length: %d\n\r\n%b" % (len(body), body)
    ),
    "interim": lambda body: b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 3 + http(body),
}

WRONG = record("wrong")
EXTRAS = {
    "an answer": http(WRONG),
    "a chunked answer": chunked(WRONG),
    "two answers": http(WRONG) + http(WRONG),
    "an answer without a body": http(b"", "404 Not Found"),
    "an answer until the end": b"HTTP/1.1 200 OK\r\n\r\n" + WRONG,
    "half a head": b"HTTP/1.1 200 OK\r\nContent-Le",
    "half a body": http(WRONG)[:-9],
    "an interim answer": b"HTTP/1.1 103 Early Hints\r\n\r\n",
    "a line end": b"\r\n",
    "one byte": b"\0",
    "a body": WRONG,
    "another chunk": b"5\r\nhello\r\n0\r\n\r\n",
    "a switch": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\nhello",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("together", [True, False], ids=["same packet", "later"])
async def test_bytes_behind_an_answer_end_the_connection_and_nothing_else(
    together: bool, body: Callable[[bytes], bytes]
) -> None:
    extras = list(EXTRAS.values())
    written = asyncio.Event()
    connections: list[asyncio.StreamWriter] = []

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        extra = extras[len(connections)]
        connections.append(writer)
        if together:
            writer.write(body(record(asked(head))) + extra)
        else:
            writer.write(body(record(asked(head))))
            await writer.drain()
            writer.write(extra)
        written.set()

    async with scripted(answer) as server, session_for(server.url) as session:
        for key in EXTRAS:
            written.clear()
            person = await session.profiles.get(identity=key)
            assert person is not None, key
            assert person.identity == key
            await written.wait()
        assert session.stats.requests == len(EXTRAS)
    assert len(set(connections)) == len(EXTRAS)


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified", "404 Not Found"])
async def test_bytes_behind_an_answer_without_a_body_are_dropped(status: str) -> None:
    extras = iter(EXTRAS.values())

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        if asked(head) == "empty":
            empty = f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode()
            writer.write(empty + next(extras))
        else:
            writer.write(http(record(asked(head))))

    async with scripted(answer) as server, session_for(server.url) as session:
        for key in EXTRAS:
            with contextlib.suppress(AltaProfilesError):
                assert await session.profiles.get(identity="empty") is None
            person = await session.profiles.get(identity=key)
            assert person is not None
            assert person.identity == key


@pytest.mark.parametrize("trailer", ["Content-Length: 5", "Transfer-Encoding: chunked", "no name"])
async def test_trailers_that_are_not_http_are_never_waited_for(trailer: str) -> None:
    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(chunked(record(asked(head)), f"{trailer}\r\n".encode()) + EXTRAS["an answer"])

    async with scripted(answer) as server, session_for(server.url) as session:
        for key in KEYS:
            with anyio.fail_after(PATIENCE), contextlib.suppress(TransportError):
                person = await session.profiles.get(identity=key)
                assert person is not None
                assert person.identity == key


async def test_an_answer_that_is_exact_keeps_its_connection() -> None:
    forms = ["length", "chunked", "gzip", "megabytes", "bare LF", "interim"]
    connections = []

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        body = BODIES[forms[len(connections) % len(forms)]](record(asked(head)))
        # Byte by byte where it matters: in the head, and at the end.
        start, end = min(120, len(body) - 9), len(body) - 9
        single = [body[at : at + 1] for at in (*range(start), *range(end, len(body)))]
        for piece in (*single[:start], body[start:end], *single[start:]):
            writer.write(piece)
            await asyncio.sleep(0)

    async with scripted(answer) as server, session_for(server.url) as session:
        for number in range(3 * len(forms)):
            person = await session.profiles.get(identity=str(number))
            assert person is not None
            assert person.identity == str(number)
    assert len(set(connections)) == 1


# ----------------------------------------------------------------- servers that run beside the loop


@contextmanager
def beside(serve: Callable[[socket.socket], None]) -> Iterator[str]:
    """Serve each connection in a thread of its own, and give the base URL."""

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listening.accept()
                connections.append(connection)
                threads.append(threading.Thread(target=one, args=[connection]))
                threads[-1].start()

    def one(connection: socket.socket) -> None:
        connection.settimeout(PATIENCE)
        with connection, contextlib.suppress(OSError):
            serve(connection)

    connections: list[socket.socket] = []
    threads: list[threading.Thread] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            accepting.join(PATIENCE)
            for connection in connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join(PATIENCE)


def received(connection: socket.socket) -> bytes:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        if not (data := connection.recv(65536)):
            raise ConnectionError
        head += data
    return head


async def test_bytes_that_arrive_while_the_loop_is_blocked_are_found_before_the_next_request() -> (
    None
):
    answered, go_on, written = threading.Event(), threading.Event(), threading.Event()

    def serve(connection: socket.socket) -> None:
        while True:
            connection.sendall(http(record(asked(received(connection)))))
            answered.set()
            go_on.wait(PATIENCE)
            go_on.clear()
            connection.sendall(http(WRONG))
            written.set()

    with beside(serve) as url:
        async with session_for(url) as session:
            for key in KEYS:
                person = await session.profiles.get(identity=key)
                assert person is not None
                assert person.identity == key
                go_on.set()
                # The caller's own work: the loop does not run until the next request.
                assert written.wait(PATIENCE)
                written.clear()


async def test_a_flood_on_an_idle_connection_is_not_read() -> None:
    sent = 0
    refused = threading.Event()

    def serve(connection: socket.socket) -> None:
        nonlocal sent
        connection.sendall(http(record(asked(received(connection)))))
        try:
            while sent < 256 << 20:
                connection.sendall(b"x" * (1 << 20))
                sent += 1 << 20
        finally:
            refused.set()

    with beside(serve) as url:
        async with session_for(url) as session:
            assert await session.profiles.get(identity="7") is not None
            assert await anyio.to_thread.run_sync(refused.wait, PATIENCE)
    # What the system itself buffers for a connection.
    assert sent < 32 << 20


@pytest.mark.parametrize("status", ["100 Continue", "102 Processing", "103 Early Hints"])
async def test_a_flood_of_interim_answers_ends_the_call(status: str) -> None:
    interim = f"HTTP/1.1 {status}\r\n\r\n".encode()

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        if asked(head) == "flooded":
            await flood(writer, interim * 1000)
            return
        writer.write(interim * 10 + http(record(asked(head))))

    async with nothing_left_behind(), scripted(answer) as server:
        async with session_for(server.url) as session:
            for key in KEYS:
                with pytest.raises(TransportError, match="headers"):
                    await session.profiles.get(identity="flooded")
                person = await session.profiles.get(identity=key)
                assert person is not None
                assert person.identity == key


async def test_a_protocol_that_was_not_asked_for_is_an_error() -> None:
    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(EXTRAS["a switch"])

    async with scripted(answer) as server, session_for(server.url) as session:
        with pytest.raises(TransportError, match="HTTP 101"):
            await session.profiles.get(identity="7")


@pytest.mark.parametrize("size", [8_190, 16_000, 65_536])
async def test_large_headers_are_read(size: int) -> None:
    large = "X-Large: " + "a" * size
    many = [f"X-{number}: {'a' * 100}" for number in range(size // 107)]

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        fields = [large] if asked(head) == "large" else many
        writer.write(http(record(asked(head)), "200 OK", *fields))

    async with scripted(answer) as server, session_for(server.url) as session:
        for key in ("large", "many"):
            person = await session.profiles.get(identity=key)
            assert person is not None
            assert person.identity == key


@pytest.mark.slow
@pytest.mark.parametrize("line", [b"X: y\r\n", b"X: " + b"y" * 50_000 + b"\r\n", b"x" * 4096])
async def test_endless_headers_are_an_error(line: bytes) -> None:
    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        await flood(writer, line)

    async with scripted(answer) as server, session_for(server.url) as session:
        with pytest.raises(TransportError):
            await session.profiles.get(identity="7")


# ----------------------------------------------------------------------------- through TLS, proxies

GETS = """
import asyncio, sys
from altaprofiles import CleverTap, Retry, Session

async def main():
    account = CleverTap("ACCOUNT", "pass-4711", base_url=sys.argv[1])
    async with Session(clevertap=account, retry=Retry(attempts=1), trust_env=True) as session:
        for key in ("good1", "good2", "good3"):
            person = await session.profiles.get(identity=key)
            print(person.identity, flush=True)
            await asyncio.to_thread(sys.stdin.readline)

if sys.argv[2] == "uvloop":
    import uvloop
    uvloop.run(main())
else:
    asyncio.run(main())
"""


@pytest.mark.parametrize("proxied", [False, True], ids=["direct", "proxy"])
@pytest.mark.parametrize("together", [True, False], ids=["same packet", "later"])
async def test_no_answer_is_taken_for_another_through_tls(
    proxied: bool, together: bool, tmp_path: Path
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    loop = "uvloop" if "uvloop" in type(asyncio.get_running_loop()).__module__ else "asyncio"
    process: anyio.abc.Process

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head, _ = await read_request(reader)
        writer.write(http(record(asked(head))) + (EXTRAS["an answer"] if together else b""))
        await writer.drain()
        if not together:
            writer.write(EXTRAS["an answer"])
        with contextlib.suppress(OSError):
            # Until the client has closed the connection.
            await reader.read()
        assert process.stdin is not None
        await process.stdin.send(b"\n")

    async with contextlib.AsyncExitStack() as stack:
        port = await stack.enter_async_context(listening(serve, context))
        proxy, _ = await stack.enter_async_context(tunnel()) if proxied else ("", [])
        env = {
            name: value for name, value in os.environ.items() if not name.lower().endswith("proxy")
        } | {"SSL_CERT_FILE": str(tmp_path / "ca.pem"), "HTTPS_PROXY": proxy}
        process = await anyio.open_process(
            [sys.executable, "-c", GETS, f"https://localhost:{port}", loop], env=env, stderr=None
        )
        async with process:
            with anyio.fail_after(PATIENCE):
                assert process.stdout is not None
                printed = b"".join([data async for data in process.stdout])
    assert printed.split() == [b"good1", b"good2", b"good3"]
