"""A web service of four processes on one account: refusals, and an export beside its calls.

The service is the program of `altaprofiles/guides/in-a-web-service.md`, under uvicorn. The emulator
allows three requests at once and counts refusals.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import altaprofiles

from .measure import Run, Server, Watch
from .report import Report

__all__ = ["beside_an_export", "calls", "measure"]

_GUIDE = Path(altaprofiles.__file__).parent / "guides" / "in-a-web-service.md"
_SLOTS = 3
_WORKERS = 4
_CALLS = 10_000
_PAIRS = 3
_NEEDS = ("aiohttp", "click", "fastapi", "rich", "uvicorn")


@contextmanager
def _served(env: Mapping[str, str], workers: int) -> Iterator[str]:
    """Run the service with the account in `env`; give its URL."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        program = re.search(r"```python\n(# service\.py\n.*?)```", _GUIDE.read_text(), re.DOTALL)
        assert program is not None
        (folder / "service.py").write_text(program[1])
        env = {**os.environ, **env}
        command = ["uvicorn", "service:app", "--port=0", "--no-access-log"]
        last = "Uvicorn running on"
        if workers > 1:
            env["ALTAPROFILES_SHARED"] = str(folder / "slots")
            command.append(f"--workers={workers}")
            last = "startup complete"
        with _child(command, folder, env, last, workers) as printed:
            found = re.search(r"http://127\.0\.0\.1:\d+", printed)
            assert found is not None
            yield found[0]


@contextmanager
def _child(command: list[str], folder: Path, env: Any, last: str, times: int = 1) -> Iterator[str]:
    """Run a module until the block ends; give the lines up to those that hold `last`."""
    child = subprocess.Popen(
        [sys.executable, "-u", "-m", *command],
        cwd=folder,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert child.stdout is not None
    printed = ""
    try:
        while printed.count(last) < times and (line := child.stdout.readline()):
            printed += line
        yield printed
    finally:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()


async def _ask(url: str, requests: int, callers: int) -> tuple[Counter[int], list[float]]:
    """Ask for a person over and over; return the statuses and latencies, in seconds."""
    import aiohttp

    numbers = iter(range(requests))
    statuses: Counter[int] = Counter()
    latencies: list[float] = []

    async def call() -> None:
        # A connection each, so that calls spread over the processes.
        async with aiohttp.ClientSession() as client:
            for _ in numbers:
                began = time.perf_counter()
                async with client.get(f"{url}/people/5555555555?within=60") as response:
                    statuses[response.status] += 1
                latencies.append(time.perf_counter() - began)

    await asyncio.gather(*(call() for _ in range(callers)))
    return statuses, latencies


def calls(requests: int, think: float, workers: int = _WORKERS) -> Run:
    """Ask a service of several processes; return its answers and the emulator's refusals."""
    command = ["altaprofiles", "emulator", f"--think={think}", f"--max-in-flight={_SLOTS}"]
    with _child(command, Path.cwd(), os.environ, "ALTA_TOKEN") as printed:
        env = dict(re.findall(r"export (\w+)=(\S+)", printed))
        with _served(env, workers) as url, Watch() as watch:
            statuses, _ = asyncio.run(_ask(url, requests, 4 * workers))
        with urllib.request.urlopen(f"{env['CLEVERTAP_BASE_URL']}/stats", timeout=60) as answer:  # noqa: S310
            counters = json.load(answer)
    return watch.run(
        found=statuses[200],
        failed=statuses.total() - statuses[200],
        refused=counters["too_many"],
        peak=counters["peak_in_flight"]["clevertap"],
    )


def beside_an_export(url: str, requests: int, callers: int, workers: int = _WORKERS) -> Run:
    """Ask a service while no export is under way, and then while one is."""
    env = {
        "CLEVERTAP_ACCOUNT_ID": "BENCH",
        "CLEVERTAP_PASSCODE": "BENCH",
        "CLEVERTAP_BASE_URL": url,
    }
    with _served(env, workers) as service, Watch() as watch:
        asyncio.run(_ask(service, requests // 5, callers))
        _, alone = asyncio.run(_ask(service, requests, callers))
        pages = _pages(url)
        export = urllib.request.Request(f"{service}/exports/2026-01-01/2026-01-03", method="POST")  # noqa: S310
        urllib.request.urlopen(export, timeout=60).close()  # noqa: S310
        while _pages(url) < pages + _SLOTS:
            time.sleep(0.01)
        pages = _pages(url)
        began = time.perf_counter()
        _, beside = asyncio.run(_ask(service, requests, callers))
        seconds = time.perf_counter() - began
        pages = _pages(url) - pages
    return watch.run(
        alone=statistics.median(alone),
        beside=statistics.median(beside),
        alone_p99=sorted(alone)[int(0.99 * len(alone))],
        beside_p99=sorted(beside)[int(0.99 * len(beside))],
        pages=pages / seconds,
    )


def _pages(url: str) -> int:
    return Server(url).seen().requests.get("get_page", 0)


def measure() -> Report:
    raise NotImplementedError
