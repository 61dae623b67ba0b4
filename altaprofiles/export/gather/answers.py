"""Asks for the unanswered keys of a table, and keeps the answers in a spool and the journal.

An answer that is on the disk is asked for again only if the disk has changed it.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar

import anyio
from anyio.lowlevel import checkpoint

from ...base.verdicts import can_pass, is_final
from ...base.wording import numbered
from ...errors import AltaProfilesError
from ...models import Key, Lookup
from ...sources.lookups import Lookups
from ..store.journal import Journal
from ..store.key_table import FAILED, FOUND, INVALID, NOT_FOUND, Answer, KeyTable
from ..store.spool import Spool, SpoolDamaged, checksum, read_answers
from ..store.workspace import Workspace, explaining_disk_errors
from ..threads import running_beside
from .gathering import Run

__all__ = ["BLOCK", "Answers", "OnRecords"]

logger = logging.getLogger("altaprofiles")

V = TypeVar("V")

OnRecords = Callable[[Journal, Sequence[bytes]], None]
"""Called with records that are being committed, within their transaction of the journal."""

_AT_ONCE = 200
"""Answers that are committed together."""
_AT_LEAST_EVERY = 1.0
"""Longest time, in seconds, before a partial batch of answers is committed."""
_IN_VAIN = 10
"""Consecutive failures, after all retries, at which the service counts as down."""
_REFUSED = 100
"""The same for refusals that may be of the keys, as a firewall's, once others were answered."""
_BATCH = 2000
BLOCK = 4 << 20


