"""A process that may not open more files: each error names the limit, and what raises it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from altaprofiles.emulator import Emulator

from ..support.terminals import emulated, environment

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="limits open files")

PROGRAM = """
import asyncio, os, resource, sys
from altaprofiles import Retry, Session

async def main():
    async with Session.from_env(retry=Retry(attempts=1)) as session:
        # What is imported on first use is there then, and so is a connection.
        await session.profiles.get(identity="user_1")
        await session.export("Charged", start=20260101, end=20260101, to="day.ndjson")
        used = os.dup(0)
        for more in range(1, 100):
            resource.setrlimit(resource.RLIMIT_NOFILE, (used + more, 4096))
            try:
                print("done", await work[sys.argv[1]](session))
                break
            except Exception as error:
                print(type(error).__name__, *str(error).splitlines())

async def get(session):
    keys = [f"user_{number}" for number in range(3)]
    people = await asyncio.gather(*(session.profiles.get(identity=key) for key in keys))
    return len(people)

async def export(session):
    arguments = {"start": 20260101, "end": 20260110, "to": "people.ndjson"}
    return (await session.export("Charged", **arguments)).people

work = {"get": get, "export": export}
asyncio.run(main())
"""


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with emulated(people=30, seed=3) as emulator:
        yield emulator


@pytest.fixture
def env(tmp_path: Path, emulator: Emulator) -> dict[str, str]:
    return environment(tmp_path, emulator.environment)


def run(command: list[str], folder: Path, env: Mapping[str, str]) -> str:
    done = subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout


@pytest.mark.parametrize("call", ["get", "export"])
def test_each_error_has_the_limit_and_the_remedy(
    tmp_path: Path, env: dict[str, str], call: str
) -> None:
    *failures, done = run([sys.executable, "-c", PROGRAM, call], tmp_path, env).splitlines()
    assert failures
    for failure in failures:
        assert "Too many open files" in failure
        assert re.search(r"; allow more than \d+ in a process \(`ulimit -n 1024`\)", failure)
    people = len((tmp_path / "people.ndjson").read_bytes().splitlines()) if call == "export" else 3
    assert done == f"done {people}"


def test_doctor_notes_a_low_limit(tmp_path: Path, env: dict[str, str]) -> None:
    doctor = [sys.executable, "-m", "altaprofiles", "doctor"]
    assert "files and connections open" not in run(
        ["sh", "-c", 'ulimit -n 512; exec "$@"', "sh", *doctor], tmp_path, env
    )
    noted = run(["sh", "-c", 'ulimit -n 64; exec "$@"', "sh", *doctor], tmp_path, env)
    assert "note   a process may have 64 files and connections open here" in noted
    assert "ulimit -n 1024" in noted
