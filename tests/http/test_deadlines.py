"""Time limits of an attempt: they end the attempts they should, and nothing else.

A clock that jumps runs them: a limit of 0.2 s expires after 0.2 s of idleness, on any machine.
"""

from __future__ import annotations

import asyncio
import gc
import gzip
import socket
import threading
import weakref
from typing import Any

import aiohttp
import anyio
import pytest

from altaprofiles import Attempt, CleverTap, Profile, RequestTimeout, Retry, Session, Timeout
from altaprofiles.http.deadlines import Deadlines

from ..support.clock import Clock
from ..support.servers import Answer, Scripted, http, scripted
from ..support.tasks import PATIENCE, nothing_left_behind

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("clock")]

ONCE = Retry(attempts=1)
FOUND = http(b'{"status":"success","record":{"identity":"7"}}')
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n"
SHORT = 0.2


def session_for(server: Scripted, timeout: Timeout, retry: Retry = ONCE) -> Session:
    account = CleverTap("ACCOUNT", "pass-4711-code", base_url=server.url, max_in_flight=100)
    return Session(clevertap=account, retry=retry, timeout=timeout)


def silent_about(*names: str, first: bytes = b"") -> Answer:
    """Return an answer that sends only `first` for one of `names`, and then falls silent."""

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        if any(b"identity=%b " % name.encode() in head for name in names):
            writer.write(first)
            await writer.drain()
            await asyncio.Event().wait()
        writer.write(FOUND)

    return answer


def being_cancelled() -> int:
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


async def goes_on(session: Session) -> None:
    """Check that the current task works like any other."""
    assert being_cancelled() == 0
    await asyncio.sleep(0)
    with anyio.fail_after(20):
        assert await session.profiles.get(identity="answered") is not None
    assert being_cancelled() == 0


@pytest.mark.parametrize(
    "first",
    [
        b"",
        b"HTTP/1.1 20",
        HEAD + b"\r\n",
        HEAD + b"\r\n{",
        HEAD + b"Content-Encoding: gzip\r\n\r\n",
    ],
    ids=["nothing", "half a head", "a head", "half a body", "a head of what is compressed"],
)
async def test_a_server_that_falls_silent_is_not_waited_for(first: bytes) -> None:
    silent = silent_about("silent", first=first)
    async with scripted(silent) as server, session_for(server, Timeout(read=SHORT)) as session:
        for _ in range(2):
            with anyio.fail_after(20), pytest.raises(RequestTimeout, match=r"nothing for 0\.2 s"):
                await session.profiles.get(identity="silent")
            await goes_on(session)


@pytest.mark.parametrize("begin", [b"HTTP/1.1 200 OK\r\nX: ", HEAD + b"\r\n"], ids=["head", "body"])
async def test_a_server_that_never_stops_sending_is_cut_off(begin: bytes) -> None:
    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(begin)
        while b"silent" in head and not writer.is_closing():
            writer.write(b" ")
            await asyncio.sleep(0.01)

    async with scripted(answer) as server:
        async with session_for(server, Timeout(read=20, total=SHORT)) as session:
            with anyio.fail_after(20), pytest.raises(RequestTimeout, match=r"within 0\.2 s"):
                await session.profiles.get(identity="silent")
            assert being_cancelled() == 0


