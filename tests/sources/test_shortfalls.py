"""Chains that end without records although the service counts some, as read by `by_event`."""

from __future__ import annotations

import asyncio
import logging
import pickle
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from altaprofiles import ConfigurationError, Incomplete, Page, Unauthorized
from altaprofiles.emulator import Emulator

from ..support.servers import http, listening, scripted
from ..support.sessions import EVENT, RANGE, delivered, expected, session_for
from ..support.shortfalls import WHOLE, Busy, Uncounted, busy_session

pytestmark = pytest.mark.anyio

FIRST = 20260101
DAYS: dict[str, Any] = {"start": FIRST, "end": 20260103}
DAY: dict[str, Any] = {"start": FIRST, "end": FIRST}


@pytest.mark.parametrize("empty", [1, 2])
async def test_an_empty_chain_is_opened_again(empty: int) -> None:
    service = Busy(*[0] * empty, WHOLE)
    async with listening(service) as port, busy_session(port) as session:
        query = session.profiles.by_event("X", **DAY)
        assert [person.identity async for person in query] == service.people(FIRST)
    assert service.asked["open", FIRST] == empty + 1
    assert service.asked["count", FIRST] == 1


async def test_nobody_is_believed_once_counted() -> None:
    service = Busy(0)
    service.counted[FIRST] = 0
    async with listening(service) as port, busy_session(port) as session:
        pages = [page async for page in session.profiles.by_event("X", **DAY).pages()]
    assert [(page.is_empty, page.next_cursor) for page in pages] == [(True, None)]
    assert service.asked == {("open", FIRST): 1, ("page", FIRST): 1, ("count", FIRST): 1}


@pytest.mark.parametrize("counted", [30, 1, None])
async def test_what_stays_empty_is_incomplete(counted: int | None) -> None:
    service = Busy(0)
    service.counted[FIRST] = counted
    pages: list[Page] = []
    async with listening(service) as port, busy_session(port) as session:
        with pytest.raises(Incomplete) as caught:
            async for page in session.profiles.by_event("X", **DAY).pages():
                pages.append(page)
    # Its page would read like the end of a chain of nobody.
    assert pages == []
    assert service.asked["open", FIRST] == 3
    error = pickle.loads(pickle.dumps(caught.value))  # noqa: S301
    assert error.report is None
    assert error.missing == [str(error)]
    assert "'X' 20260101: " in str(error)
    assert ("counts" in str(error)) == (counted is not None)


async def test_a_count_that_failed_is_asked_again_before_giving_up() -> None:
    class Recovering(Busy):
        def answer(self, line: str, body: bytes) -> bytes:
            if self.asked["open", FIRST] == 3:
                self.counted[FIRST] = 0
            return super().answer(line, body)

    service = Recovering(0)
    service.counted[FIRST] = None
    async with listening(service) as port, busy_session(port) as session:
        assert [person async for person in session.profiles.by_event("X", **DAY)] == []
    assert service.asked["open", FIRST] == 3


async def test_each_window_by_itself() -> None:
    service = Busy(WHOLE)
    service.sent[20260102] = [0, 0, WHOLE]
    service.sent[20260103] = [0]
    service.counted[20260103] = 0
    async with listening(service) as port, busy_session(port) as session:
        query = session.profiles.by_event("X", **DAYS, windows=3)
        found = sorted([str(person.identity) async for person in query])
    assert found == sorted(service.people(FIRST, 20260102))
    opened = {day: service.asked["open", day] for day in (FIRST, 20260102, 20260103)}
    counted = {day: service.asked["count", day] for day in (FIRST, 20260102, 20260103)}
    assert opened == {FIRST: 1, 20260102: 3, 20260103: 1}
    assert counted == {FIRST: 0, 20260102: 1, 20260103: 1}


async def test_one_empty_window_is_enough() -> None:
    service = Busy(WHOLE, pages=1)
    service.sent[20260102] = [0]
    async with listening(service) as port, busy_session(port) as session:
        with pytest.raises(
            Incomplete, match="'X' 20260102: 0 records, where the service counts 10"
        ):
            async for person in session.profiles.by_event("X", **DAYS, windows=3):
                assert person.identity in service.people(FIRST, 20260103)


async def test_a_chain_resumed_at_a_cursor_is_exempt() -> None:
    """Its earlier pages may have had the records."""
    service = Busy(0)
    cursor = service.begin(FIRST)
    async with listening(service) as port, busy_session(port) as session:
        query = session.profiles.by_event("X", **DAY, cursor=cursor)
        assert [page.is_empty async for page in query.pages()] == [True]
    assert service.asked == {("open", FIRST): 1, ("page", FIRST): 1}


