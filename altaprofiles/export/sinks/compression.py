"""Compression of files, chosen by the ending of their name. Does no I/O."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from ...base.extras import require, zstd_module
from .gzip_pieces import GzipWriter, StoredPieces

__all__ = ["COMPRESSIONS", "Writer", "check_compression", "is_gzip", "writer_of"]


class Writer(Protocol):
    """Compresses one stream of bytes."""

    def write(self, data: bytes, /) -> None:
        """Add bytes."""
        ...

    def finish(self) -> None:
        """Write all that is left."""
        ...

    def abort(self) -> None:
        """Stop. Never raises."""
        ...


class _Plain:
    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write

    def write(self, data: bytes) -> None:
        self._write(data)

    def finish(self) -> None:
        pass

    def abort(self) -> None:
        pass


_PIECE = 1 << 20
"""Bytes in each call of the compressor, whose output may depend on where calls end."""


class _Zstd(_Plain):
    def __init__(self, write: Callable[[bytes], object]) -> None:
        super().__init__(write)
        zstd = zstd_module()
        # Without a checksum, damage on a disk would be decompressed into different text.
        options = {zstd.CompressionParameter.checksum_flag: 1}
        self._coder = zstd.ZstdCompressor(options=options)
        self._gathered = bytearray()

    def write(self, data: bytes) -> None:
        gathered = self._gathered
        gathered += data
        whole = len(gathered) - len(gathered) % _PIECE
        if whole:
            for start in range(0, whole, _PIECE):
                piece = bytes(gathered[start : start + _PIECE])
                self._write(self._coder.compress(piece))
            del gathered[:whole]

    def finish(self) -> None:
        self._write(self._coder.compress(bytes(self._gathered)))
        self._write(self._coder.flush())


COMPRESSIONS = (".gz", ".zst")
"""The file endings of compressions."""


def writer_of(
    path: Path, write: Callable[[bytes], object], stored: StoredPieces | None = None
) -> Writer:
    """Return a writer for the compression that the ending of `path` names, if it names one.

    Args:
        path: the file.
        write: takes the bytes of the file.
        stored: pieces that are compressed already, for gzip.
    """
    if is_gzip(path):
        return GzipWriter(write, stored)
    return _Zstd(write) if path.suffix.lower() == ".zst" else _Plain(write)


def is_gzip(path: Path) -> bool:
    """Return whether the ending of `path` names gzip."""
    return path.suffix.lower() == ".gz"


def check_compression(path: Path, name: str) -> None:
    """Raise `ConfigurationError` if the module that compresses `path` is not installed.

    Args:
        path: the file.
        name: the file in the message.
    """
    if path.suffix.lower() == ".zst":
        require("zstd", what=f"to: {name!r}")
