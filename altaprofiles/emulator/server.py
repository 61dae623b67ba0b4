"""The emulator: both services behind one port of 127.0.0.1, their limits and their faults."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self

import msgspec
from aiohttp import web

from ..credentials import Alta, CleverTap
from .alta import AltaService
from .clevertap import CleverTapService
from .dice import Dice
from .faults import HARMLESS, Fault, Plan, check_rates, garble, proxy_reply
from .load import Tally, let_loop_turn
from .people import Population
from .writing import write

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from .bindings import Bindings
    from .load import Slot, Stats
    from .reply import Reply

_ROUTES = {
    ("POST", "/1/profiles.json"): "open_chain",
    ("GET", "/1/profiles.json"): "page",
    ("GET", "/1/profile.json"): "profile",
    ("POST", "/1/counts/profiles.json"): "count",
    ("GET", "/1/counts/profiles.json"): "count",
    ("GET", "/v1/user/get-user-cdp"): "cdp",
}
_PATHS = frozenset(path for _, path in _ROUTES)
_PROXY = frozenset({Fault.HTML, Fault.EMPTY})
_REFUSALS = frozenset({Fault.NOT_READY, Fault.THROTTLED, Fault.TOO_MANY, Fault.SERVER_ERROR})


class _Server(web.Server):
    """aiohttp's server, with its connections counted and at hand."""

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


