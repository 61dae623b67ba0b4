"""Work that takes long, done in slices with everybody else let in between."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import TypeAlias, TypeVar

__all__ = ["ITEMS", "Slices", "finish"]

T = TypeVar("T")

Slices: TypeAlias = Generator[None, None, T]
"""A value that takes long to make: each `yield` is a moment to let others work."""


ITEMS = 500
"""Small things done in one go, such as looking at a person: some two milliseconds."""


async def finish(slices: Slices[T]) -> T:
    """Return the value, after a turn of the event loop before each slice."""
    while True:
        await asyncio.sleep(0)
        try:
            next(slices)
        except StopIteration as done:
            value: T = done.value
            return value
