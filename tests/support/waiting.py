"""Waits for conditions that come to hold, or else fail the test."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from .tasks import PATIENCE

__all__ = ["until", "wait_until"]


async def until(
    condition: Callable[[], object], *, during: asyncio.Future[Any] | None = None
) -> None:
    """Wait until `condition` holds.

    Args:
        condition: asked again and again.
        during: a task that must not end before. An error that ends it is raised.
    """
    with anyio.fail_after(PATIENCE):
        while not condition():
            if during is not None and during.done():
                pytest.fail(f"it has ended before: {during.result()!r}")
            await asyncio.sleep(0.001)


def wait_until(condition: Callable[[], object]) -> None:
    """Wait until `condition` holds, in a test that has no event loop, or in a thread."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it never holds"
        time.sleep(0.005)
