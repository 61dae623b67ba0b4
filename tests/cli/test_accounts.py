"""Several accounts on the command line: outputs, failures, exit codes, progress."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet
import pytest

from altaprofiles.cli import cli
from altaprofiles.cli.commands.sync import sync
from altaprofiles.emulator import Emulator

from ..support.forks import start
from ..support.jobs import journal
from ..support.outputs import folder_of, rows_in_folder
from ..support.postgres import Server
from ..support.terminals import (
    COMMAND,
    LAST_STEP,
    Terminal,
    emulated,
    environment,
    held,
    refusing,
    resuming_words,
    run,
    unread,
)
from ..support.waiting import wait_until

DAYS = ("--from", "2026-01-01", "--to", "2026-01-31")
BOTH = ("--account", "shop", "--account", "outlet")


@pytest.fixture(scope="module")
def shop() -> Iterator[Emulator]:
    with emulated(people=150, seed=3) as emulator:
        yield emulator


@pytest.fixture(scope="module")
def outlet() -> Iterator[Emulator]:
    with emulated(people=100, seed=4) as emulator:
        yield emulator


class Accounts:
    """A credentials file."""

    def __init__(self, home: Path, **emulators: Emulator) -> None:
        self.path = home / ".config" / "altaprofiles" / "accounts.toml"
        self.path.parent.mkdir(parents=True)
        self.emulators = emulators
        self.tables = {name: table_of(emulator) for name, emulator in emulators.items()}
        self.write()

    def write(self) -> None:
        lines: list[str] = []
        for name, table in self.tables.items():
            lines.append(f"[accounts.{json.dumps(name)}]")
            lines += [f"{key} = {json.dumps(value)}" for key, value in table.items()]
        self.path.write_text("\n".join(lines))
        self.path.chmod(0o600)

    def set(self, name: str, **values: Any) -> None:
        self.tables[name] = {**self.tables.get(name, {}), **values}
        self.write()

    def account(self, name: str) -> str:
        account: str = self.tables[name]["account_id"]
        return account


def table_of(emulator: Emulator) -> dict[str, Any]:
    held = emulator.environment
    return {
        "account_id": held["CLEVERTAP_ACCOUNT_ID"],
        "passcode": held["CLEVERTAP_PASSCODE"],
        "base_url": held["CLEVERTAP_BASE_URL"],
        "alta_token": held["ALTA_TOKEN"],
        "alta_base_url": held["ALTA_BASE_URL"],
    }


@pytest.fixture
def accounts(shop: Emulator, outlet: Emulator, tmp_path: Path) -> Accounts:
    return Accounts(tmp_path, shop=shop, outlet=outlet)


@pytest.fixture
def env(accounts: Accounts, tmp_path: Path) -> dict[str, str]:
    return environment(tmp_path)


def people(emulator: Emulator) -> int:
    return len(set(emulator.population.active("App Launched", 20260101, 20260131)))


def counts_in(path: Path) -> Counter[str]:
    """Return the number of rows of each account in an output."""
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            return Counter(row["account"] for row in csv.DictReader(file))
    if path.suffix == ".duckdb":
        with duckdb.connect(str(path), read_only=True) as connection:
            query = "select account, count(*) from profiles group by account"
            return Counter(dict(connection.execute(query).fetchall()))
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    tables = [pyarrow.parquet.ParquetFile(file).read(["account"]) for file in files]
    return Counter(account for table in tables for account in table["account"].to_pylist())


FORMATS = ["people.csv", "people.parquet", "people.duckdb", "people/"]


@pytest.mark.parametrize("name", FORMATS)
def test_one_output_has_the_people_of_each_account(
    env: dict[str, str], accounts: Accounts, tmp_path: Path, name: str
) -> None:
    done = run(env, "export", "App Launched", *DAYS, *BOTH, "-o", name, "--json", cwd=tmp_path)
    assert done.code == 0, done.stderr
    expected = {accounts.account(name): people(one) for name, one in accounts.emulators.items()}
    assert counts_in(tmp_path / name) == expected
    report = json.loads(done.stdout)
    assert report["people"] == sum(expected.values())
    shares = {name: share["people"] for name, share in report["accounts"].items()}
    assert [*shares.items()] == [
        ("shop", people(accounts.emulators["shop"])),
        ("outlet", people(accounts.emulators["outlet"])),
    ]
    manifest = json.loads((tmp_path / f"{name.rstrip('/')}.manifest.json").read_text())
    assert manifest["accounts"] == report["accounts"]
    assert {name: plan["account"] for name, plan in manifest["plans"].items()} == {
        name: accounts.account(name) for name in ("shop", "outlet")
    }
    lines = done.stderr.splitlines()
    assert any(line.startswith("shop ") and " people" in line for line in lines)
    assert any(line.startswith("outlet ") and " people" in line for line in lines)


def test_one_table_of_a_server(
    env: dict[str, str], accounts: Accounts, tmp_path: Path, postgres: Server
) -> None:
    to = postgres.url("together")
    command = ("export", "App Launched", *DAYS, *BOTH, "-o", to)
    for _ in range(2):
        done = run(env, *command, cwd=tmp_path)
        assert done.code == 0, done.stderr
    rows = postgres.rows("select account, count(*) from together group by account")
    assert dict(rows) == {
        accounts.account(name): people(one) for name, one in accounts.emulators.items()
    }
    accounts.set("outlet", passcode="wrong")
    done = run(env, *command, "--write", "replace", cwd=tmp_path)
    assert done.code == 3, done.stderr
    assert len(rows) == len(postgres.rows("select distinct account from together"))


def test_a_table_of_before_is_refused_to_several(
    env: dict[str, str], accounts: Accounts, tmp_path: Path, postgres: Server
) -> None:
    core = "identity text, email text, name text, phone text, object_ids text[]"
    free = "profile_data jsonb, events jsonb, platform_info jsonb, extra jsonb"
    postgres.run(
        f"create table old (person text primary key, {core}, {free})",
        "insert into old (person, identity) values ('identity:0', '0')",
    )
    asked = [one.stats.requests for one in accounts.emulators.values()]
    command = ("export", "App Launched", *DAYS, "-o", postgres.url("old"))
    done = run(env, *command, *BOTH, cwd=tmp_path)
    assert done.code == 1
    assert "its rows name no account; export one account first" in done.stderr
    assert asked == [one.stats.requests for one in accounts.emulators.values()]
    for given in (BOTH[:2], BOTH):
        done = run(env, *command, *given, cwd=tmp_path)
        assert done.code == 0, done.stderr
    assert len(postgres.rows("select distinct account from old")) == 2


@pytest.mark.parametrize("name", FORMATS)
def test_the_next_run_asks_only_the_account_that_has_failed(
    env: dict[str, str], accounts: Accounts, tmp_path: Path, name: str
) -> None:
    passcode = accounts.tables["outlet"]["passcode"]
    accounts.set("outlet", passcode="wrong")
    command = ("export", "App Launched", *DAYS, *BOTH, "-o", name)
    done = run(env, *command, cwd=tmp_path)
    assert done.code == 3
    assert done.stdout == b""
    assert "warning: outlet has failed, which does not stop the other accounts" in done.stderr
    assert "error: outlet: CleverTap answered HTTP 401" in done.stderr
    assert "account 'outlet'" in done.stderr
    assert "doctor --account outlet" in done.stderr
    resume = done.stderr.splitlines()[-1]
    assert resume.startswith("To resume: ")
    assert resuming_words(resume)[-4:] == [*BOTH]
    kept = "stay in" if name != "people.duckdb" else "people.duckdb has the rows of shop"
    assert kept in done.stderr
    assert (tmp_path / name).exists() is (name == "people.duckdb")
    accounts.set("outlet", passcode=passcode)
    asked = accounts.emulators["shop"].stats.requests
    done = run(env, *command, cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert accounts.emulators["shop"].stats.requests == asked
    assert counts_in(tmp_path / name) == {
        accounts.account(name): people(one) for name, one in accounts.emulators.items()
    }
    assert not (tmp_path / f"{name.rstrip('/')}.export").exists()


def test_an_output_of_each(env: dict[str, str], accounts: Accounts, tmp_path: Path) -> None:
    command = ("export", "App Launched", *DAYS, *BOTH, "-o", "{account}-people.ndjson")
    done = run(env, *command, cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert done.stdout.splitlines() == [b"shop-people.ndjson", b"outlet-people.ndjson"]
    for name, emulator in accounts.emulators.items():
        lines = (tmp_path / f"{name}-people.ndjson").read_bytes().splitlines()
        assert len(lines) == people(emulator)
    done = run(env, *command, "--json", cwd=tmp_path)
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    assert [report["account"] for report in reports] == ["shop", "outlet"]
    assert [report["output"] for report in reports] == [
        "shop-people.ndjson",
        "outlet-people.ndjson",
    ]


def test_of_outputs_of_each_one_can_fail(
    env: dict[str, str], accounts: Accounts, tmp_path: Path
) -> None:
    accounts.set("shop", passcode="wrong")
    (tmp_path / "outlet").mkdir()
    (tmp_path / "shop").mkdir()
    out = "{account}/people.csv"
    done = run(env, "export", "App Launched", *DAYS, *BOTH, "-o", out, cwd=tmp_path)
    assert done.code == 3
    assert done.stdout == b"outlet/people.csv\n"
    assert "error: shop: CleverTap answered HTTP 401" in done.stderr
    assert counts_in(tmp_path / "outlet" / "people.csv").total() == people(
        accounts.emulators["outlet"]
    )
    assert resuming_words(done.stderr)[-4:] == ["--out", out, "--account", "shop"]


def test_what_resumes_appends_adds_none_of_one_that_is_complete(
    env: dict[str, str], accounts: Accounts, tmp_path: Path
) -> None:
    words = ("export", "App Launched", *DAYS, *BOTH, "-o", "{account}/", "--write", "append")
    passcode = accounts.tables["shop"]["passcode"]
    accounts.set("shop", passcode="wrong")
    done = run(env, *words, cwd=tmp_path)
    assert done.code == 3
    accounts.set("shop", passcode=passcode)
    again = run(env, *resuming_words(done.stderr)[3:], cwd=tmp_path)
    assert (again.code, again.stdout) == (0, b"shop/\n"), again.stderr
    for name, emulator in accounts.emulators.items():
        assert rows_in_folder(tmp_path / name) == people(emulator)


@pytest.mark.parametrize("out", ["both/", "{account}/"])
def test_an_append_of_several_that_is_interrupted_in_a_last_step_adds_its_rows_once(
    env: dict[str, str], accounts: Accounts, tmp_path: Path, out: str
) -> None:
    words = ("export", "App Launched", *DAYS, *BOTH, "-o", out, "--write", "append")
    with Terminal(env, *words, cwd=tmp_path, command=LAST_STEP) as terminal:
        terminal.stopped()
        terminal.interrupt(signal.SIGINT)
        terminal.interrupt(signal.SIGCONT)
        code = terminal.ended().code
    if out == "both/":
        assert code == 0
    if code:
        assert code == 130
        again = run(env, *resuming_words(terminal.text)[3:], cwd=tmp_path)
        assert again.code == 0, again.stderr
    rows = {name: people(emulator) for name, emulator in accounts.emulators.items()}
    for name, number in {"both": sum(rows.values())}.items() if out == "both/" else rows.items():
        assert rows_in_folder(tmp_path / name) == number


def test_the_one_that_fails_is_told_of_though_nobody_reads_the_others(
    env: dict[str, str], accounts: Accounts, tmp_path: Path
) -> None:
    accounts.set("shop", passcode="wrong")
    words = ("export", "App Launched", *DAYS, *BOTH, "-o", "{account}.csv")
    code, stderr = unread(env, *words, cwd=tmp_path)
    assert code == 3
    assert "error: shop: CleverTap answered HTTP 401" in stderr
    assert resuming_words(stderr)[-2:] == ["--account", "shop"]
    assert (tmp_path / "outlet.csv").exists()


def test_the_name_of_a_single_account_in_a_path(
    env: dict[str, str], accounts: Accounts, tmp_path: Path
) -> None:
    command = ("export", "App Launched", *DAYS, "-o", "{account}.ndjson")
    done = run(env, *command, "--account", "outlet", cwd=tmp_path)
    assert (done.code, done.stdout) == (0, b"outlet.ndjson\n"), done.stderr
    # It is the usual one.
    accounts.tables = {"shop": accounts.tables["shop"]}
    accounts.write()
    done = run(env, *command, cwd=tmp_path)
    assert (done.code, done.stdout) == (0, b"shop.ndjson\n"), done.stderr
    # One in the environment has no name.
    done = run({**env, **accounts.emulators["shop"].environment}, *command, cwd=tmp_path)
    assert done.code == 2
    assert "pass --account NAME" in done.stderr
    # Other braces are a part of the name.
    done = run(env, *command[:-1], "{accounts}.ndjson", cwd=tmp_path)
    assert (done.code, done.stdout) == (0, b"{accounts}.ndjson\n")


@pytest.mark.parametrize(
    ("out", "part"),
    [
        ("{acount}.csv", "{acount}"),
        ("people-{account.csv", "{account.csv"),
        ("{day}.csv", "{day}"),
        ("*.csv", "*"),
        ("people-?.parquet", "?"),
        ("people [1].csv", "[1]"),
    ],
)
def test_a_new_file_that_is_named_like_a_pattern_is_a_warning(
    env: dict[str, str], accounts: Accounts, tmp_path: Path, out: str, part: str
) -> None:
    command = ("export", "App Launched", *DAYS, "--account", "shop", "--quiet", "-o", out)
    done = run(env, *command, cwd=tmp_path)
    assert (done.code, done.stdout) == (0, f"{out}\n".encode())
    assert f"warning: --out: {part} stands for nothing else here, " in done.stderr
    # What is there is named so on purpose.
    done = run(env, *command, cwd=tmp_path)
    assert (done.code, done.stderr) == (0, "")


def test_the_name_of_an_account_is_no_pattern(
    env: dict[str, str], accounts: Accounts, tmp_path: Path
) -> None:
    accounts.tables = {"{x}*": accounts.tables["shop"], **accounts.tables}
    accounts.write()
    command = ("export", "App Launched", *DAYS, "--account", "{x}*", "--quiet", "-o")
    done = run(env, *command, "{account}.csv", cwd=tmp_path)
    assert (done.code, done.stdout, done.stderr) == (0, b"{x}*.csv\n", "")


def test_a_name_that_leads_elsewhere(
    env: dict[str, str], accounts: Accounts, tmp_path: Path
) -> None:
    for name in ("../up", "..", "a/b"):
        accounts.set(name, **accounts.tables["shop"])
        command = ("export", "App Launched", *DAYS, "-o", "{account}/people.ndjson")
        done = run(env, *command, "--account", name, cwd=tmp_path)
        assert done.code == 2
        assert "cannot be a part of a path" in done.stderr


@pytest.mark.parametrize(
    ("given", "code", "message"),
    [
        (("--account", "shop", "--account", "shop"), 2, "names 'shop' twice"),
        (("--account", "shop", "--account", "nobody"), 3, "no account 'nobody'"),
        (("--account", "nobody"), 3, "no account 'nobody'"),
        (
            ("--account", "shop", "--account", "twin"),
            2,
            "CleverTap account ID; leave one of them out, or start each emulator with a --seed",
        ),
    ],
)
@pytest.mark.parametrize(
    "command",
    [
        ("count", "App Launched", *DAYS),
        ("export", "App Launched", *DAYS, "-o", "people.csv"),
        ("export", "App Launched", *DAYS, "-o", "{account}.csv"),
        ("export", "App Launched", *DAYS, "--with-cdp", "-o", "people.parquet"),
        ("export", "App Launched", *DAYS, "--with-cdp", "-o", "p.duckdb", "--write", "upsert"),
        ("sync", "App Launched", "--since", "2026-01-01", "-o", "people.duckdb"),
        ("lookup", "keys.txt", "--by", "identity", "-o", "people.csv"),
    ],
)
def test_wrong_accounts(
    env: dict[str, str],
    accounts: Accounts,
    tmp_path: Path,
    given: tuple[str, ...],
    code: int,
    message: str,
    command: tuple[str, ...],
) -> None:
    (tmp_path / "keys.txt").write_text("1\n")
    accounts.set("twin", **accounts.tables["shop"])
    asked = accounts.emulators["shop"].stats.requests
    done = run(env, *command, *given, cwd=tmp_path)
    assert done.code == code
    assert message in done.stderr
    assert accounts.emulators["shop"].stats.requests == asked


@pytest.mark.parametrize("command", [("get", "--identity", "1"), ("doctor",), ("status",)])
def test_commands_of_one_account(env: dict[str, str], command: tuple[str, ...]) -> None:
    done = run(env, *command, *BOTH)
    assert done.code == 2
    assert "--account" in done.stderr
    done = run(env, *BOTH, *command)
    assert done.code == 2
    assert f"{command[0]} takes one --account, got 2" in done.stderr


NOTE = "account shop (the default); also saved: outlet\n"


def with_default(accounts: Accounts) -> None:
    text = accounts.path.read_text()
    accounts.path.write_text(f'default = "shop"\n{text}')


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("count", "Charged", *DAYS, "--json"), 0),
        (("get", "--identity", "nobody"), 5),
        (("who", "--identity", "nobody"), 5),
        (("cdp", "--user-id", "nobody"), 5),
        (("cdp", "--file", "keys.txt", "--by", "user-id"), 0),
        (("lookup", "keys.txt", "--by", "identity", "-o", "found.csv"), 0),
        (("export", "App Launched", *DAYS, "-o", "people.csv"), 0),
        (("export", "App Launched", *DAYS, "-o", "{account}.csv"), 0),
        (("sync", "App Launched", "--since", "2026-01-01", "--until", "2026-01-02", "-o", "c/"), 0),
    ],
)
def test_the_default_account_is_named_where_others_are_saved(
    env: dict[str, str], accounts: Accounts, tmp_path: Path, command: tuple[str, ...], code: int
) -> None:
    with_default(accounts)
    (tmp_path / "keys.txt").write_text("nobody\n")
    (tmp_path / "c").mkdir()
    done = run(env, *command, cwd=tmp_path)
    assert done.code == code, done.stderr
    assert done.stderr.count(NOTE) == 1
    assert NOTE.strip().encode() not in done.stdout


def test_the_account_is_not_named_where_there_is_no_choice(
    env: dict[str, str], accounts: Accounts, outlet: Emulator, tmp_path: Path
) -> None:
    with_default(accounts)
    command = ("count", "Charged", *DAYS)
    assert run(env, *command, "--quiet", cwd=tmp_path).stderr == ""
    assert run(env, *command, "--account", "shop", cwd=tmp_path).stderr == ""
    assert run(env | outlet.environment, *command, cwd=tmp_path).stderr == ""
    # An account of Alta alone has nobody to count.
    for key in ("account_id", "passcode", "base_url"):
        del accounts.tables["outlet"][key]
    accounts.write()
    with_default(accounts)
    assert run(env, *command, cwd=tmp_path).stderr == ""
    assert NOTE in run(env, "cdp", "--user-id", "nobody", cwd=tmp_path).stderr
    del accounts.tables["outlet"]
    accounts.write()
    assert run(env, *command, cwd=tmp_path).stderr == ""


def test_lines_need_a_path_for_each(
    env: dict[str, str], accounts: Accounts, tmp_path: Path
) -> None:
    asked = accounts.emulators["shop"].stats.requests
    done = run(env, "export", "App Launched", *DAYS, *BOTH, "-o", "p.ndjson.gz", cwd=tmp_path)
    assert done.code == 2
    assert done.stderr.startswith("error: --out: 'p.ndjson.gz' is NDJSON")
    assert "{account}" in done.stderr
    assert accounts.emulators["shop"].stats.requests == asked


# --------------------------------------------------------------------------------------- the counts


def test_counts_of_each(env: dict[str, str], accounts: Accounts) -> None:
    numbers = {name: people(one) for name, one in accounts.emulators.items()}
    done = run(env, "count", "App Launched", *DAYS, "--account", "outlet", "--account", "shop")
    assert done.code == 0, done.stderr
    assert done.stdout.decode() == f"outlet\t{numbers['outlet']}\nshop\t{numbers['shop']}\n"
    done = run(env, *BOTH, "count", "App Launched", *DAYS, "--json")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    days = {"start": 20260101, "end": 20260131}
    assert lines == [
        {"account": name, "people": numbers[name], **days} for name in ("shop", "outlet")
    ]
    done = run(env, "count", "App Launched", *DAYS, "--json", "--account", "shop")
    assert json.loads(done.stdout) == {"people": numbers["shop"], **days}


def test_a_count_that_fails(env: dict[str, str], accounts: Accounts) -> None:
    accounts.set("shop", passcode="wrong")
    done = run(env, "count", "App Launched", *DAYS, *BOTH)
    assert done.code == 3
    assert done.stdout.decode() == f"outlet\t{people(accounts.emulators['outlet'])}\n"
    assert done.stderr.startswith("error: shop: CleverTap answered HTTP 401")


@pytest.mark.slow
def test_the_exit_code_is_that_of_the_worst(env: dict[str, str], accounts: Accounts) -> None:
    with refusing() as url:
        accounts.set("down", account_id="D", passcode="p", base_url=url)
        command = ("count", "App Launched", *DAYS, "--account", "down", *BOTH)
        done = run(env, *command)
        assert done.code == 2
        assert "error: down: CleverTap answered HTTP 400" in done.stderr
        assert len(done.stdout.splitlines()) == 2
        accounts.set("outlet", passcode="wrong")
        done = run(env, *command)
    assert done.code == 3
    assert len(done.stdout.splitlines()) == 1


# -------------------------------------------------------------------------------------- the lookups


def known(emulator: Emulator, number: int) -> list[str]:
    found = (emulator.population.identity(index) for index in range(number))
    return [identity for identity in found if identity is not None]


def test_the_same_keys_are_asked_of_each(
    env: dict[str, str], accounts: Accounts, tmp_path: Path
) -> None:
    of = {name: known(emulator, 30) for name, emulator in accounts.emulators.items()}
    keys = [*of["shop"], *of["outlet"], "nobody"]
    (tmp_path / "keys.txt").write_text("\n".join(keys))
    command = ("lookup", "keys.txt", "--by", "identity", *BOTH, "-o", "found.csv", "--json")
    done = run(env, *command, cwd=tmp_path)
    assert done.code == 0, done.stderr
    report = json.loads(done.stdout)
    with (tmp_path / "found.csv").open(newline="", encoding="utf-8") as file:
        rows = [(row["account"], row["key"]) for row in csv.DictReader(file)]
    for name, identities in of.items():
        found = [key for account, key in rows if account == accounts.account(name)]
        assert {*identities} <= {*found}
        share = report["accounts"][name]
        assert share["keys"] == len({*keys})
        assert share["found"] == len(found)
        missing = (tmp_path / f"found.csv.{name}.not-found.txt").read_text().splitlines()
        assert Path(share["not_found_file"]).name == f"found.csv.{name}.not-found.txt"
        assert sorted([*found, *missing]) == sorted({*keys})
    assert report["keys"] == 2 * len({*keys})
    assert re.search(rf"keys +{2 * len({*keys})}, in 2 accounts together\b", done.stderr)
    assert re.search(
        r"\d of \d+ keys found; not found: found\.csv\.shop\.not-found\.txt\n", done.stderr
    )
    assert not (tmp_path / "found.csv.not-found.txt").exists()


def test_keys_of_each_that_are_finished_have_files_of_their_own(
    env: dict[str, str], accounts: Accounts, tmp_path: Path
) -> None:
    of = {name: known(emulator, 30) for name, emulator in accounts.emulators.items()}
    (tmp_path / "keys.txt").write_text("\n".join([*of["shop"], *of["outlet"]]))
    command = ("lookup", "keys.txt", "--by", "identity", *BOTH, "-o", "crm.duckdb")
    with ExitStack() as stack:
        releases = []
        for name, emulator in accounts.emulators.items():
            lookups = held(emulator, b"GET /1/profile.json", passing=5, holding=9)
            gate, release = stack.enter_context(lookups)
            accounts.set(name, base_url=gate["CLEVERTAP_BASE_URL"])
            releases.append(release)
        killed(env, tmp_path, *command, some="select count(outcome) from keys")
        for release in releases:
            release()
        done = run(env, "status", "crm.duckdb", "--finish-unfinished", "--quiet", cwd=tmp_path)
    assert done.code == 0, done.stderr
    for name, others in (("shop", of["outlet"]), ("outlet", of["shop"])):
        missing = (tmp_path / f"crm.duckdb.{name}.not-found.txt").read_text().splitlines()
        assert {*missing} == {*others} - {*of[name]}
    assert not (tmp_path / "crm.duckdb.not-found.txt").exists()


@pytest.mark.parametrize("out", ["found.parquet", "{account}.ndjson"])
def test_keys_from_a_pipe(
    env: dict[str, str], accounts: Accounts, tmp_path: Path, out: str
) -> None:
    keys = [key for emulator in accounts.emulators.values() for key in known(emulator, 20)]
    command = ("lookup", "-", "--by", "identity", *BOTH, "-o", out, "--json")
    done = run(env, *command, stdin="\n".join(keys).encode(), cwd=tmp_path)
    assert done.code == 0, done.stderr
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    shares = [*reports[0]["accounts"].values()] if len(reports) == 1 else reports
    assert [share["keys"] for share in shares] == [len({*keys})] * 2
    assert all(share["found"] >= 10 for share in shares)
    done = run(env, *command, cwd=tmp_path)
    assert done.code == 2
    assert "standard input is empty" in done.stderr


def test_users_of_each(env: dict[str, str], accounts: Accounts, tmp_path: Path) -> None:
    keys = [key for emulator in accounts.emulators.values() for key in known(emulator, 40)]
    (tmp_path / "keys.txt").write_text("\n".join(keys))
    command = ("lookup", "keys.txt", "--by", "user-id", *BOTH, "-o", "users.duckdb")
    done = run(env, *command, cwd=tmp_path)
    assert done.code == 0, done.stderr
    with duckdb.connect(str(tmp_path / "users.duckdb"), read_only=True) as connection:
        rows = connection.execute("select distinct account from bindings order by 1").fetchall()
    assert rows == [("outlet",), ("shop",)]
    # The account that is written second is no surprise.
    assert "other accounts" not in done.stderr
    accounts.set("twin", **accounts.tables["shop"])
    done = run(env, *command, "--account", "twin", cwd=tmp_path)
    assert done.code == 2
    assert "the same Alta API key" in done.stderr


def test_accounts_with_one_alta_key_share_its_slots(
    env: dict[str, str], accounts: Accounts, tmp_path: Path
) -> None:
    agent = accounts.tables["shop"]
    accounts.set("shop", alta_max_in_flight=4)
    shared = {name: agent[name] for name in ("alta_token", "alta_base_url")}
    accounts.set("outlet", alta_max_in_flight=4, **shared)
    command = ("export", "App Launched", *DAYS, *BOTH, "--with-cdp", "-o", "people.csv")
    done = run(env, *command, "--log-format", "json", cwd=tmp_path)
    assert done.code == 0, done.stderr
    slots = {
        line["progress"]["slots"]
        for line in map(json.loads, done.stderr.splitlines())
        if "progress" in line
    }
    # Three of CleverTap, and a half of the four.
    assert slots == {5}


def test_joined(env: dict[str, str], accounts: Accounts, tmp_path: Path) -> None:
    command = ("export", "App Launched", *DAYS, *BOTH, "--with-cdp", "-o", "people.parquet")
    done = run(env, *command, "--json", cwd=tmp_path)
    assert done.code == 0, done.stderr
    report = json.loads(done.stdout)
    table = pyarrow.parquet.read_table(tmp_path / "people.parquet")
    bound = Counter(
        account
        for account, cdp in zip(table["account"].to_pylist(), table["cdp"].to_pylist(), strict=True)
        if cdp not in (None, "[]")
    )
    shares = report["accounts"]
    assert bound == {accounts.account(name): share["matched"] for name, share in shares.items()}
    assert report["matched"] == bound.total() > 0


# ---------------------------------------------------------------------- interruptions, and progress


PAGES = "select coalesce(sum(pages), 0) from chains"


def killed(env: dict[str, str], folder: Path, *arguments: str, some: str = PAGES) -> None:
    """Run an export until some pages of both accounts are on disk, or answers, and kill it."""
    with start(
        [*COMMAND, *arguments],
        env=env,
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        while sum(bool(journal(path, some) > [(0,)]) for path in folder.glob("*.export/*-*")) < 2:
            assert process.poll() is None
            time.sleep(0.02)
        process.kill()
        assert process.wait() == -signal.SIGKILL


def test_killed_and_run_again(env: dict[str, str], accounts: Accounts, tmp_path: Path) -> None:
    command = ("export", "App Launched", *DAYS, *BOTH, "--batch-size", "23", "--quiet")
    with held(accounts.emulators["shop"], passing=6, holding=9) as (gate, release):
        accounts.set("shop", base_url=gate["CLEVERTAP_BASE_URL"])
        killed(env, tmp_path, *command, "-o", "people.csv")
        release()
        done = run(env, *command, "-o", "people.csv", cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert counts_in(tmp_path / "people.csv") == {
        accounts.account(name): people(one) for name, one in accounts.emulators.items()
    }


@pytest.mark.parametrize("out", ["people.csv", "{account}.csv"])
def test_ctrl_c_prints_all_accounts(
    env: dict[str, str], accounts: Accounts, tmp_path: Path, out: str
) -> None:
    with held(accounts.emulators["shop"], holding=9) as (held_env, _):
        accounts.set("shop", base_url=held_env["CLEVERTAP_BASE_URL"])
        command = ("export", "App Launched", *DAYS, *BOTH, "-o", str(tmp_path / out))
        with Terminal(env, *command) as terminal:
            terminal.expect("outlet")
            terminal.expect("reading")
            terminal.press_ctrl_c()
            done = terminal.ended()
    assert done.code == 130
    text = " ".join(terminal.text.split())
    assert text.endswith("--account shop --account outlet")


def test_the_picture_of_two_accounts(
    env: dict[str, str], accounts: Accounts, tmp_path: Path
) -> None:
    accounts.set(
        "with a name that is as long as that of no account",
        **{**accounts.tables["outlet"], "passcode": "wrong", "account_id": "X"},
    )
    command = ("export", "App Launched", *DAYS, *BOTH, "--batch-size", "46", "--count")
    third = ("--account", "with a name that is as long as that of no account")
    with held(accounts.emulators["shop"], passing=4, holding=2) as (held_env, release):
        accounts.set("shop", base_url=held_env["CLEVERTAP_BASE_URL"])
        with Terminal(env, *command, *third, "-o", str(tmp_path / "p.csv")) as terminal:
            terminal.expect("shop ")
            terminal.expect("outlet ")
            terminal.expect("failed")
            terminal.expect("100 %")
            release()
            done = terminal.ended()
    assert done.code == 3
    frame = terminal.text.rpartition("shop ")[2]
    assert " of " in frame
    assert all(
        len(line) <= 80 for line in terminal.text.replace("\r", "\n").split("\n") if "━" in line
    )


def test_the_log_names_the_account(env: dict[str, str], accounts: Accounts, tmp_path: Path) -> None:
    command = ("export", "App Launched", *DAYS, *BOTH, "-o", "p.csv", "--log-format", "json")
    done = run(env, *command, cwd=tmp_path)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    progress = [line for line in lines if "progress" in line]
    assert {line["account"] for line in progress} == {"shop", "outlet"}
    assert all(line["message"].startswith(f"{line['account']}: ") for line in progress)
    (report,) = [line["report"] for line in lines if "report" in line]
    assert [*report["accounts"]] == ["shop", "outlet"]


@pytest.mark.parametrize(
    "command",
    [
        ("export", "App Launched", *DAYS, "-o", "p.csv"),
        ("export", "App Launched", *DAYS, "-o", "{account}.csv"),
        ("sync", "App Launched", "--since", "2026-01-01", "-o", "p.duckdb"),
        ("count", "App Launched", *DAYS),
    ],
    ids=lambda command: f"{command[0]} {command[-1]}",
)
def test_the_log_of_a_request_names_one_of_several_accounts(
    env: dict[str, str], accounts: Accounts, tmp_path: Path, command: tuple[str, ...]
) -> None:
    (tmp_path / "json").mkdir()
    with emulated(people=5, seed=4, faults={"server_error": 1.0}) as emulator:
        accounts.set("outlet", **table_of(emulator))
        several = (*command, *BOTH, "--retries", "1", "-v")
        text = run(env, *several, cwd=tmp_path)
        lines = run(env, *several, "--log-format", "json", cwd=tmp_path / "json")
        alone = run(env, *command, "--account", "outlet", "--retries", "0", "-v", cwd=tmp_path)
    assert "debug: outlet: CleverTap " in text.stderr
    assert "debug: shop: CleverTap " not in text.stderr
    assert "outlet: outlet" not in text.stderr
    records = [json.loads(line) for line in lines.stderr.splitlines()]
    failed = [one for one in records if one["level"] == "debug"]
    assert {one["account"] for one in failed} == {"outlet"}
    others = [one for one in records if "outlet has failed, and" in one["message"]]
    assert all(one["account"] == "outlet" for one in others)
    # A path with the name in it is of several, even if there is one.
    assert ("debug: CleverTap " in alone.stderr) == ("{account}.csv" not in command)


def test_an_error_of_one_of_several_accounts_names_it_in_json(
    env: dict[str, str], accounts: Accounts
) -> None:
    accounts.set("outlet", passcode="wrong")
    done = run(env, "count", "App Launched", *DAYS, *BOTH, "--log-format", "json")
    assert done.code == 3
    (error,) = [json.loads(line) for line in done.stderr.splitlines()]
    assert (error["level"], error["account"]) == ("error", "outlet")


# ---------------------------------------------------------------------------------- from day to day


def test_one_account_more_tomorrow(env: dict[str, str], accounts: Accounts, tmp_path: Path) -> None:
    command = ("export", "App Launched", *DAYS, "-o", "crm.duckdb")
    done = run(env, *command, "--account", "shop", cwd=tmp_path)
    assert done.code == 0, done.stderr
    done = run(env, *command, "--account", "outlet", "--write", "replace", cwd=tmp_path)
    assert done.code != 0
    assert "rows of other accounts" in done.stderr
    for extra in ((), ("--write", "replace")):
        done = run(env, *command, *BOTH, *extra, cwd=tmp_path)
        assert done.code == 0, done.stderr
        assert counts_in(tmp_path / "crm.duckdb") == {
            accounts.account(name): people(one) for name, one in accounts.emulators.items()
        }
    done = run(env, *command, "--account", "outlet", "--write", "replace", cwd=tmp_path)
    assert done.code != 0
    assert accounts.account("shop") in done.stderr


@pytest.mark.parametrize("out", ["people.csv", "people.ndjson"])
def test_a_file_without_the_other_accounts_tomorrow(
    env: dict[str, str], accounts: Accounts, tmp_path: Path, out: str
) -> None:
    """A table or a folder would refuse to lose their rows; a file warns."""
    command = ("export", "App Launched", *DAYS, "-o", out, "--json")
    before: tuple[str, ...] = BOTH
    name = "outlet"
    if out == "people.ndjson":
        before, name = BOTH[2:], accounts.account("outlet")
    lost = f"{out} has the rows of {name}, which are not in this export and so are replaced"
    assert lost not in run(env, *command, *before, cwd=tmp_path).stderr
    assert lost not in run(env, *command, *before, cwd=tmp_path).stderr
    done = run(env, *command, "--account", "shop", cwd=tmp_path)
    assert done.code == 0
    assert f"warning: {lost}" in done.stderr
    assert [text for text in json.loads(done.stdout)["warnings"] if text.startswith(lost)]
    assert lost not in run(env, *command, *BOTH[:2], cwd=tmp_path).stderr


NIGHTLY = ("sync", "App Launched", "--since", "2026-01-01", "--timezone", "UTC", *BOTH)


def rows_in(path: Path) -> list[tuple[Any, ...]]:
    """Return the people of a table. Their records vary with the days that are asked for."""
    with duckdb.connect(str(path), read_only=True) as connection:
        query = "select account, person, matched from profiles order by all"
        return connection.execute(query).fetchall()


def days_of(path: Path) -> dict[str, str]:
    with duckdb.connect(str(path), read_only=True) as connection:
        query = "select account, through from altaprofiles_sync"
        return {account: str(day) for account, day in connection.execute(query).fetchall()}


def test_one_table_of_two_syncs(env: dict[str, str], accounts: Accounts, tmp_path: Path) -> None:
    ids = [accounts.account(name) for name in ("shop", "outlet")]
    for until in ("2026-01-05", "2026-01-20"):
        done = run(env, *NIGHTLY, "--until", until, "-o", "crm.duckdb", "--json", cwd=tmp_path)
        assert done.code == 0, done.stderr
        report = json.loads(done.stdout)
        assert [*report["accounts"]] == ["shop", "outlet"]
        assert report["through"] == until
        assert days_of(tmp_path / "crm.duckdb") == dict.fromkeys(ids, until)
        manifest = json.loads((tmp_path / "crm.duckdb.manifest.json").read_text())
        assert {name: manifest[name] for name in report} == report
        assert {name: plan["account"] for name, plan in manifest["plans"].items()} == dict(
            zip(("shop", "outlet"), ids, strict=True)
        )
        text = run(env, "status", "crm.duckdb", cwd=tmp_path).stdout.decode()
        assert f", {report['people']:,} people" in text
        for name, account in zip(("shop", "outlet"), ids, strict=True):
            assert f"  synced      through {until} for {name} ({account}), in the run of " in text
    # Each account by itself leaves the same rows, in whatever steps.
    done = run(env, *NIGHTLY, "--until", "2026-01-20", "-o", "{account}.duckdb", cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert done.stdout == b"shop.duckdb\noutlet.duckdb\n"
    alone = [row for name in ("shop", "outlet") for row in rows_in(tmp_path / f"{name}.duckdb")]
    assert Counter(map(str, rows_in(tmp_path / "crm.duckdb"))) == Counter(map(str, alone))


def test_a_warning_about_all_accounts_is_in_the_report_and_names_no_single_one(
    env: dict[str, str], accounts: Accounts, tmp_path: Path
) -> None:
    night = (*NIGHTLY, "-o", "p.duckdb", "--json", "--until")
    assert run(env, *night, "2026-01-02", cwd=tmp_path).code == 0
    done = run(env, *night, "2026-01-03", "--flatten", "Plan", cwd=tmp_path)
    assert done.code == 0, done.stderr
    report = json.loads(done.stdout)
    # Whichever sync has added the column, the rows of the other lack it as well.
    [warning] = report["warnings"]
    words = (
        "has a new column, null in the rows, of any account, that this run did not bring: 'Plan'"
    )
    assert words in warning
    assert warning in done.stderr
    [alone] = [text for share in report["accounts"].values() for text in share["warnings"]]
    assert warning.endswith(f": {alone}")
    manifest = json.loads((tmp_path / "p.duckdb.manifest.json").read_bytes())
    # A manifest has the names of Python, whatever has written it.
    named = warning.replace("--flatten", "`flatten`").replace("--late-days", "`late_days`")
    assert manifest["warnings"] == [named]
    nobody = ("export", "App Launched", *DAYS, *BOTH, "--profile-where", "City = Nowhere", "--json")
    done = run(env, *nobody, "-o", "p.csv", cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert [text.partition(";")[0] for text in json.loads(done.stdout)["warnings"]] == [
        "shop, outlet: 0 people in p.csv"
    ]


def test_a_sync_goes_on_without_the_account_that_has_failed(
    env: dict[str, str], accounts: Accounts, tmp_path: Path
) -> None:
    passcode = accounts.tables["shop"]["passcode"]
    command = (*NIGHTLY, "-o", "crm.duckdb", "--until")
    assert run(env, *command, "2026-01-05", cwd=tmp_path).code == 0
    accounts.set("shop", passcode="wrong")
    done = run(env, *command, "2026-01-07", cwd=tmp_path)
    assert done.code == 3
    assert "error: shop: CleverTap answered HTTP 401" in done.stderr
    assert "error: outlet is up to date; shop has failed" in done.stderr
    assert resuming_words(done.stderr)[-4:] == [*BOTH]
    shop, outlet = (accounts.account(name) for name in ("shop", "outlet"))
    assert days_of(tmp_path / "crm.duckdb") == {shop: "2026-01-05", outlet: "2026-01-07"}
    accounts.set("shop", passcode=passcode)
    done = run(env, *command, "2026-01-09", cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert "unfinished" not in done.stderr
    assert days_of(tmp_path / "crm.duckdb") == dict.fromkeys([shop, outlet], "2026-01-09")
    done = run(env, *NIGHTLY, "--until", "2026-01-09", "-o", "whole.duckdb", cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert rows_in(tmp_path / "crm.duckdb") == rows_in(tmp_path / "whole.duckdb")
    assert not (tmp_path / "crm.duckdb.export").exists()


def test_one_folder_of_two_syncs(env: dict[str, str], accounts: Accounts, tmp_path: Path) -> None:
    for until in ("2026-01-03", "2026-01-05", "2026-01-05"):
        done = run(env, *NIGHTLY, "--until", until, "-o", "crm/", cwd=tmp_path)
        assert done.code == 0, done.stderr
        # Nobody takes the sum of days for a number of people.
        assert re.search(r"people +[0-9,]+, each once a day\n", done.stderr)
    assert (
        ", each once a day in that run\n"
        in run(env, "status", "crm/", cwd=tmp_path).stdout.decode()
    )
    days = sorted(path.name for path in (tmp_path / "crm").glob("day=*"))
    assert days == [f"day=2026-01-0{day}" for day in range(1, 6)]
    for day in days:
        number = int(day[-2:]) + 20260100
        assert counts_in(tmp_path / "crm" / day) == {
            accounts.account(name): len({*one.population.active("App Launched", number, number)})
            for name, one in accounts.emulators.items()
        }


def test_one_table_of_a_server_of_two_syncs(
    env: dict[str, str], accounts: Accounts, tmp_path: Path, postgres: Server
) -> None:
    command = (*NIGHTLY, "-o", postgres.url("nightly"), "--until")
    for until in ("2026-01-05", "2026-01-31"):
        done = run(env, *command, until, cwd=tmp_path)
        assert done.code == 0, done.stderr
    rows = postgres.rows("select account, count(*) from nightly group by account")
    assert dict(rows) == {
        accounts.account(name): people(one) for name, one in accounts.emulators.items()
    }
    states = postgres.rows("select account, through::text from altaprofiles_sync")
    assert dict(states) == dict.fromkeys(dict(rows), "2026-01-31")


def test_the_account_of_a_server_that_is_behind_is_seen(
    env: dict[str, str],
    accounts: Accounts,
    tmp_path: Path,
    postgres: Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = postgres.url("nightly")
    command = (*NIGHTLY, "-o", url, "--until")
    assert run(env, *command, "2026-01-05", cwd=tmp_path).code == 0
    accounts.set("outlet", passcode="wrong")
    assert run(env, *command, "2026-01-07", cwd=tmp_path).code == 3
    shop, outlet = (accounts.account(name) for name in ("shop", "outlet"))
    behind = [
        f"  synced      through 2026-01-07 for shop ({shop})",
        f"  synced      through 2026-01-05 for outlet ({outlet})",
    ]
    # As the server has it; without its URL, or without the server, as the manifest does.
    postgres.run(f"update altaprofiles_sync set through = '2026-01-06' where account = '{outlet}'")
    read = [line.replace("2026-01-05", "2026-01-06") for line in behind]
    text = run(env, "status", url, cwd=tmp_path).stdout.decode()
    assert sorted(lines_of(text, "  synced")) == sorted(read)
    assert "manifest" not in text
    text = run(env, "status", cwd=tmp_path).stdout.decode()
    assert lines_of(text, "  synced") == behind
    assert "by the manifest; to read the database, pass its URL" in text
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = str(closed.getsockname()[1])
        nowhere = url.replace(f":{postgres.port}/", f":{port}/")
        manifest = next(tmp_path.glob("*.manifest.json"))
        monkeypatch.chdir(tmp_path)
        manifest.rename(tmp_path / f"{folder_of(nowhere).stem}.manifest.json")
        done = run(env, "status", nowhere, cwd=tmp_path)
        assert lines_of(done.stdout.decode(), "  synced") == behind
        assert "by the manifest, as the table cannot be read: " in done.stdout.decode()
        [line] = run(env, "status", nowhere, "--json", cwd=tmp_path).stdout.splitlines()
    shown = json.loads(line)
    assert shown["synced"] == {shop: "2026-01-07", outlet: "2026-01-05"}
    assert shown["synced_from"] == "manifest"


@pytest.mark.parametrize("out", ["crm.duckdb", "crm/", "postgres"])
def test_status_has_the_time_of_the_last_run_of_each_account(
    env: dict[str, str], accounts: Accounts, tmp_path: Path, postgres: Server, out: str
) -> None:
    to = postgres.url("nightly") if out == "postgres" else out
    shop, outlet = (accounts.account(name) for name in ("shop", "outlet"))

    def times(*arguments: str) -> dict[str, datetime]:
        state = json.loads(run(env, "status", *arguments, "--json", cwd=tmp_path).stdout)
        return {name: datetime.fromisoformat(text) for name, text in state["synced_at"].items()}

    began = datetime.now(UTC).replace(microsecond=0)
    assert run(env, *NIGHTLY, "-o", to, "--until", "2026-01-05", cwd=tmp_path).code == 0
    first = times(to)
    assert {*first} == {shop, outlet}
    assert all(began <= time <= datetime.now(UTC) for time in first.values())
    accounts.set("outlet", passcode="wrong")
    # Times are told in seconds.
    wait_until(lambda: datetime.now(UTC) >= max(first.values()) + timedelta(seconds=1))
    second = datetime.now(UTC).replace(microsecond=0)
    assert run(env, *NIGHTLY, "-o", to, "--until", "2026-01-07", cwd=tmp_path).code == 3
    # A server that is not asked has them in the manifest.
    for arguments in ((to,), ()):
        found = times(*arguments)
        assert found[outlet] == first[outlet]
        assert found[shop] >= second
        text = run(env, "status", *arguments, cwd=tmp_path).stdout.decode()
        for name, account, day in (("shop", shop, "07"), ("outlet", outlet, "05")):
            line = f"  synced      through 2026-01-{day} for {name} ({account}), in the run of "
            assert f"{line}{found[account]:%Y-%m-%d %H:%M} UTC\n" in text


def lines_of(text: str, start: str) -> list[str]:
    """Return the lines with a beginning, without the time of a sync's run."""
    lines = [line for line in text.splitlines() if line.startswith(start)]
    return [re.sub(r", in the run of \S+ \S+ UTC$", "", line) for line in lines]


