"""The command line in a process of its own, as users run it."""

from __future__ import annotations

import inspect
import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from altaprofiles.cli import cli
from altaprofiles.emulator import Emulator, Fault

from ..support.forks import start
from ..support.tasks import PATIENCE
from ..support.terminals import COMMAND, Terminal, environment, serving, stopping


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1", "LC_ALL": "C.UTF-8"}
    streams: dict[str, Any] = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
    command = [*COMMAND, *arguments]
    with start(command, env=environment, text=True, **streams) as process:
        stdout, stderr = process.communicate(timeout=PATIENCE)
        return subprocess.CompletedProcess(command, process.wait(), stdout, stderr)


@pytest.mark.parametrize("arguments", [["--help"], ["demo", "--help"], ["emulator", "-h"]])
def test_help_explains_itself(arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.returncode == 0
    assert "Usage: altaprofiles" in done.stdout
    assert done.stderr == ""


def test_help_does_not_wait_for_what_commands_need() -> None:
    code = (
        "import sys; sys.argv[1:] = ['--help']\n"
        "from altaprofiles.__main__ import main\n"
        "try: main()\n"
        "except SystemExit: print({'aiohttp', 'msgspec', 'rich'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("\nset()\n")


KEYS = ["jane@example.com", "5555555555", "get@example.com", "Jane Doe", ""]


@pytest.mark.parametrize("key", KEYS)
def test_a_key_without_a_command_is_not_quoted(key: str) -> None:
    done = run(key)
    assert done.returncode == 2
    assert "no such command; for a person, run: altaprofiles get --email ADDRESS" in done.stderr
    assert not key or key not in done.stderr


@pytest.mark.parametrize(
    ("name", "meant"), [("exprot", "export"), ("lokup", "lookup"), ("emulater", "emulator")]
)
def test_a_mistyped_command_gets_the_one_that_is_meant(name: str, meant: str) -> None:
    done = run(name, "jane@example.com")
    assert done.returncode == 2
    assert f"no such command; did you mean {meant}?" in done.stderr
    assert name not in done.stderr
    assert "jane" not in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("--account", "north", "south", "export"),
        ("--account", "north", "south", "-q", "count"),
        ("--account", "my", "shop", "sync"),
        ("--log-format", "text", "jane", "get"),
    ],
)
def test_a_word_too_many_before_a_command_is_not_taken_for_one(words: tuple[str, ...]) -> None:
    done = run(*words, "Charged")
    assert done.returncode == 2
    assert f"no such command; there is a word too many before {words[-1]}: " in done.stderr
    assert "repeat --account for each account" in done.stderr
    assert words[2] not in done.stderr


@pytest.mark.parametrize("name", ["help", "version"])
def test_a_command_that_is_an_option_gets_that_one(name: str) -> None:
    done = run(name)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: no such command; run: altaprofiles --{name}")


