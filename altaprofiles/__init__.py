"""Customer profiles from CleverTap and CDP users from Alta, every record exactly once.

>>> async with Session.from_env() as session:
...     async for person in session.profiles.by_event(
...         "App Launched", start=date(2026, 1, 1), end=date(2026, 1, 31)
...     ):
...         print(person.identity)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from .blocking_session import (
        BlockingCdp,
        BlockingEventProfiles,
        BlockingProfiles,
        BlockingSession,
        blocking,
    )
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
        InvalidArgument,
        MissingCredentials,
        MissingExtra,
        NotReady,
        PlanMismatch,
        RateLimited,
        RequestTimeout,
        ResponseTooLarge,
        ServerError,
        SessionClosed,
        StatusError,
        TransportError,
        Unauthorized,
    )
    from .export.report import (
        ChainStatus,
        ExportProgress,
        ExportReport,
        LookupProgress,
        LookupReport,
        SyncReport,
    )
    from .http.retry import Retry
    from .http.transport import Timeout
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
        RateLimit,
        Stats,
        parse_date,
    )
    from .models.page import to_arrow
    from .profiles import EventProfiles
    from .session import Session
    from .wire.filters import Filter

# Searched in this order when a name is first used. Cheap ones come first, because importing aiohttp
# takes longer than `altaprofiles --help` may take.
_HOMES = (
    "errors",
    "credentials",
    "models",
    "models.page",
    "export.report",
    "http.retry",
    "wire.filters",
    "session",
    "profiles",
    "http.transport",
    "blocking_session",
)

__all__ = [
    "Alta",
    "AltaProfilesError",
    "AnonymousId",
    "Attempt",
    "BadRequest",
    "BlockingCdp",
    "BlockingEventProfiles",
    "BlockingProfiles",
    "BlockingSession",
    "CdpUser",
    "ChainStatus",
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
    "ExportProgress",
    "ExportReport",
    "Filter",
    "Forbidden",
    "Incomplete",
    "InvalidArgument",
    "Lookup",
    "LookupProgress",
    "LookupReport",
    "MissingCredentials",
    "MissingExtra",
    "NotReady",
    "Page",
    "PlanMismatch",
    "Platform",
    "Profile",
    "RateLimit",
    "RateLimited",
    "RequestTimeout",
    "ResponseTooLarge",
    "Retry",
    "ServerError",
    "Session",
    "SessionClosed",
    "Stats",
    "StatusError",
    "SyncReport",
    "Timeout",
    "TransportError",
    "Unauthorized",
    "__version__",
    "blocking",
    "parse_date",
    "to_arrow",
]


if not TYPE_CHECKING:
    # Hidden from type checkers, which would take every misspelt import for right.
    def __getattr__(name: str) -> Any:
        if name in __all__:
            for home in _HOMES:
                module = import_module(f".{home}", __name__)
                if name in module.__all__:
                    value = globals()[name] = getattr(module, name)
                    return value
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
