"""The sinks that write files: content, atomicity, and the same bytes every time."""

from __future__ import annotations

import csv
import errno
import gzip
import io
import json
import pickle
import resource
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import polars
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from altaprofiles import ConfigurationError, ExportError, ExportLocked
from altaprofiles.base.extras import zstd_module
from altaprofiles.emulator.people import Population
from altaprofiles.export.output import Output
from altaprofiles.export.sinks import Sink, Target, parquet
from altaprofiles.export.sinks.resolve import FORMATS
from altaprofiles.export.tables import Content
from altaprofiles.tables.columns import Columns
from altaprofiles.tables.layout import CORE, TEXTS

from ..support.records import BROKEN, ODD
from ..support.records import RECORDS as ANY_RECORD
from ..support.sinks import ACCOUNT, opened, put_in_place, rows_of, target_of

POPULATION = Population(3000, 3)
RECORDS = [
    *(msgspec.json.encode(POPULATION.record(number, app=True)) for number in range(3000)),
    BROKEN,
    *(record for record, _, _ in ODD),
]
FLATTEN = ("Cart Value", "MSG-email", "note", "favoriteFood")

FILES = [
    "x.ndjson", "x.jsonl", "x.NDJSON.gz", "x.jsonl.zst", "x.csv", "x.csv.gz", "x.parquet",
    "x.duckdb",
]  # fmt: skip
some_files = pytest.mark.parametrize("name", FILES)


KEYS: dict[str, tuple[str, ...]] = {
    name: FLATTEN if "flatten" in target_of(name).options else () for name in FILES
}


def test_every_format_of_files_is_tested() -> None:
    assert {target_of(name).format for name in FILES} == {*FORMATS} - {"postgres"}


def begin(target: Target, records: Sequence[bytes]) -> Sink:
    target.check()
    return opened(target, records)


def export(target: Target, records: Sequence[bytes], step: int = 100) -> int:
    sink = begin(target, records)
    try:
        for start in range(0, len(records), step):
            sink.write(rows_of(records[start : start + step]))
        put_in_place(sink)
    except BaseException:
        sink.abort()
        raise
    return sink.mended.total


# Some of the records are of the same people.
REPEATING = Content(has_events=True, repeats=True)


def written(folder: Path, name: str, records: Sequence[bytes] = RECORDS, **options: Any) -> Path:
    path = folder / name
    export(target_of(path, REPEATING, **options), records)
    return path


# Content


@pytest.mark.parametrize("name", ["x.ndjson", "x.jsonl", "x.NDJSON.gz", "x.jsonl.zst"])
def test_ndjson_is_the_records_byte_for_byte(tmp_path: Path, name: str) -> None:
    data = written(tmp_path, name).read_bytes()
    if name.endswith("gz"):
        # No time and no file name.
        assert data[3:8] == bytes(5)
        data = gzip.decompress(data)
    if name.endswith("zst"):
        data = zstd_module().decompress(data)
    assert data == b"".join(record + b"\n" for record in RECORDS)


NAMES = ["account", "person", *CORE, "matched", "fetched_at", "added_at"]


def check_cells(rows: Sequence[dict[str, Any]], text: Callable[[str | None], str | None]) -> None:
    """Check the core cells of all rows but those of hostile records."""
    expected = Columns(RECORDS, ())
    assert len(rows) == len(RECORDS)
    for number, row in enumerate(rows):
        assert [*row][: len(NAMES)] == NAMES
        assert row["account"] == ACCOUNT
        for name, column in zip(TEXTS, expected.texts, strict=True):
            assert row[name] == text(column[number])


