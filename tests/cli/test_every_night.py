"""The schedules of the guide, run as they are written there: with an environment as cron's."""

from __future__ import annotations

import asyncio
import configparser
import json
import os
import plistlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import psycopg
import pytest
from anyio.from_thread import start_blocking_portal
from prometheus_client.parser import text_string_to_metric_families

from altaprofiles.cli.exits import Exit
from altaprofiles.emulator import Emulator

from ..support.forks import write_program
from ..support.guides import GUIDES, block_of
from ..support.postgres import Server
from ..support.servers import scripted
from ..support.tasks import PATIENCE
from ..support.terminals import emulated, refusing

SECTION = (GUIDES / "every-night.md").read_text(encoding="utf-8")
OBSERVABILITY = (GUIDES / "observability.md").read_text(encoding="utf-8")

needs_jq = pytest.mark.skipif(shutil.which("jq") is None, reason="needs jq")


def blocks(language: str) -> list[str]:
    found: list[str] = re.findall(rf"^```{language}\n(.*?)^```$", SECTION, re.DOTALL | re.MULTILINE)
    return found


def unit(kind: str) -> configparser.ConfigParser:
    """Return the unit of systemd that has a section."""
    parsers = []
    for text in blocks("ini"):
        parser = configparser.ConfigParser(interpolation=None)
        # Names are spelled as systemd has them.
        parser.optionxform = str  # type: ignore[assignment, method-assign]
        parser.read_string(text)
        parsers.append(parser)
    # The first service is that of the nights, the second one that of the mail.
    return next(parser for parser in parsers if kind in parser)


