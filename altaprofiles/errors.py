"""Every exception that this library raises on purpose. Nothing here does I/O.

::

    AltaProfilesError
    ├── ConfigurationError        an argument or the set-up is invalid (also a ValueError)
    │   ├── InvalidArgument       an argument of the caller is invalid
    │   ├── MissingCredentials    there are no credentials for a service, or they are unreadable
    │   ├── MissingExtra          an optional package is not installed
    │   └── SessionClosed         the session is not open, or no longer
    ├── TransportError            no complete HTTP answer arrived
    │   ├── ConnectError          no connection to the host could be made (a ConnectionError)
    │   ├── RequestTimeout        a time limit expired (a TimeoutError)
    │   └── ResponseTooLarge      the body exceeds `max_response_bytes`
    ├── StatusError               the service answered with an error
    │   ├── BadRequest            400, "Incorrect Usage": the request is invalid
    │   ├── Unauthorized          401: wrong credentials, region or platform
    │   ├── Forbidden             403: a permission is missing, or the agent or plan refuses
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

All of them can be pickled, and none contains a credential. No message contains a key, a cell, a
value of a record or of a filter: these are customers' data, and are attributes if at all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar, Literal, Required, TypedDict, Unpack

from .redaction import harmless

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
    "InvalidArgument",
    "MissingCredentials",
    "MissingExtra",
    "NotReady",
    "PlanMismatch",
    "RateLimited",
    "RequestTimeout",
    "ResponseTooLarge",
    "ServerError",
    "SessionClosed",
    "StatusError",
    "TransportError",
    "Unauthorized",
]


def _restore(
    cls: type[AltaProfilesError], args: tuple[Any, ...], state: dict[str, Any]
) -> AltaProfilesError:
    error = cls.__new__(cls, *args)
    # Those that are an `OSError` as well leave this to their constructor.
    error.args = args
    error.__dict__.update(state)
    return error


class AltaProfilesError(Exception):
    """Base class of every error of this library.

    >>> try:
    ...     person = await session.profiles.get(identity="5555555555")
    ... except AltaProfilesError as error:
    ...     print(f"lookup failed: {error}")

    Attributes:
        service: "CleverTap" or "Alta", the service that the call is for. Every error of a call has
            it, that of an argument as well. It is None for what concerns neither service, such as
            an argument of `Session` or an unknown `by`, or neither alone, such as `who_is` without
            a key.
        operation: the call of the service, as in `Attempt.operation`; None as for `service`. It is
            "get_page" for a chain, an export or a sync as a whole.
    """

    service: str | None = None
    operation: str | None = None

    # The attributes with text from outside, such as the words of a service.
    _foreign: ClassVar[tuple[str, ...]] = ()

    # Keyword-only constructors do not survive the default reduction, which replays `args` alone.
    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.args, self.__dict__.copy())

    def locate(self, service: str, operation: str) -> None:
        """Name the service and the call that failed."""
        self.service = service
        self.operation = operation

    def redact(self, mask: Callable[[str], str]) -> None:
        """Apply `mask` to every text of this error that came from outside.

        A service or a proxy may echo the credentials or the key of the request in its answer. The
        words of this library are never changed, whatever the secret.
        """
        if self._foreign:
            for name in self._foreign:
                setattr(self, name, _masked(getattr(self, name), mask))
            self.args = (self._text(),)

    def _text(self) -> str:
        """Return the message, made of the attributes."""
        return str(self)


_DIGITS_OF_A_CODE = 4


def _masked(value: Any, mask: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return mask(value)
    # A passcode of digits can be echoed as the code. Short codes have a meaning, and stay.
    text = str(value)
    return "***" if len(text) > _DIGITS_OF_A_CODE and mask(text) == "***" else value


_LONGEST = 500  # characters of a text from outside in a message


def _quoting(text: str, quote: str) -> str:
    return f"{text}: {_shown(quote)}" if quote else text


def _shown(quote: str) -> str:
    # A quoted text may hold line breaks, and characters that a terminal would obey.
    escaped = harmless(quote)
    return escaped if len(escaped) <= _LONGEST else f"{escaped[: _LONGEST - 1]}…"


def _followed(text: str, sentence: str) -> str:
    """Return `text`, which may end in a full stop of its own, with a sentence behind it."""
    stop = "" if text.endswith((".", "!", "?", "…")) else "."
    return f"{text}{stop} {sentence}"


_PLAIN = (str, int, float, bool, bytes, type(None))
_DEEPEST = 20  # containers within each other, in a value that is pickled


def _is_plain(value: object, levels: int = _DEEPEST) -> bool:
    """Return whether `value` pickles and loads without any code of a caller's own type."""
    kind = type(value)
    if kind in _PLAIN:
        return True
    if levels == 0 or kind not in (list, tuple, dict):
        return False
    parts = [*value, *value.values()] if isinstance(value, dict) else value
    return all(_is_plain(part, levels - 1) for part in parts)  # type: ignore[attr-defined]


