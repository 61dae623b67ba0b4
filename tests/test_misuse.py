"""Loops, `await`, `with`, event loops and names of the wrong kind: errors say what to write."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pyarrow
import pytest
import trio

import altaprofiles
import altaprofiles.otel
from altaprofiles import (
    Alta,
    CleverTap,
    ConfigurationError,
    EventProfiles,
    EventQuery,
    Filter,
    InvalidArgument,
    Page,
    Profile,
    Retry,
    ServerError,
    Session,
)
from altaprofiles.emulator import Emulator, Recorder
from altaprofiles.export.stored_rows import stored
from altaprofiles.notebook import Progress

from .support.servers import always, http, scripted
from .support.terminals import emulated

DAYS: Any = {"start": 20260101, "end": 20260131}


def new_session() -> Session:
    return Session(clevertap=CleverTap("W9R", "pass-word"), alta=Alta("to-ken"))


def charged(session: Session) -> EventProfiles:
    return session.profiles.by_event("Charged", start=20260101, end=20260131)


TO_BE_READ: dict[str, Callable[[Session], Any]] = {
    "by_event": charged,
    "everyone": lambda session: session.profiles.everyone(),
    "by_query": lambda session: session.profiles.by_query(EventQuery.of("Charged", **DAYS)),
    "pages": lambda session: charged(session).pages(),
    "get_many": lambda session: session.profiles.get_many(["1"], by="identity"),
    "cdp.get_many": lambda session: session.cdp.get_many(["1"], by="user_id"),
    "with_cdp": lambda session: session.with_cdp(charged(session)),
}


@pytest.mark.parametrize(
    "read",
    [list, sum, lambda people: [*people], lambda people: "x" in people, lambda people: people[0]],
)
@pytest.mark.parametrize("call", TO_BE_READ.values(), ids=TO_BE_READ)
def test_a_plain_loop_is_told_to_be_asynchronous(
    call: Callable[[Session], Any], read: Callable[[Any], object]
) -> None:
    with pytest.raises(TypeError, match=r"async for.*altaprofiles\.blocking"):
        read(call(new_session()))


@pytest.mark.parametrize("call", TO_BE_READ.values(), ids=TO_BE_READ)
def test_what_is_read_is_not_awaited(call: Callable[[Session], Any]) -> None:
    async def main() -> None:
        results = call(new_session())
        # Frameworks await whatever is awaitable.
        assert not inspect.isawaitable(results)
        assert not isinstance(results, Awaitable)
        await results

    with pytest.raises(TypeError, match=r"object (Results|EventProfiles) can't be used in 'await'"):
        asyncio.run(main())


@pytest.mark.parametrize("call", TO_BE_READ.values(), ids=TO_BE_READ)
def test_an_asynchronous_iterable_is_not_taken_for_a_plain_one(
    call: Callable[[Session], Any],
) -> None:
    results = call(new_session())
    assert isinstance(results, AsyncIterable)
    assert not isinstance(results, Iterable)


@pytest.mark.anyio
async def test_results_can_be_left_early_and_closed() -> None:
    async with Emulator(people=60) as emulator:
        async with Session(clevertap=emulator.clevertap, alta=emulator.alta) as session:
            lookups = session.profiles.get_many(map(str, range(10_000)), by="identity")
            assert (await anext(lookups)).error is None
            assert (await lookups.asend(None)).error is None
            await lookups.aclose()
            assert [one async for one in lookups] == []
            with pytest.raises(ZeroDivisionError):
                await session.profiles.get_many(["1"], by="identity").athrow(ZeroDivisionError())
            people = [person async for person in charged(session)]
            assert len([one async for one in session.with_cdp(people)]) == len(people) > 0


CUT_OFF = r"^<results of {0}>: cut off by {1} before, .* call {0} again$"


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["timeout", "error"])
async def test_results_that_are_read_on_after_a_failure_do_not_look_complete(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with Emulator(people=60) as emulator:
        async with Session(
            clevertap=emulator.clevertap, alta=emulator.alta, retry=Retry(attempts=1)
        ) as session:
            people = [person async for person in charged(session)]
            keys = [person.identity for person in people if person.identity]

            def failing() -> Iterator[str]:
                yield from keys[:2]
                raise ZeroDivisionError

            def strangers() -> Iterator[Any]:
                yield from people[:2]
                raise ZeroDivisionError

            calls: dict[str, list[AsyncIterator[Any]]] = {
                "get_many": [
                    session.profiles.get_many(failing(), by="identity"),
                    session.cdp.get_many(failing(), by="user_id"),
                ],
                "with_cdp": [session.with_cdp(strangers())],
                "pages": [charged(session).pages()],
                "by_event": [aiter(charged(session))],
            }
            if kind == "timeout":
                emulator.think = 60
            else:
                emulator.faults = {"server_error": 1.0}
            for name, several in calls.items():
                for results in several:
                    failure = ""
                    while not failure:
                        try:
                            async with asyncio.timeout(0.05 if kind == "timeout" else None):
                                assert await anext(results, None) is not None
                        except Exception as error:
                            failure = (
                                "CancelledError" if kind == "timeout" else type(error).__name__
                            )
                    for _ in range(2):
                        with pytest.raises(RuntimeError, match=CUT_OFF.format(name, failure)):
                            await anext(results, None)
                    with pytest.raises(RuntimeError, match=CUT_OFF.format(name, failure)):
                        async for _ in results:
                            pass
    assert "read to its end" not in caplog.text


def test_blocking_results_that_are_read_on_after_a_failure_do_not_look_complete(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with (
        emulated(people=60) as emulator,
        altaprofiles.blocking(
            lambda: Session(clevertap=emulator.clevertap, retry=Retry(attempts=1))
        ) as session,
    ):
        emulator.faults = {"server_error": 1.0}
        charged = session.profiles.by_event("Charged", **DAYS)
        for name, results in {"by_event": iter(charged), "pages": charged.pages()}.items():
            with pytest.raises(ServerError):
                next(results)
            with pytest.raises(RuntimeError, match=CUT_OFF.format(name, "ServerError")):
                next(results, None)
            with pytest.raises(RuntimeError, match=CUT_OFF.format(name, "ServerError")):
                _ = [*results]
    assert "read to its end" not in caplog.text


READ_BEFORE = "<results of {0}>: read to its end before, and yields nothing more; call {0} again"


@pytest.mark.anyio
async def test_results_that_are_read_again_after_their_end_warn_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with Emulator(people=60) as emulator:
        async with Session(clevertap=emulator.clevertap, alta=emulator.alta) as session:
            people = [person async for person in charged(session)]
            keys = [person.identity for person in people if person.identity]
            calls: dict[str, list[Any]] = {
                "get_many": [
                    session.profiles.get_many(keys, by="identity"),
                    session.cdp.get_many(keys, by="user_id"),
                ],
                "with_cdp": [session.with_cdp(people)],
                "pages": [charged(session).pages()],
            }
            for name, several in calls.items():
                for results in several:
                    await anext(results)
                    assert [one async for one in results] or name == "pages"
                    assert caplog.messages == []
                    assert [one async for one in results] == []
                    assert [one async for one in results] == []
                    with pytest.raises(StopAsyncIteration):
                        await anext(results)
                    assert caplog.messages == [READ_BEFORE.format(name)]
                    caplog.clear()
            nobody = session.profiles.get_many([], by="identity")
            again = charged(session)
            for _ in range(2):
                assert [one async for one in nobody] == []
                assert [one async for one in again]
            found = session.profiles.get_many(keys, by="identity")
            values = [one.value async for one in found if one.value]
            assert [one async for one in session.with_cdp(found)] == []  # type: ignore[arg-type]
            assert caplog.messages == [READ_BEFORE.format("get_many")]
    assert values


def test_blocking_results_that_are_read_again_after_their_end_warn_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with (
        emulated(people=60) as emulator,
        altaprofiles.blocking(
            lambda: Session(clevertap=emulator.clevertap, alta=emulator.alta)
        ) as session,
    ):
        people = [*session.profiles.by_event("Charged", **DAYS)]
        keys = [person.identity for person in people if person.identity]
        calls: dict[str, list[Any]] = {
            "get_many": [
                session.profiles.get_many(keys, by="identity"),
                session.cdp.get_many(keys, by="user_id"),
            ],
            "with_cdp": [
                session.with_cdp(people),
                session.with_cdp(session.profiles.by_event("Charged", **DAYS)),
            ],
            "pages": [session.profiles.by_event("Charged", **DAYS).pages()],
        }
        for name, several in calls.items():
            for results in several:
                assert next(results)
                assert [*results] or name == "pages"
                assert caplog.messages == []
                assert [*results] == [*results] == []
                with pytest.raises(StopIteration):
                    next(results)
                assert caplog.messages == [READ_BEFORE.format(name)]
                caplog.clear()
        left = session.profiles.get_many(map(str, range(10_000)), by="identity")
        assert next(left)
        left.close()
        assert [*left] == []
        table: Any = pyarrow.table({"identity": keys})
        with pytest.raises(InvalidArgument, match=r"^profiles: .* pass the people themselves"):
            session.with_cdp(table)


def test_a_session_is_not_opened_with_a_plain_with() -> None:
    session: Any = new_session()
    with pytest.raises(TypeError, match=r"`async with`.*altaprofiles\.blocking"):
        with session:
            pass


@pytest.mark.anyio
async def test_a_blocking_session_is_not_opened_with_async_with() -> None:
    opening: Any = altaprofiles.blocking(Session.from_env)
    with pytest.raises(TypeError, match=r"async with Session\.from_env\(\)"):
        async with opening:
            pass


def test_an_open_blocking_session_is_not_entered_in_either_way() -> None:
    async def main(session: Any) -> None:
        async with session:
            pass

    with altaprofiles.blocking(new_session) as session:
        with pytest.raises(TypeError, match=r"async with Session\.from_env\(\)"):
            asyncio.run(main(session))


NAMED: dict[str, tuple[str, ...]] = {
    "export": ("format", "write", "on_shortfall", "windows", "cdp_by"),
    "export_lookups": ("format", "write", "by", "cdp_by"),
    "sync": ("format", "windows", "cdp_by"),
}
POSITIONAL: dict[str, tuple[Any, dict[str, Any]]] = {
    "export": ("Charged", DAYS),
    "export_lookups": (["1"], {"by": "identity"}),
    "sync": ("Charged", {"since": 20260101, "timezone": "UTC"}),
}


@pytest.mark.parametrize(
    ("method", "argument"), [(method, name) for method, names in NAMED.items() for name in names]
)
def test_a_wrong_literal_is_named_at_run_time(method: str, argument: str, tmp_path: Path) -> None:
    first, others = POSITIONAL[method]
    arguments = {"to": tmp_path / "x.duckdb", "with_cdp": True, **others, argument: "Wrong"}
    with altaprofiles.blocking(new_session) as session:
        with pytest.raises(InvalidArgument, match=rf"^{argument}: .*'Wrong'"):
            getattr(session, method)(first, **arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_format_of_an_output_that_is_read_is_named(tmp_path: Path) -> None:
    output = tmp_path / "people.csv"
    output.write_text("identity\n")
    wrong: Any = "parket"
    with pytest.raises(InvalidArgument, match=r"format: unknown format 'parket'.*'parquet'"):
        stored(str(output), format=wrong)


# -------------------------------------------------------------------------------- other event loops

CALLS: dict[str, Callable[[Session], Awaitable[Any]]] = {
    "async with": lambda session: session.__aenter__(),
    "get": lambda session: session.profiles.get(identity="1"),
    "get, deadline": lambda session: session.profiles.get(identity="1", deadline=5.0),
    "count": lambda session: session.profiles.count("Charged", **DAYS),
    "cdp.get": lambda session: session.cdp.get(user_id="1"),
    "who_is": lambda session: session.who_is(identity="1"),
    "export": lambda session: session.export("Charged", **DAYS, to="people.ndjson"),
    "export_lookups": lambda session: session.export_lookups(["1"], by="email", to="found.csv"),
    "sync": lambda session: session.sync("Charged", since=20260101, to="people.duckdb"),
    "by_event": lambda session: anext(aiter(charged(session))),
    "pages": lambda session: anext(charged(session).pages()),
    "get_many": lambda session: anext(session.profiles.get_many(["1"], by="identity")),
    "cdp.get_many": lambda session: anext(session.cdp.get_many(["1"], by="user_id")),
    "with_cdp": lambda session: anext(session.with_cdp([Profile.decode(b'{"identity": "1"}')])),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_trio_is_refused(
    call: Callable[[Session], Awaitable[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    async def main() -> None:
        await call(new_session())

    with pytest.raises(ConfigurationError, match=r"trio is not supported.*asyncio\.run"):
        trio.run(main)
    with pytest.raises(ConfigurationError, match="trio is not supported"):
        anyio.run(main, backend="trio")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_no_event_loop_at_all_is_refused(
    call: Callable[[Session], Awaitable[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def step() -> None:
        awaited = call(new_session()).__await__()
        next(iter(awaited))

    with pytest.raises(ConfigurationError, match=r"no event loop of asyncio.*asyncio\.run"):
        step()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.anyio
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_trio_inside_asyncio_is_refused_with_an_open_session(
    call: Callable[[Session], Awaitable[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a notebook with `%autoawait trio`."""
    monkeypatch.chdir(tmp_path)

    async def main() -> None:
        await call(session)

    async with scripted(always(http(b"{}"))) as server:
        clevertap = CleverTap("W9R", "pass-word", base_url=server.url)
        async with Session(clevertap=clevertap, alta=Alta("t", base_url=server.url)) as session:
            with pytest.raises(ConfigurationError, match="trio is not supported"):
                trio.run(main)
        assert server.heads == []


