"""JSON that arrives in pieces: its bytes, whether they are UTF-8, and where a value ends."""

from __future__ import annotations

import codecs
import re
from collections.abc import Generator
from typing import Any, Literal, TypeAlias, TypeVar

__all__ = ["MORE", "Arriving", "Result", "Steps", "Utf8", "ValueEnd"]

T = TypeVar("T")

MORE = object()
"""Yielded by work that can only continue with more text."""

Steps: TypeAlias = Generator[Any, None, None]
"""Work that yields None where it pauses, and `MORE`."""

Result: TypeAlias = Generator[Any, None, T]
"""The same with a result."""


class Arriving:
    """Text that arrives in pieces, and is read from its start.

    Attributes:
        data: the part that is in memory.
        at: how much of it has been read.
        base: where it begins in the whole text.
        ended: whether nothing more will come.
        is_urgent: whether to go on with the text that there is, once.
    """

    def __init__(self) -> None:
        self.data = b""
        self.at = self.base = 0
        self.ended = self.is_urgent = False
        self._pieces: list[bytes] = []
        self._waiting = self._wanted = 0

    def add(self, piece: bytes) -> None:
        """Add the next piece."""
        self._pieces.append(piece)
        self._waiting += len(piece)

    @property
    def is_enough(self) -> bool:
        """True if there is as much as `need` waits for."""
        return self._waiting >= self._wanted

    @property
    def held(self) -> int:
        """Number of bytes that have not been read."""
        return self.left + self._waiting

    @property
    def left(self) -> int:
        """Number of bytes of `data` that have not been read."""
        return len(self.data) - self.at

    @property
    def place(self) -> int:
        """Number of bytes that have been read."""
        return self.base + self.at

    def need(self, size: int) -> Steps:
        """Wait until `size` bytes from `at` on are in `data`, or as many as there will be."""
        self._wanted = size - self.left
        while not (self.is_enough or self.ended or self.is_urgent):
            yield MORE
        self.is_urgent = False
        if self._pieces:
            self.base += self.at
            self.data = b"".join((memoryview(self.data)[self.at :], *self._pieces))
            self.at = self._waiting = 0
            self._pieces.clear()

    def drop(self) -> None:
        """Forget what has not been read."""
        self._pieces.clear()
        self._waiting = self.at = 0
        self.data = b""


_POSITION = re.compile(r"position ([0-9]+)(?:-([0-9]+))?")


class Utf8:
    """Checks that bytes are UTF-8, whatever the pieces in which they arrive.

    Attributes:
        error: the fault, with its position in all bytes; None as long as there is none.
    """

    def __init__(self) -> None:
        self.error: str | None = None
        self._checked = 0
        # The start of a character whose other bytes have not arrived.
        self._open = b""

    def feed(self, piece: bytes) -> None:
        """Check the next piece."""
        if self.error is not None:
            return
        if not self._open and piece.isascii():
            self._checked += len(piece)
        else:
            self._check(self._open + piece, is_last=False)

    def end(self) -> None:
        """Check that the last character is complete."""
        if self.error is None and self._open:
            self._check(self._open, is_last=True)

    def _check(self, data: bytes, *, is_last: bool) -> None:
        try:
            _, size = codecs.utf_8_decode(data, "strict", is_last)
        except UnicodeDecodeError as error:
            self.error = _POSITION.sub(self._moved, str(error), count=1)
            return
        self._checked += size
        self._open = data[size:]

    def _moved(self, match: re.Match[str]) -> str:
        places = (str(int(place) + self._checked) for place in match.groups() if place is not None)
        return f"position {'-'.join(places)}"


_IN_STRING = rb"[^\"\\\x00-\x1f]*+(?:\\.[^\"\\\x00-\x1f]*+)*+"
_REST_OF_STRING = re.compile(_IN_STRING, re.DOTALL)
# Every letter is one of true, false, null or an exponent. A quotation mark too few or too many
# turns texts inside out, and then shows at the next letter that is none of these.
_FLAT = rb"(?:[ \t\n\r,:0-9+\-.eEtrufalsn]++|\"" + _IN_STRING + rb"\")*+"
# Containers that hold no other ones are passed as a whole.
_BETWEEN = re.compile(
    rb"(?:[ \t\n\r,:0-9+\-.eEtrufalsn]++|\""
    + (_IN_STRING + rb"\"|\{" + _FLAT + rb"\}|\[" + _FLAT + rb"\])*+"),
    re.DOTALL,
)
_SCALAR = re.compile(rb"[0-9+\-.eEtrufalsn]*+")
_CLOSING = {ord("["): ord("]"), ord("{"): ord("}")}
_QUOTE = ord('"')

Found = Literal["end", "more", "malformed"]


class ValueEnd:
    """Finds the end of one JSON value by its strings and its nesting, at any depth.

    It does not check the value. It takes each byte once, in however many pieces the value arrives.

    Attributes:
        position: how much of the value has been taken; at its end, the length of the value.
    """

    def __init__(self) -> None:
        self.position = 0
        self._open = bytearray()
        self._in_string = False

    def find(self, data: bytes, start: int, stop: int) -> Found:
        """Return "end" if the value ends before `stop`, and otherwise whether it can go on.

        Args:
            data: holds the value, as far as it has arrived.
            start: the place of its first byte.
            stop: how far to look now.
        """
        at = start + self.position
        found: Found = "more"
        while at < stop:
            if self._in_string:
                at = self._end_of_text(data, at, stop)
                if at >= stop or data[at] != _QUOTE:
                    # A backslash at the end goes with the next piece.
                    is_cut = at >= stop or (data[at] == 0x5C and at == stop - 1)
                    found = "more" if is_cut else "malformed"
                    break
                at += 1
                self._in_string = False
                if not self._open:
                    found = "end"
                    break
                continue
            pattern = _BETWEEN if self._open else _SCALAR
            match = pattern.match(data, at, stop)
            assert match is not None  # noqa: S101  it also matches nothing
            at = match.end()
            if at >= stop:
                break
            sign = data[at]
            if sign == _QUOTE and (self._open or at == start):
                self._in_string = True
            elif not self._open and at > start:
                found = "end"
                break
            elif sign in _CLOSING:
                self._open.append(_CLOSING[sign])
            elif self._open and sign == self._open[-1]:
                del self._open[-1]
                if not self._open:
                    at += 1
                    found = "end"
                    break
            else:
                found = "malformed"
                break
            at += 1
        self.position = at - start
        return found

    @staticmethod
    def _end_of_text(data: bytes, at: int, stop: int) -> int:
        match = _REST_OF_STRING.match(data, at, stop)
        assert match is not None  # noqa: S101
        return match.end()
