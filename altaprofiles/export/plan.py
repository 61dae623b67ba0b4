"""What an export is to bring: its chains, and what tells it from another one. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import msgspec
from msgspec import Struct

from ..base.checks import check_flag, check_whole
from ..errors import ConfigurationError, PlanMismatch
from ..wire.query import BATCH_SIZE, Day, EventQuery

__all__ = ["LookupPlan", "Plan", "check_same", "parse_plan", "plan_events"]


class Plan(Struct, frozen=True, tag="events", tag_field="kind"):
    """Which chains an export walks, in the order in which they count.

    Attributes:
        account, host: whose people, and where they were asked for.
        events: the names.
        start, end: the range as it is sent, inclusive.
        app, event_summaries, profile: what records hold.
        windows: into how many parts the range is split.
        batch_size: people per page. A chain that has begun keeps its own, so that it may differ.
    """

    account: str
    host: str
    events: tuple[str, ...]
    start: int
    end: int
    app: bool
    event_summaries: bool
    profile: bool
    windows: int
    batch_size: int = BATCH_SIZE

    @property
    def queries(self) -> list[EventQuery]:
        """One for each chain, event by event, and those of one event in the order of windows."""
        return [query for event in self.events for query in self.query(event).split(self.windows)]

    def query(self, event: str) -> EventQuery:
        """Return the query for everyone who did one of the events."""
        return EventQuery(
            event,
            self.start,
            self.end,
            self.batch_size,
            self.app,
            self.event_summaries,
            self.profile,
        )

    def split_as(self, other: Plan | LookupPlan) -> Self:
        """Return this plan with the windows of `other`."""
        windows = other.windows if isinstance(other, Plan) else self.windows
        return msgspec.structs.replace(self, windows=windows)

    def encode(self) -> bytes:
        """Return what `parse_plan` reads."""
        return msgspec.json.encode(self)


class LookupPlan(Struct, frozen=True, tag="lookups", tag_field="kind"):
    """Which keys are looked up.

    Attributes:
        account, host: whose people, and where they were asked for.
        by: "identity", "email" or "object_id".
        keys: how many keys the source has; None while it is being read.
        digest: what tells them from others.
    """

    account: str
    host: str
    by: str
    keys: int | None = None
    digest: str | None = None

    def with_keys_of(self, other: LookupPlan) -> Self:
        """Return this plan with the keys of `other`."""
        return msgspec.structs.replace(self, keys=other.keys, digest=other.digest)

    def encode(self) -> bytes:
        """Return what `parse_plan` reads."""
        return msgspec.json.encode(self)


_PLAN: msgspec.json.Decoder[Plan | LookupPlan] = msgspec.json.Decoder(Plan | LookupPlan)


def parse_plan(data: bytes) -> Plan | LookupPlan:
    """Return the plan that was encoded.

    Raises:
        msgspec.DecodeError: `data` is none.
    """
    return _PLAN.decode(data)


def plan_events(
    events: str | Sequence[str],
    *,
    account: str,
    host: str,
    slots: int,
    start: Day,
    end: Day,
    windows: object,
    batch_size: int,
    app: bool,
    event_summaries: bool,
    profile: bool,
) -> Plan:
    """Return the plan of these arguments of `Session.export`.

    Args:
        slots: with "auto", the windows are as many as it takes for so many chains.

    Raises:
        ConfigurationError: an argument is wrong.
    """
    names = _check_events(events)
    if windows == "auto":
        windows = -(-slots // len(names))
    elif isinstance(windows, str):
        raise ConfigurationError(
            f"windows: expected 'auto' or a whole number of at least 1, got {windows!r}"
        )
    queries = [
        EventQuery.of(
            name,
            start,
            end,
            batch_size=batch_size,
            app=app,
            summaries=check_flag("event_summaries", event_summaries),
            profile=profile,
        )
        for name in names
    ]
    query = queries[0]
    return Plan(
        account=account,
        host=host,
        events=names,
        start=query.start,
        end=query.end,
        app=query.app,
        event_summaries=query.summaries,
        profile=query.profile,
        # Never more than there are days.
        windows=len(query.split(check_whole("windows", windows, least=1))),
        batch_size=query.batch_size,
    )


def _check_events(events: object) -> tuple[str, ...]:
    """Return the names, at least one and each once.

    Raises:
        ConfigurationError: `events` is anything else than a name or several.
    """
    if isinstance(events, str):
        return (str.__str__(events),)
    if not isinstance(events, Sequence) or isinstance(events, bytes) or not events:
        raise ConfigurationError(
            f"events: expected the name of an event, or a list of names, got {events!r}"
        )
    for name in events:
        if not isinstance(name, str):
            raise ConfigurationError(f"events: expected names as text, got {name!r}")
        if events.count(name) > 1:
            raise ConfigurationError(f"events: {name!r} is in it twice; leave one of them out")
    # Of a subclass, such as NumPy's, the plain text.
    return tuple(map(str.__str__, events))


# What decides how people are delivered, and not which: a resumed export may change it.
_FREE = frozenset({"batch_size"})


def check_same(begun: Plan | LookupPlan, now: Plan | LookupPlan, where: str) -> None:
    """Raise `PlanMismatch` unless what was begun in `where` is what is wanted now."""
    differences = _differences(begun, now)
    if not differences:
        return
    shown = "; ".join(
        "the keys are others" if name == "digest" else f"`{name}` was {was!r} and is now {now!r}"
        for name, (was, now) in differences.items()
    )
    raise PlanMismatch(
        f"{where} holds another export, begun and not finished: {shown}. Finish that one with its "
        f"own arguments, discard it with `resume=False`, or choose another `to` or `spool`",
        differences=differences,
    )


def _differences(begun: Plan | LookupPlan, now: Plan | LookupPlan) -> Mapping[str, tuple[Any, Any]]:
    if type(begun) is not type(now):
        return {"kind": (begun.__struct_config__.tag, now.__struct_config__.tag)}
    fields = [name for name in begun.__struct_fields__ if name not in _FREE]
    pairs = {name: (getattr(begun, name), getattr(now, name)) for name in fields}
    return {name: (was, is_now) for name, (was, is_now) in pairs.items() if was != is_now}
