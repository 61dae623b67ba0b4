"""Text that is safe to show: secrets masked, control characters escaped. Does no I/O."""

from __future__ import annotations

import re
import sys
from base64 import b64encode
from collections.abc import Container, Iterable, Iterator, Mapping
from copy import copy
from decimal import ROUND_DOWN, ROUND_HALF_EVEN, Context, Decimal, InvalidOperation
from functools import cache
from html import unescape
from html.entities import html5
from typing import Any, NoReturn

__all__ = [
    "DATABASE_URL",
    "LOOKS_LIKE_DATABASE",
    "POSTGRES_URL",
    "STARS",
    "Secret",
    "as_secret",
    "harmless",
    "mask_values",
    "masked",
    "readable",
]


LOOKS_LIKE_DATABASE = re.compile("@|password|postgres", re.IGNORECASE)
"""A text that may be a mistyped URL, with a password in it, is not shown."""


# Of one slash as well, as in a `Path` made of it.
POSTGRES_URL = re.compile(r"\bpostgres(?:ql)?(?:\+\w+)?:/", re.IGNORECASE)
"""A text that holds the URL of a PostgreSQL database."""


DATABASE_URL = re.compile(
    POSTGRES_URL.pattern
    # A user with a password, in a URL whose scheme may be misspelt. A drive has one letter, and
    # fsspec has github://owner:repository@branch/path.
    + r"|\b(?:(?!git(?:hub)?:)\w\w+:|postgres(?:ql)?)//?[^/\s:@]*:[^/\s@]+@"
    r"|\A(?=.*\b(?:host|hostaddr|port|dbname|user|service)\s*=)"
    r"(?=.*\b(?:(?:ssl)?password|scram_\w+_key|oauth_client_secret)\s*=\s*[^\s;&])",
    re.IGNORECASE | re.DOTALL,
)
"""The URL of a PostgreSQL database, libpq's parameters with a secret, or a password in another URL.
No name, path or address of a bucket is one, so that it is neither shown nor stored elsewhere."""


STARS = "***"
"""The text in the place of a secret."""


