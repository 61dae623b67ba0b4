"""Tables of keys in the journal, each key with the outcome of its lookup. Blocking."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import count, repeat

from msgspec import Struct

__all__ = ["FAILED", "FOUND", "INVALID", "NOT_FOUND", "Answer", "KeyList", "KeyTable", "Missing"]

FOUND, NOT_FOUND, FAILED, INVALID = range(1, 5)
"""Outcomes of a key.

A resumed export looks failed keys up again, but not invalid ones: those are refused as such, by the
service or by this library.
"""

_AT_ONCE = 500
"""Keys in one query. Older builds of SQLite take at most 999 parameters."""


class Missing(Struct, frozen=True):
    """Numbers of keys not found, by what they look like.

    Attributes:
        like_floats: digits and `.0`.
        with_at: text with an @, as e-mail addresses have.
        with_blanks: text with blanks at an end.
        shortened: numbers as a spreadsheet shortens them.
        with_capitals: text with an @ and an upper-case letter of ASCII.
        with_apostrophe: text with an apostrophe in front.
    """

    like_floats: int = 0
    with_at: int = 0
    with_blanks: int = 0
    shortened: int = 0
    with_capitals: int = 0
    with_apostrophe: int = 0


class Answer(Struct):
    """The outcome of one key.

    Attributes:
        key: the key.
        outcome: `FOUND`, `NOT_FOUND`, `FAILED` or `INVALID`; None for a key without an answer.
        offset, length: the record's place in the spool, in bytes, for a key that was found.
        error, message: the class and the text of the error, for a key that failed or is invalid.
        checksum: of the record; None if an earlier version has written it.
    """

    key: str
    outcome: int | None
    offset: int | None = None
    length: int | None = None
    error: str | None = None
    message: str | None = None
    checksum: int | None = None


class KeyTable:
    """A table of keys and their outcomes. Changes belong into a transaction of the journal.

    Args:
        db: the journal's connection.
        name: the name of the table.
        explained: returns a context that turns SQLite's errors into those of this library.
    """

    def __init__(
        self,
        db: sqlite3.Connection,
        name: str,
        explained: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._db = db
        self._name = name
        self._explained = explained

    def put(self, keys: Iterable[str], first: int | None = None) -> int:
        """Add the keys that are new, and return their number.

        Args:
            keys: the keys.
            first: the number of the first of `keys`; None to number the new ones in turn.
        """
        before = self._db.total_changes
        self._db.executemany(
            f"insert or ignore into {self._name} (number, key) values (?, ?)",  # noqa: S608
            zip(repeat(None) if first is None else count(first), keys),  # noqa: B905
        )
        return self._db.total_changes - before

    def drop(self) -> None:
        """Delete every key."""
        self._db.execute(f"delete from {self._name}")  # noqa: S608

    def put_answers(self, answers: Iterable[Answer]) -> None:
        """Store the outcomes of keys."""
        self._db.executemany(
            f"update {self._name} set outcome = ?, offset = ?, length = ?, error = ?, "  # noqa: S608
            "message = ?, checksum = ? where key = ?",
            [
                (a.outcome, a.offset, a.length, a.error, a.message, a.checksum, a.key)
                for a in answers
            ],
        )

    def fail_unanswered(self, error: str, message: str) -> None:
        """Make every key without an answer a failed one, with this error."""
        self._db.execute(
            f"update {self._name} set outcome = ?, error = ?, message = ? "  # noqa: S608
            "where outcome is null",
            (FAILED, error, message),
        )

    def fail_answered(self, keys: Iterable[str], error: str, message: str) -> int:
        """Make those of these keys failed ones that have an answer, and return their number."""
        before = self._db.total_changes
        self._db.executemany(
            f"update {self._name} set outcome = ?, error = ?, message = ? "  # noqa: S608
            "where key = ? and outcome in (?, ?)",
            [(FAILED, error, message, key, FOUND, NOT_FOUND) for key in keys],
        )
        return self._db.total_changes - before

    def forget_answers(self, keys: Iterable[str]) -> None:
        """Make these keys unanswered again."""
        self._db.executemany(
            f"update {self._name} set outcome = null where key = ?",  # noqa: S608
            [(key,) for key in keys],
        )

    def forget_failures(self) -> None:
        """Make failed keys unanswered again."""
        self._db.execute(
            f"update {self._name} set outcome = null where outcome = ?",  # noqa: S608
            (FAILED,),
        )

    def forget_refusals(self, other_than: str) -> None:
        """Make refused keys unanswered again, but for those with an error of this name."""
        self._db.execute(
            f"update {self._name} set outcome = null where outcome = ? and error <> ?",  # noqa: S608
            (INVALID, other_than),
        )

    def tally(self) -> dict[int | None, int]:
        """Return the number of keys by outcome; None stands for unanswered keys."""
        with self._explained():
            rows = self._db.execute(
                f"select outcome, count(*) from {self._name} group by outcome"  # noqa: S608
            )
            return dict(rows.fetchall())

    def missing(self) -> Missing:
        """Return the numbers of keys not found that look like something else, in one reading."""
        forms = (
            _IS_FLOAT,
            _HAS_AT,
            _HAS_BLANKS,
            _IS_SHORTENED,
            _HAS_CAPITALS,
            _HAS_APOSTROPHE,
        )
        totals = ", ".join(f"total({one})" for one in forms)
        with self._explained():
            numbers = self._db.execute(
                f"select {totals} from {self._name} where outcome = ?",  # noqa: S608
                (NOT_FOUND,),
            ).fetchone()
        return Missing(*map(int, numbers))

    def unanswered(self, after: int, count: int) -> list[tuple[int, str]]:
        """Return up to `count` unanswered keys and their numbers, in order from `after` + 1 on."""
        with self._explained():
            return self._db.execute(
                f"select number, key from {self._name} where outcome is null "  # noqa: S608
                "and number > ? order by number limit ?",
                (after, count),
            ).fetchall()

    def answered(self, outcomes: Sequence[int], after: int, count: int) -> list[tuple[int, Answer]]:
        """Return up to `count` such answers and their numbers, in order from `after` + 1 on."""
        marks = _marks(outcomes)
        with self._explained():
            rows = self._db.execute(
                f"select * from {self._name} where outcome in ({marks}) "  # noqa: S608
                "and number > ? order by number limit ?",
                (*outcomes, after, count),
            ).fetchall()
        return [(number, Answer(*values)) for number, *values in rows]

    def in_order(self, outcomes: Sequence[int], count: int) -> Iterator[list[Answer]]:
        """Yield all such answers in their order, up to `count` at once."""
        last = -1
        while rows := self.answered(outcomes, last, count):
            yield [answer for _, answer in rows]
            last = rows[-1][0]

    def found_behind(self, offset: int) -> list[Answer]:
        """Return the answers whose records begin at `offset` of the spool, or behind it."""
        with self._explained():
            rows = self._db.execute(
                f"select * from {self._name} where outcome = ? and offset >= ?",  # noqa: S608
                (FOUND, offset),
            ).fetchall()
        return [Answer(*values) for _, *values in rows]

    def of(self, keys: Sequence[str]) -> dict[str, Answer]:
        """Return those of `keys` that are in the table, with their answers."""
        found: dict[str, Answer] = {}
        for start in range(0, len(keys), _AT_ONCE):
            some = keys[start : start + _AT_ONCE]
            with self._explained():
                rows = self._db.execute(
                    f"select * from {self._name} where key in ({_marks(some)})",  # noqa: S608
                    some,
                ).fetchall()
            found |= {answer.key: answer for _, *values in rows for answer in [Answer(*values)]}
        return found


class KeyList:
    """A list of some keys of a `KeyTable`, in an order of its own.

    Args:
        db, explained: as for `KeyTable`.
        name: the name of the list's table.
        answers_in: the name of the table that has the answers.
    """

    def __init__(
        self,
        db: sqlite3.Connection,
        name: str,
        answers_in: str,
        explained: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._db = db
        self._name = name
        self._answers_in = answers_in
        self._explained = explained

    def clear(self) -> None:
        """Delete every key."""
        self._db.execute(f"delete from {self._name}")  # noqa: S608

    def append(self, keys: Iterable[str]) -> None:
        """Add those of `keys` that are not in the list."""
        self._db.executemany(
            f"insert or ignore into {self._name} (key) values (?)",  # noqa: S608
            [(key,) for key in keys],
        )

    def answers(self, count: int) -> Iterator[list[Answer]]:
        """Yield the answers to all keys, up to `count` at once."""
        last = -1
        while True:
            with self._explained():
                rows = self._db.execute(
                    f"select list.number, answers.* from {self._name} as list "  # noqa: S608
                    f"join {self._answers_in} as answers on answers.key = list.key "
                    "where list.number > ? order by list.number limit ?",
                    (last, count),
                ).fetchall()
            if not rows:
                return
            yield [Answer(*values) for _, _, *values in rows]
            last = rows[-1][0]


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))


_IS_FLOAT = "key glob '[0-9]*.0' and substr(key, 1, length(key) - 2) not glob '*[^0-9]*'"
_HAS_AT = "instr(key, '@') > 0"
_HAS_CAPITALS = "key glob '*@*' and key glob '*[A-Z]*'"
_HAS_APOSTROPHE = "key glob '''*'"
_HAS_BLANKS = "trim(key, ' ' || char(9, 10, 13, 160)) != key"
_IS_SHORTENED = (
    # Such as 9.2E+11, but not an ID such as 12E5.
    "key glob '[0-9]*[eE]*[0-9]' and key not glob '*[^0-9.,eE+]*'"
    " and (instr(key, '.') or instr(key, '+'))"
)
