"""Pages of an export before they are known to be whole, on their way into a spool.

Several pages of one chain arrive at once, and a spool takes them whole and in order. So each has a
draft of its own: in memory as long as it is small, else in a file without a name, of which a
process that is killed leaves nothing.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import anyio
from msgspec import Raw

from ...base.jsontext import one_line
from ...errors import DecodeError
from ...flow.slices import Pace, Slices
from ...wire.pages import check_objects
from ..threads import Threads, deliver_cancellation
from .marks import PageMarks
from .spool import checksum, write_all

__all__ = ["Draft", "Drafts"]

_SMALL = 8 << 20
"""Longest draft in memory, in bytes: a page of the usual records."""

_MEMORY = 24 << 20
"""Bytes of all drafts in memory, beyond which even small ones go to files."""

_BLOCK = 1 << 20
"""Bytes written to a file at once."""


class Drafts:
    """The drafts of one export. Their files are written by one thread of their own.

    Args:
        folder: where the files are.
        marked: whether the records get marks, by which people are told apart.
    """

    def __init__(self, folder: Path, *, marked: bool) -> None:
        self.folder = folder
        self.marked = marked
        self.is_closed = False
        self._threads = Threads()
        self._open: set[Draft] = set()

    @property
    def held(self) -> int:
        """Bytes of all drafts that are in memory."""
        return sum(draft.held for draft in list(self._open))

    def new(self) -> Draft:
        """Return an empty draft."""
        draft = Draft(self)
        self._open.add(draft)
        return draft

    async def store(self, draft: Draft) -> None:
        """Write the lines of a draft that are in memory to its file."""
        if not self.is_closed:
            await self._threads.run(draft.store)
            # Here, because the request that brings the page may end without another wait, and its
            # time limit would then cancel what comes after it.
            await deliver_cancellation()

    def forget(self, draft: Draft) -> None:
        """Remove a draft that has been closed."""
        self._open.discard(draft)

    async def aclose(self) -> None:
        """Close every draft."""
        self.is_closed = True
        with anyio.CancelScope(shield=True):
            await self._threads.run(self._close_all)
        self._threads.close()

    def _close_all(self) -> None:
        for draft in list(self._open):
            draft.close()


class Draft:
    """The records of one page as NDJSON. It is the `PageSink` of an export, and its page.

    Attributes:
        count: number of records.
        cursor, next_cursor: as of a `Page`, once the page is known to be whole.
        marks: of its records, or None.
    """

    in_memory = False

    def __init__(self, drafts: Drafts) -> None:
        self.cursor = ""
        self.next_cursor: str | None = None
        self.count = 0
        self.marks = PageMarks() if drafts.marked else None
        self._drafts = drafts
        self._file: Any = None
        self._stored = 0
        self._checksum = 0
        self._lines: list[bytes] = []
        self._error: DecodeError | None = None
        self._failure: OSError | None = None

    @property
    def is_empty(self) -> bool:
        """True if the page has no records."""
        return not self.count

    # ----------------------------------------------------------------------------- while it arrives

    def put(self, records: list[Raw], text: bytes, *, whole: bool = False) -> Slices[None]:
        if self._error is None:
            self._error = check_objects(records, self.count)
        self.count += len(records)
        if self._error is not None or self._failure is not None or not records:
            return
        lines: Iterable[bytes | Raw] = records
        if b"\n" in text or b"\r" in text:
            lines = yield from _on_lines(records)
        block = b"\n".join([*lines, b""])
        self._lines.append(block)
        if self.marks is not None:
            yield from self.marks.put(records)

    def skip(self, text: bytes) -> None:
        pass

    def clear(self) -> None:
        self._lines.clear()
        self.count = self._stored = self._checksum = 0
        self._error = None
        self.marks = PageMarks() if self._drafts.marked else None

    @property
    def is_full(self) -> bool:
        """True if lines must be stored before more are put."""
        held = self.held
        if self._file is not None:
            return held >= _BLOCK
        return held >= _SMALL or (held >= _BLOCK and self._drafts.held >= _MEMORY)

    @property
    def held(self) -> int:
        """Bytes of its lines that are in memory."""
        return sum(map(len, self._lines))

    async def drain(self) -> None:
        """Store the lines that are in memory."""
        await self._drafts.store(self)

    def page(self, cursor: str, next_cursor: str | None, window: tuple[int, int] | None) -> Draft:
        if self._error is not None:
            raise self._error
        self.cursor, self.next_cursor = cursor, next_cursor
        return self

    # ------------------------------------------------------------------------------------- blocking

    def store(self) -> None:
        """Write the lines in memory to the file. Blocking.

        If the disk refuses, the draft takes no more, and whoever reads it gets the error.
        """
        if self._drafts.is_closed or self._failure is not None:
            return
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self._drafts.folder, buffering=0)  # noqa: SIM115
            self._file.seek(self._stored)
            for block in self._lines:
                write_all(self._file.write, block)
                self._stored += len(block)
                self._checksum = checksum(block, self._checksum)
        except OSError as error:
            # Errors of calls on an open file do not name it.
            self._failure = OSError(error.errno, error.strerror, str(self._drafts.folder))
        self._lines.clear()

    @property
    def checksum(self) -> int:
        """The checksum of all lines. Blocking."""
        found = self._checksum
        for block in self._lines:
            found = checksum(block, found)
        return found

    def parts(self) -> tuple[Any, int, bytes]:
        """Return the file or None, the number of bytes in it, and the lines behind them.

        Raises:
            OSError: the disk has refused the lines.
        """
        if self._failure is not None:
            raise self._failure
        return self._file, self._stored, b"".join(self._lines)

    def batches(self) -> Iterator[list[bytes]]:
        """Yield the records in batches, without line breaks. Blocking."""
        file, stored, lines = self.parts()
        rest = b""
        if file is not None:
            file.seek(0)
            while stored > 0:
                block = file.read(min(stored, _BLOCK))
                stored -= len(block)
                batch = (rest + block).split(b"\n")
                rest = batch.pop()
                yield batch
        yield (rest + lines).splitlines()

    def close(self) -> None:
        """Free the memory and the file."""
        self._lines.clear()
        if self._file is not None:
            self._file.close()
        self._drafts.forget(self)


def _on_lines(records: list[Raw]) -> Slices[list[bytes]]:
    lines: list[bytes] = []
    pace = Pace()
    for record in map(bytes, records):
        lines.append(one_line(record))
        if pace.is_over():
            yield
            pace.restart()
    return lines
