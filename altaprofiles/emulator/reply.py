"""What a service decided to answer, before any fault or byte on a socket, and its JSON styles."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import unquote_to_bytes

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

Style = Literal["compact", "spaced", "indented"]
"""How JSON is written: without spaces; as the vendor's last sample, and in ASCII; over lines."""


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """One answer."""

    body: bytes
    status: int = 200
    content_type: str = "application/json"
    headers: dict[str, str] = {}
    page: bytes | None = None
    """The name of the cursor page that this is."""
    empty_page: bool = False
    """Whether that page was emptied by a fault."""


def as_json(value: Any, *, status: int = 200) -> Reply:
    """Return `value` as a compact JSON answer."""
    return Reply(body=msgspec.json.encode(value), status=status)


def encode_value(value: Any, style: Style = "compact") -> bytes:
    """Return `value` as a member of an object in the same style."""
    if style == "spaced":
        return json.dumps(value, separators=(",", " : ")).encode()
    return msgspec.json.encode(value)


def encode_members(members: Mapping[str, bytes], style: Style = "compact") -> bytes:
    """Return an object of encoded members, in their order."""
    if style == "spaced":
        inside = b", ".join(
            b'"%b" : %b' % (name.encode(), value) for name, value in members.items()
        )
        return b"{ %b}" % inside
    inside = b",".join(b'"%b":%b' % (name.encode(), value) for name, value in members.items())
    whole = b"{%b}" % inside
    return msgspec.json.format(whole, indent=2) if style == "indented" else whole


def parameters(target: str) -> dict[str, list[str]] | None:
    """Return the query of a raw request target, decoded once as a form is: `+` is a space.

    None when a name or value is not UTF-8.
    """
    values: dict[str, list[str]] = {}
    for pair in target.partition("?")[2].split("&"):
        if not pair:
            continue
        parts = [text.replace("+", " ") for text in pair.partition("=")[::2]]
        try:
            name, value = (unquote_to_bytes(text).decode("utf-8") for text in parts)
        except UnicodeError:
            return None
        values.setdefault(name, []).append(value)
    return values
