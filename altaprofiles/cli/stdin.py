"""Keys from standard input, read without blocking the event loop."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import CancelledError
from typing import TypeAlias

from ..errors import ConfigurationError
from ..export.key_lines import split_lines

__all__ = ["keys_from_stdin"]

_CHUNK = 65536

Batch: TypeAlias = list[str] | ConfigurationError


async def keys_from_stdin() -> AsyncGenerator[str, None]:
    """Yield each line of standard input that is not blank, as soon as it arrives.

    Raises:
        ConfigurationError: standard input is empty, unreadable or not UTF-8.
    """
    loop = asyncio.get_running_loop()
    batches: asyncio.Queue[Batch] = asyncio.Queue(maxsize=2)

    def read() -> None:
        for batch in _batches():
            putting = batches.put(batch)
            try:
                asyncio.run_coroutine_threadsafe(putting, loop).result()
            except (RuntimeError, CancelledError):
                # The loop has ended, and with it the consumer.
                putting.close()
                return

    # A daemon, because nothing can interrupt a read of a pipe to which nobody writes.
    threading.Thread(target=read, daemon=True).start()
    while batch := await batches.get():
        if isinstance(batch, ConfigurationError):
            raise batch
        for line in batch:
            if line.strip():
                yield line


def _batches() -> Iterator[Batch]:
    """Yield lines in batches as they arrive; an empty batch, or an error, is the last item."""
    is_empty = True
    try:
        # Not `sys.stdin`: it decodes by the locale, and the interpreter waits for it at exit.
        pieces = iter(lambda: os.read(0, _CHUNK), b"")
        for lines in split_lines(pieces, "standard input"):
            is_empty = False
            # A mark in the middle is left over from files that were joined.
            yield [line.rstrip("\r\n").removeprefix("\ufeff") for line in lines]
        if is_empty:
            # Most likely the program at the other end of the pipe has failed.
            yield ConfigurationError("keys: standard input is empty; pipe one key per line into it")
        yield []
    except ConfigurationError as error:
        yield error
    except OSError as error:
        yield ConfigurationError(f"keys: standard input cannot be read: {error.strerror}")
