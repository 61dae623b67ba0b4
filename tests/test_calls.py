"""Every error of a call names its service and operation, whatever the call and the fault."""

from __future__ import annotations

import ast
import asyncio
import errno
import inspect
import os
import resource
import socket
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

import altaprofiles
from altaprofiles import (
    Alta,
    AltaProfilesError,
    CleverTap,
    ConfigurationError,
    ConnectError,
    CursorExpired,
    CursorLoop,
    DecodeError,
    EventQuery,
    ExportError,
    ExportLocked,
    Forbidden,
    Incomplete,
    InvalidArgument,
    MissingCredentials,
    NotReady,
    Profile,
    RateLimited,
    RequestTimeout,
    ResponseTooLarge,
    Retry,
    ServerError,
    Session,
    SessionClosed,
    Timeout,
    TransportError,
    Unauthorized,
    blocking,
)
from altaprofiles.cdp import Cdp
from altaprofiles.emulator import Emulator
from altaprofiles.profiles import EventProfiles, Profiles

from .support.servers import Answer, always, http, scripted
from .support.sessions import EVENT, RANGE, session_for

pytestmark = pytest.mark.anyio

ONCE = Retry(attempts=1, base_delay=0.0, ready_timeout=0.0, throttle_timeout=0.0)
OPERATIONS = {
    "CleverTap": {"open_chain", "get_page", "get_profile", "count"},
    "Alta": {"get_user_cdp"},
}
PERSON = Profile.decode(b'{"identity":"7","platformInfo":[{"objectId":"d"}]}')

Call = Callable[..., AsyncIterator[Any]]
"""Yields the errors of results, or raises that of the call. Takes arguments besides."""


async def one(result: Awaitable[Any]) -> AsyncIterator[Any]:
    await result
    nothing: list[Any] = []
    for none in nothing:
        yield none


