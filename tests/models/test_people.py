"""Who is one person: the same answer from every room that asks."""

from __future__ import annotations

import gc
import json
import tracemalloc
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from altaprofiles import Page, Profile
from altaprofiles.export.tables import Content
from altaprofiles.flow.slices import at_once
from altaprofiles.models.page import new_people
from altaprofiles.models.people import Distinct, digest_of, identity_of, object_ids_of
from altaprofiles.tables.columns import Columns

from ..support.marks import told_apart
from ..support.odd import CASES, RECORDS, pretty
from ..support.sinks import ORIGIN, rows_of
from ..support.thorough import examples


def kept(records: Iterable[bytes]) -> list[int]:
    """Return the places of the records that are the first of their person."""
    seen = Distinct()
    return [
        number for number, record in enumerate(records) if seen.is_new(identity_of(record), record)
    ]


@pytest.mark.parametrize("name", CASES)
def test_a_person_is_new_once(tmp_path: Path, name: str) -> None:
    records, first = CASES[name]
    assert kept(records) == first
    assert kept(map(pretty, records)) == first
    rows = rows_of(records)
    for matching in (False, True):
        found = told_apart(rows, tmp_path / "marks", matching=matching)
        assert found == [rows[number] for number in first]


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("neither")])
def test_records_with_neither_have_a_key_for_each_person(name: str) -> None:
    records, first = CASES[name]
    keys = persons(records)
    assert [keys.index(key) for key in dict.fromkeys(keys)] == first


@pytest.mark.parametrize("decode", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_a_page_is_left_with_new_people_however_it_was_read(name: str, decode: bool) -> None:
    records, first = CASES[name]
    seen = Distinct()
    found: list[bytes] = []
    for start in range(0, len(records), 2):
        profiles = [Profile.decode(record) for record in records[start : start + 2]]
        page = Page.of(profiles, b"", "c", None, (1, 2))
        if not decode:
            page = Page(page.records, b"", "c", None, (1, 2))
        left = at_once(new_people(page, seen))
        assert [profile.raw for profile in left.profiles] == left.records
        assert left.encode() == b"".join(record + b"\n" for record in left.records)
        assert (left.cursor, left.next_cursor, left.window) == ("c", None, (1, 2))
        found += left.records
    assert found == [records[number] for number in first]


def persons(records: list[bytes]) -> list[str]:
    """Return the column `person` of each record."""
    table = Content().table({}, None, ORIGIN)
    cells: list[str] = table.cells(rows_of(records))[1]
    return cells


@pytest.mark.slow
@settings(max_examples=examples(40, 200), deadline=None)
@given(records=st.lists(RECORDS, min_size=1, max_size=4))
@example(records=[b'{"identity":1.50}', b'{"identity":"1.50"}'])
def test_every_room_knows_a_person_by_the_same(records: list[bytes]) -> None:
    columns = Columns(records, ())
    for number, record in enumerate(records):
        profile = Profile.decode(record)
        again = Profile.decode(pretty(record))
        identity = columns.texts[0][number]
        assert identity == identity_of(record) == profile.identity == again.identity
        ids = columns.object_ids[number]
        assert ids == object_ids_of(record) == object_ids_of(pretty(record))
        assert profile.person_key == again.person_key
        texts = [profile.email, profile.name, profile.phone]
        assert texts == [again.email, again.name, again.phone]
        assert texts == [column[number] for column in columns.texts[1:]]
        # A digest stands for a mended text, which is escaped inside a list.
        if not identity and ids and not any(half in "".join(ids) for half in ("\ufffd", r"\ufffd")):
            assert profile.person_key == f"objectId:{min(ids)}"
    # One identity, or one record with neither, has one key, and others have another one.
    named = [
        number
        for number in range(len(records))
        if columns.texts[0][number] or not columns.object_ids[number]
    ]
    keys = persons(records)
    first = [number for number in named if keys.index(keys[number]) == number]
    assert kept([records[number] for number in named]) == [named.index(one) for one in first]


TEXTS = {
    "letters": "user-7",
    "no ASCII": "Zoë",
    "the escape of a lone surrogate": r"\ud83d",
    "a backslash": "a\\b",
    "NUL": "a\0b",
    "500 characters": "x" * 500,
    "501 characters": "x" * 501,
    "as long as an index can hold": "x" * 1000,
    "too long for an index": "x" * 1001,
    "too long for an index in UTF-8": "é" * 501,
    "a lone surrogate": "a\ud83d",
    "another lone surrogate": "a\ud83e",
    "the character for a lone surrogate": "a\ufffd",
    "its escape": r"a\ufffd",
}
DIGESTED = {
    "NUL",
    "too long for an index",
    "too long for an index in UTF-8",
    "a lone surrogate",
    "another lone surrogate",
}


@pytest.mark.parametrize("kind", ["identity", "objectId"])
def test_each_text_makes_a_person_of_its_own_that_any_database_can_hold(kind: str) -> None:
    records = [json.dumps({kind: text}).encode() for text in TEXTS.values()]
    expected = [
        f"{kind}:{digest_of(text) if name in DIGESTED else text}" for name, text in TEXTS.items()
    ]
    assert persons(records) == expected
    assert len({*expected}) == len(TEXTS)
    assert kept([*records, *records]) == [*range(len(TEXTS))]


def test_devices_in_any_order_make_one_key() -> None:
    for ids in (["b", "a\0", "c"], ["c", "b", "a\0"]):
        [key] = persons([json.dumps({"platformInfo": [{"objectId": one} for one in ids]}).encode()])
        assert key == "objectId:b"


@pytest.mark.parametrize("identity", ["7", "Zoë"])
def test_an_identity_outranks_devices(identity: str) -> None:
    record = json.dumps({"identity": identity, "objectId": "d"}).encode()
    assert persons([record]) == [f"identity:{identity}"]


def test_a_person_takes_some_hundred_bytes_whatever_the_identity() -> None:
    count = 25_000
    for length in (6, 36, 1000):
        gc.collect()
        tracemalloc.start()
        seen = Distinct()
        for number in range(count):
            seen.is_new(f"{number:0{length}}", b"")
        taken, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert taken / count < 150
