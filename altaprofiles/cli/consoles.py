"""rich's consoles, as this command line needs them. Importing this imports rich."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.status import Status
from rich.text import Text

from ..redaction import harmless

if TYPE_CHECKING:
    from ..models import Attempt

__all__ = ["error_console", "output_console", "plain", "retry_status", "suspending"]


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

    def resume() -> None:
        # The next failure starts it otherwise.
        if status.status:
            status.start()

    try:
        with suspending(status.stop, resume):
            yield show
    finally:
        status.stop()


@contextmanager
def suspending(pause: Callable[[], object], resume: Callable[[], object]) -> Iterator[None]:
    """Call `pause` before Ctrl-Z stops this process, and `resume` when it goes on.

    A display hides the cursor, which the shell needs.
    """
    number = getattr(signal, "SIGTSTP", None)
    if number is None or signal.getsignal(number) is not signal.SIG_DFL:
        yield
        return

    is_over = False

    def suspend() -> None:
        if is_over:
            # The signal came in the last step, and its display is no more.
            signal.raise_signal(number)
            return
        pause()
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)
        signal.signal(number, stop)
        resume()

    def stop(number: int, frame: FrameType | None) -> None:
        try:
            # Between two callbacks, as the display may be in the middle of a line.
            asyncio.get_running_loop().call_soon_threadsafe(suspend)
        except RuntimeError:
            suspend()

    signal.signal(number, stop)
    try:
        yield
    finally:
        is_over = True
        signal.signal(number, signal.SIG_DFL)
