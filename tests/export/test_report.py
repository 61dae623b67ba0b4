"""Reports as text, on a terminal and in a notebook."""

from __future__ import annotations

import json
import logging
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import pytest

from altaprofiles import ChainStatus, ExportReport, LookupReport, SyncReport
from altaprofiles.emulator import Emulator

from ..support.sessions import END, EVENT, RANGE, START, session_for

pytestmark = pytest.mark.anyio

COMMON: dict[str, Any] = {
    "output": "/data/crm.duckdb",
    "manifest": "/data/crm.duckdb.manifest.json",
    "format": "duckdb",
    "complete": True,
    "requests": 1234,
    "retries": 5,
    "seconds": 3723.4,
}
CHAIN = ChainStatus("Charged", 20260101, 20260131, 3000, 2, True, 0)
EXPORT = ExportReport(
    **COMMON,
    people=2000,
    records=3000,
    pages=2,
    chains=[CHAIN],
    counted={"<b>Charged & co</b>": 2001},
    warnings=["1 of 2,001 people is missing <here>"],
    bytes=5_100_000,
    sha256="85539b",
    mended=2,
    absorbed=1,
    matched=1500,
    unmatched=499,
    failed=1,
    failed_file="/data/crm.duckdb.failed.ndjson",
)
SYNC = SyncReport(
    **COMMON,
    since=date(2026, 1, 1),
    has_output=True,
    first=date(2026, 1, 1),
    last=date(2026, 1, 2),
    through=date(2026, 1, 2),
    timezone="Asia/Kolkata",
    finished=1,
    people=10,
    records=12,
    pages=1,
    chains=[CHAIN],
)
LOOKUPS = LookupReport(
    **COMMON,
    keys=10,
    repeated=2,
    skipped=1,
    found=6,
    not_found=3,
    failed=1,
    not_found_file="/data/not-found.txt",
    failed_file="/data/failed.ndjson",
)


def test_an_export() -> None:
    assert str(EXPORT).splitlines() == [
        "days      2026-01-01 to 2026-01-31",
        "people    2,000",
        "records   3,000 on 2 pages",
        (
            "joined    1,500 with users at Alta, 499 without, 1 failed, "
            "in /data/crm.duckdb.failed.ndjson"
        ),
        "counted   <b>Charged & co</b>: 2,001 people by the service",
        "retries   5 in 1,234 requests",
        "time      1:02:03",
        "size      5.1 MB",
        "SHA-256   85539b",
        "absorbed  1 row of earlier runs, by people with a name",
        "mended    2 texts that duckdb cannot hold",
        "output    /data/crm.duckdb",
        "manifest  /data/crm.duckdb.manifest.json",
        "warning   1 of 2,001 people is missing <here>",
    ]
    assert f"{EXPORT}" == str(EXPORT)
    everyone = msgspec.structs.replace(
        EXPORT, chains=[ChainStatus(None, None, None, 3000, 2, True, 0)]
    )
    assert str(everyone).startswith("people ")
    later = ChainStatus("Charged", 20260102, 20260201, 3000, 2, True, 0)
    one = msgspec.structs.replace(EXPORT, chains=[later])
    several = msgspec.structs.replace(
        EXPORT, chains=[CHAIN, later], accounts={"eu": EXPORT, "in": one}
    )
    rows = [row for row in several.summary if row[1].startswith("2026") or row[0] == "days"]
    assert [name for name, _ in rows] == ["eu", "in"]
    assert [text.partition(":")[0] for _, text in rows] == [
        "2026-01-01 to 2026-01-31",
        "2026-01-02 to 2026-02-01",
    ]


def test_the_requests_and_the_time_of_earlier_runs_are_named_as_such() -> None:
    for report in (EXPORT, LOOKUPS):
        assert "all runs" not in str(report)
        rows = msgspec.structs.replace(report, resumed=1).summary
        assert ("retries", "5 in 1,234 requests of all runs") in rows
        assert ("time", "1:02:03 of all runs") in rows


def test_a_sync() -> None:
    assert str(SYNC).splitlines()[:6] == [
        "days      2026-01-01 to 2026-01-02",
        "through   2026-01-02, by days of Asia/Kolkata",
        "finished  1 export of earlier runs",
        "people    10",
        "records   12 on 1 page",
        "retries   5 in 1,234 requests",
    ]
    nothing = msgspec.structs.replace(SYNC, first=None, last=None, people=0, finished=0)
    assert str(nothing).splitlines()[:3] == [
        "days      none, as the table has all of them",
        "through   2026-01-02, by days of Asia/Kolkata",
        "retries   5 in 1,234 requests",
    ]
    unwritten = msgspec.structs.replace(nothing, through=None, has_output=False)
    assert str(unwritten).splitlines()[0] == (
        "days      none: no day since 2026-01-01 is over yet, by days of Asia/Kolkata; nothing was "
        "written"
    )
    assert "output" not in str(unwritten)
    several = msgspec.structs.replace(SYNC, accounts={"eu": unwritten, "in": SYNC})
    assert "eu        no day since 2026-01-01 is over yet, by days of Asia/Kolkata" in str(several)
    assert "output    " in str(several)


def test_values_of_another_type_are_named_by_column() -> None:
    some = msgspec.structs.replace(EXPORT, mended=1003, mistyped={"Last Score": 1000, "a b": 1})
    words = "1,001 values that do not fit their column are null: 'Last Score' 1,000, 'a b' 1"
    assert f"mended    2 texts that duckdb cannot hold; {words}\n" in str(some)
    assert f"mended    {words}\n" in str(msgspec.structs.replace(some, mended=1001))


