"""The counters of one run, and its progress reports to the caller. Sends nothing."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from functools import partial
from typing import Generic, TypedDict, TypeVar

from msgspec import Struct

from ..base.checks import check_callback, check_called
from ..errors import AltaProfilesError
from ..http.engine import Engine
from ..http.service import Service
from ..models import Stats
from .report import Progress
from .store.journal import Journal

__all__ = ["CallbackFailed", "Reporting", "RunFailure", "Totals", "Traffic", "rate_limit"]

logger = logging.getLogger("altaprofiles")

_TROUBLED_FOR = 20
"""Requests without another failure after which the last one is no longer reported."""

_STANDING = 5.0
"""Seconds between two looks at the clock from which an event loop was not at work."""

S = TypeVar("S", bound=Progress)


def rate_limit(service: Service) -> tuple[bool, float | None]:
    """Return whether a service refuses every request for a rate limit, and until when.

    The time is Unix time, in seconds; None if the service does not name it.
    """
    now = time.monotonic()
    ends = service.pace.named_until
    # A time that has passed stays until the next request.
    waits_until = time.time() + ends - now if ends is not None and ends > now else None
    return waits_until is not None or service.pace.closed_since is not None, waits_until


class Totals(TypedDict):
    """Counters over all runs of one export: in its journal, its progress and its report."""

    requests: int
    retries: int
    seconds: float


class Traffic(TypedDict):
    """The part of a progress report that every export has."""

    requests: int
    retries: int
    in_flight: int
    slots: int
    throttled: bool
    waits_until: float | None
    seconds: float
    started_at: float
    output: str
    complete: bool
    trouble: str


class CallbackFailed(Exception):
    """`on_progress` raised `error`.

    A type of its own, so that nothing takes the caller's error for one of the service or the disk.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


class RunFailure:
    """The error that ends a run, for callbacks that follow it to its end. A run may have none.

    The caller of the export may catch the error, and other work may fail meanwhile; so neither the
    caller's task nor a cell of a notebook says how a run has ended.
    """

    def __init__(self) -> None:
        self._listeners: set[Callable[[BaseException], object]] = set()

    @staticmethod
    def of_current() -> RunFailure | None:
        """Return that of the run whose `on_progress` is being called, or None if none is."""
        return _CURRENT.get()

    def listen(self, listener: Callable[[BaseException], object]) -> None:
        """Call `listener` with the error once the run fails. Each listener is called once."""
        self._listeners.add(listener)

    def happen(self, error: BaseException) -> None:
        """Call the listeners. Their own errors are logged, and must not hide that of the run."""
        while self._listeners:
            try:
                self._listeners.pop()(error)
            except Exception:
                logger.exception("a listener to the end of an export failed")


_CURRENT: ContextVar[RunFailure | None] = ContextVar("altaprofiles.run_failure", default=None)
"""Also seen by what a callback schedules, such as an update in another thread."""


class _Earlier(Struct):
    requests: int = 0
    retries: int = 0
    seconds: float = 0.0


class Reporting(Generic[S]):
    """Counts the requests of one run, and reports its progress.

    Args:
        calls: each service that is asked, and the operation whose slots are reported. The rate
            limit of the first is reported.
        on_progress: called with each report, or None.

    Attributes:
        tally: counts the requests of this run.
        failure: the last failure of a call in this run, or None.
        output: the name of the output in reports.
        ahead: the seconds by which this machine's clock is ahead of that of the first service, by
            its last answer; None if no answer has said so.

    Raises:
        ConfigurationError: `on_progress` is not a plain function.
    """

    def __init__(
        self, calls: Sequence[tuple[Service, str]], on_progress: Callable[[S], object] | None
    ) -> None:
        check_callback("on_progress", on_progress, takes="one argument")
        self.tally = Stats()
        self.failure: AltaProfilesError | None = None
        self.output = ""
        self.ahead: float | None = None
        self._caps = [service.cap(operation) for service, operation in calls]
        self._service = calls[0][0]
        self._callback = on_progress
        self._run_failure = RunFailure()
        self._began = time.monotonic()
        self._looked: float | None = None
        self._started_at = time.time()
        self._earlier = _Earlier()
        self._trouble = ""
        self._troubled_at = 0

    def counting(self, engine: Engine) -> Engine:
        """Return `engine` such that the calls of this run are counted."""
        return engine.counting(
            self.tally, partial(setattr, self, "failure"), self._note_retry, self._note_date
        )

    def _note_date(self, service: Service, ahead: float) -> None:
        if service is self._service:
            self.ahead = ahead

    def _note_retry(self, error: AltaProfilesError) -> None:
        self._trouble, self._troubled_at = str(error), self.tally.requests

    @property
    def _current_trouble(self) -> str:
        is_past = self.tally.requests - self._troubled_at >= _TROUBLED_FOR
        return "" if is_past else self._trouble

    def resume(self, journal: Journal) -> None:
        """Count on from the totals of earlier runs. Blocking."""
        values = {name: journal.state(name) for name in _Earlier.__struct_fields__}
        self._earlier = _Earlier(**{name: x for name, x in values.items() if x is not None})

    def look(self) -> None:
        """Look at the clock, as is done each second from the first call on.

        A loop that stands still does not. In a terminal, IPython lets it stand from a cell that was
        interrupted until another one awaits, and a stopped process stands as well.
        """
        now = time.monotonic()
        self._began += self._stood_still(now)
        self._looked = now

    def _stood_still(self, now: float) -> float:
        """Return the time in which the loop has stood still since the last look."""
        gap = 0.0 if self._looked is None else now - self._looked
        return gap if gap > _STANDING else 0.0

    @property
    def seconds(self) -> float:
        """Time since this run began, without that in which its event loop stood still."""
        now = time.monotonic()
        return now - self._began - self._stood_still(now)

    def totals(self) -> Totals:
        """Return the counters over this run and earlier ones."""
        return {
            "requests": self._earlier.requests + self.tally.requests,
            "retries": self._earlier.retries + self.tally.retries,
            "seconds": self._earlier.seconds + self.seconds,
        }

    def report(self, progress: Callable[[Traffic], S | None], *, complete: bool = False) -> None:
        """Report progress, if there is somebody to report to and something to report.

        Args:
            progress: makes the report, or returns None while there is nothing to report.
            complete: whether the output is in place.

        Raises:
            CallbackFailed: the callback raised an exception. It is not called again.
        """
        if self._callback is None:
            return
        totals = self.totals()
        throttled, waits_until = rate_limit(self._service)
        report = progress(
            {
                "requests": totals["requests"],
                "retries": totals["retries"],
                "in_flight": sum(cap.in_flight for cap in self._caps),
                "slots": sum(cap.slots for cap in self._caps),
                "throttled": throttled,
                "waits_until": waits_until,
                "seconds": self.seconds,
                "started_at": self._started_at,
                "output": self.output,
                "complete": complete,
                "trouble": self._current_trouble,
            }
        )
        if report is None:
            return
        token = _CURRENT.set(self._run_failure)
        try:
            check_called("on_progress", self._callback(report))
        except Exception as error:
            self._callback = None
            raise CallbackFailed(error) from None
        finally:
            _CURRENT.reset(token)

    def report_failure(self, error: BaseException) -> None:
        """Report the error that ends the run to those who listen. No progress report follows."""
        self._callback = None
        self._run_failure.happen(error.error if isinstance(error, CallbackFailed) else error)
