"""The interfaces that every format implements. Knows no format."""

from __future__ import annotations

import os
import stat
from collections.abc import Container, Sequence
from datetime import date
from pathlib import Path
from typing import BinaryIO, ClassVar, Protocol, Self, TypedDict, runtime_checkable

from msgspec import Struct

from ...base.checks import shown
from ...base.extras import require
from ...base.paths import absolute_path, status_of
from ...base.wording import numbered
from ...errors import ExportError, InvalidArgument
from ...tables.layout import Column, Kind
from ...tables.mended import Mended
from ...tables.rows import Row, Table
from ..formats import Format, Write
from ..output import Output
from ..state import SyncState
from ..tables import Content, Origin
from .compression import check_compression
from .encoding import Encoded, Encoder
from .files import check_place
from .remote import Remote

__all__ = [
    "BlockSink",
    "FileSink",
    "FileTarget",
    "Layout",
    "Sink",
    "Stage",
    "Target",
    "check_parent",
]


class Sink(Protocol):
    """Takes the rows of one export. Every call blocks; one call at a time, from any thread."""

    @property
    def mended(self) -> Mended:
        """The values that the target cannot hold as they were."""
        ...

    @property
    def absorbed(self) -> int:
        """The number of rows of earlier runs that became rows of other people. Known at the end."""
        ...

    @property
    def notes(self) -> Sequence[str]:
        """Sentences on what has happened to a table, for the report. Known at the end."""
        ...

    @property
    def earlier_columns(self) -> Container[str]:
        """The columns that rows of earlier runs have, and which may have values in them.

        Known at the end. A table without rows has none.
        """
        ...

    def write(self, rows: Sequence[Row]) -> None:
        """Add rows.

        In a target that `replaces_keys`, a row without cells deletes the rows of its key.

        Raises:
            OSError: the disk refuses, raised as it comes.
            ExportError: the database refuses.
            DecodeError: a record is not a JSON object in UTF-8.
        """
        ...

    def close(self) -> BinaryIO | None:
        """Make all rows durable and visible under the target's name.

        Returns:
            The file, open for reading at its start, which the caller closes; None for a database
            server.

        Raises:
            OSError, ExportError, DecodeError: as from `write`.
        """
        ...

    def abort(self) -> None:
        """Drop all rows and leave the target as it was. Never raises, even after a failure."""
        ...


@runtime_checkable
class BlockSink(Sink, Protocol):
    """Takes rows that the encoder of its target has encoded, too."""

    def takes(self, columns: Sequence[Column]) -> bool:
        """Return whether it takes blocks of rows with these columns."""
        ...

    def put(self, encoded: Encoded) -> None:
        """Add rows that the target's encoder has encoded.

        Raises:
            OSError, ExportError: as from `write`.
        """
        ...


@runtime_checkable
class FileSink(Sink, Protocol):
    """Writes the lines of records, so that a file with all of them can become the output."""

    def adopt(self, path: Path, length: int) -> BinaryIO | None:
        """Make a file the output instead of rows that are written; otherwise as `close`.

        Args:
            path: the file, which keeps its own name as well.
            length: its length in bytes.

        Returns:
            The file, open for reading; None if the system cannot do that, and rows have to be
            written.
        """
        ...


class Stage(Protocol):
    """Takes encoded rows to where a sink needs them, while others are still being read.

    A shortcut only: it may fail at any time, and the sink then takes the blocks. Every call blocks;
    one call at a time, from any thread.
    """

    @property
    def is_held(self) -> bool:
        """True if the sink that was opened last has the staged rows."""
        ...

    @property
    def takes_text(self) -> bool:
        """True if it takes records as text, instead of blocks."""
        ...

    @property
    def needs_blocks(self) -> bool:
        """True if the sink needs the blocks of staged rows as well."""
        ...

    @property
    def first_only(self) -> bool:
        """True if only rows of the first chain are of use."""
        ...

    def put(self, block: bytes, chain: int) -> int | None:
        """Add rows behind those of their chain; return the number of the first one.

        Args:
            block: made by an encoder of the target; for one that `takes_text`, any part of it.
            chain: the place of their chain among all chains.

        Returns:
            None if there are no staged rows for a sink.
        """
        ...

    def open(self, table: Table, origin: Origin) -> Sink:
        """Do the same as `Target.open`, for a sink that has the staged rows if it can be."""
        ...

    def close(self) -> None:
        """Drop the rows, unless a sink has them. Never raises."""
        ...


class Layout(TypedDict):
    """Attributes of every target, of the same names."""

    content: Content
    write: Write
    flatten: dict[str, Kind | None]