@pytest.mark.parametrize("bom", [False, True])
def test_csv_is_read_by_others(tmp_path: Path, bom: bool) -> None:
    path = written(tmp_path, "x.csv", flatten=FLATTEN, bom=bom)
    data = path.read_bytes()
    assert data.startswith(b'\xef\xbb\xbf"account"' if bom else b'"account"')
    csv.field_size_limit(1 << 30)
    rows = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline="")))
    check_cells(rows, lambda value: value or "")
    expected = Columns(RECORDS, FLATTEN)
    foods, data_texts = expected.lifted(3, "text"), expected.json_texts[0]
    for number, row in enumerate(rows):
        assert json.loads(row["object_ids"]) == expected.object_ids[number]
        assert row["favoriteFood"] == (foods[number] or "")
        assert row["profile_data"].encode() == (data_texts[number] or b"")
    frame = polars.read_csv(path, infer_schema=False)
    assert frame["email"].to_list() == expected.texts[1]
    [found] = duckdb.execute(
        f"SELECT count(*), count(email) FROM read_csv('{path}', all_varchar=true,"
        " allow_quoted_nulls=false, header=true, max_line_size=10000000)"
    ).fetchall()
    assert found == (len(RECORDS), sum(value is not None for value in expected.texts[1]))


def test_csv_tells_an_empty_text_from_none(tmp_path: Path) -> None:
    path = written(tmp_path, "x.csv", [b'{"identity":"","name":"a\\r\\n\\"b,"}'])
    assert b'","",,"a\r\n""b,",,"[]",,,,,"[]","2026-02-01T12:00:00Z",' in path.read_bytes()


def test_csv_has_no_nul(tmp_path: Path) -> None:
    target = target_of(tmp_path / "x.csv")
    assert export(target, [rb'{"identity":"a\u0000b","extra":"\u0000"}']) == 1
    data = (tmp_path / "x.csv").read_bytes()
    assert b"\0" not in data
    assert "a\ufffdb".encode() in data
    assert rb'"{""extra"":""\u0000""}"' in data


SPREADSHEET = {
    "=1+1": "'=1+1", "@SUM(A1)": "'@SUM(A1)", "\t=1": "'\t=1", "\r=1": "'\r=1",
    "+1+1": "'+1+1", "-1+1": "'-1+1", "-cmd|' /C calc'!A0": "'-cmd|' /C calc'!A0", "+a": "'+a",
    "-1e5": "'-1e5", "+1,5": "'+1,5", "-1\n": "'-1\n",
    "+49 (89) 12-34.5": "+49 (89) 12-34.5", "-5": "-5", "+": "+", "-[1] --.": "-[1] --.",
    "+91": "+91", "a=1": "a=1", "": "", " =1": " =1",
    "'=1": "''=1", "''+4a": "'''+4a", "'a": "'a", '"=1': '"=1',
}  # fmt: skip


@pytest.mark.parametrize("bom", [False, True])
def test_with_bom_no_cell_is_a_formula(tmp_path: Path, bom: bool) -> None:
    keys = [*filter(None, SPREADSHEET)]
    records = [
        msgspec.json.encode(
            {
                **dict.fromkeys(("identity", "email", "name", "phone"), text),
                "profileData": {"=1+1": text},
            }
        )
        for text in SPREADSHEET
    ]
    records.append(b'{"profileData":-1,"events":-1e5,"phone":-7,"name":-1e5}')
    path = written(tmp_path, "x.csv", records, flatten=keys, bom=bom)
    with path.open(encoding="utf-8-sig", newline="") as file:
        header, *rows = csv.reader(file)
    assert path.read_bytes().startswith(b"\xef\xbb\xbf") == bom
    assert header == [*NAMES, *(SPREADSHEET[key] if bom else key for key in keys)]
    for text, row in zip(SPREADSHEET, rows[:-1], strict=True):
        shown = SPREADSHEET[text] if bom else text
        assert [*row[2:6], row[header.index(SPREADSHEET["=1+1"] if bom else "=1+1")]] == [shown] * 5
    last = dict(zip(header, rows[-1], strict=True))
    exponent = "'-1e5" if bom else "-1e5"
    assert [last[name] for name in ("profile_data", "events", "phone", "name")] == [
        "-1",
        exponent,
        "-7",
        exponent,
    ]


