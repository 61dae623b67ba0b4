"""A picture of an export that is interrupted and resumed: `python -m benchmarks.display`.

It is a real run, drawn by the display of the command line: export-light.svg and export-dark.svg
beside this file.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from altaprofiles import ExportProgress, ExportReport, Session
from altaprofiles.cli.progress import View
from altaprofiles.emulator import Emulator

__all__ = ["draw"]

_COMMAND = (
    "altaprofiles export 'App Launched' Charged --from 2026-01-01 --to 2026-01-31 --count "
    "--out people.parquet"
)
_WIDTH = 112

_COLOURS = [
    (36, 41, 47),
    (207, 34, 46),
    (17, 99, 41),
    (77, 45, 0),
    (9, 105, 218),
    (130, 80, 223),
    (27, 124, 131),
    (110, 119, 129),
]
_LIGHT = TerminalTheme((255, 255, 255), (36, 41, 47), _COLOURS)
_BRIGHT = [
    (201, 209, 217),
    (255, 123, 114),
    (63, 185, 80),
    (210, 153, 34),
    (88, 166, 255),
    (188, 140, 255),
    (57, 197, 207),
    (139, 148, 158),
]
_DARK = TerminalTheme((13, 17, 23), (201, 209, 217), _BRIGHT)


async def _run() -> tuple[ExportProgress, ExportProgress, ExportReport]:
    """Return how far the first run was when it was stopped, and the second, and its report."""
    seen: list[ExportProgress] = []
    far = asyncio.Event()

    def note(at: ExportProgress) -> None:
        seen.append(at)
        if at.records > 12_000:
            far.set()

    faults = {"not_ready": 0.2, "reset": 0.05}
    async with (
        Emulator(people=20_000, faults=faults, think=0.2) as emulator,
        Session(clevertap=emulator.clevertap, alta=emulator.alta) as session,
    ):

        async def export() -> ExportReport:
            return await session.export(
                ["App Launched", "Charged"],
                start="2026-01-01",
                end="2026-01-31",
                to="people.parquet",
                count=True,
                on_progress=note,
            )

        stopped = asyncio.create_task(export())
        await far.wait()
        stopped.cancel()
        await asyncio.wait([stopped])
        first = seen[-1]
        seen.clear()
        report = await export()
    second = max(
        (at for at in seen if at.fetching), key=lambda at: at.records * (at.records < 42e3)
    )
    return first, second, report


def draw(folder: Path) -> None:
    """Run the export in a new folder, and write both pictures."""
    with tempfile.TemporaryDirectory() as place:
        before = Path.cwd()
        os.chdir(place)
        try:
            first, second, report = asyncio.run(_run())
            # Here, where its paths are short.
            summary = str(report)
        finally:
            os.chdir(before)
    for name, theme in {"light": _LIGHT, "dark": _DARK}.items():
        with Path(os.devnull).open("w") as nowhere:
            console = Console(
                file=nowhere, record=True, width=_WIDTH, force_terminal=True, highlight=False
            )
            prompt = Text.assemble(("$ ", "bold green"), _COMMAND)
            console.print(prompt)
            console.print(View(first))
            console.print("^C")
            console.print(Text("error: interrupted by SIGINT", "red"))
            console.print(f"To resume: {_COMMAND}\n", style="bold", markup=False)
            console.print(prompt)
            console.print(View(second))
            console.print("…")
            console.print(Text(summary))
            console.print("people.parquet")
            picture = console.export_svg(title="An export, interrupted and resumed", theme=theme)
        (folder / f"export-{name}.svg").write_text(picture, "utf-8")


if __name__ == "__main__":
    draw(Path(__file__).parent)
