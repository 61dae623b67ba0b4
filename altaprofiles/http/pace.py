"""The times at which a service may be asked: for all of its callers together. Pure.

Clock readings are passed in. Nothing here waits or sends.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from msgspec import Struct

from .rate import Learned, Rate

__all__ = ["Pace", "Verdict"]


class Verdict(Struct, array_like=True, frozen=True):
    """The conclusions of a `Pace`, as plain values: all but its requests in flight.

    Times are readings of the clock that all processes of a machine have. `young` is the number of
    requests in flight, of all processes, that started after the service was closed.
    """

    turn: int = 0
    closed_since: float | None = None
    named_until: float | None = None
    next: float = 0.0
    last: float = 0.0
    closed_at: float = 0.0
    gap: float = 0.0
    trial: float = 0.0
    trial_until: float = 0.0
    refused_at: float = 0.0
    is_rate: bool = True
    streak: int = 0
    streak_began: float = 0.0
    ramp: int | None = None
    young: int = 0
    began: float | None = None
    answered: int = 0
    strays: int = 0
    left: int | None = None
    resets: float = 0.0
    learned_at: float = 0.0
    least: float = 0.0
    rate: Learned = Learned()


class Pace:
    """When the next request to a service may start.

    The rules, and the reason for each:

    1. *Four refusals close the service, if no request that started after the first of them was
       served, and fewer than these are still in flight.* Beyond a rate, every request is refused. A
       refusal with another reason comes among requests that are served, and concerns its own call.
    2. *A closed service is asked by one request at a time.* The wait between two of them doubles
       from `floor` up to `ceiling`, because a rate limit lasts minutes. It reaches a quarter of a
       second in any case, because bulk work goes on asking for minutes. One that has no answer for
       `PATIENCE` seconds is joined by another, and the wait doubles as well. The first request that
       is not refused opens the service: for two at a time, and with each answer for one more.
    3. *The rate that the service took is learned.* The requests it answered from one opening to the
       next, in that time, are what its limit lets through. They are then spread evenly, at a
       rate that grows with time: see `Rate`. An episode counts only if it took at most 90
       seconds, because limits without a header are limits per minute. It counts only if somebody
       asked in most of that time: otherwise the answers show what was asked for, and no limit.
       If three rates in a row only brought fewer answers, the refusals have another reason, and no
       rate is kept.
    4. *A service that says how many requests remain is believed*: with none left, nothing starts
       before the reset. A refusal with none left shows no rate. One with some left shows another
       limit beside the stated one.

    Args:
        floor: seconds between the first two requests to a closed service.
        ceiling: most seconds between two of them.
        per_minute: most starts per minute, spread evenly, or None. A burst and the refill after it
            would reach twice the rate within one minute.
        jitter: returns a number in [0, 1), such as `random.random`.

    Attributes:
        closed_since: the clock reading when it was closed, or None while it is open.
        was_closed: whether it has been closed, until `has_opened` says that it is open again.
        named_until: the clock reading until which the service itself said to wait, or None.
        opened: called when requests may start earlier than `wait` returned.
        elsewhere: requests in flight of other processes, as far as the service counts them.
        least: seconds between two starts, as `per_minute` has it; 0 without a limit.
    """

    LEAST_FLOOR, LEAST_CEILING = 0.001, 0.25
    SIGNS = 4  # refusals that close a service
    EPISODE = 90.0  # seconds
    IDLE = 10.0  # seconds without a request that begin a new episode
    FEWEST = 10  # answered requests that show a rate
    SLACK = 0.05  # seconds by which a start may be late without delaying the next
    IDLE_SHARE = 0.2  # most of an episode that shows a rate, in which nobody asked
    PATIENCE = 5.0  # seconds for the answer to a request that asks a closed service
    LONGEST = 600.0  # seconds after which one request asks, whatever the service said
    RAMP = 64  # requests in flight after which a service counts as open

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
        self.least = 0.0 if per_minute is None else 60 / per_minute
        self.closed_since: float | None = None
        self.was_closed = False
        self.named_until: float | None = None
        self.opened: list[Callable[[], None]] = []
        self.elsewhere = 0
        self._next = self._last = 0.0
        # A request is numbered by the clock, so that numbers of several processes have an order.
        self._starts = 0.0
        self._flying: set[float] = set()
        # The refusals since a request was served that started after the first of these.
        self._streak = 0
        self._streak_began = 0.0
        # Of a closed service.
        self._turn = 0  # times that it was closed or opened
        self._closed_at = 0.0
        self._gap = 0.0
        self._asked = 0.0  # the last request that asks it, until its outcome is counted
        self._asked_until = 0.0
        self._refused_at = 0.0
        self._is_rate = True
        # Most requests in flight, of a service that has just opened.
        self._ramp: int | None = None
        # Of the episode: since the service was last opened.
        self._began: float | None = None
        self._answered = 0
        self._strays = 0  # refusals among requests that were served
        self._idle = 0.0  # seconds in which nobody asked, although a request could have started
        self._heard = 0.0  # the last outcome
        self._rate = Rate()
        # Of the service's own words.
        self._left: int | None = None
        self._resets = self._learned_at = 0.0

    @property
    def in_flight(self) -> int:
        """Requests begun and not ended."""
        return len(self._flying)

    def has_opened(self) -> bool:
        """Return whether the service was closed and is open, once for each time."""
        if not self.was_closed or self.closed_since is not None:
            return False
        self.was_closed = False
        return True

    @property
    def rate_since(self) -> float:
        """The clock reading at which the present rate was learned first; 0 without one."""
        return self._rate.since

    def rate(self, now: float) -> float | None:
        """Return the learned rate, in requests per second, or None without one."""
        self._grow(now)
        return 1 / self._rate.interval if self._rate.interval else None

    def _grow(self, now: float) -> None:
        # The time in which a service refuses everything proves nothing.
        if self.closed_since is None:
            self._rate.grow(now)

    @property
    def is_free(self) -> bool:
        """True if a request may start at any time."""
        return (
            self.closed_since is None
            and self._ramp is None
            and not self._is_tight
            and self.least == 0
            and self._rate.interval == 0
        )

    def wait(self, now: float) -> float:
        """Return the seconds until the next request may start, 0 for now."""
        self._grow(now)
        start = self._next
        if self._is_tight:
            # An answer to a request in flight may tell of more room. A time far away may be wrong.
            start = max(start, min(self._resets, self._learned_at + self.LONGEST))
        idle = now - max(self._last, start)
        if self.closed_since is not None and idle > max(2 * self._gap, self.IDLE):
            # Nobody has asked for so long that the service may have opened long ago.
            self.closed_since = now
        if self._left is not None and now >= self._resets:
            self._left = self.named_until = None
        if self._ramp is not None and self._started_since() >= self._ramp:
            start = max(start, self._joined_at(now))
        if self._asked:
            start = max(start, self._asked_until)
        return max(0.0, start - now)

    @property
    def asks_at(self) -> float | None:
        """The earliest clock reading for the next request to a closed service; None if it is open.

        While the last one is not answered, its answer may open the service before.
        """
        return None if self.closed_since is None else self._next

    @property
    def answer_due(self) -> float | None:
        """The clock reading at which the answer that may open a closed service is overdue.

        It is None if the service is open, or if no request is on its way.
        """
        return self._asked_until if self.closed_since is not None and self._asked else None

    def _started_since(self) -> int:
        """Return the requests in flight that started after the service was closed."""
        return self._younger(self._closed_at)

    def _is_idle(self, now: float) -> bool:
        return not self._flying and now - self._last > self.IDLE

    def _joined_at(self, now: float) -> float:
        """Return the time at which one more request starts although none has ended."""
        # The end of one wakes all that wait.
        return now + self._ceiling

    @property
    def _interval(self) -> float:
        return max(self.least, self._rate.interval)

    @property
    def _is_tight(self) -> bool:
        """True if the requests in flight may be all that the service still takes."""
        return self._left is not None and self._left <= len(self._flying) + self.elsewhere

    def _younger(self, number: float) -> int:
        return sum(flying > number for flying in self._flying)

    def begin(self, now: float) -> float:
        """Count the start of a request; return its number, which the other methods take."""
        if self._began is None or (self.closed_since is None and self._is_idle(now)):
            self._begin_episode(now)
        elif not self._flying and (self.closed_since is not None or not self._streak):
            # Callers that were just refused pause before they ask again.
            self._idle += max(0.0, now - max(self._last, self._next, self._heard))
        self._last = now
        self._starts = now if now > self._starts else math.nextafter(self._starts, math.inf)
        self._flying.add(self._starts)
        if self.closed_since is not None:
            if self._asked:
                self._gap = min(2 * self._gap, self._ceiling)
            self._next = now + self._gap
            self._asked = self._starts
            self._asked_until = now + max(self._gap, self.PATIENCE)
        else:
            interval = self._interval
            # A timer that fires late must not make the whole rate slower.
            is_late = 0 <= now - self._next <= min(interval, self.SLACK)
            self._next = (self._next if is_late else now) + interval
        return self._starts

    def end(self, number: float, *, is_answered: bool = False) -> None:
        """Count the end of a request. If it is answered, the outcome is counted next."""
        is_waited_for = self._is_tight or self._ramp is not None
        self._flying.discard(number)
        if is_waited_for:
            self._wake()
        if not is_answered:
            self.failed(number)

    def succeeded(self, number: float, now: float) -> None:
        """Count an answer that was not refused."""
        self._heard = now
        strays = 0
        if self._streak and number > self._streak_began:
            strays, self._streak = self._streak, 0
            self._strays += strays
        if self.closed_since is not None:
            # Answers to requests from before tell nothing of the present.
            if number > self._closed_at:
                self._open(now)
            else:
                self._answered += 1
            return
        self._answered += 1
        if self._ramp is not None:
            self._ramp = self._ramp + 1 if self._ramp < self.RAMP else None
            self._wake()
        self._rate.answered(strays, now)

    def refused(
        self,
        number: float,
        now: float,
        *,
        retry_after: float | None = None,
        is_rate: bool = True,
        is_repeated: bool = False,
    ) -> bool:
        """Count a refusal; return whether the service has just been closed because of it.

        Args:
            number: the value that `begin` returned for the request.
            now: a clock reading.
            retry_after: the wait that the service asks for, in seconds.
            is_rate: whether the refusal shows a rate, which can be learned.
            is_repeated: whether the same call was refused before. Then it is a sign only if no
                other request is in flight: the call alone may be at fault.
        """
        self._heard = now
        requested = retry_after or 0.0
        if self.closed_since is not None:
            if number > self._closed_at:
                self._refused_at = now
                self._gap = min(2 * self._gap, self._ceiling)
            self._defer(now, requested)
            self.failed(number)
            return False
        if is_repeated and (self._flying or self.elsewhere):
            return False
        self._streak_began = min(self._streak_began, number) if self._streak else number
        self._streak += 1
        later = self._younger(self._streak_began) + self.elsewhere
        if self._streak < self.SIGNS or self._streak <= later:
            if is_rate:
                self._rate.refused(now)
            return False
        self.closed_since = self._refused_at = now
        self.was_closed = True
        self._turn += 1
        self._closed_at = self._starts = max(self._starts, now)
        self._is_rate = is_rate
        # A service that closes again at once is asked ever more rarely as well.
        is_again = 0 < self._answered < self.FEWEST
        again = min(2 * self._gap, self._ceiling) if is_again else 0.0
        self._gap = max(again, self._floor)
        self._ramp = None
        self._defer(now, requested)
        return True

    def failed(self, number: float) -> None:
        """Count an outcome that tells nothing of a limit."""
        if number == self._asked:
            self._asked = 0.0
            self._wake()

    def learn(self, remaining: int, reset_in: float, now: float) -> None:
        """Believe the service: `remaining` requests may start within the next `reset_in` seconds.

        Requests in flight may or may not be counted in it. They are taken as not counted.
        """
        was_tight = self._is_tight
        resets, self._learned_at = now + reset_in, now
        if self._left is not None and abs(resets - self._resets) < 1 and now < self._resets:
            # Answers overtake each other.
            self._left = min(self._left, remaining)
        else:
            self._left, self._resets = remaining, resets
        self.named_until = self._resets if self._left == 0 else None
        if was_tight and not self._is_tight:
            self._wake()

    @property
    def verdict(self) -> Verdict:
        """The conclusions so far. A `Pace` that adopts them waits as this one does."""
        return Verdict(
            turn=self._turn,
            closed_since=self.closed_since,
            named_until=self.named_until,
            next=self._next,
            last=self._last,
            closed_at=self._closed_at,
            gap=self._gap,
            trial=self._asked,
            trial_until=self._asked_until,
            refused_at=self._refused_at,
            is_rate=self._is_rate,
            streak=self._streak,
            streak_began=self._streak_began,
            ramp=self._ramp,
            began=self._began,
            answered=self._answered,
            strays=self._strays,
            left=self._left,
            resets=self._resets,
            learned_at=self._learned_at,
            least=self.least,
            rate=self._rate.learned,
        )

    def adopt(self, verdict: Verdict, now: float) -> None:
        """Conclude the same as another process has.

        Args:
            verdict: its verdict.
            now: a clock reading. No time further away than `LONGEST` is believed.
        """
        has_turned, self._turn = verdict.turn != self._turn, verdict.turn
        self.closed_since, self.named_until = verdict.closed_since, verdict.named_until
        self._next = min(verdict.next, now + self.LONGEST)
        self._last = max(self._last, verdict.last)
        self._closed_at, self._gap = verdict.closed_at, verdict.gap
        self._asked, self._asked_until = verdict.trial, verdict.trial_until
        self._refused_at, self._is_rate = verdict.refused_at, verdict.is_rate
        self._streak, self._streak_began = verdict.streak, verdict.streak_began
        self._ramp = verdict.ramp
        if verdict.began != self._began:
            self._idle = 0.0
        self._began, self._answered = verdict.began, verdict.answered
        self._strays = verdict.strays
        self._left, self._resets = verdict.left, verdict.resets
        self._learned_at, self.least = verdict.learned_at, verdict.least
        self._rate.learned = verdict.rate
        if has_turned:
            self._wake()

    def _defer(self, now: float, requested: float) -> None:
        shortest = self._gap * (1 - self._jitter() / 4)
        self._next = max(self._next, now + max(shortest, min(requested, self.LONGEST)))
        self.named_until = now + requested if requested >= 1 else self.named_until

    def _begin_episode(self, now: float) -> None:
        self._began, self._answered, self._strays, self._idle = now, 0, 0, 0.0

    def _open(self, now: float) -> None:
        if self._began is not None and self._answered >= self.FEWEST:
            # It opened at some time between the last refusal and now.
            length = (self._refused_at + now) / 2 - self._began
            # Callers that asked for less than the service takes show only how much they asked for.
            was_asked = self._idle <= self.IDLE_SHARE * length
            is_short = now - self._began <= self.EPISODE
            if self._is_rate and is_short and was_asked:
                self._rate.learn(length, now, answered=self._answered, strays=self._strays)
            self._begin_episode(now)
        self._answered += 1
        self._rate.restart(now)
        self.closed_since = self.named_until = None
        self._turn += 1
        self._streak, self._asked = 0, 0.0
        self._ramp = 2
        self._next = now + self._interval
        self._wake()

    def _wake(self) -> None:
        for callback in self.opened:
            callback()
