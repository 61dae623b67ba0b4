"""The turns that exports take at one output. Blocking."""

from __future__ import annotations

import shutil
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ...base.paths import check_own_folder
from ...errors import ExportError, ExportLocked
from .files import PartialFile, check_same_file, partial_of

__all__ = ["Turn"]

_LOCK = "lock"


class Turn:
    """An export's turn at an output: a private folder beside it, and a lock.

    Args:
        path: the output, which need not exist. The folder has its name, with `.partial`.
        name: the output in messages.
        files: the names of files that are made in the folder.

    Attributes:
        folder: the folder, which only this user can enter.
        temporary: a folder in it that may be made, and is removed with all that it holds.

    Raises:
        ExportLocked: it is another export's turn.
        ExportError: the folder cannot be used.
    """

    def __init__(self, path: Path, name: str, files: Sequence[str] = ()) -> None:
        self._files = files
        self._is_over = False
        self.folder = partial_of(path)
        self.temporary = self.folder / "temporary"
        try:
            self._make_folder()
            self._own = self.folder.lstat()
            self._lock = PartialFile(self.folder / _LOCK)
        except (ExportLocked, FileNotFoundError):
            if not path.parent.is_dir():
                raise ExportError(
                    f"{name} cannot be written: somebody has removed its folder; make it again, or "
                    f"choose another `to`"
                ) from None
            # The folder is missing if another export has removed it at its end just now.
            raise _busy(name) from None
        except OSError as error:
            raise ExportError(
                f"{name} cannot be written: {error}; choose another `to`, or correct the "
                f"permissions"
            ) from error
        try:
            self.check()
        except ExportError:
            self._lock.discard()
            raise _busy(name) from None
        self._clear()

    def check(self) -> None:
        """Raise `ExportError` if the folder is no longer the export's own."""
        check_same_file(self.folder, self._own)

    def _clear(self) -> None:
        """Remove from the folder what is not under the lock, also of an export that was killed."""
        for name in self._files:
            with suppress(OSError):
                (self.folder / name).unlink(missing_ok=True)
        with suppress(OSError):
            self.temporary.unlink()  # a link, which the next call does not remove
        shutil.rmtree(self.temporary, ignore_errors=True)

    def end(self) -> None:
        """Release the lock and remove the folder. Once only, as it may be another export's then."""
        if self._is_over:
            return
        self._is_over = True
        try:
            self.check()
        except (ExportError, OSError):
            # Somebody has put another folder there, in which nothing may be deleted.
            self._lock.discard()
            return
        self._clear()
        self._lock.discard()
        with suppress(OSError):
            self.folder.rmdir()

    def _make_folder(self) -> None:
        with suppress(FileExistsError):
            self.folder.mkdir(mode=0o700)
        check_own_folder(self.folder, "another `to`")
        # The bit by which new files get the group of a shared folder stays.
        self.folder.chmod(0o700 | self.folder.stat().st_mode & stat.S_ISGID)


def _busy(name: str) -> ExportLocked:
    return ExportLocked(f"another export is writing {name}; wait for it, or stop it")
