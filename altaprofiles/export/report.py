"""The reports of an export: progress while it runs, and its result."""

from __future__ import annotations

import time
from datetime import date
from typing import ClassVar, Literal

from msgspec import Struct

from ..base.wording import clock, moment, numbered, percent, share, sized
from ..tables.mended import mistyped_words
from ..wire.days import date_of, is_day
from .formats import Format
from .summary import Rows, beside, html_table, path_text, text_lines

__all__ = [
    "ChainStatus",
    "ExportProgress",
    "ExportReport",
    "LookupProgress",
    "LookupReport",
    "Progress",
    "Report",
    "SyncReport",
]


class ChainStatus(Struct, frozen=True):
    """The state of one chain.

    Attributes:
        event: the event whose people the chain brings; None for everyone.
        start, end: the range of the chain, inclusive, as it was sent to the service; None for
            everyone.
        records, pages: received and on disk.
        done: whether the last page is on disk, and the chain believed or accepted.
        restarts: how often the chain was restarted, because the service refused its cursor or sent
            fewer records than it counts.
        counted: people in the chain's own range by the service's own count, each of whom it brings
            as a record; or None. A person in several ranges is in each of their counts.
        batch_size: people per page, as the chain was opened; None until it is opened.
    """

    event: str | None
    start: int | None
    end: int | None
    records: int
    pages: int
    done: bool
    restarts: int
    counted: int | None = None
    batch_size: int | None = None


class Report(Struct, frozen=True, kw_only=True):
    """The result of any export, including the runs it resumed. As text it is its summary.

    Attributes:
        output: the file, or the address of the table, without credentials.
        manifest: the file that holds this report and the export's arguments; None if nothing has
            been written.
        format: "ndjson", "csv", "parquet", "duckdb" or "postgres".
        complete: whether nothing is missing.
        requests: HTTP requests sent by all runs of this export, retries included. Of a run that was
            killed, those up to the last results that it kept.
        retries: those of them that repeated an earlier one, polls of a page or a count that was not
            ready included, which are no failures.
        seconds: time at work, without the breaks between runs.
        bytes: size of the output; None for a database server.
        sha256: the output's SHA-256 in hexadecimal digits; None for a database server.
        mended: values that the output's format cannot hold as they were. What counts differs
            between formats; see the result of `Session.export`.
        mistyped: those of them that are null because they are of another type than their column,
            by the name of the column.
        absorbed: rows without an identity, of earlier runs, that were taken out of a table because
            a person with an identity now has their device.
        warnings: sentences on what may be wrong with a complete output, as in the log: fewer people
            than the service counts, nobody at all, or refused keys.
        accounts: of an output of several accounts, as the command line writes them, the share of
            each by its name; else None. The other figures are sums then, and `seconds` is the
            longest.
    """

    output: str
    manifest: str | None
    format: Format
    complete: bool
    requests: int
    retries: int
    seconds: float
    bytes: int | None = None
    sha256: str | None = None
    mended: int = 0
    mistyped: dict[str, int] = {}
    absorbed: int = 0
    warnings: list[str] = []
    accounts: dict[str, Report] | None = None

    @property
    def summary(self) -> list[tuple[str, str]]:
        """The main figures as text, with their names, as the command line prints them."""
        rows = [] if self.complete else [("complete", "no")]
        rows += self._figures
        for name, one in (self.accounts or {}).items():
            words = "" if one.complete else "not complete, "
            rows.append((name, words + one._share))  # noqa: SLF001
        of_all = " of all runs" if self._is_resumed else ""
        requests = numbered(self.requests, "request")
        rows.append(("retries", f"{self.retries:,} in {requests}{of_all}"))
        rows.append(("time", clock(self.seconds) + of_all))
        if self.bytes is not None:
            rows.append(("size", sized(self.bytes)))
        if self.sha256 is not None:
            rows.append(("SHA-256", self.sha256))
        if self.absorbed:
            rows.append(
                (
                    "absorbed",
                    f"{numbered(self.absorbed, 'row')} of earlier runs, by people with a name",
                )
            )
        if self.mended:
            rows.append(("mended", self._mended))
        if self._names_output:
            rows.append(("output", path_text(self.output)))
        if self.manifest is not None:
            rows.append(("manifest", path_text(self.manifest)))
        return rows

    @property
    def _is_resumed(self) -> bool:
        """True if the figures include those of earlier runs, which some of its items are from."""
        return False

    @property
    def _names_output(self) -> bool:
        """False if nothing was due, so that there may be no output."""
        return True

    @property
    def _mended(self) -> str:
        replaced = self.mended - sum(self.mistyped.values())
        words = [f"{replaced:,} texts that {self.format} cannot hold"] if replaced else []
        return "; ".join(words + ([mistyped_words(self.mistyped)] if self.mistyped else []))

    @property
    def _figures(self) -> Rows:
        """The rows that only this kind of report has."""
        return []

    @property
    def _share(self) -> str:
        """The result in one line, for an output of several accounts."""
        return ""

    @property
    def _rows(self) -> Rows:
        return self.summary + [("warning", text) for text in self.warnings]

    def __str__(self) -> str:
        return text_lines(self._rows)

    def _repr_html_(self) -> str:
        return html_table(self._rows)


