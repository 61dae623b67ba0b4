"""Rules that the answers of both APIs share.

Sources:
    [http] RFC 9110, "HTTP Semantics"
    [json] RFC 8259, "The JavaScript Object Notation (JSON) Data Interchange Format"
    [limits] limits of the APIs, https://developer.clevertap.com/docs/api-request-limit
    [rates] Alta's overview of rate limits, V1.5
    [cdp] "Query User CDP", also as "Benutzer-CDP abfragen" and "ユーザーCDPの照会"
    [seen] public clients, captures and tests
"""

from __future__ import annotations

import codecs
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC
from email.utils import parsedate_to_datetime
from operator import ne
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import UNSET

from ..base.json_pieces import Utf8
from ..base.jsontext import FAILURES, as_text, decode_mended, excerpt, members
from ..errors import (
    AltaProfilesError,
    BadRequest,
    DecodeError,
    Forbidden,
    RateLimited,
    RequestTimeout,
    ServerError,
    StatusError,
    Unauthorized,
)
from ..flow.slices import Slices
from ..models import RateLimit
from .messages import Response

__all__ = [
    "check_once",
    "checked",
    "decode_body",
    "error_for",
    "error_text",
    "fails_with_html",
    "is_garbled",
    "kind_of",
    "read_code",
    "read_date",
    "read_rate_limit",
    "read_retry_after",
    "status_error",
    "timed_out",
]

T = TypeVar("T")

_SLICE = 1 << 19
"""Bytes checked without a pause, which takes less than a millisecond."""


def checked(response: Response) -> Slices[Response]:
    """Return `response` with a body that is UTF-8 as a whole, without its byte-order mark.

    Every answer passes here before anything of it is read. Decoders skip the parts that nobody
    asked for, so one flipped bit in the key of a member would remove that member unseen. An error
    status keeps its meaning without the body. Proxies add byte-order marks ([seen]).

    Raises:
        DecodeError: a 2xx answer whose body is not UTF-8.
    """
    body = response.body.removeprefix(codecs.BOM_UTF8)
    utf8 = Utf8()
    for start in range(0, len(body), _SLICE):
        utf8.feed(body[start : start + _SLICE] if len(body) > _SLICE else body)
        if utf8.error is not None:
            break
        if start + _SLICE < len(body):
            yield
    utf8.end()
    if utf8.error is not None and 200 <= response.status < 300:
        raise DecodeError(utf8.error, path="$", excerpt=excerpt(body))
    is_garbled = utf8.error is not None
    if body is response.body and not is_garbled:
        return response
    return Response(response.status, response.headers, body, is_garbled)


def read_code(code: Any) -> int | str | None:
    """Return the `code` of a body, as an int if it can be read as one.

    Codes come as numbers or as text, and one is a word ([seen]).
    """
    if code is None or code is UNSET:
        return None
    if isinstance(code, float) and code.is_integer():
        return int(code)
    if isinstance(code, int) and not isinstance(code, bool):
        return code
    if isinstance(code, str) and re.fullmatch(r"\s*-?[0-9]{1,9}\s*", code):
        return int(code)
    text = as_text(code)
    return text if text is None else error_text(text)


def decode_body(
    api: str, response: Response, decoder: msgspec.json.Decoder[T], *, refused: str | None = None
) -> tuple[T, bytes | None]:
    """Return the JSON body of an answer: a value, or a failure that the API describes.

    If lone surrogates had to be mended, return the mended bytes as well, else None. Bodies without
    the API's JSON come from proxies and from connections cut short ([seen]).

    Args:
        api: "CleverTap" or "Alta".
        response: the answer.
        decoder: decodes the body.
        refused: the hint of an HTTP 401 without the API's JSON, before the nature of the body.

    Raises:
        DecodeError: a 2xx answer without the API's JSON, or one whose JSON is cut short where its
            status alone says too little.
        StatusError: a redirect, or an error status without the API's JSON.
    """
    status = response.status
    if 300 <= status < 400:
        raise StatusError(
            api=api,
            status=status,
            message=_target(response.headers.get("Location", "")),
            hint="Redirects are not followed, because they would forward the credentials; "
            "check region, endpoint and base URL",
        )
    try:
        return decode_mended(decoder, b"" if response.is_garbled else response.body, "$")
    except DecodeError as error:
        if 200 <= status < 300:
            if not fails_with_html(response):
                raise
            raise DecodeError(
                "a web page instead of JSON", path="$", excerpt=error.excerpt
            ) from None
        if kind_of(status) in (StatusError, BadRequest) and _is_cut_short(response):
            # Such as that of a person who does not exist: whole, it may be no failure at all.
            raise
        hint = _nature_of(response)
        if status == 401 and refused is not None:
            hint = f"{refused}. {hint}"
        failure = error_for(api, response, None, "", hint)
        if isinstance(failure, StatusError):
            failure.excerpt = error.excerpt
        raise failure from None


