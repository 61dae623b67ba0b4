"""`describe`: over every output of exports, over files that are none, and on any terminal."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pyarrow
import pytest
from anyio.from_thread import start_blocking_portal
from pyarrow import parquet

from altaprofiles import Session
from altaprofiles.base.extras import zstd_module
from altaprofiles.emulator import Emulator
from altaprofiles.tables.kinds import Kinds

from ..support.postgres import PASSWORD, Server
from ..support.terminals import Terminal, emulated, environment, longest, run

FILES = (
    *("p.ndjson", "p.jsonl.gz", "p.ndjson.zst", "p.csv", "p.csv.gz", "p.csv.zst"),
    *("p.parquet", "p.duckdb", "folder/"),
)
EVENT = {"start": date(2026, 1, 1), "end": "2026-01-31"}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("outputs")

    async def export() -> None:
        async with (
            Emulator(people=400, seed=3) as emulator,
            Session(clevertap=emulator.clevertap, alta=emulator.alta) as session,
        ):
            for name in FILES:
                # As text, because a path would lose its last slash.
                await session.export("Charged", **EVENT, to=f"{folder}/{name}")  # type: ignore[arg-type]
            await session.export("Charged", **EVENT, to=f"{folder}/bom.csv", bom=True)  # type: ignore[arg-type]
            joined = f"{folder}/joined.ndjson"
            await session.export("Charged", **EVENT, to=joined, with_cdp=True)  # type: ignore[arg-type]
            for name in ("users.ndjson", "users.csv", "users.parquet", "users.duckdb"):
                await session.export_lookups(["BC123"], by="user_id", to=folder / name)

    with start_blocking_portal() as portal:
        portal.call(export)
    return folder


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    # No credentials: nothing is asked.
    return environment(tmp_path)


def described(env: dict[str, str], to: Path | str, *arguments: str) -> dict[str, Any]:
    done = run(env, "describe", str(to), "--json", *arguments)
    assert (done.code, done.stderr) == (0, "")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def brute(people: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Return the number of people with each property."""
    found = (one.get("profileData") or {} for one in people)
    return Counter(key for data in found for key, value in data.items() if value is not None)


# ----------------------------------------------------------------------------------- every output


@pytest.mark.parametrize("name", FILES)
def test_every_output_has_the_same_description(
    env: dict[str, str], outputs: Path, name: str
) -> None:
    people = records(outputs / "p.ndjson")
    found = described(env, f"{outputs}/{name}")
    assert found["output"] == f"{outputs}/{name}"
    assert found["rows"] == len(people) > 50
    for column in ("identity", "email", "name", "phone"):
        assert found["columns"][column] == sum(bool(one.get(column)) for one in people)
    assert found["columns"]["events"] == sum(bool(one.get("events")) for one in people)
    assert 0 < found["columns"]["object_ids"] <= len(people)
    filled = {one["name"]: one["filled"] for one in found["properties"]}
    assert filled == brute(people)
    assert [*filled.values()] == sorted(filled.values(), reverse=True)
    for one in found["properties"]:
        assert sum(one["types"].values()) == one["filled"]
        assert one["share"] == one["filled"] / len(people)


def test_types_are_those_of_an_export(env: dict[str, str], outputs: Path) -> None:
    found = described(env, outputs / "p.ndjson")
    kinds = Kinds(dict.fromkeys(one["name"] for one in found["properties"]))
    kinds.observe((outputs / "p.ndjson").read_bytes().splitlines())
    assert {one["name"]: one["kind"] for one in found["properties"]} == {
        one["name"]: kinds[one["name"]] for one in found["properties"]
    }
    by_name = {one["name"]: one for one in found["properties"]}
    assert by_name["Signup Date"]["flatten"] == "Signup Date:timestamp"
    assert by_name["Last Score"]["flatten"] is None
    assert len(by_name["Last Score"]["types"]) > 2


