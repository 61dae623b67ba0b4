"""The recipes of the guide on DataFrames count what is true of people whom the test knows."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, TypeAlias

import anyio.to_thread
import duckdb
import pandas as pd  # type: ignore[import-untyped]
import polars as pl
import pytest

from altaprofiles import (
    AltaProfilesError,
    BadRequest,
    InvalidArgument,
    Lookup,
    Profile,
    Retry,
    ServerError,
    Session,
)
from altaprofiles.accounts import Accounts
from altaprofiles.emulator import Emulator

from ..support.guides import GUIDES, block_of, function_of, write_programs
from ..support.odd_people import NAMELESS, ODD_PEOPLE, TIME, with_odd_people
from ..support.sessions import EVENT, RANGE, START, session_for
from ..support.tasks import PATIENCE
from ..support.terminals import emulated, environment


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


@pytest.fixture(autouse=True)
def programs(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files of the guide, which its recipes import."""
    folder = tmp_path_factory.mktemp("programs")
    write_programs("dataframes.md", folder)
    monkeypatch.syspath_prepend(folder)


def recipe(name: str) -> Callable[..., Any]:
    """Return a function of the guide."""
    return function_of("dataframes.md", name)


@pytest.mark.anyio
async def test_all_properties_are_columns_without_another_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As in a kernel whose environment is not activated.
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    async with Emulator(people=300) as emulator, session_for(emulator) as session:
        path = tmp_path / "people.parquet"
        await session.export(EVENT, **RANGE, to=path)
        frame = await anyio.to_thread.run_sync(recipe("with_properties"), str(path))
        kinds = await anyio.to_thread.run_sync(recipe("kinds"), str(path))
        typed = tmp_path / "typed.parquet"
        report = await session.export(EVENT, **RANGE, to=typed, flatten=kinds)
        people = await anyio.to_thread.run_sync(stored_properties, path)
    assert len(frame) == len(people) == report.people
    assert kinds["Customer Type"] == "text"
    assert not [text for text in report.warnings if "null" in text]
    # Some scores are text, and with them all are.
    for name in ("Customer Type", "Last Score"):
        given = [None if pd.isna(value) else value for value in frame[f"property.{name}"]]
        values = [one.get(name) for one in people]
        assert given == [
            one if one is None or isinstance(one, str) else json.dumps(one) for one in values
        ]


MIXED: list[dict[str, Any]] = [
    {
        "Account No": 9007199254740995,
        "Score": 1,
        "Whole": -3,
        "Large": 9007199254740995,
        "Huge": 2**63,
        "Agreed": True,
        "Visits": "many",
        "Foods": ["पनीर"],
        "Address": {"city": "Pune", "geo": {"pin": 9007199254740995}},
        "Nothing": None,
    },
    {"Plan": "x", "Score": 0.5, "Large": 0.5, "Visits": 7, "Address": "Mumbai"},
    {},
]
"""Properties, each of which somebody lacks."""


@asynccontextmanager
async def mixed_people() -> AsyncIterator[Session]:
    """Give a session at an emulator that has people with `MIXED`."""
    records = [{"identity": f"{n}", "profileData": one} for n, one in enumerate(MIXED)]
    async with Emulator(records=records) as emulator, session_for(emulator) as session:
        yield session


@pytest.mark.anyio
async def test_properties_have_the_types_that_flatten_gives_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = [*{name: None for one in MIXED for name in one}]
    async with mixed_people() as session:
        await session.export(to="people.parquet")
        await session.export(to="typed.parquet", flatten=names)
    read = recipe("with_properties")
    ours, typed = (read(path).set_index("person") for path in ("people.parquet", "typed.parquet"))
    for name in names:
        mine, flat = ours[f"property.{name}"], typed[name]
        assert (name, mine.dtype, decoded(mine)) == (
            name,
            flat.dtype,
            decoded(flat.loc[ours.index]),
        )
    assert ours["property.Account No"].dropna().tolist() == [9007199254740995]
    # The natural next line.
    ours.to_parquet("properties.parquet")
    saved = pd.read_parquet("properties.parquet", dtype_backend="numpy_nullable")
    assert saved["property.Account No"].dropna().tolist() == [9007199254740995]
    assert json.loads(*saved["property.Foods"].dropna()) == ["पनीर"]


def decoded(cells: pd.Series) -> list[object]:
    """Return the values of cells, of JSON text those that it stands for."""
    return [
        None if pd.isna(one) else json.loads(one) if str(one)[0] in "[{" else one for one in cells
    ]


@pytest.mark.anyio
async def test_nested_properties_are_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with mixed_people() as session:
        await session.export(to="people.parquet")
    frame = recipe("with_properties")("people.parquet", nested=True)
    cells = {
        name: frame[name].dropna().tolist() for name in frame if name.startswith("property.Address")
    }
    assert cells == {
        "property.Address": ["Mumbai"],
        "property.Address.city": ["Pune"],
        "property.Address.geo.pin": [9007199254740995],
    }


