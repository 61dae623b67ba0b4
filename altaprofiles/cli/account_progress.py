"""Progress of several accounts: one picture on a terminal, elsewhere lines of a log."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from rich.console import RenderableType
from rich.table import Table

from ..base.wording import share
from ..export.report import Progress
from .consoles import plain
from .progress import (
    WIDE,
    LiveDisplay,
    LogDisplay,
    Picture,
    ProgressDisplay,
    View,
    bar,
    dim_lines,
    figures,
    live_display,
    share_text,
    total_line,
)

if TYPE_CHECKING:
    from .app import App

__all__ = ["AccountsView", "State", "account_displays"]


class _Share(ProgressDisplay):
    """The progress of one account in the picture of several."""

    # Each change draws the whole picture.
    interval = LiveDisplay.interval

    def __init__(self, picture: Picture, account: str, shares: dict[str, _Share]) -> None:
        super().__init__()
        self._picture = picture
        self._shares = shares
        self.progress: Progress | None = None
        self.has_failed = False
        shares[account] = self

    def fail(self) -> None:
        self.has_failed = True
        if self._picture.is_shown:
            self._picture.draw(AccountsView(self._shares))

    def update(self, progress: Progress) -> None:
        self.progress = progress
        self._picture.draw(AccountsView(self._shares))


@contextmanager
def account_displays(app: App, accounts: Sequence[str]) -> Iterator[dict[str, ProgressDisplay]]:
    """Yield a display of progress for each account, by its name: one picture, or one log."""
    if not app.interactive:
        yield {account: LogDisplay(app, account) for account in accounts}
        return
    with live_display(app) as picture:
        shares: dict[str, _Share] = {}
        yield {account: _Share(picture, account, shares) for account in accounts}


class State(Protocol):
    """The state of one account.

    Attributes:
        progress: the last report, or None.
        has_failed: whether an error has ended the work.
    """

    @property
    def progress(self) -> Progress | None: ...
    @property
    def has_failed(self) -> bool: ...


class AccountsView(View):
    """One frame of the display of several accounts: a row for each, and the total.

    Args:
        shares: the states, by the names of the accounts.
    """

    def __init__(self, shares: Mapping[str, State]) -> None:
        self._shares = shares

    def _parts(self, width: int, height: int) -> Iterator[RenderableType]:
        going_on = [one for one in self._shares.values() if not one.has_failed]
        reports = [one.progress for one in going_on if one.progress is not None]
        at = _Total(reports, of_all=len(reports) == len(going_on))
        lines = figures(at, is_wide=width >= WIDE) if reports else []
        for account, one in self._shares.items():
            if one.progress is None or not one.progress.fetching or one.has_failed:
                continue
            if wait := one.progress.wait:
                lines.append(f"{account}: {wait}")
            elif trouble := one.progress.trouble:
                lines.append(f"{account}: retried: {trouble}")
        # Room for the total in two lines, and for the cursor's line.
        rows = max(height - 5, 1)
        lines = lines[: max(rows - len(self._shares), 2)]
        yield self._rows(max(height - len(lines) - 4, 1), width)
        if reports:
            yield total_line(at, width)
        yield from dim_lines(lines)

    def _rows(self, rows: int, width: int) -> RenderableType:
        table = Table.grid(padding=(0, 1), expand=True)
        table.add_column(ratio=2, no_wrap=True, overflow="ellipsis")
        if width >= WIDE:
            table.add_column(ratio=4)
        # As wide as the largest number will become, or the columns beside it would move.
        reports = [one.progress for one in self._shares.values() if one.progress is not None]
        largest = max((max(at.done, at.goal or 0) for at in reports), default=0)
        table.add_column(justify="right", no_wrap=True, min_width=len(f"{largest:,}"))
        table.add_column(justify="right", no_wrap=True, min_width=9)
        for account, one in [*self._shares.items()][:rows]:
            at = one.progress
            part = None if at is None else share(at.done, at.goal)
            bars = [bar(part or 0.0)] if width >= WIDE else []
            state = "waiting" if at is None else at.stage if part is None else share_text(part)
            state = "failed" if one.has_failed else state
            done = "" if at is None else f"{at.done:,}"
            table.add_row(plain(account), *bars, done, state)
        return table


class _Total:
    """The progress of several accounts together, as far as the display needs it.

    Args:
        reports: their reports.
        of_all: whether every account has reported.
    """

    def __init__(self, reports: Sequence[Progress], *, of_all: bool) -> None:
        first = min((at.stage for at in reports), key=_STAGES.index, default=_STAGES[0])
        now = [at for at in reports if at.stage == first]
        self.stage = first
        self.item = next((at.item for at in now), "")
        self.fetching = any(at.fetching for at in reports)
        # The others have done all of this stage.
        self.done = sum(at.done if at.stage == first else at.goal or 0 for at in reports)
        goals = [at.goal for at in reports]
        is_known = of_all and None not in goals
        self.goal = sum(goal or 0 for goal in goals) if is_known else None
        self.pace = sum(at.pace for at in now)
        self.in_flight = sum(at.in_flight for at in reports)
        self.slots = sum(at.slots for at in reports)
        self.retries = sum(at.retries for at in reports)
        self.seconds = max((at.seconds for at in reports), default=0.0)
        etas = [at.eta for at in now]
        known = [eta for eta in etas if eta is not None]
        self.eta = max(known, default=None) if is_known and len(known) == len(etas) else None


_STAGES = ("reading", "asking", "joining", "finishing")
