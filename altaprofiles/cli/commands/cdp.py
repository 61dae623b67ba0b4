"""`altaprofiles cdp`: users and the anonymous IDs bound to them."""

from __future__ import annotations

import asyncio
import shlex
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import click

from ..app import App
from ..command import Command
from ..exits import Exit, Failure, OutOfTime
from ..options import KeyFileName, KindOfKeys
from ..waits import remedy

if TYPE_CHECKING:
    from ...errors import AltaProfilesError
    from ...export.keys import Placed
    from ...flow.fanout import Items
    from ...models import CdpUser, Lookup, Stats
    from ...wire.alta import CdpBy

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
    help="Look up many: the lines of a text file or of stdin (-), or a column of a .csv, .ndjson, "
    ".parquet or .duckdb file.",
)
@click.option(
    "--by",
    type=KindOfKeys(["user-id", "anonymous-id"]),
    help="The kind of IDs in the file; user_id and anonymous_id, as in Python, are taken as well. "
    "Required with --file.",
)
@click.option(
    "--column",
    metavar="NAME",
    help="The column of the file, if it has several. Without it, the first line of a CSV file is "
    "an ID as well, unless it equals the kind of IDs.",
)
@click.option("--keys-table", metavar="NAME", help="The table of a DuckDB file, if it has several.")
@click.pass_obj
def cdp(
    app: App,
    user_id: str | None,
    anonymous_id: str | None,
    keys: str | None,
    by: Literal["user-id", "anonymous-id"] | None,
    column: str | None,
    keys_table: str | None,
) -> None:
    """Print which users and anonymous IDs belong together, from Alta.

    On a terminal as a table; into a file or a pipe as JSON, one user a line: {"user_id": …,
    "anonymous_ids": […]}. Exits with 5 when there are no bindings.

    With --file, prints one line per ID, in the order of the file: {"key": …, "users": […]}, whose
    users are empty when there are no bindings, or {"key": …, "error": …}. Exits with 1 when a
    lookup failed. Progress, a wait for a rate limit and the most frequent error are told on stderr.
    To keep what was found over an interruption, use `lookup --by`.

    \b
    Examples:
        altaprofiles cdp --user-id BC123
        altaprofiles cdp --anonymous-id aId3 | jq -r .user_id
        altaprofiles cdp --file ids.txt --by user-id > users.ndjson
    """
    if keys is None:
        if by is not None or column is not None or keys_table is not None:
            raise click.UsageError("--by, --column and --keys-table go with --file")
        if user_id is None and anonymous_id is None:
            raise click.UsageError("pass --user-id, --anonymous-id, both, or --file")
        _print_users(app, user_id, anonymous_id)
        return
    if user_id is not None or anonymous_id is not None:
        raise click.UsageError("pass either --file, or --user-id and --anonymous-id")
    if by is None:
        raise click.UsageError("--file needs --by user-id or --by anonymous-id")
    kind: CdpBy = "user_id" if by == "user-id" else "anonymous_id"
    _print_lookups(app, keys, kind, column, keys_table)


def _print_users(app: App, user_id: str | None, anonymous_id: str | None) -> None:
    users = app.ask(
        lambda session: session.cdp.get(user_id=user_id, anonymous_id=anonymous_id),
        service="alta",
    ).values()
    if not users:
        keys = {"user_id": user_id, "anonymous_id": anonymous_id}
        names = " and ".join(name for name, key in keys.items() if key is not None)
        raise Failure(f"no bindings: nothing is bound to this {names}", Exit.NOT_FOUND)
    if sys.stdout.isatty():
        from ..consoles import output_console
        from ..tables import users_table

        output_console().print(users_table(users))
    else:
        import msgspec

        app.write(b"".join(msgspec.json.encode(user) + b"\n" for user in users))


