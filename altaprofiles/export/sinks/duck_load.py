"""Loads the rows of an export into a DuckDB table, in the transaction of its caller.

Rows come from a Parquet file and are numbered. Upserts delete the rows that change and insert the
new ones: without an index, because one over millions of people would have to fit into memory.

A row without an identity is *nameless*. A row of an earlier run is one of

- the same row: its account and person are those of a new row, or both are nameless and share an
  `objectId`;
- absorbed: it is nameless, no nameless row of this export is the same, and a new row with an
  identity shares an `objectId` with it.

A new row is left out if the same row was fetched later. Rows that were fetched later are not
absorbed either.

`matched` of an export of `Session.sync` is united with that of the rows that it is one of, even of
one that was fetched later. The state of the table changes with its rows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...base.wording import numbered
from ...tables.layout import Column
from ..tables import Content, Origin
from .duck_state import Execute, forget_states, write_state
from .duck_table import OWN_PREFIX, RUNS, RUNS_COLUMNS, TYPES, DuckTable, Fit, quoted
from .target import Write

__all__ = ["Load"]

_NEW, _LINKS, _ABSORBED, _NEXT, _KEPT = (
    f"{OWN_PREFIX}{name}" for name in ("new", "links", "absorbed", "next", "kept")
)
"""Temporary tables. No other table can have such a name."""


class Load:
    """One load.

    Args:
        execute: runs a statement with its values, and returns all rows of its result.
        file: the file in messages.
        table: the table, as it is in this transaction.
        fit: how the columns fit.
        columns: the columns of the export.
        content: the kind of rows.
        origin: the export.
        path: the Parquet file, with the columns of `duck_rows.Numbered`.

    Attributes:
        absorbed: number of absorbed rows.
        notes: sentences on what has happened to the table.
    """

    def __init__(
        self,
        execute: Execute,
        file: str,
        table: DuckTable,
        fit: Fit,
        columns: Sequence[Column],
        content: Content,
        origin: Origin,
        path: Path,
    ) -> None:
        self.absorbed = 0
        self.notes: list[str] = []
        self._texts: set[str] = set()
        self._execute = execute
        self._file = file
        self._table = table
        self._fit = fit
        self._columns = columns
        self._content = content
        self._origin = origin
        self._rows = f"read_parquet('{_escaped(path)}')"
        self._staged = {one.name: f"new.c{place}" for place, one in enumerate(columns)}
        self._unites = origin.sync is not None and content.has_events

    def run(self, write: Write) -> None:
        """Load the rows, and note the run."""
        if write == "replace" or not self._table.exists:
            self._create()
            if write != "append" and self._content.of == "people" and self._content.distinct:
                self._number()
                self._insert(f"JOIN {_NEW} AS next USING (number)")
            else:
                self._insert(_NUMBERED)
        else:
            self._prepare()
            if write == "append":
                self._take_back()
                self._insert()
            elif self._content.of == "people":
                self._merge()
            else:
                self._put()
        for name in (_NEW, _LINKS, _ABSORBED, _NEXT, _KEPT):
            self._execute(f"DROP TABLE IF EXISTS {name}")
        self._note(write)
        if write == "replace" or not self._table.exists:
            forget_states(self._execute, self._file, self._table.name)
        if self._origin.sync is not None:
            write_state(self._execute, self._file, self._table.name, self._origin.sync)

    # ------------------------------------------------------------------------------- the table

    def _create(self) -> None:
        types = ", ".join(f"{quoted(one.name)} {TYPES[one.kind]}" for one in self._columns)
        self._execute(f"CREATE OR REPLACE TABLE {self._table.quoted} ({types})")

    def _prepare(self) -> None:
        """Add the missing columns, and turn columns into text whose values it has to hold."""
        for statement in self._table.additions(self._fit):
            self._execute(statement)
        for name in self._fit.clashing:
            self._widen(name, f"{self._staged[name]} IS NOT NULL", "values of another type")
        for name in self._fit.wider:
            self._widen(
                name,
                f"abs({self._staged[name]}::HUGEINT) > {2**53}",
                "whole numbers that a DOUBLE cannot hold",
            )

    def _widen(self, name: str, clash: str, reason: str) -> None:
        [(count,)] = self._execute(f"SELECT count(*) FROM {self._rows} AS new WHERE {clash}")
        if not count:
            return
        column = quoted(name)
        types = {one.casefold(): type_ for one, type_ in self._table.columns.items()}
        type_ = types[name.casefold()]
        text = f"CAST({column} AS VARCHAR)"
        if type_ == TYPES["timestamp"]:
            # As CleverTap writes dates, where that loses nothing.
            text = (
                f"CASE WHEN epoch_us({column}) % 1000000 = 0"
                f" THEN '$D_' || (epoch_us({column}) // 1000000)"
                f" ELSE strftime(make_timestamp(epoch_us({column})), '%Y-%m-%dT%H:%M:%S.%fZ') END"
            )
        self._execute(
            f"ALTER TABLE {self._table.quoted} ALTER COLUMN {column} TYPE VARCHAR USING {text}"
        )
        self._texts.add(name)
        self.notes.append(
            f"the column {name!r} of {self._table.label} was {type_} and is text now, because "
            f"this export has {reason}"
        )

    def _note(self, write: Write) -> None:
        """Note in the file that the rows of this run are in the table."""
        types = ", ".join(f"{name} {type_}" for name, type_ in RUNS_COLUMNS.items())
        self._execute(f"CREATE TABLE IF NOT EXISTS {RUNS} ({types})")
        mode = "append" if write == "append" else "keyed"
        if write == "replace" and not self._content.distinct:
            mode = "repeating"
        own = {one.name for one in self._columns}
        if self._table.exists and write != "replace":
            own |= {name for name in self._table.columns if name.casefold() in self._table.own}
        only = ""
        if mode == "append" and self._table.exists:
            only = "AND run = $run"
        self._execute(
            f"DELETE FROM {RUNS} WHERE lower(table_name) = lower($name) {only}",
            name=self._table.name,
            **({"run": self._origin.run} if only else {}),
        )
        self._execute(
            f"INSERT INTO {RUNS} VALUES ($name, $mode, $run, $columns, now(),"
            f" (SELECT count(*) FROM {self._rows}))",
            name=self._table.name,
            mode=mode,
            run=self._origin.run,
            columns=sorted(own),
        )

    # -------------------------------------------------------------------------------- the rows

    def _insert(self, join: str = "", values: Mapping[str, str] | None = None) -> None:
        """Insert rows.

        Args:
            join: selects the rows to insert, or joins them with a table named `next`; by default
                all are inserted.
            values: expressions for columns that do not come from the rows.
        """
        expressions = {**self._staged, **(values or {})}
        names = ", ".join(map(quoted, expressions))
        self._execute(
            f"INSERT INTO {self._table.quoted} ({names}) SELECT {', '.join(expressions.values())}"
            f" FROM {self._rows} AS new {join}"
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
        """Replace all rows of the keys that were looked up, even by none."""
        account, key = self._staged["account"], self._staged["key"]
        self._execute(
            f"DELETE FROM {self._table.quoted} WHERE (account, key) IN"
            f" (SELECT ({account}, {key}) FROM {self._rows} AS new)"
        )
        self._insert(_NUMBERED)

    def _number(self) -> None:
        """Make the table of all people of the export, with the columns by which they are found.

        Of several rows of a person, the first one counts.
        """
        staged = self._staged
        matched = f" {staged['matched']} AS matched," if self._unites else ""
        self._execute(
            f"CREATE TEMP TABLE {_NEW} AS SELECT number, {staged['account']} AS account,"
            f" {staged['person']} AS person, {staged['fetched_at']} AS fetched_at,{matched}"
            f" coalesce({staged['identity']}, '') = '' AS nameless,"
            f" {staged['object_ids']} AS devices FROM {self._rows} AS new"
        )
        [(repeated,)] = self._execute(
            f"DELETE FROM {_NEW} WHERE number IN (SELECT number FROM (SELECT number,"
            " min(number) OVER (PARTITION BY account, person) AS first"
            f" FROM {_NEW}) WHERE first < number UNION ALL SELECT number FROM (SELECT number,"
            " min(number) OVER (PARTITION BY account, device) AS first"
            f" FROM (SELECT number, account, unnest(devices) AS device FROM {_NEW}"
            f" WHERE nameless) WHERE {_IS_EXACT}) WHERE first < number)"
        )
        if repeated:
            self.notes.append(
                f"{self._table.label} has one row for each person: {numbered(repeated, 'record')} "
                f"of people whom the export brings more than once are left out"
            )

    def _merge(self) -> None:
        """Update the rows of people whom the export brings, and insert the others."""
        table = self._table.quoted
        self._number()
        self._link()
        matched = ""
        if self._unites:
            both = "list_concat(any_value(new.matched), flatten(list(links.matched)))"
            matched = f" {_united(both)} AS matched,"
        self._execute(
            f"CREATE TEMP TABLE {_NEXT} AS SELECT new.number, min(links.added_at) AS added_at,"
            f"{matched}"
            " CASE WHEN count(*) FILTER (links.by_key) = 1"
            " THEN min(links.row) FILTER (links.by_key) END AS row, false AS is_same"
            f" FROM {_NEW} AS new LEFT JOIN {_LINKS} AS links USING (number) GROUP BY new.number"
        )
        self._execute(
            f"UPDATE {_NEXT} SET is_same = true FROM (SELECT new.number, old.rowid AS row"
            f" FROM {self._rows} AS new JOIN {table} AS old ON old.account ="
            f" {self._staged['account']} AND old.person = {self._staged['person']}"
            f" JOIN {_NEXT} AS next ON next.number = new.number"
            f" WHERE {self._same()}) AS same WHERE {_NEXT}.number = same.number"
            f" AND {_NEXT}.row = same.row"
        )
        others = self._keep_others()
        self._execute(
            f"UPDATE {table} SET added_at = next.added_at FROM {_NEXT} AS next"
            f" WHERE next.is_same AND {table}.rowid = next.row AND next.added_at < {table}.added_at"
        )
        self._execute(
            f"DELETE FROM {table} WHERE rowid IN (SELECT row FROM {_LINKS}"
            f" EXCEPT SELECT row FROM {_NEXT} WHERE is_same)"
        )
        values = {"added_at": f"coalesce(next.added_at, {self._staged['added_at']})"}
        if self._unites:
            values["matched"] = "next.matched"
        join = f"JOIN (FROM {_NEXT} WHERE NOT is_same) AS next USING (number)"
        if others:
            join += f" LEFT JOIN {_KEPT} AS kept USING (row)"
        self._insert(join, values | others)

    def _link(self) -> None:
        """Find the rows of earlier runs that become rows of this export, and leave out old ones."""
        table = self._table.quoted
        matched = (", any_value(matched) AS matched", ", old.matched") if self._unites else ("", "")
        self._execute(
            f"CREATE TEMP TABLE {_LINKS} AS SELECT number, row, bool_or(by_key) AS by_key,"
            " any_value(nameless) AS nameless, any_value(is_newer) AS is_newer,"
            f" any_value(added_at) AS added_at{matched[0]} FROM ("
            "SELECT new.number, old.rowid AS row, true AS by_key, new.nameless,"
            f" coalesce(old.fetched_at > new.fetched_at, false) AS is_newer, old.added_at"
            f"{matched[1]} FROM {_NEW} AS new JOIN {table} AS old"
            " ON old.account = new.account AND old.person = new.person"
            " UNION ALL SELECT new.number, old.row, false, new.nameless,"
            f" coalesce(old.fetched_at > new.fetched_at, false), old.added_at{matched[1]}"
            f" FROM (SELECT number, account, nameless, fetched_at, unnest(devices) AS device"
            f" FROM {_NEW}) AS new JOIN (SELECT rowid AS row, account, fetched_at, added_at"
            f"{matched[1].replace('old.', '')},"
            f" unnest(object_ids) AS device FROM {table}"
            " WHERE coalesce(identity, '') = '') AS old USING (account, device)"
            f" WHERE {_IS_EXACT}) GROUP BY number, row"
        )
        outdated = f"SELECT number FROM {_LINKS} WHERE is_newer AND (by_key OR nameless)"
        if self._unites:
            self._execute(
                f"UPDATE {table} SET matched = newer.matched FROM (SELECT links.row,"
                f" {_united('list_concat(any_value(links.matched), flatten(list(new.matched)))')}"
                f" AS matched FROM {_LINKS} AS links JOIN {_NEW} AS new USING (number)"
                " WHERE links.is_newer AND (links.by_key OR links.nameless) GROUP BY links.row)"
                f" AS newer WHERE {table}.rowid = newer.row"
                f" AND {table}.matched IS DISTINCT FROM newer.matched"
            )
        [(rows,)] = self._execute(f"DELETE FROM {_NEW} WHERE number IN ({outdated})")
        if rows:
            self.notes.append(
                f"{self._table.label} keeps {numbered(rows, 'row')} as a later export has fetched "
                f"them"
            )
        self._execute(
            f"DELETE FROM {_LINKS} WHERE number IN ({outdated}) OR is_newer OR (NOT nameless"
            f" AND NOT by_key AND row IN (SELECT row FROM {_LINKS} WHERE nameless))"
        )
        [(self.absorbed,)] = self._execute(
            f"SELECT count(DISTINCT row) FROM {_LINKS} WHERE NOT nameless AND NOT by_key"
        )

    def _same(self) -> str:
        """Return the condition that a row of the table has the values of a new one."""
        staged = self._staged | ({"matched": "next.matched"} if self._unites else {})
        compared = [
            f"CAST(old.{quoted(name)} AS {type_}) IS NOT DISTINCT FROM CAST({value} AS {type_})"
            for name, value in staged.items()
            if name not in ("account", "person", "fetched_at", "added_at")
            for type_ in [self._type_of(name)]
        ]
        left_out = [f"old.{quoted(name)} IS NULL" for name in self._fit.left_out]
        return " AND ".join([*compared, *left_out])

    def _type_of(self, name: str) -> str:
        """Return the type in which values of a column are compared."""
        if name in self._fit.wider:
            return "VARCHAR" if name in self._texts else "DOUBLE"
        [kind] = [one.kind for one in self._columns if one.name == name]
        return "VARCHAR" if kind == "json" else TYPES[kind]

    def _keep_others(self) -> dict[str, str]:
        """Keep the values of columns that others have added; return an expression for each."""
        others = self._fit.others
        if not others:
            return {}
        values = ", ".join(f"old.{quoted(name)} AS c{place}" for place, name in enumerate(others))
        self._execute(
            f"CREATE TEMP TABLE {_KEPT} AS SELECT old.rowid AS row, {values}"
            f" FROM {self._table.quoted} AS old"
            f" WHERE old.rowid IN (SELECT row FROM {_NEXT} WHERE NOT is_same)"
        )
        return {name: f"kept.c{place}" for place, name in enumerate(others)}


_NUMBERED = "WHERE number IS NOT NULL"
"""The rows that have cells. The others are keys to which nothing is bound."""

_IS_EXACT = r"NOT contains(device, chr(65533)) AND NOT contains(device, '\ufffd')"
"""False for an ID with U+FFFD, which stands for what no text can hold: two devices may have it."""


def _united(lists: str) -> str:
    """Return an expression for events in order, each once, of an expression for a list of them."""
    return f"list_sort(list_distinct({lists}))"


def _escaped(path: Path) -> str:
    """Return a pattern that matches only `path`, as DuckDB expands `*`, `?` and `[` in paths."""
    return re.sub(r"([*?\[])", r"[\1]", str(path)).replace("'", "''")
