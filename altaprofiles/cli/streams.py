"""Standard streams and signals of the process."""

from __future__ import annotations

import errno
import os
import signal
import sys
from io import TextIOWrapper
from typing import TextIO

__all__ = [
    "HANG_UP",
    "abandon_broken_streams",
    "abandon_closed_terminals",
    "heeded_signals",
    "settle_streams",
    "terminal_width",
]


HANG_UP: signal.Signals | None = getattr(signal, "SIGHUP", None)
"""The signal of a closed terminal; None on Windows, which has none."""


def heeded_signals() -> list[signal.Signals]:
    """Return the signals that interrupt a command, except those the parent process ignores."""
    numbers = [signal.SIGINT, signal.SIGTERM]
    if HANG_UP is not None:
        numbers.append(HANG_UP)
    # `nohup` ignores it.
    return [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]


def settle_streams() -> None:
    """Make stdout and stderr accept any text, whatever the locale's encoding."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            # The parent process has closed it (`>&-`).
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))  # noqa: PTH123, SIM115
    if isinstance(sys.stdout, TextIOWrapper):
        # Files and pipes get UTF-8; a terminal gets its own encoding. stderr escapes by itself.
        encoding = sys.stdout.encoding if sys.stdout.isatty() else "utf-8"
        sys.stdout.reconfigure(encoding=encoding, errors="backslashreplace")


def terminal_width(stream: TextIO) -> int | None:
    """Return the width of the terminal behind `stream`, in columns; None if there is none."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or None
    except (OSError, ValueError):
        return None


def abandon_broken_streams() -> None:
    """Redirect to /dev/null each stream that fails to flush.

    Otherwise the interpreter would try again at exit, and complain.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def abandon_closed_terminals() -> None:
    """Redirect to /dev/null each stream whose terminal is closed, where each write would fail."""
    for stream in (sys.stdout, sys.stderr):
        try:
            os.get_terminal_size(stream.fileno())
        except ValueError:
            continue
        except OSError as error:
            if error.errno in (errno.EIO, errno.ENXIO):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
