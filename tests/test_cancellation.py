"""Storms of cancellations: each is delivered in the call that was cancelled, or not at all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from altaprofiles import CleverTap, Retry, Session
from altaprofiles.emulator import Emulator

from .support.servers import always, http, scripted
from .support.sessions import EVENT, RANGE, session_for
from .support.tasks import nothing_left_behind
from .support.thorough import examples
from .support.waiting import until

pytestmark = [pytest.mark.anyio, pytest.mark.each_value]

WAYS = ("task", "scope", "timeout")
STRIKES = examples(8, 16)

Call = Callable[[Session, Path], Awaitable[Any]]


async def export(session: Session, to: Path) -> Any:
    return await session.export(EVENT, **RANGE, to=to, windows=2, batch_size=92)


async def export_lookups(session: Session, to: Path) -> Any:
    return await session.export_lookups([*IDS, "nobody"], by="identity", to=to)


async def by_event(session: Session, to: Path) -> Any:
    return [person async for person in session.profiles.by_event(EVENT, **RANGE, windows=2)]


async def get_many(session: Session, to: Path) -> Any:
    return [lookup async for lookup in session.profiles.get_many(IDS, by="identity")]


async def with_cdp(session: Session, to: Path) -> Any:
    people = session.profiles.by_event(EVENT, **RANGE)
    return [customer async for customer in session.with_cdp(people, ordered=True)]


async def get(session: Session, to: Path) -> Any:
    return [await session.profiles.get(identity=IDS[0])]


async def count(session: Session, to: Path) -> Any:
    return await session.profiles.count(EVENT, **RANGE)


async def open_and_close(session: Session, to: Path) -> Any:
    async with session:
        return [await session.profiles.get(identity=IDS[0])]


IDS = [f"absent-{number}" for number in range(30)]


class Storm:
    """Strikes once: `turns` turns of the loop after `begins` first returns True."""

    def __init__(self, turns: float, begins: Callable[[], bool] = lambda: True) -> None:
        self.turns = 0
        self.strike: Callable[[], object] = lambda: None
        self._left = turns
        self._begins = begins
        self._begun = self._over = False

    def turn(self) -> None:
        if self._over:
            return
        self.turns += 1
        self._begun = self._begun or self._begins()
        if self._begun:
            self._left -= 1
            if self._left < 0:
                self._over = True
                self.strike()
                return
        asyncio.get_running_loop().call_soon(self.turn)

    def end(self) -> None:
        self._over = True


async def weather(storm: Storm, way: str, call: Callable[[], Awaitable[Any]]) -> Any:
    """Return the result of `call`, or None if the storm has cancelled it.

    Asserts that nothing of the cancellation is left afterwards.
    """
    task = asyncio.current_task()
    assert task is not None
    result = None

    async def run() -> None:
        nonlocal result
        storm.turn()
        try:
            result = await call()
        finally:
            storm.end()

    try:
        if way == "scope":
            with anyio.CancelScope() as scope:
                storm.strike = scope.cancel
                await run()
            assert scope.cancelled_caught or result is not None
        elif way == "timeout":
            async with asyncio.timeout(None) as timeout:
                storm.strike = lambda: timeout.reschedule(asyncio.get_running_loop().time())
                await run()
        else:
            storm.strike = task.cancel
            await run()
    except TimeoutError:
        assert way == "timeout"
        result = None
    except asyncio.CancelledError:
        assert way == "task"
        assert task.uncancel() == 0
        result = None
    else:
        if way == "task" and task.cancelling():
            # Once the result is there, whoever cancelled the task may not learn of it.
            raise AssertionError("a cancellation was neither delivered nor too late")
    for _ in range(10):
        # A cancellation that was put off would be raised here.
        await asyncio.sleep(0)
    assert task.cancelling() == 0
    return result


@asynccontextmanager
async def service() -> AsyncIterator[Emulator]:
    async with Emulator(people=150, seed=3) as emulator:
        yield emulator


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "call",
    [export, export_lookups, by_event, get_many, with_cdp, get, count],
    ids=lambda f: f.__name__,
)
async def test_at_any_turn_of_the_loop(tmp_path: Path, call: Call, way: str) -> None:
    to = tmp_path / "p.ndjson"
    async with service() as emulator, session_for(emulator) as session:
        # The first call opens the connections and imports modules.
        await call(session, to)
        calm = Storm(float("inf"))
        whole = await weather(calm, way, lambda: call(session, to))
        for strike in range(STRIKES):
            async with nothing_left_behind():
                storm = Storm(calm.turns * strike * 1.1 / STRIKES)
                await weather(storm, way, lambda: call(session, to))
        # Nothing of the cancelled calls is in the way of another.
        again = await call(session, to)
        if isinstance(whole, list):
            assert len(again) == len(whole)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("call", [export, export_lookups], ids=lambda f: f.__name__)
async def test_while_a_complete_export_tidies_up(tmp_path: Path, call: Call, way: str) -> None:
    """The output stays, and the cancellation is raised by the call all the same."""
    cancelled = 0
    async with service() as emulator, session_for(emulator) as session:
        for turns in range(0, 40, 40 // examples(8, 20)):
            to = tmp_path / f"{turns}.ndjson"
            manifest = to.with_name(f"{to.name}.manifest.json")
            async with nothing_left_behind():
                storm = Storm(turns, manifest.exists)
                report = await weather(storm, way, partial(call, session, to))
            cancelled += report is None
            assert to.exists()
            assert manifest.exists()
            assert not to.with_name(f"{to.name}.export").exists()
    assert cancelled


async def test_the_report_of_a_complete_export_that_was_cancelled(tmp_path: Path) -> None:
    to = tmp_path / "p.ndjson"
    manifest = to.with_name(f"{to.name}.manifest.json")
    async with service() as emulator, session_for(emulator) as session:
        storm = Storm(0, manifest.exists)
        task = asyncio.current_task()
        assert task is not None
        storm.strike = task.cancel
        storm.turn()
        with pytest.raises(asyncio.CancelledError) as caught:
            await export(session, to)
        task.uncancel()
    assert vars(caught.value)["report"].complete
    assert "complete" in "".join(caught.value.__notes__)


@pytest.mark.parametrize("way", WAYS)
async def test_opening_and_closing(tmp_path: Path, way: str) -> None:
    async with service() as emulator:
        calm = Storm(float("inf"))
        await weather(calm, way, lambda: open_and_close(session_for(emulator), tmp_path))
        for strike in range(STRIKES):
            session = session_for(emulator)
            async with nothing_left_behind():
                storm = Storm(calm.turns * strike * 1.1 / STRIKES)
                await weather(storm, way, partial(open_and_close, session, tmp_path))
                await session.aclose()


async def test_a_cancellation_comes_out_in_its_own_words_where_a_pause_ends_as_well() -> None:
    # However long the machine stands still, there is another attempt.
    retry = Retry(attempts=1000, base_delay=0.2, max_delay=0.2)
    async with scripted(always(http(b"", "500 Oops"))) as server:
        account = CleverTap("id", "passcode", base_url=server.url)
        async with Session(clevertap=account, retry=retry) as session:
            task = asyncio.create_task(session.profiles.get(identity="7"))
            await until(lambda: session.stats.retries > 0, during=task)
            # The end of the pause is due, and is the next thing that happens. A notebook's kernel,
            # too, is heard only when something wakes the loop.
            time.sleep(0.2)  # noqa: ASYNC251
            # In the turn that begins here, behind this.
            await asyncio.sleep(0)
            asyncio.get_running_loop().call_soon(task.cancel, "interrupted")
            with pytest.raises(asyncio.CancelledError, match=r"^interrupted$"):
                await task
