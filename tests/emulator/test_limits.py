"""Limits of the emulator: requests in flight, windows of time, open chains."""

from __future__ import annotations

import json
import time
from typing import Any

import anyio
import pytest

from altaprofiles.emulator import Emulator

from ..support.raw import JANUARY, Answer, ask, cdp, opened, page, records, walked
from ..support.waiting import until

pytestmark = pytest.mark.anyio

HOUR = 3600.0
"""A window that no test outlives."""

BY_ID = ("GET", "/1/profile.json?identity=5555555555")
COUNT = ("POST", "/1/counts/profiles.json")
LIMITS = (
    "max_in_flight",
    "lookups_max_in_flight",
    "counts_max_in_flight",
    "alta_max_in_flight",
    "clevertap_per_minute",
    "alta_per_minute",
    "alta_per_day",
    "max_open_chains",
)


async def bound(e: Emulator, number: int = 0) -> Answer:
    return await cdp(e, user_id=f"nobody{number}")


def is_refused(answer: Answer) -> bool:
    return answer.status != 200 or answer.json.get("code", 0) not in (0, 503)


# In flight


@pytest.mark.parametrize(
    ("settings", "call", "alone", "shared"),
    [
        ({}, BY_ID, "max_in_flight", 2),
        ({"lookups_max_in_flight": 2}, BY_ID, "lookups_max_in_flight", 2),
        ({"counts_max_in_flight": 2}, COUNT, "counts_max_in_flight", 2),
        ({"max_in_flight": 2}, COUNT, "counts_max_in_flight", 2),
    ],
)
async def test_each_kind_of_request_has_its_cap(
    settings: dict[str, Any], call: tuple[str, str], alone: str, shared: int
) -> None:
    async with Emulator(people=20, think=HOUR, **settings) as e:
        async with anyio.create_task_group() as tasks:
            pages = 1 if alone == "max_in_flight" else e.max_in_flight
            for _ in range(pages):
                tasks.start_soon(ask, e, "GET", "/1/profiles.json?cursor=x")
            await until(lambda: e.stats.in_flight["clevertap"] == pages)
            for _ in range(shared):
                tasks.start_soon(ask, e, *call, b"{}")
            await until(lambda: e.stats.in_flight["clevertap"] == pages + shared)
            assert e.stats.too_many == 0
            refused = await ask(e, *call, b"{}")
            assert (refused.status, refused.json["code"]) == (429, 429)
            assert e.stats.limited[alone] == e.stats.too_many == 1
            assert e.stats.rate_limited == 0
            tasks.cancel_scope.cancel()


async def test_alta_refuses_without_its_code() -> None:
    async with Emulator(people=20, think=HOUR, alta_max_in_flight=2) as e:
        async with anyio.create_task_group() as tasks:
            for number in range(2):
                tasks.start_soon(bound, e, number)
            await until(lambda: e.stats.in_flight["alta"] == 2)
            refused = await bound(e)
            assert refused.status == 429
            assert "code" not in refused.json
            assert "x-ratelimit-limit" not in refused.headers
            e.alta_envelope = "v1.5"
            refused = await bound(e)
            assert (refused.status, refused.json["error"]["status"]) == (429, 429)
            assert refused.json["error"]["code"] != "40008"
            assert e.stats.limited["alta_max_in_flight"] == e.stats.too_many == 2
            tasks.cancel_scope.cancel()


async def test_a_cap_changes_while_requests_are_in_flight() -> None:
    async with Emulator(people=20, think=HOUR) as e:
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(ask, e, *BY_ID)
            await until(lambda: e.stats.in_flight["clevertap"] == 3)
            assert (await ask(e, *BY_ID)).status == 429
            e.max_in_flight = 4
            tasks.start_soon(ask, e, *BY_ID)
            await until(lambda: e.stats.in_flight["clevertap"] == 4)
            e.lookups_max_in_flight = 5
            tasks.start_soon(ask, e, *BY_ID)
            await until(lambda: e.stats.in_flight["clevertap"] == 5)
            e.max_in_flight = 1
            tasks.start_soon(ask, e, "GET", "/1/profiles.json?cursor=x")
            await until(lambda: e.stats.in_flight["clevertap"] == 6)
            assert (await ask(e, *BY_ID)).status == 429
            assert (await ask(e, "GET", "/1/profiles.json?cursor=x")).status == 429
            assert e.stats.too_many == 3
            tasks.cancel_scope.cancel()


