"""`altaprofiles count`: the service's own count of an event's people."""

from __future__ import annotations

import click

from ...base.wording import next_step
from ..app import App
from ..command import Command
from ..options import QueryOptions, query_options
from ..selection import other_option, select
from ..where import GRAMMAR

__all__ = ["count"]


@click.command(
    cls=Command,
    epilog=GRAMMAR,
    misplaced="count takes one event; a value with blanks stands in quotation marks, such as 'App "
    "Launched'",
    redirect="count.txt",
)
@click.argument("event", required=False)
@query_options
@click.pass_obj
def count(app: App, event: str | None, query: QueryOptions) -> None:
    """Print how many people did EVENT, by CleverTap's own count.

    Each person is counted once over all days, as in the line "counted" of `export --count`. Spell
    EVENT as in the dashboard: the service distinguishes upper and lower case.

    \b
    Examples:
        altaprofiles count "App Launched" --from 2026-01-01 --to 2026-01-31
        altaprofiles count --everyone --profile-where 'Customer Type = Gold'
    """
    selection = select([] if event is None else [event], query)
    people = app.ask(lambda session: session.profiles.count(event, **selection))
    app.write(b"%d\n" % people)
    if not people:
        has_filters = bool(
            selection["event_properties"] or selection["profile_fields"] or selection["query"]
        )
        step = next_step(has_event=event is not None, has_filters=has_filters)
        other = other_option(query)
        app.warn(f"0 people; {step}" + (f"; {other}" if other else ""))