def killed_when_written(env: dict[str, str], folder: Path, *arguments: str) -> None:
    """Run a command until one account has been written, and kill it."""

    def written() -> set[bytes]:
        return {path.read_bytes() for path in folder.glob("*.manifest.json")}

    before = written()
    devnull = subprocess.DEVNULL
    command = [*COMMAND, *arguments]
    with start(command, env=env, cwd=folder, stdout=devnull, stderr=devnull) as process:
        wait_until(lambda: process.poll() is not None or written() - before)
        assert process.poll() is None
        process.kill()
        assert process.wait() == -signal.SIGKILL


def test_status_after_a_first_night_that_was_killed_names_the_account_without_a_day(
    env: dict[str, str], accounts: Accounts, tmp_path: Path
) -> None:
    shop, outlet = (accounts.account(name) for name in ("shop", "outlet"))
    command = (*NIGHTLY, "--until", "2026-01-20", "--batch-size", "23", "-o", "crm.duckdb")
    with held(accounts.emulators["outlet"], passing=2, holding=9) as (gate, release):
        accounts.set("outlet", base_url=gate["CLEVERTAP_BASE_URL"])
        killed_when_written(env, tmp_path, *command)
        for arguments in ((), ("crm.duckdb",)):
            text = run(env, "status", *arguments, cwd=tmp_path).stdout.decode()
            assert re.search(rf"\n  incomplete  .* for shop \({shop}\), ", text), text
            assert lines_of(text, "  synced") == [
                f"  synced      through 2026-01-20 for shop ({shop})",
                f"  synced      no day yet for outlet ({outlet})",
            ]
        state = json.loads(run(env, "status", "--json", cwd=tmp_path).stdout)
        assert state["synced"] == {shop: "2026-01-20", outlet: None}
        assert not state["success"]["complete"]
        release()
        done = run(env, "status", "crm.duckdb", "--finish-unfinished", "-q", cwd=tmp_path)
        assert done.code == 0, done.stderr
        # What has been written since is the other half of the same run.
        assert "was written at" not in done.stderr
        text = run(env, "status", cwd=tmp_path).stdout.decode()
        assert "  incomplete" not in text
        assert len(lines_of(text, "  synced      through 2026-01-20 for ")) == 2
        done = run(env, *command, "-q", cwd=tmp_path)
        assert done.code == 0, done.stderr
    text = run(env, "status", cwd=tmp_path).stdout.decode()
    assert "  incomplete" not in text
    assert len(lines_of(text, "  synced      through 2026-01-20 for ")) == 2


