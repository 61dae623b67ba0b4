"""The recipes of the guide on DataFrames count what is true of people whom the test knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from altaprofiles import Session
from altaprofiles.emulator import Emulator

from ..support.guides import GUIDES, document_at


def person(identity: str | None, *devices: str) -> dict[str, Any]:
    platforms = [{"platform": "Android", "objectId": device} for device in devices]
    named = {} if identity is None else {"identity": identity}
    return named | {"platformInfo": platforms}


MONTHS = {
    # Each line is one person, in January and in February.
    202601: [
        person(None, "d1"),
        person("ann", "d2"),
        person(None, "d3"),
        person("dan"),
        person(None, "d8"),
    ],
    202602: [
        person("bob", "d6", "d1"),
        person("ann", "d9"),
        person(None, "d3"),
        person("dan"),
        person("cat", "d5"),
    ],
}


@pytest.mark.anyio
async def test_people_who_get_an_identity_are_retained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    absorbed = []
    for month, records in MONTHS.items():
        async with (
            Emulator(records=records) as emulator,
            Session(clevertap=emulator.clevertap) as session,
        ):
            await session.export(to=f"active-{month}.parquet")
            absorbed.append((await session.export(to="people.duckdb")).absorbed)
    names: dict[str, Any] = {}
    for example in document_at(GUIDES / "dataframes.md").examples():
        if "def retention(" in example.parsed:
            exec(example.parsed, names)  # noqa: S102
    names["retention"]()
    assert capsys.readouterr().out == (
        "cohort, month, people: "
        "[('202601', '202601', 5), ('202601', '202602', 4), ('202602', '202602', 1)]\n"
    )
    # One table has them once, and forgets the months.
    assert absorbed == [0, 1]