def test_one_broken_emoji_does_not_stop_queries_over_all(tmp_path: Path) -> None:
    broken = rb'{"identity":"1","profileData":{"a":"x\ud83d","b":[1]},"x":{"\udc00":"\ud83d"}}'
    fine = b'{"identity":"2","profileData":{"a":"y"}}'
    for name in ("x.parquet", "x.csv"):
        path = tmp_path / name
        assert export(target_of(path), [broken, fine]) == 2
        assert duckdb.execute(
            f"SELECT profile_data->>'a', json_valid(extra) FROM '{path}' ORDER BY identity"
        ).fetchall() == [("x\ufffd", True), ("y", None)]


def test_parquet_is_read_by_others(tmp_path: Path) -> None:
    path = written(tmp_path, "x.parquet", flatten=FLATTEN)
    table = pyarrow.parquet.read_table(path)
    assert [str(kind) for kind in table.schema.types][-4:] == ["double", "bool", "string", "string"]
    check_cells(table.to_pylist(), lambda value: value)
    expected = Columns(RECORDS, FLATTEN)
    assert table["object_ids"].to_pylist() == expected.object_ids
    for name, column in zip(CORE[5:], expected.json_texts, strict=True):
        texts = [None if value is None else value.decode() for value in column]
        assert table[name].to_pylist() == texts
    assert table["favoriteFood"].to_pylist() == expected.lifted(3, "text")
    assert polars.read_parquet(path).height == len(RECORDS)
    [found] = duckdb.execute(f"SELECT count(*) FROM '{path}'").fetchall()
    assert found == (len(RECORDS),)
    chunk = pyarrow.parquet.ParquetFile(path).metadata.row_group(0).column(0)
    assert chunk.compression == "ZSTD"
    assert chunk.is_stats_set


def test_parquet_has_row_groups_of_bounded_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "GROUP_ROWS", 1000)
    monkeypatch.setattr(parquet, "GROUP_BYTES", 10_000)
    path = written(tmp_path, "x.parquet", [b"{}"] * 2500 + [b'{"a":"%b"}' % (b"x" * 6000)] * 5)
    metadata = pyarrow.parquet.ParquetFile(path).metadata
    groups = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
    assert groups == [1000, 1000, 502, 2, 1]


def test_duckdb_holds_types(tmp_path: Path) -> None:
    path = written(tmp_path, "x.duckdb", flatten=FLATTEN, write="replace")
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.duckdb"]
    with duckdb.connect(str(path), read_only=True) as connection:
        described = connection.execute("DESCRIBE profiles").fetchall()
        assert [kind for _, kind, *_ in described] == [
            *["VARCHAR"] * 6, "VARCHAR[]", *["JSON"] * 4,
            "VARCHAR[]", *["TIMESTAMP WITH TIME ZONE"] * 2, "DOUBLE", "BOOLEAN", *["VARCHAR"] * 2
        ]  # fmt: skip
        cursor = connection.execute("SELECT * FROM profiles")
        names = [column[0] for column in cursor.description]
        rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        check_cells(rows, lambda value: value)
        expected = Columns(RECORDS, FLATTEN)
        assert [row["object_ids"] for row in rows] == expected.object_ids
        for name, column in zip(CORE[5:], expected.json_texts, strict=True):
            assert [row[name] for row in rows] == [
                None if value is None else value.decode() for value in column
            ]
        found = connection.execute(
            "SELECT count(*) FROM profiles WHERE profile_data->>'Customer Type' = 'Gold'"
        ).fetchone()
        assert found is not None
        assert found[0] > 100


def test_what_cannot_be_held_is_counted(tmp_path: Path) -> None:
    for name, mended in {"x.ndjson": 0, "x.csv": 5, "x.parquet": 5, "x.duckdb": 5}.items():
        assert export(target_of(tmp_path / name), [BROKEN, b"{}"]) == mended, name


@pytest.mark.slow
@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(records=st.lists(ANY_RECORD, max_size=5))
def test_no_record_is_too_odd(tmp_path: Path, records: list[dict[str, Any]]) -> None:
    lines = [json.dumps(record).encode() for record in records]
    for name in ("x.csv", "x.parquet", "x.duckdb"):
        written(tmp_path, name, lines, flatten=["a"], write="replace")
    texts = Columns(lines, ()).texts[0]
    assert pyarrow.parquet.read_table(tmp_path / "x.parquet")["identity"].to_pylist() == texts
    with duckdb.connect(str(tmp_path / "x.duckdb")) as connection:
        rows = connection.execute("SELECT identity FROM profiles").fetchall()
        assert [value for (value,) in rows] == texts