class Progress(Struct, frozen=True, kw_only=True):
    """The state of any export while it runs. As text it is one line for a person.

    Attributes:
        stage: the part of the work that is under way.
        resumed: items that earlier runs had received.
        finished: items written to the output, or read for it, in the last stage.
        joins, joined, joins_resumed, joins_throttled, joins_wait_until: as in `ExportProgress`.
        requests, retries: as in `Report`.
        in_flight, slots: requests of the session in flight now, and the most there can be.
        throttled: whether the service refuses every request at present, for a rate limit.
        waits_until: Unix time, in seconds, until which no request is sent for that reason; None if
            it is unknown, because the service does not name it.
        seconds: time since this run began, without that in which its event loop or its process
            stood still for more than 5 s.
        started_at: Unix time, in seconds, at which this run began: the same in all its reports.
        output: the file, or the address of the table, without credentials.
        complete: whether the output is in place. Only the last report of a run that has succeeded
            has it.
        trouble: the last error after which a request of this run was repeated, as text; empty
            without one, and after 20 requests without another. An answer that the service is still
            preparing is one after 10 s.
    """

    unit: ClassVar[str]
    """The name of one item: "record" or "key"."""
    _fetching_in: ClassVar[str]

    stage: Literal["reading", "asking", "joining", "finishing"]
    resumed: int
    finished: int
    joins: int | None = None
    joined: int | None = None
    joins_resumed: int | None = None
    joins_throttled: bool = False
    joins_wait_until: float | None = None
    requests: int
    retries: int
    in_flight: int
    slots: int
    seconds: float
    throttled: bool = False
    waits_until: float | None = None
    started_at: float = 0.0
    output: str = ""
    complete: bool = False
    trouble: str = ""

    @property
    def fetching(self) -> bool:
        """True in the stages that wait for a service."""
        return self.stage in (self._fetching_in, "joining")

    @property
    def _received(self) -> int:
        """Items received from the service, by earlier runs as well."""
        raise NotImplementedError

    @property
    def _expected(self) -> int | None:
        """Items that the service will send in all, or None if unknown."""
        raise NotImplementedError

    @property
    def done(self) -> int:
        """Items that this stage has finished."""
        raise NotImplementedError

    @property
    def goal(self) -> int | None:
        """Items that this stage has to finish, or None if unknown."""
        raise NotImplementedError

    @property
    def wait(self) -> str:
        """The wait for a rate limit, as text; empty if there is none, or nothing left to ask."""
        waits: list[str] = []
        if self.throttled and self.fetching and not self._is_received:
            waits.append(_wait("the rate limit", self.waits_until))
        if self.joins_throttled and self.fetching and self.joined != self.joins:
            waits.append(_wait("Alta's rate limit", self.joins_wait_until))
        return ", ".join(waits)

    @property
    def _is_received(self) -> bool:
        """True once the service is asked for nothing more."""
        raise NotImplementedError

    @property
    def outcomes(self) -> dict[str, int]:
        """Number of items received so far by the name of their outcome; empty with one outcome."""
        return {}

    @property
    def pace(self) -> float:
        """Items received per second of this run."""
        received, resumed, _ = self._fetched
        # A restarted chain takes away the records that this run had received of it.
        return max(received - resumed, 0) / self.seconds if self.seconds > 0 else 0.0

    @property
    def eta(self) -> float | None:
        """Seconds until the end of this stage, at the pace so far; None if unknown."""
        received, resumed, expected = self._fetched
        if expected is None or received <= resumed or self.seconds <= 0:
            return None
        return max(expected - received, 0) * self.seconds / (received - resumed)

    @property
    def _fetched(self) -> tuple[int, int, int | None]:
        """Items of this stage received in all, those of them by earlier runs, and the number due.

        While people are joined, items are joins.
        """
        if self.stage == "joining":
            return self.joined or 0, self.joins_resumed or 0, self.joins
        return self._received, self.resumed, self._expected

    @property
    def item(self) -> str:
        """The name of one item of this stage."""
        names = {"joining": "join", "finishing": self._unit_written}
        return names.get(self.stage, self.unit)

    @property
    def joining(self) -> str | None:
        """The number of joins made beside the other items of this stage, as text; or None."""
        if self.joins is None or self.joined is None or self.stage == "joining":
            return None
        return f"{self.joined:,} of {self.joins:,} joined"

    def __str__(self) -> str:
        unit = self.item
        part = share(self.done, self.goal)
        counted = numbered(self.done, unit)
        if self.goal is not None and part is not None:
            counted = f"{self.done:,} of {numbered(self.goal, unit)} ({percent(part)} %)"
        parts = [f"{self.stage}: {counted}"]
        if self.fetching:
            parts += [f"{count:,} {name}" for name, count in self.outcomes.items()]
            parts += [] if self.joining is None else [self.joining]
            parts += [
                f"{self.pace:,.0f} a second",
                f"{self.in_flight} of {numbered(self.slots, 'slot')}",
                *([self.wait] if self.wait else []),
                numbered(self.retries, "retry"),
            ]
        parts.append(clock(self.seconds))
        if self.fetching and self.eta is not None:
            parts.append(f"{clock(self.eta)} left")
        if self.fetching and self.trouble and not self.wait:
            # At the end, as its length varies.
            parts.append(f"retried: {self.trouble}")
        return ", ".join(parts)

    @property
    def _unit_written(self) -> str:
        return self.unit


