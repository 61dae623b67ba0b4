"""Lookups by ID and their bulk forms, with the emulator."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

import altaprofiles
from altaprofiles import (
    Alta,
    CleverTap,
    Forbidden,
    InvalidArgument,
    Lookup,
    Profile,
    ServerError,
    Session,
    StatusError,
    Unauthorized,
)
from altaprofiles.emulator import Emulator, Fault

from ..support.servers import always, http, scripted
from ..support.sessions import EVENT, QUICK, RANGE, delivered, expected, session_for
from ..support.tasks import PATIENCE

pytestmark = pytest.mark.anyio


def identities(emulator: Emulator, count: int) -> list[str]:
    every = (emulator.population.identity(index) for index in range(len(emulator.population)))
    return list(itertools.islice(filter(None, every), count))


async def test_one_person_by_each_identifier() -> None:
    async with Emulator(people=50) as emulator, session_for(emulator) as session:
        by_identity = await session.profiles.get(identity="5555555555")
        assert by_identity is not None
        assert by_identity.profile_data == {"favoriteFood": "pizza"}
        assert by_identity.events["Charged"].count == 6
        assert await session.profiles.get(identity=5555555555) == by_identity
        device = by_identity.object_ids[0]
        assert await session.profiles.get(object_id=device) == by_identity
        by_email = await session.profiles.get(email="jack+test@example.com")
        assert by_email is not None
        assert by_email.profile_data["High Score"] == 308


async def test_every_kind_of_identifier_survives_the_query_string() -> None:
    async with Emulator(people=400, seed=9) as emulator, session_for(emulator) as session:
        keys = identities(emulator, 400)
        assert any(set(key) & set("+&#/ %?") for key in keys)
        async for lookup in session.profiles.get_many(keys, by="identity"):
            assert lookup.value is not None, lookup
            assert lookup.value.identity == lookup.key


async def test_unknown_ids_are_none_in_every_form_the_service_has() -> None:
    async with Emulator(people=5) as emulator, session_for(emulator) as session:
        keys = [f"nobody-{number}" for number in range(60)]
        profiles = [lookup async for lookup in session.profiles.get_many(keys, by="identity")]
        users = [lookup async for lookup in session.cdp.get_many(keys, by="user_id")]
        anonymous = [lookup async for lookup in session.cdp.get_many(keys, by="anonymous_id")]
        for found in (profiles, users, anonymous):
            assert {(lookup.value, lookup.error) for lookup in found} == {(None, None)}
        assert await session.profiles.get(email="nobody@example.com") is None
        assert await session.cdp.get(user_id="nobody") == {}


async def test_cdp_answers_all_three_questions() -> None:
    async with Emulator(people=5) as emulator, session_for(emulator) as session:
        both = await session.cdp.get(anonymous_id="aId3")
        assert list(both) == ["user1", "67b58121035e5b152b0419ee"]
        assert both["user1"].anonymous_ids[0].conversation_type == "WEB"
        assert list(await session.cdp.get(user_id="BC123")) == ["BC123"]
        pair = await session.cdp.get(user_id="user1", anonymous_id="aId3")
        assert list(pair) == ["user1"]
        assert await session.cdp.get(user_id="BC123", anonymous_id="aId3") == {}


@pytest.mark.parametrize("ordered", [False, True])
async def test_every_key_has_one_result_also_repeated_ones(ordered: bool) -> None:
    async with Emulator(people=100, seed=10, faults={Fault.SERVER_ERROR: 0.3}) as emulator:
        async with session_for(emulator) as session:
            keys = identities(emulator, 80) * 2 + ["nobody"]
            lookups = session.profiles.get_many(keys, by="identity", ordered=ordered)
            results = [lookup.key async for lookup in lookups]
            assert Counter(results) == Counter(keys)
            if ordered:
                assert results == keys


async def test_keys_may_come_from_an_async_generator() -> None:
    async def keys() -> AsyncIterator[int]:
        for number in range(40):
            yield number

    async with Emulator(people=5) as emulator, session_for(emulator) as session:
        lookups = session.profiles.get_many(keys(), by="identity", ordered=True)
        assert [lookup.key async for lookup in lookups] == list(range(40))


async def test_a_bad_key_is_its_own_error_only() -> None:
    async with Emulator(people=5) as emulator, session_for(emulator) as session:
        keys = ["5555555555", "", "tab\t", "5555555555"]
        results: list[Lookup[Profile]] = [
            lookup async for lookup in session.profiles.get_many(keys, by="identity", ordered=True)
        ]
        assert [lookup.value is not None for lookup in results] == [True, False, False, True]
        assert [type(lookup.error) for lookup in results[1:3]] == [InvalidArgument] * 2
        assert session.stats.requests == 2


async def test_an_outage_fails_each_key_and_ends_none() -> None:
    async with Emulator(people=5, faults={Fault.SERVER_ERROR: 1.0}) as emulator:
        async with session_for(emulator) as session:
            keys = [str(number) for number in range(30)]
            lookups = [lookup async for lookup in session.profiles.get_many(keys, by="identity")]
            assert len(lookups) == 30
            assert {type(lookup.error) for lookup in lookups} == {ServerError}
            users = [lookup async for lookup in session.cdp.get_many(keys, by="user_id")]
            assert {type(lookup.error) for lookup in users} == {ServerError}


async def test_refused_credentials_end_a_bulk_lookup() -> None:
    async with Emulator(people=5) as emulator:
        account = CleverTap("nobody", "no-such-passcode", base_url=emulator.url)
        agent = Alta("wrong", base_url=emulator.url)
        async with Session(clevertap=account, alta=agent, retry=QUICK) as session:
            keys = itertools.count()
            with pytest.raises(Unauthorized):
                async for _ in session.profiles.get_many(keys, by="identity"):
                    pass
            with pytest.raises(Unauthorized):
                async for _ in session.cdp.get_many(keys, by="user_id"):
                    pass


PERMANENT = [
    (b'{"code":40127,"message":"Developer authentication failed"}', Unauthorized, "endpoint="),
    (b'{"code":"40378","message":"Agent deleted"}', Forbidden, "agent was deleted"),
    (b'{"code":20055,"message":"no"}', Forbidden, "switched off for this agent"),
    (b'{"code":200116,"message":"no"}', Forbidden, "does not support this feature"),
    (b'{"code":403131,"message":"no"}', Forbidden, "lacks this permission"),
    (
        b'{"error":{"code":"40379","message":"no credits","status":400}}',
        Forbidden,
        "credits are used up",
    ),
    (b'{"error":{"code":"NO_PLAN","message":"no","status":403}}', Forbidden, "permission"),
]


@pytest.mark.parametrize("status", ["200 OK", "403 Forbidden", "429 Too Many", "500 Oops"])
@pytest.mark.parametrize(("body", "kind", "words"), PERMANENT)
async def test_a_permanent_refusal_by_alta_ends_a_bulk_lookup_at_once(
    body: bytes, kind: type[StatusError], words: str, status: str
) -> None:
    async with (
        scripted(always(http(body, status))) as server,
        Session(alta=Alta("t", base_url=server.url, max_in_flight=2), retry=QUICK) as session,
    ):
        with pytest.raises(kind, match=words):
            await session.cdp.get(user_id="u")
        assert len(server.heads) == 1
        with pytest.raises(kind, match=words):
            async for _ in session.cdp.get_many(itertools.count(), by="user_id"):
                pass
        people = (Profile.decode(b'{"identity":"%d"}' % number) for number in itertools.count())
        with pytest.raises(kind, match=words):
            async for _ in session.with_cdp(people):
                pass
        # At most one request of each slot, none twice.
        assert len(server.heads) <= 1 + 2 * 2
        assert session.stats.retries == 0


async def test_the_form_of_v15_is_read_from_end_to_end() -> None:
    users = b'{"u":{"anonymous_ids":[{"anonymous_id":"a","conversation_type":"C"}]}}'

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        data = users if b"user_id=u " in head else b"{}"
        writer.write(http(b'{"data":%b,"meta":{},"links":{}}' % data))

    async with (
        scripted(answer) as server,
        Session(alta=Alta("t", base_url=server.url), retry=QUICK) as session,
    ):
        lookups = session.cdp.get_many(["u", "nobody"], by="user_id", ordered=True)
        [found, unknown] = [lookup async for lookup in lookups]
        assert found.value is not None
        assert found.value["u"].anonymous_ids[0].anonymous_id == "a"
        assert (unknown.value, unknown.error) == (None, None)


async def test_a_failing_source_is_raised_after_what_was_taken_from_it() -> None:
    def keys() -> Iterator[str]:
        yield from ("a", "b", "c")
        raise OSError("the disk is gone")

    async with Emulator(people=5) as emulator, session_for(emulator) as session:
        results = []
        with pytest.raises(OSError, match="the disk is gone"):
            async for lookup in session.profiles.get_many(keys(), by="identity"):
                results.append(lookup.key)
        assert sorted(map(str, results)) == ["a", "b", "c"]


async def test_an_endless_source_is_read_only_a_little_ahead() -> None:
    async with Emulator(people=5) as emulator, session_for(emulator) as session:
        taken = itertools.count()
        keys = (str(next(taken)) for _ in itertools.repeat(None))
        done = 0
        async for _ in session.profiles.get_many(keys, by="identity", concurrency=5):
            done += 1
            if done == 500:
                break
        assert next(taken) <= 500 + 4 * 5


async def test_joining_keeps_every_profile() -> None:
    async with Emulator(people=300, seed=11, faults={Fault.THROTTLED: 0.2}) as emulator:
        async with session_for(emulator) as session:
            joined = [
                customer
                async for customer in session.with_cdp(
                    session.profiles.by_event(EVENT, **RANGE), ordered=True
                )
            ]
        people = [customer.profile for customer in joined if customer.profile is not None]
        assert delivered(people) == expected(emulator)
        for customer in joined:
            assert customer.profile is not None
            identity = customer.profile.identity
            bound = {} if identity is None else emulator.bindings.by_user(identity) or {}
            assert customer.error is None
            assert sorted(customer.cdp) == sorted(bound)


async def test_a_failed_join_still_delivers_the_profile() -> None:
    async with Emulator(people=30, seed=11) as emulator, session_for(emulator) as session:
        people = [person async for person in session.profiles.by_event(EVENT, **RANGE)]
        emulator.faults = {Fault.HTML: 1.0}
        joined = [customer async for customer in session.with_cdp(people)]
        assert len(joined) == len(people)
        with_identity = [c for c in joined if c.profile and c.profile.identity is not None]
        assert all(customer.error is not None for customer in with_identity)
        assert {len(customer.cdp) for customer in joined} == {0}


async def test_an_export_that_fails_ends_the_join_with_its_own_error() -> None:
    async with Emulator(people=300, seed=11) as emulator, session_for(emulator) as session:
        people = session.profiles.by_event(EVENT, **RANGE, batch_size=23, prefetch=0)
        seen = 0
        with pytest.raises(ServerError):
            async for _ in session.with_cdp(people):
                seen += 1
                if seen == 30:
                    emulator.faults = {Fault.SERVER_ERROR: 1.0}
        assert seen >= 30


async def test_joining_what_are_no_people_says_what_to_pass() -> None:
    async with Emulator(people=30) as emulator, session_for(emulator) as session:
        pages: Any = session.profiles.by_event(EVENT, **RANGE).pages()
        with pytest.raises(InvalidArgument, match=r"profiles\[0\]: .* without \.pages\(\)"):
            async for _ in session.with_cdp(pages):
                pass


async def test_keys_of_other_libraries_are_taken_for_what_they_are() -> None:
    class Integer:
        def __index__(self) -> int:
            return 5555555555

    class Text(str):
        __slots__ = ()

    keys: list[Any] = [Integer(), Text("5555555555"), 10**5000]
    async with Emulator(people=5) as emulator, session_for(emulator) as session:
        lookups = session.profiles.get_many(keys, by="identity", ordered=True)
        found = [(lookup.value is not None, type(lookup.error)) async for lookup in lookups]
        assert found == [(True, type(None)), (True, type(None)), (False, InvalidArgument)]
        people = session.profiles.by_event(Text(EVENT), **RANGE)
        assert [person async for person in people]


async def test_a_retry_that_is_over_leaves_no_worker_beside_the_others() -> None:
    served = active = most = 0

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        nonlocal served, active, most
        served += 1
        if served == 1:
            writer.write(http(b"", "503 Service Unavailable"))
            return
        active += 1
        most = max(most, active) if served > 20 else 0
        await asyncio.sleep(0.005)
        active -= 1
        writer.write(http(b'{"status":"success","record":{"identity":"7"}}'))

    async with (
        scripted(answer) as server,
        Session(clevertap=CleverTap("A", "p", base_url=server.url), retry=QUICK) as session,
    ):
        lookups = session.profiles.get_many(range(40), by="identity", concurrency=1)
        assert len([lookup async for lookup in lookups]) == 40
    assert most == 1


# --------------------------------------------------------------------- ordered, and one key is late


MANY = 1000
"""Results that come before a late one: more than a few for each of two slots."""


def record(key: str, size: int = 0) -> bytes:
    """Return an answer of either API for a key."""
    note = "n" * size
    person = b'"record":{"identity":"%b","note":"%b"}' % (key.encode(), note.encode())
    users = b'"%b":{"anonymous_ids":[{"anonymous_id":"a%b"}]}' % (key.encode(), note.encode())
    return http(b'{"status":"success",%b,"code":0,"data":{%b}}' % (person, users))


def looked_up(session: Session, kind: str, keys: Iterable[int]) -> AsyncIterator[Any]:
    """Return the results of `keys` in their order, by one of the calls that have `ordered`."""
    if kind == "profiles":
        return session.profiles.get_many(keys, by="identity", ordered=True)
    if kind == "cdp":
        return session.cdp.get_many(keys, by="user_id", ordered=True)
    people = (Profile.decode(b'{"identity":"%d"}' % key) for key in keys)
    return session.with_cdp(people, ordered=True)


def key_of(result: Any) -> int:
    """Return the key of a result that has a value and no error."""
    assert result.error is None
    if isinstance(result, Lookup):
        assert result.value
        return int(result.key)
    assert result.cdp
    return int(result.profile.identity)


class Late:
    """Answers every key at once, but the key 0 when `release` is set."""

    def __init__(self, most: int, size: int = 0) -> None:
        self.release = asyncio.Event()
        self.others = 0
        self._most = most
        self._size = size

    async def __call__(self, head: bytes, writer: asyncio.StreamWriter) -> None:
        key = head.split(b" ", 2)[1].partition(b"=")[2].decode()
        if key == "0":
            await self.release.wait()
        else:
            self.others += 1
            if self.others == self._most:
                self.release.set()
        writer.write(record(key, self._size))


@asynccontextmanager
async def late_at(late: Late) -> AsyncIterator[Callable[[], Session]]:
    """Serve `late`, and yield a function that makes a session of two slots for it."""
    async with scripted(late) as server:
        yield lambda: Session(
            clevertap=CleverTap("A", "p", base_url=server.url, max_in_flight=2),
            alta=Alta("t", base_url=server.url, max_in_flight=2),
            retry=QUICK,
        )


@pytest.mark.parametrize("kind", ["profiles", "cdp", "joins"])
async def test_an_answer_that_is_late_holds_up_no_other_key(kind: str) -> None:
    """The service answers the first key only after a thousand others."""
    async with late_at(Late(MANY)) as make_session, make_session() as session:
        results = looked_up(session, kind, range(MANY + 1))
        with anyio.fail_after(PATIENCE):
            assert [key_of(result) async for result in results] == list(range(MANY + 1))


async def test_an_answer_that_is_late_holds_up_no_other_key_without_an_event_loop() -> None:
    async with late_at(Late(MANY)) as make_session:

        def read() -> list[int]:
            with altaprofiles.blocking(make_session) as session:
                results = session.profiles.get_many(range(MANY + 1), by="identity", ordered=True)
                return [*map(key_of, results)]

        with anyio.fail_after(PATIENCE):
            found = await anyio.to_thread.run_sync(read, abandon_on_cancel=True)
        assert found == list(range(MANY + 1))


@pytest.mark.parametrize("kind", ["profiles", "cdp", "joins"])
async def test_large_results_that_wait_for_a_late_one_are_bounded_by_bytes(kind: str) -> None:
    """Half a megabyte each: 32 MB are 64, beside four for each of two slots."""
    late = Late(MANY, size=1 << 19)
    async with late_at(late) as make_session, make_session() as session:
        results = looked_up(session, kind, itertools.count())
        reading = asyncio.ensure_future(anext(results))
        before = -1
        while late.others > before or not late.others:
            before = late.others
            await asyncio.sleep(0.2)
        # A machine that is too slow may have come to fewer of them.
        assert 1 <= late.others <= 64 + 4 * 2
        late.release.set()
        found = [key_of(await reading), *[key_of(await anext(results)) for _ in range(100)]]
        assert found == list(range(101))


async def test_people_without_an_identity_wait_for_a_late_one_in_bounded_memory() -> None:
    """No request is made for them, so they arrive as fast as they are read."""
    taken = 0

    def people() -> Iterator[Profile]:
        nonlocal taken
        yield Profile.decode(b'{"identity":"0"}')
        note = b"n" * (1 << 17)
        for taken in itertools.count(1):
            yield Profile.decode(b'{"objectId":"o%d","note":"%b"}' % (taken, note))

    late = Late(MANY)
    async with late_at(late) as make_session, make_session() as session:
        customers = session.with_cdp(people(), ordered=True)
        reading = asyncio.ensure_future(anext(customers))
        before = -1
        while taken > before or not taken:
            before = taken
            await asyncio.sleep(0.2)
        assert taken <= 256 + 4 * 2
        late.release.set()
        assert key_of(await reading) == 0
        found = [await anext(customers) for _ in range(400)]
        assert [one.profile and one.profile.object_ids for one in found] == [
            [f"o{number}"] for number in range(1, 401)
        ]
        await customers.aclose()
