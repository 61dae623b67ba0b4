"""What jsonb and text refuse, and what stands there instead. Pure.

PostgreSQL holds neither NUL nor half a surrogate pair ("JSON Types"), numbers only as far as its
`numeric` goes ("Numeric Types"), and nesting only as far as its stack does.
"""

from __future__ import annotations

import re

import msgspec

from ...base.jsontext import mend_surrogates

__all__ = ["MAX_DEPTH", "fit_json"]

MAX_DEPTH = 1000
"""Levels. The server's stack takes about seven times as many with the settings it comes with."""

_MAX_WHOLE = 131_072
_MAX_FRACTION = 16_383
"""Digits before and after the decimal point that `numeric` holds."""

_STRING = rb'"(?:[^"\\]|\\.)*+"'
_STRINGS = re.compile(_STRING, re.DOTALL)
_NUMBERS = re.compile(
    _STRING + rb"|-?(?P<whole>[0-9]++)(?:\.(?P<fraction>[0-9]++))?(?:[eE](?P<power>[-+]?[0-9]++))?",
    re.DOTALL,
)
_SUSPECT_NUMBER = re.compile(rb"[eE][-+]?[0-9]{4}|[0-9]{16000}")
_OTHER_THAN_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def fit_json(data: bytes) -> tuple[bytes, bool]:
    r"""Return `data` as jsonb takes it, and whether that is something else.

    `\u0000` and lone surrogates become U+FFFD, a number that is too large or too fine becomes its
    text, and what is nested over `MAX_DEPTH` deep becomes one string that holds the JSON.
    """
    fitted = data
    if b"\\u" in data:
        fitted = mend_surrogates(data, nul=True) or data
    if _SUSPECT_NUMBER.search(fitted):
        fitted = _NUMBERS.sub(_fit_number, fitted)
    if fitted.count(b"[") + fitted.count(b"{") > MAX_DEPTH and _depth(fitted) > MAX_DEPTH:
        fitted = msgspec.json.encode(fitted.decode())
    return fitted, fitted != data


def _fit_number(found: re.Match[bytes]) -> bytes:
    whole, fraction, power = found.group("whole", "fraction", "power")
    if whole is None:
        return found[0]
    exponent = power or b"0"
    # Longer ones are out of range by themselves.
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
