"""The journal of an export: a record of its progress that survives a crash.

Blocking; one call at a time. A row must never count more than the spool holds: callers sync the
spool first, and then commit here.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Self

from msgspec import Struct

from ...base.sql import sqlite_code
from ...errors import ExportError, ExportLocked
from ..plan import DISCARD
from .key_table import FAILED, FOUND, NOT_FOUND, KeyList, KeyTable

__all__ = ["ChainRow", "Journal", "Part"]

_CHANGES = (
    """
create table state (name text primary key, value) without rowid;
create table chains (
    number integer primary key, cursor text, since real, offset integer, records integer,
    pages integer, done integer, restarts integer
);
create table asked (chain integer, mark blob, primary key (chain, mark)) without rowid;
create table keys (
    number integer primary key, key text unique, outcome integer, offset integer, length integer,
    error text, message text
);
""",
    # What earlier versions have written has no checksum, and is taken as it is.
    """
create table parts (
    chain integer, end integer, checksum integer, primary key (chain, end)
) without rowid;
insert into parts select number, offset, null from chains where offset > 0;
alter table keys add column checksum integer;
""",
    """
create table joins (
    number integer primary key, key text unique, outcome integer, offset integer, length integer,
    error text, message text, checksum integer
);
create table failed_joins (number integer primary key, key text unique);
""",
)
"""The changes that make each version of the schema from the one before it.

