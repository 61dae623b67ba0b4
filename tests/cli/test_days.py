"""Days on the command line: their forms, relative ones, and the zone in which they are counted."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from altaprofiles.emulator import Emulator

from ..support.tasks import PATIENCE
from ..support.terminals import COMMAND, Done, emulated, environment, held, run


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with emulated(people=30, seed=2) as running:
        yield running


@pytest.fixture
def env(emulator: Emulator, tmp_path: Path) -> dict[str, str]:
    return environment(tmp_path, emulator.environment)


def exported(env: dict[str, str], folder: Path, *days: str, code: int = 0) -> Done:
    done = run(env, "export", "Charged", *days, "-o", "p.ndjson", "--json", cwd=folder)
    assert done.code == code, done.stderr
    return done


def range_of(done: Done) -> tuple[date, date]:
    chains = json.loads(done.stdout)["chains"]
    first, last = min(one["start"] for one in chains), max(one["end"] for one in chains)
    return as_date(first), as_date(last)


def as_date(day: int) -> date:
    return datetime.strptime(str(day), "%Y%m%d").replace(tzinfo=UTC).date()


def today() -> date:
    return datetime.now(UTC).date()


@pytest.mark.parametrize(
    ("days", "before"),
    [
        (("--from", "yesterday", "--to", "today"), (1, 0)),
        (("--from", "-7d", "--to", "-1d"), (7, 1)),
        (("--from=-30d", "--to=yesterday"), (30, 1)),
        (("--from", "-0d", "--to", "today"), (0, 0)),
    ],
)
def test_relative_days(
    env: dict[str, str], tmp_path: Path, days: tuple[str, ...], before: tuple[int, int]
) -> None:
    # Midnight may come in between.
    earliest = today()
    first, last = range_of(exported(env, tmp_path, *days))
    found = first + timedelta(days=before[0])
    assert earliest <= found <= today()
    assert last == found - timedelta(days=before[1])


def test_a_day_in_two_forms(env: dict[str, str], tmp_path: Path) -> None:
    days = ("--from", "2026-01-01", "--to", "20260131")
    found = range_of(exported(env, tmp_path, *days))
    assert found == (date(2026, 1, 1), date(2026, 1, 31))
    counted = run(env, "count", "Charged", *days)
    assert counted.code == 0
    assert run(env, "count", "Charged", "--from", "20260101", "--to", "2026-01-31") == counted


@pytest.mark.parametrize(
    "text",
    [
        "2026-W02",
        "2026-W02-1",
        "2026W021",
        "2026-031",
        "2026-1-1",
        "2026-02-30",
        "20260230x",
        "",
        " ",
        " 2026-01-01",
        "yesterday ",
        "Yesterday",
        "tomorrow",
        "-7",
        "7d",
        "+7d",
        "--7d",
        "-7 d",
        "-7D",
        "-7w",
        "-٧d",  # noqa: RUF001
        "-999999d",
        "٢٠٢٦٠١٣١",
        "２０２６-０１-３１",  # noqa: RUF001
        "9" * 5000,
    ],
)
def test_other_texts_are_refused(env: dict[str, str], tmp_path: Path, text: str) -> None:
    for option, other in (("--from", "--to=2026-01-31"), ("--to", "--from=2026-01-01")):
        done = run(env, "export", "Charged", f"{option}={text}", other, "-o", "p", cwd=tmp_path)
        assert (done.code, done.stdout) == (2, b"")
        assert done.stderr.startswith(f"error: {option}: {text!r} is not a day; write it as 2026-")
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("text", ["2026031", "20260230", "1767225600000", "99"])
def test_numbers_that_are_not_days(env: dict[str, str], text: str) -> None:
    done = run(env, "count", "Charged", "--from", text, "--to", "2026-01-31")
    assert (done.code, done.stdout) == (2, b"")
    assert done.stderr.startswith("error: --from: ")
    assert text in done.stderr


def test_the_command_to_resume_names_the_day_itself(
    env: dict[str, str], emulator: Emulator, tmp_path: Path
) -> None:
    opened = emulator.stats.requests["open_chain"]
    command = ("export", "Charged", "--from", "-2d", "--to", "yesterday", "-o", "p.ndjson")
    with held(emulator, holding=9) as (variables, let_pass):
        streams: dict[str, Any] = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
        with subprocess.Popen(
            [*COMMAND, *command], **streams, env=env | variables, cwd=tmp_path
        ) as process:
            while emulator.stats.requests["open_chain"] == opened:
                assert process.poll() is None
                time.sleep(0.02)
            process.terminate()
            stderr = process.communicate(timeout=PATIENCE)[1].decode()
        let_pass()
        assert process.returncode == 128 + signal.SIGTERM
        words = shlex.split(stderr.partition("To resume: ")[2])
        days = [words[words.index(option) + 1] for option in ("--from", "--to")]
        first, last = map(date.fromisoformat, days)
        assert last - first == timedelta(days=1)
        assert timedelta(days=1) <= today() - last <= timedelta(days=2)
        resumed = run(env | variables, *words[words.index("export") :], cwd=tmp_path)
        assert (resumed.code, resumed.stdout) == (0, b"p.ndjson\n")


def test_help_names_the_forms(env: dict[str, str]) -> None:
    for command in ("export", "count"):
        text = " ".join(run(env, command, "--help").stdout.decode().split())
        assert "today, yesterday, or -7d for seven days ago" in text
