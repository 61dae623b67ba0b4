"""The filters of a query, in CleverTap's query language. Pure functions.

Sources:
    [cql] "CleverTap Query Language",
        https://developer.clevertap.com/docs/clevertap-query-language
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import force_setattr

from ..errors import InvalidArgument
from .filters import Filter
from .members import (
    COMMON,
    FIELDS,
    PROPERTIES,
    SESSION,
    canonical,
    check_query,
    encoded,
    outline,
)

__all__ = ["Filters"]


class Filters(Struct, frozen=True, eq=False):
    """All filters of one query ([cql]), made with `of`. Equal ones match the same people.

    Members without a condition, such as an empty list, make no difference; nor does `100.0` for
    `100`.

    Attributes:
        body: JSON text of the members that they add to the body of a query; "{}" for none.
        in_query: the lists that the argument `query` held, even empty ones: `event_properties` and
            `profile_fields`, which arguments of these names hold otherwise, and
            `session_properties`.
    """

    body: str = "{}"
    in_query: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        event_properties: object = (),
        profile_fields: object = (),
        query: object = None,
    ) -> Filters:
        """Return the filters made of these arguments of `by_event`, copied.

        Raises:
            ConfigurationError: an argument cannot work.

        >>> gold = Filters.of(profile_fields=[Filter("Customer Type", "equals", "Gold")])
        >>> EventQuery.of("Charged", 20260101, 20260131, filters=gold).subject
        "'Charged' (filtered)"
        """
        members = check_query(query)
        in_query = [name for name in (PROPERTIES, SESSION) if name in members]
        if FIELDS in members.get(COMMON, {}):
            in_query.append(FIELDS)
        if properties := _check_filters(PROPERTIES, event_properties):
            _check_absent(members, PROPERTIES, "query")
            members[PROPERTIES] = properties
        if fields := _check_filters(FIELDS, profile_fields):
            common = members.setdefault(COMMON, {})
            _check_absent(common, FIELDS, f"query.{COMMON}")
            common[FIELDS] = fields
        return cls(encoded(members), tuple(in_query))

    def __post_init__(self) -> None:
        if self.body != "{}":
            # A plan of an earlier version may hold another form of the same filters.
            force_setattr(self, "body", encoded(canonical(self.members)))

    def __eq__(self, other: object) -> bool:
        return self.body == other.body if isinstance(other, Filters) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.body)

    def __repr__(self) -> str:
        # Tracebacks with locals show it, and values may be people's data.
        return "Filters(…)" if self else "Filters()"

    def __bool__(self) -> bool:
        return self.body != "{}"

    @property
    def members(self) -> dict[str, Any]:
        """The members that the filters add to the body of a query ([cql])."""
        members: dict[str, Any] = msgspec.json.decode(self.body)
        return members

    def check_for_everyone(self) -> None:
        """Raise `ConfigurationError` if a filter is about an event.

        Filters of events and sessions apply to the base query ([cql], Query Language Template).
        """
        for key in (PROPERTIES, SESSION):
            if key in self.members or key in self.in_query:
                name = key if key == PROPERTIES else f"query.{key}"
                raise InvalidArgument(
                    f"{name}: it filters an event, and everyone is asked for without one; use "
                    f"`profile_fields`, or pass an event with `start` and `end`"
                )

    @property
    def outline(self) -> dict[str, Any]:
        """The members with "…" for each value, because values may be people's data."""
        hidden: dict[str, Any] = outline(self.members)
        return hidden

    @property
    def digest(self) -> str:
        """SHA-256 of the filters, in whatever order they are given; it hides no short value."""
        text = encoded([*self._lists().values(), self._rest()])
        return hashlib.sha256(text.encode()).hexdigest()

    def differences(self, other: Filters) -> dict[str, tuple[Any, Any]]:
        """Return each argument that differs, by name, with its value here and in `other`.

        The order of filters makes no difference, because all of them must hold.
        """
        ours, others = self._lists(), other._lists()
        changed = frozenset(name for name in ours if encoded(ours[name]) != encoded(others[name]))
        was, is_now = self._arguments(changed), other._arguments(changed)
        return {
            name: (was[name], is_now[name])
            for name in was
            if encoded(was[name]) != encoded(is_now[name])
        }

    def _lists(self) -> dict[str, list[Any]]:
        members = self.members
        return {
            PROPERTIES: _in_order(members.get(PROPERTIES, [])),
            FIELDS: _in_order(members.get(COMMON, {}).get(FIELDS, [])),
        }

    def _rest(self) -> dict[str, Any]:
        rest = self.members
        rest.pop(PROPERTIES, None)
        rest.get(COMMON, {}).pop(FIELDS, None)
        if not rest.get(COMMON, True):
            del rest[COMMON]
        return rest

    def _arguments(self, lists: frozenset[str]) -> dict[str, Any]:
        """Return the arguments that made the filters, with only those of `lists` of both lists."""
        arguments: dict[str, Any] = {PROPERTIES: [], FIELDS: [], "query": self._rest()}
        for name, filters in self._lists().items():
            if name not in lists or not filters:
                continue
            if name not in self.in_query:
                arguments[name] = filters
            elif name == PROPERTIES:
                arguments["query"][name] = filters
            else:
                arguments["query"].setdefault(COMMON, {})[name] = filters
        return arguments


def _in_order(filters: list[Any]) -> list[Any]:
    return [msgspec.json.decode(text) for text in sorted({encoded(item) for item in filters})]


def _check_filters(name: str, filters: object) -> list[dict[str, Any]]:
    if isinstance(filters, str | bytes | Filter) or not isinstance(filters, Sequence):
        raise InvalidArgument(
            f"{name}: expected a list of filters, got a value of type {type(filters).__name__}; "
            f"write [Filter('Amount', 'greater_than', 100)]",
            value=filters,
        )
    for number, item in enumerate(filters):
        if not isinstance(item, Filter):
            raise InvalidArgument(
                f"{name}[{number}]: expected a Filter, got a value of type {type(item).__name__}; "
                f"write Filter('Amount', 'greater_than', 100)",
                value=item,
            )
    return [_member(item) for item in filters]


def _member(item: Filter) -> dict[str, Any]:
    member: dict[str, Any] = {"name": item.name, "operator": item.operator}
    return member if item.value is None else member | {"value": item.value}


def _check_absent(members: Mapping[str, Any], key: str, place: str) -> None:
    if key in members:
        raise InvalidArgument(
            f"{place}: holds {key!r}, and the argument `{key}` is given as well; pass it in one "
            f"place"
        )
