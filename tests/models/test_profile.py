"""Values that callers receive: people, pages, event summaries, dates."""

from __future__ import annotations

import copy
import gc
import json
import pickle
import sys
import weakref
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from altaprofiles import (
    AnonymousId,
    CdpUser,
    DecodeError,
    EventSummary,
    Page,
    Platform,
    Profile,
    parse_date,
)
from altaprofiles.flow.slices import at_once
from altaprofiles.wire import clevertap
from altaprofiles.wire.messages import Response

from ..support.records import FULL, JSON


@pytest.mark.parametrize("field", ["identity", "email", "name", "phone", "object_id"])
@pytest.mark.parametrize(
    ("sent", "text"),
    [
        (b'"a"', "a"),
        (b'"007"', "007"),
        (b"7", "7"),
        (b"-7", "-7"),
        (b"4915112345678", "4915112345678"),
        (b"123456789012345678901234567890", "123456789012345678901234567890"),
        (b"1.5", "1.5"),
        (b"true", "true"),
        (b"false", "false"),
        (b"null", None),
        (b'["a", 1]', '["a",1]'),
        (b'{"a": "\xc3\xab"}', '{"a":"ë"}'),
        (b'"\\ud83d\\ude00"', "\U0001f600"),
    ],
)
def test_a_core_field_is_text_or_none_whatever_its_type(
    field: str, sent: bytes, text: str | None
) -> None:
    key = "objectId" if field == "object_id" else field
    assert getattr(Profile.decode(b'{"%b":%b}' % (key.encode(), sent)), field) == text
    assert getattr(Profile.decode(b"{}"), field) is None


def test_a_record_is_read_whole() -> None:
    profile = Profile.decode(FULL)
    assert (profile.identity, profile.email, profile.name) == ("7", "a@example.com", "Ann")
    assert (profile.phone, profile.object_id) == ("4915112345678", "d0")
    assert profile.all_identities == ["7", "8"]
    assert profile.profile_data == {"plan": "gold", "since": "$D_0"}
    assert profile.events == {"Charged": EventSummary(6, 1457962417, 1458041276)}
    assert profile.platform_info == [
        Platform(platform="iOS", os_version="10.2", object_id="d1"),
        Platform(platform="Web"),
        Platform(object_id="d1", phone="5"),
        Platform(object_id="d0"),
    ]
    assert profile.object_ids == ["d0", "d1"]
    assert profile.last_seen == 1
    assert profile.last_seen_at == datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)
    assert profile.raw == FULL


@pytest.mark.parametrize(
    "record", [b"{}", b'{"profileData":null,"events":null,"platformInfo":null}']
)
def test_missing_parts_are_empty(record: bytes) -> None:
    profile = Profile.decode(record)
    assert (profile.profile_data, profile.events, profile.platform_info) == ({}, {}, [])
    assert (profile.all_identities, profile.object_ids) == ([], [])


def test_property_types_are_kept() -> None:
    data = (
        b'{"a":1,"b":1.0,"c":"1","d":true,"e":["x","y"],"f":{"g":null},"h":100000000000000000000}'
    )
    found = Profile.decode(b'{"profileData":%b}' % data).profile_data
    assert found == {
        "a": 1,
        "b": 1.0,
        "c": "1",
        "d": True,
        "e": ["x", "y"],
        "f": {"g": None},
        "h": 10**20,
    }
    assert [type(found[key]) for key in "abd"] == [int, float, bool]


@pytest.mark.parametrize(
    ("sent", "listed"),
    [(b'["a","b"]', ["a", "b"]), (b'"a"', ["a"]), (b"7", ["7"]), (b"[]", []), (b"null", [])],
)
def test_all_identities_is_a_list_whatever_was_sent(sent: bytes, listed: list[str]) -> None:
    assert Profile.decode(b'{"all_identities":%b}' % sent).all_identities == listed


@pytest.mark.parametrize(
    "record", [b"", b"null", b"7", b'"x"', b"[]", b"{", b"{}{}", b'{"identity":"\xff"}']
)
def test_anything_but_a_json_object_is_refused(record: bytes) -> None:
    with pytest.raises(DecodeError) as caught:
        Profile.decode(record)
    assert caught.value.path == "$"


