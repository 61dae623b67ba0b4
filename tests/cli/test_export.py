"""`altaprofiles export` and `lookup`, on terminals and in scripts."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from base64 import b64decode, b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import click
import msgspec
import psycopg
import pytest

from altaprofiles import ExportReport
from altaprofiles.cli import cli
from altaprofiles.cli.app import App
from altaprofiles.cli.commands.export import export
from altaprofiles.cli.resumption import command_line, resuming_line
from altaprofiles.emulator import Emulator
from altaprofiles.export.sinks.resolve import FORMATS
from altaprofiles.wire.query import BATCH_SIZE

from ..support.forks import start, wait_until_stopped
from ..support.jobs import journal
from ..support.postgres import PASSWORD, Server
from ..support.tasks import PATIENCE
from ..support.terminals import (
    COMMAND,
    LAST_STEP,
    Done,
    Terminal,
    emulated,
    environment,
    held,
    longest,
    resuming_words,
    run,
    stopping,
    unread,
)
from ..support.waiting import wait_until

EVENTS = ("App Launched", "Charged")
DAYS = ("--from", "2026-01-01", "--to", "2026-01-31")
FAULTS = {"not_ready": 0.05, "reset": 0.03, "garbled": 0.03}
WORDS = ("export", *EVENTS, *DAYS, "--count", "--batch-size", "230")


@pytest.fixture(scope="module")
def small() -> Iterator[Emulator]:
    with emulated(people=600, seed=3, faults=FAULTS) as emulator:
        yield emulator


@pytest.fixture
def env(small: Emulator, tmp_path: Path) -> dict[str, str]:
    return environment(tmp_path, small.environment)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def command_in(text: str) -> list[str]:
    """Return the arguments of the printed command for resuming."""
    words = resuming_words(text)
    words = words[words.index(sys.executable) :]
    assert words[:3] == [sys.executable, "-m", "altaprofiles"]
    return words[3:]


# ------------------------------------------------------------------------------ through pipes


def test_an_export_through_pipes(env: dict[str, str], tmp_path: Path) -> None:
    out = tmp_path / "people.ndjson"
    done = run(env, *WORDS, "-o", str(out))
    assert done.code == 0
    assert done.stdout == os.fsencode(out) + b"\n"
    people = out.read_bytes().count(b"\n")
    lines = done.stderr.splitlines()
    # One line at the start, one when it finishes, and the summary.
    assert re.fullmatch(
        r"reading: 0 records, 0 a second, \d of 3 slots, 0 retries, 0:00:00", lines[0]
    )
    assert [line.partition(":")[0] for line in lines[:2]] == ["reading", "finishing"]
    told = dict(re.split(r" {2,}", line, maxsplit=1) for line in lines[2:])
    assert told["days"] == "2026-01-01 to 2026-01-31"
    assert told["people"] == f"{people:,}"
    assert told["SHA-256"] == digest(out)
    assert told["manifest"] == f"{out}.manifest.json"
    counted = [line for line in lines if line.startswith("counted")]
    for event, line in zip(EVENTS, counted, strict=True):
        number = run(env, "count", event, *DAYS).stdout
        assert line.split("  ")[-1].strip() == f"{event}: {int(number):,} people by the service"


def test_counted_are_people_over_all_days(
    env: dict[str, str], small: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person who did an event in two windows is counted once."""
    counts = {event: int(run(env, "count", event, *DAYS).stdout) for event in EVENTS}
    active = small.population.active
    assert counts == {event: len(active(event, 20260101, 20260131)) for event in EVENTS}
    done = run(env, *WORDS, "--windows", "5", "-o", "p.ndjson", "--json", cwd=tmp_path)
    assert done.code == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["counted"] == counts
    # A report in Python prints as this summary.
    monkeypatch.chdir(tmp_path)
    assert done.stderr.endswith(f"{msgspec.json.decode(done.stdout, type=ExportReport)}\n")
    for event, count in counts.items():
        chains = [chain for chain in report["chains"] if chain["event"] == event]
        assert sum(chain["counted"] for chain in chains) > count
        assert f"\ncounted   {event}: {count:,} people by the service\n" in done.stderr
    done = run(env, *WORDS, "--windows", "5", "-o", "q.csv", "--log-format=json", cwd=tmp_path)
    [logged] = [
        line["report"] for line in map(json.loads, done.stderr.splitlines()) if "report" in line
    ]
    assert logged["counted"] == counts


def test_a_pipe_gets_lines_though_colours_are_forced(env: dict[str, str], tmp_path: Path) -> None:
    done = run({**env, "FORCE_COLOR": "1"}, *WORDS, "-o", "people.csv", cwd=tmp_path)
    assert done.code == 0
    assert "reading: 0 records" in done.stderr
    assert "\x1b[2K" not in done.stderr
    counted = run({**env, "FORCE_COLOR": "1"}, "count", EVENTS[0], *DAYS)
    assert counted.stdout.strip().isdigit()
    assert "\x1b" not in counted.stderr


def test_the_report_as_json(env: dict[str, str], tmp_path: Path) -> None:
    done = run(env, *WORDS, "-o", "people.csv", "--json", "--quiet", cwd=tmp_path)
    assert done.code == 0
    assert done.stderr == ""
    report = json.loads(done.stdout)
    assert report["sha256"] == digest(tmp_path / "people.csv")
    assert report["complete"] is True
    assert report["manifest"] == str(tmp_path / "people.csv.manifest.json")


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_reader_that_has_gone_makes_no_failure_of_rows_that_are_there(
    env: dict[str, str], tmp_path: Path, options: tuple[str, ...]
) -> None:
    """Whoever runs an append again after a failure gets its rows twice."""
    words = (*WORDS, "-o", "people/", "--write", "append", "--quiet", *options)
    code, stderr = unread(env, *words, cwd=tmp_path)
    assert code == 0, stderr
    assert "people/ is in place, but the result cannot be shown: Broken pipe\n" in stderr
    assert not [*tmp_path.rglob("*.export")]


def test_nor_does_one_of_both_streams(tmp_path: Path) -> None:
    words = (*WORDS, "-o", "people/", "--write", "append", "--quiet")
    with emulated(people=60, seed=3) as emulator:
        env = environment(tmp_path, emulator.environment)
        code, _ = unread(env, *words, cwd=tmp_path, streams=("stdout", "stderr"))
    assert code == 0
    assert [*(tmp_path / "people").glob("*.parquet")]


def test_nor_where_an_append_is_finished(
    env: dict[str, str], small: Emulator, tmp_path: Path
) -> None:
    words = (*WORDS, "-o", "people/", "--write", "append")
    with held(small, passing=4) as (variables, let_pass):
        env |= variables
        with Terminal(env, *words, cwd=tmp_path) as terminal:
            terminal.expect(SOME_READ)
            terminal.press_ctrl_c()
            assert terminal.ended().code == 130
        let_pass()
        finish = ("status", "people/", "--finish-unfinished", "--yes", "--quiet")
        code, stderr = unread(env, *finish, cwd=tmp_path)
    assert code == 0, stderr
    assert "people/ is in place, but the result cannot be shown: Broken pipe\n" in stderr


