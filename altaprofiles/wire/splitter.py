"""Takes the body of a CleverTap page apart while it arrives: its records, and the small rest.

Sources:
    [profiles] "Get User Profiles", https://developer.clevertap.com/docs/get-user-profiles-api
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Generator, Iterator
from contextlib import suppress
from itertools import islice
from typing import Any, Protocol, TypeAlias, TypeVar

import msgspec
from msgspec import Raw

from ..base.json_pieces import MORE, Arriving, Utf8, ValueEnd
from ..base.jsontext import FAILURES, is_deep
from ..errors import DecodeError, ResponseTooLarge
from ..flow.slices import Slices
from .cut_body import CutBody
from .page import PAGE_BODY, PageBody

__all__ = ["SLICE", "RecordSink", "Splitter"]

T = TypeVar("T")

SLICE = 1 << 19
"""Bytes decoded without a pause, which takes about a millisecond."""


_Steps: TypeAlias = Generator[Any, None, None]
_Result: TypeAlias = Generator[Any, None, T]

_TRIES = 3
_GUESSES = 3
"""Slices in a row whose end may be guessed in vain, before no more are guessed."""
_AHEAD = 16
_WHITE = b" \t\n\r"
_BRACKET, _BRACE_END = b"[}"
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
_FIRST_KEY = re.compile(rb"\{[ \t\n\r]*+" + _STRING + rb"[ \t\n\r]*+:", re.DOTALL)
_BETWEEN = re.compile(rb"\}[ \t\n\r]*+,[ \t\n\r]*+(?=\{)")
_GAP = re.compile(rb"[ \t\n\r]*+(?:\]|,[ \t\n\r]*+(?=[^ \t\n\r]))")
_PART_OF_GAP = re.compile(rb"[ \t\n\r]*+(?:,[ \t\n\r]*+)?+")
_RECORDS = msgspec.json.Decoder(list[Raw])


class RecordSink(Protocol):
    """Takes the records of one page, in order, before it is known whether the page is whole.

    Attributes:
        in_memory: whether it keeps the whole body in memory.
    """

    in_memory: bool

    def put(self, records: list[Raw], text: bytes, *, whole: bool = False) -> Slices[None]:
        """Take some records, which are JSON values of any kind.

        Args:
            records: the records. They keep `text` in memory.
            text: the list of them, as it was sent, in brackets.
            whole: whether `text` is the whole body instead.
        """
        ...

    def skip(self, text: bytes) -> None:
        """Take the part of the body between two slices of records, before or behind them all."""
        ...

    def clear(self) -> None:
        """Forget all records: of two members with one name the last counts."""
        ...


class Splitter:
    """Takes the body of one page apart.

    A slice of records is cut where the next record seems to begin, and parsed as a list of its own.
    If it parses, it ends with a record, because brackets or quotes do not balance where a record is
    cut. If it does not, the end of each record is found by its strings and its nesting.

    All that is wrong with a body is raised at its end: no earlier error, as of the transport, is
    hidden by one of a body that is not whole.

    Args:
        sink: takes the records.
        limit: most bytes of one record, and of the members beside the records.
        step: bytes parsed without a pause.

    Attributes:
        size: length of the body so far, in bytes, without its byte-order mark.
    """

    def __init__(self, sink: RecordSink, limit: int, step: int = SLICE) -> None:
        self.size = 0
        self._sink = sink
        self._limit = limit
        self._step = step
        self._near = step // 8
        # Following the structure takes four times as long.
        self._exact_step = step // 4
        self._utf8 = Utf8()
        # Until it is known whether it is a byte-order mark.
        self._first: bytes | None = b""
        self._text = Arriving()
        self._body = CutBody()
        self._ignored = 0
        self._count = 0
        self._guesses = _GUESSES
        self._likely: re.Pattern[bytes] | None = None
        self._error: DecodeError | None = None
        self._whole: PageBody | None = None
        self._steps = self._split()

    # ------------------------------------------------------------------------------ what arrives

    def feed(self, piece: bytes) -> Slices[None]:
        """Take the next piece of the body.

        Raises:
            ResponseTooLarge: one record, or the rest of the body, is over the limit.
        """
        if self._first is not None:
            piece = self._first + piece
            is_short = len(piece) < len(codecs.BOM_UTF8) and not self._text.ended
            self._first = piece if is_short else None
            if self._first is not None:
                return
            piece = piece.removeprefix(codecs.BOM_UTF8)
        self.size += len(piece)
        self._body.begin_with(piece)
        if self._sink.in_memory and self.size > self._limit:
            raise self._too_large("the response")
        self._utf8.feed(piece)
        self._text.add(piece)
        if (failure := self._failure) is not None:
            # Nothing more is believed. It only matters whether the rest arrives.
            self._ignored += self._text.held
            self._text.drop()
            self._body.rest.clear()
            if self._ignored > self._limit:
                raise failure
            return
        is_urgent = self._held > self._limit
        if is_urgent or self._text.is_enough:
            self._text.is_urgent = is_urgent
            yield from self._advance()
            if self._held > self._limit:
                raise self._too_large("a part of the response")

    @property
    def _failure(self) -> DecodeError | None:
        """The error of the body so far. Bytes that are not UTF-8 outrank what they make of it."""
        if self._utf8.error is not None:
            return DecodeError(self._utf8.error, path="$", excerpt=self._body.excerpt)
        if self._error is not None:
            # More of the beginning may have arrived since.
            self._error.excerpt = self._body.excerpt
        return self._error

    @property
    def _held(self) -> int:
        return len(self._body.rest) + self._text.held

    def _too_large(self, subject: str) -> ResponseTooLarge:
        return ResponseTooLarge(
            f"{subject} is over {self._limit:,} bytes; ask for less (a smaller batch_size, "
            f"events=False) or raise max_response_bytes",
            limit=self._limit,
        )

    def _advance(self) -> Slices[None]:
        for step in self._steps:
            if step is MORE:
                return
            yield

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

    def _split(self) -> _Steps:
        yield from self._text.need(2 * self._step)
        if self._text.ended:
            # A small body, as of most answers.
            with suppress(*FAILURES):
                self._whole = PAGE_BODY.decode(self._text.data)
        if self._whole is None:
            yield from self._members()
        while not self._text.ended and self._error is None:
            self._keep(len(self._text.data))
            yield from self._text.need(self._step)
        if self._error is None:
            self._keep(len(self._text.data))

    def _keep(self, end: int) -> None:
        """Read on to `end`, and keep that part."""
        part = self._text.data[self._text.at : end]
        self._body.rest += part
        self._sink.skip(part)
        self._text.at = end

    def _members(self) -> _Steps:
        """Read the members of the object, as far as it is one."""
        opened = bool((yield from self._match(_OPENING, _SPACE)))
        while opened:
            key = yield from self._match(_KEY, _PART_OF_KEY)
            if not key:
                return
            if self._text.data[self._text.at] == _BRACKET and _is_records(key):
                opened = yield from self._records()
            else:
                opened = yield from self._skip()
            opened = opened and bool((yield from self._match(_COMMA, _SPACE)))

    def _match(self, pattern: re.Pattern[bytes], part: re.Pattern[bytes]) -> _Result[bytes]:
        """Return the first group of `pattern`, or b"" if it does not match what comes next.

        Args:
            pattern: matches a token and what is behind it.
            part: matches everything that can become a match.
        """
        while True:
            match = pattern.match(self._text.data, self._text.at)
            if match is not None:
                self._keep(match.end())
                return match[1]
            start = part.match(self._text.data, self._text.at)
            rest = self._text.left
            if self._text.ended or (start is not None and start.end() < len(self._text.data)):
                return b""
            yield from self._text.need(max(self._step, 2 * rest))

    def _skip(self) -> _Result[bool]:
        """Read a value that is kept; return whether it has an end."""
        value = ValueEnd()
        while True:
            found = yield from self._find(value, self._text.at)
            if found != "more":
                self._keep(self._text.at + value.position)
                return found == "end"
            if self._text.ended:
                return False
            yield from self._text.need(max(self._step, 2 * (self._text.left)))

    def _find(self, value: ValueEnd, start: int) -> _Result[str]:
        """Look for the end of the value at `start` in the data that is there."""
        while True:
            stop = min(len(self._text.data), start + value.position + self._exact_step)
            found = value.find(self._text.data, start, stop)
            if found != "more" or stop == len(self._text.data):
                return found
            yield None

    # ------------------------------------------------------------------------------- the records

    def _records(self) -> _Result[bool]:
        """Read the list of records; return whether it has an end."""
        if self._body.is_cut:
            self._sink.clear()
        self._count = 0
        self._keep(self._text.at + 1)
        begin = self._text.place
        is_over = False
        while not is_over:
            yield from self._text.need(self._step + self._near)
            if not self._count and (space := _SPACE.match(self._text.data, self._text.at)):
                self._pass(space.end())
            guessed = yield from self._guess()
            if guessed is None:
                guessed = yield from self._exact()
            if self._error is not None:
                return False
            is_over = guessed
        self._body.cut(self._text.place - begin)
        self._keep(self._text.at + 1)
        return True

    def _guess(self) -> _Result[bool | None]:
        """Take a slice of records. Return whether it was the last one, or None if none is found."""
        data, at = self._text.data, self._text.at
        if not self._guesses:
            return None
        for end, following in self._last_cuts() if self._text.ended else self._cuts_near():
            text = b"".join((b"[", memoryview(data)[at:end], b"]"))
            try:
                records = _RECORDS.decode(text)
            except FAILURES:
                yield None
                continue
            yield from self._take(records, text, end)
            self._pass(following)
            self._guesses = _GUESSES
            return self._text.ended
        if self._text.ended or len(data) - at > self._near:
            # Where it fails at all, it mostly fails again.
            self._guesses -= 1
        return None

    def _cuts_near(self) -> Iterator[tuple[int, int]]:
        """Yield possible ends of a slice, the likeliest first, and where the next record begins."""
        data, at = self._text.data, self._text.at
        if self._likely is None:
            key = _FIRST_KEY.match(data, at)
            # Most records begin with the same key, and devices with another one.
            first = b"\\{" if key is None else re.escape(key[0])
            self._likely = re.compile(rb"\}[ \t\n\r]*+,[ \t\n\r]*+(?=" + first + rb")")
        near = max(at, min(at + self._step, len(data) - self._near))
        cuts = [self._likely.search(data, near), *islice(_BETWEEN.finditer(data, near), _TRIES)]
        for cut in filter(None, cuts):
            yield cut.start() + 1, cut.end()

    def _last_cuts(self) -> Iterator[tuple[int, int]]:
        """Yield possible ends of the list, the last ones first."""
        data, stop = self._text.data, len(self._text.data)
        for _ in range(_TRIES):
            stop = data.rfind(b"]", self._text.at, stop)
            end = stop
            while end > self._text.at and data[end - 1] in _WHITE:
                end -= 1
            if stop < 0 or end == self._text.at:
                return
            if data[end - 1] == _BRACE_END:
                yield end, stop

    def _take(self, records: list[Raw], text: bytes, end: int) -> _Steps:
        """Hand over the records from `_at` to `end`."""
        self._count += len(records)
        self._body.last_end = self._text.base + end
        self._text.at = end
        yield from self._sink.put(records, text)
        yield None

    def _pass(self, end: int) -> None:
        """Read on to `end`, and keep nothing of that part."""
        self._sink.skip(self._text.data[self._text.at : end])
        self._text.at = end

    def _exact(self) -> _Result[bool]:
        """Take some records by their strings and their nesting; return whether they were the last.

        Otherwise a record is next, or an error was found.
        """
        if not self._count and self._text.data[self._text.at : self._text.at + 1] == b"]":
            return True
        spans: list[tuple[int, int]] = []
        start, value = self._text.at, ValueEnd()
        while True:
            found = yield from self._find(value, start)
            end = start + value.position
            gap = _GAP.match(self._text.data, end) if found == "end" else None
            if gap is not None:
                spans.append((start, end))
                is_last = gap[0].endswith(b"]")
                start, value = gap.end() - is_last, ValueEnd()
                if is_last or start - self._text.at >= self._exact_step:
                    yield from self._take_spans(spans, start)
                    return is_last
            elif spans:
                yield from self._take_spans(spans, start)
                return False
            elif found == "malformed" or self._text.ended or self._is_followed(found, end):
                # Some bytes more, because the decoder looks ahead.
                yield from self._text.need(self._text.left + _AHEAD)
                self._fail()
                return False
            else:
                # Nothing was taken, so that `start` is `at`.
                yield from self._text.need(max(self._step + self._near, 2 * self._text.left))
                start = self._text.at
                if found == "end":
                    value = ValueEnd()

    def _fail(self) -> None:
        text = self._text
        rest = memoryview(text.data)[text.at :]
        self._error = self._body.error(rest, text.place, has_records=self._count > 0)

    def _is_followed(self, found: str, end: int) -> bool:
        """Return whether something other than a record, or the end of the list, comes next."""
        part = _PART_OF_GAP.match(self._text.data, end)
        return found == "end" and part is not None and part.end() < len(self._text.data)

    def _take_spans(self, spans: list[tuple[int, int]], following: int) -> _Steps:
        data, first, last = self._text.data, spans[0][0], spans[-1][1]
        text = b"".join((b"[", memoryview(data)[first:last], b"]"))
        try:
            records = _RECORDS.decode(text)
        except FAILURES:
            records = []
            for start, end in spans:
                record = data[start:end]
                try:
                    if is_deep(record) and self._body.deep is None:
                        self._body.deep = self._text.base + start
                except DecodeError:
                    self._text.at = start
                    self._count += len(records)
                    self._fail()
                    return
                records.append(Raw(record))
                if data[end - 1] in b"]}":
                    self._body.last_end = self._text.base + end
                yield None
        ends = (end for _, end in reversed(spans) if data[end - 1] in b"]}")
        last_end = next((self._text.base + end for end in ends), self._body.last_end)
        yield from self._take(records, text, last)
        self._body.last_end = last_end
        self._pass(following)


def _is_records(key: bytes) -> bool:
    try:
        return msgspec.json.decode(key, type=str) == "records"
    except FAILURES:
        return False
