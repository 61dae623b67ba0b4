"""The process's streams and signals, made fit for a command. Importing this must stay cheap."""

from __future__ import annotations

import os
import signal
import sys
from io import TextIOWrapper

__all__ = ["abandon_broken_streams", "heeded_signals", "settle_streams"]


def heeded_signals() -> list[signal.Signals]:
    """Return what interrupts: not what whoever started us has told us to ignore."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    return [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]


def settle_streams() -> None:
    """Make stdout and stderr take any text, whatever the locale says."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            # Closed by who started us (`>&-`).
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))  # noqa: PTH123, SIM115
    if isinstance(sys.stdout, TextIOWrapper):
        # Files and pipes get UTF-8, a terminal what it can show. stderr escapes by itself.
        encoding = sys.stdout.encoding if sys.stdout.isatty() else "utf-8"
        sys.stdout.reconfigure(encoding=encoding, errors="backslashreplace")


def abandon_broken_streams() -> None:
    """Forget what can no longer be written: Python would try once more at its end, and complain."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
