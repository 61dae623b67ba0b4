"""Pages in memory: their records, decoded or not, as they come out of a body.

Sources:
    [profiles] "Get User Profiles", https://developer.clevertap.com/docs/get-user-profiles-api
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from msgspec import Raw

from ..base.jsontext import excerpt
from ..errors import DecodeError
from ..flow.slices import Pace, Slices
from ..models import Page, Profile
from ..models.page import Text

__all__ = ["Pages", "check_objects"]

_BRACE = ord("{")
_EACH = 2048  # bytes that take as long to decode as the fixed cost of one record
_TURN = 1 << 19  # bytes decoded without a pause


def check_objects(records: Iterable[Raw], count: int) -> DecodeError | None:
    """Return the error of the first of `records` that is not an object ([profiles]), or None.

    Args:
        records: records that are passed on undecoded. They must fail here, where the page can be
            asked for again.
        count: number of records on the page before them.
    """
    for number, record in enumerate(records, count):
        if memoryview(record)[0] != _BRACE:
            return DecodeError(
                "Expected `object`", path=f"$.records[{number}]", excerpt=excerpt(bytes(record))
            )
    return None


class Pages:
    """Makes a `Page` ([profiles]): the `PageSink` of whole pages.

    Args:
        decode: whether to decode the profiles as well.
        keep: whether `Page.raw` is wanted.
        raw: the body, if all of it is in memory already.
    """

    in_memory = True
    is_full = False

    def __init__(self, *, decode: bool, keep: bool = True, raw: bytes | None = None) -> None:
        self.count = 0
        self._decode = decode
        self._keep = keep and raw is None
        self._raw = raw
        self._records: list[Raw | bytes] = []
        self._profiles: list[Profile] = []
        self._text = Text()
        self._whole: bytes | None = None
        self._error: DecodeError | None = None

    def put(self, records: list[Raw], text: bytes, *, whole: bool = False) -> Slices[None]:
        self._whole = text if whole else None
        if self._error is not None:
            return
        if self._decode:
            own = [*map(bytes, records)]
            yield from self._decode_all(own)
            if not self._keep:
                self._text.count(text)
            elif not whole and self._error is None:
                self._text.add_records(own, _gaps(own, text), text)
            self._records += own
        else:
            self._error = check_objects(records, self.count)
            self._records += records
            if not whole and self._keep:
                self._text.add_list(text)
        self.count += len(records)

    def _decode_all(self, records: list[bytes]) -> Slices[None]:
        undivided = 0
        pace = Pace()
        profiles = self._profiles
        for record in records:
            try:
                profiles.append(Profile.decode(record))
            except DecodeError:
                # Again with its path, which is left out at first because it costs a tenth more.
                try:
                    profiles.append(Profile.decode(record, f"$.records[{len(profiles)}]"))
                except DecodeError as error:
                    self._error = error
                    return
            undivided += _EACH + len(record)
            if undivided >= _TURN or pace.is_over():
                yield
                undivided = 0
                pace.restart()

    def skip(self, text: bytes) -> None:
        if self._keep:
            self._text.add(text)

    def clear(self) -> None:
        self.count = 0
        self._records = []
        self._profiles = []
        self._error = None

    async def drain(self) -> None:
        pass

    def close(self) -> None:
        self.clear()

    def page(self, cursor: str, next_cursor: str | None, window: tuple[int, int] | None) -> Page:
        if self._error is not None:
            raise self._error
        raw = self._raw or self._whole or self._text
        page = Page(self._records, raw, cursor, next_cursor, window)
        if self._decode:
            page.__dict__["profiles"] = self._profiles
        return page


_GAP = re.compile(rb"[ \t\n\r]*+,[ \t\n\r]*+")


def _gaps(records: list[bytes], text: bytes) -> list[bytes] | None:
    """Return the text between the records of a list in brackets, or None if it is commas alone."""
    if sum(map(len, records)) + len(records) + 1 == len(text):
        return None
    return [*_walk(records, text)]


def _walk(records: list[bytes], text: bytes) -> Iterator[bytes]:
    at = 1
    for record in records[:-1]:
        gap = _GAP.match(text, at + len(record))
        assert gap is not None  # noqa: S101
        yield gap[0]
        at = gap.end()
