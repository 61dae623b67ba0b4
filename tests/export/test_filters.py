"""Exports with filters, and of everyone: what is fetched, and what an unfinished one is part of."""

from __future__ import annotations

import asyncio
import itertools
import json
import pickle
import re
import shutil
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from altaprofiles import (
    BadRequest,
    ConfigurationError,
    Filter,
    PlanMismatch,
    Session,
)
from altaprofiles.emulator import Emulator
from altaprofiles.export.plan import EventsPlan, parse_plan
from altaprofiles.export.report import ExportProgress, ExportReport
from altaprofiles.wire.language import Filters

from ..support.jobs import Halt, people_in, person, workspace_of, workspaces_of
from ..support.servers import Answer, http, in_turn, scripted
from ..support.sessions import sent, session_at, session_for

pytestmark = pytest.mark.anyio

DAYS: dict[str, Any] = {"start": 20260101, "end": 20260131}
AMOUNT = Filter("Amount", "greater_than", 100)
GOLD = Filter("Customer Type", "equals", "Gold")
JANE = Filter("Email", "contains", "jane@example.com")


def names(emulator: Emulator, numbers: Iterable[int]) -> list[str]:
    population = emulator.population
    return [person(population.identity(one), population.object_ids(one)) for one in numbers]


async def export(session: Session, to: Path, *events: Any, **options: Any) -> ExportReport:
    return await session.export(*events, to=to, **{"batch_size": 23, **options})


async def interrupted(session: Session, to: Path, *events: Any, **options: Any) -> None:
    """Run an export until a page is on disk, and others are not."""
    with pytest.raises(Halt):
        await export(session, to, *events, on_progress=_halt, **options)
    assert workspace_of(to).is_dir()


async def mismatch(session: Session, to: Path, *events: Any, **options: Any) -> PlanMismatch:
    """Return the error of an export whose workspace has been put in the place of another's."""
    begun = workspace_of(to)
    with pytest.raises(Halt):
        await export(session, to, *events, on_progress=_halt, **options)
    [other] = [path for path in workspaces_of(to) if path != begun]
    shutil.rmtree(other)
    begun.rename(other)
    with pytest.raises(PlanMismatch) as caught:
        await export(session, to, *events, **options)
    other.rename(begun)
    error: PlanMismatch = pickle.loads(pickle.dumps(caught.value))  # noqa: S301
    assert str(error) == str(caught.value)
    assert "jane" not in str(error)
    assert "Gold" not in str(error)
    return error


def _halt(progress: ExportProgress) -> None:
    if sum(chain.pages for chain in progress.chains):
        raise Halt


# --------------------------------------------------------------------------------- what is fetched


async def test_an_export_with_filters(tmp_path: Path) -> None:
    to = tmp_path / "people.ndjson"
    filters: dict[str, Any] = {"event_properties": [AMOUNT], "profile_fields": [GOLD]}
    async with Emulator(people=400, seed=4) as emulator, session_for(emulator) as session:
        report = await export(session, to, "Charged", **DAYS, **filters, windows=3, count=True)
        numbers = emulator.population.active(
            "Charged", 20260101, 20260131, event_properties=sent(AMOUNT), profile_fields=sent(GOLD)
        )
    assert sorted(people_in(to)) == sorted(names(emulator, numbers))
    assert report.counted == {"Charged": len(numbers)}
    assert [chain.counted for chain in report.chains] == [chain.records for chain in report.chains]
    assert report.warnings == []
    manifest = json.loads(Path(str(report.manifest)).read_bytes())
    assert manifest["plan"]["filters"] == {
        "event_properties": [{"name": "Amount", "operator": "greater_than", "value": "…"}],
        "common_profile_properties": {
            "profile_fields": [{"name": "Customer Type", "operator": "equals", "value": "…"}]
        },
    }
    assert re.fullmatch("[0-9a-f]{64}", manifest["plan"]["filters_sha256"])


