"""One small request to a service, to see whether it accepts the credentials."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from ...credentials import CleverTap
from ...errors import AltaProfilesError
from ...http.retry import Retry
from ...session import Session

__all__ = ["QUICK", "ask_alta", "ask_clevertap", "try_regions"]

QUICK = Retry(attempts=3, max_delay=2.0, deadline=30.0)
"""Enough to get past a hiccup while somebody waits."""

_NOBODY = "altaprofiles-doctor"


async def ask_clevertap(session: Session) -> None:
    """Send one small request to CleverTap.

    Raises:
        Unauthorized, Forbidden: the credentials are refused.
        AltaProfilesError: it could not be found out.
    """
    await session.profiles.get(identity=_NOBODY)


async def ask_alta(session: Session) -> None:
    """Send one small request to Alta. As `ask_clevertap`."""
    await session.cdp.get(user_id=_NOBODY)


async def try_regions(
    account_id: str, passcode: str, regions: Mapping[str, str]
) -> dict[str, AltaProfilesError | None]:
    """Return for each region None if it accepts the credentials, else what it answered.

    Args:
        account_id, passcode: the credentials.
        regions: name to base URL.
    """

    async def one(url: str) -> AltaProfilesError | None:
        account = CleverTap(account_id, passcode, base_url=url)
        try:
            async with Session(clevertap=account, retry=QUICK, trust_env=True) as session:
                await ask_clevertap(session)
        except AltaProfilesError as error:
            return error
        return None

    answers = await asyncio.gather(*map(one, regions.values()))
    return dict(zip(regions, answers, strict=True))
