"""Alta's service in the emulator: bindings, envelopes, and errors."""

from __future__ import annotations

import json
from typing import Any

import pytest

from altaprofiles.emulator import Emulator
from altaprofiles.emulator.settings import ALTA_ERRORS

from ..support.raw import ask, cdp
from ..support.samples import sample

pytestmark = pytest.mark.anyio


async def test_cdp_samples() -> None:
    async with Emulator(people=10) as e:
        users = json.loads(sample("alta/users_of_an_anonymous_id.json"))
        assert (await cdp(e, anonymous_id="aId3")).json == users
        pair = await cdp(e, user_id="BC123", anonymous_id="22ses32dsafdabd1w2sad")
        assert pair.json == (await cdp(e, user_id="BC123")).json
        assert pair.json["data"].keys() == {"BC123"}
        assert (await cdp(e, user_id="user1")).json["data"].keys() == {"user1"}


async def test_cdp_answers_the_population() -> None:
    async with Emulator(people=300, seed=5) as e:
        people = e.population
        kinds: set[str] = set()
        empty = shared = several = 0
        for index in range(2, 300):
            user_id = people.identity(index)
            if user_id is None:
                continue
            expected = e.bindings.by_user(user_id)
            answer = await cdp(e, user_id=user_id)
            if not expected:
                empty += 1
                assert not answer.json.get("data")
                continue
            assert answer.json["data"] == expected
            bound = expected[user_id]["anonymous_ids"]
            several += len(bound) > 1
            for one in bound:
                anonymous_id = one["anonymous_id"]
                kinds.add(one["conversation_type"])
                users = (await cdp(e, anonymous_id=anonymous_id)).json["data"]
                assert users == e.bindings.by_anonymous(anonymous_id)
                shared += len(users) == 2
                for name, user in users.items():
                    assert user == e.bindings.by_user(name)[name]
            pair = (await cdp(e, user_id=user_id, anonymous_id=bound[-1]["anonymous_id"])).json
            last = bound[-1]["anonymous_id"]
            assert pair["data"][user_id]["anonymous_ids"] == [
                one for one in bound if one["anonymous_id"] == last
            ]
            stranger = await cdp(e, user_id=user_id, anonymous_id="aId3")
            assert not stranger.json.get("data")
        assert 25 < empty < 65
        assert shared
        assert several
        assert len(kinds) > 15


async def test_nothing_bound_takes_every_form() -> None:
    async with Emulator(people=0) as e:
        for name, code in (("user_id", 503), ("anonymous_id", 504)):
            answers = [await cdp(e, **{name: f"nobody{number}"}) for number in range(40)]
            assert {answer.status for answer in answers} == {200}
            seen = {(a.code, json.dumps(a.json.get("data", "missing"))) for a in answers}
            assert seen == {(0, "{}"), (0, "null"), (0, '"missing"'), (code, '"missing"')}


async def test_cdp_needs_a_key() -> None:
    async with Emulator(people=0) as e:
        for query in ("", "?user_id=", "?userid=x", "?user_id=%FF"):
            answer = await ask(e, "GET", f"/v1/user/get-user-cdp{query}")
            assert (answer.status, answer.code) == (400, 40000)


async def test_bindings_keep_the_rules_of_the_service() -> None:
    triples: dict[tuple[str, str, str | None], str] = {}
    types_of: dict[tuple[str, str], set[str]] = {}
    sources: set[type | str] = set()
    sizes = []
    async with Emulator(people=3000, seed=5) as e:
        people = e.population
        for index in range(len(people)):
            user_id = people.identity(index)
            first = e.bindings.by_user(user_id) if user_id is not None else {}
            near = [one["anonymous_id"] for user in first.values() for one in user["anonymous_ids"]]
            users = first | (e.bindings.by_anonymous(near[0]) if near else {})
            for name, user in users.items():
                sizes.append(len(user["anonymous_ids"]))
                for one in user["anonymous_ids"]:
                    triple = (
                        one["anonymous_id"],
                        one["conversation_type"],
                        one.get("source_id"),
                    )
                    assert triples.setdefault(triple, name) == name
                    types_of.setdefault((name, triple[0]), set()).add(triple[1])
                    sources.add(type(one["source_id"]) if "source_id" in one else "absent")
        assert sources == {str, type(None), "absent"}
        assert max(sizes) == 100
        assert any(len(types) == 2 for types in types_of.values())
        assert len({name for name, _ in types_of}) > len(people) / 2
        large = next(
            name
            for name, _ in types_of
            if len(e.bindings.by_user(name)[name]["anonymous_ids"]) == 100
        )
        bound = (await cdp(e, user_id=large)).json["data"][large]["anonymous_ids"]
        assert len({one["anonymous_id"] for one in bound}) == 100
        for one in bound:
            assert large in e.bindings.by_anonymous(one["anonymous_id"])


