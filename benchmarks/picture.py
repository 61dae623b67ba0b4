"""Plots as SVG. The same figures give the same bytes.

One chain: wall time per page against the server's thinking time. The same walk as in `chain`, with
fewer pages, once per latency. Growth: the cost of a record against the number of records.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from .chain import (
    FAST,
    OURS,
    SEQUENTIAL_AIOHTTP,
    SEQUENTIAL_REQUESTS,
    contenders,
    floor,
    walks,
    wall,
)
from .measure import median, note
from .report import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw", "draw_growth"]

_THINK_MS = (0, 10, 30, 60, 100)
_PAGES = 40
_LINES = {
    OURS: ("altaprofiles", "#1f6feb", "o"),
    SEQUENTIAL_AIOHTTP: ("aiohttp, one page at a time", "#b35900", "s"),
    SEQUENTIAL_REQUESTS: ("requests, one page at a time", "#8b2fa0", "^"),
}


def draw(path: Path, *, pages: int = _PAGES, repeats: int = 3) -> None:
    """Measure one chain, and write the plot."""
    lines: dict[str, list[float]] = {}
    floors: list[float] = []
    for think in _THINK_MS:
        note(f"plot: the server thinks {think} ms")
        link = msgspec.structs.replace(FAST, think=think / 1000)
        walkers = [walker for walker in contenders(link) if walker.label in _LINES]
        floors.append(1000 * floor(link, pages) / pages)
        for label, of in walks(link, pages, repeats, walkers).items():
            lines.setdefault(label, []).append(1000 * median(of, wall) / pages)

    figure, axes = _axes()
    for label, found in lines.items():
        name, colour, marker = _LINES[label]
        axes.plot(_THINK_MS, found, label=name, color=colour, marker=marker, linewidth=2)
    axes.plot(_THINK_MS, floors, label="floor", color="#57606a", linestyle="--")
    axes.set_title(
        f"One cursor chain of {pages} pages of 1.17 MB at {FAST.rate / 1e6:.0f} MB/s,\n"
        f"the consumer takes {1000 * FAST.consumer:.0f} ms a page"
    )
    axes.set_xlabel("time the server thinks before each page (ms)")
    axes.set_ylabel("wall time per page (ms)")
    axes.set_xlim(0, max(_THINK_MS))
    _save(path, figure, axes)


def draw_growth(path: Path, report: Report) -> None:
    """Write the plot of a report of `growth`."""
    (table,) = report.tables
    place = {name: number for number, name in enumerate(table.columns)}
    lines: dict[str, list[tuple[float, float]]] = {}
    for row in table.rows:
        count = _number(row[place["records"]])
        each = (str(row[0]), "us of CPU in all"), ("limit", "limit us")
        for name, column in each:
            points = lines.setdefault(name, [])
            if (point := (count, _number(row[place[column]]))) not in points:
                points.append(point)

    figure, axes = _axes()
    for (name, points), colour in zip(lines.items(), _COLOURS, strict=False):
        style = "--" if name == "limit" else "-"
        axes.plot(*zip(*points, strict=True), style, label=name, color=colour, marker="o")
    axes.set_title("Telling people apart: CPU time of a record")
    axes.set_xlabel("records of the export")
    axes.set_xscale("log")
    axes.set_ylabel("microseconds a record")
    _save(path, figure, axes)


_COLOURS = ("#1f6feb", "#57606a", "#b35900")


def _number(cell: object) -> float:
    assert isinstance(cell, int | float)
    return float(cell)


def _axes() -> tuple[Any, Axes]:
    import matplotlib as mpl

    # The backend for SVG needs no display, and a fixed salt makes its element ids deterministic.
    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "altaprofiles"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5), facecolor="white")
    return figure, axes


def _save(path: Path, figure: Any, axes: Axes) -> None:
    from matplotlib import pyplot

    axes.set_ylim(bottom=0)
    axes.grid(color="#d0d7de", linewidth=0.6)
    axes.legend(loc="best")
    figure.tight_layout()
    figure.savefig(path, format="svg", metadata={"Date": None})
    pyplot.close(figure)
