"""Encodes the rows of chains for their output while others are still being read.

Which of the rows are written is known only when all have arrived, so that the output itself can
only be begun then. Blocks of encoded rows wait for that in a file without a name, of which a
process that is killed leaves nothing. They are made from records that the journal counts, and are a
shortcut only: wherever a block is missing, the records themselves are read.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeAlias

import anyio
from anyio.lowlevel import checkpoint
from msgspec import Struct
from msgspec.structs import replace

from ..tables.kinds import Kinds
from ..tables.mended import Mended
from ..tables.rows import Row
from .sinks import Encoder, Stage
from .store.journal import Part
from .store.scratch import Scratch, Stored
from .store.spool import read_bytes, read_lines
from .threads import Threads

__all__ = ["Ahead", "Arrived", "Block", "WritesAny"]

logger = logging.getLogger("altaprofiles")

_BLOCK = 1 << 20
"""Bytes of records in a block."""

_SLICE = 1 << 17
"""Bytes of records encoded at once. The event loop waits for the interpreter's lock meanwhile."""

_ROWS = 20
"""Rows that are encoded one by one without a pause."""


WritesAny: TypeAlias = Callable[[int, str], bool]
"""Returns whether any of the next rows is to be written, by their number and their account."""


class Arrived(Struct, frozen=True):
    """The records of one chain that have arrived so far.

    Attributes:
        chain, restarts: as in `ChainRow`.
        parts: the parts of its spool, to which others are added.
        path: the spool.
        account: the account of the rows.
        matched: the event of the rows, if one brought them.
    """

    chain: int
    restarts: int
    parts: Sequence[Part]
    path: Path
    account: str
    matched: tuple[str, ...]


class Block(Struct, frozen=True):
    """Encoded rows of one chain.

    Attributes:
        data: made by an encoder of the target.
        count: the number of rows.
        end: the length of the spool with their records, in bytes.
        account, matched: as in `Arrived`.
        mended: the values that are not as they were, for each row that has some.
        staged: the number of its first row in the stage, if the sink has them; else None.
    """

    data: bytes
    count: int
    end: int
    account: str
    matched: tuple[str, ...]
    mended: dict[int, Mended]
    staged: int | None = None


class _Stored(Struct, frozen=True):
    """A block in the file."""

    place: Stored
    block: Block


class _Chain:
    """The blocks of one start of a chain.

    Attributes:
        stored: the blocks.
        parts: the number of parts of its spool that they are made of.
        end: the length of these, in bytes.
        mended: the values so far that the present encoder has not kept as they were.
        is_damaged: whether its spool has turned out to be damaged.
    """

    def __init__(self) -> None:
        self.stored: list[_Stored] = []
        self.parts = 0
        self.end = 0
        self.mended = Mended()
        self.is_damaged = False


