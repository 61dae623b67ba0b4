"""Rate limits, waited out: by chains, lookups, exports and single calls, over real sockets."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from altaprofiles import (
    Alta,
    Attempt,
    ConfigurationError,
    Incomplete,
    RateLimited,
    Retry,
    Session,
)
from altaprofiles.emulator import Emulator

from ..support.servers import scripted
from ..support.sessions import EVENT, RANGE, delivered, expected, session_for

pytestmark = pytest.mark.anyio

WINDOW = 3.0
"""Seconds of the emulator's "minute"."""

SHORT = Retry(attempts=2, base_delay=0.002, max_delay=0.01)
"""Two attempts, so that a refusal which counts as one soon ends a call."""


def clearing(emulator: Emulator, refusals: int) -> Callable[[Attempt], None]:
    """Return a hook that ends the emulator's faults after so many refusals."""
    seen = 0

    def hook(attempt: Attempt) -> None:
        nonlocal seen
        seen += isinstance(attempt.error, RateLimited)
        if seen == refusals:
            emulator.faults = {}

    return hook


@pytest.mark.parametrize("headers", [True, False])
@pytest.mark.parametrize("api", ["cdp", "profiles"])
async def test_250_keys_under_a_limit_of_100_a_minute_all_arrive(api: str, headers: bool) -> None:
    async with (
        Emulator(
            people=300,
            alta_per_minute=100,
            clevertap_per_minute=100,
            window_seconds=WINDOW,
            rate_limit_headers=headers,
        ) as emulator,
        Session(clevertap=emulator.clevertap, alta=emulator.alta) as session,
    ):
        keys = [f"user_{number}" for number in range(250)]
        lookups = (
            session.cdp.get_many(keys, by="user_id")
            if api == "cdp"
            else session.profiles.get_many(keys, by="identity")
        )
        results = [lookup async for lookup in lookups]
    assert sorted(str(result.key) for result in results) == sorted(keys)
    assert [result.error for result in results if result.error] == []
    assert session.stats.throttles <= 0.15 * session.stats.requests


async def test_a_service_that_states_its_limit_has_to_refuse_nothing() -> None:
    async with (
        Emulator(people=300, alta_per_minute=40, window_seconds=WINDOW) as emulator,
        Session(alta=emulator.alta) as session,
    ):
        keys = [f"user_{number}" for number in range(100)]
        results = [lookup async for lookup in session.cdp.get_many(keys, by="user_id")]
        limit = session.stats.limits["Alta"]
        assert (limit.limit, limit.remaining) == (40, 20)
        assert limit.reset is not None
        assert abs(limit.reset - time.time()) < 60
    assert [result.error for result in results if result.error] == []
    assert session.stats.throttles == 0


async def test_a_chain_that_is_throttled_for_longer_than_its_attempts_goes_on() -> None:
    async with Emulator(people=200, faults={"throttled": 1.0}) as emulator:
        hook = clearing(emulator, 14)
        async with session_for(emulator, retry=SHORT, on_event=hook) as session:
            people = [one async for one in session.profiles.by_event(EVENT, **RANGE, batch_size=46)]
        assert delivered(people) == expected(emulator)


@pytest.mark.parametrize("fault", ["throttled", "too_many"])
async def test_lookups_that_are_refused_for_longer_than_their_attempts_go_on(fault: str) -> None:
    async with Emulator(people=200, faults={fault: 1.0}) as emulator:
        hook = clearing(emulator, 30)
        async with session_for(emulator, retry=SHORT, on_event=hook) as session:
            keys = [f"user_{number}" for number in range(100)]
            found = [one async for one in session.cdp.get_many(keys, by="user_id")]
            people = [one async for one in session.profiles.get_many(keys, by="identity")]
        assert [one.error for one in found if one.error] == []
        assert [one.error for one in people if one.error] == []
        assert len(found) == len(people) == 100


async def test_an_export_and_its_count_wait_as_well(tmp_path: Path) -> None:
    async with Emulator(people=200, faults={"throttled": 1.0}) as emulator:
        hook = clearing(emulator, 14)
        async with session_for(emulator, retry=SHORT, on_event=hook) as session:
            report = await session.export(
                EVENT, **RANGE, to=tmp_path / "people.ndjson", batch_size=46, count=True
            )
        assert report.people == sum(expected(emulator).values())
        assert report.counted is not None


async def test_a_single_call_has_its_attempts() -> None:
    async with Emulator(faults={"throttled": 1.0}) as emulator:
        retry = Retry(attempts=3, base_delay=0.001, max_delay=0.002)
        async with session_for(emulator, retry=retry) as session:
            with pytest.raises(RateLimited) as caught:
                await session.profiles.get(identity="user_7")
            assert caught.value.sent
            assert session.stats.requests == 3


async def test_bulk_work_gives_up_when_its_time_is_over() -> None:
    async with Emulator(faults={"throttled": 1.0}) as emulator:
        retry = Retry(base_delay=0.001, max_delay=0.01, throttle_timeout=0.2)
        async with session_for(emulator, retry=retry) as session:
            keys = [f"user_{number}" for number in range(50)]
            found = [one async for one in session.cdp.get_many(keys, by="user_id")]
            assert all(isinstance(one.error, RateLimited) for one in found)
            assert len(found) == 50
            with pytest.raises(RateLimited):
                async for _ in session.profiles.by_event(EVENT, **RANGE):
                    pass