def test_status_after_a_night_that_was_killed_has_the_day_of_each_account(
    env: dict[str, str], accounts: Accounts, tmp_path: Path, postgres: Server
) -> None:
    url = postgres.url("nightly")
    shop, outlet = (accounts.account(name) for name in ("shop", "outlet"))
    assert run(env, *NIGHTLY, "--until", "2026-01-05", "-o", url, cwd=tmp_path).code == 0
    with held(accounts.emulators["outlet"], holding=9) as (gate, _):
        accounts.set("outlet", base_url=gate["CLEVERTAP_BASE_URL"])
        killed_when_written(env, tmp_path, *NIGHTLY, "--until", "2026-01-07", "-o", url)
    for arguments in ((), (url,)):
        text = run(env, "status", *arguments, cwd=tmp_path).stdout.decode()
        assert lines_of(text, "  incomplete")
        assert sorted(lines_of(text, "  synced")) == [
            f"  synced      through 2026-01-05 for outlet ({outlet})",
            f"  synced      through 2026-01-07 for shop ({shop})",
        ]
    # A full export knows the days of a table that syncs keep, and names all accounts.
    accounts.set("outlet", base_url=table_of(accounts.emulators["outlet"])["base_url"])
    done = run(
        env,
        *("export", "App Launched", "--from", "2026-01-01", "--to", "2026-01-05"),
        *("--account", "shop", "--write", "upsert", "-o", url),
        cwd=tmp_path,
    )
    assert done.code == 0, done.stderr
    for arguments in ((), (url,)):
        text = run(env, "status", *arguments, cwd=tmp_path).stdout.decode()
        assert sorted(lines_of(text, "  synced")) == [
            f"  synced      through 2026-01-05 for outlet ({outlet})",
            f"  synced      through 2026-01-07 for shop ({shop})",
        ]


