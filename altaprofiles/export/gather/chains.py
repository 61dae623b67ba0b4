"""`Session.export`: chains into spools, spools into the output.

Each page goes the same way: into its chain's spool, to the disk, into the journal. So whatever ends
the process, what the journal counts is there, and the same call goes on behind it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Literal, TypeAlias

from ...base.verdicts import dooms_all
from ...errors import AltaProfilesError, BadRequest, CursorError, CursorLoop, ExportError
from ...flow.lifetime import INTERRUPTED
from ...flow.paging import mark
from ...models import Page
from ...sources.chains import Chains
from ...wire.query import EventQuery
from ..assemble import Output, assemble
from ..job import Job, Setting
from ..plan import Plan
from ..report import ChainStatus, ExportProgress, ExportReport
from ..store.journal import ChainRow
from ..store.people import PeopleOnDisk
from ..store.spool import Spool, read_lines
from ..store.workspace import Workspace, writing_in
from ..threads import run_all

__all__ = ["Export", "OnProgress"]

logger = logging.getLogger("altaprofiles")

OnProgress: TypeAlias = Callable[[ExportProgress], object]

CURSOR_LIFE = 4 * 86_400
"""Seconds in which a cursor can be used ("Get User Profiles"; seen)."""

_RESTARTS = 2
"""How often one run begins a chain again before it gives up on it."""


class _ChainState:
    """One chain of the plan: what is journalled of it, and what this run has learned."""

    def __init__(self, query: EventQuery, row: ChainRow, path: Path) -> None:
        self.query = query
        self.row = row
        self.path = path
        self.resumed = row.records
        self.counted: int | None = None
        self.error: AltaProfilesError | None = None

    @property
    def status(self) -> ChainStatus:
        row = self.row
        return ChainStatus(
            event=self.query.event,
            start=self.query.start,
            end=self.query.end,
            records=row.records,
            pages=row.pages,
            done=row.done,
            restarts=row.restarts,
            counted=self.counted,
        )


class Export(Job[Plan, ExportReport]):
    """One run of one export of events.

    Args:
        chains: the service.
        adopt: whether the windows of an earlier run will do as well as the plan's.
        distinct: whether people that several chains bring are written once.
        count: whether the service is asked for its own counts.
        on_progress: told where it is.
    """

    KEPT = "records"

    def __init__(
        self,
        setting: Setting,
        plan: Plan,
        *,
        chains: Chains,
        adopt: bool,
        distinct: bool,
        count: bool,
        on_progress: OnProgress | None,
    ) -> None:
        super().__init__(setting, plan)
        self._chains = chains
        self._adopt = adopt
        self._distinct = distinct
        self._count = count
        self._on_progress = on_progress
        self._states: list[_ChainState] = []
        self._counted: dict[str, int] = {}
        self._stage: Literal["reading", "finishing"] | None = None
        self._finished = self._people = 0

    @property
    def kept(self) -> int:
        return sum(state.row.records for state in self._states)

    async def load(self, work: Workspace) -> None:
        await self.threads.run(lambda: self._load(work))

    def _load(self, work: Workspace) -> None:
        begun = work.begun()
        if begun is not None and self._adopt:
            self.plan = self.plan.split_as(begun)
        self.begin(work)
        rows = work.journal.chains()
        for number, chain in enumerate(self.plan.queries):
            row = rows.get(number) or ChainRow(number)
            path = work.spool(f"chain-{number:04d}")
            if row.offset:
                # What is wrong with it shows now, and not after the other chains' hours.
                with writing_in(path.parent):
                    Spool(path, row.offset).close()
            self._states.append(_ChainState(chain, row, path))

    # ------------------------------------------------------------------- from the service to spools

    async def fetch(self, work: Workspace) -> None:
        """Bring what is not in the spools yet.

        Every event is opened before any chain is walked: that the service refuses one must not show
        after the hours that the others take.
        """
        await self.threads.run(lambda: self._drop_expired(work))
        self._stage = "reading"
        self.tell()
        await self._open_events(work)
        waiting = [state for state in self._states if not state.row.done]
        queue = iter(waiting)
        # As many as there are slots keep those busy, as many again the slots of those that wait
        # for a page to be prepared.
        readers = min(len(waiting), 2 * self.setting.cap.limit)
        await run_all(
            [
                *(self._counts() if self._count else ()),
                *[partial(self._take_chains, work, queue)] * readers,
            ]
        )
        missing = [
            f"{state.query} from page {state.row.pages + 1} on: {state.error or INTERRUPTED}"
            for state in self._states
            if not state.row.done
        ]
        if missing:
            raise self.incomplete(missing)

    async def _open_events(self, work: Workspace) -> None:
        failures: list[AltaProfilesError] = []

        async def try_to_open(state: _ChainState) -> None:
            try:
                await self._open(work, state)
            except AltaProfilesError as error:
                if dooms_all(error) or isinstance(error, BadRequest | ExportError):
                    raise
                failures.append(error)

        await run_all([partial(try_to_open, state) for state in self._unopened_events()])
        if failures and not any(state.row.cursor or state.row.done for state in self._states):
            raise failures[0]

    def _unopened_events(self) -> Iterator[_ChainState]:
        known = {state.query.event for state in self._states if state.row.cursor or state.row.done}
        for state in self._states:
            if state.query.event not in known:
                known.add(state.query.event)
                yield state

    async def _open(self, work: Workspace, state: _ChainState) -> None:
        try:
            cursor = await self._chains.open(state.query)
        except BadRequest as error:
            error.add_note(
                f"That is what the service says of the event {state.query.event!r}; it wants the "
                f"name as the dashboard has it, upper case and blanks included."
            )
            raise
        row = ChainRow(state.row.number, cursor, time.time(), restarts=state.row.restarts)
        await self.threads.run(lambda: self._commit(work, state, row))

    async def _take_chains(self, work: Workspace, queue: Iterator[_ChainState]) -> None:
        for state in queue:
            try:
                await self._bring(work, state)
            except AltaProfilesError as error:
                if dooms_all(error) or isinstance(error, ExportError) or self.is_caller_s(error):
                    raise
                # The others can be brought all the same: what is missing is told at the end.
                state.error = error
                logger.warning("%s cannot be exported now: %s", state.query, error)

    async def _bring(self, work: Workspace, state: _ChainState) -> None:
        restarts = 0
        while not state.row.done:
            if state.row.cursor is None:
                await self._open(work, state)
            first = state.row.cursor
            try:
                await self._walk(work, state)
            except (CursorError, BadRequest) as error:
                # A request that was right once is wrong only because its cursor has been dropped;
                # or it is a proxy that says so, without a code of the service's own.
                refused = isinstance(error, CursorError) or (
                    state.row.cursor == first and error.code is not None
                )
                if not refused or self.is_caller_s(error):
                    raise
                # Also before giving up: it cannot be gone on with.
                await self.threads.run(partial(self._restart, work, state, error))
                if restarts == _RESTARTS:
                    raise
                restarts += 1

    async def _walk(self, work: Workspace, state: _ChainState) -> None:
        spool = await self.threads.run(lambda: Spool(state.path, state.row.offset))
        try:
            pages = self._chains.walk(
                [state.row.cursor or ""],
                # One chain alone fills the slots by itself; several need less of each.
                prefetch=2 if len(self._states) == 1 else 1,
                decode=False,
            )
            try:
                async for page in pages:
                    await self.threads.run(partial(self._keep, work, state, spool, page))
                    self.tell()
                    # Not held while the next one is waited for.
                    del page
            finally:
                await pages.aclose()
        except AltaProfilesError as error:
            # It names the cursor to go on with, for those who keep cursors; here it is journalled.
            vars(error).pop("__notes__", None)
            raise
        finally:
            spool.close()

    def _keep(self, work: Workspace, state: _ChainState, spool: Spool, page: Page) -> None:
        asked = mark(page.cursor)
        if page.next_cursor is not None and (
            page.next_cursor == page.cursor
            or work.journal.was_asked(state.row.number, mark(page.next_cursor))
        ):
            # Before it is kept: a run that goes on does not know what this one has walked.
            raise CursorLoop(
                f"the service repeated a cursor after {state.row.pages + 1} pages of {state.query}"
            )
        lines = page.encode()
        row = ChainRow(
            state.row.number,
            page.next_cursor,
            time.time(),
            # The spool first: what the journal counts must be there.
            spool.append(lines),
            state.row.records + lines.count(b"\n"),
            state.row.pages + 1,
            page.next_cursor is None,
            state.row.restarts,
        )
        self._commit(work, state, row, asked)

    def _commit(
        self, work: Workspace, state: _ChainState, row: ChainRow, asked: bytes | None = None
    ) -> None:
        with work.journal.transaction():
            work.journal.put_chain(row, asked)
            self.put_totals(work)
        state.row = row

    def _drop_expired(self, work: Workspace) -> None:
        for state in self._states:
            age = time.time() - state.row.since
            if state.row.cursor and age > CURSOR_LIFE:
                self._restart(work, state, f"its cursor is {age / 86_400:.1f} days old")

    def _restart(self, work: Workspace, state: _ChainState, why: object) -> None:
        logger.warning("%s begins again with its first page: %s", state.query, why)
        restarts = state.row.restarts + 1
        state.resumed = 0
        self._commit(work, state, ChainRow(state.row.number, restarts=restarts))

    def _counts(self) -> Iterator[Callable[[], Awaitable[None]]]:
        plan = self.plan
        for event in plan.events:
            chains = [state for state in self._states if state.query.event == event]
            whole = plan.query(event)
            for query in {whole, *(state.query for state in chains)}:
                counted = [state for state in chains if state.query == query]
                yield partial(self._ask_count, query, counted, of_all=query == whole)

    async def _ask_count(
        self, query: EventQuery, states: list[_ChainState], *, of_all: bool
    ) -> None:
        try:
            count = await self._chains.count(query, bulk=True)
        except AltaProfilesError as error:
            if dooms_all(error):
                raise
            # It is a check of the export, and no part of it.
            logger.warning("the service does not count %s: %s", query, error)
            return
        if of_all:
            self._counted[query.event] = count
        for state in states:
            state.counted = count
        self.tell()

    # ------------------------------------------------------------------- from spools to the output

    async def finish(self, work: Workspace) -> ExportReport:
        people = None
        if self._distinct and len(self._states) > 1:
            people = await self.threads.run(lambda: PeopleOnDisk(work.people))
        try:
            output = await assemble(
                self.threads,
                self.setting.target,
                self._batches,
                records=self.kept,
                distinct=None if people is None else people.distinct,
                on_batch=self._tell_finished,
            )
        finally:
            if people is not None:
                people.close()
        self._people = output.records
        self._compare_counts()
        report = self.describe(complete=True, output=output)
        await self.put_manifest(report)
        return report

    def _compare_counts(self) -> None:
        """Say so if the service has counted other than what it has sent."""
        for event, counted in self._counted.items():
            # Of several events, people are written once; of several windows, perhaps not.
            alone = len(self._states) == 1 or (self._distinct and len(self.plan.events) == 1)
            if alone and counted != self._people:
                logger.warning(
                    "the service counts %d people for %r, and %d were exported",
                    counted,
                    event,
                    self._people,
                )

    def _batches(self) -> Iterator[list[bytes]]:
        for state in self._states:
            if state.row.offset:
                yield from read_lines(state.path, state.row.offset)

    # ------------------------------------------------------------------------------- what is told

    def _tell_finished(self, read: int, written: int) -> None:
        self._stage, self._finished, self._people = "finishing", read, written
        self.tell()

    def tell(self) -> None:
        if self._on_progress is None or self._stage is None:
            return
        counts = [state.counted for state in self._states if state.counted is not None]
        self.call_back(
            self._on_progress,
            ExportProgress(
                stage=self._stage,
                chains=[state.status for state in self._states],
                records=self.kept,
                total=sum(counts) if len(counts) == len(self._states) else None,
                resumed=sum(state.resumed for state in self._states),
                finished=self._finished,
                people=self._people,
                **self.traffic(),
            ),
        )

    def describe(self, *, complete: bool, output: Output | None = None) -> ExportReport:
        counts = {event: self._counted.get(event) for event in self.plan.events}
        return ExportReport(
            people=0 if output is None else output.records,
            records=self.kept,
            pages=sum(state.row.pages for state in self._states),
            chains=[state.status for state in self._states],
            counted={event: count for event, count in counts.items() if count is not None} or None,
            **self.totals(complete=complete, output=output),
        )
