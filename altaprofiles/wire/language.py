"""The filters of a query, in CleverTap's query language. Pure functions.

Sources:
    [cql] "CleverTap Query Language",
        https://developer.clevertap.com/docs/clevertap-query-language
    [seen] public clients, captures and tests
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import msgspec
from msgspec import Struct

from ..base.checks import form_of, is_unicode
from ..errors import ConfigurationError
from .filters import (
    OF_EXISTENCE,
    Filter,
    check_name,
    check_operator,
    check_scalar,
    check_value,
)

__all__ = ["Filters"]

_PROPERTIES = "event_properties"
_SESSION = "session_properties"
_COMMON = "common_profile_properties"
_ADVANCED = "advanced_query"
_FIELDS = "profile_fields"
_MEMBERS = (_PROPERTIES, _SESSION, _COMMON, _ADVANCED)
_COMMON_MEMBERS = (_FIELDS, "demographics", "geo_fields", "technographics")
_ADVANCED_MEMBERS = ("did_all", "did_any", "did_not_all", "did_not_any")
_EVENT_MEMBERS = ("event_name", "from", "to", _PROPERTIES, _SESSION)
_FILTER_MEMBERS = ("name", "operator", "value")
_IN_CLEAR = frozenset({"event_name", "from", "to", "name", "operator"})
_MASKED = frozenset({"value", "demographics", "geo_fields", "technographics"})
_BASE: Mapping[str, str] = {"event_name": "the event", "from": "`start`", "to": "`end`"}

_DEEPEST = 30


class Filters(Struct, frozen=True, eq=False):
    """All filters of one query ([cql]). Equal ones match the same people.

    Attributes:
        body: JSON text of the members that they add to the body of a query; "{}" for none.
        in_query: the lists that the argument `query` held, of `event_properties` and
            `profile_fields`. Otherwise arguments of these names held them.
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
        """
        members = _check_query(query)
        in_query = [_PROPERTIES] if _PROPERTIES in members else []
        if _FIELDS in members.get(_COMMON, {}):
            in_query.append(_FIELDS)
        if properties := _check_filters(_PROPERTIES, event_properties):
            _check_absent(members, _PROPERTIES, "query")
            members[_PROPERTIES] = properties
        if fields := _check_filters(_FIELDS, profile_fields):
            common = members.setdefault(_COMMON, {})
            _check_absent(common, _FIELDS, f"query.{_COMMON}")
            common[_FIELDS] = fields
        return cls(_encode(members), tuple(in_query))

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
        for key in (_PROPERTIES, _SESSION):
            if key in self.members:
                name = key if key == _PROPERTIES else f"query.{key}"
                raise ConfigurationError(
                    f"{name}: it filters an event, and everyone is asked for without one; use "
                    f"`profile_fields`, or pass an event with `start` and `end`"
                )

    @property
    def outline(self) -> dict[str, Any]:
        """The members with "…" for each value, because values may be people's data."""
        outline: dict[str, Any] = _masked(self.members)
        return outline

    @property
    def digest(self) -> str:
        """SHA-256 of the filters, in whatever order they are given; it hides no short value."""
        text = _encode([*self._lists().values(), self._rest()])
        return hashlib.sha256(text.encode()).hexdigest()

    def differences(self, other: Filters) -> dict[str, tuple[Any, Any]]:
        """Return each argument that differs, by name, with its value here and in `other`.

        The order of filters makes no difference, because all of them must hold.
        """
        ours, others = self._lists(), other._lists()
        changed = frozenset(name for name in ours if _encode(ours[name]) != _encode(others[name]))
        was, is_now = self._arguments(changed), other._arguments(changed)
        return {
            name: (was[name], is_now[name])
            for name in was
            if _encode(was[name]) != _encode(is_now[name])
        }

    def _lists(self) -> dict[str, list[Any]]:
        members = self.members
        return {
            _PROPERTIES: _in_order(members.get(_PROPERTIES, [])),
            _FIELDS: _in_order(members.get(_COMMON, {}).get(_FIELDS, [])),
        }

    def _rest(self) -> dict[str, Any]:
        rest = self.members
        rest.pop(_PROPERTIES, None)
        rest.get(_COMMON, {}).pop(_FIELDS, None)
        if not rest.get(_COMMON, True):
            del rest[_COMMON]
        return rest

    def _arguments(self, lists: frozenset[str]) -> dict[str, Any]:
        """Return the arguments that made the filters, with only those of `lists` of both lists."""
        arguments: dict[str, Any] = {_PROPERTIES: [], _FIELDS: [], "query": self._rest()}
        for name, filters in self._lists().items():
            if name not in lists or not filters:
                continue
            if name not in self.in_query:
                arguments[name] = filters
            elif name == _PROPERTIES:
                arguments["query"][name] = filters
            else:
                arguments["query"].setdefault(_COMMON, {})[name] = filters
        return arguments


