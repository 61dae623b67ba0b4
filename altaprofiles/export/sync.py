"""One run of `Session.sync`: finishes what earlier runs have left, then brings the days since.

Each step is an export with `write="upsert"`, whose rows and state change in one transaction. So a
run that is killed has either not begun a step, or has left it unfinished, or complete.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from functools import partial
from typing import Any

from msgspec.structs import replace

from ..base.task_account import of_account
from ..base.wording import failed_alone
from ..base.zones import FAR_AHEAD, USUAL_SKEW, is_to_come, today
from ..errors import AltaProfilesError, ConfigurationError, ExportError, Incomplete
from .accounts import AccountsFailed, next_run, summed, united
from .assemble import when_free
from .job import Job, in_workspaces
from .manifest import encode_manifest, of_state
from .output import Output
from .place import Place
from .plan import EventsPlan, Plan, difference_in_words
from .report import ExportProgress, ExportReport, Report, SyncReport
from .reporting import Totals
from .sinks import Target
from .sinks.files import write_file
from .state import SyncState
from .store.workspace import explaining_disk_errors
from .store.workspaces import Workspaces
from .synced import Days, Settings, days_of
from .threads import Threads, run_all
from .unfinished import Unfinished, is_confirmed, unfinished_at

__all__ = ["Sync", "Syncs"]

logger = logging.getLogger("altaprofiles")

_NO_ZONE = (
    "the time zone of the project is not known, so that days end at midnight UTC; name it: with "
    "timezone= (--timezone), in CLEVERTAP_TIMEZONE (behind the prefix, if `from_env` has one), or "
    "as the key timezone of the account in the credentials file"
)


class Sync:
    """One run of one sync.

    Args:
        job: returns the job that brings a plan to an output; with the windows of an unfinished run
            of the same days, if it is one that may take them.
        plan: returns the plan of a first and a last day; with a window for each day, if it is to be
            so.
        output: the caller's arguments.
        days: the days that the caller asks for.
        timezone: the name of the time zone, or None if it is not known.
        name: the name of the account, for a sync of several; else None.

    Attributes:
        name: the argument.
        last: the export that has written rows last, or None.
        seen: when its reports saw the output last, by a clock that never goes back.
        state: the state of the table for the account, as far as it is known.
        is_done: whether it has brought everything.
        beside: the syncs of the same run, with this one, if there are several.

    Raises:
        ConfigurationError: an argument cannot work.
    """

    def __init__(
        self,
        job: Callable[[EventsPlan, Output, bool], Job[ExportReport, ExportProgress]],
        plan: Callable[[date, date, bool], EventsPlan],
        output: Output,
        days: Days,
        timezone: str | None,
        name: str | None = None,
    ) -> None:
        self.name = name
        self._plan = plan
        self._days = days
        self._timezone = timezone or "UTC"
        self._warnings = [] if timezone else [_NO_ZONE]
        # Any days, to check the arguments with.
        self._some = plan(days.since, days.since, False)
        self._settings = Settings.of(self._some, days.since, self._timezone)
        self._output = replace(output, write="upsert", sync=self._settings.encode())
        self._job = job
        self._reports: list[ExportReport] = []
        # Of exports that an error has ended, without a report.
        self._unreported: list[Totals] = []
        self._brought: list[date] = []
        self._failures: list[Incomplete] = []
        self._finished: list[EventsPlan] = []
        self._confirmed = 0.0
        self.last: Job[ExportReport, ExportProgress] | None = None
        self.seen = 0.0
        self.state: SyncState | None = None
        self.is_done = False
        self.beside: Sequence[Sync] = ()

    async def run(self) -> SyncReport:
        """Bring everything, and return the report.

        Raises:
            PlanMismatch: another sync keeps the table.
            CancelledError, ConfigurationError, ExportError, AltaProfilesError: as from `Job.run`.
        """
        return await in_workspaces(self.find_place, self.run_in, resume=None)

    @property
    def account(self) -> str:
        """The ID of the account."""
        return self._some.account

    def find_place(self) -> Place:
        """Return the paths of its exports. Blocking.

        Raises:
            ConfigurationError: an argument cannot work.
        """
        return self._job(self._some, self._output, False).find_place()

    async def run_in(self, workspaces: Workspaces, place: Place, threads: Threads) -> SyncReport:
        """Do the same as `run`, in workspaces that are open already.

        Args:
            workspaces: those of the output.
            place: the result of `find_place`.
            threads: runs blocking calls.

        Raises:
            CallbackFailed: `on_progress` raised an exception.
            PlanMismatch, ExportError, AltaProfilesError: as from `run`.
        """
        for sentence in self._warnings:
            self._log(sentence)
        state = await self._state(workspaces, place.target, threads)
        if state is not None:
            self._warn_of_zone(state, place.target)
        left, dubious = await threads.run(lambda: self._left(place))
        for plan in self._plans(left):
            if not self._settings.follows(state, plan):
                # A backup of the table has been restored, which has not even the days before.
                continue
            state = await self._bring(plan, workspaces, place, threads, is_new=False)
            self._finished.append(plan)
        days = self._days.after(state)
        # Days that have just been brought are not late yet.
        if days is not None and self._finished and state is not None and state.through >= days[1]:
            days = None
        if state is not None and state.is_ahead and not self._is_confirmed(state):
            self._check_clock(state, days, place.target)
        # Also if nothing is due: later its days will be over, and nothing tells it from sound work.
        await threads.run(lambda: self._discard(workspaces, dubious))
        if days is not None:
            by_day = place.target.by_day
            plan = self._plan(*days, by_day)
            state = await self._bring(plan, workspaces, place, threads, is_new=not by_day)
        await threads.run(lambda: self._tidy(workspaces, place, left, days))
        if state is not None:
            await threads.run(partial(self._warn_of_lost_days, place.target, state.through))
            await threads.run(partial(self._warn_of_damaged_days, place.target, state.through))
        report = self._describe(place, state)
        if not self._reports:
            self.seen = time.monotonic()
        if self._failures:
            raise self._failed(report)
        self.is_done = True
        return report

    async def _bring(
        self,
        plan: EventsPlan,
        workspaces: Workspaces,
        place: Place,
        threads: Threads,
        *,
        is_new: bool,
    ) -> SyncState | None:
        """Bring the days of a plan, and return the state of the table."""
        job = self._job(plan, self._output, is_new)
        job.check_clock = partial(self._check_against_service, plan)
        if self.beside:
            job.beside = self._among_others
        _, last = days = days_of(plan)
        try:
            self._keep(await job.run_in(workspaces, place, threads))
            self.last = job
        except Incomplete as error:
            state = await self._state(workspaces, place.target, threads)
            if isinstance(error.report, ExportReport):
                self._keep(error.report)
            if state is None or state.through < last:
                error.report = self.describe_failed(place)
                raise
            self.last = job
            # The rows are there without some lookups of a join, for which later days do not wait.
            self._failures.append(error)
            self._brought += days
            return state
        except (AltaProfilesError, OSError):
            self._unreported.append(job.totals)
            raise
        self._brought += days
        return await self._state(workspaces, place.target, threads)

    def _among_others(
        self, report: ExportReport, state: SyncState
    ) -> tuple[ExportReport, dict[str, Any]]:
        """Return the report of one account for the manifest, and what is known of the others.

        Should the run be killed now, nobody else says that it was to bring them.
        """
        others = [sync for sync in self.beside if sync is not self]
        is_last = state.through >= self._days.last and all(sync.is_done for sync in others)
        options = {
            "account": self.account,
            "syncs": {
                str(sync.name): of_state(sync.account, state if sync is self else sync.state)
                for sync in self.beside
            },
        }
        return replace(report, complete=report.complete and is_last), options

    def _keep(self, report: ExportReport) -> None:
        self._reports.append(report)
        self.seen = time.monotonic()

    async def _state(
        self, workspaces: Workspaces, target: Target, threads: Threads
    ) -> SyncState | None:
        async with workspaces.turn:
            state = await when_free(
                threads,
                target,
                lambda: target.synced(self._some.account),
                self._output.deadline,
            )
        self._settings.check(state, target.label)
        self.state = state
        return state

    def _left(self, place: Place) -> tuple[list[Unfinished], dict[str, str]]:
        """Return what earlier runs of this sync have left. Blocking.

        Returns:
            That, and the names of the folders of what is not to be finished, each with the reason:
            if a clock that was ahead has begun it, its days may not have been over. If the clock of
            the service has confirmed it, that of this machine is behind instead.
        """
        left = [
            one
            for one in unfinished_at(place.folder)
            if one.plan is not None
            and one.plan.account == self._some.account
            and not one.is_empty
            and self._settings.is_in(one.arguments.get("sync"))
        ]
        dubious: dict[str, str] = {}
        for one in left:
            if (fault := self._fault_of(one)) is None:
                continue
            # It may also be of another time zone.
            if not self._were_over(one) or not is_confirmed(one):
                dubious[one.path.name] = f"{one.title} {fault}"
                continue
            self._confirmed = max(self._confirmed, one.began or 0.0)
            self._warn(
                f"{one.title} {fault}, and by that of the service it is sound: the clock of this "
                f"machine is behind; set it"
            )
        return [one for one in left if one.path.name not in dubious], dubious

    def _fault_of(self, one: Unfinished) -> str | None:
        """Return what is wrong with the days of an unfinished export, in words, or None."""
        if one.began is not None and is_to_come(one.began):
            return f"was begun at {_moment(one.began)}, which is to come by this machine's clock"
        if isinstance(one.plan, EventsPlan) and not self._days.are_over(one.plan):
            return "has days that are not over by this machine's clock"
        return None

    def _were_over(self, one: Unfinished) -> bool:
        """Return whether the days of an unfinished export were over when it was begun."""
        plan, began = one.plan, one.began
        if began is None or not isinstance(plan, EventsPlan):
            return False
        return self._days.are_over(plan, began)

    def _is_confirmed(self, state: SyncState) -> bool:
        """Return whether this machine's clock is behind, and a finished export has the state."""
        over = today(self._days.zone, self._confirmed)
        return state.synced_at.timestamp() <= self._confirmed and state.through < over

    def _discard(self, workspaces: Workspaces, dubious: Mapping[str, str]) -> None:
        """Discard what `_left` calls dubious, so that its days are asked for anew. Blocking."""
        for name, reason in dubious.items():
            workspaces.discard(name)
            self._warn(f"{reason}; it is discarded, and its days are asked for anew")

    def _plans(self, left: list[Unfinished]) -> list[EventsPlan]:
        """Return the plans that this run can finish, by days."""
        places = [getattr(self._some, name) for name in _PLACES]
        plans = [one.plan for one in left if isinstance(one.plan, EventsPlan)]
        return sorted(
            (plan for plan in plans if [getattr(plan, name) for name in _PLACES] == places),
            key=days_of,
        )

    def _tidy(
        self,
        workspaces: Workspaces,
        place: Place,
        left: list[Unfinished],
        days: tuple[date, date] | None,
    ) -> None:
        """Remove what has been left of days that this run has brought anew. Warn of the others."""
        for one in left:
            if not isinstance(one.plan, EventsPlan) or one.plan in self._finished:
                continue
            first, last = days_of(one.plan)
            if days is not None and days[0] <= first and last <= days[1]:
                workspaces.discard(one.path.name)
            else:
                places = {name: getattr(self._some, name) for name in _PLACES}
                difference = difference_in_words(one.plan, replace(one.plan, **places))
                self._warn(one.warning(place.status, difference))

    def _check_against_service(self, plan: EventsPlan, ahead: float) -> None:
        """Raise `ExportError` if days that this machine's clock takes for over may not be.

        A clock that is further ahead would date rows such that later ones do not replace them. One
        that is behind brings days later.

        Args:
            plan: the days.
            ahead: the seconds by which the clock is ahead of the service's.
        """
        now = time.time()
        if ahead <= FAR_AHEAD and self._days.are_over(plan, now - ahead + USUAL_SKEW):
            return
        raise ExportError(
            f"the clock of this machine is ahead: it says {_moment(now)}, and that of the service "
            f"{_moment(now - ahead)}, and which days are over depends on it; set the clock, or if "
            f"it is right, that of the proxy between"
        )

    def _check_clock(
        self, state: SyncState, days: tuple[date, date] | None, target: Target
    ) -> None:
        """Raise `ExportError` if a clock that was ahead has brought days, unless some are due.

        Those that were not over then are there in part, or not at all.
        """
        all_days = (state.through - self._days.since).days + 1
        through = datetime.combine(state.through, datetime.min.time(), UTC).timestamp()
        until = _moment(max(state.synced_at.timestamp() - FAR_AHEAD, through))
        since = f"brought at {_moment(state.synced_at.timestamp())}, which is to come"
        if state.through >= today(self._days.zone):
            since = "which are not over"
        sentence = (
            f"{target.label} has the days through {state.through} of {state.account}, {since}: "
            f"the clock of this machine is behind, or one was ahead when they were brought"
        )
        if days is None:
            raise ExportError(
                f"{sentence}. Nothing was asked for. If the clock is right now, sync this account "
                f"once with `late_days={all_days}`, which brings all days again, or with fewer "
                f"that reach back to the night in which the clock was wrong; do so before {until}, "
                f"as later syncs do not notice"
            )
        self._warn(
            f"{sentence}; they are brought again from {days[0]} on; if the clock was wrong before "
            f"that day, sync once more with `late_days` that reach back to then"
        )

    def _warn_of_zone(self, state: SyncState, target: Target) -> None:
        """Warn if another time zone has decided when days are over, and they are not due again."""
        before = self._settings.timezone_of(state)
        if before is None or before == self._timezone:
            return
        first = self._days.shifted(before, state.through, are_kept=not target.by_day)
        days = self._days.after(state)
        if first is None or (days is not None and days[0] <= first):
            return
        late = (max(state.through, self._days.last) - first).days + 1
        others = ", or have those of the day beside" if target.by_day else ""
        self._warn(
            f"`timezone` was {before!r} when the days through {state.through} of {self.account} "
            f"were brought to {target.label}, and is now {self._timezone!r}: those from {first} on "
            f"may lack the rows of some hours{others}; sync this account once with "
            f"`late_days={late}` or more, which brings them again"
        )

    def _warn_of_lost_days(self, target: Target, through: date) -> None:
        """Warn of days that this sync has brought, and that somebody has removed. Blocking."""
        lost = target.lost_days(self.account, self._days.since, through)
        if not lost:
            return
        late = (through - lost[0]).days + 1
        days = f"the day {lost[0]}, which a sync has brought; to bring it"
        if len(lost) > 1:
            days = (
                f"{len(lost):,} days from {lost[0]} to {lost[-1]}, which syncs have brought; to "
                f"bring them"
            )
        self._warn(
            f"{target.label} lacks the rows of {days} again, sync this account once with "
            f"`late_days={late}` or more"
        )

    def _warn_of_damaged_days(self, target: Target, through: date) -> None:
        """Warn of the days before whose files readers cannot open. Blocking."""
        damaged = target.damaged_days(self._days.since, through)
        if not damaged:
            return
        late = (through - min(damaged)).days + 1
        # In the place of a file may be something else.
        found, them, days = "a day", "it", "the day"
        if len(damaged) > 1:
            found, them, days = f"{len(damaged):,} days", "them", "the days"
        self._warn(
            f"{target.label} has {found} that no reader can open: {', '.join(damaged.values())}; "
            f"remove {them}, and sync this account once with `late_days={late}` or more, which "
            f"brings {days} again"
        )

    def _warn(self, sentence: str) -> None:
        self._log(sentence)
        self._warnings.append(sentence)

    def _log(self, sentence: str) -> None:
        logger.warning("%s", sentence if self.name is None else f"{self.name}: {sentence}")

    def _failed(self, report: SyncReport) -> Incomplete:
        if len(self._failures) == 1:
            (failure,) = self._failures
            failure.report = report
            return failure
        return Incomplete(
            "\n".join(map(str, self._failures)),
            missing=[sentence for one in self._failures for sentence in one.missing],
            report=report,
        )

    def describe_failed(self, place: Place) -> SyncReport:
        """Return the report of a run that an error has ended.

        Args:
            place: as for `run_in`.
        """
        return replace(self._describe(place, self.state), complete=False)

    def _describe(self, place: Place, state: SyncState | None) -> SyncReport:
        reports = self._reports
        last = reports[-1] if reports else _nothing(place.target)
        common = {name: getattr(last, name) for name in Report.__struct_fields__}
        sums = {name: sum(getattr(one, name) for one in reports) for name in _SUMS}
        sums |= {
            name: sums[name] + sum(one[name] for one in self._unreported)
            for name in ("requests", "retries", "seconds")
        }
        joined = {
            name: sum(getattr(one, name) or 0 for one in reports)
            for name in ("matched", "unmatched", "failed")
            if self._some.with_cdp
        }
        sentences = [*self._warnings, *(text for one in reports for text in one.warnings)]
        values: dict[str, Any] = {
            **common,
            **sums,
            **joined,
            # An earlier run of the same sync may have written it.
            "manifest": str(place.manifest) if place.manifest.exists() else None,
            "complete": all(one.complete for one in reports),
            "seconds": round(sums["seconds"], 3),
            "mistyped": summed([one.mistyped for one in reports]) or {},
            "warnings": [*dict.fromkeys(sentences)],
        }
        return SyncReport(
            **values,
            since=self._days.since,
            has_output=state is not None,
            first=min(self._brought, default=None),
            last=max(self._brought, default=None),
            through=None if state is None else state.through,
            timezone=self._timezone,
            finished=len(self._finished),
            chains=[chain for one in reports for chain in one.chains],
            failed_file=getattr(last, "failed_file", None),
        )


