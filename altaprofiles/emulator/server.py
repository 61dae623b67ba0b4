"""The emulator: both services on one port of 127.0.0.1, with their limits and faults."""

from __future__ import annotations

import asyncio
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

import msgspec
from aiohttp import web

from ..credentials import Alta, CleverTap
from .alta import AltaService
from .clevertap import CleverTapService
from .dice import Dice
from .faults import HARMLESS, OF_CONTENT, Fault, Plan, check_rates, garble, proxy_reply
from .load import Tally, let_loop_turn
from .people import Population
from .settings import Settings, check_number
from .writing import write

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping

    from .bindings import Bindings
    from .load import Slot, Stats
    from .reply import Reply

__all__ = ["Emulator"]


class _Services(NamedTuple):
    clevertap: CleverTapService
    alta: AltaService


class _Route(NamedTuple):
    """One call of an API.

    Attributes:
        operation: the name it is counted by.
        api: the service it belongs to.
        answer: returns the reply for a request target and a body.
    """

    operation: str
    api: Literal["clevertap", "alta"]
    answer: Callable[[_Services, str, bytes], Reply | Awaitable[Reply]]


_ROUTES = {
    ("POST", "/1/profiles.json"): _Route(
        "open_chain", "clevertap", lambda to, target, body: to.clevertap.chains.open(target, body)
    ),
    ("GET", "/1/profiles.json"): _Route(
        "page", "clevertap", lambda to, target, body: to.clevertap.chains.page(target)
    ),
    ("GET", "/1/profile.json"): _Route(
        "profile", "clevertap", lambda to, target, body: to.clevertap.profile(target)
    ),
    ("POST", "/1/counts/profiles.json"): _Route(
        "count", "clevertap", lambda to, target, body: to.clevertap.count(body)
    ),
    ("GET", "/1/counts/profiles.json"): _Route(
        "count", "clevertap", lambda to, target, body: to.clevertap.poll(target)
    ),
    ("GET", "/v1/user/get-user-cdp"): _Route(
        "cdp", "alta", lambda to, target, body: to.alta.cdp(target)
    ),
}
"""Every call that the emulator answers. Routing, counting and access follow from its row."""
_PATHS = frozenset(path for _, path in _ROUTES)
_PROXY = frozenset({Fault.HTML, Fault.EMPTY})
_REFUSALS = frozenset({Fault.NOT_READY, Fault.THROTTLED, Fault.TOO_MANY, Fault.SERVER_ERROR})


class _Server(web.Server):
    """aiohttp's server, with a count of its connections and access to their transports."""

    def __init__(self, handler: Callable[[web.BaseRequest], Any], tally: Tally) -> None:
        super().__init__(handler, handler_cancellation=True, access_log=None)
        self._tally = tally
        self.transports: dict[web.RequestHandler, asyncio.Transport] = {}

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        self.transports[handler] = transport
        self._tally.connections += 1
        self._tally.open_connections += 1

    def connection_lost(
        self, handler: web.RequestHandler, exc: BaseException | None = None
    ) -> None:
        del self.transports[handler]
        self._tally.open_connections -= 1
        super().connection_lost(handler, exc)


