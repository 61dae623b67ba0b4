"""HTTP requests and responses as plain values, and what both APIs' answers have in common."""

from __future__ import annotations

import codecs
import math
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET

from ..base.jsontext import as_text, decode_mended
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
from .messages import Response

__all__ = ["decode_body", "error_for", "read_code"]

T = TypeVar("T")


def read_code(code: Any) -> int | str | None:
    """Return a body's `code`, as an int wherever it reads as one: it may come as a string."""
    if code is None or code is UNSET:
        return None
    if isinstance(code, float) and code.is_integer():
        return int(code)
    if isinstance(code, int) and not isinstance(code, bool):
        return code
    if isinstance(code, str) and re.fullmatch(r"\s*-?[0-9]{1,9}\s*", code):
        return int(code)
    return as_text(code)


def decode_body(
    api: str, response: Response, decoder: msgspec.json.Decoder[T]
) -> tuple[T, bytes | None]:
    """Return the JSON body of an answer, be it a value or a failure in the API's own words.

    Beside it stand the bytes it was really decoded from, where lone surrogates had to be mended.

    Raises:
        DecodeError: a 2xx answer whose body is not the API's JSON: cut short, garbled, a proxy's.
        StatusError: a redirect, or an error status without the API's JSON.
    """
    status = response.status
    if 300 <= status < 400:
        where = response.headers.get("Location", "no location")
        raise StatusError(
            api=api,
            status=status,
            message=f"a redirect to {where}",
            hint="Redirects are not followed, as they would carry the credentials along; "
            "check region and base_url",
        )
    try:
        return decode_mended(decoder, response.body, "$")
    except DecodeError as error:
        if 200 <= status < 300:
            raise
        raise error_for(
            api, response, None, f"no JSON ({error.excerpt!r})" if error.excerpt else "no body"
        ) from None


def error_for(
    api: str, response: Response, code: int | str | None, message: str, hint: str | None = None
) -> AltaProfilesError:
    """Return the error for an HTTP status, whatever the body says."""
    status = response.status
    if status == 408:
        return RequestTimeout(f"{api} answered HTTP 408: it waited too long for the request")
    kind = _BY_STATUS.get(status, ServerError if status >= 500 else StatusError)
    return status_error(kind, api, response, code, message, hint)


def status_error(
    kind: type[StatusError],
    api: str,
    response: Response,
    code: int | str | None,
    message: str,
    hint: str | None = None,
) -> StatusError:
    """Return an error of `kind` with what `response` says about waiting."""
    return kind(
        api=api,
        status=response.status,
        code=code,
        message=message,
        hint=hint,
        retry_after=read_retry_after(response.headers),
    )


def fails_with_html(response: Response) -> bool:
    """Whether the body is a web page: a proxy or the wrong host, never one of the two APIs."""
    return response.body[:100].removeprefix(codecs.BOM_UTF8).lstrip()[:1] == b"<"


_BY_STATUS: dict[int, type[StatusError]] = {
    400: BadRequest,
    401: Unauthorized,
    403: Forbidden,
    429: RateLimited,
}


def read_retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that `Retry-After` asks for, in either of its forms, or None."""
    value = headers.get("Retry-After")
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            # Measured on the server's own clock, as ours may be off.
            until = parsedate_to_datetime(value) - parsedate_to_datetime(headers["Date"])
            seconds = until.total_seconds()
        except (ValueError, KeyError, TypeError, OverflowError):
            return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None


_LONGEST = 500


def shown(message: Any) -> str:
    """Return a body's error text: it may be a string, a list of strings, or missing."""
    if message is None:
        return ""
    if isinstance(message, list) and all(isinstance(part, str) for part in message):
        message = "; ".join(message)
    if not isinstance(message, str):
        try:
            message = msgspec.json.encode(message).decode()
        except RecursionError:
            return "an error nested too deeply to be shown"
    return message if len(message) <= _LONGEST else f"{message[:_LONGEST]}…"
