"""The export of `altaprofiles demo`. Run as a program it is a process that can be killed."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path

import msgspec

from ..export.report import ExportProgress, ExportReport
from ..http.retry import Retry
from ..session import Session

__all__ = ["EVENT", "RETRY", "export"]

EVENT = "App Launched"
_FIRST, _LAST = date(2026, 1, 1), date(2026, 1, 31)

RETRY = Retry(base_delay=0.02, max_delay=0.2)
"""Waits in proportion to a service that is on this machine."""


async def export(
    session: Session, to: Path, on_progress: Callable[[ExportProgress], None]
) -> ExportReport:
    """Export everyone who did the event, or resume that."""
    return await session.export(
        EVENT,
        start=_FIRST,
        end=_LAST,
        to=to,
        format="ndjson",
        windows=4,
        batch_size=460,
        count=True,
        on_progress=on_progress,
    )


async def _main(to: Path) -> None:
    """Export from the service that the environment names; a line of progress at a time."""
    async with Session.from_env(retry=RETRY) as session:
        await export(session, to, _write)


def _write(progress: ExportProgress) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(progress) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1])))
