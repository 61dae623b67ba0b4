"""Spark reads everybody, on a real local Spark with several workers.

Skipped where pyspark or Java is missing, unless `ALTAPROFILES_TEST_SPARK=required`.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
from collections import Counter
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from altaprofiles import EventQuery, Page
from altaprofiles.emulator import Emulator

from ..support.sessions import EVENT, RANGE, session_for
from ..support.spark_cluster import cluster

MISSING = [
    name
    for name, there in (
        ("pyspark", find_spec("pyspark")),
        ("pandas", find_spec("pandas")),
        ("java", shutil.which("java")),
    )
    if not there
]

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.integration,
    pytest.mark.skipif(
        bool(MISSING) and os.environ.get("ALTAPROFILES_TEST_SPARK") != "required",
        reason=f"needs {', '.join(MISSING)}: pip install 'altaprofiles[integration]', and Java 17",
    ),
]

ROOT = Path(__file__).parents[2]
MARK = "ALTAPROFILES_TEST_SPARK_JOB"
OPTIONS = {"event": EVENT, "start": "2026-01-01", "end": "2026-01-31", "batchSize": "46"}


async def started(environment: dict[str, str], folder: Path, job: dict[str, Any]) -> Any:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.support.spark_job",
        json.dumps(job),
        str(folder),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=ROOT,
        # Executors bind this address.
        env={**os.environ, **environment, MARK: str(folder), "SPARK_LOCAL_IP": "127.0.0.1"},
    )


async def result_of(process: Any) -> Any:
    out, err = await process.communicate()
    lines = [line for line in out.decode().splitlines() if line.startswith("RESULT ")]
    assert lines, err.decode()[-4000:]
    return json.loads(lines[0].removeprefix("RESULT ")), err.decode()


async def expected_rows(emulator: Emulator, windows: int) -> Counter[tuple[str, str]]:
    """Return each person as often as there are windows that hold them."""
    rows: Counter[tuple[str, str]] = Counter()
    async with session_for(emulator) as session:
        for query in EventQuery.of(EVENT, **RANGE).split(windows):
            async for page in session.profiles.by_query(query, distinct=False).pages():
                rows.update(rows_in(page, emulator.clevertap.account_id))
    return rows


def rows_in(page: Page, account: str) -> list[tuple[str, str]]:
    return [(account, key) for key in page.to_arrow(person=True)["person"].to_pylist()]


def counted(rows: list[list[str]]) -> Counter[tuple[str, str]]:
    return Counter((account, person) for account, person in rows)


def workers(folder: Path) -> list[int]:
    """Return the Python workers of a job: the processes that Spark's daemon has forked."""
    found: dict[int, int] = {}
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                is_ours = f"{MARK}={folder}".encode() in (process / "environ").read_bytes()
                command = (process / "cmdline").read_bytes()
                parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            if is_ours and b"pyspark" in command and b"daemon" in command:
                found[int(process.name)] = parent
    return sorted(pid for pid, parent in found.items() if parent in found)


@pytest.mark.slow
async def test_reads_streams_and_lookups(tmp_path: Path) -> None:
    job = {
        "reads": {
            "plain": ("read", OPTIONS),
            "one slot": ("read", {**OPTIONS, "slots": "1", "windows": "2"}),
            "two events": ("read", {**OPTIONS, "event": json.dumps([EVENT, "Charged"])}),
            "flattened": (
                "read",
                {**OPTIONS, "flatten": json.dumps({"Cart Value": "double", "account": None})},
            ),
            "stream": ("stream", OPTIONS),
            "profiles": ("look_up", {"keys": ["5555555555", "nobody", None], "by": "identity"}),
            "users": ("look_up", {"keys": ["user1", "nobody", None], "by": "user_id"}),
            "passcode": ("refused", {**OPTIONS, "passcode": "pass-of-a-test"}),
            "misspelt": ("refused", {**OPTIONS, "evnt": "x"}),
            "no end": ("refused", {"event": EVENT, "start": "2026-01-01"}),
        }
    }
    async with Emulator(people=300, seed=1) as emulator:
        results, log = await result_of(await started(emulator.environment, tmp_path, job))
        assert emulator.stats.peak_in_flight["clevertap"] <= 3
        whole = await expected_rows(emulator, 3)
        assert counted(results["plain"]["rows"]) == whole
        assert results["plain"]["tasks"] == 3
        assert counted(results["one slot"]["rows"]) == await expected_rows(emulator, 2)
        assert results["one slot"]["tasks"] == 1
        assert results["two events"]["tasks"] == 3
        assert counted(results["two events"]["rows"]).keys() > whole.keys()
        assert results["flattened"]["schema"].endswith(
            "extra:string,Cart Value:double,profile_data.account:string,task:int>"
        )
        assert counted(results["stream"]) == whole
        passcode = emulator.clevertap.passcode
    for text in (log, json.dumps(results)):
        assert passcode not in text
        assert "pass-of-a-test" not in text
    assert "passcode: credentials are no options" in results["passcode"]
    assert "evnt: there is no such option; use event, start, end" in results["misspelt"]
    assert "end: missing" in results["no end"]
    profiles = {row["key"]: row for row in results["profiles"]}
    assert profiles["5555555555"]["identity"] == "5555555555"
    assert (profiles["nobody"]["identity"], profiles["nobody"]["error"]) == (None, None)
    assert profiles[None]["error"].startswith("InvalidArgument: ")
    # An index would be one of a partition, which nobody sees.
    assert "keys[" not in profiles[None]["error"]
    users = {row["key"]: row for row in results["users"]}
    assert json.loads(users["user1"]["users"])[0]["user_id"] == "user1"
    assert users["nobody"] == {"key": "nobody", "error": None, "users": "[]"}
    assert users[None]["users"] is None


