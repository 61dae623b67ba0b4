"""The rules of Alta's (GPTBots') "Query User CDP". Pure functions.

Sources:
    [cdp] "Query User CDP", also as "Benutzer-CDP abfragen" and "ユーザーCDPの照会"
    [gptbots] GPTBots' API documentation V1.5: overview, error codes, API keys
    [seen] public clients, captures and tests
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from ..base.checks import check_key
from ..base.jsontext import decode_loosely, decode_mended, excerpt, parts, plain_text
from ..credentials import ENDPOINTS
from ..errors import (
    AltaProfilesError,
    DecodeError,
    Forbidden,
    InvalidArgument,
    RateLimited,
    ServerError,
    StatusError,
    Unauthorized,
)
from ..models import AnonymousId, CdpUser
from .messages import Request, Response, parameter
from .reading import (
    check_once,
    decode_body,
    error_text,
    is_garbled,
    kind_of,
    read_code,
    status_error,
    timed_out,
)
from .unknown import says_unknown

__all__ = [
    "API",
    "CdpBy",
    "auth_headers",
    "get_user_cdp",
    "is_used_up",
    "read_users",
    "read_verification",
    "verify_key",
]

API = "Alta"

CdpBy: TypeAlias = Literal["user_id", "anonymous_id"]
"""The keys by which CDP users can be looked up ([cdp], Request Parameters)."""


def auth_headers(token: str) -> dict[str, str]:
    """Return the headers of every request ([cdp], Request Headers)."""
    return {"Authorization": f"Bearer {token}"}


def get_user_cdp(*, user_id: object = None, anonymous_id: object = None) -> Request:
    """Request the users of a user ID, of an anonymous ID, or of exactly this pair ([cdp], Note).

    Raises:
        ConfigurationError: neither is given, or one is not an identifier.
    """
    keys = {
        name: value
        for name, value in (("user_id", user_id), ("anonymous_id", anonymous_id))
        if value is not None
    }
    if not keys:
        raise InvalidArgument(
            "user_id, anonymous_id: both are missing, as None counts as not given; pass at least "
            "one"
        )
    query = "&".join(parameter(name, check_key(name, value)) for name, value in keys.items())
    return Request("get_user_cdp", "GET", f"/v1/user/get-user-cdp?{query}")


_NULL = Raw(b"null")


class _Bound(Struct, gc=False):
    anonymous_id: Raw
    conversation_type: Raw = _NULL
    source_id: Raw = _NULL


class _User(Struct, gc=False):
    user_id: Raw = _NULL
    anonymous_ids: list[_Bound] | None = None


class _Body(Struct, gc=False):
    """Members of both forms: the classic one, and that of V1.5 ([cdp]; [gptbots])."""

    code: Any = UNSET
    message: Any = None
    data: Raw | UnsetType = UNSET
    error: Any = None
    status: Any = None


_BODY = msgspec.json.Decoder(_Body)
_DATA = msgspec.json.Decoder(
    dict[str, _User | None] | Annotated[list[Any], Meta(max_length=0)] | None
)

# Body codes of a similar call, not HTTP statuses: no such user, no such anonymous ID [seen].
_NOT_FOUND = (503, 504)
_NOT_FOUND_WITH = (None, 200, 400, 404)


def read_users(response: Response) -> dict[str, CdpUser]:
    """Return the users by user ID, in the order sent; empty if nothing is bound ([cdp], Response).

    No page documents the answer if nothing is bound. `data` may be empty, null or missing, or the
    body may have one of two codes ([seen]). With HTTP 503 or 504 its words must say the same.

    Raises:
        StatusError: the service refuses the request, or fails.
        DecodeError: the body is not an answer of this API.
    """
    body, result = _open(response)
    if _says_unknown(response, result):
        return {}
    _raise_for_failure(response, body, result)
    check_once(response, "data")
    if body.data is UNSET:
        for name, value in parts(response.body).items():
            if is_garbled(name, "data") or _holds_users(name, value):
                raise DecodeError(
                    "expected `data`", path=f"$.{name}", excerpt=excerpt(response.body)
                )
        return {}
    # A user is known by what can be read, as in CleverTap's records.
    users, _ = decode_mended(_DATA, body.data, "$.data")
    if isinstance(users, dict):
        _check_bound(users, body.data)
        if any("\ufffd" in key for key in users) and len(users) < _users_in(response.body):
            raise DecodeError(
                "expected IDs of users that differ in more than half a surrogate pair",
                path="$.data",
                excerpt=excerpt(response.body),
            )
    # An empty object can come as an empty array.
    return {key: _user(key, user) for key, user in users.items()} if isinstance(users, dict) else {}


def _users_in(body: bytes) -> int:
    try:
        # Unlike msgspec, Python's decoder keeps lone surrogates.
        return len(json.loads(body)["data"])
    except RecursionError:
        return 0


def _says_unknown(response: Response, result: _Result) -> bool:
    """Return whether an answer has a code for "not found", and not only the same HTTP status."""
    statuses = {response.status, result.status}
    if result.code not in _NOT_FOUND or not statuses.issubset({*_NOT_FOUND_WITH, *_NOT_FOUND}):
        return False
    return says_unknown(result.message) or statuses.isdisjoint(_NOT_FOUND)


def _check_bound(users: Mapping[str, _User | None], data: Raw) -> None:
    """Raise `DecodeError` if a user's IDs may stand under a garbled name."""
    if all(user is not None and user.anonymous_ids is not None for user in users.values()):
        return
    for key, sent in parts(data, "$.data").items():
        user = users.get(key)
        if user is None or user.anonymous_ids is not None:
            continue
        for number, name in enumerate(parts(sent, "$.data")):
            if is_garbled(name, "anonymous_ids"):
                # The path leaves the user's ID out.
                raise DecodeError(
                    "expected `anonymous_ids`",
                    path=f"$.data.*[{number}]",
                    excerpt=excerpt(bytes(sent)),
                )


