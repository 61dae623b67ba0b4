"""Hooks: how much CPU time does `on_event` add to a single call?

One process makes the same calls through views of one session, which have different hooks, in turns.
So all of them share the load of the machine, and only their differences and ratios matter. The
spans of OpenTelemetry go through its batch processor to an exporter that drops them.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from .answers import Shape
from .clients import run, session
from .measure import Contender, Run, Watch, left_out, once, present, serving
from .report import Cell, Report, Table

__all__ = ["CALLS", "NO_HOOK", "calls", "measure"]

NO_HOOK = "no hook"
_FUNCTION = "a function"
_WITHOUT_SDK = "otel.hook(), without an SDK"
_METRICS = "otel.hook(), metrics"
_BOTH = "otel.hook(), traces and metrics"


def calls(url: str, count: int, repeats: int) -> Run:
    """Call with each hook in turns; the figures are CPU microseconds a call, by hook.

    The other figures are what the hooks have counted: events, spans, and measured durations.
    """
    from opentelemetry.metrics import NoOpMeterProvider
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
    from opentelemetry.trace import NoOpTracerProvider

    import altaprofiles.otel

    class Dropping(SpanExporter):
        spans = 0

        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            self.spans += len(spans)
            return SpanExportResult.SUCCESS

    events = 0

    def count_event(attempt: object) -> None:
        nonlocal events
        events += 1

    exporter, tracers = Dropping(), TracerProvider()
    tracers.add_span_processor(BatchSpanProcessor(exporter))
    readers = [InMemoryMetricReader(), InMemoryMetricReader()]
    no_traces, hook = NoOpTracerProvider(), altaprofiles.otel.hook
    hooks: dict[str, Any] = {
        NO_HOOK: None,
        _FUNCTION: count_event,
        _WITHOUT_SDK: hook(no_traces, NoOpMeterProvider()),
        _METRICS: hook(no_traces, MeterProvider([readers[0]])),
        _BOTH: hook(tracers, MeterProvider([readers[1]])),
    }
    used: dict[str, list[float]] = {name: [] for name in hooks}

    async def main() -> Run:
        async with session(url) as ours:
            views = {name: ours.with_options(on_event=one) for name, one in hooks.items()}
            with Watch() as watch:
                # The first round does not count, because it opens connections and fills caches.
                for _ in range(repeats + 1):
                    for name, view in views.items():
                        with Watch() as each:
                            for _ in range(count):
                                await view.profiles.get(identity="0000000001")
                        used[name].append(1e6 * each.cpu / count)
        return watch.run(**{name: statistics.median(some[1:]) for name, some in used.items()})

    done = run(main())
    tracers.force_flush()
    durations = sum(_measured(reader) for reader in readers)
    done.figures.update(events=events, spans=exporter.spans, durations=durations)
    return done


def _measured(reader: Any) -> int:
    return sum(
        point.count
        for resource in reader.get_metrics_data().resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == "http.client.request.duration"
        for point in metric.data.data_points
    )


CALLS = Contender("calls", calls, {"count": 400, "repeats": 25}, ("opentelemetry.sdk",))
"""The calls with all hooks."""


def measure() -> Report:
    """Return the CPU time of a call with each hook."""
    columns = ["on_event", "CPU us a call", "more us", f"x {NO_HOOK}"]
    rows: list[list[Cell]] = []
    if present([CALLS]):
        with serving(Shape(record_bytes=1000)) as server:
            figures = once(CALLS, server).figures
        base = figures[NO_HOOK]
        rows = [
            [name, figures[name], figures[name] - base, figures[name] / base]
            for name in (NO_HOOK, _FUNCTION, _WITHOUT_SDK, _METRICS, _BOTH)
        ]
    notes = [
        (
            f"One call after the other, 1 KB, from loopback, on the event loop of asyncio; medians "
            f"of {CALLS.arguments['repeats']} rounds of {CALLS.arguments['count']} calls."
        ),
        *left_out([CALLS]),
    ]
    return Report([Table("Hooks", columns, rows, notes)])