@pytest.mark.parametrize(
    "arguments", [("get", "--email"), ("--account",), ("emulator", "--port", "8123", "--people")]
)
def test_an_option_without_its_value_is_an_error_like_any_other(arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    command = " ".join(("altaprofiles", *arguments[:1])) if len(arguments) > 1 else "altaprofiles"
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: {arguments[-1]}: its value is missing; see {command} --help\n"
    if len(arguments) > 1:
        done = run("--log-format", "json", *arguments)
        assert json.loads(done.stderr)["level"] == "error"


def test_an_unknown_option_is_still_named() -> None:
    assert "--nonesuch" in run("--nonesuch").stderr


def test_the_demo_tells_of_an_export_that_is_killed_and_resumed(tmp_path: Path) -> None:
    out = tmp_path / "people.ndjson"
    done = run("demo", "--people", "300", "--out", str(out))
    assert done.returncode == 0, done.stderr
    people = [json.loads(line) for line in out.read_bytes().splitlines()]
    assert re.search(rf"people exported +│ {len(people)}, each once, none missing", done.stdout)
    assert len(people) > 250
    assert [path.name for path in tmp_path.iterdir()] == ["people.ndjson"]
    digest = sha256(out.read_bytes()).hexdigest()
    # Of the export at once, and of the one that was killed.
    assert done.stderr.count(digest) == 2
    # The other process may have ended before the signal came.
    assert re.search(r"\n   (kill -9 \d+|It had ended before\.)\n", done.stderr)
    assert re.search(r"records were on the disk\. SHA-256, the same:\n", done.stderr)
    assert done.stdout.endswith(f"The people are in {out}\n")


def test_the_demo_answers_a_question_and_joins_both_services(tmp_path: Path) -> None:
    out = tmp_path / "people.ndjson"
    done = run("demo", "--people", "300", "--out", str(out))
    people = [json.loads(line) for line in out.read_bytes().splitlines()]
    gold = [charges(one) for one in people if one["profileData"].get("Customer Type") == "Gold"]
    assert re.search(rf"│ Gold +│ {len(gold)} +│ {sum(gold)} +│", done.stdout)
    best = sorted((charges(one) for one in people if one.get("identity")), reverse=True)
    _, table = done.stdout.split("channels at Alta")
    assert [*map(int, re.findall(r"^│ [^\n│]+ │ (\d+) ", table, re.MULTILINE))] == best[:8]


def charges(person: dict[str, Any]) -> int:
    count: int = person["events"].get("Charged", {}).get("count", 0)
    return count


def test_a_demo_with_a_single_person_is_whole() -> None:
    done = run("demo", "--people", "1")
    assert done.returncode == 0, done.stderr
    assert "1, each once, none missing" in done.stdout
    Path(done.stdout.rpartition("are in ")[2].strip()).unlink()


def test_the_demo_refuses_a_file_it_cannot_write() -> None:
    done = run("demo", "--people", "10", "--out", "/no/such/folder/people.ndjson")
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert "/no/such/folder" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("is_named", [False, True])
@pytest.mark.parametrize(
    ("event", "name"), [("open", "chain-0000"), ("subprocess.Popen", Path(sys.executable).name)]
)
def test_an_interrupted_demo_leaves_nothing_behind(
    tmp_path: Path, event: str, name: str, is_named: bool
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with Terminal(
        environment(tmp_path, TMPDIR=str(folder)),
        *("demo", *(("--out", str(folder / "people.ndjson")) if is_named else ())),
        piped=("stdout", "stderr"),
        command=stopping(event, name),
    ) as terminal:
        terminal.stopped()
        assert [*folder.iterdir()] != []
        terminal.interrupt(signal.SIGINT)
        terminal.interrupt(signal.SIGCONT)
        done = terminal.ended()
    assert (done.code, done.stdout) == (130, b"")
    assert [*folder.iterdir()] == []
    assert "Traceback" not in done.stderr
    assert "interrupted" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_emulator_serves_until_it_is_interrupted(number: signal.Signals) -> None:
    with serving("--people", "20") as (process, variables):
        request = urllib.request.Request(  # noqa: S310
            variables["CLEVERTAP_BASE_URL"] + "/1/profile.json?identity=5555555555",
            headers={
                "X-CleverTap-Account-Id": variables["CLEVERTAP_ACCOUNT_ID"],
                "X-CleverTap-Passcode": variables["CLEVERTAP_PASSCODE"],
            },
        )
        with urllib.request.urlopen(request, timeout=PATIENCE) as response:  # noqa: S310
            assert json.load(response)["record"]["identity"] == "5555555555"
        process.send_signal(number)
        assert process.wait(timeout=PATIENCE) == 0


def test_the_emulator_has_limits_of_minutes_and_real_records() -> None:
    options = ["--record-size", "real", "--alta-per-minute", "1", "--window-seconds", "3600"]
    with serving("--people", "20", "--alta-envelope", "v1.5", *options) as (_, variables):

        def ask(target: str) -> tuple[bytes, str | None]:
            headers = {
                "X-CleverTap-Account-Id": variables["CLEVERTAP_ACCOUNT_ID"],
                "X-CleverTap-Passcode": variables["CLEVERTAP_PASSCODE"],
                "Authorization": f"Bearer {variables['ALTA_TOKEN']}",
            }
            request = urllib.request.Request(variables["ALTA_BASE_URL"] + target, headers=headers)  # noqa: S310
            try:
                with urllib.request.urlopen(request, timeout=PATIENCE) as response:  # noqa: S310
                    return response.read(), response.headers["X-RateLimit-Remaining"]
            except urllib.error.HTTPError as error:
                return error.read(), error.headers["X-RateLimit-Remaining"]

        body, remaining = ask("/v1/user/get-user-cdp?user_id=BC123")
        assert json.loads(body)["data"].keys() == {"BC123"}
        assert remaining == "0"
        body, remaining = ask("/v1/user/get-user-cdp?user_id=BC123")
        assert "RPM request limit exceeded" in json.loads(body)["error"]["message"]
        assert remaining == "0"
        sizes = [len(ask(f"/1/profile.json?identity=user_{n}")[0]) for n in range(2, 20)]
        assert max(sizes) > 13_000


def test_every_fault_is_in_the_help_of_the_emulator() -> None:
    words = set(re.findall(r"[a-z0-9_]+", run("emulator", "--help").stdout))
    assert {fault.value for fault in Fault} <= words


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--max-in-flight", "0", "0; use 1 or more"),
        ("--lookups-max-in-flight", "-1", "-1; use 1 or more"),
        ("--alta-per-day", "0", "0; use 1 or more"),
        ("--think", "inf", "inf; use 0 or more"),
        ("--window-seconds", "0", "0.0; use more than 0"),
        ("--fault", "reset=2", "'reset' has rate 2.0"),
        ("--counts-max-in-flight", "0", "0; use 1 or more"),
        ("--max-open-chains", "0", "0; use 1 or more"),
        ("--cursor-lifetime", "-1", "-1.0; use 0 or more"),
        ("--alta-error", "1", "1; use None or 20022 or 20055"),
    ],
)
def test_the_emulator_names_the_option_that_cannot_be(option: str, value: str, words: str) -> None:
    done = run("emulator", option, value)
    assert done.returncode == 2
    assert f"error: {option}: {words}" in " ".join(done.stderr.split())


