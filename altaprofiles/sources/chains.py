"""CleverTap's cursor chains over one account: opened, counted and walked."""

from __future__ import annotations

import logging
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Collection,
    Iterator,
    Sequence,
)
from contextlib import contextmanager
from typing import Protocol, TypeVar

from msgspec.structs import replace

from ..base.calls import CallName
from ..base.verdicts import dooms_all
from ..base.wording import looks_like_another, numbered
from ..errors import AltaProfilesError, BadRequest, Incomplete
from ..flow.lifetime import Reading
from ..flow.paging import Chain, Linked, walk
from ..http.engine import Engine
from ..http.service import Service
from ..wire import clevertap
from ..wire.clevertap import PageReader, PageSink
from ..wire.page import peek_next_cursor
from ..wire.query import EventQuery

__all__ = ["COUNT", "PAGES", "REOPENINGS", "Chains", "Received", "is_short", "shortfall"]


class Received(Linked, Protocol):
    """A page that has been read."""

    @property
    def is_empty(self) -> bool:
        """True if the page has no records."""
        ...


P = TypeVar("P", bound=Received)

logger = logging.getLogger("altaprofiles")

PAGES = CallName(clevertap.API, "get_page")
COUNT = CallName(clevertap.API, "count")

REOPENINGS = (10, 60)
"""Waits before a chain that cannot be complete is opened again, in multiples of `base_delay`.

When too many exports run at once, the service at times answers with success and no records. Users
of the vendor report it; no page documents it.
"""


def is_short(records: int, counted: int | None) -> bool:
    """Return whether `records` cannot be all of a chain.

    Args:
        records: the number received.
        counted: the service's own count, or None if it did not answer.
    """
    if not records:
        return counted != 0
    return counted is not None and records < 0.99 * counted and counted - records > 10


def shortfall(name: object, records: int, counted: int | None) -> str:
    """Return a sentence on a chain, or several, with fewer records than the service counts."""
    if counted is None:
        return f"{name}: no records, and the service does not answer how many there should be"
    return f"{name}: {numbered(records, 'record')}, where the service counts {counted:,}"


