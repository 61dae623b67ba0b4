"""Properties of people and of the events that they do: what filters are about. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .activity import EVENTS

if TYPE_CHECKING:
    from .person import Person
    from .settings import RecordSize

__all__ = ["EVENT_PROPERTIES", "SIGNUP", "event_properties", "profile_properties"]

SIGNUP = 1_600_000_000
"""The earliest time of anything that people did, in epoch seconds."""

_OTHER = ("Battery", "Channel", "Offline", "Screens", "Campaign")
EVENT_PROPERTIES = dict.fromkeys(EVENTS, _OTHER) | {
    "Charged": ("Amount", "Payment mode", "Gift", "Items", "Coupon"),
    "Product Viewed": ("Price", "Category", "In Stock", "Tags", "Coupon"),
    "Added to Cart": ("Price", "Category", "In Stock", "Tags", "Coupon"),
}
"""The names of an event's properties, by event: a number, a text, a boolean, a list of texts, and a
text that a third of the people have."""

_SAMPLE_PROFILES: tuple[dict[str, Any], ...] = (
    {"favoriteFood": "pizza"},
    {"Last Score": 308, "High Score": 308, "Replayed": True},
)
_TEXTS = {
    "Payment mode": ("Credit Card", "UPI", "Cash on delivery", "Wallet"),
    "Category": ("Books", "Kids' books", "Shoes", "Crème & Café"),
    "Channel": ("organic", "e-mail", "push", "パートナー"),
}
_LISTS = {
    "Items": ("book", "lamp", "chair", "café au lait"),
    "Tags": ("new", "sale", "eco", "🎁"),
    "Screens": ("home", "search", "cart", "profile"),
}

_FOODS: tuple[Any, ...] = (
    "pizza", 7, True, ["sushi", "tacos"], {"name": "soup", "spicy": False, "rank": 2},
    "crème brûlée", False, 3.5, ["寿司"], None, "bread", "",
)  # fmt: skip
_SCORES: tuple[Any, ...] = (308, "308", 12.25, 0, -4, 9007199254740993, "n/a", True)
_TAGS: tuple[Any, ...] = (
    ["vip", "beta"], "vip", ["new"], [], ["a,b", "c\"d", "e\\f"], "vip;beta", ["🎁", "été"],
)  # fmt: skip
_PLANS = ("free", "pro", "team", None, "Pro ")
_CITIES = ("Mumbai", "São Paulo", "東京", "Zürich", "Ho Chi Minh City", "Nairobi")
# Text that misleads parsers which search the bytes for keys.
_NOTES = (
    'said "next_cursor":"x" and left',
    '{"status":"fail","code":1}',
    "}],\"records\":[{",
    "C:\\temp\\new",
    "ends with a backslash \\",
    "first line\nsecond\tline\r\n",
    "👩‍👩‍👧 family plan 🎉",
    "\u2028line and paragraph\u2029 separators, \u0007 a bell",
    "next_cursor",
    "ordinary remark, nothing to see",
    "<b>bold</b> & more",
)  # fmt: skip


def profile_properties(person: Person, size: RecordSize = "small") -> dict[str, Any]:
    """Return the free-form properties of a person, some 50 more if they are of a real size."""
    if person.number < len(_SAMPLE_PROFILES):
        return dict(_SAMPLE_PROFILES[person.number])
    data = _drawn(person.draw, person.number)
    return data | _more(person.draw) if size == "real" else data


def _more(draw: bytes) -> dict[str, Any]:
    return {
        f"custom attribute {number}": value
        for number in range(13)
        for number, value in (
            (4 * number, draw[number : number + 6].hex()),
            (4 * number + 1, draw[number] << 8 | draw[number + 1]),
            (4 * number + 2, draw[number + 2] < 128),
            (4 * number + 3, f"$D_{SIGNUP + (draw[number] << 16)}"),
        )
    }


def event_properties(event: str, draw: bytes) -> dict[str, Any]:
    """Return the properties with which someone does an event, the same each time.

    Args:
        event: the name of the event.
        draw: 8 random bytes of this person and this event.
    """
    number, text, truth, listed, rare = EVENT_PROPERTIES[event]
    texts, items = _TEXTS[text], _LISTS[listed]
    amount = draw[0] << 8 | draw[1]
    found: dict[str, Any] = {
        # Whole numbers as well as fractions, from 0 to 655.35.
        number: amount // 100 if draw[2] < 64 else amount / 100,
        text: texts[draw[3] % len(texts)],
        truth: draw[4] < 128,
        listed: [items[(draw[5] + slot) % len(items)] for slot in range(1 + draw[5] % 3)],
    }
    if draw[6] < 85:
        found[rare] = f"{rare.upper()}-{draw[6] % 10}"
    return found


def _drawn(draw: bytes, index: int) -> dict[str, Any]:
    data: dict[str, Any] = {
        "Customer Type": ("Gold", "Silver", "Platinum", "Bronze")[draw[32] % 4],
        "Signup Date": f"$D_{SIGNUP + (draw[33] << 16 | draw[34] << 8 | draw[35])}",
        "favoriteFood": _FOODS[draw[36] % len(_FOODS)],
        "Last Score": _SCORES[draw[37] % len(_SCORES)],
        "note": _NOTES[draw[38] % len(_NOTES)],
        "Plan": _PLANS[draw[39] % len(_PLANS)],
        "Referral Code": draw[40:46].hex().upper(),
        "Preferred Language": ("en", "pt-BR", "ja", "de", "vi")[draw[45] % 5],
        "Favourite Store": _CITIES[draw[44] % len(_CITIES)],
    }
    bits = draw[47]
    if bits & 1:
        data["Tags"] = _TAGS[draw[46] % len(_TAGS)]
    if bits & 2:
        city = _CITIES[draw[48] % len(_CITIES)]
        place = {"city": city, "geo": {"lat": draw[49] / 4, "lon": -draw[50] / 4}, "unit": None}
        data["Address"] = place if draw[48] & 64 else f"{index % 900} Main St, {city}"
    if bits & 4:
        data["Replayed"] = (True, "true", 1)[draw[51] % 3]
    if bits & 8:
        data["Cart Value"] = (draw[52] << 8 | draw[53]) / 100
    if bits & 16:
        data["MSG-email"] = draw[54] < 128
    if bits & 32:
        data["Interests"] = ["outdoor & garden", "books", "jazz 🎷"][: 1 + draw[55] % 3]
    if bits & 64:
        data["Last Visited URL"] = f"https://shop.example.com/p/{draw[56:60].hex()}?ref=mail&x=%2F"
    if bits & 128:
        data["Loyalty ID"] = index * 7919 if draw[60] < 128 else str(index * 7919)
    return data
