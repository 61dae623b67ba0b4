"""The folder of the files that processes share: its place, its permissions, its owner. Blocking."""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from ...errors import ConfigurationError
from .locks import Lock, replace
from .making import FLAGS, NEW, NO_LINKS, is_group_s, make, make_file, make_one

__all__ = ["Folder", "default_place", "network_system"]

_NETWORK = frozenset(
    {"9p", "afs", "ceph", "cifs", "glusterfs", "lustre", "ncpfs", "nfs", "nfs4", "smb3", "smbfs"}
)
"""File systems whose locks take a round trip each, or do not exclude other processes."""

_INSTEAD = "let `shared` be the path of a folder on a local disk"

_PROBE = "probe"
_PAUSE = 0.002
_TRIES = 10  # to open a file or to make it, while others make it or remove it


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
        self._group: int | None = None
        self._is_private = place is None
        self.path = Path("altaprofiles", "slots") if place is None else place / name
        try:
            with self.explained():
                self.path = (place or default_place()) / name
                # Links to the place are its user's own. Inside of it, none is followed.
                place = Path(os.path.realpath(self.path.parent))
                self._number = self._open(place, name)
        except BaseException:
            self.close()
            raise

    @contextmanager
    def explained(self) -> Generator[None, None, None]:
        """Raise each `OSError` of the block as a `ConfigurationError` that names the folder."""
        try:
            yield
        except OSError as error:
            raise _explained(error, self.path) from None

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
        names = os.listdir(self.path if self._number is None else self._number)  # noqa: PTH208
        return sorted(name for name in names if name.endswith(suffix))

    def tidy(self, status: os.stat_result | None = None) -> int:
        """Remove what killed processes have left of files that they made.

        Args:
            status: of the file whose second name is removed, or None for the names of all.

        Returns:
            The number of names that stay, because they are another user's in a sticky folder.
        """
        left = 0
        for name in self.names(NEW):
            with suppress(FileNotFoundError):
                if status is None or os.path.samestat(status, self._status(name)):
                    try:
                        os.unlink(name, dir_fd=self._number)
                    except PermissionError:
                        left += 1
        return left

    def is_whole(self) -> bool:
        """Return whether the folder and each open file are still those that their names lead to."""
        # Windows does not remove open files.
        if self._number is None:
            return True
        try:
            return os.path.samestat(self.path.lstat(), os.fstat(self._number)) and all(
                self._is_there(lock, name) for lock, name in self._locks.items()
            )
        except OSError:
            return False

    def renew(self) -> None:
        """Open what the names lead to now in place of what was removed, or make it again.

        A lock that is held on a removed file is taken on the new one, unless another process has
        it: `Lock.is_held` says so.

        Raises:
            ConfigurationError: as at first.
        """
        if self._number is None:
            return
        with self.explained():
            if (number := self._open(self.path.parent, self.path.name)) is not None:
                replace(self._number, number)
        for lock, name in self._locks.items():
            if not self._is_there(lock, name):
                with self.explained():
                    lock.move(self._opened(name))

    def check(self) -> None:
        """Raise `ConfigurationError` unless locks on the files exclude other processes."""
        one, other = self.lock(_PROBE), self.lock(_PROBE)
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

    def _open(self, place: Path, name: str) -> int | None:
        _check_system(place)
        make(place, is_private=self._is_private)
        status = _checked(place, place.stat())
        is_of_group = not self._is_private and is_group_s(status)
        self._group = status.st_gid if is_of_group else None
        path = self.path = place / name
        # With a file in it from the start, it is not replaced by that of another process.
        make_one(path, self._group, _PROBE)
        if sys.platform == "win32":
            return None
        number = os.open(path, os.O_RDONLY | os.O_DIRECTORY | NO_LINKS)
        try:
            status = _checked(path, os.fstat(number), is_of_group=is_of_group)
            self._give(number, status, 0o2770)
        except BaseException:
            os.close(number)
            raise
        return number

    def _opened(self, name: str) -> int:
        path = self.path / name if self._number is None else name
        for left in reversed(range(_TRIES)):
            try:
                return self._existing(path, name)
            except PermissionError:
                # An earlier version makes a file before it gives it to the group.
                if self._group is None or not left:
                    raise
                time.sleep(_PAUSE)
                continue
            except FileNotFoundError:
                pass
            with suppress(FileExistsError, FileNotFoundError):
                return make_file(path, self._group, self._number)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    def _existing(self, path: Path | str, name: str) -> int:
        number = os.open(path, FLAGS, dir_fd=self._number)
        try:
            status = os.fstat(number)
            left = 0
            if status.st_nlink > 1:
                # Its maker has not removed the first name yet, or was killed before.
                left = self.tidy(status)
                status = os.fstat(number)
            self._check_file(name, status, names=1 + left)
            self._give(number, status, 0o660)
        except BaseException:
            os.close(number)
            raise
        return number

    def _give(self, number: int, status: os.stat_result, mode: int) -> None:
        """Give to the group what is this user's own, and was not made for the group."""
        if self._group is None or status.st_uid != os.geteuid():
            return
        if status.st_gid != self._group or status.st_mode & mode != mode:
            with suppress(PermissionError):
                os.fchown(number, -1, self._group)
                os.fchmod(number, mode)

    def _status(self, name: str) -> os.stat_result:
        return os.stat(name, dir_fd=self._number, follow_symlinks=False)

    def _is_there(self, lock: Lock, name: str) -> bool:
        try:
            return os.path.samestat(self._status(name), os.fstat(lock.number))
        except FileNotFoundError:
            return False

    def _check_file(self, name: str, status: os.stat_result, *, names: int) -> None:
        if os.name != "posix":
            return
        is_theirs = status.st_uid != os.geteuid() and self._group is None
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > names or is_theirs:
            fault = f"belongs to another user ({status.st_uid})" if is_theirs else "is not a file"
            raise ConfigurationError(
                f"shared: {self.path / name} {fault}; remove it, or let `shared` be another folder"
            )


