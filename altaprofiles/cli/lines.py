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

# The name of a figure, or the blanks that a sentence begins with.
_NAME = re.compile(r"\S+(?: \S+)?\s{2,}|\s+")


def wrapped(text: str, width: int) -> str:
    """Return `text` with line breaks between words where a line is wider than `width` columns.

    A line begins below the value that it continues. What is to be copied stays in one piece.
    """
    return "\n".join(_wrapped(line, width) for line in text.split("\n"))


def _wrapped(line: str, width: int) -> str:
    if _columns(line) <= width or line.startswith(_RESUMPTION):
        return line
    name = _NAME.match(line)
    indent = " " * len(name[0]) if name and 2 * len(name[0]) <= width else ""
    lines = [""]
    for gap, piece in _PIECE.findall(line):
        # A value, such as a path, stays behind its name, even if it fits on no line.
        is_first = not lines[-1].strip() or (name is not None and lines[-1] + gap == name[0])
        if not is_first and _columns(lines[-1] + gap + piece) > width:
            lines.append(indent + piece)
        else:
            lines[-1] += gap + piece
    return "\n".join(lines)


def _columns(text: str) -> int:
    if text.isascii():
        return len(text)
    return sum(2 if unicodedata.east_asian_width(one) in "WF" else 1 for one in text)
