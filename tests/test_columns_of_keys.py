"""Columns of tables as keys: what is not one is refused, and a column of numbers says its fix."""

from __future__ import annotations

import collections
import logging
import os
import re
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from altaprofiles import CleverTap, InvalidArgument, Session, to_arrow
from altaprofiles.emulator import Emulator
from altaprofiles.notebook import Progress

from .support.servers import always, http, scripted
from .support.sessions import session_at

pytestmark = pytest.mark.anyio

NOBODY = http(b'{"status":"success","record":null}')

WHOLE = (
    "expected text or an int, got a whole number as a float; convert to int, a column of pandas "
    "with .dropna().astype('Int64'), of polars with .fill_nan(None).drop_nulls().cast(pl.Int64), "
    "or, with text among them, as `altaprofiles guide dataframes` does"
)
LIKE_FLOATS = " not found: digits and '.0', the text of a float; if these were floats, convert to "
LOST = "a float too large to be exact, an integer that has lost digits; read the column again"
PEOPLE = (
    "; pass the people themselves: by_event(…) without .pages(), or those that get_many finds for "
    "a column of IDs: [one.value async for one in session.profiles.get_many(…) if one.value]"
)
MISSING = "; leave such keys out, in pandas with .dropna(), in polars with .drop_nulls()"
NAN = MISSING.replace(".drop_nulls", ".fill_nan(None).drop_nulls")


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    records = [{"identity": "7"}, {"identity": "8"}]
    async with Emulator(records=records) as emulator:
        yield emulator


def tables() -> dict[str, Any]:
    """Return what has a column of keys, and yields names when iterated, by its name."""
    import duckdb
    import pandas as pd  # type: ignore[import-untyped]
    import polars as pl
    import pyarrow as pa

    columns = {"my_id": ["7", "8"]}
    table = pa.table(columns)
    return {
        "pandas": pd.DataFrame(columns),
        "polars": pl.DataFrame(columns),
        "lazy": pl.LazyFrame(columns),
        "arrow": table,
        "batch": table.to_batches()[0],
        "duckdb": duckdb.connect().from_arrow(table),
        "dict": columns,
        "mapping": collections.ChainMap(columns),
    }


async def test_a_table_in_place_of_its_column_is_refused(
    emulator: Emulator, tmp_path: Path
) -> None:
    calls: dict[str, Callable[[Session, Any], Any]] = {
        "keys": lambda session, keys: session.profiles.get_many(keys, by="identity"),
        "keys ": lambda session, keys: session.cdp.get_many(keys, by="user_id"),
        "profiles": lambda session, keys: session.with_cdp(keys),
    }
    async with Session(clevertap=emulator.clevertap, alta=emulator.alta) as session:
        for kind, table in tables().items():
            of_columns = kind not in ("dict", "mapping")
            fix = "pass one column, such as " if of_columns else "pass its .keys() or .values()"
            for name, call in calls.items():
                with pytest.raises(InvalidArgument, match=f"^{name.strip()}: got a ") as caught:
                    call(session, table)
                is_of_people = name == "profiles" and of_columns
                assert (PEOPLE if is_of_people else fix) in str(caught.value), kind
            # `column` is a column of a file.
            with pytest.raises(InvalidArgument, match=r"^keys: got a ") as caught:
                await session.export_lookups(
                    table, by="identity", column="my_id", to=tmp_path / "to.ndjson"
                )
            assert fix in str(caught.value), kind
        assert session.stats.requests == 0


async def test_a_column_of_arrow_is_refused_with_its_conversion(
    emulator: Emulator, tmp_path: Path
) -> None:
    column = tables()["arrow"]["my_id"]
    async with Session(clevertap=emulator.clevertap, alta=emulator.alta) as session:
        for keys in (column, column.combine_chunks()):
            fix = r"^keys: got a \w+Array of Arrow, .* pass its \.to_pylist\(\)$"
            with pytest.raises(InvalidArgument, match=fix):
                session.profiles.get_many(keys, by="identity")
            with pytest.raises(InvalidArgument, match=fix):
                session.cdp.get_many(keys, by="user_id")
            with pytest.raises(InvalidArgument, match=fix):
                await session.export_lookups(keys, by="identity", to=tmp_path / "to.ndjson")
        assert session.stats.requests == 0


