"""The interface between a job and the kinds of export."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar, runtime_checkable

from msgspec import Struct

from ...tables.rows import Row
from ..ahead import Ahead, Arrived, Block, WritesAny
from ..keys import KeyFile
from ..place import Place
from ..plan import Plan
from ..report import Progress, Report
from ..reporting import Reporting, Traffic
from ..sinks import Target
from ..store.journal import Journal
from ..store.people import People
from ..store.spool import Whole
from ..store.workspace import CONFIRMED, Workspace, explaining_disk_errors
from ..store.workspaces import Workspaces
from ..tables import Content
from ..threads import Threads

__all__ = ["Arriving", "Assembled", "Gathering", "Run"]

R_co = TypeVar("R_co", bound=Report, covariant=True)
S_co = TypeVar("S_co", bound=Progress, covariant=True)


class Assembled(Struct, frozen=True):
    """The progress of assembling an output.

    Attributes:
        read: records read from the store.
        written: records written to the output.
    """

    read: int
    written: int


class Run:
    """The parts that one run works with.

    Attributes:
        workspaces: the workspaces of the output, open.
        store: the workspace of this run, open.
        place: the paths.
        threads: runs blocking calls.
        report: reports progress.
        grown: called when the store has more records.
        check_clock: called before each commit with the seconds by which this machine's clock is
            ahead of the service's, if they are known. An `ExportError` ends the run. None if the
            clock does not matter.
    """

    grown: Callable[[], None] = staticmethod(lambda: None)
    check_clock: Callable[[float], None] | None = None

    def __init__(
        self,
        workspaces: Workspaces,
        store: Workspace,
        place: Place,
        threads: Threads,
        reporting: Reporting[Any],
        report: Callable[[], None],
        arguments: bytes,
        *,
        resume: bool,
    ) -> None:
        self.workspaces = workspaces
        self.store = store
        self.place = place
        self.threads = threads
        self.report = report
        self._reporting = reporting
        self._arguments = arguments
        self._resume = resume

    def begin(self, plan: Plan) -> None:
        """Store the plan, and count on from earlier runs of it. Blocking.

        Raises:
            ExportError: the disk refuses, or the store holds another plan.
        """
        with explaining_disk_errors(self.place.folder):
            self.store.begin(plan, self._arguments)
            # The name of a plan whose keys are being read is not known yet.
            if self.place.target.write == "append" and plan.name is not None:
                self.store.note_origin()
            self._reporting.resume(self.store.journal)

    def settle(self, plan: Plan) -> bool:
        """Make `store`, which has the keys of `plan`, that of the plan. Blocking.

        Returns:
            Whether it is now the store of an earlier run, which can be resumed.

        Raises:
            ExportError: the disk refuses, or an earlier run's store cannot be used.
        """
        with explaining_disk_errors(self.place.folder):
            self.store, is_earlier = self.workspaces.settle(self.store, plan, resume=self._resume)
        self.begin(plan)
        return is_earlier

    @contextmanager
    def commit(self) -> Iterator[Journal]:
        """Yield the journal, then commit all that was put into it, with the counters. Blocking.

        Raises:
            ExportError: `check_clock` refuses what has arrived.
        """
        journal, ahead = self.store.journal, self._reporting.ahead
        if self.check_clock is not None and ahead is not None:
            self.check_clock(ahead)
        with journal.transaction():
            yield journal
            # Later answers cannot confirm what was fetched before them.
            if self.check_clock is not None and journal.state(CONFIRMED) is None:
                journal.put_state(**{CONFIRMED: ahead is not None})
            journal.put_state(**self._reporting.totals())


class Gathering(Protocol[R_co, S_co]):
    """One kind of export. A `Job` calls the methods in the order in which they stand here."""

    @property
    def noun(self) -> str:
        """The name of this kind of export: "export", "lookup"."""
        ...

    @property
    def unit(self) -> str:
        """The name of the items that a later run can resume with: "record", "answer"."""
        ...

    @property
    def content(self) -> Content:
        """The kind of rows."""
        ...

    @property
    def endings(self) -> Sequence[str]:
        """The endings of the files written beside the output."""
        ...

    @property
    def options(self) -> Mapping[str, Any]:
        """The options that the manifest names beside the layout of the output."""
        ...

    @property
    def reads(self) -> KeyFile | None:
        """A file that is read, and that the export must therefore not replace."""
        ...

    @property
    def plan(self) -> Plan:
        """The plan. `adopt` and `load` may make it more exact."""
        ...

    @property
    def executed_plan(self) -> Plan:
        """The plan as it was carried out, for the manifest."""
        ...

    @property
    def nobody(self) -> str:
        """The next step if nobody is in the output, for the end of a sentence; or nothing."""
        ...

    def is_known_in(self, target: Target) -> bool:
        """Return whether rows of earlier runs show that nobody is no sign of a mistake. Blocking.

        Raises:
            ExportLocked: the target is in use.
            OSError, ExportError: the target cannot be read.
        """
        ...

    @property
    def arguments(self) -> Mapping[str, Any]:
        """The arguments, beside the plan, with which another run can finish this one."""
        ...

    def choose(self, workspaces: Workspaces, *, resume: bool) -> Workspace:
        """Return the workspace to gather in. Values that the plan leaves open become those of an
        unfinished run. Blocking.

        Args:
            workspaces: those of the output.
            resume: whether an unfinished run is resumed; if not, it is discarded.

        Raises:
            ExportError: the workspace cannot be used.
        """
        ...

    async def load(self, run: Run) -> None:
        """Read the state of the plan in the store, and the keys that the caller passed."""
        ...

    async def gather(self, run: Run) -> list[str]:
        """Fetch all that the store lacks; return a sentence for each part missing at the end.

        Raises:
            AltaProfilesError: the service refuses all of it.
            SpoolDamaged: a spool differs from the data written to it.
        """
        ...

    async def repair(self, run: Run) -> None:
        """Drop everything that is damaged in the store, so that `gather` fetches it again."""
        ...

    def kept_in(self, store: Workspace) -> int:
        """Return the number of `unit` that are on disk for a later run. Blocking."""
        ...

    @property
    def records(self) -> int:
        """Number of records that `batches` yields."""
        ...

    def people(self, store: Workspace, target: Target) -> People | None:
        """Return what decides which rows are written to `target`, or None for all."""
        ...

    def batches(self, store: Workspace) -> Iterator[list[Row]]:
        """Yield every row, the same ones in the same order on each call. Blocking.

        Raises:
            SpoolDamaged: a spool differs from the data written to it.
        """
        ...

    def unbound(self, store: Workspace) -> Iterator[list[Row]]:
        """Yield a row without cells for each key that was answered, and has no other row.

        A key that failed is not among them. Blocking.
        """
        ...

    def leftovers(self, store: Workspace) -> Iterator[tuple[str, Iterator[bytes]]]:
        """Yield an ending and the lines of each file that is written beside the output."""
        ...

    def discrepancies(self, people: int, place: Place) -> list[str]:
        """Return warnings about a complete output of `people`, a sentence each."""
        ...

    def unanswered(self, place: Place) -> list[str]:
        """Return the parts missing from an output that has been written, a sentence each."""
        ...

    def progress(self, traffic: Traffic, assembled: Assembled | None) -> S_co | None:
        """Return the progress report, or None while there is nothing to report."""
        ...

    def describe(self, common: Report, place: Place, people: int | None) -> R_co:
        """Return the report.

        Args:
            common: the part that every report has.
            place: the paths.
            people: number of records in the output, or None without an output.
        """
        ...


@runtime_checkable
class Arriving(Protocol):
    """A `Gathering` whose rows can be encoded before all have arrived."""

    def arrived(self) -> list[Arrived]:
        """Return what has arrived of each chain. Can be called from any thread."""
        ...

    def with_blocks(
        self, store: Workspace, ahead: Ahead, writes_any: WritesAny
    ) -> Iterator[list[Row] | Block]:
        """Yield every row as `batches` does, in blocks as far as there are some. Blocking.

        Args:
            store: the workspace.
            ahead: has the blocks.
            writes_any: as for `Ahead.blocks`.

        Raises:
            SpoolDamaged: as from `batches`.
        """
        ...

    def whole(self, store: Workspace) -> Whole | None:
        """Return the spool that holds all rows in their order, if there is only one. Blocking."""
        ...
