"""What a person, or a log, sees of an export while it runs. Shows; decides nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeAlias

import msgspec
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.constrain import Constrain
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ..base.wording import clock, numbered, percent, share
from ..export.report import ChainStatus, ExportProgress, LookupProgress
from .consoles import plain

if TYPE_CHECKING:
    from ..models import Attempt
    from .app import App

__all__ = ["Shown", "View", "showing"]

Progress: TypeAlias = ExportProgress | LookupProgress

_ROWS = 8
"""Chains shown at once."""
_WIDEST = 110
"""Columns from which more of them only tear what belongs together apart."""
_WIDE = 76
"""Columns from which all figures stand on one line."""


class Shown:
    """Takes progress, and shows some of it: not more often than can be read."""

    every: float
    """Seconds from one to the next that is shown, unless a new stage begins."""

    def __init__(self) -> None:
        self.trouble: str | None = None
        self._stage = ""
        self._shown = float("-inf")

    def __call__(self, progress: Progress) -> None:
        """Show `progress`, unless it is too soon after the last that was shown."""
        now = time.monotonic()
        if self._stage != progress.stage or now - self._shown >= self.every:
            self._stage, self._shown = progress.stage, now
            self.show(progress)

    def note(self, attempt: Attempt) -> None:
        """Keep in mind what went wrong, as the session's `on_event`."""
        if attempt.error is not None:
            self.trouble = str(attempt.error)

    def show(self, progress: Progress) -> None:
        """Show it."""
        raise NotImplementedError


class _Lines(Shown):
    every = 5.0

    def __init__(self, app: App) -> None:
        super().__init__()
        self._app = app

    def show(self, progress: Progress) -> None:
        facts = {**msgspec.to_builtins(progress), "eta": progress.eta}
        self._app.say(str(progress), progress=facts)


class _Picture(Shown):
    # More often is only flicker.
    every = 0.1

    def __init__(self, live: Live) -> None:
        super().__init__()
        self._live = live

    def show(self, progress: Progress) -> None:
        # Not before: an empty picture would leave an empty line.
        self._live.start()
        self._live.update(View(progress, self.trouble), refresh=True)


@contextmanager
def showing(app: App) -> Iterator[Shown]:
    """Give what shows progress until the end of the body.

    The picture on a terminal goes when the body is done, and stays when it raises. Elsewhere it is
    a line every few seconds.
    """
    if not app.interactive:
        yield _Lines(app)
        return
    # No thread of its own: progress comes at least every second.
    live = Live(console=app.console, auto_refresh=False)
    try:
        yield _Picture(live)
        live.transient = True
    finally:
        if live.is_started:
            live.stop()


class View:
    """One picture of an export or a lookup, as wide and as high as the terminal lets it be."""

    def __init__(self, progress: Progress, trouble: str | None = None) -> None:
        self._at = progress
        self._trouble = trouble

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        width = min(options.max_width, _WIDEST)
        yield Constrain(Group(*self._parts(width, console.size.height)), width)

    def _parts(self, width: int, height: int) -> Iterator[RenderableType]:
        at = self._at
        figures = _figures(at, wide=width >= _WIDE)
        if isinstance(at, LookupProgress) and at.fetching:
            outcomes = (f"{count:,} {name}" for name, count in at.outcomes.items())
            figures.insert(0, ", ".join(outcomes))
        if at.fetching and self._trouble is not None:
            figures.append(f"retried: {self._trouble}")
        if isinstance(at, ExportProgress) and at.fetching:
            # Room for the total, the figures, and the line that the cursor is on.
            yield from _chains(at.chains, min(_ROWS, height - len(figures) - 4), width)
        yield _total(at, width)
        for line in figures:
            shown = plain(line.replace("\n", " "), "dim")
            shown.no_wrap, shown.overflow = True, "crop"
            yield shown


def _figures(at: Progress, *, wide: bool) -> list[str]:
    """Return the lines below the bar; which figure stands in which does not hang on its length."""
    if not at.fetching:
        return [clock(at.seconds)]
    what = "records" if isinstance(at, ExportProgress) else "keys"
    slots = f"{at.in_flight} of {numbered(at.slots, 'slot')}"
    traffic = [f"{at.pace:,.0f} {what}/s", slots]
    passed = [f"{at.retries:,} {'retry' if at.retries == 1 else 'retries'}", clock(at.seconds)]
    if at.eta is not None:
        passed.append(f"{clock(at.eta)} left")
    return [", ".join(traffic + passed)] if wide else [", ".join(traffic), ", ".join(passed)]


