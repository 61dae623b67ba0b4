"""Faults, and a plan that decides from the seed when they occur. The server carries them out."""

from collections import OrderedDict
from collections.abc import Mapping
from enum import StrEnum
from hashlib import blake2b

import msgspec

from .dice import Dice
from .reply import Reply

__all__ = [
    "HARMLESS",
    "OF_CONTENT",
    "PROXY",
    "REFUSALS",
    "Fault",
    "InvalidFaults",
    "Plan",
    "check_rates",
    "garble",
    "possible_at",
    "proxy_reply",
    "with_retry_after",
]

STREAK = 3
"""Most failures in a row for the same request, unless a rate is 1. The next attempt succeeds."""

MEMORY = 32_768
"""Number of requests whose attempts are remembered. The least recently used is forgotten first."""


class Fault(StrEnum):
    """Faults that the emulator can inject. The values are the names in `faults={...}`.

    The guide "Testing with the emulator" (`altaprofiles guide testing`) has a table of what each
    one sends, to which operations, and the error that it becomes.
    """

    NOT_READY = "not_ready"
    """CleverTap pages: code 2, "Request still in progress", with HTTP 200 or 202."""
    OPENING_NOT_READY = "opening_not_ready"
    """The same for the opening of a chain."""
    COUNTING_NOT_READY = "counting_not_ready"
    """CleverTap counts: status "partial" and a `req_id`, to start with and at each poll."""
    THROTTLED = "throttled"
    """HTTP 200 with code 1 (CleverTap) or 40008 (Alta)."""
    TOO_MANY = "too_many"
    """HTTP 429, sometimes with `Retry-After: 0`."""
    SERVER_ERROR = "server_error"
    """HTTP 500 or 503 (CleverTap), HTTP 500 with code 50000 (Alta)."""
    HTML = "html"
    """A proxy's HTML page with HTTP 502, 504 or even 200."""
    CDN_TIMEOUT = "cdn_timeout"
    """CleverTap pages: an HTML page with HTTP 504, as of the CDN in front of a slow service."""
    EMPTY = "empty"
    """An empty body with HTTP 200 or 504."""
    DISCONNECT = "disconnect"
    """The connection closes before the first byte of the answer."""
    RESET = "reset"
    """The connection is reset (RST) in the middle of the body."""
    TRUNCATED = "truncated"
    """A body without Content-Length that ends in its middle, when the connection closes."""
    GARBLED = "garbled"
    """HTTP 200 with the right Content-Length and bytes that are not JSON, or only half of it."""
    SLOW = "slow"
    """The right answer, sent in pieces over 0.2 seconds. Not a failure."""
    GZIP = "gzip"
    """The right answer, compressed, if the client accepts gzip. Not a failure."""
    EMPTY_PAGE = "empty_page"
    """CleverTap pages: no records, and a cursor to the page that has them. Not a failure."""
    OTHER_CURSOR = "other_cursor"
    """CleverTap pages: the next cursor as `cursor`, not as `next_cursor`. Not a failure."""
    EMPTY_CHAIN = "empty_chain"
    """CleverTap chains: the first page is the last, with success and without records."""
    CUT_SHORT = "cut_short"
    """CleverTap pages: the last page of its chain, with success, though others should follow."""
    EMPTY_END = "empty_end"
    """CleverTap chains: a last page with `"records": []` and no cursor. Not a failure."""
    ODD_RECORD = "odd_record"
    """CleverTap records: the share of people whose records have values of types that nobody
    expects, such as a number for `name` and text for `profileData`. Not a failure."""
    TEXT_CODES = "text_codes"
    """The code of a failure as text, such as "2". Changes failures, and causes none."""
    TEXT_ERRORS = "text_errors"
    """CleverTap: `error` as text that holds a JSON list, where it would be a list. Only the answer
    to an unknown event has one. Changes failures, and causes none."""


_PROXY_PAGE = b"""<html>
<head><title>502 Bad Gateway</title></head>
<body><center><h1>502 Bad Gateway</h1></center><hr><center>nginx</center></body>
</html>
"""

_CDN_PAGE = b"""<!DOCTYPE html>
<html><head><title>504 Gateway Timeout</title></head>
<body><h1>504 Gateway Timeout</h1><p>The origin did not answer in time.</p></body></html>
"""

OF_CONTENT = frozenset(
    {
        Fault.EMPTY_PAGE,
        Fault.OTHER_CURSOR,
        Fault.EMPTY_CHAIN,
        Fault.CUT_SHORT,
        Fault.EMPTY_END,
        Fault.ODD_RECORD,
        Fault.TEXT_CODES,
        Fault.TEXT_ERRORS,
    }
)
"""Faults that belong to the content of an answer, and meet every request for it."""

HARMLESS = frozenset({Fault.SLOW, Fault.GZIP}) | OF_CONTENT
"""Faults with a right answer, or one that looks right. They do not count towards `STREAK`."""

PROXY = frozenset({Fault.HTML, Fault.CDN_TIMEOUT, Fault.EMPTY})
"""Failures of a proxy in front of the services."""

REFUSALS = frozenset(
    {
        Fault.NOT_READY,
        Fault.OPENING_NOT_READY,
        Fault.THROTTLED,
        Fault.TOO_MANY,
        Fault.SERVER_ERROR,
    }
)
"""Failures of the services."""

