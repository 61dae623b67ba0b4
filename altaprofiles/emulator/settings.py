"""Settings of the emulator. Each is checked whenever it is assigned, and holds from then on."""

from __future__ import annotations

import sys
from collections.abc import Callable
from difflib import get_close_matches
from inspect import getattr_static
from typing import Any, Generic, Literal, Self, TypeAlias, TypeVar, overload

from ..credentials import check_api_key, check_passcode

__all__ = [
    "ALTA_ERRORS",
    "BaseQuery",
    "RecordSize",
    "Settings",
    "check_number",
    "check_record_size",
]

T = TypeVar("T")

RecordSize: TypeAlias = Literal["small", "real"]
"""Some 1 KB, or 17 KB as in the one capture of a real account."""

BaseQuery: TypeAlias = Literal["optional", "with_filters", "required"]
"""The need of a query for an event and its days."""

ALTA_ERRORS = {
    20022: "The credits have been used up",
    20055: "API function is disabled",
    20059: "The agent has been deleted",
    40000: "Invalid parameter",
    40008: "Agent RPM request limit exceeded. Please contact the service provider to increase the "
    "limit.",
    40107: "The credentials have expired",
    40113: "No access to this agent",
    40127: "Developer authentication failed",
    40353: "This feature is only available after upgrading your plan",
    40356: "The plan does not include this conversation",
    40358: "The plan does not include this feature",
    40378: "The agent has been deleted",
    40379: "The credits have been used up",
    50000: "Internal system error",
    200116: "The agent is not available",
    200222: "This agent does not support this feature",
    403100: "Permission denied",
    403131: "Permission denied",
}
"""The documented codes of errors, and their texts, as Alta's "Overview" has them."""


def check_number(name: str, value: Any, least: float, *kinds: type[float]) -> None:
    """Check that `value` is a number of `least` or more, of one of `kinds`.

    Raises:
        ValueError: it is not. The message names the argument, its value and the fix.
    """
    is_number = isinstance(value, kinds) and not isinstance(value, bool)
    # Longer ints than any float.
    if not is_number or not least <= value <= sys.float_info.max:
        raise ValueError(f"{name} is {value!r}; use {least} or more")


class Setting(Generic[T]):
    """An attribute that is checked on assignment."""

    def __init__(self, check: Callable[[str, Any], None]) -> None:
        self._check = check
        self._name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: Settings, owner: type) -> T: ...
    def __get__(self, instance: Settings | None, owner: type) -> Self | T:
        if instance is None:
            return self
        value: T = instance.__dict__[self._name]
        return value

    def __set__(self, instance: Settings, value: T) -> None:
        self._check(self._name, value)
        instance.__dict__[self._name] = value


def _most(name: str, value: Any) -> None:
    check_number(name, value, 1, int)


def _limit(name: str, value: Any) -> None:
    if value is not None:
        _most(name, value)


def _seconds(name: str, value: Any) -> None:
    check_number(name, value, 0, int, float)


def _length(name: str, value: Any) -> None:
    check_number(name, value, 0, int, float)
    if not value:
        raise ValueError(f"{name} is {value!r}; use more than 0")


def _one_of(*choices: object) -> Callable[[str, Any], None]:
    def check(name: str, value: Any) -> None:
        if not any(value is one or (type(value) is type(one) and value == one) for one in choices):
            known = " or ".join(map(repr, choices))
            raise ValueError(f"{name} is {value!r}; use {known}")

    return check


def _passcode(name: str, value: Any) -> None:
    check_passcode(value, type(value).__name__)


def _token(name: str, value: Any) -> None:
    check_api_key(value, type(value).__name__)


_flag = _one_of(True, False)
check_record_size = _one_of("small", "real")


class Settings:
    """The settings that can be assigned while the emulator runs. `Emulator` describes them."""

    passcode = Setting[str](_passcode)
    """The passcode of the CleverTap account, which each request must have.

    `PUT /passcode` changes it from outside of the process. No answer shows it.
    """
    token = Setting[str](_token)
    """The API key of the Alta agent, which each request must have. `PUT /token` changes it."""
    think = Setting[float](_seconds)
    max_in_flight = Setting[int](_most)
    lookups_max_in_flight = Setting[int | None](_limit)
    counts_max_in_flight = Setting[int | None](_limit)
    alta_max_in_flight = Setting[int | None](_limit)
    clevertap_per_minute = Setting[int | None](_limit)
    alta_per_minute = Setting[int | None](_limit)
    alta_per_day = Setting[int | None](_limit)
    window_seconds = Setting[float](_length)
    rate_limit_headers = Setting[bool](_flag)
    max_open_chains = Setting[int | None](_limit)
    cursor_lifetime = Setting[float](_seconds)
    notification_exports = Setting[bool](_flag)
    base_query = Setting[BaseQuery](_one_of("optional", "with_filters", "required"))
    alta_envelope = Setting[Literal["classic", "v1.5"]](_one_of("classic", "v1.5"))
    alta_error = Setting[int | None](_one_of(None, *ALTA_ERRORS))
    key_verification = Setting[bool](_flag)

    def __setattr__(self, name: str, value: object) -> None:
        if not name.startswith("_") and not _is_settable(self, name):
            settable = [one for one in dir(type(self)) if _is_settable(self, one)]
            close = get_close_matches(name, settable, n=1)
            advice = f"did you mean {close[0]}?" if close else f"assign {', '.join(settable)}"
            raise AttributeError(f"{name} cannot be assigned; {advice}", name=name, obj=self)
        super().__setattr__(name, value)


def _is_settable(settings: Settings, name: str) -> bool:
    attribute = getattr_static(type(settings), name, None)
    if isinstance(attribute, property):
        return attribute.fset is not None
    return isinstance(attribute, Setting)
