"""Iterations that are left: what their sources hold is closed, and nothing runs behind them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any

import anyio
import pytest

from altaprofiles import Profile, Session, SessionClosed
from altaprofiles.emulator import Emulator

from ..support.sessions import EVENT, RANGE, session_for
from ..support.sources import CLOSED, PAUSES, Keys, whose_end_hangs
from ..support.tasks import PATIENCE, nothing_left_behind
from ..support.waiting import until

pytestmark = [pytest.mark.anyio, pytest.mark.each_value]

Read = Callable[[Session, AsyncIterable[Any]], AsyncGenerator[Any, None]]


def get_many(session: Session, source: AsyncIterable[Any]) -> AsyncGenerator[Any, None]:
    return session.profiles.get_many(source, by="identity")


def with_cdp(session: Session, source: AsyncIterable[Any]) -> AsyncGenerator[Any, None]:
    return session.with_cdp(people_of(source))


async def people_of(keys: AsyncIterable[str]) -> AsyncIterator[Profile]:
    # As a caller's own generator does that is read within another.
    async with aclosing(aiter(keys)) as items:  # type: ignore[type-var]
        async for key in items:
            yield Profile.decode(b'{"identity":"%b"}' % key.encode())


@asynccontextmanager
async def a_session() -> AsyncIterator[Session]:
    async with Emulator(people=150, seed=3) as emulator, session_for(emulator) as session:
        yield session


@pytest.mark.parametrize("pause", PAUSES)
@pytest.mark.parametrize("read", [get_many, with_cdp], ids=lambda f: f.__name__)
async def test_a_source_is_closed_when_aclosing_is_over(read: Read, pause: float | None) -> None:
    async with a_session() as session:
        before = tasks()
        keys = Keys(pause)
        async with aclosing(read(session, keys)) as results:
            await anext(results)
        assert keys.log == CLOSED
        assert tasks() == before


async def test_no_request_of_a_chain_is_left_when_aclosing_is_over() -> None:
    async with a_session() as session:
        before = tasks()
        people = session.profiles.by_event(EVENT, **RANGE, windows=2, batch_size=23)
        for results in (aiter(people), people.pages(), session.with_cdp(people)):
            async with aclosing(results):
                await anext(results)
            assert tasks() == before


@pytest.mark.parametrize("pause", PAUSES)
@pytest.mark.parametrize("read", [get_many, with_cdp], ids=lambda f: f.__name__)
@pytest.mark.parametrize("way", ["break", "task", "scope", "deadline", "group", "session"])
async def test_a_source_is_closed_however_its_reader_ends(
    read: Read, way: str, pause: float | None
) -> None:
    keys = Keys(pause)
    async with nothing_left_behind(), a_session() as session:
        if way == "break":
            async for _ in read(session, keys):
                break
        elif way == "task":
            count = 0

            async def read_all() -> None:
                nonlocal count
                async for _ in read(session, keys):
                    count += 1

            task = asyncio.create_task(read_all())
            await until(lambda: count, during=task)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            # In the task, as with a generator that it reads itself.
            assert keys.log == CLOSED
        elif way == "scope":
            with anyio.CancelScope() as scope:
                async with aclosing(read(session, keys)) as results:
                    async for _ in results:
                        scope.cancel()
            assert keys.log == CLOSED
        elif way == "deadline":
            with anyio.CancelScope() as scope:
                async with aclosing(read(session, keys)) as results:
                    await anext(results)
                    # As a deadline that is over while results are waited for.
                    asyncio.get_running_loop().call_soon(scope.cancel)
                    async for _ in results:
                        pass
            assert keys.log == CLOSED
        elif way == "group":
            with suppress(ExceptionGroup):
                async with anyio.create_task_group() as group:
                    group.start_soon(fail)
                    async with aclosing(read(session, keys)) as results:
                        async for _ in results:
                            pass
            assert keys.log == CLOSED
        else:
            results = read(session, keys)
            await anext(results)
            await session.aclose()
            assert keys.log == CLOSED
            with pytest.raises(SessionClosed):
                async for _ in results:
                    pass
        with anyio.fail_after(PATIENCE):
            while keys.log != CLOSED:
                await asyncio.sleep(0.001)


async def fail() -> None:
    await asyncio.sleep(0.02)
    raise ValueError("a sibling")


@pytest.mark.parametrize("pause", PAUSES)
async def test_nothing_runs_behind_a_scope_that_was_cancelled(pause: float | None) -> None:
    async with a_session() as session:
        people = session.profiles.by_event(EVENT, **RANGE, windows=2, batch_size=23)
        before = tasks()
        for results in (
            aiter(people),
            people.pages(),
            session.with_cdp(people),
            get_many(session, Keys(pause)),
            session.cdp.get_many(Keys(pause), by="user_id"),
        ):
            with anyio.CancelScope() as scope:
                async with aclosing(results):
                    await anext(results)
                    scope.cancel()
                    await anext(results)
            assert tasks() == before


async def test_an_error_of_a_source_s_end_is_raised_where_it_is_closed() -> None:
    async def keys() -> AsyncIterator[str]:
        try:
            while True:
                yield "absent"
        finally:
            await asyncio.sleep(0)
            raise OSError("unplugged")

    async with a_session() as session:
        with pytest.raises(OSError, match="unplugged"):
            async with aclosing(get_many(session, keys())) as results:
                await anext(results)
        # It hides no other.
        results = get_many(session, keys())
        await anext(results)
        await session.aclose()
        with pytest.raises(SessionClosed):
            async for _ in results:
                pass


async def test_a_second_cancellation_ends_a_source_whose_end_hangs() -> None:
    log: list[str] = []

    async def read(session: Session) -> None:
        async with aclosing(get_many(session, whose_end_hangs(log))) as results:
            await anext(results)

    async with nothing_left_behind(), a_session() as session:
        task = asyncio.create_task(read(session))
        await until(lambda: log, during=task)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert log == ["closing", "cancelled"]


async def test_a_source_may_close_its_session_as_it_ends() -> None:
    async def keys(session: Session) -> AsyncIterator[str]:
        try:
            while True:
                yield "absent"
        finally:
            await session.aclose()

    with anyio.fail_after(PATIENCE):
        async with nothing_left_behind(), a_session() as session:
            async with aclosing(get_many(session, keys(session))) as results:
                await anext(results)
        assert "closed)" in repr(session)


def test_a_loop_that_ends_closes_a_source_whose_end_hangs() -> None:
    """As `asyncio.run` does after Ctrl-C: everything is cancelled, whatever it waits for."""
    log: list[str] = []

    async def keys() -> AsyncIterator[str]:
        try:
            while True:
                yield "absent"
        finally:
            log.append("closing")
            try:
                await asyncio.Event().wait()
            finally:
                log.append("ended")

    async def main() -> None:
        async with a_session() as session:
            async for _ in get_many(session, keys()):
                break
            while not log:
                await asyncio.sleep(0)
            task = asyncio.current_task()
            assert task is not None
            asyncio.get_running_loop().call_later(0.01, task.cancel)

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(main())
    assert log == ["closing", "ended"]


async def test_a_generator_is_closed_when_aclosing_is_over() -> None:
    log: list[str] = []

    def keys() -> Iterator[str]:
        try:
            while True:
                yield "absent"
        finally:
            log.append("closed")

    async with a_session() as session:
        # Under a name of its own, of which a loop over it would go on.
        named = keys()
        async with aclosing(session.profiles.get_many(named, by="identity")) as results:
            await anext(results)
        assert log == ["closed"]
        assert next(named, None) is None


def tasks() -> set[asyncio.Task[Any]]:
    """Return the tasks of this side, not those of the emulator's connections."""
    return {
        task
        for task in asyncio.all_tasks()
        if getattr(task.get_coro(), "__qualname__", "") != "RequestHandler.start"
    }
