"""A clock that stands still while anything happens, and jumps to the next timer when nothing does.

So time limits strike exactly when they are due, however slow the machine is, and take no time.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

__all__ = ["Clock", "stopped"]

_SETTLING = 0.05
"""Real seconds without an event after which none is taken to be on its way through the kernel."""


class Clock:
    """Stands in for `time.monotonic`, and so for the time of the event loop."""

    def __init__(self) -> None:
        self._now = time.monotonic()

    def __call__(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        """Let time pass without a turn of the loop, as if something had held it up."""
        self._now += seconds

    def loop(self) -> asyncio.AbstractEventLoop:
        """Return a new event loop that runs by this clock."""
        return asyncio.SelectorEventLoop(_Selector(self))


class _Selector(selectors.DefaultSelector):
    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        ready = super().select(min(timeout, _SETTLING))
        if not ready:
            self._clock.advance(timeout)
        return ready


@contextmanager
def stopped() -> Iterator[Clock]:
    """Replace `time.monotonic` for as long as the body takes."""
    clock = Clock()
    with mock.patch.object(time, "monotonic", clock):
        yield clock
