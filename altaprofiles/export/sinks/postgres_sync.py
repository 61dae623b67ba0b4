"""The state of PostgreSQL tables that `Session.sync` keeps up to date.

The table `altaprofiles_sync` stands in the schema of those tables. It has a row for each table and
account, which is written in the same transaction as the rows of the account.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ...errors import ExportError
from ..state import SyncState
from .postgres_own import OwnTable
from .postgres_table import PostgresTable, escaped, row_of

if TYPE_CHECKING:
    import psycopg

__all__ = ["SYNC", "check_forget", "forget", "read", "read_all", "write"]

SYNC = OwnTable(
    "altaprofiles_sync",
    {
        "table_name": "text",
        "account": "text",
        "settings": "text",
        "through": "date",
        "synced_at": "timestamp with time zone",
    },
    ("table_name", "account"),
    "syncs keep the state of tables",
)


def read(
    table: PostgresTable, connection: psycopg.Connection[Any], account: str
) -> SyncState | None:
    """Return the state of the rows of one account; see `read_all`."""
    return next((one for one in read_all(table, connection) if one.account == account), None)


def read_all(table: PostgresTable, connection: psycopg.Connection[Any]) -> list[SyncState]:
    """Return the states of a table by account; none if there is no table.

    Raises:
        ExportError: this user may not read the states, or something else has made their table.
    """
    (exists,) = row_of(connection, "SELECT to_regclass(%s) IS NOT NULL", [table.quoted])
    if not exists or (place := SYNC.readable(table, connection)) is None:
        return []
    rows = connection.execute(
        "SELECT account, settings, through, (extract(epoch FROM synced_at) * 1000000)::bigint"
        f" FROM {escaped(place)} WHERE table_name = %s ORDER BY account",
        [table.name],
    )
    return [SyncState.of_row(*row) for row in rows]


def write(table: PostgresTable, connection: psycopg.Connection[Any], state: SyncState) -> None:
    """Write the state of the rows of one account. It never moves back.

    Args:
        table: the table.
        connection: a connection in the transaction that writes the rows, at its end.
        state: the state.

    Raises:
        ExportError: as from `OwnTable.require`.
    """
    place = escaped(SYNC.require(table, connection))
    before = read(table, connection, state.account)
    connection.execute(
        f"DELETE FROM {place} WHERE table_name = %s AND account = %s", [table.name, state.account]
    )
    connection.execute(
        f"INSERT INTO {place} VALUES (%s, %s, %s, %s, %s)",
        [
            table.name,
            state.account,
            state.settings,
            state.through if before is None else max(before.through, state.through),
            state.synced_at if before is None else max(before.synced_at, state.synced_at),
        ],
    )


def forget(table: PostgresTable, connection: psycopg.Connection[Any]) -> None:
    """Delete all states of a table of which no row is left.

    Raises:
        ExportError: as from `check_forget`.
    """
    if (place := check_forget(table, connection)) is not None:
        connection.execute(f"DELETE FROM {escaped(place)} WHERE table_name = %s", [table.name])


def check_forget(table: PostgresTable, connection: psycopg.Connection[Any]) -> str | None:
    """Return the table of states in SQL if it has states of a table, else None.

    Raises:
        ExportError: this user may not delete them.
    """
    place = None
    # A table that something else has made holds no states.
    with suppress(ExportError):
        place = SYNC.find(table, connection)
    if place is None or "SELECT" in SYNC.lacking(place, connection):
        return None
    (has_states,) = row_of(
        connection,
        f"SELECT EXISTS (SELECT FROM {escaped(place)} WHERE table_name = %s)",
        [table.name],
    )
    return SYNC.require(table, connection) if has_states else None
