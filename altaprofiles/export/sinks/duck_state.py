"""`altaprofiles_sync` in a DuckDB file: the state of each table that `Session.sync` keeps.

It has a row for each table and account, which changes in the transaction that changes the table.
`settings` has a member `left` besides, which is `Left`.
Blocking.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from ...errors import ExportError
from ..state import Left, Lost, SyncState
from ..tables import Origin, losses_of
from .duck_table import OWN_PREFIX, DuckTable, is_named

__all__ = [
    "STATES",
    "Execute",
    "Stream",
    "forget_states",
    "known_states",
    "read_states",
    "rows_of",
    "write_state",
]

STATES = f"{OWN_PREFIX}sync"

_COLUMNS = {
    "table_name": "VARCHAR",
    "account": "VARCHAR",
    "settings": "JSON",
    "through": "DATE",
    "synced_at": "TIMESTAMP WITH TIME ZONE",
}

Execute: TypeAlias = Callable[..., list[Any]]
"""Runs a statement with its values, and returns all rows of its result."""

Stream: TypeAlias = Callable[[str], Iterator[Any]]
"""Runs a statement, and yields its rows. Nothing else runs until the last one."""


def rows_of(connection: Any) -> Execute:
    """Return the function that runs statements on a connection."""

    def execute(statement: str, **values: Any) -> list[Any]:
        rows: list[Any] = connection.execute(statement, values or None).fetchall()
        return rows

    return execute


def read_states(execute: Execute, file: str, table: str) -> list[SyncState]:
    """Return the state of each account's rows in a table, by account.

    Args:
        execute: runs statements.
        file: the file in messages.
        table: the name.

    Raises:
        ExportError: something else has made the table of states.
    """
    return [SyncState.of_row(*row) for row in _rows(execute, file, table)]


def _rows(execute: Execute, file: str, table: str) -> list[Any]:
    if not _exists(execute, file):
        return []
    # DuckDB needs another package to return times, but none for numbers.
    return execute(
        f"SELECT account, settings, through, epoch_us(synced_at) FROM {STATES}"
        f" WHERE {_IS_OF_TABLE} ORDER BY account",
        table=table,
    )


def known_states(
    execute: Execute, file: str, table: DuckTable, origin: Origin
) -> list[tuple[SyncState, tuple[Lost, ...]]]:
    """Return the states of an export's accounts, and what rows are lost, as `losses_of` does.

    Args:
        execute: runs statements.
        file: the file in messages.
        table: the table, before the rows of the export are written.
        origin: the export.

    Raises:
        ExportError: it is a sync, and something else has made the table of states.
    """
    if origin.sync is None and _columns(execute) != _COLUMNS:
        return []
    known = []
    for row in _rows(execute, file, table.name):
        state, left = SyncState.of_row(*row), Left.of(row[1])
        if state.account not in origin.accounts:
            continue
        losses: tuple[Lost, ...] = ()
        if left is not None:
            now = _left(execute, table, state.account)
            losses = losses_of(origin, state, left, now.rows, now.latest)
        known.append((state, losses))
    return known


def _left(execute: Execute, table: DuckTable, account: str, losses: tuple[Lost, ...] = ()) -> Left:
    # Columns are stored by themselves, so that this reads two of them.
    [(rows, latest)] = execute(
        f"SELECT count(*), epoch_us(max(fetched_at)) FROM {table.quoted} WHERE account = $account",
        account=account,
    )
    return Left(rows, latest, losses=losses)


def write_state(
    execute: Execute,
    file: str,
    table: DuckTable,
    state: SyncState,
    losses: tuple[Lost, ...] = (),
) -> None:
    """Write the state of the rows of one account in a table. It never moves back.

    Args:
        execute: runs statements.
        file: the file in messages.
        table: the table, with the rows.
        state: the state.
        losses: as in `Left`.

    Raises:
        ExportError: something else has made the table of states.
    """
    if not _exists(execute, file):
        types = ", ".join(f"{name} {type_}" for name, type_ in _COLUMNS.items())
        execute(f"CREATE TABLE {STATES} ({types})")
    known = read_states(execute, file, table.name)
    state = state.beyond(next((one for one in known if one.account == state.account), None))
    execute(
        f"DELETE FROM {STATES} WHERE {_IS_OF_TABLE} AND account = $account",
        table=table.name,
        account=state.account,
    )
    execute(
        f"INSERT INTO {STATES} VALUES"
        " ($table, $account, $settings, $through, make_timestamptz($synced_at))",
        table=table.name,
        account=state.account,
        settings=_left(execute, table, state.account, losses).beside(state.settings),
        through=state.through,
        synced_at=state.synced_at_number,
    )


def forget_states(execute: Execute, table: str) -> None:
    """Forget the state of a table of which no row is left.

    Args:
        execute: runs statements.
        table: the name.
    """
    # A table that something else has made holds no states.
    if _columns(execute) == _COLUMNS:
        execute(f"DELETE FROM {STATES} WHERE {_IS_OF_TABLE}", table=table)


_IS_OF_TABLE = is_named("table_name", "$table")


def _columns(execute: Execute) -> dict[str, str]:
    """Return the types of the columns of the table of states, by name; empty without one."""
    columns = execute(
        "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = $name"
        " AND table_schema = current_schema() AND table_catalog = current_database()"
        " ORDER BY ordinal_position",
        name=STATES,
    )
    return dict(columns)


def _exists(execute: Execute, file: str) -> bool:
    columns = _columns(execute)
    if columns and columns != _COLUMNS:
        raise ExportError(
            f"{file}: something else has made the table {STATES!r}, in which the library keeps "
            f"the state of tables; rename it"
        )
    return bool(columns)
