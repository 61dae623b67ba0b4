"""Long waits for a service: each is logged once, and what to do after one that was too long."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from ..base.wording import duration, moment

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..errors import AltaProfilesError
    from ..models import Attempt, RateLimit

__all__ = ["Waits", "remedy"]

_LONG = 5.0
"""Shortest wait for one attempt, in seconds, that is logged."""

_WATCH_EVERY = 0.25
"""Seconds without an answer after which a wait for a stated limit is logged."""


class Waits:
    """Logs each long wait for a service once, however many calls wait for the same moment.

    Args:
        log: logs a line for a person.
    """

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log = log
        self._until = 0.0

    def note(self, attempt: Attempt) -> None:
        """Log the wait after a failed attempt. This is a session's `on_event` hook."""
        if attempt.error is not None and attempt.delay is not None and attempt.delay >= _LONG:
            self.tell(time.time() + attempt.delay, str(attempt.error))

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
    from ..errors import RateLimited

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
