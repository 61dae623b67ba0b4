"""Exports joined with CDP users: both services over real sockets."""

from __future__ import annotations

import asyncio
import csv
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import duckdb
import msgspec
import pyarrow.parquet
import pytest

from altaprofiles import ConfigurationError, Forbidden, Incomplete, Retry, Unauthorized
from altaprofiles.emulator import Emulator
from altaprofiles.emulator.bindings import Bindings
from altaprofiles.export.report import ExportProgress

from ..support.jobs import names_in, workspace_of
from ..support.joining import DOWN, NO_TOKEN, REFUSED, USED_UP, Both, both, user
from ..support.postgres import Server
from ..support.servers import http
from ..support.sessions import session_for

pytestmark = pytest.mark.anyio

EVENTS: dict[str, Any] = {"events": "Charged", "start": 20260101, "end": 20260101}
NO_RETRY = Retry(attempts=1, base_delay=0.001, max_delay=0.01)


@pytest.fixture
async def services() -> AsyncIterator[Both]:
    async with both() as services:
        yield services


@pytest.fixture
def to(tmp_path: Path) -> Path:
    return tmp_path / "p.ndjson"


def record(identity: str, **properties: Any) -> bytes:
    return json.dumps({"identity": identity, "profileData": properties}).encode()


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def joins_of(path: Path) -> dict[str, Any]:
    return {line.get("identity", ""): line["cdp"] for line in lines_of(path)}


async def export(services: Both, to: Path, *, retry: Retry | None = None, **changes: Any) -> Any:
    session = services.session() if retry is None else services.session(retry=retry)
    async with session:
        return await session.export(**{**EVENTS, "to": to, "with_cdp": True, **changes})


# --------------------------------------------------------------------------------------- the output


async def test_a_record_gets_its_users_as_the_last_member(services: Both, to: Path) -> None:
    sent = [
        b'{"identity" : "a", "new": [1, {"x": 1.50}]}',
        b'{"identity": "b"}',
        b'{"objectId": "device"}',
        b"{}",
    ]
    services.pages = [sent]
    services.users["a"] = [user("a", "a1", "a2"), user("other")]
    report = await export(services, to)
    users = msgspec.json.encode(services.users["a"])
    assert to.read_bytes().splitlines() == [
        sent[0][:-1] + b',"cdp":' + users + b"}",
        sent[1][:-1] + b',"cdp":[]}',
        sent[2][:-1] + b',"cdp":[]}',
        b'{"cdp":[]}',
    ]
    assert (report.people, report.matched, report.unmatched, report.failed) == (4, 1, 3, 0)
    assert report.failed_file is None
    assert names_in(to.parent) == ["p.ndjson", "p.ndjson.manifest.json"]
    manifest = json.loads(Path(str(report.manifest)).read_bytes())
    assert [manifest[name] for name in ("matched", "unmatched", "failed")] == [1, 3, 0]
    plan = manifest["plan"]
    assert (plan["with_cdp"], plan["cdp_key"], plan["cdp_by"]) == (True, "identity", "user_id")


async def test_a_member_of_that_name_makes_room(services: Both, to: Path) -> None:
    services.pages = [
        [b'{"cdp":"mine","identity":"a"}', b'{"identity":"b","\\u0063dp":{"cdp":1},"x":"\\ud83d"}']
    ]
    services.users = {"a": [user("a", "a1")]}
    await export(services, to)
    pairs = [
        json.loads(line, object_pairs_hook=lambda found: found)
        for line in to.read_bytes().splitlines()
    ]
    assert [[name for name, _ in members] for members in pairs] == [
        ["record.cdp", "identity", "cdp"],
        ["identity", "record.cdp", "x", "cdp"],
    ]
    assert joins_of(to) == {"a": services.users["a"], "b": []}


async def test_without_a_join_nothing_is_added(services: Both, to: Path) -> None:
    services.pages = [[record("a")]]
    report = await export(services, to, with_cdp=False)
    assert to.read_bytes() == record("a") + b"\n"
    assert services.asked == []
    assert (report.matched, report.unmatched, report.failed, report.failed_file) == (None,) * 4


