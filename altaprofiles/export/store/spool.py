"""Spools: append-only NDJSON files, which hold an export's records until its output is written.

Blocking; one call at a time for each spool.
"""

from __future__ import annotations

import errno
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO, NoReturn

from msgspec import Struct

from ...errors import ExportError
from .journal import Part
from .key_table import Answer

__all__ = [
    "Spool",
    "SpoolDamaged",
    "Whole",
    "checksum",
    "read_answers",
    "read_bytes",
    "read_end",
    "read_lines",
    "sync_folder",
    "write_all",
    "write_durably",
]

# fdatasync syncs the size of a file, too, and skips its timestamps, which do not matter here.
_sync = getattr(os, "fdatasync", os.fsync)

_BLOCK = 8 << 20
"""Bytes that are read at once: a page of the usual size, or many small ones."""


class SpoolDamaged(ExportError):
    """A spool differs from the data written to it. The service can send that data again."""


def checksum(data: bytes | memoryview, before: int = 0) -> int:
    """Return the checksum of `data`, or of all data so far if that of the earlier is `before`.

    A CRC of 32 bits: whatever a disk does to a page, one page in four billion passes unseen. Disks
    do not choose their damage: a longer digest would gain nothing and take five times as long.
    """
    return zlib.crc32(data, before)


def write_all(write: Callable[[memoryview], int], data: bytes) -> None:
    """Write all of `data` by calls that may write a part each, as those on an unbuffered file."""
    rest = memoryview(data)
    while rest:
        rest = rest[write(rest) :]


