"""Replaces the parts of JSON that PostgreSQL's jsonb cannot hold. Pure.

PostgreSQL holds neither NUL nor half a surrogate pair ("JSON Types"), only numbers within the range
of `numeric` ("Numeric Types"), and nesting only up to the depth of its stack.
"""

from __future__ import annotations

import re

import msgspec

from ...base.jsontext import mend_surrogates

__all__ = ["MAX_DEPTH", "fit_json"]

MAX_DEPTH = 1000
"""Deepest nesting, in levels. With default settings the server's stack holds about seven times as
many."""

_MAX_WHOLE = 131_072
_MAX_FRACTION = 16_383
"""Most digits before and after the decimal point in a `numeric`."""

_STRING = rb'"(?:[^"\\]|\\.)*+"'
_STRINGS = re.compile(_STRING, re.DOTALL)
_NUMBERS = re.compile(
    _STRING + rb"|-?(?P<whole>[0-9]++)(?:\.(?P<fraction>[0-9]++))?(?:[eE](?P<power>[-+]?[0-9]++))?",
    re.DOTALL,
)
_SUSPECT_NUMBER = re.compile(rb'[0-9][eE][-+]?[0-9]{4,}+(?![0-9A-Za-z"])|[0-9]{16000}')
_LONG = 16_000
_SHAPES = bytes.maketrans(b"E123456789", b"e000000000")
_OTHER_THAN_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def fit_json(data: bytes) -> tuple[bytes, bool]:
    r"""Return `data` as jsonb accepts it, and whether anything was replaced.

    `\u0000` and lone surrogates become U+FFFD, a number that is too large or too precise becomes
    its text, and JSON nested deeper than `MAX_DEPTH` becomes one string of its text.
    """
    fitted = data
    if b"\\u" in data:
        fitted = mend_surrogates(data, nul=True) or data
    if _may_exceed(fitted) and _SUSPECT_NUMBER.search(fitted):
        fitted = _NUMBERS.sub(_fit_number, fitted)
    if (
        len(fitted) > MAX_DEPTH
        and fitted.count(b"[") + fitted.count(b"{") > MAX_DEPTH
        and _depth(fitted) > MAX_DEPTH
    ):
        fitted = msgspec.json.encode(fitted.decode())
    return fitted, fitted != data


def _may_exceed(data: bytes) -> bool:
    """Return False for most documents without a number out of range, in a tenth of the time."""
    return len(data) >= _LONG or b"e0000" in data.translate(_SHAPES, b"-+")


def _fit_number(found: re.Match[bytes]) -> bytes:
    whole, fraction, power = found.group("whole", "fraction", "power")
    if whole is None:
        return found[0]
    exponent = power or b"0"
    # Any longer exponent is out of range by itself.
    if len(exponent) <= len("-131072"):
        moved = int(exponent)
        if len(whole) + moved <= _MAX_WHOLE and len(fraction or b"") - moved <= _MAX_FRACTION:
            return found[0]
    return b'"%b"' % found[0]


def _depth(data: bytes) -> int:
    deepest = level = 0
    for bracket in _STRINGS.sub(b"", data).translate(None, _OTHER_THAN_BRACKETS):
        level += 1 if bracket in b"[{" else -1
        deepest = max(deepest, level)
    return deepest
