"""Reads CSV as RFC 4180 describes it, strictly. Does no I/O.

Python's own reader accepts a quote that is never closed, and limits the size of a cell for the
whole process.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from ..errors import InvalidArgument
from .key_lines import LONGEST

__all__ = ["csv_rows"]

# Possessive, so that a long cell needs no memory for going back.
_QUOTED = r'"([^"]*+(?:""[^"]*+)*+)"'
_CELLS = {
    separator: re.compile(
        rf'(?:{_QUOTED}|([^"{separator}\r\n]*+))({separator}|\r\n|\r|\n|\Z)',
    )
    for separator in ",;\t"
}
_CLOSED = re.compile(_QUOTED)
_BREAK = re.compile(r"\r\n|\r|\n")
_MARK = "\ufeff"


def csv_rows(
    lines: Iterable[tuple[int, str]], source: str, separator: str = ","
) -> Iterator[tuple[int, list[str], bool]]:
    """Yield the number of the first line of each row, its cells, and whether it has quotes.

    Blank lines are skipped.

    Args:
        lines: the lines, with their numbers and line ends.
        source: the file in messages.
        separator: what stands between cells: a comma, a semicolon or a tab.

    Raises:
        ConfigurationError: a quote is never closed or stands where no quote can be, or a row
            starts with a byte-order mark.
    """
    start, size, is_open = 0, 0, False
    row: list[str] = []
    for number, line in lines:
        if not is_open:
            if line.startswith(_MARK):
                raise InvalidArgument(
                    f"keys: line {number} of {source} starts with a byte-order mark, as in files "
                    f"that were joined; remove the mark, and the header behind it"
                )
            if '"' not in line:
                if text := line.rstrip("\r\n"):
                    yield number, text.split(separator), False
                continue
            start, size, row = number, 0, []
        row.append(line)
        size += len(line)
        # While the number of quotes is odd, the line break belongs to a cell.
        is_open ^= line.count('"') % 2 == 1
        if not is_open:
            yield start, _cells("".join(row), start, source, separator), True
        elif size > LONGEST:
            break
    if is_open:
        # Raises, and names the line of the fault.
        _cells("".join(row), start, source, separator)


def _cells(text: str, start: int, source: str, separator: str) -> list[str]:
    """Return the cells of the row that starts in line `start`."""
    cells: list[str] = []
    position, end = 0, separator
    while end == separator:
        cell = _CELLS[separator].match(text, position)
        if cell is None:
            line = start + len(_BREAK.findall(text, 0, position))
            raise InvalidArgument(
                f"keys: line {line} of {source} is not valid CSV: {_fault(text, position)}"
            )
        quoted, plain, end = cell.groups()
        cells.append(plain if quoted is None else quoted.replace('""', '"'))
        position = cell.end()
    return cells


def _fault(text: str, position: int) -> str:
    if text[position] != '"':
        return "a quote stands in a cell without quotes; put the cell in quotes, and write it twice"
    if _CLOSED.match(text, position) is None:
        return "a quote is opened and never closed; close it"
    return "text follows the closing quote of a cell; write a quote within a cell twice"