@pytest.mark.parametrize("name", ["p.csv", "p.parquet", "p.duckdb"])
async def test_tables_have_a_column_of_json(services: Both, tmp_path: Path, name: str) -> None:
    services.pages = [[record("a", City="Rome"), record("b"), record("c")]]
    services.users = {"a": [user("a", "a1")]}
    services.answers = {"c": DOWN}
    to = tmp_path / name
    with pytest.raises(Incomplete):
        await export(services, to, flatten=["City"])
    if name == "p.csv":
        with to.open(newline="") as file:
            rows = [*csv.DictReader(file)]
        columns, cells = [*rows[0]], [row["cdp"] or None for row in rows]
        assert b',"",' not in to.read_bytes()
    elif name == "p.parquet":
        table = pyarrow.parquet.read_table(to)
        columns, cells = table.column_names, table["cdp"].to_pylist()
    else:
        with duckdb.connect(to, read_only=True) as db:
            found = db.execute("select * from profiles order by identity")
            columns = [column for column, *_ in found.description or ()]
            cells = [row[columns.index("cdp")] for row in found.fetchall()]
    assert columns[-2:] == ["cdp", "City"]
    assert [None if cell is None else json.loads(cell) for cell in cells] == [
        services.users["a"],
        [],
        None,
    ]


# ------------------------------------------------------------------------------- the keys, and when


async def test_each_key_is_asked_for_once_while_pages_come(services: Both, to: Path) -> None:
    services.pages = [
        [record(f"{n % 150}") for n in range(start, start + 50)] for start in range(0, 300, 50)
    ]

    async def before_page(number: int) -> None:
        # The last page waits for the first lookup.
        if number == 5:
            with anyio.fail_after(60):
                await services.was_asked.wait()

    services.before_page = before_page
    report = await export(services, to)
    assert Counter(services.asked) == Counter(str(n) for n in range(150))
    assert report.people == report.unmatched == 150


async def test_keys_of_another_property(services: Both, to: Path) -> None:
    values = ["x 1", 7, 9.1e3, 1.5, True, None, "", ["x 1"], {"a": 1}, -3]
    services.pages = [[record(f"{n}", ref=value) for n, value in enumerate(values)] + [b"{}"]]
    services.users = {"x 1": [user("u")], "7": [user("v", "x 1")]}
    report = await export(services, to, cdp_key="ref", cdp_by="anonymous_id")
    assert Counter(services.asked) == Counter(["x 1", "7", "9100", "-3"])
    found = joins_of(to)
    assert (found["0"], found["1"]) == (services.users["x 1"], services.users["7"])
    assert (report.matched, report.unmatched, report.failed) == (2, 9, 0)


async def test_half_a_character_is_not_asked_for_as_another(
    services: Both, to: Path, caplog: pytest.LogCaptureFixture
) -> None:
    services.pages = [[b'{"identity":"x\\ud83d"}', b'{"identity":"x\\ufffd"}']]
    services.users = {"x\ufffd": [user("somebody else")]}
    report = await export(services, to)
    assert services.asked == ["x\ufffd"]
    assert [line["cdp"] for line in lines_of(to)] == [None, services.users["x\ufffd"]]
    assert (report.matched, report.unmatched, report.failed) == (1, 0, 1)
    assert report.complete
    [failed] = lines_of(Path(report.failed_file))
    assert (failed["key"], failed["error"]) == ("x\\ud83d", "InvalidArgument")
    [warning] = report.warnings
    assert "1 person" in warning
    assert warning in caplog.messages


async def test_both_caps_hold_and_everybody_is_joined(tmp_path: Path) -> None:
    async with Emulator(people=400, seed=2, think=0.001) as emulator:
        bindings = Bindings(emulator.population)
        to = tmp_path / "p.ndjson"
        async with session_for(emulator) as session:
            report = await session.export(
                ["App Launched", "Charged"],
                start=20260101,
                end=20260131,
                batch_size=46,
                to=to,
                with_cdp=True,
            )
        peaks = emulator.stats.peak_in_flight
    assert peaks["clevertap"] <= 3
    assert 1 < peaks["alta"] <= 16
    matched = 0
    for line in lines_of(to):
        identity = line.get("identity")
        bound = {} if identity is None else bindings.by_user(str(identity))
        for one in bound.values():
            for binding in one["anonymous_ids"]:
                binding.setdefault("source_id", None)
        assert line["cdp"] == [*bound.values()]
        matched += bool(bound)
    assert report.matched == matched > 100
    assert report.unmatched == report.people - matched