@pytest.mark.parametrize("to", ["p.parquet", "p.duckdb", "p.csv", "days/"])
async def test_an_export_names_the_columns_whose_values_are_null(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, to: str
) -> None:
    """Each person counts once, as in the output, and no value is in a text."""
    values = [("1", "7.5"), ("2", 7), ("3", "gold"), ("4", None), ("5", True)]
    both = {name: {"count": 1, "first_seen": 1767600000} for name in ("Charged", EVENT)}
    records = [
        {"identity": identity, "events": both, "profileData": {"Score": value, "plan": value}}
        for identity, value in values
    ]
    flatten: Any = {"Score": "int64", "plan": None, "none": "int64"}
    path = f"{tmp_path}/{to}"
    with caplog.at_level(logging.WARNING, "altaprofiles"):
        async with Emulator(records=records) as emulator, session_for(emulator) as session:
            report = await session.export(["Charged", EVENT], **RANGE, to=path, flatten=flatten)
            if to == "days/":
                more = await session.export(
                    "Charged", **RANGE, to=path, flatten=flatten, write="append"
                )
                (advice,) = [one for one in more.warnings if "do not fit their column" in one]
                # As "text" it would not stand beside the files that there are.
                assert "write='replace'" in advice
            if to == "p.duckdb":
                days: Any = {"since": START, "until": END, "timezone": "UTC"}
                synced = await session.sync(
                    ["Charged", EVENT], **days, to=tmp_path / "s.duckdb", flatten=flatten
                )
                assert synced.mistyped == report.mistyped
                (advice,) = [one for one in synced.warnings if "do not fit their column" in one]
                assert advice.endswith('(`altaprofiles guide every-night`, "Schema evolution")')
    assert (report.people, report.mended, report.mistyped) == (5, 3, {"Score": 3})
    words = "3 values that do not fit their column are null: 'Score' 3"
    (told,) = [one for one in report.warnings if "do not fit their column" in one]
    if to == "p.duckdb":
        # The next one would be refused with another type alone.
        change = 'ALTER TABLE "profiles" ALTER COLUMN "Score" TYPE VARCHAR '
        assert told.startswith(f"{words}; to keep every value, run: {change}")
    else:
        assert told == f'{words}; as "text" a column keeps every value'
    assert told in caplog.messages
    assert ("mended", words) in report.summary
    assert json.loads(Path(str(report.manifest)).read_bytes())["mistyped"] == {"Score": 3}
    assert "gold" not in f"{report} {caplog.messages}"


def test_lookups() -> None:
    assert str(LOOKUPS).splitlines()[:4] == [
        "keys       10, and 2 repeated and 1 without a key, which were skipped",
        "found      6",
        "not found  3, in /data/not-found.txt",
        "failed     1, in /data/failed.ndjson",
    ]


def test_what_is_not_complete_says_so_first() -> None:
    for report in (EXPORT, SYNC, LOOKUPS):
        first, *_ = str(msgspec.structs.replace(report, complete=False)).splitlines()
        assert first.split() == ["complete", "no"]


def test_several_accounts() -> None:
    share = msgspec.structs.replace(SYNC, complete=False)
    whole = msgspec.structs.replace(SYNC, accounts={"india": SYNC, "europe": share})
    text = "2026-01-01 to 2026-01-02: 10 people, all days through 2026-01-02"
    assert f"india     {text}\neurope    not complete, {text}\n" in str(whole)


def test_a_notebook_shows_a_table_in_which_nothing_is_markup() -> None:
    html = EXPORT._repr_html_()
    assert html.count("<tr>") == html.count("</tr>") == len(str(EXPORT).splitlines())
    assert "&lt;b&gt;Charged &amp; co&lt;/b&gt;: 2,001 people" in html
    assert "missing &lt;here&gt;" in html
    odd = msgspec.structs.replace(LOOKUPS, output="/data/<script>\n\udcff\x1b[2J.csv")
    html = odd._repr_html_()
    assert "/data/&lt;script&gt;\\n\\xff\\x1b[2J.csv" in html
    assert html.encode()


def test_each_figure_is_one_line_whatever_its_text() -> None:
    odd = msgspec.structs.replace(EXPORT, output="a\nb\udcff", counted={"a\nb\x1b[2J": 1})
    assert len(str(odd).splitlines()) == len(str(EXPORT).splitlines())
    assert "counted   a\\nb\\x1b[2J: 1 people by the service\n" in str(odd)
    assert "output    a\\nb\\xff\n" in str(odd)


def test_paths_in_the_current_folder_are_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    near = msgspec.structs.replace(LOOKUPS, not_found_file=str(tmp_path / "not-found.txt"))
    assert "not found  3, in not-found.txt\n" in str(near)
    assert "manifest   /data/crm.duckdb.manifest.json" in str(near)


def test_the_repr_is_that_of_a_value() -> None:
    for report in (EXPORT, SYNC, LOOKUPS):
        assert repr(report).startswith(f"{type(report).__name__}(output='/data/crm.duckdb', ")


async def test_no_secret_is_in_any_form(tmp_path: Path) -> None:
    async with Emulator(people=60, seed=3) as emulator, session_for(emulator) as session:
        report = await session.export(EVENT, **RANGE, to=tmp_path / "p.ndjson")
        for text in (str(report), repr(report), report._repr_html_()):
            assert emulator.clevertap.passcode not in text
        assert f"people    {report.people:,}\n" in str(report)
