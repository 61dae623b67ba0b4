"""CleverTap's rules on sample bytes: requests, answers and failures."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from functools import cache
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from altaprofiles import (
    AltaProfilesError,
    BadRequest,
    CursorExpired,
    DecodeError,
    Forbidden,
    NotReady,
    Page,
    RateLimited,
    RequestTimeout,
    ServerError,
    StatusError,
    Unauthorized,
)
from altaprofiles.base.verdicts import can_pass
from altaprofiles.flow.slices import at_once
from altaprofiles.wire import clevertap
from altaprofiles.wire.messages import Response
from altaprofiles.wire.query import EventQuery

from ..support.samples import only_record, sample

OPEN_CHAIN = sample("clevertap/open_chain_request.json")
CURSOR_ANSWER = sample("clevertap/open_chain_answer.json")
PAGE_ANSWER = sample("clevertap/page.json")
LAST_ANSWER = sample("clevertap/last_page.json")
BY_ID_ANSWER = sample("clevertap/profile_by_email.json")

FIRST_CURSOR = json.loads(CURSOR_ANSWER)["cursor"]
NEXT_CURSOR = json.loads(PAGE_ANSWER)["next_cursor"]
# The example value of the parameter `cursor`.
TABLE_CURSOR = "ZyZjfwYEAgdjYmZyKz8NegYFAwxmamF%2FZ21meU4BBQFlYmN7ZG5ifAYCTQQrai57K2ouegJMABl6"

FORMS: list[Callable[[int], object]] = [int, str, float]


def answer(body: bytes | dict[str, Any], status: int = 200, **headers: str) -> Response:
    if isinstance(body, dict):
        body = json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(status, CIMultiDict(named), body)


def read_page(response: Response) -> Page:
    return at_once(clevertap.read_page(response, "asked"))


READERS: list[Callable[[Response], object]] = [
    clevertap.read_cursor,
    read_page,
    clevertap.read_profile,
    clevertap.read_count_started,
    clevertap.read_count,
]
every_reader = pytest.mark.parametrize("read", READERS, ids=lambda read: read.__name__)


def test_no_reader_is_left_out() -> None:
    public = {name for name in clevertap.__all__ if name.startswith("read_")}
    assert {read.__name__ for read in READERS} == public


# ----------------------------------------------------------------------------------------- requests


def test_every_request_names_the_account_as_the_page_says() -> None:
    assert clevertap.auth_headers("ACCOUNT_ID", "PASSCODE") == {
        "X-CleverTap-Account-Id": "ACCOUNT_ID",
        "X-CleverTap-Passcode": "PASSCODE",
        "Content-Type": "application/json",
    }


def test_opening_a_chain_sends_the_sample_request() -> None:
    request = clevertap.open_chain(EventQuery("App Launched", 20171201, 20171225, 50))
    assert (request.method, request.target) == ("POST", "/1/profiles.json?batch_size=50")
    assert request.body == OPEN_CHAIN


def test_epoch_seconds_are_sent_unchanged() -> None:
    request = clevertap.open_chain(EventQuery("Charged", 1622505600, 1625097600, 23))
    sent = sample("clevertap/open_chain_request_in_seconds.json")
    assert json.loads(request.body) == json.loads(sent)


@pytest.mark.parametrize(
    ("flags", "sent"),
    [
        ({}, ""),
        ({"app": False, "summaries": True, "profile": True}, ""),
        ({"app": True}, "&app=true"),
        ({"summaries": False}, "&events=false"),
        ({"profile": False}, "&profile=false"),
        (
            {"app": True, "summaries": False, "profile": False},
            "&app=true&events=false&profile=false",
        ),
    ],
)
def test_flags_go_on_the_opening_request_where_they_differ_from_the_services_defaults(
    flags: dict[str, Any], sent: str
) -> None:
    request = clevertap.open_chain(EventQuery("Charged", 20260101, 20260102, 46, **flags))
    assert request.target == f"/1/profiles.json?batch_size=46{sent}"


@pytest.mark.parametrize("event", ["Charged", 'He said "go"', "购买", "a\\b", "50 % + 1 & more"])
def test_an_event_name_survives_the_request_body(event: str) -> None:
    query = EventQuery.of(event, 20260101, 20260102)
    for request in (clevertap.open_chain(query), clevertap.count(query)):
        assert json.loads(request.body)["event_name"] == event


@pytest.mark.parametrize(
    "cursor",
    [FIRST_CURSOR, TABLE_CURSOR, NEXT_CURSOR, "%2f%2F%25", "a+b/c=", "x" * 2400],
    ids=lambda cursor: cursor[:12],
)
def test_a_cursor_reaches_the_request_target_byte_for_byte(cursor: str) -> None:
    opened = clevertap.read_cursor(answer({"cursor": cursor, "status": "success"}))
    followed = read_page(answer({"status": "success", "next_cursor": cursor})).next_cursor
    assert followed is not None
    for received in (opened, followed):
        request = clevertap.get_page(received)
        assert (request.method, request.body) == ("GET", b"")
        assert request.target == f"/1/profiles.json?cursor={cursor}"


@pytest.mark.parametrize(
    ("by", "value", "sent"),
    [
        ("identity", "5555555555", "identity=5555555555"),
        ("identity", 5555555555, "identity=5555555555"),
        (
            "object_id",
            "1a063854f83a4c6484285039ecff87cb",
            "objectId=1a063854f83a4c6484285039ecff87cb",
        ),
        ("email", "jack+test@example.com", "email=jack%2Btest%40example.com"),
        ("identity", "a b&c=d#e/f?g%h", "identity=a%20b%26c%3Dd%23e%2Ff%3Fg%25h"),
        ("identity", "Zoë", "identity=Zo%C3%AB"),
    ],
)
def test_an_identifier_is_percent_encoded(by: clevertap.By, value: object, sent: str) -> None:
    request = clevertap.get_profile(by, value)
    assert (request.method, request.target, request.body) == ("GET", f"/1/profile.json?{sent}", b"")


def test_counting_sends_the_chains_body_and_polls_by_its_own_id() -> None:
    started = clevertap.count(EventQuery("App Launched", 20171201, 20171225))
    assert (started.method, started.target) == ("POST", "/1/counts/profiles.json")
    assert started.body == OPEN_CHAIN
    polled = clevertap.poll_count("a b/1")
    assert (polled.method, polled.target) == ("GET", "/1/counts/profiles.json?req_id=a%20b%2F1")


# ----------------------------------------------------------------------------------- sample answers


def test_the_sample_cursor_is_read() -> None:
    assert clevertap.read_cursor(answer(CURSOR_ANSWER)) == FIRST_CURSOR


def test_the_sample_page_is_read() -> None:
    page = read_page(answer(PAGE_ANSWER))
    assert (page.cursor, page.next_cursor, page.raw) == ("asked", NEXT_CURSOR, PAGE_ANSWER)
    [person] = page.profiles
    assert person.raw == only_record(PAGE_ANSWER)
    assert person.identity == "5555555555"
    assert person.profile_data == {"favoriteFood": "pizza"}
    assert person.events["Charged"].last_seen == 1458041276
    assert [device.platform for device in person.platform_info] == ["iOS", "Web"]
    assert person.platform_info[0].model == "iPhone7,2"
    assert person.object_ids == [
        "-1a063854f83a4c6484285039ecff87cb",
        "a8ffcbc9-a747-4ee3-a791-c5e58ad03097",
    ]


def test_the_sample_last_page_ends_the_chain_without_people() -> None:
    page = read_page(answer(LAST_ANSWER))
    assert (page.profiles, page.next_cursor) == ([], None)


def test_the_sample_person_is_read() -> None:
    person = clevertap.read_profile(answer(BY_ID_ANSWER))
    assert person is not None
    assert (person.email, person.identity) == ("jack@example.com", None)
    assert person.raw == only_record(BY_ID_ANSWER)
    assert person.profile_data == {"Last Score": 308, "High Score": 308, "Replayed": True}
    assert person.events["App Launched"].count == 10


# ------------------------------------------------------------------------------------ other answers


@pytest.mark.parametrize(
    "keys", list(permutations(["status", "next_cursor", "records"])), ids=" ".join
)
@pytest.mark.parametrize(
    ("gap", "colon", "comma"),
    [("", ":", ","), ("", ": ", ", "), ("\n", " : ", " ,\n\t"), ("\r\n  ", "\t:\r\n", "  ,  ")],
    ids=["tight", "spaced", "lines", "wild"],
)
def test_keys_of_a_page_come_in_any_order_and_spacing(
    keys: tuple[str, ...], gap: str, colon: str, comma: str
) -> None:
    values = {
        "status": '"success"',
        "next_cursor": '"next%3D"',
        "records": comma.join(['[{"identity":"a"}', '{"identity" : "b"}', "{ }]"]),
    }
    inner = comma.join(f'"{key}"{colon}{values[key]}' for key in keys)
    page = read_page(answer(f"{gap}{{{gap}{inner}{gap}}}{gap}".encode()))
    assert page.next_cursor == "next%3D"
    assert [person.raw for person in page.profiles] == [
        b'{"identity":"a"}',
        b'{"identity" : "b"}',
        b"{ }",
    ]


def test_escapes_in_the_services_own_keys_and_cursor_are_undone() -> None:
    page = read_page(answer(rb'{"stat\u0075s":"succ\u0065ss","next\u005fcursor":"a\/b\u0025"}'))
    assert page.next_cursor == "a/b%"


@pytest.mark.parametrize(
    "body",
    [
        {"status": "success", "next_cursor": "n", "records": []},
        {"status": "success", "next_cursor": "n", "records": None},
        {"status": "success", "next_cursor": "n"},
    ],
)
def test_an_empty_page_with_a_cursor_is_not_the_end(body: dict[str, Any]) -> None:
    page = read_page(answer(body))
    assert (page.profiles, page.next_cursor) == ([], "n")


@pytest.mark.parametrize("records", [[], [{}], [{"identity": "a"}, {"identity": "b"}]])
def test_the_last_page_may_hold_people(records: list[dict[str, Any]]) -> None:
    page = read_page(answer({"records": records, "status": "success"}))
    assert len(page.profiles) == len(records)
    assert page.next_cursor is None


@pytest.mark.parametrize("code", ["0", "null", '"0"'])
def test_a_code_that_means_nothing_leaves_a_success_alone(code: str) -> None:
    body = f'{{"status":"success","code":{code},"error":null,"records":[{{}}]}}'
    assert len(read_page(answer(body.encode())).profiles) == 1


def test_unknown_keys_are_kept_in_the_raw_bytes() -> None:
    record = b'{"badKs":{"x":[1,{}]},"identity":"a","ls":1e3,"new":null}'
    body = b'{"took":3,"status":"success","records":[%b],"debug":[{"records":[{}]}]}' % record
    page = read_page(answer(body))
    assert [person.raw for person in page.profiles] == [record]
    assert page.raw == body


NAMES = st.sampled_from(
    ["identity", "email", "name", "phone", "objectId", "profileData", "events", "records", "$D_1"]
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES | st.text(), inner),
    max_leaves=12,
)
OTHER = st.recursive(
    st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("xyzé\U0001f600"), inner),
    max_leaves=12,
)
OBJECTS = st.dictionaries(NAMES | st.text(), JSON, max_size=6)
SPACE = st.text(" \t\r\n", max_size=3)


@st.composite
def texts(draw: st.DrawFn, values: st.SearchStrategy[Any]) -> str:
    spaces = [draw(SPACE) for _ in range(4)]
    return json.dumps(
        draw(values),
        ensure_ascii=draw(st.booleans()),
        indent=draw(st.none() | st.integers(0, 2)),
        separators=(f"{spaces[0]},{spaces[1]}", f"{spaces[2]}:{spaces[3]}"),
    )


@given(st.data())
def test_a_page_is_read_as_the_standard_library_reads_it(data: st.DataObject) -> None:
    records = data.draw(st.lists(texts(OBJECTS), max_size=4))
    pieces = {"status": '"success"'}
    if data.draw(st.booleans()):
        pieces["records"] = f"[{','.join(f'{data.draw(SPACE)}{text}' for text in records)} ]"
    else:
        records = []
    if data.draw(st.booleans()):
        pieces["next_cursor"] = json.dumps(data.draw(st.from_regex(r"[\w%=\-.]+", fullmatch=True)))
    # Without names that mean a cursor, or that another page follows.
    pieces["unknown"] = data.draw(texts(st.lists(OTHER)))
    body = ",".join(
        f'{data.draw(SPACE)}"{key}"{data.draw(SPACE)}:{data.draw(SPACE)}{pieces[key]}'
        for key in data.draw(st.permutations(list(pieces)))
    )
    sent = f"{data.draw(SPACE)}{{{body}}}{data.draw(SPACE)}".encode()
    expected = json.loads(sent)
    cursor = expected.get("next_cursor")
    if cursor is not None and not cursor.isascii():
        with pytest.raises(DecodeError):
            read_page(answer(sent))
        return
    page = read_page(answer(sent))
    assert page.next_cursor == cursor
    assert [person.raw for person in page.profiles] == [text.encode() for text in records]
    assert [json.loads(person.raw) for person in page.profiles] == expected.get("records", [])
    for person, record in zip(page.profiles, expected.get("records", []), strict=True):
        if isinstance(record.get("identity"), str | None):
            assert person.identity == record.get("identity")


# ---------------------------------------------------------------------------------- lone surrogates


@pytest.mark.parametrize(
    ("sent", "name"),
    [
        (rb"\ud83d", "\ufffd"),
        (rb"\uDE00", "\ufffd"),
        (rb"\ud83d\ude00\ud83d", "\U0001f600\ufffd"),
        (rb"\ud83d\ud83d\ude00", "\ufffd\U0001f600"),
        (rb"\ude00\ud83d", "\ufffd\ufffd"),
        (rb"\\ud83d\ud83d", "\\ud83d\ufffd"),
        (rb"a\ud83db\u0041\n", "a\ufffdbA\n"),
        (rb"\ud83d\u0041", "\ufffdA"),
    ],
)
def test_half_a_surrogate_pair_spoils_neither_page_nor_bytes(sent: bytes, name: str) -> None:
    record = b'{"name":"%b","profileData":{"bio":"%b"}}' % (sent, sent)
    others = [b'{"identity":"before"}', b'{"identity":"after","name":"\\ufffd"}']
    body = b'{"records":[%b, %b ,%b],"next_cursor":"n","status":"success"}' % (
        others[0],
        record,
        others[1],
    )
    page = read_page(answer(body))
    assert [person.raw for person in page.profiles] == [others[0], record, others[1]]
    assert page.next_cursor == "n"
    assert page.profiles[1].name == name
    assert page.profiles[1].profile_data == {"bio": name}

    person = clevertap.read_profile(answer(b'{"status":"success","record":%b}' % record))
    assert person is not None
    assert (person.raw, person.name) == (record, name)


def test_records_that_differ_only_in_broken_escapes_keep_their_own_bytes() -> None:
    records = [rb'{"name":"\ud83d"}', rb'{"name":"\ude00"}', rb'{"name":"\ufffd"}']
    page = read_page(answer(b'{"status":"success","records":[%b]}' % b",".join(records)))
    assert [person.raw for person in page.profiles] == records


def test_an_unknown_key_before_the_records_does_not_lend_them_its_bytes() -> None:
    record = rb'{"name":"\ude00"}'
    body = rb'{"sample":{"name":"\ud83d"},"records":[%b],"status":"success"}' % record
    assert [person.raw for person in read_page(answer(body)).profiles] == [record]


@pytest.mark.parametrize(
    "key", [b'"records"', rb'"\u0072ecords"', b'"records" :[],"x":{"records":[{}]},"records"']
)
@pytest.mark.parametrize(
    "value",
    [
        b"9" * 5000,
        b"1e999",
        b'"}],{"',
        rb'"\"\\"',
        b'{"records":[{},[]]}',
        b'"\xe6\x97\xa5"',
        b'"\x7f"',
    ],
    ids=["digits", "exponent", "brackets", "escapes", "nested", "text", "delete"],
)
def test_nothing_beside_half_a_surrogate_pair_spoils_the_bytes(key: bytes, value: bytes) -> None:
    records = [rb'{"a":%b,"name":"\ud83d"}' % value, b'{"b":%b}' % value]
    body = b'{"x":%b,%b: [%b\n, %b ] ,"status":"success"}' % (value, key, *records)
    assert [person.raw for person in read_page(answer(body)).profiles] == records


def test_half_a_surrogate_pair_in_a_failure_does_not_hide_it() -> None:
    with pytest.raises(BadRequest, match="Invalid event"):
        read_page(answer(rb'{"status":"fail","error":"Invalid event : \ud83d","code":400}'))


# ---------------------------------------------------------------------------------------- not found


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, b""),
        (404, b'{"status":"fail","error":"Not Found","code":404}'),
        (404, b"not found"),
        (200, b'{"status":"success","record":null}'),
        (200, b'{ "record" : null , "status" : "success" }'),
        (200, b'{"status":"success"}'),
        (200, b'{"status":"fail","error":"Profile not found","code":400}'),
        (200, b'{"status":"fail","error":"No such profile"}'),
        (200, b'{"status":"fail","error":"No profile found for identity 7","code":"404"}'),
        (200, b'{"status":"fail","error":"User does not exist"}'),
        (200, b'{"status":"fail","error":["User profile doesn\'t exist"]}'),
        (200, b'{"status":"fail","message":"No matching records found."}'),
        (400, b'{"status":"fail","error":"Profile does not exist","code":400}'),
        (404, b'{"status":"fail","error":"Not Found","code":0}'),
        (200, b'{"status":"fail","error":"Profile with identity \'a b\' was not found","code":7}'),
        (200, b'{"status":"fail","error":"Error: could not find user with email a@b.c","code":9}'),
        (200, b'{"status":"fail","error":"User not found. Check the identity.","code":512}'),
        (200, b'{"status":"fail","error":"No profile found for Throttled","code":0}'),
    ],
)
def test_every_form_of_not_found_is_none(status: int, body: bytes) -> None:
    assert clevertap.read_profile(answer(body, status)) is None


@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize("code", [0, 1, 2, 3, 5, 429, 500, 512, 4002, "1", "NO_PROFILE"])
@pytest.mark.parametrize("words", ["no such profile exists", "Profile not found", "No user found"])
def test_the_words_for_an_unknown_person_outrank_the_code(
    words: str, code: object, status: int
) -> None:
    body = json.dumps({"status": "fail", "error": words, "code": code}).encode()
    assert clevertap.read_profile(answer(body, status)) is None


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("Invalid Credentials: no such user", 401),
        ("User not found", 401),
        ("No user found for these credentials", 0),
        ("No user found with this passcode", 5),
        ("Request throttled: no profile found", 1),
        ("No profile found, the request was throttled", 1),
        ("No profile found, please retry later", 0),
        ("No profile found yet, request still in progress", 2),
        ("Request still in progress, no record found", 2),
        ("No profile found because the store is unavailable", 512),
        ("profile store: shard 7 not found", 5),
        ("User service not found", 512),
        ("No user is allowed", 5),
    ],
)
@pytest.mark.parametrize("status", [200, 400])
def test_words_of_another_failure_are_not_an_unknown_person(
    words: str, code: int, status: int
) -> None:
    body = json.dumps({"status": "fail", "error": words, "code": code}).encode()
    with pytest.raises(AltaProfilesError):
        clevertap.read_profile(answer(body, status))


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (200, {"status": "fail", "error": "Account does not exist"}, ServerError),
        (200, {"status": "fail", "error": "Event not found"}, ServerError),
        (200, {"status": "fail", "error": "Invalid Credentials"}, Unauthorized),
        (200, {"status": "fail", "error": "No user permission", "code": 403}, Forbidden),
        (200, {"status": "fail", "error": "No profile, throttled", "code": 1}, RateLimited),
        (401, {"status": "fail", "error": "User not found"}, Unauthorized),
        (429, {"status": "fail", "error": "No such profile"}, RateLimited),
        (500, {"status": "fail", "error": "Profile not found"}, ServerError),
        (200, {"status": "fail"}, ServerError),
    ],
)
def test_any_other_failure_of_a_lookup_is_an_error(
    status: int, body: dict[str, Any], kind: type[AltaProfilesError]
) -> None:
    with pytest.raises(kind):
        clevertap.read_profile(answer(body, status))


FAILURES_IN_WORDS = [
    ("Invalid Credentials", Unauthorized),
    ("Too many concurrent requests", RateLimited),
    ("Request throttled", RateLimited),
    ("Request still in progress, please retry later", NotReady),
    ("Incorrect Usage", BadRequest),
]


@pytest.mark.parametrize(("words", "kind"), FAILURES_IN_WORDS)
@pytest.mark.parametrize(
    "form",
    [
        '{{"status":"fail","error":"{}"}}',
        '{{"status":"fail","error":["{}"]}}',
        '{{"status":"fail","message":"{}","code":null}}',
        '{{"status":"fail","error":"{}","code":404}}',
        '{{"status":"fail","error":"{}","code":"404"}}',
        '{{"error":"{}"}}',
        "{}",
        '"{}"',
    ],
)
def test_a_failure_with_404_is_read_by_its_words(
    form: str, words: str, kind: type[AltaProfilesError]
) -> None:
    with pytest.raises(kind) as caught:
        clevertap.read_profile(answer(form.format(words).encode(), 404))
    assert words in str(caught.value)


@pytest.mark.parametrize(("words", "_"), FAILURES_IN_WORDS)
@pytest.mark.parametrize("form", ['{{"status":"fail","error":"{}"}}', "{}"])
def test_an_unknown_person_may_have_the_name_of_a_failure(form: str, words: str, _: object) -> None:
    body = form.format(f"No profile found for {words}").encode()
    assert clevertap.read_profile(answer(body, 404)) is None


def test_a_web_page_with_404_does_not_mean_not_found() -> None:
    with pytest.raises(StatusError) as caught:
        clevertap.read_profile(answer(b"\n<!DOCTYPE html><title>404</title>", 404))
    assert caught.value.status == 404


# ----------------------------------------------------------------------------------------- failures

PROXY_BODIES = [
    b"",
    b" \r\n",
    b"<html><body><h1>502 Bad Gateway</h1></body></html>",
    b"upstream connect error",
    b"\x1f\x8b\x08\x00\xff\xfe",
]

STILL = "Request still in progress, please retry later"

FAILURES: list[tuple[int, object, object, type[AltaProfilesError], bool]] = [
    (200, 2, STILL, NotReady, True),
    (202, 2, STILL, NotReady, True),
    (200, 2, None, NotReady, True),
    (200, None, STILL, NotReady, True),
    (200, 1, "Request Throttled", RateLimited, True),
    (429, 1, "Request Throttled", RateLimited, True),
    (200, None, "request throttled", RateLimited, True),
    (200, None, "Too many concurrent requests", RateLimited, True),
    (429, None, "Too many concurrent requests", RateLimited, True),
    (200, 429, "slow down", RateLimited, True),
    (200, 3, "Incorrect Usage", BadRequest, False),
    (400, 3, "Incorrect Usage", BadRequest, False),
    (200, 400, "Export not allowed for this event", BadRequest, False),
    (400, 400, "Export not allowed for this event", BadRequest, False),
    (200, 400, ["Invalid event : X"], BadRequest, False),
    (400, 400, ["Invalid event : X"], BadRequest, False),
    (200, 401, "Invalid Credentials", Unauthorized, False),
    (401, 401, "Invalid Credentials", Unauthorized, False),
    (401, None, "Invalid Credentials", Unauthorized, False),
    (200, None, "Invalid Credentials", Unauthorized, False),
    (403, None, "no", Forbidden, False),
    (200, 500, "An unknown error occurred", ServerError, True),
    (500, 500, "An unknown error occurred", ServerError, True),
    (503, 503, "Service Unavailable", ServerError, True),
    (200, 99, "something new", ServerError, True),
    (200, None, None, ServerError, True),
    (408, None, "slow", RequestTimeout, True),
]


@every_reader
@pytest.mark.parametrize(("status", "code", "words", "kind", "passes"), FAILURES)
def test_a_failure_means_the_same_with_any_status_and_any_type_of_code(
    read: Callable[[Response], object],
    status: int,
    code: int | None,
    words: object,
    kind: type[AltaProfilesError],
    passes: bool,
) -> None:
    for form in FORMS:
        body: dict[str, object] = {"status": "fail", "error": words}
        if code is not None:
            # As a float it is written 2.0, as text it is the bare number.
            body["code"] = form(code)
        with pytest.raises(AltaProfilesError) as caught:
            read(answer(body, status))
        assert type(caught.value) is kind
        assert can_pass(caught.value) is passes
        if isinstance(caught.value, StatusError):
            assert (caught.value.api, caught.value.status) == ("CleverTap", status)
            assert caught.value.code == code
            expected = words[0] if isinstance(words, list) else words or ""
            assert caught.value.message == expected
            assert expected in str(caught.value)


@every_reader
def test_a_code_of_4xxx_is_the_callers_error_whatever_the_status(
    read: Callable[[Response], object],
) -> None:
    for status in [200, 202, 400, 401, 403, 404, 429, 500, 503]:
        for code in [4000, 4002, 4004, 4999]:
            for form in FORMS:
                body = {"status": "fail", "error": "Invalid date range", "code": form(code)}
                with pytest.raises(BadRequest, match="Invalid date range") as caught:
                    read(answer(body, status))
                assert not can_pass(caught.value)
                assert (caught.value.status, caught.value.code) == (status, code)


@pytest.mark.parametrize("code", [399, 3999, 5000, 40_020])
def test_a_code_beside_4xxx_is_not_the_callers_error(code: int) -> None:
    with pytest.raises(ServerError):
        read_page(answer({"status": "fail", "error": "?", "code": code}))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("Invalid event : X", "Invalid event : X"),
        (["Invalid event : X"], "Invalid event : X"),
        (["Invalid event : X", "Invalid date"], "Invalid event : X; Invalid date"),
        ('["Invalid event : X"]', "Invalid event : X"),
        (' [ "Invalid event : X" ] ', "Invalid event : X"),
        ('["Invalid event : X", "Invalid date"]', "Invalid event : X; Invalid date"),
        ([["Invalid event : X"], ["Invalid date"]], "Invalid event : X; Invalid date"),
        (['["Invalid event : X"]'], "Invalid event : X"),
        (json.dumps(json.dumps(["Invalid event : X"])), "Invalid event : X"),
        (r"[\"Invalid event : X\"]", "Invalid event : X"),
        (r'["Invalid event : \"X\""]', 'Invalid event : "X"'),
        ('["Invalid event : \u65e5"]', "Invalid event : 日"),
        # Not a list of texts.
        ("[X] is invalid", "[X] is invalid"),
        ("[1, 2]", "[1, 2]"),
        ("[X]", "[X]"),
        ('[{"a": 1}]', '[{"a": 1}]'),
        ([{"a": 1}], '[{"a":1}]'),
        ('["a"', '["a"'),
        ("[" * 5000 + "]" * 5000, "[" * 500 + "…"),
    ],
)
@pytest.mark.parametrize("status", [200, 400])
def test_an_error_that_holds_a_list_is_shown_as_its_words(
    status: int, error: object, words: str
) -> None:
    for member in ("error", "message"):
        with pytest.raises(BadRequest) as caught:
            clevertap.read_cursor(answer({"status": "fail", member: error, "code": 400}, status))
        assert caught.value.message == words


@every_reader
@pytest.mark.parametrize("error", ['["Invalid Credentials"]', r"[\"Invalid Credentials\"]"])
def test_words_in_a_list_decide_if_there_is_no_code(
    read: Callable[[Response], object], error: str
) -> None:
    with pytest.raises(Unauthorized):
        read(answer({"status": "fail", "error": error}))


@every_reader
@pytest.mark.parametrize("body", [*PROXY_BODIES, {"status": "fail", "error": "no", "code": 401}])
def test_refused_credentials_may_be_of_another_region(
    read: Callable[[Response], object], body: bytes | dict[str, Any]
) -> None:
    with pytest.raises(Unauthorized, match="a wrong region gives the same answer"):
        read(answer(body, 401))


@every_reader
@pytest.mark.parametrize("status", [200, 400, 410])
@pytest.mark.parametrize(
    "body",
    [
        {"status": "fail", "error": "Cursor invalidated", "code": "CURSOR_INVALIDATED"},
        {"status": "fail", "code": "CURSOR_INVALIDATED"},
        {"status": "fail", "error": "The cursor has expired"},
    ],
)
def test_an_expired_cursor_raises(
    read: Callable[[Response], object], status: int, body: dict[str, Any]
) -> None:
    with pytest.raises(CursorExpired, match="new chain") as caught:
        read(answer(body, status))
    assert not can_pass(caught.value)


@pytest.mark.parametrize("code", ["--5", "-", "", " 3", "3 ", "9" * 5000, [3], {"a": 1}, 1.5, "²"])
def test_a_code_of_any_shape_is_a_failure_of_this_library(code: object) -> None:
    with pytest.raises(StatusError):
        read_page(answer({"status": "fail", "error": "odd", "code": code}))


@pytest.mark.parametrize("code", [1, "1", 2, 3, "CURSOR_INVALIDATED"])
def test_a_success_with_a_code_is_an_error(code: object) -> None:
    with pytest.raises(AltaProfilesError):
        read_page(answer({"status": "success", "code": code, "error": "said so"}))


@every_reader
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_an_error_that_names_its_target(
    read: Callable[[Response], object], status: int
) -> None:
    with pytest.raises(StatusError, match=r"elsewhere\.example") as caught:
        read(answer(LAST_ANSWER, status, location="https://elsewhere.example/"))
    assert caught.value.status == status
    assert not can_pass(caught.value)


@every_reader
def test_a_redirect_without_a_target_is_an_error(read: Callable[[Response], object]) -> None:
    with pytest.raises(StatusError):
        read(answer(b"", 302))


@every_reader
@pytest.mark.parametrize(
    ("status", "kind", "passes"),
    [
        (200, DecodeError, True),
        (202, DecodeError, True),
        (401, Unauthorized, False),
        (429, RateLimited, True),
        (500, ServerError, True),
        (502, ServerError, True),
        (504, ServerError, True),
    ],
)
def test_the_status_decides_the_error_of_a_proxy(
    read: Callable[[Response], object], status: int, kind: type[AltaProfilesError], passes: bool
) -> None:
    for body in PROXY_BODIES:
        with pytest.raises(AltaProfilesError) as caught:
            read(answer(body, status))
        assert type(caught.value) is kind
        assert can_pass(caught.value) is passes


@pytest.mark.parametrize("body", PROXY_BODIES)
def test_a_chain_at_the_wrong_address_is_a_permanent_error(body: bytes) -> None:
    for read in (clevertap.read_cursor, read_page, clevertap.read_count):
        with pytest.raises(StatusError) as caught:
            read(answer(body, 404))
        assert caught.value.status == 404
        assert not can_pass(caught.value)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry_After": "7"}, 7.0),
        ({"retry_after": "0"}, 0.0),
        ({"Retry_After": "1.5"}, 1.5),
        ({"Retry_After": "-3"}, None),
        ({"Retry_After": "soon"}, None),
        ({"Retry_After": ""}, None),
        ({"Retry_After": "nan"}, None),
        ({"Retry_After": "inf"}, None),
        ({"Retry_After": "1e3"}, None),
        ({"Retry_After": "1_0"}, None),
        ({"Retry_After": "\u0661"}, None),
        ({"Retry_After": " 60, 3600"}, 60.0),
        ({"Retry_After": "5;w=60"}, 5.0),
        ({"Retry_After": "2026-11-26T10:00:00Z"}, None),
        (
            {
                "Retry_After": "Wed, 21 Oct 2015 07:28:30 GMT",
                "Date": "Wed, 21 Oct 2015 07:28:00 GMT",
            },
            30.0,
        ),
        (
            {
                "Retry_After": "Wed, 21 Oct 2015 07:28:00 GMT",
                "date": "Wed, 21 Oct 2015 07:28:30 GMT",
            },
            0.0,
        ),
        ({"Retry_After": "Wed, 21 Oct 2015 07:28:30 GMT", "Date": "today"}, 0.0),
        ({"Retry_After": "Wed, 21 Oct 2015 07:28:30 GMT"}, 0.0),
    ],
)
@pytest.mark.parametrize("status", [200, 429, 503])
def test_retry_after_is_read_in_both_forms_by_the_servers_own_clock(
    headers: dict[str, str], seconds: float | None, status: int
) -> None:
    with pytest.raises(StatusError) as caught:
        read_page(answer({"status": "fail", "error": "Throttled", "code": 1}, status, **headers))
    assert caught.value.retry_after == seconds


# --------------------------------------------------------------------------- never taken for an end


@pytest.mark.parametrize(
    ("read", "body"),
    [
        (read_page, PAGE_ANSWER),
        (read_page, LAST_ANSWER),
        (read_page, b'{"records":[{"identity":"a"},{}],"next_cursor":"n","status":"success"}'),
        (read_page, rb'{"status":"success","records":[{"name":"\ud83d\ude00\ud83d"}]}'),
        (clevertap.read_cursor, CURSOR_ANSWER),
        (clevertap.read_profile, BY_ID_ANSWER),
        (clevertap.read_count, b'{"status":"success","count":7}'),
        (clevertap.read_count_started, b'{"status":"partial","req_id":"7"}'),
    ],
)
def test_an_answer_cut_short_anywhere_is_an_error(
    read: Callable[[Response], object], body: bytes
) -> None:
    read(answer(body))
    for end in range(len(body)):
        with pytest.raises(DecodeError) as caught:
            read(answer(body[:end]))
        assert can_pass(caught.value), end


@pytest.mark.parametrize(
    "cursor", ["null", '""', "0", "7", "true", "[]", "{}", '"a b"', '"a&b"', '"a\\n"', '"é"', '"#"']
)
def test_an_invalid_cursor_is_an_error_and_not_the_end(cursor: str) -> None:
    body = f'{{"status":"success","records":[],"next_cursor":{cursor}}}'
    with pytest.raises(DecodeError) as caught:
        read_page(answer(body.encode()))
    assert caught.value.path == "$.next_cursor"
    with pytest.raises(DecodeError) as caught:
        clevertap.read_cursor(answer(f'{{"status":"success","cursor":{cursor}}}'.encode()))
    assert caught.value.path == "$.cursor"


def test_an_opening_answer_without_a_cursor_is_an_error() -> None:
    with pytest.raises(DecodeError) as caught:
        clevertap.read_cursor(answer(LAST_ANSWER))
    assert caught.value.path == "$.cursor"


@every_reader
@pytest.mark.parametrize(
    "body",
    [
        b"null",
        b"[]",
        b'"success"',
        b"0",
        b"{}",
        b'{"status":null}',
        b'{"status":"done"}',
        b'{"records":[]}',
        b'{"status":"success"}{',
        b'{"status":"success",}',
        b'{"status":"success"}\x00',
        b'{"error":"\xff","status":"success"}',
    ],
)
def test_json_without_an_answer_is_an_error(
    read: Callable[[Response], object], body: bytes
) -> None:
    with pytest.raises(DecodeError):
        read(answer(body))


@pytest.mark.parametrize(
    ("records", "path"),
    [
        ("{}", "$.records"),
        ('"none"', "$.records"),
        ("7", "$.records"),
        ("[{}, 7]", "$.records[1]"),
        ("[null]", "$.records[0]"),
        ('[{}, {}, "x"]', "$.records[2]"),
    ],
)
def test_invalid_records_are_errors_with_their_path(records: str, path: str) -> None:
    with pytest.raises(DecodeError) as caught:
        read_page(answer(f'{{"status":"success","records":{records}}}'.encode()))
    assert caught.value.path == path
    assert path in str(caught.value)


def test_a_person_that_is_not_an_object_is_an_error_with_its_path() -> None:
    with pytest.raises(DecodeError) as caught:
        clevertap.read_profile(answer(b'{"status":"success","record":7}'))
    assert caught.value.path == "$.record"


@pytest.mark.parametrize(
    "record", [rb'{"a":"\ud8"}","b":1}', rb'{"name":"\ud8"}","b":1}', rb'{"a":"\udczz0"}']
)
def test_a_garbled_escape_is_an_error(record: bytes) -> None:
    with pytest.raises(DecodeError):
        read_page(answer(b'{"status":"success","records":[%b]}' % record))


@pytest.mark.parametrize(
    ("body", "ends"),
    [
        ({"status": "success"}, None),
        ({"status": "success", "records": []}, None),
        ({"status": "success", "records": [], "next_cursor": "n"}, "n"),
        ({"status": "success", "records": [{}], "next_cursor": "n"}, "n"),
    ],
)
def test_a_202_that_holds_nothing_is_not_the_end(body: dict[str, Any], ends: str | None) -> None:
    if ends is None:
        with pytest.raises(NotReady):
            read_page(answer(body, 202))
    else:
        assert read_page(answer(body, 202)).next_cursor == ends


# ------------------------------------------------------------------------------------------- counts


def test_a_count_is_read_at_once_or_under_its_id() -> None:
    ready = answer({"status": "success", "count": 7})
    assert clevertap.read_count_started(ready) == clevertap.read_count(ready) == 7
    assert clevertap.read_count(answer({"count": 0, "status": "success"})) == 0
    for sent, count in (("0.0", 0), ("12.0", 12), ("-0", 0), ("1e3", 1000)):
        body = f'{{"status":"success","count":{sent}}}'.encode()
        assert repr(clevertap.read_count(answer(body))) == repr(count)


def test_a_full_count_may_have_other_members() -> None:
    body = {"count": 7, "nQCount": 0, "tcount": 9, "userDeviceCount": 12, "status": "success"}
    assert clevertap.read_count_started(answer(body)) == clevertap.read_count(answer(body)) == 7


@pytest.mark.parametrize(
    ("req_id", "read"),
    [
        ('"abc"', "abc"),
        ("7", "7"),
        ('"7"', "7"),
        ("7.0", "7"),
        ("1.5e3", "1500"),
        ("12345678901234567890123", "12345678901234567890123"),
        ("1.2345678901234567E16", "12345678901234567"),
        ("-7", "-7"),
        ('"a b&c"', "a b&c"),
    ],
)
@pytest.mark.parametrize("status", [200, 202])
def test_a_partial_count_gives_its_id(req_id: str, read: str, status: int) -> None:
    body = f'{{"status":"partial","req_id":{req_id}}}'.encode()
    assert clevertap.read_count_started(answer(body, status)) == read


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, None, BadRequest),
        (401, None, Unauthorized),
        (403, None, Forbidden),
        (404, None, StatusError),
        (429, None, RateLimited),
        (500, None, ServerError),
        (503, None, ServerError),
        (200, 1, RateLimited),
        (200, 401, Unauthorized),
        (200, 4002, BadRequest),
        (200, 2, NotReady),
    ],
)
@pytest.mark.parametrize("read", [clevertap.read_count_started, clevertap.read_count])
def test_a_partial_count_is_believed_on_2xx_and_without_a_code_only(
    read: Callable[[Response], object],
    status: int,
    code: int | None,
    kind: type[AltaProfilesError],
) -> None:
    body = {"status": "partial", "req_id": "abc", "code": code}
    with pytest.raises(AltaProfilesError) as caught:
        read(answer(body, status))
    assert type(caught.value) is kind


def test_an_unfinished_count_is_not_ready() -> None:
    with pytest.raises(NotReady):
        clevertap.read_count(answer({"status": "partial", "req_id": "abc"}))
    with pytest.raises(NotReady):
        clevertap.read_count(answer({"status": "partial"}))


@pytest.mark.parametrize(
    "body",
    [
        {"status": "success"},
        {"status": "success", "count": None},
        {"status": "success", "count": True},
        {"status": "success", "count": "many"},
        {"status": "success", "count": -1},
        {"status": "success", "count": 1.5},
        {"status": "success", "count": [7]},
        {"status": "partial"},
        {"status": "partial", "req_id": None},
        {"status": "partial", "req_id": ["abc"]},
        {"status": "partial", "req_id": {"id": 7}},
        {"status": "partial", "req_id": True},
        {"status": "partial", "req_id": ""},
        {"status": "partial", "req_id": " "},
    ],
)
def test_a_count_without_a_number_is_an_error(body: dict[str, Any]) -> None:
    with pytest.raises(DecodeError):
        clevertap.read_count_started(answer(body))


def test_invalid_utf8_is_an_error_even_in_unknown_keys() -> None:
    body = b'{"status":"success","records":[{"identity":"1"},{"unknown":"\xff"}]}'
    with pytest.raises(DecodeError, match="utf-8") as caught:
        read_page(answer(body))
    assert caught.value.path == "$.records[1]"


@pytest.mark.parametrize(
    "event",
    [
        "Order Still In Progress",
        "Throttle Opened",
        "Too Many Requests",
        "Invalid Credentials Shown",
        "Cursor Expired",
        "Incorrect Usage",
    ],
)
@pytest.mark.parametrize("status", [200, 400])
def test_the_code_outranks_a_message_that_quotes_the_caller(event: str, status: int) -> None:
    body = f'{{"status":"fail","error":["Invalid event : {event}"],"code":400}}'.encode()
    with pytest.raises(BadRequest, match=event):
        clevertap.read_cursor(answer(body, status))


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, b'{"message":"no Route matched with those values"}'),
        (404, b"\xef\xbb\xbf<html>nothing here</html>"),
        (404, b'{"status":"fail","error":"Invalid Credentials","code":401}'),
        (200, b'{"status":"fail","error":"profile store: shard 7 not found","code":500}'),
        (200, b'{"status":"fail","error":"User is not allowed: account does not exist"}'),
    ],
)
def test_a_failure_that_does_not_mean_not_found_is_an_error(status: int, body: bytes) -> None:
    with pytest.raises(StatusError):
        clevertap.read_profile(answer(body, status))


def test_an_answer_that_is_not_ready_may_say_how_long_to_wait() -> None:
    body = b'{"status":"fail","error":"Request still in progress, please retry later","code":2}'
    with pytest.raises(NotReady) as caught:
        read_page(Response(202, {"Retry-After": "7"}, body))
    assert caught.value.retry_after == 7.0


@pytest.mark.parametrize("depth", [50, 400, 900])
def test_a_deeply_nested_message_is_an_error_of_this_library(depth: int) -> None:
    body = b'{"status":"fail","error":' + b"[" * depth + b"]" * depth + b"}"
    with pytest.raises(AltaProfilesError):
        clevertap.read_cursor(answer(body))


@pytest.mark.parametrize("after", ["Fri, 31 Dec 99999999999999999999 00:00:00 GMT", "1e400", "-1"])
def test_an_invalid_retry_after_is_ignored(after: str) -> None:
    headers = {"Retry-After": after, "Date": "Fri, 31 Dec 2021 00:00:00 GMT"}
    with pytest.raises(RateLimited) as caught:
        clevertap.read_cursor(Response(429, headers, b""))
    assert caught.value.retry_after in (None, 0.0)


# ------------------------------------------------------------------- cursors under another name


@cache
def people_in(size: str, indent: int | None) -> bytes:
    """Return a list of people in JSON. It is made once: it has 2 MB."""
    people = [
        {"identity": str(number), "name": "x" * 900}
        for number in range(3 if size == "small" else 2600)
    ]
    return json.dumps(people, indent=indent).encode()


def page_of(members: dict[str, Any], layout: str) -> Response:
    """Return a page with `members`: small or large, on one line or on several, in any order."""
    size, form, order = layout.split()
    indent = 2 if form == "pretty" else None
    records = {} if "records" in members else {"records": "(people)"}
    pieces = {
        "first": {"status": "success", **members, **records},
        "last": {"status": "success", **records, **members},
        "status last": {**records, **members, "status": "success"},
    }[order.replace("-", " ")]
    body = json.dumps(pieces, indent=indent).encode()
    return answer(body.replace(b'"(people)"', people_in(size, indent)))


LAYOUTS = [
    f"{size} {form} {order}"
    for size in ("small", "large")
    for form in ("line", "pretty")
    for order in ("first", "last", "status-last")
]


@pytest.mark.parametrize(
    "members",
    [
        {"cursor": "c%2B2"},
        {"nextCursor": "c%2B2"},
        {"NEXT_CURSOR": "c%2B2"},
        {"next-cursor": "c%2B2"},
        {"next": "c%2B2", "cursor": None},
        {"cursor": "asked", "nextPageToken": "c%2B2"},
        {"paging": {"next_cursor": "c%2B2", "previous_cursor": "c%2B0"}},
        {"cursor": {"next": "c%2B2"}},
        {"meta": {"page": {"cursor": "c%2B2"}}, "cursor": "c%2B2"},
        {"paging": [{"next_cursor": "c%2B2"}]},
        {"pages": [[7, {"a": [{"cursor": "c%2B2"}]}]]},
        {"cursors": [{"after": "c%2B2", "before": "c%2B0"}]},
        {"cursors": {"after": "c%2B2"}},
        {"cursor_next": "c%2B2", "cursor_prev": "c%2B0", "prev_cursor_id": "c%2B0"},
        {"next_cursor_id": "c%2B2", "cursor_previous": "c%2B0", "cursor_last": "c%2B9"},
        {"cursorValue": "c%2B2", "selfCursorValue": "c%2B1", "cursor_ttl": 7},
        {"nextCursorToken": "c%2B2"},
        {"next_marker": "c%2B2", "is_truncated": True},
        {"scroll_id": "c%2B2"},
        {"after": "c%2B2", "has_more": True},
        {"pageInfo": {"endCursor": "c%2B2", "hasNextPage": True}},
        {"cursor": "opened", "nextCursor": "c%2B2"},
    ],
    ids=lambda members: str(list(members)),
)
def test_a_cursor_under_another_name_is_followed(members: dict[str, Any]) -> None:
    for layout in LAYOUTS:
        for decode in [True, False]:
            response = page_of(members, layout)
            was_asked = {"opened", "asked"}.__contains__
            page = at_once(
                clevertap.read_page(response, "asked", was_asked=was_asked, decode=decode)
            )
            assert page.next_cursor == "c%2B2"
            assert [person.identity for person in page.profiles] == [
                str(number) for number in range(len(page.profiles))
            ]


def test_cursors_that_are_no_text_are_told_apart() -> None:
    """They are bytes: in one that is not UTF-8, no byte stands for another."""
    following = [("cursor", "%fe"), ("nextCursor", "%FE"), ("cursor", "%EF%BF%BD")]
    for name, cursor in following:
        response = page_of({name: cursor}, "small line first")
        page = at_once(clevertap.read_page(response, "%FF", was_asked={"%FF", "%FD"}.__contains__))
        assert page.next_cursor == cursor
    for echo in ("%ff", "%fd", "%FF"):
        response = page_of({"cursor": echo}, "small line first")
        page = at_once(clevertap.read_page(response, "%FF", was_asked={"%FF", "%FD"}.__contains__))
        assert page.next_cursor is None


@pytest.mark.parametrize(
    "members",
    [
        {"cursor": "as%2Bked"},
        {"cursor": "as+ked"},
        {"cursor": None, "nextCursor": "", "next": False, "paging": {"cursor": {}}},
        {"previous_cursor": "c%2B0", "firstCursor": "c", "current_cursor": "as%2bked"},
        {"hasNext": False, "has_more": False, "hasMore": None, "total": 7, "page": 3},
        {"is_last": True, "more": False, "last_page": 9, "truncated": False},
        {"message": "no next cursor", "meta": '{"next_cursor":"c"}'},
        {"cursor": "opened", "after": "ear%2blier", "paging": [{"next": "ear+lier"}]},
        {"cursors": {"before": "c", "after": None}, "cursor": {"previous": "c"}},
        {"links": [{"rel": "prev", "href": "https://x/?cursor=c"}, {"rel": "next", "href": None}]},
        {"links": {"self": {"href": "https://x/?cursor=c"}, "next": {"href": ""}}},
        {"unknown": [{"records": [{"cursor": "c", "has_more": True}]}], "a": [[], [[]], {}]},
        {"k" * 500 + "cursor": "c", "cursor" * 5000: "c", "next" * 20_000 + "x": "c"},
        {"deep": json.loads("[" * 900 + "]" * 900)},
    ],
    ids=lambda members: str(members)[:60],
)
def test_the_end_of_a_chain_with_members_that_are_no_cursor(members: dict[str, Any]) -> None:
    for layout in LAYOUTS:
        was_asked = {"opened", "ear%2Blier", "as%2Bked"}.__contains__
        page = at_once(
            clevertap.read_page(page_of(members, layout), "as%2Bked", was_asked=was_asked)
        )
        assert page.next_cursor is None


@pytest.mark.parametrize(
    "members",
    [
        {"cursor": "two words"},
        {"cursor": 7},
        {"next": True},
        {"nextCursor": ["c%2B2"]},
        {"next": "https://eu1.api.clevertap.com/1/profiles.json?cursor=c"},
        {"next": "/1/profiles.json?cursor=c"},
        {"cursors": {"position": "c%2B2"}},
        {"cursors": ["c%2B2"]},
        {"cursor": {str(number): number for number in range(2000)}},
        {"links": [{"rel": "next", "href": "https://x/?cursor=c"}]},
        {"links": {"next": {"href": "/1/profiles.json?cursor=c"}}},
        {"has_more": True},
        {"hasNext": "true", "cursor": "asked"},
        {"paging": {"has_next_page": True, "previous_cursor": "c"}},
        {"meta": [{"hasMore": 1}]},
        {"more": True},
        {"paging": {"is_last_page": False}},
        {"cursor": "c%2B2", "nextCursor": "c%2B3"},
        {"next_cursor": None, "cursor": "c%2B2"},
        {"next_cursor": "", "cursor": "c%2B2"},
        {"next_cursor": None},
        {"next_cursor": ""},
        {"next_cursor": None, "records": []},
    ],
    ids=str,
)
def test_a_page_that_may_not_be_the_last_is_an_error(members: dict[str, Any]) -> None:
    for layout in LAYOUTS:
        for decode in (True, False):
            with pytest.raises(DecodeError):
                at_once(clevertap.read_page(page_of(members, layout), "asked", decode=decode))


@pytest.mark.parametrize(
    "odd", [rb'"\ud83d"', b"1e999", b"9" * 5000, b"[" * 2000 + b"]" * 2000], ids=len
)
def test_a_cursor_beside_an_odd_value_is_followed(odd: bytes) -> None:
    body = b'{"status":"success","records":[{}],"paging":{"odd":%b,"cursor":"c%%2B2"}}' % odd
    assert read_page(answer(body)).next_cursor == "c%2B2"


@pytest.mark.parametrize("size", [10, 200_000])
def test_a_cursor_far_inside_a_large_member_is_found(size: int) -> None:
    pages = [{"odd": [{}] * 9, "n": "x" * size}, {"a": {"cursor": "c%2B2"}}]
    inside: list[dict[str, Any]] = [
        {"a": {"b": [[pages]]}},
        {"paging": pages},
        {"data": {"links": pages}},
    ]
    for members in inside:
        page = read_page(answer({"status": "success", "records": [{}], **members}))
        assert page.next_cursor == "c%2B2"
    people = [{"identity": "7", "name": "x" * size}]
    inside = [{"data": people}, {"a": [{"profiles": people}]}, {"user": people[0]}]
    for members in inside:
        with pytest.raises(DecodeError, match="records"):
            read_page(answer({"status": "success", **members}))


def test_a_search_for_cursors_needs_little_memory_and_pauses() -> None:
    """Names of megabytes are in no path, and the event loop has its turns."""
    inner = b",".join(b'"%d":[%d]' % (number, number) for number in range(20_000))
    body = b'{"status":"success","records":[{}],"%b":{%b}}' % (b"k" * 20_000, inner)
    tracemalloc.start()
    try:
        pauses = sum(1 for _ in clevertap.read_page(answer(body), "asked"))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 40 * len(body)
    assert pauses > 50


def test_a_page_without_records_that_carries_a_cursor() -> None:
    page = read_page(answer(b'{"status":"success","cursor":"c%2B2"}'))
    assert (page.next_cursor, page.records) == ("c%2B2", [])
    early = Response(202, CIMultiDict(), b'{"status":"success","cursor":"c%2B2"}')
    assert at_once(clevertap.read_page(early, "asked")).next_cursor == "c%2B2"


@pytest.mark.parametrize(
    "members",
    [
        {"profiles": [{"identity": "7"}]},
        {"Records": [{"identity": "7"}], "next_cursor": "c%2B2"},
        {"data": {"records": [{"identity": "7"}], "next_cursor": "c%2B2"}},
        {"data": [{"identity": "7"}]},
        {"record": {"identity": "7"}},
    ],
    ids=str,
)
def test_records_under_another_name_are_no_empty_page(members: dict[str, Any]) -> None:
    with pytest.raises(DecodeError, match="records"):
        read_page(answer(json.dumps({"status": "success", **members}).encode()))


@pytest.mark.parametrize(
    "members",
    [
        {"records": [{"identity": "7"}]},
        {"Record": {"identity": "7"}},
        {"record": None, "profile": {"identity": "7"}},
        {"data": {"record": {"identity": "7"}}},
    ],
    ids=str,
)
def test_a_person_under_another_name_is_not_none(members: dict[str, Any]) -> None:
    response = answer(json.dumps({"status": "success", **members}).encode())
    with pytest.raises(DecodeError, match="record"):
        clevertap.read_profile(response)


@pytest.mark.parametrize(
    ("read", "name", "first", "second"),
    [
        (clevertap.read_profile, "record", b'{"identity":"a"}', b'{"identity":"b"}'),
        (clevertap.read_profile, "record", b'{"identity":"a"}', b"null"),
        (clevertap.read_cursor, "cursor", b'"c%2B1"', b'"c%2B2"'),
        (clevertap.read_count, "count", b"1", b"2"),
        (clevertap.read_count_started, "count", b"1", b"2"),
    ],
)
def test_of_a_member_that_comes_twice_neither_is_believed(
    read: Callable[[Response], object], name: str, first: bytes, second: bytes
) -> None:
    key = name.encode()
    members = (key, first, key, second)
    with pytest.raises(DecodeError, match=f"expected one `{name}`"):
        read(answer(b'{"status":"success","%b":%b, "%b" : %b}' % members))


def test_a_property_can_have_the_name_of_a_member_of_the_answer() -> None:
    record = {"identity": "a", "profileData": {"record": 1, "count": {"record": 2}}}
    profile = clevertap.read_profile(answer({"status": "success", "record": record}))
    assert profile is not None
    assert profile.identity == "a"


@pytest.mark.parametrize("members", [{"data": {}}, {"profile": None}, {"records": []}], ids=str)
def test_nobody_under_another_name_is_none(members: dict[str, Any]) -> None:
    response = answer(json.dumps({"status": "success", **members}).encode())
    assert clevertap.read_profile(response) is None


@pytest.mark.parametrize("code", [3, 400, "CURSOR_INVALIDATED", 9999])
def test_a_refusal_as_one_too_many_is_one_whatever_its_code(code: object) -> None:
    with pytest.raises(RateLimited):
        read_page(answer({"status": "fail", "error": "slow down", "code": code}, 429))


def test_the_text_of_a_failure_may_be_its_message() -> None:
    with pytest.raises(StatusError, match="out of service") as caught:
        read_page(answer({"status": "fail", "message": "out of service", "code": 7}, 500))
    assert caught.value.message == "out of service"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"status": "fail", "code": 2, "error": "Your page is being made"}, "page is being made"),
        ({"status": "fail", "code": 2}, "still being prepared"),
    ],
)
def test_an_answer_that_is_not_ready_says_so_in_the_words_of_the_service(
    body: dict[str, Any], text: str
) -> None:
    with pytest.raises(NotReady, match=text):
        read_page(answer(body))


@pytest.mark.parametrize("size", [10, 70_000])
@pytest.mark.parametrize("form", ["%b", "[%b]"])
def test_a_link_to_the_next_page_is_no_end_whatever_stands_beside_it(form: str, size: int) -> None:
    link = b'{"rel":"next","href":"https://x/?cursor=c1","pad":"%b"}' % (b"y" * size)
    body = b'{"status":"success","records":[{"identity":"1"}],"links":%b}' % (form.encode() % link)
    with pytest.raises(DecodeError, match="expected a cursor"):
        at_once(clevertap.read_page(answer(body), "asked"))
