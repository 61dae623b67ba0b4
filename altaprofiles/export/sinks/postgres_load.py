"""Moves the rows of one export from its temporary table into a PostgreSQL table.

Sets of rows are moved, by the server. Nothing is committed here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import chain
from typing import TYPE_CHECKING, Any

from ...base.sql import quoted
from ...errors import ExportError
from ..tables import Origin
from .encoding import MATCHED
from .postgres_table import PostgresTable, escaped, row_of

if TYPE_CHECKING:
    import psycopg

__all__ = [
    "CHOICE",
    "REPEATED",
    "STAGE",
    "Load",
    "add_chosen",
    "analyze",
    "analyze_new",
    "append",
    "create_stage",
    "drop_repeated",
    "drop_unused",
    "find_repeated",
    "leave_out",
    "other_accounts",
    "put_bindings",
    "replace",
    "staged_columns",
    "take_back",
    "unused_rows",
]

STAGE = "pg_temp.altaprofiles_stage"
CHOICE = "pg_temp.altaprofiles_choice"
REPEATED = "pg_temp.altaprofiles_repeated"
KNOWN = "pg_temp.altaprofiles_known"
CHANGED = "pg_temp.altaprofiles_changed"


class Load:
    """The staged rows, and the table that they go into.

    Args:
        connection: a connection in a transaction, in which the export has its turn.
        table: the table, prepared.
        left_out: flattened columns that the export lacks, and that are null in its rows.

    Attributes:
        connection: the connection.
        table: the table in SQL.
        columns: the staged column of each column of the table, both in SQL.
        nulls: null for each of `left_out`, in SQL.
        triggers: the triggers of the table. Without any, the server does as it is told.
        unit: the kind of rows.
    """

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        table: PostgresTable,
        left_out: Sequence[str],
    ) -> None:
        self.connection = connection
        self.table = table.quoted
        self.columns = staged_columns(table)
        self.nulls = dict.fromkeys(map(quoted, left_out), "NULL")
        self.triggers = table.triggers(connection)
        self._label = table.label
        self.unit = table.content.of
        self._never_null = {*map(quoted, table.content.identifies)}

    def run(self, statement: str, values: Mapping[str, Any] | None = None) -> int:
        """Execute a statement, and return the number of its rows."""
        return self.connection.execute(statement, values).rowcount

    def count(self, query: str) -> int:
        """Return the number that a query returns."""
        (number,) = row_of(self.connection, query)
        return int(number)

    def insert(
        self,
        condition: str = "",
        others: Mapping[str, str] | None = None,
        avoided: Sequence[str] = (),
    ) -> int:
        """Add the staged rows that meet a condition on `new`, and return their number.

        Args:
            condition: what follows the staged rows in SQL.
            others: other values of columns, both in SQL.
            avoided: further plans that the server is not to choose.
        """
        values = {name: f"new.{staged}" for name, staged in self.columns.items()}
        values |= {**self.nulls, **(others or {})}
        # Rows of one chain lie side by side, which the server's statistics do not show.
        plans = ("enable_sort", *avoided)
        for plan in plans:
            self.run(f"SET LOCAL {plan} = off")
        inserted = self.run(
            f"INSERT INTO {self.table} ({', '.join(values)})"
            f" SELECT {', '.join(values.values())} FROM {STAGE} AS new {condition}"
            " ORDER BY new.number"
        )
        for plan in plans:
            self.run(f"SET LOCAL {plan} TO DEFAULT")
        return inserted

    def same(self, columns: Sequence[str]) -> str:
        """Return the condition that `old` has the values of `new` in some columns."""
        return " AND ".join(
            # Only by `=` can rows be found by hashes.
            f"old.{name} {'=' if name in self._never_null else 'IS NOT DISTINCT FROM'}"
            f" new.{self.columns[name]}"
            for name in columns
        )

    def check_taken(self, taken: int, rows: int) -> None:
        """Raise `ExportError` if the table has taken fewer rows than it was to take."""
        self.require(taken == rows, f"the table took {taken:,} of {rows:,} {self.unit}")

    def check_values(self, condition: str, rows: str = f"{STAGE} AS new") -> None:
        """Raise `ExportError` unless each staged row has a row of the table that meets a condition.

        Args:
            condition: the condition on `old` and `new`.
            rows: the staged rows, in SQL.
        """
        if not self.triggers:
            return
        # Else some triggers would run at the commit.
        self.run("SET CONSTRAINTS ALL IMMEDIATE")
        changed = self.count(
            f"SELECT count(*) FROM {rows} WHERE NOT EXISTS"
            f" (SELECT FROM {self.table} AS old WHERE {condition})"
        )
        self.require(
            not changed, f"the table has other values than the export for {changed:,} {self.unit}"
        )

    def require(self, is_met: bool, fault: str) -> None:
        """Raise `ExportError` unless a condition is met that only a trigger can break."""
        if not is_met:
            raise ExportError(
                f"{self._label}: {fault}, as one of its triggers leaves out or changes rows "
                f"({', '.join(self.triggers)}); disable that trigger, or name another table; "
                f"nothing was written"
            )


def staged_columns(table: PostgresTable) -> dict[str, str]:
    """Return the name of each staged column, by that of the table's column, both in SQL."""
    # A key may have any name, even that of a column that only the temporary table has.
    lifted = {name: f"lifted_{number}" for number, name in enumerate(table.flattened)}
    return {quoted(name): lifted.get(name, name) for name in table.columns}


