"""A PostgreSQL table that an export goes into: its columns, and the user's rights on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct

from ...errors import ExportError

if TYPE_CHECKING:
    import psycopg

__all__ = ["PERSON", "PostgresTable", "Shape", "quoted"]

PERSON = "person"
"""The column that is the primary key."""

_RENAME = "name another table, or drop or rename this one"


def quoted(name: str) -> str:
    """Return `name` as an identifier in SQL."""
    return '"{}"'.format(name.replace('"', '""'))


class Shape(Struct):
    """The state of a table on the server.

    Attributes:
        oid: the table's number; None if there is no table.
        missing: the type of each column to add, by name.
        is_owned: whether this user may add columns and indexes.
        is_indexed: whether `object_ids` has its index.
    """

    oid: int | None
    missing: dict[str, str]
    is_owned: bool
    is_indexed: bool


class PostgresTable(Struct, frozen=True):
    """A table as an export needs it. It may not exist yet.

    Attributes:
        label: the table in messages.
        schema: the table's schema; None for the server's search path.
        name: the table's name.
        columns: the type of each column, by name. `PERSON` comes first.
    """

    label: str
    schema: str | None
    name: str
    columns: dict[str, str]

    @property
    def quoted(self) -> str:
        """The table in SQL."""
        parts = [self.name] if self.schema is None else [self.schema, self.name]
        return ".".join(map(quoted, parts))

    def check_rights(self, connection: psycopg.Connection[Any]) -> None:
        """Raise unless an export can create the table or write to it.

        Raises:
            ExportError: a right is missing, or the database or the table is unsuitable.
        """
        encoding, is_standby, may_stage, schema, may_create = _row(
            connection,
            "SELECT current_setting('server_encoding'), pg_is_in_recovery(),"
            " has_database_privilege(current_database(), 'TEMP'), to_regnamespace(s)::text,"
            " has_schema_privilege(to_regnamespace(s), 'CREATE')"
            " FROM coalesce(%s::text, quote_ident(current_schema())) AS s",
            [None if self.schema is None else quoted(self.schema)],
        )
        if encoding != "UTF8":
            raise self._error(f"the database is encoded in {encoding}, and must be in UTF8")
        if is_standby:
            raise self._error("the server is a standby; name its primary")
        if not may_stage:
            raise self._error("this user may not create temporary tables")
        if schema is None:
            raise self._error("the schema does not exist, or this user may not use it")
        shape = self.shape(connection)
        if shape.oid is None:
            if not may_create:
                raise self._error(f"this user may not create tables in {schema}")
            return
        for right in ("SELECT", "INSERT", "UPDATE", "DELETE"):
            (is_granted,) = _row(
                connection, "SELECT has_table_privilege(%s::oid, %s)", [shape.oid, right]
            )
            if not is_granted:
                raise self._error(f"this user lacks the right to {right}")

    def shape(self, connection: psycopg.Connection[Any]) -> Shape:
        """Return the state of the table on the server.

        Raises:
            ExportError: an export cannot go into the existing table.
        """
        row = _row(
            connection,
            "SELECT oid, relkind::text, pg_has_role(relowner, 'USAGE') FROM pg_class"
            " WHERE oid = to_regclass(%s)",
            [self.quoted],
        )
        if row is None:
            return Shape(None, self.columns, is_owned=True, is_indexed=False)
        oid, kind, is_owned = row
        if kind not in ("r", "p"):
            raise self._error(f"not a table; {_RENAME}")
        present = self._check_columns(connection, oid)
        indexes = _indexes(connection, oid)
        if (PERSON, "unique") not in indexes:
            raise self._error(
                f"the table has no primary key {PERSON!r}, so that it is not from an export; "
                f"{_RENAME}"
            )
        missing = {name: type_ for name, type_ in self.columns.items() if name not in present}
        if missing and not is_owned:
            raise self._error(f"only the table's owner can add the columns {', '.join(missing)}")
        return Shape(oid, missing, is_owned, ("object_ids", "gin") in indexes)

    def _check_columns(self, connection: psycopg.Connection[Any], oid: int) -> set[str]:
        """Return the names of the table's columns, which must suit an export."""
        columns = connection.execute(
            "SELECT attname::text, format_type(atttypid, atttypmod),"
            " attnotnull AND NOT atthasdef AND attidentity = '' FROM pg_attribute"
            " WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped",
            [oid],
        ).fetchall()
        for name, type_, is_required in columns:
            wanted = self.columns.get(name)
            if wanted is None and is_required:
                raise self._error(
                    f"the column {name!r} must not be null, and an export has no value for it; "
                    f"{_RENAME}"
                )
            if wanted not in (None, type_):
                raise self._error(
                    f"the column {name!r} has the type {type_}, and must have {wanted}; {_RENAME}"
                )
        return {name for name, *_ in columns}

    def _error(self, reason: str) -> ExportError:
        return ExportError(f"{self.label}: {reason}")


def _indexes(connection: psycopg.Connection[Any], oid: int) -> set[tuple[str, str]]:
    """Return the column and method of each index on one column; "unique" is a method here."""
    return set(
        connection.execute(
            "SELECT a.attname::text, CASE WHEN i.indisunique AND i.indimmediate THEN 'unique'"
            " ELSE m.amname::text END FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
            " JOIN pg_am m ON m.oid = c.relam JOIN pg_attribute a ON a.attrelid = i.indrelid"
            " AND a.attnum = i.indkey[0] WHERE i.indrelid = %s AND i.indnkeyatts = 1"
            " AND i.indpred IS NULL AND i.indisvalid",
            [oid],
        )
    )


def _row(connection: psycopg.Connection[Any], query: str, values: list[Any]) -> Any:
    return connection.execute(query, values).fetchone()
