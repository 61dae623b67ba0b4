"""People and bindings of a test's own, over sockets: as the service would serve them."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import pytest

from altaprofiles import BadRequest, Filter
from altaprofiles.emulator import Emulator
from altaprofiles.emulator.shape import InvalidShape

from ..support.raw import ask, cdp, opened, page, records, walked
from ..support.sessions import session_for

pytestmark = pytest.mark.anyio


def seconds(year: int, month: int, day: int, hour: int = 12) -> int:
    return int(datetime(year, month, day, hour, tzinfo=UTC).timestamp())


ANN: dict[str, Any] = {
    "email": "ann+x@example.com",
    "identity": "ann/1",
    "name": "Ann",
    "profileData": {"Plan": "pro", "Score": 12.5, "Tags": ["a", None], "unknown": {"deep": [{}]}},
    "platformInfo": [
        {"platform": "iOS", "make": "Apple", "model": "iPhone15,2", "objectId": "-d1"},
        {"platform": "Web", "objectId": "d2"},
    ],
    "futureField": [1, 2.0, True, None],
}
BO: dict[str, Any] = {
    "identity": 7,
    "profileData": {"Plan": "free"},
    "events": {
        "Order Placed": {
            "count": 3,
            "first_seen": seconds(2026, 1, 3, 0),
            "last_seen": seconds(2026, 1, 20, 23),
            "properties": {"Amount": 120, "Coupon": "X"},
        },
        "Charged": {"count": 1, "last_seen": seconds(2026, 1, 5)},
    },
}
CY: dict[str, Any] = {"objectId": "d3"}


def query(event: str, start: int, end: int) -> dict[str, Any]:
    return {"event_name": event, "from": start, "to": end}


async def test_nobody_else_is_there_and_records_are_served_as_they_are() -> None:
    async with Emulator(records=[ANN, CY]) as emulator:
        answers = await walked(
            emulator, await opened(emulator, "?app=true", query("Any Name", 20200101, 20200101))
        )
        assert records(answers) == [ANN, CY]
        assert len(emulator.population) == 2
        plain = records(await walked(emulator, await opened(emulator)))
        assert plain[0]["platformInfo"][0] == {"platform": "iOS", "objectId": "-d1"}
        bare = records(await walked(emulator, await opened(emulator, "?profile=false")))
        assert "profileData" not in bare[0]
        for key in ("identity=ann%2F1", "email=ann%2Bx%40example.com", "objectId=d2"):
            answer = await ask(emulator, "GET", f"/1/profile.json?{key}")
            assert answer.json["record"] == ANN
        assert (await ask(emulator, "GET", "/1/profile.json?objectId=d3")).json["record"] == CY
        async with session_for(emulator) as session:
            assert await session.profiles.get(identity="5555555555") is None
            assert await session.cdp.get(user_id="BC123") == {}


async def test_events_are_done_on_their_first_and_last_day() -> None:
    async with Emulator(records=[BO]) as emulator:
        sent = {**BO, "events": {name: dict(one) for name, one in BO["events"].items()}}
        del sent["events"]["Order Placed"]["properties"]
        async with session_for(emulator) as session:

            async def found(event: str, start: int, end: int, **filters: Any) -> list[str | None]:
                people = session.profiles.by_event(event, start=start, end=end, **filters)
                there = [person.identity async for person in people]
                counted = await session.profiles.count(event, start=start, end=end, **filters)
                assert counted == len(there)
                return there

            assert await found("Order Placed", 20260103, 20260103) == ["7"]
            assert await found("Order Placed", 20260120, 20260131) == ["7"]
            assert await found("Order Placed", 20260101, 20260102) == []
            assert await found("Order Placed", 20260104, 20260119) == []
            assert await found("Charged", 20260105, 20260105) == ["7"]
            assert await found("App Launched", 20260101, 20260131) == []
            month = ("Order Placed", 20260101, 20260131)
            large = [Filter("Amount", "greater_than", 100)]
            assert await found(*month, event_properties=large) == ["7"]
            assert await found(*month, event_properties=[Filter("Amount", "equals", 1)]) == []
            assert await found(*month, profile_fields=[Filter("Plan", "equals", "free")]) == ["7"]
            assert await found(*month, profile_fields=[Filter("Plan", "equals", "pro")]) == []
            assert await found(*month, profile_fields=[Filter("Identity", "equals", "7")]) == ["7"]
            with pytest.raises(BadRequest, match="Invalid event"):
                await found("Order Palced", 20260101, 20260131)
            profile = await session.profiles.get(identity="7")
            assert profile is not None
            assert profile.encode() == (await session.profiles.get(identity="7")).encode()  # type: ignore[union-attr]
        assert emulator.population.record(0) == sent
        assert emulator.population.active("Charged", 20260105, 20260105) == [0]


async def test_everyone_of_many_in_the_order_of_the_records() -> None:
    many = [{"identity": f"u{number}"} for number in range(100)]
    async with Emulator(records=iter(many), bindings={}) as emulator:
        answers = await walked(emulator, await opened(emulator, "?batch_size=23"))
        assert records(answers) == many
        assert len(answers) >= 5
        async with session_for(emulator) as session:
            everyone = [person.identity async for person in session.profiles.everyone()]
            assert everyone == [f"u{number}" for number in range(100)]


async def test_bindings_are_of_the_type_web() -> None:
    bindings = {"u1": ["a1", "a2", "a1"], "u2": ("a2",), "u3": []}
    async with Emulator(bindings=bindings) as emulator:
        assert len(emulator.population) == 0

        def bound(user_id: str, *ids: str) -> dict[str, Any]:
            form = {"conversation_type": "WEB", "source_id": None}
            users = [{"anonymous_id": one, **form} for one in ids]
            return {user_id: {"user_id": user_id, "anonymous_ids": users}}

        u1, u2 = bound("u1", "a1", "a2"), bound("u2", "a2")
        assert (await cdp(emulator, user_id="u1")).json["data"] == u1
        assert (await cdp(emulator, anonymous_id="a2")).json["data"] == u1 | u2
        pair = (await cdp(emulator, user_id="u1", anonymous_id="a2")).json["data"]
        assert pair == bound("u1", "a2")
        async with session_for(emulator) as session:
            assert await session.cdp.get(user_id="u3") == {}
            assert await session.cdp.get(anonymous_id="aId3") == {}
            emulator.add(bindings={"u3": ["a3"], "u1": ["a3", "a1"]})
            assert list(await session.cdp.get(anonymous_id="a3")) == ["u3", "u1"]
            users = await session.cdp.get(user_id="u1")
            assert [one.anonymous_id for one in users["u1"].anonymous_ids] == ["a1", "a2", "a3"]


async def test_they_are_joined() -> None:
    async with Emulator(records=[ANN, BO, CY], bindings={"7": ["a1"]}) as emulator:
        async with session_for(emulator) as session:
            people = session.profiles.by_event("Order Placed", start=20260101, end=20260131)
            customers = [one async for one in session.with_cdp(people)]
            joined = {one.profile and one.profile.identity: list(one.cdp) for one in customers}
            assert joined == {"ann/1": [], "7": ["7"], None: []}
            assert len(await session.who_is(anonymous_id="a1")) == 1


async def test_they_are_added_to_those_of_the_seed() -> None:
    async with Emulator(people=60, seed=3, records=[ANN], bindings={"BC123": ["mine"]}) as emulator:
        population = emulator.population
        assert (population.drawn, len(population)) == (60, 61)
        assert population.find("identity", "ann/1") == 60
        assert population.everyone()[-1] == 60
        answers = await walked(emulator, await opened(emulator))
        assert records(answers)[-1]["identity"] == "ann/1"
        assert len(records(answers)) == len(population.active("App Launched", 20260101, 20260131))
        users = (await cdp(emulator, anonymous_id="mine")).json["data"]
        assert len(users["BC123"]["anonymous_ids"]) == 2
        assert users == (await cdp(emulator, user_id="BC123")).json["data"]


async def test_people_change_between_two_runs_and_not_within_a_chain() -> None:
    first = [{"identity": f"u{number}", "profileData": {"n": 1}} for number in range(46)]
    async with Emulator(records=first) as emulator:
        cursor = await opened(emulator, "?batch_size=23")
        start = await page(emulator, cursor)
        emulator.add(
            {"identity": "u0", "profileData": {"n": 2}},
            {"identity": "late"},
            bindings={"late": ["a1"]},
        )
        whole = [start, *await walked(emulator, start.json["next_cursor"])]
        names = [record["identity"] for record in records(whole)]
        assert names == [f"u{number}" for number in range(46)]
        later = records(await walked(emulator, await opened(emulator)))
        assert [record["identity"] for record in later] == [*names, "late"]
        assert later[0]["profileData"] == {"n": 2}
        async with session_for(emulator) as session:
            assert await session.profiles.count("Charged", start=20260101, end=20260101) == 47


async def test_a_record_that_is_changed_afterwards_stays_as_it_was() -> None:
    mine = {"identity": "u1", "profileData": {"n": [1]}}
    async with Emulator(records=[mine]) as emulator:
        mine["profileData"]["n"].append(2)  # type: ignore[index]
        answer = await ask(emulator, "GET", "/1/profile.json?identity=u1")
        assert answer.json["record"]["profileData"] == {"n": [1]}
        emulator.population.record(0)["identity"] = "u2"
        assert emulator.population.record(0)["identity"] == "u1"


async def test_no_records_are_nobody() -> None:
    async with Emulator(records=[]) as emulator, session_for(emulator) as session:
        people = session.profiles.by_event("Order Placed", start=20260101, end=20260101)
        assert [person async for person in people] == []


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ({"identity": "secret"}, "records: expected a list of records, got an object"),
        ("secret", "records: expected a list of records, got text"),
        (["secret"], "records[0]: expected an object, got text"),
        ([{}], "records[0]: has neither identity, email nor objectId"),
        ([{"name": "secret"}], "records[0]: has neither identity, email nor objectId"),
        ([ANN, {"identity": True}], "records[1].identity: expected text or a whole number, got a"),
        ([{"identity": ""}], "records[0].identity: is empty"),
        ([{"identity": 1.5}], "records[0].identity: expected text or a whole number"),
        ([{"email": 7}], "records[0].email: expected text, got a whole number"),
        ([{"Identity": "secret"}], "records[0].Identity: is not a key that the service sends; use"),
        ([{"identity": "u", "profile_data": {}}], "records[0].profile_data: is not a key"),
        ([{"identity": "u", "profileData": ["secret"]}], "records[0].profileData: expected an obj"),
        ([{"identity": "u", "platformInfo": {}}], "records[0].platformInfo: expected a list"),
        ([{"platformInfo": [{"object_id": "d"}]}], "records[0].platformInfo[0].object_id: is not"),
        ([{"platformInfo": [{}, {"objectId": 3}]}], "records[0].platformInfo[1].objectId: expecte"),
        ([{"identity": "u", "events": []}], "records[0].events: expected an object, got a list"),
        ([{"identity": "u", "events": {"Charged": 3}}], "records[0].events['Charged']: expected"),
        ([{"identity": "u", "events": {"Charged": {"count": 1}}}], "has neither first_seen nor"),
        (
            [{"identity": "u", "events": {"Charged": {"first_seen": 20260101}}}],
            "records[0].events['Charged'].first_seen: expected epoch seconds of 10 digits",
        ),
        (
            [
                {
                    "identity": "u",
                    "events": {"Charged": {"last_seen": datetime(2026, 1, 1, tzinfo=UTC)}},
                }
            ],
            "records[0].events.Charged.last_seen: a datetime cannot be sent as JSON",
        ),
        ([ANN, {"identity": "7"}, BO], "records[2].identity: is that of records[1] as well"),
        ([{"identity": "u", "profileData": {"n": math.nan}}], "records[0].profileData.n: is not"),
        ([{"identity": "u", "profileData": {"n": [{"s"}]}}], "profileData.n[0]: a set cannot be"),
        ([{"identity": "u", "profileData": {1: 2}}], "records[0].profileData: has a key that is"),
        ([{"identity": "u", "phone": 9198.5}], "or a whole number, got a number with a fraction"),
        ([{"identity": "u", "phone": True}], "phone: expected text or a whole number, got a bool"),
        ([{"identity": 7}, {"identity": 7.0}], "records[1].identity: is that of records[0] as"),
        ([{"identity": 2**70}], "records[0].identity: is a number of more than 64 bits"),
    ],
)
async def test_bad_records_are_named_by_their_place(records: Any, message: str) -> None:
    with pytest.raises(InvalidShape) as caught:
        Emulator(records=records)
    assert message in str(caught.value)
    assert "secret" not in str(caught.value)


async def test_records_are_served_with_what_only_odd_ones_hold() -> None:
    """Whole numbers with a point, and halves of surrogate pairs, which a cut emoji leaves."""
    odd: dict[str, Any] = {
        "identity": 5555555555.0,
        "name": "cut \ud83d",
        "phone": 919876543210.0,
        "profileData": {"\udc00": ["\ud800"]},
        "events": {"Charged": {"count": 2.0, "last_seen": float(seconds(2026, 1, 5))}},
    }
    async with Emulator(records=[odd]) as emulator:
        answers = await walked(
            emulator, await opened(emulator, "", query("Charged", 20260105, 20260105))
        )
        assert records(answers) == [odd]
        async with session_for(emulator) as session:
            found = await session.profiles.get(identity="5555555555")
            assert found is not None
            assert found.name == "cut \ufffd"
    # In answers enough to have each style of JSON.
    many = [odd | {"identity": str(number)} for number in range(60)]
    async with Emulator(records=many) as emulator, session_for(emulator) as session:
        for number in range(60):
            found = await session.profiles.get(identity=str(number))
            assert found is not None
            assert found.name == "cut \ufffd"


def test_records_nested_too_deeply() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ValueError, match=r"^records\[0\]: is nested too deeply"):
        Emulator(records=[{"identity": "u", "profileData": {"deep": deep}}])


@pytest.mark.parametrize(
    ("bindings", "message"),
    [
        (["u1"], "bindings: expected lists by user ID"),
        ({"u1": "secret"}, "bindings: entry 1: expected a list of anonymous IDs"),
        ({"u1": ["a1"], 2: ["a2"]}, "bindings: entry 2: expected text, got a whole number"),
        ({"": ["a1"]}, "bindings: entry 1: is empty"),
        ({"u1": ["a1", None]}, "bindings: entry 1, anonymous ID 2: expected text, got null"),
        ({"u1": ["a1", {"a": 1}]}, "bindings: entry 1, anonymous ID 2: expected text, got an"),
        ({"u1": 5}, "bindings: entry 1: expected a list of anonymous IDs"),
        ({"u1": map(str, range(101))}, "bindings: entry 1: has more than 100 anonymous IDs"),
    ],
)
def test_bad_bindings_are_named_by_their_place(bindings: Any, message: str) -> None:
    with pytest.raises(InvalidShape) as caught:
        Emulator(bindings=bindings)
    assert message in str(caught.value)
    assert "secret" not in str(caught.value)


def test_nothing_is_added_by_a_call_that_fails() -> None:
    emulator = Emulator(records=[ANN], bindings={"u1": map(str, range(99))})
    with pytest.raises(ValueError, match=r"records\[1\]\.email"):
        emulator.add(CY, {"email": 3}, bindings={"u2": ["a1"]})
    with pytest.raises(ValueError, match="more than 100"):
        emulator.add(CY, bindings={"u2": ["a1"], "u1": ["x", "y"]})
    assert len(emulator.population) == 1
    assert emulator.bindings.by_user("u2") == {}
