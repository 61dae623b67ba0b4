"""A model of tables that exports update, and the records that the tests put into them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st
from msgspec import Struct

__all__ = ["RUNS", "Entry", "Model", "Night", "person", "record", "time_of"]


def record(identity: str | None, devices: Iterable[str], value: Any = 0) -> bytes:
    """Return the record of a person with these devices, and a value in `profileData`."""
    ids = [{"objectId": device} for device in devices]
    data: dict[str, Any] = {"profileData": {"value": value}, "platformInfo": ids}
    return json.dumps(data if identity is None else {"identity": identity, **data}).encode()


def time_of(hour: int) -> datetime:
    """Return the time at which the export of an hour was begun."""
    return datetime(2026, 2, 1, tzinfo=UTC) + timedelta(hours=hour)


class Entry(Struct, frozen=True):
    """A person in a record: identity or None, devices, and a value."""

    identity: str | None
    devices: tuple[str, ...]
    value: int


class Night(Struct, frozen=True):
    """One export: the hour at which it was begun, its account, and its people."""

    hour: int
    account: str
    people: tuple[Entry, ...]


def person(entry: Entry) -> str:
    """Return the key of a person who has an identity or a device."""
    return f"identity:{entry.identity}" if entry.identity else f"objectId:{min(entry.devices)}"


class Row(Struct):
    account: str
    entry: Entry
    fetched: int
    added: int


class Model:
    """A table of people, as a list. Each rule is a loop."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.absorbed = 0

    def upsert(self, night: Night) -> None:
        self.absorbed = 0
        earlier = [row for row in self.rows if row.account == night.account]
        others = [row for row in self.rows if row.account != night.account]
        new = _first_of_each(night.people)
        claimed: list[Row] = []
        taken: list[Row] = []
        put: list[Row] = []
        grown: list[tuple[Row, int]] = []
        for entry, devices in new:
            if not entry.identity:
                claimed += [row for row in earlier if _is_same(row.entry, entry, devices)]
        absorbed: list[Row] = []
        for entry, devices in new:
            became = [row for row in earlier if _is_same(row.entry, entry, devices)]
            later = [row for row in became if row.fetched > night.hour]
            if entry.identity:
                guests = [
                    row
                    for row in earlier
                    if not row.entry.identity
                    and {*row.entry.devices} & devices
                    and not any(row is one for one in claimed)
                    and row.fetched <= night.hour
                ]
                absorbed += [row for row in guests if not any(row is one for one in absorbed)]
                became += guests
            added = min((row.added for row in became), default=night.hour)
            taken += [row for row in became if not any(row is one for one in later)]
            if later:
                grown += [(row, added) for row in later]
                continue
            equal = [row for row in became if row.entry == entry]
            fetched = equal[0].fetched if equal else night.hour
            put.append(Row(night.account, entry, fetched, added))
        for row, added in grown:
            row.added = min(row.added, added)
        kept = [row for row in earlier if not any(row is one for one in taken)]
        self.absorbed = len(absorbed)
        self.rows = [*others, *kept, *put]

    def content(self) -> list[tuple[Any, ...]]:
        """Return the rows, sorted: account, person, devices, value, and the two hours."""
        return sorted(
            (row.account, person(row.entry), row.entry.devices, row.entry.value, row.fetched,
             row.added)
            for row in self.rows
        )  # fmt: skip


def _is_same(old: Entry, new: Entry, devices: set[str]) -> bool:
    if old.identity or new.identity:
        return old.identity == new.identity
    return bool({*old.devices} & devices)


def _first_of_each(people: Sequence[Entry]) -> list[tuple[Entry, set[str]]]:
    """Return the first entry of each person, with the devices of all that are left out for it."""
    found: list[tuple[Entry, set[str]]] = []
    # The place in `found` of each identity, and of each device of those without one.
    places: dict[str, int] = {}
    entries: dict[str, int] = {}
    for number, entry in enumerate(people):
        names = [f"identity {entry.identity}"] if entry.identity else [*entry.devices]
        # The earliest entry that it has anything of, and so that entry's person.
        known = [name for name in names if name in entries]
        if known:
            place = places[min(known, key=lambda name: entries[name])]
            found[place][1].update(entry.devices)
        else:
            place = len(found)
            found.append((entry, {*entry.devices}))
        for name in names:
            entries.setdefault(name, number)
            places.setdefault(name, place)
    return found


_ENTRIES = st.builds(
    Entry,
    st.sampled_from([None, None, "a", "b"]),
    st.lists(st.sampled_from("12345"), min_size=1, max_size=3, unique=True).map(tuple),
    st.integers(0, 2),
)

RUNS = st.lists(
    st.builds(
        Night,
        st.integers(0, 5),
        st.sampled_from(["A", "A", "B"]),
        st.lists(_ENTRIES, max_size=5).map(tuple),
    ),
    min_size=1,
    max_size=5,
)
"""Several exports into one table, some of them later than others that were begun after them."""
