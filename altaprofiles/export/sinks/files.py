"""Files that appear under their name completely or not at all."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from ...base.paths import check_own_file
from ...errors import ExportError, ExportLocked
from ..store.spool import sync_folder

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]

__all__ = ["PartialFile", "check_place", "partial_of", "write_file"]


_FLAGS = (
    os.O_WRONLY
    | os.O_CREAT
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
    # Another user may have planted a link to some other file, or a pipe, on which opening waits.
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)
)


def check_place(path: Path, name: str) -> None:
    """Raise `ExportError` unless a file can be put at `path`, called `name` in the message."""
    try:
        if path.is_dir():
            raise ExportError(f"{name} cannot be written: a folder has that name")
        partial = PartialFile(path)
        try:
            obstacle = _obstacle(path)
            # Some folders allow files to be created, but neither renamed nor removed.
            partial.remove()
        finally:
            partial.discard()
    except OSError as error:
        raise ExportError(
            f"{name} cannot be written: {error}; choose another `to`, or correct the permissions"
        ) from error
    if obstacle is not None:
        raise ExportError(f"{name} cannot be replaced: {obstacle}")


class PartialFile:
    """A file named `<name>.partial` until it is put in place. A lock keeps other processes out.

    The lock is needed beside that of the workspace, because two exports to the same file may use
    different workspaces.

    Attributes:
        path: the path until the file is put in place.
        file: the open file, to write to.

    Raises:
        ExportLocked: another export writes to the same file.
        OSError: the file cannot be created.
    """

    def __init__(self, path: Path) -> None:
        self._place = path
        self.path = partial_of(path)
        check_own_file(self.path)
        # Truncated only under the lock: until then the content may be another export's.
        self.file: BinaryIO = os.fdopen(os.open(self.path, _FLAGS, 0o666), "wb")
        try:
            self._lock()
            self._empty()
        except BaseException:
            self.file.close()
            raise

    def _empty(self) -> None:
        status = os.fstat(self.file.fileno())
        if status.st_nlink > 1 or not stat.S_ISREG(status.st_mode):
            raise ExportError(
                f"{self.path} is another name (a hard link) of some other file, which would be "
                f"emptied; remove it, or choose another `to`"
            )
        if status.st_size:
            self.file.truncate(0)

    def _lock(self) -> None:
        if fcntl is None:  # Windows refuses to replace an open file, so that no lock is needed
            return
        locked = False
        with suppress(BlockingIOError, FileNotFoundError):
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The other export may have put the file in place after it was opened here.
            locked = os.path.samestat(os.fstat(self.file.fileno()), self.path.lstat())
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
            _keep_access(self.file.fileno(), self._place.lstat())
        os.fsync(self.file.fileno())
        if fcntl is None:
            self.file.close()
        self.path.replace(self._place)
        # Closing releases the lock, which must last until the file has its own name.
        self.file.close()
        sync_folder(self._place.parent)

    def discard(self) -> None:
        """Remove the partial file, unless it has been put in place. Never raises."""
        if self.file.closed:
            return
        with suppress(OSError):
            self.remove()
        self._close()

    def remove(self) -> None:
        """Remove the partial file.

        Raises:
            OSError: the folder does not allow it.
        """
        if fcntl is None:
            self._close()
        # Before closing: once the lock is released, the name may be another export's.
        self.path.unlink(missing_ok=True)
        self._close()

    def _close(self) -> None:
        with suppress(OSError):  # closing flushes, and the disk may be full
            self.file.close()


def _keep_access(number: int, old: os.stat_result) -> None:
    """Give an open file the owner, group and permissions of the file that it replaces.

    Only root can give files away, and others can choose among their own groups.
    """
    if os.name != "posix" or not stat.S_ISREG(old.st_mode):
        return
    new = os.fstat(number)
    mode = stat.S_IMODE(old.st_mode) & 0o777
    with suppress(OSError):
        if new.st_uid != old.st_uid:
            os.fchown(number, old.st_uid, -1)
    try:
        if new.st_gid != old.st_gid:
            os.fchown(number, -1, old.st_gid)
    except OSError:
        # The group is another one, and gets no more than everyone.
        mode &= 0o707 | (mode & 0o007) << 3
    if stat.S_IMODE(new.st_mode) != mode:
        os.fchmod(number, mode)


def _obstacle(path: Path) -> str | None:
    """Return what prevents `path` from being replaced, and a fix; or None.

    Permissions on its folder are not examined.
    """
    try:
        status, folder = path.lstat(), path.parent.stat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISLNK(status.st_mode):
        return "it is not a regular file; remove it, or choose another `to`"
    if _is_mounted(path):
        return (
            "it is a mount point of its own, as a single file mounted into a container is; mount "
            "its folder instead, or choose another `to`"
        )
    if _is_immutable(path):
        return (
            "it is immutable or append-only; run chattr -i -a on it as root, or choose another `to`"
        )
    if (
        os.name == "posix"
        and folder.st_mode & stat.S_ISVTX
        and os.geteuid() not in (0, status.st_uid, folder.st_uid)
    ):
        return (
            f"it belongs to another user ({status.st_uid}), and its folder is sticky, so that only "
            f"its owner can replace it; choose another `to`"
        )
    return None


def _is_mounted(path: Path) -> bool:
    return _mount_of(path) != _mount_of(path.parent)


def _mount_of(path: Path) -> bytes | None:
    """Return the number of the mount that holds `path`; None where the system does not say.

    Unlike the number of the device, it differs even for a file bound from the same disk.
    """
    if not hasattr(os, "O_PATH"):
        return None
    number = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        lines = Path(f"/proc/self/fdinfo/{number}").read_bytes().splitlines()
    except OSError:
        return None
    finally:
        os.close(number)
    return next((line for line in lines if line.startswith(b"mnt_id:")), None)


def _is_immutable(path: Path) -> bool:
    flags = getattr(path.lstat(), "st_flags", 0)  # macOS and BSD
    if flags & (stat.UF_IMMUTABLE | stat.UF_APPEND | stat.SF_IMMUTABLE | stat.SF_APPEND):
        return True
    try:
        # Changes nothing. The system refuses an immutable file before it looks at permissions.
        os.close(os.open(path, _FLAGS & ~os.O_CREAT))
    except OSError as error:
        return error.errno == errno.EPERM
    return False


def partial_of(path: Path) -> Path:
    """Return the path of the file while it is incomplete: beside its place, on the same disk."""
    return path.with_name(f"{path.name}.partial")


def write_file(path: Path, data: Iterable[bytes]) -> None:
    """Write a file completely or not at all. Blocking.

    Raises:
        ExportLocked: another export writes to the same file.
        OSError: the file cannot be written.
    """
    partial = PartialFile(path)
    try:
        partial.file.writelines(data)
        partial.put_in_place()
    except BaseException:
        partial.discard()
        raise
