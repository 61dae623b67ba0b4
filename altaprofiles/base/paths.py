"""Paths from callers, and files in folders that other users can write to. Blocking."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

from ..errors import ConfigurationError, ExportError, InvalidArgument
from .checks import check_no_database, shown

__all__ = [
    "OTHER_TO",
    "absolute_path",
    "check_own_file",
    "check_own_folder",
    "is_own",
    "path_text",
    "remove_probe",
    "status_of",
    "status_of_new_file",
]

_REASONS = {
    errno.EACCES: "its folder may not be read; change its permissions, or choose another path",
    errno.ELOOP: "its symbolic links lead in a circle; correct them",
    errno.ENAMETOOLONG: "its name is too long; choose a shorter one",
    errno.ENOTDIR: "a file stands where it names a folder; choose another path",
}


_SHOWN = 300


def path_text(argument: str, path: object) -> str:
    """Return the path of an argument as text.

    Args:
        argument: the argument's name.
        path: the argument's value.

    Raises:
        ConfigurationError: `path` is empty, is not text, cannot be the name of a file, or is the
            URL of a database.
    """
    text = os.fspath(path) if isinstance(path, str | os.PathLike) else None
    if not isinstance(text, str):
        raise InvalidArgument(f"{argument}: expected a path as text, got {shown(path)}")
    if not text:
        raise InvalidArgument(f"{argument}: expected a path, got ''; pass one, or leave it out")
    try:
        encoded = os.fsencode(text)
    except UnicodeEncodeError:
        encoded = b"\0"
    if b"\0" in encoded:
        raise InvalidArgument(f"{argument}: {shown(text)} cannot be a file name; choose another")
    check_no_database(argument, text)
    return text


def absolute_path(argument: str, text: str, *, links: bool = True) -> Path:
    """Return a path as an absolute one. The file need not exist.

    Args:
        argument: the argument's name.
        text: the path.
        links: whether symbolic links are resolved.

    Raises:
        ConfigurationError: the path is relative, and the current folder has been deleted.
    """
    try:
        # Not `Path.resolve`, which raises a RuntimeError for a circle of links before Python 3.13.
        return Path(os.path.realpath(text) if links else os.path.abspath(text))  # noqa: PTH100
    except OSError:
        raise ConfigurationError(
            f"{argument}: {shown(text)} is relative, and the current folder has been deleted; "
            "change to "
            f"another folder, or pass an absolute path"
        ) from None


def status_of(argument: str, path: Path) -> os.stat_result | None:
    """Return the status of the file that `path` leads to, or None if there is none.

    Raises:
        ConfigurationError: `path` cannot lead to a file.
    """
    try:
        return path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        text = str(path)
        name = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
        reason = _REASONS.get(error.errno or 0, f"{error.strerror}; choose another path")
        raise InvalidArgument(f"{argument}: {shown(name)} cannot be used: {reason}") from None


def is_own(status: os.stat_result, folder: Path) -> bool:
    """Return whether a file in `folder` belongs to the user of this process.

    Raises:
        OSError: `folder` cannot be written to.
    """
    if os.name != "posix" or status.st_uid == os.geteuid():
        return True
    # Some network file systems give every file another owner. A new file shows which one.
    return status_of_new_file(folder).st_uid == status.st_uid


_PROBE = ".altaprofiles.probe"


def status_of_new_file(folder: Path) -> os.stat_result:
    """Return the status that a new file in `folder` has, with the permissions of any other.

    Where the system can, the file has no name, so that a killed process leaves nothing behind.
    Elsewhere the next call removes what an earlier one has left, as does `remove_probe`.

    Raises:
        OSError: `folder` cannot be written to.
    """
    number = _open_nameless(folder)
    try:
        if number is None:
            number = _open_probe(folder)
        return os.fstat(number)
    finally:
        if number is not None:
            os.close(number)
        remove_probe(folder)


def remove_probe(folder: Path) -> None:
    """Remove the file that a killed process may have left in `folder`. Never raises."""
    probe = folder / _PROBE
    with suppress(OSError):
        if os.path.lexists(probe):
            probe.unlink()


def _open_nameless(folder: Path) -> int | None:
    if not hasattr(os, "O_TMPFILE"):
        return None
    try:
        return os.open(folder, os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC, 0o666)
    except OSError:
        # Not every file system has such files. Any other fault shows with a name as well.
        return None


_TRIES = 20


def _open_probe(folder: Path) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
    for _ in range(_TRIES):
        # Another process that has made one just now does not need its name any more.
        remove_probe(folder)
        with suppress(FileExistsError):
            return os.open(folder / _PROBE, flags, 0o666)
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(folder / _PROBE))


OTHER_TO = "another `to`"
"""The choice of a caller in place of an output, in words."""


def check_own_file(path: Path, other: str = OTHER_TO) -> None:
    """Raise `ExportError` unless `path` is free, or a regular file of this user.

    Another user may have planted a link there, through which a file elsewhere would be changed.

    Args:
        path: the file.
        other: what the caller may choose instead, for the message.
    """
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    if stat.S_ISLNK(status.st_mode):
        fault = "a symbolic link"
    elif not stat.S_ISREG(status.st_mode):
        fault = "not a regular file"
    elif not is_own(status, path.parent):
        fault = f"a file of another user ({status.st_uid})"
    else:
        return
    raise ExportError(
        f"{path} is {fault}, but the export needs a file of its own there; remove it, or choose "
        f"{other}"
    )


def check_own_folder(path: Path, other: str) -> None:
    """Raise `ExportError` unless `path` is a folder of this user.

    Args:
        path: the folder.
        other: what the caller may choose instead, for the message.

    Raises:
        OSError: `path` is missing, or its folder cannot be written to.
    """
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or not is_own(status, path.parent):
        raise ExportError(
            f"{path} is a link, a file, or a folder of another user, but the export needs a "
            f"folder of its own there; remove it, or choose {other}"
        )
