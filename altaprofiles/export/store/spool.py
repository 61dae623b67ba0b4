"""Spools: append-only files of NDJSON, in which an export gathers before it is put together.

Blocking; one call at a time for each.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ...errors import ExportError

__all__ = ["Spool", "read_lines", "sync_folder"]

# The size of a file is synced with it, and its times of access need not be.
_sync = getattr(os, "fdatasync", os.fsync)

_BLOCK = 4 << 20


class Spool:
    """One file that grows.

    Args:
        path: the file; made when missing.
        offset: how much of it counts. What stands behind was never journalled, and is cut off.

    Raises:
        ExportError: the file is shorter than that.
        OSError: it cannot be opened.
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
                f"something has cut it short; restore the file, or discard the export with "
                f"`resume=False`"
            )

    def append(self, data: bytes) -> int:
        """Write `data` behind what is there, wait until it is on the disk, return the new end."""
        # A try before may have ended half-way, as on a full disk, and be made good by another.
        self._file.seek(self.offset)
        left = memoryview(data)
        try:
            while left:
                left = left[os.write(self._file.fileno(), left) :]
            _sync(self._file.fileno())
        except OSError as error:
            # The system call does not know the name.
            raise OSError(error.errno, error.strerror, str(self._path)) from error
        self.offset += len(data)
        return self.offset

    def close(self) -> None:
        """Close the file."""
        self._file.close()


_FLAGS = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


def read_lines(path: Path, end: int) -> Iterator[list[bytes]]:
    """Yield the lines of the first `end` bytes, without their breaks, some megabytes at once."""
    with path.open("rb", buffering=0) as file:
        rest = b""
        left = end
        while left:
            block = file.read(min(_BLOCK, left))
            if not block:
                raise ExportError(f"{path} ends {left:,} bytes before its journal says it does")
            left -= len(block)
            lines = (rest + block).split(b"\n")
            rest = lines.pop()
            if lines:
                yield lines
        if rest:
            raise ExportError(f"{path} does not end with the end of a line at {end:,}")


def sync_folder(path: Path) -> None:
    """Make durable that files were made, renamed or deleted in a folder."""
    if os.name == "nt":
        return  # its folders cannot be opened
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    except OSError as error:
        # Some network file systems do not do that to folders.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(number)
