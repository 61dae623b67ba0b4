"""`altaprofiles count`: the service's own count of an event's people."""

from __future__ import annotations

from datetime import date

import click

from ..app import App
from ..command import Command
from ..options import day_options

__all__ = ["count"]


@click.command(cls=Command)
@click.argument("event")
@day_options
@click.pass_obj
def count(app: App, event: str, start: date | int, end: date | int) -> None:
    """Print how many people did EVENT, from CleverTap.

    Spell EVENT as in the dashboard: the service distinguishes upper and lower case.

    \b
    Example:
        altaprofiles count "App Launched" --from 2026-01-01 --to 2026-01-31
    """
    people = app.ask(lambda session: session.profiles.count(event, start=start, end=end))
    app.write(b"%d\n" % people)
