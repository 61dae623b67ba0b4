"""One account on one API, as the engine uses it."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Mapping
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import anyio
from msgspec import Struct

from ..credentials import SecretFunction, Source
from ..errors import AltaProfilesError, MissingCredentials, NotReady, RateLimited, StatusError
from ..models import RateLimit
from ..redaction import Secret, mask_values
from ..wire.messages import Response
from ..wire.reading import read_rate_limit
from .limits import Cap, Turn
from .pace import Pace
from .retry import Retry
from .rotation import Rotation
from .sizing import Size
from .transport import Peer

if TYPE_CHECKING:
    from .machine.commons import Commons

__all__ = ["Load", "Service", "account_of"]

logger = logging.getLogger("altaprofiles")


class Load(Struct, frozen=True):
    """The slots of a service at a moment.

    Attributes:
        service: "CleverTap" or "Alta".
        used: requests in flight.
        limit: the most of them, at present.
        waiting: callers that wait for a slot.
        shared: equal for all services of this process that have these slots together; None for
            slots of a session of its own.
    """

    service: str
    used: int
    limit: int
    waiting: int
    shared: Path | None = None


class _PaceOptions(TypedDict):
    floor: float
    ceiling: float
    per_minute: int | None
    jitter: Callable[[], float]


class Service:
    """One account on one API: base URL, credentials, the cap on requests in flight, the pace.

    Args:
        api: "CleverTap" or "Alta".
        account: identifies the account, for work that is resumed.
        url: the base URL.
        headers: returns what is sent with every request, for a secret.
        secret: the secret, or a `SecretFunction` that returns it.
        check: as for `Rotation`.
        sizes: the number of slots of each operation. Operations with one and the same `Size` share
            its slots.
        retry: the policy that the waits of a refused service follow.
        per_minute: most requests per minute, or None.
        shared: whether all processes of this machine keep the limits together: True in the folder
            of the user, a path in that one.
        owner: the holder of the limits, by which other processes find them: an account ID, or the
            digest of an API key.

    Attributes:
        pace: the times at which a request may start.
        limits: the limits that the service states in its answers, so far, and the learned rate.
        pausing: calls that wait for their next attempt, without a slot.
        secret: the secret, or its `SecretFunction`.
        rotation: the secret, if a function returns it.
    """

    def __init__(
        self,
        *,
        api: str,
        account: str,
        url: str,
        headers: Callable[[str], Mapping[str, str]],
        secret: str,
        check: Callable[[str, str, Source], None],
        sizes: Mapping[str, Size],
        retry: Retry,
        per_minute: int | None = None,
        shared: bool | str = False,
        owner: str = "",
    ) -> None:
        self.api = api
        self.account = account
        self.url = url
        self._headers = headers
        self.secret = secret
        self.rotation: Rotation | None = None
        if isinstance(secret, SecretFunction):
            self.peer = Peer(url)
            self.rotation = Rotation(secret, check, self._take_secret)
        else:
            self.peer = Peer(url, mask_values(headers(secret)))
        self.limits = RateLimit()
        self.pausing = 0
        self._rate_since = 0.0  # of the rate that was reported last
        self._refused: RateLimited | None = None
        self._has_advised = False
        self._commons: Commons | None = None
        kinds = {id(size): kind for kind, size in reversed([*sizes.items()])}
        pace_options = _PaceOptions(
            floor=retry.base_delay,
            ceiling=retry.max_delay,
            per_minute=per_minute,
            jitter=random.random,
        )
        if shared is False:
            self.pace = Pace(**pace_options)
            caps = {id(size): Cap(size, self.pace, self.refusal) for size in sizes.values()}
        else:
            from .machine.commons import Commons, common_name
            from .machine.shared_cap import SharedCap
            from .machine.shared_pace import SharedPace

            self.pace = pace = SharedPace(api, **pace_options)
            self._commons = commons = Commons(
                None if shared is True else Path(shared),
                common_name(url, owner),
                pace,
                {kinds[id(size)]: size for size in sizes.values()},
            )
            pace.record, pace.count = commons.record, commons.elsewhere
            caps = {
                id(size): SharedCap(size, pace, self.refusal, commons, kinds[id(size)])
                for size in sizes.values()
            }
        self._caps = {operation: caps[id(size)] for operation, size in sizes.items()}
        self._all = tuple(caps.values())
        self.pace.opened.extend(cap.wake for cap in self._all)

    def _take_secret(self, secret: Secret) -> None:
        self.peer.renew(mask_values(self._headers(secret)))

    async def open(self) -> None:
        """Open the files that the service shares with other processes, if it does.

        Raises:
            ConfigurationError: they cannot be made or used; the message names the fix.
        """
        if self._commons is not None:
            await anyio.to_thread.run_sync(self._commons.open)

    def close(self) -> None:
        """Close the files, which gives up every slot. Safe to call more than once."""
        if self._commons is not None:
            self._commons.close()

    @property
    def load(self) -> Load:
        """The slots that are in use now."""
        caps = self._all
        return Load(
            self.api,
            sum(cap.in_flight for cap in caps),
            sum(cap.allowed for cap in caps),
            sum(cap.waiting for cap in caps),
            None if self._commons is None else self._commons.path,
        )

    def cap(self, operation: str) -> Cap:
        """Return the cap of an operation."""
        return self._caps[operation]

    def answered(self, response: Response) -> None:
        """Take the limits from an answer, if it states any."""
        stated = read_rate_limit(response.headers)
        if stated is None:
            return
        limit, reset_in = stated
        self.limits.limit = limit.limit
        self.limits.remaining = limit.remaining
        self.limits.reset = limit.reset
        if limit.remaining is not None and reset_in is not None:
            now = time.monotonic()
            self.pace.learn(limit.remaining, reset_in, now)
            self._give_up(now)

    def succeeded(self, cap: Cap, turn: Turn, started: float) -> None:
        """Count a success of a request that started at the clock reading `started`."""
        now = time.monotonic()
        self.pace.succeeded(turn.pace, now)
        cap.succeeded(turn, now - started)
        if self.pace.has_opened():
            # Since when is not known: this may be the first request for hours.
            logger.info("%s serves again", self.api)
        if self.pace.rate_since or self._rate_since:
            self.note_rate(now)

    def note_rate(self, now: float) -> None:
        """Show the learned rate in `limits`, and report a new one in the log."""
        rate = self.limits.rate = self.pace.rate(now)
        since = self.pace.rate_since
        if rate is not None and since != self._rate_since:
            logger.warning(
                "%s is asked %.3g times a second for now, which is the rate it took before it "
                "refused every request; the rate grows while it refuses nothing",
                self.api,
                rate,
            )
        self._rate_since = since

    def failed(self, cap: Cap, turn: Turn, error: AltaProfilesError, *, is_repeated: bool) -> bool:
        """Count an attempt that ended with `error`; return whether it closed the service.

        Args:
            cap: the cap of the request.
            turn: its slot.
            error: the error.
            is_repeated: whether the last attempt of the same call was refused as well.
        """
        now = time.monotonic()
        if isinstance(error, RateLimited):
            return self._throttled(cap, turn, error, now, is_repeated=is_repeated)
        if isinstance(error, NotReady | StatusError):
            # It was heard, and not refused for a rate.
            self.pace.succeeded(turn.pace, now)
        else:
            self.pace.failed(turn.pace)
        return False

    def abandon(self, error: Callable[[], Exception]) -> None:
        """Raise in every caller that waits for a slot, because the session is closed."""
        for cap in self._all:
            cap.abandon(error)

    def _throttled(
        self, cap: Cap, turn: Turn, error: RateLimited, now: float, *, is_repeated: bool
    ) -> bool:
        # A copy, because the traceback of the original leads to the request and its body.
        self._refused = copy(error)
        is_sized = error.limited_by != "rate"
        # Nothing has shown yet that less at once would be served.
        is_unclear = error.limited_by is None and not cap.has_succeeded
        is_paced = not is_sized or cap.allowed == 1 or is_unclear
        if is_sized and not is_repeated:
            cap.refused(turn)
        has_closed = is_paced and self.pace.refused(
            turn.pace,
            now,
            retry_after=error.retry_after,
            is_rate=error.limited_by != "concurrency" and error.reset is None,
            is_repeated=is_repeated,
        )
        self._give_up(now)
        return has_closed

    def take_sharing_advice(self) -> str:
        """Return advice for the end of the first warning of a refusal.

        Later it is empty, and so it is if the limits are shared.
        """
        if self._commons is not None or self._has_advised:
            return ""
        self._has_advised = True
        return (
            " (if several processes use this account at once, let them keep its limits together: "
            "`shared=True`, or ALTAPROFILES_SHARED=1)"
        )

    def _give_up(self, now: float) -> None:
        for cap in self._all:
            cap.give_up(now)

    @property
    def is_refusing(self) -> bool:
        """True while the service refuses every request, or has said that it would."""
        return self.pace.closed_since is not None or self._named_wait is not None

    @property
    def _named_wait(self) -> float | None:
        until = self.pace.named_until
        wait = None if until is None else until - time.monotonic()
        return wait if wait is not None and wait > 0 else None

    def refusal(self) -> RateLimited:
        """Return the error for a call that is not sent, because the service refuses all of them."""
        last, wait = self._refused, self._named_wait
        is_used_up = self.limits.remaining == 0 and wait is not None
        if (asks_at := self.pace.asks_at) is not None:
            wait = max(wait or 0.0, asks_at - time.monotonic())
        return RateLimited(
            api=self.api,
            status=429 if last is None else last.status,
            code=None if last is None else last.code,
            message="" if last is None else last.message,
            limited_by="rate" if last is None else last.limited_by,
            retry_after=wait,
            reset=self.limits.reset if is_used_up else None,
            sent=False,
        )


def account_of(service: Callable[[], Service]) -> str:
    """Return the account of a service as text, for a session that may lack its credentials."""
    try:
        return repr(service().account)
    except MissingCredentials:
        return "no credentials"
