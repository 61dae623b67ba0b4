"""Answers of Alta's Query User CDP to single requests. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .bindings import Bindings
from .faults import Fault, with_retry_after
from .reply import Reply, as_json, parameters

if TYPE_CHECKING:
    from .dice import Dice
    from .people import Population

__all__ = ["AltaService"]


class AltaService:
    """Answers of one agent. The seed and the request decide the form of an answer."""

    def __init__(self, population: Population, dice: Dice) -> None:
        self.bindings = Bindings(population)
        self._dice = dice

    def unauthorized(self, target: str) -> Reply:
        """Answer a request with a wrong token: HTTP 401, or HTTP 200 with the error's code."""
        status = 401 if self._dice.share("token", target) < 0.5 else 200
        return self.fail(40127, "Authentication failed", status=status)

    def fail(self, code: int, message: str, *, status: int) -> Reply:
        """Return an error. `code` is the code in the body, not an HTTP status."""
        return as_json({"code": code, "message": message}, status=status)

    def injected(self, fault: Fault, target: str) -> Reply:
        """Return the answer of a service that has this fault."""
        if fault is Fault.SERVER_ERROR:
            return self.fail(50000, "Internal server error", status=500)
        status = 200 if fault is Fault.THROTTLED else 429
        reply = self.fail(40008, "Requests per minute exceeded", status=status)
        return with_retry_after(self._dice, reply, target)

    def cdp(self, target: str) -> Reply:
        """Answer `GET /v1/user/get-user-cdp`."""
        query = parameters(target)
        if query is None:
            return self.fail(40000, "Invalid query string", status=400)
        user_id = query.get("user_id", [""])[0]
        anonymous_id = query.get("anonymous_id", [""])[0]
        if user_id and anonymous_id:
            data = self.bindings.by_pair(user_id, anonymous_id)
        elif user_id:
            data = self.bindings.by_user(user_id)
        elif anonymous_id:
            data = self.bindings.by_anonymous(anonymous_id)
        else:
            return self.fail(40000, "Pass user_id or anonymous_id", status=400)
        if data:
            return _ok(data=data)
        return self._not_found(user_id, anonymous_id)

    def _not_found(self, user_id: str, anonymous_id: str) -> Reply:
        form = self._dice.below(4, "nothing", user_id, anonymous_id)
        if form == 0:
            return _ok(data={})
        if form == 1:
            return _ok(data=None)
        if form == 2:
            return _ok()
        if user_id:
            return self.fail(503, "User not found", status=200)
        return self.fail(504, "Anonymous id not found", status=200)


def _ok(**members: Any) -> Reply:
    return as_json({"code": 0, "message": "OK", **members})
