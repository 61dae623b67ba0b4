"""Cursor chains of CleverTap's Get User Profiles: their opening and their pages. No I/O.

Sources:
    [profiles] "Get User Profiles", https://developer.clevertap.com/docs/get-user-profiles-api
    [seen] public clients and captures
"""

from __future__ import annotations

import asyncio
import re
import time
from typing import TYPE_CHECKING, Literal

import msgspec

from .activity import BUCKETS
from .cursors import CHAIN_KEY_BYTES, Cursors, Place
from .faults import Fault
from .queries import Invalid, Query, read_query
from .reply import Reply, encode_members, encode_value, parameters, style_of

if TYPE_CHECKING:
    from array import array
    from collections.abc import Mapping
    from typing import Any

    from .dice import Dice
    from .faults import Plan
    from .people import Population
    from .queries import Audiences
    from .record_writer import RecordWriter
    from .refusals import Refusals
    from .reply import Style
    from .settings import Settings

__all__ = ["Chains"]

DEFAULT_BATCH = 4991
MAX_BATCH = 5000
_SLICES = {"small": 200, "real": 25}  # records rendered in one turn of the event loop
_ORDERS = (
    ("status", "next_cursor", "records"),
    ("status", "records", "next_cursor"),
    ("next_cursor", "status", "records"),
    ("next_cursor", "records", "status"),
    ("records", "status", "next_cursor"),
    ("records", "next_cursor", "status"),
)
_FLAGS = {"app": False, "events": True, "profile": True}


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
    end: Literal["records", "bare", "empty"]
    """The last page: the last records, only a status, or an empty list of records."""
    opening: int
    """Number of times that the query has been opened, this one included."""
    last_request: float
    """Time of the latest request for the chain."""
    is_starved: bool
    """True if too many chains were open, so that it has no records."""
    is_over: bool = False
    """True once its last page has been asked for."""
    people: array[int] | None = None
    """The people at the time of its first page. Nobody who is added later belongs to it."""


