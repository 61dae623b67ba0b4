"""`altaprofiles lookup`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Unpack

import click

from ..app import App
from ..command import Command
from ..options import Output, output_options

if TYPE_CHECKING:
    from ...export.report import LookupReport
    from ...session import Session
    from ..progress import Shown

__all__ = ["lookup"]


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
@output_options
@click.pass_obj
def lookup(
    app: App,
    keys: str,
    by: Literal["identity", "email", "object-id"],
    column: str | None,
    as_json: bool,
    **output: Unpack[Output],
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

    from ..job import run_job
    from ..stdin import keys_from_stdin

    async def begin(session: Session, show: Shown) -> LookupReport:
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
    run_job(app, begin, out=output["to"], as_json=as_json, before=before)
