"""Parts of records, still encoded as JSON. Pure."""

from __future__ import annotations

import msgspec
from msgspec import Raw, Struct, field

from ..base.jsontext import decode_json, members

__all__ = ["FAILURES", "KEY", "NULL", "OBJECT", "profile_data", "properties"]


OBJECT = msgspec.json.Decoder(dict[str, Raw])

KEY = msgspec.json.Decoder(str)

FAILURES = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""Errors of a decoder. Valid JSON raises them too: lone surrogates, deep nesting, huge numbers."""

NULL = Raw(b"null")


class _Data(Struct, gc=False):
    profile_data: Raw = field(name="profileData", default=NULL)


_DATA = msgspec.json.Decoder(_Data)


def profile_data(record: bytes) -> Raw:
    """Return the `profileData` of a record, `NULL` where it is missing."""
    try:
        return _DATA.decode(record).profile_data
    except FAILURES:
        found = NULL
        for key, start, end in members(record):
            if decode_json(KEY, key, "$") == "profileData":
                found = Raw(record[start:end])
        return found


def properties(data: Raw) -> dict[str, Raw]:
    """Return the members of `profileData`, none where it is not an object."""
    try:
        return OBJECT.decode(data)
    except FAILURES:
        pass
    text = bytes(data)
    if not text.startswith(b"{"):
        return {}
    return {decode_json(KEY, key, "$"): Raw(text[start:end]) for key, start, end in members(text)}
