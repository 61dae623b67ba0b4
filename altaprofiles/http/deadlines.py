"""Cancels attempts that take too long, all of them with one timer. Knows no HTTP."""

from __future__ import annotations

import asyncio
import math

__all__ = ["Deadlines", "Watched"]

_HELD_UP = 0.05
"""Longest delay of a timer, in seconds, in an event loop that is not blocked."""


class Watched:
    """One attempt in progress, created by the task that makes it."""

    __slots__ = ("cancelling", "heard", "is_listening", "overdue", "started", "taken_back", "task")

    def __init__(self, task: asyncio.Task[object], now: float) -> None:
        self.task = task
        self.cancelling = task.cancelling()
        self.started = self.heard = now
        self.overdue: str | None = None
        self.taken_back = False
        self.is_listening = True

    def ended_by_deadline(self) -> bool:
        """Return whether a deadline cancelled this attempt, and nothing else did.

        The deadline's own cancellation is taken back, as `asyncio.timeout` does.
        """
        if self.overdue is None or self.taken_back:
            return False
        self.taken_back = True
        return self.task.uncancel() <= self.cancelling


class Deadlines:
    """Two time limits, the same for every attempt.

    Because they are the same, the attempt that started first is due first, and a timer set for it
    is never too late for another. One timer per attempt, as the HTTP client would set, is a fifth
    of the cost of a small request.

    Args:
        read: longest silence, in seconds: from the start to the first piece of the answer, and
            while the next piece is waited for. None for no limit.
        total: longest duration of the whole attempt, in seconds. None for no limit.
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
            raise RuntimeError("an attempt must run in a task")
        watched = Watched(task, loop.time())
        self._running.add(watched)
        if self._timer is None:
            self._set(watched.started + min(self._read, self._total))
        return watched

    def heard(self, watched: Watched) -> None:
        """Record that a piece of the answer has arrived. Until `listen`, no silence is counted."""
        watched.heard = watched.task.get_loop().time()
        watched.is_listening = False

    def listen(self, watched: Watched) -> None:
        """Count the silence from now on."""
        watched.heard = watched.task.get_loop().time()
        watched.is_listening = True

    def end(self, watched: Watched) -> None:
        """Stop watching."""
        self._running.discard(watched)
        if watched.overdue is not None:
            # However the attempt ended, its task must not stay cancelled.
            watched.ended_by_deadline()

    def close(self) -> None:
        """Cancel the timer."""
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
            # The caller's own work blocked the loop. Answers may have arrived that no task could
            # read yet.
            self._timer = loop.call_at(now + _HELD_UP, self._check, now, False)
            return
        earliest = math.inf
        for watched in self._running:
            if not watched.is_listening:
                # No silence that begins later ends before this.
                watched.heard = now
            silent, whole = watched.heard + self._read, watched.started + self._total
            if watched.overdue is None and min(silent, whole) <= now:
                watched.overdue = "read" if silent <= whole else "total"
                watched.task.cancel()
            elif watched.overdue is None:
                earliest = min(earliest, silent, whole)
        self._set(earliest)
