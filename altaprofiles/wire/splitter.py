"""Takes the body of a CleverTap page apart while it arrives: its records, and the small rest.

Sources:
    [profiles] "Get User Profiles", https://developer.clevertap.com/docs/get-user-profiles-api
"""

from __future__ import annotations

import codecs
import re
from bisect import bisect_left
from collections.abc import Generator, Iterator
from contextlib import suppress
from itertools import islice
from typing import Any, Protocol, TypeAlias, TypeVar

import msgspec
from msgspec import Raw

from ..base.json_pieces import Utf8, ValueEnd
from ..base.jsontext import FAILURES, decode_mended, excerpt, is_deep
from ..errors import DecodeError, ResponseTooLarge
from ..flow.slices import Slices
from .page import PAGE_BODY, PageBody

__all__ = ["SLICE", "RecordSink", "Splitter"]

T = TypeVar("T")

SLICE = 1 << 19
"""Bytes decoded without a pause, which takes about a millisecond."""


_MORE = object()
_Steps: TypeAlias = Generator[Any, None, None]
_Result: TypeAlias = Generator[Any, None, T]

_BEGINNING = 512
_TRIES = 3
_GUESSES = 3
"""Slices whose end may be guessed in vain, before no more are guessed."""
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
_PLACE = re.compile(r"(\(byte |after byte )([0-9]+)")


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
        beginning: its first bytes.
    """

    def __init__(self, sink: RecordSink, limit: int, step: int = SLICE) -> None:
        self.size = 0
        self.beginning = b""
        self._sink = sink
        self._limit = limit
        self._step = step
        self._near = step // 8
        # Following the structure takes four times as long.
        self._exact_step = step // 4
        self._utf8 = Utf8()
        # Until it is known whether it is a byte-order mark.
        self._first: bytes | None = b""
        self._arrived: list[bytes] = []
        self._waiting = self._wanted = self._ignored = 0
        self._is_urgent = self._ended = False
        self._data = b""
        self._at = 0
        self._base = 0
        """Where `_data` begins in the body."""
        self._rest = bytearray()
        """The body as far as it has been read, without its records."""
        self._cuts: list[tuple[int, int]] = []
        """Where records were cut out of `_rest`, and how many bytes until there."""
        self._count = 0
        self._last_end = 0
        self._deep: int | None = None
        """Where the first record is that is nested too deep for the decoder."""
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
            self._first = piece if len(piece) < len(codecs.BOM_UTF8) and not self._ended else None
            if self._first is not None:
                return
            piece = piece.removeprefix(codecs.BOM_UTF8)
        self.size += len(piece)
        if len(self.beginning) < _BEGINNING:
            self.beginning += piece[:_BEGINNING]
        if self._sink.in_memory and self.size > self._limit:
            raise self._too_large("the response")
        self._utf8.feed(piece)
        self._arrived.append(piece)
        self._waiting += len(piece)
        if (failure := self._failure) is not None:
            # Nothing more is believed. It only matters whether the rest arrives.
            self._ignored += self._waiting
            self._drop()
            if self._ignored > self._limit:
                raise failure
            return
        is_urgent = self._held > self._limit
        if is_urgent or self._waiting >= self._wanted:
            self._is_urgent = is_urgent
            yield from self._advance()
            if self._held > self._limit:
                raise self._too_large("a part of the response")

    @property
    def _failure(self) -> DecodeError | None:
        """The error of the body so far. Bytes that are not UTF-8 outrank what they make of it."""
        if self._utf8.error is not None:
            return DecodeError(self._utf8.error, path="$", excerpt=self.excerpt)
        if self._error is not None:
            # More of the beginning may have arrived since.
            self._error.excerpt = self.excerpt
        return self._error

    @property
    def _held(self) -> int:
        return len(self._rest) + len(self._data) - self._at + self._waiting

    def _drop(self) -> None:
        self._arrived.clear()
        self._waiting = self._at = 0
        self._data = b""
        self._rest.clear()

    def _too_large(self, subject: str) -> ResponseTooLarge:
        return ResponseTooLarge(
            f"{subject} is over {self._limit:,} bytes; ask for less (a smaller batch_size, "
            f"events=False) or raise max_response_bytes",
            limit=self._limit,
        )

    def _advance(self) -> Slices[None]:
        for step in self._steps:
            if step is _MORE:
                return
            yield

    def end(self) -> Slices[tuple[bytes, PageBody | None]]:
        """Return the body without the records that were taken, and its members.

        A small body is returned with its records, and an unusual one as it is, with None.

        Raises:
            DecodeError: the body is not UTF-8, or not JSON.
        """
        self._ended = True
        if self._first:
            yield from self.feed(b"")
        self._utf8.end()
        if self._failure is None:
            yield from self._advance()
        if (failure := self._failure) is not None:
            raise failure
        rest = bytes(self._rest)
        if not self._cuts:
            return rest, self._whole
        return rest, self._decoded(rest, len(rest), 0)

    @property
    def is_apart(self) -> bool:
        """Whether records were taken."""
        return bool(self._cuts)

    @property
    def excerpt(self) -> str:
        """The first characters of the body."""
        return excerpt(self.beginning)

    # ------------------------------------------------------------------------------- the members

    def _need(self, size: int) -> _Steps:
        """Wait until `size` bytes from `_at` on are there, or as many as there will be."""
        self._wanted = size - (len(self._data) - self._at)
        while self._waiting < self._wanted and not self._ended and not self._is_urgent:
            yield _MORE
        self._is_urgent = False
        if self._arrived:
            self._base += self._at
            self._data = b"".join((memoryview(self._data)[self._at :], *self._arrived))
            self._at = self._waiting = 0
            self._arrived.clear()

    def _split(self) -> _Steps:
        yield from self._need(2 * self._step)
        if self._ended:
            # A small body, as of most answers.
            with suppress(*FAILURES):
                self._whole = PAGE_BODY.decode(self._data)
        if self._whole is None:
            yield from self._members()
        while not self._ended and self._error is None:
            self._keep(len(self._data))
            yield from self._need(self._step)
        if self._error is None:
            self._keep(len(self._data))

    def _keep(self, end: int) -> None:
        """Read on to `end`, and keep that part."""
        part = self._data[self._at : end]
        self._rest += part
        self._sink.skip(part)
        self._at = end

    def _members(self) -> _Steps:
        """Read the members of the object, as far as it is one."""
        opened = bool((yield from self._match(_OPENING, _SPACE)))
        while opened:
            key = yield from self._match(_KEY, _PART_OF_KEY)
            if not key:
                return
            if self._data[self._at] == _BRACKET and _is_records(key):
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
            match = pattern.match(self._data, self._at)
            if match is not None:
                self._keep(match.end())
                return match[1]
            start = part.match(self._data, self._at)
            rest = len(self._data) - self._at
            if self._ended or (start is not None and start.end() < len(self._data)):
                return b""
            yield from self._need(max(self._step, 2 * rest))

    def _skip(self) -> _Result[bool]:
        """Read a value that is kept; return whether it has an end."""
        value = ValueEnd()
        while True:
            found = yield from self._find(value, self._at)
            if found != "more":
                self._keep(self._at + value.position)
                return found == "end"
            if self._ended:
                return False
            yield from self._need(max(self._step, 2 * (len(self._data) - self._at)))

    def _find(self, value: ValueEnd, start: int) -> _Result[str]:
        """Look for the end of the value at `start` in the data that is there."""
        while True:
            stop = min(len(self._data), start + value.position + self._exact_step)
            found = value.find(self._data, start, stop)
            if found != "more" or stop == len(self._data):
                return found
            yield None

    # ------------------------------------------------------------------------------- the records

    def _records(self) -> _Result[bool]:
        """Read the list of records; return whether it has an end."""
        if self._cuts:
            self._sink.clear()
        self._count = 0
        self._keep(self._at + 1)
        begin = self._base + self._at
        is_over = False
        while not is_over:
            yield from self._need(self._step + self._near)
            if not self._count and (space := _SPACE.match(self._data, self._at)):
                self._pass(space.end())
            guessed = yield from self._guess()
            if guessed is None:
                guessed = yield from self._exact()
            if self._error is not None:
                return False
            is_over = guessed
        before = self._cuts[-1][1] if self._cuts else 0
        self._cuts.append((len(self._rest), before + self._base + self._at - begin))
        self._keep(self._at + 1)
        return True

    def _guess(self) -> _Result[bool | None]:
        """Take a slice of records. Return whether it was the last one, or None if none is found."""
        data, at = self._data, self._at
        if not self._guesses:
            return None
        for end, following in self._last_cuts() if self._ended else self._cuts_near():
            text = b"".join((b"[", memoryview(data)[at:end], b"]"))
            try:
                records = _RECORDS.decode(text)
            except FAILURES:
                yield None
                continue
            yield from self._take(records, text, end)
            self._pass(following)
            return self._ended
        if self._ended or len(data) - at > self._near:
            # Where it fails at all, it mostly fails again.
            self._guesses -= 1
        return None

    def _cuts_near(self) -> Iterator[tuple[int, int]]:
        """Yield possible ends of a slice, the likeliest first, and where the next record begins."""
        data, at = self._data, self._at
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
        data, stop = self._data, len(self._data)
        for _ in range(_TRIES):
            stop = data.rfind(b"]", self._at, stop)
            end = stop
            while end > self._at and data[end - 1] in _WHITE:
                end -= 1
            if stop < 0 or end == self._at:
                return
            if data[end - 1] == _BRACE_END:
                yield end, stop

    def _take(self, records: list[Raw], text: bytes, end: int) -> _Steps:
        """Hand over the records from `_at` to `end`."""
        self._count += len(records)
        self._last_end = self._base + end
        self._at = end
        yield from self._sink.put(records, text)
        yield None

    def _pass(self, end: int) -> None:
        """Read on to `end`, and keep nothing of that part."""
        self._sink.skip(self._data[self._at : end])
        self._at = end

    def _exact(self) -> _Result[bool]:
        """Take some records by their strings and their nesting; return whether they were the last.

        Otherwise a record is next, or an error was found.
        """
        if not self._count and self._data[self._at : self._at + 1] == b"]":
            return True
        spans: list[tuple[int, int]] = []
        start, value = self._at, ValueEnd()
        while True:
            found = yield from self._find(value, start)
            end = start + value.position
            gap = _GAP.match(self._data, end) if found == "end" else None
            if gap is not None:
                spans.append((start, end))
                is_last = gap[0].endswith(b"]")
                start, value = gap.end() - is_last, ValueEnd()
                if is_last or start - self._at >= self._exact_step:
                    yield from self._take_spans(spans, start)
                    return is_last
            elif spans:
                yield from self._take_spans(spans, start)
                return False
            elif found == "malformed" or self._ended or self._is_followed(found, end):
                # Some bytes more, because the decoder looks ahead.
                yield from self._need(len(self._data) - self._at + _AHEAD)
                self._error = self._malformed()
                return False
            else:
                yield from self._need(max(self._step + self._near, 2 * (len(self._data) - start)))
                start = self._at
                if found == "end":
                    value = ValueEnd()

    def _is_followed(self, found: str, end: int) -> bool:
        """Return whether something other than a record, or the end of the list, comes next."""
        part = _PART_OF_GAP.match(self._data, end)
        return found == "end" and part is not None and part.end() < len(self._data)

    def _take_spans(self, spans: list[tuple[int, int]], following: int) -> _Steps:
        data, first, last = self._data, spans[0][0], spans[-1][1]
        text = b"".join((b"[", memoryview(data)[first:last], b"]"))
        try:
            records = _RECORDS.decode(text)
        except FAILURES:
            records = []
            for start, end in spans:
                record = data[start:end]
                try:
                    if is_deep(record) and self._deep is None:
                        self._deep = self._base + start
                except DecodeError:
                    self._at = start
                    self._count += len(records)
                    self._error = self._malformed()
                    return
                records.append(Raw(record))
                if data[end - 1] in b"]}":
                    self._last_end = self._base + end
                yield None
        ends = (end for _, end in reversed(spans) if data[end - 1] in b"]}")
        last_end = next((self._base + end for end in ends), self._last_end)
        yield from self._take(records, text, last)
        self._last_end = last_end
        self._pass(following)

    # --------------------------------------------------------------------------------- the error

    def _malformed(self) -> DecodeError:
        """Return the error of the body, which is malformed at `_at` or behind it."""
        # An empty record stands for all those that were taken.
        before = b"{}," if self._count else b""
        rest = len(self._rest)
        data = b"".join((self._rest, before, memoryview(self._data)[self._at :]))
        try:
            self._decoded(data, rest, len(before))
        except DecodeError as error:
            return error
        return DecodeError("JSON is malformed", path="$", excerpt=self.excerpt)

    def _decoded(self, data: bytes, rest: int, before: int) -> PageBody:
        """Return the members of a body without records, or raise the error of the whole one.

        Args:
            data: `_rest`, what stands for records, and what is behind them.
            rest, before: the lengths of the first two.
        """
        places: list[int] = []

        def moved(match: re.Match[str]) -> str:
            place = int(match[2])
            # An error is at a byte, or behind the last bracket before it.
            if place > rest or (place == rest and match[1] == "(byte "):
                is_before = place < rest + before
                place = self._last_end if is_before else place - rest - before + self._place
            elif cut := bisect_left(self._cuts, (place, 0)):
                place += self._cuts[cut - 1][1]
            places.append(place)
            return f"{match[1]}{place}"

        def failure(error: DecodeError) -> DecodeError:
            message = _PLACE.sub(moved, error._own)  # noqa: SLF001
            return DecodeError(message, path=error.path, excerpt=self.excerpt)

        try:
            return decode_mended(PAGE_BODY, data, "$")[0]
        except DecodeError as error:
            found = failure(error)
        if self._deep is not None and not (places and places[0] < self._deep):
            try:
                decode_mended(PAGE_BODY, data, "$", deep=True)
            except DecodeError as error:
                found = failure(error)
        raise found

    @property
    def _place(self) -> int:
        return self._base + self._at


def _is_records(key: bytes) -> bool:
    try:
        return msgspec.json.decode(key, type=str) == "records"
    except FAILURES:
        return False
