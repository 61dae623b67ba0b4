"""Days on the command line: their forms, relative ones, and the zone in which they are counted."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from altaprofiles.emulator import Emulator

from ..support.forks import start
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


EAST, WEST = "Pacific/Kiritimati", "Etc/GMT+12"
"""Time zones in which it is never the same day."""


def test_days_that_are_all_to_come_are_no_zero(env: dict[str, str], tmp_path: Path) -> None:
    first, last = (today() + timedelta(days=ahead) for ahead in (3, 9))
    done = run(env, "count", "Charged", "--from", f"{first}", "--to", f"{last}", cwd=tmp_path)
    assert done.code == 2
    assert f"--from: {first} is in the future, as it is " in " ".join(done.stderr.split())
    done = run(env, "count", "Charged", "--from", "-7d", "--to", f"{last}", cwd=tmp_path)
    assert done.code == 0, done.stderr


def test_relative_days_are_those_of_the_project(env: dict[str, str], tmp_path: Path) -> None:
    days = ("--from", "today", "--to", "today")
    for name in (EAST, WEST):
        zone = ZoneInfo(name)
        earliest = datetime.now(zone).date()
        done = exported(env | {"CLEVERTAP_TIMEZONE": name}, tmp_path, *days)
        first, last = range_of(done)
        assert earliest <= first == last <= datetime.now(zone).date()
        assert "time zone" not in done.stderr
    done = run(env | {"CLEVERTAP_TIMEZONE": EAST}, "count", "Charged", *days)
    assert done.code == 0
    assert "time zone" not in done.stderr


def test_an_account_of_the_file_has_its_own_zone(
    env: dict[str, str], emulator: Emulator, tmp_path: Path
) -> None:
    variables = emulator.environment
    credentials = tmp_path / "accounts.toml"
    credentials.write_text(
        "".join(
            f"[accounts.{name}]\n"
            f'account_id = "{variables["CLEVERTAP_ACCOUNT_ID"]}"\n'
            f'passcode = "{variables["CLEVERTAP_PASSCODE"]}"\n'
            f'base_url = "{emulator.url}"\n'
            f'timezone = "{zone}"\n'
            for name, zone in (("east", EAST), ("west", WEST))
        )
    )
    credentials.chmod(0o600)
    env |= {"ALTAPROFILES_CONFIG": str(credentials)}
    days = ("--from", "-1d", "--to", "today")
    for name, zone in (("east", EAST), ("west", WEST)):
        earliest = datetime.now(ZoneInfo(zone)).date()
        _, last = range_of(exported(env, tmp_path, *days, "--account", name))
        assert earliest <= last <= datetime.now(ZoneInfo(zone)).date()


def test_without_a_zone_relative_days_are_those_of_utc(env: dict[str, str]) -> None:
    done = run(env, "count", "Charged", "--from", "yesterday", "--to", "today")
    assert done.code == 0
    assert done.stderr.count("the time zone of the project is not known") == 1
    assert "CLEVERTAP_TIMEZONE" in done.stderr
    done = run(env, "count", "Charged", "--from", "2026-01-01", "--to", "2026-01-31")
    assert done.stderr == ""


def test_the_last_day_of_a_sync(env: dict[str, str], tmp_path: Path) -> None:
    words = ("sync", "Charged", "--since", "2026-01-01", "--until", "-2d", "-o", "p.duckdb")
    done = run(env, *words, "--json", "--quiet", cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert done.stderr.count("the time zone of the project is not known") == 1
    last = date.fromisoformat(json.loads(done.stdout)["last"])
    assert timedelta(days=2) <= today() - last <= timedelta(days=3)
    for name in (EAST, WEST):
        more = ("--timezone", name, "--json", "--quiet")
        earliest = datetime.now(ZoneInfo(name)).date() - timedelta(days=2)
        done = run(env, *words[:-1], f"{len(name)}.duckdb", *more, cwd=tmp_path)
        assert (done.code, done.stderr) == (0, "")
        last = date.fromisoformat(json.loads(done.stdout)["last"])
        assert earliest <= last <= datetime.now(ZoneInfo(name)).date() - timedelta(days=2)
    done = run(env, *words, "--timezone", "Mars/Olympus", cwd=tmp_path)
    assert (done.code, done.stdout) == (2, b"")
    assert done.stderr.startswith("error: --timezone: there is no time zone 'Mars/Olympus'")


def test_a_wrong_zone(env: dict[str, str]) -> None:
    wrong = env | {"CLEVERTAP_TIMEZONE": "Mars/Olympus"}
    done = run(wrong, "count", "Charged", "--from", "yesterday", "--to", "today")
    assert (done.code, done.stdout) == (2, b"")
    assert done.stderr.startswith("error: CLEVERTAP_TIMEZONE: there is no time zone")
    missing = {name: value for name, value in env.items() if "PASSCODE" not in name}
    done = run(missing, "count", "Charged", "--from", "yesterday", "--to", "today")
    assert done.code == 3


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


def interrupted(
    env: dict[str, str], folder: Path, *command: str, after: Callable[[], bool]
) -> list[str]:
    """Terminate a command after something has happened, and return the words that resume it."""
    streams: dict[str, Any] = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
    with start([*COMMAND, *command], **streams, env=env, cwd=folder) as process:
        while not after():
            assert process.poll() is None
            time.sleep(0.02)
        process.terminate()
        stderr = process.communicate(timeout=PATIENCE)[1].decode()
    assert process.returncode == 128 + signal.SIGTERM
    words = shlex.split(stderr.partition("To resume: ")[2])
    return words[words.index("export") :]


def test_the_command_to_resume_names_the_day_itself(
    env: dict[str, str], emulator: Emulator, tmp_path: Path
) -> None:
    command = ("export", "Charged", "--from", "-2d", "--to", "yesterday", "-o", "p.ndjson")
    opened = emulator.stats.requests["open_chain"]
    with held(emulator, holding=9) as (variables, let_pass):
        words = interrupted(
            env | variables,
            tmp_path,
            *command,
            after=lambda: emulator.stats.requests["open_chain"] > opened,
        )
        let_pass()
        days = [words[words.index(option) + 1] for option in ("--from", "--to")]
        first, last = map(date.fromisoformat, days)
        assert last - first == timedelta(days=1)
        assert timedelta(days=1) <= today() - last <= timedelta(days=2)
        resumed = run(env | variables, *words, cwd=tmp_path)
        assert (resumed.code, resumed.stdout) == (0, b"p.ndjson\n")


def test_the_same_words_on_another_day_are_another_export(
    env: dict[str, str], emulator: Emulator, tmp_path: Path
) -> None:
    days = ("--from", "2026-01-01", "--to", "today")
    pages = ("--batch-size", "23", "--windows", "1")
    command = ("export", "App Launched", *days, "-o", "p.ndjson", *pages)

    def has_page() -> bool:
        return any(path.stat().st_size for path in tmp_path.glob("*.export/*/*.spool.ndjson"))

    with held(emulator, passing=1, holding=9) as (variables, let_pass):
        env |= variables
        east = env | {"CLEVERTAP_TIMEZONE": EAST}
        words = interrupted(east, tmp_path, *command, after=has_page)
        let_pass()
        # As if it were another day.
        other = run(env | {"CLEVERTAP_TIMEZONE": WEST}, *command, cwd=tmp_path)
        assert (other.code, other.stdout) == (0, b"p.ndjson\n")
        assert "unfinished" in other.stderr
        assert run(env, *words, cwd=tmp_path).code == 0
        assert run(env, *command, cwd=tmp_path).code == 0
        assert "unfinished" not in run(env, *command, cwd=tmp_path).stderr


def test_help_names_the_forms(env: dict[str, str]) -> None:
    for command in ("export", "count"):
        text = " ".join(run(env, command, "--help").stdout.decode().split())
        assert "today, yesterday, or -7d for seven days ago" in text
