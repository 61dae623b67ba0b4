"""The lines of a text of keys, which arrives in pieces. Does no I/O."""

from __future__ import annotations

import codecs
import io
from collections.abc import Callable, Iterable, Iterator

from ..base.checks import is_unicode
from ..errors import InvalidArgument

__all__ = ["LONGEST", "split_lines"]

LONGEST = 256 << 20
"""Characters in the longest line that is read."""

_SIGNS = (
    (b"\x1f\x8b", "compressed with gzip; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd; unpack it first"),
    (b"\xfd7zXZ\0", "compressed with xz; unpack it first"),
    (b"PK\x03\x04", "a ZIP file or an Excel workbook; unpack it, or save it as CSV UTF-8"),
    (b"\xff\xfe\0\0", "not UTF-8 but UTF-32; save it as UTF-8"),
    (b"\xff\xfe", "not UTF-8 but UTF-16; save it as UTF-8"),
    (b"\xfe\xff", "not UTF-8 but UTF-16; save it as UTF-8"),
)
"""The first bytes of files that are not text in UTF-8, and the fix."""


def split_lines(
    pieces: Iterable[bytes], source: str, to_utf_8: Callable[[], str] = lambda: "save it as UTF-8"
) -> Iterator[list[str]]:
    r"""Yield the lines of a text in batches, as soon as they are complete.

    A line ends with `\n`, `\r` or `\r\n`, which it keeps. The other characters that Unicode counts
    as line breaks belong to the line. A byte-order mark stays as well.

    Args:
        pieces: the bytes of the text.
        source: the text in messages.
        to_utf_8: returns advice on text in another encoding of single bytes.

    Raises:
        ConfigurationError: the bytes are not text in UTF-8, or a line is too long.
    """
    number = size = 0
    rest: list[str] = []
    for text in _decoded(pieces, source):
        # The parts of a long line are joined once: a copy for each piece would take its square.
        lines = list(io.StringIO(text, newline=""))
        if rest and rest[-1].endswith("\r") and not text.startswith("\n"):
            lines.insert(0, "".join(rest))
            rest = []
        # After a "\r" at the end, the "\n" that belongs to it may be in the next piece.
        open_ = [] if lines[-1].endswith("\n") else [lines.pop()]
        if lines:
            lines[0] = "".join([*rest, lines[0]])
            rest, size = [], 0
        rest += open_
        size += sum(map(len, open_))
        if not _is_faultless(text):
            _raise_fault([*lines, "".join(rest)], number, source, to_utf_8)
        number += len(lines)
        if size > LONGEST:
            raise InvalidArgument(
                f"keys: line {number + 1} of {source} is longer than {LONGEST >> 20} MiB; "
                f"correct it"
            )
        if lines:
            yield lines
    if rest:
        yield ["".join(rest)]


def _decoded(pieces: Iterable[bytes], source: str) -> Iterator[str]:
    """Yield the text of the pieces, without empty ones."""
    # Wrong bytes become lone surrogates, so that the line that holds them can be named.
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    is_first = True
    for piece in pieces:
        if is_first:
            _check_kind(piece, source)
        is_first = False
        if text := decoder.decode(piece):
            yield text
    if text := decoder.decode(b"", final=True):
        yield text


def _check_kind(piece: bytes, source: str) -> None:
    for sign, kind in _SIGNS:
        if piece.startswith(sign):
            raise InvalidArgument(f"keys: {source} is {kind}")


def _is_faultless(text: str) -> bool:
    return "\0" not in text and is_unicode(text)


def _raise_fault(lines: list[str], before: int, source: str, to_utf_8: Callable[[], str]) -> None:
    for number, line in enumerate(lines, before + 1):
        if not is_unicode(line):
            raise InvalidArgument(f"keys: line {number} of {source} is not UTF-8; {to_utf_8()}")
        if "\0" in line:
            raise InvalidArgument(
                f"keys: line {number} of {source} holds a NUL byte, as files do that are not text, "
                f"or not UTF-8; save it as text in UTF-8"
            )
