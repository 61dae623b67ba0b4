"""The devices of one person. Pure."""

from __future__ import annotations

import re
from datetime import datetime
from math import isfinite
from typing import Any

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import astuple, fields

from ..base.dates import moment
from ..base.jsontext import FAILURES, elements, parts, plain_text
from ..tables.parts import NULL, begins, core_text
from .times import whole_number

__all__ = ["Platform", "read_platforms"]


class Platform(Struct, frozen=True, gc=False):
    """One device or browser of a person. Every attribute but `platform` may be missing.

    Attributes:
        platform: the kind of device, such as "iOS" or "Web".
        os_version, app_version, make, model: event queries have them only with `app=True`.
        push_token: the address of the device for push notifications.
        object_id: CleverTap's ID for the device.
        phone: a phone number.
        last_seen: epoch seconds, or None if the service did not send a whole number.
        location: latitude and longitude in degrees, or None if the service did not send two
            numbers.
    """

    platform: str | None = None
    os_version: str | None = None
    app_version: str | None = None
    make: str | None = None
    model: str | None = None
    push_token: str | None = None
    object_id: str | None = None
    phone: str | None = None
    last_seen: int | None = None
    location: tuple[float, float] | None = None

    @property
    def last_seen_at(self) -> datetime | None:
        """`last_seen` as an aware datetime in UTC, or None, even for a time beyond year 9999."""
        return moment(self.last_seen)


_TextDevice = msgspec.defstruct(
    "_TextDevice",
    [(field.name, field.type, field.default) for field in fields(Platform)],
    rename={"object_id": "objectId", "last_seen": "ls"},
    gc=False,
)
"""A device of the usual types, with the attributes of `Platform` in their order."""

_TEXT_DEVICES = msgspec.json.Decoder(list[_TextDevice] | None)  # type: ignore[valid-type]
_DEVICE_TEXTS = _TextDevice.__struct_encode_fields__[:-2]


def read_platforms(part: bytes | Raw) -> list[Platform]:
    """Return the devices in a record's `platformInfo`, in the order sent.

    Raises:
        DecodeError: it is not a list of objects.
    """
    try:
        return [Platform(*astuple(device)) for device in _TEXT_DEVICES.decode(part) or ()]
    except FAILURES:
        # A value of an unusual type, or a part that is no list of objects, which raises here.
        devices = enumerate(elements(part, "$.platformInfo"))
        return [_read_platform(device, f"$.platformInfo[{at}]") for at, device in devices]


def _read_platform(sent: Raw, path: str) -> Platform:
    device = parts(sent, path)
    values: list[Any] = [core_text(name, device.get(name, NULL)) for name in _DEVICE_TEXTS]
    values.append(whole_number(device.get("ls", NULL)))
    values.append(_read_location(device.get("location", NULL)))
    return Platform(*values)


_NUMBER = re.compile(r"\s*-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?\s*")


def _read_location(part: Raw) -> tuple[float, float] | None:
    """Return a JSON array of two numbers, or of texts that read as numbers, else None."""
    if not begins(part, b"["):
        return None
    degrees = []
    for value in elements(part):
        text = plain_text(value)
        if text is None or not _NUMBER.fullmatch(text) or not isfinite(degree := float(text)):
            return None
        degrees.append(degree)
    return (degrees[0], degrees[1]) if len(degrees) == 2 else None