def _print_lookups(
    app: App,
    file: str,
    by: CdpBy,
    column: str | None,
    keys_table: str | None,
) -> None:
    """Print one line for each key of a file, in its order.

    Raises:
        Failure: a lookup failed.
    """
    from ...errors import InvalidArgument
    from ...export.keys import KeyFile
    from ...export.threads import read_ahead, running_beside
    from ..consoles import output_console
    from ..stdin import StdinKeys
    from ..tables import lookup_table

    if file == "-" and column is not None:
        raise InvalidArgument("column: stdin is read as text, a key a line; leave it out")
    waits = app.waits()
    session = app.session(service="alta", on_event=waits.note)
    app.name_account("alta")
    console = output_console() if sys.stdout.isatty() else None
    total = 0
    failures = _Failures()

    async def main() -> None:
        nonlocal total
        source = None if file == "-" else KeyFile(file, by, column, keys_table)
        placed = StdinKeys() if source is None else source
        keys: Items[str] = placed
        if source is not None and source.is_pipe:
            keys = read_ahead(source)
        async with (
            session,
            running_beside(
                lambda: waits.watch("Alta", session.stats.limits["Alta"], lambda: total)
            ),
            running_beside(lambda: _report(app, session.stats, lambda: (total, failures.count))),
        ):
            async for lookup in session.cdp.get_many(keys, by=by, ordered=True):
                if lookup.error is not None:
                    _name_place(lookup, total, placed)
                    failures.add(lookup.error)
                if console is None:
                    app.write(_json_line(lookup))
                else:
                    console.print(lookup_table(lookup))
                total += 1
                if source is not None:
                    source.forget_places(total)

    as_lookup = _as_lookup(app, file, by, column, keys_table)
    try:
        app.run(main, is_limited=True)
    except OutOfTime as error:
        error.add_note(f"{total:,} lookups are in the output. {_KEEPING}: {as_lookup}")
        raise
    if not total and file == "-":
        app.warn("standard input holds no keys: nothing was looked up")
    if failures.count:
        raise failures.summary(total, app, as_lookup)


def _as_lookup(app: App, file: str, by: str, column: str | None, keys_table: str | None) -> str:
    """Return the command line that looks up the same keys into a file."""
    options = ["--by", by.replace("_", "-")]
    for name, value in (("--column", column), ("--keys-table", keys_table)):
        if value is not None:
            options += [name, value]
    options += ["-o", "users.ndjson"]
    name = f"./{file}" if file.startswith("-") and file != "-" else file
    return f"altaprofiles lookup {shlex.join([name, *options])}{app.account_option}"


_KEEPING = "This command keeps what it has found, and requests only the rest when it runs again"

_REPORT_EVERY = 5.0
"""Seconds between two lines of progress, as `export` has."""


async def _report(app: App, stats: Stats, counts: Callable[[], tuple[int, int]]) -> None:
    """Log the progress now and then, until it is cancelled."""
    from ...base.wording import clock, numbered

    began = time.monotonic()
    while True:
        await asyncio.sleep(_REPORT_EVERY)
        printed, failed = counts()
        seconds = time.monotonic() - began
        app.info(
            f"asking: {numbered(printed, 'key')} printed, {failed:,} failed, "
            f"{printed / seconds:,.0f} a second, {numbered(stats.retries, 'retry')}, "
            f"{clock(seconds)}"
        )


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

    def summary(self, total: int, app: App, as_lookup: str) -> Failure:
        """Return the failure of `total` lookups, with the most frequent error of the service.

        Args:
            total: the number of lookups.
            app: knows the next step after an error.
            as_lookup: the command line that looks up the same keys into a file.
        """
        from ...errors import InvalidArgument

        failure = Failure(f"{self.count:,} of {total:,} lookups failed; see the output")
        # An invalid key has a line of its own in the output, which names the fault.
        del self._counts[InvalidArgument]
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
            failure.add_note(f"{_KEEPING}: {as_lookup}")
        return failure


def _name_place(lookup: Lookup[Any], index: int, file: Placed) -> None:
    """Have the error of an invalid key name its line, in the place of its index."""
    from ...errors import ConfigurationError
    from ...export.keys import as_text_key

    if isinstance(lookup.error, ConfigurationError):
        _, invalid = as_text_key(index, lookup.key, file.place_of(index))
        if invalid is not None:
            lookup.error.args = invalid.args


def _json_line(lookup: Lookup[dict[str, CdpUser]]) -> bytes:
    import msgspec

    answer = (
        {"users": list((lookup.value or {}).values())}
        if lookup.error is None
        else {"error": str(lookup.error)}
    )
    return msgspec.json.encode({"key": lookup.key, **answer}) + b"\n"
