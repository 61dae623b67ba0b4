"""`altaprofiles doctor`: credentials, network and machine, checked."""

from __future__ import annotations

import shlex
import sys

import click

from ..app import App
from ..command import Command
from ..exits import Exit
from ..streams import terminal_width

__all__ = ["doctor"]


_PATIENCE = 10.0
"""Longest wait for each step of a connection, in seconds, without `--timeout`."""


@click.command(cls=Command)
@click.option(
    "--try-regions",
    is_flag=True,
    help="If a service refuses the credentials, try them in every region of CleverTap, or on every "
    "known platform of Alta, and name the right one. Prints the hosts before it sends anything. "
    "Credentials of a gateway, whose base URL is on another host, are not sent anywhere else.",
)
@click.pass_obj
def doctor(app: App, try_regions: bool) -> None:
    """Check credentials, network and machine, and suggest remedies.

    Each line begins with ok, note or wrong. Exits with 0 when nothing is wrong, with 3 when
    credentials are missing or refused, with 2 for a wrong setting, and with 1 for anything else.

    \b
    Examples:
        altaprofiles doctor
        altaprofiles doctor --account shop --try-regions
    """
    from ...accounts import find_clevertap
    from ...credentials import ENDPOINTS, REGIONS
    from ..consoles import output_console
    from ..doctor.examine import examine

    console = output_console()
    width = terminal_width(sys.stdout)
    codes: list[Exit] = []

    async def main() -> None:
        places = (REGIONS, ENDPOINTS) if try_regions else ({}, {})
        async for finding in examine(app, *places, patience=app.timeout or _PATIENCE):
            if finding.code is not None:
                codes.append(finding.code)
            console.print(finding.line(width), soft_wrap=True)

    app.run(main, is_limited=True)
    if codes:
        sys.exit(max(codes))
    step = "guide look-ups"
    if find_clevertap(app.account) is not None:
        of = "" if app.account is None else f" --account {shlex.quote(app.account)}"
        step = f'count "App Launched" --from -7d --to yesterday{of}'
    app.info(f"Nothing is wrong. Next: altaprofiles {step}")
