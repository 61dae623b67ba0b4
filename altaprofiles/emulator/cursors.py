"""Cursors: the text that stands for a page of a chain, and a strict parser for it."""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote, unquote_to_bytes

if TYPE_CHECKING:
    from .dice import Dice

__all__ = ["CHAIN_KEY_BYTES", "Cursors", "Place"]

CHAIN_KEY_BYTES = 9
_PARAMETER = "cursor="
_MARKER = b"\xff\xef\xbe"  # written as %2F%2B%2B%2B, so that every cursor holds escapes


class Place(NamedTuple):
    """A page of a chain. `hop` is 1 for the page after one that a fault emptied, else 0."""

    chain: bytes
    page: int
    hop: int = 0

    @property
    def name(self) -> bytes:
        """Bytes that identify this page among all pages."""
        return self.chain + _MARKER + self.page.to_bytes(4, "big") + self.hop.to_bytes(1, "big")


class Cursors:
    """Writes cursors and reads them back, from the seed alone and without a list of them."""

    def __init__(self, dice: Dice) -> None:
        self._dice = dice

    def write(self, place: Place) -> str:
        """Return the cursor of a page: percent-encoded base64 of 60 to 2,400 characters."""
        share = self._dice.share("cursor", place)
        length = 24 + int(share * 50) if share < 0.8 else 100 + int((share - 0.8) * 7500)
        # Never a multiple of three bytes, so that every cursor ends in %3D.
        length += (len(place.name) + length) % 3 == 0
        return quote(b64encode(place.name + self._dice.filler(length, place)), safe="")

    def read(self, target: str) -> Place | None:
        """Return the page that a raw request target names, or None if its cursor is not exact.

        Any percent-encoding of the same text will do, as on any HTTP server: `%2f` for `%2F`, or a
        bare `/`. A bare `+` is a blank, as in forms. What is encoded twice is another text. Other
        parameters are ignored.
        """
        pairs = target.partition("?")[2].split("&")
        sent = [pair.removeprefix(_PARAMETER) for pair in pairs if pair.startswith(_PARAMETER)]
        if len(sent) != 1:
            return None
        text = unquote_to_bytes(sent[0].replace("+", " "))
        try:
            raw = b64decode(text, validate=True)
        except ValueError:
            return None
        rest = raw[CHAIN_KEY_BYTES + len(_MARKER) :]
        if len(rest) < 5:
            return None
        place = Place(raw[:CHAIN_KEY_BYTES], int.from_bytes(rest[:4], "big"), rest[4])
        return place if unquote_to_bytes(self.write(place)) == text else None
