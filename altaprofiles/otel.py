"""Traces and metrics of OpenTelemetry, for `Session(on_event=…)`.

Names and attributes are those of the stable HTTP conventions
(https://opentelemetry.io/docs/specs/semconv/http/). No attribute has a cursor, a key of a person, a
filter or a credential: the query of an address is left out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakMethod

from ._version import __version__
from .base.extras import require
from .errors import NotReady, RateLimited, StatusError
from .models import Attempt

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
    from opentelemetry.trace import TracerProvider

    from .http.service import Load

__all__ = ["Hook", "hook"]

_PATHS = {
    "open_chain": "/1/profiles.json",
    "get_page": "/1/profiles.json",
    "get_profile": "/1/profile.json",
    "count": "/1/counts/profiles.json",
    "get_user_cdp": "/v1/user/get-user-cdp",
    "verify_key": "/v1/api-key/verify",
}

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
"""Boundaries of buckets that the conventions name for `http.client.request.duration`."""


def hook(
    tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None
) -> Hook:
    """Return a hook that makes a span and a measurement of each request, and measures the slots.

    A span is a child of the one in which the call was made; those of chains, exports and bulk
    lookups belong to the one in which the session was opened. Metrics:

    - `http.client.request.duration`, a histogram in seconds, without the wait for a slot;
    - `altaprofiles.slot.wait`, a histogram in seconds of that wait;
    - `altaprofiles.retries` and `altaprofiles.refusals`, counters;
    - `altaprofiles.slots.used`, `altaprofiles.slots.limit` and `altaprofiles.callers.waiting`,
      gauges, for each session that has this hook, together.

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
    return Hook(
        (tracer_provider or trace.get_tracer_provider()).get_tracer(name, __version__),
        (meter_provider or metrics.get_meter_provider()).get_meter(name, __version__),
    )


class Hook:
    """The result of `hook`: called with each `Attempt`."""

    def __init__(self, tracer: Any, meter: Any) -> None:
        from opentelemetry.trace import SpanKind, Status, StatusCode

        self._tracer = tracer
        self._kind = SpanKind.CLIENT
        self._failed: Callable[[str], Any] = lambda kind: Status(StatusCode.ERROR, kind)
        self._loads: list[Callable[[], Callable[[], Sequence[Load]] | None]] = []
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
        for name, unit, description, part in (
            ("slots.used", "{slot}", "Requests in flight.", "used"),
            ("slots.limit", "{slot}", "Most requests in flight, at present.", "limit"),
            ("callers.waiting", "{caller}", "Callers that wait for a slot.", "waiting"),
        ):
            meter.create_observable_gauge(
                f"altaprofiles.{name}",
                [self._observing(part)],
                unit=unit,
                description=description,
            )

    def watch(self, load: Callable[[], Sequence[Load]]) -> None:
        """Measure the slots of a session too; a session with this hook calls it."""
        self._loads.append(WeakMethod(load))  # a session lives no longer because of this

    def __call__(self, attempt: Attempt) -> None:
        attributes: dict[str, Any] = {
            "http.request.method": attempt.method,
            "server.address": attempt.host,
            "server.port": attempt.port,
            "url.template": _PATHS[attempt.operation],
        }
        if attempt.status is not None:
            attributes["http.response.status_code"] = attempt.status
        error = attempt.error
        if error is not None:
            attributes["error.type"] = _kind_of(attempt)
        is_sent = not (isinstance(error, RateLimited) and not error.sent)
        if is_sent:
            self._duration.record(attempt.seconds, attributes)
            self._wait.record(attempt.waited, {"altaprofiles.service": attempt.api})
        if attempt.delay is not None and not isinstance(error, NotReady):
            self._retries.add(1, {"altaprofiles.service": attempt.api})
        if isinstance(error, RateLimited):
            self._refusals.add(1, {"altaprofiles.service": attempt.api})
        if is_sent:
            self._trace(attempt, attributes)

    def __repr__(self) -> str:
        sessions = sum(load() is not None for load in self._loads)
        return f"<altaprofiles.otel.hook(), sessions={sessions}>"

    def _trace(self, attempt: Attempt, attributes: dict[str, Any]) -> None:
        end = time.time_ns()
        span = self._tracer.start_span(
            f"{attempt.method} {attributes['url.template']}",
            kind=self._kind,
            start_time=end - int(attempt.seconds * 1e9),
            attributes={
                **attributes,
                "url.full": _address(attempt),
                "altaprofiles.service": attempt.api,
                "altaprofiles.operation": attempt.operation,
                "altaprofiles.call": attempt.call,
                "altaprofiles.bulk": attempt.bulk,
                "altaprofiles.slot.wait": attempt.waited,
                "http.response.body.size": attempt.bytes,
            },
        )
        if attempt.number > 1:
            span.set_attribute("http.request.resend_count", attempt.number - 1)
        if attempt.error is not None:
            # Without the error's text, in which a service may quote its request.
            span.set_status(self._failed(attributes["error.type"]))
        span.end(end)

    def _observing(self, part: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
        from opentelemetry.metrics import Observation

        def observe(_: CallbackOptions) -> Iterable[Observation]:
            sums: dict[str, int] = {}
            for reference in [*self._loads]:
                load: Callable[[], Sequence[Load]] | None = reference()
                if load is None:
                    self._loads.remove(reference)
                    continue
                for one in load():
                    sums[one.service] = sums.get(one.service, 0) + getattr(one, part)
            for service, value in sums.items():
                yield Observation(value, {"altaprofiles.service": service})

        return observe


def _kind_of(attempt: Attempt) -> str:
    """Return the status of an HTTP error, as the conventions have it, else the kind of error."""
    if isinstance(attempt.error, StatusError) and (attempt.status or 0) >= 400:
        return str(attempt.status)
    return type(attempt.error).__name__


def _address(attempt: Attempt) -> str:
    """Return the address of a request, without its query."""
    # Nothing but this machine is asked without TLS.
    is_local = attempt.host in ("localhost", "::1") or attempt.host.startswith("127.")
    scheme = "http" if is_local and attempt.port != 443 else "https"
    host = f"[{attempt.host}]" if ":" in attempt.host else attempt.host
    port = "" if attempt.port == 443 else f":{attempt.port}"
    return f"{scheme}://{host}{port}{_PATHS[attempt.operation]}"
