"""What exports tell: while they run, at their end, and in the manifest beside the output."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from ..base.wording import clock, numbered, percent, share

if TYPE_CHECKING:
    pass

__all__ = [
    "ChainStatus",
    "ExportProgress",
    "ExportReport",
    "LookupProgress",
    "LookupReport",
]


class ChainStatus(Struct, frozen=True):
    """How far one chain is.

    Attributes:
        event: whom it brings: everyone who did this,
        start, end: from the one to the other, inclusive, as sent to the service.
        records, pages: how many are on disk.
        done: whether its last page is.
        restarts: how often it had to begin again, because the service refused its cursor.
        counted: how many records it will bring by the service's own count, or None.
    """

    event: str
    start: int
    end: int
    records: int
    pages: int
    done: bool
    restarts: int
    counted: int | None = None


class ExportReport(Struct, frozen=True, kw_only=True):
    """What an export came to, earlier runs that it went on from included.

    Attributes:
        output: the file, or the address of the table, without credentials.
        manifest: the file that says all this, too, and what was asked for.
        format: "ndjson", "csv", "parquet", "duckdb" or "postgres".
        complete: whether everything is in the output. If not, there is no output yet.
        people: written to the output.
        records: received. There are more of them than people where somebody is in several chains.
        pages: received.
        chains: each of them, in the order in which they count.
        requests, retries: HTTP requests, and those among them that had to be asked again.
        seconds: of work, breaks between runs not included.
        bytes: size of the output; None for a database server.
        sha256: its digest, as hexadecimal digits; None for a database server.
        counted: event to the service's own count of its people, if it was asked for and answered.
        mended: texts that the output's format cannot hold as they were; see `Session.export`.
    """

    output: str
    manifest: str
    format: str
    complete: bool
    people: int
    records: int
    pages: int
    chains: list[ChainStatus]
    requests: int
    retries: int
    seconds: float
    bytes: int | None = None
    sha256: str | None = None
    counted: dict[str, int] | None = None
    mended: int = 0


class ExportProgress(Struct, frozen=True, kw_only=True):
    """Where an export is, as `on_progress` receives it; as text, a line for a person.

    Attributes:
        stage: "reading" from the service, or "finishing": putting the output together.
        chains: each of them, in the order in which they count.
        records: received so far, by earlier runs as well.
        total: how many there will be by the service's own count, or None.
        resumed: how many of `records` earlier runs had received.
        finished: how many of them have been gone through for the output.
        people: written to the output so far.
        requests, retries: as in `ExportReport`.
        in_flight, slots: requests of the session under way now, and how many may be.
        seconds: since this run began.
    """

    stage: Literal["reading", "finishing"]
    chains: list[ChainStatus]
    records: int
    total: int | None
    resumed: int
    finished: int
    people: int
    requests: int
    retries: int
    in_flight: int
    slots: int
    seconds: float

    @property
    def fetching(self) -> bool:
        """Whether it is the service that this stage waits for."""
        return self.stage == "reading"

    @property
    def done(self) -> int:
        """How many records this stage is through with."""
        return self.records if self.stage == "reading" else self.finished

    @property
    def goal(self) -> int | None:
        """How many records this stage has, or None if unknown."""
        return self.total if self.stage == "reading" else self.records

    @property
    def pace(self) -> float:
        """Records received per second of this run."""
        return _pace(self.records - self.resumed, self.seconds)

    @property
    def eta(self) -> float | None:
        """Seconds until everything has been received, at the pace so far; None if unknown."""
        return _eta(self.total, self.records, self.resumed, self.seconds)

    def __str__(self) -> str:
        return _line(self, "record")


class LookupReport(Struct, frozen=True, kw_only=True):
    """What a bulk lookup came to, earlier runs that it went on from included.

    Attributes:
        output, manifest, format, bytes, sha256, mended, requests, retries, seconds: as in
            `ExportReport`.
        complete: whether each key has an answer that asking again would not change.
        keys: different keys in the source.
        repeated: keys of the source that had been in it before; they are asked once.
        found: keys with a person, each of whom is in the output.
        not_found: keys that the service does not know.
        failed: keys without an answer: the service failed, or refuses the key.
        not_found_file: where those are, a key a line; None when there is none.
        failed_file: where those are, NDJSON of `key`, `error` and `message`; None likewise.
    """

    output: str
    manifest: str
    format: str
    complete: bool
    keys: int
    repeated: int
    found: int
    not_found: int
    failed: int
    requests: int
    retries: int
    seconds: float
    bytes: int | None = None
    sha256: str | None = None
    mended: int = 0
    not_found_file: str | None = None
    failed_file: str | None = None


class LookupProgress(Struct, frozen=True, kw_only=True):
    """Where a bulk lookup is, as `on_progress` receives it; as text, a line for a person.

    Attributes:
        stage: "reading" the keys, "asking", or "finishing": putting the output together.
        keys: read so far, each counted once.
        found, not_found, failed: keys with that answer so far, by earlier runs as well.
        resumed: how many keys earlier runs had an answer to.
        finished: how many people have been written to the output.
        requests, retries, in_flight, slots, seconds: as in `ExportProgress`.
    """

    stage: Literal["reading", "asking", "finishing"]
    keys: int
    found: int
    not_found: int
    failed: int
    resumed: int
    finished: int
    requests: int
    retries: int
    in_flight: int
    slots: int
    seconds: float

    @property
    def fetching(self) -> bool:
        """Whether it is the service that this stage waits for."""
        return self.stage == "asking"

    @property
    def answered(self) -> int:
        """How many keys have an answer."""
        return self.found + self.not_found + self.failed

    @property
    def done(self) -> int:
        """How many keys, or in the end people, this stage is through with."""
        if self.stage == "finishing":
            return self.finished
        return self.keys if self.stage == "reading" else self.answered

    @property
    def goal(self) -> int | None:
        """How many of them this stage has, or None if unknown."""
        if self.stage == "finishing":
            return self.found
        return None if self.stage == "reading" else self.keys

    @property
    def pace(self) -> float:
        """Keys answered per second of this run; 0 while they are read."""
        return 0.0 if self.stage == "reading" else _pace(self.answered - self.resumed, self.seconds)

    @property
    def eta(self) -> float | None:
        """Seconds until each key has its answer, at the pace so far; None if unknown."""
        total = None if self.stage == "reading" else self.keys
        return _eta(total, self.answered, self.resumed, self.seconds)

    def __str__(self) -> str:
        return _line(
            self,
            "people" if self.stage == "finishing" else "key",
            *(f"{count:,} {name}" for name, count in self.outcomes.items()),
        )

    @property
    def outcomes(self) -> dict[str, int]:
        """How many keys have each answer so far, by what it is called."""
        return {"found": self.found, "not found": self.not_found, "failed": self.failed}


def _line(at: ExportProgress | LookupProgress, what: str, *more: str) -> str:
    part = share(at.done, at.goal)
    counted = numbered(at.done, what)
    if at.goal is not None and part is not None:
        counted = f"{at.done:,} of {numbered(at.goal, what)} ({percent(part)} %)"
    parts = [f"{at.stage}: {counted}"]
    if at.fetching:
        parts += [
            *more,
            f"{at.pace:,.0f} a second",
            f"{at.in_flight} of {numbered(at.slots, 'slot')}",
            f"{at.retries:,} {'retry' if at.retries == 1 else 'retries'}",
        ]
    parts.append(clock(at.seconds))
    if at.fetching and at.eta is not None:
        parts.append(f"{clock(at.eta)} left")
    return ", ".join(parts)


def _pace(done: int, seconds: float) -> float:
    # A chain that begins again takes away what this run had received of it.
    return max(done, 0) / seconds if seconds > 0 else 0.0


def _eta(total: int | None, done: int, before: int, seconds: float) -> float | None:
    if total is None or done <= before or seconds <= 0:
        return None
    return max(total - done, 0) * seconds / (done - before)
