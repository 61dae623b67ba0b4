"""`session.cdp`: Alta's users and the anonymous IDs bound to them.

Vendor facts are from Alta's page "Query User CDP"; `wire.alta` cites each rule.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable

from msgspec import UNSET
from msgspec import UnsetType as _UnsetType

from .base.calls import named
from .flow.fanout import Items
from .http.engine import Engine
from .http.service import Service, account_of
from .models import CdpUser, Key, Lookup
from .sources.lookups import CDP, Lookups
from .wire import alta
from .wire.alta import CdpBy

__all__ = ["Cdp"]


class Cdp:
    """The CDP users of one Alta agent. Use it as `session.cdp`."""

    def __init__(self, engine: Engine, service: Callable[[], Service]) -> None:
        self._engine = engine
        self._service = service

    def __repr__(self) -> str:
        return f"Cdp({account_of(self._service)})"

    @named(CDP.name)
    async def get(
        self,
        *,
        user_id: Key | None = None,
        anonymous_id: Key | None = None,
        deadline: float | _UnsetType | None = UNSET,
    ) -> dict[str, CdpUser]:
        """Return the users found, by user ID; empty when nothing is bound.

        Pass one identifier or both ("Query User CDP", Request Parameters).

        Args:
            user_id: returns this user with every anonymous ID bound to it.
            anonymous_id: returns every user bound to this anonymous ID, which can be several; with
                `user_id`, that pair only.
            deadline: longest duration of the call in seconds, with all waits and retries; by
                default that of `with_options`, else `Retry.deadline`; None for the latter. It ends
                in `RequestTimeout`, or in the last failure if no time is left to try again. With 0
                or less it ends at once, and nothing is sent.

        Raises:
            ConfigurationError: neither is given, one is empty or holds a control character, or the
                session cannot be used. Nothing was sent.
            Unauthorized: the token is refused; another platform may have issued it.
            Forbidden: the agent or its plan refuses; `hint` names the next step.
            AltaProfilesError: the last attempt failed in another way.

        >>> users = await session.cdp.get(user_id="BC123")
        >>> users["BC123"].anonymous_ids[0].conversation_type
        'WEB'
        """
        request = alta.get_user_cdp(user_id=user_id, anonymous_id=anonymous_id)
        service = self._service()
        with self._engine.within(deadline) as engine:
            return await engine.call(service, request, alta.read_users)

    @named(CDP.name)
    def get_many(
        self,
        keys: Items[Key],
        *,
        by: CdpBy,
        concurrency: int | None = None,
        ordered: bool = False,
    ) -> AsyncGenerator[Lookup[dict[str, CdpUser]], None]:
        """Yield one `Lookup` for each of `keys`; its value is None when nothing is bound.

        Order, concurrency and failures are as for `session.profiles.get_many`.
        The results can be read once: after their end, call it again.

        Args:
            keys: identifiers, as text or int. A missing value or a blank text has a result with an
                `error`, as each key has one result; `export_lookups` skips it. In pandas
                `keys[keys.str.strip() != ""].dropna()` is text without them.
            by: the kind of identifier: "user_id" or "anonymous_id".
            concurrency: lookups at work at once; by default `Alta.max_in_flight`, or
                256 with "auto".
            ordered: yield results in the order of `keys`. Up to 10,000 results or 32 MB wait in
                memory for a key that is late, as for `session.profiles.get_many`.

        Raises:
            ConfigurationError: an argument cannot work, or the session cannot be used.
            Unauthorized, Forbidden: the token, its agent or the plan is refused, which would fail
                every key.

        >>> async for lookup in session.cdp.get_many(["BC123", "nobody"], by="user_id"):
        ...     print(lookup.key, lookup.value)
        """
        return self._lookups().get_many(keys, by=by, concurrency=concurrency, ordered=ordered)

    def _lookups(self) -> Lookups[dict[str, CdpUser]]:
        return Lookups(self._engine, self._service(), CDP)
