"""The rules of Alta's (GPTBots') "Query User CDP". Pure functions.

Sources:
    [cdp] "Query User CDP", also as "Benutzer-CDP abfragen" and "ユーザーCDPの照会"
    [seen] public clients, captures and tests
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from ..base.checks import check_key
from ..base.jsontext import decode_mended, excerpt, parts, plain_text
from ..errors import (
    AltaProfilesError,
    BadRequest,
    ConfigurationError,
    DecodeError,
    Forbidden,
    RateLimited,
    ServerError,
    StatusError,
    Unauthorized,
)
from ..models import AnonymousId, CdpUser
from .messages import Request, Response, parameter
from .reading import decode_body, error_for, error_text, is_garbled, read_code, status_error

__all__ = ["API", "By", "auth_headers", "get_user_cdp", "read_users"]

API = "Alta"

By: TypeAlias = Literal["user_id", "anonymous_id"]
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
        raise ConfigurationError("user_id, anonymous_id: both are missing; pass at least one")
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
    code: Any = UNSET
    message: Any = None
    data: Raw | UnsetType = UNSET


_BODY = msgspec.json.Decoder(_Body)
_DATA = msgspec.json.Decoder(
    dict[str, _User | None] | Annotated[list[Any], Meta(max_length=0)] | None
)

# Body codes of a similar call, not HTTP statuses: no such user, no such anonymous ID [seen].
_NOT_FOUND = (503, 504)


def read_users(response: Response) -> dict[str, CdpUser]:
    """Return the users by user ID, in the order sent; empty if nothing is bound ([cdp], Response).

    No page documents the answer if nothing is bound. `data` may be empty, null or missing, or the
    body may have one of two codes ([seen]).

    Raises:
        StatusError: the service refuses the request, or fails.
        DecodeError: the body is not an answer of this API.
    """
    body, _ = decode_body(API, response, _BODY)
    code, message = read_code(body.code), error_text(body.message)
    if code in _NOT_FOUND and response.status in (200, 400, 404):
        return {}
    if not 200 <= response.status < 300 or code != 0:
        raise _failure(response, code, message)
    if body.data is UNSET:
        for name in parts(response.body):
            if is_garbled(name, "data"):
                raise DecodeError(
                    "expected `data`", path=f"$.{name}", excerpt=excerpt(response.body)
                )
        return {}
    # A user is known by what can be read, as in CleverTap's records.
    users, _ = decode_mended(_DATA, body.data, "$.data")
    # An empty object can come as an empty array.
    return {key: _user(key, user) for key, user in users.items()} if isinstance(users, dict) else {}


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


# Codes with a meaning of their own [seen].
_BY_CODE: dict[int, type[StatusError]] = {
    40000: BadRequest,
    40008: RateLimited,  # requests per minute exceeded
    40127: Unauthorized,
    50000: ServerError,
}
# All other codes, by the HTTP status they begin with [seen].
_BY_FAMILY: dict[int, type[StatusError]] = {
    400: BadRequest,
    401: Unauthorized,
    403: Forbidden,
    429: RateLimited,
}


def _failure(response: Response, code: int | str | None, message: str) -> AltaProfilesError:
    """Return the error of an answer that is not a success ([cdp], Error Response).

    Error codes can come with HTTP 200. A code of five digits or more begins with the HTTP status of
    its family, and a shorter one is not a status ([seen]).
    """
    status = response.status
    kind = _BY_CODE.get(code) if isinstance(code, int) else None
    if kind is None and status < 300:
        if code is None and not message:
            return DecodeError("expected a `code`", path="$", excerpt=excerpt(response.body))
        family = int(str(code)[:3]) if isinstance(code, int) and code >= 10_000 else None
        # An unexplained failure may be temporary: it is retried, and raised in the end.
        kind = _BY_FAMILY.get(family, ServerError) if family else ServerError
    if kind is None:
        return error_for(API, response, code, message)
    return status_error(kind, API, response, code, message, _HINTS.get(kind))


_HINTS: dict[type[StatusError], str] = {
    Unauthorized: "Check the API key, and that base_url is the platform which issued it"
}
