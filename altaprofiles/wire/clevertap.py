"""The rules of CleverTap's "Get User Profiles" and of its profile counts. Pure functions.

Facts are cited by the vendor's page: [profiles] is "Get User Profiles", [counts] "Get User Profile
Counts", [limits] "API limits". Facts from public clients and captures are marked [seen].
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Raw, UnsetType

from ..base.checks import check_key
from ..base.jsontext import check_utf8, element_spans, excerpt, member_span
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
from ..flow.slices import Slices
from ..models import Page, Profile
from .messages import Request, Response, parameter
from .page import PAGE_BODY, SLICE, Body, PageBody, peek_next_cursor, take_apart
from .query import CURSOR, EventQuery
from .reading import (
    decode_body,
    error_for,
    fails_with_html,
    read_code,
    read_retry_after,
    shown,
    status_error,
)

__all__ = [
    "By",
    "auth_headers",
    "count",
    "get_page",
    "get_profile",
    "open_chain",
    "peek_next_cursor",
    "poll_count",
    "read_count",
    "read_count_started",
    "read_cursor",
    "read_page",
    "read_profile",
]

API = "CleverTap"

By: TypeAlias = Literal["identity", "email", "object_id"]
"""What a profile can be looked up by."""


def auth_headers(account_id: str, passcode: str) -> dict[str, str]:
    """Return the headers of every request ([profiles], Authentication)."""
    return {
        "X-CleverTap-Account-Id": account_id,
        "X-CleverTap-Passcode": passcode,
        "Content-Type": "application/json",
    }


# ----------------------------------------------------------------------------------------- requests


def open_chain(query: EventQuery) -> Request:
    """Ask for the first cursor of a chain ([profiles], Get Cursor).

    The flags belong to this request only: the cursor carries them on [seen].
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


def get_page(cursor: str) -> Request:
    """Ask for the page of `cursor` ([profiles], Get User Profiles Using Cursor).

    The cursor arrives percent-encoded. Encoded once more, the service answers "Incorrect Usage".
    """
    return Request("get_page", "GET", f"/1/profiles.json?cursor={cursor}")


_PARAMETER: Mapping[str, str] = {
    "identity": "identity",
    "email": "email",
    "object_id": "objectId",
}


def get_profile(by: str, value: object) -> Request:
    """Ask for one person ([profiles], Download User Profiles by ID).

    Raises:
        ConfigurationError: `value` is no identifier.
    """
    target = f"/1/profile.json?{parameter(_PARAMETER[by], check_key(by, value))}"
    return Request("get_profile", "GET", target)


def count(query: EventQuery) -> Request:
    """Ask how many people a chain would bring ([counts])."""
    return Request("count", "POST", "/1/counts/profiles.json", _body(query))


def poll_count(req_id: str) -> Request:
    """Ask for a count that was not ready at once ([counts], partial responses)."""
    return Request("count", "GET", f"/1/counts/profiles.json?{parameter('req_id', req_id)}")


def _body(query: EventQuery) -> bytes:
    return msgspec.json.encode({"event_name": query.event, "from": query.start, "to": query.end})


# ------------------------------------------------------------------------------------------ answers


class _CursorBody(Body, gc=False):
    cursor: Any = UNSET


class _RecordBody(Body, gc=False):
    record: Raw | UnsetType = UNSET


class _CountBody(Body, gc=False):
    count: Any = UNSET
    req_id: Any = UNSET


_CURSOR_BODY = msgspec.json.Decoder(_CursorBody)
_RECORD_BODY = msgspec.json.Decoder(_RecordBody)
_COUNT_BODY = msgspec.json.Decoder(_CountBody)


def read_cursor(response: Response) -> str:
    """Return the first cursor of a chain."""
    body, _ = decode_body(API, response, _CURSOR_BODY)
    _raise_for_failure(response, body)
    return _cursor(body.cursor, "$.cursor", response)


