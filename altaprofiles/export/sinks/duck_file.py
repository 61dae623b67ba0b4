"""DuckDB files, and no file that another user may have planted.

Blocking. DuckDB creates its log and its temporary files late, and follows links. So all of them are
in the folder of the export's turn, which no other user can write to. Only the log of an existing
file is beside that file. It is looked at before the file is opened, before the first statement, and
before the commit, which creates it. A user who can write to the file's folder could still plant a
link in the microseconds between that look and the commit. Such a user could also put a folder with
links in the place of the export's own while the statement runs.
"""

from __future__ import annotations

import gc
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ...base.paths import is_own
from ...base.sql import literal
from ...errors import AltaProfilesError, ExportError, ExportLocked
from ..store.workspace import TAKES_NO_MORE
from ..tables import REFUSED_AGAIN

__all__ = [
    "OutOfMemory",
    "attach",
    "check_log",
    "connect",
    "connect_to_none",
    "explained",
    "is_locked",
    "logs_of",
    "obstacle",
    "open_file",
]


def connect(
    path: Path, name: str, temporary: Path | None = None, *, read_only: bool = False
) -> Any:
    """Open a DuckDB file.

    Args:
        path: the file.
        name: the file in messages.
        temporary: a folder for what does not fit into memory; None if nothing may be written.
        read_only: whether other programs that only read may have it open as well.

    Raises:
        ExportLocked: another program has it open.
        ExportError: it cannot be opened.
    """
    _check_path(path, name)
    try:
        # By default temporary files would be beside the file, where others may plant links.
        return open_file(path, read_only=read_only, config={"temp_directory": str(temporary or "")})
    except Exception as error:
        text = str(error)
        if (full := _full_disk(name, error)) is not None:
            refusal = full
        elif is_locked(error):
            refusal = ExportLocked(f"{name} is open in another program{_by(text)}; close it there")
        else:
            refusal = ExportError(f"{name} {obstacle(error)}")
    # Outside of the handler, so that DuckDB's error does not stay as the context.
    raise refusal


def open_file(path: Path, **options: Any) -> Any:
    """Return `duckdb.connect(path)`, after a collection of garbage where that closes the file.

    Args:
        path: the file.
        options: further arguments of `duckdb.connect`.
    """
    import duckdb

    if _is_of_sqlite(path):
        # DuckDB would download an extension for it.
        raise duckdb.IOException(_OF_SQLITE)
    try:
        return duckdb.connect(path, **options)
    except Exception as error:
        if not _OPEN_HERE.search(str(error)):
            raise
    # A connection that an error has left, as in a cell that failed, is in a cycle with frames.
    gc.collect()
    return duckdb.connect(path, **options)


_OF_SQLITE = "is a file of SQLite and not of DuckDB; name another one"


def _is_of_sqlite(path: Path) -> bool:
    # A pipe would be read.
    if not path.is_file():
        return False
    with suppress(OSError), path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC
    return False


_MAGIC = b"SQLite format 3\0"
"""The first bytes of every such file ("Database File Format")."""


def obstacle(error: Exception) -> str:
    """Return why DuckDB does not open a file that no other program has open, with the fix."""
    text = str(error)
    if text == _OF_SQLITE:
        return text
    if _OPEN_HERE.search(text):
        return (
            "is open in this process already; close that connection first, and run `DETACH` in one "
            "that has attached it, such as that of `duckdb.sql`. In a notebook, a result that a "
            "cell has shown keeps it open: with N of its Out[N], `%xdel _N` ends that. The "
            "traceback of a cell that failed does so until another one fails, such as this one: "
            "run it again. A restart of the kernel ends both"
        )
    if "encrypted database" in text:
        return "is encrypted, and is not opened with a key; name a file that is not encrypted"
    return (
        f"cannot be opened as a DuckDB file: it is not one, a newer DuckDB has written it "
        f"(pip install -U duckdb), or it is damaged or read-only ({_reason(error)})"
    )


_OPEN_HERE = re.compile("different configuration|Unique file handle conflict")
"""In the error of a file that this process has open. Before 1.5, DuckDB opens an attached one."""


def connect_to_none(temporary: Path | None = None) -> Any:
    """Return a connection without a file. Nothing is written until it has one.

    Args:
        temporary: as in `connect`.
    """
    import duckdb

    return duckdb.connect(":memory:", config={"temp_directory": str(temporary or "")})


def attach(
    connection: Any, path: Path, name: str, database: str, *, rows_in_group: int | None = None
) -> None:
    """Add a DuckDB file to a connection, and make it the present database there.

    Args:
        connection: the connection.
        path: the file, which only this user can write to.
        name: the file in messages.
        database: the name of the database in statements.
        rows_in_group: the number of rows in a group; by default DuckDB's own.

    Raises:
        ExportError: there is a link or another user's log.
    """
    _check_path(path, name)
    options = "" if rows_in_group is None else f" (ROW_GROUP_SIZE {rows_in_group})"
    connection.execute(f"ATTACH {literal(str(path))} AS {database}{options}")
    connection.execute(f"USE {database}")


def _check_path(path: Path, name: str) -> None:
    if path.is_symlink():
        raise ExportError(f"{name}: {path} has become a symbolic link; remove it")
    check_log(path, name)


