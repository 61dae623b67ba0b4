"""Names of formats, and of the ways to write to an output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias, TypeVar

from ..base.checks import unknown
from ..base.wording import one_of
from ..errors import InvalidArgument

__all__ = ["FileFormat", "Format", "Write", "checked_format"]

FileFormat: TypeAlias = Literal["ndjson", "csv", "parquet", "duckdb"]
"""The formats of files."""

Format: TypeAlias = Literal["ndjson", "csv", "parquet", "duckdb", "postgres"]
"""The formats of outputs."""

Write: TypeAlias = Literal["replace", "upsert", "append"]
"""The ways to write: rows of this export only, rows of the same people updated, or rows added."""

F = TypeVar("F", bound=str)


def checked_format(
    format: object, known: Sequence[F], offered: Sequence[F] | None = None
) -> F | None:
    """Return an argument `format`; raise `InvalidArgument` unless it is None or a known name.

    Args:
        format: the argument.
        known: all names.
        offered: those that the message names; by default all.
    """
    if format is None:
        return None
    if isinstance(format, str) and format in known:
        return known[known.index(format)]
    raise InvalidArgument(
        f"format: {unknown(format, 'format')}; use one of {one_of(offered or known, format)}"
    )
