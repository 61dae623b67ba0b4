"""Folders of Parquet files, and the state that says what the library has written there. Blocking.

Readers open the whole folder as one table. They look at each file whose name ends in `.parquet`, or
at each one whose name begins with neither `_` nor `.`, so that no other file has such a name.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, Literal, Self, TypeAlias

import msgspec
from msgspec import Struct

from ...base.checks import shown
from ...base.paths import absolute_path, status_of
from ...errors import ExportError, ExportLocked, InvalidArgument
from ...tables.layout import ColumnKind
from ..formats import Format
from ..output import Output
from ..state import SyncState
from .files import check_place, write_file
from .target import Layout, Target, check_parent
from .turns import Turn

__all__ = ["STATE", "Days", "File", "Files", "FolderTarget", "day_of", "names_folder"]

STATE = "_altaprofiles.json"
_PRIVATE = "_altaprofiles"


def names_folder(text: str) -> bool:
    """Return whether a path is that of a folder: it ends in a slash."""
    return "://" not in text and text.endswith((os.sep, "/"))


def day_of(name: str) -> str | None:
    """Return the day in the name of its folder, such as 2026-01-31; None for another name."""
    found = re.fullmatch(r"day=(\d{4}-\d\d-\d\d)", name)
    return None if found is None else found[1]


_PUT_BACK = (
    "put an older copy of that file back (a sync goes on from it, and brings the days since once)"
)


class File(Struct, frozen=True):
    """A file that an export has written.

    Attributes:
        name: its name, without any folder.
        run: its run.
        accounts: the accounts in it.
        columns: the type of each of its columns, by name.
    """

    name: str
    run: str
    accounts: tuple[str, ...]
    columns: dict[str, ColumnKind] = {}

    def __post_init__(self) -> None:
        # The state names files that are deleted, and may be anybody's.
        if not re.fullmatch(r"\w[\w.-]*\.parquet", self.name):
            raise ValueError(f"{self.name!r} is no name that an export gives to a file")


class Files(Struct, frozen=True, omit_defaults=True, tag_field="layout", tag="files"):
    """The content of a folder that exports write.

    Attributes:
        of: the kind of rows.
        files: the files. One that is not there was never completed.
        replacing: the number (inode) of a file that takes the place of all others as soon as it has
            its name; None for none.
    """

    of: Literal["people", "bindings"]
    files: tuple[File, ...] = ()
    replacing: int | None = None

    def __post_init__(self) -> None:
        if self.replacing is not None and not any(file.name == self.whole for file in self.files):
            raise ValueError(f"{self.whole} is not named, which takes the place of all others")

    @property
    def whole(self) -> str:
        """The name of a file with all rows of an export."""
        return f"{self.of}.parquet"


class Days(Struct, frozen=True, tag_field="layout", tag="days"):
    """The content of a folder of `Session.sync`, which has a folder for each day.

    Attributes:
        of: the kind of rows.
        accounts: the state of each account's rows.
    """

    of: Literal["people", "bindings"]
    accounts: tuple[SyncState, ...] = ()


Content: TypeAlias = Files | Days

_DECODER: msgspec.json.Decoder[Content] = msgspec.json.Decoder(Content)


class FolderTarget(Target, frozen=True, kw_only=True):
    """A folder of Parquet files."""

    format: ClassVar[Format] = "parquet"
    extra: ClassVar[str | None] = "parquet"
    options: ClassVar[frozenset[str]] = frozenset({"flatten"})
    patience: ClassVar[float] = 600

    path: Path

    @classmethod
    def of(cls, text: str, layout: Layout, output: Output) -> Self:
        path = absolute_path("to", text)
        if not path.name:
            raise InvalidArgument(
                f"to: {shown(text)} is the root of all files; name a folder in it"
            )
        status = status_of("to", path)
        if status is not None and not stat.S_ISDIR(status.st_mode):
            raise InvalidArgument(
                f"to: {shown(text)} names a folder, but a file stands there; leave out the "
                "slash, or "
                f"choose another path"
            )
        check_parent(path, text)
        cls.require_extra(text)
        return cls(name=text, path=path, **layout)

    @property
    def whole(self) -> str:
        """The name of a file with all rows of an export, or of a day."""
        return f"{self.content.of}.parquet"

    @property
    def files(self) -> list[Path]:
        return [self.path / STATE]

    def check(self) -> None:
        # Of a new folder, the place is checked with that of the manifest beside it.
        if self.path.exists():
            # One that is in use is waited for when the records are there.
            with suppress(ExportLocked):
                check_place(self.path / STATE, self.name)
            self.content_of_folder()

    def turn(self, *files: str) -> Turn:
        """Make the folder if it is missing, and return the turn of an export.

        Args:
            files: the names of files that are made in the turn's folder.

        Raises:
            ExportLocked, ExportError: as `Turn` raises.
            OSError: the folder cannot be made.
        """
        with suppress(FileExistsError):
            self.path.mkdir()
        return Turn(self.path / _PRIVATE, self.name, files)

    def content_of_folder(self) -> Content | None:
        """Return the content of the folder, which exists; None if it is empty.

        Raises:
            ExportError: it is not a folder of this library, or of another kind of rows; or this
                user may not read it.
        """
        try:
            return self._content()
        except PermissionError as error:
            raise ExportError(
                f"{error.filename} may not be read by this user; give it the right to read what is "
                f"in the folder, or choose another folder"
            ) from error

    def _content(self) -> Content | None:
        path = self.path / STATE
        content: Content | None = None
        with suppress(FileNotFoundError):
            data = path.read_bytes()
            try:
                content = _DECODER.decode(data)
            except msgspec.DecodeError as error:
                raise ExportError(
                    f"{path} is not of an export into a folder, or is of a newer version, or "
                    f"damaged; {_PUT_BACK}, or choose another folder"
                ) from error
        if content is not None and content.of != self.content.of:
            raise ExportError(
                f"{self.name} is a folder of {content.of}, not of {self.content.of}; choose another"
            )
        for entry in self._entries(content):
            name = str(entry.relative_to(self.path))
            away = "choose another folder, or move that file away"
            if content is None and day_of(name) is not None:
                raise ExportError(
                    f"{self.name} holds {name!r}, but not {STATE}, which would say that a sync has "
                    f"written it; if one has, {_PUT_BACK}; otherwise {away}"
                )
            raise ExportError(
                f"{self.name} holds {name!r}, which no export has written there; {away}"
            )
        return content

    def _entries(self, content: Content | None) -> Iterator[Path]:
        """Yield what readers see in the folder, and is no part of `content`."""
        for entry in _seen(self.path):
            match content:
                # A link would lead the rows of a day to another place.
                case Days() if day_of(entry.name) and stat.S_ISDIR(entry.lstat().st_mode):
                    yield from (one for one in _seen(entry) if one.name != self.whole)
                case Files(files=files) if any(file.name == entry.name for file in files):
                    pass
                case _ if entry.name != STATE:
                    yield entry

    def put(self, content: Content) -> None:
        """Write the state."""
        data = msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"
        write_file(self.path / STATE, [data])


def _seen(folder: Path) -> list[Path]:
    """Return what readers see in a folder: neither hidden files nor incomplete ones."""
    return [
        path
        for path in sorted(folder.iterdir())
        if not path.name.startswith(".") and not path.name.endswith(".partial")
    ]
