"""An export whose people are joined with their CDP users: any kind of export, and the joins."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any, Generic, TypeVar

from msgspec.structs import replace

from ...base.wording import numbered
from ...tables.rows import Row
from ..place import Place
from ..plan import IDENTITY, Plan
from ..report import ExportReport, Progress, Report
from ..reporting import Traffic
from ..sinks import Target
from ..store.people import People
from ..store.workspace import Workspace
from ..tables import Content
from ..threads import running_beside
from .gathering import Assembled, Gathering, Run
from .joins import Joins
from .lookups import FAILED_FILE, failure_line, lines_of

__all__ = ["with_joins"]

R = TypeVar("R", bound=Report)
S = TypeVar("S", bound=Progress)

_ROWS = 1000
"""Rows that are joined at once. A user can have a hundred bindings, some ten kilobytes."""


def with_joins(people: Gathering[R, S], joins: Joins | None) -> Gathering[R, S]:
    """Return the gathering of `people`, joined if there are `joins`."""
    return people if joins is None else JoinedGathering(people, joins)


class _JoinedPeople:
    """Joins the rows that another object decides to write; see `People`."""

    def __init__(self, people: People | None, joins: Joins, store: Workspace, target: Target):
        self._people = people
        self._joins = joins
        self._store = store
        self._has_columns = target.has_columns

    def prepare(self) -> Iterator[None]:
        if self._people is not None:
            yield from self._people.prepare()

    def keep(self, rows: Sequence[Row]) -> list[Row]:
        selected = rows if self._people is None else self._people.keep(rows)
        return self._joins.joined(self._store, selected, has_columns=self._has_columns)


class JoinedGathering(Generic[R, S]):
    """People, and their CDP users: the `Gathering` of an export `with_cdp`.

    Args:
        people: gathers the people. Its commits go to `joins.queue`.
        joins: gathers the users.
    """

    def __init__(self, people: Gathering[R, S], joins: Joins) -> None:
        self.noun = people.noun
        self.unit = people.unit
        self.content: Content = replace(people.content, has_cdp=True)
        self.endings: Sequence[str] = [*dict.fromkeys((*people.endings, FAILED_FILE))]
        self.options: Mapping[str, Any] = people.options
        self.arguments: Mapping[str, Any] = people.arguments
        self.reads = people.reads
        self._people = people
        self._joins = joins
        self._is_joining = False
        self._store: Workspace | None = None
        # The same in both: what only the people decide.
        self.choose = people.choose
        self.kept_in = people.kept_in

    @property
    def plan(self) -> Plan:
        return self._people.plan

    @property
    def executed_plan(self) -> Plan:
        return self._people.executed_plan

    @property
    def nobody(self) -> str:
        return self._people.nobody

    def is_known_in(self, target: Target) -> bool:
        return self._people.is_known_in(target)

    @property
    def records(self) -> int:
        return self._people.records

    async def load(self, run: Run) -> None:
        # The keys of a lookup are read in another store than they are asked for.
        await self._people.load(run)
        self._store = run.store
        await self._joins.load(run)

    async def gather(self, run: Run) -> list[str]:
        is_over = asyncio.Event()

        async def ask() -> None:
            await self._joins.ask(run)
            is_over.set()

        self._is_joining = False
        self._joins.begin()
        async with running_beside(ask):
            missing = await self._people.gather(run)
            if not missing:
                self._is_joining = True
                self._joins.has_all_keys()
                run.report()
                await is_over.wait()
        return missing

    async def repair(self, run: Run) -> None:
        await self._people.repair(run)
        await self._joins.repair(run)

    def people(self, store: Workspace, target: Target) -> People:
        self._joins.begin_output(store)
        return _JoinedPeople(self._people.people(store, target), self._joins, store, target)

    def batches(self, store: Workspace) -> Iterator[list[Row]]:
        for rows in self._people.batches(store):
            for start in range(0, len(rows), _ROWS):
                yield rows[start : start + _ROWS]

    def unbound(self, store: Workspace) -> Iterator[list[Row]]:
        return self._people.unbound(store)

    def leftovers(self, store: Workspace) -> Iterator[tuple[str, Iterator[bytes]]]:
        # Where keys are looked up, the file has those that failed as well.
        has_keys = FAILED_FILE in self._people.endings
        line = partial(failure_line, join=True) if has_keys else failure_line
        failures = lines_of(self._joins.failures(store), line)
        for ending, lines in self._people.leftovers(store):
            yield ending, chain(lines, failures) if ending == FAILED_FILE else lines
        if not has_keys:
            yield FAILED_FILE, failures

    def discrepancies(self, people: int, place: Place) -> list[str]:
        sentences: list[str] = self._people.discrepancies(people, place)
        if people and not self._joins.known and self._joins.key != IDENTITY:
            nobody = f"this run brought nobody with a value for the property {self._joins.key!r}"
            sentences = [*sentences, f"{nobody}, so that nobody was joined"]
        if refused := self._joins.refused:
            keys = f"the CDP users of {_people(refused)} cannot be asked for"
            sentences = [*sentences, f"{keys}, see {place.beside_at(FAILED_FILE)}"]
        return sentences

    def unanswered(self, place: Place) -> list[str]:
        sentences: list[str] = self._people.unanswered(place)
        if failed := self._joins.failed - self._joins.refused:
            users = f"no answer for the CDP users of {_people(failed)}"
            sentences = [*sentences, f"{users}, see {place.beside_at(FAILED_FILE)}"]
        return sentences

    def progress(self, traffic: Traffic, assembled: Assembled | None) -> S | None:
        progress: Any = self._people.progress(traffic, assembled)
        if progress is None:
            return None
        stage = "joining" if self._is_joining and assembled is None else progress.stage
        joined: S = replace(progress, stage=stage, **self._joins.progress())
        return joined

    def describe(self, common: Report, place: Place, people: int | None) -> R:
        report: Any = self._people.describe(common, place, people)
        joins = self._joins
        failed = "failed" if isinstance(report, ExportReport) else "join_failed"
        file = place.beside_at(FAILED_FILE) if people is not None and joins.failed else None
        joined: R = replace(
            report,
            matched=joins.matched,
            unmatched=joins.unmatched,
            failed_file=report.failed_file or file,
            **{failed: joins.failed},
        )
        return joined


def _people(number: int) -> str:
    return "1 person" if number == 1 else numbered(number, "people")
