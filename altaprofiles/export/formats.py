"""Names of formats, and of the ways to write to an output."""

from __future__ import annotations

from typing import Literal, TypeAlias

__all__ = ["FileFormat", "Format", "Write"]

FileFormat: TypeAlias = Literal["ndjson", "csv", "parquet", "duckdb"]
"""The formats of files."""

Format: TypeAlias = Literal["ndjson", "csv", "parquet", "duckdb", "postgres"]
"""The formats of outputs."""

Write: TypeAlias = Literal["replace", "upsert", "append"]
"""The ways to write: rows of this export only, rows of the same people updated, or rows added."""
