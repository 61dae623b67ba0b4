"""The emulator over raw sockets, without the library's own client."""

import asyncio
import gzip
import json
import socket
from contextlib import closing, suppress
from typing import Any
from urllib.parse import quote, unquote

import aiohttp
import anyio
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from altaprofiles.emulator import Emulator, Fault
from altaprofiles.emulator.cursors import Cursors, Place
from altaprofiles.emulator.dice import Dice
from altaprofiles.emulator.faults import MEMORY, STREAK, Plan
from altaprofiles.emulator.people import Population

from ..support.raw import (
    JANUARY,
    Answer,
    ask,
    cdp,
    opened,
    page,
    records,
    sent,
    walked,
)
from ..support.samples import sample
from ..support.waiting import until

pytestmark = pytest.mark.anyio

SAMPLE_RECORD = json.loads(sample("clevertap/page.json"))["records"][0]
SAMPLE_BY_EMAIL = json.loads(sample("clevertap/profile_by_email.json"))["record"]


# People


def test_people_are_a_function_of_the_seed() -> None:
    small, large = Population(100, 7), Population(1000, 7)
    assert [small.record(i) for i in range(100)] == [large.record(i) for i in range(100)]
    assert small.record(50) != Population(100, 8).record(50)
    some = set(large.active("Charged", 20260101, 20260107))
    assert {i for i in some if i < 100} == set(small.active("Charged", 20260101, 20260107))


def test_every_key_is_unique_and_finds_its_person() -> None:
    people = Population(3000, 3)
    seen: set[tuple[str, str]] = set()
    nameless = 0
    for index in range(len(people)):
        keys = [("objectId", object_id) for object_id in people.object_ids(index)]
        if (identity := people.identity(index)) is not None:
            keys.append(("identity", identity))
        else:
            nameless += 1
            assert keys
        if (email := people.email(index)) is not None:
            keys.append(("email", email))
        for by, key in keys:
            assert (by, key) not in seen
            seen.add((by, key))
            assert people.find(by, key) == index
    assert 0.06 < nameless / len(people) < 0.1
    assert people.find("identity", "999") is None
    assert people.find("email", "nobody@example.com") is None
    assert people.find("objectId", "ffffffff") is None


def test_records_are_as_varied_as_real_ones() -> None:
    people = Population(3000, 3)
    everyone = [people.record(index, app=True) for index in range(len(people))]
    rendered = [json.dumps(record, ensure_ascii=False).encode() for record in everyone]
    assert 900 < sum(map(len, rendered)) / len(people) < 1400

    def types(*path: str) -> set[type]:
        found: set[type] = set()
        for value in everyone:
            for key in path:
                value = value.get(key, {}) if isinstance(value, dict) else {}
            found.add(type(value))
        return found

    assert types("identity") >= {str, int}
    assert types("phone") >= {str, int}
    assert types("profileData", "favoriteFood") >= {str, int, bool, list, dict, float, type(None)}
    assert types("profileData", "Tags") >= {str, list}
    assert {len(record["platformInfo"]) for record in everyone} == {0, 1, 2, 3, 4}
    assert types("ls") == types("df", "0") == {int, dict}
    devices = [device for record in everyone for device in record["platformInfo"]]
    assert {type(device.get("ls")) for device in devices} == {int, type(None)}
    places = [device["location"] for device in devices if "location" in device]
    assert all(-90 <= lat <= 90 and -180 <= lng <= 180 for lat, lng in places)
    assert len(devices) > 4 * len(places) > 400
    ids = [str(device.get("objectId")) for device in devices]
    assert all(any(key.startswith(mark) for key in ids) for mark in ("__g", "__", "-"))
    assert any("os_version" in record for record in everyone)
    whole = b"\n".join(rendered).decode()
    for text in (r"\"next_cursor\":\"x\"", "$D_", "🚀", "O'Brien", "田中", "badKs", '"ls":'):
        assert text.replace(": ", ":") in whole.replace('": ', '":')
    assert any("all_identities" in record and "objectId" in record for record in everyone)
    assert any(
        quote(str(record.get("identity")), safe="") != str(record.get("identity"))
        for record in everyone
    )
    assert not any("events" in people.record(i, events=False) for i in range(50))
    assert not any("profileData" in people.record(i, profile=False) for i in range(50))
    assert not any(
        "make" in device for i in range(50) for device in people.record(i)["platformInfo"]
    )


def test_real_records_are_large() -> None:
    small, real = Population(2000, 3), Population(2000, 3, "real")
    people = range(2, 2000)

    def size(*, events: bool = True) -> float:
        rendered = [json.dumps(real.record(n, events=events)) for n in people]
        return sum(map(len, rendered)) / len(people)

    assert 16_000 < size() < 19_000
    assert 0.7 < 1 - size(events=False) / size() < 0.9
    counts = [len(real.record(n)["events"]) for n in people]
    assert 165 < sum(counts) / len(people) < 185
    assert min(counts) > 130
    for n in people:
        one, other = small.record(n), real.record(n)
        assert one["events"].items() <= other["events"].items()
        for name, value in one["profileData"].items():
            assert other["profileData"][name] == value
        assert one["platformInfo"] == other["platformInfo"]
    # The vendor's samples are what they are.
    assert [small.record(n) for n in range(2)] == [real.record(n) for n in range(2)]


async def test_pages_of_real_records() -> None:
    async with Emulator(people=300, seed=3, record_size="real") as e:
        pages = await walked(e, await opened(e, "?batch_size=115"))
        expected = e.population.active("App Launched", 20260101, 20260131)
        assert len(records(pages)) == len(expected)
        assert len(pages[0].body) > 115 * 15_000
        bare = await page(e, await opened(e, "?batch_size=115&events=false"))
        assert len(bare.body) < len(pages[0].body) / 4


