"""From records to columns: the layout that every tabular export and every Arrow table has. Pure.

Free-form parts stay JSON text, because one property may have several types across records, and
every typed schema breaks on that. Odd data makes odd cells, never an error.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import Raw, Struct, field

from ..base.jsontext import (
    as_text,
    as_texts,
    check_utf8,
    decode_json,
    decode_mended,
    members,
    mend_surrogates,
)
from ..errors import ConfigurationError

__all__ = [
    "CORE",
    "DEVICE_IDS",
    "JSON_TEXTS",
    "TEXTS",
    "Columns",
    "Kind",
    "Kinds",
    "check_flatten",
    "column_names",
    "each_once",
]

Kind: TypeAlias = Literal["bool", "int64", "double", "text"]

TEXTS = ("identity", "email", "name", "phone")
JSON_TEXTS = ("profile_data", "events", "platform_info", "extra")
CORE = (*TEXTS, "object_ids", *JSON_TEXTS)
"""The columns of every table, in their order; the flattened ones follow."""


class _DeviceId(Struct, gc=False):
    object_id: Any = field(name="objectId", default=None)


class _TextId(Struct, gc=False):
    object_id: str | None = field(name="objectId", default=None)


DEVICE_IDS = msgspec.json.Decoder(list[_DeviceId] | None)
_TEXT_IDS = msgspec.json.Decoder(list[list[_TextId] | None])
_OBJECT = msgspec.json.Decoder(dict[str, Raw])
_LIST = msgspec.json.Decoder(list[Any])
_ANY = msgspec.json.Decoder(Any)
_KEY = msgspec.json.Decoder(str)
_FAILURES = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_NULL = Raw(b"null")
_EMPTY = Raw(b"")


def check_flatten(flatten: object, *, reserved: Sequence[str] = CORE) -> tuple[str, ...]:
    """Return the keys of `profileData` to lift out, which must be texts, each once.

    Raises:
        ConfigurationError: it is anything else.
    """
    if isinstance(flatten, str) or not isinstance(flatten, Sequence):
        raise ConfigurationError(
            f"flatten: expected a list of profileData keys, got {flatten!r}; write ['plan', 'city']"
        )
    for key in flatten:
        if not isinstance(key, str) or not key or not _is_text(key):
            raise ConfigurationError(
                f"flatten: expected profileData keys, which are text that is not empty, got {key!r}"
            )
    # Of a subclass, such as NumPy's, the plain text.
    keys = tuple(map(str.__str__, flatten))
    seen: set[str] = set()
    for name in column_names(keys, reserved=reserved)[len(reserved) :]:
        # Most databases take names that differ only in case for one.
        if name.casefold() in seen:
            raise ConfigurationError(
                f"flatten: two columns would be named {name!r}, ignoring case; leave one out"
            )
        seen.add(name.casefold())
    return keys


def column_names(flatten: Sequence[str], *, reserved: Sequence[str] = CORE) -> list[str]:
    """Return the name of every column: `reserved`, then one for each key of `flatten`.

    A key whose name is taken gets `profile_data.` in front.
    """
    taken = {name.casefold() for name in reserved}
    lifted = (f"profile_data.{key}" if key.casefold() in taken else key for key in flatten)
    return [*reserved, *lifted]


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in value


class Columns:
    """The cells of some records, a list for each column.

    Attributes:
        texts: of each of `TEXTS`: text, or None.
        object_ids: the `objectId` of the record and of each of its devices, each once.
        json_texts: of each of `JSON_TEXTS`: the JSON as it was sent, or None where it is absent or
            null. `extra` is an object of all top-level keys that have no column.
        mended: how many values hold a lone surrogate, which no Unicode text can, and have U+FFFD
            in its place.

    Args:
        records: JSON objects. That they are UTF-8 is checked where they arrive, and not again.
        flatten: keys of `profileData`, as `check_flatten` returns them.
        mend: whether to mend JSON texts, too, which hold such surrogates as escapes: for readers
            who refuse them.

    Raises:
        DecodeError: a record is no JSON object.
    """

    def __init__(
        self, records: Iterable[bytes], flatten: Sequence[str], *, mend: bool = False
    ) -> None:
        self.mended = 0
        self._mend = mend
        rows = [self._members(record) for record in records]
        data = [row.pop("profileData", _NULL) for row in rows]
        platform_info = [row.pop("platformInfo", _NULL) for row in rows]
        self._lifted = self._lift(data, flatten)
        own = self._texts([row.get("objectId", _NULL) for row in rows])
        self.object_ids: list[list[str]] = [
            [*dict.fromkeys(filter(None, (one, *devices)))]
            for one, devices in zip(own, self._device_ids(platform_info), strict=True)
        ]
        self.texts = [self._texts([row.pop(name, _NULL) for row in rows]) for name in TEXTS]
        self.json_texts: list[list[bytes | None]] = [
            _json_texts(data),
            _json_texts([row.pop("events", _NULL) for row in rows]),
            _json_texts(platform_info),
            [msgspec.json.encode(row) if row else None for row in rows],
        ]

    def lifted(self, number: int, kind: Kind) -> list[Any]:
        """Return the values of one key of `flatten`, None where they are null or missing.

        As text, strings are what they say, and other values their JSON.
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
            return _OBJECT.decode(record)
        except _FAILURES:
            mended = mend_surrogates(record)
        _check_object(record if mended is None else mended)
        # The same offsets hold in both.
        found: dict[str, Raw] = {}
        for key, start, end in members(record):
            name, mended_key = decode_mended(_KEY, key, "$")
            value = record[start:end]
            if self._mend and mended is not None and mended[start:end] != value:
                value = mended[start:end]
                self.mended += 1
            self.mended += mended_key is not None
            found[name] = Raw(value)
        return found

    def _values(self, parts: list[Raw]) -> list[Any]:
        """Return `parts` decoded."""
        try:
            # One call for all of them: most are short, and calls are what takes the time.
            return _LIST.decode(b"".join((b"[", b",".join(parts), b"]")))
        except _FAILURES:
            return [self._value(part) for part in parts]

    def _value(self, part: Raw) -> Any:
        """Return `part` decoded, or as text where it is out of any number's range."""
        try:
            return _ANY.decode(part)
        except _FAILURES:
            pass
        text = bytes(part)
        check_utf8(text, "$")
        mended = mend_surrogates(text)
        if mended is None:
            return text.decode()
        self.mended += 1
        try:
            return _ANY.decode(mended)
        except _FAILURES:
            return mended.decode()

    def _texts(self, parts: list[Raw]) -> list[str | None]:
        return [
            value if value is None or type(value) is str else _scalar_text(value, part)
            for value, part in zip(self._values(parts), parts, strict=True)
        ]

    def _device_ids(self, parts: list[Raw]) -> list[list[str | None]]:
        try:
            known = _TEXT_IDS.decode(b"".join((b"[", b",".join(parts), b"]")))
        except _FAILURES:
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
        return [[row.get(key, _NULL) for row in rows] for key in flatten]


