"""A session for code without an event loop."""

from __future__ import annotations

import asyncio
import gc
import inspect
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import altaprofiles
from altaprofiles import (
    BlockingCdp,
    BlockingEventProfiles,
    BlockingProfiles,
    BlockingSession,
    CleverTap,
    ConfigurationError,
    EventProfiles,
    Session,
    SessionClosed,
)
from altaprofiles.cdp import Cdp
from altaprofiles.emulator import Emulator
from altaprofiles.profiles import Profiles

from .support.interruptions import AT_THE_LOOP, BEFORE_LINES
from .support.sessions import EVENT, RANGE, delivered, expected, session_for
from .support.tasks import PATIENCE
from .support.terminals import emulated, environment, held

pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.anyio]


@pytest.fixture
def service() -> Iterator[Emulator]:
    with emulated(people=300, seed=4) as emulator:
        yield emulator


@pytest.fixture
def session(service: Emulator) -> Iterator[BlockingSession]:
    with altaprofiles.blocking(partial(session_for, service)) as session:
        yield session


def identities(service: Emulator, most: int = 40) -> list[str]:
    found = (service.population.identity(index) for index in range(300))
    return [identity for identity in found if identity is not None][:most]


def test_calls_return_what_the_asynchronous_ones_do(
    session: BlockingSession, service: Emulator, tmp_path: Path
) -> None:
    [identity, *_] = identities(service)
    person = session.profiles.get(identity=identity)
    assert person is not None
    assert person.identity == identity
    assert session.profiles.get(identity="nobody") is None
    assert session.profiles.count(EVENT, **RANGE) == sum(expected(service).values())
    report = session.export(EVENT, **RANGE, to=tmp_path / "p.ndjson")
    assert report.people == sum(expected(service).values())
    looked_up = session.export_lookups([identity, "nobody"], by="identity", to=tmp_path / "q.csv")
    assert (looked_up.found, looked_up.not_found) == (1, 1)
    [customer, *_] = session.who_is(identity=identity)
    assert customer.profile is not None
    assert customer.profile.identity == identity
    users = session.cdp.get(user_id=identity)
    assert list(customer.cdp) == list(users)
    assert session.stats.requests > 0


def test_people_and_pages_are_read_with_for(session: BlockingSession, service: Emulator) -> None:
    people = session.profiles.by_event(EVENT, **RANGE, batch_size=23)
    for _ in range(2):
        assert delivered([*people]) == expected(service)
    pages = [*people.pages(decode=False)]
    assert len(pages) > 5
    assert delivered([person for page in pages for person in page.profiles]) == expected(service)
    everyone = [*session.profiles.everyone()]
    assert len(everyone) >= sum(expected(service).values())


@pytest.mark.parametrize("ordered", [False, True])
def test_keys_are_read_in_the_thread_that_reads_the_results(
    session: BlockingSession, service: Emulator, ordered: bool
) -> None:
    # A connection of SQLite refuses every other thread.
    keys = identities(service, 200)
    database = sqlite3.connect(":memory:")
    database.execute("create table keys (key text)")
    database.executemany("insert into keys values (?)", [(key,) for key in keys])
    source = (key for (key,) in database.execute("select key from keys order by rowid"))
    found = [*session.profiles.get_many(source, by="identity", ordered=ordered)]
    assert Counter(lookup.key for lookup in found) == Counter(keys)
    assert all(lookup.value is not None for lookup in found)
    if ordered:
        assert [lookup.key for lookup in found] == keys
    database.close()


def test_keys_can_come_from_the_session_itself(session: BlockingSession, service: Emulator) -> None:
    people = session.profiles.by_event(EVENT, **RANGE)
    named = (person.identity for person in people if person.identity)
    found = {lookup.key for lookup in session.cdp.get_many(named, by="user_id")}
    assert found == {person.identity for person in people if person.identity}


