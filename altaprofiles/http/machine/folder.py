"""The folder of the files that processes share: its place, its permissions, its owner. Blocking."""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
from contextlib import suppress
from pathlib import Path

from ...errors import ConfigurationError
from .locks import Lock

__all__ = ["Folder", "default_place", "network_system"]

_NETWORK = frozenset(
    {"9p", "afs", "ceph", "cifs", "glusterfs", "lustre", "ncpfs", "nfs", "nfs4", "smb3", "smbfs"}
)
"""File systems whose locks take a round trip each, or do not exclude other processes."""

_INSTEAD = 'pass shared="/path", a folder on a local disk'

_NO_LINKS = (os.O_CLOEXEC if sys.platform != "win32" else getattr(os, "O_NOINHERIT", 0)) | getattr(
    os, "O_NOFOLLOW", 0
)
# Otherwise a named pipe that somebody has planted would block.
_FLAGS = os.O_RDWR | _NO_LINKS | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def default_place() -> Path:
    """Return `altaprofiles/slots` in the user's cache folder, whatever the environment says.

    Jobs of cron have neither `XDG_RUNTIME_DIR` nor, at times, `HOME`. The processes of one user
    would otherwise have several places, and several caps.

    Raises:
        ConfigurationError: the user has no home folder.
    """
    if sys.platform == "win32":
        try:
            return Path.home() / "AppData" / "Local" / "altaprofiles" / "slots"
        except RuntimeError as error:
            raise ConfigurationError(f"shared: {error} {_INSTEAD}") from None
    import pwd

    try:
        home = Path(pwd.getpwuid(os.geteuid()).pw_dir)
    except KeyError:
        raise ConfigurationError(
            f"shared: the user {os.geteuid()} has no home folder; {_INSTEAD}"
        ) from None
    if not home.is_dir():
        raise ConfigurationError(f"shared: the home folder {home} does not exist; {_INSTEAD}")
    caches = ("Library", "Caches") if sys.platform == "darwin" else (".cache",)
    return home.joinpath(*caches, "altaprofiles", "slots")


def network_system(path: Path, mounts: str) -> str | None:
    """Return the type of the network file system that holds a path, or None if it is a local one.

    Args:
        path: an absolute path without links.
        mounts: the text of `/proc/self/mountinfo`.
    """
    longest, found = -1, ""
    for line in mounts.splitlines():
        fields, _, types = line.partition(" - ")
        parts = fields.split(" ")
        if len(parts) < 5 or not types:
            continue
        # Blanks and the like are written as octal escapes.
        point = Path(re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), parts[4]))
        # A later mount hides an earlier one at the same point.
        if len(point.parts) >= longest and path.is_relative_to(point):
            longest, found = len(point.parts), types.split(" ")[0]
    return found if found in _NETWORK or found == "fuse.sshfs" else None


