"""The folder `<to>.export`: a workspace for each plan of one output, and one lock. Blocking.

The workspace of a plan is a folder that has the plan's name, so that one plan never stands in
the way of another. The keys of a lookup belong to its plan and are known once they have been read,
perhaps from a source that can be read only once. They are read into the folder `reading`, whose
journal then moves to the folder of the plan, unless there is one already.

Earlier versions had one plan only, in the folder itself. Its files move to the folder of that
plan, the journal last: as long as it is in the old place, the next start moves the rest.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from datetime import datetime
from pathlib import Path
from typing import Self
from uuid import uuid4

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from ...base.paths import check_own_file
from ...base.wording import numbered
from ...errors import ExportError, ExportLocked, PlanMismatch
from ..plan import EventsPlan, Plan, check_same
from .journal import Journal
from .key_table import FOUND, NOT_FOUND
from .lock import Lock
from .spool import sync_folder, write_durably
from .workspace import (
    JOURNAL,
    OTHER_SPOOL,
    OVER,
    Workspace,
    delete_stray_logs,
    explaining_disk_errors,
    files_in,
    made_folder,
)

__all__ = [
    "LOCK",
    "SUPERSEDED",
    "UPLOAD",
    "Appended",
    "Ended",
    "Workspaces",
    "workspaces_in",
    "workspaces_of_ended",
]

logger = logging.getLogger("altaprofiles")

LOCK = "lock.sqlite"
"""The name of the lock, in the folder of an output."""

UPLOAD = "upload"
"""The beginning of the names of files that are uploaded, in the folder of a remote output."""

SUPERSEDED = "its last run has written the output, though not all answers, and is hours old"
"""The reason why a plan without days begins anew: it would bring the same data every night."""

_AT_ONCE = 10_000
"""Keys that are in memory at a time."""

_LATER = "another lookup has written a later answer"

_READING = "reading"
_ENDED = "ended.json"
_NOTES = "ended-*.json"
_PARTIAL = f"{_ENDED}.partial"
_NAME = re.compile(r"[a-z]+-[0-9a-f]{16}(-[0-9]+)?")


class Appended(Struct, frozen=True):
    """The rows of one account that a run has appended.

    Attributes:
        run, began: of the workspace; see `Workspace`.
        account: the account.
        name: its name in the report, if that is of several accounts.
        rows: their number.
        flattened: the keys with a column.
    """

    run: str
    began: datetime
    account: str
    name: str
    rows: int
    flattened: list[str]


class Ended(Struct, frozen=True):
    """The end of an export, which is complete.

    Attributes:
        names: the plans of its workspaces.
        runs: the rows of each, if it must not be run again.
        report: its report as JSON, if it must not be run again; None if that does no harm.
        known: the plans, without windows, that a run of some of the accounts has found complete.
    """

    names: list[str]
    runs: list[Appended] = []
    report: str | None = None
    known: list[str] = []

    def of(self, stores: Sequence[Workspace]) -> list[Appended]:
        """Return the rows of the plans of some workspaces, whatever their windows."""
        families = _families(_names(stores))
        pairs = zip(self.names, self.runs, strict=True)
        return [run for name, run in pairs if _family_of(name) in families]


_DECODER: msgspec.json.Decoder[Ended | list[str]] = msgspec.json.Decoder(Ended | list[str])


def workspaces_of_ended(folder: Path) -> set[Path]:
    """Return the workspaces in a folder whose exports are complete, and which are being removed."""
    notes = filter(None, map(_note_in, folder.glob(_NOTES)))
    pairs = [pair for note in notes for pair in zip(note.names, note.runs, strict=False)]
    # Another export of the same plan may have begun since.
    return {folder / name for name, one in pairs if _run_in(folder / name) in (None, one.run)}


def workspaces_in(folder: Path) -> Iterator[Path]:
    """Yield the folder of each workspace, by name; and first `folder`, if an earlier version did.

    Raises:
        OSError: `folder` cannot be read.
    """
    if next(files_in(folder), None) is not None:
        yield folder
    for path in sorted(folder.iterdir()):
        if _NAME.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
            yield path


class Workspaces:
    """The workspaces of one output. No other process can open them while this object does.

    Attributes:
        folder: the folder that holds them.
        turn: held by one of several jobs that work on the output, while it looks into it or writes.
        syncing: the accounts of the syncs that work on it.
        frees: called by `leave_behind`, to free what jobs hold besides.
    """

    def __init__(self, folder: Path, lock: Lock) -> None:
        self.folder = folder
        self.turn = asyncio.Lock()
        self.syncing: set[str] = set()
        self.frees: list[Callable[[], object]] = []
        self._stores: list[Workspace] = []
        self._is_left_behind = False
        self._lock = lock
        self._ended: dict[Path, Ended] = {}

    @classmethod
    def open(cls, folder: Path, *, resume: bool, other: str = OTHER_SPOOL) -> Self:
        """Open the workspaces in `folder`, which is created if it is missing.

        Args:
            folder: the folder.
            resume: whether what an earlier version has left there is an error if it cannot be
                read; if not, it is discarded.
            other: as for `made_folder`.

        Raises:
            ExportLocked: another export works on the same output.
            ExportError: the folder cannot be used, or what an earlier version has left there.
        """
        while True:
            made_folder(folder, other)
            with explaining_disk_errors(folder):
                try:
                    check_own_file(folder / LOCK, OTHER_SPOOL)
                    lock = Lock.acquire(folder / LOCK)
                except FileNotFoundError:
                    # Another export has removed the folder at its end.
                    continue
            workspaces = cls(folder, lock)
            try:
                with explaining_disk_errors(folder):
                    workspaces._tidy(resume)
            except BaseException:
                workspaces.close()
                raise
            return workspaces

    def _tidy(self, resume: bool) -> None:
        (self.folder / _PARTIAL).unlink(missing_ok=True)
        # A run was killed while it uploaded them. They are assembled again.
        for path in self.folder.glob(f"{UPLOAD}*"):
            path.unlink()
        if (self.folder / _ENDED).exists():
            self._finish_end()
        for path in self.folder.glob(_NOTES):
            if (note := _note_in(path)) is None:
                path.unlink()
            else:
                self._ended[path] = note
        # The keys are read again: whether a run that was killed had read all of them is unknown.
        if (self.folder / _READING).exists():
            self.discard(_READING)
        for path in list(workspaces_in(self.folder)):
            if path == self.folder:
                self._move_in(resume)
            elif next(files_in(path), None) is None:
                # A run was killed before it began there, or after it had ended.
                with suppress(OSError):
                    path.rmdir()

    def _move_in(self, resume: bool) -> None:
        """Move the unfinished export of an earlier version into the folder of its plan."""
        try:
            store = Workspace.open(self.folder, resume=True)
        except ExportLocked:
            raise
        except ExportError:
            # Nobody can know whose it is.
            if resume:
                raise
            store = Workspace.open(self.folder, resume=False)
        plan = store.begun()
        if plan is None or plan.name is None or store.journal.is_empty():
            store.remove()
            return
        try:
            # A kill between two moves would part it from its log.
            store.journal.merge_log()
        finally:
            store.close()
        folder = self.folder / plan.name
        if (folder / JOURNAL).exists():
            # The earlier version was used again after this one, so that its export is newer.
            self.discard(plan.name)
        made_folder(folder)
        delete_stray_logs(folder)
        for path in sorted(files_in(self.folder), key=lambda path: path.name == JOURNAL):
            path.replace(folder / path.name)
        sync_folder(folder)
        sync_folder(self.folder)

    def newest(self, plan: EventsPlan) -> EventsPlan | None:
        """Return the plan of the newest unfinished export that differs in windows at most."""
        found = [(_began(path), path.name) for path in self.family(plan)]
        ended = [name for note in self._ended.values() for name in note.names]
        found += [(-1.0, name) for name in ended if _family_of(name) == plan.family]
        if not found:
            return None
        _, name = max(found)
        return msgspec.structs.replace(plan, windows=int(name.rpartition("-")[2]))

    def discard_family(self, plan: EventsPlan) -> None:
        """Discard every unfinished export that differs from `plan` in windows at most."""
        for path in list(self._ended):
            self._drop(path, {plan.family})
        for path in self.family(plan):
            self.discard(path.name)

    def family(self, plan: EventsPlan) -> list[Path]:
        """Return the workspaces of the plans that differ from `plan` in windows at most."""
        paths = workspaces_in(self.folder)
        return [path for path in paths if _family_of(path.name) == plan.family]

    def take(self, plan: Plan, *, resume: bool) -> Workspace:
        """Return the workspace of `plan`, which is created if there is none.

        Args:
            plan: the plan. If its keys are not known yet, the workspace is an empty one for them.
            resume: whether an unfinished export there is resumed; if not, it is discarded.

        Raises:
            ExportError: the workspace cannot be resumed, or cannot be written to.
        """
        folder = self.folder / (plan.name or _READING)
        resume = resume and plan.name is not None
        while True:
            try:
                store = Workspace.open(folder, resume=resume)
            except ExportError as error:
                if not resume or not self._was_to_be_removed(folder, error):
                    raise
                logger.warning("%s; it is discarded, as that export was complete", error)
                resume = False
            else:
                self._stores.append(store)
                return store

    def _was_to_be_removed(self, folder: Path, error: ExportError) -> bool:
        """Return whether a workspace that cannot be read is of an export whose end is noted."""
        is_of_others = isinstance(error, ExportLocked) or isinstance(error.__cause__, OSError)
        return not is_of_others and any(folder.name in one.names for one in self._ended.values())

    def settle(self, read: Workspace, plan: Plan, *, resume: bool) -> tuple[Workspace, bool]:
        """Return the workspace of `plan`, whose keys have been read.

        Args:
            read: the workspace that `take` has returned for the keys, with all of them. It is
                closed.
            plan: the plan, complete.
            resume: as for `take`.

        Returns:
            The workspace, and whether it is one of an earlier run; if not, it is `read` in its
            place.

        Raises:
            PlanMismatch: the workspace holds another plan, because its folder was renamed.
            ExportError: as from `take`.
        """
        store = self.take(plan, resume=resume)
        if store.begun() is not None and store.is_superseded:
            logger.warning("%s is begun anew: %s", plan.subject, SUPERSEDED)
            store.clear()
        if (begun := store.begun()) is not None:
            try:
                check_same(begun, plan, str(store.folder))
            except PlanMismatch:
                store.close()
                raise
            read.remove()
            return store, True
        # It holds nothing, except perhaps files of other origin.
        store.journal.remove()
        read.journal.merge_log()
        read.close()
        journal = store.folder / JOURNAL
        (read.folder / JOURNAL).replace(journal)
        sync_folder(store.folder)
        with suppress(OSError):
            read.folder.rmdir()
        sync_folder(self.folder)
        return self.take(plan, resume=True), False

    def fail_others(self, store: Workspace) -> None:
        """Make the keys that a lookup has answered failed ones in others of the same account.

        Rows of the output have no time by which the later ones would stay. So no unfinished lookup
        keeps an answer that may be older than the rows of its key: it asks for failed keys again.

        Args:
            store: the workspace of the lookup, open. The output has none of its rows yet.

        Raises:
            ExportError: the disk refuses.
        """
        own = store.begun()
        opened = {one.folder for one in self._stores}
        for folder in [*workspaces_in(self.folder)]:
            if folder in opened or not (folder / JOURNAL).exists():
                continue
            try:
                with closing(Workspace.open(folder, resume=True)) as other:
                    plan = other.begun()
                    if own is not None and plan is not None and plan.account == own.account:
                        self._fail_keys(store, other, plan)
            except ExportError as error:
                # One that cannot be read, nobody can resume.
                if isinstance(error, ExportLocked) or isinstance(error.__cause__, OSError):
                    raise

    def _fail_keys(self, store: Workspace, other: Workspace, plan: Plan) -> None:
        failed = 0
        with explaining_disk_errors(other.folder), other.journal.transaction():
            for answers in store.journal.keys.in_order((FOUND, NOT_FOUND), _AT_ONCE):
                keys = [answer.key for answer in answers]
                failed += other.journal.keys.fail_answered(keys, ExportError.__name__, _LATER)
        if failed:
            logger.warning(
                "%s is unfinished, and asks again for %s whose rows this one writes",
                plan.subject,
                numbered(failed, "key"),
            )

    def discard(self, name: str) -> bool:
        """Discard the workspace in the folder of this name; return as `Workspace.remove` does."""
        return Workspace.open(self.folder / name, resume=False).remove()

    def end(
        self,
        stores: Sequence[Workspace],
        report: bytes | None = None,
        runs: Sequence[Appended] = (),
    ) -> list[Path]:
        """Remove the workspaces of a complete export. A note of it stays until `note_known`.

        If this is killed, the next start removes the rest. Otherwise a later run would gather again
        those that are gone only, and add their rows once more.

        Args:
            stores: the workspaces.
            report: the report, if the same export must not be run again when this is killed; then
                `ended` returns it to the next run.
            runs: the rows of each workspace, with a report.

        Returns:
            The folders that could not be removed. They make the next run of the same export return
            the report of this one, if it is kept.
        """
        note = self.note_of(stores)
        if note is None and (report is not None or len(stores) > 1):
            try:
                note = self._write_note(stores, report, runs)
            except OSError as error:
                # A full disk has room for less, and gets more as the files go.
                logger.warning("%s cannot be written to: %s", self.folder, error)
        remains = [store.folder for store in stores if not store.remove()]
        if note is not None:
            others = self._of_families(note, _families(_names(stores)))
            remains += self._discard_others(others, _names(stores))
        return remains

    def note_of(self, stores: Sequence[Workspace]) -> Path | None:
        """Return the note of the complete export of these workspaces, or None if it has none."""
        families = _families(_names(stores))
        notes = self._ended.items()
        return next((path for path, one in notes if families <= _families(one.names)), None)

    def note_known(self, note: Path, stores: Sequence[Workspace]) -> bool:
        """Note that the caller gets the report, so that the next run is a new one.

        The note is forgotten once that is so of all its plans.

        Args:
            note: the result of `note_of`.
            stores: the workspaces, which `end` has removed.

        Returns:
            Whether that could be written. If not, the next run returns the report once more.
        """
        one, families = self._ended[note], _families(_names(stores))
        known = families.union(one.known)
        if known >= _families(one.names):
            return self._forget(note)
        try:
            self._put_note(note, replace(one, known=sorted(known)))
        except OSError as error:
            logger.warning("%s cannot be written to: %s", note, error)
            return False
        return True

    def ended(self, stores: Sequence[Workspace], *, is_anew: bool) -> Ended | None:
        """Return a run of these plans that was killed at its end, if it left its report.

        As long as nothing of it is gone, it is resumed as any other, and None is returned.

        Args:
            stores: the workspaces, open; those of the run are among them, or removed in part.
            is_anew: whether the export is begun anew. Then such a run is forgotten.
        """
        opened = {_family_of(store.folder.name): store for store in stores}
        for path, note in list(self._ended.items()):
            if opened.keys().isdisjoint(_families(note.names)):
                continue
            if is_anew:
                self._drop(path, opened.keys(), _names(stores))
            elif not self._is_whole(note, opened):
                return note
            elif _families(note.names) <= opened.keys():
                self._forget(path)
        return None

    def forget(self, ended: Ended, stores: Sequence[Workspace]) -> None:
        """Forget a run that `ended` has returned, as far as its rows are gone.

        Args:
            ended: the run.
            stores: the workspaces of the plans of those rows, open.
        """
        for path, note in list(self._ended.items()):
            if note is ended:
                self._drop(path, _families(_names(stores)), _names(stores))

    def _is_whole(self, note: Ended, opened: Mapping[str, Workspace]) -> bool:
        """Return whether those workspaces of a run that are open are as it has left them."""
        pairs = zip(note.names, note.runs, strict=True)
        own = [(name, run, opened.get(_family_of(name))) for name, run in pairs]
        return all(
            store is None or (store.folder.name == name and store.run == run.run)
            for name, run, store in own
        )

    def _drop(self, path: Path, families: Collection[str], opened: Sequence[str] = ()) -> None:
        """Drop plans from a note, and their workspaces unless they are open.

        Args:
            path: the note.
            families: the plans, without windows.
            opened: the plans whose workspaces are open.
        """
        names = self._of_families(path, families)
        with explaining_disk_errors(self.folder):
            self._take_out(path, families)
        self._discard_others(names, opened)

    def _of_families(self, path: Path, families: Collection[str]) -> list[str]:
        return [name for name in self._ended[path].names if _family_of(name) in families]

    def _take_out(self, path: Path, families: Collection[str]) -> bool:
        """Take plans out of a note; return whether it says nothing of them any more."""
        note = self._ended[path]
        gone = self._of_families(path, families)
        pairs = zip(note.names, note.runs, strict=False)
        others = {name: run for name, run in pairs if name not in gone}
        if not others:
            return self._forget(path)
        if gone:
            known = sorted({*note.known}.difference(families))
            self._put_note(path, Ended([*others], [*others.values()], note.report, known))
        return True

    def _discard_others(self, names: Sequence[str], opened: Sequence[str]) -> list[Path]:
        """Discard workspaces of a complete export that are not open; return those that stay."""
        remains = []
        for folder in [self.folder / name for name in names if name not in opened]:
            try:
                is_gone = not folder.is_dir() or self.discard(folder.name)
            except (OSError, ExportError) as error:
                logger.warning("%s cannot be removed: %s", folder, error)
                is_gone = False
            if not is_gone:
                remains.append(folder)
        return remains

    def _write_note(
        self, stores: Sequence[Workspace], report: bytes | None, runs: Sequence[Appended]
    ) -> Path:
        text = None if report is None else report.decode()
        # Each run has its own, because another plan may be run before this one is again. Not by a
        # run's name, as a note of several accounts outlives those that are run again.
        path = self.folder / (_ENDED if text is None else _NOTES.replace("*", uuid4().hex))
        self._put_note(path, Ended(_names(stores), [*runs], text))
        return path

    def _put_note(self, path: Path, note: Ended) -> None:
        partial = self.folder / _PARTIAL
        write_durably(partial, msgspec.json.encode(note))
        partial.replace(path)
        self._ended[path] = note
        sync_folder(self.folder)

    def _finish_end(self) -> None:
        """Remove the workspaces of an export that was killed while it removed them."""
        path = self.folder / _ENDED
        for name in [] if (ended := _note_in(path)) is None else ended.names:
            if _NAME.fullmatch(name) and (self.folder / name).is_dir():
                self.discard(name)
        path.unlink()

    def _forget(self, path: Path) -> bool:
        """Delete a note; return whether it says nothing any more."""
        self._ended.pop(path, None)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            logger.warning("%s cannot be removed: %s", path, error)
            try:
                os.truncate(path, 0)
            except OSError:
                return False
        return True

    def leave_behind(self) -> None:
        """Free everything, as the end of the process would: nothing goes on with the jobs."""
        self._is_left_behind = True
        for free in (*self.frees, *(store.close for store in self._stores)):
            free()
        self._lock.release()

    def close(self) -> None:
        """Release the lock, and remove the folder unless it holds anything."""
        if self._is_left_behind:
            # The lock may be that of another run by now.
            return
        try:
            if [path.name for path in self.folder.iterdir()] == [LOCK]:
                self._lock.remove()
                # Another export may have locked it again.
                with suppress(OSError):
                    self.folder.rmdir()
        except OSError as error:
            logger.warning("%s cannot be removed: %s", self.folder, error)
        finally:
            self._lock.release()

    def sync_removal(self) -> None:
        """Sync the removal of the folder, if `close` has removed it, against a power cut."""
        with suppress(OSError):
            if not self._is_left_behind and not self.folder.exists():
                sync_folder(self.folder.parent)

    def __repr__(self) -> str:
        return f"Workspaces({str(self.folder)!r})"


def _family_of(name: str) -> str:
    """Return the name of a plan without its windows."""
    return "-".join(name.split("-")[:2])


def _families(names: Sequence[str]) -> set[str]:
    return {*map(_family_of, names)}


def _names(stores: Sequence[Workspace]) -> list[str]:
    return [store.folder.name for store in stores]


def _note_in(path: Path) -> Ended | None:
    """Return the note in a file, or None if it is none."""
    check_own_file(path, OTHER_SPOOL)
    try:
        found = _DECODER.decode(path.read_bytes())
    except (msgspec.DecodeError, FileNotFoundError):
        return None
    # An earlier version has written the names alone.
    return Ended(found) if isinstance(found, list) else found


def _run_in(folder: Path) -> str | None:
    """Return the run in a workspace that is not open, or None if it is gone or being discarded."""
    try:
        with Journal.peek(folder / JOURNAL) as journal:
            return None if journal.state(OVER) else str(journal.state("run"))
    except (OSError, ExportError):
        return None


def _began(path: Path) -> float:
    """Return the time at which an unfinished export was begun, or -1 if it cannot be read."""
    try:
        with Journal.peek(path / JOURNAL) as journal:
            return float(journal.state("began") or 0)
    except (OSError, ExportError):
        return -1.0
