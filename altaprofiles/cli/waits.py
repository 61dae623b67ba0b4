"""Failures that are retried, and long waits for a service, each logged once; and the remedies.

One rule for every command that sends requests. A connection that cannot be made is logged at the
first failure, and any other failure once a call has met it for five seconds: with the time for
which it is retried, and not again before that time is over. A wait that the service asks for is
logged if it is long.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from ..base.wording import duration, moment

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..errors import AltaProfilesError
    from ..http.retry import Retry
    from ..models import Attempt, RateLimit

__all__ = ["Waits", "remedy"]

_LONG = 5.0
"""Shortest wait, in seconds, that is logged."""

_WATCH_EVERY = 0.25
"""Seconds without an answer after which a wait for a stated limit is logged."""


class Waits:
    """Logs failures that are retried, and each long wait once, however many calls wait for it.

    Args:
        log: logs a line for a person.
        retry: the policy by which they are retried.
        left: returns the seconds that the command has left, or None without a limit.

    Attributes:
        failure: the last error of an attempt, or None.
    """

    def __init__(
        self,
        log: Callable[[str], None],
        retry: Retry,
        left: Callable[[], float | None] = lambda: None,
    ) -> None:
        self._log = log
        self._retry = retry
        self._left = left
        self.failure: AltaProfilesError | None = None
        self._until = 0.0
        self._failing_since: dict[int, float] = {}
        self._retried_until: dict[tuple[str, type[AltaProfilesError]], float] = {}

    def note(self, attempt: Attempt) -> None:
        """Log a failed attempt that is followed by another. This is a session's `on_event` hook."""
        from ..errors import ConnectError, RateLimited

        error, delay = attempt.error, attempt.delay
        self.failure = error or self.failure
        if error is None or delay is None:
            self._failing_since.pop(attempt.call, None)
            return
        is_asked_for = (getattr(error, "retry_after", None) or 0.0) >= _LONG
        if isinstance(error, RateLimited) or is_asked_for:
            if delay >= _LONG:
                self.tell(time.time() + delay, str(error))
            return
        now = time.monotonic()
        since = self._failing_since.setdefault(attempt.call, now)
        kind = (attempt.api, type(error))
        is_lasting = isinstance(error, ConnectError) or now + delay - since >= _LONG
        if is_lasting and now >= self._retried_until.get(kind, 0.0):
            longest = max(self._longest(error), delay)
            if (left := self._left()) is not None:
                longest = min(longest, left)
            self._retried_until[kind] = now + longest
            self._log(f"{str(error).rstrip('.')}; retrying for up to {duration(longest)}")

    def _longest(self, error: AltaProfilesError) -> float:
        """Return the longest time, in seconds, for which a request that fails so is retried."""
        from ..errors import NotReady

        if isinstance(error, NotReady):
            return self._retry.ready_timeout
        # Without jitter.
        return sum(
            self._retry.delay(number, lambda: 1.0) for number in range(1, self._retry.attempts)
        )

    async def watch(self, api: str, limit: RateLimit, count: Callable[[], int]) -> None:
        """Log each wait for a limit that the service states; runs until it is cancelled.

        Args:
            api: "CleverTap" or "Alta".
            limit: its limit, as in `session.stats.limits`.
            count: returns the number of answers so far.
        """
        before = -1
        while True:
            # Once nothing arrives, nothing is in flight any more.
            is_still = count() == before
            if is_still and limit.remaining == 0 and limit.reset and limit.reset > time.time():
                self.tell(limit.reset, f"{api} takes no request before, by its rate limit")
            before = count()
            await asyncio.sleep(_WATCH_EVERY)

    def tell(self, until: float, reason: str) -> None:
        """Log a wait until a Unix time, unless one that ends at about the same time was logged."""
        now = time.time()
        if until > self._until + 1:
            self._until = until
            self._log(f"waiting until {moment(until, now)}, {duration(until - now)}: {reason}")


def remedy(error: AltaProfilesError) -> str | None:
    """Return the next step after an error that can pass, or None for another one."""
    # Not at the top, because every `--help` imports this module.
    from ..base.verdicts import can_pass
    from ..errors import RateLimited, RequestTimeout

    if isinstance(error, RequestTimeout) and (notes := getattr(error, "__notes__", None)):
        return f"{notes[-1]}".rstrip(".")
    if not isinstance(error, RateLimited):
        return "Try again later" if can_pass(error) else None
    is_alta = error.api == "Alta"
    limit, plan = ("plan's limit", ", or enlarge the plan") if is_alta else ("limit", "")
    wait = error.retry_after or 0.0
    if error.reset is not None:
        wait = error.reset - time.time()
    if wait > 0:
        renews = f"when the {limit} renews" if error.reset is not None else "as the service asks"
        return f"Try again in {duration(wait)}, {renews}{plan}"
    used_up = ". If it is refused again, the plan is used up: wait until it renews, or enlarge it"
    return f"Try again in some minutes{used_up if is_alta else ''}"
