"""Fixtures that every test can have, and options of the whole run."""

from __future__ import annotations

import faulthandler
import gc
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import zoneinfo
from collections.abc import Generator, Iterator
from contextlib import closing
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, find, settings, strategies

from .support.clock import Clock, stopped
from .support.postgres import Cluster, Server, binaries
from .support.thorough import with_each_value
from .support.tried import TRIED

# How long an example takes is no property of the code on a machine that does other things, too.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")

FOLDER = pytest.StashKey[str]()
"""The folder of the PostgreSQL server, the same in all processes of a run."""

THERE = pytest.StashKey[set[str]]()
"""The contents of the current folder before the run."""

STDERR = pytest.StashKey[int]()
"""Standard error as it is outside of tests, which capture it."""

HANGS = 600
"""Seconds after which a test hangs: many times what any takes on a machine that is busy."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--shuffle", metavar="SEED", help="run modules, and their tests, in any order")
    parser.addoption(
        "--all-faults", action="store_true", help="try every fault under every call (an hour)"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items[:] = with_each_value(items)
    seed = config.getoption("--shuffle")
    if seed is None:
        return
    # Seeded by the option alone, as all workers of a run must collect the same order. Modules stay
    # together, because their fixtures are made once for each time that a module comes up.
    chance = random.Random(seed)  # noqa: S311
    modules = [list(group) for _, group in groupby(items, key=lambda item: item.path)]
    chance.shuffle(modules)
    for module in modules:
        chance.shuffle(module)
    items[:] = [item for module in modules for item in module]


def pytest_collection_finish() -> None:
    # Hypothesis asks the collector who holds its source of chance; of what is frozen it says none.
    find(strategies.none(), lambda _: True)
    # Thousands of tests stay until the end, and each collection of garbage would look at them all.
    gc.collect()
    gc.freeze()


def pytest_configure(config: pytest.Config) -> None:
    given = getattr(config, "workerinput", None)
    # Not in pytest's own folder, which the server's user may not enter.
    folder = tempfile.mkdtemp(prefix="altaprofiles-") if given is None else given["postgres"]
    config.stash[FOLDER] = folder
    config.stash[THERE] = files_of_the_current_folder()
    config.stash[STDERR] = os.dup(2)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """End a process whose test hangs, and print what its threads do.

    The run goes on in another process, and the test has failed.
    """
    faulthandler.dump_traceback_later(HANGS, file=item.config.stash[STDERR], exit=True)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


def files_of_the_current_folder() -> set[str]:
    return {path.name for path in Path.cwd().iterdir() if not path.name.startswith(".")}


def pytest_sessionfinish(session: pytest.Session) -> None:
    # By the run, as processes that test side by side see each other's files.
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["tried"] = dict(TRIED)
        return
    before = session.config.stash[THERE]
    if left := files_of_the_current_folder() - before:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        session.config.get_terminal_writer().line(
            f"\ntests left in the current folder: {', '.join(sorted(left))}", red=True
        )


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    node.workerinput["postgres"] = node.config.stash[FOLDER]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    # A process that has died tells nothing.
    TRIED.update(getattr(node, "workeroutput", {}).get("tried", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if TRIED:
        tried = ", ".join(f"{number:,} {name}" for name, number in sorted(TRIED.items()))
        terminalreporter.write_line(f"tried: {tried}")


def pytest_unconfigure(config: pytest.Config) -> None:
    # Not in a worker, which may die before, or need the server no more when others still do.
    if hasattr(config, "workerinput"):
        return
    folder = config.stash[FOLDER]
    if (programs := binaries()) is not None:
        Cluster(programs, Path(folder)).stop()
    shutil.rmtree(folder)


@pytest.fixture
def clock() -> Iterator[Clock]:
    """Give the clock that this test's event loop runs by, which jumps over whatever is waited for.

    Advance it to hold up the loop: every timer due by then is run in the loop's next turn.
    """
    with stopped() as clock:
        yield clock


@pytest.fixture
def small_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make each step of an output a turn of the event loop, however slow the machine is.

    Otherwise as many are taken at once as fit into a time.
    """
    monkeypatch.setattr(time, "perf_counter", lambda: 0.0)


@pytest.fixture
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    if "clock" not in request.fixturenames:
        return "asyncio", {}
    return "asyncio", {"loop_factory": request.getfixturevalue("clock").loop}


@pytest.fixture(scope="session", autouse=True)
def heeded() -> Iterator[None]:
    """Heed SIGINT, SIGTERM and SIGHUP, in this process and in those it starts.

    Processes inherit what is ignored. `nohup`, and a shell that starts pytest in the background,
    ignore signals that tests send.
    """
    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
        signal.SIGTERM: signal.signal(signal.SIGTERM, signal.SIG_DFL),
        signal.SIGHUP: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    }
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def database(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Give a database of this process's own."""
    programs = binaries()
    if programs is None:
        reason = "no PostgreSQL server is installed: apt-get install postgresql"
        if os.environ.get("ALTAPROFILES_TEST_POSTGRES") == "required":
            pytest.fail(reason)
        pytest.skip(reason)
    server = Cluster(programs, Path(request.config.stash[FOLDER])).started()
    name = os.environ.get("PYTEST_XDIST_WORKER", "main")
    with closing(server):
        server.run(f"CREATE DATABASE {name}")
    with closing(Server(server.port, name)) as server:
        yield server


@pytest.fixture
def postgres(database: Server) -> Iterator[Server]:
    """Give a database that is empty at the beginning of each test."""
    yield database
    database.run(
        "DROP SCHEMA public CASCADE",
        "CREATE SCHEMA public",
        "GRANT USAGE ON SCHEMA public TO PUBLIC",
        "DROP SCHEMA IF EXISTS crm CASCADE",
    )


@pytest.fixture
def no_zones(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let this machine have no zone data, as Windows and small containers have none."""
    for name in ("tzdata", "tzdata.zoneinfo", "tzdata.zoneinfo.Asia"):
        monkeypatch.setitem(sys.modules, name, None)
    zoneinfo.reset_tzpath(to=())
    zoneinfo.ZoneInfo.clear_cache()
    yield
    zoneinfo.reset_tzpath()
    zoneinfo.ZoneInfo.clear_cache()
