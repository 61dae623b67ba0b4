"""Progress of an export or a lookup: a live display on a terminal, elsewhere lines of a log."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.constrain import Constrain
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ..base.wording import clock, numbered, percent, share
from ..export.report import ChainStatus, ExportProgress, Progress
from .consoles import plain, suspending

if TYPE_CHECKING:
    from ..models import Attempt
    from .app import App

__all__ = [
    "WIDE",
    "Figures",
    "LiveDisplay",
    "LogDisplay",
    "Picture",
    "ProgressDisplay",
    "View",
    "bar",
    "dim_lines",
    "figures",
    "live_display",
    "progress_display",
    "share_text",
    "total_line",
]

_ROWS = 8
"""The largest number of chains in the display."""
_WIDEST = 110
"""The largest width of the display, in columns; a wider one would only tear rows apart."""
WIDE = 76
"""The width from which all figures fit on one line, in columns."""


class ProgressDisplay:
    """An `on_progress` callback that shows progress no more often than a person can read it."""

    interval: float
    """Seconds between two updates within a stage."""

    def __init__(self) -> None:
        self._at: Progress | None = None
        self._stage = ""
        self._updated_at = float("-inf")

    def __call__(self, progress: Progress) -> None:
        """Show `progress` if its stage is new, or the last update is old enough."""
        now = time.monotonic()
        self._at = progress
        if self._stage != progress.stage or now - self._updated_at >= self.interval:
            self._stage, self._updated_at = progress.stage, now
            self.update(progress)

    def note_failure(self, attempt: Attempt) -> None:
        """Take note of a failed attempt. This is the session's `on_event` hook."""

    def fail(self) -> None:
        """Show that an error has ended the work."""

    def update(self, progress: Progress) -> None:
        """Show `progress` now."""
        raise NotImplementedError


class LogDisplay(ProgressDisplay):
    """Logs a line every five seconds."""

    interval = 5.0

    def __init__(self, app: App, account: str | None = None) -> None:
        super().__init__()
        self._app = app
        self._account = account
        self._waits = app.waits(account)

    def note_failure(self, attempt: Attempt) -> None:
        self._waits.note(attempt)

    def update(self, progress: Progress) -> None:
        facts: dict[str, Any] = {"progress": {**msgspec.to_builtins(progress), "eta": progress.eta}}
        if self._account is None:
            self._app.info(str(progress), **facts)
        else:
            self._app.info(f"{self._account}: {progress}", account=self._account, **facts)


class LiveDisplay(ProgressDisplay):
    """Redraws a picture on a terminal."""

    # Shorter intervals only flicker.
    interval = 0.1

    def __init__(self, picture: Picture) -> None:
        super().__init__()
        self._picture = picture

    def update(self, progress: Progress) -> None:
        self._picture.draw(View(progress))


