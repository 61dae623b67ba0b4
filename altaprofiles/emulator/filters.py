"""Filters of CleverTap's query language: one property, one operator, and values. No I/O.

Sources:
    [cql] "CleverTap Query Language",
        https://developer.clevertap.com/docs/clevertap-query-language
"""

from __future__ import annotations

import operator
import re
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Filter", "InvalidFilter", "read_filters", "unsupported"]

_MEMBERS = frozenset({"name", "operator", "value"})
_SPELLINGS = {
    "gt": "greater_than",
    "gte": "greater_than_equals",
    "lt": "less_than",
    "lte": "less_than_equals",
    "not_contains": "does_not_contain",
    "not_exists": "does_not_exist",
}
"""Newer spellings, as some clients send them, and the documented ones."""
_NEGATIONS = {
    "not_equals": "equals",
    "does_not_contain": "contains",
    "does_not_exist": "exists",
}
_ORDERS = {
    "greater_than": operator.gt,
    "greater_than_equals": operator.ge,
    "less_than": operator.lt,
    "less_than_equals": operator.le,
}
_POSITIVE = frozenset({"equals", "contains", "exists", *_ORDERS})
_DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]{0,299})(\.[0-9]{1,300})?")


class InvalidFilter(ValueError):
    """A filter that the service refuses. The text names its place and its fault."""


def unsupported(part: str) -> InvalidFilter:
    """Return the refusal of a part of the query language that the service may well know."""
    return InvalidFilter(f"{part} is not evaluated by the emulator of altaprofiles")


class Filter(NamedTuple):
    """One filter. A negated operator holds exactly where its positive one does not."""

    name: str
    operator: str
    """A positive operator, in the documented spelling."""
    is_negated: bool
    values: tuple[Any, ...]
    """One value, or those of which any will do."""

    def holds(self, properties: Mapping[str, Any]) -> bool:
        """Return True if the filter holds for someone, or something, with these properties.

        A property that is null is missing. Of a list, any element will do. Two texts are compared
        as texts, a number and a text as numbers.
        """
        value = properties.get(self.name)
        if self.operator == "exists":
            return (value is not None) is not self.is_negated
        items = value if isinstance(value, list) else [value]
        found = any(_compare(self.operator, item, one) for item in items for one in self.values)
        return found is not self.is_negated


def read_filters(value: object, place: str) -> tuple[Filter, ...]:
    """Return the filters of one list in a query ([cql], Query Operators & Values).

    Args:
        value: the list as it was sent.
        place: its name, for the error.

    Raises:
        InvalidFilter: the list holds anything but filters that this emulator evaluates.
    """
    if not isinstance(value, list):
        raise InvalidFilter(f"{place} must be a list")
    return tuple(_read(one, f"{place}[{number}]") for number, one in enumerate(value))


def _read(sent: object, place: str) -> Filter:
    if not isinstance(sent, dict):
        raise InvalidFilter(f"{place} must be an object")
    for member in sent:
        if member not in _MEMBERS:
            raise InvalidFilter(
                f"{place}.{member} is not evaluated by the emulator of altaprofiles"
            )
    name, spelling = sent.get("name"), sent.get("operator")
    if not isinstance(name, str) or not name:
        raise InvalidFilter(f"{place}.name must be a string")
    if not isinstance(spelling, str):
        raise InvalidFilter(f"{place}.operator must be a string")
    documented = _SPELLINGS.get(spelling, spelling)
    positive = _NEGATIONS.get(documented, documented)
    if positive not in _POSITIVE:
        raise InvalidFilter(
            f"{place}.operator {spelling} is not evaluated by the emulator of altaprofiles"
        )
    values: tuple[Any, ...] = ()
    if positive != "exists":
        values = _read_values(sent.get("value"), f"{place}.value")
        if positive in _ORDERS and any(isinstance(one, str) for one in values):
            raise InvalidFilter(f"{place}.value must be a number with {spelling}")
    return Filter(name, positive, documented != positive, values)


def _read_values(value: object, place: str) -> tuple[Any, ...]:
    values: Sequence[object] = value if isinstance(value, list) else [value]
    if not values:
        raise InvalidFilter(f"{place} must not be an empty list")
    for one in values:
        if isinstance(one, bool):
            raise InvalidFilter(f"{place} must be the string True or False, not a boolean")
        if not isinstance(one, str | int | float):
            raise InvalidFilter(f"{place} must be a string, a number, or a list of them")
    return tuple(values)


def _compare(name: str, item: object, value: Any) -> bool:
    if name == "contains":
        return isinstance(item, str) and str(value) in item
    if isinstance(item, bool):
        return name == "equals" and value == str(item)
    if isinstance(item, str) and isinstance(value, str):
        return item == value
    one, other = _number(item), _number(value)
    compare = operator.eq if name == "equals" else _ORDERS[name]
    return one is not None and other is not None and bool(compare(one, other))


def _number(value: object) -> int | float | None:
    """Return the number that `value` is, or that it has as a plain decimal, or None.

    "007" and "1E2" are no plain decimals: they stand for codes as often as for numbers.
    """
    if isinstance(value, str) and (match := _DECIMAL.fullmatch(value)):
        return float(value) if match[1] else int(value)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
