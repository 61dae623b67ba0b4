"""The rules of CleverTap's "Get User Profiles" and of its profile counts. Pure functions.

Sources:
    [profiles] "Get User Profiles", https://developer.clevertap.com/docs/get-user-profiles-api
    [limits] limits of the APIs, https://developer.clevertap.com/docs/api-request-limit
    [counts] "Get User Profile Counts"
    [seen] public clients, captures and tests
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Raw, UnsetType

from ..base.checks import check_key
from ..base.jsontext import elements_of, excerpt, member_span, plain_text
from ..errors import (
    AltaProfilesError,
    BadRequest,
    CursorExpired,
    DecodeError,
    Forbidden,
    NotReady,
    RateLimited,
    ServerError,
    Unauthorized,
)
from ..flow.slices import Pace, Slices, at_once
from ..models import Page, Profile
from .messages import Request, Response, parameter
from .page import (
    PAGE_BODY,
    SLICE,
    Body,
    PageBody,
    find_cursor,
    find_records,
    other_members,
    take_apart,
)
from .query import CURSOR, EventQuery
from .reading import (
    decode_body,
    error_for,
    error_text,
    fails_with_html,
    read_code,
    read_retry_after,
    status_error,
)

__all__ = [
    "API",
    "By",
    "auth_headers",
    "count",
    "get_page",
    "get_profile",
    "open_chain",
    "poll_count",
    "read_count",
    "read_count_started",
    "read_cursor",
    "read_page",
    "read_profile",
]

API = "CleverTap"

By: TypeAlias = Literal["identity", "email", "object_id"]
"""The keys by which a profile can be looked up ([profiles], Download User Profiles by ID)."""


def auth_headers(account_id: str, passcode: str) -> dict[str, str]:
    """Return the headers of every request ([profiles], Authentication)."""
    return {
        "X-CleverTap-Account-Id": account_id,
        "X-CleverTap-Passcode": passcode,
        "Content-Type": "application/json",
    }


# ----------------------------------------------------------------------------------------- requests


def open_chain(query: EventQuery) -> Request:
    """Request the first cursor of a chain ([profiles], Get Cursor).

    The flags are sent with this request only, because the cursor carries them ([seen]).
    """
    flags = "".join(
        f"&{name}={'true' if value else 'false'}"
        for name, value, default in (
            ("app", query.app, False),
            ("events", query.summaries, True),
            ("profile", query.profile, True),
        )
        if value is not default
    )
    target = f"/1/profiles.json?batch_size={query.batch_size}{flags}"
    return Request("open_chain", "POST", target, _body(query))


def get_page(cursor: str, query: bytes = b"") -> Request:
    """Request the page of `cursor` ([profiles], Get User Profiles Using Cursor).

    The cursor arrives percent-encoded, and is sent byte for byte as received. If it is encoded a
    second time, the service answers "Incorrect Usage" ([seen]).

    Args:
        cursor: the cursor.
        query: as in `Request.query`.
    """
    return Request("get_page", "GET", f"/1/profiles.json?cursor={cursor}", query=query)


_PARAMETER: Mapping[str, str] = {
    "identity": "identity",
    "email": "email",
    "object_id": "objectId",
}


def get_profile(by: str, value: object) -> Request:
    """Request one person ([profiles], Download User Profiles by ID).

    Raises:
        ConfigurationError: `value` is not an identifier.
    """
    target = f"/1/profile.json?{parameter(_PARAMETER[by], check_key(by, value))}"
    return Request("get_profile", "GET", target)


def count(query: EventQuery) -> Request:
    """Request the number of people that a chain would return ([counts])."""
    return Request("count", "POST", "/1/counts/profiles.json", _body(query))


def poll_count(req_id: str, query: bytes = b"") -> Request:
    """Request a count that was not ready at once ([counts], partial responses).

    Args:
        req_id: the ID of the count.
        query: as in `Request.query`.
    """
    target = f"/1/counts/profiles.json?{parameter('req_id', req_id)}"
    return Request("count", "GET", target, query=query)


def _body(query: EventQuery) -> bytes:
    return msgspec.json.encode(query.members)


# ------------------------------------------------------------------------------------------ answers


class _CursorBody(Body, gc=False):
    cursor: Any = UNSET


class _RecordBody(Body, gc=False):
    record: Raw | UnsetType = UNSET


class _CountBody(Body, gc=False):
    count: Any = UNSET
    req_id: Raw = Raw(b"null")


_CURSOR_BODY = msgspec.json.Decoder(_CursorBody)
_RECORD_BODY = msgspec.json.Decoder(_RecordBody)
_COUNT_BODY = msgspec.json.Decoder(_CountBody)


def read_cursor(response: Response) -> str:
    """Return the first cursor of a chain ([profiles], Get Cursor).

    Raises:
        AltaProfilesError: the answer is a failure, or cannot be decoded.
    """
    body, _ = decode_body(API, response, _CURSOR_BODY, refused=_REFUSED)
    _raise_for_failure(response, body)
    return _cursor(body.cursor, "$.cursor", response)


def read_page(
    response: Response,
    cursor: str,
    window: tuple[int, int] | None = None,
    *,
    was_asked: Callable[[str], bool] = lambda cursor: False,
    decode: bool = True,
) -> Slices[Page]:
    """Return the page of `cursor` ([profiles], Get User Profiles Using Cursor).

    Only an absent `next_cursor` ends a chain, and only on a page without a cursor under another
    name. An empty `records` with a `next_cursor` does not, and the last page may have records or be
    `{"status": "success"}` alone ([profiles]; [seen]). Members come in any order ([seen]).

    Args:
        response: the answer.
        cursor: the cursor of the request.
        window: as in `Page.window`.
        was_asked: whether the chain has asked for a cursor by now. Under another name than
            `next_cursor` such a cursor is an echo.
        decode: whether to decode the profiles as well.

    Raises:
        AltaProfilesError: the answer is a failure, or cannot be decoded.
    """
    body = yield from _page_body(response)
    _raise_for_failure(response, body)
    records = [] if body.records is UNSET else body.records or []
    others = {}
    if body.next_cursor is UNSET or body.records is UNSET:
        others = other_members(response.body, "records") if body.others is None else body.others
    if body.records is UNSET and (path := (yield from find_records(others))) is not None:
        # Taken for an empty page, it would cost the people that it holds.
        raise DecodeError("expected `records`", path=path, excerpt=excerpt(response.body))
    if body.next_cursor is not UNSET:
        following: str | None = _cursor(body.next_cursor, "$.next_cursor", response)
    else:
        following = yield from find_cursor(others, cursor, was_asked)
        if following is None and response.status == 202 and not records:
            raise _not_ready(response, "HTTP 202, the page is still being prepared")
    if decode:
        profiles = yield from _profiles(records)
        return Page.of(profiles, response.body, cursor, following, window)
    for number, record in enumerate(records):
        # A record that is passed on undecoded must fail here, where the page can be retried.
        if memoryview(record)[0] != _BRACE:
            raise DecodeError(
                "Expected `object`", path=f"$.records[{number}]", excerpt=excerpt(bytes(record))
            )
    return Page(records, response.body, cursor, following, window)


_BRACE = ord("{")


_EACH = 2048  # bytes that take as long to decode as the fixed cost of one record


def _profiles(records: Sequence[Raw]) -> Slices[list[Profile]]:
    profiles: list[Profile] = []
    undivided = 0
    pace = Pace()
    for record in map(bytes, records):
        try:
            profiles.append(Profile.decode(record))
        except DecodeError:
            # Again with its path, which is left out at first because it costs a tenth more.
            profiles.append(Profile.decode(record, f"$.records[{len(profiles)}]"))
        undivided += _EACH + len(record)
        if undivided >= SLICE or pace.is_over():
            yield
            undivided = 0
            pace.restart()
    return profiles


def _page_body(response: Response) -> Slices[PageBody]:
    if response.status == 200:
        apart = yield from take_apart(response.body)
        if apart is not None:
            return apart
    body, mended = decode_body(API, response, PAGE_BODY, refused=_REFUSED)
    yield
    if mended is not None and body.records:
        body.records = elements_of(response.body, mended, "records")
    return body


def read_profile(response: Response) -> Profile | None:
    """Return the person, or None if there is none ([profiles], Download User Profiles by ID).

    No page documents the answer if there is none. All of these mean it: HTTP 404, `record` null or
    missing, and a failure whose message says that there is no such profile ([seen]). The words of
    another failure count even with HTTP 404. A person under
    another name than `record` is an error, not none.

    Raises:
        AltaProfilesError: the answer is any other failure, or cannot be decoded.
    """
    if response.status == 404 and _is_bare(response):
        text = response.body.decode(errors="replace")
        if _names_failure(text):
            raise _failure(response, None, error_text(text))
        return None
    body, mended = decode_body(API, response, _RECORD_BODY, refused=_REFUSED)
    if not _has_status(response, body, "success") and _says_unknown_person(response, body):
        return None
    _raise_for_failure(response, body)
    if body.record is UNSET or bytes(body.record) == b"null":
        path = at_once(find_records(other_members(response.body, "record")))
        if path is not None:
            raise DecodeError("expected `record`", path=path, excerpt=excerpt(response.body))
        return None
    if mended is None:
        return Profile.decode(body.record, "$.record")
    start, end = member_span(mended, "record")
    return Profile.decode(response.body[start:end], "$.record")


def read_count_started(response: Response) -> int | str:
    """Return the count, or the `req_id` to poll it with ([counts], partial responses).

    Raises:
        AltaProfilesError: the answer is a failure, or cannot be decoded.
    """
    body, _ = decode_body(API, response, _COUNT_BODY, refused=_REFUSED)
    if _has_status(response, body, "partial") and (req_id := _req_id(body.req_id)):
        return req_id
    return _count(response, body)


_NUMBER_OR_TEXT = re.compile(rb'[-0-9"]')


def _req_id(sent: Raw) -> str:
    """Return the ID of a count, which is text or a number of any notation; else "" ([seen])."""
    data = bytes(sent)
    text = plain_text(data, whole=True) if _NUMBER_OR_TEXT.match(data) else None
    return (text or "").strip()


def read_count(response: Response) -> int:
    """Return the count that was polled ([counts], partial responses).

    Raises:
        NotReady: the service is still counting.
        AltaProfilesError: the answer is a failure, or cannot be decoded.
    """
    body, _ = decode_body(API, response, _COUNT_BODY, refused=_REFUSED)
    if _has_status(response, body, "partial"):
        raise _not_ready(response, "it is still counting")
    return _count(response, body)


def _count(response: Response, body: _CountBody) -> int:
    _raise_for_failure(response, body)
    count = body.count
    if isinstance(count, float) and count.is_integer():
        count = int(count)
    if isinstance(count, bool) or not isinstance(count, int) or count < 0:
        raise DecodeError("expected a count", path="$.count", excerpt=excerpt(response.body))
    return count


def _cursor(value: object, path: str, response: Response) -> str:
    if not isinstance(value, str) or not CURSOR.fullmatch(value):
        raise DecodeError("expected a cursor", path=path, excerpt=excerpt(response.body))
    return value


def _has_status(response: Response, body: Body, status: str) -> bool:
    """Return whether a status other than "fail" can be believed: with HTTP 2xx and without a code.

    A proxy or a failing service may add an error status to any body ([seen]).
    """
    return (
        200 <= response.status < 300
        and body.status == status
        and read_code(body.code) in (None, 0, 200)
    )


# Messages for "not found", which is not documented: seen ones, and likely ones [seen].
_UNKNOWN_PERSON = re.compile(
    r"\b(?:profile|user|record)s?(?: \S+){0,3}? (?:not (?:be )?found\b|(?:not|\S+n't) exist)"
    r"|\b(?:no|unknown) (?:such |matching )?(?:profile|user|record)s?\b"
    r"(?=\W*$| (?:found|exists?|with|for|match\w*|was|is)\b)"
    r"|^not found\W*$",
    re.IGNORECASE,
)


def _is_bare(response: Response) -> bool:
    """Return True if a body is neither a web page, as of a proxy, nor JSON."""
    return not fails_with_html(response) and response.body.lstrip()[:1] not in (b"{", b"[")


def _says_unknown_person(response: Response, body: Body) -> bool:
    if read_code(body.code) not in (None, 404, 400):
        return False
    message = error_text(body.error or body.message)
    if response.status == 404:
        # JSON without a `status` comes from a gateway that does not know the path.
        return isinstance(body.status, str) and not _names_failure(message)
    return response.status in (200, 400) and bool(_UNKNOWN_PERSON.search(message))


def _names_failure(message: str) -> bool:
    """Return whether a message names a failure, and not a person who is unknown."""
    return _code_of(message) is not None and not _UNKNOWN_PERSON.search(message)


def _raise_for_failure(response: Response, body: Body) -> None:
    """Raise the error of an answer that is not a success.

    Failures often come with HTTP 200, and their code as a number or as text ([seen]). The code
    decides the error. The message decides only if there is no code, because it may quote the
    caller: an event can be called "Too Many Requests".
    """
    if _has_status(response, body, "success"):
        return
    code, message = read_code(body.code), error_text(body.error or body.message)
    if 200 <= response.status < 300 and body.status != "fail" and code is None and not message:
        raise DecodeError("expected `success`", path="$.status", excerpt=excerpt(response.body))
    raise _failure(response, code, message)


def _failure(response: Response, code: int | str | None, message: str) -> AltaProfilesError:
    """Return the error for an HTTP status and a code ([seen]; [limits] for HTTP 429)."""
    status = response.status
    # A code of 404 only repeats an HTTP status, and says less than the words.
    meaning = _code_of(message) if code in (None, 404) else code
    if isinstance(meaning, int) and 4000 <= meaning < 5000:
        # Invalid dates, filters and the like. The HTTP status says less than such a code.
        return status_error(BadRequest, API, response, code, message)
    if isinstance(meaning, int) and 500 <= meaning < 600:
        return status_error(ServerError, API, response, code, message)
    if 401 in (status, meaning):
        return status_error(Unauthorized, API, response, code, message, _REFUSED)
    if 403 in (status, meaning):
        return status_error(Forbidden, API, response, code, message)
    if meaning == 2:
        return _not_ready(response, "the answer is still being prepared", message)
    if meaning in (1, 429) or status == 429:
        return status_error(RateLimited, API, response, code, message)
    if "CURSOR" in str(meaning):
        return CursorExpired(
            f"cursors live about 4 days: open a new chain, without `cursor=`, as {API} refuses "
            f"this one as expired",
            message=message or str(code),
        )
    if meaning == 3:
        hint = "Pass the cursor byte for byte as it was received"
        return status_error(BadRequest, API, response, code, message, hint)
    if meaning == 400:
        return status_error(BadRequest, API, response, code, message)
    if status < 300:
        # An unexplained failure is never taken for the end of a chain: it is retried, and raised in
        # the end.
        return status_error(ServerError, API, response, code, message)
    return error_for(API, response, code, message)


_REFUSED = "Check account ID and passcode; a wrong region gives the same answer"

# Messages and the code that goes with each [seen].
_CODES: tuple[tuple[str, int | str], ...] = (
    (r"invalid credentials", 401),
    (r"still in progress", 2),
    (r"throttl|too many (?:concurrent )?requests", 1),
    (r"incorrect usage", 3),
    (r"cursor\b.* (?:expired|invalidated)", "CURSOR_INVALIDATED"),
)


def _code_of(message: str) -> int | str | None:
    """Return the code that goes with a message."""
    for pattern, code in _CODES:
        if re.search(pattern, message, re.IGNORECASE):
            return code
    return None


def _not_ready(response: Response, reason: str, message: str = "") -> NotReady:
    retry_after = read_retry_after(response.headers)
    return NotReady(f"{API}: {reason}", message=message, retry_after=retry_after)
