"""Compresses the rows of the first chain while others are still being read.

The first rows of a person count, so that most of that chain stays as it is. What does not is
compressed again at the end.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from ...tables.rows import Table
from ..tables import Origin
from .gzip_pieces import Pieces, StoredPieces
from .target import Sink

__all__ = ["GzipStage"]

logger = logging.getLogger("altaprofiles")


class _MakeSink(Protocol):
    def __call__(self, table: Table, origin: Origin, stored: StoredPieces | None) -> Sink: ...


class GzipStage:
    """The rows of one export. Implements `Stage`.

    Args:
        folder: a folder for the compressed rows.
        text_of: returns the rows of a block as they stand in the output; None if the records
            themselves stand there.
        make_sink: returns the sink, which takes pieces that are compressed.
    """

    is_held = False
    needs_blocks = True

    def __init__(
        self,
        folder: Path,
        text_of: Callable[[bytes], bytes] | None,
        make_sink: _MakeSink,
    ) -> None:
        self.takes_text = text_of is None
        self._folder = folder
        self._text_of = text_of
        self._make_sink = make_sink
        self._pieces = Pieces()
        self._stored: StoredPieces | None = None
        self._is_over = False

    def put(self, block: bytes, chain: int) -> int | None:
        if not self._is_over and chain == 0:
            try:
                if self._stored is None:
                    self._stored = StoredPieces(self._folder)
                text = block if self._text_of is None else self._text_of(block)
                for piece in self._pieces.add(text):
                    self._stored.put(piece)
            except OSError as error:
                logger.debug("no rows are compressed ahead: %s", error)
                self.close()
        return None

    def open(self, table: Table, origin: Origin) -> Sink:
        return self._make_sink(table, origin, self._stored)

    def close(self) -> None:
        self._is_over = True
        stored, self._stored = self._stored, None
        if stored is not None:
            stored.close()