def create_stage(
    connection: psycopg.Connection[Any], name: str, table: PostgresTable, end: str = ""
) -> None:
    """Create the temporary table, by the given name; `end` ends the statement."""
    columns = zip(staged_columns(table).values(), table.columns.values(), strict=True)
    types = ", ".join(f"{column} {type_}" for column, type_ in columns)
    connection.execute(
        f"CREATE TEMP TABLE {_name(name)} (number bigint, nameless boolean, {types}) {end}"
    )
    index_by_number(connection, name)


def index_by_number(connection: psycopg.Connection[Any], name: str) -> None:
    """Index the temporary table, if this user may.

    Without it the server sorts all documents, to write them in their order.
    """
    from psycopg import Error

    # An event trigger may refuse an index. The transaction goes on after that.
    with suppress(Error), connection.transaction():
        connection.execute(f"CREATE INDEX ON {name} (number)")


def analyze(connection: psycopg.Connection[Any], name: str, table: PostgresTable) -> None:
    """Have the server look at the temporary table."""
    # Only the columns by which rows are found: to analyse documents takes long.
    connection.execute(f"ANALYZE {name} (number, nameless, {table.found_by})")


def analyze_new(connection: psycopg.Connection[Any], table: PostgresTable) -> None:
    """Have the server look at a new table."""
    # The server reads 300 rows for each, and few of them show that people differ in all columns.
    connection.execute("SET LOCAL default_statistics_target = 20")
    connection.execute(f"ANALYZE {table.quoted} ({table.found_by})")
    connection.execute("SET LOCAL default_statistics_target TO DEFAULT")


def unused_rows(blocks: Mapping[int, int]) -> list[tuple[int, int]]:
    """Return the ranges of staged rows that are not used: the first number, and the one behind.

    Args:
        blocks: the number of rows of each staged block, by the number of the first one.
    """
    ranges: list[tuple[int, int]] = []
    for first, count in sorted(blocks.items()):
        start = first
        if ranges and ranges[-1][1] == first:
            start, _ = ranges.pop()
        ranges.append((start, first + count))
    return ranges


def drop_unused(connection: psycopg.Connection[Any], unused: Sequence[tuple[int, int]]) -> None:
    """Drop the staged rows that are not used.

    Args:
        connection: a connection in a transaction.
        unused: as `unused_rows` returns them.
    """
    for ends in unused:
        connection.execute(f"DELETE FROM {STAGE} WHERE number >= %s AND number < %s", ends)


def leave_out(connection: psycopg.Connection[Any]) -> None:
    """Drop the staged rows that are not written, and give others the events that they get.

    Both are in the table `CHOICE`.
    """
    chosen = f"{CHOICE} AS choice WHERE choice.number = new.number AND choice.matched"
    connection.execute(f"DELETE FROM {STAGE} AS new USING {chosen} IS NULL")
    connection.execute(
        f"UPDATE {STAGE} AS new SET matched = choice.matched FROM {chosen} IS NOT NULL"
    )