class Target(Struct, frozen=True, kw_only=True):
    """The place of an export's output, and its layout.

    The class variables are all that `resolve` needs to know about a format.

    Attributes:
        format: the format's name.
        endings: file endings that imply the format.
        schemes: URL schemes that imply the format. Only a URL is accepted if there are any.
        compresses: whether a compression's ending may follow one of `endings`.
        uploads: whether the file can be one in a bucket.
        extra: the extra that brings the modules of the format, or None.
        options: the options of `Output` that apply: any of "table", "bom" and "flatten".
        writes: the ways to write, the default first.
        patience: the longest wait, in seconds, for a target that is in use when it is opened.
        has_columns: whether rows have columns.
        has_types: whether flattened columns have the type of their values, instead of text.
        by_day: whether people are told apart by day, so that each window of a plan must be a day.
        encodes: whether rows can be encoded before the sink is open, which is a `BlockSink`.
        name: the target in messages and reports: its path, or its URL without user and password.
        path: the file; None for a database server.
        spellings: the name in the spelling that files of new outputs have, then in those that
            files of earlier runs may have, in the order in which they are looked for; none for a
            file.
        content: the kind of rows.
        write: "replace" for rows of this export only, "upsert" to update those of the same people,
            "append" to add rows.
        flatten: keys of `profileData` that get a column each, with its type where one is named.
    """

    format: ClassVar[Format]
    endings: ClassVar[tuple[str, ...]] = ()
    schemes: ClassVar[tuple[str, ...]] = ()
    compresses: ClassVar[bool] = False
    uploads: ClassVar[bool] = False
    extra: ClassVar[str | None] = None
    options: ClassVar[frozenset[str]] = frozenset()
    writes: ClassVar[tuple[Write, ...]] = ("replace",)
    patience: ClassVar[float] = 0
    has_columns: ClassVar[bool] = True
    has_types: ClassVar[bool] = False
    by_day: ClassVar[bool] = False
    encodes: ClassVar[bool] = False

    name: str
    path: Path | None = None
    spellings: tuple[str, ...] = ()
    content: Content
    write: Write
    flatten: dict[str, Kind | None] = {}

    @classmethod
    def of(cls, text: str, layout: Layout, output: Output) -> Self:
        """Return the target that `output` describes.

        Args:
            text: `output.to` as text.
            layout: options that are checked already.
            output: the other options, not checked yet.

        Raises:
            ConfigurationError: a value is invalid, or an extra is not installed.
        """
        raise NotImplementedError

    @classmethod
    def require_extra(cls, name: str) -> None:
        """Raise `ConfigurationError` if the extra is not installed; `name` is for the message."""
        if cls.extra is not None:
            require(cls.extra, what=f"to: {name!r}")

    @property
    def typed_flatten(self) -> bool:
        """True if the types of columns depend on the values in every record."""
        return self.has_types and None in self.flatten.values()

    @property
    def replaces_keys(self) -> bool:
        """True if all earlier rows of each key are replaced, even by none."""
        return self.content.of == "bindings" and self.write == "upsert"

    @property
    def keeps_bindings(self) -> bool:
        """True if its rows are bindings, and lookups of other keys leave rows there."""
        return self.content.of == "bindings" and "upsert" in self.writes

    @property
    def inner_table(self) -> str | None:
        """The name of the table, for a file that can hold several; else None."""
        return None

    @classmethod
    def keeps_state(cls) -> bool:
        """Return whether it can keep the state of `Session.sync`."""
        return cls.synced is not Target.synced

    @property
    def label(self) -> str:
        """The target in sentences about its rows."""
        return self.name if self.inner_table is None else f"{self.inner_table!r} in {self.name}"

    @property
    def files(self) -> list[Path]:
        """The files that the target consists of, or needs while it is written. Not partial ones."""
        return []

    def check(self) -> None:
        """Raise if the target cannot be written to. Changes nothing. Blocking.

        Raises:
            ConfigurationError: the options do not fit what the target has.
            ExportError: the reason.
        """
        raise NotImplementedError

    def accept(self, origin: Origin) -> None:
        """Raise if the rows of this export may not go there. Changes nothing. Blocking.

        Raises:
            ExportError: the reason.
        """

    def synced(self, account: str) -> SyncState | None:
        """Return the state that `Session.sync` has left, or None. Blocking.

        There is none without the table, whose rows the state is about. A sink writes
        `Origin.sync` with its rows, and forgets all states of a table that it makes anew. A state
        never moves back: `through` is the later one of both.

        Raises:
            ExportLocked: the target is in use.
            OSError, ExportError: the target cannot be read.
        """
        raise NotImplementedError

    def states(self) -> list[SyncState]:
        """Return the state of each account's rows; see `synced`. Blocking, and waits for nobody.

        Raises:
            ExportLocked: the target is in use.
            OSError, ExportError: the target cannot be read, or keeps states without listing them.
        """
        raise ExportError(f"the states of {self.label} are not listed")

    def look(self) -> tuple[list[SyncState], bool | None]:
        """Return the `states`, and whether the table of a database is there; None if not known.

        Blocking, and raises as `states` does.
        """
        return self.states(), None

    def lost_days(self, account: str, first: date, last: date) -> list[date]:
        """Return the days of a range whose rows are known to be gone, for days that were synced.

        Blocking. Only a target that is `by_day` knows any.

        Args:
            account: the account that they were synced for.
            first: the first day.
            last: the last day.

        Raises:
            OSError: the target cannot be read.
        """
        return []

    def damaged_days(self, first: date, last: date) -> dict[date, str]:
        """Return the path of the file of each day of a range that no reader can open.

        Blocking. Only a target that is `by_day` knows any.

        Args:
            first: the first day.
            last: the last day.
        """
        return {}

    def to_keep_values(self, columns: Sequence[str]) -> str:
        """Return the advice on flattened columns that are null where a value has another type."""
        return 'as "text" a column keeps every value'

    def holds(self, origin: Origin) -> bool:
        """Return whether any row is there that an export has appended. Blocking.

        Only a target that can be appended to knows.

        Raises:
            ExportLocked: the target is in use.
            OSError, ExportError: the target cannot be read.
        """
        return False

    def has_answers(self, account: str, by: str) -> bool:
        """Return whether any row is there that a lookup has found, as far as is known. Blocking.

        Only a database knows.

        Args:
            account: the account of the row.
            by: the kind of key by which it was found.

        Raises:
            ExportLocked: the target is in use.
            OSError, ExportError: the target cannot be read.
        """
        return False

    def present(self) -> str | None:
        """Return what an output would replace, such as "9 bytes of p.csv", or None. Blocking.

        Raises:
            ExportLocked: the target is in use.
            OSError, ExportError: the target cannot be read.
        """
        return None

    def encoder(self, table: Table) -> Encoder:
        """Return a new encoder of rows, for a target that `encodes`.

        Args:
            table: the columns, and the cells of the rows.
        """
        raise NotImplementedError

    def stage(self, folder: Path, *, changes: bool) -> Stage | None:
        """Return a new stage for one sink, or None if rows only wait for that one in blocks.

        Args:
            folder: a folder for its files.
            changes: whether the events of many rows may change until they are written.
        """
        return None

    def open(self, table: Table, origin: Origin) -> Sink:
        """Return a new sink. Blocking.

        Args:
            table: the columns, and the cells of the rows. Only for formats that have columns.
            origin: the export.

        Raises:
            ExportLocked: the target is in use. Until `patience` is over, the call is repeated.
            OSError, ExportError: the target cannot be written to.
        """
        raise NotImplementedError