A change that has been released stays as it is, and a new one follows it: an unfinished export may
have been started by any earlier version.
"""

_VERSION = len(_CHANGES)

_PATIENCE = 10.0
"""Longest wait, in seconds, for a process that reads the journal."""

_ROOM = 65_536
"""Bytes that a disk must take to count as not full."""


class ChainRow(Struct):
    """The progress of one chain.

    Attributes:
        number: the chain's place in the plan, from 0.
        cursor: the cursor of the next page; None before the chain is opened and after it is done.
        since: the time at which that cursor was received, in epoch seconds.
        offset: the length of the journalled part of the chain's spool, in bytes.
        records, pages: their number in that part.
        done: whether the last page is in the spool.
        restarts: the number of times the chain was restarted.
    """

    number: int
    cursor: str | None = None
    since: float = 0.0
    offset: int = 0
    records: int = 0
    pages: int = 0
    done: bool = False
    restarts: int = 0


class Part(Struct, frozen=True):
    """A part of a chain's spool. It begins where the part before it ends.

    Attributes:
        end: the offset of its end, in bytes.
        checksum: of its bytes; None if an earlier version has written it.
    """

    end: int
    checksum: int | None


class Journal:
    """One SQLite file, which no other process can open while this object has it open.

    Attributes:
        keys: the keys of a bulk lookup.
        joins: the keys by which people are joined.
        failed_joins: those of them that failed, in the order of the output.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        explained = partial(_explained, path)
        self.keys = KeyTable(connection, "keys", explained)
        self.joins = KeyTable(connection, "joins", explained)
        self.failed_joins = KeyList(connection, "failed_joins", "joins", explained)
        self._path = path
        self._db = connection

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the journal at `path`, or create one. One of an earlier version is updated.

        Raises:
            ExportLocked: another export has the journal open.
            ExportError: the journal is damaged, or a newer version has made it.
        """
        with _explained(path):
            # Exports exclude each other by another lock. This one may wait for somebody who peeks.
            db = sqlite3.connect(
                path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False
            )
        try:
            with _explained(path):
                # The lock lasts until the connection is closed or the process ends in any way.
                db.execute("pragma locking_mode = exclusive")
                db.execute("pragma journal_mode = wal")
                db.execute("pragma synchronous = full")
                db.execute("begin exclusive")
                (version,) = db.execute("pragma user_version").fetchone()
                db.execute("commit")
                if version > 0:
                    _check(db, path, version)
                if version < _VERSION:
                    _bring_up_to_date(db, version)
        except BaseException:
            db.close()
            raise
        return cls(path, db)

    @classmethod
    @contextmanager
    def peek(cls, path: Path) -> Iterator[Self]:
        """Yield the journal at `path` to be read only. It is neither created nor updated.

        Raises:
            ExportLocked: an export has the journal open.
            ExportError: the journal is damaged, or a newer version has made it.
            FileNotFoundError: there is none, or none yet.
            OSError: it cannot be read.
        """
        # SQLite cannot tell a file that is missing from one that it may not open.
        path.lstat()
        with _explained(path):
            db, version = _connect_to_read(path)
        with closing(db):
            if version > _VERSION:
                raise _newer(path, version)
            if not version:
                # A run was killed before it had made the tables.
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
            yield cls(path, db)

    def close(self) -> None:
        """Close the file, and release its lock."""
        self._db.close()

    def merge_log(self) -> None:
        """Merge the log into the file, which can be moved alone then.

        Raises:
            OSError: the disk has no room for it. Closing the file would not say so.
        """
        with _explained(self._path):
            self._db.execute("pragma journal_mode = delete")

    def remove(self) -> None:
        """Delete the file, then close it, so that no other process can open it in between."""
        files = [self._path]
        try:
            # In WAL mode, closing deletes the log by name, even if another process has made a
            # new journal and log of these names after the unlink.
            self.merge_log()
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            # A full disk has no room to merge the log, perhaps after a part of it. The journal
            # first: it is damaged without its log, and a log alone is deleted by whoever opens it.
            files.append(_log_of(self._path))
        try:
            for file in files:
                file.unlink()
        except PermissionError:
            # Windows does not delete an open file.
            self._db.close()
            for file in files:
                file.unlink(missing_ok=True)
        self._db.close()

    def clear(self) -> None:
        """Delete all rows."""
        for table in (
            *("state", "chains", "asked", "parts", "keys"),
            *("joins", "failed_joins"),
        ):
            self._db.execute(f"delete from {table}")  # noqa: S608

    def is_empty(self) -> bool:
        """Return True if the journal holds neither a page nor an answer of the service."""
        with _explained(self._path):
            rows = "select 1 from chains where pages > 0 union all select 1 from keys where outcome"
            answers = (FOUND, NOT_FOUND, FAILED)
            return not self._db.execute(f"{rows} in (?, ?, ?) limit 1", answers).fetchone()

    def state(self, name: str) -> Any:
        """Return the value stored as `name`, or None."""
        with _explained(self._path):
            row = self._db.execute("select value from state where name = ?", (name,)).fetchone()
        return row[0] if row else None

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit everything that the block puts, or nothing if it raises."""
        with _explained(self._path):
            self._db.execute("begin")
            try:
                yield
                self._db.execute("commit")
            except BaseException:
                with suppress(sqlite3.Error):
                    self._db.execute("rollback")
                raise

    def put_state(self, **values: Any) -> None:
        """Store each value under its name."""
        self._db.executemany("insert or replace into state values (?, ?)", values.items())

    def put_chain(
        self, row: ChainRow, mark: bytes | None = None, checksum: int | None = None
    ) -> None:
        """Store the progress of a chain, with its last page, if it has one.

        Args:
            row: the progress. A chain without pages has been restarted, and what is stored of its
                earlier pages is deleted.
            mark: of the cursor that was requested for the page.
            checksum: of the page in the spool, or None if the page has no records.
        """
        if not row.pages:
            for table in ("asked", "parts"):
                self._db.execute(f"delete from {table} where chain = ?", (row.number,))  # noqa: S608
        if mark is not None:
            self._db.execute("insert or ignore into asked values (?, ?)", (row.number, mark))
        if checksum is not None:
            part = (row.number, row.offset, checksum)
            self._db.execute("insert into parts values (?, ?, ?)", part)
        values = [getattr(row, name) for name in ChainRow.__struct_fields__]
        self._db.execute("insert or replace into chains values (?, ?, ?, ?, ?, ?, ?, ?)", values)

    def asked(self, chain: int) -> frozenset[bytes]:
        """Return the marks of the cursors that a chain has requested."""
        with _explained(self._path):
            rows = self._db.execute("select mark from asked where chain = ?", (chain,)).fetchall()
        return frozenset(mark for (mark,) in rows)

    def was_asked(self, chain: int, mark: bytes) -> bool:
        """Return whether a chain has requested the cursor with this mark."""
        with _explained(self._path):
            found = self._db.execute(
                "select 1 from asked where chain = ? and mark = ?", (chain, mark)
            )
            return found.fetchone() is not None

    def chains(self) -> dict[int, ChainRow]:
        """Return the progress of each chain that has been opened, by number."""
        with _explained(self._path):
            rows = self._db.execute("select * from chains").fetchall()
        return {
            number: ChainRow(number, cursor, since, offset, records, pages, bool(done), restarts)
            for number, cursor, since, offset, records, pages, done, restarts in rows
        }

    def parts(self, chain: int) -> list[Part]:
        """Return the parts of a chain's spool, in order."""
        with _explained(self._path):
            rows = self._db.execute(
                "select end, checksum from parts where chain = ? order by end", (chain,)
            ).fetchall()
        return [Part(end, checksum) for end, checksum in rows]


