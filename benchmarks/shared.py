"""One cap for several processes: how much of the slots do they use, and how fairly?

Four processes share three slots of a service that takes 50 ms a request. The yardstick is one
process with as many callers, whose cap is its own.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import IO, Any

from .answers import Shape
from .clients import run
from .measure import Contender, Run, Watch, once, rounds, serving
from .report import Ratio, Report, Table

__all__ = ["cost", "measure", "together"]

THINK = 0.05
SLOTS = 3
_SECONDS = 8.0
_TIMES = 20_000


def together(
    url: str, processes: int, callers: int, seconds: float, shared: bool, bulk: bool = False
) -> Run:
    """Look people up in several processes; return the requests, the least share, and latencies.

    Args:
        url: the service.
        processes: number of processes.
        callers: callers in each.
        seconds: the time they take.
        shared: whether they share their slots.
        bulk: whether one more process looks people up in bulk.
    """
    with tempfile.TemporaryDirectory() as folder:
        place = str(Path(folder) / "slots") if shared else False
        waiting, starting = os.pipe()
        work = []
        for number in range(processes + bulk):
            calls = partial(_calls, url, callers, seconds, place, number == processes)
            work.append(_forked(calls, (waiting, starting)))
        os.close(waiting)
        for pipe in work:
            pipe.readline()
        with Watch() as watch:
            os.close(starting)
            found = [_result(pipe) for pipe in work]
    single = found[:processes]
    latencies = sorted(latency for latencies in single for latency in latencies)
    counts = [len(latencies) for latencies in single]
    return watch.run(
        requests=sum(counts),
        bulk=sum(len(latencies) for latencies in found[processes:]),
        least_share=min(counts) * processes / sum(counts),
        median=statistics.median(latencies),
        p99=latencies[int(0.99 * len(latencies))],
    )


def _forked(
    work: Callable[[Callable[[], None]], Coroutine[Any, Any, list[float]]],
    start: tuple[int, int],
) -> IO[str]:
    """Run `work` in a forked process.

    Args:
        work: calls its argument once it is ready, which returns when all start.
        start: the ends of a pipe that is closed when all start.

    Returns:
        A pipe with a line once the process is ready, and then its result.
    """
    reading, writing = os.pipe()
    if os.fork() == 0:
        try:
            os.close(reading)
            waiting, starting = start
            os.close(starting)
            with os.fdopen(writing, "w") as pipe:

                def ready() -> None:
                    print(file=pipe, flush=True)
                    os.read(waiting, 1)

                json.dump(run(work(ready)), pipe)
        finally:
            os._exit(0)
    os.close(writing)
    return os.fdopen(reading)


def _result(pipe: IO[str]) -> list[float]:
    with pipe:
        latencies: list[float] = json.load(pipe)
    return latencies


async def _calls(
    url: str,
    callers: int,
    seconds: float,
    shared: Any,
    is_bulk: bool,
    ready: Callable[[], None],
) -> list[float]:
    """Return the latency of each call, in seconds."""
    from altaprofiles import CleverTap, Session

    account = CleverTap("BENCH", "BENCH", base_url=url, max_in_flight=SLOTS, shared=shared)
    latencies: list[float] = []

    async def call(session: Session, ends: float) -> None:
        # Each has one call at least, also on a machine that does other things.
        ended = 0.0
        while ended < ends:
            began = time.monotonic()
            await session.profiles.get(identity="1")
            ended = time.monotonic()
            latencies.append(ended - began)

    async def look_up(session: Session, ends: float) -> None:
        async for _ in session.profiles.get_many(map(str, range(10**9)), by="identity"):
            latencies.append(0.0)
            if time.monotonic() >= ends:
                return

    async with Session(clevertap=account) as session:
        ready()
        ends = time.monotonic() + seconds
        work = look_up if is_bulk else call
        count = 1 if is_bulk else callers
        await asyncio.gather(*(work(session, ends) for _ in range(count)))
    return latencies


def cost(shared: bool) -> Run:
    """Take a free slot and release it, over and over; return the microseconds of CPU time."""

    async def main() -> Run:
        from altaprofiles.http.retry import Retry
        from altaprofiles.http.service import Service
        from altaprofiles.http.sizing import Size

        with tempfile.TemporaryDirectory() as folder:
            service = Service(
                api="CleverTap",
                account="BENCH",
                url="https://localhost",
                headers=lambda secret: {},
                secret="BENCH",  # noqa: S106
                check=lambda secret, kind, source: None,
                sizes={"get_profile": Size(SLOTS, SLOTS)},
                retry=Retry(),
                shared=str(Path(folder) / "slots") if shared else False,
                owner="BENCH",
            )
            await service.open()
            cap = service.cap("get_profile")
            best = float("inf")
            with Watch() as watch:
                for _ in range(7):
                    started = time.process_time()
                    for _ in range(_TIMES):
                        turn = await cap.acquire()
                        cap.release(turn, is_answered=True)
                        service.succeeded(cap, turn, 0.0)
                    best = min(best, time.process_time() - started)
            service.close()
        return watch.run(microseconds=best / _TIMES * 1e6)

    return run(main())


def measure() -> Report:
    """Return the use of shared slots, the shares of processes, and the cost of a slot."""
    four, one = "4 processes of 3 callers, shared", "1 process of 12 callers"
    alone, beside = "3 processes of 1 caller, shared", "… beside a bulk lookup"
    common = {"seconds": _SECONDS}
    contenders = [
        Contender(four, together, {**common, "processes": 4, "callers": 3, "shared": True}),
        Contender(one, together, {**common, "processes": 1, "callers": 12, "shared": False}),
        Contender(alone, together, {**common, "processes": 3, "callers": 1, "shared": True}),
        Contender(
            beside, together,
            {**common, "processes": 3, "callers": 1, "shared": True, "bulk": True},
        ),
    ]  # fmt: skip
    with serving(Shape(think=THINK)) as server:
        runs = rounds(server, contenders, 3)
        peak = server.seen().peak

    def middle(label: str, figure: str) -> float:
        return statistics.median(run.figures[figure] for run in runs[label])

    most = SLOTS * _SECONDS / THINK
    free, locked = (
        once(Contender("cost", cost, {"shared": shared})).figures["microseconds"]
        for shared in (False, True)
    )
    return Report(
        [
            Table(
                "One cap for several processes",
                [
                    "callers",
                    "requests",
                    "slots used %",
                    "least share of a process",
                    "median ms",
                    "p99 ms",
                    "bulk requests",
                ],
                [
                    [
                        label,
                        middle(label, "requests"),
                        100 * (middle(label, "requests") + middle(label, "bulk")) / most,
                        middle(label, "least_share"),
                        1000 * middle(label, "median"),
                        1000 * middle(label, "p99"),
                        middle(label, "bulk"),
                    ]
                    for label in (four, one, alone, beside)
                ],
                [
                    f"{THINK * 1000:.0f} ms a request, {SLOTS} slots. Most in flight: {peak}.",
                    f"Microseconds of CPU time for a free slot: {free:.1f}; shared {locked:.1f}.",
                ],
            )
        ],
        [
            Ratio(
                10,
                "slots used by four processes, against one",
                100 * middle(four, "requests") / middle(one, "requests"),
                95,
                True,
                "%",
            ),
            Ratio(10, "least share of a process, at least", middle(four, "least_share"), 0.5, True),
            Ratio(
                10,
                "p99 of four processes, against one",
                middle(four, "p99") / middle(one, "p99"),
                2,
                False,
            ),
            Ratio(
                10,
                "single calls beside a bulk lookup, against alone",
                middle(beside, "median") / middle(alone, "median"),
                1.5,
                False,
            ),
        ],
    )
