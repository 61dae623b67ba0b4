"""Copies rows to a PostgreSQL server while others are still being read.

They are copied in short transactions, into a temporary table of a session of its own, which becomes
the sink's. A temporary table takes no space in the server's log, nobody else can see it, and the
server drops it with the session, even that of a process that was killed. A pooler such as PgBouncer
gives each transaction another session, which would keep the table for other users. There, and
wherever anything else fails, all rows are copied at the end.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Timer
from typing import TYPE_CHECKING, Any, Protocol

from msgspec import Struct

from ...errors import ExportError
from ...tables.rows import Table
from ..tables import Origin
from .line_blocks import all_lines_of, count_of
from .postgres_load import STAGE, analyze, create_stage
from .postgres_rows import number_lines
from .postgres_server import PostgresServer
from .postgres_table import PostgresTable, row_of
from .target import Sink

if TYPE_CHECKING:
    import psycopg

__all__ = ["WRITTEN", "PostgresStage", "Staged"]

logger = logging.getLogger("altaprofiles")

AHEAD = "pg_temp.altaprofiles_ahead"

_PATIENCE = 10
"""Longest time, in seconds, for one step of the server. The end of the export waits for it."""

_OF_CHAIN = 1 << 41
"""Numbers that the rows of one chain can have. So they are in the order of chains."""

WRITTEN = 1 << 40
"""Added to the numbers of the rows of a chain that are not staged, which come behind the others."""

_FIRST_ANALYZED = 10_000
"""Rows after which the table is analysed for the first time."""


class Staged(Struct, frozen=True):
    """The rows that a stage has copied.

    Attributes:
        connection: their session, in a transaction in which their table is that of the sink.
        counts: the number of rows of each block, by the number of the first one.
        analyzed: the number of rows that the server knew when it has analysed them.
    """

    connection: psycopg.Connection[Any]
    counts: dict[int, int]
    analyzed: int


class _MakeSink(Protocol):
    def __call__(self, table: Table, origin: Origin, staged: Staged | None) -> Sink: ...


class PostgresStage:
    """The rows of one export. Implements `Stage`.

    Args:
        server: the database.
        table: the table that they are for.
        make_sink: returns the sink, in a new session unless there are staged rows.
    """

    takes_text = False
    first_only = False

    def __init__(self, server: PostgresServer, table: PostgresTable, make_sink: _MakeSink) -> None:
        self.is_held = False
        # The digest is of all rows.
        self.needs_blocks = table.has_digest
        self._server = server
        self._table = table
        self._make_sink = make_sink
        self._connection: psycopg.Connection[Any] | None = None
        self._is_over = False
        self._counts: dict[int, int] = {}
        self._ends: dict[int, int] = {}
        self._rows = 0
        self._analyzed = 0

    def put(self, block: bytes, chain: int) -> int | None:
        if self._is_over:
            return None
        first = self._ends.get(chain, chain * _OF_CHAIN)
        count = count_of(block)
        if not self._attempted(lambda: self._copy(block, first, count)):
            return None
        self._counts[first] = count
        self._ends[chain] = first + count
        self._rows += count
        return first

    def open(self, table: Table, origin: Origin) -> Sink:
        connection = self._connection
        self._is_over = True
        # A sink that has them may have failed, and this is another one.
        self.is_held = False
        if connection is not None and self._attempted(lambda: self._hand_over(connection)):
            self.is_held = True
            self._connection = None
            staged = Staged(connection, self._counts, self._analyzed)
            return self._make_sink(table, origin, staged)
        return self._make_sink(table, origin, None)

    def close(self) -> None:
        self._is_over = True
        self.is_held = False
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):
                connection.close()

    def _attempted(self, step: Callable[[], None]) -> bool:
        """Return whether a step has succeeded. If not, all rows are dropped."""
        try:
            with self._limited():
                self._server.guard(step)
        except (ExportError, OSError) as error:
            logger.debug("no rows are copied ahead: %s", error)
            self.close()
            return False
        return True

    @contextmanager
    def _limited(self) -> Iterator[None]:
        """Cut the connection if the body takes too long, as that of a silent network would."""
        timer = Timer(_PATIENCE, self._cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            # It must not cut the connection later.
            timer.join()

    def _cut(self) -> None:
        connection = self._connection
        # The driver waits in another thread, and finds the connection closed.
        with suppress(Exception):
            if connection is not None:
                with socket.socket(fileno=os.dup(connection.fileno())) as own:
                    own.shutdown(socket.SHUT_RDWR)

    def _copy(self, block: bytes, first: int, count: int) -> None:
        if self._connection is None:
            self._connection = self._server.connect_idle(_PATIENCE)
            self._create(self._connection)
        lines = all_lines_of(block)
        with self._connection.cursor() as cursor, cursor.copy(f"COPY {AHEAD} FROM STDIN") as copy:
            copy.write(number_lines(lines, first))
        if self._rows + count >= max(2 * self._analyzed, _FIRST_ANALYZED):
            analyze(self._connection, AHEAD, self._table)
            self._analyzed = self._rows + count

    def _create(self, connection: psycopg.Connection[Any]) -> None:
        (number,) = row_of(connection, "SELECT pg_backend_pid()")
        # A pooler tells its clients a number of its own.
        if number != connection.info.backend_pid:
            raise ExportError("there is a pooler before the server")
        create_stage(connection, AHEAD, self._table)

    def _hand_over(self, connection: psycopg.Connection[Any]) -> None:
        self._server.begin(connection)
        connection.execute(f"ALTER TABLE {AHEAD} RENAME TO {STAGE.partition('.')[2]}")
