"""The rules of Alta's (GPTBots') "Query User CDP". Pure functions.

[cdp] cites the vendor's page of that name; facts from public clients and sibling calls are marked
[seen].
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from ..base.checks import check_key
from ..base.jsontext import as_text, decode_json, excerpt
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
from .reading import decode_body, error_for, read_code, shown, status_error

__all__ = ["By", "auth_headers", "get_user_cdp", "read_users"]

API = "Alta"

By: TypeAlias = Literal["user_id", "anonymous_id"]
"""What CDP users can be looked up by."""


def auth_headers(token: str) -> dict[str, str]:
    """Return the headers of every request ([cdp], Request Headers)."""
    return {"Authorization": f"Bearer {token}"}


def get_user_cdp(*, user_id: object = None, anonymous_id: object = None) -> Request:
    """Ask what is bound to a user, to an anonymous ID, or whether the pair is ([cdp]).

    Raises:
        ConfigurationError: neither is given, or one is no identifier.
    """
    given = {
        name: value
        for name, value in (("user_id", user_id), ("anonymous_id", anonymous_id))
        if value is not None
    }
    if not given:
        raise ConfigurationError("user_id, anonymous_id: both are missing; pass at least one")
    asked = "&".join(parameter(name, check_key(name, value)) for name, value in given.items())
    return Request("get_user_cdp", "GET", f"/v1/user/get-user-cdp?{asked}")


class _Bound(Struct, gc=False):
    anonymous_id: Any
    conversation_type: Any = None
    source_id: Any = None


class _User(Struct, gc=False):
    user_id: Any = None
    anonymous_ids: list[_Bound] | None = None


class _Body(Struct, gc=False):
    code: Any = UNSET
    message: Any = None
    data: msgspec.Raw | UnsetType = UNSET


_BODY = msgspec.json.Decoder(_Body)
_DATA = msgspec.json.Decoder(
    dict[str, _User | None] | Annotated[list[Any], Meta(max_length=0)] | None
)

_NOT_FOUND = (503, 504)


def read_users(response: Response) -> dict[str, CdpUser]:
    """Return user ID to user, in the order sent; empty when nothing is bound.

    Nothing bound comes as an empty `data`, as null, or without `data`. A sibling call says it with
    the *body* codes 503 and 504, which are no HTTP statuses [seen].
    """
    body, _ = decode_body(API, response, _BODY)
    code, words = read_code(body.code), shown(body.message)
    if code in _NOT_FOUND and response.status in (200, 400, 404):
        return {}
    if not 200 <= response.status < 300 or code != 0:
        raise _failure(response, code, words)
    if body.data is UNSET:
        return {}
    users = decode_json(_DATA, body.data, "$.data")
    # An empty object may come as an empty array.
    return {key: _user(key, user) for key, user in users.items()} if isinstance(users, dict) else {}


def _user(key: str, user: _User | None) -> CdpUser:
    bound = (user.anonymous_ids if user else None) or ()
    return CdpUser(
        user_id=(as_text(user.user_id) if user else None) or key,
        anonymous_ids=[
            AnonymousId(
                anonymous_id=anonymous_id,
                conversation_type=as_text(one.conversation_type),
                source_id=as_text(one.source_id),
            )
            for one in bound
            if (anonymous_id := as_text(one.anonymous_id))
        ],
    )


_BY_CODE: dict[int, type[StatusError]] = {
    40000: BadRequest,
    40008: RateLimited,  # requests per minute exceeded
    40127: Unauthorized,
    50000: ServerError,
}
_BY_FAMILY: dict[int, type[StatusError]] = {
    400: BadRequest,
    401: Unauthorized,
    403: Forbidden,
    429: RateLimited,
}


def _failure(response: Response, code: int | str | None, words: str) -> AltaProfilesError:
    """Return what an answer that is no success stands for.

    Error codes can come with HTTP 200 [seen]. A code of five digits begins with the HTTP status of
    its family.
    """
    status = response.status
    kind = _BY_CODE.get(code) if isinstance(code, int) else None
    if kind is None and status < 300:
        if code is None and not words:
            return DecodeError("expected a `code`", path="$", excerpt=excerpt(response.body))
        family = code // 100 if isinstance(code, int) and code >= 10_000 else None
        # A failure that nothing explains may pass: it is asked again and, in the end, raised.
        kind = _BY_FAMILY.get(family, ServerError) if family else ServerError
    if kind is None:
        return error_for(API, response, code, words)
    return status_error(kind, API, response, code, words, _HINTS.get(kind))


_HINTS: dict[type[StatusError], str] = {
    Unauthorized: "Check the API key, and that base_url is the platform that issued it"
}
