"""Queries as one process makes them and another one reads them."""

from __future__ import annotations

import pickle
from copy import deepcopy
from datetime import date
from typing import Any

import msgspec
import pytest

import altaprofiles
from altaprofiles import EventQuery, Filter, Filters, InvalidArgument, Session, windows
from altaprofiles.emulator import Emulator
from altaprofiles.export.plan import EventsPlan, KeysPlan

from ..support.sessions import EVENT, RANGE, delivered, expected, session_for

GOLD = Filters.of(
    [Filter("Amount", "greater_than", 100)], [Filter("Customer Type", "equals", "Gold")]
)

QUERIES = [
    EventQuery.of("Charged", date(2026, 1, 1), "2026-01-31"),
    EventQuery.of("Charged", 1767225600, 1767225609, 46, True, False, False, GOLD),
    EventQuery.of(None, None, None, filters=Filters.of((), [Filter("Age", "exists")])),
]


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_query_can_be_pickled(query: EventQuery, protocol: int) -> None:
    again = pickle.loads(pickle.dumps(query, protocol))  # noqa: S301
    assert again == query
    assert hash(again) == hash(query)
    assert again.members == query.members
    assert deepcopy(query) == query
    assert msgspec.json.decode(msgspec.json.encode(query), type=EventQuery) == query


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_shows_no_value_of_a_filter(query: EventQuery) -> None:
    assert "Gold" not in repr(query) + str(query)


@pytest.mark.parametrize("parts", [1, 3, 31, 400])
def test_parts_of_a_query_are_those_of_windows(parts: int) -> None:
    split = QUERIES[0].split(parts)
    assert [query.window for query in split] == windows("2026-01-01", 20260131, parts)
    assert {msgspec.structs.replace(query, start=1, end=2) for query in split} == {
        msgspec.structs.replace(QUERIES[0], start=1, end=2)
    }


@pytest.mark.parametrize("parts", [0, -1, True, 1.5, "2", None])
def test_a_query_is_not_split_into_anything_else(parts: Any) -> None:
    for query in QUERIES:
        with pytest.raises(InvalidArgument, match=r"^windows: expected a whole number of at least"):
            query.split(parts)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"event": ""}, "event: "),
        ({"event": 7}, "event: expected the name of an event, got 7"),
        ({"start": "soon"}, "start: 'soon' is not a day"),
        ({"end": 20251231}, "end: 20251231 is before `start`"),
        ({"batch_size": 50}, "batch_size: 50 is not a multiple of 23"),
        ({"app": 1}, "app: expected True or False"),
        ({"summaries": "no"}, "summaries: expected True or False"),
        ({"profile": None}, "profile: expected True or False"),
        ({"filters": [Filter("Amount", "greater_than", 100)]}, "filters: expected Filters.of"),
        ({"filters": None}, "filters: expected Filters.of"),
    ],
)
def test_a_query_that_cannot_work_is_refused(options: Any, words: str) -> None:
    values = {"event": "Charged", "start": 20260101, "end": 20260131} | options
    with pytest.raises(InvalidArgument) as caught:
        EventQuery.of(**values)
    assert str(caught.value).startswith(words)
    # One that was made without `of` is refused where it is read.
    session = Session(clevertap=altaprofiles.CleverTap("W9R", "passcode"))
    with pytest.raises(InvalidArgument) as caught:
        session.profiles.by_query(EventQuery(**values))
    assert str(caught.value).startswith(words)


@pytest.mark.parametrize("query", ["Charged", None, ("Charged", 20260101, 20260131), EventQuery])
def test_only_a_query_is_read(query: Any) -> None:
    session = Session(clevertap=altaprofiles.CleverTap("W9R", "passcode"))
    with pytest.raises(InvalidArgument, match=r"^query: expected EventQuery\.of\("):
        session.profiles.by_query(query)


@pytest.mark.anyio
async def test_parts_that_were_pickled_bring_everyone() -> None:
    whole = EventQuery.of(EVENT, **RANGE, batch_size=46, summaries=False)
    parts = [pickle.dumps(part) for part in whole.split(3)]
    people: set[frozenset[str]] = set()
    async with Emulator(people=300, seed=1) as emulator:
        for part in parts:
            async with session_for(emulator) as session:
                query = pickle.loads(part)  # noqa: S301
                found = [person async for person in session.profiles.by_query(query)]
                pages = session.profiles.by_query(query, distinct=False).pages(decode=False)
                read = [page async for page in pages]
                assert {page.window for page in read} == {query.window}
                sent = pickle.dumps(read)
                assert [page.records for page in pickle.loads(sent)] == [  # noqa: S301
                    page.records for page in read
                ]
                secret = emulator.environment["CLEVERTAP_PASSCODE"].encode()
                assert secret not in sent + part
            assert found
            assert not any(person.events for person in found)
            people |= delivered(found).keys()
        assert people == expected(emulator).keys()


@pytest.mark.anyio
async def test_a_query_brings_those_whom_arguments_bring() -> None:
    fields = [Filter("Customer Type", "equals", "Gold")]
    async with Emulator(people=300, seed=1) as emulator, session_for(emulator) as session:
        query = EventQuery.of(EVENT, **RANGE, filters=Filters.of(profile_fields=fields))
        reading = session.profiles.by_query(query)
        other = session.profiles.by_event(EVENT, **RANGE, profile_fields=fields)
        assert repr(reading) == repr(other)
        gold = delivered([person async for person in reading])
        assert gold == delivered([person async for person in other])
        assert 0 < len(gold) < len(expected(emulator))
        everyone = EventQuery.of(None, None, None)
        assert delivered([person async for person in session.profiles.by_query(everyone)]) == (
            delivered([person async for person in session.profiles.everyone()])
        )


@pytest.mark.anyio
async def test_a_chain_of_a_query_can_be_resumed() -> None:
    query = EventQuery.of(EVENT, **RANGE, batch_size=46)
    async with Emulator(people=300, seed=1) as emulator, session_for(emulator) as session:
        first = await anext(session.profiles.by_query(query).pages())
        rest = session.profiles.by_query(query, cursor=first.next_cursor, prefetch=0)
        people = delivered([*first.profiles, *[person async for person in rest]])
        assert people.keys() == expected(emulator).keys()


PLANS = [
    EventsPlan(
        "W9R", "https://eu1", ("Charged",), 20260101, 20260131, False, True, True, 2, filters=GOLD
    ),
    KeysPlan("W9R", "https://eu1", "identity", 2, "7f", with_cdp=True, cdp_account="t"),
]


@pytest.mark.parametrize("plan", PLANS)
def test_a_plan_can_be_pickled(plan: EventsPlan | KeysPlan) -> None:
    again = pickle.loads(pickle.dumps(plan))  # noqa: S301
    assert again == plan
    assert (again.name, again.encode()) == (plan.name, plan.encode())
    assert not isinstance(plan, EventsPlan) or again.queries == plan.queries
