"""Keys from standard input, read without blocking the event loop."""

from __future__ import annotations

import asyncio
import codecs
import io
import os
import threading
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import CancelledError
from typing import TypeAlias

from ..errors import ConfigurationError

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
    decoder = io.IncrementalNewlineDecoder(
        codecs.getincrementaldecoder("utf-8-sig")(), translate=True
    )
    chunk, rest, is_empty = b"-", "", True
    try:
        while chunk:
            # Not `sys.stdin`: it decodes by the locale, and the interpreter waits for it at exit.
            chunk = os.read(0, _CHUNK)
            is_empty = is_empty and not chunk
            rest += decoder.decode(chunk, final=not chunk)
            *lines, rest = rest.split("\n")
            if lines:
                yield lines
        if is_empty:
            # Most likely the program at the other end of the pipe has failed.
            yield ConfigurationError("keys: standard input is empty; pipe one key per line into it")
        if rest:
            yield [rest]
        yield []
    except UnicodeDecodeError as error:
        yield ConfigurationError(
            f"keys: standard input is not UTF-8 ({error.reason}); save it as UTF-8"
        )
    except OSError as error:
        yield ConfigurationError(f"keys: standard input cannot be read: {error.strerror}")
