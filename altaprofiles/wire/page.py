"""CleverTap's pages, read without decoding their records: the other members.

The next cursor can be read before the rest of a page has arrived. `splitter` takes the records.

Sources:
    [profiles] "Get User Profiles", https://developer.clevertap.com/docs/get-user-profiles-api
    [seen] public clients, captures and tests
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote, unquote_to_bytes

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from ..base.jsontext import (
    decode_loosely,
    elements,
    excerpt,
    parts,
)
from ..errors import DecodeError
from ..flow.slices import ITEMS, Slices
from .query import CURSOR
from .reading import is_garbled

__all__ = [
    "PAGE_BODY",
    "Body",
    "PageBody",
    "find_cursor",
    "find_records",
    "other_members",
    "peek_next_cursor",
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
    """Members of a page ([profiles], Get User Profiles Using Cursor)."""

    next_cursor: Any = UNSET
    records: list[Raw] | UnsetType | None = UNSET


PAGE_BODY = msgspec.json.Decoder(PageBody)


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
    plain = _unquoted(text)
    return text != "" and (
        plain == _unquoted(own) or was_asked(text) or was_asked(quote(plain, safe=""))
    )


def _unquoted(cursor: str) -> bytes:
    # Not text: if it is not UTF-8, different cursors would become the same.
    return unquote_to_bytes(cursor.encode("utf-8", "surrogatepass"))


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
