"""`altaprofiles status`: what it prints, finishes and discards, in processes of their own."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from click.shell_completion import ShellComplete

from altaprofiles.cli import cli
from altaprofiles.emulator import Emulator

from ..support.disks import filled, mounted
from ..support.forks import start, wait_until_stopped
from ..support.jobs import journal
from ..support.outputs import folder_of
from ..support.postgres import PASSWORD, Server
from ..support.terminals import (
    COMMAND,
    Done,
    Terminal,
    emulated,
    environment,
    held,
    longest,
    run,
    stopping,
)
from ..support.waiting import wait_until

NIGHT = ("export", "App Launched", "--batch-size", "23", "--quiet")
MONDAY = ("--from", "2026-01-01", "--to", "2026-01-31")
TUESDAY = ("--from", "2026-01-02", "--to", "2026-01-31")


@pytest.fixture(scope="module")
def small() -> Iterator[Emulator]:
    with emulated(people=150, seed=3) as emulator:
        yield emulator


@pytest.fixture
def env(small: Emulator, tmp_path: Path) -> dict[str, str]:
    return environment(tmp_path, small.environment)


def killed(env: dict[str, str], folder: Path, *arguments: str) -> None:
    """Run an export until a page is on disk, and kill it."""

    def kept() -> int:
        """Return the number of pages on disk."""
        pages = "select coalesce(sum(pages), 0) from chains"
        return sum(count for path in folder.glob("*.export/*") for [count] in journal(path, pages))

    before = kept()
    devnull = subprocess.DEVNULL
    command = [*COMMAND, *arguments]
    with start(command, env=env, cwd=folder, stdout=devnull, stderr=devnull) as process:
        while kept() <= before:
            assert process.poll() is None
            time.sleep(0.02)
        process.kill()
        assert process.wait() == -signal.SIGKILL


def states(env: dict[str, str], folder: Path, *arguments: str) -> list[dict[str, Any]]:
    done = run(env, "status", *arguments, "--json", cwd=folder)
    assert done.code == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_nothing_is_there(env: dict[str, str], tmp_path: Path) -> None:
    done = run(env, "status", cwd=tmp_path)
    assert (done.code, done.stdout) == (0, b"")
    assert "No export has written anything in this folder; for a table" in done.stderr
    done = run(env, "status", "people.csv", "--finish-unfinished", cwd=tmp_path)
    assert (done.code, done.stdout) == (0, b"")
    assert "Nothing is unfinished there." in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("out", ["people.ndjson", "crm.duckdb", "out of order.csv"])
def test_the_night_after_one_that_was_killed(
    env: dict[str, str], small: Emulator, tmp_path: Path, out: str
) -> None:
    with held(small, passing=2, holding=9) as (variables, let_pass):
        env = env | variables
        killed(env, tmp_path, *NIGHT, *MONDAY, "-o", out)
        let_pass()
        done = run(env, *NIGHT, *TUESDAY, "-o", out, cwd=tmp_path)
        assert (done.code, done.stdout) == (0, os.fsencode(out) + b"\n")
        assert "unfinished" in done.stderr
        assert "from 20260101 to 20260131" in done.stderr
        # It is told what was written, what is left, and what goes on with it.
        [state] = states(env, tmp_path)
        assert state["output"] == out
        assert state["success"]["complete"]
        assert state["success"]["people"] > 0
        assert state["success"]["bytes"] == (tmp_path / out).stat().st_size
        [left] = state["unfinished"]
        assert left["kept"] > 0
        assert left["size"] > 0
        assert not left["stale"]
        assert left["began"] < left["cursors_until"]
        assert states(env, tmp_path, out) == [state]
        shown = run(env, "status", cwd=tmp_path)
        assert shown.code == 0
        text = shown.stdout.decode()
        assert text.startswith(f"{out}\n  written     20")
        assert f"{left['kept']:,} records on disk" in text
        assert "its cursors live until" in text
        assert text.endswith(f" {left['command']}\n")
        words = shlex.split(left["command"])
        assert words == ["altaprofiles", "status", out, "--finish-unfinished"]
        # That command goes on with it, and does not ask for what is on disk.
        asked = small.stats.requests["page"]
        done = run(env, *words[1:], "--yes", cwd=tmp_path)
        assert (done.code, done.stdout) == (0, os.fsencode(out) + b"\n")
        assert f"{out} was written at" in done.stderr
        whole = run(env, *NIGHT, *MONDAY, "-o", f"whole.{out[-6:]}", "--json", cwd=tmp_path)
        report = json.loads(whole.stdout)
        fetched = small.stats.requests["page"] - asked - report["pages"]
        assert fetched < report["pages"]
        [state] = states(env, tmp_path, out)
        assert state["unfinished"] == []
        assert state["success"]["people"] == report["people"]
        assert not (tmp_path / f"{out}.export").exists()


@pytest.mark.slow
@pytest.mark.parametrize("asked", ["url", "option"])
@pytest.mark.parametrize("exported", ["url", "option"])
def test_the_command_that_finishes_names_a_table_once(
    env: dict[str, str],
    small: Emulator,
    tmp_path: Path,
    postgres: Server,
    exported: str,
    asked: str,
) -> None:
    postgres.run("CREATE SCHEMA crm")
    named = {
        "url": (postgres.url("crm.people"),),
        "option": (postgres.url(), "--table", "crm.people"),
    }
    with held(small, passing=2, holding=9) as (variables, let_pass):
        env = env | variables | {"PGPASSWORD": PASSWORD}
        killed(env, tmp_path, *NIGHT, *MONDAY, "-o", *named[exported])
        let_pass()
        [state] = states(env, tmp_path, *named[asked])
        # Without the output the same export is listed.
        [listed] = states(env, tmp_path)
        commands = [shlex.split(one["unfinished"][0]["command"]) for one in (listed, state)]
        for words in commands:
            assert words[-1] == "--finish-unfinished"
            [found] = states(env, tmp_path, *words[2:-1])
            assert found["unfinished"]
        done = run(env, *commands[-1][1:], cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert postgres.rows("SELECT count(*) > 0 FROM crm.people") == [(True,)]
    [state] = states(env, tmp_path, *named[asked])
    assert state["unfinished"] == []


@pytest.mark.parametrize("synced", ["url", "option"])
def test_the_days_of_a_table_are_read_however_it_is_named(
    env: dict[str, str], small: Emulator, tmp_path: Path, postgres: Server, synced: str
) -> None:
    postgres.run("CREATE SCHEMA crm")
    named = {
        "url": (postgres.url("crm.people"),),
        "option": (postgres.url(), "--table", "crm.people"),
    }
    env = env | small.environment
    nights = ("--since", "2026-01-01", "--until", "2026-01-03")
    done = run(env, "sync", "App Launched", *nights, "-o", *named[synced], cwd=tmp_path)
    assert done.code == 0, done.stderr
    for asked, words in named.items():
        [state] = states(env, tmp_path, *words)
        assert [*state["synced"].values()] == ["2026-01-03"]
        assert state["synced_from"] == "output"
        heading = run(env, "status", *words, cwd=tmp_path).stdout.decode().splitlines()[0]
        assert heading == state["output"] + ("" if len(words) == 1 else ", table crm.people")
        assert heading.count("crm.people") == 1
        assert state["table"] == ("crm.people" if "option" in (synced, asked) else None)


def test_a_reader_is_told_of_the_right_to_read_only(
    env: dict[str, str], small: Emulator, tmp_path: Path, postgres: Server
) -> None:
    to = postgres.url("people")
    env = env | small.environment
    nights = ("--since", "2026-01-01", "--until", "2026-01-03")
    assert run(env, "sync", "App Launched", *nights, "-o", to, cwd=tmp_path).code == 0
    (folder := tmp_path / "theirs").mkdir()
    reader = f"reader_of_{postgres.database}"
    postgres.run(f"CREATE ROLE {reader} LOGIN PASSWORD '{PASSWORD}'")
    try:
        read = postgres.url("people", user=reader)
        shown = run(env, "status", read, cwd=folder).stdout.decode()
    finally:
        postgres.run(f"DROP ROLE {reader}")
    assert f"GRANT SELECT ON public.altaprofiles_sync TO {reader}" in " ".join(shown.split())
    assert "DELETE" not in shown


@pytest.mark.slow
def test_what_is_newer_is_replaced_after_a_yes_only(
    env: dict[str, str], small: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    killed_at_the_end(env, tmp_path, *NIGHT, *MONDAY, "-o", "p.csv")
    done = run(env, *NIGHT, *TUESDAY, "-o", "p.csv", cwd=tmp_path)
    assert "finishes it over this one" in done.stderr
    newer = (tmp_path / "p.csv").read_bytes()
    [state] = states(env, tmp_path, "p.csv")
    [left] = state["unfinished"]
    assert left["replaces_newer"]
    shown = run(env, "status", "p.csv", cwd=tmp_path).stdout.decode()
    assert "it is older than what is written" in shown
    assert "status p.csv --discard-unfinished" in shown
    finish = ("status", "p.csv", "--finish-unfinished")
    done = run(env, *finish, cwd=tmp_path)
    assert (done.code, done.stdout) == (2, b"")
    assert "p.csv was written at" in done.stderr
    assert "status p.csv --discard-unfinished" in done.stderr
    assert "pass --yes" in done.stderr
    assert "Finishing" not in done.stderr
    assert states(env, tmp_path, "p.csv") == [state]
    with Terminal(env, *finish) as terminal:
        terminal.expect("Replace it?")
        terminal.type("n")
        assert terminal.ended().code == 0
    assert states(env, tmp_path, "p.csv") == [state]
    assert (tmp_path / "p.csv").read_bytes() == newer
    with Terminal(env, *finish) as terminal:
        terminal.expect("Replace it?")
        terminal.type("y")
        assert terminal.ended().code == 0
    [state] = states(env, tmp_path, "p.csv")
    assert state["unfinished"] == []
    manifest = json.loads((tmp_path / "p.csv.manifest.json").read_bytes())
    assert manifest["plan"]["start"] == 20260101


@pytest.mark.slow
@pytest.mark.parametrize("of_another", [True, False], ids=["account", "columns"])
def test_the_same_days_of_others_are_replaced_after_a_yes_only(
    env: dict[str, str], small: Emulator, tmp_path: Path, of_another: bool
) -> None:
    killed_at_the_end(env, tmp_path, *NIGHT, *MONDAY, "-o", "p.csv")
    with emulated(people=20, seed=4) as outlet:
        others = environment(tmp_path, outlet.environment) if of_another else env
        columns = () if of_another else ("--no-profile",)
        assert run(others, *NIGHT, *MONDAY, *columns, "-o", "p.csv", cwd=tmp_path).code == 0
    newer = (tmp_path / "p.csv").read_bytes()
    done = run(env, "status", "p.csv", "--finish-unfinished", cwd=tmp_path)
    assert (done.code, done.stdout) == (2, b"")
    assert "pass --yes" in done.stderr
    assert (tmp_path / "p.csv").read_bytes() == newer


@pytest.mark.slow
def test_what_adds_rows_is_finished_without_a_question(
    env: dict[str, str], small: Emulator, tmp_path: Path
) -> None:
    with held(small, passing=2, holding=9) as (variables, let_pass):
        night = (*NIGHT, "--write", "append", "-o", "crm.duckdb")
        killed(env | variables, tmp_path, *night, *MONDAY)
        let_pass()
        done = run(env, *night, *TUESDAY, cwd=tmp_path)
        assert done.code == 0, done.stderr
        [state] = states(env | variables, tmp_path, "crm.duckdb")
        [left] = state["unfinished"]
        assert not left["replaces_newer"]
        finish = ("status", "crm.duckdb", "--finish-unfinished")
        done = run(env | variables, *finish, cwd=tmp_path)
        assert done.code == 0, done.stderr


@pytest.mark.parametrize("out", ["p.csv", "p.ndjson.gz", "crm.duckdb", "people/"])
def test_an_output_that_is_gone(env: dict[str, str], tmp_path: Path, out: str) -> None:
    done = run(env, *NIGHT, *MONDAY, "-o", out, cwd=tmp_path)
    assert done.code == 0, done.stderr
    [state] = states(env, tmp_path)
    assert state["success"]["present"]
    assert "gone" not in run(env, "status", cwd=tmp_path).stdout.decode()
    (tmp_path / out.rstrip("/")).rename(tmp_path / "elsewhere")
    noun = "folder" if out.endswith("/") else "file"
    for arguments in ((), (out,)):
        text = run(env, "status", *arguments, cwd=tmp_path).stdout.decode()
        assert f"  gone        the {noun} has been removed or renamed since\n" in text
        [state] = states(env, tmp_path, *arguments)
        assert (state["success"]["present"], state["success"]["changed"]) == (False, None)


@pytest.mark.parametrize("command", ["export", "sync"])
@pytest.mark.parametrize("kind", ["duckdb", "postgres"])
def test_a_table_that_is_gone(
    env: dict[str, str], tmp_path: Path, postgres: Server, kind: str, command: str
) -> None:
    to = "crm.duckdb" if kind == "duckdb" else postgres.url()
    night = [*NIGHT, *MONDAY]
    if command == "sync":
        night = ["sync", "App Launched", "--since", "2026-01-05", "--until", "2026-01-06"]
    done = run(env, *night, "-o", to, cwd=tmp_path)
    assert done.code == 0, done.stderr
    [state] = states(env, tmp_path, to)
    assert state["success"]["present"] is True
    assert "gone" not in run(env, "status", to, cwd=tmp_path).stdout.decode()
    if kind == "postgres":
        postgres.run("DROP TABLE profiles")
    else:
        with duckdb.connect(tmp_path / to) as connection:
            connection.execute("DROP TABLE profiles")
    text = run(env, "status", to, cwd=tmp_path).stdout.decode()
    assert "  gone        the table is not there\n" in text
    [state] = states(env, tmp_path, to)
    assert state["success"]["present"] is False


def test_a_file_that_has_changed(env: dict[str, str], tmp_path: Path) -> None:
    out = tmp_path / "p.csv"
    done = run(env, *NIGHT, *MONDAY, "-o", "p.csv", cwd=tmp_path)
    assert done.code == 0, done.stderr
    before = out.stat().st_size
    assert "changed" not in run(env, "status", cwd=tmp_path).stdout.decode()
    assert not states(env, tmp_path)[0]["success"]["changed"]
    with out.open("a") as file:
        file.write("edited by hand\n")
    text = run(env, "status", "p.csv", cwd=tmp_path).stdout.decode()
    assert f"  changed     it has {before + 15:,} bytes now, and had {before:,}\n" in text
    assert states(env, tmp_path, "p.csv")[0]["success"]["changed"]


def test_another_table_is_no_change_of_a_database(env: dict[str, str], tmp_path: Path) -> None:
    for table in ("one", "two"):
        options = ("-o", "crm.duckdb", "--table", table)
        done = run(env, *NIGHT, *MONDAY, *options, cwd=tmp_path)
        assert done.code == 0, done.stderr
    for state in states(env, tmp_path):
        assert (state["success"]["present"], state["success"]["changed"]) == (True, None)


@pytest.mark.slow
def test_what_is_gone_is_replaced_without_a_question(
    env: dict[str, str], small: Emulator, tmp_path: Path
) -> None:
    with held(small, passing=2, holding=9) as (variables, let_pass):
        killed(env | variables, tmp_path, *NIGHT, *MONDAY, "-o", "p.csv")
        let_pass()
        done = run(env, *NIGHT, *TUESDAY, "-o", "p.csv", cwd=tmp_path)
        assert done.code == 0, done.stderr
        assert states(env, tmp_path)[0]["unfinished"][0]["replaces_newer"]
        (tmp_path / "p.csv").unlink()
        assert not states(env, tmp_path)[0]["unfinished"][0]["replaces_newer"]
        done = run(env | variables, "status", "p.csv", "--finish-unfinished", cwd=tmp_path)
        assert (done.code, done.stdout) == (0, b"p.csv\n"), done.stderr


def killed_at_the_end(env: dict[str, str], folder: Path, *arguments: str) -> None:
    """Run an export until everything is on disk, and kill it before its output is."""
    command = [*stopping("os.rename", "p.csv.partial"), *arguments]
    with start(command, env=env, cwd=folder, stdout=subprocess.DEVNULL) as process:
        assert wait_until_stopped(process)
        process.kill()
        assert process.wait() == -signal.SIGKILL


@pytest.mark.slow
def test_all_are_finished_oldest_first(
    env: dict[str, str], small: Emulator, tmp_path: Path
) -> None:
    (tmp_path / "keys.txt").write_text("".join(f"{key}\n" for key in keys_of(small)))
    lookup = ("lookup", "keys.txt", "--by", "identity", "--quiet", "--flatten", "City")
    killed_at_the_end(env, tmp_path, *NIGHT, *MONDAY, "-o", "p.csv", "--no-distinct")
    killed_at_the_end(env, tmp_path, *lookup, "-o", "p.csv", "--bom")
    killed_at_the_end(env, tmp_path, *NIGHT, *TUESDAY, "-o", "p.csv", "--with-cdp")
    [state] = states(env, tmp_path, "p.csv")
    joined = state["unfinished"][-1]
    assert joined["joined"] == joined["joins"] > 0
    assert joined["subject"].endswith(", joined with CDP users by identity")
    assert [one["subject"].partition(" from ")[0] for one in state["unfinished"]] == [
        "the export of 'App Launched'",
        f"the lookup of {len(keys_of(small))} keys by identity",
        "the export of 'App Launched'",
    ]
    asked = small.stats.requests
    done = run(env, "status", "p.csv", "--finish-unfinished", "--json", cwd=tmp_path)
    assert done.code == 0, done.stderr
    first, second, third = (json.loads(line) for line in done.stdout.splitlines())
    replaced = [line for line in done.stderr.splitlines() if "replaces what has just" in line]
    assert [line.split()[:3] for line in replaced] == [
        ["warning:", "the", "lookup"],
        ["warning:", "the", "export"],
    ]
    assert first["people"] == first["records"] >= third["people"]
    assert second["found"] == len(keys_of(small))
    assert third["chains"][0]["start"] == 20260102
    assert third["matched"] + third["unmatched"] == third["people"] >= third["matched"] > 0
    assert small.stats.requests == asked
    # The newest is the last to be written.
    assert json.loads((tmp_path / "p.csv.manifest.json").read_bytes())["plan"]["start"] == 20260102
    assert not (tmp_path / "p.csv.export").exists()


@pytest.mark.slow
def test_one_that_cannot_be_finished_does_not_hold_up_the_others(
    env: dict[str, str], small: Emulator, tmp_path: Path
) -> None:
    # At another address, as of another region.
    other = env | {"CLEVERTAP_BASE_URL": small.url.replace("127.0.0.1", "localhost")}
    killed_at_the_end(other, tmp_path, *NIGHT, *MONDAY, "-o", "p.csv")
    killed_at_the_end(env, tmp_path, *NIGHT, *TUESDAY, "-o", "p.csv")
    done = run(env, "status", "p.csv", "--finish-unfinished", cwd=tmp_path)
    assert (done.code, done.stdout) == (2, b"p.csv\n")
    assert "is an export of the account" in done.stderr
    assert "http://localhost" in done.stderr
    [state] = states(env, tmp_path, "p.csv")
    [left] = state["unfinished"]
    assert "from 20260101" in left["subject"]
    done = run(other, "status", "p.csv", "--finish-unfinished", "--yes", cwd=tmp_path)
    assert (done.code, done.stdout) == (0, b"p.csv\n")


def keys_of(emulator: Emulator) -> list[str]:
    everyone = map(emulator.population.identity, range(len(emulator.population)))
    return [key for key in everyone if key is not None]


@pytest.mark.slow
def test_discarded(
    env: dict[str, str], small: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with held(small, passing=2, holding=99) as (variables, _):
        killed(env | variables, tmp_path, *NIGHT, *MONDAY, "-o", "p.csv")
    options = ("status", "p.csv", "--discard-unfinished")
    # Not without an answer.
    done = run(env, *options, cwd=tmp_path)
    assert done.code == 2
    assert "--yes" in done.stderr
    # IPython gives a cell's command a terminal on which nobody can type.
    with Terminal({**env, "JPY_PARENT_PID": "1"}, *options) as terminal:
        assert terminal.ended().code == 2
    assert "a cell of a notebook takes no answers; to remove this for ever, pass --yes" in " ".join(
        terminal.text.split()
    )
    for answer, left in (("n", 1), ("y", 0)):
        with Terminal(env, *options) as terminal:
            terminal.expect("Remove this for ever?")
            terminal.type(answer)
            terminal.ended()
        assert [len(state["unfinished"]) for state in states(env, tmp_path)] == [1] * left
    assert not (tmp_path / "p.csv.export").exists()
    with held(small, passing=2, holding=99) as (variables, _):
        killed(env | variables, tmp_path, *NIGHT, *MONDAY, "-o", "p.csv")
    done = run(env, *options, "--yes", cwd=tmp_path)
    assert (done.code, done.stdout) == (0, b"")
    assert "the export of 'App Launched' from 20260101 to 20260131" in done.stderr
    assert not (tmp_path / "p.csv.export").exists()


@pytest.mark.slow
def test_on_a_full_disk(env: dict[str, str], small: Emulator, tmp_path: Path) -> None:
    """All is shown, finishing it says how it can go on, and discarding it makes room."""
    (disk := tmp_path / "disk").mkdir()
    with (
        mounted("-t", "tmpfs", "-o", "size=2m", "none", at=disk),
        held(small, passing=2, holding=99) as (variables, _),
    ):
        env |= variables
        killed(env, disk, *NIGHT, *MONDAY, "-o", "p.csv")
        with filled(disk):
            [state] = states(env, disk)
            [left] = state["unfinished"]
            assert left["fault"] is None
            assert left["kept"] > 0
            done = run(env, "status", "p.csv", "--finish-unfinished", cwd=disk)
            assert done.code == 4
            full = f"No space left on device: '{left['folder']}/journal.sqlite'"
            assert full in done.stderr
            assert f"free some space on the disk of {disk}, and" in done.stderr
            assert re.search("To resume: .* status p.csv --finish-unfinished", done.stderr)
            done = run(env, "status", "p.csv", "--discard-unfinished", "--yes", cwd=disk)
            assert done.code == 0, done.stderr
            assert not (disk / "p.csv.export").exists(), (done.stderr, list(disk.rglob("*")))


@pytest.mark.slow
def test_a_running_one_is_left_alone(env: dict[str, str], small: Emulator, tmp_path: Path) -> None:
    with held(small, passing=2, holding=99) as (variables, let_pass):
        env = env | variables
        command = [*COMMAND, *NIGHT, *MONDAY, "-o", "p.csv"]
        with start(command, env=env, cwd=tmp_path, stdout=subprocess.PIPE) as process:
            while not any(p.stat().st_size for p in tmp_path.glob("*.export/*/*.spool.ndjson")):
                time.sleep(0.02)
            [state] = states(env, tmp_path)
            assert state["running"]
            assert run(env, "status", cwd=tmp_path).stdout == b"p.csv\n  running\n"
            for option in ("--finish-unfinished", "--discard-unfinished"):
                done = run(env, "status", "p.csv", option, "--yes", cwd=tmp_path)
                assert done.code == 4
                assert "a run works on p.csv" in done.stderr
            let_pass()
            assert process.wait() == 0
    [state] = states(env, tmp_path)
    assert not state["running"]
    assert state["success"]["complete"]


@pytest.mark.parametrize("option", ["--finish-unfinished", "--discard-unfinished", "--table=t"])
def test_what_needs_an_output(env: dict[str, str], tmp_path: Path, option: str) -> None:
    done = run(env, "status", option, cwd=tmp_path)
    assert done.code == 2
    assert f"{option.partition('=')[0]} needs the output" in done.stderr


def test_completion_knows_the_outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    completion = ShellComplete(cli, {}, "altaprofiles", "_ALTAPROFILES_COMPLETE")
    manifest = {
        "output": "p.csv",
        "format": "csv",
        "complete": True,
        "written": "2026-01-01T00:00:00+00:00",
        "altaprofiles": "1",
        "options": {},
    }
    (tmp_path / "p.csv.manifest.json").write_text(json.dumps(manifest))
    found = completion.get_completions(["status"], "p")
    assert [item.value for item in found] == ["p.csv"]
    assert completion.get_completions(["status"], "x")[0].type == "file"


def test_a_file_that_cannot_be_read_is_a_failure_unless_its_manifest_tells_of_it(
    env: dict[str, str], tmp_path: Path
) -> None:
    assert run(env, *NIGHT, *MONDAY, "-o", "people.duckdb", cwd=tmp_path).code == 0
    (tmp_path / "people.duckdb").write_bytes(b"not a database")
    done = run(env, "status", "people.duckdb", cwd=tmp_path)
    assert (done.code, b"  written " in done.stdout) == (0, True)
    (tmp_path / "people.duckdb.manifest.json").unlink()
    done = run(env, "status", "people.duckdb", cwd=tmp_path)
    assert done.code == 1
    assert b"  synced      unknown, as the table cannot be read: " in done.stdout


def test_a_password_is_not_printed(env: dict[str, str], tmp_path: Path) -> None:
    url = "postgresql://me:s3cret@127.0.0.1:1/crm/people"
    done: Done = run(env, "status", url, cwd=tmp_path)
    assert done.code == 1
    assert "s3cret" not in done.stderr + done.stdout.decode()


def test_lines_are_broken_at_words(
    env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The words of a driver hold line breaks of their own."""
    url = "postgresql://me@127.0.0.1:1/crm/people"
    manifest = {
        "output": "postgresql://127.0.0.1:1/crm/people",
        "format": "postgres",
        "complete": True,
        "people": 1234567,
        "written": "2026-01-31T02:30:00+00:00",
        "altaprofiles": "1",
        "options": {"sync": {"account": "TEST-ACCOUNT-ID", "through": "2026-01-30"}},
    }
    monkeypatch.chdir(tmp_path)
    (tmp_path / f"{folder_of(url).stem}.manifest.json").write_text(json.dumps(manifest))
    whole = run(env, "status", url, cwd=tmp_path).stdout.decode()
    assert "1,234,567 people" in whole
    assert "\\n" not in whole
    with Terminal(env, "status", url, columns=60, cwd=tmp_path) as terminal:
        assert terminal.ended().code == 0
    assert longest(whole) > 60 >= longest(terminal.text)
    assert terminal.text.split() == whole.split()


