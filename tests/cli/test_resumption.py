"""Command lines that are printed to be run again mean the same as the one that was run."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click
import pytest
from click.core import ParameterSource

from altaprofiles.cli import cli
from altaprofiles.cli.app import App
from altaprofiles.cli.commands.cdp import _as_lookup
from altaprofiles.cli.resumption import command_line, resuming_line
from altaprofiles.export.place import status_command

from ..support.tasks import PATIENCE
from ..support.terminals import emulated, environment

SHARED = ("accounts", "quiet", "verbose", "log_format", "timeout", "max_time", "retries")
TEXTS = ["-x", "it's $HOME", "two  blanks", "\N{SNOWMAN}", "100%"]
NUMBERS = {
    "SECONDS": ["0.1", "12345.678", "86400"],
    "DAY": ["2026-01-31"],
    "TIME": ["2026-01-31T02:00:00Z", "2026-01-31T07:30:00.5+05:30"],
}


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("-folder").mkdir()
    Path("-file.txt").touch()


@pytest.fixture(params=[True, False])
def in_terminal(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Return whether a terminal shows what an installed program prints."""
    shown: bool = request.param
    monkeypatch.setattr(sys.stderr, "isatty", lambda: shown)
    monkeypatch.setattr(sys, "argv", ["/opt/altaprofiles"])
    return shown


def parsed(words: list[str]) -> tuple[click.Context, dict[str, object]]:
    """Return the context of a command line, and the values of all options."""
    app = App()
    name, *rest = words
    outer = cli.make_context("altaprofiles", [name], obj=app)
    context = cli.commands[name].make_context(name, rest, parent=outer)
    shared = {name: getattr(app, name) for name in SHARED}
    return context, context.params | shared


def again(context: click.Context) -> list[str]:
    with context:
        words = shlex.split(command_line(context), posix=True)
    return words[words.index(str(context.info_name)) :]


def values_of(option: click.Parameter) -> list[str]:
    kind = option.type
    if isinstance(kind, click.Choice):
        return [str(choice) for choice in kind.choices]
    if isinstance(kind, click.Path):
        return ["-folder"] if not kind.file_okay else ["-file.txt"]
    if option.metavar in NUMBERS:
        return NUMBERS[option.metavar]
    if option.metavar in ("N", "N|auto", "CODE"):
        return ["7"]
    return TEXTS


def spellings(option: click.Option) -> Iterator[list[str]]:
    """Yield the words of an option with each of its values."""
    if option.is_flag:
        yield from ([name] for name in [*option.opts, *option.secondary_opts] if name != "--fresh")
        return
    name = max(option.opts, key=len)
    values = values_of(option)
    yield from ([name, value] for value in values)
    if option.multiple:
        yield [word for value in values for word in (name, value)]


def plain(command: click.Command, without: str | None) -> list[str]:
    """Return the words that a command requires, but for one option."""
    words: list[str] = []
    for option in command.params:
        if isinstance(option, click.Option) and option.required and option.name != without:
            words += next(spellings(option))
    needs_file = any(isinstance(one, click.Argument) and one.required for one in command.params)
    return [*words, "--", "-file.txt"] if needs_file else words


OPTIONS = [
    pytest.param(name, option, id=f"{name} {max(option.opts, key=len)}")
    for name, command in cli.commands.items()
    for option in command.params
    if isinstance(option, click.Option)
]


@pytest.mark.parametrize(("name", "option"), OPTIONS)
def test_every_option_of_every_command(name: str, option: click.Option) -> None:
    required = plain(cli.commands[name], option.name)
    for words in spellings(option):
        context, values = parsed([name, *words, *required])
        source = context.get_parameter_source(str(option.name))
        assert source is ParameterSource.COMMANDLINE or option.name in SHARED
        line = again(context)
        assert parsed(line)[1] == values, line


@pytest.mark.parametrize("action", ["--finish-unfinished", "--discard-unfinished"])
def test_work_is_not_discarded_by_the_line_that_finishes_it(action: str) -> None:
    context, _ = parsed(["status", "k.ndjson", action, "--yes", "--max-time", "4"])
    assert again(context) == ["status", "k.ndjson", action, "--yes", "--max-time", "4"]


@pytest.mark.parametrize("name", ["export", "sync", "status"])
def test_arguments_that_look_like_options(name: str) -> None:
    for text in TEXTS:
        words = plain(cli.commands[name], None)
        context, values = parsed([name, *words, "--", text])
        assert parsed(again(context))[1] == values


def test_times_in_seconds() -> None:
    words = ["export", "Charged", "--from", "1767225600", "--to", "20260131", "-o", "p.csv"]
    context, values = parsed(words)
    assert parsed(again(context))[1] == values


def test_options_that_exclude_each_other_are_refused() -> None:
    both = ["--finish-unfinished", "--discard-unfinished"]
    for flags in (both, both[::-1]):
        with pytest.raises(click.UsageError) as raised:
            parsed(["status", "k.ndjson", *flags])
        assert raised.value.exit_code == 2
        assert "--finish-unfinished" in raised.value.message
        assert "--discard-unfinished" in raised.value.message


@pytest.mark.parametrize("name", ["p.csv", "-p.csv", "it's $HOME"])
@pytest.mark.parametrize("table", [None, "-t x"])
@pytest.mark.parametrize("spool", [None, "-folder"])
def test_the_line_that_shows_what_is_unfinished(
    name: str, table: str | None, spool: str | None
) -> None:
    line = f"{status_command(name, table, spool)} --finish-unfinished"
    _, values = parsed(shlex.split(line)[1:])
    assert Path(str(values["out"])) == Path(name)
    assert (values["table"], values["spool"]) == (table, spool)
    assert values["action"] == "finish"