@pytest.mark.parametrize(
    ("part", "sent", "path"),
    [
        ("profile_data", b'{"profileData":[]}', "$.profileData"),
        ("profile_data", b'{"profileData":"x"}', "$.profileData"),
        ("events", b'{"events":7}', "$.events"),
        ("events", b'{"events":{"A":7}}', "$.events[...]"),
        ("events", b'{"events":{"A":{"count":"many"}}}', "$.events[...].count"),
        ("platform_info", b'{"platformInfo":{}}', "$.platformInfo"),
        ("platform_info", b'{"platformInfo":[{},7]}', "$.platformInfo[1]"),
        ("object_ids", b'{"platformInfo":[{},{},7]}', "$.platformInfo[2]"),
        ("object_ids", b'{"platformInfo":"x"}', "$.platformInfo"),
    ],
)
def test_a_broken_part_raises_with_its_path_on_access_only(
    part: str, sent: bytes, path: str
) -> None:
    profile = Profile.decode(sent)
    assert (profile.identity, profile.raw) == (None, sent)
    for _ in range(2):
        with pytest.raises(DecodeError) as caught:
            getattr(profile, part)
        assert caught.value.path == path
    unbroken = {"profile_data", "events", "platform_info"} - {part}
    if path.startswith("$.platformInfo"):
        unbroken.discard("platform_info")
    for other in unbroken:
        assert len(getattr(profile, other)) == 0


@pytest.mark.parametrize(
    ("record", "key"),
    [
        (b'{"identity":"7","objectId":"d"}', "identity:7"),
        (b'{"identity":7}', "identity:7"),
        (b'{"objectId":"d","platformInfo":[{"objectId":"e"}]}', "objectId:d"),
        (b'{"platformInfo":[{"platform":"Web"},{"objectId":"e"},{"objectId":"f"}]}', "objectId:e"),
        (b'{"platformInfo":[{"objectId":"f"},{"objectId":"e"}]}', "objectId:e"),
        (b'{"objectId":"f","platformInfo":[{"objectId":"e"}]}', "objectId:e"),
        (b'{"identity":null,"objectId":null,"platformInfo":[{"objectId":"e"}]}', "objectId:e"),
        (b'{"email":"a@example.com"}', None),
        # Taken as an identity, the empty text would merge many people into one.
        (b'{"identity":"","objectId":"d"}', "objectId:d"),
        (b'{"identity":"","objectId":""}', None),
    ],
)
def test_a_person_is_the_identity_or_else_the_least_device(record: bytes, key: str | None) -> None:
    assert Profile.decode(record).person_key == key


@pytest.mark.parametrize("record", [b'{"identity":"%b"}', b'{"objectId":"%b"}'])
def test_the_keys_of_people_differ_where_their_texts_are_mended_alike(record: bytes) -> None:
    halves = [rb"u\ud83d", rb"u\uDE00", rb"u\ufffd"]
    keys = {Profile.decode(record % half).person_key for half in halves}
    assert len(keys) == 3
    assert [key for key in keys if key is not None and key.encode().endswith("u\ufffd".encode())]
    assert Profile.decode(record % rb"\u0075\uD83D").person_key in keys


@pytest.mark.parametrize("record", [FULL, b"{}", b'{ "x" : [1, 2.50] ,"name":"\\ud83d"}'])
def test_a_profile_survives_pickling_and_copying_byte_for_byte(record: bytes) -> None:
    profile = Profile.decode(record)
    copies = [
        pickle.loads(pickle.dumps(profile, protocol))  # noqa: S301
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    ]
    for twin in [*copies, copy.copy(profile), copy.deepcopy(profile)]:
        assert type(twin) is Profile
        assert twin.raw == record
        assert twin == profile
        assert twin.events == profile.events


def test_profiles_are_equal_if_their_bytes_are() -> None:
    one, same = Profile.decode(b'{"identity":"7","x":1}'), Profile.decode(b'{"identity":"7","x":1}')
    other = Profile.decode(b'{"identity":"7","x":2}')
    assert one == same
    assert hash(one) == hash(same)
    assert one != other
    assert one != b'{"identity":"7","x":1}'
    assert len({one, same, other}) == 2


def test_decoded_parts_are_shared_and_no_part_of_what_a_profile_is() -> None:
    profile, same = Profile.decode(FULL), Profile.decode(FULL)
    before = profile.profile_data, profile.events, profile.platform_info
    expected = copy.deepcopy(before)
    for part in before:
        part.clear()
    shared = copy.copy(profile)
    assert (shared.profile_data, shared.events, shared.platform_info) == ({}, {}, [])
    assert profile == same
    assert len({profile, same}) == 1
    assert profile.encode() == same.encode()
    pickled = pickle.loads(pickle.dumps(profile))  # noqa: S301
    for other in (copy.deepcopy(profile), pickled):
        assert (other.profile_data, other.events, other.platform_info) == expected


