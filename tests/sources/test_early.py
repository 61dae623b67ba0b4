"""Pages requested before the preceding one has been read: never wrong, never too many."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from functools import partial
from itertools import pairwise

import anyio
import pytest
from anyio import wait_all_tasks_blocked
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec import Struct

from altaprofiles import NotReady, Page, Session
from altaprofiles.credentials import CleverTap
from altaprofiles.flow.paging import Chain, walk

from ..support.servers import http, scripted
from ..support.sessions import QUICK
from ..support.tasks import nothing_left_behind, spawn
from ..support.waiting import until

pytestmark = pytest.mark.anyio


class Slow:
    """A chain whose pages arrive when a test lets them. A request announces the next cursor.

    Attributes:
        asked: the requested cursors, in order.
        arriving: the cursors in flight, each with an event that lets its page arrive.
    """

    def __init__(self, following: dict[str, str | None], announced: dict[str, str]) -> None:
        self.asked: list[str] = []
        self.arriving: dict[str, asyncio.Event] = {}
        self._following = following
        self._announced = announced

    async def open(self) -> str:
        return "a0"

    async def fetch(
        self, cursor: str, ahead: Callable[[str], None], asked: Callable[[str], bool]
    ) -> Page:
        self.asked.append(cursor)
        assert cursor not in self.arriving, "asked for twice at once"
        self.arriving[cursor] = asyncio.Event()
        try:
            if cursor in self._announced:
                ahead(self._announced[cursor])
            await self.arriving[cursor].wait()
        finally:
            del self.arriving[cursor]
        if cursor not in self._following:
            raise NotReady(cursor)
        return Page([], b"", cursor, self._following[cursor])

    def walked(self, prefetch: int) -> AsyncGenerator[Page, None]:
        return walk([Chain(self.open, self.fetch)], prefetch=prefetch, spawn=spawn)


async def first_of(pages: AsyncGenerator[Page, None]) -> None:
    await anext(pages)


def straight(pages: int) -> dict[str, str | None]:
    return {f"a{n}": f"a{n + 1}" if n + 1 < pages else None for n in range(pages)}


def right(following: dict[str, str | None]) -> dict[str, str]:
    return {cursor: after for cursor, after in following.items() if after is not None}


@pytest.mark.parametrize("prefetch", [0, 1, 2, 5])
async def test_as_many_pages_are_on_their_way_at_once_as_may_be_held(prefetch: int) -> None:
    chain = Slow(straight(20), right(straight(20)))
    pages = chain.walked(prefetch)
    async with anyio.create_task_group() as group:
        group.start_soon(first_of, pages)
        await wait_all_tasks_blocked()
        assert list(chain.arriving) == [f"a{n}" for n in range(prefetch + 1)]
        group.cancel_scope.cancel()
    await pages.aclose()


async def test_pages_that_arrive_out_of_order_are_delivered_in_order() -> None:
    chain = Slow(straight(3), right(straight(3)))
    found: list[str] = []

    async def read() -> None:
        found.extend([page.cursor async for page in chain.walked(2)])

    async with anyio.create_task_group() as group:
        group.start_soon(read)
        for cursor in ("a2", "a1"):
            await wait_all_tasks_blocked()
            chain.arriving[cursor].set()
        await wait_all_tasks_blocked()
        assert found == []
        chain.arriving["a0"].set()
    assert found == ["a0", "a1", "a2"]


async def test_what_a_wrong_announcement_brought_is_dropped_and_its_error_never_seen() -> None:
    announced = {"a0": "wrong", "wrong": "worse", "a1": "a2", "a2": "a3"}
    chain = Slow(straight(4), announced)
    found: list[str] = []

    async def read() -> None:
        found.extend([page.cursor async for page in chain.walked(2)])

    async with nothing_left_behind(), anyio.create_task_group() as group:
        group.start_soon(read)
        await wait_all_tasks_blocked()
        assert list(chain.arriving) == ["a0", "wrong", "worse"]
        chain.arriving["wrong"].set()
        await wait_all_tasks_blocked()
        chain.arriving["a0"].set()
        await wait_all_tasks_blocked()
        # Their share of the allowance is free again.
        assert list(chain.arriving) == ["a1", "a2", "a3"]
        while len(found) < 4:
            for arriving in chain.arriving.values():
                arriving.set()
            await wait_all_tasks_blocked()
    assert found == ["a0", "a1", "a2", "a3"]


async def test_whatever_goes_wrong_with_a_wrong_guess_is_dropped_with_it() -> None:
    class Odd(Slow):
        async def fetch(
            self, cursor: str, ahead: Callable[[str], None], asked: Callable[[str], bool]
        ) -> Page:
            if cursor == "wrong":
                raise RuntimeError("no error of this library")
            return await super().fetch(cursor, ahead, asked)

    chain = Odd(straight(2), {"a0": "wrong"})
    found: list[str] = []

    async def read() -> None:
        found.extend([page.cursor async for page in chain.walked(2)])

    async with anyio.create_task_group() as group:
        group.start_soon(read)
        for cursor in ("a0", "a1"):
            await wait_all_tasks_blocked()
            chain.arriving[cursor].set()
    assert found == ["a0", "a1"]


async def test_what_is_known_to_be_wrong_at_once_is_not_asked_for() -> None:
    class Hasty(Slow):
        async def fetch(
            self, cursor: str, ahead: Callable[[str], None], asked: Callable[[str], bool]
        ) -> Page:
            self.asked.append(cursor)
            ahead("wrong")
            return Page([], b"", cursor, self._following[cursor])

    chain = Hasty(straight(3), {})
    assert [page.cursor async for page in chain.walked(2)] == chain.asked == ["a0", "a1", "a2"]


async def test_the_failure_of_an_early_page_comes_after_the_pages_before_it() -> None:
    chain = Slow({"a0": "a1", "a1": "gone"}, {"a0": "a1", "a1": "gone"})
    found: list[str] = []

    async def read() -> None:
        with pytest.raises(NotReady, match="gone") as caught:
            async for page in chain.walked(2):
                found.append(page.cursor)
        assert "page 3" in caught.value.__notes__[0]
        assert "'gone'" in caught.value.__notes__[0]

    async with anyio.create_task_group() as group:
        group.start_soon(read)
        for cursor in ("gone", "a1", "a0"):
            await wait_all_tasks_blocked()
            assert found == []
            chain.arriving[cursor].set()
    assert found == ["a0", "a1"]


async def test_leaving_ends_what_was_asked_for_early() -> None:
    chain = Slow(straight(20), right(straight(20)))
    async with nothing_left_behind():
        pages = chain.walked(3)
        async with anyio.create_task_group() as group:
            group.start_soon(first_of, pages)
            await wait_all_tasks_blocked()
            group.cancel_scope.cancel()
        await pages.aclose()
    assert chain.arriving == {}


class Plan(Struct):
    """The behaviour of one request: it may announce a cursor, and lets other tasks run first."""

    announces: str | None
    turns: int


class Random:
    """A chain with right and wrong announcements, which arrives in any order."""

    def __init__(self, truth: list[str], plans: dict[str, Plan]) -> None:
        self.delivered = 0
        self.most = 0
        self.held: Counter[str] = Counter()
        self._truth = dict(zip(truth, [*truth[1:], None], strict=True))
        self._plans = plans

    async def open(self) -> str:
        return "0"

    async def fetch(
        self, cursor: str, ahead: Callable[[str], None], asked: Callable[[str], bool]
    ) -> Page:
        plan = self._plans.get(cursor, Plan(None, 1))
        self.held[cursor] += 1
        assert self.held[cursor] == 1, "asked for twice at once"
        self.most = max(self.most, self.held.total())
        try:
            await asyncio.sleep(0)
            for _ in range(2):  # twice, as with a retry
                if plan.announces is not None:
                    ahead(plan.announces)
                for _ in range(plan.turns):
                    await asyncio.sleep(0)
            if cursor not in self._truth:
                raise NotReady(cursor)
            return Page([], b"", cursor, self._truth[cursor])
        finally:
            # An abandoned request takes a moment to end.
            with anyio.CancelScope(shield=True):
                for _ in range(8):
                    await asyncio.sleep(0)
            self.held[cursor] -= 1


NAMES = [str(number) for number in range(8)]


@settings(max_examples=300, deadline=None)
@given(
    length=st.integers(1, len(NAMES)),
    prefetch=st.integers(0, 4),
    plans=st.dictionaries(
        st.sampled_from([*NAMES, "wrong"]),
        st.builds(
            Plan,
            announces=st.one_of(st.none(), st.sampled_from([*NAMES, "wrong"])),
            turns=st.integers(0, 6),
        ),
    ),
    truthful=st.booleans(),
    pauses=st.lists(st.integers(0, 5), min_size=8, max_size=8),
)
@example(
    length=8,
    prefetch=4,
    plans={"0": Plan("2", 0), "1": Plan("2", 0)},
    truthful=False,
    pauses=[0] * 8,
)
def test_whatever_is_announced_the_chain_is_delivered_as_it_is(
    length: int, prefetch: int, plans: dict[str, Plan], truthful: bool, pauses: list[int]
) -> None:
    truth = NAMES[:length]
    if truthful:
        for cursor, after in pairwise(truth):
            plans[cursor] = Plan(after, plans.get(cursor, Plan(None, 1)).turns)
    chain = Random(truth, plans)

    async def read() -> list[str]:
        found = []
        pages = walk([Chain(chain.open, chain.fetch)], prefetch=prefetch, spawn=spawn)
        async for page in pages:
            found.append(page.cursor)
            for _ in range(pauses[len(found) % 8]):
                await asyncio.sleep(0)
        return found

    assert asyncio.run(read()) == truth
    assert chain.most <= prefetch + 1
    assert chain.held.total() == 0


# -------------------------------------------------------------------------------- over real sockets


class Streaming:
    """A service whose pages stop after their head until a test lets them continue.

    Attributes:
        arrived: the number of requests for each cursor.
        go_on: an event for each cursor, which lets the rest of its page be sent.
    """

    def __init__(self, pages: int, *, key_last: bool = False, cut: Counter[int]) -> None:
        self.arrived: Counter[int] = Counter()
        self.go_on = [asyncio.Event() for _ in range(pages)]
        self._pages = pages
        self._key_last = key_last
        self._cut = cut

    def has_arrived(self, number: int) -> bool:
        return self.arrived[number] > 0

    async def __call__(self, head: bytes, writer: asyncio.StreamWriter) -> None:
        if head.startswith(b"POST"):
            writer.write(http(b'{"status":"success","cursor":"c0"}'))
            return
        number = int(head.split(b"cursor=c")[1].split()[0])
        self.arrived[number] += 1
        following = b'"next_cursor":"c%d"' % (number + 1) if number + 1 < self._pages else None
        records = b'"records":[{"identity":"%d"}%b]' % (number, b" " * 70_000)
        members = [b'"status":"success"', *([] if following is None else [following]), records]
        if self._key_last and following is not None:
            members = [b'"status":"success"', records, following]
        body = b"{" + b",".join(members) + b"}"
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body[:2000])
        await writer.drain()
        await self.go_on[number].wait()
        if self._cut[number]:
            self._cut[number] -= 1
            writer.close()
            return
        writer.write(body[2000:])


def query(session: Session, prefetch: int) -> AsyncGenerator[Page, None]:
    return session.profiles.by_event(
        "Charged", start=20260101, end=20260102, prefetch=prefetch
    ).pages()


@pytest.mark.parametrize("max_in_flight", [1, 2, 3])
async def test_the_next_page_is_asked_for_while_the_present_one_arrives(
    max_in_flight: int,
) -> None:
    service = Streaming(5, cut=Counter())
    async with scripted(service) as server:
        account = CleverTap("A", "passcode", base_url=server.url, max_in_flight=max_in_flight)
        async with Session(clevertap=account, retry=QUICK) as session:
            pages = query(session, prefetch=4)
            reading = asyncio.ensure_future(anext(pages))
            await until(lambda: len(service.arrived) == max_in_flight)
            await wait_all_tasks_blocked()
            # All pages are in flight, none has arrived, and no slot is left.
            assert dict(service.arrived) == dict.fromkeys(range(max_in_flight), 1)
            for arriving in service.go_on:
                arriving.set()
            first = await reading
            found = [first.profiles[0].identity]
            found += [page.profiles[0].identity async for page in pages]
    assert found == ["0", "1", "2", "3", "4"]
    assert set(service.arrived.values()) == {1}


async def test_with_the_cursor_at_its_end_a_page_is_waited_for() -> None:
    service = Streaming(3, key_last=True, cut=Counter())
    async with scripted(service) as server:
        account = CleverTap("A", "passcode", base_url=server.url)
        async with Session(clevertap=account, retry=QUICK) as session:
            pages = query(session, prefetch=2)
            for number in range(3):
                reading = asyncio.ensure_future(anext(pages))
                await until(partial(service.has_arrived, number))
                await asyncio.sleep(0.02)
                assert sum(service.arrived.values()) == number + 1
                service.go_on[number].set()
                await reading
            await pages.aclose()


async def test_a_page_that_breaks_off_is_retried_and_its_successor_left_alone() -> None:
    service = Streaming(3, cut=Counter({0: 2}))
    async with scripted(service) as server:
        account = CleverTap("A", "passcode", base_url=server.url)
        async with Session(clevertap=account, retry=QUICK) as session:
            pages = query(session, prefetch=1)
            reading = asyncio.ensure_future(anext(pages))
            await until(lambda: service.arrived[1] == 1)
            service.go_on[0].set()
            await reading
            assert dict(service.arrived) == {0: 3, 1: 1}
            service.go_on[1].set()
            service.go_on[2].set()
            assert [page.profiles[0].identity async for page in pages] == ["1", "2"]
    assert dict(service.arrived) == {0: 3, 1: 1, 2: 1}


async def test_a_garbled_head_that_names_a_wrong_cursor_costs_nobody() -> None:
    asked: Counter[bytes] = Counter()

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        if head.startswith(b"POST"):
            writer.write(http(b'{"status":"success","cursor":"c0"}'))
            return
        cursor = head.split(b"cursor=")[1].split()[0]
        asked[cursor] += 1
        if cursor == b"c9":
            writer.write(http(b'{"status":"fail","error":"Incorrect Usage","code":3}', "400 Bad"))
        elif cursor == b"c0":
            following, end = (b"c9", b"") if asked[cursor] == 1 else (b"c1", b"]}")
            records = b'{"identity":"0"}' + b" " * 300_000
            body = b'{"next_cursor":"%b","status":"success","records":[%b%b'
            writer.write(http(body % (following, records, end)))
        else:
            writer.write(http(b'{"status":"success","records":[{"identity":"1"}]}'))

    async with scripted(answer) as server:
        account = CleverTap("A", "passcode", base_url=server.url)
        async with Session(clevertap=account, retry=QUICK) as session:
            found = [page.profiles[0].identity async for page in query(session, prefetch=2)]
    assert found == ["0", "1"]
    assert asked[b"c0"] == 2
    assert asked[b"c1"] == 1


async def test_a_single_call_goes_before_the_pages_that_wait() -> None:
    asked: list[str] = []
    arrive = asyncio.Event()

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        if head.startswith(b"POST"):
            writer.write(http(b'{"status":"success","cursor":"c%d"}' % len(asked)))
        elif b"identity=" in head:
            writer.write(http(b'{"status":"success","record":{"identity":"7"}}'))
        else:
            await arrive.wait()
            writer.write(http(b'{"status":"success","records":[{"identity":"1"}]}'))
        asked.append("get" if b"identity=" in head else head[:4].decode())

    async with scripted(answer) as server:
        account = CleverTap("A", "passcode", base_url=server.url, max_in_flight=1)
        async with Session(clevertap=account, retry=QUICK) as session:
            export = session.profiles.by_event("E", start=20260101, end=20260104, windows=4)
            reading = asyncio.ensure_future(anext(people := aiter(export)))
            await until(lambda: len(server.heads) == 5)
            await wait_all_tasks_blocked()
            getting = asyncio.ensure_future(session.profiles.get(identity="7"))
            await wait_all_tasks_blocked()
            arrive.set()
            await getting
            assert asked[:6] == ["POST"] * 4 + ["GET ", "get"]
            await reading
            await people.aclose()
