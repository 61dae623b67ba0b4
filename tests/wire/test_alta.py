"""Alta's rules on sample bytes: requests, answers and failures."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
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
from altaprofiles.base.verdicts import can_pass, dooms_all, is_final
from altaprofiles.wire import alta
from altaprofiles.wire.messages import Response

from ..support.samples import sample

TWO_USERS = sample("alta/users_of_an_anonymous_id.json")

ONE_USER = (
    b'{"code":0,"message":"OK","data":{"u":{"user_id":"u","anonymous_ids":[{"anonymous_id":"a"}]}}}'
)

FORMS: list[Callable[[int], object]] = [int, str, float]


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


@pytest.mark.parametrize("status", [503, 504])
@pytest.mark.parametrize("code", [503, 504, "503", "504"])
@pytest.mark.parametrize(
    "words", ["user not found", "User not found.", "anonymous id not found", "No such user"]
)
def test_the_words_tell_not_found_from_a_failing_service(
    words: str, code: object, status: int
) -> None:
    assert alta.read_users(answer({"code": code, "message": words}, status)) == {}
    error = {"code": code, "message": words, "status": status}
    assert alta.read_users(answer({"error": error}, status)) == {}


@pytest.mark.parametrize("status", [500, 502, 503, 504])
@pytest.mark.parametrize(
    "words", ["", "user service not found", "upstream not found", "user not found, retry later"]
)
def test_a_failing_service_is_not_an_unknown_user(words: str, status: int) -> None:
    with pytest.raises(ServerError):
        alta.read_users(answer({"code": 503, "message": words}, status))
    with pytest.raises(ServerError):
        alta.read_users(answer({"message": "user not found"}, status))


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


def test_two_users_whom_no_text_can_tell_apart_are_not_taken_for_one() -> None:
    bound = rb'{"anonymous_ids":[{"anonymous_id":"a"}]}'
    data = rb'{"code":0,"data":{"u\ud83d":%b,"u\ud83e":%b}}' % (bound, bound)
    with pytest.raises(DecodeError, match="half a surrogate pair"):
        alta.read_users(answer(data))
    assert len(alta.read_users(answer(data.replace(b"u\\ud83e", b"u\\ud83d")))) == 1
    assert len(alta.read_users(answer(data.replace(b"u\\ud83e", b"v\\ud83e")))) == 2


# ----------------------------------------------------------------------------------------- failures


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
    status: int, code: int, kind: type[AltaProfilesError], passes: bool
) -> None:
    for form in FORMS:
        body = {"code": form(code), "message": "what it says", "data": None}
        with pytest.raises(StatusError) as caught:
            alta.read_users(answer(body, status, Retry_After="3"))
        error = caught.value
        assert type(error) is kind
        assert can_pass(error) is passes
        assert (error.api, error.status, error.code) == ("Alta", status, code)
        assert (error.message, error.retry_after) == ("what it says", 3.0)


KNOWN: list[tuple[int, type[StatusError], bool]] = [
    (40000, BadRequest, False),
    (40001, BadRequest, False),
    (400081, BadRequest, False),
    (40008, RateLimited, True),
    (40107, Unauthorized, False),
    (40113, Unauthorized, False),
    (40127, Unauthorized, False),
    (401001, Unauthorized, False),
    (40353, Forbidden, False),
    (40356, Forbidden, False),
    (40358, Forbidden, False),
    (40378, Forbidden, False),
    (40379, Forbidden, False),
    (403100, Forbidden, False),
    (403131, Forbidden, False),
    (20022, Forbidden, False),
    (20055, Forbidden, False),
    (20059, Forbidden, False),
    (200116, Forbidden, False),
    (200222, Forbidden, False),
    (21000, Forbidden, False),
    (40455, StatusError, False),
    (42900, RateLimited, True),
    (50000, ServerError, True),
    (50301, ServerError, True),
    (500100, ServerError, True),
]


@pytest.mark.parametrize(("code", "kind", "passes"), KNOWN)
def test_a_known_code_decides_the_error_whatever_the_status_and_the_form(
    code: int, kind: type[StatusError], passes: bool
) -> None:
    for status in [200, 201, 400, 401, 403, 404, 408, 429, 500, 503]:
        for form in (*FORMS, " {} ".format):
            words = "Something is wrong"
            for body in (
                {"code": form(code), "message": words},
                {"code": form(code), "message": words, "data": {}},
                {"code": form(code), "message": words, "data": None, "error": None},
                {"error": {"code": form(code), "message": words}},
                {"error": {"code": form(code), "message": words, "status": 404}},
                {"error": {"code": form(code), "message": words, "status": status}, "data": {}},
                {"code": 0, "error": {"code": form(code), "message": words, "status": 200}},
                {"code": form(code), "error": words},
            ):
                with pytest.raises(StatusError) as caught:
                    alta.read_users(answer(body, status))
                error = caught.value
                assert type(error) is kind, body
                assert can_pass(error) is passes
                assert dooms_all(error) is (kind in (Unauthorized, Forbidden))
                assert (error.status, error.code, error.message) == (status, code, words)


@pytest.mark.parametrize(
    ("status", "kind", "passes"),
    [
        (400, BadRequest, False),
        (401, Unauthorized, False),
        (403, Forbidden, False),
        (404, StatusError, False),
        (408, RequestTimeout, True),
        (422, StatusError, False),
        (429, RateLimited, True),
        (500, ServerError, True),
        (503, ServerError, True),
    ],
)
@pytest.mark.parametrize("code", ["INVALID_PARAMETER", None, 1, 999, 70001, "70001", 401])
@pytest.mark.parametrize("form", [int, str])
def test_without_a_known_code_the_bodys_status_decides_and_then_https(
    code: object,
    status: int,
    kind: type[AltaProfilesError],
    passes: bool,
    form: Callable[[int], object],
) -> None:
    members = {"message": "odd"} if code is None else {"message": "odd", "code": code}
    bodies: list[tuple[dict[str, Any], int]] = [
        ({"error": {**members, "status": form(status)}}, 200),
        ({"error": {**members, "status": form(status)}}, 400),
        ({"error": {**members, "status": form(status)}}, 500),
        ({**members, "status": form(status)}, 200),
        ({"error": members}, status),
        ({"error": {**members, "status": None}}, status),
        ({"error": {**members, "status": 200}}, status),
        ({"error": {**members, "status": "bad"}}, status),
        (members, status),
        ({"error": "odd", "status": form(status)}, 200),
        ({"error": "odd"}, status),
    ]
    for body, http in bodies:
        with pytest.raises(AltaProfilesError) as caught:
            alta.read_users(answer(body, http))
        assert type(caught.value) is kind, (body, http)
        assert can_pass(caught.value) is passes
        if isinstance(caught.value, StatusError):
            assert (caught.value.status, caught.value.message) == (http, "odd")


@pytest.mark.parametrize("code", ["INVALID_PARAMETER", 1, 999, 70001])
def test_an_unknown_code_with_http_200_may_be_temporary(code: object) -> None:
    for body in ({"code": code, "message": "odd"}, {"error": {"code": code, "message": "odd"}}):
        with pytest.raises(ServerError) as caught:
            alta.read_users(answer(body))
        assert (caught.value.code, caught.value.message) == (code, "odd")


def test_an_error_beside_users_is_an_error() -> None:
    for error in ({"code": "X", "message": "half of it", "status": 500}, "half of it", ["half"]):
        for code in ({}, {"code": 0}):
            with pytest.raises(ServerError, match="half"):
                alta.read_users(answer({**code, "data": USER, "error": error}))


@pytest.mark.parametrize("http", [200, 400, 404])
@pytest.mark.parametrize("status", [None, 200, 400, 404])
@pytest.mark.parametrize("code", [503, "503", 504, "504"])
def test_codes_503_and_504_in_an_error_mean_that_nothing_is_bound(
    code: object, status: int | None, http: int
) -> None:
    error = {"code": code, "message": "user not found", "status": status}
    assert alta.read_users(answer({"error": error}, http)) == {}


@pytest.mark.parametrize("http", [200, 400, 404, 500, 503])
@pytest.mark.parametrize("status", [500, 503, "503", 504])
@pytest.mark.parametrize("code", [503, "504", "SERVICE_UNAVAILABLE"])
def test_a_status_of_503_in_an_error_is_a_failure(code: object, status: object, http: int) -> None:
    for body in (
        {"error": {"code": code, "message": "unavailable", "status": status}},
        {"code": code, "message": "unavailable", "status": status},
    ):
        with pytest.raises(ServerError) as caught:
            alta.read_users(answer(body, http))
        assert can_pass(caught.value)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ({"code": "X", "message": ["a", "b"]}, "a; b"),
        ({"code": "X", "msg": "a"}, '{"msg":"a"}'),
        ({"code": "X", "status": 500}, ""),
        (True, "true"),
    ],
)
def test_the_words_of_an_error_are_shown_wherever_they_are(error: object, words: str) -> None:
    with pytest.raises(ServerError) as caught:
        alta.read_users(answer({"error": error}))
    assert caught.value.message == words


# -------------------------------------------------------------------------------------- next steps


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (20055, "switched off for this agent"),
        (20059, "agent was deleted"),
        (40378, "agent was deleted"),
        (20022, "credits are used up"),
        (40379, "credits are used up"),
        (40353, "plan or the conversation"),
        (200116, "does not support this feature"),
        (200222, "does not support this feature"),
        (403131, "lacks this permission"),
        ("FORBIDDEN", "lacks this permission"),
        (40113, "no access to this agent"),
        (40107, "has expired"),
    ],
)
def test_a_permanent_refusal_comes_with_one_line_on_the_next_step(code: object, words: str) -> None:
    for body in ({"code": code, "message": "no"}, {"error": {"code": code, "message": "no"}}):
        with pytest.raises((Unauthorized, Forbidden)) as caught:
            alta.read_users(answer(body, 403))
        assert caught.value.hint is not None
        assert words in caught.value.hint
        assert "\n" not in str(caught.value)
        assert ". " not in caught.value.hint


@pytest.mark.parametrize(
    "response",
    [
        answer({"code": 40127, "message": "Developer authentication failed"}),
        answer({"code": 40107, "message": "Expired"}, 401),
        answer({"error": {"code": "UNAUTHORIZED", "message": "no", "status": 401}}),
        answer({"message": "no"}, 401),
        answer(b"", 401),
        answer(b"<html>401</html>", 401),
        answer(b"Unauthorized", 401),
    ],
)
def test_a_refused_key_may_be_of_another_platform(response: Response) -> None:
    with pytest.raises(Unauthorized) as caught:
        alta.read_users(response)
    assert caught.value.hint is not None
    assert "endpoint= ('altatech', 'gptbots.ai', 'sg', 'jp', 'th')" in caught.value.hint


# ---------------------------------------------------------------------------------- the key itself


def test_a_key_can_be_verified() -> None:
    request = alta.verify_key()
    assert (request.method, request.target, request.body) == ("GET", "/v1/api-key/verify", b"")
    assert request.keys == []
    for body in ({"code": 0, "message": "OK"}, {"data": {"agent_id": "x"}, "meta": {}}):
        alta.read_verification(answer(body))


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (200, b'{"code":40127,"message":"no"}', Unauthorized),
        (200, b'{"error":{"code":"NO","message":"no","status":403}}', Forbidden),
        (200, b'{"code":503,"message":"?"}', ServerError),
        (404, b'{"code":504,"message":"?"}', StatusError),
        (404, b"<html>404</html>", StatusError),
        (404, b"", StatusError),
        (200, b"<html>Welcome</html>", DecodeError),
        (200, b'{"data":null}', DecodeError),
    ],
)
def test_a_key_that_is_not_verified_is_an_error(
    status: int, body: bytes, kind: type[AltaProfilesError]
) -> None:
    with pytest.raises(kind):
        alta.read_verification(answer(body, status))


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
    [
        b"{}",
        b'{"data":null}',
        b'{"data":[]}',
        b'{"data":"none"}',
        b'{"data":null,"meta":null,"links":null}',
        b'{"data":"none","meta":{},"links":{}}',
        b'{"data":[{}],"meta":{},"links":{}}',
        b'{"data":null,"meta":{"status":"error"},"links":{}}',
        b'{"data":null,"meta":{"error":"internal"},"links":{}}',
        b'{"data":null,"meta":{},"links":{},"errors":["internal"]}',
        b'{"data":[],"meta":{},"success":false}',
        b'{"cod%":50000,"data":null,"meta":{}}',
        b'{"erro2":"INTERNAL","data":[],"links":{}}',
        b'{"code":null,"data":null}',
        b'{"status":"success"}',
        b'{"meta":{},"links":{}}',
        b'{"datb":{}}',
        b'{"data!":{}}',
        b'{"codd":0,"data":{}}',
        b'{"cod%":50000,"data":{}}',
        b'{"cod%":"40008","data":{}}',
        b'{"erro2":{"code":"INTERNAL","status":500},"data":{}}',
        b"null",
        b"0",
    ],
)
def test_an_answer_without_code_and_object_never_means_that_nothing_is_bound(body: bytes) -> None:
    with pytest.raises(DecodeError) as caught:
        alta.read_users(answer(body))
    assert can_pass(caught.value)


USER = {"u": {"user_id": "u", "anonymous_ids": [{"anonymous_id": "a", "conversation_type": "C"}]}}
READ = {"u": CdpUser("u", [AnonymousId("a", "C", None)])}


@pytest.mark.parametrize("status", [200, 201])
@pytest.mark.parametrize(
    "others",
    [
        {},
        {"meta": {"request_id": "r"}, "links": {"self": "/v1/user/get-user-cdp"}},
        {"links": None, "meta": None, "error": None},
        {"code": None, "error": None, "message": "OK"},
        {"error": {}},
        {"mode": "live", "node": "n1"},
    ],
    ids=str,
)
def test_the_form_of_v15_without_a_code_is_a_success(status: int, others: dict[str, Any]) -> None:
    for body in ({"data": USER, **others}, {**others, "data": USER}):
        assert alta.read_users(answer(body, status)) == READ
    assert alta.read_users(answer({**others, "data": {}}, status)) == {}


@pytest.mark.parametrize(
    "body",
    [
        b'{"data":null,"meta":{},"links":{}}',
        b'{"data":[],"meta":{"request_id":"r"},"links":{}}',
        b'{"links":{"self":"/v1"},"data": [ ]}',
        b'{"meta":{"error":null},"message":"OK","data":null,"error":null}',
        b'{"data":{},"meta":{},"links":{}}',
    ],
)
def test_nothing_bound_in_the_form_of_v15(body: bytes) -> None:
    assert alta.read_users(answer(body)) == {}
    for end in range(len(body)):
        with pytest.raises(DecodeError):
            alta.read_users(answer(body[:end]))


def test_users_are_believed_whatever_the_words_but_nobody_is_not() -> None:
    assert alta.read_users(answer({"data": USER, "message": "odd"})) == READ
    with pytest.raises(ServerError):
        alta.read_users(answer({"data": {}, "message": "odd"}))


@pytest.mark.parametrize("user", [{}, {"profile": {}}])
def test_a_user_without_known_members_under_another_name_is_not_nobody(user: object) -> None:
    with pytest.raises(DecodeError, match="expected `data`"):
        alta.read_users(answer({"code": 0, "DATA": {"u": user}}))
    assert alta.read_users(answer({"code": 0, "DATA": {}})) == {}


@pytest.mark.parametrize("first", [b'{"u":{"user_id":"u"}}', b"null", b"{}"])
def test_users_that_come_twice_are_not_taken_for_those_that_come_last(first: bytes) -> None:
    for members in ((first, b"{}"), (b"{}", first), (b'{"v":{}}', first)):
        with pytest.raises(DecodeError, match="expected one `data`"):
            alta.read_users(answer(b'{"code":0,"data":%b, "data" :%b}' % members))


@pytest.mark.parametrize("name", ["data!", "users", "result", "Data", "datb"])
@pytest.mark.parametrize("code", [0, "0"])
def test_users_under_another_name_are_not_nobody(name: str, code: object) -> None:
    with pytest.raises(DecodeError, match="expected `data`"):
        alta.read_users(answer({"code": code, "message": "OK", name: USER}))


def test_other_members_beside_a_code_do_not_hide_that_nothing_is_bound() -> None:
    body = {"code": 0, "message": "OK", "meta": {"page": {"size": 1}}, "trace": {"id": "x"}}
    assert alta.read_users(answer(body)) == {}


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


@pytest.mark.parametrize(
    "body",
    [
        {"status": "fail", "data": {}},
        {"status": "error", "data": {}},
        {"success": False, "data": {}},
        {"ok": False, "data": {}},
        {"errors": [{"code": 40008}], "data": {}},
        {"err": {"code": 1}, "data": {}},
        {"cod": 40008, "data": {}},
        {"errorCode": 50000, "data": {}},
    ],
)
def test_nobody_is_believed_unknown_beside_words_of_a_failure(body: dict[str, Any]) -> None:
    with pytest.raises(AltaProfilesError) as caught:
        alta.read_users(Response(200, {}, msgspec.json.encode(body)))
    assert can_pass(caught.value)


@pytest.mark.parametrize(
    "body",
    [
        {"data": {}, "meta": {"page": 1}, "links": {}},
        {"data": {}, "status": 200},
        {"data": {}, "status": "success", "success": True},
        {"data": {}, "requestId": "abc", "timestamp": 1},
        {"data": {}, "message": "OK", "errors": []},
    ],
)
def test_nobody_is_believed_unknown_beside_a_success(body: dict[str, Any]) -> None:
    assert alta.read_users(Response(200, {}, msgspec.json.encode(body))) == {}


@pytest.mark.parametrize("code", [b'"code":0,', b""])
def test_ids_under_a_garbled_name_are_not_taken_for_none(code: bytes) -> None:
    body = b'{%b"data":{"u1":{"user_id":"u1","cnonymous_ids":[{"anonymous_id":"a"}]}}}' % code
    with pytest.raises(DecodeError, match="anonymous_ids"):
        alta.read_users(Response(200, {}, body))
    body = b'{%b"data":{"u1":{"user_id":"u1"}}}' % code
    assert alta.read_users(Response(200, {}, body))["u1"].anonymous_ids == []


@pytest.mark.parametrize("status", [400, 403])
def test_a_success_under_an_error_status_is_not_a_refusal_of_the_service(status: int) -> None:
    body = b'{"code":0,"message":"OK","data":{}}'
    with pytest.raises(StatusError) as caught:
        alta.read_users(Response(status, {}, body))
    assert not is_final(caught.value)
    assert not dooms_all(caught.value)
