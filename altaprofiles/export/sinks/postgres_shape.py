"""The state of a PostgreSQL table on the server, and the reasons why an export cannot go into it.

A table is taken for one of an export if it has all columns that every export has, with their types,
and the key of its mode (`PostgresTable`). Columns may be missing only in a table without rows and
without other columns, such as one that was created in advance to be in partitions. Any other table
is refused, because it may be another program's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from ...base.sql import quoted
from ...errors import InvalidArgument
from ..tables import OPTIONAL, to_keep_values
from .postgres_keys import check_key, finds_rows, indexes_of, is_empty
from .postgres_table import (
    MAX_COLUMNS,
    RENAME,
    TYPES,
    PostgresTable,
    columns_in_words,
    row_of,
)

if TYPE_CHECKING:
    import psycopg

__all__ = ["FLATTENED", "Shape", "rows_in", "shape_of"]

FLATTENED = "A flattened key of profileData, written by altaprofiles"
"""The comment on columns of flattened keys, which tells them from columns of the user's own."""

_KINDS = {type_: kind for kind, type_ in TYPES.items()}


class Shape(Struct, kw_only=True):
    """The state of a table on the server.

    Attributes:
        oid: the table's number; None if there is no table.
        schema: the table's schema, in SQL; None if there is no table.
        missing: the type of each column to add, by name.
        left_out: flattened columns of earlier exports that this one does not have.
        inherited: the columns of which rows of people keep the values: those that only
            other exports have, `cdp`, which is null where a lookup has failed, and the user's own.
        unfilled: the types of the columns that no export fills, by name: those of the user's own
            without a default.
        unmarked: columns of flattened keys without the comment `FLATTENED`.
        is_old: whether an earlier version made the table.
        old_keys: the unique indexes that the table may not keep: on `person` alone, of a table of
            an earlier version, or on `account` and `person`, of one that is to have people more
            than once. Whether each one is a constraint.
        lacks_key: whether the table is to have a unique key, and has none.
        is_owned: whether this user may add columns.
        may_index: whether this user may add an index.
        is_indexed: whether the table has the index that an export needs.
    """

    oid: int | None = None
    schema: str | None = None
    missing: dict[str, str] = {}
    left_out: Sequence[str] = ()
    inherited: Sequence[str] = ()
    unfilled: dict[str, str] = {}
    unmarked: Sequence[str] = ()
    is_old: bool = False
    old_keys: dict[str, bool] = {}
    lacks_key: bool = False
    is_owned: bool = True
    may_index: bool = True
    is_indexed: bool = False


class _Column(Struct):
    name: str
    type: str
    is_not_null: bool
    has_default: bool
    is_generated: bool
    is_exact: bool
    is_domain: bool
    is_primary: bool
    comment: str | None


def shape_of(table: PostgresTable, connection: psycopg.Connection[Any]) -> Shape:
    """Return the state of the table on the server.

    Raises:
        ConfigurationError: a flattened column has another type there.
        ExportError: an export cannot go into the existing table.
    """
    row = row_of(
        connection,
        "SELECT oid, relnamespace::regnamespace::text, relkind::text, relpersistence = 't',"
        " relispartition,"
        " relkind = 'r' AND EXISTS (SELECT FROM pg_inherits WHERE inhparent = c.oid),"
        " reloftype <> 0, pg_has_role(relowner, 'USAGE'),"
        " has_schema_privilege(relnamespace, 'CREATE'), row_security_active(oid),"
        " EXISTS (SELECT FROM pg_rewrite WHERE ev_class = c.oid AND (ev_type IN ('2', '3')"
        # A disabled one for INSERT or UPDATE forbids ON CONFLICT as well.
        " OR ev_type = '4' AND ev_enabled <> 'D')),"
        " (SELECT count(*) FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0)"
        " FROM pg_class c WHERE oid = to_regclass(%s)",
        [table.quoted],
    )
    if row is None:
        return Shape(missing=table.columns)
    oid, schema, kind, is_temporary, is_partition, is_parent, is_typed, *more = row
    is_owned, may_create, is_filtered, has_rules, present_and_dropped = more
    faults = {
        f"not a table; {RENAME}": kind not in ("r", "p"),
        "the table is temporary, and would be gone after the export; take pg_temp out of the "
        "search_path, or name the table's schema": is_temporary,
        "the table is a partition, which takes some people only; name the partitioned table": (
            is_partition
        ),
        "other tables inherit from the table, and a person in one of them would be doubled; "
        + RENAME: is_parent,
        "row-level security hides rows of the table from this user, so that people would be "
        "doubled or lost; use a role with BYPASSRLS": is_filtered,
        f"the table has rules that rewrite what is written to it; {RENAME}": has_rules,
    }
    for fault, is_found in faults.items():
        if is_found:
            raise table.error(fault)
    columns = {column.name: column for column in _columns(connection, oid)}
    indexes = indexes_of(connection, oid)
    for column in columns.values():
        _check_column(table, column, connection)
    lacking = [name for name in table.required if name not in columns]
    if lacking and {*columns} <= {*table.columns} and is_empty(table, connection):
        lacking = []
    keys = check_key(table, connection, [*columns], indexes, lacking)
    if (keys.old_keys or keys.lacks_key) and not is_owned:
        raise table.error(f"only the table's owner can change its key; {RENAME}")
    missing = {name: type_ for name, type_ in table.columns.items() if name not in columns}
    if missing and not is_owned:
        raise table.error(f"only the table's owner can add the {columns_in_words(missing)}")
    if missing and is_typed:
        raise table.error(
            f"the table has the columns of a type, to which the {columns_in_words(missing)} "
            f"cannot be added; {RENAME}"
        )
    if (count := present_and_dropped + len(missing)) > MAX_COLUMNS:
        raise table.error(
            f"the table would have {count:,} columns, dropped ones included, and the server allows "
            f"{MAX_COLUMNS:,}; flatten fewer keys, or {RENAME}"
        )
    return Shape(
        oid=oid,
        schema=schema,
        missing=missing,
        left_out=[
            column.name
            for column in columns.values()
            if column.name not in (*table.columns, *OPTIONAL) and _is_of_exports(table, column)
        ],
        inherited=[
            column.name
            for column in columns.values()
            if not column.is_generated
            if column.name == "cdp"
            or (column.name not in table.columns and column.comment != FLATTENED)
        ],
        unfilled={
            column.name: column.type
            for column in columns.values()
            if column.name not in (*table.columns, *OPTIONAL)
            and not (column.is_generated or column.has_default or column.comment == FLATTENED)
        },
        unmarked=[
            name for name in table.flattened if name in columns and not columns[name].comment
        ],
        is_old=keys.is_old,
        old_keys=keys.old_keys,
        lacks_key=keys.lacks_key,
        is_owned=is_owned,
        may_index=is_owned and may_create,
        is_indexed=any(finds_rows(table, index) for index in indexes),
    )


