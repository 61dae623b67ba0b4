"""Profiles joined with the CDP users of the same people."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from itertools import count

from ..errors import InvalidArgument
from ..flow.fanout import Items, check_items
from ..models import CdpUser, Customer, Profile
from ..models.customer import bytes_in_memory
from ..models.people import exact_identity
from .lookups import Lookups

__all__ = ["check_people", "join"]


_PEOPLE = (
    "the people themselves: by_event(…) without .pages(), or those that get_many finds for a "
    "column of IDs: [one.value async for one in session.profiles.get_many(…) if one.value]"
)


def check_people(profiles: object) -> None:
    """Raise `ConfigurationError` unless `profiles` is an iterable that may be one of people."""
    check_items("profiles", profiles, of_table=_PEOPLE)


def join(
    profiles: Items[Profile],
    lookups: Lookups[dict[str, CdpUser]],
    *,
    concurrency: int | None,
    ordered: bool,
) -> AsyncGenerator[Customer, None]:
    """Yield each of `profiles` with the users under its identity: see `Session.with_cdp`."""
    check_people(profiles)
    indexes = count()

    async def look_up(profile: Profile) -> Customer:
        place = f"profiles[{next(indexes)}]"
        if not isinstance(profile, Profile):
            raise InvalidArgument(
                f"{place}: expected a Profile, got a value of type {type(profile).__name__}; "
                f"pass {_PEOPLE}",
                value=profile,
            )
        # With U+FFFD for half a surrogate pair it would be the identity of somebody else.
        identity = exact_identity(profile.identity, profile.raw)
        if not identity:
            return Customer(profile, {})
        found = await lookups.look_up("user_id", identity, f"{place}.identity")
        return Customer(profile, found.value or {}, found.error)

    return lookups.each(
        "with_cdp",
        profiles,
        look_up,
        concurrency=concurrency,
        ordered=ordered,
        size=bytes_in_memory,
    )
