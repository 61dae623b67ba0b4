"""Secrets that a function returns: asked for before the first request, and again after a 401."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import logging
import math
import pickle
import subprocess
import sys
import threading
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import anyio
import pytest

import altaprofiles
from altaprofiles import (
    Alta,
    Attempt,
    BadRequest,
    CleverTap,
    ConfigurationError,
    InvalidArgument,
    MissingCredentials,
    RequestTimeout,
    Retry,
    ServerError,
    Session,
    SessionClosed,
    Unauthorized,
)
from altaprofiles.emulator import Emulator

from ..support.clock import Clock
from ..support.servers import Scripted, http, scripted
from ..support.sessions import EVENT, QUICK, RANGE, delivered, expected
from ..support.tasks import PATIENCE, nothing_left_behind
from ..support.terminals import emulated

pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.anyio]

PERSON = http(b'{"status":"success","record":{"identity":"5555555555"}}')
REFUSED = http(b'{"status":"fail","code":401}', "401 Unauthorized")
USERS = http(b'{"code":0,"data":{}}')


def secret(number: int) -> str:
    # No two have a part in common, because parts of a known secret are masked as well.
    return blake2b(b"%d" % number).hexdigest()[:20]


class Vault:
    """A store of secrets, and a service that accepts the newest one only.

    Attributes:
        number: of the newest secret.
        asked: how often it was asked.
        echo: whether the service repeats what it was sent when it refuses it.
    """

    def __init__(self, number: int = 1) -> None:
        self.number = number
        self.asked = 0
        self.echo = False
        self.hold = asyncio.Event()
        self.hold.set()

    async def fetch(self) -> str:
        self.asked += 1
        await self.hold.wait()
        return secret(self.number)

    def read(self) -> str:
        self.asked += 1
        assert threading.current_thread() is not threading.main_thread()
        return secret(self.number)

    async def answer(self, head: bytes, writer: asyncio.StreamWriter) -> None:
        sent = next(
            line.rpartition(b" ")[2].decode()
            for line in head.split(b"\r\n")
            if line.lower().startswith((b"x-clevertap-passcode", b"authorization"))
        )
        if sent != secret(self.number):
            words = f"no {sent}" if self.echo else "no"
            body = f'{{"status":"fail","error":"{words}","code":401}}'.encode()
            writer.write(http(body, "401 Unauthorized"))
        else:
            writer.write(USERS if b"cdp" in head else PERSON)


@asynccontextmanager
async def open_session(
    vault: Vault, fetch: Callable[[], Any] | None = None, **options: Any
) -> AsyncIterator[tuple[Session, Scripted]]:
    async with scripted(vault.answer) as server:
        account = CleverTap("id", fetch or vault.fetch, base_url=server.url)
        agent = Alta(fetch or vault.fetch, base_url=server.url, name="agent")
        async with Session(clevertap=account, alta=agent, **{"retry": QUICK, **options}) as session:
            yield session, server


async def get(session: Session) -> str | None:
    person = await session.profiles.get(identity="5555555555")
    return None if person is None else person.identity


# -------------------------------------------------------------------------------------- when to ask


@pytest.mark.parametrize("way", ["fetch", "read", "coroutine"])
async def test_it_is_asked_before_the_first_request_and_again_after_a_401(way: str) -> None:
    vault = Vault()
    ways: dict[str, Callable[[], Any]] = {
        "fetch": vault.fetch,
        "read": vault.read,
        "coroutine": lambda: vault.fetch(),
    }
    async with open_session(vault, ways[way]) as (session, server):
        assert vault.asked == 0
        for _ in range(3):
            assert await get(session) == "5555555555"
        assert (vault.asked, len(server.heads)) == (1, 3)
        vault.number = 2
        assert await get(session) == "5555555555"
        assert (vault.asked, len(server.heads)) == (2, 5)
        # Each service has a secret of its own.
        assert await session.cdp.get(user_id="u") == {}
        assert (vault.asked, len(server.heads)) == (3, 6)


@pytest.mark.parametrize("rotated", [False, True])
async def test_it_is_asked_once_for_all_callers(rotated: bool) -> None:
    vault = Vault()
    async with open_session(vault) as (session, server):
        before = 0
        if rotated:
            await get(session)
            vault.number, before = 2, len(server.heads)
        vault.hold.clear()
        calls = [asyncio.ensure_future(get(session)) for _ in range(50)]
        with anyio.fail_after(PATIENCE):
            while vault.asked < 1 + rotated:
                await asyncio.sleep(0.001)
            for _ in range(20):
                await asyncio.sleep(0.001)
            vault.hold.set()
            assert await asyncio.gather(*calls) == ["5555555555"] * 50
        assert vault.asked == 1 + rotated
        # Each was refused once at most.
        assert len(server.heads) - before <= 50 + 50 * rotated


async def test_every_way_of_reading_renews_it(tmp_path: Path) -> None:
    async with Emulator(people=200, seed=3) as emulator:
        known = emulator.clevertap
        numbers = iter(range(100))

        async def fetch() -> str:
            # The emulator refuses the first one.
            return known.passcode if next(numbers) % 2 else "an-old-one"

        def token() -> str:
            return emulator.alta.token if next(numbers) % 2 else "an-old-one"

        people = sum(expected(emulator).values())

        async def read(session: Session) -> None:
            rows = session.profiles.by_event(EVENT, **RANGE, batch_size=23, windows=2)
            assert delivered([person async for person in rows]) == expected(emulator)

        async def customers(session: Session) -> None:
            rows = session.with_cdp(session.profiles.by_event(EVENT, **RANGE))
            assert len([customer async for customer in rows]) == people

        async def export(session: Session) -> None:
            report = await session.export(EVENT, **RANGE, to=tmp_path / "p.ndjson", with_cdp=True)
            assert (report.people, report.complete) == (people, True)

        async def lookups(session: Session) -> None:
            keys = [*map(str, range(30))]
            report = await session.export_lookups(keys, by="user_id", to=tmp_path / "k.ndjson")
            assert report.complete

        async def count(session: Session) -> None:
            view = session.with_options(deadline=PATIENCE)
            assert await view.profiles.count(EVENT, **RANGE) == people

        for work in (read, customers, export, lookups, count):
            numbers = iter(range(100))
            session = Session(
                clevertap=CleverTap(known.account_id, fetch, base_url=emulator.url),
                alta=Alta(token, base_url=emulator.url, name="agent"),
                retry=QUICK,
            )
            async with session:
                await work(session)


def test_a_blocking_session_asks_as_well() -> None:
    with emulated(people=20, seed=3) as emulator:
        known, left = emulator.clevertap, ["an-old-one", "another", emulator.clevertap.passcode]
        account = CleverTap(known.account_id, lambda: left.pop(0), base_url=known.base_url)
        with altaprofiles.blocking(lambda: Session(clevertap=account, retry=QUICK)) as session:
            with pytest.raises(Unauthorized):
                session.profiles.get(identity="5555555555")
            assert session.profiles.get(identity="5555555555") is not None
            assert left == []


# ------------------------------------------------------------------------------- when it is refused


async def test_a_second_401_with_a_new_secret_is_raised() -> None:
    vault, numbers = Vault(), iter(range(100, 200))
    reports: list[Attempt] = []
    async with open_session(vault, lambda: secret(next(numbers)), on_event=reports.append) as (
        session,
        server,
    ):
        with pytest.raises(Unauthorized):
            await get(session)
        assert (next(numbers), len(server.heads)) == (102, 2)
        assert [(one.number, one.delay, type(one.error)) for one in reports] == [
            (1, 0.0, Unauthorized),
            (2, None, Unauthorized),
        ]
        assert session.stats.retries == 1


async def test_the_same_secret_is_not_sent_again() -> None:
    vault = Vault()
    asked = 0

    def fetch() -> str:
        nonlocal asked
        asked += 1
        return secret(0)

    async with open_session(vault, fetch) as (session, server):
        for number in (1, 2):
            with pytest.raises(Unauthorized):
                await get(session)
            assert (asked, len(server.heads)) == (2, number)
        # Nobody who has waited meanwhile asks again.
        calls = [asyncio.ensure_future(get(session)) for _ in range(50)]
        with anyio.fail_after(PATIENCE):
            results = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(result) for result in results} == {Unauthorized}
        assert asked == 2


@pytest.mark.parametrize("kind", ["one secret", "a new one each time"])
async def test_one_call_that_is_always_refused_holds_up_no_other(kind: str, clock: Clock) -> None:
    asked, hold = 0, asyncio.Event()
    hold.set()

    async def fetch() -> str:
        nonlocal asked
        asked += 1
        await hold.wait()
        return secret(1 if kind == "one secret" else asked)

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(REFUSED if b"identity=bad" in head else PERSON)

    async with scripted(answer) as server:
        account = CleverTap("id", fetch, base_url=server.url)
        async with Session(clevertap=account, retry=QUICK) as session:

            async def refuse() -> None:
                with pytest.raises(Unauthorized):
                    await session.profiles.get(identity="bad")

            assert await get(session) == "5555555555"
            hold.clear()
            refused = asyncio.ensure_future(refuse())
            while asked < 2:
                await asyncio.sleep(0)
            # The function hangs, and the others are served.
            with anyio.move_on_after(PATIENCE):
                assert [await get(session) for _ in range(5)] == ["5555555555"] * 5
                hold.set()
            assert hold.is_set()
            await refused
            for _ in range(20):
                assert await get(session) == "5555555555"
                await refuse()
            assert asked == 2
            # Some day the secret may be another.
            clock.advance(60)
            await refuse()
            assert asked == 3


async def test_a_secret_that_follows_late_is_found(clock: Clock) -> None:
    vault, store = Vault(), 1

    async def fetch() -> str:
        vault.asked += 1
        return secret(store)

    async with open_session(vault, fetch) as (session, _):
        await get(session)
        vault.number = 2
        for _ in range(5):
            with pytest.raises(Unauthorized):
                await get(session)
        assert vault.asked == 2
        store = 2
        clock.advance(60)
        assert await get(session) == "5555555555"
        # Another secret may be refused, and asked for again, at once.
        vault.number = store = 3
        assert await get(session) == "5555555555"
        assert vault.asked == 4


async def test_a_secret_that_follows_a_moment_late_is_found_a_moment_later(clock: Clock) -> None:
    vault, store = Vault(), 1

    async def fetch() -> str:
        vault.asked += 1
        return secret(store)

    async with open_session(vault, fetch) as (session, _):
        for number in (2, 3):
            await get(session)
            vault.number = number
            with pytest.raises(Unauthorized):
                await get(session)
            store = number
            clock.advance(1)
            assert await get(session) == "5555555555"
        # One that never follows is asked for ever more rarely.
        vault.number, vault.asked = 4, 0
        for _ in range(60):
            with pytest.raises(Unauthorized):
                await get(session)
            clock.advance(1)
        assert 5 <= vault.asked <= 8
        store = 4
        clock.advance(20)
        assert await get(session) == "5555555555"


async def test_requests_refused_together_are_one_sign(clock: Clock) -> None:
    vault, store = Vault(), 1

    async def fetch() -> str:
        vault.asked += 1
        return secret(store)

    async def refused(session: Session) -> None:
        with pytest.raises(Unauthorized):
            await get(session)

    async with open_session(vault, fetch) as (session, _):
        await get(session)
        # The next secret is wrong as well, for all that were in flight.
        vault.number, store = 2, 7
        await asyncio.gather(*(refused(session) for _ in range(3)))
        store = 2
        clock.advance(1)
        assert await get(session) == "5555555555"
        vault.number = 3
        await asyncio.gather(*(refused(session) for _ in range(3)))
        store = 3
        clock.advance(1)
        assert await get(session) == "5555555555"


async def test_a_renewal_counts_as_no_attempt_and_takes_nothing_from_the_budget() -> None:
    vault = Vault()
    retry = Retry(attempts=1, budget=0, base_delay=0.0)
    async with open_session(vault, retry=retry) as (session, server):
        await get(session)
        for number in range(2, 6):
            vault.number = number
            assert await get(session) == "5555555555"
        assert len(server.heads) == 9


async def test_one_call_can_outlast_several_secrets() -> None:
    vault, busy = Vault(), http(b"", "503 Service Unavailable")
    failures = 3

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        nonlocal failures
        if secret(vault.number).encode() in head and failures:
            failures -= 1
            vault.number += 1
            writer.write(busy)
        else:
            await vault.answer(head, writer)

    async with scripted(answer) as server:
        account = CleverTap("id", vault.fetch, base_url=server.url)
        async with Session(clevertap=account, retry=QUICK) as session:
            assert await get(session) == "5555555555"
        assert vault.asked == 4
        async with Session(clevertap=account, retry=Retry(attempts=2, base_delay=0.0)) as session:
            failures = 2
            with pytest.raises(ServerError):
                await get(session)


# ------------------------------------------------------------------------------------- cancellation


async def test_a_caller_who_leaves_stops_no_other() -> None:
    vault = Vault()
    async with nothing_left_behind(), open_session(vault) as (session, _):
        vault.hold.clear()
        calls = [asyncio.ensure_future(get(session)) for _ in range(4)]
        with anyio.fail_after(PATIENCE):
            while not vault.asked:
                await asyncio.sleep(0.001)
            for call in calls[:3]:
                call.cancel()
            await asyncio.wait(calls[:3])
            vault.hold.set()
            assert await calls[3] == "5555555555"
            assert await get(session) == "5555555555"


@pytest.mark.parametrize("way", ["async", "plain"])
async def test_a_deadline_and_the_end_of_the_session_do_not_wait_for_it(way: str) -> None:
    vault, released = Vault(), threading.Event()

    async def never() -> str:
        await asyncio.sleep(math.inf)
        return ""

    def stuck() -> str:
        released.wait(PATIENCE)
        return secret(1)

    try:
        async with nothing_left_behind():
            async with open_session(vault, never if way == "async" else stuck) as (session, _):
                with anyio.fail_after(PATIENCE), pytest.raises(RequestTimeout, match="deadline"):
                    await session.profiles.get(identity="5555555555", deadline=0.05)
                call = asyncio.ensure_future(get(session))
                await asyncio.sleep(0.01)
            with anyio.fail_after(PATIENCE), pytest.raises(SessionClosed, match="while the call"):
                await call
    finally:
        released.set()


@pytest.mark.parametrize("way", ["async", "plain"])
def test_a_function_that_hangs_does_not_keep_the_process_alive(way: str) -> None:
    code = f"""
