"""Values that calls return: profiles, pages, CDP users, lookup results, and request reports."""

from .attempts import Attempt, RateLimit, Stats
from .customer import AnonymousId, CdpUser, Customer, Key, Lookup
from .page import Page
from .platform import Platform
from .profile import EventSummary, Profile
from .times import parse_date

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
    "RateLimit",
    "Stats",
    "parse_date",
]
