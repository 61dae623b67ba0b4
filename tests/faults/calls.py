"""Every call of a session on the small account, and what it has to bring."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from altaprofiles import AltaProfilesError, Session

from .account import BIG, BIG_PAGES, COUNT, EVENT, NOBODY, PAGES, PEOPLE, POLLED, SHARED

__all__ = ["CALLS", "Call", "Found"]

RANGE: dict[str, Any] = {"start": 20260101, "end": 20260131}
SMALL = [person.record for page in PAGES for person in page]
LARGE = [person.record for page in BIG_PAGES for person in page]
KEYS = ["id-0", "id-1", NOBODY, "id-2", "id-0", "id-3", "id-4", "id-6"]


class Found(NamedTuple):
    """The outcome of a call: its items, and the errors of single keys."""

    items: list[Any]
    errors: Sequence[AltaProfilesError] = ()


class Call(NamedTuple):
    """One call.

    Attributes:
        run: makes the call, in a folder of its own.
        expected: the items that are right, in any order.
        answers: how many answers it takes.
    """

    run: Callable[[Session, Path], Awaitable[Found]]
    expected: list[Any]
    answers: int = 1

    def is_right(self, found: Found) -> bool:
        """Return True if `found` has everything, and each item once."""
        return not found.errors and _counted(found.items) == _counted(self.expected)

    def is_sound(self, found: Found) -> bool:
        """Return True if nothing in `found` is wrong, and all that it misses has an error."""
        wrong = _counted(found.items) - _counted(self.expected)
        missing = len(self.expected) - len(found.items)
        return not wrong and missing == len(found.errors)


def _counted(items: list[Any]) -> Counter[str]:
    return Counter(map(repr, items))


def _get(**key: Any) -> Callable[[Session, Path], Awaitable[Found]]:
    async def run(session: Session, folder: Path) -> Found:
        person = await session.profiles.get(**key)
        return Found([None if person is None else person.raw])

    return run


def _users(found: dict[str, Any] | None) -> list[Any]:
    return [
        (
            key,
            user.user_id,
            *[(one.anonymous_id, one.conversation_type) for one in user.anonymous_ids],
        )
        for key, user in (found or {}).items()
    ]


def _expected_users(*people: int) -> list[Any]:
    names = [PEOPLE[number].identity for number in people]
    return [(name, name, (f"anon-{name}", "WEB")) for name in names if name is not None]


def _cdp(**key: Any) -> Callable[[Session, Path], Awaitable[Found]]:
    async def run(session: Session, folder: Path) -> Found:
        return Found(_users(await session.cdp.get(**key)))

    return run


async def _get_many(session: Session, folder: Path) -> Found:
    items, errors = [], []
    async for lookup in session.profiles.get_many(KEYS, by="identity"):
        if lookup.error is not None:
            errors.append(lookup.error)
        else:
            items.append((lookup.key, lookup.value and lookup.value.raw))
    return Found(items, errors)


async def _cdp_many(session: Session, folder: Path) -> Found:
    items, errors = [], []
    async for lookup in session.cdp.get_many(KEYS, by="user_id"):
        if lookup.error is not None:
            errors.append(lookup.error)
        else:
            items.append((lookup.key, _users(lookup.value)))
    return Found(items, errors)


async def _with_cdp(session: Session, folder: Path) -> Found:
    items, errors = [], []
    async for customer in session.with_cdp(session.profiles.by_event(EVENT, **RANGE)):
        if customer.error is not None:
            errors.append(customer.error)
        else:
            assert customer.profile is not None
            items.append((customer.profile.raw, _users(customer.cdp)))
    return Found(items, errors)


def _people(event: str, **options: Any) -> Callable[[Session, Path], Awaitable[Found]]:
    async def run(session: Session, folder: Path) -> Found:
        people = session.profiles.by_event(event, **RANGE, **options)
        return Found([person.raw async for person in people])

    return run


def _pages(event: str, *, decode: bool) -> Callable[[Session, Path], Awaitable[Found]]:
    async def run(session: Session, folder: Path) -> Found:
        pages = session.profiles.by_event(event, **RANGE).pages(decode=decode)
        return Found([record async for page in pages for record in page.encode().splitlines()])

    return run


def _count(event: str) -> Callable[[Session, Path], Awaitable[Found]]:
    async def run(session: Session, folder: Path) -> Found:
        return Found([await session.profiles.count(event, **RANGE)])

    return run


def _export(
    event: str, name: str, read: Callable[[Path], list[Any]], **options: Any
) -> Callable[[Session, Path], Awaitable[Found]]:
    async def run(session: Session, folder: Path) -> Found:
        output = folder / name
        report = await session.export(event, **RANGE, to=output, windows=1, resume=False, **options)
        found = read(output)
        assert report.complete
        assert report.people == len(found)
        return Found(found)

    return run


async def _export_lookups(session: Session, folder: Path) -> Found:
    output = folder / "found.ndjson"
    report = await session.export_lookups(KEYS, by="identity", to=output, resume=False)
    assert report.complete
    missing = (folder / "found.ndjson.not-found.txt").read_text().split()
    return Found([*output.read_bytes().splitlines(), *missing])


def _lines(path: Path) -> list[Any]:
    return path.read_bytes().splitlines()


def _cells(path: Path) -> list[Any]:
    with path.open(encoding="utf-8", newline="") as file:
        return [(row["identity"], row["email"], row["name"]) for row in csv.DictReader(file)]


def _record_cells(record: bytes) -> tuple[str, str, str]:
    person = json.loads(record)
    return person.get("identity", ""), person["email"], person["name"]


_LOOKUPS = [
    (key, next((person.record for person in PEOPLE if person.identity == key), None))
    for key in KEYS
]
_USERS = [
    (key, [] if key == NOBODY else _expected_users(int(key.removeprefix("id-")))) for key in KEYS
]

CALLS = {
    "get-identity": Call(_get(identity="id-1"), [PEOPLE[1].record]),
    "get-email": Call(_get(email=PEOPLE[2].email), [PEOPLE[2].record]),
    "get-object-id": Call(_get(object_id=PEOPLE[5].object_id), [PEOPLE[5].record]),
    "get-nobody": Call(_get(identity=NOBODY), [None]),
    "get-many": Call(_get_many, _LOOKUPS, len(KEYS)),
    "people": Call(_people(EVENT), SMALL, 4),
    "people-one-ahead": Call(_people(EVENT, prefetch=0), SMALL, 4),
    "pages": Call(_pages(EVENT, decode=False), SMALL, 4),
    "large-people": Call(_people(BIG), LARGE, 3),
    "large-pages": Call(_pages(BIG, decode=False), LARGE, 3),
    "count": Call(_count(EVENT), [COUNT]),
    "count-polled": Call(_count(POLLED), [COUNT], 2),
    "cdp-user": Call(_cdp(user_id="id-3"), _expected_users(3)),
    "cdp-shared": Call(_cdp(anonymous_id=SHARED), _expected_users(0, 1)),
    "cdp-nobody": Call(_cdp(user_id=NOBODY), []),
    "cdp-many": Call(_cdp_many, _USERS, len(KEYS)),
    "with-cdp": Call(
        _with_cdp,
        [
            (one.record, [] if one.identity is None else _expected_users(number))
            for number, one in enumerate(PEOPLE)
        ],
        10,
    ),
    "export": Call(_export(EVENT, "people.ndjson", _lines), SMALL, 4),
    "export-counted": Call(_export(EVENT, "people.ndjson", _lines, count=True), SMALL, 5),
    "export-csv": Call(
        _export(EVENT, "people.csv", _cells), [_record_cells(record) for record in SMALL], 4
    ),
    "export-large": Call(_export(BIG, "people.ndjson", _lines), LARGE, 3),
    "export-lookups": Call(
        _export_lookups,
        [NOBODY, *dict.fromkeys(value for _, value in _LOOKUPS if value is not None)],
        len(set(KEYS)),
    ),
}
