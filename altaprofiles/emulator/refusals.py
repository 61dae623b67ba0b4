"""Failures of CleverTap's APIs, as they are written in answers. No I/O.

Sources:
    [limits] limits of the APIs, https://developer.clevertap.com/docs/api-request-limit
    [seen] public clients and captures
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from .faults import Fault, with_retry_after
from .reply import Reply, as_json

if TYPE_CHECKING:
    from .dice import Dice
    from .faults import Plan
    from .queries import Invalid

__all__ = ["Refusals"]


class Refusals:
    """Failures of one account. `key` tells a request from others, and decides their variants."""

    def __init__(self, dice: Dice, plan: Plan) -> None:
        self._dice = dice
        self._plan = plan

    def fail(self, code: int | str, error: str | list[str], key: str, *, status: int) -> Reply:
        """Return a failure. Its code is a number, unless `Fault.TEXT_CODES` makes it text."""
        faults = []
        if isinstance(code, int) and self._plan.meets(Fault.TEXT_CODES, (code, key)):
            code = str(code)
            faults.append(Fault.TEXT_CODES.value)
        if isinstance(error, list) and self._plan.meets(Fault.TEXT_ERRORS, (code, key)):
            error = msgspec.json.encode(error).decode()
            faults.append(Fault.TEXT_ERRORS.value)
        reply = as_json({"status": "fail", "error": error, "code": code}, status=status)
        return msgspec.structs.replace(reply, faults=tuple(faults))

    def either(self, code: int | str, error: str | list[str], key: str) -> Reply:
        """Return a failure with HTTP 200, as often as with HTTP 400 [seen]."""
        status = 200 if self._dice.share("status", code, key) < 0.5 else 400
        return self.fail(code, error, key, status=status)

    def refuse(self, error: str, key: str) -> Reply:
        """Answer a malformed request."""
        return self.fail(400, error, key, status=400)

    def invalid(self, fault: Invalid, key: str) -> Reply:
        """Answer a query that is refused."""
        if fault.status is None:
            return self.either(fault.code, fault.error, key)
        return self.fail(fault.code, fault.error, key, status=fault.status)

    def unauthorized(self, target: str) -> Reply:
        """Answer a request with wrong credentials."""
        return self.fail(401, "Invalid Credentials", target, status=401)

    def too_many(self, target: str) -> Reply:
        """Refuse a request because others are in flight ([limits]). There is no `Retry-After`."""
        return self.fail(429, "Too many concurrent requests", target, status=429)

    def rate_limited(self, target: str) -> Reply:
        """Refuse a request because too many came in a minute, with HTTP 200 or 429 [seen]."""
        status = (200, 429)[self._dice.below(2, "throttled", target)]
        return self.fail(1, "Request throttled", target, status=status)

    def not_ready(self, target: str) -> Reply:
        """Announce an answer as not ready [seen]."""
        status = (200, 202)[self._dice.below(2, "not ready", target)]
        return self.fail(2, "Request still in progress, please retry later", target, status=status)

    def injected(self, fault: Fault, target: str) -> Reply:
        """Return the answer of a service that has this fault."""
        if fault in (Fault.NOT_READY, Fault.OPENING_NOT_READY):
            return self.not_ready(target)
        if fault is Fault.THROTTLED:
            reply = self.fail(1, "Request throttled", target, status=200)
        elif fault is Fault.TOO_MANY:
            reply = self.too_many(target)
        elif self._dice.share("server error", target) < 0.5:
            return self.fail(500, "An unknown error occurred", target, status=500)
        else:
            reply = self.fail(503, "Service Unavailable", target, status=503)
        return with_retry_after(self._dice, reply, target)