def test_users_share_their_list_with_shallow_copies_only() -> None:
    user = CdpUser("a", [AnonymousId("1")])
    shallow, deep = copy.copy(user), copy.deepcopy(user)
    user.anonymous_ids.clear()
    assert shallow == user != deep == CdpUser("a", [AnonymousId("1")])
    with pytest.raises(TypeError, match="unhashable"):
        hash(user)


def test_the_repr_of_a_profile_is_short() -> None:
    text = repr(Profile.decode(FULL))
    assert text == "Profile(identity='7', email='a@example.com', name='Ann')"
    assert repr(Profile.decode(b"{}")) == "Profile(identity=None, email=None, name=None)"


def test_a_profile_cannot_be_changed() -> None:
    profile = Profile.decode(b'{"identity":"7"}')
    with pytest.raises(AttributeError):
        profile.identity = "8"  # type: ignore[misc]


class Guard:
    """Lives as long as the body that holds it."""


class Body(bytes):
    guard: Guard


@pytest.mark.slow
@pytest.mark.parametrize("escape", [b"", b"\\ud83d"], ids=["plain", "mended"])
def test_a_profile_does_not_keep_its_page_in_memory(escape: bytes) -> None:
    record = b'{"identity":"7","profileData":{"a":1},"events":{},"platformInfo":[],"name":"%b"}'
    record %= escape
    other = b'{"x":"%b"}' % (b"x" * 1_000_000)
    body = Body(b'{"records":[%b,%b],"status":"success"}' % (record, other))
    body.guard = Guard()
    alive = weakref.ref(body.guard)
    page = at_once(clevertap.read_page(Response(200, {}, body), "c"))
    profile = page.profiles[0]
    assert alive() is not None
    del page, body
    gc.collect()
    assert alive() is None
    assert type(profile.raw) is bytes
    assert sys.getsizeof(profile.raw) == sys.getsizeof(record)
    assert (profile.raw, profile.profile_data) == (record, {"a": 1})


def test_the_repr_of_a_page_is_its_size_and_marks_the_last() -> None:
    people = [Profile.decode(FULL)] * 3
    assert repr(Page.of(people, b"x" * 500, "c", "n" * 2400)) == "Page(3 profiles, 500 bytes)"
    assert repr(Page([], b"{}", "c", None)) == "Page(0 profiles, 2 bytes, last)"


def test_event_times_are_aware_datetimes_in_utc() -> None:
    summary = EventSummary(10, 1457271567, 1458041215)
    assert summary.first_seen_at == datetime(2016, 3, 6, 13, 39, 27, tzinfo=UTC)
    assert summary.last_seen_at == datetime(2016, 3, 15, 11, 26, 55, tzinfo=UTC)
    assert summary.last_seen_at is not None
    assert summary.last_seen_at.utcoffset() == timedelta(0)
    assert EventSummary().first_seen_at is None
    assert EventSummary().last_seen_at is None


@pytest.mark.parametrize("seconds", [10**12, -(10**12), 10**30, 253402300800, -62135596801])
def test_a_time_beyond_the_calendar_has_no_datetime(seconds: int) -> None:
    summary = EventSummary(1, seconds, seconds)
    assert (summary.first_seen_at, summary.last_seen_at) == (None, None)
    record = b'{"ls":%d,"platformInfo":[{"ls":%d}]}' % (seconds, seconds)
    for seen in (profile := Profile.decode(record), profile.platform_info[0]):
        assert (seen.last_seen, seen.last_seen_at) == (seconds, None)


@pytest.mark.parametrize(
    ("sent", "seconds"),
    [
        (b"1668817176", 1668817176),
        (b'"1668817176"', 1668817176),
        (b"1.668817176E9", 1668817176),
        (b"1668817176.0", 1668817176),
        (b"-1", -1),
        (b"0", 0),
        (b"-0", 0),
        (b"null", None),
        (b"1668817176.5", None),
        (b'"yesterday"', None),
        (b'""', None),
        (b'"\\ud83d"', None),
        (b"true", None),
        (b"[1]", None),
        (b'{"a":1}', None),
        (b"1e400000", None),
        (b"[" * 20_000 + b"]" * 20_000, None),
    ],
)
def test_the_time_last_seen_is_a_whole_number_or_none(sent: bytes, seconds: int | None) -> None:
    profile = Profile.decode(b'{"identity":7,"ls":%b,"platformInfo":[{"ls":%b}]}' % (sent, sent))
    assert profile.identity == "7"
    at = None if seconds is None else datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    for seen in (profile, profile.platform_info[0]):
        assert (seen.last_seen, seen.last_seen_at) == (seconds, at)
    assert Profile.decode(b"{}").last_seen is None
    assert Platform().last_seen_at is None


