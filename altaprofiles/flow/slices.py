"""Long computations in slices, so that other tasks run in between."""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeAlias, TypeVar

__all__ = ["ITEMS", "Slices", "at_once", "finish"]

T = TypeVar("T")

Slices: TypeAlias = Generator[None, None, T]
"""A value that takes long to compute; each `yield` lets other tasks run."""


ITEMS = 500
"""Small items per slice, such as people to compare: some two milliseconds."""


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
