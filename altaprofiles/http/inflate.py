"""Compressed bodies: which codings to offer, and inflating them piece by piece.

Takes the fastest backend that is installed: isal before zlib for gzip, and zstd where Python or
`backports.zstd` has it. aiohttp could inflate, too, but it keeps one backend for the whole process
and does not say how much comes out at once.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

from ..base.extras import zstd_module

__all__ = [
    "Garbled",
    "Inflater",
    "codings",
]

_PIECE = 1 << 20
_MEMBERS = 1024


class Garbled(Exception):
    """What arrived is not what its coding says."""


class Inflater:
    """Inflates one body.

    Args:
        coding: one of `codings()`.
    """

    def __init__(self, coding: str) -> None:
        self._new = codings()[coding]
        self._decompressor = self._new()

    @property
    def complete(self) -> bool:
        """Whether what was fed so far is a whole body."""
        return bool(self._decompressor.eof)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what `data` adds to the body, at most a MiB at once.

        Raises:
            Garbled: it cannot be inflated.
        """
        more, members = True, 0
        while data or more:
            if self._decompressor.eof:
                if not data:
                    return
                # Each copies what follows it, so that very many small ones would take for ever.
                if members == _MEMBERS:
                    raise Garbled(f"over {_MEMBERS} compressed members in {len(data)} bytes")
                members += 1
                self._decompressor = self._new()
            try:
                piece = self._decompressor.decompress(data, _PIECE)
            except Exception as error:  # each backend has its own, and they share no base
                raise Garbled(str(error)) from None
            data, more = self._left(piece)
            if piece:
                yield piece

    def _left(self, piece: bytes) -> tuple[bytes, bool]:
        """Return input that is still to be fed, and whether output may be waiting inside."""
        decompressor = self._decompressor
        if decompressor.eof:
            return decompressor.unused_data, False
        if hasattr(decompressor, "unconsumed_tail"):
            return decompressor.unconsumed_tail, len(piece) == _PIECE
        return b"", not decompressor.needs_input


def _gzip() -> Callable[[], Any]:
    with_header = 16 + zlib.MAX_WBITS
    try:
        from isal import isal_zlib
    except ImportError:
        return lambda: zlib.decompressobj(with_header)
    return lambda: isal_zlib.decompressobj(with_header)


def _zstd() -> Callable[[], Any] | None:
    try:
        decompressor: Callable[[], Any] = zstd_module().ZstdDecompressor
    except ImportError:
        return None
    return decompressor


@cache
def codings() -> Mapping[str, Callable[[], Any]]:
    """Return what makes a decompressor, by coding, the one to prefer first."""
    zstd = _zstd()
    return {**({} if zstd is None else {"zstd": zstd}), "gzip": _gzip()}
