"""File systems for tests of disks that refuse."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

__all__ = ["filled", "mounted"]


@contextmanager
def mounted(*arguments: str, at: Path) -> Iterator[None]:
    """Mount a file system; skip the test if that is not allowed."""
    try:
        subprocess.run(["mount", *arguments, str(at)], check=True, capture_output=True)  # noqa: S607
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"this machine cannot mount: {error}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(at)], check=True)  # noqa: S607


@contextmanager
def filled(disk: Path) -> Iterator[None]:
    """Leave no byte of a small file system while the block runs."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(os.sysconf("SC_PAGE_SIZE")))
    try:
        yield
    finally:
        ballast.unlink()
