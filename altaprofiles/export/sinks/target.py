"""What every target and every sink is. No format is known here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Protocol

from msgspec import Struct

from ...tables.kinds import Kinds

__all__ = ["Sink", "Target"]


class Sink(Protocol):
    """Takes an export's records. Everything blocks; one call at a time, from any thread."""

    @property
    def mended(self) -> int:
        """How many values the target cannot hold, and have something else in their place."""
        ...

    @property
    def repeated(self) -> int:
        """How many records it has left out, known once it is closed: a table of people holds each
        of them once."""
        ...

    def write(self, records: Sequence[bytes]) -> None:
        """Add records, each a JSON object on one line without its line break.

        Raises:
            OSError: of the disk, as it comes.
            ExportError: a database refuses.
            DecodeError: a record is no JSON object in UTF-8.
        """
        ...

    def close(self) -> None:
        """Make everything durable and visible under the target's name.

        Raises:
            OSError, ExportError, DecodeError: as `write` does.
        """
        ...

    def abort(self) -> None:
        """Drop everything; the target stays what it was. Never raises, whatever failed before."""
        ...


class Target(Struct, frozen=True, kw_only=True):
    """Where an export goes, and how it is laid out.

    Attributes:
        name: what a person is shown: the path, or the URL without user and password.
        path: the file; None for a database server.
        flatten: keys of `profileData` that get a column each.
        format: "ndjson", "csv", "parquet", "duckdb" or "postgres".
    """

    format: ClassVar[str]

    name: str
    path: Path | None = None
    flatten: tuple[str, ...] = ()

    @property
    def typed_flatten(self) -> bool:
        """Whether `open` needs kinds that have looked at every record."""
        return False

    def check(self) -> None:
        """Find out whether the target can be written to, and change nothing. Blocks.

        Raises:
            ExportError: it cannot; the message says why.
        """
        raise NotImplementedError

    def open(self, kinds: Kinds) -> Sink:
        """Begin a sink. Blocks.

        Args:
            kinds: only looked at with `typed_flatten`.

        Raises:
            OSError, ExportError: it cannot be begun.
        """
        raise NotImplementedError
