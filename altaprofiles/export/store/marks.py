"""The file of marks: 16 bytes for each record of an export, in buckets by which repeats are found.

A mark stands for a key of the record's person, so that records of one person have a mark in common,
and all records with one mark are in one bucket. Whatever is lost of the file can be made again from
the spools. Blocking; one call at a time.

The file is a sequence of chunks. A chunk has a header, and then for each bucket a checksum, the
marks, and their places. A place is the number of a stretch of records, which is one start of a
chain, and the record's number in that stretch.
"""

from __future__ import annotations

import errno
import logging
import os
from array import array
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO, NoReturn

import msgspec
from msgspec import Raw, Struct

from ...errors import ExportError
from ...flow.slices import Pace, Slices
from ...models.people import digests_of
from .spool import Spool, SpoolDamaged, checksum

__all__ = ["BUCKETS", "HELD", "NUMBER_BITS", "Marks", "MarksDamaged", "PageMarks"]

logger = logging.getLogger("altaprofiles")

BUCKETS = 256
"""The first byte of a mark is the number of its bucket."""

HELD = 1 << 16
"""Marks in memory, beyond which they become a chunk: some 1.5 MB there and on the disk."""

NUMBER_BITS = 40
"""Bits of a place for the number of the record. Those above are the number of its stretch."""

_MARK = 16
_ENTRY = _MARK + 8
_CHECKSUM = 4
_STEP = 100


class MarksDamaged(ExportError):
    """The file of marks differs from what was written to it. It can be made again."""


class PageMarks:
    """The marks of some records that follow each other.

    Attributes:
        count: number of records.
        marks: the marks, at least one for each record that can be read.
        numbers: for each mark, the number of its record, from 0.
    """

    def __init__(self) -> None:
        self.count = 0
        self.marks: list[bytes] = []
        self.numbers = array("Q")

    def put(self, records: Sequence[bytes | Raw]) -> Slices[None]:
        """Add records."""
        pace = Pace()
        for start in range(0, len(records), _STEP):
            if pace.is_over():
                yield
                pace.restart()
            self._put(records[start : start + _STEP])

    def _put(self, records: Sequence[bytes | Raw]) -> None:
        # One without marks is written: nothing shows that it is a repeat.
        marks, places = digests_of(records)
        self.marks += marks
        self.numbers.extend(map(self.count.__add__, places))
        self.count += len(records)


class _Stretch(Struct, array_like=True):
    """The records that one start of a chain has brought, as far as they have marks.

    Attributes:
        chain, restarts: as in `ChainRow`.
        records: their number.
        offset: the length of their part of the chain's spool, in bytes.
    """

    chain: int
    restarts: int
    records: int = 0
    offset: int = 0


class _Saved(Struct):
    """The state of a file that the journal counts on.

    Attributes:
        token: the number that all its chunks begin with: a file that was begun anew has another.
        length: of the file, in bytes; anything after it is cut off.
        stretches: those whose marks it holds.
    """

    token: int
    length: int
    stretches: list[_Stretch]


_SAVED = msgspec.json.Decoder(_Saved)


class _Chunk(Struct, frozen=True):
    """A chunk of the file.

    Attributes:
        start: the offset of its first bucket in the file, in bytes.
        before: for each bucket, the number of marks before it; at the end the number of all.
    """

    start: int
    before: array[int]

    @property
    def end(self) -> int:
        """The offset of its end in the file, in bytes."""
        return self.start + _CHECKSUM * BUCKETS + _ENTRY * self.before[BUCKETS]