# ----------------------------------------------------------------------------------------- failures


async def test_failed_lookups_alone_are_asked_for_again(services: Both, to: Path) -> None:
    services.pages = [[record(f"{n}") for n in range(30)]]
    services.users = {f"{n}": [user(f"{n}", "a")] for n in range(20)}
    whole = to.with_name("whole.ndjson")
    await export(services, whole)
    services.asked.clear()
    services.read.clear()
    services.answers = {"3": DOWN, "25": DOWN, "7": REFUSED}
    with pytest.raises(Incomplete) as caught:
        await export(services, to, retry=NO_RETRY)
    report: Any = caught.value.report
    assert not report.complete
    assert (report.people, report.matched, report.unmatched, report.failed) == (30, 18, 9, 3)
    [sentence] = caught.value.missing
    assert "2 people" in sentence
    # The output is there, which is what somebody wants to know first.
    assert str(caught.value).startswith(f"the export to {to} is written, but is not complete:")
    assert "run the same export again to ask for what is missing" in str(caught.value)
    assert report.failed_file == f"{to}.failed.ndjson"
    failed = lines_of(Path(report.failed_file))
    assert [(one["key"], one["error"]) for one in failed] == [
        ("3", "ServerError"),
        ("7", "BadRequest"),
        ("25", "ServerError"),
    ]
    assert {*failed[0]} == {"key", "error", "message"}
    assert [key for key, users in joins_of(to).items() if users is None] == ["3", "7", "25"]
    services.asked.clear()
    services.read.clear()
    services.answers = {}
    done = await export(services, to)
    assert Counter(services.asked) == Counter(["3", "25"])
    assert services.read == []
    assert (done.matched, done.unmatched, done.failed) == (19, 10, 1)
    found, expected = joins_of(to), joins_of(whole)
    assert found == {**expected, "7": None}
    assert [one["key"] for one in lines_of(Path(done.failed_file))] == ["7"]
    assert not workspace_of(to).exists()


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (NO_TOKEN, Unauthorized),
        (http(b'{"code":403100,"message":"no"}', "403 Forbidden"), Forbidden),
    ],
)
async def test_refused_credentials_end_it_at_once(
    services: Both, to: Path, answer: bytes, error: type[Exception]
) -> None:
    services.pages = [[record("a")], [record("b")], [record("c")]]
    services.answer = answer

    async def before_page(number: int) -> None:
        if number == 2:
            await asyncio.Event().wait()

    services.before_page = before_page
    with anyio.fail_after(60), pytest.raises(error) as caught:
        await export(services, to)
    assert any("run the same export again" in note for note in caught.value.__notes__)
    services.answer = services.before_page = None
    services.read.clear()
    await export(services, to)
    assert 0 not in services.read
    assert [*joins_of(to)] == ["a", "b", "c"]


@pytest.mark.parametrize("answer", [USED_UP, DOWN])
async def test_an_outage_of_alta_costs_no_page(services: Both, to: Path, answer: bytes) -> None:
    services.pages = [[record(f"{page} {n}") for n in range(20)] for page in range(4)]
    services.answer = answer
    for _ in range(2):
        with pytest.raises(Incomplete) as caught:
            await export(services, to, retry=NO_RETRY)
        report: Any = caught.value.report
        assert (report.people, report.matched, report.failed) == (80, 0, 80)
        assert len(lines_of(Path(report.failed_file))) == 80
        assert {*map(str, joins_of(to).values())} == {"None"}
    assert sorted(services.read) == [0, 1, 2, 3]
    services.answer = None
    services.asked.clear()
    report = await export(services, to)
    assert Counter(services.asked) == Counter([*joins_of(to)])
    assert sorted(services.read) == [0, 1, 2, 3]
    assert (report.unmatched, report.failed, report.failed_file) == (80, 0, None)
    assert names_in(to.parent) == ["p.ndjson", "p.ndjson.manifest.json"]


