"""A PostgreSQL table that an export goes into: its name, its columns and its key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from ...base.sql import literal, quoted
from ...errors import ExportError, InvalidArgument
from ...tables.layout import CORE, ColumnKind, Kind, key_of
from ..formats import Write
from ..tables import OPTIONAL, Content
from .postgres_server import LOCK_TIMEOUT

if TYPE_CHECKING:
    import psycopg

__all__ = [
    "MAX_COLUMNS",
    "NAMELESS",
    "OF_EARLIER_VERSION",
    "RENAME",
    "TEMPORARY",
    "TYPES",
    "PostgresTable",
    "check_columns",
    "columns_in_words",
    "escaped",
    "grant_on",
    "row_of",
    "texts_of",
]

TYPES: dict[ColumnKind, str] = {
    "text": "text",
    "texts": "text[]",
    "json": "jsonb",
    "bool": "boolean",
    "int64": "bigint",
    "double": "double precision",
    "timestamp": "timestamp with time zone",
}
"""The type of a column, by its kind."""

OF_EARLIER_VERSION = ("person", *CORE)
"""The columns of every table that an earlier version made. Its key was the first of them."""

NAMELESS = "coalesce({}identity, '') = ''"
"""The condition for rows of people without an identity."""

TEMPORARY = frozenset(
    f"altaprofiles_{name}"
    for name in (
        "ahead",
        "stage",
        "choice",
        "repeated",
        "links",
        "known",
        "merged",
        "kept",
        "plan",
        "changed",
    )
)
"""The names of the temporary tables of an export."""

RENAME = "name another table, or rename this one"

_SYSTEM_COLUMNS = frozenset({"tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"})
"""Names that no column can have ("System Columns")."""

MAX_COLUMNS = 1600
"""Most columns of a table, dropped ones included ("PostgreSQL Limits")."""

_STAGED_BESIDE = 2
"""Columns that the temporary table has beside those of the table."""

_TURN_TIMEOUT = 600
"""Longest wait, in seconds, for another export that writes to the same table."""


def escaped(sql: str) -> str:
    """Return a part of a statement that has values, whose percent signs are placeholders."""
    return sql.replace("%", "%%")


def check_columns(where: str, names: Sequence[str]) -> None:
    """Raise `ConfigurationError` unless a table can have columns of these names.

    Args:
        where: the argument in the message.
        names: the names of all columns.
    """
    for name in names:
        if name in _SYSTEM_COLUMNS:
            raise InvalidArgument(
                f"{where}: {name!r} is the name of a system column in PostgreSQL; leave it out, as "
                f"the column profile_data holds it as well"
            )
    if (count := len(names) + _STAGED_BESIDE) > MAX_COLUMNS:
        raise InvalidArgument(
            f"{where}: a table in PostgreSQL has at most {MAX_COLUMNS:,} columns; leave out "
            f"{count - MAX_COLUMNS:,} keys"
        )


class PostgresTable(Struct, frozen=True):
    """A table as an export needs it. It may not exist yet.

    A table of people is used with the mode in which it was made: tables of "append", and those that
    may have people more than once, have no unique key, and all others have the key (`account`,
    `person`). A table of bindings cannot have a unique key. Unless it was made by "append", it has
    a hash index on `key`.

    Attributes:
        label: the table in messages.
        schema: the table's schema; None for the server's search path.
        name: the table's name.
        columns: the type of each column, by name.
        flattened: the columns of flattened keys, with the kinds that are named.
        content: the kind of rows.
        write: the way in which rows are written.
    """

    label: str
    schema: str | None
    name: str
    columns: dict[str, str]
    flattened: dict[str, Kind | None]
    content: Content
    write: Write

    @property
    def quoted(self) -> str:
        """The table in SQL."""
        parts = [self.name] if self.schema is None else [self.schema, self.name]
        return ".".join(map(quoted, parts))

    @property
    def is_repeating(self) -> bool:
        """True if the table has the people of one export, each as often as the export brings them.

        It cannot have a unique key either.
        """
        return self.write == "replace" and self.content.repeats

    @property
    def is_keyed(self) -> bool:
        """True if rows of earlier runs are found again."""
        return self.write != "append" and not self.is_repeating

    def without_schema(self) -> ExportError:
        """Return the error that there is no schema for the table."""
        if self.schema is None:
            return self.error(
                "the search_path of this user has no schema that exists and that the user may use; "
                "name one in the URL, as in DATABASE/SCHEMA.TABLE"
            )
        return self.error(
            f"the schema does not exist; create it (CREATE SCHEMA {quoted(self.schema)}), or "
            f"correct its name in the URL"
        )

    def schema_on(self, connection: psycopg.Connection[Any]) -> str:
        """Return the schema in which the table stands, or is to stand, in SQL.

        Raises:
            ExportError: there is none.
        """
        (schema,) = row_of(
            connection,
            "SELECT coalesce(quote_ident(%s::text), (SELECT relnamespace::regnamespace::text"
            " FROM pg_class WHERE oid = to_regclass(%s)), quote_ident(current_schema()))",
            [self.schema, self.quoted],
        )
        if schema is None:
            raise self.without_schema()
        return str(schema)

    @property
    def has_digest(self) -> bool:
        """True if the run that has written the rows is recorded, with a digest of them."""
        return self.write == "append" or self.is_repeating

    @property
    def found_by(self) -> str:
        """The columns by which rows are found, in SQL."""
        devices = ["object_ids"] if self.content.of == "people" else []
        return ", ".join([*self.content.identifies, *devices])

    @property
    def required(self) -> list[str]:
        """The columns that every export of this kind of rows has."""
        known = {*OPTIONAL, *self.flattened} if self.content.of == "people" else set()
        return [name for name in self.columns if name not in known]

    @property
    def index(self) -> str:
        """The method, columns and condition of the index by which rows of earlier runs are found.

        People with an identity are found by the key, and all others by their devices.
        """
        if self.content.of == "bindings":
            # Of any length, unlike in a B-tree.
            return "USING hash (key)"
        # Without a list of pending entries, which every probe would read.
        return f"USING gin (object_ids) WITH (fastupdate = off) WHERE {NAMELESS.format('')}"

    def take_turns(self, connection: psycopg.Connection[Any]) -> None:
        """Wait until no other export writes to the table, and keep others from it until the commit.

        A lock on the table itself would not do, because two exports may both have to create it.
        """
        turn = f"'{_TURN_TIMEOUT}s'"
        connection.execute(f"SET LOCAL lock_timeout = {turn}")
        connection.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended(format('altaprofiles %%s.%%s',"
            " coalesce(%s::text, current_schema()), %s::text), 0))",
            [self.schema, self.name],
        )
        connection.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}s'")

    def triggers(self, connection: psycopg.Connection[Any]) -> list[str]:
        """Return the names of the triggers of the table, and of its partitions."""
        return texts_of(
            connection,
            "SELECT CASE tgrelid WHEN c.oid THEN tgname::text"
            " ELSE tgname || ' on ' || tgrelid::regclass END"
            " FROM pg_trigger, (SELECT to_regclass(%s)::oid AS oid) c"
            " WHERE NOT tgisinternal AND tgenabled <> 'D' AND (tgrelid = c.oid"
            " OR tgrelid IN (SELECT relid FROM pg_partition_tree(c.oid))) ORDER BY 1",
            [self.quoted],
        )

    def as_text(self, types: Mapping[str, str]) -> str:
        """Return the statement that makes text of some columns, of these types."""
        changes = []
        for name, type_ in types.items():
            column = quoted(name)
            text = f"{column}::text"
            if type_ == TYPES["timestamp"]:
                # As CleverTap writes dates.
                text = f"'$D_' || trim_scale(extract(epoch FROM {column})::numeric)"
            # A cast writes 7 where 7.0 was sent.
            text = f"coalesce(profile_data ->> {literal(key_of(name))}, {text})"
            changes.append(
                f"ALTER COLUMN {column} TYPE text USING CASE WHEN {column} IS NOT NULL THEN {text}"
                " END"
            )
        return f"ALTER TABLE {self.quoted} {', '.join(changes)}"

    def adding(self, names: Iterable[str]) -> str:
        """Return the statement that adds some of the columns."""
        columns = [f"ADD COLUMN {quoted(name)} {self.columns[name]}" for name in names]
        return f"ALTER TABLE {self.quoted} {', '.join(columns)}"

    def error(self, reason: str) -> ExportError:
        """Return the error of a table that an export cannot go into."""
        return ExportError(f"{self.label}: {reason}")


def columns_in_words(names: Iterable[str]) -> str:
    """Return columns behind the noun for them."""
    listed = [*names]
    return f"column{'s' if len(listed) > 1 else ''} {', '.join(listed)}"


def texts_of(connection: psycopg.Connection[Any], query: str, values: list[Any]) -> list[str]:
    """Return the only column of the rows of a query."""
    return [text for (text,) in connection.execute(query, values)]


def grant_on(thing: str, rights: str, connection: psycopg.Connection[Any]) -> str:
    """Return the advice to grant this user rights on a thing, both in SQL."""
    (user,) = row_of(connection, "SELECT quote_ident(current_user)")
    return f"let its owner run: GRANT {rights} ON {thing} TO {user}"


def row_of(connection: psycopg.Connection[Any], query: str, values: Sequence[Any] = ()) -> Any:
    """Return the first row of a query, or None."""
    # Without values, percent signs are not placeholders.
    return connection.execute(query, values or None).fetchone()
