"""From JSON bytes to values, with errors that say where. Knows no API and no model."""

from __future__ import annotations

import re
from typing import TypeVar

import msgspec
from msgspec import Raw

from .errors import DecodeError

__all__ = ["decode_json", "decode_mended", "excerpt"]

V = TypeVar("V")

_EXCERPT = 120


def decode_json(decoder: msgspec.json.Decoder[V], data: bytes | Raw, path: str) -> V:
    """Return `data` decoded, or raise `DecodeError` with the place under `path`.

    JSON text may hold a lone UTF-16 surrogate escape, which no Unicode text can: it is read as
    U+FFFD, because one broken emoji must not stop an export.
    """
    return decode_mended(decoder, data, path)[0]


def decode_mended(
    decoder: msgspec.json.Decoder[V], data: bytes | Raw, path: str
) -> tuple[V, bytes | None]:
    """Do as `decode_json`, and return the mended bytes too where lone surrogates were found."""
    try:
        return decoder.decode(data), None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        failure = error
    mended = _mend_surrogates(bytes(data))
    if mended is None:
        raise _decode_error(failure, bytes(data), path)
    return decode_json(decoder, mended, path), mended


def _decode_error(error: Exception, data: bytes, path: str = "$") -> DecodeError:
    """Return the `DecodeError` for a decoder's `error` over `data`."""
    message, _, inner = str(error).partition(" - at `$")
    return DecodeError(message, path=path + inner.removesuffix("`"), excerpt=excerpt(data))


def excerpt(data: bytes) -> str:
    """Return the first characters of `data`, as a person can read them."""
    return data[:_EXCERPT].decode("utf-8", "replace").strip()


# An even run of backslashes before the `u` means that the `\u` is itself escaped text.
_ESCAPES = re.compile(
    rb"\\(?:[^u]|u(?![dD][89a-fA-F])|(?P<pair>u[dD][89abAB]..\\u[dD][c-fC-F]..)|(?P<lone>u....))",
    re.DOTALL,
)


def _mend_surrogates(data: bytes) -> bytes | None:
    r"""Return `data` with each lone surrogate escape as `\ufffd`, or None if it holds none.

    The length does not change, so that offsets into the one hold in the other.
    """
    mended = _ESCAPES.sub(lambda found: b"\\ufffd" if found["lone"] else found[0], data)
    return None if mended == data else mended