async def test_work_on_what_has_arrived_is_not_the_services_silence(clock: Clock) -> None:
    """All of a packed page has arrived; other tasks hold up the loop while it is inflated."""
    records = b",".join(b'{"identity":"%d","pad":"%b"}' % (n, b"x" * 9999) for n in range(400))
    packed = gzip.compress(b'{"status":"success","records":[%b]}' % records)
    is_read = asyncio.Event()
    others: list[asyncio.Task[None]] = []

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        if head.startswith(b"POST"):
            writer.write(http(b'{"status":"success","cursor":"c"}'))
        else:
            writer.write(http(packed, "200 OK", "Content-Encoding: gzip"))

    async def work() -> None:
        while not is_read.is_set():
            clock.advance(SHORT * 1.5)
            await asyncio.sleep(0)

    async def begin(*arguments: Any) -> None:
        if arguments[-1].method == "GET":
            others.append(asyncio.ensure_future(work()))

    def note(attempt: Attempt) -> None:
        if attempt.operation == "get_page":
            is_read.set()

    # Once the head has arrived, and with it all of the body.
    hooks = aiohttp.TraceConfig()
    hooks.on_request_end.append(begin)
    async with scripted(answer) as server:
        account = CleverTap("ACCOUNT", "pass-4711-code", base_url=server.url)
        limits = Timeout(read=SHORT, total=None)
        options: dict[str, Any] = {
            "retry": ONCE,
            "timeout": limits,
            "trace_configs": [hooks],
            "on_event": note,
        }
        async with Session(clevertap=account, **options) as session:
            query = session.profiles.by_event("E", start=20260101, end=20260101)
            assert len([person async for person in query]) == 400
    await asyncio.gather(*others)
    assert len(others) == 1


END_OF_HEAD = FOUND.index(b"{")


@pytest.mark.parametrize(
    "sizes",
    [[END_OF_HEAD + 1, 9, 9, 99], [END_OF_HEAD, 99], [END_OF_HEAD, 9, 99]],
    ids=["the body in pieces", "the head alone", "the head alone and the body in pieces"],
)
async def test_a_server_that_keeps_sending_is_read(sizes: list[int]) -> None:
    """The whole answer takes longer than the limit, but no pause does."""

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        position = 0
        for size in sizes:
            await asyncio.sleep(0.4)
            writer.write(FOUND[position : position + size])
            position += size

    async with scripted(answer) as server, session_for(server, Timeout(read=0.7)) as session:
        assert await session.profiles.get(identity="7") is not None


async def test_without_limits_an_attempt_is_never_ended() -> None:
    told = asyncio.Event()

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        await told.wait()
        writer.write(FOUND)

    never = Timeout(connect=None, read=None, total=None)
    async with scripted(answer) as server:
        async with (
            session_for(server, never) as patient,
            session_for(server, Timeout(read=SHORT)) as other,
        ):
            waiting = asyncio.ensure_future(patient.profiles.get(identity="7"))
            # Other deadlines of the same loop strike in the meantime.
            for _ in range(2):
                with pytest.raises(RequestTimeout):
                    await other.profiles.get(identity="7")
            assert not waiting.done()
            told.set()
            with anyio.fail_after(20):
                assert await waiting is not None


@pytest.mark.parametrize("limits", [Timeout(read=1), Timeout(total=1)], ids=["read", "total"])
async def test_of_many_attempts_at_once_only_the_silent_ones_are_ended(limits: Timeout) -> None:
    names = [str(number) for number in range(60)]
    silent = set(names[::3])
    async with nothing_left_behind(), scripted(silent_about(*silent)) as server:
        async with session_for(server, limits) as session:
            with anyio.fail_after(20):
                found = await asyncio.gather(
                    *(session.profiles.get(identity=name) for name in names),
                    return_exceptions=True,
                )
            ended = {
                name
                for name, each in zip(names, found, strict=True)
                if isinstance(each, RequestTimeout)
            }
            assert ended == silent
            assert sum(isinstance(each, Profile) for each in found) == len(names) - len(silent)
            await goes_on(session)


@pytest.mark.parametrize("busy", [True, False], ids=["a busy loop", "an idle loop"])
async def test_a_limit_counts_from_the_attempt_and_not_from_an_earlier_one(
    busy: bool, clock: Clock
) -> None:
    async with scripted(silent_about("silent")) as server:
        async with session_for(server, Timeout(read=SHORT)) as session:
            for _ in range(2):
                await session.profiles.get(identity="answered")
                if busy:
                    # The timer of the earlier attempt strikes just after the next one has started.
                    clock.advance(SHORT * 1.5)
                else:
                    await asyncio.sleep(SHORT * 1.5)
                await goes_on(session)
            # The next attempt is watched nevertheless.
            with anyio.fail_after(20), pytest.raises(RequestTimeout):
                await session.profiles.get(identity="silent")