def rows_in(table: PostgresTable, connection: psycopg.Connection[Any]) -> int:
    """Return the number of rows in the table, 0 if there is no table."""
    (oid,) = row_of(connection, "SELECT to_regclass(%s)::oid", [table.quoted])
    if oid is None:
        return 0
    (rows,) = row_of(connection, f"SELECT count(*) FROM {table.quoted}")
    return int(rows)


def _is_of_exports(table: PostgresTable, column: _Column) -> bool:
    if table.content.of == "bindings":
        return False
    return column.name in OPTIONAL or column.comment == FLATTENED


def _columns(connection: psycopg.Connection[Any], oid: int) -> list[_Column]:
    rows = connection.execute(
        "SELECT attname::text, format_type(atttypid, atttypmod), attnotnull,"
        " atthasdef OR attidentity <> '' OR typdefaultbin IS NOT NULL,"
        " attgenerated <> '' OR attidentity = 'a',"
        " coalesce(collisdeterministic, true), typtype = 'd',"
        " EXISTS (SELECT FROM pg_constraint WHERE conrelid = attrelid AND contype = 'p'"
        " AND attnum = ANY (conkey)), col_description(attrelid, attnum)"
        " FROM pg_attribute JOIN pg_type ON pg_type.oid = atttypid"
        " LEFT JOIN pg_collation ON pg_collation.oid = attcollation"
        " WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
        [oid],
    )
    return [_Column(*row) for row in rows]


def _check_column(
    table: PostgresTable, column: _Column, connection: psycopg.Connection[Any]
) -> None:
    """Raise unless an export can write to the table as far as this column goes."""
    name = column.name
    alter = f"ALTER TABLE {table.quoted} ALTER COLUMN {quoted(name)}"
    wanted = table.columns.get(name)
    if wanted is None:
        needs_value = not column.has_default or _is_of_exports(table, column)
        if needs_value and (
            column.is_not_null or (column.is_domain and not _takes_null(connection, column.type))
        ):
            # A domain and a primary key keep their own rule, and a default is of no use where an
            # export writes null.
            ways = [] if column.is_domain or column.is_primary else ["DROP NOT NULL"]
            if not _is_of_exports(table, column):
                ways.append("SET DEFAULT with a value of yours")
            advice = f"run: {alter} {', or '.join(ways)}; or {RENAME}" if ways else RENAME
            raise table.error(
                f"the column {name!r} must not be null, and an export has no value for it; {advice}"
            )
        return
    if wanted != column.type:
        fault = f"has the type {column.type}, and must have {wanted}"
        if name not in table.flattened:
            cell = quoted(name)
            raise table.error(
                f"the column {name!r} {fault}; if an export has made the table, run: {alter} TYPE "
                f"{wanted} USING {cell}::{wanted}; otherwise {RENAME}"
            )
        kind = _KINDS.get(column.type)
        advice = RENAME if kind is None else f"flatten it as {kind!r}, {RENAME}"
        if wanted == TYPES["text"]:
            change = table.as_text({name: column.type})
            advice += f"; or, {to_keep_values(change, table.content, table.write)}"
        raise InvalidArgument(f"flatten: the column {name!r} of {table.label} {fault}; {advice}")
    if column.is_generated:
        raise table.error(
            f"the column {name!r} is generated, so that no value can be written to it; {RENAME}"
        )
    if column.is_not_null and name not in table.content.identifies:
        raise table.error(
            f"the column {name!r} must not be null, and people without a value for it could not be "
            f"written; {'' if column.is_primary else f'run: {alter} DROP NOT NULL; or '}{RENAME}"
        )
    if name in (*table.content.identifies, "identity", "object_ids") and not column.is_exact:
        raise table.error(
            f"the column {name!r} has a collation that takes different texts for equal, so that "
            f"different people would be one; {RENAME}"
        )


def _takes_null(connection: psycopg.Connection[Any], domain: str) -> bool:
    """Return whether the constraints of a domain allow null; if not, the transaction is over."""
    from psycopg.errors import IntegrityError

    try:
        connection.execute(f"SELECT NULL::{domain}")
    except IntegrityError:
        return False
    return True
