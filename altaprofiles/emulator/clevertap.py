"""Answers of CleverTap's Get User Profiles and profile counts to single requests. No I/O.

As strict as the vendor, and as varied as the vendor's answers.

Sources:
    [profiles] "Get User Profiles", https://developer.clevertap.com/docs/get-user-profiles-api
    [counts] "Get User Profile Counts"
    [seen] public clients and captures
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from .chains import Chains
from .queries import Audiences, Invalid, Query, read_query
from .record_writer import RecordWriter
from .refusals import Refusals
from .reply import Reply, as_json, encode_members, names_in, parameters, style_of

if TYPE_CHECKING:
    from .dice import Dice
    from .faults import Fault, Plan
    from .people import Population
    from .settings import Settings

__all__ = ["CleverTapService"]

_POLLS = 4096  # counts in preparation; the oldest is forgotten first
_KEYS = ("email", "identity", "objectId")


class CleverTapService:
    """Answers of one account."""

    def __init__(self, population: Population, dice: Dice, plan: Plan, settings: Settings) -> None:
        self._population = population
        self._dice = dice
        self._settings = settings
        self._refusals = Refusals(dice, plan)
        self._audiences = Audiences(population)
        self._polls: OrderedDict[str, tuple[Query, int]] = OrderedDict()
        self._counted: dict[tuple[object, ...], int] = {}
        self._writer = RecordWriter(population, dice, plan)
        self.chains = Chains(
            population, self._audiences, self._writer, dice, plan, settings, self._refusals
        )

    def unauthorized(self, target: str) -> Reply:
        """Answer a request with wrong credentials."""
        return self._refusals.unauthorized(target)

    def too_many(self, target: str) -> Reply:
        """Refuse a request because others are in flight."""
        return self._refusals.too_many(target)

    def rate_limited(self, target: str) -> Reply:
        """Refuse a request because too many came in a minute."""
        return self._refusals.rate_limited(target)

    def injected(self, fault: Fault, target: str) -> Reply:
        """Return the answer of a service that has this fault."""
        return self._refusals.injected(fault, target)

    def profile(self, target: str) -> Reply:
        """Answer `GET /1/profile.json` ([profiles], Download User Profiles by ID)."""
        query = parameters(target)
        if query is None:
            return self._refusals.refuse("Invalid query string", target)
        keys = [
            (name, value) for name, values in query.items() if name in _KEYS for value in values
        ]
        if len(keys) != 1 or not keys[0][1]:
            return self._refusals.refuse("Pass exactly one of email, identity and objectId", target)
        index = self._population.find(*keys[0])
        if index is None:
            return self._missing(*keys[0])
        turn = self._dice.number("turn", *keys[0])
        style = style_of(self._dice, target)
        record, faults = self._writer.write(index, style, app=True, turn=turn)
        members = {"status": b'"success"', "record": record}
        if self._dice.share("order", target) < 0.3:
            members = dict(reversed(members.items()))
        body = encode_members(members, style)
        return Reply(body=body, faults=tuple(fault.value for fault in faults))

    async def count(self, body: bytes) -> Reply:
        """Answer `POST /1/counts/profiles.json` ([counts], partial responses)."""
        try:
            query = read_query(body, self._settings, self._population)
        except Invalid as fault:
            return self._refusals.invalid(fault, body.decode("utf-8", "replace"))
        if self._dice.share("partial", query.identity) < 0.5:
            return await self._count(query)
        return self._start_count(query)

    def still_counting(self, target: str, body: bytes) -> Reply:
        """Answer a request for a count, or a poll of it, as not ready ([counts])."""
        if "req_id" in names_in(target):
            request = _req_id(target)
            is_known = request in self._polls
            return _partial(request) if is_known else self._unknown_count(target)
        try:
            return self._start_count(read_query(body, self._settings, self._population))
        except Invalid as fault:
            return self._refusals.invalid(fault, body.decode("utf-8", "replace"))

    def _start_count(self, query: Query) -> Reply:
        identity = query.identity
        opening = self._counted[identity] = self._counted.get(identity, 0) + 1
        token = self._dice.token(12, "count", identity, opening)
        # Text, or a number [seen].
        is_number = self._dice.share("req_id", token) < 0.5
        request = str(int.from_bytes(token[:6])) if is_number else f"r{token.hex()}"
        self._polls[request] = (query, 1 + self._dice.below(2, "polls", request))
        if len(self._polls) > _POLLS:
            self._polls.popitem(last=False)
        return _partial(request)

    async def poll(self, target: str) -> Reply:
        """Answer a request for a count that was not ready at once ([counts], partial responses)."""
        request = _req_id(target)
        if request not in self._polls:
            return self._unknown_count(target)
        query, left = self._polls[request]
        if not left:
            return await self._count(query)
        self._polls[request] = (query, left - 1)
        return _partial(request)

    def _unknown_count(self, target: str) -> Reply:
        return self._refusals.refuse("Invalid req_id", target)

    async def _count(self, query: Query) -> Reply:
        people = len(await self._audiences.of(query))
        # The others are seen, and not documented: their values are made up.
        others = {"nQCount": people, "tcount": 2 * people, "userDeviceCount": people * 3 // 2}
        return as_json({"status": "success", "count": people, **others})

    def _missing(self, by: str, key: str) -> Reply:
        form = self._dice.below(4, "missing", by, key)
        if form == 0:
            return self._refusals.fail(404, "Profile not found", key, status=404)
        if form == 1:
            return as_json({"status": "success", "record": None})
        if form == 2:
            return as_json({"status": "success"})
        return self._refusals.fail(400, f"No profile found for the given {by}", key, status=200)


def _req_id(target: str) -> str:
    return ((parameters(target) or {}).get("req_id") or [""])[0]


def _partial(request: str) -> Reply:
    req_id = int(request) if request.isdecimal() else request
    return as_json({"status": "partial", "req_id": req_id})
