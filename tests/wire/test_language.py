"""The filters of a query, from arguments to the members of a body."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from datetime import date
from types import MappingProxyType
from typing import Any

import pytest

from altaprofiles import ConfigurationError, Filter
from altaprofiles.wire import clevertap
from altaprofiles.wire.language import Filters
from altaprofiles.wire.query import EventQuery

AMOUNT = Filter("Amount", "gt", 100)
GOLD = Filter("Customer Type", "equals", "Gold")
EMAIL = Filter("Email", "exists")

# The forms of [cql] and of the clients that were seen.
WHOLE: dict[str, Any] = {
    "session_properties": [
        {"name": "time_of_day", "value": ["00:00", "14:00"]},
        {"name": "utm_campaign", "value": "spring", "operator": "contains"},
        {"name": "first_time", "value": True},
    ],
    "common_profile_properties": {
        "demographics": {"gender": ["male"], "age": [{"from": 18, "to": 30}]},
        "geo_fields": [{"country": "India", "city": None}],
        "technographics": {"os": ["Android"]},
    },
    "advanced_query": {
        "did_all": [
            {
                "event_name": "UTM Visited",
                "from": 20260101,
                "to": 20260131,
                "event_properties": [{"name": "value", "operator": "contains", "value": "piz"}],
                "session_properties": [{"name": "utm_campaign", "value": "spring"}],
            }
        ],
        "did_not_all": [{"event_name": "Charged"}],
    },
}


def body_of(query: EventQuery) -> dict[str, Any]:
    bodies = [clevertap.open_chain(query).body, clevertap.count(query).body]
    assert bodies[0] == bodies[1]
    body: dict[str, Any] = json.loads(bodies[0])
    return body


def refusal(*arguments: Any) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        Filters.of(*arguments)
    return caught.value


def test_filters_stand_in_the_body_beside_the_event() -> None:
    filters = Filters.of([AMOUNT, Filter("Item", "not_contains", "shoe")], [GOLD, EMAIL])
    body = body_of(EventQuery.of("Charged", 20260101, 20260131, filters=filters))
    assert body == {
        "event_name": "Charged",
        "from": 20260101,
        "to": 20260131,
        "event_properties": [
            {"name": "Amount", "operator": "greater_than", "value": 100},
            {"name": "Item", "operator": "does_not_contain", "value": "shoe"},
        ],
        "common_profile_properties": {
            "profile_fields": [
                {"name": "Customer Type", "operator": "equals", "value": "Gold"},
                {"name": "Email", "operator": "exists"},
            ]
        },
    }
    assert list(body)[:3] == ["event_name", "from", "to"]


def test_flags_are_texts_and_floats_stay_numbers() -> None:
    filters = Filters.of([Filter("Paid", "equals", True), Filter("Amount", "lte", 10.0)])
    body = clevertap.count(EventQuery.of("Charged", 20260101, 20260131, filters=filters)).body
    assert b'"value":"True"' in body
    assert b'"value":10.0' in body


def test_a_query_without_filters_is_as_before() -> None:
    for filters in (Filters(), Filters.of(), Filters.of([], (), {}), Filters.of((), (), None)):
        body = body_of(EventQuery.of("Charged", 20260101, 20260131, filters=filters))
        assert body == {"event_name": "Charged", "from": 20260101, "to": 20260131}
        assert not filters


def test_the_rest_of_the_language_passes_and_meets_the_profile_fields() -> None:
    filters = Filters.of([AMOUNT], [GOLD], WHOLE)
    body = body_of(EventQuery.of("Charged", 20260101, 20260131, filters=filters))
    common = body["common_profile_properties"]
    assert common.pop("profile_fields") == [
        {"name": "Customer Type", "operator": "equals", "value": "Gold"}
    ]
    assert {key: body[key] for key in WHOLE} == WHOLE


def test_a_query_is_copied() -> None:
    query = json.loads(json.dumps(WHOLE))
    filters = Filters.of((), [GOLD], query)
    before = filters.members
    query["advanced_query"]["did_all"][0]["event_name"] = "Another"
    filters.members["advanced_query"].clear()
    assert filters.members == before
    # And is itself left as it was.
    assert "profile_fields" not in query["common_profile_properties"]


def test_mappings_and_tuples_are_plain_json_as_well() -> None:
    events = ({"event_name": "Charged"},)
    query = MappingProxyType({"advanced_query": MappingProxyType({"did_any": events})})
    assert Filters.of((), (), query).members == {
        "advanced_query": {"did_any": [{"event_name": "Charged"}]}
    }


def test_filters_in_a_query_get_the_documented_spelling() -> None:
    query = {
        "event_properties": [{"name": "Amount", "operator": "gt", "value": 100}],
        "common_profile_properties": {
            "profile_fields": [
                {"name": "VIP", "operator": "equals", "value": True},
                {"name": "bad_identities", "operator": "exists", "value": "-1"},
            ]
        },
        "advanced_query": {
            "did_any": [
                {
                    "event_name": "Charged",
                    "event_properties": [{"name": "Item", "operator": "not_exists"}],
                }
            ]
        },
    }
    members = Filters.of((), (), query).members
    assert members["event_properties"] == [
        {"name": "Amount", "operator": "greater_than", "value": 100}
    ]
    assert members["common_profile_properties"]["profile_fields"] == [
        {"name": "VIP", "operator": "equals", "value": "True"},
        {"name": "bad_identities", "operator": "exists", "value": "-1"},
    ]
    [event] = members["advanced_query"]["did_any"]
    assert event["event_properties"] == [{"name": "Item", "operator": "does_not_exist"}]
    # One query, whichever argument holds its filters.
    assert Filters.of((), (), {"event_properties": members["event_properties"]}) == Filters.of(
        [AMOUNT]
    )


def test_equal_filters_are_equal_plain_values() -> None:
    one = EventQuery.of("Charged", 20260101, 20260131, filters=Filters.of([AMOUNT], [GOLD], WHOLE))
    turned: dict[str, Any] = {key: WHOLE[key] for key in reversed(WHOLE)}
    other = Filters.of([Filter("Amount", "greater_than", 100)], [GOLD], turned)
    assert one == EventQuery.of("Charged", 20260101, 20260131, filters=other)
    assert len({one, EventQuery.of("Charged", 20260101, 20260131, filters=other)}) == 1
    assert pickle.loads(pickle.dumps(one)) == one  # noqa: S301
    assert [part.filters for part in one.split(3)] == [one.filters] * 3


# ------------------------------------------------------------------------------------- everyone


def test_everyone_has_no_event_and_no_days() -> None:
    everyone = EventQuery.of(None, None, None, 46, app=True)
    request = clevertap.open_chain(everyone)
    assert request.target == "/1/profiles.json?batch_size=46&app=true"
    assert request.body == clevertap.count(everyone).body == b"{}"
    assert everyone.window is None
    assert everyone.split(4) == [everyone]
    assert str(everyone) == "everyone"
    filtered = EventQuery.of(None, None, None, filters=Filters.of((), [GOLD]))
    assert list(body_of(filtered)) == ["common_profile_properties"]
    assert "everyone" in str(filtered)
    assert str(filtered) != "everyone"
    assert "Gold" not in str(filtered)


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        (("Charged", None, None), "start: "),
        (("Charged", 20260101, None), "end: "),
        (("Charged", None, 20260101), "start: "),
        ((None, 20260101, None), "event: "),
        ((None, None, 20260131), "event: "),
        ((None, 20260101, 20260131), "event: "),
    ],
)
def test_an_event_without_days_is_not_everyone(given: tuple[Any, ...], missing: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        EventQuery.of(*given)
    message = str(caught.value)
    assert message.startswith(missing)
    assert "everyone" in message
    for name, value in zip(("event", "start", "end"), given, strict=True):
        assert value is None or f"`{name}`" in message


@pytest.mark.parametrize(
    ("filters", "name"),
    [
        (([AMOUNT],), "event_properties: "),
        (((), (), {"event_properties": []}), "event_properties: "),
        (((), [GOLD], {"session_properties": []}), "query.session_properties: "),
    ],
)
def test_everyone_has_no_event_to_filter(filters: tuple[Any, ...], name: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        EventQuery.of(None, None, None, filters=Filters.of(*filters))
    assert str(caught.value).startswith(name)
    assert "profile_fields" in str(caught.value)


# ------------------------------------------------------------------------------------ bad input

NO_LISTS: list[Any] = [
    GOLD,
    "Amount > 100",
    b"",
    {"name": "Amount"},
    {GOLD},
    (item for item in [GOLD]),
    None,
    5,
]


@pytest.mark.parametrize("value", NO_LISTS, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("name", ["event_properties", "profile_fields"])
def test_filters_that_are_no_list_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Filters.of(**{name: value})
    message = str(caught.value)
    assert message.startswith(f"{name}: expected a list of filters, got a value of type ")
    assert type(value).__name__ in message
    assert "[Filter(" in message
    assert caught.value.value is value


@pytest.mark.parametrize(
    "item", [None, "Amount > 100", ("Amount", "gt", 100), {"name": "jane"}, [GOLD]], ids=repr
)
@pytest.mark.parametrize("name", ["event_properties", "profile_fields"])
def test_an_item_that_is_no_filter_is_named_by_its_index(name: str, item: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Filters.of(**{name: [GOLD, GOLD, item]})
    assert str(caught.value).startswith(f"{name}[2]: expected a Filter, got ")
    assert caught.value.value is item
    assert "jane" not in str(caught.value)


@pytest.mark.parametrize("query", ["{}", b"{}", [], [WHOLE], 5, GOLD, True], ids=repr)
def test_a_query_that_is_no_dict_is_refused(query: Any) -> None:
    error = refusal((), (), query)
    assert str(error).startswith("query: expected a dict")
    assert type(query).__name__ in str(error)


@pytest.mark.parametrize("key", ["event_name", "from", "to"])
def test_a_query_does_not_hold_what_another_argument_sets(key: str) -> None:
    message = str(refusal((), (), {key: "Charged"}))
    assert message.startswith(f"query: `{key}` ")
    assert "leave it out" in message


def test_filters_stand_in_one_place() -> None:
    given: dict[str, Any] = {"event_properties": []}
    assert str(refusal([AMOUNT], (), given)).startswith(
        "query: holds 'event_properties', and the argument "
    )
    common: dict[str, Any] = {"common_profile_properties": {"profile_fields": []}}
    message = str(refusal((), [GOLD], common))
    assert message.startswith(
        "query.common_profile_properties: holds 'profile_fields', and the argument "
    )
    # The other argument may be there.
    assert Filters.of([AMOUNT], (), common)
    assert Filters.of((), [GOLD], given)


def filtered(item: Any) -> dict[str, Any]:
    return {"event_properties": [{"name": "a", "operator": "exists"}, item]}


def fielded(item: Any) -> dict[str, Any]:
    return {"common_profile_properties": {"profile_fields": [item]}}


def did(event: Any) -> dict[str, Any]:
    return {"advanced_query": {"did_all": [event]}}


HOLDER: dict[str, Any] = {}
HOLDER["advanced_query"] = {"did_all": [HOLDER]}
DEEP: dict[str, Any] = {}
for _ in range(5_000):
    DEEP = {"advanced_query": DEEP}

QUERIES: list[tuple[Mapping[Any, Any], str, str]] = [
    ({"event_propertis": []}, "query: ", "did you mean event_properties?"),
    ({"profile_fields": []}, "query: ", "unknown member 'profile_fields'"),
    ({"batch_size": 46}, "query: ", "session_properties"),
    ({"app": True}, "query: ", "; known are event_properties, "),
    ({"props": []}, "query: ", "unknown member 'props'"),
    ({"EVENT_PROPERTIES": []}, "query: ", "unknown member"),
    ({5: []}, "query: ", "got 5"),
    ({"\ud800": []}, "query: ", "as text"),
    ({"event_properties": {}}, "query.event_properties: ", "got an object"),
    ({"event_properties": None}, "query.event_properties: ", "got null"),
    (filtered("jane"), "query.event_properties[1]: ", "got text"),
    (filtered({}), "query.event_properties[1].name: ", "missing"),
    (
        filtered({"name": "a", "operator": "exists", "values": 1}),
        "query.event_properties[1]: ",
        "did you mean value?",
    ),
    (
        filtered({"name": "a", "operator": "exists", "and": []}),
        "query.event_properties[1]: ",
        "unknown member 'and'; known are name, operator, value",
    ),
    (filtered({"name": " "}), "query.event_properties[1].name: ", "empty"),
    (filtered({"name": "a"}), "query.event_properties[1].operator: ", "missing; use one of"),
    (filtered({"name": "a", "operator": "is"}), "query.event_properties[1].operator: ", "'is'"),
    (
        filtered({"name": "a", "operator": "equals"}),
        "query.event_properties[1].value: ",
        "missing",
    ),
    (
        filtered({"name": "a", "operator": "gt", "value": "jane"}),
        "query.event_properties[1].value: ",
        "greater_than of 'a' compares numbers",
    ),
    (
        fielded({"name": "a", "operator": "equals", "value": {"jane": 1}}),
        "query.common_profile_properties.profile_fields[0].value: ",
        "got an object",
    ),
    ({"common_profile_properties": []}, "query.common_profile_properties: ", "list"),
    (
        {"common_profile_properties": {"profile_field": []}},
        "query.common_profile_properties: ",
        "did you mean profile_fields?",
    ),
    ({"session_properties": ["jane"]}, "query.session_properties[0]: ", "got text"),
    ({"session_properties": [{}]}, "query.session_properties[0].name: ", "missing"),
    (
        {"session_properties": [{"name": "a", "vlaue": 1}]},
        "query.session_properties[0]: ",
        "did you mean value?",
    ),
    (
        {"session_properties": [{"name": "a", "operator": "is"}]},
        "query.session_properties[0].operator: ",
        "'is'",
    ),
    ({"advanced_query": []}, "query.advanced_query: ", "list"),
    ({"advanced_query": {"did_al": []}}, "query.advanced_query: ", "did you mean did_all?"),
    ({"advanced_query": {"DID_ALL": []}}, "query.advanced_query: ", "did you mean did_all?"),
    ({"advanced_query": {"did_none": []}}, "query.advanced_query: ", "did you mean did_not_any?"),
    ({"advanced_query": {"did_not_do": []}}, "query.advanced_query: ", "did you mean did_not_any?"),
    (
        {"advanced_query": {"any_off": []}},
        "query.advanced_query: ",
        "unknown member 'any_off'; known are did_all, did_any, did_not_all, did_not_any",
    ),
    ({"advanced_query": {"did_all": {}}}, "query.advanced_query.did_all: ", "got an object"),
    (did("jane"), "query.advanced_query.did_all[0]: ", "got text"),
    (did({}), "query.advanced_query.did_all[0].event_name: ", "missing"),
    (
        did({"event_name": "a", "form": 20260101}),
        "query.advanced_query.did_all[0]: ",
        "did you mean from?",
    ),
    (
        did({"event_name": "a", "event_property": []}),
        "query.advanced_query.did_all[0]: ",
        "did you mean event_properties?",
    ),
    (did({"event_name": 5}), "query.advanced_query.did_all[0].event_name: ", "5"),
    (
        did({"event_name": "a", "from": "2026-01-01"}),
        "query.advanced_query.did_all[0].from: ",
        "YYYYMMDD",
    ),
    (did({"event_name": "a", "to": True}), "query.advanced_query.did_all[0].to: ", "true"),
    (
        did({"event_name": "a", "event_properties": [{"name": "b", "operator": "is"}]}),
        "query.advanced_query.did_all[0].event_properties[0].operator: ",
        "'is'",
    ),
    (
        did({"event_name": "a", "from": date(2026, 1, 1)}),
        "query.advanced_query.did_all[0].from: ",
        "YYYYMMDD",
    ),
    (
        did({"event_name": "a", "event_properties": [GOLD]}),
        "query.advanced_query.did_all[0].event_properties[0]: ",
        "Filter",
    ),
    ({"advanced_query": {"likes": float("nan")}}, "query.advanced_query.likes: ", "finite"),
    ({"advanced_query": {"likes": 2**64}}, "query.advanced_query.likes: ", "64 bits"),
    ({"advanced_query": {"likes": b"jane"}}, "query.advanced_query.likes: ", "bytes"),
    ({"advanced_query": {"likes": {"jane"}}}, "query.advanced_query.likes: ", "set"),
    ({"advanced_query": {"likes": "\ud800"}}, "query.advanced_query.likes: ", "surrogate"),
    ({"advanced_query": {"the like": {5}}}, "query.advanced_query['the like']: ", "set"),
    (HOLDER, "query: ", "nested in more than 30 levels; does it hold itself?"),
    (DEEP, "query: ", "nested in more than 30 levels; does it hold itself?"),
]


@pytest.mark.parametrize(
    ("query", "place", "words"), QUERIES, ids=[f"{n} {row[2]}" for n, row in enumerate(QUERIES)]
)
def test_a_query_that_is_not_in_the_language_is_refused_with_the_place(
    query: Mapping[Any, Any], place: str, words: str
) -> None:
    error = refusal((), (), query)
    assert str(error).startswith(place)
    assert words in str(error)
    assert "jane" not in str(error)
