"""Sessions that do not wait between retries, and their expected results."""

from __future__ import annotations

from collections import Counter
from datetime import date
from typing import Any

import msgspec

from altaprofiles import CleverTap, Filter, Profile, Retry, Session
from altaprofiles.emulator import Emulator

from .servers import Scripted

QUICK = Retry(base_delay=0.001, max_delay=0.01)
"""Retries as often as the default, without waiting."""


EVENT = "App Launched"


START, END = date(2026, 1, 1), date(2026, 1, 31)


RANGE: dict[str, Any] = {"start": START, "end": END}


def session_for(emulator: Emulator, **options: Any) -> Session:
    return Session(
        clevertap=emulator.clevertap,
        alta=emulator.alta,
        **{"retry": QUICK, **options},
    )


def session_at(server: Scripted) -> Session:
    return Session(clevertap=CleverTap("id", "passcode", base_url=server.url), retry=QUICK)


def sent(*filters: Filter) -> list[dict[str, Any]]:
    """Return filters as the emulator's population takes them."""
    plain: list[dict[str, Any]] = msgspec.json.decode(msgspec.json.encode(filters))
    return plain


def expected(emulator: Emulator, event: str = EVENT) -> Counter[frozenset[str]]:
    population = emulator.population
    return Counter(
        frozenset(
            [identity]
            if (identity := population.identity(index)) is not None
            else population.object_ids(index)
        )
        for index in population.active(event, 20260101, 20260131)
    )


def delivered(people: list[Profile]) -> Counter[frozenset[str]]:
    return Counter(
        frozenset([person.identity] if person.identity is not None else person.object_ids)
        for person in people
    )