@pytest.mark.parametrize(
    ("command", "out"),
    [("sync", "crm.duckdb"), ("export", "crm.duckdb"), ("export", "{account}.csv")],
)
def test_the_report_as_json_has_the_error_of_the_account_that_has_failed(
    env: dict[str, str], accounts: Accounts, tmp_path: Path, command: str, out: str
) -> None:
    accounts.set("outlet", passcode="wrong")
    arguments: tuple[str, ...] = (*NIGHTLY, "--until", "2026-01-05")
    if command == "export":
        arguments = ("export", "App Launched", *DAYS, *BOTH)
    done = run(env, *arguments, "-o", out, "--json", cwd=tmp_path)
    assert done.code == 3
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    shares = {one.pop("account"): one for one in reports} if "account" in reports[0] else None
    if shares is None:
        [report] = reports
        assert not report["complete"]
        shares = report["accounts"]
    assert [*shares] == ["shop", "outlet"]
    assert [share["complete"] for share in shares.values()] == [True, False]
    assert shares["shop"]["error"] is None
    assert shares["outlet"]["error"].startswith("CleverTap answered HTTP 401")
    if out != "{account}.csv":
        # The refused one.
        assert shares["outlet"]["requests"] == 1
        requests = sum(share["requests"] for share in shares.values())
        assert reports[0]["requests"] == requests


