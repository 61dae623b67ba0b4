"""Projects whose people change from night to night, each served by an emulator."""

from __future__ import annotations

from array import array
from datetime import date, timedelta
from random import Random
from typing import Any

from msgspec import Struct

from altaprofiles.emulator import Emulator

__all__ = ["EVENTS", "Person", "Project"]

EVENTS = ("App Launched", "Charged", "Vidéo vue")
SINCE = date(2025, 3, 1)


class Person(Struct, eq=False):
    """A person: identity or None, devices, a value of the profile, and the days of each event."""

    identity: str | None
    devices: list[str]
    value: int
    did: dict[str, set[date]]

    @property
    def key(self) -> str:
        """The person's key in tables."""
        return f"identity:{self.identity}" if self.identity else f"objectId:{min(self.devices)}"


class Project:
    """The people of one account, and the emulator that serves them.

    Args:
        seed: decides on everything.
        people: the number of people in the beginning.

    Attributes:
        emulator: the emulator, which the caller enters.
        people: everyone, in the order of delivery.
        day: the last day that is over.
    """

    def __init__(self, seed: int, people: int) -> None:
        # Of this size, records have no spaces. With or without them, text in DuckDB differs.
        self.emulator = Emulator(people=0, seed=seed, record_size="real")
        self.people: list[Person] = []
        self.day = SINCE - timedelta(days=1)
        self._random = Random(seed)  # noqa: S311
        self._made = 0
        self._audiences: dict[tuple[str, int, int], array[int]] = {}
        for _ in range(people):
            self._come()
        population = self.emulator.population
        population.during = self._during  # type: ignore[method-assign]
        population.record = self._record  # type: ignore[method-assign]

    @property
    def account(self) -> str:
        return self.emulator.environment["CLEVERTAP_ACCOUNT_ID"]

    def who(self, event: str, first: date, last: date) -> list[Person]:
        """Return the people with an event on some days."""
        return [
            person
            for person in self.people
            if any(first <= day <= last for day in person.did.get(event, ()))
        ]

    def pass_day(self, *, quiet: bool = False) -> None:
        """Let a day pass.

        Args:
            quiet: whether nothing changes but what people did on that day.
        """
        self.day += timedelta(days=1)
        random = self._random
        if not quiet:
            self._change()
        for person in self.people:
            for event, share in zip(EVENTS, (0.5, 0.15, 0.1), strict=True):
                if random.random() < share:
                    self._do(person, event, self.day)
        # In place, because the emulator looks for the people of a query once.
        for (event, first, last), found in self._audiences.items():
            found[:] = self._find(event, first, last)

    def _change(self) -> None:
        random = self._random
        for _ in range(5):
            self._come()
        for person in random.sample(self.people, 6):
            person.value += 1
        for person in random.sample(self.people, 2):
            person.devices.append(self._device())
        nameless = [one for one in self.people if not one.identity]
        for person in random.sample(nameless, min(4, len(nameless))):
            self._log_in(person)
        # Within the days that are brought again, and beyond.
        for back in (1, 1, 1, 2, 5):
            day = max(SINCE, self.day - timedelta(days=back))
            self._do(random.choice(self.people), random.choice(EVENTS), day)

    def _log_in(self, person: Person) -> None:
        known = [one for one in self.people if one.identity]
        if self._random.random() < 0.5:
            person.identity = self._name()
            return
        other = self._random.choice(known)
        other.devices += person.devices
        for event, days in person.did.items():
            other.did.setdefault(event, set()).update(days)
        self.people.remove(person)

    def _come(self) -> None:
        identity = self._name() if self._random.random() < 0.4 else None
        self.people.append(Person(identity, [self._device()], 0, {}))

    @staticmethod
    def _do(person: Person, event: str, day: date) -> None:
        person.did.setdefault(event, set()).add(day)

    def _name(self) -> str:
        self._made += 1
        return f"p{self._made}"

    def _device(self) -> str:
        self._made += 1
        # Not in the order in which they are made.
        return f"{self._random.randrange(16**4):04x}-{self._made}"

    def _during(self, event: str, first: int, last: int) -> array[int]:
        found = self._find(event, first, last)
        return self._audiences.setdefault((event, first, last), found)

    def _find(self, event: str, first: int, last: int) -> array[int]:
        people = self.who(event, date.fromordinal(first), date.fromordinal(last))
        numbers = {id(person): number for number, person in enumerate(self.people)}
        return array("I", [numbers[id(person)] for person in people])

    def _record(self, index: int, **_: Any) -> dict[str, Any]:
        person = self.people[index]
        record = {
            "profileData": {"value": person.value},
            "platformInfo": [{"platform": "iOS", "objectId": one} for one in person.devices],
        }
        return record if person.identity is None else {"identity": person.identity, **record}
