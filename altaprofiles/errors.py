"""Every exception this library raises on purpose. Nothing here does I/O.

::

    AltaProfilesError
    ├── ConfigurationError        call or set-up is wrong, nothing was sent (also a ValueError)
    ├── TransportError            no complete HTTP answer arrived
    │   ├── ConnectError          no connection to the host could be made
    │   ├── RequestTimeout        a time limit ran out
    │   └── ResponseTooLarge      the body is over `max_response_bytes`
    ├── StatusError               the service answered, and the answer is an error
    │   ├── BadRequest            400, "Incorrect Usage": the request itself is wrong
    │   ├── Unauthorized          401: credentials, or the wrong region
    │   ├── Forbidden             403: these credentials may not do this
    │   ├── RateLimited           429 or "throttled"
    │   └── ServerError           5xx, or a failure the service does not explain
    ├── NotReady                  the service is still preparing the answer
    ├── DecodeError               the body is not what the API describes
    ├── CursorError               a cursor chain cannot go on
    │   ├── CursorLoop            the service repeated a cursor
    │   └── CursorExpired         the service refuses a cursor as too old
    └── ExportError               an export cannot start or finish
        ├── PlanMismatch          what is on disk was begun by another export
        ├── ExportLocked          another process works on the same output
        └── Incomplete            something is missing from the output

All of them pickle, and none holds a credential.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .redaction import harmless, masked

__all__ = [
    "AltaProfilesError",
    "BadRequest",
    "ConfigurationError",
    "ConnectError",
    "CursorError",
    "CursorExpired",
    "CursorLoop",
    "DecodeError",
    "ExportError",
    "ExportLocked",
    "Forbidden",
    "Incomplete",
    "NotReady",
    "PlanMismatch",
    "RateLimited",
    "RequestTimeout",
    "ResponseTooLarge",
    "ServerError",
    "StatusError",
    "TransportError",
    "Unauthorized",
]


def _restore(
    cls: type[AltaProfilesError], args: tuple[Any, ...], state: dict[str, Any]
) -> AltaProfilesError:
    error = cls.__new__(cls, *args)
    error.__dict__.update(state)
    return error


class AltaProfilesError(Exception):
    """Base of every error of this library: catch it to catch them all."""

    # Keyword-only constructors do not survive the default reduction, which replays `args` alone.
    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.args, self.__dict__.copy())

    def redact(self, secret: str) -> None:
        """Replace `secret` in every text of this error.

        A service or a proxy may echo the request's headers in what it answers.
        """
        self.args = tuple(masked(value, secret) for value in self.args)
        for name, value in self.__dict__.items():
            self.__dict__[name] = masked(value, secret)


class ConfigurationError(AltaProfilesError, ValueError):
    """The call or the set-up is wrong. Raised before any request is sent."""


class TransportError(AltaProfilesError):
    """No complete HTTP answer arrived: the connection broke, or what came was not HTTP."""


class ConnectError(TransportError):
    """No connection to the host could be made.

    Attributes:
        untrusted: the host's TLS certificate was refused, which no retry can mend.
    """

    def __init__(self, message: str, *, untrusted: bool = False) -> None:
        super().__init__(message)
        self.untrusted = untrusted


class RequestTimeout(TransportError):
    """A time limit ran out: connect, read or total of one attempt, or the call's deadline."""


class ResponseTooLarge(TransportError):
    """The body, decompressed, is over the session's `max_response_bytes`. Never retried.

    Attributes:
        limit: the bound, in bytes.
    """

    def __init__(self, message: str, *, limit: int) -> None:
        super().__init__(message)
        self.limit = limit


class StatusError(AltaProfilesError):
    """The service answered, and the answer is an error. The HTTP status alone does not tell: an
    error can come with status 200.

    Attributes:
        api: "CleverTap" or "Alta".
        status: the HTTP status.
        code: the code in the body, an int wherever it reads as one; None without.
        message: the service's own words, empty without.
        hint: what to try, or None.
        retry_after: seconds the service asks to wait, or None.
    """

    def __init__(
        self,
        *,
        api: str,
        status: int,
        code: int | str | None = None,
        message: str = "",
        hint: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        # Somebody else's words: no line of their own, and nothing that a terminal would obey.
        said = f": {harmless(message)}" if message else ""
        coded = "" if code is None else f" (code {code})"
        advice = f". {hint}" if hint else ""
        super().__init__(f"{api} answered HTTP {status}{coded}{said}{advice}")
        self.api = api
        self.status = status
        self.code = code
        self.message = message
        self.hint = hint
        self.retry_after = retry_after


class BadRequest(StatusError):
    """The request itself is wrong (400, "Incorrect Usage"). Never retried."""


class Unauthorized(StatusError):
    """The credentials are refused (401). A wrong region looks the same. Never retried."""


class Forbidden(StatusError):
    """These credentials may not do this (403). Never retried."""


class RateLimited(StatusError):
    """Too many requests at once or in a minute (429, or "throttled" under any status)."""


class ServerError(StatusError):
    """The service failed (5xx), or answered a failure that it does not explain."""


class NotReady(AltaProfilesError):
    """The service is still preparing the answer, and `Retry.ready_timeout` has run out.

    Attributes:
        retry_after: seconds the service asks to wait, or None.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class DecodeError(AltaProfilesError):
    """A body, or a part of it, is not what the API describes.

    Attributes:
        path: where in the JSON, such as `$.records[3].events`; `$` for the whole.
        excerpt: the first characters of what stood there.
    """

    def __init__(self, message: str, *, path: str, excerpt: str) -> None:
        shown = f", got {excerpt!r}" if excerpt else ", got nothing"
        super().__init__(f"{message} at {path}{shown}")
        self.path = path
        self.excerpt = excerpt


class CursorError(AltaProfilesError):
    """A cursor chain cannot go on."""


class CursorLoop(CursorError):
    """The service answered with a cursor that this chain has already used."""


class CursorExpired(CursorError):
    """The service refuses the cursor as too old (about 4 days). Open a new chain."""


class ExportError(AltaProfilesError):
    """An export cannot start or finish."""


class PlanMismatch(ExportError):
    """What is on disk was begun by another export.

    Attributes:
        differences: what differs: its name to what it was then and what it is now.
    """

    def __init__(self, message: str, *, differences: Mapping[str, tuple[Any, Any]]) -> None:
        super().__init__(message)
        self.differences = differences


class ExportLocked(ExportError):
    """Another process, or another task of this one, works on the same output."""


class Incomplete(ExportError):
    """Something is missing from the output. The same call goes on where it was.

    Attributes:
        missing: what is missing, a sentence for each part.
        report: what there is: an `ExportReport` or a `LookupReport`.
    """

    def __init__(self, message: str, *, missing: Sequence[str], report: Any) -> None:
        super().__init__(message)
        self.missing = missing
        self.report = report
