"""`altaprofiles get`."""

from __future__ import annotations

import click

from ..app import App
from ..command import Command

__all__ = ["get"]


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
    from ..tables import get_person

    key = {"identity": identity, "email": email, "object_id": object_id}
    by = _one_of(**key)
    get_person(app, {by: key[by]})
