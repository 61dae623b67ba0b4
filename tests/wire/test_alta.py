"""Alta's rules on sample bytes: requests, answers and failures."""

from __future__ import annotations

import json
from typing import Any

import pytest
from multidict import CIMultiDict

from altaprofiles import (
    AltaProfilesError,
    AnonymousId,
    BadRequest,
    CdpUser,
    ConfigurationError,
    DecodeError,
    Forbidden,
    RateLimited,
    RequestTimeout,
    ServerError,
    StatusError,
    Unauthorized,
)
from altaprofiles.base.verdicts import can_pass
from altaprofiles.wire import alta
from altaprofiles.wire.messages import Response

from ..support.samples import sample

TWO_USERS = sample("alta/users_of_an_anonymous_id.json")

ONE_USER = (
    b'{"code":0,"message":"OK","data":{"u":{"user_id":"u","anonymous_ids":[{"anonymous_id":"a"}]}}}'
)


def answer(body: bytes | dict[str, Any], status: int = 200, **headers: str) -> Response:
    if isinstance(body, dict):
        body = json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(status, CIMultiDict(named), body)


# ----------------------------------------------------------------------------------------- requests


def test_every_request_has_the_token() -> None:
    assert alta.auth_headers("t0k3n") == {"Authorization": "Bearer t0k3n"}


@pytest.mark.parametrize(
    ("ids", "sent"),
    [
        ({"user_id": "BC123"}, "user_id=BC123"),
        ({"anonymous_id": "22ses32dsafdabd1w2sad"}, "anonymous_id=22ses32dsafdabd1w2sad"),
        (
            {"user_id": "BC123", "anonymous_id": "22ses32dsafdabd1w2sad"},
            "user_id=BC123&anonymous_id=22ses32dsafdabd1w2sad",
        ),
        ({"user_id": 7}, "user_id=7"),
        ({"user_id": "a+b@c d&e=f/g"}, "user_id=a%2Bb%40c%20d%26e%3Df%2Fg"),
        ({"anonymous_id": "Zoë"}, "anonymous_id=Zo%C3%AB"),
    ],
)
def test_requests_equal_the_sample_requests(ids: dict[str, object], sent: str) -> None:
    request = alta.get_user_cdp(**ids)
    assert (request.method, request.body) == ("GET", b"")
    assert request.target == f"/v1/user/get-user-cdp?{sent}"


def test_a_lookup_without_a_key_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="user_id, anonymous_id"):
        alta.get_user_cdp()


# ------------------------------------------------------------------------------------------ answers


def test_the_sample_answer_is_read_in_the_order_sent() -> None:
    users = alta.read_users(answer(TWO_USERS))
    assert list(users) == ["user1", "67b58121035e5b152b0419ee"]
    assert users["user1"] == CdpUser("user1", [AnonymousId("aId3", "WEB", None)])
    assert users["67b58121035e5b152b0419ee"].anonymous_ids == [AnonymousId("aId3", "C", None)]


@pytest.mark.parametrize("code", ["0", '"0"', "0.0"])
@pytest.mark.parametrize(
    "body",
    [
        '{"code":CODE,"message":"OK","data":DATA}',
        '{"data":DATA,"message":"OK","code":CODE}',
        '\n{ "message" : "OK" ,\t"code" : CODE , "data" : DATA }\r\n',
        '{"code":CODE,"data":DATA}',
        '{"trace_id":"x","code":CODE,"data":DATA,"message":null}',
    ],
)
def test_success_comes_in_any_order_spacing_and_type_of_code(body: str, code: str) -> None:
    data = '{"u":{"user_id":"u","anonymous_ids":[]}}'
    sent = body.replace("CODE", code).replace("DATA", data).encode()
    assert alta.read_users(answer(sent)) == {"u": CdpUser("u", [])}


@pytest.mark.parametrize(
    "body",
    [
        '{"code":0,"message":"OK","data":null}',
        '{"code":0,"message":"OK","data":{}}',
        '{"code":0,"message":"OK","data":[]}',
        '{"code":0,"message":"OK","data": { } }',
        '{"code":0,"message":"OK","data": [\n] }',
        '{"code":0,"message":"OK"}',
        '{"code":"0"}',
    ],
)
def test_every_form_of_nothing_bound_is_empty(body: str) -> None:
    assert alta.read_users(answer(body.encode())) == {}


