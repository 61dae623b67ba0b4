"""Keys and the results of lookups: CDP users, and a profile joined with its users. Pure."""

from __future__ import annotations

from typing import Generic, TypeAlias, TypeVar

from msgspec import Struct

from ..errors import AltaProfilesError
from .profile import Profile

__all__ = ["AnonymousId", "CdpUser", "Customer", "Key", "Lookup"]


Key: TypeAlias = str | int
"""An identifier as callers have it: text, or an int whose decimal text is meant."""


V = TypeVar("V")


class AnonymousId(Struct, frozen=True, gc=False):
    """One anonymous ID bound to a user.

    Attributes:
        conversation_type: where the conversation took place, such as "WEB". An open set.
        source_id: which bot or channel of that type, or None.
    """

    anonymous_id: str
    conversation_type: str | None = None
    source_id: str | None = None


class CdpUser(Struct, frozen=True, gc=False):
    """One user of an agent, and the anonymous IDs bound to it (at most 100)."""

    user_id: str
    anonymous_ids: list[AnonymousId]


class Lookup(Struct, Generic[V], frozen=True, gc=False):
    """What became of one key of a bulk lookup.

    Attributes:
        key: the key as it was passed in.
        value: what was found; None when the service knows nothing under this key, or on an error.
        error: why this key failed, or None.
    """

    key: Key
    value: V | None = None
    error: AltaProfilesError | None = None


class Customer(Struct, frozen=True, gc=False):
    """A profile and what Alta knows of the same person.

    Attributes:
        profile: the person.
        cdp: user ID to CDP user, found under `user_id == profile.identity`; empty when nothing is
            bound, or when the person has no identity.
        error: why the CDP lookup failed, or None. The profile is delivered all the same.
    """

    profile: Profile
    cdp: dict[str, CdpUser]
    error: AltaProfilesError | None = None
