"""One request's life — cap, send, interpret, retry — and the background tasks of a session.

The only place that retries. Knows neither endpoints nor what an answer means.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

import anyio
from anyio.abc import TaskGroup

from .errors import (
    AltaProfilesError,
    ConfigurationError,
    NotReady,
    RateLimited,
    RequestTimeout,
    TransportError,
)
from .handover import INTERRUPTED, is_cancelled_here
from .limits import Cap, Pace
from .models import Attempt, Stats
from .retry import MAX_RETRY_AFTER, Budget, Retry, is_transient
from .transport import Transport
from .wire.http import Request, Response

__all__ = ["Engine", "Service"]

T = TypeVar("T")

logger = logging.getLogger("altaprofiles")


class Service:
    """One account on one API: where it is, what proves who asks, and the slots it allows.

    Args:
        api: "CleverTap" or "Alta".
        url: its base URL.
        headers: sent with every request.
        secret: what must not appear in an error.
        cap: its requests in flight.
        pace: how fast they may start, or None.
    """

    def __init__(
        self,
        *,
        api: str,
        url: str,
        headers: Mapping[str, str],
        secret: str,
        cap: Cap,
        pace: Pace | None = None,
    ) -> None:
        self.api = api
        self.url = url
        self.headers = headers
        self.secret = secret
        self.cap = cap
        self.pace = pace


class Engine:
    """Sends requests for as long as it is open, and owns the tasks that work ahead of callers.

    Those tasks live in one task group hosted by a task of its own, so that the engine can be opened
    in one task and closed in another, as test fixtures and web frameworks do.
    """

    def __init__(
        self,
        *,
        transport: Transport,
        retry: Retry,
        on_event: Callable[[Attempt], object] | None,
    ) -> None:
        self.stats = Stats()
        self._transport = transport
        self._retry = retry
        self._on_event = on_event
        self._budget = Budget(retry.budget, time.monotonic())
        self._state = "new"
        self._loop: asyncio.AbstractEventLoop | None = None
        self._host: asyncio.Task[None] | None = None
        self._tasks: TaskGroup | None = None
        self._stop: asyncio.Event | None = None

    # ------------------------------------------------------------------------------- open and close

    async def open(self) -> None:
        """Start the host task.

        Raises:
            ConfigurationError: it has been opened before.
        """
        if self._state != "new":
            raise ConfigurationError(
                "this Session has been opened before, or closed; make a new one each time"
            )
        self._state = "open"
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        await self._transport.open()
        ready = self._loop.create_future()
        self._host = self._loop.create_task(self._run(ready, self._stop), name="altaprofiles")
        try:
            await ready
        except BaseException:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        """End every background task and close every connection. Safe to call more than once.

        Raises:
            ConfigurationError: it was opened in another event loop, which is still running.
        """
        if self._host is not None and self._stop is not None and not self._host.done():
            self._check_loop()
            self._state = "closed"
            self._stop.set()
            # Not awaited itself: a caller cancelled here must not leave the closing half done, and
            # a host that somebody cancelled must not cancel the caller.
            await asyncio.wait([self._host])
        self._state = "closed"
        # The host does this too, unless it was cancelled before it had begun.
        await self._transport.aclose()

    async def _run(self, ready: asyncio.Future[None], stop: asyncio.Event) -> None:
        try:
            async with anyio.create_task_group() as self._tasks:
                if not ready.done():
                    ready.set_result(None)
                await stop.wait()
                self._tasks.cancel_scope.cancel()
        finally:
            self._state = "closed"
            with anyio.CancelScope(shield=True):
                await self._transport.aclose()

    def check_open(self) -> None:
        """Raise `ConfigurationError` unless this can be used here and now."""
        if self._state == "new":
            raise ConfigurationError(
                "this Session is not open yet; use it inside `async with Session(...) as session:`"
            )
        if self._state == "closed":
            raise ConfigurationError("this Session is closed, or its event loop is; open a new one")
        self._check_loop()

    def _check_loop(self) -> None:
        if self._loop is not asyncio.get_running_loop():
            raise ConfigurationError(
                "this Session was opened in another event loop; open one Session per loop"
            )

    # ----------------------------------------------------------------------------- background tasks

    def spawn(
        self,
        job: Callable[[], Awaitable[None]],
        ended: Callable[[BaseException | None], None],
    ) -> Callable[[], None]:
        """Run `job` in the background and return what cancels it.

        `ended` is called exactly once, when it is over: with None after success, else with the
        exception; closing the session counts as a `ConfigurationError`.
        """
        self.check_open()
        scope = anyio.CancelScope()

        async def run() -> None:
            error: BaseException | None = ConfigurationError(
                "this Session was closed while its results were still being read"
            )
            try:
                with scope:
                    await job()
                    error = None
            except asyncio.CancelledError:
                if is_cancelled_here():
                    raise
                # Raised, it would end every other task of the session, too.
                error = AltaProfilesError(INTERRUPTED)
            except BaseException as failure:
                # Not raised here: in the task group it would end every other task.
                error = failure
            finally:
                ended(error)

        if self._tasks is None:
            raise RuntimeError("an open engine has a task group")
        self._tasks.start_soon(run)
        return scope.cancel

    # --------------------------------------------------------------------------- one request's life

    async def call(
        self,
        service: Service,
        request: Request,
        read: Callable[[Response], T],
        *,
        within_budget: bool = True,
    ) -> T:
        """Return what `read` makes of the answer to `request`, trying again while that can help.

        Args:
            service: whom to ask, and under which cap.
            request: what to ask.
            read: turns a response into a value, or raises what it stands for. It runs after the
                slot has been given back.
            within_budget: whether retries are taken from the session's budget.

        Raises:
            AltaProfilesError: what the last try ended with.
        """
        if (deadline := self._retry.deadline) is None:
            return await self._attempts(service, request, read, within_budget, math.inf)
        ends = time.monotonic() + deadline
        with anyio.move_on_after(deadline):
            return await self._attempts(service, request, read, within_budget, ends)
        raise RequestTimeout(
            f"{service.api}: {request.operation} was not done within the deadline of {deadline} s"
        )

    async def _attempts(
        self,
        service: Service,
        request: Request,
        read: Callable[[Response], T],
        within_budget: bool,
        ends: float,
    ) -> T:
        failures = polls = 0
        ready_by = math.inf
        while True:
            began = await self._turn(service)
            response = None
            started = time.monotonic()
            try:
                response = await self._send(service, request)
                value = read(response)
            except AltaProfilesError as failure:
                error = failure
            else:
                self._budget.deposit()
                service.cap.succeeded()
                self._tell(service, request, failures + polls + 1, started, response, None, None)
                return value

            # Frames and contexts hold the body, which may be megabytes, and may echo the request.
            error.__traceback__ = error.__context__ = error.__cause__ = None
            error.redact(service.secret)
            now = time.monotonic()
            if isinstance(error, NotReady):
                self.stats.not_ready += 1
                polls += 1
                if polls == 1:
                    ready_by = now + self._retry.ready_timeout
                delay = min(self._retry.delay(polls, random.random), max(ready_by - now, 0.0))
                again = now < ready_by
            else:
                failures += 1
                delay = self._retry.delay(failures, random.random)
                again = (
                    is_transient(error)
                    and failures < self._retry.attempts
                    and (not within_budget or self._budget.withdraw(now))
                )
            asked = getattr(error, "retry_after", None) or 0.0
            delay = max(delay, asked)
            # A wait that the deadline would end is none: the error says more than the deadline.
            again = again and asked <= MAX_RETRY_AFTER and now + delay < ends
            if isinstance(error, RateLimited):
                self.stats.throttles += 1
                service.cap.throttled(began)
            number = failures + polls
            self._tell(service, request, number, started, response, error, delay if again else None)
            if not again:
                try:
                    raise error
                finally:
                    # This frame is in the traceback: with these it would keep the body alive, and
                    # the error itself.
                    del error, response
            self.stats.retries += 1
            await self._pause(delay)

    async def _pause(self, seconds: float) -> None:
        """Sleep, or wake up when the session is closed."""
        if self._stop is not None:
            with anyio.move_on_after(seconds):
                await self._stop.wait()

    async def _turn(self, service: Service) -> int:
        """Wait for a slot, and for the pace with the slot in hand; return when it began."""
        began = await service.cap.acquire()
        try:
            self.check_open()
            if service.pace is not None and (wait := service.pace.reserve(time.monotonic())) > 0:
                # Paced before they have a slot, requests could wait for one and start at once.
                await self._pause(wait)
                self.check_open()
        except BaseException:
            service.cap.release()
            raise
        return began

    async def _send(self, service: Service, request: Request) -> Response:
        """Return the response, and give the slot back."""
        self.stats.requests += 1
        try:
            response = await self._transport.send(request, service.url, service.headers)
        except BaseException as error:
            # The socket of an abandoned request is closed on the loop's next turn. Until then the
            # service still counts it, so the slot is not free earlier.
            asyncio.get_running_loop().call_soon(service.cap.release)
            if not isinstance(error, asyncio.CancelledError) or _is_being_cancelled():
                raise
        else:
            service.cap.release()
            self.stats.bytes += len(response.body)
            return response
        # Nobody cancelled the caller: closing the pool cancels its own name resolution, and that
        # comes out of it as if the caller had been.
        self.check_open()
        raise TransportError(f"{service.api}: the connection pool gave up on the request")

    def _tell(
        self,
        service: Service,
        request: Request,
        number: int,
        started: float,
        response: Response | None,
        error: AltaProfilesError | None,
        delay: float | None,
    ) -> None:
        if error is not None:
            logger.debug(
                "%s %s, try %d: %s; next try in %s",
                service.api,
                request.operation,
                number,
                error,
                "no case" if delay is None else f"{delay:.2f} s",
            )
        if self._on_event is not None:
            self._on_event(
                Attempt(
                    api=service.api,
                    operation=request.operation,
                    number=number,
                    seconds=time.monotonic() - started,
                    status=None if response is None else response.status,
                    bytes=0 if response is None else len(response.body),
                    error=error,
                    delay=delay,
                )
            )


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0