def _connect_to_read(path: Path) -> tuple[sqlite3.Connection, int]:
    """Return a connection that writes nothing, and the version of the journal."""
    try:
        return _connected(path)
    except sqlite3.OperationalError as error:
        if sqlite_code(error) != sqlite3.SQLITE_IOERR:
            raise
        # Without a lock, SQLite makes a file of an index beside it, for which a full disk has no
        # room. Under the lock it keeps that in memory.
        return _connected(path, "exclusive")


def _connected(path: Path, locking: str = "normal") -> tuple[sqlite3.Connection, int]:
    db = sqlite3.connect(f"{path.as_uri()}?mode=rw", timeout=0, isolation_level=None, uri=True)
    try:
        db.execute(f"pragma locking_mode = {locking}")
        db.execute("pragma query_only = on")
        (version,) = db.execute("pragma user_version").fetchone()
    except BaseException:
        db.close()
        raise
    return db, version


def _bring_up_to_date(db: sqlite3.Connection, version: int) -> None:
    changes = "".join(_CHANGES[version:])
    db.executescript(f"begin; {changes} pragma user_version = {_VERSION}; commit;")


def _check(db: sqlite3.Connection, path: Path, version: int) -> None:
    if version > _VERSION:
        raise _newer(path, version)
    found = db.execute("pragma quick_check(1)").fetchone()[0]
    if found != "ok":
        raise _damaged(path, found)


def _newer(path: Path, version: int) -> ExportError:
    return ExportError(
        f"{path.parent} was started by a newer version of altaprofiles, whose journals have "
        f"version {version} instead of {_VERSION}; finish it with that one, or discard it with "
        f"{DISCARD}"
    )


def _damaged(path: Path, why: object) -> ExportError:
    return ExportError(
        f"the journal of this export is damaged ({path}: {why}), so that it cannot be resumed; "
        f"restore the file, or discard the unfinished export with {DISCARD}"
    )


def _log_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def _check_room(path: Path) -> None:
    """Raise an `OSError` on `path` if its log cannot grow, which SQLite does not say."""
    log = _log_of(path)
    try:
        with TemporaryFile(dir=path.parent) as file:
            file.seek(log.stat().st_size if log.exists() else 0)
            file.write(bytes(_ROOM))
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def _check_descriptors(path: Path) -> None:
    """Raise an `OSError` on `path` if no more files can be opened, which SQLite does not say."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        code = sqlite_code(error)
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise ExportLocked(
                f"another export is working on this output: {path} is in use; wait for it, stop "
                f"it, or choose another `to`"
            ) from None
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise _damaged(path, error) from None
        if code == sqlite3.SQLITE_CANTOPEN:
            _check_descriptors(path)
        if code == sqlite3.SQLITE_FULL:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        if code == sqlite3.SQLITE_IOERR:
            _check_room(path)
        # The type of error that writing the other files of an export raises.
        raise OSError(f"the journal cannot be read or written: {error}: {path}") from error
