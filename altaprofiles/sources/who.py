"""The customers behind one key, from either service."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import Any

from ..base.calls import CallName
from ..base.checks import NONE_GIVEN, check_key
from ..errors import ConfigurationError, InvalidArgument
from ..models import CdpUser, Customer, Key, Profile
from ..models.people import exact_identity
from .lookups import CDP, PROFILES, Lookups

__all__ = ["check_one", "service_of", "who_is"]


def check_one(keys: dict[str, Key | None]) -> tuple[str, Key]:
    """Return the kind of the only key that is given, and the key.

    Raises:
        ConfigurationError: not exactly one is given, or it is not an identifier.
    """
    given = {by: key for by, key in keys.items() if key is not None}
    if len(given) != 1:
        names = ", ".join(given) or NONE_GIVEN
        raise InvalidArgument(f"{', '.join(keys)}: pass exactly one, got {names}")
    [(by, key)] = given.items()
    return by, check_key(by, key)


def service_of(keys: Collection[str]) -> CallName | None:
    """Return the first call that is asked about kinds of keys; None if none is, or if both are."""
    calls = [endpoint.name for endpoint in (PROFILES, CDP) if {*endpoint.by} & {*keys}]
    return calls[0] if len(calls) == 1 else None


async def who_is(
    by: str, key: Key, profiles: Lookups[Profile], users: Lookups[dict[str, CdpUser]]
) -> list[Customer]:
    """Return the customers behind a key: see `Session.who_is`."""
    if by in PROFILES.by:
        profile = await profiles.get(by, key)
        return [] if profile is None else [await _joined(profile, users)]
    if by == CDP.by[0]:
        profile, found = await _both(profiles, users, key)
        return [Customer(profile, found)] if profile is not None or found else []
    bound = await users.get(by, key) or {}

    async def customer(user: CdpUser) -> Customer:
        return Customer(await _profile_of(user, profiles), {user.user_id: user})

    # In the order in which the service sends them, and as many at once as there are slots.
    calls = profiles.each("who_is", bound.values(), customer, concurrency=None, ordered=True)
    return [one async for one in calls]


async def _joined(profile: Profile, users: Lookups[dict[str, CdpUser]]) -> Customer:
    # With U+FFFD for half a surrogate pair it would be the identity of somebody else.
    identity = exact_identity(profile.identity, profile.raw)
    if not identity:
        return Customer(profile, {})
    try:
        check_key("identity", identity)
    except ConfigurationError as error:
        error.locate(*CDP.name)
        return Customer(profile, {}, error)
    return Customer(profile, await users.get(CDP.by[0], identity) or {})


async def _both(
    profiles: Lookups[Profile], users: Lookups[dict[str, CdpUser]], key: Key
) -> tuple[Profile | None, dict[str, CdpUser]]:
    calls: list[Callable[[], Awaitable[Any]]] = [
        lambda: profiles.get("identity", key),
        lambda: users.get(CDP.by[0], key),
    ]
    profile, found = [
        result
        async for result in profiles.each(
            "who_is", calls, _call, concurrency=len(calls), ordered=True
        )
    ]
    return profile, found or {}


async def _call(call: Callable[[], Awaitable[Any]]) -> Any:
    return await call()


async def _profile_of(user: CdpUser, profiles: Lookups[Profile]) -> Profile | None:
    if "\ufffd" in user.user_id:
        # It may stand for half a surrogate pair, and would then be the identity of somebody else.
        return None
    try:
        check_key("identity", user.user_id)
    except ConfigurationError:
        # No profile can have it, as none can be asked for by it.
        return None
    return await profiles.get("identity", user.user_id)
