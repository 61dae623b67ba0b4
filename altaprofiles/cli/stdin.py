"""Keys that are piped in."""

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
    """Yield each line of standard input that is not blank, as soon as it is there.

    Raises:
        ConfigurationError: it cannot be read, or is not UTF-8.
    """
    loop = asyncio.get_running_loop()
    batches: asyncio.Queue[Batch] = asyncio.Queue(maxsize=2)

    def read() -> None:
        for batch in _batches():
            putting = batches.put(batch)
            try:
                asyncio.run_coroutine_threadsafe(putting, loop).result()
            except (RuntimeError, CancelledError):
                # The loop has ended: nobody wants to know any more.
                putting.close()
                return

    # Nothing ends a read for which nobody writes; a thread of this kind is left behind in it.
    threading.Thread(target=read, daemon=True).start()
    while batch := await batches.get():
        if isinstance(batch, ConfigurationError):
            raise batch
        for line in batch:
            if line.strip():
                yield line


def _batches() -> Iterator[Batch]:
    """Yield what has arrived, some lines at once; at the end an error, or no line."""
    decoder = io.IncrementalNewlineDecoder(
        codecs.getincrementaldecoder("utf-8-sig")(), translate=True
    )
    chunk, rest, anything = b"-", "", False
    try:
        while chunk:
            # Not `sys.stdin`: its encoding is the locale's, and the interpreter waits for it.
            chunk = os.read(0, _CHUNK)
            anything = anything or bool(chunk)
            rest += decoder.decode(chunk, final=not chunk)
            *lines, rest = rest.split("\n")
            if lines:
                yield lines
        if not anything:
            # Whatever should have written there has failed, more likely than not.
            yield ConfigurationError("keys: standard input is empty; pipe a key a line into it")
        if rest:
            yield [rest]
        yield []
    except UnicodeDecodeError as error:
        yield ConfigurationError(
            f"keys: standard input is not UTF-8 ({error.reason}); save it as UTF-8"
        )
    except OSError as error:
        yield ConfigurationError(f"keys: standard input cannot be read: {error.strerror}")
