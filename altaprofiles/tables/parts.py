"""Parts of records, still encoded as JSON. Pure."""

from __future__ import annotations

import msgspec
from msgspec import Raw, Struct, field

from ..base.jsontext import FAILURES, elements, parts, plain_text

__all__ = ["NULL", "TextId", "begins", "core_text", "device_ids", "profile_data", "properties"]


NULL = Raw(b"null")

_WHOLE = frozenset({"identity", "phone"})


def begins(part: bytes | Raw, sign: bytes) -> bool:
    """Return True if the first byte of `part` is `sign`."""
    return bytes(memoryview(part)[:1]) == sign


def core_text(name: str, part: bytes | Raw, *, exact: bool = False) -> str | None:
    """Return the value of the member `name` of a record as text, or None for null.

    A phone or an identity that is a whole number is that integer, however the service writes it.
    Any other value that is not text stays as its JSON. `exact` as in `plain_text`.
    """
    return plain_text(part, whole=name in _WHOLE, exact=exact)


class TextId(Struct, gc=False):
    """A device, or a record, whose `objectId` is text."""

    object_id: str | None = field(name="objectId", default=None)


_TEXT_IDS = msgspec.json.Decoder(list[TextId])


def device_ids(platform_info: bytes | Raw, *, exact: bool = False) -> list[str | None]:
    """Return the `objectId` of each device in `platformInfo`, as far as it can be read.

    `exact` as in `plain_text`.
    """
    try:
        return [device.object_id for device in _TEXT_IDS.decode(platform_info)]
    except FAILURES:
        pass
    if not begins(platform_info, b"["):
        return []
    return [
        plain_text(parts(device).get("objectId", NULL), exact=exact)
        for device in elements(platform_info)
        if begins(device, b"{")
    ]


class _Data(Struct, gc=False):
    profile_data: Raw = field(name="profileData", default=NULL)


_DATA = msgspec.json.Decoder(_Data)


def profile_data(record: bytes) -> Raw:
    """Return the `profileData` of a record, `NULL` where it is missing."""
    try:
        return _DATA.decode(record).profile_data
    except FAILURES:
        return parts(record).get("profileData", NULL)


def properties(data: Raw) -> dict[str, Raw]:
    """Return the members of `profileData`, none where it is not an object."""
    return parts(data) if begins(data, b"{") else {}
