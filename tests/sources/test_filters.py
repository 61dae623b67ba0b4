"""Filters and everyone, end to end: people whom the emulator chooses by the same filters."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import Any

import pytest

from altaprofiles import BadRequest, CleverTap, Filter, Incomplete, Session
from altaprofiles.emulator import Emulator
from altaprofiles.wire.language import Filters
from altaprofiles.wire.query import EventQuery

from ..support.servers import http, in_turn, scripted
from ..support.sessions import EVENT, RANGE, delivered, sent, session_at, session_for

pytestmark = pytest.mark.anyio

GOLD = Filter("Customer Type", "equals", "Gold")


def people(emulator: Emulator, numbers: list[int]) -> Counter[frozenset[str]]:
    population = emulator.population
    return Counter(
        frozenset(
            [identity]
            if (identity := population.identity(number)) is not None
            else population.object_ids(number)
        )
        for number in numbers
    )


FILTERS: dict[str, dict[str, Any]] = {
    "number": {"event_properties": [Filter("Amount", "greater_than", 300)]},
    "range": {"event_properties": [Filter("Amount", "gte", 100.5), Filter("Amount", "lt", 400)]},
    "flag": {"event_properties": [Filter("Gift", "equals", True)]},
    "negation": {"event_properties": [Filter("Payment mode", "not_equals", "UPI")]},
    "part": {"event_properties": [Filter("Items", "contains", "café")]},
    "existence": {"event_properties": [Filter("Coupon", "not_exists")]},
    "profile": {"profile_fields": [GOLD]},
    "list": {"profile_fields": [Filter("Customer Type", "equals", ["Gold", "Silver"])]},
    "both": {
        "event_properties": [Filter("Coupon", "exists"), Filter("Amount", "lte", 500)],
        "profile_fields": [GOLD, Filter("Plan", "does_not_contain", "Pro ")],
    },
}


@pytest.mark.parametrize("name", FILTERS)
async def test_people_of_an_event_meet_all_filters(name: str) -> None:
    filters = FILTERS[name]
    async with Emulator(people=400, seed=5) as emulator, session_for(emulator) as session:
        truth = {key: sent(*value) for key, value in filters.items()}
        numbers = emulator.population.active("Charged", 20260101, 20260131, **truth)
        all_numbers = emulator.population.active("Charged", 20260101, 20260131)
        assert 0 < len(numbers) < len(all_numbers)
        for windows in (1, 3):
            query = session.profiles.by_event("Charged", **RANGE, **filters, windows=windows)
            found = [person async for person in query]
            assert delivered(found) == people(emulator, numbers)
        assert await session.profiles.count("Charged", **RANGE, **filters) == len(numbers)


async def test_a_query_holds_the_same_filters() -> None:
    query: dict[str, Any] = {
        "event_properties": [{"name": "Gift", "operator": "equals", "value": True}],
        "common_profile_properties": {
            "profile_fields": [
                {"name": "Customer Type", "operator": "not_contains", "value": "Gold"}
            ]
        },
    }
    filters: dict[str, Any] = {
        "event_properties": [Filter("Gift", "equals", True)],
        "profile_fields": [Filter("Customer Type", "does_not_contain", "Gold")],
    }
    async with Emulator(people=300) as emulator, session_for(emulator) as session:
        counts = [
            await session.profiles.count("Charged", **RANGE, query=query),
            await session.profiles.count("Charged", **RANGE, **filters),
        ]
        assert counts[0] == counts[1] > 0


async def test_everyone() -> None:
    async with Emulator(people=300) as emulator, session_for(emulator) as session:
        everyone = session.profiles.everyone(batch_size=46)
        windows = {page.window async for page in everyone.pages()}
        assert windows == {None}
        found = [person async for person in everyone]
        assert delivered(found) == people(emulator, emulator.population.everyone())
        assert len(found) == 300
        gold = [person async for person in session.profiles.everyone(profile_fields=[GOLD])]
        numbers = emulator.population.everyone(profile_fields=sent(GOLD))
        assert delivered(gold) == people(emulator, numbers)
        assert await session.profiles.count() == 300
        assert await session.profiles.count(profile_fields=[GOLD]) == len(numbers)
        plain = session.profiles.everyone(events=False, profile=False)
        records = [json.loads(record) async for page in plain.pages() for record in page.records]
    assert not any("events" in record or "profileData" in record for record in records)


async def test_a_cursor_goes_on_with_the_filters_that_opened_its_chain() -> None:
    async with Emulator(people=400) as emulator, session_for(emulator) as session:
        options: dict[str, Any] = {"batch_size": 46, "prefetch": 0}
        pages = session.profiles.everyone(profile_fields=[GOLD], **options).pages()
        first = await anext(pages)
        await pages.aclose()
        assert first.next_cursor is not None
        silver = [Filter("Customer Type", "equals", "Silver")]
        for rest in (
            session.profiles.everyone(profile_fields=silver, cursor=first.next_cursor, **options),
            session.profiles.by_event(EVENT, **RANGE, cursor=first.next_cursor, **options),
        ):
            found = [*first.profiles, *[person async for person in rest]]
            numbers = emulator.population.everyone(profile_fields=sent(GOLD))
            assert delivered(found) == people(emulator, numbers)


async def test_an_empty_chain_is_counted_with_its_filters() -> None:
    answers = [
        b'{"status":"success","cursor":"a%2F1"}',
        b'{"status":"success"}',
        b'{"status":"success","count":0}',
    ]
    async with scripted(in_turn(*map(http, answers))) as server, session_at(server) as session:
        everyone = session.profiles.everyone(profile_fields=[GOLD])
        assert [person async for person in everyone] == []
    bodies = [json.loads(body) for body in server.bodies if body]
    fields = [{"name": "Customer Type", "operator": "equals", "value": "Gold"}]
    assert bodies == [{"common_profile_properties": {"profile_fields": fields}}] * 2


async def test_the_sentence_on_an_empty_chain_says_that_it_is_everyone_s() -> None:
    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        member = b"count" if b"/counts/" in head else b"cursor"
        value = b"" if head.startswith(b"GET") else b',"%b":7' % member
        writer.write(http(b'{"status":"success"%b}' % value.replace(b'cursor":7', b'cursor":"7"')))

    async with scripted(answer) as server, session_at(server) as session:
        with pytest.raises(Incomplete) as caught:
            _ = [person async for person in session.profiles.everyone(profile_fields=[GOLD])]
    assert str(caught.value) == "everyone (filtered): 0 records, where the service counts 7"


DID: dict[str, Any] = {
    "event_name": "Charged",
    "event_properties": [{"name": "Email", "operator": "equals", "value": ["jane@example.com"]}],
}


@pytest.mark.parametrize(
    "filters",
    [
        {"profile_fields": [Filter("Email", "equals", "jane@example.com")]},
        {"event_properties": [Filter("Phone", "equals", 4915112345)], **RANGE, "event": "Charged"},
        {"query": {"advanced_query": {"did_all": [DID]}}},
    ],
    ids=str,
)
async def test_a_value_that_the_service_echoes_is_masked(filters: dict[str, Any]) -> None:
    value = "4915112345" if "event" in filters else "jane@example.com"
    words = json.dumps({"status": "fail", "code": 4002, "error": f"invalid value {value} here"})
    answer = http(words.encode(), "400 Bad Request")
    async with scripted(in_turn(answer)) as server, session_at(server) as session:
        with pytest.raises(BadRequest) as caught:
            await session.profiles.count(**filters)
    assert value not in str(caught.value)
    assert "invalid value *** here" in str(caught.value)


@pytest.mark.parametrize(
    ("group", "value"),
    [
        ({"demographics": {"email": "jane@example.com"}}, "jane@example.com"),
        ({"demographics": {"email": {"operator": "equals", "name": "Jane D"}}}, "Jane D"),
        ({"geo_fields": {"city": ["Springfield"]}}, "Springfield"),
        ({"geo_fields": {"USA": {"Springfield": True}}}, "Springfield"),
        ({"geo_fields": [{"country": "India", "city": "Oslo"}]}, "Oslo"),
        ({"technographics": {"carrier": "Jane Mobile"}}, "Jane Mobile"),
    ],
    ids=str,
)
async def test_the_values_of_groups_are_masked(group: dict[str, Any], value: str) -> None:
    words = json.dumps({"status": "fail", "code": 4002, "error": f"invalid city {value} here"})
    answer = http(words.encode(), "400 Bad Request")
    async with scripted(in_turn(answer)) as server, session_at(server) as session:
        with pytest.raises(BadRequest) as caught:
            await session.profiles.count(query={"common_profile_properties": group})
    assert "invalid city *** here" in str(caught.value)


@pytest.mark.parametrize(
    ("value", "echo"),
    [
        (4915112345678, "4.915112345678E12"),
        (4915112345678, "4.915112345678e+12"),
        (4915112345678, "4,915,112,345,678"),
        (100.0, "100"),
        (12.5, "12.50"),
    ],
)
async def test_a_number_is_masked_in_any_notation(value: float, echo: str) -> None:
    words = json.dumps({"status": "fail", "code": 4002, "error": f"invalid value {echo} here"})
    answer = http(words.encode(), "400 Bad Request")
    async with scripted(in_turn(answer)) as server, session_at(server) as session:
        with pytest.raises(BadRequest) as caught:
            await session.profiles.count(profile_fields=[Filter("Phone", "equals", value)])
    assert "invalid value *** here" in str(caught.value)


async def test_the_value_of_a_filter_is_masked_in_what_continues_a_query() -> None:
    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        line = head.split(b"\r\n", 1)[0]
        body = b'{"status":"fail","error":"ann@example.com is not indexed","code":4002}'
        if line.startswith(b"POST /1/counts"):
            body = b'{"status":"partial","req_id":"r1"}'
        elif line.startswith(b"POST"):
            body = b'{"status":"success","cursor":"abc"}'
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
            % (len(body), body)
        )

    conditions = [Filter("Email", "equals", "ann@example.com")]
    async with scripted(answer) as server:
        account = CleverTap("W9R", "secret", base_url=server.url)
        async with Session(clevertap=account) as session:
            with pytest.raises(BadRequest) as counted:
                await session.profiles.count("Charged", **RANGE, profile_fields=conditions)
            with pytest.raises(BadRequest) as walked:
                async for _ in session.profiles.by_event(
                    "Charged", **RANGE, profile_fields=conditions
                ):
                    pass
    for caught in (counted, walked):
        assert "is not indexed" in str(caught.value)
        assert "ann@" not in str(caught.value)


async def test_filters_do_not_show_their_values() -> None:
    filters = Filters.of((), [Filter("Email", "equals", "ann@example.com")])
    query = EventQuery.of("Charged", 20260101, 20260131, filters=filters)
    assert "ann@" not in repr(filters) + repr(query) + str(query)
