"""`altaprofiles get`: one person's record."""

from __future__ import annotations

import sys
from typing import Any

import click

from ..app import App
from ..command import Command
from ..exits import Exit, Failure

__all__ = ["get"]


@click.command(
    cls=Command,
    misplaced="a key stands behind its option: --identity ID, --email ADDRESS or --object-id ID",
    redirect="person.json",
)
@click.option("--identity", metavar="ID", help="The person's ID in your own systems.")
@click.option("--email", metavar="ADDRESS", help="The person's email address.")
@click.option("--object-id", metavar="ID", help="CleverTap's ID of one of the person's devices.")
@click.pass_obj
def get(app: App, identity: str | None, email: str | None, object_id: str | None) -> None:
    """Print one person's record, from CleverTap.

    On a terminal it is printed as tables; into a file or a pipe as one line of JSON, the record as
    the service sent it. Exits with 5 when there is no such person.

    \b
    Examples:
        altaprofiles get --identity 5555555555
        altaprofiles get --email jack+test@example.com | jq .profileData
    """
    options = {"identity": identity, "email": email, "object_id": object_id}
    key: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    if len(key) != 1:
        got = " and ".join(map(_flag, key)) or "none"
        raise click.UsageError(f"pass one of {', '.join(map(_flag, options))}; got {got}")
    profile = app.ask(lambda session: session.profiles.get(**key))
    if profile is None:
        # The key stays out of the message, as out of every error's: logs may keep it.
        (name,) = key
        raise Failure(
            f"no such person: the service has no profile with this {name}", Exit.NOT_FOUND
        )
    if sys.stdout.isatty():
        from ..consoles import output_console
        from ..tables import profile_table

        console = output_console()
        console.print(profile_table(profile, width=console.width))
    else:
        app.write(profile.encode() + b"\n")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
