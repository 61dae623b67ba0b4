"""One contender in a process of its own: `python -m benchmarks.contender MODULE NAME ARGUMENTS`.

Runs on the first core and prints its `Run` as JSON. It ends when its stdin closes, so that no
process is left over when a benchmark is killed.
"""

from __future__ import annotations

import os
import sys
import threading
from importlib import import_module

import msgspec


def main() -> None:
    """Call the function named on the command line."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    module, name, arguments = sys.argv[1:]
    run = getattr(import_module(module), name)(**msgspec.json.decode(arguments))
    sys.stdout.buffer.write(msgspec.json.encode(run))


def _end_with_stdin() -> None:
    # Not through `sys.stdin`: the interpreter would wait for its lock when it exits.
    while os.read(0, 4096):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
