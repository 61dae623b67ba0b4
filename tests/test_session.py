"""A session's life: opened, shared, cancelled and closed, from any task."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import gc
import os
import pickle
import random
import subprocess
import sys
import warnings
import weakref
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import anyio
import pytest

from altaprofiles import (
    AltaProfilesError,
    Attempt,
    CleverTap,
    ConfigurationError,
    Profile,
    Retry,
    ServerError,
    Session,
    SessionClosed,
    TransportError,
    blocking,
)
from altaprofiles.emulator import Emulator, Fault
from altaprofiles.emulator.faults import HARMLESS

from .support.servers import http, scripted
from .support.sessions import EVENT, QUICK, RANGE, delivered, expected, session_for
from .support.tasks import PATIENCE, nothing_left_behind

pytestmark = pytest.mark.anyio


async def export(session: Session) -> None:
    async for _ in session.profiles.by_event(EVENT, **RANGE, windows=3, batch_size=23):
        pass


async def look_up(session: Session) -> None:
    async for _ in session.profiles.get_many(map(str, range(60)), by="identity"):
        pass


async def join(session: Session) -> None:
    async for _ in session.with_cdp(session.profiles.by_event(EVENT, **RANGE, batch_size=23)):
        pass


async def get(session: Session) -> None:
    await session.profiles.get(identity="5555555555")


async def count(session: Session) -> None:
    await session.profiles.count(EVENT, **RANGE)


async def ask(session: Session) -> None:
    await session.cdp.get(user_id="BC123")


JOBS: list[Callable[[Session], Awaitable[None]]] = [export, look_up, join, get, count]


async def all_slots_are_free(session: Session, emulator: Emulator) -> None:
    """Fail unless one more request than there are slots gets through, one after the other."""
    with anyio.fail_after(PATIENCE):
        await asyncio.gather(*(get(session) for _ in range(4)))
        assert await session.cdp.get(user_id="BC123")


async def test_it_opens_in_one_task_and_closes_in_another() -> None:
    async with Emulator(people=200, seed=1) as emulator:
        stack = contextlib.AsyncExitStack()
        session = await asyncio.create_task(stack.enter_async_context(session_for(emulator)))
        people: list[Profile] = []

        async def read() -> None:
            query = session.profiles.by_event(EVENT, **RANGE, windows=2, batch_size=23)
            people.extend([person async for person in query])

        await asyncio.create_task(read())
        await asyncio.create_task(stack.aclose())
        assert delivered(people) == expected(emulator)
        with pytest.raises(ConfigurationError, match="closed"):
            await get(session)


@pytest.mark.slow
async def test_thousands_of_tasks_share_it_under_the_cap() -> None:
    async with Emulator(people=20, think=0.001) as emulator, session_for(emulator) as session:
        await asyncio.gather(*(get(session) for _ in range(2000)))
        assert emulator.stats.peak_in_flight["clevertap"] == 3
        assert emulator.stats.too_many == 0


async def test_where_the_account_allows_less_it_settles_below_its_cap() -> None:
    async with Emulator(people=50, max_in_flight=2, think=0.002) as emulator:
        async with session_for(emulator) as session:
            await asyncio.gather(*(get(session) for _ in range(400)))
            # The cap grows by one per ten successes, so that only a few requests are refused.
            assert 0 < emulator.stats.too_many < 60
            assert session.stats.throttles == emulator.stats.too_many


async def walk(session: Session) -> None:
    async for _ in session.profiles.by_event(EVENT, **RANGE, batch_size=23):
        pass


@pytest.mark.parametrize("fault", sorted({*Fault} - HARMLESS))
async def test_every_request_is_counted_whatever_breaks(fault: Fault) -> None:
    once = Retry(attempts=1, max_delay=0.01, ready_timeout=0.1, throttle_timeout=0.1)
    async with Emulator(people=60, seed=5, faults={fault: 0.5}) as emulator:
        async with session_for(emulator, retry=once) as session:
            for job in [get, ask, count, walk] * 5:
                with suppress(AltaProfilesError):
                    await job(session)
            assert session.stats.requests == sum(emulator.stats.requests.values())


async def test_a_connection_that_closes_before_an_answer_is_one_attempt() -> None:
    seen: list[Attempt] = []
    async with Emulator(people=60, faults={Fault.DISCONNECT: 1.0}) as emulator:
        once = Retry(attempts=1)
        async with session_for(emulator, retry=once, on_event=seen.append) as session:
            for job in (get, ask):
                with pytest.raises(TransportError):
                    await job(session)
        requests = emulator.stats.requests
    assert (requests["profile"], requests["cdp"]) == (1, 1)
    assert [(one.operation, one.number, one.delay) for one in seen] == [
        ("get_profile", 1, None),
        ("get_user_cdp", 1, None),
    ]


@pytest.mark.slow
async def test_the_cap_holds_under_a_mix_of_calls_and_cancellations() -> None:
    choose = random.Random(5)  # noqa: S311
    faults = {Fault.NOT_READY: 0.1, Fault.RESET: 0.1, Fault.SLOW: 0.1, Fault.SERVER_ERROR: 0.1}
    async with (
        nothing_left_behind(),
        Emulator(people=300, seed=2, faults=faults, think=0.002) as emulator,
    ):
        async with session_for(emulator) as session:
            running = [asyncio.ensure_future(choose.choice(JOBS)(session)) for _ in range(40)]
            for job in choose.sample(running, 15):
                # Cancel each job after a few more requests.
                goal = session.stats.requests + choose.randrange(1, 20)
                while session.stats.requests < goal and not job.done():
                    await asyncio.sleep(0)
                job.cancel()
            results = await asyncio.gather(*running, return_exceptions=True)
            failed = [r for r in results if isinstance(r, Exception)]
            assert failed == []
            await all_slots_are_free(session, emulator)
        stats = emulator.stats
        assert stats.peak_in_flight["clevertap"] == 3
        assert stats.peak_in_flight["alta"] <= 16
        assert stats.too_many == 0


@pytest.mark.slow
@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.__name__)
async def test_cancelling_at_any_moment_leaves_nothing_behind(
    job: Callable[[Session], Awaitable[None]],
) -> None:
    faults = {Fault.NOT_READY: 0.2, Fault.RESET: 0.2}
    async with nothing_left_behind(), Emulator(people=120, seed=3, faults=faults) as emulator:
        async with session_for(emulator) as session:
            for turns in range(0, 120, 3):
                task = asyncio.ensure_future(job(session))
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            await all_slots_are_free(session, emulator)
        assert emulator.stats.too_many == 0


async def test_leaving_a_loop_early_stops_the_requests_behind_it() -> None:
    async with nothing_left_behind(), Emulator(people=500, seed=4) as emulator:
        async with session_for(emulator) as session:
            for _ in range(10):
                async for _person in session.profiles.by_event(EVENT, **RANGE, batch_size=23):
                    break
                async for _page in session.profiles.by_event(
                    EVENT, **RANGE, windows=3, batch_size=23
                ).pages():
                    break
                async for _lookup in session.profiles.get_many(map(str, range(99)), by="identity"):
                    break
                async for _customer in session.with_cdp(
                    session.profiles.by_event(EVENT, **RANGE, batch_size=23)
                ):
                    break
            await all_slots_are_free(session, emulator)
            with anyio.fail_after(PATIENCE):
                while emulator.stats.in_flight != {"clevertap": 0, "alta": 0}:
                    await asyncio.sleep(0.001)
        # A chain has some 21 pages: if they had walked on, these forty loops would have read 1,200.
        assert emulator.stats.requests["page"] < 10 * (3 + 9 + 3) + 50


async def test_an_iteration_that_outlives_its_session_says_so() -> None:
    async with nothing_left_behind(), Emulator(people=300, seed=5) as emulator:
        async with session_for(emulator) as session:
            people = session.profiles.by_event(EVENT, **RANGE, batch_size=23).pages()
            lookups = session.profiles.get_many(map(str, range(1000)), by="identity")
            await anext(people)
            await anext(lookups)
        for left in (people, lookups):
            with pytest.raises(ConfigurationError, match="closed"):
                async for _ in left:
                    pass


async def test_closing_it_ends_calls_that_are_under_way() -> None:
    async with nothing_left_behind(), Emulator(people=5, think=30) as emulator:
        async with session_for(emulator) as session:
            calls = [asyncio.ensure_future(get(session)) for _ in range(6)]
            with anyio.fail_after(PATIENCE):
                while emulator.stats.in_flight["clevertap"] < 3:
                    await asyncio.sleep(0)
        with anyio.fail_after(PATIENCE):
            results = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(result) for result in results} == {SessionClosed}


async def test_it_closes_twice_and_opens_once() -> None:
    async with Emulator(people=5) as emulator:
        session = session_for(emulator)
        async with session:
            pass
        await session.aclose()
        with pytest.raises(ConfigurationError, match="opened before"):
            await session.__aenter__()


async def test_a_body_that_fails_closes_it_too() -> None:
    async with nothing_left_behind(), Emulator(people=300, seed=6) as emulator:
        with pytest.raises(ZeroDivisionError):
            async with session_for(emulator) as session:
                async for _ in session.profiles.by_event(EVENT, **RANGE, batch_size=23):
                    raise ZeroDivisionError


def test_use_from_another_loop_is_refused() -> None:
    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    session = Session(clevertap=CleverTap("ACCOUNT", "passcode", base_url="http://127.0.0.1:9"))
    try:
        first.run_until_complete(session.__aenter__())
        with pytest.raises(ConfigurationError, match="another event loop"):
            second.run_until_complete(get(session))
        first.run_until_complete(session.aclose())
    finally:
        first.close()
        second.close()


LEFT = """
import asyncio, os
from altaprofiles import CleverTap, Session, SessionClosed

