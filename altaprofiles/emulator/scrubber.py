"""Replaces values by made-up ones of the same kind, equal ones equally. Knows no API; no I/O."""

from __future__ import annotations

import math
import re
import secrets
from base64 import b32encode, b64encode
from hashlib import blake2b
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from .permutation import Permutation

__all__ = ["Scrubber"]

_NUMERIC = re.compile(r"([+-]?)([0-9]{1,40})(?:(\.)([0-9]{1,40}))?(e[+-]?[0-9]+)?")
_DATE = "$D_"
"""The beginning of dates in CleverTap's records."""
_CURSOR_MARK = b"\xff\xef\xbe"  # written as %2F%2B%2B%2B, so that every cursor holds escapes


class Scrubber:
    """One replacement for each value, decided by a key that nobody keeps.

    A text of digits, and the number that it is, have the same replacement, because an identity is
    a number in one place and text in another. It has as many digits, and is unlike that of any
    other number. An e-mail address becomes another one, a date of CleverTap's another date, and any
    other text a word of 16 letters and digits. True and False change places, or not, by the name of
    the member.
    """

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._permutations: dict[int, Permutation] = {}

    def value(
        self, value: Any, names: int = 0, name: str = "", lasting: frozenset[str] = frozenset()
    ) -> Any:
        """Return a JSON value with all values in it replaced.

        Args:
            value: the value.
            names: the number of levels at which names of members stay. Below them a name may be a
                person's, and becomes another one.
            name: the name of the member that has the value.
            lasting: names that stay at any level.
        """
        match value:
            case str():
                return self.text(value)
            case bool():
                return value ^ (self._digest(f"bool {name}", 1)[0] % 2 == 1)
            case int():
                number = _NUMERIC.fullmatch(str(value))
                return 0 if number is None else int(self._numeric(number))
            case float():
                return self._fraction(value)
            case dict():
                return {
                    key if names > 0 or key in lasting else self.text(key): self.value(
                        member, names - 1, key, lasting
                    )
                    for key, member in value.items()
                }
            case list():
                return [self.value(item, names, name, lasting) for item in value]
        return value

    def text(self, text: str) -> str:
        """Return another text. An empty one stays empty."""
        if not text:
            return text
        if text.startswith(_DATE):
            return _DATE + self.text(text.removeprefix(_DATE))
        number = _NUMERIC.fullmatch(text)
        if number is not None and not number[5]:
            return self._numeric(number)
        word = b32encode(self._digest(text, 10)).decode().lower()
        return f"{word}@example.com" if re.fullmatch(r"[^@\s]+@[^@\s]+", text) else word

    def cursor(self, cursor: str) -> str:
        """Return a percent-encoded token, the same for any percent-encoding of the same cursor."""
        # Bytes as characters: text that is not UTF-8 would lose what tells it from others.
        plain = unquote_to_bytes(cursor.encode("utf-8", "surrogatepass")).decode("latin-1")
        digest = self._digest(f"cursor {plain}", 20)
        return quote(b64encode(_CURSOR_MARK + digest), safe="")

    def _digest(self, text: str, size: int) -> bytes:
        return blake2b(
            text.encode("utf-8", "surrogatepass"), key=self._key, digest_size=size
        ).digest()

    def _fraction(self, value: float) -> float:
        number = _NUMERIC.fullmatch(repr(value))
        if number is None:
            return 0.5
        replaced = float(self._numeric(number) + (number[5] or ""))
        # Some digits make a number too large for a float of its exponent.
        return replaced if math.isfinite(replaced) else 1.5

    def _numeric(self, number: re.Match[str]) -> str:
        sign, whole, point, rest = number[1], number[2], number[3] or "", number[4] or ""
        digits = self._digits(whole + rest, is_negative=sign == "-")
        cut = len(digits) - len(rest)
        return sign + digits[:cut] + point + digits[cut:]

    def _digits(self, digits: str, *, is_negative: bool) -> str:
        number, width = int(digits), len(digits)
        has_zeros = width > 1 and digits[0] == "0"
        if has_zeros:
            first, last = 0, 10 ** (width - 1) - 1
        else:
            first, last = _alike(number, width, is_negative=is_negative)
        size = last - first + 1
        # All classes of one size may share a permutation.
        if size not in self._permutations:
            self._permutations[size] = Permutation(self._key, size)
        replaced = str(first + self._permutations[size].image(number - first))
        return replaced.zfill(width) if has_zeros else replaced


def _alike(number: int, width: int, *, is_negative: bool) -> tuple[int, int]:
    """Return the first and the last of the numbers among which one is replaced."""
    first, last = 10 ** (width - 1), 10**width - 1
    if width == 1:
        # Minus zero would be that of two numbers.
        return (1, 9) if is_negative and number else (0, 9)
    if width == 10:
        # Times from 2001 to 2033 stay such times.
        return (first, 2 * first - 1) if number < 2 * first else (2 * first, last)
    # A number of 64 bits, signed or not, stays one.
    signed = 2**63 + is_negative
    for limit, least in ((signed, 10**18), (2**64, signed), (10**20, 2**64)):
        if least <= number < limit:
            return least, limit - 1
    return first, last
