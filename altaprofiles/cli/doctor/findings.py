"""What `doctor` has found, one by one."""

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
        text: what was found.
        advice: what to do about it.
        code: the exit code it stands for, if it is wrong.
        note: whether it is not wrong, and worth reading all the same.
    """

    text: str
    advice: str | None = None
    code: Exit | None = None
    note: bool = False

    def line(self) -> Text:
        """Return what is shown of it."""
        word, style = (
            ("wrong", "bold red")
            if self.code is not None
            else ("note", "yellow")
            if self.note
            else ("ok", "green")
        )
        line = Text(f"{word:<7}", style) + plain(self.text)
        if self.advice is not None:
            line += Text("\n       ") + plain(self.advice)
        return line