# -------------------------------------------------------------------------- other cancellations


@pytest.mark.parametrize("first", ["owner", "deadline"])
@pytest.mark.parametrize("limits", [Timeout(read=SHORT), Timeout(total=SHORT)])
async def test_an_owner_that_cancels_as_the_deadline_strikes_is_obeyed(
    first: str, limits: Timeout, clock: Clock
) -> None:
    counts: list[int] = []

    async def call() -> None:
        try:
            await session.profiles.get(identity="7")
        finally:
            counts.append(being_cancelled())

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        # Both happen in the next turn of the loop, before the attempt notices either.
        if first == "owner":
            asyncio.get_running_loop().call_soon(task.cancel)
        else:
            asyncio.get_running_loop().call_later(SHORT, task.cancel)
        clock.advance(SHORT * 1.5)
        await asyncio.Event().wait()

    async with scripted(answer) as server, session_for(server, limits) as session:
        task = asyncio.ensure_future(call())
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()
        assert counts == [1]


async def test_an_attempt_made_while_its_task_is_being_cancelled_has_its_deadline() -> None:
    """Clean-up code may send requests. The cancellation before it is neither lost nor ours."""
    begun = asyncio.Event()
    counts: list[int] = []

    async def call() -> None:
        try:
            begun.set()
            await asyncio.Event().wait()
        finally:
            with pytest.raises(RequestTimeout):
                await session.profiles.get(identity="silent")
            counts.append(being_cancelled())

    async with scripted(silent_about("silent")) as server:
        async with session_for(server, Timeout(read=SHORT)) as session:
            task = asyncio.ensure_future(call())
            await begun.wait()
            task.cancel()
            with anyio.fail_after(20), pytest.raises(asyncio.CancelledError):
                await task
            assert counts == [1]


SCOPES = ["asyncio.timeout", "anyio.fail_after", "anyio.move_on_after"]


async def within(name: str, seconds: float, session: Session) -> str:
    """Return the outcome of a call to a silent server within a cancel scope of the caller."""
    try:
        if name == "asyncio.timeout":
            async with asyncio.timeout(seconds):
                await session.profiles.get(identity="silent")
        else:
            scope = anyio.fail_after if name == "anyio.fail_after" else anyio.move_on_after
            with scope(seconds):
                await session.profiles.get(identity="silent")
    except RequestTimeout:
        return "ours"
    except TimeoutError:
        return "scope"
    return "scope"


@pytest.mark.parametrize("name", SCOPES)
async def test_a_callers_own_scope_ends_a_call_and_a_longer_one_does_not_mind_ours(
    name: str,
) -> None:
    async with scripted(silent_about("silent")) as server:
        async with session_for(server, Timeout(read=20)) as session:
            assert await within(name, 0.1, session) == "scope"
            await goes_on(session)
        async with session_for(server, Timeout(read=0.1)) as session:
            assert await within(name, 20, session) == "ours"
            await goes_on(session)


@pytest.mark.parametrize("retry", [ONCE, Retry()], ids=["once", "with retries"])
@pytest.mark.parametrize("first", ["scope", "ours"])
@pytest.mark.parametrize("name", SCOPES)
async def test_a_callers_own_scope_that_ends_as_the_deadline_strikes_leaves_nothing_behind(
    name: str, first: str, retry: Retry, clock: Clock
) -> None:
    """Either error may be raised. Neither may cancel the calls after it."""

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        if b"silent" in head:
            clock.advance(SHORT * 1.5)
            await asyncio.Event().wait()
        writer.write(FOUND)

    scope, ours = (SHORT * 0.9, SHORT) if first == "scope" else (SHORT, SHORT * 0.9)
    async with nothing_left_behind(), scripted(answer) as server:
        async with session_for(server, Timeout(read=ours), retry) as session:
            for _ in range(2):
                with anyio.fail_after(20):
                    assert await within(name, scope, session) in ("scope", "ours")
                await goes_on(session)