async def main(use):
    async with Session(clevertap=CleverTap("W9R", "pass-word")) as session:
        if os.fork():
            os.wait()
        else:
            await use(session)

async def used(session):
    await session.profiles.get(identity="7")

async def broken(session):
    raise ValueError("mine")

async def unused(session):
    pass

for use in (used, broken, unused):
    process = os.getpid()
    try:
        asyncio.run(main(use))
        told = "nothing"
    except (SessionClosed, ValueError) as error:
        told = f"{error}, after {error.__context__}"
    if os.getpid() != process:
        print(told, flush=True)
        os._exit(0)
"""


FORKED = """
import asyncio, os
from altaprofiles import CleverTap, Session, SessionClosed

async def get(session):
    await session.profiles.get(identity="7")

async def main():
    async with Session(clevertap=CleverTap("W9R", "pass-word")) as session:
        closed = Session(clevertap=CleverTap("W9R", "pass-word"))
        async with closed:
            pass
        if os.fork():
            os.wait()
            return
        for use in (lambda: get(session), lambda: get(closed), session.aclose):
            try:
                # A child of a loop is in none.
                asyncio.run(use())
            except SessionClosed as error:
                print(error, flush=True)
        own = Session(clevertap=CleverTap("W9R", "pass-word"))
        asyncio.run(own.__aenter__())
        print(repr(own), flush=True)
        os._exit(0)

