"""JSON bytes to values, with errors that name the place. Knows no API and no model."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from decimal import Decimal, InvalidOperation
from itertools import accumulate
from typing import Any, TypeVar

import msgspec
from msgspec import Raw

from ..errors import DecodeError

__all__ = [
    "FAILURES",
    "as_text",
    "canonical",
    "check_utf8",
    "compact",
    "decode_json",
    "decode_loosely",
    "decode_mended",
    "each_once",
    "elements",
    "elements_of",
    "excerpt",
    "failure_text",
    "identical",
    "is_deep",
    "is_equal",
    "member_span",
    "members",
    "mend_surrogates",
    "one_line",
    "parts",
    "plain_text",
    "utf8_error",
]

V = TypeVar("V")

FAILURES = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""Errors of a decoder. Valid JSON raises them too: lone surrogates, deep nesting, huge numbers."""

_EXCERPT = 120


def decode_json(decoder: msgspec.json.Decoder[V], data: bytes | Raw, path: str) -> V:
    """Return `data` decoded, or raise `DecodeError` with the place under `path`.

    JSON text can hold the escape of a lone UTF-16 surrogate, but Unicode text cannot. It is read as
    U+FFFD, because one broken emoji must not stop an export.
    """
    try:
        return decoder.decode(data)
    except FAILURES as error:
        failure: Exception = error
    mended = mend_surrogates(bytes(data))
    if mended is not None:
        try:
            return decoder.decode(mended)
        except FAILURES as error:
            failure = error
    raise _decode_error(failure, bytes(data), path)


def decode_mended(
    decoder: msgspec.json.Decoder[V], data: bytes | Raw, path: str, *, deep: bool = False
) -> tuple[V, bytes | None]:
    """Decode text whose parts are looked at later, even if one of them cannot be decoded.

    Lone surrogates are read as in `decode_json`. A container nested too deep for the decoder is
    read as an empty string, and nothing of it is believed. Return the mended text as well, in which
    every offset is that of `data`, or None if there was nothing to mend.

    Args:
        decoder: decodes the text.
        data: the text.
        path: its path, for the error.
        deep: whether a part nested too deep was taken out of `data`. The error is then the same
            as with it.

    Raises:
        DecodeError: `data` is not JSON, or not of the decoder's type.
    """
    try:
        return decoder.decode(data), None
    except FAILURES:
        sent = bytes(data)
    mended = mend_surrogates(sent) or sent
    failure: Exception | None = None
    try:
        return decoder.decode(mended), mended
    except RecursionError:
        pass
    except FAILURES as error:
        failure = error
    if failure is not None and not deep:
        raise _decode_error(failure, sent, path)
    try:
        shallow = _shallow(mended, path)
        return decode_json(decoder, shallow, path), shallow
    except DecodeError as error:
        error.excerpt = excerpt(sent)
        raise


def is_deep(data: bytes) -> bool:
    """Return whether a JSON value is nested too deep for a decoder.

    Raises:
        DecodeError: `data` is not JSON.
    """
    try:
        _RAW.decode(data)
    except FAILURES:
        _, mended = decode_mended(_RAW, data, "$")
        # Only a shallow text decodes where the mended one does not.
        return mended != (mend_surrogates(data) or data)
    return False


def decode_loosely(data: bytes | Raw) -> Any:
    """Return valid JSON as values for a search, however odd its parts are, and None at the worst.

    Like `decode_mended`. In a text with numbers out of range all numbers are texts.
    """
    try:
        return decode_mended(_ANY, data, "$")[0]
    except DecodeError:
        pass
    with suppress(ValueError, RecursionError):
        return _scan(bytes(data).decode().strip())[0]
    return None


def _decode_error(error: Exception, data: bytes, path: str = "$") -> DecodeError:
    """Return the `DecodeError` for a decoder's `error` over `data`."""
    message, inner = _parts_of(error)
    if not data.strip():
        message = "expected JSON"
    return DecodeError(message, path=path + inner, excerpt=excerpt(data))