async def test_a_scope_around_many_calls_ends_them_all_as_their_deadlines_strike(
    clock: Clock,
) -> None:
    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        if len(server.heads) == 20:
            clock.advance(SHORT * 2)
        await asyncio.Event().wait()

    async def call() -> None:
        await session.profiles.get(identity="silent")

    async with nothing_left_behind(), scripted(answer) as server:
        async with session_for(server, Timeout(read=SHORT * 2), Retry()) as session:
            with anyio.fail_after(20):
                with anyio.move_on_after(SHORT * 2) as scope:
                    async with anyio.create_task_group() as group:
                        for _ in range(20):
                            group.start_soon(call)
            assert scope.cancelled_caught
            assert being_cancelled() == 0


async def test_the_deadline_of_a_call_and_that_of_its_attempt_may_strike_together(
    clock: Clock,
) -> None:
    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        if b"silent" in head:
            clock.advance(SHORT * 1.5)
            await asyncio.Event().wait()
        writer.write(FOUND)

    retry = Retry(deadline=SHORT)
    async with scripted(answer) as server:
        async with session_for(server, Timeout(read=SHORT), retry) as session:
            with anyio.fail_after(20), pytest.raises(RequestTimeout):
                await session.profiles.get(identity="silent")
            await goes_on(session)


async def test_a_closed_session_is_not_kept_alive_until_its_limit() -> None:
    deadlines = Deadlines(read=3600, total=None)
    deadlines.end(deadlines.begin())
    kept = weakref.ref(deadlines)
    deadlines.close()
    del deadlines
    gc.collect()
    assert kept() is None


async def test_an_answer_that_arrived_while_the_loop_was_blocked_is_read(clock: Clock) -> None:
    asked, held_up, answered = threading.Event(), threading.Event(), threading.Event()

    def serve(listening: socket.socket) -> None:
        connection, _ = listening.accept()
        with connection:
            connection.recv(65536)
            asked.set()
            held_up.wait(PATIENCE)
            connection.sendall(FOUND)
            answered.set()
            connection.recv(1)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = threading.Thread(target=serve, args=(listening,))
        server.start()
        account = CleverTap(
            "A", "passcode", base_url=f"http://127.0.0.1:{listening.getsockname()[1]}"
        )
        async with Session(clevertap=account, retry=ONCE, timeout=Timeout(read=SHORT)) as session:
            looked_up = asyncio.ensure_future(session.profiles.get(identity="7"))
            # The loop reads nothing from here until the limit has passed.
            while not asked.is_set():
                await asyncio.sleep(0)
            held_up.set()
            assert answered.wait(PATIENCE)
            clock.advance(3 * SHORT)
            assert await looked_up is not None
        server.join()


async def test_an_attempt_that_ends_otherwise_leaves_its_task_uncancelled() -> None:
    async def fail(*_: object) -> None:
        raise RuntimeError("the exporter of spans is down")

    trace = aiohttp.TraceConfig()
    trace.on_request_exception.append(fail)
    async with scripted(silent_about("silent")) as server:
        account = CleverTap("A", "passcode", base_url=server.url)
        timeout = Timeout(read=SHORT)
        async with Session(clevertap=account, timeout=timeout, trace_configs=[trace]) as session:
            with pytest.raises(RuntimeError, match="spans"):
                await session.profiles.get(identity="silent")
            await goes_on(session)


async def test_what_one_attempt_stores_does_not_make_another_wait(clock: Clock) -> None:
    deadlines = Deadlines(read=SHORT, total=60)
    loop = asyncio.get_running_loop()

    async def store() -> None:
        watched = deadlines.begin()
        deadlines.heard(watched)
        await asyncio.sleep(30)
        deadlines.end(watched)

    storing = asyncio.create_task(store())
    await asyncio.sleep(2 * SHORT)
    began = loop.time()
    watched = deadlines.begin()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.sleep(20)
    assert watched.overdue == "read"
    deadlines.end(watched)
    assert loop.time() - began < 1
    await storing
    deadlines.close()