async def test_the_fix_of_a_table_in_place_of_people_works(emulator: Emulator) -> None:
    column = tables()["pandas"]["my_id"]
    async with Session(clevertap=emulator.clevertap, alta=emulator.alta) as session:
        with pytest.raises(InvalidArgument, match=rf"^profiles\[0\]: .*{re.escape(PEOPLE)}$"):
            _ = [one async for one in session.with_cdp(column)]
        found = session.profiles.get_many(column, by="identity")
        people = [one.value async for one in found if one.value]
        joined = [one async for one in session.with_cdp(people)]
    assert [one.profile for one in joined] == people
    assert len(people) == 2


async def test_one_column_of_a_table_is_looked_up(emulator: Emulator) -> None:
    found = tables()
    numbers = found["pandas"]["my_id"].astype("Int64")
    columns = [found["pandas"]["my_id"], found["polars"]["my_id"], numbers, numbers.to_numpy()]
    columns += [found["arrow"]["my_id"].to_pylist(), {"7": 1, "8": 2}.keys()]
    async with Session(clevertap=emulator.clevertap) as session:
        for keys in columns:
            results = session.profiles.get_many(keys, by="identity")
            assert all([lookup.value async for lookup in results])


class Columns(NamedTuple):
    """Two keys, one of which is called as the columns of a table are."""

    columns: str
    shape: str


class Sheet:
    """An iterable of keys that knows the columns beside it."""

    columns = ("my_id", "note")

    def __iter__(self) -> Iterator[str]:
        return iter(["7", "8"])


async def test_keys_of_any_other_shape_are_looked_up(emulator: Emulator, tmp_path: Path) -> None:
    once: Any = dict.fromkeys(["7", "8", "7"])
    async with Session(clevertap=emulator.clevertap) as session:
        for keys in (Columns("7", "8"), Sheet(), once, once.keys()):
            results = session.profiles.get_many(keys, by="identity", ordered=True)
            assert [lookup.key async for lookup in results if lookup.value] == ["7", "8"]
            report = await session.export_lookups(
                keys, by="identity", to=tmp_path / f"{type(keys).__name__}.ndjson"
            )
            assert report.found == 2
        assert [lookup async for lookup in session.profiles.get_many({}, by="identity")] == []
        for mixed in ({"7": None, "8": 0}, {"7": ""}):
            with pytest.raises(InvalidArgument, match=r"^keys: got a dict, whose iteration"):
                session.profiles.get_many(mixed, by="identity")


async def test_the_fix_of_a_key_of_another_type_fits_its_type(emulator: Emulator) -> None:
    import numpy as np
    import pandas as pd
    import pyarrow as pa

    by_key: list[tuple[Any, str]] = [
        (5555555555.0, WHOLE),
        (np.float32(7), WHOLE),
        (2.0**53 - 1, WHOLE),
        (2.0**53, LOST),
        (-1234567890123456789.0, LOST),
        (np.float32(2**24 - 1), WHOLE),
        (np.float32(2**24), LOST),
        (float("nan"), f"a missing value (float){NAN}"),
        (pd.NA, f"a missing value (NAType){MISSING}"),
        (None, f"a missing value (NoneType){MISSING}"),
        (1.5, "got a value of type float; convert it to str"),
        (("7",), "got a value of type tuple; pass one value of each row"),
        ({"id": "7"}, "got a value of type dict; pass one value of each row"),
        (
            pa.scalar("7"),
            "got a value of type StringScalar; pass .to_pylist() of a column of Arrow",
        ),
    ]
    keys = [key for key, _ in by_key]
    async with Session(clevertap=emulator.clevertap, alta=emulator.alta) as session:
        for results in (
            session.profiles.get_many(keys, by="identity", ordered=True),
            session.cdp.get_many(keys, by="user_id", ordered=True),
            session.cdp.get_many(keys, by="anonymous_id", ordered=True),
        ):
            texts = [str(lookup.error) async for lookup in results]
            for text, (key, fix) in zip(texts, by_key, strict=True):
                assert fix in text, key


