"""The people whom tests bring along: their records, and the days on which they did an event.

Nothing here changes. A roster with more people is another one, so that a thread can add people
while another one answers requests.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from .activity import day_number
from .reply import encode_value
from .shape import identity_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = ["Member", "Roster"]

_OF_APPS = ("os_version", "app_version", "make", "model")
_STANDARD = ("email", "identity", "name", "phone")


class Member:
    """One person, by their record.

    Args:
        record: a record that has been checked. `properties` in the summary of an event are those
            with which the person did it, and are not sent.
    """

    def __init__(self, record: dict[str, Any]) -> None:
        summaries: dict[str, dict[str, Any]] | None = record.get("events")
        self._properties: dict[str, dict[str, Any]] = {}
        self._days: dict[str, tuple[int, ...]] = {}
        self.events = None if summaries is None else tuple(summaries)
        """The events that the person did, or None for every event on every day."""
        for event, summary in (summaries or {}).items():
            self._properties[event] = summary.pop("properties", None) or {}
            times = (summary.get("first_seen"), summary.get("last_seen"))
            self._days[event] = tuple(day_number(int(time)) for time in times if time is not None)
        self._json = encode_value(record)
        identity = record.get("identity")
        self.identity = None if identity is None else identity_of(identity)
        self.email: str | None = record.get("email")
        devices = [*(record.get("platformInfo") or ()), record]
        known = (device.get("objectId") for device in devices)
        self.object_ids = list(dict.fromkeys(one for one in known if one is not None))

    def record(self, *, app: bool = True, events: bool = True, profile: bool = True) -> Any:
        """Return a copy of the record, without the parts that the flags of a query leave out."""
        # msgspec reads no half of a surrogate pair.
        record = json.loads(self._json)
        if not events:
            record.pop("events", None)
        if not profile:
            record.pop("profileData", None)
        if not app:
            for device in record.get("platformInfo") or ():
                for name in _OF_APPS:
                    device.pop(name, None)
        return record

    def event_properties(self, event: str) -> dict[str, Any]:
        """Return the properties with which the person did an event."""
        return dict(self._properties.get(event, {}))

    def fields(self) -> dict[str, Any]:
        """Return the values that filters of the profile are about, those of every account too."""
        record = self.record()
        standard = {name.title(): record[name] for name in _STANDARD if name in record}
        return (record.get("profileData") or {}) | standard

    def did(self, event: str, first: int, last: int) -> bool:
        """Return True if the person did an event from one proleptic day number to another."""
        if self.events is None:
            return True
        return any(first <= day <= last for day in self._days.get(event, ()))

    def lookup_keys(self) -> Iterator[tuple[str, str]]:
        """Yield each key by which the person can be looked up, after the name of its kind."""
        if self.identity is not None:
            yield "identity", self.identity
        if self.email is not None:
            yield "email", self.email
        for object_id in self.object_ids:
            yield "objectId", object_id


class Roster:
    """People in the order in which they were added. Of two with a key, the first is found by it."""

    def __init__(self, members: Sequence[Member] = (), *, is_given: bool = False) -> None:
        self.members = tuple(members)
        self._is_given = is_given
        self._numbers: dict[tuple[str, str], int] = {}
        for number, member in enumerate(self.members):
            for key in member.lookup_keys():
                self._numbers.setdefault(key, number)
        named = (event for member in self.members for event in member.events or ())
        self.events = tuple(dict.fromkeys(named))
        """The names of the events in the records."""

    def __len__(self) -> int:
        return len(self.members)

    def adding(self, records: Iterable[dict[str, Any]]) -> Roster:
        """Return a roster with more people. A record takes the place of one of equal identity."""
        members = list(self.members)
        for member in map(Member, records):
            place = None
            if member.identity is not None:
                place = self._numbers.get(("identity", member.identity))
            if place is None:
                members.append(member)
            else:
                members[place] = member
        return Roster(members, is_given=True)

    def knows_all_events(self) -> bool:
        """Return True if any name is that of an event: nobody, or not everyone, has a summary."""
        everyone_has = bool(self.members) and all(one.events is not None for one in self.members)
        return self._is_given and not everyone_has

    def find(self, by: str, key: str) -> int | None:
        """Return the place of the person with this key, or None."""
        return self._numbers.get((by, key))
