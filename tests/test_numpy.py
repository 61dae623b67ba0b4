"""Scalars of NumPy, as a cell of pandas is one, in the place of plain values."""

from __future__ import annotations

import re
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import numpy
import pandas as pd  # type: ignore[import-untyped]
import pyarrow as pa
import pytest

from altaprofiles import (
    Alta,
    CleverTap,
    EventQuery,
    Filter,
    InvalidArgument,
    Retry,
    Session,
    Timeout,
    windows,
)
from altaprofiles.emulator import Emulator
from altaprofiles.wire.language import Filters

pytestmark = pytest.mark.anyio

np: Any = numpy
"""For the types of arguments, a scalar of NumPy is wrong."""

FRAME = pd.DataFrame(
    {"flag": [True, False], "score": [3, 4], "amount": [1.5, 2.5], "day": [20260101, 20260131]}
)


def of(operator: Any, value: Any) -> Any:
    made = Filter("Property", operator, value).value
    return made, type(made)


def test_a_cell_of_a_table_is_a_value_of_a_filter() -> None:
    assert of("equals", FRAME["flag"].iloc[0]) == ("True", str)
    assert of("equals", np.False_) == ("False", str)
    assert of("gt", FRAME["score"].iloc[0]) == (3, int)
    assert of("gt", FRAME["amount"].iloc[0]) == (1.5, float)
    assert of("gt", np.float32(0.5)) == (0.5, float)
    assert of("equals", np.str_("Gold")) == ("Gold", str)
    assert of("equals", [np.True_, np.int8(1)]) == (("True", 1), tuple)
    for value in (np.float64("nan"), np.float32("inf"), np.datetime64("2026-01-01", "ns")):
        with pytest.raises(InvalidArgument):
            of("equals", value)


def test_a_cell_of_a_table_is_a_value_in_a_query() -> None:
    def asking(name: Any, value: Any) -> Any:
        return {"event_properties": [{"name": name, "operator": "equals", "value": value}]}

    for cell, plain in [(np.True_, True), (np.int64(3), 3), (np.float64(1.5), 1.5)]:
        assert Filters.of(query=asking(np.str_("Score"), cell)) == Filters.of(
            query=asking("Score", plain)
        )
    days = {"event_name": "Charged", "from": FRAME["day"].iloc[0], "to": FRAME["day"].iloc[1]}
    assert Filters.of(query={"advanced_query": {"did_all": [days]}}).members == {
        "advanced_query": {"did_all": [{"event_name": "Charged", "from": 20260101, "to": 20260131}]}
    }
    with pytest.raises(InvalidArgument, match="finite"):
        Filters.of(query=asking("Score", np.float64("nan")))
    for several in (np.array(["a", "b"]), FRAME["score"], np.array(3)):
        with pytest.raises(InvalidArgument, match=re.escape("; pass .tolist() of it")):
            Filters.of(query=asking("Score", several))


@pytest.mark.parametrize("keys", [np.array("7"), np.array(7), duckdb.ColumnExpression("ID")])
async def test_what_only_looks_like_an_iterable_is_named(keys: Any, tmp_path: Path) -> None:
    words = "^{}: expected an iterable or async iterable, got a value of type .*; pass its values"
    async with Session(clevertap=CleverTap("W9R", "passcode"), alta=Alta("token")) as session:
        for call in (
            partial(session.profiles.get_many, by="identity"),
            partial(session.cdp.get_many, by="user_id"),
        ):
            with pytest.raises(InvalidArgument, match=words.format("keys")):
                call(keys)
        with pytest.raises(InvalidArgument, match=words.format("profiles")):
            session.with_cdp(keys)
        with pytest.raises(InvalidArgument, match=words.format("keys")):
            await session.export_lookups(keys, by="identity", to=tmp_path / "x.ndjson")


def test_settings_take_what_counts_as_their_plain_value() -> None:
    query = EventQuery.of("Charged", np.int64(20260101), FRAME["day"].iloc[1], np.int32(46))
    assert query == EventQuery.of("Charged", 20260101, 20260131, 46)
    assert repr(query) == repr(EventQuery.of("Charged", 20260101, 20260131, 46))
    assert EventQuery.of("Charged", 20260101, 20260131, app=np.True_).app is True
    assert len(query.split(np.int64(2))) == len(windows(20260101, 20260131, np.int8(2))) == 2
    retry = Retry(attempts=np.int64(3), base_delay=np.float32(0.5), deadline=np.int64(60))
    assert repr(retry) == repr(Retry(attempts=3, base_delay=0.5, deadline=60))
    assert repr(Timeout(read=np.float64(2))) == repr(Timeout(read=2.0))
    shop = CleverTap("W9R", "passcode", max_in_flight=np.int64(2), shared=np.False_)
    assert repr(shop) == repr(CleverTap("W9R", "passcode", max_in_flight=2))
    agent = Alta("token", requests_per_minute=np.int64(90))
    assert repr(agent) == repr(Alta("token", requests_per_minute=90))
    for wrong in (np.float64(2), np.True_, np.int64(0), np.array([2])):
        with pytest.raises(InvalidArgument, match=r"^attempts: expected a whole number"):
            Retry(attempts=wrong)
    with pytest.raises(InvalidArgument, match=r"^app: expected True or False"):
        EventQuery.of("Charged", 20260101, 20260131, app=np.int64(1))
    with pytest.raises(InvalidArgument, match=r"^start: "):
        EventQuery.of("Charged", np.float64(20260101), 20260131)


