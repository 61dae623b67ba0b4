"""The values callers get: profiles, pages, CDP users, and the results of lookups."""

from .attempts import Attempt, Stats
from .customer import AnonymousId, CdpUser, Customer, Key, Lookup
from .page import Page
from .profile import EventSummary, Platform, Profile, parse_date

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
