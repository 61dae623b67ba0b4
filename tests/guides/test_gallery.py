"""The notebook gallery runs in a kernel of Jupyter, and draws what is true of the people."""

from __future__ import annotations

import json
import re
from base64 import b64decode
from collections import Counter
from io import BytesIO
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd  # type: ignore[import-untyped]
import pytest
from PIL import Image

from ..support.guides import GUIDES
from ..support.notebooks import executed, shown_as, text_of
from ..support.odd_people import ODD_PEOPLE, with_odd_people
from .gallery import PICTURE, cells

DRAWN = """
import json
print(json.dumps({
    "title": ax.get_title(),
    "scales": [one for axes in fig.axes for one in (axes.get_xlabel(), axes.get_ylabel()) if one],
    "x": [one.get_text() for one in ax.get_xticklabels()],
    "y": [one.get_text() for one in ax.get_yticklabels()],
    "bold": [one.get_text() for one in ax.get_yticklabels() if one.get_weight() == "bold"],
    "bars": {
        bars.get_label(): [[bar.get_width(), bar.get_height()] for bar in bars]
        for bars in ax.containers
    },
    "cells": [image.get_array().tolist() for image in ax.images],
    "texts": [text.get_text() for text in ax.texts],
}, default=lambda number: number.item()))
"""
"""A cell that prints what the chart of the cell before shows."""

TRUTH = """
services = {"sales": shop, "support": support}
active = {
    event: {*shop.population.active(event, 20260101, 20260131)}
    for event in ["App Launched", "Charged", "Product Viewed"]
}
print(json.dumps([
    {
        "record": shop.population.record(number),
        "did": [event for event in active if number in active[event]],
        "agents": [
            name
            for name, service in services.items()
            if (key := shop.population.identity(number)) and service.bindings.by_user(key)
        ],
    }
    for number in set.union(*active.values())
]))
"""
"""A cell that prints what the emulators know of everyone who should be in the charts."""


def test_a_kernel_draws_the_gallery(tmp_path: Path) -> None:
    notebook = []
    for cell in cells():
        # Small pages have the JSON of the records in other spellings as well.
        run = cell.replace('to="people.parquet",', 'to="people.parquet", batch_size=46,')
        notebook += [run, DRAWN] if "plt.show()" in cell else [run]
    notebook.insert(-1, TRUTH)
    outputs = executed(tmp_path, notebook)
    assert [text_of(one, "stderr") for one in outputs] == [""] * len(notebook)

    pictures = [picture for one in outputs for picture in shown_as(one, "image/png")]
    assert [ink(picture) > 0.05 for picture in pictures] == [True] * 4
    bars = [html for one in outputs for html in shown_as(one, "text/html")]
    # Of the export and two look-ups; every report updates the same element of the page.
    assert [html.startswith('<progress value="1.000"') for html in bars] == [True] * 3

    people = json.loads(text_of(outputs[-2]))
    assert text_of(outputs[1]) == f"{len(people)} people\n"
    charts = [json.loads(text_of(one)) for one in outputs if text_of(one).startswith('{"title"')]
    reach, cohorts, agents, types = charts
    assert_reach(reach, people)
    assert_cohorts(cohorts, people)
    assert_agents(agents, people)
    assert_types(types, people)
    picture = PICTURE.read_text("utf-8")
    for text in (text for chart in charts for text in (chart["title"], *chart["texts"])):
        assert f">{text}</text>" in picture, "run: python -m tests.guides.gallery"


def test_odd_records_stop_no_cell(tmp_path: Path) -> None:
    start, export, *others = cells()
    odd = 'shop.faults = {"odd_record": 0.5}'
    count = "print(shop.stats.faults['odd_record'] > 0, int(reach.any(axis=1).sum()))"
    notebook = [start, odd, export, *others[:-1], count, others[-1]]
    outputs = executed(tmp_path, notebook)
    people = text_of(outputs[2]).split()[0]
    assert text_of(outputs[-2]) == f"True {people}\n"


@pytest.mark.anyio
async def test_people_without_a_readable_answer_can_be_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with with_odd_people() as session:
        await session.export(to="people.parquet")
    readable = {
        one["identity"] for one in ODD_PEOPLE if isinstance(one.get("profileData", {}), dict)
    }
    people = pd.read_parquet("people.parquet", dtype_backend="numpy_nullable")
    left = eval(code_in("gallery.md", "people[people"), {"people": people})  # noqa: S307
    assert {*left["identity"]} == readable != {*people["identity"]}
    where = code_in("export-and-resume.md", "WHERE coalesce(json_type")
    rows = duckdb.execute(f"SELECT identity FROM 'people.parquet' {where}").fetchall()
    assert {identity for (identity,) in rows} == readable


