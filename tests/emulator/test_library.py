"""The library against the emulator's settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from altaprofiles import (
    Alta,
    Attempt,
    BadRequest,
    CleverTap,
    Filter,
    Forbidden,
    Incomplete,
    NotReady,
    RateLimited,
    Retry,
    ServerError,
    Session,
    StatusError,
    Unauthorized,
)
from altaprofiles.emulator import Emulator, Recorder
from altaprofiles.emulator.settings import ALTA_ERRORS

from ..support.raw import ask, opened, walked
from ..support.sessions import EVENT, QUICK, RANGE, delivered, expected, session_for

pytestmark = pytest.mark.anyio


def keys_of(emulator: Emulator) -> list[str]:
    people = emulator.population
    identities = map(people.identity, range(len(people)))
    return [identity for identity in identities if identity is not None]


async def test_the_envelope_of_v1_5_tells_the_same() -> None:
    async with Emulator(people=150, seed=3, alta_envelope="v1.5") as emulator:
        async with session_for(emulator) as session:
            found = {
                lookup.key: lookup.value
                async for lookup in session.cdp.get_many(keys_of(emulator), by="user_id")
            }
            for key, users in found.items():
                bound = emulator.bindings.by_user(str(key))
                assert bool(users) == bool(bound)
                assert {
                    name: [
                        (one.anonymous_id, one.conversation_type, one.source_id)
                        for one in user.anonymous_ids
                    ]
                    for name, user in (users or {}).items()
                } == {
                    name: [
                        (one["anonymous_id"], one["conversation_type"], one.get("source_id"))
                        for one in user["anonymous_ids"]
                    ]
                    for name, user in bound.items()
                }
        assert len(found) == len(keys_of(emulator))


KINDS: dict[int, type[StatusError]] = {
    40000: BadRequest,
    40008: RateLimited,
    50000: ServerError,
    **dict.fromkeys((40107, 40113, 40127), Unauthorized),
}


@pytest.mark.parametrize("envelope", ["classic", "v1.5"])
@pytest.mark.parametrize("code", ALTA_ERRORS)
async def test_every_documented_error_of_alta(code: int, envelope: Any) -> None:
    async with Emulator(people=10, alta_error=code, alta_envelope=envelope) as emulator:
        for number in range(8):
            async with session_for(emulator, retry=Retry(attempts=1)) as session:
                with pytest.raises(StatusError) as caught:
                    await session.cdp.get(user_id=f"user{number}")
            assert type(caught.value) is KINDS.get(code, Forbidden)
            assert ALTA_ERRORS[code] in caught.value.message


async def test_what_dooms_all_keys_of_alta_ends_a_bulk_lookup() -> None:
    async with Emulator(people=10, alta_error=20055) as emulator:
        async with session_for(emulator) as session:
            with pytest.raises(Forbidden, match="API function is disabled"):
                async for _ in session.cdp.get_many(map(str, range(1000)), by="user_id"):
                    pass
        assert emulator.stats.requests["cdp"] <= 20


async def test_a_chain_too_many_is_not_the_end() -> None:
    async with Emulator(people=100, seed=3, max_open_chains=1, window_seconds=3600) as emulator:
        other = await opened(emulator, "?batch_size=46")
        async with session_for(emulator) as session:
            with pytest.raises(Incomplete):
                async for _ in session.profiles.by_event(EVENT, **RANGE):
                    pass
            assert emulator.stats.limited["max_open_chains"] == 3
            await walked(emulator, other)
            people = [person async for person in session.profiles.by_event(EVENT, **RANGE)]
            assert delivered(people) == expected(emulator)


async def test_real_records_are_read_whole() -> None:
    async with Emulator(people=300, seed=3, record_size="real") as emulator:
        async with session_for(emulator) as session:
            query = session.profiles.by_event(EVENT, **RANGE, batch_size=115)
            people = [person async for person in query]
            assert delivered(people) == expected(emulator)
            assert max(len(person.events) for person in people) > 150
            devices = [device for person in people for device in person.platform_info]
            assert any(device.last_seen_at and device.location for device in devices)
            assert any(person.last_seen_at for person in people)


async def test_an_export_of_everyone_tells_that_the_account_wants_an_event(tmp_path: Path) -> None:
    async with Emulator(people=50, seed=3, base_query="required") as emulator:
        async with session_for(emulator) as session:
            with pytest.raises(BadRequest, match="event_name, from and to are required") as caught:
                await session.export(to=tmp_path / "everyone.ndjson")
        assert caught.value.code == 4002
        assert emulator.stats.requests["open_chain"] <= 1


async def test_an_export_by_email_brings_whoever_has_one() -> None:
    async with Emulator(people=200, seed=3, base_query="with_filters") as emulator:
        async with session_for(emulator) as session:
            people = session.profiles.everyone(profile_fields=[Filter("Email", "exists")])
            emails = [person.email async for person in people]
        population = emulator.population
        expected_emails = {population.email(n) for n in range(200)} - {None}
        assert set(emails) == expected_emails


async def test_a_session_follows_a_rotation_from_outside() -> None:
    async with Emulator(records=[{"identity": "1"}], bindings={"1": ["a1"]}) as e:
        secrets = {"passcode": e.passcode, "token": e.token}

        async def rotate(name: str) -> None:
            secrets[name] = f"new-{name}"
            body = json.dumps(secrets[name]).encode()
            answer = await ask(e, "PUT", f"/{name}", body)
            assert (answer.status, answer.body) == (204, b"")

        clevertap = CleverTap(
            e.environment["CLEVERTAP_ACCOUNT_ID"], lambda: secrets["passcode"], base_url=e.url
        )
        alta = Alta(lambda: secrets["token"], base_url=e.url, name="agent")
        async with Session(clevertap=clevertap, alta=alta) as session:
            for name in (None, "passcode", "token"):
                if name is not None:
                    await rotate(name)
                assert await session.profiles.get(identity="1")
                assert list(await session.cdp.get(user_id="1")) == ["1"]
        assert (e.passcode, e.token) == ("new-passcode", "new-token")


async def test_a_count_is_polled_until_it_is_ready() -> None:
    async with Emulator(people=100, seed=3, faults={"counting_not_ready": 1}) as emulator:

        def end(attempt: Attempt) -> None:
            if emulator.stats.requests["count"] == 6:
                emulator.faults = {}

        async with session_for(emulator, retry=Retry(attempts=1), on_event=end) as session:
            found = await session.profiles.count(EVENT, **RANGE)
        assert found == expected(emulator).total()
        assert emulator.stats.faults["counting_not_ready"] == 6


async def test_a_count_that_never_gets_ready_ends_with_its_time() -> None:
    retry = Retry(base_delay=0.001, max_delay=0.001, ready_timeout=0.05)
    async with Emulator(people=100, seed=3, faults={"counting_not_ready": 1}) as emulator:
        async with session_for(emulator, retry=retry) as session:
            with pytest.raises(NotReady, match="still counting"):
                await session.profiles.count(EVENT, **RANGE)
        assert emulator.stats.requests["count"] == emulator.stats.faults["counting_not_ready"] > 1


async def test_a_count_of_a_replay_is_as_it_was_recorded(tmp_path: Path) -> None:
    file = tmp_path / "run.ndjson"
    async with Emulator(people=100, seed=3) as emulator:
        async with (
            Recorder(file, clevertap=emulator.clevertap) as recorder,
            Session(clevertap=recorder.clevertap, retry=QUICK) as session,
        ):
            counted = await session.profiles.count(EVENT, **RANGE)
    async with Emulator(replay=file, faults={"counting_not_ready": 1}) as emulator:
        async with session_for(emulator) as session:
            assert await session.profiles.count(EVENT, **RANGE) == counted
        assert emulator.stats.faults["counting_not_ready"] == 0


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("people.ndjson", {}),
        ("people.csv", {}),
        ("people.parquet", {"flatten": ["Plan"]}),
        ("people.duckdb", {"flatten": ["Plan"]}),
    ],
)
async def test_odd_records_stop_no_export(
    tmp_path: Path, name: str, options: dict[str, Any]
) -> None:
    async with Emulator(people=200, seed=3, faults={"odd_record": 0.5}) as emulator:
        async with session_for(emulator) as session:
            query = session.profiles.by_event(EVENT, **RANGE, windows=3, batch_size=46)
            people = [person async for person in query]
            assert delivered(people) == expected(emulator)
            report = await session.export(EVENT, **RANGE, to=tmp_path / name, count=True, **options)
        assert report.complete
        assert report.counted == {EVENT: len(people)}
        assert report.people == len(people)
        assert emulator.stats.faults["odd_record"] > 0
