"""rich's consoles as this command line needs them. Imports rich, so import it late."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from ..redaction import harmless

__all__ = ["error_console", "output_console", "plain"]


class _Console(Console):
    def on_broken_pipe(self) -> None:
        # Called while it is being handled; `Command` knows how to end.
        raise


def error_console(*, quiet: bool) -> Console:
    """Return a console of stderr."""
    return _Console(stderr=True, quiet=quiet, highlight=False)


def output_console() -> Console:
    """Return a console of stdout."""
    return _Console(highlight=False)


def plain(text: str, style: str = "") -> Text:
    """Return text of somebody else's: without markup, and without what a terminal would obey."""
    return Text(harmless(text, keep="\n\t"), style)
