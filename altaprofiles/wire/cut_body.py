"""A CleverTap page without its records, and the places in it, for errors.

Sources:
    [profiles] "Get User Profiles", https://developer.clevertap.com/docs/get-user-profiles-api
"""

from __future__ import annotations

import re
from bisect import bisect_left

from ..base.jsontext import decode_mended, excerpt
from ..errors import DecodeError
from .page import PAGE_BODY, PageBody

__all__ = ["CutBody"]

_BEGINNING = 512
_PLACE = re.compile(r"(\(byte |after byte )([0-9]+)")


class CutBody:
    """The body of a page ([profiles]) as far as it has been read, without its records.

    Its errors are those of the whole body, with the places in it.

    Attributes:
        rest: the text of the body without those records.
        last_end: where the last record that ended with a bracket ended in the body.
        beginning: the first bytes of the body.
    """

    def __init__(self) -> None:
        self.rest = bytearray()
        self.last_end = 0
        self.beginning = b""
        # Where the first record is that is nested too deep for the decoder: in the body, in `rest`.
        self._deep: tuple[int, int] | None = None
        # The places in `rest` where records were, and the number of their bytes until there.
        self._cuts: list[tuple[int, int]] = []

    @property
    def is_cut(self) -> bool:
        """True if there was a list of records."""
        return bool(self._cuts)

    @property
    def excerpt(self) -> str:
        """The first characters of the body."""
        return excerpt(self.beginning)

    def begin_with(self, piece: bytes) -> None:
        """Note a piece of the body, the first ones of which make its excerpt."""
        if len(self.beginning) < _BEGINNING:
            self.beginning += piece[:_BEGINNING]

    def cut(self, length: int) -> None:
        """Note that records of `length` bytes were behind `rest`."""
        before = self._cuts[-1][1] if self._cuts else 0
        self._cuts.append((len(self.rest), before + length))

    def note_deep(self, place: int) -> None:
        """Note that a record at `place` in the body is nested too deep for the decoder."""
        if self._deep is None:
            self._deep = place, len(self.rest)

    def error(self, data: memoryview, place: int, *, has_records: bool) -> DecodeError:
        """Return the error of a body that is malformed in its records.

        Args:
            data: the body from a record on, as far as it has arrived.
            place: where that is in the body.
            has_records: whether records were taken before it from the same list.
        """
        # An empty record stands for all those that were taken.
        before = b"{}," if has_records else b""
        try:
            self._decode(b"".join((self.rest, before, data)), len(before), place)
        except DecodeError as error:
            return error
        return DecodeError("JSON is malformed", path="$", excerpt=self.excerpt)

    def decode(self, size: int) -> PageBody:
        """Return the members of the body, which has `size` bytes.

        Raises:
            DecodeError: the body is not JSON, or not a page ([profiles]).
        """
        return self._decode(bytes(self.rest), 0, size)

    def _decode(self, data: bytes, before: int, place: int) -> PageBody:
        rest = len(self.rest)
        places: list[int] = []

        def moved(match: re.Match[str]) -> str:
            found = int(match[2])
            # An error is at a byte, or behind the last bracket before it.
            if found > rest or (found == rest and match[1] == "(byte "):
                is_before = found < rest + before
                found = self.last_end if is_before else found - rest - before + place
            elif cut := bisect_left(self._cuts, (found, 0)):
                found += self._cuts[cut - 1][1]
            places.append(found)
            return f"{match[1]}{found}"

        def failure(error: DecodeError) -> DecodeError:
            message = _PLACE.sub(moved, error._own)  # noqa: SLF001
            return DecodeError(message, path=error.path, excerpt=self.excerpt)

        try:
            return decode_mended(PAGE_BODY, data, "$")[0]
        except DecodeError as error:
            found = failure(error)
        if self._deep is not None and not self._is_before(places, found, *self._deep):
            try:
                decode_mended(PAGE_BODY, data, "$", deep=True)
            except DecodeError as error:
                found = failure(error)
        raise found

    def _is_before(self, places: list[int], error: DecodeError, deep: int, rest: int) -> bool:
        """Return whether a decoder finds `error` before it comes to the record that is too deep."""
        if places:
            return places[0] < deep
        # An error about a type names no place.
        try:
            decode_mended(PAGE_BODY, bytes(self.rest[:rest]), "$")
        except DecodeError as earlier:
            return (earlier.path, str(earlier)) == (error.path, str(error)) and error.path != "$"
        return False