@pytest.mark.parametrize(
    ("options", "is_of_folder"),
    [
        ([], True),
        (["--spool", "-folder"], True),
        (["--spool", "/srv"], False),
        (["--spool", "/srv", "--query", "-file.txt"], True),
        (["--spool", "/srv", "--query", "-"], False),
    ],
)
@pytest.mark.parametrize("to", ["postgresql://me@db/crm/buyers", "s3://people/buyers.parquet"])
@pytest.mark.usefixtures("in_terminal")
def test_a_line_that_resumes_in_one_folder_only_goes_there(
    tmp_path: Path,
    to: str,
    options: list[str],
    is_of_folder: bool,
) -> None:
    days = ["--from", "2026-01-01", "--to", "2026-01-31"]
    context, values = parsed(["export", "Charged", *days, "-o", to, *options])
    with context:
        words = resuming_line(context)
    start = f"(cd {shlex.quote(str(tmp_path))} && "
    assert words.startswith(start) == is_of_folder, words
    line = words.removeprefix(start).removesuffix(")" if is_of_folder else "")
    line_words = shlex.split(line)
    assert parsed(line_words[line_words.index("export") :])[1] == values


@pytest.mark.parametrize(
    ("options", "is_of_folder"),
    [
        (["-o", "people.csv"], True),
        (["-o", "crm/"], True),
        (["-o", "/srv/people.csv"], False),
        (["-o", "/srv/people.csv", "--spool", "-folder"], True),
        (["-o", "/srv/people.csv", "--query", "-file.txt"], True),
    ],
)
def test_a_line_that_resumes_a_file_goes_to_the_folder_of_a_relative_path(
    tmp_path: Path,
    options: list[str],
    is_of_folder: bool,
    in_terminal: bool,
) -> None:
    # Whoever sees it in a terminal is there.
    is_of_folder = is_of_folder and not in_terminal
    days = ["--from", "2026-01-01", "--to", "2026-01-31"]
    context, _ = parsed(["export", "Charged", *days, *options])
    with context:
        line, words = command_line(context), resuming_line(context)
    assert words == (f"(cd {shlex.quote(str(tmp_path))} && {line})" if is_of_folder else line)


def test_a_program_of_the_folder_is_found_in_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    monkeypatch.setattr(sys, "argv", [".venv/bin/altaprofiles"])
    days = ["--from", "2026-01-01", "--to", "2026-01-31"]
    context, _ = parsed(["export", "Charged", *days, "-o", "/srv/people.csv"])
    with context:
        line = resuming_line(context)
    assert line.startswith(f"(cd {shlex.quote(str(Path.cwd()))} && .venv/bin/altaprofiles export ")


@pytest.mark.parametrize("file", ["-file.txt", "-"])
def test_the_line_that_looks_up_the_same_keys_into_a_file(file: str) -> None:
    app = App()
    app.accounts = ("my shop",)
    line = _as_lookup(app, file, "user_id", "-c", "two  blanks")
    _, values = parsed(shlex.split(line)[1:])
    assert Path(str(values["keys"])) == Path(file)
    assert (values["by"], values["column"]) == ("user-id", "-c")
    assert (values["keys_table"], values["accounts"]) == ("two  blanks", ("my shop",))


@pytest.mark.slow
@pytest.mark.parametrize("start", [["altaprofiles"], ["python", "-m", "altaprofiles"]])
def test_a_run_of_uv_is_resumed_as_it_was_started(tmp_path: Path, start: list[str]) -> None:
    launch = ["uv", "run", "--no-project", "--python", sys.executable, *start]
    export = ["export", "Charged", "--from", "2026-01-01", "--to", "2026-01-31", "-o", "p.ndjson"]
    options = ["--windows", "1", "--batch-size", "230", "--retries", "0"]
    # As in a shell, whose PATH has uv only.
    (tmp_path / "bin").mkdir()
    found = shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert found is not None
    (tmp_path / "bin" / "uv").symlink_to(found)
    path = {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin"}
    with emulated(people=2000, seed=2, faults={"cdn_timeout": 0.5}) as emulator:
        shell = Shell(environment(tmp_path, emulator.environment, path), tmp_path)
        stopped = shell.run(shlex.join([*launch, *export, *options]))
        assert stopped.returncode == 4, stopped.stderr
        command = stopped.stderr.rpartition("To resume: ")[2].strip()
        assert command.startswith(f"(cd {tmp_path} && {shlex.join([*launch, 'export'])} ")
        request = urllib.request.Request(f"{emulator.url}/faults", b"{}", method="PUT")  # noqa: S310
        urllib.request.urlopen(request, timeout=PATIENCE).close()  # noqa: S310
        assert "p.ndjson.export" in {path.name for path in tmp_path.iterdir()}
        resumed = shell.run(command)
    assert (resumed.returncode, resumed.stdout) == (0, "p.ndjson\n"), resumed.stderr
    assert "p.ndjson.export" not in {path.name for path in tmp_path.iterdir()}


class Shell(NamedTuple):
    """A shell in a folder."""

    env: dict[str, str]
    folder: Path

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/bin/bash", "-c", command],
            env=self.env,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
