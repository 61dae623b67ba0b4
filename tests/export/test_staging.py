"""Rows that a PostgreSQL server has before all have arrived: the same table, whatever happens."""

from __future__ import annotations

import asyncio
import random
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import cache
from itertools import compress, pairwise
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from altaprofiles import CleverTap, Session
from altaprofiles.errors import ExportError
from altaprofiles.export.sinks import BlockSink, Encoded, Sink, Stage, Target, postgres_stage
from altaprofiles.export.store.people import Choice
from altaprofiles.export.tables import Content
from altaprofiles.models.people import Distinct, identity_of
from altaprofiles.tables.mended import Mended
from altaprofiles.tables.rows import Row

from ..support.postgres import Server
from ..support.servers import scripted
from ..support.sessions import QUICK
from ..support.sinks import ACCOUNT, ORIGIN, completing, target_of
from ..support.waiting import until, wait_until
from .test_ahead import EVENTS, FLATTEN, PAGES, ROWS, Held

CONTENT = Content(has_events=True)
TABLE = "SELECT * FROM {} ORDER BY ctid"


class Case:
    """Rows of three chains, of which some are staged, and a choice of all.

    The blocks of the chains arrive in turn, and those of the second one twice, as after a restart.

    Args:
        seed: of the dice.
        size: the number of rows in a block.
        once: whether each row is of another person, and has no value that the table cannot hold.
    """

    def __init__(self, seed: int, size: int, *, once: bool = False) -> None:
        dice = random.Random(seed)  # noqa: S311
        self.origin = replace(ORIGIN, is_once=once)
        rows = of_others() if once else ROWS
        self.mended = [Mended()] * len(rows) if once else mended()
        self.third = third = len(rows) // 3
        self.chains = [rows[:third], rows[third : 2 * third], rows[2 * third :]]
        self.size = size
        # The last rows of a chain are not encoded when all have arrived.
        self.encoded = [dice.choice((0, len(rows) // 2, len(rows))) for rows in self.chains]
        self.flags = [
            bytes(dice.random() < self._share(chain, place) for place in range(len(rows)))
            for chain, rows in enumerate(self.chains)
        ]
        self.matched = [[dice.choice(EVENTS) for flag in flags if flag] for flags in self.flags]

    def _share(self, chain: int, place: int) -> float:
        """Return how many rows are written: nearly none of the second chain, and of some blocks."""
        block = place // self.size
        return 0.7 * (block == 2 if chain == 1 else block % 3 > 0)

    def blocks(self) -> Iterator[tuple[int, int, int]]:
        """Yield chain, start and end of each block in the order in which they arrive."""
        starts = [range(0, end, self.size) for end in self.encoded]
        for place in range(max(map(len, starts))):
            for chain, of_chain in enumerate(starts):
                if place < len(of_chain):
                    start = of_chain[place]
                    yield chain, start, min(start + self.size, self.encoded[chain])

    def choice(self, chain: int, start: int, end: int) -> Choice:
        before = sum(self.flags[chain][:start])
        flags = self.flags[chain][start:end]
        return Choice(flags, self.matched[chain][before : before + sum(flags)])

    def written(self, chain: int, start: int = 0) -> list[Any]:
        """Return the rows that are written of a chain, from one on, with their events."""
        choice = self.choice(chain, start, len(self.chains[chain]))
        rows = compress(self.chains[chain][start:], choice.flags)
        assert choice.matched is not None
        return [replace(row, matched=one) for row, one in zip(rows, choice.matched, strict=True)]


def encoded(target: Target, rows: Any) -> bytes:
    encoder = target.encoder(table_of(target))
    encoder.add(rows)
    return encoder.take()


def table_of(target: Target) -> Any:
    return target.content.table(target.flatten, None, ORIGIN)


@cache
def mended() -> list[Mended]:
    """Return the values of each row that are not kept as they were."""
    target = target_of("postgresql://x/y/z", CONTENT, flatten=FLATTEN)
    encoder = target.encoder(table_of(target))
    totals = [Mended()]
    for row in ROWS:
        encoder.add([row])
        encoder.take()
        totals.append(encoder.mended)
    return [after - before for before, after in pairwise(totals)]


@cache
def of_others() -> list[Row]:
    """Return those of the rows that stand for one person each, and are kept as they are."""
    seen = Distinct()
    return [
        row
        for row, values in zip(ROWS, mended(), strict=True)
        if not values.total and seen.is_new(identity_of(row.record), row.record)
    ]


def stage_of(target: Target) -> Stage:
    stage = target.stage(Path(), changes=True)
    assert stage is not None
    return stage


def load(target: Target, case: Case, *, lost: Callable[[], object] | None = None) -> Sink:
    """Stage the blocks as they arrive, and write all rows."""
    stage = stage_of(target)
    staged: dict[tuple[int, int], int | None] = {}
    for chain, start, end in case.blocks():
        data = encoded(target, case.chains[chain][start:end])
        if chain == 1:
            # Of a start of the chain that is followed by another.
            stage.put(data, chain)
        staged[chain, start] = stage.put(data, chain)
    if lost is not None:
        lost()
    sink = stage.open(table_of(target), case.origin)
    assert stage.is_held == (lost is None and any(case.encoded))
    assert isinstance(sink, BlockSink)
    with closing(stage), completing(sink):
        for chain, rows in enumerate(case.chains):
            for start in range(0, case.encoded[chain], case.size):
                end = min(start + case.size, case.encoded[chain])
                data = encoded(target, rows[start:end])
                number = staged[chain, start] if stage.is_held else None
                if number is not None and not stage.needs_blocks:
                    data = b""
                choice = case.choice(chain, start, end)
                if 1 not in choice.flags:
                    continue
                own = case.mended[chain * case.third :][start:end]
                replaced = sum(compress(own, choice.flags), Mended())
                view = memoryview(data)
                sink.put(Encoded(view, choice, replaced, ("App Launched",), number))
            sink.write(case.written(chain, case.encoded[chain]))
    return sink


def write(target: Target, case: Case) -> Sink:
    with completing(target.open(table_of(target), case.origin)) as sink:
        for chain in range(3):
            sink.write(case.written(chain))
    return sink


def target_on(postgres: Server, table: str, mode: str) -> Target:
    return target_of(postgres.url(table), CONTENT, flatten=FLATTEN, write=mode)


@pytest.mark.parametrize("mode", ["upsert", "append"])
@pytest.mark.parametrize("once", [False, True])
@pytest.mark.parametrize(("seed", "size"), [(5, 90), (9, 37), (9, 2)])
def test_staged_rows_are_those_of_the_table(
    postgres: Server, mode: str, seed: int, size: int, once: bool
) -> None:
    case = Case(seed, size, once=once)
    sinks = [
        write(target_on(postgres, "one", mode), case),
        load(target_on(postgres, "other", mode), case),
    ]
    assert postgres.rows(TABLE.format("one")) == postgres.rows(TABLE.format("other"))
    assert sinks[0].mended == sinks[1].mended
    assert bool(sinks[0].mended.total) != once
    assert len(sinks[0].notes) == len(sinks[1].notes)
    # The same run once more, as after a kill behind its commit.
    before = postgres.rows("SELECT xmin::text, * FROM other ORDER BY ctid")
    load(target_on(postgres, "other", mode), case)
    assert postgres.rows("SELECT xmin::text, * FROM other ORDER BY ctid") == before
    write(target_on(postgres, "other", mode), case)
    assert postgres.rows("SELECT xmin::text, * FROM other ORDER BY ctid") == before


def test_a_connection_that_is_lost_costs_nobody(postgres: Server) -> None:
    case = Case(1, 90)
    write(target_on(postgres, "one", "upsert"), case)
    target = target_on(postgres, "other", "upsert")

    def cut() -> None:
        postgres.cut_exports()
        wait_until(lambda: postgres.rows(SESSIONS) == [(0,)])

    load(target, case, lost=cut)
    assert postgres.rows(TABLE.format("one")) == postgres.rows(TABLE.format("other"))


SESSIONS = (
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE application_name = 'altaprofiles' AND datname = current_database()"
)
STAGED = (
    "SELECT coalesce(sum(pg_relation_size(oid)), 0)::int FROM pg_class"
    " WHERE relname = 'altaprofiles_ahead'"
)


class Between:
    """A link between a client and the server: a pooler, or a network that falls silent.

    Args:
        port: the port of the server.
        renumbers: whether it tells clients other numbers of their sessions, as PgBouncer does.
    """

    def __init__(self, port: int, *, renumbers: bool = False) -> None:
        self._port = port
        self._renumbers = renumbers
        self._silent: set[int] = set()
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._port))
                self._sockets += [client, server]
                for one, other in ((client, server), (server, client)):
                    self._start(self._pump, one, other, len(self._sockets), other is client)

    def _pump(
        self, source: socket.socket, sink: socket.socket, number: int, to_client: bool
    ) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if number in self._silent:
                    continue
                if self._renumbers and to_client:
                    data = _renumbered(data)
                sink.sendall(data)
        _shut_down(source, sink)

    def fall_silent(self) -> None:
        """Lose all that is sent by the connections that there are."""
        self._silent.update(range(len(self._sockets) + 1))

    def close(self) -> None:
        # A socket that a thread reads from stays open when it is closed, and with it the session.
        _shut_down(self._listener)
        self._threads[0].join()
        _shut_down(*self._sockets)
        for thread in self._threads:
            thread.join()
        for one in (self._listener, *self._sockets):
            one.close()


def _shut_down(*sockets: socket.socket) -> None:
    for one in sockets:
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)