def test_the_result_is_written_though_nobody_reads_the_log_any_more(
    env: dict[str, str], tmp_path: Path
) -> None:
    words = (*WORDS, "-o", "people/", "--write", "append", "--json")
    reading, writing = os.pipe()
    streams = {"stdout": subprocess.PIPE, "stderr": writing}
    with start([*LAST_STEP, *words], env=env, cwd=tmp_path, **streams) as process:
        os.close(writing)
        assert wait_until_stopped(process, PATIENCE)
        os.close(reading)
        process.send_signal(signal.SIGCONT)
        stdout, _ = process.communicate(timeout=PATIENCE)
    assert json.loads(stdout)["complete"] is True
    assert process.returncode == 0


def test_an_interruption_of_the_last_step_of_an_append_comes_too_late(
    env: dict[str, str], tmp_path: Path
) -> None:
    words = (*WORDS, "-o", "people/", "--write", "append")
    with Terminal(env, *words, cwd=tmp_path, command=LAST_STEP) as terminal:
        terminal.stopped()
        terminal.interrupt(signal.SIGINT)
        terminal.interrupt(signal.SIGCONT)
        assert terminal.ended().code == 0
    assert "To resume" not in terminal.text


def test_a_reader_that_has_gone_is_a_failure_where_it_can_be_repeated(
    env: dict[str, str], tmp_path: Path
) -> None:
    words = (*WORDS, "-o", "people.csv", "--json", "--quiet")
    code, stderr = unread(env, *words, cwd=tmp_path)
    assert code == 141, stderr
    assert digest(tmp_path / "people.csv")


def test_a_log_of_json_lines(env: dict[str, str], tmp_path: Path) -> None:
    done = run(env, *WORDS, "-o", "p.ndjson", "--log-format", "json", cwd=tmp_path)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["progress"]["stage"] for line in lines[:-1]] == ["reading", "finishing"]
    assert lines[0]["progress"]["slots"] == 3
    assert len(lines[0]["progress"]["chains"]) == 4
    assert lines[-1]["report"]["sha256"] == digest(tmp_path / "p.ndjson")


def test_the_log_of_json_lines_has_the_class_of_what_has_failed(tmp_path: Path) -> None:
    with emulated(people=50, seed=2, faults={"server_error": 1.0}) as emulator:
        env = environment(tmp_path, emulator.environment)
        options = ("--retries", "0", "--log-format", "json")
        done = run(env, *WORDS, "-o", "p.ndjson", *options, cwd=tmp_path)
        last = [json.loads(line) for line in done.stderr.splitlines()][-1]
        assert (last["level"], last["error"]) == ("error", "ServerError")
        emulator.faults = {}
        (tmp_path / "p.csv").mkdir()
        done = run(env, *WORDS, "-o", "p.csv", *options, cwd=tmp_path)
        last = [json.loads(line) for line in done.stderr.splitlines()][-1]
        assert (last["level"], last["error"]) == ("error", "InvalidArgument")


def test_the_log_of_json_lines_has_the_class_of_the_cause(tmp_path: Path) -> None:
    with emulated(people=50, seed=2) as emulator:
        env = environment(tmp_path, emulator.environment)
        days = ("--since", "2026-01-01", "--timezone", "UTC", "--until")
        words = ("sync", "Charged", "-o", "crm/", "--log-format", "json", *days)
        assert run(env, *words, "2026-01-02", cwd=tmp_path).code == 0
        path = tmp_path / "crm" / "day=2026-01-02" / "people.parquet"
        path.write_bytes(path.read_bytes()[:-100])
        done = run(env, *words, "2026-01-03", cwd=tmp_path)
        assert done.code == 4
        [line] = [line for line in map(json.loads, done.stderr.splitlines()) if "error" in line]
        assert (line["error"], line["cause"]) == ("Incomplete", "ExportError")
        assert "remove it; the next run brings the day again" in line["message"]
        path.unlink()
        assert run(env, *words, "2026-01-03", cwd=tmp_path).code == 0
        assert path.exists()


