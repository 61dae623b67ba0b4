"""The type of each flattened property: the one that all its values share. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from ..base.dates import moment_in
from .layout import Kind
from .parts import profile_data, properties

__all__ = ["Kinds"]


class Kinds:
    """The type of each key of `flatten`, over all records observed so far.

    It is the one that `flatten` names. Else it is "bool", "int64" or "double" if every value is,
    apart from null and missing ones, and "timestamp" if every value is a date. Integers mixed with
    other numbers are "double" if no integer is beyond 2**53, where doubles become inexact. Any
    other mixture is "text", and so is a key without values.
    """

    def __init__(self, flatten: Mapping[str, Kind | None]) -> None:
        self._named = flatten
        self._seen = dict.fromkeys(flatten, 0)
        # Keys that are not known to be text yet.
        self._open = set(self._seen)

    def observe(self, records: Iterable[bytes]) -> None:
        """Add the values of `records`, which are JSON objects in UTF-8."""
        for record in records:
            if not self._open:
                return
            data = properties(profile_data(record))
            for key in [*self._open]:
                if (part := data.get(key)) is not None:
                    self._seen[key] |= _class_of(bytes(part))
                    if self._seen[key] & _OTHER:
                        self._open.discard(key)

    @property
    def unseen(self) -> list[str]:
        """The keys for which no record has a value other than null."""
        return [key for key, seen in self._seen.items() if not seen]

    def __getitem__(self, key: str) -> Kind:
        return self._named[key] or _KINDS.get(self._seen[key], "text")


_BOOL, _WHOLE, _LARGE, _REAL, _DATE, _OTHER = 1, 2, 4, 8, 16, 32


_KINDS: dict[int, Kind] = {
    _BOOL: "bool",
    _WHOLE: "int64",
    _LARGE: "int64",
    _WHOLE | _LARGE: "int64",
    _REAL: "double",
    _WHOLE | _REAL: "double",
    _DATE: "timestamp",
}


_MAX_LENGTH_OF_INT64 = 20


def _class_of(part: bytes) -> int:
    if part == b"null":
        return 0
    if part in (b"true", b"false"):
        return _BOOL
    if part.startswith(b'"$D_'):
        return _DATE if moment_in(part[1:-1].decode()) else _OTHER
    if part[:1] not in b"-0123456789":
        return _OTHER
    if not part.lstrip(b"-").isdigit():
        return _REAL if math.isfinite(float(part)) else _OTHER
    if len(part) > _MAX_LENGTH_OF_INT64 or not -(2**63) <= int(part) < 2**63:
        return _OTHER
    return _WHOLE if abs(int(part)) <= 2**53 else _LARGE