def code_in(guide: str, beginning: str) -> str:
    """Return the only code in a guide's text that begins so."""
    text = (GUIDES / guide).read_text("utf-8")
    (code,) = re.findall(rf"`({re.escape(beginning)}[^`\n]*)`", text)
    return str(code)


def test_nobody_stops_no_cell(tmp_path: Path) -> None:
    start, *others = cells()
    nobody = (
        "nobody = await emulators.enter_async_context(Emulator(records=[]))\n"
        "os.environ |= nobody.environment"
    )
    outputs = executed(tmp_path, [start, nobody, *others])
    assert text_of(outputs[2]) == "0 people\n"


def ink(picture: str) -> float:
    """Return the share of a picture's pixels that are not white."""
    grey = Image.open(BytesIO(b64decode(picture))).convert("L")
    return 1 - grey.histogram()[255] / (grey.width * grey.height)


def assert_reach(chart: dict[str, Any], people: list[dict[str, Any]]) -> None:
    expected = Counter[str]()
    for person in people:
        record = person["record"]
        properties = record["profileData"]
        devices = record.get("platformInfo", [])
        addresses = {
            "e-mail": "email" in record and is_yes(properties.get("MSG-email", True)),
            "push": any("push_token" in device for device in devices)
            and is_yes(properties.get("MSG-push", True)),
            "SMS": "phone" in record and is_yes(properties.get("MSG-sms", True)),
            "WhatsApp": "phone" in record and is_yes(properties.get("MSG-whatsapp", False)),
        }
        channels = [channel for channel, reaches in addresses.items() if reaches]
        expected.update(channels or ["none of them"])
    assert chart["title"] == f"Reach of {len(people)} people"
    assert chart["scales"] == ["channel", "people"]
    [heights] = ([height for _, height in bars] for bars in chart["bars"].values())
    assert dict(zip(chart["x"], heights, strict=True)) == expected
    assert chart["texts"] == [str(expected[channel]) for channel in chart["x"]]
    # Some say no as text.
    answers = {person["record"]["profileData"].get("MSG-push") for person in people}
    assert "false" in answers
    # Every rule of consent decides something.
    assert len({*heights}) == 5


def is_yes(answer: bool | str) -> bool:
    return answer in (True, "true")


def assert_cohorts(chart: dict[str, Any], people: list[dict[str, Any]]) -> None:
    expected = Counter(" + ".join(person["did"]) for person in people)
    assert chart["scales"] == ["share of people (%)", "events"]
    [widths] = ([width for width, _ in bars] for bars in chart["bars"].values())
    assert len(expected) == 7
    assert dict(zip(chart["y"], widths, strict=True)) == pytest.approx(
        {events: 100 * count / len(people) for events, count in expected.items()}
    )
    assert widths == sorted(widths)


def assert_agents(chart: dict[str, Any], people: list[dict[str, Any]]) -> None:
    by_type: dict[str, list[set[str]]] = {}
    for person in people:
        if kind := person["record"]["profileData"].get("Customer Type"):
            by_type.setdefault(kind, []).append({*person["agents"]})
    assert chart["scales"] == ["agent", "customer type", "share of people of the type (%)"]
    assert chart["x"] == ["sales", "support", "both"]
    assert chart["y"] == sorted(by_type)
    expected = [
        [
            100 * sum(agents >= names for agents in by_type[kind]) / len(by_type[kind])
            for names in ({"sales"}, {"support"}, {"sales", "support"})
        ]
        for kind in chart["y"]
    ]
    [shares] = chart["cells"]
    assert [pytest.approx(row) for row in expected] == shares
    assert chart["texts"] == [f"{share:.0f} %" for row in shares for share in row]


def assert_types(chart: dict[str, Any], people: list[dict[str, Any]]) -> None:
    expected = Counter[tuple[str, str]]()
    for person in people:
        for name, value in person["record"]["profileData"].items():
            if value is not None:
                expected[name, type_of(value)] += 1
    assert chart["scales"] == ["people with a value", "property"]
    drawn = {
        (name, kind): width
        for kind, bars in chart["bars"].items()
        for name, (width, _) in zip(chart["y"], bars, strict=True)
        if width
    }
    assert drawn == expected
    widths = [sum(expected[name, kind] for kind in chart["bars"]) for name in chart["y"]]
    assert widths == sorted(widths)
    types = Counter(name for name, _ in expected)
    conflicts = {name for name, count in types.items() if count > 1}
    assert {*chart["bold"]} == conflicts
    count = f"{len(conflicts)} of {len(types)}"
    assert chart["title"] == f"{count} properties have conflicting types"


def type_of(value: object) -> str:
    if isinstance(value, str):
        return "timestamp" if value.startswith("$D_") else "text"
    if isinstance(value, list | dict):
        return "json"
    return {bool: "bool", int: "int64", float: "double"}[type(value)]
