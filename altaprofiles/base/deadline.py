"""The deadline of one call."""

from __future__ import annotations

import time
from typing import Self

from msgspec import Struct

from .checks import check_time_left

__all__ = ["Deadline"]


class Deadline(Struct, frozen=True, gc=False):
    """The longest duration of a call, from its beginning.

    Attributes:
        seconds: the duration. With 0 or less, the time is up when the call begins.
        ends: the monotonic clock reading at which it ends.
    """

    seconds: float
    ends: float

    @classmethod
    def of(cls, seconds: float) -> Self:
        """Return the deadline of a call that begins now.

        Raises:
            ConfigurationError: `seconds` is not a finite number.
        """
        seconds = check_time_left("deadline", seconds)
        return cls(seconds, time.monotonic() + seconds)

    @property
    def left(self) -> float:
        """The seconds that are left."""
        return max(0.0, self.ends - time.monotonic())

    def __str__(self) -> str:
        return f"the deadline of {self.seconds:g} s"
