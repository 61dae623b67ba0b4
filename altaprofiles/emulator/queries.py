"""Queries of CleverTap's profiles and counts, from their JSON. No I/O.

Sources:
    [profiles] "Get User Profiles", https://developer.clevertap.com/docs/get-user-profiles-api
    [cql] "CleverTap Query Language",
        https://developer.clevertap.com/docs/clevertap-query-language
    [seen] public clients
"""

from __future__ import annotations

import asyncio
import re
from array import array
from typing import TYPE_CHECKING, Any

import msgspec

from .activity import day_number
from .filters import Filter, InvalidFilter, read_filters, unsupported

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .people import Population
    from .settings import BaseQuery, Settings

__all__ = ["Audiences", "Invalid", "Query", "read_query"]

_SLICE = 2000  # people that filters are evaluated for in one turn of the event loop

_BASE = ("event_name", "from", "to")
_ANY_EVENT = "-1"  # with a profile filter: a support script of the vendor's opens so [seen]
_COMMON = "common_profile_properties"
_FIELDS = "profile_fields"


class Invalid(Exception):
    """A query that the service refuses.

    Attributes:
        code: the code in the body.
        error: the text in the body, or a list of texts.
        status: the HTTP status, or None if the service answers with 200 as well as with 400.
    """

    def __init__(self, code: int, error: str | list[str], status: int | None = 400) -> None:
        super().__init__(code, error, status)
        self.code = code
        self.error = error
        self.status = status


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """The people to deliver. `event` is None for everyone: the base query is left out."""

    event: str | None = None
    start: int = 0
    end: int = 0
    event_properties: tuple[Filter, ...] = ()
    profile_fields: tuple[Filter, ...] = ()

    @property
    def identity(self) -> tuple[Any, ...]:
        """Values that tell this query from others, as they were sent."""
        filters = (self.event_properties, self.profile_fields)
        return (self.event, self.start, self.end, *(filters if any(filters) else ()))

    @property
    def people(self) -> tuple[Any, ...]:
        """Values that tell the people of this query: days in the place of dates and seconds."""
        days = (0, 0) if self.event is None else map(day_number, (self.start, self.end))
        return (self.event, *days, self.event_properties, self.profile_fields)


class Audiences:
    """The people of each query, found once, and again after people were added."""

    def __init__(self, population: Population) -> None:
        self._population = population
        self._roster = population.roster
        self._found: dict[tuple[Any, ...], array[int]] = {}

    async def of(self, query: Query) -> array[int]:
        """Return the numbers of the people for whom all of a query holds, in order of delivery."""
        if self._roster is not self._population.roster:
            self._roster = self._population.roster
            self._found = {}
        # A search that is under way when people are added keeps its result where it began.
        found = self._found
        # Keyed by days, so that dates and epoch seconds share the same list of people.
        key = query.people
        people = found.get(key)
        if people is None:
            people = found[key] = await self._find(query)
        return people

    async def _find(self, query: Query) -> array[int]:
        population = self._population
        if query.event is None:
            people = population.in_order()
        else:
            people = population.during(query.event, day_number(query.start), day_number(query.end))
        filters = query.event_properties, query.profile_fields
        if not any(filters):
            return people
        fitting = array("I")
        for start in range(0, len(people), _SLICE):
            some = people[start : start + _SLICE]
            fitting.extend(one for one in some if population.fits(one, query.event, *filters))
            await asyncio.sleep(0)
        return fitting


def read_query(body: bytes, settings: Settings, population: Population) -> Query:
    """Return the query of a request body ([profiles], Body Parameters; [cql]).

    Args:
        body: JSON.
        settings: those of notifications and of the base query hold.
        population: decides which events there are.

    Raises:
        Invalid: the service refuses the query, or this emulator does not emulate a part of it.
    """
    try:
        members = msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        raise Invalid(400, "Request body is not a JSON object") from None
    try:
        return _read(members, settings, population)
    except InvalidFilter as error:
        raise Invalid(4002, str(error)) from None


def _read(members: Mapping[str, Any], settings: Settings, population: Population) -> Query:
    for name in members:
        if name not in (*_BASE, "event_properties", _COMMON):
            raise unsupported(name)
    common = members.get(_COMMON, {})
    if not isinstance(common, dict):
        raise InvalidFilter(f"{_COMMON} must be an object")
    for name in common:
        if name != _FIELDS:
            raise InvalidFilter(
                f"{_COMMON}.{name} is not evaluated by the emulator of altaprofiles"
            )
    event_properties = read_filters(members.get("event_properties", []), "event_properties")
    profile_fields = read_filters(common.get(_FIELDS, []), _FIELDS)
    event = members.get("event_name")
    if event == _ANY_EVENT and profile_fields:
        event = None
    elif not any(name in members for name in _BASE):
        _check_baseless(settings.base_query, has_filters=bool(profile_fields))
    else:
        start, end = _read_base(members, notifications=settings.notification_exports)
        if not population.knows(members["event_name"]):
            raise Invalid(400, [f"Invalid event : {event}"], None)
        return Query(
            event=event,
            start=start,
            end=end,
            event_properties=event_properties,
            profile_fields=profile_fields,
        )
    if event_properties:
        raise InvalidFilter("event_properties need event_name, from and to")
    return Query(profile_fields=profile_fields)


def _check_baseless(base_query: BaseQuery, *, has_filters: bool) -> None:
    if base_query == "required":
        raise Invalid(4002, "event_name, from and to are required")
    if base_query == "with_filters" and not has_filters:
        raise Invalid(4002, "event_name, from and to are required without profile_fields")


def _read_base(members: Mapping[str, Any], *, notifications: bool) -> tuple[int, int]:
    event, start, end = (members.get(name) for name in _BASE)
    if any(name not in members for name in _BASE):
        raise Invalid(4002, "event_name, from and to must be given together")
    if not isinstance(event, str) or not event:
        raise Invalid(400, "event_name must be a string")
    if any(isinstance(day, str) and re.fullmatch(r"\d+-\d+-\d+", day) for day in (start, end)):
        raise Invalid(500, "An unknown error occurred", 500)  # [seen]
    if type(start) is not int or type(end) is not int:
        raise Invalid(4002, "from and to must be integers", None)
    try:
        is_backwards = day_number(start) > day_number(end)
    except ValueError as error:
        raise Invalid(4002, str(error), None) from None
    if is_backwards:
        raise Invalid(4002, "from must not be after to", None)
    if event.startswith("Notification") and not notifications:
        raise Invalid(400, "Export not allowed for this event")
    return start, end