def _total(at: Progress, width: int) -> RenderableType:
    part = share(at.done, at.goal)
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(no_wrap=True)
    counted = f"{at.done:,}"
    if part is None or at.goal is None:
        what = "key" if isinstance(at, LookupProgress) else "record"
        table.add_column(ratio=1, no_wrap=True)
        table.add_row(Text(at.stage, style="bold"), numbered(at.done, what))
        return table
    table.add_column(ratio=1)
    table.add_column(justify="right", no_wrap=True)
    # As wide from the first record on as it will be: else the bar would shrink on the way.
    goal = f"{at.goal:,}"
    numbers = f"{counted:>{len(goal)}} of {goal} {_percent(part)}"
    table.add_row(Text(at.stage, style="bold"), _bar(part), numbers)
    if width < len(at.stage) + len(numbers) + 12:
        short = Table.grid(padding=(0, 1), expand=True)
        short.add_column(no_wrap=True)
        short.add_column(ratio=1)
        short.add_column(justify="right", no_wrap=True)
        short.add_row(Text(at.stage, style="bold"), _bar(part), _percent(part))
        return Group(short, Text(f"{counted} of {goal}", no_wrap=True, overflow="crop"))
    return table


def _chains(chains: list[ChainStatus], rows: int, width: int) -> Iterator[RenderableType]:
    if len(chains) == 1 or rows < 2:
        return
    shown = sorted(_busiest(chains, rows if len(chains) <= rows else rows - 1))
    events = len({chain.event for chain in chains}) > 1
    windows = _windows(chains)
    bars = width >= _WIDE and any(chain.counted is not None for chain in chains)
    table = Table.grid(padding=(0, 1), expand=True)
    if events:
        table.add_column(ratio=2, no_wrap=True, overflow="ellipsis")
    if windows:
        table.add_column(ratio=None if events else 2, no_wrap=True)
    if bars:
        table.add_column(ratio=4)
    # As wide as the largest will be, or else everything beside it would move.
    most = max(max(chain.records, chain.counted or 0) for chain in chains)
    table.add_column(justify="right", no_wrap=True, min_width=len(f"{most:,}"))
    table.add_column(justify="right", no_wrap=True, min_width=7)
    for number in shown:
        chain = chains[number]
        part = share(chain.records, chain.counted)
        row: list[RenderableType] = [plain(chain.event)] if events else []
        if windows:
            row.append(windows[number])
        if bars:
            row.append(_bar(1.0 if chain.done else part or 0.0))
        state = Text(_state(chain, part), style="green" if chain.done else "")
        table.add_row(*row, f"{chain.records:,}", state)
    yield table
    if len(shown) < len(chains):
        done = sum(chain.done for chain in chains)
        told = f"{done} of {len(chains)} chains done, {len(chains) - len(shown)} not shown"
        yield Text(told, style="dim", no_wrap=True, overflow="crop")


def _busiest(chains: list[ChainStatus], rows: int) -> list[int]:
    """Return the places of those with most to be seen: read now, then waiting, then done."""

    def rank(number: int) -> tuple[bool, bool]:
        return chains[number].done, chains[number].pages == 0

    return sorted(range(len(chains)), key=rank)[:rows]


def _state(chain: ChainStatus, part: float | None) -> str:
    if chain.done:
        return "done"
    if not chain.pages:
        return "again" if chain.restarts else "waiting"
    return "reading" if part is None else _percent(part)


def _percent(part: float) -> str:
    return f"{percent(part):>3} %"


def _bar(part: float) -> ProgressBar:
    return ProgressBar(total=1.0, completed=part)


def _windows(chains: list[ChainStatus]) -> list[str]:
    """Return the days of each chain, or nothing if they are the same."""
    windows = [(_day(chain.start), _day(chain.end)) for chain in chains]
    if len(set(windows)) == 1:
        return []
    if len({day[:4] for window in windows for day in window}) == 1:
        windows = [(first[5:], last[5:]) for first, last in windows]
    return [first if first == last else f"{first} to {last}" for first, last in windows]


_DAYS_BELOW = 100_000_000
"""Larger numbers are epoch seconds, smaller ones YYYYMMDD."""


def _day(at: int) -> str:
    if at < _DAYS_BELOW:
        return f"{at // 10_000}-{at // 100 % 100:02}-{at % 100:02}"
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M}"
