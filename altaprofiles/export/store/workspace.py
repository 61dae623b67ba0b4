"""The folder of an unfinished export: its journal and its spools. Blocking."""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self
from uuid import uuid4

import msgspec

from ...base.jsontext import failure_text
from ...base.open_files import more_files
from ...base.paths import check_own_file, check_own_folder
from ...base.sql import sqlite_code
from ...errors import ExportError, ExportLocked, Incomplete
from ..plan import DISCARD, Plan, check_same, parse_plan
from .journal import Journal
from .spool import sync_folder, write_durably

__all__ = [
    "CONFIRMED",
    "JOURNAL",
    "OTHER_SPOOL",
    "OVER",
    "STAGED",
    "TAKES_NO_MORE",
    "Workspace",
    "delete_stray_logs",
    "disk_remedy",
    "explaining_disk_errors",
    "files_in",
    "is_outdated",
    "made_folder",
    "naming_full_disk",
    "noted_origin",
    "oldest_change",
    "origin_in",
]

logger = logging.getLogger("altaprofiles")

JOURNAL = "journal.sqlite"
"""The name of the journal, in the folder of a workspace."""

_ORIGIN = "origin.json"
_SPOOLS = "*.spool.ndjson"
_MARKS = "people.marks"
_PEOPLE = "people.sqlite*"  # of earlier versions

STAGED = "staged"
"""The beginning of the names of files with rows for the output, of which each run makes its own."""

CONFIRMED = "confirmed"
"""The state of a journal whose first answers had a time of the service by which all is sound."""

OVER = "over"
"""The state of a journal whose export is being discarded, or has been."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_CURRENT_FOR = 12 * 3600
"""Seconds for which answers count as current: less than from one night to the next."""


class Workspace:
    """The files of one unfinished export. No other process can open them while this object does.

    Attributes:
        folder: the folder that holds the files.
        journal: the progress of the export.
        marks: the path of the file by which people are told apart.
    """

    def __init__(self, folder: Path, journal: Journal) -> None:
        self.folder = folder
        self.journal = journal
        self.marks = folder / _MARKS

    @classmethod
    def open(cls, folder: Path, *, resume: bool) -> Self:
        """Open the workspace in `folder`, or create one.

        Args:
            folder: the folder; created if missing.
            resume: whether an unfinished export there is resumed; if not, it is discarded.

        Raises:
            ExportLocked: another export has the workspace open.
            ExportError: the workspace cannot be resumed, or the folder cannot be written to.
        """
        made_folder(folder)
        with explaining_disk_errors(folder):
            return cls._open(folder, resume)

    @classmethod
    def _open(cls, folder: Path, resume: bool) -> Self:
        delete_stray_logs(folder)
        try:
            journal = Journal.open(folder / JOURNAL)
        except ExportLocked:
            raise
        except ExportError:
            if resume:
                raise
            journal = _new_journal(folder)
        try:
            if not resume or journal.state(OVER):
                journal = _cleared(folder, journal)
            elif journal.state("plan") is None:
                _check_empty(folder)
        except BaseException:
            journal.close()
            raise
        return cls(folder, journal)

    def begun(self) -> Plan | None:
        """Return the plan of the unfinished export, or None if there is none.

        Raises:
            ExportError: the plan cannot be read.
        """
        data = self.journal.state("plan")
        if data is None:
            return None
        try:
            return parse_plan(data)
        except msgspec.DecodeError as error:
            raise ExportError(
                f"the plan in {self.folder} cannot be read: {failure_text(error)}"
            ) from None

    def begin(self, plan: Plan, arguments: bytes) -> None:
        """Store `plan` as that of this workspace.

        Args:
            plan: the plan.
            arguments: the other arguments of the export, with which a later run can finish it.

        Raises:
            PlanMismatch: the workspace holds an unfinished export with another plan, because
                somebody has renamed its folder.
        """
        if (begun := self.begun()) is not None:
            check_same(begun, plan, str(self.folder))
        # An earlier version has not noted when it began.
        began = _now() if begun is None else int(oldest_change(self.folder) * 1e6)
        with self.journal.transaction():
            self.journal.put_state(plan=plan.encode(), arguments=arguments)
            if self.journal.state("began") is None:
                self.journal.put_state(began=began, run=uuid4().hex)
        sync_folder(self.folder)

    @property
    def run(self) -> str:
        """Identifies this export, over all runs that resume it."""
        return str(self.journal.state("run"))

    @property
    def began(self) -> datetime:
        """The time at which the export was begun."""
        return _EPOCH + timedelta(microseconds=self.journal.state("began"))

    def note_origin(self) -> None:
        """Note beside the journal whose rows an output gets, should the journal be damaged."""
        path = self.folder / _ORIGIN
        content = msgspec.json.encode([self.run, self.journal.state("began")])
        with suppress(FileNotFoundError):
            if path.read_bytes() == content:
                return
        write_durably(path, content)
        sync_folder(self.folder)

    def note_written(self) -> None:
        """Note that the output has been written without some answers."""
        with self.journal.transaction():
            self.journal.put_state(written=True)

    @property
    def is_outdated(self) -> bool:
        """True if what was gathered is no longer current."""
        return is_outdated(self.began)

    @property
    def is_written(self) -> bool:
        """True if the output has been written without some answers."""
        return bool(self.journal.state("written"))

    @property
    def is_superseded(self) -> bool:
        """True if its output has been written, without some answers, and is no longer current."""
        return self.is_written and self.is_outdated

    def spool(self, name: str) -> Path:
        """Return the path of the spool with this name."""
        return self.folder / f"{name}.spool.ndjson"

    def holds(self, spool: Path, offset: int) -> bool:
        """Return whether the journal and the first `offset` bytes of a spool are still there."""
        try:
            return (self.folder / JOURNAL).is_file() and (
                not offset or spool.stat().st_size >= offset
            )
        except OSError:
            return False

    def close(self) -> None:
        """Close the journal, and release the lock."""
        self.journal.close()

    def remove(self) -> bool:
        """Delete the workspace of a complete or empty export, or log a warning if that fails.

        Returns:
            Whether nothing of it is left that a later run would resume.
        """
        try:
            if self.journal.is_empty():
                # A full disk has no room for a note of it, and none is needed.
                _delete_spools(self.folder)
            else:
                self._discard()
            self.journal.remove()
            # Files of other origin stay, and so does the folder then.
            with suppress(OSError):
                self.folder.rmdir()
            sync_folder(self.folder.parent)
        except (OSError, ExportError) as error:
            # Harmless: the same export would find everything complete and write the output again.
            logger.warning("%s cannot be removed: %s", self.folder, error)
            self.close()
            return not self._would_be_resumed()
        return True

    def _would_be_resumed(self) -> bool:
        path = self.folder / JOURNAL
        try:
            with Journal.peek(path) as journal:
                return not journal.state(OVER)
        except (OSError, ExportError):
            return path.exists()

    def clear(self) -> None:
        """Discard the export's progress."""
        self._discard()
        with self.journal.transaction():
            self.journal.clear()

    def _discard(self) -> None:
        # An interruption leaves a journal without spools, or spools without journal rows. This mark
        # shows the next export that they are being discarded, not damaged.
        # The mark alone, because a full disk may have no room for more until the spools are gone.
        with self.journal.transaction():
            self.journal.put_state(**{OVER: True})
        _delete_spools(self.folder)

    def __repr__(self) -> str:
        return f"Workspace({str(self.folder)!r})"