class FileTarget(Target, frozen=True, kw_only=True):
    """A target that is one file, which is replaced when the export is complete."""

    path: Path

    @classmethod
    def of(cls, text: str, layout: Layout, output: Output) -> Self:
        return cls(name=text, path=cls.path_of(text), **layout)

    @classmethod
    def path_of(cls, text: str) -> Path:
        """Return the absolute path of the file, links resolved.

        That of a file in a bucket is the beginning of the names of local files.

        Raises:
            ConfigurationError: no file can have that path, or an extra is not installed.
        """
        remote = Remote.parse(text)
        path = _checked_path(text) if remote is None else absolute_path("to", remote.stem)
        if cls.compresses:
            check_compression(path if remote is None else Path(remote.name), text)
        cls.require_extra(text)
        if remote is not None:
            remote.require_driver()
        return path

    @property
    def files(self) -> list[Path]:
        return [self.path]

    def check(self) -> None:
        check_place(self.path, self.name)

    def present(self) -> str | None:
        size = self.path.stat().st_size if self.path.exists() else 0
        return f"{numbered(size, 'byte')} of {self.name}" if size else None


def _checked_path(text: str) -> Path:
    path = absolute_path("to", text)
    status = status_of("to", path)
    if text.endswith(os.sep) or (status is not None and stat.S_ISDIR(status.st_mode)):
        raise InvalidArgument(
            f"to: {shown(text)} is a folder; add a file name (or a slash, for a folder of "
            "Parquet files)"
        )
    if status is not None and not stat.S_ISREG(status.st_mode):
        raise InvalidArgument(f"to: {shown(text)} is not a regular file; choose another path")
    check_parent(path, text)
    return path


def check_parent(path: Path, text: str) -> None:
    """Raise `ConfigurationError` unless the folder of `path`, which is `text`, exists."""
    folder = status_of("to", path.parent)
    if folder is None:
        fix = "write ~ out, as it is not expanded" if text[0] == "~" else "create it first"
        raise InvalidArgument(f"to: the folder of {shown(text)} does not exist; {fix}")
    if not stat.S_ISDIR(folder.st_mode):
        raise InvalidArgument(
            f"to: a file stands where {shown(text)} names a folder; choose another path"
        )
