"""The record of one person. No I/O, and no rule of the API.

Records are decoded in two steps, because most callers read few fields: the top-level keys at once,
the nested parts on first access.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType, field
from msgspec.structs import force_setattr

from ..base.dates import moment
from ..base.jsontext import (
    FAILURES,
    check_utf8,
    decode_json,
    each_once,
    elements,
    one_line,
    parts,
    plain_text,
)
from ..tables.parts import NULL, begins, core_text
from .people import exact_identity, object_ids_of, person_key
from .platform import Platform, read_platforms
from .times import whole_number

__all__ = ["EventSummary", "Profile"]

V = TypeVar("V")


class EventSummary(Struct, frozen=True, gc=False):
    """Count and times of one event that a person did.

    Attributes:
        count: number of times in total.
        first_seen, last_seen: epoch seconds, or None if the service did not send them.
    """

    count: int = 0
    first_seen: int | None = None
    last_seen: int | None = None

    @property
    def first_seen_at(self) -> datetime | None:
        """`first_seen` as an aware datetime in UTC, or None, even for a time beyond year 9999."""
        return moment(self.first_seen)

    @property
    def last_seen_at(self) -> datetime | None:
        """`last_seen` as an aware datetime in UTC, or None, even for a time beyond year 9999."""
        return moment(self.last_seen)


class Profile(Struct, frozen=True, eq=False, omit_defaults=True, gc=False):
    """The record of one person.

    `identity`, `email`, `name`, `phone` and `object_id` are text or None, whatever JSON type the
    service sent: an identity or a phone that is a whole number, such as `9.1E3`, is that integer,
    and any other value stays as its JSON. `profile_data`, `events` and `platform_info` are decoded
    on first access, and raise `DecodeError` each time if they cannot be decoded, or do not have the
    documented shape. Unknown keys are kept in `raw`.

    A profile is the bytes in `raw`: by them it is equal to another one and has its hash, and a
    pickle or a `copy.deepcopy` is made of them. Its attributes cannot be set. `profile_data`,
    `events` and `platform_info` are decoded once, and whoever holds the profile, or a `copy.copy`
    of it, gets the same objects: copy these before you change them. To store or send a profile, use
    `encode()`: the fields of the struct itself are private.

    >>> profile = Profile.decode(b'{"identity": 7, "profileData": {"plan": "gold"}}')
    >>> profile.identity, profile.profile_data
    ('7', {'plan': 'gold'})
    """

    # Without a `__dict__` the garbage collector does not track profiles. Thousands created at once
    # would trigger it, and it blocks the event loop for longer than decoding a page takes. A part
    # decoded on first access replaces its bytes.
    _identity: Any = field(name="identity", default=None)
    _email: Any = field(name="email", default=None)
    _name: Any = field(name="name", default=None)
    _phone: Any = field(name="phone", default=None)
    _object_id: Any = field(name="objectId", default=None)
    _all_identities: Raw | UnsetType = field(name="all_identities", default=UNSET)
    _profile_data: Raw | UnsetType = field(name="profileData", default=UNSET)
    _events: Raw | UnsetType = field(name="events", default=UNSET)
    _platform_info: Raw | UnsetType = field(name="platformInfo", default=UNSET)
    _last_seen: Raw | UnsetType = field(name="ls", default=UNSET)
    _raw: Any = field(name="_raw", default=None)

    @classmethod
    def decode(cls, raw: bytes | Raw, path: str = "$") -> Profile:
        """Return the profile of the record `raw`.

        The bytes are copied, so that a profile does not keep its whole page in memory.

        Args:
            raw: a JSON object.
            path: JSON path of the record within its answer, for the error.

        Raises:
            DecodeError: `raw` is not a JSON object in UTF-8.
        """
        own = bytes(raw)
        check_utf8(own, path)
        try:
            profile: Profile = _PROFILE.decode(own)
        except FAILURES:
            profile = cls._of_parts(parts(own, path))
        force_setattr(profile, "_raw", own)
        return profile

    @classmethod
    def _of_parts(cls, sent: dict[str, Raw]) -> Profile:
        """Return the profile of a record that cannot be decoded as a whole."""
        core = [core_text(name, sent.get(name, NULL)) for name in _CORE]
        identity, email, name, phone, object_id = core
        later = (sent.get(part, UNSET) for part in _PARTS)
        return cls(identity, email, name, phone, object_id, *later)

    @property
    def raw(self) -> bytes:
        """The record's bytes as the service sent them, unknown keys included.

        They may contain line breaks, as the service pretty-prints at times: see `encode`.
        """
        raw: bytes | None = self._raw
        return msgspec.json.encode(self) if raw is None else raw

    def encode(self) -> bytes:
        """Return `raw` as one line of NDJSON, without the line break at the end.

        >>> Profile.decode(b'{"identity": "7",\\n "name": null}').encode()
        b'{"identity":"7","name":null}'
        """
        return one_line(self.raw)

    def _text(self, name: str, value: Any) -> str | None:
        if value is None or type(value) is str:
            return value
        if type(value) is int:
            return str(value)
        return core_text(name, parts(self.raw)[name])

    @property
    def identity(self) -> str | None:
        """The customer's own ID for this person."""
        return self._text("identity", self._identity)

    @property
    def email(self) -> str | None:
        """The person's e-mail address."""
        return self._text("email", self._email)

    @property
    def name(self) -> str | None:
        """The person's name."""
        return self._text("name", self._name)

    @property
    def phone(self) -> str | None:
        """The person's phone number."""
        return self._text("phone", self._phone)

    @property
    def object_id(self) -> str | None:
        """The record's top-level `objectId`. It identifies a device, not the person."""
        return self._text("objectId", self._object_id)

    @property
    def last_seen(self) -> int | None:
        """Time of the person's latest activity in epoch seconds: the record's top-level `ls`.

        None if the service did not send a whole number.
        """
        return whole_number(NULL if self._last_seen is UNSET else self._last_seen)

    @property
    def last_seen_at(self) -> datetime | None:
        """`last_seen` as an aware datetime in UTC, or None, even for a time beyond year 9999."""
        return moment(self.last_seen)

    @property
    def all_identities(self) -> list[str]:
        """Every identity that the service lists for this person; empty if it lists none."""
        listed = NULL if self._all_identities is UNSET else self._all_identities
        values = elements(listed) if begins(listed, b"[") else [listed]
        texts = (core_text("identity", value) for value in values)
        return [text for text in texts if text is not None]

    @property
    def profile_data(self) -> dict[str, Any]:
        """The person's free-form properties; empty for a query with `profile=False`.

        The same property may have different types in different records. Dates are strings such as
        `"$D_1487576752"`: see `parse_date`.

        Raises:
            DecodeError: `profileData` is not an object.
        """
        return self._object("_profile_data", _OBJECT, "$.profileData")

    @property
    def events(self) -> dict[str, EventSummary]:
        """Event summaries by event name; empty for a query with `events=False`.

        Raises:
            DecodeError: `events` does not have the documented shape.
        """
        return self._object("_events", _EVENTS, "$.events")

    @property
    def platform_info(self) -> list[Platform]:
        """The person's devices, in the order sent.

        Raises:
            DecodeError: `platformInfo` is not a list of objects.
        """
        part: Any = self._platform_info
        if isinstance(part, list):
            return part
        found = read_platforms(b"null" if part is UNSET else part)
        force_setattr(self, "_platform_info", found)
        return found

    @property
    def object_ids(self) -> list[str]:
        """The `objectId` of the record, then of each device, without duplicates.

        Raises:
            DecodeError: `platformInfo` is not a list of objects.
        """
        part: Any = self._platform_info
        if not isinstance(part, list):
            try:
                sent = [] if part is UNSET else _DEVICE_IDS.decode(part) or []
                return each_once((self.object_id, *(plain_text(one.object_id) for one in sent)))
            except FAILURES:
                pass
        return each_once((self.object_id, *(device.object_id for device in self.platform_info)))

    @property
    def person_key(self) -> str | None:
        """A key for the person: `identity:…`, else `objectId:…` of the least ID, else None.

        The keys of one person can differ where there is no identity: two such records belong to the
        same person if they share any `objectId`. A device that cannot be read is left out. A digest
        stands for a text with half a surrogate pair, so that different ones have different keys.
        """
        identity = exact_identity(self.identity, self.raw)
        return person_key(identity, () if identity else object_ids_of(self.raw, exact=True))

    def _object(
        self, name: str, decoder: msgspec.json.Decoder[dict[str, V] | None], path: str
    ) -> dict[str, V]:
        part: Any = getattr(self, name)
        if isinstance(part, dict):
            return part
        found = self._nested(decoder, part, path) or {}
        force_setattr(self, name, found)
        return found

    def _nested(self, decoder: msgspec.json.Decoder[V], part: Raw | UnsetType, path: str) -> V:
        return decode_json(decoder, b"null" if part is UNSET else part, path)

    def __eq__(self, other: object) -> bool:
        return self.raw == other.raw if isinstance(other, Profile) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.raw)

    def __repr__(self) -> str:
        return f"Profile(identity={self.identity!r}, email={self.email!r}, name={self.name!r})"

    def __copy__(self) -> Profile:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Profile:
        return Profile.decode(self.raw)

    def __reduce__(self) -> tuple[Any, ...]:
        return Profile.decode, (self.raw,)


class _DeviceId(Struct, gc=False):
    object_id: Raw = field(name="objectId", default=NULL)


_DEVICE_IDS = msgspec.json.Decoder(list[_DeviceId] | None)

_PROFILE = msgspec.json.Decoder(Profile)
_OBJECT = msgspec.json.Decoder(dict[str, Any] | None)
_EVENTS = msgspec.json.Decoder(dict[str, EventSummary] | None, strict=False)
_CORE = ("identity", "email", "name", "phone", "objectId")
_PARTS = ("all_identities", "profileData", "events", "platformInfo", "ls")
