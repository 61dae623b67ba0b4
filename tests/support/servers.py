"""A loopback server whose answers are raw bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager


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
                head = await reader.readuntil(b"\r\n\r\n")
                body = b""
                for line in head.split(b"\r\n"):
                    name, _, value = line.partition(b":")
                    if name.lower() == b"content-length":
                        body = await reader.readexactly(int(value))
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
