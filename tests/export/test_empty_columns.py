"""Warnings of flattened properties that nobody has: of one run, into tables that have rows."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from altaprofiles import Session, SyncReport
from altaprofiles.emulator import Emulator

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["duckdb", "postgres", "folder"])
def to(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    # Manifests of tables are in the current folder.
    monkeypatch.chdir(tmp_path)
    if request.param == "postgres":
        address: str = request.getfixturevalue("postgres").url()
        return address
    return {"duckdb": "crm.duckdb", "folder": "lake/"}[request.param]


def record(name: str, day: int, **properties: Any) -> dict[str, Any]:
    at = int(datetime(2026, 11, day, 12, tzinfo=UTC).timestamp())
    events = {"Charged": {"count": 1, "first_seen": at, "last_seen": at}}
    return {"identity": name, "profileData": properties, "events": events}


PEOPLE = [record("ann", 1, Sofa="L"), record("bo", 9, Plan="x"), record("cy", 10, Plan="y")]


async def night(session: Session, to: str, until: int, *flatten: str) -> SyncReport:
    return await session.sync(
        "Charged",
        since=20261101,
        until=20261100 + until,
        timezone="UTC",
        late_days=0,
        to=to,
        flatten=flatten,
    )


def warning(name: str, hint: str = "") -> str:
    brought = f"this run brought nobody with the property {name!r}"
    return f"{brought}, so that it leaves the column empty{hint}"


@pytest.mark.parametrize("first", [1, 8])
async def test_a_column_that_earlier_runs_have_filled_is_not_called_empty(
    to: str, first: int
) -> None:
    async with (
        Emulator(records=PEOPLE) as emulator,
        Session(clevertap=emulator.clevertap) as session,
    ):
        # The second night brings those without it, or nobody at all.
        for until in (first, 8, 9, 10):
            report = await night(session, to, until, "Sofa")
            assert not [text for text in report.warnings if "Sofa" in text]


async def test_a_misspelt_property_is_warned_of_by_the_run_that_adds_its_column(to: str) -> None:
    async with (
        Emulator(records=PEOPLE) as emulator,
        Session(clevertap=emulator.clevertap) as session,
    ):
        assert (
            warning("Sofo", "; did you mean 'Sofa'?")
            in (await night(session, to, 8, "Sofo")).warnings
        )
        assert (await night(session, to, 9, "Sofo")).warnings == []
        added = (await night(session, to, 10, "Sofo", "Plam")).warnings
        assert warning("Plam", "; did you mean 'Plan'?") in added
        assert not [text for text in added if "Sofo" in text]


async def test_a_misspelt_property_is_warned_of_by_the_first_run_with_people(to: str) -> None:
    people = [record("ann", 2, Sofa="L"), record("bo", 3, Sofa="M")]
    async with (
        Emulator(records=people) as emulator,
        Session(clevertap=emulator.clevertap) as session,
    ):
        assert not [one for one in (await night(session, to, 1, "Sofo")).warnings if "Sofo" in one]
        expected = warning("Sofo", "; did you mean 'Sofa'?")
        assert (await night(session, to, 2, "Sofo")).warnings == [expected]
        assert (await night(session, to, 3, "Sofo")).warnings == []


async def test_another_account_finds_the_column_of_the_first(to: str) -> None:
    for people, until in ((PEOPLE, 8), (PEOPLE[1:], 9)):
        async with (
            Emulator(records=people, seed=until) as emulator,
            Session(clevertap=emulator.clevertap) as session,
        ):
            report = await night(session, to, until, "Sofa")
            assert not [text for text in report.warnings if "Sofa" in text]


async def test_an_export_that_replaces_the_rows_is_warned_of_its_own(to: str) -> None:
    async with (
        Emulator(records=PEOPLE) as emulator,
        Session(clevertap=emulator.clevertap) as session,
    ):
        adds = "append" if to.endswith("/") else "upsert"
        runs: list[tuple[int, Any, list[str]]] = [
            (1, adds, []),
            (9, adds, []),
            (9, "replace", [warning("Sofa")]),
        ]
        for day, write, warnings in runs:
            report = await session.export(
                "Charged",
                start=20261100 + day,
                end=20261100 + day,
                to=to,
                flatten=["Sofa"],
                write=write,
            )
            assert report.warnings == warnings