@pytest.mark.anyio
@pytest.mark.parametrize(
    "people",
    [
        [],
        [{"identity": "1"}],
        [{"identity": "1", "profileData": {}, "platformInfo": [], "events": {}}],
        [{"identity": "1", "profileData": None, "platformInfo": None, "events": None}],
    ],
)
async def test_of_nobody_and_of_nothing_the_frames_are_empty(
    people: list[dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    async with AsyncExitStack() as stack:
        if people:
            session = await stack.enter_async_context(with_odd_people(people))
        else:
            emulator = await stack.enter_async_context(Emulator(records=[]))
            session = await stack.enter_async_context(session_for(emulator))
        for name in ("rows_of_parts", "launched", "months", "frames", "buyers_in_pandas"):
            await recipe(name)(session)
    assert capsys.readouterr().out.startswith(
        "Series([], Name: person, dtype: int64)\nSeries([], Name: count, dtype: Int64)\n"
        "datetime64[ns, Asia/Kolkata]\n"
    )
    for name in ("rows_in_duckdb", "churn", "recency_and_frequency", "funnel", "retention"):
        recipe(name)()
    assert "week, launched, charged since: []\n" in capsys.readouterr().out
    for nested in (False, True):
        frame = recipe("with_properties")("parts.parquet", nested=nested)
        assert [*frame] == [*pd.read_parquet("parts.parquet")]
        assert len(frame) == len(people)


@pytest.mark.anyio
async def test_counts_beside_missing_ones_keep_their_digits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    summaries = [{"count": 9007199254740995, "last_seen": 10**12}, {"first_seen": TIME}]
    people = [
        {"identity": f"{n}", "events": {"Charged": one, "Other": {"count": "2"}}}
        for n, one in enumerate(summaries)
    ]
    async with with_odd_people(people) as session:
        await recipe("rows_of_parts")(session)
    printed = capsys.readouterr().out
    for line in (r"Charged +9007199254740995", r"Other +4"):
        assert re.search(f"^{line}$", printed, re.MULTILINE)


def saved(emulators: dict[str, Emulator], folder: Path) -> Path:
    """Return a file of accounts, each of an emulator."""
    tables = {
        name: {
            "account_id": str(one.clevertap.account_id),
            "passcode": str(one.clevertap.passcode),
            "base_url": one.url,
        }
        for name, one in emulators.items()
    }
    accounts = Accounts(folder / "accounts.toml", "shop", tables)
    accounts.write()
    return accounts.path


@pytest.mark.anyio
async def test_a_cell_brings_the_new_days_of_each_account(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    since = datetime.now(UTC).date() - timedelta(days=2)
    async with (
        Emulator(records=[person("ann"), person("bob")]) as shop,
        Emulator(records=[person("ann")], seed=8) as outlet,
    ):
        emulators = {"shop": shop, "outlet": outlet}
        monkeypatch.setenv("ALTAPROFILES_CONFIG", str(saved(emulators, tmp_path)))
        for _ in range(2):
            await recipe("new_days")(since)
            rows = re.findall(rf"│ (\S+) +┆ {since} +┆ (\d+) +│", capsys.readouterr().out)
            assert {*rows} == {
                (str(shop.clevertap.account_id), "2"),
                (str(outlet.clevertap.account_id), "1"),
            }


@pytest.mark.anyio
async def test_a_column_that_only_later_days_have_is_in_the_frame_of_polars(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    records = [{"identity": "ann", "profileData": {"Plan": "pro", "Score": 1.5}}]
    later: list[dict[str, Any]] = [{"Plan": "text"}, {"Plan": "text", "Score": "double"}, {}]
    async with Emulator(records=records) as emulator, session_for(emulator) as session:
        for number, flatten in enumerate([{}, *later]):
            night: dict[str, Any] = {"until": START + timedelta(days=number), "timezone": "UTC"}
            await session.sync(EVENT, since=START, to="crm/", flatten=flatten, late_days=0, **night)
    nothing = recipe("days_of")("empty").group_by("account", "day").len().collect()
    assert nothing.is_empty()
    frame = recipe("days_of")("crm").sort("day").select("identity", "day", "Plan", "Score")
    assert frame.collect().rows() == [
        ("ann", START, None, None),
        ("ann", START + timedelta(days=1), "pro", None),
        ("ann", START + timedelta(days=2), "pro", 1.5),
        ("ann", START + timedelta(days=3), None, None),
    ]


@pytest.mark.anyio
async def test_daily_counts_are_those_of_each_account(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Emulator(people=60) as shop, Emulator(people=40, seed=8) as outlet:
        emulators = {"shop": shop, "outlet": outlet}
        monkeypatch.setenv("ALTAPROFILES_CONFIG", str(saved(emulators, tmp_path)))
        frame = await recipe("daily_counts")()
        assert [one.stats.too_many for one in emulators.values()] == [0, 0]
    days = pd.date_range("2026-01-01", "2026-01-31")
    assert [*frame.index] == [*days.date]
    assert {*frame} == {(one, event) for one in emulators for event in ("App Launched", "Charged")}
    for (name, event), counts in frame.items():
        population = emulators[name].population
        numbers = [int(f"{day:%Y%m%d}") for day in days]
        assert [*counts] == [len({*population.active(event, day, day)}) for day in numbers]


@pytest.mark.parametrize("file", ["monthly.ipynb", "monthly.ipy"])
def test_a_notebook_runs_as_a_script(tmp_path: Path, file: str) -> None:
    cells = [
        "from altaprofiles import Session\n",
        "async with Session.from_env() as me:\n    report = await me.export(to='all.ndjson')\n",
        "print(report.people)\n",
    ]
    notebook = {
        "nbformat": 4,
        "nbformat_minor": 4,
        "metadata": {},
        "cells": [
            {
                "cell_type": "code",
                "execution_count": None,
                "metadata": {},
                "outputs": [],
                "source": one,
            }
            for one in cells
        ],
    }
    is_script = file.endswith(".ipy")
    (tmp_path / file).write_text("\n".join(cells) if is_script else json.dumps(notebook))
    with emulated(people=7) as emulator:
        done = subprocess.run(
            [sys.executable, "-m", "IPython", file],
            cwd=tmp_path,
            env=environment(tmp_path, emulator.environment),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    assert (done.returncode, done.stdout) == (0, "7\n"), done.stderr


def stored_properties(path: Path) -> list[dict[str, Any]]:
    texts = pd.read_parquet(path).profile_data
    return [json.loads(text) if text else {} for text in texts]


@pytest.mark.anyio
async def test_a_few_hundred_people_cost_a_page() -> None:
    async with Emulator(people=3000) as emulator, session_for(emulator) as session:
        people = await recipe("first_people")(session)
        assert emulator.stats.requests["page"] <= 2
    assert len({one.identity or one.object_ids[0] for one in people}) == 500


def cohorts(first: object, second: object) -> list[tuple[object, ...]]:
    counts = ((first, first, 5), (first, second, 4), (second, second, 1))
    return [(account, *row) for account in ("ZZ", "id") for row in counts]


@pytest.mark.anyio
@pytest.mark.parametrize("nameless", NAMELESS)
async def test_people_who_get_an_identity_are_retained(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    nameless: dict[str, Any],
) -> None:
    monkeypatch.chdir(tmp_path)
    absorbed = []
    for month, records in MONTHS.items():
        async with with_odd_people([nameless | one for one in records]) as session:
            await session.export("App Launched", **RANGE, to="one.parquet")
            # Another account has the same people.
            both = (
                "FROM 'one.parquet' UNION ALL SELECT * REPLACE ('ZZ' AS account) FROM 'one.parquet'"
            )
            duckdb.execute(f"COPY ({both}) TO 'active-{month}.parquet'")
            absorbed.append((await session.export(to="people.duckdb")).absorbed)
    recipe("retention")()
    text = (GUIDES / "dataframes.md").read_text("utf-8")
    assert capsys.readouterr().out == (
        f"account, cohort, month, people: {cohorts('202601', '202602')}\n"
    )
    query = block_of("dataframes.md", "def retention").split('"""')[1]
    (call,) = re.findall(r"`(cohorts\.df\(\)\.pivot\(.*?\))`", text)
    table = eval(call, {"cohorts": duckdb.sql(query)})  # noqa: S307
    assert [*table.columns] == ["202601", "202602"]
    assert [[*row] for row in table.fillna(0).itertuples()] == [
        [(account, cohort), *counts]
        for account in ("ZZ", "id")
        for cohort, counts in (("202601", (5, 4)), ("202602", (0, 1)))
    ]
    of_files = r"regexp_extract(filename, 'active-([^/]+)\.parquet$', 1) AS month"
    of_days = "date_trunc('week', day)::DATE AS month"
    files = "read_parquet('active-*.parquet', filename = true)"
    days = "read_parquet('crm/*/*.parquet', hive_partitioning = true, union_by_name = true)"
    event = "WHERE list_contains(matched, 'App Launched')"
    assert f"`{event}`\nbehind them where the folder has several events" in text
    for one, other in ((of_files, of_days), (files, days)):
        assert one in query
        assert other in text
        query = query.replace(one, other)
    for month, day in ((202601, 8), (202602, 13)):
        folder = Path(f"crm/day=2026-01-{day:02}")
        folder.mkdir(parents=True)
        Path(f"active-{month}.parquet").rename(folder / "people.parquet")
    weeks = cohorts(date(2026, 1, 5), date(2026, 1, 12))
    assert duckdb.execute(query).fetchall() == weeks
    # Somebody else, who did another event.
    duckdb.execute("""
        COPY (SELECT DISTINCT * REPLACE (['Charged'] AS matched, 'eve' AS identity, 'eve' AS person)
        FROM 'crm/day=2026-01-08/people.parquet') TO 'crm/day=2026-01-08/other.parquet'
    """)
    assert duckdb.execute(query).fetchall() != weeks
    assert duckdb.execute(query.replace(days, f"{days} {event}")).fetchall() == weeks
    # One table has them once, and forgets the months.
    assert absorbed == [0, 1]


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["object", "string", "category"])
async def test_addresses_are_joined_in_their_own_spelling_and_others(kind: str) -> None:
    records = [
        {"identity": "1", "email": "Ann@example.com", "profileData": {"favoriteFood": "pizza"}},
        {"identity": "2", "email": "bob@example.com", "profileData": {"favoriteFood": "rice"}},
    ]
    emails = ["Ann@example.com", "BOB@example.com", "Ann@example.com", " ", None, "x@example.com"]
    emails += [" Ann@example.com", "Bob@example.com\u00a0"]
    # An index with a repeat, as that of frames put together.
    index = [9, 8, 7, 6, 5, 5, 4, 3]
    mine = pd.DataFrame({"email": pd.Series(emails, index, dtype=kind)})
    joined = recipe("joined")
    async with (
        Emulator(records=records) as emulator,
        Session(clevertap=emulator.clevertap, retry=Retry(attempts=1)) as session,
    ):
        out = await joined(session, mine, "email", "email")
        emulator.faults = {"server_error": 1}
        none = await joined(session, mine, "email", "email")
    assert [*out.index] == index
    results = ["found", "found", "found", "no key", "no key", "not found", "found", "found"]
    assert [*out["result"]] == results
    foods = ["pizza", "rice", "pizza", "", "", "", "pizza", "rice"]
    assert [*out["favoriteFood"].fillna("")] == foods
    failed = ["no key" if result == "no key" else "failed" for result in results]
    assert [*none["result"]] == failed


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["object", "string", "category", "string[pyarrow]"])
@pytest.mark.parametrize("some", [slice(None), slice(1), slice(1, 3), slice(0)])
async def test_a_column_of_ids_and_addresses_keeps_its_order(kind: str, some: slice) -> None:
    records = [{"identity": "1", "email": "ann@example.com"}, {"identity": "2"}]
    keys = ["2", "ANN@example.com", None, "x@example.com", "1", " ", "nobody"][some]
    found = ["found", "found", "no key", "not found", "found", "no key", "not found"][some]
    # A frame that was concatenated has labels twice.
    index = [9, 8, 1, 9, 5, 4, 1][some]
    mine = pd.DataFrame({"key": pd.Series(keys, index, dtype=object).astype(kind)})
    async with (
        Emulator(records=records) as emulator,
        Session(clevertap=emulator.clevertap) as session,
    ):
        out = await recipe("mixed")(session, mine, "key")
    assert [*zip(out.index, out["result"], strict=True)] == [*zip(index, found, strict=True)]


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["object", "string", "category", "string[pyarrow]"])
@pytest.mark.parametrize(
    ("ids", "results"),
    [(["7", None], ["found", "no key"]), ([None], ["no key"]), (["7"], ["found"]), ([], [])],
)
async def test_a_column_of_any_kind_of_text_is_joined(
    kind: str, ids: list[str | None], results: list[str]
) -> None:
    mine = pd.DataFrame({"my_id": pd.Series(ids, dtype=object).astype(kind)})
    async with (
        Emulator(records=[{"identity": "7"}]) as emulator,
        Session(clevertap=emulator.clevertap) as session,
    ):
        out = await recipe("joined")(session, mine, "my_id", "identity")
    assert [*out["result"]] == results
    assert out["my_id"].dtype == mine["my_id"].dtype


@pytest.mark.anyio
async def test_ten_failures_in_a_row_end_a_look_up() -> None:
    down, refused = (
        ServerError(api="CleverTap", status=503),
        BadRequest(api="CleverTap", status=400),
    )
    invalid = InvalidArgument("keys[0]: x")
    until_down = recipe("until_down")
    closed = False

    async def results(*errors: AltaProfilesError | None) -> AsyncGenerator[Lookup[str], None]:
        nonlocal closed
        closed = False
        try:
            for error in errors:
                yield Lookup("7", error=error)
        finally:
            closed = True

    streak = [down] * 9
    for other in (None, refused):
        errors = [*streak, other, *streak, other]
        assert [one.error async for one in until_down(results(*errors))] == errors
    assert [one.error async for one in until_down(results(*[invalid] * 20))] == [invalid] * 20
    # Nobody was asked for an invalid key.
    for between in ([], [invalid]):
        seen: list[AltaProfilesError | None] = []
        with pytest.raises(ServerError):
            async for one in until_down(results(None, *streak, *between, down, None)):
                seen.append(one.error)
        assert (seen, closed) == ([None, *streak, *between], True)


@pytest.mark.anyio
async def test_a_look_up_in_memory_ends_in_an_outage() -> None:
    ids = [f"{number}" for number in range(1000)]
    mine = pd.DataFrame({"my_id": ids})
    results = UntilThree()
    async with (
        Emulator(records=[{"identity": one} for one in ids]) as emulator,
        Session(clevertap=emulator.clevertap, retry=Retry(attempts=1)) as session,
    ):
        results.emulator = emulator
        with pytest.raises(ServerError):
            await recipe("counted")(session, ids, results)
        with pytest.raises(ServerError):
            await recipe("joined")(session, mine, "my_id", "identity")
        assert emulator.stats.requests["profile"] < 200
    # What came before stays.
    assert sum(one.value is not None for one in results) >= 3


class UntilThree(list[Lookup[Profile]]):
    """Results; the service is down once there are three."""

    emulator: Emulator

    def append(self, one: Lookup[Profile]) -> None:
        super().append(one)
        if len(self) == 3:
            self.emulator.faults = {"server_error": 1}


def test_every_look_up_in_memory_ends_in_an_outage() -> None:
    calls = re.findall(
        r"(\S*)session\.\w+\.get_many\(", (GUIDES / "dataframes.md").read_text("utf-8")
    )
    assert {*calls} == {"until_down("}


@pytest.mark.anyio
async def test_only_ids_that_are_not_known_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with (
        Emulator(records=[{"identity": "7"}, {"identity": "8"}]) as emulator,
        Session(clevertap=emulator.clevertap) as session,
    ):
        for ids, asked, lost in [
            (["7", None, "x", "7"], 2, {"x"}),
            (["7", "8", "x", "y"], 5, {"x", "y"}),
            (["7", "8"], 5, {"x", "y"}),
            (["7", "", " ", "8"], 5, {"x", "y"}),
        ]:
            mine = pd.DataFrame({"my_id": ids, "name": "mine"})
            mine.index = mine.index[::-1]
            out = await recipe("found_so_far")(session, mine, "my_id")
            assert out[["my_id", "name"]].equals(mine)
            assert emulator.stats.requests["profile"] == asked
            assert {*Path("look.not-found.txt").read_text().split()} == lost
            assert [*out["my_id"]] == ids
            known = {"7", "8"} & {*ids}
            assert {*out.loc[out["found_person"].notna(), "my_id"]} == known
        with pytest.raises(TypeError, match="my_id"):
            await recipe("found_so_far")(session, pd.DataFrame({"my_id": [7, 8]}), "my_id")
        assert emulator.stats.requests["profile"] == 5


@pytest.mark.anyio
async def test_a_funnel_counts_first_times_in_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    records = [
        # Each line is one person.
        did(launched=datetime(2026, 1, 6, tzinfo=UTC), charged=datetime(2026, 2, 1, tzinfo=UTC)),
        did(launched=datetime(2026, 1, 6, tzinfo=UTC), charged=datetime(2026, 1, 5, tzinfo=UTC)),
        did(launched=datetime(2026, 1, 6, tzinfo=UTC), charged=None),
        # A Monday already in the zone of the project.
        did(launched=datetime(2026, 1, 11, 20, tzinfo=UTC), charged=None),
        did(launched=datetime(2025, 6, 1, tzinfo=UTC), charged=datetime(2026, 1, 5, tzinfo=UTC)),
    ]
    for number, record in enumerate(records):
        record["identity"] = f"{number}"
    async with (
        Emulator(records=records) as emulator,
        Session(clevertap=emulator.clevertap) as session,
    ):
        await recipe("launched")(session)
    recipe("funnel")()
    assert capsys.readouterr().out == (
        "week, launched, charged since: [('2026-01-05', 3, 1), ('2026-01-12', 1, 0)]\n"
    )


def did(launched: datetime, charged: datetime | None) -> dict[str, Any]:
    """Return the record of a person with the first times of two events."""
    last = int(datetime(2026, 1, 20, tzinfo=UTC).timestamp())
    firsts = {"App Launched": launched, "Charged": charged}
    events = {
        name: {"count": 2, "first_seen": int(first.timestamp()), "last_seen": last}
        for name, first in firsts.items()
        if first is not None
    }
    return {"events": events}


@pytest.mark.anyio
async def test_identities_of_floats_are_joined_as_text_and_in_their_own_case() -> None:
    seven: dict[str, Any] = {"identity": "7", "profileData": {"favoriteFood": "rice"}}
    records = [seven, {"identity": "ann"}]
    floats = pd.Series([7.0, float("nan")]).astype("Int64").astype("string")
    joined = recipe("joined")
    async with (
        Emulator(records=records) as emulator,
        Session(clevertap=emulator.clevertap) as session,
    ):
        numbers = await joined(session, pd.DataFrame({"my_id": floats}), "my_id", "identity")
        names = await joined(session, pd.DataFrame({"my_id": ["Ann", "ann "]}), "my_id", "identity")
    assert [*numbers["result"]] == ["found", "no key"]
    assert [*numbers["favoriteFood"].fillna("")] == ["rice", ""]
    assert [*names["result"]] == ["not found", "found"]


@pytest.mark.anyio
async def test_zeros_in_front_are_kept_as_text(tmp_path: Path) -> None:
    file = tmp_path / "loyalty.csv"
    file.write_text("my_id\n000012\n7\n")
    text = (GUIDES / "dataframes.md").read_text("utf-8")
    (dtype,) = re.findall(r"zeros in front need\s`dtype=(\{.*?\})`", text)
    mine = pd.read_csv(file, dtype=json.loads(dtype))
    async with (
        Emulator(records=[{"identity": "000012"}, {"identity": "7"}]) as emulator,
        Session(clevertap=emulator.clevertap) as session,
    ):
        out = await recipe("joined")(session, mine, "my_id", "identity")
    assert [*out["result"]] == ["found", "found"]
    assert [*pd.read_csv(file).my_id] == [12, 7]


@pytest.mark.anyio
async def test_a_column_of_floats_and_text_is_joined_once_it_is_text() -> None:
    mine = pd.DataFrame({"my_id": pd.Series([7.0, "000001", float("nan")], dtype=object)})
    (line,) = re.findall(
        r"`(mine\[.*key_of, na_action=.*)`", (GUIDES / "dataframes.md").read_text()
    )
    joined = recipe("joined")
    async with (
        Emulator(records=[{"identity": "7"}, {"identity": "000001"}]) as emulator,
        Session(clevertap=emulator.clevertap) as session,
    ):
        with pytest.raises(AttributeError):
            await joined(session, mine, "my_id", "identity")
        exec(line, {"mine": mine, "key_of": recipe("key_of")})  # noqa: S102
        out = await joined(session, mine, "my_id", "identity")
    assert [*out["result"]] == ["found", "found", "no key"]


# ------------------------------------------------------------------------------------- odd records


@pytest.fixture
async def odd_people(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with people whose records are odd, in the current folder."""
    monkeypatch.chdir(tmp_path)
    async with with_odd_people() as session:
        await recipe("rows_of_parts")(session)
        await recipe("launched")(session)
    return tmp_path / "parts.parquet"


@pytest.mark.anyio
async def test_an_odd_record_is_counted_with_what_is_right_in_it(
    odd_people: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with with_odd_people() as session:
        await recipe("rows_of_parts")(session)
    printed = capsys.readouterr().out
    for line in (r"iOS +2", r"Charged +5", r"App Launched +3"):
        assert re.search(f"^{line}$", printed, re.MULTILINE)
    recipe("rows_in_duckdb")()
    assert "('Charged', 5)" in capsys.readouterr().out
    recipe("funnel")()
    assert capsys.readouterr().out == "week, launched, charged since: [('2026-01-05', 1, 1)]\n"


@pytest.mark.anyio
@pytest.mark.parametrize("people", [ODD_PEOPLE, None])
async def test_every_way_counts_the_same_devices(
    people: list[dict[str, Any]] | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    async with AsyncExitStack() as stack:
        if people is None:
            faults = {"odd_record": 0.3}
            emulator = await stack.enter_async_context(Emulator(people=300, faults=faults))
            session = await stack.enter_async_context(session_for(emulator))
        else:
            session = await stack.enter_async_context(with_odd_people(people))
        await recipe("rows_of_parts")(session)
    printed = capsys.readouterr().out.partition("Name: person")[0]
    rows = block_of("dataframes.md", "def rows_in_duckdb").split('"""')[1]
    churn = block_of("dataframes.md", "def churn").split('"""')[1]
    counts = f"SELECT platform, count(DISTINCT person) FROM ({rows}) GROUP BY platform"
    in_pandas = re.findall(r"^(\w+) +(\d+)$", printed, re.MULTILINE)
    assert {(name, f"{number}") for name, number in duckdb.execute(counts).fetchall()} == {
        *in_pandas
    }
    expected: dict[str, int] = {}
    texts = duckdb.execute("SELECT person, platform_info FROM 'parts.parquet'").fetchall()
    for key, text in texts:
        given = json.loads(text or "[]")
        devices = given if isinstance(given, list) else []
        expected[key] = sum(isinstance(one, dict) for one in devices)
    assert sum(expected.values()) > 1
    numbers = f"SELECT person, count(*) FROM ({rows}) GROUP BY person"
    assert dict(duckdb.execute(numbers).fetchall()) == {
        name: n for name, n in expected.items() if n
    }
    numbers = f"SELECT person, coalesce(devices, 0) FROM ({churn})"
    assert dict(duckdb.execute(numbers).fetchall()) == expected


@pytest.mark.anyio
async def test_odd_properties_leave_nobody_out(
    odd_people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    frame = recipe("with_properties")(str(odd_people))
    assert len(frame) == len(ODD_PEOPLE)
    assert [*frame["property.Plan"].dropna()] == ["pro"]
    assert recipe("kinds")(str(odd_people)) == {"Plan": "text"}


@pytest.mark.anyio
@pytest.mark.usefixtures("odd_people")
async def test_rfm_leaves_out_whose_count_or_time_is_odd(
    capsys: pytest.CaptureFixture[str],
) -> None:
    capsys.readouterr()
    recipe("recency_and_frequency")()
    columns, _, rows = capsys.readouterr().out.partition("] ")
    assert columns == "['account', 'person', 'recency', 'frequency', 'r', 'f'"
    assert re.fullmatch(r"\[\('.*', '.*', \d+, 3, 5, 5\)\]\n", rows)


@pytest.mark.anyio
async def test_rfm_gives_equal_people_the_same_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    now = int(datetime.now(UTC).timestamp())
    # Days since the last time, and how often.
    bought = [(40, 1), (30, 1), (20, 1), (10, 1), (1, 9)]
    summaries = [
        {"count": often, "first_seen": now - days * 86400, "last_seen": now - days * 86400}
        for days, often in bought
    ]
    records = [
        {"identity": f"{number}", "events": {EVENT: one, "Charged": one}}
        for number, one in enumerate(summaries)
    ]
    async with (
        Emulator(records=records) as emulator,
        Session(clevertap=emulator.clevertap) as session,
    ):
        await session.export(to="parts.parquet")
    query = block_of("dataframes.md", "def recency_and_frequency").split('"""')[1]
    with duckdb.connect() as database:
        database.execute("SET timezone = 'UTC'")
        names = "identity, recency, frequency, r, f"
        rows = database.execute(
            f"SELECT {names} FROM ({query}) JOIN 'parts.parquet' USING (account, person)"
            " ORDER BY r DESC"
        ).fetchall()
    assert [(*row[2:],) for row in rows] == [(9, 5, 5), (1, 4, 4), (1, 3, 4), (1, 2, 4), (1, 1, 4)]
    assert [row[0] for row in rows] == ["4", "3", "2", "1", "0"]
    # Midnight may come between.
    assert all(row[1] - days in (0, 1) for row, (days, _) in zip(rows, bought[::-1], strict=True))
    frame = pl.read_parquet("parts.parquet")
    path = pl.col("events").str.json_path_match("$['Charged'].count")
    assert "json_path_match(\"$['Charged'].count\")" in (GUIDES / "dataframes.md").read_text(
        "utf-8"
    )
    counts = frame.select(path.cast(pl.Int64, strict=False)).to_series()
    assert sorted(counts) == [1, 1, 1, 1, 9]


@pytest.mark.anyio
@pytest.mark.parametrize("nameless", NAMELESS)
async def test_features_know_nothing_of_the_days_after_the_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nameless: dict[str, Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    days = {
        date(2025, 12, 31): [person("late")],
        date(2026, 1, 1): [person("gone"), person(None, "d1")],
        date(2026, 1, 30): [person("back"), person(None, "d1"), person(None, "d2")],
        date(2026, 2, 6): [person("back"), person("bob", "d1"), person("new")],
        date(2026, 2, 7): [person("gone"), person(None, "d2")],
    }
    await write_days({day: [nameless | one for one in records] for day, records in days.items()})
    through = {"A": "2026-02-07", "B": "2026-02-06"}
    accounts = [{"account": name, "through": day} for name, day in through.items()]
    Path("launched/_altaprofiles.json").write_text(json.dumps({"accounts": accounts}))
    found = recipe("features")(date(2026, 1, 30))
    assert [row[1:] for row in found] == [
        ("back", 0, 1, True, "identity:back"),
        ("gone", 29, 1, False, "identity:gone"),
        ("objectId:d1", 0, 2, True, "objectId:d1"),
        ("objectId:d2", 0, 1, False, "objectId:d2"),
    ]
    values = block_of("dataframes.md", "the values of each person", "sql")
    values = values.replace("2026-01-03", "2026-01-30").replace("2026-01-04", "2026-01-31")
    # Brought after the week of the label, with the values of then.
    assert {row[2:] for row in duckdb.execute(values).fetchall()} == {(None, None)}
    for brought in ("2026-01-01", "2026-01-30"):
        duckdb.execute(f"""
            COPY (SELECT * REPLACE (TIMESTAMPTZ '2026-01-30 12:00:00Z' AS fetched_at)
            FROM 'launched/day={brought}/one.parquet') TO 'launched/day={brought}/one.parquet'
        """)
    known = {row[-1] for row in found}
    assert known == {who for _, who, *_ in duckdb.execute(values).fetchall()} - {"identity:late"}
    # Without the week after it, nobody of that account would be known to come again.
    with pytest.raises(ValueError, match=r"no 2026-02-07 of \['B'\]"):
        recipe("features")(date(2026, 1, 31))


async def write_days(days: dict[date, list[dict[str, Any]]]) -> None:
    """Write the folder of a sync, without its state."""
    for day, records in days.items():
        folder = Path(f"launched/day={day}")
        folder.mkdir(parents=True)
        async with with_odd_people(records) as session:
            await session.export("App Launched", start=day, end=day, to=folder / "one.parquet")


def write_state(through: date) -> None:
    [(account,)] = duckdb.execute("SELECT DISTINCT account FROM 'launched/*/*.parquet'").fetchall()
    state = {"accounts": [{"account": account, "through": str(through)}]}
    Path("launched/_altaprofiles.json").write_text(json.dumps(state))


CUT_OFF = date(2026, 1, 20)


@pytest.mark.anyio
async def test_people_with_equal_pasts_have_equal_features(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    groups = [f"{group}{number}" for group in "xy" for number in range(3)]
    # Each has a row with an identity, and one of another device without.
    records = [
        one
        for who in groups
        for one in (
            person(who, f"{who}-web") | came(8, 8),
            person(None, f"{who}-phone") | came(12, 14),
        )
    ]
    async with Emulator(records=records) as emulator, session_for(emulator) as session:
        nights: dict[str, Any] = {"since": date(2026, 1, 7), "timezone": "UTC", "to": "launched/"}
        await session.sync("App Launched", until=CUT_OFF, **nights)
        # They come back on the phone, and log in there.
        for who in groups[:3]:
            emulator.add(person(who, f"{who}-web", f"{who}-phone") | came(8, 25))
        await session.sync("App Launched", until=CUT_OFF + timedelta(days=7), **nights)
    found = [row[1:5] for row in recipe("features")(CUT_OFF)]
    assert found == sorted(
        row
        for who in groups
        for row in ((who, 12, 1, who[0] == "x"), (f"objectId:{who}-phone", 6, 2, who[0] == "x"))
    )
    # Shorter than it takes them.
    assert not any(row[4] for row in recipe("features")(CUT_OFF, label_days=4))


def came(first: int, last: int) -> dict[str, Any]:
    """Return the events of a record of somebody who came on these two days of January."""
    times = [int(datetime(2026, 1, day, 10, tzinfo=UTC).timestamp()) for day in (first, last)]
    summary = {"count": 2, "first_seen": times[0], "last_seen": times[1]}
    return {"events": {"App Launched": summary}}


@pytest.mark.anyio
@pytest.mark.parametrize("seed", range(3))
async def test_features_are_those_that_a_program_in_python_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.chdir(tmp_path)
    random = Random(seed)  # noqa: S311
    last = CUT_OFF + timedelta(days=5)
    names = ["ann", "bob", None, None]
    devices = [("d1", "d2"), ("d3",), ("d4", "d5"), ("d6",)]
    days = {
        CUT_OFF + timedelta(days=number): [
            *[person("dan")] * (number <= 0),
            *(
                person(one, *of)
                for one, of in zip(random.sample(names, 2), random.sample(devices, 2), strict=True)
            ),
        ]
        for number in (-31, -29, -20, -8, -3, 0, 1, 3, 5, 6)
    }
    await write_days(days)
    write_state(last)
    found = [row[1:5] for row in recipe("features")(CUT_OFF, label_days=5)]
    assert found == features_of(days, CUT_OFF, last)
    assert {row[3] for row in found} == {False, True}
    # Another future changes labels at most.
    for day in days:
        if day > CUT_OFF:
            Path(f"launched/day={day}/one.parquet").unlink()
    assert [row[1:4] for row in recipe("features")(CUT_OFF, label_days=5)] == [
        row[:3] for row in found
    ]


Seen: TypeAlias = tuple[date, str | None, list[str]]


def rows_of(days: dict[date, list[dict[str, Any]]]) -> list[Seen]:
    """Return each day, identity and devices of a row."""
    return [
        (day, one.get("identity"), [device["objectId"] for device in one["platformInfo"]])
        for day, records in days.items()
        for one in records
    ]


def owners_in(rows: list[Seen]) -> dict[str, str]:
    """Return the last identity of each device."""
    found: dict[str, str] = {}
    for _, identity, devices in sorted(rows, key=lambda row: (row[0], row[1] or "")):
        if identity:
            found |= dict.fromkeys(devices, identity)
    return found


def who(identity: str | None, devices: list[str], *known: dict[str, str]) -> str:
    for of in known:
        identity = identity or max((of[one] for one in devices if one in of), default=None)
    return identity or f"objectId:{devices[0]}"


def features_of(
    days: dict[date, list[dict[str, Any]]], cut_off: date, last: date
) -> list[tuple[str, int, int, bool]]:
    rows = [row for row in rows_of(days) if cut_off - timedelta(days=29) <= row[0] <= last]
    then, later = owners_in([row for row in rows if row[0] <= cut_off]), owners_in(rows)
    back = {who(identity, devices, then, later) for day, identity, devices in rows if day > cut_off}
    came: dict[str, set[date]] = {}
    again: set[str] = set()
    for day, identity, devices in rows:
        if day <= cut_off:
            name = who(identity, devices, then)
            came.setdefault(name, set()).add(day)
            if who(identity, devices, then, later) in back:
                again.add(name)
    return [
        (name, (cut_off - max(seen)).days, len(seen), name in again)
        for name, seen in sorted(came.items())
    ]


@pytest.mark.anyio
@pytest.mark.parametrize("seed", range(3))
async def test_who_comes_again_on_day_n_is_as_a_program_in_python_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.chdir(tmp_path)
    random = Random(seed)  # noqa: S311
    names = ["ann", "bob", "cat", None, None]
    devices = [("d1", "d2"), ("d3",), ("d4", "d5"), ("d6",)]
    days = {
        CUT_OFF + timedelta(days=number): [
            person(one, *of)
            for one, of in zip(random.sample(names, 3), random.sample(devices, 3), strict=True)
        ]
        for number in (0, 1, 3, 7, 8, 10, 28, 31)
    }
    await write_days(days)
    # Nobody has come on the days after the last one with rows.
    last = CUT_OFF + timedelta(days=38)
    write_state(last)
    rows = rows_of(days)
    owners = owners_in(rows)
    came: dict[str, set[date]] = {}
    for day, identity, of in rows:
        came.setdefault(who(identity, of, owners), set()).add(day)
    expected: dict[tuple[date, int], list[bool]] = {}
    for seen in came.values():
        first = min(seen)
        for n in (1, 7, 28):
            if (then := first + timedelta(days=n)) <= last:
                monday = first - timedelta(days=first.weekday())
                expected.setdefault((monday, n), []).append(then in seen)
    assert [row[1:] for row in recipe("day_n")()] == [
        (*key, len(again), sum(again)) for key, again in sorted(expected.items())
    ]
    assert any(map(any, expected.values()))


@pytest.mark.anyio
async def test_day_n_counts_a_day_on_which_nobody_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    records = [
        person("once") | came(8, 8),
        person("twice") | came(8, 9),
        person("late") | came(9, 9),
    ]
    days: dict[str, Any] = {"since": date(2026, 1, 5), "until": date(2026, 1, 10)}
    async with Emulator(records=records) as emulator, session_for(emulator) as session:
        await session.sync("App Launched", **days, timezone="UTC", to="launched/")
    assert [row[1:] for row in recipe("day_n")()] == [(date(2026, 1, 5), 1, 3, 1)]


@pytest.mark.anyio
async def test_days_whose_rows_came_after_the_cut_off_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    nights: dict[str, Any] = {"since": date(2025, 12, 1), "until": date(2026, 1, 5)}
    async with (
        Emulator(records=[person("ann")]) as emulator,
        Session(clevertap=emulator.clevertap) as session,
    ):
        await session.sync("App Launched", **nights, timezone="UTC", to="launched/")
    query = block_of("dataframes.md", "with rows that came after it", "sql")
    files = [*Path("launched").glob("day=*/*.parquet")]

    def shown(fetched_at: str) -> list[date]:
        for path in files:
            day = f"DATE '{path.parent.name.removeprefix('day=')}'"
            duckdb.execute(f"""
                COPY (SELECT * REPLACE (({fetched_at.format(day)}) AS fetched_at) FROM '{path}')
                TO '{path}' (FORMAT parquet)
            """)
        return [day for _, day, *_ in duckdb.execute(query).fetchall()]

    past = [date(2026, 1, 3) - timedelta(days=number) for number in range(29, -1, -1)]
    assert shown("now()") == past
    # As nights bring a day in the morning after it, and two more times.
    for late_days, last in ((2, past[-3:]), (0, past[-1:])):
        night = f"({{}} + {late_days + 1})::TIMESTAMP + INTERVAL 150 MINUTE"
        assert shown(f"timezone('UTC', {night})") == last


@pytest.mark.anyio
async def test_features_keep_whom_the_nights_have_brought_after_the_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cut_off = date(2026, 1, 8)

    days = {"early": (2, 2), "last": (8, 8), "both": (2, 8), "back": (2, 10)}
    records = [
        {"identity": who, "profileData": {"of": who}} | came(*two) for who, two in days.items()
    ]
    async with Emulator(records=records) as emulator, session_for(emulator) as session:
        for night in range(2, 17):
            began = datetime(2026, 1, night, 2, 30, tzinfo=UTC)
            with monkeypatch.context() as clock:
                clock.setattr(time, "time", began.timestamp)
                clock.setattr(time, "time_ns", partial(int, began.timestamp() * 1e9))
                await session.sync(EVENT, since=date(2026, 1, 1), timezone="UTC", to="launched/")
    features = recipe("features")(cut_off)
    assert [row[1:5] for row in features] == [
        ("back", 6, 1, True),
        ("both", 0, 2, False),
        ("early", 6, 1, False),
        ("last", 0, 1, False),
    ]
    values = block_of("dataframes.md", "the values of each person", "sql")
    values = values.replace("2026-01-03", "2026-01-08").replace("2026-01-04", "2026-01-09")
    rows = {(account, who): of for account, who, of, _ in duckdb.execute(values).fetchall()}
    # As an inner join has them: nobody is left out.
    joined = {row[1]: rows[row[0], row[-1]] for row in features}
    assert {who: of and json.loads(of) for who, of in joined.items()} == {
        "back": {"of": "back"},
        "both": {"of": "both"},
        "early": {"of": "early"},
        "last": None,
    }


@pytest.mark.anyio
async def test_first_and_last_days_and_weeks_are_those_of_the_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first = date(2026, 1, 1)
    days = [first + timedelta(days=number) for number in range(13)]
    came: dict[tuple[str, str], list[date]] = {}
    async with Emulator(people=60) as emulator, session_for(emulator) as session:
        for day in days:
            buyers = session.profiles.by_event("Charged", start=day, end=day)
            async for page in buyers.pages():
                for key in page.to_arrow(person=True)["person"].to_pylist():
                    came.setdefault((emulator.clevertap.account_id, key), []).append(day)
        events = ["Charged", "App Launched"]
        await session.sync(events, since=first, until=days[-1], timezone="UTC", to="crm/")
    rows = duckdb.execute(block_of("dataframes.md", "AS first_day", "sql")).fetchall()
    weeks = {key: len({one.isocalendar()[:2] for one in seen}) for key, seen in came.items()}
    assert rows == [(*key, min(seen), max(seen), weeks[key]) for key, seen in sorted(came.items())]
    assert {*weeks.values()} == {1, 2, 3}


@pytest.mark.anyio
async def test_churn_has_a_row_for_everyone(
    odd_people: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    recipe("churn")()
    names = ["person", "times", "last_event", "platforms", "devices", "push"]
    assert capsys.readouterr().out == f"{names} {len(ODD_PEOPLE)}\n"
    query = block_of("dataframes.md", "def churn").split('"""')[1]
    with duckdb.connect() as database:
        database.execute("SET timezone = 'UTC'")
        found = database.execute(f"SELECT COLUMNS(* EXCLUDE person) FROM ({query})").fetchall()
        # A HUGEINT would be a float in pandas.
        assert database.execute(f"SELECT typeof(times) FROM ({query})").fetchone() == ("BIGINT",)
    last = datetime.fromtimestamp(TIME, UTC)
    assert found[0] == (6, last, ["iOS"], 1, True)
    events = [(*row[:2],) for row in found[5:12]]
    unknown = (None, None)
    later = (None, last + timedelta(seconds=1))
    assert events == [*[unknown] * 5, later, (2, None)]
    devices = [(row[2], row[4]) for row in found[12:18]]
    assert devices == [([], False)] * 4 + [(["iOS"], True), ([], False)]