@pytest.mark.parametrize("out", ["p.csv", "{account}.csv", "sync"])
def test_a_refused_request_is_not_resumed_unless_something_is_kept(
    env: dict[str, str], accounts: Accounts, tmp_path: Path, out: str
) -> None:
    command = ("export", "App Launch", *DAYS, "-o", out)
    if out == "sync":
        command = ("sync", "App Launch", "--since", "2026-01-01", "--timezone", "UTC", "-o", "p/")
    done = run(env, *command, *BOTH, cwd=tmp_path)
    assert done.code == 2
    assert "Invalid event" in done.stderr
    for word in ("mended", "next run", "To resume"):
        assert word not in done.stderr
    accounts.set("outlet", passcode="wrong")
    done = run(env, *command, *BOTH, cwd=tmp_path)
    # Its credentials can be mended.
    assert "To resume" in done.stderr


@pytest.mark.parametrize("out", ["p.csv", "{account}.csv", "crm.duckdb", "sync"])
def test_the_last_account_that_fails_leaves_none_to_go_on(
    env: dict[str, str], accounts: Accounts, tmp_path: Path, out: str
) -> None:
    for name in ("shop", "outlet"):
        accounts.set(name, passcode="wrong")
    command = ("export", "App Launched", *DAYS, "-o", out)
    if out == "sync":
        command = ("sync", "App Launched", "--since", "2026-01-01", "--timezone", "UTC", "-o", "p/")
    done = run(env, *command, *BOTH, cwd=tmp_path)
    assert done.code == 3
    assert done.stderr.count(" has failed, which does not stop the other accounts\n") == 1
    for name in ("shop", "outlet"):
        assert f"error: {name}: CleverTap answered HTTP 401" in done.stderr


