"""The times at which a service may be asked: for all of its callers together. Pure.

Clock readings are passed in. Nothing here waits or sends.
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Pace"]


class Pace:
    """When the next request to a service may start.

    The rules, and the reason for each:

    1. *Two refusals close together close the service; one alone does not.* Beyond a rate, every
       request is refused. A refusal with another reason comes alone, and concerns its own call.
    2. *A closed service is asked by one request at a time.* The wait between two of them doubles
       from `floor` up to `ceiling`, because a rate limit lasts minutes. It reaches a quarter of a
       second in any case, because bulk work goes on asking for minutes. The first request that is
       not refused opens the service for all.
    3. *The rate that the service took is learned.* The requests it answered from one opening to the
       next, in that time, are what its limit lets through. They are then spread evenly, at a
       rate that grows while nothing is refused. Only an episode of at most 90 seconds counts,
       because limits without a header are limits per minute, and a service that is closed for
       another reason must not be slow afterwards.
    4. *A service that says how many requests remain is believed*, and the rate is not learned: with
       none left, nothing starts before the reset.

    Args:
        floor: seconds between the first two requests to a closed service.
        ceiling: most seconds between two of them.
        per_minute: most starts per minute, spread evenly, or None. A burst and the refill after it
            would reach twice the rate within one minute.
        jitter: returns a number in [0, 1), such as `random.random`.

    Attributes:
        closings: number of times that the service was closed.
        closed_since: the clock reading when it was closed, or None while it is open.
        named_until: the clock reading until which the service itself said to wait, or None.
        in_flight: requests begun and not ended.
        opened: called when requests may start earlier than `wait` returned.
    """

    LEAST_FLOOR, LEAST_CEILING = 0.001, 0.25
    SIGNS = 2.0
    FADING = 0.1  # of a sign, for each success
    EPISODE = 90.0  # seconds
    IDLE = 10.0  # seconds without a request that begin a new episode
    FEWEST = 10  # answered requests that show a rate
    SLOWEST = 1.15  # of the interval that was learned, after refusals that stay far apart
    SAFE = 0.97  # of a rate that was refused
    LONGEST_RUN = 8  # episodes without a refusal before the rate grows

    def __init__(
        self,
        *,
        floor: float = 0.5,
        ceiling: float = 30.0,
        per_minute: int | None = None,
        jitter: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._floor = max(floor, self.LEAST_FLOOR)
        self._ceiling = max(self._floor, ceiling, self.LEAST_CEILING)
        self._jitter = jitter
        self._least = 0.0 if per_minute is None else 60 / per_minute
        self.closings = 0
        self.closed_since: float | None = None
        self.named_until: float | None = None
        self.in_flight = 0
        self.opened: list[Callable[[], None]] = []
        self._next = self._last = 0.0
        self._signs = 0.0
        # Of a closed service.
        self._gap = 0.0
        self._refused_at = 0.0
        self._is_rate = True
        # Of the episode: since the service was last opened.
        self._began: float | None = None
        self._answered = 0
        # The rate that was learned.
        self._interval = self._estimate = self._slowest = 0.0
        self._growth = 0.0
        self._runs = 1
        self._run = 0
        self._in_run = 0
        # Of the service's own words.
        self._left: int | None = None
        self._resets = 0.0

    @property
    def is_free(self) -> bool:
        """True if a request may start at any time."""
        return (
            self.closed_since is None
            and self._left is None
            and self._least == 0
            and self._interval == 0
        )

    def wait(self, now: float) -> float:
        """Return the seconds until the next request may start, 0 for now."""
        if self._left is not None and now >= self._resets:
            self._left = self.named_until = None
        start = self._next
        if self._left is not None and self._left <= self.in_flight:
            # An answer to a request in flight may tell of more room.
            start = max(start, self._resets)
        return max(0.0, start - now)

    def begin(self, now: float) -> int:
        """Count the start of a request; return the value that `refused` and `succeeded` take."""
        is_idle = self.in_flight == 0 and now - self._last > self.IDLE
        if self._began is None or (is_idle and self.closed_since is None):
            self._began, self._answered = now, 0
        self._last = now
        self.in_flight += 1
        is_closed = self.closed_since is not None
        self._next = now + (self._gap if is_closed else max(self._least, self._interval))
        return self.closings

    def end(self) -> None:
        """Count the end of a request."""
        self.in_flight -= 1
        if self._left is not None:
            # Of those that are left, a request in flight keeps one.
            self._wake()

    def succeeded(self, began: int, now: float) -> None:
        """Count an answer that was not refused."""
        self._signs = max(0.0, self._signs - self.FADING)
        if self.closed_since is not None:
            # Answers to requests from before tell nothing of the present.
            if began == self.closings:
                self._open(now)
            return
        self._answered += 1
        if self._interval:
            self._count_towards_growth()

    def refused(
        self, began: int, now: float, *, retry_after: float | None = None, is_rate: bool = True
    ) -> bool:
        """Count a refusal; return whether the service has just been closed because of it.

        Args:
            began: the value that `begin` returned for the request.
            now: a clock reading.
            retry_after: the wait that the service asks for, in seconds.
            is_rate: whether the refusal shows a rate, which can be learned.
        """
        requested = retry_after or 0.0
        if self.closed_since is not None:
            if began == self.closings:
                self._refused_at = now
                self._gap = min(2 * self._gap, self._ceiling)
            self._defer(now, requested)
            return False
        self._signs += 1
        if self._signs < self.SIGNS:
            if is_rate and self._interval:
                # At a rate that is a little too high, refusals stay far apart.
                slower = min(self._interval / self.SAFE, self.SLOWEST * self._estimate)
                self._interval = max(self._interval, slower)
                self._growth = 1.05
                self._runs = min(2 * self._runs, self.LONGEST_RUN)
            return False
        self.closings += 1
        self.closed_since = self._refused_at = now
        self._is_rate = is_rate
        self._gap = self._floor
        self._defer(now, requested)
        return True

    def learn(self, remaining: int, reset_in: float, now: float) -> None:
        """Believe the service: `remaining` requests may start within the next `reset_in` seconds.

        Requests in flight may or may not be counted in it. They are taken as not counted.
        """
        resets = now + reset_in
        if self._left is not None and abs(resets - self._resets) < 1 and now < self._resets:
            # Answers overtake each other.
            self._left = min(self._left, remaining)
        else:
            self._left, self._resets = remaining, resets
        self._interval = 0.0
        self.named_until = self._resets if self._left == 0 else None

    def _defer(self, now: float, requested: float) -> None:
        shortest = self._gap * (1 - self._jitter() / 4)
        self._next = max(self._next, now + max(shortest, requested))
        self.named_until = now + requested if requested >= 1 else self.named_until

    def _open(self, now: float) -> None:
        began = self._began if self._began is not None else now
        # It opened at some time between the last refusal and now.
        length = (self._refused_at + now) / 2 - began
        if (
            self._is_rate
            and self._left is None
            and (self._answered >= self.FEWEST or self._interval > 0)
            and now - began <= self.EPISODE
        ):
            self._set_rate(
                min(length / max(self._answered, 1), self.EPISODE / self.FEWEST), is_episode=True
            )
        elif self._interval:
            self._set_rate(self._interval, is_episode=False)
        self.closed_since = self.named_until = None
        self._signs = 0.0
        self._began = now
        self._answered = 1
        self._next = now + max(self._least, self._interval)
        self._wake()

    def _wake(self) -> None:
        for callback in self.opened:
            callback()

    def _set_rate(self, interval: float, *, is_episode: bool) -> None:
        known = self._interval
        if known and self._answered < self.FEWEST:
            # Too few to show a rate, but the known one was refused.
            interval = max(interval, known)
        # The first estimate comes from a burst. A later one like it has been tried, so a little
        # less is safe.
        is_confirmed = known > 0 and 2 / 3 < interval / known < 3 / 2
        self._interval = interval / self.SAFE if is_confirmed else interval
        self._growth = 1.05 if is_confirmed else 1.25
        self._runs = min(2 * self._runs, self.LONGEST_RUN) if is_confirmed else 1
        self._estimate = self._interval
        self._slowest = max(self._slowest, self._interval)
        if is_episode:
            self._run = max(self.FEWEST, self._run, self._answered)
        self._in_run = 0

    def _count_towards_growth(self) -> None:
        self._in_run += 1
        if self._in_run < self._run * self._runs:
            return
        self._in_run = 0
        self._interval /= self._growth
        # The longer that nothing is refused, the less the rate that was learned still matters.
        self._growth = min(2.0, 1 + 2 * (self._growth - 1))
        self._runs = max(1, self._runs // 2)
        if self._interval < self._slowest / 16:
            self._interval = self._slowest = 0.0
            self._runs, self._run = 1, 0