@pytest.mark.slow
def test_a_line_every_few_seconds_says_that_it_is_still_there(tmp_path: Path) -> None:
    # Each request fails three times before it is answered, and no page comes at all.
    faults = {"server_error": 0.999}
    with emulated(people=1, faults=faults) as failing, held(failing, holding=9) as (variables, _):
        env = environment(tmp_path, variables)
        command = [*COMMAND, *WORDS, "-o", str(tmp_path / "p.ndjson")]
        with start(command, env=env, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            lines = [process.stderr.readline(), process.stderr.readline()]
            while not re.search(r"[1-9]\d* retries, 0:0", lines[-1]):
                lines.append(process.stderr.readline())
                assert lines[-1]
            process.terminate()
            process.stderr.read()
            assert process.wait(timeout=PATIENCE) == 143
    assert lines[0].endswith(" 0 retries, 0:00:00\n")
    assert all(line.startswith("reading: 0 records, 0 a second, ") for line in lines)


@pytest.mark.slow
def test_every_option_reaches_the_library(env: dict[str, str], tmp_path: Path) -> None:
    arguments = (
        *("export", "Charged", *DAYS, "-o", "people.dat", "--format", "csv", "--bom"),
        *("--flatten", "Customer Type", "--flatten", "nothing", "--windows", "5"),
        *("--no-distinct", "--no-events", "--app", "--spool", "gathering", "--json", "-q"),
    )
    (tmp_path / "gathering").mkdir()
    done = run(env, *arguments, cwd=tmp_path)
    report = json.loads(done.stdout)
    assert len(report["chains"]) == 5
    assert report["people"] == report["records"]
    written = (tmp_path / "people.dat").read_bytes()
    assert written.startswith(b'\xef\xbb\xbf"account",')
    assert b'"Customer Type","nothing"' in written.partition(b"\n")[0]
    # Only as the event that brought the person.
    assert written.count(b"Charged") == report["people"] == written.count(b'"[""Charged""]"')
    manifest = json.loads((tmp_path / "people.dat.manifest.json").read_bytes())
    assert manifest["plan"]["app"] is True
    assert manifest["plan"]["event_summaries"] is False
    done = run(env, "export", "Charged", *DAYS, "-o", "p.duckdb", "--table", "t 1", cwd=tmp_path)
    assert done.code == 0, done.stderr
    done = run(env, "export", "Charged", *DAYS, "-o", "p.ndjson", "--no-profile", cwd=tmp_path)
    assert b"profileData" not in (tmp_path / "p.ndjson").read_bytes()
    assert done.code == 0


@pytest.mark.parametrize(
    ("key", "type_name"),
    [
        ("Customer Type:string", "text"),
        ("Cart Value:Float", "double"),
        ("Since: datetime", "timestamp"),
    ],
)
def test_a_type_that_flatten_does_not_know_is_refused(
    env: dict[str, str], tmp_path: Path, key: str, type_name: str
) -> None:
    done = run(env, "export", "Charged", *DAYS, "-op.csv", "--flatten", key, cwd=tmp_path)
    assert (done.code, done.stdout) == (2, b"")
    assert done.stderr.startswith("error: --flatten: ")
    assert f"did you mean '{key.partition(':')[0]}:{type_name}'?" in done.stderr
    assert f"'{key}:text'" in done.stderr
    assert not [*tmp_path.iterdir()]


def test_a_property_that_nobody_has_is_named_in_the_report(
    env: dict[str, str], tmp_path: Path
) -> None:
    flattened = ("--flatten", "Cutomer Type", "--flatten", "utm:source")
    for out in ("p.csv", "p.parquet"):
        done = run(env, "export", "Charged", *DAYS, "-o", out, *flattened, "--json", cwd=tmp_path)
        [near, far] = json.loads(done.stdout)["warnings"]
        assert near.startswith("this run brought nobody with the property 'Cutomer Type', ")
        assert near.endswith("did you mean 'Customer Type'?")
        assert far.startswith("this run brought nobody with the property 'utm:source', ")
        manifest = json.loads((tmp_path / f"{out}.manifest.json").read_bytes())
        assert manifest["warnings"] == [near, far]
        assert done.stderr.count(near) == done.stderr.count(far) == 1


def test_a_key_that_may_be_meant_otherwise_is_told_of_at_first(
    env: dict[str, str], tmp_path: Path
) -> None:
    command = ["export", "Charged", *DAYS, "-o", "p.csv", "--json"]
    flattened = ("--flatten", "Amount:money", "--flatten", "email", "--flatten", "Name:text")
    done = run(env, *command, *flattened, cwd=tmp_path)
    assert done.code == 0, done.stderr
    header = (tmp_path / "p.csv").read_text().splitlines()[0]
    assert header.endswith(',"Amount:money","profile_data.email","profile_data.Name"')
    of_type, of_email, of_name = (
        done.stderr.index(words)
        for words in (
            "'Amount:money' is the whole name of a property, as 'money' is no TYPE",
            "'email' is a column of tables already",
            "'Name' is a column of tables already",
        )
    )
    assert "write 'Amount:money:text', and this warning stays away" in done.stderr
    assert "becomes the column 'profile_data.email'" in done.stderr
    # Only the values tell that nobody has these properties.
    assert of_type < of_email < of_name < done.stderr.index("nobody with the property")
    [_, told, _] = json.loads(done.stdout)["warnings"]
    assert told.endswith("leaves the column empty; 'email' is a column without --flatten")
    # A name that holds a colon can be meant, and so can a property of that name.
    meant = ("--flatten", "Amount:money:text", "--flatten", "email")
    done = run(env, *command, "--quiet", *meant, cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert "TYPE" not in done.stderr
    assert "of tables already" not in done.stderr


def test_an_ending_that_tells_another_format_is_warned_of(
    env: dict[str, str], tmp_path: Path
) -> None:
    for out, named, is_odd in (
        ("p.csv", "parquet", True),
        ("p.ndjson.gz", "csv", True),
        ("p.csv", "csv", False),
        ("p.dat", "csv", False),
        ("p.jsonl", "ndjson", False),
    ):
        command = ["export", "Charged", *DAYS, "-o", out, "--format", named, "--json", "--fresh"]
        done = run(env, *command, cwd=tmp_path)
        assert done.code == 0, done.stderr
        warnings = json.loads(done.stdout)["warnings"]
        assert [f"is written as {named}" in text for text in warnings] == [True] * is_odd
        assert done.stderr.count("warning: ") == is_odd


def test_an_empty_pipe_is_no_list_of_keys(env: dict[str, str], tmp_path: Path) -> None:
    done = run(env, "lookup", "-", "--by", "identity", "-o", "f.ndjson", cwd=tmp_path)
    assert (done.code, done.stdout) == (2, b"")
    assert "standard input is empty" in done.stderr
    (tmp_path / "none.txt").touch()
    done = run(env, "lookup", "none.txt", "--by", "identity", "-o", "f.ndjson", cwd=tmp_path)
    assert (done.code, done.stdout) == (0, b"f.ndjson\n")
    assert "warning: there were no keys to look up" in done.stderr


def test_a_name_that_is_no_text(env: dict[str, str], tmp_path: Path) -> None:
    out = os.fsencode(tmp_path) + b"/p\xe9.ndjson"
    done = run(env, "export", "Charged", *DAYS, "-o", os.fsdecode(out))
    assert (done.code, done.stdout) == (0, out + b"\n"), done.stderr
    manifest = json.loads((tmp_path / os.fsdecode(b"p\xe9.ndjson.manifest.json")).read_bytes())
    assert manifest["output"].endswith("p\\xe9.ndjson")
    done = run(env, "export", os.fsdecode(b"\xe9"), *DAYS, "-o", "p.ndjson", cwd=tmp_path)
    assert done.code == 2
    assert "Traceback" not in done.stderr


def test_epoch_seconds_are_days_too(env: dict[str, str], tmp_path: Path) -> None:
    seconds = ("--from", "1767225600", "--to", "1767312000")
    done = run(env, "export", "Charged", *seconds, "-o", "p.ndjson", "--json", cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert json.loads(done.stdout)["chains"][0]["start"] == 1767225600


def test_what_the_command_line_says_by_default_is_the_library_s() -> None:
    options = {param.name: param for param in export.params}
    assert options["batch_size"].default == BATCH_SIZE
    assert isinstance(options["format"].type, click.Choice)
    assert tuple(options["format"].type.choices) == FORMATS


# ------------------------------------------------------------------------------- exit codes


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--from", "2026-W02", "--to", "2026-01-31", "-o", "p.csv"), "'2026-W02' is not a day"),
        (
            ("--from", "2026-02-01", "--to", "2026-01-31", "-o", "p.csv"),
            "--to: 2026-01-31 is before",
        ),
        ((*DAYS, "-o", "people.xlsx"), "--out: the ending of 'people.xlsx' implies no format"),
        ((*DAYS, "-o", "people.xlsx"), "a slash; for Excel, write .csv with --bom"),
        ((*DAYS, "-o", "people.xlsx"), "or pass --format, one of"),
        ((*DAYS, "-o", "p.csv", "--windows", "many"), "'many' is neither auto nor a number"),
        ((*DAYS, "-o", "p.csv", "--batch-size", "100"), "--batch-size: 100 is not"),
        ((*DAYS, "-o", "nowhere/p.csv"), "nowhere"),
        ((*DAYS,), "--out"),
    ],
)
def test_wrong_usage(
    env: dict[str, str], tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    done = run(env, "export", "Charged", *arguments, cwd=tmp_path)
    assert (done.code, done.stdout) == (2, b"")
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_credentials_that_are_refused(env: dict[str, str], tmp_path: Path) -> None:
    wrong = {**env, "CLEVERTAP_PASSCODE": "not-the-passcode"}
    done = run(wrong, *WORDS, "-o", "p.ndjson", cwd=tmp_path)
    assert (done.code, done.stdout) == (3, b"")
    assert "not-the-passcode" not in done.stderr
    assert "To resume" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def limited(env: dict[str, str], folder: Path, *arguments: str) -> Done:
    """Run a command that may write no file of more than some kilobytes, as on a full disk."""
    done = subprocess.run(
        ["/bin/sh", "-c", 'ulimit -f 1000; exec "$@"', "sh", *COMMAND, *arguments],
        capture_output=True,
        timeout=PATIENCE,
        env=env,
        cwd=folder,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr.decode())


@pytest.mark.slow
def test_what_is_incomplete_goes_on(env: dict[str, str], tmp_path: Path) -> None:
    whole = run(env, *WORDS, "-o", "whole.ndjson", "--json", cwd=tmp_path)
    done = limited(env, tmp_path, *WORDS, "-o", "p.ndjson", "--json")
    assert done.code == 4
    assert "not complete" in done.stderr
    assert json.loads(done.stdout)["complete"] is False
    assert not (tmp_path / "p.ndjson").exists()
    again = run(env, *command_in(done.stderr), cwd=tmp_path)
    assert again.code == 0
    assert json.loads(again.stdout)["sha256"] == json.loads(whole.stdout)["sha256"]
    # Without --json, nothing is printed to stdout, where it could be taken for output.
    assert limited(env, tmp_path, *WORDS, "-o", "q.ndjson").stdout == b""


def test_an_output_of_nobody_says_what_it_replaced(tmp_path: Path) -> None:
    with emulated(people=0) as emulator:
        env = environment(tmp_path, emulator.environment)
        (tmp_path / "p.csv").write_bytes(b"x" * 1_234)
        done = run(env, "export", EVENTS[0], *DAYS, "-o", "p.csv", cwd=tmp_path)
    assert done.code == 0
    replaced = "0 people; it replaced 1,234 bytes of p.csv"
    assert f"warning: {replaced}; check the name of the event, " in done.stderr
    # Once only.
    assert done.stderr.count("0 people") == 1


def test_a_shortfall_that_is_accepted(tmp_path: Path) -> None:
    arguments = ("export", EVENTS[0], *DAYS, "--windows", "1", "--batch-size", "46", "--count")
    with emulated(people=600, seed=3, faults={"cut_short": 1}) as emulator:
        env = environment(tmp_path, emulator.environment)
        warned = run(env, *arguments, "--on-shortfall", "warn", "-o", "p.csv", cwd=tmp_path)
        wrong = run(env, *arguments, "--on-shortfall", "ignore", "-o", "q.csv", cwd=tmp_path)
    assert warned.code == 0
    shortfall = r"'.*' 20260101 to 20260131: 46 records, where the"
    assert len(re.findall(f"^warning: {shortfall}", warned.stderr, re.MULTILINE)) == 1
    assert not re.search(f"^warning   {shortfall}", warned.stderr, re.MULTILINE)
    assert wrong.code == 2


@pytest.mark.slow
def test_another_export_in_the_same_place_runs_beside_it_and_says_so(
    env: dict[str, str], tmp_path: Path
) -> None:
    assert limited(env, tmp_path, *WORDS, "-o", "p.ndjson").code == 4
    other = ("export", "Charged", *DAYS, "-o", "p.ndjson")
    beside = run(env, *other, cwd=tmp_path)
    assert (beside.code, beside.stdout) == (0, b"p.ndjson\n")
    assert "unfinished" in beside.stderr
    assert "altaprofiles status p.ndjson" in beside.stderr
    # It discards what is left of itself only.
    assert "unfinished" in run(env, *other, "--fresh", cwd=tmp_path).stderr
    resumed = run(env, *WORDS, "-o", "p.ndjson", cwd=tmp_path)
    assert resumed.code == 0, resumed.stderr
    assert "unfinished" not in resumed.stderr


# ------------------------------------------------------------------------- on a terminal


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_progress_on_a_terminal(
    env: dict[str, str], small: Emulator, tmp_path: Path, columns: int
) -> None:
    out = tmp_path / "p.ndjson"
    arguments = (*WORDS, "--windows", "15", "-o", str(out))
    with (
        held(small) as (variables, let_pass),
        Terminal(env | variables, *arguments, columns=columns, piped=("stdout",)) as terminal,
    ):
        for words in ("0 of 30 chains done", "records/s", "of 3 slots", "%"):
            terminal.expect(words)
        let_pass()
        terminal.expect("finishing")
        terminal.expect("SHA-256")
        done = terminal.ended()
    assert (done.code, done.stdout) == (0, os.fsencode(out) + b"\n")
    picture, _, summary = terminal.text.partition("people  ")
    assert longest(picture) <= columns
    assert "chains" not in summary
    assert f"manifest  {out}.manifest.json" in summary
    # The cursor is visible again.
    assert terminal.screen.rindex("\x1b[?25h") > terminal.screen.rindex("\x1b[?25l")


def test_both_streams_on_a_terminal(env: dict[str, str], tmp_path: Path) -> None:
    with Terminal(env, *WORDS, "-o", str(tmp_path / "p.ndjson")) as terminal:
        assert terminal.ended().code == 0
    assert terminal.text.splitlines()[-1] == str(tmp_path / "p.ndjson")


@pytest.mark.parametrize("how", ["quiet", "dumb", "json", "no colour"])
def test_terminals_that_want_less(env: dict[str, str], tmp_path: Path, how: str) -> None:
    more = {"dumb": {"TERM": "dumb"}, "no colour": {"NO_COLOR": "1"}}.get(how, {})
    options = {"quiet": ["-q"], "json": ["--log-format", "json"]}.get(how, [])
    out = tmp_path / "p.ndjson"
    arguments = (*WORDS, *options, "-o", str(out))
    with Terminal({**env, **more}, *arguments, piped=("stdout",)) as terminal:
        assert terminal.ended().code == 0
    if how == "quiet":
        assert terminal.screen == ""
    elif how == "no colour":
        assert "records/s" in terminal.text
        assert not re.search(r"\x1b\[[0-9;]*[349][0-7]m", terminal.screen)
    else:
        assert "\x1b" not in terminal.screen
        assert ("reading: 0 records" in terminal.text) or how == "json"
    if how == "json":
        assert all(json.loads(line) for line in terminal.text.splitlines())


@pytest.mark.slow
@pytest.mark.parametrize("terminal_too", [False, True])
def test_a_locale_that_is_not_utf_8(
    env: dict[str, str], small: Emulator, tmp_path: Path, terminal_too: bool
) -> None:
    plain = {**env, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    out = tmp_path / "pé.ndjson"
    arguments = (*WORDS, "-o", str(out))
    if not terminal_too:
        done = run(plain, *arguments)
        assert (done.code, done.stdout) == (0, os.fsencode(out) + b"\n")
        assert done.stderr.isascii()
        return
    with (
        held(small) as (variables, let_pass),
        Terminal(plain | variables, *arguments, piped=("stdout",)) as terminal,
    ):
        terminal.expect("reading ---")
        let_pass()
        done = terminal.ended()
    assert (done.code, done.stdout) == (0, os.fsencode(out) + b"\n")
    assert terminal.text.isascii()


# ---------------------------------------------------------------------- interrupted and resumed


@pytest.fixture(scope="module")
def uninterrupted(small: Emulator, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("uninterrupted")
    done = run(environment(folder, small.environment), *WORDS, "-o", "p.ndjson", cwd=folder)
    assert done.code == 0, done.stderr
    return digest(folder / "p.ndjson")


SOME_READ = re.compile(r"[1-9][\d,]* of [\d,]+ +\d+ %")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "how"),
    [("opening", "Ctrl-C"), ("reading", "Ctrl-C"), ("reading", "SIGTERM"), ("finishing", "Ctrl-C")],
)
def test_interrupted_and_gone_on_with(
    env: dict[str, str], small: Emulator, tmp_path: Path, uninterrupted: str, stage: str, how: str
) -> None:
    out = tmp_path / "it's here.ndjson"
    arguments = (*WORDS, "--fresh", "-o", str(out))
    # Before the second chain goes into the output.
    command = stopping("open", "chain-0001", "r") if stage == "finishing" else COMMAND
    with held(small, passing=4) as (variables, let_pass):
        env |= variables
        with Terminal(env, *arguments, piped=("stdout",), command=command) as terminal:
            if stage == "opening":
                terminal.expect("reading 0 records")
            elif stage == "reading":
                terminal.expect(SOME_READ)
            else:
                let_pass()
                terminal.stopped()
                terminal.expect("finishing")
            if how == "Ctrl-C":
                terminal.press_ctrl_c()
            else:
                terminal.interrupt(signal.SIGTERM)
            terminal.interrupt(signal.SIGCONT)
            done = terminal.ended()
        assert (done.code, done.stdout) == (130 if how == "Ctrl-C" else 143, b"")
        assert not out.exists()
        assert "Traceback" not in terminal.text
        again = command_in(terminal.text)
        assert "--fresh" not in again
        let_pass()
        resumed = run(env, *again)
    assert (resumed.code, resumed.stdout) == (0, os.fsencode(out) + b"\n")
    assert digest(out) == uninterrupted
    if stage != "opening":
        assert not resumed.stderr.startswith("reading: 0 records")


def test_a_closed_terminal_loses_nothing(
    env: dict[str, str], small: Emulator, tmp_path: Path, uninterrupted: str
) -> None:
    out = tmp_path / "p.ndjson"
    with held(small, passing=4) as (variables, let_pass):
        with Terminal(env | variables, *WORDS, "-o", str(out), cwd=tmp_path) as terminal:
            terminal.expect(SOME_READ)
            assert terminal.close() == 129
        assert not out.exists()
        let_pass()
        resumed = run(env | variables, *WORDS, "-o", str(out), cwd=tmp_path)
    assert resumed.code == 0, resumed.stderr
    assert digest(out) == uninterrupted
    assert not resumed.stderr.startswith("reading: 0 records")


@pytest.mark.parametrize("kind", ["picture", "spinner"])
def test_ctrl_z_clears_the_display_and_shows_the_cursor(
    env: dict[str, str], small: Emulator, tmp_path: Path, kind: str
) -> None:
    command = [*WORDS, "-o", str(tmp_path / "p.ndjson")]
    shown, holding = "reading", held(small, passing=4)
    if kind == "spinner":
        command, shown = ["get", "--identity", "5555555555"], "retrying: "
        holding = held(small, b"", passing=1)
        small.faults = {"server_error": 1}
    words = shlex.join([*COMMAND, *command])
    with holding as (variables, let_pass):
        # Job control is that of a shell.
        program = "import os; os.execv('/bin/bash', ['bash', '--norc', '--noprofile', '-i'])"
        shell = [sys.executable, "-c", program]
        with Terminal(env | variables | {"PS1": "$ "}, command=shell) as terminal:
            terminal.type(words)
            terminal.expect("\n")
            terminal.expect(shown if kind == "spinner" else SOME_READ)
            terminal.press("\x1a")
            terminal.expect("Stopped")
            end = terminal.screen.rpartition(shown)[2].partition("Stopped")[0]
            assert "\x1b[2K" in end
            assert end.rfind("\x1b[?25h") > end.rfind("\x1b[?25l")
            small.faults = FAULTS
            let_pass()
            terminal.type("fg")
            terminal.expect("fg\n")
            terminal.type("exit $?")
            assert terminal.ended().code == 0, terminal.text[-2000:]
            after = terminal.screen.rpartition("fg\r\n")[2]
            assert after.rfind("\x1b[?25h") >= after.rfind("\x1b[?25l")


_LAST_STEP = """
import asyncio, signal
from types import SimpleNamespace
from altaprofiles.cli.consoles import error_console
from altaprofiles.cli.progress import live_display

async def main():
    with live_display(SimpleNamespace(console=error_console(quiet=False))) as picture:
        picture.draw("the picture")
        signal.raise_signal(signal.SIGTSTP)
    await asyncio.sleep(0)

asyncio.run(main())
print("default" if signal.getsignal(signal.SIGTSTP) is signal.SIG_DFL else "another")
"""


def test_ctrl_z_in_the_last_step_of_a_display_does_not_draw_it_again(
    env: dict[str, str], tmp_path: Path
) -> None:
    script = tmp_path / "last_step.py"
    script.write_text(_LAST_STEP)
    program = "import os; os.execv('/bin/bash', ['bash', '--norc', '--noprofile', '-i'])"
    with Terminal(env | {"PS1": "$ "}, command=[sys.executable, "-c", program]) as terminal:
        terminal.type(shlex.join([sys.executable, str(script)]))
        terminal.expect("Stopped")
        terminal.type("fg")
        terminal.expect("default\n")
        terminal.type("exit")
        assert terminal.ended().code == 0, terminal.text[-2000:]
    before, _, after = terminal.screen.rpartition("fg\r\n")
    assert "the picture" not in after
    assert before.rfind("\x1b[?25h") > before.rfind("\x1b[?25l")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("left", ["chain-0000", "journal.sqlite", "p.ndjson.export"])
def test_an_interruption_when_all_is_in_place_is_too_late(
    env: dict[str, str], tmp_path: Path, uninterrupted: str, left: str, number: signal.Signals
) -> None:
    """By now there is nothing left to resume."""
    out = tmp_path / "p.ndjson"
    command = stopping("os.rmdir" if left.endswith("export") else "os.remove", left)
    arguments = (*WORDS, "-o", str(out))
    with Terminal(env, *arguments, piped=("stdout", "stderr"), command=command) as terminal:
        terminal.stopped()
        assert (tmp_path / "p.ndjson.manifest.json").exists()
        assert list(tmp_path.glob(f"p.ndjson.export/*/{left}*")) or left.endswith("export")
        terminal.interrupt(number)
        terminal.interrupt(signal.SIGCONT)
        done = terminal.ended()
    assert (done.code, done.stdout) == (0, os.fsencode(out) + b"\n")
    assert uninterrupted in done.stderr
    assert "To resume" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_interpreter_ends_makes_no_failure_of_success(
    env: dict[str, str], tmp_path: Path, number: signal.Signals
) -> None:
    # What is left in a module is deleted after the interpreter has taken its handlers away.
    program = f"""
import os, sys
class Late:
    def __init__(self):
        self.kill, self.pid = os.kill, os.getpid()
    def __del__(self):
        self.kill(self.pid, {int(number)})
late = Late()
from altaprofiles.__main__ import main
main()
"""
    command = [sys.executable, "-c", program, *WORDS, "-o", str(tmp_path / "p.ndjson"), "--json"]
    done = subprocess.run(command, env=env, capture_output=True, check=False)
    assert json.loads(done.stdout)["complete"] is True
    assert done.returncode == 0


@pytest.mark.slow
def test_killed_and_run_again(
    env: dict[str, str], small: Emulator, tmp_path: Path, uninterrupted: str
) -> None:
    arguments = (*WORDS, "-o", str(tmp_path / "p.ndjson"))
    with held(small, passing=4) as (variables, let_pass):
        with Terminal(env | variables, *arguments) as terminal:
            terminal.expect(SOME_READ)
            terminal.interrupt(signal.SIGKILL)
            terminal.ended()
        let_pass()
        with Terminal(env | variables, *arguments) as terminal:
            assert terminal.ended().code == 0
    assert digest(tmp_path / "p.ndjson") == uninterrupted


# ---------------------------------------------------------------------- the command for resuming


def command_of(*arguments: str) -> str:
    place = next(number for number, word in enumerate(arguments) if word in cli.commands)
    name, rest = arguments[place], list(arguments[place + 1 :])
    with cli.make_context("altaprofiles", [*arguments[:place], name], obj=App()) as group:
        with cli.commands[name].make_context(name, rest, parent=group) as context:
            return resuming_line(context)


def test_the_command_that_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "argv", ["/opt/altaprofiles"])
    days = "--from 2026-01-01 --to 2026-01-31"
    out = "--out p.csv"
    for given, shown in (
        (
            ["--account", "my shop", "export", "It's", *DAYS, "-o", "p.csv", "--fresh"],
            f"export 'It'\"'\"'s' {days} {out} --account 'my shop'",
        ),
        (
            ["export", *DAYS, "-o", "p.csv", "--no-events", "-q", "--", "-1", "b"],
            f"export {days} {out} --no-events --quiet -- -1 b",
        ),
        (
            ["export", "a", *DAYS, "-op.csv", "--flatten=b c", "--flatten", "d", "--windows", "2"],
            f"export a {days} {out} --flatten 'b c' --flatten d --windows 2",
        ),
        (
            ["export", "a", "--from", "20260101", "--to", "20260102", "-op.csv", "--bom", "-v"],
            f"export a --from 20260101 --to 20260102 {out} --bom --verbose",
        ),
        (
            ["lookup", "-", "--by", "object-id", "-op.csv", "--log-format", "json", "--resume"],
            f"lookup - --by object-id {out} --resume --log-format json",
        ),
        (
            ["export", "a", *DAYS, "-o", "postgresql://me:s3cret@h/d/t", "--spool", str(tmp_path)],
            f"export a {days} --out postgresql://me@h/d/t --spool {tmp_path}",
        ),
        (
            # Bytes that are not text, and characters that a shell would interpret.
            ["export", "a\nb\x1b'\\", *DAYS, "-o", "caf\udce9.csv"],
            rf"export $'a\012b\033\047\134' {days} --out $'caf\351.csv'",
        ),
    ):
        line = command_of(*given)
        start = f"(cd {shlex.quote(str(Path.cwd()))} && "
        assert line.startswith(start) == (str(tmp_path) not in shown)
        assert line.removeprefix(start).removesuffix(")").partition(" ")[2] == shown
    # The records of what is not a file are in the current folder, which the address does not say.
    (tmp_path / "my work").mkdir()
    monkeypatch.chdir(tmp_path / "my work")
    for url in ("postgresql://h/d/t?sslmode=require", "s3://bucket/p.csv"):
        command = command_of("export", "a", *DAYS, "-o", url)
        assert command.startswith(f"(cd '{tmp_path}/my work' && ")
        assert command.endswith(f"altaprofiles export a {days} --out {shlex.quote(url)})")


def test_the_command_that_goes_on_is_the_one_that_was_started(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for folder in ("on-path", "elsewhere"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "altaprofiles").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "on-path"))
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "on-path" / "altaprofiles")])
    context = click.Context(click.Command("x"), info_name="x", obj=App())
    assert command_line(context) == "altaprofiles x"
    elsewhere = str(tmp_path / "elsewhere" / "altaprofiles")
    monkeypatch.setattr(sys, "argv", [elsewhere])
    assert command_line(context) == f"{elsewhere} x"
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setattr(sys, "argv", ["./altaprofiles"])
    assert command_line(context) == "./altaprofiles x"