asyncio.run(main())
"""


def printed_by(program: str) -> list[str]:
    """Return the lines that a program prints, which forks and ends without a word of an error."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_the_end_of_a_block_in_a_forked_process_hides_no_error() -> None:
    used, broken, unused = printed_by(LEFT)
    assert used.endswith("from which this one was forked; open one in each process, after None")
    assert (broken, unused) == ("mine, after None", "nothing")


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_a_forked_process_is_told_to_open_its_own() -> None:
    told, of_closed, at_close, own = printed_by(FORKED)
    assert told.endswith("from which this one was forked; open one in each process")
    assert at_close == told
    assert of_closed == "this Session is closed, or its event loop is; open a new one"
    assert own.startswith("Session(")


async def test_nobody_from_another_loop_waits_for_a_slot_of_this_one() -> None:
    arrive = asyncio.Event()

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        await arrive.wait()
        writer.write(http(b'{"status":"success","record":{"identity":"7"}}'))

    async with scripted(answer) as server:
        account = CleverTap("ACCOUNT", "passcode", base_url=server.url, max_in_flight=1)
        async with Session(clevertap=account) as session:
            first = asyncio.ensure_future(get(session))
            while not server.heads:
                await asyncio.sleep(0.001)
            with pytest.raises(ConfigurationError, match="another event loop"):
                await asyncio.to_thread(asyncio.run, get(session))
            arrive.set()
            await first
            assert await session.profiles.get(identity="7") is not None