_ONLY_AT = {
    Fault.NOT_READY: "page",
    Fault.CDN_TIMEOUT: "page",
    Fault.OPENING_NOT_READY: "open_chain",
    Fault.COUNTING_NOT_READY: "count",
}

_FAILURES = tuple(fault for fault in Fault if fault not in HARMLESS)

OPENINGS = 3
"""Of each so many openings of the same query, the last has no `EMPTY_CHAIN` and no `CUT_SHORT`."""


class InvalidFaults(ValueError):
    """Faults that the emulator does not know, or their rates."""


def check_rates(
    faults: Mapping[str, float] | Mapping[Fault, float] | None,
) -> dict[Fault, float]:
    """Return `faults` as rates by fault.

    Raises:
        ValueError: a fault is unknown, or a rate is not a number from 0 to 1.
    """
    if faults is not None and not isinstance(faults, Mapping):
        raise InvalidFaults('faults: use rates by name, such as {"not_ready": 0.2}')
    rates: dict[Fault, float] = {}
    for name, rate in (faults or {}).items():
        try:
            fault = Fault(name)
        except ValueError:
            known = ", ".join(Fault)
            raise InvalidFaults(f"faults: {name!r} is not a fault; use one of {known}") from None
        is_number = isinstance(rate, int | float) and not isinstance(rate, bool)
        if not is_number or not 0 <= rate <= 1:
            raise InvalidFaults(f"faults: {name!r} has rate {rate!r}; use a number from 0 to 1")
        rates[fault] = rate
    return rates


def possible_at(operation: str, *, gzip: bool, is_replay: bool) -> frozenset[Fault]:
    """Return the faults that can occur for a request.

    Args:
        operation: the name it is counted by.
        gzip: True if the client accepts gzip.
        is_replay: True if the answers are those of a replay.
    """
    impossible = {fault for fault, place in _ONLY_AT.items() if place != operation}
    if not gzip:
        impossible.add(Fault.GZIP)
    if is_replay:
        # Its polls would have a `req_id` that the replay does not know.
        impossible.add(Fault.COUNTING_NOT_READY)
    return frozenset(Fault) - OF_CONTENT - impossible


class Plan:
    """Decides the faults of each attempt at each request.

    They are a pure function of seed, fault, request and attempt number, so that they do not depend
    on the order in which different requests arrive.
    """

    def __init__(self, dice: Dice) -> None:
        self._dice = dice
        self._attempts: OrderedDict[bytes, tuple[int, int]] = OrderedDict()
        self.rates: dict[Fault, float] = {}

    def meets(self, fault: Fault, key: object, attempt: int = 0) -> bool:
        """Return True if this attempt meets this fault."""
        rate = self.rates.get(fault, 0.0)
        return rate > 0 and self._dice.share("fault", fault.value, key, attempt) < rate

    def spoils(self, fault: Fault, key: object, opening: int) -> bool:
        """Return True if a chain, the query's `opening`th from 1, meets a fault that costs people.

        Unless the rate is 1, the last of `OPENINGS` in a row does not.
        """
        is_spared = opening % OPENINGS == 0 and self.rates.get(fault, 0.0) < 1
        return not is_spared and self.meets(fault, key)

    def next(self, request: bytes, possible: frozenset[Fault]) -> frozenset[Fault]:
        """Return the faults of the next attempt at `request`: one failure, or harmless ones.

        Args:
            request: the request as it was sent.
            possible: the faults to choose from.
        """
        if not self.rates:
            return frozenset()
        key = blake2b(request, digest_size=16).digest()
        attempt, streak = self._attempts.pop(key, (0, 0))
        failure = self._failure(key, attempt, streak, possible)
        self._attempts[key] = (attempt + 1, 0 if failure is None else streak + 1)
        if len(self._attempts) > MEMORY:
            self._attempts.popitem(last=False)
        if failure is not None:
            return frozenset({failure})
        return frozenset(fault for fault in HARMLESS if self.meets(fault, key, attempt)) & possible

    def _failure(
        self, key: bytes, attempt: int, streak: int, possible: frozenset[Fault]
    ) -> Fault | None:
        for fault in _FAILURES:
            # A rate of 1 is an outage: every attempt fails until it ends.
            spent = streak >= STREAK and self.rates.get(fault, 0.0) < 1
            if fault in possible and not spent and self.meets(fault, key, attempt):
                return fault
        return None


def with_retry_after(dice: Dice, reply: Reply, key: str) -> Reply:
    """Return a refusal, to some requests with `Retry-After: 0`."""
    if dice.share("retry after", key) < 0.5:
        return reply
    return msgspec.structs.replace(reply, headers={"Retry-After": "0"})


def proxy_reply(dice: Dice, fault: Fault, key: str) -> Reply:
    """Return the answer of a proxy in front of a service: HTML, or an empty body."""
    if fault is Fault.CDN_TIMEOUT:
        return Reply(body=_CDN_PAGE, status=504, content_type="text/html")
    if fault is Fault.HTML:
        status = (502, 504, 200)[dice.below(3, "html", key)]
        return Reply(body=_PROXY_PAGE, status=status, content_type="text/html")
    return Reply(body=b"", status=(200, 504)[dice.below(2, "empty", key)])


def garble(dice: Dice, reply: Reply, key: str) -> Reply:
    """Return an answer with HTTP 200 that is not valid JSON."""
    if dice.share("garble", key) < 0.5:
        return Reply(body=reply.body[: len(reply.body) // 2])
    return Reply(body=b"\x00\xff\xfe{]" + reply.body[:100][::-1])