def test_activity_covers_any_range() -> None:
    people = Population(4000, 5)

    def share(event: str, start: int, end: int) -> float:
        return len(people.active(event, start, end)) / len(people)

    for start, end in ((20260101, 20260131), (20200201, 20200229), (19990701, 19990731)):
        assert 0.92 < share("App Launched", start, end) < 0.97
        assert 0.25 < share("Charged", start, end) < 0.35
        assert 0.44 < share("Product Viewed", start, end) < 0.56
    assert share("App Launched", 20260101, 20261231) > 0.99
    days = [set(people.active("App Launched", day, day)) for day in range(20260101, 20260132)]
    month = set(people.active("App Launched", 20260101, 20260131))
    assert set().union(*days) == month
    assert sum(map(len, days)) > 4 * len(month)
    assert people.active("App Launched", 1767225600, 1769903999) == people.active(
        "App Launched", 20260101, 20260131
    )


def test_devices_of_people_without_identity_rotate_with_the_query() -> None:
    people = Population(500, 2)
    turned = 0
    for index in range(len(people)):
        one, other = (people.record(index, turn=turn) for turn in (0, 1))
        if people.identity(index) is not None:
            assert one == other
        elif len(one["platformInfo"]) > 1:
            ids = [[device["objectId"] for device in r["platformInfo"]] for r in (one, other)]
            assert ids[0] != ids[1]
            assert set(ids[0]) == set(ids[1]) == set(people.object_ids(index))
            turned += one.get("objectId") != other.get("objectId")
    assert turned


def test_a_million_people_cost_nothing_until_used() -> None:
    people = Population(1_000_000, 1)
    identity = people.identity(999_983)
    assert identity is None or people.find("identity", identity) == 999_983


# Chains


@pytest.mark.parametrize(
    ("query", "size"),
    [("?batch_size=25", 23), ("?batch_size=50", 46), ("?batch_size=46", 46), ("?batch_size=5", 0),
     ("?batch_size=22", 0), ("", 4991), ("?batch_size=5000", 4991)],
)  # fmt: skip
async def test_batches_are_multiples_of_23(query: str, size: int) -> None:
    async with Emulator(people=300, seed=1) as e:
        expected = e.population.active("App Launched", 20260101, 20260131)
        pages = await walked(e, await opened(e, query))
        counts = [len(answer.json.get("records", [])) for answer in pages]
        full = [count for count in counts if count]
        assert full[:-1] == [size] * (len(full) - 1)
        assert size == 0 or full[-1] <= size
        assert size or len(full) == 1
        assert [str(r["identity"]) for r in records(pages) if "identity" in r] == [
            identity for i in expected if (identity := e.population.identity(i)) is not None
        ]
        assert len(records(pages)) == len(expected)


async def test_default_batch_is_4991() -> None:
    async with Emulator(people=6000, seed=1) as e:
        first = await page(e, await opened(e, "?events=false&profile=false"))
        assert len(first.json["records"]) == 4991


async def test_records_follow_the_flags_of_the_chain() -> None:
    async with Emulator(people=60, seed=1) as e:
        full = records(await walked(e, await opened(e, "?app=true")))
        assert full[0] == SAMPLE_RECORD
        plain = records(await walked(e, await opened(e)))
        assert [d.keys() for d in plain[0]["platformInfo"]] == [
            {"platform", "push_token", "objectId"},
            {"platform", "objectId"},
        ]
        bare = records(await walked(e, await opened(e, "?events=false&profile=false")))
        assert bare[0].keys() == {"identity", "platformInfo"}


async def test_pages_come_in_every_order_and_both_ends() -> None:
    async with Emulator(people=150, seed=4) as e:
        orders: set[tuple[str, ...]] = set()
        ends: set[bytes] = set()
        layouts: set[bytes] = set()
        for number in range(36):
            cursor = await opened(e, f"?batch_size={23 * (1 + number % 6)}")
            assert 60 <= len(cursor) <= 2400
            for answer in await walked(e, cursor):
                orders.add(tuple(answer.json))
                layouts.add(answer.body[:2])
            ends.add(answer.body if "records" not in answer.json else b"records")
        assert {order for order in orders if len(order) == 3} == {
            ("status", "next_cursor", "records"),
            ("status", "records", "next_cursor"),
            ("next_cursor", "status", "records"),
            ("next_cursor", "records", "status"),
            ("records", "status", "next_cursor"),
            ("records", "next_cursor", "status"),
        }
        assert ends == {b'{"status":"success"}', b'{ "status" : "success"}', b"records"}
        assert layouts == {b'{"', b"{ ", b"{\n"}


async def test_a_chain_opened_again_returns_the_same_bytes() -> None:
    async with Emulator(people=600, seed=4) as e:
        written: set[tuple[bytes, ...]] = set()
        styles: set[bytes] = set()
        for _ in range(3):
            pages = await walked(e, await opened(e, "?batch_size=23"))
            bodies = [msgspec.json.decode(p.body, type=dict[str, msgspec.Raw]) for p in pages]
            written.add(tuple(bytes(body["records"]) for body in bodies if "records" in body))
            styles |= {answer.body[:2] for answer in pages}
    # Cursors and their place in a page differ. The bytes of records do not.
    assert styles == {b'{"', b"{ ", b"{\n"}
    assert len(written) == 1


async def test_nobody_matches() -> None:
    async with Emulator(people=0) as e:
        ends = {json.dumps((await page(e, await opened(e))).json) for _ in range(20)}
    assert ends <= {'{"status": "success"}', '{"status": "success", "records": []}',
                    '{"records": [], "status": "success"}'}  # fmt: skip
    assert len(ends) > 1


async def test_cursor_must_arrive_encoded_once() -> None:
    async with Emulator(people=300, seed=2) as e:
        cursor = await opened(e, "?batch_size=23")
        right = await page(e, cursor)
        assert right.json["status"] == "success"
        assert (await page(e, cursor)).body == right.body
        following = right.json["next_cursor"]
        for good in (cursor, following):
            assert "%2F" in good
            assert "%2B" in good
            assert good.endswith("%3D")
            whole = (await page(e, good)).body
            for same in (
                good.replace("%2F", "%2f").replace("%2B", "%2b"),
                good.replace("%2F", "/"),
                good.replace("%3D", "="),
                good.replace("a", "%61"),
            ):
                assert (await page(e, same)).body == whole
            for bad in (quote(good, safe=""), unquote(good), good.replace("%2B", "+"),
                        good + "&cursor=" + good, good[:-1], good + "A", good + "%20",
                        "", "x%3D"):  # fmt: skip
                refused = await page(e, bad)
                assert refused.status in (200, 400)
                assert refused.json["error"] == "Incorrect Usage"
                assert refused.json["code"] == 3
    async with Emulator(people=300, seed=3) as e:
        assert (await page(e, cursor)).json["code"] == 3