def test_an_output_that_is_none(env: dict[str, str], tmp_path: Path) -> None:
    done = run(env, "status", "/", "--json", cwd=tmp_path)
    assert (done.code, done.stdout) == (0, b"")
    assert done.stderr == "No export has written / yet.\n"
    done = run(env, *NIGHT, *MONDAY, "-o", "/", cwd=tmp_path)
    assert done.code == 2
    assert done.stderr.startswith("error: --out: ")


BEGUN = "One was begun, and nothing that it fetched is on disk."


@pytest.mark.parametrize(
    ("out", "options_of_export"), [("a.csv", ()), ("a.duckdb", ("--table", "buyers"))]
)
def test_an_export_that_was_ended_before_it_brought_anything(
    env: dict[str, str], tmp_path: Path, out: str, options_of_export: tuple[str, ...]
) -> None:
    """Nothing is wrong with the path, and nothing is kept that could be resumed."""
    with emulated(people=20, think=3600) as silent:
        env |= silent.environment
        command = subprocess.Popen(
            [*COMMAND, *NIGHT, *MONDAY, "-o", out, *options_of_export], env=env, cwd=tmp_path
        )
        try:
            wait_until(lambda: silent.stats.in_flight["clevertap"])
        finally:
            command.kill()
            command.wait()
    for options in ((), ("--json",)):
        done = run(env, "status", out, *options, cwd=tmp_path)
        assert (done.code, done.stdout) == (0, b"")
        assert done.stderr == f"No export has written {out} yet. {BEGUN}\n"
    done = run(env, "status", out, *options_of_export, "--finish-unfinished", cwd=tmp_path)
    assert (done.code, done.stderr) == (0, "Nothing is unfinished there.\n")


