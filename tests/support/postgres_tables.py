"""Exports into PostgreSQL tables without a session around them, and the rows that they leave."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from itertools import count
from typing import Any

import msgspec

from altaprofiles.export.sinks import Sink, Target
from altaprofiles.export.state import SyncState
from altaprofiles.export.tables import Origin
from altaprofiles.tables.rows import Row

from .postgres import Server
from .sinks import ACCOUNT, opened

__all__ = [
    "DAYS",
    "days",
    "devices",
    "export",
    "line",
    "named",
    "nameless",
    "origin_of",
    "waits",
]

DAYS = [datetime(2026, 2, day, 3, tzinfo=UTC) for day in range(1, 29)]


def line(**record: Any) -> bytes:
    return msgspec.json.encode(record)


def devices(*ids: str) -> list[dict[str, str]]:
    return [{"platform": "Web", "objectId": one} for one in ids]


def named(identity: str, *ids: str, **record: Any) -> bytes:
    return line(identity=identity, platformInfo=devices(*ids), **record)


def nameless(*ids: str, **record: Any) -> bytes:
    return line(platformInfo=devices(*ids), **record)


_RUNS = count()


def origin_of(
    day: int,
    *accounts: str,
    run: str | None = None,
    sync: SyncState | None = None,
    days: tuple[date, date] | None = None,
) -> Origin:
    return Origin(run or f"run {next(_RUNS)}", accounts or (ACCOUNT,), DAYS[day], sync, days)


def export(
    target: Target,
    records: Sequence[bytes | Row],
    day: int = 0,
    *accounts: str,
    matched: Sequence[str] = ("Charged",),
    run: str | None = None,
    sync: SyncState | None = None,
    days: tuple[date, date] | None = None,
) -> Sink:
    """Export records of the first account, or rows; return the closed sink."""
    account = accounts[0] if accounts else ACCOUNT
    rows = [
        Row(record, account, matched=tuple(matched)) if isinstance(record, bytes) else record
        for record in records
    ]
    origin = origin_of(day, *accounts, run=run, sync=sync, days=days)
    target.check()
    target.accept(origin)
    sink = opened(target, origin=origin)
    try:
        sink.write(rows)
        sink.close()
    except BaseException:
        sink.abort()
        raise
    return sink


def days(postgres: Server, columns: str = "person", table: str = "people") -> list[Any]:
    """Return columns of each row, and the days it was fetched and added, None where unknown."""
    found = postgres.rows(
        f"SELECT {columns}, fetched_at, added_at FROM {table} ORDER BY account, person"
    )
    return [
        (
            *row[:-2],
            *(None if time is None else DAYS.index(time.astimezone(UTC)) for time in row[-2:]),
        )
        for row in found
    ]


def waits(postgres: Server) -> bool:
    return bool(
        postgres.rows(
            "SELECT 1 FROM pg_stat_activity WHERE application_name = 'altaprofiles'"
            " AND datname = current_database() AND wait_event_type = 'Lock'"
        )
    )
