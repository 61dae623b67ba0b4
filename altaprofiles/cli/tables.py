"""Profiles and CDP users as tables on a terminal. Importing this imports rich and msgspec."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

import msgspec
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..base.dates import moment_in
from ..errors import DecodeError
from ..models import CdpUser, Customer, EventSummary, Lookup, Platform, Profile
from ..models.people import object_ids_of
from .consoles import plain

__all__ = ["customer_table", "lookup_table", "profile_table", "users_table"]

_NARROW = 60
"""Terminals with fewer columns than this have no room for every column of a table."""


def profile_table(profile: Profile, *, width: int) -> RenderableType:
    """Return the tables of one profile: its fields, its events, its devices.

    Args:
        profile: the profile.
        width: of the terminal, in columns.
    """
    fields = _table()
    fields.show_header = False
    fields.add_column(style="bold")
    fields.add_column(overflow="fold")
    core = {
        "identity": profile.identity,
        "email": profile.email,
        "name": profile.name,
        "phone": profile.phone,
        "object IDs": "\n".join(object_ids_of(profile.raw)) or None,
    }
    for name, text in core.items():
        if text is not None:
            fields.add_row(name, plain(text))
    parts: list[RenderableType] = [fields]

    def add_properties() -> None:
        for name, value in profile.profile_data.items():
            text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
            if (date := moment_in(text)) is not None:
                text = f"{date:%Y-%m-%d %H:%M:%S} UTC"
            fields.add_row(plain(name), plain(text))

    def add_events() -> None:
        if profile.events:
            parts.append(_events(profile.events, is_narrow=width < _NARROW))

    def add_devices() -> None:
        if profile.platform_info:
            parts.append(_devices(profile.platform_info))

    for add in (add_properties, add_events, add_devices):
        # A part that cannot be decoded must not hide the others.
        try:
            add()
        except DecodeError as error:
            parts.append(_unreadable(error))
    return Group(*parts)


def _unreadable(error: DecodeError) -> Text:
    return Text(f"{error.path} cannot be decoded; print it as JSON, into a pipe", "red")


def users_table(users: Iterable[CdpUser]) -> Table:
    """Return a table of users and the anonymous IDs bound to each."""
    table = _table("user ID", "anonymous ID", "type", "source ID")
    for user in users:
        for number, bound in enumerate(user.anonymous_ids or [None]):
            cells = (
                ("", "", "")
                if bound is None
                else (bound.anonymous_id, bound.conversation_type, bound.source_id)
            )
            table.add_row(
                plain(user.user_id if number == 0 else ""), *(plain(cell or "") for cell in cells)
            )
    return table


def lookup_table(lookup: Lookup[dict[str, CdpUser]]) -> RenderableType:
    """Return the key of a lookup with the users found, or with its error."""
    key = plain(str(lookup.key), "bold")
    if lookup.error is not None:
        return key + Text("  ") + plain(str(lookup.error), "red")
    if not lookup.value:
        return key + Text("  no bindings", "dim")
    return Group(key, users_table(lookup.value.values()))


def customer_table(customer: Customer, *, width: int) -> RenderableType:
    """Return the tables of a profile and of its CDP users; see `profile_table`."""
    profile: RenderableType = Text("CleverTap does not know this user", "dim")
    if customer.profile is not None:
        profile = profile_table(customer.profile, width=width)
    users: RenderableType = Text("no bindings", "dim")
    if customer.cdp:
        users = users_table(customer.cdp.values())
    return Group(profile, users)


def _table(*columns: str) -> Table:
    table = Table(title_justify="left", title_style="bold")
    for column in columns:
        # A truncated ID is useless, so it wraps.
        table.add_column(column, overflow="fold")
    return table


def _events(events: Mapping[str, EventSummary], *, is_narrow: bool) -> Table:
    # Where two dates would not fit on a line, the last one matters more.
    table = _table("event", "times", *([] if is_narrow else ["first"]), "last")
    table.columns[1].justify = "right"
    for column in table.columns[1:]:
        column.no_wrap = True
    for name, event in events.items():
        days = [_day(event.last_seen)]
        if not is_narrow:
            days.insert(0, _day(event.first_seen))
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
        name = " ".join(part for part in (device.platform, device.make, device.model) if part)
        cells = (name, device.os_version, device.app_version, device.object_id)
        table.add_row(*(plain(cell or "") for cell in cells))
    return table