def test_the_emulator_and_the_recorder_name_the_loop_that_they_need(tmp_path: Path) -> None:
    async def main(server: Emulator | Recorder) -> None:
        async with server:
            pass

    for server in (Emulator(people=1), Recorder(tmp_path / "run.ndjson", alta=Alta("to-ken"))):
        with pytest.raises(RuntimeError, match=r"does not run on trio; .*asyncio\.run"):
            trio.run(main, server)


def test_a_blocking_session_does_not_stop_a_loop_of_trio() -> None:
    async def main() -> None:
        with altaprofiles.blocking(new_session):
            pass

    with pytest.raises(ConfigurationError, match=r"trio\.to_thread\.run_sync"):
        trio.run(main)


def test_a_blocking_session_serves_trio_from_a_thread() -> None:
    def look_up() -> str:
        with altaprofiles.blocking(new_session) as session:
            return repr(session.stats)

    assert trio.run(trio.to_thread.run_sync, look_up).startswith("Stats(requests=0")


# --------------------------------------------------------------------------------------------- repr


@pytest.mark.anyio
async def test_a_session_shows_whether_it_is_open_and_no_secret() -> None:
    session = new_session()
    shown = [repr(session)]
    async with session:
        shown += [repr(session), repr(session.with_options(deadline=2.0))]
    shown.append(repr(session))
    assert [text.endswith(", open)") for text in shown] == [False, True, True, False]
    assert shown[-1].endswith(", closed)")
    for text in shown:
        assert "account_id='W9R'" in text
        assert "pass-word" not in text
        assert "to-ken" not in text