class Picture:
    """A picture on a terminal that is redrawn in place, also after another program has drawn there.

    Attributes:
        is_shown: whether it has been drawn.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._view: View | None = None
        self._live = self._new()

    @property
    def is_shown(self) -> bool:
        return self._view is not None

    def draw(self, view: View) -> None:
        """Draw `view` in the place of the earlier one."""
        self._view = view
        # Not started earlier: an empty display would leave an empty line.
        self._live.start()
        self._live.update(view, refresh=True)

    def end(self, *, erased: bool) -> None:
        """Show the cursor again, below the picture or in its place."""
        self._live.transient = erased
        if self._live.is_started:
            self._live.stop()

    def pause(self) -> None:
        """Erase the picture until `resume` draws it again."""
        self.end(erased=True)
        # The old one would go back to where its picture was.
        self._live = self._new()

    def resume(self) -> None:
        """Draw the picture again, where the cursor is."""
        if self._view is not None:
            self.draw(self._view)

    def _new(self) -> Live:
        # Without a refresh thread: progress is reported at least every second.
        return Live(console=self._console, auto_refresh=False)


@contextmanager
def progress_display(app: App) -> Iterator[ProgressDisplay]:
    """Yield a display of progress on stderr.

    On a terminal it is redrawn in place; it disappears when the body ends, and stays when the body
    raises. Elsewhere it is a log line every five seconds.
    """
    if not app.interactive:
        yield LogDisplay(app)
        return
    with live_display(app) as picture:
        yield LiveDisplay(picture)


@contextmanager
def live_display(app: App) -> Iterator[Picture]:
    """Yield a picture, which disappears at the end; it stays when the body raises."""
    picture = Picture(app.console)
    is_over = False
    try:
        with suspending(picture.pause, picture.resume):
            yield picture
        is_over = True
    finally:
        picture.end(erased=is_over)


class Figures(Protocol):
    """The figures of one export, or of several together; see `Progress`."""

    @property
    def stage(self) -> str: ...
    @property
    def item(self) -> str: ...
    @property
    def fetching(self) -> bool: ...
    @property
    def done(self) -> int: ...
    @property
    def goal(self) -> int | None: ...
    @property
    def pace(self) -> float: ...
    @property
    def in_flight(self) -> int: ...
    @property
    def slots(self) -> int: ...
    @property
    def retries(self) -> int: ...
    @property
    def seconds(self) -> float: ...
    @property
    def eta(self) -> float | None: ...


class View:
    """One frame of the display, fitted to the width and height of the terminal."""

    def __init__(self, progress: Progress) -> None:
        self._at = progress

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        # With room for the "^C" that a terminal shows behind the last line: if it went to another
        # line, what is drawn there next would be a line too low.
        width = min(options.max_width - 2, _WIDEST)
        yield Constrain(Group(*self._parts(width, console.size.height)), width)

    def _parts(self, width: int, height: int) -> Iterator[RenderableType]:
        at = self._at
        lines = figures(at, is_wide=width >= WIDE)
        if at.fetching:
            if outcomes := at.outcomes:
                lines.insert(0, ", ".join(f"{count:,} {name}" for name, count in outcomes.items()))
            if at.joining is not None:
                lines.insert(0, at.joining)
            if at.wait:
                lines.append(at.wait)
            elif at.trouble:
                lines.append(f"retried: {at.trouble}")
            if isinstance(at, ExportProgress):
                # Leaves room for the total, the figures, and the cursor's line.
                yield from _chains(at.chains, min(_ROWS, height - len(lines) - 4), width)
        yield total_line(at, width)
        yield from dim_lines(lines)


def dim_lines(lines: Sequence[str]) -> Iterator[RenderableType]:
    """Yield lines of figures, each cropped at the width of the display."""
    for line in lines:
        text = plain(line.replace("\n", " "), "dim")
        text.no_wrap, text.overflow = True, "crop"
        yield text


def figures(at: Figures, *, is_wide: bool) -> list[str]:
    """Return the lines below the bar. A figure's line depends on the width only, not its value."""
    if not at.fetching:
        return [clock(at.seconds)]
    slots = f"{at.in_flight} of {numbered(at.slots, 'slot')}"
    traffic = [f"{at.pace:,.0f} {at.item}s/s", slots]
    times = [numbered(at.retries, "retry"), clock(at.seconds)]
    if at.eta is not None:
        times.append(f"{clock(at.eta)} left")
    return [", ".join(traffic + times)] if is_wide else [", ".join(traffic), ", ".join(times)]


def total_line(at: Figures, width: int) -> RenderableType:
    """Return the line of the total: the stage, a bar, and the numbers."""
    stage = Text(at.stage, style="bold")
    part = share(at.done, at.goal)
    if part is None or at.goal is None:
        line = Table.grid(padding=(0, 1), expand=True)
        line.add_column(no_wrap=True)
        line.add_column(ratio=1, no_wrap=True)
        line.add_row(stage, numbered(at.done, at.item))
        return line
    goal = f"{at.goal:,}"
    # As wide as the goal from the start, or the bar would shrink meanwhile.
    counted = f"{at.done:>{len(goal)},} of {goal}"
    numbers = f"{counted} {share_text(part)}"
    if width >= len(at.stage) + len(numbers) + 12:
        return _bar_line(stage, part, numbers)
    return Group(
        _bar_line(stage, part, share_text(part)),
        Text(counted.lstrip(), no_wrap=True, overflow="crop"),
    )