def _masked(value: Any, in_clear: frozenset[str] = _IN_CLEAR) -> Any:
    if isinstance(value, dict):
        return {
            key: item
            if key in in_clear
            else _masked(item, frozenset() if key in _MASKED else in_clear)
            for key, item in value.items()
        }
    return [_masked(item, in_clear) for item in value] if isinstance(value, list) else "…"


def _in_order(filters: list[Any]) -> list[Any]:
    return [msgspec.json.decode(text) for text in sorted({_encode(item) for item in filters})]


def _encode(value: object) -> str:
    # In one order of keys, so that equal filters are equal text.
    return msgspec.json.encode(value, order="deterministic").decode()


def _check_filters(name: str, filters: object) -> list[dict[str, Any]]:
    if isinstance(filters, str | bytes | Filter) or not isinstance(filters, Sequence):
        raise ConfigurationError(
            f"{name}: expected a list of filters, got a value of type {type(filters).__name__}; "
            f"write [Filter('Amount', 'greater_than', 100)]",
            value=filters,
        )
    for number, item in enumerate(filters):
        if not isinstance(item, Filter):
            raise ConfigurationError(
                f"{name}[{number}]: expected a Filter, got a value of type {type(item).__name__}; "
                f"write Filter('Amount', 'greater_than', 100)",
                value=item,
            )
    return [_member(item) for item in filters]


def _member(item: Filter) -> dict[str, Any]:
    member: dict[str, Any] = {"name": item.name, "operator": item.operator}
    return member if item.value is None else member | {"value": item.value}


# ------------------------------------------------------------------------------------ query={…}


def _check_query(query: object) -> dict[str, Any]:
    """Return a copy of `query` with the documented spellings ([cql])."""
    if query is None:
        return {}
    if not isinstance(query, Mapping):
        raise ConfigurationError(
            f"query: expected a dict of the query language, got a value of type "
            f"{type(query).__name__}; write {{'advanced_query': {{…}}}}",
            value=query,
        )
    members: dict[str, Any] = _copied("query", query)
    for key, source in _BASE.items():
        if key in members:
            raise ConfigurationError(f"query: `{key}` is set by {source} of the call; leave it out")
    _check_known("query", members, _MEMBERS)
    _check_event_filters("query", members)
    if _COMMON in members:
        place = f"query.{_COMMON}"
        common = _check_mapping(place, members[_COMMON])
        _check_known(place, common, _COMMON_MEMBERS)
        if _FIELDS in common:
            common[_FIELDS] = _check_list(f"{place}.{_FIELDS}", common[_FIELDS], _check_member)
    if _ADVANCED in members:
        place = f"query.{_ADVANCED}"
        advanced = _check_mapping(place, members[_ADVANCED])
        _check_known(place, advanced, _ADVANCED_MEMBERS)
        for key, events in advanced.items():
            advanced[key] = _check_list(f"{place}.{key}", events, _check_event)
    return members


def _check_event_filters(place: str, members: dict[str, Any]) -> None:
    for key, check in ((_PROPERTIES, _check_member), (_SESSION, _check_session)):
        if key in members:
            members[key] = _check_list(f"{place}.{key}", members[key], check)


