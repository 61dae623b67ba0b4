"""Traces and metrics of OpenTelemetry, for `Session(on_event=…)`.

Names and attributes are those of the stable HTTP conventions
(https://opentelemetry.io/docs/specs/semconv/http/). No attribute has a cursor, a key of a person, a
filter or a credential: the query of an address is left out.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary, WeakMethod

from ._version import __version__
from .base.extras import require
from .errors import NotReady, RateLimited, StatusError
from .http.hooks import Observer
from .models import Attempt

if TYPE_CHECKING:
    from pathlib import Path

    from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider, Observation
    from opentelemetry.trace import TracerProvider

    from .http.service import Load

__all__ = ["Hook", "hook"]

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
"""Boundaries of buckets that the conventions name for `http.client.request.duration`."""


def hook(
    tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None
) -> Hook:
    """Return a hook that makes a span and a measurement of each request, and measures the slots.

    A span is a child of the one in which the call was made: for chains, exports and bulk lookups,
    of the one in which they are read or awaited. A request that is cancelled has a span as well,
    with the `error.type` "CancelledError". An answer that a page or count is not ready yet is an
    error only if the library gives up. Metrics:

    - `http.client.request.duration`, a histogram in seconds, without the wait for a slot;
    - `altaprofiles.slot.wait`, a histogram in seconds of that wait, of calls that ended in it too;
    - `altaprofiles.retries` and `altaprofiles.refusals`, counters;
    - `altaprofiles.slots.used`, `altaprofiles.slots.limit` and `altaprofiles.callers.waiting`,
      sums over all open sessions with a hook of this meter provider. A hook of a view
      (`with_options`) measures its requests only. With `shared`, the limit of an account counts
      once in a process, and each process reports the same one. `used` is that of a process. So the
      load of the account is the sum of `used` over the processes, divided by the largest `limit`.

    Args:
        tracer_provider, meter_provider: by default the global ones.

    Raises:
        MissingExtra: the extra `otel` is not installed.

    >>> import altaprofiles.otel
    >>> session = Session.from_env(on_event=altaprofiles.otel.hook())
    """
    require("otel", what="altaprofiles.otel.hook")
    from opentelemetry import metrics, trace

    name = "altaprofiles"
    meters = meter_provider or metrics.get_meter_provider()
    meter = meters.get_meter(name, __version__)
    return Hook(
        (tracer_provider or trace.get_tracer_provider()).get_tracer(name, __version__),
        meter,
        _slots_of(meters, meter, is_global=meters is metrics.get_meter_provider()),
    )


class Hook(Observer):
    """The result of `hook`: called with each `Attempt`."""

    def __init__(self, tracer: Any, meter: Any, slots: _Slots) -> None:
        from opentelemetry.trace import SpanKind, Status, StatusCode

        self._tracer = tracer
        self._slots = slots
        self._kind = SpanKind.CLIENT
        self._failed: Callable[[str | None], Any] = lambda text: Status(StatusCode.ERROR, text)
        self._targets: dict[tuple[str, str], dict[str, Any]] = {}
        self._duration = meter.create_histogram(
            "http.client.request.duration",
            unit="s",
            description="Duration of HTTP client requests.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._wait = meter.create_histogram(
            "altaprofiles.slot.wait",
            unit="s",
            description="Wait for a slot, and until the service may be asked.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._retries = meter.create_counter(
            "altaprofiles.retries", unit="{retry}", description="Attempts that follow another."
        )
        self._refusals = meter.create_counter(
            "altaprofiles.refusals", unit="{refusal}", description="Refusals for a rate limit."
        )

    def watch(self, load: Callable[[], Sequence[Load]]) -> None:
        """Measure the slots of a session too; a session with this hook calls it."""
        self._slots.add(load)

    def __call__(self, attempt: Attempt) -> None:
        error = attempt.error
        if isinstance(error, RateLimited):
            self._refusals.add(1, {"altaprofiles.service": attempt.api})
        if not attempt.sent:
            self._wait.record(attempt.waited, {"altaprofiles.service": attempt.api})
            return
        is_poll = isinstance(error, NotReady) and attempt.delay is not None
        if attempt.delay is not None and not is_poll:
            self._retries.add(1, {"altaprofiles.service": attempt.api})
        self._record(attempt, None if error is None or is_poll else _kind_of(attempt))

    def __repr__(self) -> str:
        return f"<altaprofiles.otel.hook(), sessions={self._slots.sessions}>"

    def interrupted(self, attempt: Attempt, error: BaseException) -> None:
        """Record a request that an exception, such as a cancellation, has cut off."""
        self._record(attempt, type(error).__name__)

    def _record(self, attempt: Attempt, kind: str | None) -> None:
        target = self._targets.get((attempt.method, attempt.url)) or self._target(attempt)
        attributes = {**target}
        if attempt.status is not None:
            attributes["http.response.status_code"] = attempt.status
        if kind is not None:
            attributes["error.type"] = kind
        self._duration.record(attempt.seconds, attributes)
        self._wait.record(attempt.waited, {"altaprofiles.service": attempt.api})
        end = time.time_ns()
        # Another dict, because the SDK keeps the one of a measurement.
        attributes = {
            **attributes,
            "url.full": attempt.url,
            "altaprofiles.service": attempt.api,
            "altaprofiles.operation": attempt.operation,
            "altaprofiles.call": attempt.call,
            "altaprofiles.bulk": attempt.bulk,
            "altaprofiles.slot.wait": attempt.waited,
            # The name in the conventions is for the size before decompression.
            "altaprofiles.response.size": attempt.bytes,
        }
        if attempt.number > 1:
            attributes["http.request.resend_count"] = attempt.number - 1
        span = self._tracer.start_span(
            f"{attempt.method} {target['url.template']}",
            kind=self._kind,
            start_time=end - int(attempt.seconds * 1e9),
            attributes=attributes,
        )
        if kind is not None:
            # Without the error's text, in which a service may quote its request. By the
            # conventions, a status of HTTP needs none.
            span.set_status(self._failed(None if kind.isdecimal() else kind))
        span.end(end)

    def _target(self, attempt: Attempt) -> dict[str, Any]:
        """Return the attributes that all requests of one kind to one service have."""
        target: dict[str, Any] = {
            "http.request.method": attempt.method,
            "server.address": attempt.host,
            "server.port": attempt.port,
            "url.template": urlsplit(attempt.url).path,
        }
        self._targets[attempt.method, attempt.url] = target
        return target


class _Slots:
    """The slots of all sessions with a hook of one meter provider, which takes each metric once."""

    def __init__(self, meter: Meter) -> None:
        # Weak: a session lives no longer because of this.
        self._loads: set[WeakMethod[Callable[[], Sequence[Load]]]] = set()
        for name, unit, description, part in (
            ("slots.used", "{slot}", "Requests in flight.", "used"),
            ("slots.limit", "{slot}", "Most requests in flight, at present.", "limit"),
            ("callers.waiting", "{caller}", "Callers that wait for a slot.", "waiting"),
        ):
            meter.create_observable_up_down_counter(
                f"altaprofiles.{name}",
                [self._observing(part)],
                unit=unit,
                description=description,
            )

    @property
    def sessions(self) -> int:
        return len(self._loads)

    def add(self, load: Callable[[], Sequence[Load]]) -> None:
        self._loads.add(WeakMethod(load, self._loads.discard))

    def _observing(self, part: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
        from opentelemetry.metrics import Observation

        def observe(_: CallbackOptions) -> Iterable[Observation]:
            sums: dict[str, int] = {}
            counted: set[Path] = set()
            # A copy, because readers run in threads of their own.
            for reference in self._loads.copy():
                for one in load() if (load := reference()) is not None else ():
                    if part == "limit" and one.shared is not None:
                        # These slots are there once, however many sessions use them.
                        if one.shared in counted:
                            continue
                        counted.add(one.shared)
                    sums[one.service] = sums.get(one.service, 0) + getattr(one, part)
            for service, value in sums.items():
                yield Observation(value, {"altaprofiles.service": service})

        return observe


def _kind_of(attempt: Attempt) -> str:
    """Return the status of an HTTP error, as the conventions have it, else the kind of error."""
    if isinstance(attempt.error, StatusError) and (attempt.status or 0) >= 400:
        return str(attempt.status)
    return type(attempt.error).__name__


class _Global:
    """Stands for the global meter provider, which may be set after hooks of it were made."""


_GLOBAL = _Global()
_known: WeakKeyDictionary[Any, _Slots] = WeakKeyDictionary()
_lock = threading.Lock()


def _slots_of(provider: MeterProvider, meter: Meter, *, is_global: bool) -> _Slots:
    """Return the one `_Slots` of a meter provider."""
    with _lock:
        slots = _known.get(provider) or (_known.get(_GLOBAL) if is_global else None)
        slots = slots or _Slots(meter)
        _known[provider] = slots
        if is_global:
            _known[_GLOBAL] = slots
        return slots


def __dir__() -> list[str]:
    return __all__