async def many(results: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for result in results:
        if getattr(result, "error", None) is not None:
            yield result.error


def calls(session: Any, folder: Path) -> dict[tuple[str, str], Call]:
    """Return every call of a session, by its service and its name."""
    profiles, cdp, days = session.profiles, session.cdp, {"to": folder / "p.csv", **RANGE}
    found = folder / "found.ndjson"
    return {
        ("CleverTap", "get"): lambda **o: one(profiles.get(**{"identity": "7"} | o)),
        ("CleverTap", "get_many"): lambda **o: many(
            profiles.get_many(**{"keys": ["7"], "by": "email"} | o)
        ),
        ("CleverTap", "by_event"): lambda **o: many(
            aiter(profiles.by_event(**{"event": EVENT, **RANGE} | o))
        ),
        ("CleverTap", "by_event, resumed"): lambda **o: many(
            aiter(profiles.by_event(**{"event": EVENT, "cursor": "c", **RANGE} | o))
        ),
        ("CleverTap", "by_query"): lambda **o: many(
            aiter(profiles.by_query(**{"query": EventQuery.of(EVENT, **RANGE)} | o))
        ),
        ("CleverTap", "pages"): lambda **o: many(profiles.everyone(**o).pages()),
        ("CleverTap", "count"): lambda **o: one(profiles.count(**{"event": EVENT, **RANGE} | o)),
        ("Alta", "get"): lambda **o: one(cdp.get(**{"user_id": "7"} | o)),
        ("Alta", "get_many"): lambda **o: many(
            cdp.get_many(**{"keys": ["7"], "by": "anonymous_id"} | o)
        ),
        ("Alta", "with_cdp"): lambda **o: many(session.with_cdp(**{"profiles": [PERSON]} | o)),
        ("CleverTap", "who_is"): lambda **o: one(session.who_is(**o or {"email": "a@b.c"})),
        ("Alta", "who_is"): lambda **o: one(session.who_is(**o or {"anonymous_id": "a"})),
        ("CleverTap", "export"): lambda **o: one(session.export(**{"events": EVENT, **days} | o)),
        ("CleverTap", "export_lookups"): lambda **o: one(
            session.export_lookups(**{"keys": ["7"], "by": "identity", "to": found} | o)
        ),
        ("Alta", "export_lookups"): lambda **o: one(
            session.export_lookups(**{"keys": ["7"], "by": "user_id", "to": found} | o)
        ),
        ("CleverTap", "sync"): lambda **o: one(
            session.sync(
                **{
                    "events": EVENT,
                    "since": RANGE["start"],
                    "until": RANGE["end"],
                    "to": f"{folder}/days/",
                    "timezone": "UTC",
                }
                | o
            )
        ),
    }


async def errors_of(call: Call, **arguments: Any) -> list[AltaProfilesError]:
    try:
        return [error async for error in call(**arguments)]
    except AltaProfilesError as error:
        return [error]


def check(errors: list[AltaProfilesError], service: str, *kinds: type[Exception]) -> None:
    assert errors
    for error in errors:
        assert isinstance(error, kinds), repr(error)
        assert error.service == service, repr(error)
        assert error.operation in OPERATIONS[service], (repr(error), error.operation)


def session_at(url: str, **options: Any) -> Session:
    return Session(
        clevertap=CleverTap("TEST", "PASS", base_url=url),
        alta=Alta("TOKEN-OF-A-TEST", base_url=url),
        **{"retry": ONCE, **options},
    )


# ------------------------------------------------------------------------------- faults of requests

STATUSES: dict[str, tuple[bytes, type[AltaProfilesError]]] = {
    "401": (http(b'{"code":40127,"message":"no","error":"no"}', "401 Unauthorized"), Unauthorized),
    "403": (http(b'{"code":20022,"error":"no"}', "403 Forbidden"), Forbidden),
    "429": (http(b'{"error":"Too many"}', "429 Too Many Requests"), RateLimited),
    "503": (http(b"", "503 Service Unavailable"), ServerError),
    "garbled": (http(b'{"cursor'), DecodeError),
    "not HTTP": (b"SSH-2.0-OpenSSH\r\n\r\n", TransportError),
    "too large": (http(b" " * 2_000), ResponseTooLarge),
}


@pytest.mark.parametrize("fault", STATUSES)
async def test_answers(fault: str, tmp_path: Path) -> None:
    answer, kind = STATUSES[fault]
    async with (
        scripted(always(answer)) as server,
        session_at(server.url, max_response_bytes=1_000) as session,
    ):
        for (service, _), call in calls(session, tmp_path).items():
            check(await errors_of(call), service, kind, Incomplete)


def frames_of(error: BaseException) -> list[traceback.FrameSummary]:
    return [*traceback.extract_tb(error.__traceback__)]


def check_frames(error: BaseException, most: int) -> None:
    """Check that a cell of a notebook can show an error, with those that it was raised from."""
    package = Path(altaprofiles.__file__).parent
    inside = [one for one in frames_of(error) if package in Path(one.filename).parents]
    assert len(inside) <= most, inside
    while (cause := shown_above(error)) is not None:
        assert len(frames_of(cause)) <= 1, frames_of(cause)
        error = cause


def shown_above(error: BaseException) -> BaseException | None:
    return error.__cause__ or (None if error.__suppress_context__ else error.__context__)


@pytest.mark.parametrize("fault", STATUSES)
async def test_a_refusal_has_a_traceback_that_a_cell_of_a_notebook_can_show(
    fault: str, tmp_path: Path
) -> None:
    answer, kind = STATUSES[fault]
    async with (
        scripted(always(answer)) as server,
        session_at(server.url, max_response_bytes=1_000) as session,
    ):
        for call in calls(session, tmp_path).values():
            for error in await errors_of(call):
                assert isinstance(error, (kind, Incomplete))
                check_frames(error, 4)


async def test_so_has_an_export_that_cannot_go_on(tmp_path: Path) -> None:
    async with Emulator(people=1500, seed=2) as emulator, session_for(emulator) as session:
        for name, call in calls(session, tmp_path).items():
            if name[1] in {"export", "export_lookups", "sync"}:
                [late] = await errors_of(call, deadline=1e-9)
                assert isinstance(late, Incomplete)
                check_frames(late, 2)

        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
        try:
            with pytest.raises(Incomplete) as full:
                await session.export(EVENT, **RANGE, to=tmp_path / "full.ndjson")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        check_frames(full.value, 2)
        # The disk's own error is there, with its code and file, and once.
        assert isinstance(full.value.__cause__, OSError)
        assert full.value.__cause__.errno == errno.EFBIG
        assert str(tmp_path) in full.value.__cause__.filename
        assert shown_above(full.value.__cause__) is None

        table = tmp_path / "p.duckdb"
        await session.export(EVENT, **RANGE, to=table)
        with duckdb.connect(table), pytest.raises(ExportError) as opened:
            await session.export("Charged", **RANGE, to=table)
        check_frames(opened.value, 2)

    asked = asyncio.Event()

    async def never(head: bytes, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await asyncio.Event().wait()

    async with scripted(never) as server, session_at(server.url) as session:
        to = tmp_path / "held.ndjson"
        held = asyncio.create_task(session.export(EVENT, **RANGE, to=to))
        await asked.wait()
        with pytest.raises(ExportLocked) as locked:
            await session.export(EVENT, **RANGE, to=to)
        check_frames(locked.value, 2)
        held.cancel()
        await asyncio.wait([held])


@pytest.mark.parametrize("fault", ["a loop", "an expired cursor", "no records", "not ready"])
async def test_so_has_a_chain_that_cannot_go_on(fault: str, tmp_path: Path) -> None:
    async with scripted(CHAINS[fault][0]) as server, session_at(server.url) as session:
        found = calls(session, tmp_path)
        for name in ("by_event", "by_query", "pages", "export", "sync"):
            for error in await errors_of(found["CleverTap", name]):
                check_frames(error, 4)


def test_so_has_a_blocking_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with blocking(lambda: session_at("http://127.0.0.1:9")) as session:
        with pytest.raises(Incomplete) as late:
            session.export(EVENT, **RANGE, to=tmp_path / "p.csv", deadline=1e-9)
        check_frames(late.value, 2)
        with pytest.raises(ConnectError) as refused:
            session.profiles.get(identity="7")
        check_frames(refused.value, 2)
        with pytest.raises(ConnectError) as unread:
            [*session.profiles.everyone()]
        check_frames(unread.value, 4)
    for variable in [name for name in os.environ if name.startswith(("CLEVERTAP_", "ALTA_"))]:
        monkeypatch.delenv(variable)
    with pytest.raises(MissingCredentials) as missing, blocking(Session.from_env):
        pass
    check_frames(missing.value, 2)


async def test_what_is_the_caller_s_keeps_its_frames(tmp_path: Path) -> None:
    def broken() -> Iterator[str]:
        yield "7"
        raise InvalidArgument("mine")

    def fail(attempt: Any) -> None:
        raise AssertionError("mine")

    async with session_at("http://127.0.0.1:9", on_event=fail) as session:
        with pytest.raises(InvalidArgument) as caught:
            await session.export_lookups(broken(), by="identity", to=tmp_path / "x.ndjson")
        assert frames_of(caught.value)[-1].name == "broken"
        with pytest.raises(AssertionError) as failed:
            await session.profiles.get(identity="7")
        names = [Path(one.filename).name for one in frames_of(failed.value)]
        assert {"profiles.py", "engine.py", "hooks.py"} <= {*names}
        # So does an error that the caller was handling.
        with pytest.raises(Incomplete) as late:
            try:
                (tmp_path / "missing").read_text()
            except FileNotFoundError:
                await session.export(EVENT, **RANGE, to=tmp_path / "p.csv", deadline=1e-9)
        handled = late.value.__context__
        assert isinstance(handled, FileNotFoundError)
        assert "pathlib" in frames_of(handled)[-1].filename


async def test_a_stopped_call_has_a_traceback_that_a_cell_of_a_notebook_can_show(
    tmp_path: Path,
) -> None:
    package = Path(altaprofiles.__file__).parent
    asked = asyncio.Event()

    async def silent(head: bytes, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await silence(head, writer)

    async with scripted(silent) as server, session_at(server.url) as session:
        for call in calls(session, tmp_path).values():
            asked.clear()
            cell = asyncio.ensure_future(errors_of(call))
            await asked.wait()
            cell.cancel()
            with pytest.raises(asyncio.CancelledError) as caught:
                await cell
            files = [Path(one.filename) for one in frames_of(caught.value)]
            assert len([file for file in files if package in file.parents]) <= 2, files


async def test_a_closed_port_is_not_the_disk(tmp_path: Path) -> None:
    # Nobody listens, and nobody else can.
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        async with session_at(f"http://127.0.0.1:{bound.getsockname()[1]}") as session:
            for (service, name), call in calls(session, tmp_path).items():
                kinds = (ConnectError, Incomplete) if name == "export_lookups" else (ConnectError,)
                errors = await errors_of(call)
                check(errors, service, *kinds)
                assert all("no connection" in str(e) or "no answer" in str(e) for e in errors)
    assert not list(tmp_path.rglob("*.csv*"))


async def silence(head: bytes, writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def test_a_silent_service_is_not_the_disk(tmp_path: Path) -> None:
    timeout = Timeout(read=0.05)
    async with scripted(silence) as server, session_at(server.url, timeout=timeout) as session:
        for (service, _), call in calls(session, tmp_path).items():
            check(await errors_of(call), service, RequestTimeout, Incomplete)


async def test_a_deadline(tmp_path: Path) -> None:
    limited = {"get", "count", "export", "export_lookups", "sync"}
    async with scripted(silence) as server, session_at(server.url) as session:
        for (service, name), call in calls(session, tmp_path).items():
            if name in limited:
                check(await errors_of(call, deadline=0.05), service, RequestTimeout, Incomplete)
        for service, key in (("CleverTap", "identity"), ("Alta", "anonymous_id")):
            who = calls(session, tmp_path)[service, "who_is"]
            check(await errors_of(who, **{key: "7"}, deadline=0.05), service, RequestTimeout)


def chain(page: bytes, count: bytes = b'{"status":"success","count":5}') -> Answer:
    """Return an answer that opens chains, sends `page` as each of their pages, and counts."""

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        if head.startswith(b"POST /1/counts"):
            writer.write(http(count))
        elif head.startswith(b"POST"):
            writer.write(http(b'{"status":"success","cursor":"c"}'))
        else:
            writer.write(page)

    return answer


CHAINS: dict[str, tuple[Answer, type[AltaProfilesError]]] = {
    "a loop": (
        chain(http(b'{"status":"success","next_cursor":"c","records":[{"identity":"7"}]}')),
        CursorLoop,
    ),
    "an expired cursor": (
        chain(http(b'{"status":"fail","error":"no","code":"CURSOR_EXPIRED"}', "400 Bad Request")),
        CursorExpired,
    ),
    "no records": (chain(http(b'{"status":"success","records":[]}')), Incomplete),
    "not ready": (
        chain(http(b'{"status":"fail","error":"Request still in progress","code":2}')),
        NotReady,
    ),
}


@pytest.mark.parametrize("fault", CHAINS)
async def test_chains(fault: str, tmp_path: Path) -> None:
    answer, kind = CHAINS[fault]
    async with scripted(answer) as server, session_at(server.url) as session:
        found = calls(session, tmp_path)
        for name in ("by_event", "by_query", "pages", "export", "sync"):
            check(await errors_of(found["CleverTap", name]), "CleverTap", kind, Incomplete)


async def test_a_count_that_is_not_ready(tmp_path: Path) -> None:
    pending = b'{"status":"partial","req_id":7}'
    async with (
        scripted(chain(http(pending), pending)) as server,
        session_at(server.url) as session,
    ):
        counting = calls(session, tmp_path)["CleverTap", "count"]
        check(await errors_of(counting), "CleverTap", NotReady)


# ----------------------------------------------------------------------------- faults before them

INVALID: dict[str, dict[str, Any]] = {
    "get": {"deadline": "2"},
    "get_many": {"concurrency": 0},
    "by_event": {"start": "soon"},
    "by_event, resumed": {"cursor": ""},
    "by_query": {"query": "Charged"},
    "pages": {"batch_size": 1},
    "count": {"start": "soon"},
    "with_cdp": {"profiles": 7},
    "export": {"to": ""},
    "export_lookups": {"keys": 7},
    "sync": {"late_days": -1},
}


async def test_an_invalid_argument(tmp_path: Path) -> None:
    async with session_at("http://127.0.0.1:9") as session:
        for (service, name), call in calls(session, tmp_path).items():
            wrong = INVALID.get(name) or {"email" if service == "CleverTap" else "user_id": " "}
            check(await errors_of(call, **wrong), service, InvalidArgument)
        # The key of a bulk lookup is an argument as well.
        found = calls(session, tmp_path)
        for service in ("CleverTap", "Alta"):
            check(await errors_of(found[service, "get_many"], keys=[""]), service, InvalidArgument)
        several: list[dict[str, Any]] = [{}, {"email": "a@b.c", "user_id": "u"}]
        for keys in several:
            with pytest.raises(InvalidArgument) as raised:
                await session.who_is(**keys)
            assert (raised.value.service, raised.value.operation) == (None, None)


async def test_a_session_without_the_service(tmp_path: Path) -> None:
    credentials: dict[str, Any] = {
        "CleverTap": {"alta": Alta("TOKEN-OF-A-TEST")},
        "Alta": {"clevertap": CleverTap("TEST", "PASS")},
    }
    for service, others in credentials.items():
        async with Session(**others) as session:
            for (of, _), call in calls(session, tmp_path).items():
                if of == service:
                    check(await errors_of(call), service, MissingCredentials)
    async with Session(clevertap=CleverTap("TEST", "PASS")) as session:
        export = calls(session, tmp_path)["CleverTap", "export"]
        check(await errors_of(export, with_cdp=True), "Alta", MissingCredentials)


@pytest.mark.parametrize("state", ["new", "closed"])
async def test_a_session_that_is_not_open(state: str, tmp_path: Path) -> None:
    session = session_at("http://127.0.0.1:9")
    if state == "closed":
        async with session:
            pass
    for (service, _), call in calls(session, tmp_path).items():
        check(await errors_of(call), service, SessionClosed)


async def test_a_session_that_is_closed_meanwhile(tmp_path: Path) -> None:
    received = asyncio.Semaphore(0)

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        received.release()
        await asyncio.Event().wait()

    async with scripted(answer) as server:
        for service, name in calls(session_at(server.url), tmp_path):
            # One slot: of two calls, one is on its way, and one waits for its turn.
            session = Session(
                clevertap=CleverTap("TEST", "PASS", base_url=server.url, max_in_flight=1),
                alta=Alta("TOKEN-OF-A-TEST", base_url=server.url, max_in_flight=1),
                retry=ONCE,
            )
            async with session:
                tasks = []
                for number in range(2):
                    folder = tmp_path / f"{service}-{name}-{number}"
                    folder.mkdir()
                    call = calls(session, folder)[service, name]
                    tasks.append(asyncio.create_task(errors_of(call)))
                await received.acquire()
            for task in tasks:
                check(await task, service, SessionClosed)


def test_a_blocking_session_that_is_closed(tmp_path: Path) -> None:
    with blocking(lambda: session_at("http://127.0.0.1:9")) as session:
        reading = session.profiles.by_event(EVENT, **RANGE)
    found: dict[tuple[str, str], Callable[[], Any]] = {
        ("CleverTap", "get"): lambda: session.profiles.get(identity="7"),
        ("CleverTap", "count"): lambda: session.profiles.count(EVENT, **RANGE),
        ("CleverTap", "get_many"): lambda: [*session.profiles.get_many(["7"], by="identity")],
        ("CleverTap", "by_event"): lambda: [*reading],
        ("CleverTap", "pages"): lambda: [*session.profiles.everyone().pages()],
        ("CleverTap", "who_is"): lambda: session.who_is(email="a@b.c"),
        ("CleverTap", "export"): lambda: session.export(EVENT, **RANGE, to=tmp_path / "p.csv"),
        ("CleverTap", "sync"): lambda: session.sync(EVENT, since=20260101, to="c.duckdb"),
        ("CleverTap", "lookups"): lambda: session.export_lookups(
            ["7"], by="email", to=tmp_path / "p.csv"
        ),
        ("Alta", "get"): lambda: session.cdp.get(user_id="7"),
        ("Alta", "get_many"): lambda: [*session.cdp.get_many(["7"], by="user_id")],
        ("Alta", "with_cdp"): lambda: [*session.with_cdp([PERSON])],
        ("Alta", "who_is"): lambda: session.who_is(user_id="7"),
        ("Alta", "lookups"): lambda: session.export_lookups(
            ["7"], by="user_id", to=tmp_path / "p.csv"
        ),
    }
    for (service, _), call in found.items():
        with pytest.raises(SessionClosed) as raised:
            call()
        check([raised.value], service, SessionClosed)


async def test_an_unfinished_export(tmp_path: Path) -> None:
    to = tmp_path / "p.csv"
    async with Emulator(people=50, seed=2) as emulator:
        async with session_for(emulator) as session:

            def stop(progress: Any) -> None:
                if progress.records:
                    raise KeyError

            with pytest.raises(KeyError):
                await session.export(
                    EVENT, **RANGE, to=to, batch_size=23, windows=1, on_progress=stop
                )
        [left] = altaprofiles.unfinished_in(to)
        with pytest.raises(SessionClosed) as closed:
            await session.finish_unfinished(left, to=to)
        check([closed.value], "CleverTap", SessionClosed)
        async with session_at(emulator.url) as other:
            with pytest.raises(ConfigurationError, match="is an export of the account") as raised:
                await other.finish_unfinished(left, to=to)
            check([raised.value], "CleverTap", ConfigurationError)
        async with session_for(emulator) as session:
            with pytest.raises(Incomplete) as late:
                await session.finish_unfinished(left, to=to, deadline=1e-9)
            check([late.value], "CleverTap", Incomplete)
            assert (await session.finish_unfinished(left, to=to)).complete


# ---------------------------------------------------------------------------------- wrong arguments

METHODS = [
    method
    for owner in (Session, Profiles, Cdp, EventProfiles)
    for name, method in inspect.getmembers(owner, inspect.isfunction)
    if "_altaprofiles_name_of" in vars(method)
]
WRONG: list[tuple[list[Any], dict[str, Any]]] = [
    ([1] * 9, {}),
    ([], {"no_such_argument": 1}),
    ([1], {"unfinished": 1, "events": 1, "event": 1, "keys": 1, "profiles": 1, "email": 1, "x": 1}),
]


def test_every_named_method_is_looked_at() -> None:
    names = {method.__name__ for method in METHODS}
    assert {"who_is", "export_lookups", "finish_unfinished", "get", "count", "pages"} <= names


@pytest.mark.parametrize("wrong", WRONG, ids=["too many", "unknown", "twice"])
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.__qualname__)
def test_wrong_arguments_are_refused_in_the_name_of_the_method(
    method: Callable[..., Any], wrong: tuple[list[Any], dict[str, Any]]
) -> None:
    arguments, named = wrong

    async def call() -> None:
        result = method(object(), *arguments, **named)
        if inspect.isawaitable(result):
            await result

    with pytest.raises(TypeError, match=rf"^{method.__qualname__}\(\) (takes|got|missing)"):
        asyncio.run(call())


@pytest.mark.parametrize("wrong", WRONG[:2], ids=["too many", "unknown"])
@pytest.mark.parametrize("name", ["who_is", "export_lookups", "finish_unfinished"])
def test_a_blocking_session_refuses_them_as_well(
    name: str, wrong: tuple[list[Any], dict[str, Any]]
) -> None:
    def make_session() -> Session:
        return session_at("http://127.0.0.1:9")

    with blocking(make_session) as session, pytest.raises(TypeError, match=rf"Session\.{name}\(\)"):
        getattr(session, name)(*wrong[0], **wrong[1])


# ------------------------------------------------------------------------------------- the OSErrors

PACKAGE = Path(altaprofiles.__file__).parent
OF_THE_SYSTEM = {
    "OSError",
    "TimeoutError",
    "ConnectionError",
    "ConnectionRefusedError",
    "ConnectionResetError",
}
BY_HAND = {"cli/doctor/connection.py", "cli/commands/emulator.py"}
"""Connections of their own, without a call of a service."""


def trees() -> Iterator[tuple[str, ast.AST]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if not name.startswith("emulator/") and name not in BY_HAND:
            yield name, ast.parse(path.read_text())


def names_in(node: ast.AST | None) -> set[str]:
    return set() if node is None else {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}


def waits(body: list[ast.stmt]) -> bool:
    return any(
        isinstance(node, ast.Await | ast.AsyncFor | ast.AsyncWith)
        for statement in body
        for node in ast.walk(statement)
    )


def test_nothing_that_catches_errors_of_the_disk_waits_for_a_service() -> None:
    found = []
    for name, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Try):
                caught: set[str] = set()
                for handler in node.handlers:
                    kinds = names_in(handler.type)
                    is_first = (
                        not caught & {"AltaProfilesError"} and "AltaProfilesError" not in kinds
                    )
                    if kinds & OF_THE_SYSTEM and is_first and waits(node.body):
                        found.append(f"{name}:{handler.lineno}")
                    caught |= kinds
            elif isinstance(node, ast.With):
                manager = {n for item in node.items for n in names_in(item.context_expr)}
                is_catching = "explaining_disk_errors" in manager or (
                    "suppress" in manager and manager & OF_THE_SYSTEM
                )
                if is_catching and waits(node.body):
                    found.append(f"{name}:{node.lineno}")
    assert found == []
