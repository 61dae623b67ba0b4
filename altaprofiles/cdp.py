"""`session.cdp`: Alta's users and the anonymous IDs bound to them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable

from .flow.fanout import Items
from .http.engine import Engine
from .http.service import Service
from .models import CdpUser, Key, Lookup
from .sources.lookups import CDP, Lookups
from .wire import alta
from .wire.alta import By

__all__ = ["Cdp"]


class Cdp:
    """CDP users of one Alta agent. Reached as `session.cdp`."""

    def __init__(self, engine: Engine, service: Callable[[], Service]) -> None:
        self._engine = engine
        self._service = service

    async def get(
        self, *, user_id: Key | None = None, anonymous_id: Key | None = None
    ) -> dict[str, CdpUser]:
        """Return user ID to user; empty when nothing is bound.

        With `user_id` alone: that user and every anonymous ID bound to it. With `anonymous_id`
        alone: every user bound to it, which can be several. With both: the exact pair ("Query User
        CDP", Request Parameters).

        Raises:
            ConfigurationError: neither is given, one is empty or holds a control character, or the
                session cannot be used; nothing was sent.
            Unauthorized: the token is refused.
            AltaProfilesError: the last try ended with something else.

        >>> users = await session.cdp.get(user_id="BC123")
        >>> users["BC123"].anonymous_ids[0].conversation_type
        'WEB'
        """
        request = alta.get_user_cdp(user_id=user_id, anonymous_id=anonymous_id)
        return await self._engine.call(self._service(), request, alta.read_users)

    def get_many(
        self,
        keys: Items[Key],
        *,
        by: By,
        concurrency: int | None = None,
        ordered: bool = False,
    ) -> AsyncGenerator[Lookup[dict[str, CdpUser]], None]:
        """Yield what became of each of `keys`; a `lookup.value` of None means nothing is bound.

        Everything else is as for `session.profiles.get_many`.

        Args:
            keys: identifiers, as text or int.
            by: "user_id" or "anonymous_id".
            concurrency: lookups at work at once; `Alta.max_in_flight` when None.
            ordered: keep the order of `keys`.

        Raises:
            ConfigurationError: an argument is wrong, or the session cannot be used.
            Unauthorized, Forbidden: the token is refused, which would fail every key.
        """
        return self._lookups().get_many(keys, by=by, concurrency=concurrency, ordered=ordered)

    def _lookups(self) -> Lookups[dict[str, CdpUser]]:
        return Lookups(self._engine, self._service(), CDP)
