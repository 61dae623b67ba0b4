"""Days on the command line: their forms, relative ones, and the zone in which they are counted."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from altaprofiles.emulator import Emulator

from ..support.forks import start
from ..support.tasks import PATIENCE
from ..support.terminals import COMMAND, Done, emulated, environment, held, resuming_words, run


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
    for option in ((), ("--json",)):
        days = ("--from", "-7d", "--to", f"{last}")
        done = run(env, "count", "Charged", *days, *option, cwd=tmp_path)
        assert done.code == 0, done.stderr
        assert f"warning: the last day, {last}, is in the future, as it is" in done.stderr
        assert done.stderr.count("nobody of days to come is counted\n") == 1
    done = run(env, "count", "Charged", "--from", "-7d", "--to", "today", cwd=tmp_path)
    assert "in the future" not in done.stderr
    done = run(env, "count", "--everyone", cwd=tmp_path)
    assert "in the future" not in done.stderr


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


@pytest.fixture(scope="module")
def other_emulator() -> Iterator[Emulator]:
    with emulated(people=20, seed=3) as running:
        yield running


@pytest.fixture
def emulators(emulator: Emulator, other_emulator: Emulator) -> dict[str, Emulator]:
    return {"east": emulator, "west": other_emulator}


ZONES = {"east": EAST, "west": WEST}
BOTH = ("--account", "east", "--account", "west")


def saved(
    env: dict[str, str],
    emulators: dict[str, Emulator],
    zones: Mapping[str, str] = ZONES,
    **urls: str,
) -> dict[str, str]:
    """Save an account of each emulator in its zone; return the environment."""
    path = Path(env["HOME"]) / "accounts.toml"
    lines: list[str] = []
    for name, one in emulators.items():
        variables = one.environment
        lines += [
            f"[accounts.{name}]",
            f'account_id = "{variables["CLEVERTAP_ACCOUNT_ID"]}"',
            f'passcode = "{variables["CLEVERTAP_PASSCODE"]}"',
            f'base_url = "{urls.get(name, one.url)}"',
            f'timezone = "{zones[name]}"',
        ]
    path.write_text("\n".join(lines))
    path.chmod(0o600)
    return env | {"ALTAPROFILES_CONFIG": str(path)}


def test_an_account_of_the_file_has_its_own_zone(
    env: dict[str, str], emulators: dict[str, Emulator], tmp_path: Path
) -> None:
    env = saved(env, emulators)
    days = ("--from", "-1d", "--to", "today")
    for name, zone in ZONES.items():
        earliest = datetime.now(ZoneInfo(zone)).date()
        _, last = range_of(exported(env, tmp_path, *days, "--account", name))
        assert earliest <= last <= datetime.now(ZoneInfo(zone)).date()


def days_in(share: dict[str, Any]) -> tuple[int, int]:
    chains = share["chains"]
    return min(one["start"] for one in chains), max(one["end"] for one in chains)


# In the east it is the last of January by then, and in the west the day before.
AS_OF = ("--as-of", "2026-01-31T02:00:00Z")
DAYS_THEN = {"east": (20260122, 20260130), "west": (20260121, 20260129)}
WORDS = ("--from", "-9d", "--to", "yesterday")


def active(emulators: dict[str, Emulator]) -> dict[str, int]:
    return {
        name: len(set(one.population.active("Charged", *DAYS_THEN[name])))
        for name, one in emulators.items()
    }


def test_several_accounts_have_each_the_days_of_its_own_zone(
    env: dict[str, str], emulators: dict[str, Emulator], tmp_path: Path
) -> None:
    env = saved(env, emulators)
    done = run(
        env, "export", "Charged", *WORDS, *AS_OF, *BOTH, "-o", "p.csv", "--json", cwd=tmp_path
    )
    assert done.code == 0, done.stderr
    report = json.loads(done.stdout)
    shares = report["accounts"]
    assert {name: days_in(share) for name, share in shares.items()} == DAYS_THEN
    assert {name: share["people"] for name, share in shares.items()} == active(emulators)
    manifest = json.loads((tmp_path / "p.csv.manifest.json").read_text())
    plans = manifest["plans"]
    assert {name: (plan["start"], plan["end"]) for name, plan in plans.items()} == DAYS_THEN
    text = " ".join(done.stderr.split())
    assert (
        "Relative days are those of each account: today is 2026-01-31 for east "
        f"({EAST}), 2026-01-30 for west ({WEST})"
    ) in text
    assert "east 2026-01-22 to 2026-01-30: " in text
    assert "west 2026-01-21 to 2026-01-29: " in text


def test_several_outputs_have_each_the_days_of_their_zone(
    env: dict[str, str], emulators: dict[str, Emulator], tmp_path: Path
) -> None:
    env = saved(env, emulators)
    done = run(
        env,
        *("export", "Charged", *WORDS, *AS_OF, *BOTH, "-o", "{account}.ndjson", "--json"),
        cwd=tmp_path,
    )
    assert done.code == 0, done.stderr
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    assert {one["account"]: days_in(one) for one in reports} == DAYS_THEN
    assert {one["account"]: one["people"] for one in reports} == active(emulators)


def test_counts_of_several_accounts_are_of_the_days_of_their_zone(
    env: dict[str, str], emulators: dict[str, Emulator]
) -> None:
    env = saved(env, emulators)
    counts = active(emulators)
    done = run(env, "count", "Charged", *WORDS, *AS_OF, *BOTH)
    assert (done.code, done.stdout.decode()) == (
        0,
        f"east\t{counts['east']}\nwest\t{counts['west']}\n",
    )
    assert "today is 2026-01-31 for east" in " ".join(done.stderr.split())
    done = run(env, "count", "Charged", *WORDS, *AS_OF, *BOTH, "--json")
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        {"account": name, "people": counts[name], "start": first, "end": last}
        for name, (first, last) in DAYS_THEN.items()
    ]


def test_the_days_of_several_accounts_are_counted_from_now(
    env: dict[str, str], emulators: dict[str, Emulator]
) -> None:
    env = saved(env, emulators)
    earliest = {name: datetime.now(ZoneInfo(zone)).date() for name, zone in ZONES.items()}
    done = run(env, "count", "Charged", "--from", "-3d", "--to", "today", *BOTH, "--json")
    assert done.code == 0, done.stderr
    lines = {line["account"]: line for line in map(json.loads, done.stdout.splitlines())}
    for name, zone in ZONES.items():
        last = as_date(lines[name]["end"])
        assert earliest[name] <= last <= datetime.now(ZoneInfo(zone)).date()
        assert as_date(lines[name]["start"]) == last - timedelta(days=3)


def test_accounts_with_the_same_days_need_no_explanation(
    env: dict[str, str], emulators: dict[str, Emulator]
) -> None:
    env = saved(env, emulators, zones={"east": EAST, "west": "Pacific/Apia"})
    done = run(env, "count", "Charged", *WORDS, *AS_OF, *BOTH, "--json")
    assert (done.code, done.stderr) == (0, "")
    days = [(line["start"], line["end"]) for line in map(json.loads, done.stdout.splitlines())]
    assert days == [DAYS_THEN["east"]] * 2


def test_days_that_are_in_order_in_one_zone_only(
    env: dict[str, str], emulators: dict[str, Emulator], tmp_path: Path
) -> None:
    env = saved(env, emulators)
    asked = {name: dict(one.stats.requests) for name, one in emulators.items()}
    days = ("--from", "2026-01-30", "--to", "yesterday", *AS_OF, *BOTH, "--quiet")
    for command in (
        ("count", "Charged"),
        ("export", "Charged", "-o", "p.csv"),
        ("export", "Charged", "-o", "{account}.csv"),
    ):
        done = run(env, *command, *days, cwd=tmp_path)
        assert (done.code, done.stdout) == (2, b"")
        assert done.stderr.startswith("error: --to: 2026-01-29 is before --from, 2026-01-30; ")
        assert done.stderr.endswith(" (the days of west)\n")
    assert {name: dict(one.stats.requests) for name, one in emulators.items()} == asked


def test_a_last_day_of_a_sync_that_is_before_the_first_in_one_zone_only(
    env: dict[str, str], emulators: dict[str, Emulator], tmp_path: Path
) -> None:
    env = saved(env, emulators)
    asked = {name: dict(one.stats.requests) for name, one in emulators.items()}
    since = datetime.now(ZoneInfo(EAST)).date() - timedelta(days=1)
    days = ("--since", str(since), "--until", "yesterday")
    for out in ("p.duckdb", "{account}.duckdb"):
        done = run(env, "sync", "Charged", *days, *BOTH, "-o", out, "--quiet", cwd=tmp_path)
        assert (done.code, done.stdout) == (2, b"")
        assert f" is before --since, {since}; swap them (the days of west)\n" in done.stderr
        assert done.stderr.startswith("error: --until: ")
    assert {name: dict(one.stats.requests) for name, one in emulators.items()} == asked


def test_the_last_day_of_a_sync_of_several_accounts(
    env: dict[str, str], emulators: dict[str, Emulator], tmp_path: Path
) -> None:
    env = saved(env, emulators)
    days = ("--since", "2026-01-01", "--until", "-2d")
    for out in ("p.duckdb", "{account}.duckdb"):
        earliest = {name: datetime.now(ZoneInfo(zone)).date() for name, zone in ZONES.items()}
        done = run(env, "sync", "Charged", *days, *BOTH, "-o", out, "--json", cwd=tmp_path)
        assert done.code == 0, done.stderr
        reports = [json.loads(line) for line in done.stdout.splitlines()]
        through = {one["account"]: one["through"] for one in reports if "account" in one}
        if "accounts" in reports[0]:
            through = {name: one["through"] for name, one in reports[0]["accounts"].items()}
        for name, zone in ZONES.items():
            found = date.fromisoformat(through[name]) + timedelta(days=2)
            assert earliest[name] <= found <= datetime.now(ZoneInfo(zone)).date()


@pytest.mark.parametrize(
    ("text", "accepted"),
    [
        ("2026-01-31T02:00:00Z", True),
        ("2026-01-31T02:00:00.5+00:00", True),
        ("2026-01-31T07:30+05:30", True),
        ("2026-01-31T02:00:00", False),
        ("2026-01-31", False),
        ("yesterday", False),
        ("1769824800", False),
        ("0001-01-01T00:00:00+14:00", False),
        ("9999-12-31T23:59:59-12:00", False),
        ("", False),
    ],
)
def test_the_time_by_which_days_are_relative(
    env: dict[str, str], text: str, accepted: bool
) -> None:
    env |= {"CLEVERTAP_TIMEZONE": EAST}
    done = run(env, "count", "Charged", *WORDS, f"--as-of={text}", "--json")
    if accepted:
        assert done.code == 0, done.stderr
        found = json.loads(done.stdout)
        assert (found["start"], found["end"]) == DAYS_THEN["east"]
    else:
        assert (done.code, done.stdout.count(b"people")) == (2, 0)
        assert done.stderr.startswith(f"error: --as-of: {text!r} is not a time with a zone")


def test_a_time_for_days_that_are_dates_is_refused(env: dict[str, str]) -> None:
    dates = ("--from", "2026-01-01", "--to", "2026-01-31")
    done = run(env, "count", "Charged", *dates, *AS_OF)
    assert (done.code, done.stdout) == (2, b"")
    assert done.stderr.startswith("error: --as-of is for relative days")


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
        "2026-13-01",
        "2026-11-00",
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


@pytest.mark.parametrize(
    "options",
    [
        ("count", "Charged", "--to", "2026-11-30", "--from"),
        ("count", "Charged", "--from", "2026-10-01", "--to"),
        ("sync", "Charged", "-o", "crm.duckdb", "--since"),
        ("sync", "Charged", "-o", "crm.duckdb", "--since", "2026-10-01", "--until"),
    ],
)
def test_a_number_of_excel_is_shown_as_its_day(
    env: dict[str, str], tmp_path: Path, options: tuple[str, ...]
) -> None:
    done = run(env, *options, "46327", cwd=tmp_path)
    assert (done.code, done.stdout) == (2, b"")
    assert re.match(rf"error: {options[-1]}: '?46327'? is Excel's number of ", done.stderr)
    assert "2026-11-01" in done.stderr


@pytest.mark.parametrize(
    "options",
    [
        ("count", "Charged", "--to", "2026-11-30", "--from"),
        ("export", "Charged", "-o", "p.csv", "--from", "2026-10-01", "--to"),
        ("sync", "Charged", "-o", "crm.duckdb", "--since"),
        ("sync", "Charged", "-o", "crm.duckdb", "--since", "2026-10-01", "--until"),
        (*("export", "Charged", "-o", "p.csv", "--from", "-7d", "--to", "today"), "--as-of"),
    ],
)
@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("2026-11-31", "2026-11 has 30 days"),
        ("2026-02-29", "2026-02 has 28 days"),
        ("2028-02-30T02:00:00Z", "2028-02 has 29 days"),
    ],
)
def test_a_day_past_its_month_is_refused_with_the_length_of_that(
    env: dict[str, str], tmp_path: Path, options: tuple[str, ...], text: str, length: str
) -> None:
    done = run(env, *options, text, cwd=tmp_path)
    assert (done.code, done.stdout) == (2, b"")
    kind = "time" if options[-1] == "--as-of" else "day"
    assert done.stderr == f"error: {options[-1]}: {text!r} is not a {kind}: {length}\n"


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
    words = resuming_words(stderr)
    return words[words.index("export") :]


def opening(emulator: Emulator) -> Callable[[], bool]:
    """Return whether a chain has been opened since this call."""
    before = emulator.stats.requests["open_chain"]
    return lambda: emulator.stats.requests["open_chain"] > before


def test_the_command_to_resume_names_the_day_itself(
    env: dict[str, str], emulator: Emulator, tmp_path: Path
) -> None:
    command = ("export", "Charged", "--from", "-2d", "--to", "yesterday", "-o", "p.ndjson")
    with held(emulator, holding=9) as (variables, let_pass):
        words = interrupted(env | variables, tmp_path, *command, after=opening(emulator))
        let_pass()
        days = [words[words.index(option) + 1] for option in ("--from", "--to")]
        first, last = map(date.fromisoformat, days)
        assert last - first == timedelta(days=1)
        assert timedelta(days=1) <= today() - last <= timedelta(days=2)
        resumed = run(env | variables, *words, cwd=tmp_path)
        assert (resumed.code, resumed.stdout) == (0, b"p.ndjson\n")


@pytest.mark.parametrize("out", ["p.csv", "{account}.csv"])
def test_the_command_to_resume_has_the_days_of_each_account(
    env: dict[str, str], emulators: dict[str, Emulator], tmp_path: Path, out: str
) -> None:
    command = ("export", "Charged", "--from", "-200d", "--to", "yesterday", *BOTH, "-o", out)
    began = datetime.now(UTC).replace(microsecond=0)
    with held(emulators["east"], holding=9) as (variables, let_pass):
        env = saved(env, emulators, east=variables["CLEVERTAP_BASE_URL"])
        words = interrupted(env, tmp_path, *command, after=opening(emulators["east"]))
        let_pass()
        assert [words[words.index(option) + 1] for option in ("--from", "--to")] == [
            "-200d",
            "yesterday",
        ]
        at = datetime.fromisoformat(words[words.index("--as-of") + 1])
        assert began <= at <= datetime.now(UTC)
        resumed = run(env, *words, "--json", cwd=tmp_path)
    assert resumed.code == 0, resumed.stderr
    # Another export would have warned of the one that was interrupted.
    assert "unfinished" not in resumed.stderr
    assert not [*tmp_path.glob("*.export")]
    reports = [json.loads(line) for line in resumed.stdout.splitlines()]
    shares = reports[0].get("accounts") or {one["account"]: one for one in reports}
    for name, zone in ZONES.items():
        current = at.astimezone(ZoneInfo(zone)).date()
        first, last = map(as_date, days_in(shares[name]))
        assert (first, last) == (current - timedelta(days=200), current - timedelta(days=1))


def test_the_command_to_resume_counts_from_the_same_time(
    env: dict[str, str], emulators: dict[str, Emulator], tmp_path: Path
) -> None:
    command = ("export", "Charged", *WORDS, *AS_OF, *BOTH, "-o", "p.csv")
    with held(emulators["east"], holding=9) as (variables, let_pass):
        env = saved(env, emulators, east=variables["CLEVERTAP_BASE_URL"])
        words = interrupted(env, tmp_path, *command, after=opening(emulators["east"]))
        let_pass()
    assert words[words.index("--as-of") + 1] == AS_OF[1]


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
