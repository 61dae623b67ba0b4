"""Settings of the emulator. Each is checked whenever it is assigned, and holds from then on."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar, overload

__all__ = ["Settings", "check_number"]

T = TypeVar("T")


def check_number(name: str, value: Any, least: float, *kinds: type[float]) -> None:
    """Check that `value` is a number of `least` or more, of one of `kinds`.

    Raises:
        ValueError: it is not. The message names the argument, its value and the fix.
    """
    is_number = isinstance(value, kinds) and not isinstance(value, bool)
    if not is_number or not least <= value < math.inf:
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


def _whole(name: str, value: Any) -> None:
    check_number(name, value, 1, int)


def _seconds(name: str, value: Any) -> None:
    check_number(name, value, 0, int, float)


def _flag(name: str, value: Any) -> None:
    if value is not True and value is not False:
        raise ValueError(f"{name} is {value!r}; use True or False")


class Settings:
    """The settings that can be assigned while the emulator runs. `Emulator` describes them."""

    think = Setting[float](_seconds)
    max_in_flight = Setting[int](_whole)
    cursor_lifetime = Setting[float](_seconds)
    notification_exports = Setting[bool](_flag)