def verify_key() -> Request:
    """Request a check of the API key ([gptbots], API keys). Not every platform has it."""
    return Request("verify_key", "GET", "/v1/api-key/verify")


def read_verification(response: Response) -> None:
    """Return if the key is accepted ([gptbots], API keys).

    No page documents the answer's `data`. If it says that the key is not `valid`, it is believed.

    Raises:
        StatusError: the key is refused, the platform lacks this call, or it fails.
        DecodeError: the body is not an answer of this API.
    """
    body, result = _open(response)
    _raise_for_failure(response, body, result)
    data = None if body.data is UNSET else decode_loosely(body.data)
    if isinstance(data, dict) and data.get("valid") in (False, "false"):
        raise status_error(Unauthorized, API, response, result.code, result.message, _REFUSED)


class _Result(NamedTuple):
    """The result that a body reports, in either form.

    Attributes:
        code: its code, or None.
        message: its words.
        status: the HTTP status of an error that it names, or None.
        has_error: whether it has an `error`.
    """

    code: int | str | None
    message: str
    status: int | None
    has_error: bool


def _open(response: Response) -> tuple[_Body, _Result]:
    body, _ = decode_body(API, response, _BODY, refused=_REFUSED)
    code, message, error = read_code(body.code), body.message, body.error
    status = read_code(body.status)
    if isinstance(error, dict):
        if code in (None, 0):
            code = read_code(error.get("code"))
        others = {name: value for name, value in error.items() if name not in ("code", "status")}
        message = error.get("message") or message or others or None
        status = read_code(error.get("status")) or status
    elif error:
        message = message or error
    if not isinstance(status, int) or not 400 <= status < 600:
        status = None
    return body, _Result(code, error_text(message), status, bool(error))


def _raise_for_failure(response: Response, body: _Body, result: _Result) -> None:
    if 200 <= response.status < 300 and not result.has_error:
        if result.code == 0:
            return
        if result.code is None and result.status is None and _is_of_v15(response, body, result):
            return
    raise _failure(response, result)


_WORDS_OF_SUCCESS = re.compile(r"\s*(?:ok|success|2[0-9]{2})?\s*", re.IGNORECASE)
_NAMES_OF_FAILURES = re.compile(r"err|cod|fail|fault|exception", re.IGNORECASE)


def _claims_success(members: Mapping[str, Raw], message: str) -> bool:
    """Return whether nothing in a body with an empty `data` speaks of a failure."""
    values = {name.lower(): decode_loosely(value) for name, value in members.items()}
    status = values.get("status")
    return (
        bool(_WORDS_OF_SUCCESS.fullmatch(message))
        and (status is None or bool(_WORDS_OF_SUCCESS.fullmatch(str(status))))
        and not any(values.get(name) is False for name in ("success", "ok"))
        and not any(value and _NAMES_OF_FAILURES.match(name) for name, value in values.items())
    )


def _is_object(value: Raw) -> bool:
    return memoryview(value)[0] == ord("{")


def _has_envelope(members: Mapping[str, Raw]) -> bool:
    return any(_is_object(members.get(name, _NULL)) for name in ("meta", "links"))


def _claims_success_in_meta(members: Mapping[str, Raw]) -> bool:
    meta = members.get("meta", _NULL)
    if not _is_object(meta):
        return True
    inner = parts(meta, "$.meta")
    return _claims_success(inner, error_text(decode_loosely(inner.get("message", _NULL))))


