"""The table of faults in the guide is right: each fault, where it occurs, and what it becomes."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from altaprofiles import AltaProfilesError, Retry, Session, errors
from altaprofiles.emulator import Emulator, Fault

from ..support.guides import GUIDES

pytestmark = pytest.mark.anyio

DAYS: dict[str, Any] = {"start": 20260101, "end": 20260110, "batch_size": 23}

ONLY_FAILURES = {Fault.TEXT_CODES: Fault.SERVER_ERROR, Fault.TEXT_ERRORS: None}
"""Those that change a failure, by the fault that causes one; None for an unknown event."""


class Row(NamedTuple):
    """A row of the table: a fault, the operations that it touches, and the errors it becomes."""

    fault: str
    operations: set[str]
    errors: set[str]


def table() -> list[Row]:
    """Return the rows of the table in the guide."""
    text = (GUIDES / "testing.md").read_text("utf-8")
    lines = text.partition("| fault | what is sent |")[2].partition("\n\n")[0].splitlines()[2:]
    rows = []
    for line in lines:
        fault, _, operations, ends = line.removeprefix("|").removesuffix("|").split(" | ")
        places = {*CALLS} if operations == "all" else {*words(operations)}
        rows.append(Row(words(fault)[0], places, {*words(ends)} & {*errors.__all__}))
    return rows


def words(cell: str) -> list[str]:
    return re.findall(r"`(\w+)`", cell)


async def cursor_of(emulator: Emulator) -> str:
    """Return the cursor of a second page."""
    async with Session(clevertap=emulator.clevertap) as session:
        async for page in session.profiles.by_event("Charged", **DAYS).pages():
            assert page.next_cursor is not None
            return page.next_cursor
    raise AssertionError("there is one page")


async def walk(session: Session, **options: Any) -> int:
    """Return the number of people in a chain."""
    people = session.profiles.by_event("Charged", **DAYS, **options)
    return len([person async for person in people])


CALLS: dict[str, Callable[[Session, str], Coroutine[Any, Any, Any]]] = {
    "open_chain": lambda session, _: walk(session),
    "page": lambda session, cursor: walk(session, cursor=cursor),
    "profile": lambda session, _: session.profiles.get(identity="5555555555"),
    "count": lambda session, _: session.profiles.count("Charged", start=20260101, end=20260110),
    "cdp": lambda session, _: session.cdp.get(user_id="user_1"),
}
"""A call for each operation that a fault can meet. A chain has pages as well."""


@asynccontextmanager
async def session_at(emulator: Emulator, fault: str) -> AsyncIterator[Session]:
    """Open a session that gives up at once."""
    retry = Retry(
        attempts=1,
        base_delay=0.001,
        max_delay=0.001,
        throttle_timeout=0.001,
        # A count that is right is not ready at once either.
        ready_timeout=0.001 if "not_ready" in fault else 60.0,
    )
    async with Session(clevertap=emulator.clevertap, alta=emulator.alta, retry=retry) as session:
        yield session


async def result(call: Coroutine[Any, Any, Any]) -> Any:
    """Return what a call returns, or the name of its error."""
    try:
        return await call
    except AltaProfilesError as error:
        return type(error).__name__


def test_the_table_has_every_fault() -> None:
    assert [row.fault for row in table()] == [fault.value for fault in Fault]


async def test_each_fault_becomes_what_the_table_says(tmp_path: Path) -> None:
    async with Emulator(people=300) as emulator:
        cursor = await cursor_of(emulator)
        async with session_at(emulator, "") as session:
            right = {name: await result(call(session, cursor)) for name, call in CALLS.items()}
        assert right["page"] > 23
        for fault, operations, kinds in table():
            if fault in ONLY_FAILURES or fault == Fault.ODD_RECORD:
                continue
            emulator.faults = {fault: 1}
            for name, call in CALLS.items():
                # Every chain has pages, and one that begins with a cursor is not opened.
                occurs = name in operations or (name == "open_chain" and "page" in operations)
                before = emulator.stats.faults[fault]
                async with session_at(emulator, fault) as session:
                    found = await result(call(session, cursor))
                is_counted = emulator.stats.faults[fault] > before
                case = (fault, name, found)
                if not occurs:
                    assert (found, is_counted) == (right[name], False), case
                elif not kinds:
                    assert found == right[name], case
                elif kinds != {"Incomplete"}:
                    assert found in kinds, case
                    assert is_counted, case
            if kinds == {"Incomplete"}:
                async with session_at(emulator, fault) as session:
                    output = tmp_path / f"{fault}.ndjson"
                    export = session.export("Charged", **DAYS, to=output, count=True)
                    assert await result(export) == "Incomplete", fault


async def test_an_odd_record_is_read_as_the_table_says() -> None:
    [row] = [row for row in table() if row.fault == Fault.ODD_RECORD]
    assert row.errors == {"DecodeError"}
    async with Emulator(people=300) as emulator:
        cursor = await cursor_of(emulator)
        async with session_at(emulator, "") as session:
            right = {name: await result(call(session, cursor)) for name, call in CALLS.items()}
            emulator.faults = {Fault.ODD_RECORD: 1}
            for name, call in CALLS.items():
                before = emulator.stats.faults[row.fault]
                found = await result(call(session, cursor))
                occurs = name in row.operations or name == "open_chain"
                assert (emulator.stats.faults[row.fault] > before) == occurs
                assert name == "profile" or found == right[name]
            people = [one async for one in session.profiles.by_event("Charged", **DAYS)]
            people += filter(None, [await session.profiles.get(identity="5555555555")])
        assert people[-1].identity == "5555555555"
        for person in people:
            assert (type(person.name), type(person.phone), person.last_seen_at) == (str, str, None)
            parts = ["profile_data", "events", *(["platform_info"] if person.identity else [])]
            for part in parts:
                with pytest.raises(errors.DecodeError):
                    getattr(person, part)
            assert person.identity or person.platform_info or person.object_id


async def test_faults_that_change_a_failure_cause_none() -> None:
    async with Emulator(people=20) as emulator:
        for fault, kinds in ((row.fault, row.errors) for row in table()):
            if fault not in ONLY_FAILURES:
                continue
            cause = ONLY_FAILURES[Fault(fault)]
            event = "Charged" if cause else "Unheard Of"
            emulator.faults = dict.fromkeys({fault, cause or fault}, 1.0)
            async with session_at(emulator, fault) as session:
                found = await result(session.profiles.count(event, start=20260101, end=20260110))
            assert emulator.stats.faults[fault] == 1
            assert found in (kinds or {"ServerError"})
