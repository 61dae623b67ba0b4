"""Makes all calls at random, under random faults and cancellations, for as long as wanted.

From a clone in which the README's test command has run:

    .venv/bin/python -m tests.soak --minutes 8

Prints figures as JSON. Exits with 1 if a record was lost, doubled or wrong, if an exception was not
one of the library's, if a call hung, or if connections, tasks, descriptors or memory were left.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

from altaprofiles import AltaProfilesError, Session, Timeout

from .faults.calls import CALLS, Call, Found
from .faults.catalog import FAULTS
from .faults.cells import PATIENCE, session_for
from .faults.server import Fault, WireServer, serving

WORKERS = 4
FAULTY = 0.15
"""Share of answers that are faults."""
CANCELLED = 0.1
"""Share of calls that are cancelled."""
ROOM = 96 * 1024 * 1024
"""Memory, in bytes, that a run may take beyond what it took when all had been tried once."""


class Figures:
    """What happened. `bad` are those that must stay 0."""

    bad = ("lost", "doubled", "wrong", "foreign", "hung", "left")

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter(dict.fromkeys(self.bad, 0))
        self.errors: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()

    def add(self, call: Call, found: Found) -> None:
        items, expected = (Counter(map(repr, one)) for one in (found.items, call.expected))
        more = items - expected
        wrong = sum(number for item, number in more.items() if item not in expected)
        lost = (expected - items).total() - len(found.errors)
        self.counts["right"] += not more and not lost and not found.errors
        self.counts["records"] += len(found.items)
        self.counts["wrong"] += wrong
        self.counts["doubled"] += more.total() - wrong
        self.counts["lost"] += max(lost, 0)
        for error in found.errors:
            self.errors[type(error).__name__] += 1

    def complain(self, kind: str, text: str) -> None:
        self.counts[kind] += 1
        print(f"{kind}: {text}", file=sys.stderr, flush=True)


class Soak:
    """One run on one session."""

    def __init__(self, seed: int, figures: Figures, folder: Path) -> None:
        self._chance = random.Random(seed)  # noqa: S311
        self._figures = figures
        self._folder = folder
        self._faults = list(FAULTS.values())
        self._quick = [fault for fault in self._faults if not fault.slow]

    def pick(self) -> Fault | None:
        if self._chance.random() >= FAULTY:
            return None
        # Slow ones take seconds, in which all else could have been tried.
        of = self._faults if self._chance.random() < 0.05 else self._quick
        fault = self._chance.choice(of)
        self._figures.faults[fault.name] += 1
        return fault

    async def work(self, session: Session, number: int, until: float) -> None:
        folder = self._folder / str(number)
        while time.monotonic() < until:
            name = self._chance.choice(list(CALLS))
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            turns = self._chance.randrange(200) if self._chance.random() < CANCELLED else None
            await self._once(name, session, folder, turns)

    async def _once(self, name: str, session: Session, folder: Path, turns: int | None) -> None:
        figures, call = self._figures, CALLS[name]
        figures.counts["calls"] += 1
        task = asyncio.ensure_future(call.run(session, folder))
        if turns is not None:
            figures.counts["cancelled"] += 1
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
        await asyncio.wait([task], timeout=PATIENCE)
        if not task.done():
            figures.complain("hung", name)
            task.cancel()
        elif task.cancelled():
            if turns is None:
                figures.complain("foreign", f"{name} was cancelled by nobody")
        elif (error := task.exception()) is None:
            before = dict(figures.counts)
            figures.add(call, task.result())
            for kind in ("lost", "doubled", "wrong"):
                if figures.counts[kind] > before.get(kind, 0):
                    print(f"{kind}: {name}", file=sys.stderr, flush=True)
        elif isinstance(error, AltaProfilesError):
            figures.counts["errors"] += 1
            figures.errors[type(error).__name__] += 1
        else:
            figures.complain("foreign", f"{name}: {''.join(traceback.format_exception(error))}")


async def run(minutes: float, seed: int) -> dict[str, Any]:
    """Return the figures of a run."""
    figures = Figures()
    began = time.monotonic()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(
        lambda _, context: figures.complain("foreign", f"in the event loop: {context}")
    )
    with tempfile.TemporaryDirectory(prefix="altaprofiles-soak-") as name:
        soak = Soak(seed, figures, Path(name))
        gc.collect()
        tasks, descriptors = len(asyncio.all_tasks()), _descriptors()
        async with serving() as server:
            limits = Timeout(connect=5, read=1, total=3)
            async with session_for(server, timeout=limits) as session:
                server.haunt(soak.pick)
                # Imports, caches and the bombs' own bytes come first.
                ends = began + minutes * 60
                warm = began + min(60.0, minutes * 20)
                await _together(soak, session, warm)
                first = _resident()
                await _together(soak, session, ends)
                last = _resident()
                requests = session.stats.requests
            await _until_gone(server, figures)
        gc.collect()
    after = len(asyncio.all_tasks()), _descriptors()
    if after[0] > tasks or after[1] > descriptors:
        figures.complain(
            "left", f"tasks {tasks} to {after[0]}, descriptors {descriptors} to {after[1]}"
        )
    if last > first + ROOM:
        figures.complain("left", f"memory grew from {first:,} to {last:,} bytes")
    return {
        "seed": seed,
        "loop": type(loop).__module__.partition(".")[0],
        "seconds": round(time.monotonic() - began),
        "requests": requests,
        "connections": server.opened,
        "faults": figures.faults.total(),
        "kinds of fault": len(figures.faults),
        **figures.counts,
        "errors by class": dict(figures.errors.most_common()),
        "RSS in MB": [round(first / 1e6), round(last / 1e6)],
        "descriptors": [descriptors, after[1]],
        "tasks": [tasks, after[0]],
    }


async def _together(soak: Soak, session: Session, until: float) -> None:
    await asyncio.gather(*(soak.work(session, number, until) for number in range(WORKERS)))


async def _until_gone(server: WireServer, figures: Figures) -> None:
    for _ in range(1000):
        if not server.connections:
            return
        await asyncio.sleep(0.01)
    figures.complain("left", f"{len(server.connections)} connections")


def _resident() -> int:
    """Return the memory in use, in bytes; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGESIZE")


def _descriptors() -> int:
    try:
        return len([*Path("/proc/self/fd").iterdir()])
    except OSError:
        return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--uvloop", action="store_true")
    options = parser.parse_args()
    factory = None
    if options.uvloop:
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        figures = runner.run(run(options.minutes, options.seed))
    print(json.dumps(figures, indent=2))
    return any(figures[name] for name in Figures.bad)


if __name__ == "__main__":
    sys.exit(main())
