"""The rule by which records belong to the same person. No I/O of its own.

Records with an identity belong to the same person if the identity is equal. Records without one, or
with an empty one, belong to the same person if they share any `objectId`. Records with neither
belong to the same person if they are equal, apart from white space.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import Any, Protocol

import msgspec
from msgspec import Raw, Struct

from ..base.jsontext import FAILURES, compact, each_once, parts
from ..tables.parts import NULL, core_text, device_ids

__all__ = ["Distinct", "Seen", "identity_of", "object_ids_of", "person_key"]


class _Identity(Struct, gc=False):
    identity: Any = None


_IDENTITY = msgspec.json.Decoder(_Identity)


def identity_of(record: bytes | Raw) -> str | None:
    """Return the identity in a record, as `Profile.identity` does, without decoding the rest.

    Raises:
        DecodeError: `record` is not a JSON object.
    """
    try:
        identity = _IDENTITY.decode(record).identity
    except FAILURES:
        return core_text("identity", parts(record).get("identity", NULL))
    if identity is None or type(identity) is str:
        return identity
    return core_text("identity", parts(record)["identity"])


def object_ids_of(record: bytes | Raw) -> list[str]:
    """Return the `objectId` of a record, then of each device that can be read, each one once.

    Raises:
        DecodeError: `record` is not a JSON object.
    """
    sent = parts(record)
    own = core_text("objectId", sent.get("objectId", NULL))
    return each_once((own, *device_ids(sent.get("platformInfo", NULL))))


def person_key(identity: str | None, object_ids: Iterable[str]) -> str | None:
    """Return a key for a person: `identity:…`, else `objectId:…` of the least ID, else None.

    The least, so that the order in which the service lists devices makes no difference.
    """
    if identity:
        return f"identity:{identity}"
    least = min(object_ids, default=None)
    return None if least is None else f"objectId:{least}"


class Seen(Protocol):
    """A set of keys, in memory or elsewhere."""

    def add(self, key: bytes) -> bool:
        """Add `key`, and return True if it is new."""
        ...


_LONGEST = 31
"""Longest key that is kept as it is, in bytes. With its object it takes 64 bytes of memory."""


class _InMemory:
    """Takes some 100 bytes for each key, however long it is."""

    def __init__(self) -> None:
        self._keys: set[bytes] = set()

    def add(self, key: bytes) -> bool:
        known = len(self._keys)
        self._keys.add(key if len(key) <= _LONGEST else _digest(key))
        return len(self._keys) > known


def _digest(data: bytes) -> bytes:
    # 128 bits: the chance that any two of 10**8 people share a digest is 10**-23.
    return blake2b(data, digest_size=16).digest()


class Distinct:
    """Recognises people seen before.

    Remembers a key for each identity, and one for each device of people without an identity.

    Args:
        identities, devices: the sets that remember them; in memory by default.
    """

    def __init__(self, identities: Seen | None = None, devices: Seen | None = None) -> None:
        self._identities = identities or _InMemory()
        self._devices = devices or _InMemory()

    def is_new(self, identity: str | None, record: bytes | Raw) -> bool:
        """Return True if this person has not been seen before, and remember the person.

        Args:
            identity: the identity in the record.
            record: a JSON object.
        """
        if identity:
            return self._identities.add(identity.encode())
        devices = object_ids_of(record)
        if not devices:
            # A byte that no text has, so that the digest cannot be an `objectId`.
            return self._devices.add(b"\xff" + _digest(compact(bytes(record))))
        # Remember every device, so that later records match by any of them.
        new = [self._devices.add(device.encode()) for device in devices]
        return all(new)