class Emulator(Settings):
    """CleverTap's Get User Profiles and Alta's Query User CDP, served on loopback.

    An async context manager. It listens while it is entered, and may be exited from another task.
    The arguments and the requests alone decide the answers. All arguments but the first three are
    attributes, too: assign them to change them, even while it runs.

    Args:
        people: number of people in the account, 0 or more.
        seed: decides the people, the variants of answers, and the faults.
        port: the TCP port, or 0 for any free one.
        faults: rates from 0 to 1 by fault name (see `Fault`). After 3 failures in a row the next
            attempt at the same request succeeds, unless the rate is 1, which is an outage. Of three
            chains of the same query, the third has neither `empty_chain` nor `cut_short`.
        think: seconds before each answer.
        max_in_flight: CleverTap requests answered at the same time, 1 or more. Any further request
            gets HTTP 429.
        cursor_lifetime: seconds for which a cursor is valid after its chain was opened.
        notification_exports: True if people can be exported by "Notification Sent" and
            "Notification Viewed", as the vendor's page says; False if the service refuses them, as
            some clients have seen.

    Raises:
        ValueError: an argument is out of bounds, also when it is assigned.

    >>> from altaprofiles.emulator import Emulator
    >>> day = 20260101
    >>> async with Emulator(people=100, faults={"server_error": 0.1}) as emulator:
    ...     async with Session(clevertap=emulator.clevertap) as session:
    ...         people = session.profiles.by_event("Charged", start=day, end=day)
    ...         emails = [person.email async for person in people]
    >>> numbers = emulator.population.active("Charged", day, day)
    >>> emails == [emulator.population.email(number) for number in numbers]
    True
    """

    def __init__(
        self,
        *,
        people: int = 1000,
        seed: int = 0,
        faults: Mapping[str, float] | Mapping[Fault, float] | None = None,
        port: int = 0,
        think: float = 0.0,
        max_in_flight: int = 3,
        cursor_lifetime: float = 4 * 86_400,
        notification_exports: bool = True,
    ) -> None:
        check_number("people", people, 0, int)
        check_number("port", port, 0, int)
        self.think = think
        self.max_in_flight = max_in_flight
        self.cursor_lifetime = cursor_lifetime
        self.notification_exports = notification_exports
        self._dice = Dice(seed)
        self._plan = Plan(self._dice)
        self._plan.rates = check_rates(faults)
        self._population = Population(people, seed)
        self._services = _Services(
            CleverTapService(self._population, self._dice, self._plan, self),
            AltaService(self._population, self._dice),
        )
        self._account_id = f"TEST-{self._dice.token(5, 'account').hex().upper()}"
        self._passcode = self._dice.token(12, "passcode").hex()
        self._token = f"app-{self._dice.token(12, 'token').hex()}"
        self._port = port
        self._tally = Tally(self, [route.operation for route in _ROUTES.values()])
        self._tasks: set[asyncio.Task[Any]] = set()
        self._server: _Server | None = None
        self._runner: web.ServerRunner | None = None

    async def __aenter__(self) -> Self:
        if self._runner is not None:
            raise RuntimeError("this emulator is already running; create another one")
        self._server = _Server(self._handle, self._tally)
        runner = web.ServerRunner(self._server, shutdown_timeout=1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", self._port, backlog=1024).start()
        except BaseException:
            await runner.cleanup()
            raise
        self._runner = runner
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        runner, server = self._runner, self._server
        if runner is None or server is None:
            return
        self._runner = self._server = None
        for site in runner.sites:
            await site.stop()
        server.pre_shutdown()
        answering = list(self._tasks)
        for task in answering:
            task.cancel()
        await asyncio.gather(*answering, return_exceptions=True)
        await runner.cleanup()
        for transport in list(server.transports.values()):
            # It is closed already, but stays open if the client does not read.
            transport.abort()
        await let_loop_turn()

    @property
    def url(self) -> str:
        """The base URL of both services, such as "http://127.0.0.1:40123".

        Raises:
            RuntimeError: the emulator is not running.
        """
        if self._runner is None:
            raise RuntimeError("the emulator has a URL only while it runs; enter it: async with …")
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    @property
    def clevertap(self) -> CleverTap:
        """Credentials for the CleverTap account, with the emulator's URL."""
        return CleverTap(account_id=self._account_id, passcode=self._passcode, base_url=self.url)

    @property
    def alta(self) -> Alta:
        """Credentials for the Alta agent, with the emulator's URL."""
        return Alta(token=self._token, base_url=self.url)

    @property
    def environment(self) -> dict[str, str]:
        """Both credentials as environment variables, as `Session.from_env()` reads them."""
        return {
            "CLEVERTAP_ACCOUNT_ID": self._account_id,
            "CLEVERTAP_PASSCODE": self._passcode,
            "CLEVERTAP_BASE_URL": self.url,
            "ALTA_TOKEN": self._token,
            "ALTA_BASE_URL": self.url,
        }

    @property
    def faults(self) -> dict[str, float]:
        """Rates by fault name. Assign another mapping to change them, even while it runs."""
        return {fault.value: rate for fault, rate in self._plan.rates.items()}

    @faults.setter
    def faults(self, faults: Mapping[str, float] | Mapping[Fault, float]) -> None:
        self._plan.rates = check_rates(faults)

    @property
    def stats(self) -> Stats:
        """Counters of requests, faults and connections. `GET /stats` returns them as JSON."""
        return self._tally.snapshot()

    @property
    def population(self) -> Population:
        """Everyone in the CleverTap account, to compare answers with."""
        return self._population

    @property
    def bindings(self) -> Bindings:
        """The users and anonymous IDs of the Alta agent, to compare answers with."""
        return self._services.alta.bindings

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101
        self._tasks.add(task)
        try:
            return await self._respond(request)
        except ConnectionError:
            return web.Response()
        finally:
            self._tasks.discard(task)

    async def _respond(self, request: web.BaseRequest) -> web.StreamResponse:
        target = request.raw_path
        path = target.partition("?")[0]
        if path == "/stats":
            body = msgspec.json.encode(self.stats)
            return web.Response(body=body, content_type="application/json")
        route = _ROUTES.get((request.method, path))
        if route is None:
            status = 405 if path in _PATHS else 404
            return web.json_response({"status": "fail", "code": status}, status=status)
        self._tally.requests[route.operation] += 1
        load = self._tally.loads[route.api]
        clevertap = self._services.clevertap
        cursor = clevertap.chains.cursors.read(target) if route.operation == "page" else None
        slot = await load.enter(None if cursor is None else cursor.name)
        if slot is None:
            refusal = clevertap.injected(Fault.TOO_MANY, target)
            return await write(request, refusal, (), lambda: None)
        try:
            return await self._answer(request, route, slot)
        finally:
            slot.release()

    async def _answer(
        self, request: web.BaseRequest, route: _Route, slot: Slot
    ) -> web.StreamResponse:
        target = request.raw_path
        body = await request.read()
        if self.think:
            await asyncio.sleep(self.think)
        if not self._authorized(request, route):
            refusal = self._service(route).unauthorized(target)
            self._count(map(Fault, refusal.faults))
            return await write(request, refusal, (), slot.release)
        wire = b"%b %b\n%b" % (
            request.method.encode(),
            target.encode("utf-8", "surrogateescape"),
            body,
        )
        faults = self._plan.next(wire, _possible(request, route))
        reply = await self._reply(request, route, body, faults)
        self._count((*faults, *map(Fault, reply.faults)))
        response = await write(request, reply, faults, slot.release)
        if reply.page is not None and faults <= HARMLESS:
            self._tally.count_served(reply.page)
        return response

    async def _reply(
        self, request: web.BaseRequest, route: _Route, body: bytes, faults: Collection[Fault]
    ) -> Reply:
        target = request.raw_path
        for fault in faults:
            if fault in _PROXY:
                return proxy_reply(self._dice, fault, target)
            if fault in _REFUSALS:
                return self._service(route).injected(fault, target)
        answer = route.answer(self._services, target, body)
        reply = await answer if isawaitable(answer) else answer
        return garble(self._dice, reply, target) if Fault.GARBLED in faults else reply

    def _service(self, route: _Route) -> CleverTapService | AltaService:
        return self._services.alta if route.api == "alta" else self._services.clevertap

    def _authorized(self, request: web.BaseRequest, route: _Route) -> bool:
        headers = request.headers
        if route.api == "alta":
            return headers.get("Authorization") == f"Bearer {self._token}"
        return (
            headers.get("X-CleverTap-Account-Id") == self._account_id
            and headers.get("X-CleverTap-Passcode") == self._passcode
        )

    def _count(self, faults: Iterable[Fault]) -> None:
        for fault in faults:
            self._tally.faults[fault.value] += 1


def _possible(request: web.BaseRequest, route: _Route) -> frozenset[Fault]:
    """Return the faults that can occur for one request."""
    possible = frozenset(Fault) - OF_CONTENT
    if route.operation != "page":
        possible -= {Fault.NOT_READY}
    if "gzip" not in request.headers.get("Accept-Encoding", ""):
        possible -= {Fault.GZIP}
    return possible
