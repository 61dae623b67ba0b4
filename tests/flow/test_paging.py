"""Cursor chains over a plain dict: order, bounds, ends."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator, Callable

import pytest
from anyio import wait_all_tasks_blocked

from altaprofiles import (
    AltaProfilesError,
    CursorExpired,
    CursorLoop,
    DecodeError,
    NotReady,
    Page,
    Profile,
)
from altaprofiles.flow.paging import Chain, mark, walk
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


@pytest.mark.parametrize("pages", [1, 2, 7])
async def test_a_failure_names_its_page_and_the_cursor_to_resume_at(pages: int) -> None:
    gone = f"a{pages}"
    following: dict[str, str | None] = {f"a{at}": f"a{at + 1}" for at in range(pages)}
    with pytest.raises(NotReady) as caught:
        async for _ in Book("a", following).walked():
            pass
    [note] = caught.value.__notes__
    assert f"page {pages + 1} of its chain" in note
    assert f"cursor={gone!r}" in note


async def test_a_chain_that_cannot_go_on_names_no_cursor_to_resume_at() -> None:
    async def fetch(
        cursor: str, ahead: Callable[[str], None], asked: Callable[[str], bool]
    ) -> Page:
        raise CursorExpired(cursor)

    with pytest.raises(CursorExpired) as caught:
        async for _ in walk([Chain(book("a", 1).open, fetch)], prefetch=1, spawn=spawn):
            pass
    assert not hasattr(caught.value, "__notes__")


async def test_a_page_knows_its_own_cursor_and_earlier_ones() -> None:
    chain = book("a", 3)
    known: dict[str, list[str]] = {}

    async def fetch(
        cursor: str, ahead: Callable[[str], None], asked: Callable[[str], bool]
    ) -> Page:
        if cursor != "a2":
            ahead(f"a{int(cursor[1]) + 1}")
        known[cursor] = [one for one in ("before", "a0", "a1", "a2", "a3") if asked(one)]
        return await chain.fetch(cursor, ahead, asked)

    resumed = Chain(chain.open, fetch, earlier=[mark("before")])
    assert [page.cursor async for page in walk([resumed], prefetch=2, spawn=spawn)] == chain.asked
    assert known == {
        "a0": ["before", "a0"],
        "a1": ["before", "a0", "a1"],
        "a2": ["before", "a0", "a1", "a2"],
    }


async def test_a_chain_that_is_opened_again_is_a_new_one() -> None:
    following: dict[str, str | None] = {"a0": "a1", "a1": None}
    chain = Book("a", following)

    async def reopen(page: Page) -> str | None:
        if page.next_cursor is not None or len(chain.asked) > 2:
            return None
        following["a1"] = "gone"
        return "a0"

    opened = Chain(chain.open, chain.fetch, reopen=reopen)
    found = []
    with pytest.raises(NotReady, match="gone") as caught:
        async for page in walk([opened], prefetch=0, spawn=spawn):
            found.append(page.cursor)
    assert found == ["a0", "a0", "a1"]
    assert "page 3 of its chain" in caught.value.__notes__[0]


async def test_pages_of_a_wrong_cursor_are_dropped_before_the_right_ones_are_asked_for() -> None:
    """Two pages of a wrong cursor are on their way, of which the second turns out to be right."""
    chain = book("a", 4)
    under_way: list[str] = []

    async def fetch(
        cursor: str, ahead: Callable[[str], None], asked: Callable[[str], bool]
    ) -> Page:
        assert cursor not in under_way
        under_way.append(cursor)
        try:
            if cursor == "wrong":
                ahead("a2")
                await asyncio.Event().wait()
            if cursor == "a2" and "wrong" in under_way:
                await asyncio.Event().wait()
            if cursor == "a0":
                ahead("wrong")
                await wait_all_tasks_blocked()
                assert under_way == ["a0", "wrong", "a2"]
            return await chain.fetch(cursor, ahead, asked)
        finally:
            under_way.remove(cursor)

    walked = walk([Chain(chain.open, fetch)], prefetch=3, spawn=spawn)
    assert [page.cursor async for page in walked] == ["a0", "a1", "a2", "a3"]
    assert chain.asked == ["a0", "a1", "a2", "a3"]


async def test_a_page_that_is_not_delivered_is_discarded() -> None:
    async def refuse(page: Page) -> str | None:
        raise NotReady(page.cursor)

    chain = book("a", 1)
    discarded: list[Page] = []
    refusing = Chain(chain.open, chain.fetch, reopen=refuse, discard=discarded.append)
    with pytest.raises(NotReady):
        await anext(walk([refusing], prefetch=0, spawn=spawn))
    assert [page.cursor for page in discarded] == ["a0"]


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
