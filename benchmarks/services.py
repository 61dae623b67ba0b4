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

from .answers import Shape
from .measure import (
    Contender,
    Run,
    Server,
    Watch,
    left_out,
    median,
    note,
    present,
    serving,
)
from .report import Ratio, Report, Table

__all__ = ["beside_an_export", "calls", "is_possible", "measure"]

_GUIDE = Path(altaprofiles.__file__).parent / "guides" / "in-a-web-service.md"
_SLOTS = 3
_WORKERS = 4
_CALLS = 10_000
_QUICK = 0.005
_THINK = 0.05
_RATE = 50e6
_PAGES = 2000  # of each chain: more than are read meanwhile
_RECORDS = 5000
_REQUESTS = 100
_ROUNDS = 3
_LATENCIES = ("alone", "beside", "alone_p99", "beside_p99")
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


def is_possible() -> bool:
    """Return whether all that the service needs is installed."""
    return bool(present([Contender("service", calls, needs=_NEEDS)]))


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
    """Return the refusals of 10,000 calls, and the latencies beside an export."""
    contenders = [
        Contender("one caller", beside_an_export, {"callers": 1}, _NEEDS),
        Contender("twelve callers", beside_an_export, {"callers": 12}, _NEEDS),
    ]
    if lacking := left_out(contenders):
        return Report([Table("A web service of four processes", ["calls"], [], lacking)])
    note(f"  {_CALLS:,} calls")
    answers = calls(_CALLS, _QUICK).figures
    shape = Shape(think=_THINK, rate=_RATE, chains=(_PAGES,) * _SLOTS, records=_RECORDS)
    runs: dict[str, list[Run]] = {contender.label: [] for contender in contenders}
    for number in range(_ROUNDS):
        for contender in contenders:
            note(f"  round {number + 1} of {_ROUNDS}: {contender.label}")
            callers = contender.arguments["callers"]
            # Not pinned to a core, as the service is several processes.
            with serving(shape) as server:
                run = beside_an_export(server.url, _REQUESTS * min(callers, _SLOTS), callers)
            runs[contender.label].append(run)

    speed = f"{_RATE / 1e6:.0f} MB/s"

    def middle(label: str, figure: str) -> float:
        return statistics.median(run.figures[figure] for run in runs[label])

    return Report(
        [
            Table(
                "A web service of four processes on three slots",
                ["calls", "answered", "failed", "refused by the service", "most in flight"],
                [
                    [
                        _CALLS,
                        answers["found"],
                        answers["failed"],
                        answers["refused"],
                        answers["peak"],
                    ]
                ],
                [f"{_QUICK * 1000:.0f} ms a request, 16 callers, one cap for all processes."],
            ),
            Table(
                "Its calls beside an export in the same session",
                ["callers", "median ms alone", "beside", "p99 ms alone", "beside", "pages/s"],
                [
                    [
                        label,
                        *(1000 * middle(label, figure) for figure in _LATENCIES),
                        middle(label, "pages"),
                    ]
                    for label in runs
                ],
                [f"{_THINK * 1000:.0f} ms a request; pages of {_RECORDS:,} people at {speed}."],
            ),
        ],
        [
            Ratio(10, f"refusals of {_CALLS:,} calls", answers["refused"], 0, False, ""),
            *(
                Ratio(
                    10,
                    f"web calls beside an export, against alone, {label}",
                    median(found, lambda run: run.figures["beside"] / run.figures["alone"]),
                    1.5,
                    False,
                )
                for label, found in runs.items()
            ),
        ],
    )
