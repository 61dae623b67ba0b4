"""`altaprofiles demo`: an export, lookups and a join against services that misbehave."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections import Counter
from datetime import date
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from ..emulator import Emulator
from ..models import Attempt, Profile
from ..retry import Retry
from ..session import Session

__all__ = ["run"]

EVENT = "App Launched"
START, END = date(2026, 1, 1), date(2026, 1, 31)
WINDOWS = 4
LOOKUPS = 500

# About every fourth answer is none: enough to see each kind, few enough to finish in seconds.
FAULTS = {
    "not_ready": 0.15,
    "throttled": 0.02,
    "too_many": 0.02,
    "server_error": 0.02,
    "html": 0.01,
    "empty": 0.01,
    "disconnect": 0.01,
    "reset": 0.02,
    "truncated": 0.02,
    "garbled": 0.01,
    "slow": 0.05,
    "gzip": 0.2,
    "empty_page": 0.02,
}


def run(*, people: int, out: Path | None) -> None:
    """Run the demo; progress goes to stderr, the table to stdout."""
    if out is None:
        out = Path(tempfile.mkdtemp(prefix="altaprofiles-demo-")) / "people.ndjson"
    try:
        asyncio.run(_demo(people, out))
    except KeyboardInterrupt:
        raise click.Abort from None


class _Watch:
    """What went wrong so far, told beside the progress bar."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self.troubles: Counter[str] = Counter()
        self._progress = progress
        self._task = task

    def __call__(self, attempt: Attempt) -> None:
        if attempt.error is not None:
            self.troubles[_trouble(attempt)] += 1
            self._progress.update(self._task, trouble=_listed(self.troubles))


def _trouble(attempt: Attempt) -> str:
    return {
        "NotReady": "not ready",
        "RateLimited": "throttled",
        "ServerError": "server error",
        "TransportError": "broken off",
        "DecodeError": "garbled",
    }.get(type(attempt.error).__name__, type(attempt.error).__name__)


def _listed(troubles: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in troubles.most_common())


async def _demo(people: int, out: Path) -> None:
    err = Console(stderr=True)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("[dim]{task.fields[trouble]}"),
    )
    started = time.monotonic()
    async with Emulator(people=people, seed=7, faults=FAULTS, think=0.02) as emulator:
        expected = len(emulator.population.active(EVENT, 20260101, 20260131))
        err.print(f"A service with {people:,} people runs on {emulator.url}, with faults.")
        with Progress(*columns, console=err) as progress:
            exporting = progress.add_task(f"export “{EVENT}”", total=expected, trouble="")
            watch = _Watch(progress, exporting)
            async with Session(
                clevertap=emulator.clevertap,
                alta=emulator.alta,
                retry=Retry(base_delay=0.05, max_delay=0.5),
                on_event=watch,
            ) as session:
                sample, written, pages = await _export(session, out, progress, exporting)
                await _look_up_and_join(session, sample, progress)
                stats = session.stats
        seen = emulator.stats
    seconds = time.monotonic() - started

    table = Table(title="What happened", title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    exact = "each once" if written == expected else f"but the service holds {expected:,}"
    table.add_row("people exported", f"{written:,}, {exact}")
    table.add_row("chains, pages", f"{WINDOWS}, {pages:,}")
    table.add_row("requests", f"{stats.requests:,}")
    table.add_row("retries", f"{stats.retries:,}")
    table.add_row("because of", _listed(watch.troubles))
    table.add_row("peak in flight", f"{seen.peak_in_flight['clevertap']} of 3 allowed")
    table.add_row("seconds", f"{seconds:.1f}")
    out_console = Console()
    out_console.print(table)
    out_console.print(f"The people are in {out}", soft_wrap=True, highlight=False)
    if written != expected:
        raise click.ClickException("the export is not complete")


async def _export(
    session: Session, out: Path, progress: Progress, task: TaskID
) -> tuple[list[Profile], int, int]:
    """Write everyone to `out`; return some of them, how many they were, and on how many pages."""
    sample: list[Profile] = []
    written = pages = 0
    people = session.profiles.by_event(EVENT, start=START, end=END, windows=WINDOWS, batch_size=460)
    with out.open("wb") as file:
        async for page in people.pages():
            file.writelines(_line(profile) for profile in page.profiles)
            pages += 1
            written += len(page.profiles)
            sample.extend(page.profiles[: LOOKUPS - len(sample)])
            progress.update(task, completed=written)
    return sample, written, pages


def _line(profile: Profile) -> bytes:
    raw = profile.raw
    # Some answers are pretty-printed: a line break inside a record would make it two.
    return (msgspec.json.format(raw, indent=-1) if b"\n" in raw else raw) + b"\n"


async def _look_up_and_join(session: Session, sample: list[Profile], progress: Progress) -> None:
    keys = [profile.identity or "nobody" for profile in sample]
    looking = progress.add_task(f"look up {len(keys)} IDs", total=len(keys), trouble="")
    found = 0
    async for lookup in session.profiles.get_many(keys, by="identity"):
        found += lookup.value is not None
        progress.update(looking, advance=1, trouble=f"{found} found")
    joining = progress.add_task("join CDP users", total=len(sample), trouble="")
    bound = 0
    async for customer in session.with_cdp(sample):
        bound += bool(customer.cdp)
        progress.update(joining, advance=1, trouble=f"{bound} with anonymous IDs")
