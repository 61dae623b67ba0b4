"""The chains or keys of an export, and how a resumed run recognises them. No I/O."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
from msgspec import Struct

from ..base.checks import check_flag, check_whole, shown, shown_setting
from ..base.wording import numbered
from ..errors import InvalidArgument, PlanMismatch
from ..flow.fanout import is_table
from ..wire.days import Day, last_to_come
from ..wire.language import Filters
from ..wire.members import shown_key
from ..wire.query import BATCH_SIZE, EventQuery, check_event, is_everyone

if TYPE_CHECKING:
    from ..http.service import Service

__all__ = [
    "DISCARD",
    "IDENTITY",
    "EventsPlan",
    "KeysPlan",
    "Plan",
    "check_events",
    "check_same",
    "difference_in_words",
    "in_words",
    "parse_plan",
]

DISCARD = "`resume=False`"
"""The advice to discard an export, for callers of a function that has this argument."""

IDENTITY = "identity"
"""The key of a join that is a member of the record itself, and not one of its properties."""


class EventsPlan(Struct, frozen=True, tag="events", tag_field="kind"):
    """The chains of an export of events, in the order in which their people count.

    Attributes:
        account, host: the account, and the base URL it was asked at.
        events: the names; None for everyone.
        start, end: the range as it is sent, inclusive; None for everyone.
        app, event_summaries, profile: the parts of a record that are asked for.
        windows: the number of parts that the range is split into.
        batch_size: people per page of the chains that this run opens. It may change between runs:
            an open chain keeps its own.
        filters: conditions that all people meet.
        with_cdp: whether people are joined with their CDP users.
        cdp_key, cdp_by: the property they are joined by, and the kind of key it is at Alta.
        cdp_account, cdp_host: Alta's account and base URL; None without a join.
    """

    account: str
    host: str
    events: tuple[str, ...] | None
    start: int | None
    end: int | None
    app: bool
    event_summaries: bool
    profile: bool
    windows: int
    batch_size: int = BATCH_SIZE
    filters: Filters = Filters()
    with_cdp: bool = False
    cdp_key: str = IDENTITY
    cdp_by: str = "user_id"
    cdp_account: str | None = None
    cdp_host: str | None = None

    @classmethod
    def of(
        cls,
        service: Service,
        events: str | Sequence[str] | None,
        *,
        start: Day | None,
        end: Day | None,
        filters: Filters,
        windows: object,
        batch_size: int,
        app: bool,
        event_summaries: bool,
        profile: bool,
    ) -> EventsPlan:
        """Return the plan of these arguments of `Session.export`.

        With `windows="auto"` there are as many chains as it takes to fill the service's slots, and
        one for everyone.

        Raises:
            ConfigurationError: an argument cannot work.
        """
        names = None if is_everyone("events", events, start, end) else check_events(events)
        summaries = check_flag("event_summaries", event_summaries)
        query, *_ = [
            EventQuery.of(name, start, end, batch_size, app, summaries, profile, filters)
            for name in names or (None,)
        ]
        if isinstance(windows, str):
            if windows != "auto":
                raise InvalidArgument(
                    f"windows: expected 'auto' or a whole number of at least 1, got "
                    f"{shown_setting(windows)}"
                )
            windows = 1 if names is None else -(-service.cap("get_page").limit // len(names))
        parts = check_whole("windows", windows, least=1)
        if parts > 1 and names is None:
            raise InvalidArgument(
                f"windows: everyone is one chain, got {parts}; leave windows at 'auto'"
            )
        return cls(
            service.account,
            service.url,
            names,
            query.start,
            query.end,
            query.app,
            query.summaries,
            query.profile,
            # Never more than there are days.
            len(query.split(parts)),
            query.batch_size,
            filters,
        )

    @property
    def wholes(self) -> list[EventQuery]:
        """The query of each event for the whole range; or the one for everyone."""
        whole = EventQuery(
            None,
            self.start,
            self.end,
            self.batch_size,
            self.app,
            self.event_summaries,
            self.profile,
            self.filters,
        )
        return [msgspec.structs.replace(whole, event=event) for event in self.events or (None,)]

    @property
    def queries(self) -> list[EventQuery]:
        """The query of each chain: event by event, and within an event window by window."""
        return [query for whole in self.wholes for query in whole.split(self.windows)]

    @property
    def family(self) -> str:
        """The part of `name` that plans share if they differ in windows only."""
        return _name(self)

    @property
    def name(self) -> str:
        """The name of the folder in which the plan is gathered."""
        return f"{self.family}-{self.windows}"

    @property
    def subject(self) -> str:
        """The plan in words, without values of filters, which may be people's data."""
        events = "everyone" if self.events is None else ", ".join(map(repr, self.events))
        days = "" if self.start is None else f" from {self.start} to {self.end}"
        filtered = ", filtered" if self.filters else ""
        return f"the export of {events}{days}{filtered}{_joined(self)}"

    def to_come(self, today: date) -> str | None:
        """Return a sentence on a last day that is after `today`, or None if there is none."""
        if self.end is None:
            return None
        to_come = last_to_come(self.end, today)
        return to_come and f"{to_come}; nobody of days to come is in the output"

    def encode(self) -> bytes:
        """Return the bytes that `parse_plan` reads."""
        return msgspec.json.encode(self)

    def as_builtins(self) -> dict[str, Any]:
        """Return the plan as JSON values, with an outline and a digest in place of the filters.

        Manifests are passed on, and values of filters may be people's data.
        """
        values: dict[str, Any] = msgspec.to_builtins(self)
        digest = self.filters.digest if self.filters else None
        return values | {"filters": self.filters.outline, "filters_sha256": digest}