class ExportReport(Report, frozen=True, kw_only=True):
    """The result of an export, including the runs it resumed.

    As text it is the summary that the command line prints, with the warnings; a notebook shows it
    as a table.

    Attributes:
        output: the file, or the address of the table, without credentials.
        manifest: the file that holds this report and the export's arguments; None if nothing has
            been written.
        format: "ndjson", "csv", "parquet", "duckdb" or "postgres".
        complete: whether everything is in the output. If not, there is no output yet.
        people: written to the output.
        records: received. There are more records than people where a person is in several chains.
        resumed: those of `records` that earlier runs had received.
        pages: received.
        chains: every chain, in the order in which their people count.
        requests: HTTP requests sent by all runs of this export, retries included. Of a run that was
            killed, those up to the last results that it kept.
        retries: those of them that repeated an earlier one, polls of a page or a count that was not
            ready included, which are no failures.
        seconds: time at work, without the breaks between runs.
        bytes: size of the output; None for a database server.
        sha256: the output's SHA-256 in hexadecimal digits; None for a database server.
        counted: event to the service's own count of its people over the whole range, as
            `profiles.count` returns it, where it was asked for and answered; None without. For
            everyone the one key is "everyone".
        matched, unmatched, failed: of a join, people with CDP users, people without any or without
            the key to look for, and people whose lookup failed; together `people`. None without
            `with_cdp`.
        failed_file: the file of the failed lookups of a join, NDJSON of `key`, `error` and
            `message`; None when there are none.
        mended: values that the output's format cannot hold as they were. What counts differs
            between formats; see the result of `Session.export`.
        mistyped: those of them that are null because they are of another type than their column,
            by the name of the column.
        absorbed: rows without an identity, of earlier runs, that were taken out of a table because
            a person with an identity now has their device.
        warnings: sentences on what may be wrong with a complete output, as in the log: fewer people
            than the service counts, or nobody at all.
        accounts: of an output of several accounts, as the command line writes them, the share of
            each by its name; else None. The other figures are sums then, and `seconds` is the
            longest.
    """

    people: int
    records: int
    resumed: int = 0
    pages: int
    chains: list[ChainStatus]
    counted: dict[str, int] | None = None
    matched: int | None = None
    unmatched: int | None = None
    failed: int | None = None
    failed_file: str | None = None

    @property
    def _is_resumed(self) -> bool:
        return self.resumed > 0

    @property
    def _figures(self) -> Rows:
        # The days of several accounts are in the share of each, because they can differ.
        days = "" if self.accounts else self._days
        return [
            *([("days", days)] if days else []),
            *_received(self.people, self.records, self.pages, self.resumed),
            *_joined(self.matched, self.unmatched, self.failed, self.failed_file),
            *(
                ("counted", f"{event}: {numbered(people, 'people')} by the service")
                for event, people in (self.counted or {}).items()
            ),
        ]

    @property
    def _share(self) -> str:
        figures = f"{numbered(self.people, 'people')}, {numbered(self.records, 'record')}"
        return f"{self._days}: {figures}" if self._days else figures

    @property
    def _days(self) -> str:
        """The range that was read, as text; empty for everyone."""
        ends = [end for one in self.chains for end in (one.start, one.end) if end is not None]
        if not ends:
            return ""
        first, last = (date_of(end) if is_day(end) else end for end in (min(ends), max(ends)))
        return _range(first, last)


