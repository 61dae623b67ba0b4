"""The cells of every tabular export and Arrow table, read from records. Pure.

Free-form parts stay JSON text: one property may have several types across records, and every typed
schema breaks on that. Odd data makes odd cells, never an error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Raw

from ..base.dates import moment_in
from ..base.jsontext import (
    FAILURES,
    canonical,
    check_utf8,
    decode_mended,
    each_once,
    members,
    mend_surrogates,
)
from .layout import TEXTS, Column, ColumnKind
from .mended import Mended
from .parts import NULL, TextId, core_text, device_ids, properties

__all__ = ["Columns", "lifted_again"]


_TEXT_IDS = msgspec.json.Decoder(list[list[TextId] | None])
_LIST = msgspec.json.Decoder(list[Any])
_ANY = msgspec.json.Decoder(Any)
_OBJECT = msgspec.json.Decoder(dict[str, Raw])
_KEY = msgspec.json.Decoder(str)
_BRACKETS = (b"[", b"{")


class Columns:
    """The cells of a batch of records, one list for each column.

    Attributes:
        texts: a column for each of `TEXTS`, of text or None.
        object_ids: the `objectId` of each record and of its devices, without duplicates.
        json_texts: a column for each of `JSON_TEXTS`: the JSON as it was sent, or None if it is
            missing or null. `extra` is an object of all top-level keys that have no column.
        replaced: number of values in which U+FFFD replaces a lone surrogate. Text cannot hold one,
            and strict readers of JSON refuse even its escape.
        mistyped: number of values of `lift` that are null because they do not fit, by column.

    Args:
        records: JSON objects. They are UTF-8 already: it is checked where they arrive.
        flatten: keys of `profileData`.

    Raises:
        DecodeError: a record is not a JSON object.
    """

    def __init__(self, records: Iterable[bytes], flatten: Sequence[str]) -> None:
        self.replaced = 0
        self.mistyped: dict[str, int] = {}
        rows = [self._members(record) for record in records]
        data = [row.pop("profileData", NULL) for row in rows]
        platform_info = [row.pop("platformInfo", NULL) for row in rows]
        self._lifted = self._lift(data, flatten)
        own = self._texts("objectId", [row.get("objectId", NULL) for row in rows])
        self.object_ids: list[list[str]] = [
            each_once((one, *devices))
            for one, devices in zip(own, self._device_ids(platform_info), strict=True)
        ]
        self.texts = [self._texts(name, [row.pop(name, NULL) for row in rows]) for name in TEXTS]
        self.json_texts: list[list[bytes | None]] = [
            _json_texts(data),
            _json_texts([row.pop("events", NULL) for row in rows]),
            _json_texts(platform_info),
            [msgspec.json.encode(row) if row else None for row in rows],
        ]

    @property
    def core(self) -> list[list[Any]]:
        """The cells of the columns of `CORE`."""
        return [*self.texts, self.object_ids, *self.json_texts]

    def lift(self, columns: Sequence[Column]) -> list[list[Any]]:
        """Return the cells of the flattened keys, each as the kind of its column."""
        return [
            self.lifted(number, column.kind, column.name) for number, column in enumerate(columns)
        ]

    @property
    def mended(self) -> Mended:
        """The values that are not as they were, of all columns so far."""
        return Mended(self.replaced, self.mistyped)

    def lifted(self, number: int, kind: ColumnKind, name: str = "") -> list[Any]:
        """Return the values of one key of `flatten`, None for those that are null or missing.

        As "text", a string stands for itself, and any other value is written as JSON: a list or an
        object in the one text of all equal ones, a number as it was sent. Of the other kinds, a
        value that does not fit is None, and is counted under `name`.
        """
        parts = self._lifted[number]
        try:
            values = _LIST.decode(_joined(parts))
        except FAILURES:
            values = [_value(part) for part in parts]
        if kind == "text":
            return [
                value if value is None or type(value) is str else _json(part)
                for value, part in zip(values, parts, strict=True)
            ]
        fit = _FITS[kind]
        fitted = [None if value is None else fit(value) for value in values]
        if lost := fitted.count(None) - values.count(None):
            self.mistyped[name] = lost
        return fitted

    def _members(self, record: bytes) -> dict[str, Raw]:
        try:
            return _OBJECT.decode(record)
        except FAILURES:
            pass
        found: dict[str, Raw] = {}
        for key, value in members(record):
            name, mended_key = decode_mended(_KEY, key, "$")
            mended = mend_surrogates(bytes(value))
            self.replaced += (mended_key is not None) + (mended is not None)
            found[name] = value if mended is None else Raw(mended)
        return found

    def _texts(self, name: str, values: list[Raw]) -> list[str | None]:
        try:
            found = _LIST.decode(_joined(values))
        except FAILURES:
            return [core_text(name, value) for value in values]
        return [
            value
            if value is None or type(value) is str
            # Most values that are not text are phones as integers.
            else str(value)
            if type(value) is int
            else core_text(name, part)
            for value, part in zip(found, values, strict=True)
        ]

    def _device_ids(self, lists: list[Raw]) -> list[list[str | None]]:
        try:
            known = _TEXT_IDS.decode(_joined(lists))
        except FAILURES:
            return [device_ids(devices) for devices in lists]
        return [[device.object_id for device in devices] if devices else [] for devices in known]

    def _lift(self, data: list[Raw], flatten: Sequence[str]) -> list[list[Raw]]:
        if not flatten:
            return []
        rows = [properties(part) for part in data]
        return [[row.get(key, NULL) for row in rows] for key in flatten]


def lifted_again(data: Sequence[bytes | None], kinds: Mapping[str, ColumnKind]) -> list[list[Any]]:
    """Return the cells of flattened keys, of rows that have `profile_data` already.

    Args:
        data: `profile_data` of each row.
        kinds: the kind of each key.
    """
    records = [b'{"profileData":%b}' % (part or b"null") for part in data]
    columns = Columns(records, [*kinds])
    return [columns.lifted(number, kind) for number, kind in enumerate(kinds.values())]


def _whole(value: Any) -> int | None:
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and -(2**63) <= value < 2**63 else None


def _real(value: Any) -> float | None:
    """Return a number as a float; None for an integer that would be rounded, as for other types."""
    if type(value) is float:
        return value if math.isfinite(value) else None
    if type(value) is not int:
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if number == value else None


def _time(value: Any) -> datetime | None:
    """Return a date as CleverTap writes it, or a time as in ISO 8601 (UTC if it has no zone)."""
    if type(value) is not str:
        return None
    found = moment_in(value)
    if found is None and value[:4].isdecimal():
        try:
            found = datetime.fromisoformat(value)
            found = found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
        except (ValueError, OverflowError):
            return None
    return found


_FITS: dict[ColumnKind, Callable[[Any], Any]] = {
    "bool": lambda value: value if type(value) is bool else None,
    "int64": _whole,
    "double": _real,
    "timestamp": _time,
}


def _joined(values: list[Raw]) -> bytes:
    # Decoded in one call, because most values are short, and the calls would take the time.
    return b"".join((b"[", b",".join(values), b"]"))


def _value(part: Raw) -> Any:
    """Return the value of `part`, or its JSON if it is a number out of range or nested too deep."""
    try:
        return _ANY.decode(part)
    except FAILURES:
        text = bytes(part)
    check_utf8(text, "$")
    return _json(part)


def _json(part: Raw) -> str:
    text = bytes(part)
    return (canonical(text) if text[:1] in _BRACKETS else text).decode()


def _json_texts(parts: list[Raw]) -> list[bytes | None]:
    return [None if text == b"null" else text for text in map(bytes, parts)]
