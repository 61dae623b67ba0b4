"""Long computations in slices, so that other tasks run in between."""

from __future__ import annotations

from collections.abc import Generator
from time import perf_counter
from typing import TypeAlias, TypeVar

__all__ = ["ITEMS", "Pace", "Slices", "at_once", "finish"]

T = TypeVar("T")

Slices: TypeAlias = Generator[None, None, T]
"""A value that takes long to compute; each `yield` lets other tasks run."""


ITEMS = 500
"""Items handed over without a pause, which takes less than a millisecond."""

_TURN = 0.002


class Pace:
    """Tells when a slice of many steps has taken two milliseconds.

    By the clock, because one odd record takes as long as a thousand others. After the `yield`,
    call `restart`.
    """

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Begin the next slice."""
        self._end = perf_counter() + _TURN

    def is_over(self) -> bool:
        """Return True if it is time for other tasks."""
        return perf_counter() >= self._end


def at_once(slices: Slices[T]) -> T:
    """Return the value without a pause."""
    while True:
        try:
            next(slices)
        except StopIteration as done:
            value: T = done.value
            return value


async def finish(slices: Slices[T]) -> T:
    """Return the value, after a turn of the event loop before each slice."""
    # Imported here, because `models` imports this module, and asyncio is slow to import.
    from asyncio import sleep

    while True:
        await sleep(0)
        try:
            next(slices)
        except StopIteration as done:
            value: T = done.value
            return value