def columns_of_floats() -> list[tuple[str, Any]]:
    """Return columns of the keys 7 and 8 among missing values, each with its library."""
    import pandas as pd
    import polars as pl

    nan = float("nan")
    return [
        ("polars", pl.Series([nan, 7.0, None, 8.0])),
        ("polars", pl.Series([None, 7.0, nan, 8.0])),
        ("polars", pl.Series([7.0, None, 8.0], dtype=pl.Float32)),
        ("polars", pl.Series([7, None, 8])),
        ("polars", pl.Series(["7", None, "8"])),
        ("pandas", pd.Series([nan, 7.0, None, 8.0])),
        ("pandas", pd.Series([7.0, nan, None, 8.0], dtype=object)),
        ("pandas", pd.Series([7.0, None, 8.0], dtype="Float64")),
        ("pandas", pd.Series(["7", None, "8"])),
    ]


async def test_the_fix_of_a_column_with_missing_keys_works_as_it_is_written(
    emulator: Emulator,
) -> None:
    import polars as pl

    async with Session(clevertap=emulator.clevertap) as session:
        for library, column in columns_of_floats():
            fixes: list[str] = []
            fixed = column
            # Whoever takes the advice may get another: for the next kind of key.
            for _ in range(3):
                results = session.profiles.get_many(fixed, by="identity", ordered=True)
                errors = [str(one.error) async for one in results if one.error]
                if not errors:
                    break
                (fix,) = re.findall(rf"{library} with ((?:\.\w+\([^()]*\))+)", errors[0])
                fixes.append(fix)
                fixed = eval(f"column{fix}", {"column": column, "pl": pl})  # noqa: S307
            results = session.profiles.get_many(fixed, by="identity", ordered=True)
            found = [one.value and one.value.identity async for one in results]
            assert found == ["7", "8"], (library, column, fixes)


async def test_whole_numbers_in_a_file_of_floats_say_their_fix(
    emulator: Emulator, tmp_path: Path
) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    path, to = tmp_path / "keys.parquet", tmp_path / "to.ndjson"
    parquet.write_table(pa.table({"id": [7.0, 8.0, None]}), path)
    fix = r"row 1 of .* holds a whole number as a float, .*; convert the column to whole numbers$"
    async with Session(clevertap=emulator.clevertap) as session:
        with pytest.raises(InvalidArgument, match=fix):
            await session.export_lookups(path, by="identity", to=to)
        # JSON does not tell the two apart.
        lines = tmp_path / "keys.ndjson"
        lines.write_text('{"id":7.0}\n{"id":8}\n')
        report = await session.export_lookups(lines, by="identity", column="id", to=to)
    assert report.found == 2


@pytest.mark.parametrize("ending", ["parquet", "duckdb"])
async def test_large_floats_in_a_file_are_read_again_and_not_converted(
    emulator: Emulator, tmp_path: Path, ending: str
) -> None:
    import duckdb
    import pyarrow as pa
    from pyarrow import parquet

    path = tmp_path / f"keys.{ending}"
    # Of 4 bytes and of 8.
    large: Any = pa.table(
        {"a": pa.array([2.0**24], pa.float32()), "b": pa.array([2.0**53], pa.float64())}
    )
    if ending == "parquet":
        parquet.write_table(large, path)
    else:
        with duckdb.connect(path) as connection:
            connection.execute("CREATE TABLE people AS SELECT * FROM large")
    async with Session(clevertap=emulator.clevertap) as session:
        for column in ("a", "b"):
            with pytest.raises(InvalidArgument, match=f"row 1 of .* holds {LOST}") as caught:
                await session.export_lookups(
                    path, by="identity", column=column, to=tmp_path / "to.ndjson"
                )
            assert "convert" not in str(caught.value)


