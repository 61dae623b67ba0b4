"""The state of PostgreSQL tables that `Session.sync` keeps up to date.

The table `altaprofiles_sync` stands in the schema of those tables. It has a row for each table and
account, which is written in the same transaction as the rows of the account. `settings` has a
member `left` besides, which is `Left`.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from ...errors import ExportError
from ..state import Left, Lost, SyncState
from ..tables import Origin, losses_of
from .postgres_own import OwnTable
from .postgres_table import PostgresTable, escaped, row_of

if TYPE_CHECKING:
    import psycopg

__all__ = [
    "SYNC",
    "Known",
    "check_forget",
    "exists",
    "forget",
    "known_rows",
    "read",
    "read_all",
    "write",
]

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
    """Return the state of the rows of one account, which may be written later; see `read_all`."""
    states = (SyncState.of_row(*row) for row in _rows(table, connection, writes=True))
    return next((one for one in states if one.account == account), None)


def read_all(table: PostgresTable, connection: psycopg.Connection[Any]) -> list[SyncState]:
    """Return the states of a table by account; none if there is no table.

    Raises:
        ExportError: this user may not read the states, or something else has made their table.
    """
    return [SyncState.of_row(*row) for row in _rows(table, connection, writes=False)]


def exists(table: PostgresTable, connection: psycopg.Connection[Any]) -> bool:
    """Return whether there is a table, or another relation of its name."""
    (is_there,) = row_of(connection, "SELECT to_regclass(%s) IS NOT NULL", [table.quoted])
    return bool(is_there)


def _rows(table: PostgresTable, connection: psycopg.Connection[Any], *, writes: bool) -> list[Any]:
    if (
        not exists(table, connection)
        or (place := SYNC.readable(table, connection, writes=writes)) is None
    ):
        return []
    return connection.execute(
        f"SELECT account, settings, through, {_number('synced_at')}"
        f" FROM {escaped(place)} WHERE table_name = %s ORDER BY account",
        [table.name],
    ).fetchall()


def _number(time: str) -> str:
    """Return a time in SQL as microseconds since 1970."""
    return f"(extract(epoch FROM {time}) * 1000000)::bigint"


class Known(Struct, frozen=True):
    """The rows of one account with a state, before a run writes others.

    Attributes:
        state: the state.
        latest: as in `Left`; None if it is not known.
        losses: as in `Left`, with that run's own.
    """

    state: SyncState
    latest: int | None
    losses: tuple[Lost, ...]


def known_rows(
    table: PostgresTable, connection: psycopg.Connection[Any], origin: Origin
) -> list[Known]:
    """Return the rows of the accounts of an export, for those that have a state.

    There are none if it is not a sync, and this user may not write states.
    """
    if origin.sync is None:
        with suppress(ExportError):
            place = SYNC.find(table, connection)
            if place is None or SYNC.lacking(place, connection):
                return []
    rows = [row for row in _rows(table, connection, writes=True) if row[0] in origin.accounts]
    return [
        _known(table, connection, origin, SyncState.of_row(*row), Left.of(row[1])) for row in rows
    ]


def _known(
    table: PostgresTable,
    connection: psycopg.Connection[Any],
    origin: Origin,
    state: SyncState,
    left: Left | None,
) -> Known:
    if left is None:
        return Known(state, None, ())
    rows, latest = _count(table, connection, state.account), left.latest
    if latest is not None and not _is_as_late(table, connection, state.account, latest):
        latest = _latest(table, connection, state.account)
    return Known(state, latest, losses_of(origin, state, left, rows, latest))


def _count(table: PostgresTable, connection: psycopg.Connection[Any], account: str) -> int:
    query = f"SELECT count(*) FROM {escaped(table.quoted)} WHERE account = %s"
    (rows,) = row_of(connection, query, [account])
    return int(rows)


def _latest(table: PostgresTable, connection: psycopg.Connection[Any], account: str) -> int | None:
    latest = _number("max(fetched_at)")
    query = f"SELECT {latest} FROM {escaped(table.quoted)} WHERE account = %s"
    (number,) = row_of(connection, query, [account])
    return None if number is None else int(number)


def _is_as_late(
    table: PostgresTable, connection: psycopg.Connection[Any], account: str, latest: int
) -> bool:
    """Return whether a row was fetched at a time or later.

    The first such row ends the search. For the latest time of all, every row would be read.
    """
    query = (
        f"SELECT EXISTS (SELECT FROM {escaped(table.quoted)} WHERE account = %s"
        " AND fetched_at >= 'epoch'::timestamptz + %s * interval '1 microsecond')"
    )
    (exists,) = row_of(connection, query, [account, latest])
    return bool(exists)


def write(
    table: PostgresTable,
    connection: psycopg.Connection[Any],
    state: SyncState,
    latest: int | None = None,
    losses: tuple[Lost, ...] = (),
) -> None:
    """Write the state of the rows of one account. It never moves back.

    Args:
        table: the table.
        connection: a connection in the transaction that writes the rows, at its end.
        state: the state.
        latest: as in `Left`; None if it is not known.
        losses: as in `Left`.

    Raises:
        ExportError: as from `OwnTable.require`.
    """
    place = escaped(SYNC.require(table, connection))
    before = read(table, connection, state.account)
    if latest is None:
        latest = _latest(table, connection, state.account)
    rows = _count(table, connection, state.account)
    left = Left(rows, latest, losses)
    state = state.beyond(before)
    connection.execute(
        f"DELETE FROM {place} WHERE table_name = %s AND account = %s", [table.name, state.account]
    )
    connection.execute(
        f"INSERT INTO {place} VALUES (%s, %s, %s, %s, %s)",
        [
            table.name,
            state.account,
            left.beside(state.settings),
            state.through,
            state.synced_at,
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
