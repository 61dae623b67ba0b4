"""The members of a query in CleverTap's query language: checked, and in one form. Pure functions.

Sources:
    [cql] "CleverTap Query Language",
        https://developer.clevertap.com/docs/clevertap-query-language
    [seen] public clients, captures and tests
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import msgspec

from ..base.checks import form_of, is_unicode, plain, shown
from ..errors import InvalidArgument
from .days import check_day, check_range
from .filters import (
    INT64,
    OF_EXISTENCE,
    check_name,
    check_operator,
    check_scalar,
    check_value,
)

__all__ = [
    "COMMON",
    "FIELDS",
    "PROPERTIES",
    "SESSION",
    "canonical",
    "check_query",
    "encoded",
    "outline",
    "shown_key",
    "values_in",
]

PROPERTIES = "event_properties"
"""Filters of the event ([cql], Event Property Filters)."""

SESSION = "session_properties"
"""Filters of its session ([cql], Session Property Filters)."""

COMMON = "common_profile_properties"
"""The object with `FIELDS` and other filters of profiles ([cql], Common Profile Properties)."""

FIELDS = "profile_fields"
"""Filters of custom properties, within `COMMON` ([cql], Common Profile Properties)."""

_ADVANCED = "advanced_query"
_MEMBERS = (PROPERTIES, SESSION, COMMON, _ADVANCED)
_GROUPS = ("demographics", "geo_fields", "technographics")
_COMMON_MEMBERS = (FIELDS, *_GROUPS)
_ADVANCED_MEMBERS = ("did_all", "did_any", "did_not_all", "did_not_any")
_EVENT_MEMBERS = ("event_name", "from", "to", PROPERTIES, SESSION)
_FILTER_MEMBERS = ("name", "operator", "value")
_IN_CLEAR = frozenset({"event_name", "from", "to", "name", "operator"})
_MASKED = frozenset({"value", *_GROUPS})
_BASE: Mapping[str, str] = {"event_name": "the event", "from": "`start`", "to": "`end`"}

_DEEPEST = 30


def encoded(value: object) -> str:
    """Return `value` as JSON with its keys in one order, so that equal filters are equal text.

    The order makes no difference to the service ([cql]).
    """
    return msgspec.json.encode(value, order="deterministic").decode()


# ------------------------------------------------------------------------------ people's data


def outline(value: Any, in_clear: frozenset[str] = _IN_CLEAR) -> Any:
    """Return `value`, a part of a query, with "…" for everything that may be people's data.

    Names of events, properties and operators, and days, stay ([cql]).
    """
    if isinstance(value, dict):
        return {
            (key if in_clear else shown_key(key)): item
            if key in in_clear
            else outline(item, frozenset() if key in _MASKED else in_clear)
            for key, item in value.items()
        }
    return [outline(item, in_clear) for item in value] if isinstance(value, list) else "…"


_FLAGS = frozenset({"True", "False"})
_PLAIN_KEY = re.compile(r"[a-z][a-z0-9_]*")


def shown_key(key: str) -> str:
    """Return a key within a group such as `geo_fields`, or "…" if it may be data.

    The language names members in lower case ([cql]), people do not.
    """
    return key if _PLAIN_KEY.fullmatch(key) else "…"


def values_in(value: Any, in_clear: frozenset[str] = _IN_CLEAR) -> Iterator[str]:
    """Yield each text and number that `outline` hides, but not the texts of flags ([cql]).

    Keys within groups such as `geo_fields` are among them, as in `shown_key`.
    """
    match value:
        case dict():
            for key, item in value.items():
                if key in in_clear:
                    continue
                if not in_clear and shown_key(key) != key:
                    yield key
                yield from values_in(item, frozenset() if key in _MASKED else in_clear)
        case list():
            for item in value:
                yield from values_in(item, in_clear)
        case str() | int() | float() if not isinstance(value, bool) and value not in _FLAGS:
            yield str(value)


# ----------------------------------------------------------------------------------- one form


def canonical(members: Mapping[str, Any]) -> dict[str, Any]:
    """Return checked members in the one form that all queries for the same people have.

    Equal numbers are equal text, flags are the texts "True" and "False" ([cql], Query Operators &
    Values), and members that hold no condition are left out.
    """
    plain: dict[str, Any] = _pruned(_plain(members))
    common = plain.get(COMMON)
    if isinstance(common, dict):
        plain[COMMON] = {key: item for key, item in common.items() if item is not None}
    return plain


def _plain(value: Any) -> Any:
    match value:
        case Mapping():
            return {key: _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case float() if value.is_integer() and int(value) in INT64:
            # Both forms are documented; one of them must stand for both ([cql]).
            return int(value)
        case bool():
            return str(value)
    return value


def _pruned(value: Any) -> Any:
    match value:
        case dict():
            # The value null of `exists` is none.
            is_bare = value.get("operator") in OF_EXISTENCE and value.get("value") is None
            pruned = {
                key: _pruned(item)
                for key, item in value.items()
                if not (is_bare and key == "value")
            }
            return {key: item for key, item in pruned.items() if not _is_empty(item)}
        case list():
            return [item for item in map(_pruned, value) if not _is_empty(item)]
    return value


def _is_empty(value: Any) -> bool:
    """Return whether a list or an object holds nothing but null."""
    if isinstance(value, dict):
        return all(item is None for item in value.values())
    return isinstance(value, list) and all(item is None for item in value)


# -------------------------------------------------------------------------------------- checks


def check_query(query: object) -> dict[str, Any]:
    """Return a copy of `query` with the documented spellings ([cql]).

    Raises:
        ConfigurationError: it is not in the language, as far as that is documented.
    """
    if query is None:
        return {}
    if not isinstance(query, Mapping):
        raise InvalidArgument(
            f"query: expected a dict of the query language, got a value of type "
            f"{type(query).__name__}; write {{'advanced_query': {{…}}}}",
            value=query,
        )
    members: dict[str, Any] = _copied("query", query)
    for key, source in _BASE.items():
        if key in members:
            raise InvalidArgument(f"query: `{key}` is set by {source} of the call; leave it out")
    _check_known("query", members, _MEMBERS)
    _check_event_filters("query", members)
    if COMMON in members:
        place = f"query.{COMMON}"
        common = _check_mapping(place, members[COMMON])
        _check_known(place, common, _COMMON_MEMBERS)
        if FIELDS in common:
            common[FIELDS] = _check_list(f"{place}.{FIELDS}", common[FIELDS], _check_member)
    if _ADVANCED in members:
        place = f"query.{_ADVANCED}"
        advanced = _check_mapping(place, members[_ADVANCED])
        _check_known(place, advanced, _ADVANCED_MEMBERS)
        for key, events in advanced.items():
            advanced[key] = _check_list(f"{place}.{key}", events, _check_event)
    return members


def _check_event_filters(place: str, members: dict[str, Any]) -> None:
    for key, check in ((PROPERTIES, _check_member), (SESSION, _check_session)):
        if key in members:
            members[key] = _check_list(f"{place}.{key}", members[key], check)


def _check_member(place: str, value: object) -> dict[str, Any]:
    member = _check_mapping(place, value)
    _check_known(place, member, _FILTER_MEMBERS)
    name = check_name(f"{place}.name", member.get("name"))
    return _check_compared(place, member | {"name": name})


def _check_compared(place: str, member: dict[str, Any]) -> dict[str, Any]:
    """Return a filter with its operator and value checked."""
    operator = check_operator(f"{place}.operator", member.get("operator"))
    checked = member | {"operator": operator}
    # The vendor's own script sends a value with `exists` ([seen]).
    if operator not in OF_EXISTENCE:
        subject = f"{operator} of {member['name']!r}"
        checked["value"] = check_value(f"{place}.value", subject, operator, member.get("value"))
    return checked


def _check_session(place: str, value: object) -> dict[str, Any]:
    # Some of these have no operator, and values of forms of their own ([cql]).
    member = _check_mapping(place, value)
    _check_spelling(place, member, _FILTER_MEMBERS)
    checked = member | {"name": check_name(f"{place}.name", member.get("name"))}
    if "operator" in member:
        return _check_compared(place, checked)
    if member.get("value") in ([], {}):
        raise InvalidArgument(f"{place}.value: it is empty; pass at least one value")
    return checked


def _check_event(place: str, value: object) -> dict[str, Any]:
    event = _check_mapping(place, value)
    _check_spelling(place, event, _EVENT_MEMBERS)
    check_name(f"{place}.event_name", event.get("event_name"))
    days = [key for key in ("from", "to") if key in event]
    for key in days:
        day = event[key]
        if isinstance(day, bool) or not isinstance(day, int):
            raise InvalidArgument(
                f"{place}.{key}: expected a day as the number YYYYMMDD, such as 20260131, got "
                f"{encoded(day)}"
            )
        check_day(f"{place}.{key}", day, "write YYYYMMDD, such as 20260131, or epoch seconds")
    if len(days) == 2:
        check_range(event["from"], event["to"], (f"{place}.from", f"{place}.to"))
    _check_event_filters(place, event)
    return event


def _check_mapping(place: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidArgument(f"{place}: expected an object, got {form_of(value)}", value=value)
    return value


def _check_list(
    place: str, value: object, check: Callable[[str, object], dict[str, Any]]
) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        raise InvalidArgument(
            f"{place}: expected a list of objects, got {form_of(value)}", value=value
        )
    return [check(f"{place}[{number}]", item) for number, item in enumerate(value)]


def _check_known(place: str, members: Mapping[str, Any], known: Sequence[str]) -> None:
    for key in members:
        if key not in known:
            meant = _meant(key, known)
            guess = "" if meant is None else f"; did you mean {meant}?"
            raise InvalidArgument(
                f"{place}: unknown member {shown(key)}; known are {', '.join(known)}{guess}"
            )


def _check_spelling(place: str, members: Mapping[str, Any], known: Sequence[str]) -> None:
    """Refuse misspelled members where the page need not name all that there are ([cql])."""
    for key in members:
        if key not in known and _meant(key, known) is not None:
            _check_known(place, {key: None}, known)


def _meant(key: str, known: Sequence[str]) -> str | None:
    return next(iter(get_close_matches(key.lower(), known, 1)), None)


def _copied(place: str, value: object, levels: int = _DEEPEST) -> Any:
    """Return a copy of `value`, which must be plain JSON, in dicts and lists."""
    value = plain(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str | int | float):
        return check_scalar(place, "it", value)
    if levels == 0:
        root, _, _ = place.partition(".")
        raise InvalidArgument(
            f"{root}: nested in more than {_DEEPEST} levels; does it hold itself?"
        )
    if isinstance(value, Mapping):
        copy: dict[str, Any] = {}
        for key, item in value.items():
            if not isinstance(key, str) or not is_unicode(key):
                raise InvalidArgument(
                    f"{place}: expected names of members as text, got {shown(key)}"
                )
            name = f"{place}.{key}" if key.isidentifier() else f"{place}[{shown(key)}]"
            copy[str.__str__(key)] = _copied(name, item, levels - 1)
        return copy
    if isinstance(value, list | tuple):
        return [
            _copied(f"{place}[{number}]", item, levels - 1) for number, item in enumerate(value)
        ]
    fix = "write days as YYYYMMDD, and a filter as {'name': …, 'operator': …, 'value': …}"
    if callable(getattr(value, "tolist", None)):
        fix = "pass .tolist() of it"
    raise InvalidArgument(
        f"{place}: expected plain JSON, got a value of type {type(value).__name__}; {fix}",
        value=value,
    )