import asyncio, threading
from altaprofiles import CleverTap, RequestTimeout, Session

def stuck():
    threading.Event().wait()

async def never():
    await asyncio.Event().wait()

async def main():
    account = CleverTap("id", {"never" if way == "async" else "stuck"}, base_url="http://127.0.0.1:1")
    async with Session(clevertap=account) as session:
        await session.profiles.get(identity="5555555555", deadline=0.05)

try:
    asyncio.run(main())
except RequestTimeout as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert "the function of passcode had not returned" in done.stdout, done.stderr


async def test_a_function_that_hangs_is_reported(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    vault = Vault()

    def warnings() -> list[str]:
        return [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]

    async with open_session(vault) as (session, _):
        vault.hold.clear()
        calls = [asyncio.ensure_future(get(session)) for _ in range(3)]
        await asyncio.sleep(9)
        assert warnings() == []
        await asyncio.sleep(100)
        (warning,) = warnings()
        assert warning.startswith("passcode: its function has not returned for 10 s")
        with pytest.raises(RequestTimeout) as caught:
            await session.profiles.get(identity="5555555555", deadline=5)
        assert str(caught.value).endswith(
            "the deadline of 5 s: the function of passcode had not returned; no request was sent"
        )
        assert caught.value.__cause__ is None
        vault.hold.set()
        assert await asyncio.gather(*calls) == ["5555555555"] * 3
        # In a renewal, the refusal is the cause.
        vault.number = 2
        vault.hold.clear()
        for _ in range(2):
            with pytest.raises(RequestTimeout, match="the function of passcode") as caught:
                await session.profiles.get(identity="5555555555", deadline=5)
            assert type(caught.value.__cause__) is Unauthorized
        vault.hold.set()
        assert await get(session) == "5555555555"
        assert vault.asked == 2
        caplog.clear()
        await asyncio.sleep(100)
        assert warnings() == []


async def test_a_deadline_names_the_failure_before_it(clock: Clock) -> None:
    answers = [http(b"", "503 Service Unavailable")]

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        if not answers:
            await asyncio.sleep(math.inf)
        writer.write(answers.pop())

    async with scripted(answer) as server:
        account = CleverTap("id", "a-constant-one", base_url=server.url)
        async with Session(clevertap=account, retry=QUICK) as session:
            with pytest.raises(RequestTimeout, match=r"; the last failure: .*HTTP 503") as caught:
                await session.profiles.get(identity="5555555555", deadline=5)
    assert type(caught.value.__cause__) is ServerError


async def test_a_drain_waits_for_it() -> None:
    vault = Vault()
    async with open_session(vault) as (session, _):
        vault.hold.clear()
        call = asyncio.ensure_future(get(session))
        while not vault.asked:
            await asyncio.sleep(0.001)
        closing = asyncio.ensure_future(session.aclose(drain=600))
        await asyncio.sleep(0.01)
        vault.hold.set()
        with anyio.fail_after(PATIENCE):
            assert await call == "5555555555"
            await closing


async def test_a_function_that_uses_its_own_session_is_told_so() -> None:
    vault = Vault()
    sessions: list[Session] = []

    async def fetch() -> str:
        await get(sessions[0])
        return secret(1)

    async with open_session(vault, fetch) as (session, server):
        sessions.append(session)
        with anyio.fail_after(PATIENCE), pytest.raises(MissingCredentials) as caught:
            await get(session)
        assert type(caught.value.__cause__) is ConfigurationError
        assert "its function uses the session that waits for it" in str(caught.value.__cause__)
        assert server.heads == []


async def test_a_task_that_the_function_has_started_is_named_as_well() -> None:
    vault, tasks = Vault(), []

    async def fetch() -> str:
        tasks.append(asyncio.ensure_future(get(session)))
        await asyncio.wait(tasks)
        return secret(1)

    async with open_session(vault, fetch) as (session, _):
        with anyio.fail_after(PATIENCE):
            assert await get(session) == "5555555555"
        with pytest.raises(ConfigurationError, match="or a task that the function has started"):
            await tasks[0]


async def test_a_function_can_use_another_session() -> None:
    vault = Vault()
    async with open_session(vault) as (other, _):

        async def fetch() -> str:
            assert await get(other) == "5555555555"
            return secret(1)

        async with open_session(vault, fetch) as (session, _):
            assert await get(session) == "5555555555"


# ------------------------------------------------------------------------------------------- faults


class OutOfReach(Exception):
    pass


LET_IT = "; let the function return the text that the dashboard shows"


async def fail_async() -> str:
    raise OutOfReach("the vault is closed")


def fail() -> str:
    raise OutOfReach("the vault is closed")


def leave() -> str:
    # As programs do that wrap a command.
    sys.exit("the vault is closed")


async def leave_async() -> str:
    sys.exit("the vault is closed")


@pytest.mark.parametrize("function", [leave, leave_async])
async def test_a_function_that_would_end_the_process_has_failed(
    function: Callable[[], Any],
) -> None:
    async with open_session(Vault(), function) as (session, _):
        results = await asyncio.gather(*(get(session) for _ in range(5)), return_exceptions=True)
        for error in results:
            assert type(error) is MissingCredentials
            assert str(error).startswith("passcode: its function raised SystemExit")
            assert type(error.__cause__) is SystemExit


@pytest.mark.parametrize("function", [fail, fail_async])
async def test_an_exception_of_the_function_is_the_cause(function: Callable[[], Any]) -> None:
    async with open_session(Vault(), function) as (session, server):
        calls = [asyncio.ensure_future(get(session)) for _ in range(5)]
        results = await asyncio.gather(*calls, return_exceptions=True)
        for error in results:
            assert type(error) is MissingCredentials
            assert str(error).startswith("passcode: its function raised OutOfReach")
            assert type(error.__cause__) is OutOfReach
            assert (error.service, error.operation) == ("CleverTap", "get_profile")
            assert pickle.loads(pickle.dumps(error)).args == error.args  # noqa: S301
        with pytest.raises(MissingCredentials, match=r"^token: its function raised OutOfReach"):
            await session.cdp.get(user_id="u")
        with pytest.raises(MissingCredentials):
            async for _ in session.profiles.get_many(["1", "2"], by="identity"):
                pass
        assert server.heads == []


async def test_after_a_failure_the_next_call_asks_again() -> None:
    vault = Vault()
    failing = [True, False, True, False]

    async def fetch() -> str:
        if failing.pop(0):
            raise OutOfReach
        return await vault.fetch()

    async with open_session(vault, fetch) as (session, _):
        for number in (1, 2):
            vault.number = number
            with pytest.raises(MissingCredentials):
                await get(session)
            assert await get(session) == "5555555555"


async def test_a_function_that_cancels_itself_has_failed() -> None:
    async def fetch() -> str:
        raise asyncio.CancelledError

    async with open_session(Vault(), fetch) as (session, _):
        with pytest.raises(MissingCredentials, match="raised CancelledError"):
            await get(session)


@pytest.mark.parametrize(
    ("value", "words", "fix"),
    [
        (None, "expected text that is not empty, got None", LET_IT),
        ("", "expected text that is not empty, got empty text", LET_IT),
        (7, "expected text that is not empty, got an int", LET_IT),
        (["hunter2"], "expected text that is not empty, got a list", LET_IT),
        (b"hunter2", "expected text that is not empty, got bytes", "text, as .decode() returns it"),
        ("hunter2\n", "holds a space, a line break", "return it without those at its start and"),
        ("\thunter2 ", "holds a space, a line break", "end, as .strip() returns it"),
        ("hunter2 é", "holds a space, a line break", "return the bare value that the dashboard"),
    ],
)
@pytest.mark.parametrize("way", ["async", "plain"])
async def test_what_the_function_returns_is_checked_as_a_constant_is(
    way: str, value: Any, words: str, fix: str
) -> None:
    async def fetch() -> Any:
        return value

    async with open_session(Vault(), fetch if way == "async" else lambda: value) as (session, _):
        for call, name in ((get(session), "passcode"), (session.cdp.get(user_id="u"), "token")):
            with pytest.raises(MissingCredentials) as caught:
                await call
            assert str(caught.value).startswith(f"{name}: the value that its function returned ")
            assert words in str(caught.value)
            assert fix in str(caught.value)
            assert "hunter2" not in shown(caught.value)


async def test_a_coroutine_that_the_function_leaves_is_named() -> None:
    vault = Vault()

    async def fetch() -> Any:
        coroutines.append(vault.fetch())
        return coroutines[-1]

    coroutines: list[Any] = []
    async with open_session(vault, fetch) as (session, _):
        with pytest.raises(MissingCredentials, match="got a coroutine; await it"):
            await get(session)
    coroutines.pop().close()


@pytest.mark.parametrize(("value", "name"), [("in1", "region"), ("https://hunter2.ai", "a URL")])
async def test_a_swapped_value_is_named(value: str, name: str) -> None:
    async with open_session(Vault(), lambda: value) as (session, _):
        call = get(session) if name == "region" else session.cdp.get(user_id="u")
        with pytest.raises(MissingCredentials, match=name) as caught:
            await call
        assert "; return the " in str(caught.value)


def test_a_function_is_checked_beforehand() -> None:
    def needs(key: str, default: str = "hunter2") -> str:
        return key + default

    for make in (lambda: CleverTap("id", needs), lambda: Alta(needs, name="a")):  # type: ignore[arg-type]
        with pytest.raises(InvalidArgument, match=r"this function needs arguments") as caught:
            make()
        assert "hunter2" not in shown(caught.value)
    with pytest.raises(InvalidArgument, match=r"^name: .* pass one, such as name="):
        Alta(lambda: "token")
    assert Alta(lambda: "token", name="support").account == "support"


# --------------------------------------------------------------------------------- nothing shows it


def shown(error: BaseException) -> str:
    """Return what error reporters send, without the locals of this module and of the threads."""
    texts = [str(error), repr(error)]
    behind: BaseException | None = error
    while behind is not None:
        for frame, _ in traceback.walk_tb(behind.__traceback__):
            if "altaprofiles" in frame.f_globals.get("__name__", ""):
                texts += map(repr, frame.f_locals.values())
        behind = behind.__cause__ or behind.__context__
    return "".join(texts)


def make(function: Callable[[], Any]) -> list[Any]:
    return [CleverTap("id", function), Alta(function, name="agent")]


def test_no_look_at_credentials_shows_what_the_function_holds() -> None:
    function = partial(str, "hunter2")
    for given in make(function):
        field = "passcode" if isinstance(given, CleverTap) else "token"
        twin = dataclasses.replace(given, max_in_flight=2)
        service = "clevertap" if field == "passcode" else "alta"
        for look in (
            repr(given),
            f"{given!a}",
            repr(dataclasses.asdict(given)),
            repr(twin),
            repr(copy.deepcopy(given)),
            repr(getattr(given, field)),
            repr(Session(**{service: given})),
        ):
            assert "hunter2" not in look
            assert "***" in look
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            with pytest.raises(TypeError, match="credentials do not pickle"):
                pickle.dumps(given, protocol)
    assert make(function) == make(function)
    assert hash(make(function)[0]) == hash(make(function)[0])
    assert make(function) != make(fail)
    assert make(function)[0] != CleverTap("id", "x")


@pytest.mark.parametrize("function", [fail, fail_async])
async def test_no_traceback_of_a_failure_shows_what_the_function_holds(
    function: Callable[[], Any],
) -> None:
    class Held:
        def __repr__(self) -> str:
            return "hunter2"

    async with open_session(Vault(), partial(lambda held: function(), Held())) as (session, _):
        with pytest.raises(MissingCredentials) as caught:
            await get(session)
        assert "rotation.py" in "".join(traceback.format_exception(caught.value))
        assert "hunter2" not in shown(caught.value)


async def test_both_the_secret_and_the_one_before_are_masked(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    vault = Vault()
    vault.echo = True
    reports: list[Attempt] = []
    async with open_session(vault, on_event=reports.append) as (session, server):
        await get(session)
        vault.number = 2
        await get(session)
    numbers = iter(range(50, 99))
    async with open_session(vault, lambda: secret(next(numbers))) as (session, server):
        with pytest.raises(Unauthorized, match=r"no \*\*\*") as caught:
            await get(session)
        assert len(server.heads) == 2
    texts = [shown(caught.value), caplog.text, *map(repr, reports)]
    texts += [str(report.error) for report in reports]
    assert sum("no ***" in text for text in texts) >= 2
    assert all(secret(number) not in "".join(texts) for number in (1, 2, 50, 51))


@pytest.mark.parametrize("renewals", [1, 2, 3])
@pytest.mark.parametrize("status", ["400 Bad Request", "401 Unauthorized"])
async def test_a_late_answer_that_repeats_the_secret_of_its_request_is_masked(
    renewals: int, status: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    vault, late = Vault(), asyncio.Event()
    reports: list[Attempt] = []

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        if b"identity=late" in head and secret(1).encode() in head:
            await late.wait()
            body = f'{{"status":"fail","error":"bad {secret(1)}","code":40}}'.encode()
            writer.write(http(body, status))
        else:
            await vault.answer(head, writer)

    async with scripted(answer) as server:
        account = CleverTap("id", vault.fetch, base_url=server.url)
        async with Session(clevertap=account, retry=QUICK, on_event=reports.append) as session:
            call = asyncio.ensure_future(session.profiles.get(identity="late"))
            while not server.heads:
                await asyncio.sleep(0.001)
            for _ in range(renewals):
                vault.number += 1
                assert await get(session) == "5555555555"
            late.set()
            with anyio.fail_after(PATIENCE):
                (result,) = await asyncio.gather(call, return_exceptions=True)
    (report,) = [one for one in reports if "bad" in str(one.error)]
    assert "bad ***" in str(report.error)
    if status.startswith("400"):
        assert type(result) is BadRequest
        assert "bad ***" in str(result)
        assert secret(1) not in shown(result)
    assert secret(1) not in "".join([caplog.text, *map(repr, reports), str(report.error)])


async def test_sessions_of_one_name_share_the_cap_of_a_token_that_changes(tmp_path: Path) -> None:
    async with Emulator(people=5, think=0.005, alta_max_in_flight=2) as emulator:

        def agent() -> Alta:
            return Alta(
                lambda: emulator.alta.token,
                name="agent",
                base_url=emulator.url,
                max_in_flight=2,
                shared=tmp_path / "slots",
            )

        async with Session(alta=agent()) as one, Session(alta=agent()) as other:
            calls = [session.cdp.get(user_id="BC123") for session in (one, other) for _ in range(9)]
            with anyio.fail_after(PATIENCE):
                await asyncio.gather(*calls)
        assert emulator.stats.too_many == 0
        assert emulator.stats.peak_in_flight["alta"] <= 2


async def test_a_session_survives_a_rotation_on_the_server_s_side() -> None:
    async with Emulator(records=[{"identity": "ann"}], bindings={"ann": ["a1"]}) as emulator:
        asked: list[str] = []

        async def passcode() -> str:
            asked.append(emulator.passcode)
            return emulator.passcode

        async def token() -> str:
            return emulator.token

        account = CleverTap(emulator.clevertap.account_id, passcode, base_url=emulator.url)
        agent = Alta(token, base_url=emulator.url, name="agent")
        async with Session(clevertap=account, alta=agent, retry=QUICK) as session:
            for number in range(3):
                assert await session.profiles.get(identity="ann") is not None
                assert list(await session.cdp.get(user_id="ann")) == ["ann"]
                emulator.passcode, emulator.token = secret(number), f"t0ken-{number}"
        assert asked[1:] == [secret(0), secret(1)]