def test_every_setting_of_the_emulator_has_an_option() -> None:
    options = {param.name for param in cli.commands["emulator"].params}
    assert set(inspect.signature(Emulator).parameters) <= options


def fetch(variables: dict[str, str], target: str, *, method: str = "GET", body: str = "") -> Any:
    request = urllib.request.Request(  # noqa: S310
        variables["ALTA_BASE_URL"] + target,
        data=body.encode() or None,
        method=method,
        headers={
            "X-CleverTap-Account-Id": variables["CLEVERTAP_ACCOUNT_ID"],
            "X-CleverTap-Passcode": variables["CLEVERTAP_PASSCODE"],
            "Authorization": f"Bearer {variables['ALTA_TOKEN']}",
        },
    )
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as response:  # noqa: S310
            return json.loads(response.read() or "null")
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_the_emulator_serves_people_of_ones_own(tmp_path: Path) -> None:
    records, bindings = tmp_path / "people.ndjson", tmp_path / "bindings.json"
    records.write_text('{"identity": "ann"}\n\n{"identity": "bo", "profileData": {"n": 1}}\n')
    bindings.write_text('{"bo": ["a1"]}')
    with serving("--records", str(records), "--bindings", str(bindings)) as (_, variables):
        bo = fetch(variables, "/1/profile.json?identity=bo")["record"]
        assert bo == {"identity": "bo", "profileData": {"n": 1}}
        assert fetch(variables, "/v1/user/get-user-cdp?anonymous_id=a1")["data"].keys() == {"bo"}
        query = '{"event_name": "Mine", "from": 20260101, "to": 20260101}'
        opening = fetch(variables, "/1/profiles.json", method="POST", body=query)
        page = fetch(variables, f"/1/profiles.json?cursor={opening['cursor']}")
        assert [one["identity"] for one in page["records"]] == ["ann", "bo"]


def test_the_emulator_serves_what_an_export_has_brought(tmp_path: Path) -> None:
    records = tmp_path / "people.ndjson"
    line = r'{"identity":"ann","name":"cut \ud83d","phone":919876543210.0}'
    records.write_text(f"{line}\n")
    with serving("--records", str(records)) as (_, variables):
        ann = fetch(variables, "/1/profile.json?identity=ann")["record"]
    assert json.dumps(ann, separators=(",", ":")) == line


def test_the_emulator_serves_a_replay(tmp_path: Path) -> None:
    file = tmp_path / "run.ndjson"
    verify = {"request": {"operation": "verify"}, "status": 200, "body": {"code": 0, "data": 7}}
    header = {"format": "altaprofiles replay", "version": 1}
    file.write_text(f"{json.dumps(header)}\n{json.dumps(verify)}\n")
    with serving("--replay", str(file)) as (_, variables):
        assert fetch(variables, "/v1/api-key/verify") == {"code": 0, "data": 7}
        status, answer = fetch(variables, "/1/profile.json?identity=5555555555")
        assert (status, "not in the replay" in answer["error"]) == (400, True)


@pytest.mark.parametrize(
    ("option", "text", "words"),
    [
        ("--replay", "{}", "line 1 is not the beginning of a replay"),
        ("--records", '{"identity": "a"}\n\n{"name": "secret"}\n', "line 3: has neither identity"),
        (
            "--records",
            '{"identity": "a"}\n{"identity": "a"}',
            "line 2, identity: is that of line 1 as well",
        ),
        ("--records", '{"identity": "a", "email": 1}', "line 1, email: expected text, got a whole"),
        ("--records", '{"identity": "a"}\n{"secret', "line 2 is not JSON; write one record a line"),
        ("--records", '{"identity": "a", "n": NaN}', "line 1 is not JSON"),
        ("--records", '["secret"]', "line 1: expected an object, got a list"),
        ("--records", None, "does not exist"),
        ("--bindings", '{"secret": "a1"}', "entry 1: expected a list of anonymous IDs"),
        ("--bindings", '{"secret', "the file is not JSON"),
    ],
)
def test_a_wrong_file_is_named_by_its_place(
    tmp_path: Path, option: str, text: str | None, words: str
) -> None:
    file = tmp_path / "file"
    if text is not None:
        file.write_text(text)
    done = run("emulator", option, str(file))
    assert done.returncode == 2
    assert option in done.stderr
    assert words in " ".join(done.stderr.split())
    assert "secret" not in done.stderr