class KeysPlan(Struct, frozen=True, tag="lookups", tag_field="kind"):
    """The keys of a bulk lookup.

    Attributes:
        account, host: the account, and the base URL it was asked at.
        by: the kind of key.
        keys: number of keys in the source; None while the source is being read.
        digest: SHA-256 of the keys; None while the source is being read.
        with_cdp, cdp_key, cdp_by, cdp_account, cdp_host: as in `EventsPlan`.
    """

    account: str
    host: str
    by: str
    keys: int | None = None
    digest: str | None = None
    with_cdp: bool = False
    cdp_key: str = IDENTITY
    cdp_by: str = "user_id"
    cdp_account: str | None = None
    cdp_host: str | None = None

    @property
    def name(self) -> str | None:
        """The name of the folder in which the plan is gathered; None while keys are read."""
        return None if self.digest is None else _name(self)

    @property
    def subject(self) -> str:
        """The plan in words, without the keys, which are people's data."""
        return f"the lookup of {numbered(self.keys or 0, 'key')} by {self.by}{_joined(self)}"

    def encode(self) -> bytes:
        """Return the bytes that `parse_plan` reads."""
        return msgspec.json.encode(self)

    def as_builtins(self) -> dict[str, Any]:
        """Return the plan as JSON values."""
        values: dict[str, Any] = msgspec.to_builtins(self)
        return values


Plan: TypeAlias = EventsPlan | KeysPlan


def _joined(plan: Plan) -> str:
    return f", joined with CDP users by {plan.cdp_key}" if plan.with_cdp else ""


_PLAN: msgspec.json.Decoder[Plan] = msgspec.json.Decoder(Plan)


def parse_plan(data: bytes) -> Plan:
    """Return the plan that was encoded as `data`.

    Raises:
        msgspec.DecodeError: `data` is not a plan.
    """
    return _PLAN.decode(data)


def check_events(events: object) -> tuple[str, ...]:
    """Return the names, at least one and each once.

    Raises:
        ConfigurationError: `events` is neither a name nor a list of different names.
    """
    if isinstance(events, str):
        return (check_event(events, "events"),)
    if not isinstance(events, Sequence) or isinstance(events, bytes) or not events:
        raise InvalidArgument(
            f"events: expected the name of an event, or a list of names, got {shown(events)}"
            f"{_as_list(events)}"
        )
    for index, name in enumerate(events):
        check_event(name, f"events[{index}]" if len(events) > 1 else "events")
        if events.count(name) > 1:
            raise InvalidArgument(f"events: {shown(name)} is in it twice; leave one of them out")
    # Plain text, of subclasses such as NumPy's as well.
    return tuple(map(str.__str__, events))


