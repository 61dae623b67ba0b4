"""Progress in a notebook, in a real kernel and outside of one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from altaprofiles.notebook import Progress

from .support.records import AT, LOOKING_UP

EXAMPLE = Path(__file__).with_name("example.ipynb")


RUN = """
import sys, nbformat
from nbclient import NotebookClient
from traitlets.config import Config
notebook = nbformat.read(sys.argv[1], as_version=4)
# Five free ports are chosen long before the kernel takes them.
config = Config(AsyncKernelManager={"transport": "ipc"})
waits = {"timeout": 120, "startup_timeout": 120}
where = {"metadata": {"path": sys.argv[2]}}
NotebookClient(notebook, config=config, resources=where, **waits).execute()
print(nbformat.writes(notebook))
"""


def executed(folder: Path, notebook: Path = EXAMPLE) -> list[dict[str, Any]]:
    """Run a notebook's cells in a new kernel, and return them with their outputs."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(notebook), str(folder)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    cells = json.loads(done.stdout)["cells"]
    return [{"outputs": cell["outputs"]} for cell in cells if cell["cell_type"] == "code"]


def text_of(cell: dict[str, Any]) -> str:
    return "".join("".join(output.get("text", "")) for output in cell["outputs"])


def test_the_example_runs_in_jupyter(tmp_path: Path) -> None:
    _, exported, asked, looked_up, closed = executed(tmp_path)
    for cell, line in ((exported, "finishing: "), (looked_up, "finishing: ")):
        # Every report updates the same element of the page.
        (shown,) = (one for one in cell["outputs"] if one["output_type"] == "display_data")
        html = "".join(shown["data"]["text/html"])
        assert html.startswith('<progress value="1.000"')
        assert line in html
        assert "".join(shown["data"]["text/plain"]) in html
    assert "people, 5," in text_of(exported)
    assert "Customer Type" in text_of(asked)
    beside = tmp_path / "found.ndjson.not-found.txt"
    assert text_of(looked_up) == f"1 found; 99 not found, see {beside}\n"
    assert closed["outputs"] == []
    assert (tmp_path / "people.parquet").exists()


STOPPED = """
import os, signal
bar = Progress()

def stop(progress):
    bar(progress)
    if progress.records and os.environ.pop("STOP", None):
        os.kill(os.getpid(), signal.SIGINT)

async with connect() as session:
    await session.export(
        "App Launched", start=20260101, end=20260131, to="p.ndjson", count=True, on_progress=stop
    )
"""


def test_a_bar_does_not_stand_still_after_an_interruption(tmp_path: Path) -> None:
    example = json.loads(EXAMPLE.read_text("utf-8"))
    connect = next(cell for cell in example["cells"] if cell["cell_type"] == "code")
    interrupted = {**connect, "id": "stopped", "source": STOPPED.splitlines(keepends=True)}
    interrupted["metadata"] = {"tags": ["raises-exception"]}
    settings = {**connect, "id": "set", "source": ["import os; os.environ['STOP'] = 'yes'"]}
    again = {**interrupted, "id": "again", "metadata": {}}
    notebook = tmp_path / "stopped.ipynb"
    cells = [connect, settings, interrupted, again]
    notebook.write_text(json.dumps({**example, "cells": cells}))
    *_, stopped, resumed = executed(tmp_path, notebook)
    (html,) = bars(stopped)
    assert html.startswith("<div>stopped; run it again to resume. At the end it was reading: ")
    assert "<progress" not in html
    (html,) = bars(resumed)
    assert html.startswith('<progress value="1.000"')
    assert "stopped" not in html


def bars(cell: dict[str, Any]) -> list[str]:
    outputs = [one for one in cell["outputs"] if one["output_type"] == "display_data"]
    return ["".join(one["data"]["text/html"]) for one in outputs]


def test_without_a_notebook_it_is_lines_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    show = Progress()
    assert str(show) == "nothing yet"
    show(AT)
    show(msgspec.structs.replace(AT, records=60))
    show(msgspec.structs.replace(AT, records=200))
    show(msgspec.structs.replace(AT, stage="finishing", records=200, finished=20))
    out, err = capsys.readouterr()
    assert out == ""
    traffic = "2 of 3 slots, 1 retry, 0:00:02"
    assert err.splitlines() == [
        f"reading: 50 of 200 records (25 %), 25 a second, {traffic}, 0:00:06 left",
        f"reading: 200 of 200 records (100 %), 100 a second, {traffic}, 0:00:00 left",
        "finishing: 20 of 200 records (10 %), 0:00:02",
    ]


def test_progress_is_a_line_for_a_person() -> None:
    assert str(LOOKING_UP) == (
        "asking: 6 of 10 keys (60 %), 1 found, 2 not found, 3 failed, 6 a second, "
        "1 of 1 slot, 2 retries, 0:00:01, 0:00:01 left"
    )
    assert str(msgspec.structs.replace(AT, total=None, records=0, seconds=3723.4)) == (
        "reading: 0 records, 0 a second, 2 of 3 slots, 1 retry, 1:02:03"
    )
    reading = msgspec.structs.replace(LOOKING_UP, stage="reading")
    assert str(reading) == "reading: 10 keys, 0:00:01"
    finishing = msgspec.structs.replace(LOOKING_UP, stage="finishing", found=3, finished=1)
    assert str(finishing) == "finishing: 1 of 3 people (33 %), 0:00:01"
    assert msgspec.structs.replace(AT, resumed=60).pace == 0
    # The service's count may differ from the records received.
    assert "300 of 200 records (100 %)" in str(msgspec.structs.replace(AT, records=300))
    assert "0 of 0 records (100 %)" in str(msgspec.structs.replace(AT, records=0, total=0))
