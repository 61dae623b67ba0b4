"""Rate limits, waited out: by chains, lookups, exports and single calls, over real sockets."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
import weakref
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from altaprofiles import (
    Alta,
    Attempt,
    CleverTap,
    ConfigurationError,
    Incomplete,
    RateLimited,
    Retry,
    Session,
)
from altaprofiles.emulator import Emulator
from altaprofiles.http.pace import Pace

from ..support.clock import Clock
from ..support.servers import scripted
from ..support.sessions import EVENT, RANGE, delivered, expected, session_for
from ..support.tasks import PATIENCE

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
async def test_250_keys_under_a_limit_of_100_a_minute_all_arrive(
    clock: Clock, api: str, headers: bool
) -> None:
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


async def test_a_service_that_states_its_limit_has_to_refuse_nothing(clock: Clock) -> None:
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


async def test_a_learned_rate_is_shown_and_reported_once(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        Emulator(
            people=300, alta_per_minute=100, window_seconds=WINDOW, rate_limit_headers=False
        ) as emulator,
        Session(alta=emulator.alta) as session,
    ):
        limit, rates = session.stats.limits["Alta"], []
        keys = [f"user_{number}" for number in range(250)]
        with caplog.at_level(logging.WARNING, "altaprofiles"):
            async for _ in session.cdp.get_many(keys, by="user_id"):
                rates.append(limit.rate)
        assert rates[0] is None
        assert any(rate is not None and rate < 2 * 100 / WINDOW for rate in rates)
        lines = [record.getMessage() for record in caplog.records]
        assert len([line for line in lines if "Alta is asked" in line]) == 1
        # It grows although nobody asks.
        clock.advance(1200.0)
        assert session.stats.limits["Alta"].rate is None


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


async def refuse_now(head: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(
        b"HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/json\r\n"
        b"Content-Length: 40\r\n\r\n"
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
    attempts: list[Attempt] = []
    async with (
        Emulator(people=100, alta_per_day=20) as emulator,
        Session(alta=emulator.alta, on_event=attempts.append) as session,
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
    assert error.retry_after is not None
    assert 0 < error.retry_after <= 24 * 60 * 60 + 2
    # A call that is not sent is reported, and counted, as is one that is.
    unsent = [one for one in attempts if one.status is None]
    assert unsent[-1].error is error
    assert len(unsent) == session.stats.unsent == 61 - 20 - session.stats.throttles
    assert len(attempts) == session.stats.requests + session.stats.unsent
    assert "not sent" in str(error)
    assert "accepts requests again at 20" in str(error)
    assert "UTC" in str(error)


async def test_a_last_request_that_is_served_says_when_there_are_more() -> None:
    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-RateLimit-Limit: 10\r\n"
            b"X-RateLimit-Remaining: 0\r\nX-RateLimit-Reset: 7200\r\nContent-Length: 20\r\n\r\n"
            b'{"code":0,"data":{}}'
        )

    async with scripted(answer) as server, Session(alta=Alta("t", base_url=server.url)) as session:
        await session.cdp.get(user_id="1")
        with pytest.raises(RateLimited) as caught:
            await session.cdp.get(user_id="2")
        assert len(server.heads) == 1
    error = caught.value
    assert not error.sent
    # No answer had this status.
    assert "429" not in str(error)
    assert "Alta has said that no request is left" in str(error)
    assert error.retry_after is not None
    assert 7000 < error.retry_after <= 7200


async def test_a_deadline_that_ends_while_the_service_refuses_everything_says_so() -> None:
    attempts: list[Attempt] = []
    retry = Retry(base_delay=60.0, max_delay=60.0, deadline=0.5)
    async with (
        scripted(refuse_now) as server,
        Session(
            alta=Alta("t", base_url=server.url), retry=retry, on_event=attempts.append
        ) as session,
    ):
        calls = [session.cdp.get(user_id=str(number)) for number in range(8)]
        await asyncio.gather(*calls, return_exceptions=True)
        sent = len(server.heads)
        with pytest.raises(RateLimited) as caught:
            await session.cdp.get(user_id="late")
        assert len(server.heads) == sent
    assert not caught.value.sent
    # The service asks for no wait. This is the session's own, with its jitter.
    assert caught.value.retry_after is not None
    assert 0 < caught.value.retry_after <= 60
    assert caught.value.reset is None
    assert "429" in str(caught.value)
    assert attempts[-1].error is caught.value
    assert attempts[-1].status is None


async def test_a_closed_service_that_answers_late_is_asked_by_one_request_at_a_time(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Pace, "PATIENCE", 600.0)
    asked, is_closed = 0, False
    release = asyncio.Event()

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        if is_closed:
            asked += 1
            await release.wait()
        await refuse_now(head, writer)

    retry = Retry(attempts=1, base_delay=0.001, max_delay=0.002)
    async with (
        scripted(answer) as server,
        Session(alta=Alta("t", base_url=server.url), retry=retry) as session,
    ):
        for number in range(6):
            with pytest.raises(RateLimited):
                await session.cdp.get(user_id=str(number))
        is_closed = True
        calls = [asyncio.create_task(session.cdp.get(user_id=str(one))) for one in range(40)]
        while not asked:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.5)
        assert asked == 1
        release.set()
        results = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(result, RateLimited) for result in results)


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


@pytest.mark.parametrize("shared", [False, True])
async def test_the_log_says_once_that_everything_waits_and_once_that_the_wait_is_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, shared: bool
) -> None:
    async with Emulator(people=50, faults={"throttled": 1.0}) as emulator:
        account = Alta(
            emulator.alta.token,
            base_url=emulator.url,
            shared=tmp_path / "slots" if shared else False,
        )
        hook = clearing(emulator, 24)
        with caplog.at_level(logging.INFO, "altaprofiles"):
            async with Session(alta=account, retry=SHORT, on_event=hook) as session:
                async for _ in session.cdp.get_many(range(20), by="user_id"):
                    pass
    begins, ends = caplog.records
    assert begins.getMessage().startswith("every request to Alta waits until it serves again")
    assert ends.getMessage() == "Alta serves again"
    assert (begins.levelname, ends.levelname) == ("WARNING", "INFO")


@pytest.mark.parametrize("shared", [False, True])
async def test_the_log_names_once_how_several_processes_share_the_limits(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, shared: bool
) -> None:
    async with Emulator(people=50) as emulator:
        hooks: list[Callable[[Attempt], None]] = []
        slots = tmp_path / "slots" if shared else False
        account = Alta(emulator.alta.token, base_url=emulator.url, shared=slots)
        async with Session(
            alta=account, retry=SHORT, on_event=lambda one: hooks[-1](one)
        ) as session:
            for _ in range(2):
                emulator.faults = {"throttled": 1.0}
                hooks.append(clearing(emulator, 24))
                async for _ in session.cdp.get_many(range(20), by="user_id"):
                    pass
    lines = [text for text in caplog.messages if "every request to Alta waits" in text]
    assert ["ALTAPROFILES_SHARED=1" in line for line in lines] == [not shared, False]


async def test_the_log_does_not_take_another_session_for_another_process(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with Emulator(people=50, faults={"throttled": 1.0}) as emulator:
        account = CleverTap(
            emulator.clevertap.account_id,
            emulator.clevertap.passcode,
            base_url=emulator.url,
            shared=tmp_path / "slots",
        )
        retry = Retry(base_delay=0.001, max_delay=0.01, throttle_timeout=0.1)
        async with (
            Session(clevertap=account, retry=retry) as one,
            Session(clevertap=account, retry=retry) as other,
        ):
            calls = (each.profiles.get(identity="a") for each in [one, other] * 8)
            await asyncio.gather(*calls, return_exceptions=True)
    [taken] = [text for text in caplog.messages if text.endswith("on the same account")]
    assert taken == (
        "every request to CleverTap waits until it serves again: it has refused those of another "
        "session on the same account"
    )


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("job", ["get_many", "export_lookups"])
async def test_bulk_lookups_that_stop_at_ten_failures_go_on_once_the_service_is_up(
    tmp_path: Path, job: str, shared: bool
) -> None:
    async with Emulator(people=100, faults={"too_many": 1.0}) as emulator:
        keys = [f"user_{number}" for number in range(50)]
        account = CleverTap(
            emulator.clevertap.account_id,
            emulator.clevertap.passcode,
            base_url=emulator.url,
            shared=tmp_path / "slots" if shared else False,
        )
        # Out of patience long before the service is up.
        retry = Retry(base_delay=0.001, max_delay=0.01, throttle_timeout=0.5)

        async def look_up(session: Session) -> None:
            if job == "export_lookups":
                await session.export_lookups(keys, by="identity", to=tmp_path / "found.ndjson")
                return
            failed = 0
            async with aclosing(session.profiles.get_many(keys, by="identity")) as lookups:
                async for one in lookups:
                    failed += one.error is not None
                    if one.error is not None and failed == 10:
                        raise one.error

        async def look_up_until_done(session: Session) -> None:
            while True:
                try:
                    return await look_up(session)
                except (Incomplete, RateLimited) as error:
                    await asyncio.sleep(getattr(error, "retry_after", None) or 0.01)

        async with Session(clevertap=account, retry=retry) as session:
            for _ in range(5):
                with pytest.raises((Incomplete, RateLimited)):
                    await look_up(session)
            emulator.faults = {}
            await asyncio.wait_for(look_up_until_done(session), PATIENCE)


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
