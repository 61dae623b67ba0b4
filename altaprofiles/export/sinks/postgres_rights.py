"""The rights that an export needs on a PostgreSQL server, looked at before anything is sent."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from ...base.sql import quoted
from ..tables import Origin
from . import postgres_sync
from .postgres_runs import RUNS
from .postgres_schema import add_index, check_accounts, create
from .postgres_shape import Shape, shape_of
from .postgres_table import PostgresTable, columns_in_words, grant_on, row_of, texts_of

if TYPE_CHECKING:
    import psycopg

__all__ = ["check_origin", "check_rights", "check_take_back"]

logger = logging.getLogger("altaprofiles")


def check_rights(table: PostgresTable, connection: psycopg.Connection[Any]) -> None:
    """Raise unless an export can create the table or write to it in its mode.

    Args:
        table: the table.
        connection: a connection in a transaction, which the caller rolls back.

    Raises:
        ConfigurationError: a flattened column has another type in the table.
        ExportError: a right is missing, or the database or the table is unsuitable.
    """
    database, encoding, is_standby, is_read_only, may_stage, schema, may_create = row_of(
        connection,
        "SELECT quote_ident(current_database()), current_setting('server_encoding'),"
        " pg_is_in_recovery(),"
        " current_setting('transaction_read_only') = 'on',"
        " has_database_privilege(current_database(), 'TEMP'), to_regnamespace(s)::text,"
        " has_schema_privilege(to_regnamespace(s), 'CREATE')"
        " FROM coalesce(%s::text, quote_ident(current_schema())) AS s",
        [None if table.schema is None else quoted(table.schema)],
    )
    if encoding != "UTF8":
        raise table.error(f"the database is encoded in {encoding}, and must be in UTF8")
    if is_standby:
        raise table.error("the server is a standby; name its primary")
    if is_read_only:
        # A default that any user may override, but that somebody has set on purpose.
        raise table.error(
            "transactions of this user are read-only by default; to write nevertheless, add "
            "?options=-c%20default_transaction_read_only%3Doff to the URL"
        )
    if not may_stage:
        raise table.error(
            f"this user may not create temporary tables; "
            f"{grant_on(f'DATABASE {database}', 'TEMPORARY', connection)}"
        )
    if schema is None:
        raise table.without_schema()
    shape = shape_of(table, connection)
    if not table.is_keyed:
        RUNS.require(table, connection)
    if shape.oid is None:
        if not may_create:
            raise table.error(
                f"this user may not create tables in {schema}; "
                f"{grant_on(f'SCHEMA {schema}', 'CREATE', connection)}"
            )
        # In a transaction that is rolled back: defaults of the user and event triggers have a say
        # in it, and a type may have the name.
        create(table, connection)
        add_index(table, connection)
        shape_of(table, connection)
        return
    _check_privileges(table, connection, shape)
    if shape.old_keys:
        _check_old_keys(table, connection, shape)
    if table.write == "upsert" and not (shape.is_indexed or shape.may_index):
        logger.warning(
            "%s has no index on object_ids, and this user may not create it, so that people "
            "without an identity are looked up slowly; let its owner run: CREATE INDEX ON %s %s",
            table.label,
            table.quoted,
            table.index,
        )


def check_origin(table: PostgresTable, connection: psycopg.Connection[Any], origin: Origin) -> None:
    """Raise unless the rows of an export may go into the table, after `check_rights`.

    Args:
        table, connection: as for `check_rights`.
        origin: the export.

    Raises:
        ExportError: it would delete rows of other accounts, or a right is missing on the states of
            synced tables.
    """
    if table.write == "replace":
        check_accounts(table, connection, origin.accounts)
    (exists,) = row_of(connection, "SELECT to_regclass(%s) IS NOT NULL", [table.quoted])
    if table.write == "replace" or not exists:
        postgres_sync.check_forget(table, connection)
    if origin.sync is not None:
        postgres_sync.SYNC.require(table, connection)


def check_take_back(
    table: PostgresTable, connection: psycopg.Connection[Any], shape: Shape
) -> None:
    """Raise unless this user may replace the rows that an earlier attempt has appended."""
    lacking = texts_of(
        connection,
        "SELECT name FROM unnest(ARRAY['SELECT', 'DELETE']) AS name"
        " WHERE NOT has_table_privilege(%s::oid, name)",
        [shape.oid],
    )
    if lacking:
        rights = ", ".join(lacking)
        raise table.error(
            f"this export has appended its rows before it was complete, and this user lacks the "
            f"right to {rights}, to replace them; {grant_on(table.quoted, rights, connection)}"
        )


def _check_privileges(
    table: PostgresTable, connection: psycopg.Connection[Any], shape: Shape
) -> None:
    columns = [name for name in table.columns if name not in shape.missing]
    # The table's owner has all rights on columns that are added.
    needed = {"INSERT": [*columns, *shape.left_out]}
    if table.write == "upsert" and table.content.of == "people":
        inherited = [name for name in shape.inherited if name not in columns]
        needed["UPDATE"] = [*needed["INSERT"], *inherited]
    if table.write != "append" or table.triggers(connection):
        needed = {"SELECT": [*needed.values()][-1], **needed}
    whole, faults = [], []
    for right, names in needed.items():
        # A right on the table is one on each of its columns.
        lacking = texts_of(
            connection,
            "SELECT attname::text FROM pg_attribute WHERE attrelid = %s AND attnum > 0"
            " AND NOT attisdropped AND attname = ANY(%s)"
            " AND NOT has_column_privilege(attrelid, attnum, %s) ORDER BY attnum",
            [shape.oid, names, right],
        )
        if len(lacking) == len(names):
            whole.append(right)
        elif lacking:
            faults.append(f"this user lacks the right to {right} in {columns_in_words(lacking)}")
    if table.write != "append":
        (may_delete,) = row_of(
            connection, "SELECT has_table_privilege(%s::oid, 'DELETE')", [shape.oid]
        )
        if not may_delete:
            whole.append("DELETE")
    if whole:
        rights = ", ".join(whole)
        advice = grant_on(table.quoted, rights, connection)
        faults.insert(0, f"this user lacks the right to {rights}; {advice}")
    faults += _faults_of_sequences(connection, shape)
    if faults:
        # All of them, as each would cost a run of its own.
        raise table.error("; ".join(faults))


def _faults_of_sequences(connection: psycopg.Connection[Any], shape: Shape) -> list[str]:
    sequences = texts_of(
        connection,
        "SELECT s.oid::regclass::text FROM pg_attrdef d JOIN pg_depend p ON p.objid = d.oid"
        " AND p.classid = 'pg_attrdef'::regclass AND p.refclassid = 'pg_class'::regclass"
        " JOIN pg_class s ON s.oid = p.refobjid WHERE d.adrelid = %s AND CASE s.relkind"
        " WHEN 'S' THEN NOT has_sequence_privilege(s.oid, 'USAGE, UPDATE') END",
        [shape.oid],
    )
    return [
        f"this user lacks the right to use the sequence {name}, from which a column of the table "
        f"takes its values; {grant_on(f'SEQUENCE {name}', 'USAGE, UPDATE', connection)}"
        for name in sequences
    ]


def _check_old_keys(
    table: PostgresTable, connection: psycopg.Connection[Any], shape: Shape
) -> None:
    """Raise unless the keys that the table may not keep can be dropped."""
    references = texts_of(
        connection,
        "SELECT conname || ' of ' || conrelid::regclass FROM pg_constraint"
        " JOIN pg_class ON pg_class.oid = conindid"
        " WHERE contype = 'f' AND confrelid = %s AND relname = ANY(%s) ORDER BY 1",
        [shape.oid, [*shape.old_keys]],
    )
    if references:
        change = (
            "an earlier version made the table, and its key has to become account and person"
            if shape.is_old
            else "with `distinct=False`, the table can have no unique key"
        )
        raise table.error(
            f"{change}, but other tables refer to the key of now ({', '.join(references)}); drop "
            f"these constraints, or name another table"
        )
