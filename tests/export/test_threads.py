"""Blocking calls in a thread of their own."""

from __future__ import annotations

import asyncio

import pytest

from altaprofiles.base.task_account import account_of_task, working_for
from altaprofiles.export.threads import Threads, run_all

pytestmark = pytest.mark.anyio


async def test_a_call_in_the_thread_works_for_the_account_of_its_task() -> None:
    """The thread is shared by all accounts of an export."""
    threads = Threads()
    started: list[str | None] = []

    async def account(name: str) -> None:
        with working_for(name):
            assert await threads.run(account_of_task) == name
            threads.start(lambda: started.append(account_of_task()))
            await asyncio.sleep(0)
            assert await threads.run_until(lambda _: account_of_task()) == name

    try:
        await run_all([lambda: account("shop"), lambda: account("outlet")])
        assert await threads.run(account_of_task) is None
    finally:
        threads.close()
    assert sorted(map(str, started)) == ["outlet", "shop"]
