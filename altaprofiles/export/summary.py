"""Reports as text: a line for each figure, or a table of HTML. Knows no kind of report."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from html import escape
from pathlib import Path
from typing import TypeAlias

from ..redaction import harmless, readable

__all__ = ["Rows", "beside", "html_table", "path_text", "text_lines"]

Rows: TypeAlias = list[tuple[str, str]]
"""Figures as text, with their names. A name can be there several times."""


def text_lines(rows: Iterable[tuple[str, str]]) -> str:
    """Return a line for each row, with the values below one another."""
    rows = [(harmless(name), harmless(value)) for name, value in rows]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def html_table(rows: Iterable[tuple[str, str]]) -> str:
    """Return the rows as a table of HTML, with all text escaped."""
    left = 'style="text-align: left"'
    lines = [
        f"<tr><th {left}>{escape(harmless(name))}</th><td {left}>{escape(harmless(value))}</td>"
        for name, value in rows
    ]
    return f"<table>{'</tr>'.join(lines)}</tr></table>"


def path_text(file: str) -> str:
    """Return a path as text, relative to the current folder if the file is in it."""
    # It can be in another folder, or the current one deleted.
    with suppress(OSError, ValueError):
        file = str(Path(file).relative_to(Path.cwd()))
    return readable(file)


def beside(file: str | None) -> str:
    """Return the end of a sentence that names a file, or nothing if there is none."""
    return "" if file is None else f", in {path_text(file)}"