async def test_filters_hold_for_each_of_several_events(tmp_path: Path) -> None:
    to = tmp_path / "people.ndjson"
    events = ["Product Viewed", "Added to Cart"]
    dear = Filter("Price", "gte", 400)
    async with Emulator(people=300, seed=4) as emulator, session_for(emulator) as session:
        report = await export(session, to, events, **DAYS, event_properties=[dear], count=True)
        numbers = {
            event: emulator.population.active(
                event, 20260101, 20260131, event_properties=sent(dear)
            )
            for event in events
        }
    assert report.counted == {event: len(found) for event, found in numbers.items()}
    both = {number for found in numbers.values() for number in found}
    assert sorted(people_in(to)) == sorted(names(emulator, both))


@pytest.mark.parametrize("windows", ["auto", 1])
async def test_an_export_of_everyone(tmp_path: Path, windows: Any) -> None:
    to = tmp_path / "people.ndjson"
    progress: list[ExportProgress] = []
    async with Emulator(people=300, seed=4) as emulator, session_for(emulator) as session:
        report = await export(session, to, windows=windows, count=True, on_progress=progress.append)
    assert sorted(people_in(to)) == sorted(names(emulator, range(300)))
    assert (report.people, report.counted, report.warnings) == (300, {"everyone": 300}, [])
    [chain] = report.chains
    assert (chain.event, chain.start, chain.end, chain.counted) == (None, None, None, 300)
    assert progress[-1].total == 300
    assert "300 of 300 records (100 %)" in str(progress[-1])
    manifest = json.loads(Path(str(report.manifest)).read_bytes())
    assert [manifest["plan"][name] for name in ("events", "start", "end")] == [None] * 3
    assert (manifest["plan"]["filters"], manifest["plan"]["filters_sha256"]) == ({}, None)
    assert manifest["plan"]["windows"] == 1


async def test_everyone_with_filters_resumes(tmp_path: Path) -> None:
    to = tmp_path / "people.ndjson"
    async with Emulator(people=400, seed=4) as emulator, session_for(emulator) as session:
        await interrupted(session, to, profile_fields=[GOLD])
        before = emulator.stats.requests["open_chain"]
        report = await export(session, to, profile_fields=[GOLD])
        assert emulator.stats.requests["open_chain"] == before
        numbers = emulator.population.everyone(profile_fields=sent(GOLD))
    assert people_in(to) == names(emulator, numbers)
    assert report.people == len(numbers)
    assert not workspace_of(to).exists()


async def test_a_count_of_everyone_that_differs_is_a_warning(tmp_path: Path) -> None:
    answers = [
        b'{"status":"success","cursor":"c1"}',
        b'{"status":"success","count":2}',
        b'{"status":"success","records":[{"identity":"1"}]}',
    ]
    async with scripted(in_turn(*map(http, answers))) as server:
        async with session_at(server) as session:
            report = await export(session, tmp_path / "p.ndjson", profile_fields=[GOLD], count=True)
    assert report.warnings == [
        "the service counts 2 people for everyone (filtered), and 1 were exported"
    ]


@pytest.mark.parametrize(
    ("events", "options", "words"),
    [
        ((), {}, "answer to everyone, a query without an event"),
        (("Nothing",), DAYS, "answer to 'Nothing'; it expects the name as the dashboard spells it"),
        (("Nothing",), {**DAYS, "profile_fields": [JANE]}, "It may also refuse a filter"),
    ],
)
async def test_a_refused_query_says_what_the_service_refuses(
    tmp_path: Path, events: Any, options: dict[str, Any], words: str
) -> None:
    refusal = http(b'{"status":"fail","code":4002,"error":"no"}', "400 Bad Request")
    async with scripted(in_turn(refusal)) as server:
        async with session_at(server) as session:
            with pytest.raises(BadRequest) as caught:
                await export(session, tmp_path / "p.ndjson", *events, **options)
    notes = " ".join(caught.value.__notes__)
    assert words in notes
    assert "jane" not in notes
    assert list(tmp_path.iterdir()) == []


# --------------------------------------------------------------------------------- part of the plan

QUERY: dict[str, Any] = {"advanced_query": {"did_all": [{"event_name": "Charged"}]}}
BEGUN: dict[str, Any] = {"event_properties": [AMOUNT], "profile_fields": [GOLD, JANE]}


