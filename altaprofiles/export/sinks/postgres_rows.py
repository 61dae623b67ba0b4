"""Encodes records for PostgreSQL's `COPY … FROM STDIN`. Pure.

The text format is that of PostgreSQL's manual, "COPY", File Formats.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import count
from operator import ne

from ...base.jsontext import compact
from ...models.people import digest_of, exact_identity, exact_ids, person_key
from ...tables.columns import Columns
from .postgres_json import fit_json

__all__ = ["RowEncoder"]

_MAX_INDEXED = 1000
"""Longest text in an index, in bytes. The server allows about 2,700 ("B-Tree", "GIN")."""


class RowEncoder:
    """Turns records into rows: number, whether nameless, person, and the columns of every table.

    Rows are numbered from 0 in the order of the records. A nameless person has no identity, but at
    least one `objectId`.

    Args:
        keys: the flattened keys of `profileData`, whose columns come last.

    Attributes:
        mended: the number of values that were replaced because PostgreSQL cannot hold them.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self.mended = 0
        self._keys = keys
        self._numbers = count()

    def encode(self, records: Sequence[bytes]) -> bytes:
        """Return the rows of `records`, each on a line.

        Raises:
            DecodeError: a record is not a JSON object.
        """
        columns = Columns(records, self._keys)
        self.mended += columns.mended
        identities, *texts = [self._fit_texts(values) for values in columns.texts]
        lifted = [columns.lifted(number, "text") for number in range(len(self._keys))]
        object_ids = [
            self._fit_ids(exact_ids(ids, record))
            for ids, record in zip(columns.object_ids, records, strict=True)
        ]
        cells = [
            identities,
            *texts,
            [_array(ids) for ids in object_ids],
            *([self._fit_json(data) for data in column] for column in columns.json_texts),
            *map(self._fit_texts, lifted),
        ]
        people = map(_person, columns.texts[0], object_ids, records)
        nameless = (
            b"f" if identity or not ids else b"t"
            for identity, ids in zip(identities, object_ids, strict=True)
        )
        lines = (
            b"\t".join((b"%d" % next(self._numbers), *map(_cell, row)))
            for row in zip(nameless, people, *cells, strict=True)
        )
        return b"\n".join([*lines, b""])

    def _fit_texts(self, values: list[str | None]) -> list[bytes | None]:
        return [None if value is None else self._fit_text(value) for value in values]

    def _fit_text(self, value: str) -> bytes:
        if "\0" in value:
            value = value.replace("\0", "\ufffd")
            self.mended += 1
        return value.encode()

    def _fit_ids(self, ids: list[str]) -> list[str]:
        fitted = [*map(_indexable, ids)]
        self.mended += sum(map(ne, fitted, ids))
        return fitted

    def _fit_json(self, data: bytes | None) -> bytes | None:
        if data is None:
            return None
        fitted, is_mended = fit_json(data)
        self.mended += is_mended
        return fitted


def _person(identity: str | None, ids: list[str], record: bytes) -> bytes:
    key = person_key(_indexable(exact_identity(identity, record) or ""), ids)
    if key is None:
        return b"record:" + hashlib.sha256(compact(record)).hexdigest().encode()
    return key.encode()


def _indexable(text: str) -> str:
    """Return `text`, or its digest where PostgreSQL cannot hold it or cannot index it."""
    # A replacement for what it cannot hold would make one person of two.
    try:
        is_kept = len(text.encode()) <= _MAX_INDEXED and "\0" not in text
    except UnicodeEncodeError:
        is_kept = False
    return text if is_kept else digest_of(text)


def _array(texts: list[str]) -> bytes:
    escaped = (text.replace("\\", "\\\\").replace('"', '\\"') for text in texts)
    quoted = (b'"%b"' % text.encode() for text in escaped)
    return b"{%b}" % b",".join(quoted)


def _cell(value: bytes | None) -> bytes:
    if value is None:
        return b"\\N"
    escaped = value.replace(b"\\", b"\\\\").replace(b"\n", b"\\n")
    return escaped.replace(b"\t", b"\\t").replace(b"\r", b"\\r")
