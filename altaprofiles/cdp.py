"""`session.cdp`: Alta's users and the anonymous IDs bound to them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable

from .base.checks import check_flag
from .base.verdicts import dooms_all
from .errors import AltaProfilesError, ConfigurationError
from .flow.fanout import Source, check_source, fan_out, worker_count
from .http.engine import Engine
from .http.service import Service
from .models import CdpUser, Customer, Key, Lookup, Profile
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
        keys: Source[Key],
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
        alta.check_by(by)
        check_source("keys", keys)
        check_flag("ordered", ordered)

        async def look_up(key: Key) -> Lookup[dict[str, CdpUser]]:
            found, error = await self._look_up(by, key)
            return Lookup(key, found or None, error)

        return fan_out(
            look_up,
            keys,
            concurrency=self._workers(concurrency),
            ordered=ordered,
            spawn=self._engine.spawn,
            pausing=lambda: self._service().pausing,
        )

    def join(
        self, profiles: Source[Profile], *, concurrency: int | None, ordered: bool
    ) -> AsyncGenerator[Customer, None]:
        """Yield each of `profiles` with the users under its identity: `Session.with_cdp`."""
        check_source("profiles", profiles)
        check_flag("ordered", ordered)

        async def look_up(profile: Profile) -> Customer:
            if not isinstance(profile, Profile):
                raise ConfigurationError(
                    f"profiles: expected each item to be a Profile, got {profile!r}; "
                    f"pass the people themselves, such as by_event(…) without .pages()"
                )
            if not profile.identity:
                return Customer(profile, {})
            found, error = await self._look_up("user_id", profile.identity)
            return Customer(profile, found, error)

        return fan_out(
            look_up,
            profiles,
            concurrency=self._workers(concurrency),
            ordered=ordered,
            spawn=self._engine.spawn,
            pausing=lambda: self._service().pausing,
        )

    async def _look_up(
        self, by: By, key: Key
    ) -> tuple[dict[str, CdpUser], AltaProfilesError | None]:
        try:
            request = alta.get_user_cdp(**{by: key})
        except ConfigurationError as error:
            return {}, error
        try:
            users = await self._engine.call(self._service(), request, alta.read_users, bulk=True)
        except AltaProfilesError as error:
            if dooms_all(error):
                raise
            return {}, error
        return users, None

    def _workers(self, concurrency: int | None) -> int:
        return worker_count(concurrency, self._service().cap)