async def test_what_stands_beside_a_cursor_is_ignored() -> None:
    async with Emulator(people=300, seed=2) as e:
        cursor = await opened(e, "?batch_size=23")
        whole = (await page(e, cursor)).body
        for query in (
            f"cursor={cursor}&batch_size=46",
            f"batch_size=46&cursor={cursor}",
            f"cursor={cursor}&app=true&events=false&profile=maybe",
            f"cursor={cursor}&batch_size=many",
            f"cursor={cursor}&",
        ):
            assert (await ask(e, "GET", f"/1/profiles.json?{query}")).body == whole
            assert (await ask(e, "POST", f"/1/profiles.json?{query}", b"{}")).body == whole


@given(st.data())
def test_no_other_text_reads_as_a_cursor(data: st.DataObject) -> None:
    cursors = Cursors(Dice(0))
    place = Place(data.draw(st.binary(min_size=9, max_size=9)), data.draw(st.integers(0, 10**6)))
    cursor = cursors.write(place)
    assert cursors.read(f"/1/profiles.json?cursor={cursor}") == place
    position = data.draw(st.integers(0, len(cursor) - 1))
    letter = data.draw(st.sampled_from("aB3%+/= -"))
    changed = cursor[:position] + letter + cursor[position + 1 :]
    if unquote(changed) != unquote(cursor):
        assert cursors.read(f"/1/profiles.json?cursor={changed}") is None


async def test_expired_cursor() -> None:
    async with Emulator(people=50, cursor_lifetime=0) as e:
        answer = await page(e, await opened(e))
        assert answer.json["error"] == "Cursor has been invalidated"
        assert answer.json["code"] == "CURSOR_INVALIDATED"


@pytest.mark.parametrize(
    ("query", "body", "code"),
    [
        ("?batch_size=5001", JANUARY, 400),
        ("?batch_size=many", JANUARY, 400),
        ("?batch_size=-1", JANUARY, 400),
        ("?batch_size=", JANUARY, 400),
        ("?app=True", JANUARY, 400),
        ("?events=%FF", JANUARY, 400),
        ("", JANUARY | {"event_name": 1}, 400),
        ("", JANUARY | {"event_name": ""}, 400),
        ("", JANUARY | {"from": "20260101"}, 4002),
        ("", JANUARY | {"from": True}, 4002),
        ("", JANUARY | {"to": 20260132}, 4002),
        ("", JANUARY | {"to": 20251231}, 4002),
        ("", JANUARY | {"from": 123}, 4002),
        ("", {"event_name": "App Launched"}, 4002),
        ("", [], 400),
    ],
)
async def test_bad_query_is_refused(query: str, body: Any, code: int) -> None:
    async with Emulator(people=5) as e:
        answer = await ask(e, "POST", f"/1/profiles.json{query}", json.dumps(body).encode())
        assert (answer.json["code"], answer.json["status"]) == (code, "fail")
        assert answer.status == 400 or (answer.status, code) == (200, 4002)


@pytest.mark.parametrize("event", ["Notification Sent", "Notification Viewed"])
async def test_notifications_are_exported_unless_a_setting_refuses_them(event: str) -> None:
    async with Emulator(people=200, seed=1) as e:
        body = JANUARY | {"event_name": event}
        sent = records(await walked(e, await opened(e, "", body)))
        assert len(sent) == len(e.population.active(event, 20260101, 20260131)) > 20
        e.notification_exports = False
        for path in ("/1/profiles.json", "/1/counts/profiles.json"):
            answer = await ask(e, "POST", path, json.dumps(body).encode())
            assert (answer.status, answer.json["code"]) == (400, 400)
            assert answer.json["error"] == "Export not allowed for this event"


async def test_unknown_events_are_refused_by_name() -> None:
    async with Emulator(people=5) as e:
        seen = set()
        for name in ("app launched", "Charged ", "Notification Clicked", *"abcdefghijklmnopqrst"):
            body = json.dumps(JANUARY | {"event_name": name}).encode()
            answer = await ask(e, "POST", "/1/profiles.json", body)
            assert answer.json["error"] == [f"Invalid event : {name}"]
            assert answer.json["code"] == 400
            seen.add(answer.status)
        assert seen == {200, 400}


async def test_counts_agree_with_chains() -> None:
    async with Emulator(people=400, seed=6) as e:
        partials: list[int] = []
        kinds: set[type] = set()
        for event in e.population.events:
            body = json.dumps(JANUARY | {"event_name": event}).encode()
            answer = await ask(e, "POST", "/1/counts/profiles.json", body)
            polls = 0
            while answer.json["status"] == "partial":
                kinds.add(type(answer.json["req_id"]))
                target = f"/1/counts/profiles.json?req_id={answer.json['req_id']}"
                answer = await ask(e, "POST" if polls % 2 else "GET", target)
                polls += 1
            partials.append(polls)
            expected = len(e.population.active(event, 20260101, 20260131))
            assert answer.json.keys() == {
                *("status", "count", "nQCount", "tcount", "userDeviceCount")
            }
            assert (answer.json["status"], answer.json["count"]) == ("success", expected)
            assert answer.json["userDeviceCount"] >= expected
        assert set(partials) == {0, 2, 3}
        assert kinds == {int, str}
        assert (await ask(e, "GET", "/1/counts/profiles.json?req_id=x")).code == 400


# By ID