@pytest.mark.parametrize(
    ("options", "argument", "words"),
    [
        (
            {**BEGUN, "event_properties": [Filter("Amount", "greater_than", 99)]},
            "event_properties",
            "`event_properties` has other values: 'Amount' greater_than …",
        ),
        (
            {**BEGUN, "event_properties": [Filter("Amount", "less_than", 100)]},
            "event_properties",
            "`event_properties` was 'Amount' greater_than … and is now 'Amount' less_than …",
        ),
        (
            {"profile_fields": [GOLD, JANE]},
            "event_properties",
            "`event_properties` was 'Amount' greater_than … and is now left out",
        ),
        (
            {"event_properties": [AMOUNT], "profile_fields": [JANE]},
            "profile_fields",
            "'Customer Type' equals …, 'Email' contains … and is now 'Email' contains …",
        ),
        ({**BEGUN, "query": QUERY}, "query", "`query` is different in advanced_query"),
    ],
)
async def test_another_filter_is_another_export(
    tmp_path: Path, options: dict[str, Any], argument: str, words: str
) -> None:
    to = tmp_path / "people.ndjson"
    async with scripted(endless()) as server, session_at(server) as session:
        await interrupted(session, to, "Charged", **DAYS, **BEGUN, windows=1)
        error = await mismatch(session, to, "Charged", **DAYS, **options, windows=1)
        assert list(error.differences) == [argument]
        assert words in str(error)
        was, is_now = error.differences[argument]
        assert was != is_now
        assert "discard it with `resume=False`" in str(error)
        assert "`differences` has them, and the journal in " in str(error)


def endless() -> Answer:
    """Return answers of a service whose chains never end."""
    numbers = itertools.count(2)

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        if head.startswith(b"POST"):
            writer.write(http(b'{"status":"success","cursor":"c1"}'))
        else:
            page = b'{"status":"success","next_cursor":"c%d","records":[{"identity":"1"}]}'
            writer.write(http(page % next(numbers)))

    return answer


def fields(*filters: Filter) -> dict[str, Any]:
    return {"common_profile_properties": {"profile_fields": sent(*filters)}}


@pytest.mark.parametrize(
    ("begun", "now", "arguments", "words"),
    [
        (
            {"query": fields(GOLD)},
            {"query": fields(JANE)},
            ["query"],
            "`query` is different in common_profile_properties.profile_fields. Give",
        ),
        (
            {"query": {"event_properties": sent(AMOUNT)}},
            {"query": {"event_properties": sent(JANE)}},
            ["query"],
            "`query` is different in event_properties. Give",
        ),
        (
            {"query": QUERY | fields(GOLD)},
            {"query": fields(GOLD)},
            ["query"],
            "`query` is different in advanced_query. Give",
        ),
        (
            {"query": QUERY | fields(GOLD)},
            {"query": QUERY, "profile_fields": [JANE]},
            ["profile_fields", "query"],
            "`profile_fields` was left out and is now 'Email' contains …; `query` is different",
        ),
        (
            {"profile_fields": [GOLD]},
            {"query": fields(JANE)},
            ["profile_fields", "query"],
            "and is now left out; `query` is different in common_profile_properties. Give",
        ),
        ({"query": QUERY}, {}, ["query"], "`query` is different in advanced_query. Give"),
        (
            {"query": {"common_profile_properties": {"geo_fields": {"Jane Town": ["a"]}}}},
            {"query": {"common_profile_properties": {"geo_fields": {"Jane Town": ["b"]}}}},
            ["query"],
            "`query` is different in common_profile_properties.geo_fields.…. Give",
        ),
    ],
)
async def test_a_difference_is_that_of_the_argument_that_holds_the_filter(
    tmp_path: Path,
    begun: dict[str, Any],
    now: dict[str, Any],
    arguments: list[str],
    words: str,
) -> None:
    to = tmp_path / "people.ndjson"
    async with scripted(endless()) as server, session_at(server) as session:
        await interrupted(session, to, "Charged", **DAYS, **begun, windows=1)
        error = await mismatch(session, to, "Charged", **DAYS, **now, windows=1)
    assert list(error.differences) == arguments
    assert words in str(error)


