"""Progress of exports in a notebook: an `on_progress` callback that displays it."""

from __future__ import annotations

import sys
import time
from html import escape
from typing import Any

from .base.wording import clock, numbered, share
from .errors import Incomplete
from .export.report import ExportProgress, LookupProgress
from .export.report import Progress as ProgressReport
from .export.reporting import RunFailure

__all__ = ["Progress"]

_DISPLAY_INTERVAL = 0.2
"""Seconds between two updates of the display; each is a message to the browser."""
_LINE_INTERVAL = 5.0
"""Seconds between two lines on stderr."""


class Progress:
    """Displays the progress of one export or bulk lookup below the cell that runs it.

    The display is a bar and a line, both updated in place. If the export fails or is stopped, the
    line says so, whatever else the cell does. Outside a notebook, a line is written to stderr every
    five seconds instead. Use a new instance for each export.

    While an export reads, there is a bar with `count=True` only: without the service's count, it is
    not known how many people there will be, and the line stands alone. A bulk lookup has one.

    >>> from altaprofiles.notebook import Progress
    >>> report = await session.export(
    ...     "Charged",
    ...     start=20260101,
    ...     end=20260131,
    ...     to="people.parquet",
    ...     count=True,
    ...     on_progress=Progress(),
    ... )
    """

    def __init__(self) -> None:
        self._at: ProgressReport | None = None
        self._updated_at = float("-inf")
        self._handle: Any = None
        self._run: RunFailure | None = None
        self._end = ""

    def __call__(self, progress: ProgressReport) -> None:
        """Display `progress`, unless the last update is too recent and nothing has ended."""
        before, self._at = self._at, progress
        self._follow(RunFailure.of_current())
        display = _display()
        interval = _LINE_INTERVAL if display is None else _DISPLAY_INTERVAL
        if not _is_news(before, progress) and time.monotonic() - self._updated_at < interval:
            return
        self._updated_at = time.monotonic()
        if display is None:
            sys.stderr.write(f"{self}\n")
        elif self._handle is None:
            self._handle = display(self, display_id=True)
        else:
            self._handle.update(self)

    def _follow(self, run: RunFailure | None) -> None:
        """Follow another run than before, if it is one, to its end."""
        if run is not None and run is not self._run:
            self._run, self._end = run, ""
            run.listen(self._fail)

    def _fail(self, error: BaseException) -> None:
        self._end = _end_by(error)
        if self._handle is not None:
            self._handle.update(self)

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        return {"text/plain": str(self), "text/html": self._html()}

    def __repr__(self) -> str:
        return f"<Progress: {self}>"

    def __str__(self) -> str:
        if self._at is None:
            return "nothing yet"
        if self._at.complete:
            return _result(self._at)
        return f"{self._end}. At the end it was {self._at}" if self._end else str(self._at)

    def _html(self) -> str:
        line = f"<div>{escape(str(self))}</div>"
        # A bar that is not full would look as if the work went on.
        if self._end or self._at is None or (part := share(self._at.done, self._at.goal)) is None:
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


def _is_news(before: ProgressReport | None, at: ProgressReport) -> bool:
    """Return whether a report is displayed at once, because no update may follow it soon."""
    if before is None or before.stage != at.stage or before.complete != at.complete:
        return True
    if at.trouble and not before.trouble:
        return True
    return at.done == at.goal and before.done != before.goal


def _end_by(error: BaseException) -> str:
    """Return how an export has ended. What an interruption has ended can simply run again."""
    if not isinstance(error, Exception):
        return "stopped; run it again to resume"
    if isinstance(error, Incomplete):
        from .export.job import NOTHING_KEPT

        if NOTHING_KEPT in str(error):
            return f"incomplete; {NOTHING_KEPT}"
        return "incomplete; run it again to resume"
    return f"failed with {type(error).__name__}"


def _result(at: ProgressReport) -> str:
    """Return the last line of an export: what it has brought."""
    parts: list[str] = []
    if isinstance(at, ExportProgress):
        parts.append(f"{numbered(at.people, 'people')} of {numbered(at.records, 'record')}")
    elif isinstance(at, LookupProgress):
        parts.append(numbered(at.keys, "key"))
    parts += [f"{count:,} {name}" for name, count in at.outcomes.items()]
    return f"done: {', '.join(parts)}, {clock(at.seconds)}"


def __dir__() -> list[str]:
    return __all__
