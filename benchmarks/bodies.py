"""Records, pages and cursors of the benchmark server. Deterministic, no I/O."""

from __future__ import annotations

import json
import random
from base64 import b64encode
from hashlib import shake_256
from typing import Any
from urllib.parse import quote

__all__ = ["PLACE", "cursor", "page_ending", "page_opening", "place", "record", "records"]

PLACE = b"ppppppppp"
"""A placeholder in every identifier of a record, as long as the result of `place`."""

_SUMMARY = 78
"""Length of the summary of one event, in bytes."""

_CITIES = ("Pune", "Delhi", "Mumbai", "Berlin", "Lyon", "Osaka", "Austin", "Leeds")
_EVENTS = ("App Launched", "Charged", "Product Viewed", "Added To Cart", "Search", "Logout")
_MODELS = ("iPhone15,2", "SM-G991B", "Pixel 8", "Redmi Note 12")
_WORDS = " ".join(random.Random(7).choices(_CITIES, k=600))  # noqa: S311


def record(number: int, size: int) -> bytes:
    """Return a person's record of exactly `size` bytes, of 1,000 or more.

    Most of a large one are summaries of events, as in real accounts. It holds no `$`, single quote
    or backslash, which have a meaning in nginx's configuration.
    """
    chance = random.Random(number)  # noqa: S311
    name = f"u{PLACE.decode()}{number:07}"
    seen = 1_700_000_000
    person: dict[str, Any] = {
        "identity": name,
        "email": f"{name}@example.com",
        "name": f"Person {number}",
        "phone": f"+9198{chance.randrange(10**8):08}",
        "profileData": {
            "City": chance.choice(_CITIES),
            "Plan": chance.choice(("free", "gold", "trial")),
            "Score": chance.randrange(1000),
            "Balance": round(chance.random() * 1000, 2),
            "Tags": chance.sample(_CITIES, 3),
            "note": "",
        },
        "events": {
            event: {
                "count": chance.randrange(1, 300),
                "first_seen": seen + chance.randrange(10**6),
                "last_seen": seen + 10**6 + chance.randrange(10**6),
            }
            for event in _EVENTS
        },
        "platformInfo": [
            {
                "platform": chance.choice(("iOS", "Android")),
                "os_version": f"1{chance.randrange(8)}.{chance.randrange(6)}",
                "app_version": f"3.{chance.randrange(20)}.1",
                "make": "Maker",
                "model": chance.choice(_MODELS),
                "push_token": f"{chance.getrandbits(192):048x}",
                "objectId": f"-g{name}",
            }
        ],
    }
    for kind in range((size - 2000) // _SUMMARY):
        first, last = seen + chance.randrange(10**6), seen + 10**6 + chance.randrange(10**6)
        count = chance.randrange(10, 100)
        person["events"][f"Viewed Section {kind:03}"] = {
            "count": count,
            "first_seen": first,
            "last_seen": last,
        }
    bare = json.dumps(person, separators=(",", ":"))
    start = chance.randrange(1000)
    note = _WORDS[start : start + size - len(bare)]
    return bare.replace('"note":""', f'"note":"{note}"').encode()


def records(count: int, size: int) -> bytes:
    """Return `count` records of `size` bytes, as between the `[` and `]` of a page."""
    return b",".join([record(number, size) for number in range(count)])


def place(chain: int, page: int) -> bytes:
    """Return the replacement for `PLACE` that makes the people of one page unique."""
    return b"%03d%06d" % (chain, page)


def cursor(chain: int, page: int) -> str:
    """Return the cursor of one page, percent-encoded; like real ones it has some 300 bytes."""
    filling = b64encode(shake_256(b"%d/%d" % (chain, page)).digest(200)).decode()
    return quote(f"{filling}/{chain}.{page}=", safe="")


def page_opening(following: str | None, *, cursor_last: bool) -> bytes:
    """Return a page's body up to its first record; `following` is the next page's cursor."""
    named = "" if following is None or cursor_last else f'"next_cursor":"{following}",'
    return f'{{"status":"success",{named}"records":['.encode()


def page_ending(following: str | None, *, cursor_last: bool) -> bytes:
    """Return a page's body after its last record; `following` is the next page's cursor."""
    return f'],"next_cursor":"{following}"}}'.encode() if following and cursor_last else b"]}"