class ConfigurationError(AltaProfilesError, ValueError):
    """An argument or the set-up is invalid. Raised before the call sends a request.

    The message names the argument, the fault and the fix. It shows the value of an option, but
    never a key, a cell, or a value of a record or of a filter.

    >>> try:
    ...     await session.profiles.get(identity=" ")
    ... except ConfigurationError as error:
    ...     print(f"{error}, got {error.value!r}")
    identity: empty; pass the identifier itself, got ' '

    Attributes:
        value: the invalid key, cell, or value of a record or of a filter; None for most other
            arguments. In a pickle or a copy, text, bytes, numbers, and lists, tuples and dicts of
            these are kept. A value of another type becomes None, because it might fail to load.
    """

    def __init__(self, message: str, *, value: object = None) -> None:
        super().__init__(message)
        self.value = value

    def __reduce__(self) -> tuple[Any, ...]:
        restore, (cls, args, state) = super().__reduce__()
        if not _is_plain(self.value):
            state["value"] = None
        return restore, (cls, args, state)


class InvalidArgument(ConfigurationError):
    """An argument is invalid: the fault is the caller's, in the message with the fix.

    A web service may answer with HTTP's 4xx where all arguments of the call come from its client.
    Elsewhere the fault is its own. The message may show the value of an option, such as a path. It
    shows no key of a person and no credential.
    """


class MissingCredentials(ConfigurationError):
    """There are no credentials for a service that is asked, or they cannot be read."""


class MissingExtra(ConfigurationError):
    """A feature needs an optional package that is not installed; the message names the extra."""


class SessionClosed(ConfigurationError):
    """The session is not open, was closed, or belongs to another event loop.

    In a web service this is the service's own state, as with HTTP's 5xx, and no fault of a request.
    """


class TransportError(AltaProfilesError):
    """No complete HTTP answer arrived: the connection broke, or the data was not HTTP.

    Attributes:
        detail: the text from outside that ends the message, such as an invalid status line; empty
            if there is none.
    """

    _foreign = ("detail",)

    def __init__(self, message: str, *, detail: str = "") -> None:
        self.detail = detail
        self._own = message
        super().__init__(self._text())

    def locate(self, service: str, operation: str) -> None:
        super().locate(service, operation)
        self.args = (self._text(),)

    def _text(self) -> str:
        text = _quoting(self._own, self.detail)
        return text if self.service is None else f"{self.service}: {text}"


class ConnectError(TransportError, ConnectionError):
    """No connection to the host could be made. It is a `ConnectionError` as well.

    Attributes:
        untrusted: True if the host's TLS certificate was refused.
        permanent: True if another attempt would fail in the same way: the certificate was refused,
            the two sides cannot agree on TLS, or the proxy refuses the connection. Such an error is
            not retried.
    """

    def __init__(
        self,
        message: str,
        *,
        detail: str = "",
        untrusted: bool = False,
        permanent: bool = False,
    ) -> None:
        super().__init__(message, detail=detail)
        self.untrusted = untrusted
        self.permanent = permanent or untrusted


class RequestTimeout(TransportError, TimeoutError):
    """A time limit expired: `Timeout` for one attempt, or the deadline of the whole call.

    It is a `TimeoutError` as well.
    """


class ResponseTooLarge(TransportError):
    """The decompressed body exceeds the session's `max_response_bytes`. Never retried.

    In an export, one record exceeds it, or a body that is far larger than the bytes that arrive.

    Attributes:
        limit: `max_response_bytes`.
    """

    def __init__(self, message: str, *, limit: int) -> None:
        super().__init__(message)
        self.limit = limit


class _Answer(TypedDict, total=False):
    """The arguments of `StatusError`."""

    api: Required[str]
    status: Required[int]
    code: int | str | None
    message: str
    hint: str | None
    retry_after: float | None
    excerpt: str


class StatusError(AltaProfilesError):
    """The service answered with an error. Such an answer can have any HTTP status, even 200.

    Attributes:
        api: the same as `service`.
        status: the HTTP status.
        code: the code in the body, as an int if it reads as one; None if there is none.
        message: the service's own message, or the target of a redirect; empty if there is none.
            Credentials and the key that was sent are masked in it.
        hint: advice on a fix, or None.
        retry_after: the wait that the service asks for, in seconds, or None.
        excerpt: the first characters of a body without the API's JSON, else empty. It is not part
            of the error's text, because it may hold people's data.
    """

    _foreign = ("code", "message", "excerpt")

    def __init__(
        self,
        *,
        api: str,
        status: int,
        code: int | str | None = None,
        message: str = "",
        hint: str | None = None,
        retry_after: float | None = None,
        excerpt: str = "",
    ) -> None:
        self.api = self.service = api
        self.status = status
        self.code = code
        self.message = message
        self.hint = hint
        self.retry_after = retry_after
        self.excerpt = excerpt
        super().__init__(self._text())

    def advise(self, hint: str) -> None:
        """Put `hint` before the present one."""
        self.hint = _followed(hint, self.hint) if self.hint else hint
        self.args = (self._text(),)

    def _text(self) -> str:
        code = "" if self.code is None else f" (code {_shown(str(self.code))})"
        text = _quoting(f"{self.api} answered HTTP {self.status}{code}", self.message)
        return _followed(text, self.hint) if self.hint else text


