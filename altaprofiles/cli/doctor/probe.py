"""Sends one small request to a service, to see whether it accepts the credentials."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from ...credentials import ENDPOINTS, Alta, CleverTap
from ...errors import (
    AltaProfilesError,
    DecodeError,
    NotReady,
    RateLimited,
    ServerError,
    StatusError,
    Unauthorized,
)
from ...http.retry import Retry
from ...http.transport import Timeout
from ...models import Attempt, RateLimit
from ...session import Session
from ...wire import alta

__all__ = ["Probe", "probe_alta", "probe_clevertap", "try_platforms", "try_regions"]

_QUICK = Retry(attempts=3, max_delay=2.0, ready_timeout=5.0, deadline=30.0)
"""Enough to get past a hiccup while a person waits."""

_LIMITS = Timeout()

_EVENT = "App Launched"
"""An event of every account ("Get User Profiles", Body Parameters)."""

_UNKNOWN = "altaprofiles-doctor"
"""A key that no customer has."""


@dataclass(frozen=True, slots=True)
class Probe:
    """An accepted request.

    Attributes:
        seconds: the duration of its last successful attempt, or None if it had none.
        stated: the limit that the answer states.
        finding: a fact from the answer, in words, or None.
    """

    seconds: float | None
    stated: RateLimit
    finding: str | None = None


async def probe_clevertap(credentials: CleverTap, limits: Timeout = _LIMITS) -> Probe:
    """Ask CleverTap for the count of one day, within `limits` for each attempt.

    If the service refuses to count, one person is looked up instead, because an export needs no
    count.

    Raises:
        Unauthorized, Forbidden: the credentials are refused.
        AltaProfilesError: no answer that tells.
    """
    attempts: list[Attempt] = []
    finding = None
    async with Session(
        clevertap=credentials,
        retry=_QUICK,
        timeout=limits,
        trust_env=True,
        on_event=attempts.append,
    ) as session:
        # A whole day, whatever the time zone of the account.
        day = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=2)
        try:
            people = await session.profiles.count(_EVENT, start=day, end=day)
            finding = f"{people:,} people did {_EVENT} on {day}"
        except NotReady:
            # It has begun to count, so it accepts the credentials.
            pass
        except (StatusError, DecodeError) as error:
            if isinstance(error, Unauthorized | RateLimited | ServerError):
                raise
            await session.profiles.get(identity=_UNKNOWN)
        return Probe(_seconds(attempts), session.stats.limits["CleverTap"], finding)


class _KeySession(Session):
    """A session that can also verify its API key."""

    async def verify(self) -> None:
        """Return if the platform accepts the key; raise as `wire.alta.read_verification` does."""
        await self._engine.call(self._alta_service(), alta.verify_key(), alta.read_verification)


async def probe_alta(credentials: Alta, limits: Timeout = _LIMITS) -> Probe:
    """Let Alta verify the key, and look up an unknown user, within `limits` for each attempt.

    The key of an agent that was deleted, or whose API is switched off, is still a valid key. With a
    valid key and no request left, nobody is looked up. Raises as `probe_clevertap` does.
    """
    attempts: list[Attempt] = []
    async with _KeySession(
        alta=credentials,
        retry=_QUICK,
        timeout=limits,
        trust_env=True,
        on_event=attempts.append,
    ) as session:
        stated = session.stats.limits["Alta"]
        can_verify = credentials.url != ENDPOINTS["altatech"]
        is_verified = can_verify and await _is_verified(session)
        if not is_verified or stated.remaining != 0:
            await session.cdp.get(user_id=_UNKNOWN)
        return Probe(_seconds(attempts), stated)


async def _is_verified(session: _KeySession) -> bool:
    """Return True if the platform accepts the key, and False if it does not say.

    Only GPTBots documents this call. Elsewhere any refusal may mean that there is no such call,
    unless it has a code of the API's own.
    """
    try:
        await session.verify()
    except (StatusError, DecodeError) as error:
        if isinstance(error, RateLimited):
            raise
        if isinstance(error, Unauthorized) and error.code is not None:
            raise
        return False
    return True


def _seconds(attempts: list[Attempt]) -> float | None:
    return next((one.seconds for one in reversed(attempts) if one.error is None), None)


async def try_regions(
    account_id: str, passcode: str, regions: Mapping[str, str], limits: Timeout = _LIMITS
) -> dict[str, AltaProfilesError | None]:
    """Return for each region None if it accepts the credentials, else the error.

    Args:
        account_id, passcode: the credentials.
        regions: base URLs by name.
        limits: time limits of each attempt.
    """
    return await _errors(
        lambda url: probe_clevertap(CleverTap(account_id, passcode, base_url=url), limits), regions
    )


async def try_platforms(
    token: str, platforms: Mapping[str, str], limits: Timeout = _LIMITS
) -> dict[str, AltaProfilesError | None]:
    """Return for each platform of Alta None if it accepts the key, else the error.

    Args:
        token: the key.
        platforms: base URLs by name.
        limits: time limits of each attempt.
    """
    return await _errors(lambda url: probe_alta(Alta(token, base_url=url), limits), platforms)


async def _errors(
    probe: Callable[[str], Awaitable[object]], urls: Mapping[str, str]
) -> dict[str, AltaProfilesError | None]:
    async def error_of(url: str) -> AltaProfilesError | None:
        try:
            await probe(url)
        except AltaProfilesError as error:
            return error
        return None

    errors = await asyncio.gather(*map(error_of, urls.values()))
    return dict(zip(urls, errors, strict=True))
