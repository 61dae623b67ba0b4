"""Customer profiles from CleverTap and CDP users from Alta, every record exactly once.

>>> async with Session.from_env() as session:
...     async for person in session.profiles.by_event(
...         "App Launched", start=date(2026, 1, 1), end=date(2026, 1, 31)
...     ):
...         print(person.identity)
"""

from ._version import __version__
from .credentials import Alta, CleverTap
from .errors import (
    AltaProfilesError,
    BadRequest,
    ConfigurationError,
    ConnectError,
    CursorError,
    CursorExpired,
    CursorLoop,
    DecodeError,
    ExportError,
    ExportLocked,
    Forbidden,
    Incomplete,
    NotReady,
    PlanMismatch,
    RateLimited,
    RequestTimeout,
    ResponseTooLarge,
    ServerError,
    StatusError,
    TransportError,
    Unauthorized,
)
from .models import (
    AnonymousId,
    Attempt,
    CdpUser,
    Customer,
    EventSummary,
    Lookup,
    Page,
    Platform,
    Profile,
    Stats,
    parse_date,
)
from .profiles import EventProfiles
from .retry import Retry
from .session import Session
from .transport import Timeout

__all__ = [
    "Alta",
    "AltaProfilesError",
    "AnonymousId",
    "Attempt",
    "BadRequest",
    "CdpUser",
    "CleverTap",
    "ConfigurationError",
    "ConnectError",
    "CursorError",
    "CursorExpired",
    "CursorLoop",
    "Customer",
    "DecodeError",
    "EventProfiles",
    "EventSummary",
    "ExportError",
    "ExportLocked",
    "Forbidden",
    "Incomplete",
    "Lookup",
    "NotReady",
    "Page",
    "PlanMismatch",
    "Platform",
    "Profile",
    "RateLimited",
    "RequestTimeout",
    "ResponseTooLarge",
    "Retry",
    "ServerError",
    "Session",
    "Stats",
    "StatusError",
    "Timeout",
    "TransportError",
    "Unauthorized",
    "__version__",
    "parse_date",
]
