"""The people of the emulated account: from a number to a person, and from a key to a number.

Those of the seed are a function of it and of their number. Their keys hold the number in disguise,
so that a million people need no index. People whom a test has added follow them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from .activity import EVENTS, Activity, day_number
from .dice import Dice
from .filters import read_filters
from .person import Person
from .properties import event_properties, profile_properties
from .records import NAMES, SAMPLE_DEVICES, SAMPLE_EMAIL, SAMPLE_IDENTITY, render, standard_fields
from .roster import Roster

if TYPE_CHECKING:
    from array import array
    from collections.abc import Iterable, Mapping, Sequence

    from .filters import Filter
    from .roster import Member
    from .settings import RecordSize

__all__ = ["Population"]

_WORD = 2**32
_SPREAD = 0x9E3779B1  # odd, hence invertible modulo 2**32
_UNSPREAD = pow(_SPREAD, -1, _WORD)

_NUMERIC_TEXT = 7_000_000_000
_NUMERIC_JSON = 8_000_000_000
_PLATFORMS = ("Android", "iOS", "Web", "Android", "Windows", "Web", "iOS")
_TAGS = ("news", "test", "a+b", "shop")
_DOMAINS = ("example.com", "example.org", "mail.example.net")

# Identities that need percent-encoding in a query, most in a way that careless clients get wrong.
_TRICKY = (
    "team {n}/å",
    "a+b={n}",
    "R&D#{n}",
    "50%{n}",
    "田中・{n}",
    "Zoë?x={n}&y",
    "🙂{n}",
    "DOMAIN\\{n}",
    'the "{n}"',
    "{n};v,@:!",
)


class Population:
    """Everyone in the account, computed on demand: the ground truth for tests.

    People are numbered from 0 to `len(population) - 1`, first those of the seed, then those who
    were added, in the order in which they are delivered. Person 0 of the seed is the sample of
    CleverTap's page on cursors, person 1 that of its page on lookups by ID. Everyone of the seed
    has done an event in any 365 days, so that "all events over the past 365 days" is everyone.
    Someone who does an event does it with the same properties each time: `event_properties`
    returns them, and `EVENT_PROPERTIES` in `altaprofiles.emulator.properties` has their names.

    Attributes:
        drawn: the number of people of the seed.
        roster: the people who were added.
        record_size: "small" or "real".
    """

    def __init__(self, people: int, seed: int, record_size: RecordSize = "small") -> None:
        self.drawn = people
        self.roster = Roster()
        self.record_size: RecordSize = record_size
        self._dice = Dice(seed)
        self._shift = self._dice.number("shift")
        self._activity = Activity(people, self._dice)

    def __repr__(self) -> str:
        return f"<Population of {len(self)}, {len(self.roster)} added>"

    def __len__(self) -> int:
        return self.drawn + len(self.roster)

    def add(self, records: Iterable[dict[str, Any]]) -> None:
        """Add people by their records, which have been checked.

        A record takes the place of one that was added with the same identity.
        """
        self.roster = self.roster.adding(records)

    @property
    def events(self) -> tuple[str, ...]:
        """The names of the events of the seed and of all records that were added."""
        return tuple(dict.fromkeys((*EVENTS, *self.roster.events)))

    def knows(self, event: str) -> bool:
        """Return True if people can be asked for by this event.

        While a record that was added is about no event, its person did every event there is.
        """
        return event in self.events or self.roster.knows_all_events()

    def record(
        self,
        index: int,
        *,
        app: bool = False,
        events: bool = True,
        profile: bool = True,
        turn: int = 0,
    ) -> dict[str, Any]:
        """Return the record of a person, as the service sends it.

        Args:
            index: the person's number.
            app, events, profile: the flags of the query.
            turn: rotates the devices of a person without identity. Each query has its own.

        Raises:
            IndexError: the number is out of range.
        """
        if (member := self._member(index)) is not None:
            record: dict[str, Any] = member.record(app=app, events=events, profile=profile)
            return record
        return render(
            self.person(index),
            self._activity.events_of(index) if events else None,
            app=app,
            profile=profile,
            turn=turn,
            size=self.record_size,
        )

    def identity(self, index: int) -> str | None:
        """Return a person's identity, as text even if the record holds a number."""
        if (member := self._member(index)) is not None:
            return member.identity
        identity = self.person(index).identity
        return None if identity is None else str(identity)

    def email(self, index: int) -> str | None:
        """Return a person's e-mail address, or None."""
        member = self._member(index)
        return self.person(index).email if member is None else member.email

    def object_ids(self, index: int) -> list[str]:
        """Return the objectIds of a person's devices. Not empty if there is no identity."""
        if (member := self._member(index)) is not None:
            return list(member.object_ids)
        person = self.person(index)
        known = [object_id for _, object_id in person.devices if object_id is not None]
        return known if person.homeless is None else [person.homeless]

    def event_properties(self, index: int, event: str) -> dict[str, Any]:
        """Return the properties with which a person does an event, if at all.

        Raises:
            KeyError: the event is unknown.
        """
        if (member := self._member(index)) is not None:
            return member.event_properties(event)
        return event_properties(event, self._dice.token(8, "event properties", event, index))

    def active(
        self,
        event: str,
        start: int,
        end: int,
        *,
        event_properties: Sequence[Mapping[str, Any]] = (),
        profile_fields: Sequence[Mapping[str, Any]] = (),
    ) -> list[int]:
        """Return the numbers of the people who did `event`, in the order of delivery.

        Args:
            event: the name of an event.
            start, end: the range, both inclusive: YYYYMMDD or epoch seconds. Epoch seconds stand
                for their whole day in UTC.
            event_properties, profile_fields: filters as in a query, such as
                `{"name": "Amount", "operator": "greater_than", "value": 100}`. All must hold.
                Those of the profile are about `profileData`, and about the standard fields Email,
                Identity, Name and Phone. Upper and lower case differ.

        Raises:
            ValueError: `start` or `end` is not a date, or a filter is invalid.
            KeyError: the event is unknown.
        """
        found = self.during(event, day_number(start), day_number(end))
        of_event = read_filters([*event_properties], "event_properties")
        of_profile = read_filters([*profile_fields], "profile_fields")
        return [index for index in found if self.fits(index, event, of_event, of_profile)]

    def everyone(self, *, profile_fields: Sequence[Mapping[str, Any]] = ()) -> list[int]:
        """Return the numbers of all people for whom the filters hold, in the order of delivery.

        Raises:
            ValueError: a filter is invalid.
        """
        filters = read_filters([*profile_fields], "profile_fields")
        return [index for index in self.in_order() if self.fits(index, None, (), filters)]

    def fits(
        self,
        index: int,
        event: str | None,
        event_filters: Sequence[Filter],
        profile_filters: Sequence[Filter],
    ) -> bool:
        """Return True if all filters hold for a person, those of the event for its properties.

        Filters of the profile are about Email, Identity, Name and Phone as well.
        """
        if event is not None and event_filters:
            properties = self.event_properties(index, event)
            if not all(one.holds(properties) for one in event_filters):
                return False
        if profile_filters:
            properties = self._fields(index)
            return all(one.holds(properties) for one in profile_filters)
        return True

    def _fields(self, index: int) -> dict[str, Any]:
        if (member := self._member(index)) is not None:
            return member.fields()
        person = self.person(index)
        properties = profile_properties(person, self.record_size)
        # The dashboard spells them with a capital, and minds the case as for any other name.
        return properties | {name.title(): value for name, value in standard_fields(person).items()}

    def in_order(self) -> array[int]:
        """Return the numbers of all people in the order of delivery, in 4 bytes a person."""
        numbers = self._activity.everyone()
        numbers.extend(range(self.drawn, len(self)))
        return numbers

    def during(self, event: str, first: int, last: int) -> array[int]:
        """Return the numbers of those who did an event from the first day to the last.

        Days are proleptic ordinals. The order is that of delivery, with 4 bytes a person.

        Raises:
            KeyError: the event is unknown.
        """
        if not self.knows(event):
            raise KeyError(event)
        numbers = self._activity.during(event, first, last)
        numbers.extend(
            number
            for number, member in enumerate(self.roster.members, self.drawn)
            if member.did(event, first, last)
        )
        return numbers

    def find(self, by: str, key: str) -> int | None:
        """Return the number of the person with this key, or None.

        Args:
            by: "email", "identity" or "objectId".
            key: the exact value, as text. People who were added are found first.
        """
        if (place := self.roster.find(by, key)) is not None:
            return self.drawn + place
        for index in self._candidates(by, key):
            if not 0 <= index < self.drawn:
                continue
            if by == "objectId":
                if key in self.object_ids(index):
                    return index
            elif key == (self.email(index) if by == "email" else self.identity(index)):
                return index
        return None

    def hide(self, index: int, slot: int) -> str:
        """Return 8 hex digits that stand for a person's number and a slot from 0 to 7."""
        return f"{((index << 3 | slot) * _SPREAD + self._shift) % _WORD:08x}"

    def reveal(self, digits: str) -> int:
        """Return the number that `hide` put into `digits`, or any number for other digits."""
        return (int(digits, 16) - self._shift) * _UNSPREAD % _WORD >> 3

    def person(self, index: int) -> Person:
        """Return the person of the seed with this number.

        Raises:
            IndexError: the number is out of range.
        """
        if not 0 <= index < self.drawn:
            raise IndexError(f"person {index} of {self.drawn}")
        draw = self._dice.token(64, index)
        if index == 0:
            return Person(0, draw, SAMPLE_IDENTITY, None, SAMPLE_DEVICES, None)
        if index == 1:
            devices: list[tuple[str, str | None]] = [
                (platform, self._object_id(1, draw, slot, platform))
                for slot, (platform, _) in enumerate(SAMPLE_DEVICES)
            ]
            return Person(1, draw, None, SAMPLE_EMAIL, devices, None)
        nameless = draw[0] < 20
        homeless = nameless and draw[4] < 16
        return Person(
            index,
            draw,
            None if nameless else self._draw_identity(index, draw),
            _draw_email(index, draw) if draw[2] < (100 if nameless else 240) else None,
            [] if homeless else self._draw_devices(index, draw, nameless),
            self._object_id(index, draw, 0, "iOS") if homeless else None,
        )

    def _member(self, index: int) -> Member | None:
        """Return the person who was added under a number, or None for one of the seed."""
        is_member = self.drawn <= index < len(self)
        return self.roster.members[index - self.drawn] if is_member else None

    def _draw_identity(self, index: int, draw: bytes) -> str | int:
        style = draw[1]
        if style < 40:
            return str(_NUMERIC_TEXT + index)
        if style < 60:
            return _NUMERIC_JSON + index
        if style < 140:
            rest = draw[16:28].hex()
            return f"{self.hide(index, 7)}-{rest[:4]}-4{rest[4:7]}-a{rest[7:10]}-{rest[12:24]}"
        if style < 200:
            return f"user_{index}"
        return _TRICKY[style % len(_TRICKY)].format(n=index)

    def _draw_devices(
        self, index: int, draw: bytes, nameless: bool
    ) -> list[tuple[str, str | None]]:
        count = sum(draw[3] >= floor for floor in (12, 128, 205, 241))
        devices: list[tuple[str, str | None]] = []
        for slot in range(max(count, 1) if nameless else count):
            platform = _PLATFORMS[(draw[9] + 3 * slot) % len(_PLATFORMS)]
            unknown = not nameless and (draw[10] + 61 * slot) % 256 < 12
            object_id = None if unknown else self._object_id(index, draw, slot, platform)
            devices.append((platform, object_id))
        return devices

    def _object_id(self, index: int, draw: bytes, slot: int, platform: str) -> str:
        digits = self.hide(index, slot) + draw[16 + slot : 28 + slot].hex()
        if platform == "Web":
            return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
        # The SDKs' own IDs begin so, where the customer has set none.
        if platform == "Android" and draw[10] & 6:
            return f"__g{digits}" if draw[10] & 2 else f"__{digits}"
        return f"-{digits}" if draw[10] & 1 else digits

    def _candidates(self, by: str, key: str) -> list[int]:
        hidden = re.match(r"(?:-|__g?)?([0-9a-f]{8})", key)
        candidates = [0, 1] + ([self.reveal(hidden[1])] if hidden else [])
        for digits in (
            re.findall(r"(?<![0-9])[0-9]{1,12}(?![0-9])", key) if by != "objectId" else ()
        ):
            number = int(digits)
            candidates += (number, number - _NUMERIC_TEXT, number - _NUMERIC_JSON)
        return candidates


def _draw_email(index: int, draw: bytes) -> str:
    _, mailbox = NAMES[draw[6] % len(NAMES)]
    tag = f"+{_TAGS[draw[2] % len(_TAGS)]}" if draw[14] < 100 else ""
    return f"{mailbox}{index}{tag}@{_DOMAINS[draw[15] % len(_DOMAINS)]}"
