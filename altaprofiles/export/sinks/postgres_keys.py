"""The keys of a PostgreSQL table, which say in which mode an export has made it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from ..tables import OPTIONAL, answers_in_sql, to_restore
from . import postgres_runs
from .postgres_table import (
    OF_EARLIER_VERSION,
    RENAME,
    PostgresTable,
    columns_in_words,
    escaped,
    row_of,
)

if TYPE_CHECKING:
    import psycopg

__all__ = [
    "Index",
    "Keys",
    "check_key",
    "finds_rows",
    "has_answers",
    "indexes_of",
    "is_empty",
]

_KEY = frozenset({"account", "person"})


class Keys(Struct):
    """The attributes of `Shape` of these names."""

    is_old: bool = False
    old_keys: dict[str, bool] = {}
    lacks_key: bool = False


class Index(Struct):
    """An index of a table; whether it is unique, and whether it is a constraint."""

    name: str
    columns: frozenset[str]
    method: str
    is_unique: bool
    condition: str | None
    is_constraint: bool


def indexes_of(connection: psycopg.Connection[Any], *tables: int) -> list[Index]:
    """Return the valid indexes of tables, by their oids, on columns only."""
    rows = connection.execute(
        "SELECT c.relname::text, ARRAY(SELECT attname::text FROM pg_attribute WHERE attrelid ="
        " i.indrelid AND attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])), m.amname::text,"
        " i.indisunique AND i.indimmediate, pg_get_expr(i.indpred, i.indrelid),"
        " EXISTS (SELECT FROM pg_constraint WHERE conindid = c.oid AND conrelid = i.indrelid)"
        " FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am m ON m.oid = c.relam"
        " WHERE i.indrelid = ANY(%s) AND i.indexprs IS NULL AND i.indisvalid",
        [[*tables]],
    )
    return [Index(name, frozenset(columns), *rest) for name, columns, *rest in rows]


def finds_rows(table: PostgresTable, index: Index) -> bool:
    """Return whether an index is the one by which rows of earlier runs are found."""
    if table.content.of == "bindings":
        return index.columns == {"key"} and index.method == "hash" and index.condition is None
    # Tables of an earlier version have an index of all rows.
    return (
        index.columns == {"object_ids"}
        and index.method == "gin"
        and index.condition in (None, _NAMELESS_AS_SHOWN)
    )


_NAMELESS_AS_SHOWN = "(COALESCE(identity, ''::text) = ''::text)"
"""`NAMELESS` in the spelling of the server."""


def check_key(
    table: PostgresTable,
    connection: psycopg.Connection[Any],
    names: Sequence[str],
    indexes: Sequence[Index],
    lacking: Sequence[str],
) -> Keys:
    """Raise unless the table is an export's, made in a mode that goes with that of this one.

    Args:
        table: the table.
        connection: any connection.
        names: the columns that it has.
        indexes: the indexes that it has.
        lacking: the columns that it lacks, although every table of an export has them.

    Returns:
        What has to be changed about its keys.
    """
    unique = [index for index in indexes if index.is_unique and index.condition is None]
    if table.content.of == "people":
        keys = {index.name: index.is_constraint for index in unique if index.columns == _KEY}
        is_keyed = bool(keys)
        of_person = {
            index.name: index.is_constraint for index in unique if index.columns == {"person"}
        }
    else:
        keys, of_person = {}, {}
        is_keyed = any(finds_rows(table, index) for index in indexes)
    is_old = not is_keyed and bool(of_person) and {*OF_EARLIER_VERSION} <= {*names}
    if 0 < len(lacking) < len(names) / 2 and not is_old:
        them = "it" if len(lacking) == 1 else "them"
        statement = ""
        # Rows without the values by which they are found would be doubled. A table that lacks most
        # is of another kind of rows.
        is_of_kind = len(lacking) < len(table.required) / 2
        if is_of_kind and not {*table.content.identifies, "identity", "object_ids"} & {*lacking}:
            statement = table.adding(lacking)
        raise table.error(
            f"the table lacks the {columns_in_words(lacking)}, which it had if an export has made "
            f"it; {to_restore(statement, them, table.content, table.write)}; otherwise {RENAME}"
        )
    if lacking and not is_old:
        raise table.error(
            f"the table is not from an export of {table.content.of}, as it lacks the "
            f"{columns_in_words(lacking)}; {RENAME}"
        )
    if table.write == "append" and (is_keyed or is_old):
        raise table.error(
            f"the table was not made with write='append', as it has {_key_of(table)}; pass "
            f"write='upsert' or write='replace', or {RENAME}"
        )
    if is_old:
        _check_names(table, names)
        return Keys(is_old=True, old_keys=of_person, lacks_key=table.is_keyed)
    if is_keyed:
        return Keys(old_keys=keys if table.is_repeating else {})
    return Keys(lacks_key=_check_unkeyed(table, connection, names))


def _check_unkeyed(
    table: PostgresTable, connection: psycopg.Connection[Any], names: Sequence[str]
) -> bool:
    """Raise unless an export in this mode can go into a table without a unique key.

    Returns:
        Whether the table gets the key with this export.
    """
    is_repeating = postgres_runs.mode_of(table, connection) == "repeating"
    if is_repeating and table.write == "replace":
        return table.is_keyed
    if table.write == "append" and not is_repeating:
        return False
    if not table.is_keyed and is_empty(table, connection):
        return False
    if is_repeating:
        once = " once" if table.is_keyed else ""
        raise table.error(
            f"the table was made with write='replace' and `distinct=False`, so that people can be "
            f"in it more than once; export into it{once} with write='replace' (--write replace), "
            f"or {RENAME}"
        )
    raise table.error(
        f"the table was made with write='append', or not by an export, as it lacks "
        f"{_key_of(table)}: only an export with write='append' (--write append) can add to it; "
        f"{_to_restore_key(table, names)}{RENAME}"
    )


def _to_restore_key(table: PostgresTable, names: Sequence[str]) -> str:
    """Return the advice on a key that somebody has dropped; empty if there can have been none."""
    if not {*table.content.identifies} <= {*names}:
        return ""
    statement = f"CREATE INDEX ON {table.quoted} {table.index}"
    if table.content.of == "people":
        statement = f"ALTER TABLE {table.quoted} ADD PRIMARY KEY (account, person)"
    return f"if somebody has dropped that, run: {statement}; otherwise "


def _check_names(table: PostgresTable, names: Sequence[str]) -> None:
    """Raise if a table of an earlier version has columns of names that are taken now."""
    taken = [name for name in ("account", "fetched_at", "added_at", *OPTIONAL) if name in names]
    if taken:
        raise table.error(
            f"an earlier version made the table, and flattened keys into columns whose names are "
            f"taken now ({', '.join(taken)}); rename each one to profile_data.{taken[0]} and the "
            f"like, or {RENAME}"
        )


def _key_of(table: PostgresTable) -> str:
    if table.content.of == "bindings":
        return "a hash index on 'key', by which rows of earlier exports are found"
    return "a unique key of account and person"


def has_answers(
    table: PostgresTable, connection: psycopg.Connection[Any], account: str, by: str
) -> bool:
    """Return whether any row is there that a lookup of an account has found by a kind of key."""
    (is_there,) = row_of(
        connection,
        # Ends with the first row, for nearly every table.
        f"SELECT EXISTS (SELECT FROM {escaped(table.quoted)} WHERE account = %s"
        f" AND {answers_in_sql(table.content, by)})",
        [account],
    )
    return bool(is_there)


def is_empty(table: PostgresTable, connection: psycopg.Connection[Any]) -> bool:
    """Return whether the table is known to have no rows."""
    (may_read,) = row_of(
        connection, "SELECT has_table_privilege(to_regclass(%s), 'SELECT')", [table.quoted]
    )
    if not may_read:
        return False
    (has_rows,) = row_of(connection, f"SELECT EXISTS (SELECT FROM {table.quoted})")
    return not has_rows
