"""The output of an export, as its caller describes it. Checks nothing."""

from __future__ import annotations

import os
import re

from msgspec import Struct
from msgspec.structs import force_setattr

from ..base.deadline import Deadline
from ..redaction import Secret
from ..tables.layout import Flatten
from .formats import Format, Write

__all__ = ["Output"]


_URL = re.compile("://|^(?:s3|gs|az):/", re.IGNORECASE)
"""Found in a URL, and in one of a bucket that lacks a slash."""


class Output(Struct, frozen=True, kw_only=True):
    """An output as a caller asks for it, before anything of it is checked.

    Attributes:
        to: the path of a file, or the URL of a PostgreSQL table or of a file in a bucket.
        format: the format's name; None for the one that `to` implies.
        table: the name of the table, for formats that have tables; None for the default.
        bom: whether a CSV file is for spreadsheets, as in `Session.export`.
        flatten: keys of `profileData` that get a column each; in a mapping with its type.
        write: "replace", "upsert" or "append"; None for the default of the format.
        resume: whether an unfinished export to this output is resumed; if not, it is discarded.
        spool: an existing folder in which the export makes its own; None for the output's folder.
        sync: the settings of `Session.sync`, for one of its exports; None for any other.
        deadline: the deadline of the whole run, or None.
        command: the command line that resumes it, or None if there is none that can be shown.
    """

    to: str | os.PathLike[str]
    format: Format | None = None
    table: str | None = None
    bom: bool = False
    flatten: Flatten = ()
    write: Write | None = None
    resume: bool = True
    spool: str | os.PathLike[str] | None = None
    deadline: Deadline | None = None
    sync: str | None = None
    command: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.to, str) and _URL.search(self.to):
            # It may hold a password, which tracebacks with locals would show.
            force_setattr(self, "to", Secret(self.to))