async def test_the_same_filters_in_other_words_resume(tmp_path: Path) -> None:
    to = tmp_path / "people.ndjson"
    async with Emulator(people=400, seed=4) as emulator, session_for(emulator) as session:
        paid = Filter("Gift", "equals", "True")
        begun: dict[str, Any] = {"event_properties": [AMOUNT, paid], "profile_fields": [GOLD]}
        await export(session, to, "Charged", **DAYS, **begun, windows=1)
        whole = to.read_bytes()
        await interrupted(session, to, "Charged", **DAYS, **begun, windows=1)
        before = emulator.stats.requests["open_chain"]
        query = {
            "common_profile_properties": {
                "profile_fields": [{"value": "Gold", "operator": "equals", "name": "Customer Type"}]
            },
            "advanced_query": {"did_all": []},
        }
        again = [Filter("Gift", "equals", True), Filter("Amount", "gt", 1e2)]
        await export(session, to, "Charged", **DAYS, event_properties=again, query=query, windows=1)
        assert emulator.stats.requests["open_chain"] == before
    assert to.read_bytes() == whole


async def test_everyone_is_another_export_than_an_event(tmp_path: Path) -> None:
    to = tmp_path / "people.ndjson"
    async with Emulator(people=400, seed=4) as emulator, session_for(emulator) as session:
        await interrupted(session, to, "Charged", **DAYS)
        error = await mismatch(session, to)
        assert error.differences == {
            "events": (("Charged",), None),
            "start": (20260101, None),
            "end": (20260131, None),
            "windows": (3, 1),
        }
        shutil.rmtree(workspace_of(to))
        await interrupted(session, to)
        error = await mismatch(session, to, "Charged", **DAYS)
        assert error.differences["events"] == (None, ("Charged",))
        error = await mismatch(session, to, profile_fields=[GOLD])
        assert list(error.differences) == ["profile_fields"]


def test_a_plan_of_an_earlier_version_has_no_filters() -> None:
    earlier = (
        b'{"kind":"events","account":"W9R","host":"https://x","events":["Charged"],'
        b'"start":20260101,"end":20260131,"app":false,"event_summaries":true,"profile":true,'
        b'"windows":3,"batch_size":4991}'
    )
    plan = parse_plan(earlier)
    assert plan == EventsPlan(
        "W9R", "https://x", ("Charged",), 20260101, 20260131, False, True, True, 3
    )
    assert plan.filters == Filters()
    assert parse_plan(plan.encode()) == plan


def test_a_plan_with_filters_is_what_it_was_after_the_disk() -> None:
    for events, start, end in ((("Charged",), 20260101, 20260131), (None, None, None)):
        plan = EventsPlan(
            "W9R",
            "https://x",
            events,
            start,
            end,
            False,
            True,
            True,
            1,
            filters=Filters.of((), [GOLD, JANE], QUERY),
        )
        assert parse_plan(plan.encode()) == plan