def test_a_query_shows_its_event_and_days_but_no_value_of_a_filter() -> None:
    session = new_session()
    people = session.profiles.by_event(
        "Charged",
        start=20260101,
        end=20260131,
        event_properties=[Filter("Amount", "greater_than", 4711)],
        profile_fields=[Filter("Email", "equals", "ann@example.com")],
        cursor="a%2Fcursor",
    )
    text = repr(people)
    for part in ("Charged", "20260101", "20260131", "Amount", "greater_than", "Email", "equals"):
        assert part in text
    for part in ("4711", "ann@", "a%2Fcursor"):
        assert part not in text
    assert repr(session.profiles.everyone()) == "EventProfiles(everyone)"
    assert repr(aiter(session.profiles.everyone())) == "<results of everyone>"
    assert repr(aiter(charged(session))) == "<results of by_event>"


def test_a_page_that_is_read_like_a_list_names_its_people() -> None:
    page: Any = Page([b'{"identity": "7"}'], b"", "c1", None)
    fault = r"Page\(1 .*\) is not read with `for`, `in` or an index: `page\.profiles` is the list"
    for wrong in (lambda: [*page], lambda: page[0], lambda: "7" in page, lambda: next(iter(page))):
        with pytest.raises(TypeError, match=fault):
            wrong()
    assert not isinstance(page, Iterable)
    assert [person.identity for person in page.profiles] == ["7"]


