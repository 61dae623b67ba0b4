"""`altaprofiles cdp`: users and the anonymous IDs bound to them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Literal

import click

from ..app import App
from ..command import Command
from ..exits import Failure
from ..options import KeyFileName

if TYPE_CHECKING:
    from ...flow.fanout import Items
    from ...models import CdpUser, Lookup

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
    type=KeyFileName(),
    metavar="IDS",
    help="Look up many: the lines of a text file or of stdin (-), or a column of a .csv or "
    ".ndjson file.",
)
@click.option(
    "--by",
    type=click.Choice(["user-id", "anonymous-id"]),
    help="The kind of IDs in the file. Required with --file.",
)
@click.option("--column", metavar="NAME", help="The column of the file, if it has several.")
@click.pass_obj
def cdp(
    app: App,
    user_id: str | None,
    anonymous_id: str | None,
    file: str | None,
    by: Literal["user-id", "anonymous-id"] | None,
    column: str | None,
) -> None:
    """Print which users and anonymous IDs belong together, from Alta.

    On a terminal as a table; into a file or a pipe as JSON, one user a line: {"user_id": …,
    "anonymous_ids": […]}. Exits with 1 when there are no bindings.

    With --file, prints one line per ID, in the order of the file: {"key": …, "users": […]}, whose
    users are empty when there are no bindings, or {"key": …, "error": …}. Exits with 1 when a
    lookup failed.

    \b
    Examples:
        altaprofiles cdp --user-id BC123
        altaprofiles cdp --anonymous-id aId3 | jq -r .user_id
        altaprofiles cdp --file ids.txt --by user-id > users.ndjson
    """
    if file is None:
        if by is not None or column is not None:
            raise click.UsageError("--by and --column go with --file")
        if user_id is None and anonymous_id is None:
            raise click.UsageError("pass --user-id, --anonymous-id, both, or --file")
        _print_users(app, user_id, anonymous_id)
        return
    if user_id is not None or anonymous_id is not None:
        raise click.UsageError("pass either --file, or --user-id and --anonymous-id")
    if by is None:
        raise click.UsageError("--file needs --by user-id or --by anonymous-id")
    _print_lookups(app, file, "user_id" if by == "user-id" else "anonymous_id", column)


def _print_users(app: App, user_id: str | None, anonymous_id: str | None) -> None:
    users = app.ask(
        lambda session: session.cdp.get(user_id=user_id, anonymous_id=anonymous_id),
        service="alta",
    ).values()
    if not users:
        keys = {"user_id": user_id, "anonymous_id": anonymous_id}
        names = " and ".join(name for name, key in keys.items() if key is not None)
        raise Failure(f"no bindings: nothing is bound to this {names}")
    if sys.stdout.isatty():
        from ..consoles import output_console
        from ..tables import users_table

        output_console().print(users_table(users))
    else:
        import msgspec

        app.write(b"".join(msgspec.json.encode(user) + b"\n" for user in users))


def _print_lookups(
    app: App, file: str, by: Literal["user_id", "anonymous_id"], column: str | None
) -> None:
    """Print one line for each key of a file, in its order.

    Raises:
        Failure: a lookup failed.
    """
    from ...errors import ConfigurationError
    from ...export.keys import KeyFile
    from ...export.threads import read_ahead
    from ..consoles import output_console
    from ..stdin import keys_from_stdin
    from ..tables import lookup_table

    if file == "-" and column is not None:
        raise ConfigurationError("column: stdin is read as text, a key a line; leave it out")
    session = app.session(service="alta")
    console = output_console() if sys.stdout.isatty() else None
    total = failed = 0

    async def main() -> None:
        nonlocal total, failed
        keys: Items[str] = keys_from_stdin() if file == "-" else KeyFile(file, by, column)
        if isinstance(keys, KeyFile) and keys.is_pipe:
            keys = read_ahead(keys)
        async with session:
            async for lookup in session.cdp.get_many(keys, by=by, ordered=True):
                total += 1
                failed += lookup.error is not None
                if console is None:
                    app.write(_json_line(lookup))
                else:
                    console.print(lookup_table(lookup))

    app.run(main)
    if failed:
        raise Failure(f"{failed:,} of {total:,} lookups failed; see the output")


def _json_line(lookup: Lookup[dict[str, CdpUser]]) -> bytes:
    import msgspec

    answer = (
        {"users": list((lookup.value or {}).values())}
        if lookup.error is None
        else {"error": str(lookup.error)}
    )
    return msgspec.json.encode({"key": lookup.key, **answer}) + b"\n"
