"""`altaprofiles cdp`: users and the anonymous IDs bound to them."""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING, Literal

import click

from ..app import App
from ..command import Command
from ..exits import Failure
from ..options import KeyFileName
from ..waits import Waits, remedy

if TYPE_CHECKING:
    from ...errors import AltaProfilesError
    from ...flow.fanout import Items
    from ...models import CdpUser, Lookup

__all__ = ["cdp"]


@click.command(
    cls=Command,
    misplaced="an ID stands behind its option: --user-id ID or --anonymous-id ID",
    redirect="users.ndjson",
)
@click.option("--user-id", metavar="ID", help="A user's ID: prints the anonymous IDs bound to it.")
@click.option(
    "--anonymous-id",
    metavar="ID",
    help="An anonymous ID: prints every user it is bound to. With --user-id: that pair only.",
)
@click.option(
    "--file",
    "keys",
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
@click.option(
    "--column",
    metavar="NAME",
    help="The column of the file, if it has several. Without it, the first line of a CSV file is "
    "an ID as well, unless it equals the kind of IDs.",
)
@click.pass_obj
def cdp(
    app: App,
    user_id: str | None,
    anonymous_id: str | None,
    keys: str | None,
    by: Literal["user-id", "anonymous-id"] | None,
    column: str | None,
) -> None:
    """Print which users and anonymous IDs belong together, from Alta.

    On a terminal as a table; into a file or a pipe as JSON, one user a line: {"user_id": …,
    "anonymous_ids": […]}. Exits with 1 when there are no bindings.

    With --file, prints one line per ID, in the order of the file: {"key": …, "users": […]}, whose
    users are empty when there are no bindings, or {"key": …, "error": …}. Exits with 1 when a
    lookup failed. A wait for a rate limit, and the most frequent error, are told on stderr.

    \b
    Examples:
        altaprofiles cdp --user-id BC123
        altaprofiles cdp --anonymous-id aId3 | jq -r .user_id
        altaprofiles cdp --file ids.txt --by user-id > users.ndjson
    """
    if keys is None:
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
    _print_lookups(app, keys, "user_id" if by == "user-id" else "anonymous_id", column)


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
    from ...export.threads import read_ahead, running_beside
    from ..consoles import output_console
    from ..stdin import keys_from_stdin
    from ..tables import lookup_table

    if file == "-" and column is not None:
        raise ConfigurationError("column: stdin is read as text, a key a line; leave it out")
    waits = Waits(app.info)
    session = app.session(service="alta", on_event=waits.note)
    console = output_console() if sys.stdout.isatty() else None
    total = 0
    failures = _Failures()

    async def main() -> None:
        nonlocal total
        keys: Items[str] = keys_from_stdin() if file == "-" else KeyFile(file, by, column)
        if isinstance(keys, KeyFile) and keys.is_pipe:
            keys = read_ahead(keys)
        async with (
            session,
            running_beside(
                lambda: waits.watch("Alta", session.stats.limits["Alta"], lambda: total)
            ),
        ):
            async for lookup in session.cdp.get_many(keys, by=by, ordered=True):
                total += 1
                if lookup.error is not None:
                    failures.add(lookup.error)
                if console is None:
                    app.write(_json_line(lookup))
                else:
                    console.print(lookup_table(lookup))

    app.run(main)
    if not total and file == "-":
        app.warn("standard input holds no keys: nothing was looked up")
    if failures.count:
        raise failures.summary(total, app)


class _Failures:
    """The errors of lookups, of which there can be millions.

    Attributes:
        count: how many there are.
    """

    def __init__(self) -> None:
        self.count = 0
        self._counts: Counter[type[AltaProfilesError]] = Counter()
        self._last: dict[type[AltaProfilesError], AltaProfilesError] = {}

    def add(self, error: AltaProfilesError) -> None:
        """Count an error."""
        self.count += 1
        self._counts[type(error)] += 1
        self._last[type(error)] = error

    def summary(self, total: int, app: App) -> Failure:
        """Return the failure of `total` lookups, with the most frequent error of the service.

        Args:
            total: the number of lookups.
            app: knows the next step after an error.
        """
        from ...errors import ConfigurationError

        failure = Failure(f"{self.count:,} of {total:,} lookups failed; see the output")
        # An invalid key has a line of its own in the output, which names the fault.
        del self._counts[ConfigurationError]
        for kind, count in self._counts.most_common(1):
            last = self._last[kind]
            failure.add_note(f"{count:,} of them like this: {last}")
            if (advice := remedy(last)) is not None:
                failure.add_note(f"{advice}.")
            if (advice := app.advice(last)) is not None:
                failure.add_note(advice)
            failure.add_note(
                "To request only these again, take their IDs from the output: "
                "jq -r 'select(.error) | .key' OUTPUT > rest.txt"
            )
        return failure


def _json_line(lookup: Lookup[dict[str, CdpUser]]) -> bytes:
    import msgspec

    answer = (
        {"users": list((lookup.value or {}).values())}
        if lookup.error is None
        else {"error": str(lookup.error)}
    )
    return msgspec.json.encode({"key": lookup.key, **answer}) + b"\n"
