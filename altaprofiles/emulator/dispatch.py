"""The way of a request through the emulator: route, limits, access, faults, answer."""

from __future__ import annotations

import asyncio
from functools import partial
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec
from aiohttp import web

from .faults import (
    HARMLESS,
    PROXY,
    REFUSALS,
    Fault,
    check_rates,
    garble,
    possible_at,
    proxy_reply,
)
from .reply import names_in, parameters
from .writing import write

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from .alta import AltaService
    from .clevertap import CleverTapService
    from .dice import Dice
    from .faults import Plan
    from .limits import Group, Rates
    from .load import Load, Slot, Tally
    from .replay import Replay
    from .reply import Reply
    from .settings import Settings

__all__ = ["OPERATIONS", "Dispatcher", "Services"]


class Services(NamedTuple):
    """Both services."""

    clevertap: CleverTapService
    alta: AltaService


class _Route(NamedTuple):
    """One call of an API.

    Attributes:
        operation: the name it is counted by.
        api: the service it belongs to.
        group: the requests that it is limited together with.
        answer: returns the reply for a request target and a body.
    """

    operation: str
    api: Literal["clevertap", "alta"]
    group: Group
    answer: Callable[[Services, str, bytes], Reply | Awaitable[Reply]]


_OPEN = _Route(
    "open_chain", "clevertap", "chains", lambda to, *sent: to.clevertap.chains.open(*sent)
)
_PAGE = _Route(
    "page", "clevertap", "chains", lambda to, target, _: to.clevertap.chains.page(target)
)
_COUNT = _Route("count", "clevertap", "counts", lambda to, _, body: to.clevertap.count(body))
_POLL = _COUNT._replace(answer=lambda to, target, _: to.clevertap.poll(target))
_PROFILE = _Route(
    "profile", "clevertap", "lookups", lambda to, target, _: to.clevertap.profile(target)
)
_CDP = _Route("cdp", "alta", "alta", lambda to, target, _: to.alta.cdp(target))
_VERIFY = _Route("verify", "alta", "alta", lambda to, target, _: to.alta.verify(target))

_ROUTES = {
    ("POST", "/1/profiles.json", ""): _OPEN,
    # Both of the vendor's older clients open with a GET, others ask for pages with a POST.
    ("GET", "/1/profiles.json", "query"): _OPEN._replace(
        answer=lambda to, target, _: to.clevertap.chains.open(target, _query_in(target))
    ),
    ("GET", "/1/profiles.json", ""): _PAGE,
    ("POST", "/1/profiles.json", "cursor"): _PAGE,
    ("GET", "/1/profile.json", ""): _PROFILE,
    ("POST", "/1/counts/profiles.json", ""): _COUNT,
    ("GET", "/1/counts/profiles.json", ""): _POLL,
    ("POST", "/1/counts/profiles.json", "req_id"): _POLL,
    ("GET", "/v1/user/get-user-cdp", ""): _CDP,
    ("GET", "/v1/api-key/verify", ""): _VERIFY,
}
"""Every call that the emulator answers, by method, path and a parameter that makes it another call.
Routing, counting, limits and access follow from its row."""
_PATHS = frozenset(path for _, path, _ in _ROUTES)
_TELLING = frozenset(name for *_, name in _ROUTES if name)

_SECRETS = frozenset({"/passcode", "/token"})
"""Paths of the settings that no answer shows."""

OPERATIONS = tuple(dict.fromkeys(route.operation for route in _ROUTES.values()))
"""The names that requests are counted by."""


def _query_in(target: str) -> bytes:
    values = (parameters(target) or {}).get("query", [""])
    return values[0].encode()