@pytest.mark.parametrize("status", [200, 400, 404])
@pytest.mark.parametrize("code", [503, 504, "503", "504", 503.0])
def test_body_codes_503_and_504_mean_that_nothing_is_bound(status: int, code: object) -> None:
    assert alta.read_users(answer({"code": code, "message": "user not found"}, status)) == {}


@pytest.mark.parametrize("status", [502, 503, 504])
@pytest.mark.parametrize("code", [503, 504, "503", 0, None])
def test_http_statuses_503_and_504_are_failures_whatever_the_body_code(
    status: int, code: object
) -> None:
    with pytest.raises(ServerError) as caught:
        alta.read_users(answer({"code": code, "message": "unavailable", "data": {}}, status))
    assert can_pass(caught.value)


@pytest.mark.parametrize(
    "user",
    [
        {},
        {"user_id": None, "anonymous_ids": None},
        {"user_id": "u", "anonymous_ids": []},
        {"anonymous_ids": [], "tags": {"new": True}},
    ],
)
def test_a_user_without_anonymous_ids_has_none(user: dict[str, Any]) -> None:
    assert alta.read_users(answer({"code": 0, "data": {"u": user}})) == {"u": CdpUser("u", [])}


def test_ids_are_text_whatever_their_type_and_conversation_types_are_open() -> None:
    bound = [
        {"anonymous_id": 7, "conversation_type": "HOLOGRAM_2031", "source_id": 12},
        {"anonymous_id": "b", "since": 1},
    ]
    users = alta.read_users(
        answer({"code": 0, "data": {"7": {"user_id": 7, "anonymous_ids": bound}}})
    )
    assert users == {
        "7": CdpUser("7", [AnonymousId("7", "HOLOGRAM_2031", "12"), AnonymousId("b", None, None)])
    }


def test_half_a_surrogate_pair_does_not_spoil_the_answer() -> None:
    users = alta.read_users(
        answer(
            rb'{"code":0,"message":"\ud83d","data":{"u":{"anonymous_ids":'
            rb'[{"anonymous_id":"a\ude00"}]}}}'
        )
    )
    assert users["u"].anonymous_ids[0].anonymous_id == "a\ufffd"


# ----------------------------------------------------------------------------------------- failures


@pytest.mark.parametrize("form", [int, str, float])
@pytest.mark.parametrize(
    ("status", "code", "kind", "passes"),
    [
        (400, 40000, BadRequest, False),
        (200, 40000, BadRequest, False),
        (200, 40099, BadRequest, False),
        (400, 40008, RateLimited, True),
        (200, 40008, RateLimited, True),
        (429, 40008, RateLimited, True),
        (401, 40127, Unauthorized, False),
        (200, 40127, Unauthorized, False),
        (400, 40127, Unauthorized, False),
        (200, 40199, Unauthorized, False),
        (403, 40300, Forbidden, False),
        (200, 40300, Forbidden, False),
        (500, 50000, ServerError, True),
        (200, 50000, ServerError, True),
        (200, 50099, ServerError, True),
        (200, 1, ServerError, True),
        (200, -1, ServerError, True),
        (200, 400, ServerError, True),
        (200, 401, ServerError, True),
        (200, 403, ServerError, True),
        (200, 4001, ServerError, True),
        (200, 4031, ServerError, True),
        (200, 40001, BadRequest, False),
        (200, 42900, RateLimited, True),
        (200, 403100, Forbidden, False),
        (200, 403131, Forbidden, False),
        (200, 10_000, ServerError, True),
        (401, 1, Unauthorized, False),
        (403, 1, Forbidden, False),
        (429, 1, RateLimited, True),
        (500, 0, ServerError, True),
        (400, 0, BadRequest, False),
    ],
)
def test_the_code_and_then_the_status_decide_the_error(
    status: int, code: int, kind: type[AltaProfilesError], passes: bool, form: type
) -> None:
    body = {"code": form(code), "message": "what it says", "data": None}
    with pytest.raises(StatusError) as caught:
        alta.read_users(answer(body, status, Retry_After="3"))
    error = caught.value
    assert type(error) is kind
    assert can_pass(error) is passes
    assert (error.api, error.status, error.code) == ("Alta", status, code)
    assert (error.message, error.retry_after) == ("what it says", 3.0)


@pytest.mark.parametrize("code", ["x", "--1", "9" * 5000, [1], {"a": 0}, 0.5, None])
def test_a_code_of_any_shape_is_a_failure_of_this_library(code: object) -> None:
    with pytest.raises(StatusError):
        alta.read_users(answer({"code": code, "message": "odd", "data": {}}))