def failure_text(error: Exception) -> str:
    """Return the message of a decoder's error in words, with the place under the whole, if any."""
    message, inner = _parts_of(error)
    return f"{message} at ${inner}" if inner else message


def _parts_of(error: Exception) -> tuple[str, str]:
    if isinstance(error, RecursionError):
        return "JSON is nested too deep", ""
    message, _, inner = str(error).partition(" - at `$")
    if message == "Input data was truncated":
        message = "the JSON ends in the middle"
    return message, inner.removesuffix("`")


def check_utf8(data: bytes, path: str) -> None:
    """Raise `DecodeError` unless all of `data` is UTF-8, even the keys that are never decoded."""
    if (error := utf8_error(data, path)) is not None:
        raise error


def utf8_error(data: bytes, path: str = "$") -> DecodeError | None:
    """Return the `DecodeError` for `data` that is not UTF-8, or None."""
    if data.isascii():
        return None
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return _decode_error(error, data, path)
    return None


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


# ------------------------------------------------------------------------------------- no recursion

_BLANKS = b" \t\n\r"
_WHITE = rb"[ \t\n\r]*+"
_STRING = rb'"[^"\\\x00-\x1f]*+(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*+)*+"'
_NUMBER = rb"-?+(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?+(?:[eE][-+]?+[0-9]++)?+"
_SCALAR = rb"(?:" + _STRING + rb"|" + _NUMBER + rb"|true|false|null)"
_KEY = _STRING + _WHITE + rb":" + _WHITE


def _up_to_bracket(key: bytes, closing: bytes) -> tuple[re.Pattern[bytes], re.Pattern[bytes]]:
    """Return two patterns that match up to the next bracket.

    The first one begins after a container's opening bracket, the second one after the end of a
    container in it. `key` precedes each value.
    """
    item = key + _SCALAR + _WHITE
    rest = b"(?:%b,%b)*+(?:%b[\\[{]|%b%b)" % (item, _WHITE, key, item, closing)
    return (
        re.compile(_WHITE + b"(?:%b|%b)" % (rest, closing)),
        re.compile(_WHITE + b"(?:,%b%b|%b)" % (_WHITE, rest, closing)),
    )


_OPENED, _INNER_ENDED = (
    dict(zip(b"[{", patterns, strict=True))
    for patterns in zip(_up_to_bracket(b"", rb"\]"), _up_to_bracket(_KEY, rb"\}"), strict=True)
)
_BEGIN = re.compile(_WHITE + rb"[\[{]")
_END = re.compile(_WHITE + rb"\Z")

_LEVELS = 64
"""Levels of nesting that are left to the decoder, which takes some hundred."""


def _shallow(data: bytes, path: str) -> bytes:
    """Return `data` with each container deeper than `_LEVELS` as an empty string of its length.

    Raises:
        DecodeError: `data` is not JSON, at any depth.
    """
    found = _BEGIN.match(data)
    stack = bytearray()
    pieces: list[bytes] = []
    copied = start = position = 0
    while found is not None:
        position = found.end()
        bracket = data[position - 1]
        if bracket in b"[{":
            stack.append(bracket)
            if len(stack) == _LEVELS + 1:
                start = position - 1
            found = _OPENED[bracket].match(data, position)
            continue
        if len(stack) == _LEVELS + 1:
            pieces += (data[copied:start], b'""'.ljust(position - start))
            copied = position
        del stack[-1]
        if not stack:
            break
        found = _INNER_ENDED[stack[-1]].match(data, position)
    if stack or not position or not _END.match(data, position):
        message = f"JSON is malformed or cut short after byte {position}"
        raise DecodeError(message, path=path, excerpt=excerpt(data))
    return b"".join((*pieces, data[copied:]))


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


_STRING = rb'"(?:[^"\\]|\\.)*+"'
_TOKEN = re.compile(_STRING + rb"|[][{}:,]", re.DOTALL)