def test_with_cdp_users(env: dict[str, str], outputs: Path) -> None:
    people = records(outputs / "joined.ndjson")
    found = described(env, outputs / "joined.ndjson")
    assert found["columns"]["cdp"] == sum(bool(one["cdp"]) for one in people) > 0


def test_csv_for_spreadsheets(env: dict[str, str], outputs: Path) -> None:
    found, plain = described(env, outputs / "bom.csv"), described(env, outputs / "p.csv")
    assert found["properties"] == plain["properties"]
    assert found["columns"] == plain["columns"]


def test_from_standard_input(env: dict[str, str], outputs: Path) -> None:
    data = (outputs / "p.ndjson").read_bytes()
    done = run(env, "describe", "-", "--json", stdin=data)
    found = json.loads(done.stdout)
    assert found["properties"] == described(env, outputs / "p.ndjson")["properties"]
    assert found["output"] == "-"


def test_a_format_that_the_ending_does_not_decide(
    env: dict[str, str], outputs: Path, tmp_path: Path
) -> None:
    (tmp_path / "p.dat").write_bytes((outputs / "p.csv").read_bytes())
    done = run(env, "describe", "p.dat", cwd=tmp_path)
    assert done.code == 2
    assert "FILE|URL: the ending of 'p.dat' implies no format; pass one of" in done.stderr
    assert "as --format" in done.stderr
    found = described(env, tmp_path / "p.dat", "--format", "csv")
    assert found["rows"] == described(env, outputs / "p.csv")["rows"]


def test_a_folder_of_days(env: dict[str, str], outputs: Path, tmp_path: Path) -> None:
    for day in ("2026-01-01", "2026-01-02"):
        (tmp_path / f"day={day}").mkdir()
        data = (outputs / "p.parquet").read_bytes()
        (tmp_path / f"day={day}" / "people.parquet").write_bytes(data)
    (tmp_path / "_altaprofiles.json").write_text("{}")
    (tmp_path / "day=2026-01-02" / ".hidden.parquet").write_text("?")
    (tmp_path / "day=2026-01-02" / "people.parquet.partial").write_text("?")
    one, both = described(env, outputs / "p.parquet"), described(env, f"{tmp_path}/")
    assert both["rows"] == 2 * one["rows"]
    shares = [[each["share"] for each in found["properties"]] for found in (one, both)]
    assert shares[0] == shares[1]


def test_tables_of_a_duckdb_file(env: dict[str, str], outputs: Path, tmp_path: Path) -> None:
    path = tmp_path / "crm.duckdb"
    with duckdb.connect(path) as connection:
        connection.execute(f"ATTACH '{outputs}/p.duckdb' AS p (READ_ONLY)")
        connection.execute('CREATE TABLE "Buy""ers" AS SELECT * FROM p.profiles')
        connection.execute("CREATE TABLE altaprofiles_sync (day DATE)")
    # The only export in it.
    assert described(env, path)["table"] == 'Buy"ers'
    with duckdb.connect(path) as connection:
        connection.execute('CREATE TABLE gold AS SELECT * FROM "Buy""ers" LIMIT 5')
    done = run(env, "describe", str(path))
    assert done.code == 2
    assert "--table: " in done.stderr
    assert "has several exports; name one of 'Buy\"ers', 'gold'" in done.stderr
    assert described(env, path, "--table", "GOLD")["rows"] == 5
    with duckdb.connect(path) as connection:
        connection.execute("CREATE TABLE Profiles AS SELECT * FROM gold LIMIT 3")
    assert described(env, path)["rows"] == 3
    for table, words in (
        ("silver", "no table 'silver'; name one of 'Buy\"ers'"),
        ("altaprofiles_sync", "it has no column profile_data"),
    ):
        done = run(env, "describe", str(path), "--table", table)
        assert (done.code, done.stdout) == (2, b"")
        assert words in done.stderr