def _is_cut_short(response: Response) -> bool:
    body = response.body.strip()
    return body.startswith(b"{") and not body.endswith(b"}")


def _target(location: str) -> str:
    """Return a redirect's target without its query, which may repeat that of the request."""
    place = re.split(r"[?#]", location, maxsplit=1)[0]
    return error_text(re.sub(r"//[^/]*@", "//", place))


def _nature_of(response: Response) -> str:
    if not response.body.strip():
        return "The answer has no body"
    if fails_with_html(response):
        return "The answer is a web page, not JSON: a proxy or another host may have sent it"
    return "The answer is not the API's JSON: a proxy or another host may have sent it"


def check_once(response: Response, name: str) -> None:
    """Raise `DecodeError` if an answer has a member twice, of which decoders keep the last.

    Names "should be unique", and otherwise "the behavior is unpredictable" ([json], 4.). Not for
    pages: to search their records for a name takes a tenth of the time of decoding them.

    Args:
        response: an answer that has been decoded before.
        name: the name of the member. Within other members it counts for nothing.
    """
    key = b'"%b"' % name.encode()
    if response.body.count(key) < 2:
        return
    if [sent for sent, _ in members(response.body)].count(key) > 1:
        raise DecodeError(f"expected one `{name}`", path=f"$.{name}", excerpt=response.excerpt)


def error_for(
    api: str, response: Response, code: int | str | None, message: str, hint: str | None = None
) -> AltaProfilesError:
    """Return the error for an HTTP status ([http], 15; [cdp], Status Codes)."""
    if response.status == 408:
        return timed_out()
    return status_error(kind_of(response.status), api, response, code, message, hint)


def kind_of(status: int) -> type[StatusError]:
    """Return the class of an HTTP status of 400 or more, except 408 ([http], 15; [cdp])."""
    return _BY_STATUS.get(status, ServerError if status >= 500 else StatusError)


def timed_out() -> RequestTimeout:
    """Return the error for status 408 ([http], 15.5.9)."""
    return RequestTimeout("answered with status 408: the request took too long to arrive")


def status_error(
    kind: type[StatusError],
    api: str,
    response: Response,
    code: int | str | None,
    message: str,
    hint: str | None = None,
) -> StatusError:
    """Return an error of `kind`, with the status and the `Retry-After` of `response` ([http])."""
    answer: dict[str, Any] = {
        "api": api,
        "status": response.status,
        "code": code,
        "message": message,
        "hint": hint,
        "retry_after": read_retry_after(response.headers),
    }
    if not issubclass(kind, RateLimited):
        return kind(**answer)
    stated = read_rate_limit(response.headers)
    reset = None
    if stated is not None and stated[0].remaining == 0 and stated[1] is not None:
        reset = stated[0].reset
        answer["retry_after"] = max(stated[1], answer["retry_after"] or 0.0)
    limited_by = "rate" if reset is not None else _limited_by(code, message)
    return kind(limited_by=limited_by, reset=reset, **answer)


_AT_ONCE = re.compile(
    r"concurren|simultan|parallel|at (?:once|the same time)|connections?\b", re.IGNORECASE
)
_BY_TIME = re.compile(
    r"\brpm\b|throttl|\brate\b|quota|per (?:second|minute|hour|day)", re.IGNORECASE
)


def _limited_by(code: int | str | None, message: str) -> Literal["concurrency", "rate"] | None:
    """Return which limit a refusal names.

    CleverTap's only documented limit is one of requests at once ([limits]). It throttles accounts
    for other reasons with code 1, and Alta's code for requests per minute is 40008 ([seen]).
    """
    if _AT_ONCE.search(message):
        return "concurrency"
    if code in (1, 40008) or _BY_TIME.search(message):
        return "rate"
    return None


_UNIX_TIME = 10**9  # a smaller value counts seconds from now
_DAY = 86_400.0  # seconds