class Secret(str):
    """A string whose `repr` is `'***'`: usable as text, invisible in tracebacks.

    Debuggers and error reporters print the `repr` of every local of every frame. With this type
    they print stars, in the frames of this library and in those of aiohttp. The text of a deep copy
    is stars.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError(
            "credentials do not pickle, so that they never reach a disk or a queue by accident; "
            "create them where they are used, for example with from_env()"
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> Secret:
        # `dataclasses.asdict` makes one of each field, and tables of pandas and polars, which show
        # the text of a string, are made with it. Credentials themselves are copied as they are.
        return Secret(STARS)


def as_secret(value: object) -> Secret:
    """Return a credential as a `Secret`, empty if `value` is not text."""
    return Secret(value if isinstance(value, str) else "")


def mask_values(values: Mapping[str, Any], *, plain: Container[str] = ()) -> dict[str, Any]:
    """Return `values` with each text as a `Secret`, in nested tables as well.

    A text made from a `Secret`, such as `Bearer …`, is plain until it is masked again.

    Args:
        values: HTTP headers, or the content of a credentials file.
        plain: keys whose values are not secret. An unknown key may be a misspelt one, so its value
            is masked.
    """
    return {
        key: mask_values(value, plain=plain)
        if isinstance(value, Mapping)
        else Secret(value)
        if isinstance(value, str) and key not in plain
        else value
        for key, value in values.items()
    }


def masked(text: str, secrets: Iterable[str], keys: Iterable[str] = ()) -> str:
    """Return `text`, which came from outside, with stars in place of secrets and keys.

    Every spelling is recognised: escapes of JSON, JavaScript, URLs, HTML, Python and C, upper and
    lower case, a line break in between; of a secret its base64 as well, of a key that is a number
    other notations of it, such as 4.9E12 or 4,900,000,000,000. The order of `secrets` and `keys`
    makes no difference, even if one is part of another.

    Args:
        text: text of a service, a proxy or a driver, without words of this library.
        secrets: masked wherever they are. Parts are masked as well: of 6 characters anywhere, and
            of 3 at the start or the end of `text`, where an excerpt can cut a secret short.
        keys: identifiers of people. One of fewer than 6 characters is masked only as a word of its
            own, so that the key 1 does not hide every 1.
    """
    whole = _View(text)
    views = [whole]
    for view in (whole, *_without_cut_end(text)):
        view = view.unescaped()
        if all(vars(view) != vars(known) for known in views):
            views.append(view)
    forms = [form for secret in secrets for form in (secret, *_in_base64(secret))]
    hidden = bytearray(len(text))
    # Of a longer key, no more than this can be in the text, in any spelling.
    keys = [key[: _SPELLED * (len(text) + 1)] for key in keys]
    numbers = [_number(key) for key in keys]
    values = {number for key in keys if (number := _value(key)) is not None}
    secret_texts, key_texts = _spellings(forms), _spellings([*keys, *numbers])
    for view in views:
        view.hide_numbers(values, hidden)
        view.hide_parts(secret_texts, hidden)
        for key in key_texts:
            view.hide_key(key, hidden)
    for view in _without_cut_start(text):
        view.hide_parts(secret_texts, hidden)
    parts = re.finditer(rb"\x01+|\x00+", hidden)
    return "".join("***" if part[0][0] else text[slice(*part.span())] for part in parts)


_PART = 6
_EDGE = 3
# Characters that the longest spelling of one character takes.
_SPELLED = 16
_DIGITS = 5
# Escapes of escapes that are undone. No service nests them deeper, and each takes time.
_LEVELS = 5


def _number(key: str) -> str:
    """Return a number without the plus and the zeros in front of it, or nothing.

    A service that stores numbers leaves them out. A number of few digits may be any number.
    """
    found = re.fullmatch(rf"\+?0*([0-9]{{{_DIGITS},}})", key.strip())
    return found[1] if found else ""


# Bounded, because Decimal computes with as many digits as it is given.
_NOTATION = re.compile(
    r"[-+]?(?:[0-9]{1,40}(?:\.[0-9]{0,40})?|\.[0-9]{1,40})(?:e[-+ ]?[0-9]{1,3})?"
)
_IN_TEXT = re.compile(r"[0-9.][0-9.,']*(?:e[-+ ]?[0-9]{1,3})?")


def _value(text: str) -> Decimal | None:
    """Return the absolute value of a number in any notation, or None."""
    text = text.strip().lower()
    if _NOTATION.fullmatch(text) is None:
        return None
    try:
        return abs(Decimal(text.replace("e ", "e+")))
    except InvalidOperation:
        return None


def _is_number(text: str, number: Decimal) -> bool:
    """Return whether `text` is `number` with separators or an exponent, or rounded."""
    mantissa, exponent, _ = text.partition("e")
    plain = mantissa.replace(",", "").replace("'", "")
    value = _value(text.replace(mantissa, plain, 1))
    is_long = number >= 10 ** (_DIGITS - 1)
    if value == number:
        # A whole number of few digits may be any number: only a word of its own is masked.
        return bool(exponent) or is_long or not plain.isdecimal()
    if not exponent:
        digits = re.sub(r"[^0-9]", "", mantissa)
        return is_long and digits == f"{number:f}"
    digits = plain.replace(".", "").lstrip("0")
    return len(digits) > 1 and any(
        Context(prec=len(digits), rounding=rounding).create_decimal(number) == value
        for rounding in (ROUND_HALF_EVEN, ROUND_DOWN)
    )


def _spellings(texts: Iterable[str]) -> set[str]:
    """Return `texts` as views spell them, with escapes and without."""
    views = map(_View, texts)
    return {text for view in views for text in (view.text, view.unescaped().text) if text.strip()}


class _View:
    """A text in one spelling, and the place of each of its characters in the text as it came."""

    def __init__(self, text: str) -> None:
        folded = text.lower() if text.isascii() else [_folded(character) for character in text]
        self.text = "".join(folded)
        self.spans = [
            (position, position + 1) for position, some in enumerate(folded) for _ in some
        ]

    def unescaped(self) -> _View:
        """Return this view with all escapes undone, even those of an escaped text in another."""
        # Breaks first, because one may be in the middle of an escape.
        view = self.replaced(_BREAK)
        for _ in range(_LEVELS):
            found = view.replaced(_ESCAPE)
            if found.text == view.text:
                break
            view = found
        return view

    def part(self, place: int, start: int, end: int) -> _View:
        """Return the part from `start` to `end`. Its first character has its place from `place`."""
        view = copy(self)
        view.text, view.spans = self.text[start:end], self.spans[start:end]
        view.spans[0] = (self.spans[place][0], view.spans[0][1])
        return view

    def replaced(self, pattern: re.Pattern[str]) -> _View:
        """Return this view with what `pattern` finds replaced by `_character`."""
        if _SPECIAL.isdisjoint(self.text):
            return self
        view = copy(self)
        pieces = [(_character(found), found.span()) for found in pattern.finditer(self.text)]
        view.text = "".join(text for text, _ in pieces)
        view.spans = [
            (self.spans[start][0], self.spans[end - 1][1])
            for text, (start, end) in pieces
            for _ in text
        ]
        return view

    def hide_parts(self, secrets: Iterable[str], hidden: bytearray) -> None:
        """Mark the parts of `secrets` in `hidden`."""
        parts: dict[int, set[str]] = {}
        for secret in secrets:
            size = min(len(secret), _PART)
            starts = range(len(secret) - size + 1)
            parts.setdefault(size, set()).update(secret[start : start + size] for start in starts)
            for length in range(_EDGE, size):
                if self.text.startswith(secret[-length:]):
                    self._hide(0, length, hidden)
                self._hide_cut(secret[:length], hidden)
        for size, some in parts.items():
            for start in range(len(self.text) - size + 1):
                if self.text[start : start + size] in some:
                    self._hide(start, start + size, hidden)

    def hide_key(self, key: str, hidden: bytearray) -> None:
        """Mark `key` in `hidden`: anywhere if it is long, else where it is a word of its own."""
        pattern = re.escape(key)
        if len(key) < _PART:
            zeros = "0*" if key.isdecimal() and len(key) >= _DIGITS else ""
            pattern = rf"(?<![^\W_]){zeros}{pattern}(?![^\W_])"
        for found in re.finditer(pattern, self.text) if len(key) <= len(self.text) else ():
            self._hide(*found.span(), hidden)
        for length in range(_EDGE, min(len(key), len(self.text) + 1)):
            self._hide_cut(key[:length], hidden)

    def hide_numbers(self, numbers: Iterable[Decimal], hidden: bytearray) -> None:
        """Mark each of `numbers` in `hidden` where it is in another notation."""
        if not numbers:
            return
        for found in _IN_TEXT.finditer(self.text):
            text = found[0].rstrip(".,'")
            if "e" not in text:
                # A fraction of zeros tells nothing.
                text = re.sub(r"\.0*$", "", text)
            start, end = found.start(), found.start() + len(text)
            around = self.text[start - 1 : start] + self.text[end : end + 1]
            if not any(map(str.isalnum, around)) and any(
                _is_number(text, number) for number in numbers
            ):
                self._hide(start, end, hidden)

    def _hide_cut(self, beginning: str, hidden: bytearray) -> None:
        if self.text.endswith(beginning):
            self._hide(len(self.text) - len(beginning), len(self.text), hidden)

    def _hide(self, start: int, end: int, hidden: bytearray) -> None:
        first, last = self.spans[start][0], self.spans[end - 1][1]
        hidden[first:last] = b"\x01" * (last - first)


def _folded(text: str) -> str:
    """Return `text` in the one case that all its spellings have in common."""
    return text.upper().casefold()


def _without_cut_end(text: str) -> Iterator[_View]:
    """Yield `text` without the ellipsis of an excerpt, and without an escape that it cut short.

    The escape counts as part of the character before it, and is hidden with it.
    """
    if found := _CUT.search(text):
        yield _View(text[: found.end("rest")])
        view = _View(text[: found.start()])
        if view.spans:
            view.spans[-1] = (view.spans[-1][0], found.end("rest"))
        yield view


def _without_cut_start(text: str) -> Iterator[_View]:
    """Yield the beginning of `text` without an ellipsis and what an excerpt left of an escape.

    How long the rest of an escape is cannot be told, because digits may stand for themselves. It
    counts as part of the character behind it, and is hidden with it.
    """
    head = _View(text[: 2 * _HEAD])
    start = next((len(dots) for dots in ("…", "...") if head.text.startswith(dots)), 0)
    for end in range(start, min(start + _HEAD, len(head.text))):
        if end > 0 and _REST.fullmatch(head.text, start, end):
            yield head.part(start, end, end + _HEAD).unescaped()


_SPECIAL = frozenset("\\%&+\r\n")
_HEAD = 200

# Each pattern gets its text folded, which is in small letters.
_HEX = r"(?:%(?:25)*|\\+x)"
# The end of an excerpt: an escape or a character in several that is cut short, and an ellipsis.
# Only from the start of a run of backslashes, so that a long run takes no longer than other text.
_CUT = re.compile(
    r"(?<!\\)(?P<rest>"
    rf"(?:{_HEX}[cd].|{_HEX}e.(?:{_HEX}[89ab].)?|{_HEX}f.(?:{_HEX}[89ab].){{0,2}}"
    r"|\\+ud[89ab]..|\\+3[0-3].|\\+34.(?:\\+2..)?|\\+36.(?:\\+2..){0,2})?"
    r"(?:%(?:25)*(?:u[0-9a-f]{0,3}|[0-9a-f])?"
    r"|\\+(?:u(?:00(?:0[0-9a-f]|10)[0-9a-f]{0,3}|[0-9a-f]{0,3})"
    r"|[ux]\{[0-9a-f]{0,8}|x[0-9a-f]?|[0-3][0-7]?)?"
    r"|&[#0-9a-z]{0,31})?"
    r")(?:…|\.{3})?\Z",
    re.IGNORECASE,
)
# What may be left of an escape, or of a character in several, whose beginning is cut off.
_REST = re.compile(
    r"(?:(?:[ux]?\{?|5?(?:25){0,8})[0-9a-f]{0,8}\}?|(?:[0-9a-z]{0,31};)*\#?x?[0-9a-z]{0,31};?)"
    rf"(?:(?:{_HEX}[89ab].){{1,3}}|(?:\\+2[0-7]{{2}}){{1,3}}|(?:%|\\+)ud[c-f]..)?"
)
# A line break, with the indentation behind it.
_BREAK = re.compile(r"[\r\n]+[ \t]*|(?P<other>.)", re.DOTALL)
_ESCAPE = re.compile(
    r"(?:[\r\n]|\\+[rn])+[ \t]*"
    r"|(?:\\+|%(?:25)*)u(?P<high>d[89ab][0-9a-f]{2})(?:\\+|%(?:25)*)u(?P<low>d[c-f][0-9a-f]{2})"
    # Of eight digits, which four would make a control character, or of four.
    r"|(?:\\+u(?P<long>00(?:0[0-9a-f]|10)[0-9a-f]{4})|\\+[ux]\{(?P<braced>[0-9a-f]{1,8})\}"
    r"|(?:\\+|%(?:25)*)u(?P<unit>[0-9a-f]{4}))"
    rf"|(?P<bytes>(?:{_HEX}[89a-f][0-9a-f])+|{_HEX}[0-7][0-9a-f])"
    r"|(?P<octal>(?:\\+[23][0-7]{2})+|\\+[01][0-7]{2})"
    r"|&(?:amp;)*(?P<entity>\#[0-9]{1,7};?|\#x[0-9a-f]{1,6};?|[a-z][0-9a-z]{1,31};)"
    r"|\\*(?P<other>.?)",
    re.DOTALL,
)


def _character(found: re.Match[str]) -> str:
    """Return the text that an escape stands for.

    Backslashes are left out, because their number doubles with every escape around another.
    """
    match found.lastgroup:
        case "low":
            text = bytes.fromhex(found["high"] + found["low"]).decode("utf-16-be")
        case "long" | "braced" | "unit":
            number = int(found[found.lastgroup], 16)
            text = chr(number) if number <= sys.maxunicode else "\N{REPLACEMENT CHARACTER}"
        case "bytes":
            pairs = re.findall(_HEX + r"(..)", found["bytes"])
            text = bytes.fromhex("".join(pairs)).decode(errors="replace")
        case "octal":
            numbers = re.findall(r"[0-7]{3}", found["octal"])
            text = bytes(int(number, 8) for number in numbers).decode(errors="replace")
        case "entity":
            name = found["entity"]
            text = _entities().get(name) or unescape(f"&{name}")
        case _:
            text = found["other"] or ""
    # A form writes a blank as a plus.
    return _folded(text).replace("+", " ")


@cache
def _entities() -> dict[str, str]:
    """Return HTML's names of characters in small letters, with the characters."""
    return {name.lower(): text for name, text in html5.items()} | html5


def _in_base64(secret: str) -> list[str]:
    """Return the base64 of `secret` behind 0, 1 and 2 other bytes, as in `base64(user:password)`.

    Characters that depend on the bytes before or behind it are left out, and so are results too
    short to tell from other text.
    """
    data = secret.encode(errors="replace")
    forms = []
    for before, unsure in enumerate((0, 2, 3)):
        text = b64encode(b"\0" * before + data).decode()
        forms.append(text[unsure : (before + len(data)) * 8 // 6])
    plain = [form for form in forms if len(form) >= _PART]
    return plain + [form.translate(_URL_SAFE) for form in plain]


_URL_SAFE = str.maketrans("+/", "-_")


def harmless(text: str, *, keep: str = "") -> str:
    """Return `text` with control characters escaped, except those in `keep`."""
    return "".join(x if x.isprintable() or x in keep else repr(x)[1:-1] for x in text)


def readable(path: str) -> str:
    """Return a path with the bytes that are not UTF-8 escaped."""
    return path.encode(errors="surrogateescape").decode(errors="backslashreplace")
