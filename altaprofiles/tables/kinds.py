"""The type of each flattened property: the one that all its values share. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Container, Iterable, Mapping
from typing import Literal, TypeAlias

from ..base.dates import moment_in
from ..base.jsontext import parts
from ..base.wording import meant
from .layout import CORE, Kind
from .parts import profile_data, properties

__all__ = ["Kinds", "Tally", "ValueKind"]


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
        self._names: set[str] = set()
        self._members: set[str] = set()
        self._looked_at = 0
        self._is_looking = bool(flatten)

    def observe(self, records: Iterable[bytes]) -> None:
        """Add the values of `records`, which are JSON objects in UTF-8."""
        for record in records:
            if not self._open:
                return
            data = properties(profile_data(record))
            if self._is_looking:
                self._look_for_names(record, data)
            for key in [*self._open]:
                if (part := data.get(key)) is not None:
                    if not (found := _class_of(bytes(part))):
                        self._names.add(key)
                    self._seen[key] |= found
                    if self._seen[key] & _OTHER:
                        self._open.discard(key)

    def _look_for_names(self, record: bytes, data: Mapping[str, object]) -> None:
        """Remember the names of a record and its properties, as long as `advice` may need them."""
        self._names.update(data)
        self._members.update(parts(record))
        self._looked_at += 1
        names = len(self._names) + len(self._members)
        self._is_looking = self._looked_at < _RECORDS and names < _NAMES and bool(self.unseen)

    @property
    def unseen(self) -> list[str]:
        """The keys for which no record has a value other than null."""
        return [key for key, seen in self._seen.items() if not seen]

    def advice(self, known: Container[str] = ()) -> list[str]:
        """Return a sentence on each of `unseen`, with the property or the column that may be meant.

        Args:
            known: the keys on which there is none, as rows of earlier runs have their columns.
        """
        sentences = []
        # Where nobody came, no name is a mistake yet.
        for key in self.unseen if self._looked_at else ():
            if key in known:
                continue
            with_ = "a value for the property" if key in self._names else "the property"
            close = meant(key, self._names - {key}, cutoff=0.75)
            column = _COLUMNS.get(key, "extra" if key in self._members else None)
            hint = ""
            if key.casefold() in CORE:
                hint = f"; {key.casefold()!r} is a column without `flatten`"
            elif column is not None:
                hint = f"; the member {key!r} of records is in the column {column!r}"
            elif close is None and "," in key:
                hint = "; name each property by itself"
            if close is not None:
                hint += f"; {'or ' if hint else ''}did you mean {close}?"
            sentences.append(
                f"this run brought nobody with {with_} {key!r}, so that it leaves the column "
                f"empty{hint}"
            )
        return sentences

    def __getitem__(self, key: str) -> Kind:
        return self._named[key] or _KINDS.get(self._seen[key], "text")


_NAMES = 1000
"""Names that are remembered, so that one of them can be proposed."""
_RECORDS = 1000
"""Records whose names are remembered."""
_COLUMNS = {
    "objectId": "object_ids",
    "profileData": "profile_data",
    "platformInfo": "platform_info",
}
"""The columns of members of a record that have another name than their column."""


ValueKind: TypeAlias = Literal[Kind, "json"]
"""The type of one value: "json" for a list, an object, or a number out of range."""


class Tally:
    """The values of one key, by type. It has the type that `Kinds` finds for it.

    Attributes:
        values: number of values other than null.
    """

    def __init__(self) -> None:
        self.values = 0
        self._seen = 0
        self._types: Counter[tuple[int, bool]] = Counter()

    def add(self, part: bytes) -> None:
        """Count a value, which is JSON. Null is not counted."""
        if found := _class_of(part):
            self.values += 1
            self._seen |= found
            self._types[found, part.startswith(b'"')] += 1

    @property
    def kind(self) -> Kind:
        """The type of a column of these values."""
        return _KINDS.get(self._seen, "text")

    @property
    def types(self) -> dict[ValueKind, int]:
        """Number of values by their own type, the most frequent one first."""
        counts: Counter[ValueKind] = Counter()
        for (found, is_text), count in self._types.items():
            counts[("text" if is_text else "json") if found == _OTHER else _KINDS[found]] += count
        return dict(counts.most_common())


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
