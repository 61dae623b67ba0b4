"""The key by which a record is joined, and the record with its CDP users. Pure."""

from __future__ import annotations

import re

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from ...base.jsontext import FAILURES, members, plain_text
from ...errors import DecodeError
from ...models.people import exact_identity, identity_of
from ...tables.parts import NULL, begins, profile_data, properties
from ..plan import IDENTITY

__all__ = ["join_key", "with_users"]

_INTEGER = re.compile(r"-?[0-9]+")


def join_key(record: bytes, name: str) -> str | None:
    """Return the key that a record is joined by, or None if it has none.

    Lone surrogates stay in it: as U+FFFD they would make it the key of somebody else.

    Args:
        record: a JSON object.
        name: "identity", or a key of `profileData`, whose value counts if it is text or a whole
            number.
    """
    try:
        if name == IDENTITY:
            return exact_identity(identity_of(record), record) or None
        value = properties(profile_data(record)).get(name, NULL)
    except DecodeError:
        return None
    if begins(value, b'"'):
        return plain_text(value, exact=True) or None
    text = plain_text(value, whole=True)
    return text if text is not None and _INTEGER.fullmatch(text) else None


class _Own(Struct, gc=False):
    cdp: Raw | UnsetType = UNSET


_OWN = msgspec.json.Decoder(_Own)
_KEY = msgspec.json.Decoder(str)


def with_users(record: bytes, users: bytes | None) -> bytes:
    """Return a record with `users` as its last member, `cdp`.

    The rest of the record stays as it is, but for a member `cdp` of its own. That is renamed to
    `record.cdp`, because readers differ on which of two members with one name counts.

    Args:
        record: a JSON object, on one line.
        users: a JSON array, or None for null.
    """
    record = record.strip()
    if _may_have_own(record):
        renamed = [
            (b'"record.cdp"' if _is_cdp(key) else key) + b":" + bytes(value)
            for key, value in members(record)
        ]
        record = b"{%b}" % b",".join(renamed)
    body = record[:-1]
    comma = b"" if body.rstrip() == b"{" else b","
    return b'%b%b"cdp":%b}' % (body, comma, users or b"null")


def _may_have_own(record: bytes) -> bool:
    try:
        return _OWN.decode(record).cdp is not UNSET
    except FAILURES:
        # Some part of it cannot be decoded, which need not be that one.
        return any(_is_cdp(key) for key, _ in members(record))


def _is_cdp(key: bytes) -> bool:
    try:
        return _KEY.decode(key) == "cdp"
    except FAILURES:
        return False
