"""The outside of a page: its members before and behind the records, and where each record is.

A page is megabytes: it can be asked what comes next before it has arrived, and is taken apart in
slices.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from .http import Slices
from .query import CURSOR

__all__ = ["PAGE_BODY", "Body", "PageBody", "peek_next_cursor", "take_apart"]


class Body(Struct, gc=False):
    """What every answer may hold. Only `status` decides whether it is one."""

    status: Any = None
    error: Any = None
    message: Any = None
    code: Any = None


class PageBody(Body, gc=False):
    next_cursor: Any = UNSET
    records: list[Raw] | UnsetType | None = UNSET


PAGE_BODY = msgspec.json.Decoder(PageBody)


def peek_next_cursor(head: bytes) -> str | None:
    """Return the next cursor, if the first bytes of a page hold it in front of its records.

    Documentation and most captures have it there ([profiles]; [seen]). What is found is what the
    whole page says, unless the bytes are garbled: it can be asked for early, and is to be taken for
    true only when the page has been read.
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
# From the first byte on and over scalars only, so that nothing inside a record can be meant.
_BEFORE_CURSOR = re.compile(
    rb'\s*+\{(?:(?!\s*+"next_cursor")'
    + _SCALAR_MEMBER
    + rb')*+\s*+"next_cursor"\s*+:\s*+('
    + _STRING
    + rb")",
    re.DOTALL,
)
_BEFORE_RECORDS = re.compile(
    rb"\s*+\{(?:" + _SCALAR_MEMBER + rb')*+\s*+"records"\s*+:\s*+\[\s*+', re.DOTALL
)


def take_apart(data: bytes) -> Slices[PageBody | None]:
    """Return the body of a large page, slice by slice.

    None for a small one, and where it is not as it usually is: decoded whole it will show why.

    A slice that parses as a list on its own is one: it begins where a record begins, and if it were
    cut inside a record or a string, its brackets or quotes would not come out even.
    """
    if len(data) < 2 * _SLICE:
        return None
    records = _BEFORE_RECORDS.match(data)
    first = _FIRST_KEY.match(data, records.end()) if records else None
    if records is None or first is None:
        return None
    between = re.compile(rb"\}\s*+,\s*+(?=" + re.escape(first[0]) + rb")")
    found: list[Raw] = []
    position = records.end()
    view = memoryview(data)
    try:
        body = PAGE_BODY.decode(data[:position] + b"]}")
        while len(data) - position > 2 * _SLICE:
            near = position + _SLICE
            cut = between.search(data, near, near + _NEAR)
            if cut is None:
                break
            found += _RECORDS.decode(b"".join((b"[", view[position : cut.start() + 1], b"]")))
            position = cut.end()
            yield
        rest = _REST.decode(b"".join((b'{"":[', view[position:])))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if rest.records is not UNSET:
        # The list comes twice, and this was not the one that counts.
        return None
    for name in _Rest.__struct_fields__:
        if name != "last" and (value := getattr(rest, name)) is not UNSET:
            setattr(body, name, value)
    body.records = [*found, *rest.last]
    return body


_SLICE = 1 << 20  # two or three milliseconds of decoding
_NEAR = 1 << 16
_FIRST_KEY = re.compile(rb"\{\s*+" + _STRING + rb"\s*+:", re.DOTALL)
_RECORDS = msgspec.json.Decoder(list[Raw])


class _Rest(Struct, gc=False):
    """The last slice. No member is taken for missing that says null."""

    last: list[Raw] = msgspec.field(name="")
    records: Any = UNSET
    next_cursor: Any = UNSET
    status: Any = UNSET
    error: Any = UNSET
    message: Any = UNSET
    code: Any = UNSET


_REST = msgspec.json.Decoder(_Rest)
