"""Ends attempts that take too long, all of them with one timer. Knows no HTTP."""

from __future__ import annotations

import asyncio
import math

__all__ = ["Deadlines", "Watched"]

_HELD_UP = 0.05
"""Seconds that a timer may be late in a loop that is not held up."""


class Watched:
    """One attempt under way, made by the task that makes the attempt."""

    __slots__ = ("cancelling", "heard", "overdue", "started", "taken_back", "task")

    def __init__(self, task: asyncio.Task[object], now: float) -> None:
        self.task = task
        self.cancelling = task.cancelling()
        self.started = self.heard = now
        self.overdue: str | None = None
        self.taken_back = False

    def ended_by_deadline(self) -> bool:
        """Whether it was this deadline that cancelled the attempt, and nobody else did.

        The cancellation is taken back then, as `asyncio.timeout` does.
        """
        if self.overdue is None or self.taken_back:
            return False
        self.taken_back = True
        return self.task.uncancel() <= self.cancelling


class Deadlines:
    """Two limits, the same for every attempt.

    Because they are the same, whichever attempt began first is due first, and a timer set for it
    never comes too late for another. A timer of each attempt's own, as the HTTP client would set
    it, is a fifth of what a small request costs.

    Args:
        read: seconds without a piece of the answer, counted from the start until the first; None
            for no limit.
        total: seconds of the whole attempt, or None.
    """

    def __init__(self, *, read: float | None, total: float | None) -> None:
        self._read = math.inf if read is None else read
        self._total = math.inf if total is None else total
        self._running: set[Watched] = set()
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> Watched:
        """Watch the current task until `end`."""
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("an attempt is made in a task")
        watched = Watched(task, loop.time())
        self._running.add(watched)
        if self._timer is None:
            self._set(watched.started + min(self._read, self._total))
        return watched

    def heard(self, watched: Watched) -> None:
        """Note that a piece of the answer has come."""
        watched.heard = watched.task.get_loop().time()

    def end(self, watched: Watched) -> None:
        """Watch no longer."""
        self._running.discard(watched)
        if watched.overdue is not None:
            # Whatever else the attempt ended with, the task is not to stay cancelled.
            watched.ended_by_deadline()

    def close(self) -> None:
        """Drop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set(self, when: float) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None if when == math.inf else loop.call_at(when, self._check, when, True)

    def _check(self, due: float, first: bool) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        if first and now > due + _HELD_UP:
            # The caller's own work held the loop up. Answers may have arrived meanwhile that nobody
            # could read yet.
            self._timer = loop.call_at(now + _HELD_UP, self._check, now, False)
            return
        earliest = math.inf
        for watched in self._running:
            silent, whole = watched.heard + self._read, watched.started + self._total
            if watched.overdue is None and min(silent, whole) <= now:
                watched.overdue = "read" if silent <= whole else "total"
                watched.task.cancel()
            elif watched.overdue is None:
                earliest = min(earliest, silent, whole)
        self._set(earliest)
