"""The tables in which the library keeps its own records on a PostgreSQL server.

Each one stands in the schema of the tables that it is about, and is written in the same transaction
as their rows. Its rows about one table are changed only while the export has its turn there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct

from ...errors import ExportError
from .postgres_table import PostgresTable, grant_on, row_of, texts_of

if TYPE_CHECKING:
    import psycopg

__all__ = ["OwnTable"]

_RIGHTS = ("SELECT", "INSERT", "DELETE")


class OwnTable(Struct, frozen=True):
    """A table of the library's own. Its first column is the name of the table that it is about.

    Attributes:
        name: its name.
        columns: the type of each column, by name.
        key: the columns that identify a row.
        purpose: what exports do with it, after "in which".
    """

    name: str
    columns: dict[str, str]
    key: tuple[str, ...]
    purpose: str

    def find(self, table: PostgresTable, connection: psycopg.Connection[Any]) -> str | None:
        """Return this table in SQL, or None if there is none in the schema of `table`.

        Raises:
            ExportError: something else has made a table of this name.
        """
        place = self._place(table, connection)
        row = row_of(
            connection,
            "SELECT oid, relkind::text FROM pg_class WHERE oid = to_regclass(%s)",
            [place],
        )
        if row is None:
            return None
        oid, kind = row
        found = connection.execute(
            "SELECT attname::text, format_type(atttypid, atttypmod) FROM pg_attribute"
            " WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped",
            [oid],
        )
        if kind not in ("r", "p") or dict(found.fetchall()) != self.columns:
            raise table.error(
                f"{place} is not the table in which {self.purpose}; rename it, or name a table in "
                f"another schema"
            )
        return place

    def lacking(self, place: str, connection: psycopg.Connection[Any]) -> list[str]:
        """Return the rights on this table that this user lacks.

        Args:
            place: this table in SQL.
            connection: any connection.
        """
        return texts_of(
            connection,
            "SELECT name FROM unnest(%s::text[]) WITH ORDINALITY AS rights (name, number)"
            " WHERE NOT has_table_privilege(%s, name) ORDER BY number",
            [[*_RIGHTS], place],
        )

    def readable(
        self, table: PostgresTable, connection: psycopg.Connection[Any], *, writes: bool
    ) -> str | None:
        """Return this table in SQL if there is one. This user can read it.

        Args:
            table: a table that it is about.
            connection: any connection.
            writes: whether it is to be written as well, so that an error names all that it takes.

        Raises:
            ExportError: something else has made a table of this name, or this user may not read it.
        """
        place = self.find(table, connection)
        if place is not None and "SELECT" in (lacking := self.lacking(place, connection)):
            rights = lacking if writes else ["SELECT"]
            raise self._error_of_rights(table, place, rights, connection)
        return place

    def require(self, table: PostgresTable, connection: psycopg.Connection[Any]) -> str:
        """Create this table, unless there is one that this user can write to; return it in SQL.

        Two exports into different tables may both have to create it. The second waits until the
        first is committed, so that this belongs to the end of a transaction.

        Args:
            table: a table that the export goes into.
            connection: a connection in a transaction.

        Raises:
            ExportError: this user may not create it, or lacks a right on it, or something else has
                made a table of this name.
        """
        place = self.find(table, connection)
        if place is None:
            connection.execute(
                "SELECT pg_advisory_xact_lock(hashtextextended('altaprofiles ' || %s, 0))",
                [self._place(table, connection)],
            )
            place = self.find(table, connection)
        if place is None:
            return self._created(table, connection)
        if lacking := self.lacking(place, connection):
            raise self._error_of_rights(table, place, lacking, connection)
        return place

    def _created(self, table: PostgresTable, connection: psycopg.Connection[Any]) -> str:
        schema = table.schema_on(connection)
        (may_create,) = row_of(
            connection, "SELECT has_schema_privilege(to_regnamespace(%s), 'CREATE')", [schema]
        )
        if not may_create:
            raise table.error(
                f"this user may not create the table {self.name} in {schema}, in which "
                f"{self.purpose}; {grant_on(f'SCHEMA {schema}', 'CREATE', connection)}"
            )
        place = self._place(table, connection)
        columns = ", ".join(f"{name} {type_} NOT NULL" for name, type_ in self.columns.items())
        connection.execute(f"CREATE TABLE {place} ({columns}, PRIMARY KEY ({', '.join(self.key)}))")
        return place

    def _error_of_rights(
        self,
        table: PostgresTable,
        place: str,
        lacking: list[str],
        connection: psycopg.Connection[Any],
    ) -> ExportError:
        rights = ", ".join(lacking)
        return table.error(
            f"this user lacks the right to {rights} in {place}, in which {self.purpose}; "
            f"{grant_on(place, rights, connection)}"
        )

    def _place(self, table: PostgresTable, connection: psycopg.Connection[Any]) -> str:
        return f"{table.schema_on(connection)}.{self.name}"
