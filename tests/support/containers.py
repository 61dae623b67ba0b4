"""Programs that run as in another container, as far as processes go."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

__all__ = ["run_apart", "started_apart"]

_APART = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc"]


def run_apart(command: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
    """Run a command that sees no process but its own; skip the test if that is not allowed."""
    if shutil.which(_APART[0]) is None:
        pytest.skip("this machine has no command for namespaces")
    done = subprocess.run([*_APART, *command], capture_output=True, text=True, check=False)
    if _APART[0] in done.stderr:
        pytest.skip("this machine allows no namespaces")
    return done


@contextmanager
def started_apart(command: Sequence[str | Path]) -> Iterator[None]:
    """Have a command run as `run_apart` does while the block runs, and kill it at the end."""
    assert not run_apart(["true"]).returncode
    with subprocess.Popen([*_APART, "--kill-child", *command]) as process:
        try:
            yield
        finally:
            process.kill()
