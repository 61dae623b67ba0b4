"""CleverTap's pages, read without decoding their records: other members, and bounds of records.

Pages have megabytes. The next cursor can be read before the rest of a page has arrived, and a page
is taken apart in slices.

Sources:
    [profiles] "Get User Profiles", https://developer.clevertap.com/docs/get-user-profiles-api
    [seen] public clients, captures and tests
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from secrets import token_hex
from typing import Any
from urllib.parse import quote, unquote

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType, field

from ..base.jsontext import (
    FAILURES,
    decode_loosely,
    decode_mended,
    elements,
    elements_of,
    excerpt,
    parts,
)
from ..errors import DecodeError
from ..flow.slices import ITEMS, Slices
from .query import CURSOR
from .reading import is_garbled

__all__ = [
    "PAGE_BODY",
    "SLICE",
    "Body",
    "PageBody",
    "find_cursor",
    "find_records",
    "other_members",
    "peek_next_cursor",
    "take_apart",
]


class Body(Struct, gc=False):
    """Members that any answer may have ([profiles], Sample Response; [seen]).

    `status` alone decides whether an object is an answer.
    """

    status: Any = None
    error: Any = None
    message: Any = None
    code: Any = None


class PageBody(Body, gc=False):
    """Members of a page ([profiles], Get User Profiles Using Cursor).

    If there is no `next_cursor`, `take_apart` sets `others` to every member but `records`.
    """

    next_cursor: Any = UNSET
    records: list[Raw] | UnsetType | None = UNSET
    # Under a random name, so that no body can set it.
    others: dict[str, Raw] | None = field(name=token_hex(16), default=None)


PAGE_BODY = msgspec.json.Decoder(PageBody)

SLICE = 1 << 19
"""Bytes decoded without a pause, which takes about a millisecond."""


def peek_next_cursor(head: bytes) -> str | None:
    """Return the next cursor if the first bytes of a page hold it in front of the records.

    It is there on the vendor's page and in most captures ([profiles], Sample Response; [seen]). It
    equals the cursor of the complete page unless the bytes are garbled: request its page early, but
    rely on it only after the complete page has been read.
    """
    found = _BEFORE_CURSOR.match(head)
    if found is None:
        return None
    try:
        cursor = msgspec.json.decode(found[1], type=str)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return cursor if CURSOR.fullmatch(cursor) else None


_STRING = rb'"(?:[^"\\]|\\.)*+"'
_SCALAR_MEMBER = (
    rb"\s*+" + _STRING + rb"\s*+:\s*+(?:" + _STRING + rb"|[-+.0-9eE]++|true|false|null)\s*+,"
)
# Anchored at the first byte, and over scalars only: it cannot match inside a record.
_BEFORE_CURSOR = re.compile(
    rb'(?:\xef\xbb\xbf)?\s*+\{(?:(?!\s*+"next_cursor")'
    + _SCALAR_MEMBER
    + rb')*+\s*+"next_cursor"\s*+:\s*+('
    + _STRING
    + rb")",
    re.DOTALL,
)
_BEFORE_RECORDS = re.compile(
    rb"\s*+\{(?:" + _SCALAR_MEMBER + rb')*+\s*+"records"\s*+:\s*+\[\s*+', re.DOTALL
)


def other_members(data: bytes, known: str) -> dict[str, Raw]:
    """Return the members of an answer but one, undecoded and in any order ([seen]).

    Args:
        data: an answer that has been decoded before.
        known: the name of the member to leave out.
    """
    found = parts(data)
    found.pop(known, None)
    return found


def find_cursor(
    others: Mapping[str, Raw], own: str, was_asked: Callable[[str], bool]
) -> Slices[str | None]:
    """Return the cursor that a page without `next_cursor` has under another name, or None.

    Two public clients read the key `cursor` ([seen]). A name that has "cursor" in it or means the
    next page counts, however it is spelled, and inside an object or a list such as `paging` as
    well. Null, empty and false values mean that no page follows. The page's own cursor and earlier
    ones of its chain, sent back, are ignored. JSON inside a text is not read.

    Args:
        others: the result of `other_members`.
        own: the cursor of the request.
        was_asked: whether the chain has asked for a cursor by now.

    Raises:
        DecodeError: a value is not a cursor, two values differ, or the page says that another
            follows and has no cursor.
    """
    found: tuple[str, str] | None = None
    promise: tuple[str, str] | None = None
    for number, (way, name, value) in enumerate(_walk(others), 1):
        if number % ITEMS == 0:
            yield
        if promise is None and _says_more(name, value):
            promise = str(value), _path(way, name)
        if not value:
            continue
        text = value if isinstance(value, str) else ""
        if not _links_next(value) and (
            not _names_cursor(name) or _holds_cursors(value) or _is_echo(text, own, was_asked)
        ):
            continue
        is_link = "://" in text or "cursor=" in text
        if is_link or not CURSOR.fullmatch(text):
            sample = excerpt(text.encode()) or type(value).__name__
            raise DecodeError("expected a cursor", path=_path(way, name), excerpt=sample)
        if found is None:
            found = text, _path(way, name)
        elif found[0] != text:
            paths = f"{found[1]} and {_path(way, name)}"
            raise DecodeError("expected one cursor", path=paths, excerpt=f"{found[0]} and {text}")
    if found is not None:
        return found[0]
    if promise is not None:
        sample, path = promise
        raise DecodeError("expected a cursor, as another page follows", path=path, excerpt=sample)
    return None


def find_records(others: Mapping[str, Raw]) -> Slices[str | None]:
    """Return the path of people in an answer that has them under another name, or None.

    `records` and `record` are the only documented names ([profiles], Sample Response).
    """
    for number, (way, name, value) in enumerate(_walk(others), 1):
        if number % ITEMS == 0:
            yield
        if not value or not isinstance(value, dict | list):
            continue
        letters = _letters(name)
        names_person = letters in _NAMES_OF_PERSON or is_garbled(name, "record")
        names_people = letters in _NAMES_OF_PEOPLE or is_garbled(name, "records")
        if isinstance(value, dict):
            if names_person:
                return _path(way, name)
        elif (names_person or names_people) and any(map(_is_object, value[:_FEW])):
            return _path(way, name)
    return None


def _walk(others: Mapping[str, Raw]) -> Iterator[tuple[list[str], str, Any]]:
    """Yield each member and each element at any depth, but nothing of a record.

    Each comes as the names that lead to it, its own name, and its value. The list of names changes
    with the next one: no path is made before it is needed, because a name can have megabytes.
    """
    way: list[str] = []
    left: list[Iterator[tuple[str, Any]]] = [iter(others.items())]
    while left:
        one = next(left[-1], None)
        if one is None:
            left.pop()
            del way[-1:]
            continue
        name, value = one
        if isinstance(value, Raw):
            value = _opened(value, len(way))
        yield way, name, value
        if isinstance(value, dict) and name not in _RECORDS_ARE_IN:
            left.append(iter(value.items()))
        elif isinstance(value, list) and name not in _RECORDS_ARE_IN:
            left.append((f"[{number}]", inner) for number, inner in enumerate(value))
        else:
            continue
        way.append(name)


def _opened(raw: Raw, depth: int) -> Any:
    """Return a value decoded; of a large container its members as they were sent."""
    view = memoryview(raw)
    # Level by level costs a pass for each.
    if len(view) > _LARGE and depth < _LEVELS:
        if view[0] == _BRACE:
            inner = parts(raw)
            few = len(inner) <= _FEW
            return {name: _if_small(one) if few else one for name, one in inner.items()}
        if view[0] == _BRACKET:
            ones = elements(raw)
            few = len(ones) <= _FEW
            return [_if_small(one) if few else one for one in ones]
    return decode_loosely(raw)


def _if_small(raw: Raw) -> Any:
    return decode_loosely(raw) if len(memoryview(raw)) <= _LARGE else raw


def _is_object(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, Raw) and memoryview(value)[0] == _BRACE)


def _path(way: Sequence[str], name: str) -> str:
    steps = (step if step.startswith("[") else f".{step[:_LONGEST]}" for step in (*way, name))
    return "$" + "".join(steps)


def _letters(name: str) -> str:
    return re.sub("[^a-z]", "", name.lower()) if len(name) <= _LONGEST else ""


def _names_cursor(name: str) -> bool:
    return is_garbled(name, "next_cursor") or _CURSOR_NAME.fullmatch(_letters(name)) is not None


def _says_more(name: str, value: Any) -> bool:
    """Return whether a member says that another page follows, such as `"has_more": true`."""
    text = value.lower() if isinstance(value, str) else ""
    if value is True or value == 1 or text == "true":
        return _MORE.fullmatch(_letters(name)) is not None
    return (value is False or text == "false") and _letters(name) in _ENDS


def _holds_cursors(value: Any) -> bool:
    """Return whether a value is a small container whose members are looked at in its place."""
    if not isinstance(value, dict | list) or len(value) > _FEW:
        return False
    if isinstance(value, list):
        return all(isinstance(one, dict) and _holds_cursors(one) for one in value)
    return any(map(_names_cursor, value)) or not any(
        one and not _OTHER_PAGE.match(_letters(name)) for name, one in value.items()
    )


def _is_echo(text: str, own: str, was_asked: Callable[[str], bool]) -> bool:
    plain = unquote(text)
    return text != "" and (
        plain == unquote(own) or was_asked(text) or was_asked(quote(plain, safe=""))
    )


def _links_next(value: Any) -> bool:
    """Return whether a value is an object such as `{"rel": "next", "href": "https://…"}`."""
    return (
        isinstance(value, dict)
        and len(value) <= _FEW
        and any(value.get(name) for name in _LINKS)
        and any(isinstance(one, str) and _letters(one) == "next" for one in value.values())
    )


_LONGEST = 100  # characters of a name that means something
_LARGE = 1 << 16  # bytes that are decoded in one go
_LEVELS = 8
_BRACE, _BRACKET = b"{["
_FEW = 100  # members of a container that are looked at in one go
_RECORDS_ARE_IN = {"record", "records"}
_NAMES_OF_PEOPLE = {"records", "profiles", "users", "people", "data", "items"}
_NAMES_OF_PERSON = {"record", "profile", "user", "person"}
_LINKS = ("href", "url", "uri", "link")
_OTHER_PAGE = re.compile("before|current|first|last|own|prev|request|self|start|this")
_CURSOR_NAME = re.compile(
    "next(?:after|batch|cursor|href|id|key|link|marker|offset|page|start|token|ur[il])*+"
    "|continuation(?:token)?|(?:page|paging|resume)(?:state|token)|scroll(?:id|token)"
    "|(?:page|search)?after|bookmark|lastevaluatedkey"
    rf"|(?!{_OTHER_PAGE.pattern})[a-z]*cursors?"
    "(?:after|href|id|key|link|next|page|string|token|ur[il]|value)*+"
)
_MORE = re.compile(
    "(?:has|is)?(?:more|next)(?:batch|data|items|pages?|people|records|results)?|(?:is)?truncated"
)
_ENDS = {"islast", "islastpage", "lastpage"}


def take_apart(data: bytes) -> Slices[PageBody | None]:
    """Return the body of a page ([profiles], Sample Response).

    Return None for an unusual page, which raises its error when it is decoded as a whole.

    Each slice begins with a record and is parsed as a list of its own. If it parses, it also ends
    with a record, because brackets or quotes do not balance if it is cut inside one.
    """
    size = SLICE
    if len(data) < 2 * SLICE:
        with suppress(*FAILURES):
            return PAGE_BODY.decode(data)
        size = _SMALL
    records = _BEFORE_RECORDS.match(data)
    first = _FIRST_KEY.match(data, records.end()) if records else None
    if records is None or first is None:
        return None
    # Most records begin with the same key, and devices with another one.
    likely = re.compile(rb"\}\s*+,\s*+(?=" + re.escape(first[0]) + rb")")
    found: list[Raw] = []
    position = records.end()
    view = memoryview(data)
    try:
        body = PAGE_BODY.decode(data[:position] + b"]}")
        while (end := _read_end(view[position:], size)) is None:
            taken = None
            for cut in _cuts(likely, data, position + size, _NEAR if size == SLICE else SLICE):
                taken = _read_slice(view[position : cut.start() + 1], mend=size < SLICE)
                if taken is not None:
                    found += taken
                    position = cut.end()
                    break
                yield
            if taken is None and size < SLICE:
                return None
            # A slice that does not parse is retried in slices small enough to be mended.
            size = SLICE if taken is not None and size == SLICE else _SMALL
            yield
    except (*FAILURES, DecodeError):
        return None
    last, rest, mended = end
    if rest.records is not UNSET:
        # There is a second list, and of members with the same name the last counts.
        return None
    for name in _Rest.__struct_fields__:
        if name != "last" and (value := getattr(rest, name)) is not UNSET:
            setattr(body, name, value)
    if body.next_cursor is UNSET:
        before = other_members(data[: records.end()] + b"]}", "records")
        body.others = {**before, **other_members(last, _LAST.decode())}
    found += rest.last if mended is None else elements_of(last, mended, _LAST.decode())
    body.records = found
    return body


def _cuts(
    likely: re.Pattern[bytes], data: bytes, near: int, width: int
) -> Iterator[re.Match[bytes]]:
    """Yield possible ends of a slice of records, from `near` on, the likeliest first."""
    if cut := likely.search(data, near, near + width):
        yield cut
    yield from islice(_BETWEEN.finditer(data, near, near + width), _TRIES)


def _read_slice(data: memoryview, *, mend: bool) -> list[Raw] | None:
    text = b"".join((b"[", data, b"]"))
    try:
        return elements(text) if mend else _RECORDS.decode(text)
    except (*FAILURES, DecodeError):
        return None


# What has to be mended takes some hundred times as long.
_SMALL = 1 << 14
_NEAR = 1 << 16
_TRIES = 3
_BETWEEN = re.compile(rb"\}\s*+,\s*+(?=\{)")
_FIRST_KEY = re.compile(rb"\{\s*+" + _STRING + rb"\s*+:", re.DOTALL)
_RECORDS = msgspec.json.Decoder(list[Raw])
# A random name: of members with the same name only the last would count.
_LAST = token_hex(16).encode()


class _Rest(Struct, gc=False):
    """The last slice. Defaults are UNSET, so that a member sent as null differs from none."""

    last: list[Raw] = field(name=_LAST.decode())
    records: Any = UNSET
    next_cursor: Any = UNSET
    status: Any = UNSET
    error: Any = UNSET
    message: Any = UNSET
    code: Any = UNSET


_REST = msgspec.json.Decoder(_Rest)


def _read_end(data: memoryview, size: int) -> tuple[bytes, _Rest, bytes | None] | None:
    """Return the last slice: its text, its members, and the text mended as in `decode_mended`.

    Return None if `data` is longer than two slices, or should be retried in smaller ones.
    """
    if len(data) > 2 * size:
        return None
    last = b"".join((b'{"', _LAST, b'":[', data))
    try:
        return last, _REST.decode(last), None
    except FAILURES:
        if size > _SMALL:
            return None
    return last, *decode_mended(_REST, last, "$")
