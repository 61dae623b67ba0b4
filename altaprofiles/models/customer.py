"""Lookup keys and results: CDP users, and profiles joined with them. Pure."""

from __future__ import annotations

from sys import getsizeof
from typing import Any, Generic, TypeAlias, TypeVar

from msgspec import Struct

from ..errors import AltaProfilesError
from .profile import Profile

__all__ = ["AnonymousId", "CdpUser", "Customer", "Found", "Key", "Lookup", "bytes_in_memory"]


Key: TypeAlias = str | int
"""An identifier: text, or an int that stands for its decimal digits."""


V = TypeVar("V")


class AnonymousId(Struct, frozen=True, gc=False):
    """One anonymous ID bound to a CDP user.

    Attributes:
        anonymous_id: the ID itself.
        conversation_type: the kind of conversation the ID comes from, such as "WEB", or None. An
            open set: expect values that no documentation lists.
        source_id: the bot or channel of that type, or None.
    """

    anonymous_id: str
    conversation_type: str | None = None
    source_id: str | None = None


class CdpUser(Struct, frozen=True, gc=False):
    """One CDP user of an agent.

    Attributes:
        user_id: the developer's own ID for this user, or an ID that Alta generated.
        anonymous_ids: the anonymous IDs bound to the user, in the order sent; at most 100. The list
            belongs to this user, and a `copy.copy` shares it. Because of it users have no hash.
    """

    user_id: str
    anonymous_ids: list[AnonymousId]


class Found(Struct, frozen=True, gc=False):
    """The CDP users under one key, as one line of NDJSON.

    Attributes:
        key: the key.
        users: the users, in the order sent.
    """

    key: str
    users: list[CdpUser]


class Lookup(Struct, Generic[V], frozen=True):
    """The result for one key of a bulk lookup.

    Attributes:
        key: the key as it was passed in.
        value: the value found. None if the service has none under this key, or if `error` is set.
        error: the reason why this key failed, or None.
    """

    key: Key
    value: V | None = None
    error: AltaProfilesError | None = None


class Customer(Struct, frozen=True):
    """A profile and the CDP users of the same person.

    Attributes:
        profile: the person's record. It is None only in a result of `Session.who_is`, for a user
            whom CleverTap does not know.
        cdp: CDP users by user ID, looked up with `user_id=profile.identity`. Empty if nothing is
            bound, if the person has no identity, or if `error` is set.
        error: the reason why the CDP lookup failed, or None. It is a `ConfigurationError` if the
            identity cannot be asked for, as half a surrogate pair cannot. The profile is delivered
            either way.
    """

    profile: Profile | None
    cdp: dict[str, CdpUser]
    error: AltaProfilesError | None = None


# Bytes of objects beside the text in them, as measured with tracemalloc.
_RESULT = 750
_USER = 250
_BINDING = 50
_ERROR = 2000


def bytes_in_memory(result: Lookup[Any] | Customer) -> int:
    """Return about how many bytes a result takes in memory. Parts decoded later are not counted."""
    if isinstance(result, Customer):
        held = _bytes_of(result.profile) + _bytes_of(result.cdp)
    else:
        held = _bytes_of(result.key) + _bytes_of(result.value)
    return _RESULT + held + (0 if result.error is None else _ERROR)


def _bytes_of(part: Any) -> int:
    if isinstance(part, Profile):
        return len(part.raw)
    if isinstance(part, dict):
        return sum(map(_bytes_of_user, part.values()))
    return getsizeof(part, 0)


def _bytes_of_user(user: CdpUser) -> int:
    bound = user.anonymous_ids
    texts = ((one.anonymous_id, one.conversation_type, one.source_id) for one in bound)
    return (
        _USER
        + getsizeof(user.user_id)
        + _BINDING * len(bound)
        + sum(getsizeof(text) for some in texts for text in some if text is not None)
    )
