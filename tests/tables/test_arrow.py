"""Arrow tables, as pyarrow, polars and DuckDB read them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import altaprofiles
from altaprofiles import (
    CleverTap,
    ConfigurationError,
    Customer,
    DecodeError,
    InvalidArgument,
    Lookup,
    MissingExtra,
    Page,
    Profile,
    Session,
    arrow_schema,
    to_arrow,
)
from altaprofiles.emulator.people import Population
from altaprofiles.tables.layout import CORE, Kind

from ..support.odd import CASES
from ..support.servers import always, http, scripted

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
    assert page.to_arrow(["note"]).equals(to_arrow(people, ["note"]))
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


def page_of(*records: bytes) -> Page:
    return Page(records, b"", "c", None)


KINDS: dict[str, Kind | None] = {
    "Cart Value": "double",
    "note": None,
    "D": "timestamp",
    "n": "int64",
}


@pytest.mark.parametrize("flatten", [(), ["Cart Value", "person"], KINDS])
@pytest.mark.parametrize("person", [False, True])
@pytest.mark.parametrize("lists", ["list", "json"])
def test_every_page_has_the_schema_that_is_known_beforehand(
    flatten: Any, person: bool, lists: Any
) -> None:
    schema = arrow_schema(flatten, person=person, lists=lists)
    values = ["1", "1.5", "true", '"$D_1487576752"', '"x"', "null", "[1]", "9e999"]
    data = '{"Cart Value":%s,"n":%s,"D":%s,"person":%s}'
    records = [f'{{"profileData":{data % ((value,) * 4)}}}'.encode() for value in values]
    pages = [page_of(), page_of(b"{}"), page_of(*RECORDS[:50]), *map(page_of, records)]
    for page in pages:
        table = page.to_arrow(flatten, person=person, lists=lists)
        table.validate(full=True)
        assert table.schema.equals(schema, check_metadata=True)
    assert pa.concat_tables(
        page.to_arrow(flatten, person=person, lists=lists) for page in pages
    ).num_rows == sum(len(page.records) for page in pages)


def test_the_schema_by_default() -> None:
    schema = arrow_schema()
    assert schema.names == [*CORE]
    assert schema.field("object_ids").type == pa.list_(pa.string())
    assert to_arrow([]).schema == schema
    assert arrow_schema(["plan"]).field("plan").type == pa.string()
    assert arrow_schema({"plan": "bool"}).field("plan").type == pa.bool_()
    assert arrow_schema({"plan": None}, lists="json").field("object_ids").type == pa.string()
    assert arrow_schema(person=True).names == ["person", *CORE]


def test_a_flattened_key_of_a_page_is_text_unless_a_type_is_named() -> None:
    page = page_of(
        b'{"profileData":{"n":7}}', b'{"profileData":{"n":1.50}}', b'{"profileData":{"n":"x"}}'
    )
    assert page.to_arrow(["n"])["n"].to_pylist() == ["7", "1.50", "x"]
    assert page.to_arrow({"n": "double"})["n"].to_pylist() == [7.0, 1.5, None]
    large = page_of(b'{"profileData":{"n":9007199254740993}}')
    assert large.to_arrow({"n": "double"})["n"].to_pylist() == [None]
    assert to_arrow(large.profiles, {"n": "double"})["n"].to_pylist() == [None]


def test_a_flattened_key_named_as_a_column_gets_a_prefix() -> None:
    page = page_of(b'{"identity":"7","profileData":{"person":"gold"}}')
    assert page.to_arrow(["person"]).column_names == [*CORE, "person"]
    table = page.to_arrow(["person"], person=True)
    assert table.column_names == ["person", *CORE, "profile_data.person"]
    assert table["person"].to_pylist() == ["identity:7"]
    assert table["profile_data.person"].to_pylist() == ["gold"]


@pytest.mark.parametrize(
    ("record", "person"),
    [
        (b'{"identity":"7"}', "identity:7"),
        (b'{"identity":7.0}', "identity:7"),
        (b'{"identity":"","objectId":"b","platformInfo":[{"objectId":"a"}]}', "objectId:a"),
        (b'{"objectId":"b"}', "objectId:b"),
        (
            b"{}",
            "record:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
        ),
    ],
)
def test_the_person_of_a_row(record: bytes, person: str) -> None:
    [found] = page_of(record).to_arrow(person=True)["person"].to_pylist()
    assert found == person
    assert to_arrow([Profile.decode(record)], person=True)["person"].to_pylist() == [found]


def test_halves_of_surrogate_pairs_make_no_two_people_one() -> None:
    records = [b'{"identity":"\\ud800"}', b'{"identity":"\\ud801"}', b'{"objectId":"\\ud800"}']
    people = page_of(*records).to_arrow(person=True)["person"].to_pylist()
    assert people == [Profile.decode(record).person_key for record in records]
    assert len(set(people)) == 3


def test_lists_as_json() -> None:
    page = page_of(b'{"objectId":"a","platformInfo":[{"objectId":"b\\"\\u00e9"},{}]}', b"{}")
    [found, none] = page.to_arrow(lists="json")["object_ids"].to_pylist()
    assert json.loads(found) == ["a", 'b"\u00e9'] == page.to_arrow()["object_ids"][0].as_py()
    assert none == "[]"


def test_odd_records_fit_every_form() -> None:
    records = [record for case, _ in CASES.values() for record in case]
    schema = arrow_schema(KINDS, person=True, lists="json")
    for record in records:
        table = page_of(record).to_arrow(KINDS, person=True, lists="json")
        table.validate(full=True)
        assert (table.num_rows, table.schema) == (1, schema)
        assert table["person"].null_count == 0


def test_a_page_is_an_arrow_stream() -> None:
    page = page_of(*RECORDS)
    table = page.to_arrow()
    assert pa.table(page).equals(table)
    assert pa.RecordBatchReader.from_stream(page).read_all().equals(table)
    # A page can be read again.
    assert polars.DataFrame(page).equals(polars.DataFrame(page))
    assert polars.DataFrame(page).to_arrow().num_rows == len(RECORDS)
    [found] = duckdb.execute("SELECT count(*), count(DISTINCT identity) FROM page").fetchall()
    assert found == (len(RECORDS), len(set(filter(None, table["identity"].to_pylist()))))


def test_a_page_without_records_is_a_stream_with_its_columns() -> None:
    assert pa.table(page_of()).schema == arrow_schema()
    assert pa.table(page_of()).num_rows == 0


def test_a_stream_comes_in_a_schema_that_is_asked_for() -> None:
    page = page_of(*RECORDS[:5])
    large = pa.schema(
        [
            (field.name, pa.large_string() if field.type == pa.string() else field.type)
            for field in arrow_schema()
        ]
    )
    assert pa.table(page, schema=large).schema == large


@pytest.mark.parametrize(
    "schema",
    [
        pa.schema([("identity", pa.string())]),
        pa.schema([(name, pa.int64()) for name in CORE]),
    ],
)
def test_a_schema_that_does_not_fit_is_refused(schema: pa.Schema) -> None:
    page = page_of(b'{"identity":"secret@example.com"}')
    with pytest.raises(InvalidArgument, match="requested_schema: ") as caught:
        page.__arrow_c_stream__(schema.__arrow_c_schema__())
    assert "secret" not in str(caught.value)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("call", [arrow_schema, page_of().to_arrow, lambda **o: to_arrow([], **o)])
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"flatten": "plan"}, "flatten: "),
        ({"flatten": {"plan": "struct"}}, "flatten: "),
        ({"flatten": ["a", "A"]}, "flatten: "),
        ({"person": 1}, "person: expected True or False, got 1"),
        ({"lists": "array"}, "lists: expected 'list' or 'json', got 'array'"),
        ({"lists": None}, "lists: expected 'list' or 'json', got None"),
        ({"lists": ["list"]}, "lists: "),
    ],
)
def test_a_bad_option_of_a_table_is_refused(call: Any, options: Any, words: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        call(**options)
    assert str(caught.value).startswith(words)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (Lookup("s3cret", Profile.decode(b"{}")), "a value of type Lookup; pass its `value`, of"),
        (Customer(Profile.decode(b"{}"), {}), "a value of type Customer; pass its `profile`: "),
        (None, "null; leave out what was not found: [one for one in … if one]"),
        ({"identity": "s3cret"}, "an object; pass profiles only"),
        ("s3cret", "text; pass profiles only"),
        (
            page_of(b"{}"),
            "a value of type Page; pass its `profiles`: [one for page in … for one in page.",
        ),
    ],
)
def test_anything_but_a_profile_is_refused_by_its_position(other: Any, words: str) -> None:
    person = Profile.decode(b'{"identity":"7"}')
    with pytest.raises(InvalidArgument) as caught:
        to_arrow([person, other])
    assert str(caught.value).startswith(f"profiles[1]: expected a Profile, got {words}")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("other", [Profile.decode(b"{}"), None])
def test_one_profile_or_none_is_refused(other: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"profiles: expected a list .*; write \[profile\]"):
        to_arrow(other)


def test_a_page_is_a_table_of_its_own() -> None:
    page: Any = page_of(b'{"identity":"7"}')
    with pytest.raises(
        InvalidArgument, match=r"got a Page; use page.to_arrow\(…\), or pass page.p"
    ):
        to_arrow(page)
    assert to_arrow(page.profiles).num_rows == page.to_arrow().num_rows == 1


def test_people_that_arrive_are_collected_first() -> None:
    buyers: Any = Session(clevertap=CleverTap("A", "B")).profiles.by_event(
        "Charged", start=20260101, end=20260131
    )
    with pytest.raises(InvalidArgument, match=r"EventProfiles; write \[one async for one in …\]"):
        to_arrow(buyers)


@pytest.mark.parametrize("call", [arrow_schema, page_of().to_arrow, page_of().__arrow_c_stream__])
def test_tables_need_pyarrow(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r"pip install 'altaprofiles\[parquet\]'"):
        call()


@pytest.mark.anyio
async def test_a_table_in_memory_has_the_cells_of_the_file_where_the_service_pretty_prints(
    tmp_path: Path,
) -> None:
    record = {
        "identity": "7",
        "profileData": {"Plan": "gold\n", "Tags": [1, 2]},
        "events": {"Charged": {"count": 2}},
        "platformInfo": [{"platform": "iOS", "objectId": "o-1"}],
        "more": {"nested": [True]},
    }
    body = json.dumps({"status": "success", "record": record}, indent=1).encode()
    async with scripted(always(http(body))) as server:
        async with Session(clevertap=CleverTap("W9R", "p", base_url=server.url)) as session:
            to = tmp_path / "people.parquet"
            await session.export_lookups(["7"], by="identity", to=to)
            person = await session.profiles.get(identity="7")
    assert person is not None
    assert b"\n" in person.raw
    file = pq.read_table(to, columns=[*CORE]).to_pylist()
    page = Page([person.raw], person.raw, "cursor", None)
    assert to_arrow([person]).to_pylist() == page.to_arrow().to_pylist() == file
    assert file[0]["platform_info"] == '[{"platform":"iOS","objectId":"o-1"}]'
