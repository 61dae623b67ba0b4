"""Traces and metrics of OpenTelemetry, into the exporters in memory of its SDK."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

import altaprofiles.otel
from altaprofiles import RateLimited, Retry, ServerError, Session
from altaprofiles.emulator import Emulator

from .support.joining import Both, both, user
from .support.servers import http
from .support.sessions import EVENT, RANGE, session_for

pytestmark = pytest.mark.anyio


class Telemetry:
    """Providers of OpenTelemetry, with everything in memory."""

    def __init__(self) -> None:
        self.spans_in = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.spans_in))
        self.reader = InMemoryMetricReader()
        self.hook = altaprofiles.otel.hook(self.tracers, MeterProvider([self.reader]))

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self.spans_in.get_finished_spans())

    def points(self, name: str) -> list[Any]:
        data = self.reader.get_metrics_data()
        if data is None:
            return []
        return [
            point
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]

    def values(self, name: str) -> dict[str, int]:
        points = self.points(f"altaprofiles.{name}")
        return {point.attributes["altaprofiles.service"]: point.value for point in points}


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry()


@pytest.fixture
async def services() -> AsyncIterator[Both]:
    async with both() as services:
        services.users = {"u": [user("u", "a")]}
        yield services


async def test_a_request_is_a_span_of_the_conventions(services: Both, telemetry: Telemetry) -> None:
    session = services.session()
    port = int(services.url.rpartition(":")[2])
    tracer = telemetry.tracers.get_tracer("caller")
    async with session:
        view = session.with_options(on_event=telemetry.hook)
        with tracer.start_as_current_span("caller's"):
            await view.cdp.get(user_id="u")
    child, parent = telemetry.spans
    assert child.parent is not None
    assert parent.context is not None
    assert child.parent.span_id == parent.context.span_id
    assert (child.name, child.kind) == ("GET /v1/user/get-user-cdp", SpanKind.CLIENT)
    assert dict(child.attributes or {}) | {"altaprofiles.slot.wait": 0} == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "http.response.body.size": child.attributes["http.response.body.size"],  # type: ignore[index]
        "server.address": "127.0.0.1",
        "server.port": port,
        "url.full": f"http://127.0.0.1:{port}/v1/user/get-user-cdp",
        "url.template": "/v1/user/get-user-cdp",
        "altaprofiles.bulk": False,
        "altaprofiles.call": 1,
        "altaprofiles.operation": "get_user_cdp",
        "altaprofiles.service": "Alta",
        "altaprofiles.slot.wait": 0,
    }
    assert child.start_time is not None
    assert child.end_time is not None
    assert child.start_time <= child.end_time
    [duration] = telemetry.points("http.client.request.duration")
    assert duration.count == 1
    assert dict(duration.attributes) == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "server.address": "127.0.0.1",
        "server.port": port,
        "url.template": "/v1/user/get-user-cdp",
    }


async def test_retries_and_refusals(services: Both, telemetry: Telemetry) -> None:
    busy = http(b'{"code":40008,"message":"u is too busy"}', "429 Too Many Requests")
    session = services.session(retry=Retry(attempts=3, base_delay=0.0))
    async with session:
        view = session.with_options(on_event=telemetry.hook)
        for answer, kind in (
            (http(b"", "503 Service Unavailable"), ServerError),
            (busy, RateLimited),
        ):
            services.answer = answer
            with pytest.raises(kind):
                await view.cdp.get(user_id="u")
    assert telemetry.values("retries") == {"Alta": 4}
    assert telemetry.values("refusals") == {"Alta": 3}
    resends = [(span.attributes or {}).get("http.request.resend_count") for span in telemetry.spans]
    assert resends == [None, 1, 2] * 2
    kinds = [(span.attributes or {})["error.type"] for span in telemetry.spans]
    assert kinds == ["503"] * 3 + ["429"] * 3
    assert {span.status.status_code for span in telemetry.spans} == {StatusCode.ERROR}
    calls = {(span.attributes or {})["altaprofiles.call"] for span in telemetry.spans}
    assert len(calls) == 2


async def test_no_connection_is_an_error_without_a_status(telemetry: Telemetry) -> None:
    services = Both()
    services.url = "http://127.0.0.1:9"
    session = services.session(retry=Retry(attempts=1))
    async with session:
        with pytest.raises(ConnectionError):
            await session.with_options(on_event=telemetry.hook).cdp.get(user_id="u")
    [span] = telemetry.spans
    assert span.attributes is not None
    assert span.attributes["error.type"] == "ConnectError"
    assert "http.response.status_code" not in span.attributes


async def test_nothing_of_people_or_credentials_is_exported(
    telemetry: Telemetry, tmp_path: Path
) -> None:
    async with Emulator(people=120, seed=3, faults={"server_error": 0.1}) as emulator:
        secrets = [emulator.clevertap.passcode, emulator.alta.token]
        keys = [key for index in range(120) if (key := emulator.population.identity(index))]
        session = session_for(emulator, on_event=telemetry.hook)
        async with session:
            await session.export(EVENT, **RANGE, to=tmp_path / "p.ndjson", batch_size=23)
            async for _ in session.profiles.get_many(keys[:20], by="identity"):
                pass
            async for _ in session.cdp.get_many(keys[:20], by="user_id"):
                pass
            await session.profiles.count(EVENT, **RANGE)
        exported = "".join(span.to_json() for span in telemetry.spans)
        data = telemetry.reader.get_metrics_data()
        assert data is not None
        exported += data.to_json()
    assert len(telemetry.spans) > 45
    assert json.loads(telemetry.spans[0].to_json())
    for word in (*secrets, *(key for key in keys if len(key) > 4), "cursor"):
        assert word not in exported


async def test_slots_in_use_and_waiting_callers_of_all_sessions(
    services: Both, telemetry: Telemetry
) -> None:
    opened = asyncio.Event()

    async def hold(number: int) -> None:
        await opened.wait()

    services.before_page, services.pages = hold, [[b'{"identity":"a"}']]
    first = services.session()
    credentials = first._credentials[0]  # noqa: SLF001
    sessions = [Session(clevertap=credentials, on_event=[telemetry.hook]) for _ in range(2)]
    async with sessions[0] as one, sessions[1] as two, anyio.create_task_group() as group:

        async def walk(session: Session) -> None:
            people = session.profiles.by_event(EVENT, start=20260101, end=20260101)
            async for _ in people.pages():
                pass

        for session in (one, one, one, one, two):
            group.start_soon(walk, session)
        while telemetry.values("slots.used") != {"CleverTap": 4}:
            await anyio.sleep(0.01)
        assert telemetry.values("slots.limit") == {"CleverTap": 6}
        assert telemetry.values("callers.waiting")["CleverTap"] >= 1
        opened.set()
    assert telemetry.values("slots.used") == {"CleverTap": 0}
    del one, two, session, sessions, walk
    gc.collect()
    assert telemetry.values("slots.used") == {}


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(altaprofiles.MissingExtra, match=r"pip install 'altaprofiles\[otel\]'"):
        altaprofiles.otel.hook()