async def test_keys_not_found_that_were_floats_are_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keys = ["7.0", "8.0", "9", "v1.0", "1.00"]
    async with scripted(always(NOBODY)) as server:
        async with session_at(server) as session:
            report = await session.export_lookups(keys, by="identity", to=tmp_path / "to.ndjson")
            (warning,) = [text for text in report.warnings if ".0" in text]
            assert warning.startswith(f"2 keys{LIKE_FLOATS}")
            assert "guide dataframes` does; in a file of keys, as " in warning
            assert "guide look-ups` does; but from 2**53 on, read the column again" in warning
            # Once, with their number.
            assert caplog.text.count(LIKE_FLOATS) == caplog.text.count(f"2 keys{LIKE_FLOATS}") <= 1
            caplog.clear()
            async for _ in session.profiles.get_many(keys, by="identity"):
                pass
            (record,) = [one for one in caplog.records if one.levelno == logging.WARNING]
            assert f"some keys{LIKE_FLOATS}" in record.getMessage()
            assert "7.0" not in record.getMessage()
            caplog.clear()
            report = await session.export_lookups(
                keys[2:], by="identity", to=tmp_path / "to.ndjson"
            )
            async for _ in session.profiles.get_many(keys[2:], by="identity"):
                pass
            assert not [text for text in report.warnings if ".0" in text]
            assert ".0" not in caplog.text.replace("127.0.0.1", "")


async def test_a_float_that_is_a_key_of_a_person_is_no_warning(tmp_path: Path) -> None:
    async with (
        Emulator(records=[{"identity": "7.0"}]) as emulator,
        Session(clevertap=emulator.clevertap) as session,
    ):
        report = await session.export_lookups(
            ["7.0", "8"], by="identity", to=tmp_path / "to.ndjson"
        )
    assert (report.found, report.not_found, report.warnings) == (1, 1, [])


def test_small_misfits_of_a_notebook_say_their_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    import pandas as pd
    import pyarrow as pa

    session = Session(clevertap=CleverTap("W9R", "passcode"))
    index: Any = pd.Index(["plan"])
    days: dict[str, Any] = {"start": pd.NaT, "end": 20260131}
    frame: Any = pd.DataFrame({"identity": ["7"]})
    arrow_type: Any = pa.int64()
    text: Any = "Plan"
    several: Any = "plan, city"
    flag: Any = True
    pandas_type: Any = "float64"
    option: Any = "Plan:text"
    not_a_number = float("nan")
    calls: list[tuple[Callable[[], object], str]] = [
        (lambda: session.profiles.by_event("Charged", **days), "start: got NaT, which is no day;"),
        (lambda: to_arrow([], flatten=index), "; write ['plan', 'city'], or pass list(…) of it"),
        (lambda: to_arrow([], flatten=text), "got 'Plan'; write ['Plan']"),
        (lambda: to_arrow([], flatten=several), "; write ['plan', 'city']"),
        (lambda: to_arrow([], flatten=flag), "got True; write ['plan', 'city']"),
        (lambda: to_arrow([], {"Score": pandas_type}), "is 'float64' (did you mean 'double'?);"),
        (lambda: to_arrow([], {"Plan": option}), "is 'Plan:text' (did you mean 'text'?);"),
        (
            lambda: to_arrow([], {"Last Score": arrow_type}),
            "the type of 'Last Score' is a value of type DataType; use one of the texts 'bool'",
        ),
        (lambda: Emulator(records=frame), "in pandas by .to_dict('records'), without keys of miss"),
        (lambda: Emulator(records=[{"identity": "7", "ls": not_a_number}]), "; leave the key out"),
        (Session.from_env, "or use Session.from_account() after `altaprofiles login`"),
    ]
    for name in [*os.environ]:
        if name.startswith(("CLEVERTAP_", "ALTA_")):
            monkeypatch.delenv(name)
    for call, fix in calls:
        with pytest.raises(ValueError, match=re.escape(fix)):
            call()


async def test_a_class_is_no_callback_but_its_instance_is(tmp_path: Path) -> None:
    bar: Any = Progress
    async with Session(clevertap=CleverTap("W9R", "passcode")) as session:
        with pytest.raises(InvalidArgument, match=r"got the class Progress; pass Progress\(\)$"):
            await session.export_lookups(
                ["7"], by="identity", to=tmp_path / "to.ndjson", on_progress=bar
            )
        assert session.stats.requests == 0