def test_closing_it_from_another_loop_is_refused_and_after_its_loop_is_nothing() -> None:
    session = Session(clevertap=CleverTap("ACCOUNT", "passcode", base_url="http://127.0.0.1:9"))
    first = asyncio.new_event_loop()
    try:
        first.run_until_complete(session.__aenter__())
        with pytest.raises(ConfigurationError, match="another event loop"):
            asyncio.run(session.aclose())
        first.run_until_complete(session.aclose())
    finally:
        first.close()
    asyncio.run(session.aclose())
    with pytest.raises(ConfigurationError, match="closed, or its event loop is"):
        asyncio.run(get(session))


CLOSED = """
import asyncio, sys
from altaprofiles import Session, SessionClosed

tasks = []

async def begin(use):
    session = await Session.from_env().__aenter__()
    call = session.profiles.get(identity="5555555555")
    if use == "a call in flight":
        call.close()
        # As many as fit leave others to wait for a slot.
        calls = [session.profiles.get(identity=str(number)) for number in range(20)]
        tasks.extend(map(asyncio.ensure_future, calls))
        while not session.stats.requests:
            await asyncio.sleep(0.001)
    elif use == "after a call":
        await call
    else:
        call.close()
    return session

async def end(session):
    try:
        await session.profiles.get(identity="5555555555")
    except SessionClosed as error:
        print(error)
    await session.aclose(drain=60)
    await session.aclose()
    print(repr(session).endswith("closed)"))

loop = asyncio.new_event_loop()
session = loop.run_until_complete(begin(sys.argv[1]))
loop.close()
asyncio.run(end(session))
"""


@pytest.mark.parametrize("use", ["no call", "after a call", "a call in flight"])
async def test_one_whose_loop_was_closed_without_its_tasks_is_closed(use: str) -> None:
    async with Emulator(people=5) as emulator:
        done = await anyio.run_process(
            [sys.executable, "-c", CLOSED, use],
            env={**os.environ, **emulator.environment},
            check=False,
        )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode().splitlines() == [
        "this Session is closed, or its event loop is; open a new one",
        "True",
    ]


async def test_closing_it_after_its_tasks_were_cancelled_cancels_nobody() -> None:
    async with Emulator(people=5) as emulator:
        before = asyncio.all_tasks()
        async with session_for(emulator) as session:
            for task in asyncio.all_tasks() - before:
                task.cancel()
        with pytest.raises(ConfigurationError, match="closed"):
            await get(session)


