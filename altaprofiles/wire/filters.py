"""Filters of CleverTap's query language, checked as far as it is documented. Pure functions.

Sources:
    [cql] "CleverTap Query Language",
        https://developer.clevertap.com/docs/clevertap-query-language
    [seen] public clients, captures and tests
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from difflib import get_close_matches
from typing import TYPE_CHECKING, Literal, SupportsFloat, TypeAlias, get_args

from msgspec import Struct
from msgspec.structs import force_setattr

from ..base.checks import (
    check_key,
    check_no_database,
    form_of,
    is_unicode,
    plain,
    shown,
    unknown,
    whole,
)
from ..base.structs import CalledStruct
from ..errors import ConfigurationError, InvalidArgument

__all__ = [
    "INT64",
    "MEANINGS",
    "OF_EXISTENCE",
    "OF_ORDER",
    "Filter",
    "FilterValue",
    "Operator",
    "ShortOperator",
    "check_name",
    "check_operator",
    "check_scalar",
    "check_value",
]

Operator: TypeAlias = Literal[
    "equals",
    "not_equals",
    "contains",
    "does_not_contain",
    "exists",
    "does_not_exist",
    "greater_than",
    "greater_than_equals",
    "less_than",
    "less_than_equals",
]
"""The operators of the query language ([cql], Query Operators & Values)."""

ShortOperator: TypeAlias = Literal["gt", "gte", "lt", "lte", "not_contains", "not_exists"]
"""Other spellings, which newer clients use ([seen])."""

FilterValue: TypeAlias = str | float | Sequence[str | float]
"""A value to compare with: text, a number, True or False, or a list of these ([cql])."""

_OPERATORS: tuple[Operator, ...] = get_args(Operator)
_SPELLINGS: dict[str, Operator] = {operator: operator for operator in _OPERATORS} | {
    "gt": "greater_than",
    "gte": "greater_than_equals",
    "lt": "less_than",
    "lte": "less_than_equals",
    "not_contains": "does_not_contain",
    "not_exists": "does_not_exist",
}

_OTHER_WORDS: Mapping[Operator, str] = {
    "equals": "= == === := is equal is_equal equal_to equals_to is_equal_to eq same_as",
    "not_equals": "!= <> >< ≠ =! !_= !== not is_not isnt isn't not_equal not_equal_to "
    "is_not_equal_to does_not_equal doesnt_equal doesn't_equal ne neq unequal",
    "contains": "~ =~ contain containing include includes like ilike has",
    "does_not_contain": "!~ not_contain not_contains not_containing does_not_contains "
    "doesnt_contain doesn't_contain doesnt_contains doesn't_contains does_not does doesn't doesnt "
    "not_include not_includes does_not_include not_like is_not_like contains_not",
    "exists": "exist does_exist does_exists is_set is_present is_not_null not_null",
    "does_not_exist": "not_exist not_exists does_not_exists doesnt_exist doesn't_exist "
    "doesnt_exists doesn't_exists is_not_set is_unset is_missing is_null",
    "greater_than": "> >> greater is_greater_than more_than is_more_than gt above over",
    "greater_than_equals": ">= => ≥ >_= >== gte ge at_least is_at_least greater_than_or_equal "
    "greater_than_or_equal_to greater_or_equal",
    "less_than": "< << less is_less_than fewer_than smaller_than lt below under",
    "less_than_equals": "<= =< ≤ <_= <== lte le at_most is_at_most less_than_or_equal "
    "less_than_or_equal_to less_or_equal",
}

MEANINGS: Mapping[str, Operator] = {
    word: operator for operator, words in _OTHER_WORDS.items() for word in words.split()
} | _SPELLINGS
"""Operators as other languages write them, and the documented ones that they mean ([cql]).