class SyncReport(Report, frozen=True, kw_only=True):
    """The result of one run of `Session.sync`. As text: see `ExportReport`.

    Figures are sums over the exports of this run: of one for each unfinished work that it has
    finished, and of one for its own days.

    Attributes:
        output, manifest, format, requests, retries, seconds, bytes, sha256, mended, mistyped,
            absorbed, warnings: as in `ExportReport`. The manifest is that of the last export.
        complete: whether all days that are over are in the table, each person with the lookups of a
            join.
        since: the first day of the table.
        has_output: whether a sync has written the table, in this run or before. False while no day
            since the first one is over: `output` need not exist then.
        first, last: the first and the last day that this run has brought; None if it had none to
            bring.
        through: the last day that the table has; None if it has none yet.
        timezone: the time zone whose days they are.
        finished: unfinished exports of earlier runs that this run has finished.
        people: people brought. A person whom two exports bring is counted twice, and in a folder
            a person of several days once for each.
        records, pages: received.
        chains: every chain, in the order in which they were read.
        matched, unmatched, failed, failed_file: as in `ExportReport`.
    """

    since: date
    has_output: bool
    first: date | None
    last: date | None
    through: date | None
    timezone: str
    finished: int
    people: int
    records: int
    pages: int
    chains: list[ChainStatus]
    matched: int | None = None
    unmatched: int | None = None
    failed: int | None = None
    failed_file: str | None = None

    @property
    def _figures(self) -> Rows:
        has_days = self.first is not None
        none = "none, as the table has all of them" if self.complete else "none"
        if not self._names_output:
            none = f"none: {self._none_is_over}; nothing was written"
        rows = [("days", self.days if has_days else none)]
        if self.through is not None:
            rows.append(("through", f"{self.through}, by days of {self.timezone}"))
        if self.finished:
            rows.append(("finished", f"{numbered(self.finished, 'export')} of earlier runs"))
        if has_days:
            # A folder has a file for each day, with all people of the day.
            by_day = self.output.endswith("/")
            rows += _received(self.people, self.records, self.pages, by_day=by_day)
        return rows + _joined(self.matched, self.unmatched, self.failed, self.failed_file)

    @property
    def _names_output(self) -> bool:
        return self.has_output or not self.complete

    @property
    def _none_is_over(self) -> str:
        return f"no day since {self.since} is over yet, by days of {self.timezone}"

    @property
    def _share(self) -> str:
        if not self._names_output:
            return self._none_is_over
        through = "" if self.through is None else f", all days through {self.through}"
        return f"{self.days}: {numbered(self.people, 'people')}{through}"

    @property
    def days(self) -> str:
        """The days that this run has brought, as text."""
        if self.first is None or self.last is None:
            return "none"
        return _range(self.first, self.last)


