"""The command line: arguments, progress, exit codes. No logic of its own.

Importing this must stay cheap, as it happens for every `--help`: commands import the rest of the
library when they run.
"""

from __future__ import annotations

import click

from .._version import __version__
from .command import Group
from .commands.cdp import cdp
from .commands.count import count
from .commands.demo import demo
from .commands.doctor import doctor
from .commands.emulator import emulator
from .commands.export import export
from .commands.get import get
from .commands.login import login
from .commands.lookup import lookup

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


for command in (login, doctor, export, lookup, get, cdp, count, demo, emulator):
    cli.add_command(command)
