"""The life of a session whose pool, or whose folder of slots, cannot be opened."""

from __future__ import annotations

import asyncio
import gc
import math
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import pytest

from altaprofiles import CleverTap, ConfigurationError, Session, SessionClosed
from altaprofiles.flow.lifetime import Lifetime

from ..support.tasks import PATIENCE, nothing_left_behind

pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.anyio]


class Pool:
    """A pool that opens as it is told to.

    Attributes:
        closed: how often it was closed.
    """

    def __init__(self, opening: Callable[[], Awaitable[object]]) -> None:
        self.closed = 0
        self._opening = opening

    async def open(self) -> None:
        await self._opening()

    async def aclose(self) -> None:
        self.closed += 1


async def fail() -> None:
    raise OSError("no more files")


async def hang() -> None:
    await asyncio.sleep(math.inf)


async def test_a_pool_that_cannot_be_opened_closes_the_session() -> None:
    pool = Pool(fail)
    lifetime = Lifetime(pool)
    async with nothing_left_behind():
        with pytest.raises(OSError, match="no more files"):
            await lifetime.open()
    assert (lifetime.state, pool.closed) == ("closed", 1)
    with pytest.raises(SessionClosed):
        lifetime.check_open()
    with pytest.raises(SessionClosed, match="opened before"):
        await lifetime.open()
    await lifetime.aclose()


async def test_an_opening_that_is_cancelled_closes_the_session() -> None:
    pool = Pool(hang)
    lifetime = Lifetime(pool)
    async with nothing_left_behind():
        opening = asyncio.ensure_future(lifetime.open())
        await asyncio.sleep(0)
        # Not usable before the pool is.
        with pytest.raises(SessionClosed, match="not open yet"):
            lifetime.check_open()
        with pytest.raises(SessionClosed, match="opened before"):
            await lifetime.open()
        opening.cancel()
        with anyio.fail_after(PATIENCE), pytest.raises(asyncio.CancelledError):
            await opening
    assert (lifetime.state, pool.closed) == ("closed", 1)


async def test_a_session_closed_while_it_opens_stays_closed() -> None:
    released = asyncio.Event()
    pool = Pool(released.wait)
    lifetime = Lifetime(pool)
    async with nothing_left_behind():
        opening = asyncio.ensure_future(lifetime.open())
        await asyncio.sleep(0)
        await lifetime.aclose()
        released.set()
        with anyio.fail_after(PATIENCE), pytest.raises(SessionClosed):
            await opening
    assert lifetime.state == "closed"
    assert pool.closed == 2


async def test_a_folder_that_cannot_be_used_closes_the_session(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    account = CleverTap("id", "secret", shared=tmp_path / "file")
    session = Session(clevertap=account)
    async with nothing_left_behind():
        with pytest.raises(ConfigurationError, match="file"):
            await session.__aenter__()
    assert ", closed)" in repr(session)
    with pytest.raises(SessionClosed, match="is closed"):
        await session.profiles.get(identity="5555555555")
    with pytest.raises(SessionClosed, match="opened before"):
        await session.__aenter__()
    # A connector that was left open would warn here, and fail this test.
    gc.collect()