def members(data: bytes | Raw, path: str = "$") -> Iterator[tuple[bytes, Raw]]:
    """Yield each member of a JSON object: its key, and its value, even if that cannot be decoded.

    Both are as they were sent.

    Raises:
        DecodeError: `data` is not a JSON object.
    """
    sent = bytes(data)
    _, mended = decode_mended(_OBJECT, sent, path)
    level, key, start = 0, b"", None
    # Of what is nested too deep the mended text is short.
    for token in _TOKEN.finditer(mended or sent):
        sign = token[0]
        if sign in (b"]", b"}"):
            level -= 1
        if start is None:
            if sign == b":":
                start = token.end()
            elif sign.startswith(b'"'):
                key = sent[token.start() : token.end()]
        elif (level == 1 and sign == b",") or level == 0:
            yield key, Raw(_stripped(sent, start, token.start()))
            start = None
        if sign in (b"[", b"{"):
            level += 1


def _stripped(data: bytes, start: int, end: int) -> memoryview:
    """Return a part of `data` without white space around it, and without a copy."""
    while data[start] in _BLANKS:
        start += 1
    while data[end - 1] in _BLANKS:
        end -= 1
    return memoryview(data)[start:end]


def _element_spans(data: bytes) -> list[tuple[int, int]]:
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


_ANY = msgspec.json.Decoder()
_RAW = msgspec.json.Decoder(Raw)
_OBJECT = msgspec.json.Decoder(dict[str, Raw])
_ARRAY = msgspec.json.Decoder(list[Raw])
_TEXT = msgspec.json.Decoder(str)


def parts(data: bytes | Raw, path: str = "$") -> dict[str, Raw]:
    """Return the members of a JSON object as they were sent, even those that cannot be decoded.

    Raises:
        DecodeError: `data` is not a JSON object.
    """
    try:
        return _OBJECT.decode(data)
    except FAILURES:
        return {decode_json(_TEXT, key, path): value for key, value in members(data, path)}


def elements(data: bytes | Raw, path: str = "$") -> list[Raw]:
    """Return the elements of a JSON array as they were sent, even those that cannot be decoded.

    Raises:
        DecodeError: `data` is not a JSON array.
    """
    found, mended = decode_mended(_ARRAY, data, path)
    return found if mended is None else _at_spans(bytes(data), mended)


def elements_of(data: bytes, mended: bytes, name: str) -> list[Raw]:
    """Return the elements of the array that is the last member `name`, as they were sent.

    Args:
        data: a JSON object.
        mended: `data` as `decode_mended` returns it.
        name: the member, which is an array.
    """
    start, end = member_span(mended, name)
    return _at_spans(data[start:end], mended[start:end])


def _at_spans(sent: bytes, mended: bytes) -> list[Raw]:
    return [Raw(sent[start:end]) for start, end in _element_spans(mended)]


_WHITE_SPACE = re.compile(b"(%b)" % _STRING + rb"|[ \t\n\r]++", re.DOTALL)


def compact(data: bytes) -> bytes:
    """Return JSON without white space between its tokens, which stay as they were sent."""
    try:
        return msgspec.json.format(data, indent=-1)
    except FAILURES:
        # Valid, but with a lone surrogate, or nested too deep.
        return _WHITE_SPACE.sub(rb"\1", data)


def one_line(data: bytes) -> bytes:
    """Return JSON without line breaks, and unchanged if it holds none."""
    return compact(data) if b"\n" in data or b"\r" in data else data


