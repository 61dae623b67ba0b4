"""The paths of one export: its target, the folder it gathers in, and the files beside the target.

Looks at the file system and sends nothing. Blocking.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from ..base.checks import check_flag
from ..base.paths import OTHER_TO, absolute_path, path_text, status_of
from ..base.wording import numbered
from ..errors import ExportError, InvalidArgument
from ..tables.layout import Kind
from .output import Output
from .sinks import Target, resolve
from .sinks.compression import COMPRESSIONS
from .sinks.files import check_place, partial_of
from .sinks.postgres_url import without_password
from .sinks.remote import Remote
from .sinks.resolve import text_of
from .store.workspace import OTHER_SPOOL
from .store.workspaces import UPLOAD
from .tables import Content

__all__ = [
    "MANIFEST",
    "Place",
    "folder_of",
    "status_command",
    "stem_of",
    "stem_of_file",
    "table_ending",
]

MANIFEST = ".manifest.json"
"""The ending of the manifest, behind the name of the output."""

_LONGEST = 458
"""Longest path of the folder of an output, in bytes. SQLite opens names of 512, which include that
of a workspace, of up to 32, and its files'."""


class Place(Struct, frozen=True):
    """Every path that one export writes to.

    Attributes:
        target: the output.
        folder: the folder of the output, in which each plan has a workspace of its own.
        status: the command line that shows the state of the output, without passwords.
        manifest: the manifest's file.
        beside: other files beside the output, by the ending of their names.
        layout: the output's options, as the manifest names them.
        remote: the file in a bucket that the output is; None for any other. Its files are gathered
            in `folder`.
    """

    target: Target
    folder: Path
    status: str
    manifest: Path
    beside: Mapping[str, Path]
    layout: Mapping[str, Any]
    remote: Remote | None = None

    @classmethod
    def of(
        cls, output: Output, content: Content, endings: Sequence[str], accounts: Sequence[str] = ()
    ) -> Place:
        """Return the place that `output` names.

        Args:
            output: the caller's arguments.
            content: the kind of rows.
            endings: the endings of the files written beside output and manifest.
            accounts: the names of the accounts, if there are several. Each has files of its own
                beside the output.

        Raises:
            ConfigurationError: an argument cannot work, or an extra is not installed.
        """
        check_flag("resume", output.resume)
        target = resolve(output, content)
        stem = stem_of(target, output.spool)
        folder = folder_of(output.spool, stem)
        if (remote := Remote.parse(text_of(output.to))) is None:
            files = stem
        else:
            files = folder / UPLOAD
            compression = Path(remote.name).suffix.lower()
            target = replace(
                target, path=_named(files, compression if compression in COMPRESSIONS else "")
            )
        place = cls(
            target,
            folder,
            status_command(
                str(output.to) if remote is None else remote.address,
                output.table if remote is None and stem != target.path else None,
                None if output.spool is None else str(output.spool),
            ),
            _named(files, MANIFEST),
            {
                one: _named(files, one)
                for ending in endings
                for one in (ending, *(_of_account(name, ending) for name in accounts))
            },
            {
                "table": None if output.table is None else str.__str__(output.table),
                "bom": output.bom,
                "flatten": _listed(target.flatten),
            },
            remote,
        )
        # Some of these names are longer than the output's, and no file may have them.
        for path in place.written:
            status_of("to", path)
        argument = "to" if output.spool is None else "spool"
        status_of(argument, place.folder)
        if len(os.fsencode(place.folder)) > _LONGEST:
            raise InvalidArgument(
                f"{argument}: the path of {place.folder.name} is longer than the {_LONGEST} bytes "
                f"that SQLite can open; pass a folder with a shorter path as `spool`"
            )
        return place

    def of_account(self, name: str) -> Place:
        """Return the place with the files of one of several accounts beside it."""
        own = {
            ending: path
            for ending in self.beside
            if (path := self.beside.get(_of_account(name, ending))) is not None
        }
        return replace(self, beside=own)

    def ending_of(self, path: Path) -> str:
        """Return what follows the name of a remote output in that of a file that it has here."""
        return "" if path == self.target.path else path.name.removeprefix(UPLOAD)

    def address_of(self, path: Path) -> str:
        """Return the address of a file of the export: its path, or its URL in a bucket."""
        return str(path) if self.remote is None else self.remote.address + self.ending_of(path)

    def beside_at(self, ending: str) -> str:
        """Return the address of the file beside the output whose name has this ending."""
        return self.address_of(self.beside[ending])

    def present(self) -> str | None:
        """Return what the output would replace, as `Target.present` does. Blocking."""
        if self.remote is None:
            return self.target.present()
        size = self.size()
        return f"{numbered(size, 'byte')} of {self.target.name}" if size else None

    def size(self) -> int:
        """Return the size of the output if that is a file; 0 if it is not there. Blocking.

        Raises:
            OSError: it cannot be read.
        """
        if self.remote is None:
            path = self.target.path
            return path.stat().st_size if path is not None and path.is_file() else 0
        # It is for a warning. The right to write is enough for an export.
        with suppress(ExportError):
            return self.remote.size() or 0
        return 0

    def read_manifest(self) -> bytes | None:
        """Return what stands in the place of the manifest, or None if nothing does. Blocking.

        Raises:
            OSError, ExportError: it cannot be read.
        """
        if self.remote is not None:
            return self.remote.read(MANIFEST)
        try:
            return self.manifest.read_bytes()
        except FileNotFoundError:
            return None

    @property
    def other_than_folder(self) -> str:
        """The choice of the caller if `folder` cannot be created, in words."""
        if self.folder.parent != self.manifest.parent:
            return OTHER_SPOOL
        # Another folder for the records would not help, as the same one gets the output.
        return self.other_than_files

    @property
    def other_than_files(self) -> str:
        """The choice of the caller if the files beside the output cannot be written, in words."""
        if self.remote is not None:
            return OTHER_SPOOL
        # With `spool`, too, they are written to the current folder if the output is no file.
        return "another current folder" if self.target.path is None else OTHER_TO

    @property
    def written(self) -> list[Path]:
        """Every file that the export writes, except those in its folder."""
        files = [*self.target.files, self.manifest, *self.beside.values()]
        return [*files, *map(partial_of, files)]

    def check_apart(self, source: Path, table: str | None) -> None:
        """Raise `ConfigurationError` if the keys are in a file that the export writes.

        Args:
            source: the file of keys.
            table: its table, or None. Another one than that of the output may be in the same file.
        """
        keys = status_of("keys", source)
        own = self.target.inner_table
        if table is not None and own is not None and table.lower() != own.lower():
            return
        for path in self.written:
            status = status_of("to", path)
            if keys is not None and status is not None and os.path.samestat(keys, status):
                raise InvalidArgument(
                    f"keys: {source} is written by this export itself; choose another `to`"
                )

    def check(self) -> None:
        """Raise `ExportError` unless every file can be written."""
        self.target.check()
        for path in (self.manifest, *self.beside.values()):
            check_place(path, str(path), other=self.other_than_files)
        if self.remote is not None:
            self.remote.check()


