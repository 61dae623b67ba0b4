"""Retry decisions as data: whether to retry, and after which delay. Pure.

Clock readings and random numbers are passed in. Nothing here sleeps or sends.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable

from msgspec import Struct
from msgspec.structs import force_setattr

from ..base.checks import check_seconds, check_whole
from ..base.structs import CalledStruct
from ..base.verdicts import can_pass
from ..errors import AltaProfilesError, NotReady, RateLimited

__all__ = [
    "MAX_RETRY_AFTER",
    "Budget",
    "Decision",
    "Retry",
    "Tries",
]


MAX_RETRY_AFTER = 600.0
"""Longest `Retry-After`, in seconds, that is honoured; a longer one ends the call."""


_TOLERANCE = 0.001
"""Seconds by which a wait that is asked for may exceed the time that is left for it."""


_FOR_ATTEMPT = 0.05
"""Seconds before the deadline that a drawn delay leaves, so that it does not cut the attempt off.

With less than twice as much left, the call ends in its error, which explains more.
"""


class Retry(Struct, frozen=True, kw_only=True, metaclass=CalledStruct):
    """The retry policy of a session. All times are in seconds.

    Args:
        attempts: most attempts of one request, the first included; with 1, no failure is retried.
            In chains, exports and bulk lookups a refusal for a rate limit does not count.
        base_delay: upper bound of the first delay. The bound doubles with each further attempt, and
            each delay is drawn evenly between zero and its bound (full jitter).
        max_delay: largest value of that bound, which is also below the time left before a deadline,
            so that an attempt has time as well. A longer `Retry-After` is still honoured, up to ten
            minutes; one beyond that ends the call. `throttle_timeout` bounds that of a rate limit.
            A service that refuses every request is asked by one request at a time, for all callers
            together: after `base_delay`, then after twice as long each time, up to `max_delay`
            (0.25 there at least), or as late as the service says. Both are the session's: those of
            a view change the delays of its own calls only. So calls succeed again about
            `max_delay` after the end of such an outage, with the default within half a minute. With
            `shared` the pause is that of the program that asks last: each program on the account
            needs the same `max_delay`, or the longest counts.
        throttle_timeout: longest time that a service may refuse one request, or all of them, for a
            rate limit before `RateLimited` is raised. Such a limit lasts minutes. While a service
            refuses everything, all callers of the session wait, and one request at a time asks
            whether it serves again. If it asks for a longer wait than is left of this time, or of
            the deadline, the call fails at once. So does every call once the service has refused
            everything for this long, but for one now and then that asks, and those that are made
            until its answer: they wait for it, for at most five seconds, or this long if that is
            less. Single calls have their `attempts` as well.
        ready_timeout: longest time that one page or count may stay "not ready" before `NotReady` is
            raised. These polls do not count as attempts, because nothing has failed.
        deadline: longest duration of one call, including the wait for a slot and all retries; None
            for no limit. Each page of a chain is a call, as is each key of a bulk lookup. A count
            is two: its start and its polling.
        budget: most retries that single calls may have outstanding, over the whole session. A
            retry takes one token, a success gives one back, and a twentieth of the budget comes
            back every second.
            With no token left, a call is not retried, so that thousands of callers do not multiply
            an outage. Chains and bulk lookups are exempt: their few workers wait before each
            attempt, and giving up would only lose the work done so far.

    Raises:
        ConfigurationError: an argument is invalid.

    >>> session = Session.from_env(retry=Retry(attempts=3, deadline=60))
    """

    attempts: int = 8
    base_delay: float = 0.5
    max_delay: float = 30.0
    throttle_timeout: float = 600.0
    ready_timeout: float = 600.0
    deadline: float | None = None
    budget: int = 100

    def __post_init__(self) -> None:
        force_setattr(self, "attempts", check_whole("attempts", self.attempts, least=1))
        force_setattr(self, "budget", check_whole("budget", self.budget, least=0))
        for name in ("base_delay", "max_delay", "throttle_timeout", "ready_timeout"):
            force_setattr(self, name, check_seconds(name, getattr(self, name), zero=True))
        if self.deadline is not None:
            force_setattr(self, "deadline", check_seconds("deadline", self.deadline))

    def delay(self, failures: int, random: Callable[[], float]) -> float:
        """Return the delay before the next attempt, in seconds, after `failures` in a row.

        `random() * min(max_delay, base_delay * 2 ** (failures - 1))`.
        """
        # Beyond 2 ** 63 the bound is `max_delay` for any sensible base.
        bound = self.base_delay * 2.0 ** min(failures - 1, 63)
        return random() * min(self.max_delay, bound)


class Budget:
    """The retries that the single calls of a session may still make.

    Args:
        capacity: tokens when full.
        now: a monotonic clock reading, in seconds.
    """

    REFILL = 1 / 20
    """Share of the capacity that comes back every second."""

    def __init__(self, capacity: int, now: float) -> None:
        # More are never taken, and a float holds no int of any size.
        self._capacity = self._tokens = float(min(capacity, sys.maxsize))
        self._filled_at = now

    def deposit(self) -> None:
        """Give one token back, after a success."""
        if self._tokens < self._capacity:
            self._tokens = min(self._capacity, self._tokens + 1)

    def withdraw(self, now: float) -> bool:
        """Take the token of one retry; return False if none is left."""
        refill = (now - self._filled_at) * self._capacity * self.REFILL
        self._tokens = min(self._capacity, self._tokens + refill)
        self._filled_at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class Decision(Struct, frozen=True):
    """The consequences of one failed attempt.

    Attributes:
        delay: seconds before the next attempt, or None to raise the error.
        not_ready: the service is still preparing the answer. Nothing has failed.
        throttled: the service refused the request as one too many.
    """

    delay: float | None
    not_ready: bool
    throttled: bool


class Tries(Struct):
    """The attempts of one call, and the decision after each that does not succeed.

    Args:
        retry: the policy.
        budget: the budget that retries are taken from, or None for bulk work.
        ends: the monotonic clock reading, in seconds, at which the deadline of the call ends.

    Attributes:
        number: the number of the current attempt, 1 for the first.
        sent: attempts that have had their turn.
        requests: those of them that have had a connection.
        is_connecting: whether the current one waits for its connection.
        is_waiting: whether it waits for a slot, or until the service may be asked.
        failures: failed attempts so far.
        polls: "not ready" answers so far.
        is_long: whether a log says that they go on.
        refusals: refusals for a rate limit since any other outcome.
        is_asking: whether it waits for the function that returns the secret.
        is_renewed: whether it is sent again because there is another secret.
        queued: seconds in the queue of the session since the first of these, while it was open.
        queued_at: the clock reading at which the current attempt began to wait for its turn.
        failure: the error of the attempt before the current one.
        cut_off_from: the clock reading at which a request was sent that a cancellation cut off;
            None if there was none.
    """

    retry: Retry
    budget: Budget | None
    ends: float = math.inf
    number: int = 0
    sent: int = 0
    requests: int = 0
    is_connecting: bool = False
    is_waiting: bool = False
    failures: int = 0
    polls: int = 0
    is_long: bool = False
    refusals: int = 0
    is_asking: bool = False
    is_renewed: bool = False
    queued: float = 0.0
    queued_at: float = 0.0
    failure: AltaProfilesError | None = None
    cut_off_from: float | None = None
    _polled_since: float = math.inf
    _refused_since: float = math.inf

    def begin(self) -> None:
        """Count an attempt that has its turn."""
        self.sent += 1
        self.is_connecting = True

    def connected(self) -> None:
        """Count the request of the current attempt, once: aiohttp may connect again for it."""
        self.requests += self.is_connecting
        self.is_connecting = False

    def failed(
        self,
        error: AltaProfilesError,
        now: float,
        random: Callable[[], float],
        closed_since: float | None = None,
    ) -> Decision:
        """Count an attempt that ended with `error`, and return the decision.

        Args:
            error: the error of the attempt.
            now: a monotonic clock reading, in seconds.
            random: returns a number in [0, 1), such as `random.random`.
            closed_since: the clock reading since which the service refuses every request, or None.
        """
        longest = MAX_RETRY_AFTER
        throttled = isinstance(error, RateLimited)
        if not throttled:
            self.refusals, self.queued, self._refused_since = 0, 0.0, math.inf
        if not_ready := isinstance(error, NotReady):
            self.polls += 1
            self._polled_since = min(self._polled_since, now)
            left = self._polled_since + self.retry.ready_timeout - now
            delay = min(self._drawn(self.polls, now, random), max(left, 0.0))
            can_retry = left > 0
        elif throttled:
            since = now if closed_since is None else closed_since
            self._refused_since = min(self._refused_since, since)
            # While others are served, the wait for a turn is the session's own.
            longest = self._refused_since + self.queued + self.retry.throttle_timeout - now
            delay, can_retry = self._after_refusal(now, random, is_closed=closed_since is not None)
            delay = min(delay, max(longest, 0.0))
            can_retry = can_retry and longest > 0
        else:
            self.failures += 1
            delay = self._drawn(self.failures, now, random)
            can_retry = can_pass(error) and self.failures < self.retry.attempts
        requested = getattr(error, "retry_after", None) or 0.0
        delay = max(delay, requested)
        # The deadline would cut a longer wait short, and explain less than `error` does.
        in_time = now + max(delay, 2 * _FOR_ATTEMPT) < self.ends
        can_retry = can_retry and requested <= longest + _TOLERANCE and in_time
        if can_retry and not not_ready and self.budget is not None:
            # Last, so that only a retry that is made takes a token.
            can_retry = self.budget.withdraw(now)
        return Decision(
            delay=delay if can_retry else None, not_ready=not_ready, throttled=throttled
        )

    def waited(self, now: float) -> float:
        """Return the seconds since the first answer that was "not ready", 0 without any.

        Args:
            now: a monotonic clock reading, in seconds.
        """
        return max(now - self._polled_since, 0.0)

    def _drawn(self, failures: int, now: float, random: Callable[[], float]) -> float:
        """Return the delay of the policy, drawn below a bound that leaves time for an attempt."""
        bound = self.retry.delay(failures, lambda: 1.0)
        return random() * min(bound, max(self.ends - now - _FOR_ATTEMPT, 0.0))

    def _after_refusal(
        self, now: float, random: Callable[[], float], *, is_closed: bool
    ) -> tuple[float, bool]:
        self.refusals += 1
        if self.budget is None:
            # While the service is closed, its pace grows the wait, for all callers together.
            bound = 1 if is_closed else self.refusals
            return self._drawn(bound, now, random), True
        self.failures += 1
        return self._drawn(self.failures, now, random), self.failures < self.retry.attempts
