"""Retry decisions as data: whether to retry, after what delay. Pure.

Clock readings and random numbers are passed in. Nothing here sleeps or sends.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from msgspec import Struct

from ..base.checks import check_seconds, check_whole
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
"""Seconds: what asks for more than this is an error, and not a wait."""


class Retry(Struct, frozen=True, kw_only=True):
    """How long a session keeps trying. All times are seconds.

    Args:
        attempts: tries of one request, the first included; with 1 a failure is never retried.
        base_delay: upper bound of the first delay. It doubles with each further try, and each
            delay is drawn evenly between zero and its bound (full jitter).
        max_delay: the most that bound grows to. A longer `Retry-After` is honoured all the same,
            up to ten minutes; beyond that there is no further try.
        ready_timeout: how long one page or count may stay "not ready" before `NotReady` is raised.
            Such polls do not count as attempts, because nothing has failed.
        deadline: how long one call may take in all, waiting for its turn and retries included; None
            for no limit. A chain's pages are a call each, and so are each key of a bulk lookup, and
            the start and the polling of a count.
        budget: retries that single calls may owe at once, over the whole session. Each retry takes
            one, each success gives one back, and a twentieth of it comes back every second. Where
            none is left a call is not tried again, so that an outage is not multiplied by
            thousands of callers. Chains and bulk lookups are exempt: their few workers wait before
            each try, and giving up would only lose what they have done.

    Raises:
        ConfigurationError: a value that cannot work.
    """

    attempts: int = 8
    base_delay: float = 0.5
    max_delay: float = 30.0
    ready_timeout: float = 600.0
    deadline: float | None = None
    budget: int = 100

    def __post_init__(self) -> None:
        check_whole("attempts", self.attempts, least=1)
        check_whole("budget", self.budget, least=0)
        for name in ("base_delay", "max_delay", "ready_timeout"):
            check_seconds(name, getattr(self, name), zero=True)
        if self.deadline is not None:
            check_seconds("deadline", self.deadline)

    def delay(self, failures: int, random: Callable[[], float]) -> float:
        """Return the seconds before the next try, after `failures` in a row.

        `random() * min(max_delay, base_delay * 2 ** (failures - 1))`.
        """
        # Beyond 2 ** 63 the bound is `max_delay` for any base that a person would choose.
        bound = self.base_delay * 2.0 ** min(failures - 1, 63)
        return random() * min(self.max_delay, bound)


class Budget:
    """The retries that a session may still make.

    Args:
        capacity: tokens when full.
        now: a monotonic clock reading, in seconds.
    """

    REFILL = 1 / 20
    """Share of the capacity that comes back each second."""

    def __init__(self, capacity: int, now: float) -> None:
        self._capacity = float(capacity)
        self._tokens = float(capacity)
        self._filled_at = now

    def deposit(self) -> None:
        """Give one token back, after a success."""
        if self._tokens < self._capacity:
            self._tokens = min(self._capacity, self._tokens + 1)

    def withdraw(self, now: float) -> bool:
        """Take the token of one retry; False when none is left."""
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
        delay: seconds before the next attempt, or None if the error is to be raised.
        not_ready: the service is still preparing the answer; nothing failed.
        throttled: the service refused the request as one too many.
    """

    delay: float | None
    not_ready: bool
    throttled: bool


class Tries(Struct, gc=False):
    """The failed attempts of one call, and the decision after each.

    Args:
        retry: the limits.
        budget: the budget that each retry is taken from, or None for bulk work.
        ends: when the call's deadline ends, as a monotonic clock reading.

    Attributes:
        failures: failed attempts so far.
        polls: "not ready" answers so far.
    """

    retry: Retry
    budget: Budget | None
    ends: float = math.inf
    failures: int = 0
    polls: int = 0
    _ready_by: float = math.inf

    def failed(self, error: AltaProfilesError, now: float, random: Callable[[], float]) -> Decision:
        """Count an attempt that ended with `error`, and return what follows.

        Args:
            error: the error of the attempt.
            now: a monotonic clock reading, in seconds.
            random: returns a number from 0 to 1, 1 excluded.
        """
        if not_ready := isinstance(error, NotReady):
            self.polls += 1
            if self.polls == 1:
                self._ready_by = now + self.retry.ready_timeout
            left = self._ready_by - now
            delay = min(self.retry.delay(self.polls, random), max(left, 0.0))
            again = left > 0
        else:
            self.failures += 1
            delay = self.retry.delay(self.failures, random)
            again = can_pass(error) and self.failures < self.retry.attempts
        requested = getattr(error, "retry_after", None) or 0.0
        delay = max(delay, requested)
        # The deadline would cut a longer wait short, and say less than `error` does.
        again = again and requested <= MAX_RETRY_AFTER and now + delay < self.ends
        if again and not not_ready and self.budget is not None:
            # Last, so that only a retry that is made takes a token.
            again = self.budget.withdraw(now)
        return Decision(
            delay=delay if again else None,
            not_ready=not_ready,
            throttled=isinstance(error, RateLimited),
        )
