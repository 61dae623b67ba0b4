"""A loopback server of both APIs that writes bytes, and one fault at a time.

It has no HTTP library under it and no task of its own: whatever is written, in whatever pieces, is
what a fault says. It runs in the event loop of its client, so that neither is ever ahead.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from enum import Enum
from typing import NamedTuple, TypeAlias, cast

import aiohttp

from .account import Reply, answer

__all__ = ["End", "Exchange", "Fault", "Idle", "Steps", "WireServer", "blunt", "serving"]


class End(Enum):
    """Ways to be through with a connection."""

    CLOSE = "close"
    RESET = "reset"
    HOLD = "hold"
    """Left open, and never heard of again."""


class Idle(NamedTuple):
    """Bytes to write once the connection is idle; never while a request is on its way."""

    data: bytes


class Exchange(NamedTuple):
    """A request, and the answer that it should get."""

    target: str
    reply: Reply


Steps: TypeAlias = Iterator[bytes | float | End | Idle]
"""The bytes written for one request. A float is a pause in seconds; 0 ends a segment."""


class Fault(NamedTuple):
    """One way to fail.

    Attributes:
        name: readable, as a part of a test's ID.
        steps: what is written instead of the answer.
        outcome: "read" if the answer counts all the same, even if every answer is like it; "right"
            if a call still has to bring everything when one answer is like it; "error" if it has
            to raise; "either" if both will do.
        slow: whether only a time limit of the client ends it.
    """

    name: str
    steps: Callable[[Exchange], Steps]
    outcome: str = "either"
    slow: bool = False


class WireServer:
    """Answers requests. Arm it, and one answer is a fault.

    Attributes:
        requests: the request lines received.
        opened: how many connections there have been.
        struck: how many faults have been carried out.
        sent: how many requests the client has written, as far as it is watched.
    """

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.opened = 0
        self.struck = 0
        self.sent = 0
        self.port = 0
        self.connections: set[_Connection] = set()
        self._fault: Fault | None = None
        self._at = 0
        self._times = 0
        self._greeting = b""
        self._pick: Callable[[], Fault | None] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def arm(self, fault: Fault, *, at: int = 1, times: int = 1) -> None:
        """Let the answer to the request number `at` from now, and `times` in all, be a fault."""
        self._fault, self._at, self._times = fault, at, times

    def haunt(self, pick: Callable[[], Fault | None]) -> None:
        """Let `pick` choose the fault of each answer from now on, or None for none."""
        self._pick = pick

    def greet(self, data: bytes) -> None:
        """Write `data` to each new connection before anything was asked."""
        self._greeting = data

    def disarm(self) -> None:
        self._fault, self._pick, self._greeting = None, None, b""

    def write_to_idle(self, data: bytes) -> int:
        """Write `data` to all connections that wait for a request; return how many do."""
        idle = [one for one in self.connections if one.is_idle]
        for one in idle:
            one.write_at_once(data)
        return len(idle)

    def watch(self) -> aiohttp.TraceConfig:
        """Return a trace for the client, by which the requests that it writes are counted."""
        trace = aiohttp.TraceConfig()

        async def count(*_: object) -> None:
            self.sent += 1

        trace.on_request_headers_sent.append(count)
        return trace

    def steps(self, exchange: Exchange) -> Steps:
        if self._fault is not None:
            self._at -= 1
            if self._at < 1 and self._times > 0:
                self._times -= 1
                self.struck += 1
                return self._fault.steps(exchange)
        if self._pick is not None and (fault := self._pick()) is not None:
            self.struck += 1
            return fault.steps(exchange)
        return iter((exchange.reply.whole,))

    def greeting(self) -> bytes:
        self.struck += self._greeting != b""
        return self._greeting


class _Connection(asyncio.Protocol):
    transport: asyncio.Transport

    def __init__(self, server: WireServer) -> None:
        self._server = server
        self._received = b""
        self._busy = False
        self._steps: Steps = iter(())
        self._resumed: Callable[[], None] | None = None
        self._is_full = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclass of it.
        self.transport = cast(asyncio.Transport, transport)
        self._server.connections.add(self)
        self._server.opened += 1
        if greeting := self._server.greeting():
            self.transport.write(greeting)

    def connection_lost(self, error: Exception | None) -> None:
        self._server.connections.discard(self)
        self._steps = iter(())

    def data_received(self, data: bytes) -> None:
        self._received += data
        self._next()

    def pause_writing(self) -> None:
        self._is_full = True

    def resume_writing(self) -> None:
        self._is_full = False
        if self._resumed is not None:
            resumed, self._resumed = self._resumed, None
            resumed()

    @property
    def is_idle(self) -> bool:
        """Whether no request has been sent, not even one that was not read yet."""
        if self._busy or self._received or self.transport.is_closing():
            return False
        # A request may wait in the client's own buffer, where no socket shows it.
        if self._server.sent > len(self._server.requests):
            return False
        number = self.transport.get_extra_info("socket").fileno()
        return not select.select([number], [], [], 0)[0]

    def _next(self) -> None:
        head, found, rest = self._received.partition(b"\r\n\r\n")
        if self._busy or not found:
            return
        length = 0
        for line in head.split(b"\r\n"):
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        if len(rest) < length:
            return
        self._received = rest[length:]
        request = head.split(b"\r\n", 1)[0].decode()
        self._server.requests.append(request)
        method, target, _ = request.split(" ")
        exchange = Exchange(target, answer(method, target, rest[:length]))
        self._busy = True
        self._steps = self._server.steps(exchange)
        self._play()

    def _play(self) -> None:
        loop = asyncio.get_running_loop()
        for step in self._steps:
            if self.transport.is_closing():
                return
            if isinstance(step, bytes):
                self.transport.write(step)
                if self._is_full:
                    self._resumed = self._play
                    return
            elif isinstance(step, float):
                loop.call_later(step, self._play)
                return
            elif isinstance(step, Idle):
                self._busy = False
                loop.call_later(0.001, self._write_when_idle, step.data)
                break
            else:
                end(self.transport, step)
                return
        self._busy = False
        self._next()

    def _write_when_idle(self, data: bytes) -> None:
        if self.is_idle:
            self.write_at_once(data)

    def write_at_once(self, data: bytes) -> None:
        """Write to a connection that is idle.

        Some versions of uvloop write at the end of a turn, when the client's request may be on its
        way.
        """
        written = 0
        # Bytes of TLS are made by the transport. A client that has gone is its affair as well.
        if self.transport.get_extra_info("ssl_object") is None:
            with suppress(OSError):
                number = self.transport.get_extra_info("socket").fileno()
                written = os.write(number, data)
        self.transport.write(data[written:])


def end(transport: asyncio.Transport, way: End) -> None:
    """End a connection."""
    if way is End.CLOSE:
        transport.close()
    elif way is End.RESET:
        linger = struct.pack("ii", 1, 0)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        # What was written before is sent first.
        asyncio.get_running_loop().call_later(0.001, transport.abort)


@asynccontextmanager
async def serving(context: ssl.SSLContext | None = None) -> AsyncIterator[WireServer]:
    """Serve the account on a free port of 127.0.0.1."""
    server = WireServer()
    listener = await asyncio.get_running_loop().create_server(
        lambda: _Connection(server), "127.0.0.1", 0, ssl=context
    )
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        for connection in [*server.connections]:
            connection.transport.abort()
        while server.connections:
            await asyncio.sleep(0)
        await listener.wait_closed()


class _Blunt(asyncio.Protocol):
    """Writes the same bytes to whoever comes, and ends."""

    def __init__(self, data: bytes, way: End, at_once: bool, met: list[bytes]) -> None:
        self._data, self._way, self._at_once, self._met = data, way, at_once, met

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self._at_once:
            self._met.append(b"")
            self._answer()

    def data_received(self, data: bytes) -> None:
        if not self._at_once:
            self._met.append(data)
            self._answer()

    def _answer(self) -> None:
        if self._data:
            self._transport.write(self._data)
        end(self._transport, self._way)


@asynccontextmanager
async def blunt(
    data: bytes, way: End, *, at_once: bool = False
) -> AsyncIterator[tuple[int, list[bytes]]]:
    """Serve `data` to every connection, and end it; at once, or when something was received.

    Yields:
        The port, and what was received on each connection.
    """
    met: list[bytes] = []
    made: list[_Blunt] = []

    def factory() -> _Blunt:
        made.append(_Blunt(data, way, at_once, met))
        return made[-1]

    listener = await asyncio.get_running_loop().create_server(factory, "127.0.0.1", 0)
    try:
        yield listener.sockets[0].getsockname()[1], met
    finally:
        listener.close()
        for one in made:
            one._transport.abort()  # noqa: SLF001
        await listener.wait_closed()