def read_rate_limit(headers: Mapping[str, str]) -> tuple[RateLimit, float | None] | None:
    """Return the limit that an answer states, and the seconds until its reset ([rates]).

    Returns None if the answer states no limit.
    """
    remaining = headers.get("X-RateLimit-Remaining")
    limit = headers.get("X-RateLimit-Limit")
    if remaining is None and limit is None:
        return None
    stated = RateLimit(_count(limit), _count(remaining), None)
    reset = _number(headers.get("X-RateLimit-Reset"))
    if reset is None:
        return stated, None
    if reset < _UNIX_TIME:
        stated.reset = _server_time(headers, time.time()) + reset
        return stated, reset
    while reset >= 1000 * _UNIX_TIME:
        reset /= 1000  # milliseconds, or smaller units
    stated.reset = reset
    return stated, max(0.0, reset - _server_time(headers, reset))


# With some gateways other numbers or a policy follow: `100, 100;w=60` or `100;w=60`.
_NUMBER = re.compile(r"\s*([0-9]{1,20}(?:\.[0-9]{1,20})?)\s*(?:[,;].*)?")


def _number(text: str | None) -> float | None:
    match = _NUMBER.fullmatch(text or "")
    return None if match is None else float(match[1])


def _count(text: str | None) -> int | None:
    number = _number(text)
    return None if number is None else int(number)


def _server_time(headers: Mapping[str, str], until: float) -> float:
    """Return the Unix time of the server, to measure how far away `until` is, a time of its own.

    It is the `Date` of the answer, because our clock may be wrong. A `Date` far from both is that
    of a cache.
    """
    ours = time.time()
    sent = _unix_time(headers.get("Date"))
    if sent is None or min(abs(sent - ours), abs(sent - until)) > _DAY:
        return ours
    return sent


def read_date(headers: Mapping[str, str]) -> float | None:
    """Return the Unix time at which the service has sent an answer, or None ([http], 6.6.1).

    One that a cache has kept says nothing of the present time.
    """
    return None if "Age" in headers else _unix_time(headers.get("Date"))


def _unix_time(date: str | None) -> float | None:
    try:
        parsed = parsedate_to_datetime(date or "")
        # Without a zone it is in UTC ([http], 5.6.7).
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def is_garbled(name: str, own: str) -> bool:
    """Return whether `name` is `own` with one character changed, as by a flipped bit ([seen])."""
    return len(name) == len(own) and sum(map(ne, name, own)) == 1


def fails_with_html(response: Response) -> bool:
    """Return True if the body is a web page: of a proxy or another host, not of an API ([seen])."""
    return response.body[:100].removeprefix(codecs.BOM_UTF8).lstrip()[:1] == b"<"


_BY_STATUS: dict[int, type[StatusError]] = {
    400: BadRequest,
    401: Unauthorized,
    403: Forbidden,
    429: RateLimited,
}


def read_retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds in `Retry-After`, in either of its forms, or None ([http], 10.2.3)."""
    value = headers.get("Retry-After")
    if value is None:
        return None
    seconds = _number(value)
    if seconds is not None:
        return seconds
    until = _unix_time(value)
    return None if until is None else max(0.0, until - _server_time(headers, until))


_LONGEST = 500  # characters of an error text


def error_text(message: Any) -> str:
    """Return the error text of a body. It comes as text, as a list, or not at all ([seen]).

    The text may hold a list as JSON ([seen]); the result is the words in it.
    """
    if message is None:
        return ""
    words = _words(message)
    if words is not None:
        message = "; ".join(words)
    if not isinstance(message, str):
        try:
            message = msgspec.json.encode(message).decode()
        except RecursionError:
            return "an error message that is nested too deeply"
    return message if len(message) <= _LONGEST else f"{message[:_LONGEST]}…"


_LEVELS = 5  # lists and texts within each other


def _words(message: Any, levels: int = _LEVELS) -> list[str] | None:
    """Return the texts in a text or a list, or None if it holds anything else."""
    if isinstance(message, str):
        if levels and message.lstrip()[:1] in ("[", '"'):
            # The second form undoes the escapes of a text that has lost the quotes around it.
            for text in (message, f'"{message}"'):
                with suppress(*FAILURES):
                    inner = _words(msgspec.json.decode(text), levels - 1)
                    if inner is not None and inner != [message]:
                        return inner
        return [message]
    if not isinstance(message, list) or not levels:
        return None
    found = [_words(one, levels - 1) for one in message]
    return None if None in found else [word for words in found for word in words or ()]