def test_a_path_that_leads_nowhere(env: dict[str, str], tmp_path: Path) -> None:
    """A typing error, unless there is only nothing left to do for it."""
    spool = "or pass the --spool that its exports have"
    words = "FILE|URL: there is no file 'nosuch', and nothing is unfinished for it; check the path"
    for options in ((), ("--json",)):
        done = run(env, "status", "nosuch", *options, cwd=tmp_path)
        assert done.code == 2
        assert done.stderr == f"error: {words}, {spool}\n"
        failure = {"complete": False, "error": f"{words}, {spool}"} if options else None
        assert json.loads(done.stdout or "null") == failure
    done = run(env, "status", "nosuch", "--spool", ".", cwd=tmp_path)
    assert (done.code, done.stderr) == (2, f"error: {words}\n")
    for option in ("--finish-unfinished", "--discard-unfinished"):
        done = run(env, "status", "nosuch", option, cwd=tmp_path)
        assert (done.code, done.stdout) == (0, b"")
        assert done.stderr == f"warning: {words}, {spool}\nNothing is unfinished there.\n"
    url = "postgresql:/owner:SEKRET@h/db/t"
    done = run(env, "status", url, cwd=tmp_path)
    assert done.code == 2
    assert "write a URL as postgresql://user@host/database/table" in done.stderr
    assert "SEKRET" not in done.stderr
    done = run(env, *NIGHT, *MONDAY, "-o", url, cwd=tmp_path)
    assert done.code == 2
    assert "SEKRET" not in done.stderr