def plain_text(part: bytes | Raw, *, whole: bool = False, exact: bool = False) -> str | None:
    """Return any JSON value as text: a string's own text, None for null, else the JSON as sent.

    The JSON is without white space.

    Args:
        part: the value.
        whole: whether a number without a fraction, such as `9.1E3`, becomes an integer.
        exact: whether lone surrogates stay in the text, which then has no UTF-8. By default they
            are read as in `decode_json`.
    """
    data = bytes(part)
    if data == b"null":
        return None
    if data.startswith(b'"'):
        text = decode_json(_TEXT, data, "$")
        # Unlike msgspec, Python's decoder keeps them.
        return json.loads(data) if exact and "\ufffd" in text else text
    if whole and (integer := _whole_number(data)) is not None:
        return integer
    if data == b"-0":
        # Where values are decoded together, it is the int 0.
        return "0"
    if exact:
        return _ESCAPE.sub(_surrogate, compact(data)).decode(errors="surrogatepass")
    return compact(mend_surrogates(data) or data).decode()


def _surrogate(match: re.Match[bytes]) -> bytes:
    lone = match["lone"]
    return chr(int(lone[1:], 16)).encode(errors="surrogatepass") if lone else match[0]


_NUMBER_PARTS = re.compile(rb"(-?)([0-9]++)(?:\.([0-9]++))?+(?:[eE]([-+]?[0-9]++))?+")
_MAX_DIGITS = 100
"""Longest integer that is written out. An exponent of a million would make a megabyte of zeros."""
_MAX_POWER = 1000
"""Longest exponent that is read, in characters. Python refuses integers of thousands of digits."""


def _whole_number(data: bytes) -> str | None:
    """Return a number in JSON as an integer, or None if it is not whole, or too long."""
    if (scaled := _scaled(data)) is None:
        return None
    sign, significant, zeros = scaled
    if not significant:
        return "0"
    if zeros < 0 or len(significant) + zeros > _MAX_DIGITS:
        return None
    return sign + significant + "0" * zeros


def _scaled(data: bytes) -> tuple[str, str, int] | None:
    """Return the sign of a number in JSON, its digits without zeros around them, and its power.

    None if it is something else, or its exponent is too long.
    """
    found = _NUMBER_PARTS.fullmatch(data)
    if found is None:
        return None
    sign, whole, fraction, power = (group.decode() for group in found.groups(b""))
    digits = (whole + fraction).lstrip("0")
    significant = digits.rstrip("0")
    if not significant:
        return "", "", 0
    if len(power) > _MAX_POWER:
        return None
    return sign, significant, int(power or 0) - len(fraction) + len(digits) - len(significant)


def canonical(data: bytes) -> bytes:
    """Return JSON as the one text that all equal values share, in UTF-8.

    It has no white space, members are sorted, only what must be escaped is, and lone surrogates are
    read as in `decode_json`. Each number keeps its exact value. Of several members of one name, the
    last one stays.

    A value nested deeper than 64 levels only loses its white space and its lone surrogates, and so
    does one in which names that differ in lone surrogates alone would become one. A number stays
    as it was sent if its exponent has more than a thousand digits.
    """
    if _is_nested_deeper(data, _LEVELS):
        return compact(mend_surrogates(data) or data)
    spelled = _with_exponents(data)
    with suppress(*FAILURES):
        return _CANONICAL.encode(_EXACT.decode(spelled))
    mended = mend_surrogates(spelled)
    if mended is None or _merges_names(spelled, mended):
        return compact(mend_surrogates(data) or data)
    return _CANONICAL.encode(_EXACT.decode(mended))


def identical(data: bytes) -> bytes:
    """Return JSON as a text that equal values share, and no others.

    As `canonical`, but lone surrogates stay apart, in a text that is not UTF-8. With any, members
    stay in their order, and numbers as they were sent.
    """
    if mend_surrogates(data) is None:
        return canonical(data)
    return _TEXTS.sub(_unescaped, compact(data))


def _unescaped(string: re.Match[bytes]) -> bytes:
    text = json.dumps(json.loads(string[0], strict=False), ensure_ascii=False)
    return text.encode(errors="surrogatepass")


