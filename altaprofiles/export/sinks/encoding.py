"""Rows that are encoded for a sink while others are still being read.

Which of them are written, and with which events, is known only when all records have arrived. So an
encoder keeps rows apart in its blocks, and their events exchangeable. Knows no format.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from ...tables.mended import Mended
from ...tables.rows import Row
from ..store.people import Choice

__all__ = ["MATCHED", "Encoded", "Encoder"]

MATCHED = "matched"
"""The column with the events of a person."""


class Encoder(Protocol):
    """Turns rows into blocks of bytes. Blocking; a sink of the same format takes the blocks."""

    @property
    def mended(self) -> Mended:
        """The values so far that are not as they were, complete after each `take`."""
        ...

    def add(self, rows: Sequence[Row]) -> None:
        """Add rows.

        Raises:
            DecodeError: a record is not a JSON object in UTF-8. It may be raised by `take` as well.
        """
        ...

    def take(self) -> bytes:
        """Return the rows added since the last call as a block.

        Raises:
            DecodeError: as from `add`.
        """
        ...


class Encoded(Struct, frozen=True):
    """A block, and which of its rows are written.

    Attributes:
        block: made by the encoder of the sink's target.
        choice: the rows that are written.
        mended: the values of those that are not as they were.
        matched: the events that each row has in the block.
        staged: the number of its first row in the stage, if that holds them; else None.
    """

    block: memoryview
    choice: Choice
    mended: Mended
    matched: tuple[str, ...] = ()
    staged: int | None = None
