"""`altaprofiles doctor`."""

from __future__ import annotations

import click

from ..app import App
from ..command import Command

__all__ = ["doctor"]


@click.command(cls=Command)
@click.option(
    "--try-regions",
    is_flag=True,
    help="If CleverTap refuses the credentials, try them in every region, and name the right one.",
)
@click.pass_obj
def doctor(app: App, try_regions: bool) -> None:
    """Check credentials, network and machine; say what to do.

    Each line begins with ok, note or wrong. Exits with 0 when nothing is wrong, with 3 when
    credentials are missing or refused, and with 1 for anything else.

    \b
    Examples:
        altaprofiles doctor
        altaprofiles doctor --account shop --try-regions
    """
    from ..doctor.examine import examine_all

    examine_all(app, try_regions=try_regions)
