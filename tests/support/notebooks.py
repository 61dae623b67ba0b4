"""Runs the cells of a notebook in a kernel of Jupyter."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, TypeAlias

__all__ = ["Outputs", "executed", "shown_as", "text_of"]

Outputs: TypeAlias = list[dict[str, Any]]
"""The outputs of one cell, as a notebook holds them."""

_RUN = """
import json, sys, nbformat
from nbclient import NotebookClient
from traitlets.config import Config
notebook = nbformat.reads(sys.stdin.read(), as_version=4)
# Five free ports are chosen long before the kernel takes them.
config = Config(AsyncKernelManager={"transport": "ipc"})
waits = {"timeout": 120, "startup_timeout": 120}
NotebookClient(notebook, config=config, **waits).execute()
print(json.dumps([cell.outputs for cell in notebook.cells]))
"""


def executed(folder: Path, cells: Sequence[str], *, raising: Collection[int] = ()) -> list[Outputs]:
    """Run the cells of a notebook in a new kernel, and return their outputs.

    Args:
        folder: the kernel's current folder.
        cells: the code of each cell.
        raising: the numbers of the cells that may raise an error.
    """
    notebook = {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {},
        "cells": [
            {
                "cell_type": "code",
                "id": f"cell-{number}",
                "execution_count": None,
                "metadata": {"tags": ["raises-exception"] if number in raising else []},
                "outputs": [],
                "source": cell,
            }
            for number, cell in enumerate(cells)
        ],
    }
    done = subprocess.run(
        [sys.executable, "-c", _RUN],
        input=json.dumps(notebook),
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    outputs: list[Outputs] = json.loads(done.stdout)
    return outputs


def text_of(outputs: Outputs, stream: str = "stdout") -> str:
    """Return the text that a cell has written to one of its streams."""
    return "".join(one["text"] for one in outputs if one.get("name") == stream)


def shown_as(outputs: Outputs, kind: str) -> list[str]:
    """Return what a cell displays, in one form, such as "text/html"."""
    return [one["data"][kind] for one in outputs if kind in one.get("data", {})]