def test_a_duckdb_file_that_is_open_elsewhere(
    env: dict[str, str], outputs: Path, tmp_path: Path
) -> None:
    path = tmp_path / "p.duckdb"
    path.write_bytes((outputs / "p.duckdb").read_bytes())
    program = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print(flush=True); input()"
    streams: dict[str, Any] = dict.fromkeys(("stdin", "stdout"), subprocess.PIPE)
    with subprocess.Popen([sys.executable, "-c", program, str(path)], **streams) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        done = run(env, "describe", str(path))
        holder.communicate(b"\n")
    assert (done.code, done.stdout) == (4, b"")
    assert "is open in another program" in done.stderr
    # Beside others that read it, and behind a link.
    (tmp_path / "link.duckdb").symlink_to(path)
    with duckdb.connect(path, read_only=True):
        assert described(env, tmp_path / "link.duckdb")["rows"] > 50


def test_a_table_of_a_server(
    env: dict[str, str],
    outputs: Path,
    postgres: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Manifests of tables are written into the current folder.
    monkeypatch.chdir(tmp_path)
    with start_blocking_portal() as portal:

        async def export() -> None:
            async with (
                Emulator(people=400, seed=3) as emulator,
                Session(clevertap=emulator.clevertap) as session,
            ):
                for table in ("", "buyers"):
                    await session.export("Charged", **EVENT, to=postgres.url(table))  # type: ignore[arg-type]
                await session.export("Charged", **EVENT, to=postgres.url(), table="a%s b")  # type: ignore[arg-type]

        portal.call(export)
    plain = described(env, outputs / "p.parquet")
    done = run(env, "describe", postgres.url("buyers"), "--json")
    assert done.code == 0
    assert PASSWORD not in done.stderr + done.stdout.decode()
    assert "Everyone on this machine can see the password or key in the URL" in done.stderr
    found = json.loads(done.stdout)
    assert (found["rows"], found["properties"]) == (plain["rows"], plain["properties"])
    assert found["columns"] == plain["columns"]
    for arguments in ((postgres.url(),), (postgres.url(), "--table", "a%s b")):
        other = run(env, "describe", *arguments, "--json", "--quiet")
        assert json.loads(other.stdout)["rows"] == plain["rows"]
    done = run(env, "describe", postgres.url("nowhere"), "--quiet")
    assert (done.code, done.stdout) == (1, b"")
    assert 'relation "nowhere" does not exist' in done.stderr
    postgres.run("CREATE TABLE other (a int)")
    done = run(env, "describe", postgres.url("other"), "--quiet")
    assert done.code == 2
    assert "it has no column profile_data" in done.stderr
    wrong = postgres.url("buyers", password="wr0ng-s3cret")
    done = run(env, "--verbose", "describe", wrong)
    assert done.code == 1
    assert "wr0ng" not in done.stderr
    assert "password authentication failed" in done.stderr


# ------------------------------------------------------------------------------- odd and no outputs


def lines(path: Path, *people: Any) -> Path:
    path.write_text("".join(f"{json.dumps(one)}\n" for one in people))
    return path


def having(**properties: Any) -> dict[str, Any]:
    return {"identity": "i", "profileData": properties}


def test_shares_are_rounded_but_never_to_all_or_none(env: dict[str, str], tmp_path: Path) -> None:
    filled = {"a": 400, "b": 398, "c": 343, "d": 342, "e": 323, "f": 6, "g": 2, "h": 1}
    people = [
        having(**{name: 1 for name, count in filled.items() if number < count} | {"i": None})
        for number in range(400)
    ]
    text = run(env, "describe", str(lines(tmp_path / "p.ndjson", *people))).stdout.decode()
    shares = re.findall(r"^([a-i]) +\d+  (.{5})", text, re.MULTILINE)
    assert dict(shares) == {
        "a": "100 %",
        "b": ">99 %",
        "c": " 86 %",
        "d": " 86 %",
        "e": " 81 %",
        "f": "  2 %",
        "g": "  1 %",
        "h": " <1 %",
        "i": "  0 %",
    }


def test_mixed_types_and_nulls(env: dict[str, str], tmp_path: Path) -> None:
    people = [
        having(a=1, b=True, c="$D_1735689600", d=[1], e=None, f=1, g=2**53 + 1, h=10**30),
        having(a=1.5, b="x", c="$D_1735689600", d={"k": 1}, e=None, f=2, g=1.5, h=10**31),
        having(a=None, b=3, c="$D_-99999999999", d="x", f="", g=None),
        {"identity": None, "profileData": None},
        {"email": "", "profileData": []},
    ]
    found = described(env, lines(tmp_path / "p.ndjson", *people))
    assert found["rows"] == 5
    assert found["columns"]["identity"] == 3
    assert found["columns"]["email"] == 0
    properties = {one["name"]: one for one in found["properties"]}
    types = {name: (one["types"], one["kind"], one["flatten"]) for name, one in properties.items()}
    assert types == {
        "a": ({"int64": 1, "double": 1}, "double", "a:double"),
        "b": ({"bool": 1, "text": 1, "int64": 1}, "text", None),
        "c": ({"timestamp": 2, "text": 1}, "text", None),
        "d": ({"json": 2, "text": 1}, "text", None),
        "e": ({}, "text", None),
        "f": ({"int64": 2, "text": 1}, "text", None),
        "g": ({"int64": 1, "double": 1}, "text", None),
        "h": ({"json": 2}, "text", "h:text"),
    }
    assert properties["e"]["filled"] == 0
    text = run(env, "describe", str(tmp_path / "p.ndjson")).stdout.decode()
    assert re.search(r"^b +3   60 %  bool 1, text 1, int64 1; several types$", text, re.MULTILINE)
    assert re.search(r"^e +0    0 %  no value$", text, re.MULTILINE)
    assert re.search(r"^h +2   40 %  json$", text, re.MULTILINE)
    assert "\nSeveral types: --flatten KEY is text; KEY:TYPE " in text


def words_in(text: str) -> list[str]:
    """Return the options for an export, as a shell reads them."""
    block = text.partition("for export:\n")[2]
    echoed = subprocess.run(
        ["/bin/bash", "-c", f"printf '%s\\0' {block}"], capture_output=True, check=True
    )
    return echoed.stdout.decode().split("\0")[:-1]


HOSTILE = {
    "": 1,
    "City": "a",
    "city": "b",
    "email": "c",
    "Email": "d",
    "a:timestamp": "x",
    "-x": "x",
    "it's": "x",
    "$(touch pwned)": "x",
    "tab\there": "x",
    "line\nbreak": "x",
    "\x1b[31mred": "x",
    "\u202eright": "x",
    "nul\0": "x",
    "日本語": "x",
    "[bold]": "x",
    "n" * 200: "x",
}  # fmt: skip


def test_hostile_names(env: dict[str, str], tmp_path: Path) -> None:
    lines(tmp_path / "p.ndjson", having(**HOSTILE))
    found = described(env, tmp_path / "p.ndjson")
    assert {one["name"] for one in found["properties"]} == {*HOSTILE}
    assert {one["name"]: one["flatten"] for one in found["properties"]} == {
        name: None if name == "" or "\0" in name else f"{name}:{'int64' if name == '' else 'text'}"
        for name in HOSTILE
    }
    done = run(env, "describe", "p.ndjson", cwd=tmp_path)
    text = done.stdout.decode()
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert longest(text.partition("Columns of their own")[0]) <= 80
    assert re.search(r"^'' .*\n    int64; no column can have this name$", text, re.MULTILINE)
    assert re.search(r"^city .*\n    text; the same column as City$", text, re.MULTILINE)
    # The options are words for a shell, and an export takes all of them.
    words = words_in(text)
    with emulated(people=30) as emulator:
        exported = run(
            env | emulator.environment,
            *("export", "Charged", "--from", "2026-01-01", "--to", "2026-01-31"),
            *("-o", "q.parquet", *words),
            cwd=tmp_path,
        )
    assert exported.code == 0, exported.stderr
    names = parquet.read_schema(tmp_path / "q.parquet").names
    assert {"a:timestamp", "-x", "it's", "tab\there", "profile_data.Email"} <= {*names}
    assert len({"City", "city"} & {*names}) == 1
    assert not (tmp_path / "pwned").exists()


def test_no_value_is_shown(env: dict[str, str], tmp_path: Path) -> None:
    secret = "s3cr3t"
    person: dict[str, Any] = {
        **dict.fromkeys(("identity", "email", "name", "phone", "objectId"), secret),
        "profileData": {"a": secret, "b": [secret], "c": {secret: secret}},
        "events": {"Charged": {"count": 1, secret: secret}},
    }
    path = lines(tmp_path / "p.ndjson", person)
    outputs = [run(env, "describe", str(path), *options) for options in ((), ("--json",))]
    # Neither of a record that cannot be read, even with tracebacks.
    for number, end in enumerate(('"', "}", ', "profileData": {"a": "s3cr3t"\n', "\n{}\n")):
        broken = tmp_path / f"broken{number}.ndjson"
        broken.write_text(path.read_text() + '{"identity": "s3cr3t"' + end)
        done = run(env, "--verbose", "describe", str(broken))
        assert done.code == (0 if end == "}" else 1)
        assert done.code == 0 or "line 2 of" in done.stderr
        outputs.append(done)
    table = pyarrow.table({"identity": [secret], "profile_data": [f'{{"a": "{secret}']})
    parquet.write_table(table, tmp_path / "p.parquet")
    outputs.append(run(env, "--verbose", "describe", str(tmp_path / "p.parquet")))
    assert outputs[-1].code == 1
    assert "row 1 has a profile_data that is not JSON" in outputs[-1].stderr
    for done in outputs:
        assert secret not in done.stdout.decode() + done.stderr


def test_more_properties_than_are_told_apart(env: dict[str, str], tmp_path: Path) -> None:
    many = {f"p{number:04}": number for number in range(1200)}
    lines(tmp_path / "p.ndjson", having(**many), having(p0000=1, p1100=1, p1101=None))
    found = described(env, tmp_path / "p.ndjson")
    assert (len(found["properties"]), found["left_out"]) == (1000, 201)
    assert found["properties"][0]["name"] == "p0000"
    text = run(env, "describe", str(tmp_path / "p.ndjson")).stdout.decode()
    assert "More than 1,000 properties" in text
    assert "201 values left out" in text
    lines(tmp_path / "long.ndjson", having(**{"n" * 5000: 1, "a": 1}))
    found = described(env, tmp_path / "long.ndjson")
    assert ([one["name"] for one in found["properties"]], found["left_out"]) == (["a"], 1)


def test_outputs_of_nobody(env: dict[str, str], outputs: Path, tmp_path: Path) -> None:
    header = (outputs / "p.csv").read_bytes().partition(b"\n")[0] + b"\n"
    table = parquet.read_table(outputs / "p.parquet").slice(0, 0)
    parquet.write_table(table, tmp_path / "p.parquet")
    (tmp_path / "p.csv").write_bytes(header)
    (tmp_path / "p.ndjson").write_bytes(b"")
    (tmp_path / "p.ndjson.gz").write_bytes(gzip.compress(b""))
    with duckdb.connect(tmp_path / "p.duckdb") as connection:
        connection.execute("CREATE TABLE profiles (profile_data VARCHAR)")
    for path in sorted(tmp_path.iterdir()):
        found = described(env, path)
        assert (found["rows"], found["properties"], found["left_out"]) == (0, [], 0)
        done = run(env, "describe", path.name, cwd=tmp_path)
        assert done.stdout.decode().splitlines()[0].startswith(path.name)
        assert re.search(r": 0 (record|row)s$", done.stdout.decode().strip())


def test_nobody_has_properties(env: dict[str, str], tmp_path: Path) -> None:
    lines(tmp_path / "p.ndjson", {"identity": "a"}, {"identity": "b", "profileData": {}})
    done = run(env, "describe", str(tmp_path / "p.ndjson"))
    assert done.code == 0
    assert "No properties: they have been left out, or nobody has any." in done.stdout.decode()
    assert "--flatten" not in done.stdout.decode()


@pytest.mark.parametrize("name", [name for name in FILES if not name.endswith("/")])
@pytest.mark.parametrize("end", ["nothing", "half", "junk"])
def test_files_that_are_damaged(
    env: dict[str, str], outputs: Path, tmp_path: Path, name: str, end: str
) -> None:
    data = (outputs / name).read_bytes()
    data = {"nothing": b"", "half": data[: len(data) // 2 + 7], "junk": b"\0\xff?" * 999}[end]
    (tmp_path / name).write_bytes(data)
    done = run(env, "describe", name, cwd=tmp_path)
    if (name, end) == ("p.ndjson", "nothing"):
        # An export of nobody.
        assert done == (0, b"p.ndjson: 0 records\n", "")
        return
    assert done.code in (1, 2)
    assert done.stdout == b""
    assert name in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1 or name.endswith(".duckdb")


def test_a_line_of_json_that_is_no_record(env: dict[str, str], tmp_path: Path) -> None:
    good = json.dumps(having(a=1))
    for bad in ("[1]", "1", '"x"', "{", "{} {}", "x"):
        (tmp_path / "p.ndjson").write_text(f"{good}\n\n{bad}\n{good}\n")
        done = run(env, "describe", "p.ndjson", cwd=tmp_path)
        assert (done.code, done.stdout) == (1, b"")
        assert done.stderr == "error: line 3 of p.ndjson is not a JSON object\n"
    (tmp_path / "p.ndjson").write_text(f"{good}\n{good[:-3]}")
    done = run(env, "describe", "p.ndjson", cwd=tmp_path)
    assert done.stderr == "error: line 2 of p.ndjson is cut short, or not a JSON object\n"


@pytest.mark.parametrize("name", ["users.ndjson", "users.csv", "users.parquet", "users.duckdb"])
def test_users_of_alta_have_no_properties(env: dict[str, str], outputs: Path, name: str) -> None:
    more = ("--table", "bindings") if name.endswith(".duckdb") else ()
    done = run(env, "describe", str(outputs / name), *more)
    assert (done.code, done.stdout) == (2, b"")
    assert "it holds users of Alta, who have no properties" in done.stderr


def test_what_is_not_an_output(env: dict[str, str], outputs: Path, tmp_path: Path) -> None:
    lines(tmp_path / "other.ndjson", {"a": 1}, {"b": 2})
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    parquet.write_table(pyarrow.table({"a": [1]}), tmp_path / "other.parquet")
    with duckdb.connect(tmp_path / "other.duckdb") as connection:
        connection.execute("CREATE TABLE a (b INT)")
    (tmp_path / "empty").mkdir()
    for name, words in (
        ("nowhere.ndjson", "error: FILE|URL: there is no file 'nowhere.ndjson'; check the path\n"),
        ("", "expected a path"),
        ("other.ndjson", "its lines have none of the members of a profile"),
        ("other.csv", "it has no column profile_data"),
        ("other.parquet", "it has no column profile_data"),
        ("other.duckdb", "no table of it has a column profile_data"),
        ("empty", "the folder holds no Parquet files"),
        ("empty/", "the folder holds no Parquet files"),
        ("people.xlsx", "there is no file"),
        ("s3://bucket/people.parquet", "a file in a bucket (s3://) is not read; download it"),
        ("gs://me:s3cret@bucket/people.csv", "a file in a bucket (gs://) is not read"),
        ("mysql://me:s3cret@host/db", "not a PostgreSQL URL"),
        ("postgresql://me:s3cret@host", "followed by a database"),
    ):
        done = run(env, "describe", name, cwd=tmp_path)
        assert (done.code, done.stdout) == (2, b""), name
        assert "error: FILE|URL: " in done.stderr
        assert words in done.stderr
        assert "s3cret" not in done.stderr
    done = run(env, "describe", str(outputs / "p.csv"), "--table", "a")
    assert (done.code, done.stdout) == (2, b"")
    assert "--table: got 'a', but" in done.stderr
    done = run(env, "describe")
    assert done.code == 2
    assert "FILE|URL: missing" in done.stderr


def test_an_extra_that_is_not_installed(env: dict[str, str], outputs: Path) -> None:
    program = (
        "import runpy, sys; sys.modules[sys.argv.pop(1)] = None;"
        "runpy.run_module('altaprofiles', run_name='__main__', alter_sys=True)"
    )
    packed = zstd_module().__name__
    for name, module, extra in (
        ("p.parquet", "pyarrow", "parquet"),
        ("folder/", "pyarrow", "parquet"),
        ("p.duckdb", "duckdb", "duckdb"),
        ("p.csv.zst", packed, "zstd"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", program, module, "describe", f"{outputs}/{name}"],
            capture_output=True,
            env=env,
            check=False,
        )
        assert done.returncode == 2, done.stderr
        assert f"pip install 'altaprofiles[{extra}]'".encode() in done.stderr


# -------------------------------------------------------------------------------------- the screen


@pytest.mark.parametrize("columns", [80, 120])
def test_reasons_against_a_column_fit_the_screen(
    env: dict[str, str], tmp_path: Path, columns: int
) -> None:
    values = [True, 7, 1.5, "x", "$D_1735689600", [1]]
    path = lines(tmp_path / "p.ndjson", *(having(**{"n" * 30: value}) for value in values * 99))
    text = run(env | {"COLUMNS": str(columns)}, "describe", str(path)).stdout.decode()
    assert "; several types\n" in text
    assert longest(text.partition("\n")[2]) <= columns


def test_80_columns(env: dict[str, str], outputs: Path) -> None:
    with Terminal(env, "describe", str(outputs / "p.parquet")) as terminal:
        assert terminal.ended().code == 0
    assert longest(terminal.text.partition("\n")[2]) <= 80
    assert re.search(r"Signup Date +\d+ +\d+ %  timestamp", terminal.text)
    assert re.search(r"Last Score +\d+ +\d+ %\s+\w+ \d+, \w+ \d+", terminal.text)
    assert "  --flatten 'Signup Date:timestamp' \\" in terminal.text


def test_the_options_are_those_of_an_export(
    env: dict[str, str], outputs: Path, tmp_path: Path
) -> None:
    text = run(env, "describe", str(outputs / "p.ndjson")).stdout.decode()
    words = words_in(text)
    with emulated(people=400, seed=3) as emulator:
        done = run(
            env | emulator.environment,
            *("export", "Charged", "--from", "2026-01-01", "--to", "2026-01-31"),
            *("-o", "q.parquet", "--json", *words),
            cwd=tmp_path,
        )
    assert done.code == 0, done.stderr
    assert json.loads(done.stdout)["mended"] == 0
    schema = parquet.read_schema(tmp_path / "q.parquet")
    assert schema.field("Signup Date").type == pyarrow.timestamp("us", "UTC")
    assert schema.field("Cart Value").type == pyarrow.float64()
    # Every value has found its place.
    table = parquet.read_table(tmp_path / "q.parquet")
    for one in described(env, outputs / "p.ndjson")["properties"]:
        if one["flatten"] is not None:
            column = table.column(one["name"])
            assert len(column) - column.null_count == one["filled"]
