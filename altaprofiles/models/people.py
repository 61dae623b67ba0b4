"""The rule by which records belong to the same person. No I/O of its own.

Records with an identity belong to the same person if the identity is equal. Records without one, or
with an empty one, belong to the same person if they share any `objectId`. A record with neither is
a person of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from ..errors import DecodeError

__all__ = ["Distinct", "Identified", "Seen", "person_key"]


def person_key(identity: str | None, object_ids: Iterable[str]) -> str | None:
    """Return a key for a person: `identity:…`, else `objectId:…` of the least ID, else None.

    The least, so that the order in which the service lists devices makes no difference.
    """
    if identity:
        return f"identity:{identity}"
    least = min(object_ids, default=None)
    return None if least is None else f"objectId:{least}"


class Identified(Protocol):
    """The identifiers of a record."""

    @property
    def identity(self) -> str | None: ...

    @property
    def object_ids(self) -> list[str]: ...


class Seen(Protocol):
    """A set of strings, in memory or elsewhere."""

    def add(self, text: str) -> bool:
        """Add `text`, and return True if it is new."""
        ...


class _InMemory:
    def __init__(self) -> None:
        self._texts: set[str] = set()

    def add(self, text: str) -> bool:
        known = len(self._texts)
        self._texts.add(text)
        return len(self._texts) > known


class Distinct:
    """Recognises people seen before.

    Remembers one string for each identity, and one for each device of people without an identity.

    Args:
        identities, devices: the sets that remember them; in memory by default.
    """

    def __init__(self, identities: Seen | None = None, devices: Seen | None = None) -> None:
        self._identities = identities or _InMemory()
        self._devices = devices or _InMemory()

    def is_new(self, person: Identified) -> bool:
        """Return True if this person has not been seen before, and remember the person."""
        if identity := person.identity:
            return self._identities.add(identity)
        try:
            devices = person.object_ids
        except DecodeError:
            # One odd record must not end the walk. It is delivered, and raises when it is read.
            return True
        # Remember every device, so that later records match by any of them.
        new = [self._devices.add(device) for device in devices]
        return all(new)