In lower case, with `_` for blanks. They are not accepted: an error names the one that is meant.
"""

OF_ORDER = frozenset({"greater_than", "greater_than_equals", "less_than", "less_than_equals"})
"""The operators that compare numbers ([cql])."""

OF_EXISTENCE = frozenset({"exists", "does_not_exist"})
"""The operators without a value ([cql])."""

INT64 = range(-(2**63), 2**63)
"""The ints that a filter can have ([cql], Query Operators & Values)."""


class Filter(Struct, frozen=True, metaclass=CalledStruct):
    """A condition on one property of an event, or on one field of a profile.

    Several filters must all hold. The service decides what matches, upper and lower case included.
    The page "CleverTap Query Language" has the operators and their values ([cql]). The
    spellings `gt`, `gte`, `lt`, `lte`, `not_contains` and `not_exists` become the documented ones.

    Attributes:
        name: the property's name, spelled as in the dashboard.
        operator: "equals", "not_equals", "contains", "does_not_contain", "exists",
            "does_not_exist", and for numbers "greater_than", "greater_than_equals", "less_than",
            "less_than_equals".
        value: text, a finite float, or an int of up to 64 bits. True and False become the texts
            "True" and "False", as the service expects them. A list becomes a tuple; its meaning is
            documented for `items` of Charged only. None with `exists` and `does_not_exist`.

    Raises:
        ConfigurationError: the name is missing, empty or not text, the operator is missing or
            unknown, or the value does not go with it. The message shows name and operator; the
            value is `error.value`.

    >>> Filter("Amount", "gt", 100)
    Filter(name='Amount', operator='greater_than', value=100)
    """

    if TYPE_CHECKING:
        name: str
        operator: Operator | ShortOperator
    else:
        # A missing argument then gets an error that names what to pass.
        name: str = None
        operator: Operator | ShortOperator = None
    value: FilterValue | None = None

    def __post_init__(self) -> None:
        name = check_name("name", self.name)
        operator = check_operator("operator", self.operator)
        value = self.value
        if operator in OF_EXISTENCE:
            if value is not None:
                raise InvalidArgument(
                    f"value: {operator} of {shown(name)} takes no value; leave it out", value=value
                )
        else:
            value = check_value("value", f"{operator} of {shown(name)}", operator, value)
        force_setattr(self, "name", name)
        force_setattr(self, "operator", operator)
        force_setattr(self, "value", value)


def check_name(place: str, name: object) -> str:
    """Return the name of a property or of an event ([cql]).

    Raises:
        ConfigurationError: it is missing, is not text, is empty, holds a control character, or is
            the URL of a database.
    """
    if name is None:
        raise InvalidArgument(f"{place}: missing; write the name as in the dashboard")
    if not isinstance(name, str):
        raise InvalidArgument(f"{place}: expected a name as text, got {shown(name)}")
    check_no_database(place, name)
    try:
        return check_key(place, name, noun="name")
    except ConfigurationError as error:
        # A property's name is not a person's, and may be shown.
        raise InvalidArgument(f"{error}, got {shown(name)}") from None


def check_operator(place: str, operator: object) -> Operator:
    """Return an operator in its documented spelling ([cql]).

    Args:
        place: the argument, with the position in it.
        operator: the operator.

    Raises:
        ConfigurationError: it is missing or unknown.
    """
    if isinstance(operator, str) and operator in _SPELLINGS:
        return _SPELLINGS[operator]
    fault = "missing" if operator is None else unknown(operator, "operator")
    meant = _meant(operator) if isinstance(operator, str) else None
    guess = "" if meant is None else f"; did you mean {meant}?"
    raise InvalidArgument(f"{place}: {fault}; use one of {', '.join(_OPERATORS)}{guess}")


def _meant(text: str) -> Operator | None:
    """Return the operator that `text` is likely to mean."""
    word = re.sub(r"[\s_-]+", "_", text.strip().lower())
    close = get_close_matches(word, _OPERATORS, 1)
    return MEANINGS.get(word) or (MEANINGS[close[0]] if close else None)


def check_value(place: str, subject: str, operator: str, value: object) -> FilterValue:
    """Return a value as it is sent ([cql], Query Operators & Values).

    Args:
        place: the argument, with the position in it.
        subject: operator and name, for messages, which never show the value.
        operator: the operator, which is not one of `OF_EXISTENCE`.
        value: the value.

    Raises:
        ConfigurationError: the value is missing, or does not go with the operator.
    """
    if value is None:
        raise InvalidArgument(f"{place}: missing; {subject} needs text, a number, or true or false")
    if isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray):
        return _check_items(place, subject, operator, value)
    scalar = check_scalar(place, subject, value)
    if operator in OF_ORDER and isinstance(scalar, str):
        raise _no_number(place, subject, value)
    return scalar


def _check_items(place: str, subject: str, operator: str, items: Sequence[object]) -> FilterValue:
    if operator in OF_ORDER:
        raise _no_number(place, subject, items)
    if not items:
        raise InvalidArgument(
            f"{place}: {subject} got an empty list; pass at least one value", value=items
        )
    return tuple(
        check_scalar(f"{place}[{number}]", subject, item) for number, item in enumerate(items)
    )


def _no_number(place: str, subject: str, value: object) -> ConfigurationError:
    return InvalidArgument(
        f"{place}: {subject} compares numbers, got {form_of(value)}; give one number",
        value=value,
    )


def check_scalar(place: str, subject: str, value: object) -> str | float:
    """Return one value as it is sent ([cql]).

    Raises:
        ConfigurationError: JSON has no form for it.
    """
    value = plain(value)
    if isinstance(value, bool):
        # "Boolean fields must be passed as a string" ([cql]).
        return str(value)
    if isinstance(value, str):
        if is_unicode(value):
            return str.__str__(value)
        fault = "text with half a surrogate pair; decode the source as UTF-8"
    elif isinstance(value, float):
        if math.isfinite(value):
            return float(value)
        fault = "a number that is not finite; JSON has no form for it"
    elif (number := whole(value)) is not None:
        if number in INT64:
            return number
        fault = "an int of more than 64 bits; pass it as text, or as a float"
    else:
        fault = f"{form_of(value)}; {_remedy(value)}"
    raise InvalidArgument(f"{place}: {subject} got {fault}", value=value)


def _remedy(value: object) -> str:
    if isinstance(value, date):
        return "pass the text or the number that the service stores in its place"
    if isinstance(value, Iterable) and not isinstance(value, Mapping | bytes | bytearray | list):
        return "pass a list of values"
    if isinstance(value, SupportsFloat):
        return "pass float(value)"
    return "give text, a number, or true or false, in the form that the service stores"
