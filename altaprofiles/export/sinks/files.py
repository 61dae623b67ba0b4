"""Files that appear under their name completely or not at all."""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from ...base.paths import (
    OTHER_TO,
    check_own_file,
    is_own,
    remove_probe,
    status_of_new_file,
)
from ...errors import ExportError, ExportLocked
from ..store.spool import sync_folder
from ..store.workspace import naming_full_disk
from .obstacles import obstacle

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "PartialFile",
    "check_place",
    "check_same_file",
    "open_same_file",
    "partial_of",
    "set_access",
    "write_file",
]

logger = logging.getLogger("altaprofiles")

_SAFE = (
    getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
    # Another user may have planted a link to some other file, or a pipe, on which opening waits.
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)
)


def check_place(
    path: Path, name: str, partial: Path | None = None, *, other: str = OTHER_TO
) -> None:
    """Raise `ExportError` unless a file can be put at `path`, called `name` in the message.

    Args:
        path, partial, other: as for `PartialFile`.
        name: the output.
    """
    try:
        if path.is_dir():
            raise ExportError(f"{name} cannot be written: a folder has that name")
        trial = PartialFile(path, partial, other=other)
        remove_probe(path.parent)
        try:
            fault = obstacle(path, other)
            # Some folders allow files to be created, but neither renamed nor removed.
            trial.remove()
        finally:
            trial.discard()
    except OSError as error:
        raise ExportError(
            f"{name} cannot be written: {error}; choose {other}, or correct the permissions"
        ) from error
    if fault is not None:
        raise ExportError(f"{name} cannot be replaced: {fault}")


class PartialFile:
    """A file with another name until it is put in place. A lock keeps other processes out.

    The lock is needed beside that of the workspace, because two exports to the same file may use
    different workspaces. Until the file is put in place, no other user may read it.

    Args:
        path: its place.
        partial: its path until then, on the same disk; by default `<path>.partial`.
        other: what the caller may choose instead, for messages.

    Attributes:
        path: the path until the file is put in place.
        file: the open file, to write to.

    Raises:
        ExportLocked: another export writes to the same file.
        OSError: the file cannot be created.
    """

    def __init__(self, path: Path, partial: Path | None = None, *, other: str = OTHER_TO) -> None:
        self._place = path
        self._other = other
        self.path = partial or partial_of(path)
        check_own_file(self.path, other)
        # Truncated only under the lock: until then the content may be another export's.
        self.file: BinaryIO = os.fdopen(
            os.open(self.path, os.O_RDWR | os.O_CREAT | _SAFE, 0o600), "wb"
        )
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
                f"emptied; remove it, or choose {self._other}"
            )
        if status.st_size:
            self.file.truncate(0)
        if os.name == "posix" and status.st_mode & 0o077:
            with suppress(OSError):
                os.fchmod(self.file.fileno(), 0o600)

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
                f"another export is writing {self._place}; wait for it, stop it, or choose "
                f"{self._other}"
            )

    def put_in_place(
        self, *, only_own: bool = False, then: Callable[[], None] | None = None
    ) -> BinaryIO:
        """Make the file durable under its own name.

        It gets the owner, group and permissions of the file that it replaces, or those of a new
        file.

        Args:
            only_own: whether a file of another user is not replaced in this way, but by a new one.
            then: called as soon as the file has its name, before that is durable.

        Returns:
            The file, open for reading at its start, whatever takes its place later.

        Raises:
            ExportError: another file has taken the place of the partial one.
            OSError: as it comes.
        """
        self.file.flush()
        set_access(self.file.fileno(), self._place, only_own=only_own)
        os.fsync(self.file.fileno())
        check_same_file(self.path, os.fstat(self.file.fileno()))
        if fcntl is None:
            self.file.close()
            self.path.replace(self._place)
            if then is not None:
                then()
            return self._place.open("rb", buffering=0)
        self.path.replace(self._place)
        file = os.fdopen(os.dup(self.file.fileno()), "rb", 0)
        try:
            if then is not None:
                then()
            # Not before the file has its own name: without the lock, the other is anybody's.
            self.file.close()
            file.seek(0)
            sync_folder(self._place.parent)
        except BaseException:
            file.close()
            raise
        return file

    def settle(self) -> os.stat_result:
        """Make the file durable under its partial name, close it, and return its status."""
        self.file.flush()
        os.fsync(self.file.fileno())
        status = os.fstat(self.file.fileno())
        self.file.close()
        return status

    def discard(self) -> None:
        """Remove the partial file, unless it has been put in place. Never raises."""
        if self.file.closed:
            return
        with suppress(OSError):
            self.remove()
        self._close()

    def exchange(self, path: Path, length: int) -> BinaryIO | None:
        """Put another file in place of this one, by a second name, and remove this one.

        Args:
            path: the other file, which no other process writes to.
            length: its length in bytes.

        Returns:
            The file, open for reading at its start; None if it has another length, or the system
            cannot do that.

        Raises:
            ExportError: another file has taken the place of the partial one.
            OSError: as it comes.
        """
        if fcntl is None:
            return None
        check_same_file(self.path, os.fstat(self.file.fileno()))
        file = path.open("rb", buffering=0)
        try:
            if os.fstat(file.fileno()).st_size != length or not _linked(path, self._place):
                file.close()
                return None
            self.remove()
            sync_folder(self._place.parent)
        except BaseException:
            file.close()
            raise
        return file

    def remove(self) -> None:
        """Remove the partial file, but not a file that somebody has put in its place.

        Raises:
            OSError: the folder does not allow it.
        """
        own = os.fstat(self.file.fileno())
        if fcntl is None:
            self._close()
        # Before closing: once the lock is released, the name may be another export's.
        with suppress(FileNotFoundError):
            if os.path.samestat(self.path.lstat(), own):
                self.path.unlink()
        self._close()

    def _close(self) -> None:
        with suppress(OSError):  # closing flushes, and the disk may be full
            self.file.close()