def test_faults_and_latency_change_while_the_emulator_runs() -> None:
    with serving("--people", "20", "--fault", "slow=0.5") as (_, variables):
        assert fetch(variables, "/faults") == {"slow": 0.5}
        outage = {"server_error": 1}
        assert fetch(variables, "/faults", method="PUT", body=json.dumps(outage)) == outage
        status, _ = fetch(variables, "/1/profile.json?identity=5555555555")
        assert status >= 500
        for body, words in (
            ('{"no": 1}', "faults: 'no' is not a fault; use one of not_ready, "),
            ('{"reset": "0.2"}', "faults: 'reset' has rate '0.2'; use a number from 0 to 1"),
            ('{"reset": true}', "faults: 'reset' has rate True; use a number from 0 to 1"),
            ("[]", "faults: use rates by name"),
            ("{", "faults: the body is not JSON"),
        ):
            status, answer = fetch(variables, "/faults", method="PUT", body=body)
            assert status == 400
            assert answer["error"].startswith(words)
        assert fetch(variables, "/faults", method="POST", body="{}")[0] == 405
        assert fetch(variables, "/faults") == outage
        assert fetch(variables, "/faults", method="PUT", body="{}") == {}
        found = fetch(variables, "/1/profile.json?identity=5555555555")
        assert found["record"]["identity"] == "5555555555"
        assert fetch(variables, "/think") == 0
        # One more answer after it shows that it still serves.
        assert fetch(variables, "/think", method="PUT", body="0.001") == 0.001
        assert fetch(variables, "/1/profile.json?identity=5555555555") == found
        for body, words in (
            ("-1", "think is -1; use 0 or more"),
            ('"1"', "think is '1'; use 0 or more"),
            ("{", "think: the body is not JSON"),
        ):
            status, answer = fetch(variables, "/think", method="PUT", body=body)
            assert (status, answer) == (400, {"error": words})
        status, answer = fetch(variables, "/think", method="POST", body="1")
        assert answer == {"error": "think: use GET, or PUT with a number of seconds"}
        assert (status, fetch(variables, "/think")) == (405, 0.001)


ROTATIONS = [
    ("passcode", "CLEVERTAP_PASSCODE", "/1/profile.json?identity=5555555555"),
    ("token", "ALTA_TOKEN", "/v1/user/get-user-cdp?user_id=BC123"),
]


@pytest.mark.parametrize(("name", "variable", "target"), ROTATIONS)
def test_secrets_are_rotated_while_the_emulator_runs(name: str, variable: str, target: str) -> None:
    new = "new-secret-7654321"
    with serving("--people", "20") as (process, variables):
        before = fetch(variables, target)
        for body, words in (
            (f'"{new} x"', "holds a space, a line break or a character outside ASCII"),
            ('""', "expected text that is not empty, got empty text"),
            ("7654321", "expected text that is not empty, got an int"),
            (f'["{new}"]', "expected text that is not empty, got a list"),
            (new, "the body is not JSON"),
        ):
            status, answer = fetch(variables, f"/{name}", method="PUT", body=body)
            assert status == 400
            assert answer["error"].startswith(f"{name}: {words}")
            assert "7654321" not in answer["error"]
        for method in ("GET", "POST"):
            refused = fetch(variables, f"/{name}", method=method, body=f'"{new}"')
            assert refused == (405, {"error": f"{name}: use PUT with a JSON text"})
        assert fetch(variables, target) == before
        assert fetch(variables, f"/{name}", method="PUT", body=f'"{new}"') is None
        assert fetch(variables, target) != before
        assert fetch(variables | {variable: new}, target) == before
        process.send_signal(signal.SIGINT)
        shown = "".join(process.communicate(timeout=PATIENCE))
    assert new not in shown


def test_the_emulator_names_a_port_that_is_taken() -> None:
    with serving() as (_, variables):
        port = variables["ALTA_BASE_URL"].rpartition(":")[2]
        done = run("emulator", "--port", port)
        assert done.returncode == 1
        assert port in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("not_ready", "NAME=RATE"),
        ("not_ready=often", "NAME=RATE"),
        ("nonsense=0.5", "not_ready"),
        ("not_ready=2", "not_ready"),
    ],
)
def test_a_wrong_fault_is_a_usage_error_that_says_what_is_right(fault: str, words: str) -> None:
    done = run("emulator", "--fault", fault)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
