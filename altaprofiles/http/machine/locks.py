"""Locks on open files, which the system releases when their process ends. Never waits."""

from __future__ import annotations

import os
import random
import sys

__all__ = ["Lock"]

if sys.platform == "win32":  # not tested: no test runs on Windows
    import msvcrt

    _FIRST = 1 << 30  # far behind the content, which could not be read otherwise
    _SHARES = 64

    def _lock(number: int, *, shared: bool) -> tuple[int, int] | None:
        """Lock all of a range, or to share it any byte of it; return the part locked, or None."""
        first, length = _FIRST, _SHARES
        if shared:
            # Such locks cannot be shared. Whoever wants all of the range finds any byte in use.
            first, length = _FIRST + random.randrange(_SHARES), 1  # noqa: S311
        os.lseek(number, first, os.SEEK_SET)
        try:
            msvcrt.locking(number, msvcrt.LK_NBLCK, length)
        except OSError:
            return None
        return first, length

    def _unlock(number: int, locked: tuple[int, int]) -> None:
        os.lseek(number, locked[0], os.SEEK_SET)
        msvcrt.locking(number, msvcrt.LK_UNLCK, locked[1])

else:
    import fcntl

    _EXCLUSIVE = fcntl.LOCK_EX | fcntl.LOCK_NB
    _SHARED = fcntl.LOCK_SH | fcntl.LOCK_NB

    def _lock(number: int, *, shared: bool) -> tuple[int, int] | None:
        try:
            fcntl.flock(number, _SHARED if shared else _EXCLUSIVE)
        except OSError:
            return None
        return 0, 0

    def _unlock(number: int, locked: tuple[int, int]) -> None:
        del locked
        fcntl.flock(number, fcntl.LOCK_UN)


class Lock:
    """A lock on a file, of one holder or shared by several.

    It belongs to the open file: two descriptors of one file exclude each other, even in one
    process. A forked child has the same open file, and must close its descriptor without `drop`.

    Args:
        number: the descriptor of the file.

    Attributes:
        is_held: whether it is locked through this descriptor.
    """

    __slots__ = ("_locked", "is_held", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self.is_held = False
        self._locked = (0, 0)

    def take(self, *, shared: bool = False) -> bool:
        """Lock the file if nobody else has; return whether it is locked now."""
        if not self.is_held and (locked := _lock(self.number, shared=shared)) is not None:
            self._locked, self.is_held = locked, True
        return self.is_held

    def drop(self) -> None:
        """Unlock the file, if it is locked."""
        if self.is_held:
            self.is_held = False
            _unlock(self.number, self._locked)

    def is_free(self) -> bool:
        """Return whether nobody at all has locked the file."""
        if self.is_held or not self.take():
            return False
        self.drop()
        return True

    def close(self) -> None:
        """Close the file, which unlocks it unless another process has inherited it."""
        self.is_held = False
        os.close(self.number)
