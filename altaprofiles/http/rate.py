"""The rate that a service takes, learned from its refusals. Pure.

Clock readings are passed in.
"""

from __future__ import annotations

import math

from msgspec import Struct

__all__ = ["Learned", "Rate"]


class Learned(Struct, array_like=True, frozen=True):
    """All that a `Rate` knows, as plain values: what several processes share of it."""

    interval: float = 0.0
    estimate: float = 0.0
    length: float = 0.0
    since: float = 0.0
    due: float = 0.0
    growth: float = 0.0
    grown: float = 1.0
    proofs: int = 0
    runs: int = 0
    most: int = 0
    answered: int = 0
    strays: int = 0
    before: float = math.inf
    base: float = 0.0
    failures: int = 0
    doubts: bool = False


class Rate:
    """The seconds between two requests that a service has been seen to take.

    An *episode* is the time from one opening of the service to the next. The requests that it
    answered in that time are what its limit lets through. But an outage looks the same at first. So
    a first estimate doubles every few seconds while nothing closes the service. A limit closes it
    soon, and the next estimate is like the first. Each such proof makes the rate grow later, and in
    smaller steps. The growth takes time only, whatever is asked: a rate that no refusal has proved
    again is forgotten after some ten times the length of its episode, or after less than half a
    minute if it was never proved. If several rates in a row only brought fewer answers, the
    refusals have another reason, and no rate is kept.

    Attributes:
        interval: seconds between two requests, 0 while no rate is known.
        since: the clock reading at which it was learned first, 0 while no rate is known.
    """

    SAFE = 0.97  # of a rate that was refused
    SLOWEST = 1.5  # of the interval that was learned, after refusals that stay far apart
    LARGEST_STEP = 1.1  # by which one such refusal slows down
    ALIKE = 1.5  # quotient below which two estimates prove each other
    GROWTH = (2.0, 1.25, 1.05, 1.05, 1.05)  # of the first step, by the number of proofs
    RUNS = (0, 1, 2, 4, 5)  # lengths of an episode before that step; with no proof `FIRST`
    FIRST = 5.0  # most seconds before each step of a rate without a proof
    LARGEST_GROWTH = 2.0
    FORGOTTEN = 16  # growth after which the rate no longer matters
    LONGEST = 90.0  # seconds that an episode counts for
    SIGNS = 4  # fewest strays that prove a rate
    STRAYS = 0.05  # most strays, for each answered request, of an episode that leaves no doubt
    MANY = 0.2  # strays, for each answered request, that have nothing to do with the rate
    FAILURES = 3  # rates in a row that brought less, and no fewer refusals
    LESS = 0.9  # of the answers, which counts as less

    def __init__(self) -> None:
        self.learned = Learned()

    @property
    def learned(self) -> Learned:
        """All that is known. A `Rate` that has learned the same decides the same from here on."""
        return Learned(
            interval=self.interval,
            estimate=self._estimate,
            length=self._length,
            since=self.since,
            due=self._due,
            growth=self._growth,
            grown=self._grown,
            proofs=self._proofs,
            runs=self._runs,
            most=self._most,
            answered=self._answered,
            strays=self._strays,
            before=self._before,
            base=self._base,
            failures=self._failures,
            doubts=self._doubts,
        )

    @learned.setter
    def learned(self, learned: Learned) -> None:
        self.interval = learned.interval
        self._estimate = learned.estimate
        self._length = learned.length  # of the episode, in seconds
        self.since = learned.since
        self._due = learned.due  # the clock reading of the next growth
        self._growth = learned.growth
        self._grown = learned.grown  # by which the rate has grown last
        self._proofs = learned.proofs  # estimates in a row that were alike, but for the first
        self._runs = learned.runs
        self._most = learned.most  # answers of one episode
        self._answered = learned.answered  # since the rate was learned or has grown
        self._strays = learned.strays  # as well
        self._before = learned.before  # strays for each answer before it grew
        self._base: float = learned.base  # the interval before it grew
        self._failures = learned.failures
        self._doubts = learned.doubts  # that refusals have to do with the rate

    def learn(self, length: float, now: float, *, answered: int, strays: int) -> None:
        """Learn from an episode.

        Args:
            length: its seconds.
            now: a clock reading.
            answered: number of requests that were answered in it.
            strays: refusals among requests that were served.
        """
        interval = length / answered
        if strays <= self.STRAYS * answered:
            self._failures, self._doubts = 0, False
        elif self.interval and interval > self._estimate / self.LESS:
            self._failures += 1
        else:
            self._failures = 0
        if self._failures == self.FAILURES:
            self._failures, self._doubts = 0, True
            self._forget()
        elif not self._doubts:
            self._set(interval, length, now, answered)

    def _set(self, interval: float, length: float, now: float, answered: int) -> None:
        known = self.interval
        is_proof = known > 0 and 1 / self.ALIKE < interval / self._estimate < self.ALIKE
        if is_proof and interval > known / self.SAFE:
            # It has been tried, so a little less is safe.
            interval /= self.SAFE
        self.interval = self._estimate = interval
        self._most = max(self._most, answered)
        self._length = max(length, min(self._most * interval, self.LONGEST))
        self.since = self.since or now
        self._proofs = min(self._proofs + 1, len(self.RUNS) - 1) if is_proof else 0
        self.restart(now)

    def restart(self, now: float) -> None:
        """Begin the time without a refusal, after which the rate grows."""
        self._answered = self._strays = 0
        self._before = math.inf
        self._hold(now)

    def _hold(self, now: float) -> None:
        self._growth, self._grown = self.GROWTH[self._proofs], 1.0
        self._runs = self.RUNS[self._proofs]
        self._due = now + self._pause

    @property
    def _pause(self) -> float:
        """The seconds before the next growth."""
        if not self._proofs:
            return self.FIRST
        # A limit refuses a faster rate sooner.
        return self._runs * self._length * self.interval / self._estimate

    def _forget(self) -> None:
        self.interval = self.since = 0.0
        self._proofs = self._most = 0

    def refused(self, now: float) -> None:
        """Slow down after a refusal among successes: the rate is a little too high."""
        if not self.interval:
            return
        are_many = self._strays > 1 and self._strays > 2 * self.STRAYS * self._answered
        largest = self.LARGEST_STEP if are_many else min(self._grown, self.LARGEST_STEP)
        slower = self.interval * max(1 / self.SAFE, largest)
        slower = min(slower, self.SLOWEST * self._estimate)
        self.interval = max(self.interval, slower)
        self._grown = 1.0
        # Refusals that came before it grew as well may have any reason.
        if self._proofs and self._before < math.inf:
            self._hold(now)

    def answered(self, strays: int, now: float) -> None:
        """Count a request that was answered, and the refusals before it that closed nothing."""
        self._answered += 1
        self._strays += strays
        if self._proofs:
            is_proof = strays > 0 and self._before <= self.STRAYS
        else:
            # Such refusals may have any reason. Many more of them than before are a proof.
            most = (self.STRAYS + 2 * self._before) * self._answered
            is_proof = self._strays >= self.SIGNS and self._strays > most
        if is_proof:
            if not self._proofs:
                self.interval = self._estimate = max(self.interval, self._base)
            self._proofs = min(self._proofs + 1, len(self.RUNS) - 1)
            self.restart(now)

    def grow(self, now: float) -> None:
        """Take the growth up to `now`."""
        while self.interval and now >= self._due:
            self.interval /= self._growth
            self._grown = self._growth
            # The longer that nothing is refused, the less the rate that was learned still matters.
            self._growth = min(self.LARGEST_GROWTH, 1 + 1.5 * (self._growth - 1))
            self._runs = max(1, self._runs // 2)
            self._due += self._pause
            if self._before == math.inf:
                self._base = self.interval * self._grown
            self._before = self._strays / max(1, self._answered)
            self._answered = self._strays = 0
            if self._proofs and self._before > self.MANY:
                self._doubts = True
                self._forget()
            elif self.interval < self._estimate / self.FORGOTTEN:
                self._forget()
