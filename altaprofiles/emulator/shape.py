"""Checks of the records and bindings that tests bring along, against the vendors' pages. No I/O.

Errors name the place and the fault, and no value: a file of records may hold customers' data.

Sources:
    [profiles] "Get User Profiles", https://developer.clevertap.com/docs/get-user-profiles-api
    [cdp] "Query User CDP"
    [seen] public clients and captures
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

from .reply import encode_value

__all__ = ["MOST_BINDINGS", "InvalidShape", "check_bindings", "check_records", "identity_of"]

MOST_BINDINGS = 100
"""Most anonymous IDs of one user, as Alta's documentation has it."""


class InvalidShape(ValueError):
    """A record or a binding that no vendor sends. The text names its place and its fault."""


_Check: TypeAlias = Callable[[Any, str], None]

_KINDS: tuple[tuple[type, str], ...] = (
    (bool, "a boolean"),
    (str, "text"),
    (int, "a whole number"),
    (float, "a number with a fraction"),
    (list, "a list"),
    (dict, "an object"),
)


def _kind(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        return "a whole number"
    found = (name for kind, name in _KINDS if isinstance(value, kind))
    return "null" if value is None else next(found, f"a {type(value).__name__}")


def _of_kind(expected: str, *kinds: type) -> _Check:
    def check(value: Any, place: str) -> None:
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise InvalidShape(f"{place}: expected {expected}, got {_kind(value)}")

    return check


_text = _of_kind("text", str)


def _of_whole(expected: str, *kinds: type) -> _Check:
    """Return the check of a whole number, which may be written like 9.0, or of other kinds."""
    check = _of_kind(expected, int, *kinds)

    def check_whole(value: Any, place: str) -> None:
        if not (isinstance(value, float) and value.is_integer()):
            check(value, place)

    return check_whole


_whole = _of_whole("a whole number")
_text_or_whole = _of_whole("text or a whole number", str)
_object = _of_kind("an object", dict)
_list = _of_kind("a list", list)


def _key(value: Any, place: str) -> None:
    _text_or_whole(value, place)
    if value == "":
        raise InvalidShape(f"{place}: is empty; leave it out")


def _text_key(value: Any, place: str) -> None:
    _text(value, place)
    _key(value, place)


def _seconds(value: Any, place: str) -> None:
    _whole(value, place)
    if not 10**9 <= value < 10**10:
        raise InvalidShape(f"{place}: expected epoch seconds of 10 digits, such as 1767225600")


def _members(value: Any, place: str, checks: Mapping[str, _Check]) -> None:
    """Check an object's known keys. Null stands for a missing key, and unknown keys pass."""
    _object(value, place)
    spellings = {_folded(name): name for name in checks}
    for name, member in value.items():
        meant = spellings.get(_folded(name), name)
        if meant != name:
            raise InvalidShape(f"{place}.{name}: is not a key that the service sends; use {meant}")
        if name in checks and member is not None:
            checks[name](member, f"{place}.{name}")


def _folded(name: str) -> str:
    return name.replace("_", "").replace(" ", "").casefold()


def _events(value: Any, place: str) -> None:
    _object(value, place)
    for name, summary in value.items():
        at = f"{place}[{name!r}]"
        _members(summary, at, _SUMMARY)
        if summary.get("first_seen") is None and summary.get("last_seen") is None:
            raise InvalidShape(f"{at}: has neither first_seen nor last_seen; give one of them")


def _devices(value: Any, place: str) -> None:
    _list(value, place)
    for number, device in enumerate(value):
        _members(device, f"{place}[{number}]", _DEVICE)


_SUMMARY: dict[str, _Check] = {
    "count": _whole,
    "first_seen": _seconds,
    "last_seen": _seconds,
    "properties": _object,
}
_DEVICE: dict[str, _Check] = {
    **dict.fromkeys(("platform", "os_version", "app_version", "make", "model"), _text),
    "push_token": _text,
    "objectId": _text_key,
    "phone": _text_or_whole,
    "ls": _whole,
    "location": _list,
}
_RECORD: dict[str, _Check] = {
    "identity": _key,
    "email": _text_key,
    "name": _text,
    "phone": _text_or_whole,
    "profileData": _object,
    "events": _events,
    "platformInfo": _devices,
    "objectId": _text_key,
    "all_identities": _list,
    "ls": _whole,
}
"""The keys of a record ([profiles], and others that were [seen])."""


def check_records(records: object, name: str) -> list[dict[str, Any]]:
    """Return copies of `records`.

    Args:
        records: records as CleverTap sends them ([profiles]). Unknown keys pass.
        name: the name of the argument, for the error.

    Raises:
        InvalidShape: a record cannot be sent as JSON, a known key has a value of another kind or is
            spelled otherwise, nothing identifies a person, or two have the same identity.
    """
    if isinstance(records, str | bytes | Mapping) or not isinstance(records, Iterable):
        raise InvalidShape(f"{name}: expected a list of records, got {_kind(records)}")
    if hasattr(type(records), "columns"):
        raise InvalidShape(
            f"{name}: expected a list of records, got {_kind(records)}; pass its rows as dicts, "
            f"in pandas by .to_dict('records'), without keys of missing values"
        )
    checked: list[dict[str, Any]] = []
    identities: dict[str, int] = {}
    for number, record in enumerate(records):
        place = f"{name}[{number}]"
        copied = _json_object(record, place)
        _members(copied, place, _RECORD)
        devices = copied.get("platformInfo") or ()
        if not any(copied.get(key) is not None for key in ("identity", "email", "objectId")) and (
            all(device.get("objectId") is None for device in devices)
        ):
            raise InvalidShape(
                f"{place}: has neither identity, email nor objectId; give one of them"
            )
        if copied.get("identity") is not None:
            earlier = identities.setdefault(identity_of(copied["identity"]), number)
            if earlier != number:
                raise InvalidShape(f"{place}.identity: is that of {name}[{earlier}] as well")
        checked.append(copied)
    return checked


def identity_of(value: str | float) -> str:
    """Return an identity of a record as text."""
    return str(int(value) if isinstance(value, float) else value)


def _json_object(record: object, place: str) -> dict[str, Any]:
    if not isinstance(record, Mapping):
        raise InvalidShape(f"{place}: expected an object, got {_kind(record)}")
    try:
        copied: dict[str, Any] = _json(record, place)
        # Other recursions, such as an encoder's, end earlier than this one.
        encode_value(copied)
    except RecursionError:
        raise InvalidShape(f"{place}: is nested too deeply") from None
    return copied


def _json(value: object, place: str) -> Any:
    """Return a value as JSON has it: lists for tuples, and dicts for all mappings."""
    if isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str):
                raise InvalidShape(f"{place}: has a key that is {_kind(name)}; use text")
        return {str(name): _json(member, f"{place}.{name}") for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [_json(item, f"{place}[{number}]") for number, item in enumerate(value)]
    if isinstance(value, str):
        # With halves of surrogate pairs, which a cut through an emoji leaves.
        return str(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        if not -(2**63) <= value < 2**64:
            raise InvalidShape(f"{place}: is a number of more than 64 bits; use text")
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidShape(
                f"{place}: is not a finite number, which JSON cannot hold; leave the key out"
            )
        return float(value)
    raise InvalidShape(f"{place}: {_kind(value)} cannot be sent as JSON")


def _unicode(text: str, place: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidShape(f"{place}: holds half of a surrogate pair") from None


def check_bindings(bindings: object) -> dict[str, list[str]]:
    """Return a copy of `bindings`: anonymous IDs by user ID ([cdp]), each once.

    Raises:
        InvalidShape: it is not a mapping from text to lists of text, or a user has more than 100.
    """
    form = 'such as {"u1": ["a1", "a2"]}'
    if not isinstance(bindings, Mapping):
        raise InvalidShape(f"bindings: expected lists by user ID, {form}, got {_kind(bindings)}")
    checked: dict[str, list[str]] = {}
    for number, (user_id, anonymous_ids) in enumerate(bindings.items()):
        place = f"bindings: entry {number + 1}"
        _text_key(user_id, place)
        _unicode(user_id, place)
        if isinstance(anonymous_ids, str | bytes | Mapping) or not isinstance(
            anonymous_ids, Iterable
        ):
            kind = _kind(anonymous_ids)
            raise InvalidShape(f"{place}: expected a list of anonymous IDs, {form}, got {kind}")
        for slot, anonymous_id in enumerate(anonymous_ids := list(anonymous_ids)):
            _text_key(anonymous_id, f"{place}, anonymous ID {slot + 1}")
            _unicode(anonymous_id, f"{place}, anonymous ID {slot + 1}")
        checked[user_id] = list(dict.fromkeys(anonymous_ids))
        if len(checked[user_id]) > MOST_BINDINGS:
            raise InvalidShape(f"{place}: has more than {MOST_BINDINGS} anonymous IDs, Alta's most")
    return checked