def test_what_another_run_cannot_mend_is_not_resumed(
    env: dict[str, str], accounts: Accounts, tmp_path: Path, postgres: Server
) -> None:
    url = postgres.url("nightly")
    command = (*NIGHTLY, "--until", "2026-01-03", "-o", url)
    # The rows have nowhere to go until the table is mended.
    postgres.run("create table nightly (account int, person text)")
    done = run(env, *command, cwd=tmp_path)
    assert done.code != 0
    assert "shop, outlet have failed; once that is mended, the next run " in done.stderr
    postgres.run("drop table nightly")
    done = run(env, *command, cwd=tmp_path)
    assert done.code == 0, done.stderr
    # The rows are fetched before a row is refused.
    postgres.run("alter table nightly add constraint nobody check (account is null) not valid")
    alone = (*NIGHTLY[: -len(BOTH)], "--account", "shop", "--until", "2026-01-05", "-o", url)
    done = run(env, *alone, cwd=tmp_path)
    assert done.code == 4
    assert "once that is mended, run the same sync again to resume it" in done.stderr
    for shown, said in (
        (sync.help, "Rows that a constraint of the table refuses are a 4 each time, until"),
        (cli.help, "again to resume, unless the error says that it is refused again"),
    ):
        assert said in " ".join(str(shown).split())
    # Other arguments are for another table: the same command is refused whenever it is run.
    words = ["2026-01-02" if word == "2026-01-01" else word for word in command]
    done = run(env, *words, cwd=tmp_path)
    assert done.code == 2
    assert "Pass the arguments that it was begun with" in done.stderr
    assert done.stderr.rstrip().endswith("error: shop, outlet have failed")
    assert "resume" not in done.stderr


