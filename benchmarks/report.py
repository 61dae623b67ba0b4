"""The results of questions, as values and as Markdown."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypeAlias

from msgspec import Struct

from altaprofiles import __version__

__all__ = ["Cell", "Check", "Ratio", "Report", "Table", "machine", "markdown", "ratio_table"]

Cell: TypeAlias = str | int | float | None

_PACKAGES = (
    "aiohttp",
    "msgspec",
    "anyio",
    "yarl",
    "uvloop",
    "isal",
    "backports.zstd",
    "httpx",
    "httpx2",
    "requests",
)


class Table(Struct, frozen=True):
    """A table. None is a cell without a value, and `notes` are lines below the table."""

    title: str
    columns: list[str]
    rows: list[list[Cell]]
    notes: list[str] = []


class Ratio(Struct, frozen=True):
    """A measured figure and its target.

    Attributes:
        number: the number of the goal, from 1 to 15.
        name: the two things compared.
        measured: the figure; None if something that it needs is missing.
        target: the bound for the figure.
        at_least: whether `target` is a lower bound; if not, it is an upper bound.
        unit: the unit of both figures.
    """

    number: int
    name: str
    measured: float | None
    target: float
    at_least: bool
    unit: str = "x"

    @property
    def verdict(self) -> str:
        """ "ok", "short" or "not measured"."""
        if self.measured is None:
            return "not measured"
        if self.at_least:
            return "ok" if self.measured >= self.target else "short"
        return "ok" if self.measured <= self.target else "short"


class Report(Struct, frozen=True):
    """The results of one question."""

    tables: list[Table]
    ratios: list[Ratio] = []


class Check(Struct, frozen=True):
    """One count of `--quick`, and its expected value or upper bound."""

    name: str
    counted: int
    expected: int
    at_most: bool = False

    @property
    def passed(self) -> bool:
        """Whether the count is as expected."""
        return self.counted <= self.expected if self.at_most else self.counted == self.expected

    def __str__(self) -> str:
        wanted = f"{'at most ' if self.at_most else ''}{self.expected:,}"
        return f"{'ok' if self.passed else 'WRONG'}: {self.name}: {self.counted:,} ({wanted})"


def markdown(table: Table) -> str:
    """Return `table` as Markdown, with its title as a heading."""
    lines = [f"## {table.title}", "", _line(table.columns)]
    lines.append(_line(["---", *["---:"] * (len(table.columns) - 1)]))
    lines += [_line([_shown(cell) for cell in row]) for row in table.rows]
    lines += [f"\n{text}" for text in table.notes]
    return "\n".join(lines) + "\n"


def ratio_table(ratios: Iterable[Ratio]) -> Table:
    """Return a table of the ratios, their targets and verdicts."""
    rows: list[list[Cell]] = [
        [
            f"{ratio.number}. {ratio.name}",
            "-" if ratio.measured is None else f"{ratio.measured:.4g} {ratio.unit}",
            f"{'at least' if ratio.at_least else 'at most'} {ratio.target:g} {ratio.unit}",
            ratio.verdict,
        ]
        for ratio in sorted(ratios, key=lambda ratio: ratio.number)
    ]
    return Table("Ratios to reach", ["ratio", "measured", "target", "verdict"], rows)


def machine() -> Table:
    """Return a table of the machine and the versions of packages."""
    facts: list[list[Cell]] = [
        ["CPU", _cpu_model()],
        ["cores", os.cpu_count()],
        ["Python", f"{platform.python_implementation()} {platform.python_version()}"],
        ["system", platform.platform()],
        ["altaprofiles", __version__],
    ]
    packages: list[list[Cell]] = [[name, _version(name)] for name in _PACKAGES]
    return Table("Machine", ["item", "value"], facts + packages)


def _cpu_model() -> str:
    facts = Path("/proc/cpuinfo")
    if facts.exists():
        for line in facts.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(name: str) -> str:
    if name == "backports.zstd" and sys.version_info >= (3, 14):
        return "in the standard library"
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _shown(cell: Cell) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, float):
        return f"{cell:,.0f}" if abs(cell) >= 100 else f"{cell:.3g}"
    return f"{cell:,}" if isinstance(cell, int) else cell