def _check_system(path: Path) -> None:
    with suppress(OSError):
        mounts = Path("/proc/self/mountinfo").read_text(errors="replace")
        if (system := network_system(path, mounts)) is not None:
            raise ConfigurationError(
                f"shared: {path} is on a network file system ({system}), whose locks are slow or "
                f"missing; {_INSTEAD}"
            )


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
            f"shared: every user can write to {path}; let `shared` be a folder in it that is yours "
            f"alone or your group's, such as {path / 'altaprofiles'}"
        )
    if is_of_group is None:
        is_of_group = is_group_s(status)
    if status.st_uid != os.geteuid() and not is_of_group:
        raise ConfigurationError(
            f"shared: {path} belongs to another user ({status.st_uid}); let `shared` be a folder "
            f"of your own, or one that a group shares: mkdir -m 2770 PATH, chgrp GROUP PATH"
        )
    return status


def _explained(error: OSError, path: Path) -> ConfigurationError:
    if error.errno in (errno.ELOOP, errno.ENOTDIR):
        return _in_the_way(path)
    if error.errno in (errno.EMFILE, errno.ENFILE):
        reason = (
            f"{error.strerror}; each slot is one: allow more (ulimit -n), or pass a smaller "
            f"max_in_flight"
        )
    elif error.errno in (errno.ENOSPC, errno.EDQUOT):
        reason = f"{error.strerror}; free some there, or {_INSTEAD}"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        reason = (
            f"{error.strerror}; let `shared` be a folder that you can write to, or one that "
            f"your group can: mkdir -m 2770 PATH, chgrp GROUP PATH"
        )
    else:
        reason = f"{error.strerror}; {_INSTEAD}"
    return ConfigurationError(f"shared: {path} cannot be used: {reason}")


def _in_the_way(path: Path) -> ConfigurationError:
    """Return the error of a path, in the place of which, or around it, something else stands."""
    around = [one for one in path.parents if os.path.lexists(one) and not one.is_dir()]
    found, kind = (around[-1], "a folder") if around else (path, "a plain file or folder")
    return ConfigurationError(
        f"shared: {found} is not {kind}; let `shared` be another path, or remove it if nobody "
        f"needs it"
    )
