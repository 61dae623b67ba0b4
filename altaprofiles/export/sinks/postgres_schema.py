"""Creates PostgreSQL tables, and adds to them whatever an export needs. Commits nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...base.sql import quoted
from ...base.wording import numbered
from ...errors import ExportError
from .postgres_shape import FLATTENED, Shape
from .postgres_table import PostgresTable, escaped, row_of, texts_of

if TYPE_CHECKING:
    import psycopg

__all__ = ["add_index", "check_accounts", "create", "of_no_account", "prepare"]

_NAMED = 3
"""Accounts named in an error."""


def create(table: PostgresTable, connection: psycopg.Connection[Any]) -> None:
    """Create the table, without its index."""
    columns = [f"{quoted(name)} {type_}" for name, type_ in table.columns.items()]
    if table.content.of == "people" and table.is_keyed:
        columns.append(f"PRIMARY KEY ({', '.join(table.content.identifies)})")
    connection.execute(f"CREATE TABLE {table.quoted} ({', '.join(columns)})")
    _mark(table, connection, [*table.flattened])


def add_index(table: PostgresTable, connection: psycopg.Connection[Any]) -> None:
    """Create the index by which rows of earlier runs are found, if the table is to have one."""
    if table.is_keyed:
        connection.execute(f"CREATE INDEX ON {table.quoted} {table.index}")


def check_accounts(
    table: PostgresTable, connection: psycopg.Connection[Any], accounts: Sequence[str]
) -> None:
    """Raise `ExportError` if the table has rows of accounts that an export does not bring."""
    (has_accounts,) = row_of(
        connection,
        "SELECT EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass(%s)"
        " AND attname = 'account')",
        [table.quoted],
    )
    if not has_accounts:
        # There is no table, or it is one of an earlier version.
        return
    others = texts_of(
        connection,
        "SELECT DISTINCT coalesce(account, 'null') AS account FROM"
        f" {escaped(table.quoted)} WHERE account <> ALL(%s) IS NOT FALSE"
        " ORDER BY account",
        [[*accounts]],
    )
    if others:
        names = ", ".join(others[:_NAMED]) + (", …" if others[_NAMED:] else "")
        raise table.error(
            f"write='replace' would delete the rows of other accounts ({names}); pass "
            f"write='upsert', name another table, or export those accounts as well"
        )


def prepare(
    table: PostgresTable,
    connection: psycopg.Connection[Any],
    shape: Shape,
    accounts: Sequence[str],
) -> list[str]:
    """Create the table, or add to it what an export lacks.

    An existing table is indexed before rows are looked up in it. A new one has to be indexed after
    its first load, because an index built over many rows at once is better.

    Args:
        table: the table.
        connection: a connection in a transaction, in which the export has its turn.
        shape: the state of the table.
        accounts: the accounts whose rows are written.

    Returns:
        Sentences on changes that are not just additions.

    Raises:
        ExportError: the table is one of an earlier version, and its rows cannot be taken over, or
            it is to be replaced and has rows of other accounts.
    """
    run = connection.execute
    if shape.oid is None:
        create(table, connection)
        return []
    notes: list[str] = []
    if table.write != "append":
        # Rows that others add meanwhile would be missed.
        run(f"LOCK TABLE {table.quoted} IN SHARE ROW EXCLUSIVE MODE")
    if table.write == "replace":
        check_accounts(table, connection, accounts)
    if shape.is_old:
        notes = [_take_over(table, connection, shape, accounts)]
    else:
        notes = _change_key(table, connection, shape)
        _add_columns(table, connection, shape.missing)
    if shape.is_owned:
        _mark(table, connection, shape.unmarked)
    if shape.may_index and not shape.is_indexed:
        add_index(table, connection)
    return notes


def _take_over(
    table: PostgresTable,
    connection: psycopg.Connection[Any],
    shape: Shape,
    accounts: Sequence[str],
) -> str:
    """Turn a table of an earlier version into one of this version; return a sentence on it."""
    from psycopg import sql

    run = connection.execute
    if table.write == "replace":
        run(f"DELETE FROM {table.quoted}")
    elif len(accounts) != 1:
        raise of_no_account(table)
    (rows,) = row_of(connection, f"SELECT count(*) FROM {table.quoted}")
    _drop_keys(table, connection, shape)
    account = sql.Literal(accounts[0]).as_string(connection)
    # A default fills the column without a rewrite of the table.
    run(f"ALTER TABLE {table.quoted} ADD COLUMN account text DEFAULT {account}")
    run(f"ALTER TABLE {table.quoted} ALTER account DROP DEFAULT")
    if shape.lacks_key:
        _add_key(table, connection)
    missing = {name: type_ for name, type_ in shape.missing.items() if name != "account"}
    _add_columns(table, connection, missing)
    done = f"{table.label} was made by an earlier version, and {_new_key(table)}"
    if table.write == "replace":
        return done
    return f"{done}; {numbered(rows, 'row')} of it belong to the account {accounts[0]}"


def of_no_account(table: PostgresTable) -> ExportError:
    """Return the error of several accounts and a table that an earlier version made."""
    return table.error(
        "an earlier version made the table, and its rows name no account; export one account "
        "first, to which they belong, and then the others"
    )


def _change_key(
    table: PostgresTable, connection: psycopg.Connection[Any], shape: Shape
) -> list[str]:
    """Give a table that is replaced the key of its new rows; return a sentence on that."""
    if not (shape.old_keys or shape.lacks_key):
        return []
    connection.execute(f"DELETE FROM {table.quoted}")
    _drop_keys(table, connection, shape)
    if shape.lacks_key:
        _add_key(table, connection)
    return [f"{table.label} is replaced, and {_new_key(table)}"]


def _drop_keys(table: PostgresTable, connection: psycopg.Connection[Any], shape: Shape) -> None:
    for name, is_constraint in shape.old_keys.items():
        if is_constraint:
            connection.execute(f"ALTER TABLE {table.quoted} DROP CONSTRAINT {quoted(name)}")
        else:
            connection.execute(f"DROP INDEX {shape.schema}.{quoted(name)}")


def _add_key(table: PostgresTable, connection: psycopg.Connection[Any]) -> None:
    key = ", ".join(table.content.identifies)
    connection.execute(f"ALTER TABLE {table.quoted} ADD PRIMARY KEY ({key})")


def _new_key(table: PostgresTable) -> str:
    if table.is_keyed:
        return "its key is account and person now"
    return "people can be there more than once now, so that it has no unique key"


def _add_columns(
    table: PostgresTable, connection: psycopg.Connection[Any], columns: dict[str, str]
) -> None:
    for name, type_ in columns.items():
        connection.execute(
            f"ALTER TABLE {table.quoted} ADD COLUMN IF NOT EXISTS {quoted(name)} {type_}"
        )
    _mark(table, connection, [name for name in columns if name in table.flattened])


def _mark(
    table: PostgresTable, connection: psycopg.Connection[Any], columns: Sequence[str]
) -> None:
    for name in columns:
        connection.execute(f"COMMENT ON COLUMN {table.quoted}.{quoted(name)} IS '{FLATTENED}'")
