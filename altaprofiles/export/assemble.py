"""Assembles the output from the records in the store. After an interruption it starts over.

Blocking calls run in a worker thread, for a few milliseconds of records each, so that the event
loop turns and a cancellation is noticed.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from typing import BinaryIO, TypeAlias

import anyio
from anyio.lowlevel import checkpoint
from msgspec import Struct

from ..errors import DecodeError
from ..models.people import Distinct, identity_of
from ..tables.kinds import Kinds
from .sinks import Sink, Target
from .threads import Threads

logger = logging.getLogger("altaprofiles")

__all__ = ["Batches", "Written", "assemble"]

Batches: TypeAlias = Callable[[], Iterator[list[bytes]]]
"""Returns an iterator over all records in batches, the same ones in the same order each time."""

_BLOCK = 4 << 20


class Written(Struct, frozen=True):
    """An output that has been put in place.

    Attributes:
        records: number of records in it.
        bytes, sha256: size and digest of the file; None for a database server.
        mended: values that had to be changed.
    """

    records: int
    bytes: int | None
    sha256: str | None
    mended: int


async def assemble(
    threads: Threads,
    target: Target,
    batches: Batches,
    *,
    people: Distinct | None,
    on_batch: Callable[[int, int], None],
) -> Written:
    """Write the records of `batches` to `target`, and put it in place.

    Args:
        threads: runs the blocking calls.
        target: the output.
        batches: the records.
        people: leaves out people that came before, or None.
        on_batch: called after each batch with the records read and written so far.

    Raises:
        ExportError: the target refuses, or `batches` cannot yield the records.
        OSError: it cannot be written.
    """
    kinds = Kinds(target.flatten)
    if target.typed_flatten:
        looking = batches()
        while await threads.run(lambda: _look(looking, kinds)):
            await checkpoint()
    unseen = Kinds(()) if target.typed_flatten else kinds
    sink = await threads.run(lambda: target.open(kinds))
    try:
        read = written = 0
        writing = batches()
        while (
            step := await threads.run(lambda: _write(writing, people, sink, unseen))
        ) is not None:
            read += step[0]
            written += step[1]
            on_batch(read, written)
            await checkpoint()
        file = await threads.run(sink.close)
    except BaseException:
        with anyio.CancelScope(shield=True):
            await threads.run(sink.abort)
        raise
    for key in kinds.unseen:
        logger.warning("nobody has the property %r, so that its column is empty", key)
    if file is None:
        return Written(written - sink.repeated, None, None, sink.mended)
    with file:
        size, digest = await _digest(threads, file)
    return Written(written, size, digest, sink.mended)


def _look(batches: Iterator[list[bytes]], kinds: Kinds) -> bool:
    if (records := next(batches, None)) is None:
        return False
    kinds.observe(records)
    return True


def _write(
    batches: Iterator[list[bytes]], people: Distinct | None, sink: Sink, unseen: Kinds
) -> tuple[int, int] | None:
    records = next(batches, None)
    if records is None:
        return None
    if unseen.unseen:
        unseen.observe(records)
    new = records if people is None else [one for one in records if _is_new(one, people)]
    sink.write(new)
    return len(records), len(new)


def _is_new(record: bytes, people: Distinct) -> bool:
    try:
        return people.is_new(identity_of(record), record)
    except DecodeError:
        # A person that cannot be identified is written: nothing shows that it is a repeat.
        return True


async def _digest(threads: Threads, file: BinaryIO) -> tuple[int, str]:
    digest = hashlib.sha256()

    def block() -> bool:
        data = file.read(_BLOCK)
        digest.update(data)
        return bool(data)

    while await threads.run(block):
        await checkpoint()
    return file.tell(), digest.hexdigest()
