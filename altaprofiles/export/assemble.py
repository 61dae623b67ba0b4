"""Assembles the output from the records in the store. After an interruption it starts over.

Blocking calls run in a worker thread, for some hundredths of a second each, so that the event loop
turns and a cancellation is noticed.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO, TypeAlias, TypeVar

import anyio
from msgspec import Struct

from ..base.deadline import Deadline
from ..base.wording import duration
from ..errors import ExportLocked
from ..tables.kinds import Kinds
from ..tables.mended import Mended, mistyped_words
from ..tables.rows import Row, Table
from .ahead import Block, WritesAny
from .sinks import BlockSink, Encoded, FileSink, Sink, Stage, Target
from .store.people import Choice, Chooser, People
from .store.spool import Whole
from .store.workspace import naming_full_disk
from .tables import Origin
from .threads import Threads

logger = logging.getLogger("altaprofiles")

__all__ = ["Batches", "Written", "assemble", "table_of", "when_free"]

Batches: TypeAlias = Callable[[], Iterator[list[Row]]]
"""Returns an iterator over all rows in batches, the same ones in the same order each time."""

Blocks: TypeAlias = Callable[[WritesAny | None], Iterator[list[Row] | Block]]
"""Does the same, with blocks for the rows that are encoded, unless the argument is None."""

T = TypeVar("T")

_BLOCK = 4 << 20
_OVER = object()

_POLL_EVERY = 0.5
"""Seconds between two attempts to open a target that is in use."""


class Written(Struct, frozen=True):
    """An output that has been put in place.

    Attributes:
        records: number of records in it.
        bytes, sha256: size and digest of the file; None for a database server.
        mended: the values that are not as they were.
        absorbed: rows of earlier runs that are rows of other people now.
        notes: sentences for the report, on what has happened to a table and to values, and on
            columns without a value.
    """

    records: int
    bytes: int | None
    sha256: str | None
    mended: Mended
    absorbed: int
    notes: Sequence[str]


def table_of(target: Target, origin: Origin, kinds: Kinds) -> Table:
    """Return the table of an output."""
    return target.content.table(target.flatten, kinds if target.has_types else None, origin)


async def assemble(
    threads: Threads,
    target: Target,
    batches: Blocks,
    *,
    unbound: Batches,
    whole: Callable[[], Whole | None],
    origin: Origin,
    kinds: Kinds,
    people: People | None,
    on_batch: Callable[[int, int], None],
    on_read: Callable[[], None],
    stage: Stage | None = None,
    deadline: Deadline | None = None,
) -> Written:
    """Write the rows of `batches` to `target`, and put it in place.

    Args:
        threads: runs the blocking calls.
        target: the output.
        batches: the rows.
        unbound: rows without cells, of the keys that have no others, for a target that needs them.
        whole: returns the spool that holds all rows, if there is only one.
        origin: the export.
        kinds: the kinds of flattened columns, which has observed all rows that are encoded.
        people: decides which rows are written, or None for all.
        on_batch: called after some batches with the records read and written so far.
        on_read: called when `batches` has yielded all.
        stage: has encoded rows of `batches`, if there is one.
        deadline: as for `when_free`.

    Raises:
        ExportLocked: the target is in use, even after its `patience`.
        ExportError: the target refuses, or `batches` cannot yield the records.
        OSError: it cannot be written.
    """
    ahead = kinds if target.typed_flatten else Kinds({})
    if people is not None:
        preparing = people.prepare()
        await threads.run_steps(lambda: next(preparing, _OVER) is not _OVER)
    if target.typed_flatten:
        looking = batches(None)
        await threads.run_steps(lambda: _look(looking, ahead))
    unseen = Kinds({}) if target.typed_flatten else kinds
    table = table_of(target, origin, kinds)
    opener = target if stage is None else stage
    with naming_full_disk(target.path):
        sink = await when_free(threads, target, lambda: opener.open(table, origin), deadline)
        try:
            if isinstance(sink, FileSink) and (people is None or _keeps_all(people)):
                adopted = await _adopt(threads, sink, await threads.run(whole), on_batch)
                if adopted is not None:
                    return adopted
            read = written = 0
            writing = batches(_writes_any(sink, table, people))

            def write() -> bool:
                nonlocal read, written
                if (counts := _write(writing, people, sink, unseen)) is None:
                    return False
                read += counts[0]
                written += counts[1]
                return True

            await threads.run_steps(write, lambda: on_batch(read, written))
            on_read()
            if target.replaces_keys:
                emptying = unbound()
                await threads.run_steps(lambda: _put_next(emptying, sink))
            file = await threads.run(sink.close)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await threads.run(sink.abort)
            raise
    notes = [*_notes(sink, target), *kinds.advice(_known_keys(sink, target, table))]
    if file is None:
        return Written(written, None, None, sink.mended, sink.absorbed, notes)
    with file:
        size, digest = await _digest(threads, file)
    return Written(written, size, digest, sink.mended, sink.absorbed, notes)


def _notes(sink: Sink, target: Target) -> list[str]:
    mistyped = sink.mended.mistyped
    if not mistyped:
        return [*sink.notes]
    return [*sink.notes, f"{mistyped_words(mistyped)}; {target.to_keep_values([*mistyped])}"]


def _known_keys(sink: Sink, target: Target, table: Table) -> list[str]:
    """Return the flattened keys whose columns may have values in rows that the run did not bring.

    Whoever misspells a name is warned by the run that adds its column, and only by that one.
    """
    names = (column.name for column in table.columns[len(table.columns) - len(target.flatten) :])
    columns = zip(target.flatten, names, strict=True)
    return [key for key, name in columns if name in sink.earlier_columns]


async def _adopt(
    threads: Threads,
    sink: FileSink,
    whole: Whole | None,
    on_batch: Callable[[int, int], None],
) -> Written | None:
    """Make a spool the output, and return that; None if it cannot be done.

    Raises:
        SpoolDamaged: it differs from the data written to it.
    """
    if whole is None:
        return None
    digest = hashlib.sha256()
    blocks = whole.blocks()

    def step() -> bool:
        block = next(blocks, None)
        digest.update(block or b"")
        return block is not None

    await threads.run_steps(step)
    # Before the output is replaced, as this may raise an exception.
    on_batch(whole.rows, whole.rows)
    file = await threads.run(lambda: sink.adopt(whole.path, whole.length))
    if file is None:
        return None
    file.close()
    return Written(whole.rows, whole.length, digest.hexdigest(), Mended(), 0, [])


def _keeps_all(people: People) -> bool:
    return isinstance(people, Chooser) and people.keeps_all


async def when_free(
    threads: Threads, target: Target, call: Callable[[], T], deadline: Deadline | None
) -> T:
    """Return the result of `call`, which is repeated while `target` is in use.

    Args:
        threads: runs the blocking calls.
        target: the output, whose `patience` bounds the wait.
        call: opens the target, or looks at it.
        deadline: the deadline of the run, after which nothing is waited for.

    Raises:
        ExportLocked: it is still in use.
    """
    patience = target.patience
    if deadline is not None:
        patience = min(patience, deadline.left)
    end = anyio.current_time() + patience
    is_logged = False
    while True:
        try:
            return await threads.run(call)
        except ExportLocked as error:
            locked = error
        if anyio.current_time() >= end:
            raise locked
        if not is_logged:
            logger.warning("%s; waiting for it, at most %s", locked, duration(patience))
            is_logged = True
        await anyio.sleep(_POLL_EVERY)


def _look(batches: Iterator[list[Row] | Block], kinds: Kinds) -> bool:
    rows = next(batches, None)
    if rows is None or isinstance(rows, Block):
        return False
    kinds.observe(row.record for row in rows)
    return True


def _put_next(batches: Iterator[list[Row]], sink: Sink) -> bool:
    rows = next(batches, None)
    if rows is not None:
        sink.write(rows)
    return rows is not None


def _writes_any(sink: Sink, table: Table, people: People | None) -> WritesAny | None:
    """Return the argument of `Blocks`: None if a sink takes no blocks."""
    if not (isinstance(sink, BlockSink) and sink.takes(table.columns)):
        return None
    if people is None:
        return lambda count, account: True
    return people.writes_any if isinstance(people, Chooser) else None


def _write(
    batches: Iterator[list[Row] | Block], people: People | None, sink: Sink, unseen: Kinds
) -> tuple[int, int] | None:
    rows = next(batches, None)
    if rows is None:
        return None
    if isinstance(rows, Block):
        return rows.count, _put(rows, people, sink)
    if unseen.unseen:
        unseen.observe(row.record for row in rows)
    selected = rows if people is None else people.keep(rows)
    sink.write(selected)
    return len(rows), len(selected)


def _put(block: Block, people: People | None, sink: Sink) -> int:
    assert isinstance(sink, BlockSink)  # noqa: S101
    choice = Choice.of_all(block.count)
    if isinstance(people, Chooser):
        choice = people.choose(block.count, block.account, block.matched)
    if 1 not in choice.flags:
        return 0
    of_written = (values for row, values in block.mended.items() if choice.flags[row])
    mended = sum(of_written, Mended())
    sink.put(Encoded(memoryview(block.data), choice, mended, block.matched, block.staged))
    return sum(choice.flags)


async def _digest(threads: Threads, file: BinaryIO) -> tuple[int, str]:
    digest = hashlib.sha256()

    def block() -> bool:
        data = file.read(_BLOCK)
        digest.update(data)
        return bool(data)

    await threads.run_steps(block)
    return file.tell(), digest.hexdigest()
