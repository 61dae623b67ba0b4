"""Compresses rows while others are still being read.

Rows of a person whom an earlier row has brought are not written, and what stands beside them is
compressed again at the end. Of several events, most people come more than once: there only the
first chain is compressed, as the first rows of a person count.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from ...tables.rows import Table
from ..tables import Origin
from .gzip_pieces import Pieces, StoredPieces
from .target import Sink

__all__ = ["GzipStage"]

logger = logging.getLogger("altaprofiles")

_GROWING = 4
"""Chains whose incomplete pieces are kept. Each takes some megabyte, and few chains grow at once.

A chain that is left out and grows again begins a new piece, and soon has the same ones again.
"""


class _MakeSink(Protocol):
    def __call__(self, table: Table, origin: Origin, stored: StoredPieces | None) -> Sink: ...


class GzipStage:
    """The rows of one export. Implements `Stage`.

    Args:
        folder: a folder for the compressed rows.
        first_only: whether only the first chain is compressed.
        text_of: returns the rows of a block as they stand in the output; None if the records
            themselves stand there.
        make_sink: returns the sink, which takes pieces that are compressed.
    """

    is_held = False
    needs_blocks = True

    def __init__(
        self,
        folder: Path,
        first_only: bool,
        text_of: Callable[[bytes], bytes] | None,
        make_sink: _MakeSink,
    ) -> None:
        self.takes_text = text_of is None
        self._folder = folder
        self.first_only = first_only
        self._text_of = text_of
        self._make_sink = make_sink
        self._pieces: OrderedDict[int, Pieces] = OrderedDict()
        self._stored: StoredPieces | None = None
        self._is_over = False

    def put(self, block: bytes, chain: int) -> int | None:
        if not self._is_over and not (self.first_only and chain):
            try:
                if self._stored is None:
                    self._stored = StoredPieces(self._folder)
                text = block if self._text_of is None else self._text_of(block)
                for piece in self._pieces_of(chain).add(text):
                    self._stored.put(piece)
            except OSError as error:
                logger.debug("no rows are compressed ahead: %s", error)
                self.close()
        return None

    def _pieces_of(self, chain: int) -> Pieces:
        pieces = self._pieces.setdefault(chain, Pieces())
        self._pieces.move_to_end(chain)
        if len(self._pieces) > _GROWING:
            self._pieces.popitem(last=False)
        return pieces

    def open(self, table: Table, origin: Origin) -> Sink:
        return self._make_sink(table, origin, self._stored)

    def close(self) -> None:
        self._is_over = True
        stored, self._stored = self._stored, None
        if stored is not None:
            stored.close()