class Home(NamedTuple):
    """The home of a user who has followed the guide."""

    path: Path
    emulator: Emulator

    @property
    def crm(self) -> Path:
        return self.path / "crm"

    @property
    def environment(self) -> dict[str, str]:
        """The variables that cron sets, and no other (crontab(5))."""
        home = str(self.path)
        return {"HOME": home, "PATH": "/usr/bin:/bin", "SHELL": "/bin/sh", "LOGNAME": "me"}

    def run(self, *command: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        variables = [f"{name}={value}" for name, value in self.environment.items()]
        return subprocess.run(
            ["/usr/bin/env", "-i", *variables, *command],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            cwd=cwd or self.path,
            check=False,
        )

    def people(self) -> int:
        with duckdb.connect(self.crm / "crm.duckdb", read_only=True) as connection:
            row = connection.execute("SELECT count(*), count(DISTINCT person) FROM profiles")
            found = row.fetchone()
        assert found is not None
        assert found[0] == found[1]
        return int(found[0])


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with emulated(people=60, seed=2) as running:
        yield running


@pytest.fixture
def home(tmp_path: Path, emulator: Emulator) -> Home:
    programs = tmp_path / "crm" / ".venv" / "bin"
    programs.mkdir(parents=True)
    at_home = Home(tmp_path, emulator)
    write_program(programs / "altaprofiles", "-m", "altaprofiles", env=at_home.environment)
    write_program(programs / "python", env=at_home.environment)
    accounts = tmp_path / ".config" / "altaprofiles" / "accounts.toml"
    accounts.parent.mkdir(parents=True)
    variables = emulator.environment
    accounts.write_text(
        "[accounts.shop]\n"
        f'account_id = "{variables["CLEVERTAP_ACCOUNT_ID"]}"\n'
        f'passcode = "{variables["CLEVERTAP_PASSCODE"]}"\n'
        f'base_url = "{emulator.url}"\n'
        'timezone = "Asia/Kolkata"\n'
        f'alta_token = "{variables["ALTA_TOKEN"]}"\n'
        f'alta_base_url = "{emulator.url}"\n'
    )
    accounts.chmod(0o600)
    return at_home


def cron_command() -> str:
    """Return the command of the line for crontab, as cron hands it to the shell."""
    [line] = blocks("crontab")[0].splitlines()
    fields = re.fullmatch(r"(\d+) (\d+) \* \* \* (.*)", line)
    assert fields is not None
    assert (int(fields[1]) < 60, int(fields[2]) < 24) == (True, True)
    # cron would end the command there.
    assert "%" not in fields[3]
    return fields[3]


def service_command(home: Home) -> list[str]:
    words = shlex.split(unit("Service")["Service"]["ExecStart"])
    return [word.replace("%h", str(home.path)) for word in words]


def test_the_line_for_cron(home: Home) -> None:
    command = ("/bin/sh", "-c", cron_command())
    done = home.run(*command)
    # Else cron would mail it.
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (home.crm / "nightly.ndjson").read_text() == ""
    people = home.people()
    assert people > 10
    assert home.run(*command).returncode == 0
    assert home.people() == people


def test_a_night_that_fails_is_in_the_log(home: Home) -> None:
    accounts = home.path / ".config" / "altaprofiles" / "accounts.toml"
    text = accounts.read_text()
    with refusing() as url:
        accounts.write_text(re.sub(r'base_url = ".*"', f'base_url = "{url}"', text))
        done = home.run("/bin/sh", "-c", cron_command())
    log = (home.crm / "nightly.ndjson").read_text()
    lines = [*map(json.loads, log.splitlines())]
    # cron mails it.
    assert (done.stdout, done.stderr) == (log.splitlines(keepends=True)[-1], "")
    assert done.returncode in codes("look at it")
    assert lines[-1].keys() >= {"time", "level", "message"}
    assert lines[-1]["level"] == "error"
    assert {line["level"] for line in lines} <= {"warning", "error"}
    # The next failure has a mail of its own, without the earlier one.
    accounts.write_text("[accounts")
    again = home.run("/bin/sh", "-c", cron_command())
    assert again.returncode == Exit.CREDENTIALS
    assert again.stdout == (home.crm / "nightly.ndjson").read_text().removeprefix(log) != ""
    accounts.write_text(text)
    assert home.run("/bin/sh", "-c", cron_command()).returncode == 0
    assert home.people() > 10


@needs_jq
def test_a_log_is_read_past_the_line_of_the_shell(home: Home) -> None:
    accounts = home.path / ".config" / "altaprofiles" / "accounts.toml"
    text = accounts.read_text()
    # A program of its own, which dies at once.
    (home.crm / ".venv/bin/altaprofiles").write_text(
        f'#!/bin/sh\necho $$ > pid\nexec {sys.executable} -m altaprofiles "$@"\n'
    )
    asked = threading.Event()

    async def hold(_: bytes, __: asyncio.StreamWriter) -> None:
        asked.set()
        await asyncio.Event().wait()

    with start_blocking_portal() as portal:
        with portal.wrap_async_context_manager(scripted(hold)) as server:
            accounts.write_text(re.sub(r'base_url = ".*"', f'base_url = "{server.url}"', text))
            variables = [f"{name}={value}" for name, value in home.environment.items()]
            with subprocess.Popen(
                ["/usr/bin/env", "-i", *variables, "/bin/sh", "-c", cron_command()],
                stdout=subprocess.PIPE,
                text=True,
                cwd=home.path,
            ) as night:
                assert asked.wait(PATIENCE)
                os.kill(int((home.crm / "pid").read_text()), signal.SIGKILL)
                mailed, _ = night.communicate(timeout=PATIENCE)
    assert (night.returncode, "Killed" in mailed) == (137, True)
    accounts.write_text("[accounts")
    assert home.run("/bin/sh", "-c", cron_command()).returncode == Exit.CREDENTIALS
    *shell_lines, line = (home.crm / "nightly.ndjson").read_text().splitlines()
    assert [one for one in shell_lines if "Killed" in one] == shell_lines != []
    message, guides = json.loads(line)["message"], SECTION + OBSERVABILITY
    reading = re.findall(r"`(jq [^`]* nightly\.ndjson)`", guides)
    shown = []
    for command in reading:
        done = home.run("/bin/sh", "-c", command, cwd=home.crm)
        assert (done.returncode, done.stderr) == (0, "")
        shown.append(done.stdout.rstrip("\n"))
    assert shown == ["" if '"warning"' in command else message for command in reading]
    assert len(reading) == 3


def test_the_mail_about_several_accounts_has_the_reason(home: Home) -> None:
    accounts = home.path / ".config" / "altaprofiles" / "accounts.toml"
    text = accounts.read_text()
    with refusing() as url:
        text = re.sub(r'^base_url = ".*"', f'base_url = "{url}"', text, flags=re.MULTILINE)
        other = text.replace("accounts.shop", "accounts.outlet").replace('"TEST-', '"TEST-A')
        accounts.write_text(text + other)
        command = cron_command().replace(" --since", f" {BOTH}--since")
        done = home.run("/bin/sh", "-c", command)
    mailed = [*map(json.loads, done.stdout.splitlines())]
    assert "CleverTap answered HTTP 400" in " ".join(line["message"] for line in mailed)


BOTH = "--account shop --account outlet "


SATURDAY = date(2026, 1, 31)


def people_on(day: date, **numbers: int) -> list[dict[str, Any]]:
    """Return people who did an event, with `_` for its blanks, on one day."""
    time = int(datetime.combine(day, datetime.min.time(), UTC).timestamp()) + 43_200
    once = {"count": 1, "first_seen": time, "last_seen": time}
    return [
        {"identity": f"{event} {day} {number}", "events": {event.replace("_", " "): once}}
        for event, many in numbers.items()
        for number in range(many)
    ]


def test_a_day_with_far_fewer_people_raises_an_alarm_in_its_night(home: Home) -> None:
    accounts = home.path / ".config" / "altaprofiles" / "accounts.toml"
    text = accounts.read_text()
    [script] = [one for one in blocks("sh") if "a week before" in one]
    command = ("/bin/sh", "-c", script.replace("--quiet", "--quiet --as-of 2026-02-01T00:00:00Z"))

    def run(shop: str, outlet: str) -> tuple[int, list[str]]:
        of_shop = re.sub(r'^base_url = ".*"', f'base_url = "{shop}"', text, flags=re.MULTILINE)
        of_outlet = of_shop.replace("accounts.shop", "accounts.outlet").replace(shop, outlet)
        accounts.write_text(of_shop + of_outlet)
        done = home.run(*command)
        assert done.stdout == ""
        return done.returncode, done.stderr.splitlines()

    before = [
        *people_on(SATURDAY - timedelta(days=7), App_Launched=4, Charged=4),
        # The days between have more than enough.
        *people_on(SATURDAY - timedelta(days=2), App_Launched=9, Charged=9),
        *people_on(SATURDAY - timedelta(days=1), App_Launched=9, Charged=9),
    ]
    half = [*before, *people_on(SATURDAY, App_Launched=2, Charged=2)]
    less = [*before, *people_on(SATURDAY, App_Launched=1)]
    with (
        emulated(records=half, seed=2) as enough,
        emulated(records=less, seed=2) as too_few,
        emulated(records=people_on(SATURDAY - timedelta(days=1), Charged=9), seed=2) as none,
        refusing() as refused,
    ):
        assert run(enough.url, enough.url) == (0, [])
        code, lines = run(enough.url, too_few.url)
        assert code == 1
        assert [line for line in lines if "yesterday" in line] == [
            "outlet, App Launched: 1 yesterday, 4 a week before",
            "outlet, Charged: 0 yesterday, 4 a week before",
        ]
        # Nobody is an alarm, also where nobody came a week before.
        code, lines = run(none.url, enough.url)
        assert (code, len([line for line in lines if line.startswith("shop, ")])) == (1, 2)
        code, _ = run(enough.url, refused)
        assert code in codes("look at it")


@pytest.mark.parametrize(
    ("ends", "tries", "code"),
    [([0], 1, 0), ([4, 1, 0], 3, 0), ([1, 3], 2, 3), ([2], 1, 2), ([1, 4, 137], 3, 137)],
)
def test_a_night_of_cron_is_tried_again(
    tmp_path: Path, ends: list[int], tries: int, code: int
) -> None:
    script = block_of("every-night.md", "for try in", "sh")
    folder, programs = tmp_path / "crm", tmp_path / "programs"
    ours = folder / ".venv/bin/altaprofiles"
    ours.parent.mkdir(parents=True)
    programs.mkdir()
    (folder / "ends").write_text("".join(f"{end}\n" for end in ends))
    # Each try takes the next code.
    next_code = "read -r code < ends; sed -i 1d ends; echo crm.duckdb; exit $code"
    for program, text in (
        (ours, f'echo "$@" >> tries\n{next_code}'),
        (programs / "sleep", 'echo "$@" >> waits'),
    ):
        program.write_text(f"#!/bin/sh\n{text}\n")
        program.chmod(0o755)
    done = subprocess.run(
        ["/bin/sh", "-c", script],
        env={"HOME": str(tmp_path), "PATH": f"{programs}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "")
    command = "sync App Launched Charged --since 2026-01-01 -o crm.duckdb --quiet"
    assert (folder / "tries").read_text().splitlines() == [command] * tries
    waits = folder / "waits"
    waited = waits.read_text().split() if waits.exists() else []
    assert waited == ["600"] * (tries - 1)


def test_an_event_that_was_renamed_is_brought_under_both_names(home: Home) -> None:
    accounts = home.path / ".config" / "altaprofiles" / "accounts.toml"
    [script] = [text for text in blocks("sh") if "renamed" in text]
    # The other days would be asked for one by one.
    script = script.replace("--since 2026-01-01", "--since 2026-01-01 --until 2026-01-31")
    once = {"count": 1, "first_seen": 1767600000, "last_seen": 1767600000}
    records = [
        {"identity": name, "events": {name: once}}
        for name in ("Charged", "Order Placed", "App Launched")
    ]
    with emulated(records=records, seed=2) as renamed:
        text = re.sub(
            r'^base_url = ".*"',
            f'base_url = "{renamed.url}"',
            accounts.read_text(),
            flags=re.MULTILINE,
        )
        accounts.write_text(text)
        done = home.run("/bin/sh", "-c", script)
    assert (done.returncode, done.stderr) == (0, "")
    expected = [("Charged", ["Charged"]), ("Order Placed", ["Order Placed"])]
    with duckdb.connect(home.crm / "crm.duckdb", read_only=True) as connection:
        for table in ("orders", f"'{home.crm / 'renamed.parquet'}'"):
            query = f"SELECT identity, matched FROM {table} ORDER BY identity"
            assert connection.execute(query).fetchall() == expected


def test_the_units_of_systemd(home: Home) -> None:
    service, timer = unit("Service"), unit("Timer")
    assert service["Service"]["Type"] == "oneshot"
    assert timer["Install"]["WantedBy"] == "timers.target"
    directory = service["Service"]["WorkingDirectory"].replace("%h", str(home.path))
    done = home.run(*service_command(home), cwd=Path(directory))
    assert (done.returncode, done.stderr) == (0, "")
    assert home.people() > 10


def test_systemd_verifies_them(home: Home) -> None:
    verify = shutil.which("systemd-analyze")
    if verify is None:
        pytest.skip("systemd is not installed")
    names = ["crm.service", "crm.timer", "crm-failed.service"]
    for name, text in zip(names, blocks("ini"), strict=True):
        unit_text = text.replace("%h", str(home.path))
        if name == "crm.service":
            unit_text = unit_text.replace("[Unit]\n", f"[Unit]\nOnFailure={names[-1]}\n")
        (home.path / name).write_text(unit_text)
    done = subprocess.run(
        [verify, "verify", "--man=no", *(home.path / name for name in names)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "crm." not in done.stderr, done.stderr


def test_the_line_for_the_task_scheduler(home: Home) -> None:
    [line] = blocks("bat")[0].splitlines()
    words = shlex.split(line)
    assert words[:2] == ["schtasks", "/Create"]
    options = dict(zip(words[2::2], words[3::2], strict=True))
    assert options["/SC"] == "DAILY"
    assert re.fullmatch(r"[0-2]\d:[0-5]\d", options["/ST"])
    task = options["/TR"]
    # The longest that schtasks takes.
    assert len(task) <= 261
    program, _, arguments = task.partition("altaprofiles ")
    assert program == r"cmd /c cd /d C:\crm && .venv\Scripts" + "\\"
    arguments, _, log = arguments.partition(" 2>> ")
    assert log == "nightly.ndjson"
    command = [str(home.crm / ".venv/bin/altaprofiles"), *shlex.split(arguments)]
    done = home.run(*command, cwd=home.crm)
    assert (done.returncode, done.stderr) == (0, "")
    assert home.people() > 10


def test_a_missed_task_of_windows_is_that_of_the_nights() -> None:
    schtasks = shlex.split(blocks("bat")[0])
    [line] = blocks("powershell")[0].splitlines()
    words = line.split()
    assert words[:2] == ["Set-ScheduledTask", "-TaskName"]
    assert words[2] == schtasks[schtasks.index("/TN") + 1]


def test_the_agent_of_launchd(home: Home) -> None:
    [text] = blocks("xml")
    agent = plistlib.loads(text.encode())
    assert f"{agent['Label']}.plist" in SECTION.replace(text, "")
    assert {*agent["StartCalendarInterval"]} == {"Hour", "Minute"}
    assert agent["RunAtLoad"] is True
    done = home.run(*agent["ProgramArguments"])
    assert (done.returncode, done.stderr) == (0, "")
    assert (home.crm / "nightly.ndjson").read_text() == ""
    assert home.people() > 10


def test_the_log_of_each_schedule_that_has_a_file_is_json(home: Home) -> None:
    (home.path / ".config" / "altaprofiles" / "accounts.toml").write_text("[accounts")
    task = shlex.split(blocks("bat")[0])[-1].removeprefix("cmd /c ")
    commands = [
        cron_command(),
        task.replace(r"cd /d C:\crm", "cd crm").replace(
            r"\Scripts\altaprofiles", "/bin/altaprofiles"
        ),
        plistlib.loads(blocks("xml")[0].encode())["ProgramArguments"][-1],
        block_of("every-night.md", "/crm/profiles --quiet --log-format json", "sh"),
    ]
    log = home.crm / "nightly.ndjson"
    for number, command in enumerate(commands, 1):
        assert home.run("/bin/sh", "-c", command).returncode == Exit.CREDENTIALS
        lines = [*map(json.loads, log.read_text().splitlines())]
        assert [line["level"] for line in lines] == ["error"] * number


def test_the_mail_of_systemd_has_the_log(home: Home) -> None:
    [text] = [text for text in blocks("ini") if "mail -s" in text]
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(text)
    words = shlex.split(parser["Service"]["ExecStart"])
    programs = home.path / "bin"
    programs.mkdir()
    scripts = {
        "journalctl": 'echo "$@"',
        "mail": f'echo "$@" > {home.path}/mail && cat >> {home.path}/mail',
    }
    for name, script in scripts.items():
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(0o755)
    done = home.run("/usr/bin/env", f"PATH={programs}:/usr/bin:/bin", *words)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (home.path / "mail").read_text().splitlines() == [
        "-s crm has failed you@example.com",
        "--user -u crm -n 20 --no-pager",
    ]


def test_people_are_forgotten_after_a_night_that_failed_too(home: Home, postgres: Server) -> None:
    if shutil.which("psql", path="/usr/bin:/bin") is None:
        pytest.skip("needs psql")
    script = block_of("every-night.md", "forget.sql", "sh")
    for guide, own in (("/profiles", postgres.url("food.buyers")), ("", postgres.url())):
        script = script.replace(f"postgresql://crm@db.example.com/crm{guide}", shlex.quote(own))
    listing, gone = (
        block_of("every-night.md", text, "sql") for text in ("INTO forgotten", "&& ARR")
    )
    block = block_of("every-night.md", "INTERVAL '90 days'", "sql")
    [line] = [one for one in block.splitlines() if one.startswith("CREATE TEMP")]
    listing, block = (
        "SET search_path = food;\n" + re.sub(r"\bprofiles\b", "buyers", text)
        for text in (listing, block.replace(f"{line}\n", gone))
    )
    (home.crm / "forget.sql").write_text(block)
    accounts = home.path / ".config" / "altaprofiles" / "accounts.toml"
    text = accounts.read_text()
    people = "SELECT identity FROM food.buyers ORDER BY identity"
    postgres.run("CREATE SCHEMA food")
    try:
        # The list is not there yet.
        assert home.run("/bin/sh", "-c", script).returncode == 1
        right, home.emulator.passcode = home.emulator.passcode, "another"
        assert home.run("/bin/sh", "-c", script).returncode == Exit.CREDENTIALS
        home.emulator.passcode = right
        before = postgres.rows(people)
        account = str(home.emulator.clevertap.account_id)
        name = str(before[0][0])
        listing = listing.replace("TEST-123-456-789Z", account).replace("5555555555", name)
        postgres.run(*filter(str.strip, listing.split(";")))
        with refusing() as url:
            accounts.write_text(text.replace(home.emulator.url, url))
            done = home.run("/bin/sh", "-c", script)
        assert done.returncode == Exit.USAGE, done.stderr
        assert postgres.rows(people) == before[1:]
        accounts.write_text(text)
        # The service still has the person, and the night brings them again.
        assert home.run("/bin/sh", "-c", script).returncode == 0
        assert postgres.rows(people) == before[1:]
    finally:
        postgres.run("DROP SCHEMA food CASCADE")


# ---------------------------------------------------------------------------------------- months


def script_on(day: date, text: str) -> tuple[str, ...]:
    """Return the command of the only script with a text in it, as it is on a day."""
    [script] = [script for script in blocks("sh") if text in script]
    assert script.count("date.today()") == 1
    return "/bin/sh", "-c", script.replace("date.today()", repr(day).removeprefix("datetime."))


@pytest.mark.parametrize(
    ("day", "first", "last"),
    [
        (date(2026, 2, 3), 20260101, 20260131),
        (date(2026, 3, 31), 20260201, 20260228),
        (date(2026, 1, 1), 20251201, 20251231),
        (date(2024, 3, 6), 20240201, 20240229),
    ],
)
def test_the_calendar_month_before_is_exported_once(
    home: Home, day: date, first: int, last: int
) -> None:
    command = script_on(day, "charged-")
    done = home.run(*command)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    out = home.crm / f"charged-{first // 10000}-{first // 100 % 100:02}.parquet"
    plan = json.loads(Path(f"{out}.manifest.json").read_text())["plan"]
    assert (plan["start"], plan["end"]) == (first, last)
    before = out.stat().st_ino
    assert home.run(*command).returncode == 0
    assert out.stat().st_ino == before


def test_a_month_that_fails_is_mailed_and_exported_on_the_next_day(home: Home) -> None:
    accounts = home.path / ".config" / "altaprofiles" / "accounts.toml"
    text = accounts.read_text()
    accounts.write_text(re.sub('passcode = ".*"', 'passcode = "wrong"', text))
    done = home.run(*script_on(date(2026, 2, 3), "charged-"))
    # cron mails what is printed.
    assert (done.returncode, done.stdout) == (Exit.CREDENTIALS, "")
    assert "error: " in done.stderr
    assert not (home.crm / "charged-2026-01.parquet").exists()
    accounts.write_text(text)
    assert home.run(*script_on(date(2026, 2, 4), "charged-")).returncode == 0
    assert (home.crm / "charged-2026-01.parquet").exists()


def test_the_line_for_cron_of_a_month_runs_after_its_end() -> None:
    [line] = [line for text in blocks("crontab") for line in text.splitlines() if "month" in line]
    fields = re.fullmatch(r'\d+ \d+ (\d+)-(\d+) \* \* sh "\$HOME/crm/month.sh"', line)
    assert fields is not None
    assert 1 < int(fields[1]) < int(fields[2]) < 28


def cells_of(line: str) -> list[str]:
    return line.split(",")


def test_people_are_counted_month_by_month(home: Home) -> None:
    accounts = home.path / ".config" / "altaprofiles" / "accounts.toml"
    shop = accounts.read_text()
    accounts.write_text(shop + shop.replace("accounts.shop", "accounts.outlet"))
    command = script_on(date(2026, 3, 31), "range(6)")
    done = home.run(*command)
    assert (done.returncode, done.stderr) == (0, "")
    rows = {(month, name): cells for month, name, *cells in map(cells_of, done.stdout.splitlines())}
    months = ["2026-02", "2026-01", "2025-12", "2025-11", "2025-10", "2025-09"]
    assert [*rows] == [(month, name) for month in months for name in ("shop", "outlet")]
    for month, last in (("2026-02", "28"), ("2025-09", "30")):
        program = str(home.crm / ".venv/bin/altaprofiles")
        days = ("--from", f"{month}-01", "--to", f"{month}-{last}", "--account", "outlet")
        *counts, share = map(int, rows[month, "outlet"])
        for event, people in zip(("App Launched", "Charged"), counts, strict=True):
            assert home.run(program, "count", event, *days).stdout == f"{people}\n"
        launched, charged = counts
        assert share == (charged * 100 // launched if launched else 0)
    accounts.write_text(re.sub('passcode = ".*"', 'passcode = "wrong"', accounts.read_text()))
    failed = home.run(*command)
    assert (failed.returncode, failed.stdout) == (Exit.CREDENTIALS, "")


def test_days_that_differ_from_the_count_of_the_service_are_shown(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    [script] = [text for text in blocks("sh") if "counts.csv" in text]
    [query] = [text for text in blocks("sql") if "counts.csv" in text]
    # Three days are as good as a month.
    command = ("/bin/sh", "-c", script.replace("' 31)", "' 3)"))
    program = str(home.crm / ".venv/bin/altaprofiles")
    days = ("--since", "2026-01-01", "--until", "2026-01-03")
    done = home.run(program, "sync", "Charged", *days, "-o", "crm/", "--quiet", cwd=home.crm)
    assert (done.returncode, done.stderr) == (0, "")
    done = home.run(*command)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    counts = home.crm / "counts.csv"
    rows = [line.split(",") for line in counts.read_text().splitlines()]
    assert [day for day, _ in rows] == ["2026-01-01", "2026-01-02", "2026-01-03"]
    monkeypatch.chdir(home.crm)
    assert duckdb.execute(query).fetchall() == []
    # As if a night had lost someone.
    people = int(rows[1][1])
    rows[1][1] = str(people + 1)
    counts.write_text("".join(f"{day},{number}\n" for day, number in rows))
    assert duckdb.execute(query).fetchall() == [(date(2026, 1, 2), people + 1, people)]
    accounts = home.path / ".config" / "altaprofiles" / "accounts.toml"
    accounts.write_text(re.sub('passcode = ".*"', 'passcode = "wrong"', accounts.read_text()))
    assert home.run(*command).returncode == Exit.CREDENTIALS


# --------------------------------------------------------------------------------- the exit codes


def codes(verdict: str) -> set[int]:
    [row] = [line for line in SECTION.splitlines() if f"| {verdict} |" in line]
    return {*map(int, re.findall(r"\d+", row.split("|")[1]))}


def test_every_exit_code_has_a_verdict() -> None:
    all_of = [codes(verdict) for verdict in ("all is well", "try again", "look at it")]
    assert sum(map(len, all_of)) == len(set.union(*all_of))
    assert set.union(*all_of) == {0, 129, 130, 137, 143, *Exit} - {Exit.NOT_FOUND}
    prevented = unit("Service")["Service"]["RestartPreventExitStatus"]
    assert {*map(int, prevented.split())} == codes("look at it")


def test_wrong_credentials_are_to_be_looked_at(home: Home) -> None:
    accounts = home.path / ".config" / "altaprofiles" / "accounts.toml"
    accounts.write_text(re.sub('passcode = ".*"', 'passcode = "wrong"', accounts.read_text()))
    command = service_command(home)
    assert home.run(*command, cwd=home.crm).returncode == Exit.CREDENTIALS
    accounts.unlink()
    assert home.run(*command, cwd=home.crm).returncode == Exit.CREDENTIALS
    assert {Exit.CREDENTIALS, Exit.USAGE} == codes("look at it")


def test_the_questions_are_answered_by_the_table(home: Home) -> None:
    done = home.run(
        *(str(home.crm / ".venv/bin/altaprofiles"), "sync", "App Launched", "Charged", "--since"),
        *("2026-01-01", "--until", "2026-01-31", "--with-cdp", "-o", "crm/crm.duckdb", "--quiet"),
    )
    assert done.returncode == 0, done.stderr
    [text] = [text for text in blocks("sql") if "WHATSAPP" in text]
    with duckdb.connect(home.crm / "crm.duckdb", read_only=True) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        launched, new, on_whatsapp = [
            {row[0] for row in connection.execute(question).fetchall()}
            for question in text.split(";")
            if question.strip()
        ]
        columns = "identity, matched, cdp, CAST(added_at AS date) >= current_date"
        everyone = connection.execute(f"SELECT {columns} FROM profiles").fetchall()
    assert launched == {one for one, matched, *_ in everyone if matched == ["App Launched"]}
    assert new == {one for one, *_, is_new in everyone if is_new}
    types = [
        (one, bound["conversation_type"] or "")
        for one, _, cdp, _ in everyone
        for user in json.loads(cdp)
        for bound in user["anonymous_ids"]
    ]
    assert on_whatsapp == {one for one, kind in types if kind.startswith("WHATSAPP")} != set()


def bring_other_tables(home: Home, database: str) -> None:
    """Bring a table of bindings, and one of another sync, into a database beside `profiles`."""
    sync = "sync 'App Launched' --account shop --since 2026-01-01 --until 2026-01-02"
    (home.crm / "users.txt").write_text("user1\n")
    for command in (
        "lookup users.txt --by user-id --account shop",
        f"{sync} --table launched",
    ):
        to = f"-o {shlex.quote(database)} --quiet"
        done = home.run("/bin/sh", "-c", f"cd crm && .venv/bin/altaprofiles {command} {to}")
        assert done.returncode == 0, done.stderr


@needs_jq
def test_an_account_without_rows_since_a_day_is_named(home: Home) -> None:
    [line] = re.findall(r"`(altaprofiles status [^`]* jq [^`]*)`", SECTION)
    assert home.run("/bin/sh", "-c", cron_command()).returncode == 0
    bring_other_tables(home, "crm.duckdb")
    with duckdb.connect(home.crm / "crm.duckdb") as connection:
        connection.execute("UPDATE altaprofiles_sync SET synced_at = '2026-01-30 02:30:00Z'")
        connection.execute(
            "UPDATE altaprofiles_sync SET synced_at = '2026-01-31 02:30:00Z' "
            "WHERE table_name = 'profiles'"
        )
    line = line.replace("altaprofiles status", "cd crm && .venv/bin/altaprofiles status")
    account, other = str(home.emulator.clevertap.account_id), "987-654-321Z"
    line = line.replace("123-456-789Z", account)
    of_one = line.replace(f', "{other}"', "")
    assert of_one != line
    assert home.run("/bin/sh", "-c", of_one).stdout == ""
    late = home.run("/bin/sh", "-c", of_one.replace("2026-01-31", "2026-02-01"))
    assert (late.stdout, late.stderr) == (f"{account}\n", "")
    # It has never come.
    assert home.run("/bin/sh", "-c", line).stdout == f"{other}\n"
    # Nor has any into what is not there, and a server that is down tells of none.
    for lost in (
        "crm.duckdb --table others",
        "gone.duckdb",
        "postgresql://me@localhost:1/crm/buyers",
    ):
        asked = line.replace("crm.duckdb --table profiles", lost)
        assert asked != line
        assert home.run("/bin/sh", "-c", asked).stdout == f"{account}\n{other}\n"


@needs_jq
@pytest.mark.parametrize("output", ["crm.duckdb", "postgresql"])
def test_an_audit_compares_a_table_with_an_export(
    home: Home, output: str, request: pytest.FixtureRequest
) -> None:
    accounts = home.path / ".config" / "altaprofiles" / "accounts.toml"
    [script] = [text for text in blocks("sh") if "audit" in text]
    [program] = [text for text in blocks("python") if text.startswith("# audit.py")]
    (home.crm / "audit.py").write_text(program)
    script = script.replace(".venv/bin/python", shlex.quote(sys.executable))
    to, database = output, str(home.crm / output)
    if output == "postgresql":
        server: Server = request.getfixturevalue("postgres")
        to, database = server.url("profiles"), server.url()
        script = script.replace("status crm.duckdb --table profiles", f"status {shlex.quote(to)}")
        script = script.replace("audit.py crm.duckdb", f"audit.py {shlex.quote(database)}")
    days = "--since 2026-01-01 --until 2026-01-07"
    night = f"cd crm && .venv/bin/altaprofiles sync 'App Launched' Charged {BOTH}{days} --quiet"
    with emulated(people=40, seed=8) as outlet:
        variables = outlet.environment
        accounts.write_text(
            f"{accounts.read_text()}[accounts.outlet]\n"
            f'account_id = "{variables["CLEVERTAP_ACCOUNT_ID"]}"\n'
            f'passcode = "{variables["CLEVERTAP_PASSCODE"]}"\n'
            f'base_url = "{outlet.url}"\n'
            'timezone = "Asia/Kolkata"\n'
        )
        # One account is a day ahead.
        ahead = night.replace(BOTH, "--account outlet ").replace("-07", "-08")
        for command in (night, ahead):
            done = home.run("/bin/sh", "-c", f"{command} -o {shlex.quote(to)}")
            assert done.returncode == 0, done.stderr
        bring_other_tables(home, database)
        names = [str(one.clevertap.account_id) for one in (home.emulator, outlet)]
        pairs = re.search(r"shop=(\S+) outlet=([^;]+);", script)
        assert pairs
        for example, name in zip(pairs.groups(), names, strict=True):
            script = script.replace(example, name)

        def audit() -> tuple[int, dict[str, dict[str, Any]]]:
            done = home.run("/bin/sh", "-c", script)
            assert done.stderr == ""
            lines = (home.crm / "audit.ndjson").read_text().splitlines()
            results = [*map(json.loads, lines)]
            return done.returncode, {str(one["account"]): one for one in results}

        code, results = audit()
        assert (code, {*results}) == (0, {*names})
        for one in results.values():
            found = {one[name] for name in ("counted", "in_file", "in_table")}
            assert len(found) == 1
            assert found != {0}
        with closing(connection_to(database)) as connection:
            for statement in STATEMENTS:
                connection.execute(statement)
            connection.commit()
        code, results = audit()
    assert code == 1
    for one in results.values():
        assert (one["passed"], one["is_as_written"]) == (False, True)
        assert one["extra"] == ["identity:extra"]
        for name in ("lost", "changed"):
            assert isinstance(one[name], list)
            assert len(one[name]) == 1


BUYERS = "FROM profiles WHERE array_to_string(matched, ',') LIKE '%Charged%' GROUP BY account"
STATEMENTS = [
    f"DELETE FROM profiles WHERE (account, person) IN (SELECT account, min(person) {BUYERS})",
    (
        "UPDATE profiles SET email = 'eve@example.com' "
        f"WHERE (account, person) IN (SELECT account, max(person) {BUYERS})"
    ),
    (
        "INSERT INTO profiles (account, person, matched) "
        f"SELECT account, 'identity:extra', ARRAY['Charged'] {BUYERS}"
    ),
]
"""Mishaps of a table: each costs, changes or adds a person of each account."""


def connection_to(database: str) -> Any:
    if database.startswith("postgresql:"):
        return psycopg.connect(database)
    connection = duckdb.connect(database)
    connection.begin()
    return connection


@needs_jq
def test_a_night_leaves_metrics_for_node_exporter(home: Home) -> None:
    script = block_of("observability.md", "textfile_collector", "sh")
    folder = home.path / "textfiles"
    folder.mkdir()
    script = script.replace("/var/lib/node_exporter/textfile_collector", str(folder))
    # The other days would be asked for one by one.
    script = script.replace("--since 2026-01-01", "--since 2026-01-01 --until 2026-01-07")

    def night() -> tuple[int, dict[str, tuple[dict[str, str], float]]]:
        done = home.run("/bin/sh", "-c", script)
        assert [path.name for path in folder.iterdir()] == ["crm.prom"]
        text = (folder / "crm.prom").read_text()
        samples = [one for family in text_string_to_metric_families(text) for one in family.samples]
        names = [(one.name, *one.labels.values()) for one in samples]
        # node_exporter refuses a file with a series twice.
        assert len(names) == len({*names})
        return done.returncode, {one.name: (one.labels, one.value) for one in samples}

    bring_other_tables(home, "crm.duckdb")
    code, metrics = night()
    labels = {"job_name": "crm"}
    account = labels | {"account": str(home.emulator.clevertap.account_id)}
    assert (code, metrics["altaprofiles_night_exit_code"]) == (0, (labels, 0))
    assert metrics["altaprofiles_night_people"] == (labels, home.people())
    of_success = metrics["altaprofiles_synced_seconds"]
    assert of_success[0] == account
    assert of_success[1] <= metrics["altaprofiles_night_end_seconds"][1]
    last_day = datetime(2026, 1, 7, tzinfo=UTC).timestamp()
    assert metrics["altaprofiles_through_seconds"] == (account, last_day)
    accounts = home.path / ".config" / "altaprofiles" / "accounts.toml"
    accounts.write_text(re.sub(r'passcode = ".*"', 'passcode = "wrong"', accounts.read_text()))
    code, metrics = night()
    # The last success stays what it was.
    assert (code, metrics["altaprofiles_night_exit_code"]) == (3, (labels, 3))
    assert metrics["altaprofiles_synced_seconds"] == of_success
    (home.crm / "crm.duckdb").write_bytes(b"damaged")
    code, metrics = night()
    assert metrics.keys() >= {"altaprofiles_night_exit_code", "altaprofiles_night_end_seconds"}
    assert code != 0