class Marks:
    """The marks of all records of an export.

    Args:
        path: the file. It is made with the first chunk.
        saved: the value of `unsaved` that was last stored in the journal, or None.

    Attributes:
        path: the argument.
        unsaved: what the journal is to store with its next commit, or None if it has that. Only
            what is stored counts in a later run.
    """

    def __init__(self, path: Path, saved: bytes | None = None) -> None:
        self.path = path
        self.unsaved: bytes | None = None
        self._empty()
        if saved is not None:
            try:
                self._load(_SAVED.decode(saved))
            except (MarksDamaged, msgspec.DecodeError, OSError) as error:
                self.clear(error)

    def clear(self, damage: Exception) -> None:
        """Forget all marks, even in later runs, because of some damage."""
        logger.warning("%s; it is made again from the records", damage)
        self._empty()
        self.unsaved = msgspec.json.encode(_Saved(self._token, 0, []))

    def _empty(self) -> None:
        self._token = int.from_bytes(os.urandom(4))
        self._length = 0
        self._chunks: list[_Chunk] = []
        self._stretches: list[_Stretch] = []
        self._of: dict[tuple[int, int], int] = {}
        self._hold_none()

    def _hold_none(self) -> None:
        self._held = 0
        # By bucket. Sorted once they are many, they would be read from all over the memory.
        self._marks = [bytearray() for _ in range(BUCKETS)]
        self._places = [array("Q") for _ in range(BUCKETS)]
        self._put_mark = [one.extend for one in self._marks]
        self._put_place = [one.append for one in self._places]

    # ------------------------------------------------------------------------- while records arrive

    def covered(self, chain: int, restarts: int) -> tuple[int, int]:
        """Return how many records of a chain have marks, and the length of their part of its spool.

        Args:
            chain, restarts: as in `ChainRow`.
        """
        stretch = self._stretch(chain, restarts)
        return stretch.records, stretch.offset

    def add(self, chain: int, restarts: int, page: PageMarks, before: int, offset: int) -> None:
        """Add the marks of records that the journal counts.

        If earlier records of the chain have none yet, these get theirs later, with those.

        Args:
            chain, restarts: as in `ChainRow`.
            page: the marks.
            before: the number of records of the chain before these.
            offset: the length of its spool with these.
        """
        stretch = self._stretch(chain, restarts)
        if stretch.records != before:
            return
        base = (self._of[chain, restarts] << NUMBER_BITS) + before
        put_mark, put_place = self._put_mark, self._put_place
        for mark, number in zip(page.marks, page.numbers, strict=True):
            bucket = mark[0]
            put_mark[bucket](mark)
            put_place[bucket](base + number)
        self._held += len(page.marks)
        stretch.records += page.count
        stretch.offset = offset

    def _stretch(self, chain: int, restarts: int) -> _Stretch:
        number = self._of.get((chain, restarts))
        if number is None:
            number = self._of[chain, restarts] = len(self._stretches)
            self._stretches.append(_Stretch(chain, restarts))
        return self._stretches[number]

    def store(self) -> None:
        """Write the marks that are in memory to the file, if they are many.

        Raises:
            OSError: the disk refuses. Another call may try again.
        """
        if self._held < HELD:
            return
        data = [b"".join(parts) for parts in zip(self._marks, self._places, strict=True)]
        before = array("I", accumulate((len(one) // _ENTRY for one in data), initial=0))
        header = _number(self._token) + before.tobytes()
        parts = [header, _number(checksum(header))]
        for one in data:
            parts += (_number(checksum(one)), one)
        try:
            with closing(Spool(self.path, self._length)) as file:
                chunk = _Chunk(self._length + _HEADER, before)
                self._length = file.append(b"".join(parts))
        except SpoolDamaged as damage:
            self.clear(damage)
            return
        self._chunks.append(chunk)
        self._hold_none()
        self.unsaved = msgspec.json.encode(_Saved(self._token, self._length, self._stretches))

    # --------------------------------------------------------------------------------- a later run

    def _load(self, saved: _Saved) -> None:
        self._token = saved.token
        if saved.length:
            with self._reading() as file:
                while self._length < saved.length:
                    self._chunks.append(self._read_header(file))
        if self._length != saved.length:
            self._damaged()
        self._stretches = saved.stretches
        self._of = {(one.chain, one.restarts): n for n, one in enumerate(saved.stretches)}

    def _read_header(self, file: BinaryIO) -> _Chunk:
        file.seek(self._length)
        header = file.read(_HEADER)
        numbers = array("I")
        if len(header) == _HEADER:
            numbers.frombytes(header)
        if not numbers or numbers[0] != self._token or numbers[-1] != checksum(header[:-_CHECKSUM]):
            self._damaged()
        chunk = _Chunk(self._length + _HEADER, numbers[1:-1])
        self._length = chunk.end
        return chunk

    # -------------------------------------------------------------------------- when all have marks

    def bucket(self, number: int) -> tuple[array[int], array[int]]:
        """Return the marks in a bucket, each as two numbers of 64 bits, and the place of each.

        Raises:
            MarksDamaged: the file differs from what was written to it.
            OSError: it cannot be read.
        """
        marks, places = array("Q"), array("Q")
        if self._chunks:
            with self._reading() as file:
                for chunk in self._chunks:
                    data = self._read(file, chunk, number)
                    end = len(data) // _ENTRY * _MARK
                    marks.frombytes(data[:end])
                    places.frombytes(data[end:])
        marks.frombytes(self._marks[number])
        places.extend(self._places[number])
        return marks, places

    def _read(self, file: BinaryIO, chunk: _Chunk, number: int) -> bytes:
        before, end = chunk.before[number], chunk.before[number + 1]
        file.seek(chunk.start + _CHECKSUM * number + _ENTRY * before)
        found = file.read(_CHECKSUM + _ENTRY * (end - before))
        data = found[_CHECKSUM:]
        if len(data) < _ENTRY * (end - before) or found[:_CHECKSUM] != _number(checksum(data)):
            self._damaged()
        return data

    def stretches(self) -> list[tuple[int, int]]:
        """Return the chain and the restarts of each stretch, in the order of their numbers."""
        return [(one.chain, one.restarts) for one in self._stretches]

    @contextmanager
    def _reading(self) -> Iterator[BinaryIO]:
        try:
            with self.path.open("rb", buffering=0) as file:
                yield file
        except FileNotFoundError:
            raise MarksDamaged(f"{self.path} is missing") from None
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            raise MarksDamaged(f"{self.path} is damaged: its disk cannot read it") from error

    def _damaged(self) -> NoReturn:
        raise MarksDamaged(f"{self.path} is damaged: its bytes are not as written")


_HEADER = 4 * (BUCKETS + 3)
"""Bytes of a header: the token, where each bucket begins, and the checksum of these."""


def _number(value: int) -> bytes:
    return array("I", [value]).tobytes()