def find_repeated(load: Load) -> int:
    """Find the rows of people whom an earlier staged row has brought; return their number.

    Their numbers, and those of the rows that count, stand in `REPEATED` afterwards. They still
    connect rows that share a device with them.
    """
    return load.run(
        f"CREATE TEMP TABLE {_name(REPEATED)} ON COMMIT DROP AS WITH RECURSIVE"
        " nearest AS (SELECT number, min(first) AS first FROM ("
        "SELECT number, min(number) OVER (PARTITION BY account, id) AS first"
        f" FROM {STAGE}, unnest(object_ids) AS id WHERE nameless"
        " UNION ALL SELECT number, first FROM (SELECT account, person, min(number) AS first"
        f" FROM {STAGE} GROUP BY account, person HAVING count(*) > 1) AS known"
        f" JOIN {STAGE} USING (account, person)"
        ") AS shared GROUP BY number HAVING min(first) < number),"
        " path AS (SELECT number, first FROM nearest"
        " UNION ALL SELECT path.number, nearest.first FROM path"
        " JOIN nearest ON nearest.number = path.first)"
        " SELECT number, min(first) AS first FROM path GROUP BY number"
    )


def drop_repeated(load: Load) -> None:
    """Drop the rows that `find_repeated` has found."""
    load.run(
        f"DELETE FROM {STAGE} AS new USING {REPEATED} AS repeated"
        " WHERE new.number = repeated.number"
    )


def replace(load: Load) -> None:
    """Write the staged rows in place of all rows of the table."""
    load.run(f"DELETE FROM {load.table}")
    if load.triggers:
        remaining = load.count(f"SELECT count(*) FROM {load.table}")
        load.require(not remaining, f"the table keeps {remaining:,} old rows")
    append(load)


def append(load: Load) -> None:
    """Add the staged rows to those of the table."""
    load.check_taken(load.insert(), load.count(f"SELECT count(*) FROM {STAGE}"))
    load.check_values(load.same([*load.columns]))


def add_chosen(load: Load, rows: int, unused: Sequence[tuple[int, int]]) -> None:
    """Add the staged rows to a new table without triggers, as the table `CHOICE` says.

    No staged row is changed before that, as each one would be written anew with its documents.

    Args:
        load: the rows, and the table.
        rows: the number of rows that are written.
        unused: as `unused_rows` returns them.
    """
    if len(unused) > _MOST_RANGES:
        drop_unused(load.connection, unused)
        unused = []
    index_by_number(load.connection, CHOICE)
    chosen = f"CASE WHEN choice.number IS NULL THEN new.{MATCHED} ELSE choice.{MATCHED} END"
    others = {quoted(MATCHED): chosen} if MATCHED in load.columns.values() else None
    # From one range that is not used to the next, so that its documents are not even read.
    edges = [0, *chain.from_iterable(unused), _BEHIND_ALL]
    taken = 0
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        taken += load.insert(
            # Those of the range only, which would be read from the first one otherwise.
            f"LEFT JOIN (SELECT * FROM {CHOICE} WHERE number >= {start} AND number < {end})"
            " AS choice USING (number)"
            f" WHERE new.number >= {start} AND new.number < {end}"
            " AND (choice.number IS NULL OR choice.matched IS NOT NULL)",
            others,
            # Both are read in the order of their numbers, so that no document is sorted.
            avoided=("enable_hashjoin", "enable_nestloop"),
        )
    load.check_taken(taken, rows)


_BEHIND_ALL = 1 << 62
"""A number that no staged row has."""

_MOST_RANGES = 32
"""Ranges of unused rows that are passed over. Each one is a statement."""


