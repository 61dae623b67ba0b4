"""Numbers on the command line: in digits of ASCII, without the underscores that Python allows."""

from __future__ import annotations

import math
import re
from typing import Any

import click

__all__ = ["DecimalNumber", "WholeNumber", "WholeRange", "number_in", "whole_in"]

_WHOLE = re.compile(r"[0-9]{1,18}")
_NUMBER = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")


def whole_in(text: str) -> int | None:
    """Return the whole number that is not negative in `text`, or None if that is something else."""
    return int(text) if _WHOLE.fullmatch(text) else None


def number_in(text: str) -> float | None:
    """Return the finite number in `text`, or None if that is something else."""
    number = float(text) if _NUMBER.fullmatch(text) else math.inf
    return number if math.isfinite(number) else None


def _is_whole(value: Any) -> bool:
    return not isinstance(value, str) or whole_in(value.removeprefix("-")) is not None


class WholeNumber(click.types.IntParamType):
    """The type of an option that takes a whole number."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not _is_whole(value):
            self.fail(f"{value!r} is not a valid integer.", param, ctx)
        return super().convert(value, param, ctx)


class WholeRange(click.IntRange):
    """The type of an option that takes a whole number in a range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not _is_whole(value):
            self.fail(f"{value!r} is not a valid integer.", param, ctx)
        return super().convert(value, param, ctx)


class DecimalNumber(click.types.FloatParamType):
    """The type of an option that takes a number."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        # What is no finite number is refused by the setting, which names its bounds.
        if not isinstance(value, str) or value in ("inf", "-inf", "nan"):
            return super().convert(value, param, ctx)
        if (number := number_in(value)) is None:
            self.fail(f"{value!r} is not a valid float.", param, ctx)
        return number
