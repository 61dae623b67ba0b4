"""The folder in which an export gathers: its journal and its spools. Blocking."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

import msgspec

from ...errors import ExportError, ExportLocked
from ..plan import Plan, check_same, parse_plan
from .journal import Journal
from .spool import sync_folder

__all__ = ["Workspace", "writing_in"]

logger = logging.getLogger("altaprofiles")

_JOURNAL = "journal.sqlite"
_SPOOLS = "*.spool.ndjson"
_PEOPLE = "people.sqlite"
_OVER = "over"


class Workspace:
    """What one export has on disk until it is done; nobody else can open it meanwhile.

    Attributes:
        journal: how far it has come.
        people: where the finishing pass may keep whom it has seen.
    """

    def __init__(self, folder: Path, journal: Journal) -> None:
        self.folder = folder
        self.journal = journal
        self.people = folder / _PEOPLE

    @classmethod
    def open(cls, folder: Path, *, resume: bool) -> Self:
        """Open what is in `folder`, or make it anew.

        Args:
            folder: made when missing.
            resume: whether what is there is gone on with, or discarded.

        Raises:
            ExportLocked: somebody else has it open.
            ExportError: what is there cannot be used, or nothing can be written there.
        """
        try:
            # For nobody else to read: these are people.
            folder.mkdir(mode=0o700, exist_ok=True)
            sync_folder(folder.parent)
        except OSError as error:
            raise ExportError(
                f"cannot make the folder {folder}, where the export gathers: {error.strerror}; "
                f"choose another `to`, or another folder with `spool`"
            ) from error
        with writing_in(folder):
            return cls._open(folder, resume)

    @classmethod
    def _open(cls, folder: Path, resume: bool) -> Self:
        path = folder / _JOURNAL
        try:
            journal = Journal.open(path)
        except ExportLocked:
            raise
        except ExportError:
            if resume:
                raise
            _delete(folder, _JOURNAL, f"{_JOURNAL}-*")
            journal = Journal.open(path)
        try:
            if not resume or journal.state(_OVER):
                cls(folder, journal).clear()
            elif journal.state("plan") is None:
                _check_empty(folder)
        except BaseException:
            journal.close()
            raise
        return cls(folder, journal)

    def begun(self) -> Plan | None:
        """Return the plan of what is here, or None when nothing is."""
        kept = self.journal.state("plan")
        if kept is None:
            return None
        try:
            return parse_plan(kept)
        except msgspec.DecodeError as error:
            raise ExportError(f"the plan in {self.folder} cannot be read: {error}") from None

    def begin(self, plan: Plan) -> None:
        """Take `plan` as what is done here.

        Raises:
            PlanMismatch: something else has been begun.
        """
        if (begun := self.begun()) is not None:
            check_same(begun, plan, str(self.folder))
        with self.journal.transaction():
            self.journal.put_state(plan=plan.encode())
        sync_folder(self.folder)

    def spool(self, name: str) -> Path:
        """Return where a spool of this name is."""
        return self.folder / f"{name}.spool.ndjson"

    def close(self) -> None:
        """Let others open it, or what is left of it later on."""
        self.journal.close()

    def remove(self) -> None:
        """Delete all of it if that can be done. What it has been for is done, or not begun."""
        try:
            self.clear()
            self.journal.remove()
            # Whatever somebody else has put there stays.
            with suppress(OSError):
                self.folder.rmdir()
            sync_folder(self.folder.parent)
        except (OSError, ExportError) as error:
            # The same export would find that it is complete, and put it in place again.
            logger.warning("%s cannot be removed: %s", self.folder, error)
            self.close()

    def clear(self) -> None:
        """Forget and delete what has gathered."""
        # Interrupted here, it is a journal without spools, or spools without a journal. Whoever
        # opens it then must know that nothing is amiss.
        with self.journal.transaction():
            self.journal.clear()
            self.journal.put_state(**{_OVER: True})
        _delete(self.folder, _SPOOLS, f"{_PEOPLE}*")
        with self.journal.transaction():
            self.journal.clear()

    def __repr__(self) -> str:
        return f"Workspace({str(self.folder)!r})"


@contextmanager
def writing_in(folder: Path) -> Iterator[None]:
    """Let what the disk refuses before anything has begun be told as what it is."""
    try:
        yield
    except OSError as error:
        raise ExportError(f"cannot write in {folder}: {error}") from error


def _check_empty(folder: Path) -> None:
    if any(folder.glob(_SPOOLS)):
        raise ExportError(
            f"{folder} holds parts of an export, and its journal is missing or empty, so that "
            f"nothing tells what they are; restore {_JOURNAL}, or discard what there is with "
            f"`resume=False`"
        )


def _delete(folder: Path, *patterns: str) -> None:
    for pattern in patterns:
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)
