"""Exit codes, and the exceptions that carry one. Importing this must stay cheap."""

from __future__ import annotations

import signal
from enum import IntEnum

__all__ = ["Exit", "Failure", "Interrupted", "exit_code"]


class Exit(IntEnum):
    """Exit codes, beside 0 and those of signals (130 for SIGINT, 143 for SIGTERM)."""

    FAILED = 1
    USAGE = 2
    CREDENTIALS = 3
    INCOMPLETE = 4
    # What a shell shows for a program that SIGPIPE ended. Python ignores that signal, and has to:
    # it would also come from a connection that the service has closed.
    PIPE = 141


class Failure(Exception):
    """Ends a command with a message and an exit code, where no error of the library says it."""

    def __init__(self, message: str, code: Exit = Exit.FAILED) -> None:
        super().__init__(message)
        self.code = code


class Interrupted(Exception):
    """SIGINT or SIGTERM has ended a command."""

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}")
        self.code = 128 + number


def exit_code(error: BaseException) -> Exit:
    from ..errors import ConfigurationError, Forbidden, Incomplete, PlanMismatch, Unauthorized

    if isinstance(error, Failure):
        return error.code
    if isinstance(error, Unauthorized | Forbidden):
        return Exit.CREDENTIALS
    if isinstance(error, ConfigurationError | PlanMismatch):
        return Exit.USAGE
    return Exit.INCOMPLETE if isinstance(error, Incomplete) else Exit.FAILED