def test_a_folder_of_outputs_lists_them(
    env: dict[str, str], small: Emulator, tmp_path: Path
) -> None:
    (tmp_path / "reports").mkdir()
    for out in ("reports/a.ndjson", "reports/b.duckdb"):
        done = run(env, *NIGHT, *MONDAY, "-o", out, cwd=tmp_path)
        assert done.code == 0, done.stderr
    for folder, name in {"reports": "reports", "reports/": "reports", ".": ""}.items():
        cwd = tmp_path / "reports" if folder == "." else tmp_path
        done = run(env, "status", folder, "--json", cwd=cwd)
        names = [json.loads(line)["output"] for line in done.stdout.splitlines()]
        assert names == [str(Path(name, one)) for one in ("a.ndjson", "b.duckdb")]
    done = run(env, "status", "reports", cwd=tmp_path)
    # Only the second may have people of earlier runs.
    whole, added = (line for line in done.stdout.decode().splitlines() if " people" in line)
    assert (" people in that run" in whole, " people in that run" in added) == (False, True)
    done = run(env, "status", "reports", "--discard-unfinished", cwd=tmp_path)
    assert done.code == 2
    assert "--discard-unfinished needs the output, and FILE is a folder" in done.stderr


def test_a_folder_lists_what_is_unfinished_in_it(env: dict[str, str], tmp_path: Path) -> None:
    (reports := tmp_path / "reports").mkdir()
    killed(env, reports, *NIGHT, *MONDAY, "-o", "a.ndjson")
    for folder, name in {"reports": "reports", str(reports): "reports", ".": ""}.items():
        cwd = reports if folder == "." else tmp_path
        done = run(env, "status", folder, "--json", cwd=cwd)
        assert done.code == 0, done.stderr
        [state] = map(json.loads, done.stdout.splitlines())
        assert state["output"] == str(Path(name, "a.ndjson"))
        assert len(state["unfinished"]) == 1


