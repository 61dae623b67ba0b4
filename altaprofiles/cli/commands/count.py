"""`altaprofiles count`: the service's own count of an event's people."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ...base.wording import next_step
from ..app import App
from ..command import Command
from ..completion import complete_event
from ..options import QueryOptions, query_options
from ..selection import Days, other_option, own_days, select
from ..where import GRAMMAR

if TYPE_CHECKING:
    from ...session import Session

__all__ = ["count"]


@click.command(
    cls=Command,
    several=True,
    epilog=GRAMMAR,
    misplaced="count takes one event; a value with blanks stands in quotation marks, such as 'App "
    "Launched'",
    redirect="count.txt",
)
@click.argument("event", required=False, shell_complete=complete_event)
@query_options
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print a JSON object for each account, with its days, and for a failure one with `error`.",
)
@click.pass_obj
def count(app: App, event: str | None, query: QueryOptions, as_json: bool) -> None:
    """Print how many people did EVENT, by CleverTap's own count.

    Each person is counted once over all days, as in the line "counted" of `export --count`. Spell
    EVENT as in the dashboard: the service distinguishes upper and lower case. With several
    accounts, there is a line for each: its name, a tab, and the number.

    \b
    Examples:
        altaprofiles count "App Launched" --from 2026-01-01 --to 2026-01-31
        altaprofiles count --everyone --profile-where 'Customer Type = Gold'
        altaprofiles count Charged --from 2026-01-01 --to 2026-01-31 --account shop --account outlet
    """
    from ...base.task_account import account_of_task

    selection = select([] if event is None else [event], query)
    names: tuple[str | None, ...] = app.accounts or (None,)
    counts: dict[str | None, int] = {}
    errors: dict[str, Exception] = {}

    async def question(session: Session) -> int:
        days = own_days(query, account_of_task())
        return await session.profiles.count(event, **selection, **days)

    if len(names) > 1:
        several, errors = app.ask_each(question)
        counts.update(several)
    else:
        counts[names[0]] = app.ask(question)
    for name in names:
        if (people := counts.get(name)) is not None:
            days = own_days(query, name)
            app.write(_line(name if len(names) > 1 else None, people, days, as_json=as_json))
    if empty := [name for name, people in counts.items() if not people]:
        has_filters = bool(
            selection["event_properties"] or selection["profile_fields"] or selection["query"]
        )
        step = next_step([event] if event else [], has_filters=has_filters)
        other = other_option(query)
        of = "" if len(names) == 1 else f"{', '.join(map(str, empty))}: "
        app.warn(f"{of}0 people; {step}" + (f"; {other}" if other else ""))
    if errors:
        from ...export.accounts import AccountsFailed

        raise AccountsFailed("", errors)


def _line(name: str | None, people: int, days: Days, *, as_json: bool) -> bytes:
    if as_json:
        from msgspec import json

        from ...wire.days import check_range

        values: dict[str, object] = {} if name is None else {"account": name}
        values["people"] = people
        if days["start"] is not None and days["end"] is not None:
            # As in the report of an export.
            values["start"], values["end"] = check_range(days["start"], days["end"])
        return json.encode(values) + b"\n"
    return (f"{people}\n" if name is None else f"{name}\t{people}\n").encode()
