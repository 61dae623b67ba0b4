"""Files that appear under their name completely or not at all."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from ...errors import ExportError, ExportLocked
from ..store.spool import sync_folder

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]

__all__ = ["PartialFile", "check_place", "partial_of", "write_file"]


_FLAGS = os.O_WRONLY | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


def check_place(path: Path, name: str) -> None:
    """Raise `ExportError` unless a file can be written at `path`, called `name` in the message."""
    if path.is_dir():
        raise ExportError(f"{name} cannot be written: a folder has that name")
    try:
        PartialFile(path).discard()
    except OSError as error:
        raise ExportError(f"{name} cannot be written: {error}") from error


class PartialFile:
    """A file named `<name>.partial` until it is put in place. A lock keeps other processes out.

    The lock is needed beside that of the workspace, because two exports to the same file may use
    different workspaces.

    Attributes:
        path: the path until the file is put in place.
        file: the open file, to write to.

    Raises:
        ExportLocked: another export writes to the same file.
        OSError: the file cannot be created.
    """

    def __init__(self, path: Path) -> None:
        self._place = path
        self.path = partial_of(path)
        # Truncated only under the lock: until then the content may be another export's.
        self.file: BinaryIO = os.fdopen(os.open(self.path, _FLAGS, 0o666), "wb")
        try:
            self._lock()
            if os.fstat(self.file.fileno()).st_size:
                self.file.truncate(0)
        except BaseException:
            self.file.close()
            raise

    def _lock(self) -> None:
        if fcntl is None:  # Windows refuses to replace an open file, so that no lock is needed
            return
        locked = False
        with suppress(BlockingIOError, FileNotFoundError):
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The other export may have put the file in place after it was opened here.
            locked = os.path.samestat(os.fstat(self.file.fileno()), self.path.stat())
        if not locked:
            raise ExportLocked(
                f"another export is writing {self._place}; wait for it, stop it, or choose another "
                f"`to`"
            )

    def put_in_place(self) -> None:
        """Make the file durable under its own name.

        Raises:
            OSError: as it comes.
        """
        self.file.flush()
        with suppress(FileNotFoundError):
            # Keep the permissions of the file that is replaced.
            self.path.chmod(stat.S_IMODE(self._place.stat().st_mode))
        os.fsync(self.file.fileno())
        if fcntl is None:
            self.file.close()
        self.path.replace(self._place)
        # Closing releases the lock, which must last until the file has its own name.
        self.file.close()
        sync_folder(self._place.parent)

    def discard(self) -> None:
        """Remove the partial file, unless it has been put in place. Never raises."""
        if self.file.closed:
            return
        if fcntl is None:
            self._close()
        with suppress(OSError):
            # Before closing: once the lock is released, the name may be another export's.
            self.path.unlink(missing_ok=True)
        self._close()

    def _close(self) -> None:
        with suppress(OSError):  # closing flushes, and the disk may be full
            self.file.close()


def partial_of(path: Path) -> Path:
    """Return the path of the file while it is incomplete: beside its place, on the same disk."""
    return path.with_name(f"{path.name}.partial")


def write_file(path: Path, data: Iterable[bytes]) -> None:
    """Write a file completely or not at all. Blocking.

    Raises:
        ExportLocked: another export writes to the same file.
        OSError: the file cannot be written.
    """
    partial = PartialFile(path)
    try:
        partial.file.writelines(data)
        partial.put_in_place()
    except BaseException:
        partial.discard()
        raise
