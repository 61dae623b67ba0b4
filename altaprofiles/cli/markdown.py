"""Markdown on a terminal, of which nothing that is to be copied is cut. Imports rich."""

from __future__ import annotations

from typing import ClassVar

from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import CodeBlock, Markdown, MarkdownElement, TableElement
from rich.table import Table
from rich.text import Text

__all__ = ["Guide"]


class _Code(CodeBlock):
    """Code whose lines are as long as they are: the terminal breaks them, and copies them whole."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        text = Text(str(self.text).rstrip(), style="markdown.code_block")
        for line in text.split("\n"):
            line.no_wrap, line.overflow = True, "ignore"
            yield line


class _Table(TableElement):
    """A table whose long words go on in the next line of their cell."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for table in super().__rich_console__(console, options):
            if isinstance(table, Table):
                for column in table.columns:
                    column.overflow = "fold"
            yield table


class Guide(Markdown):
    """A guide."""

    elements: ClassVar[dict[str, type[MarkdownElement]]] = {
        **Markdown.elements,
        "fence": _Code,
        "code_block": _Code,
        "table_open": _Table,
    }
