"""Runs the whole suite over and over under bad conditions, and counts failures.

    .venv/bin/python -m tests.repeat                    # ten shuffled runs, three under nohup
    .venv/bin/python -m tests.repeat --shuffled 2 --nohup 0 tests/http

Shuffled runs take the tests in a new order each time, while one process per core burns. Runs under
nohup are background jobs of a shell, which ignore SIGINT. Each run prints a line with its seconds
and pytest's closing line; the output of a failed run is kept, and its path printed. Exits with 1 if
any run has failed.
"""

from __future__ import annotations

import argparse
import os
import random
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# It ends with the process that has started it, however that ends.
_BURN = "import os, sys\nwhile os.getppid() == int(sys.argv[1]):\n    for _ in range(10**6): pass"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--shuffled", type=int, default=10, metavar="N")
    parser.add_argument("--nohup", type=int, default=3, metavar="N")
    parser.add_argument("rest", nargs="*", metavar="PYTEST_ARGUMENT")
    options = parser.parse_args()
    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options.rest]
    failures = 0
    folder = Path(tempfile.mkdtemp(prefix="altaprofiles-repeat-"))
    for number in range(1, options.shuffled + 1):
        seed = random.randrange(10**6)  # noqa: S311
        with burning():
            failures += run(
                [*pytest, f"--shuffle={seed}"], folder, f"shuffled-{number}", f"seed {seed}"
            )
    for number in range(1, options.nohup + 1):
        command = ["sh", "-c", f"nohup {shlex.join(pytest)} & wait $!"]
        failures += run(command, folder, f"nohup-{number}", "in the background")
    print(f"{failures} of {options.shuffled + options.nohup} runs failed")  # noqa: T201
    return 1 if failures else 0


def run(command: list[str], folder: Path, name: str, note: str) -> bool:
    """Run the suite once, report it, and return whether it failed."""
    output = folder / f"{name}.txt"
    began = time.monotonic()
    with output.open("w") as file:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, check=False
        )
    seconds = time.monotonic() - began
    closing = (output.read_text(errors="replace").splitlines() or [""])[-1]
    line = f"{name} ({note}): {seconds:.0f} s, exit {done.returncode}, {closing}"
    print(line + (f", see {output}" if done.returncode else ""), flush=True)  # noqa: T201
    return done.returncode != 0


@contextmanager
def burning() -> Iterator[None]:
    """Keep every core busy."""
    command = [sys.executable, "-c", _BURN, str(os.getpid())]
    burners = [subprocess.Popen(command) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()


if __name__ == "__main__":
    sys.exit(main())
