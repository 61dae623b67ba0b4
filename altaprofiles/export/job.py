"""One run of one export. A later run can resume it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Generic, TypeVar

import anyio
from msgspec.structs import replace

from ..base.deadline import Deadline
from ..errors import (
    AltaProfilesError,
    ConfigurationError,
    ExportError,
    ExportLocked,
    Incomplete,
)
from .assemble import Written, assemble, when_free
from .gather.gathering import Assembled, Gathering, Run
from .manifest import encode_manifest
from .output import Output
from .place import Place
from .plan import EventsPlan
from .report import Progress, Report
from .reporting import CallbackFailed, Reporting
from .sinks.files import write_file
from .state import SyncState
from .store.spool import SpoolDamaged
from .store.workspace import explaining_disk_errors
from .store.workspaces import Workspaces
from .synced import Settings, days_of
from .tables import Origin
from .threads import Threads, deliver_cancellation, running_beside
from .unfinished import Unfinished, encode_arguments, unfinished_in

__all__ = ["Job", "concluded"]

logger = logging.getLogger("altaprofiles")

R = TypeVar("R", bound=Report)
S = TypeVar("S", bound=Progress)

_REPORT_EVERY = 1.0
"""Longest time, in seconds, between two progress reports."""

_REPAIRS = 2
"""Repairs of the store in one run before its disk counts as broken."""


class Job(Generic[R, S]):
    """Gathers the records of one export, and assembles its output from them.

    Args:
        gathering: the kind of export.
        output: the caller's arguments.
        reporting: counts requests and reports progress.
        deadline: the deadline of the whole run, or None.
    """

    def __init__(
        self,
        gathering: Gathering[R, S],
        output: Output,
        reporting: Reporting[S],
        deadline: Deadline | None = None,
    ) -> None:
        self._gathering = gathering
        self._output = output
        self._reporting = reporting
        self._deadline = deadline
        self._assembled: Assembled | None = None
        self._begun = self._done = False
        self._left: list[str] = []

    async def run(self) -> R:
        """Fetch everything, put the output in place, and return the report.

        Raises:
            CancelledError: the task was cancelled. If the output was in place by then, it stays,
                and the error has the report as `report`.
            ConfigurationError: an argument cannot work; nothing was sent.
            ExportError: the export cannot start, or something is missing (`Incomplete`).
            AltaProfilesError: the service refuses all of it.
        """

        async def run(threads: Threads) -> R:
            # In a thread, because it may import pyarrow.
            place = await threads.run(self.find_place)
            resume = self._output.resume
            workspaces = await threads.run(lambda: Workspaces.open(place.folder, resume=resume))
            try:
                return await self.run_in(workspaces, place, threads)
            finally:
                with anyio.CancelScope(shield=True):
                    await threads.run(workspaces.close)

        return await concluded(run)

    async def run_in(self, workspaces: Workspaces, place: Place, threads: Threads) -> R:
        """Do the same as `run`, in workspaces that are open already.

        Args:
            workspaces: those of the output.
            place: the result of `find_place`.
            threads: runs blocking calls.

        Raises:
            CallbackFailed: `on_progress` raised an exception.
            ExportError, AltaProfilesError: as from `run`.
        """
        resume = self._output.resume
        store = await threads.run(lambda: self._gathering.choose(workspaces, resume=resume))
        run = Run(
            workspaces,
            store,
            place,
            threads,
            self._reporting,
            self._report,
            encode_arguments(self._output, place, self._gathering.arguments),
            resume=resume,
        )
        try:
            async with running_beside(self._report_regularly):
                await threads.run(lambda: self._begin(run))
                report = await self._within_deadline(run)
            self._done = True
            return report
        finally:
            with anyio.CancelScope(shield=True):
                await threads.run(lambda: self._leave(run))

    def find_place(self) -> Place:
        """Return the paths of the export. Blocking.

        Raises:
            ConfigurationError: an argument cannot work.
        """
        place = Place.of(self._output, self._gathering.content, self._gathering.endings)
        if (keys := self._gathering.reads) is not None:
            place.check_apart(keys.path, keys.table)
        if place.target.write == "upsert" and self._gathering.arguments.get("distinct") is False:
            raise ConfigurationError(
                "distinct: an upsert writes each person once, got False; leave it out, or pass "
                "write='replace' or write='append'"
            )
        return place

    def _begin(self, run: Run) -> None:
        run.begin(self._gathering.plan)
        self._begun = True
        with explaining_disk_errors(run.place.folder):
            # Only now that it is known that nobody else writes there.
            run.place.check()
            self._check_origin(run)

    def _check_origin(self, run: Run) -> None:
        """Raise `ExportError` if the rows may not go to the target, or their state if it is a sync.

        Blocking.
        """
        origin, plan, target = self._origin(run), self._gathering.plan, run.place.target
        if self._output.sync is not None and isinstance(plan, EventsPlan):
            # Only that there is one matters here.
            settings = Settings.parse(self._output.sync, target.label)
            origin = replace(origin, sync=settings.moved(None, plan, run.store.began))
        target.accept(origin)

    def _look_around(self, run: Run) -> None:
        """Warn of what earlier runs of other plans have left."""
        with explaining_disk_errors(run.place.folder):
            found = unfinished_in(run.place.folder)
        others = [one for one in found if one.path != run.store.folder and not self._is_next(one)]
        # What brought nothing would only be in the way. What cannot be read is not known.
        for one in others:
            if one.is_empty:
                run.workspaces.discard(one.path.name)
        self._left = [one.warning(run.place.status) for one in others if not one.is_empty]
        for sentence in self._left:
            logger.warning("%s", sentence)

    def _is_next(self, one: Unfinished) -> bool:
        """Return whether the sync that this export is one of finishes another one as well."""
        if self._output.sync is None:
            return False
        return Settings.parse(self._output.sync, "").is_in(one.arguments.get("sync"))

    async def _within_deadline(self, run: Run) -> R:
        deadline = self._deadline
        with anyio.move_on_after(None if deadline is None else deadline.left):
            await self._gathering.load(run)
            await run.threads.run(lambda: self._look_around(run))
            return await self._gather_and_assemble(run)
        raise self._incomplete(run, [f"it did not finish within {deadline}"])

    async def _gather_and_assemble(self, run: Run) -> R:
        try:
            return await self._repairing(run)
        except Incomplete:
            raise
        except ExportLocked as error:
            error.add_note(f"Nothing has to be fetched again: {self._resumption(run)}.")
            raise
        except ExportError as error:
            raise self._incomplete(run, [str(error)]) from error
        except AltaProfilesError as error:
            # Those of a connection are an `OSError` as well, and not the disk's.
            if self._gathering.kept_in(run.store):
                error.add_note(f"{self._resumption(run)}.")
            raise
        except OSError as error:
            raise self._incomplete(run, [str(error)]) from error

    async def _repairing(self, run: Run) -> R:
        """Gather and assemble. Where a spool is damaged, gather that again, and assemble anew."""
        repairs = 0
        while True:
            try:
                if missing := await self._gathering.gather(run):
                    raise self._incomplete(run, missing)
                return await self._assemble(run)
            except SpoolDamaged as error:
                damage = error
            logger.warning("%s; what is damaged is fetched again", damage)
            self._assembled = None
            # Also before giving up: a later run has no use for damaged records.
            await self._gathering.repair(run)
            if repairs == _REPAIRS:
                raise ExportError(
                    f"{damage}, although it was fetched again {repairs} times: the disk does not "
                    f"keep what is written to it; check it, or choose another folder with `spool`"
                ) from damage
            repairs += 1

    async def _assemble(self, run: Run) -> R:
        gathering = self._gathering
        target = run.place.target
        # Looked at before it is replaced.
        replaced = (
            None if gathering.records else await when_free(run.threads, target, target.present)
        )
        origin = await self._origin_of_rows(run)
        people = await run.threads.run(lambda: gathering.people(run.store.people, target))
        try:
            written = await assemble(
                run.threads,
                target,
                lambda: gathering.batches(run.store),
                unbound=lambda: gathering.unbound(run.store),
                content=gathering.content,
                origin=origin,
                people=people,
                on_batch=self._report_assembled,
            )
        finally:
            if people is not None:
                people.close()
        self._assembled = Assembled(gathering.records, written.records)
        for ending, lines in gathering.leftovers(run.store):
            await run.threads.run(partial(_write_lines, run.place.beside[ending], lines))
        warnings = [*written.notes, *gathering.discrepancies(written.records, run.place)]
        if not written.records:
            warnings.append(_nobody(target.name, replaced) + gathering.nobody)
        if run.store.is_outdated:
            warnings.append(f"it was begun at {run.store.began:%Y-%m-%d %H:%M} UTC, and is of then")
        for sentence in warnings:
            logger.warning("%s", sentence)
        warnings = [*self._left, *warnings]
        missing = gathering.unanswered(run.place)
        report = self._describe(run, written, warnings, complete=not missing)
        await self._write_manifest(run, report, origin.sync)
        if missing:
            await run.threads.run(run.store.note_written)
            raise self._incomplete(run, missing, report)
        return report

    def _origin(self, run: Run) -> Origin:
        return Origin(run.store.run, (self._gathering.plan.account,), run.store.began)

    async def _origin_of_rows(self, run: Run) -> Origin:
        """Return the origin of the rows; of a sync, with the state that comes with them."""
        origin, plan, target = self._origin(run), self._gathering.plan, run.place.target
        if self._output.sync is None or not isinstance(plan, EventsPlan):
            return origin
        before = await when_free(run.threads, target, lambda: target.synced(plan.account))
        settings = Settings.parse(self._output.sync, target.label)
        # Hours have passed, and another sync may have begun the table anew.
        settings.check(before, target.label)
        state = settings.moved(before, plan, run.store.began)
        return replace(origin, sync=state, days=days_of(plan))

    async def _write_manifest(self, run: Run, report: R, state: SyncState | None) -> None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        options = {**self._gathering.options, **run.place.layout}
        if state is not None:
            options["sync"] = {"account": state.account, "through": str(state.through)}
        data = encode_manifest(report, self._gathering.executed_plan, options, now)
        await run.threads.run(lambda: write_file(run.place.manifest, [data]))

    def _describe(
        self, run: Run, written: Written | None, warnings: list[str], *, complete: bool
    ) -> R:
        totals = self._reporting.totals()
        common = Report(
            output=run.place.target.name,
            manifest=str(run.place.manifest),
            format=run.place.target.format,
            complete=complete,
            requests=totals["requests"],
            retries=totals["retries"],
            seconds=round(totals["seconds"], 3),
            bytes=None if written is None else written.bytes,
            sha256=None if written is None else written.sha256,
            mended=0 if written is None else written.mended,
            absorbed=0 if written is None else written.absorbed,
            warnings=warnings,
        )
        people = None if written is None else written.records
        return self._gathering.describe(common, run.place, people)

    def _incomplete(self, run: Run, missing: list[str], report: R | None = None) -> Incomplete:
        lines = "".join(f"\n  {sentence}" for sentence in missing)
        return Incomplete(
            f"the export to {run.place.target.name} is not complete:{lines}\n"
            f"{self._resumption(run)}",
            missing=missing,
            report=report or self._describe(run, None, self._left, complete=False),
        )

    def _resumption(self, run: Run) -> str:
        number, unit = self._gathering.kept_in(run.store), self._gathering.unit
        if not number:
            return "nothing of it has been kept; run the same export again"
        folder = run.store.folder
        return f"{number:,} {unit} are in {folder}; run the same export again to resume it"

    def _report(self) -> None:
        self._reporting.report(lambda traffic: self._gathering.progress(traffic, self._assembled))

    def _report_assembled(self, read: int, written: int) -> None:
        self._assembled = Assembled(read, written)
        self._report()

    async def _report_regularly(self) -> None:
        # While nothing arrives, retries and slots say why; and some databases take their rows in
        # one long statement.
        while True:
            await anyio.sleep(_REPORT_EVERY)
            self._report()

    def _leave(self, run: Run) -> None:
        # Another error must not hide the one that has ended this run.
        with suppress(OSError, ExportError):
            # The disk decides, because the run may have ended before it saw its last commit. An
            # empty journal would only keep its plan in the way of another.
            if self._done or (self._begun and run.store.journal.is_empty()):
                run.store.remove()
                return
            if self._begun:
                with run.commit():
                    pass
        run.store.close()


async def concluded(work: Callable[[Threads], Awaitable[R]]) -> R:
    """Return the report of `work`, which is called with threads of its own.

    Raises:
        CancelledError: the task was cancelled. If `work` was complete, it has the report.
        Exception: an error of `work`, or that of `on_progress`.
    """
    threads = Threads()
    report: R | None = None
    try:
        report = await work(threads)
    except CallbackFailed as failed:
        failure = failed.error
    else:
        return report
    finally:
        threads.close()
        await _finish(report)
    # Outside of the handler, so that the caller's error gets no context.
    raise failure


def _nobody(name: str, replaced: str | None) -> str:
    """Return the warning about an output of nobody, which may be a mistake."""
    return f"0 people in {name}" if replaced is None else f"0 people; it replaced {replaced}"


async def _finish(report: Report | None) -> None:
    try:
        await deliver_cancellation()
    except asyncio.CancelledError as error:
        if report is not None:
            error.add_note(f"The export to {report.output} is complete; its output is in place.")
            vars(error)["report"] = report
        raise


def _write_lines(path: Path, lines: Iterator[bytes]) -> None:
    """Write `lines` to a file; without any, delete the file that an earlier run has left."""
    first = next(lines, None)
    if first is None:
        path.unlink(missing_ok=True)
    else:
        write_file(path, chain([first], lines))
