"""The rules of CleverTap's "Get User Profiles" and of its profile counts. Pure functions.

Sources:
    [profiles] "Get User Profiles", https://developer.clevertap.com/docs/get-user-profiles-api
    [limits] limits of the APIs, https://developer.clevertap.com/docs/api-request-limit
    [counts] "Get User Profile Counts"
    [seen] public clients, captures and tests
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, Literal, Protocol, TypeAlias, TypeVar

import msgspec
from msgspec import UNSET, Raw, UnsetType
from msgspec.structs import replace

from ..base.checks import check_key
from ..base.jsontext import elements_of, member_span, plain_text
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
from ..flow.slices import Slices, at_once
from ..models import Page, Profile
from .messages import Request, Response, parameter
from .page import (
    PAGE_BODY,
    Body,
    PageBody,
    find_cursor,
    find_records,
    other_members,
)
from .pages import Pages
from .query import CURSOR, EventQuery
from .reading import (
    check_once,
    decode_body,
    error_for,
    error_text,
    fails_with_html,
    read_code,
    read_retry_after,
    status_error,
)
from .record_list import RecordSink
from .splitter import SLICE, Splitter
from .unknown import blames_credentials, says_unknown

__all__ = [
    "API",
    "By",
    "PageReader",
    "PageSink",
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

P_co = TypeVar("P_co", covariant=True)

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
    check_once(response, "cursor")
    return _cursor(body.cursor, "$.cursor", response)


class PageSink(RecordSink, Protocol[P_co]):
    """Makes a page of its records ([profiles], Get User Profiles Using Cursor).

    Attributes:
        count: number of records.
    """

    count: int

    @property
    def is_full(self) -> bool:
        """True if `drain` must be called before more is put."""
        ...

    async def drain(self) -> None:
        """Wait until there is room for more."""
        ...

    def close(self) -> None:
        """Free what is held, unless a page was made of it."""
        ...

    def page(self, cursor: str, next_cursor: str | None, window: tuple[int, int] | None) -> P_co:
        """Return the page, once all of it has been read.

        Raises:
            DecodeError: a record is not an object.
        """
        ...


class PageReader(Generic[P_co]):
    """Reads the page of `cursor` while it arrives ([profiles], Get User Profiles Using Cursor).

    Only an absent `next_cursor` ends a chain, and only on a page without a cursor under another
    name. An empty `records` with a `next_cursor` does not, and the last page may have records or be
    `{"status": "success"}` alone ([profiles]; [seen]). Members come in any order ([seen]).

    Args:
        sink: takes the records.
        limit: most bytes of a part of the body that is held; see `Splitter`.
        cursor: the cursor of the request.
        window: as in `Page.window`.
        was_asked: whether the chain has asked for a cursor by now. Under another name than
            `next_cursor` such a cursor is an echo.
        step: bytes parsed without a pause.
        is_checked: whether the body is known to be UTF-8.
    """

    def __init__(
        self,
        sink: PageSink[P_co],
        limit: int,
        cursor: str,
        window: tuple[int, int] | None = None,
        was_asked: Callable[[str], bool] = lambda cursor: False,
        step: int = SLICE,
        *,
        is_checked: bool = False,
    ) -> None:
        self._sink = sink
        self._splitter = Splitter(sink, limit, step, is_checked=is_checked)
        self._cursor = cursor
        self._window = window
        self._was_asked = was_asked

    def feed(self, piece: bytes) -> Iterable[None]:
        """Take the next piece of the body of an answer with HTTP status 200.

        Raises:
            ResponseTooLarge: a part of the body that has to be held is over the limit.
        """
        return self._splitter.feed(piece)

    @property
    def size(self) -> int:
        """Length of the body so far."""
        return self._splitter.size

    @property
    def is_full(self) -> bool:
        """True if the sink must be drained."""
        return self._sink.is_full

    async def drain(self) -> None:
        """Wait until the sink has room for more."""
        await self._sink.drain()

    def close(self) -> None:
        """Free what the sink holds."""
        self._sink.close()

    def read(self, response: Response) -> Slices[P_co]:
        """Return the page.

        Args:
            response: the answer. Its body is the part of the body that was not fed.

        Raises:
            AltaProfilesError: the answer is a failure, or cannot be decoded.
        """
        response, body = yield from self._body(response)
        _raise_for_failure(response, body)
        others = {}
        if body.next_cursor is UNSET or body.records is UNSET:
            others = other_members(response.body, "records")
        if body.records is UNSET and (path := (yield from find_records(others))) is not None:
            # Taken for an empty page, it would cost the people that it holds.
            raise DecodeError("expected `records`", path=path, excerpt=response.excerpt)
        if body.next_cursor is not UNSET:
            following: str | None = _cursor(body.next_cursor, "$.next_cursor", response)
        else:
            following = yield from find_cursor(others, self._cursor, self._was_asked)
            if following is None and response.status == 202 and not self._sink.count:
                raise _not_ready(response, "HTTP 202, the page is still being prepared")
        return self._sink.page(self._cursor, following, self._window)

    def _body(self, response: Response) -> Slices[tuple[Response, PageBody]]:
        """Return the answer without the records that were taken, and its members."""
        found: PageBody | None = None
        if response.status == 200:
            for start in range(0, len(response.body), SLICE):
                yield from self._splitter.feed(response.body[start : start + SLICE])
            rest, found = yield from self._splitter.end()
            response = replace(response, body=rest, beginning=self._splitter.beginning)
            if found is not None and self._splitter.is_apart:
                return response, found
        body, mended = (
            (found, None)
            if found is not None
            else decode_body(API, response, PAGE_BODY, refused=_REFUSED)
        )
        yield
        records = body.records or []
        if mended is not None and records:
            records = elements_of(response.body, mended, "records")
        yield from self._sink.put(records, response.body, whole=True)
        return response, body


def read_page(
    response: Response,
    cursor: str,
    window: tuple[int, int] | None = None,
    *,
    was_asked: Callable[[str], bool] = lambda cursor: False,
    decode: bool = True,
) -> Slices[Page]:
    """Return the page of `cursor`, all of whose body has arrived ([profiles]); see `PageReader`.

    Args:
        response: the answer, as `reading.checked` returns it.
        cursor, window, was_asked: as for `PageReader`.
        decode: whether to decode the profiles as well.

    Raises:
        AltaProfilesError: the answer is a failure, or cannot be decoded.
    """
    body = response.body
    pages = Pages(decode=decode, raw=body)
    reader = PageReader(pages, len(body), cursor, window, was_asked, is_checked=True)
    return (yield from reader.read(response))


def read_profile(response: Response) -> Profile | None:
    """Return the person, or None if there is none ([profiles], Download User Profiles by ID).

    No page documents the answer if there is none. All of these mean it: HTTP 404, `record` null or
    missing, and a failure whose message says that there is no such profile, whatever its code
    ([seen]). The words of another failure count even with HTTP 404. A person under another name
    than `record` is an error, not none.

    Raises:
        AltaProfilesError: the answer is any other failure, or cannot be decoded.
    """
    if response.status == 404 and _is_bare(response):
        text = error_text(response.body.decode(errors="replace").strip())
        if _names_failure(text):
            raise _failure(response, None, text)
        return None
    body, mended = decode_body(API, response, _RECORD_BODY, refused=_REFUSED)
    if not _has_status(response, body, "success") and _says_unknown_person(response, body):
        return None
    _raise_for_failure(response, body)
    check_once(response, "record")
    if body.record is UNSET or bytes(body.record) == b"null":
        path = at_once(find_records(other_members(response.body, "record")))
        if path is not None:
            raise DecodeError("expected `record`", path=path, excerpt=response.excerpt)
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
    check_once(response, "count")
    count = body.count
    if isinstance(count, float) and count.is_integer():
        count = int(count)
    if isinstance(count, bool) or not isinstance(count, int) or count < 0:
        raise DecodeError("expected a count", path="$.count", excerpt=response.excerpt)
    return count


def _cursor(value: object, path: str, response: Response) -> str:
    if not isinstance(value, str) or not CURSOR.fullmatch(value):
        raise DecodeError("expected a cursor", path=path, excerpt=response.excerpt)
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


def _is_bare(response: Response) -> bool:
    """Return True if a body is neither a web page, as of a proxy, nor JSON."""
    return not fails_with_html(response) and response.body.lstrip()[:1] not in (b"{", b"[")


# Codes that add nothing to the words of a body.
_PLAIN_CODES = (None, 0, 400, 404)
_BARE_WORDS = re.compile(r"\s*not found\W*", re.IGNORECASE)


def _says_unknown_person(response: Response, body: Body) -> bool:
    code, message = read_code(body.code), error_text(body.error or body.message)
    if not (200 <= response.status < 300 or response.status in (400, 404)):
        return False
    if code in _PLAIN_CODES:
        if response.status == 404:
            # JSON without a `status` comes from a gateway that does not know the path.
            return isinstance(body.status, str) and not _names_failure(message)
        return says_unknown(message) or bool(_BARE_WORDS.fullmatch(message))
    if code in (401, 403) and "profile" not in message.lower():
        # The user of the API, who is not known or not allowed.
        return False
    # The words outrank any other code, unless both name the same failure.
    is_confirmed = _code_of(message) in (code, 1 if code == 429 else code)
    return says_unknown(message) and not is_confirmed


def _names_failure(message: str) -> bool:
    """Return whether a message with HTTP 404 names a failure, and not a person who is unknown."""
    is_failure = _code_of(message) is not None or blames_credentials(message)
    return is_failure and not says_unknown(message, quotes_anything=True)


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
        raise DecodeError("expected `success`", path="$.status", excerpt=response.excerpt)
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