def test_status_of_an_output_of_each_account(
    env: dict[str, str], accounts: Accounts, tmp_path: Path
) -> None:
    done = run(env, "export", "App Launched", *DAYS, *BOTH, "-o", "{account}.csv", cwd=tmp_path)
    assert done.code == 0, done.stderr
    text = run(env, "status", "{account}.csv", cwd=tmp_path).stdout.decode()
    assert lines_of(text, "shop.csv") == ["shop.csv"]
    assert lines_of(text, "outlet.csv") == ["outlet.csv"]
    accounts.path.unlink()
    done = run(env, "status", "{account}.csv", cwd=tmp_path)
    assert done.code == 2
    assert "{account}" in done.stderr


@pytest.mark.slow
def test_two_syncs_killed_and_run_again(
    env: dict[str, str], accounts: Accounts, tmp_path: Path
) -> None:
    command = (*NIGHTLY, "--until", "2026-01-20", "--batch-size", "23", "--quiet", "-o")
    with held(accounts.emulators["shop"], passing=6, holding=9) as (gate, release):
        accounts.set("shop", base_url=gate["CLEVERTAP_BASE_URL"])
        killed(env, tmp_path, *command, "crm.duckdb")
        release()
        done = run(env, *command, "crm.duckdb", cwd=tmp_path)
        assert done.code == 0, done.stderr
        assert "unfinished" not in done.stderr
        done = run(env, *command, "whole.duckdb", cwd=tmp_path)
        assert done.code == 0, done.stderr
    assert rows_in(tmp_path / "crm.duckdb") == rows_in(tmp_path / "whole.duckdb")
    assert not (tmp_path / "crm.duckdb.export").exists()


