"""Obstacles to the replacement of a file by a rename. Blocking."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

__all__ = ["obstacle"]

_SAFE = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


def obstacle(path: Path, other: str) -> str | None:
    """Return what prevents `path` from being replaced, and a fix; or None.

    Permissions on its folder are not examined.

    Args:
        path: the file.
        other: what the caller may choose instead.
    """
    try:
        status, folder = path.lstat(), path.parent.stat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISLNK(status.st_mode):
        return f"it is not a regular file; remove it, or choose {other}"
    if _is_mounted(path):
        return (
            f"it is a mount point of its own, as a single file mounted into a container is; mount "
            f"its folder instead, or choose {other}"
        )
    if _is_immutable(path):
        return f"it is immutable or append-only; run chattr -i -a on it as root, or choose {other}"
    if (
        os.name == "posix"
        and folder.st_mode & stat.S_ISVTX
        and os.geteuid() not in (status.st_uid, folder.st_uid)
        and not _acts_as_owner(path, status)
    ):
        return (
            f"it belongs to another user ({status.st_uid}), and its folder is sticky, so that only "
            f"its owner can replace it; choose {other}"
        )
    return None


def _acts_as_owner(path: Path, status: os.stat_result) -> bool:
    """Return whether the system lets this user do what only the owner of a file may do.

    Root may, but not in every container. So it is tried: times are set to what they are.
    """
    times = status.st_atime_ns, status.st_mtime_ns
    try:
        os.utime(path, ns=times, follow_symlinks=False)
    except OSError:
        return False
    return True


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
        os.close(os.open(path, os.O_WRONLY | _SAFE))
    except OSError as error:
        return error.errno == errno.EPERM
    return False