def _linked(path: Path, place: Path) -> bool:
    """Give a file the name `place` as well; return whether the system can do that."""
    if not _is_owned_alike(path, place):
        return False
    # In its own folder first, because no call gives a second name that exists already.
    link = path.with_name(f"output-{path.name}")
    link.unlink(missing_ok=True)
    # Whatever the system says against it, the rows can be written instead.
    with suppress(OSError):
        link.hardlink_to(path)
    try:
        # Some systems do not count names, by which a spool is told from an output.
        if not link.exists() or path.stat().st_nlink != 2:
            return False
        with link.open("rb", buffering=0) as file:
            set_access(file.fileno(), place)
            os.utime(file.fileno() if os.utime in os.supports_fd else link)
            os.fsync(file.fileno())
        link.replace(place)
    except OSError as error:
        if error.errno == errno.EXDEV:
            return False
        raise
    finally:
        # A rename onto another name of the same file does nothing.
        link.unlink(missing_ok=True)
    return True


def _is_owned_alike(path: Path, place: Path) -> bool:
    """Return whether a file has the owner and the group that it is to have at `place`.

    Until the export is over it is the file of records as well, which has to stay ours.
    """
    try:
        old = place.lstat()
    except FileNotFoundError:
        old = status_of_new_file(place.parent)
    own = path.stat()
    return (own.st_uid, own.st_gid) == (old.st_uid, old.st_gid)


def check_same_file(path: Path, status: os.stat_result) -> None:
    """Raise `ExportError` unless `path` is the file or folder that has `status`.

    Whoever can write to its folder can put another file there while the export runs.
    """
    with suppress(FileNotFoundError):
        if os.path.samestat(path.lstat(), status):
            return
    raise _replaced(path)


def open_same_file(path: Path, status: os.stat_result) -> BinaryIO:
    """Open a file for reading, at its start.

    Raises:
        ExportError: it is not the one that has `status`.
        OSError: it cannot be opened.
    """
    check_same_file(path, status)
    file = os.fdopen(os.open(path, _SAFE), "rb", 0)
    if os.path.samestat(os.fstat(file.fileno()), status):
        return file
    file.close()
    raise _replaced(path)


def _replaced(path: Path) -> ExportError:
    return ExportError(
        f"{path} is no longer what this export has written: something has replaced or removed "
        f"it; run the same export again, in a folder that no other user can write to"
    )


def set_access(number: int, place: Path, *, only_own: bool = False) -> None:
    """Give an open file the owner, group and permissions that it has at `place`. Never raises.

    They are those of the file that it replaces, or those of a new file.

    Args:
        number: the file's number.
        place: its place.
        only_own: as for `PartialFile.put_in_place`.
    """
    if os.name != "posix":
        return
    try:
        with suppress(FileNotFoundError):
            old = place.lstat()
            if stat.S_ISREG(old.st_mode) and (not only_own or is_own(old, place.parent)):
                _copy_access(number, old)
                return
        # They depend on the umask, which can only be read by changing it for all threads, and on
        # the folder. So a file is made.
        os.fchmod(number, stat.S_IMODE(status_of_new_file(place.parent).st_mode))
    except OSError as error:
        logger.warning("%s may be read by its owner only: %s", place, error)


def _copy_access(number: int, old: os.stat_result) -> None:
    """Give an open file the owner, group and permissions of another.

    Only root can give files away, and others can choose among their own groups.
    """
    new = os.fstat(number)
    mode = stat.S_IMODE(old.st_mode) & 0o777
    try:
        if new.st_gid != old.st_gid:
            os.fchown(number, -1, old.st_gid)
    except OSError:
        # The group is another one, and gets no more than everyone.
        mode &= 0o707 | (mode & 0o007) << 3
    # Before the owner, because only the owner may set them.
    os.fchmod(number, mode)
    with suppress(OSError):
        if new.st_uid != old.st_uid:
            os.fchown(number, old.st_uid, -1)


def partial_of(path: Path) -> Path:
    """Return the path of the file while it is incomplete: beside its place, on the same disk."""
    return path.with_name(f"{path.name}.partial")


def write_file(path: Path, data: Iterable[bytes], *, other: str = OTHER_TO) -> None:
    """Write a file beside the output, completely or not at all. Blocking.

    Args:
        path: the file.
        data: its content.
        other: as for `PartialFile`.

    Raises:
        ExportError: another file has taken the place of the partial one.
        ExportLocked: another export writes to the same file.
        OSError: the file cannot be written.
    """
    partial = PartialFile(path, other=other)
    try:
        with naming_full_disk(path):
            partial.file.writelines(data)
            # Whoever planted a file of that name must not become the owner of customers' keys.
            partial.put_in_place(only_own=True).close()
    except BaseException:
        partial.discard()
        raise
