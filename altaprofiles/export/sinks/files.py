"""A file that appears whole or not at all, and its compression."""

from __future__ import annotations

import os
import stat
import zlib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Protocol

from ...base.extras import zstd_module
from ...errors import ExportError, ExportLocked
from ..store.spool import sync_folder
from .target import Target

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]

__all__ = ["ByteStream", "FileTarget", "PartialFile", "check_place", "stream_to", "write_file"]


_FLAGS = os.O_WRONLY | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


class FileTarget(Target, frozen=True, kw_only=True):
    """A target that is one file, which is replaced when the export is complete."""

    path: Path

    def check(self) -> None:
        check_place(self.path, self.name)


def check_place(path: Path, name: str) -> None:
    """Raise `ExportError` unless a file can be put at `path`, which a person knows as `name`."""
    if path.is_dir():
        raise ExportError(f"{name} cannot be written: there is a folder of that name")
    try:
        PartialFile(path).discard()
    except OSError as error:
        raise ExportError(f"{name} cannot be written: {error}") from error


class PartialFile:
    """A file under `<name>.partial` until it is put in place. Nobody else writes to it.

    Attributes:
        path: where it is until then.
        file: what to write to.

    Raises:
        ExportLocked: somebody else does. The lock of the workspace does not tell, as two exports to
            the same file may gather in different folders.
        OSError: it cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self._place = path
        self.path = partial_of(path)
        # Not emptied before it is known whose it is.
        self.file: BinaryIO = os.fdopen(os.open(self.path, _FLAGS, 0o666), "wb")
        try:
            self._lock()
            if os.fstat(self.file.fileno()).st_size:
                self.file.truncate(0)
        except BaseException:
            self.file.close()
            raise

    def _lock(self) -> None:
        if fcntl is None:  # Windows does not let a file be replaced that somebody has open
            return
        locked = False
        with suppress(BlockingIOError, FileNotFoundError):
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Else it was put in place between being opened and being locked.
            locked = os.path.samestat(os.fstat(self.file.fileno()), self.path.stat())
        if not locked:
            raise ExportLocked(
                f"another export is writing {self._place}; wait for it, stop it, or choose another "
                f"`to`"
            )

    def put_in_place(self) -> None:
        """Make the file durable under its own name.

        Raises:
            OSError: as it comes.
        """
        self.file.flush()
        with suppress(FileNotFoundError):
            # Whoever could not read what was there cannot read what replaces it.
            self.path.chmod(stat.S_IMODE(self._place.stat().st_mode))
        os.fsync(self.file.fileno())
        if fcntl is None:
            self.file.close()
        self.path.replace(self._place)
        # Now, as it has been locked until here.
        self.file.close()
        sync_folder(self._place.parent)

    def discard(self) -> None:
        """Remove the partial file, unless it has been put in place. Never raises."""
        if self.file.closed:
            return
        if fcntl is None:
            self._close()
        with suppress(OSError):
            # Before it is closed: until then nobody else's has that name.
            self.path.unlink(missing_ok=True)
        self._close()

    def _close(self) -> None:
        with suppress(OSError):  # what is not written yet may not fit
            self.file.close()


def partial_of(path: Path) -> Path:
    """Return where the file is until it is complete: beside its place, on the same disk."""
    return path.with_name(f"{path.name}.partial")


class Coder(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


class _Plain:
    def compress(self, data: bytes, /) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


# What a compressor makes of some bytes may depend on where the calls that bring them end.
_PIECE = 1 << 20


class ByteStream:
    """Writes bytes to a partial file through a compressor, the same bytes however they come."""

    def __init__(self, path: Path, coder: Coder) -> None:
        self._partial = PartialFile(path)
        self._coder = coder
        self._gathered = bytearray()

    def write(self, data: bytes) -> None:
        gathered = self._gathered
        gathered += data
        whole = len(gathered) - len(gathered) % _PIECE
        if whole:
            for start in range(0, whole, _PIECE):
                piece = bytes(gathered[start : start + _PIECE])
                self._partial.file.write(self._coder.compress(piece))
            del gathered[:whole]

    def close(self) -> None:
        self._partial.file.write(self._coder.compress(bytes(self._gathered)))
        self._partial.file.write(self._coder.flush())
        self._partial.put_in_place()

    def abort(self) -> None:
        self._partial.discard()


def stream_to(path: Path) -> ByteStream:
    """Open a stream to `path`, compressed as its ending says."""
    return ByteStream(path, _coder_of(path))


def _coder_of(path: Path) -> Coder:
    ending = path.suffix.lower()
    if ending == ".gz":
        # zlib's own gzip header has neither a time nor a file name in it.
        return zlib.compressobj(6, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    if ending == ".zst":
        zstd = zstd_module()
        # Without a checksum, damage on a disk would come out as other text.
        checked = {zstd.CompressionParameter.checksum_flag: 1}
        coder: Coder = zstd.ZstdCompressor(options=checked)
        return coder
    return _Plain()


def write_file(path: Path, data: Iterable[bytes]) -> None:
    """Write a file, all of it or nothing. Blocking."""
    partial = PartialFile(path)
    try:
        partial.file.writelines(data)
        partial.put_in_place()
    except BaseException:
        partial.discard()
        raise
