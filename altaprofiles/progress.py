"""Progress of exports in a log: an `on_progress` callback for code that runs unattended."""

from __future__ import annotations

import logging
import time
from typing import Any, TypeAlias

from msgspec.structs import asdict

from .base.checks import check_seconds, check_whole
from .errors import InvalidArgument
from .export.report import Progress
from .export.summary import path_text
from .redaction import harmless, readable

__all__ = ["Log", "log"]

Logger: TypeAlias = "logging.Logger | logging.LoggerAdapter[Any]"


def log(logger: Logger | None = None, every: float = 10.0, level: int = logging.INFO) -> Log:
    """Return an `on_progress` callback that logs a line now and then, and one at the end.

    It is for `export`, `export_lookups`, `sync` and `finish_unfinished`, and for those of
    `altaprofiles.blocking`. One callback can serve several exports, also at the same time: each
    has its own interval, and its lines begin with its output. The last line of an export says that
    the output is in place; an export that fails has none, as its error says why.

    A line is `str(progress)` behind the name of the output. The record has the figures as
    `record.progress`, a dict: the attributes of the report other than `chains`, and `done`, `goal`,
    `pace` and `eta`. Neither has data of people or a credential.

    Args:
        logger: by default the one named "altaprofiles". A `logging.LoggerAdapter` names what the
            output does not, such as the account.
        every: shortest time between two lines of one export, in seconds; 0 for a line for each
            report.
        level: the level of the lines. Python logs nothing below WARNING unless logging is set up,
            as by `logging.basicConfig(level=logging.INFO)`.

    Raises:
        InvalidArgument: an argument is of another kind.

    >>> from altaprofiles import progress
    >>> report = await session.export(
    ...     "Charged", start=20260101, end=20260131, to="people.ndjson", on_progress=progress.log()
    ... )
    """
    if logger is not None and not isinstance(logger, logging.Logger | logging.LoggerAdapter):
        raise InvalidArgument(
            f"logger: expected a Logger or a LoggerAdapter, got {logger!r}; pass "
            f"logging.getLogger(…)",
            value=logger,
        )
    check_seconds("every", every, zero=True)
    check_whole("level", level, least=0)
    return Log(logger or logging.getLogger("altaprofiles"), every, level)


class Log:
    """The result of `log`: called with each report of progress."""

    def __init__(self, logger: Logger, every: float, level: int) -> None:
        self._logger = logger
        self._every = every
        self._level = level
        self._last: dict[str, tuple[float, float]] = {}

    def __call__(self, progress: Progress) -> None:
        """Log `progress` if its line is due."""
        now = time.monotonic()
        logged_at, seconds = self._last.get(progress.output, (float("-inf"), 0.0))
        # With fewer seconds than before, it is the first report of another run.
        is_due = now - logged_at >= self._every or progress.seconds < seconds
        if progress.complete:
            self._last.pop(progress.output, None)
        elif is_due:
            self._last[progress.output] = now, progress.seconds
        else:
            return
        self._logger.log(self._level, "%s", _line(progress), extra={"progress": _facts(progress)})


def _line(progress: Progress) -> str:
    output = harmless(path_text(progress.output))
    text = f"{output}: {progress}" if output else str(progress)
    return f"{text}, complete" if progress.complete else text


def _facts(progress: Progress) -> dict[str, Any]:
    facts = asdict(progress)
    # A long list, most of which is the same in each line.
    facts.pop("chains", None)
    facts["output"] = readable(progress.output)
    return facts | {
        "done": progress.done,
        "goal": progress.goal,
        "pace": progress.pace,
        "eta": progress.eta,
    }
