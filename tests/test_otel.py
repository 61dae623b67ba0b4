"""Traces and metrics of OpenTelemetry, into the exporters in memory of its SDK."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

import altaprofiles.otel
from altaprofiles import (
    Alta,
    Attempt,
    CleverTap,
    RateLimited,
    RequestTimeout,
    Retry,
    ServerError,
    Session,
)
from altaprofiles.emulator import Emulator

from .support.joining import Both, both, user
from .support.servers import always, http, scripted
from .support.sessions import EVENT, QUICK, RANGE, session_for
from .support.tasks import end_midway

pytestmark = pytest.mark.anyio


class Telemetry:
    """Providers of OpenTelemetry, with everything in memory."""

    def __init__(self) -> None:
        self.spans_in = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.spans_in))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader])
        self.hook = self.another()

    def another(self) -> altaprofiles.otel.Hook:
        """Return a hook of the same providers."""
        return altaprofiles.otel.hook(self.tracers, self.meters)

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


def attributes_of(span: ReadableSpan) -> Mapping[str, Any]:
    assert span.attributes is not None
    return span.attributes


def done(span: ReadableSpan) -> bool:
    return "http.response.status_code" in attributes_of(span)


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
        "server.address": "127.0.0.1",
        "server.port": port,
        "url.full": f"http://127.0.0.1:{port}/v1/user/get-user-cdp",
        "url.template": "/v1/user/get-user-cdp",
        "altaprofiles.bulk": False,
        "altaprofiles.call": 1,
        "altaprofiles.operation": "get_user_cdp",
        "altaprofiles.response.size": len(json.dumps({"code": 0, "data": {"u": user("u", "a")}})),
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
    # The status of HTTP says it already.
    assert {span.status.description for span in telemetry.spans} == {None}
    calls = {(span.attributes or {})["altaprofiles.call"] for span in telemetry.spans}
    assert len(calls) == 2


async def test_no_connection_is_an_error_without_a_status(telemetry: Telemetry) -> None:
    services = Both()
    # A connection with TLS, on this machine as well.
    services.url = "https://127.0.0.1:9"
    session = services.session(retry=Retry(attempts=1))
    async with session:
        with pytest.raises(ConnectionError):
            await session.with_options(on_event=telemetry.hook).cdp.get(user_id="u")
    [span] = telemetry.spans
    attributes = attributes_of(span)
    assert attributes["error.type"] == span.status.description == "ConnectError"
    assert attributes["url.full"] == "https://127.0.0.1:9/v1/user/get-user-cdp"
    assert "http.response.status_code" not in attributes


async def test_the_path_of_a_gateway_is_in_names_and_addresses(
    services: Both, telemetry: Telemetry
) -> None:
    services.url += "/gateway"
    session = services.session()
    async with session:
        await session.with_options(on_event=telemetry.hook).cdp.get(user_id="u")
    [span] = telemetry.spans
    assert span.name == "GET /gateway/v1/user/get-user-cdp"
    assert attributes_of(span)["url.template"] == "/gateway/v1/user/get-user-cdp"
    assert attributes_of(span)["url.full"] == f"{services.url}/v1/user/get-user-cdp"


async def test_a_poll_of_a_page_in_progress_is_not_an_error(telemetry: Telemetry) -> None:
    async with Emulator(people=60, seed=3, faults={"not_ready": 0.4}) as emulator:
        async with session_for(emulator, on_event=telemetry.hook) as session:
            async for _ in session.profiles.by_event(EVENT, **RANGE, batch_size=23):
                pass
            polls = session.stats.not_ready
    assert polls > 0
    assert len(telemetry.spans) > polls
    assert {span.status.status_code for span in telemetry.spans} == {StatusCode.UNSET}
    assert all("error.type" not in attributes_of(span) for span in telemetry.spans)
    resends = [attributes_of(span).get("http.request.resend_count", 0) for span in telemetry.spans]
    assert sum(resend > 0 for resend in resends) == polls
    assert telemetry.values("retries") == {}


# ------------------------------------------------------------------------- requests without an end


async def held(number: int) -> None:
    await asyncio.Event().wait()


async def test_a_request_that_is_cancelled_has_a_span_that_ends(
    services: Both, telemetry: Telemetry
) -> None:
    services.before_page, services.pages = held, [[b'{"identity":"a"}']]
    session = services.session()
    plain: list[Attempt] = []
    async with session, anyio.create_task_group() as group:
        view = session.with_options(on_event=[plain.append, telemetry.hook])

        async def walk() -> None:
            async for _ in view.profiles.by_event(EVENT, start=20260101, end=20260101):
                pass

        for _ in range(4):
            group.start_soon(walk)
        while len(services.read) < 3:
            await anyio.sleep(0.01)
        group.cancel_scope.cancel()
    # One caller at least waits for a slot, or has not opened its chain: no request, no span.
    assert len(telemetry.spans) == services.requests == session.stats.requests
    cut_off = [span for span in telemetry.spans if "cursor" not in span.name and not done(span)]
    assert len(cut_off) == len(services.read) == 3
    for span in cut_off:
        assert span.end_time is not None
        assert attributes_of(span)["error.type"] == span.status.description == "CancelledError"
        assert span.status.status_code == StatusCode.ERROR
    durations = telemetry.points("http.client.request.duration")
    assert sum(point.count for point in durations) == services.requests
    assert "CancelledError" in {point.attributes.get("error.type") for point in durations}
    # Other hooks see requests with an end only.
    assert len(plain) == services.requests - 3


@contextlib.asynccontextmanager
async def ending_calls(services: Both) -> AsyncIterator[list[Any]]:
    """Serve `services` by one that never answers, and yield what it calls for each request."""
    ending: list[Any] = []

    async def silent(head: bytes, writer: asyncio.StreamWriter) -> None:
        ending[0]()
        await asyncio.Event().wait()

    async with scripted(silent) as server:
        services.url = server.url
        yield ending


@pytest.mark.parametrize("way", ["task", "scope", "timeout"])
async def test_a_hook_that_fails_does_not_take_the_place_of_a_cancellation(
    way: str, services: Both, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(SpanProcessor):
        def on_end(self, span: ReadableSpan) -> None:
            raise ValueError("the exporter is down")

    tracers = TracerProvider()
    tracers.add_span_processor(Failing())
    hooks = [altaprofiles.otel.hook(tracers, MeterProvider()) for _ in range(2)]
    async with ending_calls(services) as ending:
        async with services.session() as session:
            view = session.with_options(on_event=hooks)
            await end_midway(way, ending, lambda: view.cdp.get(user_id="u"))
    logged = [record for record in caplog.records if record.levelname == "ERROR"]
    assert [str(record.exc_info and record.exc_info[1]) for record in logged] == [
        "the exporter is down",
        "the exporter is down",
    ]


async def test_nor_does_one_that_is_cancelled_itself(services: Both) -> None:
    class Cancelled(SpanProcessor):
        def on_end(self, span: ReadableSpan) -> None:
            raise asyncio.CancelledError

    cancelled, spans = TracerProvider(), InMemorySpanExporter()
    cancelled.add_span_processor(Cancelled())
    tracers = TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(spans))
    async with ending_calls(services) as ending:
        async with services.session() as session:
            hooks = [altaprofiles.otel.hook(one, MeterProvider()) for one in (cancelled, tracers)]
            view = session.with_options(on_event=hooks)
            await end_midway("task", ending, lambda: view.cdp.get(user_id="u"))
    assert len(spans.get_finished_spans()) == 1


async def test_nor_does_one_that_fails_as_another_secret_is_waited_for(
    services: Both, caplog: pytest.LogCaptureFixture
) -> None:
    secrets: list[str] = []
    ending: list[Any] = []

    async def secret() -> str:
        secrets.append("TOKEN-OF-A-TEST")
        if len(secrets) > 1:
            ending[0]()
            await asyncio.Event().wait()
        return secrets[0]

    def failing(attempt: Attempt) -> None:
        raise ValueError(type(attempt.error).__name__)

    refused = http(b'{"code":40127,"message":"no","error":"no"}', "401 Unauthorized")
    async with scripted(always(refused)) as server:
        async with Session(
            alta=Alta(secret, name="a", base_url=server.url), on_event=failing
        ) as session:
            await end_midway("task", ending, lambda: session.cdp.get(user_id="u"))
    assert "ValueError: Unauthorized" in caplog.text


async def test_a_hook_of_the_caller_may_have_any_attributes(services: Both) -> None:
    class Monitor:
        interrupted = False

        def __call__(self, attempt: Attempt) -> None:
            self.interrupted = True

        def watch(self) -> str:
            return "its own"

    async with ending_calls(services) as ending:
        known = services.session()._credentials[1]  # noqa: SLF001
        monitor = Monitor()
        async with Session(alta=known, on_event=monitor) as session:
            view = session.with_options(on_event=[Monitor()])
            await end_midway("task", ending, lambda: view.cdp.get(user_id="u"))
    assert not monitor.interrupted


@pytest.mark.parametrize("is_closed", [False, True])
async def test_pages_that_nobody_waits_for_any_more(
    services: Both, telemetry: Telemetry, *, is_closed: bool
) -> None:
    later = asyncio.Event()

    async def hold(number: int) -> None:
        if number > 0:
            later.set()
            await asyncio.Event().wait()

    services.before_page = hold
    services.pages = [[b'{"identity":"%d"}' % number] for number in range(4)]
    session = services.session()
    async with session:
        view = session.with_options(on_event=telemetry.hook)
        pages = view.profiles.by_event(EVENT, start=20260101, end=20260101).pages()
        await anext(pages)
        await later.wait()
        if is_closed:
            await session.aclose()
        await pages.aclose()
    assert len(telemetry.spans) == services.requests
    assert [
        attributes_of(span).get("error.type") for span in telemetry.spans if not done(span)
    ] == ["CancelledError"]


@pytest.mark.usefixtures("clock")
async def test_a_deadline_that_cuts_a_request_off_is_its_error(
    services: Both, telemetry: Telemetry
) -> None:
    services.users = {}

    async def silent(head: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    plain: list[Attempt] = []
    async with scripted(silent) as server:
        services.url = server.url
        async with services.session() as session:
            view = session.with_options(on_event=[plain.append, telemetry.hook])
            with pytest.raises(RequestTimeout) as caught:
                await view.cdp.get(user_id="u", deadline=2.0)
    [attempt] = plain
    assert attempt.error is caught.value
    assert (attempt.number, attempt.status, attempt.delay) == (1, None, None)
    [span] = telemetry.spans
    assert attributes_of(span)["error.type"] == "RequestTimeout"


# --------------------------------------------------------------------------------- callers' spans


async def test_spans_belong_to_the_span_in_which_the_call_was_made(
    telemetry: Telemetry, tmp_path: Path
) -> None:
    tracer = telemetry.tracers.get_tracer("caller")
    async with Emulator(people=60, seed=3) as emulator:
        # The session is that of a program, and open before.
        async with session_for(emulator, on_event=telemetry.hook) as session:
            with tracer.start_as_current_span("by_event"):
                async for _ in session.profiles.by_event(EVENT, **RANGE, batch_size=23, windows=3):
                    pass
            with tracer.start_as_current_span("get_many"):
                async for _ in session.profiles.get_many(["a", "b"], by="identity"):
                    pass
            with tracer.start_as_current_span("export"):
                await session.export(EVENT, **RANGE, to=tmp_path / "p.ndjson", batch_size=23)

        def without_asyncio() -> None:
            with (
                altaprofiles.blocking(
                    partial(session_for, emulator, on_event=telemetry.hook)
                ) as blocking,
                tracer.start_as_current_span("blocking"),
            ):
                blocking.profiles.get(identity="a")

        await anyio.to_thread.run_sync(without_asyncio)
    names = {span.context.span_id: span.name for span in telemetry.spans if span.context}
    parents = Counter(
        names[span.parent.span_id] for span in telemetry.spans if span.parent is not None
    )
    assert set(parents) == {"by_event", "get_many", "export", "blocking"}
    assert parents["get_many"] == 2
    assert parents["blocking"] == 1
    assert sum(parents.values()) + 4 == len(telemetry.spans)


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
        # The fourth walk of a session waits once its chain is open.
        while (
            telemetry.values("slots.used") != {"CleverTap": 4}
            or telemetry.values("callers.waiting")["CleverTap"] < 1
        ):
            await anyio.sleep(0.01)
        assert telemetry.values("slots.limit") == {"CleverTap": 6}
        opened.set()
    # The sessions are there still, and closed.
    assert len(sessions) == 2
    for name in ("slots.used", "slots.limit", "callers.waiting"):
        assert telemetry.values(name) == {}


async def test_a_session_is_measured_while_it_is_open(services: Both, telemetry: Telemetry) -> None:
    credentials = services.session()._credentials[1]  # noqa: SLF001
    # A hook for each session, as programs with several accounts make them.
    sessions = [Session(alta=credentials, on_event=telemetry.another()) for _ in range(3)]
    assert telemetry.values("slots.limit") == {}
    async with sessions[0], sessions[1]:
        assert telemetry.values("slots.limit") == {"Alta": 32}
    async with sessions[2]:
        assert telemetry.values("slots.limit") == {"Alta": 16}
    assert telemetry.values("slots.limit") == {}


async def test_a_session_is_measured_while_it_is_drained(
    services: Both, telemetry: Telemetry
) -> None:
    begun, opened = asyncio.Event(), asyncio.Event()

    async def hold(number: int) -> None:
        begun.set()
        await opened.wait()

    services.before_page, services.pages = hold, [[b'{"identity":"a"}']]
    credentials = services.session()._credentials[0]  # noqa: SLF001
    async with Session(clevertap=credentials, on_event=telemetry.hook) as session:

        async def walk() -> int:
            people = session.profiles.by_event(EVENT, start=20260101, end=20260101)
            return len([person async for person in people])

        walking = asyncio.create_task(walk())
        await begun.wait()
        closing = asyncio.create_task(session.aclose(drain=600))
        await asyncio.sleep(0)
        assert telemetry.values("slots.used") == {"CleverTap": 1}
        assert telemetry.values("callers.waiting") == {"CleverTap": 0}
        opened.set()
        assert await walking == 1
        await closing
        assert telemetry.values("slots.used") == {}


@pytest.mark.parametrize("is_shared", [False, True])
async def test_every_slot_is_back_forty_answers_after_an_outage(
    telemetry: Telemetry, tmp_path: Path, is_shared: bool
) -> None:
    async with Emulator(people=40, faults={"too_many": 1.0}) as emulator:
        account = CleverTap(
            emulator.clevertap.account_id,
            emulator.clevertap.passcode,
            base_url=emulator.url,
            shared=is_shared and tmp_path / "slots",
        )
        async with Session(clevertap=account, retry=QUICK, on_event=telemetry.hook) as session:
            impatient = session.with_options(retry=Retry(attempts=1))
            while session.stats.throttles < 24:
                with pytest.raises(RateLimited):
                    await impatient.profiles.get(identity="user_1")
            assert telemetry.values("slots.limit") == {"CleverTap": 1}
            emulator.faults = {}
            keys = [f"user_{number}" for number in range(40)]
            found = [one async for one in session.profiles.get_many(keys, by="identity")]
            assert [one.error for one in found if one.error] == []
            assert telemetry.values("slots.limit") == {"CleverTap": 3}


async def test_slots_that_sessions_share_count_once(
    services: Both, telemetry: Telemetry, tmp_path: Path
) -> None:
    opened = asyncio.Event()

    async def hold(number: int) -> None:
        await opened.wait()

    services.before_page, services.pages = hold, [[b'{"identity":"a"}']]
    (tmp_path / "link").symlink_to(tmp_path)
    account = services.session()._credentials[0]  # noqa: SLF001
    assert account is not None
    places = [tmp_path, tmp_path, tmp_path / "link", tmp_path / "other", False]
    (tmp_path / "other").mkdir(mode=0o700)
    async with contextlib.AsyncExitStack() as stack, anyio.create_task_group() as group:
        for place in places:
            shared = str(place) if place else False
            clevertap = CleverTap(
                account.account_id, account.passcode, base_url=account.base_url, shared=shared
            )
            hook = telemetry.hook if place else telemetry.another()
            session = Session(clevertap=clevertap, on_event=hook)
            await stack.enter_async_context(session)

            async def walk(session: Session = session) -> None:
                people = session.profiles.by_event(EVENT, start=20260101, end=20260101)
                async for _ in people.pages():
                    pass

            group.start_soon(walk)
        # Three sessions with three slots together, and two with three slots each.
        while telemetry.values("slots.used") != {"CleverTap": 5}:
            await anyio.sleep(0.01)
        assert telemetry.values("slots.limit") == {"CleverTap": 9}
        opened.set()
    assert telemetry.values("slots.limit") == {}


async def test_a_call_that_is_not_sent_has_a_wait_and_no_span(
    services: Both, telemetry: Telemetry
) -> None:
    credentials = services.session()._credentials[1]  # noqa: SLF001
    async with Session(alta=credentials, on_event=telemetry.hook) as session:
        with pytest.raises(RequestTimeout):
            await session.cdp.get(user_id="u", deadline=0)
    assert telemetry.spans == []
    assert [point.count for point in telemetry.points("altaprofiles.slot.wait")] == [1]


async def test_sessions_leave_nothing_behind_though_nobody_reads_the_metrics(
    services: Both, telemetry: Telemetry
) -> None:
    credentials = services.session()._credentials[1]  # noqa: SLF001

    async def one() -> None:
        async with Session(alta=credentials, on_event=telemetry.hook) as session:
            await session.cdp.get(user_id="u")

    for _ in range(20):
        await one()
    gc.collect()
    assert telemetry.hook._slots._loads == set()  # noqa: SLF001
    assert len(telemetry.spans) == 20


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(altaprofiles.MissingExtra, match=r"pip install 'altaprofiles\[otel\]'"):
        altaprofiles.otel.hook()