def test_a_part_of_a_replaced_output_is_not_finished_alone(
    env: dict[str, str], accounts: Accounts, tmp_path: Path
) -> None:
    accounts.set("outlet", passcode="wrong")
    done = run(env, "export", "App Launched", *DAYS, *BOTH, "-o", "people.csv", cwd=tmp_path)
    assert done.code == 3
    shown = run(env, "status", cwd=tmp_path).stdout.decode()
    assert f" for shop ({accounts.account('shop')}): " in shown
    assert "replaced as a whole; run that export again" in shown
    assert "--finish-unfinished" not in shown
    lines = run(env, "status", "people.csv", "--json", cwd=tmp_path).stdout.splitlines()
    [left] = json.loads(lines[0])["unfinished"]
    assert left["account"] == accounts.account("shop")
    # The command that goes on with it is printed, and works.
    words = shlex.split(left["command"])
    words = words[words.index("export") :]
    assert words == ["export", "App Launched", *DAYS, "--out", "people.csv", *BOTH]
    assert f" {left['command']}\n" in shown
    # In a terminal as well: what is pasted of a broken one runs without its last options.
    for finish in ((), ("--finish-unfinished",)):
        with Terminal(env, "status", "people.csv", *finish, cwd=tmp_path) as terminal:
            terminal.expect(f"{left['command']}\n")
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    lines = run(env, "status", "../people.csv", "--json", cwd=folder).stdout.splitlines()
    [other] = json.loads(lines[0])["unfinished"]
    assert other["command"] == f"(cd {tmp_path} && {left['command']})"
    other = ("export", "Charged", *DAYS, "--account", "shop", "-o", "people.csv", "--quiet")
    done = run(env, *other, cwd=tmp_path)
    assert "an earlier export is unfinished" in done.stderr
    assert "--finish-unfinished" not in done.stderr
    (tmp_path / "people.csv").unlink()
    done = run(env, "status", "people.csv", "--finish-unfinished", cwd=tmp_path)
    assert done.code == 2
    assert "a part of an export of several accounts into one output (shop, outlet)" in done.stderr
    assert f"run that export again: {left['command']}\n" in done.stderr
    assert "Finishing" not in done.stderr
    assert not (tmp_path / "people.csv").exists()
    # That of one account alone takes over what is there.
    asked = accounts.emulators["shop"].stats.requests
    command = ("export", "App Launched", *DAYS, "--account", "shop", "-o", "people.csv")
    done = run(env, *command, cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert accounts.emulators["shop"].stats.requests == asked


def test_two_accounts_of_a_table_are_finished(
    env: dict[str, str], accounts: Accounts, tmp_path: Path
) -> None:
    command = ("export", "App Launched", *DAYS, *BOTH, "--batch-size", "23", "-o", "crm.duckdb")
    with held(accounts.emulators["shop"], passing=6, holding=9) as (gate, release):
        accounts.set("shop", base_url=gate["CLEVERTAP_BASE_URL"])
        killed(env, tmp_path, *command)
        release()
        done = run(env, "status", "crm.duckdb", "--finish-unfinished", "--quiet", cwd=tmp_path)
    assert done.code == 0, done.stderr
    # What is finished next is no news.
    assert "unfinished" not in done.stderr
    expected = {accounts.account(name): people(one) for name, one in accounts.emulators.items()}
    assert counts_in(tmp_path / "crm.duckdb") == expected
    # The manifest is of the last one.
    shown = run(env, "status", cwd=tmp_path).stdout.decode()
    written = re.search(r"written .* UTC, ([\d,]+) people in that run for (\S+),", shown)
    assert written is not None, shown
    assert int(written[1].replace(",", "")) == expected[written[2]]


def test_the_environment_is_ignored(
    env: dict[str, str], accounts: Accounts, tmp_path: Path
) -> None:
    other: dict[str, Any] = {"CLEVERTAP_ACCOUNT_ID": "X", "CLEVERTAP_PASSCODE": "wrong"}
    done = run({**env, **other}, "count", "App Launched", *DAYS, *BOTH)
    assert done.code == 0, done.stderr
    assert os.fsdecode(done.stdout).count("\n") == 2


def test_one_agent_of_several_accounts_is_reached_by_what_the_errors_say(
    env: dict[str, str], accounts: Accounts, tmp_path: Path
) -> None:
    agent: dict[str, Any] = {}
    for name in ("shop", "outlet"):
        table = accounts.tables[name]
        lines = {key: table.pop(key) for key in [*table] if key.startswith("alta_")}
        agent = agent or lines
    accounts.set("agent", **agent)
    who = ("who", "--identity", "nobody", "--account")
    # The account of the agent alone lacks the other service; another account can have both.
    done = run(env, *who, "agent")
    assert done.code == 3
    assert (
        "copy the alta_… lines of [accounts.agent] into [accounts.shop] and pass --account shop"
        in done.stderr
    )
    # Not --account NAME, as no account has both: the lines are what works.
    export = ("export", "App Launched", *DAYS, *BOTH, "--with-cdp", "-o", "joined.csv")
    for name in ("shop", "outlet"):
        done = run(env, *export, cwd=tmp_path)
        assert done.code == 3
        step = f"copy the alta_… lines of [accounts.agent] into [accounts.{name}], or run: "
        assert f"account {name!r} in " in done.stderr
        assert f"no Alta credentials; {step}altaprofiles login {name}\n" in done.stderr
        accounts.set(name, **agent)
    done = run(env, *export, cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert run(env, *who, "shop").code == 5
    # Then another account has both, and only the reader knows which is meant.
    accounts.set("web", account_id="AAA-AAA-AAAZ", passcode="p")
    done = run(env, *who, "web")
    assert (
        "; pass --account shop or --account outlet, or run: altaprofiles login web" in done.stderr
    )
    accounts.set("web", account_id="AAA-AAA-AAAZ")
    del accounts.tables["web"]["passcode"]
    accounts.write()
    done = run(env, *who, "web")
    assert "`passcode`" not in done.stderr
    assert done.stderr.rstrip().endswith("; run: altaprofiles login web")


def test_each_failure_of_a_command_with_json_is_an_object_on_stdout(
    env: dict[str, str], accounts: Accounts, tmp_path: Path
) -> None:
    """A scheduler reads stdout: its one object says of every exit what is on stderr."""
    accounts.set("outlet", passcode="wrong")
    (tmp_path / "ids.csv").write_text("id,id\n1,2\n")
    export = ("export", "App Launched", *DAYS, "-o", "p.csv")
    sync = ("sync", "App Launched", "--since", "2026-01-01", "--timezone", "UTC", "-o", "c.duckdb")
    outlet = ("--account", "outlet")
    failures = [
        (2, *export[:2], "--from", "today", "--to", "yesterday", *outlet, "-o", "p.csv"),
        (2, *export, "--account", "shop", "--everyone"),
        (2, "lookup", "ids.csv", "--by", "identity", "--column", "x", *outlet, "-o", "p.csv"),
        (2, "status", "nosuch.csv"),
        (2, *export, "--nosuch"),
        (2, *export, "--write", "bogus"),
        (2, *export[:-2]),
        (2, *export[:2], "--from", "2026-13-01", "--to", "2026-01-02", "-o", "p.csv"),
        (2, *export, "--retries", "x"),
        (2, "lookup", "nosuch.txt", "--by", "identity", "-o", "p.csv"),
        (2, "lookup"),
        (2, "--retries", "x", *export),
        (2, "status", *BOTH),
        (3, "count", "App Launched", *DAYS, *outlet),
        (3, *export, *outlet),
        (3, *sync, *outlet),
        (4, *export, "--account", "shop", "--max-time", "0.001"),
    ]
    failure: dict[str, Any] = {}
    for code, *words in failures:
        done = run(env, *map(str, words), "--json", cwd=tmp_path)
        assert done.code == code, (words, done.stderr)
        [line] = done.stdout.splitlines()
        failure = json.loads(line)
        assert failure["complete"] is False
        assert f"error: {failure['error']}\n" in done.stderr
        assert ("resume" in failure) == ("To resume" in done.stderr)
    assert "--max-time" in failure["error"]
    assert failure["people"] == 0
    # An account of several has an object of its own where it has an output, or a count, of its own.
    done = run(env, "count", "App Launched", *DAYS, *BOTH, "--json")
    shop, outlet_failed = map(json.loads, done.stdout.splitlines())
    assert shop["people"] == people(accounts.emulators["shop"])
    assert [*outlet_failed] == ["account", "complete", "error"]
    done = run(env, *export, *BOTH, "--json", cwd=tmp_path)
    failure = json.loads(done.stdout)
    assert failure["error"].startswith("p.csv is written once all accounts are complete, and")
    assert done.stderr.endswith(f"To resume: {failure['resume']}\n")
