"""What `on_progress` is given in a notebook. Shows; decides nothing."""

from __future__ import annotations

import sys
import time
from html import escape
from typing import Any

from .base.wording import share
from .export.report import ExportProgress, LookupProgress

__all__ = ["Progress"]


class Progress:
    """Shows an export, or a bulk lookup, below the cell that runs it; one for each.

    It is a bar and a line, which are replaced as the export goes on. Outside of a notebook it is a
    line on stderr every few seconds.

    >>> from altaprofiles.notebook import Progress
    >>> report = await session.export(
    ...     "Charged", start=20260101, end=20260131, to="people.parquet", on_progress=Progress()
    ... )
    """

    def __init__(self) -> None:
        self._at: ExportProgress | LookupProgress | None = None
        self._shown = float("-inf")
        self._handle: Any = None

    def __call__(self, progress: ExportProgress | LookupProgress) -> None:
        """Show `progress`, unless the last that was shown is too new to have been read."""
        before, self._at = self._at, progress
        display = _display()
        # The end of a stage is shown in any case: nothing might come after it.
        matters = before is None or before.stage != progress.stage or progress.done == progress.goal
        every = _LINE if display is None else _PICTURE
        if not matters and time.monotonic() - self._shown < every:
            return
        self._shown = time.monotonic()
        if display is None:
            sys.stderr.write(f"{progress}\n")
        elif self._handle is None:
            self._handle = display(self, display_id=True)
        else:
            self._handle.update(self)

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        return {"text/plain": str(self), "text/html": self._html()}

    def __str__(self) -> str:
        return "nothing yet" if self._at is None else str(self._at)

    def _html(self) -> str:
        line = f"<div>{escape(str(self))}</div>"
        if self._at is None or (part := share(self._at.done, self._at.goal)) is None:
            return line
        return f'<progress value="{part:.3f}" style="width: 100%"></progress>{line}'


_PICTURE = 0.2
"""Seconds between two pictures: each is a message to the browser."""
_LINE = 5.0
"""Seconds between two lines."""


def _display() -> Any:
    """Return what shows things in the notebook that this runs in, or None."""
    # Whatever runs notebooks has imported it.
    if (module := sys.modules.get("IPython")) is None:
        return None
    shell = module.get_ipython()
    if getattr(shell, "kernel", None) is None:
        return None
    from IPython.display import display

    return display
