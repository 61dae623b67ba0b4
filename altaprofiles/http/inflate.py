"""Compressed bodies: the codings to offer, and inflating piece by piece.

Uses the fastest backend installed: isal before zlib for gzip, and zstd where Python or
`backports.zstd` provides it. aiohttp could inflate as well, but it has one backend for the whole
process and does not report how much comes out at once.
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
    """The data does not match its coding."""


class Inflater:
    """Inflates one body.

    Args:
        coding: one of `codings()`.
    """

    def __init__(self, coding: str) -> None:
        self._new = codings()[coding]
        # gzip allows zeros behind the last member. Other bytes may be those of a damaged member, so
        # that they are an error.
        self._padding = b"\0" if coding == "gzip" else b""
        self._decompressor = self._new()

    @property
    def complete(self) -> bool:
        """True if the data fed so far is a complete body."""
        return bool(self._decompressor.eof)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the part of the body that `data` holds, in pieces of at most 1 MiB.

        Raises:
            Garbled: `data` cannot be inflated.
        """
        more, members = True, 0
        while data or more:
            if self._decompressor.eof:
                data = data.lstrip(self._padding)
                if not data:
                    return
                # Each member copies all data behind it, so the time grows with their square.
                if members == _MEMBERS:
                    raise Garbled(f"over {_MEMBERS} compressed members in {len(data)} bytes")
                members += 1
                self._decompressor = self._new()
            try:
                piece = self._decompressor.decompress(data, _PIECE)
            except Exception as error:  # each backend has its own class, and they share no base
                raise Garbled(str(error)) from None
            data, more = self._left(piece)
            if piece:
                yield piece

    def _left(self, piece: bytes) -> tuple[bytes, bool]:
        """Return the input still to be fed, and whether output may be pending."""
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
    """Return a factory of decompressors for each coding, the preferred one first."""
    zstd = _zstd()
    return {**({} if zstd is None else {"zstd": zstd}), "gzip": _gzip()}
