"""`altaprofiles export`: everyone who did an event, into a file or a database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Unpack

import click

from ..app import App, Service
from ..command import Command
from ..completion import complete_event
from ..options import (
    OutputOptions,
    QueryOptions,
    RecordOptions,
    join_options,
    output_options,
    query_options,
    record_options,
)
from ..selection import other_option, own_days, select
from ..where import GRAMMAR

if TYPE_CHECKING:
    from ...export.part import Part
    from ...export.report import ExportProgress, ExportReport
    from ...session import Session
    from ...wire.alta import CdpBy
    from ..progress import ProgressDisplay

__all__ = ["export"]


@click.command(cls=Command, several=True, epilog=GRAMMAR)
@click.argument("events", metavar="[EVENT...]", nargs=-1, shell_complete=complete_event)
@query_options
@output_options
@record_options
@click.option(
    "--distinct/--no-distinct",
    default=True,
    help="Write each person once (the default), or every record that the service sends.",
)
@click.option(
    "--count",
    is_flag=True,
    help="Request the service's own counts as well: to report the number of people of each event, "
    "as `count` does, to compare with the records received (a range that is far short is read "
    "again), and to estimate the time left.",
)
@click.option(
    "--on-shortfall",
    type=click.Choice(["error", "warn"]),
    default="error",
    show_default=True,
    help="With warn and --count, fewer records than the service counts are accepted: the output is "
    "put in place, with a warning.",
)
@join_options
@click.pass_obj
def export(
    app: App,
    events: tuple[str, ...],
    query: QueryOptions,
    records: RecordOptions,
    distinct: bool,
    count: bool,
    on_shortfall: Literal["error", "warn"],
    with_cdp: bool,
    cdp_key: str,
    cdp_by: CdpBy,
    as_json: bool,
    **output: Unpack[OutputOptions],
) -> None:
    """Write everyone who did an event to a file or a database.

    Each person is written once, even if they did several EVENTs. Spell an EVENT as in the
    dashboard, upper case included, and quote it if it contains spaces.

    Ctrl-C stops the export, and the same command resumes it, even after a crash. An interrupted
    export ends with the same output as any other, byte for byte (of a DuckDB file, the same rows).
    The output is moved into place when it is complete, replacing an earlier file, and its path is
    printed; <out>.manifest.json beside it describes it. Until then, all records are gathered as
    JSON in the folder <out>.export.

    NDJSON holds each record as the service sent it. Tables have the columns identity, email, name,
    phone, object_ids, and as JSON text profile_data, events, platform_info and extra; --flatten
    adds others. The counts in `events` cover a person's whole history, not only these days.
    --with-cdp adds each person's CDP users; failed lookups are listed in <out>.failed.ndjson, and
    the same command asks for those alone.

    With several --account, all are exported side by side into one output, whose column account
    names them; or with {account} in FILE, each into its own. When one fails, the others go on.

    A password for PostgreSQL need not be in the URL: ~/.pgpass and PGPASSWORD are read as well.
    `duckdb` in an example is DuckDB's own command line, which the extra does not bring.

    \b
    Examples:
      altaprofiles export "App Launched" --from 2026-01-01 --to 2026-01-31 -o people.parquet
      altaprofiles export Charged --from 2026-01-01 --to 2026-01-31 -o gold.csv \\
          --where 'Amount > 100' --profile-where 'Customer Type = Gold'
      altaprofiles export Charged Refunded --from 2026-01-01 --to 2026-01-31 --count \\
          --flatten "Customer Type" -o postgresql://me@db.example.com/crm/buyers
      altaprofiles export Charged --from 2026-01-01 --to 2026-01-31 \\
          --account shop --account outlet -o 'charged-{account}.ndjson'
      altaprofiles export --everyone --profile-where 'Email exists' -o reachable.parquet
      duckdb -c "select count(*) from '$(altaprofiles export Charged \\
          --from 2026-01-01 --to 2026-01-31 -o charged.parquet)'"
    """
    from ...base.task_account import account_of_task
    from ...session import export_part
    from ..job import run_parts

    selection = select(events, query)

    async def part(
        session: Session, display: ProgressDisplay, name: str | None
    ) -> Part[ExportReport, ExportProgress]:
        return export_part(
            session,
            events or None,
            name=name,
            **selection,
            **own_days(query, name or account_of_task()),
            **records,
            distinct=distinct,
            count=count,
            on_shortfall=on_shortfall,
            with_cdp=with_cdp,
            cdp_key=cdp_key,
            cdp_by=cdp_by,
            on_progress=display,
        )

    def check(report: ExportReport) -> None:
        if not report.people and (other := other_option(query)):
            # The library's own warning does not know the options.
            app.warn(other)

    service: Service = "both" if with_cdp else "clevertap"
    prefix = "pipe the same query into " if query["query"] == "-" else ""
    run_parts(
        app, part, options=output, as_json=as_json, prefix=prefix, service=service, check=check
    )