async def test_after_an_outage_the_rest_is_asked_for_at_the_end(
    services: Both, to: Path, caplog: pytest.LogCaptureFixture
) -> None:
    services.pages = [[record(f"{page} {n}") for n in range(20)] for page in range(4)]
    services.answer = DOWN

    async def before_page(number: int) -> None:
        if number == 3:
            with anyio.fail_after(60):
                while not any("again at the end" in line for line in caplog.messages):
                    await asyncio.sleep(0.001)
            services.answer = None

    services.before_page = before_page
    report = await export(services, to, retry=NO_RETRY)
    assert report.complete
    assert (report.unmatched, report.failed) == (80, 0)


async def test_a_person_who_is_not_in_the_output_costs_nothing(services: Both, to: Path) -> None:
    """The second record of a person is not written, whatever its key."""
    services.pages = [[record("a", ref="x"), record("a", ref="y")]]
    services.answers = {"y": DOWN}
    report = await export(services, to, cdp_key="ref")
    assert report.complete
    assert (report.people, report.unmatched, report.failed) == (1, 1, 0)
    assert names_in(to.parent) == ["p.ndjson", "p.ndjson.manifest.json"]


async def test_a_damaged_spool_is_asked_for_again(
    services: Both, to: Path, caplog: pytest.LogCaptureFixture
) -> None:
    services.pages = [[record(f"{n}") for n in range(30)]]
    services.users = {f"{n}": [user(f"{n}", "a")] for n in range(30)}
    damaged: list[Path] = []

    def on_progress(progress: ExportProgress) -> None:
        if progress.stage == "finishing" or not progress.joined or damaged:
            return
        path = workspace_of(to) / "joins.spool.ndjson"
        with path.open("r+b") as file:
            file.seek(5)
            file.write(b"#")
        damaged.append(path)

    report = await export(services, to, on_progress=on_progress)
    assert len(damaged) == 1
    assert report.matched == 30
    assert joins_of(to) == services.users
    assert Counter(services.asked).total() == 31
    assert services.read == [0]
    assert any("asking for 1 key again" in line for line in caplog.messages)


# ----------------------------------------------------------------------------------- keys of people


async def test_people_found_by_key_are_joined(services: Both, to: Path) -> None:
    services.people = {f"{n}": record(f"{n}") for n in range(20)}
    services.users = {"1": [user("1", "a")]}
    services.answers = {"2": DOWN}
    keys = [*services.people, "nobody"]
    async with services.session(retry=NO_RETRY) as session:
        with pytest.raises(Incomplete) as caught:
            await session.export_lookups(["\0", *keys], by="identity", to=to, with_cdp=True)
        report: Any = caught.value.report
        assert (report.found, report.not_found, report.failed) == (20, 1, 1)
        assert (report.matched, report.unmatched, report.join_failed) == (1, 18, 1)
        failed = lines_of(Path(report.failed_file))
        assert [(one["key"], one.get("join", False)) for one in failed] == [
            ("\0", False),
            ("2", True),
        ]
        services.answers = {}
        services.asked.clear()
        done = await session.export_lookups(["\0", *keys], by="identity", to=to, with_cdp=True)
        assert services.asked == ["2"]
    assert (done.matched, done.unmatched, done.join_failed) == (1, 19, 0)
    assert [*joins_of(to)] == [*services.people]
    assert joins_of(to)["1"] == services.users["1"]


