"""The rule by which records belong to the same person. No I/O of its own.

Records with an identity belong to the same person if the identity is equal. A record without one,
or with an empty one, belongs to a person seen before if it shares any `objectId` with such a record
before it. So the order decides where a later record connects two: `a` with device 1 and `b` with
device 2 are two people if `c` with both comes last, and one if it comes earlier. Records with
neither belong to the same person if they are equal, as `identical` tells it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from hashlib import blake2b, sha256
from typing import Any

import msgspec
from msgspec import Raw, Struct, field

from ..base.checks import is_unicode
from ..base.jsontext import FAILURES, each_once, identical, parts
from ..errors import DecodeError
from ..tables.parts import NULL, TextId, core_text, device_ids

__all__ = [
    "Distinct",
    "digest_of",
    "digests_of",
    "exact_identity",
    "exact_ids",
    "identity_of",
    "indexable",
    "keys_of",
    "object_ids_of",
    "person_key",
    "person_of",
    "row_key",
    "short_digest",
]


_DIGEST = 16
"""Bytes of a digest that stands for a key."""


class _Identity(Struct, gc=False):
    identity: Any = None


_IDENTITY = msgspec.json.Decoder(_Identity)


class _Ids(TextId, gc=False):
    platform_info: list[TextId] | None = field(name="platformInfo", default=None)


_IDS = msgspec.json.Decoder(_Ids)


def identity_of(record: bytes | Raw, *, exact: bool = False) -> str | None:
    """Return the identity in a record, as `Profile.identity` does, without decoding the rest.

    Args:
        record: a JSON object.
        exact: whether lone surrogates stay, as in `plain_text`.

    Raises:
        DecodeError: `record` is not a JSON object.
    """
    try:
        identity = _IDENTITY.decode(record).identity
    except FAILURES:
        return core_text("identity", parts(record).get("identity", NULL), exact=exact)
    if identity is None or type(identity) is str:
        return identity
    return core_text("identity", parts(record)["identity"])


def object_ids_of(record: bytes | Raw, *, exact: bool = False) -> list[str]:
    """Return the `objectId` of a record, then of each device that can be read, each one once.

    Args:
        record: a JSON object.
        exact: whether lone surrogates stay, as in `plain_text`.

    Raises:
        DecodeError: `record` is not a JSON object.
    """
    try:
        ids = _IDS.decode(record)
    except FAILURES:
        pass
    else:
        return each_once((ids.object_id, *(device.object_id for device in ids.platform_info or ())))
    sent = parts(record)
    own = core_text("objectId", sent.get("objectId", NULL), exact=exact)
    return each_once((own, *device_ids(sent.get("platformInfo", NULL), exact=exact)))


def exact_identity(identity: str | None, record: bytes | Raw) -> str | None:
    """Return `identity`, which is that of `record`, with its lone surrogates.

    As U+FFFD they would make one person of two.
    """
    if identity and _may_be_mended(identity):
        return identity_of(record, exact=True)
    return identity


def exact_ids(ids: list[str], record: bytes | Raw) -> list[str]:
    """Return `ids`, which are the `objectId`s of `record`, with their lone surrogates."""
    return object_ids_of(record, exact=True) if any(map(_may_be_mended, ids)) else ids


def _may_be_mended(text: str) -> bool:
    # The escape is in texts that are JSON.
    return "\ufffd" in text or "\\ufffd" in text


def person_key(identity: str | None, object_ids: Iterable[str]) -> str | None:
    """Return a key for a person: `identity:…`, else `objectId:…` of the least ID, else None.

    The least, so that the order in which the service lists devices makes no difference. A digest
    stands for a text that has no UTF-8.
    """
    if identity:
        return f"identity:{_storable(identity)}"
    least = min(map(_storable, object_ids), default=None)
    return None if least is None else f"objectId:{least}"


def _storable(text: str) -> str:
    return text if is_unicode(text) else digest_of(text)


def row_key(identity: str | None, object_ids: Iterable[str], record: bytes) -> str:
    """Return the key of a person in tables: as `person_key`, else the record's digest.

    Digests stand for texts that some database cannot hold or cannot index, because a replacement
    for one character would make one person of two.

    Args:
        identity: the identity, with its lone surrogates.
        object_ids: every `objectId`, with their lone surrogates.
        record: the record.
    """
    key = person_key(indexable(identity or ""), map(indexable, object_ids))
    return key or f"record:{sha256(identical(record)).hexdigest()}"


def person_of(identity: str | None, object_ids: list[str], record: bytes) -> str:
    """Return the value of the column `person` in the row of a record: as `row_key`.

    Args:
        identity, object_ids: as the record's row has them, with U+FFFD for lone surrogates.
        record: the record.
    """
    # Most need no closer look.
    if identity and _is_plain(identity):
        return f"identity:{identity}"
    if not identity and object_ids and _is_plain("".join(object_ids)):
        return f"objectId:{min(object_ids)}"
    return row_key(exact_identity(identity, record), exact_ids(object_ids, record), record)


_SHORT = 500
"""Characters that any database can index."""


def _is_plain(text: str) -> bool:
    """Return True for text that any database can hold, and that was not mended."""
    return text.isascii() and len(text) <= _SHORT and "\\" not in text and "\0" not in text


_MAX_INDEXED = 1000
"""Longest text in an index, in bytes. PostgreSQL allows about 2,700 ("B-Tree", "GIN")."""


def indexable(text: str) -> str:
    """Return `text`, or its digest where a database cannot hold it or cannot index it."""
    is_kept = is_unicode(text) and "\0" not in text and len(text.encode()) <= _MAX_INDEXED
    return text if is_kept else digest_of(text)


def digest_of(text: str) -> str:
    """Return a digest that stands for `text` in keys of people."""
    return f"sha256:{sha256(_encoded(text)).hexdigest()}"


def _encoded(text: str) -> bytes:
    return text.encode(errors="surrogatepass")


def keys_of(identity: str | None, record: bytes | Raw) -> list[bytes]:
    """Return the keys by which a record is known: one of a record seen before shares its person.

    The key of the identity; without one, those of the devices; without any, that of the record.

    Args:
        identity: the identity in the record, exact or not.
        record: a JSON object.

    Raises:
        DecodeError: `record` is not a JSON object.
    """
    if identity:
        return [_key_of_identity(identity, record)]
    if devices := object_ids_of(record, exact=True):
        return [_DEVICE + _encoded(device) for device in devices]
    return [_RECORD + short_digest(identical(bytes(record)))]


def digests_of(records: Sequence[bytes | Raw]) -> tuple[list[bytes], list[int]]:
    """Return a digest of each key of some records, and for each one the place of its record.

    A record that is not a JSON object has none.
    """
    digests: list[bytes] = []
    places: list[int] = []
    # Most records have an identity of letters and digits, and there are millions of them.
    add, add_place, decode = digests.append, places.append, _IDENTITY.decode
    for place, record in enumerate(records):
        try:
            identity = decode(record).identity
        except FAILURES:
            identity = None
        if type(identity) is str and identity.isalnum():
            add(blake2b(identity.encode(), digest_size=_DIGEST).digest())
            add_place(place)
            continue
        with suppress(DecodeError):
            keys = keys_of(identity_of(record), record)
            digests += map(short_digest, keys)
            places += [place] * len(keys)
    return digests, places


def _key_of_identity(identity: str, record: bytes | Raw) -> bytes:
    # Most identities are letters and digits, and need no closer look.
    if not identity.isalnum():
        identity = exact_identity(identity, record) or identity
    return identity.encode(errors="surrogatepass")


# Bytes that no text has, so that keys of different kinds differ.
_DEVICE = b"\xfe"
_RECORD = b"\xff"


def short_digest(data: bytes) -> bytes:
    """Return a digest of 16 bytes that stands for a key.

    The chance that any two of 10**8 people share one is 10**-23.
    """
    return blake2b(data, digest_size=_DIGEST).digest()


_LONGEST = 31
"""Longest key that is kept as it is, in bytes. With its object it takes 64 bytes of memory."""


class Distinct:
    """Recognises people seen before, in the order in which the records come.

    Remembers in memory a key for each identity, and one for each device of people without an
    identity: some 100 bytes each, however long it is. Its answer is needed at once, for a record
    that is passed on before the next one is read. Exports, which need none before all records are
    there, tell people apart on disk.
    """

    def __init__(self) -> None:
        self._keys: set[bytes] = set()

    def is_new(self, identity: str | None, record: bytes | Raw) -> bool:
        """Return True if this person has not been seen before, and remember the person.

        Args:
            identity, record: as for `keys_of`.

        Raises:
            DecodeError: `record` is not a JSON object.
        """
        if identity:
            return self._add(_key_of_identity(identity, record))
        # Every device, so that later records match by any of them.
        new = [self._add(key) for key in keys_of(identity, record)]
        return all(new)

    def _add(self, key: bytes) -> bool:
        known = len(self._keys)
        self._keys.add(key if len(key) <= _LONGEST else short_digest(key))
        return len(self._keys) > known
