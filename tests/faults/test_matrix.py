"""Every call under every fault: the right records exactly once, or one of our errors.

A run tries each fault under one call, and each call under a choice of faults. With
`pytest tests/faults --all-faults` it tries all of them, on both event loops, at the first answer of
a call, at one in the middle, and at the last.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from itertools import chain, cycle
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from .account import PEOPLE
from .calls import CALLS
from .catalog import FAULTS, JUNK, cut, junk
from .cells import PATIENCE, try_cell, usable
from .server import End, Fault

pytestmark = pytest.mark.anyio

LOOPS: dict[str, dict[str, Any]] = {"asyncio": {}}
if sys.platform != "win32":
    LOOPS["uvloop"] = {"use_uvloop": True}

TELLING = (
    "behind:an-answer",
    "text:byte-order-mark",
    "length:1-too-short",
    "gzip:cut",
    "idle:an-answer",
    "idle:a-flood",
    "behind-chunks:two-answers",
    "100-a-thousand",
    "length:9-too-long",
    "chunks:no-end",
    "reset-after-half",
    "close-after-all",
    "gzip:bomb",
    "text:latin-1-key",
    "text:an-object",
    "headers:one-of-60000",
    "status:502-empty",
)
"""Faults of every family that come to the core of a call."""

QUICK = ("get-identity", "count", "cdp-user", "get-nobody", "pages", "cdp-nobody", "count-polled")
"""Calls that are over in a few milliseconds."""


class Cell(NamedTuple):
    loop: str
    call: str
    fault: Fault
    at: int


def _choice() -> Iterator[Cell]:
    calls = cycle(QUICK)
    loops = cycle(LOOPS)
    for fault in FAULTS.values():
        name = next(calls)
        yield Cell(next(loops), name, fault, CALLS[name].answers)
    for name, call in CALLS.items():
        for telling in TELLING[:4] if "large" in name else TELLING:
            yield Cell(next(loops), name, FAULTS[telling], 1 + call.answers // 2)


def _all() -> Iterator[Cell]:
    for loop in LOOPS:
        for name, call in CALLS.items():
            for fault in FAULTS.values():
                for at in sorted({1, 1 + call.answers // 2, call.answers}):
                    yield Cell(loop, name, fault, at)


def _bytes_of(name: str) -> int:
    """Return the size of the answer that `cut` and `flipped` take apart."""
    return {"get-identity": 460, "pages": 1300, "cdp-shared": 360, "count": 110}[name]


def _apart(step: int) -> Iterator[Cell]:
    loops = cycle(LOOPS)
    for name in ("get-identity", "pages", "cdp-shared", "count"):
        for at in range(0, _bytes_of(name), step):
            for end in (End.CLOSE, End.RESET):
                yield Cell(next(loops), name, cut(at, end), CALLS[name].answers)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "cell" not in metafunc.fixturenames:
        return
    everything = metafunc.config.getoption("--all-faults")
    cells = chain(_all(), _apart(1)) if everything else chain(_choice(), _apart(97))
    named = {f"{cell.loop}-{cell.call}-{cell.fault.name}-answer{cell.at}": cell for cell in cells}
    metafunc.parametrize("cell", named.values(), ids=named)


@pytest.fixture
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return "asyncio", LOOPS[request.getfixturevalue("loop")]


@pytest.fixture
def loop(request: pytest.FixtureRequest) -> str:
    cell = request.node.callspec.params.get("cell")
    return str(cell.loop if cell else request.param)


async def test_the_right_records_or_an_error_of_ours(cell: Cell, tmp_path: Path) -> None:
    await try_cell(CALLS[cell.call], cell.fault, cell.at, tmp_path)


@pytest.mark.parametrize("loop", LOOPS, indirect=True)
@pytest.mark.parametrize("turns", [0, 1, 3])
@pytest.mark.parametrize("name", JUNK)
async def test_bytes_that_wait_in_the_socket_are_nobodys_answer(
    name: str, turns: int, loop: str
) -> None:
    data = junk("/1/profile.json?identity=id-1")[name]
    async with usable() as (server, session):
        assert await session.profiles.get(identity="id-0") is not None
        assert server.write_to_idle(data) == 1
        for _ in range(turns):
            await asyncio.sleep(0)
        async with asyncio.timeout(PATIENCE):
            person = await session.profiles.get(identity="id-1")
        assert person is not None
        assert person.raw == PEOPLE[1].record
