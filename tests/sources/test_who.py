"""`Session.who_is`: the customers behind one key, from either side."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from altaprofiles import (
    Alta,
    BadRequest,
    CleverTap,
    ConfigurationError,
    Customer,
    ServerError,
    Session,
    Unauthorized,
)
from altaprofiles.emulator import Emulator

from ..support.joining import DOWN, NO_TOKEN, Both, both, user
from ..support.servers import http
from ..support.sessions import session_for

pytestmark = pytest.mark.anyio


@pytest.fixture
async def services() -> AsyncIterator[Both]:
    async with both() as services:
        services.people = {
            "7": b'{"identity":7,"email":"jack@example.com"}',
            "jack@example.com": b'{"identity":7,"email":"jack@example.com"}',
            "device": b'{"objectId":"device"}',
        }
        services.users = {
            "7": [user("7", "a1")],
            "a1": [user("generated", "a1"), user("7", "a1", "a2")],
            "only at alta": [user("only at alta")],
        }
        yield services


def shown(customers: list[Customer]) -> list[tuple[str | None, list[str]]]:
    return [
        (None if one.profile is None else one.profile.raw.decode(), [*one.cdp]) for one in customers
    ]


JACK = '{"identity":7,"email":"jack@example.com"}'


@pytest.mark.parametrize(
    ("key", "customers"),
    [
        ({"email": "jack@example.com"}, [(JACK, ["7"])]),
        ({"identity": 7}, [(JACK, ["7"])]),
        ({"object_id": "device"}, [('{"objectId":"device"}', [])]),
        ({"user_id": "7"}, [(JACK, ["7"])]),
        ({"user_id": "only at alta"}, [(None, ["only at alta"])]),
        # In the order in which Alta sends them.
        ({"anonymous_id": "a1"}, [(None, ["generated"]), (JACK, ["7"])]),
        *(({by: "nobody"}, []) for by in ("email", "identity", "user_id", "anonymous_id")),
    ],
)
async def test_who_is(
    services: Both, key: dict[str, Any], customers: list[tuple[str | None, list[str]]]
) -> None:
    async with services.session() as session:
        found = await session.who_is(**key)
    assert shown(found) == customers
    assert all(one.error is None for one in found)


async def test_a_user_with_no_profile_and_a_profile_with_no_user(services: Both) -> None:
    services.people["8"] = b'{"identity":"8"}'
    async with services.session() as session:
        assert shown(await session.who_is(user_id="8")) == [('{"identity":"8"}', [])]
        assert shown(await session.who_is(identity="8")) == [('{"identity":"8"}', [])]


async def test_half_a_character_is_not_asked_for_as_another(services: Both) -> None:
    services.people["x@example.com"] = b'{"identity":"x\\ud83d"}'
    services.people["x\ufffd"] = b'{"identity":"x\\ufffd"}'
    services.users["x\ufffd"] = [user("x\ufffd")]
    services.answers["half"] = http(
        b'{"code":0,"data":{"x\\ud83d":{"user_id":"x\\ud83d","anonymous_ids":[]}}}'
    )
    async with services.session() as session:
        [customer] = await session.who_is(email="x@example.com")
        assert customer.profile is not None
        assert customer.cdp == {}
        assert isinstance(customer.error, ConfigurationError)
        assert services.asked == []
        [unknown] = await session.who_is(anonymous_id="half")
        assert unknown.profile is None


async def test_users_of_one_anonymous_id_are_asked_for_side_by_side() -> None:
    """CleverTap answers none of them before it has all requests that its cap allows."""
    waiting = 0
    full = asyncio.Event()

    class Slow(Both):
        async def __call__(self, head: bytes, writer: asyncio.StreamWriter) -> None:
            nonlocal waiting
            if b"profile.json" in head:
                waiting += 1
                if waiting == 3:
                    full.set()
                with anyio.fail_after(60):
                    await full.wait()
            await super().__call__(head, writer)

    async with both(Slow()) as services:
        services.users["a"] = [user(f"{n}", "a") for n in range(6)]
        services.people = {f"{n}": b'{"identity":"%d"}' % n for n in range(6)}
        async with services.session() as session:
            customers = await session.who_is(anonymous_id="a")
    assert [[*one.cdp] for one in customers] == [[f"{n}"] for n in range(6)]
    assert all(one.profile and [one.profile.identity] == [*one.cdp] for one in customers)


@pytest.mark.parametrize(
    "key",
    [{"user_id": "7"}, {"identity": "7"}, {"anonymous_id": "7"}],
    ids=lambda key: next(iter(key)),
)
@pytest.mark.parametrize(("answer", "error"), [(DOWN, ServerError), (NO_TOKEN, Unauthorized)])
async def test_errors_of_alta_are_raised(
    services: Both, key: dict[str, Any], answer: bytes, error: type[Exception]
) -> None:
    services.answer = answer
    async with services.session() as session:
        with pytest.raises(error):
            await session.who_is(**key)


async def test_errors_of_clevertap_are_raised() -> None:
    class Refusing(Both):
        async def __call__(self, head: bytes, writer: asyncio.StreamWriter) -> None:
            if b"profile.json" in head:
                body = b'{"status":"fail","error":"no","code":400}'
                writer.write(http(body, "400 Bad Request"))
                return
            await super().__call__(head, writer)

    async with both(Refusing()) as services:
        services.users = {"a": [user("u", "a")], "u": [user("u", "a")]}
        async with services.session() as session:
            keys: list[dict[str, Any]] = [{"email": "x"}, {"user_id": "u"}, {"anonymous_id": "a"}]
            for key in keys:
                with pytest.raises(BadRequest):
                    await session.who_is(**key)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({}, "pass exactly one, got none, as None counts as not given"),
        ({"email": "a", "user_id": "b"}, "pass exactly one, got email, user_id"),
        ({"email": ""}, "email: empty"),
        ({"anonymous_id": "a\n"}, "anonymous_id: "),
        ({"user_id": 1.5}, "user_id: "),
        ({"identity": "\ud83d"}, "identity: "),
    ],
)
async def test_bad_input(services: Both, keys: dict[str, Any], words: str) -> None:
    async with services.session() as session:
        with pytest.raises(ConfigurationError, match=words):
            await session.who_is(**keys)
    assert services.requests == 0


async def test_it_takes_the_credentials_of_both(services: Both) -> None:
    for only, missing in (("clevertap", "Alta"), ("alta", "CleverTap")):
        clevertap = CleverTap("TEST", "PASS", base_url=services.url)
        alta = Alta("TOKEN", base_url=services.url)
        options: dict[str, Any] = {only: {"clevertap": clevertap, "alta": alta}[only]}
        async with Session(**options) as session:
            with pytest.raises(ConfigurationError, match=f"no {missing} credentials"):
                await session.who_is(user_id="7")
    assert services.requests == 0


async def test_everybody_of_an_emulator() -> None:
    async with Emulator(people=60, seed=2) as emulator, session_for(emulator) as session:
        shared = 0
        for number in range(60):
            identity = emulator.population.identity(number)
            if identity is None or not (bound := emulator.bindings.by_user(str(identity))):
                continue
            [customer] = await session.who_is(identity=identity)
            assert shown([customer]) == shown(await session.who_is(user_id=identity))
            anonymous_id = bound[str(identity)]["anonymous_ids"][0]["anonymous_id"]
            customers = await session.who_is(anonymous_id=anonymous_id)
            assert [one for one in customers if one.profile == customer.profile] == [customer]
            shared += len(customers) > 1
            assert all(one.profile is None for one in customers if one != customer)
    assert shared > 1
