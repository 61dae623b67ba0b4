"""Answers that the service prepares for long."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import pytest

from altaprofiles import Retry
from altaprofiles.emulator import Emulator
from altaprofiles.export.report import ExportProgress

from ..support.clock import Clock
from ..support.sessions import EVENT, RANGE, session_for

pytestmark = pytest.mark.anyio


async def test_a_long_wait_for_an_answer_is_logged_once_a_call_and_shown_as_the_reason(
    clock: Clock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of the page that the service prepares, and of no other."""
    caplog.set_level(logging.INFO, "altaprofiles")
    troubles: list[str] = []
    seconds: list[float] = []
    began = time.monotonic()

    def on_progress(progress: ExportProgress) -> None:
        troubles.append(progress.trouble)
        seconds.append(time.monotonic() - began)
        if seconds[-1] > 30:
            emulator.faults = {}

    async with (
        Emulator(people=60, seed=3) as emulator,
        session_for(emulator, retry=Retry()) as session,
    ):
        emulator.faults = {"not_ready": 1}
        report = await session.export(
            EVENT, **RANGE, windows=1, to=tmp_path / "people.ndjson", on_progress=on_progress
        )
    assert report.complete
    told = [at for at, trouble in zip(seconds, troubles, strict=True) if trouble]
    assert min(told) >= 10
    assert {trouble for trouble in troubles if trouble} == {troubles[seconds.index(told[0])]}
    assert "still being prepared" in troubles[seconds.index(told[0])]
    [line] = [one.getMessage() for one in caplog.records if one.levelno == logging.INFO]
    assert line.startswith("waiting for 1")
    assert "of at most 600 s: CleverTap" in line
    assert "still being prepared" in line