class Chains:
    """The chains of one account."""

    def __init__(
        self,
        population: Population,
        audiences: Audiences,
        writer: RecordWriter,
        dice: Dice,
        plan: Plan,
        settings: Settings,
        refusals: Refusals,
    ) -> None:
        self._population = population
        self._audiences = audiences
        self._writer = writer
        self._dice = dice
        self._plan = plan
        self._settings = settings
        self._refusals = refusals
        self._chains: dict[bytes, Chain] = {}
        self._opened: dict[tuple[Any, ...], int] = {}
        self.cursors = Cursors(dice)

    def open(self, target: str, body: bytes) -> Reply:
        """Answer a request for a first cursor ([profiles], Get Cursor).

        Args:
            target: the raw request target, which has the options.
            body: the query, as JSON.
        """
        key = body.decode("utf-8", "replace")
        try:
            query = read_query(body, self._settings, self._population)
        except Invalid as fault:
            return self._refusals.invalid(fault, key)
        try:
            batch, flags = _read_options(parameters(target))
        except ValueError as error:
            return self._refusals.refuse(str(error), target)
        identity = (*query.identity, batch, *flags.values())
        opening = self._opened[identity] = self._opened.get(identity, 0) + 1
        chain = self._dice.token(CHAIN_KEY_BYTES, "chain", identity, opening)
        now = time.monotonic()
        self._chains[chain] = Chain(
            key=chain,
            query=query,
            batch=batch,
            opened=now,
            look=self._dice.token(CHAIN_KEY_BYTES, "look", identity),
            end=self._end_of(chain),
            opening=opening,
            last_request=now,
            is_starved=self._is_full(now),
            app=flags["app"],
            events=flags["events"],
            profile=flags["profile"],
        )
        members = {
            "cursor": encode_value(self.cursors.write(Place(chain, 0))),
            "status": b'"success"',
        }
        if self._dice.share("order", chain) < 0.5:
            members = dict(reversed(members.items()))
        return Reply(body=encode_members(members, style_of(self._dice, chain)))

    def _end_of(self, chain: bytes) -> Literal["records", "bare", "empty"]:
        if self._plan.meets(Fault.EMPTY_END, chain):
            return "empty"
        return "bare" if self._dice.share("end", chain) < 0.5 else "records"

    def _is_full(self, now: float) -> bool:
        most = self._settings.max_open_chains
        if most is None:
            return False
        since = now - self._settings.window_seconds
        return most <= sum(
            chain.last_request >= since and not (chain.is_over or chain.is_starved)
            for chain in self._chains.values()
        )

    async def page(self, target: str) -> Reply:
        """Answer a request for a page ([profiles], Get User Profiles Using Cursor)."""
        place = self.cursors.read(target)
        chain = None if place is None else self._chains.get(place.chain)
        if place is None or chain is None:
            return self._refusals.either(3, "Incorrect Usage", target)
        if time.monotonic() - chain.opened > self._settings.cursor_lifetime:
            return self._refusals.either(
                "CURSOR_INVALIDATED", "Cursor has been invalidated", target
            )
        chain.last_request = time.monotonic()
        if chain.is_starved:
            body = self._body(place, [], None, style_of(self._dice, chain.key))
            return Reply(body=body, page=place.name, limit="max_open_chains")
        if place.hop == 0 and self._plan.meets(Fault.EMPTY_PAGE, place):
            body = self._body(place, [], place._replace(hop=1), "compact")
            return _page(place, body, Fault.EMPTY_PAGE)
        if chain.people is None:
            chain.people = await self._audiences.of(chain.query)
        people = chain.people
        if people and self._plan.spoils(Fault.EMPTY_CHAIN, chain.key, chain.opening):
            chain.is_over = True
            body = self._body(place, [], None, style_of(self._dice, chain.key))
            return _page(place, body, Fault.EMPTY_CHAIN)
        size = chain.batch or max(len(people), 1)
        first = place.page * size
        if first >= len(people) and chain.end == "empty":
            chain.is_over = True
            return _page(place, self._body(place, [], None, "compact"), Fault.EMPTY_END)
        if first >= len(people) and chain.end == "bare":
            chain.is_over = True
            bare: Style = "spaced" if self._dice.share("bare", place) < 0.5 else "compact"
            return _page(place, encode_members({"status": b'"success"'}, bare))
        style: Style = "compact"
        if self._population.record_size == "small":
            # Pages of real records are large, and slow to write in any other style.
            style = style_of(self._dice, (chain.look, place.page))
        records, odd = await self._records(chain, people[first : first + size], style)
        chain.is_over = first + size >= len(people) and chain.end == "records"
        following = None if chain.is_over else Place(chain.key, place.page + 1)
        if first + size < len(people) and self._plan.spoils(Fault.CUT_SHORT, place, chain.opening):
            chain.is_over = True
            body = self._body(place, records, None, style)
            return _page(place, body, Fault.CUT_SHORT, *odd)
        if following is not None and self._plan.meets(Fault.OTHER_CURSOR, place):
            body = self._body(place, records, following, style, name="cursor")
            return _page(place, body, Fault.OTHER_CURSOR, *odd)
        return _page(place, self._body(place, records, following, style), *odd)

    async def _records(
        self, chain: Chain, people: array[int], style: Style
    ) -> tuple[list[bytes], list[Fault]]:
        """Return the records of people, and the faults that changed some of them."""
        query = chain.query
        turn = self._dice.number("turn", query.event, query.start, query.end)
        records: list[bytes] = []
        faults: list[Fault] = []
        step = _SLICES[self._population.record_size]
        for start in range(0, len(people), step):
            for index in people[start : start + step]:
                record, changes = self._writer.write(
                    index,
                    style,
                    app=chain.app,
                    events=chain.events,
                    profile=chain.profile,
                    turn=turn,
                )
                records.append(record)
                faults.extend(changes)
            await asyncio.sleep(0)
        return records, faults

    def _body(
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


def _page(place: Place, body: bytes, *faults: Fault) -> Reply:
    return Reply(body=body, page=place.name, faults=tuple(fault.value for fault in faults))


def _read_options(options: Mapping[str, list[str]] | None) -> tuple[int, dict[str, bool]]:
    """Return batch size and flags ([profiles], Query Parameters), 0 for all people in one page.

    The service rounds down to multiples of 23, and has no limit below [seen].

    Raises:
        ValueError: an option is invalid.
    """
    if options is None:
        raise ValueError("Invalid query string")
    batch = DEFAULT_BATCH
    if "batch_size" in options:
        text = options["batch_size"][0]
        if not re.fullmatch(r"[0-9]{1,9}", text):
            raise ValueError("batch_size must be an integer")
        batch = int(text)
    if batch > MAX_BATCH:
        raise ValueError(f"batch_size cannot exceed {MAX_BATCH}")
    flags = dict(_FLAGS)
    for name, default in _FLAGS.items():
        text = options.get(name, [str(default).lower()])[0]
        if text not in ("true", "false"):
            raise ValueError(f"{name} must be true or false")
        flags[name] = text == "true"
    return batch - batch % BUCKETS, flags