class Folder:
    """A folder, and the files in it that this process has opened.

    The files of a folder of one user are its user's alone (0600). A folder that its group can write
    to is shared by the group (0660). One that anybody can write to is refused, as are links, and
    files of other users in a folder that no group shares.

    Args:
        place: the folder that holds it, or None for `default_place`. It is made if it is missing:
            for this user alone, or for the group if the folder around it is its group's.
        name: its name.

    Raises:
        ConfigurationError: it cannot be made or used; the message names the fix.
    """

    def __init__(self, place: Path | None, name: str) -> None:
        self._locks: dict[Lock, str] = {}
        self._number: int | None = None
        is_private = place is None
        place = place or default_place()
        self.path = place / name
        try:
            # Links to the place are its user's own. Inside of it, none is followed.
            place = Path(os.path.realpath(place))
            _check_system(place)
            _make(place, is_private=is_private)
            status = _checked(place, place.stat())
            self._group = status.st_gid if not is_private and _is_of_group(status) else None
            self.path = place / name
            self._number = self._open(self.path)
        except OSError as error:
            self.close()
            raise _explained(error, self.path) from None
        except BaseException:
            self.close()
            raise

    def lock(self, name: str) -> Lock:
        """Return a lock on a file, which is made if it is missing. Each call opens it anew.

        Raises:
            ConfigurationError: it cannot be opened, or is not a plain file of a user of the folder.
        """
        try:
            number = self._opened(name)
        except OSError as error:
            raise _explained(error, self.path / name) from None
        lock = Lock(number)
        self._locks[lock] = name
        return lock

    def discard(self, lock: Lock) -> None:
        """Close a file of the folder."""
        del self._locks[lock]
        lock.close()

    def holds(self, name: str) -> bool:
        """Return whether this process has locked a file through this object."""
        return any(lock.is_held for lock, of in self._locks.items() if of == name)

    def names(self, suffix: str) -> list[str]:
        """Return the names of the files that end in `suffix`, in order."""
        return sorted(path.name for path in self.path.iterdir() if path.name.endswith(suffix))

    def check(self) -> None:
        """Raise `ConfigurationError` unless locks on the files exclude other processes."""
        one, other = self.lock("probe"), self.lock("probe")
        try:
            # Another process may be here as well.
            works = one.take(shared=True) and not other.take()
            one.drop()
        finally:
            self.discard(one)
            self.discard(other)
        if not works:
            raise ConfigurationError(
                f"shared: the file system of {self.path} has no locks; {_INSTEAD}"
            )

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Close every file, which unlocks it unless a forked child has inherited it."""
        while self._locks:
            with suppress(OSError):
                self._locks.popitem()[0].close()
        if self._number is not None:
            number, self._number = self._number, None
            with suppress(OSError):
                os.close(number)

    def _open(self, path: Path) -> int | None:
        with suppress(FileExistsError):
            path.mkdir(mode=0o700)
            if self._group is not None:
                os.chown(path, -1, self._group)
                path.chmod(0o2770)
        if sys.platform == "win32":
            return None
        number = os.open(path, os.O_RDONLY | os.O_DIRECTORY | _NO_LINKS)
        try:
            _checked(path, os.fstat(number), is_of_group=self._group is not None)
        except BaseException:
            os.close(number)
            raise
        return number

    def _opened(self, name: str) -> int:
        path: Path | str = self.path / name if self._number is None else name
        try:
            number = os.open(path, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=self._number)
        except FileExistsError:
            number = os.open(path, _FLAGS, dir_fd=self._number)
            try:
                self._check_file(name, os.fstat(number))
            except BaseException:
                os.close(number)
                raise
        else:
            if self._group is not None:
                os.fchown(number, -1, self._group)
                os.fchmod(number, 0o660)
        return number

    def _check_file(self, name: str, status: os.stat_result) -> None:
        if os.name != "posix":
            return
        is_theirs = status.st_uid != os.geteuid() and self._group is None
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1 or is_theirs:
            fault = f"belongs to another user ({status.st_uid})" if is_theirs else "is not a file"
            raise ConfigurationError(
                f"shared: {self.path / name} {fault}; remove it, or pass another folder as shared="
            )


def _check_system(path: Path) -> None:
    with suppress(OSError):
        mounts = Path("/proc/self/mountinfo").read_text(errors="replace")
        if (system := network_system(path, mounts)) is not None:
            raise ConfigurationError(
                f"shared: {path} is on a network file system ({system}), whose locks are slow or "
                f"missing; {_INSTEAD}"
            )


def _make(path: Path, *, is_private: bool) -> None:
    """Make a folder, and those around it that are missing."""
    if path.is_dir():
        return
    if not path.parent.exists():
        _make(path.parent, is_private=is_private)
    around = path.parent.stat()
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
        if not is_private and _is_of_group(around):
            os.chown(path, -1, around.st_gid)
            path.chmod(0o2770)


def _is_of_group(status: os.stat_result) -> bool:
    """Return whether a folder's group, and no other user, can write to it."""
    writers = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return os.name == "posix" and writers == stat.S_IWGRP


def _checked(
    path: Path, status: os.stat_result, *, is_of_group: bool | None = None
) -> os.stat_result:
    """Return the status of a folder, if this user or the user's group alone can write to it."""
    if not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    if os.name != "posix":
        return status
    if status.st_mode & stat.S_IWOTH:
        raise ConfigurationError(
            f"shared: every user can write to {path}; pass a folder in it that is yours alone or "
            f"your group's, such as {path / 'altaprofiles'}"
        )
    if is_of_group is None:
        is_of_group = _is_of_group(status)
    if status.st_uid != os.geteuid() and not is_of_group:
        raise ConfigurationError(
            f"shared: {path} belongs to another user ({status.st_uid}); pass a folder of your own, "
            f"or one that a group shares: mkdir -m 2770 PATH, chgrp GROUP PATH"
        )
    return status


def _explained(error: OSError, path: Path) -> ConfigurationError:
    if error.errno in (errno.ELOOP, errno.ENOTDIR):
        reason = "a link or a file stands in its place; remove it, or pass another folder"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        reason = (
            f'{error.strerror}; pass shared="/path", a folder that you can write to, or one that '
            f"your group can: mkdir -m 2770 PATH, chgrp GROUP PATH"
        )
    else:
        reason = f"{error.strerror}; {_INSTEAD}"
    return ConfigurationError(f"shared: {path} cannot be used: {reason}")
