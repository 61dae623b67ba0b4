"""CleverTap's cursor chains over one account: opened, counted and walked."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

from ..flow.paging import Chain, walk
from ..flow.slices import Slices
from ..http.engine import Engine
from ..http.service import Service
from ..models import Page
from ..wire import clevertap
from ..wire.messages import Response
from ..wire.page import peek_next_cursor
from ..wire.query import EventQuery

__all__ = ["Chains"]


class Chains:
    """Opens and walks chains. Keeps no state: any number can be walked at once."""

    def __init__(self, engine: Engine, service: Service) -> None:
        self._engine = engine
        self._service = service

    @property
    def slots(self) -> int:
        """Most requests that can be in flight."""
        return self._service.cap.limit

    def open(self, query: EventQuery) -> Awaitable[str]:
        """Return the first cursor of the chain that `query` asks for."""
        request = clevertap.open_chain(query)
        return self._engine.call(self._service, request, clevertap.read_cursor, bulk=True)

    async def count(self, query: EventQuery, *, bulk: bool = False) -> int:
        """Return how many people `query` would bring, by the service's own count."""
        request = clevertap.count(query)
        count = await self._engine.call(
            self._service, request, clevertap.read_count_started, bulk=bulk
        )
        if isinstance(count, int):
            return count
        request = clevertap.poll_count(count)
        return await self._engine.call(self._service, request, clevertap.read_count, bulk=bulk)

    def walk(
        self, beginnings: Sequence[EventQuery | str], *, prefetch: int, decode: bool
    ) -> AsyncGenerator[Page, None]:
        """Yield the pages of several chains, as `paging.walk` does.

        Args:
            beginnings: of each chain the query that opens it, or a cursor to resume at.
            prefetch: pages fetched ahead of each chain.
            decode: whether `page.profiles` is decoded beforehand.
        """
        chains = [self._chain(beginning, decode) for beginning in beginnings]
        return walk(chains, prefetch=prefetch, spawn=self._engine.spawn)

    def _chain(self, beginning: EventQuery | str, decode: bool) -> Chain[Page]:
        window = None if isinstance(beginning, str) else beginning.window

        async def begin() -> str:
            return beginning if isinstance(beginning, str) else await self.open(beginning)

        def fetch(cursor: str, ahead: Callable[[str], None]) -> Awaitable[Page]:
            def on_head(head: bytes) -> bool:
                following = peek_next_cursor(head)
                if following is not None:
                    ahead(following)
                return following is not None

            def read(response: Response) -> Slices[Page]:
                return clevertap.read_page(response, cursor, window, decode=decode)

            request = clevertap.get_page(cursor)
            return self._engine.call(self._service, request, read, bulk=True, on_head=on_head)

        return Chain(begin, fetch)