# Windows


async def test_a_window_admits_so_many_and_refuses_the_rest() -> None:
    async with Emulator(people=20, window_seconds=HOUR, clevertap_per_minute=5) as e:
        cursor = await opened(e)
        answers = [await page(e, cursor), await ask(e, *BY_ID), await ask(e, *COUNT, b"{}")]
        answers += [await ask(e, *BY_ID)]
        assert not any(answer.json.get("code") for answer in answers)
        refused = [await ask(e, "GET", f"/1/profile.json?identity={n}") for n in range(20)]
        assert {answer.json["code"] for answer in refused} == {1}
        assert {answer.status for answer in refused} == {200, 429}
        assert not any(name.startswith("x-ratelimit") for a in refused for name in a.headers)
        # Alta's requests are not CleverTap's, and wrong credentials are not the account's.
        assert not is_refused(await bound(e))
        wrong = await ask(e, *BY_ID, headers={"X-CleverTap-Passcode": "wrong"})
        assert wrong.status == 401
        assert e.stats.rate_limited == e.stats.limited["clevertap_per_minute"] == 20
        assert e.stats.too_many == 0
        e.clevertap_per_minute = 6
        assert (await ask(e, *BY_ID)).json["status"] == "success"
        assert (await ask(e, *BY_ID)).json["code"] == 1
        e.clevertap_per_minute = None
        assert (await ask(e, *BY_ID)).json["status"] == "success"


async def test_refused_requests_do_not_count() -> None:
    async with Emulator(people=20, window_seconds=HOUR, alta_per_minute=2) as e:
        for _ in range(2):
            assert not is_refused(await bound(e))
        for _ in range(10):
            assert is_refused(await bound(e))
        e.alta_per_minute = 4
        answers = [await bound(e) for _ in range(4)]
        assert list(map(is_refused, answers)) == [False, False, True, True]


async def test_alta_refuses_with_its_code_and_its_words() -> None:
    async with Emulator(people=20, window_seconds=HOUR, alta_per_minute=1) as e:
        await bound(e)
        refused = [await bound(e, number) for number in range(20)]
        assert {answer.status for answer in refused} == {200, 429}
        assert {answer.json["code"] for answer in refused} == {40008}
        assert all("RPM request limit exceeded" in answer.json["message"] for answer in refused)
        e.alta_envelope = "v1.5"
        errors = [(await bound(e, number)).json["error"] for number in range(20)]
        assert {error["code"] for error in errors} == {"40008", "RATE_LIMIT_EXCEEDED"}
        assert {error["status"] for error in errors} == {429}
        assert e.stats.rate_limited == e.stats.limited["alta_per_minute"] == 40


async def test_every_answer_of_alta_tells_what_remains() -> None:
    def told(answer: Answer) -> tuple[int, int]:
        return (
            int(answer.headers["x-ratelimit-limit"]),
            int(answer.headers["x-ratelimit-remaining"]),
        )

    async with Emulator(people=20, window_seconds=HOUR, alta_per_minute=3) as e:
        before = time.time()
        wrong = await ask(
            e, "GET", "/v1/user/get-user-cdp?user_id=x", headers={"Authorization": "Bearer no"}
        )
        assert told(wrong) == (3, 3)
        answers = [await bound(e, number) for number in range(4)]
        assert [told(answer) for answer in answers] == [(3, 2), (3, 1), (3, 0), (3, 0)]
        resets = {int(answer.headers["x-ratelimit-reset"]) for answer in answers}
        assert before + HOUR <= min(resets)
        assert max(resets) <= time.time() + HOUR + 1
        e.faults = {"html": 1.0}
        e.alta_per_minute = 5
        assert told(await bound(e)) == (5, 1)
        e.faults = {"truncated": 1.0}
        assert told(await bound(e)) == (5, 0)
        e.rate_limit_headers = False
        assert "x-ratelimit-limit" not in (await bound(e)).headers


