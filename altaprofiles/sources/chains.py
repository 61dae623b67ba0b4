"""CleverTap's cursor chains over one account: what opens one, and what fetches its pages."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import TypeAlias

from ..flow.paging import Chain, walk
from ..flow.slices import Slices
from ..http.engine import Engine
from ..http.service import Service
from ..models import Page
from ..wire import clevertap
from ..wire.messages import Request, Response

__all__ = ["Beginning", "Chains"]

Beginning: TypeAlias = tuple[Request | str, tuple[int, int] | None]
"""Where a chain begins, with a request that opens it or at a cursor, and its `Page.window`."""


class Chains:
    """Opens and walks chains. Keeps no state: any number can be walked at once."""

    def __init__(self, engine: Engine, service: Callable[[], Service]) -> None:
        self._engine = engine
        self._service = service

    def open(self, request: Request) -> Awaitable[str]:
        """Return the first cursor of the chain that `request` asks for."""
        return self._engine.call(self._service(), request, clevertap.read_cursor, bulk=True)

    async def count(self, event: str, window: tuple[int, int], *, bulk: bool = False) -> int:
        """Return how many people did `event` within `window`, by the service's own count."""
        ask = clevertap.count(event, *window)
        found = await self._engine.call(
            self._service(), ask, clevertap.read_count_started, bulk=bulk
        )
        if isinstance(found, int):
            return found
        ask = clevertap.poll_count(found)
        return await self._engine.call(self._service(), ask, clevertap.read_count, bulk=bulk)

    def walk(
        self, beginnings: Sequence[Beginning], *, prefetch: int, decode: bool
    ) -> AsyncGenerator[Page, None]:
        """Yield the pages of all of them, as `paging.walk` does."""
        chains = [self._chain(first, window, decode) for first, window in beginnings]
        return walk(chains, prefetch=prefetch, spawn=self._engine.spawn)

    def _chain(self, first: Request | str, window: tuple[int, int] | None, decode: bool) -> Chain:
        async def begin() -> str:
            return first if isinstance(first, str) else await self.open(first)

        def fetch(cursor: str, ahead: Callable[[str], None]) -> Awaitable[Page]:
            def on_head(head: bytes) -> bool:
                following = clevertap.peek_next_cursor(head)
                if following is not None:
                    ahead(following)
                return following is not None

            def read(response: Response) -> Slices[Page]:
                return clevertap.read_page(response, cursor, window, decode=decode)

            request = clevertap.get_page(cursor)
            return self._engine.call(self._service(), request, read, bulk=True, on_head=on_head)

        return Chain(begin, fetch)
