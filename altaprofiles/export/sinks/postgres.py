"""A table on a PostgreSQL server, with one row per person.

Records are copied into a temporary table. Only at the end, in one transaction, do they become rows
of the table itself. People who are in the table already are updated, and all others stay.

A person with an identity is the row with that identity. A nameless person is the row that shares an
`objectId` with them: the service returns a nameless person's devices in a different order in each
query, so that no first device can identify the person. A record with neither is identified by its
hash.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

from ...errors import ConfigurationError, ExportError
from ...redaction import Secret, masked
from ...tables.layout import ColumnKind
from ...tables.rows import Row, Table
from ..output import Output
from ..tables import Origin
from .postgres_rows import RowEncoder
from .postgres_table import PostgresTable, Shape, check_columns, quoted
from .postgres_url import SCHEMES, check_conninfo, check_name, parse, table_of
from .target import Layout, Target

if TYPE_CHECKING:
    import psycopg

__all__ = ["PostgresTarget"]

T = TypeVar("T")

_TYPES: dict[ColumnKind, str] = {
    "text": "text",
    "texts": "text[]",
    "json": "jsonb",
    "bool": "boolean",
    "int64": "bigint",
    "double": "double precision",
    "timestamp": "timestamp with time zone",
}

_STAGE_NAME = "altaprofiles_stage"
_STAGE = f"pg_temp.{_STAGE_NAME}"

_LOCK_TIMEOUT = 30
"""Longest wait, in seconds, for a lock that another transaction has on the table."""

_IDLE_SESSION_TIMEOUT = 14_00_00
"""The first version of the server that ends idle sessions."""


class PostgresTarget(Target, frozen=True, kw_only=True):
    """One table of a PostgreSQL database. Does not pickle if its URL holds a password.

    Attributes:
        table: the table as the export needs it.
        conninfo: the database's URL.
        secrets: the passwords, to mask in messages.
    """

    format: ClassVar[str] = "postgres"
    schemes: ClassVar[tuple[str, ...]] = SCHEMES
    extra: ClassVar[str | None] = "postgres"
    options: ClassVar[frozenset[str]] = frozenset({"table", "flatten"})

    table: PostgresTable
    conninfo: str
    secrets: tuple[Secret, ...]

    @classmethod
    def of(cls, text: str, layout: Layout, output: Output) -> Self:
        content = layout["content"]
        columns = content.columns(layout["flatten"], None)
        for column in columns:
            check_name("flatten", column.name)
        check_columns("flatten", [column.name for column in columns])
        url = parse(text)
        cls.require_extra(url.label)
        check_conninfo(url)
        schema, name = table_of(output.table, url.table, content.default_table)
        if schema is None and name == _STAGE_NAME:
            raise ConfigurationError(
                f"{'to' if output.table is None else 'table'}: the export has a temporary table "
                f"named {name!r}; choose another name, or write schema.{name}"
            )
        label = f"{url.label}/{name if schema is None else f'{schema}.{name}'}"
        return cls(
            name=label,
            table=PostgresTable(
                label,
                schema,
                name,
                {column.name: _TYPES[column.kind] for column in columns},
                content.identifies,
            ),
            conninfo=url.conninfo,
            secrets=url.secrets,
            **layout,
        )

    def check(self) -> None:
        connection = self.connect()
        try:
            self.guard(lambda: self.table.check_rights(connection))
        finally:
            connection.close()

    def open(self, table: Table, origin: Origin) -> PostgresSink:
        return PostgresSink(self, table)

    def connect(self) -> psycopg.Connection[Any]:
        """Return a new connection, in a transaction that the user's own time limits do not end.

        Raises:
            ExportError: the server cannot be reached, or refuses.
        """
        connection = self._connect()
        given, version = connection.info.options, connection.info.server_version
        try:
            return self._begun(connection)
        except ExportError:
            if version < _IDLE_SESSION_TIMEOUT:
                raise
        # An idle session may have been ended before that. Not at once, as poolers refuse options.
        return self._begun(self._connect(options=f"{given} -c idle_session_timeout=0"))

    def _begun(self, connection: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
        try:
            self.guard(partial(_begin, connection))
        except BaseException:
            connection.close()
            raise
        return connection

    def _connect(self, options: str | None = None) -> psycopg.Connection[Any]:
        import psycopg

        # No local holds the plain text, which a traceback with locals would show.
        return self.guard(
            lambda: psycopg.connect(
                str.__str__(self.conninfo),
                # `_begin` begins the transaction.
                autocommit=True,
                client_encoding="utf8",
                prepare_threshold=None,
                options=options,
            )
        )

    def guard(self, call: Callable[[], T]) -> T:
        """Return the result of `call`.

        Raises:
            ExportError: in place of an error of the driver, with the server's reason, but without
                passwords and without values of records.
        """
        import psycopg

        try:
            return call()
        except psycopg.Error as error:
            reason = masked(_reason(error), self.secrets)
        # Outside of the block, so that the driver's error does not stay as the context.
        raise ExportError(f"{self.name}: {reason}")


def _begin(connection: psycopg.Connection[Any]) -> None:
    """Begin a transaction that the user's own settings neither end nor change.

    Ours end with the transaction, so that a pooler that gives each transaction another session,
    such as PgBouncer, does not carry them to other users.
    """
    # One message, as a server that waits for the next one in a transaction may end it. A stricter
    # isolation would refuse rows that others have changed since. A server of an earlier version
    # does not know all settings.
    connection.execute(
        "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = 0;"
        " SELECT set_config(name, value, true)"
        " FROM pg_settings JOIN (VALUES ('idle_in_transaction_session_timeout', '0'),"
        " ('idle_session_timeout', '0'), ('transaction_timeout', '0'),"
        f" ('lock_timeout', '{_LOCK_TIMEOUT}s'),"
        # An index would return any few of the rows that it finds.
        " ('gin_fuzzy_search_limit', '0'),"
        # Types are compared by name.
        " ('quote_all_identifiers', 'off'),"
        # Rows that a policy hides are an error then, instead of people who are missing.
        " ('row_security', 'off')) AS ours (name, value) USING (name)"
    )


def _reason(error: psycopg.Error) -> str:
    """Return the reason for an error of the driver or the server, without values of records.

    The server's details and context quote rows, and some of its messages quote values ("PostgreSQL
    Error Codes"). Only the classes whose messages name nothing but objects are shown.
    """
    state = error.sqlstate
    if state is None:
        # The driver's own: there is no connection, or it broke.
        return str(error).strip()
    name = type(error).__name__
    message = error.diag.message_primary
    # A trigger may raise any class with any message.
    is_raised = error.diag.source_function == "exec_stmt_raise"
    if message and state[:2] in _WITHOUT_VALUES and not is_raised:
        return f"{message} (SQLSTATE {state})"
    parts = (("column", error.diag.column_name), ("constraint", error.diag.constraint_name))
    where = "".join(f", {kind} {text}" for kind, text in parts if text)
    return (
        f"the server refuses this: {name} (SQLSTATE {state}{where}); its message is in the "
        f"server's log, as it may hold values of the record"
    )


_WITHOUT_VALUES = frozenset(
    ("08", "0A", "23", "25", "26", "28", "3D", "3F", "40", "42", "44", "53", "54", "55", "57", "58")
)


_SLICE = 100
"""Rows that are encoded at once."""


class PostgresSink:
    def __init__(self, target: PostgresTarget, table: Table) -> None:
        self.absorbed = 0
        self.notes: list[str] = []
        self._repeated = 0
        self._target = target
        self._rows = RowEncoder(table)
        names = [*target.table.columns]
        self._names = [*map(quoted, names)]
        # A key may have any name, even that of a column that only the temporary table has.
        self._staged = [
            *names[: len(names) - len(target.flatten)],
            *(f"lifted_{number}" for number in range(len(target.flatten))),
        ]
        self._copying: AbstractContextManager[psycopg.Copy] | None = None
        self._connection = target.connect()
        try:
            self._copy = target.guard(self._begin)
        except BaseException:
            self.abort()
            raise

    @property
    def mended(self) -> int:
        return self._rows.mended

    def write(self, rows: Sequence[Row]) -> None:
        for start in range(0, len(rows), _SLICE):
            data = self._rows.encode(rows[start : start + _SLICE])
            self._target.guard(partial(self._copy.write, data))

    def close(self) -> None:
        self._target.guard(self._finish)

    def abort(self) -> None:
        # The server rolls back an open transaction, even in the middle of a copy.
        with suppress(Exception):
            self._connection.close()
        if self._copying is not None:
            # A copy that is never exited would warn when it is garbage-collected.
            with suppress(Exception):
                self._copying.__exit__(None, None, None)

    def _begin(self) -> psycopg.Copy:
        columns = zip(self._staged, self._target.table.columns.values(), strict=True)
        cursor = self._connection.cursor()
        cursor.execute(
            f"CREATE TEMP TABLE {_STAGE_NAME} (number bigint, nameless boolean, "
            f"{', '.join(f'{name} {type_}' for name, type_ in columns)}) ON COMMIT DROP"
        )
        self._copying = cursor.copy(f"COPY {_STAGE} FROM STDIN")
        return self._copying.__enter__()

    def _finish(self) -> None:
        if self._copying is not None:
            self._copying.__exit__(None, None, None)
        run = self._connection.execute
        # Only the columns by which rows are found: to analyse documents takes long.
        run(f"ANALYZE {_STAGE} (number, nameless, {', '.join(self._found_by)})")
        shape = self._prepare()
        if self._target.content.of == "people":
            self._merge(is_new=shape.oid is None)
        else:
            self._put(is_new=shape.oid is None)
        self._connection.commit()
        self._connection.close()

    def _prepare(self) -> Shape:
        """Create the table or add to it what the rows need; return its state before."""
        run = self._connection.execute
        table = self._target.table
        shape = table.shape(self._connection)
        if shape.oid is None:
            table.create(self._connection)
            return shape
        # Two exports at once would each miss the nameless people that the other one adds.
        run(f"LOCK TABLE {table.quoted} IN SHARE ROW EXCLUSIVE MODE")
        for name, type_ in shape.missing.items():
            run(f"ALTER TABLE {table.quoted} ADD COLUMN IF NOT EXISTS {quoted(name)} {type_}")
        # An existing table is indexed before rows are looked up in it; a new one after its first
        # load, because an index built over many rows at once is better.
        if shape.may_index and not shape.is_indexed:
            table.add_index(self._connection)
        return shape

    def _merge(self, *, is_new: bool) -> None:
        """Move the staged rows into the table, one for each person."""
        run = self._connection.execute
        table = self._target.table.quoted
        triggers = self._target.table.triggers(self._connection)
        if not is_new:
            shares = (
                "new.nameless AND coalesce(old.identity, '') = '' AND old.account = new.account"
                " AND old.object_ids && new.object_ids"
            )
            run(f"DELETE FROM {table} AS old USING {_STAGE} AS new WHERE {shares}")
            if triggers:
                [(undeleted,)] = run(
                    f"SELECT count(DISTINCT old.person) FROM {table} AS old JOIN {_STAGE} AS new"
                    f" ON {shares}"
                ).fetchall()
                # They would be in the table twice.
                self._require(
                    not undeleted, f"the table keeps {undeleted:,} old rows of people", triggers
                )
        # The first row of a person counts. Later ones still connect rows that share a device with
        # them, because all repeated rows are found before any is deleted.
        shared = run(
            f"DELETE FROM {_STAGE} AS later USING (SELECT number,"
            f" min(number) OVER (PARTITION BY id) AS first FROM {_STAGE},"
            " unnest(object_ids) AS id WHERE nameless) AS shared"
            " WHERE later.number = shared.number AND shared.first < shared.number"
        )
        known = run(
            f"DELETE FROM {_STAGE} AS later USING (SELECT person, min(number) AS first"
            f" FROM {_STAGE} GROUP BY person HAVING count(*) > 1) AS known"
            " WHERE later.person = known.person AND known.first < later.number"
        )
        self._repeated = shared.rowcount + known.rowcount
        values = ", ".join(
            f"{name} = excluded.{name}"
            for name in self._names
            if name not in ('"account"', '"person"', '"added_at"')
        )
        merged = run(
            f"INSERT INTO {table} ({', '.join(self._names)}) SELECT {', '.join(self._staged)}"
            f" FROM {_STAGE} ORDER BY number ON CONFLICT (account, person) DO UPDATE SET {values}"
        )
        people = self._rows.count - self._repeated
        self._require(
            merged.rowcount == people,
            f"the table took {merged.rowcount:,} of {people:,} people",
            triggers,
        )
        if triggers:
            self._compare(triggers)
        if is_new:
            self._target.table.add_index(self._connection)
            run(f"ANALYZE {table} (person, identity, object_ids)")

    @property
    def _found_by(self) -> list[str]:
        """The columns by which rows are found."""
        devices = ["object_ids"] if self._target.content.of == "people" else []
        return [*self._target.content.identifies, *devices]

    def _put(self, *, is_new: bool) -> None:
        """Replace the bindings of the keys that were staged."""
        run = self._connection.execute
        table = self._target.table.quoted
        if not is_new:
            run(
                f"DELETE FROM {table} AS old USING {_STAGE} AS new"
                " WHERE old.account = new.account AND old.key = new.key"
            )
        run(
            f"INSERT INTO {table} ({', '.join(self._names)}) SELECT {', '.join(self._staged)}"
            f" FROM {_STAGE} ORDER BY number"
        )

    def _compare(self, triggers: Sequence[str]) -> None:
        """Raise `ExportError` unless the table has the staged rows as they are."""
        # Else some triggers would run at the commit.
        self._connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
        same = " AND ".join(
            f"row.{name} IS NOT DISTINCT FROM new.{staged}"
            for name, staged in zip(self._names[1:], self._staged[1:], strict=True)
        )
        [(changed,)] = self._connection.execute(
            f"SELECT count(*) FROM {_STAGE} AS new WHERE NOT EXISTS (SELECT"
            f" FROM {self._target.table.quoted} AS row WHERE row.person = new.person AND {same})"
        ).fetchall()
        self._require(
            not changed,
            f"the table has other values than the export for {changed:,} people",
            triggers,
        )

    def _require(self, is_met: bool, fault: str, triggers: Sequence[str]) -> None:
        if not is_met:
            raise ExportError(
                f"{self._target.name}: {fault}, as one of its triggers leaves out or changes rows "
                f"({', '.join(triggers)}); disable that trigger, or name another table; nothing "
                f"was written"
            )
