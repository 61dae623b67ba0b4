"""A folder of Parquet files, which readers open as one table: `<folder>/*.parquet`.

`replace` writes one file, `people.parquet` or `bindings.parquet`. `append` adds a file for each
run, named by the run, so that a run is added once. `_altaprofiles.json` names the files that the
library has written, and the accounts in them. It names a file before that file appears.

A file appears by one rename. Where `replace` finds files of `append`, no rename can exchange all of
them at once: until the last one is deleted, readers see old rows beside the new ones. The state
says so before, and the next export into the folder deletes what a killed one has left.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, ClassVar, Literal, Self

import msgspec
from msgspec import Struct

from ...base.paths import absolute_path, status_of
from ...base.wording import numbered
from ...errors import ConfigurationError, ExportError, ExportLocked
from ...tables.rows import Row, Table
from ..output import Output
from ..store.spool import sync_folder
from ..tables import Origin
from .files import PartialFile, check_place, write_file
from .parquet import ParquetSink
from .target import Layout, Target, Write, check_parent

__all__ = ["STATE", "FolderTarget", "names_folder"]

STATE = "_altaprofiles.json"
_LOCK = "_altaprofiles"


def names_folder(text: str) -> bool:
    """Return whether a path is that of a folder: it ends in a slash."""
    return "://" not in text and text.endswith((os.sep, "/"))


class _File(Struct, frozen=True):
    """A file that the library has written: its name, its run, and the accounts in it."""

    name: str
    run: str
    accounts: tuple[str, ...]


class _State(Struct, frozen=True, omit_defaults=True):
    """The content of a folder.

    Attributes:
        layout: "files" for files of exports.
        of: the kind of rows.
        files: the files. One that is not there was never completed.
        replacing: the number (inode) of a file that takes the place of all others as soon as it has
            its name; None for none.
    """

    layout: Literal["files"]
    of: Literal["people", "bindings"]
    files: tuple[_File, ...] = ()
    replacing: int | None = None


class FolderTarget(Target, frozen=True, kw_only=True):
    """A folder of Parquet files."""

    format: ClassVar[str] = "parquet"
    extra: ClassVar[str | None] = "parquet"
    options: ClassVar[frozenset[str]] = frozenset({"flatten"})
    writes: ClassVar[tuple[Write, ...]] = ("replace", "append")
    patience: ClassVar[float] = 600
    has_types: ClassVar[bool] = True

    path: Path

    @classmethod
    def of(cls, text: str, layout: Layout, output: Output) -> Self:
        path = absolute_path("to", text)
        if not path.name:
            raise ConfigurationError(f"to: {text!r} is the root of all files; name a folder in it")
        status = status_of("to", path)
        if status is not None and not stat.S_ISDIR(status.st_mode):
            raise ConfigurationError(
                f"to: {text!r} names a folder, but a file stands there; leave out the slash, or "
                f"choose another path"
            )
        check_parent(path, text)
        cls.require_extra(text)
        return cls(name=text, path=path, **layout)

    @property
    def files(self) -> list[Path]:
        return [self.path / STATE, self.path / self.whole]

    @property
    def whole(self) -> str:
        """The name of the file that `replace` writes."""
        return f"{self.content.of}.parquet"

    def check(self) -> None:
        # Of a new folder, the place is checked with that of the manifest beside it.
        if self.path.exists():
            for name in (STATE, self.whole):
                # One that is in use is waited for when the records are there.
                with suppress(ExportLocked):
                    check_place(self.path / name, self.name)
            self.state()

    def accept(self, origin: Origin) -> None:
        if self.write == "replace" and self.path.exists():
            self.check_accounts(self.state(), origin)

    def check_accounts(self, state: _State, origin: Origin) -> None:
        """Raise `ExportError` if files hold rows of accounts that the export does not bring."""
        others = sorted({one for file in state.files for one in file.accounts} - {*origin.accounts})
        if others:
            raise ExportError(
                f"{self.name} has rows of other accounts ({', '.join(others)}), which "
                f"write='replace' would delete; write with write='append', or choose another folder"
            )

    def state(self) -> _State:
        """Return the content of the folder, which exists.

        Raises:
            ExportError: it is not a folder of this library, or of another kind of rows.
        """
        path = self.path / STATE
        empty = _State("files", self.content.of)
        try:
            state = msgspec.json.decode(path.read_bytes(), type=_State)
        except FileNotFoundError:
            state = empty
        except msgspec.DecodeError as error:
            raise ExportError(
                f"{path} is not of an export into a folder, or of a newer version ({error}); "
                f"choose another folder"
            ) from error
        if state.of != self.content.of:
            raise ExportError(
                f"{self.name} is a folder of {state.of}, not of {self.content.of}; choose another"
            )
        known = {STATE, *(file.name for file in state.files)}
        for entry in sorted(self.path.iterdir()):
            # Readers leave out hidden files, and an incomplete file may be of another export.
            is_seen = not entry.name.startswith(".") and not entry.name.endswith(".partial")
            if is_seen and entry.name not in known:
                raise ExportError(
                    f"{self.name} holds {entry.name!r}, which no export has written there; choose "
                    f"another folder, or move that file away"
                )
        return state

    def present(self) -> str | None:
        if self.write != "replace" or not self.path.exists():
            return None
        sizes = [
            path.stat().st_size
            for file in self.state().files
            if (path := self.path / file.name).exists()
        ]
        return f"{numbered(sum(sizes), 'byte')} of {self.name}" if sizes else None

    def open(self, table: Table, origin: Origin) -> FolderSink:
        return FolderSink(self, table, origin)


class FolderSink:
    absorbed = 0
    notes: Sequence[str] = ()

    def __init__(self, target: FolderTarget, table: Table, origin: Origin) -> None:
        self._target = target
        with suppress(FileExistsError):
            target.path.mkdir()
        # One export at a time, because each one changes the state.
        self._lock = _locked(target)
        try:
            self._state = self._settled(target.state())
            if target.write == "replace":
                target.check_accounts(self._state, origin)
            name = f"{re.sub(_UNSAFE, '_', origin.run)}.parquet"
            name = target.whole if target.write == "replace" else name
            self._file = _File(name, origin.run, origin.accounts)
            self._rows = ParquetSink(target.path / name, table)
        except BaseException:
            self._lock.discard()
            raise

    @property
    def mended(self) -> int:
        return self._rows.mended

    def write(self, rows: Sequence[Row]) -> None:
        self._rows.write(rows)

    def close(self) -> BinaryIO:
        target = self._target
        partial = self._rows.finish()
        others = [one for one in self._state.files if one.name != self._file.name]
        is_alone = target.write == "replace" and bool(others)
        number = partial.stat().st_ino if is_alone else None
        self._put([*others, self._file], replacing=number)
        file = self._rows.close()
        try:
            if is_alone:
                self._state = self._settled(self._state)
            self._lock.discard()
        except BaseException:
            file.close()
            raise
        return file

    def abort(self) -> None:
        self._rows.abort()
        self._lock.discard()

    def _settled(self, state: _State) -> _State:
        """Return the state without a replacement, which is completed if it had begun."""
        if state.replacing is None:
            return state
        folder = self._target.path
        [new] = [one for one in state.files if one.name == self._target.whole]
        files = list(state.files)
        if (folder / new.name).exists() and (folder / new.name).stat().st_ino == state.replacing:
            for one in files:
                if one != new:
                    (folder / one.name).unlink(missing_ok=True)
            sync_folder(folder)
            files = [new]
        return self._put(files)

    def _put(self, files: Sequence[_File], replacing: int | None = None) -> _State:
        target = self._target
        self._state = _State("files", target.content.of, tuple(files), replacing)
        data = msgspec.json.format(msgspec.json.encode(self._state), indent=2) + b"\n"
        write_file(target.path / STATE, [data])
        return self._state


_UNSAFE = r"[^\w.-]"


def _locked(target: FolderTarget) -> PartialFile:
    try:
        return PartialFile(target.path / _LOCK)
    except ExportLocked:
        raise ExportLocked(
            f"another export is writing {target.name}; wait for it, or stop it"
        ) from None
