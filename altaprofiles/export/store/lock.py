"""A lock that lasts until it is released or its process ends in any way. Blocking."""

from __future__ import annotations

import logging
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Self

from ...base.paths import check_own_file, check_own_folder
from ...base.sql import sqlite_code
from ...errors import ExportError, ExportLocked

__all__ = ["Lock"]

logger = logging.getLogger("altaprofiles")

_PATIENCE = 0.2
"""Longest wait, in seconds, for a process that only looks whether the lock is held."""


class Lock:
    """An empty SQLite file in an open transaction. SQLite knows how to lock on every system."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self._path = path
        self._db = connection

    @classmethod
    def acquire(cls, path: Path) -> Self:
        """Create the file if it is missing, and lock it.

        Raises:
            ExportLocked: another export holds the lock.
            FileNotFoundError: the folder is missing.
            ExportError: the file is not a lock.
            OSError: the file cannot be opened.
        """
        while True:
            before = _number(path)
            db = _connect(path, f"file:{_quoted(path)}?mode=rwc", _PATIENCE)
            try:
                _begin(db, path)
                # The holder deletes the file before it releases the lock. So a lock on a file that
                # no longer has this name protects nothing. A new file is opened once more, because
                # only then is its number known from before.
                if before is not None and before == _number(path):
                    return cls(path, db)
            except BaseException:
                db.close()
                raise
            db.close()

    @staticmethod
    def is_held(path: Path) -> bool:
        """Return whether an export holds the lock. Creates nothing.

        Raises:
            ExportError: the file is not a lock.
            OSError: the file cannot be opened.
        """
        try:
            with closing(_connect(path, f"file:{_quoted(path)}?mode=rw", 0.0)) as db:
                _begin(db, path)
        except ExportLocked:
            return True
        except FileNotFoundError:
            return False
        return False

    @classmethod
    def acquire_if_possible(cls, path: Path) -> Self | None:
        """Return a lock as `acquire` does, or None where this user cannot have one.

        The folder is created, for this user alone.

        Raises:
            ExportLocked: another export holds the lock.
        """
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            check_own_folder(path.parent, "another `to`")
            check_own_file(path)
            return cls.acquire(path)
        except ExportLocked:
            raise
        except (OSError, ExportError) as error:
            logger.debug("%s cannot be locked: %s", path, error)
            return None

    def remove(self) -> None:
        """Delete the file. The lock is held until `release`."""
        try:
            self._path.unlink(missing_ok=True)
        except PermissionError:
            # Windows does not delete an open file.
            self._db.close()
            self._path.unlink(missing_ok=True)

    def release(self) -> None:
        """Release the lock."""
        self._db.close()


def _by(path: Path) -> str:
    """Return which process has a lock, as far as Linux says it, for the text of an error."""
    try:
        place = f"{_device_of(path.parent)}:{path.stat().st_ino}"
        lines = _LOCKS.read_text().splitlines()
    except OSError:
        return ""
    # Number, kind, sort, access, process, device and file, first byte, last byte.
    locks = [line.split() for line in lines if f" {place} " in line and " -> " not in line]
    pids = {lock[4] for lock in locks if lock[1] == "POSIX" and lock[6] == _RESERVED}
    if str(os.getpid()) in pids:
        return ""
    for pid in pids:
        if pid.isdecimal() and pid != "0":
            return f" by the process {pid}"
    return (
        " by a process that cannot be seen from here, such as one in another container, or on "
        "another machine with this folder"
    )


def _device_of(folder: Path) -> str:
    """Return the device of the files in a folder, as Linux names it beside their locks.

    That of a mount, because files may be said to be on another one (btrfs, overlayfs).

    Raises:
        OSError: Linux does not say it.
    """
    # Closing the file itself would release a lock that this process has on it.
    number = os.open(folder, os.O_RDONLY)
    try:
        lines = (_PROCESS / "fdinfo" / str(number)).read_text().splitlines()
    finally:
        os.close(number)
    mount = next((line.split()[1] for line in lines if line.startswith("mnt_id:")), None)
    for line in (_PROCESS / "mountinfo").read_text().splitlines():
        # Number, number of the one around it, device.
        one, _, device, *_ = line.split()
        if one == mount:
            major, minor = map(int, device.split(":"))
            return f"{major:02x}:{minor:02x}"
    raise FileNotFoundError(folder)


_PROCESS = Path("/proc/self")

_LOCKS = Path("/proc/locks")

_RESERVED = "1073741825"
"""The byte that SQLite locks at the begin of a transaction that writes."""


def _number(path: Path) -> tuple[int, int] | None:
    """Return what identifies the file at `path`, or None if there is none."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _quoted(path: Path) -> str:
    return path.as_uri().removeprefix("file:")


def _connect(path: Path, uri: str, timeout: float) -> sqlite3.Connection:
    try:
        return sqlite3.connect(
            uri, timeout=timeout, isolation_level=None, check_same_thread=False, uri=True
        )
    except sqlite3.Error as error:
        raise _explained(path, error) from error


def _begin(db: sqlite3.Connection, path: Path) -> None:
    try:
        # Nothing is ever written. So the file stays empty, and needs no journal beside it.
        db.execute("pragma journal_mode = memory")
        db.execute("begin immediate")
    except sqlite3.Error as error:
        raise _explained(path, error) from error


def _explained(path: Path, error: sqlite3.Error) -> Exception:
    code = sqlite_code(error)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return ExportLocked(
            f"another export is working on this output: {path} is in use{_by(path)}; wait for it, "
            f"stop it, or choose another `to`"
        )
    if code == sqlite3.SQLITE_NOTADB:
        return ExportError(f"{path} is not the lock of an export; remove it")
    if code == sqlite3.SQLITE_CANTOPEN and not path.exists():
        return FileNotFoundError(f"{path} cannot be opened")
    return OSError(f"{path} cannot be locked: {error}")