class Dispatcher:
    """Answers every request of the emulator."""

    def __init__(
        self,
        services: Services,
        account_id: str,
        dice: Dice,
        plan: Plan,
        settings: Settings,
        load: Load,
        rates: Rates,
        tally: Tally,
        replay: Replay | None,
    ) -> None:
        self._services = services
        self._account_id = account_id
        self._dice = dice
        self._plan = plan
        self._settings = settings
        self._load = load
        self._rates = rates
        self._tally = tally
        self._replay = replay

    async def respond(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request.

        Raises:
            ConnectionError: the client has closed the connection.
        """
        target = request.raw_path
        path = target.partition("?")[0]
        if path == "/stats":
            body = msgspec.json.encode(self._tally.snapshot())
            return web.Response(body=body, content_type="application/json")
        if path == "/faults":
            return await _control(request, "faults", "a JSON object", self._faults)
        if path == "/think":
            return await _control(request, "think", "a number of seconds", self._think)
        if path in _SECRETS:
            name = path.removeprefix("/")
            change = partial(setattr, self._settings, name)
            return await _control(request, name, "a JSON text", change, is_secret=True)
        route = self._route(request.method, path, target)
        if isinstance(route, int):
            return web.json_response({"status": "fail", "code": route}, status=route)
        self._tally.requests[route.operation] += 1
        cursors = self._services.clevertap.chains.cursors
        cursor = cursors.read(target) if route is _PAGE else None
        slot = await self._load.enter(
            route.api, route.group, None if cursor is None else cursor.name
        )
        if isinstance(slot, str):
            self._tally.limited[slot] += 1
            refusal = self._service(route).too_many(target)
            return await self._write(request, route, refusal, (), lambda: None)
        try:
            return await self._answer(request, route, slot)
        finally:
            slot.release()

    def _faults(self, *new: Any) -> dict[str, float]:
        """Return the rates of all faults, after replacing them by those that are given."""
        for rates in new:
            self._plan.rates = check_rates(rates)
        return {one.value: rate for one, rate in self._plan.rates.items()}

    def _think(self, *new: Any) -> float:
        """Return the seconds before each answer, after replacing them by those that are given."""
        for seconds in new:
            self._settings.think = seconds
        return self._settings.think

    async def _answer(
        self, request: web.BaseRequest, route: _Route, slot: Slot
    ) -> web.StreamResponse:
        target = request.raw_path
        body = await request.read()
        is_authorized = self._authorized(request, route)
        limit = self._rates.admit(route.api) if is_authorized else None
        if limit is not None:
            self._tally.limited[limit] += 1
            refusal = self._service(route).rate_limited(target)
            return await self._write(request, route, refusal, (), slot.release)
        if self._settings.think:
            await asyncio.sleep(self._settings.think)
        if not is_authorized:
            refusal = self._service(route).unauthorized(target)
            return await self._write(request, route, refusal, (), slot.release)
        wire = b"%b %b\n%b" % (
            request.method.encode(),
            target.encode("utf-8", "surrogateescape"),
            body,
        )
        accepted = request.headers.get("Accept-Encoding", "")
        possible = possible_at(
            route.operation, gzip="gzip" in accepted, is_replay=self._replay is not None
        )
        faults = self._plan.next(wire, possible)
        reply = await self._reply(request.method, route, target, body, faults)
        return await self._write(request, route, reply, faults, slot.release)

    async def _reply(
        self, method: str, route: _Route, target: str, body: bytes, faults: Collection[Fault]
    ) -> Reply:
        for fault in faults:
            if fault in PROXY:
                return proxy_reply(self._dice, fault, target)
            if fault in REFUSALS:
                return self._service(route).injected(fault, target)
            if fault is Fault.COUNTING_NOT_READY:
                return self._services.clevertap.still_counting(target, body)
        answer: Reply | Awaitable[Reply]
        if self._replay is None:
            answer = route.answer(self._services, target, body)
        else:
            answer = self._replay.answer(method, target, body)
        reply = await answer if isawaitable(answer) else answer
        return garble(self._dice, reply, target) if Fault.GARBLED in faults else reply

    async def _write(
        self,
        request: web.BaseRequest,
        route: _Route,
        reply: Reply,
        faults: Collection[Fault],
        release: Callable[[], None],
    ) -> web.StreamResponse:
        self._tally.count_faults((*faults, *reply.faults))
        if reply.limit is not None:
            self._tally.limited[reply.limit] += 1
        headers = reply.headers | self._rates.headers(route.api)
        reply = msgspec.structs.replace(reply, headers=headers)
        response = await write(request, reply, faults, release)
        if reply.page is not None and HARMLESS.issuperset(faults):
            self._tally.count_served(reply.page)
        return response

    def _route(self, method: str, path: str, target: str) -> _Route | int:
        """Return the call that a request is, or the HTTP status of one that there is not."""
        for name in _TELLING & names_in(target):
            if (route := _ROUTES.get((method, path, name))) is not None:
                return route
        route = _ROUTES.get((method, path, ""))
        if route is None:
            return 405 if path in _PATHS else 404
        return 404 if route is _VERIFY and not self._settings.key_verification else route

    def _service(self, route: _Route) -> CleverTapService | AltaService:
        return self._services.alta if route.api == "alta" else self._services.clevertap

    def _authorized(self, request: web.BaseRequest, route: _Route) -> bool:
        headers, settings = request.headers, self._settings
        if route.api == "alta":
            return headers.get("Authorization") == f"Bearer {settings.token}"
        return (
            headers.get("X-CleverTap-Account-Id") == self._account_id
            and headers.get("X-CleverTap-Passcode") == settings.passcode
        )


async def _control(
    request: web.BaseRequest,
    name: str,
    kind: str,
    change: Callable[..., object],
    *,
    is_secret: bool = False,
) -> web.Response:
    """Return a setting as JSON, after replacing it if the request is a PUT.

    No other method changes it: a web page of another origin cannot send a PUT.
    A secret is replaced, and never returned.

    Args:
        request: the request.
        name: the name of the setting.
        kind: the form of its value, for the answer to another method.
        change: returns the setting, after replacing it if it gets a value.
        is_secret: True if nothing may show the value.
    """
    if request.method != "PUT" and (is_secret or request.method != "GET"):
        use = f"PUT with {kind}" if is_secret else f"GET, or PUT with {kind}"
        return web.json_response({"error": f"{name}: use {use}"}, status=405)
    if request.method == "GET":
        return web.json_response(change())
    try:
        value = change(msgspec.json.decode(await request.read()))
        return web.Response(status=204) if is_secret else web.json_response(value)
    except (ValueError, RecursionError) as error:
        is_json = not isinstance(error, (msgspec.MsgspecError, UnicodeError, RecursionError))
        message = str(error) if is_json else f"{name}: the body is not JSON"
        return web.json_response({"error": message}, status=400)
