"""Exit codes, and the exceptions that carry one."""

from __future__ import annotations

import signal
from collections.abc import Collection
from enum import IntEnum

__all__ = ["Exit", "Failure", "Interrupted", "OutOfTime", "exit_code", "worst"]


class Exit(IntEnum):
    """Exit codes besides 0 and those of signals.

    These are 129 for SIGHUP, 130 for SIGINT and 143 for SIGTERM.
    """

    FAILED = 1
    USAGE = 2
    CREDENTIALS = 3
    INCOMPLETE = 4
    NOT_FOUND = 5
    # The code that a shell reports for a program ended by SIGPIPE. Python ignores that signal,
    # and must: it would also arrive for a connection that the service has closed.
    PIPE = 141


class Failure(Exception):
    """Ends a command with a message and an exit code; for failures the library has no error for."""

    def __init__(self, message: str, code: Exit = Exit.FAILED) -> None:
        super().__init__(message)
        self.code = code


class OutOfTime(Failure):
    """The deadline of the command, `--max-time`, has ended it."""


class Interrupted(Exception):
    """A command was ended by SIGINT, SIGTERM or SIGHUP."""

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}")
        self.code = 128 + number


def worst(codes: Collection[int]) -> int:
    """Return the exit code of several failures: the one that most needs a person to look at it."""
    order = (Exit.CREDENTIALS, Exit.USAGE, Exit.FAILED, Exit.INCOMPLETE)
    return next((code for code in order if code in codes), next(iter(codes)))


def exit_code(error: BaseException) -> Exit:
    """Return the exit code of a `Failure`, an error of the library, or an `OSError`."""
    from ..errors import (
        BadRequest,
        ConfigurationError,
        ExportLocked,
        Forbidden,
        Incomplete,
        MissingCredentials,
        PlanMismatch,
        Unauthorized,
    )

    if isinstance(error, Failure):
        return error.code
    if isinstance(error, Unauthorized | Forbidden | MissingCredentials):
        return Exit.CREDENTIALS
    # A request that the service refuses has a wrong argument, such as an event that there is not.
    if isinstance(error, ConfigurationError | PlanMismatch | BadRequest):
        return Exit.USAGE
    if isinstance(error, ExportLocked | Incomplete):
        return Exit.INCOMPLETE
    return Exit.FAILED
