"""The output of `who`, and of exports with `--with-cdp`, on terminals and through pipes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from anyio import to_thread

from altaprofiles.emulator import Emulator

from ..support.joining import NO_TOKEN, USED_UP, both
from ..support.terminals import Terminal, emulated, environment, run


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with emulated(people=300, seed=3) as running:
        yield running


@pytest.fixture
def env(emulator: Emulator, tmp_path: Path) -> dict[str, str]:
    return environment(tmp_path, emulator.environment)


@pytest.fixture(scope="module")
def bound(emulator: Emulator) -> str:
    """Return an identity that is bound at Alta as well."""
    people = emulator.population
    return next(
        identity
        for index in range(len(people))
        if (identity := people.identity(index)) and emulator.bindings.by_user(identity)
    )


def test_a_customer_is_a_line_of_json_in_a_pipe(env: dict[str, str], bound: str) -> None:
    done = run(env, "who", "--identity", bound)
    assert (done.code, done.stderr) == (0, "")
    [line] = done.stdout.splitlines()
    customer = json.loads(line)
    record = run(env, "get", "--identity", bound).stdout
    assert line.startswith(b'{"profile":' + record.strip())
    assert [one["user_id"] for one in customer["cdp"]] == [bound]
    assert run(env, "who", "--user-id", bound) == done


def test_a_user_whom_clevertap_does_not_know(env: dict[str, str]) -> None:
    done = run(env, "who", "--user-id", "BC123")
    [customer] = map(json.loads, done.stdout.splitlines())
    assert (done.code, customer["profile"]) == (0, None)
    assert [one["user_id"] for one in customer["cdp"]] == ["BC123"]
    done = run(env, "who", "--anonymous-id", "aId3")
    assert [len(json.loads(line)["cdp"]) for line in done.stdout.splitlines()] == [1, 1]


def test_a_customer_is_tables_on_a_terminal(env: dict[str, str], bound: str) -> None:
    with Terminal(env, "who", "--identity", bound, columns=200) as terminal:
        assert terminal.ended().code == 0
    assert "identity" in terminal.text
    assert "anonymous ID" in terminal.text
    with Terminal(env, "who", "--user-id", "BC123") as terminal:
        assert terminal.ended().code == 0
    assert "CleverTap does not know this user" in terminal.text
    assert "22ses32dsafdabd1w2sad" in terminal.text


@pytest.mark.parametrize(
    "option", ["--email", "--identity", "--object-id", "--user-id", "--anonymous-id"]
)
def test_nobody(env: dict[str, str], option: str) -> None:
    done = run(env, "who", option, "nobody-here")
    assert (done.code, done.stdout) == (5, b"")
    asked = {"--email": "CleverTap knows nobody", "--anonymous-id": "Alta knows nobody"}
    assert asked.get(option, "nobody: ") in done.stderr
    assert "nobody-here" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "got none"),
        (["--email", "a", "--user-id", "b"], "got --email and --user-id"),
        (["--email", ""], "email: empty"),
    ],
)
def test_wrong_usage(env: dict[str, str], arguments: list[str], words: str) -> None:
    done = run(env, "who", *arguments)
    assert (done.code, done.stdout) == (2, b"")
    assert words in done.stderr


@pytest.mark.parametrize(
    ("left_out", "label"), [("ALTA_TOKEN", "Alta"), ("CLEVERTAP_ACCOUNT_ID", "CleverTap")]
)
def test_credentials_of_both_services(env: dict[str, str], left_out: str, label: str) -> None:
    missing = {name: value for name, value in env.items() if not name.startswith(left_out[:5])}
    for arguments in (
        ["who", "--user-id", "BC123"],
        [
            "export",
            "Charged",
            "--from",
            "2026-01-01",
            "--to",
            "2026-01-31",
            "-o",
            "x.ndjson",
            "--with-cdp",
        ],
    ):
        done = run(missing, *arguments)
        assert (done.code, done.stdout) == (3, b"")
        assert f"no {label} credentials" in done.stderr


RANGE = ("--from", "2026-01-01", "--to", "2026-01-31")


def test_an_export_with_cdp(env: dict[str, str], emulator: Emulator, tmp_path: Path) -> None:
    done = run(env, "export", "Charged", *RANGE, "-o", "p.ndjson", "--with-cdp", cwd=tmp_path)
    assert done.code == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "p.ndjson").read_bytes().splitlines()]
    matched = sum(bool(line["cdp"]) for line in lines)
    assert matched > 10
    assert (
        f"{matched:,} with users at Alta, {len(lines) - matched:,} without, 0 failed" in done.stderr
    )


def test_a_lookup_with_cdp(env: dict[str, str], bound: str, tmp_path: Path) -> None:
    arguments = ["lookup", "-", "--by", "identity", "-o", str(tmp_path / "p.ndjson"), "--json"]
    done = run(env, *arguments, "--with-cdp", stdin=f"{bound}\nnobody\n".encode())
    assert done.code == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["matched"], report["unmatched"], report["join_failed"]) == (1, 0, 0)
    done = run(env, *arguments, "--cdp-by", "anonymous-id", stdin=b"1\n")
    assert done.code == 2
    assert "--cdp-by" in done.stderr


@pytest.mark.anyio
async def test_a_failed_join_is_incomplete_and_the_same_command_asks_again(tmp_path: Path) -> None:
    async with both() as services:
        services.pages = [[b'{"identity":"a"}', b'{"identity":"b"}']]
        services.answer = USED_UP
        env = environment(
            tmp_path,
            CLEVERTAP_ACCOUNT_ID="TEST",
            CLEVERTAP_PASSCODE="PASS",
            CLEVERTAP_BASE_URL=services.url,
            ALTA_TOKEN="TOKEN",
            ALTA_BASE_URL=services.url,
        )
        arguments = ["export", "Charged", *RANGE, "--windows", "1", "-o", "p.ndjson", "--with-cdp"]
        command = partial(run, env, *arguments, cwd=tmp_path)
        done = await to_thread.run_sync(command)
        assert (done.code, done.stdout) == (4, b"")
        assert "no answer for the CDP users of 2 people" in done.stderr
        assert "p.ndjson.failed.ndjson" in done.stderr
        assert "--with-cdp" in done.stderr.partition("To resume: ")[2]
        lines = (tmp_path / "p.ndjson").read_bytes().splitlines()
        assert [json.loads(line)["cdp"] for line in lines] == [None, None]
        services.answer = None
        services.read.clear()
        done = await to_thread.run_sync(command)
        assert done.code == 0, done.stderr
        assert "0 with users at Alta, 2 without, 0 failed" in done.stderr
        assert services.read == []
        services.answer = NO_TOKEN
        done = await to_thread.run_sync(command)
        assert (done.code, done.stdout) == (3, b"")