def _is_of_v15(response: Response, body: _Body, result: _Result) -> bool:
    """Return whether a body without code and error is a success: it has an object as `data`.

    Null and an empty array are believed only beside `meta` or `links`, which the form has: any
    failure can have them, and a person taken for unknown is lost unseen, whereas an error is
    retried and reported ([gptbots]). For the same reason no empty `data` is believed beside words
    that are not a success's.
    """
    if body.data is UNSET:
        return False
    members = parts(response.body)
    is_object = _is_object(body.data)
    if not is_object and (
        decode_loosely(body.data) not in (None, []) or not _has_envelope(members)
    ):
        return False
    if not (is_object and parts(body.data, "$.data")) and not (
        _claims_success(members, result.message) and _claims_success_in_meta(members)
    ):
        return False
    for name, value in members.items():
        is_code = is_garbled(name, "code") and isinstance(read_code(decode_loosely(value)), int)
        if is_code or is_garbled(name, "error"):
            raise DecodeError(
                "expected `code` or `error`", path=f"$.{name}", excerpt=excerpt(response.body)
            )
    return True


def _holds_users(name: str, value: Raw) -> bool:
    found = decode_loosely(value)
    return isinstance(found, dict) and any(
        isinstance(one, dict)
        and (name.lower() == "data" or not one.keys().isdisjoint(_User.__struct_fields__))
        for one in found.values()
    )


def _user(key: str, user: _User | None) -> CdpUser:
    bound = (user.anonymous_ids if user else None) or ()
    return CdpUser(
        user_id=(plain_text(user.user_id) if user else None) or key,
        anonymous_ids=[
            AnonymousId(
                anonymous_id=anonymous_id,
                conversation_type=plain_text(one.conversation_type),
                source_id=plain_text(one.source_id),
            )
            for one in bound
            if (anonymous_id := plain_text(one.anonymous_id))
        ],
    )


_RATE_EXCEEDED = 40008  # requests per minute


def _kind(code: int | str | None) -> type[StatusError] | None:
    """Return the class of a code, or None if the code does not decide it ([gptbots], error codes).

    A code of five digits or more begins with the HTTP status of its family: 403131 is a 403. Any
    other 4xx is permanent as well. A shorter code is not a status ([seen]). The code decides
    whatever the HTTP status, which can be 200 ([seen]).
    """
    if code == _RATE_EXCEEDED:
        return RateLimited
    if not isinstance(code, int) or code < 10_000:
        return None
    digits = str(code)
    match digits[0]:
        case "2":
            # About the agent or its plan: 200116 is not an HTTP 200.
            return Forbidden
        case "4" | "5":
            return kind_of(int(digits[:3]))
    return None


def _failure(response: Response, result: _Result) -> AltaProfilesError:
    """Return the error of an answer that is not a success ([cdp], Error Response; [gptbots]).

    If the code is not a number, or of an unknown family, the status in the body decides, else
    HTTP's.
    """
    code, message = result.code, result.message
    kind = _kind(code)
    if kind is None:
        status = result.status or response.status
        if status < 300 and code is None and not message and not result.has_error:
            return DecodeError(
                "expected a `code`, or an object as `data`",
                path="$",
                excerpt=excerpt(response.body),
            )
        if status == 408:
            return timed_out()
        # An unexplained failure may be temporary: it is retried, and raised in the end.
        kind = ServerError if status < 300 else kind_of(status)
    return status_error(kind, API, response, code, message, _hint(kind, code))


def is_used_up(error: StatusError) -> bool:
    """Return whether the plan refuses a call that it takes at other times ([gptbots], error codes).

    Its credits are used up, or what it allows at present is.
    """
    return isinstance(error.code, int) and _HINTS.get(error.code) in (_USED_UP, _PLAN)


# The key of another platform is refused as a wrong key is.
_OR_ANOTHER_PLATFORM = (
    f"if another platform issued the key, pass that platform as endpoint= "
    f"({', '.join(map(repr, ENDPOINTS))})"
)
_REFUSED = f"Check the API key; {_OR_ANOTHER_PLATFORM}"

_DELETED = "The agent was deleted: use the API key of another agent"
_USED_UP = "The credits are used up: buy more, or wait for the plan's next period"
_PLAN = "The plan or the conversation does not allow this call: check the plan on the platform"
_HINTS: dict[int, str] = {
    40107: "The API key has expired: make a new one on the API Keys page",
    40113: "The API key has no access to this agent: use a key of the agent itself",
    20055: "The API is switched off for this agent: switch it on in the agent's settings",
    20059: _DELETED,
    40378: _DELETED,
    20022: _USED_UP,
    40379: _USED_UP,
    40353: _PLAN,
    40356: _PLAN,
    40358: _PLAN,
}
_FEATURE = "The agent or its plan does not support this feature: check the plan on the platform"
_PERMISSION = (
    "The API key lacks this permission: check its permissions on the API Keys page, or use another "
    "key"
)


def _hint(kind: type[StatusError], code: int | str | None) -> str | None:
    """Return one sentence on the next step ([gptbots], error codes)."""
    known = _HINTS.get(code) if isinstance(code, int) else None
    if kind is Unauthorized:
        return f"{known}; {_OR_ANOTHER_PLATFORM}" if known else _REFUSED
    if kind is Forbidden:
        return known or (_FEATURE if str(code).startswith("2") else _PERMISSION)
    return None