def _as_list(events: object) -> str:
    """Return the advice on several names that are no list."""
    if isinstance(events, Sequence) or not isinstance(events, Iterable):
        return ""
    if is_table(events):
        return "; pass list(…) of its column of names"
    # The order of a set differs between processes, and people count for the first of the events.
    return f"; pass {'sorted' if isinstance(events, set | frozenset) else 'list'}(events)"


# Fields that decide how people are delivered, not which: a resumed export may change them.
_FREE = frozenset({"batch_size"})

_OF_FILTERS = frozenset({"event_properties", "profile_fields", "query"})


def _name(plan: Plan) -> str:
    """Return the kind of `plan`, and a digest of every field but the free ones and `windows`."""
    fields: dict[str, Any] = {}
    for field in msgspec.structs.fields(plan):
        value = getattr(plan, field.name)
        if isinstance(value, Filters):
            value = value.digest if value else field.default
        # A default is left out, so that a field that a later version adds leaves names as they are.
        if field.name not in _FREE | {"windows"} and value != field.default:
            fields[field.name] = value
    data = json.dumps(fields, sort_keys=True).encode()
    return f"{plan.__struct_config__.tag}-{hashlib.sha256(data).hexdigest()[:16]}"


def check_same(begun: Plan, now: Plan, where: str) -> None:
    """Raise `PlanMismatch` unless `begun`, the plan in the folder `where`, is the plan `now`.

    Each plan has a folder of its own, so that only one that was renamed can hold another.
    """
    differences = _differences(begun, now)
    if not differences:
        return
    parts = _in_words(differences)
    hidden = (
        f". The values of filters are not shown here: `differences` has them, and the journal in "
        f"{where} has the earlier ones"
    )
    raise PlanMismatch(
        f"{where} has the name of this export, but holds another one, which is unfinished: "
        f"{parts}. Give it its own name again, discard it with {DISCARD}, or choose another "
        f"`to` or `spool`{hidden if _OF_FILTERS.intersection(differences) else ''}",
        differences=differences,
    )


def difference_in_words(begun: Plan, now: Plan) -> str:
    """Return the difference of two plans in words; empty between an export and a lookup."""
    if type(begun) is not type(now):
        return ""
    return _in_words(_differences(begun, now))


def _in_words(differences: Mapping[str, tuple[Any, Any]]) -> str:
    return "; ".join(in_words(name, *values) for name, values in differences.items())


def _differences(begun: Plan, now: Plan) -> Mapping[str, tuple[Any, Any]]:
    if type(begun) is not type(now):
        return {"kind": (begun.__struct_config__.tag, now.__struct_config__.tag)}
    differences: dict[str, tuple[Any, Any]] = {}
    for name in begun.__struct_fields__:
        was, is_now = getattr(begun, name), getattr(now, name)
        if isinstance(was, Filters):
            differences |= was.differences(is_now)
        elif name not in _FREE and was != is_now:
            differences[name] = was, is_now
    if "with_cdp" in differences:
        # They say no more than that, or are left out together with it.
        for name in ("cdp_key", "cdp_by", "cdp_account", "cdp_host"):
            differences.pop(name, None)
    return differences


def in_words(name: str, was: Any, is_now: Any) -> str:
    """Return a difference in words, without values of filters, which may be people's data."""
    match name:
        case "digest":
            return "the keys are different"
        case "event_properties" | "profile_fields":
            outlines = _outline(was), _outline(is_now)
            if outlines[0] == outlines[1]:
                return f"`{name}` has other values: {outlines[0]}"
            return f"`{name}` was {outlines[0]} and is now {outlines[1]}"
        case "query":
            return f"`query` is different in {' and '.join(_changed(was, is_now))}"
        case _:
            return f"`{name}` was {was!r} and is now {is_now!r}"


def _changed(was: dict[str, Any], is_now: dict[str, Any]) -> list[str]:
    """Return the members that differ between two queries, those inside of one as `outer.inner`."""
    names: list[str] = []
    for name in sorted(was.keys() | is_now.keys()):
        match was.get(name), is_now.get(name):
            case dict(one), dict(other):
                names += [f"{shown_key(name)}.{inner}" for inner in _changed(one, other)]
            case one, other if one != other:
                names.append(shown_key(name))
    return names


def _outline(filters: list[dict[str, Any]]) -> str:
    return ", ".join(f"{item['name']!r} {item['operator']} …" for item in filters) or "left out"
