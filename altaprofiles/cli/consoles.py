"""rich's consoles, as this command line needs them. Importing this imports rich."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.status import Status
from rich.text import Text

from ..redaction import harmless

if TYPE_CHECKING:
    from ..models import Attempt

__all__ = ["error_console", "output_console", "plain", "retry_status"]


class _Console(Console):
    def on_broken_pipe(self) -> None:
        # rich calls this while it handles the error. `Command` turns that into an exit code.
        raise


def error_console(*, quiet: bool) -> Console:
    """Return a console of stderr."""
    return _Console(stderr=True, quiet=quiet, highlight=False)


def output_console() -> Console:
    """Return a console of stdout."""
    return _Console(highlight=False)


def plain(text: str, style: str = "") -> Text:
    """Return foreign text without markup, and with control characters escaped."""
    return Text(harmless(text, keep="\n\t"), style)


@contextmanager
def retry_status(console: Console) -> Iterator[Callable[[Attempt], None]]:
    """Yield an `on_event` hook that shows beside a spinner why a request is retried."""
    # Started by the first failure: a request that succeeds at once needs no spinner.
    status = Status("", console=console)

    def show(attempt: Attempt) -> None:
        if attempt.error is not None and attempt.delay is not None:
            line = plain(f"retrying: {attempt.error}")
            # One line with the spinner: of a wrapped one, parts would stay on the screen.
            line.truncate(console.width - 2, overflow="crop")
            status.update(line)
            status.start()

    try:
        yield show
    finally:
        status.stop()
