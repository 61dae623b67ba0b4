"""Waits for slots on the event loops that services run on.

A timer of uvloop that is due within half a millisecond is no `TimerHandle`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from altaprofiles import Alta, Session
from altaprofiles.emulator import Emulator

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


@pytest.mark.parametrize("shared", [False, True], ids=["alone", "shared"])
async def test_waits_may_be_short(shared: bool, tmp_path: Path) -> None:
    async def call(session: Session) -> None:
        for _ in range(3):
            assert await session.cdp.get(user_id="user1") is not None

    async with Emulator() as emulator:
        account = Alta(
            str(emulator.alta.token),
            emulator.url,
            max_in_flight=40,
            requests_per_minute=600_000,
            shared=tmp_path / "slots" if shared else False,
        )
        async with Session(alta=account) as session, anyio.create_task_group() as group:
            for _ in range(40):
                group.start_soon(call, session)
