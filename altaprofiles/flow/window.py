"""Puts results back into the order of their numbers. Waits for nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["MOST", "MOST_BYTES", "Window"]

R = TypeVar("R")

MOST = 10_000
"""Results that may wait for an earlier one: a retry of two seconds at 5,000 results a second."""

MOST_BYTES = 32 << 20
"""Their size in memory, in bytes. Large results reach it before they reach that number."""


class Window(Generic[R]):
    """Results that wait for an earlier one, bounded by number and by bytes.

    The window accepts every result. Its producers have to heed `allowance`, and can exceed the
    bounds by the results in progress. The result that the others wait for always fits.

    Args:
        size: returns the size of a result in memory, in bytes.
    """

    def __init__(self, size: Callable[[R], int]) -> None:
        self._size = size
        self._results: dict[int, tuple[R, int]] = {}
        self._bytes = 0
        self._due = 0
        self._withheld = 0

    def put(self, number: int, result: R) -> None:
        """Add the result of a number. Numbers count from 0, and each comes once, in any order."""
        size = 0 if number == self._due else self._size(result)
        self._results[number] = result, size
        self._bytes += size
        self._withheld += 1

    @property
    def is_due(self) -> bool:
        """True while the next result in order is here."""
        return self._due in self._results

    def take(self) -> R:
        """Remove the result that is due, and return it."""
        result, size = self._results.pop(self._due)
        self._due += 1
        self._bytes -= size
        return result

    def allowance(self) -> int:
        """Return how many more results may be produced, beside those allowed before.

        Every result that was put in allows another one: at once, or when the window, if it is full,
        has room again.
        """
        if len(self._results) >= MOST or self._bytes >= MOST_BYTES:
            return 0
        allowed, self._withheld = self._withheld, 0
        return allowed
