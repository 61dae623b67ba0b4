"""A folder that `Session.sync` keeps up to date: `<folder>/day=2026-01-31/people.parquet`.

A day has one row for each account and person. A sync replaces the rows of its account on all days
of its range. It gathers each day in a private folder first, together with the rows of other
accounts that stay. Then each day takes its place by one rename, and the state comes last. A sync
that is killed in between leaves days that are newer than the state. The next one replaces them,
because it begins at the state.

Each day of the range has a file, even if it holds nobody: so a day without people differs from one
that has not been fetched.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import date, timedelta
from itertools import dropwhile, groupby
from pathlib import Path
from typing import Any, ClassVar

from msgspec import Struct

from ...base.wording import numbered
from ...errors import ExportError
from ...tables.arrow import schema_of
from ...tables.layout import KINDS, Column, Kind
from ...tables.mended import Mended
from ...tables.rows import Row, Table
from ..formats import Write
from ..state import SyncState
from ..store.spool import sync_folder
from ..tables import (
    OPTIONAL,
    Origin,
    of_added_to_days,
    of_changed_in_days,
    of_left_out,
    of_text_on_days,
)
from .files import open_same_file, set_access
from .folder import STATE, Days, FolderTarget, day_of
from .folder_day import DayFile, Earlier, accounts_in, is_damaged, names_in, types_in

__all__ = ["DaysTarget"]


class DaysTarget(FolderTarget, frozen=True, kw_only=True):
    """A folder of Parquet files, one for each day."""

    writes: ClassVar[tuple[Write, ...]] = ("upsert",)
    by_day: ClassVar[bool] = True

    def check(self) -> None:
        super().check()
        if self.path.exists():
            self.state()

    def synced(self, account: str) -> SyncState | None:
        return next((one for one in self.states() if one.account == account), None)

    def states(self) -> list[SyncState]:
        return [*self.state().accounts] if self.path.exists() else []

    def state(self) -> Days:
        """Return the content of the folder, which exists.

        Raises:
            ExportError: it is not a folder of `sync`.
        """
        content = self.content_of_folder() or Days(self.content.of)
        if not isinstance(content, Days):
            raise ExportError(
                f"{self.name} holds files of exports, and `sync` has a folder for each day; choose "
                f"another folder"
            )
        return content

    def file_of(self, day: str) -> Path:
        """Return the path of a day's file."""
        return self.path / f"day={day}" / self.whole

    def days(self) -> list[str]:
        """Return the days that have a folder, in order."""
        days = (day_of(entry.name) for entry in self.path.iterdir())
        return sorted(day for day in days if day is not None)

    def lost_days(self, account: str, first: date, last: date) -> list[date]:
        files = {day: self.file_of(day) for day in _range(first, last)}
        days = [(day, file.exists()) for day, file in files.items()]
        # Whoever keeps a number of days only removes the folders of the oldest ones. Where a
        # damaged file has been removed, its folder is left.
        remaining = [*dropwhile(lambda day: not files[day[0]].parent.exists(), days)] or days
        # A sync of another account may have brought a day again, with its own rows.
        is_shared = len(self.states()) > 1
        return [
            date.fromisoformat(day)
            for day, is_there in remaining
            if not is_there or (is_shared and not _may_have(files[day], account))
        ]

    def damaged_days(self, first: date, last: date) -> dict[date, str]:
        files = {day: self.file_of(day) for day in _range(first, last)}
        return {
            date.fromisoformat(day): str(file) for day, file in files.items() if is_damaged(file)
        }

    def open(self, table: Table, origin: Origin) -> DaysSink:
        return DaysSink(self, table, origin)


class _Staged(Struct, frozen=True):
    """A day's file that waits for its place."""

    place: Path
    path: Path
    status: os.stat_result


class _Changed:
    """A flattened column whose type changes.

    Args:
        column: the column.
        type_: its Arrow type.

    Attributes:
        others: the type that days have which the run does not bring, the newest day first.
    """

    def __init__(self, column: Column, type_: Any) -> None:
        self.others: dict[str, Any] = {}
        self._column = column
        self._type = type_

    def look_at(self, day: str, types: Mapping[str, Any]) -> None:
        """Note the type that the column has in a day's file."""
        type_ = types.get(self._column.name.casefold(), self._type)
        if type_ != self._type:
            self.others[day] = type_

    def note(self, label: str, through: date) -> str:
        """Return the note on it."""
        types = _named(self.others.values())
        late = _late_days(min(self.others), through)
        return of_changed_in_days(label, self._column, types, len(self.others), late)


