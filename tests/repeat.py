"""Runs the whole suite over and over where it is hardest, and fails if a test ever fails.

From a clone in which the README's test command has run:

    .venv/bin/python tests/repeat.py

First it runs the suite ten times in random order, with as many processes beside it as there are
cores that do nothing but compute. Then it runs it three times as `nohup` in the background of a
shell does: without a terminal, and with SIGINT ignored. Each run is a line of output: what it was,
the seconds it took, pytest's own summary, and the tests that failed. The order of a run that failed
can be had again with `pytest --shuffle SEED`.

Options set how many runs there are, and others go to pytest:

    .venv/bin/python tests/repeat.py --shuffled 2 --background 1 -- tests/cli -n2
"""

from __future__ import annotations

import argparse
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]

# Ends by itself when this process is gone, whatever has ended it.
BURN = """
import os, sys
while os.getppid() == int(sys.argv[1]):
    for _ in range(1_000_000):
        pass
"""

# A shell that is not interactive lets what it starts in the background ignore SIGINT.
BACKGROUND = ["sh", "-c", 'nohup "$@" & wait $!', "sh"]


def main() -> int:
    parser = argparse.ArgumentParser(description="Run the tests over and over.")
    parser.add_argument("--shuffled", type=int, default=10, metavar="N", help="runs beside burners")
    parser.add_argument("--background", type=int, default=3, metavar="N", help="runs under nohup")
    parser.add_argument("--burners", type=int, default=os.cpu_count() or 2, metavar="N")
    parser.add_argument("pytest", nargs="*", help="arguments of pytest, behind --")
    options = parser.parse_args()
    passed = True
    for number in range(1, options.shuffled + 1):
        seed = random.SystemRandom().randrange(10**6)
        with burning(options.burners):
            command = [*pytest_command(options.pytest), "--shuffle", str(seed)]
            passed &= run(f"shuffled {number}, seed {seed}", command)
    for number in range(1, options.background + 1):
        passed &= run(f"background {number}", [*BACKGROUND, *pytest_command(options.pytest)])
    return 0 if passed else 1


def pytest_command(arguments: list[str]) -> list[str]:
    return [sys.executable, "-m", "pytest", "-q", *arguments]


def run(name: str, command: list[str]) -> bool:
    """Run the suite once, print its line, and return whether all tests passed."""
    began = time.monotonic()
    with tempfile.NamedTemporaryFile(
        "w+", prefix="altaprofiles-tests-", suffix=".txt", delete=False
    ) as output:
        done = subprocess.run(
            command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
        output.seek(0)
        lines = output.read().splitlines()
    took = time.monotonic() - began
    summary = next((line for line in reversed(lines) if re.search(r" in \d", line)), "no summary")
    print(f"{name}: {took:.0f} s: {summary}", flush=True)
    if done.returncode == 0:
        Path(output.name).unlink()
        return True
    for line in lines:
        if line.startswith(("FAILED ", "ERROR ")):
            print(f"  {line}")
    print(f"  exit code {done.returncode}; all of the output is in {output.name}", flush=True)
    return False


@contextmanager
def burning(processes: int) -> Iterator[None]:
    """Keep so many cores busy."""
    burners = [
        subprocess.Popen([sys.executable, "-c", BURN, str(os.getpid())]) for _ in range(processes)
    ]
    try:
        yield
    finally:
        for burner in burners:
            burner.terminate()
            burner.wait()


if __name__ == "__main__":
    sys.exit(main())