class ExportProgress(Progress, frozen=True, kw_only=True):
    """The state of an export, as `on_progress` receives it. As text it is one line for a person.

    Attributes:
        stage: "reading" from the service; "joining", with `with_cdp`, what is left to be looked up
            after that; or "finishing": assembling the output.
        chains: every chain, in the order in which their people count.
        records: received so far, by earlier runs as well.
        total: records in all by the service's own count, or None.
        resumed: those of `records` that earlier runs had received.
        finished: those of them that have been read for the output.
        people: written to the output so far.
        joins: keys to look up for a join, of the records so far, each counted once; None without
            `with_cdp`.
        joined: those of them that have been looked up, in earlier runs as well.
        joins_resumed: those of them that earlier runs had looked up.
        joins_throttled, joins_wait_until: as `throttled` and `waits_until`, of Alta.
        requests, retries: as in `ExportReport`.
        in_flight, slots: requests of the session in flight now, and the most there can be.
        throttled: whether the service refuses every request at present, for a rate limit.
        waits_until: Unix time, in seconds, until which no request is sent for that reason; None if
            it is unknown, because the service does not name it.
        seconds: time since this run began, without that in which its event loop or its process
            stood still for more than 5 s.
        started_at: Unix time, in seconds, at which this run began: the same in all its reports.
        output: the file, or the address of the table, without credentials.
        complete: whether the output is in place. Only the last report of a run that has succeeded
            has it.
        trouble: the last error after which a request of this run was repeated, as text; empty
            without one, and after 20 requests without another. An answer that the service is still
            preparing is one after 10 s.
    """

    unit = "record"
    _fetching_in = "reading"

    stage: Literal["reading", "joining", "finishing"]
    chains: list[ChainStatus]
    records: int
    total: int | None
    people: int

    @property
    def _received(self) -> int:
        return self.records

    @property
    def _is_received(self) -> bool:
        return all(chain.done for chain in self.chains)

    @property
    def _expected(self) -> int | None:
        return self.total

    @property
    def done(self) -> int:
        """Records, or joins, that this stage has finished."""
        if self.stage == "joining":
            return self.joined or 0
        return self.records if self.stage == "reading" else self.finished

    @property
    def goal(self) -> int | None:
        """Records, or joins, that this stage has to finish, or None if unknown."""
        if self.stage == "joining":
            return self.joins
        return self.total if self.stage == "reading" else self.records


class LookupReport(Report, frozen=True, kw_only=True):
    """The result of a bulk lookup, including the runs it resumed. As text: see `ExportReport`.

    Attributes:
        output, manifest, format, requests, retries, seconds, bytes, sha256, mended, mistyped,
            absorbed, warnings, accounts: as in `ExportReport`.
        complete: whether every key has an answer that asking again would not change.
        keys: different keys in the source.
        resumed: those of `keys` that earlier runs had an answer to.
        repeated: repetitions of keys in the source; each key is asked for once.
        skipped: rows and objects without a key, and missing or blank values.
        found: keys with a person, who is in the output.
        not_found: keys that the service does not know.
        failed: keys without an answer, because the service failed or the key is refused.
        matched, unmatched, join_failed: of a join, as `matched`, `unmatched` and `failed` in
            `ExportReport`; together the people found. None without `with_cdp`.
        not_found_file: the file of the keys not found, one a line; None when there are none.
        failed_file: the file of the failed keys, NDJSON of `key`, `error` and `message`; then of
            the failed lookups of a join, with `"join": true`. None when there are none.
    """

    keys: int
    resumed: int = 0
    repeated: int
    skipped: int = 0
    found: int
    not_found: int
    failed: int
    matched: int | None = None
    unmatched: int | None = None
    join_failed: int | None = None
    not_found_file: str | None = None
    failed_file: str | None = None

    @property
    def _is_resumed(self) -> bool:
        return self.resumed > 0

    @property
    def _figures(self) -> Rows:
        others = [
            (self.repeated, "repeated"),
            (self.skipped, "without a key, which were skipped"),
        ]
        texts = [f"{count:,} {words}" for count, words in others if count]
        also = f", and {' and '.join(texts)}" if texts else ""
        earlier = f", {self.resumed:,} of them answered in earlier runs" if self.resumed else ""
        each = f", in {len(self.accounts)} accounts together" if self.accounts else ""
        return [
            ("keys", f"{self.keys:,}{each}{earlier}{also}"),
            ("found", f"{self.found:,}"),
            ("not found", f"{self.not_found:,}{beside(self.not_found_file)}"),
            ("failed", f"{self.failed:,}{beside(self.failed_file) if self.failed else ''}"),
            *_joined(self.matched, self.unmatched, self.join_failed, self.failed_file),
        ]

    @property
    def _share(self) -> str:
        texts = [f"{self.found:,} of {numbered(self.keys, 'key')} found"]
        files = (("not found", self.not_found_file), ("failed", self.failed_file))
        texts += [f"{words}: {path_text(file)}" for words, file in files if file is not None]
        return "; ".join(texts)


