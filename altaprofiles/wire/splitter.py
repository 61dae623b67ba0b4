"""Takes the body of a CleverTap page apart while it arrives: its records, and the small rest.

Sources:
    [profiles] "Get User Profiles", https://developer.clevertap.com/docs/get-user-profiles-api
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable
from contextlib import suppress

import msgspec

from ..base.json_pieces import MORE, Arriving, Result, Steps, Utf8, ValueEnd
from ..base.jsontext import FAILURES
from ..errors import DecodeError, ResponseTooLarge
from ..flow.slices import Slices
from .cut_body import CutBody
from .page import PAGE_BODY, PageBody
from .record_list import RecordList, RecordSink, part_too_large

__all__ = ["SLICE", "Splitter"]

SLICE = 1 << 19
"""Bytes decoded without a pause, which takes about a millisecond."""

_LEAST = 1 << 12
"""Shortest slice, in bytes, and the room for white space behind a record that just fits."""

_BRACKET = ord("[")
_STRING = rb'"(?:[^"\\]|\\.)*+"'
_OPENING = re.compile(rb"[ \t\n\r]*+(\{)")
_KEY = re.compile(
    rb"[ \t\n\r]*+(" + _STRING + rb")[ \t\n\r]*+:[ \t\n\r]*+(?=[^ \t\n\r])", re.DOTALL
)
_PART_OF_KEY = re.compile(
    rb'[ \t\n\r]*+(?:"(?:[^"\\]|\\.)*+\\?+(?:"[ \t\n\r]*+(?::[ \t\n\r]*+)?+)?+)?+', re.DOTALL
)
_COMMA = re.compile(rb"[ \t\n\r]*+(,)")
_SPACE = re.compile(rb"[ \t\n\r]*+")


class Splitter:
    """Takes the body of one page apart ([profiles], Sample Response).

    All that is wrong with a body is raised at its end: no earlier error, as of the transport, is
    hidden by one of a body that is not whole.

    Args:
        sink: takes the records.
        limit: most bytes of one record, and of the members beside the records.
        step: bytes parsed without a pause.
        is_checked: whether the body is known to be UTF-8.

    Attributes:
        size: length of the body so far, in bytes, without its byte-order mark.
    """

    def __init__(
        self, sink: RecordSink, limit: int, step: int = SLICE, *, is_checked: bool = False
    ) -> None:
        self.size = 0
        self._sink = sink
        self._limit = limit
        self._room = limit + _LEAST
        # No more is waited for than may be held.
        self._step = step = min(step, max(limit // 4, _LEAST))
        self._utf8 = Utf8()
        self._is_checked = is_checked
        # Until it is known whether it is a byte-order mark.
        self._first: bytes | None = b""
        self._text = Arriving()
        self._body = CutBody()
        self._ignored = 0
        self._list = RecordList(self._text, self._body, sink, step, limit)
        self._whole: PageBody | None = None
        self._steps = self._split()

    # ------------------------------------------------------------------------------ what arrives

    def feed(self, piece: bytes) -> Iterable[None]:
        """Take the next piece of the body; return the slices of the work that it makes possible.

        Most pieces are small, and make none.

        Raises:
            ResponseTooLarge: one record, or the rest of the body, is over the limit.
        """
        if self._first is not None:
            piece = self._first + piece
            is_short = len(piece) < len(codecs.BOM_UTF8) and not self._text.ended
            self._first = piece if is_short else None
            if self._first is not None:
                return ()
            piece = piece.removeprefix(codecs.BOM_UTF8)
        self.size += len(piece)
        self._body.begin_with(piece)
        if self._sink.in_memory and self.size > self._limit:
            raise ResponseTooLarge(
                f"the response is over {self._limit:,} bytes; ask for less (a smaller "
                f"`batch_size`, no event summaries) or raise `max_response_bytes`",
                limit=self._limit,
            )
        if not self._is_checked:
            self._utf8.feed(piece)
        self._text.add(piece)
        if self._utf8.error is not None or self._list.error is not None:
            self._ignore()
            return ()
        if not self._text.is_enough and self._text.held <= self._room:
            return ()
        return self._advance()

    def _ignore(self) -> None:
        """Forget a part of a body of which nothing is believed; its end must still arrive."""
        self._ignored += self._text.held
        self._text.drop()
        self._body.rest.clear()
        if self._ignored > self._limit and (failure := self._failure) is not None:
            raise failure

    @property
    def _failure(self) -> DecodeError | None:
        """The error of the body so far. Bytes that are not UTF-8 outrank what they make of it."""
        if self._utf8.error is not None:
            return DecodeError(self._utf8.error, path="$", excerpt=self._body.excerpt)
        if self._list.error is not None:
            # More of the beginning may have arrived since.
            self._list.error.excerpt = self._body.excerpt
        return self._list.error

    def _advance(self) -> Slices[None]:
        while True:
            before = self._text.place
            self._text.is_urgent = self._text.held > self._room
            for step in self._steps:
                if step is MORE:
                    break
                yield
            if self._list.error is not None:
                return
            is_full = self._text.held > self._room and not self._text.ended
            # What is held may be many whole records: too large is what stays behind them.
            if len(self._body.rest) > self._limit or (is_full and self._text.place == before):
                raise part_too_large(self._limit)
            if not is_full:
                return

    def end(self) -> Slices[tuple[bytes, PageBody | None]]:
        """Return the body without the records that were taken, and its members.

        A small body is returned with its records, and an unusual one as it is, with None.

        Raises:
            DecodeError: the body is not UTF-8, or not JSON.
        """
        self._text.ended = True
        if self._first:
            yield from self.feed(b"")
        self._utf8.end()
        if self._failure is None:
            yield from self._advance()
        if (failure := self._failure) is not None:
            raise failure
        rest = bytes(self._body.rest)
        return rest, self._body.decode(self.size) if self._body.is_cut else self._whole

    @property
    def is_apart(self) -> bool:
        """True if records were taken."""
        return self._body.is_cut

    @property
    def beginning(self) -> bytes:
        """The first bytes of the body."""
        return self._body.beginning

    # ------------------------------------------------------------------------------- the members

    def _split(self) -> Steps:
        yield from self._text.need(2 * self._step)
        if self._text.ended and len(self._text.data) <= self._limit:
            # A small body, as of most answers.
            with suppress(*FAILURES):
                self._whole = PAGE_BODY.decode(self._text.data)
        if self._whole is None:
            yield from self._members()
        while not self._text.ended and self._list.error is None:
            self._list.keep(len(self._text.data))
            yield from self._text.need(self._step)
        if self._list.error is None:
            self._list.keep(len(self._text.data))

    def _members(self) -> Steps:
        """Read the members of the object, as far as it is one."""
        opened = bool((yield from self._match(_OPENING, _SPACE)))
        while opened:
            key = yield from self._match(_KEY, _PART_OF_KEY)
            if not key:
                return
            if self._text.data[self._text.at] == _BRACKET and _is_records(key):
                opened = yield from self._list.read()
            else:
                opened = yield from self._skip()
            opened = opened and bool((yield from self._match(_COMMA, _SPACE)))

    def _match(self, pattern: re.Pattern[bytes], part: re.Pattern[bytes]) -> Result[bytes]:
        """Return the first group of `pattern`, or b"" if it does not match what comes next.

        Args:
            pattern: matches a token and what is behind it.
            part: matches everything that can become a match.
        """
        while True:
            match = pattern.match(self._text.data, self._text.at)
            if match is not None:
                self._list.keep(match.end())
                return match[1]
            start = part.match(self._text.data, self._text.at)
            rest = self._text.left
            if self._text.ended or (start is not None and start.end() < len(self._text.data)):
                return b""
            yield from self._text.need(max(self._step, 2 * rest))

    def _skip(self) -> Result[bool]:
        """Read a value that is kept; return whether it has an end."""
        value = ValueEnd()
        while True:
            found = yield from self._list.find(value, self._text.at)
            if found != "more":
                self._list.keep(self._text.at + value.position)
                return found == "end"
            if self._text.ended:
                return False
            yield from self._text.need(max(self._step, 2 * (self._text.left)))


def _is_records(key: bytes) -> bool:
    try:
        return msgspec.json.decode(key, type=str) == "records"
    except FAILURES:
        return False