def test_the_manifest_of_a_plan_has_no_values() -> None:
    query = {
        "session_properties": [{"name": "time_of_day", "value": ["jane", "14:00"]}],
        "common_profile_properties": {
            "profile_fields": [],
            "demographics": {"age": [{"from": 18, "to": 30}], "gender": "jane"},
            "geo_fields": [{"name": "jane"}, {"jane Town": True}],
        },
        "advanced_query": {
            "did_all": [
                {
                    "event_name": "Charged",
                    "from": 20260101,
                    "to": 20260131,
                    "event_properties": [{"name": "a", "operator": "equals", "value": "jane"}],
                }
            ]
        },
    }

    def written(*filters: Filter) -> dict[str, Any]:
        of_query = Filters.of(filters, (), query)
        plan = EventsPlan("W", "https://x", ("e",), 1, 2, False, True, True, 1, filters=of_query)
        assert parse_plan(plan.encode()).as_builtins() == plan.as_builtins()
        return plan.as_builtins()

    values = written(AMOUNT, JANE)
    assert "jane" not in json.dumps(values)
    assert values["filters"] == {
        "event_properties": [
            {"name": "Amount", "operator": "greater_than", "value": "…"},
            {"name": "Email", "operator": "contains", "value": "…"},
        ],
        "session_properties": [{"name": "time_of_day", "value": ["…", "…"]}],
        "common_profile_properties": {
            "demographics": {"age": [{"from": "…", "to": "…"}], "gender": "…"},
            "geo_fields": [{"name": "…"}, {"…": "…"}],
        },
        "advanced_query": {
            "did_all": [
                {
                    "event_name": "Charged",
                    "from": 20260101,
                    "to": 20260131,
                    "event_properties": [{"name": "a", "operator": "equals", "value": "…"}],
                }
            ]
        },
    }
    # The digest tells equal filters from others, in any order.
    assert values["filters_sha256"] == written(JANE, AMOUNT)["filters_sha256"]
    assert values["filters_sha256"] != written(AMOUNT)["filters_sha256"]


def test_a_plan_of_an_earlier_version_has_filters_without_their_arguments() -> None:
    earlier = (
        b'{"kind":"events","account":"W9R","host":"https://x","events":["Charged"],'
        b'"start":20260101,"end":20260131,"app":false,"event_summaries":true,"profile":true,'
        b'"windows":1,"batch_size":4991,"filters":{"body":"{\\"event_properties\\":[{\\"name\\":'
        b'\\"Amount\\",\\"operator\\":\\"greater_than\\",\\"value\\":100}]}"}}'
    )
    plan = parse_plan(earlier)
    assert isinstance(plan, EventsPlan)
    assert plan.filters == Filters.of([AMOUNT])
    assert parse_plan(earlier.replace(b":100}", b":100.0}")) == plan
    assert plan.filters == Filters.of((), (), {"event_properties": sent(AMOUNT)})


# ---------------------------------------------------------------------------- 0 people, batch sizes


OF_EVENT = "check the name of the event, upper and lower case included, the days"
OF_FILTERS = "names, operators and values of the filters"


@pytest.mark.parametrize(
    ("events", "options", "words"),
    [
        (
            ("Charged",),
            {**DAYS, "profile_fields": [JANE]},
            f"{OF_EVENT}, {OF_FILTERS}, and that the account is the right one",
        ),
        (
            (),
            {"profile_fields": [JANE]},
            f"check {OF_FILTERS}, and that the account is the right one",
        ),
        (
            ("Charged",),
            DAYS,
            f"{OF_EVENT}, and that the account is the right one",
        ),
    ],
)
async def test_an_output_of_nobody_names_the_next_step(
    tmp_path: Path, events: Any, options: dict[str, Any], words: str
) -> None:
    async with Emulator(people=0) as emulator, session_for(emulator) as session:
        report = await export(session, tmp_path / "p.ndjson", *events, **options)
    assert report.people == 0
    [warning] = report.warnings
    assert warning == f"0 people in {tmp_path / 'p.ndjson'}; {words}"


def sizes_of(report: ExportReport) -> tuple[int, list[int | None]]:
    manifest = json.loads(Path(str(report.manifest)).read_bytes())
    chains = [chain.batch_size for chain in report.chains]
    assert [chain["batch_size"] for chain in manifest["chains"]] == chains
    return manifest["plan"]["batch_size"], chains


@pytest.mark.parametrize("runs", [1, 2])
async def test_the_manifest_has_the_batch_size_of_the_chains(tmp_path: Path, runs: int) -> None:
    to = tmp_path / "people.ndjson"
    async with Emulator(people=900, seed=4) as emulator, session_for(emulator) as session:
        await interrupted(session, to, "Charged", **DAYS, windows=1)
        for _ in range(runs - 1):
            await interrupted(session, to, "Charged", **DAYS, windows=1, batch_size=92)
        report = await export(session, to, "Charged", **DAYS, windows=1, batch_size=46)
        assert sizes_of(report) == (23, [23])
        assert emulator.stats.requests["open_chain"] == 1


