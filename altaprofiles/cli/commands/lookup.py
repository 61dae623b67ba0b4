"""`altaprofiles lookup`: people or users by their keys, into a file or a database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Unpack

import click

from ..app import App, Service
from ..command import Command
from ..options import KeyFileName, KindOfKeys, OutputOptions, join_options, output_options

if TYPE_CHECKING:
    from ...export.keys import Keys
    from ...export.part import Part
    from ...export.report import LookupProgress, LookupReport
    from ...session import Session
    from ...wire.alta import CdpBy
    from ...wire.clevertap import By
    from ..progress import ProgressDisplay

__all__ = ["lookup"]


@click.command(cls=Command, several=True)
@click.argument("keys", metavar="FILE|-", type=KeyFileName())
@click.option(
    "--by",
    type=KindOfKeys(["identity", "email", "object-id", "user-id", "anonymous-id"]),
    required=True,
    help="The kind of keys: of CleverTap's people, or of Alta's users (user-id, anonymous-id); "
    "object_id, user_id and anonymous_id, as in Python, are taken as well.",
)
@click.option(
    "--column",
    metavar="NAME",
    help="The column of a CSV or Parquet file or of a DuckDB table, or the member of each NDJSON "
    "line, that holds the keys; required if there are several columns, and for NDJSON lines that "
    "are objects. Without it, the first line of a CSV file is a key as well, unless it equals the "
    "value of --by.",
)
@click.option(
    "--keys-table",
    metavar="NAME",
    help="The table or view of a DuckDB file that holds the keys; required if it has several.",
)
@join_options
@output_options
@click.pass_obj
def lookup(
    app: App,
    keys: str,
    by: Literal["identity", "email", "object-id", "user-id", "anonymous-id"],
    column: str | None,
    keys_table: str | None,
    with_cdp: bool,
    cdp_key: str,
    cdp_by: CdpBy,
    as_json: bool,
    **output: Unpack[OutputOptions],
) -> None:
    """Look up many people or users, and write those who are found.

    FILE holds their keys. If its ending says so, it is CSV, NDJSON, Parquet or DuckDB; otherwise it
    is text with one key per line, and so is standard input ("-"). Rows without a key are skipped.
    Each key is requested once. Keys not found are listed in <out>.not-found.txt, and failed ones in
    <out>.failed.ndjson, with the reason.

    With --by user-id or anonymous-id, the users of Alta are written: as NDJSON a line per key,
    {"key": …, "users": […]}, and in a table a row per binding.

    With several --account, all are asked for the same keys, and <out>.NAME.not-found.txt lists
    those that the account NAME does not know; see `export` for outputs of several accounts.

    Ctrl-C stops the lookup, and the same command resumes it. With "-", pipe the same keys in again.

    \b
    Examples:
      altaprofiles lookup ids.csv --by identity -o found.ndjson
      cut -d, -f2 people.csv | altaprofiles lookup - --by email -o found.parquet
      altaprofiles lookup people.ndjson --by user-id --column identity -o users.ndjson
    """
    from ...session import lookups_part
    from ..job import run_parts
    from ..stdin import SharedKeys, StdinKeys

    shared = SharedKeys() if keys == "-" and len(app.accounts) > 1 else None

    async def part(
        session: Session, display: ProgressDisplay, name: str | None
    ) -> Part[LookupReport, LookupProgress]:
        source: Keys = StdinKeys() if keys == "-" else keys
        return lookups_part(
            session,
            source if shared is None else await shared.read(),
            by=_BY[by],
            name=name,
            column=column,
            keys_table=keys_table,
            with_cdp=with_cdp,
            cdp_key=cdp_key,
            cdp_by=cdp_by,
            on_progress=display,
        )

    service: Service = "alta" if by in ("user-id", "anonymous-id") else "clevertap"
    if with_cdp:
        service = "both"
    prefix = "pipe the same keys into " if keys == "-" else ""
    run_parts(app, part, options=output, as_json=as_json, prefix=prefix, service=service)


_BY: dict[str, By | CdpBy] = {
    "identity": "identity",
    "email": "email",
    "object-id": "object_id",
    "user-id": "user_id",
    "anonymous-id": "anonymous_id",
}