# ----------------------------------------------------------------------------------- PostgreSQL


def password_file(folder: Path, postgres: Server, mode: int) -> Path:
    """Write a file for libpq, with these rights."""
    secret = folder / ".pgpass"
    escaped = PASSWORD.replace("\\", "\\\\").replace(":", "\\:")
    secret.write_text(f"127.0.0.1:{postgres.port}:*:owner:{escaped}\n")
    secret.chmod(mode)
    return secret


@pytest.mark.slow
@pytest.mark.parametrize("source", ["PGPASSWORD", "pgpass"])
def test_a_password_that_is_not_on_the_command_line(
    env: dict[str, str], tmp_path: Path, postgres: Server, source: str
) -> None:
    secret = password_file(tmp_path, postgres, 0o600)
    there = {"PGPASSWORD": PASSWORD} if source == "PGPASSWORD" else {"PGPASSFILE": str(secret)}
    place = f"postgresql://127.0.0.1:{postgres.port}/{postgres.database}"
    url = f"{place.replace('//', '//owner@')}/from_{source}"
    done = run({**env, **there}, *WORDS, "-o", url, cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert PASSWORD not in done.stderr
    assert "can see the password" not in done.stderr
    assert done.stdout.decode().startswith(place)
    people = postgres.rows(f'select count(*) from "from_{source}"')[0][0]
    assert f"people    {people:,}" in done.stderr


PLACES = ("home", "PGPASSFILE", "URL", "PGSERVICE", "service", "service without one")


def named_at(place: str, file: Path, folder: Path, postgres: Server) -> tuple[str, dict[str, str]]:
    """Return the URL of a table and the environment that name a password file in one place."""
    url = f"postgresql://owner@127.0.0.1:{postgres.port}/{postgres.database}/others"
    services = folder / "services.conf"
    services.write_text(f"[crm]\npassfile={file}\n[bare]\n")
    there = {"PGSERVICEFILE": str(services)}
    if place == "home":
        there |= {"HOME": str(file.parent)}
    elif place == "PGPASSFILE":
        there |= {"PGPASSFILE": str(file)}
    elif place == "URL":
        url += f"?passfile={file}"
    elif place == "PGSERVICE":
        there |= {"PGSERVICE": "crm", "PGPASSFILE": str(folder / "nowhere")}
    elif place == "service":
        url += "?service=crm"
    else:
        there |= {"PGPASSFILE": str(file)}
        url += "?service=bare"
    return url, there


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_a_password_file_that_others_may_read_is_named_with_the_command_that_helps(
    env: dict[str, str], tmp_path: Path, postgres: Server, place: str
) -> None:
    secret = password_file(tmp_path, postgres, 0o640)
    url, there = named_at(place, secret, tmp_path, postgres)
    env |= {"HOME": str(tmp_path / "elsewhere")} | there
    words = (*WORDS, "-o", url, "--log-format", "json")
    refused = run(env, *words, cwd=tmp_path)
    assert refused.code == 1
    # Each line is one of the log, and none of the driver's own.
    texts = [json.loads(line)["message"] for line in refused.stderr.splitlines()]
    assert PASSWORD not in refused.stderr
    [advice] = [text for text in texts if "chmod" in text]
    command = advice.partition("run: ")[2].splitlines()[0].rstrip(".")
    assert command == f"chmod 600 {secret}"
    subprocess.run(shlex.split(command), check=True)
    done = run(env, *words, cwd=tmp_path)
    assert done.code == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "named"),
    [
        *(("home", "PGPASSFILE"), ("PGPASSFILE", "PGPASSFILE"), ("URL", "the URL")),
        *(("PGSERVICE", "the service crm"), ("service", "the service crm")),
        ("service without one", "PGPASSFILE"),
    ],
)
def test_a_password_file_that_is_no_plain_file_is_named_with_the_place_of_its_name(
    env: dict[str, str], tmp_path: Path, postgres: Server, place: str, named: str
) -> None:
    secret = password_file(tmp_path, postgres, 0o600)
    (tmp_path / "home").mkdir()
    (file := tmp_path / "home" / ".pgpass").mkdir()
    url, there = named_at(place, file, tmp_path, postgres)
    env |= {"HOME": str(tmp_path / "elsewhere")} | there
    refused = run(env, *WORDS, "-o", url, "--log-format", "json", cwd=tmp_path)
    assert refused.code == 1
    texts = [json.loads(line)["message"] for line in refused.stderr.splitlines()]
    advice = (
        f"{file} is not read, because it is not a plain file; name another one in {named}, or set "
        f"PGPASSWORD"
    )
    assert any(advice in text for text in texts), texts
    # Each of the two is enough.
    words = (*WORDS, "--log-format", "json")
    done = run({**env, "PGPASSWORD": PASSWORD}, *words, "-o", url, cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert [json.loads(line) for line in done.stderr.splitlines()]
    url, there = named_at("PGPASSFILE" if place == "home" else place, secret, tmp_path, postgres)
    done = run({**env, **there}, *words, "-o", url, cwd=tmp_path)
    assert done.code == 0, done.stderr


@pytest.mark.slow
def test_a_device_for_a_password_file_is_named(
    env: dict[str, str], tmp_path: Path, postgres: Server
) -> None:
    url, there = named_at("PGPASSFILE", Path(os.devnull), tmp_path, postgres)
    refused = run({**env, **there}, *WORDS, "-o", url, "--log-format", "json", cwd=tmp_path)
    assert refused.code == 1
    texts = [json.loads(line)["message"] for line in refused.stderr.splitlines()]
    assert any(f"{os.devnull} is not read, because it is not a plain file" in one for one in texts)


@pytest.mark.slow
def test_a_password_on_the_command_line_is_not_printed(
    env: dict[str, str], small: Emulator, tmp_path: Path, postgres: Server
) -> None:
    shown = postgres.url("t").partition("@")[0].rpartition(":")[2]
    (tmp_path / "spool").mkdir()
    arguments = (*WORDS, "-o", postgres.url("t"), "--spool", str(tmp_path / "spool"))
    with held(small) as (variables, let_pass):
        env |= variables
        with Terminal(env, *arguments) as terminal:
            terminal.expect("records/s")
            terminal.press_ctrl_c()
            assert terminal.ended().code == 130
        for secret in (PASSWORD, shown):
            assert secret not in terminal.text
        assert "can see the password or key in --out" in " ".join(terminal.text.split())
        again = command_in(terminal.text)
        let_pass()
        resumed = run({**env, "PGPASSWORD": PASSWORD}, *again, cwd=tmp_path)
        assert resumed.code == 0, resumed.stderr
        # And none at all is an error that says so.
        assert run(env, *again, cwd=tmp_path).code == 1


def keys_of(postgres: Server) -> dict[str, str]:
    """Return the keys by which libpq logs in without the password (RFC 5802, 3)."""
    [(verifier,)] = postgres.rows("select rolpassword from pg_authid where rolname = 'owner'")
    rounds, _, salt = verifier.split("$")[1].partition(":")
    salted = hashlib.pbkdf2_hmac("sha256", PASSWORD.encode(), b64decode(salt), int(rounds))
    return {
        f"scram_{side}_key": b64encode(hmac.digest(salted, words, "sha256")).decode()
        for side, words in (("client", b"Client Key"), ("server", b"Server Key"))
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    "option",
    [
        "sslpassword",
        pytest.param(
            "scram_client_key",
            marks=pytest.mark.skipif(
                psycopg.pq.version() < 180000, reason="an option of libpq 18 and later"
            ),
        ),
    ],
)
def test_a_key_in_the_url_is_passed_again_to_resume(
    env: dict[str, str], small: Emulator, tmp_path: Path, postgres: Server, option: str
) -> None:
    url = postgres.url(f"by_{option}")
    if option == "sslpassword":
        secrets, url = {option: "hunter2secret"}, f"{url}?{option}=hunter2secret"
    else:
        secrets = keys_of(postgres)
        url = f"postgresql://owner@{url.partition('@')[2]}?{urlencode(secrets)}"
    arguments = (*WORDS, "-o", url, "--spool", str(tmp_path / "spool"))
    (tmp_path / "spool").mkdir()

    def is_begun() -> bool:
        pages = "select coalesce(sum(pages), 0) from chains"
        return any(journal(path, pages) > [(0,)] for path in tmp_path.glob("spool/*.export/*-*"))

    with held(small, passing=3, holding=9) as (variables, let_pass):
        env |= variables
        with Terminal(env, *arguments) as terminal:
            terminal.expect("records/s")
            wait_until(is_begun)
            terminal.press_ctrl_c()
            assert terminal.ended().code == 130
        again = command_in(terminal.text)
        status = run(env, "status", "--spool", "spool", "--json", "-v", cwd=tmp_path)
        let_pass()
        # Without it there is no way in.
        if option != "sslpassword":
            assert run(env, *again, cwd=tmp_path).code == 1
        stored = [path for path in tmp_path.glob("spool/**/*") if path.is_file()]
        for secret in (text for value in secrets.values() for text in (value, quote(value, ""))):
            assert secret not in terminal.text
            assert secret not in status.stdout.decode() + status.stderr
            assert not [path for path in stored if secret.encode() in path.read_bytes()]
        again[again.index("--out") + 1] = url
        done = run(env, *again, cwd=tmp_path)
        assert done.code == 0, done.stderr
        assert re.search(r"records +[0-9,]+ on .*, [0-9,]+ of them in earlier runs", done.stderr)
        assert not [secret for secret in secrets.values() if secret in done.stderr]
        assert postgres.rows(f"select count(*) from by_{option}")[0][0] > 0


@pytest.mark.slow
def test_a_table_is_resumed_from_any_folder(
    env: dict[str, str], small: Emulator, tmp_path: Path, postgres: Server
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (tmp_path / "elsewhere").mkdir()
    pages = "select coalesce(sum(pages), 0) from chains"

    def is_begun() -> bool:
        return any(journal(path, pages) > [(0,)] for path in work.glob("*.export/*-*"))

    with held(small, passing=3, holding=9) as (variables, let_pass):
        env |= variables
        arguments = (*WORDS, "-o", postgres.url("anywhere"))
        with Terminal(env, *arguments, cwd=work) as terminal:
            terminal.expect("records/s")
            wait_until(is_begun)
            terminal.press_ctrl_c()
            assert terminal.ended().code == 130
        [folder] = work.glob("*.export")
        line = terminal.text.partition("To resume: ")[2].partition("\n")[0].strip()
        let_pass()
        done = subprocess.run(
            ["/bin/sh", "-c", line],
            env={**env, "PGPASSWORD": PASSWORD},
            cwd=tmp_path / "elsewhere",
            capture_output=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert not folder.exists()
        assert re.search(rb"records +[0-9,]+ on .*, [0-9,]+ of them in earlier runs", done.stderr)
        assert not [*(tmp_path / "elsewhere").iterdir()]


# -------------------------------------------------------------------------------------- lookups


KEYS = ["5555555555", *(f"nobody-{number}" for number in range(30))]


def test_lookups_from_a_file(env: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "ids.csv").write_text("name,id\n" + "".join(f"x,{key}\n" for key in KEYS))
    arguments = ("lookup", "ids.csv", "--by", "identity", "--column", "id", "-o", "f.ndjson")
    done = run(env, *arguments, cwd=tmp_path)
    assert (done.code, done.stdout) == (0, b"f.ndjson\n")
    assert "found      1\n" in done.stderr
    assert "not found  30, in f.ndjson.not-found.txt\n" in done.stderr
    assert (tmp_path / "f.ndjson.not-found.txt").read_text().splitlines() == KEYS[1:]
    assert run(env, *arguments[:4], "-o", "g.ndjson", cwd=tmp_path).code == 2


def test_every_option_of_a_lookup_reaches_the_library(
    env: dict[str, str], small: Emulator, tmp_path: Path
) -> None:
    device = small.population.object_ids(7)[0]
    email = next(filter(None, map(small.population.email, range(600))))
    (tmp_path / "keys.csv").write_text(f"device,email\n{device},{email}\n")
    (tmp_path / "gathering").mkdir()
    command = ("lookup", "keys.csv", "-o", "f.dat", "--format", "csv", "--bom", "--json", "--fresh")
    for by, column in (("object-id", "device"), ("email", "email")):
        more = ("--by", by, "--column", column, "--spool", "gathering", "--flatten", "City")
        done = run(env, *command, *more, cwd=tmp_path)
        assert done.code == 0, done.stderr
        report = json.loads(done.stdout)
        assert (report["found"], report["format"]) == (1, "csv")
        written = (tmp_path / "f.dat").read_text("utf-8")
        assert written.startswith("\ufeff")
        assert "City" in written.splitlines()[0]
        manifest = json.loads((tmp_path / "f.dat.manifest.json").read_text())
        assert manifest["plan"]["by"] == by.replace("-", "_")


def test_lookups_from_stdin(env: dict[str, str], tmp_path: Path) -> None:
    arguments = ("lookup", "-", "--by", "identity", "-o", "f.ndjson", "--json")
    keys = "\ufeff" + "\r\n".join([*KEYS, "", " ", KEYS[0]])
    plain = {**env, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = run(plain, *arguments, stdin=keys.encode(), cwd=tmp_path)
    assert done.code == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["found"], report["not_found"], report["repeated"]) == (1, 30, 1)
    assert run(env, *arguments, "--column", "id", cwd=tmp_path).code == 2
    done = run(env, *arguments, stdin=b"\xff\xfe", cwd=tmp_path)
    assert done.code == 2
    assert "not UTF-8" in done.stderr


def test_lookups_from_a_pipe_with_a_name(env: dict[str, str], tmp_path: Path) -> None:
    """Keys can come from a pipe, as in `lookup <(…)`."""
    os.mkfifo(tmp_path / "ids")
    with ThreadPoolExecutor() as threads:
        writing = threads.submit((tmp_path / "ids").write_text, "\n".join(KEYS))
        done = run(env, "lookup", "ids", "--by", "identity", "-o", "found.ndjson", cwd=tmp_path)
        writing.result()
    assert done.code == 0, done.stderr
    assert f"keys       {len(KEYS)}" in done.stderr


def test_a_key_of_a_pipe_has_its_answer_before_the_next_one_comes(
    env: dict[str, str], small: Emulator, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "ids")
    command = [*COMMAND, "cdp", "--file", "ids", "--by", "user-id"]
    with (
        ThreadPoolExecutor() as threads,
        start(command, env=env, cwd=tmp_path, stdout=subprocess.PIPE) as process,
    ):
        with (tmp_path / "ids").open("w") as file:
            for number in range(3):
                print(f"nobody{number}", file=file, flush=True)
                assert process.stdout is not None
                reading = threads.submit(process.stdout.readline)
                assert json.loads(reading.result(PATIENCE))["key"] == f"nobody{number}"
        process.wait()


@pytest.mark.slow
def test_lookups_on_a_terminal_interrupted_and_gone_on_with(
    env: dict[str, str], small: Emulator, tmp_path: Path
) -> None:
    known = [small.population.identity(number) for number in range(300)]
    keys = [key for key in known if key is not None] + KEYS
    (tmp_path / "ids.txt").write_text("\n".join(keys))
    found = tmp_path / "found.ndjson"
    command = ("lookup", str(tmp_path / "ids.txt"), "--by", "identity", "-o", str(found))
    with held(small, b"GET /1/profile.json", passing=250, holding=3) as (variables, let_pass):
        with Terminal(env | variables, *command, columns=40) as terminal:
            terminal.expect("keys/s")
            # By now, some progress is on disk.
            terminal.expect(" left")
            terminal.press_ctrl_c()
            assert terminal.ended().code == 130
        picture = terminal.text.partition("error: interrupted")[0]
        assert re.search(r"\d+ found, \d+ not found, 0 failed", picture)
        assert longest(picture) <= 40
        let_pass()
        answered = small.stats.requests["profile"]
        resumed = run(env | variables, *command_in(terminal.text))
        assert resumed.code == 0, resumed.stderr
        # What was answered is not asked for again.
        assert small.stats.requests["profile"] - answered < len(keys)
    whole = tmp_path / "whole.ndjson"
    assert run(env, *command[:-1], str(whole)).code == 0
    assert digest(whole) == digest(found)


def test_stdin_that_says_nothing_does_not_hold_it_up(env: dict[str, str], tmp_path: Path) -> None:
    command = [*COMMAND, "lookup", "-", "--by", "identity", "-o", "f.ndjson"]
    streams: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with start(command, **streams, env=env, cwd=tmp_path) as process:
        assert process.stdin is not None
        process.stdin.write(b"5555555555\n")
        process.stdin.flush()
        while not list(tmp_path.glob("f.ndjson.export/*/journal.sqlite")):
            assert process.poll() is None
            time.sleep(0.05)
        process.terminate()
        assert process.stderr is not None
        # The pipe is still open at the other end.
        told = process.stderr.read().decode()
        assert process.wait(timeout=PATIENCE) == 143
    assert "To resume: pipe the same keys into " in told
    again = command_in(told)
    done = run(env, *again, stdin=b"5555555555\n", cwd=tmp_path)
    assert (done.code, done.stdout) == (0, b"f.ndjson\n")