class LookupProgress(Progress, frozen=True, kw_only=True):
    """The state of a bulk lookup, as `on_progress` receives it. As text it is one line.

    Attributes:
        stage: "reading" the keys, "asking" the service, "joining" as in `ExportProgress`, or
            "finishing": assembling the output.
        keys: read so far, each counted once.
        found, not_found, failed: keys with that outcome so far, in earlier runs as well.
        resumed: keys that earlier runs had an answer to.
        finished: people written to the output so far.
        joins, joined, joins_resumed, joins_throttled, joins_wait_until: as in `ExportProgress`.
        requests, retries, in_flight, slots, throttled, waits_until, seconds, started_at, output,
            complete, trouble: as in `ExportProgress`.
    """

    unit = "key"
    _fetching_in = "asking"

    keys: int
    found: int
    not_found: int
    failed: int

    @property
    def answered(self) -> int:
        """Keys with an answer."""
        return self.found + self.not_found + self.failed

    @property
    def _received(self) -> int:
        return self.answered

    @property
    def _is_received(self) -> bool:
        return self.answered >= self.keys

    @property
    def _expected(self) -> int | None:
        """Keys in all, or None while they are read."""
        return None if self.stage == "reading" else self.keys

    @property
    def done(self) -> int:
        """Items this stage has finished: keys, or people while finishing."""
        if self.stage == "finishing":
            return self.finished
        if self.stage == "joining":
            return self.joined or 0
        return self.keys if self.stage == "reading" else self.answered

    @property
    def goal(self) -> int | None:
        """Items this stage has to finish, or None if unknown."""
        if self.stage == "joining":
            return self.joins
        return self.found if self.stage == "finishing" else self._expected

    @property
    def pace(self) -> float:
        """Keys answered per second of this run; 0 while they are read."""
        return 0.0 if self.stage == "reading" else super().pace

    @property
    def outcomes(self) -> dict[str, int]:
        """Number of keys so far by the name of their outcome."""
        return {"found": self.found, "not found": self.not_found, "failed": self.failed}

    @property
    def _unit_written(self) -> str:
        return "people"


def _range(first: date | int, last: date | int) -> str:
    return str(first) if first == last else f"{first} to {last}"


def _received(
    people: int, records: int, pages: int, resumed: int = 0, *, by_day: bool = False
) -> Rows:
    daily = ", each once a day" if by_day else ""
    earlier = f", {resumed:,} of them in earlier runs" if resumed else ""
    return [
        ("people", f"{people:,}{daily}"),
        ("records", f"{records:,} on {numbered(pages, 'page')}{earlier}"),
    ]


def _joined(
    matched: int | None, unmatched: int | None, failed: int | None, failed_file: str | None
) -> Rows:
    """Return the row of a join, if there was one."""
    if matched is None or unmatched is None or failed is None:
        return []
    counts = f"{matched:,} with users at Alta, {unmatched:,} without, {failed:,} failed"
    return [("joined", f"{counts}{beside(failed_file) if failed else ''}")]


def _wait(limit: str, at: float | None) -> str:
    until = "" if at is None else f" until {moment(at, time.time())}"
    return f"waiting for {limit}{until}"
