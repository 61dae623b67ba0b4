"""Queries of the emulator: filters, everyone, and refusals that name a part."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from altaprofiles.emulator import Emulator
from altaprofiles.emulator.filters import read_filters
from altaprofiles.emulator.people import Population
from altaprofiles.emulator.properties import EVENT_PROPERTIES

from ..support.raw import JANUARY, ask, opened, page, records, walked

pytestmark = pytest.mark.anyio

Query = dict[str, Any]
CHARGED: Query = JANUARY | {"event_name": "Charged"}


def one(name: str, operator: str, *value: Any) -> Query:
    """Return a filter, without a value if there is none."""
    return {"name": name, "operator": operator, **dict(zip(("value",), value, strict=False))}


def of_profile(*filters: Query) -> Query:
    return {"common_profile_properties": {"profile_fields": list(filters)}}


async def sent_for(e: Emulator, body: Query) -> list[Any]:
    """Return the records of all pages for a query."""
    return records(await walked(e, await opened(e, "?batch_size=230", body)))


async def counted(e: Emulator, body: Query) -> int:
    answer = await ask(e, "POST", "/1/counts/profiles.json", json.dumps(body).encode())
    while answer.json["status"] == "partial":
        target = f"/1/counts/profiles.json?req_id={answer.json['req_id']}"
        answer = await ask(e, "GET", target)
    return int(answer.json["count"])


def data(record: Any) -> dict[str, Any]:
    found: dict[str, Any] = record["profileData"]
    return found


def scored(record: Any, compare: Callable[[float], bool]) -> bool:
    """Compare a score that is a number, or a text that reads as one."""
    score = data(record).get("Last Score")
    if isinstance(score, bool) or not isinstance(score, int | float | str) or score == "n/a":
        return False
    return compare(float(score))


def texts(value: Any) -> list[str]:
    return [part for part in (value if isinstance(value, list) else [value]) if type(part) is str]


CASES: dict[str, tuple[Query, Callable[[Any], bool]]] = {
    "equals": (
        one("Customer Type", "equals", "Gold"),
        lambda r: data(r).get("Customer Type") == "Gold",
    ),
    "equals one of several": (
        one("Customer Type", "equals", ["Gold", "Silver"]),
        lambda r: data(r).get("Customer Type") in ("Gold", "Silver"),
    ),
    "equals minds the case": (one("Customer Type", "equals", "gold"), lambda r: False),
    "equals a number or its text": (
        one("Last Score", "equals", 308),
        lambda r: data(r).get("Last Score") in (308, "308"),
    ),
    "equals a text that is a number": (
        one("Last Score", "equals", "308"),
        lambda r: data(r).get("Last Score") in (308, "308"),
    ),
    "equals a number beyond a float": (
        one("Last Score", "equals", 9007199254740993),
        lambda r: data(r).get("Last Score") == 9007199254740993,
    ),
    "no such neighbour": (one("Last Score", "equals", 9007199254740992), lambda r: False),
    "equals a boolean": (
        one("Replayed", "equals", "True"),
        lambda r: data(r).get("Replayed") is True,
    ),
    "equals the other boolean": (
        one("MSG-email", "equals", "False"),
        lambda r: data(r).get("MSG-email") is False,
    ),
    "a number is no boolean": (
        one("Replayed", "equals", 1),
        lambda r: data(r).get("Replayed") == 1 and data(r)["Replayed"] is not True,
    ),
    "equals an element": (
        one("Interests", "equals", "books"),
        lambda r: "books" in data(r).get("Interests", ()),
    ),
    "not_equals": (
        one("Customer Type", "not_equals", "Gold"),
        lambda r: data(r).get("Customer Type") != "Gold",
    ),
    "contains": (
        one("note", "contains", "next_cursor"),
        lambda r: "next_cursor" in data(r).get("note", ""),
    ),
    "contains in an element": (
        one("Tags", "contains", "vip"),
        lambda r: any("vip" in text for text in texts(data(r).get("Tags"))),
    ),
    "contains a number": (
        one("Address", "contains", 7),
        lambda r: any("7" in text for text in texts(data(r).get("Address"))),
    ),
    "does_not_contain": (
        one("note", "does_not_contain", "next_cursor"),
        lambda r: "next_cursor" not in data(r).get("note", ""),
    ),
    "exists": (one("Plan", "exists"), lambda r: data(r).get("Plan") is not None),
    "exists has a value": (
        one("Plan", "exists", "-1"),
        lambda r: data(r).get("Plan") is not None,
    ),
    "does_not_exist": (
        one("Loyalty ID", "does_not_exist"),
        lambda r: "Loyalty ID" not in data(r),
    ),
    "greater_than": (
        one("Last Score", "greater_than", 12.25),
        lambda r: scored(r, lambda score: score > 12.25),
    ),
    "greater_than_equals": (
        one("Last Score", "greater_than_equals", 12.25),
        lambda r: scored(r, lambda score: score >= 12.25),
    ),
    "less_than": (
        one("Last Score", "less_than", 0),
        lambda r: scored(r, lambda score: score < 0),
    ),
    "less_than_equals": (
        one("Last Score", "less_than_equals", 0),
        lambda r: scored(r, lambda score: score <= 0),
    ),
    "an unknown property exists for nobody": (one("Shoe Size", "exists"), lambda r: False),
    "an unknown property is unequal": (one("Shoe Size", "not_equals", 7), lambda r: True),
}


@pytest.mark.parametrize(("sent", "holds"), CASES.values(), ids=CASES)
async def test_a_filter_of_profiles_is_evaluated(sent: Query, holds: Callable[[Any], bool]) -> None:
    async with Emulator(people=400, seed=3) as e:
        body = JANUARY | of_profile(sent)
        everyone = await sent_for(e, JANUARY)
        found = await sent_for(e, body)
        assert found == [record for record in everyone if holds(record)]
        assert await counted(e, body) == len(found)
        numbers = e.population.active("App Launched", 20260101, 20260131, profile_fields=[sent])
        assert len(numbers) == len(found)


STANDARD: dict[str, tuple[Query, Callable[[Any], bool]]] = {
    "Email": (one("Email", "exists"), lambda r: "email" in r),
    "no Email": (one("Email", "does_not_exist"), lambda r: "email" not in r),
    "Email contains": (
        one("Email", "contains", "@example.org"),
        lambda r: "@example.org" in r.get("email", ""),
    ),
    "Name": (one("Name", "equals", "Ana Sousa"), lambda r: r.get("name") == "Ana Sousa"),
    "Phone": (one("Phone", "exists"), lambda r: "phone" in r),
    "Phone as a number": (
        one("Phone", "less_than", 12_025_550_200),
        lambda r: isinstance(r.get("phone"), int) and r["phone"] < 12_025_550_200,
    ),
    "Identity": (one("Identity", "exists"), lambda r: "identity" in r),
    "Identity contains": (
        one("Identity", "contains", "user_"),
        lambda r: "user_" in str(r.get("identity")),
    ),
}


@pytest.mark.parametrize(("sent", "holds"), STANDARD.values(), ids=STANDARD)
async def test_a_filter_of_standard_fields_is_evaluated(
    sent: Query, holds: Callable[[Any], bool]
) -> None:
    async with Emulator(people=800, seed=3) as e:
        people = await sent_for(e, {})
        found = await sent_for(e, of_profile(sent))
        assert found == [record for record in people if holds(record)]
        assert 0 < len(found) < len(people)
        assert len(e.population.everyone(profile_fields=[sent])) == len(found)
        assert await counted(e, of_profile(sent)) == len(found)
        active = [r for r in await sent_for(e, JANUARY) if holds(r)]
        assert await sent_for(e, JANUARY | of_profile(sent)) == active
        numbers = e.population.active("App Launched", 20260101, 20260131, profile_fields=[sent])
        assert len(numbers) == len(active)


@pytest.mark.parametrize("name", ["email", "EMAIL", "name", "phone", "identity"])
async def test_a_standard_field_has_the_name_that_the_dashboard_shows(name: str) -> None:
    async with Emulator(people=100, seed=3) as e:
        assert await sent_for(e, of_profile(one(name, "exists"))) == []


def test_an_identity_that_is_a_number_equals_its_text() -> None:
    people = Population(200, 3)
    for index in range(200):
        identity = people.identity(index)
        if identity is not None:
            sent = one("Identity", "equals", identity)
            assert people.everyone(profile_fields=[sent]) == [index]


@pytest.mark.parametrize(
    ("held", "operator", "value", "holds"),
    [
        ("007", "equals", 7, False),
        ("007", "equals", "7", False),
        ("007", "equals", "007", True),
        ("1E2", "equals", "100", False),
        ("1E2", "equals", 100, False),
        ("1E2", "not_equals", "100", True),
        ("100.0", "equals", "100", False),
        ("100.0", "equals", 100, True),
        (100, "equals", "100.0", True),
        (100, "equals", "1E2", False),
        (100, "equals", 100.0, True),
        (7, "equals", "007", False),
        ("-4", "less_than", 0, True),
        ("1E2", "greater_than", 1, False),
        (" 7", "equals", 7, False),
        ("\u0667", "equals", 7, False),
        (["007", "7"], "equals", 7, True),
        (True, "equals", 1, False),
    ],
)
def test_texts_are_compared_as_texts(
    held: object, operator: str, value: object, holds: bool
) -> None:
    (sent,) = read_filters([one("x", operator, value)], "profile_fields")
    assert sent.holds({"x": held}) is holds


GOLD = of_profile(one("Customer Type", "equals", "Gold"))


@pytest.mark.parametrize(
    ("base_query", "body", "is_refused"),
    [
        ("optional", {}, False),
        ("optional", GOLD, False),
        ("with_filters", {}, True),
        ("with_filters", {"event_properties": []}, True),
        ("with_filters", of_profile(), True),
        ("with_filters", GOLD, False),
        ("with_filters", JANUARY, False),
        ("with_filters", {"event_name": "-1"} | GOLD, False),
        ("required", {}, True),
        ("required", GOLD, True),
        ("required", JANUARY, False),
        ("required", JANUARY | GOLD, False),
        ("required", {"event_name": "-1"} | GOLD, False),
    ],
)
async def test_a_query_without_an_event_can_be_refused(
    base_query: Any, body: Query, is_refused: bool
) -> None:
    async with Emulator(people=50, seed=3, base_query=base_query) as e:
        for path in ("/1/profiles.json", "/1/counts/profiles.json"):
            answer = await ask(e, "POST", path, json.dumps(body).encode())
            if is_refused:
                assert (answer.status, answer.json["code"]) == (400, 4002)
                assert answer.json["status"] == "fail"
                assert "event_name, from and to" in answer.json["error"]
            else:
                assert answer.status == 200
        e.base_query = "optional"
        assert (await ask(e, "POST", path, json.dumps(body).encode())).status == 200


@pytest.mark.parametrize(
    ("newer", "documented"),
    [
        ("gt", "greater_than"),
        ("gte", "greater_than_equals"),
        ("lt", "less_than"),
        ("lte", "less_than_equals"),
        ("not_contains", "does_not_contain"),
        ("not_exists", "does_not_exist"),
    ],
)
async def test_newer_spellings_mean_the_same(newer: str, documented: str) -> None:
    async with Emulator(people=300, seed=3) as e:
        value = "12" if "contains" in newer else 12.25
        found, same = [
            await sent_for(e, JANUARY | of_profile(one("Last Score", spelling, value)))
            for spelling in (newer, documented)
        ]
        assert [record.get("identity") for record in found] == [
            record.get("identity") for record in same
        ]
        assert found


async def test_filters_of_events_are_evaluated() -> None:
    async with Emulator(people=600, seed=3) as e:
        people = e.population
        everyone = people.active("Charged", 20260101, 20260131)
        amounts = {n: people.event_properties(n, "Charged")["Amount"] for n in everyone}
        rich = await sent_for(
            e, CHARGED | {"event_properties": [one("Amount", "greater_than", 300)]}
        )
        expected = [n for n in everyone if amounts[n] > 300]
        assert 0 < len(expected) < len(everyone)
        assert [r.get("identity") for r in rich] == [
            people.record(n).get("identity") for n in expected
        ]
        assert expected == people.active(
            "Charged", 20260101, 20260131, event_properties=[one("Amount", "gt", 300)]
        )
        # A person charges the same each time, so that the parts of a range make the whole.
        poor = CHARGED | {"event_properties": [one("Amount", "less_than_equals", 300)]}
        assert await counted(e, poor) == len(everyone) - len(expected)
        both = CHARGED | {
            "event_properties": [one("Amount", "gt", 300), one("Gift", "equals", "True")],
            **of_profile(one("Customer Type", "equals", "Gold")),
        }
        numbers = [
            n
            for n in expected
            if people.event_properties(n, "Charged")["Gift"]
            and people.record(n)["profileData"].get("Customer Type") == "Gold"
        ]
        assert await counted(e, both) == len(numbers) > 0


async def test_every_event_has_properties_of_each_kind() -> None:
    people = Population(300, 3)
    assert tuple(EVENT_PROPERTIES) == people.events
    for event, names in EVENT_PROPERTIES.items():
        number, text, truth, listed, rare = names
        found = [people.event_properties(n, event) for n in range(300)]
        assert {type(one[number]) for one in found} == {int, float}
        assert len({one[text] for one in found}) > 2
        assert {one[truth] for one in found} == {True, False}
        assert {len(one[listed]) for one in found} == {1, 2, 3}
        assert 50 < sum(rare in one for one in found) < 150


async def test_everyone_is_the_population() -> None:
    gold = of_profile(one("Customer Type", "equals", "Gold"))
    async with Emulator(people=400, seed=3) as e:
        nothing: list[Query] = [{}, {"common_profile_properties": {}}, of_profile()]
        for body in nothing:
            assert len(await sent_for(e, body)) == 400
        golden = await sent_for(e, gold)
        assert (
            len(golden)
            == await counted(e, gold)
            == len(e.population.everyone(profile_fields=[one("Customer Type", "equals", "Gold")]))
        )
        assert all(data(record)["Customer Type"] == "Gold" for record in golden)
        known = {json.dumps(record["profileData"]) for record in golden}
        for event in e.population.events:
            active = await sent_for(e, JANUARY | {"event_name": event} | gold)
            assert {json.dumps(record["profileData"]) for record in active} <= known
        # As a support script of the vendor's opens it.
        assert await sent_for(e, {"event_name": "-1"} | gold) == golden
        assert await sent_for(e, JANUARY | {"event_name": "-1"} | gold) == golden


async def test_everyone_did_something_in_any_year() -> None:
    people = Population(400, 3)
    for start, end in ((20250101, 20251231), (20190704, 20200702)):
        found = {n for event in people.events for n in people.active(event, start, end)}
        assert found == set(people.everyone())


EVENT_FILTER = one("Amount", "greater_than", 100)


@pytest.mark.parametrize(
    ("body", "part"),
    [
        (JANUARY | {"session_properties": []}, "session_properties"),
        (JANUARY | {"advanced_query": {}}, "advanced_query"),
        (JANUARY | {"data": []}, "data"),
        (JANUARY | {"common_profile_properties": {"demographics": {}}}, "demographics"),
        (JANUARY | {"common_profile_properties": {"geo_fields": {}}}, "geo_fields"),
        (JANUARY | {"common_profile_properties": {"technographics": {}}}, "technographics"),
        (JANUARY | {"common_profile_properties": []}, "common_profile_properties"),
        (JANUARY | {"event_properties": {}}, "event_properties"),
        (JANUARY | {"event_properties": [1]}, "event_properties[0]"),
        (JANUARY | {"event_properties": [EVENT_FILTER, {}]}, "event_properties[1].name"),
        (JANUARY | of_profile(one("", "exists")), "profile_fields[0].name"),
        (JANUARY | of_profile({"name": "x", "value": 1}), "profile_fields[0].operator"),
        (JANUARY | of_profile(one("x", "like", 1)), "profile_fields[0].operator like"),
        (JANUARY | of_profile(one("x", "equals")), "profile_fields[0].value"),
        (JANUARY | of_profile(one("x", "equals", None)), "profile_fields[0].value"),
        (JANUARY | of_profile(one("x", "equals", True)), "profile_fields[0].value"),
        (JANUARY | of_profile(one("x", "equals", {})), "profile_fields[0].value"),
        (JANUARY | of_profile(one("x", "equals", [])), "profile_fields[0].value"),
        (JANUARY | of_profile(one("x", "equals", [[1]])), "profile_fields[0].value"),
        (JANUARY | of_profile(one("x", "greater_than", "many")), "profile_fields[0].value"),
        (JANUARY | of_profile(one("x", "greater_than", "12")), "profile_fields[0].value"),
        (JANUARY | of_profile(one("x", "lte", [1, "2"])), "profile_fields[0].value"),
        (JANUARY | of_profile(one("x", "exists") | {"field": 1}), "profile_fields[0].field"),
        ({"event_properties": [EVENT_FILTER]}, "event_properties"),
        ({"event_name": "-1", "event_properties": [EVENT_FILTER]} | of_profile(one("x", "exists")),
         "event_properties"),
        ({"event_name": "Charged"}, "together"),
        ({"event_name": "-1"}, "together"),
        ({"from": 20260101, "to": 20260131}, "together"),
        ({"event_name": "Charged", "from": 20260101} | of_profile(one("x", "exists")), "together"),
    ],
)  # fmt: skip
async def test_a_part_that_is_not_emulated_is_refused_by_name(body: Query, part: str) -> None:
    async with Emulator(people=5) as e:
        for path in ("/1/profiles.json", "/1/counts/profiles.json"):
            answer = await ask(e, "POST", path, json.dumps(body).encode())
            assert (answer.status, answer.json["code"]) == (400, 4002)
            assert part in answer.json["error"]


async def test_bad_dates_have_a_code_of_their_own() -> None:
    async with Emulator(people=5) as e:
        statuses = set()
        for number in range(20):
            body = JANUARY | {"from": 20260200 + number, "to": 20260132 + number}
            answer = await ask(e, "POST", "/1/profiles.json", json.dumps(body).encode())
            assert answer.json["code"] == 4002
            statuses.add(answer.status)
        assert statuses == {200, 400}
        body = JANUARY | {"from": "2026-01-01"}
        answer = await ask(e, "POST", "/1/profiles.json", json.dumps(body).encode())
        assert (answer.status, answer.json["code"]) == (500, 500)


async def test_a_query_means_the_same_in_days_and_in_seconds() -> None:
    gold = of_profile(one("Customer Type", "equals", "Gold"))
    async with Emulator(people=300, seed=3) as e:
        seconds = {"event_name": "App Launched", "from": 1767225600, "to": 1769903999}
        assert await counted(e, seconds | gold) == await counted(e, JANUARY | gold)
        first = await page(e, await opened(e, "", seconds | gold))
        assert all(data(r)["Customer Type"] == "Gold" for r in first.json["records"])


@pytest.mark.parametrize(
    "filters", [{"event_properties": [{}]}, {"profile_fields": [{"name": "x"}]}]
)
def test_the_ground_truth_refuses_invalid_filters(filters: Any) -> None:
    with pytest.raises(ValueError, match=r"_(properties|fields)\[0\]"):
        Population(5, 1).active("Charged", 20260101, 20260131, **filters)
