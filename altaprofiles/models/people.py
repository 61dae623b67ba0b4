"""Who is the same person. Keeps what it has seen in memory, or where it is told to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from ..errors import DecodeError

__all__ = ["Distinct", "Identified", "Seen", "person_key"]


def person_key(identity: str | None, object_ids: Iterable[str]) -> str | None:
    """Return the name of a person: `identity:…`, else `objectId:…` of the least, else None.

    The least, so that the order in which the service lists the devices makes no difference.
    """
    if identity:
        return f"identity:{identity}"
    least = min(object_ids, default=None)
    return None if least is None else f"objectId:{least}"


class Identified(Protocol):
    """A record that identifies a person."""

    @property
    def identity(self) -> str | None: ...

    @property
    def object_ids(self) -> list[str]: ...


class Seen(Protocol):
    """Remembers texts."""

    def add(self, text: str) -> bool:
        """Remember `text`, and return whether it is new."""
        ...


class _InMemory:
    def __init__(self) -> None:
        self._texts: set[str] = set()

    def add(self, text: str) -> bool:
        known = len(self._texts)
        self._texts.add(text)
        return len(self._texts) > known


class Distinct:
    """Tells people apart: one is an `identity`, and without one any shared `objectId`.

    Remembers one text per person with an identity, and one per device of the others.

    Args:
        identities, devices: what remembers them; in memory by default.
    """

    def __init__(self, identities: Seen | None = None, devices: Seen | None = None) -> None:
        self._identities = identities or _InMemory()
        self._devices = devices or _InMemory()

    def is_new(self, person: Identified) -> bool:
        """Whether this person has not been seen here; from now on it has.

        A person with neither identity nor device is always new: nothing shows that it is not.
        """
        if identity := person.identity:
            return self._identities.add(identity)
        try:
            devices = person.object_ids
        except DecodeError:
            # One odd record must not end the walk. It is delivered, and fails when it is looked at.
            return True
        # All of them are remembered, so that the next record is known by any.
        new = [self._devices.add(device) for device in devices]
        return all(new)