class Answers(Generic[V]):
    """The keys of one table of the journal, and the records found, in one spool.

    Args:
        kept_in: the name of the table, an attribute of `Journal`.
        file: the name of the spool.
        offset: the name of the spool's journalled length in the journal's state.
        lookups: the service.
        by: the kind of key.
        encode: returns the record of a key and its value, on one line.
        on_records: called with the records of each commit, or None.

    Attributes:
        counts: number of keys by outcome; None stands for unanswered ones.
        failure: the last error in this run of a key that a later one asks for again, or None.
        refusal: the last error in this run of a key that has no answer for good, or None.
    """

    def __init__(
        self,
        *,
        kept_in: str,
        file: str,
        offset: str,
        lookups: Lookups[V],
        by: str,
        encode: Callable[[str, V], bytes],
        on_records: OnRecords | None = None,
    ) -> None:
        self.counts: dict[int | None, int] = {}
        self.failure: AltaProfilesError | None = None
        self.refusal: AltaProfilesError | None = None
        self._kept_in = kept_in
        self._file = file
        self._offset_name = offset
        self._lookups = lookups
        self._by = by
        self._encode = encode
        self._on_records = on_records
        self._offset = 0
        self._arrived: list[Lookup[V]] = []

    def keys(self, store: Workspace) -> KeyTable:
        """Return the table."""
        table: KeyTable = getattr(store.journal, self._kept_in)
        return table

    def path(self, store: Workspace) -> Path:
        """Return the path of the spool."""
        return store.spool(self._file)

    def count(self, *outcomes: int | None) -> int:
        """Return the number of keys with one of these outcomes, None for none."""
        return sum(self.counts.get(outcome, 0) for outcome in outcomes)

    @property
    def known(self) -> int:
        """Number of keys."""
        return sum(self.counts.values())

    @property
    def answered(self) -> int:
        """Number of keys that no later run asks for."""
        return self.count(FOUND, NOT_FOUND, INVALID)

    def load(self, store: Workspace) -> None:
        """Count the keys in the journal. Blocking."""
        self._offset = store.journal.state(self._offset_name) or 0
        self.counts = self.keys(store).tally()

    def are_kept_in(self, store: Workspace) -> int:
        """Return the number of answers that are on the disk. Blocking."""
        path = self.path(store)
        if store.holds(path, self._offset):
            return self.answered
        return self.count(NOT_FOUND, INVALID) if store.holds(path, 0) else 0

    # ------------------------------------------------------------------ from the service to a spool

    async def ask(
        self,
        run: Run,
        *,
        at_end: Callable[[], bool] = lambda: True,
        more: Callable[[], Awaitable[None]] | None = None,
    ) -> AltaProfilesError | None:
        """Ask for the unanswered keys in their order, and report progress.

        Args:
            run: the run.
            at_end: returns whether the table has got all of its keys.
            more: waits until the table may have more keys than before, or has got all.

        Returns:
            The last error if ten keys in a row have failed, or a hundred were refused by something
            before the service, and None if all keys were asked for.

        Raises:
            AltaProfilesError: the service refuses every key.
            SpoolDamaged: the spool is shorter than its journal counts.
        """
        self._offset = await run.threads.run(
            lambda: run.store.journal.state(self._offset_name) or 0
        )
        file = await run.threads.run(lambda: Spool(self.path(run.store), self._offset))
        lookups = self._lookups.get_many(
            self._unanswered(run, at_end, more),
            by=self._by,
            concurrency=None,
            ordered=False,
            is_reported=True,
        )
        try:
            run.report()
            # Beside, because the next answer may be long in coming.
            async with running_beside(partial(self._keep_regularly, run, file)):
                failure = await self._read(run, file, lookups)
        finally:
            try:
                with anyio.CancelScope(shield=True):
                    await lookups.aclose()
                    # An answer need not be asked for again, whatever has ended the loop.
                    await self._keep(run, file)
            finally:
                file.close()
        run.report()
        return failure

    async def _unanswered(
        self,
        run: Run,
        at_end: Callable[[], bool],
        more: Callable[[], Awaitable[None]] | None,
    ) -> AsyncGenerator[Key, None]:
        unanswered = self.keys(run.store).unanswered
        last = -1
        while True:
            # Before the query, or the last keys could come in between.
            is_last = at_end()
            rows = await run.threads.run(partial(unanswered, last, _BATCH))
            for _, key in rows:
                yield key
            if rows:
                last = rows[-1][0]
            elif is_last or more is None:
                return
            else:
                await more()

    async def _read(
        self, run: Run, file: Spool, lookups: AsyncGenerator[Lookup[V], None]
    ) -> AltaProfilesError | None:
        failures = refusals = 0
        has_answered = self.answered > 0
        async for lookup in lookups:
            self._arrived.append(lookup)
            if lookup.error is None or is_final(lookup.error):
                self.refusal = lookup.error or self.refusal
                failures = refusals = 0
                has_answered = True
            else:
                self.failure = lookup.error
                if can_pass(lookup.error) or not has_answered:
                    failures += 1
                else:
                    refusals += 1
            if failures == _IN_VAIN or refusals == _REFUSED:
                return lookup.error
            if len(self._arrived) >= _AT_ONCE:
                await self._keep(run, file)
                run.report()
        return None

    async def _keep_regularly(self, run: Run, file: Spool) -> None:
        while True:
            await anyio.sleep(_AT_LEAST_EVERY)
            if self._arrived:
                await self._keep(run, file)
                run.report()

    async def _keep(self, run: Run, file: Spool) -> None:
        """Make the answers that have arrived durable."""
        # Taken at once, because the next one may arrive meanwhile.
        arrived, self._arrived = self._arrived, []
        if arrived:
            await run.threads.run(lambda: self._commit(run, file, arrived))

    def _commit(self, run: Run, file: Spool, lookups: list[Lookup[V]]) -> None:
        answers: list[Answer] = []
        lines: list[bytes] = []
        offset = file.offset
        for lookup in lookups:
            key = str(lookup.key)
            if lookup.value is not None:
                line = self._encode(key, lookup.value)
                answers.append(Answer(key, FOUND, offset, len(line), checksum=checksum(line)))
                lines.append(line)
                offset += len(line) + 1
            elif lookup.error is not None:
                outcome = INVALID if is_final(lookup.error) else FAILED
                name = type(lookup.error).__name__
                answers.append(Answer(key, outcome, error=name, message=str(lookup.error)))
            else:
                answers.append(Answer(key, NOT_FOUND))
        # The spool first: it must hold what the journal counts.
        file.append(b"\n".join([*lines, b""]))
        with run.commit() as journal:
            self.keys(run.store).put_answers(answers)
            journal.put_state(**{self._offset_name: offset})
            if self._on_records is not None:
                self._on_records(journal, lines)
        self._offset = offset
        for answer in answers:
            self.counts[answer.outcome] = self.counts.get(answer.outcome, 0) + 1
            self.counts[None] -= 1

    # ----------------------------------------------------------------------- from the spool on

    def read(self, store: Workspace, answers: Iterable[Answer]) -> Iterator[tuple[Answer, bytes]]:
        """Yield each of the answers that were found with its record. Blocking.

        Raises:
            SpoolDamaged: a record is not as it was written.
        """
        for answer, record in read_answers(self.path(store), answers):
            if record is None:
                raise SpoolDamaged(
                    f"{self.path(store)} is damaged: its {answer.length:,} bytes from byte "
                    f"{answer.offset:,} on are not as written"
                )
            yield answer, record

    def in_order(self, store: Workspace, *outcomes: int) -> Iterator[list[Answer]]:
        """Yield the answers with one of these outcomes in the order of the keys. Blocking."""
        return self.keys(store).in_order(outcomes, _BATCH)

    def are_damaged_at_end(self, store: Workspace) -> bool:
        """Return whether the last records are not whole, as after a power failure. Blocking."""
        last = self.keys(store).found_behind((store.journal.state(self._offset_name) or 0) - BLOCK)
        with explaining_disk_errors(store.folder):
            return any(record is None for _, record in read_answers(self.path(store), last))

    async def repair(self, run: Run) -> None:
        """Make keys unanswered again whose records are not whole."""
        forgotten = 0
        found = self.in_order(run.store, FOUND)
        while answers := await run.threads.run(lambda: next(found, None)):
            forgotten += await run.threads.run(partial(self._forget_damaged, run, answers))
            await checkpoint()
        await run.threads.run(lambda: self._fit_offset(run))
        if forgotten:
            keys = numbered(forgotten, "key")
            logger.warning("%s is damaged: asking for %s again", self.path(run.store), keys)

    def _forget_damaged(self, run: Run, answers: list[Answer]) -> int:
        with explaining_disk_errors(run.store.folder):
            read = read_answers(self.path(run.store), answers)
            keys = [answer.key for answer, record in read if record is None]
            with run.commit():
                self.keys(run.store).forget_answers(keys)
        self.counts[FOUND] -= len(keys)
        self.counts[None] = self.counts.get(None, 0) + len(keys)
        return len(keys)

    def _fit_offset(self, run: Run) -> None:
        """Lower the journalled length of the spool to its size, if something has truncated it."""
        with explaining_disk_errors(run.store.folder), run.commit() as journal:
            try:
                size = self.path(run.store).stat().st_size
            except FileNotFoundError:
                size = 0
            offset = min(size, journal.state(self._offset_name) or 0)
            journal.put_state(**{self._offset_name: offset})