def test_keys_without_end_are_read_as_results_are(
    session: BlockingSession, service: Emulator
) -> None:
    read = 0

    def keys() -> Iterator[str]:
        nonlocal read
        while True:
            read += 1
            yield "nobody"

    results = session.profiles.get_many(keys(), by="identity")
    for _ in range(50):
        assert next(results).value is None
    results.close()
    assert read < 5000
    assert session.profiles.get(identity="nobody") is None


def test_an_error_of_the_keys_comes_after_the_results_before_it(session: BlockingSession) -> None:
    def keys() -> Iterator[str]:
        yield from ("a", "b")
        raise LookupError("the file ended early")

    results = session.profiles.get_many(keys(), by="identity")
    assert {next(results).key, next(results).key} == {"a", "b"}
    with pytest.raises(LookupError, match="the file ended early"):
        next(results)


def test_a_generator_of_keys_is_closed_where_its_results_are_left(session: BlockingSession) -> None:
    threads: list[int] = []

    def keys() -> Iterator[str]:
        try:
            while True:
                yield "absent"
        finally:
            threads.append(threading.get_ident())

    # Under a name of its own, of which a loop over it would go on.
    named = keys()
    with closing(session.profiles.get_many(named, by="identity")) as results:
        next(results)
    assert threads == [threading.get_ident()]
    assert next(named, None) is None


def test_customers_of_people_and_of_a_list(session: BlockingSession, service: Emulator) -> None:
    people = session.profiles.by_event(EVENT, **RANGE)
    joined = [*session.with_cdp(people)]
    assert delivered([one.profile for one in joined if one.profile]) == expected(service)
    again = [*session.with_cdp([*people], ordered=True)]
    assert [one.profile.identity for one in again if one.profile] == [
        person.identity for person in people
    ]
    assert any(one.cdp for one in joined)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda s: s.profiles.get(), "pass exactly one"),
        (lambda s: s.profiles.get_many("abc", by="identity"), "keys: expected an iterable"),
        (lambda s: s.profiles.get_many(["a"], by="name"), "by: "),
        (lambda s: s.profiles.by_event(EVENT, start=1, end=2), "start: "),
        (lambda s: s.profiles.get_many(_never(), by="identity"), "keys: .* async iterable"),
        (lambda s: s.with_cdp(_never()), "profiles: .* async iterable"),
        (lambda s: s.profiles.by_event(EVENT, **RANGE).pages(decode=3), "decode: "),
    ],
)
def test_a_wrong_argument_is_refused_at_once(
    session: BlockingSession, call: Any, words: str
) -> None:
    with pytest.raises(ConfigurationError, match=words):
        call(session)


async def _never() -> Any:
    yield "a"


def test_many_threads_share_one_session(session: BlockingSession, service: Emulator) -> None:
    keys = identities(service, 60)

    def look_up(key: str) -> str | None:
        person = session.profiles.get(identity=key)
        return None if person is None else person.identity

    with ThreadPoolExecutor(8) as threads:
        assert [*threads.map(look_up, keys)] == keys
        walks = [threads.submit(lambda: delivered([*session.profiles.by_event(EVENT, **RANGE)]))]
        walks *= 3
        assert [walk.result() for walk in walks] == [expected(service)] * 3


def test_leaving_a_loop_ends_the_chain(session: BlockingSession, service: Emulator) -> None:
    for _ in range(3):
        for _ in session.profiles.by_event(EVENT, **RANGE, batch_size=23):
            break
    # It would wait behind them otherwise, as the account has three slots.
    assert session.profiles.count(EVENT, **RANGE) == sum(expected(service).values())


@pytest.mark.parametrize("begun", [False, True])
def test_a_session_that_is_closed_says_so(service: Emulator, begun: bool) -> None:
    with altaprofiles.blocking(partial(session_for, service)) as session:
        people = iter(session.profiles.by_event(EVENT, **RANGE, batch_size=23))
        if begun:
            next(people)
    with pytest.raises(ConfigurationError, match="Session is closed"):
        session.profiles.get(identity="5555555555")
    with pytest.raises(ConfigurationError, match="Session is closed"):
        for _ in people:
            pass


