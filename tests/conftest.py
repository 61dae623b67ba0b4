"""What the tests share: settings that do not wait, and a server that says whatever it is told."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import anyio
import pytest

from altaprofiles import Retry

from .postgres import Server, binaries, serving

QUICK = Retry(base_delay=0.001, max_delay=0.01)
"""Retries as many times as the default does, without the waiting."""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    programs = binaries()
    if programs is None:
        reason = "no PostgreSQL server is installed: apt-get install postgresql"
        if os.environ.get("ALTAPROFILES_TEST_POSTGRES") == "required":
            pytest.fail(reason)
        pytest.skip(reason)
    # Not in pytest's own folder, which the server's user may not enter.
    with tempfile.TemporaryDirectory(prefix="altaprofiles-") as folder:
        with serving(programs, Path(folder)) as server:
            yield server


T = TypeVar("T")


def whole(slices: Generator[None, None, T]) -> T:
    """Return what comes out at the end of `slices`."""
    while True:
        try:
            next(slices)
        except StopIteration as done:
            value: T = done.value
            return value


class Scripted:
    """A loopback server of raw HTTP: `answer` gets each request's bytes and writes what it likes.

    Attributes:
        url: its base URL.
        heads: request line and headers of every request, as they came.
        bodies: what came behind each of those.
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
    """Return an answer that is the same for every request."""

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(response)

    return answer


def in_turn(*responses: bytes) -> Answer:
    """Return an answer that goes through `responses` and stays with the last."""
    left = list(responses)

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(left.pop(0) if len(left) > 1 else left[0])

    return answer


@asynccontextmanager
async def nothing_left_behind() -> AsyncIterator[None]:
    """Wait, within reason, until every task that was started inside has ended."""
    before = asyncio.all_tasks()
    yield
    with anyio.fail_after(20):
        while any(map(_is_ours, asyncio.all_tasks() - before)):
            await asyncio.sleep(0.001)


async def end_midway(
    way: str, ending: list[Callable[[], object]], work: Callable[[], Coroutine[Any, Any, object]]
) -> None:
    """Run `work`, which calls `ending[0]` on its way, and ends as that `way` of cancelling does.

    Args:
        way: "task", "scope" or "timeout".
    """
    if way == "task":
        task = asyncio.ensure_future(work())
        ending.append(task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()
    elif way == "scope":
        with anyio.CancelScope() as scope:
            ending.append(scope.cancel)
            await work()
        assert scope.cancelled_caught
    else:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(None) as timeout:
                ending.append(lambda: timeout.reschedule(0))
                await work()


def _is_ours(task: asyncio.Task[Any]) -> bool:
    # The emulator's side of a connection that is kept for the next request is none of ours.
    return getattr(task.get_coro(), "__qualname__", "") != "RequestHandler.start"


_RUNNING: set[asyncio.Future[None]] = set()


def spawn(
    job: Callable[[], Awaitable[None]], ended: Callable[[BaseException | None], None]
) -> Callable[[], None]:
    """Run `job` in a task: what a session's engine does for chains and fan-outs."""

    scope = anyio.CancelScope()

    async def run() -> None:
        error: BaseException | None = None
        with scope:
            try:
                await job()
            except Exception as failure:
                error = failure
            ended(error)

    # The loop itself refers to tasks weakly.
    task = asyncio.ensure_future(run())
    _RUNNING.add(task)
    task.add_done_callback(_RUNNING.discard)
    return scope.cancel