# The same bytes every time, complete or not at all


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in FILES if not name.endswith("duckdb")])
def test_the_bytes_do_not_depend_on_the_writes(tmp_path: Path, name: str) -> None:
    target = target_of(tmp_path / name, flatten=KEYS[name])
    seen = set()
    for step in (1, 7, 333, 10_000):
        export(target, RECORDS, step)
        seen.add((tmp_path / name).read_bytes())
    assert len(seen) == 1


@pytest.mark.slow
@some_files
def test_nothing_has_the_targets_name_before_it_is_complete(tmp_path: Path, name: str) -> None:
    # Left over from a run that was killed.
    partial = tmp_path / f"{name}.partial"
    if name == "x.duckdb":
        (partial / "temporary").mkdir(parents=True)
        for left in ("rows.partial", "x.duckdb", "x.duckdb.wal", "temporary/x.tmp"):
            (partial / left).write_bytes(b"garbage")
    else:
        partial.write_bytes(b"garbage")
    sink = begin(target_of(tmp_path / name, flatten=KEYS[name]), RECORDS)
    assert not (tmp_path / name).exists()
    for _ in range(3):
        sink.write(rows_of(RECORDS))
        assert not (tmp_path / name).exists()
    assert partial.exists()
    put_in_place(sink)
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


@some_files
def test_an_abandoned_export_leaves_the_target_alone(tmp_path: Path, name: str) -> None:
    target = target_of(tmp_path / name, flatten=KEYS[name])
    sink = begin(target, RECORDS)
    sink.write(rows_of(RECORDS))
    sink.abort()
    sink.abort()
    assert list(tmp_path.iterdir()) == []
    export(target, RECORDS[:5])
    before = content(tmp_path / name)
    sink = begin(target, RECORDS)
    sink.write(rows_of(RECORDS))
    sink.abort()
    assert content(tmp_path / name) == before
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def content(path: Path) -> object:
    if path.suffix != ".duckdb":
        return path.read_bytes()
    with duckdb.connect(str(path)) as connection:
        return connection.execute("SELECT * FROM profiles").fetchall()


@some_files
def test_an_empty_export_is_a_file_without_rows(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, name, [], flatten=KEYS[name])
    assert path.exists()
    if name.endswith("parquet"):
        assert pyarrow.parquet.read_table(path).num_rows == 0
    if name.endswith("duckdb"):
        assert content(path) == []


@pytest.mark.parametrize("name", ["x.ndjson", "x.jsonl.zst", "x.csv", "x.parquet"])
def test_a_full_disk_is_the_oserror_it_is(tmp_path: Path, name: str) -> None:
    sink = opened(target_of(tmp_path / name))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            for _ in range(20):
                sink.write(rows_of(RECORDS))
            put_in_place(sink)
        sink.abort()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.errno == errno.EFBIG
    assert list(tmp_path.iterdir()) == []


@some_files
def test_a_target_pickles(tmp_path: Path, name: str) -> None:
    target = target_of(tmp_path / name, flatten=KEYS[name])
    assert pickle.loads(pickle.dumps(target)) == target  # noqa: S301
    assert (target.name, target.path) == (str(tmp_path / name), tmp_path / name)
    assert (*target.flatten,) == KEYS[name]
    assert target.typed_flatten == name.endswith(("parquet", "duckdb"))