def read_page(
    response: Response, cursor: str, window: tuple[int, int] | None = None, *, decode: bool = True
) -> Slices[Page]:
    """Return the page that `cursor` asked for, of the chain over `window`.

    Only an absent `next_cursor` ends a chain: an empty `records` beside one does not, and the last
    answer may hold records or be `{"status": "success"}` alone ([profiles]; [seen]). The keys come
    in any order [seen].

    Args:
        response: the answer.
        cursor: what asked for it.
        window: as in `Page.window`.
        decode: whether to decode its profiles, too.
    """
    body = yield from _page_body(response, decode)
    _raise_for_failure(response, body)
    found = [] if body.records is UNSET else body.records or []
    if body.next_cursor is UNSET:
        if response.status == 202 and not found:
            raise _not_ready(response, "HTTP 202, the page is still being prepared")
        following = None
    else:
        following = _cursor(body.next_cursor, "$.next_cursor", response)
    if decode:
        profiles = yield from _profiles(found)
        return Page.of(profiles, response.body, cursor, following, window)
    for number, record in enumerate(found):
        # What is passed on unread must not turn out to be no person when it is too late to ask.
        if memoryview(record)[0] != _BRACE:
            raise DecodeError(
                "Expected `object`", path=f"$.records[{number}]", excerpt=excerpt(bytes(record))
            )
    return Page(found, response.body, cursor, following, window)


_BRACE = ord("{")


_EACH = 2048  # what a record costs before its first byte


def _profiles(records: Sequence[Raw]) -> Slices[list[Profile]]:
    profiles: list[Profile] = []
    undivided = 0
    for record in records:
        try:
            profiles.append(Profile.decode(record))
        except DecodeError:
            # Again, now saying where: to name the place of every record costs a tenth on top.
            profiles.append(Profile.decode(record, f"$.records[{len(profiles)}]"))
        undivided += _EACH + len(memoryview(record))
        if undivided >= SLICE:
            undivided = 0
            yield
    return profiles


def _page_body(response: Response, decode: bool) -> Slices[PageBody]:
    if response.status == 200:
        apart = yield from take_apart(response.body)
        if apart is not None:
            return apart
    body, mended = decode_body(API, response, PAGE_BODY)
    yield
    if not decode:
        # The decoder steps over the records, and does not look at their text.
        check_utf8(response.body, "$")
    if mended is not None and body.records:
        start, end = member_span(mended, "records")
        sent = response.body[start:end]
        body.records = [Raw(sent[first:last]) for first, last in element_spans(mended[start:end])]
    return body


def read_profile(response: Response) -> Profile | None:
    """Return the person asked for, or None when the service knows none.

    The vendor does not say what "not found" looks like. Seen or likely, and all read as None: HTTP
    404, `record` null, `record` missing, and a failure whose words say that there is no profile.
    """
    if response.status == 404 and _is_bare(response):
        return None
    body, mended = decode_body(API, response, _RECORD_BODY)
    if not _succeeded(response, body) and _says_unknown_person(response, body):
        return None
    _raise_for_failure(response, body)
    if body.record is UNSET or bytes(body.record) == b"null":
        return None
    if mended is None:
        return Profile.decode(body.record, "$.record")
    start, end = member_span(mended, "record")
    return Profile.decode(response.body[start:end], "$.record")


def read_count_started(response: Response) -> int | str:
    """Return the count, or the `req_id` under which it can be polled."""
    body, _ = decode_body(API, response, _COUNT_BODY)
    if body.status == "partial" and isinstance(body.req_id, str | int):
        return str(body.req_id)
    return _count(response, body)


def read_count(response: Response) -> int:
    """Return the count that was polled for.

    Raises:
        NotReady: the service is still counting.
    """
    body, _ = decode_body(API, response, _COUNT_BODY)
    if body.status == "partial":
        raise _not_ready(response, "it is still counting")
    return _count(response, body)


def _count(response: Response, body: _CountBody) -> int:
    _raise_for_failure(response, body)
    if isinstance(body.count, bool) or not isinstance(body.count, int):
        raise DecodeError("expected `int`", path="$.count", excerpt=excerpt(response.body))
    return body.count


