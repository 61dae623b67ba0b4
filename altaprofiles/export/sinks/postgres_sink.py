"""Writes the rows of one export to a PostgreSQL table, in one transaction.

Rows are copied into a temporary table, which may have some of them already. Only at the end, when
it is the export's turn, do they become rows of the table itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from functools import partial
from typing import TYPE_CHECKING

from ...tables.layout import Column
from ...tables.mended import Mended
from ...tables.rows import Row, Table
from ..state import number_of
from ..tables import (
    Origin,
    if_renamed,
    of_added,
    of_left_out,
    of_lost_rows,
    of_outdated,
    of_unfilled,
    under_other_keys,
)
from . import postgres_runs, postgres_sync
from .encoding import Encoded
from .postgres_keys import is_empty
from .postgres_load import (
    CHOICE,
    STAGE,
    Load,
    add_chosen,
    analyze,
    analyze_new,
    append,
    create_stage,
    drop_repeated,
    drop_unused,
    find_repeated,
    leave_out,
    other_accounts,
    put_bindings,
    replace,
    take_back,
    unused_rows,
)
from .postgres_rights import check_take_back
from .postgres_rows import SLICE, RowEncoder, number_lines
from .postgres_schema import add_index, prepare
from .postgres_server import PostgresServer
from .postgres_shape import Shape, shape_of
from .postgres_stage import WRITTEN, Staged
from .postgres_table import PostgresTable
from .postgres_upsert import leaves_rows, upsert

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
        staged: the rows that are copied already, if there are any. The connection is theirs then.
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
        staged: Staged | None,
        *,
        marks_keys: bool,
    ) -> None:
        self.absorbed = 0
        self.notes: list[str] = []
        self.earlier_columns: Sequence[str] = ()
        self._changed: frozenset[str] = frozenset()
        self._server = server
        self._table = table
        self._origin = origin
        self._rows = RowEncoder(rows, marks_keys=marks_keys)
        self._digest = hashlib.sha256(repr(table.columns).encode())
        self._copying: AbstractContextManager[psycopg.Copy] | None = None
        self._copied_into = ""
        # The number of the next row, how many there have been, and how many of them are written.
        self._number = 0 if staged is None else WRITTEN
        self._count = 0
        self._chosen = 0
        self._staged = staged
        self._unused = {} if staged is None else {**staged.counts}
        self._connection = server.connect() if staged is None else staged.connection
        try:
            server.guard(self._begin)
        except BaseException:
            self.abort()
            raise

    @property
    def mended(self) -> Mended:
        return self._rows.mended

    def write(self, rows: Sequence[Row]) -> None:
        for start in range(0, len(rows), SLICE):
            lines, marks = self._rows.encode(rows[start : start + SLICE])
            self._write_lines(lines, marks)

    def takes(self, columns: Sequence[Column]) -> bool:
        return [*columns] == [*self._rows.columns]

    def put(self, encoded: Encoded) -> None:
        self._rows.mend(encoded.mended)
        if encoded.staged is None:
            self._write_lines(self._rows.lines_of(encoded))
            return
        if self._table.has_digest:
            self._digest.update(b"".join(self._rows.lines_of(encoded)))
        first = encoded.staged
        count = self._unused.pop(first)
        self._number = first + count + WRITTEN
        self._count += count
        self._chosen += sum(encoded.choice.flags)
        if choices := self._rows.choices(encoded, first):
            self._copy(CHOICE, choices)

    def _write_lines(self, lines: Sequence[bytes | memoryview], marks: bytes = b"") -> None:
        if self._table.has_digest:
            self._digest.update(b"".join(lines))
        self._copy(STAGE, number_lines(lines, self._number) + marks)
        self._number += len(lines)
        self._count += len(lines)
        self._chosen += len(lines)

    def _copy(self, table: str, data: bytes) -> None:
        self._server.guard(partial(self._copy_into, table, data))

    def _copy_into(self, table: str, data: bytes) -> None:
        if self._copying is None or self._copied_into != table:
            self._end_copy()
            self._copied_into = table
            self._copying = self._connection.cursor().copy(f"COPY {table} FROM STDIN")
            self._copier = self._copying.__enter__()
        self._copier.write(data)

    def _end_copy(self) -> None:
        if self._copying is not None:
            copying, self._copying = self._copying, None
            copying.__exit__(None, None, None)

    def close(self) -> None:
        self._server.guard(self._finish)

    def abort(self) -> None:
        # The server rolls back an open transaction, even in the middle of a copy.
        with suppress(Exception):
            self._connection.close()
        # A copy that is never exited would warn when it is garbage-collected.
        with suppress(Exception):
            self._end_copy()

    def _begin(self) -> None:
        if self._staged is None:
            create_stage(self._connection, STAGE, self._table, "ON COMMIT DROP")
        else:
            self._connection.execute(
                "CREATE TEMP TABLE altaprofiles_choice (number bigint, matched text[])"
                " ON COMMIT DROP"
            )

    def _finish(self) -> None:
        self._end_copy()
        connection, table = self._connection, self._table
        table.take_turns(connection)
        shape = shape_of(table, connection)
        if shape.oid is not None and table.write != "replace" and not is_empty(table, connection):
            self.earlier_columns = [one for one in table.columns if one not in shape.missing]
        if table.write == "append":
            self._settle()
            self._append(shape)
            self._write_states(shape, [])
        else:
            known = self._known_rows(shape)
            self._write(shape)
            self._write_states(shape, known)
        connection.commit()
        connection.close()

    def _settle(self) -> None:
        """Leave the rows to write in the temporary table, and no others."""
        if self._staged is not None:
            drop_unused(self._connection, unused_rows(self._unused))
            leave_out(self._connection)
        if self._staged is None or 2 * self._staged.analyzed < self._count:
            analyze(self._connection, STAGE, self._table)

    def _known_rows(self, shape: Shape) -> list[postgres_sync.Known]:
        """Return the rows of synced accounts that stay; note what is lost, and not brought."""
        if shape.oid is None or self._table.write == "replace":
            return []
        known = postgres_sync.known_rows(self._table, self._connection, self._origin)
        self.notes += [
            note
            for one in known
            if (
                note := of_lost_rows(self._table.label, one.state.account, self._origin, one.losses)
            )
        ]
        return known

    def _write_states(self, shape: Shape, known: Sequence[postgres_sync.Known]) -> None:
        if shape.oid is None or self._table.write == "replace":
            postgres_sync.forget(self._table, self._connection)
        latest = {one.state.account: one.latest for one in known}
        written_at = number_of(self._origin.fetched_at)
        for account, time in latest.items():
            if time is not None and account in self._changed:
                latest[account] = max(time, written_at)
        sync = self._origin.sync
        losses = {one.state.account: one.losses for one in known}
        for state in [one.state for one in known] if sync is None else [sync]:
            account = state.account
            postgres_sync.write(
                self._table, self._connection, state, latest.get(account), losses.get(account, ())
            )

    def _append(self, shape: Shape) -> None:
        connection, table = self._connection, self._table
        digest = self._digest.hexdigest()
        earlier = None
        if shape.oid is not None:
            earlier = postgres_runs.recorded(table, connection, self._origin)
        if earlier is not None and earlier.digest == digest:
            # This run was killed after its commit.
            return
        prepare(table, connection, shape, self._origin.accounts)
        if shape.left_out:
            self.notes.append(self._of_left_out(shape))
        load = Load(connection, table, shape.left_out)
        if earlier is not None:
            check_take_back(table, connection, shape)
            take_back(load, self._origin, earlier.transaction)
        append(load)
        self._record(digest, is_only=shape.oid is None)

    def _of_left_out(self, shape: Shape) -> str:
        table = self._table
        note = of_left_out(table.label, shape.left_out, self._origin, table.write)
        # They are known by their comments, even under other names. Where nothing has been added,
        # none has lost its own.
        is_added = not shape.missing.keys().isdisjoint(table.flattened)
        return note + if_renamed(shape.left_out if is_added else ())

    def _record(self, digest: str, *, is_only: bool) -> None:
        run = self._origin.run
        postgres_runs.record(self._table, self._connection, run, digest, is_only=is_only)

    def _write(self, shape: Shape) -> None:
        connection, table = self._connection, self._table
        is_new = shape.oid is None
        self.notes += prepare(table, connection, shape, self._origin.accounts)
        if shape.left_out:
            self.notes.append(self._of_left_out(shape))
        self._note_unfilled(shape)
        load = Load(connection, table, shape.left_out)
        if self._is_first(load, shape):
            if self._staged is None:
                append(load)
            else:
                add_chosen(load, self._chosen, unused_rows(self._unused))
        else:
            self._settle()
            self._move(load, shape)
        if is_new:
            add_index(table, connection)
            analyze_new(connection, table)

    def _note_unfilled(self, shape: Shape) -> None:
        """Note columns of the user's own that lose their values as the table gets others."""
        table = self._table
        required = table.required
        added = [name for name in shape.missing if name not in required]
        # A table of an earlier version gets columns in any case.
        if table.write == "replace" and added and shape.unfilled and not shape.is_old:
            self.notes.append(of_unfilled(table.label, added, [*shape.unfilled]))

    def _is_first(self, load: Load, shape: Shape) -> bool:
        """Return whether the rows are all that a new table gets, and stand for one person each.

        Values that have been replaced may have made two people one.
        """
        return (
            shape.oid is None
            and self._origin.is_once
            and not self._table.is_repeating
            and not self.mended.total
            and not load.triggers
        )

    def _move(self, load: Load, shape: Shape) -> None:
        table = self._table
        if table.is_repeating:
            replace(load)
            self._record(self._digest.hexdigest(), is_only=True)
        elif table.content.of == "people":
            self._write_people(load, shape)
        elif table.write == "upsert":
            known = other_accounts(load, self._origin)
            if note := self._origin.of_other_accounts(table.label, known):
                self.notes.append(note)
            put_bindings(load)
        else:
            replace(load)

    def _write_people(self, load: Load, shape: Shape) -> None:
        repeated = find_repeated(load)
        if self._table.write == "replace" or shape.oid is None:
            drop_repeated(load)
            replace(load)
            outdated = 0
        else:
            result = upsert(load, shape, unites=self._unites)
            self.absorbed, outdated = result.absorbed, result.outdated
            self._changed = result.changed
            self._note_added(load, shape, outdated)
        if repeated:
            self.notes.append(under_other_keys(self._table.label, repeated))
        if outdated:
            self.notes.append(
                of_outdated(self._table.label, outdated, self._table.content, self._origin)
            )

    def _note_added(self, load: Load, shape: Shape, outdated: int) -> None:
        """Note columns that are null in rows of earlier runs, which this one did not bring."""
        table = self._table
        note = of_added(table.label, shape.missing, table.flattened, shape.unfilled, table.content)
        if note and (outdated or leaves_rows(load)):
            self.notes.append(note)

    @property
    def _unites(self) -> bool:
        """True if the events that brought a person are added to those of earlier runs."""
        return self._origin.sync is not None and self._table.content.has_events
