"""A folder of Parquet files that exports write: `<folder>/*.parquet`.

`replace` writes one file, `people.parquet` or `bindings.parquet`. `append` adds a file for each
run, named by the run, so that a run is added once. The state names a file before that file appears.

Flattened columns are text unless a type is named, so that they have the same type in all files.
Files of `append` may differ in their columns. Readers then take them by name, as DuckDB does with
`union_by_name = true`.

A file appears by one rename. Where `replace` finds files of `append`, no rename can exchange all of
them at once. The new file comes first, and takes the place of the one of its name; the others are
deleted next, with nothing in between that could take time. Until the last one is deleted, readers
see old rows beside the new ones, and never none. The state says so before, and the next export into
the folder deletes what a killed one has left.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, ClassVar

from ...base.wording import numbered
from ...errors import ExportError, ExportLocked, InvalidArgument
from ...tables.layout import Column, ColumnKind
from ...tables.mended import Mended
from ...tables.rows import Row, Table
from ..formats import Write
from ..store.spool import sync_folder
from ..tables import Origin
from .arrow_blocks import ArrowEncoder
from .encoding import Encoded, Encoder
from .files import check_place
from .folder import File, Files, FolderTarget
from .parquet import ParquetSink

__all__ = ["FilesTarget"]

_ROWS = "rows"


class FilesTarget(FolderTarget, frozen=True, kw_only=True):
    """A folder of Parquet files, each of one or several exports."""

    writes: ClassVar[tuple[Write, ...]] = ("replace", "append")
    encodes: ClassVar[bool] = True

    @property
    def files(self) -> list[Path]:
        return [*super().files, self.path / self.whole]

    def check(self) -> None:
        super().check()
        if self.path.exists():
            with suppress(ExportLocked):
                # Not under its own name with an ending, which some readers would open.
                check_place(self.path / self.whole, self.name, self.path / f"_{self.whole}.partial")
            self.check_columns(self.state())

    def check_columns(self, state: Files) -> None:
        """Raise `ConfigurationError` if files that stay have a flattened column of another type.

        No reader could open them as one table.
        """
        if self.write == "replace":
            return
        columns = self.content.columns(self.flatten, None)
        lifted = columns[len(columns) - len(self.flatten) :]
        for file in state.files:
            # Most readers ignore case in names.
            types = {name.casefold(): kind for name, kind in file.columns.items()}
            for key, column in zip(self.flatten, lifted, strict=True):
                known = types.get(column.name.casefold(), column.kind)
                if known != column.kind:
                    raise InvalidArgument(
                        f"flatten: {key!r} would be a column of {column.kind}, but it is {known} "
                        f"in {file.name} of {self.name}; write {{{key!r}: {known!r}}}, or export "
                        f"once with write='replace' (--write replace)"
                    )

    def to_keep_values(self, columns: Sequence[str]) -> str:
        advice = super().to_keep_values(columns)
        if self.write == "replace":
            return advice
        return (
            f"{advice}: export once with write='replace' (--write replace), or into another "
            f"folder, as a column has one type in all files"
        )

    def accept(self, origin: Origin) -> None:
        if self.write == "replace" and self.path.exists():
            self.check_accounts(self.state(), origin)

    def check_accounts(self, state: Files, origin: Origin) -> None:
        """Raise `ExportError` if files hold rows of accounts that the export does not bring."""
        others = sorted({one for file in state.files for one in file.accounts} - {*origin.accounts})
        if others:
            raise ExportError(
                f"{self.name} has rows of other accounts ({', '.join(others)}), which "
                f"write='replace' would delete; write with write='append', or choose another folder"
            )

    def state(self) -> Files:
        """Return the content of the folder, which exists.

        Raises:
            ExportError: it is not a folder of exports, or of another kind of rows.
        """
        content = self.content_of_folder() or Files(self.content.of)
        if not isinstance(content, Files):
            raise ExportError(
                f"{self.name} is a folder of `sync`, which has a folder for each day; choose "
                f"another folder"
            )
        return content

    def present(self) -> str | None:
        if self.write != "replace" or not self.path.exists():
            return None
        sizes = [
            path.stat().st_size
            for file in self.state().files
            if (path := self.path / file.name).exists()
        ]
        return f"{numbered(sum(sizes), 'byte')} of {self.name}" if sizes else None

    def holds(self, origin: Origin) -> bool:
        if not self.path.exists():
            return False
        names = [file.name for file in self.state().files if file.run == origin.run]
        return any((self.path / name).exists() for name in names)

    def encoder(self, table: Table) -> Encoder:
        return ArrowEncoder(table)

    def open(self, table: Table, origin: Origin) -> FilesSink:
        return FilesSink(self, table, origin)


class FilesSink:
    absorbed = 0
    notes: Sequence[str] = ()
    earlier_columns: Sequence[str] = ()

    def __init__(self, target: FilesTarget, table: Table, origin: Origin) -> None:
        self._target = target
        # One export at a time, because each one changes the state.
        self._turn = target.turn(_ROWS)
        try:
            self._state = self._settled(target.state())
            if target.write == "replace":
                target.check_accounts(self._state, origin)
            target.check_columns(self._state)
            if target.write == "append":
                earlier = {one.casefold() for file in self._state.files for one in file.columns}
                names = [one.name for one in table.columns]
                self.earlier_columns = [one for one in names if one.casefold() in earlier]
            name = f"{re.sub(_UNSAFE, '_', origin.run)}.parquet"
            name = target.whole if target.write == "replace" else name
            columns: dict[str, ColumnKind] = {one.name: one.kind for one in table.columns}
            self._file = File(name, origin.run, origin.accounts, columns)
            self._rows = ParquetSink(target.path / name, table, self._turn.folder / _ROWS)
        except BaseException:
            self._turn.end()
            raise

    @property
    def mended(self) -> Mended:
        return self._rows.mended

    def write(self, rows: Sequence[Row]) -> None:
        self._rows.write(rows)

    def takes(self, columns: Sequence[Column]) -> bool:
        return self._rows.takes(columns)

    def put(self, encoded: Encoded) -> None:
        self._rows.put(encoded)

    def close(self) -> BinaryIO:
        partial = self._rows.finish()
        others = [one for one in self._state.files if one.name != self._file.name]
        is_alone = self._target.write == "replace" and bool(others)
        number = partial.stat().st_ino if is_alone else None
        self._put([*others, self._file], replacing=number)
        file = self._rows.close(self._delete_others if is_alone else None)
        try:
            if is_alone:
                self._put([self._file])
            self._turn.end()
        except BaseException:
            file.close()
            raise
        return file

    def abort(self) -> None:
        self._rows.abort()
        self._turn.end()

    def _settled(self, state: Files) -> Files:
        """Return the state without a replacement, which is completed if it had begun."""
        if state.replacing is None:
            return state
        target = self._target
        whole = target.path / target.whole
        if whole.exists() and whole.stat().st_ino == state.replacing:
            self._state = state
            self._delete_others()
            sync_folder(target.path)
            return self._put([one for one in state.files if one.name == whole.name])
        return self._put(state.files)

    def _delete_others(self) -> None:
        target = self._target
        for one in self._state.files:
            if one.name != target.whole:
                (target.path / one.name).unlink(missing_ok=True)

    def _put(self, files: Sequence[File], replacing: int | None = None) -> Files:
        self._state = Files(self._target.content.of, tuple(files), replacing)
        self._target.put(self._state)
        return self._state


_UNSAFE = r"[^\w.-]"
