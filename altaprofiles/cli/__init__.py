"""The command line: arguments, progress, exit codes. No logic of its own.

Importing this must stay cheap, as it happens for every `--help`: commands import the rest of the
library when they run.
"""

from __future__ import annotations

from pathlib import Path

import click

from .._version import __version__
from .app import App, Group
from .commands.get import cdp, count, get
from .commands.login import doctor, login
from .running import export, lookup

__all__ = ["cli"]


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="altaprofiles")
def cli() -> None:
    """Customer profiles from CleverTap and CDP users from Alta, every record exactly once.

    Data goes to stdout, everything else to stderr. `altaprofiles COMMAND --help` has examples of
    each command.

    Credentials are those of an account that `login` has saved, or of the environment, which goes
    first: CLEVERTAP_ACCOUNT_ID, CLEVERTAP_PASSCODE and CLEVERTAP_REGION (or CLEVERTAP_BASE_URL),
    ALTA_TOKEN (and ALTA_BASE_URL). None are needed for `demo` and `emulator`.

    \b
    Begin with:
        altaprofiles demo
        altaprofiles login
        altaprofiles doctor
        altaprofiles get --identity 5555555555
        altaprofiles export "App Launched" --from 2026-01-01 --to 2026-01-31 -o people.parquet

    \b
    Exit codes:
        0    all done
        1    failed
        2    wrong usage; also other options than an unfinished export was begun with
        3    credentials are missing, or refused
        4    incomplete; the same command goes on
        130  interrupted by Ctrl-C (SIGINT)
        141  whoever read the output closed it
        143  terminated (SIGTERM)

    \b
    Completion, in the shell's start file:
        eval "$(_ALTAPROFILES_COMPLETE=bash_source altaprofiles)"
        eval "$(_ALTAPROFILES_COMPLETE=zsh_source altaprofiles)"
        _ALTAPROFILES_COMPLETE=fish_source altaprofiles | source
    """


for command in (login, doctor, export, lookup, get, cdp, count):
    cli.add_command(command)


@cli.command()
@click.option(
    "--people",
    type=click.IntRange(min=1, max=1_000_000),
    metavar="N",
    default=18_000,
    show_default=True,
    help="How many people the emulated account holds.",
)
@click.option(
    "--out",
    "to",
    type=click.Path(path_type=Path, dir_okay=False, writable=True),
    help="The NDJSON file to write. By default a new one in the system's folder for temporary "
    "files.",
)
@click.pass_obj
def demo(app: App, people: int, to: Path | None) -> None:
    """Export, interrupt, resume, look up and join, without an account.

    Both services are emulated inside this command, on loopback. They are not ready, throttle, break
    off and answer nonsense at times, as the real ones do. An export of a month is interrupted
    midway and goes on; it must come out complete all the same, and is compared with what the
    services hold. With duckdb installed, a question is put to the file.

    \b
    Examples:
        altaprofiles demo
        altaprofiles demo --people 100000 --out people.ndjson
    """
    from .demo import run

    run(app, people=people, out=to)


@cli.command()
@click.option(
    "--port",
    type=click.IntRange(min=0, max=65_535),
    metavar="N",
    default=0,
    show_default=False,
    help="The port to listen on, on 127.0.0.1; by default a free one.",
)
@click.option(
    "--people",
    type=click.IntRange(min=0),
    metavar="N",
    default=10_000,
    show_default=True,
    help="How many people the account holds.",
)
@click.option(
    "--seed",
    type=int,
    metavar="N",
    default=0,
    show_default=True,
    help="Decides who they are, and when faults strike.",
)
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="NAME=RATE",
    help="Let a share of answers fail, such as not_ready=0.2; 1 is an outage. Repeatable.",
)
def emulator(port: int, people: int, seed: int, faults: tuple[str, ...]) -> None:
    """Serve both APIs on loopback until interrupted.

    Prints the environment variables that point a client here; paste them into another shell.

    Faults are not_ready, throttled, too_many, server_error, html, empty, disconnect, reset,
    truncated, garbled, slow, gzip, empty_page and others, which a wrong name lists.

    \b
    Example:
        altaprofiles emulator --port 8123 --fault not_ready=0.2 --fault reset=0.05
    """
    from .serve import run

    run(port=port, people=people, seed=seed, faults=faults)