def _renumbered(data: bytes) -> bytes:
    # BackendKeyData ("Message Formats"): a length of 12, and the number.
    place = data.find(b"K\0\0\0\x0c")
    return data if place < 0 else data[: place + 5] + b"\0\0\0\1" + data[place + 9 :]


@contextmanager
def between(postgres: Server, **options: Any) -> Iterator[tuple[Between, str]]:
    found = Between(postgres.port, **options)
    try:
        yield found, postgres.url("other").replace(f":{postgres.port}/", f":{found.port}/")
    finally:
        found.close()


def test_a_server_that_falls_silent_is_given_up(
    postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_stage, "_PATIENCE", 1)
    case = Case(1, 90)
    write(target_on(postgres, "one", "upsert"), case)
    with between(postgres) as (network, url):
        target = target_of(url, CONTENT, flatten=FLATTEN)
        load(target, case, lost=network.fall_silent)
    assert postgres.rows(TABLE.format("one")) == postgres.rows(TABLE.format("other"))


def test_nothing_is_staged_in_the_session_of_a_pooler(postgres: Server) -> None:
    with between(postgres, renumbers=True) as (_, url):
        stage = stage_of(target := target_of(url, CONTENT, flatten=FLATTEN))
        assert stage.put(encoded(target, ROWS), 0) is None
        assert postgres.rows("SELECT count(*) FROM pg_class WHERE relname ~ 'altaprof'") == [(0,)]
        # Nor is it tried for each block.
        assert stage.put(encoded(target, ROWS), 0) is None
        stage.close()


