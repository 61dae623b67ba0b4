"""Looking keys up: one way for every API.

An API is an `Endpoint`, plain data; nothing here depends on which one it is.
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from itertools import count
from typing import Any, Generic, TypeVar, get_args

import msgspec
from msgspec import Struct

from ..base.calls import CallName, naming
from ..base.checks import AS_INTS, READ_AGAIN, check_flag, check_key, check_whole, unknown
from ..base.verdicts import dooms_all
from ..base.wording import one_of
from ..errors import AltaProfilesError, ConfigurationError, InvalidArgument
from ..flow.fanout import Items, check_items, fan_out
from ..flow.lifetime import Reading
from ..flow.results import Results
from ..http.engine import Engine
from ..http.service import Service
from ..models import CdpUser, Key, Lookup, Profile
from ..models.customer import Found, bytes_in_memory
from ..wire import alta, clevertap
from ..wire.messages import Request, Response

__all__ = ["CDP", "LIKE_FLOATS", "PROFILES", "Endpoint", "Lookups", "endpoint_of"]

logger = logging.getLogger("altaprofiles")

R = TypeVar("R")
T = TypeVar("T")
V = TypeVar("V")


LIKE_FLOATS = (
    f"digits and '.0', the text of a float; if these were floats, {AS_INTS}; in a file of keys, as "
    f"`altaprofiles guide look-ups` does; but from 2**53 on, {READ_AGAIN}, as floats lose digits "
    f"there"
)
"""A warning of keys that were not found, behind their number."""

_LIKE_FLOAT = re.compile(r"[0-9]+\.0")


class Endpoint(Struct, Generic[V], frozen=True):
    """One call of an API that finds values by key.

    Attributes:
        name: the service and the operation of its requests.
        by: the kinds of key it takes.
        ask: returns the request for a kind and a key; raises `ConfigurationError` for a key that
            cannot be asked for.
        read: returns the value in a response, or None when the service knows none.
        encode: returns the line of NDJSON for a key and its value, without its end.
    """

    name: CallName
    by: tuple[str, ...]
    ask: Callable[[str, Any], Request]
    read: Callable[[Response], V | None]
    encode: Callable[[str, V], bytes]

    @property
    def operation(self) -> str:
        """The operation of its requests, as in `Attempt.operation`."""
        return self.name.operation

    def check_by(self, by: object) -> None:
        """Raise `ConfigurationError` unless `by` is one of the kinds of key."""
        if not isinstance(by, str) or by not in self.by:
            known = one_of(self.by, by)
            raise InvalidArgument(f"by: {unknown(by)}; use one of {known}{_other(by)}")


PROFILES: Endpoint[Profile] = Endpoint(
    CallName(clevertap.API, "get_profile"),
    get_args(clevertap.By),
    clevertap.get_profile,
    clevertap.read_profile,
    lambda key, profile: profile.encode(),
)
CDP: Endpoint[dict[str, CdpUser]] = Endpoint(
    CallName(alta.API, "get_user_cdp"),
    get_args(alta.CdpBy),
    lambda by, key: alta.get_user_cdp(**{by: check_key(by, key)}),
    lambda response: alta.read_users(response) or None,
    lambda key, users: msgspec.json.encode(Found(key, list(users.values()))),
)


def endpoint_of(by: object) -> Endpoint[Any]:
    """Return the endpoint that takes keys of the kind `by`.

    Raises:
        ConfigurationError: none does.
    """
    for endpoint in (PROFILES, CDP):
        if isinstance(by, str) and by in endpoint.by:
            return endpoint
    known = one_of((*PROFILES.by, *CDP.by), by)
    raise InvalidArgument(f"by: {unknown(by)}; use one of {known}")


_METHODS = (("session.profiles.get_many", PROFILES), ("session.cdp.get_many", CDP))


def _other(by: object) -> str:
    """Return advice to someone whose kind of key another method takes; empty for any other kind."""
    for method, endpoint in _METHODS:
        if isinstance(by, str) and by in endpoint.by:
            return f"; {method} takes {by!r}"
    return ""


class Lookups(Generic[V]):
    """Lookups of one account at one endpoint. Keeps no state: any number can run at once."""

    def __init__(self, engine: Engine, service: Service, endpoint: Endpoint[V]) -> None:
        self._engine = engine
        self._service = service
        self._endpoint = endpoint

    async def get(self, by: str, key: Key) -> V | None:
        """Return the value of one key, ahead of bulk work; None when the service knows none.

        Raises:
            ConfigurationError: `key` is not an identifier; nothing was sent.
            AltaProfilesError: the last attempt ended with something else.
        """
        request = self._endpoint.ask(by, key)
        return await self._engine.call(self._service, request, self._endpoint.read)

    async def look_up(self, by: str, key: Key, place: str) -> Lookup[V]:
        """Return the result of one key, as part of bulk work.

        Args:
            by: the kind of key.
            key: the key.
            place: its place in the caller's argument, such as `keys[3]`.

        Raises:
            AltaProfilesError: an error that would fail every other key as well.
        """
        try:
            request = self._endpoint.ask(by, key)
        except ConfigurationError as error:
            fault = str(error).removeprefix(by)
            invalid = InvalidArgument(f"{place}{fault}", value=key)
            invalid.locate(*self._endpoint.name)
            return Lookup(key, error=invalid)
        try:
            value = await self._engine.call(self._service, request, self._endpoint.read, bulk=True)
        except AltaProfilesError as error:
            if dooms_all(error):
                raise
            return Lookup(key, error=error)
        return Lookup(key, value)

    def get_many(
        self,
        keys: Items[Key],
        *,
        by: str,
        concurrency: int | None,
        ordered: bool,
        is_reported: bool = False,
    ) -> AsyncGenerator[Lookup[V], None]:
        """Yield the result of each of `keys`: see `Profiles.get_many`.

        `is_reported` tells that the caller warns of keys like floats by itself, with their number.
        """
        self._endpoint.check_by(by)
        check_items("keys", keys)
        # Calls start in the order of the keys.
        indexes = count()
        warned = is_reported

        async def look_up(key: Key) -> Lookup[V]:
            nonlocal warned
            lookup = await self.look_up(by, key, f"keys[{next(indexes)}]")
            if not warned and _is_like_float(lookup):
                warned = True
                logger.warning("some keys not found: %s", LIKE_FLOATS)
            return lookup

        return self.each(
            "get_many",
            keys,
            look_up,
            concurrency=concurrency,
            ordered=ordered,
            size=bytes_in_memory,
        )

    def each(
        self,
        name: str,
        items: Items[T],
        call: Callable[[T], Awaitable[R]],
        *,
        concurrency: int | None,
        ordered: bool,
        size: Callable[[R], int] = lambda result: 0,
    ) -> AsyncGenerator[R, None]:
        """Yield `call(item)` for each item, as many at once as keep every slot busy.

        `name` is the method that was called.
        `size` returns the bytes of a result in memory, for results that may be many or large: see
        `fan_out`.

        Raises:
            ConfigurationError: `concurrency` is not a whole number of at least 1, `ordered` not a
                bool, or the session cannot be used.
        """
        ordered = check_flag("ordered", ordered)
        if concurrency is None:
            concurrency = self._service.cap(self._endpoint.operation).limit
        reading = self._engine.reading()
        results = fan_out(
            call,
            items,
            concurrency=check_whole("concurrency", concurrency, least=1),
            ordered=ordered,
            spawn=reading.spawn,
            pausing=lambda: self._service.pausing,
            size=size,
            name=self._endpoint.name,
        )
        return Results(name, _noted(results, reading), reading)


async def _noted(results: AsyncGenerator[R, None], reading: Reading) -> AsyncGenerator[R, None]:
    with naming(None), reading.noting_failure():
        async with aclosing(results):
            async for result in results:
                yield result


def _is_like_float(lookup: Lookup[Any]) -> bool:
    """Return whether a key that was not found is the text of a number that was a float."""
    if lookup.value is not None or lookup.error is not None or not isinstance(lookup.key, str):
        return False
    return _LIKE_FLOAT.fullmatch(lookup.key) is not None
