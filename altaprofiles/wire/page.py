"""CleverTap's pages, read without decoding their records: other members, and bounds of records.

Pages have megabytes. The next cursor can be read before the rest of a page has arrived, and a page
is taken apart in slices.

Sources:
    [profiles] "Get User Profiles", https://developer.clevertap.com/docs/get-user-profiles-api
    [seen] public clients, captures and tests
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import islice
from secrets import token_hex
from typing import Any
from urllib.parse import unquote

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType, field

from ..base.jsontext import (
    FAILURES,
    as_text,
    decode_mended,
    elements,
    elements_of,
    excerpt,
    parts,
)
from ..errors import DecodeError
from ..flow.slices import Slices
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


def find_cursor(others: Mapping[str, Raw], own: str) -> str | None:
    """Return the cursor that a page without `next_cursor` has under another name, or None.

    Two public clients read the key `cursor` ([seen]). A name that ends in "cursor" or means the
    next page counts, however it is spelled, and inside an object such as `paging` as well. Null,
    empty and false values mean that no page follows. The page's own cursor, sent back, is ignored.

    Args:
        others: the result of `other_members`.
        own: the cursor of the request.

    Raises:
        DecodeError: a value is not a cursor, or two values differ.
    """
    found: dict[str, str] = {}
    for path, name, value in _walk(others):
        if not value or not _names_cursor(name):
            continue
        if isinstance(value, dict) and any(map(_names_cursor, value)):
            continue
        text = as_text(value) or ""
        if unquote(text) == unquote(own):
            continue
        is_link = "://" in text or "cursor=" in text
        if not isinstance(value, str) or is_link or not CURSOR.fullmatch(text):
            raise DecodeError("expected a cursor", path=path, excerpt=excerpt(text.encode()))
        found.setdefault(text, path)
    if len(found) > 1:
        paths = " and ".join(found.values())
        raise DecodeError("expected one cursor", path=paths, excerpt=" and ".join(found))
    return next(iter(found), None)


def find_records(others: Mapping[str, Raw]) -> str | None:
    """Return the path of people in an answer that has them under another name, or None.

    `records` and `record` are the only documented names ([profiles], Sample Response).
    """
    for path, name, value in _walk(others):
        names_person = _letters(name) in _NAMES_OF_PERSON or is_garbled(name, "record")
        names_people = _letters(name) in _NAMES_OF_PEOPLE or is_garbled(name, "records")
        is_list = isinstance(value, list) and any(isinstance(one, dict) for one in value)
        if is_list and (names_person or names_people):
            return path
        if value and isinstance(value, dict) and names_person:
            return path
    return None


def _walk(others: Mapping[str, Raw]) -> Iterator[tuple[str, str, Any]]:
    """Yield path, name and value of each member, and of each member of an object among them."""
    left: deque[tuple[str, str, Any]] = deque()
    for name, raw in others.items():
        with suppress(*FAILURES):
            left.append((f"$.{name}", name, msgspec.json.decode(raw)))
    while left:
        path, name, value = left.popleft()
        yield path, name, value
        if isinstance(value, dict):
            left.extend((f"{path}.{inner}", inner, one) for inner, one in value.items())


def _names_cursor(name: str) -> bool:
    return is_garbled(name, "next_cursor") or _CURSOR_NAME.fullmatch(_letters(name)) is not None


def _letters(name: str) -> str:
    return re.sub("[^a-z]", "", name.lower())


_NAMES_OF_PEOPLE = {"records", "profiles", "users", "people", "data", "items"}
_NAMES_OF_PERSON = {"record", "profile", "user", "person"}
_CURSOR_NAME = re.compile(
    "next(?:batch|cursor|href|id|key|link|offset|page|token|ur[il])*|continuation(?:token)?"
    "|pagetoken|(?!before|current|first|last|own|prev|request|self|start|this)[a-z]*cursors?"
)


def take_apart(data: bytes) -> Slices[PageBody | None]:
    """Return the body of a large page ([profiles], Sample Response).

    Return None for a small page, and for an unusual one, which raises its error when it is decoded
    as a whole.

    Each slice begins with a record and is parsed as a list of its own. If it parses, it also ends
    with a record, because brackets or quotes do not balance if it is cut inside one.
    """
    if len(data) < 2 * SLICE:
        return None
    records = _BEFORE_RECORDS.match(data)
    first = _FIRST_KEY.match(data, records.end()) if records else None
    if records is None or first is None:
        return None
    # Most records begin with the same key, and devices with another one.
    likely = re.compile(rb"\}\s*+,\s*+(?=" + re.escape(first[0]) + rb")")
    found: list[Raw] = []
    position = records.end()
    size = SLICE
    view = memoryview(data)
    try:
        body = PAGE_BODY.decode(data[:position] + b"]}")
        while len(data) - position > 2 * size:
            taken = None
            for cut in _cuts(likely, data, position + size, _NEAR if size == SLICE else SLICE):
                taken = _read_slice(view[position : cut.start() + 1], mend=size < SLICE)
                if taken is not None:
                    found += taken
                    position = cut.end()
                    break
            if taken is None and size < SLICE:
                return None
            # A slice that does not parse is retried in slices small enough to be mended.
            size = SLICE if taken is not None and size == SLICE else _SMALL
            yield
        last = b"".join((b'{"', _LAST, b'":[', view[position:]))
        rest, mended = decode_mended(_REST, last, "$")
    except (*FAILURES, DecodeError):
        return None
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


_SMALL = 1 << 15
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
