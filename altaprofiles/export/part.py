"""The share of one account in an export: its gathering, in a workspace of its own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import Any, Generic, TypeVar

from msgspec.structs import replace

from ..base.wording import failed_alone
from ..errors import AltaProfilesError, ExportError
from ..tables.kinds import Kinds
from ..tables.mended import Mended
from ..tables.rows import Row
from .ahead import Ahead, Block, WritesAny
from .assemble import Written
from .gather.gathering import Arriving, Assembled, Gathering, Run
from .output import Output
from .place import Place
from .plan import EventsPlan
from .report import Progress, Report
from .reporting import Reporting
from .sinks import Encoder, Target
from .store.people import People
from .store.spool import SpoolDamaged, Whole
from .store.workspaces import Workspaces
from .threads import Threads, running_beside
from .unfinished import encode_arguments

__all__ = ["Part"]

logger = logging.getLogger("altaprofiles")

R = TypeVar("R", bound=Report)
S = TypeVar("S", bound=Progress)

_REPAIRS = 2
"""Repairs of the store in one run before its disk counts as broken."""


_TOGETHER = ("accounts", "account")
"""The arguments of an export of several accounts: their names, and that of its own."""

_FILES = frozenset({"not_found_file", "failed_file"})
"""Members of a report that name files beside the output."""


class Part(Generic[R, S]):
    """The records of one account for an output.

    Args:
        gathering: the kind of export.
        reporting: counts requests and reports progress.
        name: the name of the account, for an export of several; else None.
        before: the arguments of the unfinished export that it finishes, if any.

    Attributes:
        gathering, name: the arguments.
        error: the error that has ended it, of an export of several.
        on_failure: called when an error ends it.
        assembled: the progress of the output, or None.
        people: the number of its records in the output; None if they are not in it.
        has_files: whether the files of keys beside the output are in place, if it has some.
        warnings: warnings about a complete output.
        is_open: whether the workspace is open.
        ahead: the rows that are encoded already, or None.
        kinds: has observed those rows, or None.
    """

    run: Run
    """The parts that its gathering works with, from `open` on."""

    def __init__(
        self,
        gathering: Gathering[R, S],
        reporting: Reporting[S],
        name: str | None = None,
        *,
        before: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self.gathering = gathering
        self.name = name
        # An export of several is finished account by account.
        self._together = {key: before[key] for key in _TOGETHER if key in before}
        self.error: Exception | None = None
        self.on_failure: Callable[[], object] = lambda: None
        self.assembled: Assembled | None = None
        self.people: int | None = None
        self.has_files = False
        self.warnings: list[str] = []
        self.is_open = False
        self.ahead: Ahead | None = None
        self.kinds: Kinds | None = None
        self._reporting = reporting
        self._written: Written | None = None
        self._begun = False
        self._repairs = 0

    @property
    def account(self) -> str:
        """The ID of the account."""
        return self.gathering.plan.account

    @property
    def name_of_files(self) -> str | None:
        """The name of the account in files beside the output; None if those are of one account."""
        return self.name or self._together.get("account")

    @property
    def place(self) -> Place:
        """The paths."""
        return self.run.place

    @property
    def failure(self) -> AltaProfilesError | None:
        """The last failure of a call in this run, or None."""
        return self._reporting.failure

    @property
    def totals(self) -> Mapping[str, Any]:
        """The counters over this run and earlier ones."""
        return self._reporting.totals()

    async def open(
        self,
        workspaces: Workspaces,
        place: Place,
        threads: Threads,
        output: Output,
        names: Sequence[str],
    ) -> None:
        """Open the workspace.

        Args:
            workspaces: those of the output.
            place: the paths of the export.
            threads: runs blocking calls.
            output: the caller's arguments.
            names: the names of all accounts of the export, if it has several.

        Raises:
            ExportError: the workspace cannot be used.
        """
        resume = output.resume
        store = await threads.run(lambda: self.gathering.choose(workspaces, resume=resume))
        together = self._together
        if self.name is not None:
            together = {"accounts": [*names], "account": self.name}
        own = self.name_of_files
        self.run = Run(
            workspaces,
            store,
            place if own is None else place.of_account(own),
            threads,
            self._reporting,
            self.report,
            encode_arguments(output, place, {**self.gathering.arguments, **together}),
            resume=resume,
        )
        self._reporting.output = place.target.name
        self.is_open = True

    def encode_ahead(
        self, target: Target, encoder: Callable[[], Encoder], kinds: Kinds, *, stages: bool
    ) -> None:
        """Have rows encoded while others are gathered, if this kind of export allows it.

        Args:
            target: the output.
            encoder: returns a new encoder.
            kinds: observes every record that is encoded.
            stages: whether a stage of the target may take the encoded rows.
        """
        if not isinstance(self.gathering, Arriving):
            return
        folder, plan = self.run.store.folder, self.gathering.plan
        changes = isinstance(plan, EventsPlan) and len(plan.wholes) > 1
        stage = target.stage(folder, changes=changes) if stages else None
        if target.encodes or stage is not None:
            ahead = Ahead(folder, encoder, self.gathering.arrived, kinds, stage)
            self.ahead, self.kinds = ahead, kinds
            self.run.grown = ahead.grown
            self.run.workspaces.frees.append(ahead.leave_behind)

    def begin(self) -> None:
        """Store the plan. Blocking.

        Raises:
            ExportError: the disk refuses, or the store holds another plan.
        """
        self.run.begin(self.gathering.plan)
        self._begun = True

    async def close_ahead(self) -> None:
        """Free the rows that are encoded already."""
        if self.ahead is not None:
            await self.ahead.aclose()

    async def gather(self) -> list[str]:
        """Fetch all that is missing; return a sentence for each part missing at the end.

        Raises:
            AltaProfilesError: the service refuses all of it, or the disk is broken.
        """
        if self.ahead is None:
            return await self._gather()
        async with running_beside(self.ahead.run):
            return await self._gather()

    async def _gather(self) -> list[str]:
        while True:
            try:
                return await self.gathering.gather(self.run)
            except SpoolDamaged as error:
                damage = error
            await self.repair(damage)

    async def repair(self, damage: SpoolDamaged) -> None:
        """Drop all that is damaged, so that `gather` fetches it again.

        Raises:
            ExportError: it has been fetched again too often.
        """
        logger.warning("%s; what is damaged is fetched again", damage)
        self.assembled = None
        # Also before giving up: a later run has no use for damaged records.
        await self.gathering.repair(self.run)
        if self._repairs == _REPAIRS:
            raise ExportError(
                f"{damage}, although it was fetched again {_REPAIRS} times: the disk does not "
                f"keep what is written to it; check it, or choose another folder with `spool`"
            ) from damage
        self._repairs += 1

    def fail(self, error: Exception, others: Iterable[Part[R, S]]) -> None:
        """Take note of the error that has ended it. The `others` go on, unless they have failed."""
        self.error = error
        if any(other.error is None for other in others if other is not self):
            logger.warning("%s", failed_alone(self.name))
        self.on_failure()

    def kept(self) -> int:
        """Return the number of items on disk for a later run. Blocking."""
        return self.gathering.kept_in(self.run.store) if self.is_open else 0

    def batches(self, writes_any: WritesAny | None) -> Iterator[list[Row] | Block]:
        """Yield every row. Blocking.

        Args:
            writes_any: as for `Ahead.blocks`; None for rows alone, even if they have been encoded.
        """
        store, gathering = self.run.store, self.gathering
        if writes_any is not None and self.ahead is not None and isinstance(gathering, Arriving):
            return gathering.with_blocks(store, self.ahead, writes_any)
        return gathering.batches(store)

    def whole(self) -> Whole | None:
        """Return the spool that holds all rows in their order, if there is only one. Blocking."""
        gathering = self.gathering
        return gathering.whole(self.run.store) if isinstance(gathering, Arriving) else None

    def unbound(self) -> Iterator[list[Row]]:
        """Yield a row without cells for each key that has no other. Blocking."""
        return self.gathering.unbound(self.run.store)

    def people_of(self, target: Target) -> People | None:
        """Return what decides which rows are written, or None for all. Blocking."""
        return self.gathering.people(self.run.store, target)

    def wrote(self, counts: Assembled, written: Written | None) -> None:
        """Take note that the records are in the output.

        Args:
            counts: the records read, and those written.
            written: the output, if it was written with these records alone.
        """
        self.assembled, self.people, self._written = counts, counts.written, written
        sentences = self.gathering.discrepancies(counts.written, self.place)
        by = "" if self.name is None else f"{self.name}: "
        self.warnings = [f"{by}{sentence}" for sentence in sentences]

    def report(self, *, complete: bool = False) -> None:
        """Report progress.

        Args:
            complete: whether the output is in place.
        """
        self._reporting.look()
        if self.is_open and self.error is None:
            make = self.gathering.progress
            self._reporting.report(lambda traffic: make(traffic, self.assembled), complete=complete)

    def report_failure(self, error: BaseException) -> None:
        """Report the error that ends the run, or that of this account."""
        self._reporting.report_failure(self.error or error)

    def describe(self, common: Report) -> R:
        """Return the report of this account.

        Args:
            common: the part that every report has, with the counters of the whole export.
        """
        totals = self.totals
        if self.name is not None:
            mended = Mended() if self._written is None else self._written.mended
            common = replace(
                common,
                complete=self.error is None and self.people is not None,
                requests=totals["requests"],
                retries=totals["retries"],
                seconds=round(totals["seconds"], 3),
                mended=mended.total,
                mistyped=mended.mistyped,
                absorbed=0 if self._written is None else self._written.absorbed,
                warnings=self.warnings,
            )
        report = self.gathering.describe(common, self.place, self.people)
        files = {} if self.has_files else dict.fromkeys(_FILES & {*report.__struct_fields__})
        return replace(report, **files)

    def leave(self) -> None:
        """Close the workspace of an export that is not complete. Blocking."""
        if not self.is_open:
            return
        run = self.run
        # Another error must not hide the one that has ended this run.
        with suppress(OSError, ExportError):
            # The disk decides, because the run may have ended before it saw its last commit. An
            # empty journal would only keep its plan in the way of another.
            if self._begun and run.store.journal.is_empty():
                run.store.remove()
                return
            if self._begun:
                with run.commit():
                    pass
        run.store.close()