class Chains:
    """Opens and walks chains. Keeps no state: any number can be walked at once."""

    def __init__(self, engine: Engine, service: Service) -> None:
        self._engine = engine
        self._service = service

    @property
    def slots(self) -> int:
        """Most requests that can be in flight."""
        return self._service.cap("get_page").limit

    async def open(self, query: EventQuery) -> str:
        """Return the first cursor of the chain that `query` asks for."""
        request = clevertap.open_chain(query)
        with _advising(query):
            return await self._engine.call(self._service, request, clevertap.read_cursor, bulk=True)

    async def count(self, query: EventQuery, *, bulk: bool = False) -> int:
        """Return how many people `query` would bring, by the service's own count."""
        request = clevertap.count(query)
        with _advising(query):
            count = await self._engine.call(
                self._service, request, clevertap.read_count_started, bulk=bulk
            )
        if isinstance(count, int):
            return count
        request = clevertap.poll_count(count, request.body)
        return await self._engine.call(self._service, request, clevertap.read_count, bulk=bulk)

    async def expected(self, query: EventQuery) -> int | None:
        """Return the count of a chain, or None if the service does not answer.

        Raises:
            ConfigurationError: the session was closed.
            Unauthorized, Forbidden: the credentials are refused.
        """
        try:
            return await self.count(query, bulk=True)
        except AltaProfilesError as error:
            if dooms_all(error):
                raise
            # The count checks a chain, and is not a part of it.
            logger.warning("the service does not count %s: %s", query, error)
            return None

    async def pause(self, number: int, why: str) -> None:
        """Log why a chain is opened again, and wait until then: the time `number`, from 0."""
        delay = REOPENINGS[number] * self._engine.base_delay
        logger.warning("%s; it is opened again in %g s", why, delay)
        await self._engine.pause(delay)

    def walk(
        self,
        beginnings: Sequence[EventQuery | str],
        *,
        prefetch: int,
        new_sink: Callable[[], PageSink[P]],
        weigh: Callable[[P], int] | None = None,
        discard: Callable[[P], object] = lambda page: None,
        earlier: Collection[bytes] = (),
        query: EventQuery | None = None,
        reading: Reading | None = None,
    ) -> AsyncGenerator[P, None]:
        """Yield the pages of several chains, as `paging.walk` does.

        A chain that ends without any record is counted. If the count is not 0, the chain is opened
        again, up to twice. Its last page is held back until then.

        Args:
            beginnings: of each chain the query that opens it, or a cursor to resume at.
            prefetch: pages fetched ahead of each chain.
            new_sink: makes what takes the records of one answer, and becomes a page.
            weigh, discard: as in `Chain`.
            earlier: the marks of the cursors that a resumed chain has asked for before.
            query: the query that opened a resumed chain, if it is known.
            reading: the iteration that the pages are part of, or None if they are one themselves.

        Raises:
            Incomplete: a chain stays without records, and its count is not 0. One that was resumed
                at a cursor is not checked, because its earlier pages are not known.
        """
        chains = [
            replace(self._chain(beginning, new_sink, earlier, query), weigh=weigh, discard=discard)
            for beginning in beginnings
        ]
        reading = reading or self._engine.reading()
        return walk(chains, prefetch=prefetch, spawn=reading.spawn, name=PAGES)

    def _chain(
        self,
        beginning: EventQuery | str,
        new_sink: Callable[[], PageSink[P]],
        earlier: Collection[bytes],
        query: EventQuery | None,
    ) -> Chain[P]:
        window = None if isinstance(beginning, str) else beginning.window
        known = query if isinstance(beginning, str) else beginning
        body = b"" if known is None else clevertap.open_chain(known).body

        expected: int | None = None

        async def begin() -> str:
            return beginning if isinstance(beginning, str) else await self.open(beginning)

        def fetch(
            cursor: str, ahead: Callable[[str], None], was_asked: Callable[[str], bool]
        ) -> Awaitable[P]:
            def on_head(head: bytes, length: int | None) -> bool:
                nonlocal expected
                # The pages of a chain are about as long as each other.
                expected = length
                following = peek_next_cursor(head)
                if following is not None:
                    ahead(following)
                return following is not None

            def new_reader(limit: int) -> PageReader[P]:
                return PageReader(new_sink(), limit, cursor, window, was_asked)

            request = clevertap.get_page(cursor, body)
            return self._engine.stream(self._service, request, new_reader, on_head=on_head)

        doubts = None if isinstance(beginning, str) else _Doubts(self, beginning)
        reopen = None if doubts is None else doubts.reopen
        return Chain(begin, fetch, reopen, earlier, expected=lambda: expected)


@contextmanager
def _advising(query: EventQuery) -> Iterator[None]:
    """Add a note to the service's refusal of `query`: the names that it may not know."""
    try:
        yield
    except BadRequest as error:
        error.add_note(_advice(query))
        raise


def _advice(query: EventQuery) -> str:
    answer = f"This is the service's answer to {query.subject}"
    if query.event is None:
        return f"{answer}, a query without an event; its documentation allows one with filters."
    name = "it expects the name as the dashboard spells it, upper case and blanks included"
    name = "; ".join([name, *looks_like_another([query.event])])
    return f"{answer}; {name}{'. It may also refuse a filter' if query.filters else ''}."


class _Doubts:
    """Decides whether a chain without records is believed."""

    def __init__(self, chains: Chains, query: EventQuery) -> None:
        self._chains = chains
        self._query = query
        self._has_records = False
        self._counted: int | None = None
        self._reopened = 0

    async def reopen(self, page: Received) -> str | None:
        """Return the first cursor of the chain opened again in place of `page`, or None."""
        self._has_records = self._has_records or not page.is_empty
        if self._has_records or page.next_cursor is not None:
            return None
        number = self._reopened
        is_last = number == len(REOPENINGS)
        if self._counted is None and (number == 0 or is_last):
            self._counted = await self._chains.expected(self._query)
        if not is_short(0, self._counted):
            return None
        sentence = shortfall(self._query, 0, self._counted)
        if is_last:
            raise Incomplete(sentence, missing=[sentence])
        self._reopened += 1
        await self._chains.pause(number, sentence)
        return await self._chains.open(self._query)