def _check_member(place: str, value: object) -> dict[str, Any]:
    member = _check_mapping(place, value)
    _check_known(place, member, _FILTER_MEMBERS)
    name = check_name(f"{place}.name", member.get("name"))
    operator = check_operator(f"{place}.operator", member.get("operator"))
    checked = member | {"name": name, "operator": operator}
    # The vendor's own script sends a value with `exists` ([seen]).
    if operator not in OF_EXISTENCE:
        subject = f"{operator} of {name!r}"
        checked["value"] = check_value(f"{place}.value", subject, operator, member.get("value"))
    return checked


def _check_session(place: str, value: object) -> dict[str, Any]:
    # Some of these have no operator, and values of forms of their own ([cql]).
    member = _check_mapping(place, value)
    _check_spelling(place, member, _FILTER_MEMBERS)
    checked = member | {"name": check_name(f"{place}.name", member.get("name"))}
    if "operator" in member:
        checked["operator"] = check_operator(f"{place}.operator", member["operator"])
    return checked


def _check_event(place: str, value: object) -> dict[str, Any]:
    event = _check_mapping(place, value)
    _check_spelling(place, event, _EVENT_MEMBERS)
    check_name(f"{place}.event_name", event.get("event_name"))
    for key in ("from", "to"):
        day = event.get(key, 0)
        if isinstance(day, bool) or not isinstance(day, int):
            raise ConfigurationError(
                f"{place}.{key}: expected a day as the number YYYYMMDD, such as 20260131, got "
                f"{_encode(day)}"
            )
    _check_event_filters(place, event)
    return event


def _check_mapping(place: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigurationError(f"{place}: expected an object, got {form_of(value)}", value=value)
    return value


def _check_list(
    place: str, value: object, check: Callable[[str, object], dict[str, Any]]
) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        raise ConfigurationError(
            f"{place}: expected a list of objects, got {form_of(value)}", value=value
        )
    return [check(f"{place}[{number}]", item) for number, item in enumerate(value)]


def _check_known(place: str, members: Mapping[str, Any], known: Sequence[str]) -> None:
    for key in members:
        if key not in known:
            meant = _meant(key, known)
            guess = "" if meant is None else f"; did you mean {meant}?"
            raise ConfigurationError(
                f"{place}: unknown member {key!r}; known are {', '.join(known)}{guess}"
            )


def _check_spelling(place: str, members: Mapping[str, Any], known: Sequence[str]) -> None:
    """Refuse misspelled members where the page need not name all that there are ([cql])."""
    for key in members:
        if key not in known and _meant(key, known) is not None:
            _check_known(place, {key: None}, known)


def _meant(key: str, known: Sequence[str]) -> str | None:
    return next(iter(get_close_matches(key.lower(), known, 1)), None)


def _check_absent(members: Mapping[str, Any], key: str, place: str) -> None:
    if key in members:
        raise ConfigurationError(
            f"{place}: holds {key!r}, and the argument `{key}` is given as well; pass it in one "
            f"place"
        )


def _copied(place: str, value: object, levels: int = _DEEPEST) -> Any:
    """Return a copy of `value`, which must be plain JSON, in dicts and lists."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str | int | float):
        return check_scalar(place, "it", value)
    if levels == 0:
        root, _, _ = place.partition(".")
        raise ConfigurationError(
            f"{root}: nested in more than {_DEEPEST} levels; does it hold itself?"
        )
    if isinstance(value, Mapping):
        copy: dict[str, Any] = {}
        for key, item in value.items():
            if not isinstance(key, str) or not is_unicode(key):
                raise ConfigurationError(f"{place}: expected names of members as text, got {key!r}")
            name = f"{place}.{key}" if key.isidentifier() else f"{place}[{key!r}]"
            copy[str.__str__(key)] = _copied(name, item, levels - 1)
        return copy
    if isinstance(value, list | tuple):
        return [
            _copied(f"{place}[{number}]", item, levels - 1) for number, item in enumerate(value)
        ]
    raise ConfigurationError(
        f"{place}: expected plain JSON, got a value of type {type(value).__name__}; write days as "
        f"YYYYMMDD, and a filter as {{'name': …, 'operator': …, 'value': …}}",
        value=value,
    )
