"""Keys from standard input, read without blocking the event loop."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from ..errors import InvalidArgument
from ..export.key_lines import split_lines
from ..export.keys import HEAD, columns_in
from ..export.threads import read_ahead

__all__ = ["KeptKeys", "SharedKeys", "StdinKeys"]

logger = logging.getLogger("altaprofiles")

_CHUNK = 65536

_KEPT = 10_000
"""Keys whose lines are kept: more than are read ahead of the one that is looked at."""


class _Lines:
    """The lines of keys that have been read last."""

    def __init__(self) -> None:
        self._numbers: deque[int] = deque(maxlen=_KEPT)
        self._read = 0

    def put(self, number: int) -> None:
        self._numbers.append(number)
        self._read += 1

    def line_of(self, index: int) -> int:
        """Return the number of the line of a key that has just been read."""
        return self._numbers[index - self._read]

    def place_of(self, index: int) -> str:
        """Return the place of a key that has just been read, in words."""
        is_kept = index >= self._read - len(self._numbers)
        return f"{f'line {self.line_of(index)}' if is_kept else 'a line'} of standard input"


class StdinKeys(_Lines):
    """Each line of standard input that is not blank, as soon as it arrives.

    Raises:
        ConfigurationError: standard input is empty, unreadable or not UTF-8.
    """

    async def __aiter__(self) -> AsyncGenerator[str, None]:
        number, head = 0, list[str]()
        batches = read_ahead(_batches())
        try:
            async for batch in batches:
                for line in batch:
                    number += 1
                    if number <= HEAD:
                        head.append(line)
                    if number == HEAD:
                        _advise_on_columns(head)
                    if line.strip():
                        self.put(number)
                        yield line
            if number < HEAD:
                _advise_on_columns(head)
        finally:
            await batches.aclose()


def _advise_on_columns(lines: Iterable[str]) -> None:
    if (words := columns_in(lines)) is not None:
        logger.warning(
            "standard input seems to have columns%s, and is read as text with one key a line; if "
            "it has, write it into a .csv file, and pass its path, and --column",
            words,
        )


class SharedKeys:
    """Keys from standard input for several readers. They are kept in a file of this user."""

    def __init__(self) -> None:
        # Removed when this object is, or when the process ends.
        self._folder = TemporaryDirectory(prefix="altaprofiles-")
        self._file = Path(self._folder.name) / "keys"
        self._is_read = False
        self._lock = asyncio.Lock()

    async def read(self) -> KeptKeys:
        """Return all keys, once all have arrived.

        Raises:
            ConfigurationError: as from `StdinKeys`.
        """
        async with self._lock:
            if not self._is_read:
                with self._file.open("w", encoding="utf-8", newline="\n") as file:
                    keys, index = StdinKeys(), 0
                    async for key in keys:
                        file.write(f"{keys.line_of(index)}\t{key}\n")
                        index += 1
                self._is_read = True
        return KeptKeys(self._file)


class KeptKeys(_Lines):
    """Keys that have been read from standard input.

    Args:
        file: has a line for each, with the number of its line there.
    """

    def __init__(self, file: Path) -> None:
        super().__init__()
        self._file = file

    def __iter__(self) -> Iterator[str]:
        with self._file.open(encoding="utf-8", newline="\n") as file:
            for line in file:
                number, _, key = line.removesuffix("\n").partition("\t")
                self.put(int(number))
                yield key


_TO_UTF_8 = (
    "save it as UTF-8, or, if it is Windows-1252 (as Excel's plain CSV), pipe it through: iconv "
    "-f WINDOWS-1252 -t UTF-8"
)


def _batches() -> Iterator[list[str]]:
    """Yield lines in batches as they arrive."""
    is_empty = True
    # Not `sys.stdin`: it decodes by the locale, and the interpreter waits for it at exit.
    pieces = iter(lambda: os.read(0, _CHUNK), b"")
    try:
        for lines in split_lines(pieces, "standard input", lambda: _TO_UTF_8):
            is_empty = False
            # A mark in the middle is left over from files that were joined.
            yield [line.rstrip("\r\n").removeprefix("\ufeff") for line in lines]
    except OSError as error:
        raise InvalidArgument(f"keys: standard input cannot be read: {error.strerror}") from None
    if is_empty:
        # Most likely the program at the other end of the pipe has failed.
        raise InvalidArgument("keys: standard input is empty; pipe one key per line into it")
