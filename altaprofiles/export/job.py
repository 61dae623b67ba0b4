"""One run of one export, of one account or of several. A later run can resume it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, cast

import anyio
import msgspec
from msgspec.structs import replace

from ..base.deadline import Deadline
from ..base.task_account import working_for
from ..base.wording import DOCTOR, after_failure, numbered
from ..base.zones import latest_day
from ..errors import (
    AltaProfilesError,
    ConfigurationError,
    ConnectError,
    ExportError,
    ExportLocked,
    Incomplete,
    InvalidArgument,
    PlanMismatch,
    SessionClosed,
    Unauthorized,
)
from ..http.machine.folder import default_place
from ..sources.lookups import CDP
from ..tables.kinds import Kinds
from ..tables.mended import Mended
from ..tables.rows import Table
from .accounts import (
    TO_RESUME,
    AccountsFailed,
    counts_of,
    decode_report,
    failure_of,
    origin_of,
    people_of,
    united,
)
from .assemble import Written, assemble, table_of, when_free
from .holders import free_left_behind, holding, naming_holder
from .manifest import described_in, encode_manifest, of_state
from .output import Output
from .part import Part
from .place import Place
from .plan import DISCARD, EventsPlan, KeysPlan, Plan, difference_in_words
from .report import Progress, Report
from .reporting import CallbackFailed, Totals
from .sinks import Encoder, Target
from .sinks.files import write_file
from .sinks.resolve import odd_ending
from .sinks.target import FileTarget
from .state import SyncState
from .store.lock import Lock
from .store.people import Chooser
from .store.spool import SpoolDamaged
from .store.workspace import (
    disk_remedy,
    explaining_disk_errors,
    is_outdated,
    noted_origin,
    origin_in,
)
from .store.workspaces import LOCK, Appended, Ended, Workspaces
from .synced import Settings, days_of
from .tables import Origin
from .threads import Threads, run_all, running_beside
from .unfinished import Unfinished, ended_at, look, unfinished_at, warning_of_ended

__all__ = ["NOTHING_KEPT", "Job", "in_workspaces"]

logger = logging.getLogger("altaprofiles")

R = TypeVar("R", bound=Report)
S = TypeVar("S", bound=Progress)
T = TypeVar("T")

NOTHING_KEPT = "nothing of it has been kept"
"""Part of the message of an error after which a later run begins from scratch."""

_REPORT_EVERY = 1.0
"""Longest time, in seconds, between two progress reports."""


class Job(Generic[R, S]):
    """Gathers the records of one export, and assembles its output from them.

    Several accounts are gathered side by side, and the failure of one does not stop the others. An
    output that is replaced is assembled from all of them, once all are complete. Otherwise those
    that are complete are written one after the other.

    Args:
        parts: the records of each account. If there are several, each has a name.
        output: the caller's arguments.
        finishes: the unfinished export that this one finishes; None if it is the caller's own.
    """

    def __init__(
        self, parts: Sequence[Part[R, S]], output: Output, finishes: Unfinished | None = None
    ) -> None:
        self._parts = parts
        self._output = output
        self._finishes = finishes
        self._is_of_several = len(parts) > 1
        self._report: R | None = None
        self._adds = False
        self._is_loaded = False
        self._left: list[str] = []
        self._warnings: list[str] = []
        self._written: list[Written] = []
        self._state: SyncState | None = None
        self._kept_by: list[SyncState] = []
        self.beside: Callable[[R, SyncState], tuple[R, dict[str, Any]]] | None = None
        self.check_clock: Callable[[float], None] | None = None

    async def run(self) -> R:
        """Fetch everything, put the output in place, and return the report.

        Raises:
            AccountsFailed: one of several accounts has failed.
            CancelledError: the task was cancelled. If the output was in place by then, it stays,
                and the error has the report as `report`; or the same call returns it, and an append
                adds nothing.
            ConfigurationError: an argument cannot work; nothing was sent.
            ExportError: the export cannot start, or something is missing (`Incomplete`).
            AltaProfilesError: the service refuses all of it.
        """
        resume = self._output.resume if self._finishes is None else None
        return await in_workspaces(self.find_place, self.run_in, resume=resume)

    async def run_in(self, workspaces: Workspaces, place: Place, threads: Threads) -> R:
        """Do the same as `run`, in workspaces that are open already.

        Args:
            workspaces: those of the output.
            place: the result of `find_place`.
            threads: runs blocking calls.

        Raises:
            CallbackFailed: `on_progress` raised an exception.
            AccountsFailed, ExportError, AltaProfilesError: as from `run`.
        """
        try:
            async with running_beside(self._report_regularly):
                report = await self._run_all(workspaces, place, threads)
            for part in self._parts:
                part.report(complete=True)
            # Last: what raises before leaves the workspaces, and the same call returns the report.
            self._report = report
        except BaseException as error:
            for part in self._parts:
                part.report_failure(error)
            if isinstance(error, asyncio.CancelledError):
                with anyio.CancelScope(shield=True):
                    await threads.run(partial(self._note_resumption, error))
            raise
        finally:
            with anyio.CancelScope(shield=True):
                for part in self._parts:
                    await part.close_ahead()
                remains = await threads.run(lambda: self._leave(workspaces))
        stores = [part.run.store for part in self._parts]
        if (note := workspaces.note_of(stores)) is not None:
            if self._adds:
                await self._make_last(report, threads)
            known = partial(workspaces.note_known, note, stores)
            if not remains and not await threads.run(known):
                remains = [note]
        if not remains or not self._adds:
            return report
        names = ", ".join(map(str, remains))
        warning = f"{names} cannot be removed, so that the same call once more adds nothing"
        logger.warning("%s", warning)
        return replace(report, warnings=[*report.warnings, warning])

    def find_place(self) -> Place:
        """Return the paths of the export. Blocking.

        Raises:
            ConfigurationError: an argument cannot work.
        """
        self._check_accounts()
        gathering = self._parts[0].gathering
        if isinstance(gathering.plan, EventsPlan):
            for query in gathering.plan.wholes:
                query.check_begun(latest_day())
        names = [name for part in self._parts if (name := part.name_of_files) is not None]
        place = Place.of(self._output, gathering.content, gathering.endings, names)
        if (keys := gathering.reads) is not None:
            place.check_apart(keys.path, keys.table)
        target = place.target
        if self._is_of_several and not target.has_columns:
            raise InvalidArgument(
                f"to: {target.name!r} is {target.format.upper()}, whose lines do not name the "
                f"account; put {{account}} into the path, for an output of each account, or choose "
                f"a format with columns"
            )
        if target.write == "upsert" and gathering.arguments.get("distinct") is False:
            raise InvalidArgument(
                "distinct: an upsert writes each person once, got False; leave it out, or pass "
                "write='replace' or write='append'"
            )
        if (one := self._finishes) is not None and one.path.parent.resolve() != (
            place.folder.resolve()
        ):
            raise InvalidArgument(
                f"to: the unfinished export is in {one.path.parent}, which is not that of "
                f"{target.name}; pass the output and the `spool` with which it was found"
            )
        return place

    def _check_accounts(self) -> None:
        """Raise `InvalidArgument` if two parts are of one account, as nothing tells rows apart."""
        names: dict[str, str | None] = {}
        for part in self._parts:
            if (other := names.setdefault(part.account, part.name)) != part.name:
                raise InvalidArgument(
                    f"account: {other!r} and {part.name!r} are names of the same account; leave "
                    f"one of them out"
                )

    async def _run_all(self, workspaces: Workspaces, place: Place, threads: Threads) -> R:
        self._adds = place.target.write == "append"
        with self._limited(place, self._parts):
            await self._start(workspaces, place, threads)
            self._is_loaded = True
            ended = await self._report_before(workspaces, place, threads)
            if ended is not None:
                return ended
            await threads.run(lambda: self._look_around(workspaces, place))
            await threads.run(partial(self._encode_ahead, place.target))
        await self._gather(place)
        # The deadline does not cut this: what is complete would wait for a later run to no end, if
        # that takes as long to write it.
        return await self._explained(
            self._parts, partial(self._write, place, threads, workspaces.folder)
        )

    @contextmanager
    def _limited(self, place: Place, parts: Sequence[Part[R, S]]) -> Generator[None, None, None]:
        """End the block with the deadline of the run, if it has one.

        Raises:
            Incomplete: the deadline has ended it.
        """
        deadline = self._output.deadline
        if deadline is None:
            yield
            return
        with anyio.move_on_after(deadline.left) as scope:
            yield
        if scope.cancelled_caught:
            raise self._late(place, parts, deadline)

    def _late(self, place: Place, parts: Sequence[Part[R, S]], deadline: Deadline) -> Incomplete:
        """Return the error of parts that the deadline has ended."""
        failure = next((part.failure for part in parts if part.failure is not None), None)
        late = after_failure(f"it did not finish within {deadline}", failure)
        end = self._resumption(parts, cure=_cure_of_lateness(failure))
        if not self._is_loaded and self._has_earlier(place):
            stays = f"what earlier runs have brought stays in {place.folder}"
            end = end.replace(NOTHING_KEPT, stays, 1)
        report = self._describe(place) if any(part.is_open for part in parts) else None
        error = self._error(place, [late], end, report)
        if isinstance(failure, ConnectError):
            error.add_note(DOCTOR)
        error.__cause__ = failure
        return error

    def _has_earlier(self, place: Place) -> bool:
        """Return whether earlier runs have left anything of this output. Blocking."""
        stores = [part.run.store for part in self._parts if part.is_open]
        own = {store.folder: store.journal.is_empty() for store in stores}
        with suppress(OSError, ExportError):
            return any(not own.get(one.path, one.is_empty) for one in unfinished_at(place.folder))
        return False

    # ----------------------------------------------------------------------------- the workspaces

    async def _start(self, workspaces: Workspaces, place: Place, threads: Threads) -> None:
        names = [part.name for part in self._parts if part.name is not None]

        async def begin(part: Part[R, S]) -> None:
            await part.open(workspaces, place, threads, self._output, names)
            part.run.check_clock = self.check_clock
            await threads.run(part.begin)

        is_checked = False
        # One after the other, because all read keys into the same folder.
        for part in self._parts:
            explained = partial(self._explaining_damage, part, workspaces, place, threads)
            await self._attempt(part, partial(explained, partial(begin, part)))
            if part.error is not None:
                continue
            if not is_checked:
                # Another sync may be writing to the same file.
                async with workspaces.turn:
                    await threads.run(partial(self._check, place, part))
                is_checked = True
            load = partial(part.gathering.load, part.run)
            await self._attempt(part, partial(explained, load))
            await self._attempt(part, partial(self._check_keys, part, place.target, threads))

    async def _explaining_damage(
        self,
        part: Part[R, S],
        workspaces: Workspaces,
        place: Place,
        threads: Threads,
        step: Callable[[], Awaitable[object]],
    ) -> None:
        """Take a step that opens a workspace.

        Raises:
            ExportError: the workspace cannot be resumed. If that of an append may have had its rows
                added, the error does not advise to add them once more.
        """
        try:
            await step()
        except (ExportLocked, PlanMismatch):
            raise
        except ExportError as error:
            if not self._adds or DISCARD not in str(error):
                raise
            name = str(part.gathering.plan.name)
            advice = await self._after_damage(part, workspaces.folder / name, place, threads)
            if advice is None:
                raise
            fault, _, _ = str(error).rpartition("; ")
            raise ExportError(f"{fault}; {advice}") from None

    async def _after_damage(
        self, part: Part[R, S], folder: Path, place: Place, threads: Threads
    ) -> str | None:
        """Return what to do with the workspace in a folder, or None if its rows are not there."""
        noted = await threads.run(lambda: noted_origin(folder))
        are_there = await self._are_rows_there(part, noted, place.target, threads)
        return None if are_there is False else _advice(part, folder, place.target, are_there)

    async def _are_rows_there(
        self,
        part: Part[R, S],
        noted: tuple[str, datetime] | None,
        target: Target,
        threads: Threads,
    ) -> bool | None:
        """Return whether the target has the rows of a workspace; None if it is not known whose."""
        if noted is None:
            return None
        run, began = noted
        holds = partial(target.holds, Origin(run, (part.account,), began))
        return await when_free(threads, target, holds, self._output.deadline)

    async def _check_keys(self, part: Part[R, S], target: Target, threads: Threads) -> None:
        """Raise `InvalidArgument` if a lookup of no keys at all would empty its output."""
        plan = part.gathering.plan
        if part.error is not None or not isinstance(plan, KeysPlan) or plan.keys != 0:
            return
        replaced = await when_free(threads, target, part.place.present, self._output.deadline)
        if replaced is None or await threads.run(lambda: _was_of_nobody(part.place)):
            return
        file = part.gathering.reads
        subject = "there are no keys" if file is None else f"{file.path} holds no keys"
        raise InvalidArgument(
            f"keys: {subject}, and {replaced} would be replaced by nobody; if that is meant, "
            f"remove the output first"
        )

    def _check(self, place: Place, part: Part[R, S]) -> None:
        with explaining_disk_errors(place.folder):
            # Only now that it is known that nobody else writes there.
            place.check()
            self._check_origin(place.target, part)

    def _check_origin(self, target: Target, part: Part[R, S]) -> None:
        """Raise `ExportError` if the rows may not go to the target, or their state if it is a sync.

        Blocking.
        """
        store, plan = part.run.store, part.gathering.plan
        origin = Origin(store.run, self._accounts, store.began)
        if self._output.sync is not None and isinstance(plan, EventsPlan):
            # Only that there is one matters here.
            settings = Settings.parse(self._output.sync, target.label)
            origin = replace(origin, sync=settings.moved(None, plan, store.began))
        target.accept(origin)

    async def _report_before(
        self, workspaces: Workspaces, place: Place, threads: Threads
    ) -> R | None:
        """Return the report of a run that was killed when its rows had been added, or None.

        Without it, they would be added once more.

        Raises:
            ExportLocked: the output is in use.
            ExportError: it was not of all accounts, or the rows of some of them only are there, or
                its report cannot be read; or it had other windows, and has not noted its end.
        """
        if not self._adds:
            return None
        stores = [part.run.store for part in self._parts if part.is_open]
        is_anew = self._output.resume is False
        ended = await threads.run(lambda: workspaces.ended(stores, is_anew=is_anew))
        if ended is None:
            if not is_anew:
                await self._check_windows(workspaces, place, threads)
            return None
        if (
            failed := next((part.error for part in self._parts if not part.is_open), None)
        ) is not None:
            raise failed
        target = place.target
        own = ended.of(stores)
        names = {part.account: part.name or part.account for part in self._parts if part.is_open}
        gone = await self._gone(own, place, threads)
        present = [one.account for one in own if one.rows and one.account not in gone]
        if gone and not present:
            await threads.run(lambda: workspaces.forget(ended, stores))
            return None
        before = (
            f"an earlier run that added its rows to {target.label} was ended before it was over"
        )
        again = f"to add them once more, {DISCARD}"
        held = {one.account for one in own}.difference(gone)
        if missing := ", ".join(name for account, name in names.items() if account not in held):
            others = ", ".join(name for account, name in names.items() if account in held)
            since = ", and somebody has deleted some of them since" if gone else ""
            raise ExportError(
                f"{before}{since}: those of {others} are there, and it added none of {missing} "
                f"that are there; unless that has been done, run it for {missing} alone, which "
                f"adds theirs, or {again}"
            )
        try:
            report = self._united(ended, own, names, type(self._describe(place)))
        except msgspec.DecodeError:
            raise ExportError(f"{before}, and its report cannot be read; {again}") from None
        warnings = [_of_added(target)]
        if any({*one.flattened} != {*target.flatten} for one in own):
            flattened = ", ".join({repr(key): None for one in own for key in one.flattened})
            warnings.append(
                f"they have the columns that the earlier run was given with `flatten` "
                f"({flattened or 'none'}), and not those of this one"
            )
        if is_outdated(began := min(one.began for one in own)):
            warnings.append(_of_then(began))
        for warning in warnings:
            logger.warning("%s", warning)
        return replace(report, warnings=[*report.warnings, *warnings])

    async def _check_windows(self, workspaces: Workspaces, place: Place, threads: Threads) -> None:
        """Raise `ExportError` if a run in other windows may have added its rows and was killed."""
        for part in self._parts:
            plan = part.gathering.plan
            if not part.is_open or not isinstance(plan, EventsPlan):
                continue
            for folder in await threads.run(partial(workspaces.family, plan)):
                if folder != part.run.store.folder:
                    await self._check_added(part, folder, place.target, threads)

    async def _check_added(
        self, part: Part[R, S], folder: Path, target: Target, threads: Threads
    ) -> None:
        """Raise `ExportError` if what a run has left in a folder may be among the rows."""
        noted = await threads.run(lambda: origin_in(folder))
        are_there = await self._are_rows_there(part, noted, target, threads)
        if are_there is False:
            return
        left = await threads.run(lambda: look(folder))
        if are_there is None and (left.is_empty or left.fault is None):
            # It has brought nothing, or a version has left it that could not append.
            return
        _, _, windows = folder.name.rpartition("-")
        if left.fault is not None:
            raise ExportError(
                f"an earlier run with windows={windows} was ended, and what it has left in "
                f"{folder} cannot be read; {_advice(part, folder, target, are_there)}"
            )
        raise ExportError(
            f"an earlier run with windows={windows} that added its rows to {target.label} was "
            f"ended before it was over; run it with `windows={windows}`, which adds none, or to "
            f"add them once more, {DISCARD}"
        )

    def _united(
        self, ended: Ended, own: Sequence[Appended], names: Mapping[str, str], kind: type[R]
    ) -> R:
        """Return the report on those accounts of a run that are those of this one.

        Raises:
            DecodeError: it is of another version.
        """
        report = decode_report((ended.report or "").encode(), kind)
        if report.accounts is None:
            return report
        before = cast("dict[str, R]", report.accounts)
        shares = {names[one.account]: before[one.name] for one in own}
        return united(shares, report) if self._is_of_several else next(iter(shares.values()))

    def _look_around(self, workspaces: Workspaces, place: Place) -> None:
        """Warn of days to come, and of what earlier runs of other plans have left."""
        with explaining_disk_errors(place.folder):
            found, ended = unfinished_at(place.folder), ended_at(place.folder)
        own = {part.run.store.folder for part in self._parts if part.is_open}
        others = [
            one
            for one in found
            # One that is running is of a sync of another account, beside this one.
            if one.path not in own and not one.is_running
        ]
        # What brought nothing would only be in the way. What cannot be read is not known.
        for one in others:
            if one.is_empty:
                workspaces.discard(one.path.name)
        plans = [part.gathering.plan for part in self._parts]
        to_come = [one.to_come(latest_day()) for one in plans if isinstance(one, EventsPlan)]
        # Mostly the same days.
        self._left = [*dict.fromkeys(filter(None, to_come))]
        self._left += self._lost(place)
        self._left += [
            warning_of_ended(one, place.status)
            for one in ended
            if one.path not in own and not one.is_empty
        ]
        self._left += [
            one.warning(place.status, self._difference(one))
            for one in others
            # Whoever finishes one has seen the others.
            if not one.is_empty and self._finishes is None and not self._is_next(one, workspaces)
            # Its rows and this one's stand beside each other, and its own runs warn of it.
            if place.target.write == "replace" or one.account in (None, *self._accounts)
        ]
        if (odd := odd_ending(self._output, place.target)) is not None:
            self._left.append(odd)
        for sentence in self._left:
            logger.warning("%s", sentence)

    def _lost(self, place: Place) -> list[str]:
        """Return sentences on what is lost with a file that is replaced, if that is of others.

        Tables and folders refuse to lose it.
        """
        target = place.target
        is_file = isinstance(target, FileTarget) and target.inner_table is None
        if not is_file or not (size := place.size()):
            return []
        try:
            # A manifest may be missing, or a file of another program.
            before = described_in(place.read_manifest() or b"")
        except (OSError, ExportError):
            return []
        # A run that was killed may have put the output in place, and no manifest.
        is_resumed = any(
            part.is_open and not part.run.store.journal.is_empty() for part in self._parts
        )
        lost = f"{numbered(size, 'byte')} of {target.name} are replaced although"
        keep = f"to keep that file, move it away before this {self._noun} ends"
        if before is None:
            words = "no export seems to have written them, as there is no manifest of one"
            return [] if is_resumed else [f"{lost} {words}; {keep}"]
        sentences = []
        # Reading a large file again, for its digest, would take too long.
        if before.bytes is not None and before.bytes != size and not is_resumed:
            written = numbered(before.bytes, "byte")
            words = f"the file has changed since an export wrote it, with {written}"
            sentences.append(f"{lost} {words}; {keep}")
        others = [
            name for account, name in before.accounts.items() if account not in self._accounts
        ]
        if before.is_empty or not others:
            return sentences
        has_users = before.is_of_users
        if has_users != self._brings_users:
            rows = "users of Alta" if has_users else "people of CleverTap"
            own = "people of CleverTap" if has_users else "users of Alta"
            words = f"has {rows}, and this {self._noun} replaces them with {own}"
            return [*sentences, f"{target.name} {words}; {keep}"]
        words = f"has the rows of {', '.join(others)}, which are not in this {self._noun}"
        advice = "for the rows of all accounts in one file, name them all in one run"
        return [*sentences, f"{target.name} {words} and so are replaced; {advice}"]

    @property
    def _brings_users(self) -> bool:
        """True if the rows are users of Alta, and not people of CleverTap."""
        plan = self._parts[0].gathering.plan
        return isinstance(plan, KeysPlan) and plan.by in CDP.by

    def _difference(self, one: Unfinished) -> str:
        """Return how an unfinished export differs from this one, in words."""
        if one.plan is None:
            return ""
        plans = [part.gathering.plan for part in self._parts]
        accounts = [plan.account for plan in plans]
        same = accounts.index(one.plan.account) if one.plan.account in accounts else 0
        return difference_in_words(one.plan, plans[same])

    def _is_next(self, one: Unfinished, workspaces: Workspaces) -> bool:
        """Return whether the sync that this export is one of finishes another one as well."""
        if self._output.sync is None:
            return False
        if one.plan is not None and one.plan.account in workspaces.syncing - {self._accounts[0]}:
            # The sync of that account decides.
            return True
        settings = Settings.parse(self._output.sync, "")
        # What brought nothing is not finished, not even by the sync that began it.
        return not one.is_empty and settings.is_in(one.arguments.get("sync"))

    def _encode_ahead(self, target: Target) -> None:
        """Have rows encoded while others are gathered, for a target that takes them. Blocking."""
        # Types that values decide are known only when all have arrived.
        if target.typed_flatten:
            return
        parts = self._complete
        together = [parts] if target.write == "replace" else [[part] for part in parts]
        for group in filter(None, together):
            kinds = Kinds(target.flatten)
            new_table = partial(table_of, target, origin_of(group), kinds)
            # The rows of several accounts arrive in any order.
            stages = not self._is_of_several
            for part in group:
                encoder = partial(_new_encoder, target, new_table)
                part.encode_ahead(target, encoder, kinds, stages=stages)

    # ---------------------------------------------------------------------------------- the records

    async def _gather(self, place: Place) -> None:
        def step(part: Part[R, S]) -> Callable[[], Awaitable[None]]:
            fetch = partial(self._explained, [part], partial(self._fetch, part, place))
            return partial(self._attempt, part, fetch)

        steps = [step(part) for part in self._complete]
        if self._is_of_several:
            await run_all(steps)
        else:
            await steps[0]()

    async def _fetch(self, part: Part[R, S], place: Place) -> None:
        deadline = self._output.deadline
        # The scope would end a run that has no time only after its first requests have begun.
        if deadline is not None and deadline.left <= 0:
            raise self._late(place, [part], deadline)
        with self._limited(place, [part]):
            missing = await part.gather()
        if missing:
            raise self._incomplete([part], missing)

    async def _attempt(self, part: Part[R, S], step: Callable[[], Awaitable[object]]) -> None:
        """Take a step of one account. If there are others, an error is kept, and they go on.

        Raises:
            ConfigurationError: an argument cannot work. It is the same for all accounts.
        """
        with working_for(part.name):
            try:
                await step()
            except (AltaProfilesError, OSError) as error:
                if not self._is_of_several or isinstance(error, ConfigurationError):
                    raise
                part.fail(error, self._parts)

    async def _explained(self, parts: Sequence[Part[R, S]], step: Callable[[], Awaitable[T]]) -> T:
        """Return the result of a step, whose error says what is kept for a later run."""
        try:
            return await step()
        except Incomplete:
            raise
        except ExportLocked as error:
            error.add_note(f"Nothing has to be fetched again: {self._resumption(parts)}.")
            raise
        except ExportError as error:
            raise self._incomplete(parts, [str(error)], cause=error) from error
        except SessionClosed as error:
            raise SessionClosed(
                f"the {self._noun} was cut off, because its Session was closed; "
                f"{self._resumption(parts)}"
            ) from error
        except AltaProfilesError as error:
            # Those of a connection are an `OSError` as well, and not the disk's.
            if any(part.kept() for part in parts):
                error.add_note(f"{self._resumption(parts)}.")
            raise
        except OSError as error:
            raise self._incomplete(parts, [str(error)], cause=error) from error

    @property
    def _complete(self) -> list[Part[R, S]]:
        """The accounts without an error so far."""
        return [part for part in self._parts if part.error is None]

    # ----------------------------------------------------------------------------------- the output

    async def _write(self, place: Place, threads: Threads, folder: Path) -> R:
        """Write the accounts that are complete, and report."""
        parts = self._complete
        if self._is_of_several and place.target.write != "replace":
            for part in parts:
                load = partial(self._load, [part], place, threads)
                await self._attempt(part, partial(self._explained, [part], load))
        elif len(parts) == len(self._parts):
            await self._load(parts, place, threads)
        if not self._written:
            report = self._describe(place) if any(part.is_open for part in self._parts) else None
            raise failure_of(self._parts, place.target, folder, report)
        missing: list[str] = []
        for part in self._parts:
            if part.people is not None and (one := part.gathering.unanswered(part.place)):
                missing = one
                part.error = self._incomplete([part], missing)
        report = self._describe(place, has_manifest=True)
        await threads.run(lambda: self._write_manifest(place, report))
        await self._upload(place.manifest, place, threads)
        if len(self._complete) == len(self._parts):
            return report
        for part in self._parts:
            if part.people is not None:
                await threads.run(part.run.store.note_written)
        if self._is_of_several:
            raise failure_of(self._parts, place.target, folder, report)
        raise self._incomplete(parts, missing, report)

    async def _load(self, parts: Sequence[Part[R, S]], place: Place, threads: Threads) -> None:
        """Write accounts to the output. Where a spool is damaged, gather that again before."""
        while True:
            try:
                async with parts[0].run.workspaces.turn:
                    await self._assemble(parts, place, threads)
            except SpoolDamaged as error:
                damage = error
            else:
                break
            for part in parts:
                await self._attempt(part, partial(self._mend, part, damage, place))
            if any(part.error is not None for part in parts):
                return
        if self._is_of_several and len(parts) == len(self._parts):
            # Those of an export of one account before.
            for ending in parts[0].gathering.endings:
                await self._put_lines(place.beside[ending], iter(()), place, threads)
        for part in parts:
            for ending, lines in part.gathering.leftovers(part.run.store):
                await self._put_lines(part.place.beside[ending], lines, place, threads)
            part.has_files = True

    async def _put_lines(
        self, path: Path, lines: Iterator[bytes], place: Place, threads: Threads
    ) -> None:
        """Put a file of lines beside the output; without any, remove that of an earlier run."""
        if await threads.run(partial(_write_lines, path, lines, place.other_than_files)):
            await self._upload(path, place, threads)
        elif (remote := place.remote) is not None:
            await threads.run(lambda: remote.remove(place.ending_of(path)))

    async def _upload(self, path: Path | None, place: Place, threads: Threads) -> None:
        """Upload a file of a remote output, and remove it here. Any other is in place already."""
        if path is None or (remote := place.remote) is None:
            return
        ending = place.ending_of(path)
        try:
            await threads.run_until(partial(remote.upload, path, ending))
        finally:
            # After a failure it is assembled again from the records.
            with anyio.CancelScope(shield=True):
                await threads.run(partial(path.unlink, missing_ok=True))

    async def _mend(self, part: Part[R, S], damage: SpoolDamaged, place: Place) -> None:
        await part.repair(damage)
        await self._fetch(part, place)

    @property
    def _accounts(self) -> tuple[str, ...]:
        return tuple(part.account for part in self._parts)

    async def _assemble(self, parts: Sequence[Part[R, S]], place: Place, threads: Threads) -> None:
        target = place.target
        # Looked at before it is replaced.
        replaced = (
            None
            if any(part.gathering.records for part in parts)
            else await when_free(threads, target, place.present, self._output.deadline)
        )
        origin = await self._origin_of_rows(parts, target, threads)
        on_syncs = await self._notes_on_syncs(parts, target, threads)
        people = await threads.run(lambda: people_of(parts, target))
        # An output without some answers was reported by the run that wrote it.
        is_written = all(part.run.store.is_written for part in parts)
        is_once = isinstance(people, Chooser) and people.keeps_once
        origin = replace(origin, is_once=is_once, is_written=is_written)

        def report(read: int, written: int) -> None:
            for part, counts in zip(parts, counts_of(people, parts, read, written), strict=True):
                part.assembled = counts
                part.report()

        def drop_blocks() -> None:
            for part in parts:
                if part.ahead is not None:
                    part.ahead.drop_blocks()

        added = (
            self._adds
            and not is_written
            and await when_free(
                threads, target, lambda: target.holds(origin), self._output.deadline
            )
        )
        if target.keeps_bindings:
            for part in parts:
                await threads.run(partial(part.run.workspaces.fail_others, part.run.store))
        written = await assemble(
            threads,
            target,
            lambda writes_any: chain.from_iterable(part.batches(writes_any) for part in parts),
            unbound=lambda: chain.from_iterable(part.unbound() for part in parts),
            whole=parts[0].whole if len(parts) == 1 else lambda: None,
            origin=origin,
            kinds=parts[0].kinds or Kinds(target.flatten),
            stage=None if parts[0].ahead is None else parts[0].ahead.stage,
            people=people,
            on_batch=report,
            on_read=drop_blocks,
            deadline=self._output.deadline,
        )
        await self._upload(target.path, place, threads)
        self._written.append(written)
        read = sum(part.gathering.records for part in parts)
        warnings = [*written.notes, *on_syncs]
        names = [part.name for part in parts if part.name is not None]
        if added:
            warnings.append(_by(names, _of_added(target)))
        for part, counts in zip(
            parts, counts_of(people, parts, read, written.records), strict=True
        ):
            part.wrote(counts, written if len(parts) == 1 else None)
            warnings += part.warnings
        if not written.records and not await self._are_known_in(target, parts, threads):
            nobody = _nobody(target, replaced) + parts[0].gathering.nobody
            warnings.append(_by(names, nobody))
        for part in parts:
            if (store := part.run.store).is_outdated:
                by = [] if part.name is None else [part.name]
                warnings.append(_by(by, _of_then(store.began)))
        for sentence in warnings:
            logger.warning("%s", sentence)
        self._warnings += warnings

    async def _are_known_in(
        self, target: Target, parts: Sequence[Part[R, S]], threads: Threads
    ) -> bool:
        """Return whether rows of each account show that nobody is no sign of a mistake."""

        def are_known() -> bool:
            # It is only for a warning, so nobody waits long for who uses the target now.
            with suppress(ExportError, OSError):
                return all(part.gathering.is_known_in(target) for part in parts)
            return False

        return await threads.run(are_known)

    async def _gone(self, runs: Sequence[Appended], place: Place, threads: Threads) -> list[str]:
        """Return the accounts whose rows are no longer in the output; see `Target.holds`."""
        target = place.target

        def gone() -> list[str]:
            origins = [Origin(one.run, (one.account,), one.began) for one in runs if one.rows]
            return [one.accounts[0] for one in origins if not target.holds(one)]

        return await when_free(threads, target, gone, self._output.deadline)

    async def _origin_of_rows(
        self, parts: Sequence[Part[R, S]], target: Target, threads: Threads
    ) -> Origin:
        """Return the origin of the rows; of a sync, with the state that comes with them."""
        origin = replace(origin_of(parts), others=self._accounts)
        plan = parts[0].gathering.plan
        if self._output.sync is None or not isinstance(plan, EventsPlan):
            return origin
        before = await when_free(
            threads, target, lambda: target.synced(plan.account), self._output.deadline
        )
        settings = Settings.parse(self._output.sync, target.label)
        # Hours have passed, and another sync may have begun the table anew.
        settings.check(before, target.label)
        self._state = settings.moved(before, plan, origin.fetched_at)
        return replace(origin, sync=self._state, days=days_of(plan))

    async def _notes_on_syncs(
        self, parts: Sequence[Part[R, S]], target: Target, threads: Threads
    ) -> list[str]:
        """Return sentences on a table that `sync` keeps, whose `matched` this export replaces."""
        notes: list[str] = []
        is_of_sync = self._output.sync is not None
        if is_of_sync or target.write != "upsert" or not parts[0].gathering.content.has_events:
            return notes
        for part in parts:
            state = None
            # An export needs neither the states nor the right to read them. It is only for a note.
            with suppress(ExportError):
                state = await threads.run(partial(target.synced, part.account))
            if state is not None and not _covers(part.gathering.plan, state):
                all_days = (state.through - state.since).days + 1
                notes.append(
                    f"{target.label} is kept by a sync, through {state.through}: in the rows of "
                    f"this export, `matched` has its events and days only; to complete them, "
                    f"export all events and days of the sync, or sync once with "
                    f"`late_days={all_days}`"
                )
                self._kept_by.append(state)
        if notes:
            with suppress(ExportError):
                # Those of other accounts as well.
                self._kept_by = await threads.run(target.states)
        return notes

    def _write_manifest(self, place: Place, report: R) -> None:
        options = self.options(place)
        if self._state is not None:
            options["sync"] = of_state(self._state.account, self._state)
            if self.beside is not None:
                report, others = self.beside(report, self._state)
                options |= others
            elif (before := _syncs_before(place, self._state.account)) is not None:
                others, is_complete = before.after(self._state)
                options |= others
                report = replace(report, complete=report.complete and is_complete)
        elif self._kept_by:
            names = {part.account: part.name for part in self._parts}
            options["syncs"] = {
                names.get(one.account) or one.account: of_state(one.account, one)
                for one in self._kept_by
            }
        plans = {part.name: part.gathering.executed_plan for part in self._parts}
        errors = {part.name: part.error for part in self._parts if part.name is not None}
        manifest = encode_manifest(report, plans, options, datetime.now(UTC), errors)
        write_file(place.manifest, [manifest], other=place.other_than_files)

    @property
    def plan(self) -> Plan:
        """The plan of the first account, as it has been executed."""
        return self._parts[0].gathering.executed_plan

    def options(self, place: Place) -> dict[str, Any]:
        """Return the arguments beside the plan, as the manifest names them."""
        options = {**self._parts[0].gathering.options, **place.layout, "write": place.target.write}
        if self._finishes is not None and len(self._finishes.arguments.get("accounts", [])) > 1:
            # The report is of one of them.
            options["account"] = self._finishes.account
        return options

    # ----------------------------------------------------------------------------------- the report

    @property
    def totals(self) -> Totals:
        """The counters of all accounts, over this run and earlier ones."""
        totals = [part.totals for part in self._parts]
        return {
            "requests": sum(one["requests"] for one in totals),
            "retries": sum(one["retries"] for one in totals),
            "seconds": round(max(one["seconds"] for one in totals), 3),
        }

    def _describe(self, place: Place, *, has_manifest: bool = False) -> R:
        written = self._written
        mended = sum((one.mended for one in written), Mended())
        common = Report(
            output=place.target.name,
            manifest=place.address_of(place.manifest) if has_manifest else None,
            format=place.target.format,
            complete=bool(written) and len(self._complete) == len(self._parts),
            **self.totals,
            bytes=written[-1].bytes if written else None,
            sha256=written[-1].sha256 if written else None,
            mended=mended.total,
            mistyped=mended.mistyped,
            absorbed=sum(one.absorbed for one in written),
            warnings=[*self._left, *self._warnings],
        )
        reports = {part.name: part.describe(common) for part in self._parts if part.is_open}
        if not self._is_of_several:
            # A named one is one of several syncs of a table, which has no report besides.
            return replace(reports[self._parts[0].name], warnings=common.warnings)
        return united({name: one for name, one in reports.items() if name is not None}, common)

    def _incomplete(
        self,
        parts: Sequence[Part[R, S]],
        missing: list[str],
        report: R | None = None,
        *,
        cause: Exception | None = None,
    ) -> Incomplete:
        place = next(part.place for part in parts if part.is_open)
        is_written = report is not None
        remedy = disk_remedy(cause)
        if not remedy and cause is not None:
            remedy = "once that is mended, "
        end = self._resumption(parts, is_written=is_written, remedy=remedy)
        report = report or self._describe(place)
        return self._error(place, missing, end, report, is_written=is_written)

    def _error(
        self,
        place: Place,
        missing: list[str],
        end: str,
        report: R | None,
        *,
        is_written: bool = False,
    ) -> Incomplete:
        lines = "".join(f"\n  {sentence}" for sentence in missing)
        written = "is written, but " if is_written else ""
        return Incomplete(
            f"the {self._noun} to {place.target.name} {written}is not complete:{lines}\n{end}",
            missing=missing,
            report=report,
        )

    @property
    def _noun(self) -> str:
        return "sync" if self._output.sync is not None else self._parts[0].gathering.noun

    def _resumption(
        self,
        parts: Sequence[Part[R, S]],
        *,
        cure: str = "",
        is_written: bool = False,
        remedy: str = "",
    ) -> str:
        """Return what a later run can do.

        Args:
            parts: those that are not complete.
            cure: what lets a later run get further, if nothing is kept.
            is_written: whether the output is in place all the same.
            remedy: what is to be done first, in front of the rest of a sentence.
        """
        again = f"{remedy}run the same {self._noun} again"
        folders = [part.run.store.folder for part in parts if part.is_open]
        number = sum(part.kept() for part in parts)
        counted = numbered(number, parts[0].gathering.unit)
        if is_written:
            stay = f"{counted} {'stays' if number == 1 else 'stay'} in {folders[0].parent}"
            until = f"; until then, {stay}" if number else ""
            return f"{again} to ask for what is missing{until}"
        if number:
            folder = folders[0] if len(folders) == 1 else folders[0].parent
            verb = "is" if number == 1 else "are"
            return f"{counted} {verb} in {folder}; {remedy}run the same {self._noun} {TO_RESUME}"
        return f"{NOTHING_KEPT}; {again}{cure}"

    def _note_resumption(self, error: asyncio.CancelledError) -> None:
        """Have the error of a cancelled run say what is kept, if anything is. Blocking.

        A notebook shows it when a cell is stopped, and it has no text of its own.
        """
        # Another error must not hide this one.
        with suppress(OSError, ExportError):
            if any(part.kept() for part in self._parts):
                error.add_note(f"Stopped: {self._resumption(self._parts)}.")

    def _leave(self, workspaces: Workspaces) -> list[Path]:
        """Leave the workspaces; return those of a complete export that cannot be removed."""
        report = self._report
        if report is None:
            for part in self._parts:
                part.leave()
            return []
        runs = []
        if self._adds:
            runs = [
                Appended(
                    part.run.store.run,
                    part.run.store.began,
                    part.account,
                    part.name or "",
                    part.people or 0,
                    [*part.place.target.flatten],
                )
                for part in self._parts
            ]
        remains: list[Path] = []
        # Another error must not hide the one that has ended this run.
        with suppress(OSError, ExportError):
            remains = workspaces.end(
                [part.run.store for part in self._parts],
                msgspec.json.encode(report) if self._adds else None,
                runs,
            )
        return remains

    async def _make_last(self, report: R, threads: Threads) -> None:
        """Raise a cancellation now or never, while a note lets the same call add nothing."""
        try:
            await threads.make_last()
        except asyncio.CancelledError as error:
            error.add_note(
                f"{report.output} has all rows; the same {self._noun} once more adds none, and "
                f"returns the report."
            )
            raise

    async def _report_regularly(self) -> None:
        # While nothing arrives, retries and slots say why; and some databases take their rows in
        # one long statement.
        while True:
            await anyio.sleep(_REPORT_EVERY)
            for part in self._parts:
                part.report()


async def in_workspaces(
    find_place: Callable[[], Place],
    work: Callable[[Workspaces, Place, Threads], Awaitable[R]],
    *,
    resume: bool | None,
) -> R:
    """Return the report of `work`, which is called with the workspaces of an output, open.

    Args:
        find_place: returns the paths of the output. Blocking.
        work: called with the workspaces, that place, and threads for this work alone.
        resume: as for `Workspaces.open`; None if it is resumed, and the caller's function has no
            such argument.

    Raises:
        CancelledError: the task was cancelled. If `work` was complete, it has the report.
        Exception: an error of `work`, or that of `on_progress`.
    """
    threads = Threads()
    report: R | None = None
    try:
        # In a thread, because it may import pyarrow.
        place = await threads.run(find_place)
        open_workspaces = partial(
            Workspaces.open,
            place.folder,
            resume=resume is not False,
            other=place.other_than_folder,
        )
        with _discarding_by(None if resume is not None else place.status):
            report = await _in_place(place, open_workspaces, work, threads)
    except CallbackFailed as failed:
        failure = failed.error
    else:
        return report
    finally:
        threads.close()
        await _finish(report, threads)
    # Outside of the handler, so that the caller's error gets no context.
    raise failure


@contextmanager
def _discarding_by(status: str | None) -> Iterator[None]:
    """Have errors advise the command that discards an export, in place of `resume=False`.

    Args:
        status: the command line of its state; None if the caller's function has that argument.
    """
    try:
        yield
    except (ExportError, AccountsFailed) as error:
        errors = [error, *(error.errors.values() if isinstance(error, AccountsFailed) else ())]
        for one in errors if status is not None else ():
            if DISCARD in str(one):
                text = str(one).replace(DISCARD, f"`{status} --discard-unfinished`")
                one.args = (text, *one.args[1:])
        raise


async def _in_place(
    place: Place,
    open_workspaces: Callable[[], Workspaces],
    work: Callable[[Workspaces, Place, Threads], Awaitable[R]],
    threads: Threads,
) -> R:
    locks = [place.folder / LOCK]
    guard = None
    if (path := await threads.run(lambda: _guard_of(place))) is not None:
        locks.append(path)
        await threads.run(partial(free_left_behind, path))
        with naming_holder(path):
            guard = await threads.run(partial(Lock.acquire_if_possible, path))
    try:
        await threads.run(partial(free_left_behind, locks[0]))
        with naming_holder(locks[0]):
            workspaces = await threads.run(open_workspaces)

        def free() -> None:
            threads.end(workspaces.leave_behind)
            if guard is not None:
                _release(guard)

        try:
            with holding(*locks, free=free, writes=workspaces.turn.locked):
                return await work(workspaces, place, threads)
        finally:
            with anyio.CancelScope(shield=True):
                await threads.run(workspaces.close)
                await threads.run_behind(workspaces.sync_removal)
    finally:
        if guard is not None:
            with anyio.CancelScope(shield=True):
                await threads.run(partial(_release, guard))


def _new_encoder(target: Target, new_table: Callable[[], Table]) -> Encoder:
    return target.encoder(new_table())


class _Found(msgspec.Struct):
    """The part of a manifest that counts the keys found."""

    found: int | None = None


class _Syncs(msgspec.Struct, frozen=True):
    """The part of a manifest that is about syncs of several accounts."""

    complete: bool
    options: dict[str, Any]

    @property
    def syncs(self) -> dict[str, dict[str, str | None]]:
        """The account and the last day of each, by name."""
        return self.options.get("syncs") or {}

    def after(self, state: SyncState) -> tuple[dict[str, Any], bool]:
        """Return the options once one of the accounts has moved, and whether nobody is behind."""
        syncs = {
            name: of_state(state.account, state) if one["account"] == state.account else one
            for name, one in self.syncs.items()
        }
        days = [one["through"] for one in syncs.values()]
        is_complete = self.complete or all(day and day >= str(state.through) for day in days)
        return {"account": state.account, "syncs": syncs}, is_complete


def _syncs_before(place: Place, account: str) -> _Syncs | None:
    """Return the last manifest if it is of several syncs, one of which is that of `account`."""
    with suppress(OSError, msgspec.DecodeError):
        before = msgspec.json.decode(place.manifest.read_bytes(), type=_Syncs)
        if any(one["account"] == account for one in before.syncs.values()):
            return before
    return None


def _advice(
    part: Part[Any, Any], folder: Path, target: Target, are_there: Literal[True] | None
) -> str:
    """Return what to do with a workspace that cannot be read, and whose rows may be there.

    Args:
        part: the part of the run.
        folder: the folder of the workspace.
        target: the output.
        are_there: True if its rows are there, None if that is not known.
    """
    if are_there is None:
        return (
            f"whether its rows are in {target.label} is not known: if they are, delete {folder} "
            f"and do not run it again, else discard it with {DISCARD}"
        )
    once = "do not run it again" if part.name is None else f"run the others, not {part.name}"
    return (
        f"all its rows are in {target.label}: delete {folder}, and {once}, which would add them "
        f"once more"
    )


def _was_of_nobody(place: Place) -> bool:
    """Return whether the last lookup into an output has found no key. Blocking."""
    with suppress(OSError, ExportError, msgspec.DecodeError):
        content = place.read_manifest()
        return content is not None and msgspec.json.decode(content, type=_Found).found == 0
    return False


def _covers(plan: Plan, state: SyncState) -> bool:
    """Return whether an export brings all events and days that the rows of a sync have."""
    with suppress(ExportError):
        return isinstance(plan, EventsPlan) and Settings.parse(state.settings, "").are_in(
            plan, state
        )
    return False


def _nobody(target: Target, replaced: str | None) -> str:
    """Return the warning about an output of nobody, which may be a mistake."""
    none = "0 people" if target.content.of == "people" else "0 users"
    if target.write != "replace":
        return f"{none} came, and {target.name} keeps its rows"
    return f"{none} in {target.name}" if replaced is None else f"{none}; it replaced {replaced}"


def _by(names: Sequence[str], sentence: str) -> str:
    return f"{', '.join(names)}: {sentence}" if names else sentence


def _of_added(target: Target) -> str:
    return (
        f"an earlier run had added these rows to {target.label}, and was ended before it was over; "
        f"they are there once"
    )


def _of_then(began: datetime) -> str:
    """Return the warning about rows that are no longer current."""
    return f"the export was begun at {began:%Y-%m-%d %H:%M} UTC, and its rows are of then"


def _cure_of_lateness(failure: AltaProfilesError | None) -> str:
    """Return what a run that its deadline has ended needs, after its last failure, if any."""
    if isinstance(failure, ConnectError):
        return ", once a connection can be made"
    if isinstance(failure, Unauthorized):
        return ", with credentials that the service accepts"
    return ", with a longer `deadline`"


async def _finish(report: Report | None, threads: Threads) -> None:
    try:
        await threads.deliver_cancellation()
    except asyncio.CancelledError as error:
        if report is not None:
            error.add_note(f"{report.output} is complete, and in place.")
            vars(error)["report"] = report
        raise


def _guard_of(place: Place) -> Path | None:
    """Return the lock of a remote output, whose exports can gather in several folders here."""
    if place.remote is None:
        return None
    try:
        folder = default_place().with_name("uploads")
    except ConfigurationError:
        # Some containers have no home, and rarely run two exports.
        return None
    return folder / f"{place.remote.digest}.sqlite"


def _release(guard: Lock) -> None:
    with suppress(OSError):
        guard.remove()
    guard.release()


def _write_lines(path: Path, lines: Iterator[bytes], other: str) -> bool:
    """Write `lines` to a file; without any, delete the file that an earlier run has left.

    Args:
        path: the file.
        lines: its lines.
        other: as for `write_file`.

    Returns:
        Whether there is a file.
    """
    first = next(lines, None)
    if first is None:
        path.unlink(missing_ok=True)
        return False
    write_file(path, chain([first], lines), other=other)
    return True
