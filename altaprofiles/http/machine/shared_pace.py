"""The pace of a service that all processes of a machine have together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from msgspec import structs

from ..pace import Pace, Verdict
from .record import Record

__all__ = ["SharedPace"]

logger = logging.getLogger("altaprofiles")

_BUSY = 0.001  # seconds until another process has changed the record
_FEW = 64  # requests left, of which every process must know at once


class SharedPace(Pace):
    """A pace whose verdicts are those of all processes of a machine.

    The requests in flight stay with their process. Those that start and succeed in an open service
    are only counted, and the counts are added to those of the others with the next change of the
    record. Such a change is a refusal and the success after it, each start and each answer while
    the service is closed, has just opened or has a rate, and the number of requests left once it is
    small. A new episode begins only when the service opens, as no process knows when all are idle.

    Args:
        api: the name of the service, for the log.
        options: those of `Pace`.

    Attributes:
        api: the name of the service.
        record: the record of the verdicts. It is set before the first request.
        count: returns the requests in flight of other processes. It is set before the first one.
        number: the number of the request that `start` has begun.
    """

    record: Record
    count: Callable[[], int]

    def __init__(
        self,
        api: str,
        *,
        floor: float,
        ceiling: float,
        per_minute: int | None,
        jitter: Callable[[], float],
    ) -> None:
        super().__init__(floor=floor, ceiling=ceiling, per_minute=per_minute, jitter=jitter)
        self.api = api
        self._young = 0
        self._counted = (0, 0)  # answers and strays of the episode that the record has
        self.number = 0.0

    def start(self, now: float) -> float:
        """Begin a request if it may start now; return 0 if it has begun, else the seconds to wait.

        No two processes begin a request at a time for one.
        """
        wait = self.record.attempt(lambda: self._start(now))
        return _BUSY if wait is None else wait

    def _start(self, now: float) -> float:
        if (wait := self.wait(now)) > 0:
            return wait
        self.number = self.begin(now)
        self._young += 1
        return 0.0

    def is_near(self, requests: int) -> bool:
        """Return whether the service has said that it takes only so many requests more."""
        return self._left is not None and self._left <= requests

    def report(self) -> Verdict:
        """Return the verdict, for the record."""
        self._counted = (self._answered, self._strays)
        return structs.replace(self.verdict, young=self._young)

    def adopt(self, verdict: Verdict, now: float) -> None:
        closes = self.closed_since is None and verdict.closed_since is not None
        is_same_episode = verdict.turn == self._turn or (closes and verdict.turn == self._turn + 1)
        answered, strays = self._answered - self._counted[0], self._strays - self._counted[1]
        began = self._began
        super().adopt(verdict, now)
        self._young = verdict.young
        self._counted = (self._answered, self._strays)
        if is_same_episode:
            self._answered += answered
            self._strays += strays
            self._began = began if self._began is None else self._began
        if closes:
            self.was_closed = True
            logger.warning(
                "every request to %s waits until it serves again: it has refused those of another "
                "session on the same account",
                self.api,
            )

    @property
    def _is_steady(self) -> bool:
        """True if neither starts nor ends of requests change anything that is shared."""
        return self.closed_since is None and self._ramp is None and not self._rate.interval

    def _is_idle(self, now: float) -> bool:
        return False

    def _joined_at(self, now: float) -> float:
        # The process whose request is awaited may have been killed.
        return self._last + self.PATIENCE

    def end(self, number: float, *, is_answered: bool = False) -> None:
        if self._is_steady:
            super().end(number, is_answered=is_answered)
        else:
            self.record.change(lambda: self._end(number, is_answered))

    def _end(self, number: float, is_answered: bool) -> None:
        self._young -= self._young > 0 and number > self._closed_at
        super().end(number, is_answered=is_answered)

    def _started_since(self) -> int:
        return self._young

    def succeeded(self, number: float, now: float) -> None:
        if self._streak or not self._is_steady:
            self.record.change(lambda: Pace.succeeded(self, number, now))
        else:
            super().succeeded(number, now)

    def refused(
        self,
        number: float,
        now: float,
        *,
        retry_after: float | None = None,
        is_rate: bool = True,
        is_repeated: bool = False,
    ) -> bool:
        self.elsewhere = self.count()

        def refuse() -> bool:
            has_closed = Pace.refused(
                self,
                number,
                now,
                retry_after=retry_after,
                is_rate=is_rate,
                is_repeated=is_repeated,
            )
            if has_closed:
                self._young = 0
            return has_closed

        return bool(self.record.change(refuse))

    def failed(self, number: float) -> None:
        if number == self._asked:
            self.record.change(lambda: Pace.failed(self, number))

    def learn(self, remaining: int, reset_in: float, now: float) -> None:
        if remaining <= _FEW or self.is_near(_FEW):
            self.record.change(lambda: Pace.learn(self, remaining, reset_in, now))
        else:
            super().learn(remaining, reset_in, now)

    def _wake(self) -> None:
        # Later, because a change of the record may not be over yet. Without a loop nobody waits.
        try:
            asyncio.get_running_loop().call_soon(super()._wake)
        except RuntimeError:
            return
