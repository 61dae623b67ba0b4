"""The CDP users of the people of an export, looked up while people are still being fetched.

The keys of each commit of records are queued in the journal in its transaction. So they are on the
disk and not in memory, and a later run knows all of them, and the answers to those it need not ask
for again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from ...base.checks import check_flag, check_no_database, is_unicode, shown, unknown
from ...errors import AltaProfilesError, Forbidden, InvalidArgument
from ...http.engine import Engine
from ...http.service import Service
from ...models import CdpUser
from ...sources.lookups import CDP, Lookups
from ...tables.rows import Row
from ...wire.alta import is_used_up
from ..keys import as_text_key
from ..plan import IDENTITY, EventsPlan, KeysPlan
from ..reporting import rate_limit
from ..store.journal import Journal
from ..store.key_table import FOUND, INVALID, NOT_FOUND, Answer
from ..store.workspace import Workspace, explaining_disk_errors
from .answers import Answers
from .gathering import Run
from .join_records import join_key, with_users

__all__ = ["Join", "Joins"]

logger = logging.getLogger("altaprofiles")

P = TypeVar("P", EventsPlan, KeysPlan)
_BATCH = 2000


class Join(Struct, frozen=True):
    """The arguments of a join, checked.

    Attributes:
        key: "identity", or a key of `profileData`.
        by: "user_id" or "anonymous_id".
        service: Alta.
    """

    key: str
    by: str
    service: Service

    @classmethod
    def of(
        cls,
        with_cdp: object,
        key: object,
        by: object,
        service: Callable[[], Service],
        *,
        profile: bool = True,
    ) -> Join | None:
        """Return the join that these arguments ask for, or None.

        Args:
            with_cdp, key, by: as the caller passed them.
            service: returns Alta.
            profile: whether records have properties.

        Raises:
            ConfigurationError: an argument cannot work, or there are no credentials for Alta.
        """
        if not isinstance(key, str) or not key or not is_unicode(key):
            raise InvalidArgument(
                f"cdp_key: expected 'identity' or a key of profileData, got {shown(key)}"
            )
        check_no_database("cdp_key", key)
        if not isinstance(by, str) or by not in CDP.by:
            raise InvalidArgument(f"cdp_by: {unknown(by)}; use one of {', '.join(CDP.by)}")
        # Plain text, even of a subclass such as NumPy's.
        key, by = str.__str__(key), str.__str__(by)
        if not check_flag("with_cdp", with_cdp):
            for name, value, default in (("cdp_key", key, IDENTITY), ("cdp_by", by, CDP.by[0])):
                if value != default:
                    raise InvalidArgument(
                        f"{name}: got {shown(value)}, which does nothing without `with_cdp`; "
                        "pass that "
                        f"as well, or leave it out"
                    )
            return None
        if key != IDENTITY and not profile:
            raise InvalidArgument(
                f"cdp_key: {shown(key)} is one of the properties, which `profile=False` leaves "
                "out; "
                f"ask for them, or join by 'identity'"
            )
        return cls(key, by, service())

    @property
    def call(self) -> tuple[Service, str]:
        """The service, and the operation that it is asked for."""
        return self.service, CDP.operation

    def added_to(self, plan: P) -> P:
        """Return `plan` with this join."""
        return replace(
            plan,
            with_cdp=True,
            cdp_key=self.key,
            cdp_by=self.by,
            cdp_account=self.service.account,
            cdp_host=self.service.url,
        )


class Joins:
    """The keys that the people of one export are joined by, and their CDP users.

    Args:
        join: the arguments.
        engine: sends the requests.

    Attributes:
        key: the property that people are joined by.
        matched, unmatched: people in the output with users, and without.
        failed, refused: people whose lookup has failed, and whose key is refused for good.
    """

    def __init__(self, join: Join, engine: Engine) -> None:
        self.resumed = 0
        self.matched = self.unmatched = self.failed = self.refused = 0
        self.key = join.key
        self._join = join
        self._answers = Answers(
            kept_in="joins",
            file="joins",
            offset="joins_offset",
            lookups=Lookups(engine, join.service, CDP),
            by=join.by,
            encode=_encode_users,
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._more = asyncio.Event()
        self._has_all_keys = False

    # ---------------------------------------------------------------- from records to the journal

    def queue(self, journal: Journal, records: Sequence[bytes]) -> None:
        """Add the keys of `records`, in the transaction that they are committed in. Blocking."""
        keys = {join_key(record, self._join.key): None for record in records}
        keys.pop(None, None)
        texts = [as_text_key(0, key, self._join.key) for key in keys]
        added = journal.joins.put(text for text, _ in texts)
        counts = self._answers.counts
        counts[None] = counts.get(None, 0) + added
        if refusals := [(text, error) for text, error in texts if error is not None]:
            new = journal.joins.of([text for text, _ in refusals])
            answers = [
                Answer(text, INVALID, error=type(error).__name__, message=str(error))
                for text, error in refusals
                if new[text].outcome is None
            ]
            journal.joins.put_answers(answers)
            counts[None] -= len(answers)
            counts[INVALID] = counts.get(INVALID, 0) + len(answers)
        if added and self._loop is not None:
            # Its query waits for the end of this transaction, as both are in one thread.
            self._loop.call_soon_threadsafe(self._more.set)

    async def load(self, run: Run) -> None:
        """Count the keys, and make those that failed in an earlier run unanswered again."""
        self._loop = asyncio.get_running_loop()
        await run.threads.run(lambda: self._load(run.store))
        if await run.threads.run(lambda: self._answers.are_damaged_at_end(run.store)):
            await self.repair(run)

    def _load(self, store: Workspace) -> None:
        with explaining_disk_errors(store.folder), store.journal.transaction():
            store.journal.joins.forget_failures()
        self._answers.load(store)
        self.resumed = self._answers.answered

    # ---------------------------------------------------------------------- from Alta to the spool

    def begin(self) -> None:
        """Expect keys until `has_all_keys`."""
        self._has_all_keys = False

    def has_all_keys(self) -> None:
        """Let `ask` end once it has asked for all keys."""
        self._has_all_keys = True
        self._more.set()

    async def ask(self, run: Run) -> None:
        """Ask for each key once, as they come.

        If Alta does not answer, or the plan is used up, the other keys are asked for when all are
        known, so that the fetching of people goes on meanwhile. Those that fail again, or are not
        asked for, have failed in this run.

        Raises:
            AltaProfilesError: Alta refuses the credentials.
        """
        while True:
            was_last = self._has_all_keys
            failure = await self._ask(run)
            if failure is None:
                return
            if was_last:
                break
            logger.warning(
                "Alta does not answer: %s; CDP users are asked for again at the end", failure
            )
            while not self._has_all_keys:
                await self._wait()
            await run.threads.run(lambda: self._forget_failures(run))
        logger.warning("Alta does not answer: %s; the other people are not joined", failure)
        await run.threads.run(partial(self._fail_unanswered, run, failure))

    async def _ask(self, run: Run) -> AltaProfilesError | None:
        try:
            return await self._answers.ask(run, at_end=lambda: self._has_all_keys, more=self._wait)
        except Forbidden as error:
            # The credentials are good, and people are worth having without their users.
            if not is_used_up(error):
                raise
            return error

    async def _wait(self) -> None:
        await self._more.wait()
        self._more.clear()

    def _forget_failures(self, run: Run) -> None:
        with run.commit() as journal:
            journal.joins.forget_failures()
        self._answers.load(run.store)

    def _fail_unanswered(self, run: Run, failure: AltaProfilesError) -> None:
        with run.commit() as journal:
            journal.joins.fail_unanswered(type(failure).__name__, str(failure))
        self._answers.load(run.store)

    async def repair(self, run: Run) -> None:
        """Make keys unanswered again whose users are not as they were written."""
        await self._answers.repair(run)
        self.resumed = min(self.resumed, self._answers.answered)

    # ----------------------------------------------------------------------- from the spool to rows

    def begin_output(self, store: Workspace) -> None:
        """Count people from 0. Blocking."""
        self.matched = self.unmatched = self.failed = self.refused = 0
        with store.journal.transaction():
            store.journal.failed_joins.clear()

    def joined(self, store: Workspace, rows: Sequence[Row], *, has_columns: bool) -> list[Row]:
        """Return rows with their users, and count them. Blocking.

        Args:
            store: the workspace.
            rows: the rows.
            has_columns: whether the users are a column; if not, they are part of the record.

        Raises:
            SpoolDamaged: users are not as they were written.
        """
        keys = [join_key(row.record, self._join.key) for row in rows]
        texts = [None if key is None else as_text_key(0, key)[0] for key in keys]
        answers = store.journal.joins.of([*dict.fromkeys(filter(None, texts))])
        found = sorted(
            (answer for answer in answers.values() if answer.outcome == FOUND),
            key=lambda answer: answer.offset or 0,
        )
        users = {answer.key: record for answer, record in self._answers.read(store, found)}
        joined: list[Row] = []
        failed: dict[str, None] = {}
        for row, text in zip(rows, texts, strict=True):
            outcome = NOT_FOUND if text is None else answers[text].outcome
            cdp: bytes | None = b"[]"
            if text is not None and outcome == FOUND:
                cdp = users[text]
                self.matched += 1
            elif text is None or outcome == NOT_FOUND:
                self.unmatched += 1
            else:
                cdp = None
                failed[text] = None
                self.failed += 1
                self.refused += outcome == INVALID
            joined.append(
                replace(row, cdp=cdp)
                if has_columns
                else replace(row, record=with_users(row.record, cdp))
            )
        if failed:
            with store.journal.transaction():
                store.journal.failed_joins.append(failed)
        return joined

    def failures(self, store: Workspace) -> Iterator[list[Answer]]:
        """Yield the failed lookups of people in the output, in their order. Blocking."""
        return store.journal.failed_joins.answers(_BATCH)

    # -------------------------------------------------------------------------------------- reports

    @property
    def known(self) -> int:
        """Number of keys."""
        return self._answers.known

    def progress(self) -> dict[str, Any]:
        """Return the members of a progress report."""
        known = self.known
        throttled, waits_until = rate_limit(self._join.service)
        return {
            "joins": known,
            "joined": known - self._answers.count(None),
            "joins_resumed": self.resumed,
            "joins_throttled": throttled,
            "joins_wait_until": waits_until,
        }


def _encode_users(key: str, users: Mapping[str, CdpUser]) -> bytes:
    return msgspec.json.encode([*users.values()])
