"""Fixtures for all tests."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .support.postgres import Server, binaries, serving


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    programs = binaries()
    if programs is None:
        reason = "no PostgreSQL server is installed: apt-get install postgresql"
        if os.environ.get("ALTAPROFILES_TEST_POSTGRES") == "required":
            pytest.fail(reason)
        pytest.skip(reason)
    # Not in pytest's own folder, which the server's user has no right to enter.
    with tempfile.TemporaryDirectory(prefix="altaprofiles-") as folder:
        with serving(programs, Path(folder)) as server:
            yield server
