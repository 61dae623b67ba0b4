"""Answers of CleverTap's Get User Profiles and profile counts to single requests. No I/O.

As strict as the vendor, and as varied as the vendor's answers.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import msgspec

from .activity import BUCKETS, day_number
from .cursors import CHAIN_KEY_BYTES, Cursors, Place
from .faults import Fault, with_retry_after
from .reply import Reply, as_json, encode_members, encode_value, parameters

if TYPE_CHECKING:
    from array import array

    from .dice import Dice
    from .faults import Plan
    from .people import Population
    from .reply import Style

__all__ = ["CleverTapService"]

DEFAULT_BATCH = 4991
MAX_BATCH = 5000
_SLICE = 200  # records rendered in one turn of the event loop
_POLLS = 4096  # counts in preparation; the oldest is forgotten first
_ORDERS = (
    ("status", "next_cursor", "records"),
    ("status", "records", "next_cursor"),
    ("next_cursor", "status", "records"),
    ("next_cursor", "records", "status"),
    ("records", "status", "next_cursor"),
    ("records", "next_cursor", "status"),
)
_KEYS = ("email", "identity", "objectId")


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """An event query: the people who did an event in a range of days."""

    event: str
    start: int
    end: int


class Chain(msgspec.Struct, kw_only=True):
    """One opened cursor walk. `batch` is the page size in records, 0 for all in one page."""

    key: bytes
    query: Query
    batch: int
    app: bool
    events: bool
    profile: bool
    opened: float
    look: bytes
    """Decides how pages are written. It is the same each time that the chain is opened."""
    bare_end: bool
    """True if a page without records follows the last one with records."""
    opening: int
    """Number of times that the query has been opened, this one included."""


class CleverTapService:
    """Answers of one account."""

    def __init__(
        self, population: Population, dice: Dice, plan: Plan, *, cursor_lifetime: float
    ) -> None:
        self._population = population
        self._dice = dice
        self._plan = plan
        self.cursors = Cursors(dice)
        self._lifetime = cursor_lifetime
        self._chains: dict[bytes, Chain] = {}
        self._opened: dict[tuple[Any, ...], int] = {}
        self._people: dict[tuple[str, int, int], array[int]] = {}
        self._polls: OrderedDict[str, tuple[Query, int]] = OrderedDict()

    def fail(self, code: int | str, error: str | list[str], key: str, *, status: int) -> Reply:
        """Return a failure. Some send their code as text."""
        if self._dice.share("code", code, key) < 0.3:
            code = str(code)
        return as_json({"status": "fail", "error": error, "code": code}, status=status)

    def _refuse(self, error: str | list[str], key: str) -> Reply:
        return self.fail(400, error, key, status=400)

    def unauthorized(self, target: str) -> Reply:
        """Answer a request with wrong credentials."""
        return self.fail(401, "Invalid Credentials", target, status=401)

    def fault_reply(self, fault: Fault, target: str) -> Reply:
        """Return the answer of a service that has this fault."""
        if fault is Fault.NOT_READY:
            status = (200, 202)[self._dice.below(2, "not ready", target)]
            error = "Request still in progress, please retry later"
            return self.fail(2, error, target, status=status)
        if fault is Fault.THROTTLED:
            reply = self.fail(1, "Request throttled", target, status=200)
            return with_retry_after(self._dice, reply, target)
        if fault is Fault.TOO_MANY:
            reply = self.fail(429, "Too many concurrent requests", target, status=429)
            return with_retry_after(self._dice, reply, target)
        if self._dice.share("server error", target) < 0.5:
            return self.fail(500, "An unknown error occurred", target, status=500)
        reply = self.fail(503, "Service Unavailable", target, status=503)
        return with_retry_after(self._dice, reply, target)

    def open_chain(self, target: str, body: bytes) -> Reply:
        """Answer `POST /1/profiles.json`."""
        query = self._query(body)
        if isinstance(query, Reply):
            return query
        options = parameters(target)
        if options is None:
            return self._refuse("Invalid query string", target)
        batch = DEFAULT_BATCH
        if "batch_size" in options:
            text = options["batch_size"][0]
            if not re.fullmatch(r"[0-9]{1,9}", text):
                return self._refuse("batch_size must be an integer", target)
            batch = int(text)
        if batch > MAX_BATCH:
            return self._refuse(f"batch_size cannot exceed {MAX_BATCH}", target)
        flags = {"app": False, "events": True, "profile": True}
        for name in flags:
            text = options.get(name, [str(flags[name]).lower()])[0]
            if text not in ("true", "false"):
                return self._refuse(f"{name} must be true or false", target)
            flags[name] = text == "true"
        batch -= batch % BUCKETS
        identity = (query.event, query.start, query.end, batch, *flags.values())
        opening = self._opened[identity] = self._opened.get(identity, 0) + 1
        key = self._dice.token(CHAIN_KEY_BYTES, "chain", identity, opening)
        self._chains[key] = Chain(
            key=key,
            query=query,
            batch=batch,
            opened=time.monotonic(),
            look=self._dice.token(CHAIN_KEY_BYTES, "look", identity),
            bare_end=self._dice.share("end", key) < 0.5,
            opening=opening,
            **flags,
        )
        members = {
            "cursor": encode_value(self.cursors.write(Place(key, 0))),
            "status": b'"success"',
        }
        if self._dice.share("order", key) < 0.5:
            members = dict(reversed(members.items()))
        return Reply(body=encode_members(members, self._style(key)))

    async def page(self, target: str) -> Reply:
        """Answer `GET /1/profiles.json`."""
        place = self.cursors.read(target)
        chain = None if place is None else self._chains.get(place.chain)
        if place is None or chain is None:
            return self._either(3, "Incorrect Usage", target)
        if time.monotonic() - chain.opened > self._lifetime:
            return self._either("CURSOR_INVALIDATED", "Cursor has been invalidated", target)
        if place.hop == 0 and self._plan.meets(Fault.EMPTY_PAGE, place):
            body = self._page_body(place, [], place._replace(hop=1), "compact")
            return Reply(body=body, page=place.name, fault=Fault.EMPTY_PAGE)
        people = self._matching(chain.query)
        if people and self._plan.spoils(Fault.EMPTY_CHAIN, chain.key, chain.opening):
            body = self._page_body(place, [], None, self._style(chain.key))
            return Reply(body=body, page=place.name, fault=Fault.EMPTY_CHAIN)
        size = chain.batch or max(len(people), 1)
        first = place.page * size
        if first >= len(people) and chain.bare_end:
            bare: Style = "spaced" if self._dice.share("bare", place) < 0.5 else "compact"
            body = encode_members({"status": b'"success"'}, bare)
        else:
            style = self._style((chain.look, place.page))
            records = await self._records(chain, people[first : first + size], style)
            ends = first + size >= len(people) and not chain.bare_end
            following = None if ends else Place(chain.key, place.page + 1)
            if first + size < len(people) and self._plan.spoils(
                Fault.CUT_SHORT, place, chain.opening
            ):
                body = self._page_body(place, records, None, style)
                return Reply(body=body, page=place.name, fault=Fault.CUT_SHORT)
            if following is not None and self._plan.meets(Fault.OTHER_CURSOR, place):
                body = self._page_body(place, records, following, style, name="cursor")
                return Reply(body=body, page=place.name, fault=Fault.OTHER_CURSOR)
            body = self._page_body(place, records, following, style)
        return Reply(body=body, page=place.name)

    async def _records(self, chain: Chain, people: array[int], style: Style) -> list[bytes]:
        query = chain.query
        turn = self._dice.number("turn", query.event, query.start, query.end)
        records: list[bytes] = []
        for start in range(0, len(people), _SLICE):
            for index in people[start : start + _SLICE]:
                record = self._population.record(
                    index, app=chain.app, events=chain.events, profile=chain.profile, turn=turn
                )
                records.append(encode_value(record, style))
            await asyncio.sleep(0)
        return records

    def _page_body(
        self,
        place: Place,
        records: list[bytes],
        following: Place | None,
        style: Style,
        *,
        name: str = "next_cursor",
    ) -> bytes:
        members = {"status": b'"success"', "records": b"[" + b",".join(records) + b"]"}
        if following is not None:
            members["next_cursor"] = encode_value(self.cursors.write(following))
        order = _ORDERS[self._dice.below(len(_ORDERS), "order", place)]
        members = {
            name if key == "next_cursor" else key: members[key] for key in order if key in members
        }
        return encode_members(members, style)

    def profile(self, target: str) -> Reply:
        """Answer `GET /1/profile.json`."""
        query = parameters(target)
        if query is None:
            return self._refuse("Invalid query string", target)
        keys = [
            (name, value) for name, values in query.items() if name in _KEYS for value in values
        ]
        if len(keys) != 1 or not keys[0][1]:
            return self._refuse("Pass exactly one of email, identity and objectId", target)
        index = self._population.find(*keys[0])
        if index is None:
            return self._missing(*keys[0])
        turn = self._dice.number("turn", *keys[0])
        style = self._style(target)
        record = encode_value(self._population.record(index, app=True, turn=turn), style)
        members = {"status": b'"success"', "record": record}
        if self._dice.share("order", target) < 0.3:
            members = dict(reversed(members.items()))
        return Reply(body=encode_members(members, style))

    def count(self, body: bytes) -> Reply:
        """Answer `POST /1/counts/profiles.json`."""
        query = self._query(body)
        if isinstance(query, Reply):
            return query
        identity = (query.event, query.start, query.end)
        if self._dice.share("partial", identity) < 0.5:
            return self._counted(query)
        opening = self._opened[identity] = self._opened.get(identity, 0) + 1
        request = self._dice.token(12, "count", identity, opening).hex()
        self._polls[request] = (query, 1 + self._dice.below(2, "polls", request))
        if len(self._polls) > _POLLS:
            self._polls.popitem(last=False)
        return as_json({"status": "partial", "req_id": request})

    def poll(self, target: str) -> Reply:
        """Answer `GET /1/counts/profiles.json`."""
        request = ((parameters(target) or {}).get("req_id") or [""])[0]
        if request not in self._polls:
            return self._refuse("Invalid req_id", target)
        query, left = self._polls[request]
        if not left:
            return self._counted(query)
        self._polls[request] = (query, left - 1)
        return as_json({"status": "partial", "req_id": request})

    def _counted(self, query: Query) -> Reply:
        return as_json({"status": "success", "count": len(self._matching(query))})

    def _query(self, body: bytes) -> Query | Reply:
        key = body.decode("utf-8", "replace")
        try:
            members = msgspec.json.decode(body, type=dict[str, Any])
        except (msgspec.MsgspecError, UnicodeError):
            return self._refuse("Request body is not a JSON object", key)
        event, start, end = (members.get(name) for name in ("event_name", "from", "to"))
        if not isinstance(event, str) or not event:
            return self._refuse("event_name must be a string", key)
        if type(start) is not int or type(end) is not int:
            return self._refuse("from and to must be integers", key)
        try:
            backwards = day_number(start) > day_number(end)
        except ValueError as error:
            return self._refuse(str(error), key)
        if backwards:
            return self._refuse("from must not be after to", key)
        if event.startswith("Notification"):
            return self._refuse("Export not allowed for this event", key)
        if event not in self._population.events:
            return self._either(400, [f"Invalid event : {event}"], key)
        return Query(event=event, start=start, end=end)

    def _either(self, code: int | str, error: str | list[str], key: str) -> Reply:
        status = 200 if self._dice.share("status", code, key) < 0.5 else 400
        return self.fail(code, error, key, status=status)

    def _matching(self, query: Query) -> array[int]:
        # Keyed by days, so that dates and epoch seconds share the same list of people.
        days = (query.event, day_number(query.start), day_number(query.end))
        people = self._people.get(days)
        if people is None:
            people = self._people[days] = self._population.during(*days)
        return people

    def _style(self, key: object) -> Style:
        share = self._dice.share("style", key)
        if share < 0.85:
            return "compact"
        return "spaced" if share < 0.93 else "indented"

    def _missing(self, by: str, key: str) -> Reply:
        form = self._dice.below(4, "missing", by, key)
        if form == 0:
            return self.fail(404, "Profile not found", key, status=404)
        if form == 1:
            return as_json({"status": "success", "record": None})
        if form == 2:
            return as_json({"status": "success"})
        return self.fail(400, f"No profile found for the given {by}", key, status=200)