def test_closing_ends_the_calls_of_other_threads() -> None:
    failures: list[Exception] = []
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"

        def make_session() -> Session:
            return Session(clevertap=CleverTap("id", "passcode", base_url=url))

        def look_up(session: BlockingSession) -> None:
            try:
                session.profiles.get(identity="5555555555")
            except Exception as error:
                failures.append(error)

        with altaprofiles.blocking(make_session) as session:
            thread = threading.Thread(target=look_up, args=[session])
            thread.start()
            connection, _ = silent.accept()
            connection.recv(10)
        thread.join(PATIENCE)
        connection.close()
    assert not thread.is_alive()
    [failure] = failures
    assert isinstance(failure, ConfigurationError)
    assert "Session is closed" in str(failure) or "Session was closed" in str(failure)


_EXPORT = """
import sys
import altaprofiles
from altaprofiles import Session

with altaprofiles.blocking(Session.from_env) as session:
    try:
        session.export("App Launched", start=20260101, end=20260131, to=sys.argv[1], batch_size=23)
    except KeyboardInterrupt:
        # The lock of the output is free again.
        print("interrupted", session.stats.requests > 0)
"""


@pytest.mark.slow
def test_an_interrupted_export_is_left_as_it_can_be_resumed(
    tmp_path: Path, service: Emulator
) -> None:
    to = tmp_path / "p.ndjson"
    command = [sys.executable, "-c", _EXPORT]
    with held(service, passing=1, holding=3) as (variables, let_pass):
        env = environment(tmp_path, variables)
        with subprocess.Popen([*command, to], env=env, stdout=subprocess.PIPE) as process:
            while not any(path.stat().st_size for path in tmp_path.glob("*.export/*/*.ndjson")):
                assert process.poll() is None
                time.sleep(0.02)
            process.send_signal(signal.SIGINT)
            output, _ = process.communicate(timeout=PATIENCE)
        assert (process.returncode, output) == (0, b"interrupted True\n")
        opened = service.stats.requests["open_chain"]
        let_pass()
        subprocess.run([*command, to], env=env, check=True, timeout=PATIENCE)
        # The chain that had a page was not begun anew.
        assert service.stats.requests["open_chain"] - opened < 3
        whole = tmp_path / "whole.ndjson"
        subprocess.run([*command, whole], env=env, check=True, timeout=PATIENCE)
    assert to.read_bytes() == whole.read_bytes()


async def test_inside_of_an_event_loop_it_names_the_other_way(service: Emulator) -> None:
    with (
        pytest.raises(
            ConfigurationError,
            match=r"event loop runs in this thread, as in a notebook; use `async with",
        ),
        altaprofiles.blocking(partial(session_for, service)),
    ):
        pass


def test_an_open_session_does_not_block_an_event_loop(session: BlockingSession) -> None:
    people = session.profiles.by_event(EVENT, **RANGE, batch_size=23)
    begun = iter(people)
    next(begun)
    uses: list[Callable[[], object]] = [
        lambda: session.profiles.get(identity="5555555555"),
        lambda: session.with_options(deadline=60).cdp.get(user_id="u"),
        lambda: session.export(EVENT, **RANGE, to="never.ndjson"),
        lambda: next(iter(people)),
        lambda: next(session.profiles.get_many(["1"], by="identity")),
        lambda: [*begun],
    ]

    async def main() -> None:
        for use in uses:
            with pytest.raises(
                ConfigurationError,
                match="event loop runs in this thread, as in a notebook; use `as",
            ):
                use()
        assert await asyncio.to_thread(session.profiles.get, identity="nobody") is None

    asyncio.run(main())
    # The iteration has ended, and the session has not.
    with pytest.raises(RuntimeError, match="cut off by ConfigurationError before"):
        _ = [*begun]
    assert session.profiles.get(identity="nobody") is None