async def test_a_session_from_the_environment_works(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Emulator(people=5) as emulator:
        for name, value in emulator.environment.items():
            monkeypatch.setenv(name, value)
        async with Session.from_env(retry=QUICK) as session:
            assert await session.profiles.get(identity="5555555555") is not None
            assert await session.cdp.get(user_id="BC123")


@pytest.mark.parametrize("given", [[], ["CLEVERTAP_ACCOUNT_ID"], ["CLEVERTAP_PASSCODE"]])
def test_an_environment_without_credentials_names_what_is_missing(
    given: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CLEVERTAP_ACCOUNT_ID", "CLEVERTAP_PASSCODE", "ALTA_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name in given:
        monkeypatch.setenv(name, "set")
    missing = "PASSCODE" if given == ["CLEVERTAP_ACCOUNT_ID"] else "CLEVERTAP_ACCOUNT_ID"
    with pytest.raises(ConfigurationError, match=missing):
        Session.from_env()


async def test_events_tell_of_every_request() -> None:
    attempts: list[Attempt] = []
    faults = {Fault.SERVER_ERROR: 0.3}
    async with Emulator(people=200, seed=7, faults=faults) as emulator:
        async with session_for(emulator, on_event=attempts.append) as session:
            await export(session)
            await get(session)
            assert len(attempts) == session.stats.requests
            assert sum(attempt.bytes for attempt in attempts) == session.stats.bytes
    assert {attempt.operation for attempt in attempts} == {
        "open_chain",
        "get_page",
        "get_profile",
    }
    failed = [attempt for attempt in attempts if attempt.error is not None]
    assert len(failed) == emulator.stats.faults[Fault.SERVER_ERROR]
    assert all(attempt.delay is not None for attempt in failed)


async def test_its_repr_says_whom_it_talks_to() -> None:
    account = CleverTap("ACCOUNT", "passcode", "in1")
    assert repr(Session(clevertap=account)) == f"Session(clevertap={account!r}, alta=None)"


@pytest.mark.slow
async def test_reports_kept_by_a_callback_are_freed_with_their_session() -> None:
    """An error leads by its traceback to the session, and so to a list of the callback's."""
    errors: list[weakref.ref[ServerError]] = []

    async def fail() -> None:
        kept: list[Any] = []
        async with Emulator(people=10, faults={"server_error": 1.0}) as emulator:
            retry = Retry(attempts=1)
            async with session_for(emulator, retry=retry, on_event=kept.append) as session:
                lookups = session.profiles.get_many(["1"], by="identity")
                kept += [lookup async for lookup in lookups]
                with pytest.raises(ServerError) as caught:
                    await session.profiles.get(identity="1")
                errors.append(weakref.ref(caught.value))
                errors.extend(weakref.ref(item.error) for item in kept)

    await fail()
    assert len(errors) == 4
    gc.collect()
    assert [error() for error in errors] == [None] * 4


@pytest.mark.parametrize("copied", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_session_is_neither_pickled_nor_copied(copied: Callable[[object], object]) -> None:
    session = Session(clevertap=CleverTap("W9R", "pass-word"))
    with pytest.raises(TypeError, match=r"open one where it is used, for example with Session\."):
        copied(session)
    with blocking(lambda: session) as blocked:
        with pytest.raises(TypeError, match=r"with altaprofiles\.blocking\(Session\.from_env\)"):
            copied(blocked)


# ------------------------------------------------------------------------------ never closed


def collected() -> list[str]:
    """Return the warnings of sessions that nobody holds."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        gc.collect()
    return [str(one.message) for one in caught if "unclosed Session" in str(one.message)]


@pytest.mark.anyio
async def test_a_session_that_is_dropped_open_is_a_resource_warning() -> None:
    async with Emulator(people=5) as emulator:
        for _ in range(3):
            session = await Session(clevertap=emulator.clevertap).__aenter__()
            await session.profiles.get(identity="5555555555")
            del session
            assert len(collected()) == 1
        assert collected() == []


@pytest.mark.anyio
async def test_a_session_that_is_used_or_closed_is_no_resource_warning() -> None:
    async with Emulator(people=5) as emulator:
        session = await Session(clevertap=emulator.clevertap).__aenter__()
        view = session.with_options(deadline=60).with_options(bulk=True)
        closing = session.aclose
        del session
        assert collected() == []
        await view.profiles.get(identity="5555555555")
        await closing()
        del view, closing
        async with Session(clevertap=emulator.clevertap) as session:
            await session.profiles.get(identity="5555555555")
        session = Session(clevertap=emulator.clevertap)
        del session
        assert collected() == []


def test_a_loop_that_ends_closes_its_sessions_without_a_warning() -> None:
    program = """
import asyncio, gc
from altaprofiles import CleverTap, Session
kept = []
async def main():
    local = await Session(clevertap=CleverTap("ID", "passcode")).__aenter__()
    kept.append(await Session(clevertap=CleverTap("ID", "passcode")).__aenter__())
asyncio.run(main())
gc.collect()
kept.clear()
gc.collect()
"""
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", program], capture_output=True, text=True, check=True
    )
    assert "unclosed Session" not in done.stderr