async def test_chains_that_a_later_run_opens_have_a_size_of_their_own(tmp_path: Path) -> None:
    to = tmp_path / "people.ndjson"
    numbers, has_end = itertools.count(), False

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        number = next(numbers)
        page = f'"records":[{{"identity":"{number}"}}]'
        if head.startswith(b"POST"):
            page = f'"cursor":"c{number}"'
        elif not has_end:
            page += f',"next_cursor":"c{number}"'
        writer.write(http(f'{{"status":"success",{page}}}'.encode()))

    def on_progress(progress: ExportProgress) -> None:
        if all(chain.pages for chain in progress.chains):
            raise Halt

    options: dict[str, Any] = {**DAYS, "windows": 2}
    async with scripted(answer) as server, session_at(server) as session:
        with pytest.raises(Halt):
            await export(session, to, "Charged", **options, on_progress=on_progress)
        with closing(sqlite3.connect(workspace_of(to) / "journal.sqlite")) as journal, journal:
            # Its cursor is out of date, so that it is opened again.
            journal.execute("update chains set since = 0 where number = 1")
        has_end = True
        report = await export(session, to, "Charged", **options, batch_size=46)
    assert sizes_of(report) == (46, [23, 46])


async def test_a_chain_that_an_earlier_version_has_opened_has_the_size_of_its_plan(
    tmp_path: Path,
) -> None:
    to = tmp_path / "people.ndjson"
    async with Emulator(people=900, seed=4) as emulator, session_for(emulator) as session:
        await interrupted(session, to, "Charged", **DAYS, windows=1)
        with closing(sqlite3.connect(workspace_of(to) / "journal.sqlite")) as journal, journal:
            done = journal.execute("delete from state where name like 'batch_size%'")
            assert done.rowcount == 1
        await interrupted(session, to, "Charged", **DAYS, windows=1, batch_size=92)
        report = await export(session, to, "Charged", **DAYS, windows=1, batch_size=46)
    assert sizes_of(report) == (23, [23])


# ------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("events", "options", "words"),
    [
        ((), {"start": 20260101}, "events: got None, where `start` is given"),
        ((), {"end": 20260131}, "events: got None, where `end` is given"),
        ((), DAYS, "events: got None, where `start` and `end` are given"),
        ((None,), DAYS, "events: got None"),
        (("Charged",), {}, "start: got None, where `events` is given"),
        (("Charged",), {"start": 20260101}, "end: got None, where `events` and `start` are given"),
        (("Charged",), {"end": 20260131}, "start: got None"),
        (([],), {}, "start: got None"),
        (([],), DAYS, "events: expected"),
        ((), {"windows": 3}, "windows: everyone is one chain, got 3"),
        ((), {"windows": 0}, "windows: expected a whole number"),
        ((), {"windows": "many"}, "windows: expected 'auto'"),
        ((), {"windows": True}, "windows: expected a whole number"),
        ((), {"event_properties": [AMOUNT]}, "event_properties: it filters an event"),
        ((), {"query": {"session_properties": []}}, "query.session_properties: "),
        ((), {"event_properties": AMOUNT}, "event_properties: expected a list of filters"),
        ((), {"profile_fields": [GOLD, "x"]}, "profile_fields[1]: expected a Filter"),
        (("Charged",), {**DAYS, "query": "{}"}, "query: expected a dict"),
        (("Charged",), {**DAYS, "query": {"event_name": "X"}}, "query: `event_name` is set by"),
    ],
)
async def test_a_query_that_cannot_be_is_refused_before_anything_is_sent(
    tmp_path: Path, events: Any, options: dict[str, Any], words: str
) -> None:
    async with Emulator(people=1) as emulator, session_for(emulator) as session:
        with pytest.raises(ConfigurationError) as caught:
            await export(session, tmp_path / "p.ndjson", *events, **options)
        assert sum(emulator.stats.requests.values()) == 0
    assert str(caught.value).startswith(words)
    assert list(tmp_path.iterdir()) == []
