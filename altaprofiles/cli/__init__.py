"""The command line: options, progress, exit codes. Importing it is cheap.

Every `--help` imports it, so commands import the rest of the library when they run.
"""

from __future__ import annotations

import click

from .._version import __version__
from .command import Group
from .commands.cdp import cdp
from .commands.count import count
from .commands.demo import demo
from .commands.describe import describe
from .commands.doctor import doctor
from .commands.emulator import emulator
from .commands.export import export
from .commands.get import get
from .commands.guide import guide
from .commands.login import login
from .commands.lookup import lookup
from .commands.status import status
from .commands.sync import sync
from .commands.who import who

__all__ = ["cli"]


@click.group(
    cls=Group,
    context_settings={"help_option_names": ["-h", "--help"]},
    invoke_without_command=True,
)
@click.version_option(__version__, prog_name="altaprofiles")
@click.pass_context
def cli(context: click.Context) -> None:
    """Customer profiles from CleverTap and CDP users from Alta, every record exactly once.

    Data goes to stdout, everything else to stderr. `altaprofiles COMMAND --help` has examples of
    each command.

    Credentials are read from the environment, or else from an account saved by `login`. The
    variables are CLEVERTAP_ACCOUNT_ID, CLEVERTAP_PASSCODE and CLEVERTAP_REGION (or
    CLEVERTAP_BASE_URL), ALTA_TOKEN (and ALTA_ENDPOINT or ALTA_BASE_URL), and for the number of
    requests at once CLEVERTAP_MAX_IN_FLIGHT and ALTA_MAX_IN_FLIGHT, for the pace
    ALTA_REQUESTS_PER_MINUTE; ALTA_NAME is the account of Alta's users in tables. `demo` and
    `emulator` need none.

    \b
    First steps:
        altaprofiles demo
        altaprofiles login
        altaprofiles doctor
        altaprofiles get --identity 5555555555
        altaprofiles export "App Launched" --from 2026-01-01 --to 2026-01-31 -o people.parquet
        altaprofiles sync "App Launched" --since 2026-01-01 -o crm.duckdb
        altaprofiles describe people.parquet
        altaprofiles status

    \b
    Exit codes:
        0    success
        1    failure
        2    wrong usage, a request that the service refuses, a missing extra, or a
             wrong setting in the environment or the credentials file
        3    credentials are missing or refused
        4    incomplete; run the same command again to resume, unless the error
             says that it is refused again
        5    not found (get, cdp, who)
        129  the terminal was closed (SIGHUP)
        130  interrupted by Ctrl-C (SIGINT)
        141  the reader of the output closed it
        143  terminated (SIGTERM)

    \b
    Completion, in the shell's start file:
        eval "$(_ALTAPROFILES_COMPLETE=bash_source altaprofiles)"
        eval "$(_ALTAPROFILES_COMPLETE=zsh_source altaprofiles)"
        _ALTAPROFILES_COMPLETE=fish_source altaprofiles | source
    """
    if context.invoked_subcommand is None:
        from .first_screen import first_screen

        click.echo(first_screen())


for command in (
    *(login, doctor, export, sync, lookup, status, describe, get, cdp, who, count, demo, emulator),
    guide,
):
    cli.add_command(command)