@contextmanager
def explaining_disk_errors(folder: Path) -> Iterator[None]:
    """Turn an `OSError` from before the export starts into an `ExportError`.

    It is an `Incomplete` if the disk is full: then the same call goes on once there is room.
    """
    try:
        yield
    except OSError as error:
        message = f"cannot write in {folder}: {error}"
        remedy = disk_remedy(error)
        again = f"{message}; {remedy}run the same call again, which resumes what it has kept"
        if not _is_full(error):
            raise ExportError(again if remedy else message) from error
        raise Incomplete(again, missing=[message]) from error


def disk_remedy(error: BaseException | None) -> str:
    """Return what is to be done before a call is repeated that the disk has refused.

    It ends in ", and "; it is empty where no remedy is known.
    """
    of_system = [one for one in _causes(error) if isinstance(one, OSError)]
    if _is_full(error):
        path = next((one.filename for one in of_system if one.filename is not None), None)
        where = "" if path is None else f" on the disk of {_lasting_folder(path)}"
        return f"free some space{where}, and "
    if any(one.errno == errno.EFBIG for one in of_system):
        return "raise the limit of a file's size (`ulimit -f`), and "
    fix = next(filter(None, map(more_files, of_system)), None)
    return "" if fix is None else f"{fix}, and "


def _lasting_folder(path: str | bytes) -> Path:
    """Return the folder that has an output or its records: those below may be gone by then."""
    # Absolute: a log that is read elsewhere does not have the current folder.
    file = Path(os.fsdecode(path)).absolute()
    of_exports = (one for one in file.parents if one.name.endswith((".export", ".partial")))
    return next(of_exports, file).parent


@contextmanager
def naming_full_disk(path: Path | None) -> Iterator[None]:
    """Have the error of a disk that is full name the file that is written there.

    The system does so only where it opens a file, and the records may be on another disk.

    Args:
        path: the file; None if there is none.
    """
    try:
        yield
    except OSError as error:
        # Only writing raises these. A file that is read meanwhile has others.
        if path is not None and error.filename is None and error.errno in TAKES_NO_MORE:
            error.filename = str(path)
        raise


_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))

TAKES_NO_MORE = (*_FULL, errno.EFBIG)
"""Codes of the system's errors where a disk, or a limit of a file's size, allows no more."""


