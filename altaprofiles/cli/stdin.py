"""Keys from standard input, read without blocking the event loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from ..errors import InvalidArgument
from ..export.key_lines import split_lines
from ..export.threads import read_ahead

__all__ = ["SharedKeys", "keys_from_stdin"]

_CHUNK = 65536


async def keys_from_stdin() -> AsyncGenerator[str, None]:
    """Yield each line of standard input that is not blank, as soon as it arrives.

    Raises:
        ConfigurationError: standard input is empty, unreadable or not UTF-8.
    """
    batches = read_ahead(_batches())
    try:
        async for batch in batches:
            for line in batch:
                if line.strip():
                    yield line
    finally:
        await batches.aclose()


class SharedKeys:
    """Keys from standard input for several readers. They are kept in a file of this user."""

    def __init__(self) -> None:
        # Removed when this object is, or when the process ends.
        self._folder = TemporaryDirectory(prefix="altaprofiles-")
        self._file = Path(self._folder.name) / "keys"
        self._is_read = False
        self._lock = asyncio.Lock()

    async def read(self) -> Iterator[str]:
        """Return an iterator over all keys, once all have arrived.

        Raises:
            ConfigurationError: as from `keys_from_stdin`.
        """
        async with self._lock:
            if not self._is_read:
                with self._file.open("w", encoding="utf-8", newline="\n") as file:
                    async for key in keys_from_stdin():
                        file.write(f"{key}\n")
                self._is_read = True
        return self._kept()

    def _kept(self) -> Iterator[str]:
        with self._file.open(encoding="utf-8", newline="\n") as file:
            for line in file:
                yield line.removesuffix("\n")


def _batches() -> Iterator[list[str]]:
    """Yield lines in batches as they arrive."""
    is_empty = True
    # Not `sys.stdin`: it decodes by the locale, and the interpreter waits for it at exit.
    pieces = iter(lambda: os.read(0, _CHUNK), b"")
    try:
        for lines in split_lines(pieces, "standard input"):
            is_empty = False
            # A mark in the middle is left over from files that were joined.
            yield [line.rstrip("\r\n").removeprefix("\ufeff") for line in lines]
    except OSError as error:
        raise InvalidArgument(f"keys: standard input cannot be read: {error.strerror}") from None
    if is_empty:
        # Most likely the program at the other end of the pipe has failed.
        raise InvalidArgument("keys: standard input is empty; pipe one key per line into it")