def test_a_table_that_is_not_there_is_named(
    env: dict[str, str], small: Emulator, tmp_path: Path
) -> None:
    for out in ("crm.duckdb", "q3.parquet"):
        done = run(env, *NIGHT, *MONDAY, "-o", out, cwd=tmp_path)
        assert done.code == 0, done.stderr
    done = run(env, "status", "crm.duckdb", "--table", "nope", cwd=tmp_path)
    assert (done.code, done.stdout) == (0, b"")
    assert done.stderr == "No export has written the table nope of crm.duckdb yet.\n"
    for out in ("q3.parquet", "s3://bucket/q3.parquet", "folder/"):
        done = run(env, "status", out, "--table", "x", cwd=tmp_path)
        assert (done.code, done.stdout) == (2, b"")
        assert "--table: applies to duckdb and postgres only" in done.stderr


def test_a_mistyped_url_of_keys_is_not_shown(env: dict[str, str], tmp_path: Path) -> None:
    keys = "postgresql://owner:SEKRET@h/db/t"
    done = run(env, "lookup", keys, "--by", "identity", "-o", "p.csv", cwd=tmp_path)
    assert done.code == 2
    assert "does not exist" in done.stderr
    assert "from a database, pipe them in: psql … | altaprofiles lookup -" in done.stderr
    assert "SEKRET" not in done.stderr
