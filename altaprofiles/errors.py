"""Every exception that this library raises on purpose. Nothing here does I/O.

::

    AltaProfilesError
    ├── ConfigurationError        an argument or the set-up is invalid (also a ValueError)
    ├── TransportError            no complete HTTP answer arrived
    │   ├── ConnectError          no connection to the host could be made
    │   ├── RequestTimeout        a time limit expired
    │   └── ResponseTooLarge      the body exceeds `max_response_bytes`
    ├── StatusError               the service answered with an error
    │   ├── BadRequest            400, "Incorrect Usage": the request is invalid
    │   ├── Unauthorized          401: wrong credentials, or the wrong region
    │   ├── Forbidden             403: the credentials lack a permission
    │   ├── RateLimited           429 or "throttled"
    │   └── ServerError           5xx, or a failure without an explanation
    ├── NotReady                  the service is still preparing the answer
    ├── DecodeError               the body does not match the API's description
    ├── CursorError               a cursor chain cannot continue
    │   ├── CursorLoop            the service repeated a cursor
    │   └── CursorExpired         the service refuses a cursor as too old
    └── ExportError               an export cannot start or finish
        ├── PlanMismatch          the unfinished export on disk is a different one
        ├── ExportLocked          another process is writing the same output
        └── Incomplete            part of the result is missing

All of them can be pickled, and none contains a credential.
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
    """Base class of every error of this library.

    >>> try:
    ...     person = await session.profiles.get(identity="5555555555")
    ... except AltaProfilesError as error:
    ...     print(f"lookup failed: {error}")
    """

    # Keyword-only constructors do not survive the default reduction, which replays `args` alone.
    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.args, self.__dict__.copy())

    def redact(self, secret: str) -> None:
        """Replace `secret` in every text of this error.

        A service or a proxy may echo the request's headers in its answer.
        """
        self.args = tuple(masked(value, secret) for value in self.args)
        for name, value in self.__dict__.items():
            self.__dict__[name] = masked(value, secret)


class ConfigurationError(AltaProfilesError, ValueError):
    """An argument or the set-up is invalid. Raised before the call sends a request.

    The message names the argument and the fix, and the value unless it may be secret.
    """


class TransportError(AltaProfilesError):
    """No complete HTTP answer arrived: the connection broke, or the data was not HTTP."""


class ConnectError(TransportError):
    """No connection to the host could be made.

    Attributes:
        untrusted: True if the host's TLS certificate was refused. Such an error is not retried.
    """

    def __init__(self, message: str, *, untrusted: bool = False) -> None:
        super().__init__(message)
        self.untrusted = untrusted


class RequestTimeout(TransportError):
    """A time limit expired: `Timeout` for one attempt, or `Retry.deadline` for the whole call."""


class ResponseTooLarge(TransportError):
    """The decompressed body exceeds the session's `max_response_bytes`. Never retried.

    Attributes:
        limit: `max_response_bytes`.
    """

    def __init__(self, message: str, *, limit: int) -> None:
        super().__init__(message)
        self.limit = limit


class StatusError(AltaProfilesError):
    """The service answered with an error. Such an answer can have any HTTP status, even 200.

    Attributes:
        api: "CleverTap" or "Alta".
        status: the HTTP status.
        code: the code in the body, as an int if it reads as one; None if there is none.
        message: the service's own message; empty if there is none.
        hint: advice on a fix, or None.
        retry_after: the wait that the service asks for, in seconds, or None.
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
        code_text = "" if code is None else f" (code {code})"
        # The service's text may hold line breaks, and characters that a terminal would obey.
        message_text = f": {harmless(message)}" if message else ""
        hint_text = f". {hint}" if hint else ""
        super().__init__(f"{api} answered HTTP {status}{code_text}{message_text}{hint_text}")
        self.api = api
        self.status = status
        self.code = code
        self.message = message
        self.hint = hint
        self.retry_after = retry_after


class BadRequest(StatusError):
    """The request is invalid (400, "Incorrect Usage"). Never retried."""


class Unauthorized(StatusError):
    """The service refused the credentials (401), or the region is wrong. Never retried."""


class Forbidden(StatusError):
    """The credentials lack a permission (403). Never retried."""


class RateLimited(StatusError):
    """Too many requests, at once or per minute (429, or "throttled" with any status)."""


class ServerError(StatusError):
    """The service failed (5xx), or reported a failure without an explanation."""


class NotReady(AltaProfilesError):
    """The service was still preparing the answer when `Retry.ready_timeout` expired.

    Attributes:
        retry_after: the wait that the service asks for, in seconds, or None.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class DecodeError(AltaProfilesError):
    """A body, or a part of it, does not match the API's description.

    Attributes:
        path: the place in the JSON, such as `$.records[3].events`; `$` for the whole body.
        excerpt: the first characters found there.
    """

    def __init__(self, message: str, *, path: str, excerpt: str) -> None:
        found = repr(excerpt) if excerpt else "nothing"
        super().__init__(f"{message} at {path}, got {found}")
        self.path = path
        self.excerpt = excerpt


class CursorError(AltaProfilesError):
    """A cursor chain cannot continue."""


class CursorLoop(CursorError):
    """The service sent a cursor that this chain has already used."""


class CursorExpired(CursorError):
    """The service refused the cursor as too old (about 4 days). Open a new chain."""


class ExportError(AltaProfilesError):
    """An export cannot start or finish."""


class PlanMismatch(ExportError):
    """The unfinished export on disk was started with different options.

    Attributes:
        differences: the name of each such option, with its earlier and its present value.
    """

    def __init__(self, message: str, *, differences: Mapping[str, tuple[Any, Any]]) -> None:
        super().__init__(message)
        self.differences = differences


class ExportLocked(ExportError):
    """Another process, or another task of this one, is writing the same output."""


class Incomplete(ExportError):
    """Part of the result is missing.

    After an export the same call resumes it. `by_event` raises this error for a chain that the
    service ends without records although it counts some; people of other chains were yielded
    before, and a new call starts again.

    Attributes:
        missing: one sentence for each missing part.
        report: the result so far of an export: an `ExportReport` or a `LookupReport`, else None.
    """

    def __init__(self, message: str, *, missing: Sequence[str], report: Any = None) -> None:
        super().__init__(message)
        self.missing = missing
        self.report = report
