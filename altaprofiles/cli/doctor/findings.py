"""Findings of `altaprofiles doctor`."""

from __future__ import annotations

from dataclasses import dataclass

from rich.text import Text

from ..consoles import plain
from ..exits import Exit
from ..lines import wrapped

__all__ = ["Finding"]

_INDENT = 7
_BREAK = f"\n{' ' * _INDENT}"


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

    def line(self, width: int | None = None) -> Text:
        """Return the finding as text for the terminal, its advice on a line of its own.

        Args:
            width: the width of the terminal, in columns; None to leave lines as long as they are.
        """
        if self.code is not None:
            word, style = "wrong", "bold red"
        elif self.is_note:
            word, style = "note", "yellow"
        else:
            word, style = "ok", "green"
        texts = [self.text] if self.advice is None else [self.text, self.advice]
        if width is not None:
            texts = [wrapped(text, width - _INDENT) for text in texts]
        return Text(f"{word:<{_INDENT}}", style) + plain("\n".join(texts).replace("\n", _BREAK))
