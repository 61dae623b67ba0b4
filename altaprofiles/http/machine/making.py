"""Files and folders that nobody sees before they have their group and their mode. Blocking."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
import sys
from contextlib import suppress
from pathlib import Path

__all__ = ["FLAGS", "NEW", "NO_LINKS", "is_group_s", "make", "make_file", "make_one"]

NO_LINKS = (os.O_CLOEXEC if sys.platform != "win32" else getattr(os, "O_NOINHERIT", 0)) | getattr(
    os, "O_NOFOLLOW", 0
)
# Otherwise a named pipe that somebody has planted would block.
FLAGS = os.O_RDWR | NO_LINKS | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)

NEW = ".new"
"""The end of the name of a file or a folder that may not have its group and its mode yet."""


def _unseen(name: str) -> str:
    return f"{name}.{secrets.token_hex(8)}{NEW}"


def _new_file(path: Path | str, group: int | None, folder: int | None = None) -> int:
    number = os.open(path, FLAGS | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=folder)
    if group is not None:
        try:
            os.fchown(number, -1, group)
            os.fchmod(number, 0o660)
        except BaseException:
            os.close(number)
            raise
    return number


def make_file(path: Path | str, group: int | None, folder: int | None) -> int:
    """Make a file and open it. A group's is not seen before the group can use it.

    Args:
        path: its path, or its name in the folder.
        group: the group that it is for, or None for this user alone.
        folder: the descriptor of the folder, or None for a path.

    Raises:
        OSError: it cannot be made; `FileExistsError` if it is there.
    """
    if group is None:
        return _new_file(path, None, folder)
    unseen = _unseen(str(path))
    number = _new_file(unseen, group, folder)
    try:
        # Unlike a new name of the first one, a second name replaces no file.
        os.link(unseen, path, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
    except BaseException:
        os.close(number)
        raise
    finally:
        with suppress(FileNotFoundError):
            os.unlink(unseen, dir_fd=folder)
    return number


def make(path: Path, *, is_private: bool) -> None:
    """Make a folder, and those around it that are missing."""
    if path.is_dir():
        return
    if not path.parent.exists():
        make(path.parent, is_private=is_private)
    around = path.parent.stat()
    make_one(path, around.st_gid if is_group_s(around) and not is_private else None)


def make_one(path: Path, group: int | None, file: str | None = None) -> None:
    """Make a folder unless it is there. A group's is not seen before the group can use it.

    Args:
        path: its path.
        group: the group that it is for, or None for this user alone.
        file: a file to make in it for a group.
    """
    if group is None:
        with suppress(FileExistsError):
            path.mkdir(mode=0o700)
    elif not os.path.lexists(path):
        unseen = path.with_name(_unseen(path.name))
        unseen.mkdir(mode=0o700)
        try:
            os.chown(unseen, -1, group)
            unseen.chmod(0o2770)
            if file is not None:
                os.close(_new_file(unseen / file, group))
            unseen.rename(path)
        except OSError as error:
            shutil.rmtree(unseen, ignore_errors=True)
            # Another process has made it.
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise


def is_group_s(status: os.stat_result) -> bool:
    """Return whether a folder's group, and no other user, can write to it."""
    writers = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return os.name == "posix" and writers == stat.S_IWGRP
