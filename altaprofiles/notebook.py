"""Progress of exports in a notebook: an `on_progress` callback that displays it."""

from __future__ import annotations

import sys
import time
from html import escape
from typing import Any

from .base.wording import share
from .export.report import Progress as ProgressReport

__all__ = ["Progress"]

_DISPLAY_INTERVAL = 0.2
"""Seconds between two updates of the display; each is a message to the browser."""
_LINE_INTERVAL = 5.0
"""Seconds between two lines on stderr."""


class Progress:
    """Displays the progress of one export or bulk lookup below the cell that runs it.

    The display is a bar and a line, both updated in place. Outside a notebook, a line is written to
    stderr every five seconds instead. Use a new instance for each export.

    >>> from altaprofiles.notebook import Progress
    >>> report = await session.export(
    ...     "Charged", start=20260101, end=20260131, to="people.parquet", on_progress=Progress()
    ... )
    """

    def __init__(self) -> None:
        self._at: ProgressReport | None = None
        self._updated_at = float("-inf")
        self._handle: Any = None
        self._stopped = False

    def __call__(self, progress: ProgressReport) -> None:
        """Display `progress`, unless the last update is too recent and nothing has ended."""
        before, self._at = self._at, progress
        self._stopped = False
        display = _display()
        # The end of a stage is always displayed, because no update may follow it.
        is_due = before is None or before.stage != progress.stage or progress.done == progress.goal
        interval = _LINE_INTERVAL if display is None else _DISPLAY_INTERVAL
        if not is_due and time.monotonic() - self._updated_at < interval:
            return
        self._updated_at = time.monotonic()
        if display is None:
            sys.stderr.write(f"{progress}\n")
        elif self._handle is None:
            self._handle = display(self, display_id=True)
            self._events().register("post_run_cell", self._end_cell)
        else:
            self._handle.update(self)

    def _events(self) -> Any:
        return sys.modules["IPython"].get_ipython().events

    def _end_cell(self, result: Any) -> None:
        """Display that an error or an interruption has ended the cell, and with it the work."""
        is_complete = self._at is not None and self._at.complete
        if not result.success and not is_complete:
            self._stopped = True
            self._handle.update(self)
        if is_complete or self._stopped:
            self._events().unregister("post_run_cell", self._end_cell)

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        return {"text/plain": str(self), "text/html": self._html()}

    def __repr__(self) -> str:
        return f"<Progress: {self}>"

    def __str__(self) -> str:
        text = "nothing yet" if self._at is None else str(self._at)
        return (
            f"stopped; run it again to resume. At the end it was {text}" if self._stopped else text
        )

    def _html(self) -> str:
        line = f"<div>{escape(str(self))}</div>"
        # A bar that is not full would look as if the work went on.
        if (
            self._stopped
            or self._at is None
            or (part := share(self._at.done, self._at.goal)) is None
        ):
            return line
        return f'<progress value="{part:.3f}" style="width: 100%"></progress>{line}'


def _display() -> Any:
    """Return IPython's `display` if this runs in a notebook's kernel, else None."""
    # A kernel has imported IPython already; elsewhere it need not be installed.
    if (module := sys.modules.get("IPython")) is None:
        return None
    shell = module.get_ipython()
    if getattr(shell, "kernel", None) is None:
        return None
    from IPython.display import display

    return display