# ------------------------------------------------------------------------------ arguments, progress


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"with_cdp": 1}, "with_cdp"),
        ({"cdp_key": ""}, "cdp_key"),
        ({"cdp_key": 7}, "cdp_key"),
        ({"cdp_key": "\ud83d"}, "cdp_key"),
        ({"cdp_by": "identity"}, "cdp_by.*user_id, anonymous_id"),
        ({"cdp_by": None}, "cdp_by"),
        ({"with_cdp": False, "cdp_key": "phone"}, "cdp_key.*`with_cdp`"),
        ({"with_cdp": False, "cdp_by": "anonymous_id"}, "cdp_by.*`with_cdp`"),
        ({"cdp_key": "phone", "profile": False}, "cdp_key.*profile=False"),
    ],
)
async def test_bad_input(services: Both, to: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{words}"):
        await export(services, to, **changes)
    assert services.read == []
    assert names_in(to.parent) == []


async def test_it_takes_credentials_of_both_and_keys_of_clevertap(services: Both, to: Path) -> None:
    async with services.session(has_alta=False) as session:
        with pytest.raises(ConfigurationError, match="no Alta credentials"):
            await session.export(**EVENTS, to=to, with_cdp=True)
    async with services.session() as session:
        for by in ("user_id", "anonymous_id"):
            with pytest.raises(ConfigurationError, match=f"^with_cdp: .*{by}"):
                await session.export_lookups(["a"], by=by, to=to, with_cdp=True)
    assert names_in(to.parent) == []


async def test_progress_says_that_alta_limits_the_rate(services: Both, to: Path) -> None:
    services.pages = [[record(f"{n}") for n in range(30)]]
    services.answer = http(
        b'{"code":40008,"message":"slow"}', "429 Too Many Requests", "Retry-After: 30"
    )
    reports: list[ExportProgress] = []

    class Seen(Exception):
        pass

    def on_progress(progress: ExportProgress) -> None:
        reports.append(progress)
        if progress.joins_throttled:
            raise Seen

    with anyio.fail_after(60), pytest.raises(Seen):
        await export(services, to, on_progress=on_progress)
    last = reports[-1]
    assert last.joins == 30
    assert last.joined == 0
    assert "waiting for Alta's rate limit" in str(last)
    assert not last.throttled


@pytest.mark.parametrize("properties", [{}, {"Fone": None}])
async def test_a_property_of_which_nobody_has_a_value_is_told(
    services: Both, to: Path, properties: dict[str, None]
) -> None:
    services.pages = [[record("a", phone="1", **properties), record("b")]]
    report = await export(services, to, cdp_key="Fone")
    assert report.unmatched == 2
    assert report.warnings == [
        "this run brought nobody with a value for the property 'Fone', so that nobody was joined"
    ]
    assert (await export(services, to, cdp_key="phone")).warnings == []


async def test_the_moment_is_that_of_the_first_run(
    services: Both, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a failed join, the second run writes what an uninterrupted one would have."""
    moments = iter(range(1_767_225_600_000_000_000, 2**62, 10**9))
    services.pages = [[record("a"), record("b")]]
    services.users = {"a": [user("a", "x")]}
    whole, to = tmp_path / "whole.parquet", tmp_path / "p.parquet"
    monkeypatch.setattr(time, "time_ns", lambda: 1_767_225_600_123_456_789)
    await export(services, whole)
    services.answers = {"a": DOWN}
    with pytest.raises(Incomplete):
        await export(services, to)
    services.answers = {}
    monkeypatch.setattr(time, "time_ns", lambda: next(moments))
    await export(services, to)
    assert to.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("plan", ["everyone", "lookup", "days"])
async def test_a_key_that_fails_every_night_does_not_bring_the_first_night_s_data(
    services: Both, to: Path, monkeypatch: pytest.MonkeyPatch, plan: str
) -> None:
    arguments: dict[str, Any] = {"events": None, "start": None, "end": None}
    if plan == "days":
        # What happened on a day stays, so that nothing has to be fetched again.
        arguments = {}

    async def night(hours: int, mail: str) -> list[str | None]:
        at = 1_767_225_600 + 3600 * hours
        monkeypatch.setattr(time, "time_ns", lambda: at * 10**9)
        people = [json.dumps({"identity": one, "email": mail}).encode() for one in ("a", "b")]
        services.pages = [people]
        services.people = dict(zip("ab", people, strict=True))
        with pytest.raises(Incomplete):
            if plan == "lookup":
                async with services.session() as session:
                    await session.export_lookups(["a", "b"], by="identity", to=to, with_cdp=True)
            else:
                await export(services, to, **arguments)
        return [line.get("email") for line in lines_of(to)]

    services.answers = {"b": DOWN}
    assert await night(0, "monday") == ["monday"] * 2
    assert await night(1, "later") == ["monday"] * 2
    assert await night(24, "tuesday") == ["monday" if plan == "days" else "tuesday"] * 2


async def test_a_late_end_says_of_when_the_records_are(
    services: Both, to: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    services.pages = [[record("a")]]
    services.answers = {"a": DOWN}
    monkeypatch.setattr(time, "time_ns", lambda: 1_767_225_600 * 10**9)
    with pytest.raises(Incomplete):
        await export(services, to)
    services.answers = {}
    monkeypatch.setattr(time, "time_ns", lambda: 1_767_325_600 * 10**9)
    report = await export(services, to)
    assert report.warnings == [
        "the export was begun at 2026-01-01 00:00 UTC, and its rows are of then"
    ]


@pytest.mark.parametrize(
    ("system", "write"),
    [
        *(("duckdb", write) for write in ("upsert", "replace", "append")),
        *(("postgres", write) for write in ("upsert", "replace")),
    ],
)
async def test_the_second_run_puts_users_in_the_place_of_null(
    services: Both,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    system: str,
    write: str,
) -> None:
    # The files beside a table of a server are in the current folder.
    monkeypatch.chdir(tmp_path)
    to: Any = tmp_path / "p.duckdb"
    server = None
    if system == "postgres":
        server = request.getfixturevalue("postgres")
        to = server.url("people")

    def users() -> dict[str, Any]:
        if server is not None:
            return dict(server.rows("SELECT identity, cdp FROM people"))
        with duckdb.connect(to, read_only=True) as db:
            rows = db.execute("select identity, cdp from profiles").fetchall()
        return {identity: cdp and json.loads(cdp) for identity, cdp in rows}

    services.pages = [[record("a"), record("b"), record("c")]]
    services.users = {"a": [user("a", "x")], "b": [user("b", "y")]}
    services.answers = {"b": USED_UP, "c": USED_UP}
    with pytest.raises(Incomplete):
        await export(services, to, write=write)
    assert users()["b"] is None
    services.answers = {}
    report = await export(services, to, write=write)
    assert report.complete
    assert users() == {"a": services.users["a"], "b": services.users["b"], "c": []}


@pytest.mark.parametrize(
    "statement", ["TRUNCATE altaprofiles_runs", "DROP TABLE altaprofiles_runs", "TRUNCATE people"]
)
async def test_appended_rows_are_found_without_the_record_of_their_run(
    services: Both,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    postgres: Server,
    statement: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    to: Any = postgres.url("people")
    services.pages = [[record("a"), record("b"), record("c")]]
    services.users = {"a": [user("a", "x")], "b": [user("b", "y")]}
    await export(services, to, write="append", end=20260102)
    services.answers = {"b": USED_UP, "c": USED_UP}
    with pytest.raises(Incomplete):
        await export(services, to, write="append")
    services.answers = {}
    postgres.run(statement)
    assert (await export(services, to, write="append")).complete
    times = 1 if statement == "TRUNCATE people" else 2
    counted = "SELECT identity, count(*), count(cdp) FROM people GROUP BY 1 ORDER BY 1"
    assert postgres.rows(counted) == [(one, times, times) for one in "abc"]


async def test_appended_bindings_without_the_record_of_their_run_are_not_added_again(
    services: Both, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, postgres: Server
) -> None:
    monkeypatch.chdir(tmp_path)
    to: Any = postgres.url("bound")
    services.users = {"a": [user("a", "x")], "b": [user("b", "y")]}
    arguments: dict[str, Any] = {"by": "user_id", "to": to, "write": "append"}
    services.answers = {"b": DOWN}

    async def look_up() -> Any:
        async with services.session(retry=NO_RETRY) as session:
            return await session.export_lookups(["a", "b"], **arguments)

    with pytest.raises(Incomplete):
        await look_up()
    services.answers = {}
    for statement in ("TRUNCATE altaprofiles_runs", "DROP TABLE altaprofiles_runs"):
        postgres.run(statement)
        with pytest.raises(Incomplete, match=r"has no record of them any more.*restore that table"):
            await look_up()
        assert postgres.rows("SELECT key FROM bound") == [("a",)]
    postgres.run("TRUNCATE bound")
    assert (await look_up()).complete
    assert postgres.rows("SELECT key FROM bound ORDER BY 1") == [("a",), ("b",)]
