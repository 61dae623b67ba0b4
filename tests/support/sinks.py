"""Sinks without an export around them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from altaprofiles.export.output import Output
from altaprofiles.export.sinks import Sink, Target, resolve
from altaprofiles.export.tables import Content, Origin
from altaprofiles.tables.kinds import Kinds
from altaprofiles.tables.rows import Row

__all__ = [
    "ACCOUNT",
    "ORIGIN",
    "PEOPLE",
    "completing",
    "filled",
    "opened",
    "put_in_place",
    "rows_of",
    "target_of",
]

ACCOUNT = "ACCOUNT"
ORIGIN = Origin("run 1", (ACCOUNT,), datetime(2026, 2, 1, 12, tzinfo=UTC))
PEOPLE = Content(has_events=True)


def target_of(to: Any, content: Content = PEOPLE, **options: Any) -> Target:
    """Return the target that an export would write to."""
    return resolve(Output(to=to, **options), content)


def rows_of(records: Iterable[bytes], account: str = ACCOUNT) -> list[Row]:
    """Return the rows of records."""
    return [Row(record, account) for record in records]


def opened(target: Target, records: Sequence[bytes] = (), origin: Origin = ORIGIN) -> Sink:
    """Return a new sink of a target, whose types are those of `records`."""
    kinds = Kinds(target.flatten)
    kinds.observe(records)
    table = target.content.table(target.flatten, kinds if target.has_types else None, origin)
    return target.open(table, origin)


def filled(target: Target, rows: Sequence[Row], origin: Origin = ORIGIN) -> Sink:
    """Write rows to a target, and put them in place or, if they are refused, none of them."""
    with completing(opened(target, [row.record for row in rows], origin)) as sink:
        sink.write(rows)
    return sink


@contextmanager
def completing(sink: Sink) -> Iterator[Sink]:
    """Put the rows that the block writes in place or, if anything fails, none of them."""
    try:
        yield sink
        put_in_place(sink)
    except BaseException:
        sink.abort()
        raise


def put_in_place(sink: Sink) -> None:
    """Close a sink, and the file that it returns."""
    if (file := sink.close()) is not None:
        file.close()
