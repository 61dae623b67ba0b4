"""Async sources of keys and other items, which hold something open while they are read."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterable, AsyncIterator
from typing import TypeVar

import anyio

T = TypeVar("T")

PAUSES = [None, 0, 0.001, 3600]
"""Seconds between two items, for `asyncio.sleep`: without a wait, up to no second one at all."""


async def numbers(pause: float | None) -> AsyncIterator[int]:
    """Yield 0, 1, 2, … with a pause after each."""
    for number in itertools.count():
        yield number
        if pause is not None:
            await asyncio.sleep(pause)


async def in_a_timeout(items: AsyncIterable[T]) -> AsyncIterator[T]:
    async with asyncio.timeout(0.05):
        async for item in items:
            yield item


async def in_a_scope(items: AsyncIterable[T], last: T) -> AsyncIterator[T]:
    with anyio.move_on_after(0.05):
        async for item in items:
            yield item
    yield last


async def in_a_group(items: AsyncIterable[T]) -> AsyncIterator[T]:
    async def fail() -> None:
        await asyncio.sleep(0.05)
        raise OSError("unplugged")

    async with asyncio.TaskGroup() as group:
        group.create_task(fail())
        async for item in items:
            yield item


async def within(items: AsyncIterable[T]) -> AsyncIterator[T]:
    """Yield the same items, as a generator expression over them does."""
    async for item in items:
        yield item


CLOSED = ["closing", "closed"]
"""The log of `Keys` that were closed."""


class Keys:
    """Endless keys from something that takes several turns of the loop to close.

    Args:
        pause: one of `PAUSES`.
    """

    def __init__(self, pause: float | None = None) -> None:
        self.log: list[str] = []
        self._pause = pause

    async def __aiter__(self) -> AsyncIterator[str]:
        try:
            async for number in numbers(self._pause):
                yield f"absent-{number}"
        finally:
            self.log.append("closing")
            for _ in range(5):
                await asyncio.sleep(0.001)
            self.log.append("closed")


async def whose_end_hangs(log: list[str]) -> AsyncIterator[str]:
    """Yield keys until closed, and then wait for ever; note that, and the cancellation of it."""
    try:
        while True:
            yield "absent"
    finally:
        log.append("closing")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            log.append("cancelled")
            raise