def test_a_server_that_refuses_indexes_takes_rows(postgres: Server) -> None:
    postgres.run(
        "CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'no';"
        " END$$",
        "CREATE EVENT TRIGGER refuses ON ddl_command_end WHEN tag IN ('CREATE INDEX')"
        " EXECUTE FUNCTION refuse()",
    )
    try:
        case = Case(1, 90)
        write(target_on(postgres, "one", "append"), case)
        load(target_on(postgres, "other", "append"), case)
        assert postgres.rows(TABLE.format("one")) == postgres.rows(TABLE.format("other"))
    finally:
        postgres.run("DROP EVENT TRIGGER refuses")


# --------------------------------------------------------------------------------- of whole exports


@pytest.mark.anyio
@pytest.mark.parametrize("event", ["nothing", "cut", "cancelled", "refused"])
async def test_an_export_is_complete_whatever_becomes_of_staged_rows(
    postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, event: str
) -> None:
    # For its manifest.
    monkeypatch.chdir(tmp_path)
    service = Held()
    async with (
        scripted(service.answer) as server,
        Session(clevertap=CleverTap(ACCOUNT, "P", base_url=server.url), retry=QUICK) as session,
    ):
        service.bodies = server.bodies

        def export() -> asyncio.Task[Any]:
            return asyncio.create_task(
                session.export(
                    ["First", "Second"],
                    start=20260101,
                    end=20260101,
                    windows=1,
                    to=postgres.url("people"),
                    count=False,
                )
            )

        task = export()
        await until(lambda: postgres.rows(STAGED) != [(0,)], during=task)
        if event == "cut":
            postgres.cut_exports()
        elif event == "cancelled":
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await until(lambda: postgres.rows(STAGED) == [(0,)])
            task = export()
        elif event == "refused":
            # A table of that name is another program's, and the server says so at the end.
            postgres.run("CREATE TABLE people (a int)")
        service.gate.set()
        if event == "refused":
            with pytest.raises(ExportError, match="not from an export"):
                await task
            postgres.run("DROP TABLE people")
            task = export()
        report = await task
    rows = postgres.rows("SELECT identity, matched FROM people")
    assert len(rows) == report.people == len({*(who for who, _ in rows)}) == PAGES * 32
    for who, matched in rows:
        assert matched == (["First", "Second"] if who[0].isdigit() else [who.partition("-")[0]])
    await until(lambda: postgres.rows(SESSIONS) == [(0,)])
    # Nothing was asked for again, but the page that was awaited.
    assert len(service.requests) <= len(set(service.requests)) + (3 if event == "cancelled" else 1)