@some_files
def test_a_path_is_no_pattern(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "[a]*'%s"
    folder.mkdir()
    (tmp_path / "a").mkdir()
    assert written(folder, name, flatten=KEYS[name]).stat().st_size > 0
    assert [entry.name for entry in folder.iterdir()] == [name]


# Existing DuckDB files


def existing(tmp_path: Path, *statements: str) -> Path:
    path = tmp_path / "x.duckdb"
    with duckdb.connect(str(path)) as connection:
        for statement in ("CREATE TABLE other AS SELECT range AS n FROM range(1000)", *statements):
            connection.execute(statement)
    return path


def tables(path: Path) -> dict[str, int]:
    with duckdb.connect(str(path)) as connection:
        names = [name for (name,) in connection.execute("SHOW TABLES").fetchall()]
        found = {}
        for name in names:
            quoted = name.replace('"', '""')
            counted = connection.execute(f'SELECT count(*) FROM "{quoted}"').fetchone()
            assert counted is not None
            found[name] = counted[0]
        return found


def test_other_tables_of_a_duckdb_file_survive(tmp_path: Path) -> None:
    path = existing(tmp_path)
    export(target_of(path, REPEATING, table='my "people"', write="replace"), RECORDS)
    assert tables(path) == {"other": 1000, 'my "people"': len(RECORDS), "altaprofiles_runs": 1}
    export(target_of(path, table='my "people"', write="replace"), RECORDS[:10])
    assert tables(path) == {"other": 1000, 'my "people"': 10, "altaprofiles_runs": 1}


def test_a_failed_export_leaves_the_old_table_of_a_duckdb_file(tmp_path: Path) -> None:
    path = existing(tmp_path)
    export(target_of(path), RECORDS[:1])
    sink = begin(target_of(path), RECORDS)
    sink.write(rows_of(RECORDS))
    with pytest.raises(Exception, match="malformed"):
        sink.write(rows_of([b"no record"] * 20_000))
    sink.abort()
    assert tables(path) == {"other": 1000, "profiles": 1, "altaprofiles_runs": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.duckdb"]


def test_a_duckdb_file_that_cannot_be_used_is_refused_first(tmp_path: Path) -> None:
    other = tmp_path / "y.duckdb"
    other.write_bytes(b"something else " * 1000)
    with pytest.raises(ExportError, match="cannot be opened as a DuckDB file"):
        target_of(other).check()
    assert other.read_bytes() == b"something else " * 1000
    path = existing(tmp_path, "CREATE VIEW profiles AS SELECT 1 AS x")
    with pytest.raises(ExportError, match="is a view, not a table"):
        target_of(path).check()


def test_changes_of_a_duckdb_file_that_is_gone_are_not_taken_for_ours(tmp_path: Path) -> None:
    (tmp_path / "x.duckdb.wal").write_bytes(b"x")
    with pytest.raises(ExportError, match=r"x\.duckdb\.wal exists"):
        target_of(tmp_path / "x.duckdb").check()


# From options to a target


@pytest.mark.parametrize(
    ("to", "options", "said"),
    [
        ("x.xlsx", {}, "to: the ending of "),
        ("x", {}, "to: the ending of "),
        ("x.gz", {}, "to: the ending of "),
        ("x.parquet.gz", {}, "to: the ending of "),
        ("x.csv", {"format": "xml"}, "format: unknown format 'xml'; use one of ndjson, csv"),
        ("x.csv", {"format": "postgres"}, "to: not a URL that can be written to"),
        ("x.csv", {"format": 7}, "format: unknown format 7"),
        ("x.ndjson", {"bom": True}, "bom: applies to csv only, not to ndjson"),
        ("x.csv", {"bom": 1}, "bom: expected True or False, got 1"),
        ("x.csv", {"table": "t"}, "table: applies to duckdb and postgres only, not to csv"),
        ("x.duckdb", {"table": ""}, "table: "),
        ("x?.duckdb", {}, "DuckDB cannot write to a path with a '?'"),
        ("x.duckdb", {"table": 7}, "table: "),
        ("x.duckdb", {"table": "a\0"}, "table: "),
        (
            "x.ndjson",
            {"flatten": ["plan"]},
            "flatten: applies to csv, parquet, duckdb and postgres only",
        ),
        ("x.csv", {"flatten": "plan"}, "flatten: expected a list"),
        ("nowhere/x.csv", {}, "does not exist; create it first"),
        (".", {"format": "csv"}, "is a folder; add a file name"),
        ("", {}, "to: expected a path"),
        (7, {}, "to: expected a path or a URL, got 7"),
        ("x\0.csv", {}, r"to: 'x\x00.csv' holds the character NUL, which no path can hold"),
        (b"x.csv", {}, "to: expected a path"),
        ("ftp://host/x.parquet", {}, "to: not a URL that can be written to"),
    ],
)
def test_what_cannot_work_is_refused_with_the_fix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: Any, options: dict[str, Any], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError) as caught:
        target_of(to, **options)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("to", "said"),
    [
        ("x.xlsx", "to: the ending of 'x.xlsx' implies no table; use a table of a DuckDB file"),
        ("x", "to: the ending of 'x' implies no table; use a table of a DuckDB file or of "),
        ("x.csv", "to: 'x.csv' cannot keep the state of a sync; use a table of a DuckDB file"),
        ("s3://bucket/x.duckdb", "(s3://) cannot keep the state of a sync; sync into a folder"),
        ("ftp://host/x", "which format='postgres' needs, or a path"),
    ],
)
def test_what_a_sync_cannot_keep_is_refused_with_what_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError) as caught:
        target_of(to, sync={})
    text = str(caught.value)
    assert said in text
    for other in ("bom", "ndjson", "csv,", "write .csv", "s3://bucket/key", "choose one of"):
        assert other not in text
    assert list(tmp_path.iterdir()) == []


