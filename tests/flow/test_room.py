"""Pages of much memory: fewer of them exist at once, and every one is delivered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any

import pytest
from anyio import create_task_group, fail_after, wait_all_tasks_blocked

from altaprofiles import Page
from altaprofiles.flow.paging import MEMORY, Chain, Room, walk

from ..support.tasks import PATIENCE, nothing_left_behind, spawn

pytestmark = pytest.mark.anyio


class Heavy:
    """A chain of pages that arrive one turn after they are requested."""

    def __init__(self, pages: int, weight: int, expected: int | None) -> None:
        self.exist = self.most = 0
        self._pages = pages
        self._weight = weight
        self.expected = expected

    async def open(self) -> str:
        return "0"

    async def fetch(
        self, cursor: str, ahead: Callable[[str], None], asked: Callable[[str], bool]
    ) -> Page:
        self.exist += 1
        self.most = max(self.most, self.exist)
        number = int(cursor) + 1
        following = str(number) if number < self._pages else None
        if following is not None:
            ahead(following)
        await asyncio.sleep(0)
        return Page([], b"", cursor, following)

    def walked(self, prefetch: int) -> AsyncGenerator[Page, None]:
        chain = Chain(
            self.open,
            self.fetch,
            weigh=lambda page: self._weight,
            expected=lambda: self.expected,
        )
        return walk([chain], prefetch=prefetch, spawn=spawn)


@pytest.mark.parametrize(
    ("weight", "expected", "most"),
    [
        (1000, None, 5),
        (1000, 1000, 5),
        (MEMORY // 2, None, 2),
        (MEMORY // 2, MEMORY // 2, 2),
        (MEMORY // 2, 1, 5),
        (3 * MEMORY, None, 2),
        (3 * MEMORY, 3 * MEMORY, 1),
    ],
)
async def test_as_many_pages_exist_as_there_is_memory_for(
    weight: int, expected: int | None, most: int
) -> None:
    heavy = Heavy(12, weight, expected)
    found = []
    async with nothing_left_behind():
        async for page in heavy.walked(4):
            await wait_all_tasks_blocked()
            found.append(page.cursor)
            heavy.exist -= 1
    assert found == [str(number) for number in range(12)]
    assert heavy.most <= most
    assert most == 1 or heavy.most > 1


async def test_a_size_that_is_known_once_a_page_begins_counts_at_once() -> None:
    heavy = Heavy(6, MEMORY * 3 // 5, None)
    fetch = heavy.fetch

    async def telling(
        cursor: str, ahead: Callable[[str], None], asked: Callable[[str], bool]
    ) -> Page:
        heavy.expected = MEMORY * 3 // 5
        return await fetch(cursor, ahead, asked)

    heavy.fetch = telling  # type: ignore[method-assign]
    async for _ in heavy.walked(4):
        await wait_all_tasks_blocked()
        heavy.exist -= 1
    assert heavy.most == 1


@pytest.mark.parametrize(("chains", "ahead_of_it", "at_once"), [(5, 0, 4), (2, 1, 3), (1, 3, 2)])
async def test_pages_of_unknown_size_are_so_many_at_once(
    chains: int, ahead_of_it: int, at_once: int
) -> None:
    under_way: list[str] = []
    go_on = asyncio.Event()

    def heavy(name: str) -> Chain[Page]:
        async def opened() -> str:
            return f"{name}0"

        async def fetch(
            cursor: str, ahead: Callable[[str], None], asked: Callable[[str], bool]
        ) -> Page:
            under_way.append(cursor)
            number = int(cursor[1:])
            following = f"{name}{number + 1}" if number < ahead_of_it else None
            if following is not None:
                ahead(following)
            await go_on.wait()
            return Page([], b"", cursor, following)

        return Chain(opened, fetch, weigh=lambda page: 1000)

    pages = walk([heavy(name) for name in "abcde"[:chains]], prefetch=5, spawn=spawn)
    first = asyncio.ensure_future(anext(pages))
    await wait_all_tasks_blocked()
    assert len(under_way) == at_once
    go_on.set()
    found = [(await first).cursor, *[page.cursor async for page in pages]]
    assert sorted(found) == sorted(under_way)
    assert len(found) == chains * (1 + ahead_of_it)


async def test_a_dropped_page_that_waits_for_room_holds_up_no_other() -> None:
    async def opened() -> str:
        return "0"

    async def fetch(
        cursor: str, ahead: Callable[[str], None], asked: Callable[[str], bool]
    ) -> Page:
        assert cursor.isdecimal()
        ahead(f"wrong {cursor}")
        await wait_all_tasks_blocked()
        return Page([], b"", cursor, str(int(cursor) + 1) if cursor != "9" else None)

    chain = Chain(opened, fetch, weigh=lambda page: MEMORY, expected=lambda: MEMORY)
    found = []
    with fail_after(PATIENCE):
        async for page in walk([chain], prefetch=1, spawn=spawn):
            found.append(page.cursor)
    assert found == [str(number) for number in range(10)]


def entry_into(room: Room) -> tuple[Callable[[str, int], Coroutine[Any, Any, None]], list[str]]:
    """Return a function that waits for room of some weight, and the names that have got it."""
    entered: list[str] = []

    async def enter(name: str, weight: int) -> None:
        await room.acquire(weight)
        entered.append(name)

    return enter, entered


async def test_room_is_given_first_come_first_served() -> None:
    room = Room(10)
    await room.acquire(8)
    enter, entered = entry_into(room)

    async with create_task_group() as group:
        for name, weight in (("large", 9), ("small", 2)):
            group.start_soon(enter, name, weight)
            await wait_all_tasks_blocked()
        room.release(1)
        await wait_all_tasks_blocked()
        assert entered == []
        room.release(6)
        await wait_all_tasks_blocked()
        assert entered == ["large"]
        room.release(9)
    assert entered == ["large", "small"]


async def test_room_that_somebody_gave_up_waiting_for_goes_to_the_next() -> None:
    room = Room(10)
    await room.acquire(8)
    enter, entered = entry_into(room)

    async with create_task_group() as group:
        first = asyncio.ensure_future(enter("large", 9))
        await wait_all_tasks_blocked()
        group.start_soon(enter, "small", 2)
        await wait_all_tasks_blocked()
        assert entered == []
        first.cancel()
        await asyncio.wait([first])
    assert entered == ["small"]


async def test_room_given_to_somebody_who_is_cancelled_at_once_is_free_again() -> None:
    room = Room(10)
    await room.acquire(10)
    waiting = asyncio.ensure_future(room.acquire(10))
    await wait_all_tasks_blocked()
    room.release(10)
    waiting.cancel()
    await asyncio.wait([waiting])
    await asyncio.wait_for(room.acquire(10), 30)
