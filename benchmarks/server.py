"""Both services on loopback for one benchmark: `python -m benchmarks.server SHAPE`.

Runs in its own process on the last core and prints its port. It ends when its stdin closes, so that
no process is left over when a benchmark is killed. It speaks raw HTTP/1.1 on an asyncio protocol
with every answer built beforehand, so that the client is the bottleneck. `GET /stats` returns the
counts (`Seen`).
"""

from __future__ import annotations

import asyncio
import os
import re
import selectors
import socket
import struct
import sys
from collections import deque
from random import Random

import msgspec

from .answers import Answer, Answers, Shape
from .ledger import Ledger

_HEAD_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"(?i)\ncontent-length: *(\d+)")
_UNTHROTTLED_PIECE = 1 << 18
_PIECES_PER_SECOND = 1000
_AWAKE = 0.001
_LOOKUPS = frozenset({"get_profile", "get_user_cdp"})


class Connection(asyncio.Protocol):
    """One keep-alive connection, one request at a time."""

    def __init__(self, shape: Shape, answers: Answers, ledger: Ledger, dice: Random) -> None:
        self._shape = shape
        self._answers = answers
        self._ledger = ledger
        self._dice = dice
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._counted = False
        self._answer: Answer | None = None
        self._left: deque[tuple[int, bytes | memoryview]] = deque()
        self._began = 0.0
        self._paused: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        # With this limit, writing is resumed once the kernel has every byte: only then does an
        # answer count as sent.
        transport.set_write_buffer_limits(high=0)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if not self._received and not data.startswith(b"GET /stats"):
            self._ledger.began(self._loop.time())
            self._counted = True
        self._received += data
        head, found, body = self._received.partition(_HEAD_END)
        if not found or len(body) < (int(sized[1]) if (sized := _LENGTH.search(head)) else 0):
            return
        self._received = b""
        if not self._counted:
            self._send_stats()
            return
        method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
        answer = self._answer = self._answers.answer(method, target, head, body)
        self._ledger.understood(answer.operation, answer.cursor)
        resets = self._shape.resets
        if resets and answer.operation in _LOOKUPS and self._dice.random() < resets:
            self._reset(answer)
            return
        # The answer is timed from the moment it is due, so that a late timer does not slow it.
        self._began = self._loop.time() + self._shape.think
        if self._shape.think:
            self._timer = self._loop.call_at(self._began - _AWAKE, self._start)
        else:
            self._start()

    def pause_writing(self) -> None:
        self._paused = self._loop.time()

    def resume_writing(self) -> None:
        if self._paused is not None:
            # The schedule moves by the pause: a link that was full does not catch up.
            self._began += self._loop.time() - self._paused
            self._paused = None
        self._go_on()

    def connection_lost(self, error: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._left.clear()
        if self._counted:
            self._ended(0)

    def _reset(self, answer: Answer) -> None:
        """Send half of an answer, and reset the connection (RST)."""
        assert self._transport is not None
        self._ledger.reset()
        self._transport.write(answer.head[: len(answer.head) - answer.size // 2])
        connection: socket.socket = self._transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    def _start(self) -> None:
        if self._loop.time() < self._began:
            # Poll for the last moment: a sleeping core wakes late, by some 2 % of a wait of 30 ms.
            self._timer = self._loop.call_later(0, self._start)
            return
        answer, rate = self._answer, self._shape.rate
        assert answer is not None
        piece = _UNTHROTTLED_PIECE if rate is None else max(1, int(rate / _PIECES_PER_SECOND))
        sent = len(answer.head)
        self._left.append((sent, answer.head))
        for part in (answer.middle, answer.end):
            view = memoryview(part)
            for start in range(0, len(part), piece):
                self._left.append(
                    (sent + min(start + piece, len(part)), view[start : start + piece])
                )
            sent += len(part)
        self._go_on()

    def _go_on(self) -> None:
        """Write the pieces that are due on a schedule from the answer's start, without drift."""
        assert self._transport is not None
        rate = self._shape.rate
        while self._left and self._paused is None:
            sent, piece = self._left[0]
            if rate is not None and (due := self._began + sent / rate) > self._loop.time():
                self._timer = self._loop.call_at(due, self._go_on)
                return
            self._left.popleft()
            self._transport.write(piece)
        if self._paused is None and self._answer is not None:
            self._ended(self._answer.size)

    def _ended(self, size: int) -> None:
        answer, self._answer = self._answer, None
        self._counted = False
        self._ledger.ended(self._loop.time(), None if answer is None else answer.cursor, size)

    def _send_stats(self) -> None:
        assert self._transport is not None
        body = msgspec.json.encode(self._ledger.seen())
        self._transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        )


async def serve(shape: Shape) -> None:
    """Serve on a free port of 127.0.0.1 until stdin closes."""
    loop = asyncio.get_running_loop()
    answers, ledger, dice = Answers(shape), Ledger(), Random(0)  # noqa: S311
    server = await loop.create_server(
        lambda: Connection(shape, answers, ledger, dice), "127.0.0.1", 0
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    ended = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), ended.set)
    await ended.wait()
    server.close()


def main() -> None:
    """Serve the shape given as JSON on the command line."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    shape = msgspec.json.decode(sys.argv[1], type=Shape)
    # epoll rounds waits up to whole milliseconds, and a page at full speed may take no longer. For
    # many requests without a wait it is faster.
    waits = shape.think > 0 or shape.rate is not None
    selector = selectors.SelectSelector() if waits else selectors.DefaultSelector()
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
        runner.run(serve(shape))


if __name__ == "__main__":
    main()