def take_back(load: Load, origin: Origin, transaction: str | None) -> None:
    """Delete the rows that an earlier attempt of this run has appended.

    It may have brought less, as an export that is not complete does. Its rows are known by the
    transaction that wrote them, unless they were restored or changed since. Then they are known by
    their values, although other runs may have appended the same ones.

    Args:
        load: the rows, and the table.
        origin: the export.
        transaction: the transaction that wrote the rows, as `postgres_runs.recorded` returns it.
    """
    table = escaped(load.table)
    is_own = "coalesce(old.xmin::text = %(transaction)s::text, false)"
    if load.unit == "people":
        # Flattened columns may be others by now.
        names = [name for name in load.columns if name in _OF_ONE_RUN]
        same = "old.account = ANY(%(accounts)s) AND old.fetched_at = %(fetched_at)s"
        is_taken = "place <= count"
    else:
        names = [*load.columns]
        same = "count IS NOT NULL"
        is_taken = f"place <= count AND NOT EXISTS (SELECT FROM {table} AS old WHERE {is_own})"
    keys = ", ".join(load.columns[name] for name in names)
    places = ", ".join(f"old.{name}" for name in names)
    load.run(
        f"DELETE FROM {table} AS gone USING (SELECT old.tableoid AS part, old.ctid AS address,"
        f" {is_own} AS is_own, count, row_number() OVER"
        f" (PARTITION BY {places} ORDER BY ({is_own}) DESC, old.ctid DESC) AS place"
        f" FROM {table} AS old LEFT JOIN (SELECT {keys}, count(*) AS count FROM {STAGE}"
        f" GROUP BY {keys}) AS new ON {load.same(names)} WHERE {is_own} OR {same}) AS found"
        f" WHERE gone.tableoid = part AND gone.ctid = address AND (is_own OR {is_taken})",
        {
            "transaction": transaction,
            "accounts": [*origin.accounts],
            "fetched_at": origin.fetched_at,
        },
    )


_OF_ONE_RUN = ('"key"', '"account"', '"person"', '"fetched_at"')
"""The columns by which a row of people is found among those of its run."""


def other_accounts(load: Load, origin: Origin) -> list[tuple[str | None, int]]:
    """Return the accounts of a table and their rows, if an export adds rows under none of them."""
    table = escaped(load.table)
    return load.connection.execute(
        f"SELECT account, count(*) FROM {table}"
        f" WHERE EXISTS (SELECT FROM {STAGE} WHERE number IS NOT NULL)"
        # Ends with the first row, for nearly every table.
        f" AND NOT EXISTS (SELECT FROM {table} WHERE account = ANY(%(accounts)s))"
        " GROUP BY account ORDER BY account",
        {"accounts": [*origin.accounts, *origin.others]},
    ).fetchall()


def put_bindings(load: Load) -> None:
    """Write the staged bindings in place of all bindings of the same accounts and keys.

    Bindings that are there already are left alone. A staged row without a number is a key to which
    nothing is bound.
    """
    columns = [*load.columns]
    names = ", ".join(columns)
    place = f"row_number() OVER (PARTITION BY {names} ORDER BY"
    of_keys = (
        f"EXISTS (SELECT FROM {STAGE} AS new WHERE new.account = old.account AND new.key = old.key)"
    )
    load.run(
        f"CREATE TEMP TABLE {_name(KNOWN)} ON COMMIT DROP AS SELECT {names}, tableoid AS part,"
        f" ctid AS address, {place} ctid) AS place FROM {load.table} AS old WHERE {of_keys}"
    )
    load.run(
        f"CREATE TEMP TABLE {_name(CHANGED)} ON COMMIT DROP AS SELECT number, {names},"
        f" {place} number) AS place FROM {STAGE} WHERE number IS NOT NULL"
    )
    for table in (KNOWN, CHANGED):
        load.run(f"ANALYZE {table} (account, key)")
    same = f"old.place = new.place AND {load.same(columns)}"
    gone = f"NOT EXISTS (SELECT FROM {CHANGED} AS new WHERE {same})"
    load.run(
        f"DELETE FROM {load.table} AS one USING {KNOWN} AS old"
        f" WHERE one.tableoid = old.part AND one.ctid = old.address AND {gone}"
    )
    if load.triggers:
        remaining = load.count(f"SELECT count(*) FROM {load.table} AS old WHERE {of_keys}")
        staying = load.count(f"SELECT count(*) FROM {KNOWN} AS old WHERE NOT {gone}")
        load.require(remaining == staying, f"the table keeps {remaining - staying:,} old bindings")
    load.run(f"DELETE FROM {CHANGED} AS new WHERE EXISTS (SELECT FROM {KNOWN} AS old WHERE {same})")
    missing = f"WHERE number IN (SELECT number FROM {CHANGED})"
    rows = load.count(f"SELECT count(*) FROM {CHANGED}")
    load.check_taken(load.insert(missing), rows)
    load.check_values(
        load.same(columns), f"(SELECT * FROM {STAGE} WHERE number IS NOT NULL) AS new"
    )


def _name(table: str) -> str:
    return table.partition(".")[2]
