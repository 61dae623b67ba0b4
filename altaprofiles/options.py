"""Options of calls as typed dicts, for functions that hand them on: `**options: Unpack[…]`.

Each has the keyword arguments of one call except those that such a function usually decides itself:
the events, their days, the keys and the output.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from msgspec import UnsetType as _UnsetType

from .export.formats import Format, Write
from .export.report import ExportProgress, LookupProgress
from .http.hooks import Hook
from .http.retry import Retry
from .http.transport import Timeout
from .tables.layout import Flatten
from .wire.alta import CdpBy
from .wire.filters import Filter

if TYPE_CHECKING:
    from ssl import SSLContext

    import aiohttp

__all__ = [
    "EventProfilesOptions",
    "ExportOptions",
    "LookupOptions",
    "SessionOptions",
    "SyncOptions",
    "ViewOptions",
]


class SessionOptions(TypedDict, total=False):
    """The arguments of `Session` other than credentials."""

    retry: Retry
    timeout: Timeout
    max_response_bytes: int
    trace_configs: Sequence[aiohttp.TraceConfig]
    on_event: Hook | Sequence[Hook] | None
    trust_env: bool
    ssl: SSLContext | None
    proxy: str | None


class ViewOptions(TypedDict, total=False):
    """The arguments of `Session.with_options`."""

    retry: Retry | _UnsetType | None
    timeout: Timeout | _UnsetType | None
    deadline: float | _UnsetType | None
    bulk: bool | _UnsetType | None
    on_event: Hook | Sequence[Hook] | None


class _Filters(TypedDict, total=False):
    event_properties: Sequence[Filter]
    profile_fields: Sequence[Filter]
    query: Mapping[str, Any] | None


class EventProfilesOptions(_Filters, total=False):
    """The arguments of `session.profiles.by_event` other than `event`, `start` and `end`.

    >>> from typing import Unpack
    >>> from altaprofiles import EventProfiles, EventProfilesOptions
    >>> def january(session: Session, **options: Unpack[EventProfilesOptions]) -> EventProfiles:
    ...     return session.profiles.by_event("Charged", start=20260101, end=20260131, **options)
    """

    batch_size: int
    app: bool
    events: bool
    profile: bool
    windows: int
    distinct: bool
    cursor: str | None
    prefetch: int


class _Join(TypedDict, total=False):
    with_cdp: bool
    cdp_key: str
    cdp_by: CdpBy


class _Records(_Filters, _Join, total=False):
    windows: int | Literal["auto"]
    batch_size: int
    app: bool
    event_summaries: bool
    profile: bool


class _Table(TypedDict, total=False):
    format: Format | None
    flatten: Flatten
    table: str | None
    spool: str | os.PathLike[str] | None
    deadline: float | None


class _Output(_Table, total=False):
    bom: bool
    write: Write | None
    resume: bool


class ExportOptions(_Records, _Output, total=False):
    """The arguments of `Session.export` other than `events`, `start`, `end` and `to`."""

    distinct: bool
    count: bool
    on_shortfall: Literal["error", "warn"]
    on_progress: Callable[[ExportProgress], object] | None


class LookupOptions(_Join, _Output, total=False):
    """The arguments of `Session.export_lookups` other than `keys`, `by` and `to`."""

    column: str | None
    keys_table: str | None
    on_progress: Callable[[LookupProgress], object] | None


class SyncOptions(_Records, _Table, total=False):
    """The arguments of `Session.sync` other than `events`, `since`, `until` and `to`."""

    late_days: int
    timezone: str | None
    on_progress: Callable[[ExportProgress], object] | None
