"""`Session.export_lookups`: keys into the journal, answers into spool and journal, then the output.

All keys are read first. So their number is known, each is asked once however often it is there, and
what tells this export from another is known before anything is asked.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Literal, TypeAlias

import anyio
import msgspec

from ...base.verdicts import is_final
from ...errors import ConfigurationError, ExportError
from ...flow.fanout import Items
from ...models import Key, Lookup, Profile
from ...sources.lookups import Lookups
from ...wire.clevertap import By
from ..assemble import Output, assemble
from ..job import Job, Setting
from ..keys import KeyFile, as_text_key, in_batches
from ..plan import LookupPlan, check_same
from ..report import LookupProgress, LookupReport
from ..sinks.files import write_file
from ..store.journal import FAILED, FOUND, INVALID, NOT_FOUND, Answer
from ..store.spool import Spool
from ..store.workspace import Workspace, writing_in

__all__ = ["LookupExport", "OnLookupProgress"]

OnLookupProgress: TypeAlias = Callable[[LookupProgress], object]

_AT_ONCE = 200
"""Answers made durable together."""
_AT_LEAST_EVERY = 1.0
"""Seconds after which those that there are will do."""
_IN_VAIN = 10
"""Keys in a row that fail, each as often as `Retry` allows, before it is no use to go on."""
_BATCH = 2000
_BLOCK = 4 << 20


class LookupExport(Job[LookupPlan, LookupReport]):
    """One run of one bulk lookup.

    Args:
        source: the service.
        by: what the keys are.
        keys: the source.
        on_progress: told where it is.
    """

    KEPT = "answers"

    def __init__(
        self,
        setting: Setting,
        plan: LookupPlan,
        *,
        source: Lookups[Profile],
        by: By,
        keys: Items[Key] | KeyFile,
        on_progress: OnLookupProgress | None,
    ) -> None:
        super().__init__(setting, plan)
        self._source = source
        self._by = by
        self._keys = keys
        self._not_found_file, self._failed_file = setting.beside
        self._on_progress = on_progress
        self._stage: Literal["reading", "asking", "finishing"] = "reading"
        self._read = 0
        self._counts: dict[int | None, int] = {}
        self._resumed = self._finished = 0
        self._first_refusal: ConfigurationError | None = None

    @property
    def kept(self) -> int:
        return self._count(FOUND, NOT_FOUND, INVALID)

    # --------------------------------------------------------------- from the source to the journal

    async def load(self, work: Workspace) -> None:
        """Read every key, or make sure that they are the ones that an earlier run has read."""
        loaded = await self.threads.run(lambda: self._begin(work))
        digest = hashlib.sha256()
        batches = in_batches(self._keys, self.threads)
        try:
            async for batch in batches:
                keys = [as_text_key(self._by, key) for key in batch]
                for text, _ in keys:
                    data = text.encode()
                    digest.update(b"%d:%b" % (len(data), data))
                if not loaded:
                    await self.threads.run(partial(self._put_keys, work, keys))
                self._read += len(keys)
                self.tell()
        finally:
            await batches.aclose()
        read = msgspec.structs.replace(self.plan, keys=self._read, digest=digest.hexdigest())
        if loaded:
            check_same(self.plan, read, str(self.setting.folder))
        self.plan = read
        await self.threads.run(lambda: self._begin_asking(work))

    def _begin(self, work: Workspace) -> bool:
        """Return whether the keys are in the journal, and some of them answered."""
        begun = work.begun()
        loaded = isinstance(begun, LookupPlan) and not work.journal.is_empty()
        if isinstance(begun, LookupPlan):
            self.plan = self.plan.with_keys_of(begun)
        self.begin(work)
        with writing_in(work.folder):
            if not loaded:
                with work.journal.transaction():
                    work.journal.drop_keys()
            self._counts = work.journal.tally()
        self._resumed = self.kept
        return loaded

    def _put_keys(self, work: Workspace, keys: list[tuple[str, ConfigurationError | None]]) -> None:
        with writing_in(work.folder), work.journal.transaction():
            added = work.journal.put_keys(self._read, [text for text, _ in keys])
            work.journal.put_answers(
                Answer(text, INVALID, error=type(error).__name__, message=str(error))
                for text, error in keys
                if error is not None
            )
        self._counts[None] = self._counts.get(None, 0) + added
        for _, error in keys:
            self._first_refusal = self._first_refusal or error

    def _begin_asking(self, work: Workspace) -> None:
        with writing_in(work.folder), work.journal.transaction():
            work.journal.put_state(plan=self.plan.encode())
            # What failed in an earlier run may have passed.
            work.journal.forget_failures()
        self._counts = work.journal.tally()
        self._resumed = self.kept
        if self._read and self._count(INVALID) == sum(self._counts.values()):
            raise ConfigurationError(
                f"keys: none of {self._read:,} can be asked for: {self._first_refusal}"
            )

    # ------------------------------------------------------------------ from the service to a spool

    async def fetch(self, work: Workspace) -> None:
        spool = await self.threads.run(
            lambda: Spool(work.spool("found"), work.journal.state("offset") or 0)
        )
        answers: list[Lookup[Profile]] = []
        in_vain = 0
        kept = time.monotonic()
        keys = self._unanswered(work)
        lookups = self._source.get_many(keys, by=self._by, concurrency=None, ordered=False)
        self._stage = "asking"
        try:
            self.tell()
            async for lookup in lookups:
                answers.append(lookup)
                answered = lookup.error is None or is_final(lookup.error)
                in_vain = 0 if answered else in_vain + 1
                if in_vain == _IN_VAIN:
                    raise self.incomplete([f"the service does not answer: {lookup.error}"])
                if len(answers) >= _AT_ONCE or time.monotonic() - kept > _AT_LEAST_EVERY:
                    await self.threads.run(lambda: self._keep(work, spool, answers))
                    kept = time.monotonic()
                    self.tell()
        finally:
            try:
                with anyio.CancelScope(shield=True):
                    await lookups.aclose()
                    # What has been answered need not be asked again, whatever has ended this.
                    await self.threads.run(lambda: self._keep(work, spool, answers))
            finally:
                spool.close()
        self.tell()

    async def _unanswered(self, work: Workspace) -> AsyncGenerator[Key, None]:
        last = -1
        while rows := await self.threads.run(partial(work.journal.unanswered, last, _BATCH)):
            for _, key in rows:
                yield key
            last = rows[-1][0]

    def _keep(self, work: Workspace, spool: Spool, lookups: list[Lookup[Profile]]) -> None:
        """Make `lookups` durable, and empty the list."""
        answers: list[Answer] = []
        lines: list[bytes] = []
        offset = spool.offset
        for lookup in lookups:
            key = str(lookup.key)
            if lookup.value is not None:
                line = lookup.value.encode()
                answers.append(Answer(key, FOUND, offset, len(line)))
                lines.append(line)
                offset += len(line) + 1
            elif lookup.error is not None:
                outcome = INVALID if is_final(lookup.error) else FAILED
                name = type(lookup.error).__name__
                answers.append(Answer(key, outcome, error=name, message=str(lookup.error)))
            else:
                answers.append(Answer(key, NOT_FOUND))
        if not answers:
            return
        # The spool first: what the journal counts must be there.
        spool.append(b"\n".join([*lines, b""]))
        with work.journal.transaction():
            work.journal.put_answers(answers)
            work.journal.put_state(offset=offset)
            self.put_totals(work)
        # Here, and not by the caller, who may be cancelled before this has begun, or after.
        lookups.clear()
        for answer in answers:
            self._counts[answer.outcome] = self._counts.get(answer.outcome, 0) + 1
            self._counts[None] -= 1

    # -------------------------------------------------------------------- from spool to output

    async def finish(self, work: Workspace) -> LookupReport:
        output = await assemble(
            self.threads,
            self.setting.target,
            lambda: self._batches(work),
            records=self._count(FOUND),
            distinct=None,
            on_batch=self._tell_finished,
        )
        for outcomes, path, line in (
            ((NOT_FOUND,), self._not_found_file, _as_text),
            ((FAILED, INVALID), self._failed_file, _as_json),
        ):
            lines = self._lines(work, outcomes, line)
            await self.threads.run(partial(_write_lines, path, lines))
        report = self.describe(complete=not self._count(FAILED), output=output)
        await self.put_manifest(report)
        if not report.complete:
            raise self.incomplete(
                [f"no answer for {self._count(FAILED):,} keys, see {self._failed_file}"], report
            )
        return report

    def _batches(self, work: Workspace) -> Iterator[list[bytes]]:
        if not self._count(FOUND):
            return
        with work.spool("found").open("rb", buffering=0) as file:
            batch: list[bytes] = []
            size = 0
            for answer in chain.from_iterable(_in_order(work, (FOUND,))):
                length = answer.length or 0
                file.seek(answer.offset or 0)
                batch.append(file.read(length))
                if len(batch[-1]) < length:
                    raise ExportError(f"{file.name} is shorter than its journal says")
                size += length
                if size >= _BLOCK:
                    yield batch
                    batch, size = [], 0
            yield batch

    def _lines(
        self, work: Workspace, outcomes: tuple[int, ...], line: Callable[[Answer], bytes]
    ) -> Iterator[bytes]:
        for rows in _in_order(work, outcomes):
            yield b"".join(map(line, rows))

    # ------------------------------------------------------------------------------- what is told

    def _count(self, *outcomes: int) -> int:
        return sum(self._counts.get(outcome, 0) for outcome in outcomes)

    def _tell_finished(self, read: int, written: int) -> None:
        self._stage, self._finished = "finishing", written
        self.tell()

    def tell(self) -> None:
        if self._on_progress is None:
            return
        self.call_back(
            self._on_progress,
            LookupProgress(
                stage=self._stage,
                keys=sum(self._counts.values()),
                found=self._count(FOUND),
                not_found=self._count(NOT_FOUND),
                failed=self._count(FAILED, INVALID),
                resumed=self._resumed,
                finished=self._finished,
                **self.traffic(),
            ),
        )

    def describe(self, *, complete: bool, output: Output | None = None) -> LookupReport:
        keys = sum(self._counts.values())
        not_found, failed = self._count(NOT_FOUND), self._count(FAILED, INVALID)
        return LookupReport(
            keys=keys,
            repeated=self._read - keys,
            found=self._count(FOUND),
            not_found=not_found,
            failed=failed,
            not_found_file=str(self._not_found_file) if output and not_found else None,
            failed_file=str(self._failed_file) if output and failed else None,
            **self.totals(complete=complete, output=output),
        )


def _in_order(work: Workspace, outcomes: tuple[int, ...]) -> Iterator[list[Answer]]:
    last = -1
    while rows := work.journal.answered(outcomes, last, _BATCH):
        yield [answer for _, answer in rows]
        last = rows[-1][0]


def _as_text(answer: Answer) -> bytes:
    return answer.key.encode() + b"\n"


def _as_json(answer: Answer) -> bytes:
    told = {"key": answer.key.removeprefix("\0"), "error": answer.error, "message": answer.message}
    return msgspec.json.encode(told) + b"\n"


def _write_lines(path: Path, lines: Iterator[bytes]) -> None:
    """Write `lines` to a file, or delete what an earlier run has left there if there are none."""
    first = next(lines, None)
    if first is None:
        path.unlink(missing_ok=True)
    else:
        write_file(path, chain([first], lines))