def _is_nested_deeper(data: bytes, levels: int) -> bool:
    """Return whether valid JSON has more levels of nesting, without recursion."""
    if data.count(b"[") + data.count(b"{") <= levels:
        return False
    brackets = _TEXTS.sub(b"", data).translate(None, _NO_BRACKETS)
    return max(accumulate(map(_STEPS.__getitem__, brackets)), default=0) > levels


def is_equal(one: bytes, other: bytes) -> bool:
    """Return whether two texts are JSON with the same `canonical` text."""
    with suppress(*FAILURES, InvalidOperation):
        # Most texts that differ have other values, which decoding alone shows in less time.
        if _PLAIN.decode(one) != _PLAIN.decode(other):
            return False
    with suppress(*FAILURES):
        return canonical(one) == canonical(other)
    return False


_PLAIN = msgspec.json.Decoder(float_hook=Decimal)


_TEXTS = re.compile(_STRING, re.DOTALL)
_STEPS = {**dict.fromkeys(b"[{", 1), **dict.fromkeys(b"]}", -1)}
_NO_BRACKETS = bytes(code for code in range(256) if code not in _STEPS)


def _with_exponents(data: bytes) -> bytes:
    """Return valid JSON with an exponent behind each integer that is not to be written out.

    The decoder's hook for numbers does not see integers, and Python refuses thousands of digits.
    """
    if len(data) <= _MAX_DIGITS or _LONG_RUN not in data.translate(_DIGITS_AS_ZEROS):
        return data
    return _TEXT_OR_NUMBER.sub(_with_exponent, data)


def _with_exponent(match: re.Match[bytes]) -> bytes:
    token = match[0]
    digits = token.removeprefix(b"-")
    return token + b"e0" if digits.isdigit() and len(digits) > _MAX_DIGITS else token


_LONG_RUN = b"0" * (_MAX_DIGITS + 1)
_DIGITS_AS_ZEROS = bytes(ord("0" if chr(code) in "0123456789" else " ") for code in range(256))
_TEXT_OR_NUMBER = re.compile(_STRING + rb"|[-+.0-9eE]++", re.DOTALL)


def _merges_names(data: bytes, mended: bytes) -> bool:
    """Return whether two names of an object in `data` are one in `mended`."""
    # With the digits of each lone surrogate behind its replacement, they differ as they were sent.
    told_apart = _ESCAPE.sub(
        lambda match: rb"\ufffd" + match["lone"] if match["lone"] else match[0], data
    )
    return _count_members(_EXACT.decode(told_apart)) > _count_members(_EXACT.decode(mended))


def _count_members(value: Any) -> int:
    if isinstance(value, dict):
        return len(value) + sum(map(_count_members, value.values()))
    return sum(map(_count_members, value)) if isinstance(value, list) else 0


def _exact_number(text: str) -> Raw:
    """Return a number with a fraction or an exponent as the one text of its value."""
    number = float(text)
    shortest = repr(number)
    if shortest == text and not number.is_integer():
        return Raw(text)
    if (whole := _whole_number(text.encode())) is not None:
        return Raw(whole)
    if (scaled := _scaled(text.encode())) is None:
        return Raw(text)
    sign, significant, power = scaled
    try:
        exact = Decimal(f"{sign}{significant}E{power}")
    except InvalidOperation:
        # Beyond the exponents of a decimal.
        return Raw(f"{sign}{significant}E{power:+}")
    return Raw(shortest if exact == Decimal(shortest) else str(exact))


_EXACT = msgspec.json.Decoder(float_hook=_exact_number)
_CANONICAL = msgspec.json.Encoder(order="sorted")


def as_text(value: Any) -> str | None:
    """Return a JSON scalar as text, or None for null: a field may arrive as several types."""
    if value is None or type(value) is str:
        return value
    return msgspec.json.encode(value).decode()


def each_once(texts: Iterable[str | None]) -> list[str]:
    """Return each of `texts` once, without nulls and empty ones."""
    return list(dict.fromkeys(filter(None, texts)))