class Spool:
    """A file that grows by whole writes.

    Args:
        path: the file; created if missing.
        offset: the journalled length, in bytes. Anything after it is cut off.

    Raises:
        SpoolDamaged: the file is shorter than `offset`.
        OSError: the file cannot be opened.
    """

    def __init__(self, path: Path, offset: int) -> None:
        self.offset = offset
        self._path = path
        _separate(path, offset)
        self._file: BinaryIO = os.fdopen(
            os.open(path, os.O_RDWR | os.O_CREAT | _FLAGS, 0o600), "r+b", 0
        )
        try:
            self._check_size()
            self._file.truncate(offset)
            if not offset:
                sync_folder(path.parent)
        except BaseException:
            self._file.close()
            raise

    def _check_size(self) -> None:
        size = os.fstat(self._file.fileno()).st_size
        if size < self.offset:
            _too_short(self._path, size, self.offset)

    def append(self, data: bytes) -> int:
        """Append `data`, wait until it is on the disk, and return the new length.

        Raises:
            OSError: the disk refuses. Another call may append again.
        """
        return self.append_behind(None, 0, data)

    def append_behind(self, file: BinaryIO | None, length: int, data: bytes) -> int:
        """Append the first `length` bytes of `file`, and then `data`; otherwise as `append`."""
        target = self._file.fileno()
        try:
            # An earlier call may have failed half-way, for example on a full disk.
            self._file.seek(self.offset)
            if file is not None:
                _copy(file.fileno(), target, length)
            write_all(partial(os.write, target), data)
            _sync(target)
        except OSError as error:
            # Errors of calls on a file descriptor do not name the file.
            error.filename = str(self._path)
            raise
        self.offset += length + len(data)
        return self.offset

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _separate(path: Path, offset: int) -> None:
    """Give a spool bytes of its own if it has become an output, which has a name of its own."""
    try:
        if path.stat().st_nlink == 1:
            return
    except FileNotFoundError:
        return
    copy = path.with_name(f"copy-{path.name}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _FLAGS
    with path.open("rb") as old, os.fdopen(os.open(copy, flags, 0o600), "wb", 0) as new:
        _copy(old.fileno(), new.fileno(), min(offset, os.fstat(old.fileno()).st_size))
        _sync(new.fileno())
    copy.replace(path)


def _copy(source: int, target: int, length: int) -> None:
    """Copy the first `length` bytes of a file to the present place in another one."""
    os.lseek(source, 0, os.SEEK_SET)
    copied = 0
    # Many systems cannot, each with an error of its own. What keeps both ways from it is met below.
    with suppress(OSError):
        while copied < length and hasattr(os, "copy_file_range"):
            step = os.copy_file_range(source, target, length - copied)
            if not step:
                break
            copied += step
    while copied < length:
        block = os.read(source, min(_COPIED, length - copied))
        if not block:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        copied += len(block)
        write_all(partial(os.write, target), block)


_COPIED = 1 << 20
_FLAGS = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


class Whole(Struct, frozen=True):
    """A spool that holds the rows of an output, and nothing else.

    Attributes:
        path: the spool.
        parts: its parts.
        rows: the number of rows.
    """

    path: Path
    parts: Sequence[Part]
    rows: int

    @property
    def length(self) -> int:
        """Its length, in bytes."""
        return self.parts[-1].end

    def blocks(self) -> Iterator[bytes]:
        """Yield its bytes, as `read_lines` yields lines.

        Raises:
            SpoolDamaged, OSError: as from `read_lines`.
        """
        yield from read_bytes(self.path, self.parts)


def read_bytes(path: Path, parts: Sequence[Part], read: int = 0) -> Iterator[bytes]:
    """Yield the bytes of `parts` behind the first few, as `read_lines` yields lines.

    Args:
        path: the spool.
        parts: its parts.
        read: the number of parts before the first one that is yielded.

    Raises:
        SpoolDamaged, OSError: as from `read_lines`.
    """
    start = parts[read - 1].end if read else 0
    with _reading(path) as file:
        for group in _grouped(parts[read:], start):
            yield from _verified(file, path, start, group)
            start = group[-1].end


def read_lines(path: Path, parts: Iterable[Part], offset: int = 0) -> Iterator[list[bytes]]:
    """Yield the lines of `parts`, without line breaks, in batches of at most some megabytes.

    Lines are yielded only once the checksum of their part has been compared.

    Args:
        path: the spool.
        parts: its parts.
        offset: the number of bytes before the first line that is yielded.

    Raises:
        SpoolDamaged: the file is missing or too short, or a part differs from the data written.
        OSError: the file cannot be read.
    """
    rest = [*parts]
    read = sum(part.end <= offset for part in rest)
    start = rest[read - 1].end if read else 0
    before = offset - start
    with _reading(path) as file:
        for group in _grouped(rest[read:], start):
            for lines in _lines(path, _verified(file, path, start, group)):
                if not before:
                    yield lines
                    continue
                # A part that has been read to its middle is verified as a whole.
                left, before = _behind(lines, before)
                if left:
                    yield left
            start = group[-1].end


def read_end(path: Path, parts: list[Part]) -> None:
    """Check the length of a spool and its last part, which a power failure would have damaged.

    Raises:
        SpoolDamaged: as `read_lines`.
        OSError: the file cannot be read.
    """
    last = parts[-1]
    with _reading(path) as file:
        if (size := os.fstat(file.fileno()).st_size) < last.end:
            _too_short(path, size, last.end)
        _check(file, path, parts[-2].end if len(parts) > 1 else 0, last)


def read_answers(path: Path, answers: Iterable[Answer]) -> Iterator[tuple[Answer, bytes | None]]:
    """Yield each answer with its record, or with None if that is not there as it was written.

    Raises:
        OSError: the file cannot be read.
    """
    try:
        file = path.open("rb", buffering=0)
    except FileNotFoundError:
        yield from ((answer, None) for answer in answers)
        return
    with file:
        for answer in answers:
            yield answer, _read_record(file, answer)


def _read_record(file: BinaryIO, answer: Answer) -> bytes | None:
    length = answer.length or 0
    try:
        file.seek(answer.offset or 0)
        record = file.read(length)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return None
    is_whole = len(record) == length and answer.checksum in (None, checksum(record))
    return record if is_whole else None


@contextmanager
def _reading(path: Path) -> Iterator[BinaryIO]:
    try:
        with path.open("rb", buffering=0) as file:
            yield file
    except FileNotFoundError:
        raise SpoolDamaged(f"{path} is missing") from None
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        raise SpoolDamaged(f"{path} is damaged: its disk cannot read it") from error


def _behind(lines: list[bytes], length: int) -> tuple[list[bytes], int]:
    """Return the lines behind the first `length` bytes, and the bytes left if there are none."""
    for number, line in enumerate(lines):
        if not length:
            return lines[number:], 0
        length -= len(line) + 1
    return [], length


def _grouped(parts: Iterable[Part], start: int) -> Iterator[list[Part]]:
    """Yield the parts in groups, each of one part or of at most `_BLOCK` bytes."""
    group: list[Part] = []
    for part in parts:
        if group and part.end - start > _BLOCK:
            yield group
            start = group[-1].end
            group = []
        group.append(part)
    if group:
        yield group


def _verified(file: BinaryIO, path: Path, start: int, group: list[Part]) -> Iterator[bytes]:
    """Yield the bytes of a group in blocks, once their checksums have been compared."""
    end = group[-1].end
    if end - start > _BLOCK:
        # Read twice instead of held in memory.
        _check(file, path, start, group[0])
        yield from _blocks(file, path, start, end)
        return
    for block in _blocks(file, path, start, end):
        view = memoryview(block)
        at = start
        for part in group:
            _compare(path, at, part, checksum(view[at - start : part.end - start]))
            at = part.end
        yield block


def _check(file: BinaryIO, path: Path, start: int, part: Part) -> None:
    if part.checksum is not None:
        found = 0
        for block in _blocks(file, path, start, part.end):
            found = checksum(block, found)
        _compare(path, start, part, found)


def _compare(path: Path, start: int, part: Part, found: int) -> None:
    if part.checksum not in (None, found):
        raise SpoolDamaged(
            f"{path} is damaged: its bytes from {start:,} to {part.end:,} are not as written"
        )


def _blocks(file: BinaryIO, path: Path, start: int, end: int) -> Iterator[bytes]:
    file.seek(start)
    while start < end:
        wanted = min(_BLOCK, end - start)
        block = file.read(wanted)
        if len(block) < wanted:
            _too_short(path, start + len(block), end)
        start += wanted
        yield block


def _lines(path: Path, blocks: Iterator[bytes]) -> Iterator[list[bytes]]:
    rest = b""
    for block in blocks:
        lines = (rest + block).split(b"\n")
        rest = lines.pop()
        if lines:
            yield lines
    if rest:
        raise SpoolDamaged(f"{path} is damaged: a line has no line break at its end")


def _too_short(path: Path, size: int, expected: int) -> NoReturn:
    raise SpoolDamaged(
        f"{path} has {size:,} bytes where its journal counts {expected:,}: something has "
        f"truncated it"
    )


def write_durably(path: Path, data: bytes) -> None:
    """Write a whole file to the disk. Its name is there after `sync_folder`. Blocking."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Make the creation, renaming and deletion of files in a folder durable."""
    if os.name == "nt":
        return  # Windows cannot open folders
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    except OSError as error:
        # Some network file systems cannot sync folders.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(number)
