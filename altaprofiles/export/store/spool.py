"""Spools: append-only NDJSON files, which hold an export's records until its output is written.

Blocking; one call at a time for each spool.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ...errors import ExportError

__all__ = ["Spool", "read_lines", "sync_folder"]

# fdatasync syncs the size of a file, too, and skips its timestamps, which do not matter here.
_sync = getattr(os, "fdatasync", os.fsync)

_BLOCK = 4 << 20


class Spool:
    """A file that grows by whole writes.

    Args:
        path: the file; created if missing.
        offset: the journalled length, in bytes. Anything after it is cut off.

    Raises:
        ExportError: the file is shorter than `offset`.
        OSError: the file cannot be opened.
    """

    def __init__(self, path: Path, offset: int) -> None:
        self.offset = offset
        self._path = path
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
            raise ExportError(
                f"{self._path} has {size:,} bytes where its journal counts {self.offset:,}: "
                f"something has truncated it; restore the file, or discard the export with "
                f"`resume=False`"
            )

    def append(self, data: bytes) -> int:
        """Append `data`, wait until it is on the disk, and return the new length.

        Raises:
            OSError: the disk refuses. Another call may append again.
        """
        # An earlier call may have failed half-way, for example on a full disk.
        self._file.seek(self.offset)
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._file.fileno(), rest) :]
            _sync(self._file.fileno())
        except OSError as error:
            # Errors of calls on a file descriptor do not name the file.
            raise OSError(error.errno, error.strerror, str(self._path)) from error
        self.offset += len(data)
        return self.offset

    def close(self) -> None:
        """Close the file."""
        self._file.close()


_FLAGS = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


def read_lines(path: Path, end: int) -> Iterator[list[bytes]]:
    """Yield the lines of the first `end` bytes, without line breaks, in batches of some megabytes.

    Raises:
        ExportError: the file is shorter than `end`, or does not end with a line break there.
        OSError: the file cannot be read.
    """
    with path.open("rb", buffering=0) as file:
        rest = b""
        left = end
        while left:
            block = file.read(min(_BLOCK, left))
            if not block:
                raise ExportError(f"{path} is {left:,} bytes shorter than its journal counts")
            left -= len(block)
            lines = (rest + block).split(b"\n")
            rest = lines.pop()
            if lines:
                yield lines
        if rest:
            raise ExportError(f"{path} has no line break at its end, byte {end:,}")


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
