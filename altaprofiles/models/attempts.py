"""Reports of requests: a single attempt, and counters over a session. Pure."""

from __future__ import annotations

from msgspec import Struct, field

from ..base.wording import numbered, sized
from ..errors import AltaProfilesError

__all__ = ["Attempt", "RateLimit", "Stats"]


class Attempt(Struct, frozen=True):
    """One HTTP request and its outcome, as passed to `Session(on_event=…)`.

    A call that ends while it waits to send a request is passed as well, with `sent` False. `error`
    is a `RateLimited` if the service refuses every request at present, and a `RequestTimeout` if
    the deadline of the call has ended.

    Attributes:
        api: "CleverTap" or "Alta".
        operation: "open_chain", "get_page", "get_profile", "count" or "get_user_cdp"; in
            `altaprofiles doctor` also "verify_key".
        number: 1 for the first attempt of a call.
        seconds: time from sending the request until the answer was read or the attempt failed.
            Waiting for a slot is not included.
        status: the HTTP status, or None if no answer arrived.
        bytes: size of the body, decompressed.
        error: the error of this attempt, or None if it succeeded.
        delay: seconds until the next attempt, or None if there is none.
        call: a number that all attempts of one call have, and no other call of the session.
        method: "GET" or "POST".
        host, port: the service's address.
        waited: seconds for which the attempt waited for a slot, and for the pace.
        bulk: whether the call belongs to bulk work, which waits behind single calls.
        url: the address of the request, without its query.
        sent: whether the attempt had its turn. True as well if it got no connection.
    """

    api: str
    operation: str
    number: int
    seconds: float
    status: int | None
    bytes: int
    error: AltaProfilesError | None
    delay: float | None
    call: int
    method: str
    host: str
    port: int
    waited: float
    bulk: bool
    url: str
    sent: bool = True


class RateLimit(Struct):
    """The limit of a service: stated in its last answer that states any, or learned.

    Alta documents the headers `X-RateLimit-Limit`, `X-RateLimit-Remaining` and `X-RateLimit-Reset`
    (its overview of rate limits, V1.5), CleverTap none
    (https://developer.clevertap.com/docs/api-request-limit). An attribute is None until an answer
    states it, and None again if a later answer states another one without it. `rate` is stated by
    no answer.

    Attributes:
        limit: most requests in one period, such as 100 a day. No header names the period's length.
        remaining: requests left until `reset`, 0 or more. With 0, this library sends nothing before
            `reset`.
        reset: Unix time, in seconds, at which the period ends and `limit` requests are allowed
            again. It is measured on the service's clock.
        rate: requests per second that are sent at most, after the service has refused every request
            for a while; None without such a limit. It is learned from the requests that the service
            took before. It grows while nothing is refused, until it is None again: within half a
            minute after a single outage. A log line at level WARNING reports a new one.

    >>> stated = session.stats.limits["Alta"]
    >>> if stated.remaining == 0:
    ...     print("used up until", stated.reset)
    """

    limit: int | None = None
    remaining: int | None = None
    reset: float | None = None
    rate: float | None = None


class Stats(Struct):
    """Request counters of one session, from its start. As text they are one line for a person.

    Attributes:
        requests: HTTP requests, retries included, and those that got no connection.
        retries: attempts after the first of a call, polls of unready pages included.
        throttles: answers with HTTP 429 or a code for throttling.
        not_ready: answers that a page or count is still in progress.
        unsent: calls that ended while they waited to send a request: the service refused every one
            for longer than they could wait, or their deadline ended before.
        bytes: total size of all bodies, decompressed.
        limits: a `RateLimit` for each service that the session has credentials for, by "CleverTap"
            and "Alta". It is empty of values until an answer states a limit, or a rate is learned.
    """

    requests: int = 0
    retries: int = 0
    throttles: int = 0
    not_ready: int = 0
    unsent: int = 0
    bytes: int = 0
    limits: dict[str, RateLimit] = field(default_factory=dict)

    def __str__(self) -> str:
        parts = [
            numbered(self.requests, "request"),
            numbered(self.retries, "retry"),
            *([f"{self.throttles:,} throttled"] if self.throttles else []),
            *([f"{self.not_ready:,} not ready"] if self.not_ready else []),
            *([f"{numbered(self.unsent, 'call')} not sent"] if self.unsent else []),
            sized(self.bytes),
        ]
        return ", ".join(parts)
