"""The runs whose rows stand in tables that are appended to, so that no run is appended twice.

The table `altaprofiles_runs` stands in the schema of those tables, and is written in the same
transaction as their rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .postgres_table import PostgresTable, quoted, row_of, texts_of

if TYPE_CHECKING:
    import psycopg

__all__ = ["RUNS", "record", "require"]

RUNS = "altaprofiles_runs"
_COLUMNS = {"table_name": "text", "run": "text", "written_at": "timestamp with time zone"}


def require(table: PostgresTable, connection: psycopg.Connection[Any], schema: str | None) -> None:
    """Create the table of runs, unless there is one that this user can write to.

    Args:
        table: the table that is appended to.
        connection: a connection in a transaction.
        schema: the schema of `table`, in SQL; None if `table` is to be created.

    Raises:
        ExportError: this user may not create it, or lacks a right on it, or it is another table.
    """
    schema = schema or _schema_of(table, connection)
    if _oid(connection, schema) is None:
        # Two exports into different tables could create it at once.
        connection.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended('altaprofiles ' || %s, 0))",
            [f"{schema}.{RUNS}"],
        )
    oid = _oid(connection, schema)
    if oid is None:
        (may_create,) = row_of(
            connection, "SELECT has_schema_privilege(to_regnamespace(%s), 'CREATE')", [schema]
        )
        if not may_create:
            raise table.error(
                f"this user may not create the table {RUNS} in {schema}, in which the runs that "
                f"were appended are recorded; let its owner create it, and grant SELECT, INSERT "
                f"and DELETE on it"
            )
        columns = ", ".join(f"{name} {type_} NOT NULL" for name, type_ in _COLUMNS.items())
        connection.execute(
            f"CREATE TABLE {schema}.{RUNS} ({columns}, PRIMARY KEY (table_name, run))"
        )
        return
    found = connection.execute(
        "SELECT attname::text, format_type(atttypid, atttypmod) FROM pg_attribute"
        " WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped",
        [oid],
    )
    if dict(found.fetchall()) != _COLUMNS:
        raise table.error(
            f"{schema}.{RUNS} is not the table in which exports record the runs that were "
            f"appended; rename it, or name a table in another schema"
        )
    lacking = texts_of(
        connection,
        "SELECT name FROM unnest(ARRAY['SELECT', 'INSERT', 'DELETE']) AS name"
        " WHERE NOT has_table_privilege(%s::oid, name)",
        [oid],
    )
    if lacking:
        raise table.error(
            f"this user lacks the right to {', '.join(lacking)} in {schema}.{RUNS}, in which the "
            f"runs that were appended are recorded"
        )


def record(
    table: PostgresTable, connection: psycopg.Connection[Any], schema: str | None, run: str
) -> bool:
    """Record that the rows of a run are in the table with this transaction.

    Args:
        table, connection: as for `require`.
        schema: the schema of `table`, in SQL; None if `table` is new, so that it has no run yet.
        run: the run.

    Returns:
        False if they were there before.
    """
    runs = f"{schema or _schema_of(table, connection)}.{RUNS}"
    if schema is None:
        # Those of another table that had the name.
        connection.execute(f"DELETE FROM {runs} WHERE table_name = %s", [table.name])
    recorded = connection.execute(
        f"INSERT INTO {runs} VALUES (%s, %s, now()) ON CONFLICT DO NOTHING", [table.name, run]
    )
    return recorded.rowcount == 1


def _schema_of(table: PostgresTable, connection: psycopg.Connection[Any]) -> str:
    if table.schema is not None:
        return quoted(table.schema)
    (schema,) = row_of(connection, "SELECT quote_ident(current_schema())")
    return str(schema)


def _oid(connection: psycopg.Connection[Any], schema: str) -> int | None:
    (oid,) = row_of(connection, "SELECT to_regclass(%s)::oid", [f"{schema}.{RUNS}"])
    return None if oid is None else int(oid)
