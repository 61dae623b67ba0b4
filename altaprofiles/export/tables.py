"""The tables of exports: people, people by key, and the bindings of CDP users. Pure.

An upsert of people is the same in every database. Rows without an identity are *nameless*.

- A person is one row, with the key (`account`, `person`). Of several records of a person, as under
  two keys of a lookup, the first one counts, and the devices of the others are the person's, too.
- Rows of earlier exports become part of that row: the one with its key; if it is nameless, those
  nameless ones of the account that share an `objectId` with it; else those of them that are not
  continued by a nameless record of this export, nor were fetched later. The last are *absorbed*.
- If one of the rows that the person continues was fetched later, it stays, the record is left out,
  and the other rows become part of the row that stays.
- `added_at` is the earliest of all these rows. A row whose other columns are equal is left alone.
- A flattened column that the export leaves out becomes null.
- Other columns that it leaves out are left alone: `key`, `matched`, `cdp`, and columns of the
  user's own. So is `cdp` where it is null, because a lookup has failed. Where rows become one, the
  values are those of the row with the key, then those of the row that was fetched last, and so on
  until one is not null. A row leaves its values to one other only. In rows of new people, the
  user's own columns have their default.

With `write="replace"` the table stays, and all its rows are replaced by such new ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import Any, Literal

import msgspec
from msgspec import Struct

from ..base.wording import numbered
from ..models.customer import Found
from ..models.people import person_of
from ..tables.columns import Columns
from ..tables.kinds import Kinds
from ..tables.layout import CORE_COLUMNS, RESERVED, Column, Kind
from ..tables.mended import Mended
from ..tables.rows import Row, Table, lifted_columns
from .formats import Write
from .state import Left, Lost, SyncState

__all__ = [
    "OPTIONAL",
    "REFUSED_AGAIN",
    "Content",
    "Origin",
    "answers_in_sql",
    "if_renamed",
    "losses_of",
    "of_added",
    "of_added_to_days",
    "of_changed_in_days",
    "of_left_out",
    "of_lost_rows",
    "of_outdated",
    "of_text_on_days",
    "of_unfilled",
    "to_keep_values",
    "to_restore",
    "unbound_keys",
    "unbound_row",
    "under_other_keys",
]


OPTIONAL = ("key", "matched", "cdp")
"""The columns that only some exports of people have."""

REFUSED_AGAIN = (
    "; the same run is refused again until the constraint allows these rows: alter the table, or "
    "correct the values where they come from"
)
"""The end of an error of rows that a constraint of a table does not allow."""


def of_left_out(
    label: str, columns: Sequence[str], origin: Origin, write: Write, *, is_folder: bool = False
) -> str:
    """Return the note on flattened columns of a table that an export leaves out.

    Args:
        label: the table, or a folder of days.
        columns: the names of the columns.
        origin: the export.
        write: the way in which it writes rows.
        is_folder: whether it is a folder, whose columns end with the last day that has them.
    """
    names = ", ".join(map(repr, columns))
    noun, them = ("a column", "it") if len(columns) == 1 else ("columns", "them")
    note = f"{label} has {noun} that `flatten` leaves out, null in the rows just written: {names}"
    if write == "append":
        return f"{note}; name {them} there the next time, as these rows stay so"
    again = "run this export again"
    if origin.days is not None:
        first, last = origin.days
        late = (last - first).days + 1
        again = f"sync once with `late_days={late}` (later more, back to {first})"
    drop = "" if is_folder else f"; if nobody needs {them}, drop {them}"
    return f"{note}; to fill {them}, name {them} there again, and {again}{drop}"


def of_outdated(label: str, rows: int, content: Content, origin: Origin) -> str:
    """Return the note on rows that stay as a later export has fetched them.

    Args:
        label: the table.
        rows: their number.
        content: the kind of rows.
        origin: the export.
    """
    note = f"{label} keeps {numbered(rows, 'row')} as a later export has fetched them"
    if content.has_events and origin.sync is None:
        note += ", without the events of this one in `matched`"
    return note


def of_unfilled(label: str, added: Sequence[str], unfilled: Sequence[str]) -> str:
    """Return the note on columns that lose their values where a replaced table gets others.

    Exports know columns by name, so that one of them may be the new column, renamed.

    Args:
        label: the table.
        added: the names of the new columns.
        unfilled: the names of the columns that no export fills.
    """
    noun, _, names = _new_columns(added)
    others, one = ("a column", "it") if len(unfilled) == 1 else ("columns", "one of them")
    return (
        f"{label} has {noun}: {names}; and {others} that no export fills, null in all rows "
        f"now: {', '.join(map(repr, unfilled))}. If {one} was renamed from a name that "
        f"came back, drop it, and give readers its name in a view"
    )


def of_added(
    label: str,
    added: Mapping[str, str],
    flattened: Iterable[str],
    unfilled: Mapping[str, str],
    content: Content,
) -> str | None:
    """Return the note on columns that an upsert adds to a table with rows, or None.

    Args:
        label: the table.
        added: the types of the new columns, by name.
        flattened: the names of the columns of flattened keys.
        unfilled: the types of the columns that no export fills, one of which may be a new one,
            renamed, by name.
        content: the kind of rows.
    """
    known = {*flattened}
    lost = {name: added[name] for name in _IF_RENAMED if name in added}
    renamed = [
        name
        for name, type_ in unfilled.items()
        if type_ in (*lost.values(), *(added[one] for one in added if one in known))
    ]
    known |= {name for name, type_ in lost.items() if type_ in map(unfilled.get, renamed)}
    columns = [name for name in added if name in known]
    if not columns:
        return None
    noun, them, names = _new_columns(columns)
    return (
        f"{label} has {noun}, null in the rows, of any account, that this run did not bring: "
        f"{names}; to fill {them}, {_once_for_all(content)}{if_renamed(renamed)}"
    )


_IF_RENAMED = ("matched", "cdp")
"""Columns that only some exports have. They are new in other tables as well, without a note."""


def if_renamed(columns: Sequence[str]) -> str:
    """Return the advice on columns that somebody may have renamed, for the end of a note.

    By then their old names are columns again, with the values of later runs.
    """
    if not columns:
        return ""
    it = repr(columns[0]) if len(columns) == 1 else f"one of {', '.join(map(repr, columns))}"
    return (
        f"; if {it} was renamed from a name that exports fill, copy its values to the column of "
        f"that name, in the rows that no later run has brought (by fetched_at), drop it, and give "
        f"readers its name in a view"
    )


def losses_of(
    origin: Origin, state: SyncState, left: Left, rows: int, latest: int | None
) -> tuple[Lost, ...]:
    """Return what is lost of the rows that the runs before have left.

    What other runs have found stays with the rows, as these may have been killed before they told.

    Args:
        origin: the export that has found the rows.
        state: the state of the rows of one account.
        left: the rows as they were left.
        rows, latest: the rows as they are, like those of `left`.
    """
    if origin.brings(state):
        return ()
    own = [lost for lost in left.losses if lost.run == origin.run]
    others = [lost for lost in left.losses if lost.run != origin.run]
    if rows < left.rows or (left.latest is not None and (latest is None or latest < left.latest)):
        own = [Lost(origin.run, rows, left.rows, (state.through - state.since).days + 1)]
    return (*others[-_OTHERS:], *own)


_OTHERS = 4
"""Number of other runs whose losses stay with the rows: more than are killed one upon the other."""


def of_lost_rows(label: str, account: str, origin: Origin, losses: Sequence[Lost]) -> str | None:
    """Return the note on a table that has lost rows since a run has written it.

    Args:
        label: the table.
        account: the account of the rows.
        origin: the export that notes it.
        losses: as from `losses_of`.

    Returns:
        The note, or None if that export has found none lost.
    """
    if not losses or (lost := losses[-1]).run != origin.run:
        return None
    what = f"older rows of the account {account} than the last run has left"
    if lost.rows < lost.before:
        rows = numbered(lost.rows, "row")
        what = f"{rows} of the account {account}, of {lost.before:,} after the last run"
    return (
        f"{label} has {what}: somebody has deleted rows, restored an older backup of the table, or "
        f"merged people by an export that may not write its state (altaprofiles_sync), and no sync "
        f"fetches them again by itself; if they are to stay away, do nothing; to bring all, sync "
        f"this account once with `late_days={lost.days}` or more, or, after a backup, with the "
        f"days since it was made"
    )


def to_keep_values(change: str, content: Content, write: Write) -> str:
    """Return the advice on columns of a table that are null where a value has another type.

    Args:
        change: the statement that makes text of the columns.
        content: the kind of rows.
        write: the way in which rows are written.
    """
    filled = _filled("rows that are null by then", content, write)
    if write != "replace":
        filled += (
            "; where `profile_data` is kept, an UPDATE fills them as well (`altaprofiles guide "
            'every-night`, "Schema evolution")'
        )
    return f'to keep every value, run: {change}; then name the type "text"{filled}'


def to_restore(statement: str, them: str, content: Content, write: Write) -> str:
    """Return the advice on columns of a table of an export that somebody has renamed or dropped.

    Args:
        statement: the statement that adds them again; empty if that would not do.
        them: "it" if it is one column, or "them".
        content: the kind of rows.
        write: the way in which rows are written.
    """
    view = f"rename {them} back, and give readers a view with names of their own"
    if not statement:
        return view
    filled = _filled("the rows that are there", content, write)
    were = "it was" if them == "it" else "they were"
    return f"{view}; if {were} dropped, run: {statement}{filled}"


def _filled(rows: str, content: Content, write: Write) -> str:
    """Return how columns of some rows are filled, for the end of a sentence."""
    if write == "replace":
        return ", and export again"
    if write == "append":
        return f"; {rows} stay null"
    return f"; to fill {rows}, {_once_for_all(content)}"


def _once_for_all(content: Content) -> str:
    remedy = "export everyone once"
    if content.has_key or content.of == "bindings":
        remedy = "look up all keys of the table once"
    elif content.has_events:
        remedy = (
            "export all events and days of the table once, or sync it once with `late_days` of all "
            "its days"
        )
    return f"{remedy}, with the same `flatten`"


def of_added_to_days(label: str, columns: Sequence[str], days: int, late_days: int) -> str:
    """Return the note on flattened columns that a sync adds to a folder of days.

    Args:
        label: the folder.
        columns: the names of the columns.
        days: number of days with rows that the sync does not bring.
        late_days: the argument that brings all of them.
    """
    noun, them, names = _new_columns(columns)
    files = "the file of 1 other day lacks" if days == 1 else f"the files of {days} other days lack"
    return (
        f"{label} has {noun}, which {files}: {names}; to fill {them}, sync once with "
        f"`late_days={late_days}` or more, and the same `flatten`"
    )


def of_changed_in_days(
    label: str, column: Column, types: Sequence[str], days: int, late_days: int
) -> str:
    """Return the note on a flattened column whose type a sync changes in a folder of days.

    Args:
        label: the folder.
        column: the column, as the sync writes it.
        types: its other types, in files of days that the sync does not bring.
        days: number of those days.
        late_days: the argument that brings all of them.
    """
    files = "the file of 1 other day has" if days == 1 else f"the files of {days} other days have"
    return (
        f"{label} has {column.name!r} as {column.kind} now, and {files} it as "
        f"{' or '.join(types)}, which not every reader can unite; name that type again in "
        f"`flatten`, or sync once with `late_days={late_days}` or more, and the same `flatten`"
    )


def of_text_on_days(
    name: str, days: int, types: Sequence[str], wrong: tuple[str, str], late_days: int
) -> str:
    """Return the note on a flattened column that is text for the sake of other accounts' rows.

    Args:
        name: the column.
        days: number of days on which a sync writes it as text.
        types: types of the column on other days, beside text.
        wrong: the first and the last day that have another type than the sync names.
        late_days: the argument that brings all of those.
    """
    others = ""
    if types:
        others = f"; other days have it as {' or '.join(types)}, which not every reader can unite"
    first, last = wrong
    files = f"the file of the day {first}"
    if first != last:
        files = f"the files of the days from {first} to {last}"
    return (
        f"the column {name!r} is text on {days:,} of the days, where rows of other accounts have "
        f"values of another type in it{others}; for one type, remove {files}, and sync every "
        f"account once with `late_days={late_days}` or more, and the same `flatten`"
    )


def _new_columns(columns: Sequence[str]) -> tuple[str, str, str]:
    """Return the words for new columns, the pronoun, and the names."""
    noun, them = ("a new column", "it") if len(columns) == 1 else ("new columns", "them")
    return noun, them, ", ".join(map(repr, columns))


def under_other_keys(label: str, count: int) -> str:
    """Return the sentence for records of people whom an earlier key of a lookup has found.

    Args:
        label: the table.
        count: number of those records.
    """
    return (
        f"{label} has one row for each person; left out: {numbered(count, 'key')} of people who "
        f"stand there under another key"
    )


_DIGEST = re.compile("[0-9a-f]{16}")
"""The account of an agent of Alta that has no name, as `Alta.account`."""


def answers_in_sql(content: Content, by: str) -> str:
    """Return the condition in SQL that holds for rows which a lookup by a kind of key has found.

    A profile does not have to have the key in one of its columns.
    """
    return f"key = {by}" if content.of == "bindings" else "key IS NOT NULL"


class Origin(Struct, frozen=True):
    """The export that rows come from.

    Attributes:
        run: identifies the export, over all runs that resume it.
        accounts: the accounts whose rows it brings.
        fetched_at: the time at which it was begun.
        sync: the state that a table has with these rows, for an export of `Session.sync`. Then
            `matched` is united with that of the row before.
        days: the first and the last day that it brings, for an export of `Session.sync`.
        others: accounts whose rows the same run of the command brings by themselves.
        is_once: whether it brings each person once, as their records tell people apart.
        is_written: whether an earlier run of it has written its rows, without some answers.
    """

    run: str
    accounts: tuple[str, ...]
    fetched_at: datetime
    sync: SyncState | None = None
    days: tuple[date, date] | None = None
    others: tuple[str, ...] = ()
    is_once: bool = False
    is_written: bool = False

    def brings(self, state: SyncState) -> bool:
        """Return whether it brings all days of the rows with a state once more."""
        return self.sync is not None and self.days is not None and self.days[0] <= state.since

    def of_other_accounts(self, label: str, known: Sequence[tuple[str | None, int]]) -> str | None:
        """Return the note on bindings that come under other accounts than all those of a table.

        Args:
            label: the table.
            known: the accounts that it has, and the number of rows of each.
        """
        before = {str(account) for account, _ in known}
        if not known or {*self.accounts, *self.others} & before:
            return None
        # Two names were given on purpose, and are those of two agents.
        if not any(map(_DIGEST.fullmatch, (*self.accounts, *before))):
            return None
        rows = numbered(sum(count for _, count in known), "row")
        names = ", ".join(sorted(before))
        return (
            f"{label} has {rows} of other accounts ({names}), and gets those of "
            f"{', '.join(self.accounts)} beside them; if that is the same agent of Alta, its users "
            f"are there twice: name it the same each time (the saved account, ALTA_NAME in the "
            f"environment, Alta(name=) in Python), and delete the rows of the other name"
        )


class Content(Struct, frozen=True, kw_only=True):
    """The kind of rows that an output has, and so its columns.

    Attributes:
        of: "people", a row each, or "bindings", a row for each anonymous ID of a CDP user.
        has_key: whether people were looked up by a key.
        has_events: whether people were brought by events.
        has_cdp: whether people are joined with their CDP users.
        repeats: whether a person in several records is in as many rows.
    """

    of: Literal["people", "bindings"] = "people"
    has_key: bool = False
    has_events: bool = False
    has_cdp: bool = False
    repeats: bool = False

    @property
    def default_table(self) -> str:
        """The name of the table, in databases."""
        return "profiles" if self.of == "people" else "bindings"

    @property
    def identifies(self) -> tuple[str, ...]:
        """The columns by which rows of earlier runs are found."""
        return ("account", "person") if self.of == "people" else ("account", "key")

    @property
    def reserved(self) -> tuple[str, ...]:
        """Names of columns that a flattened key cannot take."""
        return RESERVED if self.of == "people" else ()

    def columns(
        self, flatten: Mapping[str, Kind | None], kinds: Kinds | None
    ) -> tuple[Column, ...]:
        """Return the columns, in order.

        Args:
            flatten: the flattened keys.
            kinds: their types; None where they are text unless `flatten` names a type.
        """
        if self.of == "bindings":
            return tuple(Column(name, "text") for name in _BINDINGS)
        return (
            *([Column("key", "text")] if self.has_key else ()),
            Column("account", "text"),
            Column("person", "text"),
            *CORE_COLUMNS,
            *([Column("matched", "texts")] if self.has_events else ()),
            Column("fetched_at", "timestamp"),
            Column("added_at", "timestamp"),
            *([Column("cdp", "json")] if self.has_cdp else ()),
            *lifted_columns(flatten, kinds, reserved=self.reserved),
        )

    def table(
        self,
        flatten: Mapping[str, Kind | None],
        kinds: Kinds | None,
        origin: Origin,
    ) -> Table:
        """Return the table of one export.

        Args:
            flatten, kinds: as for `columns`.
            origin: the export.
        """
        columns = self.columns(flatten, kinds)
        if self.of == "bindings":
            return _Bindings(columns)
        return _People(self, columns, [*flatten], origin.fetched_at)


class _People:
    def __init__(
        self,
        content: Content,
        columns: Sequence[Column],
        keys: Sequence[str],
        fetched_at: datetime,
    ) -> None:
        self.columns = columns
        self.mended = Mended()
        self._content = content
        self._keys = keys
        self._lifted = columns[len(columns) - len(keys) :]
        self._fetched_at = fetched_at

    def cells(self, rows: Sequence[Row]) -> list[list[Any]]:
        content = self._content
        records = [row.record for row in rows]
        parts = Columns(records, self._keys)
        times = [self._fetched_at] * len(rows)
        cells = [
            *([[row.key for row in rows]] if content.has_key else ()),
            [row.account for row in rows],
            [*map(person_of, parts.texts[0], parts.object_ids, records)],
            *parts.core,
            *([[[*row.matched] for row in rows]] if content.has_events else ()),
            times,
            times,
            *([[row.cdp for row in rows]] if content.has_cdp else ()),
            *parts.lift(self._lifted),
        ]
        self.mended += parts.mended
        return cells


_BINDINGS = ("account", "key", "user_id", "anonymous_id", "conversation_type", "source_id")

_FOUND = msgspec.json.Decoder(Found)


def unbound_row(account: str, key: str) -> Row:
    """Return the row of a key to which nothing is bound. It has no cells in a table."""
    return Row(msgspec.json.encode(Found(key, [])), account, key)


def unbound_keys(rows: Sequence[Row], cells: Sequence[list[Any]]) -> list[tuple[str, str]]:
    """Return the account and the key of each row that has no cells.

    Args:
        rows: rows of bindings.
        cells: the cells that they have in their table.
    """
    bound = {*zip(cells[0], cells[1], strict=True)}
    keys = ((row.account, row.key or _FOUND.decode(row.record).key) for row in rows)
    return [key for key in keys if key not in bound]


class _Bindings:
    mended = Mended()

    def __init__(self, columns: Sequence[Column]) -> None:
        self.columns = columns

    def cells(self, rows: Sequence[Row]) -> list[list[Any]]:
        bindings = [
            (row.account, found.key, user.user_id, *binding)
            for row in rows
            for found in [_FOUND.decode(row.record)]
            for user in found.users
            # A user with nothing bound is one row with nulls.
            for binding in [msgspec.structs.astuple(one) for one in user.anonymous_ids]
            or [(None, None, None)]
        ]
        return [*map(list, zip(*bindings, strict=True))] or [[] for _ in self.columns]