def test_no_object_of_the_package_shows_its_address_alone() -> None:
    session = Session(alta=Alta("to-ken"))
    page = Page([b'{"identity": "7"}'] * 5000, b"", "c1", None)
    emulator = Emulator(people=3)
    shown = {
        "Profiles": repr(session.profiles),
        "Cdp": repr(session.cdp),
        "results": repr(session.cdp.get_many([], by="user_id")),
        "Page": repr(page),
        "Stats": repr(session.stats),
        "blocking": repr(altaprofiles.blocking(new_session)),
        "hook": repr(altaprofiles.otel.hook()),
        "Progress": repr(Progress()),
        "Emulator": repr(emulator),
        "Population": repr(emulator.population),
        "Bindings": repr(emulator.bindings),
        "Recorder": repr(Recorder("run.ndjson", alta=Alta("to-ken"))),
    }
    with altaprofiles.blocking(new_session) as blocked:
        shown["BlockingSession"] = repr(blocked)
        shown["BlockingProfiles"] = repr(blocked.profiles)
        shown["BlockingCdp"] = repr(blocked.cdp)
        shown["BlockingEventProfiles"] = repr(blocked.profiles.everyone())
    for name, text in shown.items():
        assert name in text, text
        assert " at 0x" not in text
        assert "to-ken" not in text
        assert len(text) < 300
    for public in altaprofiles.__all__:
        value = getattr(altaprofiles, public)
        if inspect.isclass(value) and not issubclass(value, dict):
            assert value.__repr__ is not object.__repr__, public


def test_a_blocking_session_that_is_not_opened_says_how_to_open_it() -> None:
    with pytest.raises(AttributeError, match=r"'profiles' .* `with blocking\(…\) as session:`"):
        _ = altaprofiles.blocking(new_session).profiles  # type: ignore[attr-defined]
