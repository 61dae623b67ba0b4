"""Answers of Alta's Query User CDP to single requests. No I/O.

Sources:
    [cdp] "Query User CDP"
    [v1.5] "Overview" of the API reference, V1.5 of March 2026; its pages of calls contradict it
    [seen] public clients
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from .bindings import Bindings
from .faults import Fault, with_retry_after
from .reply import Reply, as_json, parameters
from .settings import ALTA_ERRORS

if TYPE_CHECKING:
    from .dice import Dice
    from .faults import Plan
    from .people import Population
    from .settings import Settings

__all__ = ["AltaService"]

_WORDS = {
    400: "INVALID_PARAMETER",
    401: "UNAUTHORIZED",
    403: "FORBIDDEN",
    429: "RATE_LIMIT_EXCEEDED",
    500: "INTERNAL_ERROR",
}
"""Codes that are words, by HTTP status, as the errors of [v1.5] may have them."""


class AltaService:
    """Answers of one agent. The seed and the request decide the form of an answer."""

    def __init__(self, population: Population, dice: Dice, plan: Plan, settings: Settings) -> None:
        self.bindings = Bindings(population)
        self._dice = dice
        self._plan = plan
        self._settings = settings
        self._agent = dice.token(12, "agent").hex()

    def unauthorized(self, target: str) -> Reply:
        """Answer a request with a wrong token: HTTP 401, or HTTP 200 with the error's code."""
        return self._either(40127, target)

    def injected(self, fault: Fault, target: str) -> Reply:
        """Return the answer of a service that has this fault."""
        if fault is Fault.SERVER_ERROR:
            return self._fail(50000, target, status=500)
        status = 200 if fault is Fault.THROTTLED else 429
        return with_retry_after(self._dice, self._fail(40008, target, status=status), target)

    def too_many(self, target: str) -> Reply:
        """Refuse a request because others are in flight. No page documents such an answer."""
        if self._settings.alta_envelope == "v1.5":
            error = {"code": "TOO_MANY_REQUESTS", "message": "Too many requests", "status": 429}
            return as_json({"error": error}, status=429)
        return as_json({"message": "Too many concurrent requests"}, status=429)

    def rate_limited(self, target: str) -> Reply:
        """Refuse a request beyond the plan: HTTP 429, or HTTP 200 with the error's code."""
        return self._either(40008, target)

    def cdp(self, target: str) -> Reply:
        """Answer `GET /v1/user/get-user-cdp` ([cdp])."""
        if self._settings.alta_error is not None:
            return self._either(self._settings.alta_error, target)
        query = parameters(target)
        if query is None:
            return self._fail(40000, target, status=400)
        user_id = query.get("user_id", [""])[0]
        anonymous_id = query.get("anonymous_id", [""])[0]
        if user_id and anonymous_id:
            data = self.bindings.by_pair(user_id, anonymous_id)
        elif user_id:
            data = self.bindings.by_user(user_id)
        elif anonymous_id:
            data = self.bindings.by_anonymous(anonymous_id)
        else:
            return self._fail(40000, target, status=400)
        if data or self._settings.alta_envelope == "v1.5":
            return self._succeed(data, target)
        return self._not_found(user_id, anonymous_id)

    def verify(self, target: str) -> Reply:
        """Answer `GET /v1/api-key/verify` with the entity that the key is for."""
        return self._succeed({"type": "agent", "id": self._agent}, target)

    def _succeed(self, data: Any, target: str) -> Reply:
        if self._settings.alta_envelope == "v1.5":
            return as_json({"data": data, "meta": {"version": "1.5"}, "links": {"self": target}})
        return _ok(data=data)

    def _either(self, code: int, target: str) -> Reply:
        """Return an error with its own HTTP status, as often as with HTTP 200 [seen]."""
        is_honest = self._dice.share("token", code, target) < 0.5
        return self._fail(code, target, status=_status_of(code) if is_honest else 200)

    def _fail(self, code: int, target: str, *, status: int) -> Reply:
        """Return an error. `code` is the code in the body, not an HTTP status."""
        message = ALTA_ERRORS[code]
        if self._settings.alta_envelope == "v1.5":
            has_word = self._dice.share("word", code, target) < 0.5
            own = _status_of(code)
            text = _WORDS[own] if has_word else str(code)
            error = {"code": text, "message": message, "status": own}
            return as_json({"error": error}, status=status)
        if self._plan.meets(Fault.TEXT_CODES, (code, target)):
            reply = as_json({"code": str(code), "message": message}, status=status)
            return msgspec.structs.replace(reply, faults=(Fault.TEXT_CODES.value,))
        return as_json({"code": code, "message": message}, status=status)

    def _not_found(self, user_id: str, anonymous_id: str) -> Reply:
        form = self._dice.below(4, "nothing", user_id, anonymous_id)
        if form == 0:
            return _ok(data={})
        if form == 1:
            return _ok(data=None)
        if form == 2:
            return _ok()
        if user_id:
            return as_json({"code": 503, "message": "User not found"})
        return as_json({"code": 504, "message": "Anonymous id not found"})


def _status_of(code: int) -> int:
    """Return the HTTP status that goes with a code: its first three digits, where they are one."""
    if code == 40008:
        return 429
    family = int(str(code)[:3])
    return family if family in _WORDS else 403


def _ok(**members: Any) -> Reply:
    return as_json({"code": 0, "message": "OK", **members})