def _listed(flatten: dict[str, Kind | None]) -> list[str] | dict[str, Kind | None]:
    return flatten if any(flatten.values()) else list(flatten)


def stem_of(target: Target, parent: str | os.PathLike[str] | None) -> Path:
    """Return the beginning of the names of all other files of an export.

    Args:
        target: the target.
        parent: as for `folder_of`.

    Raises:
        ConfigurationError: `parent` cannot be used.
    """
    if target.path is not None:
        # Tables of one file are exported side by side, so that each has files of its own.
        return stem_of_file(target.path, target.inner_table)
    name = target.spellings[0]
    if not _PLAIN_PLACE.fullmatch(name):
        # Two must not become one because files lack what tells them apart, the slashes above all.
        # Options may be too long, and are nobody's business.
        safe = _without_odd(name.partition("?")[0])[:_LONGEST_STEM]
        return absolute_path("to", _told_apart(safe, name))
    usual, *earlier = (
        # One for each table of each server, without the characters that file names cannot hold.
        absolute_path("to", _without_odd(name))
        for name in target.spellings
    )
    # Earlier runs, also of earlier versions, may have had another spelling of the same URL.
    known = (one for one in earlier if _is_known(one, parent))
    return next(known, usual)


_PLAIN_PLACE = re.compile(r"[A-Za-z0-9.-]*/[A-Za-z][A-Za-z0-9-]*/[\w.-]+")
"""A server on the usual port, a database and a table, which can be told apart without slashes."""
_LONGEST_STEM = 150


def _without_odd(name: str) -> str:
    return re.sub(r"[^\w.-]", "_", name).lstrip(".")


def _is_known(stem: Path, parent: str | os.PathLike[str] | None) -> bool:
    """Return whether an earlier run has left a manifest or an unfinished export."""
    return _named(stem, MANIFEST).exists() or folder_of(parent, stem).exists()


def stem_of_file(path: Path, table: str | None) -> Path:
    """Return what `stem_of` does for a file, and a table in it or None."""
    return _named(path, table_ending(table))


def table_ending(table: str | None) -> str:
    """Return what stands between the name of a DuckDB file and the endings of a table's files.

    Args:
        table: the table, in whatever case, as DuckDB ignores it; None for a file that is no
            database.
    """
    name = (table or _PLAIN).lower()
    if name == _PLAIN:
        # As in earlier versions.
        return ""
    return f".{_safe(name)}"


_PLAIN = "profiles"
_LONGEST_NAME = 60


def _of_account(name: str, ending: str) -> str:
    """Return the ending of a file of one account."""
    return f".{_safe(name)}{ending}"


def _safe(name: str) -> str:
    """Return a name as a part of a file's name.

    Two must not become one because they are too long, or have characters that files lack.
    """
    safe = re.sub(r"[^\w.-]", "_", name.lower(), flags=re.ASCII)[:_LONGEST_NAME]
    return safe if safe == name else _told_apart(safe, name)


def _told_apart(safe: str, name: str) -> str:
    """Return a part of a file's name that stands for one name only."""
    return f"{safe}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def status_command(to: str, table: str | None, spool: str | None) -> str:
    """Return the command line that shows the unfinished exports of an output.

    Options may follow it.

    Args:
        to: the output.
        table: the table, if there may be several.
        spool: the folder that holds them, if it is not beside the output.
    """
    name = without_password(to)
    # A name like an option, which "--" would make one only if no option followed.
    words = ["altaprofiles", "status", f"./{name}" if name.startswith("-") else name]
    for option, value in (("--table", table), ("--spool", spool)):
        if value is not None:
            words += [option, value]
    return shlex.join(words)


def _named(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def folder_of(parent: str | os.PathLike[str] | None, stem: Path) -> Path:
    """Return the folder in which an export gathers."""
    folder = _named(stem, ".export")
    if parent is None:
        return folder
    path = Path(path_text("spool", parent))
    status = status_of("spool", path)
    if status is None or not stat.S_ISDIR(status.st_mode):
        raise InvalidArgument(f"spool: there is no folder {str(path)!r}; make it first")
    # A folder of its own, because `parent` may hold other files.
    return absolute_path("spool", str(path)) / folder.name
