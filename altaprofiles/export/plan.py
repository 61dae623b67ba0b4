"""The chains or keys of an export, and how a resumed run recognises them. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import msgspec
from msgspec import Struct

from ..base.checks import check_flag, check_whole
from ..errors import ConfigurationError, PlanMismatch
from ..wire.query import BATCH_SIZE, Day, EventQuery

if TYPE_CHECKING:
    from ..http.service import Service

__all__ = ["EventsPlan", "KeysPlan", "Plan", "check_same", "parse_plan"]


class EventsPlan(Struct, frozen=True, tag="events", tag_field="kind"):
    """The chains of an export of events, in the order in which their people count.

    Attributes:
        account, host: the account, and the base URL it was asked at.
        events: the names.
        start, end: the range as it is sent, inclusive.
        app, event_summaries, profile: the parts of a record that are asked for.
        windows: the number of parts that the range is split into.
        batch_size: people per page. It may change between runs: an open chain keeps its own.
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

    @classmethod
    def of(
        cls,
        service: Service,
        events: str | Sequence[str],
        *,
        start: Day,
        end: Day,
        windows: object,
        batch_size: int,
        app: bool,
        event_summaries: bool,
        profile: bool,
    ) -> EventsPlan:
        """Return the plan of these arguments of `Session.export`.

        With `windows="auto"` there are as many chains as it takes to fill the service's slots.

        Raises:
            ConfigurationError: an argument cannot work.
        """
        names = _check_events(events)
        check_flag("event_summaries", event_summaries)
        query, *_ = [
            EventQuery.of(name, start, end, batch_size, app, event_summaries, profile)
            for name in names
        ]
        if windows == "auto":
            windows = -(-service.cap("get_page").limit // len(names))
        elif isinstance(windows, str):
            raise ConfigurationError(
                f"windows: expected 'auto' or a whole number of at least 1, got {windows!r}"
            )
        # Never more than there are days.
        parts = len(query.split(check_whole("windows", windows, least=1)))
        return cls(
            service.account,
            service.url,
            names,
            query.start,
            query.end,
            query.app,
            query.summaries,
            query.profile,
            parts,
            query.batch_size,
        )

    @property
    def queries(self) -> list[EventQuery]:
        """The query of each chain: event by event, and within an event window by window."""
        return [query for event in self.events for query in self.query(event).split(self.windows)]

    def query(self, event: str) -> EventQuery:
        """Return the query for everyone who did `event` in the whole range."""
        return EventQuery(
            event,
            self.start,
            self.end,
            self.batch_size,
            self.app,
            self.event_summaries,
            self.profile,
        )

    def split_as(self, other: Plan) -> Self:
        """Return this plan with the windows of `other`."""
        parts = other.windows if isinstance(other, EventsPlan) else self.windows
        return msgspec.structs.replace(self, windows=parts)

    def encode(self) -> bytes:
        """Return the bytes that `parse_plan` reads."""
        return msgspec.json.encode(self)


class KeysPlan(Struct, frozen=True, tag="lookups", tag_field="kind"):
    """The keys of a bulk lookup.

    Attributes:
        account, host: the account, and the base URL it was asked at.
        by: the kind of key.
        keys: number of keys in the source; None while the source is being read.
        digest: SHA-256 of the keys; None while the source is being read.
    """

    account: str
    host: str
    by: str
    keys: int | None = None
    digest: str | None = None

    def with_keys_of(self, other: KeysPlan) -> Self:
        """Return this plan with the keys of `other`."""
        return msgspec.structs.replace(self, keys=other.keys, digest=other.digest)

    def encode(self) -> bytes:
        """Return the bytes that `parse_plan` reads."""
        return msgspec.json.encode(self)


Plan: TypeAlias = EventsPlan | KeysPlan

_PLAN: msgspec.json.Decoder[Plan] = msgspec.json.Decoder(Plan)


def parse_plan(data: bytes) -> Plan:
    """Return the plan that was encoded as `data`.

    Raises:
        msgspec.DecodeError: `data` is not a plan.
    """
    return _PLAN.decode(data)


def _check_events(events: object) -> tuple[str, ...]:
    """Return the names, at least one and each once.

    Raises:
        ConfigurationError: `events` is neither a name nor a list of different names.
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
    # Plain text, of subclasses such as NumPy's as well.
    return tuple(map(str.__str__, events))


# Fields that decide how people are delivered, not which: a resumed export may change them.
_FREE = frozenset({"batch_size"})


def check_same(begun: Plan, now: Plan, where: str) -> None:
    """Raise `PlanMismatch` unless `begun`, the plan in the folder `where`, is the plan `now`."""
    differences = _differences(begun, now)
    if not differences:
        return
    parts = "; ".join(
        "the keys are different"
        if name == "digest"
        else f"`{name}` was {was!r} and is now {is_now!r}"
        for name, (was, is_now) in differences.items()
    )
    raise PlanMismatch(
        f"{where} holds another export, which is unfinished: {parts}. Finish that export with its "
        f"own arguments, discard it with `resume=False`, or choose another `to` or `spool`",
        differences=differences,
    )


def _differences(begun: Plan, now: Plan) -> Mapping[str, tuple[Any, Any]]:
    if type(begun) is not type(now):
        return {"kind": (begun.__struct_config__.tag, now.__struct_config__.tag)}
    fields = [name for name in begun.__struct_fields__ if name not in _FREE]
    pairs = {name: (getattr(begun, name), getattr(now, name)) for name in fields}
    return {name: (was, is_now) for name, (was, is_now) in pairs.items() if was != is_now}
