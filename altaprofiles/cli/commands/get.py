"""`get`, `cdp` and `count`: questions whose answer is the output. Arguments only."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from ..app import App, Command
from ..options import day_options

if TYPE_CHECKING:
    pass

__all__ = ["cdp", "count", "get"]


def _one_of(**given: str | None) -> str:
    """Return the name of the one option that is given."""
    names = [name for name, value in given.items() if value is not None]
    if len(names) != 1:
        options = [f"--{name.replace('_', '-')}" for name in given]
        got = "none" if not names else " and ".join(f"--{x.replace('_', '-')}" for x in names)
        raise click.UsageError(f"pass one of {', '.join(options)}; got {got}")
    return names[0]


@click.command(cls=Command)
@click.option("--identity", metavar="ID", help="The person's ID as your own systems know it.")
@click.option("--email", metavar="ADDRESS", help="The person's email address.")
@click.option("--object-id", metavar="ID", help="CleverTap's ID of one of the person's devices.")
@click.pass_obj
def get(app: App, identity: str | None, email: str | None, object_id: str | None) -> None:
    """Print one person's record, from CleverTap.

    On a terminal as tables to read; into a file or a pipe as one line of JSON, the record as the
    service sent it. Exits with 1 when there is no such person.

    \b
    Examples:
        altaprofiles get --identity 5555555555
        altaprofiles get --email jack@example.com | jq .profileData
    """
    from ..answers import get_person

    key = {"identity": identity, "email": email, "object_id": object_id}
    by = _one_of(**key)
    get_person(app, {by: key[by]})


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
    from ..answers import get_users, get_users_of_file

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


@click.command(cls=Command)
@click.argument("event")
@day_options
@click.pass_obj
def count(app: App, event: str, start: date | int, end: date | int) -> None:
    """Print how many people did EVENT, from CleverTap.

    EVENT is spelt as in the dashboard: the service minds upper case.

    \b
    Example:
        altaprofiles count "App Launched" --from 2026-01-01 --to 2026-01-31
    """
    from ..asking import ask

    people = ask(app, lambda session: session.profiles.count(event, start=start, end=end))
    app.write(b"%d\n" % people)
