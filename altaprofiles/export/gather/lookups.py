"""Gathers lookups: keys into the journal, answers into spool and journal.

All keys are read first. Their number is then known, each is asked for once however often it occurs,
and a resumed run can tell whether the keys are the same.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any, Generic, Literal, TypeVar

import msgspec
from msgspec.structs import asdict

from ...base.wording import numbered
from ...errors import ConfigurationError, ExportError, InvalidArgument
from ...flow.fanout import Items
from ...models import Key
from ...sources.lookups import LIKE_FLOATS, Lookups
from ...tables.rows import Row
from ..keys import KeyFile, Placed, are_letters_of, as_text_key, in_batches, is_absent, key_in_file
from ..place import Place
from ..plan import KeysPlan
from ..report import LookupProgress, LookupReport, Report
from ..reporting import Traffic
from ..sinks import Target
from ..store.key_table import FAILED, FOUND, INVALID, NOT_FOUND, Answer, Missing
from ..store.people import People
from ..store.workspace import Workspace, explaining_disk_errors
from ..store.workspaces import Workspaces
from ..tables import Content, unbound_row
from .answers import BLOCK, Answers, OnRecords
from .gathering import Assembled, Run

__all__ = ["FAILED_FILE", "KeysGathering", "failure_line", "lines_of"]

V = TypeVar("V")

logger = logging.getLogger("altaprofiles")

_NOT_FOUND_FILE, FAILED_FILE = ".not-found.txt", ".failed.ndjson"


class KeysGathering(Generic[V]):
    """The values behind many keys: the `Gathering` of `Session.export_lookups`.

    Args:
        plan: the kind of the keys. Their number and digest are added while they are read.
        lookups: the service.
        keys: the source of the keys; None to ask for those of an unfinished run of this plan.
        content: the kind of rows.
        encode: returns the record of a key and its value, on one line.
        on_records: called with the records of each commit, or None.
    """

    noun = "lookup"
    unit = "answer"
    endings: Sequence[str] = (_NOT_FOUND_FILE, FAILED_FILE)
    options: Mapping[str, Any] = {}
    arguments: Mapping[str, Any] = {}

    def __init__(
        self,
        plan: KeysPlan,
        lookups: Lookups[V],
        keys: Items[Key] | KeyFile | None,
        *,
        content: Content,
        encode: Callable[[str, V], bytes],
        on_records: OnRecords | None = None,
    ) -> None:
        self.plan: KeysPlan = plan
        self.content = content
        self._answers = Answers(
            kept_in="keys",
            file="found",
            offset="offset",
            lookups=lookups,
            by=plan.by,
            encode=encode,
            on_records=on_records,
        )
        self.reads = keys if isinstance(keys, KeyFile) else None
        self._keys = keys
        self._stage: Literal["reading", "asking"] = "reading"
        self._read = self._skipped = 0
        self._resumed = 0
        self._first_refusal: ConfigurationError | None = None
        self._first: Key | None = None
        self._is_first_in_vain = False
        self._missing = Missing()

    # --------------------------------------------------------------- from the source to the journal

    @property
    def nobody(self) -> str:
        keys = self._answers.count(NOT_FOUND)
        other = self._meant or _OTHERS.get(self.plan.by)
        if not keys or other is None:
            return ""
        one, several = _NOUNS[other]
        are = f"key is {one}" if keys == 1 else f"keys are {several}"
        option = other.replace("_", "-")
        signs = "" if self._meant is None else self._signs
        return f"{signs}; if the {are}, pass by={other!r} (--by {option})"

    def is_known_in(self, target: Target) -> bool:
        # Whoever looks up new keys only has nights on which none is found.
        return self._meant is None and target.has_answers(self.plan.account, self.plan.by)

    @property
    def _signs(self) -> str:
        """A clause on the keys with an @, of those that nobody has."""
        keys, with_at = self._answers.count(NOT_FOUND), self._missing.with_at
        if keys == 1:
            have = f"the key has {'an' if with_at else 'no'} @"
        elif with_at in (0, keys):
            have = f"{'each' if with_at else 'none'} of the {keys:,} keys has an @"
        else:
            only = "only " if self.plan.by == "email" else ""
            have = f"{only}{with_at:,} of {keys:,} keys {'has' if with_at == 1 else 'have'} an @"
        return f"; {have}, which every e-mail address has"

    @property
    def _meant(self) -> Literal["identity", "email"] | None:
        """The kind of key that nobody's keys seem to be, if most are of another than `by`."""
        missing = self._answers.count(NOT_FOUND)
        if not missing or self._answers.count(FOUND):
            return None
        # One may be a header, and others stand for what somebody does not have.
        have_at = 2 * self._missing.with_at >= missing
        if self.plan.by == "email":
            return None if have_at else "identity"
        return "email" if have_at and self.plan.by in ("identity", "object_id") else None

    @property
    def executed_plan(self) -> KeysPlan:
        return self.plan

    def choose(self, workspaces: Workspaces, *, resume: bool) -> Workspace:
        return workspaces.take(self.plan, resume=resume)

    async def load(self, run: Run) -> None:
        is_earlier = True
        if self._keys is None:
            await run.threads.run(lambda: self._check_keys(run.store))
        else:
            digest = await self._read_keys(run, self._keys)
            self.plan = msgspec.structs.replace(self.plan, keys=self._read, digest=digest)
            is_earlier = await run.threads.run(lambda: self._settle(run))
        await run.threads.run(lambda: self._start_asking(run.store, is_earlier=is_earlier))
        are_damaged = self._answers.are_damaged_at_end
        if is_earlier and await run.threads.run(lambda: are_damaged(run.store)):
            await self.repair(run)

    def _check_keys(self, store: Workspace) -> None:
        """Raise `ExportError` unless the journal holds the keys of the plan."""
        self._read, self._skipped = self.plan.keys or 0, store.journal.state("skipped") or 0
        if self._read and not store.journal.keys.tally():
            raise ExportError(
                f"{store.folder} does not hold the keys any more; another run has finished this "
                f"lookup, or discarded it"
            )

    async def _read_keys(self, run: Run, source: Items[Key] | KeyFile) -> str:
        """Read all keys into the journal, and return their digest."""
        digest = hashlib.sha256()
        batches = in_batches(source, run.threads)
        try:
            async for batch in batches:
                if not self._read:
                    self._first = next(iter(batch), None)
                position = self._read + self._skipped
                texts = [self._as_text(index, key) for index, key in enumerate(batch, position)]
                # Rows without a key are skipped, as those of a file are.
                keys = [
                    one
                    for one, key in zip(texts, batch, strict=True)
                    if one[1] is None or not is_absent(key)
                ]
                self._skipped += len(texts) - len(keys)
                for text, error in keys:
                    self._first_refusal = self._first_refusal or error
                    data = text.encode()
                    digest.update(b"%d:%b" % (len(data), data))
                await run.threads.run(partial(self._put_keys, run.store, keys))
                self._read += len(keys)
                if isinstance(source, KeyFile):
                    source.forget_places(self._read)
                run.report()
        finally:
            await batches.aclose()
        if self._skipped and not self._read:
            raise InvalidArgument(
                f"keys: none of {self._skipped:,} has a value; pass the column of the keys"
            )
        return digest.hexdigest()

    def _as_text(self, index: int, key: Key) -> tuple[str, ConfigurationError | None]:
        text, error = as_text_key(index, key)
        if error is not None and isinstance(self._keys, Placed):
            # A file has lines, which its owner can look at.
            text, error = as_text_key(index, key, self._keys.place_of(index))
        return text, error

    def _settle(self, run: Run) -> bool:
        """Return whether an earlier run has asked for some of the same keys."""
        if isinstance(self._keys, KeyFile):
            self._skipped = self._keys.skipped
        with explaining_disk_errors(run.store.folder), run.store.journal.transaction():
            run.store.journal.put_state(plan=self.plan.encode(), skipped=self._skipped)
        return run.settle(self.plan)

    def _put_keys(
        self, store: Workspace, keys: list[tuple[str, ConfigurationError | None]]
    ) -> None:
        with explaining_disk_errors(store.folder), store.journal.transaction():
            added = store.journal.keys.put([text for text, _ in keys], self._read)
            store.journal.keys.put_answers(
                Answer(text, INVALID, error=type(error).__name__, message=str(error))
                for text, error in keys
                if error is not None
            )
        counts = self._answers.counts
        counts[None] = counts.get(None, 0) + added

    def _start_asking(self, store: Workspace, *, is_earlier: bool) -> None:
        with explaining_disk_errors(store.folder), store.journal.transaction():
            # A key that failed in an earlier run may succeed in this one.
            store.journal.keys.forget_failures()
        self._forget_refusals_of_all(store)
        # Those of a first run are keys that it has refused itself.
        self._resumed = self._answers.answered if is_earlier else 0
        refusal = self._first_refusal
        if refusal is not None and self._answers.count(INVALID) == self._answers.known:
            fault = str(refusal)
            if isinstance(self._keys, KeyFile):
                fault += self._keys.advice_on(fault)
            raise InvalidArgument(
                f"keys: none of {self._read:,} can be asked for: {fault}", value=refusal.value
            )

    def _forget_refusals_of_all(self, store: Workspace) -> None:
        """Count the keys, and make those unanswered again that the service has refused, if all are.

        Something else may be wrong than the keys.
        """
        with explaining_disk_errors(store.folder), store.journal.transaction():
            tally = store.journal.keys.tally()
            if not tally.get(FOUND) and not tally.get(NOT_FOUND):
                store.journal.keys.forget_refusals(InvalidArgument.__name__)
        self._answers.load(store)

    # ------------------------------------------------------------------ from the service to a spool

    async def gather(self, run: Run) -> list[str]:
        self._stage = "asking"
        failure = await self._answers.ask(run)
        in_vain = run.store.journal.keys.answered
        found = await run.threads.run(lambda: in_vain((NOT_FOUND, INVALID), -1, 1))
        self._is_first_in_vain = [number for number, _ in found] == [0]
        self._missing = await run.threads.run(run.store.journal.keys.missing)
        if not self._answers.count(FOUND, NOT_FOUND):
            # However few they are, an output of nobody is not what they have asked for.
            await run.threads.run(lambda: self._forget_refusals_of_all(run.store))
            if self._answers.count(FAILED):
                failure = self._answers.failure
            elif (refusal := self._answers.refusal) is not None:
                refusal.add_note("No key was accepted, so nothing was written.")
                raise refusal
        return [] if failure is None else [f"the service does not answer: {failure}"]

    # -------------------------------------------------------------------- from spool to output

    def kept_in(self, store: Workspace) -> int:
        # Refusals alone are no help to a later run, which asks for those keys again.
        if not self._answers.count(FOUND, NOT_FOUND):
            return 0
        return self._answers.are_kept_in(store)

    @property
    def records(self) -> int:
        return self._answers.count(FOUND)

    def people(self, store: Workspace, target: Target) -> People | None:
        return None

    def batches(self, store: Workspace) -> Iterator[list[Row]]:
        if not self.records:
            return
        rows: list[Row] = []
        size = 0
        found = chain.from_iterable(self._answers.in_order(store, FOUND))
        for answer, record in self._answers.read(store, found):
            rows.append(Row(record, self.plan.account, answer.key))
            size += len(record)
            if size >= BLOCK:
                yield rows
                rows, size = [], 0
        yield rows

    def unbound(self, store: Workspace) -> Iterator[list[Row]]:
        for answers in self._answers.in_order(store, NOT_FOUND):
            yield [unbound_row(self.plan.account, answer.key) for answer in answers]

    async def repair(self, run: Run) -> None:
        await self._answers.repair(run)
        self._resumed = min(self._resumed, self._answers.answered)

    def leftovers(self, store: Workspace) -> Iterator[tuple[str, Iterator[bytes]]]:
        in_order = self._answers.in_order
        yield _NOT_FOUND_FILE, lines_of(in_order(store, NOT_FOUND), _as_text)
        yield FAILED_FILE, lines_of(in_order(store, FAILED, INVALID), failure_line)

    def discrepancies(self, people: int, place: Place) -> list[str]:
        sentences = []
        refused = self._answers.count(INVALID)
        if refused:
            refusal = "was refused and stays" if refused == 1 else "were refused and stay"
            path = place.beside_at(FAILED_FILE)
            sentences.append(f"{numbered(refused, 'key')} {refusal} without an answer, see {path}")
        missing = self._missing
        if missing.like_floats:
            subject = f"{numbered(missing.like_floats, 'key')} not found"
            sentences.append(f"{subject}: {LIKE_FLOATS}")
        if missing.with_blanks:
            have = "has" if missing.with_blanks == 1 else "have"
            sentences.append(
                f"{numbered(missing.with_blanks, 'key')} not found {have} blanks at an end, which "
                f"belong to the key; remove them from the keys"
            )
        if missing.with_apostrophe:
            have = "has" if missing.with_apostrophe == 1 else "have"
            sentences.append(
                f"{numbered(missing.with_apostrophe, 'key')} not found {have} an apostrophe in "
                f"front, by which a spreadsheet marks text; remove it from the keys"
            )
        if missing.shortened:
            are = "is a number" if missing.shortened == 1 else "are numbers"
            sentences.append(
                f"{numbered(missing.shortened, 'key')} not found {are} as a spreadsheet shortens "
                f"them (1.2E+11), which has lost digits; export the keys again, as text"
            )
        if self.plan.by == "email" and missing.with_capitals:
            have = "has" if missing.with_capitals == 1 else "have"
            sentences.append(
                f"{numbered(missing.with_capitals, 'key')} not found {have} upper-case letters, "
                f"which stay as they are; if CleverTap has such addresses in lower case, look them "
                f"up in lower case"
            )
        if self._is_first_in_vain and self._meant is None:
            sentences += self._about_header()
        return sentences

    def _about_header(self) -> list[str]:
        """Return a warning if the first key, which is nobody's, may be the header of a file."""
        file = self._keys if isinstance(self._keys, KeyFile) else None
        if file is not None and file.is_bare:
            fix = "name its column if it is a header"
        elif isinstance(self._first, str) and are_letters_of(self.plan.by, self._first):
            fix = "leave it out if it is a header"
        else:
            return []
        subject = "the first key" if file is None else f"the first line of {file.path}"
        return [f"{subject} was looked up, and is nobody's; {fix}"]

    def unanswered(self, place: Place) -> list[str]:
        failed = self._answers.count(FAILED)
        if not failed:
            return []
        last = "" if self._answers.failure is None else f"; the last one: {self._answers.failure}"
        path = place.beside_at(FAILED_FILE)
        return [f"no answer for {numbered(failed, 'key')}, see {path}{last}"]

    # -------------------------------------------------------------------------------------- reports

    def progress(self, traffic: Traffic, assembled: Assembled | None) -> LookupProgress:
        return LookupProgress(
            stage=self._stage if assembled is None else "finishing",
            keys=self._answers.known,
            found=self._answers.count(FOUND),
            not_found=self._answers.count(NOT_FOUND),
            failed=self._answers.count(FAILED, INVALID),
            resumed=self._resumed,
            finished=0 if assembled is None else assembled.written,
            **traffic,
        )

    def describe(self, common: Report, place: Place, people: int | None) -> LookupReport:
        keys = self._answers.known
        not_found, failed = self._answers.count(NOT_FOUND), self._answers.count(FAILED, INVALID)
        written = people is not None
        return LookupReport(
            **asdict(common),
            keys=keys,
            resumed=self._resumed,
            repeated=self._read - keys,
            skipped=self._skipped,
            found=self._answers.count(FOUND),
            not_found=not_found,
            failed=failed,
            not_found_file=place.beside_at(_NOT_FOUND_FILE) if written and not_found else None,
            failed_file=place.beside_at(FAILED_FILE) if written and failed else None,
        )


_NOUNS = {
    "identity": ("an identity", "identities"),
    "email": ("an e-mail address", "e-mail addresses"),
    "user_id": ("a user ID", "user IDs"),
    "anonymous_id": ("an anonymous ID", "anonymous IDs"),
}
"""One and several keys of a kind."""


_OTHERS = {"user_id": "anonymous_id", "anonymous_id": "user_id"}
"""The kind of key that may be meant, of a kind of which nothing is found."""


def lines_of(answers: Iterator[list[Answer]], line: Callable[[Answer], bytes]) -> Iterator[bytes]:
    """Yield the lines of `answers`, as many at once as come together."""
    for some in answers:
        yield b"".join(map(line, some))


def _as_text(answer: Answer) -> bytes:
    return answer.key.encode() + b"\n"


def failure_line(answer: Answer, **members: Any) -> bytes:
    """Return the line of a failed key in a file, with more members if there are any."""
    row = {"key": key_in_file(answer.key), "error": answer.error, "message": answer.message}
    return msgspec.json.encode(row | members) + b"\n"
