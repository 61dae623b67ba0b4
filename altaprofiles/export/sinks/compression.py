"""Compression of files, chosen by the ending of their name. Does no I/O."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from ...base.extras import require, zstd_module

__all__ = ["COMPRESSIONS", "Coder", "check_compression", "coder_of"]


class Coder(Protocol):
    """Compresses one stream of bytes."""

    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


class _Plain:
    def compress(self, data: bytes, /) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


def _gzip() -> Coder:
    # The gzip header that zlib writes holds neither a time nor a file name.
    return zlib.compressobj(6, zlib.DEFLATED, 16 + zlib.MAX_WBITS)


def _zstd() -> Coder:
    zstd = zstd_module()
    # Without a checksum, damage on a disk would be decompressed into different text.
    coder: Coder = zstd.ZstdCompressor(options={zstd.CompressionParameter.checksum_flag: 1})
    return coder


COMPRESSIONS: dict[str, Callable[[], Coder]] = {".gz": _gzip, ".zst": _zstd}
"""A function that makes a coder, by file ending."""


def coder_of(path: Path) -> Coder:
    """Return a coder for the compression that the ending of `path` names, if it names one."""
    return COMPRESSIONS.get(path.suffix.lower(), _Plain)()


def check_compression(path: Path, name: str) -> None:
    """Raise `ConfigurationError` if the module that compresses `path` is not installed.

    Args:
        path: the file.
        name: the file in the message.
    """
    if path.suffix.lower() == ".zst":
        require("zstd", what=f"to: {name!r}")
