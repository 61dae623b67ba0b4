"""`max_in_flight="auto"` over real sockets: what is documented is kept, and the rest is found."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from altaprofiles import Alta, CleverTap, Session
from altaprofiles.emulator import Emulator

from ..support.sessions import EVENT, RANGE, delivered, expected

pytestmark = pytest.mark.anyio


def searching(emulator: Emulator) -> Session:
    clevertap = emulator.clevertap
    return Session(
        clevertap=CleverTap(
            clevertap.account_id,
            clevertap.passcode,
            base_url=emulator.url,
            max_in_flight="auto",
        ),
        alta=Alta(emulator.alta.token, base_url=emulator.url, max_in_flight="auto"),
    )


async def keys_of(lookups: Any) -> list[str]:
    found = [lookup async for lookup in lookups]
    assert [lookup.error for lookup in found if lookup.error is not None] == []
    return sorted(str(lookup.key) for lookup in found)


async def test_chains_and_counts_keep_the_documented_limit_while_lookups_go_beyond_it() -> None:
    keys = [f"user_{number}" for number in range(400)]
    async with (
        Emulator(people=400, think=0.005, lookups_max_in_flight=40) as emulator,
        searching(emulator) as session,
    ):
        events = session.profiles.by_event(EVENT, **RANGE, batch_size=23, windows=6)
        people, looked_up, *counts = await asyncio.gather(
            asyncio.create_task(_all(events)),
            asyncio.create_task(keys_of(session.profiles.get_many(keys, by="identity"))),
            *(session.profiles.count(EVENT, **RANGE) for _ in range(20)),
        )
        assert delivered(people) == expected(emulator)
        assert looked_up == sorted(keys)
        assert len({*counts}) == 1
        limited = emulator.stats.limited
        assert (limited["max_in_flight"], limited["counts_max_in_flight"]) == (0, 0)


async def _all(events: Any) -> list[Any]:
    return [person async for person in events]


@pytest.mark.parametrize("hidden", [1, 3, 8])
async def test_a_hidden_limit_of_either_service_costs_few_refusals_and_no_key(hidden: int) -> None:
    keys = [f"user_{number}" for number in range(600)]
    async with (
        Emulator(
            people=600, think=0.002, alta_max_in_flight=hidden, lookups_max_in_flight=hidden
        ) as emulator,
        searching(emulator) as session,
    ):
        assert await keys_of(session.cdp.get_many(keys, by="user_id")) == sorted(keys)
        assert await keys_of(session.profiles.get_many(keys, by="identity")) == sorted(keys)
        assert emulator.stats.too_many < 0.1 * session.stats.requests


async def test_a_limit_that_falls_midway_is_followed() -> None:
    keys = [f"user_{number}" for number in range(600)]
    async with (
        Emulator(people=600, think=0.002, alta_max_in_flight=12) as emulator,
        searching(emulator) as session,
    ):
        found = []
        async for lookup in session.cdp.get_many(keys, by="user_id"):
            found.append(lookup)
            if len(found) == 300:
                emulator.alta_max_in_flight = 2
        assert [lookup.error for lookup in found if lookup.error is not None] == []
        assert len(found) == 600
        assert emulator.stats.too_many < 0.1 * session.stats.requests


@pytest.mark.parametrize(("api", "first"), [("clevertap", 3), ("alta", 4)])
async def test_lookups_go_beyond_the_first_number_where_nothing_is_refused(
    api: str, first: int
) -> None:
    keys = [f"user_{number}" for number in range(100)]
    async with (
        Emulator(people=600, think=0.005, lookups_max_in_flight=100) as emulator,
        searching(emulator) as session,
    ):
        lookups = (
            session.profiles.get_many(keys, by="identity")
            if api == "clevertap"
            else session.cdp.get_many(keys, by="user_id")
        )
        assert await keys_of(lookups) == sorted(keys)
        assert emulator.stats.peak_in_flight[api] > first
