"""Loads the rows of an export into a DuckDB table, in the transaction of its caller.

Rows come from a Parquet file and are numbered; a new table can have some of them already. The state
of the table changes with its rows.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...base.sql import quoted
from ...tables.columns import lifted_again
from ...tables.layout import Column, Kind, key_of
from ..formats import Write
from ..state import Lost, SyncState
from ..tables import (
    Content,
    Origin,
    of_added,
    of_left_out,
    of_lost_rows,
    of_outdated,
    of_unfilled,
    under_other_keys,
)
from .duck_fit import Fit
from .duck_people import SAME, People, insertion, staged
from .duck_rows import Incoming
from .duck_state import Execute, Stream, forget_states, known_states, write_state
from .duck_table import (
    OWN_PREFIX,
    RUNS,
    RUNS_COLUMNS,
    TYPES,
    DuckTable,
    as_text,
    definitions,
    folded,
    is_named,
)

__all__ = ["Load"]

_LIFTED = f"{OWN_PREFIX}lifted"
"""A temporary table."""

_SLICE = 1024
"""Rows whose values are written anew at once, of which all `profile_data` is in memory."""


class Load:
    """One load.

    Args:
        execute: runs a statement with its values, and returns all rows of its result.
        stream: runs a statement, and yields its rows.
        file: the file in messages.
        table: the table, as it is in this transaction.
        fit: how the columns fit.
        columns: the columns of the export.
        content: the kind of rows.
        origin: the export.
        rows: its rows.

    Attributes:
        absorbed: number of absorbed rows.
        notes: sentences on what has happened to the table.
    """

    def __init__(
        self,
        execute: Execute,
        stream: Stream,
        file: str,
        table: DuckTable,
        fit: Fit,
        columns: Sequence[Column],
        content: Content,
        origin: Origin,
        rows: Incoming,
    ) -> None:
        self.absorbed = 0
        self.notes: list[str] = []
        self._widened: dict[str, str] = {}
        self._execute = execute
        self._stream = stream
        self._file = file
        self._table = table
        self._fit = fit
        self._columns = columns
        self._content = content
        self._origin = origin
        self._incoming = rows
        self._rows = rows.all
        self._staged = staged(columns)

    def run(self, write: Write) -> None:
        """Load the rows, and note the run."""
        is_people = self._content.of == "people"
        people = People(
            self._execute,
            self._stream,
            self._table,
            self._fit,
            self._columns,
            self._incoming,
            self._widened,
            unites=self._origin.sync is not None and self._content.has_events,
        )
        if self._fit.left_out:
            left_out = self._fit.left_out
            self.notes.append(of_left_out(self._table.label, left_out, self._origin, write))
        is_new = write == "replace" or not self._table.exists
        known = [] if is_new or write == "append" or not is_people else self._known_states()
        if is_new:
            self._note_unfilled()
            self._replace()
            if write != "append" and is_people and not self._content.repeats:
                self._note_repeated(people.insert())
            else:
                self._insert("WHERE number IS NOT NULL")
        else:
            self._add_columns()
            self._retype_columns()
            self._widen_columns()
            if write == "append":
                self._take_back()
                self._insert()
            elif is_people:
                repeated = people.merge()
                self.absorbed = people.absorbed
                self._note_added(people)
                self._note_repeated(repeated)
                if people.outdated:
                    label, outdated = self._table.label, people.outdated
                    self.notes.append(of_outdated(label, outdated, self._content, self._origin))
            else:
                self._note_other_accounts()
                self._put()
        people.drop()
        self._note(write)
        if is_new:
            forget_states(self._execute, self._table.name)
        sync = self._origin.sync
        losses = {state.account: rows for state, rows in known}
        for state in [state for state, _ in known] if sync is None else [sync]:
            rows = losses.get(state.account, ())
            write_state(self._execute, self._file, self._table, state, rows)

    def _known_states(self) -> list[tuple[SyncState, tuple[Lost, ...]]]:
        """Return the states of the accounts, with lost rows that are not brought; note these."""
        known = known_states(self._execute, self._file, self._table, self._origin)
        self.notes += [
            note
            for state, losses in known
            if (note := of_lost_rows(self._table.label, state.account, self._origin, losses))
        ]
        return known

    def _note_repeated(self, repeated: int) -> None:
        if repeated:
            self.notes.append(under_other_keys(self._table.label, repeated))

    def _note_added(self, people: People) -> None:
        """Note columns that are null in rows of earlier runs, which this one did not bring."""
        lifted = self._columns[len(self._columns) - len(self._fit.kinds) :]
        note = of_added(
            self._table.label,
            {column.name: TYPES[column.kind] for column in self._fit.missing},
            [column.name for column in lifted],
            {name: self._table.columns[name] for name in self._unfilled},
            self._content,
        )
        if note and people.leaves_rows():
            self.notes.append(note)

    def _note_unfilled(self) -> None:
        """Note columns of the user's own that lose their values as the table gets others."""
        added = [column.name for column in self._fit.missing]
        if added and self._unfilled:
            self.notes.append(of_unfilled(self._table.label, added, self._unfilled))

    @property
    def _unfilled(self) -> list[str]:
        """Columns that no export fills. One with a default has been made by somebody else."""
        return [name for name in self._fit.others if name not in self._table.defaulted]

    def _note_other_accounts(self) -> None:
        """Note if the rows come under other accounts than all that the table has."""
        known = self._execute(
            f"SELECT account, count(*) FROM {self._table.quoted}"
            f" WHERE EXISTS (FROM {self._rows} WHERE number IS NOT NULL)"
            " GROUP BY account ORDER BY account"
        )
        if note := self._origin.of_other_accounts(self._table.label, known):
            self.notes.append(note)

    # ------------------------------------------------------------------------------- the table

    def _replace(self) -> None:
        """Create the table, or delete all its rows, after which columns can have other types."""
        table = self._table.quoted
        if not self._table.exists:
            if self._incoming.present is None:
                self._execute(f"CREATE OR REPLACE TABLE {table} ({definitions(self._columns)})")
            elif self._incoming.left_out is not None:
                self._execute(f"DELETE FROM {table} WHERE rowid IN ({self._incoming.left_out})")
            return
        self._execute(f"DELETE FROM {table}")
        self._add_columns()
        self._retype_columns()

    def _retype_columns(self) -> None:
        """Change the types of columns without any value."""
        for column in self._fit.retyped:
            self._execute(
                f"ALTER TABLE {self._table.quoted} ALTER COLUMN {quoted(column.name)}"
                f" TYPE {TYPES[column.kind]} USING NULL"
            )

    def _add_columns(self) -> None:
        for statement in self._table.additions(self._fit.missing):
            self._execute(statement)

    def _widen_columns(self) -> None:
        """Give columns the type that the values of all exports share, and write these anew."""
        large = f"> {2**53}"
        for name in self._fit.clashing:
            if self._has(f"{self._staged[name]} IS NOT NULL"):
                self._widen(name, "text", "values of another type")
        for name in self._fit.wider:
            if self._has(f"abs({self._staged[name]}::HUGEINT) {large}"):
                self._widen(name, "text", "whole numbers that a DOUBLE cannot hold")
        for name in self._fit.real:
            if self._has(f"{self._staged[name]} IS NOT NULL"):
                is_large = self._execute(
                    f"SELECT 1 FROM {self._table.quoted}"
                    f" WHERE abs({quoted(name)}::HUGEINT) {large} LIMIT 1"
                )
                kind: Kind = "text" if is_large else "double"
                self._widen(name, kind, "numbers that are not whole")
        self._lift_again()

    def _has(self, condition: str) -> bool:
        """Return whether any row of the export meets a condition."""
        return bool(self._execute(f"SELECT 1 FROM {self._rows} AS new WHERE {condition} LIMIT 1"))

    def _widen(self, name: str, kind: Kind, reason: str) -> None:
        columns = {folded(one): (one, type_) for one, type_ in self._table.columns.items()}
        own, type_ = columns[folded(name)]
        self._execute(
            as_text(self._table.name, own, type_)
            if kind == "text"
            else f"ALTER TABLE {self._table.quoted} ALTER COLUMN {quoted(name)} TYPE {TYPES[kind]}"
        )
        self._widened[name] = TYPES[kind]
        new = "text" if kind == "text" else TYPES[kind]
        self.notes.append(
            f"the column {name!r} of {self._table.label} was {type_} and is {new} now, in all "
            f"rows, because this export has {reason}"
        )

    def _lift_again(self) -> None:
        """Write the values of widened columns anew from `profile_data`.

        A cast writes 7.0 where 7 was sent, so that equal values would differ by the order in which
        they came.
        """
        own = {folded(name): name for name in self._table.columns}
        # Another spelling, which is the same name to DuckDB, is of another property.
        names = {key_of(own[folded(name)]): name for name in self._widened}
        kinds: dict[str, Kind] = {
            key: "double" if self._widened[name] == TYPES["double"] else "text"
            for key, name in names.items()
        }
        if not kinds:
            return
        table = self._table.quoted
        places = {f"v{place}": names[key] for place, key in enumerate(kinds)}
        types = {v: self._widened[name] for v, name in places.items()}
        columns = "".join(f", {v} {type_}" for v, type_ in types.items())
        self._execute(f"CREATE TEMP TABLE {_LIFTED} (row BIGINT{columns})")
        unnested = "".join(f", unnest(${v}::{type_}[])" for v, type_ in types.items())
        [(first, last)] = self._execute(f"SELECT min(rowid), max(rowid) FROM {table}")
        for start in range(first or 0, (-1 if last is None else last) + 1, _SLICE):
            rows = self._execute(
                f"SELECT rowid, profile_data FROM {table} WHERE profile_data IS NOT NULL"
                " AND rowid >= $start AND rowid < $stop",
                start=start,
                stop=start + _SLICE,
            )
            cells = lifted_again([data.encode() for _, data in rows], kinds)
            self._execute(
                f"INSERT INTO {_LIFTED} SELECT unnest($rows::BIGINT[]){unnested}",
                rows=[row for row, _ in rows],
                **dict(zip(places, cells, strict=True)),
            )
        # A value that `profile_data` lacks stays as it was cast.
        pairs = [(quoted(name), f"lifted.{v}") for v, name in places.items()]
        self._execute(
            f"UPDATE {table} SET "
            + ", ".join(f"{name} = coalesce({value}, {table}.{name})" for name, value in pairs)
            + f" FROM {_LIFTED} AS lifted WHERE {table}.rowid = lifted.row AND ("
            + " OR ".join(
                f"coalesce({value} <> {table}.{name}, {value} IS NOT NULL)" for name, value in pairs
            )
            + ")"
        )
        self._execute(f"DROP TABLE {_LIFTED}")

    def _note(self, write: Write) -> None:
        """Note in the file that the rows of this run are in the table."""
        types = ", ".join(f"{name} {type_}" for name, type_ in RUNS_COLUMNS.items())
        self._execute(f"CREATE TABLE IF NOT EXISTS {RUNS} ({types})")
        mode = "append" if write == "append" else "keyed"
        if write == "replace" and self._content.repeats:
            mode = "repeating"
        own = {one.name for one in self._columns}
        own |= {name for name in self._table.columns if folded(name) in self._table.own}
        only = ""
        if mode == "append" and self._table.exists:
            only = "AND run = $run"
        self._execute(
            f"DELETE FROM {RUNS} WHERE {is_named('table_name', '$name')} {only}",
            name=self._table.name,
            **({"run": self._origin.run} if only else {}),
        )
        self._execute(
            f"INSERT INTO {RUNS} VALUES ($name, $mode, $run, $columns, now(),"
            f" {self._incoming.count})",
            name=self._table.name,
            mode=mode,
            run=self._origin.run,
            columns=sorted(own),
        )

    # -------------------------------------------------------------------------------- the rows

    def _insert(self, condition: str = "") -> None:
        """Insert the rows that meet a condition on `new`."""
        self._execute(
            insertion(
                self._table, self._fit, self._staged, f"{self._incoming.new} AS new {condition}"
            )
        )

    def _take_back(self) -> None:
        """Delete the rows that an earlier attempt of this run has appended.

        It may have brought less, as an export that was not complete does.
        """
        written = self._table.runs.get(self._origin.run)
        if written is None:
            return
        names = [one.name for one in self._columns]
        if self._content.of == "people":
            # All that an export writes has one time; flattened columns may be others by now.
            names = [name for name in ("key", "account", "person", "fetched_at") if name in names]
        same = " AND ".join(
            f"old.{quoted(name)} IS NOT DISTINCT FROM counted.{self._staged[name][4:]}"
            for name in names
        )
        keys = ", ".join(self._staged[name] for name in names)
        places = ", ".join(f"old.{quoted(name)}" for name in names)
        self._execute(
            f"DELETE FROM {self._table.quoted} WHERE rowid IN (SELECT row FROM (SELECT"
            f" old.rowid AS row, counted.count AS count,"
            # The last ones, as other runs may have appended the same before.
            f" row_number() OVER (PARTITION BY {places} ORDER BY old.rowid DESC) AS place"
            f" FROM {self._table.quoted} AS old JOIN (SELECT {keys}, count(*) AS count"
            f" FROM {self._rows} AS new GROUP BY ALL) AS counted ON {same}) WHERE place <= count"
            # No more than there were, as it may have brought none of some.
            " ORDER BY row DESC LIMIT $written)",
            written=written,
        )

    def _put(self) -> None:
        """Write the bindings of the keys that were looked up in place of those of before.

        Bindings that are there already are left alone.
        """
        names = ", ".join(quoted(one.name) for one in self._columns)
        new = ", ".join(f"{value} AS {quoted(name)}" for name, value in self._staged.items())
        account, key = self._staged["account"], self._staged["key"]
        same = " AND ".join(
            f"old.{quoted(one.name)} IS NOT DISTINCT FROM new.{quoted(one.name)}"
            for one in self._columns
        )
        of_keys = f"(account, key) IN (SELECT ({account}, {key}) FROM {self._rows} AS new)"
        place = f"row_number() OVER (PARTITION BY {names} ORDER BY"
        self._execute(
            f"CREATE TEMP TABLE {SAME} AS SELECT number, row"
            f" FROM (SELECT *, {place} number) AS place FROM"
            f" (SELECT number, {new} FROM {self._rows} AS new WHERE number IS NOT NULL)) AS new"
            f" JOIN (SELECT rowid AS row, {names}, {place} rowid) AS place"
            f" FROM {self._table.quoted} WHERE {of_keys}) AS old"
            f" ON old.place = new.place AND {same}"
        )
        self._execute(
            f"DELETE FROM {self._table.quoted} WHERE {of_keys}"
            f" AND rowid NOT IN (SELECT row FROM {SAME})"
        )
        self._insert(f"WHERE number IS NOT NULL AND number NOT IN (SELECT number FROM {SAME})")
