"""`altaprofiles demo`: an export, lookups and a join against services that misbehave."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections import Counter
from datetime import date
from pathlib import Path
from typing import BinaryIO

import click
from msgspec import Struct
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Column, Table

from ..emulator import Emulator
from ..models import Attempt, Profile
from ..retry import Retry
from ..session import Session

__all__ = ["run"]

EVENT = "App Launched"
START, END = date(2026, 1, 1), date(2026, 1, 31)
WINDOWS = 4
LOOKUPS = 500

# About every seventh answer is none: enough to see each kind, few enough to finish in seconds.
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
        with out.open("wb") as file:
            asyncio.run(_demo(people, file))
    except OSError as error:
        raise click.ClickException(f"cannot write {out}: {error.strerror}") from None
    except KeyboardInterrupt:
        click.echo(f"Interrupted; {out} holds what had been exported by then.", err=True)
        sys.exit(130)


def _person(identity: str | None, devices: list[str]) -> frozenset[str]:
    return frozenset([identity] if identity is not None else devices)


def _trouble(attempt: Attempt) -> str:
    return {
        "NotReady": "not ready",
        "RateLimited": "throttled",
        "ServerError": "server error",
        "TransportError": "broken off",
        "DecodeError": "garbled",
    }.get(type(attempt.error).__name__, type(attempt.error).__name__)


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.most_common())


async def _demo(people: int, file: BinaryIO) -> None:
    err = Console(stderr=True)
    columns: list[ProgressColumn] = [
        TextColumn("{task.description}"),
        BarColumn(bar_width=None, table_column=Column(max_width=24, ratio=1)),
        MofNCompleteColumn(),
    ]
    if err.width >= 60:
        columns += [TimeElapsedColumn(), TextColumn("[dim]{task.fields[note]}")]
    troubles: Counter[str] = Counter()
    started = time.monotonic()
    async with Emulator(people=people, seed=7, faults=FAULTS, think=0.01) as emulator:
        population = emulator.population
        expected = {
            _person(population.identity(index), population.object_ids(index))
            for index in population.active(EVENT, 20260101, 20260131)
        }
        err.print(
            f"A month of “{EVENT}”, from a service with {people:,} people that fails at times",
            highlight=False,
        )
        with Progress(*columns, console=err) as progress:
            exporting = progress.add_task("export", total=len(expected), note="")

            def watch(attempt: Attempt) -> None:
                if attempt.error is not None:
                    troubles[_trouble(attempt)] += 1
                    progress.update(exporting, note=f"bad answers so far: {troubles.total()}")

            async with Session(
                clevertap=emulator.clevertap,
                alta=emulator.alta,
                retry=Retry(base_delay=0.02, max_delay=0.5),
                on_event=watch,
            ) as session:
                export = await _export(session, file, progress, exporting)
                await _look_up_and_join(session, export.sample, progress)
                stats = session.stats
        seen = emulator.stats
    seconds = time.monotonic() - started

    complete = export.people == expected and export.written == len(expected)
    verdict = "each once" if complete else f"the service holds {len(expected):,}"
    peaks = seen.peak_in_flight
    table = Table(title="What happened", title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column()
    table.add_row("people exported", f"{export.written:,}, {verdict}")
    table.add_row("chains and pages", f"{WINDOWS} and {export.pages:,}")
    table.add_row("requests", f"{stats.requests:,}")
    table.add_row("retries", f"{stats.retries:,}")
    table.add_row("retried because", _listed(troubles))
    table.add_row(
        "peak in flight", f"CleverTap {peaks['clevertap']} of 3, Alta {peaks['alta']} of 16"
    )
    table.add_row("seconds", f"{seconds:.1f}")
    console = Console()
    console.print(table)
    console.print(f"The people are in {file.name}", soft_wrap=True, highlight=False)
    if not complete:
        raise click.ClickException("the export is not complete")


class _Export(Struct):
    sample: list[Profile] = []
    people: set[frozenset[str]] = set()
    written: int = 0
    pages: int = 0


async def _export(session: Session, file: BinaryIO, progress: Progress, task: TaskID) -> _Export:
    """Write everyone to `file`."""
    done = _Export()
    people = session.profiles.by_event(EVENT, start=START, end=END, windows=WINDOWS, batch_size=460)
    async for page in people.pages():
        file.writelines(profile.encode() + b"\n" for profile in page.profiles)
        done.pages += 1
        done.written += len(page.profiles)
        done.people.update(_person(one.identity, one.object_ids) for one in page.profiles)
        done.sample += page.profiles[: LOOKUPS - len(done.sample)]
        progress.update(task, completed=done.written)
    return done


async def _look_up_and_join(session: Session, sample: list[Profile], progress: Progress) -> None:
    known = [profile.identity for profile in sample if profile.identity is not None]
    keys = (known + [f"nobody-{number}" for number in range(LOOKUPS)])[:LOOKUPS]
    looking = progress.add_task("look up", total=len(keys), note="")
    found: Counter[str] = Counter()
    async for lookup in session.profiles.get_many(keys, by="identity"):
        found["found" if lookup.value else "failed" if lookup.error else "unknown"] += 1
        progress.update(looking, advance=1, note=_listed(found))
    joining = progress.add_task("join CDP", total=len(sample), note="")
    bound = 0
    async for customer in session.with_cdp(sample):
        bound += bool(customer.cdp)
        progress.update(joining, advance=1, note=f"{bound} with anonymous IDs")