class Syncs:
    """One run of the syncs of several accounts into one table, side by side.

    The failure of one does not stop the others. Each has a state of its own, which moves with its
    rows; so their rows are written one after the other.

    Args:
        syncs: the syncs, each with the name of its account.
        on_failure: called with the name of an account that fails.
    """

    def __init__(self, syncs: Sequence[Sync], on_failure: Callable[[str], object]) -> None:
        self._syncs = {str(sync.name): sync for sync in syncs}
        for sync in syncs:
            sync.beside = syncs
        self._on_failure = on_failure
        self._places: dict[str, Place] = {}
        self._reports: dict[str, SyncReport] = {}
        self._errors: dict[str, Exception] = {}

    async def run(self) -> SyncReport:
        """Bring everything, and return the report.

        Raises:
            AccountsFailed: an account has failed.
            CancelledError, ConfigurationError, ExportLocked: as from `Sync.run`.
        """
        return await in_workspaces(self._find_places, self._run_in, resume=None)

    def _find_places(self) -> Place:
        """Return the place of the first account, whose folder is that of all. Blocking."""
        self._places = {name: sync.find_place() for name, sync in self._syncs.items()}
        return next(iter(self._places.values()))

    async def _run_in(self, workspaces: Workspaces, _: Place, threads: Threads) -> SyncReport:
        workspaces.syncing.update(sync.account for sync in self._syncs.values())
        await run_all(
            [
                of_account(name, partial(self._run_one, name, workspaces, place, threads))
                for name, place in self._places.items()
            ]
        )
        fault = None
        if any(sync.last is not None for sync in self._syncs.values()):
            async with workspaces.turn:
                fault = await threads.run(self._fault_of_manifest)
        return self._described(fault)

    def _fault_of_manifest(self) -> ExportError | None:
        """Write the manifest of all accounts; return the error if the disk refuses it."""
        try:
            self._write_manifest()
        except ExportError as error:
            return error
        return None

    def _write_manifest(self) -> None:
        """Write the manifest of all accounts, in place of those that each of them has written."""
        jobs = {name: sync.last for name, sync in self._syncs.items() if sync.last is not None}
        name = next(iter(jobs))
        place = self._places[name]
        options = jobs[name].options(place)
        options["syncs"] = {
            name: of_state(sync.account, sync.state) for name, sync in self._syncs.items()
        }
        plans: dict[str | None, Plan] = {name: job.plan for name, job in jobs.items()}
        now = datetime.now(UTC)
        manifest = encode_manifest(self._united(), plans, options, now, self._errors)
        with explaining_disk_errors(place.manifest.parent):
            write_file(place.manifest, [manifest], other=place.other_than_files)

    async def _run_one(
        self, name: str, workspaces: Workspaces, place: Place, threads: Threads
    ) -> None:
        try:
            self._reports[name] = await self._syncs[name].run_in(workspaces, place, threads)
        except ConfigurationError:
            raise
        except (AltaProfilesError, OSError) as error:
            self._errors[name] = error
            if self._errors.keys() | self._reports.keys() != self._syncs.keys():
                logger.warning("%s", failed_alone(name))
            self._on_failure(name)
            report = getattr(error, "report", None)
            if not isinstance(report, SyncReport):
                report = self._syncs[name].describe_failed(place)
            self._reports[name] = report

    def _described(self, fault: ExportError | None) -> SyncReport:
        """Return the report.

        Args:
            fault: the error of the manifest, or None. It takes the place of no error of an account.

        Raises:
            AccountsFailed: an account has failed.
            ExportError: the manifest could not be written.
        """
        report = self._united()
        if not self._errors:
            if isinstance(fault, Incomplete):
                fault.report = report
            if fault is not None:
                raise fault
            return report
        complete = [name for name in self._syncs if name not in self._errors]
        message = f"{', '.join(self._errors)} {'has' if len(self._errors) == 1 else 'have'} failed"
        if complete:
            verb = "is" if len(complete) == 1 else "are"
            message = f"{', '.join(complete)} {verb} up to date; {message}"
        message += next_run([*self._errors.values()], "resumes", others=bool(complete))
        failure = AccountsFailed(message, self._errors, report)
        if fault is not None:
            failure.add_note(str(fault))
        raise failure

    def _united(self) -> SyncReport:
        reports = self._reports
        # The last one that was written has seen the whole file.
        last = reports[max(reports, key=lambda name: self._syncs[name].seen)]
        common = Report(
            output=last.output,
            manifest=next((one.manifest for one in reports.values() if one.manifest), None),
            format=last.format,
            complete=not self._errors,
            requests=sum(one.requests for one in reports.values()),
            retries=sum(one.retries for one in reports.values()),
            seconds=max(one.seconds for one in reports.values()),
            bytes=last.bytes,
            sha256=last.sha256,
            mended=sum(one.mended for one in reports.values()),
            mistyped=summed([one.mistyped for one in reports.values()]) or {},
            absorbed=sum(one.absorbed for one in reports.values()),
            warnings=[
                text if text.startswith(f"{name}: ") else f"{name}: {text}"
                for name, one in reports.items()
                for text in one.warnings
            ],
        )
        ordered = {name: reports[name] for name in self._syncs if name in reports}
        through = [one.through for one in ordered.values()]
        return replace(
            united(ordered, common),
            since=min(one.since for one in ordered.values()),
            has_output=any(one.has_output for one in ordered.values()),
            first=min((one.first for one in ordered.values() if one.first), default=None),
            last=max((one.last for one in ordered.values() if one.last), default=None),
            through=None if None in through else min(day for day in through if day),
            timezone=", ".join(dict.fromkeys(one.timezone for one in ordered.values())),
        )


def _nothing(target: Target) -> Report:
    """Return the report of a run that had nothing to bring."""
    path = target.path
    return Report(
        output=target.name,
        manifest=None,
        format=target.format,
        complete=True,
        requests=0,
        retries=0,
        seconds=0.0,
        bytes=path.stat().st_size if path is not None and path.is_file() else None,
    )


def _moment(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC"


_PLACES = ("host", "cdp_account", "cdp_host")
"""The services that a plan is asked of, of fields that `Settings` leave out."""

_SUMS = ("requests", "retries", "seconds", "mended", "absorbed", "people", "records", "pages")
