"""Answers that the service prepares for long."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest

from altaprofiles import Attempt, NotReady, Retry
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
    told_after: list[int] = []
    unready = 0

    def on_event(attempt: Attempt) -> None:
        nonlocal unready
        unready += isinstance(attempt.error, NotReady)

    def on_progress(progress: ExportProgress) -> None:
        if progress.trouble:
            troubles.append(progress.trouble)
            told_after.append(unready)
        if len(troubles) == 5:
            emulator.faults = {}

    async with (
        Emulator(people=60, seed=3) as emulator,
        session_for(emulator, retry=Retry(), on_event=on_event) as session,
    ):
        emulator.faults = {"not_ready": 1}
        report = await session.export(
            EVENT, **RANGE, windows=1, to=tmp_path / "people.ndjson", on_progress=on_progress
        )
    assert report.complete
    assert len(set(troubles)) == 1
    assert told_after[0] > 1
    assert "still being prepared" in troubles[0]
    [line] = [one.getMessage() for one in caplog.records if one.levelno == logging.INFO]
    told = re.match(r"waiting for (\d+) s so far, of at most 600 s: CleverTap", line)
    assert told
    assert int(told[1]) >= 10
    assert "still being prepared" in line
