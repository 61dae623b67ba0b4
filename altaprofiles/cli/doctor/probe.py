"""Sends one small request to a service, to see whether it accepts the credentials."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from ...credentials import Alta, CleverTap
from ...errors import AltaProfilesError
from ...http.retry import Retry
from ...http.transport import Timeout
from ...session import Session

__all__ = ["probe_alta", "probe_clevertap", "try_regions"]

_QUICK = Retry(attempts=3, max_delay=2.0, deadline=30.0)
"""Enough to get past a hiccup while a person waits."""

_LIMITS = Timeout()

_UNKNOWN = "altaprofiles-doctor"
"""A key that no customer has."""


async def probe_clevertap(credentials: CleverTap, limits: Timeout = _LIMITS) -> None:
    """Send one small request to CleverTap, within `limits` for each attempt.

    Raises:
        Unauthorized, Forbidden: the credentials are refused.
        AltaProfilesError: no answer that tells.
    """
    async with Session(
        clevertap=credentials, retry=_QUICK, timeout=limits, trust_env=True
    ) as session:
        await session.profiles.get(identity=_UNKNOWN)


async def probe_alta(credentials: Alta, limits: Timeout = _LIMITS) -> None:
    """Send one small request to Alta. Raises as `probe_clevertap` does."""
    async with Session(alta=credentials, retry=_QUICK, timeout=limits, trust_env=True) as session:
        await session.cdp.get(user_id=_UNKNOWN)


async def try_regions(
    account_id: str, passcode: str, regions: Mapping[str, str], limits: Timeout = _LIMITS
) -> dict[str, AltaProfilesError | None]:
    """Return for each region None if it accepts the credentials, else the error.

    Args:
        account_id, passcode: the credentials.
        regions: base URLs by name.
        limits: time limits of each attempt.
    """

    async def error_of(url: str) -> AltaProfilesError | None:
        try:
            await probe_clevertap(CleverTap(account_id, passcode, base_url=url), limits)
        except AltaProfilesError as error:
            return error
        return None

    errors = await asyncio.gather(*map(error_of, regions.values()))
    return dict(zip(regions, errors, strict=True))
