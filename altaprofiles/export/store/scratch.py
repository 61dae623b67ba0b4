"""A file without a name, of which a process that is killed leaves nothing. Blocking."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from msgspec import Struct

from .spool import checksum, write_all

__all__ = ["Scratch", "Stored"]


class Stored(Struct, frozen=True):
    """The place of some bytes in the file, and their checksum."""

    start: int
    length: int
    checksum: int


class Scratch:
    """Bytes that may be needed later, and can be made anew.

    Args:
        folder: where the file is.

    Raises:
        OSError: the disk refuses.
    """

    def __init__(self, folder: Path) -> None:
        self._file: Any = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
        self._length = 0

    def put(self, data: bytes) -> Stored:
        """Store bytes behind the others.

        Raises:
            OSError: the disk refuses.
        """
        write_all(self._file.write, data)
        stored = Stored(self._length, len(data), checksum(data))
        self._length += len(data)
        return stored

    def get(self, stored: Stored) -> bytes | None:
        """Return bytes as they were stored, or None if the disk has lost or changed them.

        Nothing is stored after that.
        """
        try:
            self._file.seek(stored.start)
            data: bytes = self._file.read(stored.length)
        except OSError:
            return None
        whole = len(data) == stored.length and checksum(data) == stored.checksum
        return data if whole else None

    def close(self) -> None:
        """Free the file."""
        self._file.close()
