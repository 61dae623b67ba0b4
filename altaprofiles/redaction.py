"""Text that is safe to show: secrets masked, control characters escaped. Does no I/O."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Container, Iterable, Mapping
from copy import copy
from html import unescape
from string import ascii_lowercase, ascii_uppercase
from typing import Any, NoReturn

__all__ = ["Secret", "as_secret", "harmless", "mask_values", "masked"]


class Secret(str):
    """A string whose `repr` is `'***'`: usable as text, invisible in tracebacks.

    Debuggers and error reporters print the `repr` of every local of every frame. With this type
    they print stars, in the frames of this library and in those of aiohttp.
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
        return self


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

    Every spelling is recognised: escapes of JSON, URLs, HTML and Python, upper and lower case, a
    line break in between; of a secret its base64 as well. The order of `secrets` and `keys` makes
    no difference, even if one is part of another.

    Args:
        text: text of a service, a proxy or a driver, without words of this library.
        secrets: masked wherever they are. Parts are masked as well: of 6 characters anywhere, and
            of 3 at the start or the end of `text`, where an excerpt can cut a secret short.
        keys: identifiers of people. One of fewer than 6 characters is masked only as a word of its
            own, so that the key 1 does not hide every 1.
    """
    whole = _View(text)
    views = [whole]
    for view in (whole.unescaped(), _View(_CUT.sub("", text)).unescaped()):
        if all(view.text != known.text for known in views):
            views.append(view)
    forms = [form for secret in secrets for form in (secret, *_in_base64(secret))]
    hidden = bytearray(len(text))
    secret_texts, key_texts = _spellings(forms), _spellings(keys)
    for view in views:
        view.hide_parts(secret_texts, hidden)
        for key in key_texts:
            view.hide_key(key, hidden)
    parts = re.finditer(rb"\x01+|\x00+", hidden)
    return "".join("***" if part[0][0] else text[slice(*part.span())] for part in parts)


_PART = 6
_EDGE = 3


def _spellings(texts: Iterable[str]) -> set[str]:
    """Return `texts` as views spell them, with escapes and without."""
    views = map(_View, texts)
    return {text for view in views for text in (view.text, view.unescaped().text) if text.strip()}


class _View:
    """A text in one spelling, and the place of each of its characters in the text as it came."""

    def __init__(self, text: str) -> None:
        self.text = text.translate(_LOWER)
        self.spans = [(position, position + 1) for position in range(len(text))]

    def unescaped(self) -> _View:
        """Return this view with all escapes undone, even those of an escaped text in another."""
        # Breaks first, because one may be in the middle of an escape.
        view = self.replaced(_BREAK)
        while (found := view.replaced(_ESCAPE)).text != view.text:
            view = found
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
            pattern = rf"(?<![^\W_]){pattern}(?![^\W_])"
        for found in re.finditer(pattern, self.text):
            self._hide(*found.span(), hidden)
        for length in range(_EDGE, len(key)):
            self._hide_cut(key[:length], hidden)

    def _hide_cut(self, beginning: str, hidden: bytearray) -> None:
        if self.text.endswith(beginning):
            self._hide(len(self.text) - len(beginning), len(self.text), hidden)

    def _hide(self, start: int, end: int, hidden: bytearray) -> None:
        first, last = self.spans[start][0], self.spans[end - 1][1]
        hidden[first:last] = b"\x01" * (last - first)


_LOWER = str.maketrans(ascii_uppercase, ascii_lowercase)
_SPECIAL = frozenset("\\%&+\r\n")

# The end of an excerpt: an ellipsis, and an escape that is cut short.
_CUT = re.compile(
    r"(?:%(?:25)*[0-9a-f]?|\\+(?:u[0-9a-f]{0,3}|x[0-9a-f]?)?|&[#0-9a-z]{0,8})?(?:…|\.{3})?\Z",
    re.IGNORECASE,
)
_HEX = r"(?:%(?:25)*|\\+x)"
# A line break, with the indentation behind it.
_BREAK = re.compile(r"[\r\n]+[ \t]*|(?P<other>.)", re.DOTALL)
_ESCAPE = re.compile(
    r"(?:[\r\n]|\\+[rn])+[ \t]*"
    r"|\\+u(?P<high>d[89ab][0-9a-f]{2})\\+u(?P<low>d[c-f][0-9a-f]{2})"
    r"|\\+u(?P<unit>[0-9a-f]{4})"
    rf"|(?P<bytes>(?:{_HEX}[89a-f][0-9a-f])+|{_HEX}[0-7][0-9a-f])"
    r"|&(?:amp;)*(?P<entity>(?:\#[0-9]{1,7}|\#x[0-9a-f]{1,6}|[a-z]{2,8});)"
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
        case "unit":
            text = chr(int(found["unit"], 16))
        case "bytes":
            pairs = re.findall(_HEX + r"(..)", found["bytes"])
            text = bytes.fromhex("".join(pairs)).decode(errors="replace")
        case "entity":
            text = unescape(f"&{found['entity']}")
        case _:
            text = found["other"] or ""
    # A form writes a blank as a plus.
    return text.translate(_LOWER).replace("+", " ")


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
