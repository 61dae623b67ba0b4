"""`Session.aclose(drain=…)`: what is under way ends, and nothing new begins."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import anyio
import anyio.lowlevel
import pytest

import altaprofiles
from altaprofiles import CleverTap, InvalidArgument, Session, SessionClosed
from altaprofiles.emulator import Emulator

from .support.servers import gated
from .support.sessions import EVENT, QUICK, RANGE, delivered, expected, session_for
from .support.tasks import PATIENCE, nothing_left_behind
from .support.terminals import emulated, held

pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.anyio, pytest.mark.each_value]

LONG = 600.0
PEOPLE = 200


@asynccontextmanager
async def gate(passing: int) -> AsyncGenerator[tuple[Emulator, Session, asyncio.Event], None]:
    """Give a session whose requests after the first few wait until the event is set."""
    async with (
        nothing_left_behind(),
        Emulator(people=PEOPLE, seed=7) as emulator,
        gated(emulator.url, b"", passing=passing, holding=10**6) as (url, opened),
    ):
        known = emulator.clevertap
        alta = altaprofiles.Alta(emulator.alta.token, base_url=url)
        account = CleverTap(known.account_id, known.passcode, base_url=url)
        yield emulator, Session(clevertap=account, alta=alta, retry=QUICK), opened


async def sent(session: Session, number: int) -> None:
    with anyio.fail_after(PATIENCE):
        while session.stats.requests < number:
            await asyncio.sleep(0.001)


async def refused(session: Session) -> None:
    """Fail unless the session takes nothing new."""
    view = session.with_options(deadline=30)
    people = session.profiles.by_event(EVENT, **RANGE)
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: session.profiles.get(identity="5555555555"),
        lambda: view.profiles.get(identity="5555555555"),
        lambda: session.profiles.count(EVENT, **RANGE),
        lambda: session.cdp.get(user_id="BC123"),
        lambda: session.who_is(identity="5555555555"),
        lambda: anext(aiter(people)),
        lambda: anext(people.pages()),
        lambda: anext(session.profiles.get_many(["5555555555"], by="identity")),
        lambda: anext(session.cdp.get_many(["BC123"], by="user_id")),
        lambda: anext(session.with_cdp(people)),
        lambda: session.export(EVENT, **RANGE, to="never.ndjson"),
        lambda: session.export_lookups(["1"], by="identity", to="never.ndjson"),
        lambda: session.sync(EVENT, since=RANGE["start"], to="never.duckdb", timezone="UTC"),
    ]
    for call in calls:
        with pytest.raises(SessionClosed):
            await call()


async def _count(session: Session, folder: Path) -> object:
    return await session.profiles.count(EVENT, **RANGE)


async def _who(session: Session, folder: Path) -> object:
    return [customer.cdp.keys() for customer in await session.who_is(identity="5555555555")]


async def _people(session: Session, folder: Path) -> object:
    people = session.profiles.by_event(EVENT, **RANGE, batch_size=23)
    return delivered([person async for person in people])


async def _lookups(session: Session, folder: Path) -> object:
    keys = map(str, range(40))
    return sorted([one.key async for one in session.profiles.get_many(keys, by="identity")])


async def _customers(session: Session, folder: Path) -> object:
    people = session.profiles.by_event(EVENT, **RANGE, batch_size=23)
    return delivered([one.profile async for one in session.with_cdp(people) if one.profile])


async def _export(session: Session, folder: Path) -> object:
    return (await session.export(EVENT, **RANGE, to=folder / "p.ndjson", batch_size=23)).people


async def _keys(session: Session, folder: Path) -> object:
    keys = [*map(str, range(40))]
    return (await session.export_lookups(keys, by="identity", to=folder / "k.csv")).not_found


async def _sync(session: Session, folder: Path) -> object:
    since, until = RANGE["start"], RANGE["end"]
    report = await session.sync(
        EVENT, since=since, until=until, to=folder / "p.duckdb", timezone="UTC", batch_size=23
    )
    return report.through


WORK = [_count, _who, _people, _lookups, _customers, _export, _keys, _sync]


@pytest.mark.parametrize("work", WORK, ids=lambda work: work.__name__)
async def test_work_under_way_ends_and_nothing_new_begins(
    work: Callable[[Session, Path], Awaitable[object]], tmp_path: Path
) -> None:
    async with Emulator(people=PEOPLE, seed=7) as emulator, session_for(emulator) as session:
        alone = await work(session, tmp_path)
    async with gate(passing=0) as (_, session, opened), session:
        (new := tmp_path / "new").mkdir()
        running = asyncio.ensure_future(work(session, new))
        await sent(session, 1)
        closing = asyncio.ensure_future(session.aclose(drain=LONG))
        await asyncio.sleep(0)
        await refused(session)
        assert not closing.done()
        assert not running.done()
        opened.set()
        with anyio.fail_after(PATIENCE):
            assert await running == alone
            await closing
        await refused(session)


async def _calls_between_people(session: Session, results: list[str]) -> None:
    async for person in session.profiles.by_event(EVENT, **RANGE, batch_size=23):
        await session.profiles.get(identity=person.identity or "nobody")
        async with anyio.create_task_group() as group:
            group.start_soon(partial(session.cdp.get, user_id=person.identity or "nobody"))
        results.append("person")


async def _iterations_between_keys(session: Session, results: list[str]) -> None:
    async for lookup in session.profiles.get_many(map(str, range(40)), by="identity"):
        async for _ in session.cdp.get_many([lookup.key], by="user_id"):
            results.append("key")


async def _pages_between_customers(session: Session, results: list[str]) -> None:
    people = session.profiles.by_event(EVENT, **RANGE, batch_size=23)
    async for _ in session.with_cdp(people):
        await session.who_is(user_id="nobody")
        results.append("customer")


@pytest.mark.parametrize(
    "work", [_calls_between_people, _iterations_between_keys, _pages_between_customers]
)
async def test_calls_of_a_loop_body_are_part_of_its_iteration(
    work: Callable[[Session, list[str]], Awaitable[None]],
) -> None:
    alone: list[str] = []
    results: list[str] = []
    async with Emulator(people=60, seed=7) as emulator:
        async with session_for(emulator) as session:
            await work(session, alone)
        async with session_for(emulator) as session:
            running = asyncio.ensure_future(work(session, results))
            with anyio.fail_after(PATIENCE):
                while len(results) < 2:
                    await asyncio.sleep(0.001)
                closing = asyncio.ensure_future(session.aclose(drain=LONG))
                await asyncio.sleep(0)
                await refused(session)
                await running
                await closing
    assert len(results) == len(alone) > 10


async def test_after_an_iteration_its_reader_begins_nothing_new() -> None:
    async with gate(passing=0) as (_, session, opened), session:
        opened.set()
        async for _ in session.profiles.by_event(EVENT, **RANGE, batch_size=23):
            break
        left = session.profiles.by_event(EVENT, **RANGE, batch_size=23).pages()
        await anext(left)
        await left.aclose()
        opened.clear()
        call = asyncio.ensure_future(session.profiles.get(identity="5555555555"))
        await asyncio.sleep(0)
        closing = asyncio.ensure_future(session.aclose(drain=LONG))
        await asyncio.sleep(0)
        await refused(session)
        opened.set()
        with anyio.fail_after(PATIENCE):
            await call
            await closing


async def test_calls_that_wait_for_a_slot_are_under_way() -> None:
    async with gate(passing=0) as (_, session, opened), session:
        calls = [
            asyncio.ensure_future(session.profiles.get(identity="5555555555")) for _ in range(20)
        ]
        await sent(session, 3)
        closing = asyncio.ensure_future(session.aclose(drain=LONG))
        await asyncio.sleep(0)
        opened.set()
        with anyio.fail_after(PATIENCE):
            people = await asyncio.gather(*calls)
            await closing
        assert all(person is not None for person in people)


async def test_after_the_seconds_the_rest_is_cut_off(tmp_path: Path) -> None:
    async with gate(passing=0) as (emulator, session, opened):
        async with session:
            works = [asyncio.ensure_future(work(session, tmp_path)) for work in (_people, _who)]
            works.append(asyncio.ensure_future(_export(session, tmp_path)))
            await sent(session, 3)
            await session.aclose(drain=0.05)
            with anyio.fail_after(PATIENCE):
                results: list[object] = await asyncio.gather(*works, return_exceptions=True)
            assert {type(result) for result in results} == {SessionClosed}
        opened.set()
        async with session_for(emulator) as other:
            assert await _export(other, tmp_path) == sum(expected(emulator).values())


@pytest.mark.parametrize(
    ("noun", "work"), [("export", _export), ("lookup", _keys), ("sync", _sync)]
)
@pytest.mark.parametrize("passing", [0, 3])
async def test_an_export_that_is_cut_off_says_so(
    noun: str, work: Callable[[Session, Path], Awaitable[object]], passing: int, tmp_path: Path
) -> None:
    async with gate(passing=passing) as (_, session, _), session:
        running = asyncio.ensure_future(work(session, tmp_path))
        await sent(session, passing + 1)
        await session.aclose(drain=0.05)
        with anyio.fail_after(PATIENCE), pytest.raises(SessionClosed) as caught:
            await running
    message = str(caught.value)
    assert message.startswith(f"the {noun} was cut off, because its Session was closed; ")
    assert f"run the same {noun} again" in message
    assert caught.value.service == "CleverTap"
    assert caught.value.operation is not None


@pytest.mark.parametrize("drain", [0.0, 1e-3])
async def test_a_second_call_ends_a_drain(drain: float) -> None:
    async with gate(passing=0) as (_, session, _), session:
        call = asyncio.ensure_future(session.profiles.get(identity="5555555555"))
        await sent(session, 1)
        closing = asyncio.ensure_future(session.aclose(drain=LONG))
        await asyncio.sleep(0)
        with anyio.fail_after(PATIENCE):
            await session.aclose(drain=drain)
            await closing
            with pytest.raises(SessionClosed):
                await call
            await session.aclose(drain=LONG)


@pytest.mark.parametrize("way", ["task", "scope", "end of the block"])
async def test_a_drain_that_is_cancelled_closes_at_once(way: str) -> None:
    async with gate(passing=0) as (_, session, _):
        async with session:
            call = asyncio.ensure_future(session.profiles.get(identity="5555555555"))
            await sent(session, 1)
            closing = asyncio.ensure_future(asyncio.sleep(0))
            if way == "scope":
                with anyio.move_on_after(0.01) as scope:
                    await session.aclose(drain=LONG)
                assert scope.cancelled_caught
            elif way == "task":
                closing = asyncio.ensure_future(session.aclose(drain=LONG))
                await asyncio.sleep(0)
                closing.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await closing
            else:
                closing = asyncio.ensure_future(session.aclose(drain=LONG))
                await asyncio.sleep(0)
        with anyio.fail_after(PATIENCE), pytest.raises(SessionClosed):
            await call
        with anyio.fail_after(PATIENCE), suppress(asyncio.CancelledError):
            await closing


async def test_with_nothing_under_way_there_is_no_wait() -> None:
    async with Emulator(people=5) as emulator:
        for begun in (False, True):
            session = session_for(emulator)
            if begun:
                await session.__aenter__()
                async for _ in session.profiles.by_event(EVENT, **RANGE):
                    pass
                with suppress(InvalidArgument):
                    await session.profiles.get()
            with anyio.fail_after(PATIENCE):
                await session.aclose(drain=1e6)
            with pytest.raises(SessionClosed):
                await session.profiles.get(identity="5555555555")


@pytest.mark.parametrize("drain", [-1, math.nan, math.inf, True, "2", None])
async def test_a_drain_that_is_no_number_of_seconds_is_refused(drain: Any) -> None:
    async with Emulator(people=5) as emulator, session_for(emulator) as session:
        with pytest.raises(InvalidArgument, match=r"^drain: expected seconds of at least 0, got"):
            await session.aclose(drain=drain)
        with (
            pytest.raises(InvalidArgument, match=r"^drain: "),
            altaprofiles.blocking(partial(session_for, emulator), drain=drain),
        ):
            pass
        assert await session.profiles.get(identity="5555555555") is not None


async def test_neither_a_view_nor_another_loop_drains_it() -> None:
    async with gate(passing=0) as (_, session, opened), session:
        with pytest.raises(altaprofiles.ConfigurationError, match=r"a view that .* is not closed"):
            await session.with_options(deadline=5).aclose(drain=1)
        with pytest.raises(SessionClosed, match="another event loop"):
            await asyncio.to_thread(asyncio.run, session.aclose(drain=1))
        opened.set()
        assert await session.profiles.get(identity="5555555555") is not None


def test_after_its_loop_there_is_nothing_to_drain() -> None:
    session = Session(clevertap=CleverTap("ACCOUNT", "passcode", base_url="http://127.0.0.1:9"))
    asyncio.run(session.__aenter__())
    asyncio.run(session.aclose(drain=LONG))


@pytest.mark.parametrize("what", ["call", "people", "people, each with a call", "keys"])
def test_other_threads_of_a_blocking_session_end_their_calls(what: str) -> None:
    results: list[object] = []
    begun, block_has_ended = threading.Event(), threading.Event()

    def keys() -> Any:
        for key in range(40):
            begun.set()
            yield str(key)

    def work(session: altaprofiles.BlockingSession) -> None:
        if what == "call":
            begun.set()
            results.append(session.profiles.get(identity="5555555555"))
        elif what.startswith("people"):
            begun.set()
            for person in session.profiles.by_event(EVENT, **RANGE, batch_size=23):
                results.append(person)
                block_has_ended.wait(PATIENCE)
                if what != "people":
                    session.profiles.get(identity=person.identity or "nobody")
        else:
            results.extend(session.profiles.get_many(keys(), by="identity"))

    with emulated(people=PEOPLE, seed=7) as emulator, held(emulator, b"", holding=1) as way:
        variables, let_pass = way

        def make_session() -> Session:
            known, url = emulator.clevertap, variables["CLEVERTAP_BASE_URL"]
            account = CleverTap(known.account_id, known.passcode, base_url=url)
            return Session(clevertap=account, retry=QUICK)

        with altaprofiles.blocking(make_session, drain=LONG) as session:
            thread = threading.Thread(target=work, args=[session])
            thread.start()
            begun.wait(PATIENCE)
            while session.stats.requests < 1:
                block_has_ended.wait(0.001)
            threading.Timer(0.05, let_pass).start()
            threading.Timer(0.1, block_has_ended.set).start()
        with pytest.raises(SessionClosed):
            session.profiles.get(identity="5555555555")
        thread.join(PATIENCE)
        people = sum(expected(emulator).values())
    assert len(results) == {"call": 1, "keys": 40}.get(what, people)


async def test_a_drain_does_not_wait_for_what_the_closing_task_reads() -> None:
    with anyio.fail_after(PATIENCE):
        async with Emulator(people=PEOPLE, seed=7) as emulator, session_for(emulator) as session:
            with pytest.raises(SessionClosed):
                async for _ in session.profiles.by_event(EVENT, **RANGE, batch_size=23):
                    await session.aclose(drain=100 * PATIENCE)


async def test_a_drain_of_a_reader_waits_for_the_calls_of_others() -> None:
    found: list[object] = []
    async with Emulator(people=PEOPLE, seed=7, think=0.05) as emulator:
        async with session_for(emulator) as session, anyio.create_task_group() as tasks:

            async def call() -> None:
                found.append(await session.profiles.get(identity="nobody"))

            async for _ in session.profiles.by_event(EVENT, **RANGE, batch_size=23):
                tasks.start_soon(call)
                await anyio.lowlevel.checkpoint()
                await session.aclose(drain=LONG)
                break
    assert found == [None]


Iteration: TypeAlias = Callable[[Session], AsyncGenerator[object, None]]

ITERATIONS: list[Iteration] = [
    lambda session: aiter(session.profiles.by_event(EVENT, **RANGE, batch_size=23)),
    lambda session: session.profiles.by_event(EVENT, **RANGE, batch_size=23).pages(),
    lambda session: session.profiles.get_many(map(str, range(40)), by="identity"),
    lambda session: session.with_cdp(session.profiles.by_event(EVENT, **RANGE, batch_size=23)),
]
KINDS = pytest.mark.parametrize("begin", ITERATIONS, ids=["people", "pages", "keys", "customers"])


READ = pytest.mark.parametrize(
    "read",
    # The second one reads each item in a task of its own, before Python 3.12.
    [anext, lambda results: asyncio.wait_for(anext(results), LONG)],
    ids=["plainly", "wait_for"],
)
Read: TypeAlias = Callable[[AsyncGenerator[object, None]], Awaitable[object]]


@KINDS
@READ
@pytest.mark.parametrize("since", ["before", "after"])
async def test_an_iteration_that_is_handed_over_belongs_to_its_new_reader(
    begin: Iteration, read: Read, since: str
) -> None:
    async with Emulator(people=PEOPLE, seed=7) as emulator:
        async with session_for(emulator) as session:
            everyone = [one async for one in begin(session)]
        async with session_for(emulator) as session:
            handed: asyncio.Future[AsyncGenerator[object, None]] = asyncio.Future()
            results: list[object] = []

            async def read_on() -> None:
                iteration = await handed
                with suppress(StopAsyncIteration):
                    while True:
                        results.append(await read(iteration))
                        await session.profiles.get(identity="nobody")

            reader = asyncio.ensure_future(read_on()) if since == "before" else None
            await asyncio.sleep(0)
            iteration = begin(session)
            results.append(await read(iteration))
            handed.set_result(iteration)
            reader = reader or asyncio.ensure_future(read_on())
            with anyio.fail_after(PATIENCE):
                await session.aclose(drain=100 * PATIENCE)
                await reader
    assert len(results) == len(everyone) > 1


@KINDS
@READ
async def test_a_drain_does_not_wait_for_its_own_reader_however_it_reads(
    begin: Iteration, read: Read
) -> None:
    with anyio.fail_after(PATIENCE):
        async with Emulator(people=PEOPLE, seed=7) as emulator, session_for(emulator) as session:
            iteration = begin(session)
            await read(iteration)
            await session.aclose(drain=100 * PATIENCE)
            with pytest.raises((SessionClosed, StopAsyncIteration)):
                while True:
                    await read(iteration)
