"""The days on which people did an event, for any range of dates: 8 bytes per person and event.

A person's days repeat every 64 days. The seed and the person's number decide the pattern.
"""

from __future__ import annotations

from array import array
from datetime import date

from .dice import Dice

__all__ = ["BUCKETS", "EVENTS", "SAMPLES", "Activity", "day_number"]

DAY = 86_400
BUCKETS = 23
"""Memory buckets of the service. It delivers people bucket by bucket."""

_EPOCH = date(1970, 1, 1).toordinal()
_EVERY_DAY = 2**64 - 1

# Event: the share of people, in 256ths, who do it often; the number of random words and-ed into
# their days (each halves the days); the share, in 256ths, who do it on one day of the 64.
_HABITS = {
    "App Launched": (230, 2, 26),
    "App Installed": (0, 0, 256),
    "App Uninstalled": (0, 0, 13),
    "Charged": (77, 3, 0),
    "Product Viewed": (128, 3, 0),
    "UTM Visited": (51, 3, 0),
    "Added to Cart": (90, 3, 0),
    "Vidéo vue": (20, 3, 0),
    "Notification Sent": (128, 3, 0),
    "Notification Viewed": (77, 3, 0),
}

EVENTS = tuple(_HABITS)
"""The names of all events that people of the seed do."""

SAMPLES = 2
"""Number of people taken from the vendor's samples. They come first."""

SAMPLE_EVENTS = ("App Launched", "Charged")
"""The events that they do, every day."""


def day_number(value: int) -> int:
    """Return the proleptic day number of a YYYYMMDD date or of 10-digit epoch seconds (UTC).

    Raises:
        ValueError: `value` is neither.
    """
    if 10**7 <= value < 10**8:
        return date(value // 10_000, value // 100 % 100, value % 100).toordinal()
    if 10**9 <= value < 10**10:
        return _EPOCH + value // DAY
    raise ValueError(f"{value} is neither a YYYYMMDD date nor 10-digit epoch seconds")


class Activity:
    """The active days of everyone. The days of an event are drawn on its first use."""

    def __init__(self, people: int, dice: Dice) -> None:
        self._people = people
        self._dice = dice
        self._habits: dict[str, bytes] = {}
        self._days: dict[str, array[int]] = {}

    def events_of(self, index: int) -> list[str]:
        """Return the events that a person does on any day."""
        if index < SAMPLES:
            return list(SAMPLE_EVENTS)
        return [
            event
            for event, (often, _, once) in _HABITS.items()
            if self._habits_of(event)[index] < often + once
        ]

    def during(self, event: str, first: int, last: int) -> array[int]:
        """Return the people with `event` on the days `first` to `last`, in order of delivery.

        Both are proleptic day numbers, and inclusive. Nobody does an event that is not in `EVENTS`.
        """
        if event not in _HABITS:
            return array("I")
        wanted = _EVERY_DAY
        if last - first < 63:
            wanted = 0
            for day in range(first, last + 1):
                wanted |= 1 << day % 64
        days = self._days.get(event)
        if days is None:
            days = self._days[event] = self._draw_days(event)
        indexes = array("I")
        for bucket in range(BUCKETS):
            numbers = range(bucket, self._people, BUCKETS)
            active = [
                number
                for number, mask in zip(numbers, days[bucket::BUCKETS], strict=True)
                if mask & wanted
            ]
            indexes.extend(active)
        return indexes

    def everyone(self) -> array[int]:
        """Return all people, in order of delivery."""
        indexes = array("I")
        for bucket in range(BUCKETS):
            indexes.extend(range(bucket, self._people, BUCKETS))
        return indexes

    def _habits_of(self, event: str) -> bytes:
        habits = self._habits.get(event)
        if habits is None:
            # One draw for everyone, so that a smaller population draws a prefix of it.
            habits = self._habits[event] = self._dice.filler(self._people, "habits", event)
        return habits

    def _draw_days(self, event: str) -> array[int]:
        often, words, once = _HABITS[event]
        drawn = array("Q", self._dice.filler(24 * self._people, "days", event))
        days = array(
            "Q",
            [
                # People who do it often have at least one day.
                (first & second & (third if words == 3 else _EVERY_DAY) or 1)
                if habit < often
                else (1 << (first & 63) if habit < often + once else 0)
                for habit, first, second, third in zip(
                    self._habits_of(event), drawn[::3], drawn[1::3], drawn[2::3], strict=True
                )
            ],
        )
        for index in range(min(SAMPLES, self._people)):
            days[index] = _EVERY_DAY if event in SAMPLE_EVENTS else 0
        return days