def _check_object(data: bytes) -> None:
    """Raise `DecodeError` unless `data` is a JSON object, or nested too deep to tell."""
    try:
        _OBJECT.decode(data)
    except RecursionError:
        return
    except (msgspec.DecodeError, UnicodeDecodeError):
        decode_json(_OBJECT, data, "$")


def properties(data: Raw) -> dict[str, Raw]:
    """Return the members of `profileData`, none where it is no object."""
    try:
        return _OBJECT.decode(data)
    except _FAILURES:
        pass
    text = bytes(data)
    if not text.startswith(b"{"):
        return {}
    return {decode_json(_KEY, key, "$"): Raw(text[start:end]) for key, start, end in members(text)}


def each_once(values: list[Any]) -> list[str]:
    """Return `values` as text, each once, without nulls and empty ones."""
    return list(dict.fromkeys(filter(None, as_texts(values))))


def _scalar_text(value: Any, part: Raw) -> str | None:
    try:
        return as_text(value)
    except RecursionError:
        return bytes(part).decode()


def _json_texts(parts: list[Raw]) -> list[bytes | None]:
    return [None if text == b"null" else text for text in map(bytes, parts)]


class Kinds:
    """What type each key of `flatten` has over all records that were looked at.

    "bool", "int64" or "double" where every value is that, null and missing ones aside. Whole
    numbers and others make "double" together as long as none is over 2**53, from where on a double
    cannot hold each. Any other mixture is "text", as is what has no value at all.
    """

    def __init__(self, flatten: Sequence[str]) -> None:
        self._seen = dict.fromkeys(flatten, 0)
        # Those that can still turn out to be other than text.
        self._open = set(self._seen)

    def look(self, records: Iterable[bytes]) -> None:
        """Take the values of `records` into account, JSON objects in UTF-8."""
        for record in records:
            if not self._open:
                return
            found = properties(_profile_data(record))
            for key in [*self._open]:
                if (part := found.get(key)) is not None:
                    self._seen[key] |= _class_of(bytes(part))
                    if self._seen[key] & _OTHER:
                        self._open.discard(key)

    @property
    def unseen(self) -> list[str]:
        """The keys that nobody has a value for."""
        return [key for key, seen in self._seen.items() if not seen]

    def __getitem__(self, key: str) -> Kind:
        return _KINDS.get(self._seen[key], "text")


_BOOL, _WHOLE, _LARGE, _REAL, _OTHER = 1, 2, 4, 8, 16
_KINDS: dict[int, Kind] = {
    _BOOL: "bool",
    _WHOLE: "int64",
    _LARGE: "int64",
    _WHOLE | _LARGE: "int64",
    _REAL: "double",
    _WHOLE | _REAL: "double",
}
_MAX_LENGTH_OF_INT64 = 20


def _class_of(part: bytes) -> int:
    if part == b"null":
        return 0
    if part in (b"true", b"false"):
        return _BOOL
    if part[:1] not in b"-0123456789":
        return _OTHER
    if not part.lstrip(b"-").isdigit():
        return _REAL if math.isfinite(float(part)) else _OTHER
    if len(part) > _MAX_LENGTH_OF_INT64 or not -(2**63) <= int(part) < 2**63:
        return _OTHER
    return _WHOLE if abs(int(part)) <= 2**53 else _LARGE


class _Data(Struct, gc=False):
    profile_data: Raw = field(name="profileData", default=_NULL)


_DATA = msgspec.json.Decoder(_Data)


def _profile_data(record: bytes) -> Raw:
    try:
        return _DATA.decode(record).profile_data
    except _FAILURES:
        found = _NULL
        for key, start, end in members(record):
            if decode_json(_KEY, key, "$") == "profileData":
                found = Raw(record[start:end])
        return found
