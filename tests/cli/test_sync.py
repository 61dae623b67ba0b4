"""`altaprofiles sync`: what it prints and its exit codes, in processes of their own."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pytest

from altaprofiles.emulator import Emulator
from altaprofiles.export.outputs import SyncedDays, days_of, outputs_at

from ..support.forks import start
from ..support.jobs import journal
from ..support.postgres import Server
from ..support.sessions import session_for
from ..support.terminals import COMMAND, Terminal, emulated, environment, held, run

pytestmark = pytest.mark.slow

SYNC = ("sync", "App Launched", "Charged", "--since", "2026-01-01", "-o", "crm.duckdb")


@pytest.fixture(scope="module")
def small() -> Iterator[Emulator]:
    with emulated(people=150, seed=3) as emulator:
        yield emulator


@pytest.fixture
def env(small: Emulator, tmp_path: Path) -> dict[str, str]:
    return environment(tmp_path, small.environment, CLEVERTAP_TIMEZONE="Asia/Kolkata")


def through(folder: Path) -> str:
    with duckdb.connect(str(folder / "crm.duckdb"), read_only=True) as connection:
        [(day,)] = connection.execute("SELECT through FROM altaprofiles_sync").fetchall()
    return str(day)


def test_night_after_night(env: dict[str, str], small: Emulator, tmp_path: Path) -> None:
    for day, days in (("05", "2026-01-01 to 2026-01-05"), ("06", "2026-01-04 to 2026-01-06")):
        done = run(env, *SYNC, "--until", f"2026-01-{day}", cwd=tmp_path)
        assert (done.code, done.stdout) == (0, b"crm.duckdb\n")
        assert f"days      {days}\n" in done.stderr
        assert f"through   2026-01-{day}, by days of Asia/Kolkata\n" in done.stderr
        assert "warning" not in done.stderr
    done = run(env, "status", cwd=tmp_path)
    text = done.stdout.decode()
    assert "  synced      through 2026-01-06, in the run of 20" in text
    # Those of earlier nights are not counted.
    assert re.search(r"  written     .* UTC, \d+ people in that run, ", text)
    done = run(env, "status", "crm.duckdb", "--json", cwd=tmp_path)
    account = small.environment["CLEVERTAP_ACCOUNT_ID"]
    assert json.loads(done.stdout)["synced"] == {account: "2026-01-06"}
    # There are no days to bring.
    done = run(
        env, *SYNC, "--until", "2026-01-06", "--late-days", "0", "--json", "-q", cwd=tmp_path
    )
    assert (done.code, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert (report["first"], report["through"], report["requests"]) == (None, "2026-01-06", 0)
    done = run(env, *SYNC, "--until", "2026-01-06", "--late-days", "0", cwd=tmp_path)
    assert "days      none, as the table has all of them\n" in done.stderr


def test_a_day_that_is_gone_is_told_with_the_option(env: dict[str, str], tmp_path: Path) -> None:
    command = (*SYNC[:-1], "crm/", "--until", "2026-01-06", "-q")
    assert run(env, *command, cwd=tmp_path).code == 0
    shutil.rmtree(tmp_path / "crm" / "day=2026-01-02")
    done = run(env, *command, cwd=tmp_path)
    assert "sync this account once with --late-days 5 or more" in done.stderr


@pytest.mark.parametrize("out", ["crm.duckdb", "crm/", "postgres"])
def test_the_first_day_of_use_writes_nothing_and_says_so(
    env: dict[str, str], tmp_path: Path, postgres: Server, out: str
) -> None:
    to = postgres.url("today") if out == "postgres" else out
    # Where it is about noon, so that the day ends during no test.
    now = datetime.now(UTC)
    hours = 12 - now.hour
    zone, since = f"Etc/GMT{-hours:+d}", (now + timedelta(hours=hours)).date()
    command = ("sync", "Charged", "--since", str(since), "--timezone", zone, "-o", to)
    before = {*tmp_path.rglob("*")}
    done = run(env, *command, cwd=tmp_path)
    assert (done.code, done.stdout) == (0, b"")
    none = f"none: no day since {since} is over yet, by days of {zone}; nothing was written"
    assert re.search(rf"^days +{re.escape(none)}$", done.stderr, re.MULTILINE)
    assert "output" not in done.stderr
    done = run(env, *command, "--json", "-q", cwd=tmp_path)
    assert (done.code, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert (report["has_output"], report["through"], report["manifest"]) == (False, None, None)
    assert report["since"] == str(since)
    assert {*tmp_path.rglob("*")} == before
    if out == "postgres":
        assert postgres.rows("select to_regclass('today')") == [(None,)]
    # The day before is over.
    early = [*command]
    early[3] = str(since - timedelta(days=1))
    done = run(env, *early, "--json", cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert json.loads(done.stdout)["has_output"]
    done = run(env, *early, "--late-days", "0", cwd=tmp_path)
    assert done.stdout
    assert "days      none, as the table has all of them\n" in done.stderr


def test_a_night_that_is_killed_is_finished_by_the_next(
    env: dict[str, str], small: Emulator, tmp_path: Path
) -> None:
    def pages() -> int:
        found = "select coalesce(sum(pages), 0) from chains"
        return sum(n for path in tmp_path.glob("*.export/*") for [n] in journal(path, found))

    devnull = subprocess.DEVNULL
    with held(small, passing=2, holding=9) as (variables, let_pass):
        env = env | variables
        command = [*COMMAND, *SYNC, "--until", "2026-01-20", "--batch-size", "23"]
        with start(command, env=env, cwd=tmp_path, stdout=devnull, stderr=devnull) as process:
            while not pages():
                assert process.poll() is None
                time.sleep(0.02)
            process.kill()
            assert process.wait() == -signal.SIGKILL
        let_pass()
        kept = pages()
        done = run(env, "status", "crm.duckdb", cwd=tmp_path)
        assert "unfinished  the export of 'App Launched', 'Charged'" in done.stdout.decode()
        before = small.stats.requests["page"]
        done = run(env, *SYNC, "--until", "2026-01-20", "--json", cwd=tmp_path)
        assert done.code == 0, done.stderr
        report = json.loads(done.stdout)
        assert (report["finished"], report["through"]) == (1, "2026-01-20")
        assert small.stats.requests["page"] - before == report["pages"] - kept
        assert "finished  1 export of earlier runs" in done.stderr
        assert through(tmp_path) == "2026-01-20"
        assert not (tmp_path / "crm.duckdb.export").exists()


def test_ctrl_c_prints_the_command_that_resumes(
    env: dict[str, str], small: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with (
        held(small, passing=3) as (variables, _),
        Terminal(env | variables, *SYNC, "--until", "2026-01-20") as terminal,
    ):
        terminal.expect("reading")
        terminal.press_ctrl_c()
        assert terminal.ended().code == 130
    text = terminal.text.replace("\n", "")
    assert "To resume: " in text
    assert "sync 'App Launched' Charged --since 2026-01-01" in text


def test_wrong_usage(env: dict[str, str], tmp_path: Path) -> None:
    for arguments, words in (
        ((), "EVENT"),
        (("Charged",), "--since"),
        (("Charged", "--since", "2026-01-01"), "--out"),
        (("Charged", "--since", "-7d", "-o", "c.duckdb"), "--since: '-7d' is not a day"),
        (("Charged", "--since", "2026-W02", "-o", "c.duckdb"), "--since: '2026-W02' is not a day"),
        (("Charged", "--since", "2026-01-01", "-o", "c.csv"), "--out: 'c.csv' cannot keep the"),
        (("Charged", "--since", "2026-01-01", "-o", "c.xlsx"), "implies no table; use a table of"),
        (
            ("Charged", "--since", "2026-01-02", "--until", "2026-01-01", "-o", "c.duckdb"),
            "--until: 2026-01-01 is before --since, 2026-01-02; swap them",
        ),
        (
            ("Charged", "--since", "2026-01-01", "--late-days", "-1", "-o", "c.duckdb"),
            "--late-days: ",
        ),
        (
            ("Charged", "--since", "2026-01-01", "--timezone", "Kolkata", "-o", "c.duckdb"),
            "--timezone: there is no time zone 'Kolkata' (did you mean 'Asia/Kolkata'?)",
        ),
        (
            ("Charged", "--since", "2026-01-01", "-o", "c.duckdb", "--where", "Amount"),
            "--where: ",
        ),
    ):
        done = run(env, "sync", *arguments, cwd=tmp_path)
        assert (done.code, done.stdout) == (2, b""), done.stderr
        assert words in done.stderr
        assert len(done.stderr.splitlines()) == 1
    done = run(env | {"CLEVERTAP_TIMEZONE": "IST"}, *SYNC, cwd=tmp_path)
    assert done.code == 2
    assert "CLEVERTAP_TIMEZONE: there is no time zone 'IST'" in done.stderr


def test_another_sync_is_told_in_the_words_of_the_options(
    env: dict[str, str], tmp_path: Path
) -> None:
    assert run(env, *SYNC, "--until", "2026-01-02", cwd=tmp_path).code == 0
    done = run(
        env,
        *("sync", "Charged", "--since", "2026-01-02", "--app", "--no-events"),
        *("--profile-where", "Email = jo@example.com", "-o", "crm.duckdb"),
        cwd=tmp_path,
    )
    assert done.code == 2
    for words in (
        "another sync keeps 'profiles' in crm.duckdb",
        "EVENT was 'App Launched', 'Charged' and is now 'Charged'",
        "--since was '2026-01-01' and is now '2026-01-02'",
        "it had no --app, and now has --app",
        "it had --events, and now has --no-events",
        "--profile-where was left out and is now 'Email' equals …",
        "or choose another --table or --out",
    ):
        assert words in done.stderr
    assert "jo@" not in done.stderr
    assert through(tmp_path) == "2026-01-02"


def test_without_a_time_zone_there_is_one_warning(env: dict[str, str], tmp_path: Path) -> None:
    env.pop("CLEVERTAP_TIMEZONE")
    done = run(env, *SYNC, "--until", "2026-01-02", "-q", cwd=tmp_path)
    assert done.code == 0
    [line] = done.stderr.splitlines()
    assert line.startswith("warning: the time zone of the project is not known")
    assert "--timezone" in line


def test_status_of_a_file_in_use_does_not_wait(
    env: dict[str, str], small: Emulator, tmp_path: Path
) -> None:
    assert run(env, *SYNC, "--until", "2026-01-02", cwd=tmp_path).code == 0
    program = "import duckdb; c = duckdb.connect('crm.duckdb'); print('open', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == b"open\n"
        done = run(env, "status", cwd=tmp_path)
        assert done.code == 0
        assert "  synced      through 2026-01-02, in the run of 20" in done.stdout.decode()
        assert "by the manifest, as the table cannot be read: " in done.stdout.decode()
        process.stdin.close()


def test_status_of_a_table_that_is_written_from_elsewhere(
    env: dict[str, str],
    small: Emulator,
    tmp_path: Path,
    postgres: Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    account = small.environment["CLEVERTAP_ACCOUNT_ID"]
    url = postgres.url("nightly")
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    (there / "crm").mkdir(parents=True)
    monkeypatch.chdir(here)

    async def nights() -> None:
        async with session_for(small) as session:
            for to in (url, "crm.duckdb", "crm/"):
                await session.sync("Charged", since=20260101, until=20260105, to=to, timezone="UTC")
                if to != "crm/":
                    # What completes a sync now and then.
                    await session.export("Charged", start=20260101, end=20260105, to=to)

    asyncio.run(nights())
    for folder, to in (
        *((here, to) for to in (url, "crm.duckdb", "crm/")),
        *((there, to) for to in (url, str(here / "crm.duckdb"), str(here / "crm/"))),
    ):
        monkeypatch.chdir(folder)
        [output] = outputs_at(to, table=None, spool=None, elsewhere=True)
        found = days_of(output, to)
        [time] = found.times.values()
        assert time is not None
        days, times = {account: "2026-01-05"}, {account: time}
        exists = None if Path(to).is_dir() else True
        assert found == SyncedDays(days=days, times=times, exists=exists), (folder, to)
    # Beside which no manifest is.
    (here / "crm.duckdb").rename(there / "moved.duckdb")
    for name in (url, "moved.duckdb"):
        done = run(env, "status", name, cwd=there)
        synced = r"\n  synced      through 2026-01-05, in the run of \S+ \S+ UTC\n$"
        assert re.search(synced, done.stdout.decode())
    done = run(env, "status", postgres.url("other"), cwd=there)
    assert (done.code, done.stdout) == (0, b"")
    assert "No export has written it yet." in done.stderr
    # Without the server, nobody takes it for a table that no sync keeps.
    nowhere = url.replace(f":{postgres.port}/", ":1/")
    reason = "as the table cannot be read: "
    done = run(env, "status", nowhere, cwd=there)
    assert done.code == 1
    assert f"  synced      unknown, {reason}" in done.stdout.decode()
    done = run(env, "status", nowhere, "--json", cwd=there)
    assert done.code == 1
    state = json.loads(done.stdout)
    assert state["synced_unread"].startswith(reason)
    assert (state["success"], state["synced"], state["synced_from"]) == (None, {}, None)


def test_the_words_fit_a_terminal(
    env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with Terminal(env, "sync", "--help", columns=80) as terminal:
        assert terminal.ended().code == 0
    assert max(map(len, terminal.text.splitlines())) <= 80
    words = " ".join(terminal.text.split())
    assert "It cannot see profiles that change without an EVENT" in words
    assert "into the same table now and then updates the first" in words
    with Terminal(env, *SYNC, "--until", "2026-01-03") as terminal:
        assert terminal.ended().code == 0
    assert "through" in terminal.text
