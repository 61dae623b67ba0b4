"""The customers behind one key, from both services."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from ..app import App
from ..command import Command
from ..exits import Exit, Failure
from ..option_names import in_options

if TYPE_CHECKING:
    from ...models import Customer

__all__ = ["who"]


@click.command(
    cls=Command,
    misplaced="a key stands behind its option: --email ADDRESS, --identity ID, --object-id ID, "
    "--user-id ID or --anonymous-id ID",
)
@click.option("--email", metavar="ADDRESS", help="The person's email address.")
@click.option("--identity", metavar="ID", help="The person's ID in your own systems.")
@click.option("--object-id", metavar="ID", help="CleverTap's ID of one of the person's devices.")
@click.option("--user-id", metavar="ID", help="The ID of a user at Alta.")
@click.option("--anonymous-id", metavar="ID", help="An anonymous ID at Alta.")
@click.pass_obj
def who(app: App, /, **options: str | None) -> None:
    """Print the customers behind a key, from CleverTap and Alta.

    A record and a user belong together if the record's identity is the user's ID. An anonymous ID
    can have several users.

    On a terminal as tables; into a file or a pipe as JSON, one customer a line: {"profile": …,
    "cdp": [{"user_id": …, "anonymous_ids": […]}]}, the profile null for a user unknown to
    CleverTap. Exits with 5 when there is nobody.

    \b
    Examples:
        altaprofiles who --email jack+test@example.com
        altaprofiles who --anonymous-id aId3 | jq -r .profile.email
    """
    key: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    if len(key) != 1:
        got = " and ".join(map(_flag, key)) or "none"
        raise click.UsageError(f"pass one of {', '.join(map(_flag, options))}; got {got}")
    customers = app.ask(lambda session: session.who_is(**key), service="both")
    if not customers:
        # The key stays out of the message, as out of every error's: logs may keep it.
        (name,) = key
        raise Failure(f"nobody: {_ASKED[name]} with this {name}", Exit.NOT_FOUND)
    for customer in customers:
        if customer.error is not None:
            context = click.get_current_context()
            text = in_options(str(customer.error), context, [customer.error])
            app.warn(f"the CDP users cannot be asked for: {text}")
    if sys.stdout.isatty():
        from ..consoles import output_console
        from ..tables import customer_table

        console = output_console()
        for customer in customers:
            console.print(customer_table(customer, width=console.width))
    else:
        app.write(b"".join(map(_json_line, customers)))


_ASKED = {
    "identity": "neither service knows anybody",
    "email": "CleverTap knows nobody",
    "object_id": "CleverTap knows nobody",
    "user_id": "neither service knows anybody",
    "anonymous_id": "Alta knows nobody",
}


def _json_line(customer: Customer) -> bytes:
    import msgspec

    profile = b"null" if customer.profile is None else customer.profile.encode()
    users = msgspec.json.encode([*customer.cdp.values()])
    return b'{"profile":%b,"cdp":%b}\n' % (profile, users)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
