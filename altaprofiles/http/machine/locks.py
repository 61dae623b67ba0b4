"""Locks on open files, which the system releases when their process ends. Never waits."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

__all__ = ["Lock", "replace"]

if sys.platform == "win32":  # not tested: no test runs on Windows
    import msvcrt
    import random

    _EXCLUSIVE, _SHARED, _UNLOCK = range(3)
    _FIRST = 1 << 30  # far behind the content, which could not be read otherwise
    _SHARES = 64
    _locked: dict[int, tuple[int, int]] = {}

    def _flock(number: int, operation: int) -> None:
        """Lock or unlock all of a range of bytes, or to share it any byte of it."""
        if operation == _UNLOCK:
            first, length = _locked.pop(number)
            os.lseek(number, first, os.SEEK_SET)
            msvcrt.locking(number, msvcrt.LK_UNLCK, length)
            return
        first, length = _FIRST, _SHARES
        if operation == _SHARED:
            # Such locks cannot be shared. A process that wants all of the range is refused all the
            # same.
            first, length = _FIRST + random.randrange(_SHARES), 1  # noqa: S311
        os.lseek(number, first, os.SEEK_SET)
        msvcrt.locking(number, msvcrt.LK_NBLCK, length)
        _locked[number] = first, length

else:
    import fcntl
    from fcntl import flock as _flock

    _EXCLUSIVE = fcntl.LOCK_EX | fcntl.LOCK_NB
    _SHARED = fcntl.LOCK_SH | fcntl.LOCK_NB
    _UNLOCK = fcntl.LOCK_UN


class Lock:
    """A lock on a file, of one holder or shared by several.

    It belongs to the open file: two descriptors of one file exclude each other, even in one
    process. A forked child has the same open file, and must close its descriptor without `drop`.

    Args:
        number: the descriptor of the file.

    Attributes:
        is_held: whether it is locked through this descriptor.
    """

    __slots__ = ("is_held", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self.is_held = False

    def take(self, *, shared: bool = False) -> bool:
        """Lock the file if nobody else has; return whether it is locked now."""
        if self.is_held:
            return True
        try:
            _flock(self.number, _SHARED if shared else _EXCLUSIVE)
        except OSError:
            return False
        self.is_held = True
        return True

    def drop(self) -> None:
        """Unlock the file, if it is locked."""
        if self.is_held:
            self.is_held = False
            _flock(self.number, _UNLOCK)

    def is_free(self) -> bool:
        """Return whether nobody at all has locked the file."""
        if self.is_held:
            return False
        try:
            _flock(self.number, _EXCLUSIVE)
        except OSError:
            return False
        _flock(self.number, _UNLOCK)
        return True

    def read(self, length: int) -> bytes:
        """Return the beginning of the file, whoever holds it; nothing if it cannot be read."""
        try:
            if hasattr(os, "pread"):
                return os.pread(self.number, length, 0)
            os.lseek(self.number, 0, os.SEEK_SET)
            return os.read(self.number, length)
        except OSError:
            return b""

    def write(self, data: bytes) -> None:
        """Replace the beginning of the file, as far as there is space on the disk."""
        with suppress(OSError):
            if hasattr(os, "pwrite"):
                os.pwrite(self.number, data, 0)
            else:
                os.lseek(self.number, 0, os.SEEK_SET)
                os.write(self.number, data)

    def move(self, number: int) -> None:
        """Use another open file from now on, whose lock is taken if this one's is held.

        Afterwards, `is_held` is False if another process has that lock.
        """
        replace(self.number, number)
        if self.is_held:
            self.is_held = False
            self.take()

    def close(self) -> None:
        """Close the file, which unlocks it unless another process has inherited it."""
        self.is_held = False
        os.close(self.number)


def replace(number: int, by: int) -> None:
    """Let a descriptor be of the open file of another one, which is closed."""
    try:
        os.dup2(by, number, inheritable=False)
    finally:
        os.close(by)