def test_what_blocking_returns_can_be_entered_again(service: Emulator) -> None:
    opening = altaprofiles.blocking(partial(session_for, service))
    for _ in range(2):
        with opening as session:
            assert session.profiles.get(identity="nobody") is None
            with pytest.raises(SessionClosed, match=r"call blocking\(…\) again"), opening:
                pass
            assert session.profiles.get(identity="nobody") is None
        with pytest.raises(SessionClosed):
            session.profiles.get(identity="nobody")


def test_after_an_error_it_can_be_entered_again(service: Emulator) -> None:
    ready: list[bool] = []

    def make_session() -> Session:
        if not ready:
            raise LookupError("no such account")
        return session_for(service)

    opening = altaprofiles.blocking(make_session)
    with pytest.raises(LookupError), opening:
        pass
    ready.append(True)
    with opening as session:
        assert session.profiles.get(identity="nobody") is None


def test_a_callback_that_calls_the_session_is_refused(
    session: BlockingSession, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match="callback of its own event loop"):
        session.export(
            EVENT,
            **RANGE,
            to=tmp_path / "p.ndjson",
            on_progress=lambda _: session.profiles.get(identity="5555555555"),
        )


@pytest.mark.parametrize(
    "make_session",
    [Session(clevertap=CleverTap("id", "passcode", "in1")), lambda: 3, None, "from_env"],
    ids=["session", "other", "none", "text"],
)
def test_anything_but_a_function_that_makes_a_session_is_refused(make_session: Any) -> None:
    with (
        pytest.raises(ConfigurationError, match=r"^make_session: .*Session\.from_env"),
        altaprofiles.blocking(make_session),
    ):
        pass


def test_an_error_while_the_session_is_made_comes_as_it_is() -> None:
    def make_session() -> Session:
        raise LookupError("no such account")

    with pytest.raises(LookupError, match="no such account"), altaprofiles.blocking(make_session):
        pass


def test_nothing_is_left_behind(service: Emulator) -> None:
    before = threading.active_count()
    with altaprofiles.blocking(partial(session_for, service)) as session:
        next(iter(session.profiles.by_event(EVENT, **RANGE, batch_size=23)))
    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("inner", "outer"),
    [
        (Session, BlockingSession),
        (Profiles, BlockingProfiles),
        (Cdp, BlockingCdp),
        (EventProfiles, BlockingEventProfiles),
    ],
)
def test_every_method_of_a_session_has_a_blocking_one(inner: type, outer: type) -> None:
    def named(of: type) -> set[str]:
        return {name for name in dir(of) if not name.startswith("_")}

    of_the_class = {"from_env", "from_account", "aclose"}
    assert named(inner) - of_the_class == named(outer)


def test_a_blocking_method_shows_the_arguments_and_the_words_of_the_other(
    session: BlockingSession,
) -> None:
    [_, *parameters] = inspect.signature(Session.export).parameters.values()
    assert [*inspect.signature(session.export).parameters.values()] == parameters
    assert session.export.__doc__ == BlockingSession.export.__doc__ == Session.export.__doc__
    assert repr(session).startswith("BlockingSession(Session(clevertap=")


FORKED = """
import gc, os, signal, sys
import altaprofiles

with altaprofiles.blocking(altaprofiles.Session.from_env) as session:
    people = session.profiles.by_event("App Launched", start=20260101, end=20260131, batch_size=23)
    reading = iter(people)
    next(reading)
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        get = lambda: session.profiles.get(identity="1")
        for use in (get, lambda: [*reading], reading.close):
            try:
                use()
            except altaprofiles.SessionClosed as error:
                print(f"{error}", flush=True)
            except StopIteration:
                print("over", flush=True)
    else:
        assert os.waitpid(child, 0)[1] == 0
        print(len([*people]), flush=True)
if child == 0:
    del reading
    gc.collect()
    with altaprofiles.blocking(altaprofiles.Session.from_env) as session:
        print(session.profiles.get(identity="nobody"), flush=True)
"""


