"""Start: how long do importing the library, beyond its dependencies, and `--help` take?

Median wall times of fresh interpreters, started in turns.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from importlib.util import find_spec

from .measure import Contender, Run, Watch, once
from .report import Cell, Ratio, Report, Table

__all__ = ["commands", "measure", "starts"]

_NOTHING = "python -c pass"
_DEPENDENCIES = "import aiohttp, msgspec, anyio"
_OURS = f"{_DEPENDENCIES}, altaprofiles; altaprofiles.Session"
_HELP = "python -m altaprofiles --help"


def commands() -> dict[str, list[str]]:
    """Return the arguments of each interpreter to start, by label."""
    found = {
        _NOTHING: ["-c", "pass"],
        _DEPENDENCIES: ["-c", _DEPENDENCIES],
        _OURS: ["-c", _OURS],
    }
    if find_spec("click") and find_spec("rich"):
        found[_HELP] = ["-m", "altaprofiles", "--help"]
    return found


def starts(repeats: int) -> Run:
    """Start interpreters in turns; the figures are median times in seconds, by label."""
    seconds: dict[str, list[float]] = {name: [] for name in commands()}
    with Watch() as watch:
        # The first round does not count, because it writes caches such as bytecode.
        for _ in range(repeats + 1):
            for name, arguments in commands().items():
                with Watch() as each:
                    subprocess.run(
                        [sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL
                    )
                seconds[name].append(each.wall)
    return watch.run(**{name: statistics.median(taken[1:]) for name, taken in seconds.items()})


def measure(*, repeats: int = 15) -> Report:
    """Return the start-up times, and the two ratios."""
    found = once(Contender("starts", starts, {"repeats": repeats})).figures
    rows: list[list[Cell]] = [[f"`{name}`", 1000 * seconds] for name, seconds in found.items()]
    notes = [f"Fresh interpreters, medians of {repeats}."]
    if _HELP not in found:
        notes.append(f"Left out: {_HELP} (no click or no rich here).")
    beyond = found[_OURS] - found[_DEPENDENCIES]
    return Report(
        [Table("Start", ["command", "wall ms"], rows, notes)],
        [
            Ratio(7, "importing Session, beyond its dependencies", beyond, 0.15, False, "s"),
            Ratio(7, _HELP, found.get(_HELP), 0.25, False, "s"),
        ],
    )
