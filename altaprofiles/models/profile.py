"""What the two services' answers become. No I/O, and no rule of either API.

Profiles are decoded in two steps, because most callers touch few fields: the record's own bytes and
its outer keys at once, the nested parts on first access.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType, field
from msgspec.structs import force_setattr

from ..base.jsontext import as_text, as_texts, check_utf8, decode_json, each_once
from .people import person_key

if TYPE_CHECKING:
    pass

__all__ = [
    "EventSummary",
    "Platform",
    "Profile",
    "parse_date",
]


V = TypeVar("V")


class EventSummary(Struct, frozen=True, gc=False):
    """How often and when a person did one event.

    Attributes:
        count: times in all.
        first_seen, last_seen: epoch seconds, or None where the service left them out.
    """

    count: int = 0
    first_seen: int | None = None
    last_seen: int | None = None

    @property
    def first_seen_at(self) -> datetime | None:
        """`first_seen` as an aware datetime in UTC."""
        return None if self.first_seen is None else datetime.fromtimestamp(self.first_seen, UTC)

    @property
    def last_seen_at(self) -> datetime | None:
        """`last_seen` as an aware datetime in UTC."""
        return None if self.last_seen is None else datetime.fromtimestamp(self.last_seen, UTC)


class Platform(Struct, frozen=True, gc=False):
    """One device or browser of a person. Everything but `platform` may be missing."""

    platform: str | None = None
    os_version: str | None = None
    app_version: str | None = None
    make: str | None = None
    model: str | None = None
    push_token: str | None = None
    object_id: str | None = None
    phone: str | None = None


class Profile(Struct, frozen=True, eq=False, omit_defaults=True, gc=False):
    """One person's record, as `Profile.decode` makes it from the bytes of one record.

    `identity`, `email`, `name`, `phone` and `object_id` are text or None, whatever JSON type the
    service used. `profile_data`, `events` and `platform_info` are decoded when first touched, and
    raise `DecodeError` then if they are not what the API describes. Keys this library does not know
    stand in `raw`. Two profiles are equal when their bytes are. To store or send one, take
    `encode()`: its other parts are an inner matter.

    >>> profile = Profile.decode(b'{"identity": 7, "profileData": {"plan": "gold"}}')
    >>> profile.identity, profile.profile_data
    ('7', {'plan': 'gold'})
    """

    # Without a `__dict__` the garbage collector does not know of profiles. Thousands that are made
    # at once would set it off, and it stops the loop for longer than decoding a page takes. What is
    # decoded on first touch takes the place of its bytes.
    _identity: Any = field(name="identity", default=None)
    _email: Any = field(name="email", default=None)
    _name: Any = field(name="name", default=None)
    _phone: Any = field(name="phone", default=None)
    _object_id: Any = field(name="objectId", default=None)
    _all_identities: Any = field(name="all_identities", default=None)
    _profile_data: Raw | UnsetType = field(name="profileData", default=UNSET)
    _events: Raw | UnsetType = field(name="events", default=UNSET)
    _platform_info: Raw | UnsetType = field(name="platformInfo", default=UNSET)
    _raw: Any = field(name="_raw", default=None)

    @classmethod
    def decode(cls, raw: bytes | Raw, path: str = "$") -> Profile:
        """Return the profile that the JSON object `raw` describes.

        The bytes are copied, so that one profile kept does not keep its whole page in memory.

        Args:
            raw: the record.
            path: where it stands in its answer, for the error.

        Raises:
            DecodeError: `raw` is not a JSON object in UTF-8.
        """
        own = bytes(raw)
        check_utf8(own, path)
        profile: Profile = decode_json(_PROFILE, own, path)
        force_setattr(profile, "_raw", own)
        return profile

    @property
    def raw(self) -> bytes:
        """The record's bytes as the service sent them, unknown keys included.

        The service pretty-prints at times: for one line a record, take `encode()`.
        """
        kept: bytes | None = self._raw
        return msgspec.json.encode(self) if kept is None else kept

    def encode(self) -> bytes:
        """Return `raw` without line breaks: a line of NDJSON, but for the break at its end.

        >>> Profile.decode(b'{"identity": "7",\\n "name": null}').encode()
        b'{"identity":"7","name":null}'
        """
        raw = self.raw
        if b"\n" not in raw and b"\r" not in raw:
            return raw
        try:
            return msgspec.json.format(raw, indent=-1)
        except msgspec.DecodeError:
            # A lone surrogate. Within strings line breaks are escaped: these are white space.
            return raw.translate(None, b"\r\n")

    @property
    def identity(self) -> str | None:
        """The customer's own ID for this person."""
        return as_text(self._identity)

    @property
    def email(self) -> str | None:
        return as_text(self._email)

    @property
    def name(self) -> str | None:
        return as_text(self._name)

    @property
    def phone(self) -> str | None:
        return as_text(self._phone)

    @property
    def object_id(self) -> str | None:
        """The record's top-level `objectId`: one device, not the person."""
        return as_text(self._object_id)

    @property
    def all_identities(self) -> list[str]:
        """Every identity the service lists for this person; empty when it lists none."""
        listed = self._all_identities
        return as_texts(listed if isinstance(listed, list) else [listed])

    @property
    def profile_data(self) -> dict[str, Any]:
        """The free-form properties. One property may have different types in different people."""
        return self._object("_profile_data", _OBJECT, "$.profileData")

    @property
    def events(self) -> dict[str, EventSummary]:
        """Event name to how often and when; empty for a query with `events=False`."""
        return self._object("_events", _EVENTS, "$.events")

    @property
    def platform_info(self) -> list[Platform]:
        """The person's devices, in the order sent."""
        kept: Any = self._platform_info
        if isinstance(kept, list):
            return kept
        found = [
            Platform(
                platform=as_text(device.get("platform")),
                os_version=as_text(device.get("os_version")),
                app_version=as_text(device.get("app_version")),
                make=as_text(device.get("make")),
                model=as_text(device.get("model")),
                push_token=as_text(device.get("push_token")),
                object_id=as_text(device.get("objectId")),
                phone=as_text(device.get("phone")),
            )
            for device in self._nested(_DEVICES, kept, "$.platformInfo") or ()
        ]
        force_setattr(self, "_platform_info", found)
        return found

    @property
    def object_ids(self) -> list[str]:
        """The `objectId` of the record and of each of its devices, each once, in that order."""
        devices: Any = self._platform_info
        if not isinstance(devices, list):
            devices = self._nested(_DEVICE_IDS, devices, "$.platformInfo") or ()
        return each_once([self._object_id, *(device.object_id for device in devices)])

    @property
    def person_key(self) -> str | None:
        """The person's name: `identity:…`, else `objectId:…` of the least of them, else None.

        Two records without an identity are one person when they share any of `object_ids`.
        """
        identity = self.identity
        return person_key(identity, () if identity else self.object_ids)

    def _object(
        self, name: str, decoder: msgspec.json.Decoder[dict[str, V] | None], path: str
    ) -> dict[str, V]:
        kept: Any = getattr(self, name)
        if isinstance(kept, dict):
            return kept
        found = self._nested(decoder, kept, path) or {}
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


_DATE = re.compile(r"\$D_(-?\d{1,11})")


def parse_date(value: str) -> datetime:
    """Return the moment that a date property such as `"$D_1487576752"` names, in UTC.

    CleverTap writes dates inside `profileData` as `$D_` and epoch seconds.

    Raises:
        ValueError: `value` is not of that form.

    >>> parse_date("$D_1487576752")
    datetime.datetime(2017, 2, 20, 7, 45, 52, tzinfo=datetime.timezone.utc)
    """
    if not isinstance(value, str) or not (match := _DATE.fullmatch(value)):
        raise ValueError(f"not a date property: {value!r}; expected '$D_' and epoch seconds")
    return datetime.fromtimestamp(int(match[1]), UTC)


class _DeviceId(Struct, gc=False):
    object_id: Any = field(name="objectId", default=None)


_DEVICE_IDS = msgspec.json.Decoder(list[_DeviceId] | None)

_PROFILE = msgspec.json.Decoder(Profile)
_OBJECT = msgspec.json.Decoder(dict[str, Any] | None)
_EVENTS = msgspec.json.Decoder(dict[str, EventSummary] | None, strict=False)
_DEVICES = msgspec.json.Decoder(list[dict[str, Any]] | None)
