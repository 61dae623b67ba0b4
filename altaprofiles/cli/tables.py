"""Answers to `get` and `cdp`: JSON for programs, tables for people."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..errors import ConfigurationError
from ..export.keys import KeyFile
from ..models import CdpUser, EventSummary, Lookup, Platform, Profile
from ..wire.alta import By
from .app import App
from .consoles import output_console, plain
from .exits import Failure
from .questions import ask
from .stdin import keys_from_stdin

__all__ = ["get_person", "get_users", "get_users_of_file"]

_NARROW = 60
"""Columns of a terminal below which not everything fits side by side."""


def get_person(app: App, key: Mapping[str, Any]) -> None:
    """Print one person's record.

    Raises:
        Failure: there is no such person.
    """

    person = ask(app, lambda session: session.profiles.get(**key))
    if person is None:
        raise Failure(f"no such person: {_named(key)}")
    if sys.stdout.isatty():
        console = output_console()
        console.print(_person(person, narrow=console.width < _NARROW))
    else:
        app.write(person.encode() + b"\n")


def get_users(app: App, key: Mapping[str, Any]) -> None:
    """Print the users of one lookup, a line for each.

    Raises:
        Failure: nothing is bound.
    """

    users = ask(app, lambda session: session.cdp.get(**key), service="alta").values()
    if not users:
        raise Failure(f"nothing is bound: {_named(key)}")
    if sys.stdout.isatty():
        output_console().print(_users(users))
    else:
        app.write(b"".join(msgspec.json.encode(user) + b"\n" for user in users))


def get_users_of_file(app: App, file: Path, *, by: By, column: str | None) -> None:
    """Print a line for each key of a file, in its order.

    Raises:
        Failure: some of them failed.
    """
    if str(file) == "-" and column is not None:
        raise ConfigurationError("column: stdin is read as text, a key a line; leave it out")
    session = app.session(service="alta")
    console = output_console() if sys.stdout.isatty() else None
    asked = failed = 0

    async def main() -> None:
        nonlocal asked, failed
        keys = keys_from_stdin() if str(file) == "-" else KeyFile(file, by, column)
        async with session:
            async for lookup in session.cdp.get_many(keys, by=by, ordered=True):
                asked += 1
                failed += lookup.error is not None
                if console is None:
                    app.write(msgspec.json.encode(_answer(lookup)) + b"\n")
                else:
                    console.print(_looked_up(lookup))

    app.run(main)
    if failed:
        raise Failure(f"{failed:,} of {asked:,} lookups failed; their lines say why")


def _named(key: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value!r}" for name, value in key.items() if value is not None)


def _answer(lookup: Lookup[dict[str, CdpUser]]) -> dict[str, Any]:
    if lookup.error is not None:
        return {"key": lookup.key, "error": str(lookup.error)}
    return {"key": lookup.key, "users": list((lookup.value or {}).values())}


def _looked_up(lookup: Lookup[dict[str, CdpUser]]) -> RenderableType:
    key = plain(str(lookup.key), "bold")
    if lookup.error is not None:
        return key + Text("  ") + plain(str(lookup.error), "red")
    if not lookup.value:
        return key + Text("  nothing is bound", "dim")
    return Group(key, _users(lookup.value.values()))


def _table(*columns: str) -> Table:
    table = Table(title_justify="left", title_style="bold")
    for column in columns:
        # An ID that is cut off is none: it goes on in the next line.
        table.add_column(column, overflow="fold")
    return table


def _users(users: Iterable[CdpUser]) -> Table:
    table = _table("user ID", "anonymous ID", "type", "source ID")
    for user in users:
        for number, bound in enumerate(user.anonymous_ids or [None]):
            row = (
                ("", "", "")
                if bound is None
                else (bound.anonymous_id, bound.conversation_type, bound.source_id)
            )
            table.add_row(
                plain(user.user_id if number == 0 else ""), *(plain(x or "") for x in row)
            )
    return table


def _person(person: Profile, *, narrow: bool) -> RenderableType:
    about = _table()
    about.show_header = False
    about.add_column(style="bold")
    about.add_column(overflow="fold")
    known = {
        "identity": person.identity,
        "email": person.email,
        "name": person.name,
        "phone": person.phone,
        "object IDs": "\n".join(person.object_ids) or None,
    }
    for name, value in known.items():
        if value is not None:
            about.add_row(name, plain(value))
    for name, value in person.profile_data.items():
        about.add_row(plain(name), plain(_shown(value)))
    parts: list[RenderableType] = [about]
    if person.events:
        parts.append(_events(person.events, narrow=narrow))
    if person.platform_info:
        parts.append(_devices(person.platform_info))
    return Group(*parts)


def _shown(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _events(events: Mapping[str, EventSummary], *, narrow: bool) -> Table:
    # Of two days that would each be torn, the last one says more.
    table = _table("event", "times", *([] if narrow else ["first"]), "last")
    table.columns[1].justify = "right"
    for column in table.columns[1:]:
        column.no_wrap = True
    for name, event in events.items():
        days = (
            [_day(event.last_seen)] if narrow else [_day(event.first_seen), _day(event.last_seen)]
        )
        table.add_row(plain(name), f"{event.count:,}", *days)
    return table


def _day(seconds: int | None) -> str:
    if seconds is None:
        return ""
    try:
        return datetime.fromtimestamp(seconds, UTC).date().isoformat()
    except (ValueError, OverflowError, OSError):
        return str(seconds)


def _devices(devices: Iterable[Platform]) -> Table:
    table = _table("device", "OS", "app", "object ID")
    for device in devices:
        name = " ".join(x for x in (device.platform, device.make, device.model) if x)
        row = (name, device.os_version, device.app_version, device.object_id)
        table.add_row(*(plain(x or "") for x in row))
    return table