async def test_profile_by_each_key() -> None:
    async with Emulator(people=200, seed=9) as e:
        for index in range(200):
            turned = [e.population.record(index, app=True, turn=turn) for turn in range(12)]
            keys = {
                "identity": e.population.identity(index),
                "email": e.population.email(index),
                "objectId": next(iter(e.population.object_ids(index)), None),
            }
            for by, key in keys.items():
                if key is not None:
                    answer = await ask(e, "GET", f"/1/profile.json?{by}={quote(key, safe='')}")
                    assert answer.json["status"] == "success"
                    assert answer.json["record"] in turned
        sample = await ask(e, "GET", "/1/profile.json?identity=5555555555")
        assert sample.json["record"] == SAMPLE_RECORD
        jack = await ask(e, "GET", "/1/profile.json?email=jack%2Btest%40example.com")
        assert jack.json["record"]["email"] == "jack+test@example.com"
        for part in ("profileData", "events"):
            assert jack.json["record"][part] == SAMPLE_BY_EMAIL[part]
        # A plus that is not escaped is a space, and escapes are decoded only once.
        for wrong in ("jack+test@example.com", "jack%252Btest%40example.com"):
            answer = await ask(e, "GET", f"/1/profile.json?email={wrong}")
            assert "email" not in (answer.json.get("record") or {})


async def test_missing_profile_takes_every_form() -> None:
    async with Emulator(people=10) as e:
        seen = set()
        for number in range(40):
            answer = await ask(e, "GET", f"/1/profile.json?identity=nobody{number}")
            error = answer.json.get("error", "")
            seen.add((answer.status, answer.json["status"], "record" in answer.json, error))
        assert seen == {
            (404, "fail", False, "Profile not found"),
            (200, "success", True, ""),
            (200, "success", False, ""),
            (200, "fail", False, "No profile found for the given identity"),
        }


@pytest.mark.parametrize(
    "query",
    ["", "?", "?identity=", "?identity=a&email=b", "?identity=a&identity=b", "?identity=%FF"],
)
async def test_profile_needs_exactly_one_key(query: str) -> None:
    async with Emulator(people=10) as e:
        answer = await ask(e, "GET", f"/1/profile.json{query}")
        assert (answer.status, answer.code) == (400, 400)


# Credentials, determinism, arguments


async def test_wrong_credentials() -> None:
    async with Emulator(people=5) as e:
        body = json.dumps(JANUARY).encode()
        for name in ("X-CleverTap-Account-Id", "X-CleverTap-Passcode"):
            for method, path in (
                ("POST", "/1/profiles.json"),
                ("GET", "/1/profiles.json?cursor=x"),
                ("GET", "/1/profile.json?identity=x"),
                ("POST", "/1/counts/profiles.json"),
            ):
                answer = await ask(e, method, path, body, {name: "wrong"})
                assert (answer.status, answer.code) == (401, 401)
                assert answer.json["error"] == "Invalid Credentials"
        statuses = set()
        for number in range(20):
            target = f"/v1/user/get-user-cdp?user_id={number}"
            answer = await ask(e, "GET", target, headers={"Authorization": "Bearer wrong"})
            assert answer.code == 40127
            statuses.add(answer.status)
        assert statuses == {200, 401}


async def test_credentials_are_ready_for_use() -> None:
    async with Emulator(people=5) as e:
        assert e.clevertap.base_url == e.alta.base_url == e.url
        assert e.environment == {
            "CLEVERTAP_ACCOUNT_ID": e.clevertap.account_id,
            "CLEVERTAP_PASSCODE": str(e.clevertap.passcode),
            "CLEVERTAP_BASE_URL": e.url,
            "ALTA_TOKEN": str(e.alta.token),
            "ALTA_BASE_URL": e.url,
        }


async def test_same_seed_same_bytes() -> None:
    async def bytes_of(seed: int) -> list[bytes]:
        async with Emulator(people=150, seed=seed, faults={"empty_page": 0.3}) as e:
            answers = []
            for _ in range(2):
                answers += await walked(e, await opened(e, "?batch_size=46"))
            for number in range(10):
                answers.append(await ask(e, "GET", f"/1/profile.json?identity=user_{number}"))
                answers.append(await cdp(e, user_id=f"user_{number}"))
            return [answer.body for answer in answers]

    once = await bytes_of(11)
    assert once == await bytes_of(11)
    assert once != await bytes_of(12)


async def test_unknown_paths_and_methods() -> None:
    async with Emulator(people=0) as e:
        assert (await ask(e, "GET", "/1/nothing")).status == 404
        assert (await ask(e, "DELETE", "/1/profiles.json")).status == 405


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"people": -1}, "people is -1"),
        ({"people": 2.5}, "people is 2.5"),
        ({"think": -0.5}, "think is -0.5"),
        ({"max_in_flight": 0}, "max_in_flight is 0; use 1 or more"),
        ({"max_in_flight": True}, "max_in_flight is True"),
        ({"max_in_flight": None}, "max_in_flight is None"),
        ({"base_query": "never"}, "base_query is 'never'; use 'optional' or 'with_filters'"),
        ({"base_query": None}, "base_query is None; use 'optional'"),
        ({"notification_exports": 1}, "notification_exports is 1; use True or False"),
        ({"cursor_lifetime": float("inf")}, "cursor_lifetime is inf"),
        ({"record_size": "huge"}, "record_size is 'huge'; use 'small' or 'real'"),
        ({"window_seconds": 0}, "window_seconds is 0; use more than 0"),
        ({"alta_envelope": "v2"}, "alta_envelope is 'v2'; use 'classic' or 'v1.5'"),
        ({"alta_error": 41}, "alta_error is 41; use None or 20022 or"),
        ({"cursor_lifetime": -1}, "cursor_lifetime is -1"),
        ({"port": -1}, "port is -1"),
        ({"faults": {"gremlins": 0.5}}, "'gremlins'.*not_ready, throttled"),
        ({"faults": {"reset": 1.5}}, "'reset' has rate 1.5"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Emulator(**arguments)


async def test_what_is_not_http_is_refused_without_a_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with Emulator(people=1) as emulator:
        for line in (b"GET /1/profile.json?email=%b HTTP/1.1" % (b"jack" * 5000), b"jack"):
            async with await anyio.connect_tcp("127.0.0.1", int(emulator.url[17:])) as stream:
                await stream.send(line + b"\r\n\r\n")
                assert b" 400 Bad Request\r\n" in await stream.receive()
    assert not caplog.messages


async def test_settings_change_while_it_runs() -> None:
    async with Emulator(people=50) as e:
        cursor = await opened(e)
        e.cursor_lifetime = 0
        assert (await page(e, cursor)).json["code"] == "CURSOR_INVALIDATED"
        for name, wrong in (("max_in_flight", 0), ("think", -1), ("cursor_lifetime", "4")):
            before = getattr(e, name)
            with pytest.raises(ValueError, match=f"{name} is {wrong!r}"):
                setattr(e, name, wrong)
            assert getattr(e, name) == before


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("fault", "did you mean faults?"),
        ("pascode", "did you mean passcode?"),
        ("max_inflight", "did you mean max_in_flight?"),
        *((name, "assign ") for name in ("people", "records", "seed", "port", "account_id")),
        *((name, "cannot be assigned") for name in ("replay", "record_size", "add", "bindings")),
        *((name, "cannot be assigned") for name in ("url", "stats", "clevertap", "environment")),
    ],
)
async def test_what_has_no_effect_cannot_be_assigned(name: str, words: str) -> None:
    emulator = Emulator(people=0)
    before = dir(emulator)
    with pytest.raises(AttributeError, match=f"^{name} cannot be assigned; ") as caught:
        setattr(emulator, name, {})
    assert words in str(caught.value)
    assert dir(emulator) == before
    async with emulator:
        with pytest.raises(AttributeError, match=f"^{name} cannot be assigned; "):
            setattr(emulator, name, {})


