"""Bulk work with long requests leaves slots free for single calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import anyio
import pytest

from altaprofiles import CleverTap, Session
from altaprofiles.http.limits import Cap
from altaprofiles.http.needs import Needs
from altaprofiles.http.pace import Pace
from altaprofiles.http.sizing import Size

from ..support.servers import http, scripted

FOUND = http(b'{"status":"success","record":{"identity":"7"}}')


# ---------------------------------------------------------------------------------------- the needs


def test_what_single_calls_have_needed_is_known_for_a_while() -> None:
    needs = Needs()
    assert needs.slots(0.0) == 0
    needs.note(3, 0.0)
    needs.note(1, 2.0)
    assert needs.slots(2.0) == 3
    assert needs.slots(Needs.LATELY + 1.0) == 1
    assert needs.slots(Needs.LATELY + 2.0) == 0


def test_a_need_that_stays_is_noted_now_and_then() -> None:
    needs = Needs()
    assert needs.is_new(1, 0.0)
    needs.note(2, 0.0)
    assert not needs.is_new(1, 0.1)
    assert not needs.is_new(2, 0.1)
    assert needs.is_new(3, 0.1)
    assert needs.is_new(2, 1.0)


@pytest.mark.parametrize(
    ("single", "bulk", "matter"),
    [
        (None, 1.0, False),
        (1.0, None, False),
        (1.0, 1.0, False),
        (1.0, 3.0, True),
        (3.0, 1.0, False),
    ],
)
def test_needs_matter_where_bulk_requests_take_longer(
    single: float | None, bulk: float | None, matter: bool
) -> None:
    needs = Needs()
    for seconds, is_bulk in ((single, False), (bulk, True)):
        if seconds is not None:
            needs.took(seconds, bulk=is_bulk)
    assert needs.matter is matter


@pytest.mark.parametrize(("slots", "pause"), [(1, 6.0), (2, 2.0), (3, 2 / 3), (4, 0.0), (16, 0.0)])
def test_bulk_work_has_a_quarter_of_the_time_of_all_slots(slots: int, pause: float) -> None:
    needs = Needs()
    needs.took(2.0, bulk=True)
    assert needs.pause(slots) == pytest.approx(pause)


def test_processes_share_what_is_needed() -> None:
    one, other = Needs(), Needs()
    one.took(1.0, bulk=False)
    other.took(3.0, bulk=True)
    one.note(2, 10.0)
    other.load(one.dump(), 10.0)
    assert other.slots(10.0) == 2
    assert other.matter
    # A clock of before this machine was started.
    other.load(one.dump(), -1000.0)
    assert other.slots(-1000.0 + Needs.LATELY) == 0


# ------------------------------------------------------------------------------------------ the cap


async def slow_bulk_work(cap: Cap) -> None:
    """Let a cap know that bulk requests take ten times as long as single calls."""
    for bulk, seconds in ((True, 1.0), (False, 0.1)):
        turn = await cap.acquire(bulk=bulk)
        cap.release(turn, is_answered=True)
        cap.succeeded(turn, seconds)


def cap_of(slots: int) -> Cap:
    return Cap(Size(slots, slots), Pace(floor=1.0), lambda: TimeoutError("refused"))


async def taken_by_bulk_work(cap: Cap, group: anyio.abc.TaskGroup) -> None:
    for _ in range(5):
        group.start_soon(acquire_bulk, cap)
    await anyio.wait_all_tasks_blocked()


async def acquire_bulk(cap: Cap) -> None:
    await cap.acquire(bulk=True)


@pytest.mark.anyio
async def test_bulk_work_leaves_the_slots_that_single_calls_need() -> None:
    cap = cap_of(4)
    await slow_bulk_work(cap)
    singles = [await cap.acquire() for _ in range(2)]
    for turn in singles:
        cap.release(turn)
    async with anyio.create_task_group() as group:
        await taken_by_bulk_work(cap, group)
        assert cap.in_flight == 2
        # A single call that comes has its slot at once.
        turn = await cap.acquire()
        assert cap.in_flight == 3
        cap.release(turn)
        await anyio.wait_all_tasks_blocked()
        assert cap.in_flight == 2
        group.cancel_scope.cancel()


@pytest.mark.anyio
async def test_bulk_work_as_quick_as_single_calls_leaves_nothing() -> None:
    cap = cap_of(3)
    for bulk in (True, False):
        turn = await cap.acquire(bulk=bulk)
        cap.release(turn, is_answered=True)
        cap.succeeded(turn, 0.1)
    async with anyio.create_task_group() as group:
        await taken_by_bulk_work(cap, group)
        assert cap.in_flight == 3
        group.cancel_scope.cancel()


@pytest.mark.anyio
async def test_bulk_work_has_all_slots_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Needs, "LATELY", 0.05)
    monkeypatch.setattr(Needs, "_RENEWAL", 0.01)
    cap = cap_of(3)
    await slow_bulk_work(cap)
    async with anyio.create_task_group() as group:
        await taken_by_bulk_work(cap, group)
        while cap.in_flight < 3:
            await asyncio.sleep(0.001)
        group.cancel_scope.cancel()


# ----------------------------------------------------------------------------------------- sessions


@asynccontextmanager
async def two_sessions(url: str, shared: Path | None) -> AsyncIterator[tuple[Session, Session]]:
    """Open a session for single calls, and one for pages: the same one, or one that shares."""
    account = CleverTap("ACCOUNT", "pass-4711", base_url=url, shared=shared or False)
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(Session(clevertap=account))
        if shared is None:
            yield one, one
        else:
            yield one, await stack.enter_async_context(Session(clevertap=account))


@pytest.mark.anyio
@pytest.mark.parametrize("shared", [False, True], ids=["one session", "two that share"])
async def test_pages_leave_a_slot_to_calls_one_after_the_other(
    shared: bool, tmp_path: Path
) -> None:
    pages, in_flight, most = 0, 0, 0

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        nonlocal pages, in_flight, most
        if head.startswith(b"GET /1/profile.json"):
            await asyncio.sleep(0.003)
            writer.write(FOUND)
        elif head.startswith(b"POST"):
            writer.write(http(b'{"status":"success","cursor":"c"}'))
        else:
            pages += 1
            in_flight += 1
            if pages > 16:
                # By then it is known that pages take longer.
                most = max(most, in_flight)
            await asyncio.sleep(0.15)
            in_flight -= 1
            body = b'{"status":"success","next_cursor":"c%d","records":[{"identity":"%d"}]}'
            writer.write(http(body % (pages, pages)))

    async with scripted(answer) as server:
        async with two_sessions(server.url, tmp_path / "slots" if shared else None) as (one, other):

            async def call() -> None:
                while pages < 30:
                    await one.profiles.get(identity="7")

            people = other.profiles.by_event("Charged", start=20260101, end=20260103, windows=3)
            async with anyio.create_task_group() as group:
                group.start_soon(call)
                async for _ in people.pages():
                    if pages >= 30:
                        break
    assert most == 2