class BadRequest(StatusError):
    """The request is invalid (400, "Incorrect Usage"). Never retried."""


class Unauthorized(StatusError):
    """The service refused the credentials (401). Never retried with the same ones.

    It answers in the same way to credentials of another region or platform.
    """


class Forbidden(StatusError):
    """The credentials lack a permission (403), or Alta's agent or its plan refuses. Never retried.

    Of Alta, `hint` names the next step.
    """


class RateLimited(StatusError):
    """Too many requests, at once or per minute (429, or "throttled" with any status).

    Attributes:
        limited_by: "concurrency" if the service names the number of requests at once, "rate" if it
            names a time or a plan, None if it names neither.
        retry_after: the wait that the service asks for, in seconds, or None if it asks for none. If
            `sent` is False, the seconds until the session asks the service again, at the earliest,
            or the wait that the service asks for, if that is longer; 0 or more.
        reset: Unix time, in seconds, from which the service accepts requests again, or None if it
            does not say.
        sent: False if the request was not sent, because the service refuses all of them at present
            for longer than the call can wait. `status`, `code` and `message` are then those of the
            last refusal. Before the first, `status` is 429.
    """

    def __init__(
        self,
        *,
        limited_by: Literal["concurrency", "rate"] | None = None,
        reset: float | None = None,
        sent: bool = True,
        **answer: Unpack[_Answer],
    ) -> None:
        self.limited_by = limited_by
        self.reset = reset
        self.sent = sent
        super().__init__(**answer)

    def _text(self) -> str:
        text = super()._text()
        if not self.sent and self.reset is not None:
            text = f"{self.api} has said that no request is left at present: this one was not sent"
        elif not self.sent:
            text = f"{self.api} refuses every request at present: this one was not sent. {text}"
        if self.reset is not None:
            text = _followed(text, f"It accepts requests again at {_utc(self.reset)}")
        return text


def _utc(seconds: float) -> str:
    try:
        return f"{datetime.fromtimestamp(math.ceil(seconds), UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (OverflowError, ValueError, OSError):
        return f"{seconds:g} seconds after 1970"


class ServerError(StatusError):
    """The service failed (5xx), or reported a failure without an explanation."""


class NotReady(AltaProfilesError):
    """The service was still preparing the answer when `Retry.ready_timeout` expired.

    Attributes:
        message: the service's own message; empty if there is none.
        retry_after: the wait that the service asks for, in seconds, or None.
    """

    _foreign = ("message",)

    def __init__(self, text: str, *, message: str = "", retry_after: float | None = None) -> None:
        self.message = message
        self.retry_after = retry_after
        self._own = text
        super().__init__(self._text())

    def _text(self) -> str:
        return _quoting(self._own, self.message)


class DecodeError(AltaProfilesError):
    """A body, or a part of it, does not match the API's description.

    Attributes:
        path: the place in the JSON, such as `$.records[3].events`; `$` for the whole body.
        excerpt: the first characters found there. They are not part of the error's text, because
            they may be people's data.
        api: the same as `service`; None for a part of a record that was decoded later.
    """

    _foreign = ("excerpt",)

    def __init__(self, message: str, *, path: str, excerpt: str) -> None:
        self.path = path
        self.excerpt = excerpt
        self.api: str | None = None
        self._own = message
        super().__init__(self._text())

    def locate(self, service: str, operation: str) -> None:
        super().locate(service, operation)
        self.api = service
        self.args = (self._text(),)

    def _text(self) -> str:
        call = "" if self.api is None else f"{self.api}, {self.operation}: "
        place = "" if self.path == "$" else f" at {self.path}"
        found = "" if self.excerpt else ", got nothing"
        return f"{call}{self._own}{place}{found}"


class CursorError(AltaProfilesError):
    """A cursor chain cannot continue."""


class CursorLoop(CursorError):
    """The service sent a cursor that this chain has already used."""

    def locate(self, service: str, operation: str) -> None:
        super().locate(service, operation)
        self.args = (f"{service}: {self}",)


class CursorExpired(CursorError):
    """The service refused the cursor as too old (about 4 days). Open a new chain.

    Attributes:
        message: the service's own message, or its code; empty if there is neither.
    """

    _foreign = ("message",)

    def __init__(self, text: str, *, message: str = "") -> None:
        self.message = message
        self._own = text
        super().__init__(self._text())

    def _text(self) -> str:
        return _quoting(self._own, self.message)


class ExportError(AltaProfilesError):
    """An export cannot start or finish."""


class PlanMismatch(ExportError):
    """The earlier work in this place was started with different options.

    It is a table that another `Session.sync` keeps; or an unfinished export in the place of this
    one, which somebody has renamed, because each export has a place of its own.

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
        report: the result so far of an export: an `ExportReport`, a `LookupReport` or a
            `SyncReport`; else None.
    """

    def __init__(self, message: str, *, missing: Sequence[str], report: Any = None) -> None:
        super().__init__(message)
        self.missing = missing
        self.report = report
