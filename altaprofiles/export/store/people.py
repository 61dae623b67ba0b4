"""The people an export has seen, remembered in a file to keep memory small. Blocking."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...models.people import Distinct, short_digest

__all__ = ["PeopleOnDisk"]


class PeopleOnDisk:
    """A `Distinct` that remembers tens of millions of people in a file instead of in memory.

    Args:
        path: the file. An existing one is replaced, because it is of no use after its pass.

    Raises:
        OSError: the file cannot be created.
    """

    def __init__(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        with _explained():
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            with _explained():
                for name in _SETTINGS:
                    self._db.execute(f"pragma {name}")
                self._db.execute("begin")
                seen = (_OnDisk(self._db, "identities"), _OnDisk(self._db, "devices"))
        except BaseException:
            self._db.close()
            raise
        self.distinct = Distinct(*seen)

    def close(self) -> None:
        """Close the file."""
        self._db.close()


# A lost file is made again from the spools, so it need not be durable. The cache is in KiB.
_SETTINGS = ("journal_mode = off", "synchronous = off", f"cache_size = -{8 << 10}")


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise _explained_error(error) from error


def _explained_error(error: sqlite3.Error) -> OSError:
    return OSError(f"cannot remember the people the export has seen: {error}")


class _OnDisk:
    def __init__(self, db: sqlite3.Connection, name: str) -> None:
        db.execute(f"create table {name} (mark blob primary key) without rowid")
        self._insert = f"insert or ignore into {name} values (?)"  # noqa: S608
        self._db = db.cursor()

    def add(self, key: bytes) -> bool:
        # Called for every record, so that a context manager would take a fifth of the time.
        try:
            return self._db.execute(self._insert, (short_digest(key),)).rowcount > 0
        except sqlite3.Error as error:
            raise _explained_error(error) from error