async def test_of_two_windows_the_emptier_one_is_told() -> None:
    async with Emulator(people=20, window_seconds=HOUR, alta_per_minute=2, alta_per_day=3) as e:
        told = []
        for number in range(3):
            headers = (await bound(e, number)).headers
            told.append((headers["x-ratelimit-limit"], headers["x-ratelimit-remaining"]))
        assert told == [("2", "1"), ("2", "0"), ("2", "0")]
        e.alta_per_minute = None
        assert not is_refused(await bound(e))
        headers = (await bound(e)).headers
        assert (headers["x-ratelimit-limit"], headers["x-ratelimit-remaining"]) == ("3", "0")
        assert e.stats.limited["alta_per_day"] == e.stats.limited["alta_per_minute"] == 1
        # Both are used up, and the day lasts longer.
        e.alta_per_minute = 2
        headers = (await bound(e)).headers
        assert headers["x-ratelimit-limit"] == "3"
        assert int(headers["x-ratelimit-reset"]) > time.time() + 2 * HOUR


async def test_the_next_window_begins_when_one_is_over() -> None:
    async with Emulator(people=20, window_seconds=0.05, alta_per_minute=1) as e:
        for number in range(4):
            refusals = 0
            with anyio.fail_after(120):
                while is_refused(await bound(e, number)):
                    refusals += 1
        # A day is 1,440 minutes, and not over yet.
        e.alta_per_minute, e.alta_per_day = None, 2
        e.window_seconds = HOUR
        answers = [await bound(e, number) for number in range(3)]
        assert list(map(is_refused, answers)) == [False, False, True]
        assert e.stats.limited["alta_per_day"] == 1


# Open chains


async def test_a_chain_too_many_is_empty() -> None:
    async with Emulator(people=200, seed=1, max_open_chains=2, window_seconds=HOUR) as e:
        first, second, third = [await opened(e, "?batch_size=46") for _ in range(3)]
        assert (await page(e, third)).json == {"status": "success", "records": []}
        assert len(records(await walked(e, first))) > 150
        # The first is over. The second is still open, and so is the fourth.
        fourth = await opened(e, "?batch_size=46")
        fifth = await opened(e, "?batch_size=46")
        assert len(records(await walked(e, second))) > 150
        assert len(records(await walked(e, fourth))) > 150
        assert records(await walked(e, fifth)) == []
        assert e.stats.limited["max_open_chains"] == 2
        assert e.stats.too_many == e.stats.rate_limited == 0
        assert e.stats.faults["empty_chain"] == 0
        e.max_open_chains = None
        cursors = [await opened(e) for _ in range(5)]
        assert all([len(records(await walked(e, cursor))) > 150 for cursor in cursors])


async def test_a_chain_that_nothing_asks_for_is_not_open_for_ever() -> None:
    async with Emulator(people=200, seed=1, max_open_chains=1, window_seconds=0.05) as e:
        await opened(e)
        with anyio.fail_after(120):
            while not records(await walked(e, await opened(e))):
                await anyio.sleep(0.01)


# Settings


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("wrong", [0, -1, 2.5, "3", True])
async def test_a_limit_is_a_whole_number(name: str, wrong: Any) -> None:
    with pytest.raises(ValueError, match=f"{name} is {wrong!r}; use 1 or more"):
        Emulator(**{name: wrong})
    e = Emulator()
    with pytest.raises(ValueError, match=f"{name} is {wrong!r}"):
        setattr(e, name, wrong)
    setattr(e, name, 7)
    assert getattr(e, name) == 7


async def test_stats_are_the_same_over_http() -> None:
    async with Emulator(people=20, window_seconds=HOUR, alta_per_minute=1) as e:
        for _ in range(3):
            await bound(e)
        served = json.loads((await ask(e, "GET", "/stats")).body)
        assert served["rate_limited"] == 2
        assert served["limited"] == dict.fromkeys(LIMITS, 0) | {"alta_per_minute": 2}
        body = json.dumps(JANUARY).encode()
        assert (await ask(e, "POST", "/1/profiles.json", body)).status == 200
