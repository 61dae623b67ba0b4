"""Prose in lines that fit a terminal: broken at words, but never within a command. Pure."""

from __future__ import annotations

import re
import unicodedata

__all__ = ["Unbroken", "wrapped"]

_WORD = r"""(?:'[^'\n]*'|"(?:[^"\\\n]|\\.)*"|[^\s;,'"]++)++"""
"""A word of a shell."""
_MORE = rf"(?:(?<!\w\.) {_WORD})"
"""A further one, not behind the end of a sentence."""
_PROGRAM = (
    rf"""(?:uv run |uvx )?(?:{_WORD} -m )?(?:'[^'\n]*/altaprofiles'|[^\s;,'"]*altaprofiles)"""
)
_COPIED = (
    "`[^`\n]+`",
    "To resume: .+",
    rf"(?<=[Rr]un: ){_WORD}{_MORE}*+",
    rf"(?<=: )(?:\(cd {_WORD} && )?(?:pip|{_PROGRAM}){_MORE}++",
)
"""Text to be copied. A comma or a semicolon that is not in quotation marks ends a command."""
_PIECE = re.compile(rf"(\s*)((?:{'|'.join(_COPIED)}|\S)+)")

# The name of a figure, or the blanks that a sentence begins with.
_NAME = re.compile(r"\S+(?: \S+)?\s{2,}|\s+")


class Unbroken(str):
    """A line that is a command, with nothing else but blanks before it."""

    __slots__ = ()


def wrapped(text: str, width: int) -> str:
    """Return `text` with line breaks between words where a line is wider than `width` columns.

    A line begins below the value that it continues. What is to be copied stays in one piece.
    """
    if isinstance(text, Unbroken):
        return text
    return "\n".join(_wrapped(line, width) for line in text.split("\n"))


def _wrapped(line: str, width: int) -> str:
    if _columns(line) <= width:
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