def is_locked(error: Exception) -> bool:
    """Return whether DuckDB refuses to open a file because another program has it open."""
    return _LOCKED.search(str(error)) is not None


class OutOfMemory(ExportError):
    """Rows need more memory than DuckDB may have for them."""


_OUT_OF_MEMORY = "Out of Memory Error"

_OF_MEMORY = re.compile("failed to (?:pin|allocate|offload) |could not allocate ")
"""In the error of a commit, which has the class of any error of a transaction."""


_LOCKED = re.compile("Conflicting lock|used by another process")
"""In the error of a file that is open elsewhere: on POSIX systems, and on Windows."""

_HOLDER = re.compile(r"(?:held|open) in\s+(?:(.*?) \(PID (\d+)\)|PID (-?\d+))")


def _by(text: str) -> str:
    """Return which program has a file open, by DuckDB's refusal."""
    holder = _HOLDER.search(text)
    if holder is None:
        return ""
    program, process, alone = holder.groups()
    if program is not None:
        return f" ({program}, process {process})"
    # Linux has no number for what runs elsewhere.
    return (
        f" (process {alone})" if int(alone) > 0 else " (in another container or on another machine)"
    )


def check_log(path: Path, name: str) -> None:
    """Raise `ExportError` if another user may have planted a log of a DuckDB file."""
    for log in logs_of(path):
        try:
            status = log.lstat()
        except FileNotFoundError:
            continue
        if not stat.S_ISREG(status.st_mode):
            fault = "is not a regular file"
        elif status.st_uid != path.stat().st_uid and not is_own(status, log.parent):
            fault = f"is a file of another user ({status.st_uid})"
        else:
            continue
        raise ExportError(f"{name}: {log} {fault}, but DuckDB would write to it; remove it")


def logs_of(path: Path) -> list[Path]:
    """Return the log of a DuckDB file, and those that newer versions have for a while."""
    endings = (".wal", ".wal.checkpoint", ".wal.recovery")
    return [path.with_name(path.name + ending) for ending in endings]


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Turn DuckDB's errors into an `ExportError`. They are of any class, even a RuntimeError."""
    try:
        yield
    except AltaProfilesError:
        raise
    except Exception as error:
        refusal = (
            _full_disk(name, error)
            or _out_of_memory(name, error)
            or ExportError(f"{name}: {_reason(error)}")
        )
    else:
        return
    try:
        raise refusal
    finally:
        # DuckDB's error, which the statement `with` handles at that time.
        refusal.__context__ = None


def _full_disk(name: str, error: Exception) -> ExportError | None:
    """Return the refusal of a disk that takes no more, or None if that is not the reason.

    DuckDB has no class for it. A commit quotes the system's words in an error of a transaction.
    """
    found = _NO_SPACE.search(str(error))
    if found is None:
        return None
    refusal = ExportError(f"{name}: {found[1]}")
    refusal.__cause__ = OSError(_CODES[found[1]], found[1], name)
    return refusal


_CODES = {os.strerror(code): code for code in TAKES_NO_MORE}

_NO_SPACE = re.compile(f"Could not [^\n]*: ({'|'.join(map(re.escape, _CODES))})")
"""In an error of writing to a file, of any class."""


def _out_of_memory(name: str, error: Exception) -> ExportError | None:
    """Return the refusal of rows that need too much memory, or None if that is not the reason."""
    text = str(error)
    class_name = type(error).__name__
    if class_name in _WITHOUT_VALUES and _OUT_OF_MEMORY in text:
        return OutOfMemory(f"{name}: {text}")
    if class_name == "TransactionException" and _OF_MEMORY.search(text):
        reason = "the rows of a transaction take more than DuckDB's memory limit"
        return OutOfMemory(f"{name}: {_OUT_OF_MEMORY}: {reason}")
    return None


def _reason(error: Exception) -> str:
    """Return the reason for an error of DuckDB, without values of records.

    Errors of constraints and of conversions quote values, and those of transactions quote other
    errors. Only the classes whose messages name nothing but objects and files are shown.
    """
    text = str(error)
    class_name = type(error).__name__
    if class_name in _WITHOUT_VALUES or isinstance(error, OSError):
        return text
    known = _CONSTRAINT.search(text)
    constraint = f" ({known[0]})" if known else ""
    column = _COLUMN.search(text)
    where = f" in the column {column[1] or column[2]!r}" if column else ""
    return (
        f"DuckDB refuses this: {class_name}{constraint}{where}; its message is not shown, as it "
        f"may hold values of records{REFUSED_AGAIN if known else ''}"
    )


_WITHOUT_VALUES = frozenset(
    (
        "BinderException",
        "CatalogException",
        "DependencyException",
        "IOException",
        "InterruptException",
        "NotImplementedException",
        "NotSupportedError",
        "OutOfMemoryException",
        "ParserException",
        "PermissionException",
        "SyntaxException",
    )
)

_CONSTRAINT = re.compile(
    "NOT NULL constraint|CHECK constraint|foreign key constraint|PRIMARY KEY or UNIQUE constraint"
    "|unique constraint|primary key constraint"
)

_COLUMN = re.compile(
    r'(?:Duplicate|because) key "([^":]+): |NOT NULL constraint failed: [^\s.]+\.(\S+)'
)
"""The first column of a key in an error of a constraint. Its values stand behind the colon."""