def test_the_rates_of_faults_are_read_only() -> None:
    emulator = Emulator(people=0, faults={"reset": 0.5})
    with pytest.raises(TypeError, match="does not support item assignment"):
        emulator.faults["reset"] = 1.0  # type: ignore[index]
    assert emulator.faults == {"reset": 0.5}


async def test_a_rotation_holds_from_the_next_request() -> None:
    async with Emulator(records=[{"identity": "1"}], bindings={"1": ["a1"]}) as e:
        old = e.environment
        e.passcode, e.token = "new-passcode", "new-token"
        assert (e.clevertap.passcode, e.alta.token) == ("new-passcode", "new-token")
        assert e.environment == old | {
            "CLEVERTAP_PASSCODE": "new-passcode",
            "ALTA_TOKEN": "new-token",
        }
        for environment, statuses in ((old, [401, 401]), (e.environment, [200, 200])):
            clevertap = {
                "X-CleverTap-Account-Id": environment["CLEVERTAP_ACCOUNT_ID"],
                "X-CleverTap-Passcode": environment["CLEVERTAP_PASSCODE"],
            }
            alta = {"Authorization": f"Bearer {environment['ALTA_TOKEN']}"}
            async with aiohttp.ClientSession(e.url) as client:
                found = [
                    (await client.get("/1/profile.json?identity=1", headers=clevertap)).status,
                    (await client.get("/v1/user/get-user-cdp?user_id=1", headers=alta)).status,
                ]
            assert found == statuses
        for wrong in ("", "a b", 7, None, ["x"]):
            with pytest.raises(ValueError, match=r"^passcode: "):
                e.passcode = wrong  # type: ignore[assignment]
            with pytest.raises(ValueError, match=r"^token: "):
                e.token = wrong  # type: ignore[assignment]
        assert (e.passcode, e.token) == ("new-passcode", "new-token")


async def test_it_runs_once_at_a_time() -> None:
    e = Emulator(people=0)
    with pytest.raises(RuntimeError, match="only while it runs"):
        _ = e.url
    async with e:
        with pytest.raises(RuntimeError, match="already running"):
            await e.__aenter__()
        with pytest.raises(ValueError, match="gremlins"):
            e.faults = {"gremlins": 1.0}
    async with e:
        assert (await ask(e, "GET", "/stats")).status == 200
    await e.__aexit__()


# Faults


async def faulty(e: Emulator, fault: str, keys: int = 12) -> list[Answer]:
    """Return answers of each service to the same requests, with one fault always on."""
    e.faults = {fault: 1.0}
    targets = [f"/1/profile.json?identity={n}" for n in range(keys)]
    targets += [f"/v1/user/get-user-cdp?user_id={n}" for n in range(keys)]
    return [await ask(e, "GET", target) for target in targets]


async def test_faults_of_the_services_own() -> None:
    async with Emulator(people=20) as e:
        answers = await faulty(e, "throttled")
        assert {a.status for a in answers} == {200}
        assert [a.code for a in answers] == [1] * 12 + [40008] * 12
        waits = [a.headers.get("retry-after") for a in answers]
        answers = await faulty(e, "too_many")
        assert {a.status for a in answers} == {429}
        assert {a.code for a in answers[12:]} == {40008}
        waits += [a.headers.get("retry-after") for a in answers]
        assert set(waits) == {None, "0"}
        answers = await faulty(e, "server_error")
        assert {(a.status, a.code) for a in answers[:12]} == {(500, 500), (503, 503)}
        assert {(a.status, a.code) for a in answers[12:]} == {(500, 50000)}
        assert e.stats.too_many == 0
        assert e.stats.faults["too_many"] == 24


async def test_faults_of_a_proxy() -> None:
    async with Emulator(people=20) as e:
        answers = await faulty(e, "html")
        assert {a.status for a in answers} == {200, 502, 504}
        assert all(a.body.startswith(b"<html>") for a in answers)
        assert {a.headers["content-type"] for a in answers} == {"text/html"}
        answers = await faulty(e, "empty")
        assert {(a.status, a.body) for a in answers} == {(200, b""), (504, b"")}


async def test_garbled_bodies_are_complete_and_not_json() -> None:
    async with Emulator(people=20) as e:
        for answer in await faulty(e, "garbled"):
            assert answer.status == 200
            assert int(answer.headers["content-length"]) == len(answer.body) > 0
            with pytest.raises(ValueError):  # noqa: PT011 - JSON or UTF-8
                json.loads(answer.body)


async def test_not_ready_is_for_pages_only() -> None:
    async with Emulator(people=20, faults={"not_ready": 1.0}) as e:
        statuses = set()
        for _ in range(12):
            answer = await page(e, await opened(e))
            assert answer.code == 2
            assert answer.json["error"].startswith("Request still in progress")
            statuses.add(answer.status)
        assert statuses == {200, 202}
        assert (await ask(e, "GET", "/1/profile.json?identity=5555555555")).status == 200
        e.faults = {}
        assert e.faults == {}
        assert (await page(e, await opened(e))).json["status"] == "success"