class DaysSink:
    absorbed = 0

    def __init__(self, target: DaysTarget, table: Table, origin: Origin) -> None:
        assert origin.sync is not None  # noqa: S101
        assert origin.days is not None  # noqa: S101
        self._target = target
        self._origin = origin
        self._new = origin.sync
        self._turn = target.turn()
        self._tables: dict[tuple[str, ...], Table] = {(): table}
        self._texts: dict[str, list[str]] = {}
        self._notes_on_texts: list[str] = []
        self._staged: list[_Staged] = []
        self.earlier_columns: Sequence[str] = ()
        self._day: DayFile | None = None
        self._date: str | None = None
        try:
            state = target.state()
            self._others = [one for one in state.accounts if one.account != self._new.account]
            own = next((one for one in state.accounts if one not in self._others), None)
            self._new = self._new.beyond(own)
            days = _range(*origin.days)
            # A run that is finished late must not bring back what a later one has replaced. A day
            # that somebody has removed has nothing to bring back to.
            is_late = own is not None and own.synced_at > origin.fetched_at and not own.is_ahead
            self._left_out = {
                day
                for day in days
                if is_late and own and day <= str(own.through) and target.file_of(day).exists()
            }
            strays = () if own is not None else self._stray_days(days)
            brought = [*(day for day in days if day not in self._left_out), *strays]
            self._notes_on_columns = self._compare_columns(brought)
            self._days = iter(brought)
            self._turn.temporary.mkdir(mode=0o700)
        except BaseException:
            self._turn.end()
            raise

    def _stray_days(self, days: Sequence[str]) -> Iterator[str]:
        """Yield days beside `days` that have rows of this account, which has no state.

        They are of its first sync, which was killed, and perhaps had another range.
        """
        for day in self._target.days():
            if day not in days and self._earlier(day).has_own:
                yield day

    def _compare_columns(self, brought: Sequence[str]) -> list[str]:
        """Return notes on flattened columns that other days lack, or have with another type.

        The newest file with a column decides, so that there is a note on the first night only.
        """
        target = self._target
        columns = self._tables[()].columns
        lifted = columns[len(columns) - len(target.flatten) :]
        added = {column.name.casefold(): column for column in lifted}
        changed: list[_Changed] = []
        lacking: list[str] = []
        earlier: set[str] = set()
        notes = self._note_left_out(brought)
        # The newest file has them all, but for the first night.
        for day in reversed(target.days()):
            if earlier and not added and not changed:
                break
            types, has_rows = types_in(target.file_of(day))
            found = [column for name, column in added.items() if name in types]
            changed += self._changed(found, types, day)
            added = {name: column for name, column in added.items() if name not in types}
            if has_rows:
                earlier.update(types)
            if has_rows and day not in brought:
                lacking.append(day)
                for one in changed:
                    one.look_at(day, types)
        self.earlier_columns = [one.name for one in lifted if one.name.casefold() in earlier]
        through = self._new.through
        if added and lacking:
            names = [column.name for column in added.values()]
            late = _late_days(lacking[-1], through)
            notes.append(of_added_to_days(target.name, names, len(lacking), late))
        return notes + [one.note(target.name, through) for one in changed if one.others]

    def _note_left_out(self, brought: Sequence[str]) -> list[str]:
        """Return the note on flattened columns of the newest file that this run leaves out."""
        days = self._target.days()
        if {*days} <= {*brought}:
            return []
        columns = self._tables[()].columns
        known = {name.casefold() for name in (*OPTIONAL, *(column.name for column in columns))}
        newest = self._target.file_of(days[-1])
        names = names_in(newest) if _may_have(newest, self._new.account) else ()
        left_out = [name for name in names if name.casefold() not in known]
        if not left_out:
            return []
        target = self._target
        return [of_left_out(target.name, left_out, self._origin, target.write, is_folder=True)]

    def _changed(
        self, found: Sequence[Column], types: Mapping[str, Any], day: str
    ) -> list[_Changed]:
        """Return the columns whose type differs from that in a day's file, found by this run."""
        fields = [field for column in found for field in schema_of([column])]
        if all(types[field.name.casefold()] == field.type for field in fields):
            return []
        # Rows of other accounts decide on the type of a file that they are in, each night.
        clashing = self._earlier(day).clashing(found)
        return [
            _Changed(column, field.type)
            for column, field in zip(found, fields, strict=True)
            if types[field.name.casefold()] != field.type and field.name not in clashing
        ]

    def _earlier(self, day: str) -> Earlier:
        assert self._origin.days is not None  # noqa: S101
        again = "the next run brings the day again"
        if day not in _range(*self._origin.days):
            late = _late_days(day, self._new.through)
            again = f"sync once with `late_days={late}` or more, which brings the day again"
        remedy = f"remove it; {again}"
        return Earlier(self._target.file_of(day), self._new.account, remedy)

    @property
    def mended(self) -> Mended:
        return sum((table.mended for table in self._tables.values()), Mended())

    @property
    def notes(self) -> list[str]:
        sentences = [*self._notes_on_texts, *self._notes_on_columns]
        if self._left_out:
            days = numbered(len(self._left_out), "day")
            sentences.append(f"{self._target.name} keeps {days} as a later sync has fetched them")
        return sentences

    def write(self, rows: Sequence[Row]) -> None:
        for date_, of_day in groupby(rows, key=lambda row: row.day):
            day = str(date_)
            if day in self._left_out:
                continue
            while self._date != day:
                self._next()
            assert self._day is not None  # noqa: S101
            self._day.write(of_day)

    def _next(self) -> bool:
        """Complete a day, and begin the next; return whether there is one."""
        if self._day is not None:
            path = self._day.path
            status = self._day.close()
            assert self._date is not None  # noqa: S101
            self._staged.append(_Staged(self._target.file_of(self._date), path, status))
            self._day = None
        self._date = next(self._days, None)
        if self._date is None:
            return False
        earlier = self._earlier(self._date)
        table = self._table(earlier)
        # No reader takes a file of that name for one of Parquet.
        path = self._turn.temporary / self._date
        self._day = DayFile(path, table, earlier, self._accounts_of(self._date, earlier))
        return True

    def _accounts_of(self, day: str, earlier: Earlier) -> list[str]:
        """Return the accounts for which the new file of a day has been synced."""
        accounts = earlier.accounts
        if accounts is None:
            accounts = [one.account for one in self._others if day <= str(one.through)]
        return sorted({*accounts, self._new.account})

    def _table(self, earlier: Earlier) -> Table:
        """Return the table of a day, whose columns are text where those of other rows differ."""
        columns = self._tables[()].columns
        texts = tuple(sorted(earlier.clashing(columns)))
        for name in texts:
            self._texts.setdefault(name, []).append(str(self._date))
        if texts not in self._tables:
            content, flatten = self._target.content, self._target.flatten
            names = [column.name for column in columns[len(columns) - len(flatten) :]]
            kinds: dict[str, Kind | None] = {
                key: "text" if name in texts else kind
                for name, (key, kind) in zip(names, flatten.items(), strict=True)
            }
            self._tables[texts] = content.table(kinds, None, self._origin)
        return self._tables[texts]

    def close(self) -> None:
        while self._next():
            pass
        target = self._target
        # So that no folder of a day stands in a folder that nobody has named ours.
        if not (target.path / STATE).exists():
            target.put(Days(target.content.of))
        self._turn.check()
        for staged in self._staged:
            _put_in_place(staged)
        for staged in self._staged:
            sync_folder(staged.place.parent)
        sync_folder(target.path)
        accounts = sorted([*self._others, self._new], key=lambda one: one.account)
        target.put(Days(target.content.of, tuple(accounts)))
        if self._texts:
            self._notes_on_texts = self._describe_texts()
        self._turn.end()

    def _describe_texts(self) -> list[str]:
        """Return the notes on columns that are text on days with rows of other accounts."""
        days = {
            day: types
            for day in self._target.days()
            for types, has_rows in [types_in(self._target.file_of(day))]
            if has_rows
        }
        wanted = {field.name: field.type for field in schema_of(self._tables[()].columns)}
        notes = []
        for name, texts in self._texts.items():
            found = {day: types.get(name.casefold()) for day, types in days.items()}
            differing = [day for day, type_ in found.items() if type_ not in (None, wanted[name])]
            # Unless somebody has just removed the files of these days.
            differing = differing or [*texts]
            others = [type_ for day, type_ in found.items() if type_ and day not in texts]
            wrong = (differing[0], differing[-1])
            late = _late_days(differing[0], self._new.through)
            types = [type_ for type_ in _named(others) if type_ != "text"]
            notes.append(of_text_on_days(name, len(texts), types, wrong, late))
        return notes

    def abort(self) -> None:
        if self._day is not None:
            self._day.abort()
            self._day = None
        self._turn.end()


def _named(types: Iterable[Any]) -> list[str]:
    """Return the names in `flatten` of Arrow types, each once."""
    names = {schema_of([Column("", kind)]).field(0).type: kind for kind in KINDS}
    return [*dict.fromkeys(str(names.get(type_, type_)) for type_ in types)]


def _may_have(file: Path, account: str) -> bool:
    """Return whether a day's file has been synced for an account, as far as it says so."""
    accounts = accounts_in(file)
    return accounts is None or account in accounts


def _late_days(first: str, through: date) -> int:
    """Return the number of late days that brings a day again."""
    return (through - date.fromisoformat(first)).days + 1


def _range(first: date, last: date) -> list[str]:
    return [str(first + timedelta(days=number)) for number in range((last - first).days + 1)]


def _put_in_place(staged: _Staged) -> None:
    folder = staged.place.parent
    with suppress(FileExistsError):
        folder.mkdir()
    if not stat.S_ISDIR(folder.lstat().st_mode):
        raise ExportError(f"{folder} has become a link or a file; remove it")
    with open_same_file(staged.path, staged.status) as file:
        set_access(file.fileno(), staged.place)
    staged.path.replace(staged.place)
