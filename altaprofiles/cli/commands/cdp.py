"""`altaprofiles cdp`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from ..app import App
from ..command import Command

__all__ = ["cdp"]


@click.command(cls=Command)
@click.option("--user-id", metavar="ID", help="A user's ID: prints the anonymous IDs bound to it.")
@click.option(
    "--anonymous-id",
    metavar="ID",
    help="An anonymous ID: prints every user it is bound to. With --user-id: that pair only.",
)
@click.option(
    "--file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True, allow_dash=True),
    metavar="IDS",
    help="Look up many: the lines of a text file, of stdin (-), or a column of a .csv or .ndjson.",
)
@click.option(
    "--by",
    type=click.Choice(["user-id", "anonymous-id"]),
    help="What the file holds. Needed with --file.",
)
@click.option("--column", metavar="NAME", help="Which column of the file, if it has several.")
@click.pass_obj
def cdp(
    app: App,
    user_id: str | None,
    anonymous_id: str | None,
    file: Path | None,
    by: Literal["user-id", "anonymous-id"] | None,
    column: str | None,
) -> None:
    """Print which users and anonymous IDs belong together, from Alta.

    On a terminal as a table; into a file or a pipe as JSON, one user a line: {"user_id": …,
    "anonymous_ids": […]}. Exits with 1 when nothing is bound.

    With --file one line per ID, in the order of the file: {"key": …, "users": […]}, without users
    when nothing is bound, or {"key": …, "error": …}. Exits with 1 when any has failed.

    \b
    Examples:
        altaprofiles cdp --user-id BC123
        altaprofiles cdp --anonymous-id aId3 | jq -r .user_id
        altaprofiles cdp --file ids.txt --by user-id > users.ndjson
    """
    from ..tables import get_users, get_users_of_file

    if file is None:
        if by is not None or column is not None:
            raise click.UsageError("--by and --column go with --file")
        if user_id is None and anonymous_id is None:
            raise click.UsageError("pass --user-id, --anonymous-id, both, or --file")
        get_users(app, {"user_id": user_id, "anonymous_id": anonymous_id})
        return
    if user_id is not None or anonymous_id is not None:
        raise click.UsageError("pass either --file, or --user-id and --anonymous-id")
    if by is None:
        raise click.UsageError("--file needs --by user-id or --by anonymous-id")
    get_users_of_file(app, file, by="user_id" if by == "user-id" else "anonymous_id", column=column)
