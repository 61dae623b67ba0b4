"""Each screen leads to the next step: `altaprofiles` alone, `login`, `doctor`, completion."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from altaprofiles.accounts import Accounts
from altaprofiles.emulator import Emulator, Fault

from ..support.forks import start, wait_until_stopped
from ..support.terminals import Terminal, emulated, environment, run, stopping

JANUARY = ("--from", "2026-01-01", "--to", "2026-01-31")


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with emulated(people=50) as running:
        yield running


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return environment(tmp_path)


def saved(env: dict[str, str], emulator: Emulator, name: str = "shop") -> Path:
    """Save an account of the emulator in the credentials file."""
    path = Path(env["HOME"]) / ".config" / "altaprofiles" / "accounts.toml"
    variables = emulator.environment
    table = {
        "account_id": variables["CLEVERTAP_ACCOUNT_ID"],
        "passcode": variables["CLEVERTAP_PASSCODE"],
        "base_url": emulator.url,
        "alta_token": variables["ALTA_TOKEN"],
        "alta_base_url": emulator.url,
    }
    Accounts(path, name, {name: table}).write()
    return path


def steps(screen: str) -> list[list[str]]:
    """Return the words of each command on a screen, behind `altaprofiles`."""
    return [shlex.split(line)[1:] for line in re.findall(r"altaprofiles .+", screen)]


def test_without_credentials_the_first_screen_leads_to_the_demo_and_login(
    env: dict[str, str],
) -> None:
    done = run(env)
    screen = done.stdout.decode()
    assert (done.code, done.stderr) == (0, "")
    assert "There are no credentials yet. Next:" in screen
    names = [words[0] for words in steps(screen)]
    assert names == ["demo", "emulator", "login", "guide", "--help"]
    for name in names[:-1]:
        assert run(env, name, "--help").code == 0
    assert run(env, "guide", "start-here").code == 0
    assert max(map(len, screen.splitlines())) <= 85


@pytest.mark.parametrize("where", ["the environment", "the file"])
def test_with_credentials_each_step_of_the_first_screen_can_be_run(
    env: dict[str, str], emulator: Emulator, where: str, tmp_path: Path
) -> None:
    place = "CleverTap from the environment; Alta from the environment"
    if where == "the file":
        place = f"shop in {saved(env, emulator)}"
    else:
        env |= emulator.environment
    done = run(env)
    assert (done.code, done.stderr) == (0, "")
    screen = done.stdout.decode()
    assert f"Credentials: {place}. Next:" in screen
    assert "count" in screen
    for words in steps(screen):
        if words[0] == "export":
            words[-1] = str(tmp_path / words[-1])
        done = run(env, *words)
        assert done.code == 0, done.stderr


def test_a_broken_credentials_file_leads_to_the_doctor(env: dict[str, str]) -> None:
    path = Path(env["HOME"]) / ".config" / "altaprofiles" / "accounts.toml"
    path.parent.mkdir(parents=True)
    path.write_text("[shop")
    path.chmod(0o600)
    done = run(env)
    assert done.code == 0
    assert str(path) in done.stdout.decode()
    assert steps(done.stdout.decode())[0] == ["doctor"]


@pytest.mark.slow
def test_login_leads_to_the_doctor_and_the_doctor_to_a_question(
    env: dict[str, str], emulator: Emulator
) -> None:
    variables = emulator.environment
    for name, of in (("shop", ""), ("out", " --account out")):
        with Terminal(env, "login", name) as terminal:
            for question, answer in (
                ("CleverTap account ID", variables["CLEVERTAP_ACCOUNT_ID"]),
                ("Its passcode: ", variables["CLEVERTAP_PASSCODE"]),
                ("region", emulator.url),
                ("Alta API key (Enter for none): ", variables["ALTA_TOKEN"]),
                ("Alta's base URL", emulator.url),
            ):
                terminal.expect(question)
                terminal.type(answer)
            assert terminal.ended().code == 0
        assert f"Next: altaprofiles doctor{of}\n" in terminal.text
        done = run(env, *shlex.split(f"doctor{of}"))
        assert done.code == 0
        (words,) = steps(done.stderr)
        assert words[0] == "count"
        done = run(env, *words)
        assert done.code == 0, done.stderr
        assert re.fullmatch(r"\d+\n", done.stdout.decode())


def test_with_alta_alone_the_doctor_leads_to_look_ups(
    env: dict[str, str], emulator: Emulator
) -> None:
    names = ("ALTA_TOKEN", "ALTA_BASE_URL")
    env |= {name: emulator.environment[name] for name in names}
    done = run(env, "doctor")
    assert done.code == 0
    assert steps(done.stderr) == [["guide", "look-ups"]]


def completed(env: dict[str, str], shell: str, *words: str) -> list[str]:
    """Return the words that a shell offers in the place of the last one."""
    place = words[-1] if shell == "fish" else str(len(words))
    typed = {"COMP_WORDS": "\n".join(("altaprofiles", *words)), "COMP_CWORD": place}
    done = run(env | typed | {"_ALTAPROFILES_COMPLETE": f"{shell}_complete"})
    assert (done.code, done.stderr) == (0, "")
    text = done.stdout.decode()
    if shell == "zsh":
        return text.splitlines()[1::3]
    return [line.split(",", 1)[1].split("\t")[0] for line in text.split("\n") if line]


@pytest.fixture
def ran(
    env: dict[str, str], emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    """The environment of somebody who has run exports in the current folder."""
    monkeypatch.chdir(tmp_path)
    env |= emulator.environment
    assert run(env, "export", "App Launched", *JANUARY, "-o", "people.ndjson").code == 0
    # This one is left unfinished.
    command = stopping("os.rename", "charged.csv.partial")
    arguments = ("export", "Charged", *JANUARY, "-o", "charged.csv", "--quiet")
    with start([*command, *arguments], env=env, stdout=subprocess.DEVNULL) as process:
        assert wait_until_stopped(process)
        process.kill()
    return env


@pytest.mark.slow
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_events_of_earlier_runs_are_completed(ran: dict[str, str], shell: str) -> None:
    launched = "'App Launched'" if shell == "bash" else "App Launched"
    for command in ("export", "sync", "count"):
        assert launched in completed(ran, shell, command, "A")
        # Of the unfinished export.
        assert completed(ran, shell, command, "C") == ["Charged"]
        assert completed(ran, shell, command, "Z") == []
    if shell == "bash":
        # The quotation mark that was typed stays.
        assert completed(ran, shell, "export", '"App') == ["App Launched"]


def test_an_event_that_is_given_is_not_offered_once_more(ran: dict[str, str]) -> None:
    assert completed(ran, "zsh", "export", "App Launched", "A") == []


def test_bash_inserts_an_event_as_one_word(ran: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "start").write_bytes(run(ran | {"_ALTAPROFILES_COMPLETE": "bash_source"}).stdout)
    script = (
        "source ./start; COMP_WORDS=(altaprofiles export App); COMP_CWORD=2; "
        "_altaprofiles_completion altaprofiles; eval set -- ${COMPREPLY[@]}; "
        'printf "%s|" "$@"'
    )
    path = f"{Path(sys.executable).parent}:{ran.get('PATH', '')}"
    done = subprocess.run(
        ["/bin/bash", "-c", script],
        env=ran | {"PATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "App Launched|"


def test_faults_are_completed_with_a_rate(env: dict[str, str]) -> None:
    offered = completed(env, "bash", "emulator", "--fault", "")
    assert offered == [f"{fault.value}=0.1" for fault in Fault]
    assert completed(env, "bash", "emulator", "--fault", "not") == ["not_ready=0.1"]