@pytest.mark.skipif(sys.platform != "linux", reason="finds the workers in /proc")
async def test_a_worker_that_is_killed_loses_and_doubles_nobody(tmp_path: Path) -> None:
    job = {"reads": {"killed": ("read", {**OPTIONS, "windows": "6"})}}
    async with Emulator(people=1500, seed=1, think=0.02) as emulator:
        process = await started(emulator.environment, tmp_path, job)
        kills = 0
        fetched = 0
        reading = asyncio.create_task(result_of(process))
        while kills < 3 and not reading.done():
            await asyncio.sleep(0.01)
            pages = emulator.stats.requests["page"]
            if pages > fetched + 15 and (found := workers(tmp_path)):
                # The last ones that were forked read; others have planned.
                os.kill(found[-1], signal.SIGKILL)
                kills += 1
                fetched = pages
        results, log = await reading
        assert kills == 3
        assert "crashed" in log or "exited unexpectedly" in log
        assert emulator.stats.peak_in_flight["clevertap"] <= 3
        assert counted(results["killed"]["rows"]) == await expected_rows(emulator, 6)


@pytest.mark.slow
async def test_several_accounts_are_read_side_by_side(tmp_path: Path) -> None:
    config = tmp_path / "credentials.toml"
    job = {
        "reads": {"both": ("read", {**OPTIONS, "account": '["shop", "app"]', "slots": "2"})},
    }
    async with (
        Emulator(people=300, seed=1) as shop,
        Emulator(people=300, seed=2) as app,
    ):
        accounts = {"shop": shop, "app": app}
        config.write_text(
            "".join(
                f'[accounts.{name}]\naccount_id = "{one.clevertap.account_id}"\n'
                f'passcode = "{one.passcode}"\nbase_url = "{one.url}"\n'
                for name, one in accounts.items()
            )
        )
        config.chmod(0o600)
        environment = {"ALTAPROFILES_CONFIG": str(config)}
        results, log = await result_of(await started(environment, tmp_path, job))
        for one in accounts.values():
            assert one.stats.peak_in_flight["clevertap"] <= 2
        expected = await expected_rows(shop, 2) + await expected_rows(app, 2)
        passcodes = [one.passcode for one in accounts.values()]
    assert counted(results["both"]["rows"]) == expected
    assert results["both"]["tasks"] == 4
    for text in (log, json.dumps(results)):
        assert not any(passcode in text for passcode in passcodes)


OF_CLUSTER = {"spark.executor.memory": "512m", "spark.executor.heartbeatInterval": "1s"}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the workers in /proc")
async def test_a_speculative_task_loses_and_doubles_nobody(tmp_path: Path) -> None:
    settings = {
        **OF_CLUSTER,
        "spark.speculation": "true",
        "spark.speculation.interval": "100ms",
        "spark.speculation.quantile": "0.5",
        "spark.speculation.minTaskRuntime": "0ms",
    }
    read = ("read", {**OPTIONS, "windows": "3", "batchSize": "23"})
    async with Emulator(people=1000, seed=1, think=0.05) as emulator:
        environment = {**emulator.environment, MARK: str(tmp_path)}
        async with cluster(tmp_path, environment) as master:
            job = {"master": master, "settings": settings, "reads": {"speculative": read}}
            process = await started(emulator.environment, tmp_path, job)
            reading = asyncio.create_task(result_of(process))
            stopped = None
            try:
                while stopped is None and not reading.done():
                    await asyncio.sleep(0.01)
                    requests = emulator.stats.requests
                    if requests["open_chain"] == 3 and (found := workers(tmp_path)):
                        # It stands still in the middle of its chain; another is begun for it.
                        stopped = found[-1]
                        os.kill(stopped, signal.SIGSTOP)
                results, _ = await reading
            finally:
                if stopped is not None:
                    with suppress(ProcessLookupError):
                        os.kill(stopped, signal.SIGKILL)
        openings = emulator.stats.requests["open_chain"]
        assert openings > 3
        # Each copy of a task can add one request in flight.
        assert emulator.stats.peak_in_flight["clevertap"] <= openings
        assert counted(results["speculative"]["rows"]) == await expected_rows(emulator, 3)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the executors in /proc")
async def test_a_stage_that_is_retried_loses_and_doubles_nobody(tmp_path: Path) -> None:
    settings = {**OF_CLUSTER, "spark.shuffle.io.maxRetries": "1"}
    read = ("two stages", {**OPTIONS, "windows": "4"})
    async with Emulator(people=300, seed=1) as emulator:
        environment = {**emulator.environment, MARK: str(tmp_path)}
        async with cluster(tmp_path, environment) as master:
            job = {"master": master, "settings": settings, "reads": {"retried": read}}
            process = await started(emulator.environment, tmp_path, job)
            reading = asyncio.create_task(result_of(process))
            while not reading.done() and not [*tmp_path.glob("second-stage-*")]:
                await asyncio.sleep(0.05)
            before = emulator.stats.requests["open_chain"]
            # With it goes what its tasks of the first stage have left for the second one.
            os.kill(executors(tmp_path)[0], signal.SIGKILL)
            (tmp_path / "go-on").touch()
            results, _ = await reading
        assert emulator.stats.requests["open_chain"] > before >= 3
        assert counted(results["retried"]) == await expected_rows(emulator, 4)


def executors(folder: Path) -> list[int]:
    """Return the executors of a job."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                is_ours = f"{MARK}={folder}".encode() in (process / "environ").read_bytes()
                command = (process / "cmdline").read_bytes()
            except OSError:
                continue
            if is_ours and b"CoarseGrainedExecutorBackend" in command:
                found.append(int(process.name))
    return sorted(found)
