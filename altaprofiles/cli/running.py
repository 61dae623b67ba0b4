"""`altaprofiles export` and `altaprofiles lookup`: what runs for hours, and goes on."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from datetime import date
from typing import TYPE_CHECKING, Any, Literal, TypedDict, TypeVar, Unpack

import click

from .app import App, Command, Interrupted
from .options import day_options

if TYPE_CHECKING:
    from ..export.report import ExportReport, LookupReport
    from ..session import Session
    from .progress import Shown

__all__ = ["export", "lookup"]

F = TypeVar("F", bound=Callable[..., Any])


class _Output(TypedDict):
    """Where to, and how: the options that both commands have."""

    to: str
    format: str | None
    flatten: tuple[str, ...]
    table: str | None
    bom: bool
    spool: str | None
    resume: bool


def _output_options(command: F) -> F:
    for option in reversed(
        [
            click.option(
                "-o",
                "--out",
                "to",
                type=click.Path(),
                required=True,
                metavar="FILE|URL",
                help="The output. Its ending says what it becomes: .ndjson, .jsonl, .csv (each "
                "also with .gz or .zst), .parquet, .duckdb; or a table in PostgreSQL, "
                "postgresql://user@host/database/table.",
            ),
            click.option(
                "--format",
                type=click.Choice(["ndjson", "csv", "parquet", "duckdb", "postgres"]),
                help="What it becomes, whatever its ending.",
            ),
            click.option(
                "--flatten",
                metavar="KEY",
                multiple=True,
                help="A key of the profile that gets a column of its own. Repeatable.",
            ),
            click.option(
                "--table",
                metavar="NAME",
                help='The table, in DuckDB and PostgreSQL; "profiles" by default.',
            ),
            click.option(
                "--bom", is_flag=True, help="Begin a CSV file with a byte-order mark, for Excel."
            ),
            click.option(
                "--spool",
                type=click.Path(file_okay=False),
                metavar="DIR",
                help="Where the folder is made in which it gathers until it is complete, "
                "<out>.export. By default it is beside the output.",
            ),
            click.option(
                "--resume/--fresh",
                default=True,
                help="Go on with what an earlier run has left (as it does by default), or discard "
                "that and begin again.",
            ),
            click.option(
                "--json",
                "as_json",
                is_flag=True,
                help="Print the report as JSON, and not the path of the output; also of an "
                "incomplete one.",
            ),
        ]
    ):
        command = option(command)
    return command


@click.command(cls=Command)
@click.argument("events", metavar="EVENT...", nargs=-1, required=True)
@day_options
@_output_options
@click.option(
    "--windows",
    metavar="N|auto",
    default="auto",
    show_default=True,
    help="Into how many parts the days are split, to be read side by side.",
)
@click.option(
    "--batch-size",
    type=int,
    metavar="N",
    default=4991,
    show_default=True,
    help="People per page, a multiple of 23.",
)
@click.option(
    "--events/--no-events",
    "event_summaries",
    default=True,
    help="Include what people did, some 75 % of each record, or leave it out.",
)
@click.option(
    "--profile/--no-profile",
    default=True,
    help="Include the properties of people, or leave them out.",
)
@click.option(
    "--app",
    "with_app",
    is_flag=True,
    help="Include versions, make and model in what is known of devices.",
)
@click.option(
    "--distinct/--no-distinct",
    default=True,
    help="Write each person once, or once for each event and part that has them.",
)
@click.option(
    "--count",
    is_flag=True,
    help="Ask for the service's own counts as well: to compare with, and to say how long it will "
    "take.",
)
@click.pass_obj
def export(
    app: App,
    events: tuple[str, ...],
    start: date | int,
    end: date | int,
    windows: str,
    batch_size: int,
    event_summaries: bool,
    profile: bool,
    with_app: bool,
    distinct: bool,
    count: bool,
    as_json: bool,
    **output: Unpack[_Output],
) -> None:
    """Write everyone who did an event to a file or a database.

    Each is written once, also who did several EVENTs. An EVENT is spelt as in the dashboard, upper
    case included, and in quotes if it has blanks.

    Ctrl-C stops it, and the same command goes on where it was, after a crash as well; the output is
    the same in the end, to the byte (of a DuckDB file, its rows). It is put in place when it is
    complete, in place of a file that is there, and its path printed; <out>.manifest.json beside it
    says what it is. Until then all records are gathered as JSON in the folder <out>.export.

    NDJSON has each record as the service sent it. Tables have the columns identity, email, name,
    phone, object_ids, and as JSON text profile_data, events, platform_info and extra; --flatten
    adds others. What `events` counts is a person's whole history, not these days.

    A password for PostgreSQL need not be in the address: PGPASSWORD and ~/.pgpass will do.

    \b
    Examples:
      altaprofiles export "App Launched" --from 2026-01-01 --to 2026-01-31 -o people.parquet
      altaprofiles export Charged Refunded --from 2026-01-01 --to 2026-01-31 --count \\
          --flatten "Customer Type" -o postgresql://me@db.example.com/crm/buyers
      duckdb -c "select count(*) from '$(altaprofiles export Charged \\
          --from 2026-01-01 --to 2026-01-31 -o charged.parquet)'"
    """
    parts = _parts(windows)

    async def begin(session: Session, show: Shown) -> ExportReport:
        return await session.export(
            events,
            start=start,
            end=end,
            to=output["to"],
            format=output["format"],
            windows=parts,
            distinct=distinct,
            flatten=output["flatten"],
            table=output["table"],
            bom=output["bom"],
            batch_size=batch_size,
            app=with_app,
            event_summaries=event_summaries,
            profile=profile,
            count=count,
            resume=output["resume"],
            spool=output["spool"],
            on_progress=show,
        )

    _run(app, begin, out=output["to"], as_json=as_json)


@click.command(cls=Command)
@click.argument(
    "keys", metavar="FILE|-", type=click.Path(exists=True, dir_okay=False, allow_dash=True)
)
@click.option(
    "--by",
    type=click.Choice(["identity", "email", "object-id"]),
    required=True,
    help="What the keys are.",
)
@click.option(
    "--column",
    metavar="NAME",
    help="The column of a CSV file, or the key of each line of an NDJSON file, that holds them; "
    "needed where there are several. Without it, the first line of a CSV file is a key, too, "
    "unless it is called as --by says.",
)
@_output_options
@click.pass_obj
def lookup(
    app: App,
    keys: str,
    by: Literal["identity", "email", "object-id"],
    column: str | None,
    as_json: bool,
    **output: Unpack[_Output],
) -> None:
    """Look up many people, and write those who are found.

    FILE holds their keys. It is CSV or NDJSON by its ending; any other is text, a key a line, as is
    what comes through standard input with "-". Each key is asked for once. Those that nobody has
    are in <out>.not-found.txt, and those without an answer in <out>.failed.ndjson with the reason.

    Ctrl-C stops it, and the same command goes on where it was. With "-", the same keys must be
    piped in again.

    \b
    Examples:
      altaprofiles lookup ids.csv --by identity -o found.ndjson
      cut -d, -f2 people.csv | altaprofiles lookup - --by email -o found.parquet
    """

    async def begin(session: Session, show: Shown) -> LookupReport:
        from .stdin import keys_from_stdin

        return await session.export_lookups(
            keys_from_stdin() if keys == "-" else keys,
            by="object_id" if by == "object-id" else by,
            to=output["to"],
            column=column,
            format=output["format"],
            flatten=output["flatten"],
            table=output["table"],
            bom=output["bom"],
            resume=output["resume"],
            spool=output["spool"],
            on_progress=show,
        )

    before = "pipe the same keys into " if keys == "-" else ""
    _run(app, begin, out=output["to"], as_json=as_json, before=before)


def _parts(windows: str) -> int | Literal["auto"]:
    if windows == "auto":
        return "auto"
    if not windows.isdecimal():
        raise click.BadParameter(
            f"{windows!r} is neither auto nor a number", param_hint="--windows"
        )
    return int(windows)


def _run(
    app: App,
    begin: Callable[[Session, Shown], Awaitable[ExportReport | LookupReport]],
    *,
    out: str,
    as_json: bool,
    before: str = "",
) -> None:
    """Run an export: its path or report goes to stdout, and all else to stderr.

    Args:
        before: what stands before the command that goes on.
    """
    from ..errors import Incomplete
    from ..export.sinks.postgres_url import without_password
    from .again import command_line
    from .progress import showing
    from .summary import summarize, write_report

    if without_password(out) != out:
        app.say(
            "Everyone on this machine can see the password in --out while this runs; PGPASSWORD or "
            "~/.pgpass hide it. What is printed here leaves it out."
        )
    reports: list[ExportReport | LookupReport] = []

    with showing(app) as show:
        session = app.session(on_event=show.note)

        async def main() -> None:
            async with session:
                reports.append(await begin(session, show))

        try:
            go_on = before + command_line(click.get_current_context())
            app.run(main, go_on=go_on, too_late=lambda: bool(reports))
        except Incomplete as error:
            if as_json and error.report is not None:
                write_report(app, error.report)
            raise
        except Interrupted:
            # Heard before all was in place, and now it is: to go on would be to begin anew.
            if not reports:
                raise
    summarize(app, reports[0])
    if as_json:
        write_report(app, reports[0])
    else:
        # A file's name is bytes, and not what the locale makes of it.
        output = reports[0].output
        name = output.encode() if reports[0].bytes is None else os.fsencode(output)
        app.write(name + b"\n")
