"""The first two examples in the help of each command run as they stand, against the emulator."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from altaprofiles.accounts import Accounts
from altaprofiles.cli import cli
from altaprofiles.emulator import Emulator

from ..support.forks import write_program
from ..support.tasks import PATIENCE
from ..support.terminals import COMMAND, CONSOLE_SCRIPT, Terminal, emulated, environment

pytestmark = pytest.mark.slow

JANUARY = "--from 2026-01-01 --to 2026-01-31"


def examples(name: str) -> list[str]:
    """Return the examples in the help of a command, each as the user pastes it."""
    help_text = cli.commands[name].help or ""
    block = help_text.partition("Examples:\n")[2].partition("\n\n")[0]
    lines = re.sub(r"\\\n\s*", "", block).splitlines()
    return [line.strip() for line in lines if line.strip()]


COMMANDS = [name for name in cli.commands if name not in ("login", "emulator")]
"""The two others wait for somebody."""


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with emulated(people=200) as running:
        yield running


@pytest.fixture
def env(tmp_path: Path, emulator: Emulator) -> dict[str, str]:
    """The environment of a reader with credentials, and an account named shop."""
    variables = emulator.environment
    table = {
        "account_id": variables["CLEVERTAP_ACCOUNT_ID"],
        "passcode": variables["CLEVERTAP_PASSCODE"],
        "base_url": emulator.url,
        "alta_token": variables["ALTA_TOKEN"],
        "alta_base_url": emulator.url,
    }
    accounts = Accounts(tmp_path / "accounts.toml", "shop", {"shop": table})
    accounts.write()
    programs = tmp_path / "bin"
    programs.mkdir()
    path = f"{programs}:/usr/bin:/bin"
    config = {"ALTAPROFILES_CONFIG": str(accounts.path), "PATH": path, "TMPDIR": str(tmp_path)}
    env = environment(tmp_path, variables, config)
    write_program(programs / "altaprofiles", "-c", CONSOLE_SCRIPT, env=env)
    return env


@pytest.fixture
def folder(tmp_path: Path, env: dict[str, str]) -> Path:
    """The folder of a reader, with the files that examples name."""
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "ids.csv").write_text("identity\n5555555555\n")
    (folder / "ids.txt").write_text("5555555555\nBC123\n")
    (folder / "people.csv").write_text("name,email\nJack,jack@example.com\n")
    return folder


def shell(command: str, env: dict[str, str], folder: Path) -> None:
    """Run a command as a shell does, in which no part of a pipe may fail."""
    done = subprocess.run(
        ["/bin/bash", "-o", "pipefail", "-c", command],
        env=env,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stderr}"
    assert done.stdout or done.stderr


NEEDED = {
    "describe": ("people.parquet", "crm.duckdb --table buyers"),
    "status": ("people.parquet",),
    "lookup": ("people.ndjson",),
}
"""Outputs of earlier exports that the examples of a command name."""


@pytest.mark.parametrize("name", COMMANDS)
def test_two_examples_run_as_they_stand(name: str, env: dict[str, str], folder: Path) -> None:
    for out in NEEDED.get(name, ()):
        shell(f"altaprofiles export Charged {JANUARY} -o {out}", env, folder)
    first, second, *_ = examples(name)
    for example in (first, second):
        assert example.startswith("altaprofiles") or "| altaprofiles" in example
        shell(example, env, folder)


def test_examples_of_the_emulator_serve(env: dict[str, str], folder: Path) -> None:
    shell(f"altaprofiles export Charged {JANUARY} -o people.ndjson", env, folder)
    for example in examples("emulator")[:2]:
        # On a port that is free.
        command = ["/bin/bash", "-c", f"exec {example.replace('--port 8123', '--port 0')}"]
        with subprocess.Popen(
            command, env=env, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("export CLEVERTAP_")
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE) == 0


def test_examples_of_login_ask(env: dict[str, str]) -> None:
    for example in examples("login")[:2]:
        with Terminal(env, *example.split()[1:], command=COMMAND) as terminal:
            terminal.expect("CleverTap account ID")
