"""Runs servers and contenders, each in a process of its own, and takes medians of interleaved runs.

Imports, memory and event loops of one contender so never touch another's. The server has the last
core, contenders the first.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
from msgspec import Struct

from .answers import Shape
from .ledger import Seen

__all__ = [
    "Contender",
    "Run",
    "Server",
    "Watch",
    "left_out",
    "median",
    "note",
    "once",
    "paired",
    "peak_rss",
    "present",
    "rounds",
    "serving",
]

_ROOT = Path(__file__).parents[1]


class Run(Struct, frozen=True):
    """What one contender did once.

    Attributes:
        wall, cpu: seconds; `cpu` includes all threads, and programs it started.
        rss: peak resident memory of the process until then, in bytes.
        figures: what the question counts besides.
    """

    wall: float
    cpu: float
    rss: int
    figures: dict[str, float] = {}


class Watch:
    """Measures what happens inside `with`.

    Attributes:
        wall, cpu: seconds, known after the end.
    """

    def __enter__(self) -> Self:
        self._wall, self._cpu = time.perf_counter(), _cpu()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.wall, self.cpu = time.perf_counter() - self._wall, _cpu() - self._cpu

    def run(self, **figures: float) -> Run:
        """Return what was measured, with `figures`."""
        return Run(self.wall, self.cpu, peak_rss(), figures)


def _cpu() -> float:
    import resource

    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def peak_rss() -> int:
    """Return the most memory that this process ever had resident, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not `ru_maxrss`, which on Linux begins with what the parent process had.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


class Contender(Struct, frozen=True):
    """One way to do the task of a question.

    Attributes:
        label: its row in the table.
        function: a function of a module, which is imported and called in a new process with
            `arguments`, and the server's URL where there is one, and returns a `Run`.
        arguments: what else it is called with, as JSON has it.
        needs: modules, and programs as "$name", without which it is left out.
    """

    label: str
    function: Callable[..., Run]
    arguments: dict[str, Any] = {}
    needs: tuple[str, ...] = ()


class Server(Struct, frozen=True):
    """A running server."""

    url: str

    def seen(self) -> Seen:
        """Return its counts so far."""
        with urllib.request.urlopen(f"{self.url}/stats", timeout=60) as response:  # noqa: S310
            return msgspec.json.decode(response.read(), type=Seen)


@contextmanager
def serving(shape: Shape, module: str = "benchmarks.server") -> Iterator[Server]:
    """Have `module` serve `shape` on loopback."""
    with _child(module, msgspec.json.encode(shape).decode()) as child:
        assert child.stdout is not None
        port = child.stdout.readline().decode().strip()
        if not port:
            raise RuntimeError(f"{module} did not start")
        yield Server(f"http://127.0.0.1:{port}")


def once(contender: Contender, server: Server | None = None) -> Run:
    """Return what `contender` does in a new process, with `server` where it needs one."""
    where = {} if server is None else {"url": server.url}
    arguments = msgspec.json.encode({**contender.arguments, **where}).decode()
    function = contender.function
    with _child("benchmarks.contender", function.__module__, function.__name__, arguments) as child:
        assert child.stdout is not None
        answer = child.stdout.read()
        if child.wait() != 0:
            raise RuntimeError(f"{contender.label} failed")
    return msgspec.json.decode(answer, type=Run)


def rounds(server: Server, contenders: Sequence[Contender], count: int) -> dict[str, list[Run]]:
    """Return `count` runs of each contender by its label, in turns: A B C A B C …

    In turns, so that what disturbs the machine for a while disturbs them all.
    """
    runs: dict[str, list[Run]] = {contender.label: [] for contender in contenders}
    for number in range(count):
        for contender in contenders:
            note(f"  round {number + 1} of {count}: {contender.label}")
            runs[contender.label].append(once(contender, server))
    return runs


def median(runs: Sequence[Run], figure: Callable[[Run], float]) -> float:
    """Return the median of `figure` over `runs`."""
    return statistics.median(figure(run) for run in runs)


def paired(
    runs: Mapping[str, Sequence[Run]], one: str, other: str, figure: Callable[[Run], float]
) -> float | None:
    """Return the median of what `one` has over `other`, round by round.

    None when one of them was left out. Round by round, because a machine that others use too is
    faster in some minutes than in others.
    """
    if one not in runs or other not in runs:
        return None
    pairs = zip(runs[one], runs[other], strict=True)
    return statistics.median(figure(first) / figure(second) for first, second in pairs)


def present(contenders: Iterable[Contender]) -> list[Contender]:
    """Return those of `contenders` that have all they need."""
    return [contender for contender in contenders if not _lacking(contender)]


def left_out(contenders: Iterable[Contender]) -> list[str]:
    """Return a line for each of the other `contenders`, which says what it lacks."""
    return [
        f"Left out: {contender.label} (no {', '.join(missing)} here)."
        for contender in contenders
        if (missing := _lacking(contender))
    ]


def _lacking(contender: Contender) -> list[str]:
    return [need.removeprefix("$") for need in contender.needs if not _is_here(need)]


def _is_here(need: str) -> bool:
    if need.startswith("$"):
        return shutil.which(need[1:]) is not None
    package = need.partition(".")[0]
    return find_spec(package) is not None and find_spec(need) is not None


def note(text: str) -> None:
    """Tell whoever waits how far it is."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def _child(*command: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a module of ours, which ends when its stdin closes: with this block, or with us.

    In a session of its own, so that Ctrl-C reaches this process alone.
    """
    child = subprocess.Popen(
        [sys.executable, "-m", *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=_ROOT,
        start_new_session=True,
    )
    with child:
        yield child
