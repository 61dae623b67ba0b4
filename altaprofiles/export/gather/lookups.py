"""Gathers lookups: keys into the journal, answers into spool and journal.

All keys are read first. Their number is then known, each is asked for once however often it occurs,
and a resumed run can tell whether the keys are the same.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import anyio
import msgspec
from anyio.lowlevel import checkpoint
from msgspec.structs import asdict

from ...base.verdicts import is_final
from ...base.wording import numbered
from ...errors import ConfigurationError
from ...flow.fanout import Items
from ...models import Key, Lookup, Profile
from ...sources.lookups import Lookups
from ..keys import KeyFile, as_text_key, in_batches
from ..place import Place
from ..plan import KeysPlan, Plan, check_same
from ..report import LookupProgress, LookupReport, Report
from ..reporting import Traffic
from ..store.journal import FAILED, FOUND, INVALID, NOT_FOUND, Answer
from ..store.spool import Spool, SpoolDamaged, checksum, read_answers
from ..store.workspace import Workspace, explaining_disk_errors
from .gathering import Assembled, Run

__all__ = ["KeysGathering"]

logger = logging.getLogger("altaprofiles")

_AT_ONCE = 200
"""Answers that are committed together."""
_AT_LEAST_EVERY = 1.0
"""Longest time, in seconds, before a partial batch of answers is committed."""
_IN_VAIN = 10
"""Consecutive failures, after all retries, at which the service counts as down."""
_BATCH = 2000
_BLOCK = 4 << 20

_NOT_FOUND_FILE, _FAILED_FILE = ".not-found.txt", ".failed.ndjson"


class KeysGathering:
    """The people behind many keys: the `Gathering` of `Session.export_lookups`.

    Args:
        plan: the kind of the keys. Their number and digest are added while they are read.
        lookups: the service.
        keys: the source of the keys.
    """

    unit = "answers"
    endings: Sequence[str] = (_NOT_FOUND_FILE, _FAILED_FILE)
    options: Mapping[str, Any] = {}
    repeats = False
    nobody = ""

    def __init__(
        self, plan: KeysPlan, lookups: Lookups[Profile], keys: Items[Key] | KeyFile
    ) -> None:
        self.plan: KeysPlan = plan
        self.reads = keys.path if isinstance(keys, KeyFile) else None
        self._lookups = lookups
        self._keys = keys
        self._stage: Literal["reading", "asking"] = "reading"
        self._read = 0
        self._counts: dict[int | None, int] = {}
        self._resumed = 0
        self._offset = 0
        self._first_refusal: ConfigurationError | None = None

    # --------------------------------------------------------------- from the source to the journal

    @property
    def executed_plan(self) -> KeysPlan:
        return self.plan

    def adopt(self, begun: Plan) -> None:
        if isinstance(begun, KeysPlan):
            self.plan = self.plan.with_keys_of(begun)

    async def load(self, run: Run) -> None:
        loaded = await run.threads.run(lambda: self._load(run.store))
        digest = hashlib.sha256()
        batches = in_batches(self._keys, run.threads)
        try:
            async for batch in batches:
                keys = [as_text_key(index, key) for index, key in enumerate(batch, self._read)]
                for text, error in keys:
                    self._first_refusal = self._first_refusal or error
                    data = text.encode()
                    digest.update(b"%d:%b" % (len(data), data))
                if not loaded:
                    await run.threads.run(partial(self._put_keys, run.store, keys))
                self._read += len(keys)
                run.report()
        finally:
            await batches.aclose()
        read = msgspec.structs.replace(self.plan, keys=self._read, digest=digest.hexdigest())
        if loaded:
            check_same(self.plan, read, str(run.place.folder))
        self.plan = read
        await run.threads.run(lambda: self._start_asking(run.store))
        if loaded and await run.threads.run(lambda: self._is_damaged_at_end(run.store)):
            await self.repair(run)

    def _load(self, store: Workspace) -> bool:
        """Return whether the journal holds all keys, some of them answered."""
        loaded = not store.journal.is_empty()
        with explaining_disk_errors(store.folder):
            if not loaded:
                with store.journal.transaction():
                    store.journal.drop_keys()
            self._counts = store.journal.tally()
        self._resumed = self._answered
        return loaded

    def _put_keys(
        self, store: Workspace, keys: list[tuple[str, ConfigurationError | None]]
    ) -> None:
        with explaining_disk_errors(store.folder), store.journal.transaction():
            added = store.journal.put_keys(self._read, [text for text, _ in keys])
            store.journal.put_answers(
                Answer(text, INVALID, error=type(error).__name__, message=str(error))
                for text, error in keys
                if error is not None
            )
        self._counts[None] = self._counts.get(None, 0) + added

    def _start_asking(self, store: Workspace) -> None:
        with explaining_disk_errors(store.folder), store.journal.transaction():
            store.journal.put_state(plan=self.plan.encode())
            # A key that failed in an earlier run may succeed in this one.
            store.journal.forget_failures()
        self._counts = store.journal.tally()
        self._resumed = self._answered
        refusal = self._first_refusal
        if refusal is not None and self._count(INVALID) == sum(self._counts.values()):
            fault = str(refusal)
            if isinstance(self._keys, KeyFile):
                # The first key is the first that is refused.
                fault = self._keys.at_first_line(fault)
            raise ConfigurationError(
                f"keys: none of {self._read:,} can be asked for: {fault}", value=refusal.value
            )

    def _is_damaged_at_end(self, store: Workspace) -> bool:
        """Return whether the last records in the spool are not whole, as after a power failure."""
        last = store.journal.found_behind((store.journal.state("offset") or 0) - _BLOCK)
        with explaining_disk_errors(store.folder):
            return any(record is None for _, record in read_answers(_spool(store), last))

    # ------------------------------------------------------------------ from the service to a spool

    async def gather(self, run: Run) -> list[str]:
        self._offset = await run.threads.run(lambda: run.store.journal.state("offset") or 0)
        spool = await run.threads.run(lambda: Spool(_spool(run.store), self._offset))
        answers: list[Lookup[Profile]] = []
        failures = 0
        committed = time.monotonic()
        lookups = self._lookups.get_many(
            self._unanswered(run), by=self.plan.by, concurrency=None, ordered=False
        )
        self._stage = "asking"
        try:
            run.report()
            async for lookup in lookups:
                answers.append(lookup)
                answered = lookup.error is None or is_final(lookup.error)
                failures = 0 if answered else failures + 1
                if failures == _IN_VAIN:
                    return [f"the service does not answer: {lookup.error}"]
                if len(answers) >= _AT_ONCE or time.monotonic() - committed > _AT_LEAST_EVERY:
                    await run.threads.run(lambda: self._keep(run, spool, answers))
                    committed = time.monotonic()
                    run.report()
        finally:
            try:
                with anyio.CancelScope(shield=True):
                    await lookups.aclose()
                    # An answer need not be asked for again, whatever has ended the loop.
                    await run.threads.run(lambda: self._keep(run, spool, answers))
            finally:
                spool.close()
        run.report()
        return []

    async def _unanswered(self, run: Run) -> AsyncGenerator[Key, None]:
        last = -1
        unanswered = run.store.journal.unanswered
        while rows := await run.threads.run(partial(unanswered, last, _BATCH)):
            for _, key in rows:
                yield key
            last = rows[-1][0]

    def _keep(self, run: Run, file: Spool, lookups: list[Lookup[Profile]]) -> None:
        """Make `lookups` durable, and empty the list."""
        answers: list[Answer] = []
        lines: list[bytes] = []
        offset = file.offset
        for lookup in lookups:
            key = str(lookup.key)
            if lookup.value is not None:
                line = lookup.value.encode()
                answers.append(Answer(key, FOUND, offset, len(line), checksum=checksum(line)))
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
        # The spool first: it must hold what the journal counts.
        file.append(b"\n".join([*lines, b""]))
        with run.commit() as journal:
            journal.put_answers(answers)
            journal.put_state(offset=offset)
        self._offset = offset
        # Cleared here, because the caller may be cancelled before or after this call.
        lookups.clear()
        for answer in answers:
            self._counts[answer.outcome] = self._counts.get(answer.outcome, 0) + 1
            self._counts[None] -= 1

    # -------------------------------------------------------------------- from spool to output

    def kept_in(self, store: Workspace) -> int:
        path = store.spool("found")
        if store.holds(path, self._offset):
            return self._answered
        return self._count(NOT_FOUND, INVALID) if store.holds(path, 0) else 0

    @property
    def _answered(self) -> int:
        return self._count(FOUND, NOT_FOUND, INVALID)

    @property
    def records(self) -> int:
        return self._count(FOUND)

    def batches(self, store: Workspace) -> Iterator[list[bytes]]:
        if not self._count(FOUND):
            return
        records: list[bytes] = []
        size = 0
        found = chain.from_iterable(_in_order(store, (FOUND,)))
        for answer, record in read_answers(_spool(store), found):
            if record is None:
                raise SpoolDamaged(
                    f"{_spool(store)} is damaged: its {answer.length:,} bytes from byte "
                    f"{answer.offset:,} on are not as written"
                )
            records.append(record)
            size += len(record)
            if size >= _BLOCK:
                yield records
                records, size = [], 0
        yield records

    async def repair(self, run: Run) -> None:
        forgotten = 0
        found = _in_order(run.store, (FOUND,))
        while answers := await run.threads.run(lambda: next(found, None)):
            forgotten += await run.threads.run(partial(self._forget_damaged, run, answers))
            await checkpoint()
        await run.threads.run(lambda: _fit_offset(run))
        self._resumed = min(self._resumed, self._answered)
        if forgotten:
            keys = numbered(forgotten, "key")
            logger.warning("%s is damaged: asking for %s again", _spool(run.store), keys)

    def _forget_damaged(self, run: Run, answers: list[Answer]) -> int:
        """Make keys unanswered again whose records are not whole, and return their number."""
        with explaining_disk_errors(run.store.folder):
            read = read_answers(_spool(run.store), answers)
            keys = [answer.key for answer, record in read if record is None]
            with run.commit() as journal:
                journal.forget_answers(keys)
        self._counts[FOUND] -= len(keys)
        self._counts[None] = self._counts.get(None, 0) + len(keys)
        return len(keys)

    def leftovers(self, store: Workspace) -> Iterator[tuple[str, Iterator[bytes]]]:
        yield _NOT_FOUND_FILE, _lines(store, (NOT_FOUND,), _as_text)
        yield _FAILED_FILE, _lines(store, (FAILED, INVALID), _as_json)

    def discrepancies(self, people: int, place: Place) -> list[str]:
        refused = self._count(INVALID)
        if not refused:
            return []
        refusal = "was refused and stays" if refused == 1 else "were refused and stay"
        path = place.beside[_FAILED_FILE]
        return [f"{numbered(refused, 'key')} {refusal} without an answer, see {path}"]

    def unanswered(self, place: Place) -> list[str]:
        failed = self._count(FAILED)
        if not failed:
            return []
        return [f"no answer for {numbered(failed, 'key')}, see {place.beside[_FAILED_FILE]}"]

    # -------------------------------------------------------------------------------------- reports

    def _count(self, *outcomes: int) -> int:
        return sum(self._counts.get(outcome, 0) for outcome in outcomes)

    def progress(self, traffic: Traffic, assembled: Assembled | None) -> LookupProgress:
        return LookupProgress(
            stage=self._stage if assembled is None else "finishing",
            keys=sum(self._counts.values()),
            found=self._count(FOUND),
            not_found=self._count(NOT_FOUND),
            failed=self._count(FAILED, INVALID),
            resumed=self._resumed,
            finished=0 if assembled is None else assembled.written,
            **traffic,
        )

    def describe(self, common: Report, place: Place, people: int | None) -> LookupReport:
        keys = sum(self._counts.values())
        not_found, failed = self._count(NOT_FOUND), self._count(FAILED, INVALID)
        written = people is not None
        return LookupReport(
            **asdict(common),
            keys=keys,
            repeated=self._read - keys,
            found=self._count(FOUND),
            not_found=not_found,
            failed=failed,
            not_found_file=str(place.beside[_NOT_FOUND_FILE]) if written and not_found else None,
            failed_file=str(place.beside[_FAILED_FILE]) if written and failed else None,
        )


def _spool(store: Workspace) -> Path:
    return store.spool("found")


def _fit_offset(run: Run) -> None:
    """Lower the journalled length of the spool to its size, if something has truncated it."""
    with explaining_disk_errors(run.store.folder), run.commit() as journal:
        try:
            size = _spool(run.store).stat().st_size
        except FileNotFoundError:
            size = 0
        journal.put_state(offset=min(size, journal.state("offset") or 0))


def _in_order(store: Workspace, outcomes: tuple[int, ...]) -> Iterator[list[Answer]]:
    last = -1
    while rows := store.journal.answered(outcomes, last, _BATCH):
        yield [answer for _, answer in rows]
        last = rows[-1][0]


def _lines(
    store: Workspace, outcomes: tuple[int, ...], line: Callable[[Answer], bytes]
) -> Iterator[bytes]:
    for rows in _in_order(store, outcomes):
        yield b"".join(map(line, rows))


def _as_text(answer: Answer) -> bytes:
    return answer.key.encode() + b"\n"


def _as_json(answer: Answer) -> bytes:
    row = {"key": answer.key.removeprefix("\0"), "error": answer.error, "message": answer.message}
    return msgspec.json.encode(row) + b"\n"