def _cursor(value: object, path: str, response: Response) -> str:
    if not isinstance(value, str) or not CURSOR.fullmatch(value):
        raise DecodeError("expected a cursor", path=path, excerpt=excerpt(response.body))
    return value


def _succeeded(response: Response, body: Body) -> bool:
    return (
        200 <= response.status < 300
        and body.status == "success"
        and read_code(body.code) in (None, 0, 200)
    )


_UNKNOWN_PERSON = re.compile(
    r"\b(?:profile|user|record)s?(?: \S+){0,3}? (?:not (?:be )?found\b|(?:not|\S+n't) exist)"
    r"|\b(?:no|unknown) (?:such |matching )?(?:profile|user|record)s?\b"
    r"(?=\W*$| (?:found|exists?|with|for|match\w*|was|is)\b)"
    r"|^not found\W*$",
    re.IGNORECASE,
)


def _is_bare(response: Response) -> bool:
    """Whether a body says nothing: neither a web page of a proxy nor JSON of whomever."""
    return not fails_with_html(response) and response.body.lstrip()[:1] not in (b"{", b"[")


def _says_unknown_person(response: Response, body: Body) -> bool:
    code = read_code(body.code)
    if response.status == 404:
        # JSON without a `status` is a gateway's, which does not know the path.
        return isinstance(body.status, str) and code in (None, 404, 400)
    return (
        response.status in (200, 400)
        and code in (None, 404, 400)
        and bool(_UNKNOWN_PERSON.search(shown(body.error or body.message)))
    )


def _raise_for_failure(response: Response, body: Body) -> None:
    """Raise what an answer that is no success stands for.

    Failures often come with HTTP 200, and their code as an int or a string [seen]. What tells them
    apart is the code. The words only do without one, as they may quote what the caller sent: an
    event may be called "Too Many Requests".
    """
    if _succeeded(response, body):
        return
    code, words = read_code(body.code), shown(body.error or body.message)
    if 200 <= response.status < 300 and body.status != "fail" and code is None and not words:
        raise DecodeError("expected `success`", path="$.status", excerpt=excerpt(response.body))
    raise _failure(response, code, words)


def _failure(response: Response, code: int | str | None, words: str) -> AltaProfilesError:
    status = response.status
    meant = _code_of(words) if code is None else code
    if 401 in (status, meant):
        hint = "Check account ID and passcode; a wrong region gives this answer, too"
        return status_error(Unauthorized, API, response, code, words, hint)
    if 403 in (status, meant):
        return status_error(Forbidden, API, response, code, words)
    if meant == 2:
        return _not_ready(response, words or "the request is still in progress")
    if meant in (1, 429) or status == 429:
        return status_error(RateLimited, API, response, code, words)
    if "CURSOR" in str(meant):
        return CursorExpired(
            f"{API} refuses the cursor as expired ({words or code}); cursors live about 4 days: "
            f"open a new chain, without `cursor=`"
        )
    if meant == 3:
        hint = "The cursor must be passed on byte for byte as it was received"
        return status_error(BadRequest, API, response, code, words, hint)
    if meant == 400:
        return status_error(BadRequest, API, response, code, words)
    if status < 300:
        # A failure the service does not explain is never taken for the end of a chain: it is asked
        # again and, in the end, raised.
        return status_error(ServerError, API, response, code, words)
    return error_for(API, response, code, words)


_CODES: tuple[tuple[str, int | str], ...] = (
    (r"invalid credentials", 401),
    (r"still in progress", 2),
    (r"throttl|too many (?:concurrent )?requests", 1),
    (r"incorrect usage", 3),
    (r"cursor\b.* (?:expired|invalidated)", "CURSOR_INVALIDATED"),
)


def _code_of(words: str) -> int | str | None:
    """Return the code that goes with the words of an answer that has none."""
    for pattern, code in _CODES:
        if re.search(pattern, words, re.IGNORECASE):
            return code
    return None


def _not_ready(response: Response, words: str) -> NotReady:
    return NotReady(f"{API}: {words}", retry_after=read_retry_after(response.headers))
