"""The values callers get: profiles, pages, CDP users, and the results of lookups."""

from .profile import (
    AnonymousId,
    Attempt,
    CdpUser,
    Customer,
    EventSummary,
    Key,
    Lookup,
    Page,
    Platform,
    Profile,
    Stats,
    parse_date,
)

__all__ = [
    "AnonymousId",
    "Attempt",
    "CdpUser",
    "Customer",
    "EventSummary",
    "Key",
    "Lookup",
    "Page",
    "Platform",
    "Profile",
    "Stats",
    "parse_date",
]
