"""Both services with credentials, as the examination sees them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ...accounts import Resolved
from ...credentials import Alta, CleverTap
from ...errors import AltaProfilesError
from .forecast import forecast_export, forecast_lookups, renews_in
from .probe import Limits, Probe, probe_alta, probe_clevertap, try_platforms, try_regions

__all__ = ["Service", "alta_service", "clevertap_service"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A service with credentials.

    Attributes:
        label: its name.
        account: the account and its place, in words.
        found: the credentials and their source.
        url: its address.
        accepted: the finding if it accepts the credentials.
        secrets: the credentials that a request carries, in words.
        probe: sends it one request with the credentials.
        forecast: returns a sentence on large jobs, from the result of `probe`.
        place: the noun for one of its addresses.
        argument: the argument of the credentials that names one.
        preposition: the one of that noun.
        places: the addresses to try refused credentials at, by name.
        try_places: tries them at each, and returns None or the error by name.
        advice: the next step if no place accepts the credentials.
    """

    label: str
    account: str
    found: Resolved[Any]
    url: str
    accepted: str
    secrets: str
    probe: Callable[[], Awaitable[Probe]]
    forecast: Callable[[Probe], str]
    place: str
    argument: str
    preposition: str
    places: Mapping[str, str]
    try_places: Callable[[], Awaitable[Mapping[str, AltaProfilesError | None]]]
    advice: str


def clevertap_service(
    found: Resolved[CleverTap], regions: Mapping[str, str], limits: Limits
) -> Service:
    """Return CleverTap with an account, and the base URLs of the regions to try by name."""
    account = found.credentials
    place = account.url if account.base_url else f"region {account.region}"
    return Service(
        label="CleverTap",
        account=f"account {account.account_id}, {place}",
        found=found,
        url=account.url,
        accepted="the credentials are accepted",
        secrets="account ID and passcode",
        probe=lambda: probe_clevertap(account, limits),
        forecast=lambda probe: forecast_export(
            account, probe.seconds, probe.stated, renews_in(probe.stated)
        ),
        place="region",
        argument="region",
        preposition="in",
        places=regions,
        try_places=lambda: try_regions(account.account_id, account.passcode, regions, limits),
        advice="check account ID and passcode in the dashboard, under Settings",
    )


def alta_service(found: Resolved[Alta], platforms: Mapping[str, str], limits: Limits) -> Service:
    """Return Alta with an API key, and the base URLs of the platforms to try by name."""
    key = found.credentials
    return Service(
        label="Alta",
        account=key.url,
        found=found,
        url=key.url,
        accepted="the API key is accepted",
        secrets="the API key",
        probe=lambda: probe_alta(key, limits),
        forecast=lambda probe: forecast_lookups(
            key, probe.seconds, probe.stated, renews_in(probe.stated)
        ),
        place="platform",
        argument="endpoint",
        preposition="on",
        places=platforms,
        try_places=lambda: try_platforms(key.token, platforms, limits),
        advice="check the key on the API Keys page of its agent",
    )
