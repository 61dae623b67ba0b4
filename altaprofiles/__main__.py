"""Entry point of `altaprofiles` and `python -m altaprofiles`."""

from __future__ import annotations

import atexit
import os
import signal
import sys
from contextlib import suppress

from .base.extras import missing_modules


def main() -> None:
    """Run the command line, or exit with advice if its dependencies are not installed."""
    # Until a command runs there is nothing to clean up, and a `KeyboardInterrupt` could be raised
    # anywhere: it would leave an import as a traceback, or be swallowed by one.
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _exit)
    # The first one runs last: its work is done then, and its exit code is known. The interpreter
    # would take its handlers away before it ends, and a signal would make a failure of success.
    atexit.register(_ignore_signals)
    if missing := missing_modules("cli"):
        sys.stderr.write(
            f"altaprofiles: the command line needs {' and '.join(missing)}; "
            f"install it with: pip install 'altaprofiles[cli]'\n"
        )
        # As for any extra that is missing.
        sys.exit(2)
    from .cli import cli
    from .cli.streams import settle_streams

    settle_streams()
    cli(prog_name="altaprofiles")


_SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]


def _ignore_signals() -> None:
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _exit(number: int, _: object) -> None:
    # As a run reports it: in JSON nothing, and nothing at a prompt whose shell completes a word.
    words = {*sys.argv, *os.environ}
    if not words & {"json", "--log-format=json", "_ALTAPROFILES_COMPLETE"}:
        with suppress(OSError):
            os.write(2, f"error: interrupted by {signal.Signals(number).name}\n".encode())
    os._exit(128 + number)


if __name__ == "__main__":
    main()
