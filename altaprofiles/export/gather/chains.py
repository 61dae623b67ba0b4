"""Gathers cursor chains: each page into its chain's spool, to the disk, into the journal.

Because a page goes that way, the spool always holds what the journal counts: the next run resumes
behind it, whatever has ended this process.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from anyio.lowlevel import checkpoint
from msgspec.structs import asdict, replace

from ...base.checks import shown_setting
from ...base.verdicts import dooms_all, is_final
from ...base.wording import next_step
from ...errors import (
    AltaProfilesError,
    BadRequest,
    CursorError,
    CursorLoop,
    ExportError,
    InvalidArgument,
)
from ...flow.lifetime import INTERRUPTED
from ...flow.paging import drop_position, mark
from ...flow.slices import at_once
from ...sources.chains import REOPENINGS, Chains, is_short, shortfall
from ...tables.rows import Row
from ...wire.days import date_of
from ...wire.query import EventQuery
from ..ahead import Ahead, Arrived, Block, WritesAny
from ..keys import KeyFile
from ..place import Place
from ..plan import EventsPlan
from ..report import ChainStatus, ExportProgress, ExportReport, Report
from ..reporting import Traffic
from ..sinks import Target
from ..store.draft import Draft, Drafts
from ..store.journal import ChainRow, Journal, Part
from ..store.marks import Marks, PageMarks
from ..store.matching import Matching
from ..store.people import EachOnce, Origin, People
from ..store.spool import Spool, SpoolDamaged, Whole, read_end, read_lines
from ..store.workspace import Workspace, explaining_disk_errors
from ..store.workspaces import SUPERSEDED, Workspaces
from ..tables import Content
from ..threads import run_all
from ..unfinished import CURSOR_LIFE
from .answers import OnRecords
from .gathering import Assembled, Run

__all__ = ["EventsGathering"]

logger = logging.getLogger("altaprofiles")

EVERYONE = "everyone"
"""The key of `ExportReport.counted` for everyone."""

_RESTARTS = 2
"""Restarts of one chain in one run before it counts as failed."""


class _Spooled(NamedTuple):
    """The parts of a chain's spool since its last restart, to which others are added."""

    restarts: int
    parts: list[Part]


class _ChainState:
    """One chain of the plan: its journal row, and the state that only this run knows."""

    def __init__(self, query: EventQuery, row: ChainRow, path: Path) -> None:
        self.query = query
        self.row = row
        self.path = path
        self.resumed = row.records
        self.batch_size: int | None = None
        self.counted: int | None = None
        self.error: AltaProfilesError | None = None
        self.shortfall: str | None = None
        self.is_accepted = False
        self.spooled = _Spooled(row.restarts, [])

    @property
    def is_open(self) -> bool:
        """True once the service has accepted the query."""
        return bool(self.row.cursor or self.row.pages)

    @property
    def has_ended(self) -> bool:
        """True if the last page is in the spool, whether the chain is believed or not."""
        return self.row.pages > 0 and self.row.cursor is None

    @property
    def is_complete(self) -> bool:
        # A chain that was accepted may have been restarted since, because its spool is damaged.
        return self.row.done or (self.is_accepted and self.has_ended)

    @property
    def missing(self) -> str:
        """A sentence on the missing part of a chain that is not complete."""
        if self.error is None and self.shortfall is not None:
            return _acceptable(self.shortfall)
        return f"{self.query} from page {self.row.pages + 1} on: {self.error or INTERRUPTED}"

    @property
    def status(self) -> ChainStatus:
        row = self.row
        return ChainStatus(
            event=self.query.event,
            start=self.query.start,
            end=self.query.end,
            records=row.records,
            pages=row.pages,
            done=self.is_complete,
            restarts=row.restarts,
            counted=self.counted,
            batch_size=self.batch_size,
        )


