"""The rate that a service takes, learned from its refusals. Pure.

Clock readings are left to `Pace`; here are only numbers of requests, and seconds between them.
"""

from __future__ import annotations

from msgspec import Struct

__all__ = ["Learned", "Rate"]


class Learned(Struct, array_like=True, frozen=True):
    """All that a `Rate` knows, as plain values: what several processes share of it."""

    interval: float = 0.0
    estimate: float = 0.0
    slowest: float = 0.0
    growth: float = 0.0
    grown: float = 1.0
    runs: int = 1
    run: int = 0
    in_run: int = 0
    failures: int = 0
    doubts: bool = False


class Rate:
    """The seconds between two requests that a service has been seen to take.

    An *episode* is the time from one opening of the service to the next. The requests that it
    answered in that time are what its limit lets through. At that rate it should refuse nothing, so
    the rate grows while nothing is refused: soon after a first estimate, which comes from a burst,
    and ever later for one that has been confirmed. If several rates in a row only brought fewer
    answers, the refusals have another reason, and no rate is kept.

    Attributes:
        interval: seconds between two requests, 0 while no rate is known.
    """

    SAFE = 0.97  # of a rate that was refused
    SLOWEST = 1.5  # of the interval that was learned, after refusals that stay far apart
    LARGEST_STEP = 1.1  # by which one such refusal slows down
    ALIKE = 1.5  # quotient below which two estimates confirm each other
    FIRST_GROWTH, LATER_GROWTH, LARGEST_GROWTH = 1.25, 1.05, 2.0
    LONGEST_RUN = 5  # episodes without a refusal before the rate grows
    FORGOTTEN = 16  # growth after which the rate no longer matters
    STRAYS = 0.05  # most strays, for each answered request, of an episode that leaves no doubt
    FAILURES = 3  # rates in a row that brought less, and no fewer refusals
    LESS = 0.9  # of the answers, which counts as less

    def __init__(self) -> None:
        self.interval = self._estimate = self._slowest = 0.0
        self._growth = 0.0
        self._grown = 1.0  # by which the rate has grown last
        self._runs = 1
        self._run = 0
        self._in_run = 0
        self._failures = 0
        self._doubts = False  # that refusals have to do with the rate

    @property
    def learned(self) -> Learned:
        """All that is known. A `Rate` that has learned the same decides the same from here on."""
        return Learned(
            interval=self.interval,
            estimate=self._estimate,
            slowest=self._slowest,
            growth=self._growth,
            grown=self._grown,
            runs=self._runs,
            run=self._run,
            in_run=self._in_run,
            failures=self._failures,
            doubts=self._doubts,
        )

    @learned.setter
    def learned(self, learned: Learned) -> None:
        self.interval = learned.interval
        self._estimate = learned.estimate
        self._slowest = learned.slowest
        self._growth = learned.growth
        self._grown = learned.grown
        self._runs = learned.runs
        self._run = learned.run
        self._in_run = learned.in_run
        self._failures = learned.failures
        self._doubts = learned.doubts

    def learn(self, interval: float, *, answered: int, strays: int) -> None:
        """Learn from an episode.

        Args:
            interval: seconds of the episode for each request that was answered.
            answered: number of these.
            strays: refusals among requests that were served.
        """
        if strays <= self.STRAYS * answered:
            self._failures, self._doubts = 0, False
        elif self.interval and interval > self._estimate / self.LESS:
            self._failures += 1
        else:
            self._failures = 0
        if self._failures == self.FAILURES:
            self.interval, self._failures, self._doubts = 0.0, 0, True
        elif not self._doubts:
            self._set(interval, answered)

    def _set(self, interval: float, answered: int) -> None:
        known = self.interval
        is_confirmed = known > 0 and 1 / self.ALIKE < interval / known < self.ALIKE
        if is_confirmed and interval > known / self.SAFE:
            # It has been tried, so a little less is safe.
            interval /= self.SAFE
        self.interval = self._estimate = interval
        self._growth = self.LATER_GROWTH if is_confirmed else self.FIRST_GROWTH
        self._grown = 1.0
        self._runs = min(2 * self._runs, self.LONGEST_RUN) if is_confirmed else 1
        self._slowest = max(self._slowest, interval)
        self._run = max(self._run, answered)
        self._in_run = 0

    def refused(self) -> None:
        """Slow down after a refusal among successes: the rate is a little too high."""
        if not self.interval:
            return
        slower = self.interval * max(1 / self.SAFE, min(self._grown, self.LARGEST_STEP))
        slower = min(slower, self.SLOWEST * self._estimate)
        self.interval = max(self.interval, slower)
        self._grown = 1.0
        self._growth = self.LATER_GROWTH
        self._runs = min(2 * self._runs, self.LONGEST_RUN)

    def answered(self) -> None:
        """Count a request that was answered, towards the growth of the rate."""
        if not self.interval:
            return
        self._in_run += 1
        if self._in_run < self._run * self._runs:
            return
        self._in_run = 0
        self.interval /= self._growth
        self._grown = self._growth
        # The longer that nothing is refused, the less the rate that was learned still matters.
        self._growth = min(self.LARGEST_GROWTH, 1 + 1.5 * (self._growth - 1))
        self._runs = max(1, self._runs // 2)
        if self.interval < self._slowest / self.FORGOTTEN:
            self.interval = self._slowest = 0.0
            self._runs, self._run = 1, 0
