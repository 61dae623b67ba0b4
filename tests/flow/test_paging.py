"""Cursor chains over a plain dict: order, bounds, ends."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator, Callable

import pytest
from anyio import wait_all_tasks_blocked

from altaprofiles import AltaProfilesError, CursorLoop, DecodeError, NotReady, Page, Profile
from altaprofiles.flow.paging import Chain, walk
from altaprofiles.flow.slices import at_once
from altaprofiles.models.page import new_people
from altaprofiles.models.people import Distinct

from ..support.tasks import nothing_left_behind, spawn

pytestmark = pytest.mark.anyio


class Book:
    """Pages in a dict, which records the cursors that are requested."""

    def __init__(self, name: str, following: dict[str, str | None]) -> None:
        self.name = name
        self.asked: list[str] = []
        self._following = following

    async def open(self) -> str:
        return f"{self.name}0"

    async def fetch(
        self, cursor: str, ahead: Callable[[str], None], asked: Callable[[str], bool]
    ) -> Page:
        self.asked.append(cursor)
        await asyncio.sleep(0)
        if cursor not in self._following:
            raise NotReady(cursor)
        return Page([], cursor.encode(), cursor, self._following[cursor])

    def walked(self, prefetch: int = 2) -> AsyncGenerator[Page, None]:
        return walk([self.chain], prefetch=prefetch, spawn=spawn)

    @property
    def chain(self) -> Chain[Page]:
        return Chain(self.open, self.fetch)


def book(name: str, pages: int) -> Book:
    cursors = [f"{name}{number}" for number in range(pages)]
    return Book(name, dict(zip(cursors, [*cursors[1:], None], strict=True)))


@pytest.mark.parametrize("prefetch", [0, 1, 2, 50])
async def test_pages_come_in_server_order(prefetch: int) -> None:
    chain = book("a", 20)
    assert [page.cursor async for page in chain.walked(prefetch)] == [f"a{n}" for n in range(20)]


async def test_pages_of_several_chains_keep_their_own_order() -> None:
    books = [book(name, pages) for name, pages in (("a", 7), ("b", 1), ("c", 12))]
    found = [page.cursor async for page in walk([b.chain for b in books], prefetch=1, spawn=spawn)]
    for one in books:
        assert [cursor for cursor in found if cursor.startswith(one.name)] == one.asked
    assert len(found) == 20


@pytest.mark.parametrize("prefetch", [0, 1, 2, 5])
async def test_a_slow_reader_holds_back_the_fetching(prefetch: int) -> None:
    chain = book("a", 100)
    pages = chain.walked(prefetch)
    assert chain.asked == []
    for read in range(1, 10):
        await anext(pages)
        await wait_all_tasks_blocked()
        assert len(chain.asked) == read + prefetch
    await pages.aclose()


async def test_each_of_several_chains_is_held_back() -> None:
    books = [book(name, 100) for name in "abc"]
    pages = walk([one.chain for one in books], prefetch=2, spawn=spawn)
    await anext(pages)
    await wait_all_tasks_blocked()
    assert [len(one.asked) for one in books] == [3, 3, 3]
    await pages.aclose()


async def test_pages_that_had_arrived_come_before_the_failure() -> None:
    chain = Book("a", {"a0": "a1", "a1": "gone"})
    found = []
    with pytest.raises(NotReady, match="gone"):
        async for page in chain.walked():
            await wait_all_tasks_blocked()
            found.append(page.cursor)
    assert found == ["a0", "a1"]


@pytest.mark.parametrize("back_to", ["a0", "a1", "a2"])
async def test_a_repeated_cursor_ends_the_chain_with_an_error(back_to: str) -> None:
    chain = Book("a", {"a0": "a1", "a1": "a2", "a2": back_to})
    found = []
    with pytest.raises(CursorLoop):
        async for page in chain.walked():
            found.append(page.cursor)
    assert found == ["a0", "a1", "a2"]
    # What never ran warns when it is freed: here, and not in another test.
    gc.collect()
    assert chain.asked == found


async def test_leaving_stops_the_fetching() -> None:
    chain = book("a", 100)
    async with nothing_left_behind():
        async for _ in chain.walked():
            break
        await wait_all_tasks_blocked()
        asked = len(chain.asked)
        await wait_all_tasks_blocked()
    assert len(chain.asked) == asked <= 4


def person(identity: str | None, *devices: str) -> Profile:
    known = "" if identity is None else f'"identity":"{identity}",'
    listed = ",".join(f'{{"platform":"iOS","objectId":"{device}"}}' for device in devices)
    return Profile.decode(f'{{{known}"platformInfo":[{listed}]}}'.encode())


@pytest.mark.parametrize(
    ("people", "new"),
    [
        ([person("1"), person("1", "x"), person("2")], [True, False, True]),
        ([person(None, "x"), person(None, "y"), person(None, "x")], [True, True, False]),
        # Any shared device counts, even z, which is only known from a repeated person.
        ([person(None, "x", "y"), person(None, "y", "z"), person(None, "z")], [True, False, False]),
        # A device shared by a person with an identity and one without proves nothing.
        ([person("1", "x"), person(None, "x"), person("2", "x")], [True, True, True]),
        # Records with neither are one person only if nothing tells them apart.
        ([person(None), person(None), Profile.decode(b"{}")], [True, False, True]),
        ([person(""), person("", "x"), person("", "x")], [True, True, False]),
    ],
)
def test_people_are_told_apart(people: list[Profile], new: list[bool]) -> None:
    seen = Distinct()
    assert [seen.is_new(one.identity, one.raw) for one in people] == new


def test_a_page_keeps_its_new_people_and_everything_else() -> None:
    seen = Distinct()
    first, second, third = person("1"), person("2"), person("3")
    page = Page.of([first, second], b"raw", "a", "b")
    assert at_once(new_people(page, seen)) is page
    again = at_once(new_people(Page.of([second, third], b"more", "b", None), seen))
    assert again == Page.of([third], b"more", "b", None)


@pytest.mark.parametrize("chains", [1, 3])
async def test_a_chain_that_is_cancelled_from_outside_is_an_error(chains: int) -> None:
    class Cancelled(Book):
        async def fetch(
            self, cursor: str, ahead: Callable[[str], None], asked: Callable[[str], bool]
        ) -> Page:
            if cursor == "a3":
                raise asyncio.CancelledError
            return await super().fetch(cursor, ahead, asked)

    first = Cancelled("a", {"a0": "a1", "a1": "a2", "a2": "a3"})
    others = [book(name, 50) for name in "bc"]
    walked = [one.chain for one in [first, *others][:chains]]
    with pytest.raises(AltaProfilesError, match="results are incomplete"):
        async for _ in walk(walked, prefetch=1, spawn=spawn):
            pass


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
async def test_a_page_that_is_cancelled_before_it_starts_is_an_error() -> None:
    """A chain never ends before its last page, even if the task of a page never runs."""
    chain = book("a", 5)
    cancelled = False

    async def fetch(
        cursor: str, ahead: Callable[[str], None], asked: Callable[[str], bool]
    ) -> Page:
        nonlocal cancelled
        if cursor == "a2":
            known = asyncio.all_tasks()
            ahead("a3")
            # The task of the next page has been made, and the loop has not turned since.
            [following] = asyncio.all_tasks() - known
            following.cancel()
            cancelled = True
        return await chain.fetch(cursor, ahead, asked)

    found: list[str] = []
    with pytest.raises(AltaProfilesError, match="results are incomplete"):
        async for page in walk([Chain(chain.open, fetch)], prefetch=2, spawn=spawn):
            found.append(page.cursor)
    assert cancelled
    assert found == ["a0", "a1", "a2"]
    # What never ran warns when it is freed: here, and not in another test.
    gc.collect()


def test_an_odd_record_is_delivered_and_raises_when_it_is_read() -> None:
    odd = Profile.decode(b'{"platformInfo":{}}')
    other = Profile.decode(b'{"platformInfo":{"a":1}}')
    seen = Distinct()
    assert seen.is_new(odd.identity, odd.raw)
    assert seen.is_new(other.identity, other.raw)
    with pytest.raises(DecodeError):
        _ = odd.platform_info
