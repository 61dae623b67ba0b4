"""Profiles joined with the CDP users of the same people."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from ..errors import ConfigurationError
from ..flow.fanout import Items, check_items
from ..models import CdpUser, Customer, Profile
from .lookups import Lookups

__all__ = ["join"]


def join(
    profiles: Items[Profile],
    lookups: Lookups[dict[str, CdpUser]],
    *,
    concurrency: int | None,
    ordered: bool,
) -> AsyncGenerator[Customer, None]:
    """Yield each of `profiles` with the users under its identity: see `Session.with_cdp`."""
    check_items("profiles", profiles)

    async def look_up(profile: Profile) -> Customer:
        if not isinstance(profile, Profile):
            raise ConfigurationError(
                f"profiles: expected each item to be a Profile, got {profile!r}; "
                f"pass the people themselves, such as by_event(…) without .pages()"
            )
        if not profile.identity:
            return Customer(profile, {})
        found = await lookups.look_up("user_id", profile.identity)
        return Customer(profile, found.value or {}, found.error)

    return lookups.each(profiles, look_up, concurrency=concurrency, ordered=ordered)
