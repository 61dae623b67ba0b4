"""Prose in lines that fit a terminal: broken at words, but never within a command. Pure."""

from __future__ import annotations

import re
import unicodedata

__all__ = ["wrapped"]

_RESUMPTION = "To resume: "
"""The start of a line that is to be copied as it is."""

# A command behind a colon, with words in quotation marks; or anything between backticks.
_PIECE = re.compile(
    r"(\s*)((?:`[^`\n]+`|(?<=: )altaprofiles(?: (?:'[^']*'|[^\s;,'])+)+|\S)+)",
)


def wrapped(text: str, width: int) -> str:
    """Return `text` with line breaks between words where a line is wider than `width` columns.

    A line begins like the one that it continues. What is to be copied stays in one piece.
    """
    return "\n".join(_wrapped(line, width) for line in text.split("\n"))


def _wrapped(line: str, width: int) -> str:
    if _columns(line) <= width or line.startswith(_RESUMPTION):
        return line
    indent = line[: len(line) - len(line.lstrip())]
    lines = [""]
    for gap, piece in _PIECE.findall(line):
        if lines[-1].strip() and _columns(lines[-1] + gap + piece) > width:
            lines.append(indent + piece)
        else:
            lines[-1] += gap + piece
    return "\n".join(lines)


def _columns(text: str) -> int:
    if text.isascii():
        return len(text)
    return sum(2 if unicodedata.east_asian_width(one) in "WF" else 1 for one in text)
