"""Options of single calls, and of a view of a session, over real sockets."""

from __future__ import annotations

import asyncio
import functools
import math
import time
from collections import UserList, deque
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from altaprofiles import (
    Alta,
    Attempt,
    CleverTap,
    ConfigurationError,
    ConnectError,
    ExportProgress,
    Incomplete,
    InvalidArgument,
    NotReady,
    RequestTimeout,
    Retry,
    ServerError,
    Session,
    Timeout,
)
from altaprofiles.base.wording import DOCTOR
from altaprofiles.emulator import Emulator

from .support.joining import Both, both, user
from .support.servers import Answer, always, closed, gated, http, scripted
from .support.sessions import EVENT, QUICK, RANGE, session_at, session_for

pytestmark = pytest.mark.anyio

DAY: dict[str, Any] = {"start": 20260101, "end": 20260101}
FAILING = always(http(b"", "503 Service Unavailable"))
NOT_READY = http(b'{"status":"fail","error":"Request still in progress","code":2}')


async def silence(head: bytes, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(math.inf)


@pytest.fixture
async def services() -> AsyncIterator[Both]:
    async with both() as services:
        yield services


# ---------------------------------------------------------------------------------------- deadlines

CALLS: dict[str, Callable[[Session], Callable[..., Any]]] = {
    "profiles.get": lambda s: lambda **o: s.profiles.get(identity="5555555555", **o),
    "profiles.count": lambda s: lambda **o: s.profiles.count(EVENT, **DAY, **o),
    "who_is": lambda s: lambda **o: s.who_is(identity="5555555555", **o),
    "who_is, from Alta": lambda s: lambda **o: s.who_is(anonymous_id="a", **o),
    "cdp.get": lambda s: lambda **o: s.cdp.get(user_id="u", **o),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("way", ["argument", "view", "view of a view"])
async def test_a_single_call_ends_at_its_deadline(name: str, way: str) -> None:
    async with scripted(silence) as server, session_of_both(server.url) as session:
        call = CALLS[name]
        with anyio.fail_after(60), pytest.raises(RequestTimeout, match=r"the deadline of 0\.1 s"):
            if way == "argument":
                await call(session)(deadline=0.1)
            elif way == "view":
                await call(session.with_options(deadline=0.1))()
            else:
                view = session.with_options(deadline=0.1)
                await call(view.with_options(retry=Retry(attempts=3)))()


async def test_an_argument_goes_before_the_view_and_the_view_before_the_policy() -> None:
    async with scripted(silence) as server:
        session = session_at(server).with_options  # not open yet
        with pytest.raises(ConfigurationError, match="not open yet"):
            await session(deadline=1).profiles.get(identity="5555555555")
    async with scripted(silence) as server, session_of_both(server.url) as whole:
        view = whole.with_options(retry=Retry(deadline=900), deadline=600)
        with pytest.raises(RequestTimeout, match=r"the deadline of 0\.1 s"):
            await view.profiles.get(identity="5555555555", deadline=0.1)
        view = whole.with_options(retry=Retry(deadline=900), deadline=0.2)
        with pytest.raises(RequestTimeout, match=r"the deadline of 0\.2 s"):
            await view.profiles.get(identity="5555555555")
        view = whole.with_options(retry=Retry(deadline=0.3))
        with pytest.raises(RequestTimeout, match=r"the deadline of 0\.3 s"):
            await view.profiles.get(identity="5555555555")


async def test_a_count_is_one_call_however_often_it_polls() -> None:
    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        begun = b'{"status":"partial","req_id":7}'
        writer.write(NOT_READY if b"req_id" in head.split(b"\r\n")[0] else http(begun))

    async with scripted(answer) as server, session_at(server) as session:
        # The second if no time is left to poll again.
        with anyio.fail_after(60), pytest.raises((RequestTimeout, NotReady)):
            await session.profiles.count(EVENT, **DAY, deadline=0.5)
        assert len(server.heads) > 2


@pytest.mark.parametrize("deadline", [math.nan, math.inf, -math.inf, True, "2"])
async def test_a_deadline_that_is_none_is_refused(services: Both, deadline: Any) -> None:
    async with services.session() as session:
        for call in CALLS.values():
            with pytest.raises(InvalidArgument, match=r"^deadline: expected a number of seconds"):
                await call(session)(deadline=deadline)
        with pytest.raises(InvalidArgument, match=r"^deadline: "):
            session.with_options(deadline=deadline)
        with pytest.raises(InvalidArgument, match=r"^deadline: "):
            await session.export(EVENT, **DAY, to="p.ndjson", deadline=deadline)
    assert services.requests == 0


@pytest.mark.parametrize("deadline", [0, -1, -0.5])
async def test_a_call_without_time_ends_at_once(
    services: Both, deadline: float, tmp_path: Path
) -> None:
    attempts: list[Attempt] = []
    async with services.session() as session:
        view = session.with_options(deadline=deadline, on_event=attempts.append)
        for number, call in enumerate(CALLS.values(), start=1):
            with pytest.raises(RequestTimeout, match=r" s: no request was sent$"):
                await call(session)(deadline=deadline)
            with pytest.raises(RequestTimeout, match=r" s: no request was sent$"):
                await call(view)()
            assert len(attempts) == session.stats.unsent - number
        with pytest.raises(InvalidArgument, match="identity"):
            await view.profiles.get(identity="")
        runs: list[Callable[..., Any]] = [
            lambda **o: session.export(EVENT, **DAY, to=tmp_path / "e.ndjson", **o),
            lambda **o: session.export_lookups(["a"], by="email", to=tmp_path / "l.ndjson", **o),
            lambda **o: session.sync(
                EVENT, since=20260101, until=20260102, to=tmp_path / "s.duckdb", timezone="UTC", **o
            ),
        ]
        for run in runs:
            with pytest.raises(Incomplete, match="did not finish within the deadline of"):
                await run(deadline=deadline)
        assert session.stats.requests == 0
        assert [(one.sent, one.status, one.seconds) for one in attempts] == [(False, None, 0.0)] * 5
        assert all(isinstance(one.error, RequestTimeout) for one in attempts)
        assert all(0 <= one.waited < 60 for one in attempts)
    assert services.requests == 0
    assert {path.suffix for path in tmp_path.iterdir()} <= {".export"}


async def test_the_error_of_a_deadline_says_where_the_time_went(tmp_path: Path) -> None:
    attempts: list[Attempt] = []
    asked = 0

    async def first_fails(head: bytes, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        if asked == 1:
            writer.write(http(b"", "503 Service Unavailable"))
        else:
            await silence(head, writer)

    async with scripted(first_fails) as server:
        account = CleverTap("ACCOUNT", "PASSCODE", base_url=server.url, shared=str(tmp_path))
        alta = Alta("token", base_url=server.url, requests_per_minute=1)
        session = Session(clevertap=account, alta=alta, retry=QUICK, on_event=attempts.append)
        async with session, Session(clevertap=account) as other, anyio.create_task_group() as group:
            with pytest.raises(RequestTimeout, match="waited for an answer; ") as caught:
                await session.profiles.get(identity="1", deadline=1.0)
            sent = {1: "1 request was sent", 2: "2 requests were sent"}[len(server.heads)]
            assert sent in str(caught.value)
            with pytest.raises(RequestTimeout, match=r"an answer; 1 request was sent$"):
                await session.cdp.get(user_id="u", deadline=0.2)
            with pytest.raises(RequestTimeout, match=r"turn in the pace of requests; no request"):
                await session.cdp.get(user_id="u", deadline=0.1)
            assert session.stats.unsent == 1
            group.start_soon(functools.partial(session.profiles.get, identity="2"))
            group.start_soon(functools.partial(session.profiles.get, identity="3"))
            # Another session has the third slot.
            group.start_soon(functools.partial(other.profiles.get, identity="4"))
            before = len(server.heads)
            while len(server.heads) < before + 3:
                await asyncio.sleep(0.01)
            del attempts[:]
            with pytest.raises(RequestTimeout, match=r"waited for one of 3 slots; no request was"):
                await session.profiles.get(identity="5", deadline=0.1)
            [attempt] = attempts
            assert not attempt.sent
            assert attempt.number == 1
            assert attempt.seconds == 0
            assert attempt.waited > 0
            assert isinstance(attempt.error, RequestTimeout)
            assert session.stats.unsent == 2
            group.cancel_scope.cancel()


def session_of_both(url: str) -> Session:
    services = Both()
    services.url = url
    return services.session()


# ------------------------------------------------------------------------------------------ exports


@pytest.mark.parametrize("kind", ["export", "export_lookups", "sync"])
async def test_a_run_that_meets_its_deadline_is_incomplete_and_resumed(
    tmp_path: Path, kind: str
) -> None:
    async with Emulator(people=300, seed=2) as emulator:
        keys = [emulator.population.identity(index) for index in range(300)]
        arguments: dict[str, Any] = {
            "export": {"events": EVENT, **RANGE, "batch_size": 23},
            "export_lookups": {"keys": [key for key in keys if key], "by": "identity"},
            "sync": {
                "events": EVENT,
                "since": RANGE["start"],
                "until": RANGE["end"],
                "batch_size": 23,
                "timezone": "UTC",
            },
        }[kind]
        to = tmp_path / "p.duckdb"
        target = b"GET /1/profile"
        async with gated(emulator.url, target, passing=5, holding=99) as (url, opened):
            credentials = emulator.clevertap
            held = type(credentials)(
                account_id=credentials.account_id, passcode=credentials.passcode, base_url=url
            )
            async with Session(clevertap=held, retry=QUICK) as session:
                run = getattr(session, kind)
                with pytest.raises(Incomplete, match=r"did not finish within the deadline of") as e:
                    await run(**arguments, to=to, deadline=2.0)
                noun = {"export_lookups": "lookup"}.get(kind, kind)
                assert f"run the same {noun} again to resume it" in str(e.value)
                assert e.value.missing == ["it did not finish within the deadline of 2 s"]
                assert not to.exists()
                # It may have no time to read what is there.
                with pytest.raises(Incomplete) as e:
                    await run(**arguments, to=to, deadline=0)
                assert "nothing of it has been kept" not in str(e.value)
                assert f" in {to}.export" in str(e.value)
                opened.set()
                before = emulator.stats.requests.copy()
                report = await run(**arguments, to=to, deadline=600)
                assert report.complete
                if kind != "export_lookups":
                    assert emulator.stats.requests["open_chain"] - before["open_chain"] < 3


BY_KIND: dict[str, dict[str, Any]] = {
    "export": {"events": EVENT, **RANGE},
    "export_lookups": {"keys": ["7"], "by": "identity"},
    "sync": {"events": EVENT, "since": 20260101, "until": 20260102, "timezone": "UTC"},
}


@pytest.mark.parametrize("kind", BY_KIND)
async def test_a_run_that_is_late_names_the_failure_that_it_was_held_up_by(
    tmp_path: Path, kind: str
) -> None:
    patient = Retry(base_delay=1e9, max_delay=1e9)
    async with closed() as port:
        credentials = CleverTap("id", "passcode", base_url=port.url)
        async with Session(clevertap=credentials, retry=patient) as session:
            run = getattr(session, kind)
            deadline, error = 0.5, Incomplete("", missing=[])
            # On a busy machine, a second may be over before the first request has failed.
            while error.__cause__ is None and deadline < 60:
                deadline *= 2
                with pytest.raises(Incomplete) as caught:
                    await run(**BY_KIND[kind], to=tmp_path / "p.duckdb", deadline=deadline)
                error = caught.value
    assert isinstance(error.__cause__, ConnectError)
    [sentence] = error.missing
    within = f"it did not finish within the deadline of {deadline:g} s"
    assert sentence.startswith(f"{within}; the last failure: ")
    assert "Connection refused" in sentence
    assert sentence in str(error)
    noun = {"export_lookups": "lookup"}.get(kind, kind)
    # More time is no cure for that.
    assert str(error).endswith(
        f"nothing of it has been kept; run the same {noun} again, once a connection can be made"
    )
    assert error.__notes__ == [DOCTOR]


@pytest.mark.parametrize(
    ("status", "cure"),
    [
        ("503 Service Unavailable", ", with a longer `deadline`"),
        ("401 Unauthorized", ", with credentials that the service accepts"),
    ],
)
async def test_a_run_that_is_late_asks_for_what_helps(
    tmp_path: Path, status: str, cure: str
) -> None:
    asked = 0

    async def passcode() -> str:
        nonlocal asked
        asked += 1
        if asked > 1:
            await anyio.sleep_forever()
        return "wrong"

    patient = Retry(base_delay=1e9, max_delay=1e9)
    arguments = {**BY_KIND["export"], "to": tmp_path / "p.csv"}
    error = Incomplete("", missing=[])
    async with scripted(always(http(b"", status))) as server:
        credentials = CleverTap("id", passcode, base_url=server.url)
        # On a busy machine, a second may be over before the first answer.
        for deadline in (1.0, 5.0, 25.0):
            asked = 0
            async with Session(clevertap=credentials, retry=patient) as session:
                with pytest.raises(Incomplete) as caught:
                    await session.export(**arguments, deadline=deadline)
            error = caught.value
            if error.__cause__ is not None:
                break
    assert status.split()[0] in error.missing[0]
    assert str(error).endswith(f"run the same export again{cure}")


async def test_a_call_that_is_late_names_the_failure_before() -> None:
    async with scripted(then_silent(http(b"", "503 Service Unavailable"))) as server:
        async with session_at(server) as session:
            with pytest.raises(RequestTimeout, match=r"; the last failure: .*HTTP 503") as caught:
                await session.profiles.get(identity="7", deadline=1.0)
    assert isinstance(caught.value.__cause__, ServerError)
    assert (caught.value.service, caught.value.operation) == ("CleverTap", "get_profile")


def then_silent(response: bytes) -> Answer:
    """Return an answer to the first request, and none to others."""
    left = [response]

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        if not left:
            await silence(head, writer)
        writer.write(left.pop())

    return answer


async def test_a_deadline_does_not_cut_the_writing_of_what_is_complete(tmp_path: Path) -> None:
    async with Emulator(people=50, seed=2) as emulator, session_for(emulator) as session:
        # A slow machine needs one of the longer ones to get as far as that.
        for deadline in (1.0, 8.0, 64.0):
            ends = time.monotonic() + deadline
            stages: list[str] = []

            def pass_the_deadline(
                progress: ExportProgress, ends: float = ends, stages: list[str] = stages
            ) -> None:
                stages.append(progress.stage)
                if progress.stage == "finishing":
                    time.sleep(max(0.0, ends - time.monotonic()))

            try:
                report = await session.export(
                    EVENT,
                    **RANGE,
                    to=tmp_path / "p.csv",
                    deadline=deadline,
                    on_progress=pass_the_deadline,
                )
            except Incomplete:
                continue
            assert "finishing" in stages
            assert report.complete
            break
        else:
            pytest.fail("not one of the runs was complete")


async def test_a_deadline_of_single_calls_ends_no_export(tmp_path: Path) -> None:
    async with Emulator(people=100, seed=2) as emulator, session_for(emulator) as session:
        view = session.with_options(deadline=1e-9)
        with pytest.raises(RequestTimeout):
            await view.profiles.get(identity="5555555555")
        assert (await view.export(EVENT, **RANGE, to=tmp_path / "p.ndjson")).complete
        assert [page async for page in view.profiles.by_event(EVENT, **RANGE).pages()]
        assert [one.error async for one in view.profiles.get_many(["a"], by="identity")] == [None]


# -------------------------------------------------------------------------------------------- views


async def test_retries_are_those_of_the_view(tmp_path: Path) -> None:
    async with scripted(FAILING) as server, session_at(server) as session:
        view = session.with_options(retry=Retry(attempts=1))
        with pytest.raises(ServerError):
            await view.profiles.get(identity="5555555555")
        assert len(server.heads) == 1
        with pytest.raises(ServerError):
            await session.profiles.get(identity="5555555555")
        assert len(server.heads) == 1 + QUICK.attempts
        assert view.stats is session.stats
        assert session.stats.requests == 1 + QUICK.attempts
        lookups = [one async for one in view.profiles.get_many(["a"], by="identity")]
        assert len(server.heads) == 2 + QUICK.attempts
        assert isinstance(lookups[0].error, ServerError)


async def test_the_budget_of_retries_is_the_session_s() -> None:
    async with scripted(FAILING) as server:
        one = session_at(server)
        session = Session(
            clevertap=one._credentials[0],  # noqa: SLF001
            retry=Retry(attempts=100, base_delay=0.0, budget=5),
        )
        async with session:
            # The same budget, or the default, which may just have been left out.
            for budget in ({"budget": 5}, {}, {"budget": 5}):
                retry = Retry(attempts=100, base_delay=0.0, **budget)
                view = session.with_options().with_options(retry=retry)
                with pytest.raises(ServerError):
                    await view.profiles.get(identity="5555555555")
            # A twentieth of it comes back each second.
            assert 3 <= len(server.heads) < 50


@pytest.mark.parametrize(("own", "budget"), [(100, 1), (100, 0), (5, 99)])
async def test_a_budget_of_a_view_is_refused(own: int, budget: int) -> None:
    session = Session(clevertap=CleverTap("id", "passcode"), retry=Retry(budget=own))
    for one in (session, session.with_options(retry=Retry(attempts=2))):
        with pytest.raises(InvalidArgument, match=rf"^retry: its budget of {budget} .* {own} for"):
            one.with_options(retry=Retry(budget=budget))


async def test_none_takes_away_the_options_of_a_view() -> None:
    async with scripted(FAILING) as server, session_at(server) as session:
        view = session.with_options(
            retry=Retry(attempts=1), timeout=Timeout(total=1e-9), deadline=1e-9
        )
        # The limit of the attempt is left.
        with pytest.raises(RequestTimeout, match="no connection to"):
            await view.with_options(deadline=None).profiles.get(identity="1")
        with pytest.raises(RequestTimeout, match="no connection to"):
            await view.profiles.get(identity="1", deadline=None)
        with pytest.raises(RequestTimeout, match="the deadline of"):
            await view.with_options().profiles.get(identity="1")
        before = len(server.heads)
        again = view.with_options(retry=None, timeout=None, deadline=None, on_event=None)
        with pytest.raises(ServerError):
            await again.profiles.get(identity="1")
        assert len(server.heads) - before == QUICK.attempts


async def test_without_one_of_its_own_a_call_has_the_deadline_of_the_policy() -> None:
    async with scripted(silence) as server, session_of_both(server.url) as whole:
        view = whole.with_options(retry=Retry(deadline=0.1), deadline=600)
        for call in CALLS.values():
            with anyio.fail_after(60), pytest.raises(RequestTimeout, match=r"of 0\.1 s"):
                await call(view)(deadline=None)
            with anyio.fail_after(60), pytest.raises(RequestTimeout, match=r"of 0\.1 s"):
                await call(view.with_options(deadline=None))()


async def test_timeouts_are_those_of_the_view() -> None:
    async with scripted(silence) as server, session_at(server) as session:
        view = session.with_options(
            timeout=Timeout(read=0.05), retry=Retry(attempts=2, base_delay=0.0)
        )
        with anyio.fail_after(60), pytest.raises(RequestTimeout, match=r"sent nothing for 0\.05 s"):
            await view.profiles.get(identity="5555555555")
        with anyio.fail_after(60), pytest.raises(RequestTimeout, match=r"within 0\.04 s"):
            await view.with_options(timeout=Timeout(total=0.04)).profiles.get(identity="1")
        assert len(server.heads) == 4


async def test_hooks_of_a_view_come_after_those_of_the_session(services: Both) -> None:
    heard: list[str] = []

    def hook(name: str) -> Callable[[Attempt], None]:
        return lambda attempt: heard.append(f"{name} {attempt.operation}")

    services.users = {"u": [user("u", "a")]}
    first = services.session()
    session = Session(
        clevertap=first._credentials[0],  # noqa: SLF001
        alta=first._credentials[1],  # noqa: SLF001
        on_event=[hook("1"), hook("2")],
    )
    async with session:
        view = session.with_options(on_event=hook("3")).with_options(on_event=(hook("4"),))
        await view.cdp.get(user_id="u")
        assert heard == [f"{number} get_user_cdp" for number in (1, 2, 3, 4)]
        heard.clear()
        await session.cdp.get(user_id="u")
        assert heard == [f"{number} get_user_cdp" for number in (1, 2)]
        for several in (deque, UserList):
            heard.clear()
            given = several([hook("3"), hook("4")])
            await session.with_options(on_event=given).cdp.get(user_id="u")
            assert heard == [f"{number} get_user_cdp" for number in (1, 2, 3, 4)]
        for wrong in (3, "print", {hook("5")}, [hook("5"), "print"]):
            with pytest.raises(ConfigurationError, match=r"^on_event: .*, or a list of such "):
                session.with_options(on_event=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("bulk", [True, False, None])
async def test_a_view_for_bulk_work_waits_behind_single_calls(bulk: bool | None) -> None:
    order: list[str] = []
    opened = asyncio.Event()
    arrived = asyncio.Event()

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        order.append(head.split(b" ")[1].decode().partition("=")[2])
        arrived.set()
        await opened.wait()
        writer.write(http(b'{"status":"success","record":null}'))

    async with scripted(answer) as server:
        credentials = session_at(server)._credentials[0]  # noqa: SLF001
        assert credentials is not None
        one = type(credentials)("id", "passcode", base_url=server.url, max_in_flight=1)
        async with Session(clevertap=one) as session, anyio.create_task_group() as group:

            async def look_up(session: Session, key: str) -> None:
                await session.profiles.get(identity=key)

            group.start_soon(look_up, session, "first")
            await arrived.wait()
            group.start_soon(
                look_up, session.with_options(bulk=True).with_options(bulk=bulk), "view"
            )
            # Until it stands in the line.
            await anyio.wait_all_tasks_blocked()
            group.start_soon(look_up, session, "single")
            await anyio.wait_all_tasks_blocked()
            opened.set()
    assert order == ["first", *(["single", "view"] if bulk else ["view", "single"])]


async def test_caps_are_the_session_s() -> None:
    async with (
        Emulator(people=50, seed=2, think=0.01) as emulator,
        session_for(emulator) as session,
    ):

        async def look_up(number: int) -> None:
            await session.with_options(deadline=600 + number).profiles.get(identity="5555555555")

        async with anyio.create_task_group() as group:
            for number in range(30):
                group.start_soon(look_up, number)
        assert emulator.stats.peak_in_flight["clevertap"] == 3


@pytest.mark.parametrize(
    "name",
    ["clevertap", "alta", "max_response_bytes", "trace_configs", "trust_env", "ssl", "proxy"],
)
async def test_what_belongs_to_the_whole_session_is_refused_by_name(
    services: Both, name: str
) -> None:
    options: dict[str, Any] = {name: None}
    with pytest.raises(ConfigurationError, match=f"^{name}: belongs to the whole session"):
        services.session().with_options(**options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"retry": 3}, "retry: expected Retry"),
        ({"timeout": 3}, "timeout: expected Timeout"),
        ({"bulk": 1}, "bulk: expected True or False"),
    ],
)
async def test_a_wrong_option_is_refused(services: Both, options: Any, words: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{words}"):
        services.session().with_options(**options)
    with pytest.raises(TypeError, match="unexpected keyword argument 'retries'"):
        services.session().with_options(retries=3)  # type: ignore[call-arg]


async def test_a_view_is_neither_entered_nor_closed(services: Both) -> None:
    async with services.session() as session:
        view = session.with_options(deadline=600)
        with pytest.raises(ConfigurationError, match="is not entered"):
            await view.__aenter__()
        with pytest.raises(ConfigurationError, match="is not closed"):
            await view.aclose()
        assert repr(view) == repr(session).removesuffix(", open)") + ", deadline=600 s, open)"
        assert await session.cdp.get(user_id="u") == {}
    with pytest.raises(ConfigurationError, match="closed"):
        await view.cdp.get(user_id="u")


def test_the_options_in_force_are_shown() -> None:
    account = CleverTap("ID", "hidden-passcode", region="eu1")
    plain = Session(clevertap=account)
    slow = plain.with_options(timeout=Timeout(total=1500), deadline=1500, bulk=True)
    shown = "timeout=Timeout(connect=10.0, read=60.0, total=1500), deadline=1500 s, bulk=True)"
    assert repr(slow) == f"{repr(plain)[:-1]}, {shown}"
    assert repr(slow.with_options(timeout=None, deadline=None, bulk=None)) == repr(plain)
    once = Session(clevertap=account, retry=Retry(attempts=1), on_event=print)
    assert f"retry={Retry(attempts=1)}, on_event=…)" in repr(once)
    assert "hidden-passcode" not in repr(once)


async def test_a_hook_that_makes_a_coroutine_is_refused_when_it_is_called(services: Both) -> None:
    async def note(attempt: Attempt) -> None:
        raise AssertionError(attempt)

    services.users = {"u": [user("u", "a")]}
    async with services.session() as session:
        view = session.with_options(on_event=lambda attempt: note(attempt))
        with pytest.raises(
            InvalidArgument, match="on_event: the function has returned a coroutine"
        ):
            await view.cdp.get(user_id="u")


async def test_a_hook_that_fails_hides_nothing_from_the_others(services: Both) -> None:
    heard: list[Attempt] = []

    def broken(attempt: Attempt) -> None:
        raise ZeroDivisionError

    services.users = {"u": [user("u", "a")]}
    async with services.session() as session:
        view = session.with_options(on_event=[broken, heard.append])
        with pytest.raises(ZeroDivisionError):
            await view.cdp.get(user_id="u")
        assert [attempt.error for attempt in heard] == [None]


@pytest.mark.parametrize("failure", [KeyboardInterrupt, SystemExit, asyncio.CancelledError])
@pytest.mark.parametrize("is_first", [False, True])
async def test_a_hook_that_ends_the_program_hides_nothing_either(
    services: Both,
    failure: type[BaseException],
    is_first: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    heard: list[Attempt] = []

    def ending(attempt: Attempt) -> None:
        raise failure

    def broken(attempt: Attempt) -> None:
        raise ZeroDivisionError

    services.users = {"u": [user("u", "a")]}
    async with services.session() as session:
        hooks = [ending, broken] if is_first else [broken, ending]
        view = session.with_options(on_event=[*hooks, heard.append])
        # More often than there are slots, which are free again each time.
        for _ in range(20):
            with pytest.raises(failure):
                await view.cdp.get(user_id="u")
        assert [attempt.error for attempt in heard] == [None] * 20
        assert "ZeroDivisionError" in caplog.text


async def test_a_wait_for_slots_that_others_share_is_no_wait_for_a_pace(tmp_path: Path) -> None:
    texts: list[str] = []

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.02)
        writer.write(http(b'{"status":"success","record":null}'))

    async with scripted(answer) as server:
        account = CleverTap("ACCOUNT", "PASSCODE", base_url=server.url, shared=str(tmp_path))
        async with Session(clevertap=account) as one, Session(clevertap=account) as other:

            async def ask(session: Session) -> None:
                for _ in range(10):
                    try:
                        await session.profiles.get(identity="1", deadline=0.1)
                    except RequestTimeout as error:
                        texts.append(str(error))

            async with anyio.create_task_group() as group:
                for session in [one, other] * 20:
                    group.start_soon(ask, session)
    assert texts
    assert not [text for text in texts if "pace" in text]