@pytest.mark.parametrize(
    ("sent", "location"),
    [
        (b"[19.07,72.88]", (19.07, 72.88)),
        (b"[0, -1]", (0.0, -1.0)),
        (b'["19.07","72.88"]', (19.07, 72.88)),
        (b"[1e400,2]", None),
        (b"null", None),
        (b"[]", None),
        (b"[1]", None),
        (b"[1,2,3]", None),
        (b"[1,null]", None),
        (b"[1,true]", None),
        (b'["north","east"]', None),
        (b'["nan","inf"]', None),
        (b'{"lat":1,"lng":2}', None),
        (b'"1,2"', None),
        (b"[1,[2]]", None),
        (b"[" * 20_000 + b"]" * 20_000, None),
    ],
)
def test_a_location_is_two_numbers_or_none(
    sent: bytes, location: tuple[float, float] | None
) -> None:
    record = b'{"platformInfo":[{"objectId":"a","location":%b},{"platform":"Web"}]}' % sent
    found = Profile.decode(record).platform_info
    assert found == [Platform(object_id="a", location=location), Platform(platform="Web")]


def test_a_device_with_a_deep_part_is_read_as_far_as_it_can_be() -> None:
    deep = b"[" * 20_000 + b"]" * 20_000
    devices = b'[{"objectId":"a","x":%b},{"objectId":"b","make":%b}]' % (deep, deep)
    profile = Profile.decode(b'{"objectId":"c","platformInfo":%b}' % devices)
    assert profile.object_ids == ["c", "a", "b"]
    assert profile.platform_info[0] == Platform(object_id="a")
    assert profile.platform_info[1].make == deep.decode()
    assert profile.object_ids == ["c", "a", "b"]


@given(
    sent=JSON | st.integers() | st.lists(st.floats() | st.integers(), max_size=3),
    key=st.sampled_from(["ls", "location", "phone"]),
)
def test_an_odd_device_does_not_change_the_others(sent: Any, key: str) -> None:
    device = json.dumps({key: sent}).replace("NaN", "null").replace("Infinity", "1e999")
    alone = Profile.decode(f'{{"platformInfo":[{device}]}}'.encode()).platform_info
    odd = '{"platform":7,"ls":"x","location":[0]}'
    beside = Profile.decode(f'{{"platformInfo":[{odd},{device}]}}'.encode()).platform_info
    assert beside == [Platform(platform="7"), *alone]


@pytest.mark.parametrize(
    ("sent", "summary"),
    [
        ({"count": 1}, EventSummary(1, None, None)),
        ({}, EventSummary(0, None, None)),
        ({"count": "6", "first_seen": "1457962417"}, EventSummary(6, 1457962417, None)),
        ({"count": 2, "last_seen": None, "new": [1]}, EventSummary(2, None, None)),
    ],
)
def test_an_event_summary_is_read_in_every_form(sent: Any, summary: EventSummary) -> None:
    text = str(sent).replace("'", '"').replace("None", "null").encode()
    assert Profile.decode(b'{"events":{"A":%b}}' % text).events == {"A": summary}


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("$D_1487576752", datetime(2017, 2, 20, 7, 45, 52, tzinfo=UTC)),
        ("$D_0", datetime(1970, 1, 1, tzinfo=UTC)),
        ("$D_-86400", datetime(1969, 12, 31, tzinfo=UTC)),
    ],
)
def test_a_date_property_is_an_aware_datetime(text: str, moment: datetime) -> None:
    assert parse_date(text) == moment
    assert parse_date(text).tzinfo is UTC


@pytest.mark.parametrize(
    "value",
    [
        "",
        "1487576752",
        "$D_",
        "$D_x",
        "$d_1",
        "$D_1.5",
        " $D_1",
        "$D_1\n",
        "$D_--1",
        None,
        7,
        b"$D_1",
    ],
)
def test_anything_but_a_date_property_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="not a date property"):
        parse_date(value)


@pytest.mark.parametrize("value", ["$D_99999999999999", "$D_-99999999999"])
def test_a_date_beyond_the_calendar_is_a_value_error(value: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        parse_date(value)


@pytest.mark.parametrize(
    "sent", [b'{\n  "a": "x\\ny",\r\n  "b": [1,\n 2.50]}', b'{"a":"\\ud83d","b":\n1}', b'{"a": 1}']
)
def test_a_record_encodes_to_one_line_that_means_the_same(sent: bytes) -> None:
    line = Profile.decode(sent).encode()
    assert b"\n" not in line
    assert b"\r" not in line
    assert json.loads(line) == json.loads(sent)