async def test_the_envelope_of_v1_5() -> None:
    async with Emulator(people=100, seed=5, alta_envelope="v1.5") as e:
        body = (await cdp(e, user_id="BC123")).json
        assert body.keys() == {"data", "meta", "links"}
        assert body["data"] == e.bindings.by_user("BC123")
        assert (await cdp(e, user_id="nobody")).json["data"] == {}
        codes = set()
        for number in range(20):
            refused = await ask(e, "GET", f"/v1/user/get-user-cdp?x={number}")
            error = refused.json["error"]
            assert (refused.status, error["status"], error["message"]) == (
                400,
                400,
                "Invalid parameter",
            )
            codes.add(error["code"])
        assert codes == {"40000", "INVALID_PARAMETER"}
        e.alta_envelope = "classic"
        assert (await cdp(e, user_id="BC123")).json["code"] == 0


@pytest.mark.parametrize("code", ALTA_ERRORS)
async def test_every_documented_error(code: int) -> None:
    async with Emulator(people=10, alta_error=code) as e:
        answers = [await cdp(e, user_id=f"user{number}") for number in range(20)]
        assert {answer.json["code"] for answer in answers} == {code}
        assert {answer.json["message"] for answer in answers} == {ALTA_ERRORS[code]}
        statuses = {answer.status for answer in answers}
        assert 200 in statuses
        own = {40008: 429, 50000: 500}.get(code, int(str(code)[:3]))
        assert statuses == {200, own if own in (400, 401, 403, 429, 500) else 403}
        # CleverTap and the key's own verification are not affected.
        assert (await ask(e, "GET", "/1/profile.json?identity=5555555555")).status == 200
        assert (await ask(e, "GET", "/v1/api-key/verify")).status == 200
        e.alta_error = None
        assert (await cdp(e, user_id="BC123")).json["code"] == 0


async def test_codes_are_numbers_unless_a_fault_makes_them_text() -> None:
    async def kinds() -> set[tuple[bool, type]]:
        answers: list[Any] = []
        for number in range(30):
            answers.append(await ask(e, "GET", f"/v1/user/get-user-cdp?x={number}"))
            answers.append(await ask(e, "GET", f"/1/profiles.json?cursor={number}"))
        return {("message" in a.json, type(a.json["code"])) for a in answers}

    async with Emulator(people=10) as e:
        assert await kinds() == {(True, int), (False, int)}
        e.faults = {"text_codes": 0.5}
        assert await kinds() == {(True, int), (False, int), (True, str), (False, str)}
        assert 10 < e.stats.faults["text_codes"] < 50
        e.faults = {"text_codes": 1}
        assert await kinds() == {(True, str), (False, str)}


async def test_the_verification_of_a_key() -> None:
    async with Emulator(people=10) as e:
        verified = await ask(e, "GET", "/v1/api-key/verify")
        assert verified.json["code"] == 0
        assert verified.json["data"]["type"] == "agent"
        wrong = await ask(e, "GET", "/v1/api-key/verify", headers={"Authorization": "Bearer wrong"})
        assert wrong.json["code"] == 40127
        assert wrong.json["message"] == "Developer authentication failed"
        assert e.stats.requests["verify"] == 2
        e.key_verification = False
        assert (await ask(e, "GET", "/v1/api-key/verify")).status == 404
