"""`altaprofiles count`: the service's own count of an event's people."""

from __future__ import annotations

from datetime import date

import click

from ..app import App
from ..command import Command
from ..options import query_options
from ..selection import select

__all__ = ["count"]


@click.command(cls=Command)
@click.argument("event", required=False)
@query_options
@click.pass_obj
def count(
    app: App,
    event: str | None,
    start: date | int | None,
    end: date | int | None,
    event_properties: tuple[str, ...],
    profile_fields: tuple[str, ...],
    query: str | None,
    everyone: bool,
) -> None:
    """Print how many people did EVENT, from CleverTap.

    Spell EVENT as in the dashboard: the service distinguishes upper and lower case. Conditions are
    written as for `export`.

    \b
    Examples:
        altaprofiles count "App Launched" --from 2026-01-01 --to 2026-01-31
        altaprofiles count --everyone --profile-where 'Customer Type = Gold'
    """
    selection = select(
        [] if event is None else [event],
        everyone=everyone,
        start=start,
        end=end,
        event_properties=event_properties,
        profile_fields=profile_fields,
        query=query,
    )
    people = app.ask(lambda session: session.profiles.count(event, **selection))
    app.write(b"%d\n" % people)
