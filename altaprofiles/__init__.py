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
    from .cdp import Cdp
    from .credentials import Alta, CleverTap, MaxInFlight, SecretSource
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
    from .export.formats import Format, Write
    from .export.keys import Keys
    from .export.outputs import unfinished_in
    from .export.report import (
        ChainStatus,
        ExportProgress,
        ExportReport,
        LookupProgress,
        LookupReport,
        Progress,
        Report,
        SyncReport,
    )
    from .export.unfinished import Unfinished
    from .flow.fanout import Items
    from .http.hooks import Hook
    from .http.retry import Retry
    from .http.transport import Timeout
    from .models import (
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
        RateLimit,
        Stats,
        parse_date,
    )
    from .models.page import arrow_schema, to_arrow
    from .options import (
        EventProfilesOptions,
        ExportOptions,
        LookupOptions,
        SessionOptions,
        SyncOptions,
        ViewOptions,
    )
    from .profiles import EventProfiles, Profiles
    from .session import Session
    from .tables.layout import Flatten, Kind
    from .wire.alta import CdpBy
    from .wire.clevertap import By
    from .wire.days import Day, windows
    from .wire.filters import Filter, FilterValue, Operator, ShortOperator
    from .wire.language import Filters
    from .wire.query import EventQuery

# Searched in this order when a name is first used. Cheap ones come first, because importing aiohttp
# takes longer than `altaprofiles --help` may take.
_MODULES = ("emulator", "models", "notebook", "otel", "progress", "spark")
"""Public modules, which are imported where they are first used."""

_HOMES = (
    "errors",
    "credentials",
    "models",
    "models.page",
    "export.formats",
    "export.report",
    "http.retry",
    "tables.layout",
    "wire.days",
    "wire.filters",
    "wire.language",
    "wire.query",
    "wire.clevertap",
    "wire.alta",
    "flow.fanout",
    "session",
    "profiles",
    "cdp",
    "http.hooks",
    "http.transport",
    "options",
    "blocking_session",
    "export.keys",
    "export.outputs",
    "export.unfinished",
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
    "By",
    "Cdp",
    "CdpBy",
    "CdpUser",
    "ChainStatus",
    "CleverTap",
    "ConfigurationError",
    "ConnectError",
    "CursorError",
    "CursorExpired",
    "CursorLoop",
    "Customer",
    "Day",
    "DecodeError",
    "EventProfiles",
    "EventProfilesOptions",
    "EventQuery",
    "EventSummary",
    "ExportError",
    "ExportLocked",
    "ExportOptions",
    "ExportProgress",
    "ExportReport",
    "Filter",
    "FilterValue",
    "Filters",
    "Flatten",
    "Forbidden",
    "Format",
    "Hook",
    "Incomplete",
    "InvalidArgument",
    "Items",
    "Key",
    "Keys",
    "Kind",
    "Lookup",
    "LookupOptions",
    "LookupProgress",
    "LookupReport",
    "MaxInFlight",
    "MissingCredentials",
    "MissingExtra",
    "NotReady",
    "Operator",
    "Page",
    "PlanMismatch",
    "Platform",
    "Profile",
    "Profiles",
    "Progress",
    "RateLimit",
    "RateLimited",
    "Report",
    "RequestTimeout",
    "ResponseTooLarge",
    "Retry",
    "SecretSource",
    "ServerError",
    "Session",
    "SessionClosed",
    "SessionOptions",
    "ShortOperator",
    "Stats",
    "StatusError",
    "SyncOptions",
    "SyncReport",
    "Timeout",
    "TransportError",
    "Unauthorized",
    "Unfinished",
    "ViewOptions",
    "Write",
    "__version__",
    "arrow_schema",
    "blocking",
    "parse_date",
    "to_arrow",
    "unfinished_in",
    "windows",
]


if not TYPE_CHECKING:
    # Hidden from type checkers, which would take every misspelt import for right.
    def __getattr__(name: str) -> Any:
        if name in _MODULES:
            return import_module(f".{name}", __name__)
        if name in __all__:
            # Imported here, as with an older msgspec no module of the package can be.
            import_module(".base.extras", __name__).check_core()
            for home in _HOMES:
                module = import_module(f".{home}", __name__)
                if name in module.__all__:
                    value = globals()[name] = getattr(module, name)
                    return value
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
