"""Numbers on the command line: in digits of ASCII, without the underscores that Python allows."""

from __future__ import annotations

import math
import re
from typing import Any

import click

from ..base.checks import whole_in

__all__ = ["DecimalNumber", "WholeNumber", "WholeRange", "number_in"]

_NUMBER = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")


def number_in(text: str) -> float | None:
    """Return the finite number in `text`, or None if that is something else."""
    number = float(text) if _NUMBER.fullmatch(text) else math.inf
    return number if math.isfinite(number) else None


class WholeNumber(click.types.IntParamType):
    """The type of an option that takes a whole number."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and whole_in(value.removeprefix("-")) is None:
            self.fail(f"{value!r} is not a valid integer.", param, ctx)
        return super().convert(value, param, ctx)


class WholeRange(WholeNumber, click.IntRange):
    """The type of an option that takes a whole number in a range."""


class DecimalNumber(click.types.FloatParamType):
    """The type of an option that takes a number."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        # What is no finite number is refused by the setting, which names its bounds.
        if not isinstance(value, str) or value in ("inf", "-inf", "nan"):
            return super().convert(value, param, ctx)
        if (number := number_in(value)) is None:
            self.fail(f"{value!r} is not a valid float.", param, ctx)
        return number