@pytest.mark.parametrize(
    ("status", "kind", "passes"),
    [
        (200, DecodeError, True),
        (400, BadRequest, False),
        (401, Unauthorized, False),
        (403, Forbidden, False),
        (404, StatusError, False),
        (408, RequestTimeout, True),
        (429, RateLimited, True),
        (502, ServerError, True),
        (504, ServerError, True),
    ],
)
@pytest.mark.parametrize("body", [b"", b"\n", b"<html>Bad Gateway</html>", b"[]", b"oops"])
def test_the_status_decides_the_error_of_a_proxy(
    body: bytes, status: int, kind: type[AltaProfilesError], passes: bool
) -> None:
    with pytest.raises(AltaProfilesError) as caught:
        alta.read_users(answer(body, status))
    assert type(caught.value) is kind
    assert can_pass(caught.value) is passes


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_an_error_that_names_its_target(status: int) -> None:
    with pytest.raises(StatusError, match=r"elsewhere\.example") as caught:
        alta.read_users(answer(ONE_USER, status, location="https://elsewhere.example/"))
    assert not can_pass(caught.value)


@pytest.mark.parametrize("body", [ONE_USER, TWO_USERS, b'{"code":0,"data":null}'])
def test_an_answer_cut_short_anywhere_is_an_error(body: bytes) -> None:
    alta.read_users(answer(body))
    for end in range(len(body)):
        with pytest.raises(DecodeError) as caught:
            alta.read_users(answer(body[:end]))
        assert can_pass(caught.value), end


@pytest.mark.parametrize(
    "body",
    [b"{}", b'{"data":{}}', b'{"code":null,"data":null}', b'{"status":"success"}', b"null", b"0"],
)
def test_an_answer_without_a_code_never_means_that_nothing_is_bound(body: bytes) -> None:
    with pytest.raises(DecodeError):
        alta.read_users(answer(body))


@pytest.mark.parametrize(
    ("data", "path"),
    [
        ('"none"', "$.data"),
        ("7", "$.data"),
        ("[{}]", "$.data"),
        ('{"u":7}', "$.data[...]"),
        ('{"u":{"anonymous_ids":{}}}', "$.data[...].anonymous_ids"),
        ('{"u":{"anonymous_ids":[{},7]}}', "$.data[...].anonymous_ids[0]"),
    ],
)
def test_invalid_data_is_an_error_with_its_path(data: str, path: str) -> None:
    with pytest.raises(DecodeError) as caught:
        alta.read_users(answer(f'{{"code":0,"data":{data}}}'.encode()))
    assert caught.value.path == path


@pytest.mark.parametrize("odd", [b"[" * 50_000 + b"]" * 50_000, b"1e400", b"1" * 5000])
def test_an_unknown_part_that_cannot_be_decoded_costs_nothing_else(odd: bytes) -> None:
    bound = b'{"anonymous_id":"a","source_id":9.50,"x":%b}' % odd
    users = alta.read_users(
        answer(b'{"x":%b,"code":0,"data":{"u":{"anonymous_ids":[%b],"x":%b}}}' % (odd, bound, odd))
    )
    [user] = users.values()
    assert [(one.anonymous_id, one.source_id) for one in user.anonymous_ids] == [("a", "9.50")]


def test_a_number_out_of_range_stays_as_its_json() -> None:
    users = alta.read_users(
        answer(b'{"code":0,"data":{"u":{"anonymous_ids":[{"anonymous_id":1e400}]}}}')
    )
    assert [one.anonymous_id for one in users["u"].anonymous_ids] == ["1e400"]


@pytest.mark.parametrize("end", [b"", b"]", b"}", b"]}", b"]]", b"]]]}"])
def test_a_deep_body_that_is_cut_short_is_an_error(end: bytes) -> None:
    with pytest.raises(DecodeError):
        alta.read_users(answer(b'{"code":0,"data":{},"x":' + b"[" * 5000 + b"]" * 4998 + end))


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
def test_a_body_code_for_not_found_does_not_hide_a_failed_status(status: int) -> None:
    with pytest.raises(StatusError):
        alta.read_users(answer(b'{"code":503,"message":"?"}', status))


def test_bindings_without_an_anonymous_id_are_left_out() -> None:
    data = b'{"code":0,"data":{"u":null,"v":{"anonymous_ids":[{"anonymous_id":null}]}}}'
    users = alta.read_users(answer(data))
    assert [(user.user_id, user.anonymous_ids) for user in users.values()] == [("u", []), ("v", [])]