class Ahead:
    """The blocks of one account.

    Args:
        folder: where the file is.
        encoder: returns a new encoder.
        arrived: returns what has arrived of each chain.
        kinds: observes every record that is encoded.
        stage: takes the blocks as well, if there is one.

    Attributes:
        stage: the argument.
    """

    def __init__(
        self,
        folder: Path,
        encoder: Callable[[], Encoder],
        arrived: Callable[[], Sequence[Arrived]],
        kinds: Kinds,
        stage: Stage | None,
    ) -> None:
        self.stage = stage
        self._grown = asyncio.Event()
        self._folder = folder
        self._encoder = encoder
        self._arrived = arrived
        self._kinds = kinds
        self._threads = Threads()
        self._chains: dict[tuple[int, int], _Chain] = {}
        self._scratch: Scratch | None = None
        self._is_over = False

    async def run(self) -> None:
        """Encode what has arrived, and what arrives. Never ends by itself."""
        # What an earlier run has brought is there already.
        self._grown.set()
        while True:
            await self._grown.wait()
            self._grown.clear()
            encoding = self._encode_all()
            while await self._threads.run(partial(next, encoding, None)) is not None:
                await checkpoint()

    def grown(self) -> None:
        """Take note that more has arrived."""
        self._grown.set()

    def drop_blocks(self) -> None:
        """Begin to free the file, as no block is needed any more. Some disks take long for that."""
        self._threads.start(self._drop_blocks)

    async def aclose(self) -> None:
        """Free the file."""
        with anyio.CancelScope(shield=True):
            await self._threads.run(self._forget)
        self._threads.close()

    def leave_behind(self) -> None:
        """Do as `aclose` does where the event loop is closed. Blocking."""
        self._threads.end(self._forget)

    def _forget(self) -> None:
        if self.stage is not None:
            self.stage.close()
        self._drop_blocks()

    def _drop_blocks(self) -> None:
        self._is_over = True
        self._chains.clear()
        if self._scratch is not None:
            self._scratch.close()

    # ------------------------------------------------------------------------- while records arrive

    def _encode_all(self) -> Iterator[bool]:
        if self._is_over:
            return
        try:
            yield from self._encode_chains()
        except OSError as error:
            logger.debug("no rows are encoded ahead: %s", error)
            self._forget()

    def _encode_chains(self) -> Iterator[bool]:
        chains = self._arrived()
        self._check_space(sum(one.parts[-1].end for one in chains if one.parts))
        for place, arrived in enumerate(chains):
            chain = self._chains.setdefault((arrived.chain, arrived.restarts), _Chain())
            if chain.is_damaged or len(arrived.parts) == chain.parts:
                continue
            try:
                if self.stage is None or not self.stage.takes_text:
                    yield from self._encode(arrived, chain, place)
                elif not (self.stage.first_only and place):
                    yield from self._pass_on(arrived, chain, place, self.stage)
            except OSError:
                raise
            except Exception as error:
                # The output is assembled from the records themselves, and says what is wrong.
                logger.debug("the rows of a chain are not encoded ahead: %s", type(error).__name__)
                chain.is_damaged = True

    def _encode(self, arrived: Arrived, chain: _Chain, place: int) -> Iterator[bool]:
        before = max(chain.parts - 1, 0)
        parts = arrived.parts[before:]
        encoder = self._encoder()
        chain.mended = Mended()
        rows: list[Row] = []
        size = 0
        end = chain.end
        for lines in read_lines(arrived.path, parts, end):
            for some in _slices(lines):
                new = [Row(line, arrived.account, matched=arrived.matched) for line in some]
                encoder.add(new)
                self._kinds.observe(some)
                rows += new
                size += sum(map(len, some)) + len(some)
                if size >= _BLOCK:
                    end += size
                    yield from self._store(arrived, chain, place, encoder, rows, end)
                    rows, size = [], 0
                yield True
        if rows:
            yield from self._store(arrived, chain, place, encoder, rows, end + size)
        chain.parts = before + len(parts)

    def _store(
        self,
        arrived: Arrived,
        chain: _Chain,
        place: int,
        encoder: Encoder,
        rows: Sequence[Row],
        end: int,
    ) -> Iterator[bool]:
        data = encoder.take()
        # The encoder has counted them so far, but not by row.
        mended: dict[int, Mended] = {}
        if encoder.mended != chain.mended:
            yield from self._find_mended(rows, mended)
        chain.mended = encoder.mended
        if self._scratch is None:
            self._scratch = Scratch(self._folder)
        stored = self._scratch.put(data)
        yield True
        staged = None if self.stage is None else self.stage.put(data, place)
        block = Block(b"", len(rows), end, arrived.account, arrived.matched, mended, staged)
        chain.stored.append(_Stored(stored, block))
        chain.end = end

    def _pass_on(self, arrived: Arrived, chain: _Chain, place: int, stage: Stage) -> Iterator[bool]:
        """Pass on records as they are."""
        for data in read_bytes(arrived.path, arrived.parts, chain.parts):
            for start in range(0, len(data), _BLOCK):
                stage.put(data[start : start + _BLOCK], place)
                yield True
        chain.parts = len(arrived.parts)

    def _find_mended(self, rows: Sequence[Row], mended: dict[int, Mended]) -> Iterator[bool]:
        """Find out how many values were replaced in each row, by its number."""
        encoder = self._encoder()
        before = Mended()
        for number, row in enumerate(rows):
            encoder.add([row])
            encoder.take()
            if encoder.mended != before:
                mended[number] = encoder.mended - before
                before = encoder.mended
            if number % _ROWS == 0:
                yield True

    def _check_space(self, spooled: int) -> None:
        """Raise `OSError` unless the disk has room for the output as well."""
        if shutil.disk_usage(self._folder).free < _SPARE * spooled:
            raise OSError(f"{self._folder} has too little space")

    # ------------------------------------------------------------------------ when all has arrived

    def blocks(self, chain: int, restarts: int, writes_any: WritesAny) -> Iterator[Block]:
        """Yield the blocks of one start of a chain, from its first record on, without gaps.

        Args:
            chain, restarts: as in `ChainRow`.
            writes_any: asked for each block when it is the next one. It stays empty otherwise.
        """
        found = self._chains.get((chain, restarts))
        is_held = self.stage is not None and self.stage.is_held
        needs_blocks = self.stage is None or self.stage.needs_blocks
        for stored in [] if found is None else found.stored:
            is_staged = is_held and stored.block.staged is not None
            is_read = needs_blocks or not is_staged
            if not (is_read and writes_any(stored.block.count, stored.block.account)):
                yield stored.block
                continue
            data = None if self._scratch is None else self._scratch.get(stored.place)
            if data is None:
                return
            staged = stored.block.staged if is_staged else None
            yield replace(stored.block, data=data, staged=staged)


_SPARE = 3
"""Times the bytes of all records that a disk has to have free for blocks to be written."""


def _slices(lines: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    start = size = 0
    for end, line in enumerate(lines, 1):
        size += len(line)
        if size >= _SLICE or end == len(lines):
            yield lines[start:end]
            start, size = end, 0