@pytest.mark.usefixtures("clock")
async def test_the_waits_between_openings(caplog: pytest.LogCaptureFixture) -> None:
    opened: list[float] = []

    class Timed(Busy):
        def begin(self, day: int) -> str:
            opened.append(asyncio.get_running_loop().time())
            return super().begin(day)

    async with listening(Timed(0)) as port, busy_session(port, base_delay=0.5) as session:
        with pytest.raises(Incomplete), caplog.at_level(logging.WARNING, "altaprofiles"):
            async for _ in session.profiles.by_event("X", **DAY):
                pass
    waits = [round(later - earlier) for earlier, later in pairwise(opened)]
    assert waits == [5, 30]
    assert [message.rpartition("; ")[2] for message in caplog.messages] == [
        "it is opened again in 5 s",
        "it is opened again in 30 s",
    ]


async def test_credentials_that_are_refused_for_a_count() -> None:
    async with listening(Uncounted(0)) as port, busy_session(port) as session:
        with pytest.raises(Unauthorized):
            async for _ in session.profiles.by_event("X", **DAY):
                pass


@pytest.mark.parametrize("way", ["leave", "close"])
async def test_the_wait_ends_with_the_session_or_its_reader(
    way: str, caplog: pytest.LogCaptureFixture
) -> None:
    service = Busy(0)
    async with listening(service) as port:
        session = busy_session(port, base_delay=1000.0, max_delay=0.001)
        async with session:
            task = asyncio.ensure_future(anext(aiter(session.profiles.by_event("X", **DAY))))
            with caplog.at_level(logging.WARNING, "altaprofiles"):
                while not any("opened again" in message for message in caplog.messages):
                    await asyncio.sleep(0.001)
            if way == "leave":
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
        if way == "close":
            with pytest.raises(ConfigurationError, match="closed"):
                await task
    assert service.asked["open", FIRST] == 1


@pytest.mark.parametrize("rate", [0.3, 0.9])
async def test_with_the_emulator(rate: float) -> None:
    async with Emulator(people=300, seed=2, faults={"empty_chain": rate}) as emulator:
        async with session_for(emulator) as session:
            query = session.profiles.by_event(EVENT, **RANGE, windows=8)
            assert delivered([person async for person in query]) == expected(emulator)
        assert emulator.stats.faults["empty_chain"] > 0


async def test_an_outage_of_the_emulator() -> None:
    async with Emulator(people=300, seed=2, faults={"empty_chain": 1}) as emulator:
        async with session_for(emulator) as session:
            with pytest.raises(Incomplete):
                async for _ in session.profiles.by_event(EVENT, **RANGE):
                    pass
        assert emulator.stats.requests["open_chain"] == 3


async def test_a_service_that_names_its_cursors_otherwise() -> None:
    async with Emulator(people=300, seed=2, faults={"other_cursor": 1}) as emulator:
        async with session_for(emulator) as session:
            query = session.profiles.by_event(EVENT, **RANGE, batch_size=23)
            assert delivered([person async for person in query]) == expected(emulator)
        assert emulator.stats.faults["other_cursor"] > 2


ECHOES: dict[str, Callable[[int], dict[str, int]]] = {
    "the first": lambda number: {"cursor": 0},
    "the one before": lambda number: {"cursor": max(number - 1, 0)},
    "both, and its own": lambda number: {
        "nextCursor": max(number - 1, 0),
        "cursor_id": 0,
        "after": number,
    },
}


@pytest.mark.parametrize("windows", [1, 3])
@pytest.mark.parametrize("name", ECHOES)
async def test_a_cursor_sent_back_in_each_page_is_no_continuation(name: str, windows: int) -> None:
    service = Busy(pages=4)
    service.echo = ECHOES[name]
    async with listening(service) as port, busy_session(port) as session:
        query = session.profiles.by_event("X", **DAYS, windows=windows)
        found = sorted([str(person.identity) async for person in query])
    days = (FIRST, 20260102, 20260103)[:windows]
    assert found == sorted(service.people(*days))
    assert sum(service.asked["page", day] for day in days) == 4 * windows


async def test_the_cursors_of_a_chain_opened_again_may_be_those_of_before() -> None:
    openings = 0

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        nonlocal openings
        following = b',"cursor":"c1"' if b"cursor=c0" in head else b""
        if b"/counts/" in head:
            body = b'{"status":"success","count":2}'
        elif head.startswith(b"POST"):
            openings += 1
            body = b'{"status":"success","cursor":"c0"}'
        elif openings == 1:
            body = b'{"status":"success"%b}' % following
        else:
            record = b'{"identity":"a"}' if following else b'{"identity":"b"}'
            body = b'{"status":"success","records":[%b]%b}' % (record, following)
        writer.write(http(body))

    async with scripted(answer) as server:
        async with busy_session(int(server.url.rpartition(":")[2])) as session:
            found = [person.identity async for person in session.profiles.by_event("X", **DAY)]
    assert (found, openings) == (["a", "b"], 2)