async def test_an_opening_can_be_not_ready() -> None:
    async with Emulator(people=20, faults={"opening_not_ready": 1.0}) as e:
        answers = []
        for number in range(12):
            body = json.dumps(JANUARY | {"event_name": e.population.events[number % 8]}).encode()
            answers.append(await ask(e, "POST", f"/1/profiles.json?batch_size={number}", body))
        assert {answer.status for answer in answers} == {200, 202}
        assert {answer.json["code"] for answer in answers} == {2}
        assert all(a.json["error"].startswith("Request still in progress") for a in answers)
        e.faults = {}
        cursor = await opened(e)
        e.faults = {"opening_not_ready": 1.0}
        assert (await page(e, cursor)).json["status"] == "success"


async def test_a_count_can_be_not_ready() -> None:
    target, body = "/1/counts/profiles.json", json.dumps(JANUARY).encode()
    async with Emulator(people=20, faults={"counting_not_ready": 1.0}) as e:
        started = await ask(e, "POST", target, body)
        assert (started.status, started.json["status"]) == (200, "partial")
        poll = f"{target}?req_id={started.json['req_id']}"
        for method in ("GET", "POST", "GET", "GET", "GET"):
            assert (await ask(e, method, poll)).json == started.json
        assert e.stats.faults["counting_not_ready"] == 6
        assert (await ask(e, "GET", f"{target}?req_id=r0")).json["error"] == "Invalid req_id"
        wrong = await ask(e, "POST", target, b"[]")
        assert wrong.json["error"] == "Request body is not a JSON object"
        assert (await page(e, await opened(e))).json["status"] == "success"
        assert (await ask(e, "GET", "/1/profile.json?identity=5555555555")).status == 200
        e.faults = {}
        answers = [(await ask(e, "GET", poll)).json for _ in range(3)]
        expected = len(e.population.active("App Launched", 20260101, 20260131))
        assert answers[-1]["count"] == expected


async def test_a_slow_page_can_be_a_web_page_of_the_cdn() -> None:
    async with Emulator(people=20, faults={"cdn_timeout": 1.0}) as e:
        answer = await page(e, await opened(e))
        assert answer.status == 504
        assert answer.headers["content-type"] == "text/html"
        assert b"504 Gateway Timeout" in answer.body
        assert (await ask(e, "GET", "/1/profile.json?identity=5555555555")).status == 200
        assert e.stats.faults["cdn_timeout"] == 1


async def test_lists_of_errors_can_be_text() -> None:
    async with Emulator(people=20, faults={"text_errors": 1.0}) as e:
        body = json.dumps(JANUARY | {"event_name": "X"}).encode()
        answer = await ask(e, "POST", "/1/profiles.json", body)
        assert answer.json["error"] == '["Invalid event : X"]'
        assert type(answer.json["code"]) is int
        assert e.stats.faults["text_errors"] == 1
        assert (await page(e, "x")).json["error"] == "Incorrect Usage"
        assert e.stats.faults["text_errors"] == 1


async def test_a_chain_can_end_with_an_empty_list() -> None:
    async with Emulator(people=200, seed=1, faults={"empty_end": 1.0}) as e:
        for query in ("?batch_size=46", "?batch_size=5", ""):
            pages = await walked(e, await opened(e, query))
            assert pages[-1].json == {"status": "success", "records": []}
            assert len(records(pages)) == len(
                e.population.active("App Launched", 20260101, 20260131)
            )
        assert e.stats.faults["empty_end"] == 3


