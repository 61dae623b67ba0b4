"""Encodes records for PostgreSQL's `COPY … FROM STDIN`. Pure.

The text format is that of PostgreSQL's manual, "COPY", File Formats.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import count

from ...base.jsontext import compact
from ...models.people import person_key
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
        object_ids = [self._fit_ids(ids) for ids in columns.object_ids]
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

    def _fit_ids(self, ids: list[str]) -> list[bytes]:
        fitted = []
        for text in map(self._fit_text, ids):
            short = _shortened(text)
            self.mended += short != text
            fitted.append(short)
        return fitted

    def _fit_json(self, data: bytes | None) -> bytes | None:
        if data is None:
            return None
        fitted, is_mended = fit_json(data)
        self.mended += is_mended
        return fitted


def _person(identity: str | None, ids: list[bytes], record: bytes) -> bytes:
    key = person_key(_shortened((identity or "").encode()).decode(), map(bytes.decode, ids))
    return b"record:" + _digest(compact(record)) if key is None else key.encode()


def _shortened(text: bytes) -> bytes:
    # A replaced NUL would make one person of two.
    is_kept = len(text) <= _MAX_INDEXED and b"\0" not in text
    return text if is_kept else b"sha256:" + _digest(text)


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).hexdigest().encode()


def _array(texts: list[bytes]) -> bytes:
    quoted = (b'"%b"' % text.replace(b"\\", b"\\\\").replace(b'"', b'\\"') for text in texts)
    return b"{%b}" % b",".join(quoted)


def _cell(value: bytes | None) -> bytes:
    if value is None:
        return b"\\N"
    escaped = value.replace(b"\\", b"\\\\").replace(b"\n", b"\\n")
    return escaped.replace(b"\t", b"\\t").replace(b"\r", b"\\r")
