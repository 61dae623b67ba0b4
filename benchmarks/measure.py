"""Runs servers and contenders in their own processes, and takes medians of interleaved runs.

One contender's imports, memory and event loop therefore never affect another's. The server runs on
the last core, contenders on the first.
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
    """The result of running one contender once.

    Attributes:
        wall, cpu: times in seconds; `cpu` includes all threads and child processes.
        rss: the process's peak of resident memory, in bytes.
        figures: other figures of the question.
    """

    wall: float
    cpu: float
    rss: int
    figures: dict[str, float] = {}


class Watch:
    """Measures the body of a `with` statement.

    Attributes:
        wall, cpu: times in seconds, set at the end of the body.
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
        """Return the measurements, with `figures`."""
        return Run(self.wall, self.cpu, peak_rss(), figures)


def _cpu() -> float:
    import resource

    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def peak_rss() -> int:
    """Return this process's peak of resident memory, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not `ru_maxrss`, which on Linux starts at the parent process's value.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


class Contender(Struct, frozen=True):
    """One way to do the task of a question.

    Attributes:
        label: the name of the contender's row in the table.
        function: a module-level function that returns a `Run`. A new process imports it and calls
            it with `arguments`, and with the server's URL as `url` if there is a server.
        arguments: keyword arguments that JSON can hold.
        needs: required modules, and programs as "$name". If one is missing, the contender is left
            out.
    """

    label: str
    function: Callable[..., Run]
    arguments: dict[str, Any] = {}
    needs: tuple[str, ...] = ()


class Server(Struct, frozen=True):
    """A running server."""

    url: str

    def seen(self) -> Seen:
        """Return the server's counts so far."""
        with urllib.request.urlopen(f"{self.url}/stats", timeout=60) as response:  # noqa: S310
            return msgspec.json.decode(response.read(), type=Seen)


@contextmanager
def serving(shape: Shape, module: str = "benchmarks.server") -> Iterator[Server]:
    """Run `module` as a server of `shape` on loopback."""
    with _child(module, msgspec.json.encode(shape).decode()) as child:
        assert child.stdout is not None
        port = child.stdout.readline().decode().strip()
        if not port:
            raise RuntimeError(f"{module} did not start")
        yield Server(f"http://127.0.0.1:{port}")


def once(contender: Contender, server: Server | None = None) -> Run:
    """Run `contender` in a new process, against `server` if given, and return its result."""
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
    """Run each contender `count` times, in turns: A B C A B C … Return the runs by label.

    Taking turns spreads a temporary load of the machine over all contenders.
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
    """Return the median ratio of `one` to `other` over all rounds, or None if one was left out.

    Ratios are taken within a round, because the speed of a shared machine changes over minutes.
    """
    if one not in runs or other not in runs:
        return None
    pairs = zip(runs[one], runs[other], strict=True)
    return statistics.median(figure(first) / figure(second) for first, second in pairs)


def present(contenders: Iterable[Contender]) -> list[Contender]:
    """Return those of `contenders` whose needs are all installed."""
    return [contender for contender in contenders if not _lacking(contender)]


def left_out(contenders: Iterable[Contender]) -> list[str]:
    """Return a line for each of the other `contenders`, with its missing needs."""
    return [
        f"Left out: {contender.label} (not installed: {', '.join(missing)})."
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
    """Print a line of progress to stderr."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def _child(*command: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a module that ends when its stdin closes: at the end of this block or of this process.

    It has its own session, so that Ctrl-C reaches only this process.
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