def test_the_format_may_be_named(tmp_path: Path) -> None:
    assert target_of(tmp_path / "x.txt", format="csv").format == "csv"
    assert target_of(tmp_path / "x.csv", format="ndjson").format == "ndjson"
    path = written(tmp_path, "x.gz", [b"{}"], format="ndjson")
    assert gzip.decompress(path.read_bytes()) == b"{}\n"


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [
        ("x.parquet", "pyarrow", "parquet"),
        ("x.duckdb", "duckdb", "duckdb"),
        ("x.duckdb", "pyarrow", "duckdb"),
    ],
)
def test_an_extra_that_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, module: str, extra: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigurationError) as caught:
        target_of(name)
    assert str(caught.value) == (
        f"to: '{name}' needs {module}; install it with: pip install 'altaprofiles[{extra}]'"
    )


def test_zstd_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("backports.zstd", "compression.zstd"):
        monkeypatch.setitem(sys.modules, module, None)
    if sys.version_info < (3, 14):
        monkeypatch.delattr("backports.zstd")
    with pytest.raises(ConfigurationError, match=r"pip install 'altaprofiles\[zstd\]'"):
        target_of(tmp_path / "x.ndjson.zst")


def test_a_folder_that_cannot_be_written_to_is_found_first() -> None:
    # Not even root may create a file there.
    with pytest.raises(ExportError, match=r"/proc/x\.csv cannot be written"):
        target_of("/proc/x.csv").check()


@pytest.mark.parametrize("name", ["p.ndjson", "p.csv.gz", "p.parquet", "p.duckdb"])
def test_two_exports_do_not_write_to_one_file(tmp_path: Path, name: str) -> None:
    """The locks of their workspaces do not prevent it if the two workspaces differ."""
    target = target_of(tmp_path / name)
    first = opened(target)
    first.write(rows_of([b'{"identity":"1"}']))
    if name != "p.duckdb":  # whose exports take turns
        with pytest.raises(ExportLocked, match="another export is writing"):
            target.check()
    with pytest.raises(ExportLocked, match="another export is writing"):
        opened(target)
    put_in_place(first)
    written = (tmp_path / name).read_bytes()
    second = opened(target)
    second.write(rows_of([b'{"identity":"2"}']))
    assert (tmp_path / name).read_bytes() == written
    second.abort()
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_an_output_hides_a_password() -> None:
    output = Output(to="postgresql://me:s3cr3t@127.0.0.1/db/t")
    assert "s3cr3t" not in repr(output)
    with pytest.raises(TypeError, match="do not pickle"):
        pickle.dumps(output)