def key_of(record: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(record.get(name) for name in ("identity", "email", "objectId"))


async def test_records_can_be_odd() -> None:
    people: list[dict[str, Any]] = [
        *({"identity": f"u{n}", "email": f"{n}@x.org", "name": "Ann"} for n in range(80)),
        *({"objectId": f"d{n}", "platformInfo": [{"platform": "Web"}]} for n in range(20)),
    ]
    usual = {"name": str, "phone": str, "ls": int, "profileData": dict, "events": dict}
    async with Emulator(records=people, seed=1, faults={"odd_record": 0.5}) as e:
        sent = records(await walked(e, await opened(e, "?batch_size=46")))
        assert [key_of(record) for record in sent] == [key_of(own) for own in people]
        odd = [record for record, own in zip(sent, people, strict=True) if record != own]
        assert e.stats.faults["odd_record"] == len(odd)
        assert 30 < len(odd) < 70
        for name, kind in usual.items():
            assert {type(record[name]) for record in odd} - {kind}, name
        assert any(record["phone"] == record["ls"] > 2**64 for record in odd)
        for record in odd:
            assert ("identity" in record) == (record["platformInfo"] != [{"platform": "Web"}])
        # The same people, in every answer.
        assert records(await walked(e, await opened(e, "?batch_size=23"))) == sent
        for record in sent[:80]:
            found = await ask(e, "GET", f"/1/profile.json?identity={record['identity']}")
            assert found.json["record"] == record
        bare = records(await walked(e, await opened(e, "?events=false&profile=false")))
        assert not any({"events", "profileData"} & record.keys() for record in bare)
        e.faults = {}
        assert records(await walked(e, await opened(e))) == people
    async with Emulator(records=people, seed=1, faults={"odd_record": 0.5}) as again:
        assert records(await walked(again, await opened(again))) == sent


async def test_disconnect_comes_before_any_byte() -> None:
    async with Emulator(people=20, faults={"disconnect": 1.0}) as e:
        for target in ("/1/profile.json?identity=x", "/v1/user/get-user-cdp?user_id=x"):
            async with sent(e, "GET", target) as reader:
                assert await reader.read() == b""


async def test_reset_comes_in_the_middle_of_the_body() -> None:
    async with Emulator(people=2000, seed=1) as e:
        cursor = await opened(e)
        whole = await page(e, cursor)
        e.faults = {"reset": 1.0}
        got = bytearray()

        async def read_on(reader: asyncio.StreamReader) -> None:
            while chunk := await reader.read(4096):
                got.extend(chunk)

        async with sent(e, "GET", f"/1/profiles.json?cursor={cursor}") as reader:
            with pytest.raises(ConnectionResetError):
                await read_on(reader)
        head, _, body = bytes(got).partition(b"\r\n\r\n")
        assert f"Content-Length: {len(whole.body)}".encode() in head
        assert len(body) < len(whole.body)
        assert whole.body.startswith(body)
        assert e.stats.double_served == 0


async def test_truncated_body_ends_like_a_complete_one() -> None:
    async with Emulator(people=200, seed=1) as e:
        cursor = await opened(e)
        whole = await page(e, cursor)
        e.faults = {"truncated": 1.0}
        cut = await page(e, cursor)
        assert cut.status == 200
        assert "content-length" not in cut.headers
        assert "transfer-encoding" not in cut.headers
        assert 0 < len(cut.body) < len(whole.body)
        assert whole.body.startswith(cut.body)


async def test_slow_and_gzip_are_right_answers() -> None:
    async with Emulator(people=200, seed=1) as e:
        cursor = await opened(e)
        whole = await page(e, cursor)
        e.faults = {"slow": 1.0, "gzip": 1.0}
        assert (await page(e, cursor)).body == whole.body
        assert e.stats.faults["gzip"] == 0
        packed = await page(e, cursor, {"Accept-Encoding": "gzip, deflate"})
        assert packed.headers["content-encoding"] == "gzip"
        assert gzip.decompress(packed.body) == whole.body
        assert e.stats.faults["gzip"] == 1
        assert e.stats.faults["slow"] == 2
        small = await ask(e, "GET", "/1/profile.json?identity=nobody")
        assert small.json["status"] in ("success", "fail")


async def test_pages_that_call_their_cursor_otherwise() -> None:
    async with Emulator(people=200, seed=1, faults={"other_cursor": 1.0}) as e:
        first = await page(e, await opened(e, "?batch_size=46"))
        assert "next_cursor" not in first.json
        assert (await page(e, first.json["cursor"])).json["records"]
        assert e.stats.faults["other_cursor"] == 2


@pytest.mark.parametrize("fault", ["empty_chain", "cut_short"])
async def test_every_third_chain_of_a_query_is_whole(fault: str) -> None:
    async with Emulator(people=200, seed=1) as e:
        whole = len(records(await walked(e, await opened(e, "?batch_size=46"))))
        e.faults = {fault: 0.99}
        sent = [len(records(await walked(e, await opened(e, "?batch_size=46")))) for _ in range(5)]
        expected = 0 if fault == "empty_chain" else 46
        assert sent == [expected, whole, expected, expected, whole]
        # With a rate of 1 it is an outage.
        e.faults = {fault: 1}
        sent = [len(records(await walked(e, await opened(e, "?batch_size=46")))) for _ in range(3)]
        assert sent == [expected] * 3
        assert e.stats.faults[fault] == 6


async def test_empty_pages_lead_to_the_data() -> None:
    async with Emulator(people=200, seed=1) as e:
        right = records(await walked(e, await opened(e, "?batch_size=46")))
        e.faults = {"empty_page": 1.0}
        pages = await walked(e, await opened(e, "?batch_size=46"))
        assert records(pages) == right
        emptied = [a for a in pages[::2] if a.json["records"] == [] and a.json["next_cursor"]]
        assert len(emptied) == len(pages[::2]) == e.stats.faults["empty_page"]
        # A page that is emptied at random is the same when it is requested again.
        e.faults = {"empty_page": 0.5}
        cursor: str | None = await opened(e, "?batch_size=23")
        while cursor is not None:
            once = await page(e, cursor)
            assert (await page(e, cursor)).body == once.body
            cursor = once.json.get("next_cursor")


async def test_three_failures_in_a_row_at_most_unless_it_is_an_outage() -> None:
    async with Emulator(people=20, faults={"server_error": 0.99, "slow": 0.1}) as e:
        for target in ("/1/profile.json?identity=5555555555", "/1/profile.json?identity=x"):
            statuses = [(await ask(e, "GET", target)).status for _ in range(24)]
            failed = "".join("x" if status >= 500 else "." for status in statuses)
            assert "x" * (STREAK + 1) not in failed
            assert "xxx." in failed
        e.faults = {"server_error": 1.0}
        assert all([(await ask(e, "GET", target)).status >= 500 for _ in range(8)])
        e.faults = {}
        assert (await ask(e, "GET", "/1/profile.json?identity=5555555555")).status == 200


def test_faults_do_not_depend_on_interleaving() -> None:
    possible = frozenset(Fault)

    def outcomes(order: list[bytes]) -> dict[bytes, list[frozenset[Fault]]]:
        plan = Plan(Dice(3))
        plan.rates = {Fault.RESET: 0.4, Fault.HTML: 0.2, Fault.SLOW: 0.3}
        met: dict[bytes, list[frozenset[Fault]]] = {}
        for request in order:
            met.setdefault(request, []).append(plan.next(request, possible))
        return met

    requests = [bytes([number]) for number in range(40)]
    assert outcomes(requests * 10) == outcomes(sorted(requests * 10))
    every = [met for each in outcomes(requests * 10).values() for met in each]
    assert all(len(met) == 1 for met in every if Fault.RESET in met)
    plan = Plan(Dice(3))
    plan.rates = {Fault.RESET: 0.3}
    resets = sum(len(plan.next(b"%d" % number, possible)) for number in range(2000))
    assert 0.27 < resets / 2000 < 0.33


def test_attempts_are_forgotten_eventually() -> None:
    plan = Plan(Dice(0))
    plan.rates = {Fault.RESET: 0.5}
    first = [plan.next(b"0", frozenset(Fault)) for _ in range(10)]
    for number in range(1, MEMORY + 1):
        plan.next(b"%d" % number, frozenset(Fault))
    assert [plan.next(b"0", frozenset(Fault)) for _ in range(10)] == first


# Limits and accounting


async def test_fourth_request_in_flight_is_refused() -> None:
    async with Emulator(people=20, think=3600) as e:
        target = "/1/profile.json?identity=5555555555"
        async with anyio.create_task_group() as tasks:
            for path in ("/1/profile.json?identity=1", "/1/profiles.json?cursor=x", target):
                tasks.start_soon(ask, e, "GET", path)
            await until(lambda: e.stats.in_flight["clevertap"] == 3)
            for method, path in (
                ("GET", target),
                ("POST", "/1/profiles.json"),
                ("POST", "/1/profiles.json?cursor=x"),
            ):
                refused = await ask(e, method, path, b"{}")
                assert (refused.status, refused.code) == (429, 429)
                assert refused.json["error"] == "Too many concurrent requests"
                assert "retry-after" not in refused.headers
            # Counts have 3 of their own.
            for _ in range(3):
                tasks.start_soon(ask, e, "POST", "/1/counts/profiles.json", b"{}")
            await until(lambda: e.stats.in_flight["clevertap"] == 6)
            refused = await ask(e, "GET", "/1/counts/profiles.json?req_id=x")
            assert (refused.status, refused.code) == (429, 429)
            # The other service does not have this cap.
            for _ in range(5):
                tasks.start_soon(ask, e, "GET", "/v1/user/get-user-cdp?user_id=x")
            await until(lambda: e.stats.in_flight["alta"] == 5)
            stats = e.stats
            assert stats.too_many == 4
            assert stats.limited["max_in_flight"] == 3
            assert stats.limited["counts_max_in_flight"] == 1
            assert stats.peak_in_flight == {"clevertap": 7, "alta": 5}
            tasks.cancel_scope.cancel()
        await until(lambda: not any(e.stats.in_flight.values()))


async def test_a_dropped_request_frees_its_slot_at_once() -> None:
    async with Emulator(people=20, think=3600, max_in_flight=1) as e:
        for _ in range(30):
            async with sent(e, "GET", "/1/profile.json?identity=x"):
                await until(lambda: e.stats.in_flight["clevertap"] == 1)
        assert e.stats.too_many == 0
        assert e.stats.peak_in_flight["clevertap"] == 1
        async with aiohttp.ClientSession() as session:
            for _ in range(30):
                waiting = asyncio.create_task(session.get(f"{e.url}/1/profile.json?identity=x"))
                before = e.stats.requests["profile"]
                await until(lambda before=before: e.stats.requests["profile"] > before)  # type: ignore[misc]
                waiting.cancel()
                await asyncio.wait([waiting])
        assert e.stats.too_many == 0


async def test_a_large_body_counts_until_its_end() -> None:
    async with Emulator(people=20_000, max_in_flight=1) as e:
        cursor = await opened(e, "?batch_size=5")
        async with sent(e, "GET", f"/1/profiles.json?cursor={cursor}") as reader:
            await reader.readuntil(b"\r\n\r\n")
            # Megabytes are still unread: the request has not ended.
            assert (await ask(e, "GET", "/1/profile.json?identity=x")).status == 429
            body = await reader.read()
        assert len(json.loads(body)["records"]) > 18_000
        assert e.stats.in_flight["clevertap"] == 0


async def test_stats_count_requests_and_connections() -> None:
    async with Emulator(people=50, seed=1) as e:
        cursor = await opened(e)
        await page(e, cursor)
        assert e.stats.double_served == 0
        await page(e, cursor)
        await ask(e, "GET", "/1/profile.json?identity=x")
        await ask(e, "POST", "/1/counts/profiles.json", json.dumps(JANUARY).encode())
        await cdp(e, user_id="x")
        await cdp(e, user_id="y")
        await until(lambda: e.stats.open_connections == 0)
        stats = e.stats
        requests = {name: count for name, count in stats.requests.items() if count}
        assert requests == {"open_chain": 1, "page": 2, "profile": 1, "count": 1, "cdp": 2}
        assert stats.double_served == 1
        assert stats.overlapping_cursors == 0
        assert stats.peak_in_flight == {"clevertap": 1, "alta": 1}
        assert stats.connections == 7
        assert stats.faults == dict.fromkeys(Fault, 0)
        served = (await ask(e, "GET", "/stats")).json
        assert served["requests"] == stats.requests
        assert served["connections"] == 8
        assert served["open_connections"] == 1


async def test_one_cursor_twice_at_once_is_noticed() -> None:
    async with Emulator(people=50, seed=1) as e:
        cursor, other = await opened(e), await opened(e)
    e = Emulator(people=50, seed=1, think=3600)
    async with e, anyio.create_task_group() as tasks:
        tasks.start_soon(page, e, cursor)
        tasks.start_soon(page, e, other)
        await until(lambda: e.stats.in_flight["clevertap"] == 2)
        assert e.stats.overlapping_cursors == 0
        tasks.start_soon(page, e, cursor)
        await until(lambda: e.stats.in_flight["clevertap"] == 3)
        assert e.stats.overlapping_cursors == 1
        tasks.cancel_scope.cancel()


# Ending


@pytest.mark.parametrize("turns", range(8))
async def test_a_connection_that_has_just_come_is_closed_with_the_others(turns: int) -> None:
    e = await Emulator(people=1).__aenter__()
    with closing(socket.create_connection(("127.0.0.1", int(e.url.rpartition(":")[2])))) as client:
        client.setblocking(False)
        for _ in range(turns):
            await asyncio.sleep(0)
        await e.__aexit__()
        with suppress(ConnectionResetError), anyio.fail_after(30):
            assert await asyncio.get_running_loop().sock_recv(client, 1) == b""
    assert e.stats.open_connections == 0


async def test_it_stops_promptly_and_leaves_nothing() -> None:
    before = asyncio.all_tasks()
    e = await Emulator(people=20_000, think=0).__aenter__()
    port = int(e.url.rpartition(":")[2])
    cursor = await opened(e, "?batch_size=5")
    unread = sent(e, "GET", f"/1/profiles.json?cursor={cursor}")
    reader = await unread.__aenter__()
    await reader.readuntil(b"\r\n\r\n")
    idle = await asyncio.open_connection("127.0.0.1", port)
    e.faults = {"slow": 1.0}
    async with sent(e, "GET", "/1/profile.json?identity=5555555555") as dripping:
        await dripping.readuntil(b"\r\n\r\n")
        assert e.stats.in_flight["clevertap"] == 2

        # Exited from another task than the one that entered.
        with anyio.fail_after(30):
            await asyncio.create_task(e.__aexit__())
    assert e.stats.in_flight["clevertap"] == 0
    assert e.stats.open_connections == 0
    assert asyncio.all_tasks() - before == set()
    idle[1].close()
    await idle[1].wait_closed()
    await unread.__aexit__(None, None, None)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
