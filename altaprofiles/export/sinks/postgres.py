"""A table on a PostgreSQL server, with one row per person, or one for each run that brought them.

People who are in the table already are updated, and all others stay ("upsert"); or the table has
the people of this export only ("replace"); or their rows are added to those of earlier exports
("append"). Each of them is one transaction at the end of the export.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

from ...base.wording import numbered
from ...errors import InvalidArgument
from ...tables.rows import Table
from ..formats import Format, Write
from ..output import Output
from ..state import SyncState
from ..tables import Origin, to_keep_values
from .encoding import Encoder
from .postgres_keys import has_answers
from .postgres_rights import check_origin, check_rights
from .postgres_rows import BlockEncoder
from .postgres_runs import RUNS, holds
from .postgres_schema import of_no_account
from .postgres_server import PostgresServer
from .postgres_shape import rows_in, shape_of
from .postgres_sink import PostgresSink
from .postgres_stage import PostgresStage, Staged
from .postgres_sync import SYNC, exists, read, read_all
from .postgres_table import TEMPORARY, TYPES, PostgresTable, check_columns
from .postgres_url import SCHEMES, check_conninfo, check_name, parse, table_of
from .target import Layout, Target

if TYPE_CHECKING:
    import psycopg

__all__ = ["PostgresTarget"]

T = TypeVar("T")

_PATIENCE = 10
"""Longest wait, in seconds, for a server that is only asked what it has."""


class PostgresTarget(Target, frozen=True, kw_only=True):
    """One table of a PostgreSQL database. Does not pickle if its URL holds a password.

    Attributes:
        table: the table as the export needs it.
        server: its database.
    """

    format: ClassVar[Format] = "postgres"
    schemes: ClassVar[tuple[str, ...]] = SCHEMES
    extra: ClassVar[str | None] = "postgres"
    options: ClassVar[frozenset[str]] = frozenset({"table", "flatten"})
    writes: ClassVar[tuple[Write, ...]] = ("upsert", "replace", "append")
    encodes: ClassVar[bool] = True

    table: PostgresTable
    server: PostgresServer

    @classmethod
    def of(cls, text: str, layout: Layout, output: Output) -> Self:
        content, flatten = layout["content"], layout["flatten"]
        columns = content.columns(flatten, None)
        names = [column.name for column in columns]
        for name in names:
            check_name("flatten", name)
        check_columns("flatten", names)
        url = parse(text)
        cls.require_extra(url.label)
        check_conninfo(url)
        schema, name = table_of(output.table, url.table, content.default_table)
        where = "to" if output.table is None else "table"
        for own in (RUNS, SYNC):
            if name == own.name:
                raise InvalidArgument(
                    f"{where}: {name!r} is the table in which {own.purpose}; choose another name"
                )
        if schema is None and name in TEMPORARY:
            raise InvalidArgument(
                f"{where}: the export has a temporary table named {name!r}; choose another name, "
                f"or write schema.{name}"
            )
        full_name = name if schema is None else f"{schema}.{name}"
        label = f"{url.label}/{full_name}"
        elsewhere = f"?{url.elsewhere}" if url.elsewhere else ""
        return cls(
            name=label,
            table=PostgresTable(
                label,
                schema,
                name,
                columns={column.name: TYPES[column.kind] for column in columns},
                flattened=dict(
                    zip(names[len(names) - len(flatten) :], flatten.values(), strict=True)
                ),
                content=content,
                write=layout["write"],
            ),
            server=PostgresServer(label, url.conninfo, url.secrets),
            spellings=tuple(f"{one}/{full_name}{elsewhere}" for one in url.spellings),
            **layout,
        )

    def check(self) -> None:
        connection = self.connect()
        try:
            self.server.guard(lambda: check_rights(self.table, connection))
        finally:
            connection.close()

    def accept(self, origin: Origin) -> None:
        connection = self.connect()
        try:
            self.server.guard(lambda: check_origin(self.table, connection, origin))
            shape = None
            if self.write == "upsert" and len(origin.accounts) > 1:
                shape = self.server.guard(lambda: shape_of(self.table, connection))
        finally:
            connection.close()
        if shape is not None and shape.old_keys:
            raise of_no_account(self.table)

    def synced(self, account: str) -> SyncState | None:
        connection = self.connect()
        try:
            return self.server.guard(lambda: read(self.table, connection, account))
        finally:
            connection.close()

    def states(self) -> list[SyncState]:
        return self.look()[0]

    def look(self) -> tuple[list[SyncState], bool | None]:
        return self._read(lambda *of: (read_all(*of), exists(*of)))

    def _read(self, read: Callable[[PostgresTable, psycopg.Connection[Any]], T]) -> T:
        # A server may be out of reach, and this is for somebody who waits.
        connection = self.server.connect_idle(_PATIENCE)
        try:
            self.server.begin(connection, _PATIENCE)
            return self.server.guard(lambda: read(self.table, connection))
        finally:
            connection.close()

    def to_keep_values(self, columns: Sequence[str]) -> str:
        types = {name: self.table.columns[name] for name in columns}
        return to_keep_values(self.table.as_text(types), self.content, self.write)

    def present(self) -> str | None:
        if self.write != "replace":
            return None
        connection = self.connect()
        try:
            rows = self.server.guard(lambda: rows_in(self.table, connection))
        finally:
            connection.close()
        return f"{numbered(rows, 'row')} of {self.name}" if rows else None

    def holds(self, origin: Origin) -> bool:
        connection = self.connect()
        try:
            return self.server.guard(lambda: holds(self.table, connection, origin))
        finally:
            connection.close()

    def has_answers(self, account: str, by: str) -> bool:
        if self.write == "replace":
            return False
        return self._read(lambda table, connection: has_answers(table, connection, account, by))

    def encoder(self, table: Table) -> Encoder:
        return BlockEncoder(table)

    def stage(self, folder: Path, *, changes: bool) -> PostgresStage:
        return PostgresStage(self.server, self.table, self._sink)

    def open(self, table: Table, origin: Origin) -> PostgresSink:
        return self._sink(table, origin, None)

    def _sink(self, table: Table, origin: Origin, staged: Staged | None) -> PostgresSink:
        return PostgresSink(
            self.server, self.table, table, origin, staged, marks_keys=self.replaces_keys
        )

    def connect(self) -> psycopg.Connection[Any]:
        """Return a new connection, as `PostgresServer.connect` does."""
        return self.server.connect()
