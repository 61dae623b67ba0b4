"""CleverTap records of people. Knows nothing of requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .activity import SAMPLES
from .properties import SIGNUP, profile_properties

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .person import Person
    from .settings import RecordSize

__all__ = [
    "NAMES",
    "SAMPLE_DEVICES",
    "SAMPLE_EMAIL",
    "SAMPLE_IDENTITY",
    "render",
    "standard_fields",
]

SAMPLE_IDENTITY = "5555555555"
SAMPLE_EMAIL = "jack+test@example.com"
SAMPLE_DEVICES: list[tuple[str, str | None]] = [
    ("iOS", "-1a063854f83a4c6484285039ecff87cb"),
    ("Web", "a8ffcbc9-a747-4ee3-a791-c5e58ad03097"),
]
_SAMPLE_PUSH_TOKEN = "95f98af6ad9a5e714a56c5bf527a78cb1e3eda18d2f23bc8591437d0d8ae71a3"  # noqa: S105
_SAMPLE_EVENTS = {
    "App Launched": {"count": 10, "first_seen": 1457271567, "last_seen": 1458041215},
    "Charged": {"count": 6, "first_seen": 1457962417, "last_seen": 1458041276},
}

NAMES = (
    ("Ana Sousa", "ana.sousa"),
    ("Zoë Müller-Łukasz", "zoe"),
    ("Siobhán O'Brien", "s.obrien"),
    ("田中 美咲", "misaki"),
    ("Дмитрий Иванов", "d.ivanov"),
    ("محمد علي", "m.ali"),
    ("प्रिया शर्मा", "priya_sharma"),
    ("김민준", "minjun-kim"),
    ("Nguyễn Thị Hoa", "hoa"),
    ("John \"Jack\" Doe", "jack"),
    ("Chris 🚀 Lee", "Chris.Lee"),
    ("Ελένη Παππά", "eleni"),
)  # fmt: skip
"""Names, each with the mailbox of its owner."""

_MODELS = {
    "iOS": ("17.5", "Apple", "iPhone15,2"),
    "Android": ("14", "Samsung", "SM-G991B"),
    "Web": ("", "", ""),
    "Windows": ("10.0.19045", "Microsoft", "Surface Pro"),
}


_AREAS = (
    *("home", "search", "cart", "checkout", "wallet", "profile", "video", "chat"),
    *("coupon", "store", "order", "refund", "invite", "quiz", "onboarding", "settings"),
)
_ACTIONS = (
    *("viewed", "opened", "closed", "clicked", "scrolled", "shared", "failed", "retried"),
    *("requested", "verified", "started", "completed", "cancelled", "rated", "saved", "expired"),
)
_CUSTOM_EVENTS = tuple(f"app_{area}_{action}" for action in _ACTIONS for area in _AREAS)
_TIMES = tuple(
    (
        1 + (number * 7919) % 300,
        SIGNUP + (number * 104_729) % 40_000_000,
        SIGNUP + 40_000_000 + (number * 15_485_863) % 40_000_000,
    )
    for number in range(512)
)


def render(
    person: Person,
    events: Sequence[str] | None,
    *,
    app: bool,
    profile: bool,
    turn: int,
    size: RecordSize = "small",
) -> dict[str, Any]:
    """Return the record of `person`.

    Args:
        person: the person.
        events: the names in the event summary, or None for a record without it.
        app: True to add the app fields of devices.
        profile: True to add the free-form properties.
        turn: rotates the devices of a person without identity.
        size: "real" for some 170 events, and more properties. The two samples stay as they are.
    """
    draw = person.draw
    sample = person.number < SAMPLES
    record = standard_fields(person)
    if profile:
        record["profileData"] = profile_properties(person, size)
    if events is not None:
        record["events"] = _SAMPLE_EVENTS if sample else _summary(draw, events)
        if size == "real" and not sample:
            record["events"] |= _custom_events(draw)
    devices = [_device(person, slot, app=app, sample=sample) for slot in range(len(person.devices))]
    if person.identity is None and devices:
        start = turn % len(devices)
        devices = devices[start:] + devices[:start]
    record["platformInfo"] = devices
    if not sample:
        _extras(record, person, devices)
    return record


def standard_fields(person: Person) -> dict[str, Any]:
    """Return the fields of a person that every account has, by their keys in a record."""
    draw = person.draw
    fields: dict[str, Any] = {}
    if person.email is not None:
        fields["email"] = person.email
    if person.identity is not None:
        fields["identity"] = person.identity
    if person.number >= SAMPLES:
        if person.identity is not None or draw[20] < 128:
            fields["name"] = NAMES[draw[6] % len(NAMES)][0]
        if draw[5] < 128:
            phone = 12_025_550_000 + person.number
            fields["phone"] = phone if draw[5] < 32 else f"+{phone}"
    return fields


def _summary(draw: bytes, names: Sequence[str]) -> dict[str, dict[str, int]]:
    summary = {}
    for slot, name in enumerate(names):
        first = SIGNUP + (draw[24 + slot] << 17 | draw[25 + slot] << 9)
        last = first + (draw[26 + slot] << 13)
        summary[name] = {"count": 1 + draw[27 + slot], "first_seen": first, "last_seen": last}
    return summary


def _custom_events(draw: bytes) -> dict[str, dict[str, int]]:
    names = _CUSTOM_EVENTS[: 140 + draw[9] % 64]
    start = draw[10]
    return {
        name: {"count": count, "first_seen": first, "last_seen": last}
        for name, (count, first, last) in zip(names, _TIMES[start:], strict=False)
    }


def _device(person: Person, slot: int, *, app: bool, sample: bool) -> dict[str, Any]:
    platform, object_id = person.devices[slot]
    draw = person.draw
    device: dict[str, Any] = {"platform": platform}
    bits = 255 if sample else draw[61] ^ (37 * slot)
    if app and platform != "Web":
        if sample:
            version, make, model = "10.2", "Apple", "iPhone7,2"
        else:
            version, make, model = _MODELS[platform]
        device["os_version"] = version
        device["app_version"] = "6.1.3"
        device["make"] = make
        device["model"] = model
    if platform != "Web" and bits & 3:
        if sample:
            device["push_token"] = _SAMPLE_PUSH_TOKEN
        else:
            device["push_token"] = _push_token(platform, draw, slot)
    if object_id is not None:
        device["objectId"] = object_id
    if bits & 12 == 0:
        device["phone"] = f"+{12_025_550_000 + person.number}"
    if not sample and bits & 48:
        device["ls"] = SIGNUP + (draw[33 + slot] << 18)
    if not sample and bits & 192 == 64:
        device["location"] = [draw[41 + slot] / 2 - 60, draw[45 + slot] * 1.25 - 150]
    return device


def _push_token(platform: str, draw: bytes, slot: int) -> str:
    if platform == "iOS":
        return draw[slot : 32 + slot].hex()
    return f"{draw[slot : 11 + slot].hex()}:APA91b{draw[:60].hex()}"


def _extras(record: dict[str, Any], person: Person, devices: list[dict[str, Any]]) -> None:
    """Add keys that the vendor's page does not list: some seen in answers, some made up."""
    draw = person.draw
    if person.homeless is not None:
        record["objectId"] = person.homeless
    elif draw[7] < 80:
        known = [device["objectId"] for device in devices if "objectId" in device]
        if known:
            record["objectId"] = known[0]
    if draw[8] < 60 and person.identity is not None:
        others = [] if person.email is None else [person.email]
        record["all_identities"] = [person.identity, *others]
    if draw[62] < 20:
        record["badKs"] = ["Old Key", "x" * (draw[62] + 1)]
    if draw[63] < 120:
        record["ls"] = SIGNUP + (draw[63] << 16)
    if draw[12] < 60:
        record["df"] = {"0": draw[13], "1": 136 + draw[14]}
    if draw[12] >= 244 and devices:
        # The keys of a device. Its phone would be the person's, or not, as devices rotate.
        taken = {*record, "phone"}
        record |= {key: value for key, value in devices[0].items() if key not in taken}
    if draw[62] >= 236:
        record["futureField"] = {"nested": [1, None, {"deep": "🙂"}], "n": 1e-7}
    if draw[63] >= 250:
        record["x/y~z"] = "unknown key"
