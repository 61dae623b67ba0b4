"""`altaprofiles sync`: a table that a job every night keeps up to date."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Unpack

import click

from ..app import App, Service
from ..command import Command
from ..completion import complete_event
from ..numbers import WholeNumber
from ..options import (
    FilterOptions,
    RecordOptions,
    TableOptions,
    filter_options,
    join_options,
    record_options,
    table_options,
)
from ..relative_days import RelativeDay, check_form, day, own_day
from ..selection import check_each, other_option, select_filters
from ..where import GRAMMAR

if TYPE_CHECKING:
    from ...export.report import SyncReport
    from ...export.sync import Sync
    from ...session import Session
    from ...wire.alta import CdpBy
    from ..progress import ProgressDisplay

__all__ = ["sync"]


def _absolute_day(text: str) -> date:
    from ...wire.days import day_in

    if (found := day_in(text)) is None:
        check_form(text)
        raise click.BadParameter(
            f"{text!r} is not a day; write it as 2026-01-31, the same one every night"
        )
    return found


@click.command(cls=Command, several=True, epilog=GRAMMAR)
@click.argument(
    "events", metavar="EVENT...", nargs=-1, required=True, shell_complete=complete_event
)
@click.option(
    "--since",
    type=_absolute_day,
    metavar="DAY",
    required=True,
    help="The first day of the table, such as 2026-01-01. It stays the same every night.",
)
@click.option(
    "--until",
    type=day,
    metavar="DAY",
    help="The last day to bring, inclusive: 2026-01-31, yesterday (the default), or -7d for seven "
    "days ago. Days that are not over are left for later runs.",
)
@click.option(
    "--late-days",
    type=WholeNumber(),
    metavar="N",
    default=2,
    show_default=True,
    help="The number of days that are brought once more, because phones send events when they are "
    "next online.",
)
@click.option(
    "--timezone",
    metavar="ZONE",
    help="The time zone of the CleverTap project, such as Asia/Kolkata, by which days end. By "
    "default that of the account, else UTC.",
)
@table_options
@filter_options
@record_options
@join_options
@click.pass_obj
def sync(
    app: App,
    events: tuple[str, ...],
    since: date,
    until: date | RelativeDay | None,
    late_days: int,
    timezone: str | None,
    filters: FilterOptions,
    records: RecordOptions,
    with_cdp: bool,
    cdp_key: str,
    cdp_by: CdpBy,
    as_json: bool,
    **output: Unpack[TableOptions],
) -> None:
    """Keep a table up to date with everyone who did an EVENT. For a job every night.

    The same command every night: it finishes what an earlier night has left unfinished, then
    brings the days since, up to yesterday, and the last two once more. Each person is one row,
    which is updated; the column matched has every EVENT that has brought them so far. Run it twice
    and the table is the same; kill it and the next run resumes, without fetching anything again.
    Exit code 4 means: run it again. Rows that a constraint of the table refuses are a 4 each time,
    until the table or the values are mended.

    The table is bound to the account, EVENTs, --since, --with-cdp, conditions, and to the parts of
    records that --app, --no-events and --no-profile choose: others need another --table.
    `altaprofiles status OUT` prints the last day that it has, and the table altaprofiles_sync in
    the database holds it.

    With several --account, all are brought to one table side by side, each with a last day of its
    own; or with {account} in FILE, each to its own. When one fails, the others go on.

    It cannot see profiles that change without an EVENT, as by an upload, nor people who are deleted
    in CleverTap. A full export (same EVENTs, all days since --since) into the same table now and
    then updates the first; one with --write replace into another --table leaves out the second.
    Name --flatten every night: a column that is left out is null in the rows that are written.
    `duckdb` in an example is DuckDB's own command line, which the extra does not bring.

    \b
    Examples:
      altaprofiles sync "App Launched" Charged --since 2026-01-01 -o crm.duckdb
      altaprofiles sync Charged --since 2026-01-01 --where 'Amount > 100' \\
          --table buyers --flatten "Customer Type" --with-cdp -o crm.duckdb
      duckdb crm.duckdb "select count(*) from profiles
          where not list_contains(matched, 'Charged')"
    """
    import msgspec

    from ...base.task_account import account_of_task
    from ...base.zones import zone_of
    from ...export.output import Output
    from ...export.sync import Syncs
    from ...export.synced import check_order
    from ...session import sync_part
    from ..job import Opened, run_accounts

    if timezone is not None:
        # Here, so that no setting of the account is named in its place.
        zone_of("--timezone", timezone)
    if isinstance(until, RelativeDay):
        days = until.days
        check_each([until], lambda account: check_order(since, days[account]))
    selection = select_filters(events, filters)

    def one(session: Session, display: ProgressDisplay, to: str, name: str | None) -> Sync:
        return sync_part(
            session,
            events,
            since=since,
            until=own_day(until, name or account_of_task()),
            late_days=late_days,
            timezone=timezone,
            with_cdp=with_cdp,
            cdp_key=cdp_key,
            cdp_by=cdp_by,
            name=name,
            output=msgspec.structs.replace(Output(**output), to=to, deadline=app.deadline),
            on_progress=display,
            **selection,
            **records,
        )

    async def alone(session: Session, display: ProgressDisplay, to: str) -> SyncReport:
        return await one(session, display, to, None).run()

    async def together(opened: Opened) -> SyncReport:
        syncs = [one(*each, output["to"], name) for name, each in opened.items()]
        return await Syncs(syncs, lambda name: opened[name][1].fail()).run()

    def check(report: SyncReport) -> None:
        if report.first is not None and not report.people and (other := other_option(filters)):
            # The library's own warning does not know the options.
            app.warn(other)

    service: Service = "both" if with_cdp else "clevertap"
    prefix = "pipe the same query into " if filters["query"] == "-" else ""
    run_accounts(
        app,
        alone,
        together,
        out=output["to"],
        as_json=as_json,
        prefix=prefix,
        service=service,
        check=check,
    )
