"""The files of an output."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet

from altaprofiles.export.outputs import outputs_at

__all__ = ["folder_of", "rows_in_folder"]


def folder_of(to: str, spool: Path | None = None) -> Path:
    """Return the folder of the unfinished exports of an output, whether or not it is there.

    The other files of the output begin with its name, but for the ending.
    """
    named = None if spool is None else str(spool)
    [state] = outputs_at(to, table=None, spool=named, elsewhere=True)
    return state.folder


def rows_in_folder(folder: Path) -> int:
    """Return the number of rows in the Parquet files of a folder."""
    return sum(pyarrow.parquet.read_metadata(path).num_rows for path in folder.glob("*.parquet"))
