"""What both kinds of export are: a run in a workspace, which another run can go on with."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Generic, TypedDict, TypeVar

import anyio
from msgspec import Struct

from ..errors import AltaProfilesError, ExportError, Incomplete
from ..http.limits import Cap
from ..models import Stats
from .assemble import Output
from .manifest import encode_manifest
from .plan import LookupPlan, Plan
from .report import ExportProgress, ExportReport, LookupProgress, LookupReport
from .sinks import Target
from .sinks.files import check_place, write_file
from .store.workspace import Workspace, writing_in
from .threads import Threads, alongside

__all__ = ["Job", "Setting"]

P = TypeVar("P", Plan, LookupPlan)
R = TypeVar("R", ExportReport, LookupReport)
S = TypeVar("S", ExportProgress, LookupProgress)


_TELL_EVERY = 1.0
"""Seconds after which progress is told even if nothing has arrived."""


class Setting(Struct, frozen=True):
    """Where a run takes place.

    Attributes:
        threads: where what blocks is done.
        cap: the slots.
        tally: counts the requests of this export alone.
        target: where to.
        folder: where it gathers.
        manifest: where the manifest goes.
        beside: other files that are written.
        options: what else the manifest tells of how it was asked for.
        resume: whether what an earlier run left is gone on with.
    """

    threads: Threads
    cap: Cap
    tally: Stats
    target: Target
    folder: Path
    manifest: Path
    beside: tuple[Path, ...]
    options: dict[str, Any]
    resume: bool


class Totals(TypedDict):
    """What reports of both kinds tell alike."""

    output: str
    manifest: str
    format: str
    complete: bool
    requests: int
    retries: int
    seconds: float
    bytes: int | None
    sha256: str | None
    mended: int


class Traffic(TypedDict):
    """What is told of the requests, of both kinds, while they run."""

    requests: int
    retries: int
    in_flight: int
    slots: int
    seconds: float


class _Before(Struct):
    """What earlier runs came to."""

    requests: int = 0
    retries: int = 0
    seconds: float = 0.0


class Job(ABC, Generic[P, R]):
    """One run of one export."""

    KEPT: ClassVar[str]
    """What `kept` counts."""

    def __init__(self, setting: Setting, plan: P) -> None:
        self.plan: P = plan
        self.setting = setting
        self.threads = setting.threads
        self._began = time.monotonic()
        self._before = _Before()
        self._begun = self._done = False
        self._failure_of_caller: Exception | None = None

    async def run(self) -> R:
        """Bring everything, put it in place, and return what it came to.

        Raises:
            ExportError: it cannot begin, or something is missing at its end (`Incomplete`).
            AltaProfilesError: the service refuses all of it.
        """
        setting = self.setting
        work = await self.threads.run(lambda: Workspace.open(setting.folder, resume=setting.resume))
        try:
            async with alongside(self._tell_on):
                await self.load(work)
                report = await self._bring_and_finish(work)
            self._done = True
            return report
        finally:
            with anyio.CancelScope(shield=True):
                await self.threads.run(lambda: self._leave(work))
            self.threads.close()

    async def _bring_and_finish(self, work: Workspace) -> R:
        try:
            await self.fetch(work)
            return await self.finish(work)
        except (OSError, ExportError) as error:
            if isinstance(error, Incomplete) or self.is_caller_s(error):
                raise
            raise self.incomplete([str(error)]) from error
        except AltaProfilesError as error:
            if self.kept:
                error.add_note(f"{self._what_there_is}.")
            raise

    @abstractmethod
    async def load(self, work: Workspace) -> None:
        """Take up what is in the workspace."""

    @abstractmethod
    async def fetch(self, work: Workspace) -> None:
        """Bring what is not in the workspace yet."""

    @abstractmethod
    def tell(self) -> None:
        """Tell whoever wants to know where it is, if there is anything to tell."""

    @abstractmethod
    async def finish(self, work: Workspace) -> R:
        """Make the output of what is in the workspace."""

    @abstractmethod
    def describe(self, *, complete: bool, output: Output | None = None) -> R:
        """Return the report of what there is."""

    @property
    @abstractmethod
    def kept(self) -> int:
        """How much another run can go on with."""

    def call_back(self, on_progress: Callable[[S], object], progress: S) -> None:
        """Call the caller's function, and know what it raises for what it is."""
        if self._failure_of_caller is not None:
            # It has ended the export, and is not asked again while that unwinds.
            return
        try:
            on_progress(progress)
        except Exception as error:
            self._failure_of_caller = error
            raise

    def is_caller_s(self, error: Exception) -> bool:
        """Whether the caller's function has raised `error`."""
        return error is self._failure_of_caller

    def begin(self, work: Workspace) -> None:
        """Make the workspace this export's. Blocking."""
        with writing_in(self.setting.folder):
            work.begin(self.plan)
            journal = work.journal
            kept = {name: journal.state(name) for name in _Before.__struct_fields__}
            self._before = _Before(**{name: was for name, was in kept.items() if was is not None})
            self._begun = True
            # Not before it is known that nobody else is writing there.
            self.setting.target.check()
            for path in (self.setting.manifest, *self.setting.beside):
                check_place(path, str(path))

    def put_totals(self, work: Workspace) -> None:
        """Journal what this run and earlier ones came to, inside a transaction. Blocking."""
        work.journal.put_state(
            requests=self._before.requests + self.setting.tally.requests,
            retries=self._before.retries + self.setting.tally.retries,
            seconds=self._before.seconds + self.seconds,
        )

    async def put_manifest(self, report: R) -> None:
        """Write the manifest."""
        written = datetime.now(UTC).isoformat(timespec="seconds")
        data = encode_manifest(report, self.plan, self.setting.options, written)
        await self.threads.run(lambda: write_file(self.setting.manifest, [data]))

    def incomplete(self, missing: Sequence[str], report: R | None = None) -> Incomplete:
        """Return the error that says what is missing."""
        listed = "".join(f"\n  {part}" for part in missing)
        return Incomplete(
            f"the export to {self.setting.target.name} is not complete:{listed}\n"
            f"{self._what_there_is}",
            missing=missing,
            report=report or self.describe(complete=False),
        )

    def totals(self, *, complete: bool, output: Output | None) -> Totals:
        """Return what the report says of any export."""
        return {
            "output": self.setting.target.name,
            "manifest": str(self.setting.manifest),
            "format": self.setting.target.format,
            "complete": complete,
            "requests": self._before.requests + self.setting.tally.requests,
            "retries": self._before.retries + self.setting.tally.retries,
            "seconds": round(self._before.seconds + self.seconds, 3),
            "bytes": None if output is None else output.bytes,
            "sha256": None if output is None else output.sha256,
            "mended": 0 if output is None else output.mended,
        }

    def traffic(self) -> Traffic:
        """Return what progress says of the requests of any export."""
        return {
            "requests": self._before.requests + self.setting.tally.requests,
            "retries": self._before.retries + self.setting.tally.retries,
            "in_flight": self.setting.cap.in_flight,
            "slots": self.setting.cap.limit,
            "seconds": self.seconds,
        }

    @property
    def seconds(self) -> float:
        """Since this run began."""
        return time.monotonic() - self._began

    @property
    def _what_there_is(self) -> str:
        if not self.kept:
            return "nothing of it has been kept; run the same export again"
        where = self.setting.folder
        return f"{self.kept:,} {self.KEPT} are in {where}; run the same export again to go on there"

    async def _tell_on(self) -> None:
        # When nothing arrives, it is retries and slots that say why; and some databases take what
        # they are given in one long statement.
        while True:
            await anyio.sleep(_TELL_EVERY)
            self.tell()

    def _leave(self, work: Workspace) -> None:
        # What has ended this run must not be hidden by another error.
        with suppress(OSError, ExportError):
            # By what is on the disk: this run may have ended before it knew. With nothing there,
            # there is nothing to go on with, and a plan that would be in the way of another.
            if self._done or (self._begun and work.journal.is_empty()):
                work.remove()
                return
            if self._begun:
                with work.journal.transaction():
                    self.put_totals(work)
        work.close()