def _bar_line(stage: Text, part: float, numbers: str) -> Table:
    line = Table.grid(padding=(0, 1), expand=True)
    line.add_column(no_wrap=True)
    line.add_column(ratio=1)
    line.add_column(justify="right", no_wrap=True)
    line.add_row(stage, bar(part), numbers)
    return line


def _chains(chains: list[ChainStatus], rows: int, width: int) -> Iterator[RenderableType]:
    if len(chains) == 1 or rows < 2:
        return
    visible = sorted(_busiest(chains, rows if len(chains) <= rows else rows - 1))
    has_events = len({chain.event for chain in chains}) > 1
    windows = _windows(chains)
    has_bars = width >= WIDE and any(chain.counted is not None for chain in chains)
    table = Table.grid(padding=(0, 1), expand=True)
    if has_events:
        table.add_column(ratio=2, no_wrap=True, overflow="ellipsis")
    if windows:
        table.add_column(ratio=None if has_events else 2, no_wrap=True)
    if has_bars:
        table.add_column(ratio=4)
    # As wide as the largest number will become, or the columns beside it would move.
    largest = max(max(chain.records, chain.counted or 0) for chain in chains)
    table.add_column(justify="right", no_wrap=True, min_width=len(f"{largest:,}"))
    table.add_column(justify="right", no_wrap=True, min_width=7)
    for number in visible:
        chain = chains[number]
        part = share(chain.records, chain.counted)
        row: list[RenderableType] = [plain(chain.event or "everyone")] if has_events else []
        if windows:
            row.append(windows[number])
        if has_bars:
            row.append(bar(1.0 if chain.done else part or 0.0))
        state = Text(_state(chain, part), style="green" if chain.done else "")
        table.add_row(*row, f"{chain.records:,}", state)
    yield table
    if len(visible) < len(chains):
        done = sum(chain.done for chain in chains)
        line = f"{done} of {len(chains)} chains done, {len(chains) - len(visible)} not shown"
        yield Text(line, style="dim", no_wrap=True, overflow="crop")


def _busiest(chains: list[ChainStatus], rows: int) -> list[int]:
    """Return indices of at most `rows` chains: those being read first, then waiting, then done."""

    def rank(number: int) -> tuple[bool, bool]:
        return chains[number].done, chains[number].pages == 0

    return sorted(range(len(chains)), key=rank)[:rows]


def _state(chain: ChainStatus, part: float | None) -> str:
    if chain.done:
        return "done"
    if not chain.pages:
        return "restart" if chain.restarts else "waiting"
    return "reading" if part is None else share_text(part)


def share_text(part: float) -> str:
    """Return a share in percent, always of the same width."""
    return f"{percent(part):>3} %"


def bar(part: float) -> ProgressBar:
    """Return a bar of which a share is filled."""
    return ProgressBar(total=1.0, completed=part)


def _windows(chains: list[ChainStatus]) -> list[str]:
    """Return the days of each chain, or an empty list if all chains have the same days."""
    windows = [
        (_day(chain.start), _day(chain.end))
        for chain in chains
        if chain.start is not None and chain.end is not None
    ]
    if len(set(windows)) == 1:
        return []
    if len({day[:4] for window in windows for day in window}) == 1:
        windows = [(first[5:], last[5:]) for first, last in windows]
    return [first if first == last else f"{first} to {last}" for first, last in windows]


_DAYS_BELOW = 100_000_000
"""Numbers below this are YYYYMMDD, others seconds since 1970."""


def _day(at: int) -> str:
    if at < _DAYS_BELOW:
        return f"{at // 10_000}-{at // 100 % 100:02}-{at % 100:02}"
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M}"