async def test_calls_take_scalars(tmp_path: Path) -> None:
    numbers: dict[str, Any] = {"start": np.int64(20260101), "end": FRAME["day"].iloc[1]}
    flags: dict[str, Any] = {"count": np.True_, "profile": FRAME["flag"].iloc[0]}
    async with (
        Emulator(people=60) as emulator,
        Session(clevertap=emulator.clevertap, max_response_bytes=np.int64(1 << 20)) as session,
    ):
        people = session.profiles.by_event(
            "Charged",
            **numbers,
            windows=np.int64(2),
            prefetch=np.int64(1),
            distinct=np.True_,
        )
        identities = [person.identity async for person in people if person.identity]
        report = await session.export(
            "Charged",
            **numbers,
            **flags,
            windows=np.int64(2),
            deadline=np.float64(60),
            with_cdp=np.False_,
            event_summaries=np.False_,
            to=tmp_path / "people.ndjson",
        )
        assert report.counted == {"Charged": report.people}
        quick = session.with_options(deadline=np.float32(60), bulk=np.False_)
        found = quick.profiles.get_many(
            identities,
            by="identity",
            concurrency=np.int64(2),
            ordered=np.True_,
        )
        assert [lookup.key async for lookup in found] == identities
        await session.aclose(drain=np.float64(1))


NAMES = pd.Series(["Charged", "App Launched"])


@pytest.mark.parametrize(
    ("events", "fault"),
    [
        (NAMES, r"events: .* got a value of type Series; pass list\(events\)$"),
        (NAMES.to_numpy(), r"events: .* type ndarray; pass list\(events\)$"),
        (pd.Index(NAMES), r"events: .* type Index; pass list\(events\)$"),
        (NAMES.to_frame(), r"events: .* type DataFrame; pass list\(…\) of its column of names$"),
        ({"Charged": 1}, r"events: .* type dict; pass list\(events\)$"),
        ({"Charged": 1}.keys(), r"events: .* type dict_keys; pass list\(events\)$"),
        ({"Charged"}, r"events: .* type set; pass sorted\(events\)$"),
        ((name for name in NAMES), r"events: .* type generator; pass list\(events\)$"),
        (b"Charged", r"events: .* type bytes$"),
        ("", r"events: empty; pass the name itself, got ''$"),
        (["Charged", np.str_(" ")], r"events\[1\]: empty; pass the name itself, got ' '$"),
        (["Charged", None], r"events\[1\]: expected the name of an event, got None$"),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_events_that_are_no_list_of_names_are_refused_with_the_list_to_pass(
    events: Any, fault: str, tmp_path: Path
) -> None:
    async with Session(clevertap=CleverTap("W9R", "pass-word")) as session:
        days: Any = {"start": 20260101, "end": 20260131, "to": tmp_path / "people.csv"}
        with pytest.raises(InvalidArgument, match=f"^{fault}"):
            await session.export(events, **days)
        with pytest.raises(InvalidArgument, match=f"^{fault}"):
            await session.sync(events, since=20260101, to=tmp_path / "people.duckdb")
    assert list(tmp_path.iterdir()) == []


async def test_a_sync_without_events_names_no_argument_that_it_does_not_have(
    tmp_path: Path,
) -> None:
    async with Session(clevertap=CleverTap("W9R", "pass-word")) as session:
        nothing: Any = None
        with pytest.raises(InvalidArgument, match=r"^events: expected the name of an event, or"):
            await session.sync(nothing, since=20260101, to=tmp_path / "people.duckdb")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.datetime64("2026-01-31"), "pass .astype('datetime64[D]').item(), a date"),
        (np.datetime64("2026-01-31T10:00", "ns"), "pass .astype('datetime64[D]').item(), a date"),
        (pd.Period("2026-01"), "pass .start_time.date(), or .end_time.date() for its last day"),
        (pd.Timestamp("2026-01-31"), "days of the CleverTap project; pass .date()"),
        (pa.scalar(date(2026, 1, 31)), "pass .as_py() of a value of Arrow"),
        (pd.NaT, "got NaT, which is no day; pass a date"),
        (np.datetime64("NaT"), "got NaT, which is no day; pass a date"),
        (pd.NA, "got <NA>, which is no day; pass a date"),
    ],
    ids=repr,
)
async def test_a_day_of_another_library_is_refused_with_its_conversion(
    value: Any, words: str, tmp_path: Path
) -> None:
    async with Session(clevertap=CleverTap("W9R", "pass-word")) as session:
        with pytest.raises(InvalidArgument, match=f"^start: .*{re.escape(words)}"):
            session.profiles.by_event("Charged", start=value, end=20260131)
        with pytest.raises(InvalidArgument, match=f"^until: .*{re.escape(words)}"):
            await session.sync("Charged", since=20260101, until=value, to=tmp_path / "x.duckdb")


def test_the_conversions_of_days_are_days() -> None:
    of_numpy = np.datetime64("2026-01-31T10:00", "ns").astype("datetime64[D]").item()
    of_pandas = pd.Timestamp(np.datetime64("2026-01-31T10:00", "ns")).date()
    of_arrow: Any = pa.scalar(date(2026, 1, 31)).as_py()
    month: Any = pd.Period("2026-01")
    for last in (of_numpy, of_pandas, of_arrow, month.end_time.date()):
        assert windows(month.start_time.date(), last, 1) == [(20260101, 20260131)]
