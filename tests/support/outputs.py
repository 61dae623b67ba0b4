"""The names that the library gives to the files of an output."""

from __future__ import annotations

from pathlib import Path

from altaprofiles.export.outputs import outputs_at

__all__ = ["folder_of"]


def folder_of(to: str, spool: Path | None = None) -> Path:
    """Return the folder of the unfinished exports of an output, whether or not it is there.

    The other files of the output begin with its name, but for the ending.
    """
    named = None if spool is None else str(spool)
    [state] = outputs_at(to, table=None, spool=named, elsewhere=True)
    return state.folder
