"""`altaprofiles guide`: the guides, in the terminal."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from importlib.resources import files
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

import click

from ..app import App
from ..command import Command
from ..exits import Exit, Failure

__all__ = ["guide"]

_ORDER = (
    *("start-here", "export-and-resume", "every-night", "look-ups", "into-databases"),
    *("dataframes", "gallery", "in-a-web-service", "in-a-lake", "many-accounts", "observability"),
    *("testing", "errors", "service-limits", "guarantees", "how-it-works", "typing"),
    *("command-line", "python", "coming-from", "glossary"),
)
"""The guides in the order in which readers are likely to need them."""


class _Hit(NamedTuple):
    """A line of a guide, with the section it stands in."""

    guide: str
    section: str
    line: str


def _complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    return [name for name in _ORDER if name.startswith(incomplete)]


@click.command(
    cls=Command, misplaced="a guide has one name; to search, write --search 'several words'"
)
@click.argument("guide", required=False, shell_complete=_complete)
@click.option(
    "--search",
    metavar="WORDS",
    help="List the sections of all guides with these words, two lines each, or all lines of GUIDE.",
)
@click.pass_obj
def guide(app: App, guide: str | None, search: str | None) -> None:
    """Show a guide, or the list of guides.

    GUIDE is a name from the list. On a terminal it is rendered, into a file or a pipe it is
    Markdown.

    \b
    Examples:
        altaprofiles guide
        altaprofiles guide every-night
        altaprofiles guide --search "cursor expired"
    """
    if guide is not None and guide not in _ORDER:
        raise click.UsageError(f"no such guide; {_advice(guide)}")
    if search is not None:
        words = search.casefold().split()
        names = _ORDER if guide is None else [guide]
        most = _MOST if guide is None else None
        hits = [*_hits(words, names, most)] if words else []
        if not hits:
            raise Failure("no section of the guides has all of these words", Exit.NOT_FOUND)
        width = max(len(hit.guide) for hit in hits)
        app.write_lines(f"{hit.guide:<{width}}  {hit.section}: {hit.line}" for hit in hits)
    elif guide is None:
        width = max(map(len, _ORDER))
        lines = (f"{name:<{width}}  {_title(_text(name))}\n" for name in _ORDER)
        app.write(("".join(lines) + "\nRead one: altaprofiles guide start-here\n").encode())
    elif sys.stdout.isatty():
        _show(_text(guide))
    else:
        app.write(_text(guide).encode())


def _text(name: str) -> str:
    return (files("altaprofiles") / "guides" / f"{name}.md").read_text("utf-8")


def _title(text: str) -> str:
    return text.partition("\n")[0].removeprefix("# ")


def _advice(name: str) -> str:
    from difflib import get_close_matches

    close = get_close_matches(name, _ORDER, 1)
    return f"did you mean {close[0]}?" if close else "for the list, run: altaprofiles guide"


def _hits(words: list[str], names: tuple[str, ...] | list[str], most: int | None) -> Iterator[_Hit]:
    """Yield the lines that have all of the words, in any order, and if they are few, sections.

    Of each section, `most` lines; None for all.
    """
    found = [*_lines(words, names)]
    for _, group in groupby(found, key=itemgetter(0, 1)):
        hits = [*group]
        # A heading is in front of each of the other lines.
        hits = [hit for hit in hits if not hit.line.endswith(f"# {hit.section}")] or hits
        first = hits[:most]
        if left := len(hits) - len(first):
            first[-1] = first[-1]._replace(line=f"{first[-1].line} (and {left:,} more)")
        yield from first
    if len(found) < _FEW:
        places = {(hit.guide, hit.section) for hit in found}
        for hit in _sections([word[: max(4, len(word) - 2)] for word in words], names):
            if (hit.guide, hit.section) not in places:
                yield hit


_MOST = 2
"""Lines of one section that are shown of a search in all guides."""
_FEW = 3
"""Lines below which sections that have the words in several lines are shown as well."""


def _sections(beginnings: list[str], names: tuple[str, ...] | list[str]) -> Iterator[_Hit]:
    for name in names:
        text = _text(name)
        for heading, group in groupby(_sectioned(text), key=itemgetter(0)):
            lines = [line for _, line in group]
            folded = " ".join((_title(text), heading, *lines)).casefold()
            if all(re.search(rf"\b{re.escape(one)}", folded) for one in beginnings):
                yield _Hit(name, heading, next(filter(None, map(str.strip, lines[1:])), ""))


def _lines(words: list[str], names: tuple[str, ...] | list[str]) -> Iterator[_Hit]:
    wanted = [_wanted(word) for word in words]
    for name in names:
        for section, line in _sectioned(_text(name)):
            text = f"{section} {line}".casefold()
            if not _FENCE.fullmatch(line) and all(re.search(one, text) for one in wanted):
                yield _Hit(name, section, line.strip())


def _wanted(word: str) -> str:
    """Return the pattern of a word, which many others contain if it is short."""
    if len(word) > _SHORT:
        # In the singular, too.
        return re.escape(word.removesuffix("s"))
    return rf"(?<!\w){re.escape(word)}(?!\w)"


_FENCE = re.compile(r"\s*(```\w*)?")
"""A line that is empty, or around a code block."""
_SHORT = 3
"""Letters of words that are searched for as whole words."""


def _sectioned(text: str) -> Iterator[tuple[str, str]]:
    """Yield each line of a guide with the heading above it; that of a heading is its own."""
    section, is_code = "", False
    for line in text.splitlines():
        if line.lstrip().startswith("```"):
            is_code = not is_code
        # In code, such a line is a comment.
        elif not is_code and (heading := re.match(r"#+ (.+)", line)):
            section = heading[1]
        yield section, line


def _show(text: str) -> None:
    from ..consoles import output_console
    from ..markdown import Guide

    console = output_console()
    document = Guide(text, hyperlinks=False)
    # What fits needs no pager, in which it would vanish at the end.
    lines = console.render_lines(document)
    if len(lines) < console.height:
        console.print(document, crop=False)
        return
    # As git does it: without that option, less shows the characters of the colours.
    options = os.environ.setdefault("LESS", "-R")
    is_less = "PAGER" not in os.environ and "MANPAGER" not in os.environ
    with console.pager(styles=not is_less or "r" in options.lower()):
        console.print(document, crop=False)
