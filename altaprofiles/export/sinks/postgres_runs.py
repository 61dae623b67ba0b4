"""The runs whose rows stand in PostgreSQL tables without a unique key.

They say that no run is appended twice, and how often people may be in a table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from msgspec import Struct

from ..plan import DISCARD
from ..tables import Origin
from .postgres_own import OwnTable
from .postgres_table import PostgresTable, escaped, row_of

if TYPE_CHECKING:
    import psycopg

__all__ = ["RUNS", "Mode", "Recorded", "holds", "mode_of", "record", "recorded"]

Mode: TypeAlias = Literal["append", "repeating"]
"""The way in which a table without a unique key was made, as in `PostgresTable`."""

RUNS = OwnTable(
    "altaprofiles_runs",
    {
        "table_name": "text",
        "mode": "text",
        "run": "text",
        "digest": "text",
        "written_at": "timestamp with time zone",
    },
    ("table_name", "run"),
    "exports record the runs of tables without a key",
)


class Recorded(Struct, frozen=True):
    """A run whose rows are in a table.

    Attributes:
        digest: of the rows that it has written.
        transaction: the transaction that wrote them, as in their `xmin`; None if it wrote those of
            other runs as well, as one that has restored the database did.
    """

    digest: str
    transaction: str | None


def mode_of(table: PostgresTable, connection: psycopg.Connection[Any]) -> Mode | None:
    """Return the mode in which a table without a key was made, or None if it is not known."""
    place = RUNS.find(table, connection)
    if place is None or "SELECT" in RUNS.lacking(place, connection):
        return None
    row = row_of(
        connection,
        f"SELECT mode FROM {escaped(place)} WHERE table_name = %s LIMIT 1",
        [table.name],
    )
    return None if row is None else row[0]


def recorded(
    table: PostgresTable, connection: psycopg.Connection[Any], origin: Origin
) -> Recorded | None:
    """Return the record of an export whose rows are in the table already, or None.

    Raises:
        ExportError: this user may not read the table of runs, or it is another table; or the record
            of rows that were written is gone, and they cannot be found.
    """
    place = RUNS.readable(table, connection, writes=True)
    runs = None if place is None else escaped(place)
    row = None
    if runs is not None:
        row = row_of(
            connection,
            f"SELECT digest, CASE WHEN (SELECT count(*) FROM {runs} AS other"
            " WHERE other.xmin = one.xmin) = 1 THEN xmin::text END"
            f" FROM {runs} AS one WHERE table_name = %s AND run = %s",
            [table.name, origin.run],
        )
    if row is None:
        return _unrecorded(table, connection, origin) if origin.is_written else None
    found = Recorded(*row)
    # Somebody may have deleted them since.
    return found if _has_rows(table, connection, origin, found, runs) else None


def _unrecorded(
    table: PostgresTable, connection: psycopg.Connection[Any], origin: Origin
) -> Recorded | None:
    """Return a record of rows that an export has written, and whose own is gone, or None.

    Raises:
        ExportError: the table may have them, and nothing tells them from those of other runs.
    """
    found = Recorded("", None)
    if not _has_rows(table, connection, origin, found, None):
        return None
    if table.content.of == "bindings":
        raise table.error(
            f"this export has appended its rows before it was complete, and {RUNS.name} has no "
            f"record of them any more, by which they would be replaced; restore that table, or "
            f"delete those rows, discard the unfinished export with {DISCARD}, and run it again"
        )
    return found


def holds(table: PostgresTable, connection: psycopg.Connection[Any], origin: Origin) -> bool:
    """Return whether any row of an export is in the table.

    Raises:
        ExportError: as from `recorded`.
    """
    (exists,) = row_of(connection, "SELECT to_regclass(%s) IS NOT NULL", [table.quoted])
    return bool(exists) and recorded(table, connection, origin) is not None


def _has_rows(
    table: PostgresTable,
    connection: psycopg.Connection[Any],
    origin: Origin,
    run: Recorded,
    runs: str | None,
) -> bool:
    """Return whether the table has any row of an export, as far as this user may see that.

    Without the table of runs, all bindings of its accounts may be rows of it.
    """
    names, is_of_run = ["account", "fetched_at"], "fetched_at = %s"
    values: list[object] = [origin.fetched_at]
    if table.content.of == "bindings":
        # They have no time. A row that somebody has changed or copied is of no transaction of ours.
        names, values, is_of_run = ["account"], [], "true"
        if runs is not None:
            values = [run.transaction, table.name]
            is_of_run = (
                "(coalesce(xmin::text = %s::text, true) OR xmin::text NOT IN"
                f" (SELECT xmin::text FROM {runs} WHERE table_name = %s))"
            )
    (is_readable,) = row_of(
        connection,
        "SELECT has_table_privilege(to_regclass(%s)::oid, 'SELECT') AND %s ="
        " (SELECT count(*) FROM pg_attribute WHERE attrelid = to_regclass(%s)"
        " AND NOT attisdropped AND attname = ANY(%s))",
        [table.quoted, len(names), table.quoted, names],
    )
    if not is_readable:
        return True
    (found,) = row_of(
        connection,
        f"SELECT EXISTS (SELECT FROM {escaped(table.quoted)}"
        f" WHERE account = ANY(%s) AND {is_of_run})",
        [[*origin.accounts], *values],
    )
    return bool(found)


def record(
    table: PostgresTable,
    connection: psycopg.Connection[Any],
    run: str,
    digest: str,
    *,
    is_only: bool,
) -> None:
    """Record that the rows of a run are in the table with this transaction.

    Args:
        table: the table.
        connection: a connection in the transaction that writes the rows, at its end.
        run: the run.
        digest: of its rows.
        is_only: whether the table has no rows of other runs.

    Raises:
        ExportError: as from `OwnTable.require`.
    """
    place = escaped(RUNS.require(table, connection))
    mode: Mode = "repeating" if table.is_repeating else "append"
    connection.execute(
        f"DELETE FROM {place} WHERE table_name = %s AND (%s OR run = %s OR mode <> %s)",
        [table.name, is_only, run, mode],
    )
    connection.execute(
        f"INSERT INTO {place} VALUES (%s, %s, %s, %s, now())", [table.name, mode, run, digest]
    )