def run_forking(
    service: Emulator, tmp_path: Path, program: str, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Run a program that may fork."""
    return subprocess.run(
        # Python 3.12 warns of every fork beside a thread.
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program, *arguments],
        env=environment(tmp_path, service.environment),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_a_forked_process_is_told_to_open_its_own(service: Emulator, tmp_path: Path) -> None:
    """Pools of processes and schedulers fork, and the thread of the session stays behind."""
    done = run_forking(service, tmp_path, FORKED)
    assert (done.returncode, done.stderr) == (0, "")
    *told, nobody, people = done.stdout.splitlines()
    assert all("was forked; open one in each process" in line or line == "over" for line in told)
    assert told[0] != "over"
    assert (nobody, int(people)) == ("None", sum(expected(service).values()))


FORKED_AMID = """
import os, sys
import altaprofiles

KEYS = [str(number) for number in range(200)]
MADE = {
    "people": lambda people, session: iter(people),
    "pages": lambda people, session: people.pages(),
    "get_many": lambda people, session: session.profiles.get_many(KEYS, by="identity"),
    "with_cdp": lambda people, session: session.with_cdp(people),
}

def told(error):
    print(type(error).__name__, flush=True)

def begun(session):
    people = session.profiles.by_event("App Launched", start=20260101, end=20260131, batch_size=92)
    return MADE[sys.argv[2]](people, session)

def main():
    with altaprofiles.blocking(altaprofiles.Session.from_env) as session:
        reading = begun(session)
        next(reading)
        if os.fork() == 0:
            for _ in range(2):
                try:
                    next(reading)
                except altaprofiles.SessionClosed as error:
                    told(error)
            os._exit(0)
        os.wait()
        print(sum(1 for _ in reading) > 0)

async def main_async():
    async with altaprofiles.Session.from_env() as session:
        reading = begun(session)
        await anext(reading)
        if os.fork() == 0:
            for step in (reading.__anext__, lambda: reading.asend(None)):
                try:
                    await step()
                except altaprofiles.SessionClosed as error:
                    told(error)
            os._exit(0)
        os.wait()
        print(len([one async for one in reading]) > 0)

if sys.argv[1] == "blocking":
    main()
else:
    import asyncio
    MADE["people"] = lambda people, session: aiter(people)
    asyncio.run(main_async())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
@pytest.mark.parametrize("way", ["blocking", "async"])
@pytest.mark.parametrize("results", ["people", "pages", "get_many", "with_cdp"])
def test_a_process_forked_amid_results_gets_none_of_the_parent_s(
    service: Emulator, tmp_path: Path, way: str, results: str
) -> None:
    done = run_forking(service, tmp_path, FORKED_AMID, way, results)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == ["SessionClosed", "SessionClosed", "True"]


LEFT_OPEN = """
import os, sys
import altaprofiles

opening = altaprofiles.blocking(altaprofiles.Session.from_env)
session = opening.__enter__()
reading = iter(session.profiles.by_event("App Launched", start=20260101, end=20260131))
print(next(reading) is not None, flush=True)
"""


@pytest.mark.parametrize(
    "end",
    [
        "",
        "sys.exit(0)",
        "session.profiles.get(identity='1')",
        "del session, opening",
        "raise KeyboardInterrupt",
        # As a server that loads the application before it forks.
        "child = os.fork()\nif child: assert os.waitpid(child, 0)[1] == 0",
    ],
)
def test_a_session_that_is_left_open_lets_the_process_end(
    service: Emulator, tmp_path: Path, end: str
) -> None:
    if "fork" in end and sys.platform == "win32":
        pytest.skip("forks")
    done = run_forking(service, tmp_path, LEFT_OPEN + end)
    assert done.stdout == "True\n"
    if "Interrupt" in end:
        assert done.stderr.endswith("\nKeyboardInterrupt\n")
    else:
        assert (done.returncode, done.stderr) == (0, "")


IN_MAKE_SESSION = """
import os, signal, time

# A process in the background of a shell ignores it.
signal.signal(signal.SIGINT, signal.default_int_handler)

def make_session():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(3600)
"""

INTERRUPTED = """
import threading
import altaprofiles

try:
    with altaprofiles.blocking(globals().get("make_session", altaprofiles.Session.from_env)):
        print("open")
except KeyboardInterrupt:
    print("interrupted", threading.active_count())
"""

INTERRUPTED_ANYWHERE = """
import threading
import altaprofiles

def use():
    with altaprofiles.blocking(altaprofiles.Session.from_env) as session:
        sys.settrace(None)
        session.profiles.get(identity="nobody")

use()
before = {*threading.enumerate()}
lines = interrupt_each(use)
for thread in {*threading.enumerate()} - before:
    thread.join()

with altaprofiles.blocking(altaprofiles.Session.from_env) as session:
    looked_up = interrupt_each(lambda: session.profiles.get(identity="nobody"))
    assert session.profiles.get(identity="nobody") is None
print(min(lines, looked_up) > 20)
"""


@pytest.mark.parametrize(
    ("program", "output"),
    [
        (AT_THE_LOOP + INTERRUPTED, "interrupted 1\n"),
        (IN_MAKE_SESSION + INTERRUPTED, "interrupted 1\n"),
        (BEFORE_LINES + INTERRUPTED_ANYWHERE, "True\n"),
    ],
    ids=["loop", "make_session", "anywhere"],
)
def test_an_interruption_while_a_session_opens_ends_it(
    service: Emulator, tmp_path: Path, program: str, output: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment(tmp_path, service.environment),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, output, "")
    assert service.stats.in_flight["clevertap"] == 0


def test_an_iteration_that_is_garbage_in_the_thread_of_the_session_ends(
    session: BlockingSession, service: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    reading = iter(session.profiles.by_event(EVENT, **RANGE, batch_size=23))
    next(reading)
    # A cycle, which the collector ends wherever it runs, as here in a callback of the session.
    cycle: list[Any] = [reading]
    cycle.append(cycle)
    del reading, cycle

    session.profiles.get(identity="5555555555")
    view = session.with_options(on_event=lambda attempt: gc.collect() and None)
    view.profiles.get(identity="5555555555")
    assert session.profiles.count(EVENT, **RANGE) == sum(expected(service).values())
    assert "destroyed" not in caplog.text
    assert "different Context" not in caplog.text
    assert service.stats.in_flight["clevertap"] == 0


def test_a_session_that_is_garbage_in_its_own_thread_is_closed(service: Emulator) -> None:
    before = {*threading.enumerate()}
    opening = altaprofiles.blocking(partial(session_for, service))
    session = opening.__enter__()
    cycle: list[Any] = [opening]
    cycle.append(cycle)
    del opening, cycle

    view = session.with_options(on_event=lambda attempt: gc.collect() and None)
    # Its answer may come before the end.
    with suppress(SessionClosed):
        view.profiles.get(identity="5555555555")
    with pytest.raises(SessionClosed):
        session.profiles.get(identity="5555555555")
    for thread in {*threading.enumerate()} - before:
        thread.join(PATIENCE)
        assert not thread.is_alive()


KEPT = """
import altaprofiles
import pytest

@pytest.fixture(scope="session")
def session():
    with altaprofiles.blocking(altaprofiles.Session.from_env) as session:
        yield session

def test_it(session):
    global reading
    people = session.profiles.by_event("App Launched", start=20260101, end=20260131, batch_size=23)
    reading = iter(people)
    next(reading)
"""


def test_an_iteration_that_pytest_keeps_until_the_end_of_the_process_prints_nothing(
    service: Emulator, tmp_path: Path
) -> None:
    (tmp_path / "test_it.py").write_text(KEPT)
    command = [sys.executable, "-m", "pytest", "-p", "no:asyncio", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "test_it.py"],
        cwd=tmp_path,
        env=environment(tmp_path, service.environment),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


def test_a_drain_does_not_wait_for_what_the_closing_thread_reads(service: Emulator) -> None:
    with altaprofiles.blocking(partial(session_for, service), drain=100 * PATIENCE) as session:
        reading = iter(session.profiles.by_event(EVENT, **RANGE, batch_size=23))
        next(reading)
    with pytest.raises(SessionClosed):
        for _ in reading:
            pass