class EventsGathering:
    """Everyone who did one or several events: the `Gathering` of `Session.export`.

    Args:
        plan: the chains.
        chains: the service.
        adopt: whether the windows of an unfinished run may replace the plan's.
        distinct: whether a person in several records is written once.
        count: whether the service is asked for its own counts.
        on_shortfall: "error" or "warn": what a chain with fewer records than its count leads to.
            Without `count` it is "error".
        on_records: called with the records of each commit, or None.

    Raises:
        ConfigurationError: `on_shortfall` is neither.
    """

    noun = "export"
    unit = "record"
    endings: Sequence[str] = ()
    reads: KeyFile | None = None

    def __init__(
        self,
        plan: EventsPlan,
        chains: Chains,
        *,
        adopt: bool,
        distinct: bool,
        count: bool,
        on_shortfall: object,
        on_records: OnRecords | None = None,
    ) -> None:
        if not isinstance(on_shortfall, str) or on_shortfall not in ("error", "warn"):
            raise InvalidArgument(
                f"on_shortfall: expected 'error' or 'warn', got {shown_setting(on_shortfall)}"
            )
        self.plan: EventsPlan = plan
        self.content = Content(has_events=True, repeats=not distinct)
        self.options: dict[str, Any] = {"distinct": distinct}
        self.arguments = {"distinct": distinct, "count": count, "on_shortfall": on_shortfall}
        self._chains = chains
        self._on_records = on_records
        self._adopt = adopt
        self._begun_size = plan.batch_size
        self._distinct = distinct
        self._by_day = False
        self._count = count
        # Nothing is accepted that has not been compared.
        self._accepts = count and on_shortfall == "warn"
        self._shortfalls: list[str] = []
        self._states: list[_ChainState] = []
        self._counted: dict[str | None, int] = {}
        self._started = False
        self._drafts: Drafts | None = None
        self._marks: Marks | None = None

    @property
    def executed_plan(self) -> EventsPlan:
        sizes = {state.batch_size for state in self._states}
        size = sizes.pop() if len(sizes) == 1 else None
        return self.plan if size is None else replace(self.plan, batch_size=size)

    @property
    def nobody(self) -> str:
        plan = self.plan
        step = next_step(plan.events or (), has_filters=bool(plan.filters))
        return f"; {step}"

    def is_known_in(self, target: Target) -> bool:
        return False

    def choose(self, workspaces: Workspaces, *, resume: bool) -> Workspace:
        if self._adopt and resume:
            self.plan = workspaces.newest(self.plan) or self.plan
        elif self._adopt:
            workspaces.discard_family(self.plan)
        store = workspaces.take(self.plan, resume=resume)
        if self._adopt and self.plan.events is None and store.begun() and store.is_superseded:
            logger.warning("%s is begun anew: %s", self.plan.subject, SUPERSEDED)
            store.clear()
        if isinstance(begun := store.begun(), EventsPlan):
            self._begun_size = begun.batch_size
        return store

    async def load(self, run: Run) -> None:
        await run.threads.run(lambda: self._load(run))

    def _load(self, run: Run) -> None:
        self._by_day = run.place.target.by_day
        if self._distinct or self._is_matching(run.place.target):
            self._marks = Marks(run.store.marks, run.store.journal.state("marks"))
        rows = run.store.journal.chains()
        for number, query in enumerate(self.plan.queries):
            row = rows.get(number) or ChainRow(number)
            state = _ChainState(query, row, run.store.spool(f"chain-{number:04d}"))
            self._states.append(state)
            self._load_size(run, state)
            if not (parts := run.store.journal.parts(number)):
                continue
            state.spooled.parts.extend(parts)
            # The damage of a power failure is found now, not after hours of reading other chains.
            # All other pages are checked on their way to the output.
            with explaining_disk_errors(state.path.parent):
                try:
                    read_end(state.path, parts)
                except SpoolDamaged as damage:
                    self._restart(run, state, damage)

    def _load_size(self, run: Run, state: _ChainState) -> None:
        name = _size_of(state.row.number)
        state.batch_size = run.store.journal.state(name)
        if state.batch_size is None and state.is_open:
            # An earlier version has opened it. The plan of the next run may have another size.
            state.batch_size = self._begun_size
            with explaining_disk_errors(state.path.parent), run.commit() as journal:
                journal.put_state(**{name: state.batch_size})

    # ------------------------------------------------------------------- from the service to spools

    async def gather(self, run: Run) -> list[str]:
        self._drafts = Drafts(run.store.folder, marked=self._marks is not None)
        try:
            return await self._gather(run)
        finally:
            await self._drafts.aclose()

    async def _gather(self, run: Run) -> list[str]:
        # Every event is opened before any chain is walked, so that an event that the service
        # refuses is found before the hours that the others take.
        await run.threads.run(lambda: self._drop_expired(run))
        self._started = True
        run.report()
        await self._open_events(run)
        waiting = [state for state in self._states if not state.has_ended]
        ended = [state for state in self._states if state.has_ended]
        await run_all(
            [
                *(self._counts(run) if self._count else ()),
                *self._workers(run, waiting, self._read),
                *self._workers(run, ended, self._mark),
            ]
        )
        # A chain that an earlier run has finished is compared with its count as well, and one
        # without records may be from an earlier version, which believed it at once.
        doubtful = [
            state
            for state in self._states
            if state.has_ended and (self._count or not state.row.done or not state.row.records)
        ]
        self._shortfalls.clear()
        await run_all(self._workers(run, doubtful, self._settle))
        return [state.missing for state in self._states if not state.is_complete]

    async def _open_events(self, run: Run) -> None:
        failures: list[AltaProfilesError] = []

        async def try_to_open(state: _ChainState) -> None:
            try:
                await self._open(run, state)
            except AltaProfilesError as error:
                if dooms_all(error) or isinstance(error, BadRequest | ExportError):
                    raise
                failures.append(error)

        await run_all([partial(try_to_open, state) for state in self._unopened_events()])
        if failures and not any(state.is_open for state in self._states):
            raise failures[0]

    def _unopened_events(self) -> Iterator[_ChainState]:
        opened = {state.query.event for state in self._states if state.is_open}
        for state in self._states:
            if state.query.event not in opened:
                opened.add(state.query.event)
                yield state

    async def _open(self, run: Run, state: _ChainState, *, restarts: int = 0) -> None:
        cursor = await self._chains.open(state.query)
        row = ChainRow(
            state.row.number, cursor, time.time(), restarts=state.row.restarts + restarts
        )
        size = state.query.batch_size
        await run.threads.run(lambda: self._commit(run, state, row, batch_size=size))

    def _workers(
        self,
        run: Run,
        states: list[_ChainState],
        work: Callable[[Run, _ChainState], Awaitable[None]],
    ) -> list[Callable[[], Awaitable[None]]]:
        queue = iter(states)
        # One for each slot keeps the slots busy; one more each uses them while pages are prepared.
        number = min(len(states), 2 * self._chains.slots)
        return [partial(self._take_chains, run, queue, work)] * number

    async def _take_chains(
        self,
        run: Run,
        queue: Iterator[_ChainState],
        work: Callable[[Run, _ChainState], Awaitable[None]],
    ) -> None:
        for state in queue:
            try:
                await work(run, state)
            except AltaProfilesError as error:
                if dooms_all(error) or isinstance(error, ExportError):
                    raise
                # The other chains can still be fetched; the end names the chains that are missing.
                state.error = error
                logger.warning("%s cannot be exported now: %s", state.query, error)

    async def _settle(self, run: Run, state: _ChainState) -> None:
        """Believe a chain that has ended, or open it again."""
        state.is_accepted = False
        number = 0
        while (sentence := await self._shortfall(state, number)) is not None:
            # Where a shortfall is accepted, records in hand are not given up for another answer,
            # which could hold fewer.
            if number == len(REOPENINGS) or (self._accepts and state.row.records):
                await self._give_up(run, state, sentence)
                return
            await self._chains.pause(number, sentence)
            # The journal forgets the records once the new chain is open.
            await self._open(run, state, restarts=1)
            state.resumed = 0
            await self._read(run, state)
            number += 1
        await self._put_row(run, state, replace(state.row, done=True))

    async def _shortfall(self, state: _ChainState, reopened: int) -> str | None:
        """Return why a chain that has ended is not believed, or None if it is."""
        # The last time again, because the service may have been too busy to count before.
        is_due = reopened == len(REOPENINGS) or (not reopened and not self._count)
        if is_due and state.counted is None and not state.row.records:
            state.counted = await self._chains.expected(state.query)
        if is_short(state.row.records, state.counted):
            return shortfall(state.query, state.row.records, state.counted)
        return None

    async def _give_up(self, run: Run, state: _ChainState, sentence: str) -> None:
        if self._accepts:
            # Not in the journal: a later run with "error" must not take it for complete.
            state.is_accepted = True
            self._shortfalls.append(sentence)
            return
        state.shortfall = sentence
        if not state.row.records:
            # So that a later run opens it without reading the end of this one again.
            await self._put_row(run, state, _fresh(state.row))

    async def _read(self, run: Run, state: _ChainState) -> None:
        await self._mark(run, state)
        restarts = 0
        while not state.has_ended:
            if state.row.cursor is None:
                await self._open(run, state)
            first = state.row.cursor
            try:
                await self._walk(run, state)
            except (CursorError, BadRequest) as error:
                # The service refuses the first request after a resumption because it has dropped
                # the cursor. Without a code of its own, it is a proxy that refuses.
                dropped = state.row.cursor == first and is_final(error)
                if not isinstance(error, CursorError) and not dropped:
                    raise
                # Also before giving up: the old cursor is of no use to a later run.
                await run.threads.run(partial(self._restart, run, state, error))
                if restarts == _RESTARTS:
                    raise
                restarts += 1

    async def _walk(self, run: Run, state: _ChainState) -> None:
        assert self._drafts is not None  # noqa: S101
        earlier = await run.threads.run(lambda: run.store.journal.asked(state.row.number))
        spool = await run.threads.run(lambda: Spool(state.path, state.row.offset))
        try:
            pages = self._chains.walk(
                [state.row.cursor or ""],
                # One chain alone fills the slots by itself; several need less of each.
                prefetch=2 if len(self._states) == 1 else 1,
                new_sink=self._drafts.new,
                discard=Draft.close,
                earlier=earlier,
                query=state.query,
            )
            try:
                async for page in pages:
                    await run.threads.run(partial(self._keep, run, state, spool, page))
                    run.grown()
                    run.report()
                    # Freed before the next page is awaited.
                    del page
            finally:
                await pages.aclose()
        except AltaProfilesError as error:
            # The journal holds the cursor here.
            drop_position(error)
            raise
        finally:
            spool.close()

    def _keep(self, run: Run, state: _ChainState, file: Spool, page: Draft) -> None:
        asked_for = mark(page.cursor)
        if page.next_cursor is not None and (
            page.next_cursor == page.cursor
            or run.store.journal.was_asked(state.row.number, mark(page.next_cursor))
        ):
            # Before the page is kept: a later run does not know the cursors that this one walked.
            raise CursorLoop(
                f"the service repeated a cursor after {state.row.pages + 1} pages of {state.query}"
            )
        before = state.row.records
        row = ChainRow(
            state.row.number,
            page.next_cursor,
            time.time(),
            # The spool first: it must hold what the journal counts.
            file.append_behind(*page.parts()),
            before + page.count,
            state.row.pages + 1,
            page.next_cursor is None and self._believes(state, page),
            state.row.restarts,
        )
        self._commit(run, state, row, asked_for, page)
        if page.count:
            state.spooled.parts.append(Part(row.offset, page.checksum))
        if self._marks is not None and page.marks is not None:
            # Those of records that the journal counts, and of no others.
            self._marks.add(row.number, row.restarts, page.marks, before, row.offset)
            self._marks.store()
        page.close()

    async def _put_row(self, run: Run, state: _ChainState, row: ChainRow) -> None:
        if row != state.row:
            await run.threads.run(lambda: self._commit(run, state, row))

    def _commit(
        self,
        run: Run,
        state: _ChainState,
        row: ChainRow,
        asked_for: bytes | None = None,
        page: Draft | None = None,
        batch_size: int | None = None,
    ) -> None:
        has_records = page is not None and not page.is_empty
        with run.commit() as journal:
            journal.put_chain(row, asked_for, page.checksum if page and has_records else None)
            if page is not None and self._on_records is not None:
                for records in page.batches():
                    self._on_records(journal, records)
            if batch_size is not None:
                journal.put_state(**{_size_of(row.number): batch_size})
                state.batch_size = batch_size
            self._put_marks(journal)
        if row.restarts != state.row.restarts:
            state.spooled = _Spooled(row.restarts, [])
        state.row = row

    def _put_marks(self, journal: Journal) -> None:
        if self._marks is not None and self._marks.unsaved is not None:
            journal.put_state(marks=self._marks.unsaved)
            self._marks.unsaved = None

    def _believes(self, state: _ChainState, last: Draft) -> bool:
        """Return whether a chain is done with its `last` page, with nothing to compare it with."""
        has_records = bool(last.count or state.row.records)
        return has_records and not self._count and state.counted is None

    def _drop_expired(self, run: Run) -> None:
        for state in self._states:
            age = time.time() - state.row.since
            if state.row.cursor and age > CURSOR_LIFE:
                self._restart(run, state, f"its cursor is {age / 86_400:.1f} days old")

    def _restart(self, run: Run, state: _ChainState, why: object) -> None:
        logger.warning("%s restarts with its first page: %s", state.query, why)
        state.resumed = 0
        self._commit(run, state, _fresh(state.row))

    def _counts(self, run: Run) -> Iterator[Callable[[], Awaitable[None]]]:
        for whole in self.plan.wholes:
            chains = self._chains_of(whole)
            for query in {whole, *(state.query for state in chains)}:
                counted = [state for state in chains if state.query == query]
                yield partial(self._ask_count, run, query, counted, of_all=query == whole)

    async def _ask_count(
        self, run: Run, query: EventQuery, states: list[_ChainState], *, of_all: bool
    ) -> None:
        count = await self._chains.expected(query)
        if count is None:
            return
        if of_all:
            self._counted[query.event] = count
        for state in states:
            state.counted = count
        run.report()

    # ------------------------------------------------------------------- from spools to the output

    def kept_in(self, store: Workspace) -> int:
        return sum(
            state.row.records for state in self._states if store.holds(state.path, state.row.offset)
        )

    @property
    def records(self) -> int:
        return sum(state.row.records for state in self._states)

    def people(self, store: Workspace, target: Target) -> People | None:
        if self._marks is None:
            return None
        complete = partial(self._missing_marks, store, self._states)
        origins = [
            Origin(
                state.row.number,
                state.row.restarts,
                state.row.records,
                state.query.event,
                self._day_of(state),
            )
            for state in self._in_order()
        ]
        if self._is_matching(target):
            return Matching(self._marks, complete, origins, distinct=self._distinct)
        return EachOnce(self._marks, complete, origins)

    def _is_matching(self, target: Target) -> bool:
        return target.has_columns and len(self.plan.events or ()) > 1

    async def _mark(self, run: Run, state: _ChainState) -> None:
        """Make the marks that records of an earlier run lack, beside the reading of others."""
        making = self._missing_marks(run.store, [state])

        def step() -> bool:
            is_over = next(making, self) is self
            if self._marks is not None and self._marks.unsaved is not None:
                with run.commit() as journal:
                    self._put_marks(journal)
            return is_over

        while not await run.threads.run(step):
            await checkpoint()

    def _missing_marks(self, store: Workspace, states: Sequence[_ChainState]) -> Iterator[None]:
        if (marks := self._marks) is None:
            return
        for state in states:
            number, restarts = state.row.number, state.row.restarts
            records, offset = marks.covered(number, restarts)
            if records == state.row.records:
                continue
            for lines in self._lines(store, state, records, offset):
                page = PageMarks()
                at_once(page.put(lines))
                offset += sum(map(len, lines)) + len(lines)
                marks.add(number, restarts, page, records, offset)
                marks.store()
                records += len(lines)
                yield

    def batches(self, store: Workspace) -> Iterator[list[Row]]:
        for state in self._in_order():
            yield from self._rows(store, state)

    def arrived(self) -> list[Arrived]:
        return [
            Arrived(
                state.row.number,
                *state.spooled,
                state.path,
                self.plan.account,
                _matched(state.query),
            )
            for state in self._in_order()
        ]

    def with_blocks(
        self, store: Workspace, ahead: Ahead, writes_any: WritesAny
    ) -> Iterator[list[Row] | Block]:
        for state in self._in_order():
            records = offset = 0
            for block in ahead.blocks(state.row.number, state.row.restarts, writes_any):
                yield block
                records, offset = records + block.count, block.end
            yield from self._rows(store, state, records, offset)

    def whole(self, store: Workspace) -> Whole | None:
        if len(self._states) != 1:
            return None
        state = self._states[0]
        parts = store.journal.parts(state.row.number)
        # Earlier versions have written pages without checksums.
        is_known = bool(parts) and all(part.checksum is not None for part in parts)
        return Whole(state.path, parts, state.row.records) if is_known else None

    def _rows(
        self, store: Workspace, state: _ChainState, records: int = 0, offset: int = 0
    ) -> Iterator[list[Row]]:
        """Yield the rows of a chain behind the first ones; see `_lines`."""
        account, matched, day = self.plan.account, _matched(state.query), self._day_of(state)
        for lines in self._lines(store, state, records, offset):
            yield [Row(line, account, matched=matched, day=day) for line in lines]

    def _day_of(self, state: _ChainState) -> date | None:
        start = state.query.start
        return date_of(start) if self._by_day and start is not None else None

    def _in_order(self) -> list[_ChainState]:
        """Return the chains in the order in which their people count."""
        if not self._by_day:
            return self._states
        return sorted(self._states, key=lambda state: state.query.start or 0)

    def _lines(
        self, store: Workspace, state: _ChainState, records: int = 0, offset: int = 0
    ) -> Iterator[list[bytes]]:
        """Yield the records of a chain behind the first ones, which take `offset` bytes."""
        if not state.row.offset:
            return
        for lines in read_lines(state.path, store.journal.parts(state.row.number), offset):
            records += len(lines)
            yield lines
        if records != state.row.records:
            # Pages without a checksum.
            raise SpoolDamaged(
                f"{state.path} is damaged: it holds {records:,} records where its journal counts "
                f"{state.row.records:,}"
            )

    async def repair(self, run: Run) -> None:
        for state in self._states:
            lines = self._lines(run.store, state)
            try:
                while await run.threads.run(partial(next, lines, None)) is not None:
                    await checkpoint()
            except SpoolDamaged as damage:
                await run.threads.run(partial(self._restart, run, state, damage))

    def unbound(self, store: Workspace) -> Iterator[list[Row]]:
        return iter(())

    def leftovers(self, store: Workspace) -> Iterator[tuple[str, Iterator[bytes]]]:
        return iter(())

    def discrepancies(self, people: int, place: Place) -> list[str]:
        if sentences := [*self._shortfalls, *self._short_totals()]:
            return sentences
        # People of several events are written once, and those of several windows perhaps not.
        wholes = self.plan.wholes
        is_once = self._distinct and len(wholes) == 1 and not self._by_day
        comparable = len(self._states) == 1 or is_once
        return [
            f"the service counts {counted} people for {whole.subject}, and {people} were exported"
            for whole in wholes
            if comparable and (counted := self._counted.get(whole.event)) not in (None, people)
        ]

    def _short_totals(self) -> Iterator[str]:
        """Yield a sentence on each event whose chains are complete one by one, but not together."""
        for whole in self.plan.wholes:
            states = self._chains_of(whole)
            counts = [state.counted for state in states if state.counted is not None]
            records = sum(state.row.records for state in states)
            if (
                len(counts) == len(states)
                and not any(state.is_accepted for state in states)
                and is_short(records, sum(counts))
            ):
                yield shortfall(whole, records, sum(counts))

    def _chains_of(self, whole: EventQuery) -> list[_ChainState]:
        return [state for state in self._states if state.query.event == whole.event]

    def unanswered(self, place: Place) -> list[str]:
        return []

    # -------------------------------------------------------------------------------------- reports

    def progress(self, traffic: Traffic, assembled: Assembled | None) -> ExportProgress | None:
        if not self._started:
            return None
        counts = [state.counted for state in self._states if state.counted is not None]
        return ExportProgress(
            stage="reading" if assembled is None else "finishing",
            chains=[state.status for state in self._states],
            records=self.records,
            total=sum(counts) if len(counts) == len(self._states) else None,
            resumed=sum(state.resumed for state in self._states),
            finished=0 if assembled is None else assembled.read,
            people=0 if assembled is None else assembled.written,
            **traffic,
        )

    def describe(self, common: Report, place: Place, people: int | None) -> ExportReport:
        counted = {
            EVERYONE if whole.event is None else whole.event: count
            for whole in self.plan.wholes
            if (count := self._counted.get(whole.event)) is not None
        }
        return ExportReport(
            **asdict(common),
            people=people or 0,
            records=self.records,
            resumed=sum(state.resumed for state in self._states),
            pages=sum(state.row.pages for state in self._states),
            chains=[state.status for state in self._states],
            counted=counted or None,
        )


def _matched(query: EventQuery) -> tuple[str, ...]:
    """Return the event that brings the people of a query, if it names one."""
    return () if query.event is None else (query.event,)


def _size_of(number: int) -> str:
    """Return the name under which the journal keeps the batch size of an open chain."""
    return f"batch_size_{number}"


def _acceptable(sentence: str) -> str:
    # A sync has neither argument.
    return (
        f"{sentence}; the next run asks again, and an export can accept that, by `count` with "
        f"`on_shortfall`"
    )


def _fresh(row: ChainRow) -> ChainRow:
    """Return the row of a chain that is to be opened again."""
    return ChainRow(row.number, restarts=row.restarts + 1)
