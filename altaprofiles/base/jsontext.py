"""JSON bytes to values, with errors that name the place. Knows no API and no model."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, TypeVar

import msgspec
from msgspec import Raw

from ..errors import DecodeError

__all__ = [
    "as_text",
    "as_texts",
    "check_utf8",
    "decode_json",
    "decode_mended",
    "each_once",
    "element_spans",
    "excerpt",
    "member_span",
    "members",
    "mend_surrogates",
]

V = TypeVar("V")

_EXCERPT = 120


def decode_json(decoder: msgspec.json.Decoder[V], data: bytes | Raw, path: str) -> V:
    """Return `data` decoded, or raise `DecodeError` with the place under `path`.

    JSON text can hold the escape of a lone UTF-16 surrogate, but Unicode text cannot. It is read as
    U+FFFD, because one broken emoji must not stop an export.
    """
    return decode_mended(decoder, data, path)[0]


def decode_mended(
    decoder: msgspec.json.Decoder[V], data: bytes | Raw, path: str
) -> tuple[V, bytes | None]:
    """Decode like `decode_json`; also return the mended bytes, or None if nothing was broken."""
    try:
        return decoder.decode(data), None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        failure = error
    mended = mend_surrogates(bytes(data))
    if mended is None:
        raise _decode_error(failure, bytes(data), path)
    return decode_json(decoder, mended, path), mended


def _decode_error(error: Exception, data: bytes, path: str = "$") -> DecodeError:
    """Return the `DecodeError` for a decoder's `error` over `data`."""
    message, _, inner = str(error).partition(" - at `$")
    return DecodeError(message, path=path + inner.removesuffix("`"), excerpt=excerpt(data))


def check_utf8(data: bytes, path: str) -> None:
    """Raise `DecodeError` unless all of `data` is UTF-8, even the keys that are never decoded."""
    if data.isascii():
        return
    try:
        data.decode()
    except UnicodeDecodeError as error:
        failure = error
    else:
        return
    raise _decode_error(failure, data, path)


def excerpt(data: bytes) -> str:
    """Return the first characters of `data` as readable text."""
    return data[:_EXCERPT].decode("utf-8", "replace").strip()


_HEX = rb"[0-9a-fA-F]"
_HIGH = rb"u[dD][89abAB]" + _HEX + rb"{2}"
_LOW = rb"u[dD][c-fC-F]" + _HEX + rb"{2}"
# Escapes are consumed from the left: a `u` behind an escaped backslash does not start one.
_ESCAPE = re.compile(
    rb"\\(?:(?P<pair>"
    + _HIGH
    + rb"\\"
    + _LOW
    + rb")|(?P<lone>"
    + _HIGH
    + rb"|"
    + _LOW
    + rb")|(?P<nul>u0000)|.)",
    re.DOTALL,
)


def mend_surrogates(data: bytes, *, nul: bool = False) -> bytes | None:
    r"""Return `data` with each lone surrogate escape as `\ufffd`, or None if it holds none.

    The length does not change, so offsets into `data` hold in the result.

    Args:
        data: JSON.
        nul: whether to treat `\u0000` as broken as well.
    """

    def mend(match: re.Match[bytes]) -> bytes:
        is_broken = match["lone"] or (nul and match["nul"])
        return b"\\ufffd" if is_broken else match[0]

    mended = _ESCAPE.sub(mend, data)
    return None if mended == data else mended


_SPACE = re.compile(r"[ \t\n\r]*")
# Only the end of a value matters. Numbers stay text, because Python refuses to convert long ones.
_scan = json.JSONDecoder(parse_int=str, parse_float=str, strict=False).raw_decode


def member_span(data: bytes, name: str) -> tuple[int, int]:
    """Return the start and the end of the value of the last member `name` of a JSON object."""
    span = (0, 0)
    # One character per byte: JSON's own structure is ASCII, and offsets stay the same.
    text = data.decode("latin-1")
    position = _skip(text, text.index("{") + 1)
    while text[position] != "}":
        key, position = _scan(text, position)
        start = _skip(text, _skip(text, position) + 1)
        _, end = _scan(text, start)
        if key == name:
            span = (start, end)
        position = _skip(text, end)
        if text[position] == ",":
            position = _skip(text, position + 1)
    return span


_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*+"|[][{}:,]', re.DOTALL)


def members(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield each member of a JSON object: its key as sent, and the start and end of its value.

    For objects that are nested too deep to decode: nothing is checked, and nothing recurses.
    """
    level, key, start = 0, b"", None
    for token in _TOKEN.finditer(data):
        sign = token[0]
        if sign in (b"]", b"}"):
            level -= 1
        if start is None:
            if sign == b":":
                start = token.end()
            elif sign.startswith(b'"'):
                key = sign
        elif (level == 1 and sign == b",") or level == 0:
            value = data[start : token.start()]
            yield key, start + len(value) - len(value.lstrip()), start + len(value.rstrip())
            start = None
        if sign in (b"[", b"{"):
            level += 1


def element_spans(data: bytes) -> list[tuple[int, int]]:
    """Return the start and the end of each element of a JSON array."""
    spans = []
    text = data.decode("latin-1")
    position = _skip(text, text.index("[") + 1)
    while text[position] != "]":
        _, end = _scan(text, position)
        spans.append((position, end))
        position = _skip(text, end)
        if text[position] == ",":
            position = _skip(text, position + 1)
    return spans


def _skip(text: str, position: int) -> int:
    space = _SPACE.match(text, position)
    return space.end() if space else position


def as_text(value: Any) -> str | None:
    """Return a JSON scalar as text, or None for null: a field may arrive as several types."""
    if value is None or type(value) is str:
        return value
    return msgspec.json.encode(value).decode()


def as_texts(values: list[Any]) -> list[str]:
    """Return each of `values` as text, without the nulls."""
    return [text for value in values if (text := as_text(value)) is not None]


def each_once(values: list[Any]) -> list[str]:
    """Return `values` as text: each text once, without nulls and empty texts."""
    return list(dict.fromkeys(filter(None, as_texts(values))))
