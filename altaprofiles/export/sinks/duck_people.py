"""Merges the people of an export into a DuckDB table, by the rule of `export.tables`.

Rows that change are deleted, and inserted anew: without an index, because one over millions of
people would have to fit into memory.

`matched` of an export of `Session.sync` is united with that of all rows that become one, even of
one that stays as it was fetched later.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from itertools import chain, starmap

from ...base.jsontext import is_equal
from ...base.sql import quoted
from ...tables.layout import Column
from .duck_fit import Fit
from .duck_rows import Incoming
from .duck_state import Execute, Stream
from .duck_table import OWN_PREFIX, TYPES, DuckTable

__all__ = ["SAME", "People", "insertion", "staged"]

_NEW, _REPEATED, _LINKS, _NEXT, _KEPT, SAME = _TEMPORARY = tuple(
    f"{OWN_PREFIX}{name}" for name in ("new", "repeated", "links", "next", "kept", "same")
)
"""Temporary tables. No other table can have such a name."""

_IS_EXACT = r"NOT contains(device, chr(65533)) AND NOT contains(device, '\ufffd')"
"""False for an ID with U+FFFD, which stands for what no text can hold: two devices may have it."""

_AT_ONCE = 65_536
"""Numbers of people in one statement."""


def staged(columns: Sequence[Column]) -> dict[str, str]:
    """Return the expression for each column of an export."""
    return {one.name: f"new.c{place}" for place, one in enumerate(columns)}


def insertion(table: DuckTable, fit: Fit, values: Mapping[str, str], rows: str) -> str:
    """Return the statement that inserts rows, with null in flattened columns that they lack.

    Args:
        table: the table.
        fit: how the columns fit.
        values: an expression for each column.
        rows: the rows in SQL.
    """
    values = {**values, **dict.fromkeys(fit.left_out, "NULL")}
    names = ", ".join(map(quoted, values))
    return f"INSERT INTO {table.quoted} ({names}) SELECT {', '.join(values.values())} FROM {rows}"


class People:
    """The people of one export.

    Args:
        execute: runs a statement.
        stream: runs a statement, and yields its rows.
        table: the table.
        fit: how the columns fit.
        columns: the columns of the export.
        rows: its rows.
        widened: the types of columns that have another one by this load.
        unites: whether `matched` is united with that of earlier rows.

    Attributes:
        absorbed: number of absorbed rows.
        outdated: number of people of whom a later export has brought a row.
    """

    def __init__(
        self,
        execute: Execute,
        stream: Stream,
        table: DuckTable,
        fit: Fit,
        columns: Sequence[Column],
        rows: Incoming,
        widened: Mapping[str, str],
        *,
        unites: bool,
    ) -> None:
        self.absorbed = 0
        self.outdated = 0
        self._execute = execute
        self._stream = stream
        self._table = table
        self._fit = fit
        self._columns = columns
        self._incoming = rows
        self._rows = rows.all
        self._widened = widened
        self._staged = staged(columns)
        self._unites = unites
        # The columns of which rows keep the values.
        self._kept = {name: f"k{place}" for place, name in enumerate((*fit.inherited, *fit.others))}

    def insert(self) -> int:
        """Insert the people into a table without others; return the number of repeated records."""
        repeated = self._number()
        if repeated and self._incoming.present is not None:
            self._execute(
                f"DELETE FROM {self._table.quoted} WHERE rowid IN"
                f" (SELECT row FROM {self._incoming.present} JOIN {_REPEATED} USING (number))"
            )
        rows = f"{self._incoming.new} AS new ANTI JOIN {_REPEATED} USING (number)"
        self._execute(insertion(self._table, self._fit, self._staged, rows))
        return repeated

    def merge(self) -> int:
        """Merge the people into the rows of the table; return the number of repeated records."""
        repeated = self._number()
        self._link()
        self._plan()
        if self._kept:
            self._keep()
        self._execute(
            f"DELETE FROM {self._table.quoted} WHERE rowid IN (SELECT row FROM {_LINKS}"
            f" WHERE NOT is_newer EXCEPT SELECT row FROM {_NEXT} WHERE is_same)"
        )
        self._update()
        self._insert()
        return repeated

    def leaves_rows(self) -> bool:
        """Return whether the table has rows that the people were not merged into."""
        rows = f"{self._table.quoted} ANTI JOIN {_NEW} USING (account, person)"
        return self.outdated > 0 or bool(self._execute(f"SELECT 1 FROM {rows} LIMIT 1"))

    def drop(self) -> None:
        """Drop the temporary tables."""
        for name in _TEMPORARY:
            self._execute(f"DROP TABLE IF EXISTS {name}")

    def _number(self) -> int:
        """Make the table of all records, with the columns by which people are found.

        Returns:
            The number of records of people whom an earlier record has brought.
        """
        of = self._staged
        matched = f" {of['matched']} AS matched," if self._unites else ""
        self._execute(
            f"CREATE TEMP TABLE {_NEW} AS SELECT number, {of['account']} AS account,"
            f" {of['person']} AS person, {of['fetched_at']} AS fetched_at,{matched}"
            f" coalesce({of['identity']}, '') = '' AS nameless,"
            f" {of['object_ids']} AS devices FROM {self._rows} AS new"
        )
        self._execute(
            f"CREATE TEMP TABLE {_REPEATED} AS WITH RECURSIVE nearest AS ("
            "SELECT number, min(first) AS first FROM (SELECT number,"
            f" min(number) OVER (PARTITION BY account, person) AS first FROM {_NEW}"
            " UNION ALL SELECT number, min(number) OVER (PARTITION BY account, device) AS first"
            f" FROM (SELECT number, account, unnest(devices) AS device FROM {_NEW}"
            f" WHERE nameless) WHERE {_IS_EXACT}) GROUP BY number HAVING min(first) < number),"
            " path AS (SELECT number, first FROM nearest"
            " UNION ALL SELECT path.number, nearest.first FROM path"
            " JOIN nearest ON nearest.number = path.first)"
            " SELECT number, min(first) AS first FROM path GROUP BY number"
        )
        [(repeated,)] = self._execute(f"SELECT count(*) FROM {_REPEATED}")
        return int(repeated)

    def _link(self) -> None:
        """Find the rows of earlier exports that become rows of this one."""
        table = self._table.quoted
        old = ["person", "fetched_at", "added_at", *(["matched"] if self._unites else [])]
        of_old = ", ".join(f"old.{name}" for name in old)
        is_newer = "coalesce(old.fetched_at > new.fetched_at, false) AS is_newer"
        self._execute(
            f"CREATE TEMP TABLE {_LINKS} AS SELECT number, row, bool_or(by_key) AS by_key,"
            " any_value(nameless) AS nameless, any_value(is_newer) AS is_newer,"
            f" {', '.join(f'any_value({name}) AS {name}' for name in old)} FROM ("
            f"SELECT new.number, old.rowid AS row, true AS by_key, new.nameless, {is_newer},"
            f" {of_old} FROM {_NEW} AS new ANTI JOIN {_REPEATED} USING (number)"
            f" JOIN {table} AS old ON old.account = new.account AND old.person = new.person"
            " UNION ALL SELECT coalesce(repeated.first, new.number), old.row, false, new.nameless,"
            f" {is_newer}, {of_old}"
            f" FROM (SELECT number, account, nameless, fetched_at, unnest(devices) AS device"
            f" FROM {_NEW}) AS new JOIN (SELECT rowid AS row, account, {', '.join(old)},"
            f" unnest(object_ids) AS device FROM {table}"
            " WHERE coalesce(identity, '') = '') AS old USING (account, device)"
            f" LEFT JOIN {_REPEATED} AS repeated USING (number)"
            f" WHERE {_IS_EXACT}) GROUP BY number, row"
        )
        self._execute(
            f"DELETE FROM {_LINKS} WHERE NOT nameless AND NOT by_key"
            f" AND (is_newer OR row IN (SELECT row FROM {_LINKS} WHERE nameless))"
        )
        [(self.absorbed,)] = self._execute(
            f"SELECT count(DISTINCT row) FROM {_LINKS} WHERE NOT nameless AND NOT by_key"
        )

    def _plan(self) -> None:
        """Decide on every person: left out, the same as a row of the table, or inserted."""
        matched = ""
        if self._unites:
            both = "list_concat(any_value(new.matched), flatten(list(links.matched)))"
            matched = f" {_united(both)} AS matched,"
        self._execute(
            f"CREATE TEMP TABLE {_NEXT} AS SELECT new.number, new.account, new.person,"
            f" min(links.added_at) AS added_at,{matched}"
            " coalesce(bool_or(links.is_newer), false) AS is_outdated,"
            " CASE WHEN count(*) FILTER (links.by_key) = 1"
            " THEN min(links.row) FILTER (links.by_key) END AS row, false AS is_same"
            f" FROM {_NEW} AS new ANTI JOIN {_REPEATED} USING (number)"
            f" LEFT JOIN {_LINKS} AS links USING (number)"
            " GROUP BY new.number, new.account, new.person"
        )
        values, documents = self._comparisons()
        self._execute(
            f"UPDATE {_NEXT} SET is_same = true FROM (SELECT new.number FROM {self._pairs()}"
            f" WHERE {' AND '.join([*values, *starmap(_same_value, documents)])})"
            f" AS same WHERE {_NEXT}.number = same.number"
        )
        self._compare(values, documents)
        [(self.outdated,)] = self._execute(f"SELECT count(*) FROM {_NEXT} WHERE is_outdated")

    def _pairs(self) -> str:
        """Return the new people, `new`, whom a row of the table, `old`, may be the same as."""
        return (
            f"{self._rows} AS new JOIN {_NEXT} AS next ON next.number = new.number"
            f" AND NOT next.is_outdated JOIN {self._table.quoted} AS old ON old.rowid = next.row"
            f" AND old.account = {self._staged['account']}"
            f" AND old.person = {self._staged['person']}"
        )

    def _comparisons(self) -> tuple[list[str], list[tuple[str, str]]]:
        """Return what has to be the same in a row of the table and a new one.

        Returns:
            The conditions for values, and the two sides of each column that holds JSON as text.
        """
        values = self._staged | ({"matched": "next.matched"} if self._unites else {})
        documents = {one.name for one in self._columns if one.kind == "json"}
        conditions: list[str] = []
        texts: list[tuple[str, str]] = []
        for name, value in values.items():
            if name in ("account", "person", "fetched_at", "added_at"):
                continue
            type_ = self._type_of(name)
            old, new = f"CAST(old.{quoted(name)} AS {type_})", f"CAST({value} AS {type_})"
            if name == "cdp":
                new = f"coalesce({new}, {old})"
            if name in documents and type_ == "VARCHAR":
                texts.append((old, new))
            else:
                conditions.append(_same_value(old, new))
        conditions += [f"old.{quoted(name)} IS NULL" for name in self._fit.left_out]
        return conditions, texts

    def _compare(self, values: Sequence[str], documents: Sequence[tuple[str, str]]) -> None:
        """Find the rows whose JSON has the same values in another spelling.

        Services change white space, escapes and the order of members from answer to answer.
        DuckDB's `json` keeps that order, and shortens long numbers.
        """
        if not documents:
            return
        columns = ", ".join(chain.from_iterable(documents))
        rows = self._stream(
            f"SELECT new.number, {columns} FROM {self._pairs()}"
            f" WHERE {' AND '.join(['NOT next.is_same', *values])}"
        )
        same = array("q", (row[0] for row in rows if _is_same_json(row[1:])))
        for start in range(0, len(same), _AT_ONCE):
            self._execute(
                f"UPDATE {_NEXT} SET is_same = true WHERE number IN (SELECT unnest($same))",
                same=same[start : start + _AT_ONCE].tolist(),
            )

    def _type_of(self, name: str) -> str:
        """Return the type in which values of a column are compared."""
        if name in self._widened:
            return self._widened[name]
        if name in self._fit.wider:
            return "DOUBLE"
        [kind] = [one.kind for one in self._columns if one.name == name]
        return "VARCHAR" if kind == "json" else TYPES[kind]

    def _keep(self) -> None:
        """Find the values that rows keep, or get from the rows that become part of them."""
        values = ", ".join(
            f"first(old.{quoted(name)} ORDER BY old.person = heirs.person DESC,"
            f" old.fetched_at DESC NULLS LAST, old.person)"
            f" FILTER (old.{quoted(name)} IS NOT NULL) AS {column}"
            for name, column in self._kept.items()
        )
        self._execute(
            f"CREATE TEMP TABLE {_KEPT} AS WITH finals AS (SELECT number, account, person"
            f" FROM {_NEXT} WHERE NOT is_outdated AND (NOT is_same"
            f" OR number IN (SELECT number FROM {_LINKS} WHERE NOT by_key))"
            f" UNION ALL SELECT number, next.account, links.person FROM {_LINKS} AS links"
            f" JOIN {_NEXT} AS next USING (number) WHERE links.is_newer"
            " QUALIFY row_number() OVER (PARTITION BY number"
            " ORDER BY links.by_key DESC, links.fetched_at DESC, links.person) = 1),"
            f" given AS (SELECT number, row FROM {_LINKS} WHERE NOT is_newer"
            " QUALIFY row_number() OVER (PARTITION BY row ORDER BY by_key DESC, number) = 1),"
            " heirs AS (SELECT account, person, row FROM given JOIN finals USING (number)"
            " UNION SELECT account, finals.person, links.row FROM finals"
            f" JOIN {_LINKS} AS links USING (number)"
            " WHERE links.is_newer AND links.person = finals.person)"
            f" SELECT heirs.account, heirs.person, {values} FROM heirs"
            f" JOIN {self._table.quoted} AS old ON old.rowid = heirs.row"
            " GROUP BY heirs.account, heirs.person"
        )

    def _update(self) -> None:
        """Update the rows that stay, and of which others become part."""
        values = {"added_at": "staying.added_at"}
        differs = ["staying.added_at < old.added_at"]
        matched = of_kept = ""
        if self._unites:
            matched = f", {_united('flatten(list(matched))')} AS matched"
            values["matched"] = "staying.matched"
            differs.append("staying.matched IS DISTINCT FROM old.matched")
        for name, column in self._kept.items():
            values[name] = f"coalesce(old.{quoted(name)}, kept.{column})"
            differs.append(f"(old.{quoted(name)} IS NULL AND kept.{column} IS NOT NULL)")
        if self._kept:
            of_kept = (
                f" LEFT JOIN {_KEPT} AS kept"
                " ON kept.account = old.account AND kept.person = old.person"
            )
        names = [f"v{place}" for place, _ in enumerate(values)]
        expressions = ", ".join(map("{} AS {}".format, values.values(), names))
        # One statement, because it may give other numbers to the rows.
        self._execute(
            f"UPDATE {self._table.quoted} SET "
            + ", ".join(
                f"{quoted(name)} = changed.{v}" for name, v in zip(values, names, strict=True)
            )
            + f" FROM (SELECT old.rowid AS row, {expressions} FROM (SELECT row,"
            f" min(added_at) AS added_at{matched} FROM (SELECT * FROM {_NEXT} WHERE is_same"
            f" UNION ALL BY NAME SELECT next.* REPLACE (links.row AS row) FROM {_LINKS} AS links"
            f" JOIN {_NEXT} AS next USING (number) WHERE links.is_newer) GROUP BY row) AS staying"
            f" JOIN {self._table.quoted} AS old ON old.rowid = staying.row{of_kept}"
            f" WHERE {' OR '.join(differs)}) AS changed"
            f" WHERE {self._table.quoted}.rowid = changed.row"
        )

    def _insert(self) -> None:
        values = {
            **self._staged,
            "added_at": f"coalesce(next.added_at, {self._staged['added_at']})",
        }
        if self._unites:
            values["matched"] = "next.matched"
        rows = (
            f"{self._rows} AS new JOIN (FROM {_NEXT} WHERE NOT is_same AND NOT is_outdated)"
            " AS next USING (number)"
        )
        if not self._kept:
            self._execute(insertion(self._table, self._fit, values, rows))
            return
        of_kept = f"{_KEPT} AS kept ON kept.account = next.account AND kept.person = next.person"
        self._execute(insertion(self._table, self._fit, values, f"{rows} ANTI JOIN {of_kept}"))
        for name, column in self._kept.items():
            values[name] = (
                f"coalesce({values[name]}, kept.{column})" if name in values else (f"kept.{column}")
            )
        self._execute(insertion(self._table, self._fit, values, f"{rows} JOIN {of_kept}"))


def _same_value(old: str, new: str) -> str:
    return f"{old} IS NOT DISTINCT FROM {new}"


def _is_same_json(sides: Sequence[str | None]) -> bool:
    """Return whether each two texts of JSON have the same values."""
    return all(
        old == new or (old is not None and new is not None and is_equal(old.encode(), new.encode()))
        for old, new in zip(sides[::2], sides[1::2], strict=True)
    )


def _united(lists: str) -> str:
    """Return an expression for events in order, each once, of an expression for a list of them."""
    return f"list_sort(list_distinct({lists}))"
