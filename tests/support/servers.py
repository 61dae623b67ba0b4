"""Loopback servers: of raw bytes, and what stands between a client and another server."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit


async def read_request(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Return a request's head, the empty line included, and its body."""
    head = await reader.readuntil(b"\r\n\r\n")
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return head, await reader.readexactly(int(value))
    return head, b""


class Scripted:
    """A loopback server of raw HTTP: `answer` gets each request's bytes and writes any answer.

    Attributes:
        url: the base URL.
        heads: the request line and headers of every request, as received.
        bodies: the body of every request.
    """

    def __init__(self, answer: Answer) -> None:
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []
        self.url = ""
        self._answer = answer
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def request_lines(self) -> list[str]:
        return [head.split(b"\r\n", 1)[0].decode() for head in self.heads]

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while True:
                head, body = await read_request(reader)
                self.heads.append(head)
                self.bodies.append(body)
                await self._answer(head, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def aclose(self) -> None:
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections)


Answer = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def scripted(answer: Answer) -> AsyncIterator[Scripted]:
    """Serve `answer` on a free port of 127.0.0.1."""
    served = Scripted(answer)
    server = await asyncio.start_server(served, "127.0.0.1", 0, limit=1 << 20)
    served.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield served
    finally:
        server.close()
        await served.aclose()
        await server.wait_closed()


def http(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    """Return a complete HTTP/1.1 response."""
    head = "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers])
    return head.encode() + b"\r\n\r\n" + body


def always(response: bytes) -> Answer:
    """Return an answer that is the same to every request."""

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(response)

    return answer


def in_turn(*responses: bytes) -> Answer:
    """Return an answer that takes each of `responses` in turn, and then repeats the last."""
    left = list(responses)

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(left.pop(0) if len(left) > 1 else left[0])

    return answer


# ------------------------------------------------------------------------------ between two others


@asynccontextmanager
async def listening(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    context: ssl.SSLContext | None = None,
) -> AsyncIterator[int]:
    """Serve every connection to a free port, and give the port."""
    tasks: list[asyncio.Task[None] | None] = []

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.append(asyncio.current_task())
        with suppress(asyncio.CancelledError, asyncio.IncompleteReadError, OSError):
            await serve(reader, writer)
        writer.close()

    server = await asyncio.start_server(one, "127.0.0.1", 0, ssl=context)
    async with server:
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            for task in filter(None, tasks):
                task.cancel()
            await asyncio.gather(*filter(None, tasks))


async def join(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, port: int | None
) -> None:
    """Pass bytes on between a connection and a new one, both ways, until either ends."""
    other_reader, other_writer = await asyncio.open_connection(host, port)

    try:
        await asyncio.gather(pump(reader, other_writer), pump(other_reader, writer))
    finally:
        other_writer.close()


async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Pass bytes on until their source ends, and end there."""
    with suppress(OSError):
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
    sink.close()


@asynccontextmanager
async def tunnel(
    status: str = "200 OK", context: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[str, list[str]]]:
    """Serve a proxy for TLS on a free port.

    Args:
        status: its answer to CONNECT; only with 200 it passes bytes on.
        context: for a proxy that is itself reached by TLS.

    Yields:
        Its host and port, and the heads of its requests.
    """
    heads: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head, _ = await read_request(reader)
        heads.append(head.decode())
        writer.write(f"HTTP/1.1 {status}\r\n\r\n".encode())
        if status.startswith("200"):
            host, _, port = heads[-1].split()[1].rpartition(":")
            await join(reader, writer, host, int(port))

    async with listening(serve, context) as port:
        yield f"127.0.0.1:{port}", heads


@asynccontextmanager
async def gated(
    url: str, target: bytes, *, passing: int, holding: int
) -> AsyncIterator[tuple[str, asyncio.Event]]:
    """Serve a gate on a free port: it passes requests on to another server, and holds some.

    Args:
        url: the other server's base URL.
        target: how the requests begin that may be held, such as b"GET /1/profile.json".
        passing: how many of these pass before the next one is held.
        holding: how many are held; then all pass.

    Yields:
        The gate's base URL, and what opens it for all requests when it is set.
    """
    place = urlsplit(url)
    opened = asyncio.Event()
    seen = 0

    async def pass_on(reader: asyncio.StreamReader, other: asyncio.StreamWriter) -> None:
        nonlocal seen
        with suppress(asyncio.IncompleteReadError, OSError):
            while True:
                head, body = await read_request(reader)
                if head.startswith(target):
                    seen += 1
                    if passing < seen <= passing + holding:
                        await opened.wait()
                        if reader.at_eof():
                            break
                other.write(head + body)
                await other.drain()
        other.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, other = await asyncio.open_connection(place.hostname, place.port)
        try:
            await asyncio.gather(pass_on(reader, other), pump(answers, writer))
        finally:
            other.close()

    async with listening(serve) as port:
        yield f"http://127.0.0.1:{port}", opened


class Closed:
    """A port at which nobody listens, and nobody else can, until it opens as another server.

    Attributes:
        url: the base URL.
    """

    def __init__(self, bound: socket.socket) -> None:
        self.url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        self._bound = bound
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def open(self, url: str) -> None:
        """Pass every connection on to another server."""
        place = urlsplit(url)

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._tasks.add(task)
            with suppress(asyncio.CancelledError, OSError):
                await join(reader, writer, str(place.hostname), place.port)
            writer.close()

        self._server = await asyncio.start_server(serve, sock=self._bound)

    async def aclose(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks)


@asynccontextmanager
async def closed() -> AsyncIterator[Closed]:
    """Give a closed port of 127.0.0.1."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = Closed(bound)
        try:
            yield port
        finally:
            await port.aclose()
