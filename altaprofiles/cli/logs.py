"""What stderr is told: lines of text, or of JSON."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Literal

from ..redaction import harmless

__all__ = ["Handler"]


class Handler(logging.Handler):
    """Writes to whatever `sys.stderr` is at the time, which a progress view replaces."""

    def __init__(self, log_format: Literal["text", "json"]) -> None:
        super().__init__()
        self.setFormatter(_Json() if log_format == "json" else _Text())

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(self.format(record) + "\n")
            sys.stderr.flush()
        except BrokenPipeError:
            raise
        except OSError:
            # A log that is full ends no export.
            pass


class _Text(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        # Information is for people, and needs no label.
        bare = record.levelno == logging.INFO or getattr(record, "bare", False)
        return record.message if bare else f"{record.levelname.lower()}: {record.message}"

    def format(self, record: logging.LogRecord) -> str:
        record.message = record.getMessage()
        told = self.formatMessage(record)
        # The traceback first: what happened stands last, where it is seen.
        if record.exc_info:
            told = f"{self.formatException(record.exc_info)}\n{told}"
        return harmless(told, keep="\n\t")


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)