class Emulator:
    """CleverTap's Get User Profiles and Alta's Query User CDP, served on loopback.

    An async context manager: it listens while entered, and any task may leave it. Everything it
    answers follows from the arguments and the requests.

    Args:
        people: how many people the account has.
        seed: decides the people, the variants of answers and the faults.
        faults: rates of 0 to 1 by fault name (see `Fault`). After 3 failures in a row a request
            goes through, unless a rate is 1: that is an outage.
        port: the TCP port, 0 for a free one.
        think: seconds before any request is answered.
        max_in_flight: CleverTap requests answered at once; one more gets HTTP 429.
        cursor_lifetime: seconds after its chain was opened in which a cursor is valid.

    Raises:
        ValueError: an argument is out of its bounds.
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
    ) -> None:
        for name, value, least in (
            ("people", people, 0),
            ("port", port, 0),
            ("think", think, 0),
            ("max_in_flight", max_in_flight, 1),
            ("cursor_lifetime", cursor_lifetime, 0),
        ):
            if not value >= least:
                raise ValueError(f"{name} is {value!r}; use {least} or more")
        self._dice = Dice(seed)
        self._plan = Plan(self._dice)
        self._plan.rates = check_rates(faults)
        self._population = Population(people, seed)
        self._clevertap = CleverTapService(
            self._population, self._dice, self._plan, cursor_lifetime=cursor_lifetime
        )
        self._alta = AltaService(self._population, self._dice)
        self._account_id = f"TEST-{self._dice.token(5, 'account').hex().upper()}"
        self._passcode = self._dice.token(12, "passcode").hex()
        self._token = f"app-{self._dice.token(12, 'token').hex()}"
        self._port = port
        self._think = think
        self._tally = Tally(max_in_flight)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._server: _Server | None = None
        self._runner: web.ServerRunner | None = None

    async def __aenter__(self) -> Self:
        if self._runner is not None:
            raise RuntimeError("this emulator is running already; make another one")
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
            # Closed already, but a client that does not read would keep it open.
            transport.abort()
        await let_loop_turn()

    @property
    def url(self) -> str:
        """The address of both services, such as "http://127.0.0.1:40123".

        Raises:
            RuntimeError: the emulator is not running.
        """
        if self._runner is None:
            raise RuntimeError("the emulator has an address only while it runs: async with it")
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    @property
    def clevertap(self) -> CleverTap:
        """Credentials of the CleverTap account, with the emulator's address."""
        return CleverTap(account_id=self._account_id, passcode=self._passcode, base_url=self.url)

    @property
    def alta(self) -> Alta:
        """Credentials of the Alta agent, with the emulator's address."""
        return Alta(token=self._token, base_url=self.url)

    @property
    def environment(self) -> dict[str, str]:
        """The same as environment variables."""
        return {
            "CLEVERTAP_ACCOUNT_ID": self._account_id,
            "CLEVERTAP_PASSCODE": self._passcode,
            "CLEVERTAP_BASE_URL": self.url,
            "ALTA_TOKEN": self._token,
            "ALTA_BASE_URL": self.url,
        }

    @property
    def faults(self) -> dict[str, float]:
        """Rates by fault name; assign another mapping to start or end an outage."""
        return {fault.value: rate for fault, rate in self._plan.rates.items()}

    @faults.setter
    def faults(self, faults: Mapping[str, float] | Mapping[Fault, float]) -> None:
        self._plan.rates = check_rates(faults)

    @property
    def stats(self) -> Stats:
        """What has been served so far; `GET /stats` answers the same as JSON."""
        return self._tally.snapshot()

    @property
    def population(self) -> Population:
        """Everyone in the account, to compare answers with."""
        return self._population

    @property
    def bindings(self) -> Bindings:
        """The users and anonymous IDs of the Alta agent, to compare answers with."""
        return self._alta.bindings

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
        operation = _ROUTES.get((request.method, path))
        if operation is None:
            status = 405 if path in _PATHS else 404
            return web.json_response({"status": "fail", "code": status}, status=status)
        self._tally.requests[operation] += 1
        load = self._tally.loads["alta" if operation == "cdp" else "clevertap"]
        cursor = self._clevertap.cursors.read(target) if operation == "page" else None
        slot = await load.enter(None if cursor is None else cursor.name)
        if slot is None:
            refusal = self._clevertap.trouble(Fault.TOO_MANY, target)
            return await write(request, refusal, (), lambda: None)
        try:
            return await self._answer(request, operation, slot)
        finally:
            slot.release()

    async def _answer(
        self, request: web.BaseRequest, operation: str, slot: Slot
    ) -> web.StreamResponse:
        target = request.raw_path
        body = await request.read()
        if self._think:
            await asyncio.sleep(self._think)
        service = self._alta if operation == "cdp" else self._clevertap
        if not self._authorized(request, operation):
            return await write(request, service.unauthorized(target), (), slot.release)
        wire = b"%b %b\n%b" % (
            request.method.encode(),
            target.encode("utf-8", "surrogateescape"),
            body,
        )
        faults = self._plan.next(wire, _possible(request, operation))
        self._count(faults)
        reply = await self._reply(request, operation, body, faults)
        response = await write(request, reply, faults, slot.release)
        if reply.page is not None and faults <= HARMLESS:
            self._tally.served(reply.page)
        return response

    async def _reply(
        self, request: web.BaseRequest, operation: str, body: bytes, faults: Collection[Fault]
    ) -> Reply:
        target = request.raw_path
        for fault in faults:
            if fault in _PROXY:
                return proxy_reply(self._dice, fault, target)
            if fault in _REFUSALS:
                service = self._alta if operation == "cdp" else self._clevertap
                return service.trouble(fault, target)
        if operation == "page":
            reply = await self._clevertap.page(target)
        elif operation == "open_chain":
            reply = self._clevertap.open_chain(target, body)
        elif operation == "profile":
            reply = self._clevertap.profile(target)
        elif operation == "cdp":
            reply = self._alta.cdp(target)
        elif request.method == "POST":
            reply = self._clevertap.count(body)
        else:
            reply = self._clevertap.poll(target)
        if reply.empty_page:
            self._count({Fault.EMPTY_PAGE})
        return garble(self._dice, reply, target) if Fault.GARBLED in faults else reply

    def _authorized(self, request: web.BaseRequest, operation: str) -> bool:
        sent = request.headers
        if operation == "cdp":
            return sent.get("Authorization") == f"Bearer {self._token}"
        return (
            sent.get("X-CleverTap-Account-Id") == self._account_id
            and sent.get("X-CleverTap-Passcode") == self._passcode
        )

    def _count(self, faults: Collection[Fault]) -> None:
        for fault in faults:
            self._tally.faults[fault.value] += 1


def _possible(request: web.BaseRequest, operation: str) -> frozenset[Fault]:
    """Return the faults that make sense for one request."""
    possible = frozenset(Fault) - {Fault.EMPTY_PAGE}
    if operation != "page":
        possible -= {Fault.NOT_READY}
    if "gzip" not in request.headers.get("Accept-Encoding", ""):
        possible -= {Fault.GZIP}
    return possible