async def refuse(head: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(
        b"HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/json\r\n"
        b"Retry-After: 3600\r\nContent-Length: 40\r\n\r\n"
        b'{"code":40008,"message":"Rate exceeded"}'
    )


@pytest.mark.parametrize(
    "limits", [{}, {"deadline": 30.0}, {"throttle_timeout": 30.0}, {"attempts": 1}]
)
async def test_a_wait_beyond_what_a_call_may_wait_fails_it_at_once(limits: Any) -> None:
    async with (
        scripted(refuse) as server,
        Session(alta=Alta("token", base_url=server.url), retry=Retry(**limits)) as session,
    ):
        with pytest.raises(RateLimited) as caught:
            await session.cdp.get(user_id="BC123")
        assert caught.value.retry_after == 3600
        assert len(server.heads) == 1


async def test_with_a_plan_used_up_until_tomorrow_nothing_more_is_sent() -> None:
    async with (
        Emulator(people=100, alta_per_day=20) as emulator,
        Session(alta=emulator.alta) as session,
    ):
        keys = [f"user_{number}" for number in range(60)]
        results = [one async for one in session.cdp.get_many(keys, by="user_id")]
        failed = [one.error for one in results if one.error is not None]
        assert len(results) == 60
        assert len(failed) == 40
        sent = session.stats.requests
        assert sent <= 36
        with pytest.raises(RateLimited) as caught:
            await session.cdp.get(user_id="BC123")
        assert session.stats.requests == sent
        limit = session.stats.limits["Alta"]
    error = caught.value
    assert not error.sent
    assert limit.remaining == 0
    assert error.reset == limit.reset
    assert "not sent" in str(error)
    assert "accepts requests again at 20" in str(error)
    assert "UTC" in str(error)


async def test_closing_the_session_ends_the_wait() -> None:
    async with Emulator(faults={"throttled": 1.0}) as emulator:
        refused = asyncio.Event()
        session = Session(
            alta=emulator.alta,
            retry=Retry(base_delay=300.0, max_delay=300.0, attempts=9),
            on_event=lambda attempt: refused.set(),
        )
        async with session:
            calls = [
                asyncio.create_task(session.cdp.get(user_id=f"user_{number}"))
                for number in range(8)
            ]
            await refused.wait()
            late = asyncio.create_task(session.cdp.get(user_id="late"))
            await asyncio.sleep(0)
        results = await asyncio.gather(*calls, late, return_exceptions=True)
    assert all(isinstance(result, ConfigurationError) for result in results), results


async def test_a_call_cancelled_while_it_waits_leaves_the_others_alone() -> None:
    async with Emulator(people=50, faults={"throttled": 1.0}) as emulator:
        hook = clearing(emulator, 12)
        retry = Retry(attempts=50, base_delay=0.01, max_delay=0.02)
        async with session_for(emulator, retry=retry, on_event=hook) as session:
            calls = [
                asyncio.create_task(session.cdp.get(user_id=f"user_{number}"))
                for number in range(30)
            ]
            while not session.stats.throttles:
                await asyncio.sleep(0.001)
            for call in calls[::2]:
                call.cancel()
            results = await asyncio.gather(*calls, return_exceptions=True)
            assert all(isinstance(result, dict) for result in results[1::2])
            # Every slot is free again.
            again = [one async for one in session.cdp.get_many(range(40), by="user_id")]
            assert [one.error for one in again if one.error] == []


async def test_the_log_says_once_that_everything_waits(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with Emulator(people=50, faults={"throttled": 1.0}) as emulator:
        hook = clearing(emulator, 24)
        async with session_for(emulator, retry=SHORT, on_event=hook) as session:
            with caplog.at_level(logging.WARNING, "altaprofiles"):
                async for _ in session.cdp.get_many(range(20), by="user_id"):
                    pass
    lines = [record.getMessage() for record in caplog.records]
    assert [line for line in lines if "every request to Alta waits" in line] == lines
    assert len(lines) == 1


async def test_an_export_that_was_throttled_for_too_long_is_resumed(
    tmp_path: Path,
) -> None:
    async with Emulator(people=200, faults={"throttled": 1.0}) as emulator:
        retry = Retry(base_delay=0.001, max_delay=0.01, throttle_timeout=0.1)
        async with session_for(emulator, retry=retry) as session:
            with pytest.raises((Incomplete, RateLimited)):
                await session.export(EVENT, **RANGE, to=tmp_path / "people.ndjson")
        emulator.faults = {}
        async with session_for(emulator) as session:
            report = await session.export(EVENT, **RANGE, to=tmp_path / "people.ndjson")
        assert report.people == sum(expected(emulator).values())


async def test_a_refusal_keeps_neither_its_request_nor_its_answer_alive() -> None:
    async with Emulator(faults={"throttled": 1.0}) as emulator:
        retry = Retry(attempts=1)
        async with session_for(emulator, retry=retry) as session:
            with pytest.raises(RateLimited) as caught:
                await session.cdp.get(user_id="user_7")
            gone = weakref.ref(caught.value)
            del caught
            gc.collect()
            assert gone() is None


async def test_an_attempt_to_close_the_session_elsewhere_sends_nothing() -> None:
    async with Emulator(people=100, think=0.05, alta_max_in_flight=2) as emulator:
        alta = Alta(emulator.alta.token, base_url=emulator.url, max_in_flight=2)
        async with Session(alta=alta) as session:
            calls = [
                asyncio.create_task(session.cdp.get(user_id=f"user_{number}"))
                for number in range(20)
            ]
            await asyncio.sleep(0)
            with pytest.raises(ConfigurationError, match="another event loop"):
                await asyncio.to_thread(asyncio.run, session.aclose())
            await asyncio.gather(*calls)
        assert emulator.stats.too_many == 0
