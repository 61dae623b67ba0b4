"""A PostgreSQL table that an export goes into: its columns, and the user's rights on it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from ...errors import ConfigurationError, ExportError

if TYPE_CHECKING:
    import psycopg

__all__ = ["PERSON", "PostgresTable", "Shape", "check_columns", "quoted"]

logger = logging.getLogger("altaprofiles")

PERSON = "person"
"""The column that is the primary key."""

_SYSTEM_COLUMNS = frozenset({"tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"})
"""Names that no column can have ("System Columns")."""

_MAX_COLUMNS = 1600
"""Most columns of a table, dropped ones included ("PostgreSQL Limits")."""

_STAGED_BESIDE = 2
"""Columns that the temporary table has beside those of the table."""

_RENAME = "name another table, or drop or rename this one"


def quoted(name: str) -> str:
    """Return `name` as an identifier in SQL."""
    return '"{}"'.format(name.replace('"', '""'))


def check_columns(where: str, names: Sequence[str]) -> None:
    """Raise `ConfigurationError` unless a table can have columns of these names.

    Args:
        where: the argument in the message.
        names: the names of all columns.
    """
    for name in names:
        if name in _SYSTEM_COLUMNS:
            raise ConfigurationError(
                f"{where}: {name!r} is the name of a system column in PostgreSQL; leave it out, as "
                f"the column profile_data holds it as well"
            )
    if (count := len(names) + _STAGED_BESIDE) > _MAX_COLUMNS:
        raise ConfigurationError(
            f"{where}: a table in PostgreSQL has at most {_MAX_COLUMNS:,} columns; leave out "
            f"{count - _MAX_COLUMNS:,} keys"
        )


class Shape(Struct):
    """The state of a table on the server.

    Attributes:
        oid: the table's number; None if there is no table.
        missing: the type of each column to add, by name.
        is_owned: whether this user may add columns.
        may_index: whether this user may add an index.
        is_indexed: whether `object_ids` has its index.
    """

    oid: int | None
    missing: dict[str, str]
    is_owned: bool
    may_index: bool
    is_indexed: bool


class PostgresTable(Struct, frozen=True):
    """A table as an export needs it. It may not exist yet.

    Attributes:
        label: the table in messages.
        schema: the table's schema; None for the server's search path.
        name: the table's name.
        columns: the type of each column, by name.
        key: the columns by which rows of earlier runs are found.
    """

    label: str
    schema: str | None
    name: str
    columns: dict[str, str]
    key: tuple[str, ...]

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
        encoding, is_standby, is_read_only, may_stage, schema, may_create = _row(
            connection,
            "SELECT current_setting('server_encoding'), pg_is_in_recovery(),"
            " current_setting('transaction_read_only') = 'on',"
            " has_database_privilege(current_database(), 'TEMP'), to_regnamespace(s)::text,"
            " has_schema_privilege(to_regnamespace(s), 'CREATE')"
            " FROM coalesce(%s::text, quote_ident(current_schema())) AS s",
            [None if self.schema is None else quoted(self.schema)],
        )
        if encoding != "UTF8":
            raise self._error(f"the database is encoded in {encoding}, and must be in UTF8")
        if is_standby:
            raise self._error("the server is a standby; name its primary")
        if is_read_only:
            # A default that any user may override, but that somebody has set on purpose.
            raise self._error(
                "transactions of this user are read-only by default; to write nevertheless, add "
                "?options=-c%20default_transaction_read_only%3Doff to the URL"
            )
        if not may_stage:
            raise self._error("this user may not create temporary tables")
        if schema is None:
            raise self._error("the schema does not exist, or this user may not use it")
        shape = self.shape(connection)
        if shape.oid is None:
            if not may_create:
                raise self._error(f"this user may not create tables in {schema}")
            # In a transaction that is rolled back: defaults of the user and event triggers have a
            # say in it, and a type may have the name.
            self.create(connection)
            self.add_index(connection)
            self.shape(connection)
            return
        self._check_privileges(connection, shape.oid)
        if not (shape.is_indexed or shape.may_index):
            logger.warning(
                "%s has no index on object_ids, and this user may not create it, so that people "
                "without an identity are looked up slowly; let its owner run: "
                "CREATE INDEX ON %s USING gin (object_ids)",
                self.label,
                self.quoted,
            )

    def create(self, connection: psycopg.Connection[Any]) -> None:
        """Create the table. If another export creates it at the same moment, wait, and fail."""
        types = [f"{quoted(name)} {type_}" for name, type_ in self.columns.items()]
        if "person" in self.columns:
            types.append(f"PRIMARY KEY ({', '.join(self.key)})")
        connection.execute(f"CREATE TABLE {self.quoted} ({', '.join(types)})")

    def add_index(self, connection: psycopg.Connection[Any]) -> None:
        """Create the index by which people without an identity are found."""
        connection.execute(f"CREATE INDEX ON {self.quoted} USING gin (object_ids)")

    def triggers(self, connection: psycopg.Connection[Any]) -> list[str]:
        """Return the names of the triggers of the table, and of its partitions."""
        return _texts(
            connection,
            "SELECT CASE tgrelid WHEN c.oid THEN tgname::text"
            " ELSE tgname || ' on ' || tgrelid::regclass END"
            " FROM pg_trigger, (SELECT to_regclass(%s)::oid AS oid) c"
            " WHERE NOT tgisinternal AND tgenabled <> 'D' AND (tgrelid = c.oid"
            " OR tgrelid IN (SELECT relid FROM pg_partition_tree(c.oid))) ORDER BY 1",
            [self.quoted],
        )

    def _check_privileges(self, connection: psycopg.Connection[Any], oid: int) -> None:
        for right in ("SELECT", "INSERT", "UPDATE"):
            # A right on the table is one on each of its columns.
            columns = _texts(
                connection,
                "SELECT attname::text FROM pg_attribute WHERE attrelid = %s AND attnum > 0"
                " AND NOT attisdropped AND attname = ANY(%s)"
                " AND NOT has_column_privilege(attrelid, attnum, %s) ORDER BY attnum",
                [oid, [*self.columns], right],
            )
            if columns:
                raise self._error(
                    f"this user lacks the right to {right} in columns {', '.join(columns)}"
                )
        (may_delete,) = _row(connection, "SELECT has_table_privilege(%s::oid, 'DELETE')", [oid])
        if not may_delete:
            raise self._error("this user lacks the right to DELETE")
        sequences = _texts(
            connection,
            "SELECT s.oid::regclass::text FROM pg_attrdef d JOIN pg_depend p ON p.objid = d.oid"
            " AND p.classid = 'pg_attrdef'::regclass AND p.refclassid = 'pg_class'::regclass"
            " JOIN pg_class s ON s.oid = p.refobjid WHERE d.adrelid = %s AND CASE s.relkind"
            " WHEN 'S' THEN NOT has_sequence_privilege(s.oid, 'USAGE, UPDATE') END",
            [oid],
        )
        if sequences:
            raise self._error(
                f"this user lacks the right to use the sequence {sequences[0]}, from which a "
                f"column of the table takes its values"
            )

    def shape(self, connection: psycopg.Connection[Any]) -> Shape:
        """Return the state of the table on the server.

        Raises:
            ExportError: an export cannot go into the existing table.
        """
        row = _row(
            connection,
            "SELECT oid, relkind::text, relpersistence = 't', relispartition,"
            " relkind = 'r' AND EXISTS (SELECT FROM pg_inherits WHERE inhparent = c.oid),"
            " reloftype <> 0, pg_has_role(relowner, 'USAGE'),"
            " has_schema_privilege(relnamespace, 'CREATE'), row_security_active(oid),"
            " EXISTS (SELECT FROM pg_rewrite WHERE ev_class = c.oid AND (ev_type IN ('2', '3')"
            # A disabled one for INSERT or UPDATE forbids ON CONFLICT as well.
            " OR ev_type = '4' AND ev_enabled <> 'D')),"
            " (SELECT count(*) FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0)"
            " FROM pg_class c WHERE oid = to_regclass(%s)",
            [self.quoted],
        )
        if row is None:
            return Shape(None, self.columns, is_owned=True, may_index=True, is_indexed=False)
        oid, kind, is_temporary, is_partition, is_parent, is_typed, *more = row
        is_owned, may_create, is_filtered, has_rules, present_and_dropped = more
        if kind not in ("r", "p"):
            raise self._error(f"not a table; {_RENAME}")
        if is_temporary:
            raise self._error(
                "the table is temporary, and would be gone after the export; take pg_temp out of "
                "the search_path, or name the table's schema"
            )
        if is_partition:
            raise self._error(
                "the table is a partition, which takes some people only; name the partitioned table"
            )
        if is_parent:
            raise self._error(
                f"other tables inherit from the table, and a person in one of them would be "
                f"doubled; {_RENAME}"
            )
        if is_filtered:
            raise self._error(
                "row-level security hides rows of the table from this user, so that people would "
                "be doubled or lost; use a role with BYPASSRLS"
            )
        if has_rules:
            raise self._error(f"the table has rules that rewrite what is written to it; {_RENAME}")
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
        if missing and is_typed:
            raise self._error(
                f"the table has the columns of a type, to which the columns {', '.join(missing)} "
                f"cannot be added; {_RENAME}"
            )
        if (columns := present_and_dropped + len(missing)) > _MAX_COLUMNS:
            raise self._error(
                f"the table would have {columns:,} columns, dropped ones included, and the server "
                f"allows {_MAX_COLUMNS:,}; flatten fewer keys, or {_RENAME}"
            )
        is_indexed = ("object_ids", "gin") in indexes
        return Shape(oid, missing, is_owned, is_owned and may_create, is_indexed)

    def _check_columns(self, connection: psycopg.Connection[Any], oid: int) -> set[str]:
        """Return the names of the table's columns, which must suit an export."""
        columns = connection.execute(
            "SELECT attname::text, format_type(atttypid, atttypmod), attnotnull,"
            " atthasdef OR attidentity <> '' OR typdefaultbin IS NOT NULL, attgenerated <> '',"
            " coalesce(collisdeterministic, true), typtype = 'd'"
            " FROM pg_attribute JOIN pg_type ON pg_type.oid = atttypid"
            " LEFT JOIN pg_collation ON pg_collation.oid = attcollation"
            " WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped",
            [oid],
        ).fetchall()
        for name, type_, is_not_null, has_default, is_generated, is_exact, is_domain in columns:
            wanted = self.columns.get(name)
            if (
                wanted is None
                and not has_default
                and (is_not_null or (is_domain and not _takes_null(connection, type_)))
            ):
                raise self._error(
                    f"the column {name!r} must not be null, and an export has no value for it; "
                    f"{_RENAME}"
                )
            if wanted not in (None, type_):
                raise self._error(
                    f"the column {name!r} has the type {type_}, and must have {wanted}; {_RENAME}"
                )
            if wanted is not None and is_generated:
                raise self._error(
                    f"the column {name!r} is generated, so that no value can be written to it; "
                    f"{_RENAME}"
                )
            if wanted is not None and is_not_null and name != PERSON:
                raise self._error(
                    f"the column {name!r} must not be null, and people without a value for it "
                    f"could not be written; drop the constraint, or {_RENAME}"
                )
            if name in (PERSON, "identity", "object_ids") and not is_exact:
                raise self._error(
                    f"the column {name!r} has a collation that takes different texts for equal, "
                    f"so that different people would be one; {_RENAME}"
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


def _takes_null(connection: psycopg.Connection[Any], domain: str) -> bool:
    """Return whether the constraints of a domain allow null; if not, the transaction is over."""
    from psycopg.errors import IntegrityError

    try:
        connection.execute(f"SELECT NULL::{domain}")
    except IntegrityError:
        return False
    return True


def _texts(connection: psycopg.Connection[Any], query: str, values: list[Any]) -> list[str]:
    return [text for (text,) in connection.execute(query, values)]


def _row(connection: psycopg.Connection[Any], query: str, values: list[Any]) -> Any:
    return connection.execute(query, values).fetchone()
