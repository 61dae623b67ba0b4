"""The journal: what of an export is on disk for good. Blocking; one call at a time.

A row must never say more than the spool holds: callers sync the spool first, then commit here.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from msgspec import Struct

from ...errors import ExportError, ExportLocked

__all__ = ["FAILED", "FOUND", "INVALID", "NOT_FOUND", "Answer", "ChainRow", "Journal"]

_VERSION = 1

_SCHEMA = f"""
begin;
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
pragma user_version = {_VERSION};
commit;
"""

FOUND, NOT_FOUND, FAILED, INVALID = range(1, 5)
"""What became of a key. One that failed is asked again when the export goes on, an invalid one not:
the service, or we, refuse the key itself."""


class ChainRow(Struct):
    """How far one chain has come.

    Attributes:
        number: its place in the plan, from 0.
        cursor: of the page to ask for next; None before it is opened, and when it is done.
        since: when that cursor came, in epoch seconds.
        offset: bytes of its spool that count.
        records, pages: how many those are.
        done: whether its last page is in the spool.
        restarts: how often it had to begin again.
    """

    number: int
    cursor: str | None = None
    since: float = 0.0
    offset: int = 0
    records: int = 0
    pages: int = 0
    done: bool = False
    restarts: int = 0


class Answer(Struct):
    """What became of one key.

    Attributes:
        outcome: `FOUND`, `NOT_FOUND`, `FAILED` or `INVALID`.
        offset, length: where the record stands in the spool, for one that was found.
        error, message: for one that failed.
    """

    key: str
    outcome: int
    offset: int | None = None
    length: int | None = None
    error: str | None = None
    message: str | None = None


class Journal:
    """One SQLite file, which nobody else can open as long as this is open."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self._path = path
        self._db = connection

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the journal at `path`, or make one.

        Raises:
            ExportLocked: somebody else has it open.
            ExportError: it is damaged, or of another version of this library.
        """
        with _explained(path):
            db = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            with _explained(path):
                # Kept until the connection is closed, or the process is gone, whatever ends it.
                db.execute("pragma locking_mode = exclusive")
                db.execute("pragma journal_mode = wal")
                db.execute("pragma synchronous = full")
                db.execute("begin exclusive")
                (version,) = db.execute("pragma user_version").fetchone()
                db.execute("commit")
                if version == 0:
                    db.executescript(_SCHEMA)
                else:
                    _check(db, path, version)
        except BaseException:
            db.close()
            raise
        return cls(path, db)

    def close(self) -> None:
        """Let others open it."""
        self._db.close()

    def remove(self) -> None:
        """Delete it and close it, in an order in which nobody can open it in between."""
        with _explained(self._path):
            # Else closing would delete a file by name which may be another process's by then.
            self._db.execute("pragma journal_mode = delete")
        try:
            self._path.unlink()
        except PermissionError:
            # Windows deletes no open file.
            self._db.close()
            self._path.unlink()
        self._db.close()

    def clear(self) -> None:
        """Forget everything."""
        for table in ("state", "chains", "asked", "keys"):
            self._db.execute(f"delete from {table}")  # noqa: S608

    def is_empty(self) -> bool:
        """Whether no page and no answer has been journalled."""
        with _explained(self._path):
            kept = "select 1 from chains where pages > 0 union all select 1 from keys where outcome"
            asked = (FOUND, NOT_FOUND, FAILED)
            return not self._db.execute(f"{kept} in (?, ?, ?) limit 1", asked).fetchone()

    def state(self, name: str) -> Any:
        """Return what was kept under `name`, or None."""
        with _explained(self._path):
            row = self._db.execute("select value from state where name = ?", (name,)).fetchone()
        return row[0] if row else None

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make what is put inside durable, all of it or nothing."""
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
        """Keep each value under its name."""
        self._db.executemany("insert or replace into state values (?, ?)", values.items())

    def put_chain(self, row: ChainRow, asked: bytes | None = None) -> None:
        """Keep how far a chain has come, and the mark of the cursor that was asked for last.

        With no page yet, it forgets those of before.
        """
        if asked is not None:
            self._db.execute("insert or ignore into asked values (?, ?)", (row.number, asked))
        elif not row.pages:
            self._db.execute("delete from asked where chain = ?", (row.number,))
        values = [getattr(row, name) for name in ChainRow.__struct_fields__]
        self._db.execute("insert or replace into chains values (?, ?, ?, ?, ?, ?, ?, ?)", values)

    def was_asked(self, chain: int, mark: bytes) -> bool:
        """Return whether a chain has been through the cursor of that mark."""
        with _explained(self._path):
            found = self._db.execute(
                "select 1 from asked where chain = ? and mark = ?", (chain, mark)
            )
            return found.fetchone() is not None

    def chains(self) -> dict[int, ChainRow]:
        """Return the chains that have been opened, by number."""
        with _explained(self._path):
            rows = self._db.execute("select * from chains").fetchall()
        return {
            number: ChainRow(number, cursor, since, offset, records, pages, bool(done), restarts)
            for number, cursor, since, offset, records, pages, done, restarts in rows
        }

    def put_keys(self, first: int, keys: Iterable[str]) -> int:
        """Add the keys that are not there yet, numbered from `first`; return how many those are."""
        before = self._db.total_changes
        self._db.executemany(
            "insert or ignore into keys (number, key) values (?, ?)", enumerate(keys, first)
        )
        return self._db.total_changes - before

    def drop_keys(self) -> None:
        """Forget every key."""
        self._db.execute("delete from keys")

    def put_answers(self, answers: Iterable[Answer]) -> None:
        """Keep what became of some keys."""
        self._db.executemany(
            "update keys set outcome = ?, offset = ?, length = ?, error = ?, message = ? "
            "where key = ?",
            [(a.outcome, a.offset, a.length, a.error, a.message, a.key) for a in answers],
        )

    def forget_failures(self) -> None:
        """Let keys that failed count as not asked."""
        self._db.execute("update keys set outcome = null where outcome = ?", (FAILED,))

    def tally(self) -> dict[int | None, int]:
        """Return the number of keys by outcome; under None those that are yet to be asked."""
        with _explained(self._path):
            rows = self._db.execute("select outcome, count(*) from keys group by outcome")
            return dict(rows.fetchall())

    def unanswered(self, after: int, count: int) -> list[tuple[int, str]]:
        """Return the next `count` numbers and keys without an answer, in order."""
        with _explained(self._path):
            return self._db.execute(
                "select number, key from keys where outcome is null and number > ? "
                "order by number limit ?",
                (after, count),
            ).fetchall()

    def answered(self, outcomes: Sequence[int], after: int, count: int) -> list[tuple[int, Answer]]:
        """Return the next `count` numbers and answers with one of `outcomes`, in order."""
        marks = ", ".join("?" * len(outcomes))
        with _explained(self._path):
            rows = self._db.execute(
                f"select * from keys where outcome in ({marks}) and number > ? "  # noqa: S608
                "order by number limit ?",
                (*outcomes, after, count),
            ).fetchall()
        return [(number, Answer(*values)) for number, *values in rows]


def _check(db: sqlite3.Connection, path: Path, version: int) -> None:
    if version != _VERSION:
        raise ExportError(
            f"{path.parent} was begun by another version of altaprofiles (journal {version}, this "
            f"one writes {_VERSION}); finish it with that one, or discard it with `resume=False`"
        )
    found = db.execute("pragma quick_check(1)").fetchone()[0]
    if found != "ok":
        raise _damaged(path, found)


def _damaged(path: Path, why: object) -> ExportError:
    return ExportError(
        f"the journal of this export is damaged ({path}: {why}), so that nothing tells what of it "
        f"is on disk; restore the file, or discard what there is with `resume=False`"
    )


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise ExportLocked(
                f"another export works on this output: {path} is in use; wait for it, stop it, or "
                f"choose another `to` or `spool`"
            ) from None
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise _damaged(path, error) from None
        # As the other files of an export fail, whose system calls say themselves what is wrong.
        raise OSError(f"the journal cannot be kept: {error}: {path}") from error
