"""Progress of exports in a log: an `on_progress` callback for code that runs unattended."""

from __future__ import annotations

import logging
import time
from typing import Any, TypeAlias

from msgspec.structs import asdict

from .base.checks import check_seconds, check_whole, shown
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
    given: object = logger
    if given is not None and not isinstance(given, logging.Logger | logging.LoggerAdapter):
        raise InvalidArgument(
            f"logger: expected a Logger or a LoggerAdapter, got {shown(given)}; pass "
            f"logging.getLogger(…)",
            value=given,
        )
    every = check_seconds("every", every, zero=True)
    level = check_whole("level", level, least=0)
    return Log(logger or logging.getLogger("altaprofiles"), every, level)


class Log:
    """The result of `log`: called with each report of progress."""

    def __init__(self, logger: Logger, every: float, level: int) -> None:
        self._logger = logger
        self._every = every
        self._level = level
        self._logged_at: dict[tuple[str, float], float] = {}

    def __repr__(self) -> str:
        return f"progress.log({self._logger!r}, every={self._every}, level={self._level})"

    def __call__(self, progress: Progress) -> None:
        """Log `progress` if its line is due."""
        run, now = (progress.output, progress.started_at), time.monotonic()
        if progress.complete:
            self._logged_at.pop(run, None)
        elif now - self._logged_at.get(run, float("-inf")) >= self._every:
            # An export that fails has no last report, and an entry this old decides nothing. A
            # copy, because threads may share the callback.
            for other, logged_at in self._logged_at.copy().items():
                if now - logged_at >= self._every:
                    self._logged_at.pop(other, None)
            self._logged_at[run] = now
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


def __dir__() -> list[str]:
    return __all__
