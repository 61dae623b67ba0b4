"""The log on stderr, as lines of text or of JSON."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Literal

import click

from ..base.task_account import account_of_task
from ..redaction import harmless
from .lines import wrapped
from .option_names import in_options
from .streams import terminal_width

__all__ = ["Handler"]


class Handler(logging.Handler):
    """Writes to the current `sys.stderr`, which a live display replaces while it runs."""

    def __init__(self, log_format: Literal["text", "json"], context: click.Context | None) -> None:
        super().__init__()
        self.setFormatter(_Json(context) if log_format == "json" else _Text(context))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(self.format(record) + "\n")
            sys.stderr.flush()
        except BrokenPipeError:
            raise
        except OSError:
            # A full disk under the log must not end an export.
            pass


class _InOwnWords(logging.Formatter):
    """Names options, where messages of the library name arguments of Python.

    Args:
        context: the command's. Some records are of other threads, which have none.
    """

    def __init__(self, context: click.Context | None) -> None:
        super().__init__()
        self._context = context

    def message(self, record: logging.LogRecord) -> str:
        """Return the message of a record."""
        text = record.getMessage()
        context = click.get_current_context(silent=True) or self._context
        # Below that, there is no advice.
        is_final = record.levelno < logging.WARNING or getattr(record, "is_final", False)
        if context is None or is_final:
            return text
        errors = [one for one in record.args or () if isinstance(one, BaseException)]
        return in_options(text, context, errors)


class _Text(_InOwnWords):
    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        # Messages of level INFO are for people, and need no label.
        is_bare = record.levelno == logging.INFO or getattr(record, "bare", False)
        return record.message if is_bare else f"{record.levelname.lower()}: {record.message}"

    def format(self, record: logging.LogRecord) -> str:
        record.message = _named(self.message(record))
        text = harmless(self.formatMessage(record), keep="\n\t")
        if (width := terminal_width(sys.stderr)) is not None:
            text = wrapped(text, width)
        # The traceback first, so that the message comes last, where users look.
        if record.exc_info:
            trace = harmless(self.formatException(record.exc_info), keep="\n\t")
            text = f"{trace}\n{text}"
        return text


class _Json(_InOwnWords):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self.message(record),
            **({} if (account := account_of_task()) is None else {"account": account}),
            **getattr(record, "facts", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


def _named(text: str) -> str:
    """Return a text that names the account of its task, if the run has several."""
    account = account_of_task()
    if account is None or text.startswith((f"{account}: ", f"{account} has failed")):
        return text
    return f"{account}: {text}"
