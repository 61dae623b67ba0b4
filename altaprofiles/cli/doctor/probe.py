"""Sends one small request to a service, to see whether it accepts the credentials."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from ...base.jsontext import decode_loosely
from ...credentials import ENDPOINTS, Alta, CleverTap, SecretSource
from ...errors import (
    AltaProfilesError,
    BadRequest,
    DecodeError,
    Forbidden,
    NotReady,
    RateLimited,
    StatusError,
    Unauthorized,
)
from ...http.retry import Retry
from ...http.transport import Timeout
from ...models import Attempt, RateLimit
from ...session import Session
from ...wire import alta, clevertap
from ...wire.messages import Response

__all__ = [
    "QUICK",
    "Limits",
    "Probe",
    "may_be_elsewhere",
    "probe_alta",
    "probe_clevertap",
    "try_platforms",
    "try_regions",
]

QUICK = Retry(attempts=3, max_delay=2.0, ready_timeout=5.0, deadline=30.0)
"""Enough to get past a hiccup while a person waits."""


class Limits(NamedTuple):
    """The limits of a probe.

    Attributes:
        timeout: those of each attempt.
        retry: those of retries.
        on_event: called with each attempt, or None.
    """

    timeout: Timeout = Timeout()
    retry: Retry = QUICK
    on_event: Callable[[Attempt], object] | None = None


_LIMITS = Limits()

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


class _ProbeSession(Session):
    """A session that can also verify its API key, and doubts that a person is unknown.

    Args:
        limits: its limits.
        clevertap, alta: the credentials to try.
    """

    def __init__(
        self, limits: Limits, *, clevertap: CleverTap | None = None, alta: Alta | None = None
    ) -> None:
        self._attempts: list[Attempt] = []
        super().__init__(
            clevertap=clevertap,
            alta=alta,
            retry=limits.retry,
            timeout=limits.timeout,
            trust_env=True,
            on_event=[self._attempts.append, limits.on_event or (lambda _: None)],
        )

    @property
    def seconds(self) -> float | None:
        """Duration of the last successful attempt, or None if there was none."""
        succeeded = (one.seconds for one in reversed(self._attempts) if one.error is None)
        return next(succeeded, None)

    async def look_up_nobody(self) -> None:
        """Return if the service itself has no such person; raise as `_read_nobody` does."""
        request = clevertap.get_profile("identity", _UNKNOWN)
        await self._engine.call(self._clevertap_service(), request, _read_nobody)

    async def verify(self) -> None:
        """Return if the platform accepts the key; raise as `wire.alta.read_verification` does."""
        await self._engine.call(self._alta_service(), alta.verify_key(), alta.read_verification)


def _read_nobody(response: Response) -> None:
    """Return if an answer about a person accepts the credentials.

    Any web server answers 404 to a path that it does not know, so an error status counts only with
    the `status` that each of CleverTap's own answers has.

    Raises:
        StatusError: another host answered, or the service refuses the request.
        DecodeError: the body is not an answer of this API.
    """
    if clevertap.read_profile(response) is not None or 200 <= response.status < 300:
        return
    body = decode_loosely(response.body)
    if not isinstance(body, dict) or not isinstance(body.get("status"), str):
        raise StatusError(api="CleverTap", status=response.status)


@contextmanager
def _hinting() -> Iterator[None]:
    """Add a hint to the error of a host that does not know the call."""
    try:
        yield
    except StatusError as error:
        if type(error) is StatusError and error.status in (400, 404, 405):
            error.advise("The host knows no such call: check region, endpoint and base URL")
        raise


async def probe_clevertap(credentials: CleverTap, limits: Limits = _LIMITS) -> Probe:
    """Ask CleverTap for the count of one day, within `limits`.

    If the service itself refuses to count, one person is looked up instead, because an export needs
    no count.

    Raises:
        Unauthorized, Forbidden: the credentials are refused.
        AltaProfilesError: no answer that tells.
    """
    finding = None
    async with _ProbeSession(limits, clevertap=credentials) as session:
        # A whole day, whatever the time zone of the account.
        day = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=2)
        with _hinting():
            try:
                people = await session.profiles.count(_EVENT, start=day, end=day)
                finding = f"{people:,} people did {_EVENT} on {day}"
            except NotReady:
                # It has begun to count, so it accepts the credentials.
                pass
            except (BadRequest, Forbidden) as error:
                # Without a code, a firewall may have refused.
                if isinstance(error, Forbidden) and error.code is None:
                    raise
                await session.look_up_nobody()
        return Probe(session.seconds, session.stats.limits["CleverTap"], finding)


async def probe_alta(credentials: Alta, limits: Limits = _LIMITS) -> Probe:
    """Let Alta verify the key, and look up an unknown user, within `limits`.

    The key of an agent that was deleted, or whose API is switched off, is still a valid key. With a
    valid key and no request left, nobody is looked up. Raises as `probe_clevertap` does.
    """
    async with _ProbeSession(limits, alta=credentials) as session:
        stated = session.stats.limits["Alta"]
        can_verify = credentials.url != ENDPOINTS["altatech"]
        is_verified = can_verify and await _is_verified(session)
        if not is_verified or stated.remaining != 0:
            with _hinting():
                await session.cdp.get(user_id=_UNKNOWN)
        return Probe(session.seconds, stated)


async def _is_verified(session: _ProbeSession) -> bool:
    """Return True if the platform accepts the key, and False if it does not say.

    Only GPTBots documents this call. Elsewhere any refusal may mean that there is no such call,
    unless it has a code of the API's own, or is the body of a success.
    """
    try:
        await session.verify()
    except (StatusError, DecodeError) as error:
        if isinstance(error, RateLimited):
            raise
        if isinstance(error, Unauthorized) and (error.code is not None or error.status < 300):
            raise
        return False
    return True


def may_be_elsewhere(error: AltaProfilesError) -> bool:
    """Return whether another region or platform may accept the credentials.

    Alta refuses a key of another platform with 401 only.
    """
    return isinstance(error, Unauthorized) or (
        isinstance(error, Forbidden) and error.api == "CleverTap"
    )


async def try_regions(
    account_id: str, passcode: SecretSource, regions: Mapping[str, str], limits: Limits = _LIMITS
) -> dict[str, AltaProfilesError | None]:
    """Return for each region None if it accepts the credentials, else the error.

    Args:
        account_id, passcode: the credentials.
        regions: base URLs by name.
        limits: the limits of each probe.
    """
    return await _errors(
        lambda url: probe_clevertap(CleverTap(account_id, passcode, base_url=url), limits), regions
    )


async def try_platforms(
    token: SecretSource, platforms: Mapping[str, str], limits: Limits = _LIMITS
) -> dict[str, AltaProfilesError | None]:
    """Return for each platform of Alta None if it accepts the key, else the error.

    Args:
        token: the key.
        platforms: base URLs by name.
        limits: the limits of each probe.
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
