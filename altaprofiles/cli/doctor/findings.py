"""Findings of `altaprofiles doctor`."""

from __future__ import annotations

from dataclasses import dataclass

from rich.text import Text

from ..consoles import plain
from ..exits import Exit

__all__ = ["Finding"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report.

    Attributes:
        text: the finding.
        advice: a remedy, or None.
        code: the exit code if something is wrong, else None.
        is_note: whether the finding deserves attention although nothing is wrong.
    """

    text: str
    advice: str | None = None
    code: Exit | None = None
    is_note: bool = False

    def line(self) -> Text:
        """Return the finding as text for the terminal, its advice on a second line."""
        if self.code is not None:
            word, style = "wrong", "bold red"
        elif self.is_note:
            word, style = "note", "yellow"
        else:
            word, style = "ok", "green"
        line = Text(f"{word:<7}", style) + plain(self.text)
        if self.advice is not None:
            line += Text("\n       ") + plain(self.advice)
        return line