def _is_full(error: BaseException | None) -> bool:
    """Return whether a disk without space, or without space for this user, is behind an error."""
    return any(
        (isinstance(one, OSError) and one.errno in _FULL) or sqlite_code(one) == sqlite3.SQLITE_FULL
        for one in _causes(error)
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and those that it was raised from."""
    while error is not None:
        yield error
        error = error.__cause__


OTHER_SPOOL = "another folder with `spool`"
"""The choice of a caller in place of a folder of records, in words."""


def made_folder(folder: Path, other: str = OTHER_SPOOL) -> None:
    """Create a folder that only this user can enter, unless it is there.

    Args:
        folder: the folder.
        other: what the caller may choose if it cannot be created, in words.

    Raises:
        ExportError: it cannot be created, or another user may have planted it or a file in it.
    """
    try:
        with suppress(FileExistsError):
            # No other user may read it: records are personal data.
            folder.mkdir(mode=0o700)
        check_own_folder(folder, OTHER_SPOOL)
        for path in files_in(folder):
            check_own_file(path, OTHER_SPOOL)
        sync_folder(folder.parent)
    except OSError as error:
        remedy = disk_remedy(error)
        raise ExportError(
            f"cannot create the folder {folder} for the export's progress: {error.strerror}; "
            + (
                f"{remedy}run the same call again"
                if remedy
                else f"choose {other}, or make {folder.parent} writable"
            )
        ) from error


def noted_origin(folder: Path) -> tuple[str, datetime] | None:
    """Return `run` and `began` of the workspace in a folder, if it has noted them."""
    try:
        run, began = msgspec.json.decode((folder / _ORIGIN).read_bytes(), type=tuple[str, int])
    except (OSError, msgspec.DecodeError):
        return None
    return run, _EPOCH + timedelta(microseconds=began)


def origin_in(folder: Path) -> tuple[str, datetime] | None:
    """Return what `noted_origin` does; without a note, as of an earlier version, by the journal.

    Raises:
        ExportLocked: another process has the journal open.
    """
    if (noted := noted_origin(folder)) is not None:
        return noted
    try:
        with Journal.peek(folder / JOURNAL) as journal:
            run, began = journal.state("run"), journal.state("began")
    except ExportLocked:
        raise
    except (OSError, ExportError):
        return None
    if run is None or began is None:
        return None
    return str(run), _EPOCH + timedelta(microseconds=began)


def files_in(folder: Path) -> Iterator[Path]:
    """Yield the files of a workspace that are in `folder`."""
    for pattern in (f"{JOURNAL}*", _SPOOLS, f"{_MARKS}*", f"{STAGED}*", _PEOPLE, _ORIGIN):
        yield from folder.glob(pattern)


def _now() -> int:
    return time.time_ns() // 1000


def is_outdated(began: datetime) -> bool:
    """Return whether what was gathered by an export that was begun then is no longer current."""
    return _now() - (began - _EPOCH) // timedelta(microseconds=1) > _CURRENT_FOR * 1_000_000


def oldest_change(folder: Path) -> float:
    """Return the time of the oldest file of a workspace, in epoch seconds; now without any."""
    times = []
    for path in files_in(folder):
        with suppress(OSError):
            times.append(path.lstat().st_mtime)
    return min(times, default=time.time())


def _cleared(folder: Path, journal: Journal) -> Journal:
    """Discard the progress of an export, and return the journal to go on with."""
    try:
        Workspace(folder, journal).clear()
    except OSError as error:
        if not _is_full(error):
            raise
    else:
        return journal
    # A full disk has no room for a note of it. An interruption leaves a journal without spools,
    # whose records are fetched again.
    journal.close()
    _delete_spools(folder)
    return _new_journal(folder)


def _new_journal(folder: Path) -> Journal:
    # The journal first: it may be damaged without its log.
    _delete(folder, JOURNAL, f"{JOURNAL}-*")
    return Journal.open(folder / JOURNAL)


def delete_stray_logs(folder: Path) -> None:
    """Delete the log of a journal that is gone, as of a run that was killed in between.

    SQLite deletes it where it makes a journal, but would put it into one that moves there.
    """
    if not (folder / JOURNAL).exists():
        _delete(folder, f"{JOURNAL}-*")


def _delete_spools(folder: Path) -> None:
    _delete(folder, _SPOOLS, f"{_MARKS}*", f"{STAGED}*", _PEOPLE, _ORIGIN)


def _check_empty(folder: Path) -> None:
    if any(folder.glob(_SPOOLS)):
        raise ExportError(
            f"{folder} holds parts of an export, but its journal is missing or empty, so that "
            f"they cannot be resumed; restore {JOURNAL}, or discard them with {DISCARD}"
        )


def _delete(folder: Path, *patterns: str) -> None:
    for pattern in patterns:
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)
