"""`altaprofiles lookup` of users, and the options of outputs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow.parquet
import pytest

from altaprofiles.emulator import Emulator
from altaprofiles.emulator.bindings import Bindings

from ..support.terminals import Terminal, emulated, environment, held, run

DAYS = ("--from", "2026-01-01", "--to", "2026-01-31")


@pytest.fixture(scope="module")
def small() -> Iterator[Emulator]:
    with emulated(people=300, seed=3) as emulator:
        yield emulator


@pytest.fixture
def env(small: Emulator, tmp_path: Path) -> dict[str, str]:
    return environment(tmp_path, small.environment)


def bound(small: Emulator) -> list[str]:
    bindings = Bindings(small.population)
    keys = (small.population.identity(number) for number in range(300))
    return [key for key in keys if key is not None and bindings.by_user(key)]


def test_users_of_people_in_an_export(env: dict[str, str], small: Emulator, tmp_path: Path) -> None:
    done = run(env, "export", "App Launched", *DAYS, "-o", "people.ndjson", cwd=tmp_path)
    assert done.code == 0, done.stderr
    lookup = ("lookup", "people.ndjson", "--by", "user-id", "--column", "identity")
    done = run(env, *lookup, "-o", "users.ndjson", cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert done.stdout == b"users.ndjson\n" or done.stdout.endswith(b"/users.ndjson\n")
    assert "skipped" in done.stderr
    lines = [json.loads(line) for line in (tmp_path / "users.ndjson").read_text().splitlines()]
    found = [line["key"] for line in lines]
    assert found
    assert {*found} <= {*bound(small)}
    for line in lines:
        assert [*line] == ["key", "users"]
    # As it is written in Python.
    lookup = ("lookup", "people.ndjson", "--by", "user_id", "--column", "identity")
    done = run(env, *lookup, "-o", "users.parquet", "--json", cwd=tmp_path)
    report = json.loads(done.stdout)
    assert report["found"] == len(found)
    assert report["skipped"] > 0
    table = pyarrow.parquet.read_table(tmp_path / "users.parquet")
    assert {*table["key"].to_pylist()} == {*found}


def test_rows_of_another_kind_are_replaced_with_a_warning(
    env: dict[str, str], small: Emulator, tmp_path: Path
) -> None:
    (tmp_path / "keys.txt").write_text(f"{bound(small)[0]}\n")
    (tmp_path / "none.txt").write_text("nobody\n")

    def warnings(keys: str, by: str) -> list[str]:
        arguments = ("lookup", keys, "--by", by, "-o", "v.csv", "--json", "--quiet")
        done = run(env, *arguments, cwd=tmp_path)
        assert done.code == 0, done.stderr
        return [text for text in json.loads(done.stdout)["warnings"] if "replaces them" in text]

    assert warnings("keys.txt", "user-id") == []
    assert warnings("keys.txt", "user-id") == []
    keep = "to keep that file, move it away before this lookup ends"
    people, users = "people of CleverTap", "users of Alta"
    lost = "v.csv has {}, and this lookup replaces them with {}; " + keep
    assert warnings("keys.txt", "identity") == [lost.format(users, people)]
    assert warnings("keys.txt", "user-id") == [lost.format(people, users)]
    # A file without rows loses none.
    assert len(warnings("none.txt", "identity")) == 1
    assert warnings("none.txt", "user-id") == []


def test_advice_after_keys_of_another_kind_is_an_option(
    env: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "keys.txt").write_text("ann@example.com\n")
    lookup = ("lookup", "keys.txt", "--by", "identity", "--quiet", "-o", "good.csv")
    done = run(env, *lookup, cwd=tmp_path)
    assert "; if the key is an e-mail address, pass --by email\n" in done.stderr


def test_a_folder_is_no_file_of_keys(env: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "days").mkdir()
    done = run(env, "lookup", "days", "--by", "identity", "-o", "p.csv", cwd=tmp_path)
    assert done.code == 2
    assert done.stderr == "error: FILE|-: a folder has that name; name a file in it\n"


def test_no_keys_do_not_empty_an_output(
    env: dict[str, str], small: Emulator, tmp_path: Path
) -> None:
    keys = tmp_path / "keys.csv"
    lookup = ("lookup", "keys.csv", "--by", "identity", "--quiet", "-o", "good.csv")
    keys.write_text("identity\n" + "".join(f"{key}\n" for key in bound(small)[:3]))
    assert run(env, *lookup, cwd=tmp_path).code == 0
    good = (tmp_path / "good.csv").read_bytes()
    keys.write_text("identity\n")
    done = run(env, *lookup, cwd=tmp_path)
    assert done.code == 2
    assert "holds no keys, and" in done.stderr
    assert f"{len(good):,} bytes of " in done.stderr
    assert (tmp_path / "good.csv").read_bytes() == good
    assert not (tmp_path / "good.csv.export").exists()
    # Where there is nothing to lose, a night without keys is no error.
    (tmp_path / "good.csv").unlink()
    for _ in range(2):
        assert run(env, *lookup, cwd=tmp_path).code == 0
    assert len((tmp_path / "good.csv").read_bytes()) < len(good)


def test_the_status_of_two_tables_of_a_file(
    env: dict[str, str], small: Emulator, tmp_path: Path
) -> None:
    (tmp_path / "keys.txt").write_text("".join(f"{key}\n" for key in bound(small)[:3]))
    people = ("export", "App Launched", *DAYS)
    users = ("lookup", "keys.txt", "--by", "user-id")
    for command in (people, users):
        done = run(env, *command, "--quiet", "-o", "crm.duckdb", cwd=tmp_path)
        assert done.code == 0, done.stderr
    for out in ((), ("crm.duckdb",)):
        lines = run(env, "status", *out, "--json", cwd=tmp_path).stdout.splitlines()
        one, other = map(json.loads, lines)
        assert (one["output"], one["table"]) == ("crm.duckdb", None)
        assert (other["output"], other["table"]) == ("crm.duckdb", "bindings")
        assert (one["success"]["found"], other["success"]["people"]) == (None, None)
        assert one["success"]["people"] > other["success"]["found"] == 3


def test_keys_in_a_table_of_duckdb(env: dict[str, str], small: Emulator, tmp_path: Path) -> None:
    keys = bound(small)
    with duckdb.connect(str(tmp_path / "crm.duckdb")) as connection:
        connection.execute("CREATE TABLE people (id VARCHAR, n INTEGER)")
        connection.executemany("INSERT INTO people VALUES (?, 1)", [[key] for key in keys])
        connection.execute("CREATE TABLE other AS SELECT 1 AS n")
    lookup = ("lookup", "crm.duckdb", "--by", "user-id", "-o", "users.ndjson")
    done = run(env, *lookup, cwd=tmp_path)
    assert done.code == 2
    assert "--keys-table: crm.duckdb has 2 tables ('other', 'people'); name the one" in done.stderr
    done = run(env, *lookup, "--keys-table", "people", "--column", "id", cwd=tmp_path)
    assert done.code == 0, done.stderr
    lines = (tmp_path / "users.ndjson").read_text().splitlines()
    assert [json.loads(line)["key"] for line in lines] == keys


def test_a_type_follows_a_key_where_it_is_one(env: dict[str, str], tmp_path: Path) -> None:
    export = ("export", "App Launched", *DAYS, "-o", "p.parquet")
    flatten = ("--flatten", "Cart Value:text", "--flatten", "a:b", "--flatten", "note")
    done = run(env, *export, *flatten, cwd=tmp_path)
    assert done.code == 0, done.stderr
    schema = pyarrow.parquet.read_schema(tmp_path / "p.parquet")
    assert schema.names[-3:] == ["Cart Value", "a:b", "note"]
    assert str(schema.field("Cart Value").type) == "string"


def test_a_mode_that_the_format_does_not_have(env: dict[str, str], tmp_path: Path) -> None:
    export = ("export", "App Launched", *DAYS, "-o", "p.ndjson", "--write", "upsert")
    done = run(env, *export, cwd=tmp_path)
    assert done.code == 2
    assert "--write: 'upsert' applies to " in done.stderr
    assert "not to ndjson" in done.stderr


@pytest.mark.slow
def test_answers_keep_the_order_of_the_file_and_one_that_is_late_holds_up_no_request(
    small: Emulator, tmp_path: Path
) -> None:
    keys = [f"user_{number}" for number in range(200)]
    (tmp_path / "ids.txt").write_text("\n".join(keys))
    arguments = ("cdp", "--file", str(tmp_path / "ids.txt"), "--by", "user-id")
    before = small.stats.requests["cdp"]
    with held(small, b"GET /v1/user", holding=1) as (variables, let_pass):
        env = environment(tmp_path, variables)
        with Terminal(env, *arguments, columns=200, piped=("stdout",)) as terminal:
            terminal.expect("asking: ")
            # All but the one that is held.
            while small.stats.requests["cdp"] < before + len(keys) - 1:
                time.sleep(0.05)
            let_pass()
            done = terminal.ended()
    assert done.code == 0, terminal.text
    assert [json.loads(line)["key"] for line in done.stdout.splitlines()] == keys


def test_keys_that_all_fail_leave_an_earlier_file_as_it_is(
    env: dict[str, str], small: Emulator, tmp_path: Path
) -> None:
    (tmp_path / "ids.txt").write_text("\n".join(bound(small)[:3]))
    lookup = ("lookup", "ids.txt", "--by", "identity", "-o", "found.csv")
    assert run(env, *lookup, cwd=tmp_path).code == 0
    before = (tmp_path / "found.csv").read_bytes()
    with emulated(people=300, seed=3, faults={"server_error": 1}) as failing:
        down = environment(tmp_path, failing.environment)
        done = run(down, *lookup, "--retries", "0", "--fresh", cwd=tmp_path)
    assert (done.code, done.stdout) == (4, b"")
    assert "the service does not answer: CleverTap answered HTTP 50" in done.stderr
    assert (tmp_path / "found.csv").read_bytes() == before


def test_the_last_failure_of_keys_is_said(
    env: dict[str, str], small: Emulator, tmp_path: Path
) -> None:
    (tmp_path / "ids.txt").write_text("\n".join(bound(small)[:60]))
    lookup = ("lookup", "ids.txt", "--by", "identity", "-o", "found.csv", "--retries", "0")
    with emulated(people=300, seed=3, faults={"server_error": 0.2}) as failing:
        done = run(environment(tmp_path, failing.environment), *lookup, cwd=tmp_path)
    assert done.code == 4
    assert "; the last one: CleverTap answered HTTP 50" in done.stderr
