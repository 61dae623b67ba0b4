"""The people an export has seen, remembered in a file to keep memory small. Blocking."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from msgspec.structs import replace

from ...errors import DecodeError
from ...models.people import Distinct, Numbered, identity_of, short_digest
from ...tables.rows import Row

__all__ = ["EachOnce", "Matching", "People"]


class People(Protocol):
    """Decides which rows of an export are written, and adds what only all rows show."""

    looks_ahead: bool
    """True if every row must be passed to `look` before the first one to `keep`."""

    def look(self, rows: Sequence[Row]) -> None:
        """Take note of rows that `keep` will be asked for."""
        ...

    def keep(self, rows: Sequence[Row]) -> list[Row]:
        """Return the rows to write, of all rows in their order."""
        ...

    def close(self) -> None:
        """Close the file."""
        ...


class EachOnce:
    """Keeps the first row of each person, or of each person and day where rows have days.

    Args:
        path: the file. An existing one is replaced, because it is of no use after its pass.

    Raises:
        OSError: the file cannot be created.
    """

    looks_ahead = False

    def __init__(self, path: Path) -> None:
        self._file = _File(path, "mark blob primary key")
        self._distinct = Distinct(_Marks(self._file, "identities"), _Marks(self._file, "devices"))
        self.close = self._file.close

    def look(self, rows: Sequence[Row]) -> None:
        pass

    def keep(self, rows: Sequence[Row]) -> list[Row]:
        return [row for row in rows if self._is_new(row)]

    def _is_new(self, row: Row) -> bool:
        self._file.day = _prefix(row)
        try:
            return self._distinct.is_new(identity_of(row.record), row.record)
        except DecodeError:
            # A person that cannot be identified is written: nothing shows that it is a repeat.
            return True


class Matching:
    """Adds to each row all events that brought its person, on its day where rows have days.

    Remembers a bit for each event and person, and one for each row, in memory.

    Args:
        path: as for `EachOnce`.
        events: the events.
        distinct: whether only the first row of each person is kept.

    Raises:
        OSError: the file cannot be created.
    """

    looks_ahead = True

    def __init__(self, path: Path, events: Sequence[str], *, distinct: bool) -> None:
        self._file = _File(path, "mark blob primary key, number integer not null")
        self._people = Numbered(_Numbers(self._file, "identities"), _Numbers(self._file, "devices"))
        self._bits = {event: 1 << number for number, event in enumerate(sorted(events))}
        self._width = (len(events) + 7) // 8
        self._masks = bytearray()
        self._distinct = distinct
        self._is_first = bytearray()
        self._looked = self._kept = self._person = 0
        self.close = self._file.close

    def look(self, rows: Sequence[Row]) -> None:
        for row in rows:
            numbers, is_new = self._of(row)
            if is_new:
                self._masks += bytes(self._width)
            for number in numbers:
                self._put(number, self._mask(number) | sum(self._bits[one] for one in row.matched))
            byte, bit = divmod(self._looked, 8)
            if not bit:
                self._is_first.append(0)
            self._is_first[byte] |= is_new << bit
            self._looked += 1

    def keep(self, rows: Sequence[Row]) -> list[Row]:
        selected: list[Row] = []
        for row in rows:
            byte, bit = divmod(self._kept, 8)
            is_first = self._is_first[byte] >> bit & 1
            self._kept += 1
            if is_first:
                # Numbers are in the order of first rows.
                mask = self._mask(self._person)
                self._person += 1
            elif self._distinct:
                continue
            else:
                mask = 0
                for number in self._of(row)[0]:
                    mask |= self._mask(number)
            matched = tuple(event for event, bit in self._bits.items() if mask & bit)
            selected.append(replace(row, matched=matched))
        return selected

    def _of(self, row: Row) -> tuple[Sequence[int], bool]:
        self._file.day = _prefix(row)
        try:
            return self._people.of(identity_of(row.record), row.record)
        except DecodeError:
            return (self._people.unidentified(),), True

    def _mask(self, number: int) -> int:
        start = number * self._width
        return int.from_bytes(self._masks[start : start + self._width], "little")

    def _put(self, number: int, mask: int) -> None:
        start = number * self._width
        self._masks[start : start + self._width] = mask.to_bytes(self._width, "little")


class _File:
    """The file of all keys.

    Attributes:
        day: the beginning of the keys that are asked for: people of two days are two people.
    """

    day = b""

    def __init__(self, path: Path, columns: str) -> None:
        path.unlink(missing_ok=True)
        with _explained():
            self.db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            with _explained():
                for name in _SETTINGS:
                    self.db.execute(f"pragma {name}")
                self.db.execute("begin")
                for name in ("identities", "devices"):
                    self.db.execute(f"create table {name} ({columns}) without rowid")
        except BaseException:
            self.db.close()
            raise

    def mark(self, key: bytes) -> bytes:
        """Return what stands for a key."""
        return short_digest(self.day + key)

    def close(self) -> None:
        """Close the file."""
        self.db.close()


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


def _prefix(row: Row) -> bytes:
    return b"" if row.day is None else row.day.isoformat().encode()


class _Marks:
    def __init__(self, file: _File, name: str) -> None:
        self._insert = f"insert or ignore into {name} values (?)"  # noqa: S608
        self._file = file
        self._db = file.db.cursor()

    def add(self, key: bytes) -> bool:
        # Called for every record, so that a context manager would take a fifth of the time.
        try:
            return self._db.execute(self._insert, (self._file.mark(key),)).rowcount > 0
        except sqlite3.Error as error:
            raise _explained_error(error) from error


class _Numbers:
    def __init__(self, file: _File, name: str) -> None:
        self._select = f"select number from {name} where mark = ?"  # noqa: S608
        self._insert = f"insert into {name} values (?, ?)"  # noqa: S608
        self._file = file
        self._db = file.db.cursor()

    def get(self, key: bytes) -> int | None:
        try:
            row = self._db.execute(self._select, (self._file.mark(key),)).fetchone()
        except sqlite3.Error as error:
            raise _explained_error(error) from error
        return None if row is None else int(row[0])

    def put(self, key: bytes, number: int) -> None:
        try:
            self._db.execute(self._insert, (self._file.mark(key), number))
        except sqlite3.Error as error:
            raise _explained_error(error) from error
