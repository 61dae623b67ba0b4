"""Takes the records of a CleverTap page apart while they arrive.

Sources:
    [profiles] "Get User Profiles", https://developer.clevertap.com/docs/get-user-profiles-api
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import Protocol

import msgspec
from msgspec import Raw

from ..base.json_pieces import Arriving, Result, Steps, ValueEnd
from ..base.jsontext import FAILURES, is_deep
from ..errors import DecodeError, ResponseTooLarge
from ..flow.slices import Slices
from .cut_body import CutBody

__all__ = ["RecordList", "RecordSink", "part_too_large"]

_TRIES = 3
_GUESSES = 3
"""Slices in a row whose end may be guessed in vain, before no more are guessed."""

_AHEAD = 16
_WHITE = b" \t\n\r"
_BRACE_END = ord("}")
_STRING = rb'"(?:[^"\\]|\\.)*+"'
_SPACE = re.compile(rb"[ \t\n\r]*+")
_FIRST_KEY = re.compile(rb"\{[ \t\n\r]*+" + _STRING + rb"[ \t\n\r]*+:", re.DOTALL)
_BETWEEN = re.compile(rb"\}[ \t\n\r]*+,[ \t\n\r]*+(?=\{)")
_GAP = re.compile(rb"[ \t\n\r]*+(?:\]|,[ \t\n\r]*+(?=[^ \t\n\r]))")
_PART_OF_GAP = re.compile(rb"[ \t\n\r]*+(?:,[ \t\n\r]*+)?+")
_RECORDS = msgspec.json.Decoder(list[Raw])


def part_too_large(limit: int) -> ResponseTooLarge:
    """Return the error of a page ([profiles]) with a record, or the rest, over `limit` bytes."""
    return ResponseTooLarge(
        f"a part of the response, such as one record, is over {limit:,} bytes; raise "
        f"`max_response_bytes`, or ask for less of each record (`event_summaries=False`)",
        limit=limit,
    )


class RecordSink(Protocol):
    """Takes the records of a page ([profiles]), in order, before all of the page has arrived.

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


class RecordList:
    """Takes a list of records ([profiles], Sample Response).

    A slice of records is cut where the next record seems to begin, and parsed as a list of its own.
    If it parses, it ends with a record, because brackets or quotes do not balance where a record is
    cut. If it does not, the end of each record is found by its strings and its nesting.

    Args:
        text: the body. At its place, the list begins.
        body: gets all of the body but the records.
        sink: gets the records.
        step: bytes parsed without a pause.
        limit: most bytes of one record.

    Attributes:
        count: number of records so far.
        error: the error of a list that is malformed.
    """

    def __init__(
        self, text: Arriving, body: CutBody, sink: RecordSink, step: int, limit: int
    ) -> None:
        self.count = 0
        self.error: DecodeError | None = None
        self._text = text
        self._body = body
        self._sink = sink
        self._step = step
        self._limit = limit
        self._near = step // 8
        # Following the structure takes four times as long.
        self._exact_step = step // 4
        self._guesses = _GUESSES
        self._likely: re.Pattern[bytes] | None = None

    def keep(self, end: int) -> None:
        """Read on to `end`, and keep that part of the body."""
        part = self._text.data[self._text.at : end]
        self._body.rest += part
        self._sink.skip(part)
        self._text.at = end

    def read(self) -> Result[bool]:
        """Read the list of records; return whether it has an end."""
        if self._body.is_cut:
            self._sink.clear()
        self.count = 0
        self.keep(self._text.at + 1)
        begin = self._text.place
        is_over = False
        while not is_over:
            yield from self._text.need(self._step + self._near)
            if not self.count and (space := _SPACE.match(self._text.data, self._text.at)):
                self._pass(space.end())
            guessed = yield from self._guess()
            if guessed is None:
                guessed = yield from self._exact()
            if self.error is not None:
                return False
            is_over = guessed
        self._body.cut(self._text.place - begin)
        self.keep(self._text.at + 1)
        return True

    def _guess(self) -> Result[bool | None]:
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

    def _take(self, records: list[Raw], text: bytes, end: int) -> Steps:
        """Hand over the records from `_at` to `end`."""
        if len(text) > self._limit and any(memoryview(one).nbytes > self._limit for one in records):
            raise part_too_large(self._limit)
        self.count += len(records)
        self._body.last_end = self._text.base + end
        self._text.at = end
        yield from self._sink.put(records, text)
        yield None

    def _pass(self, end: int) -> None:
        """Read on to `end`, and keep nothing of that part."""
        self._sink.skip(self._text.data[self._text.at : end])
        self._text.at = end

    def _exact(self) -> Result[bool]:
        """Take some records by their strings and their nesting; return whether they were the last.

        Otherwise a record is next, or an error was found.
        """
        if not self.count and self._text.data[self._text.at : self._text.at + 1] == b"]":
            return True
        spans: list[tuple[int, int]] = []
        start, value = self._text.at, ValueEnd()
        while True:
            found = yield from self.find(value, start)
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
        self.error = self._body.error(rest, text.place, has_records=self.count > 0)

    def _is_followed(self, found: str, end: int) -> bool:
        """Return whether something other than a record, or the end of the list, comes next."""
        part = _PART_OF_GAP.match(self._text.data, end)
        return found == "end" and part is not None and part.end() < len(self._text.data)

    def _take_spans(self, spans: list[tuple[int, int]], following: int) -> Steps:
        data, first, last = self._text.data, spans[0][0], spans[-1][1]
        text = b"".join((b"[", memoryview(data)[first:last], b"]"))
        try:
            records = _RECORDS.decode(text)
        except FAILURES:
            records = []
            for start, end in spans:
                record = data[start:end]
                try:
                    if is_deep(record):
                        self._body.note_deep(self._text.base + start)
                except DecodeError:
                    self._text.at = start
                    self.count += len(records)
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

    def find(self, value: ValueEnd, start: int) -> Result[str]:
        """Look for the end of the value at `start` in the data that is there."""
        while True:
            stop = min(len(self._text.data), start + value.position + self._exact_step)
            found = value.find(self._text.data, start, stop)
            if found != "more" or stop == len(self._text.data):
                return found
            yield None
