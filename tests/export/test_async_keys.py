"""Durable look-ups of keys from async iterables: what these hold open, and how they are closed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from altaprofiles import AltaProfilesError, Incomplete, Session, SessionClosed
from altaprofiles.emulator import Emulator

from ..support.jobs import Halt
from ..support.sessions import session_for
from ..support.sources import (
    CLOSED,
    PAUSES,
    Keys,
    in_a_group,
    in_a_scope,
    in_a_timeout,
    numbers,
    whose_end_hangs,
    within,
)
from ..support.tasks import end_midway, nothing_left_behind
from ..support.waiting import until

pytestmark = [pytest.mark.anyio, pytest.mark.each_value]

SCOPES: dict[str, Callable[[AsyncIterator[str]], AsyncIterator[str]]] = {
    "timeout": in_a_timeout,
    "scope": lambda keys: in_a_scope(keys, "last"),
    "group": in_a_group,
}


@asynccontextmanager
async def a_session() -> AsyncIterator[tuple[Session, Emulator]]:
    async with Emulator(people=20, seed=3) as emulator, session_for(emulator) as session:
        yield session, emulator


def asked(emulator: Emulator) -> int:
    return sum(emulator.stats.requests.values())


async def few(pause: float | None) -> AsyncIterator[str]:
    """Yield the same few keys again and again."""
    async for number in numbers(pause):
        yield f"absent-{number % 10}"


@pytest.mark.parametrize("is_within", [False, True])
@pytest.mark.parametrize("pause", PAUSES)
@pytest.mark.parametrize("kind", SCOPES)
async def test_what_comes_of_a_scope_of_the_keys_is_their_decision(
    tmp_path: Path, kind: str, pause: float | None, is_within: bool
) -> None:
    """Wherever the task is that reads them: in the source, or waiting until others are on disk."""
    keys = SCOPES[kind](few(pause))
    if is_within:
        keys = within(keys)
    to = tmp_path / "people.ndjson"
    async with a_session() as (session, emulator):
        looking_up = asyncio.ensure_future(session.export_lookups(keys, by="identity", to=to))
        async with nothing_left_behind():
            await asyncio.wait([looking_up])
        assert looking_up.cancelling() == 0
        if is_within and pause is None:
            # It waits for nothing, and its timer is nobody's.
            with pytest.raises(AltaProfilesError, match="so keys are missing"):
                looking_up.result()
        elif kind == "timeout":
            with pytest.raises(TimeoutError):
                looking_up.result()
        elif kind == "group":
            with pytest.raises(ExceptionGroup) as caught:
                looking_up.result()
            assert [str(error) for error in caught.value.exceptions] == ["unplugged"]
        else:
            report = looking_up.result()
            names = [*(f"absent-{number}" for number in range(report.keys - 1)), "last"]
            assert Path(f"{to}.not-found.txt").read_text().split() == names
            return
        assert not asked(emulator)
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("pause", PAUSES)
@pytest.mark.parametrize("way", ["task", "scope", "timeout", "callback", "deadline"])
async def test_keys_are_closed_however_their_reading_ends(
    tmp_path: Path, way: str, pause: float | None
) -> None:
    keys = Keys(pause)
    ending: list[Callable[[], object]] = []

    def halt(_: object) -> None:
        raise Halt

    async with nothing_left_behind(), a_session() as (session, _):
        arguments: dict[str, Any] = {"by": "identity", "to": tmp_path / "people.ndjson"}
        if way == "callback":
            with pytest.raises(Halt):
                await session.export_lookups(keys, **arguments, on_progress=halt)
        elif way == "deadline":
            with pytest.raises(Incomplete, match="did not finish"):
                await session.export_lookups(keys, **arguments, deadline=0.5)
        else:
            arguments["on_progress"] = lambda _: ending[0]()
            await end_midway(way, ending, lambda: session.export_lookups(keys, **arguments))
        assert keys.log == CLOSED
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
    assert list(tmp_path.iterdir()) == []


async def test_a_second_cancellation_ends_keys_whose_end_hangs(tmp_path: Path) -> None:
    log: list[str] = []
    async with nothing_left_behind(), a_session() as (session, _):
        looking_up = asyncio.ensure_future(
            session.export_lookups(
                whose_end_hangs(log),
                by="identity",
                to=tmp_path / "people.ndjson",
                on_progress=lambda _: looking_up.cancel() if not log else None,
            )
        )
        await until(lambda: log, during=looking_up)
        looking_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await looking_up
    assert log == ["closing", "cancelled"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [SystemExit("bad row"), KeyboardInterrupt(), OSError("torn")])
async def test_what_the_keys_raise_is_raised_as_it_is(tmp_path: Path, error: BaseException) -> None:
    async def keys() -> AsyncIterator[str]:
        yield "1"
        await asyncio.sleep(0)
        raise error

    async with a_session() as (session, _), nothing_left_behind():
        with pytest.raises(type(error)) as caught:
            await session.export_lookups(keys(), by="identity", to=tmp_path / "people.ndjson")
    assert caught.value is error
    assert list(tmp_path.iterdir()) == []


async def test_keys_that_are_cancelled_from_inside_are_an_error(tmp_path: Path) -> None:
    async def keys() -> AsyncIterator[str]:
        yield "1"
        helper = asyncio.ensure_future(asyncio.Event().wait())
        helper.cancel()
        await helper

    async with a_session() as (session, _):
        with pytest.raises(AltaProfilesError, match="so keys are missing"):
            await session.export_lookups(keys(), by="identity", to=tmp_path / "people.ndjson")


async def test_keys_may_close_their_session(tmp_path: Path) -> None:
    async def keys(session: Session) -> AsyncIterator[str]:
        yield "1"
        await session.aclose()

    async with nothing_left_behind(), a_session() as (session, _):
        with pytest.raises(SessionClosed):
            await session.export_lookups(
                keys(session), by="identity", to=tmp_path / "people.ndjson"
            )


async def test_answers_stay_when_the_keys_of_a_later_run_time_out(tmp_path: Path) -> None:
    to = tmp_path / "people.ndjson"

    async def keys() -> AsyncIterator[str]:
        for number in range(1000):
            yield f"absent-{number}"

    def halt(progress: Any) -> None:
        if progress.answered:
            raise Halt

    async with a_session() as (session, emulator):
        with pytest.raises(Halt):
            await session.export_lookups(keys(), by="identity", to=to, on_progress=halt)
        before = asked(emulator)
        assert before < 1000
        with pytest.raises(TimeoutError):
            await session.export_lookups(in_a_timeout(few(None)), by="identity", to=to)
        assert asked(emulator) == before
        report = await session.export_lookups(keys(), by="identity", to=to)
        assert (report.not_found, asked(emulator) - before) == (1000, 1000 - report.resumed)
        assert report.resumed > 0


async def test_a_plain_generator_is_closed_when_its_look_up_is_cancelled(tmp_path: Path) -> None:
    log: list[str] = []
    task: asyncio.Task[Any]

    def keys() -> Iterator[str]:
        try:
            for number in range(10_000):
                if number == 5000:
                    task.cancel()
                yield f"absent-{number}"
        finally:
            log.append("closed")

    # Under a name of its own, of which a loop over it would go on.
    named = keys()
    async with a_session() as (session, _):
        look_up = session.export_lookups(named, by="identity", to=tmp_path / "found.ndjson")
        task = asyncio.create_task(look_up)
        with pytest.raises(asyncio.CancelledError):
            await task
    assert log == ["closed"]
    assert next(named, None) is None
