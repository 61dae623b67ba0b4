"""The columns of every tabular export and Arrow table, read from records. Pure.

Free-form parts stay JSON text: one property may have several types across records, and every typed
schema breaks on that. Odd data makes odd cells, never an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from msgspec import Raw, Struct, field

from ..base.jsontext import (
    as_text,
    check_utf8,
    decode_json,
    decode_mended,
    members,
    mend_surrogates,
)
from .layout import TEXTS, Kind
from .parts import FAILURES, KEY, NULL, OBJECT, properties

__all__ = [
    "Columns",
]


class _TextId(Struct, gc=False):
    object_id: str | None = field(name="objectId", default=None)


_TEXT_IDS = msgspec.json.Decoder(list[list[_TextId] | None])
_LIST = msgspec.json.Decoder(list[Any])
_ANY = msgspec.json.Decoder(Any)
_EMPTY = Raw(b"")


class Columns:
    """The cells of a batch of records, one list for each column.

    Attributes:
        texts: a column for each of `TEXTS`, of text or None.
        object_ids: the `objectId` of each record and of its devices, without duplicates.
        json_texts: a column for each of `JSON_TEXTS`: the JSON as it was sent, or None if it is
            missing or null. `extra` is an object of all top-level keys that have no column.
        mended: number of values in which U+FFFD replaces a lone surrogate, which valid Unicode
            text cannot hold.

    Args:
        records: JSON objects. They are UTF-8 already: it is checked where they arrive.
        flatten: keys of `profileData`, as `check_flatten` returns them.
        mend: True to mend JSON texts as well, for readers that refuse lone surrogates even as
            escapes.

    Raises:
        DecodeError: a record is not a JSON object.
    """

    def __init__(
        self, records: Iterable[bytes], flatten: Sequence[str], *, mend: bool = False
    ) -> None:
        self.mended = 0
        self._mend = mend
        rows = [self._members(record) for record in records]
        data = [row.pop("profileData", NULL) for row in rows]
        platform_info = [row.pop("platformInfo", NULL) for row in rows]
        self._lifted = self._lift(data, flatten)
        own = self._texts([row.get("objectId", NULL) for row in rows])
        self.object_ids: list[list[str]] = [
            [*dict.fromkeys(filter(None, (one, *devices)))]
            for one, devices in zip(own, self._device_ids(platform_info), strict=True)
        ]
        self.texts = [self._texts([row.pop(name, NULL) for row in rows]) for name in TEXTS]
        self.json_texts: list[list[bytes | None]] = [
            _json_texts(data),
            _json_texts([row.pop("events", NULL) for row in rows]),
            _json_texts(platform_info),
            [msgspec.json.encode(row) if row else None for row in rows],
        ]

    def lifted(self, number: int, kind: Kind) -> list[Any]:
        """Return the values of one key of `flatten`, None for those that are null or missing.

        As "text", a string stands for itself, and any other value is written as JSON.
        """
        parts = self._lifted[number]
        values = self._values(parts)
        if kind == "text":
            return [
                value if value is None or type(value) is str else bytes(part).decode()
                for value, part in zip(values, parts, strict=True)
            ]
        if kind == "double":
            return [None if value is None else float(value) for value in values]
        return values

    def _members(self, record: bytes) -> dict[str, Raw]:
        try:
            return OBJECT.decode(record)
        except FAILURES:
            mended = mend_surrogates(record)
        _check_object(record if mended is None else mended)
        # Mending keeps the length, so that offsets are valid in both.
        found: dict[str, Raw] = {}
        for key, start, end in members(record):
            name, mended_key = decode_mended(KEY, key, "$")
            value = record[start:end]
            if self._mend and mended is not None and mended[start:end] != value:
                value = mended[start:end]
                self.mended += 1
            self.mended += mended_key is not None
            found[name] = Raw(value)
        return found

    def _values(self, parts: list[Raw]) -> list[Any]:
        """Return the values of `parts`."""
        try:
            # One call for all parts: most are short, so that the calls would take the time.
            return _LIST.decode(b"".join((b"[", b",".join(parts), b"]")))
        except FAILURES:
            return [self._value(part) for part in parts]

    def _value(self, part: Raw) -> Any:
        """Return the value of `part`, or its text if it is a number out of range."""
        try:
            return _ANY.decode(part)
        except FAILURES:
            pass
        text = bytes(part)
        check_utf8(text, "$")
        mended = mend_surrogates(text)
        if mended is None:
            return text.decode()
        self.mended += 1
        try:
            return _ANY.decode(mended)
        except FAILURES:
            return mended.decode()

    def _texts(self, parts: list[Raw]) -> list[str | None]:
        return [
            value if value is None or type(value) is str else _scalar_text(value, part)
            for value, part in zip(self._values(parts), parts, strict=True)
        ]

    def _device_ids(self, parts: list[Raw]) -> list[list[str | None]]:
        try:
            known = _TEXT_IDS.decode(b"".join((b"[", b",".join(parts), b"]")))
        except FAILURES:
            return [self._device_ids_of_one(part) for part in parts]
        return [[device.object_id for device in devices] if devices else [] for devices in known]

    def _device_ids_of_one(self, part: Raw) -> list[str | None]:
        devices = self._value(part)
        if not isinstance(devices, list):
            return []
        return [
            _scalar_text(device.get("objectId"), _EMPTY)
            for device in devices
            if isinstance(device, dict)
        ]

    def _lift(self, data: list[Raw], flatten: Sequence[str]) -> list[list[Raw]]:
        if not flatten:
            return []
        rows = [properties(part) for part in data]
        return [[row.get(key, NULL) for row in rows] for key in flatten]


def _check_object(data: bytes) -> None:
    """Raise `DecodeError` unless `data` is a JSON object or is nested too deeply to decode."""
    try:
        OBJECT.decode(data)
    except RecursionError:
        return
    except (msgspec.DecodeError, UnicodeDecodeError):
        decode_json(OBJECT, data, "$")


def _scalar_text(value: Any, part: Raw) -> str | None:
    try:
        return as_text(value)
    except RecursionError:
        return bytes(part).decode()


def _json_texts(parts: list[Raw]) -> list[bytes | None]:
    return [None if text == b"null" else text for text in map(bytes, parts)]
