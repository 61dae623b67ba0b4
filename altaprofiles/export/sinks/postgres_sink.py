"""Writes the rows of one export to a PostgreSQL table, in one transaction.

Rows are copied into a temporary table. Only at the end, when it is the export's turn, do they
become rows of the table itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from functools import partial
from typing import TYPE_CHECKING

from ...base.wording import numbered
from ...tables.layout import Column
from ...tables.rows import Row, Table
from ..tables import Origin, of_left_out, under_other_keys
from . import postgres_runs, postgres_sync
from .encoding import Encoded
from .postgres_load import (
    STAGE,
    Load,
    append,
    drop_repeated,
    find_repeated,
    put_bindings,
    replace,
    staged_columns,
    take_back,
)
from .postgres_rights import check_take_back
from .postgres_rows import SLICE, RowEncoder
from .postgres_schema import add_index, prepare
from .postgres_server import PostgresServer
from .postgres_shape import Shape, shape_of
from .postgres_table import PostgresTable
from .postgres_upsert import upsert

if TYPE_CHECKING:
    import psycopg

__all__ = ["PostgresSink"]


class PostgresSink:
    """Takes the rows of one export. Implements `Sink`.

    Args:
        server: the database.
        table: the table.
        rows: the columns, and the cells of the rows.
        origin: the export.
        marks_keys: whether all rows of the keys of rows without cells are deleted.

    Raises:
        ExportError: the server cannot be reached, or refuses.
    """

    def __init__(
        self,
        server: PostgresServer,
        table: PostgresTable,
        rows: Table,
        origin: Origin,
        *,
        marks_keys: bool,
    ) -> None:
        self.absorbed = 0
        self.notes: list[str] = []
        self._server = server
        self._table = table
        self._origin = origin
        self._rows = RowEncoder(rows, marks_keys=marks_keys)
        self._digest = hashlib.sha256(repr(table.columns).encode())
        self._copying: AbstractContextManager[psycopg.Copy] | None = None
        self._connection = server.connect()
        try:
            self._copy = server.guard(self._begin)
        except BaseException:
            self.abort()
            raise

    @property
    def mended(self) -> int:
        return self._rows.mended

    def write(self, rows: Sequence[Row]) -> None:
        for start in range(0, len(rows), SLICE):
            self._copy_lines(self._rows.encode(rows[start : start + SLICE]))

    def takes(self, columns: Sequence[Column]) -> bool:
        return [*columns] == [*self._rows.columns]

    def put(self, encoded: Encoded) -> None:
        self._copy_lines(self._rows.numbered(encoded))

    def _copy_lines(self, data: bytes) -> None:
        self._digest.update(data)
        self._server.guard(partial(self._copy.write, data))

    def close(self) -> None:
        self._server.guard(self._finish)

    def abort(self) -> None:
        # The server rolls back an open transaction, even in the middle of a copy.
        with suppress(Exception):
            self._connection.close()
        if self._copying is not None:
            # A copy that is never exited would warn when it is garbage-collected.
            with suppress(Exception):
                self._copying.__exit__(None, None, None)

    def _begin(self) -> psycopg.Copy:
        columns = zip(
            staged_columns(self._table).values(), self._table.columns.values(), strict=True
        )
        cursor = self._connection.cursor()
        cursor.execute(
            "CREATE TEMP TABLE altaprofiles_stage (number bigint, nameless boolean, "
            f"{', '.join(f'{name} {type_}' for name, type_ in columns)}) ON COMMIT DROP"
        )
        self._copying = cursor.copy(f"COPY {STAGE} FROM STDIN")
        return self._copying.__enter__()

    def _finish(self) -> None:
        if self._copying is not None:
            self._copying.__exit__(None, None, None)
        connection, table = self._connection, self._table
        # Only the columns by which rows are found: to analyse documents takes long.
        connection.execute(f"ANALYZE {STAGE} (number, nameless, {self._found_by})")
        table.take_turns(connection)
        shape = shape_of(table, connection)
        if table.write == "append":
            self._append(shape)
        else:
            self._write(shape)
        self._write_states(shape)
        connection.commit()
        connection.close()

    def _write_states(self, shape: Shape) -> None:
        if shape.oid is None or self._table.write == "replace":
            postgres_sync.forget(self._table, self._connection)
        if self._origin.sync is not None:
            postgres_sync.write(self._table, self._connection, self._origin.sync)

    def _append(self, shape: Shape) -> None:
        connection, table = self._connection, self._table
        digest = self._digest.hexdigest()
        earlier = None
        if shape.oid is not None:
            earlier = postgres_runs.recorded(table, connection, self._origin.run)
        if earlier is not None and earlier.digest == digest:
            # This run was killed after its commit.
            return
        prepare(table, connection, shape, self._origin.accounts)
        if shape.left_out:
            self.notes.append(of_left_out(table.label, shape.left_out))
        load = Load(connection, table, shape.left_out)
        if earlier is not None:
            check_take_back(table, connection, shape)
            take_back(load, self._origin, earlier.transaction)
        append(load)
        self._record(digest, is_only=shape.oid is None)

    def _record(self, digest: str, *, is_only: bool) -> None:
        run = self._origin.run
        postgres_runs.record(self._table, self._connection, run, digest, is_only=is_only)

    def _write(self, shape: Shape) -> None:
        connection, table = self._connection, self._table
        is_new = shape.oid is None
        self.notes += prepare(table, connection, shape, self._origin.accounts)
        if shape.left_out and table.write == "upsert":
            self.notes.append(of_left_out(table.label, shape.left_out))
        load = Load(connection, table, shape.left_out)
        if table.is_repeating:
            replace(load)
            self._record(self._digest.hexdigest(), is_only=True)
        elif table.content.of == "people":
            self._write_people(load, shape)
        elif table.write == "upsert":
            put_bindings(load)
        else:
            replace(load)
        if is_new:
            add_index(table, connection)
            connection.execute(f"ANALYZE {table.quoted} ({self._found_by})")

    def _write_people(self, load: Load, shape: Shape) -> None:
        repeated = find_repeated(load)
        if self._table.write == "replace" or shape.oid is None:
            drop_repeated(load)
            replace(load)
            outdated = 0
        else:
            result = upsert(load, shape, unites=self._unites)
            self.absorbed, outdated = result.absorbed, result.outdated
        if repeated:
            self.notes.append(under_other_keys(self._table.label, repeated))
        if outdated:
            self.notes.append(
                f"{self._table.label} keeps {numbered(outdated, 'row')} as a later export has "
                f"fetched them"
            )

    @property
    def _unites(self) -> bool:
        """True if the events that brought a person are added to those of earlier runs."""
        return self._origin.sync is not None and self._table.content.has_events

    @property
    def _found_by(self) -> str:
        """The columns by which rows are found."""
        devices = ["object_ids"] if self._table.content.of == "people" else []
        return ", ".join([*self._table.content.identifies, *devices])
