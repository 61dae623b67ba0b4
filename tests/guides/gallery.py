"""The cells of the notebook gallery, and its picture: `python -m tests.guides.gallery` draws it.

The picture is gallery.svg in `benchmarks`, and shows the four charts of the guide as they come.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import os
import re
import tempfile
import warnings
from io import StringIO
from pathlib import Path
from typing import Any

from ..support.guides import GUIDES, document_at

__all__ = ["PICTURE", "cells", "draw"]

PICTURE = Path(__file__).parents[2] / "benchmarks" / "gallery.svg"
_WIDTH, _HEIGHT = 576, 432
"""Points that each of the charts has, two in a row."""


def cells() -> list[str]:
    """Return the code of each cell, in order."""
    return [str(example.parsed) for example in document_at(GUIDES / "gallery.md").examples()]


async def _charts() -> list[str]:
    """Run the cells, and return the charts as SVG."""
    from matplotlib import pyplot

    names: dict[str, Any] = {"__name__": "__main__"}
    charts = []
    for cell in cells():
        code = compile(cell, "cell", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        result = eval(code, names)  # noqa: S307
        if inspect.iscoroutine(result):
            await result
        for number in pyplot.get_fignums():
            chart = StringIO()
            pyplot.figure(number).savefig(chart, format="svg", metadata={"Date": None})
            pyplot.close(number)
            charts.append(chart.getvalue())
    return charts


def draw() -> None:
    """Write the picture of all charts."""
    import matplotlib as mpl

    mpl.use("svg")
    # A fixed salt makes the element ids deterministic, and text is smaller than its outlines.
    mpl.rcParams |= {"svg.hashsalt": "altaprofiles", "svg.fonttype": "none"}
    # Without a display there is nothing to show.
    warnings.filterwarnings("ignore", message=".*non-interactive")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        charts = asyncio.run(_charts())
    parts = ['<rect width="100%" height="100%" fill="white"/>\n']
    for number, chart in enumerate(charts):
        place = f'x="{number % 2 * _WIDTH}" y="{number // 2 * _HEIGHT}"'
        svg = chart[chart.index("<svg") :]
        size = f'{place} width="{_WIDTH}" height="{_HEIGHT}"'
        parts.append(re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', size, svg, count=1))
    box = f"0 0 {2 * _WIDTH} {(len(charts) + 1) // 2 * _HEIGHT}"
    whole = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}">\n{"".join(parts)}</svg>\n'
    PICTURE.write_text(re.sub(r" +$", "", whole, flags=re.MULTILINE))


if __name__ == "__main__":
    draw()
