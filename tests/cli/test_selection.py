"""Filters and everyone on the command line, from the options to the output."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from altaprofiles.cli import cli
from altaprofiles.cli.app import App
from altaprofiles.cli.resumption import command_line
from altaprofiles.emulator import Emulator

from ..support.forks import start, wait_until_stopped
from ..support.guides import GUIDES
from ..support.jobs import people_in, person
from ..support.tasks import PATIENCE
from ..support.terminals import (
    COMMAND,
    Done,
    emulated,
    environment,
    held,
    resuming_words,
    run,
    stopping,
)

DAYS = ("--from", "2026-01-01", "--to", "2026-01-31")
GOLD = {"name": "Customer Type", "operator": "equals", "value": "Gold"}


@pytest.fixture(scope="module")
def service() -> Iterator[Emulator]:
    with emulated(people=400, seed=6) as emulator:
        yield emulator


@pytest.fixture
def env(service: Emulator, tmp_path: Path) -> dict[str, str]:
    return environment(tmp_path, service.environment)


def names(emulator: Emulator, numbers: list[int]) -> list[str]:
    population = emulator.population
    return sorted(person(population.identity(one), population.object_ids(one)) for one in numbers)


# ------------------------------------------------------------------------------------ what is sent


def test_an_export_with_conditions(env: dict[str, str], service: Emulator, tmp_path: Path) -> None:
    conditions = (
        *("--where", "Amount > 100", "--where", '"Gift" = true'),
        *("--profile-where", "Customer Type = Gold"),
    )
    done = run(env, "export", "Charged", *DAYS, *conditions, "-o", "p.ndjson", cwd=tmp_path)
    assert (done.code, done.stdout) == (0, b"p.ndjson\n"), done.stderr
    of_event: list[dict[str, Any]] = [
        {"name": "Amount", "operator": "greater_than", "value": 100},
        {"name": "Gift", "operator": "equals", "value": "True"},
    ]
    numbers = service.population.active(
        "Charged", 20260101, 20260131, event_properties=of_event, profile_fields=[GOLD]
    )
    assert sorted(people_in(tmp_path / "p.ndjson")) == names(service, numbers)
    manifest = json.loads((tmp_path / "p.ndjson.manifest.json").read_bytes())
    assert manifest["plan"]["filters"] == {
        "event_properties": [one | {"value": "…"} for one in of_event],
        "common_profile_properties": {"profile_fields": [GOLD | {"value": "…"}]},
    }
    counted = run(env, "count", "Charged", *DAYS, *conditions)
    assert (counted.code, counted.stdout) == (0, b"%d\n" % len(numbers))


@pytest.mark.parametrize("source", ["q.json", "-"])
def test_a_query_from_a_file(
    env: dict[str, str], service: Emulator, tmp_path: Path, source: str
) -> None:
    query = b'\xef\xbb\xbf {"common_profile_properties": {"profile_fields": [%b]}}\n' % (
        json.dumps(GOLD | {"operator": "not_equals"}).encode()
    )
    (tmp_path / "q.json").write_bytes(query)
    arguments = ("count", "Charged", *DAYS, "--query", source)
    done = run(env, *arguments, stdin=query, cwd=tmp_path)
    numbers = service.population.active(
        "Charged", 20260101, 20260131, profile_fields=[GOLD | {"operator": "not_equals"}]
    )
    assert (done.code, done.stdout) == (0, b"%d\n" % len(numbers)), done.stderr


def test_everyone(env: dict[str, str], service: Emulator, tmp_path: Path) -> None:
    assert run(env, "count", "--everyone").stdout == b"400\n"
    done = run(env, "export", "--everyone", "--count", "-o", "p.ndjson", "--json", cwd=tmp_path)
    assert done.code == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["counted"] == {"everyone": 400}
    assert [report["chains"][0][name] for name in ("event", "start", "end")] == [None] * 3
    assert "counted   everyone: 400 people by the service" in done.stderr
    assert sorted(people_in(tmp_path / "p.ndjson")) == names(service, list(range(400)))
    gold = ("--everyone", "--profile-where", "Customer Type = Gold")
    assert run(env, "export", *gold, "-o", "gold.csv", cwd=tmp_path).code == 0
    numbers = service.population.everyone(profile_fields=[GOLD])
    assert run(env, "count", *gold).stdout == b"%d\n" % len(numbers)


def test_a_refusal_of_the_service_names_the_filter(env: dict[str, str]) -> None:
    done = run(env, "count", "Nothing", *DAYS, "--where", "Email = jane@example.com")
    assert (done.code, done.stdout) == (2, b"")
    assert "jane" not in done.stderr


# ------------------------------------------------------------------------------------- wrong usage


@pytest.mark.parametrize("command", [("export", "-o", "p.csv"), ("count",)], ids=lambda x: x[0])
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "EVENT: missing; name an event, or pass --everyone"),
        (DAYS, "EVENT: missing; name an event, or pass --everyone"),
        (("Charged",), "--from: missing; events need both days"),
        (("Charged", *DAYS[2:]), "--from: missing; events need both days"),
        (("Charged", *DAYS[:2]), "--to: missing; events need both days"),
        (("--everyone", "Charged"), "leave out EVENT, or --everyone"),
        (("--everyone", *DAYS), "leave out --from and --to, or --everyone"),
        (("--everyone", *DAYS[:2]), "leave out --from, or --everyone"),
        (("Charged", *DAYS, "--everyone"), "leave out EVENT and --from and --to, or --everyone"),
        (("--everyone", "--where", "Amount > 5"), "use --profile-where"),
        (("Charged", *DAYS, "--where", "Amount"), "error: --where: no operator; write "),
        (
            ("Charged", *DAYS, "--profile-where", "a = 1", "--profile-where", "Email = "),
            "error: --profile-where: number 2: no value behind =",
        ),
        (
            ("Charged", *DAYS, "--where", "Amount > jane@example.com"),
            "error: --where: > compares numbers, and the value behind it is not one; ",
        ),
        (("Charged", *DAYS, "--where", '"" exists'), "error: --where: the name is empty"),
        (("Charged", *DAYS, "--query", "nowhere.json"), "'nowhere.json' does not exist"),
        (("Charged", *DAYS, "--query", "."), "is a directory"),
        (
            ("Charged", *DAYS, "--query", "base.json"),
            "--query: `event_name` is set by the event of the call",
        ),
        (
            ("Charged", *DAYS, "--query", "typo.json"),
            "--query: unknown member 'advanced_qery'; known are event_properties, ",
        ),
        (
            ("Charged", *DAYS, "--query", "operator.json"),
            "--query.event_properties[0].operator: unknown operator 'is'",
        ),
        (
            ("Charged", *DAYS, "--where", "a = 1", "--query", "operator.json"),
            "--query.event_properties[0].operator: unknown operator 'is'",
        ),
        (
            ("Charged", *DAYS, "--where", "a = 1", "--query", "events.json"),
            "--query: holds 'event_properties', and the argument --where is given as well",
        ),
        (
            ("--everyone", "--query", "session.json"),
            "--query.session_properties: it filters an event",
        ),
        (("--everyone", "--query", "empty.json"), "holds no condition"),
        (("--everyone", "--query", "common.json"), "holds no condition"),
        (("--everyone", "--query", "lists.json"), "holds no condition"),
        # an option of one value given twice
        (("Charged", *DAYS, *DAYS[:2]), "--from is given 2 times; give it once"),
        (
            ("Charged", *DAYS, "--query", "empty.json", "--query", "events.json"),
            "--query is given 2 times; give it once",
        ),
        (("Charged", *DAYS, "--timeout", "5", "--timeout=9"), "--timeout is given 2 times"),
        # a condition that the shell has split
        (
            ("Charged", *DAYS, "--where", "Amount", "=", "jane@example.com"),
            "a condition stands in quotation marks, as one word for the shell: --where 'Amount",
        ),
        (
            ("Charged", *DAYS, "--profile-where", "City", "does", "not", "contain", "jane"),
            "quotation marks",
        ),
        # words of the command line, not of Python
        (
            ("Charged", *DAYS, "--query", "missing.json"),
            "--query.event_properties[0].operator: missing; use one of equals, ",
        ),
        (
            ("Charged", *DAYS, "--query", "order.json"),
            "[0].value: greater_than of 'a' compares numbers, got text; give one number",
        ),
        (
            ("Charged", *DAYS, "--query", "members.json"),
            "--query.advanced_query: unknown member 'did_none'; known are did_all, ",
        ),
    ],
)
def test_wrong_usage(
    env: dict[str, str],
    tmp_path: Path,
    command: tuple[str, ...],
    arguments: tuple[str, ...],
    words: str,
) -> None:
    for name, content in {
        "base": {"event_name": "X"},
        "typo": {"advanced_qery": {}},
        "operator": {"event_properties": [{"name": "a", "operator": "is"}]},
        "events": {"event_properties": [{"name": "a", "operator": "exists"}]},
        "session": {"session_properties": []},
        "empty": {},
        "common": {"common_profile_properties": {}},
        "lists": {
            "advanced_query": {"did_all": []},
            "common_profile_properties": {"geo_fields": []},
        },
        "missing": {"event_properties": [{"name": "a"}]},
        "order": {"event_properties": [{"name": "a", "operator": "gt", "value": "jane"}]},
        "members": {"advanced_query": {"did_none": []}},
    }.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    before = sorted(tmp_path.iterdir())
    done = run(env, *command, *arguments, cwd=tmp_path)
    assert (done.code, done.stdout) == (2, b""), done.stderr
    assert words in done.stderr
    assert "jane" not in done.stderr
    assert "Traceback" not in done.stderr
    # One form for all, whoever finds the fault.
    assert re.fullmatch(r"error: \S.*\n", done.stderr)
    for word in ("type str", "an int", "Invalid value", "Usage"):
        assert word not in done.stderr
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is not JSON: Expecting value in line 1, column 1"),
        (b'{"advanced_query": {}', "in line 1, column 22"),
        (b'{\n  "advanced_query": {,}\n}', "in line 2, column 22"),
        (b"{'advanced_query': {}}", "in line 1, column 2"),
        (b'{"advanced_query": {}} {}', "is not JSON: Extra data in line 1, column 24"),
        (b"[]", "holds no JSON object; write "),
        (b'"jane@example.com"', "holds no JSON object"),
        (b"null", "holds no JSON object"),
        (b'{"a": "\xff"}', "is not UTF-8, from byte 8 on"),
        ('{"a": 1}'.encode("utf-16"), "is not UTF-8"),
        (b'{"a": NaN}', "it holds the number NaN"),
        (b'{"a": -Infinity}', "it holds the number -Infinity"),
        (b'{"a": %b}' % (b"9" * 5000), "it holds the number 99999999…"),
        (b'{"advanced_query": {"likes": 1e999}}', "not finite"),
        (b'{"advanced_query": {"likes": 9223372036854775808}}', "64 bits"),
        (b'{"advanced_query": {}, "advanced_query": {}}', "'advanced_query' twice"),
        (b'{"advanced_query": {"did_all": [{"a": 1, "a": 2}]}}', "the member 'a' twice"),
        (b"[" * 100_000, "nested too deep"),
        (b'{"a": "%b"}' % (b" " * (1 << 20)), "has more than 1,048,576 bytes"),
        (b'{"advanced_query": {"likes": "\\ud800"}}', "surrogate"),
    ],
    ids=lambda value: repr(value[:30]),
)
def test_a_file_that_holds_no_query(
    env: dict[str, str], tmp_path: Path, content: bytes, words: str
) -> None:
    (tmp_path / "q.json").write_bytes(content)
    arguments = ("count", "Charged", *DAYS, "--query")
    for source, label in (("q.json", "q.json"), ("-", "standard input")):
        done = run(env, *arguments, source, stdin=content, cwd=tmp_path)
        assert (done.code, done.stdout) == (2, b""), done.stderr
        assert words in done.stderr
        assert label in done.stderr or words in ("not finite", "64 bits", "surrogate")
        assert "--query" in done.stderr
        assert "jane" not in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["export", "count"])
def test_the_help_has_the_grammar_of_conditions(env: dict[str, str], command: str) -> None:
    text = " ".join(run(env, command, "--help").stdout.decode().split())
    assert "A CONDITION is NAME OP VALUE in quotation marks, with =, !=, >, >=, <, <=, " in text
    assert "NAME exists, NAME does not exist" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ("Charged", *DAYS, "--where", "Amount > 1000000000"),
            "warning: 0 people; check the name of the event, upper and lower case included, the ",
        ),
        (
            ("--everyone", "--profile-where", "Customer Type = Diamond"),
            "warning: 0 people; check names, operators and values of the filters, and that",
        ),
    ],
)
def test_a_count_of_nobody_names_the_next_step(
    env: dict[str, str], arguments: tuple[str, ...], words: str
) -> None:
    done = run(env, "count", *arguments)
    assert (done.code, done.stdout) == (0, b"0\n")
    assert done.stderr.startswith(words)
    assert done.stderr.count("0 people") == 1


def test_several_values_are_a_list_in_a_query(env: dict[str, str], tmp_path: Path) -> None:
    where = ("count", "--everyone", "--profile-where")
    refused = run(env, *where, "Customer Type = Gold or Silver")
    assert (refused.code, refused.stdout) == (2, b"")
    assert "error: --profile-where: one value per condition; " in refused.stderr
    query, _ = json.JSONDecoder().raw_decode(refused.stderr, refused.stderr.index("{"))
    (tmp_path / "q.json").write_text(json.dumps(query))
    both = run(env, "count", "--everyone", "--query", "q.json", cwd=tmp_path)
    assert both.code == 0, both.stderr
    single = [int(run(env, *where, f"Customer Type = {one}").stdout) for one in ("Gold", "Silver")]
    assert int(both.stdout) == sum(single) > max(single)


def test_a_comma_in_a_value_is_a_warning(env: dict[str, str]) -> None:
    where = ("count", "--everyone", "--profile-where")
    done = run(env, *where, "Customer Type = Gold, Silver")
    assert (done.code, done.stdout) == (0, b"0\n")
    assert "warning: --profile-where: the value is one text, with its commas; " in done.stderr
    assert "Silver" not in done.stderr
    quoted = run(env, *where, 'Customer Type = "Gold, Silver"')
    assert "commas" not in quoted.stderr


@pytest.mark.parametrize("command", [("export", "-o", "p.csv"), ("count",)], ids=lambda x: x[0])
@pytest.mark.parametrize(
    ("option", "condition", "words"),
    [
        ("--where", "Customer Type = Gold", "those of the profile go to --profile-where"),
        ("--profile-where", "Amount > 1", "properties of the event go to --where"),
    ],
)
def test_nobody_by_a_property_of_the_other_kind_names_the_other_option(
    env: dict[str, str],
    tmp_path: Path,
    command: tuple[str, ...],
    option: str,
    condition: str,
    words: str,
) -> None:
    done = run(env, *command, "Charged", *DAYS, option, condition, cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert "0 people" in done.stderr
    assert words in done.stderr


@pytest.mark.parametrize("command", [("export", "-o", "p.csv"), ("count",)], ids=lambda x: x[0])
def test_a_misspelt_event_names_the_next_step(
    env: dict[str, str], tmp_path: Path, command: tuple[str, ...]
) -> None:
    done = run(env, *command, "Chargd", *DAYS, "--where", "Amount > 5", cwd=tmp_path)
    assert done.code == 2
    assert "This is the service's answer to 'Chargd' (filtered); it expects the name as" in (
        done.stderr
    )


@pytest.mark.parametrize(
    ("query", "part"),
    [
        ({"advanced_query": {"did_all": [{"event_name": "Charged"}]}}, "advanced_query"),
        ({"session_properties": [{"name": "first_time", "value": 1}]}, "session_properties"),
        (
            {"common_profile_properties": {"demographics": {"gender": ["M"]}}},
            "common_profile_properties.demographics",
        ),
    ],
)
def test_the_emulator_names_itself_where_it_evaluates_no_filter(
    env: dict[str, str], tmp_path: Path, query: dict[str, Any], part: str
) -> None:
    (tmp_path / "q.json").write_text(json.dumps(query))
    done = run(env, "count", "Charged", *DAYS, "--query", "q.json", cwd=tmp_path)
    assert done.code == 2
    assert f"{part} is not evaluated by the emulator of altaprofiles" in done.stderr


def test_windows_of_everyone(env: dict[str, str], tmp_path: Path) -> None:
    arguments = ("export", "--everyone", "-o", "p.csv", "--windows")
    done = run(env, *arguments, "3", cwd=tmp_path)
    assert done.code == 2
    assert "--windows: everyone is one chain, got 3; leave windows at 'auto'" in done.stderr
    assert run(env, *arguments, "1", cwd=tmp_path).code == 0


# ------------------------------------------------------------------------------------- resumption


def command_of(name: str, *arguments: str) -> str:
    with cli.make_context("altaprofiles", [name], obj=App()) as group:
        with cli.commands[name].make_context(name, list(arguments), parent=group) as context:
            return command_line(context)


def test_the_command_that_resumes_has_the_conditions(tmp_path: Path) -> None:
    (tmp_path / "q.json").touch()
    query = str(tmp_path / "q.json")
    given = (
        *("--where", '"it\'s" != "a b"', "--where", "Amount > 100", "--profile-where", "-x = $5"),
        *("--query", query, "-o", "p.csv"),
    )
    for arguments in (("Charged", *DAYS, *given), ("--everyone", *given[4:])):
        text = command_of("export", *arguments)
        words = shlex.split(text)
        words = words[words.index("export") :]
        assert command_of(*words) == text
        for word in given[-6:]:
            assert word in words or word == "-o"
        assert ("--everyone" in words) == (arguments[0] == "--everyone")


def interrupted(env: dict[str, str], folder: Path, *arguments: str, stdin: bytes = b"") -> Done:
    """Run an export until a page is on disk, and terminate it."""

    def kept() -> set[Path]:
        return {path for path in folder.glob("*.export/*/*.spool.ndjson") if path.stat().st_size}

    before = kept()
    streams: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with start([*COMMAND, *arguments], **streams, env=env, cwd=folder) as process:
        assert process.stdin is not None
        process.stdin.write(stdin)
        process.stdin.close()
        while kept() == before:
            assert process.poll() is None
            time.sleep(0.02)
        process.terminate()
        assert process.stderr is not None
        stderr = process.stderr.read().decode()
        return Done(process.wait(timeout=PATIENCE), b"", stderr)


def test_a_log_in_json_repeats_no_condition(
    env: dict[str, str], service: Emulator, tmp_path: Path
) -> None:
    export = ("export", "Charged", *DAYS, "--batch-size", "23", "-o", "p.ndjson")
    condition = ("--profile-where", "Customer Type != jack@example.com", "--log-format", "json")
    with held(service, passing=1, holding=9) as (variables, _):
        done = interrupted(env | variables, tmp_path, *export, *condition)
    assert done.code == 128 + signal.SIGTERM
    messages = [json.loads(line)["message"] for line in done.stderr.splitlines()]
    assert "jack" not in done.stderr
    # No command that would be another export.
    assert messages[-1].startswith(f"To resume: run the same command again in {tmp_path}; ")


@pytest.mark.parametrize("source", ["q.json", "-"])
@pytest.mark.parametrize(
    "people", [("Charged", *DAYS, "--where", "Coupon exists"), ("--everyone",)]
)
def test_an_interrupted_export_resumes_by_the_command_that_it_prints(
    env: dict[str, str],
    service: Emulator,
    tmp_path: Path,
    source: str,
    people: tuple[str, ...],
) -> None:
    gold = {"common_profile_properties": {"profile_fields": [GOLD]}}
    query = json.dumps({} if people[0] == "Charged" else gold).encode()
    (tmp_path / "q.json").write_bytes(query)
    arguments = ("export", *people, "--query", source, "--batch-size", "23", "--windows", "1")
    whole = run(env, *arguments, "-o", "whole.ndjson", stdin=query, cwd=tmp_path)
    assert whole.code == 0, whole.stderr
    with held(service, passing=1, holding=9) as (variables, let_pass):
        held_env = env | variables
        done = interrupted(held_env, tmp_path, *arguments, "-o", "p.ndjson", stdin=query)
        assert done.code == 128 + signal.SIGTERM
        let_pass()
        line = re.search("To resume: (.*)", done.stderr)
        assert line is not None
        prefix, _, _ = line[1].rpartition("python")
        assert prefix.startswith("pipe the same query into ") == (source == "-")
        words = resuming_words(done.stderr)
        again = words[words.index("export") :]
        opened = service.stats.requests["open_chain"]
        resumed = run(held_env, *again, stdin=query, cwd=tmp_path)
        assert (resumed.code, resumed.stdout) == (0, os.fsencode("p.ndjson") + b"\n")
        assert service.stats.requests["open_chain"] == opened
    assert (tmp_path / "p.ndjson").read_bytes() == (tmp_path / "whole.ndjson").read_bytes()


def test_differences_of_an_unfinished_export_in_the_command_s_words(
    env: dict[str, str], service: Emulator, tmp_path: Path
) -> None:
    begun = ("export", "Charged", *DAYS, "--where", "Amount > 10", "--batch-size", "23")
    folder = tmp_path / "p.ndjson.export"
    with held(service, passing=1, holding=9) as (variables, _):
        # The address is a part of the plan.
        env |= variables
        interrupted(env, tmp_path, *begun, "-o", "p.ndjson")
    [begun_in] = folder.glob("events-*")

    def mismatch(*other: str) -> str:
        """Return the error of an export whose workspace somebody has put another one in."""
        command = [*stopping("sqlite3.connect", "/events-"), "export", *other, "-o", "p.ndjson"]
        with start(command, env=env, cwd=tmp_path) as process:
            assert wait_until_stopped(process)
            process.kill()
        [workspace] = set(folder.glob("events-*")) - {begun_in}
        shutil.rmtree(workspace)
        begun_in.rename(workspace)
        done = run(env, "export", *other, "-o", "p.ndjson", cwd=tmp_path)
        workspace.rename(begun_in)
        assert done.code == 2
        assert f"not shown here: the journal in {workspace} has the earlier ones" in done.stderr
        assert "`" not in done.stderr
        return done.stderr

    size = ("--batch-size", "23")
    for other, words in (
        (("--where", "Amount > 11"), "--where has other values: 'Amount' greater_than …"),
        (("--where", "a exists"), "--where was 'Amount' greater_than … and is now 'a' exists …"),
        ((), "--where was 'Amount' greater_than … and is now left out"),
    ):
        assert words in mismatch("Charged", *DAYS, *other, *size)
    (tmp_path / "q.json").write_text(
        json.dumps({"common_profile_properties": {"profile_fields": [GOLD]}})
    )
    queried = ("--where", "Amount > 10", "--query", "q.json")
    text = mismatch("Charged", *DAYS, *queried, *size)
    assert "--query is different in common_profile_properties. Give" in text
    assert "--profile-where" not in text
    text = mismatch("--everyone", *size)
    assert "EVENT was 'Charged' and is now left out" in text
    assert "--from was 20260101 and is now left out" in text


def test_the_query_of_the_guide_is_one_that_works(
    env: dict[str, str], tmp_path: Path, service: Emulator
) -> None:
    text = (GUIDES / "export-and-resume.md").read_text("utf-8")
    (block,) = re.findall(r"```json\n(.*?common_profile_properties.*?)```", text, re.DOTALL)
    (tmp_path / "q.json").write_text(block)
    done = run(env, "count", "--everyone", "--query", "q.json", cwd=tmp_path)
    people = service.population.everyone(
        profile_fields=json.loads(block)["common_profile_properties"]["profile_fields"]
    )
    assert (done.code, int(done.stdout)) == (0, len(people))
    assert people
    for name in ("Identity", "Email", "Phone", "Name"):
        found = run(env, "count", "--everyone", "--profile-where", f"{name} exists")
        assert int(found.stdout) > 0


@pytest.mark.parametrize("command", [("export", "-o", "p.csv"), ("count",)], ids=lambda x: x[0])
@pytest.mark.parametrize("options", [(), ("--where", "Amount > 5")], ids=["", "filtered"])
@pytest.mark.parametrize(
    ("name", "odd"),
    [
        ("Charge\u0301d", "COMBINING ACUTE ACCENT (U+0301)"),
        ("\u0421harged", "CYRILLIC CAPITAL LETTER ES (U+0421)"),
    ],
    ids=["decomposed", "mixed"],
)
def test_nobody_of_a_name_that_looks_like_another_names_its_odd_character(
    tmp_path: Path, command: tuple[str, ...], options: tuple[str, ...], name: str, odd: str
) -> None:
    with emulated(people=0) as emulator:
        env = environment(tmp_path, emulator.environment)
        done = run(env, *command, name, *DAYS, *options, cwd=tmp_path)
    assert (done.code, "0 people" in done.stderr) in ((0, True), (2, False)), done.stderr
    assert f"because it has {odd}; compare it with the name in the dashboard" in done.stderr
