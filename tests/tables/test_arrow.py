"""Arrow tables, as pyarrow, polars and DuckDB read them."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import duckdb
import polars
import pyarrow as pa
import pytest

import altaprofiles
from altaprofiles import ConfigurationError, DecodeError, Page, Profile, to_arrow
from altaprofiles.emulator.people import Population
from altaprofiles.tables.layout import CORE

RECORDS = [json.dumps(Population(3000, 3).record(number)).encode() for number in range(3000)]


def test_a_table_holds_every_record() -> None:
    table = to_arrow(map(Profile.decode, RECORDS), flatten=["Cart Value", "MSG-email", "note"])
    table.validate(full=True)
    assert table.column_names == [*CORE, "Cart Value", "MSG-email", "note"]
    assert [str(kind) for kind in table.schema.types] == [
        *["string"] * 4,
        "list<item: string>",
        *["string"] * 4,
        "double",
        "bool",
        "string",
    ]
    rows = table.to_pylist()
    assert len(rows) == len(RECORDS)
    for row, sent in zip(rows, map(json.loads, RECORDS), strict=True):
        data = sent.pop("profileData")
        assert json.loads(row["profile_data"]) == data
        assert (row["Cart Value"], row["note"]) == (data.get("Cart Value"), data.get("note"))
        assert json.loads(row["events"]) == sent.pop("events")
        assert json.loads(row["platform_info"]) == sent.pop("platformInfo")
        for name in ("identity", "email", "name", "phone"):
            value = sent.pop(name, None)
            assert row[name] == (None if value is None else str(value))
        assert json.loads(row["extra"] or "{}") == sent


def test_polars_and_duckdb_read_it() -> None:
    table = to_arrow(map(Profile.decode, RECORDS), flatten=["Cart Value"])
    expected = sum(json.loads(record)["profileData"].get("Cart Value", 0) for record in RECORDS)
    frame = polars.from_arrow(table)
    assert isinstance(frame, polars.DataFrame)
    assert frame["Cart Value"].sum() == pytest.approx(expected)
    [found] = duckdb.execute('SELECT sum("Cart Value"), count(*) FROM "table"').fetchall()
    assert found == (pytest.approx(expected), len(RECORDS))


@pytest.mark.parametrize("decode", [True, False])
def test_a_page_is_a_table_with_and_without_profiles(decode: bool) -> None:
    people = [Profile.decode(record) for record in RECORDS[:10]]
    page = Page.of(people, b"", "c", None) if decode else Page(RECORDS[:10], b"", "c", None)
    assert page.to_arrow(flatten=["note"]).equals(to_arrow(people, flatten=["note"]))
    assert decode or "profiles" not in vars(page)


def test_a_table_of_nobody_is_empty() -> None:
    table = to_arrow([], flatten=["plan"])
    assert (table.num_rows, table.column_names) == (0, [*CORE, "plan"])
    assert table.schema.field("plan").type == pa.string()


@pytest.mark.parametrize("record", [b"7", b'{"events":{"a":"\xff"}}', b'{"name":"\xff"}'])
def test_an_invalid_record_is_a_decode_error(record: bytes) -> None:
    with pytest.raises(DecodeError) as caught:
        Page([b"{}", record], b"", "c", None).to_arrow()
    assert caught.value.path == "$"


@pytest.mark.parametrize("flatten", ["plan", ["a", "A"], 7])
def test_a_bad_list_of_keys_is_refused(flatten: Any) -> None:
    with pytest.raises(ConfigurationError, match="flatten: "):
        to_arrow([], flatten=flatten)


def test_the_error_names_the_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigurationError) as caught:
        to_arrow([])
    assert str(caught.value) == (
        "to_arrow needs pyarrow; install it with: pip install 'altaprofiles[parquet]'"
    )


def test_nothing_optional_is_imported_before_it_is_needed() -> None:
    code = (
        "import altaprofiles, altaprofiles.session, altaprofiles.export.sinks, sys\n"
        "altaprofiles.to_arrow, altaprofiles.Page\n"
        "print({'pyarrow', 'duckdb', 'psycopg', 'polars'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
    assert "to_arrow" in altaprofiles.__all__
