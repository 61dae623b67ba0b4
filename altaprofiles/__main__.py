"""Where `altaprofiles` and `python -m altaprofiles` start."""

from __future__ import annotations

import os
import signal
import sys
from importlib.util import find_spec


def main() -> None:
    """Run the command line, or say what it takes to have one."""
    # Until a command is under way there is nothing to stop cleanly, and a `KeyboardInterrupt` could
    # come up anywhere: as a traceback out of an import, or lost in one.
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)
    missing = [name for name in ("click", "rich") if find_spec(name) is None]
    if missing:
        sys.exit(
            f"altaprofiles: the command line needs {' and '.join(missing)}; "
            f"install it with: pip install 'altaprofiles[cli]'"
        )
    from .cli import cli
    from .cli.streams import settle_streams

    settle_streams()
    cli(prog_name="altaprofiles")


def _end(number: int, _: object) -> None:
    os._exit(128 + number)


if __name__ == "__main__":
    main()
