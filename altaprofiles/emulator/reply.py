"""Answers as values, before faults and sockets, and the styles of their JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import unquote_to_bytes

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .dice import Dice

__all__ = [
    "Reply",
    "Style",
    "as_json",
    "encode_members",
    "encode_value",
    "names_in",
    "parameters",
    "style_of",
]

Style = Literal["compact", "spaced", "indented"]
"""Styles of JSON: no spaces; spaces as in the vendor's sample of a last page; several lines."""


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """One answer."""

    body: bytes
    status: int = 200
    content_type: str = "application/json"
    headers: dict[str, str] = {}
    page: bytes | None = None
    """The name of the cursor page in this answer, or None."""
    faults: tuple[str, ...] = ()
    """The faults that changed the content of this answer."""
    limit: str | None = None
    """The setting whose limit emptied this answer, or None."""


def as_json(value: Any, *, status: int = 200) -> Reply:
    """Return an answer with `value` as compact JSON."""
    return Reply(body=msgspec.json.encode(value), status=status)


def encode_value(value: Any, style: Style = "compact") -> bytes:
    """Return `value` as JSON, for `encode_members` in the same style."""
    if style == "spaced":
        return json.dumps(value, separators=(",", " : ")).encode()
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        # Half of a surrogate pair, which JSON can hold as an escape.
        return json.dumps(value, separators=(",", ":")).encode()


def encode_members(members: Mapping[str, bytes], style: Style = "compact") -> bytes:
    """Return a JSON object of encoded members, in their order."""
    if style == "spaced":
        inside = b", ".join(
            b'"%b" : %b' % (name.encode(), value) for name, value in members.items()
        )
        return b"{ %b}" % inside
    inside = b",".join(b'"%b":%b' % (name.encode(), value) for name, value in members.items())
    whole = b"{%b}" % inside
    if style != "indented":
        return whole
    try:
        return msgspec.json.format(whole, indent=2)
    except msgspec.DecodeError:
        # Half of a surrogate pair again.
        return json.dumps(json.loads(whole), indent=2).encode()


def style_of(dice: Dice, key: object) -> Style:
    """Return the style of an answer, which `key` decides."""
    share = dice.share("style", key)
    if share < 0.85:
        return "compact"
    return "spaced" if share < 0.93 else "indented"


def names_in(target: str) -> frozenset[str]:
    """Return the names of the parameters of a raw request target."""
    pairs = target.partition("?")[2].split("&")
    return frozenset(pair.partition("=")[0] for pair in pairs)


def parameters(target: str) -> dict[str, list[str]] | None:
    """Return the parameters of a raw request target, or None if one of them is not UTF-8.

    They are decoded once, as in forms: `+` is a space.
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
